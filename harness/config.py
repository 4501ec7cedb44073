# SPDX-License-Identifier: BSD-2-Clause
"""Where things are: the store, and the data that comes with the package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import platformdirs

HOME_VARIABLE = "DFLY_HARNESS_HOME"


def store_home() -> Path:
    """Return the store's folder: $DFLY_HARNESS_HOME, else the platform's place for user data."""
    if chosen := os.environ.get(HOME_VARIABLE):
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_data_path("dfly-harness", appauthor=False))


def share() -> Path:
    """Return the folder that holds suites/, images/ and conftest.py: the checkout, or their copy in the package."""
    package = Path(__file__).resolve().parent
    installed = package / "_share"
    return installed if installed.is_dir() else package.parent


def here(command: str) -> str:
    """Return COMMAND, which begins with dfly-harness, as it can be typed: tox has it in a place of its own."""
    word, _, rest = command.partition(" ")
    program = Path(sys.prefix) / "bin" / word
    if "TOX_ENV_DIR" not in os.environ or not program.exists():
        return command
    return f"{os.path.relpath(program)} {rest}"

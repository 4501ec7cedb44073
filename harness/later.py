# SPDX-License-Identifier: BSD-2-Clause
"""Modules that are loaded when they are first used: most commands, and each of a run's workers, do without them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Later:
    """Stands for the module NAME, which is loaded as soon as anything of it is asked for.

    For a type checker the module itself has to be imported beside it, under TYPE_CHECKING.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        """Load the module, and return its ATTRIBUTE."""
        return getattr(import_module(self._name), attribute)

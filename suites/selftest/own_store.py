# SPDX-License-Identifier: BSD-2-Clause
"""A store of a test's own."""

from __future__ import annotations

from pathlib import Path

from harness.store import Store


def make_store(folder: Path) -> Store:
    """Return a store in FOLDER, empty but for what takes long to make, such as the verdict on accelerators.

    That is kept with the user's own store, in its cache, and has been made there.
    """
    home = folder / "store"
    home.mkdir()
    (home / "cache").symlink_to(Store().cache)
    return Store(home)

# SPDX-License-Identifier: BSD-2-Clause
"""Options and fixtures of the test suites; the plugin has them, so that an installed harness has them too."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from harness.config import HOME_VARIABLE
from harness.store import Store

pytest_plugins = ["harness.plugin.entry"]

# What selftests share with the user's store: all that is found by content, or made again by whoever needs it.
_SHARED = ("blobs", "builds", "cache", "downloads", "images", "kernels", "locks", "media", "run", "snapshots")
_OWN_STORE = pytest.StashKey[Path]()


def pytest_collection_finish() -> None:
    """Take what has been collected out of the garbage collector's sight: it stays to the end.

    pytest ends a session by ten full collections.  A selftest that runs a session of its own, as each wrong oracle
    does, would walk thousands of collected tests each time: four fifths of its time.
    """
    if gc.get_freeze_count() == 0:  # that of a session within a session goes with it
        gc.collect()
        gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let selftests leave results and recordings in a store of their own, and interrupt what they start.

    A shell hands SIGINT down ignored to its jobs, nohup SIGHUP.
    """
    if "selftest" not in item.path.parts:
        return
    if _OWN_STORE not in item.config.stash:
        item.config.stash[_OWN_STORE] = _make_store()
        os.environ[HOME_VARIABLE] = str(item.config.stash[_OWN_STORE])
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def _make_store() -> Path:
    users = Store()
    home = Path(tempfile.mkdtemp(prefix="store-", dir=users.folder("selftest")))
    for name in _SHARED:
        (home / name).symlink_to(users.folder(name))
    return home


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the store of the selftests."""
    if (home := config.stash.get(_OWN_STORE, None)) is not None:
        shutil.rmtree(home, ignore_errors=True)
        with contextlib.suppress(OSError):  # another run's is there yet
            home.parent.rmdir()

# SPDX-License-Identifier: BSD-2-Clause
"""What all commands' parsers have in common."""

from __future__ import annotations

import argparse
import errno
import os

from harness.cli.commands import SUMMARIES
from harness.errors import HarnessError
from harness.store import Store

_RECORD = 1 << 20  # bytes, more than the record of most runs


def begin_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, example: str
) -> argparse.ArgumentParser:
    """Add one of dfly-harness's own commands, whose summary is in harness.cli.commands."""
    return add_command(commands, name, SUMMARIES[name], example)


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, example: str
) -> argparse.ArgumentParser:
    """Add a command with its summary and an example to its --help.

    Options must be written out: a prefix of ours may be an option of pytest's, to which `run` hands on what it does
    not know.
    """
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def require_room(store: Store, *, machines: bool = True) -> None:
    """Raise HarnessError where STORE has no room for what runs leave, or is not ours: better told before their tests.

    Runs without MACHINES take nothing from it, and leave next to nothing.
    """
    if machines:
        _require_writable(store)
        store.require_space(0, "a run")
    else:
        store.require_space(0, "the run's record", headroom=_RECORD)


def _require_writable(store: Store) -> None:
    """Raise HarnessError where STORE is read-only, or another user's."""
    for name in ("cache", "locks", "results", "run"):
        try:
            folder = store.folder(name)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                why = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
                raise OSError(why, os.strerror(why))  # noqa: TRY301  (one place says what to do)
        except OSError as error:
            raise HarnessError(
                f"the store {store.home} cannot be written ({error.strerror}): set DFLY_HARNESS_HOME to a writable"
                " folder"
            ) from error

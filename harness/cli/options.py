# SPDX-License-Identifier: BSD-2-Clause
"""What all commands' parsers have in common."""

from __future__ import annotations

import argparse

from harness.store import Store

_RECORD = 1 << 20  # bytes, more than the record of most runs


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
    """Raise HarnessError where STORE has no room for what runs leave: better told now than after their tests."""
    if machines:
        store.require_space(0, "a run")
    else:
        store.require_space(0, "the run's record", headroom=_RECORD)

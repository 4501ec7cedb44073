# SPDX-License-Identifier: BSD-2-Clause
"""completion: what a shell needs to complete our commands, made from the parsers when it is asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from harness.cli.options import begin_command
from harness.errors import ExitCode

SHELLS = ("bash", "zsh", "fish")
#: What options and arguments call files and folders.
_FILES = {"FILE", "PATH", "RECORD", "RUN", "KEY"}
_FOLDERS = {"TREE", "FOLDER", "REPO", "SOURCE"}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add completion."""
    parser = begin_command(
        commands,
        "completion",
        'eval "$(dfly-harness completion bash)"',
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    parser.set_defaults(action=_completion)


def _completion(options: argparse.Namespace) -> int:
    import shtab  # which other commands do without

    from harness.cli import build_parser

    parser = build_parser()
    for action in _actions(parser):
        name = action.metavar if isinstance(action.metavar, str) else ""
        if kind := shtab.FILE if name in _FILES else shtab.DIR if name in _FOLDERS else None:
            action.complete = kind  # type: ignore[attr-defined]  # shtab's
    sys.stdout.write(shtab.complete(parser, shell=options.shell))
    return ExitCode.PASSED


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)

# SPDX-License-Identifier: BSD-2-Clause
"""The manual page, made from the parsers as the page of commands is: the same under every version of Python."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator

from harness.cli import build_parser
from harness.config import share
from support.commands import ENVIRONMENT, STATUSES, known, value_of

_HEAD = r"""
.\" SPDX-License-Identifier: BSD-2-Clause
.\" Made by `python suites/support/pages.py man` from the parsers; do not edit.
""".lstrip()
_SEE = "qemu-system-x86_64(1), pytest(1), kyua(1)"


def make() -> str:
    """Return the page in troff's man macros."""
    parser = build_parser()
    # What is installed may be older than what this is about.
    version = tomllib.loads((share() / "pyproject.toml").read_text())["project"]["version"]
    return "\n".join([_HEAD + f'.TH DFLY\\-HARNESS 1 "" "dfly\\-harness {_text(version)}"', *_page(parser), ""])


def _page(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield ".SH NAME"
    yield f"dfly\\-harness \\- {_text('boots real DragonFly BSD kernels under QEMU and tests their processes')}"
    yield ".SH SYNOPSIS"
    yield ".B dfly\\-harness"
    yield "COMMAND [OPTION...] [ARGUMENT...]"
    yield ".br\n.B dfly\\-harness\n.B \\-\\-version"
    yield ".SH DESCRIPTION"
    yield _text(parser.description or "")
    yield _text("COMMAND --help says of each command what this page does.")
    yield ".SH COMMANDS"
    yield from _commands(parser, "")
    yield ".SH EXIT STATUS"
    yield from _table(STATUSES)
    yield ".SH ENVIRONMENT"
    yield from _table(ENVIRONMENT)
    yield ".SH SEE ALSO"
    yield _text(_SEE)


def _table(rows: dict[str, str]) -> Iterator[str]:
    for name, meaning in rows.items():
        yield f".TP\n.B {_text(name)}\n{_text(meaning)}"


def _commands(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, command in action.choices.items():
                yield from _command(command, f"{name} {word}".strip())
                yield from _commands(command, f"{name} {word}".strip())


def _command(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    yield f".SS {_text(name)}"
    yield _text(parser.description or "")
    for action in parser._actions:
        if isinstance(action, (argparse._SubParsersAction, argparse._HelpAction)) or action.help == argparse.SUPPRESS:
            continue
        value = "" if action.nargs == 0 else value_of(action)
        names = ", ".join(f"\\fB{_text(option)}\\fR {_text(value)}".rstrip() for option in action.option_strings)
        yield f".TP\n{names or _text(value.strip())}\n{_text((action.help or '') % known(parser, action))}"
    if parser.epilog:
        yield ".PP\nExample:"
        yield f".RS\n.EX\n{_text(parser.epilog.partition(chr(10))[2].strip())}\n.EE\n.RE"


def _text(text: str) -> str:
    """Return TEXT as troff prints it: signs that mean something to it are escaped, and no line begins with one."""
    escaped = " ".join(text.split(" ")).replace("\\", "\\e").replace("-", "\\-")
    escaped = (
        escaped.replace("'", "\\(aq")
        .replace("`", "\\(ga")
        .replace("^", "\\(ha")
        .replace("~", "\\(ti")
        .replace("|", "|\\:")
    )
    lines = [" ".join(line.split()) for line in escaped.splitlines() if line.strip()]
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in lines)

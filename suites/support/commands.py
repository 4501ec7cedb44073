# SPDX-License-Identifier: BSD-2-Clause
"""The page of commands, made from the parsers: what argparse prints differs by the version of Python, this does not."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from harness.cli import build_parser
from harness.cli.commands import SUMMARIES

_HEAD = """\
# Commands and their options

`dfly-harness COMMAND --help` says the same.  Options that `run` does not have go to pytest (`-m EXPR`, `--maxfail N`),
whose names for ours begin with `--dfly-`: `pytest suites/conformance --dfly-kernel K` equals `run --kernel K`.
Listings take `--json`, and their lines stay whole in a pipe.  This page is made from the parsers, by
`python suites/support/pages.py commands`.
"""
STATUSES = {
    "0": "everything passed",
    "1": "something speaks against the kernel: a failed test, a panic, a hang; it does not build or does not boot",
    "2": "usage: an unknown name, no test matches, a mistake in a test",
    "3": "the harness or the host failed, or nothing boots: no verdict",
    "128 + signal": "130 after Ctrl-C, 143 after SIGTERM",
}
ENVIRONMENT = {
    "DFLY_HARNESS_HOME": "where the store is; else the platform's folder for user data",
    "PYTEST_ADDOPTS": "options for pytest, which `run` heeds as pytest does",
    "DFLY_HARNESS_SSH": "how other hosts are reached (`--hosts`), such as `ssh -F FILE`",
    "DFLY_HARNESS_BOOT_DEADLINE": "how many seconds a target may take to boot, instead of 180",
    "DFLY_HARNESS_SEED": "set for each run of `compare` and `bisect`: what a test draws by chance, it draws by this",
    "CC": "the C compiler for the boot stub and the executor; else gcc, clang or cc",
    "GITHUB_STEP_SUMMARY": "set by GitHub Actions: the run's summary is added to that file",
    "GITHUB_WORKSPACE": "set by GitHub Actions: the checkout in which `report --github` looks for the tests' files",
}


def make() -> str:
    """Return the page."""
    statuses = [f"| {name} | {meaning} |" for name, meaning in STATUSES.items()]
    variables = [f"| `{name}` | {meaning} |" for name, meaning in ENVIRONMENT.items()]
    brief = [f"| [{name}](#dfly-harness-{name}) | {_cell(summary)} |" for name, summary in SUMMARIES.items()]
    commands = ["| command | what it does |\n|---|---|", *brief, ""]
    tables = ["| exit status | means |\n|---|---|", *statuses, "\n| environment | means |\n|---|---|", *variables, ""]
    return "\n".join([_HEAD, *commands, *tables, *_commands(build_parser(), "dfly-harness")])


def _commands(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, command in action.choices.items():
                yield from _command(command, f"{name} {word}")
                yield from _commands(command, f"{name} {word}")


def _command(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"{' '.join((parser.description or '').split())}\n"
    if parser.epilog:
        yield f"```console\n$ {parser.epilog.partition(chr(10))[2].strip()}\n```\n"
    rows = [row for action in parser._actions if (row := _row(parser, action))]
    if rows:
        yield "| option | means |\n|---|---|"
        yield "\n".join(rows) + "\n"


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if isinstance(action, (argparse._SubParsersAction, argparse._HelpAction)) or action.help == argparse.SUPPRESS:
        return ""
    value = "" if action.nargs == 0 else value_of(action)
    names = ", ".join(f"`{option}{value}`" for option in action.option_strings) or f"`{value.strip()}`"
    return f"| {_cell(names)} | {_cell((action.help or '') % known(parser, action))} |"


def value_of(action: argparse.Action) -> str:
    """Return what stands behind the option of ACTION, with a space before it."""
    named = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices is not None and action.metavar is None:
        named = "|".join(map(str, action.choices))
    ends = {"?": f"[{named}]", "*": f"[{named}...]", "+": f"{named}..."}
    return f" {ends.get(str(action.nargs), named)}"


def known(parser: argparse.ArgumentParser, action: argparse.Action) -> dict[str, object]:
    """Return what a help text may name by %(...)s."""
    return {"prog": parser.prog, "default": action.default}


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

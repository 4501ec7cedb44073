# SPDX-License-Identifier: BSD-2-Clause
"""The options about programs: which, with what, how long, and what is expected of them."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from harness.errors import UsageError
from harness.options import Option, declare, read, words
from harness.programs.expectations import FILE
from harness.programs.formats import NAMES
from harness.programs.program import find_programs

_DEADLINE = 120.0


def _path(text: str) -> Path:
    return Path(text).absolute()


OPTIONS = (
    Option("program", "test program, its source in C, or a folder of them (repeatable)", "FILE", _path, repeated=True),
    Option("args", "arguments of the programs, in a shell's words: --args='-test.short'", "WORDS", repeated=True),
    Option("format", "how the programs tell results (default: found out)", default="auto", choices=NAMES),
    Option("deadline", "s of a case's time, after which it has failed (default: 120)", "SECONDS", float, _DEADLINE),
    Option("env", "variable of the programs' environment (repeatable)", "NAME=VALUE", repeated=True),
    Option("user", "user of the guest who runs the programs (default: root)", "NAME"),
    Option("cwd", "folder of the guest to run in (default: an empty one for each case)", "PATH"),
    Option("stdin", "file of this host that is the programs' standard input (default: none)", "FILE", _path),
    Option("pty", "give the programs a terminal", flag=True),
    Option("expected", "known failures (default: expected.toml beside the program)", "FILE", _path),
)


@dataclass(frozen=True)
class ProgramOptions:
    """What a user said about programs; `files` are their files, folders taken apart."""

    files: tuple[Path, ...] = ()
    args: tuple[str, ...] = ()
    format: str = "auto"
    deadline: float = _DEADLINE
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    cwd: str | None = None
    stdin: Path | None = None
    pty: bool = False
    expected: Path | None = None

    def __post_init__(self) -> None:
        if self.deadline <= 0:
            raise UsageError("--deadline is some seconds")
        if not self.files and (given := self.words()):
            raise UsageError(f"{given[0].partition('=')[0]} is about programs: name one with --program FILE")
        for file, name in ((self.stdin, "--stdin"), (self.expected, "--expected")):
            if file is not None and not file.is_file():
                raise UsageError(f"{name} {file}: there is no such file")
        if self.stdin is not None and self.pty:
            raise UsageError("--pty gives the programs a terminal to read from: leave out --stdin")
        if self.cwd is not None and not self.cwd.startswith("/"):
            raise UsageError("--cwd is a folder of the guest: it begins with /")

    @staticmethod
    def declare(add: Callable[..., object], prefix: str = "") -> None:
        """Declare them: ADD is ArgumentParser.add_argument, or an option group's addoption in pytest."""
        declare(OPTIONS, add, prefix)

    @classmethod
    def read(cls, namespace: object, prefix: str = "") -> Self:
        """Return what a parser left in NAMESPACE; raises UsageError for what cannot be."""
        given: dict[str, Any] = read(OPTIONS, namespace, prefix)
        environment = {}
        for setting in given["env"]:
            name, equals, value = setting.partition("=")
            if not (name and equals):
                raise UsageError(f"--env {setting!r}: write NAME=VALUE")
            environment[name] = value
        files = tuple(dict.fromkeys(file for path in given.pop("program") for file in find_programs(path)))
        try:
            args = tuple(word for line in given["args"] for word in shlex.split(line))
        except ValueError as error:
            raise UsageError(f"--args: {error}") from None
        return cls(**{**given, "files": files, "args": args, "env": environment})

    @classmethod
    def taken_from(cls, line: Sequence[str]) -> tuple[Self, list[str]]:
        """Return what a command LINE says about programs, and its other words."""
        parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
        cls.declare(parser.add_argument)
        try:
            known, rest = parser.parse_known_args(list(line))
        except argparse.ArgumentError as error:
            raise UsageError(str(error)) from None
        return cls.read(known), rest

    def words(self, prefix: str = "") -> list[str]:
        """Return the command line that says the same."""
        values = {
            **vars(self),
            "program": self.files,
            "args": [shlex.join(self.args)] if self.args else [],
            "env": [f"{name}={value}" for name, value in self.env.items()],
        }
        return words(OPTIONS, values, prefix)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All files of this host that runs depend on."""
        lists = [self.expected] if self.expected is not None else [file.parent / FILE for file in self.files]
        there = [file for file in dict.fromkeys(lists) if file.is_file()]
        return (*self.files, *([self.stdin] if self.stdin is not None else []), *there)

# SPDX-License-Identifier: BSD-2-Clause
"""What a program says of one of its cases, and what reads that out of its output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

#: Of a case that ran when its program ended, and said nothing.
ENDED = "the program ended while it ran"
_MOST_WORDS = 200  # characters


class Outcome(StrEnum):
    """What a program says that a case came to."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    #: It failed, which its author knows: TAP's TODO, ATF's expected failures.
    EXPECTED = "expected failure"
    #: It could not be tried: LTP's TBROK, ATF's broken.
    BROKEN = "broken"


class CaseFailedError(Exception):
    """A case failed: that speaks against the kernel, as far as the program is right."""


class CaseBrokenError(Exception):
    """A case says nothing about the kernel: the program, what it needs, or what is expected of it is wrong."""


@dataclass(frozen=True)
class Case:
    """One case: its name, what it came to, and why, in one line where the program says so."""

    name: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0


class Reader(ABC):
    """Reads one program's output, line by line; `cases` are those that have come to their end.

    `running` is the one under way, empty where that is unknown.
    """

    #: What exit statuses mean other than that it failed: automake's test driver has this one.
    statuses: ClassVar[Mapping[int, Outcome]] = {77: Outcome.SKIPPED}

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self.running = ""

    @abstractmethod
    def feed(self, line: str) -> None:
        """Take in the next LINE, without its end."""

    def finish(self) -> None:  # noqa: B027  (most formats say all of a case in its line)
        """Take in that there will be no more lines."""

    @property
    def is_sure(self) -> bool:
        """Whether what was read is of this format."""
        return bool(self.cases)

    @property
    def complaint(self) -> str:
        """Say why the program failed though no case of it did; empty where nothing says so."""
        return ""

    @property
    def last_words(self) -> str:
        """What the program said last, where nothing else tells why it failed."""
        return ""

    def add(self, name: str, outcome: Outcome, reason: str = "", seconds: float = 0.0) -> None:
        """Take in a case that has ended."""
        self.cases.append(Case(name, outcome, reason, seconds))
        if self.running == name:
            self.running = ""


class ExitStatus(Reader):
    """Of a program that says nothing of cases: its exit status does, and its last line may say why."""

    def __init__(self) -> None:
        super().__init__()
        self._last = ""

    def feed(self, line: str) -> None:
        """Keep the last LINE that people can read."""
        if line.strip() and line.isprintable() and "\ufffd" not in line:
            self._last = line.strip()

    @property
    def last_words(self) -> str:
        """The last line of what it said."""
        return self._last[:_MOST_WORDS]


class PosixStatus(ExitStatus):
    """Of a program of the Open POSIX Test Suite (posixtest.h: PTS_PASS ...)."""

    statuses: ClassVar = {2: Outcome.BROKEN, 4: Outcome.SKIPPED, 5: Outcome.SKIPPED}

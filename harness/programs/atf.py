# SPDX-License-Identifier: BSD-2-Clause
"""ATF's test programs (atf-test-program(1), atf-test-case(4)) and the lines of kyua(1)."""

from __future__ import annotations

import re

from harness.programs.cases import Outcome, Reader

_RESULT = re.compile(
    r"^(passed|failed|skipped|broken|expected_(?:failure|death|exit|signal|timeout))(?:\((-?\d+)\))?(?:: (.*))?$"
)
_KYUA = re.compile(
    r"^(?P<name>\S+:\S+)\s+->\s+(?P<word>passed|failed|skipped|broken|expected_failure|xfail)"
    r"(?:: (?P<why>.*?))?\s+\[(?P<seconds>[\d.]+)s\]$"
)
_KYUA_RUNS = re.compile(r"^(\S+:\S+)\s+->\s")
_IDENT = re.compile(r'^ident:\s*"?([^"\s]+)"?$')
_CLEANUP = re.compile(r"^has\.cleanup:\s*\"?true", re.IGNORECASE)
_OUTCOMES = {
    "passed": Outcome.PASSED,
    "failed": Outcome.FAILED,
    "skipped": Outcome.SKIPPED,
    "broken": Outcome.BROKEN,
    "xfail": Outcome.EXPECTED,
}


def outcome_of(word: str) -> Outcome:
    """Return what ATF's WORD for a result means."""
    return Outcome.EXPECTED if word.startswith("expected") else _OUTCOMES[word]


def listed(text: str) -> dict[str, bool]:
    """Return the cases that `PROGRAM -l` lists in TEXT, and whether each has something to clean up."""
    cases: dict[str, bool] = {}
    name = ""
    for line in text.splitlines():
        if (found := _IDENT.match(line)) is not None:
            name = found[1]
            cases[name] = False
        elif name and _CLEANUP.match(line):
            cases[name] = True
    return cases


class Atf(Reader):
    """Reads the one result that a program writes for the case it was asked to run, called NAME."""

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self.running = self._name = name or "result"
        self._last: tuple[Outcome, str] | None = None

    def feed(self, line: str) -> None:
        """Take in the next LINE; the last result counts."""
        if (found := _RESULT.match(line)) is not None:
            self._last = outcome_of(found[1]), found[3] or ""

    def finish(self) -> None:
        """Take the result."""
        if self._last is not None:
            self.add(self._name, *self._last)


class Kyua(Reader):
    """Reads what `kyua test` prints."""

    def feed(self, line: str) -> None:
        """Take in the next LINE."""
        if (found := _KYUA.match(line)) is not None:
            self.add(found["name"], outcome_of(found["word"]), found["why"] or "", float(found["seconds"]))
            self.running = ""
        elif (begun := _KYUA_RUNS.match(line)) is not None:
            self.running = begun[1]

# SPDX-License-Identifier: BSD-2-Clause
"""Formats of one line for each result: LTP's TPASS and TFAIL, pytest -v."""

from __future__ import annotations

import re

from harness.programs.cases import Outcome, Reader

# `kill02.c:55: TPASS: text` of the new library, `kill02  1  TPASS  :  text` of the old one.
_LTP = re.compile(
    r"^(?P<file>[\w./+-]+?)(?::\d+:|\s+(?P<number>\d+))\s+T(?P<word>PASS|FAIL|BROK|CONF|SKIP)\b"
    r"(?:\s*\([^)]*\))?\s*:\s*(?P<text>.*)$"
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_LTP_OUTCOMES = {
    "PASS": Outcome.PASSED,
    "FAIL": Outcome.FAILED,
    "BROK": Outcome.BROKEN,
    "CONF": Outcome.SKIPPED,
    "SKIP": Outcome.SKIPPED,
}
_PYTEST = re.compile(
    r"^(?:\[gw\d+\]\s+\[\s*\d+%\]\s+(?P<first>PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)\s+)?(?P<name>\S+\.py::\S.*?)"
    r"(?:\s+(?P<word>PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)(?:\s+\((?P<why>.*)\))?)?(?:\s+\[\s*\d+%\])?$"
)
_PYTEST_OUTCOMES = {
    "PASSED": Outcome.PASSED,
    "FAILED": Outcome.FAILED,
    "SKIPPED": Outcome.SKIPPED,
    "ERROR": Outcome.BROKEN,
    "XFAIL": Outcome.EXPECTED,
    "XPASS": Outcome.PASSED,
}
_PYTEST_WHY = re.compile(r"^(?:FAILED|ERROR) (\S+\.py::\S.*?) - (.*)$")


class Ltp(Reader):
    """Reads LTP's results: they have no names but their number in the program."""

    def feed(self, line: str) -> None:
        """Take in the next LINE."""
        if (found := _LTP.match(_COLOUR.sub("", line))) is not None:
            number = str(len(self.cases) + 1)
            self.add(number, _LTP_OUTCOMES[found["word"]], found["text"].strip())


class Pytest(Reader):
    """Reads the lines of pytest -v."""

    def feed(self, line: str) -> None:
        """Take in the next LINE."""
        if (why := _PYTEST_WHY.match(line)) is not None:
            self._explain(why[1], why[2])
        elif (found := _PYTEST.match(line)) is not None:
            word = found["word"] or found["first"]
            if word is None:
                self.running = found["name"].strip()
            else:
                self.add(found["name"].strip(), _PYTEST_OUTCOMES[word], found["why"] or "")

    def _explain(self, name: str, reason: str) -> None:
        for number, case in enumerate(self.cases):
            if case.name == name and not case.reason:
                self.cases[number] = type(case)(name, case.outcome, reason, case.seconds)

# SPDX-License-Identifier: BSD-2-Clause
"""GoogleTest: what --gtest_list_tests lists, and what runs print."""

from __future__ import annotations

import re

from harness.programs.cases import ENDED, Outcome, Reader

_RUN = re.compile(r"^\[ RUN      \] (\S+)$")
_END = re.compile(r"^\[(?:       OK |  FAILED  |  SKIPPED )\] (\S+?)(?:, where .*?)?(?: \((\d+) ms\))$")
_WORD = re.compile(r"^\[\s*(OK|FAILED|SKIPPED)\s*\]")
_OUTCOMES = {"OK": Outcome.PASSED, "FAILED": Outcome.FAILED, "SKIPPED": Outcome.SKIPPED}
_FAILURE = re.compile(r"^(\S+:\d+: (?:Failure|Skipped))$|^(\S+\(\d+\): error: .*)$")
_MOST = 8  # lines of a reason


def listed(text: str) -> list[str]:
    """Return the tests that --gtest_list_tests lists in TEXT, without those that are disabled."""
    names = []
    suite = ""
    for line in text.splitlines():
        word = line.partition("#")[0].rstrip()
        if word and not word[0].isspace() and word.endswith("."):
            suite = word
        elif suite and word.startswith("  ") and " " not in word.strip():
            names.append(f"{suite}{word.strip()}")
    return [name for name in names if not any(part.startswith("DISABLED_") for part in re.split("[./]", name))]


class GoogleTest(Reader):
    """Reads the lines in brackets; what stands between them is the reason."""

    def __init__(self) -> None:
        super().__init__()
        self._said: list[str] = []

    def feed(self, line: str) -> None:
        """Take in the next LINE."""
        if (run := _RUN.match(line)) is not None:
            self.running, self._said = run[1], []
        elif (end := _END.match(line)) is not None and self.running:
            word = _WORD.match(line)
            assert word is not None  # as _END has matched
            outcome = _OUTCOMES[word[1]]
            reason = "" if outcome is Outcome.PASSED else "\n".join(self._said[:_MOST])
            self.add(self.running, outcome, reason, int(end[2]) / 1000)
            self.running = ""
        elif self.running and (self._said or _FAILURE.match(line)):
            self._said.append(line)

    def finish(self) -> None:
        """Hold a death of the program against the test that ran."""
        if self.running:
            self.add(self.running, Outcome.FAILED, "\n".join(self._said[:_MOST]) or ENDED)

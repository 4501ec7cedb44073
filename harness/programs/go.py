# SPDX-License-Identifier: BSD-2-Clause
"""What Go's test programs say with -test.v, and what test2json makes of it.

Subtests are part of their test: which of them failed is its reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from harness.programs.cases import ENDED, Outcome, Reader

_RUN = re.compile(r"^=== (?:RUN|CONT|NAME)\s+(\S+)$")
_END = re.compile(r"^\s*(?:\x16)?--- (PASS|FAIL|SKIP|BENCH): (\S+)(?: \(([\d.]+)s\))?$")
_PANIC = re.compile(r"^(?:panic: |fatal error: |unexpected fault address|SIG[A-Z]+: |exit status )")
# Where a message was written: `    exec_test.go:123: it is wrong`.
_MESSAGE = re.compile(r"^\s+(\w[\w.-]*\.go:\d+: .*)$")
_OUTCOMES = {"PASS": Outcome.PASSED, "FAIL": Outcome.FAILED, "SKIP": Outcome.SKIPPED, "BENCH": Outcome.PASSED}
_MOST = 5  # messages, and failed subtests, that are shown


def top_of(test: str) -> str:
    """Return the test that TEST is part of, or itself."""
    return test.partition("/")[0]


class Go(Reader):
    """Reads the lines of -test.v."""

    def __init__(self) -> None:
        super().__init__()
        self._panic: list[str] = []
        self._failed: list[str] = []  # subtests of the one under way
        self._messages: list[str] = []
        self._ended = ""  # what the last lines were about
        self._verdict = ""

    def feed(self, line: str) -> None:
        """Take in the next LINE."""
        line = line.removeprefix("\x16")  # -test.v=test2json marks its lines so
        if (run := _RUN.match(line)) is not None:
            test = top_of(run[1])
            if test != self.running:
                self._failed, self._messages = [], []
            self.running = test
        elif (end := _END.match(line)) is not None:
            self._end(end[1], end[2], float(end[3] or 0))
        elif _PANIC.match(line) or self._panic:
            self._panic.append(line)
        elif (message := _MESSAGE.match(line)) is not None:
            self._messages.append(message[1])
            if self.cases and not self.running and self.cases[-1].name == self._ended:
                self._explain()
        elif line in {"PASS", "FAIL"}:
            self._verdict = line

    def _end(self, word: str, test: str, seconds: float) -> None:
        if top_of(test) != test:  # which its test's own line comes before
            self._failed += [test.partition("/")[2]] if word == "FAIL" else []
            if self.cases and self.cases[-1].name == self._ended == top_of(test):
                self._explain()
            return
        self.add(test, _OUTCOMES[word], self._reason(), seconds)
        self._ended = test
        self.running = ""

    def _reason(self) -> str:
        failed = [name for name in self._failed if not any(each.startswith(f"{name}/") for each in self._failed)]
        parts = [f"failed: {', '.join(failed[:_MOST])}{' ...' if len(failed) > _MOST else ''}"] if failed else []
        return "\n".join([*parts, *self._messages[:_MOST]])

    def _explain(self) -> None:
        last = self.cases.pop()
        self.add(last.name, last.outcome, self._reason(), last.seconds)

    def finish(self) -> None:
        """Hold a panic of the program against the test that ran."""
        if self.running:
            said = "\n".join(self._panic[:_MOST]) or ENDED
            self.add(self.running, Outcome.FAILED, said)

    @property
    def complaint(self) -> str:
        """Say what the program died of."""
        return "\n".join(self._panic[:_MOST])


class GoJson(Reader):
    """Reads the events of test2json."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: dict[str, list[str]] = {}
        self._failed: dict[str, list[str]] = {}

    def feed(self, line: str) -> None:
        """Take in the next LINE."""
        if not line.startswith("{"):
            return
        try:
            event = json.loads(line)
        except ValueError:
            return
        if isinstance(event, dict) and isinstance(event.get("Action"), str) and isinstance(event.get("Test"), str):
            self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        action, test = event["Action"], event["Test"]
        top = top_of(test)
        if action == "run":
            self.running = top
        elif action == "output":
            if (message := _MESSAGE.match(str(event.get("Output", "")).rstrip())) is not None:
                self._messages.setdefault(top, []).append(message[1])
        elif action in {"pass", "fail", "skip"} and test != top:
            if action == "fail":
                self._failed.setdefault(top, []).append(test.partition("/")[2])
        elif action in {"pass", "fail", "skip"}:
            failed = self._failed.get(top, [])
            parts = [f"failed: {', '.join(failed[:_MOST])}"] if failed else []
            reason = "\n".join([*parts, *self._messages.get(top, [])[:_MOST]])
            self.add(top, _OUTCOMES[action.upper()], reason, float(event.get("Elapsed", 0) or 0))
            self.running = ""

    def finish(self) -> None:
        """Hold an end without a verdict against the test that ran."""
        if self.running:
            self.add(self.running, Outcome.FAILED, ENDED)

# SPDX-License-Identifier: BSD-2-Clause
"""Rust's libtest: what --list lists, what runs print, and the events of --format json."""

from __future__ import annotations

import json
import re
from typing import Any

from harness.programs.cases import ENDED, Outcome, Reader

_LISTED = re.compile(r"^(\S.*): test$")
_LINE = re.compile(r"^test (\S+)(?: - should panic)? \.\.\. (?:(ok|FAILED|ignored)(?:, (.*?))?(?: <([\d.]+)s>)?)?$")
_BEGINS = re.compile(r"^test (\S+)(?: - should panic)? \.\.\. ?")
_LATE = re.compile(r"^(ok|FAILED|ignored)$")  # on a line of its own, where the test printed something with --nocapture
_TITLE = re.compile(r"^---- (\S+) std(?:out|err) ----$")
_PANIC = re.compile(r"^thread '.*' (?:\(\d+\) )?panicked at")
_OUTCOMES = {"ok": Outcome.PASSED, "FAILED": Outcome.FAILED, "failed": Outcome.FAILED, "ignored": Outcome.SKIPPED}
_MOST = 6  # lines of a reason


def listed(text: str) -> list[str]:
    """Return the tests that --list lists in TEXT; benchmarks are none."""
    return [found[1] for line in text.splitlines() if (found := _LISTED.match(line)) is not None]


class Libtest(Reader):
    """Reads the lines of --format pretty."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, list[str]] = {}
        self._about = ""
        self._panic: list[str] = []

    def feed(self, line: str) -> None:
        """Take in the next LINE."""
        found = _LINE.match(line)
        if found is not None and found[2]:
            self.add(found[1], _OUTCOMES[found[2]], found[3] or "", float(found[4] or 0))
        elif (begun := _BEGINS.match(line)) is not None:
            self.running = begun[1]
        elif self.running and (late := _LATE.match(line)) is not None:
            self.add(self.running, _OUTCOMES[late[1]])
        elif (title := _TITLE.match(line)) is not None:
            self._about = title[1]
        elif self._about and not line:
            self._about = "" if self._said.get(self._about) else self._about
        elif self._about:
            self._said.setdefault(self._about, []).append(line)
        elif _PANIC.match(line) or self._panic:
            self._panic.append(line)

    def finish(self) -> None:
        """Add to failures what they said, and hold a death of the program against the test that ran."""
        cases, self.cases = self.cases, []
        for case in cases:
            said = self._said.get(case.name) or (self._panic if case.outcome is Outcome.FAILED else [])
            self.add(case.name, case.outcome, case.reason or "\n".join(said[:_MOST]), case.seconds)
        if self.running:
            self.add(self.running, Outcome.FAILED, "\n".join(self._panic[:_MOST]) or ENDED)


class LibtestJson(Reader):
    """Reads the events of --format json, which only unstable Rust writes."""

    def feed(self, line: str) -> None:
        """Take in the next LINE."""
        if not line.startswith("{"):
            return
        try:
            event: Any = json.loads(line)
        except ValueError:
            return
        if not (isinstance(event, dict) and event.get("type") == "test" and isinstance(event.get("name"), str)):
            return
        name, what = event["name"], event.get("event")
        if what == "started":
            self.running = name
        elif what in _OUTCOMES:
            said = str(event.get("stdout") or event.get("message") or "").strip().splitlines()
            self.add(name, _OUTCOMES[what], "\n".join(said[:_MOST]), float(event.get("exec_time") or 0))

    def finish(self) -> None:
        """Hold a death of the program against the test that ran."""
        if self.running:
            self.add(self.running, Outcome.FAILED, ENDED)

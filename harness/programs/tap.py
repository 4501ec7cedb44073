# SPDX-License-Identifier: BSD-2-Clause
"""The Test Anything Protocol, versions 12 to 14 (testanything.org), and the kernel's (KTAP, docs.kernel.org).

Subtests are indented; a subtest is named behind its parent: `3 - parent/1 - child`.  In TAP 14 the parent's own line
follows its subtests, so they are known as `?` until then.
"""

from __future__ import annotations

import re

from harness.programs.cases import Case, Outcome, Reader

_VERSION = re.compile(r"^K?TAP version \d+$")
_PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*(?:(SKIP)\S*\s*(.*)|.*))?$", re.IGNORECASE)
_TEST = re.compile(
    r"^(not )?ok\b(?:\s+(\d+))?(?:\s+-)?\s*(.*?)(?:(?<!\\)\s*#\s*(SKIP|TODO|XFAIL|timeout|error)\S*\s*(.*))?$",
    re.IGNORECASE,
)
_BAIL = re.compile(r"^Bail out!\s*(.*)$", re.IGNORECASE)
_MOST_REASON = 10  # lines of diagnostics kept


class Tap(Reader):
    """Reads TAP and KTAP."""

    def __init__(self) -> None:
        super().__init__()
        self._planned: int | None = None
        self._skipped: str | None = None
        self._versioned = False
        self._children: list[tuple[int, Case]] = []  # of parents yet to come, with their indentation
        self._top = 0
        self._bailed: str | None = None
        self._notes: list[str] = []

    def feed(self, line: str) -> None:
        """Take in the next LINE."""
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if _VERSION.match(text):
            self._versioned = True
        elif (plan := _PLAN.match(text)) is not None:
            if indent == 0:
                self._planned = int(plan[1])
                self._skipped = plan[3] or "all" if plan[2] and not self._planned else None
        elif (bail := _BAIL.match(text)) is not None:
            self._bailed = bail[1]
        elif (test := _TEST.match(text)) is not None:
            self._take(test, indent)
        elif text.startswith("# Subtest") and ":" in text:
            self.running = text.partition(":")[2].strip()
        elif text.startswith("#") and self.cases and self.cases[-1].outcome is Outcome.FAILED:
            self._explain(text.lstrip("# "))

    def _take(self, test: re.Match[str], indent: int) -> None:
        is_bad, number, words, directive, why = test.groups()
        directive = (directive or "").lower()
        outcome = Outcome.FAILED if is_bad else Outcome.PASSED
        if directive == "skip":
            outcome = Outcome.SKIPPED
        elif directive in {"todo", "xfail"} and is_bad:
            outcome = Outcome.EXPECTED
        if indent == 0:
            self._top += 1
        name = " - ".join(part for part in (number or (str(self._top) if not words else ""), words.strip()) if part)
        case = Case(name, outcome, (why or "").strip())
        mine = [child for depth, child in self._children if depth > indent]
        self._children = [(depth, child) for depth, child in self._children if depth <= indent]
        for child in mine:
            grown = Case(f"{name}/{child.name}", child.outcome, child.reason)
            self._keep(indent, grown)
        self._keep(indent, case)
        self.running = ""

    def _keep(self, indent: int, case: Case) -> None:
        if indent:
            self._children.append((indent, case))
        else:
            self.cases.append(case)

    def _explain(self, note: str) -> None:
        last = self.cases[-1]
        if last.reason.count("\n") < _MOST_REASON and note:
            self.cases[-1] = Case(last.name, last.outcome, f"{last.reason}\n{note}".strip())

    def finish(self) -> None:
        """Keep subtests whose parent never came, and say that all were skipped where the plan says so."""
        for _, child in self._children:
            self.cases.append(Case(f"?/{child.name}", child.outcome, child.reason))
        self._children = []
        if self._skipped is not None:
            self.add("all", Outcome.SKIPPED, self._skipped)

    @property
    def is_sure(self) -> bool:
        """Whether there was a plan or a version; `ok` alone is a word."""
        return self._versioned or self._planned is not None

    @property
    def complaint(self) -> str:
        """Say what the plan promised in vain, or why it bailed out."""
        if self._bailed is not None:
            return f"bailed out: {self._bailed}".rstrip(": ")
        if self._planned is not None and not self._skipped and self._top != self._planned:
            return f"{self._planned} tests were planned, and {self._top} were run"
        if self._planned is None and self._top:
            return "it ended without a plan (1..N)"
        return ""

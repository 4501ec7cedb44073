# SPDX-License-Identifier: BSD-2-Clause
"""What is being looked for, and what one run of the suite says about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.bisect.decision import Outcome, Trouble
from harness.errors import UsageError
from harness.results.record import TestResult
from harness.results.verdict import Verdict
from harness.runs.runner import Run

_EXCERPT = 40  # lines


@dataclass(frozen=True)
class Sighting:
    """What a run came to: DETAIL in one line for people, EXCERPT from the console, the TEST it is about.

    Where all went well, `left_out` are the tests that did not run.
    """

    outcome: Outcome
    trouble: Trouble | None = None
    detail: str = ""
    test: str = ""
    excerpt: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Predicate:
    """Which failure is sought: that of a test, or with PANIC a panic or hang whose fingerprint contains that text.

    FAILURE is a regular expression that the report of a failed test must match.  Any other failure on the way makes a
    commit untestable.  With GOOD_MEANS_FAIL a run that fails is good, and one that passes bad: that finds a fix.
    """

    panic: str | None = None
    failure: str = ""
    good_means_fail: bool = False

    def __post_init__(self) -> None:
        try:
            re.compile(self.failure)
        except re.error as error:
            raise UsageError(f"--failure {self.failure!r} is no regular expression: {error}") from None

    def outcome(self, *, fails: bool) -> Outcome:
        """Return what it means that the sought failure was seen, or that all went well without it."""
        return Outcome.BAD if fails != self.good_means_fail else Outcome.GOOD

    def judge(self, run: Run) -> Sighting:
        """Return what RUN says."""
        if run.record is None:
            return self._without_record(run)
        passed = 0
        others: list[Sighting] = []
        if not run.is_whole:  # the failure sought was seen, or nothing is known
            others.append(self._without_record(run))
        for result in run.record.results:
            verdict = result.verdict
            if verdict.is_left_out:
                continue
            if verdict is Verdict.PASSED:
                passed += 1
                continue
            detail = _headline(result)
            if self._is_sought(result):
                return Sighting(self.outcome(fails=True), None, detail, result.test, _excerpt(result))
            if verdict is Verdict.BOOT_FAILURE:
                trouble = Trouble.BOOT
            else:
                trouble = Trouble.OTHER_FAILURE if verdict.against_kernel else Trouble.INFRASTRUCTURE
            others.append(Sighting(Outcome.UNTESTABLE, trouble, detail, result.test, _excerpt(result)))
        if others:
            # That the kernel failed otherwise says more than that the harness did.
            return next((each for each in others if each.trouble is Trouble.OTHER_FAILURE), others[0])
        if not passed:
            reasons = [result.reason.strip() for result in run.record.results]
            return Sighting(Outcome.UNTESTABLE, Trouble.NOT_APPLICABLE, _last_line(reasons[0]) if reasons else "")
        left_out = tuple(result.test for result in run.record.results if result.verdict.is_left_out)
        return Sighting(self.outcome(fails=False), detail=f"{passed} passed", left_out=left_out)

    def _is_sought(self, result: TestResult) -> bool:
        if self.panic is not None:
            return result.verdict in {Verdict.PANIC, Verdict.HANG} and self.panic in result.fingerprint
        return result.verdict is Verdict.FAILED and re.search(self.failure, result.reason) is not None

    def _without_record(self, run: Run) -> Sighting:
        said = run.said or f"pytest ended with status {run.status}"
        if self.panic and run.is_kernels_fault and self.panic in said:
            return Sighting(self.outcome(fails=True), None, said)
        died = run.trouble is not None and run.trouble.verdict is Verdict.BOOT_FAILURE
        return Sighting(Outcome.UNTESTABLE, Trouble.BOOT if died else Trouble.INFRASTRUCTURE, said)


@dataclass(frozen=True)
class Bound:
    """A benchmark as predicate: WORKLOAD costs more (with BELOW: less) than LIMIT, in microseconds or instructions."""

    workload: str
    limit: float
    below: bool = False
    instructions: bool = False
    good_means_fail: bool = False

    def judge(self, value: float) -> Sighting:
        """Return what it means that an operation cost VALUE."""
        fails = value < self.limit if self.below else value > self.limit
        unit = "instructions" if self.instructions else "us"
        outcome = Outcome.BAD if fails != self.good_means_fail else Outcome.GOOD
        return Sighting(outcome, None, f"{self.workload}: {value:.4g} {unit} (bound {self.limit:g})", self.workload)


def _headline(result: TestResult) -> str:
    if result.fingerprint:
        return f"{result.verdict}: {result.fingerprint}"
    lines = result.reason.splitlines()
    shown = [line.removeprefix("E").strip() for line in lines if line.startswith("E  ")] or lines[-1:] or [""]
    return f"{result.verdict}: {shown[0]}"[:200]


def _last_line(text: str) -> str:
    return text.rpartition("\n")[2][:200]


def _excerpt(result: TestResult) -> str:
    return "\n".join((result.evidence or result.reason).splitlines()[:_EXCERPT])

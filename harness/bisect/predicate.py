"""What is being looked for, and what one run of the suite says about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.bisect.decision import Outcome, Trouble
from harness.errors import UsageError
from harness.results.finding import Finding
from harness.runs.runner import Run

_EXCERPT = 40  # lines
_DIED_BOOTING = tuple(f"{finding}: " for finding in (Finding.BOOT_FAILURE, Finding.PANIC, Finding.HANG))
_NOT_THE_KERNELS = {Finding.GUEST_LOST, Finding.HARNESS_ERROR, Finding.BUILD_FAILURE}


@dataclass(frozen=True)
class Sighting:
    """What a run came to: DETAIL in one line for people, EXCERPT from the console, the TEST it is about."""

    outcome: Outcome
    trouble: Trouble | None = None
    detail: str = ""
    test: str = ""
    excerpt: str = ""


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
        for result in run.record["results"]:
            if result["outcome"] in {"skipped", "xfailed"}:
                continue
            if result["outcome"] == "passed":
                passed += 1
                continue
            finding = Finding(result["verdict"]) if result.get("verdict") else Finding.FAILED
            detail = _headline(result)
            if self._is_sought(finding, result):
                return Sighting(self.outcome(fails=True), None, detail, str(result["test"]), _excerpt(result))
            if finding is Finding.BOOT_FAILURE:
                trouble = Trouble.BOOT
            else:
                trouble = Trouble.INFRASTRUCTURE if finding in _NOT_THE_KERNELS else Trouble.OTHER_FAILURE
            others.append(Sighting(Outcome.UNTESTABLE, trouble, detail, str(result["test"]), _excerpt(result)))
        if others:
            # That the kernel failed otherwise says more than that the harness did.
            return next((each for each in others if each.trouble is Trouble.OTHER_FAILURE), others[0])
        if not passed:
            reasons = [str(result.get("reason", "")).strip() for result in run.record["results"]]
            return Sighting(Outcome.UNTESTABLE, Trouble.NOT_APPLICABLE, _last_line(reasons[0]) if reasons else "")
        return Sighting(self.outcome(fails=False), detail=f"{passed} passed")

    def _is_sought(self, finding: Finding, result: Mapping[str, Any]) -> bool:
        if self.panic is not None:
            return finding in {Finding.PANIC, Finding.HANG} and self.panic in str(result.get("fingerprint", ""))
        return finding is Finding.FAILED and re.search(self.failure, str(result.get("reason", ""))) is not None

    def _without_record(self, run: Run) -> Sighting:
        said = run.said or f"pytest ended with status {run.status}"
        if self.panic and self.panic in said:
            return Sighting(self.outcome(fails=True), None, said)
        died = said.startswith(_DIED_BOOTING) or run.is_kernels_fault
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


def _headline(result: Mapping[str, Any]) -> str:
    if fingerprint := result.get("fingerprint"):
        return f"{result.get('verdict', '')}: {fingerprint}"
    lines = str(result.get("reason", "")).splitlines()
    shown = [line.removeprefix("E").strip() for line in lines if line.startswith("E  ")] or lines[-1:] or [""]
    return f"{result.get('verdict') or 'failed'}: {shown[0]}"[:200]


def _last_line(text: str) -> str:
    return text.rpartition("\n")[2][:200]


def _excerpt(result: Mapping[str, Any]) -> str:
    text = str(result.get("console", "")) or str(result.get("reason", ""))
    return "\n".join(text.splitlines()[:_EXCERPT])

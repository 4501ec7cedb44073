# SPDX-License-Identifier: BSD-2-Clause
"""From what programs say of their cases, and what is expected of these, to verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.programs.cases import Case, Outcome
from harness.programs.expectations import Expectation, find
from harness.results.verdict import Verdict

#: What stands for all of a program that does not list its cases.
WHOLE = "whole"


@dataclass(frozen=True)
class Judged:
    """A case's `name` in our words, its verdict, why, and the known `defect` that made it fail as expected."""

    name: str
    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
    defect: str = ""


def name_of(case: str) -> str:
    """Return what a case is called as a test of ours: `::` is pytest's."""
    return case.replace("::", ".")


def judge(case: Case, expectation: Expectation | None) -> Judged:
    """Return the verdict on CASE, of which EXPECTATION says that it fails."""
    known = f"known defect: {expectation.reason}" if expectation is not None else ""
    verdict, reason, defect = Verdict.PASSED, case.reason, ""
    match case.outcome:
        case Outcome.FAILED if expectation is not None:
            verdict, defect = Verdict.KNOWN_DEFECT, expectation.reason
            reason = f"{known} ({case.reason.partition(chr(10))[0]})" if case.reason else known
        case Outcome.FAILED:
            verdict, reason = Verdict.FAILED, case.reason or "the program says that it failed"
        case Outcome.PASSED if expectation is not None and not expectation.flaky:
            verdict, reason = Verdict.TEST_ERROR, f"unexpected pass: it is listed as failing ({expectation.reason})"
        case Outcome.SKIPPED:
            verdict, reason = Verdict.NOT_APPLICABLE, case.reason or "the program skipped it"
        case Outcome.EXPECTED:
            verdict, reason = Verdict.NOT_APPLICABLE, f"expected failure: {case.reason}".rstrip(": ")
        case Outcome.BROKEN:
            verdict, reason = Verdict.TEST_ERROR, case.reason or "the program could not try it"
    return Judged(name_of(case.name), verdict, reason, case.seconds, defect)


def judge_all(
    program: str, cases: Sequence[Case], whole: Case, expectations: Iterable[Expectation], osreldate: int
) -> tuple[list[Judged], Judged]:
    """Return the verdicts on all CASES of PROGRAM, which came to WHOLE, and on it as a whole.

    What fails as expected is not held against the whole, and a listed name that is there no more is.
    """
    listed = [each for each in expectations if each.is_about(program, osreldate)]
    results = [judge(case, find(listed, program, case.name, osreldate)) for case in cases]
    names = {case.name for case in cases} | {WHOLE}
    gone = [each.test for each in listed if not each.is_pattern and each.test not in names]
    wrong = [each for each in results if each.verdict in {Verdict.FAILED, Verdict.TEST_ERROR}]
    if gone and cases:
        reason = f"vanished: {', '.join(gone)} is listed as failing, and the program has no such case"
        return results, Judged(WHOLE, Verdict.TEST_ERROR, reason)
    own = find(listed, program, WHOLE, osreldate)
    failing = any(case.outcome is Outcome.FAILED for case in cases)
    if failing and not wrong and own is None:
        return results, Judged(WHOLE, Verdict.PASSED)
    if wrong and not failing and whole.outcome is Outcome.PASSED:
        return results, Judged(WHOLE, Verdict.TEST_ERROR, f"{wrong[0].name}: {wrong[0].reason}")
    if failing and own is None:
        worst = [each for each in wrong if each.verdict is Verdict.FAILED] or wrong
        shown = ", ".join(each.name for each in worst[:5]) + (" ..." if len(worst) > 5 else "")
        return results, Judged(WHOLE, worst[0].verdict, f"{len(worst)} of {len(cases)} {worst[0].verdict}: {shown}")
    return results, judge(Case(WHOLE, whole.outcome, whole.reason), own)


def vanished(program: str, names: Iterable[str], expectations: Iterable[Expectation], osreldate: int) -> list[str]:
    """Return the tests listed as failing that PROGRAM, which lists the cases NAMES, does not have."""
    there = set(names)
    return [
        each.test
        for each in expectations
        if each.is_about(program, osreldate) and not each.is_pattern and each.test not in there
    ]

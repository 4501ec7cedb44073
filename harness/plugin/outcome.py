# SPDX-License-Identifier: BSD-2-Clause
"""What pytest's reports say of a test, and the typed result they carry, also between xdist's processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from harness.results.record import TestResult
from harness.results.verdict import Verdict

_RESULT = "dfly_result"
_FURTHER = "dfly_further"
#: The property of a case that failed as its program's list of known failures says: the reason.
EXPECTED = "expected"
#: What pytest's plugins call a test that is run again; the report that says so carries what it came to the first time.
RERUN = "rerun"


def result_of(report: pytest.TestReport) -> TestResult | None:
    """Return what Judge attached to REPORT; None for a phase that says nothing, such as a setup that went well."""
    found = vars(report).get(_RESULT)
    return found if isinstance(found, TestResult) else None


def is_rerun(report: pytest.CollectReport | pytest.TestReport) -> bool:
    """Tell whether REPORT says that a test which failed is run again, and nothing else."""
    return str(report.outcome) == RERUN


def attach(report: pytest.TestReport, result: TestResult) -> None:
    """Let REPORT carry RESULT."""
    vars(report)[_RESULT] = result


def further_of(report: pytest.TestReport) -> list[TestResult]:
    """Return the results that REPORT carries beside its own test's: of the cases of a program that ran as a whole."""
    return [TestResult.from_json(each) for each in vars(report).get(_FURTHER, ())]


def attach_further(report: pytest.TestReport, results: Sequence[TestResult]) -> None:
    """Let REPORT carry RESULTS, as plain data, which travels by itself."""
    if results:
        vars(report)[_FURTHER] = [each.to_json() for each in results]


def to_data(report: pytest.TestReport, data: dict[str, Any]) -> dict[str, Any]:
    """Return DATA, which travels between xdist's processes, with the result of REPORT."""
    if (result := result_of(report)) is not None:
        data[_RESULT] = result.to_json()
    return data


def from_data(report: pytest.TestReport) -> None:
    """Rebuild the result that REPORT, come from another process, carries as plain data."""
    if isinstance(found := vars(report).get(_RESULT), dict):
        attach(report, TestResult.from_json(found))


def plain_result(report: pytest.TestReport, verdict: Verdict | None = None) -> TestResult:
    """Return what REPORT says by itself: on a test that is about no kernel, or on one whose process died.

    VERDICT is that of the exception where there was one.
    """
    known = {"passed": Verdict.PASSED, "skipped": Verdict.NOT_APPLICABLE}
    failed = verdict if verdict is not None else Verdict.HARNESS_ERROR
    return TestResult(
        report.nodeid,
        known.get(report.outcome, failed),
        round(report.duration, 3),
        reason_of(report),
        worker=str(getattr(report, "worker_id", "")),
    )


def reason_of(report: pytest.TestReport) -> str:
    """Return why a test did not pass: pytest's traceback, or the words by which it was left out."""
    if report.passed:
        return ""
    if said := getattr(report, "wasxfail", ""):
        return str(said)
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)


def failure_text(report: pytest.TestReport) -> str:
    """Return the one line pytest would summarise a failure with."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message) if crash is not None else str(report.longrepr)

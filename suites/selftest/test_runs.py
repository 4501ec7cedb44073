# SPDX-License-Identifier: BSD-2-Clause
"""Runs that whoever makes many is handed: what a run learnt is kept, and what it lost is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.bisect.decision import Outcome
from harness.bisect.decision import Trouble as Doubt
from harness.bisect.predicate import Predicate
from harness.compare.campaign import Contender, compare_runs
from harness.compare.evidence import Inquiry
from harness.errors import ExitCode
from harness.results.record import RunRecord, TestResult, Trouble
from harness.results.verdict import Verdict
from harness.runs.runner import Run, SuiteRunner
from harness.store import Store

LOSES_ONE = """
def test_good(init): assert init.getpid() == init.pid
def test_lost(init): raise MemoryError
def test_good_again(init): assert init.getpid() == init.pid
"""
STOPS = """
import os, signal

def test_good(init): assert init.getpid() == init.pid
def test_that_is_interrupted(init): os.kill(os.getpid(), signal.SIGINT)
def test_never_begun(init): pass
"""


def names(tests: tuple[str, ...]) -> list[str]:
    return [test.rpartition("::")[2] for test in tests]


def run_once(folder: Path, code: str) -> Run:
    (folder / "test_inner.py").write_text(code)
    arguments = [str(folder), f"--rootdir={folder}", "-p", "harness.plugin.entry", "--dfly-oracle"]
    return SuiteRunner(Store(folder / "store")).run(arguments, 0, folder / "run.json")


@pytest.mark.parametrize(
    ("code", "status", "lost", "learnt"),
    [
        (LOSES_ONE, 3, ["test_lost"],
         {"test_good": "passed", "test_lost": "harness error", "test_good_again": "passed"}),
        (STOPS, 130, ["test_that_is_interrupted", "test_never_begun"], {"test_good": "passed"}),
    ],
)  # fmt: skip
def test_a_run_that_goes_wrong_keeps_what_it_learnt_and_says_what_it_lost(
    tmp_path: Path, code: str, status: int, lost: list[str], learnt: dict[str, str]
) -> None:
    run = run_once(tmp_path, code)
    assert (run.status, run.is_whole, names(run.lost)) == (status, False, lost)
    assert run.said
    assert run.record is not None
    assert {result.test.rpartition("::")[2]: str(result.verdict) for result in run.record.results} == learnt


def record(*results: tuple[str, Verdict], not_run: tuple[str, ...] = (), trouble: Trouble | None = None) -> RunRecord:
    return RunRecord(
        "k",
        is_dragonfly=True,
        results=tuple(TestResult(test, verdict) for test, verdict in results),
        not_run=not_run,
        trouble=trouble,
    )


def test_a_test_that_failed_while_another_was_lost_counts_in_a_bisection_and_one_that_passed_does_not() -> None:
    failed = Run(record(("t", Verdict.FAILED), ("u", Verdict.GUEST_LOST)), "lost", 1)
    passed = Run(record(("t", Verdict.PASSED), not_run=("u",)), "interrupted", 130)
    assert Predicate().judge(failed).outcome is Outcome.BAD
    found = Predicate().judge(passed)
    assert (found.outcome, found.trouble) == (Outcome.UNTESTABLE, Doubt.INFRASTRUCTURE)


def test_one_lost_run_does_not_throw_the_others_results_away() -> None:
    whole = Run(record(("t", Verdict.PASSED), ("u", Verdict.PASSED)))
    partial = Run(record(("t", Verdict.PASSED), not_run=("u",)), "the host failed", 3)
    contenders = (Contender("a", "a", ()), Contender("b", "b", ()))
    comparison = compare_runs(contenders, [[whole] * 3, [whole, partial, whole]], [Inquiry(0.05)])
    tallies = {test.test: test.tallies for test in comparison.tests}
    assert [tally.runs for tally in tallies["t"]] == [3, 3]
    assert [tally.runs for tally in tallies["u"]] == [3, 2]
    assert comparison.exit_code is ExitCode.PASSED  # each test was compared
    nothing = compare_runs(contenders, [[whole], [partial]], [Inquiry(0.05)])
    assert nothing.exit_code is ExitCode.HARNESS_FAILED  # absence is not equality

# SPDX-License-Identifier: BSD-2-Clause
"""A run in few words: how many tests came to each verdict, and what that says of the kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from harness.results.record import RunRecord
from harness.results.verdict import Side, Verdict

_BY_SIGNAL = 128  # a status above it: this and the signal's number


def counts(verdicts: Iterable[Verdict]) -> dict[Verdict, int]:
    """Return how many there are of each verdict, the worst first."""
    counted = Counter(verdicts)
    return {verdict: counted[verdict] for verdict in Verdict if counted[verdict]}


def verdicts_of(record: RunRecord) -> dict[Verdict, int]:
    """Return how many tests came to each verdict, the worst first."""
    return counts(result.verdict for result in record.results)


def not_again_words(record: RunRecord) -> str:
    """Say how many failures of RECORD were not looked at again, empty where all were that should have been."""
    if not record.not_again:
        return ""
    failures = f"{record.not_again} failure{'s' * (record.not_again != 1)}"
    return f"{failures} not looked at again: those before failed again, every one, so flaky tests are not told there"


def conclusion(record: RunRecord) -> str:
    """Return the run in one or two sentences."""
    counted = verdicts_of(record)
    against = sum(count for verdict, count in counted.items() if verdict.against_kernel)
    judged = sum(count for verdict, count in counted.items() if verdict.is_judged)
    troubled = sum(count for verdict, count in counted.items() if verdict.against is Side.SURROUNDINGS)
    mistaken = counted.get(Verdict.TEST_ERROR, 0)
    dead = record.trouble is not None and record.trouble.kernel_died
    more = " This kernel does not boot." if dead or counted.get(Verdict.BOOT_FAILURE) else ""
    more += f" {troubled} could not be judged: the harness or the host failed." if troubled else ""
    if mistaken:
        more += f" {_tests(mistaken)} {'is mistaken itself' if mistaken == 1 else 'are mistaken themselves'}."
    if record.exit_status > _BY_SIGNAL:
        more += " The run was interrupted: what came later is not known."
    if record.incomplete:
        has = "has" if len(record.not_run) == 1 else "have"
        more += f" The record is incomplete: {_tests(len(record.not_run))} {has} no result."
    if not judged:
        return f"No test was judged.{more}"
    if against:
        known = sum(1 for result in record.results if result.known_defect)
        flaky = sum(1 for result in record.results if result.verdict.against_kernel and result.is_flaky)
        why = f", {known} of them for a known defect" if known else ""
        why += f", {flaky} of them now and then" if flaky else ""
        return f"{against} of {_tests(judged)} {'speaks' if against == 1 else 'speak'} against this kernel{why}.{more}"
    return f"Nothing in {_tests(judged)} speaks against this kernel.{more}"


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"

# SPDX-License-Identifier: BSD-2-Clause
"""The last lines of a run, which are those that are read: what failed, why how much was left out, what to do next."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from harness.config import here
from harness.results.record import RunRecord, TestResult
from harness.results.summary import conclusion
from harness.results.verdict import Verdict

_FAILURES = 50
_REASONS = 6  # of each kind
_WIDTH = 200
# What stands before each reason and says nothing that is not said above it.
_PREFIX = re.compile(r"^(?:Skipped: |Linux differs: |not applicable to \d+: )+")


def failure_lines(results: Sequence[TestResult]) -> Iterator[str]:
    """Yield what went wrong, a line for each test, the worst first."""
    loud = sorted((each for each in results if each.verdict.is_failure), key=lambda each: -each.verdict.severity)
    for result in loud[:_FAILURES]:
        known = f"known defect: {result.known_defect}" if result.known_defect else result.cause
        yield f"{headline(result)}{f' - {known}' if known else ''}"[:_WIDTH]
    if len(loud) > _FAILURES:
        yield f"and {len(loud) - _FAILURES} more"


def headline(result: TestResult, worker: str = "") -> str:
    """Return the verdict in capitals and the test: how a failure is announced while tests run, and at the end."""
    word = f"DEFECT ({result.words})" if result.known_defect else result.words.upper()
    return " ".join(part for part in (word, worker, result.test) if part)


def left_out_lines(results: Sequence[TestResult]) -> Iterator[str]:
    """Yield how many tests were left out and why, the most frequent reasons first."""
    for verdict in (each for each in Verdict if each.is_left_out):
        reasons = Counter(_reason(result) for result in results if result.verdict is verdict)
        if not reasons:
            continue
        yield f"{verdict}: {_tests(reasons.total())}"
        shown = reasons.most_common(_REASONS if len(reasons) > _REASONS + 1 else None)
        yield from (f"{count:7}  {reason}"[:_WIDTH] for reason, count in shown)
        if others := len(reasons) - len(shown):
            rest = reasons.total() - sum(count for _, count in shown)
            yield f"{rest:7}  for {others} other reasons, which record and report name"


def _reason(result: TestResult) -> str:
    lines = result.reason.strip().splitlines() or ["no reason given"]
    return _PREFIX.sub("", lines[0])


def last_words(record: RunRecord, commands: Sequence[str]) -> Iterator[str]:
    """Yield what RECORD says in a sentence, and what to do next; COMMANDS give a DragonFly target."""
    yield conclusion(record)
    against = next((result.test for result in record.results if result.verdict.against_kernel), "")
    if not record.is_dragonfly:
        yield "These results say nothing about DragonFly. To get a DragonFly target:"
        yield from (f"    {command}" for command in commands)
    elif against:
        yield "next: " + here(f"dfly-harness report --bug '{against.rpartition('::')[2]}'") + " says all about one test"


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"

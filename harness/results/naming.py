# SPDX-License-Identifier: BSD-2-Clause
"""Which test of a record is meant: by its name, the end of it, or a part of it that is no other's."""

from __future__ import annotations

from collections.abc import Iterable

from harness.errors import UsageError
from harness.results.record import TestResult

_NAMED = 5  # tests in a message


def named(test: str, results: Iterable[TestResult]) -> list[TestResult]:
    """Return those of RESULTS whose test is called TEST, with or without its file; if none is, those that have it.

    A whole name goes before a part, as test_wait is a part of test_wait_again.
    """
    having = [each for each in results if test in each.test]
    return [each for each in having if each.test == test or each.test.endswith(f"::{test}")] or having


def only_test(names: Iterable[str]) -> str:
    """Return the one test that all NAMES, of which there are some, are; raises UsageError for several."""
    tests = list(dict.fromkeys(names))
    if len(tests) > 1:
        more = f" and {len(tests) - _NAMED} more" if len(tests) > _NAMED else ""
        raise UsageError(f"which one? {', '.join(sorted(tests)[:_NAMED])}{more}")
    return tests[0]

# SPDX-License-Identifier: BSD-2-Clause
"""How a run ends: the one place that decides the exit status, for the process and for its record alike."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.errors import ExitCode
from harness.results.verdict import Verdict, exit_code

_BY_SIGNAL = 128


def exit_status(
    pytests: int,
    verdicts: Sequence[Verdict],
    *,
    signal: int | None = None,
    trouble: Verdict | None = None,
    is_uncollected: bool = False,
) -> int:
    """Return the exit status of a run that pytest would end with PYTESTS.

    ==========================================================  ==================================================
    a SIGNAL ended it, such as Ctrl-C's                         128 and the signal's number
    pytest's own error                                          3
    TROUBLE: a kernel that does not boot though others do       1
    TROUBLE: nothing boots, no record can be written            3, or 1 where a test has failed before
    a usage error, no test matched                              2
    a test failed, also where the run stopped early (`-x`)      1, 3 or 2, as its VERDICTS say: see Verdict.exit_code
    IS_UNCOLLECTED: a test file does not load                   2, unless a test that did run failed
    stopped early for no failure                                3
    all passed                                                  0
    ==========================================================  ==================================================
    """
    if signal is not None:
        return _BY_SIGNAL + signal
    if pytests == pytest.ExitCode.INTERNAL_ERROR:
        return ExitCode.HARNESS_FAILED
    if trouble is not None:
        return exit_code([trouble, *verdicts])
    if pytests in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED}:
        return ExitCode.USAGE
    judged = exit_code(verdicts)
    if judged is not ExitCode.PASSED or pytests == pytest.ExitCode.OK:
        return judged
    return ExitCode.USAGE if is_uncollected else ExitCode.HARNESS_FAILED

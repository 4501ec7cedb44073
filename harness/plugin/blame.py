# SPDX-License-Identifier: BSD-2-Clause
"""From an exception to a verdict: whose fault it is that a test did not end well.

Only what is known to be the kernel's doing counts against a kernel: an expectation of the suite that was not met, an
errno of the guest, and what the guest, which answers, was seen to do or to leave undone.  A mistake in the test is the
test's.  All else is the harness's or the host's: a full disk, no memory, an answer that cannot be decoded, a library.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest

from harness.errors import GuestDeadlineError, GuestLostError, HarnessError
from harness.guests.guest import GuestHangError, KernelPanicError
from harness.kernels.build import BuildFailedError
from harness.processes.kinfo import MissingRowError
from harness.processes.vocabulary import GuestError, ProcessGone, ProcessStopped
from harness.programs.cases import CaseBrokenError, CaseFailedError
from harness.results.verdict import Verdict

_Kinds = type[BaseException] | tuple[type[BaseException], ...]

# `(row,) = rows` in a test says how many there have to be.
_UNPACKED = re.compile(r"^(not enough|too many) values to unpack")
#: What says by its type alone whose fault it is, whoever raised it; the first that fits counts.
_BY_KIND: tuple[tuple[_Kinds, Verdict], ...] = (
    (KernelPanicError, Verdict.PANIC),
    (GuestHangError, Verdict.HANG),
    ((GuestError, ProcessGone, ProcessStopped, GuestDeadlineError, MissingRowError), Verdict.FAILED),
    (GuestLostError, Verdict.GUEST_LOST),
    (BuildFailedError, Verdict.BUILD_FAILURE),
    (HarnessError, Verdict.HARNESS_ERROR),
    (CaseFailedError, Verdict.FAILED),
    (CaseBrokenError, Verdict.TEST_ERROR),
    (pytest.FixtureLookupError, Verdict.TEST_ERROR),
)
_EXPECTATIONS = (AssertionError, pytest.fail.Exception)
_MISTAKES = (NameError, AttributeError, TypeError, ImportError, SyntaxError)
# What others raise through: whoever called them is looked for.
_CARRIERS = sys.stdlib_module_names | {"_pytest", "hypothesis", "pexpect", "paramiko", "pluggy"}
# Here pytest itself complains of how a test is written, by the same exception that tests fail with.
_PYTESTS_COMPLAINTS = {"_pytest.fixtures", "_pytest.python"}
# fails() is an expectation that tests share, and so is that the allocator gives the pid that is free.
_SHARED_EXPECTATIONS = {"harness.processes.vocabulary", "harness.processes.allocator"}
# They fail a test by pytest's own exception, for what nobody saw the guest do.
_TIMERS = {"pytest_timeout", "xdist"}


def verdict_of(error: BaseException) -> Verdict:
    """Return what ERROR means, raised while a test ran on a guest that is well otherwise.

    A process that does not come back in time is the kernel's doing as long as the guest answers.
    """
    if isinstance(error, BaseExceptionGroup):
        return max(map(verdict_of, error.exceptions), key=lambda verdict: verdict.severity)
    for kind, verdict in _BY_KIND:
        if isinstance(error, kind):
            return verdict
    if isinstance(error, _EXPECTATIONS):
        return _of_expectation(error)
    if (
        isinstance(error, ValueError)
        and _UNPACKED.search(str(error))
        and _is_of_suite(next(_modules(error), "harness"))
    ):
        return Verdict.FAILED
    if isinstance(error, _MISTAKES) and _is_of_suite(_raised_by(error)):
        return Verdict.TEST_ERROR
    return Verdict.HARNESS_ERROR


def _of_expectation(error: BaseException) -> Verdict:
    # pytest.fail() itself is in _pytest.outcomes.
    if next((name for name in _modules(error) if name != "_pytest.outcomes"), "") in _PYTESTS_COMPLAINTS:
        return Verdict.TEST_ERROR
    module = _raised_by(error)
    if module in _SHARED_EXPECTATIONS:
        return Verdict.FAILED
    return Verdict.HARNESS_ERROR if module.partition(".")[0] in {"harness", *_TIMERS} else Verdict.FAILED


def _is_of_suite(module: str) -> bool:
    return module.partition(".")[0] not in {"harness", *_TIMERS, *_CARRIERS}


def _raised_by(error: BaseException) -> str:
    """Return the module whose code raised ERROR, itself or through a library; empty where nobody's did."""
    return next((module for module in _modules(error) if module.partition(".")[0] not in _CARRIERS), "")


def _modules(error: BaseException) -> Iterator[str]:
    """Yield the modules ERROR passed through, the one that raised it first."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        yield str(frame.f_globals.get("__name__", ""))

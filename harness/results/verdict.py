# SPDX-License-Identifier: BSD-2-Clause
"""What one test on one kernel came to: a closed set of verdicts, and all that each one means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import ExitCode


class Side(StrEnum):
    """Whom a verdict speaks against."""

    KERNEL = "the kernel"
    BOOT = "the kernel, which does not boot"
    SOURCES = "the kernel's sources"
    SURROUNDINGS = "the harness or the host"
    TEST = "the test"
    NOBODY = "nobody"


class Look(StrEnum):
    """How a verdict is shown: the class of a page's element, and what a terminal makes of it."""

    GOOD = "good"
    BAD = "bad"
    ODD = "odd"
    FAINT = "faint"


class Verdict(StrEnum):
    """The verdict on one test, the worst first.

    Only `panic`, `hang` and `failed` say that the kernel failed the test.  `boot failure` speaks against the kernel as
    well, which does not boot where another does on the same image; the test itself has no part in that.
    """

    PANIC = "panic"
    HANG = "hang"
    FAILED = "failed"
    GUEST_LOST = "guest lost"
    BOOT_FAILURE = "boot failure"
    BUILD_FAILURE = "build failure"
    HARNESS_ERROR = "harness error"
    TEST_ERROR = "test error"
    PASSED = "passed"
    KNOWN_DEFECT = "known defect"
    NOT_APPLICABLE = "not applicable"

    @property
    def against(self) -> Side:
        """Whom it speaks against."""
        return _MEANINGS[self].against

    @property
    def against_kernel(self) -> bool:
        """Whether the kernel did what it must not do."""
        return self.against is Side.KERNEL

    @property
    def is_judged(self) -> bool:
        """Whether the test said something about the kernel."""
        return self.against_kernel or self is Verdict.PASSED

    @property
    def is_left_out(self) -> bool:
        """Whether the test was not run, or is not about this target."""
        return self in {Verdict.KNOWN_DEFECT, Verdict.NOT_APPLICABLE}

    @property
    def is_failure(self) -> bool:
        """Whether something went wrong: with the kernel or around it."""
        return self.against is not Side.NOBODY

    @property
    def outcome(self) -> str:
        """The verdict in pytest's words: passed, failed or skipped."""
        return "failed" if self.is_failure else "skipped" if self.is_left_out else "passed"

    @property
    def look(self) -> Look:
        """How it is shown."""
        return _MEANINGS[self].look

    @property
    def mark(self) -> str:
        """The word with a sign that needs no colour."""
        return f"{_MEANINGS[self].sign} {self}"

    @property
    def severity(self) -> int:
        """Higher is worse."""
        return len(Verdict) - list(Verdict).index(self)

    @property
    def exit_code(self) -> ExitCode:
        """What a run with this as its worst verdict ends with."""
        return _ENDS[self.against]


@dataclass(frozen=True)
class _Meaning:
    against: Side
    sign: str
    look: Look


_MEANINGS = {
    Verdict.PANIC: _Meaning(Side.KERNEL, "✖", Look.BAD),
    Verdict.HANG: _Meaning(Side.KERNEL, "✖", Look.BAD),
    Verdict.FAILED: _Meaning(Side.KERNEL, "✖", Look.BAD),
    Verdict.GUEST_LOST: _Meaning(Side.SURROUNDINGS, "!", Look.ODD),
    Verdict.BOOT_FAILURE: _Meaning(Side.BOOT, "!", Look.ODD),
    Verdict.BUILD_FAILURE: _Meaning(Side.SOURCES, "!", Look.ODD),
    Verdict.HARNESS_ERROR: _Meaning(Side.SURROUNDINGS, "!", Look.ODD),
    Verdict.TEST_ERROR: _Meaning(Side.TEST, "!", Look.ODD),
    Verdict.PASSED: _Meaning(Side.NOBODY, "✔", Look.GOOD),
    Verdict.KNOWN_DEFECT: _Meaning(Side.NOBODY, "-", Look.FAINT),
    Verdict.NOT_APPLICABLE: _Meaning(Side.NOBODY, "-", Look.FAINT),
}
_ENDS = {
    Side.KERNEL: ExitCode.TEST_FAILED,
    Side.BOOT: ExitCode.TEST_FAILED,
    # That a kernel does not build speaks against its sources: the user's to repair, as a failing test is.
    Side.SOURCES: ExitCode.TEST_FAILED,
    Side.SURROUNDINGS: ExitCode.HARNESS_FAILED,
    # As a test file that does not load.
    Side.TEST: ExitCode.USAGE,
    Side.NOBODY: ExitCode.PASSED,
}


def exit_code(verdicts: Iterable[Verdict]) -> ExitCode:
    """Return the exit status of a run.

    What speaks against the kernel outweighs what went wrong around it, and that a mistake in a test.
    """
    codes = {verdict.exit_code for verdict in verdicts}
    for code in (ExitCode.TEST_FAILED, ExitCode.HARNESS_FAILED, ExitCode.USAGE):
        if code in codes:
            return code
    return ExitCode.PASSED

"""What one test on one kernel came to: a closed set of verdicts, and which of them speak against the kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import DeadlineError, ExitCode, GuestLostError, HarnessError, UsageError
from harness.guests.bootcheck import BootFailedError, Culprit
from harness.guests.guest import GuestHangError, KernelPanicError
from harness.kernels.build import BuildFailedError
from harness.processes.vocabulary import ProcessGone, ProcessStopped


class Finding(StrEnum):
    """The verdict on one test.  Only `failed`, `panic` and `hang` speak against the kernel."""

    PASSED = "passed"
    FAILED = "failed"
    PANIC = "panic"
    HANG = "hang"
    GUEST_LOST = "guest lost"
    BOOT_FAILURE = "boot failure"
    BUILD_FAILURE = "build failure"
    HARNESS_ERROR = "harness error"
    KNOWN_DEFECT = "known defect"
    NOT_APPLICABLE = "not applicable"

    @property
    def against_kernel(self) -> bool:
        """Whether the kernel did what it must not do."""
        return self in {Finding.FAILED, Finding.PANIC, Finding.HANG}

    @property
    def outcome(self) -> str:
        """The verdict in pytest's words."""
        if self is Finding.PASSED:
            return "passed"
        return "skipped" if self in {Finding.KNOWN_DEFECT, Finding.NOT_APPLICABLE} else "failed"

    @property
    def exit_code(self) -> ExitCode:
        """What a run with this as its worst verdict ends with."""
        if self.outcome != "failed":
            return ExitCode.PASSED
        # That a kernel does not build speaks against its sources: the user's to repair, as a failing test is.
        if self.against_kernel or self is Finding.BUILD_FAILURE:
            return ExitCode.TEST_FAILED
        return ExitCode.HARNESS_FAILED


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """Return the exit status of a run: what speaks against the kernel outweighs what went wrong around it."""
    codes = {finding.exit_code for finding in findings}
    for code in (ExitCode.TEST_FAILED, ExitCode.HARNESS_FAILED):
        if code in codes:
            return code
    return ExitCode.PASSED


@dataclass(frozen=True)
class Diagnosis:
    """A verdict with its evidence: title and text for people, fingerprint to tell causes apart."""

    finding: Finding
    title: str = ""
    text: str = ""
    fingerprint: str = ""


def finding_of(error: BaseException) -> Finding:
    """Return what ERROR means, raised while a test ran on a guest that is well otherwise.

    A process that does not come back in time is the kernel's doing as long as the guest answers.
    """
    kinds: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Finding], ...] = (
        (KernelPanicError, Finding.PANIC),
        (GuestHangError, Finding.HANG),
        ((ProcessGone, ProcessStopped, DeadlineError), Finding.FAILED),
        (GuestLostError, Finding.GUEST_LOST),
        (BuildFailedError, Finding.BUILD_FAILURE),
        (HarnessError, Finding.HARNESS_ERROR),
    )
    return next((finding for kind, finding in kinds if isinstance(error, kind)), Finding.FAILED)


def skip_finding(reason: str, *, is_defect: bool) -> Finding:
    """Return what it means that a test was left out."""
    return Finding.KNOWN_DEFECT if is_defect and "defect" in reason else Finding.NOT_APPLICABLE


def start_finding(error: HarnessError) -> Finding:
    """Return what ERROR means, raised while a target was booted."""
    if isinstance(error, UsageError):
        return Finding.HARNESS_ERROR
    if isinstance(error, BootFailedError):
        blameless = error.culprit in {Culprit.ACCELERATOR, Culprit.HOST}
        return Finding.HARNESS_ERROR if blameless else Finding.BOOT_FAILURE
    if isinstance(error, (GuestLostError, DeadlineError)):
        return Finding.BOOT_FAILURE
    return finding_of(error)

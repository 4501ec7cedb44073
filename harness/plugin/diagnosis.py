# SPDX-License-Identifier: BSD-2-Clause
"""From an error to a diagnosis: what it says of the kernel that it was raised, in a test or on the way up."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import DeadlineError, GuestLostError, HarnessError
from harness.guests.bootcheck import BootFailedError, Culprit
from harness.guests.guest import GuestHangError, KernelPanicError
from harness.kernels.build import BuildFailedError
from harness.plugin.blame import verdict_of
from harness.plugin.rig import Rig
from harness.processes.vocabulary import ProcessGone, ProcessStopped
from harness.results.record import Trouble
from harness.results.verdict import Verdict


@dataclass(frozen=True)
class Diagnosis:
    """A verdict with its evidence: title and text for people, fingerprint to tell causes apart."""

    verdict: Verdict
    title: str = ""
    text: str = ""
    fingerprint: str = ""


def skip_verdict(reason: str, *, is_defect: bool) -> Verdict:
    """Return what it means that a test was left out."""
    return Verdict.KNOWN_DEFECT if is_defect and "defect" in reason else Verdict.NOT_APPLICABLE


def start_trouble(error: HarnessError) -> Trouble:
    """Return what ERROR means, raised while a target was booted or its warm state resumed.

    A kernel that does not boot is at fault where another one does on the same image; a panic after it has booted is
    its own.  All else is the harness's, the host's or the image's.
    """
    if isinstance(error, BootFailedError):
        if error.culprit is Culprit.KERNEL:
            return Trouble(Verdict.BOOT_FAILURE, str(error), Verdict.PANIC if error.panicked else Verdict.HANG)
        return Trouble(Verdict.HARNESS_ERROR, str(error))
    if isinstance(error, KernelPanicError):
        return Trouble(Verdict.BOOT_FAILURE, str(error), Verdict.PANIC)
    if isinstance(error, BuildFailedError):
        return Trouble(Verdict.BUILD_FAILURE, str(error), Verdict.BUILD_FAILURE)
    lost = isinstance(error, GuestLostError)
    return Trouble(Verdict.HARNESS_ERROR, str(error), Verdict.GUEST_LOST if lost else Verdict.HARNESS_ERROR)


def diagnose(rig: Rig | None, error: BaseException) -> Diagnosis:
    """Return what ERROR, raised in a test, says about the kernel; looks at the guest where that is in doubt."""
    death: HarnessError | None = rig.diagnose() if rig is not None else None
    doubtful = isinstance(error, (DeadlineError, GuestLostError)) and not isinstance(
        error, (ProcessGone, ProcessStopped, KernelPanicError, GuestHangError)
    )
    if death is None and doubtful and rig is not None and rig.guest is not None:
        try:
            rig.guest.probe()
        except HarnessError as found:
            death = found
    judged = death if death is not None else error
    verdict = verdict_of(judged)
    if isinstance(judged, (KernelPanicError, GuestHangError)):
        title = "kernel panic" if isinstance(judged, KernelPanicError) else "guest hangs"
        return Diagnosis(verdict, title, judged.evidence, judged.fingerprint)
    if death is not None:
        return Diagnosis(verdict, "guest lost", str(death))
    return Diagnosis(verdict)

# SPDX-License-Identifier: BSD-2-Clause
"""A target that does not boot: whether its kernel, the accelerator or the host is at fault, found out by booting."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.errors import DeadlineError, GuestLostError, HarnessError, UsageError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import BOOT_DEADLINE, Guest, KernelPanicError, Progress, Target
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel
from harness.machine.description import Accelerator
from harness.store import Store

# How many kernels that have not booted on an image yet are tried on it.
_UNTRIED = 2


class Culprit(StrEnum):
    """Who keeps a target from booting."""

    KERNEL = "the kernel"
    ACCELERATOR = "the accelerator"
    HOST = "the host"
    UNKNOWN = "unknown"


class BootFailedError(HarnessError):
    """A target did not come up; `culprit` is what was found to be at fault, the text says by which boots.

    `panicked` says that its kernel died on the way, as its own memory confirms.
    """

    def __init__(self, culprit: Culprit, text: str, *, panicked: bool = False) -> None:
        self.culprit = culprit
        self.panicked = panicked
        super().__init__(text)


#: The environment variable that says how long a target may take to boot, in seconds.
BOOT_VARIABLE = "DFLY_HARNESS_BOOT_DEADLINE"


@dataclass(frozen=True)
class Comparison:
    """Another target, to tell whether kernel, image or host is at fault; `has_booted` on this host before."""

    target: Target
    same_image: bool
    has_booted: bool


def boot_deadline() -> float:
    """Return how many seconds a target may take to boot: BOOT_DEADLINE, or what BOOT_VARIABLE says.

    Raises UsageError where that is no time.
    """
    given = os.environ.get(BOOT_VARIABLE, "")
    try:
        seconds = float(given or BOOT_DEADLINE)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"{BOOT_VARIABLE}={given}: not a number of seconds")
    return seconds


def boot(
    guest: Guest, progress: Progress = lambda _: None, *, deadline: float | None = None, ahead: bool = False
) -> None:
    """Boot GUEST, AHEAD of the clock or not; where it does not come up, find out why before its kernel is blamed.

    It is tried once under TCG, and then another kernel is, on the same image if possible.  Only where that one comes
    up is the kernel at fault: a panic on the way up may be the image's doing, too.  Raises BootFailedError with what
    was found; and as it is what Guest.boot() raises under TCG when QEMU does not start, or another kernel comes up.
    DEADLINE is boot_deadline() unless it is given.
    """
    deadline = boot_deadline() if deadline is None else deadline
    try:
        guest.boot(progress, deadline=deadline, ahead=ahead)
    except UsageError:
        raise
    except HarnessError as error:
        raise _Inquest(guest, progress, deadline).hold(error) from error


class _Inquest:
    """Boots again, and others, to find out why GUEST did not come up."""

    def __init__(self, guest: Guest, progress: Progress, deadline: float) -> None:
        self._guest = guest
        self._progress = progress
        self._deadline = deadline

    def hold(self, error: HarnessError) -> HarnessError:
        """Return the error to raise, ERROR being what came of the first boot."""
        used = self._guest.accelerator
        failed = f"{self._guest.target.label} does not come up under {used.value} ({_in_short(error)})"
        if used is not Accelerator.TCG:
            self._progress(f"it does not come up under {used.value}: trying it under tcg")
            seconds, again = self._try(self._guest.target)
            if again is None:
                found = f"under tcg it came up in {seconds:.0f} s: the accelerator is at fault, not the kernel"
                return self._found(Culprit.ACCELERATOR, f"{failed}; {found} (--accelerator tcg)", error)
            error, failed = again, f"{failed}, nor under tcg ({_in_short(again)})"
        if isinstance(error, KernelPanicError):
            where = f"fingerprint {error.fingerprint}; " if error.fingerprint else ""
            return self._compare(f"{error} ({where}{failed.removesuffix(f' ({_in_short(error)})')})", error)
        # Where nothing ran, nothing failed to boot.
        return self._compare(failed, error) if isinstance(error, (DeadlineError, GuestLostError)) else error

    def _compare(self, failed: str, error: HarnessError) -> BootFailedError:
        """Boot others: what has booted here before, or else what is there."""
        others = to_compare_with(self._guest.target, self._guest.store)
        said = ""
        for other in others:
            label = other.target.label
            if isinstance(error, KernelPanicError) and other.same_image and other.has_booted:
                # The panic is confirmed, and the image is the one that this kernel came up on.
                found = f"{label} has come up on the same image: the kernel is at fault"
                return self._found(Culprit.KERNEL, f"{failed}; {found}", error)
            self._progress(f"it does not come up: trying {label}")
            seconds, fault = self._try(other.target)
            if fault is None and other.same_image:
                found = f"{label} came up under tcg in {seconds:.0f} s: the kernel is at fault, not the host"
                return self._found(Culprit.KERNEL, f"{failed}; {found}", error)
            if fault is None:
                found = (
                    f"{label} came up under tcg in {seconds:.0f} s: the kernel or its image is at fault, not the host"
                )
                return self._found(Culprit.UNKNOWN, f"{failed}; {found}", error)
            if other.has_booted:
                found = f"{label}, which has booted here before, does not come up either ({_in_short(fault)})"
                load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
                said = f"{found}: the host is at fault ({load}), not the kernel"
                return self._found(Culprit.HOST, f"{failed}; {said}", error)
            said = f"{label} does not come up either ({_in_short(fault)}), so that"
        said = said or "no other kernel has booted on this host, so that"
        return self._found(Culprit.UNKNOWN, f"{failed}; {said} kernel, image and host cannot be told apart", error)

    @staticmethod
    def _found(culprit: Culprit, text: str, error: HarnessError) -> BootFailedError:
        tail = error.console_tail if isinstance(error, DeadlineError) else ()
        said = "".join(f"\n    | {line}" for line in tail)
        panicked = isinstance(error, KernelPanicError)
        return BootFailedError(culprit, f"{text}{'; its last console lines:' if tail else ''}{said}", panicked=panicked)

    def _try(self, target: Target) -> tuple[float, HarnessError | None]:
        """Boot TARGET under TCG; return how long that took in seconds, and why it failed if it did."""
        began = time.monotonic()
        size = replace(self._guest.size, ssh_port=0, accelerator=Accelerator.TCG)
        try:
            with Guest(target, self._guest.store, size) as other:
                other.boot(self._progress, deadline=self._deadline)
        except HarnessError as error:
            return time.monotonic() - began, error
        return time.monotonic() - began, None


def to_compare_with(target: Target, store: Store) -> list[Comparison]:
    """Return what to boot in order to learn why TARGET does not, the most telling first.

    What has booted on this host left its warm state: on the same image it says most, on another it clears the host.
    In between come kernels of the store that nobody has booted on the image yet, a few of those nearest in age.
    """
    if not isinstance(target, DragonFlyTarget):
        return []
    kernels = {kernel.elf: kernel for kernel in store.all(Kernel) if kernel.elf != _elf_of(target)}
    images = {image.disk: image for image in store.all(BaseImage)}
    booted: list[tuple[bool, float, Kernel, BaseImage]] = []
    for file in store.folder("snapshots").glob("*/warm.json"):
        try:
            disk, elf = json.loads(file.read_text())["needs"]
            when = file.stat().st_mtime
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged, of an installed kernel, or just being removed
        if disk in images and elf in kernels:
            booted.append((disk == target.image.disk, when, kernels[elf], images[disk]))
    known = [
        Comparison(DragonFlyTarget(image, kernel, store, {}), same, has_booted=True)
        for same, _, kernel, image in sorted(booted, key=lambda each: each[:2], reverse=True)
    ]
    if known and known[0].same_image:
        return known[:1]
    near = sorted(kernels.values(), key=lambda kernel: abs((kernel.osreldate or 0) - target.osreldate))
    untried = [
        Comparison(DragonFlyTarget(target.image, kernel, store, {}), same_image=True, has_booted=False)
        for kernel in near[:_UNTRIED]
    ]
    return [*untried, *known[:1]]


def _elf_of(target: DragonFlyTarget) -> str:
    return target.kernel.elf if target.kernel is not None else ""


def _in_short(error: HarnessError) -> str:
    if isinstance(error, DeadlineError):
        return f"waited {error.seconds:g} s for {error.awaited}, in vain"
    return str(error).partition("\n")[0]

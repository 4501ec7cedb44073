# SPDX-License-Identifier: BSD-2-Clause
"""A target that does not boot: whether its kernel, the accelerator or the host is at fault, found out by booting."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from enum import StrEnum

from harness.errors import DeadlineError, GuestLostError, HarnessError, UsageError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import BOOT_DEADLINE, Guest, KernelPanicError, Progress, Target
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel
from harness.machine.description import Accelerator
from harness.store import Store


class Culprit(StrEnum):
    """Who keeps a target from booting."""

    KERNEL = "the kernel"
    ACCELERATOR = "the accelerator"
    HOST = "the host"
    UNKNOWN = "unknown"


class BootFailedError(HarnessError):
    """A target did not come up; `culprit` is what was found to be at fault, the text says by which boots."""

    def __init__(self, culprit: Culprit, text: str) -> None:
        self.culprit = culprit
        super().__init__(text)


def boot(
    guest: Guest, progress: Progress = lambda _: None, *, deadline: float = BOOT_DEADLINE, ahead: bool = False
) -> None:
    """Boot GUEST, AHEAD of the clock or not; where it does not come up, find out why before its kernel is blamed.

    It is tried once under TCG, and then a kernel that has booted on this host before is.  Raises BootFailedError with
    what was found, KernelPanicError when the kernel panics under TCG; and as it is what Guest.boot() raises under TCG
    when QEMU does not start, or another kernel comes up.
    """
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
        # A panic is believed only when the kernel's own memory shows it; and where nothing ran, nothing failed to boot.
        if isinstance(error, KernelPanicError) or not isinstance(error, (DeadlineError, GuestLostError)):
            return error
        return self._compare(failed, error)

    def _compare(self, failed: str, error: HarnessError) -> BootFailedError:
        """Boot what has booted here before."""
        good = known_to_boot(self._guest.target, self._guest.store)
        if good is None:
            found = "no other kernel has booted on this host, so that kernel, image and host cannot be told apart"
            return self._found(Culprit.UNKNOWN, f"{failed}; {found}", error)
        self._progress(f"it does not come up: trying what has booted here before, {good.label}")
        seconds, other = self._try(good)
        if other is None:
            fault = "the kernel is at fault" if _same_image(good, self._guest.target) else "the kernel or its image is"
            found = f"{good.label} came up under tcg in {seconds:.0f} s: {fault}, not the host"
            return self._found(Culprit.KERNEL, f"{failed}; {found}", error)
        found = f"{good.label}, which has booted here before, does not come up either ({_in_short(other)})"
        load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
        return self._found(Culprit.HOST, f"{failed}; {found}: the host is at fault ({load}), not the kernel", error)

    @staticmethod
    def _found(culprit: Culprit, text: str, error: HarnessError) -> BootFailedError:
        tail = error.console_tail if isinstance(error, DeadlineError) else ()
        said = "".join(f"\n    | {line}" for line in tail)
        return BootFailedError(culprit, f"{text}{'; its last console lines:' if tail else ''}{said}")

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


def known_to_boot(target: Target, store: Store) -> Target | None:
    """Return another target that has booted on this host and left its warm state, on the same image if there is one."""
    if not isinstance(target, DragonFlyTarget):
        return None
    images = {image.disk: image for image in store.all(BaseImage)}
    kernels = {kernel.elf: kernel for kernel in store.all(Kernel)}
    found: list[tuple[bool, float, Target]] = []
    for file in store.folder("snapshots").glob("*/warm.json"):
        try:
            disk, elf = json.loads(file.read_text())["needs"]
            when = file.stat().st_mtime
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged, of an installed kernel, or just being removed
        image, kernel = images.get(disk), kernels.get(elf)
        if image is None or kernel is None or (target.kernel is not None and elf == target.kernel.elf):
            continue
        found.append((disk == target.image.disk, when, DragonFlyTarget(image, kernel, store, {})))
    return max(found, key=lambda each: each[:2])[2] if found else None


def _same_image(one: Target, other: Target) -> bool:
    return isinstance(one, DragonFlyTarget) and isinstance(other, DragonFlyTarget) and one.image == other.image


def _in_short(error: HarnessError) -> str:
    if isinstance(error, DeadlineError):
        return f"waited {error.seconds:g} s for {error.awaited}, in vain"
    return str(error).partition("\n")[0]

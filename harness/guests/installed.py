# SPDX-License-Identifier: BSD-2-Clause
"""Installed boot: a kernel copied to /boot/kernel of a base image and started by the image's own boot loader.

The sealed image is never touched.  What becomes of it is a disk of its own, taken over as another image only after the
new kernel has answered over SSH and was verified; otherwise that disk is dropped and the old kernel proved to boot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DeadlineError, ExitCode, GuestLostError, HarnessError, UsageError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import BOOT_DEADLINE, Guest, MachineSize, Progress
from harness.images.base import BaseImage, disk_of, require_free_name
from harness.kernels.artefact import Kernel
from harness.machine.description import Accelerator, Disk, DiskFormat, MachineDescription
from harness.machine.qemu import qemu_img
from harness.store import Store

if TYPE_CHECKING:
    from harness.guests.builder import Shell

_COPY_DEADLINE = 600.0
_POWER_OFF_DEADLINE = 120.0


class InstallFailedError(HarnessError):
    """The installed kernel did not come up; the image boots its old one as before.  That speaks against the kernel."""

    exit_code = ExitCode.TEST_FAILED


@dataclass(frozen=True)
class InstalledTarget(DragonFlyTarget):
    """An image on which `kernel` is installed: booted by the image's loader, verified against the kernel's file.

    `disk`, where given, stands for the image's own; with `writable` the guest changes it.
    """

    boots_ahead = False
    disk: Path | None = None
    writable: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Kernel and image, and that the loader started it."""
        if self.kernel is None:
            return super().label
        return f"{super().label}, installed, by its loader"

    @property
    def key(self) -> str:
        """Told from a direct boot of the same kernel."""
        return f"{super().key[:57]}-loader"

    def machine(self, size: MachineSize, accelerator: Accelerator) -> MachineDescription:
        """Return the machine of the image, told nothing about a kernel."""
        if self.environment:
            raise UsageError("--kenv goes with a direct boot: an installed kernel gets its environment from the loader")
        plain = DragonFlyTarget(self.image, None, self.store, {}).machine(size, accelerator)
        if self.disk is None:
            return plain
        return plain.with_disks([Disk(self.disk, DiskFormat.QCOW2, plain.disks[0].model, self.writable)])

    def quirks(self, accelerator: Accelerator) -> tuple[str, ...]:
        """Return what the kernel would need and the image's own loader does not give it."""
        return tuple(f"not applied, as the image's loader boots: {quirk}" for quirk in super().quirks(accelerator))


class KernelInstaller:
    """Puts a kernel into /boot of a running system, as `make installkernel` would, and keeps the previous one."""

    def __init__(self, shell: Shell, boot: str = "/boot") -> None:
        self._shell = shell
        self._boot = boot

    def _must(self, command: str, purpose: str) -> None:
        done = self._shell.run(command, deadline=_COPY_DEADLINE)
        if done.status != 0:
            said = (done.errors or done.output).strip().rpartition("\n")[2]
            raise HarnessError(f"the guest could not {purpose}: {said or f'status {done.status}'}")

    def install(self, kernel: Path, modules: Path | None = None) -> None:
        """Keep what is in kernel/ as kernel.old/ and put KERNEL, and the archive MODULES, in its place.

        Raises HarnessError when a step fails; kernel/ then is as it was, or what it was is in kernel.old/.
        """
        boot = self._boot
        self._must(f"test -f {boot}/kernel/kernel", f"find the kernel its loader boots ({boot}/kernel/kernel)")
        # Kernels are installed with the flag schg, which even root has to clear first.
        self._must(
            f"cd {boot} && if test -d kernel.old; then chflags -R noschg kernel.old && rm -rf kernel.old; fi"
            " && chflags -R noschg kernel && cp -Rp kernel kernel.old",
            "keep the old kernel as kernel.old",
        )
        self._shell.upload(kernel, f"{boot}/kernel/kernel.new", mode=0o555)
        if modules is not None:
            self._shell.upload(modules, f"{boot}/kernel/modules.tar")
            # Modules of another kernel must not be loaded into this one.
            self._must(
                f"cd {boot}/kernel && rm -f ./*.ko && tar -xpf modules.tar && rm -f modules.tar", "install the modules"
            )
        self._must(
            f"cd {boot}/kernel && mv -f kernel.new kernel && chmod 555 kernel && chflags schg kernel && sync",
            "install the kernel",
        )


StartGuest = Callable[[InstalledTarget], AbstractContextManager[Guest]]


class KernelInstallation:
    """Makes an image with KERNEL installed out of IMAGE."""

    def __init__(
        self,
        store: Store,
        image: BaseImage,
        kernel: Kernel,
        size: MachineSize,
        *,
        start: StartGuest | None = None,
        deadline: float = BOOT_DEADLINE,
    ) -> None:
        self._store = store
        self._image = image
        self._kernel = kernel
        self._start = start if start is not None else lambda target: Guest(target, store, size)
        self._deadline = deadline
        self._size = size

    def _target(self, disk: Path | None, kernel: Kernel | None, *, writable: bool = False) -> InstalledTarget:
        return InstalledTarget(self._image, kernel, self._store, {}, disk, writable)

    def make(self, name: str, progress: Progress = lambda _: None, imported: str = "") -> BaseImage:
        """Return the new image, called NAME.

        Raises InstallFailedError when the new kernel does not come up in time, after the old one has come up again.
        """
        require_free_name(self._store, name)
        with self._store.scratch("install") as folder:
            disk = folder / "disk.qcow2"
            sealed = disk_of(self._image, self._store).file
            qemu_img("create", "-q", "-f", "qcow2", "-b", str(sealed), "-F", "qcow2", str(disk))
            self._install(disk, progress)
            self._prove(disk, progress)
            return self._take_over(name, disk, folder / "sealed.qcow2", progress, imported)

    def _install(self, disk: Path, progress: Progress) -> None:
        progress(f"booting image {self._image.name} by its loader")
        with self._start(self._target(disk, None, writable=True)) as guest:
            guest.boot(progress, deadline=self._deadline)
            progress(f"installing kernel {self._kernel.name}")
            modules = self._store.blob(self._kernel.modules) if self._kernel.modules else None
            KernelInstaller(guest.ssh).install(self._store.blob(self._kernel.elf), modules)
            progress("powering off")
            _power_off(guest)

    def _prove(self, disk: Path, progress: Progress) -> None:
        progress("booting the new kernel by the loader")
        target = self._target(disk, self._kernel)
        try:
            with self._start(target) as guest:
                guest.boot(progress, deadline=self._deadline)
                return
        except HarnessError as error:
            why = f"{str(error).partition(chr(10))[0]} (under {guest.accelerator.value})"
        if guest.accelerator is not Accelerator.TCG:
            self._prove_under_tcg(target, why, progress)
        progress("rolling back to the old kernel")
        with self._start(self._target(None, None)) as guest:
            guest.boot(progress, deadline=self._deadline)
            old = guest.identity
        raise InstallFailedError(
            f"kernel {self._kernel.name} does not come up installed on image {self._image.name}: {why}; rolled back,"
            f" the image boots {old} as before"
        )

    def _prove_under_tcg(self, target: InstalledTarget, why: str, progress: Progress) -> None:
        """Raise HarnessError when the kernel comes up there: then it is not at fault."""
        progress("booting it under tcg")
        size = replace(self._size, ssh_port=0, accelerator=Accelerator.TCG)
        with contextlib.suppress(GuestLostError, DeadlineError), Guest(target, self._store, size) as guest:
            guest.boot(progress, deadline=self._deadline)
            raise HarnessError(
                f"kernel {self._kernel.name} does not come up: {why}; under tcg it does: the accelerator is at fault,"
                " not the kernel (--accelerator tcg)"
            )

    def _take_over(self, name: str, disk: Path, sealed: Path, progress: Progress, imported: str) -> BaseImage:
        progress("sealing the disk")
        self._store.require_space(disk.stat().st_size, f"image {name}")
        qemu_img("convert", "-f", "qcow2", "-O", "qcow2", str(disk), str(sealed))
        with self._store.adding():
            source = f"image {self._image.name} with kernel {self._kernel.name} installed"
            record = replace(
                self._image,
                name=name,
                disk=self._store.add_blob(sealed, move=True),
                source=source,
                imported=imported,
                installed_kernel=self._kernel.name,
            )
            self._store.put(record)
        return record


def _power_off(guest: Guest) -> None:
    with contextlib.suppress(GuestLostError):  # it may go down before it can say so
        guest.ssh.run("shutdown -p now")
    try:
        guest.machine.await_end(_POWER_OFF_DEADLINE)
    except DeadlineError:
        raise DeadlineError("the guest to power off", _POWER_OFF_DEADLINE, guest.console.tail()) from None

# SPDX-License-Identifier: BSD-2-Clause
"""DragonFly as a guest: how its kernel is booted, recognised and heard when it dies."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from harness.errors import HarnessError, UsageError
from harness.guests.crash import CrashReport
from harness.guests.ddb import Ddb, interrogate, parse_trace
from harness.guests.guest import Guest, MachineSize, Target
from harness.guests.hang import observe
from harness.guests.processors import describe, processors
from harness.guests.quirks import boot_quirks
from harness.guests.ssh import SshAccess
from harness.guests.whitebox import Whitebox
from harness.images.base import BaseImage, disk_of
from harness.kernels.artefact import Kernel
from harness.machine.debuginfo import DebugInformation, FunctionTable
from harness.machine.description import Accelerator, Disk, MachineDescription
from harness.machine.directboot import BootFlags, direct_boot, minimum_memory
from harness.machine.elf import KernelIdentity, identify_kernel
from harness.machine.qemu import Machine
from harness.store import Store

# Between the first line of a panic and the moment when its variables show it.
_DEATH_DEADLINE = 3.0
_POLL = 0.02
_BREAKS, _BREAK_DEADLINE = 3, 1.5
_BREAK_SWITCH = "break_to_debugger"
# One of them is set in a kernel that has panicked or is in its debugger (kern_shutdown.c, ddb/db_trap.c).
_SIGNS_OF_DEATH = ("panicstr", "db_active")

# What shortens the wait of a boot; docs/boot.md says by how much.
_QUICK_BOOT = {
    # The disk is there when the kernel looks for it: it sleeps for so many seconds more, 2 if nothing is said
    # (vfs_conf.c: vfs_mountroot()).  0 means for ever to tsleep(); a negative time is the next tick to callout_reset().
    "vfs.root.wakedelay": "-1",
    # The console is left as it is when the shell of /etc/rc closes it; else its line is down for 3 s, in which no getty
    # opens it and nothing is logged (sio.c: comhardclose(), dtr_wait).
    "kern.break_to_debugger": "1",
    # Nobody uses a mouse (the spelling without "hint." is the one that kernels of all eras read).
    "psm0.disabled": "1",
}
# Kernels since 4098a6e56c of 2018-02-25 measure the LAPIC's timer in 0.2 s instead of 2 to 4 s by a TSC that is called
# invariant (lapic.c: lapic_timer_calibrate()).  It is to be no clock of theirs for that: lanes differ in how it runs.
_QUICK_LAPIC = {"hw.tsc_cputimer_force": "1", "hw.tsc_cputimer_enable": "0"}
_QUICK_LAPIC_SINCE = 500107

# What the kernel says last before it gives USB, which no machine of ours has, until the fifth second of its own to find
# what it may have to boot from (subr_autoconf.c: run_interrupt_driven_config_hooks()); and what it says later.
_DEVICES_ARE_KNOWN = "CAM: finished configuring all busses"
_LATER = re.compile(r"^(?:Mounting root from|mountroot>)", re.MULTILINE)
_USB_WAIT = 5  # s
_HURRY_DEADLINE = 20.0

# What loader(8) makes of these variables, whatever their value: only their existence counts (sys/boot.h).
_FLAG_VARIABLES = {
    "boot_askname": BootFlags.RB_ASKNAME,
    "boot_cdrom": BootFlags.RB_CDROM,
    "boot_ddb": BootFlags.RB_KDB,
    "boot_gdb": BootFlags.RB_GDB,
    "boot_single": BootFlags.RB_SINGLE,
    "boot_verbose": BootFlags.RB_VERBOSE,
}


def quick_boot(osreldate: int | None) -> dict[str, str]:
    """Return the variables with which a kernel of version OSRELDATE waits least as it boots."""
    knows_more = osreldate is not None and osreldate >= _QUICK_LAPIC_SINCE
    return {**_QUICK_BOOT, **(_QUICK_LAPIC if knows_more else {})}


def boot_flags(environment: Mapping[str, str]) -> BootFlags:
    """Return the boot flags that loader(8) would pass with ENVIRONMENT; the console is always serial."""
    flags = BootFlags.RB_SERIAL
    for name in environment:
        flags |= _FLAG_VARIABLES.get(name, BootFlags.RB_AUTOBOOT)
    return flags


def dragonfly_machine(
    disk: Disk,
    store: Store,
    size: MachineSize,
    accelerator: Accelerator,
    *,
    kernel: Kernel | None,
    root: str,
    environment: Mapping[str, str],
    nic: str = "",
) -> MachineDescription:
    """Return a PC without HPET, with legacy-capable virtio devices.

    With the HPET as its clock the kernel forks 40% slower, and newer kernels die early; without RDRAND the first
    fork after setting kern.randompid blocks for seconds; with vtnet's control queue the driver may spin when the
    interface comes up under TCG.
    """
    boot = None
    if kernel is not None:
        elf = store.blob(kernel.elf)
        if size.memory < (least := minimum_memory(elf)):
            raise UsageError(f"kernel {kernel.name} needs at least {least} MiB of memory (--memory)")
        quirks = boot_quirks(kernel.osreldate, accelerator, root)
        for_era = ChainMap(*(dict(quirk.environment) for quirk in quirks))
        boot = direct_boot(
            elf,
            environment={**quick_boot(kernel.osreldate), "vfs.root.mountfrom": root, **for_era, **environment},
            flags=boot_flags(environment),
            cache=store.cache,
        )
    return MachineDescription(
        memory=size.memory,
        cpus=size.cpus,
        accelerator=accelerator,
        model="pc,hpet=off",
        cpu="qemu64,+rdrand",
        disks=(disk,),
        boot=boot,
        nic=nic or "virtio-net-pci,ctrl_vq=off",
        ssh_port=size.ssh_port,
    )


@dataclass(frozen=True)
class DragonFlyTarget(Target):
    """A DragonFly base image with the kernel under test.

    `kernel` None boots whatever is installed on the image, through its own loader.
    """

    image: BaseImage
    kernel: Kernel | None
    store: Store
    environment: Mapping[str, str]

    abi = "dragonfly"
    is_dragonfly = True
    boots_ahead = True  # its kernels of 2017, 2020 and 2026 do
    started = "login: "
    # A line of its own, and not just any program's output: the kernel goes on with its CPU, or is in the debugger.
    panic = re.compile(
        # vfs_conf.c: vfs_mountroot() gives up behind a prompt of its own.
        r"(?:^|(?<=^mountroot> ))"
        r"(?:panic: [^\n]*(?=\n(?:[^\n]*\n){0,3}?cpuid = )|Fatal (?:double fault|trap \d+: [^\n]*(?=\n))"
        r"|SECONDARY PANIC[^\n]*(?=\n)|Stopped at [^\n]*(?=\n(?:[^\n]*\n){0,8}?db> ))",
        re.MULTILINE,
    )

    @property
    def label(self) -> str:
        """Kernel and image by name and version."""
        if self.kernel is None:
            version, _ = self.image.own_version
            return f"DragonFly: the installed kernel of image {self.image.name}{f' ({version})' if version else ''}"
        return f"DragonFly: kernel {self.kernel.name} ({self.kernel.version}) on image {self.image.name}"

    @property
    def osreldate(self) -> int:
        """What the kernel's file says, or what the installed kernel said when the image was made."""
        if self.kernel is not None:
            return self.kernel.osreldate or 0
        return self.image.own_version[1]

    @property
    def key(self) -> str:
        """Digests of the disk and of the kernel."""
        kernel = self.kernel.elf if self.kernel is not None else "installed"
        environment = repr(sorted(self.environment.items()))
        return hashlib.sha256(f"{self.image.disk} {kernel} {environment}".encode()).hexdigest()

    @property
    def needs(self) -> tuple[str, ...]:
        """The disk, which overlays lie on, and the kernel, without which nobody asks for the warm state."""
        return (self.image.disk, *([self.kernel.elf] if self.kernel is not None else []))

    def machine(self, size: MachineSize, accelerator: Accelerator) -> MachineDescription:
        """Return the machine of this image; see dragonfly_machine()."""
        disk = disk_of(self.image, self.store)
        return dragonfly_machine(
            disk,
            self.store,
            size,
            accelerator,
            kernel=self.kernel,
            root=self.image.root,
            environment=self.environment,
            nic=self.image.nic,
        )

    def quirks(self, accelerator: Accelerator) -> tuple[str, ...]:
        """Return what the kernel of an old era needs."""
        if self.kernel is None:
            return ()
        return tuple(map(str, boot_quirks(self.kernel.osreldate, accelerator, self.image.root)))

    def access(self) -> SshAccess:
        """Return the access given when the image was imported."""
        return SshAccess(self.image.user, self.store.blob(self.image.ssh_key), self.image.host_key)

    def verify(self, guest: Guest) -> str:
        """Compare kern.version, and the code in the machine's memory, with the kernel's file."""
        running = guest.ssh.run("sysctl -n kern.version")
        # The second line tells where and by whom it was built.
        version = running.output.strip().partition("\n")[0].strip()
        if running.status != 0 or not version.startswith("DragonFly"):
            said = (running.errors or running.output).strip().partition("\n")[0]
            raise HarnessError(f"the guest is not DragonFly: `sysctl -n kern.version` says {said or 'nothing'!r}")
        if self.kernel is not None:
            wanted = identify_kernel(self.store.blob(self.kernel.elf))
            if version != wanted.version:
                raise HarnessError(f"another kernel is running: {version!r}, asked for {wanted.version!r}")
            self._compare_code(guest, wanted)
            version = f"{version}; code sha256 {wanted.text_digest[:12]}"
            if wanted.build_id:
                version += f"; build id {wanted.build_id[:12]}"
        if self.image.host_key is None:
            self._pin_host_key(guest.ssh.host_key)
        return version

    def _pin_host_key(self, host_key: str) -> None:
        # On a host that only lends its machines, the name may be unknown or another image's.
        with contextlib.suppress(UsageError):
            if self.store.get(BaseImage, self.image.name) == self.image:
                self.store.put(replace(self.image, host_key=host_key), replace=True)

    @staticmethod
    def _compare_code(guest: Guest, wanted: KernelIdentity) -> None:
        code = guest.machine.read_physical(wanted.text_physical_address, wanted.text_size)
        if hashlib.sha256(code).hexdigest() != wanted.text_digest:
            raise HarnessError(
                f"the kernel in memory is not the file {wanted.path}: the versions agree but the code differs"
            )

    def hurry(self, guest: Guest) -> None:
        """Let the kernel's count of ticks leap over what it waits for USB: no variable of its environment says less.

        It counts nothing but what has been waited for: clocks, and the wheel of timeouts, have counts of their own
        (kern_clock.c: hardclock(), kern_timeout.c).
        """
        end = time.monotonic() + _HURRY_DEADLINE
        while _DEVICES_ARE_KNOWN not in (said := guest.console.text()):
            over = _LATER.search(said) or self.panic.search(said) or guest.console.closed
            if over or time.monotonic() > end:
                return
            guest.console.await_more(len(said), _POLL)
        with contextlib.suppress(HarnessError):  # without symbols it takes its time; if it has died, SSH finds out
            kernel = guest.kernel
            kernel.add(kernel.address("ticks"), _USB_WAIT * kernel.word("hz"))

    def look_into(self, machine: Machine) -> Whitebox:
        """Return the kernel as it runs on MACHINE; raises UsageError when its file is not in the store."""
        if self.kernel is None:
            raise UsageError("the image's installed kernel is not in the store, so its symbols are unknown")
        debug = self.store.blob(self.kernel.debug) if self.kernel.debug is not None else None
        return Whitebox(machine, self.store.blob(self.kernel.elf), debug, self.store.cache)

    def confirms_panic(self, guest: Guest) -> bool:
        """Look into the kernel's memory, where its symbols are known: is it in the debugger or has it panicked."""
        if self.kernel is None:
            return True
        try:
            kernel = guest.kernel
            signs = [name for name in _SIGNS_OF_DEATH if kernel.has(name)]
            end = time.monotonic() + _DEATH_DEADLINE
            while signs:
                if any(kernel.word(sign) for sign in signs):
                    return True
                if time.monotonic() > end:
                    return False
                guest.console.await_more(guest.console.position, _POLL)
        except HarnessError:  # no symbols, or the machine is gone: the console's word stands
            return True
        return True

    def collect_panic(self, guest: Guest, headline: str, start: int) -> CrashReport:
        """Ask DDB, if the kernel got that far, and QEMU where the CPUs are; with source lines from the debug file."""
        began = time.monotonic()
        debugger = Ddb(guest.console).await_prompt(start)
        words = guest.console.text(start).replace("\r", "").removesuffix("db> ").strip()
        answers = interrogate(guest.console) if debugger else [("DDB", "(the kernel did not enter its debugger)")]
        frames = parse_trace(dict(answers).get("trace", "") or words) or parse_trace(words)
        with contextlib.suppress(HarnessError):
            answers.append(("CPUs", describe(processors(guest.machine, self._functions()))))
        report = CrashReport(headline, frames, (("console", words), *answers))
        if self.kernel is not None and self.kernel.debug is not None:
            with contextlib.suppress(HarnessError):
                report = report.located(DebugInformation(self.store.blob(self.kernel.debug)).source_line)
        return replace(report, seconds=round(time.monotonic() - began, 3))

    def collect_hang(self, guest: Guest) -> CrashReport:
        """Look at clock and CPUs, then break into DDB over the serial line and ask it who waits for what."""
        began = time.monotonic()
        clock = partial(guest.kernel.word, "ticks") if self.kernel is not None else None
        kernel, frames, texts = observe(guest.machine, self._functions(), clock)
        answers = [("console", "\n".join(guest.console.tail())), *texts]
        with contextlib.suppress(HarnessError):
            answers += self._break_in(guest)
        report = CrashReport(kernel, frames, tuple(answers))
        return replace(report, seconds=round(time.monotonic() - began, 3))

    def _break_in(self, guest: Guest) -> list[tuple[str, str]]:
        # A BREAK on the line enters DDB where this is set; GENERIC leaves it at 0 (tty_cons.c).
        if self.kernel is not None and guest.kernel.has(_BREAK_SWITCH):
            guest.kernel.write(guest.kernel.address(_BREAK_SWITCH), (1).to_bytes(4, "little"))
        start = guest.console.position
        # The first input after a resume may be taken for noise: its interrupt edge was before the saved moment.
        for _ in range(_BREAKS):
            guest.machine.monitor.execute("chardev-send-break", id="serial0")
            if Ddb(guest.console).await_prompt(start, _BREAK_DEADLINE):
                break
        else:
            return [("DDB", "(the kernel does not react to a break on its console)")]
        return interrogate(guest.console, ("trace", "ps", "show tokens", "show pgrpdump"))

    def _functions(self) -> FunctionTable | None:
        return FunctionTable(self.store.blob(self.kernel.elf)) if self.kernel is not None else None

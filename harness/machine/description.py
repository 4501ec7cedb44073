# SPDX-License-Identifier: BSD-2-Clause
"""What a machine is made of, as data; and how QEMU is told so."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from harness.machine.executed import Instrument


class DiskFormat(StrEnum):
    """Disk image formats that can be overlaid."""

    RAW = "raw"
    QCOW2 = "qcow2"


class DiskModel(StrEnum):
    """How a disk is attached; the guest's drivers and the disk's name in it depend on that."""

    VIRTIO = "virtio"
    IDE = "ide"
    AHCI = "ahci"
    SCSI = "scsi"


#: The file, in QEMU's working folder, in which it is noted what a machine executes.
EXECUTION_MAP = "executed"

# A controller the model needs, and the device.  With %d for the number of the disk.
_DISK_DEVICES = {
    # Only virtio-blk survives a slow host under a warped clock, and NVMe cannot be saved.
    DiskModel.VIRTIO: ((), "virtio-blk-pci"),
    DiskModel.IDE: ((), "ide-hd,bus=ide.0,unit=%d"),
    DiskModel.AHCI: (("ahci,id=ahci0",), "ide-hd,bus=ahci0.%d"),
    DiskModel.SCSI: (("virtio-scsi-pci,id=scsi0",), "scsi-hd,bus=scsi0.0,scsi-id=%d"),
}


class Accelerator(StrEnum):
    """QEMU accelerators, fastest first."""

    KVM = "kvm"
    NVMM = "nvmm"
    HVF = "hvf"
    TCG = "tcg"


class Lane(StrEnum):
    """How a machine's time passes.

    WALL_CLOCK: as on the host.  TIME_WARPED: one virtual nanosecond for so many instructions, and none of the host's
    for waiting: a guest whose CPU is idle leaps to its next timer.  That takes TCG and a single CPU.
    COUNTED: one virtual nanosecond for each instruction, waiting skipped as well: a clock that counts instructions.
    RECORDED: by instructions, waiting as long as on the host, while all that comes from outside is noted.
    REPLAYED: as noted, with nobody outside.
    AHEAD: by large steps for each instruction, waiting skipped: for booting, which is mostly waiting.
    """

    WALL_CLOCK = "wall-clock"
    TIME_WARPED = "time-warped"
    COUNTED = "counted"
    RECORDED = "recorded"
    REPLAYED = "replayed"
    AHEAD = "ahead"


# What QEMU calls the memory of PCs (MachineClass: default_ram_id): saved states are told by it which memory is meant.
_MEMORY = "pc.ram"
# Eight virtual nanoseconds per instruction: a CPU of 125 million instructions per second, about what TCG computes when
# it counts them.  From 32 on, the kernel's own clock interrupts leave it too little time.
_SHIFT = 3
#: Of the lane AHEAD.  Calibrations wait by computing: at 64 ns per instruction a second of that is 16 million of them.
AHEAD_SHIFT = 6


@dataclass(frozen=True)
class Disk:
    """A disk; the machine writes to an overlay of its own, and to FILE itself only where it is WRITABLE."""

    file: Path
    format: DiskFormat = DiskFormat.QCOW2
    model: DiskModel = DiskModel.VIRTIO
    writable: bool = False


@dataclass(frozen=True)
class MemoryFile:
    """A file that is a machine's memory: SHARED with it, or what the machine's own begins as."""

    file: Path
    shared: bool


@dataclass(frozen=True)
class LinuxStyleBoot:
    """What `qemu -kernel -initrd -append` loads instead of asking the firmware for a disk.

    To a multiboot program QEMU gives a list of modules, in which a comma ends a name unless it is doubled; to Linux one
    file, whose name is taken as it is.
    """

    kernel: Path
    initrd: Path | None = None
    append: str = ""
    multiboot: bool = False


@dataclass(frozen=True)
class MachineDescription:
    """A machine, whatever will run in it.

    `memory` is in MiB.  `ssh_port` on 127.0.0.1 leads to the guest's port 22; 0 lets the host choose one.
    `guest_ports` are further TCP ports of the guest that get a free port on 127.0.0.1 each.  `serial_ports` counts the
    serial lines: the first is the console, a second is free for other use.  `cdroms` are files of CDs, on the second
    IDE channel; where there are any, the machine boots from the first one.  `events` is the file of the lanes RECORDED
    and REPLAYED.  What a machine that is `lasting` saves is quick to resume: its memory is a file that all who go on
    from there map, and copy what they change.  With an `instrument` it is noted what it executes, which takes TCG.
    """

    memory: int = 512
    cpus: int = 1
    accelerator: Accelerator = Accelerator.TCG
    model: str = "pc"
    cpu: str = "qemu64,+rdrand"
    disks: tuple[Disk, ...] = ()
    boot: LinuxStyleBoot | None = None
    nic: str | None = "virtio-net-pci"
    ssh_port: int = 0
    guest_ports: tuple[int, ...] = ()
    serial_ports: int = 1
    lane: Lane = Lane.WALL_CLOCK
    events: Path | None = None
    cdroms: tuple[Path, ...] = ()
    lasting: bool = False
    extra: tuple[str, ...] = ()
    instrument: Instrument | None = None

    def with_disks(self, disks: Sequence[Disk]) -> MachineDescription:
        """Return the same machine with other disks in the same slots."""
        return replace(self, disks=tuple(disks))

    def booted(self) -> MachineDescription:
        """Return the same machine for what goes on from a saved state: it reads no initrd, whose size costs time."""
        return self if self.boot is None else replace(self, boot=replace(self.boot, initrd=None))

    @property
    def _notes_events(self) -> bool:
        return self.lane in {Lane.RECORDED, Lane.REPLAYED}

    def arguments(
        self, *, monitor_fd: int, serial_fds: Sequence[int], gdb_socket: str, memory: MemoryFile | None = None
    ) -> list[str]:
        """Return QEMU's arguments, without the program; descriptors must be inherited by it.

        Without MEMORY the machine's memory is nowhere but in QEMU.
        """
        argv = [
            "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-machine", self.model, "-accel", self.accelerator.value, "-cpu", self.cpu,
            "-m", str(self.memory), "-smp", str(self.cpus),
            # Of use to Windows XP only; loading its state, a replaying QEMU waits for itself.
            "-global", "apic-common.vapic=off",
            "-chardev", f"socket,id=monitor,fd={monitor_fd}", "-qmp", "chardev:monitor",
            "-chardev", f"socket,id=gdb,path={gdb_socket},server=on,wait=off", "-gdb", "chardev:gdb",
        ]  # fmt: skip
        if self.instrument is not None:
            argv += ["-plugin", f"file={str(self.instrument.plugin).replace(',', ',,')},map={EXECUTION_MAP}"]
        if memory is not None:
            name, share = str(memory.file).replace(",", ",,"), "on" if memory.shared else "off"
            backend = f"memory-backend-file,id={_MEMORY},size={self.memory}M,mem-path={name},share={share}"
            argv += ["-object", backend, "-machine", f"memory-backend={_MEMORY}"]
        if self.lane is Lane.TIME_WARPED:
            argv += ["-icount", f"shift={_SHIFT},sleep=off"]
        elif self.lane is Lane.COUNTED:
            argv += ["-icount", "shift=0,sleep=off,align=off", "-rtc", "clock=vm"]
        elif self.lane is Lane.AHEAD:
            argv += ["-icount", f"shift={AHEAD_SHIFT},sleep=off", "-rtc", "clock=vm"]
        elif self._notes_events:
            mode = "record" if self.lane is Lane.RECORDED else "replay"
            file = str(self.events).replace(",", ",,")
            argv += ["-icount", f"shift={_SHIFT},rr={mode},rrfile={file}"]  # with sleep=off, recording hangs
            # Else the real-time clock reads the host's, from two threads: a replay now and then waits for itself.
            argv += ["-rtc", "clock=vm"]
            argv += ["-no-shutdown"] if self.lane is Lane.REPLAYED else []  # it is to be looked at where it ended
        # The guest's ACPI tables list serial ports in the order they are given in, the last one first.
        for number, fd in reversed(list(enumerate(serial_fds))):
            argv += ["-chardev", f"socket,id=serial{number},fd={fd}"]
            argv += ["-device", f"isa-serial,chardev=serial{number},index={number}"]
        for number, disk in enumerate(self.disks):
            # An option value ends at a comma unless the comma is doubled.
            name = str(disk.file).replace(",", ",,")
            node = f"disk{number}-file" if self._notes_events else f"disk{number}"
            drive = f"if=none,id={node},file={name},format={disk.format.value},cache=unsafe"
            controllers, device = _DISK_DEVICES[disk.model]
            for controller in controllers:
                argv += ["-device", controller] if controller not in argv else []
            model, comma, place = device.partition(",")
            argv += ["-drive", drive]
            if self._notes_events:
                argv += ["-drive", f"driver=blkreplay,if=none,id=disk{number},image={node}"]
            # Left to itself QEMU pauses the machine for good when the host's disk is full; so the guest hears of it.
            model = f"{model},werror=report,drive=disk{number}"
            argv += ["-device", f"{model}{comma}{place.replace('%d', str(number))}"]
        for number, cdrom in enumerate(self.cdroms):
            name = str(cdrom).replace(",", ",,")
            argv += ["-drive", f"if=none,id=cd{number},media=cdrom,readonly=on,format=raw,file={name}"]
            argv += ["-device", f"ide-cd,drive=cd{number},bus=ide.1,unit={number}" + ("" if number else ",bootindex=0")]
        if self.nic is not None:
            ports = {22: self.ssh_port} | dict.fromkeys(self.guest_ports, 0)
            forwards = "".join(f",hostfwd=tcp:127.0.0.1:{near}-:{far}" for far, near in ports.items())
            # Left to itself virtio-net sends from QEMU's main loop, at a moment that is not noted.  Its timer goes off
            # at an instruction: here at the next (1 ns), because a pause before that would set it anew.
            sending = ",tx=timer,x-txtimer=1" if self._notes_events and self.nic.startswith("virtio-net") else ""
            argv += ["-netdev", f"user,id=net0,restrict=on{forwards}", "-device", f"{self.nic},netdev=net0{sending}"]
            if self._notes_events:
                argv += ["-object", "filter-replay,id=net0-replay,netdev=net0"]
        if self.boot is not None:
            argv += ["-kernel", str(self.boot.kernel)]
            if self.boot.initrd is not None:
                file = str(self.boot.initrd)
                argv += ["-initrd", file.replace(",", ",,") if self.boot.multiboot else file]
            if self.boot.append:
                argv += ["-append", self.boot.append]
        return [*argv, *self.extra]

    def command_line(self) -> str:
        """Return the QEMU command for a human to read (descriptors shown as they would be for a first machine)."""
        shown = self.arguments(monitor_fd=3, serial_fds=range(4, 4 + self.serial_ports), gdb_socket="gdb.sock")
        return shlex.join(["qemu-system-x86_64", *shown])

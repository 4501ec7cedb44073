# SPDX-License-Identifier: BSD-2-Clause
"""Starting a DragonFly kernel straight from QEMU, without a boot loader and without touching the guest's disk."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from enum import IntFlag
from pathlib import Path

from harness.errors import UsageError
from harness.machine.description import LinuxStyleBoot
from harness.toolchain import compile_program

_SOURCES = Path(__file__).parent / "bootstub"

# Freestanding 32-bit code needs no 32-bit C library, so no multilib compiler.  Without SSE and MMX the compiler cannot
# use registers that nobody has switched on.
_FLAGS = (
    "-m32", "-march=i686", "-std=c11", "-O2", "-ffreestanding", "-fno-pic", "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables", "-mno-mmx", "-mno-sse", "-nostdlib", "-static", "-Wall", "-Wextra", "-Werror",
    "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,max-page-size=4096",
)  # fmt: skip

_MIB = 1 << 20
_STUB_ADDRESS = 96 * _MIB  # bootstub.ld
_STUB_ROOM = 1 * _MIB  # the stub, the command line and QEMU's tables, in front of the kernel file

_VARIABLES_MAX = 511  # kern_environment.c: KENV_DYNMAXNUM - 1; the kernel ignores the rest
_NAME_MAX = 128  # sys/kenv.h: KENV_MNAMELEN
_COMMAND_LINE_MAX = 128 * 1024 - 1  # Linux allows no longer single argument (MAX_ARG_STRLEN); QEMU itself has no limit

# What a kernel needs to be spoken to over QEMU's serial ports.  GENERIC kernels have the ports compiled in
# (config(8): `device sio0 at isa? port IO_COM1 flags 0x10`); a smaller configuration may not.
DEFAULT_ENVIRONMENT: Mapping[str, str] = {
    "console": "comconsole",
    "sio0.port": "0x3f8",
    "sio0.irq": "4",
    "sio0.flags": "0x10",  # sio.c: COM_CONSOLE()
    "sio1.port": "0x2f8",
    "sio1.irq": "3",
}


class BootFlags(IntFlag):
    """What the kernel is asked to do on the way up (sys/reboot.h)."""

    RB_AUTOBOOT = 0
    RB_ASKNAME = 0x1
    RB_SINGLE = 0x2
    RB_DFLTROOT = 0x20
    RB_KDB = 0x40
    RB_VERBOSE = 0x800
    RB_SERIAL = 0x1000
    RB_CDROM = 0x2000
    RB_GDB = 0x8000
    RB_MUTE = 0x10000
    RB_PAUSE = 0x40000
    RB_VIDEO = 0x20000000


def build_program(name: str, sources: tuple[str, ...], cache: Path) -> Path:
    """Build one of the 32-bit multiboot programs in bootstub/ into CACHE and return its path."""
    script = _SOURCES / "bootstub.ld"
    return compile_program(
        name,
        [_SOURCES / source for source in ("entry.S", *sources, "lib.c")],
        [*_FLAGS, "-T", str(script)],
        cache,
        depends=[_SOURCES / "lib.h", script],
    )


def direct_boot(
    kernel: Path,
    *,
    environment: Mapping[str, str],
    flags: BootFlags = BootFlags.RB_SERIAL,
    cache: Path,
) -> LinuxStyleBoot:
    """Return what QEMU must load so that the machine starts KERNEL, an unpacked DragonFly x86_64 kernel.

    ENVIRONMENT is the kernel environment, as loader(8) would hand it over, on top of DEFAULT_ENVIRONMENT; a name given
    there wins.  The root file system comes from its `vfs.root.mountfrom` (such as `ufs:vbd0`).  Device hints are
    written DragonFly's way, `sio0.flags`: kernels older than 2018 ignore `hint.sio.0.flags`.  The boot
    stub is built into CACHE, an existing or future folder.

    The stub prints one line on the first serial port before the kernel's own; when the kernel file is unusable that
    line says why, and the machine halts.

    Raises UsageError for a kernel that does not exist, a variable that cannot be handed over, or too many of them;
    HarnessError when the stub cannot be built.
    """
    if not kernel.is_file():
        raise UsageError(f"kernel {kernel} does not exist")
    append = _command_line(flags, {**DEFAULT_ENVIRONMENT, **environment})
    stub = build_program("bootstub", ("stub.c",), cache)
    module = _without_spaces(kernel.absolute(), cache)
    return LinuxStyleBoot(kernel=stub, initrd=module, append=append, multiboot=True)


def minimum_memory(kernel: Path) -> int:
    """Return how much memory, in MiB, a machine needs so that the boot stub and KERNEL fit into it."""
    return max(128, -(-(_STUB_ADDRESS + _STUB_ROOM + kernel.stat().st_size) // _MIB))


def _without_spaces(kernel: Path, cache: Path) -> Path:
    """Return a name of KERNEL without spaces: to QEMU, what follows a space is the module's command line."""
    if " " not in str(kernel):
        return kernel
    link = cache.absolute() / f"kernel-{hashlib.sha256(str(kernel).encode()).hexdigest()[:16]}"
    if " " in str(link):
        raise UsageError(f"{kernel}: QEMU cannot load a kernel from a path with spaces, and {cache} has some as well")
    if not link.is_symlink():
        with contextlib.suppress(FileExistsError):  # somebody else has just made the same link
            link.symlink_to(kernel)
    return link


def _command_line(flags: BootFlags, environment: Mapping[str, str]) -> str:
    if len(environment) > _VARIABLES_MAX:
        raise UsageError(
            f"{len(environment)} kernel environment variables: the kernel takes at most {_VARIABLES_MAX}, "
            "the harness's own included"
        )
    words = [f"howto={int(flags):#x}"]
    words += [f"{_checked_name(name)}={_quoted(name, value)}" for name, value in environment.items()]
    line = " ".join(words)
    if len(line) > _COMMAND_LINE_MAX:
        raise UsageError(
            f"the kernel environment takes {len(line)} bytes: at most {_COMMAND_LINE_MAX} can be handed over"
        )
    return line


def _checked_name(name: str) -> str:
    if not name or len(name) > _NAME_MAX or not name.isascii() or not name.isprintable() or set(name) & set(' ="\\'):
        raise UsageError(
            f"{name!r} cannot be the name of a kernel environment variable: "
            f"1 to {_NAME_MAX} printable characters, none of them a space, =, a quote or a backslash"
        )
    return name


def _quoted(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise UsageError(f"the value of the kernel environment variable {name} must be one line of printable ASCII")
    if not set(value) & set(' "'):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

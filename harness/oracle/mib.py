# SPDX-License-Identifier: BSD-2-Clause
"""sysctl(2) by number (kern_sysctl.c: userland_sysctl(), sysctl_root(), sysctl_find_oid()), for what the model knows.

Which components a name may have, what a size query answers, and what happens to a buffer that is too small.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.oracle import views
from harness.oracle.encode import encode_kinfo
from harness.oracle.model import Errno, Proc

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

CTL_KERN, KERN_PROC = 1, 14
LWP, LWKT = 0x10, 0x20  # KERN_PROC_FLAG_LWP, KERN_PROC_FLAG_LWKT
TABLES = {"all": 0, "pid": 1, "pgrp": 2, "tty": 4, "uid": 5, "ruid": 6}
STRINGS = {"args": 7, "cwd": 8, "pathname": 9}
NAME_TO_OID = (0, 3)
SIGTRAMP = 10  # KERN_PROC_SIGTRAMP
_SUFFIXES = {"": 0, "_lwp": LWP, "_lwkt": LWKT, "_lwp_lwkt": LWP | LWKT}
_FIRST_DYNAMIC = 0x100  # OID_AUTO: numbers given at boot
_LONG = frozenset({"kern.ps_arg_cache_limit"})


def variable_names(k: Kernel) -> list[str]:
    """All integer variables, in the order of their numbers."""
    return sorted({*views.SPECIAL, *k.variables})


def nodes(k: Kernel) -> dict[str, int]:
    """SYSCTL_NODE: the nodes below kern.proc, by name."""
    found = {
        name + suffix: number | flags
        for name, number in TABLES.items()
        for suffix, flags in _SUFFIXES.items()
        if not flags & LWKT or k.rules.traits.lwkt_flag
    }
    return found | STRINGS | ({"sigtramp": SIGTRAMP} if k.rules.traits.sigtramp else {})


def mib_of(k: Kernel, name: str) -> tuple[int, ...]:
    """name2oid(): the number of a name; ENOENT for an unknown one."""
    if name == "kern.proc":
        return (CTL_KERN, KERN_PROC)
    if name.startswith("kern.proc.") and (number := nodes(k).get(name.removeprefix("kern.proc."))) is not None:
        return (CTL_KERN, KERN_PROC, number)
    names = variable_names(k)
    if name not in names:
        raise Errno("ENOENT")
    return (CTL_KERN, _FIRST_DYNAMIC + names.index(name))


def sysctl(k: Kernel, viewer: Proc, mib: Sequence[int], room: int | None, new: bytes | None) -> tuple[bytes, int, bool]:
    """userland_sysctl(): return what was copied out, the length returned, and whether it was cut off (ENOMEM).

    ROOM is the size of the buffer, None for none: then the length says how much there would be.
    """
    output = _root(k, viewer, tuple(mib), room is not None, new)
    if room is None:
        return b"", len(output), False
    return output[:room], min(len(output), room), len(output) > room


def _root(k: Kernel, viewer: Proc, mib: tuple[int, ...], reads: bool, new: bytes | None) -> bytes:
    """sysctl_find_oid(), sysctl_root(): find the node, ask for permission, let it answer."""
    if mib == NAME_TO_OID:
        return struct.pack(f"<{len(found)}i", *found) if (found := mib_of(k, (new or b"").decode())) else b""
    if mib[:2] == (CTL_KERN, KERN_PROC):
        return _kern_proc(k, viewer, mib[2:], reads, new)
    names = variable_names(k)
    index = mib[1] - _FIRST_DYNAMIC if len(mib) > 1 and mib[0] == CTL_KERN else -1
    if not 0 <= index < len(names):
        raise Errno("ENOENT")
    if len(mib) > 2:
        raise Errno("ENOTDIR")
    return _variable(k, viewer, names[index], new)


def _variable(k: Kernel, viewer: Proc, name: str, new: bytes | None) -> bytes:
    """sysctl_handle_int() and its like: the old value, and room for a new one of the same size."""
    size = 8 if name in _LONG else 4
    old = views.get_int(k, name).to_bytes(size, "little", signed=True)
    if new is not None:
        views.require_writable(k, viewer, name)
        if len(new) < size:
            raise Errno("EINVAL")
        views.set_int(k, viewer, name, int.from_bytes(new[:size], "little", signed=True))
    return old


def _kern_proc(k: Kernel, viewer: Proc, rest: tuple[int, ...], reads: bool, new: bytes | None) -> bytes:
    if not rest:
        raise Errno("EISDIR")
    number, arguments = rest[0], rest[1:]
    name = next((name for name, value in nodes(k).items() if value == number), None)
    if name is None:
        raise Errno("ENOENT")
    kind = name.partition("_")[0]
    if name in ("all", "sigtramp") and arguments:
        raise Errno("ENOTDIR")  # leaves, unlike the twin for threads
    if new is not None and kind != "args":
        raise Errno("EPERM")
    if name == "sigtramp":
        return struct.pack("<6Q", *views.SIGNAL_TRAMPOLINE, 0, 0, 0, 0)
    if not k.rules.accepts_arguments(kind, len(arguments)):
        raise Errno("EINVAL")
    if kind in STRINGS:
        return _string(k, viewer, kind, arguments, reads, new)
    rows = encode_kinfo(
        views.table(k, viewer, kind, arguments, lwp=bool(number & LWP), kernel_threads=bool(number & LWKT))
    )
    if not reads and kind != "pid":
        rows += bytes(k.rules.traits.record_size * k.rules.size_slop())
    return rows


def _string(k: Kernel, viewer: Proc, kind: str, arguments: tuple[int, ...], reads: bool, new: bytes | None) -> bytes:
    """Args and cwd used to produce an answer only where there is a buffer for it, pathname always has."""
    pid, tid = arguments[0], arguments[1] if len(arguments) > 1 else None
    if kind == "pathname":
        return views.kern_proc_pathname(k, viewer, pid).encode() + b"\0"
    answers = reads or k.rules.sizes_strings()
    if kind == "cwd":
        path = views.kern_proc_cwd(k, viewer, pid) if answers else ""
        return path.encode() + b"\0" if path else b""
    old = views.kern_proc_args(k, viewer, pid, tid) if answers else b""
    if new is not None:
        views.set_kern_proc_args(k, viewer, pid, new, tid)
    return old

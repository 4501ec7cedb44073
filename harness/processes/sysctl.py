# SPDX-License-Identifier: BSD-2-Clause
"""sysctl(3) as seen by one process, above all the kern.proc tables."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from harness.errors import HarnessError, UnknownKernelError
from harness.processes.calls import Caller, Now, Result, Started, system_call
from harness.processes.connection import Call
from harness.processes.kinfo import LAYOUTS, KinfoProc, ProcRows, ProcTable, decode_kinfo
from harness.processes.repetition import Until, describe_repeat
from harness.processes.vocabulary import GuestError, Repeat
from harness.processes.wire import Buffer, LengthSource

T = TypeVar("T")

Mib = Sequence[int]

# sys/sysctl.h
CTL_KERN, KERN_PROC = 1, 14
_LWP, _LWKT = 0x10, 0x20  # KERN_PROC_FLAG_LWP, KERN_PROC_FLAG_LWKT
_ALL, _PID, _PGRP, _TTY, _UID, _RUID, _ARGS, _CWD, _PATHNAME, _SIGTRAMP = 0, 1, 2, 4, 5, 6, 7, 8, 9, 10

# Larger reads share one lock in the kernel, up to a page they do not (kern_sysctl.c: userland_sysctl()).
_PAGE = 4096
_TABLE = 4 << 20  # bytes: some 4,000 processes


def _mib_bytes(mib: Mib) -> bytes:
    return struct.pack(f"<{len(mib)}i", *mib)


class SysctlCalls(Caller):
    """Described sysctl calls.  A name is looked up once per guest; a mib is used as it is."""

    def _sysctl(
        self,
        name: str | Mib,
        size: int | None,
        new: bytes | None,
        convert: Callable[[bytes, int], T],
        text: str | None = None,
    ) -> Call[T]:
        text = text or f"sysctl({name if isinstance(name, str) else '.'.join(map(str, name))})"
        if not self._abi.is_dragonfly:
            raise GuestError(text, "ENOSYS")
        mib = self._mib(name, text)
        # A write alone passes no length: some variables refuse an old value nobody takes.
        asks = size is not None or new is None
        old_length = Buffer(struct.pack("<Q", size or 0), wanted=True)
        old = Buffer(size=size, wanted=True, length=LengthSource.U64, length_in=old_length) if size else None
        fresh = Buffer(new) if new is not None else None

        passes_length = size is not None or new is None

        def decode(result: Result) -> T:
            if not passes_length:
                return convert(b"", 0)
            length = int.from_bytes(result.memory(old_length), "little") if asks else 0
            return convert(result.memory(old) if old is not None else b"", length)

        return self._describe(
            "__sysctl",
            (
                Buffer(_mib_bytes(mib)),
                len(mib),
                old if old is not None else 0,
                old_length if asks else 0,
                fresh if fresh is not None else 0,
                len(new) if new is not None else 0,
            ),
            text,
            decode,
        )

    def _mib(self, name: str | Mib, text: str) -> Mib:
        """Return a name's mib: {0, 3} is the node that translates (kern_sysctl.c: name2oid())."""
        if not isinstance(name, str):
            return name
        known = self._connection.mibs.get(name)
        if known is None:
            call = self._sysctl((0, 3), 64, name.encode(), lambda data, _: data, text)
            data = self._connection.run(self._connection.hub_endpoint, call)
            known = struct.unpack(f"<{len(data) // 4}i", data)
            self._connection.mibs[name] = known
        return known

    @system_call
    def read(self, name: str | Mib, size: int | None = None) -> Call[bytes]:
        """Return a variable's value; SIZE is the room offered in bytes (64 KiB unless given)."""
        return self._sysctl(name, size or 65536, None, lambda data, _: data)

    @system_call
    def size(self, name: str | Mib) -> Call[int]:
        """Return the length the kernel announces for a variable's value when no room is offered."""
        return self._sysctl(name, None, None, lambda _, length: length)

    @system_call
    def write(self, name: str | Mib, new: bytes) -> Call[None]:
        """Set a variable."""
        return self._sysctl(name, None, new, lambda _data, _length: None)

    @system_call
    def raw(self, mib: Mib, size: int | None, new: bytes | None = None) -> Call[tuple[bytes, int]]:
        """Make the raw call; return what was copied out and the length the kernel returned.

        SIZE is the room offered, None for no buffer at all.  GuestError ENOMEM where it did not suffice.
        """
        return self._sysctl(mib, size, new, lambda data, length: (data, length))

    @system_call
    def get_int(self, name: str | Mib) -> Call[int]:
        """Return an integer variable of 4 or 8 bytes."""
        return self._sysctl(name, 8, None, lambda data, _: int.from_bytes(data, "little", signed=True))

    @system_call
    def set_int(self, name: str | Mib, value: int) -> Call[None]:
        """Set an int variable of 4 bytes."""
        new = struct.pack("<I", value & 0xFFFFFFFF)
        text = f"sysctl({name}={value})"
        return self._sysctl(name, None, new, lambda _data, _length: None, text)

    @system_call
    def get_str(self, name: str | Mib) -> Call[str]:
        """Return a string variable."""
        return self._sysctl(name, _PAGE, None, lambda data, _: _string(data))

    @system_call
    def repeat_until(
        self, until: Until, name: str | Mib, size: int = _PAGE, *, seconds: float = 10.0, pause: float = 0.0
    ) -> Call[Repeat]:
        """Read a variable over and over, at the guest's own speed, until the outcome is as awaited.

        UNTIL is length_is(0), fails_with("ESRCH") and so on; SIZE is the room offered in bytes.  Ends after SECONDS in
        any case; PAUSE seconds are slept between two reads.
        """
        text = f"repeat_until(sysctl({name if isinstance(name, str) else '.'.join(map(str, name))}))"
        if not self._abi.is_dragonfly:
            raise GuestError(text, "ENOSYS")
        mib = self._mib(name, text)
        length = Buffer(struct.pack("<Q", size))
        arguments = (Buffer(_mib_bytes(mib)), len(mib), Buffer(size=size), length, 0, 0)
        return describe_repeat(self._abi, until, "__sysctl", arguments, text, seconds, pause, length)

    # ---- kern.proc ----

    def _rows(
        self, kind: str, subtype: int, *argument: int, lwp: bool, lwkt: bool, room: int = _TABLE
    ) -> Call[ProcTable]:
        return self._table(kind, subtype, argument, lwp, lwkt, room, ProcTable)

    def _table(
        self,
        kind: str,
        subtype: int,
        argument: tuple[int, ...],
        lwp: bool,
        lwkt: bool,
        room: int,
        convert: Callable[[list[KinfoProc]], T],
    ) -> Call[T]:
        flags = (_LWP if lwp else 0) | (_LWKT if lwkt else 0)
        mib = (CTL_KERN, KERN_PROC, subtype | flags, *argument)
        suffix = f".{argument[0]}" if argument else ""
        text = f"sysctl(kern.proc.{kind}{'_lwp' if lwp else ''}{'_lwkt' if lwkt else ''}{suffix})"

        def decode(data: bytes, _: int) -> T:
            return convert(decode_kinfo(data, self.record_size()) if data else [])

        return self._sysctl(mib, room, None, decode, text)

    def record_size(self) -> int:
        """Return the size of this kernel's struct kinfo_proc: what it returns about the hub alone.

        Raises UnknownKernelError for a size of no known era.
        """
        if not self._connection.kinfo_size:
            mib = (CTL_KERN, KERN_PROC, _PID, self._connection.hub_pid)
            size = self._ask(mib, lambda data, _: len(data))
            if not size:
                raise HarnessError("kern.proc.pid does not know the hub; the size of struct kinfo_proc is unknown")
            if size not in LAYOUTS:
                version = self._ask("kern.version", lambda data, _: _string(data).partition("\n")[0].strip())
                osreldate = self._ask("kern.osreldate", lambda data, _: int.from_bytes(data, "little"))
                known = ", ".join(map(str, LAYOUTS))
                raise UnknownKernelError(
                    f"this harness does not know {version} ({osreldate}): its struct kinfo_proc has {size} bytes"
                    f" (known: {known}); report these numbers, with sys/sys/kinfo.h of that kernel's sources"
                )
            self._connection.kinfo_size = size
        return self._connection.kinfo_size

    def _ask(self, name: str | Mib, convert: Callable[[bytes, int], T]) -> T:
        """Return a variable as the hub sees it."""
        return self._connection.run(self._connection.hub_endpoint, self._sysctl(name, _PAGE, None, convert))

    @system_call
    def kern_proc_all(self, *, lwp: bool = False, lwkt: bool = False) -> Call[ProcTable]:
        """Return all processes (`kern.proc.all`); with lwp=True one row per thread.

        With lwkt=True (KERN_PROC_FLAG_LWKT) kernel threads as well; kernels before November 2022 list them always and
        know no such flag: ENOENT.
        """
        return self._rows("all", _ALL, lwp=lwp, lwkt=lwkt)

    @system_call
    def kern_proc_pid(self, pid: int, *, lwp: bool = False, lwkt: bool = False) -> Call[list[KinfoProc]]:
        """Return one process, or nothing: no error is raised for a pid that does not exist."""
        return self._table("pid", _PID, (pid,), lwp, lwkt, _TABLE if lwp or lwkt else _PAGE, ProcRows)

    @system_call
    def kern_proc_pgrp(self, pgid: int, *, lwp: bool = False, lwkt: bool = False) -> Call[ProcTable]:
        """Return the members of a process group."""
        return self._rows("pgrp", _PGRP, pgid, lwp=lwp, lwkt=lwkt)

    @system_call
    def kern_proc_tty(self, tdev: int, *, lwp: bool = False, lwkt: bool = False) -> Call[ProcTable]:
        """Return the processes whose controlling terminal has device number TDEV."""
        return self._rows("tty", _TTY, tdev, lwp=lwp, lwkt=lwkt)

    @system_call
    def kern_proc_uid(self, uid: int, *, lwp: bool = False, lwkt: bool = False) -> Call[ProcTable]:
        """Return the processes of an effective user id."""
        return self._rows("uid", _UID, uid, lwp=lwp, lwkt=lwkt)

    @system_call
    def kern_proc_ruid(self, uid: int, *, lwp: bool = False, lwkt: bool = False) -> Call[ProcTable]:
        """Return the processes of a real user id."""
        return self._rows("ruid", _RUID, uid, lwp=lwp, lwkt=lwkt)

    @system_call
    def kern_proc_args(self, pid: int, tid: int | None = None) -> Call[list[bytes]]:
        """Return the argument vector of a process, or of its thread TID; empty for an unknown pid."""
        mib, text = _args_mib(pid, tid)
        return self._sysctl(mib, 262144, None, lambda data, _: data.split(b"\0")[:-1] if data else [], text)

    @system_call
    def set_kern_proc_args(self, pid: int, title: bytes, tid: int | None = None) -> Call[None]:
        """Set the title of a process, or of its thread TID; only its own process may (EPERM)."""
        mib, text = _args_mib(pid, tid)
        return self._sysctl(mib, None, title, lambda _data, _length: None, f"{text[:-1]}=...)")

    @system_call
    def kern_proc_sigtramp(self, pid: int) -> Call[tuple[int, int]]:
        """Return first and last address of a process's signal trampoline (DragonFly since 4.9)."""
        mib = (CTL_KERN, KERN_PROC, _SIGTRAMP, pid)

        def convert(data: bytes, _: int) -> tuple[int, int]:
            first, last = struct.unpack_from("<QQ", data)
            return first, last

        return self._sysctl(mib, _PAGE, None, convert, f"sysctl(kern.proc.sigtramp.{pid})")

    @system_call
    def kern_proc_cwd(self, pid: int) -> Call[str]:
        """Return a process's working directory; empty for an unknown pid."""
        mib = (CTL_KERN, KERN_PROC, _CWD, pid)
        return self._sysctl(mib, _PAGE, None, lambda data, _: _string(data), f"sysctl(kern.proc.cwd.{pid})")

    @system_call
    def kern_proc_pathname(self, pid: int) -> Call[str]:
        """Return the path of the program a process runs."""
        mib = (CTL_KERN, KERN_PROC, _PATHNAME, pid)
        return self._sysctl(mib, _PAGE, None, lambda data, _: _string(data), f"sysctl(kern.proc.pathname.{pid})")


def _args_mib(pid: int, tid: int | None) -> tuple[tuple[int, ...], str]:
    """Return mib and text; a thread as fifth number is understood since 5.8 (kern_proc.c: sysctl_kern_proc_args)."""
    thread = () if tid is None else (tid,)
    return (CTL_KERN, KERN_PROC, _ARGS, pid, *thread), f"sysctl(kern.proc.args.{'.'.join(map(str, (pid, *thread)))})"


def _string(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="surrogateescape")


class Sysctl(SysctlCalls, Now):
    """sysctl as one process sees it."""


class StartedSysctl(SysctlCalls, Started):
    """The same, each call only started."""

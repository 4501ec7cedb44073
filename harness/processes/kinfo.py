# SPDX-License-Identifier: BSD-2-Clause
"""struct kinfo_proc, the row of the kern.proc sysctls, decoded by its size.

Four layouts exist on x86_64 (sys/sys/kinfo.h): 960 bytes before 4.4, 976 bytes from 4.4 to 5.6, 992 bytes from 5.8 to
6.4, 1048 bytes in the development version after it (since October 2023).  They differ in the width of kp_login
(MAXLOGNAME 17, later 33) and in the presence of kl_comm, kp_ktaddr and kp_syscaps.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from functools import lru_cache
from typing import SupportsIndex, TypeVar, overload

from harness.errors import HarnessError
from harness.processes.vocabulary import Rusage

E = TypeVar("E", bound=IntEnum)

_CAPS_PER_WORD = 32  # of two bits each (sys/caps.h: __SYSCAP_PER_ELM)


class ProcStat(IntEnum):
    """State of a process (sys/proc.h: enum procstat)."""

    SIDL = 1
    SACTIVE = 2
    SSTOP = 3
    SZOMB = 4
    SCORE = 5


class LwpStat(IntEnum):
    """State of a light-weight process (enum lwpstat); a kernel thread shows its own states here."""

    LSNONE = 0
    LSRUN = 1
    LSSTOP = 2
    LSSLEEP = 3


class ProcFlag(IntFlag):
    """The p_flags bits of interest (sys/proc.h, the same since 4.0)."""

    P_CONTROLT = 0x00002
    P_PPWAIT = 0x00010
    P_SUGID = 0x00100
    P_SYSTEM = 0x00200
    P_TRACED = 0x00800
    P_WAITED = 0x01000
    P_WEXIT = 0x02000
    P_EXEC = 0x04000
    P_CONTINUED = 0x08000
    P_JAILED = 0x01000000


class AuxFlag(IntFlag):
    """kp_auxflags: what fill_kinfo_proc() found about terminal and session."""

    KI_CTTY = 1
    KI_SLEADER = 2


#: In a capability's number: what is asked or set is the parent's (sys/caps.h).
SYSCAP_INPARENT = 0x00010000


class SyscapFlag(IntFlag):
    """Whom a capability restriction binds (sys/caps.h): the process itself, and what it executes."""

    NONE = 0
    SELF = 1
    EXEC = 2
    ALL = 3


@dataclass(frozen=True)
class KinfoLwp:
    """struct kinfo_lwp: one thread.  Ticks are in units of the statistics clock, slptime in seconds."""

    pid: int = 0
    tid: int = 0
    flags: int = 0
    stat: LwpStat | int = LwpStat.LSNONE
    lock: int = 0
    tdflags: int = 0
    mpcount: int = 0
    prio: int = 0
    tdprio: int = 0
    rtprio: tuple[int, int] = (0, 0)
    uticks: int = 0
    sticks: int = 0
    iticks: int = 0
    cpticks: int = 0
    pctcpu: int = 0
    slptime: int = 0
    origcpu: int = 0
    estcpu: int = 0
    cpuid: int = 0
    ru: Rusage = field(default_factory=Rusage)
    siglist: frozenset[int] = frozenset()  # guest signal numbers
    sigmask: frozenset[int] = frozenset()
    wchan: int = 0
    wmesg: str = ""
    comm: str | None = None  # None before 4.4


@dataclass(frozen=True)
class KinfoProc:
    """struct kinfo_proc: one process (or one of its threads, in the *_lwp variants) or one kernel thread."""

    pid: int
    ppid: int = 0
    pgid: int = 0
    sid: int = 0
    jobc: int = 0
    stat: ProcStat | int = ProcStat.SACTIVE
    flags: ProcFlag = field(default_factory=lambda: ProcFlag(0))
    lock: int = 0
    acflag: int = 0
    traceflag: int = 0
    comm: str = ""
    uid: int = 0
    ruid: int = 0
    svuid: int = 0
    rgid: int = 0
    svgid: int = 0
    groups: tuple[int, ...] = ()
    login: str = ""
    tdev: int | None = None  # device number of the controlling terminal
    tpgid: int = -1
    tsid: int = -1
    exitstat: int = 0  # status word of a zombie, as wait4() will return it
    nthreads: int = 1
    nice: int = 0
    swtime: int = 0  # s
    vm_map_size: int = 0  # bytes; the other sizes are in pages
    vm_rssize: int = 0
    vm_swrss: int = 0
    vm_tsize: int = 0
    vm_dsize: int = 0
    vm_ssize: int = 0
    vm_prssize: int = 0
    jailid: int = 0
    ru: Rusage = field(default_factory=Rusage)
    cru: Rusage = field(default_factory=Rusage)
    auxflags: AuxFlag = field(default_factory=lambda: AuxFlag(0))
    lwp: KinfoLwp = field(default_factory=KinfoLwp)
    start: float = 0.0  # s since the epoch
    siglist: frozenset[int] = frozenset()  # guest signal numbers
    sigignore: frozenset[int] = frozenset()
    sigcatch: frozenset[int] = frozenset()
    sigflag: int = 0
    paddr: int = 0
    fd: int = 0
    ktaddr: int | None = None  # None before 4.4
    syscaps: tuple[int, ...] | None = None  # 64 bits each, 32 restrictions of two bits; None before they existed
    record_size: int = 0  # bytes, tells the era

    def syscap(self, cap: int) -> SyscapFlag:
        """Return how capability CAP is restricted (sys/caps.h): of this process, of what it executes, or of both.

        Raises ValueError for a CAP outside 0..255, and where the kernel has no such restrictions.
        """
        if self.syscaps is None:
            raise ValueError(f"a record of {self.record_size} bytes tells nothing of capability restrictions")
        if not 0 <= cap < len(self.syscaps) * _CAPS_PER_WORD:
            raise ValueError(f"capability {cap} is not one of 0..{len(self.syscaps) * _CAPS_PER_WORD - 1}")
        word = self.syscaps[cap // _CAPS_PER_WORD]
        return SyscapFlag(word >> 2 * (cap % _CAPS_PER_WORD) & 3)

    @property
    def is_zombie(self) -> bool:
        """Whether the process has exited and waits to be reaped."""
        return self.stat == ProcStat.SZOMB

    @property
    def is_kernel_thread(self) -> bool:
        """Whether the row is a kernel thread (kern_kinfo.c: fill_kinfo_proc_kthread() sets kp_pid to -1)."""
        return self.pid == -1

    @property
    def is_session_leader(self) -> bool:
        """Whether the kernel flagged it KI_SLEADER."""
        return bool(self.auxflags & AuxFlag.KI_SLEADER)

    @property
    def has_controlling_tty(self) -> bool:
        """Whether the kernel flagged its session as having a terminal (KI_CTTY)."""
        return bool(self.auxflags & AuxFlag.KI_CTTY)


@dataclass(frozen=True)
class _Layout:
    login: int  # bytes of kp_login
    lwp: int  # sizeof(struct kinfo_lwp)
    syscaps: int = 0  # words of kp_syscaps

    @property
    def has_comm_and_ktaddr(self) -> bool:
        return self.lwp == 312


LAYOUTS = {960: _Layout(24, 296), 976: _Layout(24, 312), 992: _Layout(40, 312), 1048: _Layout(40, 312, syscaps=8)}

_HEAD = struct.Struct("<Qiiiii4xQ16s16s16si4xqq17s3xIh2x16I4I5i")  # kp_paddr .. kp_sid
_MIDDLE = struct.Struct("<IiiH2xiiI4xQ5qIi144s144si4x")  # kp_tdev .. kp_auxflags and padding
_LWP = struct.Struct("<9i2H4Q2I3i4x144s16s16sQ9s")  # kl_pid .. kl_wmesg
_RUSAGE = struct.Struct("<18q")


def record_size_of(data: bytes, candidates: Sequence[int] = tuple(LAYOUTS)) -> int:
    """Guess the record size of a table of several rows: the only candidate of which DATA's length is a multiple.

    Raises HarnessError if none or several fit; ask the kernel for one row (kern.proc.pid) to know.
    """
    fitting = [size for size in candidates if len(data) % size == 0]
    if len(fitting) == 1:
        return fitting[0]
    raise HarnessError(f"{len(data)} bytes are no whole number of kinfo_proc records of one known size ({fitting})")


def decode_kinfo(data: bytes, size: int) -> list[KinfoProc]:
    """Decode a table of kinfo_proc records of SIZE bytes each.

    Raises HarnessError for a size of no known era, and for a table that is no multiple of it.
    """
    layout = LAYOUTS.get(size)
    if layout is None:
        known = ", ".join(map(str, LAYOUTS))
        raise HarnessError(f"struct kinfo_proc of {size} bytes is of no known era (known: {known}); see kinfo.py")
    if len(data) % size:
        raise HarnessError(f"{len(data)} bytes are no multiple of {size}, the size of struct kinfo_proc")
    return [_decode(data, offset, layout, size) for offset in range(0, len(data), size)]


def _decode(data: bytes, offset: int, layout: _Layout, size: int) -> KinfoProc:
    head = _HEAD.unpack_from(data, offset)
    (paddr, flags, stat, lock, acflag, traceflag, fd, siglist, sigignore, sigcatch, sigflag, sec, usec, comm) = head[
        :14
    ]
    uid, ngroups = head[14:16]
    groups = head[16:32]
    ruid, svuid, rgid, svgid, pid, ppid, pgid, jobc, sid = head[32:]
    login_at = offset + _HEAD.size
    middle_at = login_at + layout.login
    (
        tdev, tpgid, tsid, exitstat, nthreads, nice, swtime, map_size, rssize, swrss, tsize, dsize, ssize, prssize,
        jailid, ru, cru, auxflags,
    ) = _MIDDLE.unpack_from(data, middle_at)  # fmt: skip
    lwp_at = middle_at + _MIDDLE.size
    return KinfoProc(
        pid=pid,
        ppid=ppid,
        pgid=pgid,
        sid=sid,
        jobc=jobc,
        stat=_member(ProcStat, stat),
        flags=ProcFlag(flags),
        lock=lock,
        acflag=acflag,
        traceflag=traceflag,
        comm=_text(comm),
        uid=uid,
        ruid=ruid,
        svuid=svuid,
        rgid=rgid,
        svgid=svgid,
        groups=groups[: max(ngroups, 0)],
        login=_text(data[login_at:middle_at]),
        tdev=None if tdev == 0xFFFFFFFF else tdev,
        tpgid=tpgid,
        tsid=tsid,
        exitstat=exitstat,
        nthreads=nthreads,
        nice=nice,
        swtime=swtime,
        vm_map_size=map_size,
        vm_rssize=rssize,
        vm_swrss=swrss,
        vm_tsize=tsize,
        vm_dsize=dsize,
        vm_ssize=ssize,
        vm_prssize=prssize,
        jailid=jailid,
        ru=decode_rusage(ru),
        cru=decode_rusage(cru),
        auxflags=AuxFlag(auxflags),
        lwp=_decode_lwp(data, lwp_at, layout),
        start=sec + usec / 1e6,
        siglist=_signals(siglist),
        sigignore=_signals(sigignore),
        sigcatch=_signals(sigcatch),
        sigflag=sigflag,
        paddr=paddr,
        fd=fd,
        ktaddr=struct.unpack_from("<Q", data, lwp_at + layout.lwp)[0] if layout.has_comm_and_ktaddr else None,
        syscaps=struct.unpack_from(f"<{layout.syscaps}Q", data, lwp_at + layout.lwp + 8) if layout.syscaps else None,
        record_size=size,
    )


def _decode_lwp(data: bytes, offset: int, layout: _Layout) -> KinfoLwp:
    fields = _LWP.unpack_from(data, offset)
    pid, tid, flags, stat, lock, tdflags, mpcount, prio, tdprio, rt_type, rt_prio = fields[:11]
    uticks, sticks, iticks, cpticks, pctcpu, slptime, origcpu, estcpu, cpuid, ru, siglist, sigmask, wchan, wmesg = (
        fields[11:]
    )
    comm_at = offset + _LWP.size
    return KinfoLwp(
        pid=pid,
        tid=tid,
        flags=flags,
        stat=_member(LwpStat, stat),
        lock=lock,
        tdflags=tdflags,
        mpcount=mpcount,
        prio=prio,
        tdprio=tdprio,
        rtprio=(rt_type, rt_prio),
        uticks=uticks,
        sticks=sticks,
        iticks=iticks,
        cpticks=cpticks,
        pctcpu=pctcpu,
        slptime=slptime,
        origcpu=origcpu,
        estcpu=estcpu,
        cpuid=cpuid,
        ru=decode_rusage(ru),
        siglist=_signals(siglist),
        sigmask=_signals(sigmask),
        wchan=wchan,
        wmesg=_text(wmesg),
        comm=_text(data[comm_at : comm_at + 17]) if layout.has_comm_and_ktaddr else None,
    )


def decode_rusage(data: bytes) -> Rusage:
    """Decode struct rusage of 144 bytes: two struct timeval and 14 longs, alike on DragonFly and Linux."""
    usec, uusec, ssec, susec, *counts = _RUSAGE.unpack(data)
    return Rusage(usec + uusec / 1e6, ssec + susec / 1e6, *counts)


def _member(kind: type[E], value: int) -> E | int:
    try:
        return kind(value)
    except ValueError:  # a state this harness does not know is still worth showing
        return value


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="backslashreplace")


@lru_cache(maxsize=1024)  # a handful of different sets in a table of hundreds of processes, four to a row
def _signals(raw: bytes) -> frozenset[int]:
    bits = int.from_bytes(raw, "little")
    return frozenset(number + 1 for number in range(len(raw) * 8) if bits >> number & 1)


class MissingRowError(KeyError, IndexError):
    """The guest answered, and what it answered lacks the row that was asked for."""

    def __str__(self) -> str:
        """Return the message as it is; KeyError would quote it."""
        return str(self.args[0])


class ProcRows(list[KinfoProc]):
    """Rows as a list; an index it does not have raises MissingRowError."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> KinfoProc: ...

    @overload
    def __getitem__(self, index: slice) -> list[KinfoProc]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> KinfoProc | list[KinfoProc]:
        """Return a row, or several."""
        try:
            return super().__getitem__(index)
        except IndexError:
            raise MissingRowError(f"the kernel's answer has {len(self)} rows, and none at index {index}") from None


class ProcTable:
    """Rows of one kern.proc query, in the kernel's order: iterate for rows, index by pid."""

    def __init__(self, rows: Sequence[KinfoProc]) -> None:
        self._rows = tuple(rows)
        self._first: dict[int, KinfoProc] = {}
        for row in self._rows:
            if not row.is_kernel_thread:
                self._first.setdefault(row.pid, row)

    def __iter__(self) -> Iterator[KinfoProc]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, pid: object) -> bool:
        return pid in self._first

    def __getitem__(self, pid: int) -> KinfoProc:
        """Return PID's (first) row; MissingRowError (a KeyError) if the process is not listed."""
        if pid not in self._first:
            raise MissingRowError(f"process {pid} is not in the kernel's answer ({len(self)} rows)")
        return self._first[pid]

    def __repr__(self) -> str:
        return f"ProcTable({len(self._rows)} rows, pids {self.pids})"

    @property
    def pids(self) -> list[int]:
        """The pids of all processes, without kernel threads, one per row."""
        return [row.pid for row in self._rows if not row.is_kernel_thread]

    @property
    def kernel_threads(self) -> list[KinfoProc]:
        """Rows of kernel threads."""
        return [row for row in self._rows if row.is_kernel_thread]

    def rows_of(self, pid: int) -> list[KinfoProc]:
        """All rows of PID: one per thread in the *_lwp queries, otherwise none or one."""
        return [row for row in self._rows if row.pid == pid]

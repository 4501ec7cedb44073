# SPDX-License-Identifier: BSD-2-Clause
"""The things the kernel keeps: processes, process groups, sessions, credentials, dispositions, reapers.

Plain data.  The names follow the members of the C structures without their prefixes (`struct proc`, `struct pgrp`,
`struct session`, `struct ucred`, `struct sigacts`, `struct sysreaper`); what happens to them is told in the other
modules, one per concept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.processes.kinfo import ProcFlag, ProcStat
from harness.processes.vocabulary import SigFlag, SignalRecord

if TYPE_CHECKING:
    from harness.oracle.calls import Call

NO_FLAGS = SigFlag(0)

# Bits of p_flags every process of today's kernel has, or gains while it dies, which no test looks for by name.
P_POSTEXIT = ProcFlag(0x00040)
P_MAYBETHREADED = ProcFlag(0x00400)

RLIM_INFINITY = (1 << 63) - 1
AFORK, ACORE, AXSIG = 0x01, 0x08, 0x10  # sys/acct.h: forked without exec, dumped core, killed by a signal


class Errno(Exception):  # noqa: N818  (the outcome of a system call, turned into GuestError by the facade)
    """A system call of the model fails with the errno called `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Ids:
    """The three ids of a process's user or group."""

    real: int
    effective: int
    saved: int


@dataclass(frozen=True)
class Credentials:
    """struct ucred: whose process it is.  Replaced as a whole, never changed."""

    uid: int = 0  # effective
    ruid: int = 0
    svuid: int = 0
    gid: int = 0
    rgid: int = 0
    svgid: int = 0
    groups: tuple[int, ...] = ()  # cr_groups behind the first one, which is gid
    prison: int = 0  # the jail's id, 0 outside
    caps: int = 0  # cr_caps: two bits for each restriction (syscaps.py)


@dataclass(frozen=True)
class Disposition:
    """What one signal does: `action` is "default", "ignore" or "catch", as sigaction() last set it."""

    action: str = "default"
    flags: SigFlag = SigFlag.SA_RESTART  # what the kernel reports for a signal nobody has touched
    mask: frozenset[int] = frozenset()  # blocked while the handler runs
    is_internal: bool = False  # a handler of the driven program itself, which logs nothing


DEFAULT_DISPOSITION = Disposition()


@dataclass(frozen=True)
class SigActs:
    """struct sigacts: the dispositions of a process.  Replaced as a whole, so that fork() may share it."""

    dispositions: Mapping[int, Disposition] = field(default_factory=dict)
    ignored: frozenset[int] = frozenset()  # ps_sigignore: dropped on arrival
    no_child_wait: bool = False  # PS_NOCLDWAIT
    no_child_stop: bool = False  # PS_NOCLDSTOP
    child_ignored: bool = False  # PS_CLDSIGIGN

    def of(self, signal: int) -> Disposition:
        """Return the disposition of SIGNAL."""
        return self.dispositions.get(signal, DEFAULT_DISPOSITION)

    @property
    def caught(self) -> frozenset[int]:
        """ps_sigcatch: the signals that have a handler."""
        return frozenset(number for number, one in self.dispositions.items() if one.action == "catch")

    @property
    def flag_word(self) -> int:
        """ps_flag as kp_sigflag shows it."""
        return self.no_child_wait * 1 | self.no_child_stop * 2 | self.child_ignored * 4


@dataclass(eq=False)
class Terminal:
    """struct tty of a pseudo-terminal."""

    number: int  # t_dev
    session: Session | None = None  # t_session
    group: Pgrp | None = None  # t_pgrp: the foreground; it is referenced
    master: bool = False  # a process of the model has the master open
    open_as_tty: bool = False  # VCTTYISOPEN: open as /dev/tty
    held_by_session: int = 0  # sessions it is, or was, the terminal of (t_refs)
    files: list[File] = field(default_factory=list)  # the slave's
    line: bytes = b""  # what has been typed, the last newline included or not

    @property
    def is_open(self) -> bool:
        """Whether the slave is open."""
        return bool(self.files) or self.open_as_tty


@dataclass(eq=False)
class File:
    """struct file: TERMINAL's slave or master, or /dev/tty; `references` are descriptors."""

    terminal: Terminal | None
    is_master: bool = False
    references: int = 1
    revoked: bool = False


@dataclass(eq=False)
class Session:
    """struct session.  `references` are its process groups; its id is taken until the last one is gone."""

    sid: int
    leader: Proc | None
    login: str = ""
    references: int = 1
    terminal: Terminal | None = None  # s_ttyp: what is, or was, its terminal
    has_terminal: bool = False  # s_ttyvp


@dataclass(eq=False)
class Pgrp:
    """struct pgrp.  `references` are its members, and terminals it is the foreground of; without any its id is free."""

    pgid: int
    session: Session
    members: list[Proc] = field(default_factory=list)
    jobc: int = 0  # members whose parent is in another group of the same session
    references: int = 1


@dataclass(eq=False)
class Reaper:
    """struct sysreaper: a process that inherits the orphans among its descendants; None once it is gone."""

    proc: Proc | None
    parent: Reaper | None
    real_init: bool = False
    references: int = 1


@dataclass(eq=False)
class Lwp:
    """struct lwp: a thread."""

    proc: Proc
    tid: int
    mask: frozenset[int] = frozenset()  # lwp_sigmask
    notified: set[int] = field(default_factory=set)  # lwp_siglist: on its way to the thread
    title: bytes = b""  # lwp_lpmap->thread_title
    held_back: int = 0  # lwp_lpmap->blockallsigs: a count, and in bit 31 whether a signal came
    trace_stop: int = 0  # the signal its tracer decides about
    in_userret: bool = False  # it has stopped on its way back to user mode, not in its sleep
    stop_unreported: bool = False  # stopped by its own system call, which has not returned yet
    stopped_by: int = 0  # the pending signal the process is stopped by, if this thread stopped it on its way back
    frames: list[tuple[int, Disposition, frozenset[int]]] = field(default_factory=list)  # handlers about to run
    handled: int = 0  # signals delivered to handlers (ru_nsignals)
    waits_for_vfork: Proc | None = None  # blocked until this child has exited or run a program
    log: list[SignalRecord] = field(default_factory=list)  # what the logging handler has seen
    logged: int = 0  # deliveries to the logging handler so far
    calls: list[Call] = field(default_factory=list)  # what the test asked this thread to do, in order

    @property
    def waiting(self) -> set[int]:
        """lwp_sigpend(): signals that wait for this thread, blocked or not: its own and those of the process."""
        return self.proc.pending | self.notified

    def __repr__(self) -> str:
        return f"<Lwp {self.proc.pid}.{self.tid}>"


@dataclass(eq=False)
class Proc:
    """struct proc."""

    pid: int
    parent: Proc | None
    cred: Credentials
    sigacts: SigActs
    reaper: Reaper | None
    birth: int  # serial number of the fork: the order of the kernel's lists
    start: float = 0.0  # s since the epoch
    pgrp: Pgrp | None = None
    stat: ProcStat = ProcStat.SACTIVE
    flags: ProcFlag = P_MAYBETHREADED
    children: list[Proc] = field(default_factory=list)  # youngest first
    files: dict[int, File] = field(default_factory=dict)  # p_fd, as far as terminals are open
    xstat: int = 0  # exit status word of a zombie, otherwise the last stop signal
    comm: str = ""
    args: bytes = b""  # p_args: each argument ends with a zero byte
    title: bytes = b""  # p_upmap->proc_title, where a title set by sysctl is kept in later eras
    path: str = ""  # of the program
    cwd: str = "/"
    acflag: int = 0
    nice: int = 0  # p_nice
    depth: int = 0  # p_depth: generations, for the downscaling of limits
    deathsig: int = 0  # p_deathsig: what it gets when its parent dies
    signalled_by_reaper: bool = False  # p_reaptid: PROC_REAP_KILL has come by
    limits: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # soft and hard; the rest are infinite
    signals_parent_with: str = "SIGCHLD"  # p_sigparent; SIGUSR1 makes it a thread in the eyes of wait4()
    lwps: list[Lwp] = field(default_factory=list)  # p_lwp_tree: its threads by id; of a zombie the one that ended it
    last_tid: int = 0  # p_lasttid
    pending: set[int] = field(default_factory=set)  # p_siglist
    senders: dict[int, tuple[int, int]] = field(default_factory=dict)  # ps_frominfo: pid and uid, by signal
    traced_child_of: int = 0  # p_oppid: whose child it was when it began to be traced
    thread_gone: bool = False  # of a zombie: somebody has looked at it with WNOWAIT, and put its thread away
    holds: int = 0  # p_lock, as far as somebody outside holds it
    waits_for_holders: bool = False  # it has exited, but for those who hold it
    driven: bool = True  # it runs the program that makes the calls a test asks for
    reaps_itself: bool = False  # init and the hub: they wait for any child as soon as there is one to wait for

    def limit(self, resource: int) -> tuple[int, int]:
        """Soft and hard limit of a resource."""
        return self.limits.get(resource, (RLIM_INFINITY, RLIM_INFINITY))

    @property
    def lwp(self) -> Lwp:
        """Its thread, the first one of several."""
        return self.lwps[0]

    @property
    def threads(self) -> int:
        """p_nthreads."""
        return 0 if self.is_zombie else len(self.lwps)

    @property
    def group(self) -> Pgrp:
        """Its process group; every process has one until it is reaped."""
        assert self.pgrp is not None
        return self.pgrp

    @property
    def session(self) -> Session:
        """Its session."""
        return self.group.session

    @property
    def is_zombie(self) -> bool:
        """Whether it has exited and was not reaped yet."""
        return self.stat is ProcStat.SZOMB

    @property
    def is_session_leader(self) -> bool:
        """SESS_LEADER(p)."""
        return self.session.leader is self

    @property
    def is_system(self) -> bool:
        """Whether it is a process of the kernel (P_SYSTEM)."""
        return bool(self.flags & ProcFlag.P_SYSTEM)

    def __repr__(self) -> str:
        return f"<Proc {self.pid} {self.stat.name}>"

# SPDX-License-Identifier: BSD-2-Clause
"""The words of the process interface: values, results and errors, the same for every ABI and for the oracle.

Names, not numbers: a test says SIGCHLD, WCONTINUED or SA_NOCLDWAIT and each ABI translates.  Signals and errno
values are the host's own (`signal.SIGCHLD`, `errno.EPERM`), translated by name in both directions.  Wherever a
name is accepted, a plain int is also accepted and reaches the kernel unchanged: that is how a test passes nonsense
on purpose.
"""

from __future__ import annotations

import signal as host_signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, Flag, IntEnum, IntFlag, auto

from harness.errors import GuestLostError, HarnessError
from harness.processes.errnos import errno_name, host_errno

# A signal by host constant (signal.SIGTERM), by name ("SIGINFO", for those the host lacks) or by raw guest number.
SignalLike = int | str
# What comes back: the host's constant, or the name where the host has no such signal, so `== SIGCHLD` just works.
SignalName = host_signal.Signals | str


class WaitOption(Flag):
    """Options of wait4() and wait6(); each ABI has its own bits."""

    WNOHANG = auto()
    WUNTRACED = auto()
    WCONTINUED = auto()
    WNOWAIT = auto()
    WEXITED = auto()
    WTRAPPED = auto()
    WLINUXCLONE = auto()


WNOHANG = WaitOption.WNOHANG
WUNTRACED = WaitOption.WUNTRACED
WCONTINUED = WaitOption.WCONTINUED
WNOWAIT = WaitOption.WNOWAIT
WEXITED = WaitOption.WEXITED
WTRAPPED = WaitOption.WTRAPPED


class IdType(Enum):
    """Whom wait6() waits for and procctl() acts on."""

    P_PID = "P_PID"
    P_PPID = "P_PPID"
    P_PGID = "P_PGID"
    P_SID = "P_SID"
    P_CID = "P_CID"
    P_UID = "P_UID"
    P_GID = "P_GID"
    P_ALL = "P_ALL"
    P_LWPID = "P_LWPID"
    P_TASKID = "P_TASKID"
    P_PROJID = "P_PROJID"
    P_POOLID = "P_POOLID"
    P_JAILID = "P_JAILID"
    P_CTID = "P_CTID"
    P_CPUID = "P_CPUID"
    P_PSETID = "P_PSETID"


class Handler(Enum):
    """What a process does with a signal: the default, nothing, or log it (read with `signals()`)."""

    DEFAULT = "default"
    IGNORE = "ignore"
    LOG = "log"


class SigFlag(Flag):
    """Flags of sigaction()."""

    SA_ONSTACK = auto()
    SA_RESTART = auto()
    SA_RESETHAND = auto()
    SA_NOCLDSTOP = auto()
    SA_NODEFER = auto()
    SA_NOCLDWAIT = auto()
    SA_SIGINFO = auto()


SA_ONSTACK = SigFlag.SA_ONSTACK
SA_RESTART = SigFlag.SA_RESTART
SA_RESETHAND = SigFlag.SA_RESETHAND
SA_NOCLDSTOP = SigFlag.SA_NOCLDSTOP
SA_NODEFER = SigFlag.SA_NODEFER
SA_NOCLDWAIT = SigFlag.SA_NOCLDWAIT
SA_SIGINFO = SigFlag.SA_SIGINFO


class SigHow(Enum):
    """How sigprocmask() combines the set with the present mask."""

    SIG_BLOCK = "SIG_BLOCK"
    SIG_UNBLOCK = "SIG_UNBLOCK"
    SIG_SETMASK = "SIG_SETMASK"


SIG_BLOCK = SigHow.SIG_BLOCK
SIG_UNBLOCK = SigHow.SIG_UNBLOCK
SIG_SETMASK = SigHow.SIG_SETMASK


class RforkFlag(IntFlag):
    """Flags of DragonFly's rfork(), its own bits (sys/unistd.h)."""

    RFFDG = 1 << 2
    RFPROC = 1 << 4
    RFMEM = 1 << 5
    RFNOWAIT = 1 << 6
    RFCFDG = 1 << 12
    RFTHREAD = 1 << 13
    RFSIGSHARE = 1 << 14
    RFLINUXTHPN = 1 << 16
    RFPPWAIT = 1 << 31


#: Flag of open() that closes the descriptor in children (POSIX 2024).  Hosts have none yet: a bit no host uses.
O_CLOFORK = 1 << 40


class Fcntl(IntEnum):
    """Commands of fcntl() and flags of descriptors, DragonFly's own numbers (sys/fcntl.h)."""

    F_DUPFD = 0
    F_GETFD = 1
    F_SETFD = 2
    F_DUP2FD = 10
    F_DUPFD_CLOEXEC = 17
    F_DUP2FD_CLOEXEC = 18
    F_DUPFD_CLOFORK = 21
    F_DUP2FD_CLOFORK = 22
    F_DUP3FD = 23


class FdFlag(IntFlag):
    """What F_GETFD returns and F_SETFD sets, DragonFly's own numbers (sys/fcntl.h)."""

    FD_CLOEXEC = 1
    FD_CLOFORK = 2


class Resource(Enum):
    """Resources of getrlimit() and setrlimit()."""

    RLIMIT_CPU = "RLIMIT_CPU"
    RLIMIT_FSIZE = "RLIMIT_FSIZE"
    RLIMIT_DATA = "RLIMIT_DATA"
    RLIMIT_STACK = "RLIMIT_STACK"
    RLIMIT_CORE = "RLIMIT_CORE"
    RLIMIT_RSS = "RLIMIT_RSS"
    RLIMIT_MEMLOCK = "RLIMIT_MEMLOCK"
    RLIMIT_NPROC = "RLIMIT_NPROC"
    RLIMIT_NOFILE = "RLIMIT_NOFILE"
    RLIMIT_AS = "RLIMIT_AS"


class Clock(Enum):
    """Clocks of clock_gettime()."""

    CLOCK_REALTIME = "CLOCK_REALTIME"
    CLOCK_MONOTONIC = "CLOCK_MONOTONIC"


@dataclass(frozen=True)
class WaitStatus:
    """A decoded status word of wait4(): exactly one of the four kinds of change is set."""

    raw: int
    exit_status: int | None = None
    signal: SignalName | None = None
    core_dumped: bool = False
    stop_signal: SignalName | None = None
    continued: bool = False

    def __str__(self) -> str:
        if self.continued:
            return "continued"
        if self.stop_signal is not None:
            return f"stopped by {signal_text(self.stop_signal)}"
        if self.signal is not None:
            return f"killed by {signal_text(self.signal)}{' (core dumped)' if self.core_dumped else ''}"
        return f"exited with status {self.exit_status}"


@dataclass(frozen=True)
class Rusage:
    """struct rusage: times in seconds, maxrss in kilobytes, the rest are counts."""

    utime: float = 0.0
    stime: float = 0.0
    maxrss: int = 0
    ixrss: int = 0
    idrss: int = 0
    isrss: int = 0
    minflt: int = 0
    majflt: int = 0
    nswap: int = 0
    inblock: int = 0
    oublock: int = 0
    msgsnd: int = 0
    msgrcv: int = 0
    nsignals: int = 0
    nvcsw: int = 0
    nivcsw: int = 0


@dataclass(frozen=True)
class SigInfo:
    """The fields of siginfo_t a process test looks at, as the kernel filled them."""

    signal: SignalName
    code: int
    pid: int
    uid: int
    status: int


@dataclass(frozen=True)
class WaitResult:
    """What wait4() or wait6() returned; `pid` is 0 and `status` None where WNOHANG found nothing.

    `raw_status` is the word found in *status after the call in any case.  Before the call it held STATUS_SENTINEL.
    """

    STATUS_SENTINEL = 0x5A5A5A5A

    pid: int
    status: WaitStatus | None
    rusage: Rusage = field(default_factory=Rusage)
    raw_status: int = 0
    children: Rusage | None = None  # wait6(): resource usage of the child's own children
    siginfo: SigInfo | None = None  # wait6() only

    @property
    def exit_status(self) -> int | None:
        """Argument of _exit() modulo 256, or None if the child did not exit."""
        return self.status.exit_status if self.status else None

    @property
    def signal(self) -> SignalName | None:
        """The signal that killed the child."""
        return self.status.signal if self.status else None

    @property
    def stop_signal(self) -> SignalName | None:
        """The signal that stopped the child."""
        return self.status.stop_signal if self.status else None

    @property
    def core_dumped(self) -> bool:
        """Whether the killed child left a core file."""
        return bool(self.status and self.status.core_dumped)

    @property
    def continued(self) -> bool:
        """Whether a stopped child was continued."""
        return bool(self.status and self.status.continued)


@dataclass(frozen=True)
class SigAction:
    """A signal's disposition as sigaction() reports it."""

    handler: Handler
    flags: SigFlag = field(default_factory=lambda: SigFlag(0))
    mask: frozenset[SignalName] = frozenset()


@dataclass(frozen=True)
class SignalRecord:
    """One delivery of a signal to a logging handler.

    code, pid, uid and status come from siginfo_t and are 0 unless the handler was installed with SA_SIGINFO.
    `sequence` counts deliveries in their order, without gaps; `at` is CLOCK_MONOTONIC in the guest, in seconds.
    """

    signal: SignalName
    code: int
    pid: int
    uid: int
    status: int
    sequence: int
    at: float
    siginfo: bool


@dataclass(frozen=True)
class ReaperStatus:
    """Answer of procctl(PROC_REAP_STATUS)."""

    owned: bool  # the process is a reaper itself
    real_init: bool  # its reaper is init
    references: int
    first_child: int  # pid, -1 for none


@dataclass(frozen=True)
class ReapKill:
    """Answer of procctl(PROC_REAP_KILL): how many got the signal, and the first that could not be given it (or 0)."""

    killed: int
    failed: int  # pid


class NoteFlag(IntFlag):
    """Events of a process that a kernel queue can report (sys/event.h)."""

    NOTE_TRACK = 0x00000001
    NOTE_TRACKERR = 0x00000002
    NOTE_CHILD = 0x00000004
    NOTE_EXEC = 0x20000000
    NOTE_FORK = 0x40000000
    NOTE_EXIT = 0x80000000


class EvFlag(IntFlag):
    """Actions on a kernel queue's filters, and what their events are marked with (sys/event.h)."""

    EV_ADD = 0x0001
    EV_DELETE = 0x0002
    EV_ENABLE = 0x0004
    EV_DISABLE = 0x0008
    EV_ONESHOT = 0x0010
    EV_CLEAR = 0x0020
    EV_RECEIPT = 0x0040
    EV_DISPATCH = 0x0080
    EV_HUP = 0x0800
    EV_NODATA = 0x1000
    EV_ERROR = 0x4000
    EV_EOF = 0x8000


class EvFilter(IntEnum):
    """What a kernel queue watches (sys/event.h)."""

    EVFILT_READ = -1
    EVFILT_WRITE = -2
    EVFILT_PROC = -5
    EVFILT_SIGNAL = -6
    EVFILT_TIMER = -7


@dataclass(frozen=True)
class Kevent:
    """struct kevent: something to watch, or what has come of it.  `data` of NOTE_EXIT is the status word."""

    ident: int
    filter: EvFilter | int
    flags: EvFlag
    fflags: int = 0  # NoteFlag for a process
    data: int = 0
    udata: int = 0


@dataclass(frozen=True)
class ForkRecord:
    """One child of a storm; times in seconds since the storm began, on the guest's CLOCK_MONOTONIC."""

    pid: int
    forked: float  # when fork() returned in the parent
    reaped: float  # when wait4() returned


@dataclass(frozen=True)
class Storm:
    """Result of a fork storm.

    `count` children were made and reaped in `seconds`; `stopped` says that the awaited pid or a repeated pid was
    seen (it is the last record's).  `error` is the errno name that ended the storm early, if any, and `failed` the
    call ("fork").
    """

    count: int
    seconds: float
    records: tuple[ForkRecord, ...]
    stopped: bool = False
    error: str | None = None
    failed: str | None = None

    @property
    def rate(self) -> float:
        """Children made and reaped per second."""
        return self.count / self.seconds if self.seconds else 0.0

    @property
    def pids(self) -> tuple[int, ...]:
        """Their pids in the order of birth."""
        return tuple(record.pid for record in self.records)


@dataclass(frozen=True)
class Repeat:
    """Result of repeat_until(): how often the call was made, how long it took, and how the last one ended."""

    met: bool  # the predicate became true before the deadline
    count: int
    seconds: float
    value: int  # return value of the last call, -1 if it failed
    error: str | None  # errno name of the last call
    length: int  # length the last call returned through its length argument (sysctl)


def signal_text(signal: SignalLike) -> str:
    """Return a signal's name for messages: "SIGCHLD", "SIGINFO", "77"."""
    if isinstance(signal, host_signal.Signals):
        return signal.name
    return str(signal)


class GuestError(OSError):
    """A system call in the guest failed.

    `errno` is the host's number for the guest's errno name (-1 if the host has no such name), `name` the name,
    `call` the call with its arguments: str() is "setpgid(1234, 0): EPERM".
    """

    def __init__(self, call: str, name: str, guest_errno: int = 0) -> None:
        super().__init__(host_errno(name), name)
        self.call = call
        self.name = name
        self.guest_errno = guest_errno

    def __str__(self) -> str:
        return f"{self.call}: {self.name}"


class ProcessGone(GuestLostError):  # noqa: N818  (a fact about the process, not a fault)
    """The driven process ended while a call was under way, or before."""

    def __init__(self, process: str, call: str) -> None:
        self.process = process
        self.call = call
        super().__init__(f"{call}: {process} is gone")


class ProcessStopped(HarnessError):  # noqa: N818
    """The driven process was found stopped while a call waited for its answer."""

    def __init__(self, process: str, call: str) -> None:
        self.process = process
        self.call = call
        super().__init__(
            f"{call}: {process} is stopped and cannot answer; continue it first, or issue the call through .start"
        )


class Failure:
    """What `with fails(...) as failure` caught: `failure.error` is the GuestError."""

    error: GuestError


@contextmanager
def fails(*errors: int | str) -> Iterator[Failure]:
    """Assert that the block's call fails in the guest with one of ERRORS (host errno numbers or names).

    Raises AssertionError if it succeeds or fails differently.  Other exceptions pass through.
    """
    expected = " or ".join(errno_name(error) for error in errors)
    names = {errno_name(error) for error in errors}
    failure = Failure()
    try:
        yield failure
    except GuestError as error:
        failure.error = error
        if error.name not in names and error.errno not in errors:
            # All that is to be told of the call: a chain would show where in the harness it was made.
            raise AssertionError(f"{error.call} failed with {error.name}, not {expected}") from None
    else:
        raise AssertionError(f"the call succeeded instead of failing with {expected}")

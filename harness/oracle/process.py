# SPDX-License-Identifier: BSD-2-Clause
"""The oracle's processes: the interface of a driven process, with the model behind it instead of a kernel."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from harness.errors import GuestDeadlineError
from harness.oracle import bulk, creds, jails, jobs, lifecycle, reapers, scans, signals, syscaps, tracing, wait
from harness.oracle.blocking import WouldBlock
from harness.oracle.calls import PATIENCE, Call, Livelock, State
from harness.oracle.kernel import Kernel
from harness.oracle.maps import ThreadMap, UserMap
from harness.oracle.model import Disposition, Errno, Lwp, Proc
from harness.oracle.signals_table import SIGSYS
from harness.oracle.sysctl import OracleSysctl
from harness.oracle.terminal_calls import TerminalCalls
from harness.processes.abi import DRAGONFLY
from harness.processes.kinfo import ProcFlag, ProcStat, SyscapFlag
from harness.processes.repetition import Until
from harness.processes.vocabulary import (
    SIG_SETMASK,
    Clock,
    GuestError,
    Handler,
    IdType,
    ProcessGone,
    ProcessStopped,
    ReaperStatus,
    ReapKill,
    Repeat,
    Resource,
    RforkFlag,
    Rusage,
    SigAction,
    SigFlag,
    SigHow,
    SigInfo,
    SignalLike,
    SignalName,
    SignalRecord,
    Storm,
    WaitOption,
    WaitResult,
    signal_text,
)
from harness.processes.wire import SPAWN_LIMIT, STORM_LIMIT, require_at_most

T = TypeVar("T")
P = ParamSpec("P")
NO_OPTIONS = WaitOption(0)
NO_FLAGS = SigFlag(0)
DIRECTORIES = frozenset({"/", "/bin", "/dev", "/etc", "/root", "/sbin", "/tmp", "/usr", "/usr/bin", "/var"})  # noqa: S108
PROGRAMS = frozenset({"/bin/cat", "/bin/sh", "/bin/sleep", "/usr/bin/true"})
_ACTIONS = {Handler.DEFAULT: "default", Handler.IGNORE: "ignore", Handler.LOG: "catch"}
_HANDLERS = {action: handler for handler, action in _ACTIONS.items()}


class OracleWouldBlock(GuestDeadlineError):  # noqa: N818  (it says what would happen)
    """A call would never return: nothing in the model can wake it, and no other process runs by itself."""

    def __init__(self, process: str, call: str) -> None:
        super().__init__(f"{call} in {process}, which nothing can end (.start lets the test go on)", 0)


class OraclePending(Generic[T]):
    """A call under way, as `start` returns it."""

    def __init__(self, process: OracleProcess, text: str, call: Call, ends: bool) -> None:
        self._process = process
        self._text = text
        self._call = call
        self._ends = ends

    def __repr__(self) -> str:
        return f"<{self._text} in {self._process}: {'done' if self.done else 'under way'}>"

    @property
    def done(self) -> bool:
        """Whether the call has ended, one way or another."""
        return self._call.state in (State.DONE, State.GONE)

    def result(self, timeout: float | None = None) -> T:
        """Return the call's result.

        Raises GuestError if it failed, ProcessGone if the process ended under it, OracleWouldBlock if it waits.
        """
        if not self.done:
            raise OracleWouldBlock(str(self._process), self._text)
        return self.outcome()

    def outcome(self) -> T:
        """Return the result of a call that is done."""
        if self._call.state is State.GONE:
            if self._ends:
                return None  # type: ignore[return-value]  # exit() has no result
            raise ProcessGone(str(self._process), self._text)
        if self._call.error is not None:
            raise guest_error(self._text, self._call.error)
        return self._call.value  # type: ignore[return-value]  # the function that was submitted returns T


def guest_error(text: str, name: str) -> GuestError:
    """Make the GuestError of a failed call, with DragonFly's number."""
    numbers = {value: number for number, value in DRAGONFLY.errnos.items()}
    return GuestError(text, name, numbers.get(name, 0))


def call_text(name: str, *arguments: object) -> str:
    """Return a call as it would be written: `setpgid(1234, 0)`."""
    return f"{name}({', '.join(str(getattr(one, 'name', None) or one) for one in arguments)})"


@dataclass(frozen=True)
class OracleResult:
    """What a system call by name returned."""

    value: int


class OracleProcess(TerminalCalls):
    """A process of the model.  Satisfies harness.processes.api.Process."""

    def __init__(self, kernel: Kernel, lwp: Lwp) -> None:
        self.kernel = kernel
        self._lwp = lwp
        self._proc = lwp.proc
        self._pid = lwp.proc.pid

    def __repr__(self) -> str:
        return f"<oracle process {self._pid}>"

    __str__ = __repr__

    @property
    def pid(self) -> int:
        """Process id, as fork() returned it to the parent."""
        return self._pid

    @property
    def model(self) -> Proc:
        """The process as the model keeps it, for looking at it from outside."""
        return self._proc

    @property
    def sysctl(self) -> OracleSysctl:
        """System variables as seen by this process."""
        return OracleSysctl(self)

    @property
    def gone(self) -> bool:
        """Whether it can no longer be driven: it has ended, or runs another program."""
        proc = self._proc
        ended = bool(proc.flags & ProcFlag.P_WEXIT) or proc.pid not in self.kernel.procs
        return ended or not proc.driven or self._lwp not in proc.lwps

    @property
    def lwp(self) -> Lwp:
        """The thread as the model keeps it, for looking at it from outside."""
        return self._lwp

    @property
    def start(self) -> OracleStart:
        """The same system calls, but each returns an OraclePending at once."""
        return OracleStart(self.kernel, self._lwp)

    def execute(self, text: str, function: Callable[[Kernel, Proc], T], *, ends: bool = False) -> T:
        """Make a system call, of which FUNCTION is the implementation.

        Raises GuestError if it fails, ProcessGone if the process is no more, ProcessStopped if it is stopped (it makes
        the call when it is continued), OracleWouldBlock if it waits for something only another call can bring about.
        """
        call = self._submit(text, function)
        pending: OraclePending[T] = OraclePending(self, text, call, ends)
        if not pending.done:
            if self._proc.stat is ProcStat.SSTOP:
                raise ProcessStopped(str(self), text)
            raise OracleWouldBlock(str(self), text)
        return pending.outcome()

    def _submit(self, text: str, function: Callable[[Kernel, Proc], T]) -> Call:
        if self.gone:
            raise ProcessGone(str(self), text)
        try:
            return self.kernel.scheduler.submit(self._lwp, lambda: function(self.kernel, self._proc))
        except Livelock:
            raise OracleWouldBlock(str(self), f"{text}, after {PATIENCE} calls that changed nothing,") from None

    def _process(self, proc: Proc) -> Self:
        return type(self)(self.kernel, proc.lwp)

    def thread(self) -> OracleThread:
        """Make another thread in this process; it makes system calls of its own."""

        def create(k: Kernel, proc: Proc) -> OracleThread:
            return OracleThread(k, lifecycle.lwp_create(k, proc))

        return self.execute("thread creation", create)

    def leave_thread(self) -> None:
        """End this thread; the process ends with its last one."""
        self.execute("thread exit", lambda k, _: lifecycle.lwp_exit(k, self._lwp), ends=True)

    # ---- birth and death ----

    def fork(self) -> Self:
        """Fork; return the child."""
        return self.execute("fork()", lambda k, proc: self._process(lifecycle.fork1(k, proc)))

    def vfork(self) -> Self:
        """Vfork; return the child.  This process cannot be driven until the child has exited or run a program."""
        children: list[Self] = []

        def vfork(k: Kernel, proc: Proc) -> None:
            children.append(self._process(lifecycle.fork1(k, proc, vfork=True)))

        call = self._submit("vfork()", vfork)
        if children:
            return children[0]
        if call.state in (State.QUEUED, State.BLOCKED):
            stopped = self._proc.stat is ProcStat.SSTOP
            raise ProcessStopped(str(self), "vfork()") if stopped else OracleWouldBlock(str(self), "vfork()")
        return OraclePending[Self](self, "vfork()", call, ends=False).outcome()

    def rfork(self, flags: RforkFlag | int) -> Self:
        """rfork() by RFPROC, with RFFDG, RFNOWAIT and RFLINUXTHPN; sharing is not modelled."""
        flag = RforkFlag(flags)

        def rfork(k: Kernel, proc: Proc) -> Proc:
            if RforkFlag.RFPROC not in flag:
                lifecycle.unshare(k, flag)
                return proc
            if RforkFlag.RFPPWAIT in flag or RforkFlag.RFFDG | RforkFlag.RFCFDG in flag:
                raise Errno("EINVAL")
            nowait, thread = RforkFlag.RFNOWAIT in flag, RforkFlag.RFLINUXTHPN in flag
            return lifecycle.fork1(k, proc, nowait=nowait, linux_thread=thread)

        return self.execute(f"rfork({flag!r})", lambda k, proc: self._process(rfork(k, proc)))

    def vfork_exit(self, status: int = 0) -> int:
        """Vfork a child which does nothing but _exit(status); return its pid."""
        return self.execute(
            f"vfork_exit({status})",
            lambda k, proc: bulk.spawn_many(k, proc, 1, paused=False, status=status, sessions=False, vfork=True)[0],
        )

    def reexec(self) -> None:
        """Run the driven program again by execve(): a new program image, driven as before."""
        begun = False

        def reexec(k: Kernel, proc: Proc) -> None:
            nonlocal begun
            if not begun:
                lifecycle.exec_program(k, proc, proc.path, [proc.path.encode(), b"attach"])
                begun = True
                k.scheduler.run_ahead(
                    self._lwp
                )  # a signal that could not act before acts before the program's first step
            if proc.stat is ProcStat.SSTOP:
                raise WouldBlock(restarts=True)
            if not proc.is_zombie:
                watch_unknown_calls(k, proc)
                self._lwp.log, self._lwp.logged = [], 0

        self.execute("execve(executor)", reexec)

    def execve(
        self, path: str, argv: Sequence[str | bytes] | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        """Run another program, which is no longer driven: `true` and `sleep 0` end at once, the others never."""
        vector = [arg.encode() if isinstance(arg, str) else arg for arg in ([path] if argv is None else argv)]

        def execve(k: Kernel, proc: Proc) -> None:
            if path not in PROGRAMS:
                raise Errno("ENOENT")
            lifecycle.exec_program(k, proc, path, vector)
            proc.driven = False
            if path == "/usr/bin/true" or (path == "/bin/sleep" and vector[-1] == b"0"):
                lifecycle.exit1(k, proc, 0)

        self.execute(f"execve({path!r})", execve, ends=True)

    def exit(self, status: int = 0) -> None:
        """_exit(status)."""
        self.execute(
            call_text("_exit", status),
            lambda k, proc: lifecycle.exit1(k, proc, k.rules.exit_status(status)),
            ends=True,
        )

    # ---- waiting ----

    def wait4(self, pid: int = -1, options: WaitOption | int = NO_OPTIONS) -> WaitResult:
        """Wait for a child."""
        bits = DRAGONFLY.wait_option_bits(options)

        def wait4(k: Kernel, proc: Proc) -> WaitResult:
            found = wait.wait4(k, proc, pid, bits)
            status = DRAGONFLY.decode_status(found.status) if found.pid else None
            return WaitResult(found.pid, status, raw_status=found.status)

        return self.execute(call_text("wait4", pid, options), wait4)

    def wait6(self, idtype: IdType | int, id_: int, options: WaitOption | int) -> WaitResult:
        """Wait for a child chosen by id type.  ENOSYS before 2018."""
        number = DRAGONFLY.id_type_number(idtype)
        name = next((one.name for one, value in DRAGONFLY.id_types.items() if value == number), "")
        bits = DRAGONFLY.wait_option_bits(options)

        def wait6(k: Kernel, proc: Proc) -> WaitResult:
            found = wait.wait6(k, proc, name, id_, bits)
            status = DRAGONFLY.decode_status(found.status) if found.pid else None
            signal = DRAGONFLY.signal_name(found.signal)
            info = SigInfo(signal, found.code, found.info_pid, found.uid, found.info_status)
            return WaitResult(found.pid, status, raw_status=found.status, children=Rusage(), siginfo=info)

        return self.execute(call_text("wait6", idtype, id_, options), wait6)

    # ---- identity ----

    def getpid(self) -> int:
        """Return the process id."""
        return self.execute("getpid()", lambda _, proc: proc.pid)

    def getppid(self) -> int:
        """Return the parent's process id."""
        return self.execute("getppid()", lambda _, proc: proc.parent.pid if proc.parent else 0)

    def getpgrp(self) -> int:
        """Return the process group id."""
        return self.execute("getpgrp()", lambda _, proc: proc.group.pgid)

    def getpgid(self, pid: int = 0) -> int:
        """Return the process group id of PID (0: this process)."""
        return self.execute(call_text("getpgid", pid), lambda k, proc: jobs.getpgid(k, proc, pid))

    def getsid(self, pid: int = 0) -> int:
        """Return the session id of PID (0: this process)."""
        return self.execute(call_text("getsid", pid), lambda k, proc: jobs.getsid(k, proc, pid))

    def setsid(self) -> int:
        """Become leader of a new session and group; return its id."""
        return self.execute("setsid()", jobs.setsid)

    def setpgid(self, pid: int, pgid: int) -> None:
        """Move PID (0: this process) to group PGID (0: a group of its own)."""
        self.execute(call_text("setpgid", pid, pgid), lambda k, proc: jobs.setpgid(k, proc, pid, pgid))

    def getuid(self) -> int:
        """Return the real user id."""
        return self.execute("getuid()", lambda _, proc: proc.cred.ruid)

    def geteuid(self) -> int:
        """Return the effective user id."""
        return self.execute("geteuid()", lambda _, proc: proc.cred.uid)

    def setuid(self, uid: int) -> None:
        """Set user ids."""
        self.execute(call_text("setuid", uid), lambda k, proc: creds.set_all(k, proc, creds.USERS, uid))

    def seteuid(self, uid: int) -> None:
        """Set the effective user id."""
        self.execute(call_text("seteuid", uid), lambda k, proc: creds.set_effective(k, proc, creds.USERS, uid))

    def setreuid(self, ruid: int, euid: int) -> None:
        """Set real and effective user ids; -1 leaves one alone."""
        self.execute(
            call_text("setreuid", ruid, euid),
            lambda k, proc: creds.set_real_effective(k, proc, creds.USERS, ruid, euid),
        )

    def setresuid(self, ruid: int, euid: int, suid: int) -> None:
        """Set real, effective and saved user ids; -1 leaves one alone."""
        text = call_text("setresuid", ruid, euid, suid)
        self.execute(text, lambda k, proc: creds.set_each(k, proc, creds.USERS, ruid, euid, suid))

    def setgid(self, gid: int) -> None:
        """Set group ids."""
        self.execute(call_text("setgid", gid), lambda k, proc: creds.set_all(k, proc, creds.GROUPS, gid))

    def setegid(self, gid: int) -> None:
        """Set the effective group id."""
        self.execute(call_text("setegid", gid), lambda k, proc: creds.set_effective(k, proc, creds.GROUPS, gid))

    def setregid(self, rgid: int, egid: int) -> None:
        """Set real and effective group ids; -1 leaves one alone."""
        text = call_text("setregid", rgid, egid)
        self.execute(text, lambda k, proc: creds.set_real_effective(k, proc, creds.GROUPS, rgid, egid))

    def setresgid(self, rgid: int, egid: int, sgid: int) -> None:
        """Set real, effective and saved group ids; -1 leaves one alone."""
        text = call_text("setresgid", rgid, egid, sgid)
        self.execute(text, lambda k, proc: creds.set_each(k, proc, creds.GROUPS, rgid, egid, sgid))

    def setgroups(self, groups: Sequence[int]) -> None:
        """Set the supplementary groups; the first one is the effective group."""
        self.execute(f"setgroups({list(groups)})", lambda k, proc: creds.setgroups(k, proc, groups))

    def getlogin(self) -> str:
        """Return the session's login name."""
        return self.execute("getlogin()", jobs.getlogin)

    def setlogin(self, name: str) -> None:
        """Set the session's login name."""
        self.execute(call_text("setlogin", name), lambda k, proc: jobs.setlogin(k, proc, name))

    # ---- signals ----

    def kill(self, pid: int, sig: SignalLike) -> None:
        """Send a signal; pid 0, -1 and -pgid have their usual meaning."""
        number = DRAGONFLY.signal_number(sig)
        self.execute(call_text("kill", pid, sig), lambda k, proc: signals.kill(k, proc, pid, number))

    def killpg(self, pgid: int, sig: SignalLike) -> None:
        """Send a signal to a process group: kill(-pgid, sig)."""
        self.kill(-pgid, sig)

    def sigaction(
        self,
        sig: SignalLike,
        action: Handler,
        flags: SigFlag | int = NO_FLAGS,
        mask: Iterable[SignalLike] = (),
    ) -> SigAction:
        """Set what a signal does; return what it did before."""
        number = DRAGONFLY.signal_number(sig)
        if isinstance(flags, int):
            flags = DRAGONFLY.decode_signal_flags(flags)
        new = Disposition(_ACTIONS[action], flags, frozenset(map(DRAGONFLY.signal_number, mask)))
        if number == SIGSYS and action is Handler.DEFAULT:
            new = Disposition("catch", new.flags, new.mask, is_internal=True)
        return self.execute(
            call_text("sigaction", sig, action.value), lambda k, proc: _shown(signals.sigaction(k, proc, number, new))
        )

    def sigprocmask(self, how: SigHow = SIG_SETMASK, mask: Iterable[SignalLike] = ()) -> frozenset[SignalName]:
        """Change the signal mask; return the previous one."""
        numbers = frozenset(map(DRAGONFLY.signal_number, mask))
        return self.execute(
            call_text("sigprocmask", how), lambda *_: _names(signals.sigprocmask(self._lwp, how, numbers))
        )

    def sigpending(self) -> frozenset[SignalName]:
        """Return the signals that are blocked and pending."""
        return self.execute("sigpending()", lambda *_: _names(signals.sigpending(self._lwp)))

    def signals(self) -> list[SignalRecord]:
        """Return, and forget, the signals logged so far by Handler.LOG."""

        def take(*_: object) -> list[SignalRecord]:
            log, self._lwp.log = self._lwp.log, []
            return log

        return self.execute("signals()", take)

    def lwp_kill(self, pid: int, tid: int, sig: SignalLike) -> None:
        """Send a signal to one thread."""
        number = DRAGONFLY.signal_number(sig)
        text = call_text("lwp_kill", pid, tid, sig)
        self.execute(text, lambda k, proc: signals.lwp_kill(k, proc, pid, tid, number))

    # ---- reapers ----

    def procctl_reaper_acquire(self) -> None:
        """Become a reaper of all descendants."""
        self.execute("procctl(PROC_REAP_ACQUIRE)", lambda _, proc: reapers.acquire(proc))

    def procctl_reaper_release(self) -> None:
        """Stop being a reaper."""
        self.execute("procctl(PROC_REAP_RELEASE)", lambda _, proc: reapers.release(proc))

    def procctl_reaper_status(self) -> ReaperStatus:
        """Tell about this process's reaper."""
        return self.execute("procctl(PROC_REAP_STATUS)", reapers.status)

    def procctl(self, idtype: IdType | int, id_: int, command: int, data: bytes | None = None) -> bytes:
        """Make a raw procctl(); return the content of DATA after the call."""
        number = DRAGONFLY.id_type_number(idtype)
        name = next((one.name for one, value in DRAGONFLY.id_types.items() if value == number), "")
        given = data if data != b"" else bytes(256)
        return self.execute(
            call_text("procctl", idtype, id_, command),
            lambda k, proc: reapers.procctl(k, proc, name, id_, command, given),
        )

    def procctl_reap_kill(self, sig: SignalLike, *, children_only: bool = False) -> ReapKill:
        """Send a signal to all that is below this reaper, not across other reapers.  EINVAL before 2025."""
        number = DRAGONFLY.signal_number(sig)

        def reap_kill(k: Kernel, proc: Proc) -> ReapKill:
            if not k.rules.traits.reap_kill:
                raise Errno("EINVAL")
            return ReapKill(*reapers.kill(k, proc, number, children_only=children_only))

        return self.execute(f"procctl(PROC_REAP_KILL, {signal_text(sig)})", reap_kill)

    def procctl_pdeathsig(self, sig: SignalLike) -> None:
        """Ask for a signal when the parent exits, 0 for none.  EINVAL before November 2020."""
        word = struct.pack("<i", DRAGONFLY.signal_number(sig))

        def set_deathsig(k: Kernel, proc: Proc) -> None:
            reapers.procctl(k, proc, "P_PID", proc.pid, reapers.DEATHSIG_CTL, word)

        self.execute(f"procctl(PROC_PDEATHSIG_CTL, {signal_text(sig)})", set_deathsig)

    def procctl_pdeathsig_status(self) -> int:
        """Return the number of the signal asked for at the parent's death, 0 for none."""

        def status(k: Kernel, proc: Proc) -> int:
            found = reapers.procctl(k, proc, "P_PID", proc.pid, reapers.DEATHSIG_STATUS, bytes(4))
            return int.from_bytes(found, "little", signed=True)

        return self.execute("procctl(PROC_PDEATHSIG_STATUS)", status)

    def jail(self, path: str, hostname: str = "jail") -> int:
        """Enter a new jail; return its id.  What PATH and HOSTNAME are changes nothing in the model."""
        return self.execute(f"jail({path!r})", jails.jail)

    def jail_attach(self, jid: int) -> None:
        """Enter an existing jail."""
        self.execute(f"jail_attach({jid})", lambda k, proc: jails.attach(k, proc, jid))

    def ptrace(self, request: int | str, pid: int, address: int = 0, data: int = 0) -> int:
        """Make a ptrace() by number or name; where the process goes on (ADDRESS) is not modelled: say 1."""
        number = DRAGONFLY.ptrace_requests[request] if isinstance(request, str) else request
        text = call_text("ptrace", request, pid)
        return self.execute(text, lambda k, proc: tracing.ptrace(k, proc, number, pid, data))

    # ---- restrictions ----

    def syscap_get(self, cap: int) -> SyscapFlag:
        """Return how capability CAP of this process is restricted.  ENOSYS before October 2023."""
        text = f"syscap_get({cap:#x})"
        return self.execute(text, lambda k, proc: SyscapFlag(syscaps.get(k, proc, cap)))

    def syscap_set(self, cap: int, flags: SyscapFlag | int) -> SyscapFlag:
        """Restrict capability CAP of this process for good; return how it is restricted then."""
        text = f"syscap_set({cap:#x}, {flags!r})"
        return self.execute(text, lambda k, proc: SyscapFlag(syscaps.set_(k, proc, cap, int(flags))))

    def syscall(self, name: str, *arguments: int) -> OracleResult:
        """Make a system call by name, one of SYSTEM_CALLS."""
        call = SYSTEM_CALLS[name]
        return self.execute(call_text(name, *arguments), lambda k, proc: OracleResult(call(k, proc, *arguments)))

    def shared_page(self, device: str) -> UserMap | ThreadMap:
        """Return the page /dev/upmap or /dev/lpmap; the other is not modelled.  ENOENT where there is none."""
        assert device in ("upmap", "lpmap")
        if device == "upmap":
            return UserMap(self.kernel, self._proc)

        def look(k: Kernel, _: Proc) -> None:
            if not k.rules.traits.titles_in_page:
                raise Errno("ENOENT")

        self.execute("open('/dev/lpmap')", look)
        return ThreadMap(self.kernel, self._lwp, lambda name, action: self.execute(name, lambda *_: action()))

    # ---- time, limits, bulk ----

    def gettid(self) -> int:
        """Return the id of the thread that asks."""
        return self.execute("gettid()", lambda *_: self._lwp.tid)

    def clock_gettime(self, clock: Clock | int = Clock.CLOCK_MONOTONIC) -> float:
        """Return a clock's virtual time in seconds."""
        real = clock is Clock.CLOCK_REALTIME
        return self.execute(
            call_text("clock_gettime", clock), lambda k, _: k.clock.realtime if real else k.clock.monotonic
        )

    def nanosleep(self, seconds: float) -> None:
        """Let SECONDS of virtual time pass, for everybody."""
        self.execute(f"nanosleep({seconds} s)", lambda k, _: k.clock.advance(seconds))

    def sleep(self, seconds: float) -> None:
        """Let SECONDS of virtual time pass, for everybody."""
        self.nanosleep(seconds)

    def getrlimit(self, resource: Resource | int) -> tuple[int, int]:
        """Return a resource's soft and hard limit."""
        number = DRAGONFLY.resource_number(resource)
        return self.execute(call_text("getrlimit", resource), lambda _, proc: proc.limit(number))

    def setrlimit(self, resource: Resource | int, soft: int, hard: int | None = None) -> None:
        """Set a resource's limits; only RLIMIT_NPROC and RLIMIT_CORE have consequences in the model."""
        number = DRAGONFLY.resource_number(resource)
        text = call_text("setrlimit", resource, soft, hard)
        self.execute(text, lambda k, proc: creds.setrlimit(k, proc, number, soft, soft if hard is None else hard))

    def storm(
        self,
        count: int,
        kind: str = "fork",
        *,
        status: int = 0,
        record: bool = True,
        until_pid: int = 0,
        until_repeat: bool = False,
        seconds: float | None = None,
    ) -> Storm:
        """Make and reap COUNT children, one after the other, in virtual time."""
        require_at_most(STORM_LIMIT, count, "children of one storm")

        def storm(k: Kernel, proc: Proc) -> Storm:
            return bulk.storm(
                k,
                proc,
                count,
                kind,
                status=status,
                record=record,
                until_pid=until_pid,
                until_repeat=until_repeat,
                seconds=seconds,
            )

        return self.execute(f"storm({count} x {kind})", storm)

    def spawn_many(self, count: int, *, paused: bool = False, status: int = 0, sessions: bool = False) -> list[int]:
        """Fork COUNT children and return their pids, oldest first: zombies that were never reaped, or paused ones."""
        require_at_most(SPAWN_LIMIT, count, "children at once")
        return self.execute(
            f"spawn_many({count})",
            lambda k, proc: bulk.spawn_many(k, proc, count, paused=paused, status=status, sessions=sessions),
        )

    def repeat_until(
        self, until: Until, name: str, *arguments: int, seconds: float = 10.0, pause: float = 0.0
    ) -> Repeat:
        """Make one system call over and over until its outcome is as awaited, for at most SECONDS of virtual time.

        For calls without side effects on whoever makes them: NAME is one of bulk.REPEATABLE.
        """
        call = bulk.REPEATABLE[name]
        return self.execute(
            f"repeat_until({name})",
            lambda k, proc: bulk.repeat(k, lambda: call(k, proc, *arguments), until, seconds, pause),
        )

    # ---- awaiting ----

    def await_gone(self, timeout: float | None = None) -> None:
        """Raise OracleWouldBlock unless the process can no longer be driven: nothing happens by itself."""
        self._await(self.gone, "its end")

    def await_end(self, timeout: float | None = None) -> None:
        """Raise OracleWouldBlock unless the process has ended."""
        self._await(self._proc.is_zombie or self._proc.pid not in self.kernel.procs, "its end")

    def await_stop(self, timeout: float = 10.0) -> None:
        """Raise OracleWouldBlock unless the process is stopped."""
        self._await(self._proc.stat is ProcStat.SSTOP, "a stop")

    def await_signal(self, sig: SignalLike, timeout: float = 10.0) -> SignalRecord:
        """Return the delivery of SIG the log shows; other records are dropped."""
        wanted = DRAGONFLY.signal_name(DRAGONFLY.signal_number(sig))
        found = next((record for record in self.signals() if record.signal == wanted), None)
        if found is None:
            raise OracleWouldBlock(str(self), signal_text(wanted))
        return found

    def _await(self, condition: bool, awaited: str) -> None:
        if not condition:
            raise OracleWouldBlock(str(self), awaited)

    # ---- the rest ----

    def getgid(self) -> int:
        """Return the real group id."""
        return self.execute("getgid()", lambda _, proc: proc.cred.rgid)

    def getegid(self) -> int:
        """Return the effective group id."""
        return self.execute("getegid()", lambda _, proc: proc.cred.gid)

    def getresuid(self) -> tuple[int, int, int]:
        """Return real, effective and saved user id."""
        return self.execute("getresuid()", lambda _, proc: (proc.cred.ruid, proc.cred.uid, proc.cred.svuid))

    def getcwd(self) -> str:
        """Return the working directory."""
        return self.execute("getcwd()", lambda _, proc: proc.cwd)

    def sigaction_query(self, sig: SignalLike) -> SigAction:
        """Return what a signal does."""
        number = DRAGONFLY.signal_number(sig)
        text = call_text("sigaction", sig, "NULL")
        return self.execute(text, lambda k, proc: _shown(signals.sigaction(k, proc, number, None)))

    def chdir(self, path: str) -> None:
        """Change the working directory."""

        def chdir(_: Kernel, proc: Proc) -> None:
            if path not in DIRECTORIES:
                raise Errno("ENOENT")
            proc.cwd = path

        self.execute(call_text("chdir", path), chdir)


def _rfork(k: Kernel, _: Proc, flags: int) -> int:
    """rfork() that makes no process; the method of that name makes one."""
    if RforkFlag.RFPROC & flags:
        raise NotImplementedError
    lifecycle.unshare(k, RforkFlag(flags))
    return 0


def _exit(k: Kernel, proc: Proc, status: int) -> int:
    lifecycle.exit1(k, proc, k.rules.exit_status(status))
    return 0


#: What OracleProcess.syscall() can make.
SYSTEM_CALLS: Mapping[str, Callable[..., int]] = {
    "exit": _exit,
    "rfork": _rfork,
    "getpriority": scans.getpriority,
    "setpriority": scans.setpriority,
}


def watch_unknown_calls(k: Kernel, proc: Proc) -> None:
    """Let a driven process survive SIGSYS, with which the kernel answers calls it does not know."""
    signals.sigaction(k, proc, SIGSYS, Disposition("catch", NO_FLAGS, is_internal=True))


def _names(numbers: Iterable[int]) -> frozenset[SignalName]:
    return frozenset(DRAGONFLY.signal_name(number) for number in numbers)


def _shown(disposition: Disposition) -> SigAction:
    handler = Handler.DEFAULT if disposition.is_internal else _HANDLERS[disposition.action]
    return SigAction(handler, disposition.flags, _names(disposition.mask))


class OracleThread(OracleProcess):
    """A thread of a process of the model; its calls run beside the process's own."""

    def __repr__(self) -> str:
        return f"<oracle thread {self.tid} of process {self._pid}>"

    __str__ = __repr__

    @property
    def tid(self) -> int:
        """Thread id."""
        return self._lwp.tid

    def _process(self, proc: Proc) -> Self:
        return OracleProcess(self.kernel, proc.lwp)  # type: ignore[return-value]  # a child is no thread

    def exit(self, status: int = 0) -> None:
        """End this thread, not its process."""
        self.leave_thread()


class _Recorder(OracleProcess):
    """Makes a call and keeps the OraclePending, because a method cannot return one in place of what it returns."""

    pending: OraclePending[Any] | None = None

    def execute(self, text: str, function: Callable[[Kernel, Proc], T], *, ends: bool = False) -> T:
        """Make a system call, now or when the process can."""
        self.pending = OraclePending(self, text, self._submit(text, function), ends)
        return None  # type: ignore[return-value]  # nobody sees it

    def _process(self, proc: Proc) -> Self:
        return OracleProcess(self.kernel, proc.lwp)  # type: ignore[return-value]  # it comes out of an OraclePending

    def taken(self) -> OraclePending[Any]:
        """Return the call that was made."""
        assert self.pending is not None
        return self.pending


class _Starting:
    """Whose calls are only started."""

    def __init__(self, kernel: Kernel, lwp: Lwp) -> None:
        self._kernel = kernel
        self._lwp = lwp

    def recorder(self) -> _Recorder:
        """Return what makes one call."""
        return _Recorder(self._kernel, self._lwp)


class _Starts(Generic[P, T]):
    """A CALL of OracleProcess, only started."""

    def __init__(self, call: Callable[Concatenate[OracleProcess, P], T]) -> None:
        self._call = call
        self.__doc__ = call.__doc__

    def __get__(self, instance: _Starting, owner: type) -> Callable[P, OraclePending[T]]:
        def start(*arguments: P.args, **options: P.kwargs) -> OraclePending[T]:
            recorder = instance.recorder()
            self._call(recorder, *arguments, **options)
            return recorder.taken()

        return start


class _StartsAccess(Generic[P, T]):
    """An ACCESS to a system variable, only started."""

    def __init__(self, access: Callable[Concatenate[OracleSysctl, P], T]) -> None:
        self._access = access
        self.__doc__ = access.__doc__

    def __get__(self, instance: _Starting, owner: type) -> Callable[P, OraclePending[T]]:
        def start(*arguments: P.args, **options: P.kwargs) -> OraclePending[T]:
            recorder = instance.recorder()
            self._access(recorder.sysctl, *arguments, **options)
            return recorder.taken()

        return start


class OracleSysctlStart(_Starting):
    """System variables, each access only started."""

    raw = _StartsAccess(OracleSysctl.raw)
    read = _StartsAccess(OracleSysctl.read)
    size = _StartsAccess(OracleSysctl.size)
    write = _StartsAccess(OracleSysctl.write)
    get_int = _StartsAccess(OracleSysctl.get_int)
    set_int = _StartsAccess(OracleSysctl.set_int)
    kern_proc_all = _StartsAccess(OracleSysctl.kern_proc_all)
    kern_proc_pid = _StartsAccess(OracleSysctl.kern_proc_pid)
    kern_proc_pgrp = _StartsAccess(OracleSysctl.kern_proc_pgrp)
    kern_proc_tty = _StartsAccess(OracleSysctl.kern_proc_tty)
    kern_proc_uid = _StartsAccess(OracleSysctl.kern_proc_uid)
    kern_proc_ruid = _StartsAccess(OracleSysctl.kern_proc_ruid)
    kern_proc_args = _StartsAccess(OracleSysctl.kern_proc_args)
    set_kern_proc_args = _StartsAccess(OracleSysctl.set_kern_proc_args)
    kern_proc_cwd = _StartsAccess(OracleSysctl.kern_proc_cwd)
    kern_proc_pathname = _StartsAccess(OracleSysctl.kern_proc_pathname)


class OracleStart(_Starting):
    """The calls of a process and of its sysctl, each only started: what they return comes as an OraclePending."""

    @property
    def sysctl(self) -> OracleSysctlStart:
        """System variables, each access only started."""
        return OracleSysctlStart(self._kernel, self._lwp)

    fork = _Starts(OracleProcess.fork)
    vfork = _Starts(OracleProcess.vfork)
    rfork = _Starts(OracleProcess.rfork)
    vfork_exit = _Starts(OracleProcess.vfork_exit)
    reexec = _Starts(OracleProcess.reexec)
    execve = _Starts(OracleProcess.execve)
    exit = _Starts(OracleProcess.exit)
    leave_thread = _Starts(OracleProcess.leave_thread)
    wait4 = _Starts(OracleProcess.wait4)
    wait6 = _Starts(OracleProcess.wait6)
    getpid = _Starts(OracleProcess.getpid)
    getppid = _Starts(OracleProcess.getppid)
    getpgrp = _Starts(OracleProcess.getpgrp)
    getpgid = _Starts(OracleProcess.getpgid)
    getsid = _Starts(OracleProcess.getsid)
    setsid = _Starts(OracleProcess.setsid)
    setpgid = _Starts(OracleProcess.setpgid)
    getuid = _Starts(OracleProcess.getuid)
    geteuid = _Starts(OracleProcess.geteuid)
    setuid = _Starts(OracleProcess.setuid)
    seteuid = _Starts(OracleProcess.seteuid)
    setreuid = _Starts(OracleProcess.setreuid)
    setresuid = _Starts(OracleProcess.setresuid)
    setgid = _Starts(OracleProcess.setgid)
    setegid = _Starts(OracleProcess.setegid)
    setregid = _Starts(OracleProcess.setregid)
    setresgid = _Starts(OracleProcess.setresgid)
    setgroups = _Starts(OracleProcess.setgroups)
    jail = _Starts(OracleProcess.jail)
    jail_attach = _Starts(OracleProcess.jail_attach)
    ptrace = _Starts(OracleProcess.ptrace)
    getlogin = _Starts(OracleProcess.getlogin)
    setlogin = _Starts(OracleProcess.setlogin)
    kill = _Starts(OracleProcess.kill)
    killpg = _Starts(OracleProcess.killpg)
    lwp_kill = _Starts(OracleProcess.lwp_kill)
    sigaction = _Starts(OracleProcess.sigaction)
    sigprocmask = _Starts(OracleProcess.sigprocmask)
    sigpending = _Starts(OracleProcess.sigpending)
    signals = _Starts(OracleProcess.signals)
    procctl_reaper_acquire = _Starts(OracleProcess.procctl_reaper_acquire)
    procctl_reaper_release = _Starts(OracleProcess.procctl_reaper_release)
    procctl_reaper_status = _Starts(OracleProcess.procctl_reaper_status)
    procctl = _Starts(OracleProcess.procctl)
    procctl_reap_kill = _Starts(OracleProcess.procctl_reap_kill)
    procctl_pdeathsig = _Starts(OracleProcess.procctl_pdeathsig)
    procctl_pdeathsig_status = _Starts(OracleProcess.procctl_pdeathsig_status)
    syscap_get = _Starts(OracleProcess.syscap_get)
    syscap_set = _Starts(OracleProcess.syscap_set)
    syscall = _Starts(OracleProcess.syscall)
    gettid = _Starts(OracleProcess.gettid)
    clock_gettime = _Starts(OracleProcess.clock_gettime)
    nanosleep = _Starts(OracleProcess.nanosleep)
    sleep = _Starts(OracleProcess.sleep)
    getrlimit = _Starts(OracleProcess.getrlimit)
    setrlimit = _Starts(OracleProcess.setrlimit)
    storm = _Starts(OracleProcess.storm)
    spawn_many = _Starts(OracleProcess.spawn_many)
    repeat_until = _Starts(OracleProcess.repeat_until)
    getgid = _Starts(OracleProcess.getgid)
    getegid = _Starts(OracleProcess.getegid)
    getresuid = _Starts(OracleProcess.getresuid)
    getcwd = _Starts(OracleProcess.getcwd)
    sigaction_query = _Starts(OracleProcess.sigaction_query)
    chdir = _Starts(OracleProcess.chdir)
    openpty = _Starts(OracleProcess.openpty)
    open = _Starts(OracleProcess.open)
    close = _Starts(OracleProcess.close)
    read = _Starts(OracleProcess.read)
    write = _Starts(OracleProcess.write)
    set_controlling_tty = _Starts(OracleProcess.set_controlling_tty)
    drop_controlling_tty = _Starts(OracleProcess.drop_controlling_tty)
    tcgetpgrp = _Starts(OracleProcess.tcgetpgrp)
    tcsetpgrp = _Starts(OracleProcess.tcsetpgrp)
    tcgetsid = _Starts(OracleProcess.tcgetsid)
    revoke = _Starts(OracleProcess.revoke)

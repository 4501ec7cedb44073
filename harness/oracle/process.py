"""The oracle's processes: the interface of a driven process, with the model behind it instead of a kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, Self, TypeVar

from harness.errors import DeadlineError
from harness.oracle import creds, jobs, lifecycle, reapers, signals, views, wait
from harness.oracle.calls import Call, State
from harness.oracle.kernel import Kernel
from harness.oracle.model import Disposition, Errno, Proc
from harness.oracle.signals_table import SIGSYS
from harness.processes.abi import DRAGONFLY
from harness.processes.kinfo import KinfoProc, ProcStat, ProcTable
from harness.processes.vocabulary import (
    SIG_SETMASK,
    GuestError,
    Handler,
    IdType,
    ProcessGone,
    ProcessStopped,
    ReaperStatus,
    SigAction,
    SigFlag,
    SigHow,
    SignalLike,
    SignalName,
    SignalRecord,
    WaitOption,
    WaitResult,
)

T = TypeVar("T")
NO_OPTIONS = WaitOption(0)
NO_FLAGS = SigFlag(0)
DIRECTORIES = frozenset({"/", "/bin", "/dev", "/etc", "/root", "/sbin", "/tmp", "/usr", "/usr/bin", "/var"})  # noqa: S108
_ACTIONS = {Handler.DEFAULT: "default", Handler.IGNORE: "ignore", Handler.LOG: "catch"}
_HANDLERS = {action: handler for handler, action in _ACTIONS.items()}


class OracleWouldBlock(DeadlineError):  # noqa: N818  (it says what would happen)
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


class OracleProcess:
    """A process of the model.  Satisfies harness.processes.api.Process."""

    def __init__(self, kernel: Kernel, proc: Proc) -> None:
        self.kernel = kernel
        self._proc = proc
        self._pid = proc.pid

    def __repr__(self) -> str:
        return f"<oracle process {self._pid}>"

    __str__ = __repr__

    @property
    def pid(self) -> int:
        """Process id, as fork() returned it to the parent."""
        return self._pid

    @property
    def alive(self) -> bool:
        """Whether the process has not exited."""
        return not self._proc.is_zombie

    @property
    def sysctl(self) -> OracleSysctl:
        """System variables as seen by this process."""
        return OracleSysctl(self)

    @property
    def start(self) -> Any:
        """The same system calls, but each returns an OraclePending at once."""
        return _Starter(self.kernel, self._proc)

    def _run(self, text: str, function: Callable[[Kernel, Proc], T], *, ends: bool = False) -> T:
        """Make a system call; FUNCTION is its implementation."""
        call = self.kernel.scheduler.submit(self._proc, lambda: function(self.kernel, self._proc))
        pending: OraclePending[T] = OraclePending(self, text, call, ends)
        if not pending.done:
            if self._proc.stat is ProcStat.SSTOP:
                raise ProcessStopped(str(self), text)
            raise OracleWouldBlock(str(self), text)
        return pending.outcome()

    # ---- birth and death ----

    def fork(self) -> Self:
        """Fork; return the child."""
        return self._run("fork()", lambda k, proc: type(self)(k, lifecycle.fork1(k, proc)))

    def vfork(self) -> Self:
        """Vfork; return the child.  This process cannot be driven until the child has exited or run a program."""
        children: list[Self] = []

        def vfork(k: Kernel, proc: Proc) -> None:
            children.append(type(self)(k, lifecycle.fork1(k, proc, vfork=True)))

        call = self.kernel.scheduler.submit(self._proc, lambda: vfork(self.kernel, self._proc))
        if children:
            return children[0]
        if call.state is State.QUEUED and self._proc.stat is ProcStat.SSTOP:
            raise ProcessStopped(str(self), "vfork()")
        if call.state is State.QUEUED:
            raise OracleWouldBlock(str(self), "vfork()")
        return OraclePending[Self](self, "vfork()", call, ends=False).outcome()

    def exit(self, status: int = 0) -> None:
        """_exit(status)."""
        self._run(
            call_text("_exit", status),
            lambda k, proc: lifecycle.exit1(k, proc, k.rules.exit_status(status)),
            ends=True,
        )

    # ---- waiting ----

    def wait4(self, pid: int = -1, options: WaitOption | int = NO_OPTIONS) -> WaitResult:
        """Wait for a child."""
        bits = DRAGONFLY.wait_option_bits(options)

        def wait4(k: Kernel, proc: Proc) -> WaitResult:
            found = wait.kern_wait(k, proc, pid, bits)
            status = DRAGONFLY.decode_status(found.status) if found.pid else None
            return WaitResult(found.pid, status, raw_status=found.status)

        return self._run(call_text("wait4", pid, options), wait4)

    def wait6(self, idtype: IdType | int, id_: int, options: WaitOption | int) -> WaitResult:
        """Wait for a child chosen by id type: the seed has no such call."""

        def wait6(k: Kernel, proc: Proc) -> WaitResult:
            raise Errno("ENOSYS")

        return self._run(call_text("wait6", idtype, id_, options), wait6)

    # ---- identity ----

    def getpid(self) -> int:
        """Return the process id."""
        return self._run("getpid()", lambda _, proc: proc.pid)

    def getppid(self) -> int:
        """Return the parent's process id."""
        return self._run("getppid()", lambda _, proc: proc.parent.pid if proc.parent else 0)

    def getpgrp(self) -> int:
        """Return the process group id."""
        return self._run("getpgrp()", lambda _, proc: proc.group.pgid)

    def getpgid(self, pid: int = 0) -> int:
        """Return the process group id of PID (0: this process)."""
        return self._run(call_text("getpgid", pid), lambda k, proc: jobs.getpgid(k, proc, pid))

    def getsid(self, pid: int = 0) -> int:
        """Return the session id of PID (0: this process)."""
        return self._run(call_text("getsid", pid), lambda k, proc: jobs.getsid(k, proc, pid))

    def setsid(self) -> int:
        """Become leader of a new session and group; return its id."""
        return self._run("setsid()", jobs.setsid)

    def setpgid(self, pid: int, pgid: int) -> None:
        """Move PID (0: this process) to group PGID (0: a group of its own)."""
        self._run(call_text("setpgid", pid, pgid), lambda k, proc: jobs.setpgid(k, proc, pid, pgid))

    def getuid(self) -> int:
        """Return the real user id."""
        return self._run("getuid()", lambda _, proc: proc.cred.ruid)

    def geteuid(self) -> int:
        """Return the effective user id."""
        return self._run("geteuid()", lambda _, proc: proc.cred.uid)

    def setuid(self, uid: int) -> None:
        """Set user ids."""
        self._run(call_text("setuid", uid), lambda k, proc: creds.setuid(k, proc, uid))

    def seteuid(self, uid: int) -> None:
        """Set the effective user id."""
        self._run(call_text("seteuid", uid), lambda k, proc: creds.seteuid(k, proc, uid))

    def setreuid(self, ruid: int, euid: int) -> None:
        """Set real and effective user ids; -1 leaves one alone."""
        self._run(call_text("setreuid", ruid, euid), lambda k, proc: creds.setreuid(k, proc, ruid, euid))

    def setresuid(self, ruid: int, euid: int, suid: int) -> None:
        """Set real, effective and saved user ids; -1 leaves one alone."""
        text = call_text("setresuid", ruid, euid, suid)
        self._run(text, lambda k, proc: creds.setresuid(k, proc, ruid, euid, suid))

    def getlogin(self) -> str:
        """Return the session's login name."""
        return self._run("getlogin()", jobs.getlogin)

    def setlogin(self, name: str) -> None:
        """Set the session's login name."""
        self._run(call_text("setlogin", name), lambda k, proc: jobs.setlogin(k, proc, name))

    # ---- signals ----

    def kill(self, pid: int, sig: SignalLike) -> None:
        """Send a signal; pid 0, -1 and -pgid have their usual meaning."""
        number = DRAGONFLY.signal_number(sig)
        self._run(call_text("kill", pid, sig), lambda k, proc: signals.kill(k, proc, pid, number))

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
        return self._run(
            call_text("sigaction", sig, action.value), lambda k, proc: _shown(signals.sigaction(k, proc, number, new))
        )

    def sigprocmask(self, how: SigHow = SIG_SETMASK, mask: Iterable[SignalLike] = ()) -> frozenset[SignalName]:
        """Change the signal mask; return the previous one."""
        numbers = frozenset(map(DRAGONFLY.signal_number, mask))
        return self._run(call_text("sigprocmask", how), lambda _, proc: _names(signals.sigprocmask(proc, how, numbers)))

    def sigpending(self) -> frozenset[SignalName]:
        """Return the signals that are blocked and pending."""
        return self._run("sigpending()", lambda _, proc: _names(signals.sigpending(proc)))

    def signals(self) -> list[SignalRecord]:
        """Return, and forget, the signals logged so far by Handler.LOG."""

        def take(_: Kernel, proc: Proc) -> list[SignalRecord]:
            log, proc.log = proc.log, []
            return log

        return self._run("signals()", take)

    # ---- reapers ----

    def procctl_reaper_acquire(self) -> None:
        """Become a reaper of all descendants."""
        self._run("procctl(PROC_REAP_ACQUIRE)", lambda _, proc: reapers.acquire(proc))

    def procctl_reaper_release(self) -> None:
        """Stop being a reaper."""
        self._run("procctl(PROC_REAP_RELEASE)", lambda _, proc: reapers.release(proc))

    def procctl_reaper_status(self) -> ReaperStatus:
        """Tell about this process's reaper."""
        return self._run("procctl(PROC_REAP_STATUS)", lambda _, proc: reapers.status(proc))

    # ---- the rest ----

    def chdir(self, path: str) -> None:
        """Change the working directory."""

        def chdir(_: Kernel, proc: Proc) -> None:
            if path not in DIRECTORIES:
                raise Errno("ENOENT")
            proc.cwd = path

        self._run(call_text("chdir", path), chdir)


def _names(numbers: Iterable[int]) -> frozenset[SignalName]:
    return frozenset(DRAGONFLY.signal_name(number) for number in numbers)


def _shown(disposition: Disposition) -> SigAction:
    handler = Handler.DEFAULT if disposition.is_internal else _HANDLERS[disposition.action]
    return SigAction(handler, disposition.flags, _names(disposition.mask))


class _Starter(OracleProcess):
    """Starts calls instead of waiting for them; what its methods are declared to return comes as an OraclePending."""

    def _run(self, text: str, function: Callable[[Kernel, Proc], T], *, ends: bool = False) -> T:
        call = self.kernel.scheduler.submit(self._proc, lambda: function(self.kernel, self._proc))
        if call.state is State.GONE and not ends and call.value is None:
            raise ProcessGone(str(self), text)
        return OraclePending[T](self, text, call, ends)  # type: ignore[return-value]


class OracleSysctl:
    """sysctl(3) of one process.  Satisfies harness.processes.api.Sysctl.

    The *_lwp queries show the same rows, because every process of the model has one thread.
    """

    def __init__(self, process: OracleProcess) -> None:
        self._process = process

    def _run(self, name: str, function: Callable[[Kernel, Proc], T]) -> T:
        return self._process._run(call_text("sysctl", name), function)

    def get_int(self, name: str) -> int:
        """Return an integer variable."""
        return self._run(name, lambda k, _: views.get_int(k, name))

    def set_int(self, name: str, value: int) -> None:
        """Set an integer variable."""
        self._run(f"{name}={value}", lambda k, proc: views.set_int(k, proc, name, value))

    def kern_proc_all(self, *, lwp: bool = False) -> ProcTable:
        """Return all processes and kernel threads."""
        return self._run("kern.proc.all", views.kern_proc_all)

    def kern_proc_pid(self, pid: int, *, lwp: bool = False) -> list[KinfoProc]:
        """Return one process, or nothing."""
        return self._run(f"kern.proc.pid.{pid}", lambda k, proc: views.kern_proc_pid(k, proc, pid))

    def kern_proc_pgrp(self, pgid: int, *, lwp: bool = False) -> ProcTable:
        """Return the members of a process group."""
        return self._run(f"kern.proc.pgrp.{pgid}", lambda k, proc: views.kern_proc_pgrp(k, proc, pgid))

    def kern_proc_tty(self, tdev: int, *, lwp: bool = False) -> ProcTable:
        """Return the processes whose controlling terminal has device number TDEV."""
        return self._run(f"kern.proc.tty.{tdev}", views.kern_proc_tty)

    def kern_proc_uid(self, uid: int, *, lwp: bool = False) -> ProcTable:
        """Return the processes of an effective user id."""
        return self._run(f"kern.proc.uid.{uid}", lambda k, proc: views.kern_proc_uid(k, proc, uid))

    def kern_proc_ruid(self, uid: int, *, lwp: bool = False) -> ProcTable:
        """Return the processes of a real user id."""
        return self._run(f"kern.proc.ruid.{uid}", lambda k, proc: views.kern_proc_ruid(k, proc, uid))

    def kern_proc_args(self, pid: int) -> list[bytes]:
        """Return a process's argument vector; empty for an unknown pid."""
        return self._run(f"kern.proc.args.{pid}", lambda k, proc: views.kern_proc_args(k, proc, pid))

    def kern_proc_cwd(self, pid: int) -> str:
        """Return a process's working directory; empty for an unknown pid."""
        return self._run(f"kern.proc.cwd.{pid}", lambda k, proc: views.kern_proc_cwd(k, proc, pid))

    def kern_proc_pathname(self, pid: int) -> str:
        """Return the path of the program a process runs."""
        return self._run(f"kern.proc.pathname.{pid}", lambda k, proc: views.kern_proc_pathname(k, proc, pid))

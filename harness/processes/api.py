# SPDX-License-Identifier: BSD-2-Clause
"""The semantic core of the process interface: what a driven process and the oracle have in common.

A conformance test takes a `Process` and can run against a real kernel or against the executable specification.  Every
method is the system call of that name; failures raise GuestError.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, Self

from harness.processes.kinfo import KinfoProc, ProcTable
from harness.processes.vocabulary import (
    SIG_SETMASK,
    Handler,
    IdType,
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

NO_OPTIONS = WaitOption(0)
NO_FLAGS = SigFlag(0)


class Sysctl(Protocol):
    """The process-related part of sysctl(3) as seen by one process."""

    def get_int(self, name: str) -> int:
        """Return an integer variable."""

    def set_int(self, name: str, value: int) -> None:
        """Set an integer variable (`kern.randompid`)."""

    def kern_proc_all(self, *, lwp: bool = False) -> ProcTable:
        """Return all processes and kernel threads (`kern.proc.all`); with lwp=True one row per thread."""

    def kern_proc_pid(self, pid: int, *, lwp: bool = False) -> list[KinfoProc]:
        """Return one process, or nothing: no error is raised for a pid that does not exist."""

    def kern_proc_pgrp(self, pgid: int, *, lwp: bool = False) -> ProcTable:
        """Return the members of a process group."""

    def kern_proc_tty(self, tdev: int, *, lwp: bool = False) -> ProcTable:
        """Return the processes whose controlling terminal has device number TDEV."""

    def kern_proc_uid(self, uid: int, *, lwp: bool = False) -> ProcTable:
        """Return the processes of an effective user id."""

    def kern_proc_ruid(self, uid: int, *, lwp: bool = False) -> ProcTable:
        """Return the processes of a real user id."""

    def kern_proc_args(self, pid: int) -> list[bytes]:
        """Return a process's argument vector; empty for an unknown pid."""

    def kern_proc_cwd(self, pid: int) -> str:
        """Return a process's working directory; empty for an unknown pid."""

    def kern_proc_pathname(self, pid: int) -> str:
        """Return the path of the program a process runs."""


class Process(Protocol):
    """A process whose system calls the test makes."""

    @property
    def pid(self) -> int:
        """Process id, as fork() returned it to the parent."""

    @property
    def sysctl(self) -> Sysctl:
        """System variables as seen by this process."""

    def fork(self) -> Self:
        """Fork; return the child."""

    def vfork(self) -> Self:
        """Vfork; return the child.  This process cannot be driven until the child has exited or run a program."""

    def exit(self, status: int = 0) -> None:
        """_exit(status).  Returns when the process has ended; it is a zombie until its parent waits."""

    def wait4(self, pid: int = -1, options: WaitOption | int = NO_OPTIONS) -> WaitResult:
        """Wait for a child.  WNOHANG with nothing to report gives a result whose pid is 0."""

    def wait6(self, idtype: IdType | int, id_: int, options: WaitOption | int) -> WaitResult:
        """Wait for a child chosen by id type."""

    def kill(self, pid: int, sig: SignalLike) -> None:
        """Send a signal; pid 0, -1 and -pgid have their usual meaning."""

    def killpg(self, pgid: int, sig: SignalLike) -> None:
        """Send a signal to a process group: kill(-pgid, sig)."""

    def getpid(self) -> int:
        """Return the process id as the kernel tells it."""

    def getppid(self) -> int:
        """Return the parent's process id."""

    def getpgrp(self) -> int:
        """Return the process group id."""

    def getpgid(self, pid: int = 0) -> int:
        """Return the process group id of PID (0: this process)."""

    def getsid(self, pid: int = 0) -> int:
        """Return the session id of PID (0: this process)."""

    def setsid(self) -> int:
        """Become leader of a new session and group; return its id."""

    def setpgid(self, pid: int, pgid: int) -> None:
        """Move PID (0: this process) to group PGID (0: a group of its own)."""

    def getuid(self) -> int:
        """Return the real user id."""

    def geteuid(self) -> int:
        """Return the effective user id."""

    def setuid(self, uid: int) -> None:
        """Set user ids."""

    def seteuid(self, uid: int) -> None:
        """Set the effective user id."""

    def setreuid(self, ruid: int, euid: int) -> None:
        """Set real and effective user ids; -1 leaves one alone."""

    def setresuid(self, ruid: int, euid: int, suid: int) -> None:
        """Set real, effective and saved user ids; -1 leaves one alone."""

    def getlogin(self) -> str:
        """Return the session's login name."""

    def setlogin(self, name: str) -> None:
        """Set the session's login name."""

    def sigaction(
        self,
        sig: SignalLike,
        action: Handler,
        flags: SigFlag | int = NO_FLAGS,
        mask: Iterable[SignalLike] = (),
    ) -> SigAction:
        """Set what a signal does; return what it did before."""

    def sigprocmask(self, how: SigHow = SIG_SETMASK, mask: Iterable[SignalLike] = ()) -> frozenset[SignalName]:
        """Change the signal mask; return the previous one."""

    def sigpending(self) -> frozenset[SignalName]:
        """Return the signals that are blocked and pending."""

    def signals(self) -> Sequence[SignalRecord]:
        """Return, and forget, the signals logged so far by Handler.LOG."""

    def procctl_reaper_acquire(self) -> None:
        """Become a reaper of all descendants."""

    def procctl_reaper_release(self) -> None:
        """Stop being a reaper."""

    def procctl_reaper_status(self) -> ReaperStatus:
        """Tell about this process's reaper."""

    def chdir(self, path: str) -> None:
        """Change the working directory."""

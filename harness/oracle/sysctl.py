"""sysctl(3) of an oracle process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from harness.oracle import views
from harness.oracle.kernel import Kernel
from harness.oracle.model import Proc
from harness.processes.kinfo import KinfoProc, ProcTable

if TYPE_CHECKING:
    from harness.oracle.process import OracleProcess

T = TypeVar("T")


class OracleSysctl:
    """System variables as one process sees them.  Satisfies harness.processes.api.Sysctl.

    The *_lwp queries show the same rows, because every process of the model has one thread.
    """

    def __init__(self, process: OracleProcess) -> None:
        self._process = process

    def _run(self, name: str, function: Callable[[Kernel, Proc], T]) -> T:
        return self._process.execute(f"sysctl({name})", function)

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
        return self._run(f"kern.proc.args.{pid}", lambda k, proc: views.kern_proc_args(k, proc, pid).split(b"\0")[:-1])

    def set_kern_proc_args(self, pid: int, title: bytes) -> None:
        """Set a process's title; only its own process may."""
        self._run(f"kern.proc.args.{pid}=...", lambda k, proc: views.set_kern_proc_args(k, proc, pid, title))

    def kern_proc_cwd(self, pid: int) -> str:
        """Return a process's working directory; empty for an unknown pid."""
        return self._run(f"kern.proc.cwd.{pid}", lambda k, proc: views.kern_proc_cwd(k, proc, pid))

    def kern_proc_pathname(self, pid: int) -> str:
        """Return the path of the program a process runs."""
        return self._run(f"kern.proc.pathname.{pid}", lambda k, proc: views.kern_proc_pathname(k, proc, pid))

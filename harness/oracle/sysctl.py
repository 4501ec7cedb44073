# SPDX-License-Identifier: BSD-2-Clause
"""sysctl(3) of an oracle process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from harness.oracle import views
from harness.oracle.kernel import Kernel
from harness.oracle.mib import mib_of, sysctl
from harness.oracle.model import Errno, Proc
from harness.processes.kinfo import KinfoProc, ProcRows, ProcTable

if TYPE_CHECKING:
    from harness.oracle.process import OracleProcess

T = TypeVar("T")
Mib = Sequence[int]


class OracleSysctl:
    """System variables as one process sees them.  Satisfies harness.processes.api.Sysctl.

    The *_lwp queries show the same rows, because every process of the model has one thread.
    """

    def __init__(self, process: OracleProcess) -> None:
        self._process = process

    def _run(self, name: str, function: Callable[[Kernel, Proc], T]) -> T:
        return self._process.execute(f"sysctl({name})", function)

    def raw(self, mib: Mib, size: int | None, new: bytes | None = None) -> tuple[bytes, int]:
        """Make the call by number; return what was copied out and the length that was returned."""

        def raw(k: Kernel, proc: Proc) -> tuple[bytes, int]:
            data, length, cut_off = sysctl(k, proc, mib, size, new)
            if cut_off:
                raise Errno("ENOMEM")
            return data, length

        return self._run(".".join(map(str, mib)), raw)

    def _raw(self, name: str | Mib, size: int | None, new: bytes | None = None) -> tuple[bytes, int]:
        mib = mib_of(self._process.kernel, name) if isinstance(name, str) else name
        return self.raw(mib, size, new)

    def read(self, name: str | Mib, size: int | None = None) -> bytes:
        """Return a variable's value; SIZE is the room offered in bytes (a page unless given)."""
        return self._raw(name, size or 4096)[0]

    def size(self, name: str | Mib) -> int:
        """Return the length the kernel announces for a variable's value when no room is offered."""
        return self._raw(name, None)[1]

    def write(self, name: str | Mib, new: bytes) -> None:
        """Set a variable."""
        self._raw(name, None, new)

    def get_int(self, name: str | Mib) -> int:
        """Return an integer variable of 4 or 8 bytes."""
        if isinstance(name, str):
            return self._run(name, lambda k, _: views.get_int(k, name))
        return int.from_bytes(self.read(name), "little", signed=True)

    def set_int(self, name: str | Mib, value: int) -> None:
        """Set an int variable of 4 bytes."""
        if isinstance(name, str):
            self._run(f"{name}={value}", lambda k, proc: views.set_int(k, proc, name, value))
        else:
            self.write(name, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def _rows(self, convert: Callable[[list[KinfoProc]], T], kind: str, *argument: int, lwp: bool, lwkt: bool) -> T:
        name = ".".join(["kern.proc", f"{kind}{'_lwp' if lwp else ''}{'_lwkt' if lwkt else ''}", *map(str, argument)])

        def rows(k: Kernel, proc: Proc) -> T:
            if lwkt and not k.rules.traits.lwkt_flag:
                raise Errno("ENOENT")
            return convert(views.table(k, proc, kind, argument, lwp=lwp, kernel_threads=lwkt))

        return self._run(name, rows)

    def _table(self, kind: str, *argument: int, lwp: bool, lwkt: bool) -> ProcTable:
        return self._rows(ProcTable, kind, *argument, lwp=lwp, lwkt=lwkt)

    def kern_proc_all(self, *, lwp: bool = False, lwkt: bool = False) -> ProcTable:
        """Return all processes, and kernel threads where they are asked for or come unasked."""
        return self._table("all", lwp=lwp, lwkt=lwkt)

    def kern_proc_pid(self, pid: int, *, lwp: bool = False, lwkt: bool = False) -> list[KinfoProc]:
        """Return one process, or nothing."""
        return self._rows(ProcRows, "pid", pid, lwp=lwp, lwkt=lwkt)

    def kern_proc_pgrp(self, pgid: int, *, lwp: bool = False, lwkt: bool = False) -> ProcTable:
        """Return the members of a process group."""
        return self._table("pgrp", pgid, lwp=lwp, lwkt=lwkt)

    def kern_proc_tty(self, tdev: int, *, lwp: bool = False, lwkt: bool = False) -> ProcTable:
        """Return the processes whose controlling terminal has device number TDEV."""
        return self._table("tty", tdev, lwp=lwp, lwkt=lwkt)

    def kern_proc_uid(self, uid: int, *, lwp: bool = False, lwkt: bool = False) -> ProcTable:
        """Return the processes of an effective user id."""
        return self._table("uid", uid, lwp=lwp, lwkt=lwkt)

    def kern_proc_ruid(self, uid: int, *, lwp: bool = False, lwkt: bool = False) -> ProcTable:
        """Return the processes of a real user id."""
        return self._table("ruid", uid, lwp=lwp, lwkt=lwkt)

    def kern_proc_args(self, pid: int, tid: int | None = None) -> list[bytes]:
        """Return the argument vector of a process, or of its thread TID; empty for an unknown pid."""
        name = f"kern.proc.args.{pid}"
        return self._run(name, lambda k, proc: views.kern_proc_args(k, proc, pid, tid).split(b"\0")[:-1])

    def set_kern_proc_args(self, pid: int, title: bytes, tid: int | None = None) -> None:
        """Set the title of a process, or of its thread TID; only its own process may."""
        self._run(f"kern.proc.args.{pid}=...", lambda k, proc: views.set_kern_proc_args(k, proc, pid, title, tid))

    def kern_proc_cwd(self, pid: int) -> str:
        """Return a process's working directory; empty for an unknown pid."""
        return self._run(f"kern.proc.cwd.{pid}", lambda k, proc: views.kern_proc_cwd(k, proc, pid))

    def kern_proc_pathname(self, pid: int) -> str:
        """Return the path of the program a process runs."""
        return self._run(f"kern.proc.pathname.{pid}", lambda k, proc: views.kern_proc_pathname(k, proc, pid))

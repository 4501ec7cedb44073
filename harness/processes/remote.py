# SPDX-License-Identifier: BSD-2-Clause
"""A process in the guest, driven from Python as if it were a local object."""

from __future__ import annotations

import os
import time
from functools import cached_property

from harness.errors import GuestDeadlineError
from harness.processes.abi_base import Abi
from harness.processes.calls import Now, Result, Started
from harness.processes.connection import Pending, await_true
from harness.processes.sysctl import StartedSysctl, Sysctl
from harness.processes.system_calls import SystemCalls
from harness.processes.vocabulary import SignalLike, SignalRecord, signal_text
from harness.processes.wire import Argument, BranchFlag

_POLL = 0.02  # s between questions to a process about something it cannot tell by itself


class Start(SystemCalls, Started):
    """The system calls of a process, each only started: `pending = p.start.wait4()`.

    Several calls can be under way; they are made in order, without a round trip between them.
    """

    @cached_property
    def sysctl(self) -> StartedSysctl:
        """System variables, each access only started."""
        return StartedSysctl(self._connection, self._abi, self._endpoint)

    def exit(self, status: int = 0) -> Pending[None]:
        """_exit(status); done when the process has closed its descriptors, shortly before it is a zombie."""
        return self._leave(status)


class _Driven(SystemCalls, Now):
    """What a driven process and a driven thread have in common."""

    @property
    def pid(self) -> int:
        """Process id, as fork() returned it to the parent."""
        return self._endpoint.pid

    @property
    def abi(self) -> Abi:
        """The guest's system call interface."""
        return self._abi

    @property
    def gone(self) -> bool:
        """Whether it can no longer be driven: it has ended, or runs another program."""
        return self._endpoint.gone

    @cached_property
    def start(self) -> Start:
        """The same calls, returning a Pending at once."""
        return Start(self._connection, self._abi, self._endpoint)

    @cached_property
    def sysctl(self) -> Sysctl:
        """System variables as seen by this process."""
        return Sysctl(self._connection, self._abi, self._endpoint)

    def call(self, name_or_number: str | int, *arguments: Argument | bytes | str) -> Pending[Result]:
        """Start any system call; the same as `start.syscall`."""
        return self.start.syscall(name_or_number, *arguments)

    def sleep(self, seconds: float) -> None:
        """Sleep in the guest, by its clock."""
        self.nanosleep(seconds)

    def await_signal(self, sig: SignalLike, timeout: float = 10.0) -> SignalRecord:
        """Wait until the log shows a delivery of SIG and return it; other records are dropped.

        Raises GuestDeadlineError after TIMEOUT seconds.
        """
        wanted = self._abi.signal_name(self._abi.signal_number(sig))
        deadline = time.monotonic() + timeout
        seen: list[str] = []
        while True:
            for record in self.signals():
                if record.signal == wanted:
                    return record
                seen.append(signal_text(record.signal))
            if time.monotonic() >= deadline:
                got = f" (it got {', '.join(seen)})" if seen else ""
                raise GuestDeadlineError(f"{signal_text(sig)} in {self._endpoint}{got}", timeout)
            time.sleep(_POLL)

    def await_gone(self, timeout: float | None = None) -> None:
        """Wait until the process or thread can no longer be driven."""
        limit = self._connection.deadline if timeout is None else timeout
        self._connection.wait(lambda: self._endpoint.gone, f"{self._endpoint} to end", limit)

    def openpty(self) -> tuple[int, int, str]:
        """Open a pseudo-terminal; return the master's and the slave's descriptor and the slave's path.

        Neither becomes the controlling terminal.
        """
        master = self.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        if not self._abi.is_dragonfly:
            self.ioctl(master, "TIOCSPTLCK", bytes(4))
        name = self.ptsname(master)
        return master, self.open(name, os.O_RDWR | os.O_NOCTTY), name

    def thread(self) -> RemoteThread:
        """Make another thread in this process; it makes system calls of its own."""
        endpoint = self._connection.new_endpoint()
        endpoint.is_thread = True
        endpoint.pid = self.pid
        return self._thread(endpoint)


class RemoteProcess(_Driven):
    """A process whose system calls the test makes.  Made by `Hub.spawn()` and by other processes' fork()."""

    def __repr__(self) -> str:
        return f"<{'gone ' if self.gone else ''}{self._endpoint}>"

    def exit(self, status: int = 0) -> None:
        """_exit(status).  Returns when the process has ended entirely: a zombie unless somebody has waited for it."""
        ending = self._connection.observation.ending(self.pid)
        self._leave(status)
        ending.wait(self._connection.deadline)

    def await_end(self, timeout: float | None = None) -> None:
        """Wait until the process has ended entirely, as exit() does; for one that is being killed."""
        limit = self._connection.deadline if timeout is None else timeout
        ending = self._connection.observation.ending(self.pid)
        self.await_gone(limit)
        ending.wait(limit)

    def await_stop(self, timeout: float = 10.0) -> None:
        """Wait until the process is stopped."""
        await_true(lambda: self._connection.observation.is_stopped(self.pid), f"{self._endpoint} to stop", timeout)

    def vfork(self) -> RemoteProcess:
        """Vfork; return the child.  Calls to this process are answered after the child has exited or run a program."""
        child = self._connection.new_endpoint()
        call = self._branch("vfork", 0, BranchFlag.SHARES_MEMORY | BranchFlag.WAITS, "vfork()", child)
        pending = self._connection.submit(self._endpoint, call)
        self._connection.wait(
            lambda: child.hello or pending.done, f"the child of vfork() in {self._endpoint}", self._connection.deadline
        )
        if not child.hello and pending.answer is not None and pending.answer.error:
            pending.outcome()
        return RemoteProcess(self._connection, self._abi, child)


class RemoteThread(_Driven):
    """A thread of a driven process; its calls run beside the process's own."""

    @property
    def tid(self) -> int:
        """Thread id."""
        return self._endpoint.tid

    def __repr__(self) -> str:
        return f"<{'gone ' if self.gone else ''}{self._endpoint}>"

    def exit(self) -> None:
        """End this thread, not its process."""
        self.leave_thread()

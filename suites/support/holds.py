# SPDX-License-Identifier: BSD-2-Clause
"""Holds taken from outside: a process that somebody holds in the kernel for as long as a test wants."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGKILL

from harness.guests.whitebox import Whitebox
from harness.oracle import OracleProcess, lifecycle
from harness.processes import GuestError, Hub, Pending, RemoteProcess, WaitResult
from support.mounts import procfs
from support.processes import exists
from support.procfs import S_SIG, end, fails_or_not, hold

#: struct proc is longer in every era, and what counts its holders lies before.
_WORDS = struct.Struct("<288I")


def outcome(wait: Pending[WaitResult]) -> str:
    """Return the status a wait brought, or the name of its error."""
    try:
        return str(wait.result(20.0).status)
    except GuestError as error:
        return error.name


def hold_count(init: RemoteProcess, kernel: Whitebox) -> int:
    """Return where struct proc counts those who hold the process: the word that follows their number.

    Found by holding one, so that a kernel without debug file can be asked as well (sys/proc.h: p_lock).
    """
    with procfs(init) as mounted:
        target = init.fork()
        (found,) = init.sysctl.kern_proc_pid(target.pid)

        def that_are(count: int) -> set[int]:
            are: set[int] = set()
            for _ in range(5):  # the scheduler, too, holds each process for an instant every second
                words = _WORDS.unpack(kernel.read(found.paddr, _WORDS.size))
                are |= {number for number, word in enumerate(words) if word == count}
                init.getpid()
            return are

        followed, waits = that_are(0), []
        for count, holder in enumerate([init.fork() for _ in range(3)], 1):
            waits.append(hold(holder, target, mounted, S_SIG))
            followed &= that_are(count)
        # A clock may have run along; it does not run back.
        init.kill(holder.pid, SIGKILL)
        init.start.wait4(holder.pid).result(20.0)
        followed &= that_are(len(waits) - 1)
        end(target, 0)
        for wait in waits[:-1]:
            with fails_or_not():
                wait.result(20.0)
        init.start.wait4(target.pid).result(20.0)
    assert len(followed) == 1, f"{len(followed)} words of struct proc count the holders"
    return followed.pop() * 4


class Grip:
    """Holds processes of a kernel one by one, each for as long as is wanted."""

    def __init__(self, hub: Hub, kernel: Whitebox) -> None:
        self._observer = hub.observer
        self._kernel = kernel
        self._place = hold_count(hub.spawn(), kernel)
        self._held: list[tuple[int, int]] = []  # pids and addresses

    def hold(self, pid: int) -> None:
        """Hold a process."""
        address = self._observer.sysctl.kern_proc_all()[pid].paddr + self._place
        self._kernel.add(address, 1)
        self._held.append((pid, address))

    def let_go(self, pid: int) -> None:
        """Let go of a process, and wake who waits for that."""
        held = next(one for one in self._held if one[0] == pid)
        self._held.remove(held)
        self._kernel.add(held[1], -1)
        exists(self._observer, pid)

    def let_all_go(self) -> None:
        """Let go of whatever is held."""
        while self._held:
            self.let_go(self._held[-1][0])


@contextmanager
def held_in_oracle(process: OracleProcess) -> Iterator[None]:
    """Hold PROCESS, one of the oracle's, inside the block."""
    lifecycle.hold(process.model)
    try:
        yield
    finally:
        lifecycle.let_go(process.kernel, process.model)


@contextmanager
def held(init: RemoteProcess, kernel: Whitebox, process: RemoteProcess) -> Iterator[None]:
    """Hold PROCESS or zombie inside the block, as a reader would that takes his time; INIT asks for it at its end.

    Whoever lets go of a process wakes those who wait for that.  Woken by others, they may have gone on already.
    """
    place = init.sysctl.kern_proc_all()[process.pid].paddr + hold_count(init, kernel)
    kernel.add(place, 1)
    try:
        yield
    finally:
        kernel.add(place, -1)
        exists(init, process.pid)

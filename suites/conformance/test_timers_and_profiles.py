# SPDX-License-Identifier: BSD-2-Clause
"""Timers and profiles: what a child has of them, and what becomes of them at the end (kern_fork.c, kern_exit.c)."""

from __future__ import annotations

import struct
from signal import SIGALRM

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import Handler, RemoteProcess
from harness.processes.wire import Buffer
from support.processes import bury, row

pytestmark = [pytest.mark.needs_kernel, pytest.mark.passes("proc_add_allproc")]
ITIMER_REAL = 0
ITIMERVAL = struct.Struct("<4q")  # interval and value, each in seconds and microseconds
P_PROFIL = 0x20  # sys/proc.h
SOON = 300_000  # microseconds
ODD = struct.pack("<2q", 54_321, 123_457)  # an interval that nobody else asks for


def left(process: RemoteProcess) -> int:
    """Return how many microseconds are left of PROCESS's timer in real time."""
    place = Buffer(bytes(ITIMERVAL.size), wanted=True)
    result = process.syscall("getitimer", ITIMER_REAL, place)
    _, _, seconds, microseconds = ITIMERVAL.unpack(result.memory(place))
    return int(seconds * 1_000_000 + microseconds)


def next_time(kernel: Whitebox, address: int) -> bytes:
    """Return when the timer with the interval ODD goes off next, of the process at ADDRESS in the kernel's memory."""
    structure = kernel.read(address, 2048)
    place = structure.index(ODD) + len(ODD)
    return structure[place : place + len(ODD)]


@pytest.mark.slow_clock(1)
def test_a_timer_goes_with_its_process(init: RemoteProcess, kernel: Whitebox) -> None:
    """A zombie's does not go off any more, that of the living does (kern_exit.c: exit1; kern_time.c: realitexpire)."""
    zombie, living = init.fork(), init.fork()
    living.sigaction(SIGALRM, Handler.IGNORE)
    places = [row(init, each.pid).paddr for each in (zombie, living)]
    for process in (zombie, living):
        process.syscall("setitimer", ITIMER_REAL, ODD + ITIMERVAL.pack(0, 0, 0, SOON)[len(ODD) :], 0)
    zombie.exit()
    before = [next_time(kernel, place) for place in places]
    init.sleep(2 * SOON / 1_000_000)
    assert [next_time(kernel, place) == then for place, then in zip(places, before, strict=True)] == [True, False]
    init.wait4(zombie.pid)
    bury(init, living)


def test_a_child_begins_without_a_timer(init: RemoteProcess) -> None:
    """Its parent's goes on (setitimer(2); kern_fork.c: fork1, p_realtimer)."""
    process = init.fork()
    process.syscall("setitimer", ITIMER_REAL, ITIMERVAL.pack(0, 0, 1000, 0), 0)
    child = process.fork()
    assert left(child) == 0
    assert 0 < left(process) <= 1000 * 1_000_000
    bury(process, child)
    bury(init, process)


def test_the_child_of_a_process_whose_profile_is_taken_is_profiled_too(init: RemoteProcess) -> None:
    """Until it asks for no more; its parent's is its own affair (profil(2); kern_fork.c: fork1, startprofclock)."""

    def is_profiled(process: RemoteProcess) -> bool:
        return bool(row(init, process.pid).flags & P_PROFIL)

    process, other = init.fork(), init.fork()
    process.syscall("profil", Buffer(bytes(64)), 64, 0, 2)
    child = process.fork()
    assert [is_profiled(each) for each in (process, child, other, other.fork())] == [True, True, False, False]
    child.syscall("profil", 0, 0, 0, 0)
    assert [is_profiled(each) for each in (process, child)] == [True, False]
    bury(process, child, process.fork())  # one that is not profiled, and one that is
    bury(init, process)

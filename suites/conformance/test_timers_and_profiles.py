# SPDX-License-Identifier: BSD-2-Clause
"""Timers and profiles: what a child has of them, and what becomes of them at the end (kern_fork.c, kern_exit.c)."""

from __future__ import annotations

import struct

import pytest

from harness.processes import RemoteProcess
from harness.processes.wire import Buffer
from support.processes import bury, row

pytestmark = [pytest.mark.needs_kernel, pytest.mark.passes("proc_add_allproc")]
ITIMER_REAL = 0
ITIMERVAL = struct.Struct("<4q")  # interval and value, each in seconds and microseconds
P_PROFIL = 0x20  # sys/proc.h
SOON = 300_000  # microseconds


def left(process: RemoteProcess) -> int:
    """Return how many microseconds are left of PROCESS's timer in real time."""
    place = Buffer(bytes(ITIMERVAL.size), wanted=True)
    result = process.syscall("getitimer", ITIMER_REAL, place)
    _, _, seconds, microseconds = ITIMERVAL.unpack(result.memory(place))
    return int(seconds * 1_000_000 + microseconds)


@pytest.mark.slow_clock(1)
def test_a_timer_goes_with_its_process(init: RemoteProcess) -> None:
    """Nobody is signalled when it would have expired, be his memory the same (kern_exit.c: exit1, p_ithandle)."""
    for _ in range(20):
        child = init.fork()
        child.syscall("setitimer", ITIMER_REAL, ITIMERVAL.pack(0, 0, 0, SOON), 0)
        bury(init, child)
    heirs = [init.fork() for _ in range(20)]
    init.sleep(2 * SOON / 1_000_000)
    assert [heir.getpid() for heir in heirs] == [heir.pid for heir in heirs]
    bury(init, *heirs)


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

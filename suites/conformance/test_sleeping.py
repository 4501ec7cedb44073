# SPDX-License-Identifier: BSD-2-Clause
"""Sleeping by a clock, and being woken: nanosleep(), clock_nanosleep() (kern_time.c: clock_nanosleep1())."""

from __future__ import annotations

import struct
from errno import EFAULT, EINVAL
from signal import SIGSYS, SIGUSR1

import pytest

from harness.processes import Buffer, Clock, Handler, RemoteProcess, fails
from support.processes import await_asleep, expect_signals, hearing

pytestmark = pytest.mark.needs_kernel

CLOCKS = [Clock.CLOCK_REALTIME, Clock.CLOCK_MONOTONIC]
LONG = 300.0  # s
CPU_TIME = 14  # sys/_clock_id.h: CLOCK_THREAD_CPUTIME_ID


def timespec(seconds: int, nanoseconds: int = 0) -> bytes:
    """Return a struct timespec."""
    return struct.pack("<qq", seconds, nanoseconds)


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("clock_nanosleep")
@pytest.mark.parametrize("clock", CLOCKS, ids=lambda clock: clock.name)
@pytest.mark.parametrize("absolute", [False, True], ids=["for a time", "until a time"])
def test_a_sleep_is_as_long_as_its_clock_says(init: RemoteProcess, clock: Clock, absolute: bool) -> None:
    """And not shorter (kern_time.c: clock_nanosleep1)."""
    before = init.clock_gettime(clock)
    init.clock_nanosleep(before + 0.2 if absolute else 0.2, clock, absolute=absolute)
    assert init.clock_gettime(clock) - before >= 0.2


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("clock_nanosleep")
def test_a_moment_that_is_over_is_not_waited_for(init: RemoteProcess) -> None:
    """Nor one a second later, if it is for now (kern_time.c: TIMER_ABSTIME)."""
    now = init.clock_gettime(Clock.CLOCK_MONOTONIC)
    for moment in (now, 1.0):
        init.clock_nanosleep(moment, Clock.CLOCK_MONOTONIC, absolute=True)
    assert init.clock_gettime(Clock.CLOCK_MONOTONIC) < now + 30


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("clock_nanosleep")
@pytest.mark.parametrize("absolute", [False, True], ids=["for a time", "until a time"])
def test_a_signal_ends_a_sleep_by_a_clock(init: RemoteProcess, absolute: bool) -> None:
    """EINTR, after the handler (kern_time.c: clock_nanosleep1)."""
    child = hearing(init.fork())
    until = child.clock_gettime(Clock.CLOCK_MONOTONIC) + LONG if absolute else LONG
    sleep = child.start.clock_nanosleep(until, Clock.CLOCK_MONOTONIC, absolute=absolute)
    await_asleep(init, child, "nanslp")
    init.kill(child.pid, SIGUSR1)
    with fails("EINTR"):
        sleep.result(20.0)
    expect_signals(child, SIGUSR1)


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("clock_nanosleep")
def test_what_is_left_of_an_interrupted_sleep_is_told(init: RemoteProcess) -> None:
    """Of one for a time; less than was asked for (kern_time.c: sys_clock_nanosleep)."""
    child = hearing(init.fork())
    left = Buffer(bytes(16), wanted=True)
    sleep = child.start.syscall("clock_nanosleep", 0, 0, timespec(int(LONG)), left)
    await_asleep(init, child, "nanslp")
    init.kill(child.pid, SIGUSR1)
    seconds, nanoseconds = struct.unpack("<qq", sleep.result(20.0).memory(left))
    assert LONG - 60 < seconds + nanoseconds / 1e9 < LONG


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("clock_nanosleep")
@pytest.mark.parametrize("when", [timespec(-1), timespec(1, -1), timespec(1, 10**9)], ids=["-1 s", "-1 ns", "10^9 ns"])
def test_a_time_that_is_none_is_not_slept(init: RemoteProcess, when: bytes) -> None:
    """EINVAL is returned, for both calls (kern_time.c: clock_nanosleep1)."""
    assert init.syscall("clock_nanosleep", 0, 0, when, 0).value == EINVAL
    with fails(EINVAL):
        init.syscall("nanosleep", when, 0)


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("clock_nanosleep")
def test_a_sleep_needs_a_clock_and_a_time(init: RemoteProcess) -> None:
    """No such clock, or the caller's own time: EINVAL; no time: EFAULT; returned, not set (kern_time.c)."""
    assert init.syscall("clock_nanosleep", 99, 0, timespec(1), 0).value == EINVAL
    assert init.syscall("clock_nanosleep", CPU_TIME, 0, timespec(1), 0).value == EINVAL
    assert init.syscall("clock_nanosleep", 0, 2, timespec(1), 0).value == EINVAL
    assert init.syscall("clock_nanosleep", 0, 0, 0x1000, 0).value == EFAULT


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("!clock_nanosleep")
def test_nobody_sleeps_by_a_clock_of_his_choice_yet(init: RemoteProcess) -> None:
    """The number is of no system call: SIGSYS, and EINVAL for who ignores that (kern_sig.c: sys_nosys)."""
    child = init.fork()
    child.sigaction(SIGSYS, Handler.IGNORE)
    with fails(EINVAL):
        child.clock_nanosleep(0.1, Clock.CLOCK_MONOTONIC)

# SPDX-License-Identifier: BSD-2-Clause
"""A reaper signals all that is below it: procctl(PROC_REAP_KILL) (kern_fork.c: reaper_kill())."""

from __future__ import annotations

import struct
from errno import EFAULT, EINVAL, ENOTCONN
from signal import SIGKILL, SIGSTOP, SIGUSR1

import pytest

from harness.processes import IdType, ReapKill, RemoteProcess, fails
from support.processes import await_stopped, bury, expect_signals, hearing, logged

COMMAND = 6  # sys/procctl.h: PROC_REAP_KILL


def make_reaper(init: RemoteProcess) -> RemoteProcess:
    """Return a child of INIT that is a reaper and hears SIGUSR1."""
    reaper = hearing(init.fork())
    reaper.procctl_reaper_acquire()
    return reaper


@pytest.mark.passes("prele")
@pytest.mark.feature("reap_kill")
def test_all_descendants_of_the_reaper_hear_the_signal(init: RemoteProcess) -> None:
    """Of every generation, and nobody else (kern_fork.c: reaper_kill)."""
    outsider = hearing(init.fork())
    reaper = make_reaper(init)
    first, second = hearing(reaper.fork()), hearing(reaper.fork())
    third = hearing(second.fork())
    fourth = hearing(third.fork())
    assert reaper.procctl_reap_kill(SIGUSR1) == ReapKill(4, 0)
    for process in (first, second, third, fourth):
        expect_signals(process, SIGUSR1)
    assert (logged(reaper), logged(outsider)) == ([], [])


@pytest.mark.passes("prele")
@pytest.mark.feature("reap_kill")
def test_children_alone_hear_the_signal_if_it_is_for_children_only(init: RemoteProcess) -> None:
    """REAPER_KILL_CHILDREN spares grandchildren (kern_fork.c: reaper_kill)."""
    reaper = make_reaper(init)
    child = hearing(reaper.fork())
    grandchild = hearing(child.fork())
    assert reaper.procctl_reap_kill(SIGUSR1, children_only=True) == ReapKill(1, 0)
    expect_signals(child, SIGUSR1)
    assert logged(grandchild) == []


@pytest.mark.passes("prele")
@pytest.mark.feature("reap_kill")
def test_what_is_below_another_reaper_is_that_reapers(init: RemoteProcess) -> None:
    """The other reaper itself hears the signal (kern_fork.c: reaper_kill)."""
    reaper = make_reaper(init)
    other = hearing(reaper.fork())
    other.procctl_reaper_acquire()
    below = hearing(other.fork())
    assert reaper.procctl_reap_kill(SIGUSR1) == ReapKill(1, 0)
    expect_signals(other, SIGUSR1)
    assert logged(below) == []
    assert other.procctl_reap_kill(SIGUSR1) == ReapKill(1, 0)
    expect_signals(below, SIGUSR1)


@pytest.mark.passes("prele")
@pytest.mark.feature("reap_kill")
def test_inherited_orphans_hear_the_signal(init: RemoteProcess) -> None:
    """They are the reaper's children then (kern_exit.c: exit1; kern_fork.c: reaper_kill)."""
    reaper = make_reaper(init)
    child = reaper.fork()
    orphan = hearing(child.fork())
    bury(reaper, child)
    assert reaper.procctl_reap_kill(SIGUSR1, children_only=True) == ReapKill(1, 0)
    expect_signals(orphan, SIGUSR1)


@pytest.mark.passes("prele", "proc_move_allproc_zombie")
@pytest.mark.feature("reap_kill")
def test_zombies_count_among_the_signalled(init: RemoteProcess) -> None:
    """They are children until they are reaped, and stay what they are (kern_fork.c: reaper_kill)."""
    reaper = make_reaper(init)
    zombie, child = reaper.fork(), hearing(reaper.fork())
    zombie.exit(5)
    assert reaper.procctl_reap_kill(SIGUSR1) == ReapKill(2, 0)
    expect_signals(child, SIGUSR1)
    assert reaper.wait4(zombie.pid).exit_status == 5


@pytest.mark.passes("prele")
@pytest.mark.feature("reap_kill")
def test_a_reaper_without_descendants_reaches_nobody(init: RemoteProcess) -> None:
    """Which is no error (kern_fork.c: reaper_kill)."""
    assert make_reaper(init).procctl_reap_kill(SIGKILL) == ReapKill(0, 0)


@pytest.mark.passes("prele", "proc_move_allproc_zombie")
@pytest.mark.feature("reap_kill")
def test_a_whole_family_can_be_killed(init: RemoteProcess) -> None:
    """Children of the dead fall to the reaper, which reaps them all (kern_fork.c: reaper_kill)."""
    reaper = make_reaper(init)
    child = reaper.fork()
    family = [child, reaper.fork(), child.fork(), child.fork()]
    family.append(family[2].fork())
    assert reaper.procctl_reap_kill(SIGKILL).killed >= len(family)  # who changes parents meanwhile is told twice
    ends = {result.pid: result.signal for result in (reaper.wait4() for _ in family)}
    assert ends == {process.pid: SIGKILL for process in family}
    with fails("ECHILD"):
        reaper.wait4()


@pytest.mark.passes("prele")
@pytest.mark.feature("reap_kill")
def test_a_whole_family_can_be_stopped(init: RemoteProcess) -> None:
    """Any signal will do (kern_fork.c: reaper_kill)."""
    reaper = make_reaper(init)
    child = reaper.fork()
    grandchild = child.fork()
    assert reaper.procctl_reap_kill(SIGSTOP) == ReapKill(2, 0)
    for process in (child, grandchild):
        await_stopped(init, process)
    assert reaper.getpid() == reaper.pid


@pytest.mark.passes("prele")
@pytest.mark.feature("reap_kill")
def test_only_a_reaper_can_signal_its_family(init: RemoteProcess) -> None:
    """ENOTCONN for anybody else, even with children, and when the office is given back (kern_fork.c: sys_procctl)."""
    process = init.fork()
    child = hearing(process.fork())
    for _ in range(2):
        with fails(ENOTCONN):
            process.procctl_reap_kill(SIGUSR1)
        process.procctl_reaper_acquire()
        process.procctl_reaper_release()
    assert logged(child) == []


@pytest.mark.passes("prele")
@pytest.mark.feature("reap_kill")
@pytest.mark.parametrize("number", [-1, 0, 128, 2**31 - 1])
def test_a_family_hears_nothing_but_signals(init: RemoteProcess, number: int) -> None:
    """EINVAL for 0, too: it asks nothing (kern_fork.c: reaper_kill, _SIG_VALID)."""
    reaper = make_reaper(init)
    child = hearing(reaper.fork())
    with fails(EINVAL):
        reaper.procctl(IdType.P_PID, reaper.pid, COMMAND, struct.pack("<IiIi", 0, number, 0, 0))
    assert logged(child) == []


@pytest.mark.passes("prele")
@pytest.mark.feature("reap_kill")
def test_the_signal_must_be_given(init: RemoteProcess) -> None:
    """No structure is EINVAL, reaper or not (kern_fork.c: sys_procctl)."""
    for process in (init, make_reaper(init)):
        with fails(EINVAL):
            process.procctl(IdType.P_PID, process.pid, COMMAND)


@pytest.mark.needs_kernel
@pytest.mark.passes("prele")
@pytest.mark.feature("reap_kill")
def test_the_signal_must_be_readable(init: RemoteProcess) -> None:
    """EFAULT otherwise, before anything else is asked (kern_fork.c: sys_procctl)."""
    with fails(EFAULT):
        init.syscall("procctl", 0, init.pid, COMMAND, 0x1000)


@pytest.mark.passes("prele")
@pytest.mark.feature("!reap_kill")
def test_reapers_cannot_signal_their_family_yet(init: RemoteProcess) -> None:
    """The command is unknown (kern_fork.c: sys_procctl)."""
    reaper = make_reaper(init)
    child = hearing(reaper.fork())
    with fails(EINVAL):
        reaper.procctl_reap_kill(SIGUSR1)
    assert logged(child) == []

# SPDX-License-Identifier: BSD-2-Clause
"""A signal at the parent's death, asked for by procctl(PROC_PDEATHSIG_CTL) (kern_fork.c: sys_procctl(); exit1())."""

from __future__ import annotations

import struct
from collections.abc import Callable
from errno import EFAULT, EINVAL
from signal import SIGKILL, SIGUSR1, SIGUSR2

import pytest

from harness.processes import IdType, RemoteProcess, fails
from support.processes import bury, expect_signals, hearing, logged, signal_number

CONTROL, STATUS = 4, 5  # sys/procctl.h: PROC_PDEATHSIG_CTL, PROC_PDEATHSIG_STATUS
NOWHERE = 0x1000


def by_exit(parent: RemoteProcess, _: RemoteProcess) -> None:
    """Let PARENT exit."""
    parent.exit()


def by_a_signal(parent: RemoteProcess, killer: RemoteProcess) -> None:
    """Let PARENT be killed."""
    killer.kill(parent.pid, SIGKILL)


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("pdeathsig")
def test_nobody_has_a_death_signal_until_it_is_asked_for(init: RemoteProcess) -> None:
    """The status is 0, the number of no signal (kern_fork.c: PROC_PDEATHSIG_STATUS)."""
    assert init.fork().procctl_pdeathsig_status() == 0


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("pdeathsig")
def test_the_death_signal_is_the_one_asked_for_last(init: RemoteProcess) -> None:
    """0 takes it back (kern_fork.c: PROC_PDEATHSIG_CTL)."""
    child = init.fork()
    for signal in (SIGUSR1, SIGKILL, 0, SIGUSR2):
        child.procctl_pdeathsig(signal)
        assert child.procctl_pdeathsig_status() == signal_number(init, signal)


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("pdeathsig")
def test_the_highest_signal_can_be_a_death_signal(init: RemoteProcess) -> None:
    """It is 127 (kern_fork.c: PROC_PDEATHSIG_CTL; sys/signal.h)."""
    child = init.fork()
    child.procctl(IdType.P_PID, child.pid, CONTROL, struct.pack("<i", 127))
    assert child.procctl_pdeathsig_status() == 127


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("pdeathsig")
def test_a_child_has_no_death_signal_from_its_parent(init: RemoteProcess) -> None:
    """And asking for one leaves the parent's alone (kern_fork.c: fork1)."""
    parent = init.fork()
    parent.procctl_pdeathsig(SIGUSR1)
    child = parent.fork()
    assert child.procctl_pdeathsig_status() == 0
    child.procctl_pdeathsig(SIGUSR2)
    assert parent.procctl_pdeathsig_status() == signal_number(init, SIGUSR1)


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("pdeathsig")
def test_a_death_signal_outlives_the_program(init: RemoteProcess) -> None:
    """As long as the new program is not set-user-id (kern_exec.c: kern_execve)."""
    child = init.fork()
    child.procctl_pdeathsig(SIGUSR1)
    child.reexec()
    assert child.procctl_pdeathsig_status() == signal_number(init, SIGUSR1)


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.feature("pdeathsig")
@pytest.mark.parametrize("die", [by_exit, by_a_signal])
def test_the_signal_comes_when_the_parent_dies(
    init: RemoteProcess, die: Callable[[RemoteProcess, RemoteProcess], None]
) -> None:
    """Once, and to those children alone that asked for it (kern_exit.c: exit1, p_deathsig)."""
    parent = init.fork()
    asking, other = hearing(parent.fork()), hearing(parent.fork())
    asking.procctl_pdeathsig(SIGUSR1)
    die(parent, init)
    assert init.wait4(parent.pid).pid == parent.pid
    expect_signals(asking, SIGUSR1)
    assert logged(other) == []


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.feature("pdeathsig")
def test_nothing_comes_after_the_wish_was_taken_back(init: RemoteProcess) -> None:
    """The signal asked for counts when the parent dies (kern_exit.c: exit1, p_deathsig)."""
    parent = init.fork()
    child = hearing(parent.fork())
    child.procctl_pdeathsig(SIGUSR1)
    child.procctl_pdeathsig(0)
    bury(init, parent)
    assert child.getpid() == child.pid
    assert logged(child) == []


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.feature("pdeathsig")
def test_the_death_of_a_grandparent_is_no_reason(init: RemoteProcess) -> None:
    """Nor that of a sibling or a child (kern_exit.c: exit1 visits its own children)."""
    grandparent = init.fork()
    parent = grandparent.fork()
    process = hearing(parent.fork())
    process.procctl_pdeathsig(SIGUSR1)
    bury(parent, parent.fork())
    bury(process, process.fork())
    bury(init, grandparent)
    assert process.getpid() == process.pid
    assert logged(process) == []


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.feature("pdeathsig")
def test_each_new_parents_death_is_told(init: RemoteProcess) -> None:
    """Who inherits an orphan is its parent, and the wish stays (kern_exit.c: exit1, proc_reparent)."""
    reaper = init.fork()
    reaper.procctl_reaper_acquire()
    parent = reaper.fork()
    process = hearing(parent.fork())
    process.procctl_pdeathsig(SIGUSR1)
    bury(reaper, parent)
    expect_signals(process, SIGUSR1)
    assert (process.getppid(), process.procctl_pdeathsig_status()) == (reaper.pid, signal_number(init, SIGUSR1))
    bury(init, reaper)
    expect_signals(process, SIGUSR1)


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.feature("pdeathsig")
def test_a_death_signal_may_be_deadly(init: RemoteProcess) -> None:
    """The child dies of it, and whoever inherited the child reaps it (kern_exit.c: exit1)."""
    init.procctl_reaper_acquire()
    parent = init.fork()
    child = parent.fork()
    child.procctl_pdeathsig(SIGKILL)
    parent.exit()
    assert init.wait4(parent.pid).exit_status == 0
    assert init.wait4(child.pid).signal == SIGKILL


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.feature("pdeathsig")
def test_a_zombie_needs_no_death_signal(init: RemoteProcess) -> None:
    """It is inherited and reaped as ever (kern_exit.c: exit1)."""
    init.procctl_reaper_acquire()
    parent = init.fork()
    zombie = parent.fork()
    zombie.procctl_pdeathsig(SIGUSR1)
    zombie.exit(7)
    bury(init, parent)
    assert init.wait4(zombie.pid).exit_status == 7


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("pdeathsig")
@pytest.mark.parametrize("command", [CONTROL, STATUS])
def test_the_commands_need_a_place_for_the_number(init: RemoteProcess, command: int) -> None:
    """None is EINVAL (kern_fork.c: sys_procctl)."""
    with fails(EINVAL):
        init.procctl(IdType.P_PID, init.pid, command)


@pytest.mark.needs_kernel
@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("pdeathsig")
@pytest.mark.parametrize("command", [CONTROL, STATUS])
def test_the_place_for_the_number_must_be_ones_own(init: RemoteProcess, command: int) -> None:
    """Memory that is not there is EFAULT (kern_fork.c: sys_procctl)."""
    with fails(EFAULT):
        init.syscall("procctl", 0, init.pid, command, NOWHERE)


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("!pdeathsig")
@pytest.mark.parametrize("command", [CONTROL, STATUS])
def test_there_are_no_death_signals_yet(init: RemoteProcess, command: int) -> None:
    """The commands are unknown (kern_fork.c: sys_procctl)."""
    with fails(EINVAL):
        init.procctl(IdType.P_PID, init.pid, command, bytes(4))


# ---- Whose ---------------------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("pdeathsig")
def test_id_0_is_the_caller(init: RemoteProcess) -> None:
    """As its own pid is (kern_fork.c: sys_procctl)."""
    child = init.fork()
    child.procctl(IdType.P_PID, 0, CONTROL, struct.pack("<i", signal_number(init, SIGUSR1)))
    assert child.procctl(IdType.P_PID, 0, STATUS, bytes(4)) == struct.pack("<i", signal_number(init, SIGUSR1))
    assert init.procctl_pdeathsig_status() == 0


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("!pdeathsig")
def test_id_0_is_nobody(init: RemoteProcess) -> None:
    """The caller has to name itself (kern_fork.c: sys_procctl)."""
    with fails(EINVAL):
        init.procctl(IdType.P_PID, 0, 3, bytes(256))  # PROC_REAP_STATUS
    init.procctl(IdType.P_PID, init.pid, 3, bytes(256))


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("pdeathsig")
def test_nobody_asks_on_anothers_behalf(init: RemoteProcess) -> None:
    """Not even for a child, a parent or a group (kern_fork.c: sys_procctl)."""
    child = init.fork()
    for idtype, id_ in ((IdType.P_PID, child.pid), (IdType.P_PID, 1), (IdType.P_PGID, init.pid), (IdType.P_ALL, 0)):
        with fails(EINVAL):
            init.procctl(idtype, id_, CONTROL, struct.pack("<i", 1))
    assert child.procctl_pdeathsig_status() == 0

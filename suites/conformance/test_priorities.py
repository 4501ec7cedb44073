# SPDX-License-Identifier: BSD-2-Clause
"""Priorities of processes, groups and users, for which all processes are visited (kern_resource.c, allproc_scan())."""

from __future__ import annotations

from errno import EACCES, EINVAL, EPERM, ESRCH
from signal import SIGSTOP

import pytest

from harness.processes import RemoteProcess, fails
from support.processes import NO_SUCH_ID, SOMEBODY, SOMEBODY_ELSE, bury, row, stop

PROCESS, GROUP, USER = 0, 1, 2  # sys/resource.h


def nice(init: RemoteProcess, *processes: RemoteProcess) -> list[int]:
    """Return the nice values of PROCESSES, as their rows show them."""
    return [row(init, process.pid).nice for process in processes]


def user_with_children(init: RemoteProcess, user: int) -> tuple[RemoteProcess, RemoteProcess, RemoteProcess]:
    """Return a process that acts as USER, and two children of that kind."""
    parent = init.fork()
    parent.setresuid(0, user, 0)
    return parent, parent.fork(), parent.fork()


@pytest.mark.kern_proc("allproc_scan")
def test_a_users_priority_is_that_of_all_his_processes_that_live(init: RemoteProcess) -> None:
    """Stopped ones as well, zombies not (kern_proc.c: allproc_scan; kern_resource.c: setpriority_callback)."""
    parent, stopped, zombie = user_with_children(init, SOMEBODY)
    stop(init, stopped, SIGSTOP)
    zombie.exit()
    init.syscall("setpriority", USER, SOMEBODY, 7)
    assert nice(init, parent, stopped, zombie, init) == [7, 7, 0, 0]


@pytest.mark.kern_proc("allproc_scan")
def test_the_best_of_a_users_priorities_is_returned(init: RemoteProcess) -> None:
    """Which is the lowest number; ESRCH for a user of no processes (getpriority(2))."""
    parent, one, two = user_with_children(init, SOMEBODY)
    for value, process in ((5, parent), (3, one), (9, two)):
        init.syscall("setpriority", PROCESS, process.pid, value)
    assert init.syscall("getpriority", USER, SOMEBODY).value == 3
    assert parent.syscall("getpriority", USER, 0).value == 3
    one.exit()
    assert init.syscall("getpriority", USER, SOMEBODY).value == 5
    with fails(ESRCH):
        init.syscall("getpriority", USER, NO_SUCH_ID)


@pytest.mark.passes("pgfind", "pfind")
def test_a_group_has_the_priority_of_its_members(init: RemoteProcess) -> None:
    """0 is the caller's (kern_resource.c: sys_setpriority)."""
    leader = init.fork()
    leader.setpgid(0, 0)
    member = leader.fork()
    init.syscall("setpriority", GROUP, leader.pid, 4)
    assert nice(init, leader, member, init) == [4, 4, 0]
    member.syscall("setpriority", PROCESS, 0, 30)
    assert nice(init, member) == [20]
    assert member.syscall("getpriority", GROUP, 0).value == 4
    for which in (PROCESS, GROUP):
        with fails(ESRCH):
            init.syscall("getpriority", which, NO_SUCH_ID)
    with fails(EINVAL):
        init.syscall("getpriority", 3, 0)


@pytest.mark.passes("pfind")
def test_users_set_their_own_priorities_and_do_not_lower_them(init: RemoteProcess) -> None:
    """One of the two ids has to be the target's effective one (kern_resource.c: donice)."""
    user, mine, other = init.fork(), init.fork(), init.fork()
    mine.setresuid(0, SOMEBODY, 0)
    other.setresuid(SOMEBODY, SOMEBODY_ELSE, SOMEBODY)
    user.setuid(SOMEBODY)
    user.syscall("setpriority", PROCESS, mine.pid, 2)
    with fails(EACCES):
        user.syscall("setpriority", PROCESS, mine.pid, 1)
    with fails(EPERM):
        user.syscall("setpriority", PROCESS, other.pid, 2)
    assert nice(init, mine, other) == [2, 0]
    init.syscall("setpriority", PROCESS, mine.pid, -3)
    assert nice(init, mine) == [-3]
    bury(init, user)

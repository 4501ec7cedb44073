# SPDX-License-Identifier: BSD-2-Clause
"""kern.proc.{pgrp,tty,uid,ruid}: each lists those who fit and nobody else (kern_proc.c: sysctl_kern_proc())."""

from __future__ import annotations

import os

import pytest

from harness.processes import Process, RemoteProcess
from harness.processes.allocator import PidAllocator
from support.children import allow_many
from support.filters import FILTERS, all_processes, one_of_each
from support.processes import NO_SUCH_ID, SOMEBODY, SOMEBODY_ELSE, stop
from support.sysctl import steady

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
@pytest.mark.parametrize("by", FILTERS)
def test_a_filter_lists_what_the_whole_table_shows_to_fit(init: Process, by: str, lwp: bool) -> None:
    """By group, effective and real user, the stopped and zombies included (kern_proc.c: sysctl_kern_proc)."""
    query, key = FILTERS[by]
    family = {child.pid for child in one_of_each(init)}
    table, listed = steady(
        lambda: {row.pid: key(row) for row in all_processes(init)},
        lambda table: {value: sorted(query(init, value, lwp).pids) for value in {table[pid] for pid in family}},
    )
    assert len(listed) > 1
    for value, pids in listed.items():
        assert pids == sorted(pid for pid, own in table.items() if own == value)


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("by", ["uid", "ruid"])
def test_large_user_ids_are_told_apart(init: Process, by: str) -> None:
    """All 32 bits count (kern_proc.c: sysctl_kern_proc)."""
    one, other = init.fork(), init.fork()
    one.setuid(SOMEBODY)
    other.setuid(SOMEBODY + (1 << 16))
    query, _ = FILTERS[by]
    for user, listed, missing in ((SOMEBODY, one, other), (SOMEBODY + (1 << 16), other, one)):
        pids = query(init, user, False).pids
        assert (listed.pid in pids, missing.pid in pids) == (True, False)


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_the_users_of_the_filters_are_the_effective_and_the_real_one(init: Process, lwp: bool) -> None:
    """And not the saved one (kern_proc.c: KERN_PROC_UID, KERN_PROC_RUID)."""
    child, other = init.fork(), init.fork()
    child.setresuid(SOMEBODY, SOMEBODY_ELSE, 0)
    other.setresuid(0, 0, SOMEBODY)
    assert init.sysctl.kern_proc_ruid(SOMEBODY, lwp=lwp).pids == [child.pid]
    assert init.sysctl.kern_proc_uid(SOMEBODY_ELSE, lwp=lwp).pids == [child.pid]
    assert init.sysctl.kern_proc_uid(SOMEBODY, lwp=lwp).pids == []
    assert init.sysctl.kern_proc_ruid(SOMEBODY_ELSE, lwp=lwp).pids == []


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_the_group_filter_takes_groups_and_not_pids(init: Process, lwp: bool) -> None:
    """A member's pid that is no group's number lists nothing (kern_proc.c: KERN_PROC_PGRP)."""
    member = init.fork()
    assert init.sysctl.kern_proc_pgrp(member.pid, lwp=lwp).pids == []
    assert sorted(init.sysctl.kern_proc_pgrp(init.pid, lwp=lwp).pids) == sorted([init.pid, member.pid])


@needs_kernel
@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_the_terminal_filter_lists_whose_controlling_terminal_it_is(init: RemoteProcess, lwp: bool) -> None:
    """The session's processes, but not one that gave it up, left or has another (kern_proc.c: KERN_PROC_TTY)."""
    _, slave, _ = init.openpty()
    init.set_controlling_tty(slave)
    child, stopped, zombie, without, departed = (init.fork() for _ in range(5))
    stop(init, stopped)
    zombie.exit()
    without.drop_controlling_tty(without.open("/dev/tty", os.O_RDWR))
    departed.setsid()
    another = init.fork()
    another.setsid()
    _, other_slave, _ = another.openpty()
    another.set_controlling_tty(other_slave)
    (row,) = init.sysctl.kern_proc_pid(child.pid)
    (other_row,) = init.sysctl.kern_proc_pid(another.pid)
    assert row.tdev is not None
    assert other_row.tdev is not None
    assert row.tdev != other_row.tdev
    members = init.sysctl.kern_proc_tty(row.tdev, lwp=lwp).pids
    assert sorted(members) == sorted([init.pid, child.pid, stopped.pid, zombie.pid])
    assert init.sysctl.kern_proc_tty(other_row.tdev, lwp=lwp).pids == [another.pid]


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_processes_without_a_terminal_are_listed_by_no_terminal(init: RemoteProcess, lwp: bool) -> None:
    """Not even by the number that stands for none (kern_proc.c: KERN_PROC_TTY)."""
    for device in (-1, 0):
        assert list(init.sysctl.kern_proc_tty(device, lwp=lwp)) == []


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("by", FILTERS)
@pytest.mark.parametrize("value", [NO_SUCH_ID, -1])
def test_a_filter_that_fits_nobody_lists_nothing(init: Process, by: str, value: int) -> None:
    """It is no error (kern_proc.c: sysctl_kern_proc)."""
    assert list(FILTERS[by][0](init, value, False)) == []
    assert list(FILTERS[by][0](init, value, True)) == []


@kern_proc("sysctl_kern_proc")
def test_processes_of_every_hash_chain_are_listed(init: RemoteProcess, allocator: PidAllocator) -> None:
    """By the whole table and by each filter (kern_proc.c: ALLPROC_HSIZE)."""
    allow_many(init)
    living = set(allocator.one_in_each_chain(init))
    for table in (
        init.sysctl.kern_proc_all(),
        init.sysctl.kern_proc_all(lwp=True),
        init.sysctl.kern_proc_pgrp(init.pid),
        init.sysctl.kern_proc_uid(0),
        init.sysctl.kern_proc_ruid(0, lwp=True),
    ):
        assert living <= set(table.pids)


@needs_kernel
@kern_proc("sysctl_kern_proc")
@pytest.mark.passes("pfind")
@pytest.mark.parametrize("lwp", [False, True])
def test_processes_are_listed_in_every_state(init: RemoteProcess, lwp: bool) -> None:
    """Stopped, traced, vforked, waiting for such a child, dead: all but the unborn (kern_proc.c: sysctl_kern_proc)."""
    stopped, traced, waiting, dead = (init.fork() for _ in range(4))
    stop(init, stopped)
    traced.ptrace("PT_TRACE_ME", 0)
    stop(init, traced)
    vforked = waiting.vfork()
    dead.exit()
    expected = sorted(process.pid for process in (init, stopped, traced, waiting, vforked, dead))
    assert sorted(init.sysctl.kern_proc_pgrp(init.pid, lwp=lwp).pids) == expected
    for table in (init.sysctl.kern_proc_all(lwp=lwp), init.sysctl.kern_proc_uid(0, lwp=lwp)):
        assert set(expected) <= set(table.pids)
    for process in (stopped, traced, waiting, vforked):
        assert [row.pid for row in init.sysctl.kern_proc_pid(process.pid, lwp=lwp)] == [process.pid]

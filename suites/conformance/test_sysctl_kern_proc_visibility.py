# SPDX-License-Identifier: BSD-2-Clause
"""Who sees whom in kern.proc: security.ps_showallprocs, jails aside (kern_proc.c: sysctl_kern_proc())."""

from __future__ import annotations

from errno import EPERM

import pytest

from harness.processes import RemoteProcess, fails
from support.filters import FILTERS, all_processes, one_of_each
from support.kernel_threads import whole_table
from support.processes import SOMEBODY, SOMEBODY_ELSE, holds
from support.sysctl import setting

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


@pytest.mark.passes("proc_makepid")
@pytest.mark.parametrize("name", ["security.ps_showallprocs", "security.ps_showallthreads"])
def test_by_default_everything_is_shown_and_only_root_can_change_that(init: RemoteProcess, name: str) -> None:
    """Both switches are on and need privilege to be set (kern_proc.c: SYSCTL_INT)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    assert user.sysctl.get_int(name) == 1
    with fails(EPERM):
        user.sysctl.set_int(name, 0)
    assert init.sysctl.get_int(name) == 1


@kern_proc("sysctl_kern_proc")
def test_any_user_sees_all_processes(init: RemoteProcess) -> None:
    """Unless the administrator decided otherwise (kern_proc.c: ps_showallprocs)."""
    family = one_of_each(init)
    user = init.fork()
    user.setuid(SOMEBODY)
    assert {child.pid for child in family} | {init.pid, 1} <= set(user.sysctl.kern_proc_all().pids)
    assert whole_table(user).kernel_threads


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
@pytest.mark.parametrize("by", ["all", *FILTERS])
def test_processes_of_others_can_be_hidden(init: RemoteProcess, by: str, lwp: bool) -> None:
    """With ps_showallprocs=0 a user sees those with which a real or effective user is shared (p_trespass)."""
    family = {child.pid for child in one_of_each(init)}
    user = init.fork()
    user.setuid(SOMEBODY)
    visible = {row.pid for row in all_processes(init) if SOMEBODY in (row.uid, row.ruid)}
    assert family - visible
    with setting(init, "security.ps_showallprocs", 0):
        if by == "all":
            assert set(user.sysctl.kern_proc_all(lwp=lwp).pids) == visible
            assert family <= set(init.sysctl.kern_proc_all(lwp=lwp).pids)
        else:
            query, key = FILTERS[by]
            table = {row.pid: key(row) for row in init.sysctl.kern_proc_all() if row.pid in visible}
            for value in {init.pid, 0, SOMEBODY, SOMEBODY_ELSE}:
                expected = {pid for pid, own in table.items() if own == value}
                assert set(query(user, value, lwp).pids) == expected


@kern_proc("sysctl_kern_proc")
def test_kernel_threads_are_shown_while_processes_of_others_are_hidden(init: RemoteProcess) -> None:
    """The two switches are independent (kern_proc.c: ps_showallprocs, ps_showallthreads)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    with setting(init, "security.ps_showallprocs", 0):
        table = whole_table(user)
    assert table.pids == [user.pid]
    assert table.kernel_threads


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_a_hidden_process_is_still_found_by_its_pid(init: RemoteProcess, lwp: bool) -> None:
    """The switch is about lists (kern_proc.c: sysctl_kern_proc)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    with setting(init, "security.ps_showallprocs", 0):
        assert [row.pid for row in user.sysctl.kern_proc_pid(init.pid, lwp=lwp)] == [init.pid]


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_a_jailed_process_sees_its_jail_alone(init: RemoteProcess, lwp: bool) -> None:
    """In the table, by group and by user (kern_proc.c: PRISON_CHECK)."""
    one_of_each(init)
    jailed = init.fork()
    jailed.jail("/")
    inmate, zombie = jailed.fork(), jailed.fork()
    zombie.exit()
    inside = sorted([jailed.pid, inmate.pid, zombie.pid])
    assert sorted(jailed.sysctl.kern_proc_all(lwp=lwp).pids) == inside
    for query, value in [(FILTERS["pgrp"][0], init.pid), (FILTERS["uid"][0], 0), (FILTERS["ruid"][0], 0)]:
        assert sorted(query(jailed, value, lwp).pids) == inside


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_a_jailed_process_finds_nobody_outside_by_pid(init: RemoteProcess, lwp: bool) -> None:
    """As if they did not exist, and nothing holds on to them afterwards (kern_proc.c: PRISON_CHECK)."""
    jailed, other = init.fork(), init.fork()
    jailed.jail("/")
    other.jail("/")
    inmate = jailed.fork()
    before = holds(init, other)
    assert [row.pid for row in jailed.sysctl.kern_proc_pid(inmate.pid, lwp=lwp)] == [inmate.pid]
    for pid in (other.pid, 1, init.pid):
        assert jailed.sysctl.kern_proc_pid(pid, lwp=lwp) == []
    assert holds(init, other) == before


@kern_proc("sysctl_kern_proc")
def test_jailed_processes_are_seen_from_outside_with_the_number_of_their_jail(init: RemoteProcess) -> None:
    """A process that is not jailed sees all jails (sys/proc.h: PRISON_CHECK)."""
    jailed = init.fork()
    jid = jailed.jail("/")
    assert jid > 0
    assert init.sysctl.kern_proc_pid(jailed.pid)[0].jailid == jid
    assert init.sysctl.kern_proc_all()[jailed.pid].jailid == jid
    assert init.sysctl.kern_proc_pid(init.pid)[0].jailid == 0

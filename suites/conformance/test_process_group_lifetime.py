# SPDX-License-Identifier: BSD-2-Clause
"""How long a process group lives, and who is in it (kern_proc.c: leavepgrp(), pgrel())."""

from __future__ import annotations

from collections.abc import Callable
from errno import EPERM, ESRCH
from signal import SIGKILL, SIGUSR1

import pytest

from harness.processes import WNOHANG, Handler, Process, ProcStat, fails
from harness.processes.allocator import random_pids
from support.processes import NO_SUCH_ID, SOMEBODY, bury, chain_mates, exists, group_exists, logged

# ---- How long a group lives ---------------------------------------------------------------------------------------


@pytest.mark.kern_proc("pgrel")
@pytest.mark.passes("leavepgrp")
def test_a_group_outlives_the_process_it_is_named_after(init: Process) -> None:
    """A group lives as long as it has members (kern_proc.c: pgrel)."""
    leader, member = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    bury(init, leader)
    member.sigaction(SIGUSR1, Handler.LOG)
    init.killpg(leader.pid, SIGUSR1)
    assert (member.getpgrp(), logged(member)) == (leader.pid, [SIGUSR1])


@pytest.mark.kern_proc("pgrel")
@pytest.mark.passes("enterpgrp")
def test_a_group_without_its_leader_takes_new_members(init: Process) -> None:
    """The leader's death closes no doors (kern_prot.c: sys_setpgid)."""
    leader, member, late = init.fork(), init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    bury(init, leader)
    late.setpgid(0, leader.pid)
    bury(init, member)
    assert init.sysctl.kern_proc_pgrp(leader.pid).pids == [late.pid]


@pytest.mark.kern_proc("leavepgrp")
@pytest.mark.passes("pgrel", "proc_move_allproc_zombie")
def test_a_zombie_keeps_its_group_until_it_is_reaped(init: Process) -> None:
    """Only wait() takes a process out of its group (kern_exit.c: kern_wait; kern_proc.c: leavepgrp)."""
    zombie = init.fork()
    zombie.setpgid(0, 0)
    zombie.exit()
    assert group_exists(init, zombie.pid)
    init.wait4(zombie.pid)
    assert not group_exists(init, zombie.pid)


def _by_moving_away(init: Process, member: Process) -> None:
    member.setpgid(0, init.pid)


def _by_a_session_of_its_own(init: Process, member: Process) -> None:
    member.setsid()


def _by_being_reaped(init: Process, member: Process) -> None:
    bury(init, member)


def _by_being_killed(init: Process, member: Process) -> None:
    init.kill(member.pid, SIGKILL)
    init.wait4(member.pid)


LAST_GOODBYES = (_by_moving_away, _by_a_session_of_its_own, _by_being_reaped, _by_being_killed)


@pytest.mark.kern_proc("pgrel")
@pytest.mark.passes("leavepgrp", "enterpgrp")
@pytest.mark.parametrize("leave", LAST_GOODBYES, ids=lambda leave: leave.__name__.lstrip("_"))
def test_a_group_ends_when_its_last_member_leaves(init: Process, leave: Callable[[Process, Process], None]) -> None:
    """After the last one there is nothing to signal and nothing to join (kern_proc.c: pgrel)."""
    leader, member = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    bury(init, leader)
    assert group_exists(init, leader.pid)
    leave(init, member)
    with fails(ESRCH):
        init.killpg(leader.pid, 0)
    assert not group_exists(init, leader.pid)


def _nothing(init: Process, leader: Process) -> None:
    pass


def _it_was_signalled(init: Process, leader: Process) -> None:
    init.killpg(leader.pid, 0)


def _its_member_signalled_it(init: Process, leader: Process) -> None:
    leader.kill(0, 0)


def _it_was_signalled_by_somebody_without_permission(init: Process, leader: Process) -> None:
    stranger = init.fork()
    stranger.setuid(SOMEBODY)
    with fails(ESRCH):
        stranger.killpg(leader.pid, SIGUSR1)
    bury(init, stranger)


def _its_leader_was_moved_to_where_it_was(init: Process, leader: Process) -> None:
    leader.setpgid(0, leader.pid)
    init.setpgid(leader.pid, leader.pid)


def _a_member_joined_and_moved_on(init: Process, leader: Process) -> None:
    member = init.fork()
    member.setpgid(0, leader.pid)
    member.setpgid(0, init.pid)
    bury(init, member)


def _a_member_joined_and_founded_its_own(init: Process, leader: Process) -> None:
    member = init.fork()
    member.setpgid(0, leader.pid)
    member.setpgid(0, 0)
    bury(init, member)


def _a_member_joined_and_was_reaped(init: Process, leader: Process) -> None:
    member = init.fork()
    member.setpgid(0, leader.pid)
    bury(init, member)


def _a_member_was_born_in_it(init: Process, leader: Process) -> None:
    bury(leader, leader.fork())


def _a_member_left_it_for_a_session(init: Process, leader: Process) -> None:
    member = leader.fork()
    member.setsid()
    bury(leader, member)


def _somebody_of_another_session_was_refused(init: Process, leader: Process) -> None:
    stranger = init.fork()
    stranger.setsid()
    visitor = stranger.fork()
    with fails(EPERM):
        visitor.setpgid(0, leader.pid)
    bury(stranger, visitor)
    bury(init, stranger)


def _its_leader_was_refused_a_session(init: Process, leader: Process) -> None:
    with fails(EPERM):
        leader.setsid()


def _a_process_was_refused_a_session_while_it_bore_its_name(init: Process, leader: Process) -> None:
    keeper = init.fork()
    keeper.setpgid(0, leader.pid)
    leader.setpgid(0, init.pid)
    with fails(EPERM):
        leader.setsid()
    leader.setpgid(0, 0)
    bury(init, keeper)


def _the_parent_of_a_member_moved_about(init: Process, leader: Process) -> None:
    parent = init.fork()
    member = parent.fork()
    member.setpgid(0, leader.pid)
    parent.setpgid(0, 0)
    parent.setpgid(0, init.pid)
    bury(parent, member)
    bury(init, parent)


def _the_parent_of_a_member_joined_and_left(init: Process, leader: Process) -> None:
    parent = init.fork()
    member = parent.fork()
    member.setpgid(0, leader.pid)
    parent.setpgid(0, leader.pid)
    parent.setpgid(0, init.pid)
    bury(parent, member)
    bury(init, parent)


def _it_was_waited_for(init: Process, leader: Process) -> None:
    assert init.wait4(-leader.pid, WNOHANG).pid == 0


def _it_was_listed(init: Process, leader: Process) -> None:
    assert init.sysctl.kern_proc_pgrp(leader.pid).pids == [leader.pid]


@pytest.mark.kern_proc("pgref", "pgrel", "pgfind")
@pytest.mark.passes("enterpgrp", "leavepgrp", "fixjobc")
@pytest.mark.parametrize(
    "happening",
    [
        pytest.param(happening, id=happening.__name__.lstrip("_"))
        for happening in (
            _nothing,
            _it_was_signalled,
            _its_member_signalled_it,
            _it_was_signalled_by_somebody_without_permission,
            _its_leader_was_moved_to_where_it_was,
            _a_member_joined_and_moved_on,
            _a_member_joined_and_founded_its_own,
            _a_member_joined_and_was_reaped,
            _a_member_was_born_in_it,
            _a_member_left_it_for_a_session,
            _somebody_of_another_session_was_refused,
            _its_leader_was_refused_a_session,
            _a_process_was_refused_a_session_while_it_bore_its_name,
            _the_parent_of_a_member_moved_about,
            _the_parent_of_a_member_joined_and_left,
            _it_was_waited_for,
            _it_was_listed,
        )
    ],
)
def test_a_group_lives_exactly_as_long_as_its_members(
    init: Process, happening: Callable[[Process, Process], None]
) -> None:
    """Whatever happened to a group, no reference to it is lost or left over (kern_proc.c: pgref, pgrel, pgfind)."""
    leader = init.fork()
    leader.setpgid(0, 0)
    for _ in range(3):  # one reference too few frees the group while it is used, which shows at the latest next time
        happening(init, leader)
    leader.sigaction(SIGUSR1, Handler.LOG)
    init.killpg(leader.pid, SIGUSR1)
    assert logged(leader) == [SIGUSR1]
    assert group_exists(init, leader.pid)
    leader.setpgid(0, init.pid)
    assert not group_exists(init, leader.pid)
    assert leader.setsid() == leader.pid


# ---- Membership as the process table shows it ---------------------------------------------------------------------


@pytest.mark.kern_proc("sysctl_kern_proc")
@pytest.mark.passes("enterpgrp")
def test_the_process_table_lists_exactly_the_members_of_a_group(init: Process) -> None:
    """kern.proc.pgrp agrees with each process's own view (kern_proc.c: sysctl_kern_proc, KERN_PROC_PGRP)."""
    processes = [init.fork() for _ in range(6)]
    for leader, member in zip(processes[0:2], processes[2:4], strict=True):
        leader.setpgid(0, 0)
        member.setpgid(0, leader.pid)
    processes[4].setsid()
    for pgid in [init.pid, *(process.pid for process in processes)]:
        expected = [process.pid for process in [init, *processes] if process.getpgrp() == pgid]
        assert sorted(init.sysctl.kern_proc_pgrp(pgid).pids) == sorted(expected)


@pytest.mark.passes("sysctl_kern_proc")
def test_each_row_names_the_group_of_its_process(init: Process) -> None:
    """kp_pgid is the group's id in every listing (kern_kinfo.c: fill_kinfo_proc)."""
    leader, member = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    table = init.sysctl.kern_proc_all()
    assert [table[process.pid].pgid for process in (init, leader, member)] == [init.pid, leader.pid, leader.pid]
    assert [row.pgid for row in init.sysctl.kern_proc_pgrp(leader.pid)] == [leader.pid] * 2
    assert init.sysctl.kern_proc_pid(member.pid)[0].pgid == leader.pid


@pytest.mark.kern_proc("sysctl_kern_proc")
@pytest.mark.passes("leavepgrp")
def test_a_zombie_is_listed_in_its_group_until_it_is_reaped(init: Process) -> None:
    """kern.proc.pgrp skips no zombies (kern_proc.c: sysctl_kern_proc)."""
    leader, zombie = init.fork(), init.fork()
    leader.setpgid(0, 0)
    zombie.setpgid(0, leader.pid)
    zombie.exit()
    members = init.sysctl.kern_proc_pgrp(leader.pid)
    assert (sorted(members.pids), members[zombie.pid].stat) == (sorted([leader.pid, zombie.pid]), ProcStat.SZOMB)
    init.wait4(zombie.pid)
    assert init.sysctl.kern_proc_pgrp(leader.pid).pids == [leader.pid]


@pytest.mark.kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("pgid", [NO_SUCH_ID, -1])
def test_a_group_nobody_is_in_is_empty(init: Process, pgid: int) -> None:
    """No error for an unknown group, just nothing (kern_proc.c: sysctl_kern_proc)."""
    assert init.sysctl.kern_proc_pgrp(pgid).pids == []


@pytest.mark.kern_proc("procinsertinit")
@pytest.mark.passes("sysctl_kern_proc")
def test_process_zero_is_in_group_and_session_zero(init: Process) -> None:
    """The kernel's own first process is in the tables like any other (init_main.c; kern_proc.c: procinsertinit)."""
    (swapper,) = init.sysctl.kern_proc_pid(0)
    assert (swapper.pid, swapper.pgid, swapper.sid) == (0, 0, 0)
    assert 0 in init.sysctl.kern_proc_pgrp(0)


@pytest.mark.passes("procinit", "pfind", "pgfind", "enterpgrp")
def test_processes_and_groups_are_found_whatever_their_number(init: Process) -> None:
    """Every chain of the hash tables works (kern_proc.c: ALLPROC_HASH, PGRP_HASH): pids spread over all bits."""
    with random_pids(init, 60_000):
        children = [init.fork() for _ in range(24)]
    for child in children:
        child.setpgid(0, 0)
    for child in children:
        assert init.getpgid(child.pid) == child.pid
        assert init.sysctl.kern_proc_pid(child.pid)[0].pid == child.pid
        init.killpg(child.pid, 0)
        init.kill(child.pid, 0)
    joiner = init.fork()
    for child in children:
        joiner.setpgid(0, child.pid)
    for child in children[:-1]:
        bury(init, child)
        assert not exists(init, child.pid)
        with fails(ESRCH):
            init.killpg(child.pid, 0)
    assert joiner.getpgrp() == children[-1].pid


@pytest.mark.kern_proc("pgfind", "pgrel")
@pytest.mark.passes("enterpgrp")
@pytest.mark.parametrize("first", ["older", "younger"])
def test_groups_of_one_hash_chain_do_not_get_into_each_others_way(init: Process, first: str) -> None:
    """Either may end first; the other is still found (kern_proc.c: pgfind, pgrel)."""
    older, younger = chain_mates(init, lambda child: child.setpgid(0, 0))
    for group in (older, younger):
        init.killpg(group.pid, 0)
    goes, stays = (older, younger) if first == "older" else (younger, older)
    goes.setpgid(0, init.pid)
    with fails(ESRCH):
        init.killpg(goes.pid, 0)
    assert not group_exists(init, goes.pid)
    init.killpg(stays.pid, 0)
    goes.setpgid(0, stays.pid)
    assert sorted(init.sysctl.kern_proc_pgrp(stays.pid).pids) == sorted([older.pid, younger.pid])

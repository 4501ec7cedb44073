# SPDX-License-Identifier: BSD-2-Clause
"""Sessions: who may make one, what it hands down, how long it lives, and its controlling terminal.

`init` leads a session of its own and has no terminal.  A terminal's master stays with `init`, so that the terminal
outlives the session that is given it.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EPERM, ESRCH
from signal import SIGKILL, SIGUSR1

import pytest

from harness.processes import Handler, Process, RemoteProcess, fails
from harness.processes.allocator import random_pids
from support.children import born
from support.processes import NO_SUCH_ID, SOMEBODY, bury, chain_mates, group_exists, logged, row

# ---- Making one ---------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("enterpgrp")
def test_setsid_makes_a_session_and_a_group_named_after_the_caller(init: Process) -> None:
    """And returns their id (kern_prot.c: sys_setsid; kern_proc.c: enterpgrp)."""
    child = init.fork()
    assert child.setsid() == child.pid
    assert (child.getsid(), child.getpgrp(), init.getsid(child.pid)) == (child.pid,) * 3


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.passes("sysctl_out_proc")
def test_the_caller_of_setsid_is_the_sessions_leader(init: Process) -> None:
    """KI_SLEADER marks it and nobody else (kern_proc.c: enterpgrp, s_leader)."""
    child = init.fork()
    assert not row(init, child.pid).is_session_leader
    child.setsid()
    member = child.fork()
    found = init.sysctl.kern_proc_pgrp(child.pid)
    assert (found[child.pid].sid, found[child.pid].pgid, found[member.pid].sid) == (child.pid,) * 3
    assert [found[process.pid].is_session_leader for process in (child, member)] == [True, False]
    assert row(init, init.pid).is_session_leader


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.passes("sysctl_kern_proc")
def test_setsid_takes_the_caller_out_of_its_old_group(init: Process) -> None:
    """killpg() and the process table agree (kern_proc.c: enterpgrp)."""
    child, sibling = init.fork(), init.fork()
    for process in (init, child, sibling):
        process.sigaction(SIGUSR1, Handler.LOG)
    child.setsid()
    init.killpg(init.pid, SIGUSR1)
    assert [logged(process) for process in (init, child, sibling)] == [[SIGUSR1], [], [SIGUSR1]]
    init.killpg(child.pid, SIGUSR1)
    assert [logged(process) for process in (init, child, sibling)] == [[], [SIGUSR1], []]
    assert sorted(init.sysctl.kern_proc_pgrp(init.pid).pids) == sorted([init.pid, sibling.pid])
    assert init.sysctl.kern_proc_pgrp(child.pid).pids == [child.pid]


@pytest.mark.kern_proc("pgrel")
@pytest.mark.passes("enterpgrp")
def test_setsid_ends_a_group_that_was_the_callers_alone(init: Process) -> None:
    """The group named after somebody else who left earlier (kern_proc.c: pgrel)."""
    leader, child = init.fork(), init.fork()
    leader.setpgid(0, 0)
    child.setpgid(0, leader.pid)
    leader.setpgid(0, init.pid)
    child.setsid()
    assert not group_exists(init, leader.pid)
    assert leader.setsid() == leader.pid


@pytest.mark.passes("enterpgrp")
def test_a_program_just_run_may_make_a_session(init: RemoteProcess) -> None:
    """Having run a program does not matter (kern_prot.c: sys_setsid)."""
    child = init.fork()
    child.reexec()
    assert child.setsid() == child.pid


def _of_a_session(init: Process) -> Process:
    child = init.fork()
    child.setsid()
    return child


def _of_a_group(init: Process) -> Process:
    child = init.fork()
    child.setpgid(0, 0)
    return child


def _of_a_group_made_by_its_parent(init: Process) -> Process:
    child = init.fork()
    init.setpgid(child.pid, child.pid)
    return child


def _of_a_group_with_others(init: Process) -> Process:
    child = init.fork()
    child.setpgid(0, 0)
    child.fork()
    return child


def _of_a_group_it_has_left_to_its_child(init: Process) -> Process:
    child = init.fork()
    child.setpgid(0, 0)
    child.fork()
    child.setpgid(0, init.pid)
    return child


def _of_a_group_it_has_left_to_a_zombie(init: Process) -> Process:
    child = init.fork()
    child.setpgid(0, 0)
    zombie = child.fork()
    child.setpgid(0, init.pid)
    zombie.exit()
    return child


@pytest.mark.passes("pgfind", "enterpgrp")
@pytest.mark.parametrize(
    "arrange",
    [
        pytest.param(arrange, id=f"the leader {arrange.__name__.lstrip('_').replace('_', ' ')}")
        for arrange in (
            _of_a_session,
            _of_a_group,
            _of_a_group_made_by_its_parent,
            _of_a_group_with_others,
            _of_a_group_it_has_left_to_its_child,
            _of_a_group_it_has_left_to_a_zombie,
        )
    ],
)
def test_setsid_is_refused_to_whoever_has_given_a_group_its_name(
    init: Process, arrange: Callable[[Process], Process]
) -> None:
    """EPERM: the new group's id would be taken, by a group that lives as long as a zombie in it.

    (kern_prot.c: sys_setsid)
    """
    process = arrange(init)
    before = (process.getpgrp(), process.getsid())
    with fails(EPERM):
        process.setsid()
    assert (process.getpgrp(), process.getsid()) == before


@pytest.mark.kern_proc("leavepgrp")
@pytest.mark.passes("pgrel", "enterpgrp")
def test_setsid_is_allowed_again_when_the_group_has_ended(init: Process) -> None:
    """As soon as its last zombie is reaped (kern_prot.c: sys_setsid; kern_proc.c: leavepgrp)."""
    process = _of_a_group_it_has_left_to_a_zombie(init)
    process.wait4()
    assert process.setsid() == process.pid


# ---- Asking -------------------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind")
def test_anybodys_session_can_be_asked_for(init: Process) -> None:
    """Across sessions and users; zero is oneself (kern_prot.c: sys_getsid)."""
    stranger = init.fork()
    stranger.setsid()
    stranger.setuid(SOMEBODY)
    assert (init.getsid(stranger.pid), stranger.getsid(init.pid)) == (stranger.pid, init.pid)
    assert stranger.getsid(0) == stranger.getsid(stranger.pid) == stranger.pid


@pytest.mark.passes("pfind")
@pytest.mark.parametrize("pid", [NO_SUCH_ID, -1])
def test_nobodys_session_cannot_be_asked_for(init: Process, pid: int) -> None:
    """ESRCH (kern_prot.c: sys_getsid)."""
    with fails(ESRCH):
        init.getsid(pid)


@pytest.mark.passes("pfind")
def test_a_reaped_process_has_no_session(init: Process) -> None:
    """ESRCH although its session may live on (kern_prot.c: sys_getsid)."""
    leader = init.fork()
    leader.setsid()
    member = leader.fork()
    bury(init, leader)
    with fails(ESRCH):
        init.getsid(leader.pid)
    assert init.getsid(member.pid) == leader.pid


# ---- Handing it down ----------------------------------------------------------------------------------------------


@pytest.mark.passes("sess_hold")
def test_children_are_born_into_their_parents_session(init: Process) -> None:
    """Whatever group they or their parents are in (kern_fork.c: fork1)."""
    leader = init.fork()
    leader.setsid()
    child = leader.fork()
    child.setpgid(0, 0)
    grandchild = child.fork()
    grandchild.setpgid(0, 0)
    great = grandchild.fork()
    assert {process.getsid() for process in (leader, child, grandchild, great)} == {leader.pid}
    table = init.sysctl.kern_proc_all()
    assert {table[process.pid].sid for process in (leader, child, grandchild, great)} == {leader.pid}


@pytest.mark.passes("proc_makepid")
def test_those_born_before_setsid_stay_in_the_old_session(init: Process) -> None:
    """setsid() takes nobody along (kern_prot.c: sys_setsid)."""
    parent = init.fork()
    early = parent.fork()
    parent.setsid()
    late = parent.fork()
    assert (early.getsid(), late.getsid()) == (init.pid, parent.pid)


@pytest.mark.passes("proc_makepid")
def test_a_vforked_child_is_in_its_parents_session(init: Process) -> None:
    """As any other child, and may leave it (kern_fork.c: fork1)."""
    parent = init.fork()
    child = parent.vfork()
    assert child.getsid() == init.pid
    assert child.setsid() == child.pid
    child.exit()
    assert parent.getsid() == init.pid


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.passes("sess_hold")
def test_new_groups_belong_to_their_makers_session(init: Process) -> None:
    """One session, many groups; other sessions cannot join them (kern_proc.c: enterpgrp)."""
    leader = init.fork()
    leader.setsid()
    member = leader.fork()
    member.setpgid(0, 0)
    assert (row(init, member.pid).pgid, row(init, member.pid).sid) == (member.pid, leader.pid)
    assert group_exists(leader, member.pid)
    assert not group_exists(init, member.pid)


# ---- How long it lives --------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("sess_rele")
@pytest.mark.passes("enterpgrp")
def test_a_session_outlives_its_leader(init: Process) -> None:
    """Its members stay in it and go on founding groups in it (kern_proc.c: sess_rele)."""
    leader = init.fork()
    leader.setsid()
    member, other = leader.fork(), leader.fork()
    bury(init, leader)
    member.setpgid(0, 0)
    other.setpgid(0, member.pid)
    assert (member.getsid(), other.getsid(), other.getpgrp()) == (leader.pid, leader.pid, member.pid)
    assert not row(init, member.pid).is_session_leader
    late = other.fork()
    assert (late.getsid(), late.getpgrp()) == (leader.pid, member.pid)


@pytest.mark.kern_proc("pgrel", "sess_hold")
@pytest.mark.passes("sess_rele")
def test_a_session_outlives_the_group_named_after_it(init: Process) -> None:
    """It is held by any of its groups (kern_proc.c: sess_hold, pgrel)."""
    leader = init.fork()
    leader.setsid()
    member = leader.fork()
    member.setpgid(0, 0)
    bury(init, leader)
    assert init.sysctl.kern_proc_pgrp(leader.pid).pids == []
    with fails(EPERM):  # the id names a session still, but no group
        member.setpgid(0, leader.pid)
    assert (member.getsid(), row(init, member.pid).sid) == (leader.pid, leader.pid)
    child = member.fork()
    child.setpgid(0, 0)
    assert child.getsid() == leader.pid


@pytest.mark.passes("sess_rele")
def test_members_of_a_session_without_leader_may_make_their_own(init: Process) -> None:
    """Unless they lead a group (kern_prot.c: sys_setsid)."""
    leader = init.fork()
    leader.setsid()
    member, job = leader.fork(), leader.fork()
    job.setpgid(0, 0)
    bury(init, leader)
    assert member.setsid() == member.pid
    with fails(EPERM):
        job.setsid()


@pytest.mark.kern_proc("sess_rele", "sess_hold")
@pytest.mark.passes("pgrel")
def test_sessions_come_and_go_with_their_groups_in_any_order(init: Process) -> None:
    """Every group holds its session once (kern_proc.c: sess_hold, sess_rele): one too few and it is gone too soon."""
    leader = init.fork()
    leader.setsid()
    members = [leader.fork() for _ in range(4)]
    for member in members:
        member.setpgid(0, 0)
    members[0].setpgid(0, members[1].pid)
    bury(leader, members[2])
    bury(init, leader)
    members[1].setpgid(0, members[3].pid)
    for member, group in ((members[0], members[1]), (members[1], members[3]), (members[3], members[3])):
        assert (member.getsid(), member.getpgrp()) == (leader.pid, group.pid)
    members[0].setpgid(0, 0)
    assert members[1].setsid() == members[1].pid
    assert [(member.getsid(), member.getpgrp()) for member in (members[0], members[3])] == [
        (leader.pid, members[0].pid),
        (leader.pid, members[3].pid),
    ]


@pytest.mark.kern_proc("sess_rele")
@pytest.mark.passes("enterpgrp")
def test_sessions_of_one_hash_chain_do_not_get_into_each_others_way(init: Process) -> None:
    """Each ends without the other (kern_proc.c: sess_rele)."""
    init.procctl_reaper_acquire()  # its wait4() returns when the session has ended; its member is out of sight sooner
    older, younger = chain_mates(init, lambda child: child.setsid())
    members = [older.fork(), younger.fork()]
    bury(init, older)
    assert (members[0].getsid(), members[1].getsid()) == (older.pid, younger.pid)
    init.kill(members[0].pid, SIGKILL)
    assert init.wait4(members[0].pid).pid == members[0].pid
    members[1].setpgid(0, 0)
    assert (members[1].getsid(), younger.getsid()) == (younger.pid, younger.pid)


@pytest.mark.kern_proc("proc_makepid")
@pytest.mark.passes("pgrel", "sess_rele", "proc_remove_zombie")
@pytest.mark.slow_clock(12)
def test_an_id_is_given_away_when_neither_process_nor_group_nor_session_bears_it(init: RemoteProcess) -> None:
    """Ten seconds after the reap, for those that nobody uses any more (kern_proc.c: proc_makepid).

    Pids leap ahead first, so that the sequence runs over all of them afterwards.
    """
    while True:
        with random_pids(init, 500):
            eight = [init.fork() for _ in range(8)]
        alive, zombie, group, session, bare_session, process_free, group_free, session_free = eight
        members = [init.fork(), init.fork()]
        for leader, member in zip((group, group_free), members, strict=True):
            leader.setpgid(0, 0)
            member.setpgid(0, leader.pid)
        for leader in (session, bare_session, session_free):
            leader.setsid()
            members.append(leader.fork())
        # The sequence leaps over numbers given back lately; if that took it past one of the eight, others are needed.
        if born(init, 1)[0] < min(one.pid for one in eight):
            break
    members[3].setpgid(0, 0)  # the group of bare_session ends with its leader, the session does not
    zombie.exit()
    bury(init, group, session, bare_session, process_free, group_free, session_free)
    members[1].setpgid(0, init.pid)
    members[4].setsid()
    init.sleep(11.5)
    # Where the sequence stands no pid tells: one that was in use is replaced by another of its hash chain, further on.
    # But it stands behind init's own, and moves on by at least one for each child.
    given = set(born(init, max(one.pid for one in eight) - init.pid + 10))
    taken = {
        "a process": alive,
        "a zombie": zombie,
        "a group": group,
        "a session": session,
        "a session without its first group": bare_session,
    }
    free = {"a former process": process_free, "a former group": group_free, "a former session": session_free}
    assert [what for what, process in taken.items() if process.pid in given] == []
    assert [what for what, process in free.items() if process.pid not in given] == []
    assert (members[0].getpgrp(), members[2].getsid(), members[3].getsid()) == (
        group.pid,
        session.pid,
        bare_session.pid,
    )

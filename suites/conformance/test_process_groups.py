"""Process groups: who may be moved where, how long a group lives, who is in it, and whom killpg() reaches.

`init` leads a session and a group of its own; whatever it forks is born into that group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EACCES, EINVAL, EPERM, ESRCH
from itertools import pairwise
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGUSR1, SIGUSR2

import pytest

from harness.processes import WNOHANG, Handler, Process, ProcStat, RemoteProcess, fails

from ._help import (
    NO_SUCH_ID,
    SOMEBODY,
    SOMEBODY_ELSE,
    await_idle,
    await_stopped,
    bury,
    chain_mates,
    exists,
    group_exists,
    has_stopped,
    hearing,
    jobc,
    keeps_the_swapper,
    logged,
    random_pids,
    row,
    stop,
)
from ._kernel import CHAINS, PidAllocator

# ---- Being moved, and moving -------------------------------------------------------------------------------------


@pytest.mark.kern_proc("pgref", "pgfind")
def test_a_child_is_born_into_its_parents_group(init: Process) -> None:
    """fork() puts the child into the parent's group (kern_fork.c: fork1)."""
    assert init.fork().getpgrp() == init.pid


@pytest.mark.kern_proc("enterpgrp")
def test_a_grandchild_is_born_into_the_group_its_parent_is_in_by_then(init: Process) -> None:
    """It is the parent's group at the time of fork() that counts (kern_fork.c: fork1)."""
    child = init.fork()
    early = child.fork()
    child.setpgid(0, 0)
    late = child.fork()
    assert (early.getpgrp(), late.getpgrp()) == (init.pid, child.pid)


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.parametrize("whom", ["zero", "its own pid"])
@pytest.mark.parametrize("where", ["zero", "its own pid"])
def test_a_process_makes_a_group_of_its_own(init: Process, whom: str, where: str) -> None:
    """Zero stands for the caller and for the pid of whoever is moved (kern_prot.c: sys_setpgid)."""
    child = init.fork()
    child.setpgid(child.pid if whom != "zero" else 0, child.pid if where != "zero" else 0)
    assert child.getpgrp() == child.pid


@pytest.mark.kern_proc("enterpgrp", "pfindn")
def test_a_parent_gives_its_child_a_group_of_its_own(init: Process) -> None:
    """The usual way of a shell (kern_prot.c: sys_setpgid)."""
    child = init.fork()
    init.setpgid(child.pid, 0)
    assert (child.getpgrp(), init.getpgid(child.pid), init.getpgrp()) == (child.pid, child.pid, init.pid)


@pytest.mark.kern_proc("inferior", "pfind", "prele")
@pytest.mark.parametrize("generations", [1, 3])
def test_whoever_has_moved_a_descendant_is_held_by_nobody(init: Process, generations: int) -> None:
    """Neither he nor those between them: all of them can exit (kern_proc.c: inferior)."""
    line = [init.fork()]
    for _ in range(generations):
        line.append(line[-1].fork())
    line[0].setpgid(line[-1].pid, 0)
    for parent, child in reversed([*pairwise([init, *line])]):
        bury(parent, child)


@pytest.mark.kern_proc("enterpgrp", "pfindn")
def test_a_parent_gives_a_stopped_child_a_group_of_its_own(init: Process) -> None:
    """It is found, stopped or not (kern_proc.c: enterpgrp, pfindn)."""
    child = init.fork()
    stop(init, child)
    init.setpgid(child.pid, 0)
    assert (init.getpgid(child.pid), init.sysctl.kern_proc_pgrp(child.pid).pids) == (child.pid, [child.pid])


@pytest.mark.kern_proc("inferior", "enterpgrp")
def test_a_descendant_that_has_become_another_user_can_be_moved(init: Process) -> None:
    """By a parent that is one, too: descent and session count, not who one is (kern_prot.c: sys_setpgid; inferior)."""
    parent = init.fork()
    child = parent.fork()
    child.setuid(SOMEBODY)
    init.setpgid(child.pid, 0)
    assert parent.getpgid(child.pid) == child.pid
    parent.setuid(SOMEBODY_ELSE)
    parent.setpgid(child.pid, init.pid)
    assert init.getpgid(child.pid) == init.pid


@pytest.mark.kern_proc("inferior", "pfind")
def test_a_descendant_can_be_moved_whatever_those_between_are_doing(init: Process) -> None:
    """Stopped, or waiting for a vforked child (kern_proc.c: inferior)."""
    stopped, waiting = init.fork(), init.fork()
    grandchild, other = stopped.fork(), waiting.fork()
    stop(init, stopped)
    vforked = waiting.vfork()
    for process in (grandchild, other, vforked):
        init.setpgid(process.pid, 0)
        assert init.getpgid(process.pid) == process.pid


@pytest.mark.kern_proc("pfind")
def test_a_vforked_child_is_found_while_its_parent_waits(init: Process) -> None:
    """It is like any other to those who look it up (kern_proc.c: pfind)."""
    parent = init.fork()
    child = parent.vfork()
    init.kill(child.pid, 0)
    assert (init.getpgid(child.pid), init.getsid(child.pid)) == (init.pid, init.pid)


@pytest.mark.kern_proc("pgfind")
def test_a_group_is_found_though_its_youngest_member_is_stopped(init: Process) -> None:
    """To be signalled and to be joined (kern_proc.c: pgfind)."""
    leader, youngest, joiner = hearing(init.fork()), init.fork(), init.fork()
    leader.setpgid(0, 0)
    youngest.setpgid(0, leader.pid)
    stop(init, youngest)
    init.killpg(leader.pid, SIGUSR1)
    assert logged(leader) == [SIGUSR1]
    joiner.setpgid(0, leader.pid)
    assert joiner.getpgrp() == leader.pid


@pytest.mark.kern_proc("pfindn", "enterpgrp")
@pytest.mark.needs_kernel
def test_a_traced_child_is_given_a_group_of_its_own(init: RemoteProcess) -> None:
    """A debugger's children are jobs like any other (kern_proc.c: pfindn)."""
    child = init.fork()
    child.ptrace("PT_TRACE_ME", 0)
    init.setpgid(child.pid, 0)
    assert init.getpgid(child.pid) == child.pid


@pytest.mark.kern_proc("enterpgrp", "pgfind")
def test_a_parent_moves_a_child_into_another_childs_group(init: Process) -> None:
    """A pipeline becomes one job (kern_prot.c: sys_setpgid)."""
    leader, other = init.fork(), init.fork()
    init.setpgid(leader.pid, leader.pid)
    init.setpgid(other.pid, leader.pid)
    assert (leader.getpgrp(), other.getpgrp()) == (leader.pid, leader.pid)


@pytest.mark.kern_proc("enterpgrp", "pgfind")
def test_a_process_joins_any_group_of_its_session(init: Process) -> None:
    """Kinship does not matter for the group, only the session does (kern_prot.c: sys_setpgid)."""
    leader, cousin = init.fork().fork(), init.fork().fork()
    leader.setpgid(0, 0)
    cousin.setpgid(0, leader.pid)
    assert cousin.getpgrp() == leader.pid


@pytest.mark.kern_proc("enterpgrp")
def test_a_member_returns_to_the_group_it_was_born_into(init: Process) -> None:
    """Leaving is no farewell (kern_proc.c: enterpgrp)."""
    child = init.fork()
    child.setpgid(0, 0)
    child.setpgid(0, init.pid)
    assert child.getpgrp() == init.pid


@pytest.mark.kern_proc("enterpgrp", "pgrel")
def test_a_group_is_founded_again_by_the_process_it_is_named_after(init: Process) -> None:
    """The id is free again for its owner as soon as the group has ended (kern_proc.c: enterpgrp, pgrel)."""
    child = init.fork()
    for _ in range(3):
        child.setpgid(0, 0)
        assert child.getpgrp() == child.pid
        child.setpgid(0, init.pid)
    assert not group_exists(init, child.pid)


@pytest.mark.kern_proc("enterpgrp")
def test_a_leader_returns_to_its_group_while_others_keep_it(init: Process) -> None:
    """The group its id names still exists, so it joins that one (kern_proc.c: enterpgrp)."""
    leader, member = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    leader.setpgid(0, init.pid)
    leader.setpgid(0, 0)
    assert sorted(init.sysctl.kern_proc_pgrp(leader.pid).pids) == sorted([leader.pid, member.pid])


@pytest.mark.kern_proc("enterpgrp")
def test_moving_to_the_present_group_changes_nothing(init: Process) -> None:
    """setpgid() to where one is succeeds and has no effect (kern_proc.c: enterpgrp)."""
    child = init.fork()
    child.setpgid(0, 0)
    before = jobc(init, child.pid)
    child.setpgid(0, child.pid)
    init.setpgid(child.pid, child.pid)
    assert (child.getpgrp(), jobc(init, child.pid)) == (child.pid, before)


@pytest.mark.kern_proc("inferior", "pfind")
@pytest.mark.parametrize("generation", [1, 2, 3, 6])
def test_descendants_of_every_generation_can_be_moved(init: Process, generation: int) -> None:
    """Not children only: whoever descends from the caller (kern_proc.c: inferior)."""
    line = [init]
    for _ in range(generation):
        line.append(line[-1].fork())
    init.setpgid(line[-1].pid, 0)
    assert line[-1].getpgrp() == line[-1].pid
    # inferior() holds every process it walks through: each of them must be free to go.
    for parent, child in reversed(list(pairwise(line))):
        bury(parent, child)


@pytest.mark.kern_proc("inferior")
def test_an_adopted_descendant_can_be_moved_by_its_reaper(init: Process) -> None:
    """Kinship follows the parent pointer as it is now (kern_proc.c: inferior; kern_exit.c: exit1)."""
    init.procctl_reaper_acquire()
    child = init.fork()
    orphan = child.fork()
    bury(init, child)
    init.setpgid(orphan.pid, 0)
    assert orphan.getpgrp() == orphan.pid


# ---- The errors of setpgid() -------------------------------------------------------------------------------------


@dataclass
class Scene:
    """Processes of a test, in the order of their birth, and the setpgid() call that one of them makes."""

    caller: Process
    pid: int
    pgid: int
    family: list[tuple[Process, Process]] = field(default_factory=list)  # parent, child


def _negative_group(init: Process) -> Scene:
    child = init.fork()
    return Scene(child, 0, -1, [(init, child)])


def _most_negative_group(init: Process) -> Scene:
    child = init.fork()
    return Scene(child, 0, -(1 << 31), [(init, child)])


def _negative_group_of_nobody(init: Process) -> Scene:
    return Scene(init, NO_SUCH_ID, -1)


def _negative_group_for_session_leader(init: Process) -> Scene:
    return Scene(init, 0, -1)


def _nobody(init: Process) -> Scene:
    return Scene(init, NO_SUCH_ID, 0)


def _pid_minus_one(init: Process) -> Scene:
    return Scene(init, -1, 0)


def _reaped_child(init: Process) -> Scene:
    child = init.fork()
    bury(init, child)
    return Scene(init, child.pid, 0)


def _zombie(init: Process) -> Scene:
    child = init.fork()
    child.exit()
    return Scene(init, child.pid, 0)


def _parent(init: Process) -> Scene:
    child = init.fork()
    grandchild = child.fork()
    return Scene(grandchild, child.pid, 0, [(init, child), (child, grandchild)])


def _sibling(init: Process) -> Scene:
    child, sibling = init.fork(), init.fork()
    return Scene(child, sibling.pid, 0, [(init, child), (init, sibling)])


def _nephew(init: Process) -> Scene:
    child, sibling = init.fork(), init.fork()
    nephew = sibling.fork()
    return Scene(child, nephew.pid, 0, [(init, child), (init, sibling), (sibling, nephew)])


def _process_one(init: Process) -> Scene:
    child = init.fork()
    return Scene(child, 1, 0, [(init, child)])


def _own_session_leader(init: Process) -> Scene:
    child = init.fork()
    return Scene(child, init.pid, 0, [(init, child)])


def _orphaned_grandchild(init: Process) -> Scene:
    child = init.fork()
    grandchild = child.fork()
    bury(init, child)
    return Scene(init, grandchild.pid, 0)


def _child_in_a_session_of_its_own(init: Process) -> Scene:
    child = init.fork()
    child.setsid()
    return Scene(init, child.pid, 0, [(init, child)])


def _grandchild_in_another_session(init: Process) -> Scene:
    child = init.fork()
    child.setsid()
    grandchild = child.fork()
    return Scene(init, grandchild.pid, 0, [(init, child), (child, grandchild)])


def _grandchild_in_another_session_to_my_group(init: Process) -> Scene:
    child = init.fork()
    child.setsid()
    grandchild = child.fork()
    return Scene(init, grandchild.pid, init.pid, [(init, child), (child, grandchild)])


def _self_as_session_leader(init: Process) -> Scene:
    return Scene(init, 0, 0)


def _self_as_session_leader_to_its_own_group(init: Process) -> Scene:
    return Scene(init, init.pid, init.pid)


def _self_as_session_leader_to_another_group(init: Process) -> Scene:
    child = init.fork()
    child.setpgid(0, 0)
    return Scene(init, 0, child.pid, [(init, child)])


def _missing_group(init: Process) -> Scene:
    child = init.fork()
    return Scene(child, 0, NO_SUCH_ID, [(init, child)])


def _missing_group_for_a_child(init: Process) -> Scene:
    child = init.fork()
    return Scene(init, child.pid, NO_SUCH_ID, [(init, child)])


def _process_that_leads_no_group(init: Process) -> Scene:
    child, sibling = init.fork(), init.fork()
    return Scene(child, 0, sibling.pid, [(init, child), (init, sibling)])


def _zombie_that_leads_no_group(init: Process) -> Scene:
    child, sibling = init.fork(), init.fork()
    sibling.exit()
    return Scene(child, 0, sibling.pid, [(init, child)])


def _group_of_a_reaped_leader(init: Process) -> Scene:
    child, leader = init.fork(), init.fork()
    leader.setpgid(0, 0)
    bury(init, leader)
    return Scene(child, 0, leader.pid, [(init, child)])


def _group_of_a_childs_session(init: Process) -> Scene:
    child, other = init.fork(), init.fork()
    other.setsid()
    return Scene(child, 0, other.pid, [(init, child), (init, other)])


def _group_of_the_parents_session(init: Process) -> Scene:
    child = init.fork()
    child.setsid()
    grandchild = child.fork()
    return Scene(grandchild, 0, init.pid, [(init, child), (child, grandchild)])


def _child_to_a_group_of_another_session(init: Process) -> Scene:
    child, other = init.fork(), init.fork()
    other.setsid()
    return Scene(init, child.pid, other.pid, [(init, child), (init, other)])


@pytest.mark.kern_proc("inferior", "pfind", "pgfind", "prele", "pgrel", "enterpgrp")
@pytest.mark.parametrize(
    ("make_scene", "error"),
    [
        pytest.param(make_scene, error, id=make_scene.__name__.lstrip("_"))
        for error, scenes in {
            EINVAL: (
                _negative_group,
                _most_negative_group,
                _negative_group_of_nobody,
                _negative_group_for_session_leader,
            ),
            ESRCH: (
                _nobody,
                _pid_minus_one,
                _reaped_child,
                _zombie,
                _parent,
                _sibling,
                _nephew,
                _process_one,
                _own_session_leader,
                _orphaned_grandchild,
            ),
            EPERM: (
                _child_in_a_session_of_its_own,
                _grandchild_in_another_session,
                _grandchild_in_another_session_to_my_group,
                _self_as_session_leader,
                _self_as_session_leader_to_its_own_group,
                _self_as_session_leader_to_another_group,
                _missing_group,
                _missing_group_for_a_child,
                _process_that_leads_no_group,
                _zombie_that_leads_no_group,
                _group_of_a_reaped_leader,
                _group_of_a_childs_session,
                _group_of_the_parents_session,
                _child_to_a_group_of_another_session,
            ),
        }.items()
        for make_scene in scenes
    ],
)
@keeps_the_swapper
def test_setpgid_is_refused(init: Process, make_scene: Callable[[Process], Scene], error: int) -> None:
    """The errors of setpgid() (kern_prot.c: sys_setpgid), and that a refusal holds on to nobody."""
    scene = make_scene(init)
    groups = [child.getpgrp() for _, child in scene.family]
    with fails(error):
        scene.caller.setpgid(scene.pid, scene.pgid)
    assert [child.getpgrp() for _, child in scene.family] == groups
    for parent, child in reversed(scene.family):
        bury(parent, child)


@pytest.mark.kern_proc("inferior")
@pytest.mark.parametrize("generation", [1, 2])
def test_setpgid_is_refused_for_a_descendant_that_has_run_a_program(init: RemoteProcess, generation: int) -> None:
    """EACCES after exec: it may have relied on its group since (kern_prot.c: sys_setpgid, P_EXEC)."""
    line = [init]
    for _ in range(generation):
        line.append(line[-1].fork())
    line[-1].reexec()
    with fails(EACCES):
        init.setpgid(line[-1].pid, 0)
    assert line[-1].getpgrp() == init.pid


@pytest.mark.kern_proc("enterpgrp")
def test_a_process_that_has_run_a_program_may_still_move_itself(init: RemoteProcess) -> None:
    """EACCES is for others only (kern_prot.c: sys_setpgid)."""
    child = init.fork()
    child.reexec()
    child.setpgid(0, 0)
    assert child.getpgrp() == child.pid


@pytest.mark.kern_proc("inferior")
def test_the_session_is_looked_at_before_the_program(init: RemoteProcess) -> None:
    """EPERM, not EACCES, where both apply (kern_prot.c: sys_setpgid)."""
    child = init.fork()
    child.setsid()
    child.reexec()
    with fails(EPERM):
        init.setpgid(child.pid, 0)


# ---- Asking ------------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("pfind")
def test_anybodys_group_can_be_asked_for(init: Process) -> None:
    """getpgid() has no permission check and knows zero as oneself (kern_prot.c: sys_getpgid)."""
    stranger = init.fork()
    stranger.setsid()
    stranger.setuid(SOMEBODY)
    assert init.getpgid(stranger.pid) == stranger.pid
    assert stranger.getpgid(init.pid) == init.pid
    assert stranger.getpgid(0) == stranger.getpgid(stranger.pid) == stranger.pid


@pytest.mark.kern_proc("pfind")
@pytest.mark.parametrize("pid", [NO_SUCH_ID, -1, 1 << 30])
def test_nobodys_group_cannot_be_asked_for(init: Process, pid: int) -> None:
    """ESRCH for a pid nobody has (kern_prot.c: sys_getpgid)."""
    with fails(ESRCH):
        init.getpgid(pid)


# ---- How long a group lives --------------------------------------------------------------------------------------


@pytest.mark.kern_proc("pgrel", "leavepgrp")
def test_a_group_outlives_the_process_it_is_named_after(init: Process) -> None:
    """A group lives as long as it has members (kern_proc.c: pgrel)."""
    leader, member = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    bury(init, leader)
    member.sigaction(SIGUSR1, Handler.LOG)
    init.killpg(leader.pid, SIGUSR1)
    assert (member.getpgrp(), logged(member)) == (leader.pid, [SIGUSR1])


@pytest.mark.kern_proc("pgrel", "enterpgrp")
def test_a_group_without_its_leader_takes_new_members(init: Process) -> None:
    """The leader's death closes no doors (kern_prot.c: sys_setpgid)."""
    leader, member, late = init.fork(), init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    bury(init, leader)
    late.setpgid(0, leader.pid)
    bury(init, member)
    assert init.sysctl.kern_proc_pgrp(leader.pid).pids == [late.pid]


@pytest.mark.kern_proc("pgrel", "leavepgrp", "proc_move_allproc_zombie")
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


@pytest.mark.kern_proc("pgrel", "leavepgrp", "enterpgrp")
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


@pytest.mark.kern_proc("pgref", "pgrel", "pgfind", "enterpgrp", "leavepgrp", "fixjobc")
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


@pytest.mark.kern_proc("sysctl_kern_proc", "enterpgrp")
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


@pytest.mark.kern_proc("sysctl_kern_proc")
def test_each_row_names_the_group_of_its_process(init: Process) -> None:
    """kp_pgid is the group's id in every listing (kern_kinfo.c: fill_kinfo_proc)."""
    leader, member = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    table = init.sysctl.kern_proc_all()
    assert [table[process.pid].pgid for process in (init, leader, member)] == [init.pid, leader.pid, leader.pid]
    assert [row.pgid for row in init.sysctl.kern_proc_pgrp(leader.pid)] == [leader.pid] * 2
    assert init.sysctl.kern_proc_pid(member.pid)[0].pgid == leader.pid


@pytest.mark.kern_proc("sysctl_kern_proc", "leavepgrp")
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


@pytest.mark.kern_proc("procinsertinit", "sysctl_kern_proc")
def test_process_zero_is_in_group_and_session_zero(init: Process) -> None:
    """The kernel's own first process is in the tables like any other (init_main.c; kern_proc.c: procinsertinit)."""
    (swapper,) = init.sysctl.kern_proc_pid(0)
    assert (swapper.pid, swapper.pgid, swapper.sid) == (0, 0, 0)
    assert 0 in init.sysctl.kern_proc_pgrp(0)


@pytest.mark.kern_proc("procinit", "pfind", "pgfind", "enterpgrp")
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


@pytest.mark.kern_proc("pgfind", "pgrel", "enterpgrp")
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


# ---- Signalling a group ------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("pgfind", "enterpgrp")
def test_killpg_reaches_every_member_and_nobody_else(init: Process) -> None:
    """kill(-pgid) (kern_sig.c: dokillpg walks pg_members)."""
    leader, *members = (hearing(init.fork()) for _ in range(4))
    leader.setpgid(0, 0)
    for member in members[:2]:
        member.setpgid(0, leader.pid)
    born_inside = hearing(leader.fork())
    outside = [hearing(init), members[2], hearing(members[2].fork())]
    leader_heard_before = logged(leader)
    init.killpg(leader.pid, SIGUSR1)
    assert leader_heard_before == []
    assert [logged(process) for process in (leader, *members[:2], born_inside)] == [[SIGUSR1]] * 4
    assert [logged(process) for process in outside] == [[]] * 3


@pytest.mark.kern_proc("pgref", "pgrel")
def test_killing_zero_reaches_the_callers_own_group(init: Process) -> None:
    """kill(0): the caller included (kern_sig.c: dokillpg)."""
    leader, sibling = hearing(init.fork()), hearing(init.fork())
    leader.setpgid(0, 0)
    member = hearing(leader.fork())
    member.kill(0, SIGUSR1)
    assert [logged(process) for process in (member, leader, sibling)] == [[SIGUSR1], [SIGUSR1], []]


@pytest.mark.kern_proc("enterpgrp", "leavepgrp")
def test_whoever_has_left_a_group_is_not_reached_by_it(init: Process) -> None:
    """A member that moved on hears its new group only (kern_proc.c: enterpgrp)."""
    first, second, nomad = init.fork(), init.fork(), hearing(init.fork(), SIGUSR1, SIGUSR2)
    first.setpgid(0, 0)
    second.setpgid(0, 0)
    first.sigaction(SIGUSR1, Handler.IGNORE)
    second.sigaction(SIGUSR2, Handler.IGNORE)
    nomad.setpgid(0, first.pid)
    nomad.setpgid(0, second.pid)
    init.killpg(first.pid, SIGUSR1)
    init.killpg(second.pid, SIGUSR2)
    assert logged(nomad) == [SIGUSR2]


@pytest.mark.kern_proc("pgfind")
def test_killpg_crosses_sessions(init: Process) -> None:
    """Only user ids matter for signalling (kern_sig.c: CANSIGNAL)."""
    child = hearing(init.fork())
    child.setsid()
    init.killpg(child.pid, SIGUSR1)
    assert logged(child) == [SIGUSR1]


@pytest.mark.kern_proc("pgfind")
@pytest.mark.parametrize("signal", [0, SIGUSR1, SIGKILL])
def test_killpg_knows_no_group_nobody_is_in(init: Process, signal: int) -> None:
    """ESRCH (kern_sig.c: dokillpg)."""
    child = init.fork()  # a process, but no group's name
    for pgid in (NO_SUCH_ID, child.pid):
        with fails(ESRCH):
            init.killpg(pgid, signal)
    assert child.getpid() == child.pid


@pytest.mark.kern_proc("proc_move_allproc_zombie", "pgfind")
@pytest.mark.parametrize("signal", [0, SIGUSR1])
def test_a_group_of_zombies_cannot_be_signalled(init: Process, signal: int) -> None:
    """ESRCH although the group exists, for kill() of one zombie would succeed (kern_sig.c: dokillpg)."""
    zombie = init.fork()
    zombie.setpgid(0, 0)
    zombie.exit()
    init.kill(zombie.pid, signal)
    with fails(ESRCH):
        init.killpg(zombie.pid, signal)


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_zombies_do_not_keep_a_signal_from_the_living(init: Process) -> None:
    """Zombies are passed over (kern_sig.c: dokillpg)."""
    before, zombie, after = hearing(init.fork()), init.fork(), hearing(init.fork())
    for member in (before, zombie, after):
        member.setpgid(0, before.pid)
    zombie.exit(3)
    init.killpg(before.pid, SIGUSR1)
    assert (logged(before), logged(after)) == ([SIGUSR1], [SIGUSR1])
    assert init.wait4(zombie.pid).exit_status == 3


@pytest.mark.kern_proc("pgfind", "pgrel")
def test_killpg_without_any_permission_finds_nobody(init: Process) -> None:
    """ESRCH and not EPERM, which kill() of a single process gives (kern_sig.c: dokillpg)."""
    group, stranger = hearing(init.fork()), init.fork()
    group.setpgid(0, 0)
    stranger.setuid(SOMEBODY)
    with fails(ESRCH):
        stranger.killpg(group.pid, SIGUSR1)
    with fails(EPERM):
        stranger.kill(group.pid, SIGUSR1)
    assert logged(group) == []


@pytest.mark.kern_proc("pgfind")
def test_killpg_reaches_those_members_the_caller_may_signal(init: Process) -> None:
    """Success if there is one of them (kern_sig.c: dokillpg)."""
    root, mine, other = (hearing(init.fork()) for _ in range(3))
    for member, user in ((root, 0), (mine, SOMEBODY), (other, SOMEBODY_ELSE)):
        member.setpgid(0, root.pid)
        member.setuid(user)
    caller = init.fork()
    caller.setuid(SOMEBODY)
    caller.killpg(root.pid, SIGUSR1)
    assert [logged(member) for member in (root, mine, other)] == [[], [SIGUSR1], []]


@pytest.mark.kern_proc("pfind", "pgfind")
@pytest.mark.parametrize(
    ("sender", "target", "allowed"),
    [
        ((1, 1, 1), (1, 1, 1), True),
        ((1, 2, 2), (1, 3, 3), True),  # the real ids are the same
        ((1, 2, 2), (2, 3, 3), True),  # effective, real
        ((1, 2, 2), (3, 1, 1), True),  # real, effective
        ((1, 2, 2), (3, 2, 3), True),  # the effective ids are the same
        ((1, 1, 1), (2, 3, 3), False),
        ((1, 1, 1), (2, 2, 1), False),  # saved ids do not matter, neither the target's ...
        ((1, 1, 2), (2, 2, 2), False),  # ... nor the sender's
        ((1, 0, 0), (2, 2, 2), True),  # root by effective id
        ((0, 1, 0), (2, 2, 2), False),  # root by real id only
        ((1, 1, 1), (0, 0, 0), False),
        ((0, 1, 0), (0, 0, 0), True),
    ],
)
def test_a_shared_user_id_permits_signals(
    init: Process, sender: tuple[int, int, int], target: tuple[int, int, int], allowed: bool
) -> None:
    """Real or effective on either side will do (kern_prot.c: p_trespass).  Ids are real, effective, saved."""
    processes = init.fork(), hearing(init.fork())
    processes[1].setpgid(0, 0)
    for process, ids in zip(processes, (sender, target), strict=True):
        process.setresuid(*(SOMEBODY + number if number else 0 for number in ids))
    if allowed:
        processes[0].kill(processes[1].pid, SIGUSR1)
        processes[0].killpg(processes[1].pid, 0)
    else:
        with fails(EPERM):
            processes[0].kill(processes[1].pid, SIGUSR1)
        with fails(ESRCH):
            processes[0].killpg(processes[1].pid, 0)
    assert logged(processes[1]) == [SIGUSR1] * allowed


@pytest.mark.kern_proc("pgfind")
def test_anybody_may_continue_a_group_of_the_same_session(init: Process) -> None:
    """SIGCONT is for everybody in the session, and for nobody else (kern_sig.c: CANSIGNAL)."""
    group, insider, outsider = hearing(init.fork(), SIGCONT), init.fork(), init.fork()
    group.setpgid(0, 0)
    outsider.setsid()
    insider.setuid(SOMEBODY)
    outsider.setuid(SOMEBODY)
    with fails(ESRCH):
        outsider.killpg(group.pid, SIGCONT)
    assert logged(group) == []
    insider.killpg(group.pid, SIGCONT)
    assert logged(group) == [SIGCONT]


@pytest.mark.kern_proc("pgfind")
@pytest.mark.parametrize("signal", [-1, 129, 1 << 20])
def test_killpg_refuses_a_number_that_is_no_signal(init: Process, signal: int) -> None:
    """EINVAL, whether or not there is such a group (kern_sig.c: kern_kill, _SIG_MAXSIG 128)."""
    for pgid in (init.pid, NO_SUCH_ID):
        with fails(EINVAL):
            init.killpg(pgid, signal)


@pytest.mark.kern_proc("enterpgrp")
def test_a_whole_group_is_stopped_and_continued(init: Process) -> None:
    """What a shell does to a job (kern_sig.c: dokillpg)."""
    leader, member, outside = (init.fork() for _ in range(3))
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    await_idle(init, leader, member)
    init.killpg(leader.pid, SIGSTOP)
    for process in (leader, member):
        await_stopped(init, process)
    assert not has_stopped(init, outside)
    init.killpg(leader.pid, SIGCONT)
    assert (leader.getpgrp(), member.getpgrp()) == (leader.pid, leader.pid)


@pytest.mark.kern_proc("leavepgrp", "proc_remove_zombie")
def test_a_whole_group_is_killed_and_reaped(init: Process) -> None:
    """SIGKILL to a group leaves nothing of it (kern_sig.c: dokillpg; kern_exit.c: kern_wait)."""
    members = [init.fork() for _ in range(8)]
    for member in members:
        member.setpgid(0, members[0].pid)
    init.killpg(members[0].pid, SIGKILL)
    reaped = [init.wait4(-members[0].pid) for _ in members]
    assert {result.pid for result in reaped} == {member.pid for member in members}
    assert {result.signal for result in reaped} == {SIGKILL}
    assert not group_exists(init, members[0].pid)


# ---- Priorities --------------------------------------------------------------------------------------------------

PRIO_PGRP, PRIO_USER = 1, 2  # sys/resource.h


@pytest.mark.kern_proc("pgfind", "pgref", "pgrel")
@pytest.mark.needs_kernel
def test_a_groups_priority_is_its_members(init: RemoteProcess) -> None:
    """setpriority() changes each of them, getpriority() tells the best (kern_resource.c: PRIO_PGRP)."""
    leader, member, outside = (init.fork() for _ in range(3))
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    init.syscall("setpriority", PRIO_PGRP, leader.pid, 7)
    member.syscall("setpriority", PRIO_PGRP, 0, 5)
    leader.syscall("setpriority", 0, 0, 3)
    assert [row(init, process.pid).nice for process in (leader, member, outside)] == [3, 5, 0]
    assert init.syscall("getpriority", PRIO_PGRP, leader.pid).value == 3
    with fails(ESRCH):
        init.syscall("getpriority", PRIO_PGRP, NO_SUCH_ID)
    # And the group is free to end.
    bury(init, leader, member)
    assert not group_exists(init, leader.pid)
    with fails(ESRCH):
        init.syscall("setpriority", PRIO_PGRP, leader.pid, 0)


@pytest.mark.kern_proc("allproc_scan")
@pytest.mark.needs_kernel
def test_a_users_priority_is_that_of_all_his_processes(init: RemoteProcess) -> None:
    """In every group and session, also while it is stopped; zombies do not count (kern_proc.c: allproc_scan)."""
    with random_pids(init, 5000):
        mine = [init.fork() for _ in range(6)]
    other = init.fork()
    for process in mine:
        process.setuid(SOMEBODY)
    mine[0].setsid()
    mine[1].setpgid(0, 0)
    stop(init, mine[2])
    init.syscall("setpriority", PRIO_USER, SOMEBODY, 6)
    assert [row(init, process.pid).nice for process in (*mine, other)] == [6] * len(mine) + [0]
    assert init.syscall("getpriority", PRIO_USER, SOMEBODY).value == 6
    init.kill(mine[2].pid, SIGCONT)
    for process in mine:
        process.exit()
    with fails(ESRCH):
        init.syscall("getpriority", PRIO_USER, SOMEBODY)


# ---- Signalling everybody ----------------------------------------------------------------------------------------


@pytest.mark.kern_proc("allproc_scan")
def test_a_user_who_signals_everybody_reaches_all_his_processes(init: Process) -> None:
    """kill(-1) goes through the whole process table and spares the caller (kern_sig.c: killpg_all_callback)."""
    caller = hearing(init.fork())
    with random_pids(init, 5000):
        mine = [hearing(init.fork()) for _ in range(12)]
    others = [hearing(init.fork()) for _ in range(2)]
    for process in (caller, *mine):
        process.setuid(SOMEBODY)
    others[1].setuid(SOMEBODY_ELSE)
    mine[0].setpgid(0, 0)
    mine[1].setsid()
    caller.kill(-1, SIGUSR1)
    assert [logged(process) for process in mine] == [[SIGUSR1]] * len(mine)
    assert [logged(process) for process in (caller, *others)] == [[]] * 3


@pytest.mark.kern_proc("allproc_scan")
def test_whoever_is_stopped_hears_a_signal_to_everybody(init: Process) -> None:
    """Only zombies are passed over (kern_proc.c: allproc_scan)."""
    caller, stopped = init.fork(), hearing(init.fork(), SIGCONT)
    for process in (caller, stopped):
        process.setuid(SOMEBODY)
    stop(init, stopped)
    caller.kill(-1, SIGCONT)
    assert set(logged(stopped)) == {SIGCONT}


@pytest.mark.kern_proc("allproc_scan")
def test_a_user_whose_other_processes_are_zombies_reaches_nobody(init: Process) -> None:
    """ESRCH: the scan passes over zombies (kern_proc.c: allproc_scan)."""
    caller, zombie = init.fork(), init.fork()
    for process in (caller, zombie):
        process.setuid(SOMEBODY)
    caller.kill(-1, 0)
    zombie.exit()
    with fails(ESRCH):
        caller.kill(-1, 0)
    assert init.wait4(zombie.pid).exit_status == 0


EDGES = pytest.mark.parametrize("chain", [0, CHAINS - 1], ids=["first", "last"])


def _child_in_chain(allocator: PidAllocator, chain: int) -> RemoteProcess:
    return allocator.child_with(allocator.spare // CHAINS * CHAINS + CHAINS + chain)


@pytest.mark.kern_proc("allproc_scan")
@EDGES
def test_a_signal_to_everybody_reaches_the_first_and_the_last_hash_chain(
    init: RemoteProcess, allocator: PidAllocator, chain: int
) -> None:
    """The scan leaves no chain out (kern_proc.c: allproc_scan)."""
    target = hearing(_child_in_chain(allocator, chain))
    caller = init.fork()
    for process in (target, caller):
        process.setuid(SOMEBODY)
    caller.kill(-1, SIGUSR1)
    assert logged(target) == [SIGUSR1]


@pytest.mark.kern_proc("sysctl_kern_proc", "pfind", "pgfind", "enterpgrp", "zpfind", "proc_remove_zombie")
@EDGES
def test_the_first_and_the_last_hash_chain_are_as_good_as_any(
    init: RemoteProcess, allocator: PidAllocator, chain: int
) -> None:
    """A process, group and session there are found, listed and forgotten (kern_proc.c: ALLPROC_HMASK)."""
    child = _child_in_chain(allocator, chain)
    child.setsid()
    init.killpg(child.pid, 0)
    assert init.getsid(child.pid) == child.pid
    assert init.sysctl.kern_proc_pgrp(child.pid).pids == [child.pid]
    assert child.pid in init.sysctl.kern_proc_all()
    child.exit(7)
    init.kill(child.pid, 0)
    assert init.sysctl.kern_proc_pgrp(child.pid)[child.pid].is_zombie
    assert init.wait4(child.pid).exit_status == 7
    assert not exists(init, child.pid)
    assert child.pid not in init.sysctl.kern_proc_all()


@pytest.mark.kern_proc("allproc_scan")
@pytest.mark.parametrize("zombie", ["older", "younger"])
def test_a_zombie_hides_nobody_of_its_hash_chain_from_a_scan(init: Process, zombie: str) -> None:
    """The scan goes on behind a zombie (kern_proc.c: allproc_scan)."""
    older, younger = chain_mates(init, hearing)
    gone, alive = (older, younger) if zombie == "older" else (younger, older)
    caller = init.fork()
    caller.setuid(SOMEBODY)
    alive.setuid(SOMEBODY)
    gone.exit()
    caller.kill(-1, SIGUSR1)
    assert logged(alive) == [SIGUSR1]

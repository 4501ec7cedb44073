# SPDX-License-Identifier: BSD-2-Clause
"""Process groups: who may be moved where, how long a group lives, who is in it, and whom killpg() reaches.

`init` leads a session and a group of its own; whatever it forks is born into that group.
"""

from __future__ import annotations

from errno import ESRCH
from itertools import pairwise
from signal import SIGUSR1

import pytest

from harness.processes import Process, RemoteProcess, fails
from support.processes import NO_SUCH_ID, SOMEBODY, SOMEBODY_ELSE, bury, group_exists, hearing, jobc, logged, stop

# ---- Being moved, and moving --------------------------------------------------------------------------------------


@pytest.mark.passes("pgref", "pgfind")
def test_a_child_is_born_into_its_parents_group(init: Process) -> None:
    """fork() puts the child into the parent's group (kern_fork.c: fork1)."""
    assert init.fork().getpgrp() == init.pid


@pytest.mark.passes("enterpgrp")
def test_a_grandchild_is_born_into_the_group_its_parent_is_in_by_then(init: Process) -> None:
    """It is the parent's group at the time of fork() that counts (kern_fork.c: fork1)."""
    child = init.fork()
    early = child.fork()
    child.setpgid(0, 0)
    late = child.fork()
    assert (early.getpgrp(), late.getpgrp()) == (init.pid, child.pid)


@pytest.mark.passes("enterpgrp")
@pytest.mark.parametrize("whom", ["zero", "its own pid"])
@pytest.mark.parametrize("where", ["zero", "its own pid"])
def test_a_process_makes_a_group_of_its_own(init: Process, whom: str, where: str) -> None:
    """Zero stands for the caller and for the pid of whoever is moved (kern_prot.c: sys_setpgid)."""
    child = init.fork()
    child.setpgid(child.pid if whom != "zero" else 0, child.pid if where != "zero" else 0)
    assert child.getpgrp() == child.pid


@pytest.mark.passes("enterpgrp", "pfindn")
def test_a_parent_gives_its_child_a_group_of_its_own(init: Process) -> None:
    """The usual way of a shell (kern_prot.c: sys_setpgid)."""
    child = init.fork()
    init.setpgid(child.pid, 0)
    assert (child.getpgrp(), init.getpgid(child.pid), init.getpgrp()) == (child.pid, child.pid, init.pid)


@pytest.mark.kern_proc("inferior")
@pytest.mark.passes("pfind", "prele")
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


@pytest.mark.kern_proc("inferior")
@pytest.mark.passes("enterpgrp")
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


@pytest.mark.kern_proc("inferior")
@pytest.mark.passes("pfind")
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


@pytest.mark.kern_proc("pfindn")
@pytest.mark.passes("enterpgrp")
@pytest.mark.needs_kernel
def test_a_traced_child_is_given_a_group_of_its_own(init: RemoteProcess) -> None:
    """A debugger's children are jobs like any other (kern_proc.c: pfindn)."""
    child = init.fork()
    child.ptrace("PT_TRACE_ME", 0)
    init.setpgid(child.pid, 0)
    assert init.getpgid(child.pid) == child.pid


@pytest.mark.passes("enterpgrp", "pgfind")
def test_a_parent_moves_a_child_into_another_childs_group(init: Process) -> None:
    """A pipeline becomes one job (kern_prot.c: sys_setpgid)."""
    leader, other = init.fork(), init.fork()
    init.setpgid(leader.pid, leader.pid)
    init.setpgid(other.pid, leader.pid)
    assert (leader.getpgrp(), other.getpgrp()) == (leader.pid, leader.pid)


@pytest.mark.passes("enterpgrp", "pgfind")
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


@pytest.mark.kern_proc("inferior")
@pytest.mark.passes("pfind")
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


# ---- Asking -------------------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind")
def test_anybodys_group_can_be_asked_for(init: Process) -> None:
    """getpgid() has no permission check and knows zero as oneself (kern_prot.c: sys_getpgid)."""
    stranger = init.fork()
    stranger.setsid()
    stranger.setuid(SOMEBODY)
    assert init.getpgid(stranger.pid) == stranger.pid
    assert stranger.getpgid(init.pid) == init.pid
    assert stranger.getpgid(0) == stranger.getpgid(stranger.pid) == stranger.pid


@pytest.mark.passes("pfind")
@pytest.mark.parametrize("pid", [NO_SUCH_ID, -1, 1 << 30])
def test_nobodys_group_cannot_be_asked_for(init: Process, pid: int) -> None:
    """ESRCH for a pid nobody has (kern_prot.c: sys_getpgid)."""
    with fails(ESRCH):
        init.getpgid(pid)

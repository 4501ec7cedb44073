# SPDX-License-Identifier: BSD-2-Clause
"""The errors of setpgid(): who may not be moved where (kern_prot.c: sys_setpgid(); kern_proc.c: inferior())."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EACCES, EINVAL, EPERM, ESRCH

import pytest

from harness.processes import Process, RemoteProcess, fails
from support.processes import NO_SUCH_ID, bury, keeps_the_swapper


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


@pytest.mark.kern_proc("inferior")
@pytest.mark.passes("pfind", "pgfind", "prele", "pgrel", "enterpgrp")
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


@pytest.mark.passes("enterpgrp")
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

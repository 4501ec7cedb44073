# SPDX-License-Identifier: BSD-2-Clause
"""Job control counts: how many members of a group have a parent outside it, in its session (kern_proc.c: fixjobc())."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.processes import Process
from support.processes import bury, jobc, stop


def _the_group_of_the_session_leader(init: Process) -> int:
    init.fork()
    return init.pid


def _a_child_in_a_group_of_its_own(init: Process) -> int:
    child = init.fork()
    child.setpgid(0, 0)
    return child.pid


def _moved_by_the_parent(init: Process) -> int:
    child = init.fork()
    init.setpgid(child.pid, 0)
    return child.pid


def _two_children_in_one_group(init: Process) -> int:
    leader, member = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    return leader.pid


def _a_member_born_in_the_group(init: Process) -> int:
    leader = init.fork()
    leader.setpgid(0, 0)
    leader.fork()
    return leader.pid


def _a_child_of_a_stopped_parent(init: Process) -> int:
    parent = init.fork()
    child = parent.fork()
    stop(init, parent)
    child.setpgid(0, 0)
    return child.pid


def _a_leader_that_left_its_child_behind(init: Process) -> int:
    leader = init.fork()
    leader.setpgid(0, 0)
    leader.fork()
    leader.setpgid(0, init.pid)
    return leader.pid


def _a_parent_that_moved_between_other_groups(init: Process) -> int:
    parent = init.fork()
    child = parent.fork()
    child.setpgid(0, 0)
    parent.setpgid(0, 0)
    parent.setpgid(0, init.pid)
    return child.pid


def _a_parent_that_joined_its_childs_group(init: Process) -> int:
    parent = init.fork()
    child = parent.fork()
    child.setpgid(0, 0)
    parent.setpgid(0, child.pid)  # the child no longer qualifies, the parent does
    return child.pid


def _a_parent_of_two_that_joined_their_group(init: Process) -> int:
    parent = init.fork()
    first, second = parent.fork(), parent.fork()
    first.setpgid(0, 0)
    second.setpgid(0, first.pid)
    parent.setpgid(0, first.pid)
    return first.pid


def _a_parent_that_exited(init: Process) -> int:
    parent = init.fork()
    child = parent.fork()
    child.setpgid(0, 0)
    parent.exit()
    return child.pid


def _a_parent_that_exited_in_the_same_group(init: Process) -> int:
    other, parent = init.fork(), init.fork()
    parent.setpgid(0, 0)
    other.setpgid(0, parent.pid)
    parent.fork()
    parent.exit()
    return parent.pid


def _a_parent_with_a_session_of_its_own(init: Process) -> int:
    parent = init.fork()
    child = parent.fork()
    child.setpgid(0, 0)
    parent.setsid()
    return child.pid


def _a_session_leader(init: Process) -> int:
    child = init.fork()
    child.setsid()
    return child.pid


def _a_member_of_a_new_session(init: Process) -> int:
    leader = init.fork()
    leader.setsid()
    child = leader.fork()
    child.setpgid(0, 0)
    return child.pid


def _a_parent_of_a_session_leader_that_moved(init: Process) -> int:
    parent = init.fork()
    child = parent.fork()
    child.setsid()
    parent.setpgid(0, 0)
    parent.setpgid(0, init.pid)
    return child.pid


def _a_parent_of_a_session_leader_that_exited(init: Process) -> int:
    parent = init.fork()
    child = parent.fork()
    child.setsid()
    parent.exit()
    return child.pid


def _one_member_of_two_exited(init: Process) -> int:
    leader, member = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    member.exit()
    return leader.pid


def _one_member_of_two_exited_and_was_reaped(init: Process) -> int:
    leader, member = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    bury(init, member)
    return leader.pid


def _one_member_of_two_moved_away(init: Process) -> int:
    leader, member = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    leader.setpgid(0, init.pid)
    return leader.pid


def _one_member_of_two_left_for_a_session(init: Process) -> int:
    leader, member = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    member.setsid()
    return leader.pid


def _a_zombie_child_of_a_parent_that_left_the_group(init: Process) -> int:
    parent = init.fork()
    parent.setpgid(0, 0)
    zombie = parent.fork()
    parent.fork()
    zombie.exit()
    parent.setpgid(0, init.pid)  # qualifies the living child only
    return parent.pid


def _a_zombie_child_of_a_parent_that_exited(init: Process) -> int:
    parent = init.fork()
    zombie, other = parent.fork(), parent.fork()
    other.setpgid(0, 0)
    zombie.setpgid(0, other.pid)
    zombie.exit()
    parent.exit()
    return other.pid


def _three_generations_in_three_groups(init: Process) -> int:
    child = init.fork()
    child.setpgid(0, 0)
    grandchild = child.fork()
    grandchild.setpgid(0, 0)
    great = grandchild.fork()
    great.setpgid(0, 0)
    return grandchild.pid


def _a_parent_with_children_in_several_groups(init: Process) -> int:
    parent = init.fork()
    first, second, third = parent.fork(), parent.fork(), parent.fork()
    for child in (first, second):
        child.setpgid(0, 0)
    third.setpgid(0, second.pid)
    parent.setpgid(0, 0)
    return second.pid


@pytest.mark.kern_proc("fixjobc")
@pytest.mark.passes("enterpgrp")
@pytest.mark.parametrize(
    ("arrange", "expected"),
    [
        pytest.param(arrange, expected, id=arrange.__name__.lstrip("_"))
        for expected, arrangements in {
            0: (
                _the_group_of_the_session_leader,
                _a_parent_that_exited,
                _a_parent_with_a_session_of_its_own,
                _a_session_leader,
                _a_parent_of_a_session_leader_that_moved,
                _a_parent_of_a_session_leader_that_exited,
                _a_zombie_child_of_a_parent_that_exited,
            ),
            1: (
                _a_child_in_a_group_of_its_own,
                _moved_by_the_parent,
                _a_member_born_in_the_group,
                _a_child_of_a_stopped_parent,
                _a_leader_that_left_its_child_behind,
                _a_parent_that_moved_between_other_groups,
                _a_parent_that_joined_its_childs_group,
                _a_parent_of_two_that_joined_their_group,
                _a_parent_that_exited_in_the_same_group,
                _a_member_of_a_new_session,
                _one_member_of_two_exited,
                _one_member_of_two_exited_and_was_reaped,
                _one_member_of_two_moved_away,
                _one_member_of_two_left_for_a_session,
                _a_zombie_child_of_a_parent_that_left_the_group,
                _three_generations_in_three_groups,
            ),
            2: (_two_children_in_one_group, _a_parent_with_children_in_several_groups),
        }.items()
        for arrange in arrangements
    ],
)
def test_the_job_control_count(init: Process, arrange: Callable[[Process], int], expected: int) -> None:
    """kp_jobc counts the members whose parent is in another group of the session (kern_proc.c: fixjobc)."""
    assert jobc(init, arrange(init)) == expected

# SPDX-License-Identifier: BSD-2-Clause
"""Orphaned groups: what happens to a group that ceases to be a job (kern_proc.c: orphanpg())."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, Signals

import pytest

from harness.processes import WUNTRACED, Process, ProcStat
from support.processes import await_continued, bury, eventually, exists, has_stopped, hearing, jobc, logged, stop


@dataclass
class Job:
    """A group of which `stopped` is a stopped member, and what orphans it."""

    pgid: int
    stopped: Process
    orphan: Callable[[], object]


def _listening(process: Process) -> Process:
    return hearing(process, SIGHUP, SIGCONT)


def _assert_hung_up_and_continued(process: Process) -> None:
    """SIGHUP came once, and SIGCONT on top of it.

    What continues a stopped process is posted to the process and then to its thread: a thread on another CPU that is
    quick enough to take the first hears the second, too (kern_sig.c: lwpsignal).
    """
    heard = logged(process)
    assert heard[:1] == [SIGCONT]
    assert [signal for signal in heard if signal != SIGCONT] == [SIGHUP]


def _job_under(parent: Process, sender: Process) -> Process:
    child = _listening(parent.fork())
    child.setpgid(0, 0)
    stop(sender, child)
    return child


def _its_parent_exits(init: Process) -> Job:
    parent = init.fork()
    child = _job_under(parent, init)
    return Job(child.pid, child, parent.exit)


def _its_parent_is_killed(init: Process) -> Job:
    parent = init.fork()
    child = _job_under(parent, init)

    def kill() -> None:
        init.kill(parent.pid, SIGKILL)
        init.wait4(parent.pid)

    return Job(child.pid, child, kill)


def _its_parent_makes_a_session(init: Process) -> Job:
    parent = init.fork()
    child = _job_under(parent, init)
    return Job(child.pid, child, parent.setsid)


def _its_orphaned_parent_joins_it(init: Process) -> Job:
    grandparent = init.fork()
    parent = _listening(grandparent.fork())
    parent.setpgid(0, 0)
    bury(init, grandparent)
    child = _job_under(parent, init)
    return Job(child.pid, child, lambda: parent.setpgid(0, child.pid))


def _its_parent_is_the_last_of_two_to_exit(init: Process) -> Job:
    first, second = init.fork(), init.fork()
    child = _job_under(first, init)
    member = _listening(second.fork())  # lest it die beside its parent, whose end it would discount once more
    member.setpgid(0, child.pid)
    first.exit()
    return Job(child.pid, child, second.exit)


def _its_parent_exits_with_children_of_all_kinds(init: Process) -> Job:
    parent = init.fork()
    elder, departed = parent.fork(), parent.fork()
    child = _job_under(parent, init)
    others = departed, parent.fork()
    zombies = elder, parent.fork()
    for other in others:
        other.setsid()
    for zombie in zombies:
        zombie.setpgid(0, child.pid)
        zombie.exit()
    return Job(child.pid, child, parent.exit)


def _stopped_with_a_leader_of_other_descent(init: Process) -> tuple[Process, Process]:
    leader, gone = init.fork(), init.fork()
    leader.setpgid(0, 0)
    member = _listening(gone.fork())
    member.setpgid(0, leader.pid)
    bury(init, gone)
    stop(init, member)
    return leader, member


def _its_last_member_with_a_parent_moves_away(init: Process) -> Job:
    leader, member = _stopped_with_a_leader_of_other_descent(init)
    return Job(leader.pid, member, lambda: leader.setpgid(0, init.pid))


def _its_last_member_with_a_parent_is_moved_away(init: Process) -> Job:
    leader, member = _stopped_with_a_leader_of_other_descent(init)
    return Job(leader.pid, member, lambda: init.setpgid(leader.pid, init.pid))


def _its_last_member_with_a_parent_exits(init: Process) -> Job:
    leader, member = _stopped_with_a_leader_of_other_descent(init)
    return Job(leader.pid, member, leader.exit)


def _its_last_member_with_a_parent_makes_a_session(init: Process) -> Job:
    leader, member = _stopped_with_a_leader_of_other_descent(init)
    other = init.fork()
    other.setpgid(0, leader.pid)
    leader.setpgid(0, init.pid)
    return Job(leader.pid, member, other.setsid)


WAYS_TO_BE_ORPHANED = (
    _its_parent_exits,
    _its_parent_exits_with_children_of_all_kinds,
    _its_parent_is_killed,
    _its_parent_makes_a_session,
    _its_orphaned_parent_joins_it,
    _its_parent_is_the_last_of_two_to_exit,
    _its_last_member_with_a_parent_moves_away,
    _its_last_member_with_a_parent_is_moved_away,
    _its_last_member_with_a_parent_exits,
    _its_last_member_with_a_parent_makes_a_session,
)


@pytest.mark.kern_proc("orphanpg", "fixjobc")
@pytest.mark.parametrize("arrange", WAYS_TO_BE_ORPHANED, ids=lambda arrange: arrange.__name__.lstrip("_"))
def test_a_stopped_member_of_a_group_that_is_orphaned_is_hung_up_and_continued(
    init: Process, arrange: Callable[[Process], Job]
) -> None:
    """SIGHUP, then SIGCONT; both are pending when it runs, so the second handler runs on top of the first.

    (kern_proc.c: fixjobc, orphanpg; kern_sig.c: postsig)
    """
    job = arrange(init)
    assert (jobc(init, job.pgid), has_stopped(init, job.stopped)) == (1, True)
    job.orphan()
    assert jobc(init, job.pgid) == 0
    await_continued(init, job.stopped)
    _assert_hung_up_and_continued(job.stopped)


@pytest.mark.kern_proc("orphanpg")
def test_every_member_of_an_orphaned_group_is_signalled_if_one_is_stopped(init: Process) -> None:
    """The running ones, too (kern_proc.c: orphanpg)."""
    parent = init.fork()
    members = [_listening(parent.fork()) for _ in range(4)]
    for member in members:
        member.setpgid(0, members[0].pid)
    stop(init, members[2])
    parent.exit()
    await_continued(init, members[2])
    assert [set(logged(member)) for member in members] == [{SIGHUP, SIGCONT}] * 4


@pytest.mark.kern_proc("orphanpg")
@pytest.mark.parametrize("stopped", range(3))
def test_it_does_not_matter_which_member_is_stopped(init: Process, stopped: int) -> None:
    """The whole group is searched for a stopped member (kern_proc.c: orphanpg)."""
    parent = init.fork()
    members = [_listening(parent.fork()) for _ in range(3)]
    for member in members:
        member.setpgid(0, members[0].pid)
    stop(init, members[stopped])
    parent.exit()
    await_continued(init, members[stopped])
    assert [set(logged(member)) for member in members] == [{SIGHUP, SIGCONT}] * 3


@pytest.mark.kern_proc("orphanpg")
def test_each_signal_is_sent_to_an_orphan_once(init: Process) -> None:
    """However many members are stopped (kern_proc.c: orphanpg returns after the first it finds)."""
    parent = init.fork()
    members = [_listening(parent.fork()) for _ in range(3)]
    for member in members:
        member.setpgid(0, members[0].pid)
        stop(init, member)
    parent.exit()
    for member in members:
        await_continued(init, member)
        _assert_hung_up_and_continued(member)


@pytest.mark.kern_proc("orphanpg")
def test_an_orphan_that_catches_nothing_dies_of_the_hangup(init: Process) -> None:
    """SIGHUP's default is death; SIGCONT lets it happen (kern_proc.c: orphanpg)."""
    parent = init.fork()
    child = parent.fork()
    child.setpgid(0, 0)
    stop(parent, child)
    parent.setsid()
    assert parent.wait4(child.pid).signal == SIGHUP


@pytest.mark.kern_proc("orphanpg")
@pytest.mark.parametrize(
    "arrange", [_its_parent_exits, _its_parent_makes_a_session, _its_last_member_with_a_parent_moves_away]
)
def test_an_orphaned_group_without_a_stopped_member_is_left_alone(
    init: Process, arrange: Callable[[Process], Job]
) -> None:
    """No signals (kern_proc.c: orphanpg)."""
    job = arrange(init)
    init.kill(job.stopped.pid, SIGCONT)
    assert set(logged(job.stopped)) == {SIGCONT}
    job.orphan()
    assert jobc(init, job.pgid) == 0
    assert logged(job.stopped) == []


@pytest.mark.kern_proc("orphanpg")
@pytest.mark.passes("fixjobc")
def test_only_the_orphaned_group_is_signalled(init: Process) -> None:
    """A stopped process in another group of the same dead parent's family is that group's matter."""
    parent, uncle = init.fork(), init.fork()
    orphan, other = _listening(parent.fork()), _listening(parent.fork())
    orphan.setpgid(0, 0)
    other.setpgid(0, 0)
    member = _listening(uncle.fork())
    member.setpgid(0, other.pid)
    for process in (orphan, other):
        stop(init, process)
    parent.exit()
    await_continued(init, orphan)
    _assert_hung_up_and_continued(orphan)
    assert (has_stopped(init, other), logged(member), jobc(init, other.pid)) == (True, [], 1)


@pytest.mark.kern_proc("fixjobc")
def test_a_group_that_still_has_a_parent_outside_is_not_orphaned(init: Process) -> None:
    """The count drops from 2 to 1 without any signal (kern_proc.c: fixjobc)."""
    first, second = init.fork(), init.fork()
    stopped, member = _listening(first.fork()), _listening(second.fork())
    stopped.setpgid(0, 0)
    member.setpgid(0, stopped.pid)
    stop(init, stopped)
    first.exit()
    assert (jobc(init, stopped.pid), has_stopped(init, stopped), logged(member)) == (1, True, [])


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.passes("fixjobc")
def test_a_parent_that_moves_does_not_orphan_its_childs_group_on_the_way(init: Process) -> None:
    """The new group is counted before the old one is discounted (kern_proc.c: enterpgrp)."""
    parent = init.fork()
    child = _job_under(parent, init)
    parent.setpgid(0, 0)
    parent.setpgid(0, init.pid)
    init.setpgid(parent.pid, parent.pid)
    assert (jobc(init, child.pid), has_stopped(init, child)) == (1, True)
    init.kill(child.pid, SIGCONT)
    assert set(logged(child)) == {SIGCONT}


@pytest.mark.kern_proc("fixjobc")
def test_a_child_of_another_session_is_not_orphaned_by_its_parents_end(init: Process) -> None:
    """Its group never had a parent in its session (kern_proc.c: fixjobc)."""
    parent = init.fork()
    child = _listening(parent.fork())
    child.setsid()
    stop(init, child)
    parent.exit()
    assert (jobc(init, child.pid), has_stopped(init, child)) == (0, True)


@pytest.mark.kern_proc("fixjobc")
@pytest.mark.passes("orphanpg")
def test_a_group_that_was_orphaned_before_is_not_hung_up_again(init: Process) -> None:
    """Only the way from 1 to 0 counts (kern_proc.c: fixjobc)."""
    parent = init.fork()
    child, member = _listening(parent.fork()), _listening(parent.fork())
    child.setpgid(0, 0)
    member.setpgid(0, child.pid)
    parent.exit()
    assert jobc(init, child.pid) == 0
    stop(init, child)
    member.exit()
    assert (jobc(init, child.pid), has_stopped(init, child)) == (0, True)


@pytest.mark.kern_proc("orphanpg")
def test_a_member_that_was_stopped_before_it_died_does_not_count(init: Process) -> None:
    """Zombies are not stopped (kern_proc.c: orphanpg looks for SSTOP)."""
    parent = init.fork()
    child, dead = _listening(parent.fork()), parent.fork()
    child.setpgid(0, 0)
    dead.setpgid(0, child.pid)
    stop(init, dead)
    init.kill(dead.pid, SIGKILL)
    eventually(
        lambda: init.sysctl.kern_proc_pgrp(child.pid)[dead.pid].stat == ProcStat.SZOMB, "the stopped member to die"
    )
    parent.exit()
    assert jobc(init, child.pid) == 0
    assert logged(child) == []


@pytest.mark.passes("fixjobc")
@pytest.mark.parametrize("signal", [SIGTSTP, SIGTTIN, SIGTTOU])
def test_the_terminals_stop_signals_do_not_stop_an_orphaned_group(init: Process, signal: Signals) -> None:
    """There is no shell to continue it (kern_sig.c: lwpsignal looks at pg_jobc)."""
    parent = init.fork()
    child = parent.fork()
    child.setpgid(0, 0)
    stop(init, child, signal)
    init.kill(child.pid, SIGCONT)
    parent.exit()
    init.kill(child.pid, signal)
    assert child.getpgrp() == child.pid  # it answers
    assert not has_stopped(init, child)


@pytest.mark.passes("fixjobc")
def test_sigstop_stops_an_orphaned_group(init: Process) -> None:
    """SIGSTOP is nobody's courtesy (kern_sig.c: lwpsignal)."""
    child = init.fork()
    child.setsid()
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED).stop_signal == SIGSTOP


@pytest.mark.passes("fixjobc")
def test_a_handler_hears_the_terminals_stop_signals_in_an_orphaned_group(init: Process) -> None:
    """Only the default action is left out (kern_sig.c: lwpsignal)."""
    child = hearing(init.fork(), SIGTSTP)
    child.setsid()
    init.kill(child.pid, SIGTSTP)
    assert logged(child) == [SIGTSTP]


@pytest.mark.kern_proc("fixjobc")
@pytest.mark.passes("enterpgrp")
def test_a_group_with_a_parent_again_can_be_stopped_again(init: Process) -> None:
    """An orphaned group becomes a job when somebody with a parent joins it (kern_proc.c: fixjobc)."""
    parent = init.fork()
    orphan = parent.fork()
    orphan.setpgid(0, 0)
    bury(init, parent)
    init.kill(orphan.pid, SIGTSTP)
    assert orphan.getpgrp() == orphan.pid
    helper = init.fork()
    helper.setpgid(0, orphan.pid)
    assert jobc(init, orphan.pid) == 1
    stop(init, orphan, SIGTSTP)


@pytest.mark.passes("fixjobc")
def test_the_death_of_a_process_does_not_disturb_its_own_group(init: Process) -> None:
    """A parent in the same group made no member eligible, so its end changes nothing for them."""
    parent = init.fork()
    parent.setpgid(0, 0)
    child = _listening(parent.fork())
    helper = init.fork()
    helper.setpgid(0, parent.pid)
    assert jobc(init, parent.pid) == 2
    stop(init, child)
    parent.exit()
    assert (jobc(init, parent.pid), has_stopped(init, child)) == (1, True)
    init.kill(child.pid, SIGTERM)
    init.kill(child.pid, SIGCONT)
    eventually(lambda: not exists(init, child.pid), "the orphan to be reaped by init")

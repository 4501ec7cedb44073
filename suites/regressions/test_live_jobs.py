# SPDX-License-Identifier: BSD-2-Clause
"""What qualifies a process group for job control, counted from the wrong parent: defects of fixjobc() and its callers.

Each test states what ought to be, with the source of that, and fails on every kernel known so far.
"""

from __future__ import annotations

from signal import SIGTSTP

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import WNOHANG, WUNTRACED, RemoteProcess, RforkFlag
from support.holds import held
from support.processes import bury, eventually, jobc
from support.procfs import end, stalled
from support.tracing import attach, go_on

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc
defect = pytest.mark.defect


@kern_proc("fixjobc")
@pytest.mark.passes("orphanpg")
@defect(
    since=400100,
    severity="wrong answer",
    reason="fixjobc() takes the dead parent from the count, and nobody adds the reaper that is the parent from then on",
    reproducer="job-control-reaper.c",
    introduced="fc3bc2868a of 2014-11-10",
)
def test_a_reaper_qualifies_the_groups_of_whom_it_inherits(init: RemoteProcess) -> None:
    """A group is not orphaned while a member has a parent in the same session and another group (POSIX; fixjobc).

    That holds for whoever is the parent, the reaper that inherits the member included.
    """
    init.procctl_reaper_acquire()
    middle = init.fork()
    middle.setpgid(0, 0)
    first, second = middle.fork(), middle.fork()
    first.setpgid(0, 0)
    second.setpgid(0, first.pid)
    assert jobc(init, first.pid) == 2
    bury(init, middle)
    assert jobc(init, first.pid) == 2


@kern_proc("fixjobc")
@defect(
    since=400100,
    severity="wrong answer",
    reason="fixjobc() takes the dead parent from the count, and nobody adds the reaper that is the parent from then on",
    reproducer="job-control-reaper.c",
    introduced="fc3bc2868a of 2014-11-10",
)
def test_the_group_of_an_inherited_process_can_be_stopped_from_the_terminal(init: RemoteProcess) -> None:
    """It is not orphaned: its members have a parent in the session (POSIX; kern_sig.c: lwpsignal, SA_TTYSTOP)."""
    init.procctl_reaper_acquire()
    middle = init.fork()
    middle.setpgid(0, 0)
    member = middle.fork()
    member.setpgid(0, 0)
    bury(init, middle)
    init.kill(member.pid, SIGTSTP)
    eventually(lambda: init.wait4(member.pid, WUNTRACED | WNOHANG).stop_signal == SIGTSTP, "the member to stop", 10.0)


@kern_proc("fixjobc")
@defect(
    since=400100,
    severity="wrong answer",
    reason="fork1() does not count a child that RFNOWAIT gives to the reaper, and exit1() takes it from the count",
    reproducer="rfnowait-job-control.c",
)
def test_a_child_given_to_the_reaper_at_its_birth_is_counted_as_it_is_at_its_end(init: RemoteProcess) -> None:
    """Its end leaves its group as it was before its birth (rfork(2): RFNOWAIT; kern_proc.c: fixjobc)."""
    init.procctl_reaper_acquire()
    parent = init.fork()
    parent.setpgid(0, 0)
    assert jobc(init, parent.pid) == 1
    child = parent.rfork(RforkFlag.RFPROC | RforkFlag.RFFDG | RforkFlag.RFNOWAIT)
    child.exit()
    assert init.wait4(child.pid).exit_status == 0
    assert jobc(init, parent.pid) == 1


@kern_proc("fixjobc")
@pytest.mark.passes("enterpgrp")
@defect(
    since=200000,
    severity="wrong answer",
    reason="PT_ATTACH gives the tracee a parent, and fixjobc() judges its group by that one from then on",
    reproducer="traced-job-control.c",
)
def test_a_debugger_of_another_session_does_not_change_what_a_group_counts(init: RemoteProcess) -> None:
    """The parent is what it was; so is what its children's groups count (POSIX; kern_proc.c: fixjobc)."""
    child, tracer = init.fork(), init.fork()
    tracer.setsid()
    attach(tracer, child)
    go_on(tracer, child)
    child.setpgid(0, 0)
    assert jobc(init, child.pid) == 1


@kern_proc("fixjobc")
@pytest.mark.passes("enterpgrp", "pstall")
@defect(
    since=200000,
    severity="wrong answer",
    reason="setpgid() moves a process that is exiting and has left the counts already: its old group loses it twice",
    reproducer="setpgid-exiting.c",
)
def test_a_process_that_is_exiting_is_taken_from_its_groups_count_once(init: RemoteProcess, kernel: Whitebox) -> None:
    """It cannot be moved any more, or is moved and counts nowhere (kern_exit.c: exit1; kern_prot.c: sys_setpgid)."""
    leader, exiting = init.fork(), init.fork()
    leader.setpgid(0, 0)
    exiting.setpgid(0, leader.pid)
    assert jobc(init, leader.pid) == 2
    mover = init.thread()
    with held(init, kernel, exiting):
        end(exiting, 0)
        eventually(lambda: (exiting.pid, "reap1") in stalled(init), "the exit to wait for the holder")
        outcome = mover.start.setpgid(exiting.pid, exiting.pid)
        eventually(lambda: outcome.done, "setpgid() to return")
        assert jobc(init, leader.pid) == 1

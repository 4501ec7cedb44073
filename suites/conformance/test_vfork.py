# SPDX-License-Identifier: BSD-2-Clause
"""vfork(): the parent waits until the child runs a program or exits (kern_fork.c, kern_exec.c, kern_exit.c)."""

from __future__ import annotations

from errno import EINVAL
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest

from harness.processes import WNOHANG, WUNTRACED, Process, ProcFlag, RemoteProcess, RforkFlag, fails
from support.processes import await_stopped, holds, row


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_vforked_child_is_waited_for_like_any_other(init: Process) -> None:
    """The parent goes on when it has exited (kern_fork.c: start_forked_proc, P_PPWAIT)."""
    parent = init.fork()
    child = parent.vfork()
    assert init.sysctl.kern_proc_pid(child.pid)[0].ppid == parent.pid
    child.exit(7)
    result = parent.wait4(child.pid)
    assert (result.pid, result.exit_status) == (child.pid, 7)


@pytest.mark.passes("phold", "prele", "pstall")
def test_the_parent_is_marked_in_its_vforked_child(init: Process) -> None:
    """P_PPWAIT as long as it waits for it (kern_fork.c: fork1; kern_exit.c: exit1)."""
    parent = init.fork()
    child = parent.vfork()
    assert row(init, child.pid).flags & ProcFlag.P_PPWAIT
    child.exit()
    assert not row(init, child.pid).flags & ProcFlag.P_PPWAIT
    assert parent.wait4().pid == child.pid


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_parent_does_nothing_while_its_vforked_child_lives(init: RemoteProcess) -> None:
    """The child uses its memory (kern_fork.c: start_forked_proc; kern_exit.c: exit1)."""
    parent = init.fork()
    child = parent.vfork()
    pending = parent.start.getppid()
    for _ in range(20):
        assert child.getppid() == parent.pid
    assert not pending.done
    child.exit()
    assert pending.result() == init.pid
    parent.wait4(child.pid)


@pytest.mark.passes("proc_move_allproc_zombie")
def test_children_that_exit_during_a_vfork_are_waited_for_after_it(init: Process) -> None:
    """They become zombies meanwhile (kern_exit.c: exit1)."""
    parent = init.fork()
    elder = parent.fork()
    child = parent.vfork()
    elder.exit(1)
    assert init.sysctl.kern_proc_pgrp(init.pid)[elder.pid].is_zombie
    child.exit(2)
    assert [parent.wait4().pid for _ in range(2)] == [child.pid, elder.pid]


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_vforked_child_that_runs_a_program_lets_its_parent_go(init: RemoteProcess) -> None:
    """The parent waits for it as usual from then on (kern_exec.c: P_PPWAIT)."""
    parent = init.fork()
    child = parent.vfork()
    child.reexec()
    assert parent.wait4(child.pid, WNOHANG).pid == 0
    child.exit(3)
    assert parent.wait4(child.pid).exit_status == 3


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_vforked_child_is_not_stopped_before_it_runs_a_program(init: RemoteProcess) -> None:
    """Its parent could not continue it (kern_sig.c: lwpsignal, issignal)."""
    parent = init.fork()
    child = parent.vfork()
    init.kill(child.pid, SIGSTOP)
    assert child.getpid() == child.pid
    reexec = child.start.reexec()
    await_stopped(init, child)
    assert parent.wait4(child.pid, WUNTRACED).stop_signal == SIGSTOP
    init.kill(child.pid, SIGCONT)
    reexec.result()


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_vforked_child_that_is_killed_lets_its_parent_go(init: Process) -> None:
    """Dying in whatever way (kern_exit.c: exit1)."""
    parent = init.fork()
    child = parent.vfork()
    init.kill(child.pid, SIGKILL)
    assert parent.wait4(child.pid).signal == SIGKILL


@pytest.mark.kern_proc("phold", "prele")
@pytest.mark.parametrize("ended_by", ["exit", "program"])
def test_a_parent_that_waits_for_its_vforked_child_holds_it(init: RemoteProcess, ended_by: str) -> None:
    """Once, until the child has let it go (kern_fork.c: sys_vfork; kern_proc.c: phold, prele)."""
    parent, other = init.fork(), init.fork()
    child = parent.vfork()
    assert holds(init, child) == holds(init, other) + 1
    if ended_by == "program":
        child.reexec()
        assert parent.getpid() == parent.pid
        assert holds(init, child) == holds(init, other)
    child.exit()
    assert parent.wait4(child.pid).pid == child.pid


@pytest.mark.passes("proc_add_allproc")
def test_rfork_makes_no_process_unless_told_to(init: RemoteProcess) -> None:
    """It returns 0, though rfork(2) knows of EINVAL; with both RFFDG and RFCFDG it fails (kern_fork.c: fork1)."""
    before = init.sysctl.kern_proc_all().pids
    assert init.syscall("rfork", RforkFlag.RFFDG).value == 0
    with fails(EINVAL):
        init.syscall("rfork", RforkFlag.RFFDG | RforkFlag.RFCFDG)
    assert sorted(init.sysctl.kern_proc_all().pids) == sorted(before)

# SPDX-License-Identifier: BSD-2-Clause
"""Who is held while it exits: no zombie yet, but gone in every other way (kern_proc.c: proc_move_allproc_zombie())."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest

from harness.processes import WNOHANG, ProcFlag, RemoteProcess
from support.processes import eventually, jobc, row

Holder = Callable[[RemoteProcess], AbstractContextManager[None]]


def let_exit(init: RemoteProcess, process: RemoteProcess, status: int = 0) -> None:
    """Let PROCESS, which is held, exit as far as it can."""
    process.start.exit(status)
    eventually(lambda: row(init, process.pid).lwp.wmesg == "reap1", "the exit to wait for the holder")


@pytest.mark.kern_proc("proc_move_allproc_zombie")
@pytest.mark.passes("pstall", "phold", "prele", "pfind")
def test_a_held_process_is_listed_as_living_and_not_waited_for(init: RemoteProcess, holder: Holder) -> None:
    """Until the last hold is gone; its thread counts as long (kern_proc.c: proc_move_allproc_zombie, pstall)."""
    child = init.fork()
    with holder(child):
        let_exit(init, child, 3)
        (found,) = init.sysctl.kern_proc_pid(child.pid)
        assert (found.is_zombie, found.nthreads) == (False, 1)
        assert found.flags & ProcFlag.P_WEXIT
        assert found.exitstat == 3 << 8
        assert init.wait4(child.pid, WNOHANG).pid == 0
    assert init.start.wait4(child.pid).result(20.0).exit_status == 3


@pytest.mark.passes("proc_move_allproc_zombie", "pstall")
def test_who_is_held_keeps_its_children_until_it_is_let_go(init: RemoteProcess, holder: Holder) -> None:
    """Then the reaper inherits them (kern_exit.c: exit1)."""
    init.procctl_reaper_acquire()
    parent = init.fork()
    child = parent.fork()
    with holder(parent):
        let_exit(init, parent)
        assert child.getppid() == parent.pid
    assert init.start.wait4(parent.pid).result(20.0).exit_status == 0
    assert child.getppid() == init.pid


@pytest.mark.passes("proc_move_allproc_zombie", "pfind", "pstall")
def test_signals_to_who_is_held_on_its_way_out_do_nothing(init: RemoteProcess, holder: Holder) -> None:
    """Nor is that an error (kern_sig.c: kern_kill, P_WEXIT)."""
    child = init.fork()
    with holder(child):
        let_exit(init, child, 7)
        for signal in (SIGSTOP, SIGCONT, SIGKILL, 0):
            init.kill(child.pid, signal)
        init.lwp_kill(child.pid, 77, SIGKILL)
    assert init.start.wait4(child.pid).result(20.0).exit_status == 7


@pytest.mark.passes("fixjobc", "proc_move_allproc_zombie", "pstall")
def test_who_is_held_on_its_way_out_has_left_the_job_control_count(init: RemoteProcess, holder: Holder) -> None:
    """It is subtracted before the wait (kern_exit.c: exit1; kern_proc.c: fixjobc)."""
    job, member = init.fork(), init.fork()
    job.setpgid(0, 0)
    member.setpgid(0, job.pid)
    assert jobc(init, job.pid) == 2
    with holder(member):
        let_exit(init, member)
        assert jobc(init, job.pid) == 1
    assert init.start.wait4(member.pid).result(20.0).exit_status == 0
    assert jobc(init, job.pid) == 1

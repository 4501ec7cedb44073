# SPDX-License-Identifier: BSD-2-Clause
"""Who is traced has two parents: the tracer, and the one it goes back to (sys_process.c: kern_ptrace())."""

from __future__ import annotations

from errno import EBUSY, ECHILD, EINVAL, EPERM, ESRCH
from signal import SIGCHLD, SIGUSR1

import pytest

from harness.processes import WNOHANG, RemoteProcess, fails
from harness.processes.abi import DRAGONFLY
from support.processes import (
    NO_SUCH_ID,
    SOMEBODY,
    SOMEBODY_ELSE,
    await_continued,
    await_stopped,
    bury,
    eventually,
    exists,
    expect_signals,
    hearing,
    row,
)
from support.tracing import WHERE_IT_WAS, attach, go_on, let_go


@pytest.mark.passes("sysctl_out_proc")
def test_the_row_of_a_traced_process_names_its_own_parent(init: RemoteProcess) -> None:
    """Not the tracer (kern_kinfo.c: fill_kinfo_proc, p_oppid)."""
    child, tracer = init.fork(), init.fork()
    attach(tracer, child)
    assert row(init, child.pid).ppid == init.pid
    let_go(tracer, child)
    assert (row(init, child.pid).ppid, child.getppid()) == (init.pid, init.pid)


@pytest.mark.passes("proc_remove_zombie", "pfind")
def test_a_tracee_that_dies_is_waited_for_twice(init: RemoteProcess) -> None:
    """By its tracer, whose wait gives it back, and then by its parent, who hears of it (kern_exit.c: kern_wait)."""
    child, tracer = init.fork(), init.fork()
    attach(tracer, child)
    hearing(init, SIGCHLD)
    go_on(tracer, child)
    child.exit(5)
    assert tracer.wait4(child.pid).exit_status == 5
    expect_signals(init, SIGCHLD)
    assert exists(init, child.pid)
    assert init.wait4(child.pid).exit_status == 5
    with fails(ECHILD):
        tracer.wait4(child.pid, WNOHANG)


@pytest.mark.passes("proc_move_allproc_zombie")
def test_who_traces_takes_its_tracees_with_it(init: RemoteProcess) -> None:
    """They are killed when it exits (kern_exit.c: exit1)."""
    child, tracer = init.fork(), init.fork()
    attach(tracer, child)
    bury(init, tracer)
    eventually(lambda: row(init, child.pid).is_zombie, "the tracee to die")
    eventually(lambda: init.wait4(child.pid, WNOHANG).pid == child.pid, "the dead tracee to be its parent's again")


@pytest.mark.passes("pfind")
def test_a_traced_process_stops_for_each_signal_and_goes_on_as_it_is_told(init: RemoteProcess) -> None:
    """With another signal, or none, in place of the one that came (kern_sig.c: issignal)."""
    child, tracer = init.fork(), init.fork()
    hearing(child)
    attach(tracer, child)
    go_on(tracer, child)
    await_continued(init, child)
    init.kill(child.pid, SIGUSR1)
    await_stopped(init, child)
    assert tracer.wait4(child.pid).stop_signal == SIGUSR1
    tracer.ptrace("PT_CONTINUE", child.pid, WHERE_IT_WAS, DRAGONFLY.signals["SIGUSR1"])
    expect_signals(child, SIGUSR1)


@pytest.mark.passes("pfind")
def test_whom_a_process_may_not_trace(init: RemoteProcess) -> None:
    """Nobody, itself, who is traced, others' processes, and its parent while that traces it (sys_process.c)."""
    child, tracer, user, other = init.fork(), init.fork(), init.fork(), init.fork()
    with fails(ESRCH):
        tracer.ptrace("PT_ATTACH", NO_SUCH_ID)
    with fails(EINVAL):
        tracer.ptrace("PT_ATTACH", tracer.pid)
    attach(tracer, child)
    with fails(EBUSY):
        init.ptrace("PT_ATTACH", child.pid)
    user.setuid(SOMEBODY)
    other.setuid(SOMEBODY_ELSE)
    with fails(EPERM):
        user.ptrace("PT_ATTACH", other.pid)
    with fails(EPERM):
        init.ptrace("PT_CONTINUE", other.pid, WHERE_IT_WAS, 0)
    with fails(EBUSY):
        init.ptrace("PT_CONTINUE", child.pid, WHERE_IT_WAS, 0)
    let_go(tracer, child)

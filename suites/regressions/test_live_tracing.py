# SPDX-License-Identifier: BSD-2-Clause
"""A debugger becomes its tracee's parent, and much of the kernel takes it for the real one: defects of ptrace().

Each test states what ought to be, with the source of that, and fails on every kernel known so far.
"""

from __future__ import annotations

import struct
from errno import EBUSY, ECHILD, ESRCH
from signal import SIGCHLD, SIGKILL, SIGTERM, SIGURG, SIGUSR1

import pytest

from harness.processes import WNOHANG, WUNTRACED, GuestError, Handler, IdType, RemoteProcess, fails
from harness.processes.allocator import PidAllocator
from support.processes import bury, eventually, hearing, logged, row, stop
from support.procfs import end
from support.tracing import attach, go_on, let_go

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc
defect = pytest.mark.defect

# sys/procctl.h
PROC_PDEATHSIG_CTL, PROC_REAP_KILL = 4, 6
REAPER_KILL = struct.Struct("<IiIi")  # flags, signal, killed, pid_failed
reap_kill = pytest.mark.feature("reap_kill")


# ---- Circles ------------------------------------------------------------------------------------------------------


@kern_proc("inferior")
@pytest.mark.usefixtures("sacrificed")
@defect(
    since=200000,
    severity="hang by any user",
    reason="PT_ATTACH lets a child trace its own parent, and inferior() climbs round the circle of parents for ever",
    reproducer="tracing-circle.c",
)
def test_a_process_that_traces_its_parent_hangs_nobody(init: RemoteProcess) -> None:
    """Parents must not run in a circle: the attempt is refused, or whoever climbs them ends (kern_proc.c: inferior)."""
    parent, other = init.fork(), init.fork()
    child = parent.fork()
    try:
        attach(child, parent)
    except GuestError:
        return
    with fails(ESRCH):
        other.start.setpgid(child.pid, 0).result(20.0)


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.usefixtures("sacrificed")
@defect(
    since=600510,
    severity="hang by any user",
    reason="a reaper traced by its child is its own descendant, and PROC_REAP_KILL descends round the circle for ever",
    reproducer="reap-kill-circle.c",
    introduced="46d73a5af0 of 2025-03-08",
)
@reap_kill
def test_a_reaper_that_is_traced_by_its_child_is_not_its_own_descendant(init: RemoteProcess) -> None:
    """It signals the child, once, and returns (kern_fork.c: reaper_kill; sys_process.c: PT_ATTACH)."""
    reaper = init.fork()
    reaper.procctl_reaper_acquire()
    child = reaper.fork()
    try:
        attach(child, reaper)
    except GuestError:
        return
    go_on(child, reaper)
    request = REAPER_KILL.pack(0, reaper.abi.signal_number(SIGURG), 0, 0)
    answer = reaper.start.procctl(IdType.P_PID, 0, PROC_REAP_KILL, request).result(20.0)
    assert REAPER_KILL.unpack(answer)[2:] == (1, 0)


# ---- Who the parent is --------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="PT_DETACH leaves the tracer the parent if the real one has died",
    reproducer="detached-orphan.c",
)
def test_whom_a_debugger_lets_go_belongs_to_the_reaper_if_its_parent_has_died(init: RemoteProcess) -> None:
    """As any other orphan (sys_process.c: PT_DETACH, p_oppid; FreeBSD: proc_realparent())."""
    init.procctl_reaper_acquire()
    real, tracer = init.fork(), init.fork()
    kid = real.fork()
    attach(tracer, kid)
    bury(init, real)
    let_go(tracer, kid)
    assert kid.getppid() == init.pid


@pytest.mark.passes("pfind", "proc_makepid")
@defect(
    since=200000,
    severity="wrong answer",
    reason="the parent of a tracee is remembered as a number: whoever has it by then gets the child",
    reproducer="detached-to-stranger.c",
)
def test_whom_a_debugger_lets_go_is_not_given_to_a_stranger_of_its_parents_pid(
    init: RemoteProcess, allocator: PidAllocator
) -> None:
    """The parent has died, its pid is another process's (sys_process.c: p_oppid; kern_exit.c: kern_wait)."""
    init.procctl_reaper_acquire()
    real, tracer = init.fork(), init.fork()
    kid = real.fork()
    attach(tracer, kid)
    bury(init, real)
    stranger = allocator.child_with(real.pid)
    let_go(tracer, kid)
    assert kid.getppid() != stranger.pid
    with fails(ECHILD):
        stranger.wait4(kid.pid, WNOHANG)


@pytest.mark.passes("pholdzomb")
@defect(
    since=200000,
    severity="wrong answer",
    reason="kern_wait() looks at the children by p_pptr, which is the tracer",
    reproducer="traced-child-echild.c",
)
def test_a_child_traced_by_somebody_else_is_still_a_child(init: RemoteProcess) -> None:
    """wait4() of its parent has nothing to report, yet, and does not fail (POSIX: waitpid(); FreeBSD: p_orphans)."""
    child, tracer = init.fork(), init.fork()
    attach(tracer, child)
    assert init.wait4(child.pid, WNOHANG).pid == 0


@pytest.mark.passes("fill_kinfo_proc")
@defect(
    since=200000,
    severity="wrong answer",
    reason="getppid() returns p_ppid, which PT_ATTACH makes the tracer",
    reproducer="traced-getppid.c",
)
def test_a_traced_process_still_has_its_parent(init: RemoteProcess) -> None:
    """getppid() tells what kern.proc tells (POSIX: getppid(); kern_kinfo.c: p_oppid; FreeBSD: proc_realparent())."""
    child, tracer = init.fork(), init.fork()
    attach(tracer, child)
    go_on(tracer, child)
    (found,) = init.sysctl.kern_proc_pid(child.pid)
    assert found.ppid == init.pid
    assert child.getppid() == init.pid


@kern_proc("inferior")
@defect(
    since=200000,
    severity="wrong answer",
    reason="inferior() climbs p_pptr: the tracer is the parent, the parent nobody",
    reproducer="traced-setpgid.c",
)
def test_a_parent_can_move_its_child_while_somebody_traces_it(init: RemoteProcess) -> None:
    """It is its child all the same (POSIX: setpgid(); kern_proc.c: inferior)."""
    parent, tracer = init.fork(), init.fork()
    child = parent.fork()
    attach(tracer, child)
    parent.setpgid(child.pid, child.pid)
    assert init.sysctl.kern_proc_pid(child.pid)[0].pgid == child.pid


@kern_proc("inferior")
@defect(
    since=200000,
    severity="wrong answer",
    reason="inferior() climbs p_pptr: a tracee counts as the tracer's child",
    reproducer="traced-setpgid.c",
)
def test_a_debugger_cannot_move_its_tracee_to_another_group(init: RemoteProcess) -> None:
    """ESRCH: it is no child of its (POSIX: setpgid(); kern_proc.c: inferior)."""
    child, tracer = init.fork(), init.fork()
    attach(tracer, child)
    with fails(ESRCH):
        tracer.setpgid(child.pid, child.pid)


@pytest.mark.passes("pholdzomb", "proc_remove_zombie")
@defect(
    since=200000,
    severity="leak",
    reason="kern_wait() gives a tracee's zombie back to its parent without asking whether that wants zombies",
    reproducer="traced-zombie-unwanted.c",
)
def test_a_parent_that_wants_no_zombies_is_given_none_back(init: RemoteProcess) -> None:
    """Whoever ignores SIGCHLD does not wait, and the zombie stays as long as he lives (kern_exit.c: exit1)."""
    parent, tracer = init.fork(), init.fork()
    parent.sigaction(SIGCHLD, Handler.IGNORE)
    child = parent.fork()
    attach(tracer, child)
    go_on(tracer, child)
    child.exit(3)
    assert tracer.wait4(child.pid).exit_status == 3
    eventually(lambda: child.pid not in init.sysctl.kern_proc_all(), "the zombie to be gone", 5.0)


@pytest.mark.passes("pholdzomb", "proc_remove_zombie")
@defect(
    since=200000,
    severity="wrong answer",
    reason="kern_wait() gives the zombie back to p_oppid although that is the caller himself",
    reproducer="traced-child-reaped-twice.c",
)
def test_a_child_that_asked_its_parent_to_trace_it_is_reaped_once(init: RemoteProcess) -> None:
    """The first wait4() is the last (POSIX: wait(); kern_exit.c: kern_wait; NetBSD compares the parents first)."""
    child = init.fork()
    child.ptrace("PT_TRACE_ME", 0)
    child.exit(5)
    assert init.wait4(child.pid).exit_status == 5
    assert child.pid not in init.sysctl.kern_proc_all()
    with fails(ECHILD):
        init.wait4(child.pid, WNOHANG)


@pytest.mark.passes("pholdzomb")
@defect(
    since=200000,
    severity="wrong answer",
    reason="exit1() hands a dying tracer's tracees to its reaper, not to their parents, and leaves the rest to wait()",
    reproducer="tracer-dies.c",
)
def test_the_parent_of_a_tracee_whose_tracer_dies_is_told_of_its_end(init: RemoteProcess) -> None:
    """The tracee is killed, and its status is its parent's to collect, whatever the tracer's reaper does.

    FreeBSD's ptrace tests want that (tests/sys/kern/ptrace_test.c); kern_exit.c: exit1.
    """
    parent, reaper = init.fork(), init.fork()
    child = parent.fork()
    reaper.procctl_reaper_acquire()
    tracer = reaper.fork()
    attach(tracer, child)
    end(tracer, 0)
    assert reaper.start.wait4(tracer.pid).result(20.0).exit_status == 0
    assert parent.start.wait4(child.pid).result(20.0).signal == SIGKILL


@pytest.mark.passes("fill_kinfo_proc")
@defect(
    since=200000,
    severity="wrong answer",
    reason="PT_TRACE_ME is always legal, and makes the tracer the parent to return to",
    reproducer="trace-me-while-traced.c",
)
def test_a_process_that_is_traced_cannot_ask_to_be_traced(init: RemoteProcess) -> None:
    """EBUSY, as for PT_ATTACH; its parent stays what it was (sys_process.c: PT_TRACE_ME; FreeBSD since 2018)."""
    child, tracer = init.fork(), init.fork()
    attach(tracer, child)
    go_on(tracer, child)
    with fails(EBUSY):
        child.ptrace("PT_TRACE_ME", 0)
    assert row(init, child.pid).ppid == init.pid


@pytest.mark.passes("pfind")
@pytest.mark.feature("pdeathsig")
@defect(
    since=500902,
    severity="wrong answer",
    reason="exit1() looks for deaths to tell of among its children by p_pptr, and a tracee is the tracer's",
    reproducer="traced-parent-death-signal.c",
    introduced="acdf1ee6e0 of 2020-11-15",
)
def test_a_traced_process_hears_of_its_parents_death(init: RemoteProcess) -> None:
    """The signal it has asked for is about its parent, not its debugger (procctl(2); FreeBSD: p_orphans)."""
    parent, tracer = init.fork(), init.fork()
    child = parent.fork()
    hearing(child)
    number = child.abi.signal_number(SIGUSR1)
    child.procctl(IdType.P_PID, 0, PROC_PDEATHSIG_CTL, struct.pack("<i", number))
    attach(tracer, child)
    go_on(tracer, child)
    bury(init, parent)
    # A tracee stops for each signal, and its tracer passes it on.
    wait = tracer.start.wait4(child.pid, WUNTRACED)
    assert wait.result(20.0).stop_signal == SIGUSR1
    go_on(tracer, child, number)
    child.await_signal(SIGUSR1)


@pytest.mark.passes("pfind")
@reap_kill
@defect(
    since=600510,
    severity="wrong answer",
    reason="reaper_kill() descends by p_children: who is traced from outside escapes it",
    reproducer="reap-kill-traced.c",
    introduced="46d73a5af0 of 2025-03-08",
)
def test_a_descendant_traced_from_outside_is_within_its_reapers_reach(init: RemoteProcess) -> None:
    """PROC_REAP_KILL signals all descendants (procctl(2); kern_fork.c: reaper_kill)."""
    reaper, tracer = init.fork(), init.fork()
    reaper.procctl_reaper_acquire()
    child = reaper.fork()
    attach(tracer, child)
    request = REAPER_KILL.pack(0, reaper.abi.signal_number(SIGTERM), 0, 0)
    assert REAPER_KILL.unpack(reaper.procctl(IdType.P_PID, 0, PROC_REAP_KILL, request))[2:] == (1, 0)


@pytest.mark.passes("pfind")
@reap_kill
@defect(
    since=600510,
    severity="wrong answer",
    reason="reaper_kill() descends by p_children: who is traced from inside, no descendant at all, is signalled",
    reproducer="reap-kill-traced.c",
    introduced="46d73a5af0 of 2025-03-08",
)
def test_a_stranger_traced_by_a_descendant_is_out_of_its_reapers_reach(init: RemoteProcess) -> None:
    """PROC_REAP_KILL signals descendants alone (procctl(2); kern_fork.c: reaper_kill)."""
    reaper, stranger = init.fork(), init.fork()
    reaper.procctl_reaper_acquire()
    child = reaper.fork()
    attach(child, stranger)
    request = REAPER_KILL.pack(0, reaper.abi.signal_number(SIGURG), 0, 0)
    assert REAPER_KILL.unpack(reaper.procctl(IdType.P_PID, 0, PROC_REAP_KILL, request))[2:] == (1, 0)


@pytest.mark.passes("proc_usermap")
@pytest.mark.usefixtures("sacrificed")
@defect(
    since=200000,
    severity="hang",
    reason="exec and exit wake p_pptr: with the child of a vfork() traced that is the tracer, and the parent sleeps on",
    reproducer="vfork-traced.c",
)
@pytest.mark.parametrize("ended_by", ["exit", "execve"])
def test_a_debugger_does_not_keep_the_parent_of_a_vforked_child_asleep(init: RemoteProcess, ended_by: str) -> None:
    """It goes on when its child has ended or runs a program, traced or not (kern_fork.c: start_forked_proc, ppwait)."""
    parent, tracer = init.fork(), init.fork()
    child = parent.vfork()
    tracer.ptrace("PT_ATTACH", child.pid)  # it does not stop before it has given its parent's memory back
    if ended_by == "exit":
        end(child, 3)
    else:
        child.start.execve("/bin/sleep", ["sleep", "1000"])
    assert parent.start.getpid().result(20.0) == parent.pid


# ---- What stops and what goes on ----------------------------------------------------------------------------------


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="PT_ATTACH lets a process that is stopped already run instead of reporting it",
    reproducer="attach-to-stopped.c",
)
def test_a_stopped_process_stays_stopped_when_a_debugger_attaches(init: RemoteProcess) -> None:
    """And the debugger is told that it has stopped (ptrace(2): PT_ATTACH; sys_process.c: sendsig)."""
    child, tracer = init.fork(), init.fork()
    stop(init, child)
    init.wait4(child.pid, WUNTRACED)
    tracer.ptrace("PT_ATTACH", child.pid)
    assert tracer.start.wait4(child.pid, WUNTRACED).result(10.0).stop_signal is not None


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="PT_KILL leaves its signal in p_xstat, which nobody reads if the process was stopped in its sleep",
    reproducer="ptrace-kill-in-sleep.c",
)
def test_a_tracee_stopped_in_its_sleep_can_be_killed_by_its_debugger(init: RemoteProcess) -> None:
    """PT_KILL ends it (ptrace(2): PT_KILL; sys_process.c: sendsig; kern_sig.c: lwpsignal, issignal)."""
    child, tracer = init.fork(), init.fork()
    attach(tracer, child)
    tracer.ptrace("PT_KILL", child.pid)
    assert tracer.start.wait4(child.pid).result(10.0).signal == SIGKILL


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="PT_CONTINUE leaves its signal in p_xstat, which nobody reads if the process was stopped in its sleep",
    reproducer="ptrace-kill-in-sleep.c",
)
def test_a_tracee_stopped_in_its_sleep_is_given_the_signal_it_is_continued_with(init: RemoteProcess) -> None:
    """DATA is the signal to deliver (ptrace(2): PT_CONTINUE; sys_process.c: sendsig; kern_sig.c: issignal)."""
    child, tracer = init.fork(), init.fork()
    hearing(child)
    attach(tracer, child)
    go_on(tracer, child, child.abi.signal_number(SIGUSR1))
    eventually(lambda: SIGUSR1 in logged(child), "the tracee to hear of the signal", 10.0)

# SPDX-License-Identifier: BSD-2-Clause
"""Who reaps: one child is one parent's, and one thread's (kern_exit.c: kern_wait(); kern_proc.c: pholdzomb())."""

from __future__ import annotations

from signal import SIGSTOP

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import WEXITED, WNOHANG, WNOWAIT, IdType, RemoteProcess, fails
from support.holds import held, outcome
from support.processes import await_stopped, bury, eventually, exists, has_stopped, holds, keeps_the_swapper
from support.procfs import end, fails_or_not, stalled

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


@pytest.mark.feature("wait6")
@kern_proc("pholdzomb", "prelezomb")
def test_who_only_looks_at_a_zombie_leaves_no_hold_on_it(init: RemoteProcess) -> None:
    """However often (wait6(2), WNOWAIT; kern_proc.c: pholdzomb, prelezomb)."""
    zombie = init.fork()
    zombie.exit(4)

    for _ in range(3):
        assert init.wait6(IdType.P_PID, zombie.pid, WEXITED | WNOWAIT).exit_status == 4
        # Who lists it holds it as well, and the scheduler for an instant now and then.
        assert min(init.sysctl.kern_proc_all()[zombie.pid].lock for _ in range(5)) == 1
    assert init.wait4(zombie.pid).exit_status == 4


@pytest.mark.usefixtures("several_reapers")
@kern_proc("pholdzomb")
@pytest.mark.passes("prelezomb")
def test_two_threads_that_wait_for_one_child_share_nothing(init: RemoteProcess) -> None:
    """One of them reaps it, the other is told that there is no such child (kern_exit.c: kern_wait)."""
    first, second = init.thread(), init.thread()
    for round_ in range(40):
        child = init.fork()
        waits = [thread.start.wait4(child.pid) for thread in (first, second)]
        end(child, round_)
        assert {outcome(wait) for wait in waits} == {f"exited with status {round_}", "ECHILD"}
    assert stalled(init) == []


@pytest.mark.usefixtures("several_reapers")
@kern_proc("pholdzomb")
@pytest.mark.passes("prelezomb")
def test_threads_that_wait_for_any_child_get_each_child_once(init: RemoteProcess) -> None:
    """Whoever finds the zombie taken looks for another one (kern_proc.c: pholdzomb)."""
    threads = [init.thread() for _ in range(4)]
    for _ in range(10):
        children = [init.fork() for _ in threads]
        waits = [thread.start.wait4(-1) for thread in threads]
        for child in children:
            end(child, 0)
        assert sorted(wait.result(20.0).pid for wait in waits) == sorted(child.pid for child in children)
    with fails("ECHILD"):
        init.wait4(-1)
    assert stalled(init) == []


@kern_proc("proc_move_allproc_zombie")
@pytest.mark.passes("pstall", "phold", "prele", "pfind")
def test_a_process_is_no_zombie_before_everybody_has_let_go_of_it(init: RemoteProcess, kernel: Whitebox) -> None:
    """Until then its exit waits, and it is found and listed (kern_proc.c: proc_move_allproc_zombie)."""
    child = init.fork()
    with held(init, kernel, child):
        end(child, 3)
        eventually(lambda: (child.pid, "reap1") in stalled(init), "the exit to wait for the holder")
        (found,) = init.sysctl.kern_proc_pid(child.pid)
        assert not found.is_zombie
        for listed in (init.sysctl.kern_proc_all(), init.sysctl.kern_proc_pgrp(init.pid), init.sysctl.kern_proc_uid(0)):
            assert listed.pids.count(child.pid) == 1
        assert init.wait4(child.pid, WNOHANG).pid == 0
    assert init.start.wait4(child.pid).result(20.0).exit_status == 3


@kern_proc("pstall")
@pytest.mark.passes("zpfind", "sysctl_out_proc", "sysctl_kern_proc", "prele", "proc_remove_zombie")
def test_a_zombie_is_there_until_its_reaper_has_got_hold_of_it_alone(init: RemoteProcess, kernel: Whitebox) -> None:
    """Without threads, but still listed, once, and to be signalled (kern_exit.c: kern_wait; kern_proc.c: pstall)."""
    zombie, reaper = init.fork(), init.thread()
    zombie.exit(7)
    with held(init, kernel, zombie):
        wait = reaper.start.wait4(zombie.pid)
        eventually(lambda: (init.pid, "reap3") in stalled(init), "the reaper to wait for the holder")
        for lwp in (False, True):
            assert init.sysctl.kern_proc_all(lwp=lwp).pids.count(zombie.pid) == 1
        init.kill(zombie.pid, 0)
        assert not wait.done
    assert wait.result(20.0).exit_status == 7
    assert zombie.pid not in init.sysctl.kern_proc_all()


@kern_proc("zpfind")
@pytest.mark.passes("pstall")
def test_an_inherited_zombie_is_found_until_process_1_has_reaped_it(init: RemoteProcess, kernel: Whitebox) -> None:
    """By anybody, as any zombie (kern_proc.c: zpfind)."""
    parent = init.fork()
    zombie = parent.fork()
    zombie.exit()
    with held(init, kernel, zombie):
        bury(init, parent)
        eventually(lambda: (1, "reap3") in stalled(init), "process 1 to wait for the holder")
        init.kill(zombie.pid, 0)
    eventually(lambda: not exists(init, zombie.pid), "process 1 to reap it")


@pytest.mark.feature("!wait_reservation")
@pytest.mark.usefixtures("several_reapers")
@kern_proc("pholdzomb", "prelezomb")
@pytest.mark.passes("pstall", "prele")
@pytest.mark.parametrize("latecomers", [1, 3])
def test_whoever_finds_a_zombie_being_reaped_waits_and_gets_nothing(
    init: RemoteProcess, kernel: Whitebox, latecomers: int
) -> None:
    """One reaper at a time; the others look again when it is done (kern_proc.c: pholdzomb, prelezomb)."""
    zombie = init.fork()
    first, *others = [init.thread() for _ in range(1 + latecomers)]
    zombie.exit(7)
    with held(init, kernel, zombie):
        waits = [first.start.wait4(zombie.pid)]
        eventually(lambda: (init.pid, "reap3") in stalled(init), "the first to wait for the holder")
        waits += [other.start.wait4(zombie.pid) for other in others]
        waiting = [(init.pid, "phldz")] * latecomers + [(init.pid, "reap3")]
        eventually(lambda: sorted(stalled(init)) == waiting, "the others to wait for the first")
    assert [outcome(wait) for wait in waits] == ["exited with status 7"] + ["ECHILD"] * latecomers
    assert stalled(init) == []


@pytest.mark.feature("wait_reservation")
@kern_proc("pwaitres_set")
@pytest.mark.passes("pholdzomb", "prelezomb", "pstall", "prele")
def test_a_zombie_being_reaped_is_nobody_elses_child(init: RemoteProcess, kernel: Whitebox) -> None:
    """Other threads pass it over while its reaper waits (kern_exit.c: kern_wait; kern_proc.c: pwaitres_set)."""
    zombie, reaper = init.fork(), init.thread()
    zombie.exit(7)
    with held(init, kernel, zombie):
        wait = reaper.start.wait4(zombie.pid)
        eventually(lambda: (init.pid, "reap3") in stalled(init), "the reaper to wait for the holder")
        with fails("ECHILD"):
            init.wait4(zombie.pid)
    assert outcome(wait) == "exited with status 7"


@kern_proc("pholdzomb")
@pytest.mark.passes("prelezomb", "proc_remove_zombie")
def test_a_traced_child_is_waited_for_by_its_tracer_and_then_by_its_parent(init: RemoteProcess) -> None:
    """The tracer's wait() gives the zombie back instead of removing it (kern_exit.c: kern_wait, p_oppid)."""
    child, tracer = init.fork(), init.fork()
    tracer.ptrace("PT_ATTACH", child.pid)
    await_stopped(init, child)
    assert tracer.start.wait4(child.pid).result(20.0).stop_signal == SIGSTOP
    tracer.ptrace("PT_CONTINUE", child.pid, 1, 0)
    end(child, 5)
    assert tracer.start.wait4(child.pid).result(20.0).exit_status == 5
    assert init.start.wait4(child.pid).result(20.0).exit_status == 5
    assert child.pid not in init.sysctl.kern_proc_all()
    with fails("ECHILD"):
        tracer.wait4(child.pid)


@pytest.mark.passes("pfind", "phold", "prele")
def test_a_debugger_that_lets_go_leaves_no_hold(init: RemoteProcess) -> None:
    """After PT_DETACH the process is its parent's again and can be reaped (sys_process.c: kern_ptrace)."""
    child, tracer = init.fork(), init.fork()
    before = holds(init, child)
    tracer.ptrace("PT_ATTACH", child.pid)
    await_stopped(init, child)
    tracer.start.wait4(child.pid).result(20.0)
    with fails("EBUSY"):
        init.ptrace("PT_ATTACH", child.pid)
    tracer.ptrace("PT_DETACH", child.pid, 1, 0)
    assert not has_stopped(init, child)
    assert holds(init, child) == before
    assert child.getppid() == init.pid
    bury(init, child)


@kern_proc("pfind")
@pytest.mark.passes("phold", "prele", "pgfind", "inferior")
@keeps_the_swapper
def test_calls_that_look_up_a_process_leave_no_hold_on_it(init: RemoteProcess) -> None:
    """Whether they succeed or not (kern_proc.c: pfind, PRELE)."""
    child, user = init.fork(), init.fork()
    user.setuid(61_003)
    before = holds(init, child)
    for _ in range(5):
        for caller in (init, user, child):
            caller.getpgid(child.pid)
            caller.getsid(child.pid)
            with fails_or_not():
                caller.kill(child.pid, 0)
            with fails_or_not():
                caller.setpgid(child.pid, init.pid)
            with fails_or_not():
                caller.syscall("setpriority", 0, child.pid, 0)
            with fails_or_not():
                caller.syscall("rtprio", 0, child.pid, bytes(4))
            with fails_or_not():
                caller.ptrace("PT_CONTINUE", child.pid)
    assert holds(init, child) == before
    bury(init, child)

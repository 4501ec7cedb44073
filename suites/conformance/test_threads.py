# SPDX-License-Identifier: BSD-2-Clause
"""Threads and their end (kern_proc.c: lwpfind(), lwp_userunmap(); kern_exit.c: lwp_exit())."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from signal import SIGKILL

import pytest

from harness.processes import Pending, ProcessGone, RemoteProcess, RemoteThread
from support.processes import bury, eventually, keep_busy
from support.sysctl import setting

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


def tids(observer: RemoteProcess, process: RemoteProcess) -> list[int]:
    """Return the ids of PROCESS's threads as its rows tell them."""
    return sorted(row.lwp.tid for row in observer.sysctl.kern_proc_pid(process.pid, lwp=True))


def keep_asleep(thread: RemoteProcess | RemoteThread) -> Pending[None]:
    """Let THREAD sleep for an hour."""
    return thread.start.nanosleep(3600.0)


@pytest.mark.passes("sysctl_out_proc")
def test_each_thread_is_listed_with_its_id(init: RemoteProcess) -> None:
    """Ids are different, and one process's alone (kern_fork.c: lwp_fork)."""
    child = init.fork()
    threads = [child.thread() for _ in range(5)]
    expected = sorted([child.gettid(), *(thread.tid for thread in threads)])
    assert len(set(expected)) == 6
    assert tids(init, child) == expected
    assert init.sysctl.kern_proc_pid(child.pid)[0].nthreads == 6


@pytest.mark.passes("sysctl_out_proc")
def test_a_thread_that_ends_is_listed_no_more_and_the_others_go_on(init: RemoteProcess) -> None:
    """Its structure is disposed of by the kernel, nobody waits for it (kern_exit.c: lwp_exit)."""
    child = init.fork()
    first, second = child.thread(), child.thread()
    first.exit()
    eventually(lambda: tids(init, child) == sorted([child.gettid(), second.tid]), "the thread to end")
    assert init.sysctl.kern_proc_pid(child.pid)[0].nthreads == 2
    assert second.getpid() == child.getpid() == child.pid
    bury(init, child)


@kern_proc("lwpuserret")
@pytest.mark.parametrize("activity", [keep_busy, keep_asleep])
def test_exit_ends_all_threads(init: RemoteProcess, activity: object) -> None:
    """Those in the kernel leave it by way of their end, running ones at their next return to user mode (lwpuserret)."""
    child = init.fork()
    for _ in range(3):
        assert callable(activity)
        activity(child.thread())
    child.exit(5)
    assert init.wait4(child.pid).exit_status == 5


@pytest.mark.passes("lwpuserret")
def test_any_thread_can_end_the_process(init: RemoteProcess) -> None:
    """_exit() in one thread ends the others, the first included (kern_exit.c: exit1, killalllwps)."""
    child = init.fork()
    thread = child.thread()
    keep_asleep(child.thread())
    keep_busy(child)
    thread.start.syscall("exit", 6)
    assert init.start.wait4(child.pid).result(30.0).exit_status == 6


@pytest.mark.passes("lwpuserret")
def test_a_signal_ends_all_threads(init: RemoteProcess) -> None:
    """Whatever they do (kern_exit.c: exit1)."""
    child = init.fork()
    keep_busy(child.thread())
    keep_busy(child.thread())
    keep_asleep(child.thread())
    init.kill(child.pid, SIGKILL)
    assert init.start.wait4(child.pid).result(30.0).signal == SIGKILL


@pytest.mark.passes("lwpuserret")
def test_execve_leaves_one_thread(init: RemoteProcess) -> None:
    """The one that called it (kern_exec.c: killalllwps)."""
    child = init.fork()
    keep_busy(child.thread())
    keep_asleep(child.thread())
    child.reexec()
    (row,) = init.sysctl.kern_proc_pid(child.pid, lwp=True)
    assert (row.nthreads, row.lwp.tid) == (1, child.gettid())


@pytest.mark.passes("lwpuserret")
def test_a_process_that_opens_a_file_too_many_frees_others_on_its_way_out_of_the_kernel(init: RemoteProcess) -> None:
    """As many at once as it is told to; the system's own thread takes five a second (vfs_lock.c: allocvnode_gc)."""
    folder = f"/tmp/vnodes-{init.pid}"  # noqa: S108  (in the guest)
    init.mkdir(folder)
    files = [f"{folder}/{number}" for number in range(120)]
    for file in files:
        init.close(init.open(file, os.O_CREAT | os.O_WRONLY))
    before = init.sysctl.get_int("debug.numvnodes")
    with setting(init, "debug.batchfreevnodes", 100), setting(init, "kern.maxvnodes", before // 2):
        init.close(init.open(f"{folder}/last", os.O_CREAT | os.O_WRONLY))
        after = init.sysctl.get_int("debug.numvnodes")
    for file in [*files, f"{folder}/last"]:
        init.unlink(file)
    init.rmdir(folder)
    assert after < before - 50


AXSIG = 0x10  # sys/acct.h: killed by a signal


@kern_proc("lwpuserret")
@pytest.mark.parametrize("ended_by", ["exit", "execve"])
def test_threads_that_have_to_end_are_not_killed(init: RemoteProcess, ended_by: str) -> None:
    """They exit before the signal that hurries them is heeded: the accounting shows none (kern_proc.c: lwpuserret)."""
    assert not threads_are_killed(init, ended_by, keep_asleep, keep_asleep)
    # Who runs may be between the two looks the kernel takes on the way back to user mode (trap.c: userret).
    eventually(
        lambda: not threads_are_killed(init, ended_by, keep_busy, keep_asleep),
        "a running thread to exit before it heeds the signal",
    )


def threads_are_killed(init: RemoteProcess, ended_by: str, *activities: Callable[[RemoteThread], object]) -> bool:
    """Tell whether a process counts as killed when it exits or runs a program while each thread does its activity."""
    child = init.fork()
    for activity in activities:
        activity(child.thread())
    eventually(
        lambda: (
            [row.lwp.wmesg for row in init.sysctl.kern_proc_pid(child.pid, lwp=True)].count("nanslp")
            == activities.count(keep_asleep)
        ),
        "those threads to sleep that shall",
    )
    if ended_by == "exit":
        child.exit(5)
        return init.sysctl.kern_proc_all()[child.pid].acflag & AXSIG != 0
    child.reexec()
    return init.sysctl.kern_proc_pid(child.pid)[0].acflag & AXSIG != 0


@pytest.mark.passes("lwpuserret")
def test_threads_that_exit_at_the_same_time_leave_nothing_behind(init: RemoteProcess) -> None:
    """The process is reaped with all of them (kern_exit.c: lwp_exit, reaplwps)."""
    for _ in range(5):
        child = init.fork()
        with suppress(ProcessGone):  # whoever is first may end the others before they are told to
            for thread in [child.thread() for _ in range(6)]:
                thread.start.syscall("exit", 7)
        assert init.start.wait4(child.pid).result(30.0).exit_status == 7
        assert child.pid not in init.sysctl.kern_proc_all()


@pytest.mark.passes("sysctl_out_proc")
def test_a_zombie_with_many_threads_has_one_row_and_no_threads(init: RemoteProcess) -> None:
    """Only the thread that ended it is still there until the reaping (kern_exit.c: lwp_exit)."""
    zombie = init.fork()
    for _ in range(3):
        keep_asleep(zombie.thread())
    zombie.exit()
    table = init.sysctl.kern_proc_all(lwp=True)
    (row,) = table.rows_of(zombie.pid)
    assert (row.is_zombie, row.nthreads) == (True, 0)

# SPDX-License-Identifier: BSD-2-Clause
"""Threads: their ids and rows, what they block, and which hears a signal (kern_sig.c: find_lwp_for_signal())."""

from __future__ import annotations

from signal import SIGCONT, SIGHUP, SIGSTOP, SIGUSR1

import pytest

from harness.processes import SIG_BLOCK, RemoteProcess, RemoteThread, fails
from harness.processes.memory import OwnMemory
from harness.processes.vocabulary import SignalName
from support.processes import NO_SUCH_ID, await_stopped, eventually, has_stopped, hearing, signal_number

pytestmark = pytest.mark.passes("proc_makepid")

NO_THREAD = 77  # a thread id nobody has
EXTEXIT_SETINT, EXTEXIT_LWP = 1, 1 << 16
MAP_PRIVATE, MAP_ANON = 0x2, 0x1000


def several_threads(init: RemoteProcess) -> tuple[RemoteProcess, RemoteThread, RemoteThread]:
    """Return a child that logs SIGUSR1, and two more threads of it."""
    child = hearing(init.fork())
    threads = child, child.thread(), child.thread()
    # Who is about to run hears a signal before those who sleep.
    eventually(
        lambda: all(row.lwp.wmesg for row in init.sysctl.kern_proc_pid(child.pid, lwp=True)), "all threads to sleep"
    )
    return threads


def heard(thread: RemoteProcess | RemoteThread) -> list[SignalName]:
    """Return the signals that this thread has heard since the last time."""
    return [record.signal for record in thread.signals()]


def expect_heard(thread: RemoteProcess | RemoteThread) -> None:
    """Wait until this thread has heard SIGUSR1, and nothing else."""
    found: list[SignalName] = []

    def came() -> bool:
        found.extend(heard(thread))
        return bool(found)

    eventually(came, "a thread to hear a signal")
    assert found == [SIGUSR1]


def tids(init: RemoteProcess, process: RemoteProcess) -> list[int]:
    """Return the ids of PROCESS's threads as its rows tell them."""
    return sorted(row.lwp.tid for row in init.sysctl.kern_proc_pid(process.pid, lwp=True))


# ---- Ids and rows -------------------------------------------------------------------------------------------------


@pytest.mark.passes("sysctl_out_proc")
def test_threads_have_a_row_each_and_are_counted(init: RemoteProcess) -> None:
    """Of a zombie one is listed and none counted (kern_proc.c: sysctl_out_proc; kern_exit.c: lwp_exit)."""
    child, second, third = several_threads(init)
    assert tids(init, child) == sorted({child.gettid(), second.tid, third.tid})
    assert init.sysctl.kern_proc_pid(child.pid)[0].nthreads == 3
    child.exit()
    (row,) = init.sysctl.kern_proc_all(lwp=True).rows_of(child.pid)
    assert (row.is_zombie, row.nthreads) == (True, 0)


def test_threads_are_numbered_from_their_first_on(init: RemoteProcess) -> None:
    """Without a gap, in the order of their making (kern_fork.c: lwp_fork)."""
    child, second, third = several_threads(init)
    first = init.gettid()
    assert (child.gettid(), second.tid, third.tid) == (first, first + 1, first + 2)
    assert first in (0, 1)


@pytest.mark.passes("sysctl_out_proc")
@pytest.mark.parametrize(
    "again",
    [
        pytest.param(True, marks=pytest.mark.feature("lpmap")),
        pytest.param(False, marks=pytest.mark.feature("!lpmap")),
    ],
)
def test_whether_the_id_of_a_thread_that_has_ended_is_used_again(init: RemoteProcess, again: bool) -> None:
    """Since November 2019, by the next thread of whoever had made it; before, it never is (kern_fork.c: lwp_fork)."""
    child, second, third = several_threads(init)
    second.exit()
    eventually(lambda: init.sysctl.kern_proc_pid(child.pid)[0].nthreads == 2, "the thread to end")
    assert child.thread().tid == (second.tid if again else third.tid + 1)


@pytest.mark.passes("sysctl_out_proc")
def test_a_child_begins_with_one_thread(init: RemoteProcess) -> None:
    """However many its parent has; it has the first id, as the one that forked (kern_fork.c: fork1)."""
    child, _, _ = several_threads(init)
    grandchild = child.fork()
    assert tids(init, grandchild) == [grandchild.gettid()] == [child.gettid()]


@pytest.mark.parametrize(
    "inherited",
    [
        pytest.param(True, marks=pytest.mark.feature("lpmap")),
        pytest.param(False, marks=pytest.mark.feature("!lpmap")),
    ],
)
def test_whether_a_childs_thread_has_the_id_of_the_one_that_forked(init: RemoteProcess, inherited: bool) -> None:
    """Since November 2019; before, a vforked child's only (kern_fork.c: lwp_fork)."""
    child, _, third = several_threads(init)
    first = child.gettid()
    assert child.fork().gettid() == first
    assert third.fork().gettid() == (third.tid if inherited else first)


@pytest.mark.passes("sysctl_out_proc")
def test_the_end_of_a_thread_leaves_the_others(init: RemoteProcess) -> None:
    """Nobody waits for it (kern_exit.c: sys_extexit, lwp_exit)."""
    child, second, third = several_threads(init)
    second.exit()
    eventually(lambda: tids(init, child) == [child.gettid(), third.tid], "the thread to end")
    assert (child.getpid(), third.getpid()) == (child.pid, child.pid)


@pytest.mark.needs_kernel
def test_the_end_of_a_thread_may_be_noted_in_memory(init: RemoteProcess) -> None:
    """EXTEXIT_SETINT stores its status first (extexit(2); kern_exit.c: sys_extexit)."""
    child, second, third = several_threads(init)
    page = child.syscall("mmap", 0, 4096, 3, MAP_PRIVATE | MAP_ANON, -1, 0, 0).wide
    second.start.syscall("extexit", EXTEXIT_LWP | EXTEXIT_SETINT, 77, page)  # nobody is left to answer
    eventually(lambda: tids(init, child) == [child.gettid(), third.tid], "the thread to end")
    assert OwnMemory(child).word(page) == 77


@pytest.mark.needs_kernel
@pytest.mark.parametrize(
    ("how", "address", "error"),
    [
        (1, 8, "EFAULT"),
        (1 << 16 | 1, 8, "EFAULT"),
        (2, 0, "EINVAL"),
        (1 << 16 | 2, 0, "EINVAL"),
        (2 << 16, 0, "EINVAL"),
    ],
)
def test_an_end_that_cannot_be_is_none(init: RemoteProcess, how: int, address: int, error: str) -> None:
    """An address that is none, or a way that is none: everybody goes on (kern_exit.c: sys_extexit)."""
    child, second, third = several_threads(init)
    with fails(error):
        second.syscall("extexit", how, 1, address)
    assert tids(init, child) == [child.gettid(), second.tid, third.tid]


@pytest.mark.needs_kernel
@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.parametrize("how", ["process", "last thread"])
def test_extexit_ends_a_process_too(init: RemoteProcess, how: str) -> None:
    """EXTEXIT_PROC, and the end of the last thread, are exit(): the status counts (kern_exit.c: sys_extexit)."""
    if how == "process":
        child, second, _ = several_threads(init)
        second.start.syscall("extexit", 0, 9, 0)
    else:
        child = init.fork()
        child.start.syscall("extexit", EXTEXIT_LWP, 9, 0)
    assert init.start.wait4(child.pid).result(20.0).exit_status == 9


@pytest.mark.passes("lwpuserret")
def test_another_program_has_one_thread(init: RemoteProcess) -> None:
    """The others end, and its own has the first id (kern_exec.c: killalllwps)."""
    child, _, _ = several_threads(init)
    first = child.gettid()
    child.reexec()
    assert (tids(init, child), child.gettid()) == ([first], first)
    assert init.sysctl.kern_proc_pid(child.pid)[0].nthreads == 1


@pytest.mark.parametrize(
    "anew",
    [
        pytest.param(True, marks=pytest.mark.feature("lpmap")),
        pytest.param(False, marks=pytest.mark.feature("!lpmap")),
    ],
)
def test_whether_the_ids_of_threads_begin_anew_with_a_program(init: RemoteProcess, anew: bool) -> None:
    """Since November 2019; before, they go on (kern_exec.c: exec_new_vmspace; kern_fork.c: lwp_fork)."""
    child, second, third = several_threads(init)
    child.reexec()
    assert child.thread().tid == (second.tid if anew else third.tid + 1)


@pytest.mark.passes("lwpuserret")
def test_any_thread_ends_its_process_by_exit(init: RemoteProcess) -> None:
    """With the others (kern_exit.c: exit1, killalllwps)."""
    child, _, third = several_threads(init)
    third.start.syscall("exit", 6)
    assert init.start.wait4(child.pid).result(20.0).exit_status == 6


@pytest.mark.passes("sysctl_out_proc")
@pytest.mark.parametrize(
    "summed",
    [
        pytest.param(True, marks=pytest.mark.eras(since=500_702, reason="rows sum up threads since June 2019")),
        pytest.param(False, marks=pytest.mark.eras(until=500_701, reason="rows sum up threads since June 2019")),
    ],
)
def test_a_processs_row_shows_the_mask_of_one_thread(init: RemoteProcess, summed: bool) -> None:
    """That of the first; in a sum what was written last, the last one's (kern_kinfo.c: fill_kinfo_lwp)."""
    child, _, third = several_threads(init)
    child.sigprocmask(SIG_BLOCK, [SIGUSR1])
    third.sigprocmask(SIG_BLOCK, [SIGHUP])
    shown = SIGHUP if summed else SIGUSR1
    assert init.sysctl.kern_proc_pid(child.pid)[0].lwp.sigmask == {signal_number(child, shown)}


# ---- Signals ------------------------------------------------------------------------------------------------------


def test_a_new_thread_blocks_what_its_creator_does(init: RemoteProcess) -> None:
    """Afterwards each has a mask of its own (POSIX: pthread_create(); kern_fork.c: lwp_fork)."""
    child = init.fork()
    child.sigprocmask(SIG_BLOCK, [SIGUSR1])
    thread = child.thread()
    assert thread.sigprocmask(SIG_BLOCK, [SIGHUP]) == {SIGUSR1}
    assert child.sigprocmask(SIG_BLOCK, []) == {SIGUSR1}
    assert thread.sigprocmask(SIG_BLOCK, []) == {SIGUSR1, SIGHUP}


def test_a_signal_is_heard_by_one_thread(init: RemoteProcess) -> None:
    """Of sleeping ones by the first (POSIX: 2.4.1; kern_sig.c: find_lwp_for_signal)."""
    child, second, third = several_threads(init)
    init.kill(child.pid, SIGUSR1)
    expect_heard(child)
    assert (heard(second), heard(third)) == ([], [])


def test_a_signal_is_heard_by_a_thread_that_does_not_block_it(init: RemoteProcess) -> None:
    """The others go on as they did (POSIX: 2.4.1; kern_sig.c: find_lwp_for_signal)."""
    child, second, third = several_threads(init)
    for thread in (child, second):
        thread.sigprocmask(SIG_BLOCK, [SIGUSR1])
    init.kill(child.pid, SIGUSR1)
    expect_heard(third)
    assert (heard(child), child.sigpending()) == ([], frozenset())


def test_who_signals_its_own_process_hears_it_itself(init: RemoteProcess) -> None:
    """Before its call returns (POSIX: kill(); kern_sig.c: find_lwp_for_signal)."""
    child, second, third = several_threads(init)
    third.kill(child.pid, SIGUSR1)
    assert [heard(thread) for thread in (child, second, third)] == [[], [], [SIGUSR1]]


def test_what_all_threads_block_waits_for_whoever_lets_it_in(init: RemoteProcess) -> None:
    """All are told that it is pending (POSIX: 2.4.1; kern_sig.c: lwpsignal)."""
    child, second, third = several_threads(init)
    for thread in (child, second, third):
        thread.sigprocmask(SIG_BLOCK, [SIGUSR1])
    init.kill(child.pid, SIGUSR1)
    assert [thread.sigpending() for thread in (child, second, third)] == [{SIGUSR1}] * 3
    second.sigprocmask()
    assert [heard(thread) for thread in (child, second, third)] == [[], [SIGUSR1], []]
    assert child.sigpending() == frozenset()


def test_a_signal_for_one_thread_is_that_ones(init: RemoteProcess) -> None:
    """Blocked, it waits for it alone (lwp_kill(2); kern_sig.c: kern_kill, lwpsignal)."""
    child, second, third = several_threads(init)
    init.lwp_kill(child.pid, third.tid, SIGUSR1)
    expect_heard(third)
    second.sigprocmask(SIG_BLOCK, [SIGUSR1])
    child.lwp_kill(-1, second.tid, SIGUSR1)
    assert [thread.sigpending() for thread in (second, third)] == [{SIGUSR1}, set()]
    assert [heard(thread) for thread in (child, second, third)] == [[], [], []]
    second.sigprocmask()
    assert heard(second) == [SIGUSR1]


def test_what_is_no_thread_cannot_be_signalled(init: RemoteProcess) -> None:
    """ESRCH for an unknown id, EINVAL for -1 and for groups (kern_sig.c: sys_lwp_kill, kern_kill)."""
    child, _, _ = several_threads(init)
    for pid, tid, error in (
        (child.pid, NO_THREAD, "ESRCH"),
        (NO_SUCH_ID, 1, "ESRCH"),
        (child.pid, -1, "EINVAL"),
        (0, 1, "EINVAL"),
        (-init.pid, 1, "EINVAL"),
    ):
        with fails(error):
            init.lwp_kill(pid, tid, 0)


def test_a_zombie_has_any_thread_to_be_signalled(init: RemoteProcess) -> None:
    """Nobody looks for it (kern_sig.c: kern_kill)."""
    zombie = init.fork()
    zombie.exit()
    init.lwp_kill(zombie.pid, NO_THREAD, SIGUSR1)


def test_stopping_one_thread_stops_all(init: RemoteProcess) -> None:
    """And continuing one continues all (POSIX: 2.4.3; kern_sig.c: lwpsignal, proc_stop)."""
    child, second, _ = several_threads(init)
    init.lwp_kill(child.pid, second.tid, SIGSTOP)
    await_stopped(init, child)
    init.lwp_kill(child.pid, second.tid, SIGCONT)
    eventually(lambda: not has_stopped(init, child), "all threads to go on")
    assert (child.getpid(), second.getpid()) == (child.pid, child.pid)

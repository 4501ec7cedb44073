# SPDX-License-Identifier: BSD-2-Clause
"""Waiting: how it ends, and several threads that wait at once (kern_exit.c: kern_wait())."""

from __future__ import annotations

from collections.abc import Callable
from errno import ECHILD, EINTR
from signal import SIGCHLD, SIGCONT, SIGSTOP, SIGTERM, SIGUSR1

import pytest

from harness.processes import SA_RESTART, WCONTINUED, WUNTRACED, GuestError, Handler, RemoteProcess, WaitResult, fails
from support.children import exited_child
from support.processes import await_asleep, eventually, logged, resume, row, stop

# ---- Waiting ------------------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.parametrize("whom", ["child", "anybody", "group"])
def test_a_wait_under_way_ends_when_a_child_exits(init: RemoteProcess, whom: str) -> None:
    """The parent sleeps until then (kern_exit.c: kern_wait, p_waitgen)."""
    parent = init.fork()
    child = parent.fork()
    pending = parent.start.wait4({"child": child.pid, "anybody": -1, "group": 0}[whom])
    assert not pending.done
    child.exit(5)
    assert pending.result().exit_status == 5


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_wait_under_way_ends_when_a_child_is_killed(init: RemoteProcess) -> None:
    """Whoever killed it (kern_exit.c: exit1 wakes the parent)."""
    parent = init.fork()
    child = parent.fork()
    pending = parent.start.wait4()
    init.kill(child.pid, SIGTERM)
    assert pending.result().signal == SIGTERM


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_wait_under_way_ends_when_a_child_stops_and_when_it_continues(init: RemoteProcess) -> None:
    """If it asked for that (kern_sig.c: proc_stop, lwpsignal)."""
    parent = init.fork()
    child = parent.fork()
    pending = parent.start.wait4(child.pid, WUNTRACED)
    stop(init, child)
    assert pending.result().stop_signal == SIGSTOP
    pending = parent.start.wait4(child.pid, WCONTINUED)
    resume(init, child)
    assert pending.result().continued


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_wait_for_one_child_sleeps_on_when_another_exits(init: RemoteProcess) -> None:
    """It is woken, looks, and sleeps again (kern_exit.c: kern_wait)."""
    parent = init.fork()
    child, other = parent.fork(), parent.fork()
    pending = parent.start.wait4(child.pid)
    await_asleep(init, parent)
    other.exit()
    await_asleep(init, parent)
    assert not pending.done
    child.exit(2)
    assert pending.result().exit_status == 2
    assert parent.wait4().pid == other.pid


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_wait_sleeps_on_when_a_child_stops_that_it_did_not_ask_about(init: RemoteProcess) -> None:
    """Neither stop nor continuation ends it (kern_exit.c: kern_wait)."""
    parent = init.fork()
    child = parent.fork()
    pending = parent.start.wait4()
    await_asleep(init, parent)
    stop(init, child)
    await_asleep(init, parent)
    resume(init, child)
    await_asleep(init, parent)
    assert not pending.done
    child.exit()
    assert pending.result().pid == child.pid


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.parametrize("restart", [False, True], ids=["not restarted", "SA_RESTART"])
def test_a_handler_interrupts_a_wait_unless_it_restarts_it(init: RemoteProcess, restart: bool) -> None:
    """EINTR, or on it goes (kern_exit.c: kern_wait sleeps with PCATCH)."""
    parent = init.fork()
    child = parent.fork()
    parent.sigaction(SIGUSR1, Handler.LOG, SA_RESTART if restart else 0)
    pending = parent.start.wait4()
    await_asleep(init, parent)
    init.kill(parent.pid, SIGUSR1)
    if restart:
        eventually(lambda: row(init, parent.pid).lwp.ru.nsignals == 1, "the handler to run")
        await_asleep(init, parent)
        assert not pending.done
        child.exit()
        assert pending.result().pid == child.pid
    else:
        with fails(EINTR):
            pending.result()
        child.getpid()
    assert logged(parent) == [SIGUSR1]


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_parent_stopped_while_it_waits_goes_on_waiting_when_continued(init: RemoteProcess) -> None:
    """The stop is no end of the wait (kern_exit.c: kern_wait)."""
    parent = init.fork()
    child = parent.fork()
    pending = parent.start.wait4()
    await_asleep(init, parent)
    stop(init, parent)
    child.exit(4)
    assert not pending.done
    init.kill(parent.pid, SIGCONT)
    assert pending.result().exit_status == 4


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_wait_under_way_ends_with_echild_when_the_last_child_is_given_away(init: RemoteProcess) -> None:
    """As happens to the children of a parent that wants no zombies (kern_exit.c: proc_reparent wakes it up)."""
    parent = init.fork()
    parent.sigaction(SIGCHLD, Handler.IGNORE)
    first, second = parent.fork(), parent.fork()
    pending = parent.start.wait4()
    await_asleep(init, parent)  # else it may see the second as a zombie that is still its own
    first.exit()
    second.exit()
    with fails(ECHILD):
        pending.result()


@pytest.mark.passes("proc_remove_zombie")
def test_a_waiting_reaper_is_told_of_inherited_zombies(init: RemoteProcess) -> None:
    """It is woken for the zombies it inherits (kern_exit.c: exit1)."""
    reaper = init.fork()
    reaper.procctl_reaper_acquire()
    parent = reaper.fork()
    zombie = exited_child(parent, 9)
    with fails(ECHILD):  # it is not its child yet
        reaper.wait4(zombie.pid)
    pending = reaper.start.wait4()
    parent.exit(8)
    first = pending.result()
    second = reaper.wait4()
    assert {(first.pid, first.exit_status), (second.pid, second.exit_status)} == {(parent.pid, 8), (zombie.pid, 9)}


# ---- Several threads waiting --------------------------------------------------------------------------------------


def _outcome(result: Callable[[], WaitResult]) -> int | str:
    try:
        return result().pid
    except GuestError as error:
        return error.name


@pytest.mark.usefixtures("several_reapers")
@pytest.mark.kern_proc("pholdzomb")
@pytest.mark.passes("prelezomb", "proc_remove_zombie")
@pytest.mark.needs_kernel
def test_of_two_threads_that_wait_for_one_child_one_gets_it(init: RemoteProcess) -> None:
    """The other finds no child any more (kern_exit.c: kern_wait; kern_proc.c: pholdzomb)."""
    parent = init.fork()
    thread = parent.thread()
    for _ in range(5):
        child = parent.fork()
        pending = [parent.start.wait4(child.pid), thread.start.wait4(child.pid)]
        child.exit()
        assert sorted(map(str, (_outcome(one.result) for one in pending))) == sorted([str(child.pid), "ECHILD"])


@pytest.mark.usefixtures("several_reapers")
@pytest.mark.passes("pholdzomb", "prelezomb", "proc_remove_zombie")
@pytest.mark.needs_kernel
def test_threads_that_wait_for_anybody_share_the_children(init: RemoteProcess) -> None:
    """Each zombie is reported to one of them (kern_exit.c: kern_wait)."""
    parent = init.fork()
    threads = [parent, *(parent.thread() for _ in range(3))]
    children = [parent.fork() for _ in threads]
    pending = [thread.start.wait4() for thread in threads]
    for child in children:
        child.exit()
    assert {one.result().pid for one in pending} == {child.pid for child in children}
    with fails(ECHILD):
        parent.wait4()

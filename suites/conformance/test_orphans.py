# SPDX-License-Identifier: BSD-2-Clause
"""Orphans: who inherits the children of the dead, and parents that want no zombies (kern_exit.c: exit1())."""

from __future__ import annotations

from collections.abc import Callable
from errno import EALREADY, ECHILD, EFAULT, EINVAL, ENOTCONN
from signal import SIGCHLD, SIGKILL, SIGSTOP

import pytest

from harness.processes import (
    SA_NOCLDSTOP,
    SA_NOCLDWAIT,
    WNOHANG,
    WUNTRACED,
    Handler,
    IdType,
    Process,
    RemoteProcess,
    fails,
)
from support.children import exited_child
from support.processes import bury, eventually, exists, logged, row, stop

P_PID, PROC_REAP_ACQUIRE, PROC_REAP_STATUS = 0, 1, 3  # sys/procctl.h

# ---- Inheritance --------------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_move_allproc_zombie")
def test_orphans_go_to_process_one_when_their_parent_exits(init: Process) -> None:
    """At its exit, not only when it is reaped (kern_exit.c: exit1)."""
    parent = init.fork()
    orphan = parent.fork()
    parent.exit()
    assert orphan.getppid() == 1
    assert init.sysctl.kern_proc_pid(orphan.pid)[0].ppid == 1
    init.wait4(parent.pid)
    assert orphan.getppid() == 1


@pytest.mark.passes("proc_remove_zombie")
def test_a_zombie_whose_parent_exits_is_reaped_by_process_one(init: Process) -> None:
    """Nobody else could (kern_exit.c: exit1)."""
    parent = init.fork()
    zombie = exited_child(parent)
    assert exists(init, zombie.pid)
    parent.exit()
    eventually(lambda: not exists(init, zombie.pid), "init to reap the zombie")
    assert exists(init, parent.pid)


@pytest.mark.passes("proc_remove_zombie")
def test_an_orphan_that_exits_is_reaped_by_process_one(init: Process) -> None:
    """As any child of init (kern_exit.c: exit1)."""
    parent = init.fork()
    orphan = parent.fork()
    bury(init, parent)
    orphan.exit()
    eventually(lambda: not exists(init, orphan.pid), "init to reap the orphan")


@pytest.mark.passes("proc_remove_zombie")
def test_a_reaper_inherits_the_orphans_below_it(init: Process) -> None:
    """Living ones and zombies, from any depth (kern_exit.c: exit1; kern_fork.c: reaper_get)."""
    init.procctl_reaper_acquire()
    child = init.fork()
    grandchild = child.fork()
    orphan = grandchild.fork()
    zombie = exited_child(grandchild, 9)
    grandchild.exit()
    assert orphan.getppid() == init.pid
    assert init.wait4(zombie.pid).exit_status == 9
    assert child.wait4(grandchild.pid).pid == grandchild.pid
    orphan.exit(8)
    assert init.wait4(orphan.pid).exit_status == 8


@pytest.mark.passes("proc_remove_zombie")
def test_inherited_zombies_are_reaped_eldest_first(init: Process) -> None:
    """They change lists one by one, head to head, which turns their order round (kern_exit.c: exit1)."""
    init.procctl_reaper_acquire()
    parent = init.fork()
    zombies = [exited_child(parent) for _ in range(4)]
    bury(init, parent)
    assert [init.wait4().pid for _ in zombies] == [zombie.pid for zombie in zombies]


@pytest.mark.passes("proc_remove_zombie")
def test_the_nearest_reaper_inherits(init: Process) -> None:
    """Reapers nest (kern_fork.c: reaper_init, reaper_get)."""
    init.procctl_reaper_acquire()
    near = init.fork()
    near.procctl_reaper_acquire()
    parent = near.fork()
    orphan = parent.fork()
    bury(near, parent)
    assert orphan.getppid() == near.pid


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.parametrize("ending", ["release", "exit"])
def test_without_the_nearest_reaper_the_next_one_inherits(init: Process, ending: str) -> None:
    """Both the orphans to come and the children it leaves (kern_fork.c: reaper_exit, reaper_get)."""
    init.procctl_reaper_acquire()
    near = init.fork()
    near.procctl_reaper_acquire()
    parent = near.fork()
    orphan = parent.fork()
    if ending == "release":
        near.procctl_reaper_release()
        bury(near, parent)
    else:
        near.exit()
        assert parent.getppid() == init.pid
        bury(init, parent)
    assert orphan.getppid() == init.pid


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.parametrize("gone", [1, 2, 3])
def test_orphans_pass_by_all_reapers_that_have_gone(init: Process, gone: int) -> None:
    """Though a nearer one that lives is asked meanwhile (kern_fork.c: reaper_get, which shortens the chain)."""
    init.procctl_reaper_acquire()
    between = [init]
    for _ in range(gone):
        between.append(between[-1].fork())
        between[-1].procctl_reaper_acquire()
    near = between[-1].fork()
    near.procctl_reaper_acquire()
    for reaper in between[1:]:
        bury(init, reaper)
    for _ in range(2):
        parent = near.fork()
        kept = parent.fork()
        bury(near, parent)
        assert kept.getppid() == near.pid
        bury(near, kept)
    orphan = near.fork()
    bury(init, near)
    assert orphan.getppid() == init.pid
    bury(init, orphan)


@pytest.mark.passes("proc_remove_zombie")
def test_a_reaper_that_has_released_its_office_inherits_no_more(init: Process) -> None:
    """Orphans go to process one again; those inherited before stay (kern_fork.c: sys_procctl)."""
    init.procctl_reaper_acquire()
    first, second = init.fork(), init.fork()
    kept, lost = first.fork(), second.fork()
    bury(init, first)
    init.procctl_reaper_release()
    bury(init, second)
    assert (kept.getppid(), lost.getppid()) == (init.pid, 1)


@pytest.mark.passes("proc_remove_zombie")
def test_the_office_of_reaper_is_not_inherited(init: Process) -> None:
    """A reaper's child is under it, but is none itself (kern_fork.c: fork1, sys_procctl)."""
    init.procctl_reaper_acquire()
    child = init.fork()
    assert (init.procctl_reaper_status().owned, child.procctl_reaper_status().owned) == (True, False)
    with fails(ENOTCONN):
        child.procctl_reaper_release()
    child.procctl_reaper_acquire()


@pytest.mark.passes("proc_remove_zombie")
def test_the_office_of_reaper_is_taken_once(init: Process) -> None:
    """EALREADY the second time, ENOTCONN for giving up what one has not (kern_fork.c: sys_procctl)."""
    with fails(ENOTCONN):
        init.procctl_reaper_release()
    init.procctl_reaper_acquire()
    with fails(EALREADY):
        init.procctl_reaper_acquire()
    init.procctl_reaper_release()
    with fails(ENOTCONN):
        init.procctl_reaper_release()
    init.procctl_reaper_acquire()


@pytest.mark.passes("proc_makepid")
def test_nobody_makes_a_reaper_of_another(init: RemoteProcess) -> None:
    """Not even of a child or its own group: EINVAL for all but the caller's pid (kern_fork.c: sys_procctl)."""
    child = init.fork()
    for idtype, id_ in ((IdType.P_PID, child.pid), (IdType.P_PGID, init.pid), (IdType.P_ALL, init.pid)):
        with fails(EINVAL):
            init.procctl(idtype, id_, PROC_REAP_ACQUIRE)
    assert not init.procctl_reaper_status().owned
    init.procctl(IdType.P_PID, init.pid, PROC_REAP_ACQUIRE)
    assert init.procctl_reaper_status().owned


@pytest.mark.passes("pfind")
@pytest.mark.needs_kernel
def test_a_reapers_status_need_not_be_told(init: Process) -> None:
    """Without a place for it nothing is wrong, with a bad one it is EFAULT (kern_fork.c: sys_procctl, uap->data)."""
    assert isinstance(init, RemoteProcess)
    init.procctl_reaper_acquire()
    assert init.syscall("procctl", P_PID, init.pid, PROC_REAP_STATUS, 0).value == 0
    with fails(EFAULT):
        init.syscall("procctl", P_PID, init.pid, PROC_REAP_STATUS, 0x1000)


@pytest.mark.passes("proc_remove_zombie")
def test_a_reapers_status_names_its_youngest_child(init: Process) -> None:
    """The head of p_children, zombies included; -1 for none (kern_fork.c: sys_procctl)."""
    init.procctl_reaper_acquire()
    assert init.procctl_reaper_status().first_child == -1
    elder, younger = init.fork(), init.fork()
    younger.exit()
    assert init.procctl_reaper_status().first_child == younger.pid
    init.wait4(younger.pid)
    assert init.procctl_reaper_status().first_child == elder.pid


@pytest.mark.passes("proc_makepid")
def test_a_reaper_inherits_across_sessions_and_groups(init: Process) -> None:
    """Daemons do not escape it (kern_exit.c: exit1)."""
    init.procctl_reaper_acquire()
    parent = init.fork()
    daemon = parent.fork()
    daemon.setsid()
    bury(init, parent)
    assert (daemon.getppid(), daemon.getsid()) == (init.pid, daemon.pid)


@pytest.mark.passes("proc_remove_zombie")
def test_an_inherited_child_reports_to_its_new_parent(init: Process) -> None:
    """SIGCHLD and stop reports go to whoever is the parent now (kern_exit.c: exit1; kern_sig.c: proc_stop)."""
    init.procctl_reaper_acquire()
    parent = init.fork()
    orphan = parent.fork()
    bury(init, parent)
    init.sigaction(SIGCHLD, Handler.LOG)
    stop(init, orphan)
    assert init.wait4(orphan.pid, WUNTRACED).stop_signal == SIGSTOP
    assert logged(init) == [SIGCHLD]
    init.kill(orphan.pid, SIGKILL)
    # A wait4() that sleeps would be interrupted by the signal it is about (kern_exit.c: exit1 signals, then wakes).
    eventually(lambda: row(init, orphan.pid).is_zombie, "the orphan to die")
    assert init.wait4(orphan.pid).signal == SIGKILL
    assert logged(init) == [SIGCHLD]


# ---- Parents that want none ---------------------------------------------------------------------------------------


def _ignore(process: Process) -> None:
    process.sigaction(SIGCHLD, Handler.IGNORE)


def _no_child_wait(process: Process) -> None:
    process.sigaction(SIGCHLD, Handler.DEFAULT, SA_NOCLDWAIT)


def _no_child_wait_with_handler(process: Process) -> None:
    process.sigaction(SIGCHLD, Handler.LOG, SA_NOCLDWAIT)


UNWILLING = pytest.mark.parametrize(
    "refuse",
    [_ignore, _no_child_wait, _no_child_wait_with_handler],
    ids=["SIGCHLD ignored", "SA_NOCLDWAIT", "SA_NOCLDWAIT with a handler"],
)


@pytest.mark.passes("proc_remove_zombie")
@UNWILLING
def test_the_children_of_a_parent_that_wants_no_zombies_leave_none(
    init: Process, refuse: Callable[[Process], None]
) -> None:
    """They are handed to process one, which reaps them (kern_exit.c: exit1, PS_NOCLDWAIT and PS_CLDSIGIGN)."""
    refuse(init)
    child = init.fork()
    child.exit(1)
    with fails(ECHILD):
        init.wait4(child.pid)
    eventually(lambda: not exists(init, child.pid), "init to reap the child")
    assert logged(init) == []


@pytest.mark.passes("proc_remove_zombie")
@UNWILLING
def test_what_nobody_wants_goes_with_its_own_children_to_the_reaper(
    init: Process, refuse: Callable[[Process], None]
) -> None:
    """Those that live, and those that are zombies already (kern_exit.c: exit1, reproc)."""
    init.procctl_reaper_acquire()
    parent = init.fork()
    refuse(parent)
    child = parent.fork()
    living, zombie = child.fork(), child.fork()
    zombie.exit(7)
    child.exit(6)
    assert init.wait4(child.pid).exit_status == 6
    assert init.wait4(zombie.pid).exit_status == 7
    assert living.getppid() == init.pid
    bury(init, living, parent)


@pytest.mark.passes("proc_remove_zombie")
@UNWILLING
def test_the_nearest_reaper_gets_the_zombies_nobody_wants(init: Process, refuse: Callable[[Process], None]) -> None:
    """With their status, and with SIGCHLD (kern_exit.c: exit1)."""
    init.procctl_reaper_acquire()
    init.sigaction(SIGCHLD, Handler.LOG)
    parent = init.fork()
    refuse(parent)
    child = parent.fork()
    child.exit(6)
    assert init.wait4(child.pid).exit_status == 6
    assert logged(init) == [SIGCHLD]
    with fails(ECHILD):
        parent.wait4()


@pytest.mark.passes("proc_remove_zombie")
@UNWILLING
def test_a_reaper_that_wants_no_zombies_has_to_keep_its_own(init: Process, refuse: Callable[[Process], None]) -> None:
    """There is nobody to hand them to: the nearest reaper is the parent itself (kern_exit.c: exit1)."""
    init.procctl_reaper_acquire()
    refuse(init)
    child = init.fork()
    child.exit(2)
    assert init.sysctl.kern_proc_pgrp(init.pid)[child.pid].is_zombie
    assert init.wait4(child.pid).exit_status == 2


@pytest.mark.passes("proc_remove_zombie")
@UNWILLING
def test_zombies_that_were_there_before_stay(init: Process, refuse: Callable[[Process], None]) -> None:
    """The parent's wish counts at the time of the exit (kern_exit.c: exit1)."""
    zombie = exited_child(init, 3)
    refuse(init)
    later = init.fork()
    later.exit()
    assert init.wait4().pid == zombie.pid
    with fails(ECHILD):
        init.wait4()


@pytest.mark.passes("proc_remove_zombie")
@UNWILLING
def test_a_parent_may_change_its_mind_before_the_child_exits(init: Process, refuse: Callable[[Process], None]) -> None:
    """Back to the default, zombies are kept again (kern_sig.c: kern_sigaction)."""
    refuse(init)
    child = init.fork()
    init.sigaction(SIGCHLD, Handler.DEFAULT)
    child.exit(5)
    assert init.wait4(child.pid).exit_status == 5


@pytest.mark.passes("proc_remove_zombie")
@UNWILLING
def test_the_wish_for_no_zombies_is_inherited_by_fork(init: Process, refuse: Callable[[Process], None]) -> None:
    """With the signal actions (kern_fork.c: fork1)."""
    refuse(init)
    child = init.fork()
    grandchild = child.fork()
    grandchild.exit()
    with fails(ECHILD):
        child.wait4(grandchild.pid)


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.parametrize("refuse", [_ignore, _no_child_wait], ids=["SIGCHLD ignored", "SA_NOCLDWAIT"])
def test_the_wish_for_no_zombies_ends_when_a_program_is_run(
    init: RemoteProcess, refuse: Callable[[Process], None]
) -> None:
    """execve() resets both (kern_sig.c: execsigs)."""
    parent = init.fork()
    refuse(parent)
    parent.reexec()
    child = parent.fork()
    child.exit(4)
    assert parent.wait4(child.pid).exit_status == 4


@pytest.mark.passes("proc_remove_zombie")
def test_no_stop_reports_does_not_mean_no_zombies(init: Process) -> None:
    """SA_NOCLDSTOP is about SIGCHLD for stopped children only (kern_exit.c: exit1)."""
    init.sigaction(SIGCHLD, Handler.LOG, SA_NOCLDSTOP)
    child = init.fork()
    child.exit(1)
    assert logged(init) == [SIGCHLD]
    assert init.wait4(child.pid).exit_status == 1


@pytest.mark.passes("proc_remove_zombie")
@UNWILLING
def test_wait_without_zombies_to_come_returns_when_the_last_child_is_gone(
    init: Process, refuse: Callable[[Process], None]
) -> None:
    """While there are children there is something to wait for; then ECHILD (kern_exit.c: kern_wait)."""
    refuse(init)
    first, second = init.fork(), init.fork()
    first.exit()
    assert init.wait4(options=WNOHANG).pid == 0
    second.exit()
    with fails(ECHILD):
        init.wait4()

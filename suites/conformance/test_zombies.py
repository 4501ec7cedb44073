# SPDX-License-Identifier: BSD-2-Clause
"""Zombies: what is left of a process between its exit and its parent's wait(), and who inherits it.

A zombie keeps its pid, group, session and exit status.  The kernel's searches by pid pass it over, except for kill();
the listings of the process table show it.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ECHILD, EINVAL, EPERM, ESRCH
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1

import pytest

from harness.processes import (
    WCONTINUED,
    WUNTRACED,
    Handler,
    Process,
    ProcFlag,
    ProcStat,
    ProcTable,
    RemoteProcess,
    fails,
)
from harness.processes.allocator import random_pids
from support.children import exited_child
from support.processes import SOMEBODY, SOMEBODY_ELSE, bury, chain_mates, eventually, exists, logged, row, stop

# ---- Who still sees it --------------------------------------------------------------------------------------------


LISTINGS: dict[str, Callable[[Process, bool], ProcTable]] = {
    "all": lambda init, lwp: init.sysctl.kern_proc_all(lwp=lwp),
    "pgrp": lambda init, lwp: init.sysctl.kern_proc_pgrp(init.pid, lwp=lwp),
    "uid": lambda init, lwp: init.sysctl.kern_proc_uid(SOMEBODY, lwp=lwp),
    "ruid": lambda init, lwp: init.sysctl.kern_proc_ruid(SOMEBODY, lwp=lwp),
}


@pytest.mark.kern_proc("sysctl_kern_proc")
@pytest.mark.passes("sysctl_out_proc", "proc_move_allproc_zombie")
@pytest.mark.parametrize("lwp", [False, True], ids=["processes", "threads"])
@pytest.mark.parametrize("listing", LISTINGS)
def test_a_zombie_is_listed_once(init: Process, listing: str, lwp: bool) -> None:
    """Every listing but kern.proc.pid shows zombies, the ones by thread, too (kern_proc.c: sysctl_kern_proc)."""
    zombie = init.fork()
    zombie.setuid(SOMEBODY)
    zombie.exit()
    assert [found.stat for found in LISTINGS[listing](init, lwp).rows_of(zombie.pid)] == [ProcStat.SZOMB]
    init.wait4(zombie.pid)
    assert LISTINGS[listing](init, lwp).rows_of(zombie.pid) == []


@pytest.mark.kern_proc("pfind")
@pytest.mark.passes("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True], ids=["process", "threads"])
def test_a_zombie_is_not_found_by_its_pid(init: Process, lwp: bool) -> None:
    """kern.proc.pid searches by pfind(), which passes over zombies, and calls nothing no error."""
    child = init.fork()
    assert [found.pid for found in init.sysctl.kern_proc_pid(child.pid, lwp=lwp)] == [child.pid]
    child.exit()
    assert init.sysctl.kern_proc_pid(child.pid, lwp=lwp) == []


@pytest.mark.kern_proc("sysctl_kern_proc_args")
@pytest.mark.passes("pfind")
def test_a_zombie_has_no_arguments(init: Process) -> None:
    """Nothing, and no error (kern_proc.c: sysctl_kern_proc_args)."""
    assert init.sysctl.kern_proc_args(exited_child(init).pid) == []


@pytest.mark.kern_proc("sysctl_kern_proc_cwd")
@pytest.mark.passes("pfind")
def test_a_zombie_has_no_working_directory(init: Process) -> None:
    """Nothing, and no error (kern_proc.c: sysctl_kern_proc_cwd)."""
    assert init.sysctl.kern_proc_cwd(exited_child(init).pid) == ""


@pytest.mark.kern_proc("sysctl_kern_proc_pathname")
@pytest.mark.passes("pfind")
def test_a_zombie_runs_no_program(init: Process) -> None:
    """ESRCH, as for an unknown pid (kern_proc.c: sysctl_kern_proc_pathname)."""
    zombie = exited_child(init)
    assert row(init, zombie.pid).is_zombie  # asking a process that is just dying panics the kernel
    with fails(ESRCH):
        init.sysctl.kern_proc_pathname(zombie.pid)


@pytest.mark.passes("pfind")
def test_a_zombies_group_cannot_be_asked_for(init: Process) -> None:
    """ESRCH (kern_prot.c: sys_getpgid)."""
    zombie = exited_child(init)
    with fails(ESRCH):
        init.getpgid(zombie.pid)


@pytest.mark.passes("pfind")
def test_a_zombies_session_cannot_be_asked_for(init: Process) -> None:
    """ESRCH (kern_prot.c: sys_getsid)."""
    zombie = exited_child(init)
    with fails(ESRCH):
        init.getsid(zombie.pid)


@pytest.mark.passes("pfind")
def test_a_zombie_can_be_moved_to_no_group(init: Process) -> None:
    """ESRCH even for its parent, and it stays where it was (kern_prot.c: sys_setpgid)."""
    zombie, group = init.fork(), init.fork()
    group.setpgid(0, 0)
    zombie.exit()
    for pgid in (0, zombie.pid, group.pid, init.pid):
        with fails(ESRCH):
            init.setpgid(zombie.pid, pgid)
    assert init.sysctl.kern_proc_pgrp(init.pid)[zombie.pid].pgid == init.pid


# ---- Signals ------------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("zpfind")
@pytest.mark.parametrize("signal", [0, SIGTERM, SIGKILL, SIGSTOP, SIGCONT])
def test_signalling_a_zombie_succeeds_and_does_nothing(init: Process, signal: int) -> None:
    """The sender cannot know it was late (kern_sig.c: kern_kill, zpfind)."""
    zombie = exited_child(init, 7)
    init.kill(zombie.pid, signal)
    found = init.sysctl.kern_proc_pgrp(init.pid)[zombie.pid]
    assert (found.stat, found.exitstat) == (ProcStat.SZOMB, 7 << 8)
    assert init.wait4(zombie.pid, WUNTRACED | WCONTINUED).exit_status == 7


@pytest.mark.passes("zpfind")
def test_anybody_may_signal_a_zombie(init: Process) -> None:
    """There is no permission check for zombies (kern_sig.c: kern_kill)."""
    child, stranger = init.fork(), init.fork()
    stranger.setuid(SOMEBODY)
    with fails(EPERM):
        stranger.kill(child.pid, 0)
    child.exit()
    stranger.kill(child.pid, 0)


@pytest.mark.kern_proc("proc_remove_zombie")
@pytest.mark.passes("zpfind")
def test_a_zombie_can_be_signalled_by_itself_only_until_it_is_reaped(init: Process) -> None:
    """Then its pid is nobody's: ESRCH (kern_sig.c: kern_kill; kern_proc.c: proc_remove_zombie)."""
    zombie = exited_child(init)
    init.kill(zombie.pid, 0)
    init.wait4(zombie.pid)
    with fails(ESRCH):
        init.kill(zombie.pid, 0)


@pytest.mark.passes("zpfind")
@pytest.mark.parametrize("signal", [-1, 129])
def test_a_number_that_is_no_signal_is_refused_for_a_zombie_too(init: Process, signal: int) -> None:
    """EINVAL comes first (kern_sig.c: kern_kill)."""
    zombie = exited_child(init)
    with fails(EINVAL):
        init.kill(zombie.pid, signal)


# ---- What it keeps ------------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_move_allproc_zombie", "sysctl_out_proc")
def test_a_zombie_keeps_its_identity(init: Process) -> None:
    """Who it was, whose, and since when (kern_kinfo.c: fill_kinfo_proc)."""
    child = init.fork()
    child.setpgid(0, 0)
    child.setresuid(SOMEBODY, SOMEBODY, SOMEBODY_ELSE)
    (alive,) = init.sysctl.kern_proc_pid(child.pid)
    child.exit()
    dead = init.sysctl.kern_proc_pgrp(child.pid)[child.pid]
    for name in ("pid", "ppid", "pgid", "sid", "uid", "ruid", "svuid", "rgid", "groups", "login", "comm", "start"):
        assert getattr(dead, name) == getattr(alive, name), name
    assert (dead.ppid, dead.pgid, dead.sid) == (init.pid, child.pid, init.pid)


@pytest.mark.passes("proc_move_allproc_zombie", "sysctl_out_proc")
@pytest.mark.parametrize("status", [0, 1, 255])
def test_a_zombies_row_shows_its_exit_status(init: Process, status: int) -> None:
    """kp_exitstat is the word wait4() will return (kern_exit.c: exit1)."""
    zombie = exited_child(init, status)
    shown = init.sysctl.kern_proc_pgrp(init.pid)[zombie.pid].exitstat
    assert shown == status << 8 == init.wait4(zombie.pid).raw_status


@pytest.mark.passes("proc_move_allproc_zombie", "sysctl_out_proc")
def test_a_zombies_row_shows_the_signal_that_killed_it(init: Process) -> None:
    """kp_exitstat, also where it had been stopped by another signal before (kern_exit.c: exit1)."""
    child = init.fork()
    stop(init, child)
    init.kill(child.pid, SIGKILL)
    eventually(lambda: init.sysctl.kern_proc_pgrp(init.pid)[child.pid].is_zombie, "the child to die")
    shown = init.sysctl.kern_proc_pgrp(init.pid)[child.pid].exitstat
    assert shown == 9 == init.wait4(child.pid).raw_status


@pytest.mark.passes("proc_move_allproc_zombie", "sysctl_out_proc")
def test_a_zombie_has_no_threads_and_uses_no_cpu(init: Process) -> None:
    """kp_nthreads 0, kl_pctcpu 0, P_WEXIT set (kern_exit.c: lwp_exit; kern_kinfo.c: fill_kinfo_lwp)."""
    zombie = exited_child(init)
    shown = init.sysctl.kern_proc_pgrp(init.pid)[zombie.pid]
    assert (shown.nthreads, shown.lwp.pctcpu) == (0, 0)
    assert shown.flags & ProcFlag.P_WEXIT


@pytest.mark.kern_proc("prele", "phold", "pstall")
@pytest.mark.passes("proc_move_allproc_zombie")
def test_looking_at_a_process_leaves_no_hold_on_it(init: Process) -> None:
    """kp_lock counts holds; one is the query's own.  A hold left over would keep the process from dying.

    (kern_proc.c: phold, prele, pstall)
    """
    child = init.fork()
    init.getpgid(child.pid)
    init.getsid(child.pid)
    init.setpgid(child.pid, child.pid)
    init.kill(child.pid, 0)
    init.sysctl.kern_proc_args(child.pid)
    init.sysctl.kern_proc_cwd(child.pid)
    init.sysctl.kern_proc_pathname(child.pid)
    init.sysctl.kern_proc_all()
    eventually(lambda: row(init, child.pid).lock == 1, "all holds on the child to be released")
    child.exit()
    for _ in range(3):
        init.kill(child.pid, 0)
        init.sysctl.kern_proc_pid(child.pid)
        with fails(ESRCH):
            init.getsid(child.pid)
    assert init.wait4(child.pid).pid == child.pid


@pytest.mark.kern_proc("pfind")
@pytest.mark.passes("phold", "prele", "proc_move_allproc_zombie")
def test_looking_at_oneself_leaves_no_hold_either(init: Process) -> None:
    """The search by pid has a short cut for the caller, which holds like any other (kern_proc.c: pfind)."""
    child = init.fork()
    child.getpgid(child.pid)
    child.getsid(child.pid)
    child.kill(child.pid, 0)
    child.setpgid(child.pid, child.pid)
    child.sysctl.kern_proc_pid(child.pid)
    child.sysctl.kern_proc_args(child.pid)
    child.sysctl.kern_proc_cwd(child.pid)
    child.sysctl.kern_proc_pathname(child.pid)
    eventually(lambda: row(init, child.pid).lock == 1, "all holds on the child to be released")
    bury(init, child)


@pytest.mark.passes("phold", "prele")
def test_a_zombie_is_held_by_its_last_thread(init: Process) -> None:
    """Until that is put away, in the course of the reaping (kern_exit.c: lwp_exit, reaplwp)."""
    living, zombie = init.fork(), exited_child(init)
    eventually(lambda: row(init, zombie.pid).lock == row(init, living.pid).lock + 1, "one hold to be left")
    assert init.wait4(zombie.pid).pid == zombie.pid


@pytest.mark.kern_proc("proc_remove_zombie")
@pytest.mark.passes("leavepgrp")
def test_nothing_is_left_of_a_zombie_after_the_wait(init: Process) -> None:
    """Neither in the tables nor among the children (kern_proc.c: proc_remove_zombie)."""
    zombie = exited_child(init)
    init.wait4(zombie.pid)
    assert zombie.pid not in init.sysctl.kern_proc_all()
    assert zombie.pid not in init.sysctl.kern_proc_pgrp(init.pid)
    for call in (init.getpgid, init.getsid, lambda pid: init.kill(pid, 0)):
        with fails(ESRCH):
            call(zombie.pid)
    with fails(ECHILD):
        init.wait4(zombie.pid)
    with fails(ECHILD):
        init.wait4()


@pytest.mark.kern_proc("proc_remove_zombie")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_zombies_are_reaped_in_any_order(init: Process, order: tuple[int, ...]) -> None:
    """Taking one out of the lists leaves the others in (kern_proc.c: proc_remove_zombie)."""
    zombies = [exited_child(init, status) for status in range(3)]
    left = {zombie.pid for zombie in zombies}
    for index in order:
        assert {pid for pid in init.sysctl.kern_proc_pgrp(init.pid).pids if pid != init.pid} == left
        assert init.wait4(zombies[index].pid).exit_status == index
        left.discard(zombies[index].pid)
    assert init.sysctl.kern_proc_pgrp(init.pid).pids == [init.pid]


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.parametrize("dying", ["in order of birth", "in reverse order"])
def test_the_youngest_zombie_is_reaped_first(init: Process, dying: str) -> None:
    """wait4(-1) takes the first of p_children, which grows at its head; when they died does not matter."""
    children = [init.fork() for _ in range(4)]
    for child in children if dying == "in order of birth" else children[::-1]:
        child.exit()
    assert [init.wait4().pid for _ in children] == [child.pid for child in children[::-1]]


@pytest.mark.passes("proc_remove_zombie", "leavepgrp", "sysctl_kern_proc")
def test_many_zombies_are_all_kept_and_all_reaped(init: Process) -> None:
    """Each is listed once and reaped once, with the status it left (kern_exit.c: kern_wait)."""
    zombies = {exited_child(init, status).pid: status for status in range(30)}
    listed = [found.pid for found in init.sysctl.kern_proc_pgrp(init.pid) if found.is_zombie]
    assert sorted(listed) == sorted(zombies)
    reaped = [init.wait4() for _ in zombies]
    assert {result.pid: result.exit_status for result in reaped} == zombies
    assert init.sysctl.kern_proc_pgrp(init.pid).pids == [init.pid]


@pytest.mark.kern_proc("proc_remove_zombie")
@pytest.mark.passes("sysctl_kern_proc")
def test_hundreds_of_zombies_fill_and_leave_the_tables(init: RemoteProcess) -> None:
    """Many of them in the same hash chains (kern_proc.c: proc_remove_zombie)."""
    with random_pids(init, 5000):
        pids = init.start.spawn_many(220, status=5).result(60)
    assert len(set(pids)) == 220

    def zombies() -> list[int]:
        return sorted(found.pid for found in init.sysctl.kern_proc_pgrp(init.pid) if found.is_zombie)

    eventually(lambda: len(zombies()) >= len(pids), "all children to exit")
    assert zombies() == sorted(pids)
    waits = [init.start.wait4(pid) for pid in pids]
    assert {wait.result().exit_status for wait in waits} == {5}
    assert init.sysctl.kern_proc_pgrp(init.pid).pids == [init.pid]
    with fails(ECHILD):
        init.wait4()


# ---- Zombies and the living in one hash chain ---------------------------------------------------------------------


@pytest.mark.kern_proc("pfind", "pfindn")
def test_a_zombie_hides_nobody_behind_it(init: Process) -> None:
    """The search by pid goes on behind a zombie of the same hash chain (kern_proc.c: pfind, pfindn)."""
    alive, zombie = chain_mates(init)
    zombie.exit()
    assert (init.getpgid(alive.pid), init.getsid(alive.pid)) == (init.pid, init.pid)
    assert [found.pid for found in init.sysctl.kern_proc_pid(alive.pid)] == [alive.pid]
    init.setpgid(alive.pid, 0)
    assert alive.getpgrp() == alive.pid


@pytest.mark.kern_proc("zpfind", "proc_remove_zombie")
def test_a_living_process_hides_no_zombie_behind_it(init: Process) -> None:
    """Nor the other way round (kern_proc.c: zpfind, proc_remove_zombie)."""
    zombie, alive = chain_mates(init)
    zombie.exit(3)
    init.kill(zombie.pid, 0)
    assert init.wait4(zombie.pid).exit_status == 3
    assert not exists(init, zombie.pid)
    assert init.getpgid(alive.pid) == init.pid


@pytest.mark.kern_proc("zpfind", "proc_remove_zombie")
def test_two_zombies_of_one_hash_chain_are_told_apart(init: Process) -> None:
    """Each has its own end (kern_proc.c: zpfind, proc_remove_zombie)."""
    first, second = chain_mates(init)
    first.exit(1)
    second.exit(2)
    for zombie in (first, second):
        init.kill(zombie.pid, 0)
    assert init.wait4(first.pid).exit_status == 1
    assert not exists(init, first.pid)
    assert exists(init, second.pid)
    assert init.wait4(second.pid).exit_status == 2


# ---- Zombie leaders -----------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("pgfind")
@pytest.mark.passes("pgrel")
def test_a_zombie_leader_does_not_disturb_its_group(init: Process) -> None:
    """The group goes on, and takes new members (kern_proc.c: pgfind)."""
    leader, member, late = init.fork(), init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    leader.exit(4)
    late.setpgid(0, leader.pid)
    for process in (member, late):
        process.sigaction(SIGUSR1, Handler.LOG)
    init.killpg(leader.pid, SIGUSR1)
    assert (logged(member), logged(late)) == ([SIGUSR1], [SIGUSR1])
    assert init.wait4(-leader.pid).exit_status == 4
    assert sorted(init.sysctl.kern_proc_pgrp(leader.pid).pids) == sorted([member.pid, late.pid])


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.passes("sess_rele")
def test_a_zombie_leader_does_not_disturb_its_session(init: Process) -> None:
    """Its processes stay in it, and may found groups in it (kern_exit.c: exit1; kern_proc.c: enterpgrp)."""
    leader = init.fork()
    leader.setsid()
    child = leader.fork()
    grandchild = child.fork()
    leader.exit()
    assert (child.getsid(), grandchild.getsid(), init.getsid(child.pid)) == (leader.pid,) * 3
    child.setpgid(grandchild.pid, 0)
    assert (grandchild.getpgrp(), grandchild.getsid()) == (grandchild.pid, leader.pid)
    init.wait4(leader.pid)
    assert (child.getsid(), child.getpgrp(), grandchild.getsid()) == (leader.pid,) * 3


@pytest.mark.passes("sysctl_out_proc")
def test_a_zombie_leads_no_session_any_more(init: Process) -> None:
    """Its row still names the session, but not as its leader (kern_exit.c: exit1 clears s_leader)."""
    leader = init.fork()
    leader.setsid()
    leader.exit()
    dead = init.sysctl.kern_proc_pgrp(leader.pid)[leader.pid]
    assert (dead.sid, dead.is_session_leader) == (leader.pid, False)

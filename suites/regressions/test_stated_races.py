# SPDX-License-Identifier: BSD-2-Clause
"""Known races, stated: who stands where while somebody else goes on.  One run tells whether a kernel has them.

An interleaving that the kernel's own tokens exclude is none of its defects.
"""

from __future__ import annotations

from functools import partial
from signal import SIGKILL, SIGURG

import pytest

from harness.processes import RemoteProcess, fails
from harness.races.schedule import Schedule
from support.processes import bury, eventually, exists
from support.procfs import fails_or_not

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc
defect = pytest.mark.defect


@kern_proc("sysctl_kern_proc_pathname")
@pytest.mark.cpus(2)
@defect(
    since=300701,
    until=600101,
    severity="panic by any user",
    reason="kern.proc.pathname reads p_fd without the token under which exit1() clears it (fixed by a23ed7f524, 2021)",
    reproducer="pathname-of-exiting.c",
)
def test_who_is_asked_for_his_program_may_exit_meanwhile(init: RemoteProcess, schedule: Schedule) -> None:
    """The path, or ESRCH, or the exit waits for the answer (kern_proc.c: sysctl_kern_proc_pathname, vfs_cache.c)."""
    reader, child = init.fork(), init.fork()
    ask = partial(reader.start.sysctl.kern_proc_pathname, child.pid)
    with schedule.holding(reader, at="cache_fullpath", doing=ask) as asking, schedule.excluded():
        schedule.until(child, reaches="proc_move_allproc_zombie", doing=child.start.exit)
    with fails_or_not():
        asking.result()
    assert init.wait4(child.pid).pid == child.pid


@kern_proc("sysctl_kern_proc_pathname")
@pytest.mark.cpus(2)
@defect(
    since=300701,
    severity="panic by any user",
    reason="kern.proc.pathname asks for p_textnch and uses p_fd, which exit1() gives up first, without the token",
    reproducer="pathname-of-exiting.c",
)
def test_who_has_given_up_his_files_may_be_asked_for_his_program(init: RemoteProcess, schedule: Schedule) -> None:
    """The path, or an error, while he gives up his memory, which takes time (kern_exit.c: exit1, vmspace_relexit)."""
    reader, child = init.fork(), init.fork()
    with schedule.holding(child, at="vmspace_relexit", doing=child.start.exit), fails_or_not():
        schedule.result(reader.start.sysctl.kern_proc_pathname(child.pid), reader)
    assert init.wait4(child.pid).pid == child.pid


@kern_proc("pholdzomb")
@pytest.mark.passes("prelezomb", "pfind", "proc_remove_zombie")
@pytest.mark.cpus(4)
@defect(
    since=300104,
    until=500900,
    severity="panic by any user",
    reason="a reaper gives up its own hold before the zombie is off the list: panic (fixed by f071b5e0ac, 2020)",
    reproducer="threads-wait-at-once.c",
)
def test_two_threads_may_come_upon_one_zombie(init: RemoteProcess, schedule: Schedule) -> None:
    """The second waits while the first has the zombie in hand, here for a list that somebody reads (kern_exit.c)."""
    parent, reader = init.fork(), init.fork()
    first, second = parent.thread(), parent.thread()
    zombie = parent.fork()
    zombie.exit()
    ask = partial(reader.start.kill, zombie.pid, 0)
    schedule.apart(first)
    schedule.apart(second)
    # What everybody calls all the time is no place to stop at: a busy host's guest gets nowhere.
    with schedule.holding(reader, at="pfind>lwkt_reltoken", doing=ask) as looking:
        reaping = schedule.until(first, reaches="proc_remove_zombie", doing=partial(first.start.wait4, zombie.pid))
        waiting = second.start.wait4(zombie.pid)
        schedule.settle(waiting, second)
    assert reaping.result().pid == zombie.pid
    with fails_or_not():
        assert waiting.result().pid != zombie.pid
    with fails_or_not():
        looking.result()


@kern_proc("proc_reparent")
@pytest.mark.cpus(2)
@defect(
    since=200000,
    severity="wrong answer",
    reason="kern_ptrace() attaches to a process that is exiting: it never stops, and its zombie is the tracer's",
    reproducer="attach-to-exiting.c",
)
def test_who_is_exiting_is_not_given_to_a_tracer(init: RemoteProcess, schedule: Schedule) -> None:
    """PT_ATTACH promises a stop, which whoever is in exit1() never makes (FreeBSD: ESRCH; proc_reparent)."""
    tracer, child = init.fork(), init.fork()
    with schedule.holding(child, at="vmspace_relexit", doing=child.start.exit), fails("ESRCH", "EPERM", "EBUSY"):
        schedule.result(tracer.start.ptrace("PT_ATTACH", child.pid), tracer)


@kern_proc("enterpgrp")
@pytest.mark.cpus(4)
@defect(
    since=200902,
    severity="wrong answer",
    reason="killpg() walks over members that move meanwhile, and on into the groups they moved to",
    reproducer="killpg-moving.c",
)
def test_a_signal_to_a_group_does_not_follow_who_leaves_it(init: RemoteProcess, schedule: Schedule) -> None:
    """The member in hand is put into another group: those there get no signal (kern_sig.c: dokillpg; enterpgrp)."""
    sender, leader, bystander = init.fork(), init.fork(), init.fork()
    leader.setpgid(0, 0)
    bystander.setpgid(0, 0)
    mover = init.thread()
    schedule.apart(mover)
    kill = partial(sender.start.killpg, leader.pid, SIGKILL)
    with schedule.holding(sender, at="lwpsignal", doing=kill) as sending, schedule.excluded():
        schedule.result(mover.start.setpgid(leader.pid, bystander.pid), mover)
    with fails_or_not():
        sending.result()
    assert init.wait4(leader.pid).pid == leader.pid
    assert bystander.getpgrp() == bystander.pid


@pytest.mark.passes("leavepgrp", "proc_remove_zombie", "proc_move_allproc_zombie")
@pytest.mark.cpus(4)
@defect(
    since=300704,
    severity="panic by any user",
    reason="killpg() walks over a group's members without its token, and asks who owns one that was reaped meanwhile",
    reproducer="killpg-reaped.c",
)
def test_a_member_may_be_reaped_while_its_group_is_signalled(init: RemoteProcess, schedule: Schedule) -> None:
    """It is signalled, or is gone; or its end waits (kern_sig.c: dokillpg; kern_proc.c: leavepgrp, pg_token)."""
    killer, parent = init.fork(), init.fork()
    child = parent.fork()
    child.setpgid(0, 0)
    ask = partial(killer.start.killpg, child.pid, 0)
    # The member is no zombie, and its credentials are looked at next.
    with schedule.holding(killer, at="kern_sig.c:dokillpg:+36", doing=ask) as asking, schedule.excluded():
        schedule.until(child, reaches="proc_move_allproc_zombie", doing=child.start.exit)
        schedule.result(parent.start.wait4(child.pid), parent)
    with fails_or_not():
        asking.result()
    with fails_or_not():  # it has been waited for, where nothing excluded that
        parent.wait4(child.pid)
    assert not exists(init, child.pid)


@pytest.mark.cpus(4)
@pytest.mark.feature("reap_kill")
@defect(
    since=600510,
    feature="reap_kill",
    severity="panic by any user",
    reason="reaper_kill() marks who got another parent while it waited as signalled, and asserts that he has not",
    reproducer="reap-kill-reparented.c",
    introduced="46d73a5af0 of 2025-03-08",
)
def test_who_is_signalled_by_his_reaper_may_get_another_parent(init: RemoteProcess, schedule: Schedule) -> None:
    """PROC_REAP_KILL waits for a child's token, which somebody has who attaches to it (kern_fork.c: reaper_kill)."""
    reaper, tracer = init.fork(), init.fork()
    reaper.procctl_reaper_acquire()
    child = reaper.fork()
    schedule.apart(reaper)
    attach = partial(tracer.start.ptrace, "PT_ATTACH", child.pid)
    with schedule.holding(tracer, at="proc_reparent", doing=attach) as attaching:
        killing = reaper.start.procctl_reap_kill(SIGURG)
        assert not schedule.settle(killing, reaper), "it has not waited for the child's token"
    attaching.result()
    assert schedule.result(killing, reaper).killed in (0, 1)


@pytest.mark.passes("pfind")
@pytest.mark.cpus(4)
@defect(
    since=400704,
    severity="leak",
    reason="jail_attach() of two threads: both are told that it is done, and the jail of the first is never freed",
    reproducer="jail-attach-twice.c",
)
def test_threads_that_go_into_jails_at_once_leave_none_behind(init: RemoteProcess, schedule: Schedule) -> None:
    """The second is refused, as the process is in one by then (kern_jail.c: kern_jail_attach, prison_free)."""
    goer, *jailed = (init.fork() for _ in range(3))
    thread = goer.thread()
    first, second = (each.jail("/") for each in jailed)
    schedule.apart(thread)
    enter = partial(goer.start.jail_attach, first)
    with schedule.holding(goer, at="cratom_proc", doing=enter) as entering:
        other = thread.start.jail_attach(second)
        schedule.settle(other, thread)
    entering.result()
    with fails_or_not():
        schedule.result(other, thread)
    bury(init, *jailed, goer)
    eventually(lambda: not jails(init) & {first, second}, "both jails to be given up", seconds=5.0)


def jails(observer: RemoteProcess) -> set[int]:
    """Return the numbers of all jails that there are (kern_jail.c: sysctl_jail_list)."""
    listed = observer.sysctl.read("jail.list", 4096).rstrip(b"\0").decode("latin-1")
    return {int(line.split()[0]) for line in listed.splitlines()}

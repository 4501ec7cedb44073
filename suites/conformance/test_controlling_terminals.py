# SPDX-License-Identifier: BSD-2-Clause
"""Controlling terminals: how a session gains one, who shares it, and how it is lost.

A terminal's master stays with `init`, so that the terminal outlives the session that is given it.
"""

from __future__ import annotations

import os
from errno import EBADF, EINVAL, ENOTTY, ENXIO, EPERM
from signal import SIGHUP, SIGKILL, SIGTTOU

import pytest

from harness.processes import WNOHANG, Handler, ProcFlag, RemoteProcess, fails
from harness.processes.allocator import random_pids
from support.processes import SOMEBODY, await_asleep, bury, logged, row
from support.terminals import Terminal

# ---- Gaining a controlling terminal -------------------------------------------------------------------------------


@pytest.mark.passes("sysctl_out_proc")
def test_a_session_leader_gains_a_controlling_terminal(init: RemoteProcess) -> None:
    """TIOCSCTTY makes its group the foreground (tty.c: ttioctl; kern_kinfo.c: fill_kinfo_proc)."""
    before = init.fork()
    before.setsid()
    assert (row(init, before.pid).tdev, row(init, before.pid).has_controlling_tty) == (None, False)
    terminal = Terminal(init)
    leader = terminal.leader
    shown = row(init, leader.pid)
    assert (shown.tpgid, shown.tsid, shown.has_controlling_tty) == (leader.pid, leader.pid, True)
    assert shown.tdev is not None
    assert shown.flags & ProcFlag.P_CONTROLT
    assert (leader.tcgetpgrp(terminal.slave), leader.tcgetsid(terminal.slave)) == (leader.pid, leader.pid)


@pytest.mark.passes("sysctl_out_proc")
def test_opening_a_terminal_does_not_make_it_the_controlling_one(init: RemoteProcess) -> None:
    """Not even for a leader without one (tty_pty.c: ptsopen)."""
    init.openpty()
    leader = init.fork()
    leader.setsid()
    leader.openpty()
    assert (row(init, init.pid).tdev, row(init, leader.pid).tdev) == (None, None)


@pytest.mark.passes("proc_makepid")
def test_users_do_not_open_a_terminal_of_roots(init: RemoteProcess) -> None:
    """EACCES: it belongs to whoever has made it (tty_pty.c: ptcopen)."""
    _, _, path = init.openpty()
    user = init.fork()
    user.setuid(SOMEBODY)
    with fails("EACCES"):
        user.open(path, os.O_RDWR)


@pytest.mark.passes("enterpgrp")
def test_only_a_session_leader_can_gain_a_terminal(init: RemoteProcess) -> None:
    """EPERM for anybody else, the leader alive or dead (tty.c: ttioctl, TIOCSCTTY)."""
    _, slave, _ = init.openpty()
    leader = init.fork()
    leader.setsid()
    member, job = leader.fork(), leader.fork()
    job.setpgid(0, 0)
    for process in (member, job):
        with fails(EPERM):
            process.set_controlling_tty(slave)
    bury(init, leader)
    with fails(EPERM):
        member.set_controlling_tty(slave)
    assert row(init, member.pid).tdev is None


@pytest.mark.passes("enterpgrp")
def test_a_terminal_belongs_to_one_session(init: RemoteProcess) -> None:
    """EPERM for the leader of another one (tty.c: ttioctl, TIOCSCTTY)."""
    terminal = Terminal(init)
    other = terminal.session()
    with fails(EPERM):
        other.set_controlling_tty(terminal.slave)
    assert row(init, other.pid).tdev is None
    assert row(init, terminal.leader.pid).tsid == terminal.leader.pid


@pytest.mark.passes("enterpgrp")
def test_a_session_has_one_terminal(init: RemoteProcess) -> None:
    """EPERM for a second one (tty.c: ttioctl, TIOCSCTTY)."""
    terminal = Terminal(init)
    device = terminal.device
    _, other, _ = terminal.leader.openpty()
    with fails(EPERM):
        terminal.leader.set_controlling_tty(other)
    assert row(init, terminal.leader.pid).tdev == device


@pytest.mark.passes("pgref", "pgrel")
def test_gaining_the_same_terminal_again_changes_nothing(init: RemoteProcess) -> None:
    """But that the leader's group comes to the foreground (tty.c: ttioctl, TIOCSCTTY)."""
    terminal = Terminal(init)
    job = terminal.job()
    terminal.leader.sigaction(SIGTTOU, Handler.IGNORE)
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    for _ in range(3):
        terminal.leader.set_controlling_tty(terminal.slave)
    assert terminal.leader.tcgetpgrp(terminal.slave) == terminal.leader.pid
    assert row(init, terminal.leader.pid).tsid == terminal.leader.pid


@pytest.mark.passes("enterpgrp")
@pytest.mark.needs_kernel
def test_what_is_no_terminal_cannot_become_one(init: RemoteProcess) -> None:
    """ENOTTY for a pipe (kern_descrip.c: mapped_ioctl; sys_pipe.c)."""
    leader = init.fork()
    leader.setsid()
    reading, _ = leader.pipe()
    with fails(ENOTTY):
        leader.set_controlling_tty(reading)


# ---- Sharing it ---------------------------------------------------------------------------------------------------


@pytest.mark.passes("sysctl_out_proc")
def test_children_share_their_parents_terminal(init: RemoteProcess) -> None:
    """In whatever group of the session (kern_fork.c: fork1, P_CONTROLT)."""
    terminal = Terminal(init)
    job = terminal.job()
    child = job.fork()
    for process in (job, child):
        shown = row(init, process.pid)
        assert (shown.tdev, shown.tsid, shown.tpgid) == (terminal.device, terminal.leader.pid, terminal.leader.pid)
        assert shown.flags & ProcFlag.P_CONTROLT
        assert process.tcgetsid(terminal.slave) == terminal.leader.pid


@pytest.mark.passes("sysctl_out_proc")
def test_processes_born_before_have_no_terminal(init: RemoteProcess) -> None:
    """The session has one, they do not, nor do their children (tty.c: ttioctl sets P_CONTROLT for the caller)."""
    _, slave, _ = init.openpty()
    leader = init.fork()
    leader.setsid()
    early = leader.fork()
    leader.set_controlling_tty(slave)
    for process in (early, early.fork()):
        shown = row(init, process.pid)
        assert (shown.tdev, shown.has_controlling_tty) == (None, True)
        with fails(ENOTTY):
            process.tcgetpgrp(slave)
        with fails(ENXIO):
            process.open("/dev/tty", os.O_RDWR)


@pytest.mark.kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True], ids=["processes", "threads"])
def test_the_process_table_lists_exactly_the_processes_of_a_terminal(init: RemoteProcess, lwp: bool) -> None:
    """kern.proc.tty: those with P_CONTROLT in the session that has it, zombies included (sysctl_kern_proc)."""
    _, slave, _ = init.openpty()
    leader = init.fork()
    leader.setsid()
    leader.fork()  # early: without the terminal
    leader.set_controlling_tty(slave)
    member, job, zombie, escaped = (leader.fork() for _ in range(4))
    job.setpgid(0, 0)
    zombie.exit()
    escaped.setsid()
    device = row(init, leader.pid).tdev
    assert device is not None
    other = Terminal(init)
    assert sorted(init.sysctl.kern_proc_tty(device, lwp=lwp).pids) == sorted(
        process.pid for process in (leader, member, job, zombie)
    )
    assert init.sysctl.kern_proc_tty(other.device, lwp=lwp).pids == [other.leader.pid]
    leader.wait4(zombie.pid)
    assert zombie.pid not in init.sysctl.kern_proc_tty(device, lwp=lwp)


@pytest.mark.kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("device", [-1, 0x7FFFFFFF])
def test_a_device_that_is_nobodys_terminal_has_no_processes(init: RemoteProcess, device: int) -> None:
    """Not even -1, which rows without a terminal show (kern_proc.c: sysctl_kern_proc)."""
    Terminal(init)
    assert init.sysctl.kern_proc_tty(device).pids == []


@pytest.mark.passes("enterpgrp")
def test_dev_tty_is_the_controlling_terminal(init: RemoteProcess) -> None:
    """ENXIO where there is none (tty_tty.c: cttyopen)."""
    terminal = Terminal(init)
    with fails(ENXIO):
        init.open("/dev/tty", os.O_RDWR)
    fd = terminal.job().open("/dev/tty", os.O_RDWR)
    assert fd >= 0
    fd = terminal.leader.open("/dev/tty", os.O_RDWR)
    assert terminal.leader.tcgetsid(fd) == terminal.leader.pid


@pytest.mark.passes("pgfind")
def test_other_sessions_learn_nothing_from_a_terminal(init: RemoteProcess) -> None:
    """ENOTTY although they have it open (tty.c: ttioctl, isctty)."""
    terminal = Terminal(init)
    for process in (init, terminal.session()):
        with fails(ENOTTY):
            process.tcgetpgrp(terminal.slave)
        with fails(ENOTTY):
            process.tcgetsid(terminal.slave)
        with fails(ENOTTY):
            process.tcsetpgrp(terminal.slave, process.pid)


# ---- Losing it ----------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.parametrize("place", ["foreground", "background"])
def test_setsid_leaves_the_terminal_behind(init: RemoteProcess, place: str) -> None:
    """With everything that is born afterwards; the old session keeps it (kern_proc.c: enterpgrp, P_CONTROLT)."""
    terminal = Terminal(init)
    daemon = terminal.leader.fork()
    if place == "background":
        daemon.setpgid(0, terminal.job().pid)
    daemon.setsid()
    for process in (daemon, daemon.fork()):
        shown = row(init, process.pid)
        assert (shown.tdev, shown.has_controlling_tty) == (None, False)
        assert not shown.flags & ProcFlag.P_CONTROLT
        with fails(ENXIO):
            process.open("/dev/tty", os.O_RDWR)
        with fails(ENOTTY):
            process.tcgetpgrp(terminal.slave)
    assert row(init, terminal.leader.pid).tpgid == terminal.leader.pid


@pytest.mark.kern_proc("enterpgrp")
def test_a_new_session_may_gain_a_terminal_of_its_own(init: RemoteProcess) -> None:
    """It begins without one (kern_proc.c: enterpgrp)."""
    terminal = Terminal(init)
    daemon = terminal.leader.fork()
    daemon.setsid()
    _, other, _ = daemon.openpty()
    daemon.set_controlling_tty(other)
    assert (row(init, daemon.pid).tsid, row(init, terminal.leader.pid).tsid) == (daemon.pid, terminal.leader.pid)
    assert row(init, daemon.pid).tdev != terminal.device


@pytest.mark.passes("sysctl_out_proc")
def test_a_member_gives_its_terminal_up(init: RemoteProcess) -> None:
    """TIOCNOTTY on /dev/tty, for itself only (tty_tty.c: cttyioctl)."""
    terminal = Terminal(init)
    member, other = terminal.leader.fork(), terminal.leader.fork()
    fd = member.open("/dev/tty", os.O_RDWR)
    member.drop_controlling_tty(fd)
    assert [row(init, process.pid).tdev is None for process in (member, other, terminal.leader)] == [True, False, False]
    assert row(init, member.fork().pid).tdev is None
    assert sorted(init.sysctl.kern_proc_tty(terminal.device).pids) == sorted([terminal.leader.pid, other.pid])


@pytest.mark.passes("enterpgrp")
def test_a_leader_cannot_give_the_terminal_up(init: RemoteProcess) -> None:
    """EINVAL (tty_tty.c: cttyioctl)."""
    terminal = Terminal(init)
    fd = terminal.leader.open("/dev/tty", os.O_RDWR)
    with fails(EINVAL):
        terminal.leader.drop_controlling_tty(fd)
    assert terminal.leader.tcgetsid(terminal.slave) == terminal.leader.pid


@pytest.mark.passes("enterpgrp", "pgref")
def test_the_leaders_exit_hangs_the_foreground_group_up(init: RemoteProcess) -> None:
    """SIGHUP for the foreground group and nobody else (kern_exit.c: exit1, pgsignal)."""
    terminal = Terminal(init)
    job, background = terminal.job(), terminal.job()
    member = job.fork()
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    for process in (job, member, background):
        process.sigaction(SIGHUP, Handler.LOG)
    terminal.leader.exit()
    assert [logged(process) for process in (job, member, background)] == [[SIGHUP], [SIGHUP], []]


@pytest.mark.passes("enterpgrp", "sysctl_kern_proc")
def test_the_leaders_exit_takes_the_terminal_from_the_session(init: RemoteProcess) -> None:
    """It is revoked; rows still name the device, but neither session nor foreground (kern_exit.c: exit1)."""
    terminal = Terminal(init)
    job = terminal.job()
    device = terminal.device
    terminal.leader.exit()
    shown = row(init, job.pid)
    assert (shown.has_controlling_tty, shown.tdev, shown.tsid, shown.tpgid) == (False, device, -1, -1)
    with fails(ENXIO):
        job.open("/dev/tty", os.O_RDWR)
    with fails(EBADF):
        job.tcgetpgrp(terminal.slave)
    assert job.pid in init.sysctl.kern_proc_tty(device)


@pytest.mark.passes("sess_rele")
def test_a_terminal_can_be_gained_again_after_its_session_lost_it(init: RemoteProcess) -> None:
    """Even while members of the old session live (kern_exit.c: exit1; tty.c: ttyclearsession)."""
    init.procctl_reaper_acquire()
    terminal = Terminal(init)
    job = terminal.job()
    bury(init, terminal.leader)
    heir = init.fork()
    heir.setsid()
    fd = heir.open(terminal.path, os.O_RDWR)
    heir.set_controlling_tty(fd)
    assert (heir.tcgetsid(fd), row(init, heir.pid).tpgid, row(init, heir.pid).tsid) == (heir.pid,) * 3
    # The end of the old session must not touch the new one's terminal (kern_proc.c: sess_rele, half close).
    init.kill(job.pid, SIGKILL)
    assert init.wait4(job.pid).pid == job.pid
    assert (heir.tcgetsid(fd), row(init, heir.pid).tsid) == (heir.pid, heir.pid)


@pytest.mark.kern_proc("allproc_scan")
@pytest.mark.passes("sysctl_out_proc")
def test_revoking_a_terminal_takes_it_from_everybody(init: RemoteProcess) -> None:
    """From every process that has it open, in every session (kern_descrip.c: fdrevoke; kern_proc.c: allproc_scan)."""
    terminal = Terminal(init)
    with random_pids(init, 5000):
        holders = [terminal.job(), terminal.session(), *(init.fork() for _ in range(4))]
    init.revoke(terminal.path)
    for process in (terminal.leader, *holders):
        with fails(EBADF):
            process.write(terminal.slave, b"x")
    shown = row(init, terminal.leader.pid)
    assert (shown.has_controlling_tty, shown.tsid, shown.tpgid) == (False, -1, -1)
    with fails(ENXIO):
        terminal.leader.open("/dev/tty", os.O_RDWR)


@pytest.mark.passes("enterpgrp")
def test_a_leader_whose_terminal_was_revoked_may_gain_another(init: RemoteProcess) -> None:
    """The session has none then (kern_descrip.c: fdrevoke; tty.c: ttioctl)."""
    terminal = Terminal(init)
    old = terminal.device
    init.revoke(terminal.path)
    _, other, _ = terminal.leader.openpty()
    terminal.leader.set_controlling_tty(other)
    assert row(init, terminal.leader.pid).tdev not in (None, old)
    assert terminal.leader.tcgetsid(other) == terminal.leader.pid


@pytest.mark.passes("enterpgrp")
def test_hanging_up_the_terminal_tells_the_leader(init: RemoteProcess) -> None:
    """SIGHUP for the leader alone, whoever is in the foreground (tty.c: ttymodem, s_leader)."""
    terminal = Terminal(init)
    job = terminal.job()
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    for process in (terminal.leader, job):
        process.sigaction(SIGHUP, Handler.LOG)
    init.close(terminal.master)
    assert (logged(terminal.leader), logged(job)) == ([SIGHUP], [])


# ---- Output nobody reads ------------------------------------------------------------------------------------------


def exiting_leader(terminal: Terminal) -> RemoteProcess:
    """Let the leader write to its terminal and exit; nobody reads."""
    terminal.leader.write(terminal.slave, b"unread" * 20)
    terminal.leader.start.exit(7)
    return terminal.leader


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.needs_kernel
@pytest.mark.feature("bounded_drain")
@pytest.mark.slow_clock(2)
def test_a_leader_does_not_wait_for_ever_for_its_output_to_be_read(init: RemoteProcess) -> None:
    """A second at most (kern_exit.c: exit1, ttywait)."""
    leader = exiting_leader(Terminal(init))
    assert init.start.wait4(leader.pid).result(20.0).exit_status == 7


@pytest.mark.needs_kernel
@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.feature("!bounded_drain")
def test_a_leader_waits_for_its_output_to_be_read(init: RemoteProcess) -> None:
    """However long that takes, and nothing kills it meanwhile (kern_exit.c: exit1, ttywait)."""
    terminal = Terminal(init)
    leader = exiting_leader(terminal)
    await_asleep(init, leader, "ttywai")
    init.kill(leader.pid, SIGKILL)
    for _ in range(3):
        await_asleep(init, leader, "ttywai")
    assert init.wait4(leader.pid, WNOHANG).pid == 0
    init.read(terminal.master, 4096)
    assert init.start.wait4(leader.pid).result(20.0).exit_status == 7

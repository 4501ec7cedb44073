# SPDX-License-Identifier: BSD-2-Clause
"""Foreground and background: which group may read and write a terminal, and who may change it (tty.c)."""

from __future__ import annotations

from errno import EINVAL, EIO, EPERM
from signal import SIGCONT, SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, Signals

import pytest

from harness.processes import WUNTRACED, Handler, RemoteProcess, fails
from support.processes import (
    NO_SUCH_ID,
    await_idle,
    await_stopped,
    bury,
    eventually,
    expect_signals,
    group_exists,
    has_stopped,
    logged,
    row,
    signal_number,
)
from support.terminals import Terminal


@pytest.mark.passes("pgfind", "sysctl_out_proc")
def test_the_foreground_group_can_be_changed(init: RemoteProcess) -> None:
    """By the foreground, to any group of the session; rows show it (tty.c: ttioctl, TIOCSPGRP)."""
    terminal = Terminal(init)
    job, other = terminal.job(), terminal.job()
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    assert job.tcgetpgrp(terminal.slave) == job.pid
    assert {row(init, process.pid).tpgid for process in (terminal.leader, job, other)} == {job.pid}
    job.tcsetpgrp(terminal.slave, other.pid)
    assert row(init, job.pid).tpgid == other.pid


@pytest.mark.passes("pgfind", "pgrel")
@pytest.mark.parametrize(
    ("pgid", "error"),
    [(0, EINVAL), (-1, EINVAL), (1_000_000, EINVAL), (NO_SUCH_ID, EPERM), ("init", EPERM), ("member", EPERM)],
)
def test_what_cannot_become_the_foreground_group(init: RemoteProcess, pgid: int | str, error: int) -> None:
    """No number that can be none, no unknown group, no process that leads none, no group of another session.

    (tty.c: ttioctl, TIOCSPGRP)
    """
    terminal = Terminal(init)
    member = terminal.leader.fork()
    wanted = {"init": init.pid, "member": member.pid}[pgid] if isinstance(pgid, str) else pgid
    with fails(error):
        terminal.leader.tcsetpgrp(terminal.slave, wanted)
    assert terminal.leader.tcgetpgrp(terminal.slave) == terminal.leader.pid


@pytest.mark.passes("pgref", "pgrel")
def test_a_terminal_keeps_its_foreground_group_in_existence(init: RemoteProcess) -> None:
    """Without members it can still be joined, until another group comes to the foreground (tty.c: TIOCSPGRP)."""
    terminal = Terminal(init)
    leader = terminal.leader
    job = terminal.job()
    leader.tcsetpgrp(terminal.slave, job.pid)
    bury(leader, job)
    leader.sigaction(SIGTTOU, Handler.IGNORE)
    assert leader.tcgetpgrp(terminal.slave) == row(init, leader.pid).tpgid == job.pid
    assert group_exists(leader, job.pid)
    leader.tcsetpgrp(terminal.slave, leader.pid)
    assert not group_exists(leader, job.pid)


@pytest.mark.passes("enterpgrp", "fixjobc")
def test_a_background_job_that_reads_is_stopped(init: RemoteProcess) -> None:
    """SIGTTIN for its group; in the foreground it reads on (tty.c: ttread)."""
    terminal = Terminal(init)
    job = terminal.job()
    member = job.fork()
    await_idle(init, member)
    reading = job.start.read(terminal.slave, 100)
    for process in (job, member):
        await_stopped(init, process)
    assert terminal.leader.wait4(job.pid, WUNTRACED).stop_signal == SIGTTIN
    assert not has_stopped(init, terminal.leader)
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    terminal.init.write(terminal.master, b"line\n")
    terminal.leader.killpg(job.pid, SIGCONT)
    assert reading.result() == b"line\n"


def _orphaned_job(terminal: Terminal) -> RemoteProcess:
    parent = terminal.leader.fork()
    job = parent.fork()
    job.setpgid(0, 0)
    bury(terminal.leader, parent)
    return job


@pytest.mark.passes("fixjobc")
def test_an_orphaned_background_group_cannot_read(init: RemoteProcess) -> None:
    """EIO, for nobody would continue it (tty.c: ttread, pg_jobc)."""
    terminal = Terminal(init)
    job = _orphaned_job(terminal)
    with fails(EIO):
        job.read(terminal.slave, 100)


@pytest.mark.passes("enterpgrp")
@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_a_background_job_that_does_not_hear_sigttin_cannot_read(init: RemoteProcess, how: str) -> None:
    """EIO (tty.c: ttread)."""
    terminal = Terminal(init)
    job = terminal.job()
    if how == "ignored":
        job.sigaction(SIGTTIN, Handler.IGNORE)
    else:
        job.sigprocmask(mask=[SIGTTIN])
    with fails(EIO):
        job.read(terminal.slave, 100)


@pytest.mark.passes("enterpgrp", "fixjobc")
def test_a_background_job_that_changes_the_foreground_is_stopped(init: RemoteProcess) -> None:
    """SIGTTOU (tty.c: ttioctl)."""
    terminal = Terminal(init)
    job = terminal.job()
    job.start.tcsetpgrp(terminal.slave, job.pid)
    await_stopped(init, job)
    assert terminal.leader.wait4(job.pid, WUNTRACED).stop_signal == SIGTTOU
    assert terminal.leader.tcgetpgrp(terminal.slave) == terminal.leader.pid


@pytest.mark.passes("enterpgrp", "sysctl_out_proc")
@pytest.mark.eras(until=500_505, reason="who is stopped takes the signal since May 2019")
def test_whoever_is_stopped_in_the_background_is_signalled_again_and_again(init: RemoteProcess) -> None:
    """It sleeps in the kernel, and tries again every second: the signal is pending until SIGCONT (tty.c: ttioctl)."""
    terminal = Terminal(init)
    job = terminal.job()
    change = job.start.tcsetpgrp(terminal.slave, job.pid)
    await_stopped(init, job)
    pending = {signal_number(init, SIGTTOU)}
    eventually(lambda: row(init, job.pid).siglist == pending, "the second SIGTTOU")
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    init.kill(job.pid, SIGCONT)
    eventually(lambda: change.done, "the call to succeed in the foreground")
    assert row(init, job.pid).siglist == set()


@pytest.mark.passes("fixjobc")
def test_a_leader_in_the_background_cannot_take_the_foreground_back(init: RemoteProcess) -> None:
    """EIO: its group has no parent in the session (tty.c: ttioctl, pg_jobc)."""
    terminal = Terminal(init)
    terminal.leader.tcsetpgrp(terminal.slave, terminal.job().pid)
    with fails(EIO):
        terminal.leader.tcsetpgrp(terminal.slave, terminal.leader.pid)
    with fails(EIO):
        terminal.leader.set_controlling_tty(terminal.slave)


@pytest.mark.passes("fixjobc")
def test_an_orphaned_background_group_cannot_change_the_foreground(init: RemoteProcess) -> None:
    """EIO (tty.c: ttioctl, pg_jobc)."""
    terminal = Terminal(init)
    job = _orphaned_job(terminal)
    with fails(EIO):
        job.tcsetpgrp(terminal.slave, job.pid)


@pytest.mark.passes("enterpgrp")
@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_a_background_job_that_does_not_hear_sigttou_changes_the_foreground(init: RemoteProcess, how: str) -> None:
    """What shells do (tty.c: ttioctl)."""
    terminal = Terminal(init)
    job = terminal.job()
    if how == "ignored":
        job.sigaction(SIGTTOU, Handler.IGNORE)
    else:
        job.sigprocmask(mask=[SIGTTOU])
    job.tcsetpgrp(terminal.slave, job.pid)
    assert terminal.leader.tcgetpgrp(terminal.slave) == job.pid


@pytest.mark.passes("enterpgrp")
@pytest.mark.parametrize(
    ("key", "signal"),
    [(b"\x03", SIGINT), (b"\x1c", SIGQUIT), (b"\x1a", SIGTSTP)],
    ids=["interrupt", "quit", "suspend"],
)
def test_the_terminals_keys_signal_the_foreground_group(init: RemoteProcess, key: bytes, signal: Signals) -> None:
    """Each of its members and nobody else (tty.c: ttyinput, pgsignal)."""
    terminal = Terminal(init)
    job, background = terminal.job(), terminal.job()
    member = job.fork()
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    for process in (terminal.leader, job, member, background):
        process.sigaction(signal, Handler.LOG)
    init.write(terminal.master, key)
    for process in (job, member):  # a terminal may hand on what was written to it in its own time
        expect_signals(process, signal)
    assert [logged(process) for process in (terminal.leader, background)] == [[], []]


@pytest.mark.passes("enterpgrp")
def test_the_terminals_keys_do_not_reach_members_without_the_terminal(init: RemoteProcess) -> None:
    """Of the foreground group, those with P_CONTROLT (kern_sig.c: pgsignal, checkctty)."""
    master, slave, _ = init.openpty()
    leader = init.fork()
    leader.setsid()
    early = leader.fork()
    leader.set_controlling_tty(slave)
    late = leader.fork()
    for process in (leader, early, late):
        process.sigaction(SIGINT, Handler.LOG)
    init.write(master, b"\x03")
    for process in (leader, late):
        expect_signals(process, SIGINT)
    assert logged(early) == []


@pytest.mark.passes("fixjobc")
def test_the_suspend_key_stops_jobs_but_not_the_leaders_own_group(init: RemoteProcess) -> None:
    """The leader's group has no parent in the session: it counts as orphaned (kern_sig.c: lwpsignal, pg_jobc)."""
    terminal = Terminal(init)
    init.write(terminal.master, b"\x1a")
    assert terminal.leader.getpgrp() == terminal.leader.pid
    assert not has_stopped(init, terminal.leader)
    job = terminal.job()
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    await_idle(init, job)
    init.write(terminal.master, b"\x1a")
    await_stopped(init, job)
    assert terminal.leader.wait4(job.pid, WUNTRACED).stop_signal == SIGTSTP

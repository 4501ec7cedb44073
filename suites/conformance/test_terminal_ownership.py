# SPDX-License-Identifier: BSD-2-Clause
"""Terminals given back are free for others; descriptors outlive their owners (kern_proc.c: sess_rele(), pgrel())."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EPERM, ESRCH
from signal import SIGHUP, SIGKILL, SIGTTOU

import pytest

from harness.processes import Handler, RemoteProcess, fails
from support.processes import F_GETOWN, F_SETOWN, NO_SUCH_ID, bury, group_exists
from support.terminals import Terminal

# ---- Giving a terminal back ---------------------------------------------------------------------------------------


def _exits(terminal: Terminal) -> None:
    bury(terminal.init, terminal.leader)


def _exits_before_a_member(terminal: Terminal) -> None:
    member = terminal.leader.fork()
    member.sigaction(SIGHUP, Handler.IGNORE)
    bury(terminal.init, terminal.leader)
    terminal.init.kill(member.pid, SIGKILL)
    assert terminal.init.wait4(member.pid).pid == member.pid


def _exits_before_a_job(terminal: Terminal) -> None:
    job = terminal.job()
    bury(terminal.init, terminal.leader)
    assert terminal.init.openpty()[2] != terminal.path
    terminal.init.kill(job.pid, SIGKILL)
    assert terminal.init.wait4(job.pid).pid == job.pid


def _had_many_jobs(terminal: Terminal) -> None:
    jobs = [terminal.job() for _ in range(4)]
    jobs[0].setpgid(0, jobs[1].pid)
    terminal.leader.sigaction(SIGTTOU, Handler.IGNORE)
    for job in (jobs[1], jobs[0], terminal.leader):
        terminal.leader.tcsetpgrp(terminal.slave, job.getpgrp())
    bury(terminal.leader, *jobs)
    bury(terminal.init, terminal.leader)


def _had_the_terminal_twice(terminal: Terminal) -> None:
    terminal.leader.set_controlling_tty(terminal.slave)
    bury(terminal.init, terminal.leader)


def _lost_a_member_to_another_session(terminal: Terminal) -> None:
    daemon = terminal.leader.fork()
    daemon.setsid()
    bury(terminal.init, terminal.leader)


def _outlived_a_daemon_of_its(terminal: Terminal) -> None:
    daemon = terminal.leader.fork()
    daemon.setsid()
    child = daemon.fork()
    bury(daemon, child)
    bury(terminal.leader, daemon)
    bury(terminal.init, terminal.leader)


def _had_a_group_moved_by_the_leader(terminal: Terminal) -> None:
    member = terminal.leader.fork()
    terminal.leader.setpgid(member.pid, member.pid)
    terminal.leader.setpgid(member.pid, terminal.leader.pid)
    terminal.leader.setpgid(member.pid, member.pid)
    bury(terminal.leader, member)
    bury(terminal.init, terminal.leader)


def _had_it_revoked(terminal: Terminal) -> None:
    terminal.init.revoke(terminal.path)
    bury(terminal.init, terminal.leader)


def _opened_it_as_dev_tty(terminal: Terminal) -> None:
    terminal.leader.open("/dev/tty", os.O_RDWR)
    bury(terminal.init, terminal.leader)


@pytest.mark.kern_proc("sess_rele")
@pytest.mark.passes("sess_hold", "pgrel", "enterpgrp")
@pytest.mark.parametrize(
    "happening",
    [
        pytest.param(happening, id=f"the leader {happening.__name__.lstrip('_').replace('_', ' ')}")
        for happening in (
            _exits,
            _exits_before_a_member,
            _exits_before_a_job,
            _had_many_jobs,
            _had_the_terminal_twice,
            _lost_a_member_to_another_session,
            _outlived_a_daemon_of_its,
            _had_a_group_moved_by_the_leader,
            _had_it_revoked,
            _opened_it_as_dev_tty,
        )
    ],
)
def test_a_terminal_is_free_when_its_session_has_ended(
    init: RemoteProcess, happening: Callable[[Terminal], None]
) -> None:
    """The session holds the device until its last group is gone: then the number is given out again.

    (kern_proc.c: sess_rele; tty_pty.c: pti_done, ptyclone)
    """
    init.procctl_reaper_acquire()  # its wait4() returns when the session has ended; its member is out of sight sooner
    terminal = Terminal(init)
    happening(terminal)
    init.close(terminal.master)
    init.close(terminal.slave)
    assert init.openpty()[2] == terminal.path


# ---- Owners of descriptors ----------------------------------------------------------------------------------------


@pytest.mark.kern_proc("pgrel")
@pytest.mark.passes("pgfind", "pgref")
@pytest.mark.needs_kernel
@pytest.mark.parametrize("ending", ["no owner", "another owner", "closed"])
def test_a_group_that_owns_a_descriptor_stays_in_existence(init: RemoteProcess, ending: str) -> None:
    """F_SETOWN takes a reference, until somebody else is the owner or the file is closed (kern_descrip.c: fsetown)."""
    group = init.fork()
    group.setpgid(0, 0)
    reading, writing = init.pipe()
    init.fcntl(reading, F_SETOWN, -group.pid)
    bury(init, group)
    assert init.fcntl(reading, F_GETOWN) == -group.pid
    assert group_exists(init, group.pid)
    if ending == "closed":
        init.close(reading)
        init.close(writing)
    else:
        init.fcntl(reading, F_SETOWN, 0 if ending == "no owner" else -init.pid)
    assert not group_exists(init, group.pid)


@pytest.mark.kern_proc("pgrel")
@pytest.mark.passes("pgfind")
@pytest.mark.needs_kernel
def test_only_groups_of_the_session_can_own_descriptors(init: RemoteProcess) -> None:
    """ESRCH for an unknown group, EPERM for another session's (kern_descrip.c: fsetown)."""
    stranger = init.fork()
    stranger.setsid()
    reading, _ = init.pipe()
    with fails(ESRCH):
        init.fcntl(reading, F_SETOWN, -NO_SUCH_ID)
    with fails(EPERM):
        init.fcntl(reading, F_SETOWN, -stranger.pid)
    assert init.fcntl(reading, F_GETOWN) == 0

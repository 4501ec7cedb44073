# SPDX-License-Identifier: BSD-2-Clause
"""What must come to an end: exits, whatever a terminal or a debugger does, and waits for signals that have come."""

from __future__ import annotations

import os
from signal import SIGUSR1

import pytest

from harness.processes import RemoteProcess, fails
from support.mounts import procfs
from support.processes import bury, hearing, logged
from support.procfs import S_EXIT, S_SIG, end, hold

pytestmark = pytest.mark.needs_kernel
defect = pytest.mark.defect


@pytest.mark.passes("proc_move_allproc_zombie", "sess_rele")
@pytest.mark.slow_clock(2)
@defect(
    since=200000,
    until=600107,
    feature="!bounded_drain",
    severity="hang",
    reason="exit1() waits for the terminal's output to be read, for ever and with signals off (mended by de22b67f22)",
    reproducer="session-leader-drain.c",
)
def test_a_session_leader_ends_though_nobody_reads_its_terminal(init: RemoteProcess) -> None:
    """At most a second later than others (kern_exit.c: exit1, ttywait)."""
    master, _, name = init.openpty()  # whoever closes it last waits, too
    waiting = init.thread()  # INIT itself has to read where the leader does not end
    leader = init.fork()
    leader.setsid()
    terminal = leader.open(name, os.O_RDWR)
    leader.close(master)
    leader.set_controlling_tty(terminal)
    leader.write(terminal, b"x" * 100)
    end(leader, 3)
    try:
        assert waiting.start.wait4(leader.pid).result(15.0).exit_status == 3
    finally:
        init.read(master, 200)


@pytest.mark.passes("pstall", "proc_move_allproc_zombie")
@pytest.mark.parametrize("between", ["nothing", "execve"])
def test_events_go_with_whoever_asked_for_them(init: RemoteProcess, between: str) -> None:
    """The process is not stopped at its end for somebody who is gone (procfs_vnops.c: procfs_close, p_stops)."""
    with procfs(init) as mounted:
        target, holder = init.fork(), init.fork()
        hold(holder, target, mounted, S_EXIT | S_SIG, keep_open=True)
        if between == "execve":
            target.reexec()
        init.kill(holder.pid, "SIGKILL")
        init.start.wait4(holder.pid).result(20.0)
        end(target, 5)
        assert init.start.wait4(target.pid).result(20.0).exit_status == 5


@pytest.mark.passes("proc_makepid")
@pytest.mark.cpus(2)
@defect(
    since=200000,
    until=600510,
    feature="!sigmask_race_closed",
    severity="hang",
    reason="a signal that comes between the new mask and the sleep is given to the process, and the sleep goes on"
    " (mended by bbd7e13329)",
    reproducer="sigsuspend-early.c",
)
def test_a_signal_that_comes_early_ends_the_wait_for_it(init: RemoteProcess) -> None:
    """Be it before, while or after sigsuspend() begins; shows on several CPUs (POSIX: sigsuspend())."""
    waiter = init.fork()
    hearing(waiter)
    waiter.sigprocmask(mask=[SIGUSR1])
    for _ in range(400):
        pending = waiter.start.sigsuspend([])
        init.kill(waiter.pid, SIGUSR1)
        with fails("EINTR"):
            pending.result(15.0)
        assert logged(waiter) == [SIGUSR1]
    bury(init, waiter)

# SPDX-License-Identifier: BSD-2-Clause
"""What pends and what is blocked, and what takes it away (kern_sig.c: lwpsignal(), postsig(), execsigs())."""

from __future__ import annotations

from signal import SIGCHLD, SIGCONT, SIGTSTP, SIGTTIN, SIGUSR1, SIGUSR2

import pytest

from harness.processes import Handler, RemoteProcess, SigHow
from support.processes import await_idle, bury, hearing, logged

pytestmark = pytest.mark.passes("pfind")


def job(init: RemoteProcess) -> RemoteProcess:
    """Return a child in a group of its own, which is not orphaned."""
    child = init.fork()
    child.setpgid(0, 0)
    return child


def test_a_stop_signal_and_sigcont_take_each_other_away_while_pending(init: RemoteProcess) -> None:
    """Blocked or not, the later one is left (POSIX: signal generation; kern_sig.c: lwpsignal)."""
    child = job(init)
    child.sigprocmask(SigHow.SIG_SETMASK, [SIGTSTP, SIGTTIN, SIGCONT])
    for signal in (SIGTSTP, SIGTTIN):
        init.kill(child.pid, signal)
    assert child.sigpending() == {SIGTSTP, SIGTTIN}
    init.kill(child.pid, SIGCONT)
    assert child.sigpending() == {SIGCONT}
    init.kill(child.pid, SIGTSTP)
    assert child.sigpending() == {SIGTSTP}


def test_what_a_handler_blocks_is_handled_after_it(init: RemoteProcess) -> None:
    """Otherwise the last of several interrupts the others before they begin (sigaction(2); kern_sig.c: postsig)."""
    child = hearing(init.fork(), SIGUSR2)
    for mask, order in (((), [SIGUSR2, SIGUSR1]), ((SIGUSR2,), [SIGUSR1, SIGUSR2])):
        child.sigaction(SIGUSR1, Handler.LOG, mask=mask)
        child.sigprocmask(SigHow.SIG_SETMASK, [SIGUSR1, SIGUSR2])
        init.kill(child.pid, SIGUSR1)
        init.kill(child.pid, SIGUSR2)
        child.sigprocmask(SigHow.SIG_SETMASK, [])
        assert logged(child) == order


def test_a_program_does_not_inherit_that_sigchld_was_ignored(init: RemoteProcess) -> None:
    """Though signals that are ignored stay so, says execve(2), and all others do (kern_sig.c: execsigs)."""
    child = init.fork()
    for signal in (SIGCHLD, SIGUSR1):
        child.sigaction(signal, Handler.IGNORE)
    child.reexec()
    assert child.sigaction_query(SIGCHLD).handler is Handler.DEFAULT
    assert child.sigaction_query(SIGUSR1).handler is Handler.IGNORE
    grandchild = child.fork()
    grandchild.exit(3)
    assert child.wait4(grandchild.pid).exit_status == 3


def test_a_sigchld_that_is_pending_stays_so_when_the_child_is_waited_for(init: RemoteProcess) -> None:
    """Though POSIX and wait(2) have it discarded then (kern_exit.c: kern_wait)."""
    parent = hearing(init.fork(), SIGCHLD)
    parent.sigprocmask(SigHow.SIG_SETMASK, [SIGCHLD])
    child = parent.fork()
    await_idle(init, parent)
    bury(parent, child)
    assert parent.sigpending() == {SIGCHLD}
    parent.sigprocmask(SigHow.SIG_SETMASK, [])
    assert logged(parent) == [SIGCHLD]

# SPDX-License-Identifier: BSD-2-Clause
"""SIGCHLD: when a parent is told of its children (kern_exit.c: exit1(); kern_sig.c: proc_stop())."""

from __future__ import annotations

from signal import SIGCHLD, SIGSTOP

import pytest

from harness.processes import SA_NOCLDSTOP, WCONTINUED, WUNTRACED, Handler, Process
from support.processes import expect_signals, logged, resume, stop


@pytest.mark.passes("proc_move_allproc_zombie")
def test_the_parent_gets_sigchld_for_a_child_that_exits(init: Process) -> None:
    """Just the parent, before it waits (kern_exit.c: exit1)."""
    init.sigaction(SIGCHLD, Handler.LOG)
    parent = init.fork()  # with the same handler
    child = parent.fork()
    child.exit()
    assert (logged(parent), logged(init)) == ([SIGCHLD], [])
    parent.wait4(child.pid)
    assert logged(parent) == []


@pytest.mark.passes("proc_move_allproc_zombie")
def test_the_parent_gets_sigchld_for_a_child_that_stops(init: Process) -> None:
    """Unless it declined (kern_sig.c: proc_stop)."""
    child = init.fork()
    init.sigaction(SIGCHLD, Handler.LOG)
    stop(init, child)
    expect_signals(init, SIGCHLD)


@pytest.mark.passes("proc_move_allproc_zombie")
def test_sa_nocldstop_declines_sigchld_for_stops_only(init: Process) -> None:
    """The stop can still be waited for, and the exit is signalled (kern_sig.c: proc_stop)."""
    child = init.fork()
    init.sigaction(SIGCHLD, Handler.LOG, SA_NOCLDSTOP)
    stop(init, child)
    assert logged(init) == []
    assert init.wait4(child.pid, WUNTRACED).stop_signal == SIGSTOP
    resume(init, child)
    child.exit()
    assert logged(init) == [SIGCHLD]


@pytest.mark.passes("proc_move_allproc_zombie")
def test_sa_nocldstop_can_be_taken_back(init: Process) -> None:
    """The flag goes with the action (kern_sig.c: kern_sigaction)."""
    child = init.fork()
    init.sigaction(SIGCHLD, Handler.LOG, SA_NOCLDSTOP)
    init.sigaction(SIGCHLD, Handler.LOG)
    stop(init, child)
    expect_signals(init, SIGCHLD)


@pytest.mark.passes("proc_move_allproc_zombie")
def test_no_sigchld_is_sent_for_a_child_that_continues(init: Process) -> None:
    """Waiting is the only way to learn of it (kern_sig.c: lwpsignal only wakes the parent up)."""
    child = init.fork()
    stop(init, child)
    init.sigaction(SIGCHLD, Handler.LOG)
    resume(init, child)
    assert logged(init) == []
    assert init.wait4(child.pid, WCONTINUED).continued


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_parent_that_ignores_sigchld_can_still_wait_for_stops(init: Process) -> None:
    """Ignoring SIGCHLD is about zombies (kern_exit.c: kern_wait)."""
    init.sigaction(SIGCHLD, Handler.IGNORE)
    child = init.fork()
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED).stop_signal == SIGSTOP
    resume(init, child)
    assert init.wait4(child.pid, WCONTINUED).continued

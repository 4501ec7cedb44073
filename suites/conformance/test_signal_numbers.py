# SPDX-License-Identifier: BSD-2-Clause
"""Which numbers are signals: 1 to 128 until November 2020, 1 to 127 since (kern_sig.c; sys/signal.h: _SIG_MAXSIG)."""

from __future__ import annotations

from errno import EINVAL, ESRCH
from signal import SIGSTOP

import pytest

from harness.processes import Handler, RemoteProcess, fails
from support.processes import NO_SUCH_ID, await_stopped, bury

HIGHEST = [
    pytest.param(127, marks=pytest.mark.feature("!signal128")),
    pytest.param(128, marks=pytest.mark.feature("signal128")),
]
TOO_HIGH = [pytest.param(128, marks=pytest.mark.feature("!signal128")), 129, 1 << 20, -1]


@pytest.mark.passes("pfind")
@pytest.mark.parametrize("number", HIGHEST)
def test_the_highest_signal_can_be_sent_and_ignored(init: RemoteProcess, number: int) -> None:
    """By kill() and by killpg() (kern_sig.c: kern_kill, kern_sigaction)."""
    child = init.fork()
    child.setpgid(0, 0)
    child.sigaction(number, Handler.IGNORE)
    init.kill(child.pid, number)
    init.killpg(child.pid, number)
    assert child.getpid() == child.pid
    bury(init, child)


@pytest.mark.passes("pfind")
@pytest.mark.parametrize("number", TOO_HIGH)
def test_a_number_that_is_no_signal_is_sent_to_nobody(init: RemoteProcess, number: int) -> None:
    """EINVAL, whether or not there is such a process (kern_sig.c: kern_kill)."""
    child = init.fork()
    for pid in (child.pid, NO_SUCH_ID, -init.pid, -1):
        with fails(EINVAL):
            init.kill(pid, number)
    assert child.getpid() == child.pid
    with fails(ESRCH):
        init.kill(NO_SUCH_ID, 0)


@pytest.mark.passes("pfind")
@pytest.mark.parametrize("number", [0, *TOO_HIGH])
def test_a_number_that_is_no_signal_has_no_action(init: RemoteProcess, number: int) -> None:
    """EINVAL, asked or set (kern_sig.c: kern_sigaction)."""
    with fails(EINVAL):
        init.sigaction_query(number)
    with fails(EINVAL):
        init.sigaction(number, Handler.IGNORE)


@pytest.mark.passes("pfind", "prele")
@pytest.mark.parametrize("number", TOO_HIGH)
def test_nobody_is_continued_with_what_is_no_signal(init: RemoteProcess, number: int) -> None:
    """EINVAL, and the traced process stays as it is, held by nobody (sys_process.c: kern_ptrace)."""
    child = init.fork()
    init.ptrace("PT_ATTACH", child.pid)
    await_stopped(init, child)
    assert init.wait4(child.pid).stop_signal == SIGSTOP
    with fails(EINVAL):
        init.ptrace("PT_CONTINUE", child.pid, 1, number)
    init.ptrace("PT_DETACH", child.pid, 1, 0)
    assert child.getpid() == child.pid

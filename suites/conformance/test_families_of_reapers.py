# SPDX-License-Identifier: BSD-2-Clause
"""Whom a process may signal that is below a reaper (kern_sig.c: CANSIGNAL; kern_fork.c: reaper_sigtest())."""

from __future__ import annotations

from errno import EPERM, ESRCH
from signal import SIGCONT, SIGUSR1

import pytest

from harness.processes import SA_SIGINFO, Handler, Process, fails
from support.processes import SOMEBODY, SOMEBODY_ELSE, expect_signals, hearing, logged

CONFINED = pytest.mark.eras(since=500_100, reason="signals stay within a reaper's family since September 2017")
NOT_CONFINED = pytest.mark.eras(until=400_910, reason="signals stay within a reaper's family since September 2017")


def _family(init: Process) -> tuple[Process, Process, Process]:
    """Return a reaper and two children of it."""
    reaper = init.fork()
    reaper.procctl_reaper_acquire()
    return reaper, reaper.fork(), reaper.fork()


@pytest.mark.passes("pfind")
@CONFINED
@pytest.mark.parametrize("whose", ["sibling of the reaper", "parent of the reaper"])
def test_who_is_below_a_reaper_signals_nobody_outside(init: Process, whose: str) -> None:
    """EPERM, be it root; SIGCONT is free within the session all the same (kern_sig.c: kern_kill)."""
    _, member, _ = _family(init)
    outsider = init.fork() if whose == "sibling of the reaper" else init
    with fails(EPERM):
        member.kill(outsider.pid, 0)
    member.kill(outsider.pid, SIGCONT)


@pytest.mark.passes("proc_makepid")
@NOT_CONFINED
def test_who_is_below_a_reaper_signals_others_as_well(init: Process) -> None:
    """A reaper changes who inherits orphans, nothing else (kern_sig.c: kern_kill)."""
    _, member, _ = _family(init)
    outsider = hearing(init.fork())
    member.kill(outsider.pid, SIGUSR1)
    expect_signals(outsider, SIGUSR1)


@pytest.mark.passes("proc_makepid")
def test_who_is_below_a_reaper_signals_the_others_there(init: Process) -> None:
    """Those of lower reapers, too (kern_fork.c: reaper_sigtest)."""
    _, member, sibling = _family(init)
    sibling.procctl_reaper_acquire()
    nephew = hearing(sibling.fork())
    member.kill(nephew.pid, SIGUSR1)
    expect_signals(nephew, SIGUSR1)


@pytest.mark.passes("pgfind")
@CONFINED
def test_a_reaper_is_signalled_from_below_by_its_pid_alone(init: Process) -> None:
    """A signal to a group, or to everybody, passes it over (kern_fork.c: reaper_sigtest, reaper_ok)."""
    reaper, member, sibling = _family(init)
    reaper.setpgid(0, 0)
    for process in (member, sibling):
        process.setpgid(0, reaper.pid)
    for process in (reaper, sibling, member):
        hearing(process)
    member.killpg(reaper.pid, SIGUSR1)
    expect_signals(sibling, SIGUSR1)
    expect_signals(member, SIGUSR1)
    assert logged(reaper) == []
    member.kill(reaper.pid, SIGUSR1)
    expect_signals(reaper, SIGUSR1)
    reaper.killpg(reaper.pid, SIGUSR1)
    expect_signals(reaper, SIGUSR1)


@pytest.mark.passes("pgfind")
@CONFINED
def test_a_group_with_the_reaper_alone_has_nobody_to_signal(init: Process) -> None:
    """ESRCH (kern_sig.c: dokillpg)."""
    reaper, member, _ = _family(init)
    reaper.setpgid(0, 0)
    member.setpgid(0, 0)
    with fails(ESRCH):
        member.killpg(reaper.pid, 0)


# ---- Who sent it -------------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind")
@pytest.mark.parametrize(
    "told",
    [
        pytest.param(True, marks=pytest.mark.feature("wait6")),
        pytest.param(False, marks=pytest.mark.feature("!wait6")),
    ],
)
def test_a_handler_is_told_who_sent_the_signal_last(init: Process, told: bool) -> None:
    """Pid and effective user, since 2018; before, both are 0 (kern_sig.c: sigsetfrompid)."""
    receiver = init.fork()
    receiver.sigaction(SIGUSR1, Handler.LOG, SA_SIGINFO)
    first, second = init.fork(), init.fork()
    first.kill(receiver.pid, SIGUSR1)
    records = list(receiver.signals())  # now: a second one would be the same as one that still waits
    second.setresuid(0, SOMEBODY_ELSE, SOMEBODY)
    second.kill(receiver.pid, SIGUSR1)
    records += receiver.signals()
    senders = [(record.pid, record.uid) for record in records]
    assert senders == ([(first.pid, 0), (second.pid, SOMEBODY_ELSE)] if told else [(0, 0), (0, 0)])

# SPDX-License-Identifier: BSD-2-Clause
"""Signals, and what is told of them: defects of kern_sig.c, kern_fork.c and of what hangs on a process.

Each test states what ought to be, with the source of that, and fails on every kernel known so far.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from errno import EINVAL, EPERM
from signal import SIGKILL, SIGURG, SIGUSR1

import pytest

from harness.guests.guest import Guest
from harness.guests.whitebox import Whitebox
from harness.processes import SA_SIGINFO, GuestError, Handler, IdType, RemoteProcess, RforkFlag, fails, fails_with
from support.holds import held
from support.processes import F_GETOWN, F_SETOWN, SOMEBODY, bury, eventually, hearing, logged
from support.procfs import end, stalled
from support.programs import said_in_c

pytestmark = pytest.mark.needs_kernel
defect = pytest.mark.defect

# sys/procctl.h
PROC_PDEATHSIG_CTL, PROC_PDEATHSIG_STATUS, PROC_REAP_KILL = 4, 5, 6
REAPER_KILL = struct.Struct("<IiIi")  # flags, signal, killed, pid_failed
REAPER_KILL_CHILDREN = 1
EVFILT_SIGNAL, EV_ADD = -6, 1  # sys/event.h
KEVENT = struct.Struct("<QhHIqQ")  # ident, filter, flags, fflags, data, udata

death_signal = pytest.mark.feature("pdeathsig")
reap_kill = pytest.mark.feature("reap_kill")


def ask_for_death_signal(process: RemoteProcess, signal: int) -> None:
    """Let PROCESS ask for SIGNAL, a number, at its parent's death."""
    process.procctl(IdType.P_PID, 0, PROC_PDEATHSIG_CTL, struct.pack("<i", signal))


# ---- Births -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["process", "thread"])
@defect(
    since=200000,
    severity="wrong answer",
    reason="lwp_siglist lies in what lwp_fork() copies, so signals pending for one thread are inherited",
    reproducer="threads-pending-inherited.c",
)
def test_nothing_is_pending_for_a_new_process_or_thread(init: RemoteProcess, kind: str) -> None:
    """Whatever is pending for its creator, and whomever that was sent to (POSIX: fork(), pthread_create())."""
    parent = init.fork()
    parent.sigprocmask(mask=[SIGUSR1])
    parent.lwp_kill(parent.pid, parent.gettid(), SIGUSR1)
    assert parent.sigpending() == {SIGUSR1}
    created = parent.fork() if kind == "process" else parent.thread()
    assert created.sigpending() == frozenset()


# ---- Stacks of handlers -------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="kern_sigaltstack() minds SS_ONSTACK where the stack is disabled, and not where it is replaced",
    reproducer="sigaltstack-in-use.c",
)
def test_a_stack_that_a_handler_runs_on_is_not_replaced(guest: Guest) -> None:
    """EPERM (POSIX: sigaltstack(); kern_sig.c: kern_sigaltstack)."""
    assert said_in_c(guest, "sigaltstack-in-use.c") == "right: EPERM"


# ---- Parents' deaths ----------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind")
@pytest.mark.usefixtures("sacrificed")
@death_signal
@defect(
    since=500902,
    severity="panic by any user",
    reason="PROC_PDEATHSIG_CTL takes 128, which lwpsignal() asserts to be no signal when the parent dies",
    reproducer="pdeathsig-128.c",
    introduced="acdf1ee6e0 of 2020-11-15",
)
def test_a_death_signal_there_is_none_of_harms_nobody(init: RemoteProcess) -> None:
    """Whether it was refused or not, the parent's end is an end like any other (kern_fork.c: PROC_PDEATHSIG_CTL)."""
    parent = init.fork()
    parent.setuid(SOMEBODY)
    child = parent.fork()
    with suppress(GuestError):
        ask_for_death_signal(child, 128)
    end(parent, 0)
    assert init.start.wait4(parent.pid).result(20.0).exit_status == 0


@pytest.mark.passes("pfind")
@death_signal
@defect(
    since=500902,
    severity="wrong answer",
    reason="PROC_PDEATHSIG_CTL drops what is out of range and reports success",
    reproducer="pdeathsig-range.c",
    introduced="acdf1ee6e0 of 2020-11-15",
)
@pytest.mark.parametrize("signal", [-1, 128, 129, 999])
def test_a_death_signal_there_is_none_of_is_refused(init: RemoteProcess, signal: int) -> None:
    """EINVAL, as sigaction() says (FreeBSD: procctl(2); Linux: PR_SET_PDEATHSIG; kern_fork.c: sys_procctl)."""
    child = init.fork()
    try:
        with fails(EINVAL):
            ask_for_death_signal(child, signal)
    finally:
        ask_for_death_signal(child, 0)


# ---- Reapers ------------------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind")
@reap_kill
@defect(
    since=600510,
    severity="breach",
    reason="reaper_kill() asks whether the reaper may signal itself, not whether it may signal the descendant",
    reproducer="reap-kill-other-users.c",
    introduced="46d73a5af0 of 2025-03-08",
)
def test_a_reaper_cannot_signal_descendants_of_other_users(init: RemoteProcess) -> None:
    """They are left alone, and the first one is named in pid_failed (procctl(2); kern_fork.c: reaper_kill)."""
    reaper = init.fork()
    reaper.procctl_reaper_acquire()
    descendant = reaper.fork()
    hearing(descendant)
    reaper.setuid(SOMEBODY)
    with fails(EPERM):
        reaper.kill(descendant.pid, SIGUSR1)
    request = REAPER_KILL.pack(0, reaper.abi.signal_number(SIGUSR1), 0, 0)
    answer = REAPER_KILL.unpack(reaper.procctl(IdType.P_PID, 0, PROC_REAP_KILL, request))
    assert answer[2:] == (0, descendant.pid)
    assert logged(descendant) == []


@pytest.mark.passes("pfind")
@reap_kill
@defect(
    since=600510,
    severity="wrong answer",
    reason="PROC_REAP_KILL looks at one flag and does not mind the others",
    reproducer="reap-kill-flags.c",
    introduced="46d73a5af0 of 2025-03-08",
)
def test_flags_of_a_reapers_signal_that_mean_nothing_are_refused(init: RemoteProcess) -> None:
    """EINVAL: what they will mean one day must not be signals today (FreeBSD: procctl(2); kern_fork.c: reaper_kill)."""
    init.procctl_reaper_acquire()
    init.fork()
    request = REAPER_KILL.pack(0x80 | REAPER_KILL_CHILDREN, init.abi.signal_number(SIGURG), 0, 0)
    with fails(EINVAL):
        init.procctl(IdType.P_PID, 0, PROC_REAP_KILL, request)


@pytest.mark.passes("pfind")
@defect(
    since=500100,
    severity="wrong answer",
    reason="children keep the reaper that was given up, and may signal nobody outside of what it was the reaper of",
    reproducer="reaper-given-up.c",
    introduced="a73d77929c of 2017-09-28",
)
def test_whoever_gives_up_being_a_reaper_can_be_signalled_by_its_children(init: RemoteProcess) -> None:
    """As before it became one: only a reaper restricts (kill(2); procctl(2); kern_fork.c: reaper_sigtest)."""
    reaper = init.fork()
    early = reaper.fork()
    reaper.procctl_reaper_acquire()
    late = reaper.fork()
    reaper.procctl_reaper_release()
    early.kill(reaper.pid, 0)
    late.kill(reaper.pid, 0)
    late.kill(early.pid, 0)


# ---- Senders ------------------------------------------------------------------------------------------------------


@pytest.mark.passes("allproc_scan")
@pytest.mark.cpus(2)
@pytest.mark.usefixtures("sacrificed")
@defect(
    since=200000,
    severity="panic by any user",
    reason="kill(-1) asks for the owner of a process that fork() has put on the list and given no owner yet",
    reproducer="kill-all-while-forking.c",
)
def test_everybody_can_be_signalled_while_processes_are_born(init: RemoteProcess) -> None:
    """Whoever is not complete is passed over; shows on several CPUs (kern_sig.c: killpg_all_callback)."""
    sender, forker = init.fork(), init.fork()
    sender.setuid(SOMEBODY)
    forker.setuid(SOMEBODY)
    never = fails_with("EXDEV")
    calls = sender.start.repeat_until(never, "kill", -1, 0, seconds=60.0)
    storm = forker.start.storm(1_000_000, record=False, seconds=60.0)
    assert calls.result(90.0).count > 0
    assert storm.result(90.0).count > 0


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="sigtimedwait() fills in the signal's number alone, though it is known who sent it",
    reproducer="sigtimedwait-sender.c",
)
def test_whoever_waits_for_a_signal_is_told_who_sent_it(init: RemoteProcess) -> None:
    """si_pid and si_uid, as a handler is (POSIX: sigtimedwait(); kern_sig.c: kern_sigtimedwait, ps_frominfo)."""
    waiter, sender = init.fork(), init.fork()
    sender.setuid(SOMEBODY)
    waiter.setuid(SOMEBODY)
    waiter.sigprocmask(mask=[SIGUSR1])
    sender.kill(waiter.pid, SIGUSR1)
    info = waiter.sigtimedwait([SIGUSR1], 10.0)
    assert (info.signal, info.pid, info.uid) == (SIGUSR1, sender.pid, SOMEBODY)


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="sigsetfrompid() notes the effective user of the sender, not the real one",
    reproducer="handler-real-uid.c",
)
def test_a_handler_is_told_the_real_user_of_whoever_sent_the_signal(init: RemoteProcess) -> None:
    """si_uid is the real user id (POSIX: <signal.h>; FreeBSD: kern_kill(); kern_sig.c: sigsetfrompid)."""
    hearer, sender = init.fork(), init.fork()
    hearer.sigaction(SIGUSR1, Handler.LOG, SA_SIGINFO)
    sender.setreuid(SOMEBODY, 0)
    sender.kill(hearer.pid, SIGUSR1)
    record = hearer.await_signal(SIGUSR1)
    if not record.siginfo:
        pytest.skip("not applicable: this kernel passes no siginfo to handlers")
    assert (record.pid, record.uid) == (sender.pid, SOMEBODY)


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.usefixtures("sacrificed")
@defect(
    since=200000,
    severity="hang",
    reason="exit1() kills the peers of rfork(RFTHREAD) by kill(), which may be refused, and waits for ever",
    reproducer="leader-of-threads-setuid.c",
)
def test_a_leader_that_has_given_up_its_privileges_ends_with_its_peers(init: RemoteProcess) -> None:
    """They are killed whoever they are (rfork(2): RFTHREAD; FreeBSD: exit1(), kern_psignal(); kern_exit.c: exit1)."""
    leader = init.fork()
    leader.rfork(RforkFlag.RFPROC | RforkFlag.RFFDG | RforkFlag.RFTHREAD)
    leader.setuid(SOMEBODY)
    end(leader, 0)
    assert init.start.wait4(leader.pid).result(10.0).exit_status == 0


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.usefixtures("pristine", "sacrificed")
@defect(
    since=200000,
    severity="hang",
    reason="whoever is the last to close a terminal, be it by his end, waits for its output to be read: for ever",
    reproducer="terminal-not-read.c",
)
def test_a_process_ends_though_nobody_reads_what_it_has_written_to_a_terminal(init: RemoteProcess) -> None:
    """SIGKILL ends any process (POSIX: <signal.h>; FreeBSD: t_drainwait; tty.c: ttylclose, ttywait; exit1: fdfree)."""
    master, slave, _ = init.openpty()
    child = init.fork()
    child.close(master)
    init.close(slave)
    child.write(slave, b"x" * 100)
    init.kill(child.pid, SIGKILL)
    assert init.start.wait4(child.pid).result(15.0).signal == SIGKILL


# ---- What hangs on a process that ends ----------------------------------------------------------------------------


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.usefixtures("sacrificed")
@defect(
    since=200000,
    severity="panic by any user",
    reason="a queue shared by rfork() keeps EVFILT_SIGNAL notes on a process that is gone, and frees them from there",
    reproducer="signal-queue-shared.c",
)
def test_a_queue_outlives_whoever_waited_for_signals_in_it(init: RemoteProcess) -> None:
    """Its notes go with the process; closing it afterwards is harmless (kern_sig.c: filt_sigattach; kern_exit.c)."""
    parent = init.fork()
    parent.setuid(SOMEBODY)
    for _ in range(8):
        child = parent.rfork(RforkFlag.RFPROC)
        queue = child.syscall("kqueue").value
        wanted = KEVENT.pack(child.abi.signal_number(SIGUSR1), EVFILT_SIGNAL, EV_ADD, 0, 0, 0)
        child.syscall("kevent", queue, wanted, 1, 0, 0, 0)
        child.exit()
        assert parent.wait4(child.pid).exit_status == 0
        others = [init.fork() for _ in range(4)]  # they get the memory the process has left
        parent.start.close(queue).result(20.0)
        bury(init, *others)
    assert init.storm(200, seconds=60.0).count == 200


@pytest.mark.passes("pfind", "pstall")
@pytest.mark.usefixtures("sacrificed")
@defect(
    since=200000,
    severity="panic by any user",
    reason="F_SETOWN takes a process that is exiting and has let go of all descriptors: one keeps freed memory",
    reproducer="fsetown-exiting.c",
)
def test_a_descriptor_is_not_owned_by_whoever_is_exiting(init: RemoteProcess, kernel: Whitebox) -> None:
    """ESRCH, and so nothing is left of it when the descriptor is closed (kern_descrip.c: fsetown; FreeBSD: P_WEXIT)."""
    reading, _ = init.pipe()
    child = init.fork()
    with held(init, kernel, child):
        end(child, 0)
        eventually(lambda: (child.pid, "reap1") in stalled(init), "the exit to wait for the holder")
        error = ""
        try:
            init.fcntl(reading, F_SETOWN, child.pid)
        except GuestError as refusal:
            error = refusal.name
    init.start.wait4(child.pid).result(20.0)
    owner = init.fcntl(reading, F_GETOWN)
    others = [init.fork() for _ in range(4)]  # they get the memory the process has left
    init.start.close(reading).result(20.0)
    bury(init, *others)
    assert (error, owner) == ("ESRCH", 0)

# SPDX-License-Identifier: BSD-2-Clause
"""What wait4(), wait6() and getrusage() tell: defects of kern_wait() and of the accounting at the end of a process.

Each test states what ought to be, with the source of that, and fails on every kernel known so far.
"""

from __future__ import annotations

from signal import SIGCHLD, SIGCONT, SIGQUIT, SIGSTOP, SIGUSR1

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import (
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WNOWAIT,
    WUNTRACED,
    IdType,
    RemoteProcess,
    Resource,
    fails_with,
)
from harness.processes.kinfo import decode_rusage
from harness.processes.vocabulary import Rusage
from harness.processes.wire import Buffer
from support.holds import held, outcome
from support.mounts import procfs
from support.processes import await_continued, eventually, expect_signals, hearing, stop
from support.procfs import S_CORE, hold, stalled

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc
defect = pytest.mark.defect
wait6 = pytest.mark.feature("wait6")

CLD_STOPPED, CLD_CONTINUED = 5, 6  # sys/signal.h
RUSAGE_SELF = 0


def usage(process: RemoteProcess) -> Rusage:
    """Return what PROCESS has used so far, all its threads together."""
    buffer = Buffer(bytes(144), wanted=True)
    return decode_rusage(process.syscall("getrusage", RUSAGE_SELF, buffer).memory(buffer))


# ---- siginfo ------------------------------------------------------------------------------------------------------


@pytest.mark.passes("pholdzomb")
@wait6
@defect(
    since=500317,
    severity="wrong answer",
    reason="of a stop or its end kern_wait() fills in si_code alone, and takes the high byte of a bare signal number",
    reproducer="wait6-report-of-a-stop.c",
    introduced="33b81dc963 of 2018-09-30",
)
def test_the_report_of_a_stop_is_complete(init: RemoteProcess) -> None:
    """si_signo is SIGCHLD, si_status the signal (POSIX: waitid(); wait(2); kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    stopped = init.wait6(IdType.P_PID, child.pid, WUNTRACED | WEXITED).siginfo
    init.kill(child.pid, SIGCONT)
    await_continued(init, child)
    continued = init.wait6(IdType.P_PID, child.pid, WCONTINUED | WEXITED).siginfo
    assert stopped is not None
    assert continued is not None
    number = init.abi.signal_number
    assert (stopped.signal, stopped.code, stopped.status) == (SIGCHLD, CLD_STOPPED, number(SIGSTOP))
    assert (continued.signal, continued.code, continued.status) == (SIGCHLD, CLD_CONTINUED, number(SIGCONT))


@pytest.mark.passes("pholdzomb")
@wait6
@defect(
    since=500317,
    severity="leak of kernel memory",
    reason="with nothing to report wait6() copies out a siginfo_t that nobody has filled",
    reproducer="wait6-kernel-stack.c",
    introduced="33b81dc963 of 2018-09-30",
)
def test_the_report_of_nothing_is_empty(init: RemoteProcess) -> None:
    """si_signo and si_pid are 0 (POSIX: waitid(); wait(2): WNOHANG; kern_exit.c: sys_wait6)."""
    child = init.fork()
    for _ in range(10):
        init.sysctl.kern_proc_pid(child.pid)
        result = init.wait6(IdType.P_PID, child.pid, WEXITED | WNOHANG)
        assert result.pid == 0
        assert result.siginfo is not None
        assert (result.siginfo.pid, result.siginfo.signal) == (0, "signal 0")


# ---- Looking without reaping --------------------------------------------------------------------------------------


@kern_proc("pwaitres_set")
@pytest.mark.passes("pholdzomb", "prelezomb", "pstall")
@wait6
@defect(
    since=500900,
    severity="wrong answer",
    reason="whoever only looks at a zombie (WNOWAIT) reserves it as a reaper would: others are told ECHILD meanwhile",
    reproducer="zombie-looked-at.c",
)
def test_a_zombie_somebody_looks_at_is_there_for_whoever_reaps_it(init: RemoteProcess, kernel: Whitebox) -> None:
    """WNOWAIT leaves it to be waited for (POSIX: waitid(); kern_exit.c: kern_wait; kern_proc.c: pwaitres_set)."""
    zombie, looker, reaper = init.fork(), init.thread(), init.thread()
    zombie.exit(7)
    with held(init, kernel, zombie):
        look = looker.start.wait6(IdType.P_PID, zombie.pid, WEXITED | WNOWAIT)
        eventually(lambda: (init.pid, "reap3") in stalled(init), "the looker to wait for the holder")
        reaping = reaper.start.wait4(zombie.pid)
        init.getpid()
    assert outcome(look) == "exited with status 7"
    assert outcome(reaping) == "exited with status 7"


# ---- What a child has used ----------------------------------------------------------------------------------------


@pytest.mark.passes("pholdzomb")
@defect(
    since=200000,
    severity="leak of kernel memory",
    reason="of a child that goes on kern_wait() leaves the usage unset, and wait4() copies out what is on the stack",
    reproducer="wait-continued-stack.c",
)
def test_the_usage_of_a_child_that_goes_on_is_nothing_of_the_kernels_memory(init: RemoteProcess) -> None:
    """All zero, as for one that stops (kern_exit.c: kern_wait)."""
    child = init.fork()
    for _ in range(5):
        stop(init, child)
        init.wait4(child.pid, WUNTRACED)
        init.kill(child.pid, SIGCONT)
        await_continued(init, child)
        init.sysctl.kern_proc_pid(child.pid)
        result = init.wait4(child.pid, WCONTINUED)
        assert result.continued
        assert set(vars(result.rusage).values()) <= {0}


@pytest.mark.passes("pholdzomb")
@defect(
    since=200000,
    severity="wrong answer",
    reason="exit1() adds the usage of the last thread to the process's, and lwp_exit() adds it once more",
    reproducer="rusage-counted-twice.c",
)
def test_what_a_child_has_used_is_counted_once(init: RemoteProcess) -> None:
    """wait4() tells what getrusage() told the child (getrusage(2); kern_exit.c: exit1, lwp_exit)."""
    child = init.fork()
    hearing(child)
    for _ in range(5):
        init.kill(child.pid, SIGUSR1)
        expect_signals(child, SIGUSR1)
    own = usage(child).nsignals
    assert own >= 5
    child.exit()
    assert init.wait4(child.pid).rusage.nsignals == own


@pytest.mark.passes("fill_kinfo_lwp")
@defect(
    since=200000,
    severity="wrong answer",
    reason="lwp_exit() hands down lwp_ru, in which nobody keeps the time: that of a thread that has ended is forgotten",
    reproducer="thread-time-forgotten.c",
)
def test_the_time_of_a_thread_that_has_ended_still_counts(init: RemoteProcess) -> None:
    """RUSAGE_SELF is about all threads, ended ones included (POSIX: getrusage(); kern_exit.c: lwp_exit)."""
    process = init.fork()
    thread = process.thread()
    thread.repeat_until(fails_with("EXDEV"), "getppid", seconds=1.0)
    before = usage(process)
    thread.exit()
    eventually(lambda: init.sysctl.kern_proc_pid(process.pid)[0].nthreads == 1, "the thread to end")
    after = usage(process)
    assert after.utime + after.stime >= before.utime + before.stime


@pytest.mark.passes("pholdzomb")
@defect(
    since=400302,
    severity="wrong answer",
    reason="while a child writes its core it is in SCORE, which kern_wait() reports as stopped, by signal 0",
    reproducer="core-reported-as-stop.c",
    introduced="f5b92db707 of 2015-07-10",
)
def test_a_child_that_writes_its_core_is_not_stopped(init: RemoteProcess) -> None:
    """wait4(WUNTRACED) reports its death, and nothing before (POSIX: waitpid(); kern_sig.c: sigexit, SCORE)."""
    with procfs(init) as mounted:
        child, holder = init.fork(), init.fork()
        child.setrlimit(Resource.RLIMIT_CORE, 0)
        begun = hold(holder, child, mounted, S_CORE, keep_open=True)
        init.kill(child.pid, SIGQUIT)
        begun.result(20.0)
        early = init.wait4(child.pid, WNOHANG | WUNTRACED)
        holder.exit()  # and with it the event
        assert early.pid == 0, str(early.status)
        assert init.start.wait4(child.pid, WUNTRACED).result(20.0).signal == SIGQUIT

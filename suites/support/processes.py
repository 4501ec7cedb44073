# SPDX-License-Identifier: BSD-2-Clause
"""Small things several test files need: waiting for what can be observed, and looking at the process table."""

from __future__ import annotations

import time
from collections.abc import Callable
from signal import SIGCONT, SIGSTOP, SIGUSR1, Signals
from typing import TypeVar

import pytest

from harness.errors import GuestDeadlineError
from harness.processes import (
    DRAGONFLY,
    GuestError,
    Handler,
    KinfoProc,
    LwpStat,
    Pending,
    Process,
    ProcStat,
    RemoteProcess,
    RemoteThread,
    Repeat,
    fails_with,
)
from harness.processes.allocator import random_pids
from harness.processes.vocabulary import SignalName

P = TypeVar("P", bound=Process)

#: No pid, and so no group or session, can be this: one below PID_MAX (sys/proc.h), never reached in a test's guest.
NO_SUCH_ID = 999_998

#: Users nobody is; a process becomes one of them to lose its privileges.
SOMEBODY, SOMEBODY_ELSE = 61_001, 61_002

F_GETOWN, F_SETOWN = 5, 6  # sys/fcntl.h

HASH_SIZE = 256  # ALLPROC_HSIZE: the tables of processes, groups and sessions have so many chains

#: Marks tests in which somebody is refused a setpgid() of a process that does not descend from him.
keeps_the_swapper = pytest.mark.leaves_unsound(
    r"^process 0 \(swapper\) is held \d+ times by nobody",
    reason="inferior() returns 0 without releasing the process it has climbed to, the swapper",
)


def eventually(condition: Callable[[], bool], awaited: str, seconds: float = 20.0) -> None:
    """Ask until CONDITION holds.  Each question is a system call in the guest, which sets the pace.

    Raises GuestDeadlineError after SECONDS (host time).
    """
    deadline = time.monotonic() + seconds
    late = False
    while not condition():
        if late:
            raise GuestDeadlineError(awaited, seconds)
        late = time.monotonic() > deadline  # however long the last look took, there is one more


def row(observer: Process, pid: int) -> KinfoProc:
    """Return PID's row of the process table, zombie or not; KeyError if there is none."""
    found = observer.sysctl.kern_proc_pid(pid)
    return found[0] if found else observer.sysctl.kern_proc_all()[pid]


def exists(observer: Process, pid: int) -> bool:
    """Tell whether PID is anybody, alive or zombie: kill() knows both (kern_sig.c: kern_kill())."""
    try:
        observer.kill(pid, 0)
    except GuestError as error:
        return error.name != "ESRCH"
    return True


def holds(observer: Process, process: Process) -> int:
    """Return how often PROCESS is held (p_lock), by the asking included.

    The scheduler holds each process for an instant every second, too: that is not in every reading.
    """
    return min(observer.sysctl.kern_proc_pid(process.pid)[0].lock for _ in range(5))


def has_stopped(observer: Process, process: Process) -> bool:
    """Tell whether PROCESS is stopped or about to stop, without consuming the report wait4() would give."""
    found = observer.sysctl.kern_proc_pid(process.pid)
    return bool(found) and found[0].stat == ProcStat.SSTOP


def await_stopped(observer: Process, process: Process) -> None:
    """Return when PROCESS is stopped and its parent was told so.

    The process's state changes with the signal; the parent is told when the last thread comes to a halt, which is at
    once if it sleeps and on its way back to user mode if it runs (kern_sig.c: proc_stop; kern_synch.c: tstop).  Whoever
    is told between the two is told twice: tstop() clears P_WAITED while it has to give way to wait4().
    """

    def halted() -> bool:
        found = observer.sysctl.kern_proc_pid(process.pid)
        return bool(found) and found[0].stat == ProcStat.SSTOP and found[0].lwp.stat != LwpStat.LSRUN

    eventually(halted, f"process {process.pid} to stop")


def await_continued(observer: Process, process: Process) -> None:
    """Return when PROCESS, which was stopped, runs again."""
    eventually(lambda: not has_stopped(observer, process), f"process {process.pid} to be continued")


def await_asleep(observer: Process, process: Process, where: str = "wait") -> None:
    """Return when PROCESS sleeps in the kernel at WHERE (kl_wmesg)."""
    eventually(lambda: row(observer, process.pid).lwp.wmesg == where, f"process {process.pid} to sleep in {where}")


def await_idle(observer: Process, *processes: Process) -> None:
    """Return when none of PROCESSES runs any more: whoever is to be stopped has to be idle.

    Of one about to fall asleep when the signal comes, the parent is told nothing until it awakes (kern_sig.c:
    proc_stop; kern_synch.c: tsleep).  Whoever was woken a moment ago still looks asleep: it has to answer a call first.
    """
    eventually(
        lambda: all(row(observer, process.pid).lwp.stat != LwpStat.LSRUN for process in processes),
        f"{', '.join(f'process {process.pid}' for process in processes)} to be idle",
    )


def stop(sender: Process, process: Process, signal: Signals = SIGSTOP) -> None:
    """Send SIGNAL and return when PROCESS is stopped; its parent has not been told by wait4() yet."""
    await_idle(sender, process)
    sender.kill(process.pid, signal)
    await_stopped(sender, process)


def signal_number(process: Process, signal: Signals | int) -> int:
    """Return PROCESS's kernel's number of a signal."""
    return (process.abi if isinstance(process, RemoteProcess) else DRAGONFLY).signal_number(signal)


def hearing(process: P, *signals: Signals) -> P:
    """Let PROCESS log each of SIGNALS (SIGUSR1 if none is named) from now on; return it."""
    for signal in signals or (SIGUSR1,):
        process.sigaction(signal, Handler.LOG)
    return process


def logged(process: Process) -> list[SignalName]:
    """Return the signals PROCESS's handlers have logged since the last time, in that order."""
    return [record.signal for record in process.signals()]


def expect_signals(process: Process, *signals: SignalName) -> None:
    """Wait until PROCESS's handlers have logged SIGNALS and nothing else, in that order.

    Who stops is seen as stopped an instant before its parent is told (kern_synch.c: tstop).
    """
    heard: list[SignalName] = []

    def all_came() -> bool:
        heard.extend(logged(process))
        return len(heard) >= len(signals)

    eventually(all_came, f"process {process.pid} to hear {len(signals)} signals")
    assert heard == list(signals)


def bury(parent: Process, *children: Process) -> None:
    """Let each of CHILDREN exit and reap it: whoever still holds one of them in the kernel is noticed."""
    for child in children:
        child.exit()
        assert parent.wait4(child.pid).pid == child.pid


def group_exists(sibling_maker: Process, pgid: int) -> bool:
    """Tell whether the kernel knows group PGID in SIBLING_MAKER's session, members or not.

    killpg() cannot tell an unknown group from an empty one; a process that tries to join can.
    """
    probe = sibling_maker.fork()
    try:
        probe.setpgid(0, pgid)
    except GuestError as error:
        if error.name != "EPERM":
            raise
        return False
    else:
        return True
    finally:
        bury(sibling_maker, probe)


def jobc(observer: Process, pgid: int) -> int:
    """Return the job control count of a group, as its members' rows tell it."""
    counts = {member.jobc for member in observer.sysctl.kern_proc_pgrp(pgid)}
    assert len(counts) == 1, f"rows of group {pgid} disagree about kp_jobc: {counts}"
    return counts.pop()


def chain_mates(parent: Process, prepare: Callable[[Process], object] = id) -> tuple[Process, Process]:
    """Fork until two children's pids fall into the same hash chain; return (older, younger).

    The younger one is in front: kern_proc.c inserts at the head.  PREPARE is called for each child in turn.
    """
    seen: dict[int, Process] = {}
    with random_pids(parent, 5000):
        while True:
            child = parent.fork()
            prepare(child)
            older = seen.setdefault(child.pid % HASH_SIZE, child)
            if older is not child:
                return older, child


def numbers_taken(process: Process) -> set[int]:
    """Return all numbers that are a pid, pgid or sid now."""
    rows = [row for row in process.sysctl.kern_proc_all() if not row.is_kernel_thread]
    return {number for row in rows for number in (row.pid, row.pgid, row.sid)}


def resume(sender: Process, child: Process) -> None:
    """Let SENDER continue CHILD, which is stopped; return when it answers again."""
    sender.kill(child.pid, SIGCONT)
    eventually(lambda: row(sender, child.pid).stat != 3, f"process {child.pid} to be continued")
    assert child.getpid() == child.pid  # its thread, too, is on its way no longer


def keep_busy(thread: RemoteProcess | RemoteThread) -> Pending[Repeat]:
    """Let THREAD make one system call after the other, without end."""
    return thread.start.repeat_until(fails_with("EPERM"), "getpid", seconds=3600.0)


def is_zombie(observer: Process, pid: int) -> bool:
    """Tell whether PID is a zombie."""
    table = observer.sysctl.kern_proc_all()
    return pid in table and table[pid].is_zombie

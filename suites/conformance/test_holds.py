"""Holds: a process stays in memory while somebody looks at it, and whoever takes it apart waits for him, no longer.

procfs gives a hold of any length: PIOCWAIT keeps the process held until it stops for one of the events asked for.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGKILL, SIGSTOP

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import WNOHANG, GuestError, Pending, RemoteProcess, Repeat, WaitResult, fails, length_is
from harness.processes.wire import Buffer

from ._help import await_stopped, bury, eventually, exists, has_stopped, holds, keeps_the_swapper
from ._mounts import procfs
from ._sysctl import ALL, ARGS, CWD, PGRP, PID, proc_mib

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc

# sys/pioctl.h
PIOCBIS, PIOCWAIT, PIOCCONT, PIOCSTATUS = 0x80007001, 0x40207004, 0x80007005, 0x40207006
S_EXEC, S_SIG, S_EXIT = 0x01, 0x02, 0x20
_PROCFS_STATUS = struct.Struct("<iiQi4xQ")  # state, flags, events, why, val

#: struct proc is longer in every era, and what counts its holders lies before.
_WORDS = struct.Struct("<288I")

#: What pstall() and pholdzomb() wait for, as ps shows it.
STALLS = {"reap1", "reap1a", "reap2", "reap2a", "reap3", "reap4", "reap5", "phldz", "exec1"}


def stalled(observer: RemoteProcess) -> list[tuple[int, str]]:
    """Return who waits for a hold to go away, and where."""
    rows = observer.sysctl.kern_proc_all(lwp=True)
    return [(row.pid, row.lwp.wmesg) for row in rows if row.lwp.wmesg in STALLS]


def is_zombie(observer: RemoteProcess, pid: int) -> bool:
    """Tell whether PID is a zombie."""
    table = observer.sysctl.kern_proc_all()
    return pid in table and table[pid].is_zombie


def hold(holder: RemoteProcess, target: RemoteProcess, mounted: str, events: int) -> Pending[bytes]:
    """Let HOLDER hold TARGET until it stops for one of EVENTS; return when the hold is there."""
    fd = holder.open(f"{mounted}/{target.pid}/mem", os.O_RDONLY)
    holder.ioctl(fd, PIOCBIS, events)
    pending = holder.start.ioctl(fd, PIOCWAIT, bytes(_PROCFS_STATUS.size))
    eventually(lambda: waits_in(target, holder.pid, "piocwait"), f"{holder.pid} to wait in PIOCWAIT")
    return pending


def waits_in(observer: RemoteProcess, pid: int, wmesg: str) -> bool:
    """Tell whether PID sleeps under the name WMESG."""
    return any(row.lwp.wmesg == wmesg for row in observer.sysctl.kern_proc_pid(pid))


def end(process: RemoteProcess, status: int) -> None:
    """Start the end of PROCESS without waiting for it to be complete."""
    process.start.exit(status)


@contextmanager
def fails_or_not() -> Iterator[None]:
    """Let a block fail in the guest if it will: all it must not do is hang."""
    try:
        yield
    except GuestError:
        return


# ---- Exit and exec wait for holders -------------------------------------------------------------------------------


@kern_proc("pstall", "prele", "proc_move_allproc_zombie")
@pytest.mark.parametrize("holders", [1, 3])
def test_a_process_that_is_held_ends_by_asking_the_holders_to_let_go(init: RemoteProcess, holders: int) -> None:
    """They return from PIOCWAIT, the event never having come, and the exit goes on (kern_proc.c: pstall)."""
    with procfs(init) as mounted:
        target, others = init.fork(), [init.fork() for _ in range(holders)]
        waits = [hold(other, target, mounted, S_SIG) for other in others]
        end(target, 9)
        for wait in waits:
            with fails_or_not():
                wait.result(20.0)
        eventually(lambda: is_zombie(init, target.pid), "the process to become a zombie")
        assert init.start.wait4(target.pid).result(20.0).exit_status == 9
        assert stalled(init) == []


@kern_proc("pstall")
def test_who_waits_for_an_event_of_a_process_that_ends_is_told_of_none(init: RemoteProcess) -> None:
    """Nobody waits for events any more, which is no error (kern_proc.c: pstall; procfs_vnops.c: PIOCWAIT)."""
    with procfs(init) as mounted:
        target, holder = init.fork(), init.fork()
        wait = hold(holder, target, mounted, S_SIG)
        end(target, 0)
        state, *_ = _PROCFS_STATUS.unpack(wait.result(20.0))
        assert state == 0


@kern_proc("pstall", "prele")
def test_a_held_process_can_be_killed(init: RemoteProcess) -> None:
    """SIGKILL ends it as _exit() would (kern_proc.c: pstall)."""
    with procfs(init) as mounted:
        target, holder = init.fork(), init.fork()
        wait = hold(holder, target, mounted, S_EXEC)
        init.kill(target.pid, SIGKILL)
        with fails_or_not():
            wait.result(20.0)
        assert init.start.wait4(target.pid).result(20.0).signal == SIGKILL


@kern_proc("pstall", "phold", "prele")
def test_the_hold_count_of_a_process_that_was_held_is_that_of_any_other(init: RemoteProcess) -> None:
    """Nothing of the waiting is left in p_lock (kern_proc.c: prele)."""
    with procfs(init) as mounted:
        target, control, holder = init.fork(), init.fork(), init.fork()
        wait = hold(holder, target, mounted, S_SIG)
        assert holds(init, target) > holds(init, control)
        end(target, 0)
        end(control, 0)
        with fails_or_not():
            wait.result(20.0)
        eventually(lambda: is_zombie(init, target.pid) and is_zombie(init, control.pid), "both to become zombies")
        eventually(
            lambda: init.sysctl.kern_proc_all()[target.pid].lock == init.sysctl.kern_proc_all()[control.pid].lock,
            "the hold counts of both zombies to be the same",
        )


@kern_proc("pstall", "prele")
def test_a_held_process_runs_another_program_by_asking_the_holder_to_let_go(init: RemoteProcess) -> None:
    """PIOCWAIT fails with EAGAIN while execve() is under way (kern_exec.c: exec_new_vmspace, pstall)."""
    with procfs(init) as mounted:
        target, holder = init.fork(), init.fork()
        wait = hold(holder, target, mounted, S_SIG)
        target.reexec()
        with fails("EAGAIN"):
            wait.result(20.0)
        assert target.getpid() == target.pid
        bury(init, target)


@kern_proc("pstall", "phold")
def test_a_process_stopped_at_its_exit_goes_on_when_told_to(init: RemoteProcess) -> None:
    """With S_EXIT the end itself is an event; until PIOCCONT the process is not even a zombie (kern_exit.c: exit1)."""
    with procfs(init) as mounted:
        target, holder = init.fork(), init.fork()
        wait = hold(holder, target, mounted, S_EXIT)
        end(target, 4)
        state, _, events, why, value = _PROCFS_STATUS.unpack(wait.result(20.0))
        assert (state, events, why, value) == (1, S_EXIT, S_EXIT, 4 << 8)
        assert not is_zombie(init, target.pid)
        fd = holder.open(f"{mounted}/{target.pid}/mem", os.O_RDONLY)
        holder.ioctl(fd, PIOCCONT, 0)
        assert init.start.wait4(target.pid).result(20.0).exit_status == 4


@kern_proc("pstall", "phold", "prele")
@pytest.mark.parametrize("ended_by", ["exit", "execve"])
def test_a_vforked_child_is_not_stopped_by_its_waiting_parent(init: RemoteProcess, ended_by: str) -> None:
    """The parent sleeps with a hold on it, which exec and exit allow for (kern_exec.c: exec1, kern_exit.c: PPWAIT)."""
    child = init.vfork()
    if ended_by == "exit":
        child.exit(3)
        assert init.wait4(child.pid).exit_status == 3
    else:
        child.execve("/bin/sleep", ["sleep", "0"])
        assert init.start.wait4(child.pid).result(20.0).exit_status == 0


@kern_proc("pstall", "prele")
def test_a_held_vforked_child_runs_another_program(init: RemoteProcess) -> None:
    """Its parent's hold is allowed for, a reader's is not (kern_exec.c: exec1)."""
    with procfs(init) as mounted:
        parent, holder = init.fork(), init.fork()
        child = parent.vfork()
        wait = hold(holder, child, mounted, S_SIG)
        child.execve("/bin/sleep", ["sleep", "0"])
        with fails("EAGAIN"):
            wait.result(20.0)
        assert parent.start.wait4(child.pid).result(20.0).exit_status == 0


# ---- Readers ------------------------------------------------------------------------------------------------------


def poll(reader: RemoteProcess, mib: tuple[int, ...], seconds: float) -> Pending[Repeat]:
    """Let READER read MIB over and over until it is empty, or for SECONDS."""
    room = 1 << 18
    length = Buffer(struct.pack("<Q", room))
    name = struct.pack(f"<{len(mib)}i", *mib)
    return reader.start.repeat_until(
        length_is(0), "__sysctl", name, len(mib), Buffer(size=room), length, 0, 0, seconds=seconds, length_in=length
    )


@kern_proc("pstall", "phold", "prele", "proc_move_allproc_zombie", "sysctl_kern_proc", "sysctl_kern_proc_args")
@pytest.mark.parametrize("node", [PID, ARGS, CWD])
def test_processes_end_while_others_look_at_them(init: RemoteProcess, node: int) -> None:
    """Readers are waited for, and find nothing afterwards (kern_proc.c: proc_move_allproc_zombie)."""
    readers = [init.fork() for _ in range(3)]
    for round_ in range(6):
        child = init.fork()
        child.touch_memory(4 << 20)
        polls = [poll(reader, proc_mib(node, child.pid), seconds=20.0) for reader in readers]
        child.exit(round_)
        assert init.start.wait4(child.pid).result(20.0).exit_status == round_
        for each in polls:
            assert each.result(30.0).met
    assert stalled(init) == []


@kern_proc("pstall", "proc_remove_zombie", "sysctl_kern_proc")
@pytest.mark.parametrize("kind", ["fork", "vfork"])
def test_processes_come_and_go_while_the_whole_table_is_read(init: RemoteProcess, kind: str) -> None:
    """The scan holds whom it visits, and reaping waits for it (kern_proc.c: proc_remove_zombie)."""
    readers, stormers = [init.fork() for _ in range(2)], [init.fork() for _ in range(2)]
    for reader, mib in zip(readers, (proc_mib(ALL), proc_mib(PGRP, init.pid)), strict=True):
        poll(reader, mib, 60.0)
    storms = [stormer.start.storm(250, kind, record=False, seconds=50.0) for stormer in stormers]
    for storm in storms:
        made = storm.result(60.0)
        assert (made.error, made.count) == (None, 250)
    for reader in readers:
        init.kill(reader.pid, SIGKILL)
        assert init.start.wait4(reader.pid).result(20.0).signal == SIGKILL
    assert stalled(init) == []


@kern_proc("zpfind", "prele")
def test_a_zombies_end_is_reported_to_whoever_asks_for_it_later(init: RemoteProcess) -> None:
    """EVFILT_PROC with NOTE_EXIT finds zombies too, and holds them no longer than that (kern_event.c)."""
    zombie, never = init.fork(), init.fork()
    zombie.exit(6)
    bury(init, never)
    queue = init.syscall("kqueue").value
    wanted = struct.pack("<QhHIqQ", zombie.pid, -5, 1, 0x80000000, 0, 0)
    event = Buffer(bytes(32), wanted=True)
    result = init.syscall("kevent", queue, wanted, 1, event, 1, struct.pack("<qq", 10, 0))
    assert result.value == 1
    ident, filter_, _, happened, _, _ = struct.unpack("<QhHIqQ", result.memory(event))
    assert (ident, filter_, happened) == (zombie.pid, -5, 0x80000000)
    with fails("ESRCH"):
        init.syscall("kevent", queue, struct.pack("<QhHIqQ", never.pid, -5, 1, 0x80000000, 0, 0), 1, 0, 0, 0)
    assert init.wait4(zombie.pid).exit_status == 6


# ---- Who reaps ----------------------------------------------------------------------------------------------------


def outcome(wait: Pending[WaitResult]) -> str:
    """Return the status a wait brought, or the name of its error."""
    try:
        return str(wait.result(20.0).status)
    except GuestError as error:
        return error.name


@pytest.mark.usefixtures("several_reapers")
@kern_proc("pholdzomb", "prelezomb")
def test_two_threads_that_wait_for_one_child_share_nothing(init: RemoteProcess) -> None:
    """One of them reaps it, the other is told that there is no such child (kern_exit.c: kern_wait)."""
    first, second = init.thread(), init.thread()
    for round_ in range(40):
        child = init.fork()
        waits = [thread.start.wait4(child.pid) for thread in (first, second)]
        end(child, round_)
        assert {outcome(wait) for wait in waits} == {f"exited with status {round_}", "ECHILD"}
    assert stalled(init) == []


@pytest.mark.usefixtures("several_reapers")
@kern_proc("pholdzomb", "prelezomb")
def test_threads_that_wait_for_any_child_get_each_child_once(init: RemoteProcess) -> None:
    """Whoever finds the zombie taken looks for another one (kern_proc.c: pholdzomb)."""
    threads = [init.thread() for _ in range(4)]
    for _ in range(10):
        children = [init.fork() for _ in threads]
        waits = [thread.start.wait4(-1) for thread in threads]
        for child in children:
            end(child, 0)
        assert sorted(wait.result(20.0).pid for wait in waits) == sorted(child.pid for child in children)
    with fails("ECHILD"):
        init.wait4(-1)
    assert stalled(init) == []


def hold_count(init: RemoteProcess, kernel: Whitebox) -> int:
    """Return where struct proc counts those who hold the process: the word that follows their number.

    Found by holding one, so that a kernel without debug file can be asked as well (sys/proc.h: p_lock).
    """
    with procfs(init) as mounted:
        target = init.fork()
        (found,) = init.sysctl.kern_proc_pid(target.pid)

        def that_are(count: int) -> set[int]:
            are: set[int] = set()
            for _ in range(5):  # the scheduler, too, holds each process for an instant every second
                words = _WORDS.unpack(kernel.read(found.paddr, _WORDS.size))
                are |= {number for number, word in enumerate(words) if word == count}
                init.getpid()
            return are

        followed, waits = that_are(0), []
        for count, holder in enumerate([init.fork() for _ in range(3)], 1):
            waits.append(hold(holder, target, mounted, S_SIG))
            followed &= that_are(count)
        # A clock may have run along; it does not run back.
        init.kill(holder.pid, SIGKILL)
        init.start.wait4(holder.pid).result(20.0)
        followed &= that_are(len(waits) - 1)
        end(target, 0)
        for wait in waits[:-1]:
            with fails_or_not():
                wait.result(20.0)
        init.start.wait4(target.pid).result(20.0)
    assert len(followed) == 1, f"{len(followed)} words of struct proc count the holders"
    return followed.pop() * 4


@contextmanager
def held(init: RemoteProcess, kernel: Whitebox, process: RemoteProcess) -> Iterator[None]:
    """Hold PROCESS or zombie inside the block, as a reader would that takes his time; INIT asks for it at its end.

    Whoever lets go of a process wakes those who wait for that.  Woken by others, they may have gone on already.
    """
    place = init.sysctl.kern_proc_all()[process.pid].paddr + hold_count(init, kernel)
    kernel.add(place, 1)
    try:
        yield
    finally:
        kernel.add(place, -1)
        exists(init, process.pid)


@kern_proc("proc_move_allproc_zombie", "pstall", "phold", "prele", "pfind")
def test_a_process_is_no_zombie_before_everybody_has_let_go_of_it(init: RemoteProcess, kernel: Whitebox) -> None:
    """Until then its exit waits, and it is found and listed (kern_proc.c: proc_move_allproc_zombie)."""
    child = init.fork()
    with held(init, kernel, child):
        end(child, 3)
        eventually(lambda: (child.pid, "reap1") in stalled(init), "the exit to wait for the holder")
        (found,) = init.sysctl.kern_proc_pid(child.pid)
        assert not found.is_zombie
        for listed in (init.sysctl.kern_proc_all(), init.sysctl.kern_proc_pgrp(init.pid), init.sysctl.kern_proc_uid(0)):
            assert listed.pids.count(child.pid) == 1
        assert init.wait4(child.pid, WNOHANG).pid == 0
    assert init.start.wait4(child.pid).result(20.0).exit_status == 3


@kern_proc("zpfind", "sysctl_out_proc", "sysctl_kern_proc", "pstall", "prele", "proc_remove_zombie")
def test_a_zombie_is_there_until_its_reaper_has_got_hold_of_it_alone(init: RemoteProcess, kernel: Whitebox) -> None:
    """Without threads, but still listed, once, and to be signalled (kern_exit.c: kern_wait; kern_proc.c: pstall)."""
    zombie, reaper = init.fork(), init.thread()
    zombie.exit(7)
    with held(init, kernel, zombie):
        wait = reaper.start.wait4(zombie.pid)
        eventually(lambda: (init.pid, "reap3") in stalled(init), "the reaper to wait for the holder")
        for lwp in (False, True):
            assert init.sysctl.kern_proc_all(lwp=lwp).pids.count(zombie.pid) == 1
        init.kill(zombie.pid, 0)
        assert not wait.done
    assert wait.result(20.0).exit_status == 7
    assert zombie.pid not in init.sysctl.kern_proc_all()


@kern_proc("zpfind", "pstall")
def test_an_inherited_zombie_is_found_until_process_1_has_reaped_it(init: RemoteProcess, kernel: Whitebox) -> None:
    """By anybody, as any zombie (kern_proc.c: zpfind)."""
    parent = init.fork()
    zombie = parent.fork()
    zombie.exit()
    with held(init, kernel, zombie):
        bury(init, parent)
        eventually(lambda: (1, "reap3") in stalled(init), "process 1 to wait for the holder")
        init.kill(zombie.pid, 0)
    eventually(lambda: not exists(init, zombie.pid), "process 1 to reap it")


@pytest.mark.eras(until=500_710, reason="a child being reaped is passed over since February 2020")
@pytest.mark.usefixtures("several_reapers")
@kern_proc("pholdzomb", "prelezomb", "pstall", "prele")
@pytest.mark.parametrize("latecomers", [1, 3])
def test_whoever_finds_a_zombie_being_reaped_waits_and_gets_nothing(
    init: RemoteProcess, kernel: Whitebox, latecomers: int
) -> None:
    """One reaper at a time; the others look again when it is done (kern_proc.c: pholdzomb, prelezomb)."""
    zombie = init.fork()
    first, *others = [init.thread() for _ in range(1 + latecomers)]
    zombie.exit(7)
    with held(init, kernel, zombie):
        waits = [first.start.wait4(zombie.pid)]
        eventually(lambda: (init.pid, "reap3") in stalled(init), "the first to wait for the holder")
        waits += [other.start.wait4(zombie.pid) for other in others]
        waiting = [(init.pid, "phldz")] * latecomers + [(init.pid, "reap3")]
        eventually(lambda: sorted(stalled(init)) == waiting, "the others to wait for the first")
    assert [outcome(wait) for wait in waits] == ["exited with status 7"] + ["ECHILD"] * latecomers
    assert stalled(init) == []


@pytest.mark.eras(since=500_900, reason="before 2020 whoever found a child being reaped waited for its reaper")
@kern_proc("pholdzomb", "prelezomb", "pstall", "prele")
def test_a_zombie_being_reaped_is_nobody_elses_child(init: RemoteProcess, kernel: Whitebox) -> None:
    """Other threads pass it over while its reaper waits (kern_exit.c: kern_wait; kern_proc.c: pwaitres_set)."""
    zombie, reaper = init.fork(), init.thread()
    zombie.exit(7)
    with held(init, kernel, zombie):
        wait = reaper.start.wait4(zombie.pid)
        eventually(lambda: (init.pid, "reap3") in stalled(init), "the reaper to wait for the holder")
        with fails("ECHILD"):
            init.wait4(zombie.pid)
    assert outcome(wait) == "exited with status 7"


@kern_proc("pholdzomb", "prelezomb", "proc_remove_zombie")
def test_a_traced_child_is_waited_for_by_its_tracer_and_then_by_its_parent(init: RemoteProcess) -> None:
    """The tracer's wait() gives the zombie back instead of removing it (kern_exit.c: kern_wait, p_oppid)."""
    child, tracer = init.fork(), init.fork()
    tracer.ptrace("PT_ATTACH", child.pid)
    await_stopped(init, child)
    assert tracer.start.wait4(child.pid).result(20.0).stop_signal == SIGSTOP
    tracer.ptrace("PT_CONTINUE", child.pid, 1, 0)
    end(child, 5)
    assert tracer.start.wait4(child.pid).result(20.0).exit_status == 5
    assert init.start.wait4(child.pid).result(20.0).exit_status == 5
    assert child.pid not in init.sysctl.kern_proc_all()
    with fails("ECHILD"):
        tracer.wait4(child.pid)


@kern_proc("pfind", "phold", "prele")
def test_a_debugger_that_lets_go_leaves_no_hold(init: RemoteProcess) -> None:
    """After PT_DETACH the process is its parent's again and can be reaped (sys_process.c: kern_ptrace)."""
    child, tracer = init.fork(), init.fork()
    before = holds(init, child)
    tracer.ptrace("PT_ATTACH", child.pid)
    await_stopped(init, child)
    tracer.start.wait4(child.pid).result(20.0)
    with fails("EBUSY"):
        init.ptrace("PT_ATTACH", child.pid)
    tracer.ptrace("PT_DETACH", child.pid, 1, 0)
    assert not has_stopped(init, child)
    assert holds(init, child) == before
    assert child.getppid() == init.pid
    bury(init, child)


@kern_proc("phold", "prele", "pfind", "pgfind", "inferior")
@keeps_the_swapper
def test_calls_that_look_up_a_process_leave_no_hold_on_it(init: RemoteProcess) -> None:
    """Whether they succeed or not (kern_proc.c: pfind, PRELE)."""
    child, user = init.fork(), init.fork()
    user.setuid(61_003)
    before = holds(init, child)
    for _ in range(5):
        for caller in (init, user, child):
            caller.getpgid(child.pid)
            caller.getsid(child.pid)
            with fails_or_not():
                caller.kill(child.pid, 0)
            with fails_or_not():
                caller.setpgid(child.pid, init.pid)
            with fails_or_not():
                caller.syscall("setpriority", 0, child.pid, 0)
            with fails_or_not():
                caller.syscall("rtprio", 0, child.pid, bytes(4))
            with fails_or_not():
                caller.ptrace("PT_CONTINUE", child.pid)
    assert holds(init, child) == before
    bury(init, child)


# ---- Owners of descriptors ----------------------------------------------------------------------------------------

F_GETOWN, F_SETOWN = 5, 6  # sys/fcntl.h


@kern_proc("pfind", "prele")
def test_a_descriptor_forgets_the_process_it_would_signal_when_the_process_ends(init: RemoteProcess) -> None:
    """F_GETOWN tells the process until it exits, and 0 afterwards (kern_exit.c: exit1, funsetownlst)."""
    reading, _ = init.pipe()
    child = init.fork()
    init.fcntl(reading, F_SETOWN, child.pid)
    assert init.fcntl(reading, F_GETOWN) == child.pid
    child.exit()
    assert init.fcntl(reading, F_GETOWN) == 0
    assert init.wait4(child.pid).exit_status == 0

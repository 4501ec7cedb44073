# SPDX-License-Identifier: BSD-2-Clause
"""Holds: a process stays in memory while somebody looks at it, and whoever takes it apart waits for him, no longer.

procfs gives a hold of any length: PIOCWAIT keeps the process held until it stops for one of the events asked for.
"""

from __future__ import annotations

import os
import struct
from signal import SIGKILL

import pytest

from harness.processes import RemoteProcess, fails
from harness.processes.wire import Buffer
from support.mounts import procfs
from support.processes import F_GETOWN, F_SETOWN, bury, eventually, holds, is_zombie
from support.procfs import PIOCCONT, PROCFS_STATUS, S_EXEC, S_EXIT, S_SIG, end, fails_or_not, hold, stalled
from support.sysctl import ALL, ARGS, CWD, PGRP, PID, poll, proc_mib

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


# ---- Exit and exec wait for holders -------------------------------------------------------------------------------


@kern_proc("pstall")
@pytest.mark.passes("prele", "proc_move_allproc_zombie")
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
        state, *_ = PROCFS_STATUS.unpack(wait.result(20.0))
        assert state == 0


@kern_proc("pstall")
@pytest.mark.passes("prele")
def test_a_held_process_can_be_killed(init: RemoteProcess) -> None:
    """SIGKILL ends it as _exit() would (kern_proc.c: pstall)."""
    with procfs(init) as mounted:
        target, holder = init.fork(), init.fork()
        wait = hold(holder, target, mounted, S_EXEC)
        init.kill(target.pid, SIGKILL)
        with fails_or_not():
            wait.result(20.0)
        assert init.start.wait4(target.pid).result(20.0).signal == SIGKILL


@kern_proc("prele")
@pytest.mark.passes("pstall", "phold")
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


@kern_proc("pstall")
@pytest.mark.passes("prele")
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


@pytest.mark.passes("pstall", "phold")
def test_a_process_stopped_at_its_exit_goes_on_when_told_to(init: RemoteProcess) -> None:
    """With S_EXIT the end itself is an event; until PIOCCONT the process is not even a zombie (kern_exit.c: exit1)."""
    with procfs(init) as mounted:
        target, holder = init.fork(), init.fork()
        wait = hold(holder, target, mounted, S_EXIT, keep_open=True)
        end(target, 4)
        state, _, events, why, value = PROCFS_STATUS.unpack(wait.result(20.0))
        assert (state, events, why, value) == (1, S_EXIT, S_EXIT, 4 << 8)
        assert not is_zombie(init, target.pid)
        fd = holder.open(f"{mounted}/{target.pid}/mem", os.O_RDONLY)
        holder.ioctl(fd, PIOCCONT, 0)
        assert init.start.wait4(target.pid).result(20.0).exit_status == 4
        bury(init, holder)


@pytest.mark.passes("pstall", "phold", "prele")
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


@pytest.mark.passes("pstall", "prele")
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


@kern_proc("proc_move_allproc_zombie")
@pytest.mark.passes("pstall", "phold", "prele", "sysctl_kern_proc", "sysctl_kern_proc_args")
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


@kern_proc("proc_remove_zombie")
@pytest.mark.passes("pstall", "sysctl_kern_proc")
@pytest.mark.cpus(2)  # with one a scan ends before anybody else begins
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


@pytest.mark.passes("zpfind", "prele")
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


# ---- Owners of descriptors ----------------------------------------------------------------------------------------


@pytest.mark.passes("pfind", "prele")
def test_a_descriptor_forgets_the_process_it_would_signal_when_the_process_ends(init: RemoteProcess) -> None:
    """F_GETOWN tells the process until it exits, and 0 afterwards (kern_exit.c: exit1, funsetownlst)."""
    reading, _ = init.pipe()
    child = init.fork()
    init.fcntl(reading, F_SETOWN, child.pid)
    assert init.fcntl(reading, F_GETOWN) == child.pid
    child.exit()
    assert init.fcntl(reading, F_GETOWN) == 0
    assert init.wait4(child.pid).exit_status == 0

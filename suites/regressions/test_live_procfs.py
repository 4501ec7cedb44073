# SPDX-License-Identifier: BSD-2-Clause
"""procfs: defects of a file system that any user may read and that debuggers of old control processes by.

Each test states what ought to be, with the source of that, and fails on every kernel known so far.
"""

from __future__ import annotations

import os
from errno import EBUSY, EPERM
from signal import SIGKILL, SIGSTOP

import pytest

from harness.processes import WUNTRACED, GuestError, RemoteProcess, fails
from support.mounts import procfs
from support.processes import SOMEBODY, eventually, is_zombie, stop
from support.procfs import PIOCBIS, S_SIG
from support.tracing import attach

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc
defect = pytest.mark.defect

PIOCSFL, PF_LINGER = 0x80007003, 1  # sys/pioctl.h
LARGE = 4_000_000_000  # an id of ten digits


@pytest.mark.passes("pfind")
@pytest.mark.usefixtures("sacrificed")
@defect(
    since=200000,
    severity="hang by any user",
    reason="/proc/N/map is written into a buffer as large as the reader says his is, gigabytes of kernel memory",
    reproducer="procfs-map-memory.c",
)
def test_room_for_a_map_is_no_reason_to_take_the_kernels_memory(init: RemoteProcess) -> None:
    """What is read is short, however much room there is (procfs_map.c: procfs_domap; FreeBSD: PFS_MAXBUFSIZ)."""
    reader = init.fork()
    reader.setuid(SOMEBODY)
    with procfs(init) as mounted:
        fd = reader.open(f"{mounted}/{reader.pid}/map", os.O_RDONLY)
        place = reader.touch_memory(1 << 16)
        read = reader.start.syscall("read", fd, place, 1 << 30)
        try:
            assert 0 < read.result(60.0).wide < 1 << 16
        except GuestError as refusal:
            assert refusal.name in {"EINVAL", "ENOMEM"}  # noqa: PT017  (one of two right answers)
        reader.exit()
    assert init.storm(50, seconds=30.0).count == 50


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="/proc/N/status is made up in 256 bytes, which sixteen groups and large ids overflow",
    reproducer="status-of-many-groups.c",
)
def test_the_status_of_a_process_in_many_groups_can_be_read(init: RemoteProcess) -> None:
    """With all its groups (procfs(5); procfs_status.c: psbuf)."""
    groups = [LARGE + number for number in range(16)]
    child, reader = init.fork(), init.fork()
    child.setgroups(groups)
    child.setgid(LARGE)
    child.setresuid(LARGE, LARGE, LARGE)
    with procfs(init) as mounted:
        fd = reader.open(f"{mounted}/{child.pid}/status", os.O_RDONLY)
        try:
            status = reader.read(fd, 4096).decode()
        finally:
            reader.exit()
    assert all(str(group) in status for group in groups)


@kern_proc("pstall")
@pytest.mark.passes("pfind", "proc_move_allproc_zombie")
@defect(
    since=200000,
    severity="hang",
    reason='who writes "wait" into /proc/N/ctl holds the process until it stops, and nobody wakes him when it exits',
    reproducer="procfs-wait-exit.c",
)
def test_a_process_can_end_while_somebody_waits_for_it_to_stop(init: RemoteProcess) -> None:
    """And so can whoever waits, as with PIOCWAIT (procfs_ctl.c: PROCFS_CTL_WAIT; kern_proc.c: pstall)."""
    with procfs(init) as mounted:
        target, waiter = init.fork(), init.fork()
        fd = waiter.open(f"{mounted}/{target.pid}/ctl", os.O_WRONLY)
        waiter.start.write(fd, b"wait")
        eventually(lambda: init.sysctl.kern_proc_pid(waiter.pid)[0].lwp.wmesg == "procfs", "the wait to begin")
        init.kill(target.pid, SIGKILL)
        try:
            eventually(lambda: is_zombie(init, target.pid), "the process to end", 10.0)
        finally:
            init.kill(waiter.pid, SIGKILL)
            init.start.wait4(waiter.pid).result(20.0)
            init.start.wait4(target.pid).result(20.0)


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="procfs_control() clears p_xstat before it looks at what it is asked for: the signal of a stop is lost",
    reproducer="procfs-stop-signal-lost.c",
)
@pytest.mark.parametrize("command", [b"wait", b"detach"])
def test_asking_about_a_stopped_process_does_not_change_what_stopped_it(init: RemoteProcess, command: bytes) -> None:
    """Its parent is told the signal (POSIX: waitpid(), WSTOPSIG; procfs_ctl.c: procfs_control)."""
    with procfs(init) as mounted:
        child, other = init.fork(), init.fork()
        stop(init, child)
        fd = other.open(f"{mounted}/{child.pid}/ctl", os.O_WRONLY)
        other.write(fd, command)
        assert init.wait4(child.pid, WUNTRACED).stop_signal == SIGSTOP
        other.exit()


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason='"detach" in /proc/N/ctl does not ask who attached',
    reproducer="procfs-detach-by-anybody.c",
)
def test_nobody_else_ends_a_debuggers_tracing(init: RemoteProcess) -> None:
    """EBUSY, as ptrace(2) has it for whoever is not the tracer (procfs_ctl.c: PROCFS_CTL_DETACH)."""
    with procfs(init) as mounted:
        child, tracer, other = init.fork(), init.fork(), init.fork()
        attach(tracer, child)
        fd = other.open(f"{mounted}/{child.pid}/ctl", os.O_WRONLY)
        with fails(EBUSY, EPERM):
            other.write(fd, b"detach")
        other.exit()
        tracer.ptrace("PT_CONTINUE", child.pid, 1, 0)


@pytest.mark.passes("pstall")
@pytest.mark.usefixtures("sacrificed")
@defect(
    since=200000,
    severity="hang",
    reason="stopevent() sleeps without PCATCH: a process left at an event by its debugger cannot be killed",
    reproducer="procfs-event-kill.c",
)
def test_a_process_left_at_an_event_can_be_killed(init: RemoteProcess) -> None:
    """SIGKILL ends any process (POSIX: <signal.h>; procfs(5): PF_LINGER; sys_process.c: stopevent)."""
    with procfs(init) as mounted:
        child, debugger = init.fork(), init.fork()
        fd = debugger.open(f"{mounted}/{child.pid}/mem", os.O_RDONLY)
        debugger.ioctl(fd, PIOCSFL, PF_LINGER)
        debugger.ioctl(fd, PIOCBIS, S_SIG)
        init.kill(child.pid, "SIGUSR1")
        eventually(lambda: init.sysctl.kern_proc_pid(child.pid)[0].lwp.wmesg.startswith("stopeve"), "the event")
        debugger.exit()
        init.kill(child.pid, SIGKILL)
        eventually(lambda: is_zombie(init, child.pid), "the process to end", 10.0)

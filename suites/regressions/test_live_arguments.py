# SPDX-License-Identifier: BSD-2-Clause
"""Arguments nobody checks, errors nobody looks at, and the wrong process asked: defects of small calls.

Each test states what ought to be, with the source of that, and fails on every kernel known so far.
"""

from __future__ import annotations

import struct
from errno import EFAULT, EINVAL, ESRCH

import pytest

from harness.processes import RemoteProcess, fails
from harness.processes.memory import OwnMemory
from harness.processes.wire import Buffer
from support.processes import bury
from support.sysctl import ARGS, proc_mib

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc
defect = pytest.mark.defect

NO_SUCH_THREAD = 99_999
IOPRIO_SET, IOPRIO_GET, PRIO_PROCESS, PRIO_PGRP = 520, 521, 0, 1  # sys/syscall.h, sys/resource.h
RTP_LOOKUP, RTP_PRIO_NORMAL, RTP_PRIO_IDLE, RTP_SET = 0, 1, 2, 1  # sys/rtprio.h
PAGE = 4096


@kern_proc("sysctl_kern_proc_args", "lwpfind")
@pytest.mark.feature("thread_titles")
@defect(
    since=500709,
    severity="wrong answer",
    reason="of a thread there is none of kern.proc.args tells the process's arguments",
    reproducer="thread-that-is-none.c",
    introduced="e7126f0a10 of 2019-11-12",
)
def test_a_thread_that_does_not_exist_has_no_arguments(init: RemoteProcess) -> None:
    """Nothing, as for a process there is none of (kern_proc.c: sysctl_kern_proc_args, lwpfind)."""
    assert init.sysctl.read(proc_mib(ARGS, init.pid, NO_SUCH_THREAD)) == b""


@kern_proc("sysctl_kern_proc_args", "lwpfind")
@pytest.mark.feature("thread_titles")
@defect(
    since=500709,
    severity="wrong answer",
    reason="the title of a thread there is none of becomes the process's",
    reproducer="thread-that-is-none.c",
    introduced="e7126f0a10 of 2019-11-12",
)
def test_the_title_of_a_thread_that_does_not_exist_is_not_the_processs(init: RemoteProcess) -> None:
    """ESRCH, and nothing is changed (kern_proc.c: sysctl_kern_proc_args, lwpfind)."""
    child = init.fork()
    before = init.sysctl.read(proc_mib(ARGS, child.pid))
    with fails(ESRCH):
        child.sysctl.write(proc_mib(ARGS, child.pid, NO_SUCH_THREAD), b"title\0")
    assert init.sysctl.read(proc_mib(ARGS, child.pid)) == before


@pytest.mark.passes("lwpfind")
@pytest.mark.eras(since=500710, reason="lwp_getname() appeared in November 2019, within 500709")
@defect(
    since=500709,
    severity="wrong answer",
    reason="lwp_getname() overwrites ESRCH with the outcome of copying an empty name",
    reproducer="lwp-getname-nobody.c",
    introduced="2bebe3e9aa of 2019-11-13",
)
def test_a_thread_that_does_not_exist_has_no_name(init: RemoteProcess) -> None:
    """ESRCH (lwp_getname(2); kern_prot.c: sys_lwp_getname)."""
    with fails(ESRCH):
        init.syscall("lwp_getname", NO_SUCH_THREAD, bytes(64), 64)


@pytest.mark.passes("pgfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="ioprio_get() of a group compares nice values with I/O priorities",
    reproducer="ioprio-of-a-group.c",
)
def test_the_io_priority_of_a_group_is_its_highest(init: RemoteProcess) -> None:
    """Whichever member has it (ioprio_get(2); kern_resource.c: sys_ioprio_get, PRIO_PGRP)."""
    leader = init.fork()
    leader.setpgid(0, 0)
    members = [leader, *(leader.fork() for _ in range(2))]
    for member, priority in zip(members, (2, 5, 9), strict=True):
        member.syscall(IOPRIO_SET, PRIO_PROCESS, 0, priority)
    assert [member.syscall(IOPRIO_GET, PRIO_PROCESS, 0).value for member in members] == [2, 5, 9]
    assert init.syscall(IOPRIO_GET, PRIO_PGRP, leader.pid).value == 9


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="lwp_rtprio() takes the caller's thread for any thread (-1) of another process",
    reproducer="lwp-rtprio-any-thread.c",
)
def test_the_priority_of_another_process_is_not_the_callers(init: RemoteProcess) -> None:
    """With tid -1 it is the process's that pid names, or an error (lwp_rtprio(2); kern_resource.c: sys_lwp_rtprio)."""
    idle, caller = init.fork(), init.fork()
    idle.syscall("rtprio", RTP_SET, 0, struct.pack("<HH", RTP_PRIO_IDLE, 31))
    priority = Buffer(struct.pack("<HH", 0xFFFF, 0), wanted=True)
    try:
        answer = caller.syscall("lwp_rtprio", RTP_LOOKUP, idle.pid, -1, priority)
    except OSError:
        return
    finally:
        idle.syscall("rtprio", RTP_SET, 0, struct.pack("<HH", RTP_PRIO_NORMAL, 0))
    assert struct.unpack("<HH", answer.memory(priority)) == (RTP_PRIO_IDLE, 31)


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="getgroups() takes its count for unsigned: -1 is room for any number",
    reproducer="getgroups-negative.c",
)
def test_there_is_no_room_for_less_than_no_groups(init: RemoteProcess) -> None:
    """EINVAL: less than the number of groups (POSIX: getgroups(); kern_prot.c: sys_getgroups)."""
    child = init.fork()
    child.setgroups([0, 5])
    with fails(EINVAL):
        child.syscall("getgroups", -1, bytes(64))


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="setgroups() copies into the credentials themselves: half a list has come in when it fails",
    reproducer="setgroups-half.c",
)
def test_groups_that_cannot_be_read_are_not_set(init: RemoteProcess) -> None:
    """EFAULT, and the groups, the effective one first, are what they were (kern_prot.c: sys_setgroups)."""
    child = init.fork()
    pages = child.touch_memory(2 * PAGE)
    child.syscall("munmap", pages + PAGE, PAGE)
    OwnMemory(child).write(pages + PAGE - 8, struct.pack("<II", 4711, 4712))
    before = child.getegid()
    with fails(EFAULT):
        child.syscall("setgroups", 16, pages + PAGE - 8)
    assert child.getegid() == before
    bury(init, child)

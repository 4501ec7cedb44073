# SPDX-License-Identifier: BSD-2-Clause
"""What a process hands down when its calls are written down (ktrace(2); kern_ktrace.c, kern_fork.c, kern_exit.c)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from harness.processes import RemoteProcess, fails
from support.processes import SOMEBODY, bury, row

pytestmark = pytest.mark.needs_kernel
SET, CLEAR = 0, 1
SYSCALL, INHERIT = 1 << 1, 0x40000000
FACILITIES = 0x00FFFFFF


@pytest.fixture
def log(init: RemoteProcess) -> Iterator[str]:
    path = f"/tmp/ktrace-{init.pid}"  # noqa: S108  (in the guest)
    init.close(init.open(path, os.O_CREAT | os.O_RDWR, 0o666))
    init.syscall("chmod", path, 0o666)
    yield path
    init.syscall("unlink", path)


def traced(observer: RemoteProcess, process: RemoteProcess) -> int:
    """Return what of PROCESS is written down."""
    return row(observer, process.pid).traceflag & FACILITIES


@pytest.mark.passes("pfind", "proc_add_allproc")
@pytest.mark.parametrize("inherited", [True, False])
def test_children_are_traced_if_that_is_wanted(init: RemoteProcess, log: str, inherited: bool) -> None:
    """With KTRFAC_INHERIT, and then grandchildren, too (kern_fork.c: fork1, ktrinherit)."""
    process = init.fork()
    init.syscall("ktrace", log, SET, SYSCALL | (INHERIT if inherited else 0), process.pid)
    assert traced(init, process) == SYSCALL
    child = process.fork()
    grandchild = child.fork()
    assert [traced(init, each) for each in (child, grandchild)] == [SYSCALL if inherited else 0] * 2
    bury(child, grandchild)
    bury(process, child)
    bury(init, process)
    assert init.read(init.open(log), 64)


@pytest.mark.passes("pfind")
def test_tracing_ends_when_that_is_wanted(init: RemoteProcess, log: str) -> None:
    """KTROP_CLEAR takes what was set (kern_ktrace.c: ktrops)."""
    process = init.fork()
    init.syscall("ktrace", log, SET, SYSCALL, process.pid)
    init.syscall("ktrace", log, CLEAR, SYSCALL, process.pid)
    assert traced(init, process) == 0
    bury(init, process)


@pytest.mark.passes("pfind")
@pytest.mark.parametrize("by_root", [True, False])
def test_what_root_traces_others_leave_alone(init: RemoteProcess, log: str, by_root: bool) -> None:
    """Not even the process itself ends it, which may end what it has begun (kern_ktrace.c: ktrcanset)."""
    process = init.fork()
    process.setuid(SOMEBODY)
    process.reexec()  # from here on it has the privileges it began with
    (init if by_root else process).syscall("ktrace", log, SET, SYSCALL, process.pid)
    if by_root:
        with fails("EPERM"):
            process.syscall("ktrace", log, CLEAR, SYSCALL, process.pid)
    else:
        process.syscall("ktrace", log, CLEAR, SYSCALL, process.pid)
    assert traced(init, process) == (SYSCALL if by_root else 0)
    bury(init, process)


@pytest.mark.passes("pfind")
def test_who_is_nobody_is_not_traced(init: RemoteProcess, log: str) -> None:
    """ESRCH, a zombie included (kern_ktrace.c: sys_ktrace)."""
    child = init.fork()
    child.exit()
    with fails("ESRCH"):
        init.syscall("ktrace", log, SET, SYSCALL, child.pid)
    init.wait4(child.pid)
    with fails("ESRCH"):
        init.syscall("ktrace", log, SET, SYSCALL, child.pid)

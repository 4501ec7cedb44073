# SPDX-License-Identifier: BSD-2-Clause
"""Memory comes back: after hundreds of cycles the kernel has exactly as much of each kind in use as before."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from functools import partial
from signal import SIGKILL

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import GuestError, RemoteProcess, fails, fails_with
from harness.processes.shared_pages import shared_page
from harness.processes.wire import Buffer
from support.children import all_lead_sessions, allow_many, parked
from support.leaks import CYCLES, expect_no_growth
from support.mounts import null_mount, procfs
from support.processes import NO_SUCH_ID, SOMEBODY, bury, eventually
from support.programs import run
from support.sysctl import ALL, ARGS, CWD, PATHNAME, PGRP, PID, proc_mib, setting

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc

MANY = 500


def repeatedly(
    process: RemoteProcess,
    mib: tuple[int, ...],
    new: bytes | None = None,
    room: int = 4096,
    new_at: tuple[int, int] | None = None,
) -> int:
    """Let PROCESS read MIB often enough, a tenth of a second at a time; return how often it did.

    It writes, if given, NEW, or the memory at an address and of a size in NEW_AT.
    """
    name = struct.pack(f"<{len(mib)}i", *mib)
    length = Buffer(struct.pack("<Q", room))
    data = (Buffer(new), len(new)) if new is not None else new_at or (0, 0)
    old = (0, 0) if any(data) else (Buffer(size=room), length)
    never = fails_with("EXDEV")
    made = 0
    while made < 4 * CYCLES:
        made += process.repeat_until(never, "__sysctl", name, len(mib), *old, *data, seconds=0.1).count
    return made


@pytest.mark.passes("proc_remove_zombie", "proc_userunmap", "leavepgrp")
@pytest.mark.parametrize("kind", ["fork", "vfork"])
def test_processes_are_freed(init: RemoteProcess, kernel: Whitebox, kind: str) -> None:
    """Fork, exit, wait (kern_exit.c: kern_wait)."""
    expect_no_growth(kernel, lambda: init.storm(MANY, kind, record=False, seconds=120.0).count)


@kern_proc("pgrel")
@pytest.mark.passes("enterpgrp", "pgref", "sess_rele")
def test_process_groups_are_freed(init: RemoteProcess, kernel: Whitebox) -> None:
    """A group of one's own, and back (kern_proc.c: pgrel)."""
    child = init.fork()

    def pattern() -> int:
        calls = [child.start.setpgid(0, pgid) for _ in range(MANY) for pgid in (0, init.pid)]
        calls[-1].result(60.0)
        return MANY

    expect_no_growth(kernel, pattern)


@kern_proc("enterpgrp")
@pytest.mark.passes("pgrel", "pgfind", "pgref")
def test_failed_and_superfluous_moves_keep_no_group(init: RemoteProcess, kernel: Whitebox) -> None:
    """The group found is released on every way out of setpgid() (kern_prot.c: sys_setpgid, enterpgrp)."""

    def pattern() -> int:
        for _ in range(8):
            leader, member = init.fork(), init.fork()
            leader.setpgid(0, 0)
            member.setpgid(0, leader.pid)
            outsider = init.fork()
            outsider.setsid()
            calls = [
                *(member.start.setpgid(0, leader.pid) for _ in range(3)),
                *(init.start.setpgid(member.pid, leader.pid) for _ in range(3)),
                *(outsider.start.setpgid(outsider.pid, leader.pid) for _ in range(3)),
                *(member.start.setpgid(0, outsider.pid) for _ in range(3)),
                *(member.start.setpgid(0, NO_SUCH_ID) for _ in range(3)),
                *(init.start.killpg(leader.pid, 0) for _ in range(3)),
            ]
            for call in calls:
                with suppress(GuestError):  # EPERM, where that is the answer
                    call.result(20.0)
            bury(init, leader, member, outsider)
        return 8 * 18

    expect_no_growth(kernel, pattern, ("M_PGRP", "M_SESSION", "M_PROC"))


@kern_proc("sess_rele")
@pytest.mark.passes("pgrel", "enterpgrp", "leavepgrp")
def test_sessions_are_freed(init: RemoteProcess, kernel: Whitebox) -> None:
    """Each with a group and a process of its own (kern_proc.c: sess_rele)."""
    parent = init.fork()
    allow_many(parent)

    def pattern() -> int:
        leaders = parked(parent, 4 * CYCLES, sessions=True)
        eventually(partial(all_lead_sessions, init, leaders), "all of them to call setsid()", 60.0)
        calls = [init.start.kill(pid, SIGKILL) for pid in leaders]
        calls[-1].result(60.0)
        parent.repeat_until(fails_with("ECHILD"), "wait4", -1, 0, 0, 0, seconds=60.0)
        return len(leaders)

    expect_no_growth(kernel, pattern)


@pytest.mark.passes("lwpuserret")
def test_threads_are_freed(init: RemoteProcess, kernel: Whitebox) -> None:
    """Those that end by themselves and those that their process ends (kern_exit.c: lwp_exit, reaplwps)."""

    def pattern() -> int:
        for _ in range(10):
            child = init.fork()
            threads = [child.thread() for _ in range(10)]
            for thread in threads[:5]:
                thread.exit()
            bury(init, child)
        return 100

    expect_no_growth(kernel, pattern, ("M_LWP", "M_PROC"))


@kern_proc("proc_userunmap")
@pytest.mark.passes("proc_usermap")
def test_shared_pages_are_freed(init: RemoteProcess, kernel: Whitebox) -> None:
    """With the process, at the latest (kern_proc.c: proc_userunmap)."""

    def pattern() -> int:
        for _ in range(CYCLES):
            child = init.fork()
            fd = child.open("/dev/upmap", os.O_RDWR)
            at = child.syscall("mmap", 0, 65536, 3, 1, fd, 0, 0).wide
            reading, writing = child.pipe()
            child.syscall("write", writing, at, 8)
            assert child.read(reading, 8) != bytes(8)
            bury(init, child)
        return CYCLES

    kinds = ("M_PROC", "M_UPMAP") if kernel.has("M_UPMAP") else ("M_PROC",)
    expect_no_growth(kernel, pattern, kinds)


@kern_proc("lwp_userunmap")
@pytest.mark.passes("lwp_usermap")
@pytest.mark.feature("lpmap")
def test_the_pages_of_threads_are_freed(init: RemoteProcess, kernel: Whitebox) -> None:
    """With the thread, whether it ends by itself or with its process (kern_proc.c: lwp_userunmap)."""

    def pattern() -> int:
        for _ in range(8):
            child = init.fork()
            threads = [child.thread() for _ in range(9)]
            for thread in threads:
                assert shared_page(thread, "lpmap").value("tid") == thread.tid
            for thread in threads[:4]:
                thread.exit()
            bury(init, child)
        return 8 * 9

    expect_no_growth(kernel, pattern, ("M_LWP", "M_UPMAP"))


@kern_proc("sysctl_kern_proc_args")
def test_titles_are_freed(init: RemoteProcess, kernel: Whitebox) -> None:
    """The old one when a new one is set, the last one with the process (kern_proc.c: sysctl_kern_proc_args)."""
    init.sysctl.set_kern_proc_args(init.pid, b"the title it keeps\0")

    def pattern() -> int:
        made = repeatedly(init, proc_mib(ARGS, init.pid), new=b"a title\0")
        for _ in range(CYCLES):
            child = init.fork()
            child.sysctl.set_kern_proc_args(child.pid, b"a child's title\0")
            child.sysctl.kern_proc_args(child.pid)
            init.sysctl.kern_proc_args(child.pid)
            bury(init, child)
        return made

    expect_no_growth(kernel, pattern)


@kern_proc("sysctl_kern_proc_args")
def test_a_title_that_cannot_be_read_costs_no_memory(init: RemoteProcess, kernel: Whitebox) -> None:
    """EFAULT, the old title stays, and the room for the new one is given back (kern_proc.c: sysctl_kern_proc_args)."""
    mib, nowhere = proc_mib(ARGS, init.pid), beyond_the_end_of_a_file(init)
    before = init.sysctl.kern_proc_args(init.pid)
    with fails("EFAULT"):
        init.syscall("__sysctl", struct.pack(f"<{len(mib)}i", *mib), len(mib), 0, 0, nowhere, 100)
    assert init.sysctl.kern_proc_args(init.pid) == before
    expect_no_growth(kernel, lambda: repeatedly(init, mib, new_at=(nowhere, 100)), ("M_PARGS",))


def beyond_the_end_of_a_file(process: RemoteProcess) -> int:
    """Return an address that may be read as far as the memory map says, but holds nothing."""
    path = f"/tmp/empty-{process.pid}"  # noqa: S108  (in the guest)
    fd = process.open(path, os.O_CREAT | os.O_RDWR)
    process.unlink(path)
    return process.syscall("mmap", 0, 4096, 1, 1, fd, 0, 0).wide


@pytest.mark.passes("sysctl_kern_proc", "sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
@pytest.mark.parametrize("node", [(ALL,), (PID, 0), (PGRP, 0), (ARGS, 0), (CWD, 0), (PATHNAME, 0), (PATHNAME, -1)])
def test_looking_at_processes_costs_no_memory(init: RemoteProcess, kernel: Whitebox, node: tuple[int, ...]) -> None:
    """Whichever node is read, and whether or not the answer fits (kern_proc.c)."""
    mib = proc_mib(*(init.pid if part == 0 and place else part for place, part in enumerate(node)))
    assert len(node) == 1 or mib[-1] in (init.pid, -1)

    def pattern() -> int:
        return repeatedly(init, mib, room=1 << 18) + repeatedly(init, mib, room=3)

    expect_no_growth(kernel, pattern)


@pytest.mark.passes("sysctl_kern_proc_cwd")
def test_asking_for_a_directory_keeps_no_reference_to_it(init: RemoteProcess) -> None:
    """Its file system can be unmounted once the process has left it (kern_proc.c: cache_drop)."""
    with procfs(init) as path:
        child = init.fork()
        child.chdir(path)
        for _ in range(5):
            assert init.sysctl.kern_proc_cwd(child.pid) == path
        child.chdir("/")
        init.syscall("unmount", path, 0)


@pytest.mark.passes("sysctl_kern_proc_pathname")
def test_asking_for_a_program_keeps_no_reference_to_it(init: RemoteProcess) -> None:
    """Its file system can be unmounted once the process is gone (kern_proc.c: cache_drop)."""
    with null_mount(init, "/bin") as path:
        child = init.fork()
        run(init, child, f"{path}/sleep", "sleep", "1000")
        for _ in range(5):
            assert init.sysctl.kern_proc_pathname(child.pid) == f"{path}/sleep"
        init.kill(child.pid, SIGKILL)
        assert init.wait4(child.pid).signal == SIGKILL
        init.syscall("unmount", path, 0)


@kern_proc("sysctl_kern_proc")
@pytest.mark.passes("allproc_scan")
def test_whoever_lists_processes_keeps_nobodys_credentials(init: RemoteProcess, kernel: Whitebox) -> None:
    """Where users see their own only, each process's are looked at (kern_proc.c: sysctl_kern_proc)."""
    viewer = init.fork()
    viewer.setuid(SOMEBODY)

    def pattern() -> int:
        others = [init.fork() for _ in range(CYCLES)]
        for number, child in enumerate(others, SOMEBODY + 1):
            child.setuid(number)
        shown = viewer.sysctl.kern_proc_all()
        assert not [child for child in others if child.pid in shown]
        bury(init, *others)
        return CYCLES

    with setting(init, "security.ps_showallprocs", 0):
        expect_no_growth(kernel, pattern, ("M_CRED",))

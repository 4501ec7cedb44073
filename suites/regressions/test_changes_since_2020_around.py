# SPDX-License-Identifier: BSD-2-Clause
"""What changed around processes between July 2020 and April 2026: time, descriptors, programs, memory, procfs.

As test_changes_since_2020.py: one test per commit, passing since the version named with it.
"""

from __future__ import annotations

import os
import struct
from errno import EBADF, EINVAL, EOVERFLOW

import pytest

from harness.processes import O_CLOFORK, Buffer, Clock, EvFilter, EvFlag, Fcntl, FdFlag, Kevent, RemoteProcess, fails
from support.history import since
from support.mounts import procfs
from support.processes import await_stopped

pytestmark = pytest.mark.needs_kernel

F_GETPATH, F_MAXFD = 19, 20  # sys/fcntl.h
CLOCK_GETRES, VARSYM_SET, VARSYM_GET = 234, 450, 451  # sys/syscall.h


def timespec(seconds: int, nanoseconds: int = 0) -> bytes:
    """Return a struct timespec."""
    return struct.pack("<qq", seconds, nanoseconds)


def scratch(init: RemoteProcess, content: bytes, mode: int = 0o644) -> str:
    """Make a file with CONTENT; return its path."""
    path = f"/tmp/scratch-{init.pid}"  # noqa: S108  (in the guest)
    fd = init.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)
    init.write(fd, content)
    init.close(fd)
    return path


# ---- Time ---------------------------------------------------------------------------------------------------------


@pytest.mark.passes("lwpuserret")
@since(500907, "19432bfaa9, 2021-01-19")
def test_nothing_is_left_of_a_sleep_that_was_refused(init: RemoteProcess) -> None:
    """What was on the kernel's stack used to be copied out (kern_time.c: sys_nanosleep)."""
    at = init.touch_memory(4096)
    reading, writing = init.pipe()
    init.syscall("nanosleep", timespec(0, 1), at)
    init.write(writing, b"untouched, really")
    init.syscall("read", reading, at, 16)
    with fails(EINVAL):
        init.syscall("nanosleep", timespec(0, -1), at)
    init.syscall("write", writing, at, 16)
    assert init.read(reading, 1) == b"y"
    assert init.read(reading, 16) == b"untouched, reall"


@pytest.mark.passes("lwpuserret")
@since(500907, "af23a4c2da, 2021-01-19")
def test_a_negative_time_is_not_slept(init: RemoteProcess) -> None:
    """It used to be as good as none (kern_time.c: nanosleep1)."""
    with fails(EINVAL):
        init.syscall("nanosleep", timespec(-1), 0)


@pytest.mark.passes("lwpuserret")
@since(500907, "86ccdacbb5, 2021-01-19")
def test_a_sleep_may_be_by_any_clock(init: RemoteProcess) -> None:
    """clock_nanosleep() is new (kern_time.c)."""
    before = init.clock_gettime(Clock.CLOCK_MONOTONIC)
    init.clock_nanosleep(before + 0.1, Clock.CLOCK_MONOTONIC, absolute=True)
    assert init.clock_gettime(Clock.CLOCK_MONOTONIC) - before >= 0.1


@pytest.mark.passes("proc_makepid")
@since(500908, "9e053b1ca9, 2021-01-20")
def test_no_clock_is_set_to_before_1970(init: RemoteProcess) -> None:
    """It used to be, and nothing moved any more (kern_time.c: kern_clock_settime)."""
    with fails(EINVAL):
        init.syscall("clock_settime", 0, timespec(-1))


@pytest.mark.passes("pfind")
@since(500908, "a6b9474508, 2021-01-22")
def test_the_clock_of_no_process_has_no_resolution(init: RemoteProcess) -> None:
    """The number in it used to be anything (kern_time.c: kern_clock_getres, CPUCLOCK2PID)."""
    with fails(EINVAL):
        init.syscall(CLOCK_GETRES, 1 << 31 | 1_000_000, bytes(16))


# ---- Programs and memory ------------------------------------------------------------------------------------------


@pytest.mark.passes("sysctl_kern_proc_pathname")
@since(500908, "337acc4483, 2021-02-20")
def test_a_program_can_be_run_by_descriptor(init: RemoteProcess) -> None:
    """fexecve() is new (kern_exec.c: sys_fexecve)."""
    child = init.fork()
    child.fexecve(child.open("/bin/sleep", os.O_RDONLY), ["sleep", "0"])
    assert init.wait4(child.pid).exit_status == 0


@pytest.mark.passes("sysctl_kern_proc_pathname")
@since(500909, "941642e84e, 2021-02-20")
def test_a_script_on_a_descriptor_that_exec_closes_is_not_there(init: RemoteProcess) -> None:
    """Its interpreter could not read it (kern_exec.c: kern_execve)."""
    path = scratch(init, b"#!/bin/sh\nexit 7\n", 0o755)
    child = init.fork()
    with fails("ENOENT"):
        child.fexecve(child.open(path, os.O_RDONLY | os.O_CLOEXEC), ["script"])
    child.fexecve(child.open(path, os.O_RDONLY), ["script"])
    assert init.wait4(child.pid).exit_status == 7
    init.unlink(path)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        pytest.param("posix_fallocate", (-1, 0, 1), marks=since(600104, "09d96b9c7c, 2021-09-08")),
        pytest.param("fdatasync", (-1,), marks=since(600105, "74fa2560ac, 2021-09-12")),
        pytest.param("futimesat", (-1, "nowhere", 0), marks=since(600509, "5af8357c50, 2024-09-11")),
    ],
)
@pytest.mark.passes("pfind")
def test_system_calls_that_are_new(init: RemoteProcess, call: str, arguments: tuple[int | str, ...]) -> None:
    """They look at the descriptor they are given (syscalls.master)."""
    with fails(EBADF):
        init.syscall(call, *arguments)


@pytest.mark.passes("pfind")
@since(600100, "631c21f29f, 2021-03-31")
def test_a_variable_for_links_is_returned_whole_or_not_at_all(init: RemoteProcess) -> None:
    """varsym_get() returns 0, or EOVERFLOW; it used to return the length (kern_varsym.c)."""
    init.syscall(VARSYM_SET, 1, "HARNESS", "a value")  # VARSYM_PROC; asked for by its bit
    value = Buffer(bytes(16), wanted=True)
    result = init.syscall(VARSYM_GET, 2, "HARNESS", value, 16)
    assert (result.value, result.memory(value)[:8]) == (0, b"a value\0")
    with fails(EOVERFLOW):
        init.syscall(VARSYM_GET, 2, "HARNESS", bytes(4), 4)


# ---- Descriptors --------------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_add_allproc")
@since(500904, "99175ee461, 2020-12-02")
def test_no_duplicate_has_the_number_of_the_limit(init: RemoteProcess) -> None:
    """The highest is one less; the table used to grow by one too much (kern_descrip.c: kern_dup)."""
    limit = min(init.sysctl.get_int("kern.maxfilesperproc"), 5000)
    init.syscall("setrlimit", 8, struct.pack("<QQ", limit, limit))  # RLIMIT_NOFILE
    fd = init.open("/dev/null")
    assert init.dup2(fd, limit - 1) == limit - 1
    with fails(EBADF):
        init.dup2(fd, limit)


@pytest.mark.passes("proc_add_allproc")
@since(600100, "5bd4559737, 2021-03-21")
def test_a_file_opened_by_its_descriptor_has_an_offset_of_its_own(init: RemoteProcess) -> None:
    """/dev/fd/N used to be the same as dup() (kern_descrip.c: fdopen)."""
    path = scratch(init, b"0123456789")
    fd = init.open(path, os.O_RDONLY)
    assert init.read(fd, 4) == b"0123"
    other = init.open(f"/dev/fd/{fd}", os.O_RDONLY)
    assert (init.read(other, 4), init.read(fd, 4)) == (b"0123", b"4567")
    init.unlink(path)


@pytest.mark.passes("sysctl_kern_proc_pathname")
@since(600100, "36f3145a09, 2021-03-30")
def test_a_descriptors_path_can_be_asked_for(init: RemoteProcess) -> None:
    """F_GETPATH is new (kern_descrip.c: kern_fcntl)."""
    path = Buffer(bytes(1024), wanted=True)
    found = init.syscall("fcntl", init.open("/bin/sleep", os.O_RDONLY), F_GETPATH, path).memory(path)
    assert found.partition(b"\0")[0] == b"/bin/sleep"


@pytest.mark.passes("proc_add_allproc")
@since(600513, "dcc509c885, 2025-07-09")
def test_a_descriptor_may_be_closed_by_fork(init: RemoteProcess) -> None:
    """O_CLOFORK is new (kern_descrip.c: fdcopy)."""
    parent = init.fork()
    fd = parent.open("/dev/null", O_CLOFORK)
    assert parent.fcntl(fd, Fcntl.F_GETFD) == FdFlag.FD_CLOFORK
    with fails(EBADF):
        parent.fork().fcntl(fd, Fcntl.F_GETFD)


@pytest.mark.passes("proc_add_allproc")
@since(600513, "d724c3ba96, 2025-07-09")
def test_the_highest_descriptor_can_be_asked_for(init: RemoteProcess) -> None:
    """F_MAXFD is new (kern_descrip.c: sys_fcntl)."""
    init.dup2(init.open("/dev/null"), 77)
    assert init.fcntl(0, F_MAXFD) == 77


@pytest.mark.passes("sess_rele")
@since(600517, "eeb6b5e961, 2025-12-18")
def test_the_old_pseudo_terminals_are_gone(init: RemoteProcess) -> None:
    """256 pairs used to be there from the start (tty_pty.c)."""
    for name in ("/dev/ptyp0", "/dev/ttyp0", "/dev/ptySv"):
        with fails("ENOENT"):
            init.syscall("access", name, 0)


# ---- procfs -------------------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind", "sysctl_kern_proc_pathname")
@since(600509, "f658e60ac8, 2024-03-07")
def test_a_process_finds_its_program_below_self(init: RemoteProcess) -> None:
    """Self and exe are new names of curproc and file (procfs_vnops.c: procfs_lookup)."""
    with procfs(init) as mounted:
        paths = []
        for name in ("self/exe", "curproc/file", f"{init.pid}/exe"):
            path = Buffer(bytes(1024), wanted=True)
            paths.append(init.syscall("readlink", f"{mounted}/{name}", path, 1024).memory(path).rstrip(b"\0"))
    assert paths == [init.sysctl.kern_proc_pathname(init.pid).encode()] * 3


@pytest.mark.passes("pfind")
@since(600509, "4a361a72d5, 2024-07-23")
def test_a_file_of_procfs_can_be_watched(init: RemoteProcess) -> None:
    """Poll() used to time out on it, and kevent() not to know it (procfs_vnops.c: procfs_kqfilter)."""
    with procfs(init) as mounted:
        fd = init.open(f"{mounted}/{init.pid}/status", os.O_RDONLY)
        polled = Buffer(struct.pack("<ihh", fd, 1, 0), wanted=True)  # POLLIN
        result = init.syscall("poll", polled, 1, 2000)
        assert (result.value, struct.unpack("<ihh", result.memory(polled))) == (1, (fd, 1, 1))
        queue = init.kqueue()
        init.kevent(queue, [Kevent(fd, EvFilter.EVFILT_WRITE, EvFlag.EV_ADD)], room=0)
        init.close(fd)


@pytest.mark.passes("pfind", "prele")
@since(600517, "ea2c2549cf, 2026-01-02")
@pytest.mark.parametrize("name", ["regs", "fpregs", "dbregs"])
def test_registers_are_read_once_and_then_there_is_no_more(init: RemoteProcess, name: str) -> None:
    """The offset used to be set back, and cat never ended (procfs_regs.c, procfs_fpregs.c, procfs_dbregs.c)."""
    child = init.fork()
    init.ptrace("PT_ATTACH", child.pid)
    await_stopped(init, child)
    init.wait4(child.pid)
    with procfs(init) as mounted:
        fd = init.open(f"{mounted}/{child.pid}/{name}", os.O_RDONLY)
        assert init.read(fd, 4096)
        assert init.read(fd, 4096) == b""
        init.close(fd)
    init.ptrace("PT_DETACH", child.pid, 1, 0)

# SPDX-License-Identifier: BSD-2-Clause
"""What a process is told of itself: users and groups (kern_prot.c: sys_getuid() and its like), names of threads."""

from __future__ import annotations

import struct
from collections.abc import Callable
from errno import EFAULT, EINVAL, ESRCH

import pytest

from harness.processes import RemoteProcess, fails
from harness.processes.shared_pages import shared_page
from harness.processes.wire import Buffer
from support.processes import row

pytestmark = [pytest.mark.needs_kernel, pytest.mark.passes("proc_makepid")]

GETNAME = pytest.mark.eras(since=500710, reason="lwp_getname() appeared in November 2019, within 500709")
REAL, EFFECTIVE, SAVED = 61_101, 61_102, 61_103
NOWHERE = 0x1000  # no process has memory there
LONGEST = 1023  # bytes of a thread's name (sys/upmap.h: LPMAP_MAXTHREADTITLE)
ROOM = 40  # bytes that are asked for of a thread's name


def words(process: RemoteProcess, call: str, count: int) -> list[int]:
    """Return the COUNT 32-bit numbers that CALL writes to a place each."""
    places = [Buffer(size=4, wanted=True) for _ in range(count)]
    result = process.syscall(call, *places)
    return [int.from_bytes(result.memory(place), "little") for place in places]


def test_users_are_told_apart(init: RemoteProcess) -> None:
    """The real one is getuid()'s, the effective geteuid()'s (kern_prot.c: sys_getuid, sys_geteuid, sys_getresuid)."""
    process = init.fork()
    process.setresuid(REAL, EFFECTIVE, SAVED)
    assert (process.getuid(), process.geteuid()) == (REAL, EFFECTIVE)
    assert process.getresuid() == (REAL, EFFECTIVE, SAVED)


def test_groups_are_told_apart(init: RemoteProcess) -> None:
    """The effective group is the first of the list (kern_prot.c: sys_getgid, sys_getegid, sys_getresgid)."""
    process = init.fork()
    process.setresgid(REAL, EFFECTIVE, SAVED)
    assert (process.getgid(), process.getegid()) == (REAL, EFFECTIVE)
    assert words(process, "getresgid", 3) == [REAL, EFFECTIVE, SAVED]


@pytest.mark.parametrize(
    ("call", "change"),
    [
        ("getresuid", lambda process: process.setresuid(REAL, EFFECTIVE, SAVED)),
        ("getresgid", lambda process: process.setresgid(REAL, EFFECTIVE, SAVED)),
    ],
    ids=["users", "groups"],
)
def test_each_of_the_three_ids_is_told_where_it_is_asked_for(
    init: RemoteProcess, call: str, change: Callable[[RemoteProcess], None]
) -> None:
    """A null place is passed over, a bad one is EFAULT (kern_prot.c: sys_getresuid, sys_getresgid)."""
    process = init.fork()
    change(process)
    for number, wanted in enumerate((REAL, EFFECTIVE, SAVED)):
        place = Buffer(size=4, wanted=True)
        places = [place if number == each else 0 for each in range(3)]
        assert int.from_bytes(process.syscall(call, *places).memory(place), "little") == wanted
        with fails(EFAULT):
            process.syscall(call, *(NOWHERE if number == each else 0 for each in range(3)))


def test_the_list_of_groups_is_told_whole_or_not_at_all(init: RemoteProcess) -> None:
    """Room for none asks how many there are; too little is EINVAL (getgroups(2); kern_prot.c: sys_getgroups)."""
    groups = [EFFECTIVE, 5, 6]
    process = init.fork()
    process.setgroups(groups)
    assert process.syscall("getgroups", 0, 0).value == 3
    for room in (3, 4):
        place = Buffer(size=4 * room, wanted=True)
        result = process.syscall("getgroups", room, place)
        assert result.value == 3
        assert list(struct.unpack_from("<3I", result.memory(place))) == groups
    for room in (1, 2):
        with fails(EINVAL):
            process.syscall("getgroups", room, Buffer(size=12, wanted=True))
    with fails(EFAULT):
        process.syscall("getgroups", 3, NOWHERE)


# ---- Names of threads ---------------------------------------------------------------------------------------------


def name_of(process: RemoteProcess, tid: int, room: int = ROOM) -> bytes:
    """Return what lwp_getname() says of thread TID."""
    place = Buffer(size=room, wanted=True)
    return process.syscall("lwp_getname", tid, place, room).memory(place)


@pytest.mark.kern_proc("lwpfind")
@GETNAME
def test_a_threads_name_is_set_and_told_and_in_its_page(init: RemoteProcess) -> None:
    """By its id, found by lwpfind(); other threads keep theirs (kern_prot.c: sys_lwp_setname, sys_lwp_getname)."""
    thread = init.thread()
    assert name_of(init, thread.gettid())[:1] == b"\0"
    init.syscall("lwp_setname", thread.gettid(), b"worker\0")
    assert name_of(init, thread.gettid())[:7] == b"worker\0"
    assert shared_page(thread, "lpmap").content("title")[:7] == b"worker\0"
    assert name_of(init, init.gettid())[:1] == b"\0"
    init.syscall("lwp_setname", thread.gettid(), 0)
    assert name_of(init, thread.gettid())[:1] == b"\0"


@pytest.mark.kern_proc("lwpfind")
@GETNAME
def test_a_name_for_which_there_is_no_room_is_cut_off(init: RemoteProcess) -> None:
    """It still ends with a null byte (kern_prot.c: sys_lwp_getname, which asks lwpfind())."""
    tid = init.gettid()
    init.syscall("lwp_setname", tid, bytes(range(65, 65 + ROOM)) + b"\0")
    assert name_of(init, tid) == bytes(range(65, 65 + ROOM - 1)) + b"\0"
    assert name_of(init, tid, 4) == b"ABC\0"


@pytest.mark.kern_proc("lwpfind")
@pytest.mark.feature("lpmap")
def test_a_thread_that_there_is_not_gets_no_name(init: RemoteProcess) -> None:
    """ESRCH: lwpfind() knows the caller's own threads only (kern_prot.c: sys_lwp_setname)."""
    for tid in (99, init.fork().gettid() + 1):
        with fails(ESRCH):
            init.syscall("lwp_setname", tid, b"some\0")
    with fails(EFAULT):
        init.syscall("lwp_setname", init.gettid(), NOWHERE)


def shown_names(process: RemoteProcess, *tids: int) -> list[str | None]:
    """Return what the process table calls the threads TIDS of PROCESS."""
    rows = [each for each in process.sysctl.kern_proc_all(lwp=True) if each.pid == process.pid]
    return [each.lwp.comm for tid in tids for each in rows if each.lwp.tid == tid]


@pytest.mark.passes("sysctl_kern_proc")
@pytest.mark.feature("!lpmap")
def test_a_threads_name_is_shown_in_the_process_table(init: RemoteProcess) -> None:
    """After a null pointer it is the program's again (kern_prot.c: sys_lwp_setname, td_comm)."""
    tids = init.thread().gettid(), init.gettid()
    program = row(init, init.pid).comm
    assert shown_names(init, *tids) == [program, program]
    for name in ("worker", "abcdefghijklmnop"):
        init.syscall("lwp_setname", tids[0], name.encode() + b"\0")
        assert shown_names(init, *tids) == [name, program]
    init.syscall("lwp_setname", tids[0], 0)
    assert shown_names(init, *tids) == [program, program]


@pytest.mark.passes("sysctl_kern_proc")
@pytest.mark.eras(until=500_315, reason="copyinstr() takes no string for too long since 879d1a9ecd, 2018-09-25")
def test_of_a_threads_name_sixteen_bytes_are_shown(init: RemoteProcess) -> None:
    """The rest is cut off, which is no error (kern_prot.c: sys_lwp_setname, MAXCOMLEN)."""
    init.syscall("lwp_setname", init.gettid(), b"abcdefghijklmnopqrst\0")
    assert shown_names(init, init.gettid()) == ["abcdefghijklmnop"]


@pytest.mark.feature("!lpmap")
def test_a_thread_of_another_process_gets_no_name(init: RemoteProcess) -> None:
    """ESRCH, as for a thread that there is not; EFAULT for a bad name (kern_prot.c: sys_lwp_setname)."""
    for tid in (99, init.fork().thread().gettid()):
        with fails(ESRCH):
            init.syscall("lwp_setname", tid, b"some\0")
    with fails(EFAULT):
        init.syscall("lwp_setname", init.gettid(), NOWHERE)


@pytest.mark.kern_proc("lwpfind")
@GETNAME
def test_a_threads_name_may_fill_its_page(init: RemoteProcess) -> None:
    """All but the last byte of it; asked for no byte, none is told (kern_prot.c: sys_lwp_getname, by lwpfind())."""
    tid = init.gettid()
    name = bytes(65 + number % 26 for number in range(LONGEST))
    init.syscall("lwp_setname", tid, name + b"\0")
    assert name_of(init, tid, LONGEST + 1) == name + b"\0"
    assert init.syscall("lwp_getname", tid, NOWHERE, 0).value == 0

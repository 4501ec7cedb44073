"""The page a process shares with the kernel, threads and their end, and what visits all processes or all threads."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from signal import SIGKILL

import pytest

from harness.processes import Pending, ProcessGone, RemoteProcess, RemoteThread, Repeat, fails, fails_with

from ._children import allow_many, parked, zombies
from ._help import NO_SUCH_ID, SOMEBODY, bury, eventually, holds
from ._kernel import CHAINS, PidAllocator
from ._memory import OwnMemory
from ._mounts import procfs
from ._sysctl import setting

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc

# sys/upmap.h: types of the entries; bits 8 to 11 give the size as a power of two.
VERSION, RUNTICKS, FORKID, PID_ENTRY, TITLE, INVFORK = 0x0201, 0x0210, 0x0311, 0x0212, 0x0A13, 0x0214
ENTRIES = {
    "version": VERSION,
    "runticks": RUNTICKS,
    "forkid": FORKID,
    "pid": PID_ENTRY,
    "title": TITLE,
    "invfork": INVFORK,
}
_PAGE, _MAPPED, _HEADERS = 4096, 65536, 64
_READ_WRITE, _SHARED = 3, 1  # sys/mman.h


def size_of(entry: int) -> int:
    """Return the length of an entry in bytes (sys/upmap.h: UKPLEN_DECODE)."""
    return 1 << (entry >> 8 & 0xF)


@dataclass
class SharedPage:
    """A process's /dev/upmap at ADDRESS; entries are found by type, as programs do."""

    memory: OwnMemory
    address: int

    @cached_property
    def headers(self) -> list[tuple[int, int]]:
        """Type and offset of each entry, up to the first of type 0."""
        words = struct.iter_unpack("<HH", self.memory.read(self.address, 4 * _HEADERS))
        entries: list[tuple[int, int]] = []
        for kind, offset in words:
            if kind == 0:
                break
            entries.append((kind, offset))
        return entries

    def where(self, entry: int) -> int:
        """Return the address of an entry; KeyError if the kernel announces none."""
        return self.address + dict(self.headers)[entry]

    def value(self, entry: int) -> int:
        """Return a numeric entry."""
        return self.memory.word(self.where(entry), size_of(entry))

    def set_title(self, title: bytes) -> None:
        """Write to the title, without adding anything."""
        self.memory.write(self.where(TITLE), title)


def map_page(process: RemoteProcess) -> int:
    """Map /dev/upmap; return the address."""
    fd = process.open("/dev/upmap", os.O_RDWR)
    return process.syscall("mmap", 0, _MAPPED, _READ_WRITE, _SHARED, fd, 0, 0).wide


def shared_page(process: RemoteProcess) -> SharedPage:
    """Map PROCESS's shared page and return it."""
    return SharedPage(OwnMemory(process), map_page(process))


# ---- The shared page ----------------------------------------------------------------------------------------------


@kern_proc("proc_usermap")
@pytest.mark.parametrize("entry", ENTRIES)
def test_the_page_announces_each_entry_once(init: RemoteProcess, entry: str) -> None:
    """By type, size and offset; the version comes first (sys/upmap.h, kern_proc.c: proc_usermap)."""
    headers = shared_page(init).headers
    assert [kind for kind, _ in headers].count(ENTRIES[entry]) == 1
    assert headers[0][0] == VERSION


@kern_proc("proc_usermap")
def test_the_entries_lie_in_the_page_and_do_not_overlap(init: RemoteProcess) -> None:
    """Nor do they overlap the list of them (kern_proc.c: proc_usermap)."""
    places = sorted((offset, offset + size_of(kind)) for kind, offset in shared_page(init).headers)
    edges = [4 * _HEADERS, *(edge for place in places for edge in place), _PAGE]
    assert edges == sorted(edges)


@kern_proc("proc_usermap")
def test_the_pages_version_is_1(init: RemoteProcess) -> None:
    """UPMAP_VERSION (sys/upmap.h)."""
    assert shared_page(init).value(VERSION) == 1


@kern_proc("proc_usermap")
def test_the_page_tells_the_pid(init: RemoteProcess) -> None:
    """Each process its own (kern_proc.c: proc_usermap)."""
    child = init.fork()
    assert (shared_page(init).value(PID_ENTRY), shared_page(child).value(PID_ENTRY)) == (init.pid, child.pid)


@kern_proc("proc_usermap")
def test_a_mapping_inherited_by_fork_shows_the_childs_own_page(init: RemoteProcess) -> None:
    """The device maps whatever belongs to the process that looks (kern_memio.c: user_kernel_mapping)."""
    page = shared_page(init)
    assert page.value(PID_ENTRY) == init.pid
    page.set_title(b"parent\0")
    child = init.fork()
    inherited = SharedPage(OwnMemory(child), page.address)
    assert inherited.value(PID_ENTRY) == child.pid
    assert inherited.memory.read(inherited.where(TITLE), 1) == b"\0"


@kern_proc("proc_usermap")
def test_the_forkid_is_different_in_each_process(init: RemoteProcess) -> None:
    """A number no other process has, by which a program notices that it was forked (kern_fork.c: p_forkid)."""
    family = [init, *(init.fork() for _ in range(8))]
    identities = [shared_page(process).value(FORKID) for process in family]
    assert 0 not in identities
    assert len(set(identities)) == len(family)


@kern_proc("proc_usermap")
def test_the_forkid_is_different_though_the_pid_is_the_same(init: RemoteProcess, allocator: PidAllocator) -> None:
    """Pids come back, forkids do not (sys/upmap.h: forkid)."""
    identities = []
    for _ in range(2):
        child = allocator.child_with(allocator.spare)
        identities.append(shared_page(child).value(FORKID))
        bury(init, child)
    assert identities[0] != identities[1]


@kern_proc("proc_usermap")
def test_a_process_has_one_page_however_often_it_maps_it(init: RemoteProcess) -> None:
    """The second mapping shows the first one's content (kern_proc.c: proc_usermap)."""
    first, second = shared_page(init), shared_page(init)
    assert first.address != second.address
    assert first.value(FORKID) == second.value(FORKID)
    first.set_title(b"seen twice\0")
    assert second.memory.read(second.where(TITLE), 11) == b"seen twice\0"


@kern_proc("proc_usermap")
def test_what_the_kernel_does_not_set_is_zero(init: RemoteProcess) -> None:
    """Nothing of what the memory held before shows (kern_proc.c: proc_usermap, M_ZERO)."""
    page = shared_page(init)
    content = bytearray(page.memory.read(page.address, _PAGE))
    content[: 4 * (len(page.headers) + 1)] = bytes(4 * (len(page.headers) + 1))
    for kind, offset in page.headers:
        if kind != TITLE:
            content[offset : offset + size_of(kind)] = bytes(size_of(kind))
    assert not any(content)


@kern_proc("proc_usermap")
def test_any_user_may_map_his_page(init: RemoteProcess) -> None:
    """The device is open to all (kern_memio.c: mem_drvinit)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    assert shared_page(user).value(PID_ENTRY) == user.pid


@kern_proc("proc_usermap")
def test_the_page_counts_the_ticks_the_process_ran(init: RemoteProcess) -> None:
    """Runticks grows while it works (kern_clock.c: statclock)."""
    page = shared_page(init)
    before = page.value(RUNTICKS)

    def work() -> bool:
        init.repeat_until(fails_with("EPERM"), "getpid", seconds=0.3)
        return page.value(RUNTICKS) > before

    eventually(work, "its work to be counted")


@kern_proc("proc_usermap")
@pytest.mark.parametrize("ended_by", ["exit", "execve"])
def test_the_page_tells_when_a_vforked_child_uses_it(init: RemoteProcess, ended_by: str) -> None:
    """Until the child exits or runs a program it sees the parent's page, with invfork set (kern_fork.c: fork1)."""
    page = shared_page(init)
    assert page.value(INVFORK) == 0
    child = init.vfork()
    borrowed = SharedPage(OwnMemory(child), page.address)
    assert (borrowed.value(PID_ENTRY), borrowed.value(INVFORK)) == (init.pid, 1)
    if ended_by == "exit":
        child.exit()
    else:
        child.execve("/bin/sleep", ["sleep", "1000"])
    assert page.value(INVFORK) == 0


@kern_proc("proc_usermap")
def test_a_vforked_child_maps_its_parents_page(init: RemoteProcess) -> None:
    """Made on the parent's behalf, with invfork set at once (kern_memio.c: user_kernel_mapping)."""
    child = init.vfork()
    borrowed = shared_page(child)
    assert (borrowed.value(PID_ENTRY), borrowed.value(INVFORK)) == (init.pid, 1)
    child.exit()
    page = SharedPage(OwnMemory(init), borrowed.address)
    assert (page.value(PID_ENTRY), page.value(INVFORK)) == (init.pid, 0)


@kern_proc("proc_usermap", "sysctl_kern_proc_args")
def test_a_title_written_to_the_page_is_what_args_shows(init: RemoteProcess) -> None:
    """Up to its null byte, until it is emptied again (kern_proc.c: sysctl_kern_proc_args)."""
    child = init.fork()
    before = init.sysctl.kern_proc_args(child.pid)
    page = shared_page(child)
    page.set_title(b"a title\0and more\0")
    assert init.sysctl.read((1, 14, 7, child.pid)) == b"a title\0"
    page.set_title(b"\0")
    assert init.sysctl.kern_proc_args(child.pid) == before


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.parametrize("length", [1, 100, 1022, 1023, 1024])
def test_a_title_in_the_page_may_have_1023_bytes(init: RemoteProcess, length: int) -> None:
    """The kernel ends it there if nothing else does (sys/upmap.h: UPMAP_MAXPROCTITLE)."""
    shared_page(init).set_title(b"t" * length)
    assert init.sysctl.read((1, 14, 7, init.pid)) == b"t" * min(length, 1023) + b"\0"


@kern_proc("sysctl_kern_proc_args")
def test_a_title_in_the_page_goes_before_one_set_by_sysctl(init: RemoteProcess) -> None:
    """Whichever came first (kern_proc.c: sysctl_kern_proc_args)."""
    page = shared_page(init)
    page.set_title(b"by page\0")
    assert init.sysctl.kern_proc_args(init.pid) == [b"by page"]
    init.sysctl.set_kern_proc_args(init.pid, b"by sysctl\0")
    page.set_title(b"by page again\0")
    assert init.sysctl.kern_proc_args(init.pid) == [b"by page again"]


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.eras(until=500709, reason="since 5.8 the sysctl writes to the page as well")
def test_a_title_set_by_sysctl_is_kept_behind_the_one_in_the_page(init: RemoteProcess) -> None:
    """It shows again when the page's is emptied (kern_proc.c: sysctl_kern_proc_args)."""
    page = shared_page(init)
    page.set_title(b"by page\0")
    init.sysctl.set_kern_proc_args(init.pid, b"by sysctl\0")
    assert init.sysctl.kern_proc_args(init.pid) == [b"by page"]
    page.set_title(b"\0")
    assert init.sysctl.kern_proc_args(init.pid) == [b"by sysctl"]


@kern_proc("proc_usermap", "sysctl_kern_proc_args")
def test_a_title_in_the_page_is_not_inherited(init: RemoteProcess) -> None:
    """A child begins without a page of its own (kern_fork.c)."""
    before = init.sysctl.kern_proc_args(init.pid)
    shared_page(init).set_title(b"parent\0")
    assert init.sysctl.kern_proc_args(init.fork().pid) == before


# ---- Threads ------------------------------------------------------------------------------------------------------


def tids(observer: RemoteProcess, process: RemoteProcess) -> list[int]:
    """Return the ids of PROCESS's threads as its rows tell them."""
    return sorted(row.lwp.tid for row in observer.sysctl.kern_proc_pid(process.pid, lwp=True))


def keep_busy(thread: RemoteProcess | RemoteThread) -> Pending[Repeat]:
    """Let THREAD make one system call after the other, without end."""
    return thread.start.repeat_until(fails_with("EPERM"), "getpid", seconds=3600.0)


def keep_asleep(thread: RemoteProcess | RemoteThread) -> Pending[None]:
    """Let THREAD sleep for an hour."""
    return thread.start.nanosleep(3600.0)


@kern_proc("sysctl_out_proc")
def test_each_thread_is_listed_with_its_id(init: RemoteProcess) -> None:
    """Ids are different, and one process's alone (kern_fork.c: lwp_fork)."""
    child = init.fork()
    threads = [child.thread() for _ in range(5)]
    expected = sorted([child.gettid(), *(thread.tid for thread in threads)])
    assert len(set(expected)) == 6
    assert tids(init, child) == expected
    assert init.sysctl.kern_proc_pid(child.pid)[0].nthreads == 6


@kern_proc("sysctl_out_proc")
def test_a_thread_that_ends_is_listed_no_more_and_the_others_go_on(init: RemoteProcess) -> None:
    """Its structure is disposed of by the kernel, nobody waits for it (kern_exit.c: lwp_exit)."""
    child = init.fork()
    first, second = child.thread(), child.thread()
    first.exit()
    eventually(lambda: tids(init, child) == sorted([child.gettid(), second.tid]), "the thread to end")
    assert init.sysctl.kern_proc_pid(child.pid)[0].nthreads == 2
    assert second.getpid() == child.getpid() == child.pid
    bury(init, child)


@kern_proc("lwpuserret")
@pytest.mark.parametrize("activity", [keep_busy, keep_asleep])
def test_exit_ends_all_threads(init: RemoteProcess, activity: object) -> None:
    """Those in the kernel leave it by way of their end, running ones at their next return to user mode (lwpuserret)."""
    child = init.fork()
    for _ in range(3):
        assert callable(activity)
        activity(child.thread())
    child.exit(5)
    assert init.wait4(child.pid).exit_status == 5


@kern_proc("lwpuserret")
def test_any_thread_can_end_the_process(init: RemoteProcess) -> None:
    """_exit() in one thread ends the others, the first included (kern_exit.c: exit1, killalllwps)."""
    child = init.fork()
    thread = child.thread()
    keep_asleep(child.thread())
    keep_busy(child)
    thread.start.syscall("exit", 6)
    assert init.start.wait4(child.pid).result(30.0).exit_status == 6


@kern_proc("lwpuserret")
def test_a_signal_ends_all_threads(init: RemoteProcess) -> None:
    """Whatever they do (kern_exit.c: exit1)."""
    child = init.fork()
    keep_busy(child.thread())
    keep_busy(child.thread())
    keep_asleep(child.thread())
    init.kill(child.pid, SIGKILL)
    assert init.start.wait4(child.pid).result(30.0).signal == SIGKILL


@kern_proc("lwpuserret")
def test_execve_leaves_one_thread(init: RemoteProcess) -> None:
    """The one that called it (kern_exec.c: killalllwps)."""
    child = init.fork()
    keep_busy(child.thread())
    keep_asleep(child.thread())
    child.reexec()
    (row,) = init.sysctl.kern_proc_pid(child.pid, lwp=True)
    assert (row.nthreads, row.lwp.tid) == (1, child.gettid())


@kern_proc("lwpuserret")
def test_a_process_that_opens_a_file_too_many_frees_others_on_its_way_out_of_the_kernel(init: RemoteProcess) -> None:
    """As many at once as it is told to; the system's own thread takes five a second (vfs_lock.c: allocvnode_gc)."""
    folder = f"/tmp/vnodes-{init.pid}"  # noqa: S108  (in the guest)
    init.mkdir(folder)
    files = [f"{folder}/{number}" for number in range(120)]
    for file in files:
        init.close(init.open(file, os.O_CREAT | os.O_WRONLY))
    before = init.sysctl.get_int("debug.numvnodes")
    with setting(init, "debug.batchfreevnodes", 100), setting(init, "kern.maxvnodes", before // 2):
        init.close(init.open(f"{folder}/last", os.O_CREAT | os.O_WRONLY))
        after = init.sysctl.get_int("debug.numvnodes")
    for file in [*files, f"{folder}/last"]:
        init.unlink(file)
    init.rmdir(folder)
    assert after < before - 50


AXSIG = 0x10  # sys/acct.h: killed by a signal


@kern_proc("lwpuserret")
@pytest.mark.parametrize("ended_by", ["exit", "execve"])
def test_threads_that_have_to_end_are_not_killed(init: RemoteProcess, ended_by: str) -> None:
    """They exit before the signal that hurries them is heeded: the accounting shows none (kern_proc.c: lwpuserret)."""
    assert not threads_are_killed(init, ended_by, keep_asleep, keep_asleep)
    # Who runs may be between the two looks the kernel takes on the way back to user mode (trap.c: userret).
    eventually(
        lambda: not threads_are_killed(init, ended_by, keep_busy, keep_asleep),
        "a running thread to exit before it heeds the signal",
    )


def threads_are_killed(init: RemoteProcess, ended_by: str, *activities: Callable[[RemoteThread], object]) -> bool:
    """Tell whether a process counts as killed when it exits or runs a program while each thread does its activity."""
    child = init.fork()
    for activity in activities:
        activity(child.thread())
    eventually(
        lambda: (
            [row.lwp.wmesg for row in init.sysctl.kern_proc_pid(child.pid, lwp=True)].count("nanslp")
            == activities.count(keep_asleep)
        ),
        "those threads to sleep that shall",
    )
    if ended_by == "exit":
        child.exit(5)
        return init.sysctl.kern_proc_all()[child.pid].acflag & AXSIG != 0
    child.reexec()
    return init.sysctl.kern_proc_pid(child.pid)[0].acflag & AXSIG != 0


@kern_proc("lwpuserret")
def test_threads_that_exit_at_the_same_time_leave_nothing_behind(init: RemoteProcess) -> None:
    """The process is reaped with all of them (kern_exit.c: lwp_exit, reaplwps)."""
    for _ in range(5):
        child = init.fork()
        with suppress(ProcessGone):  # whoever is first may end the others before they are told to
            for thread in [child.thread() for _ in range(6)]:
                thread.start.syscall("exit", 7)
        assert init.start.wait4(child.pid).result(30.0).exit_status == 7
        assert child.pid not in init.sysctl.kern_proc_all()


@kern_proc("sysctl_out_proc", "alllwp_scan")
def test_a_zombie_with_many_threads_has_one_row_and_no_threads(init: RemoteProcess) -> None:
    """Only the thread that ended it is still there until the reaping (kern_exit.c: lwp_exit)."""
    zombie = init.fork()
    for _ in range(3):
        keep_asleep(zombie.thread())
    zombie.exit()
    table = init.sysctl.kern_proc_all(lwp=True)
    (row,) = table.rows_of(zombie.pid)
    assert (row.is_zombie, row.nthreads) == (True, 0)


# ---- Visits to all processes --------------------------------------------------------------------------------------

PRIO_USER = 2  # sys/resource.h


@kern_proc("allproc_scan")
def test_all_processes_of_a_user_get_another_priority_and_only_they(
    init: RemoteProcess, allocator: PidAllocator
) -> None:
    """setpriority(PRIO_USER) visits each process, in every hash chain, zombies excepted (kern_resource.c)."""
    parent = init.fork()
    allow_many(parent)
    parent.setresuid(0, SOMEBODY, 0)
    living = allocator.one_in_each_chain(parent)
    dead = zombies(parent, 5)
    init.syscall("setpriority", PRIO_USER, SOMEBODY, 7)
    table = init.sysctl.kern_proc_all()
    assert {table[pid].nice for pid in [parent.pid, *living]} == {7}
    assert {table[pid].nice for pid in [init.pid, 1, *dead]} == {0}


@kern_proc("allproc_scan")
def test_the_best_priority_of_a_user_is_found_among_all_his_processes(init: RemoteProcess) -> None:
    """getpriority(PRIO_USER) returns the lowest nice value, ESRCH without any process (kern_resource.c)."""
    parent, user = init.fork(), 100_000 + init.pid  # nobody of whom anything is left on its way out
    parent.setresuid(0, user, 0)
    children = [parent.fork() for _ in range(12)]
    for place, child in enumerate(children):
        init.syscall("setpriority", 0, child.pid, 19 - place)
    init.syscall("setpriority", 0, parent.pid, 19)
    assert init.syscall("getpriority", PRIO_USER, user).value == 8
    with fails("ESRCH"):
        init.syscall("getpriority", PRIO_USER, NO_SUCH_ID)


@kern_proc("allproc_scan")
def test_a_users_broadcast_reaches_all_his_processes_but_himself(init: RemoteProcess) -> None:
    """kill(-1) visits each process and signals those the sender may (kern_sig.c: dokillpg)."""
    parent, other = init.fork(), init.fork()
    user = parent.fork()
    parent.setresuid(0, SOMEBODY, SOMEBODY)
    living = parked(parent, 40)
    user.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
    user.kill(-1, SIGKILL)
    dead = [parent.pid, *living]

    def all_gone() -> bool:
        table = init.sysctl.kern_proc_all()
        return all(pid not in table or table[pid].is_zombie for pid in dead)

    eventually(all_gone, "all processes of the user to be killed")
    assert user.getpid() == user.pid
    assert other.getpid() == other.pid


@kern_proc("allproc_scan", "prele")
def test_visiting_all_processes_leaves_no_hold_on_any(init: RemoteProcess) -> None:
    """Each is held during its visit only (kern_proc.c: allproc_scan)."""
    child = init.fork()
    before = holds(init, child)
    for _ in range(10):
        with fails("ESRCH"):
            init.syscall("getpriority", PRIO_USER, NO_SUCH_ID)
    assert holds(init, child) == before
    bury(init, child)


@kern_proc("allproc_scan", "prele")
def test_processes_listed_in_small_pieces_are_all_listed_and_none_is_held(init: RemoteProcess) -> None:
    """A visit that ends before the last process lets go of the one it ends at, too (kern_proc.c: allproc_scan)."""
    children = [init.fork() for _ in range(8)]  # more than there are in a piece
    before = [holds(init, child) for child in children]
    with procfs(init) as mounted:
        names = in_small_pieces(init, mounted)
    assert [names.count(str(child.pid)) for child in children] == [1] * len(children)
    assert [holds(init, child) for child in children] == before
    bury(init, *children)


def in_small_pieces(process: RemoteProcess, folder: str) -> list[str]:
    """Return the names in FOLDER, asking for a few at a time (sys/dirent.h)."""
    memory, room = OwnMemory(process), 80
    at = process.touch_memory(4096)
    fd = process.open(folder, os.O_RDONLY)
    names = []
    while piece := memory.read(at, process.syscall("getdents", fd, at, room).value):
        while piece:
            (length,) = struct.unpack_from("<8xH", piece)
            names.append(piece[16 : 16 + length].decode())
            piece = piece[16 + length + 8 & ~7 :]
    process.close(fd)
    return names


@kern_proc("alllwp_scan")
@pytest.mark.slow_clock(6)
@pytest.mark.parametrize(("processes", "threads"), [(10, 1), (1, 10)])
def test_every_runnable_thread_counts_towards_the_load(init: RemoteProcess, processes: int, threads: int) -> None:
    """The load average is made up of threads, first ones and others, every five seconds (kern_synch.c: loadav)."""
    expect_load(init, [init.fork() for _ in range(processes)], threads)


@kern_proc("alllwp_scan")
@pytest.mark.slow_clock(6)
@pytest.mark.parametrize("chain", [0, CHAINS - 1], ids=["first", "last"])
def test_threads_of_the_first_and_the_last_hash_chain_count_towards_the_load(
    init: RemoteProcess, allocator: PidAllocator, chain: int
) -> None:
    """No chain is left out, and a zombie at the head of the first hides nobody (kern_proc.c: alllwp_scan)."""
    start = allocator.spare // CHAINS * CHAINS + CHAINS
    busy = allocator.child_with(start + chain)
    allocator.child_with(start + CHAINS).exit()
    expect_load(init, [busy], threads=10)


@kern_proc("alllwp_scan")
@pytest.mark.slow_clock(6)
def test_counting_the_threads_leaves_no_hold_on_them(init: RemoteProcess) -> None:
    """One that has been counted is held no more than one that is too young (kern_proc.c: alllwp_scan)."""
    counted = init.fork()
    init.sleep(6.0)
    (old,), (young,) = (init.sysctl.kern_proc_pid(child.pid) for child in (counted, init.fork()))
    assert old.lwp.lock == young.lwp.lock
    bury(init, counted)


def expect_load(init: RemoteProcess, children: list[RemoteProcess], threads: int) -> None:
    """Let CHILDREN be busy with THREADS threads each, ten in all, until the load average shows it."""
    # A minute's average moves by a twelfth of the distance: ten threads add 0.8 at once, one only less than 0.2.
    before = load(init)
    for child in children:
        for thread in [child.thread() for _ in range(threads - 1)]:
            keep_busy(thread)
        keep_busy(child)
    eventually(lambda: load(init) > before + 0.4 - before / 10, "the load to rise", seconds=30.0)


def load(observer: RemoteProcess) -> float:
    """Return the load average over a minute (sys/resource.h: struct loadavg, whose members grew in 5.x)."""
    data = observer.sysctl.read("vm.loadavg")
    average, scale = struct.unpack("<Q16xQ" if len(data) == 32 else "<I12xQ", data)
    return float(average / scale)

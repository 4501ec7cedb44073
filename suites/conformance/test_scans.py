# SPDX-License-Identifier: BSD-2-Clause
"""What visits all processes or all threads (kern_proc.c: allproc_scan(), alllwp_scan())."""

from __future__ import annotations

import os
import struct
from signal import SIGKILL

import pytest

from harness.processes import RemoteProcess, fails
from harness.processes.allocator import CHAINS, PidAllocator
from harness.processes.memory import OwnMemory
from support.children import allow_many, parked, zombies
from support.mounts import procfs
from support.processes import NO_SUCH_ID, SOMEBODY, bury, eventually, holds, keep_busy, row

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


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


@kern_proc("allproc_scan")
@pytest.mark.passes("prele")
def test_visiting_all_processes_leaves_no_hold_on_any(init: RemoteProcess) -> None:
    """Each is held during its visit only (kern_proc.c: allproc_scan)."""
    child = init.fork()
    before = holds(init, child)
    for _ in range(10):
        with fails("ESRCH"):
            init.syscall("getpriority", PRIO_USER, NO_SUCH_ID)
    assert holds(init, child) == before
    bury(init, child)


@kern_proc("allproc_scan")
@pytest.mark.passes("prele")
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


@kern_proc("allproc_scan")
@pytest.mark.slow_clock(4)
@pytest.mark.parametrize("chain", [0, CHAINS - 1], ids=["first", "last"])
def test_each_process_is_visited_once_a_second(init: RemoteProcess, allocator: PidAllocator, chain: int) -> None:
    """Which counts the seconds that it is there (kern_synch.c: schedcpu_stats, p_swtime; kern_proc.c: allproc_scan)."""
    child = allocator.child_with(allocator.spare // CHAINS * CHAINS + CHAINS + chain)
    before = row(init, child.pid).swtime
    init.sleep(4.0)
    assert 3 <= row(init, child.pid).swtime - before <= 5


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

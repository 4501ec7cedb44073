# SPDX-License-Identifier: BSD-2-Clause
"""Pids: in which order they are handed out, which ones never, and how long one that was given back stays unused.

A pid is refused for ten seconds after it was given back: by the reaping of the process, and by the last reference to a
process group or session of that number.  The kernel keeps the low 8 bits of that second in `pid_doms[]`.  A pid is
"asked for" here when it is the candidate proc_makepid() looks at first: `nextpid`, with kern.randompid 0.
"""

from __future__ import annotations

import struct
from errno import EINVAL, EPERM
from itertools import pairwise

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import Process, RemoteProcess, fails
from harness.processes.allocator import CHAINS, DELAY, LOWEST_RECYCLED, PID_MAX, PidAllocator, random_pids
from support.children import born
from support.processes import SOMEBODY, numbers_taken
from support.sysctl import oid

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


# ---- The order ----------------------------------------------------------------------------------------------------


@kern_proc("proc_makepid")
@pytest.mark.passes("proc_add_allproc")
def test_pids_ascend(init: Process) -> None:
    """Without kern.randompid each new pid is higher than the one before (kern_proc.c: proc_makepid)."""
    pids = [init.fork().pid for _ in range(20)]
    assert pids == sorted(set(pids))


@kern_proc("proc_makepid")
@pytest.mark.passes("proc_add_allproc")
def test_pids_follow_each_other_except_for_those_counted_as_skipped(
    init: RemoteProcess, allocator: PidAllocator
) -> None:
    """The candidate advances by one per try; kern.pid_domain_skips counts the refused (kern_proc.c: proc_makepid)."""
    first, (domain, inner) = allocator.next_pid, allocator.skips()
    pids = born(init, 300)
    domain_after, inner_after = allocator.skips()
    assert all(before < after for before, after in pairwise(pids))
    assert (allocator.next_pid, inner_after) == (pids[-1] + 1, inner)
    assert pids[-1] + 1 - first == len(pids) + domain_after - domain


@kern_proc("procinit")
def test_pids_never_used_do_not_all_have_to_wait_in_the_same_second(allocator: PidAllocator) -> None:
    """At boot each pid counts as given back one second after its predecessor, pid 0 at -11 (kern_proc.c: procinit)."""
    never_used = range(990_000, 990_300)
    stamps = allocator.stamps(never_used.start, len(never_used))
    assert list(stamps) == [(pid - DELAY - 1) % 256 for pid in never_used]


@kern_proc("procinit", "proc_makepid")
@pytest.mark.passes("procinsertinit")
def test_init_is_process_1(init: Process) -> None:
    """The first process the kernel makes gets pid 1 (kern_proc.c: procinit, proc_makepid)."""
    (row,) = init.sysctl.kern_proc_pid(1)
    assert (row.pid, row.ppid, row.sid) == (1, 0, 1)


@pytest.mark.passes("procinsertinit", "pgrpinsertinit", "sessinsertinit", "pfind")
def test_the_swapper_is_process_0_in_group_0_and_session_0(init: RemoteProcess) -> None:
    """Process, group and session 0 are in the tables from the start (init_main.c: proc0_init)."""
    (row,) = init.sysctl.kern_proc_pid(0)
    assert (row.pid, row.pgid, row.sid, row.comm) == (0, 0, 0, "swapper")
    assert 0 in init.sysctl.kern_proc_pgrp(0)


@needs_kernel
@pytest.mark.passes("pgrpinsertinit", "sessinsertinit", "procinsertinit")
def test_the_swappers_process_group_and_session_are_in_the_tables(kernel: Whitebox) -> None:
    """The first hash chain of each is not empty (init_main.c: proc0_init, sys/proc.h: struct procglob)."""
    assert kernel.word("allproc_hsize") == CHAINS
    lists = kernel.read(kernel.address("procglob") + 32, 24)  # behind a token: processes, groups, sessions
    assert all(struct.unpack("<3Q", lists))


# ---- The end of the range -----------------------------------------------------------------------------------------


@kern_proc("proc_makepid")
def test_the_highest_pid_is_one_below_pid_max_and_the_next_is_100(init: RemoteProcess, allocator: PidAllocator) -> None:
    """PID_MAX, 999999, is never a pid, and those below 100 are used at boot only (kern_proc.c: proc_makepid)."""
    allocator.rest(*range(PID_MAX - 2, PID_MAX))
    allocator.rest_range(LOWEST_RECYCLED, 50)
    occupied = numbers_taken(init)
    allocator.next_pid = PID_MAX - 2
    pids = born(init, 12)
    assert pids[:2] == (PID_MAX - 2, PID_MAX - 1)
    assert all(LOWEST_RECYCLED <= pid < PID_MAX // 2 for pid in pids[2:])
    if not occupied & {LOWEST_RECYCLED, LOWEST_RECYCLED + 1}:
        assert pids[2:4] == (LOWEST_RECYCLED, LOWEST_RECYCLED + 1)


@kern_proc("proc_makepid")
@pytest.mark.parametrize(
    ("candidate", "given"),
    [
        (PID_MAX - 1, PID_MAX - 1),
        (PID_MAX, 100),
        (PID_MAX + 1, 101),
        (PID_MAX + 99, 199),
        (PID_MAX + 100, 100),
        (PID_MAX + 190_701, 190_701),
        (PID_MAX // 2 + 3, PID_MAX // 2 + 3),
        (0, 100),
        (-1, 100),
        (-250, 100),
    ],
)
def test_a_candidate_outside_the_range_is_brought_back_into_it(
    init: RemoteProcess, allocator: PidAllocator, candidate: int, given: int
) -> None:
    """The remainder modulo PID_MAX is taken, plus 100 if it is below 100; negative ones become 100 (proc_makepid)."""
    occupied, wanted = numbers_taken(init), given
    while given in occupied:
        given += CHAINS
    allocator.rest(100, wanted, given, candidate % PID_MAX)
    assert allocator.ask_for(candidate) == given


@kern_proc("proc_makepid")
def test_pids_go_on_from_where_the_wrap_led(init: RemoteProcess, allocator: PidAllocator) -> None:
    """After a wrap `nextpid` continues behind it, not behind the old place (kern_proc.c: proc_makepid)."""
    allocator.rest_range(allocator.spare, 100)
    allocator.next_pid = PID_MAX + allocator.spare
    assert born(init, 10) == tuple(range(allocator.spare, allocator.spare + 10))
    assert allocator.next_pid == allocator.spare + 10


@kern_proc("proc_makepid")
@pytest.mark.passes("proc_add_allproc")
def test_a_random_leap_over_the_end_lands_at_100_or_above(init: RemoteProcess, allocator: PidAllocator) -> None:
    """The offset is added before the range is looked at (kern_proc.c: proc_makepid)."""
    allocator.rest_range(LOWEST_RECYCLED, 150)
    allocator.rest_range(PID_MAX - 50, 50)
    with random_pids(init, 100):
        pids = {allocator.ask_for(PID_MAX - 50) for _ in range(40)}
    below, above = {pid for pid in pids if pid < PID_MAX // 2}, {pid for pid in pids if pid > PID_MAX // 2}
    assert below
    assert above
    assert min(below) >= LOWEST_RECYCLED
    assert min(above) >= PID_MAX - 50
    assert max(above) < PID_MAX


# ---- Random offsets -----------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_randompid")
@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (-(2**31), 999_899),
        (-1, 999_899),
        (0, 0),
        (1, 0),
        (2, 100),
        (50, 100),
        (99, 100),
        (100, 100),
        (101, 101),
        (5000, 5000),
        (999_898, 999_898),
        (999_899, 999_899),
        (999_900, 999_899),
        (999_999, 999_899),
        (2**31 - 1, 999_899),
    ],
)
def test_randompid_is_clamped(init: Process, written: int, kept: int) -> None:
    """0 and 1 mean off, others lie between 100 and PID_MAX - 100 (kern_proc.c: sysctl_kern_randompid)."""
    with random_pids(init, written):
        assert init.sysctl.get_int("kern.randompid") == kept


@pytest.mark.passes("sysctl_kern_randompid")
def test_randompid_is_roots_to_change(init: Process) -> None:
    """Anybody may read it, but writing needs privilege (kern_sysctl.c: sysctl_root)."""
    before = init.sysctl.get_int("kern.randompid")
    user = init.fork()
    user.setuid(SOMEBODY)
    with fails(EPERM):
        user.sysctl.set_int("kern.randompid", 5000)
    assert user.sysctl.get_int("kern.randompid") == before


@pytest.mark.passes("sysctl_kern_randompid")
@pytest.mark.parametrize("size", [1, 2, 3])
def test_randompid_is_not_changed_by_less_than_an_int(init: RemoteProcess, size: int) -> None:
    """A short new value is EINVAL and changes nothing (kern_sysctl.c: sysctl_new_user)."""
    with random_pids(init, 5000):
        with fails(EINVAL):
            init.sysctl.write("kern.randompid", bytes(size))
        assert init.sysctl.get_int("kern.randompid") == 5000


@kern_proc("sysctl_kern_randompid")
def test_whoever_changes_randompid_is_told_what_it_was(init: RemoteProcess) -> None:
    """One call reads and then sets (kern_proc.c: sysctl_kern_randompid)."""
    with random_pids(init, 700):
        told, _ = init.sysctl.raw(oid(init, "kern.randompid"), 4, struct.pack("<i", 800))
        assert struct.unpack("<i", told) == (700,)
        assert init.sysctl.get_int("kern.randompid") == 800


@pytest.mark.passes("sysctl_kern_randompid")
def test_randompid_cannot_be_read_into_less_than_an_int(init: RemoteProcess) -> None:
    """ENOMEM, as for any int (kern_sysctl.c: sysctl_old_user)."""
    with fails("ENOMEM"):
        init.sysctl.raw(oid(init, "kern.randompid"), 3)


@kern_proc("proc_add_allproc")
@pytest.mark.passes("proc_makepid")
@pytest.mark.parametrize("modulus", [100, 700])
def test_a_random_offset_is_at_least_0_and_below_randompid(
    init: RemoteProcess, allocator: PidAllocator, modulus: int
) -> None:
    """It is drawn anew for each process and added to the next candidate (kern_proc.c: proc_add_allproc)."""
    with random_pids(init, modulus):
        offsets = _random_offsets(init, allocator, 40)
    assert min(offsets) >= 0
    assert max(offsets) < modulus
    assert max(offsets) > modulus // 2 > min(offsets)
    assert {offset % 2 for offset in offsets} == {0, 1}
    assert len(set(offsets)) > 10
    assert sum(first == second for first, second in pairwise(offsets)) < 10


@needs_kernel
@kern_proc("proc_add_allproc")
@pytest.mark.parametrize("modulus", [1, 3])
def test_random_offsets_fill_their_range_and_do_not_exceed_it(
    init: RemoteProcess, allocator: PidAllocator, modulus: int
) -> None:
    """The range is shorter here than the sysctl allows, so that each value turns up (kern_proc.c: proc_add_allproc)."""
    with random_pids(init, 100):
        allocator.kernel.write(allocator.kernel.address("randompid"), struct.pack("<i", modulus))
        assert set(_random_offsets(init, allocator, 60)) == set(range(modulus))


@kern_proc("proc_add_allproc")
@pytest.mark.passes("proc_makepid")
def test_random_offsets_may_lead_anywhere(init: RemoteProcess, allocator: PidAllocator) -> None:
    """Nearly as far as there are numbers, if kern.randompid says so (kern_proc.c: proc_add_allproc)."""
    with random_pids(init, 900_000):
        allocator.next_pid = 1000
        pids = born(init, 50)
    assert min(pids) < 300_000
    assert max(pids) > 600_000


def _random_offsets(init: RemoteProcess, allocator: PidAllocator, count: int) -> list[int]:
    """Return by how much the pids of COUNT children differ from the first candidate, or from those skipped after it."""
    offsets = []
    allocator.rest_range(allocator.spare, 1000)
    for _ in range(count):
        allocator.next_pid = allocator.spare
        skipped, inner = allocator.skips()
        (pid,) = born(init, 1)
        skipped_after, inner_after = allocator.skips()
        assert inner_after == inner
        offsets.append(pid - allocator.spare - (skipped_after - skipped))
    return offsets

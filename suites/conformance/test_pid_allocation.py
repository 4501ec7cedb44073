"""Pids: in which order they are handed out, which ones never, and how long one that was given back stays unused.

A pid is refused for ten seconds after it was given back: by the reaping of the process, and by the last reference to a
process group or session of that number.  The kernel keeps the low 8 bits of that second in `pid_doms[]`.  A pid is
"asked for" here when it is the candidate proc_makepid() looks at first: `nextpid`, with kern.randompid 0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import ExitStack
from errno import EINVAL, EPERM
from itertools import pairwise
from signal import SIGCHLD, SIGHUP, SIGKILL, SIGTTOU

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import Clock, Handler, Process, RemoteProcess, fails

from ._children import all_lead_sessions, allow_many, born, parked, zombies
from ._help import HASH_SIZE, SOMEBODY, bury, eventually, exists, random_pids, stop
from ._kernel import CHAINS, DELAY, DOMAINS, LOWEST_RECYCLED, PID_MAX, PidAllocator
from ._sysctl import oid

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc

F_SETOWN = 6  # sys/fcntl.h


def taken(process: Process) -> set[int]:
    """Return all numbers that are a pid, pgid or sid now."""
    rows = [row for row in process.sysctl.kern_proc_all() if not row.is_kernel_thread]
    return {number for row in rows for number in (row.pid, row.pgid, row.sid)}


# ---- The order ----------------------------------------------------------------------------------------------------


@kern_proc("proc_makepid", "proc_add_allproc")
def test_pids_ascend(init: Process) -> None:
    """Without kern.randompid each new pid is higher than the one before (kern_proc.c: proc_makepid)."""
    pids = [init.fork().pid for _ in range(20)]
    assert pids == sorted(set(pids))


@kern_proc("proc_makepid", "proc_add_allproc")
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


@kern_proc("procinit", "procinsertinit", "proc_makepid")
def test_init_is_process_1(init: Process) -> None:
    """The first process the kernel makes gets pid 1 (kern_proc.c: procinit, proc_makepid)."""
    (row,) = init.sysctl.kern_proc_pid(1)
    assert (row.pid, row.ppid, row.sid) == (1, 0, 1)


@kern_proc("procinsertinit", "pgrpinsertinit", "sessinsertinit", "pfind")
def test_the_swapper_is_process_0_in_group_0_and_session_0(init: RemoteProcess) -> None:
    """Process, group and session 0 are in the tables from the start (init_main.c: proc0_init)."""
    (row,) = init.sysctl.kern_proc_pid(0)
    assert (row.pid, row.pgid, row.sid, row.comm) == (0, 0, 0, "swapper")
    assert 0 in init.sysctl.kern_proc_pgrp(0)


@needs_kernel
@kern_proc("pgrpinsertinit", "sessinsertinit", "procinsertinit")
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
    occupied = taken(init)
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
    occupied, wanted = taken(init), given
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


@kern_proc("proc_makepid", "proc_add_allproc")
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


@kern_proc("sysctl_kern_randompid")
def test_randompid_is_roots_to_change(init: Process) -> None:
    """Anybody may read it, but writing needs privilege (kern_sysctl.c: sysctl_root)."""
    before = init.sysctl.get_int("kern.randompid")
    user = init.fork()
    user.setuid(SOMEBODY)
    with fails(EPERM):
        user.sysctl.set_int("kern.randompid", 5000)
    assert user.sysctl.get_int("kern.randompid") == before


@kern_proc("sysctl_kern_randompid")
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


@kern_proc("sysctl_kern_randompid")
def test_randompid_cannot_be_read_into_less_than_an_int(init: RemoteProcess) -> None:
    """ENOMEM, as for any int (kern_sysctl.c: sysctl_old_user)."""
    with fails("ENOMEM"):
        init.sysctl.raw(oid(init, "kern.randompid"), 3)


@kern_proc("proc_add_allproc", "proc_makepid")
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


@kern_proc("proc_add_allproc", "proc_makepid")
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


# ---- Numbers in use -----------------------------------------------------------------------------------------------


@kern_proc("proc_makepid")
def test_the_pid_of_a_living_process_is_not_handed_out(init: RemoteProcess, allocator: PidAllocator) -> None:
    """Another of the same hash chain takes its place, and kern.pid_inner_skips counts (kern_proc.c: proc_makepid)."""
    living = allocator.child_with(allocator.spare)
    allocator.rest_range(allocator.spare, 1000)
    domain, inner = allocator.skips()
    assert allocator.ask_for(living.pid) != living.pid
    assert allocator.skips() == (domain, inner + 1)


@kern_proc("proc_makepid")
def test_the_pid_of_a_stopped_process_is_not_handed_out(init: RemoteProcess, allocator: PidAllocator) -> None:
    """It lives (kern_proc.c: proc_makepid)."""
    stopped = allocator.child_with(allocator.spare)
    stop(init, stopped)
    allocator.rest_range(allocator.spare, 1000)
    assert allocator.ask_for(stopped.pid) == stopped.pid + HASH_SIZE


@kern_proc("proc_makepid")
def test_the_pid_of_a_zombie_is_not_handed_out(init: RemoteProcess, allocator: PidAllocator) -> None:
    """A zombie keeps its pid until it is reaped (kern_proc.c: proc_makepid)."""
    zombie = allocator.child_with(allocator.spare)
    zombie.exit()
    allocator.rest_range(allocator.spare, 1000)
    domain, inner = allocator.skips()
    assert allocator.ask_for(zombie.pid) != zombie.pid
    assert allocator.skips() == (domain, inner + 1)


@kern_proc("proc_makepid", "pgrel")
@pytest.mark.parametrize("member_is", ["living", "zombie"])
def test_the_id_of_a_group_that_has_lost_its_leader_is_not_handed_out(
    init: RemoteProcess, allocator: PidAllocator, member_is: str
) -> None:
    """A pid must not be that of a group with a member, be it a zombie (kern_proc.c: proc_makepid)."""
    leader, member = allocator.child_with(allocator.spare), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    bury(init, leader)
    if member_is == "zombie":
        member.exit()
    allocator.rest_range(allocator.spare, 1000)
    domain, inner = allocator.skips()
    assert allocator.ask_for(leader.pid) != leader.pid
    assert allocator.skips() == (domain, inner + 1)


@kern_proc("proc_makepid", "sess_rele", "sess_hold")
def test_the_id_of_a_session_that_has_lost_leader_and_first_group_is_not_handed_out(
    init: RemoteProcess, allocator: PidAllocator
) -> None:
    """A pid must not be that of a session with a member left in any group (kern_proc.c: proc_makepid)."""
    leader = allocator.child_with(allocator.spare)
    leader.setsid()
    member = leader.fork()
    member.setpgid(0, 0)
    bury(init, leader)
    assert member.getsid() == leader.pid
    allocator.rest_range(allocator.spare, 1000)
    domain, inner = allocator.skips()
    assert allocator.ask_for(leader.pid) != leader.pid
    assert allocator.skips() == (domain, inner + 1)


@kern_proc("proc_makepid", "pfind", "pgfind")
@pytest.mark.parametrize("asker", ["another session", "another user", "a relation"])
@pytest.mark.parametrize("bearer", ["process", "zombie", "group", "session"])
def test_a_number_in_use_is_handed_out_to_nobody(
    init: RemoteProcess, allocator: PidAllocator, bearer: str, asker: str
) -> None:
    """Whoever forks, in whatever session: pids, pgids and sids are the whole system's (kern_proc.c: proc_makepid)."""
    one, relation = _bearer(init, allocator, bearer, allocator.spare)
    stranger = init.fork()
    if asker == "another session":
        stranger.setsid()
    else:
        stranger.setuid(SOMEBODY)
    allocator.rest_range(allocator.spare, 1000)
    assert allocator.ask_for(one, relation if asker == "a relation" else stranger) == one + CHAINS


def _bearer(init: RemoteProcess, allocator: PidAllocator, kind: str, number: int) -> tuple[int, RemoteProcess]:
    """Let NUMBER be that of a process or zombie, or of a group or session and of nothing else.

    Return it and a process that has to do with its bearer.
    """
    one = allocator.child_with(number)
    if kind == "group":
        one.setpgid(0, 0)
    elif kind == "session":
        one.setsid()
    relation = one.fork()
    if kind == "session":
        relation.setpgid(0, 0)
    if kind == "zombie":
        one.exit()
    elif kind != "process":
        bury(init, one)
    return number, relation


@kern_proc("proc_makepid")
def test_a_process_that_evaded_a_number_in_use_is_found_under_its_pid(
    init: RemoteProcess, allocator: PidAllocator
) -> None:
    """The step to the next number stays in the hash chain where lookups search (kern_proc.c: proc_makepid)."""
    living = allocator.child_with(allocator.spare)
    allocator.rest_range(allocator.spare, 1000)
    allocator.next_pid = living.pid
    evading = init.fork()
    assert evading.pid != living.pid
    assert evading.pid % CHAINS == living.pid % CHAINS
    assert init.getpgid(evading.pid) == init.getpgrp()
    assert [row.pid for row in init.sysctl.kern_proc_pid(evading.pid)] == [evading.pid]


@kern_proc("proc_makepid")
@pytest.mark.parametrize("bearer", ["process", "zombie", "group", "session"])
@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_each_number_on_the_way_is_compared_with_all_in_use(
    init: RemoteProcess, allocator: PidAllocator, order: str, bearer: str
) -> None:
    """Whatever the order within the chain, which begins with the youngest (kern_proc.c: proc_makepid)."""
    first = allocator.spare
    numbers = [first, first + CHAINS, first + 2 * CHAINS]
    for number in numbers if order == "ascending" else reversed(numbers):
        _bearer(init, allocator, bearer, number)
    allocator.rest_range(first, 1000)
    _, inner = allocator.skips()
    assert allocator.ask_for(first) == first + 3 * CHAINS
    assert allocator.skips()[1] == inner + 3


@kern_proc("proc_makepid")
@pytest.mark.parametrize("kind", ["group", "session"])
def test_the_number_after_a_group_or_session_is_compared_with_processes_again(
    init: RemoteProcess, allocator: PidAllocator, kind: str
) -> None:
    """After each step all three lists are looked at from the start (kern_proc.c: proc_makepid)."""
    first = allocator.spare
    leader = allocator.child_with(first)
    if kind == "group":
        leader.setpgid(0, 0)
        init.fork().setpgid(0, leader.pid)
    else:
        leader.setsid()
        leader.fork().setpgid(0, 0)
    living = allocator.child_with(first + CHAINS)
    bury(init, leader)
    allocator.rest_range(first, 1000)
    _, inner = allocator.skips()
    assert allocator.ask_for(first) not in (first, living.pid)
    assert allocator.skips()[1] == inner + 2


@kern_proc("proc_makepid")
@pytest.mark.parametrize(
    ("bearer", "pid"), [("process", PID_MAX - 90), ("group", PID_MAX - 80), ("session", PID_MAX - 70)]
)
def test_no_step_leads_beyond_the_end_of_the_range(
    init: RemoteProcess, allocator: PidAllocator, bearer: str, pid: int
) -> None:
    """Where the next number of the chain would be PID_MAX or more, the next candidate's turn comes (proc_makepid)."""
    init.procctl_reaper_acquire()
    leader = allocator.child_with(pid)
    if bearer == "group":
        leader.setpgid(0, 0)
        leader.fork()
        bury(init, leader)
    if bearer == "session":
        leader.setsid()
        leader.fork().setpgid(0, 0)
        bury(init, leader)
    allocator.rest(pid, pid + 1)
    domain, inner = allocator.skips()
    assert allocator.ask_for(pid) == pid + 1
    assert allocator.skips() == (domain, inner)


@kern_proc("proc_makepid")
@pytest.mark.parametrize("place", ["below", "at"])
def test_the_last_number_of_a_chain_is_used(init: RemoteProcess, allocator: PidAllocator, place: str) -> None:
    """PID_MAX itself is none: the chain that would lead there ends before (kern_proc.c: proc_makepid)."""
    last = PID_MAX - (1 if place == "below" else 0)
    living = allocator.child_with(last - CHAINS)
    allocator.rest(last, living.pid + 1)
    assert allocator.ask_for(living.pid) == (last if place == "below" else living.pid + 1)


@kern_proc("proc_makepid")
def test_a_free_number_moves_no_skip_counter(init: RemoteProcess, allocator: PidAllocator) -> None:
    """kern.pid_domain_skips and pid_inner_skips count refusals only (kern_proc.c: proc_makepid)."""
    allocator.rest(allocator.spare)
    before = allocator.skips()
    assert allocator.ask_for(allocator.spare) == allocator.spare
    assert allocator.skips() == before


@kern_proc("proc_makepid")
@pytest.mark.parametrize("counter", ["kern.pid_domain_skips", "kern.pid_inner_skips"])
def test_root_may_reset_the_skip_counters_and_nobody_else(init: RemoteProcess, counter: str) -> None:
    """Anybody may read them (kern_proc.c: SYSCTL_UINT)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    before = init.sysctl.get_int(counter)
    with fails(EPERM):
        user.sysctl.set_int(counter, 7)
    assert user.sysctl.get_int(counter) == before
    init.sysctl.set_int(counter, 7)
    assert init.sysctl.get_int(counter) == 7
    init.sysctl.set_int(counter, before)


@kern_proc("proc_makepid")
def test_among_many_numbers_in_use_none_is_handed_out(init: RemoteProcess) -> None:
    """No new pid is that of a process, zombie, group or session (kern_proc.c: proc_makepid)."""
    with random_pids(init, 100):
        parked(init, 50)
        parked(init, 30, sessions=True)
        zombies(init, 30)
        orphaned = []
        for _ in range(10):
            leader, member = init.fork(), init.fork()
            leader.setpgid(0, 0)
            member.setpgid(0, leader.pid)
            orphaned.append(leader.pid)
            bury(init, leader)
        in_use = taken(init)
        assert in_use.issuperset(orphaned)
        assert in_use.isdisjoint(born(init, 600))


@kern_proc("pfind", "pgfind", "zpfind", "proc_makepid", "phold", "prele")
def test_processes_of_every_hash_chain_are_found(init: RemoteProcess, allocator: PidAllocator) -> None:
    """Whatever the pid, insertion and lookup agree on the chain (kern_proc.c: ALLPROC_HASH)."""
    allow_many(init)
    living = allocator.one_in_each_chain(init, sessions=True)
    eventually(lambda: all_lead_sessions(init, living), "all of them to have called setsid()")
    calls = [(pid, init.start.getsid(pid), init.start.killpg(pid, 0)) for pid in living]
    for pid, sid, sent in calls:
        assert sid.result() == pid
        sent.result()
    for pid in living:
        init.kill(pid, SIGKILL)
    eventually(lambda: all_zombies(init, living), "all of them to be zombies")
    for found in [init.start.kill(pid, 0) for pid in living]:
        found.result()


@kern_proc("pfindn", "enterpgrp", "pgrel")
def test_children_of_every_hash_chain_are_given_groups_of_their_own(
    init: RemoteProcess, allocator: PidAllocator
) -> None:
    """The founder of a group is looked up once more by its pid (kern_proc.c: enterpgrp, pfindn)."""
    allow_many(init)
    children = allocator.one_in_each_chain(init)
    for moved in [init.start.setpgid(pid, pid) for pid in children]:
        moved.result()
    assert [init.sysctl.kern_proc_all()[pid].pgid for pid in (children[0], children[-1])] == [children[0], children[-1]]


def all_zombies(observer: Process, pids: list[int]) -> bool:
    """Tell whether all PIDS are zombies."""
    table = observer.sysctl.kern_proc_all()
    return all(table[pid].is_zombie for pid in pids)


# ---- The delay ----------------------------------------------------------------------------------------------------


def try_age(allocator: PidAllocator, age: int) -> tuple[bool, int, int]:
    """Ask for a pid given back AGE seconds ago; return whether it was given, and what both skip counters grew by."""
    allocator.rest_range(allocator.spare, 1000)
    pid = allocator.spare
    for now in allocator.within_one_second():
        pid += 10
        allocator.set_stamp(pid, now - age)
        domain, inner = allocator.skips()
        given = allocator.ask_for(pid)
        domain_after, inner_after = allocator.skips()
    assert given in (pid, pid + 1)
    return given == pid, domain_after - domain, inner_after - inner


@kern_proc("proc_makepid")
@pytest.mark.parametrize("age", [0, 1, 2, 5, 9, 10])
def test_a_pid_given_back_in_the_last_ten_seconds_is_refused(allocator: PidAllocator, age: int) -> None:
    """The next candidate is taken, and kern.pid_domain_skips counts the refused (kern_proc.c: PIDDOM_DELAY)."""
    assert try_age(allocator, age) == (False, 1, 0)


@kern_proc("proc_makepid")
@pytest.mark.parametrize("uid", [0, SOMEBODY])
def test_the_delay_is_the_same_for_every_user(init: RemoteProcess, allocator: PidAllocator, uid: int) -> None:
    """Whoever gave the number back and whoever asks (kern_proc.c: proc_makepid)."""
    user, pid = init.fork(), allocator.spare
    user.setuid(uid)
    allocator.rest_range(pid, 10)
    allocator.set_stamp(pid, allocator.time() - 5)
    assert allocator.ask_for(pid, user) == pid + 1


@kern_proc("proc_makepid")
@pytest.mark.parametrize("age", [11, 12, 20, 60, 127])
def test_a_pid_given_back_eleven_seconds_ago_is_handed_out(allocator: PidAllocator, age: int) -> None:
    """Ages are in whole seconds of time_second (kern_proc.c: proc_makepid)."""
    assert try_age(allocator, age) == (True, 0, 0)


@kern_proc("proc_makepid")
@pytest.mark.parametrize("age", [128, 129, 200, 245, 246, 255])
def test_an_age_of_half_a_turn_or_more_counts_as_in_the_future_and_is_no_reason_to_wait(
    allocator: PidAllocator, age: int
) -> None:
    """Stamps have 8 bits and are compared as signed numbers (kern_proc.c: proc_makepid, delta8)."""
    assert try_age(allocator, age) == (True, 0, 0)


@kern_proc("proc_makepid")
@pytest.mark.parametrize("age", [256, 261, 266])
def test_a_pid_given_back_a_whole_turn_ago_is_refused_as_if_it_were_just_now(allocator: PidAllocator, age: int) -> None:
    """256 seconds later the stamp is the same again (kern_proc.c: proc_makepid, uint8_t)."""
    assert try_age(allocator, age) == (False, 1, 0)


@kern_proc("proc_makepid")
@pytest.mark.parametrize("place", [0, 3, 125, 128, 131, 255])
def test_an_age_is_told_at_every_place_of_the_turn(allocator: PidAllocator, place: int) -> None:
    """Also where the second's low 8 bits have turned or changed sign since (kern_proc.c: proc_makepid, delta8)."""
    with allocator.clock_stepped((place - allocator.time()) % 256):
        assert [try_age(allocator, age) for age in (5, 10)] == [(False, 1, 0)] * 2
        assert [try_age(allocator, age) for age in (11, 127, 128, 251)] == [(True, 0, 0)] * 4


def given_back_at(allocator: PidAllocator, pid: int, since: int) -> bool:
    """Tell whether PID's stamp is a second between SINCE and now."""
    return allocator.stamp(pid) in {second & 0xFF for second in range(since, allocator.time() + 1)}


@kern_proc("proc_remove_zombie")
def test_reaping_gives_the_pid_back_now_and_no_other(init: RemoteProcess, allocator: PidAllocator) -> None:
    """The stamp is set when the zombie is removed, neither at exit nor for neighbours (proc_remove_zombie)."""
    child = allocator.child_with(allocator.spare + 300)
    allocator.rest_range(allocator.spare, 1000)
    before = allocator.stamps(allocator.spare, 1000)
    child.exit()
    assert allocator.stamps(allocator.spare, 1000) == before
    since = allocator.time()
    init.wait4(child.pid)
    assert given_back_at(allocator, child.pid, since)
    after = allocator.stamps(allocator.spare, 1000)
    assert [place for place in range(1000) if before[place] != after[place]] == [300]


def _is_killed(init: RemoteProcess, allocator: PidAllocator, pid: int) -> None:
    child = allocator.child_with(pid)
    init.kill(pid, SIGKILL)
    assert init.wait4(pid).signal == SIGKILL
    assert not exists(init, child.pid)


def _is_killed_while_it_is_stopped(init: RemoteProcess, allocator: PidAllocator, pid: int) -> None:
    child = allocator.child_with(pid)
    stop(init, child)
    init.kill(pid, SIGKILL)
    assert init.wait4(pid).signal == SIGKILL


def _is_a_users(init: RemoteProcess, allocator: PidAllocator, pid: int) -> None:
    child = allocator.child_with(pid)
    child.setuid(SOMEBODY)
    bury(init, child)


def _has_a_user_for_a_parent(init: RemoteProcess, allocator: PidAllocator, pid: int) -> None:
    parent = init.fork()
    parent.setuid(SOMEBODY)
    bury(parent, allocator.child_with(pid, parent))


def _was_vforked(init: RemoteProcess, allocator: PidAllocator, pid: int) -> None:
    allocator.rest(pid)
    allocator.next_pid = pid
    child = init.vfork()
    assert child.pid == pid
    bury(init, child)


def _has_run_another_program(init: RemoteProcess, allocator: PidAllocator, pid: int) -> None:
    child = allocator.child_with(pid)
    child.reexec()
    bury(init, child)


def _leads_a_session(init: RemoteProcess, allocator: PidAllocator, pid: int) -> None:
    child = allocator.child_with(pid)
    child.setsid()
    child.fork()  # keeps group and session
    bury(init, child)


def _is_left_to_process_1(init: RemoteProcess, allocator: PidAllocator, pid: int) -> None:
    parent = init.fork()
    child = allocator.child_with(pid, parent)
    bury(init, parent)
    child.exit()
    eventually(lambda: not exists(init, pid), "process 1 to reap an orphan")


def _is_left_to_process_1_as_a_zombie(init: RemoteProcess, allocator: PidAllocator, pid: int) -> None:
    parent = init.fork()
    allocator.child_with(pid, parent).exit()
    bury(init, parent)
    eventually(lambda: not exists(init, pid), "process 1 to reap an inherited zombie")


def _is_left_to_a_reaper(init: RemoteProcess, allocator: PidAllocator, pid: int) -> None:
    init.procctl_reaper_acquire()
    parent = init.fork()
    child = allocator.child_with(pid, parent)
    bury(init, parent)
    bury(init, child)


def _is_nobodys_concern(init: RemoteProcess, allocator: PidAllocator, pid: int) -> None:
    init.sigaction(SIGCHLD, Handler.IGNORE)
    allocator.child_with(pid).exit()
    eventually(lambda: not exists(init, pid), "process 1 to reap what its parent ignores")


@kern_proc("proc_remove_zombie")
@pytest.mark.parametrize(
    "end",
    [
        _is_killed,
        _is_killed_while_it_is_stopped,
        _is_a_users,
        _has_a_user_for_a_parent,
        _was_vforked,
        _has_run_another_program,
        _leads_a_session,
        _is_left_to_process_1,
        _is_left_to_process_1_as_a_zombie,
        _is_left_to_a_reaper,
        _is_nobodys_concern,
    ],
    ids=lambda end: end.__name__.lstrip("_"),
)
def test_whoever_has_died_and_whoever_reaps_it_the_pid_is_given_back(
    init: RemoteProcess, allocator: PidAllocator, end: Callable[[RemoteProcess, PidAllocator, int], None]
) -> None:
    """Every way out of the process table leads through proc_remove_zombie() (kern_exit.c: kern_wait)."""
    since = allocator.time()
    end(init, allocator, allocator.spare)
    assert given_back_at(allocator, allocator.spare, since)


@kern_proc("pgrel", "leavepgrp")
def test_the_last_reference_to_a_group_gives_its_number_back(init: RemoteProcess, allocator: PidAllocator) -> None:
    """It is refused for ten seconds from then on, not only from its leader's end (kern_proc.c: pgrel)."""
    leader, member, other = allocator.child_with(allocator.spare), init.fork(), init.fork()
    leader.setpgid(0, 0)
    for process in (member, other):
        process.setpgid(0, leader.pid)
    bury(init, leader)
    allocator.rest_range(allocator.spare, 1000)
    rested = allocator.stamp(leader.pid)
    other.setpgid(0, init.pid)
    assert allocator.stamp(leader.pid) == rested
    since = allocator.time()
    bury(init, member)
    assert given_back_at(allocator, leader.pid, since)
    domain, inner = allocator.skips()
    assert allocator.ask_for(leader.pid) == leader.pid + 1
    assert allocator.skips() == (domain + 1, inner)


@kern_proc("pgrel", "enterpgrp")
def test_a_group_left_by_its_last_member_gives_its_number_back(init: RemoteProcess, allocator: PidAllocator) -> None:
    """Leaving by setpgid() ends a group as well (kern_proc.c: enterpgrp, pgrel)."""
    leader, member = allocator.child_with(allocator.spare), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    bury(init, leader)
    allocator.rest_range(allocator.spare, 1000)
    since = allocator.time()
    member.setpgid(0, init.pid)
    assert given_back_at(allocator, leader.pid, since)
    assert allocator.ask_for(leader.pid) == leader.pid + 1


@kern_proc("sess_rele", "sess_hold", "pgrel", "enterpgrp")
@pytest.mark.parametrize(
    "past", ["plain", pytest.param("had_a_terminal", marks=needs_kernel), "made_a_group_when_its_leader_was_gone"]
)
def test_the_last_reference_to_a_session_gives_its_number_back(
    init: RemoteProcess, allocator: PidAllocator, past: str
) -> None:
    """It is refused for ten seconds from then on (kern_proc.c: sess_rele)."""
    init.procctl_reaper_acquire()
    leader = allocator.child_with(allocator.spare)
    leader.setsid()
    if past == "had_a_terminal":
        _, slave, _ = leader.openpty()
        leader.set_controlling_tty(slave)
    member = leader.fork()
    member.sigaction(SIGHUP, Handler.IGNORE)
    if past == "made_a_group_when_its_leader_was_gone":
        bury(init, leader)
        member.setpgid(0, 0)
    else:
        member.setpgid(0, 0)
        bury(init, leader)
    allocator.rest_range(allocator.spare, 1000)
    rested = allocator.stamp(leader.pid)
    other = member.fork()
    other.setpgid(0, 0)
    bury(member, other)
    assert allocator.stamp(leader.pid) == rested
    since = allocator.time()
    bury(init, member)
    assert given_back_at(allocator, leader.pid, since)
    domain, inner = allocator.skips()
    assert allocator.ask_for(leader.pid) == leader.pid + 1
    assert allocator.skips() == (domain + 1, inner)


@kern_proc("proc_remove_zombie", "pgrel", "sess_rele", "proc_makepid")
@pytest.mark.parametrize("pid", [DOMAINS // 2 + 1000, DOMAINS - 1000, DOMAINS + 20])
def test_the_highest_numbers_are_given_back_like_any_other(
    init: RemoteProcess, allocator: PidAllocator, pid: int
) -> None:
    """By process, group and session; the last few share the records of the first (kern_proc.c: PIDSEL_DOMAINS)."""
    init.procctl_reaper_acquire()
    leader = allocator.child_with(pid)
    leader.setsid()
    member = leader.fork()

    def expect_given_back(ending: Callable[[], None]) -> None:
        allocator.rest(pid)
        since = allocator.time()
        ending()
        assert given_back_at(allocator, pid, since)
        assert allocator.ask_for(pid) != pid

    expect_given_back(lambda: bury(init, leader))
    expect_given_back(lambda: member.setpgid(0, 0))
    expect_given_back(lambda: bury(init, member))


@kern_proc("sess_rele", "enterpgrp")
def test_a_session_left_by_its_last_member_gives_its_number_back(init: RemoteProcess, allocator: PidAllocator) -> None:
    """Leaving by setsid() ends a session as well (kern_proc.c: enterpgrp, pgrel, sess_rele)."""
    init.procctl_reaper_acquire()
    leader = allocator.child_with(allocator.spare)
    leader.setsid()
    member, other = leader.fork(), leader.fork()
    other.setpgid(0, 0)
    member.setpgid(0, other.pid)  # else it could not call setsid() in a group named after it, nor leave the leader's
    bury(leader, other)
    bury(init, leader)
    allocator.rest_range(allocator.spare, 1000)
    since = allocator.time()
    member.setsid()
    assert given_back_at(allocator, leader.pid, since)
    assert allocator.ask_for(leader.pid) == leader.pid + 1


@needs_kernel
@kern_proc("pgrel", "proc_makepid")
def test_a_terminals_foreground_group_keeps_its_number_without_members(
    init: RemoteProcess, allocator: PidAllocator
) -> None:
    """The terminal refers to it until another group takes its place (tty.c: TIOCSPGRP)."""
    _, slave, _ = init.openpty()
    init.set_controlling_tty(slave)
    init.sigaction(SIGTTOU, Handler.IGNORE)
    job = allocator.child_with(allocator.spare)
    job.setpgid(0, 0)
    init.tcsetpgrp(slave, job.pid)
    bury(init, job)
    allocator.rest_range(allocator.spare, 1000)
    assert allocator.ask_for(job.pid) != job.pid
    allocator.rest_range(allocator.spare, 1000)
    since = allocator.time()
    init.tcsetpgrp(slave, init.pid)
    assert given_back_at(allocator, job.pid, since)


@needs_kernel
@kern_proc("pgrel", "pgfind", "proc_makepid")
def test_a_descriptor_that_signals_a_group_keeps_its_number_without_members(
    init: RemoteProcess, allocator: PidAllocator
) -> None:
    """F_SETOWN refers to the group until the descriptor is closed (kern_descrip.c: fsetown)."""
    reading, _ = init.pipe()
    leader = allocator.child_with(allocator.spare)
    leader.setpgid(0, 0)
    init.fcntl(reading, F_SETOWN, -leader.pid)
    bury(init, leader)
    allocator.rest_range(allocator.spare, 1000)
    assert allocator.ask_for(leader.pid) != leader.pid
    allocator.rest_range(allocator.spare, 1000)
    since = allocator.time()
    init.close(reading)
    assert given_back_at(allocator, leader.pid, since)


@kern_proc("proc_makepid", "proc_remove_zombie")
@pytest.mark.parametrize(
    ("step", "given"),
    [(5, False), (7, False), (12, True), (100, True), (257, False), (270, True), (-10, True), (-60, True)],
)
def test_the_delay_is_a_difference_of_wall_clock_seconds(
    init: RemoteProcess, allocator: PidAllocator, step: int, given: bool
) -> None:
    """Setting the clock ahead shortens it, setting it back ends it (kern_proc.c: time_second)."""
    pid = allocator.spare
    allocator.rest_range(pid, 100)
    child = allocator.child_with(pid)
    bury(init, child)
    with allocator.clock_stepped(step):
        allocator.rest(pid + 1)
        assert allocator.ask_for(pid) == (pid if given else pid + 1)


@kern_proc("proc_makepid", "proc_remove_zombie")
@pytest.mark.slow_clock(13)
def test_a_pid_comes_back_not_before_ten_seconds_but_once_eleven_are_over(init: RemoteProcess) -> None:
    """By the clock on the wall, on a sparse table (kern_proc.c: PIDDOM_DELAY)."""
    with random_pids(init, 1000):
        # Late in one second many pids are given back: ten seconds later, to the second's beginning, less than ten have
        # passed; eleven seconds later each is free.
        second = sleep_until(init, 0.55)
        given_back = {pid: at for pid, _, at in survey(init, 500)}
        domain = init.sysctl.get_int("kern.pid_domain_skips")
        wait_for(init, second + DELAY)
        early = survey(init, 80)
        assert init.sysctl.get_int("kern.pid_domain_skips") > domain, "no pid was asked for within the delay"
        # Who meets a number in use goes on in its hash chain, and there without regard to the delay: a daemon that
        # was started in the meantime must not count against the kernel.
        chains = {one.pid % HASH_SIZE for one in init.sysctl.kern_proc_all() if one.pid > 0}
        hasty = [pid for pid, forked, _ in early if pid in given_back and forked - given_back[pid] < DELAY]
        assert [pid for pid in hasty if pid % HASH_SIZE not in chains] == []
        wait_for(init, int(max(given_back.values())) + DELAY + 1)
        assert {pid for pid, _, _ in survey(init, 200)} & given_back.keys()


def survey(process: RemoteProcess, count: int) -> list[tuple[int, float, float]]:
    """Make and reap COUNT children; return pid, time of birth and time of reaping of each, by the wall clock."""
    before = process.clock_gettime(Clock.CLOCK_REALTIME)
    storm = process.storm(count, seconds=30.0)
    after = process.clock_gettime(Clock.CLOCK_REALTIME)
    # Where exactly the storm's own clock began is open by so much: births are dated late and reapings early.
    slack = max(after - before - storm.seconds, 0.0)
    return [(one.pid, before + slack + one.forked, before + one.reaped) for one in storm.records]


def sleep_until(process: RemoteProcess, fraction: float) -> int:
    """Sleep until FRACTION of some second has passed; return that second."""
    now = process.clock_gettime(Clock.CLOCK_REALTIME)
    second = int(now) + (now % 1 > fraction)
    process.sleep(second + fraction - now)
    return second


def wait_for(process: RemoteProcess, second: float) -> None:
    """Sleep until shortly after the beginning of SECOND; return at once if it is past."""
    process.sleep(max(0.0, second + 0.03 - process.clock_gettime(Clock.CLOCK_REALTIME)))


@needs_kernel
@kern_proc("proc_makepid")
def test_fork_waits_when_every_pid_was_given_back_lately(init: RemoteProcess, allocator: PidAllocator) -> None:
    """Having been refused all numbers, fork() sleeps a tick between further tries (kern_proc.c: proc_makepid)."""
    observer = init.fork()
    watching = allocator.watched_by(observer)
    allocator.next_pid = allocator.spare  # not one below 100, which nobody has to wait for
    with ExitStack() as undone_later:
        undone_later.enter_context(watching.all_given_back_just_now())
        pending = init.start.storm(1, seconds=30.0)
        eventually(lambda: observer.sysctl.kern_proc_pid(init.pid)[0].lwp.wmesg == "makepid", "fork() to wait")
        assert not pending.done
        undone_later.enter_context(watching.clock_stepped(DELAY + 2))
        assert pending.result().count == 1


@needs_kernel
@kern_proc("proc_makepid")
def test_fork_does_not_sleep_on_its_way_over_some_hundred_refused_pids(
    init: RemoteProcess, allocator: PidAllocator
) -> None:
    """Only once all numbers were refused there is nothing to do but wait (kern_proc.c: proc_makepid)."""
    refused = 400
    forker = init.fork()
    allocator.rest_range(allocator.spare, 1000)
    allocator.set_stamps(allocator.spare, refused, allocator.time() - 2)
    allocator.next_pid = allocator.spare
    (pid,) = forker.storm(1).pids
    forker.exit()
    sleeps = init.wait4(forker.pid).rusage.nvcsw
    assert allocator.spare + refused <= pid < allocator.spare + 1000
    assert sleeps < refused / 4  # it sleeps for each call asked of it, too

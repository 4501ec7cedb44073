# SPDX-License-Identifier: BSD-2-Clause
"""Pids in use: no new process gets a number that is a pid, a pgid or a sid (kern_proc.c: proc_makepid())."""

from __future__ import annotations

from errno import EPERM
from signal import SIGKILL

import pytest

from harness.processes import Process, RemoteProcess, fails
from harness.processes.allocator import CHAINS, PID_MAX, PidAllocator, random_pids
from support.children import all_lead_sessions, allow_many, born, parked, zombies
from support.processes import HASH_SIZE, SOMEBODY, bury, eventually, numbers_taken, stop

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


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


@kern_proc("proc_makepid")
@pytest.mark.passes("pgrel")
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


@kern_proc("proc_makepid")
@pytest.mark.passes("sess_rele", "sess_hold")
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


@kern_proc("proc_makepid")
@pytest.mark.passes("pfind", "pgfind")
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
@pytest.mark.parametrize("bearer", ["process", "group", "session"])
def test_a_chain_whose_last_two_numbers_are_in_use_is_left(
    init: RemoteProcess, allocator: PidAllocator, bearer: str
) -> None:
    """The first of them is skipped, and behind the last one there is none (kern_proc.c: proc_makepid)."""
    init.procctl_reaper_acquire()
    last = PID_MAX - 60
    first = allocator.child_with(last - CHAINS)
    _bearer(init, allocator, bearer, last)
    allocator.rest(last, first.pid, first.pid + 1)
    domain, inner = allocator.skips()
    assert allocator.ask_for(first.pid) == first.pid + 1
    assert allocator.skips() == (domain, inner + 1)


@kern_proc("proc_makepid")
@pytest.mark.parametrize("place", ["below", "at"])
@pytest.mark.parametrize("bearer", ["process", "group", "session"])
def test_the_last_number_of_a_chain_is_used(
    init: RemoteProcess, allocator: PidAllocator, bearer: str, place: str
) -> None:
    """PID_MAX itself is none: the chain that would lead there ends before (kern_proc.c: proc_makepid)."""
    last = PID_MAX - (1 if place == "below" else 0)
    number, _ = _bearer(init, allocator, bearer, last - CHAINS)
    allocator.rest(last, number, number + 1)
    assert allocator.ask_for(number) == (last if place == "below" else number + 1)


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
        in_use = numbers_taken(init)
        assert in_use.issuperset(orphaned)
        assert in_use.isdisjoint(born(init, 600))


@kern_proc("proc_makepid")
@pytest.mark.passes("pfind", "pgfind", "zpfind", "phold", "prele")
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


@kern_proc("pfindn", "enterpgrp")
@pytest.mark.passes("pgrel")
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

# SPDX-License-Identifier: BSD-2-Clause
"""The delay: a pid given back does not come again for ten seconds (kern_proc.c: proc_makepid(), pid_doms[])."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from signal import SIGCHLD, SIGHUP, SIGKILL, SIGTTOU

import pytest

from harness.processes import Clock, Handler, RemoteProcess
from harness.processes.allocator import DELAY, DOMAINS, PidAllocator, random_pids
from support.processes import F_SETOWN, HASH_SIZE, SOMEBODY, bury, eventually, exists, stop

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


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


@kern_proc("pgrel")
@pytest.mark.passes("leavepgrp")
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


@kern_proc("sess_rele")
@pytest.mark.passes("sess_hold", "pgrel", "enterpgrp")
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


@kern_proc("proc_makepid")
@pytest.mark.passes("proc_remove_zombie", "pgrel", "sess_rele")
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


@kern_proc("sess_rele", "enterpgrp", "pgrel")
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
@kern_proc("proc_makepid")
@pytest.mark.passes("pgrel")
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
@kern_proc("proc_makepid")
@pytest.mark.passes("pgrel", "pgfind")
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


@kern_proc("proc_makepid")
@pytest.mark.passes("proc_remove_zombie")
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


@kern_proc("proc_makepid")
@pytest.mark.passes("proc_remove_zombie")
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

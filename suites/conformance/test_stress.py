# SPDX-License-Identifier: BSD-2-Clause
"""Many at once: forks, exits, moves between groups, signals and scans that meet, and what must hold afterwards.

What a race leaves behind shows on several CPUs above all, so these tests ask for two.
"""

from __future__ import annotations

import random
import struct
from functools import partial
from itertools import pairwise
from signal import SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGUSR1

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import GuestError, Handler, Pending, ProcessGone, RemoteProcess, fails_with
from harness.processes.allocator import CHAINS
from support.children import parked
from support.processes import bury, eventually, exists
from support.procfs import stalled
from support.sysctl import ALL, poll, proc_mib, steady

pytestmark = pytest.mark.needs_kernel
two_cpus = pytest.mark.cpus(2)
kern_proc = pytest.mark.kern_proc

#: Somebody else may have begun a session meanwhile: the system may still be starting its last services.
SLACK = 4
KINDS = ("M_PROC", "M_PGRP", "M_SESSION", "M_LWP", "M_SUBPROC")


def expect_order(init: RemoteProcess, kernel: Whitebox) -> None:
    """Look for traces of an accident: duplicates, contradictions between views, broken chains, eternal waiting."""
    table = init.sysctl.kern_proc_all()
    assert len(set(table.pids)) == len(table.pids)
    for row in table:
        if row.pid > 0 and not row.is_zombie:  # to getpgid(), 0 is the caller
            eventually(partial(views_agree, init, row.pid), f"the views of process {row.pid} to agree")
    eventually(partial(chains_are_whole, init, kernel), "each hash chain to begin with one of its processes")
    eventually(lambda: stalled(init) == [], "whoever waits for a hold to go on")


def views_agree(init: RemoteProcess, pid: int) -> bool:
    """Tell whether system calls and process table name the same group and session; a daemon may just be changing it."""
    try:
        ids = init.getpgid(pid), init.getsid(pid)
    except GuestError:  # it has gone meanwhile
        return True
    return all((row.pgid, row.sid) == ids for row in init.sysctl.kern_proc_pid(pid))


def chains_are_whole(init: RemoteProcess, kernel: Whitebox) -> bool:
    """Tell whether each hash chain begins with a process of that chain; one may just have come and gone there."""
    chains, heads = steady(lambda: chains_of(init), lambda _: heads_of_chains(kernel))
    return all(head in chains.get(chain, {0}) for chain, head in enumerate(heads))


def chains_of(init: RemoteProcess) -> dict[int, set[int]]:
    """Return the addresses of all processes by the hash chain they belong to."""
    chains: dict[int, set[int]] = {}
    for row in init.sysctl.kern_proc_all():
        if not row.is_kernel_thread:
            chains.setdefault(row.pid % CHAINS, set()).add(row.paddr)
    return chains


def heads_of_chains(kernel: Whitebox) -> list[int]:
    """Return the address of the first process in each hash chain, 0 for an empty one (sys/proc.h: struct procglob)."""
    table = kernel.read(kernel.address("procglob"), kernel.size("procglob"))
    stride, behind_token = len(table) // CHAINS, 32
    return [struct.unpack_from("<Q", table, chain * stride + behind_token)[0] for chain in range(CHAINS)]


def settle(calls: list[Pending[None]]) -> int:
    """Wait for all CALLS, whatever their outcome; return how many succeeded."""
    succeeded = 0
    for call in calls:
        try:
            call.result(60.0)
        except (GuestError, ProcessGone):
            continue
        succeeded += 1
    return succeeded


@two_cpus
@pytest.mark.passes("proc_makepid", "proc_add_allproc", "proc_remove_zombie")
@pytest.mark.parametrize("kinds", [("fork", "fork", "fork"), ("vfork", "vfork", "fork")])
def test_parallel_storms_share_the_pids_without_a_clash(
    init: RemoteProcess, kernel: Whitebox, kinds: list[str]
) -> None:
    """3 x 700 children, no pid twice: each is refused for ten seconds after its first use (kern_proc.c)."""
    stormers = [init.fork() for _ in kinds]
    storms = [one.start.storm(700, kind, seconds=8.0) for one, kind in zip(stormers, kinds, strict=True)]
    results = [storm.result(60.0) for storm in storms]
    assert [result.error for result in results] == [None] * len(kinds)
    pids = [pid for result in results for pid in result.pids]
    assert len(set(pids)) == len(pids) > 100
    for result in results:
        assert all(before.reaped <= after.forked + 0.001 for before, after in pairwise(result.records))
    expect_order(init, kernel)


@two_cpus
@kern_proc("enterpgrp", "pgrel")
@pytest.mark.passes("leavepgrp", "fixjobc", "pgfind", "sysctl_kern_proc")
def test_moves_between_groups_signals_and_scans_meet(init: RemoteProcess, kernel: Whitebox) -> None:
    """6 processes, 1,500 moves and 600 group signals against two scans and a storm (kern_proc.c: enterpgrp, pgrel).

    What counts are the moves that the storm accompanies: it lasts as long as they do.
    """
    leaders, movers = [init.fork() for _ in range(2)], [init.fork() for _ in range(4)]
    before = {kind: kernel.allocations(kind) for kind in KINDS}
    for process in (*leaders, *movers):
        process.sigaction(SIGUSR1, Handler.LOG)
    # A walk over a group's members follows one that moves into its new group (a known defect, test_known_defects.py).
    init.sigaction(SIGUSR1, Handler.IGNORE)
    for leader in leaders:
        leader.setpgid(0, 0)
    homes = [init.pid, *(leader.pid for leader in leaders), 0]
    reader, stormer, sender = init.fork(), init.fork(), init.fork()
    poll(reader, proc_mib(ALL), 60.0)
    storms = [stormer.start.storm(100, record=False, seconds=60.0) for _ in range(50)]
    moves, signals = [], []
    for turn in range(1500):
        mover = movers[turn % 4]
        mover_or_parent = mover if turn % 3 else init
        moves.append(mover_or_parent.start.setpgid(mover.pid, homes[turn * 7 // 4 % 4]))
        if turn % 5 < 2:
            signals.append(sender.start.killpg(homes[turn % 3 or 1], SIGUSR1))
    assert settle(moves) > 1400
    assert settle(signals) > 500
    assert all(storm.result().error is None for storm in storms if storm.done)
    for process in (reader, stormer):
        init.kill(process.pid, SIGKILL)
    for mover in movers:
        mover.setpgid(0, init.pid)
    assert {init.getpgid(mover.pid) for mover in movers} == {init.pid}
    expect_order(init, kernel)
    for process in (reader, stormer):
        init.wait4(process.pid)
    bury(init, sender, *leaders, *movers)
    eventually(
        lambda: all(kernel.allocations(kind) <= count + SLACK for kind, count in before.items()),
        "the memory to be given back",
    )


@two_cpus
@pytest.mark.passes("fixjobc", "orphanpg", "proc_move_allproc_zombie", "proc_remove_zombie", "leavepgrp")
def test_whole_families_end_at_the_same_time(init: RemoteProcess, kernel: Whitebox) -> None:
    """40 families of three generations, in two groups, some stopped: all are reaped (kern_exit.c: exit1)."""
    chance = random.Random(1)  # noqa: S311  (reproducible on purpose)
    init.sigaction(SIGHUP, Handler.IGNORE)  # its group will be orphaned with a stopped member now and then
    for _ in range(40):
        end_a_family(init, chance)
    expect_order(init, kernel)


def end_a_family(init: RemoteProcess, chance: random.Random) -> None:
    """Make a child with two children that have a child each; let all of them end at once, in any order."""
    parent = init.fork()
    child, other = parent.fork(), parent.fork()
    grandchildren = [child.fork(), other.fork()]
    family = [child, other, *grandchildren]
    child.setpgid(0, 0)
    grandchildren[1].setpgid(0, 0)
    if chance.random() < 0.5:
        init.start.kill(grandchildren[0].pid, SIGSTOP)
    leaving = [parent, *family]
    chance.shuffle(leaving)
    for process in leaving:
        process.start.exit(7)
    for process in family:
        init.start.kill(process.pid, SIGKILL)
    assert init.start.wait4(parent.pid).result(30.0).exit_status == 7
    eventually(lambda: not any(exists(init, process.pid) for process in family), "the orphans to be reaped")


@two_cpus
@kern_proc("enterpgrp")
@pytest.mark.passes("sess_rele", "pgrel", "inferior")
def test_children_leave_their_session_while_their_parent_moves_and_kills_them(
    init: RemoteProcess, kernel: Whitebox
) -> None:
    """60 children that call setsid(), are moved, stopped, continued and killed at once (kern_proc.c: enterpgrp)."""
    level = max(kernel.allocations("M_SESSION"), kernel.allocations("M_PGRP")) + SLACK
    for turn in range(20):
        children = [init.fork() for _ in range(3)]
        for child in children:
            child.start.setsid()
            init.start.setpgid(child.pid, 0 if turn % 2 else children[0].pid)
            init.start.kill(child.pid, SIGSTOP)
            child.start.setpgid(0, 0)
            init.start.kill(child.pid, SIGCONT)
            init.start.kill(child.pid, SIGKILL)
        for child in children:
            assert init.start.wait4(child.pid).result(30.0).signal == SIGKILL
    expect_order(init, kernel)
    eventually(
        lambda: max(kernel.allocations("M_SESSION"), kernel.allocations("M_PGRP")) <= level,
        "the memory to be given back",
    )


@pytest.mark.usefixtures("several_reapers")
@pytest.mark.cpus(2, since=500900)  # older ones panic
@pytest.mark.passes("pholdzomb", "prelezomb", "pstall", "proc_remove_zombie", "zpfind")
def test_many_reapers_and_readers_meet_at_the_same_zombies(init: RemoteProcess, kernel: Whitebox) -> None:
    """4 threads reap 300 children while others signal them and read the table (kern_exit.c: kern_wait)."""
    reaping = init.fork()
    threads = [reaping.thread() for _ in range(4)]
    reader = init.fork()
    poll(reader, proc_mib(ALL), 60.0)
    for _ in range(3):
        # What counts is how often they meet while they reap: births would only take the longer for being watched.
        init.kill(reader.pid, SIGSTOP)
        children = parked(reaping, 100)
        init.kill(reader.pid, SIGCONT)
        reapers = [
            thread.start.repeat_until(fails_with("ECHILD"), "wait4", -1, 0, 0, 0, seconds=60.0) for thread in threads
        ]
        kills = [init.start.kill(pid, SIGKILL) for pid in children for _ in range(2)]
        settle(kills)
        assert all(reaper.result(60.0).met for reaper in reapers)
        assert not set(children) & set(init.sysctl.kern_proc_all().pids)
    init.kill(reader.pid, SIGKILL)
    expect_order(init, kernel)
    bury(init, reaping)

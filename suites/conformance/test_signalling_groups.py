# SPDX-License-Identifier: BSD-2-Clause
"""Whom killpg(), setpriority() and kill(-1) reach (kern_sig.c: dokillpg(); kern_proc.c: pgfind(), allproc_scan())."""

from __future__ import annotations

from errno import EINVAL, EPERM, ESRCH
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGUSR1, SIGUSR2

import pytest

from harness.processes import Handler, Process, RemoteProcess, fails
from harness.processes.allocator import CHAINS, PidAllocator, random_pids
from support.processes import (
    NO_SUCH_ID,
    SOMEBODY,
    SOMEBODY_ELSE,
    await_idle,
    await_stopped,
    bury,
    chain_mates,
    exists,
    group_exists,
    has_stopped,
    hearing,
    logged,
    row,
    stop,
)

# ---- Signalling a group -------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("pgfind")
@pytest.mark.passes("enterpgrp")
def test_killpg_reaches_every_member_and_nobody_else(init: Process) -> None:
    """kill(-pgid) (kern_sig.c: dokillpg walks pg_members)."""
    leader, *members = (hearing(init.fork()) for _ in range(4))
    leader.setpgid(0, 0)
    for member in members[:2]:
        member.setpgid(0, leader.pid)
    born_inside = hearing(leader.fork())
    outside = [hearing(init), members[2], hearing(members[2].fork())]
    leader_heard_before = logged(leader)
    init.killpg(leader.pid, SIGUSR1)
    assert leader_heard_before == []
    assert [logged(process) for process in (leader, *members[:2], born_inside)] == [[SIGUSR1]] * 4
    assert [logged(process) for process in outside] == [[]] * 3


@pytest.mark.passes("pgref", "pgrel")
def test_killing_zero_reaches_the_callers_own_group(init: Process) -> None:
    """kill(0): the caller included (kern_sig.c: dokillpg)."""
    leader, sibling = hearing(init.fork()), hearing(init.fork())
    leader.setpgid(0, 0)
    member = hearing(leader.fork())
    member.kill(0, SIGUSR1)
    assert [logged(process) for process in (member, leader, sibling)] == [[SIGUSR1], [SIGUSR1], []]


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.passes("leavepgrp")
def test_whoever_has_left_a_group_is_not_reached_by_it(init: Process) -> None:
    """A member that moved on hears its new group only (kern_proc.c: enterpgrp)."""
    first, second, nomad = init.fork(), init.fork(), hearing(init.fork(), SIGUSR1, SIGUSR2)
    first.setpgid(0, 0)
    second.setpgid(0, 0)
    first.sigaction(SIGUSR1, Handler.IGNORE)
    second.sigaction(SIGUSR2, Handler.IGNORE)
    nomad.setpgid(0, first.pid)
    nomad.setpgid(0, second.pid)
    init.killpg(first.pid, SIGUSR1)
    init.killpg(second.pid, SIGUSR2)
    assert logged(nomad) == [SIGUSR2]


@pytest.mark.kern_proc("pgfind")
def test_killpg_crosses_sessions(init: Process) -> None:
    """Only user ids matter for signalling (kern_sig.c: CANSIGNAL)."""
    child = hearing(init.fork())
    child.setsid()
    init.killpg(child.pid, SIGUSR1)
    assert logged(child) == [SIGUSR1]


@pytest.mark.kern_proc("pgfind")
@pytest.mark.parametrize("signal", [0, SIGUSR1, SIGKILL])
def test_killpg_knows_no_group_nobody_is_in(init: Process, signal: int) -> None:
    """ESRCH (kern_sig.c: dokillpg)."""
    child = init.fork()  # a process, but no group's name
    for pgid in (NO_SUCH_ID, child.pid):
        with fails(ESRCH):
            init.killpg(pgid, signal)
    assert child.getpid() == child.pid


@pytest.mark.kern_proc("pgfind")
@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.parametrize("signal", [0, SIGUSR1])
def test_a_group_of_zombies_cannot_be_signalled(init: Process, signal: int) -> None:
    """ESRCH although the group exists, for kill() of one zombie would succeed (kern_sig.c: dokillpg)."""
    zombie = init.fork()
    zombie.setpgid(0, 0)
    zombie.exit()
    init.kill(zombie.pid, signal)
    with fails(ESRCH):
        init.killpg(zombie.pid, signal)


@pytest.mark.passes("proc_move_allproc_zombie")
def test_zombies_do_not_keep_a_signal_from_the_living(init: Process) -> None:
    """Zombies are passed over (kern_sig.c: dokillpg)."""
    before, zombie, after = hearing(init.fork()), init.fork(), hearing(init.fork())
    for member in (before, zombie, after):
        member.setpgid(0, before.pid)
    zombie.exit(3)
    init.killpg(before.pid, SIGUSR1)
    assert (logged(before), logged(after)) == ([SIGUSR1], [SIGUSR1])
    assert init.wait4(zombie.pid).exit_status == 3


@pytest.mark.kern_proc("pgfind")
@pytest.mark.passes("pgrel")
def test_killpg_without_any_permission_finds_nobody(init: Process) -> None:
    """ESRCH and not EPERM, which kill() of a single process gives (kern_sig.c: dokillpg)."""
    group, stranger = hearing(init.fork()), init.fork()
    group.setpgid(0, 0)
    stranger.setuid(SOMEBODY)
    with fails(ESRCH):
        stranger.killpg(group.pid, SIGUSR1)
    with fails(EPERM):
        stranger.kill(group.pid, SIGUSR1)
    assert logged(group) == []


@pytest.mark.kern_proc("pgfind")
def test_killpg_reaches_those_members_the_caller_may_signal(init: Process) -> None:
    """Success if there is one of them (kern_sig.c: dokillpg)."""
    root, mine, other = (hearing(init.fork()) for _ in range(3))
    for member, user in ((root, 0), (mine, SOMEBODY), (other, SOMEBODY_ELSE)):
        member.setpgid(0, root.pid)
        member.setuid(user)
    caller = init.fork()
    caller.setuid(SOMEBODY)
    caller.killpg(root.pid, SIGUSR1)
    assert [logged(member) for member in (root, mine, other)] == [[], [SIGUSR1], []]


@pytest.mark.kern_proc("pgfind")
@pytest.mark.passes("pfind")
@pytest.mark.parametrize(
    ("sender", "target", "allowed"),
    [
        ((1, 1, 1), (1, 1, 1), True),
        ((1, 2, 2), (1, 3, 3), True),  # the real ids are the same
        ((1, 2, 2), (2, 3, 3), True),  # effective, real
        ((1, 2, 2), (3, 1, 1), True),  # real, effective
        ((1, 2, 2), (3, 2, 3), True),  # the effective ids are the same
        ((1, 1, 1), (2, 3, 3), False),
        ((1, 1, 1), (2, 2, 1), False),  # saved ids do not matter, neither the target's ...
        ((1, 1, 2), (2, 2, 2), False),  # ... nor the sender's
        ((1, 0, 0), (2, 2, 2), True),  # root by effective id
        ((0, 1, 0), (2, 2, 2), False),  # root by real id only
        ((1, 1, 1), (0, 0, 0), False),
        ((0, 1, 0), (0, 0, 0), True),
    ],
)
def test_a_shared_user_id_permits_signals(
    init: Process, sender: tuple[int, int, int], target: tuple[int, int, int], allowed: bool
) -> None:
    """Real or effective on either side will do (kern_prot.c: p_trespass).  Ids are real, effective, saved."""
    processes = init.fork(), hearing(init.fork())
    processes[1].setpgid(0, 0)
    for process, ids in zip(processes, (sender, target), strict=True):
        process.setresuid(*(SOMEBODY + number if number else 0 for number in ids))
    if allowed:
        processes[0].kill(processes[1].pid, SIGUSR1)
        processes[0].killpg(processes[1].pid, 0)
    else:
        with fails(EPERM):
            processes[0].kill(processes[1].pid, SIGUSR1)
        with fails(ESRCH):
            processes[0].killpg(processes[1].pid, 0)
    assert logged(processes[1]) == [SIGUSR1] * allowed


@pytest.mark.kern_proc("pgfind")
def test_anybody_may_continue_a_group_of_the_same_session(init: Process) -> None:
    """SIGCONT is for everybody in the session, and for nobody else (kern_sig.c: CANSIGNAL)."""
    group, insider, outsider = hearing(init.fork(), SIGCONT), init.fork(), init.fork()
    group.setpgid(0, 0)
    outsider.setsid()
    insider.setuid(SOMEBODY)
    outsider.setuid(SOMEBODY)
    with fails(ESRCH):
        outsider.killpg(group.pid, SIGCONT)
    assert logged(group) == []
    insider.killpg(group.pid, SIGCONT)
    assert logged(group) == [SIGCONT]


@pytest.mark.kern_proc("pgfind")
@pytest.mark.parametrize("signal", [-1, 129, 1 << 20])
def test_killpg_refuses_a_number_that_is_no_signal(init: Process, signal: int) -> None:
    """EINVAL, whether or not there is such a group (kern_sig.c: kern_kill, _SIG_MAXSIG 128)."""
    for pgid in (init.pid, NO_SUCH_ID):
        with fails(EINVAL):
            init.killpg(pgid, signal)


@pytest.mark.passes("enterpgrp")
def test_a_whole_group_is_stopped_and_continued(init: Process) -> None:
    """What a shell does to a job (kern_sig.c: dokillpg)."""
    leader, member, outside = (init.fork() for _ in range(3))
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    await_idle(init, leader, member)
    init.killpg(leader.pid, SIGSTOP)
    for process in (leader, member):
        await_stopped(init, process)
    assert not has_stopped(init, outside)
    init.killpg(leader.pid, SIGCONT)
    assert (leader.getpgrp(), member.getpgrp()) == (leader.pid, leader.pid)


@pytest.mark.passes("leavepgrp", "proc_remove_zombie")
def test_a_whole_group_is_killed_and_reaped(init: Process) -> None:
    """SIGKILL to a group leaves nothing of it (kern_sig.c: dokillpg; kern_exit.c: kern_wait)."""
    members = [init.fork() for _ in range(8)]
    for member in members:
        member.setpgid(0, members[0].pid)
    init.killpg(members[0].pid, SIGKILL)
    reaped = [init.wait4(-members[0].pid) for _ in members]
    assert {result.pid for result in reaped} == {member.pid for member in members}
    assert {result.signal for result in reaped} == {SIGKILL}
    assert not group_exists(init, members[0].pid)


# ---- Priorities ---------------------------------------------------------------------------------------------------


PRIO_PGRP, PRIO_USER = 1, 2  # sys/resource.h


@pytest.mark.kern_proc("pgfind")
@pytest.mark.passes("pgref", "pgrel")
@pytest.mark.needs_kernel
def test_a_groups_priority_is_its_members(init: RemoteProcess) -> None:
    """setpriority() changes each of them, getpriority() tells the best (kern_resource.c: PRIO_PGRP)."""
    leader, member, outside = (init.fork() for _ in range(3))
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    init.syscall("setpriority", PRIO_PGRP, leader.pid, 7)
    member.syscall("setpriority", PRIO_PGRP, 0, 5)
    leader.syscall("setpriority", 0, 0, 3)
    assert [row(init, process.pid).nice for process in (leader, member, outside)] == [3, 5, 0]
    assert init.syscall("getpriority", PRIO_PGRP, leader.pid).value == 3
    with fails(ESRCH):
        init.syscall("getpriority", PRIO_PGRP, NO_SUCH_ID)
    # And the group is free to end.
    bury(init, leader, member)
    assert not group_exists(init, leader.pid)
    with fails(ESRCH):
        init.syscall("setpriority", PRIO_PGRP, leader.pid, 0)


@pytest.mark.kern_proc("allproc_scan")
@pytest.mark.needs_kernel
def test_a_users_priority_is_that_of_all_his_processes(init: RemoteProcess) -> None:
    """In every group and session, also while it is stopped; zombies do not count (kern_proc.c: allproc_scan)."""
    with random_pids(init, 5000):
        mine = [init.fork() for _ in range(6)]
    other = init.fork()
    for process in mine:
        process.setuid(SOMEBODY)
    mine[0].setsid()
    mine[1].setpgid(0, 0)
    stop(init, mine[2])
    init.syscall("setpriority", PRIO_USER, SOMEBODY, 6)
    assert [row(init, process.pid).nice for process in (*mine, other)] == [6] * len(mine) + [0]
    assert init.syscall("getpriority", PRIO_USER, SOMEBODY).value == 6
    init.kill(mine[2].pid, SIGCONT)
    for process in mine:
        process.exit()
    with fails(ESRCH):
        init.syscall("getpriority", PRIO_USER, SOMEBODY)


# ---- Signalling everybody -----------------------------------------------------------------------------------------


@pytest.mark.kern_proc("allproc_scan")
def test_a_user_who_signals_everybody_reaches_all_his_processes(init: Process) -> None:
    """kill(-1) goes through the whole process table and spares the caller (kern_sig.c: killpg_all_callback)."""
    caller = hearing(init.fork())
    with random_pids(init, 5000):
        mine = [hearing(init.fork()) for _ in range(12)]
    others = [hearing(init.fork()) for _ in range(2)]
    for process in (caller, *mine):
        process.setuid(SOMEBODY)
    others[1].setuid(SOMEBODY_ELSE)
    mine[0].setpgid(0, 0)
    mine[1].setsid()
    caller.kill(-1, SIGUSR1)
    assert [logged(process) for process in mine] == [[SIGUSR1]] * len(mine)
    assert [logged(process) for process in (caller, *others)] == [[]] * 3


@pytest.mark.kern_proc("allproc_scan")
def test_whoever_is_stopped_hears_a_signal_to_everybody(init: Process) -> None:
    """Only zombies are passed over (kern_proc.c: allproc_scan)."""
    caller, stopped = init.fork(), hearing(init.fork(), SIGCONT)
    for process in (caller, stopped):
        process.setuid(SOMEBODY)
    stop(init, stopped)
    caller.kill(-1, SIGCONT)
    assert set(logged(stopped)) == {SIGCONT}


@pytest.mark.kern_proc("allproc_scan")
def test_a_user_whose_other_processes_are_zombies_reaches_nobody(init: Process) -> None:
    """ESRCH: the scan passes over zombies (kern_proc.c: allproc_scan)."""
    caller, zombie = init.fork(), init.fork()
    for process in (caller, zombie):
        process.setuid(SOMEBODY)
    caller.kill(-1, 0)
    zombie.exit()
    with fails(ESRCH):
        caller.kill(-1, 0)
    assert init.wait4(zombie.pid).exit_status == 0


EDGES = pytest.mark.parametrize("chain", [0, CHAINS - 1], ids=["first", "last"])


def _child_in_chain(allocator: PidAllocator, chain: int) -> RemoteProcess:
    return allocator.child_with(allocator.spare // CHAINS * CHAINS + CHAINS + chain)


@pytest.mark.kern_proc("allproc_scan")
@EDGES
def test_a_signal_to_everybody_reaches_the_first_and_the_last_hash_chain(
    init: RemoteProcess, allocator: PidAllocator, chain: int
) -> None:
    """The scan leaves no chain out (kern_proc.c: allproc_scan)."""
    target = hearing(_child_in_chain(allocator, chain))
    caller = init.fork()
    for process in (target, caller):
        process.setuid(SOMEBODY)
    caller.kill(-1, SIGUSR1)
    assert logged(target) == [SIGUSR1]


@pytest.mark.kern_proc("allproc_scan")
@pytest.mark.cpus(2)
def test_a_signal_to_everybody_reaches_all_hash_chains_whichever_cpu_it_is_sent_on(
    init: RemoteProcess, allocator: PidAllocator
) -> None:
    """Only the kernel's own scans leave each CPU a part of the chains (kern_proc.c: allproc_scan, segmented)."""
    targets = [hearing(_child_in_chain(allocator, chain)) for chain in (0, CHAINS // 2 - 1, CHAINS // 2, CHAINS - 1)]
    caller = init.fork()
    for process in (*targets, caller):
        process.setuid(SOMEBODY)
    caller.kill(-1, SIGUSR1)
    assert [logged(target) for target in targets] == [[SIGUSR1]] * len(targets)


@pytest.mark.kern_proc("pgfind")
@pytest.mark.passes("sysctl_kern_proc", "pfind", "enterpgrp", "zpfind", "proc_remove_zombie")
@EDGES
def test_the_first_and_the_last_hash_chain_are_as_good_as_any(
    init: RemoteProcess, allocator: PidAllocator, chain: int
) -> None:
    """A process, group and session there are found, listed and forgotten (kern_proc.c: ALLPROC_HMASK)."""
    child = _child_in_chain(allocator, chain)
    child.setsid()
    init.killpg(child.pid, 0)
    assert init.getsid(child.pid) == child.pid
    assert init.sysctl.kern_proc_pgrp(child.pid).pids == [child.pid]
    assert child.pid in init.sysctl.kern_proc_all()
    child.exit(7)
    init.kill(child.pid, 0)
    assert init.sysctl.kern_proc_pgrp(child.pid)[child.pid].is_zombie
    assert init.wait4(child.pid).exit_status == 7
    assert not exists(init, child.pid)
    assert child.pid not in init.sysctl.kern_proc_all()


@pytest.mark.kern_proc("allproc_scan")
@pytest.mark.parametrize("zombie", ["older", "younger"])
def test_a_zombie_hides_nobody_of_its_hash_chain_from_a_scan(init: Process, zombie: str) -> None:
    """The scan goes on behind a zombie (kern_proc.c: allproc_scan)."""
    older, younger = chain_mates(init, hearing)
    gone, alive = (older, younger) if zombie == "older" else (younger, older)
    caller = init.fork()
    caller.setuid(SOMEBODY)
    alive.setuid(SOMEBODY)
    gone.exit()
    caller.kill(-1, SIGUSR1)
    assert logged(alive) == [SIGUSR1]

# SPDX-License-Identifier: BSD-2-Clause
"""What kern_proc.c and its callers still do wrong: each test states what ought to be, and fails where the defect is.

Left out of ordinary runs; `--defects` runs them.  The first three kill kernels that have the defect.
"""

from __future__ import annotations

import struct
from errno import EPERM, ESRCH
from signal import SIGCHLD, SIGCONT, SIGKILL, SIGUSR1

import pytest

from harness.processes import (
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WUNTRACED,
    Handler,
    IdType,
    Pending,
    RemoteProcess,
    WaitResult,
    fails,
    fails_with,
)
from harness.processes.allocator import CHAINS, DELAY, PidAllocator, random_pids
from harness.processes.shared_pages import shared_page
from support.children import parked
from support.processes import (
    NO_SUCH_ID,
    SOMEBODY,
    SOMEBODY_ELSE,
    await_continued,
    bury,
    eventually,
    hearing,
    logged,
    stop,
)
from support.sysctl import ALL, ARGS, CWD, PATHNAME, poll, proc_mib, setting

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc
defect = pytest.mark.defect


@kern_proc("sysctl_kern_proc_pathname")
@defect(
    since=300701,
    severity="panic by any user",
    reason="kern.proc.pathname uses p_fd of a process that has given it up (a23ed7f524, 2021, minds p_textnch only)",
    reproducer="pathname-of-exiting.c",
)
def test_asking_for_the_program_of_an_exiting_process_is_harmless(init: RemoteProcess) -> None:
    """The path, or ESRCH; as an ordinary user, too (kern_proc.c: sysctl_kern_proc_pathname, vfs_cache.c)."""
    reader = init.fork()
    reader.setuid(SOMEBODY)
    for _ in range(40):
        child = init.fork()
        child.touch_memory(64 << 20)
        name = struct.pack("<4i", *proc_mib(PATHNAME, child.pid))
        length = struct.pack("<Q", 1024)
        room = reader.touch_memory(4096)
        polling = reader.start.repeat_until(fails_with("ESRCH"), "__sysctl", name, 4, room, length, 0, 0, seconds=20.0)
        child.exit()
        assert polling.result(60.0).met
        init.wait4(child.pid)


@pytest.mark.passes("sysctl_kern_proc_pathname")
@defect(
    since=400704,
    until=600101,
    severity="panic by any user",
    reason="kern.proc.pathname of process 0, which runs no program, counts a mount at NULL: panic",
    reproducer="pathname-of-swapper.c",
)
def test_asking_for_the_program_of_the_swapper_is_harmless(init: RemoteProcess) -> None:
    """It runs none, and whoever asks for it, root or not, is told so: EINVAL since May 2021 (kern_proc.c).

    A reference that fails to be counted goes unnoticed while the cache of references has room (vfs_cache.c:
    _cache_mntref, MNTCACHE_COUNT): processes that end together fill it with those of their directories.
    """
    user = init.fork()
    user.setuid(SOMEBODY)
    bury(init, *[init.fork() for _ in range(8)])
    with fails("ENOENT", "EINVAL"):
        user.sysctl.kern_proc_pathname(0)


@kern_proc("pholdzomb")
@pytest.mark.passes("prelezomb")
@pytest.mark.cpus(2)
@defect(
    since=300104,
    until=500900,
    severity="panic by any user",
    reason="a reaper gives up its own hold before the zombie is off the list: panic",
    reproducer="threads-wait-at-once.c",
)
def test_several_threads_may_wait_for_children_at_once(init: RemoteProcess) -> None:
    """Whoever meets a zombie that is being reaped waits; shows on several CPUs (kern_exit.c: kern_wait, pholdzomb)."""
    reaping, reader = init.fork(), init.fork()
    threads = [reaping.thread() for _ in range(4)]
    poll(reader, proc_mib(ALL), 60.0)
    for _ in range(6):
        children = parked(reaping, 100)
        reapers = [
            thread.start.repeat_until(fails_with("ECHILD"), "wait4", -1, 0, 0, 0, seconds=60.0) for thread in threads
        ]
        for pid in children:
            init.start.kill(pid, SIGKILL)
        assert all(reaper.result(90.0).met for reaper in reapers)
    init.kill(reader.pid, SIGKILL)


@kern_proc("proc_makepid")
@defect(
    since=300704,
    severity="wrong answer",
    reason="the inner loop steps to another pid without looking at that one's own delay",
    reproducer="delay-bypass.c",
)
def test_evading_a_number_in_use_does_not_bypass_the_delay(init: RemoteProcess, allocator: PidAllocator) -> None:
    """A pid is a domain of its own now; the next of its hash chain may just have been reaped (proc_makepid)."""
    living = allocator.child_with(allocator.spare)
    allocator.rest_range(allocator.spare, 1000)
    reaped = allocator.child_with(allocator.spare + CHAINS)
    bury(init, reaped)
    assert allocator.ask_for(living.pid) != reaped.pid


@kern_proc("proc_makepid")
@defect(
    since=400704,
    severity="wrong answer",
    reason="the inner loop steps to another pid without looking at that one's own delay",
    reproducer="delay-bypass.c",
)
def test_no_pid_comes_back_within_ten_seconds_on_a_crowded_table(init: RemoteProcess) -> None:
    """The same seen from outside: a hundred processes, random pids and a storm (kern_proc.c: proc_makepid)."""
    with random_pids(init, 100):
        parked(init, 100)
        storm = init.storm(800, seconds=DELAY - 2.0)
    reaped: dict[int, float] = {}
    for one in storm.records:
        assert one.forked - reaped.get(one.pid, -60.0) >= DELAY, f"pid {one.pid} came back"
        reaped[one.pid] = one.reaped


@kern_proc("enterpgrp")
@pytest.mark.cpus(2)
@defect(
    since=200902,
    severity="wrong answer",
    reason="killpg() walks over members that move meanwhile, and on into the groups they moved to",
    reproducer="killpg-moving.c",
)
def test_a_signal_to_a_group_reaches_nobody_else(init: RemoteProcess) -> None:
    """Members may leave while it is sent; shows on several CPUs (kern_sig.c: dokillpg; kern_proc.c: enterpgrp)."""
    leader, sender, shelter = init.fork(), init.fork(), init.fork()
    leader.setpgid(0, 0)
    shelter.setpgid(0, 0)
    bystanders, movers = [[init.fork() for _ in range(4)] for _ in range(2)]
    for process in (*bystanders, *movers):
        hearing(process)
    for bystander in bystanders:
        bystander.setpgid(0, shelter.pid)
    for process in (leader, shelter):
        process.sigaction(SIGUSR1, Handler.IGNORE)
    sent: list[Pending[None]] = []
    moves: list[Pending[None]] = []
    for turn in range(3000):
        moves += [mover.start.setpgid(0, (shelter, leader)[turn % 2].pid) for mover in movers]
        sent.append(sender.start.killpg(leader.pid, SIGUSR1))
    for call in (*sent, *moves):
        call.result(60.0)
    assert [logged(bystander) for bystander in bystanders] == [[]] * len(bystanders)


@pytest.mark.passes("sysctl_kern_proc_pathname")
@defect(
    since=300701,
    severity="breach",
    reason="kern.proc.pathname looks at no prison",
    reproducer="jail-sees-outside.c",
)
def test_a_jailed_process_learns_no_program_outside(init: RemoteProcess) -> None:
    """As for kern.proc.pid: whoever is outside does not exist (kern_proc.c: PRISON_CHECK)."""
    jailed = init.fork()
    jailed.jail("/")
    with fails(ESRCH):
        jailed.sysctl.kern_proc_pathname(init.pid)


@pytest.mark.passes("sysctl_kern_proc_args", "sysctl_kern_proc_cwd")
@defect(
    since=200000,
    severity="breach",
    reason="with kern.ps_argsopen=1, its default, args and cwd look at no prison",
    reproducer="jail-sees-outside.c",
)
@pytest.mark.parametrize("node", [ARGS, CWD])
def test_a_jailed_process_learns_no_arguments_or_directories_outside(init: RemoteProcess, node: int) -> None:
    """Open to all users is not open to all jails (kern_proc.c: ps_argsopen, p_trespass)."""
    jailed = init.fork()
    jailed.jail("/")
    assert jailed.sysctl.read(proc_mib(node, init.pid)) == b""


@kern_proc("sysctl_kern_proc")
@defect(
    since=200000,
    severity="breach",
    reason="kern.proc.pid does not look at security.ps_showallprocs",
    reproducer="hidden-processes.c",
)
def test_a_hidden_process_is_hidden_from_whoever_knows_its_pid(init: RemoteProcess) -> None:
    """With ps_showallprocs=0 the table leaves it out (kern_proc.c: sysctl_kern_proc)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    with setting(init, "security.ps_showallprocs", 0):
        assert init.pid not in user.sysctl.kern_proc_all()
        assert user.sysctl.kern_proc_pid(init.pid) == []


@kern_proc("inferior")
@defect(
    since=200000,
    severity="leak",
    reason="inferior() returns 0 without releasing the process it has climbed to, the swapper",
    reproducer="inferior-hold.c",
)
def test_refusing_to_move_a_stranger_leaves_no_hold_on_the_swapper(init: RemoteProcess) -> None:
    """Each setpgid() of one who is no descendant adds one to the swapper's p_lock, for good (kern_proc.c: inferior)."""
    (before,) = init.sysctl.kern_proc_pid(0)
    one, other = init.fork(), init.fork()
    for _ in range(5):
        with fails(ESRCH):
            one.setpgid(other.pid, 0)
    (after,) = init.sysctl.kern_proc_pid(0)
    assert after.lock == before.lock


@pytest.mark.passes("pholdzomb")
@defect(
    since=200000,
    severity="leak of kernel memory",
    reason="wait4(WNOHANG) without a result copies out what is on the kernel's stack",
    reproducer="wait-kernel-stack.c",
)
def test_waiting_in_vain_returns_nothing_of_the_kernels_memory(init: RemoteProcess) -> None:
    """Status and usage are untouched, or zero (kern_exit.c: sys_wait4)."""
    child = init.fork()
    for _ in range(10):
        init.sysctl.kern_proc_pid(child.pid)
        result = init.wait4(child.pid, WNOHANG)
        assert result.pid == 0
        assert result.raw_status in (0, WaitResult.STATUS_SENTINEL)
        assert set(vars(result.rusage).values()) <= {0}


@pytest.mark.passes("proc_move_allproc_zombie")
@defect(
    since=400101,
    severity="wrong answer",
    reason="the children of a reaper that ignores SIGCHLD are given to the reaper: to itself",
    reproducer="reaper-ignores-sigchld.c",
)
def test_a_reaper_that_ignores_sigchld_has_no_zombies(init: RemoteProcess) -> None:
    """As everybody else who ignores it (kern_exit.c: exit1, proc_reparent)."""
    init.procctl_reaper_acquire()
    init.sigaction(SIGCHLD, Handler.IGNORE)
    child = init.fork()
    child.exit()
    with fails("ECHILD"):
        init.wait4(child.pid, WNOHANG)


@pytest.mark.passes("zpfind")
@defect(
    since=200000,
    severity="breach",
    reason="kill() finds a zombie without asking who its owner is",
    reproducer="zombie-kill-permission.c",
)
def test_another_users_zombie_is_as_protected_as_the_living(init: RemoteProcess) -> None:
    """EPERM before and after its exit (kern_sig.c: kern_kill)."""
    victim, user = init.fork(), init.fork()
    victim.setuid(SOMEBODY_ELSE)
    user.setuid(SOMEBODY)
    with fails(EPERM):
        user.kill(victim.pid, 0)
    victim.exit()
    with fails(EPERM):
        user.kill(victim.pid, 0)


@pytest.mark.passes("pgfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="killpg() does not tell a group one may not signal from one that does not exist",
    reproducer="killpg-eperm.c",
)
def test_a_group_that_may_not_be_signalled_is_not_reported_as_missing(init: RemoteProcess) -> None:
    """EPERM if it exists, ESRCH if not, says POSIX (kern_sig.c: dokillpg)."""
    leader, user = init.fork(), init.fork()
    leader.setpgid(0, 0)
    user.setuid(SOMEBODY)
    with fails(ESRCH):
        user.killpg(NO_SUCH_ID, 0)
    with fails(EPERM):
        user.killpg(leader.pid, 0)


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="wrong answer",
    reason="no SIGCHLD is sent when a stopped child goes on",
    reproducer="sigcont-no-sigchld.c",
)
def test_a_parent_is_told_when_a_stopped_child_goes_on(init: RemoteProcess) -> None:
    """POSIX has SIGCHLD for it, as for the stop (kern_sig.c: proc_unstop)."""
    child = init.fork()
    init.sigaction(SIGCHLD, Handler.LOG)
    stop(init, child)
    init.await_signal(SIGCHLD)
    init.signals()
    init.kill(child.pid, SIGCONT)
    await_continued(init, child)
    assert [record.signal for record in init.signals()] == [SIGCHLD]


@kern_proc("sysctl_kern_proc_args")
@defect(
    since=200000,
    severity="wrong answer",
    reason="a title that is too long is dropped and success reported",
    reproducer="title-too-long.c",
)
def test_a_title_that_is_too_long_is_refused(init: RemoteProcess) -> None:
    """Whoever sets one ought to know that it was not kept (kern_proc.c: sysctl_kern_proc_args)."""
    title = b"t" * 300
    try:
        init.sysctl.set_kern_proc_args(init.pid, title)
    except OSError:
        return
    assert init.sysctl.read(proc_mib(ARGS, init.pid)).rstrip(b"\0") == title


@kern_proc("proc_usermap")
@pytest.mark.passes("sysctl_kern_proc_args")
@defect(
    since=400000,
    until=500709,
    feature="!lpmap",
    severity="wrong answer",
    reason="execve() leaves the title in the shared page (mended by 64b5a8a550)",
    reproducer="title-outlives-exec.c",
)
def test_another_program_does_not_keep_the_title_in_the_page(init: RemoteProcess) -> None:
    """Args shows the new program's, not what the old one called itself (kern_exec.c, kern_proc.c: proc_usermap)."""
    child = init.fork()
    shared_page(child).write("title", b"the old program\0")
    child.execve("/bin/sleep", ["sleep", "1000"])
    eventually(lambda: init.sysctl.kern_proc_pid(child.pid)[0].comm == "sleep", "the program to run")
    assert init.sysctl.kern_proc_args(child.pid) == [b"sleep", b"1000"]


@pytest.mark.passes("pholdzomb")
@defect(
    since=500317,
    severity="wrong answer",
    reason="wait6(P_JAILID) takes any child that is in no jail",
    reproducer="wait6-jailid.c",
    introduced="33b81dc963 of 2018-09-30",
)
@pytest.mark.eras(since=500317, reason="wait6() appeared in 5.3")
def test_waiting_for_a_jail_does_not_match_children_in_none(init: RemoteProcess) -> None:
    """Only those of that jail (kern_exit.c: kern_wait, P_JAILID)."""
    child = init.fork()
    child.exit()
    with fails("ECHILD"):
        init.wait6(IdType.P_JAILID, 77, WEXITED | WNOHANG)


@pytest.mark.passes("pholdzomb")
@defect(
    since=500317,
    severity="wrong answer",
    reason="siginfo of wait6() names no process when a child has stopped or continued",
    reproducer="wait6-report-of-a-stop.c",
    introduced="33b81dc963 of 2018-09-30",
)
@pytest.mark.eras(since=500317, reason="wait6() appeared in 5.3")
def test_the_report_of_a_stop_names_the_child(init: RemoteProcess) -> None:
    """si_pid, as for an exit (kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    stopped = init.wait6(IdType.P_PID, child.pid, WUNTRACED | WEXITED)
    init.kill(child.pid, SIGCONT)
    continued = init.wait6(IdType.P_PID, child.pid, WCONTINUED | WEXITED)
    assert stopped.siginfo is not None
    assert continued.siginfo is not None
    assert (stopped.siginfo.pid, continued.siginfo.pid) == (child.pid, child.pid)

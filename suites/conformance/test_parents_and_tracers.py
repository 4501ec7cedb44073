# SPDX-License-Identifier: BSD-2-Clause
"""Parents, debuggers, reapers and jails: what holds on some kernels and was lost, or is held by all but a few."""

from __future__ import annotations

import struct
from errno import EPERM, ESRCH
from signal import SIGKILL

import pytest

from harness.processes import (
    WEXITED,
    WNOHANG,
    WNOWAIT,
    WUNTRACED,
    IdType,
    RemoteProcess,
    fails,
)
from support.mounts import procfs
from support.processes import SOMEBODY, stop
from support.procfs import end
from support.tracing import attach

defect = pytest.mark.defect

AF_INET, SOCK_RAW, IPPROTO_ICMP = 2, 3, 1
RTP_SET, RTP_PRIO_NORMAL = 1, 1  # sys/rtprio.h
FIRST_CPU = bytes([1]) + bytes(31)  # cpumask_t


# ---- Debuggers ----------------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_move_allproc_zombie", "pholdzomb")
def test_the_tracee_of_a_tracer_that_dies_is_killed_and_its_parents_to_reap(init: RemoteProcess) -> None:
    """Process one, whose the dead tracer's children are, hands the zombie on (kern_exit.c: exit1, kern_wait)."""
    tracer, child = init.fork(), init.fork()
    attach(tracer, child)
    end(tracer, 0)
    assert init.start.wait4(tracer.pid).result(20.0).exit_status == 0
    assert init.start.wait4(child.pid).result(20.0).signal == SIGKILL


# ---- Looking twice ------------------------------------------------------------------------------------------------


@pytest.mark.passes("pholdzomb")
@pytest.mark.feature("wait6")
def test_a_stop_can_be_looked_at_any_number_of_times(init: RemoteProcess) -> None:
    """With WNOWAIT the report stays; the wait that leaves it out takes it (POSIX: waitid(); kern_exit.c: P_WAITED)."""
    child = init.fork()
    stop(init, child)
    first, second = [init.wait6(IdType.P_PID, child.pid, WUNTRACED | WEXITED | WNOWAIT) for _ in range(2)]
    assert first.pid == child.pid
    assert first.raw_status == second.raw_status
    assert init.wait4(child.pid, WUNTRACED).raw_status == first.raw_status
    assert init.wait4(child.pid, WUNTRACED | WNOHANG).pid == 0


# ---- Jails --------------------------------------------------------------------------------------------------------


@pytest.mark.needs_kernel
@pytest.mark.passes("pfind")
@defect(
    since=600503,
    until=600517,
    feature="caps_hole",
    severity="breach",
    reason="calls that name a bare capability were checked for restrictions, not for the user (mended by 35a77c5f59)",
    reproducer="acct-by-anybody.c",
    introduced="2b3f93ea6d of 2023-10-12",
)
@pytest.mark.parametrize("call", [("acct", "/nonexistent"), ("mount", "null", "/", 0, 0)], ids=lambda call: call[0])
def test_an_ordinary_user_turns_no_accounting_on(init: RemoteProcess, call: tuple[str | int, ...]) -> None:
    """Nor mounts anything (acct(2), mount(2); kern_caps.c: caps_priv_check_td)."""
    name, *arguments = call
    user = init.fork()
    user.setuid(SOMEBODY)
    with fails(EPERM):
        user.syscall(str(name), *arguments)


@pytest.mark.needs_kernel
@pytest.mark.passes("pfind")
@defect(
    since=600503,
    feature="syscap",
    severity="breach",
    reason="caps_priv_check() asks the prison about the group of a capability, and never about the capability",
    reproducer="jail-root-outside.c",
    introduced="2b3f93ea6d of 2023-10-12",
)
def test_a_jail_without_raw_sockets_has_none(init: RemoteProcess) -> None:
    """Root in it is refused while its allow_raw_sockets is 0, the default (jail(8); kern_jail.c: prison_priv_check)."""
    jailed = init.fork()
    jailed.jail("/")
    with fails(EPERM):
        jailed.syscall("socket", AF_INET, SOCK_RAW, IPPROTO_ICMP)


@pytest.mark.needs_kernel
@pytest.mark.passes("pfind")
@defect(
    since=600503,
    feature="syscap",
    severity="breach",
    reason="caps_priv_check() asks the prison about the group of a capability, and never about the capability",
    reproducer="jail-root-outside.c",
    introduced="2b3f93ea6d of 2023-10-12",
)
def test_a_jail_that_may_mount_nothing_mounts_nothing(init: RemoteProcess) -> None:
    """Root in it is refused while its vfs_mount_procfs is 0, the default (jail(8); kern_jail.c: prison_priv_check)."""
    jailed = init.fork()
    jailed.jail("/")
    with fails(EPERM), procfs(jailed):
        pass


@pytest.mark.needs_kernel
@pytest.mark.passes("pfind")
@defect(
    since=600503,
    feature="syscap",
    severity="breach",
    reason="rtprio() and lwp_rtprio() look at no prison, and jails may do what SYSCAP_NOSCHED stands for",
    reproducer="jail-root-outside.c",
    introduced="2b3f93ea6d of 2023-10-12",
)
@pytest.mark.parametrize("threads", [False, True])
def test_a_jailed_root_sets_no_priorities_outside(init: RemoteProcess, threads: bool) -> None:
    """Whoever is outside does not exist, or the privilege is missing (kern_resource.c: sys_rtprio, sys_lwp_rtprio)."""
    jailed, outside = init.fork(), init.fork()
    jailed.jail("/")
    normal = struct.pack("<HH", RTP_PRIO_NORMAL, 0)
    with fails(ESRCH, EPERM):
        if threads:
            jailed.syscall("lwp_rtprio", RTP_SET, outside.pid, outside.gettid(), normal)
        else:
            jailed.syscall("rtprio", RTP_SET, outside.pid, normal)


@pytest.mark.needs_kernel
@pytest.mark.passes("pfind")
@pytest.mark.eras(since=400706, reason="lwp_setaffinity() appeared in January 2017, within 400705")
@defect(
    since=600503,
    feature="syscap",
    severity="breach",
    reason="lwp_setaffinity() looks at no prison, and jails may do what SYSCAP_NOSCHED_CPUSET stands for",
    reproducer="jail-cpus-outside.c",
    introduced="622f1127ab of 2023-10-13",
)
def test_a_jailed_root_moves_nobody_outside_to_other_cpus(init: RemoteProcess) -> None:
    """Whoever is outside does not exist, or the privilege is missing (kern_usched.c: sys_lwp_setaffinity)."""
    jailed, outside = init.fork(), init.fork()
    jailed.jail("/")
    with fails(ESRCH, EPERM):
        jailed.syscall("lwp_setaffinity", outside.pid, -1, FIRST_CPU)

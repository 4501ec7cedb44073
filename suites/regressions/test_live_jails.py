# SPDX-License-Identifier: BSD-2-Clause
"""Prisons and restrictions that some calls do not look at: defects of visibility and of privilege.

Each test states what ought to be, with the source of that, and fails on every kernel known so far.
"""

from __future__ import annotations

import struct
from errno import ENOTDIR, EPERM, ESRCH
from signal import SIGCONT

import pytest

from harness.processes import RemoteProcess, fails
from harness.processes.wire import Buffer
from support.mounts import null_mount
from support.processes import SOMEBODY
from support.tracing import attach, go_on

pytestmark = pytest.mark.needs_kernel
defect = pytest.mark.defect

# sys/rtprio.h: struct rtprio has a type and a priority
RTP_LOOKUP, RTP_PRIO_NORMAL = 0, 1
NORMAL = struct.pack("<HH", RTP_PRIO_NORMAL, 0)

# sys/caps.h
SYSCAP_RESTRICTEDROOT, SYSCAP_NOEXEC, SYSCAP_NOPROC_TRESPASS = 0x01, 0x03, 0x20
SYSCAP_SELF, SYSCAP_INPARENT = 1, 0x10000
SYSCAP_GET, SYSCAP_SET = 455, 456
restrictions = pytest.mark.feature("syscap")


def jailed_process(init: RemoteProcess) -> RemoteProcess:
    """Return a child in a jail of its own, root there."""
    jailed = init.fork()
    jailed.jail("/")
    return jailed


def restrict(process: RemoteProcess, capability: int) -> None:
    """Let PROCESS give up CAPABILITY; its programs to come keep it."""
    process.syscall(SYSCAP_SET, capability, SYSCAP_SELF, 0, 0)


# ---- Who is outside -----------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="breach",
    reason="these calls look at no prison",
    reproducer="jail-sees-outside.c",
)
@pytest.mark.parametrize("call", ["getpgid", "getsid"])
def test_a_jailed_process_learns_no_groups_or_sessions_outside(init: RemoteProcess, call: str) -> None:
    """Whoever is outside does not exist (FreeBSD: p_cansee(); kern_prot.c: sys_getpgid, sys_getsid)."""
    jailed = jailed_process(init)
    with fails(ESRCH):
        jailed.syscall(call, init.pid)


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="breach",
    reason="kern_kill() says EPERM whatever p_trespass() says, so pids outside can be told",
    reproducer="jail-sees-outside.c",
)
def test_a_jailed_process_cannot_tell_pids_outside_from_free_ones(init: RemoteProcess) -> None:
    """ESRCH for both (FreeBSD: prison_check(); kern_prot.c: p_trespass; kern_sig.c: kern_kill)."""
    jailed = jailed_process(init)
    with fails(ESRCH):
        jailed.kill(init.pid, 0)


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="breach",
    reason="SIGCONT within a session passes CANSIGNAL before any prison is looked at",
    reproducer="jail-sees-outside.c",
)
def test_a_jailed_process_cannot_continue_processes_outside(init: RemoteProcess) -> None:
    """Not even those of its session (FreeBSD: p_cansignal() asks for the prison first; sys/signal2.h: CANSIGNAL)."""
    jailed = jailed_process(init)
    with fails(ESRCH):
        jailed.kill(init.pid, SIGCONT)


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="breach",
    reason="rtprio() and lwp_rtprio() look at no prison",
    reproducer="jail-sees-outside.c",
)
@pytest.mark.parametrize("threads", [False, True])
def test_a_jailed_process_learns_no_priorities_outside(init: RemoteProcess, threads: bool) -> None:
    """As with getpriority() (kern_resource.c: sys_rtprio, sys_lwp_rtprio; FreeBSD: p_cansee())."""
    jailed = jailed_process(init)
    outside = init.fork()
    priority = Buffer(NORMAL, wanted=True)
    with fails(ESRCH):
        if threads:
            jailed.syscall("lwp_rtprio", RTP_LOOKUP, outside.pid, outside.gettid(), priority)
        else:
            jailed.syscall("rtprio", RTP_LOOKUP, outside.pid, priority)


@pytest.mark.passes("pfind")
@pytest.mark.eras(since=400706, reason="lwp_getaffinity() appeared in January 2017, within 400705")
@defect(
    since=400705,
    severity="breach",
    reason="lwp_getaffinity() looks at no prison",
    reproducer="jail-cpus-learnt.c",
)
def test_a_jailed_process_learns_no_cpus_outside(init: RemoteProcess) -> None:
    """As with getpriority() (kern_usched.c: sys_lwp_getaffinity)."""
    jailed = jailed_process(init)
    outside = init.fork()
    with fails(ESRCH):
        jailed.syscall("lwp_getaffinity", outside.pid, -1, Buffer(bytes(32), wanted=True))


# ---- Jails themselves ---------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="leak of kernel memory",
    reason="sysctl_jail_list() adds what ksnprintf() would have written, and hands out what lies behind its buffer",
    reproducer="jail-list-overrun.c",
)
def test_the_list_of_jails_ends_where_it_ends(init: RemoteProcess) -> None:
    """However long their paths and names are (kern_jail.c: sysctl_jail_list)."""
    folders = [f"/tmp/jail-{init.pid}"]  # noqa: S108  (in the guest)
    folders += [folders[0] + "".join(f"/{letter * 200}" for letter in "abcd"[: depth + 1]) for depth in range(4)]
    for folder in folders:
        init.mkdir(folder)
    try:
        jailed, host = init.fork(), "h" * 255
        jid = jailed.jail(folders[-1], host)
        listed = init.sysctl.read("jail.list", 4096)
        jailed.exit()
        init.wait4(jailed.pid)
    finally:
        for folder in reversed(folders):
            init.rmdir(folder)
    assert listed.rstrip(b"\0").decode("latin-1") == f"{jid} {host} {folders[-1]}"


@pytest.mark.passes("pfind")
@defect(
    since=200000,
    severity="leak",
    reason="a jail that comes to nothing leaves the reference of its root: the file system can never be unmounted",
    reproducer="jail-of-a-file.c",
)
def test_a_jail_that_comes_to_nothing_keeps_no_file_system(init: RemoteProcess) -> None:
    """jail() of a file is refused, and leaves nothing (jail(2); kern_jail.c: kern_jail, pr_root)."""
    with null_mount(init, "/sbin") as path:
        with fails(ENOTDIR):
            init.jail(f"{path}/mount_null")
        init.syscall("unmount", path, 0)


# ---- Restrictions -------------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind")
@restrictions
@defect(
    since=600503,
    severity="breach",
    reason="p_trespass() asks for SYSCAP_NOPROC_TRESPASS, and lets root pass whatever the answer is",
    reproducer="restricted-root.c",
    introduced="2b3f93ea6d of 2023-10-12",
)
def test_root_that_may_not_trespass_signals_nobody_elses_processes(init: RemoteProcess) -> None:
    """EPERM (syscap_set(2): NOPROC_TRESPASS; kern_prot.c: p_trespass)."""
    root, victim = init.fork(), init.fork()
    victim.setuid(SOMEBODY)
    restrict(root, SYSCAP_NOPROC_TRESPASS)
    with fails(EPERM):
        root.kill(victim.pid, 0)


@pytest.mark.passes("pfind")
@restrictions
@defect(
    since=600503,
    severity="breach",
    reason="PT_ATTACH asks for the user alone: a restricted root controls an unrestricted one and is free",
    reproducer="restricted-root.c",
    introduced="2b3f93ea6d of 2023-10-12",
)
def test_a_restricted_root_traces_no_unrestricted_one(init: RemoteProcess) -> None:
    """As it cannot signal it (syscap_set(2): RESTRICTEDROOT; kern_prot.c: p_trespass; sys_process.c: PT_ATTACH)."""
    root, other = init.fork(), init.fork()
    restrict(root, SYSCAP_RESTRICTEDROOT)
    with fails(EPERM, ESRCH):
        root.kill(other.pid, 0)
    with fails(EPERM, ESRCH):
        root.ptrace("PT_ATTACH", other.pid)


@pytest.mark.passes("pfind")
@restrictions
@defect(
    since=600503,
    severity="wrong answer",
    reason="__SYSCAP_INPARENT goes by p_ppid, which is the debugger's pid: the debugger is restricted, the parent not",
    reproducer="syscap-inparent-debugger.c",
    introduced="2b3f93ea6d of 2023-10-12",
)
def test_a_restriction_meant_for_the_parent_does_not_hit_a_debugger(init: RemoteProcess) -> None:
    """It is the parent's (syscap_set(2); kern_caps.c: sys_syscap_set)."""
    parent, tracer = init.fork(), init.fork()
    child = parent.fork()
    attach(tracer, child)
    go_on(tracer, child)
    child.syscall(SYSCAP_SET, SYSCAP_NOEXEC | SYSCAP_INPARENT, SYSCAP_SELF, 0, 0)
    restricted = [process.syscall(SYSCAP_GET, SYSCAP_NOEXEC, 0, 0).value for process in (parent, tracer)]
    assert restricted == [SYSCAP_SELF, 0]


@pytest.mark.passes("sysctl_kern_randompid")
@restrictions
@defect(
    since=600503,
    severity="breach",
    reason="sysctl_root() asks for SYSCAP_NOSYSCTL_WR, which jails have, and no more whether a variable is for jails",
    reproducer="jail-root-outside.c",
    introduced="2b3f93ea6d of 2023-10-12",
)
def test_a_jailed_root_sets_no_variable_of_the_whole_system(init: RemoteProcess) -> None:
    """EPERM, as before October 2023 (kern_sysctl.c: CTLFLAG_PRISON; kern_jail.c: prison_priv_check)."""
    jailed = jailed_process(init)
    before = init.sysctl.get_int("kern.randompid")
    try:
        with fails(EPERM):
            jailed.sysctl.set_int("kern.randompid", 5000)
        assert init.sysctl.get_int("kern.randompid") == before
    finally:
        init.sysctl.set_int("kern.randompid", before)

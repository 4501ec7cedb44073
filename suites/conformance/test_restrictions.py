# SPDX-License-Identifier: BSD-2-Clause
"""Restrictions of a process and of what it executes: syscap_get(), syscap_set() (kern_caps.c), kp_syscaps.

Each of 256 capabilities can be denied to the process itself (SELF), to the programs it runs (EXEC), or both; what is
denied stays so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from errno import EACCES, EINVAL, EOPNOTSUPP, EPERM, ESRCH
from signal import SIGCONT, SIGSYS, SIGUSR1

import pytest

from harness.processes import SYSCAP_INPARENT, Clock, Handler, RemoteProcess, Resource, SyscapFlag, fails
from support.processes import SOMEBODY, bury, row

needs_kernel = pytest.mark.needs_kernel

NONE, SELF, EXEC, BOTH = SyscapFlag.NONE, SyscapFlag.SELF, SyscapFlag.EXEC, SyscapFlag.ALL

# sys/caps.h.  The high four bits of a number are a group, which is restricted by the capability of that number.
ANY, RESTRICTED_ROOT, NOEXEC, NOCRED, NOREBOOT = 0x00, 0x01, 0x03, 0x04, 0x19
SETLOGIN, SETRLIMIT, SYSCTL_WRITE, SETTIME = 0x21, 0x22, 0x23, 0x28
SETUID, SETGID, SETEUID, SETREUID, SETRESUID, SETGROUPS = 0x40, 0x41, 0x42, 0x44, 0x46, 0x48
JAIL_CREATE, CHROOT = 0x50, 0x95
COUNT = 256
SOME = (RESTRICTED_ROOT, NOREBOOT, SETUID, 0x7F, 0x80, COUNT - 1)


def raise_limit(process: RemoteProcess) -> None:
    """Raise the hard limit of open files, which takes a privilege."""
    soft, hard = process.getrlimit(Resource.RLIMIT_NOFILE)
    process.setrlimit(Resource.RLIMIT_NOFILE, soft, hard + 1)


def set_clock(process: RemoteProcess) -> None:
    """Set the clock to what it shows."""
    now = process.clock_gettime(Clock.CLOCK_REALTIME)
    process.syscall("clock_settime", 0, struct.pack("<qq", int(now), int(now % 1 * 1e9)))


#: What each capability is needed for; the calls change as little as they can.
NEEDS: dict[int, Callable[[RemoteProcess], object]] = {
    NOREBOOT: lambda process: process.kill(1, 0),
    SETLOGIN: lambda process: process.setlogin("root"),
    SETRLIMIT: raise_limit,
    SYSCTL_WRITE: lambda process: process.sysctl.write("kern.randompid", bytes(4)),
    SETUID: lambda process: process.setuid(SOMEBODY),
    SETEUID: lambda process: process.seteuid(SOMEBODY),
    SETREUID: lambda process: process.setreuid(SOMEBODY, SOMEBODY),
    SETRESUID: lambda process: process.setresuid(SOMEBODY, SOMEBODY, SOMEBODY),
}
#: Those the specification has no calls or privileges for.
NEEDS_A_KERNEL: dict[int, Callable[[RemoteProcess], object]] = {
    SETTIME: set_clock,
    SETGID: lambda process: process.setgid(SOMEBODY),
    SETGROUPS: lambda process: process.setgroups([0]),
    JAIL_CREATE: lambda process: process.jail("/"),
    CHROOT: lambda process: process.chroot("/"),
}
CALLS = {**NEEDS, **NEEDS_A_KERNEL}
ALL_CAPS = [pytest.param(cap, marks=[needs_kernel] if cap in NEEDS_A_KERNEL else []) for cap in CALLS]
CREDENTIALS = (SETUID, SETGID, SETEUID, SETREUID, SETRESUID, SETGROUPS)


def shown(observer: RemoteProcess, process: RemoteProcess) -> dict[int, SyscapFlag]:
    """Return what kern.proc shows of PROCESS's restrictions: those there are."""
    record = row(observer, process.pid)
    return {cap: flags for cap in range(COUNT) if (flags := record.syscap(cap))}


# ---- Being restricted ---------------------------------------------------------------------------------------------


@pytest.mark.passes("pcredcache")
@pytest.mark.feature("syscap")
def test_nobody_is_restricted_at_first(init: RemoteProcess) -> None:
    """Root neither (kern_caps.c: sys_syscap_get)."""
    assert {init.syscap_get(cap) for cap in SOME} == {NONE}
    assert shown(init, init) == {}


@pytest.mark.passes("pcredcache", "sysctl_out_proc")
@pytest.mark.feature("syscap")
@pytest.mark.parametrize("flags", [SELF, EXEC, BOTH])
@pytest.mark.parametrize("cap", SOME)
def test_a_restriction_is_told_and_shown(init: RemoteProcess, cap: int, flags: SyscapFlag) -> None:
    """And marks capability 0, which says that there are any (kern_caps.c: sys_syscap_set; kern_kinfo.c)."""
    child = init.fork()
    assert child.syscap_set(cap, flags) == flags
    assert (child.syscap_get(cap), child.syscap_get(ANY)) == (flags, flags)
    assert shown(init, child) == {ANY: flags, cap: flags}


@pytest.mark.passes("pcredcache")
@pytest.mark.feature("syscap")
def test_no_restriction_is_ever_lifted(init: RemoteProcess) -> None:
    """What is set is added to what there is, and that is returned (kern_caps.c: sys_syscap_set)."""
    child = init.fork()
    told = [child.syscap_set(NOREBOOT, flags) for flags in (NONE, SELF, NONE, EXEC, SELF, NONE)]
    assert told == [NONE, SELF, SELF, BOTH, BOTH, BOTH]
    assert shown(init, child) == {ANY: BOTH, NOREBOOT: BOTH}


@pytest.mark.passes("pcredcache")
@pytest.mark.feature("syscap")
def test_a_restriction_is_the_processs_own(init: RemoteProcess) -> None:
    """Parent, child born before and sibling share credentials with it no longer (kern_caps.c: cratom_proc)."""
    sibling, process = init.fork(), init.fork()
    child = process.fork()
    process.syscap_set(NOREBOOT, BOTH)
    assert shown(init, process)
    assert [shown(init, other) for other in (init, sibling, child)] == [{}, {}, {}]


@pytest.mark.passes("pcredcache")
@pytest.mark.feature("syscap")
@pytest.mark.parametrize("flags", [SELF, EXEC, BOTH])
def test_a_child_is_born_with_all_restrictions(init: RemoteProcess, flags: SyscapFlag) -> None:
    """And is bound by those that bind the parent (kern_fork.c: fork1)."""
    parent = init.fork()
    parent.syscap_set(NOREBOOT, flags)
    child = parent.fork()
    assert shown(init, child) == {ANY: flags, NOREBOOT: flags}
    if SELF in flags:
        with fails(EPERM):
            child.kill(1, 0)
    else:
        child.kill(1, 0)


@pytest.mark.passes("pcredcache")
@pytest.mark.feature("syscap")
@pytest.mark.parametrize(("flags", "later"), [(SELF, NONE), (EXEC, BOTH), (BOTH, BOTH)])
def test_a_new_program_begins_with_the_restrictions_meant_for_it(
    init: RemoteProcess, flags: SyscapFlag, later: SyscapFlag
) -> None:
    """And with no others (kern_caps.c: caps_exec)."""
    child = init.fork()
    child.syscap_set(NOREBOOT, flags)
    child.reexec()
    assert (child.syscap_get(NOREBOOT), child.syscap_get(ANY)) == (later, later)
    assert shown(init, child) == ({ANY: later, NOREBOOT: later} if later else {})
    child.reexec()
    assert child.syscap_get(NOREBOOT) == later


@pytest.mark.passes("pcredcache")
@pytest.mark.feature("syscap")
def test_another_user_is_as_restricted(init: RemoteProcess) -> None:
    """Restrictions stay with the credentials (kern_prot.c: change_euid)."""
    child = init.fork()
    child.syscap_set(NOREBOOT, BOTH)
    child.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
    assert shown(init, child) == {ANY: BOTH, NOREBOOT: BOTH}


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("syscap")
def test_anybody_may_restrict_himself(init: RemoteProcess) -> None:
    """No privilege is asked for (kern_caps.c: sys_syscap_set)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    assert user.syscap_set(NOREBOOT, SELF) == SELF


# ---- What it denies -----------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("syscap")
@pytest.mark.parametrize("cap", ALL_CAPS)
def test_what_is_denied_fails_even_for_root(init: RemoteProcess, cap: int) -> None:
    """EPERM, as for a user without privilege; others go on as before (kern_caps.c: caps_priv_check)."""
    restricted, free = init.fork(), init.fork()
    restricted.syscap_set(cap, SELF)
    with fails(EPERM):
        CALLS[cap](restricted)
    CALLS[cap](free)


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("syscap")
def test_what_is_denied_to_programs_is_not_denied_yet(init: RemoteProcess) -> None:
    """EXEC alone binds from the next program on (kern_caps.c: caps_priv_check, caps_exec)."""
    child = init.fork()
    child.syscap_set(NOREBOOT, EXEC)
    child.kill(1, 0)
    child.reexec()
    with fails(EPERM):
        child.kill(1, 0)


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("syscap")
@pytest.mark.parametrize("cap", [each for each in ALL_CAPS if each.values[0] in CREDENTIALS])
def test_a_group_of_capabilities_is_denied_at_once(init: RemoteProcess, cap: int) -> None:
    """SYSCAP_NOCRED stands for all changes of credentials, without setting each (kern_caps.c: caps_priv_check)."""
    child = init.fork()
    child.syscap_set(NOCRED, SELF)
    assert child.syscap_get(cap) == NONE
    with fails(EPERM):
        CALLS[cap](child)


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("syscap")
def test_who_may_run_no_program_is_told_so(init: RemoteProcess) -> None:
    """EACCES, root or not (kern_exec.c: sys_execve)."""
    for uid in (0, SOMEBODY):
        child = init.fork()
        child.setuid(uid)
        child.syscap_set(NOEXEC, SELF)
        with fails(EACCES):
            child.execve("/bin/sleep", ["sleep", "0"])
        assert child.getpid() == child.pid


@pytest.mark.passes("pfind")
@pytest.mark.feature("syscap")
def test_a_restricted_root_reaches_only_the_restricted(init: RemoteProcess) -> None:
    """Whoever is not is nobody to it; itself and others alike it may signal (kern_prot.c: p_trespass)."""
    restricted, other, free = init.fork(), init.fork(), init.fork()
    for process in (restricted, other):
        process.syscap_set(RESTRICTED_ROOT, SELF)
    restricted.kill(other.pid, 0)
    restricted.kill(restricted.pid, 0)
    free.kill(restricted.pid, 0)
    for signal in (0, SIGUSR1):
        with fails(ESRCH, EPERM):
            restricted.kill(free.pid, signal)
    restricted.kill(free.pid, SIGCONT)  # of the same session
    assert free.getpid() == free.pid


@pytest.mark.passes("pcredcache")
@pytest.mark.feature("syscap")
def test_a_jailed_process_is_a_restricted_root(init: RemoteProcess) -> None:
    """jail() restricts itself and all programs (kern_jail.c: kern_jail_attach)."""
    jailed = init.fork()
    jailed.jail("/")
    assert jailed.syscap_get(RESTRICTED_ROOT) == BOTH
    assert shown(init, jailed) == {ANY: BOTH, RESTRICTED_ROOT: BOTH}
    assert shown(init, init) == {}


# ---- The parent's -------------------------------------------------------------------------------------------------


@pytest.mark.passes("pfind", "pcredcache")
@pytest.mark.feature("syscap")
def test_a_child_can_restrict_its_parent(init: RemoteProcess) -> None:
    """Of the same user; not itself by that (kern_caps.c: SYSCAP_INPARENT)."""
    parent = init.fork()
    child = parent.fork()
    assert child.syscap_set(NOREBOOT | SYSCAP_INPARENT, EXEC) == EXEC
    assert child.syscap_set(NOREBOOT | SYSCAP_INPARENT, SELF) == BOTH
    assert child.syscap_get(NOREBOOT | SYSCAP_INPARENT) == parent.syscap_get(NOREBOOT) == BOTH
    assert child.syscap_get(NOREBOOT) == NONE
    assert [shown(init, process) for process in (child, init)] == [{}, {}]


@pytest.mark.passes("pfind")
@pytest.mark.feature("syscap")
def test_another_users_parent_can_be_asked_but_not_restricted(init: RemoteProcess) -> None:
    """EINVAL; the effective user counts (kern_caps.c: sys_syscap_set)."""
    parent = init.fork()
    parent.syscap_set(NOREBOOT, EXEC)
    child = parent.fork()
    child.setresuid(0, SOMEBODY, 0)
    assert child.syscap_get(NOREBOOT | SYSCAP_INPARENT) == EXEC
    with fails(EINVAL):
        child.syscap_set(NOREBOOT | SYSCAP_INPARENT, BOTH)
    assert parent.syscap_get(NOREBOOT) == EXEC


@pytest.mark.passes("pfind", "prele")
@pytest.mark.feature("syscap")
def test_a_parent_that_was_restricted_is_held_by_nobody(init: RemoteProcess) -> None:
    """Allowed or refused, the parent can be reaped afterwards (kern_caps.c: PRELE)."""
    parent = init.fork()
    child, user = parent.fork(), parent.fork()
    user.setuid(SOMEBODY)
    child.syscap_set(NOREBOOT | SYSCAP_INPARENT, SELF)
    child.syscap_get(NOREBOOT | SYSCAP_INPARENT)
    with fails(EINVAL):
        user.syscap_set(NOREBOOT | SYSCAP_INPARENT, SELF)
    bury(parent, child, user)
    bury(init, parent)


# ---- Errors -------------------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("syscap")
@pytest.mark.parametrize("cap", [COUNT, COUNT + 1, 0xFFFF])
def test_there_are_256_capabilities(init: RemoteProcess, cap: int) -> None:
    """EOPNOTSUPP when asked for others, EINVAL when set (kern_caps.c)."""
    with fails(EOPNOTSUPP):
        init.syscap_get(cap)
    with fails(EINVAL):
        init.syscap_set(cap, SELF)


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("syscap")
def test_a_negative_capability_is_refused(init: RemoteProcess) -> None:
    """EINVAL, asked or set (kern_caps.c)."""
    with fails(EINVAL):
        init.syscap_get(-1)
    with fails(EINVAL):
        init.syscap_set(-1, SELF)


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("syscap")
@pytest.mark.parametrize("flags", [4, 0x100, -1])
def test_only_oneself_and_programs_can_be_restricted(init: RemoteProcess, flags: int) -> None:
    """Other flags are EINVAL, and nothing is set (kern_caps.c: sys_syscap_set)."""
    child = init.fork()
    with fails(EINVAL):
        child.syscap_set(NOREBOOT, flags)
    assert child.syscap_get(NOREBOOT) == NONE


@needs_kernel
@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("syscap")
def test_nothing_more_can_be_said_about_a_restriction(init: RemoteProcess) -> None:
    """Data or a length with it are EINVAL; asked for, they are an empty list (kern_caps.c)."""
    child = init.fork()
    for data, length in ((bytes(16), 0), (0, 16), (bytes(16), 16)):
        with fails(EINVAL):
            child.syscall("syscap_set", NOREBOOT, int(SELF), data, length)
    with fails(EINVAL):
        child.syscall("syscap_get", NOREBOOT, bytes(16), 15)
    assert child.syscap_get(NOREBOOT) == NONE


@needs_kernel
@pytest.mark.passes("pcredcache")
@pytest.mark.feature("!syscap")
@pytest.mark.parametrize("call", ["syscap_get", "syscap_set"])
def test_there_are_no_restrictions_yet(init: RemoteProcess, call: str) -> None:
    """The numbers are of no system call: SIGSYS, and EINVAL for who ignores that (kern_sig.c: sys_nosys)."""
    assert row(init, init.pid).syscaps is None
    child = init.fork()
    child.sigaction(SIGSYS, Handler.IGNORE)
    with fails(EINVAL):
        child.syscall(call, NOREBOOT, 0, 0, 0)

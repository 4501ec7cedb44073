# SPDX-License-Identifier: BSD-2-Clause
"""Behaviour that changed between July 2020 and April 2026: one test per commit, passing since the version it names.

What `since` says is explained in support.history.  Bisecting between two kernels on either side finds the commit.
Processes, signals and kern.proc are here; descriptors, time, programs and procfs in test_changes_since_2020_around.py.
"""

from __future__ import annotations

import os
from errno import EINVAL, EPERM
from signal import SIGUSR1

import pytest

from harness.processes import Handler, IdType, RemoteProcess, SyscapFlag, fails
from support.history import since
from support.kernel_threads import whole_table
from support.mounts import procfs
from support.processes import SOMEBODY, bury, expect_signals, hearing, signal_number
from support.sysctl import ARGS, CWD, PID, oid, proc_mib, setting
from support.terminals import Terminal

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


# ---- 2020 and 2021 ------------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_move_allproc_zombie")
@since(500902, "acdf1ee6e0, 2020-11-15")
def test_a_parents_death_can_be_a_signal(init: RemoteProcess) -> None:
    """PROC_PDEATHSIG_CTL and PROC_PDEATHSIG_STATUS are new (kern_fork.c: sys_procctl; kern_exit.c: exit1)."""
    parent = init.fork()
    child = hearing(parent.fork())
    child.procctl_pdeathsig(SIGUSR1)
    assert child.procctl_pdeathsig_status() == signal_number(init, SIGUSR1)
    bury(init, parent)
    expect_signals(child, SIGUSR1)


@pytest.mark.passes("pfind")
@since(500902, "acdf1ee6e0, 2020-11-15")
def test_procctl_takes_0_for_the_caller(init: RemoteProcess) -> None:
    """Only its own pid used to do (kern_fork.c: sys_procctl)."""
    init.procctl(IdType.P_PID, 0, 3, bytes(256))  # PROC_REAP_STATUS


@pytest.mark.passes("pfind")
@since(500902, "acdf1ee6e0, 2020-11-15")
def test_the_highest_signal_is_127(init: RemoteProcess) -> None:
    """128 used to be sent, and who died of it seemed to have exited (kern_sig.c: kern_kill, kern_sigaction)."""
    child = init.fork()
    with fails(EINVAL):
        init.kill(child.pid, 128)
    with fails(EINVAL):
        child.sigaction(128, Handler.IGNORE)


@pytest.mark.passes("sysctl_kern_proc_cwd")
@since(500902, "d6853f97de, 2020-11-01")
def test_a_removed_directory_has_no_name(init: RemoteProcess) -> None:
    """getcwd() used to tell the name it had (vfs_cache.c: kern_getcwd)."""
    path = f"/tmp/removed-{init.pid}"  # noqa: S108  (in the guest)
    init.mkdir(path)
    init.chdir(path)
    init.rmdir(path)
    with fails("ENOENT"):
        init.getcwd()


@kern_proc("sysctl_kern_proc_pathname")
@since(600101, "a23ed7f524, 2021-05-19")
def test_whoever_runs_no_program_has_no_pathname(init: RemoteProcess) -> None:
    """EINVAL; asking used to panic, sooner or later (kern_proc.c: sysctl_kern_proc_pathname)."""
    bury(init, *[init.fork() for _ in range(8)])
    with fails(EINVAL):
        init.sysctl.kern_proc_pathname(0)


@pytest.mark.passes("proc_move_allproc_zombie")
@since(600107, "de22b67f22, 2021-11-29")
def test_an_exit_waits_for_a_terminals_reader_no_longer_than_a_second(init: RemoteProcess) -> None:
    """The leader of a session with output nobody reads used to be there for ever (kern_exit.c: exit1, ttywait)."""
    terminal = Terminal(init)
    terminal.leader.write(terminal.slave, b"unread" * 20)
    terminal.leader.start.exit(7)
    assert init.start.wait4(terminal.leader.pid).result(20.0).exit_status == 7


# ---- 2022 to 2024 -------------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc")
@pytest.mark.passes("sysctl_out_proc_kthread")
@since(600302, "ec1c3f3acb, 2022-11-17")
def test_kernel_threads_are_listed_when_asked_for(init: RemoteProcess) -> None:
    """KERN_PROC_FLAG_LWKT is new; they used to be listed always (kern_proc.c: sysctl_kern_proc)."""
    assert init.sysctl.kern_proc_all().kernel_threads == []
    assert whole_table(init).kernel_threads


@pytest.mark.passes("sysctl_kern_proc")
@since(600302, "ec1c3f3acb, 2022-11-17")
def test_the_tables_with_kernel_threads_have_names(init: RemoteProcess) -> None:
    """Of all filters, by process and by thread (kern_proc.c: SYSCTL_KERN_PROC_ALLFLAGS)."""
    for name, number in (("all", 0), ("pid", 1), ("pgrp", 2), ("tty", 4), ("uid", 5), ("ruid", 6)):
        assert oid(init, f"kern.proc.{name}_lwkt") == proc_mib(number | 0x20)
        assert oid(init, f"kern.proc.{name}_lwp_lwkt") == proc_mib(number | 0x30)


@pytest.mark.passes("sysctl_out_proc")
@since(600504, "2b3f93ea6d, 2023-10-12")
def test_a_process_can_be_restricted(init: RemoteProcess) -> None:
    """syscap_set() and syscap_get() are new, and kp_syscaps shows it (kern_caps.c; sys/kinfo.h)."""
    child = init.fork()
    assert child.syscap_set(0x19, SyscapFlag.SELF) == SyscapFlag.SELF  # SYSCAP_NOREBOOT
    with fails(EPERM):
        child.kill(1, 0)
    (row,) = init.sysctl.kern_proc_pid(child.pid)
    assert (row.record_size, row.syscap(0x19)) == (1048, SyscapFlag.SELF)
    assert len(init.sysctl.read(proc_mib(PID, child.pid))) == 1048


@pytest.mark.passes("pcredcache")
@since(600504, "a44776b2e7, 2023-10-16")
def test_a_jail_restricts_its_root(init: RemoteProcess) -> None:
    """SYSCAP_RESTRICTEDROOT, for itself and all programs (kern_jail.c: kern_jail_attach)."""
    jailed = init.fork()
    jailed.jail("/")
    assert jailed.syscap_get(1) == SyscapFlag.ALL


@pytest.mark.passes("sysctl_kern_proc")
@since(600504, "24687fffce, 2023-10-13")
def test_a_jail_may_be_allowed_to_mount_procfs(init: RemoteProcess) -> None:
    """jail.defaults.vfs_mount_procfs is new (kern_jail.c: prison_priv_check)."""
    with setting(init, "jail.defaults.vfs_mount_procfs", 1):
        jailed = init.fork()
        jailed.jail("/")
        with procfs(jailed) as mounted:
            jailed.close(jailed.open(f"{mounted}/{jailed.pid}/status", os.O_RDONLY))


@pytest.mark.passes("pfind")
@since(600517, "35a77c5f59, 2026-02-06, after 2b3f93ea6d, 2023-10-12, had broken it")
@pytest.mark.parametrize("call", [("acct", "/nonexistent"), ("mount", "null", "/", 0, 0)], ids=lambda call: call[0])
def test_a_user_has_no_privilege_for_want_of_a_restriction(init: RemoteProcess, call: tuple[str | int, ...]) -> None:
    """Restrictions were asked for instead of the user id (kern_caps.c: caps_priv_check_td)."""
    name, *arguments = call
    user = init.fork()
    user.setuid(SOMEBODY)
    with fails(EPERM):
        user.syscall(str(name), *arguments)


# ---- 2025 and 2026 ------------------------------------------------------------------------------------------------


@pytest.mark.passes("prele")
@since(600510, "46d73a5af0 and cabad5ba2c, 2025-03-19")
def test_a_reaper_can_signal_its_whole_family(init: RemoteProcess) -> None:
    """PROC_REAP_KILL is new (kern_fork.c: reaper_kill)."""
    reaper = init.fork()
    reaper.procctl_reaper_acquire()
    child = hearing(reaper.fork())
    grandchild = hearing(child.fork())
    assert reaper.procctl_reap_kill(SIGUSR1).killed == 2
    for process in (child, grandchild):
        expect_signals(process, SIGUSR1)


@kern_proc("sysctl_kern_proc_args", "sysctl_kern_proc_cwd")
@since(600517, "b08bfb72c8, 2026-01-11")
@pytest.mark.parametrize("node", [ARGS, CWD], ids=["args", "cwd"])
def test_a_size_query_tells_the_length_of_a_string(init: RemoteProcess, node: int) -> None:
    """It used to be 0 (kern_proc.c: sysctl_kern_proc_args, sysctl_kern_proc_cwd)."""
    mib = proc_mib(node, init.pid)
    assert init.sysctl.size(mib) == len(init.sysctl.read(mib)) > 1

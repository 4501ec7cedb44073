# SPDX-License-Identifier: BSD-2-Clause
"""rfork(2): what a child shares with its parent, and whose child it is (kern_fork.c: fork1; kern_exit.c: exit1)."""

from __future__ import annotations

from signal import SIGCHLD, SIGKILL, SIGUSR1

import pytest

from harness.processes import WNOHANG, Handler, RemoteProcess, RforkFlag, WaitOption, fails
from support.processes import bury, eventually, expect_signals, hearing

needs_kernel = pytest.mark.needs_kernel
CHILD = RforkFlag.RFPROC | RforkFlag.RFFDG
F_GETFD = 1


@needs_kernel
@pytest.mark.passes("proc_add_allproc")
def test_a_child_may_begin_without_open_files(init: RemoteProcess) -> None:
    """RFCFDG; its parent's stay as they are (rfork(2): RFCFDG; kern_fork.c: fork1, fdinit)."""
    opened = init.open("/dev/null")
    child = init.rfork(RforkFlag.RFPROC | RforkFlag.RFCFDG)
    with fails("EBADF"):
        child.syscall("fcntl", opened, F_GETFD, 0)
    assert init.syscall("fcntl", opened, F_GETFD, 0).value >= 0
    bury(init, child)


@needs_kernel
@pytest.mark.passes("proc_add_allproc")
@pytest.mark.parametrize("shared", [True, False])
def test_a_child_has_its_parents_table_of_files_or_a_copy(init: RemoteProcess, shared: bool) -> None:
    """A copy with RFFDG alone (rfork(2); kern_fork.c: fork1, fdshare, fdcopy)."""
    parent = init.fork()
    opened = parent.open("/dev/null")
    child = parent.rfork(RforkFlag.RFPROC if shared else CHILD)
    child.close(opened)
    if shared:
        with fails("EBADF"):
            parent.syscall("fcntl", opened, F_GETFD, 0)
    else:
        assert parent.syscall("fcntl", opened, F_GETFD, 0).value >= 0
    child.exit()
    assert parent.wait4(child.pid).exit_status == 0
    bury(init, parent)


@needs_kernel
@pytest.mark.passes("proc_add_allproc")
def test_who_shares_a_table_of_files_can_take_a_copy_of_his_own(init: RemoteProcess) -> None:
    """By rfork(RFFDG) without a child (rfork(2): RFFDG; kern_fork.c: fork1)."""
    parent = init.fork()
    child = parent.rfork(RforkFlag.RFPROC)
    opened = parent.open("/dev/null")
    assert child.syscall("rfork", RforkFlag.RFFDG).value == 0
    child.close(opened)
    assert parent.syscall("fcntl", opened, F_GETFD, 0).value >= 0
    child.exit()
    assert parent.wait4(child.pid).exit_status == 0
    bury(init, parent)


@needs_kernel
@pytest.mark.passes("proc_add_allproc")
@pytest.mark.parametrize("shared", [True, False])
def test_what_is_done_upon_signals_may_be_shared(init: RemoteProcess, shared: bool) -> None:
    """With RFSIGSHARE an action set by one is the other's (rfork(2); kern_fork.c: fork1, p_sigacts)."""
    parent = init.fork()
    hearing(parent)
    child = parent.rfork(CHILD | RforkFlag.RFSIGSHARE if shared else CHILD)
    child.sigaction(SIGUSR1, Handler.IGNORE)
    init.kill(parent.pid, SIGUSR1)
    if shared:
        assert parent.signals() == []
    else:
        expect_signals(parent, SIGUSR1)
    bury(parent, child)
    bury(init, parent)


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.parametrize(
    ("flags", "heard"), [(RforkFlag.RFLINUXTHPN, SIGUSR1), (RforkFlag(0), SIGCHLD)], ids=["RFLINUXTHPN", "plain"]
)
def test_a_parent_is_told_of_an_end_by_the_signal_it_wants(init: RemoteProcess, flags: RforkFlag, heard: int) -> None:
    """SIGUSR1 instead of SIGCHLD with RFLINUXTHPN, and then only WLINUXCLONE waits for it.

    (rfork(2), wait(2); kern_fork.c: fork1, p_sigparent; kern_exit.c: exit1, kern_wait)
    """
    parent = hearing(init.fork(), SIGUSR1, SIGCHLD)
    child = parent.rfork(CHILD | flags)
    child.exit(3)
    expect_signals(parent, SIGUSR1 if heard == SIGUSR1 else SIGCHLD)
    if flags:
        with fails("ECHILD"):
            parent.wait4(child.pid)
    assert parent.wait4(child.pid, WaitOption.WLINUXCLONE if flags else 0).exit_status == 3
    assert parent.signals() == []
    bury(init, parent)


@pytest.mark.passes("proc_add_allproc")
def test_a_child_may_be_nobodys(init: RemoteProcess) -> None:
    """RFNOWAIT gives it to the reaper at once (rfork(2): RFNOWAIT; kern_fork.c: fork1, reaper_get)."""
    init.procctl_reaper_acquire()
    parent = init.fork()
    child = parent.rfork(CHILD | RforkFlag.RFNOWAIT)
    assert child.getppid() == init.pid
    with fails("ECHILD"):
        parent.wait4(child.pid, WNOHANG)
    child.exit(4)
    assert init.wait4(child.pid).exit_status == 4
    bury(init, parent)


@needs_kernel
@pytest.mark.passes("proc_move_allproc_zombie", "pfind")
def test_the_end_of_a_leader_is_that_of_its_peers(init: RemoteProcess) -> None:
    """It kills them and waits until they are gone (rfork(2): RFTHREAD; kern_exit.c: exit1, p_peers)."""
    init.procctl_reaper_acquire()
    leader = init.fork()
    peers = [leader.rfork(CHILD | RforkFlag.RFTHREAD) for _ in range(3)]
    peers[1].exit(5)  # whoever goes before leaves the others
    assert leader.wait4(peers[1].pid).exit_status == 5
    assert [peer.getppid() for peer in (peers[0], peers[2])] == [leader.pid] * 2
    leader.exit(6)
    assert init.wait4(leader.pid).exit_status == 6
    for peer in (peers[0], peers[2]):
        assert init.wait4(peer.pid).signal == SIGKILL
    eventually(lambda: not {peer.pid for peer in peers} & set(init.sysctl.kern_proc_all().pids), "the peers to be gone")

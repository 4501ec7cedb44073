# SPDX-License-Identifier: BSD-2-Clause
"""rfork(2): what a child shares with its parent, and whose child it is (kern_fork.c: fork1; kern_exit.c: exit1)."""

from __future__ import annotations

from signal import SIGCHLD, SIGKILL, SIGUSR1

import pytest

from harness.processes import WNOHANG, Handler, RemoteProcess, RforkFlag, WaitOption, fails
from harness.processes.memory import OwnMemory
from support.processes import bury, eventually, expect_signals, hearing

needs_kernel = pytest.mark.needs_kernel
CHILD = RforkFlag.RFPROC | RforkFlag.RFFDG
F_GETFD = 1
RFPGLOCK = 1 << 30  # sys/unistd.h
MAP_PRIVATE, MAP_ANON = 2, 0x1000  # sys/mman.h


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
    parent.kill(child.pid, SIGKILL)  # its own exit() would not be seen: the other table has its connection open, too
    assert parent.wait4(child.pid).signal == SIGKILL
    bury(init, parent)


@needs_kernel
@pytest.mark.passes("proc_add_allproc")
def test_who_shares_a_table_of_files_can_begin_anew_without_any(init: RemoteProcess) -> None:
    """By rfork(RFCFDG) without a child: it can be driven no more, and ends; the others keep theirs (rfork(2): RFCFDG).

    (kern_fork.c: fork1, fdinit)
    """
    parent = init.fork()
    opened = parent.open("/dev/null")
    child = parent.rfork(RforkFlag.RFPROC)
    child.start.syscall("rfork", RforkFlag.RFCFDG)  # nobody is left to answer
    assert init.start.getpid().result(20.0) == init.pid
    assert parent.start.wait4(child.pid).result(20.0).pid == child.pid
    assert parent.syscall("fcntl", opened, F_GETFD, 0).value >= 0
    bury(init, parent)


@needs_kernel
@pytest.mark.passes("proc_add_allproc")
@pytest.mark.parametrize("kept", [True, False])
def test_who_shares_memory_can_take_a_copy_of_his_own(init: RemoteProcess, kept: bool) -> None:
    """By rfork() without RFMEM and without a child (rfork(2): RFMEM; kern_fork.c: fork1, vm_fork)."""
    parent = init.fork()
    page = parent.syscall("mmap", 0, 4096, 3, MAP_PRIVATE | MAP_ANON, -1, 0, 0).wide
    child = parent.rfork(CHILD | RforkFlag.RFMEM)
    OwnMemory(child).write(page, b"first")
    assert OwnMemory(parent).read(page, 5) == b"first"
    assert child.syscall("rfork", RforkFlag.RFMEM if kept else 0).value == 0
    OwnMemory(child).write(page, b"other")
    assert OwnMemory(parent).read(page, 5) == (b"other" if kept else b"first")
    bury(parent, child)
    bury(init, parent)


@needs_kernel
@pytest.mark.passes("proc_makepid")
@pytest.mark.parametrize("flag", [RforkFlag.RFPPWAIT, RFPGLOCK], ids=["RFPPWAIT", "RFPGLOCK"])
def test_what_is_the_kernels_own_is_refused(init: RemoteProcess, flag: int) -> None:
    """EINVAL, and there is no child (rfork(2); kern_fork.c: sys_rfork, RFKERNELONLY)."""
    before = sorted(init.sysctl.kern_proc_all().pids)
    with fails("EINVAL"):
        init.syscall("rfork", CHILD | flag)
    assert sorted(init.sysctl.kern_proc_all().pids) == before


@needs_kernel
@pytest.mark.passes("proc_makepid")
def test_who_has_several_threads_takes_no_copy_for_one_of_them(init: RemoteProcess) -> None:
    """EINVAL, unless it is for a child (rfork(2); kern_fork.c: fork1, p_nthreads)."""
    process = init.fork()
    thread = process.thread()
    for caller in (process, thread):
        with fails("EINVAL"):
            caller.syscall("rfork", RforkFlag.RFFDG)
    bury(process, process.rfork(CHILD))
    bury(init, process)


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
@pytest.mark.parametrize("files", ["own", "shared"])
def test_the_end_of_a_leader_is_that_of_its_peers(init: RemoteProcess, files: str) -> None:
    """It kills them and waits until they are gone (rfork(2): RFTHREAD; kern_exit.c: exit1, p_peers).

    Those that share its files share what knows of locks, too (kern_fork.c: fork1, p_fdtol).
    """
    init.procctl_reaper_acquire()
    leader = init.fork()
    kind = CHILD if files == "own" else RforkFlag.RFPROC
    peers = [leader.rfork(kind | RforkFlag.RFTHREAD) for _ in range(3)]
    peers[1].exit(5)  # whoever goes before leaves the others
    assert leader.wait4(peers[1].pid).exit_status == 5
    assert [peer.getppid() for peer in (peers[0], peers[2])] == [leader.pid] * 2
    leader.exit(6)
    assert init.wait4(leader.pid).exit_status == 6
    for peer in (peers[0], peers[2]):
        assert init.wait4(peer.pid).signal == SIGKILL
    eventually(lambda: not {peer.pid for peer in peers} & set(init.sysctl.kern_proc_all().pids), "the peers to be gone")

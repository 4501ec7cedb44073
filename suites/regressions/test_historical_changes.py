# SPDX-License-Identifier: BSD-2-Clause
"""Behaviour that changed between 2012 and July 2020: one test per commit, passing since the version named with it.

What `since` says is explained in support.history.  Bisecting between two kernels on either side finds the commit.
Later changes are in test_changes_since_2020.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from errno import EAGAIN, EPERM
from signal import SIGCHLD, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1

import pytest

from harness.processes import (
    SA_SIGINFO,
    SIG_BLOCK,
    WEXITED,
    WNOHANG,
    WNOWAIT,
    Handler,
    IdType,
    ProcStat,
    RemoteProcess,
    Resource,
    fails,
)
from harness.processes.allocator import PidAllocator, random_pids
from harness.processes.wire import Buffer
from support.history import since
from support.kernel_threads import whole_table
from support.mounts import null_mount
from support.processes import SOMEBODY, await_stopped, bury, eventually, exists
from support.programs import run
from support.sysctl import ARGS, oid, proc_mib

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


# ---- 2012 to 2014 -------------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_move_allproc_zombie")
@since(300103, "19af187033, 2012-04-21")
def test_children_of_whoever_ignores_sigchld_vanish(init: RemoteProcess) -> None:
    """They are given to init, which reaps them; wait() finds none (kern_exit.c: exit1)."""
    parent = init.fork()
    parent.sigaction(SIGCHLD, Handler.IGNORE)
    child = parent.fork()
    child.exit()
    with fails("ECHILD"):
        parent.wait4(child.pid)
    eventually(lambda: not exists(init, child.pid), "the child to be reaped by init")


@pytest.mark.passes("lwpuserret")
@since(300501, "3b6dbd26f3, 2013-06-01")
def test_a_signal_stack_that_is_too_small_is_refused(init: RemoteProcess) -> None:
    """ENOMEM, as POSIX has it (kern_sig.c: kern_sigaltstack)."""
    at = init.touch_memory(4096)
    with fails("ENOMEM"):
        init.syscall("sigaltstack", struct.pack("<QQii", at, 16, 0, 0), 0)


@pytest.mark.passes("pfind")
@since(300701, "763ff625ac, 2013-12-18")
@pytest.mark.parametrize("request_", ["PT_ATTACH", "PT_READ_D"])
def test_the_swapper_cannot_be_traced(init: RemoteProcess, request_: str) -> None:
    """It used to panic (sys_process.c: kern_ptrace, P_SYSTEM)."""
    with fails("EINVAL", "EPERM"):
        init.ptrace(request_, 0)
    assert init.getpid() == init.pid


@kern_proc("sysctl_kern_proc_pathname")
@pytest.mark.passes("prele")
@since(300703, "35c7df0f4f, 2014-03-09")
def test_asking_for_a_program_leaves_no_hold_on_the_process(init: RemoteProcess) -> None:
    """A process once asked about could not be reaped (kern_proc.c: sysctl_kern_proc_pathname)."""
    child = init.fork()
    assert init.sysctl.kern_proc_pathname(child.pid)
    child.start.exit(3)
    assert init.start.wait4(child.pid).result(20.0).exit_status == 3


@pytest.mark.passes("sysctl_kern_randompid", "proc_makepid")
@since(300705, "3a877e444f, 2014-04-21")
def test_pids_have_six_digits(init: RemoteProcess) -> None:
    """PID_MAX went from 99999 to 999999; a negative modulus shows it (sys/proc.h)."""
    with random_pids(init, -1):
        assert init.sysctl.get_int("kern.randompid") == 999_899


@pytest.mark.passes("proc_remove_zombie")
@since(400101, "6e2a912cb0 and f0d55ae9f6, 2014-11-09; 2cb910215e, 2014-11-11")
def test_a_reaper_inherits_the_orphans_below_it(init: RemoteProcess) -> None:
    """Instead of init (kern_fork.c: procctl, PROC_REAP_ACQUIRE)."""
    init.procctl_reaper_acquire()
    child = init.fork()
    grandchild = child.fork()
    bury(init, child)
    assert grandchild.getppid() == init.pid


# ---- 2015 and 2016 ------------------------------------------------------------------------------------------------


@pytest.mark.passes("sysctl_out_proc")
@since(400309, "76d46d1981, 2015-11-16")
def test_a_zombie_uses_no_cpu(init: RemoteProcess) -> None:
    """Its pctcpu is 0, however busy it was (kern_kinfo.c: fill_kinfo_lwp)."""
    child = init.fork()
    child.storm(200, seconds=5.0)
    child.exit()
    assert init.sysctl.kern_proc_all()[child.pid].lwp.pctcpu == 0


@pytest.mark.passes("sysctl_out_proc_kthread")
@since(400309, "e90cb8451d, 2015-11-17")
def test_idle_threads_are_told_from_busy_ones(init: RemoteProcess) -> None:
    """SIDL, all other kernel threads being SACTIVE (kern_kinfo.c: fill_kinfo_proc_kthread)."""
    threads = whole_table(init).kernel_threads
    idle = [row for row in threads if row.comm.startswith("idle_")]
    assert {row.stat for row in idle} == {ProcStat.SIDL}
    assert {row.stat for row in threads if row not in idle} == {ProcStat.SACTIVE}


@pytest.mark.passes("sysctl_out_proc_kthread")
@since(400309, "ade1f1b8f2, 2015-11-19")
def test_a_kernel_thread_is_one_thread(init: RemoteProcess) -> None:
    """Its nthreads is 1 (kern_kinfo.c: fill_kinfo_proc_kthread)."""
    assert {row.nthreads for row in whole_table(init).kernel_threads} == {1}


@pytest.mark.passes("sysctl_out_proc_kthread")
@since(400309, "bccb5dad40, 2015-11-16")
def test_a_kernel_thread_has_an_address(init: RemoteProcess) -> None:
    """By which ps tells one from another (kern_kinfo.c: kp_ktaddr)."""
    addresses = [row.ktaddr for row in whole_table(init).kernel_threads]
    assert addresses
    assert all(addresses)
    assert len(set(addresses)) == len(addresses)


@pytest.mark.passes("sysctl_out_proc")
@since(400309, "0ca59c3431, 2015-11-19")
def test_a_thread_has_a_name(init: RemoteProcess) -> None:
    """Kl_comm made struct kinfo_proc 976 bytes long (kern_kinfo.c: fill_kinfo_lwp)."""
    (row,) = init.sysctl.kern_proc_pid(init.pid)
    assert row.record_size >= 976
    assert row.lwp.comm == row.comm


@pytest.mark.passes("pfind")
@since(400503, "0a02ff72ed, 2016-02-13")
def test_a_blocked_signal_is_an_event_all_the_same(init: RemoteProcess) -> None:
    """EVFILT_SIGNAL reports what is sent, not what is delivered (kern_sig.c: lwpsignal)."""
    init.sigprocmask(SIG_BLOCK, [SIGUSR1])
    number = init.abi.signal_number(SIGUSR1)
    queue = init.syscall("kqueue").value
    event = Buffer(bytes(32), wanted=True)
    init.syscall("kevent", queue, struct.pack("<QhHIqQ", number, -6, 1, 0, 0, 0), 1, 0, 0, 0)
    init.kill(init.pid, SIGUSR1)
    result = init.syscall("kevent", queue, 0, 0, event, 1, struct.pack("<qq", 5, 0))
    assert (result.value, struct.unpack_from("<Qh", result.memory(event))) == (1, (number, -6))


@pytest.mark.passes("lwpuserret")
@since(400700, "ea5bffb971, 2016-07-07")
def test_a_new_thread_has_no_signal_stack(init: RemoteProcess) -> None:
    """It would be the same memory as its creator's (kern_fork.c: lwp_fork)."""
    at = init.touch_memory(65536)
    init.syscall("sigaltstack", struct.pack("<QQii", at, 65536, 0, 0), 0)
    current = Buffer(bytes(24), wanted=True)
    found = init.thread().syscall("sigaltstack", 0, current).memory(current)
    assert struct.unpack("<QQi4x", found) == (0, 0, 4)  # SS_DISABLE


@kern_proc("sysctl_kern_proc_pathname")
@since(400701, "726f7ca07e, 2016-08-05; 61917905a4")
def test_a_program_run_through_a_null_mount_is_told_by_that_path(init: RemoteProcess) -> None:
    """Not by the one it has below (kern_proc.c: sysctl_kern_proc_pathname, p_textnch)."""
    with null_mount(init, "/bin") as path:
        child = init.fork()
        run(init, child, f"{path}/sleep", "sleep", "1000")
        found = init.sysctl.kern_proc_pathname(child.pid)
        init.kill(child.pid, SIGKILL)
        init.wait4(child.pid)
    assert found == f"{path}/sleep"


@pytest.mark.passes("proc_makepid", "proc_remove_zombie")
@since(400704, "8cdef6cbcc, 2016-12-05")
@pytest.mark.parametrize("distance", [1, 9, 99_840, 256])
def test_a_reaped_pid_delays_no_other(init: RemoteProcess, allocator: PidAllocator, distance: int) -> None:
    """Each has a domain of its own; ten used to share one (kern_proc.c: PIDDOM_COUNT, PIDSEL_DOMAINS)."""
    allocator.rest_range(allocator.spare, 300)
    child = allocator.child_with(allocator.spare)
    bury(init, child)
    allocator.rest(allocator.spare + distance)
    assert allocator.ask_for(allocator.spare + distance) == allocator.spare + distance


# ---- 2017 and 2018 ------------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc_sigtramp")
@pytest.mark.passes("sysctl_kern_proc")
@since(400901, "e6141a7fee, 2017-03-29")
def test_the_signal_trampoline_can_be_located(init: RemoteProcess) -> None:
    """kern.proc.sigtramp: start and end, four words unused (kern_proc.c: sysctl_kern_proc_sigtramp)."""
    assert oid(init, "kern.proc.sigtramp") == proc_mib(10)
    start, end, *unused = struct.unpack("<6Q", init.sysctl.read("kern.proc.sigtramp"))
    assert start < end
    assert not any(unused)


@pytest.mark.passes("proc_add_allproc")
@since(400906, "e7e1189fb1, 2017-07-05")
def test_roots_processes_are_limited_too(init: RemoteProcess) -> None:
    """RLIMIT_NPROC used to be for others only (kern_fork.c: fork1)."""
    child = init.fork()
    child.setrlimit(Resource.RLIMIT_NPROC, 1)
    with fails(EAGAIN):
        child.vfork_exit()


@pytest.mark.passes("sysctl_out_proc")
@since(400906, "526c5c2b3c, 2017-07-08")
def test_the_first_thread_has_the_number_1(init: RemoteProcess) -> None:
    """It used to be 0 (kern_fork.c: lwp_fork)."""
    child = init.fork()
    child.reexec()
    assert child.gettid() == 1
    assert [row.lwp.tid for row in init.sysctl.kern_proc_pid(child.pid, lwp=True)] == [1]


@pytest.mark.passes("allproc_scan")
@since(500100, "a73d77929c, 2017-09-28")
def test_signals_do_not_leave_the_family_of_a_reaper(init: RemoteProcess) -> None:
    """Whoever is below a reaper may signal only what is below it, too (kern_sig.c: reaper_sigtest)."""
    reaper, outsider = init.fork(), init.fork()
    reaper.procctl_reaper_acquire()
    member, sibling = reaper.fork(), reaper.fork()
    for process in (outsider, member, sibling):
        process.setuid(SOMEBODY)
    member.kill(sibling.pid, 0)
    with fails(EPERM):
        member.kill(outsider.pid, 0)


@pytest.mark.passes("proc_remove_zombie")
@since(500103, "39b9b6cde2, 2017-10-19")
def test_the_parent_is_the_reaper_after_the_parents_end(init: RemoteProcess) -> None:
    """Getppid() tells the number kept in the process itself, which follows (kern_exit.c: exit1, p_ppid)."""
    init.procctl_reaper_acquire()
    child = init.fork()
    grandchild = child.fork()
    assert grandchild.getppid() == child.pid
    bury(init, child)
    assert grandchild.getppid() == init.pid
    assert init.sysctl.kern_proc_pid(grandchild.pid)[0].ppid == init.pid


@pytest.mark.passes("pholdzomb", "prelezomb")
@since(500317, "33b81dc963, 2018-09-30")
def test_a_child_can_be_looked_at_before_it_is_reaped(init: RemoteProcess) -> None:
    """WNOWAIT leaves it waitable; wait4() used to refuse the option (kern_exit.c: kern_wait)."""
    child = init.fork()
    child.exit(9)
    for _ in range(2):
        assert init.wait4(child.pid, WNOWAIT).exit_status == 9
    assert init.wait4(child.pid).exit_status == 9
    with fails("ECHILD"):
        init.wait4(child.pid, WNOHANG)


@pytest.mark.passes("pfind")
@since(500317, "33b81dc963, 2018-09-30")
def test_a_signal_tells_who_sent_it(init: RemoteProcess) -> None:
    """By pid and user; si_pid used to be 0 (kern_sig.c: sigsetfrompid)."""
    hearer, sender = init.fork(), init.fork()
    hearer.sigaction(SIGUSR1, Handler.LOG, SA_SIGINFO)
    for process in (hearer, sender):
        process.setuid(SOMEBODY)
    sender.kill(hearer.pid, SIGUSR1)
    record = hearer.await_signal(SIGUSR1)
    assert (record.pid, record.uid) == (sender.pid, SOMEBODY)


@pytest.mark.passes("zpfind")
@since(500317, "33b81dc963, 2018-09-30")
def test_wait6_waits_by_user_and_session(init: RemoteProcess) -> None:
    """The call is new, and so are P_UID and P_SID (kern_exit.c: sys_wait6)."""
    child, other = init.fork(), init.fork()
    child.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
    for process in (other, child):
        process.exit(4)
    assert init.wait6(IdType.P_UID, SOMEBODY, WEXITED).pid == child.pid
    assert init.wait6(IdType.P_SID, init.pid, WEXITED).pid == other.pid


# ---- 2019 and 2020 ------------------------------------------------------------------------------------------------

CLD_EXITED, CLD_KILLED = 1, 2  # sys/signal.h


@pytest.mark.passes("pholdzomb")
@since(500505, "bfd192f7d7, 2019-03-18")
@pytest.mark.parametrize(("killed", "code"), [(False, CLD_EXITED), (True, CLD_KILLED)])
def test_the_report_of_an_end_says_how_it_came(init: RemoteProcess, killed: bool, code: int) -> None:
    """Si_code used to be CLD_KILLED for both (kern_exit.c: kern_wait)."""
    child = init.fork()
    if killed:
        init.kill(child.pid, SIGTERM)
    else:
        child.exit(3)
    result = init.wait6(IdType.P_PID, child.pid, WEXITED)
    assert result.siginfo is not None
    assert result.siginfo.code == code


@pytest.mark.passes("pholdzomb")
@since(500505, "819542d736, 2019-03-18")
@pytest.mark.parametrize("how", [3, SIGKILL])
def test_the_report_of_an_end_has_its_status_decoded(init: RemoteProcess, how: int) -> None:
    """Si_status used to be the word wait4() returns (kern_exit.c: kern_wait)."""
    child = init.fork()
    ending: Callable[[], object] = (
        (lambda: init.kill(child.pid, SIGKILL)) if how is SIGKILL else (lambda: child.exit(3))
    )
    ending()
    result = init.wait6(IdType.P_PID, child.pid, WEXITED)
    assert result.siginfo is not None
    assert result.siginfo.status == int(how)


@pytest.mark.passes("pstall")
@since(500701, "be1f9ddcee, 2019-06-13, after ba69e3575b, 2019-05-29, had broken it")
def test_a_traced_process_stops_again_after_it_was_continued(init: RemoteProcess) -> None:
    """By a signal its tracer then sees (kern_sig.c: issignal, sys_process.c)."""
    child, tracer = init.fork(), init.fork()
    tracer.ptrace("PT_ATTACH", child.pid)
    await_stopped(init, child)
    assert tracer.start.wait4(child.pid).result(20.0).stop_signal == SIGSTOP
    tracer.ptrace("PT_CONTINUE", child.pid, 1, 0)
    init.kill(child.pid, SIGUSR1)
    await_stopped(init, child)
    assert tracer.start.wait4(child.pid).result(20.0).stop_signal == SIGUSR1
    tracer.ptrace("PT_DETACH", child.pid, 1, 0)
    assert child.getpid() == child.pid


@kern_proc("sysctl_out_proc")
@since(500702, "5deae5c64c, 2019-06-18")
def test_the_row_of_a_process_sums_up_its_threads(init: RemoteProcess) -> None:
    """Its thread id is -1; it used to be the first thread's row (kern_proc.c: sysctl_out_proc)."""
    child = init.fork()
    child.thread()
    (row,) = init.sysctl.kern_proc_pid(child.pid)
    assert row.lwp.tid == -1
    assert -1 not in {thread.lwp.tid for thread in init.sysctl.kern_proc_pid(child.pid, lwp=True)}


@pytest.mark.passes("enterpgrp", "sysctl_out_proc")
@since(500705, "e2e9821d30, 2019-09-10")
def test_login_names_may_have_32_characters(init: RemoteProcess) -> None:
    """MAXLOGNAME went from 17 to 33, and struct kinfo_proc from 976 to 992 bytes (sys/param.h)."""
    name = "a-name-of-more-than-16-characters"[:32]
    init.setlogin(name)
    (row,) = init.sysctl.kern_proc_pid(init.pid)
    assert (init.getlogin(), row.login) == (name, name)
    assert row.record_size >= 992


@kern_proc("sysctl_kern_proc_args")
@since(500709, "e7126f0a10, 2019-11-12")
def test_a_thread_has_a_title_of_its_own(init: RemoteProcess) -> None:
    """A second component of kern.proc.args names the thread (kern_proc.c: sysctl_kern_proc_args)."""
    thread = init.thread()
    init.sysctl.raw(proc_mib(ARGS, init.pid, thread.tid), None, b"the thread")
    assert init.sysctl.raw(proc_mib(ARGS, init.pid, thread.tid), 4096)[0].rstrip(b"\0") == b"the thread"
    assert b"the thread" not in init.sysctl.read(proc_mib(ARGS, init.pid))


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.passes("proc_usermap")
@since(500709, "e7126f0a10, 2019-11-12")
def test_a_title_set_by_sysctl_is_in_the_shared_page(init: RemoteProcess) -> None:
    """It used to replace the cached arguments (kern_proc.c: sysctl_kern_proc_args)."""
    init.sysctl.set_kern_proc_args(init.pid, b"a title for the page")
    fd = init.open("/dev/upmap", os.O_RDWR)
    at = init.syscall("mmap", 0, 65536, 3, 1, fd, 0, 0).wide
    reading, writing = init.pipe()
    init.syscall("write", writing, at, 4096)
    assert b"a title for the page" in init.read(reading, 4096)


@pytest.mark.passes("sysctl_out_proc")
@since(500709, "64b5a8a550, 2019-11-11")
def test_a_child_keeps_the_number_of_the_thread_that_forked_it(init: RemoteProcess) -> None:
    """It used to begin anew; execve() still does (kern_fork.c: lwp_fork)."""
    thread = init.thread()
    child = thread.fork()
    assert child.gettid() == thread.tid != init.gettid()
    child.reexec()
    assert child.gettid() == 1

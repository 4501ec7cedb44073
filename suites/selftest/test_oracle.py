# SPDX-License-Identifier: BSD-2-Clause
"""The oracle by itself: it has the interface of a driven process, keeps its books, and says so when it would wait."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from errno import EAGAIN, ECHILD, EINTR, EINVAL, EPERM
from itertools import pairwise
from signal import SIGCHLD, SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1

import pytest

from harness.errors import UsageError
from harness.oracle import Oracle, OracleProcess, OracleWouldBlock, make_oracle
from harness.oracle.process import OracleStart, OracleSysctlStart
from harness.oracle.sysctl import OracleSysctl
from harness.oracle.whitebox import OracleAllocator
from harness.processes import (
    SA_RESTART,
    WCONTINUED,
    WNOHANG,
    WUNTRACED,
    Handler,
    Process,
    ProcessGone,
    ProcessStopped,
    ProcStat,
    Resource,
    fails,
)
from harness.processes.kinfo import decode_kinfo


@pytest.fixture
def oracle() -> Oracle:
    return make_oracle()


@pytest.fixture
def init(oracle: Oracle) -> OracleProcess:
    return oracle.spawn()


# ---- The interface ------------------------------------------------------------------------------------------------


def test_an_oracle_process_is_a_process() -> None:
    """What mypy checks here is that a test written for Process can be given one of the oracle's."""

    def grandchild_of(process: Process) -> Process:
        return process.fork().fork()

    init = make_oracle().spawn()
    assert grandchild_of(init).getppid() == init.pid + 1


def test_an_unknown_variant_is_refused_by_name() -> None:
    with pytest.raises(
        UsageError, match=r"no variant of the oracle is called reuse-at-twice: did you mean .*reuse-at-once"
    ):
        make_oracle("reuse-at-twice")


def test_the_seed_decides_what_is_random() -> None:
    def pids(seed: int) -> list[int]:
        init = make_oracle(seed=seed).spawn()
        init.sysctl.set_int("kern.randompid", 5000)
        return [init.fork().pid for _ in range(5)]

    assert pids(1) == pids(1) != pids(2)


def test_a_spawned_process_leads_a_session_below_the_hub(oracle: Oracle, init: OracleProcess) -> None:
    assert (init.getppid(), init.getsid(), init.getpgrp()) == (oracle.hub_pid, init.pid, init.pid)
    assert init.getlogin() == "root"
    assert init.sigaction_query(SIGTERM).handler is Handler.DEFAULT


def test_a_process_that_has_ended_cannot_be_driven(init: OracleProcess) -> None:
    child = init.fork()
    child.exit(3)
    assert child.gone
    with pytest.raises(ProcessGone, match=r"getpid\(\): <oracle process \d+> is gone"):
        child.getpid()


def test_killing_oneself_does_not_return(init: OracleProcess) -> None:
    child = init.fork()
    with pytest.raises(ProcessGone):
        child.kill(child.pid, SIGKILL)
    assert init.wait4().signal == SIGKILL


def test_a_stopped_process_answers_when_it_is_continued(init: OracleProcess) -> None:
    child = init.fork()
    init.kill(child.pid, SIGSTOP)
    with pytest.raises(ProcessStopped):
        child.getpid()
    pending = child.start.getppid()
    assert not pending.done
    init.kill(child.pid, SIGCONT)
    assert pending.result() == init.pid


def test_stopping_oneself_returns_after_being_continued(init: OracleProcess) -> None:
    child = init.fork()
    pending = child.start.kill(child.pid, SIGSTOP)
    assert (pending.done, init.wait4(child.pid, WUNTRACED).stop_signal) == (False, SIGSTOP)
    init.kill(child.pid, SIGCONT)
    assert pending.result() is None
    assert init.wait4(child.pid, WCONTINUED).continued


def test_a_call_that_nothing_can_end_says_so(init: OracleProcess) -> None:
    init.fork()
    with pytest.raises(OracleWouldBlock, match=r"wait4\(-1, .*which nothing can end"):
        init.wait4()


def test_a_question_asked_too_often_says_so(init: OracleProcess) -> None:
    child = init.fork()

    def poll() -> None:
        while init.sysctl.kern_proc_pid(child.pid):
            pass

    with pytest.raises(OracleWouldBlock, match="after 20000 calls that changed nothing"):
        poll()


def test_a_started_wait_ends_with_the_child(init: OracleProcess) -> None:
    child = init.fork()
    pending = init.start.wait4(child.pid)
    assert not pending.done
    child.exit(5)
    assert pending.result().exit_status == 5


@pytest.mark.parametrize(("flags", "restarts"), [(SA_RESTART, True), (0, False)])
def test_a_handler_ends_a_wait_unless_it_restarts_it(init: OracleProcess, flags: int, restarts: bool) -> None:
    parent = init.fork()
    parent.fork()
    parent.sigaction(SIGUSR1, Handler.LOG, flags)
    pending = parent.start.wait4()
    init.kill(parent.pid, SIGUSR1)
    assert pending.done != restarts
    if not restarts:
        with fails(EINTR):
            pending.result()


def test_the_parent_of_a_vforked_child_waits_for_it(init: OracleProcess) -> None:
    child = init.vfork()
    with pytest.raises(OracleWouldBlock):
        init.getpid()
    pending = init.start.getppid()
    child.exit(1)
    assert pending.done
    assert init.wait4(child.pid).exit_status == 1


def test_running_another_program_lets_the_vfork_parent_go(init: OracleProcess) -> None:
    child = init.vfork()
    child.reexec()
    assert init.getpid() == init.pid
    with fails("EACCES"):
        init.setpgid(child.pid, 0)


# ---- Bulk work ----------------------------------------------------------------------------------------------------


def test_a_storm_takes_virtual_time_and_keeps_the_delay(init: OracleProcess) -> None:
    init.sysctl.set_int("kern.randompid", -1)
    storm = init.storm(40_000, until_repeat=True)
    assert storm.stopped
    assert all(before.reaped <= after.forked for before, after in pairwise(storm.records))
    last = storm.records[-1]
    first = next(record for record in storm.records if record.pid == last.pid)
    assert 10 <= last.forked - first.reaped <= storm.seconds
    assert init.storm(100, record=False).records == ()


def test_a_storm_without_permission_to_fork_tells_why(init: OracleProcess) -> None:
    child = init.fork()
    child.setrlimit(Resource.RLIMIT_NPROC, 1)
    child.setuid(61_001)
    storm = child.storm(10)
    assert (storm.count, storm.error, storm.failed) == (0, "EAGAIN", "fork")
    with fails(EAGAIN):
        child.fork()


def test_many_children_are_zombies_or_wait(init: OracleProcess) -> None:
    zombies, paused = init.spawn_many(5, status=3), init.spawn_many(5, paused=True, sessions=True)
    rows = init.sysctl.kern_proc_all()
    assert {rows[pid].stat for pid in zombies} == {ProcStat.SZOMB}
    assert {rows[pid].sid for pid in paused} == set(paused)
    assert init.wait4(zombies[0]).exit_status == 3


# ---- Details that are easily lost -------------------------------------------------------------------------------


def test_the_last_frame_pushed_is_the_first_handler_run(init: OracleProcess) -> None:
    child = init.fork()
    for signal in (SIGHUP, SIGUSR1, SIGCONT):
        child.sigaction(signal, Handler.LOG)
    init.kill(child.pid, SIGSTOP)
    for signal in (SIGHUP, SIGUSR1, SIGCONT):
        init.kill(child.pid, signal)
    assert [record.signal for record in child.signals()] == [SIGUSR1, SIGCONT, SIGHUP]


def test_a_signal_blocked_by_a_handlers_mask_comes_after_it(init: OracleProcess) -> None:
    child = init.fork()
    child.sigaction(SIGHUP, Handler.LOG, mask=(SIGUSR1,))
    child.sigaction(SIGUSR1, Handler.LOG)
    init.kill(child.pid, SIGSTOP)
    for signal in (SIGUSR1, SIGHUP, SIGCONT):
        init.kill(child.pid, signal)
    assert [record.signal for record in child.signals()] == [SIGHUP, SIGUSR1]


def test_a_vforked_child_with_a_stop_pending_forks_in_circles(init: OracleProcess) -> None:
    """A defect of the seed: fork() restarts for ever on a signal that is not handled (kern_fork.c: fork1)."""
    child = init.vfork()
    child.kill(child.pid, SIGSTOP)
    pending = child.start.fork()
    assert not pending.done
    assert not init.start.getpid().done


def test_a_waiting_vfork_parent_that_must_die_dies_before_its_child_is_a_zombie(oracle: Oracle) -> None:
    """So its child still counts in its group when it is discounted for the second time (kern_proc.c: fixjobc)."""
    init = oracle.spawn()
    parent = init.fork()
    child = parent.vfork()
    child.setpgid(0, 0)
    member = child.fork()
    init.kill(parent.pid, SIGTERM)
    child.exit()
    assert init.sysctl.kern_proc_pid(member.pid)[0].jobc == -1


def test_the_reaper_that_ignores_sigchld_has_zombies(init: OracleProcess) -> None:
    """There is nobody to hand them to (kern_exit.c: exit1)."""
    init.procctl_reaper_acquire()
    init.sigaction(SIGCHLD, Handler.IGNORE)
    init.fork().exit(9)
    assert init.wait4().exit_status == 9


def test_without_a_reaper_ignored_children_go_to_init(init: OracleProcess) -> None:
    init.sigaction(SIGCHLD, Handler.IGNORE)
    child = init.fork()
    child.exit()
    assert child.pid not in init.sysctl.kern_proc_all()
    with fails(ECHILD):
        init.wait4()


def test_the_table_as_bytes_says_the_same(init: OracleProcess) -> None:
    init.fork().setuid(61_001)
    assert decode_kinfo(init.sysctl.read((1, 14, 0), 1 << 20), 976) == list(init.sysctl.kern_proc_all())


def test_a_table_asked_for_its_size_adds_five_rows(init: OracleProcess) -> None:
    assert init.sysctl.size((1, 14, 2, init.pid)) == 6 * 976
    with fails("ENOMEM"):
        init.sysctl.raw((1, 14, 2, init.pid), 975)
    with fails(EINVAL):
        init.sysctl.raw((1, 14, 2), 4096)


def test_the_allocator_can_be_asked_for_a_pid(init: OracleProcess) -> None:
    allocator = OracleAllocator(init, 300_000)
    assert allocator.child_with(300_000).pid == 300_000
    assert allocator.ask_for(300_000) == 300_256
    assert allocator.skips()[1] == 1


def test_time_passes_for_the_delay_when_somebody_sleeps(init: OracleProcess) -> None:
    allocator = OracleAllocator(init, 300_000)
    child = allocator.child_with(300_000)
    child.exit()
    init.wait4(child.pid)
    assert allocator.ask_for(300_000) != 300_000
    init.sleep(11.5)
    assert allocator.ask_for(300_000) == 300_000


def test_only_root_writes_system_variables(init: OracleProcess) -> None:
    init.seteuid(61_001)
    with fails(EPERM):
        init.sysctl.set_int("kern.randompid", 100)
    with fails("ENOENT"):
        init.sysctl.get_int("kern.nonsense")


@pytest.mark.parametrize(
    "leave", [lambda child: child.exit(), lambda child: child.setsid(), lambda child: child.setpgid(0, 0)]
)
def test_nothing_is_left_of_a_process_that_came_and_went(
    oracle: Oracle, leave: Callable[[OracleProcess], object]
) -> None:
    init = oracle.spawn()
    k = oracle.kernel
    before = (len(k.procs), len(k.groups), len(k.sessions))
    child = init.fork()
    leave(child)
    if not child.gone:
        child.exit()
    init.wait4(child.pid)
    assert (len(k.procs), len(k.groups), len(k.sessions)) == before
    with fails(ECHILD):
        init.wait4(-1, WNOHANG)


def test_every_call_of_a_process_can_be_only_started() -> None:
    waits = {"execute", "await_gone", "await_end", "await_stop", "await_signal", "shared_page", "thread"}  # no calls
    for process, start in ((OracleProcess, OracleStart), (OracleSysctl, OracleSysctlStart)):
        calls = {name for name, _ in inspect.getmembers(process, inspect.isfunction) if name[0] != "_"}
        assert {name for name in vars(start) if name[0] != "_"} - {"sysctl"} == calls - waits

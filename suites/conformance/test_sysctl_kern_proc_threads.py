# SPDX-License-Identifier: BSD-2-Clause
"""Threads of processes in kern.proc, and the whole table under load (kern_proc.c: sysctl_out_proc())."""

from __future__ import annotations

from errno import ENOMEM, EPERM
from signal import SIGKILL

import pytest

from harness.processes import KinfoProc, ProcStat, RemoteProcess, fails, fails_with
from support.children import parked, zombies
from support.filters import FILTERS, all_processes
from support.processes import SOMEBODY, eventually, holds, stop
from support.sysctl import ARGS, CWD, PATHNAME, PID, proc_mib, setting, steady

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc

WORK = 100_000  # us


# ---- Threads ------------------------------------------------------------------------------------------------------


@kern_proc("sysctl_out_proc")
@pytest.mark.parametrize(
    "summed",
    [
        pytest.param(True, marks=pytest.mark.eras(since=500_702, reason="rows sum up threads since June 2019")),
        pytest.param(False, marks=pytest.mark.eras(until=500_701, reason="rows sum up threads since June 2019")),
    ],
)
def test_the_row_of_a_process_has_no_thread_id(init: RemoteProcess, summed: bool) -> None:
    """Being a sum it has -1; it used to be the row of the first thread (kern_proc.c: sysctl_out_proc)."""
    tid = init.gettid()
    assert [row.lwp.tid for row in init.sysctl.kern_proc_pid(init.pid)] == [-1 if summed else tid]
    assert [row.lwp.tid for row in init.sysctl.kern_proc_pid(init.pid, lwp=True)] == [tid]


@needs_kernel
@kern_proc("sysctl_out_proc")
@pytest.mark.passes("sysctl_kern_proc")
@pytest.mark.parametrize("by", ["all", "pid", *FILTERS])
@pytest.mark.parametrize("stopped", [False, True], ids=["living", "stopped"])
def test_a_process_has_one_row_and_in_the_thread_tables_one_per_thread(
    init: RemoteProcess, by: str, stopped: bool
) -> None:
    """kern.proc.X lists processes, kern.proc.X_lwp their threads (kern_proc.c: sysctl_out_proc)."""
    child = init.fork()
    tids = {child.gettid(), child.thread().tid, child.thread().tid}
    if stopped:
        stop(init, child)

    def rows(lwp: bool) -> list[KinfoProc]:
        if by == "pid":
            return init.sysctl.kern_proc_pid(child.pid, lwp=lwp)
        if by == "all":
            return init.sysctl.kern_proc_all(lwp=lwp).rows_of(child.pid)
        return FILTERS[by][0](init, {"pgrp": init.pid}.get(by, 0), lwp).rows_of(child.pid)

    (process,) = rows(lwp=False)
    assert process.nthreads == 3
    assert process.lwp.pid == child.pid  # which thread it is, or all of them, depends on the era
    threads = rows(lwp=True)
    assert sorted(row.lwp.tid for row in threads) == sorted(tids)
    assert {(row.pid, row.nthreads, row.lwp.pid) for row in threads} == {(child.pid, 3, child.pid)}


@needs_kernel
@kern_proc("sysctl_out_proc")
def test_the_row_of_a_thread_tells_its_own_time(init: RemoteProcess) -> None:
    """What the threads listed before it have used is not in it (kern_proc.c: sysctl_out_proc, fill_kinfo_lwp)."""
    child = init.fork()
    idle = child.thread()

    def used() -> dict[int, int]:
        rows = init.sysctl.kern_proc_pid(child.pid, lwp=True)
        return {row.lwp.tid: row.lwp.uticks + row.lwp.sticks for row in rows}

    def work() -> bool:
        child.repeat_until(fails_with("EXDEV"), "getpid", seconds=0.1)
        return used()[child.gettid()] >= WORK

    eventually(work, "its work to be counted")
    assert used()[idle.tid] < WORK / 2


@needs_kernel
@kern_proc("sysctl_out_proc")
@pytest.mark.passes("sysctl_kern_proc")
def test_the_terminals_thread_table_has_a_row_per_thread(init: RemoteProcess) -> None:
    """kern.proc.tty_lwp is one of the thread tables (kern_proc.c: sysctl_out_proc)."""
    _, slave, _ = init.openpty()
    init.set_controlling_tty(slave)
    init.thread()
    (row,) = init.sysctl.kern_proc_pid(init.pid)
    assert row.tdev is not None
    assert len(init.sysctl.kern_proc_tty(row.tdev)) == 1
    assert len(init.sysctl.kern_proc_tty(row.tdev, lwp=True)) == 2


@needs_kernel
@kern_proc("sysctl_out_proc")
def test_the_thread_table_agrees_with_the_thread_counts(init: RemoteProcess) -> None:
    """One row for each thread of each living process, one for each zombie (kern_proc.c: sysctl_out_proc)."""
    child = init.fork()
    child.thread()
    zombies(init, 2)
    counts, threads = steady(
        lambda: {row.pid: max(row.nthreads, 1) for row in all_processes(init)},
        lambda _: init.sysctl.kern_proc_all(lwp=True),
    )
    assert counts == {pid: len(threads.rows_of(pid)) for pid in counts}


# ---- Under load ---------------------------------------------------------------------------------------------------


@needs_kernel
@kern_proc("sysctl_kern_proc")
@pytest.mark.passes("sysctl_out_proc", "proc_makepid")
def test_the_table_is_consistent_during_a_fork_storm(init: RemoteProcess) -> None:
    """No process twice, none that lives all the time missing, and none half made (kern_proc.c: sysctl_kern_proc)."""
    survivors = {init.pid, 1, *parked(init, 50)}
    stormers = [init.fork() for _ in range(2)]
    stormers[0].touch_memory(16 << 20)  # copying it keeps its children unfinished for a while
    storms = [
        stormer.start.storm(count, kind, record=False, seconds=50.0)
        for stormer, kind, count in zip(stormers, ("fork", "vfork"), (100, 1000), strict=True)
    ]
    over = False
    while not over:
        over = all(storm.done for storm in storms)
        table = init.sysctl.kern_proc_all()
        assert len(set(table.pids)) == len(table.pids)
        assert survivors <= set(table.pids)
        assert [row for row in table if row.stat == ProcStat.SIDL and not row.is_kernel_thread] == []
        assert [row.pid for row in table if not row.comm] == []
    assert [storm.result().count for storm in storms] == [100, 1000]


@pytest.mark.passes(
    "sysctl_kern_proc", "sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname", "prele"
)
def test_looking_at_a_process_leaves_no_hold_on_it(init: RemoteProcess) -> None:
    """Whatever was asked, successfully or not, the hold count is back and the process can be reaped (kern_proc.c)."""
    child, user = init.fork(), init.fork()
    user.setuid(SOMEBODY)
    before = holds(init, child)
    for reader in (init, user):
        for lwp in (False, True):
            reader.sysctl.kern_proc_pid(child.pid, lwp=lwp)
            reader.sysctl.kern_proc_pgrp(init.pid, lwp=lwp)
            reader.sysctl.kern_proc_all(lwp=lwp)
        reader.sysctl.kern_proc_args(child.pid)
        reader.sysctl.kern_proc_cwd(child.pid)
        reader.sysctl.kern_proc_pathname(child.pid)
        with fails(EPERM):
            reader.sysctl.set_kern_proc_args(child.pid, b"no\0")
        for number in (PID, ARGS, CWD, PATHNAME):
            with fails(ENOMEM):
                reader.sysctl.raw(proc_mib(number, child.pid), 1)
        with setting(init, "kern.ps_argsopen", 0):
            reader.sysctl.kern_proc_args(child.pid)
            reader.sysctl.kern_proc_cwd(child.pid)
    assert holds(init, child) == before
    init.kill(child.pid, SIGKILL)
    eventually(lambda: init.sysctl.kern_proc_all()[child.pid].is_zombie, "the process to become a zombie")
    assert init.wait4(child.pid).signal == SIGKILL

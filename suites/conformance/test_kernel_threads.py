# SPDX-License-Identifier: BSD-2-Clause
"""Kernel threads in kern.proc: listed unasked until November 2022, since then on request (sysctl_kern_proc())."""

from __future__ import annotations

from errno import ENOENT

import pytest

from harness.processes import ProcFlag, ProcStat, ProcTable, RemoteProcess, fails
from support.children import parked
from support.kernel_threads import whole_table
from support.processes import SOMEBODY
from support.sysctl import ALL, LWKT, LWP, PGRP, PID, RUID, TTY, UID, oid, proc_mib, setting, steady

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc

TABLES = {"all": ALL, "pid": PID, "pgrp": PGRP, "tty": TTY, "uid": UID, "ruid": RUID}


# ---- Whether they are listed --------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc")
@pytest.mark.feature("!lwkt")
@pytest.mark.parametrize("lwp", [False, True])
def test_kernel_threads_are_listed_unasked(init: RemoteProcess, lwp: bool) -> None:
    """And nobody can ask for them (kern_proc.c: sysctl_kern_proc)."""
    assert init.sysctl.kern_proc_all(lwp=lwp).kernel_threads
    with fails(ENOENT):
        init.sysctl.kern_proc_all(lwp=lwp, lwkt=True)


@kern_proc("sysctl_kern_proc")
@pytest.mark.feature("lwkt")
@pytest.mark.parametrize("lwp", [False, True])
def test_kernel_threads_are_listed_on_request_only(init: RemoteProcess, lwp: bool) -> None:
    """KERN_PROC_FLAG_LWKT asks for them (kern_proc.c: sysctl_kern_proc)."""
    assert init.sysctl.kern_proc_all(lwp=lwp).kernel_threads == []
    assert init.sysctl.kern_proc_all(lwp=lwp, lwkt=True).kernel_threads


@kern_proc("sysctl_kern_proc")
@pytest.mark.feature("lwkt")
@pytest.mark.parametrize("lwp", [False, True])
def test_the_request_for_kernel_threads_adds_nothing_else(init: RemoteProcess, lwp: bool) -> None:
    """Of processes the same rows are listed with and without it (kern_proc.c: KERN_PROC_FLAG_LWKT)."""
    init.fork()

    def processes(table: ProcTable) -> list[tuple[int, int]]:
        return sorted((row.pid, row.lwp.tid) for row in table if not row.is_kernel_thread)

    without, with_them = steady(
        lambda: processes(init.sysctl.kern_proc_all(lwp=lwp)),
        lambda _: processes(init.sysctl.kern_proc_all(lwp=lwp, lwkt=True)),
    )
    assert with_them == without


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("lwkt")
@pytest.mark.parametrize(("name", "number"), TABLES.items())
def test_each_table_with_kernel_threads_has_its_number(init: RemoteProcess, name: str, number: int) -> None:
    """Programs use the numbers of <sys/sysctl.h>: 0x20 more, with threads 0x30 (kern_proc.c: SYSCTL_NODE)."""
    assert oid(init, f"kern.proc.{name}_lwkt") == proc_mib(number | LWKT)
    assert oid(init, f"kern.proc.{name}_lwp_lwkt") == proc_mib(number | LWP | LWKT)


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("!lwkt")
@pytest.mark.parametrize(("name", "number"), TABLES.items())
def test_no_table_has_a_number_with_kernel_threads(init: RemoteProcess, name: str, number: int) -> None:
    """Neither by name nor by number (kern_proc.c: SYSCTL_NODE)."""
    argument = () if name == "all" else (init.pid,)
    for flags, suffix in ((LWKT, "_lwkt"), (LWP | LWKT, "_lwp_lwkt")):
        with fails(ENOENT):
            oid(init, f"kern.proc.{name}{suffix}")
        with fails(ENOENT):
            init.sysctl.raw(proc_mib(number | flags, *argument), 1 << 20)


# ---- What their rows say ------------------------------------------------------------------------------------------


@kern_proc("sysctl_out_proc_kthread")
@pytest.mark.passes("sysctl_kern_proc")
@pytest.mark.passes("sysctl_out_proc_kthread")
@pytest.mark.parametrize("lwp", [False, True])
def test_kernel_threads_are_in_the_whole_table(init: RemoteProcess, lwp: bool) -> None:
    """With pid and tid -1, as system processes of one thread, by name (kern_proc.c: sysctl_out_proc_kthread)."""
    threads = whole_table(init, lwp=lwp).kernel_threads
    assert {(row.pid, row.lwp.pid, row.lwp.tid, row.nthreads) for row in threads} == {(-1, -1, -1, 1)}
    assert {row.flags for row in threads} == {ProcFlag.P_SYSTEM}
    assert all(row.comm for row in threads)
    assert len({row.ktaddr for row in threads}) == len(threads)


@pytest.mark.cpus(2)
@kern_proc("sysctl_kern_proc")
@pytest.mark.passes("sysctl_out_proc_kthread")
def test_the_kernel_threads_of_all_cpus_are_listed(init: RemoteProcess) -> None:
    """Each CPU's queue is visited once; its idle thread shows as SIDL (kern_proc.c: sysctl_kern_proc)."""
    cpus = init.sysctl.get_int("hw.ncpu")
    threads = whole_table(init).kernel_threads
    assert {row.lwp.cpuid for row in threads} == set(range(cpus))
    assert len({row.ktaddr for row in threads}) == len(threads)
    idle = {row.comm: row.stat for row in threads if row.comm.startswith("idle_")}
    assert idle == {f"idle_{cpu}": ProcStat.SIDL for cpu in range(cpus)}


@needs_kernel
@kern_proc("sysctl_kern_proc")
def test_threads_of_processes_are_not_among_the_kernel_threads(init: RemoteProcess) -> None:
    """Those that belong to a process are passed over (kern_proc.c: td_proc)."""
    before = {row.ktaddr for row in whole_table(init).kernel_threads}
    assert before
    parked(init, 20)
    child = init.fork()
    child.thread()
    after = {row.ktaddr for row in whole_table(init).kernel_threads}
    assert len(after - before) < 20
    assert not {row.comm for row in whole_table(init).kernel_threads} & {"executor"}


# ---- Where they are not -------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwkt", [False, pytest.param(True, marks=pytest.mark.feature("lwkt"))])
@pytest.mark.parametrize("lwp", [False, True])
def test_kernel_threads_are_in_no_filtered_table(init: RemoteProcess, lwp: bool, lwkt: bool) -> None:
    """They have no group, terminal or user to be asked for, requested or not (kern_proc.c: sysctl_kern_proc)."""
    sysctl = init.sysctl
    tables = [
        sysctl.kern_proc_pgrp(0, lwp=lwp, lwkt=lwkt),
        sysctl.kern_proc_uid(0, lwp=lwp, lwkt=lwkt),
        sysctl.kern_proc_ruid(0, lwp=lwp, lwkt=lwkt),
        sysctl.kern_proc_tty(-1, lwp=lwp, lwkt=lwkt),
    ]
    assert init.pid in tables[1]
    assert [row for table in tables for row in table.kernel_threads] == []
    assert sysctl.kern_proc_pid(-1, lwp=lwp, lwkt=lwkt) == []


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
@pytest.mark.parametrize("uid", [0, SOMEBODY])
def test_kernel_threads_can_be_hidden(init: RemoteProcess, uid: int, lwp: bool) -> None:
    """security.ps_showallthreads=0 hides them from everybody, and processes from nobody (kern_proc.c)."""
    user = init.fork()
    user.setuid(uid)
    assert whole_table(user, lwp=lwp).kernel_threads
    with setting(init, "security.ps_showallthreads", 0):
        table = whole_table(user, lwp=lwp)
    assert table.kernel_threads == []
    assert {1, init.pid, user.pid} <= set(table.pids)


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("value", [2, -1])
def test_any_value_but_zero_shows_everything(init: RemoteProcess, value: int) -> None:
    """Neither switch is clamped (kern_proc.c: SYSCTL_INT)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    with setting(init, "security.ps_showallthreads", value), setting(init, "security.ps_showallprocs", value):
        table = whole_table(user)
    assert table.kernel_threads
    assert {1, init.pid, user.pid} <= set(table.pids)


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_kernel_threads_are_in_no_jail(init: RemoteProcess, lwp: bool) -> None:
    """A jailed process is shown none, whether it asks for them or not (kern_proc.c: jailed)."""
    jailed = init.fork()
    jailed.jail("/")
    assert jailed.sysctl.kern_proc_all(lwp=lwp).kernel_threads == []
    table = whole_table(jailed, lwp=lwp)
    assert (table.pids[0], table.kernel_threads) == (jailed.pid, [])

"""The kern.proc nodes: which rows they list, to whom, and what they say about arguments, directories and programs.

`init` is root, leads a session and a group of its own and has no terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EFAULT, EINVAL, EISDIR, ENOENT, ENOMEM, ENOTDIR, EPERM, ESRCH
from signal import SIGKILL

import pytest

from harness.processes import KinfoProc, Process, ProcFlag, ProcStat, ProcTable, RemoteProcess, fails

from ._children import allow_many, parked, zombies
from ._help import NO_SUCH_ID, SOMEBODY, SOMEBODY_ELSE, bury, eventually, holds, stop
from ._kernel import PidAllocator
from ._sysctl import ALL, ARGS, CWD, LWP, PATHNAME, PGRP, PID, RUID, TTY, UID, attempt, oid, proc_mib, setting, steady

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc

TABLES = {"all": ALL, "pid": PID, "pgrp": PGRP, "tty": TTY, "uid": UID, "ruid": RUID}
OTHERS = {"args": ARGS, "cwd": CWD, "pathname": PATHNAME}
WITH_ARGUMENT = [
    *((name, number) for name, number in TABLES.items() if name != "all"),
    *((f"{name}_lwp", number | LWP) for name, number in TABLES.items() if name != "all"),
    *OTHERS.items(),
]
BEFORE_TITLES_IN_UPMAP = pytest.mark.eras(
    until=500709, reason="titles live in a page shared with the process since 5.8"
)


def record_size(process: RemoteProcess) -> int:
    """Return sizeof(struct kinfo_proc) of this kernel."""
    return len(process.sysctl.read(proc_mib(PID, process.pid)))


# ---- The nodes ----------------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc", "sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
@pytest.mark.parametrize(
    ("name", "number"),
    [*TABLES.items(), *((f"{name}_lwp", number | LWP) for name, number in TABLES.items()), *OTHERS.items()],
)
def test_each_node_has_its_number(init: RemoteProcess, name: str, number: int) -> None:
    """Programs use the numbers of <sys/sysctl.h>; the thread tables are those plus 0x10 (kern_proc.c: SYSCTL_NODE)."""
    assert oid(init, f"kern.proc.{name}") == proc_mib(number)


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("number", [3, 3 | LWP, ARGS | LWP, CWD | LWP, PATHNAME | LWP, 99])
def test_other_numbers_are_no_nodes(init: RemoteProcess, number: int) -> None:
    """KERN_PROC_SESSION has never had a node; only tables have a thread variant (kern_sysctl.c: sysctl_find_oid)."""
    with fails(ENOENT):
        init.sysctl.raw(proc_mib(number, init.pid), 4096)


@kern_proc("sysctl_kern_proc", "sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
@pytest.mark.parametrize(("name", "number"), WITH_ARGUMENT)
def test_a_node_with_an_argument_needs_it(init: RemoteProcess, name: str, number: int) -> None:
    """Without a pid, group, terminal or user: EINVAL (kern_proc.c: namelen)."""
    with fails(EINVAL):
        init.sysctl.raw(proc_mib(number), 4096)


@kern_proc("sysctl_kern_proc", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
@pytest.mark.parametrize(("name", "number"), [node for node in WITH_ARGUMENT if node[0] != "args"])
def test_a_node_with_an_argument_takes_only_one(init: RemoteProcess, name: str, number: int) -> None:
    """A surplus component of the name is EINVAL (kern_proc.c: namelen)."""
    with fails(EINVAL):
        init.sysctl.raw(proc_mib(number, init.pid, init.pid), 4096)


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.eras(until=500709, reason="a second component names a thread since 5.8")
def test_args_takes_only_a_pid(init: RemoteProcess) -> None:
    """A surplus component of the name is EINVAL (kern_proc.c: sysctl_kern_proc_args)."""
    with fails(EINVAL):
        init.sysctl.raw(proc_mib(ARGS, init.pid, 0), 4096)


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize(("node", "error"), [((), EISDIR), ((ALL, 0), ENOTDIR), ((ALL | LWP, 0), EINVAL)])
def test_the_whole_table_takes_no_argument(init: RemoteProcess, node: tuple[int, ...], error: int) -> None:
    """`all` is a leaf and `all_lwp` a node that checks by itself (kern_sysctl.c: sysctl_find_oid, sysctl_kern_proc)."""
    with fails(error):
        init.sysctl.raw(proc_mib(*node), 1 << 20)


@kern_proc("sysctl_kern_proc", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
@pytest.mark.parametrize("name", [*TABLES, *(f"{name}_lwp" for name in TABLES), "cwd", "pathname"])
def test_nobody_writes_to_what_can_only_be_read(init: RemoteProcess, name: str) -> None:
    """EPERM even for root; of all nodes only args can be written (kern_sysctl.c: sysctl_root)."""
    argument = () if name.startswith("all") else (init.pid,)
    with fails(EPERM):
        init.sysctl.raw((*oid(init, f"kern.proc.{name}"), *argument), None, bytes(4))


# ---- Lengths ------------------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc", "sysctl_out_proc")
@pytest.mark.parametrize("lwp", [0, LWP])
@pytest.mark.parametrize("table", ["all", "pgrp", "uid", "ruid"])
def test_asked_for_its_size_a_table_adds_room_for_five_more(init: RemoteProcess, table: str, lwp: int) -> None:
    """There may be more processes by the time of the real call (kern_proc.c: sysctl_kern_proc)."""
    init.setresuid(0, 0, 0)
    parked(init, 3)
    mib = proc_mib(TABLES[table] | lwp, *{"all": (), "pgrp": (init.pid,)}.get(table, (0,)))
    length, size = steady(lambda: len(init.sysctl.read(mib, 1 << 20)), lambda _: init.sysctl.size(mib))
    assert size == length + 5 * record_size(init)


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [0, LWP])
@pytest.mark.parametrize("table", ["pgrp", "tty", "uid", "ruid"])
def test_asked_for_its_size_an_empty_table_says_five(init: RemoteProcess, table: str, lwp: int) -> None:
    """Yet nothing is returned by the real call (kern_proc.c: sysctl_kern_proc)."""
    mib = proc_mib(TABLES[table] | lwp, NO_SUCH_ID)
    assert init.sysctl.size(mib) == 5 * record_size(init)
    assert init.sysctl.read(mib) == b""


@kern_proc("sysctl_kern_proc", "pfind")
@pytest.mark.parametrize("lwp", [0, LWP])
def test_the_size_of_one_process_is_exact(init: RemoteProcess, lwp: int) -> None:
    """One row for a process, none for a pid nobody has (kern_proc.c: sysctl_kern_proc)."""
    (child,) = parked(init)
    assert init.sysctl.size(proc_mib(PID | lwp, child)) == record_size(init)
    assert init.sysctl.size(proc_mib(PID | lwp, NO_SUCH_ID)) == 0


@kern_proc("sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
def test_only_pathname_tells_how_long_its_answer_would_be(init: RemoteProcess) -> None:
    """The others look at the process only when there is room for an answer (kern_proc.c: req->oldptr)."""
    assert init.sysctl.size(proc_mib(ARGS, init.pid)) == 0
    assert init.sysctl.size(proc_mib(CWD, init.pid)) == 0
    assert init.sysctl.size(proc_mib(PATHNAME, -1)) == len(init.sysctl.kern_proc_pathname(-1)) + 1


@needs_kernel
@kern_proc("sysctl_kern_proc", "sysctl_out_proc")
@pytest.mark.parametrize("rows", [0, 1, 2.5, 4, 4.99])
@pytest.mark.parametrize("table", ["pgrp", "pgrp_lwp"])
def test_a_table_that_does_not_fit_is_cut_off(init: RemoteProcess, table: str, rows: float) -> None:
    """ENOMEM; the buffer is full, its length returned, nothing beyond it touched (kern_sysctl.c: sysctl_old_user)."""
    parked(init, 4)
    mib = (*oid(init, f"kern.proc.{table}"), init.pid)
    size = record_size(init)
    whole = init.sysctl.read(mib, 1 << 20)
    assert len(whole) == 5 * size
    room = int(rows * size)
    found = attempt(init, mib, room)
    assert (found.error, found.length, found.kept_within) == ("ENOMEM", room, True)
    assert found.untouched == 0
    for row in range(int(rows)):
        pid = slice(row * size + 220, row * size + 224)  # kp_pid, the same in all eras
        assert found.content[pid] == whole[pid]


@needs_kernel
@kern_proc("sysctl_kern_proc", "sysctl_out_proc_kthread")
@pytest.mark.parametrize("missing", [1, 2000, 20_000])
def test_the_whole_table_is_cut_off_among_kernel_threads_too(init: RemoteProcess, missing: int) -> None:
    """They come last (kern_proc.c: sysctl_kern_proc)."""
    length, found = steady(
        lambda: len(init.sysctl.read(proc_mib(ALL), 1 << 20)),
        lambda length: attempt(init, proc_mib(ALL), length - missing),
    )
    assert (found.error, found.length, found.kept_within, found.untouched) == ("ENOMEM", length - missing, True, 0)


@needs_kernel
@kern_proc("sysctl_kern_proc", "sysctl_out_proc")
def test_a_table_that_fits_exactly_is_complete(init: RemoteProcess) -> None:
    """And what is left of a larger buffer is not touched (kern_sysctl.c: sysctl_old_user)."""
    parked(init, 2)
    mib, size = proc_mib(PGRP, init.pid), 3 * record_size(init)
    exact = attempt(init, mib, size)
    assert (exact.error, exact.length, exact.kept_within) == (None, size, True)
    larger = attempt(init, mib, size + 1000)
    assert (larger.error, larger.length, larger.untouched) == (None, size, 1000)


@needs_kernel
@kern_proc("sysctl_kern_proc", "sysctl_out_proc")
def test_one_process_that_does_not_fit_is_cut_off(init: RemoteProcess) -> None:
    """ENOMEM, and as much as fits (kern_proc.c: sysctl_out_proc)."""
    (child,) = parked(init)
    room = record_size(init) - 1
    found = attempt(init, proc_mib(PID, child), room)
    assert (found.error, found.length, found.kept_within) == ("ENOMEM", room, True)
    assert int.from_bytes(found.content[220:224], "little") == child


@needs_kernel
@kern_proc("sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
@pytest.mark.parametrize("node", ["args", "cwd", "pathname"])
@pytest.mark.parametrize("missing", [1, 3])
def test_a_string_that_does_not_fit_is_cut_off(init: RemoteProcess, node: str, missing: int) -> None:
    """ENOMEM, and as much as fits (kern_sysctl.c: sysctl_old_user)."""
    init.chdir("/dev")
    mib = proc_mib(OTHERS[node], init.pid)
    whole = init.sysctl.read(mib)
    found = attempt(init, mib, len(whole) - missing)
    assert (found.error, found.length, found.kept_within) == ("ENOMEM", len(whole) - missing, True)
    assert found.content == whole[:-missing]


# ---- One process --------------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc", "sysctl_out_proc", "pfind")
def test_a_process_is_listed_with_its_relations(init: Process) -> None:
    """pid, parent, group, session and users (kern_kinfo.c: fill_kinfo_proc)."""
    child = init.fork()
    child.setpgid(0, 0)
    child.setresuid(SOMEBODY, SOMEBODY_ELSE, 0)
    (row,) = init.sysctl.kern_proc_pid(child.pid)
    assert (row.pid, row.ppid, row.pgid, row.sid) == (child.pid, init.pid, child.pid, init.pid)
    assert (row.ruid, row.uid, row.svuid) == (SOMEBODY, SOMEBODY_ELSE, 0)
    assert row.stat == ProcStat.SACTIVE


@kern_proc("sysctl_kern_proc", "pfind")
def test_a_process_finds_itself_and_its_parent(init: Process) -> None:
    """pfind() has a short way for the caller itself (kern_proc.c: pfind)."""
    child = init.fork()
    assert [row.pid for row in child.sysctl.kern_proc_pid(child.pid)] == [child.pid]
    assert [row.pid for row in child.sysctl.kern_proc_pid(init.pid)] == [init.pid]


@kern_proc("sysctl_kern_proc", "pfind")
@pytest.mark.parametrize("pid", [NO_SUCH_ID, -1, -2, -(2**31), 2**31 - 1])
def test_nobody_is_found_under_a_pid_nobody_has(init: Process, pid: int) -> None:
    """No error, and no row (kern_proc.c: sysctl_kern_proc)."""
    assert init.sysctl.kern_proc_pid(pid) == []
    assert init.sysctl.kern_proc_pid(pid, lwp=True) == []


@kern_proc("pfind", "proc_remove_zombie")
def test_a_reaped_process_is_found_no_more(init: Process) -> None:
    """Neither under its pid nor in the table (kern_proc.c: proc_remove_zombie)."""
    child = init.fork()
    bury(init, child)
    assert init.sysctl.kern_proc_pid(child.pid) == []
    assert child.pid not in init.sysctl.kern_proc_all()


@kern_proc("sysctl_kern_proc", "proc_move_allproc_zombie")
def test_a_zombie_is_listed_in_the_table_but_not_under_its_pid(init: Process) -> None:
    """pfind() passes over zombies, the table does not (kern_proc.c: pfind, sysctl_kern_proc)."""
    zombie = init.fork()
    zombie.exit()
    assert init.sysctl.kern_proc_pid(zombie.pid) == []
    assert init.sysctl.kern_proc_all()[zombie.pid].stat == ProcStat.SZOMB


# ---- Filters ------------------------------------------------------------------------------------------------------


def one_of_each(init: Process) -> list[Process]:
    """Make children of all kinds: some in one group, of several users, stopped ones and zombies among them."""
    users = [(0, 0), (SOMEBODY, SOMEBODY), (SOMEBODY, SOMEBODY_ELSE), (SOMEBODY_ELSE, SOMEBODY), (0, SOMEBODY)]
    family = [init.fork() for _ in range(2 * len(users))]
    leader = family[0]
    for number, child in enumerate(family):
        if number % 3 == 0:
            child.setpgid(0, leader.pid)
    for child, (ruid, euid) in zip(family, users * 2, strict=True):
        child.setresuid(ruid, euid, SOMEBODY)
    for zombie in family[len(users) :]:
        zombie.exit()
    for stopped in family[1 : len(users) : 2]:
        stop(init, stopped)
    return family


def processes(observer: Process) -> list[KinfoProc]:
    """Return the rows of all processes, without kernel threads."""
    return [row for row in observer.sysctl.kern_proc_all() if not row.is_kernel_thread]


Query = Callable[[Process, int, bool], ProcTable]
FILTERS: dict[str, tuple[Query, Callable[[KinfoProc], int]]] = {
    "pgrp": (lambda process, value, lwp: process.sysctl.kern_proc_pgrp(value, lwp=lwp), lambda row: row.pgid),
    "uid": (lambda process, value, lwp: process.sysctl.kern_proc_uid(value, lwp=lwp), lambda row: row.uid),
    "ruid": (lambda process, value, lwp: process.sysctl.kern_proc_ruid(value, lwp=lwp), lambda row: row.ruid),
}


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
@pytest.mark.parametrize("by", FILTERS)
def test_a_filter_lists_what_the_whole_table_shows_to_fit(init: Process, by: str, lwp: bool) -> None:
    """By group, effective and real user, the stopped and zombies included (kern_proc.c: sysctl_kern_proc)."""
    query, key = FILTERS[by]
    family = {child.pid for child in one_of_each(init)}
    table, listed = steady(
        lambda: {row.pid: key(row) for row in processes(init)},
        lambda table: {value: sorted(query(init, value, lwp).pids) for value in {table[pid] for pid in family}},
    )
    assert len(listed) > 1
    for value, pids in listed.items():
        assert pids == sorted(pid for pid, own in table.items() if own == value)


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("by", ["uid", "ruid"])
def test_large_user_ids_are_told_apart(init: Process, by: str) -> None:
    """All 32 bits count (kern_proc.c: sysctl_kern_proc)."""
    one, other = init.fork(), init.fork()
    one.setuid(SOMEBODY)
    other.setuid(SOMEBODY + (1 << 16))
    query, _ = FILTERS[by]
    for user, listed, missing in ((SOMEBODY, one, other), (SOMEBODY + (1 << 16), other, one)):
        pids = query(init, user, False).pids
        assert (listed.pid in pids, missing.pid in pids) == (True, False)


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_the_users_of_the_filters_are_the_effective_and_the_real_one(init: Process, lwp: bool) -> None:
    """And not the saved one (kern_proc.c: KERN_PROC_UID, KERN_PROC_RUID)."""
    child, other = init.fork(), init.fork()
    child.setresuid(SOMEBODY, SOMEBODY_ELSE, 0)
    other.setresuid(0, 0, SOMEBODY)
    assert init.sysctl.kern_proc_ruid(SOMEBODY, lwp=lwp).pids == [child.pid]
    assert init.sysctl.kern_proc_uid(SOMEBODY_ELSE, lwp=lwp).pids == [child.pid]
    assert init.sysctl.kern_proc_uid(SOMEBODY, lwp=lwp).pids == []
    assert init.sysctl.kern_proc_ruid(SOMEBODY_ELSE, lwp=lwp).pids == []


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_the_group_filter_takes_groups_and_not_pids(init: Process, lwp: bool) -> None:
    """A member's pid that is no group's number lists nothing (kern_proc.c: KERN_PROC_PGRP)."""
    member = init.fork()
    assert init.sysctl.kern_proc_pgrp(member.pid, lwp=lwp).pids == []
    assert sorted(init.sysctl.kern_proc_pgrp(init.pid, lwp=lwp).pids) == sorted([init.pid, member.pid])


@needs_kernel
@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_the_terminal_filter_lists_whose_controlling_terminal_it_is(init: RemoteProcess, lwp: bool) -> None:
    """The session's processes, but not one that gave it up, left or has another (kern_proc.c: KERN_PROC_TTY)."""
    _, slave, _ = init.openpty()
    init.set_controlling_tty(slave)
    child, stopped, zombie, without, departed = (init.fork() for _ in range(5))
    stop(init, stopped)
    zombie.exit()
    without.drop_controlling_tty(without.open("/dev/tty", os.O_RDWR))
    departed.setsid()
    another = init.fork()
    another.setsid()
    _, other_slave, _ = another.openpty()
    another.set_controlling_tty(other_slave)
    (row,) = init.sysctl.kern_proc_pid(child.pid)
    (other_row,) = init.sysctl.kern_proc_pid(another.pid)
    assert row.tdev is not None
    assert other_row.tdev is not None
    assert row.tdev != other_row.tdev
    members = init.sysctl.kern_proc_tty(row.tdev, lwp=lwp).pids
    assert sorted(members) == sorted([init.pid, child.pid, stopped.pid, zombie.pid])
    assert init.sysctl.kern_proc_tty(other_row.tdev, lwp=lwp).pids == [another.pid]


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_processes_without_a_terminal_are_listed_by_no_terminal(init: RemoteProcess, lwp: bool) -> None:
    """Not even by the number that stands for none (kern_proc.c: KERN_PROC_TTY)."""
    for device in (-1, 0):
        assert list(init.sysctl.kern_proc_tty(device, lwp=lwp)) == []


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("by", FILTERS)
@pytest.mark.parametrize("value", [NO_SUCH_ID, -1])
def test_a_filter_that_fits_nobody_lists_nothing(init: Process, by: str, value: int) -> None:
    """It is no error (kern_proc.c: sysctl_kern_proc)."""
    assert list(FILTERS[by][0](init, value, False)) == []
    assert list(FILTERS[by][0](init, value, True)) == []


@kern_proc("sysctl_kern_proc")
def test_processes_of_every_hash_chain_are_listed(init: RemoteProcess, allocator: PidAllocator) -> None:
    """By the whole table and by each filter (kern_proc.c: ALLPROC_HSIZE)."""
    allow_many(init)
    living = set(allocator.one_in_each_chain(init))
    for table in (
        init.sysctl.kern_proc_all(),
        init.sysctl.kern_proc_all(lwp=True),
        init.sysctl.kern_proc_pgrp(init.pid),
        init.sysctl.kern_proc_uid(0),
        init.sysctl.kern_proc_ruid(0, lwp=True),
    ):
        assert living <= set(table.pids)


@needs_kernel
@kern_proc("sysctl_kern_proc", "pfind")
@pytest.mark.parametrize("lwp", [False, True])
def test_processes_are_listed_in_every_state(init: RemoteProcess, lwp: bool) -> None:
    """Stopped, traced, vforked, waiting for such a child, dead: all but the unborn (kern_proc.c: sysctl_kern_proc)."""
    stopped, traced, waiting, dead = (init.fork() for _ in range(4))
    stop(init, stopped)
    traced.ptrace("PT_TRACE_ME", 0)
    stop(init, traced)
    vforked = waiting.vfork()
    dead.exit()
    expected = sorted(process.pid for process in (init, stopped, traced, waiting, vforked, dead))
    assert sorted(init.sysctl.kern_proc_pgrp(init.pid, lwp=lwp).pids) == expected
    for table in (init.sysctl.kern_proc_all(lwp=lwp), init.sysctl.kern_proc_uid(0, lwp=lwp)):
        assert set(expected) <= set(table.pids)
    for process in (stopped, traced, waiting, vforked):
        assert [row.pid for row in init.sysctl.kern_proc_pid(process.pid, lwp=lwp)] == [process.pid]


# ---- Threads ------------------------------------------------------------------------------------------------------


@needs_kernel
@kern_proc("sysctl_out_proc", "sysctl_kern_proc")
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
@kern_proc("sysctl_out_proc", "sysctl_kern_proc")
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
        lambda: {row.pid: max(row.nthreads, 1) for row in processes(init)},
        lambda _: init.sysctl.kern_proc_all(lwp=True),
    )
    assert counts == {pid: len(threads.rows_of(pid)) for pid in counts}


@kern_proc("sysctl_out_proc_kthread", "sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_kernel_threads_are_in_the_whole_table(init: RemoteProcess, lwp: bool) -> None:
    """With pid and tid -1, as system processes of one thread, under their names (kern_kinfo.c)."""
    threads = init.sysctl.kern_proc_all(lwp=lwp).kernel_threads
    assert {(row.pid, row.lwp.pid, row.lwp.tid, row.nthreads) for row in threads} == {(-1, -1, -1, 1)}
    assert {row.flags for row in threads} == {ProcFlag.P_SYSTEM}
    assert all(row.comm for row in threads)
    assert len({row.ktaddr for row in threads}) == len(threads)


@pytest.mark.cpus(2)
@kern_proc("sysctl_out_proc_kthread", "sysctl_kern_proc")
def test_the_kernel_threads_of_all_cpus_are_listed(init: RemoteProcess) -> None:
    """Each CPU's queue is visited once; its idle thread shows as SIDL (kern_proc.c: sysctl_kern_proc)."""
    cpus = init.sysctl.get_int("hw.ncpu")
    threads = init.sysctl.kern_proc_all().kernel_threads
    assert {row.lwp.cpuid for row in threads} == set(range(cpus))
    assert len({row.ktaddr for row in threads}) == len(threads)
    idle = {row.comm: row.stat for row in threads if row.comm.startswith("idle_")}
    assert idle == {f"idle_{cpu}": ProcStat.SIDL for cpu in range(cpus)}


@needs_kernel
@kern_proc("sysctl_kern_proc")
def test_threads_of_processes_are_not_among_the_kernel_threads(init: RemoteProcess) -> None:
    """Those that belong to a process are passed over (kern_proc.c: td_proc)."""
    before = {row.ktaddr for row in init.sysctl.kern_proc_all().kernel_threads}
    parked(init, 20)
    child = init.fork()
    child.thread()
    after = {row.ktaddr for row in init.sysctl.kern_proc_all().kernel_threads}
    assert len(after - before) < 20
    assert not {row.comm for row in init.sysctl.kern_proc_all().kernel_threads} & {"executor"}


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_kernel_threads_are_in_no_filtered_table(init: RemoteProcess, lwp: bool) -> None:
    """They have no group, terminal or user to be asked for (kern_proc.c: sysctl_kern_proc)."""
    tables = [query(init, 0, lwp) for query, _ in FILTERS.values()] + [init.sysctl.kern_proc_tty(-1, lwp=lwp)]
    assert [row for table in tables for row in table.kernel_threads] == []
    assert init.sysctl.kern_proc_pid(-1, lwp=lwp) == []


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
@pytest.mark.parametrize("uid", [0, SOMEBODY])
def test_kernel_threads_can_be_hidden(init: RemoteProcess, uid: int, lwp: bool) -> None:
    """security.ps_showallthreads=0 hides them from everybody, and processes from nobody (kern_proc.c)."""
    user = init.fork()
    user.setuid(uid)
    assert user.sysctl.kern_proc_all(lwp=lwp).kernel_threads
    with setting(init, "security.ps_showallthreads", 0):
        table = user.sysctl.kern_proc_all(lwp=lwp)
    assert table.kernel_threads == []
    assert {1, init.pid, user.pid} <= set(table.pids)


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("value", [2, -1])
def test_any_value_but_zero_shows_everything(init: RemoteProcess, value: int) -> None:
    """Neither switch is clamped (kern_proc.c: SYSCTL_INT)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    with setting(init, "security.ps_showallthreads", value), setting(init, "security.ps_showallprocs", value):
        table = user.sysctl.kern_proc_all()
    assert table.kernel_threads
    assert {1, init.pid, user.pid} <= set(table.pids)


# ---- Who sees whom ------------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("name", ["security.ps_showallprocs", "security.ps_showallthreads"])
def test_by_default_everything_is_shown_and_only_root_can_change_that(init: RemoteProcess, name: str) -> None:
    """Both switches are on and need privilege to be set (kern_proc.c: SYSCTL_INT)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    assert user.sysctl.get_int(name) == 1
    with fails(EPERM):
        user.sysctl.set_int(name, 0)
    assert init.sysctl.get_int(name) == 1


@kern_proc("sysctl_kern_proc")
def test_any_user_sees_all_processes(init: RemoteProcess) -> None:
    """Unless the administrator decided otherwise (kern_proc.c: ps_showallprocs)."""
    family = one_of_each(init)
    user = init.fork()
    user.setuid(SOMEBODY)
    assert {child.pid for child in family} | {init.pid, 1} <= set(user.sysctl.kern_proc_all().pids)
    assert user.sysctl.kern_proc_all().kernel_threads


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
@pytest.mark.parametrize("by", ["all", *FILTERS])
def test_processes_of_others_can_be_hidden(init: RemoteProcess, by: str, lwp: bool) -> None:
    """With ps_showallprocs=0 a user sees those with which a real or effective user is shared (p_trespass)."""
    family = {child.pid for child in one_of_each(init)}
    user = init.fork()
    user.setuid(SOMEBODY)
    visible = {row.pid for row in processes(init) if SOMEBODY in (row.uid, row.ruid)}
    assert family - visible
    with setting(init, "security.ps_showallprocs", 0):
        if by == "all":
            assert set(user.sysctl.kern_proc_all(lwp=lwp).pids) == visible
            assert family <= set(init.sysctl.kern_proc_all(lwp=lwp).pids)
        else:
            query, key = FILTERS[by]
            table = {row.pid: key(row) for row in init.sysctl.kern_proc_all() if row.pid in visible}
            for value in {init.pid, 0, SOMEBODY, SOMEBODY_ELSE}:
                expected = {pid for pid, own in table.items() if own == value}
                assert set(query(user, value, lwp).pids) == expected


@kern_proc("sysctl_kern_proc")
def test_kernel_threads_are_shown_while_processes_of_others_are_hidden(init: RemoteProcess) -> None:
    """The two switches are independent (kern_proc.c: ps_showallprocs, ps_showallthreads)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    with setting(init, "security.ps_showallprocs", 0):
        table = user.sysctl.kern_proc_all()
    assert table.pids == [user.pid]
    assert table.kernel_threads


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_a_hidden_process_is_still_found_by_its_pid(init: RemoteProcess, lwp: bool) -> None:
    """The switch is about lists (kern_proc.c: sysctl_kern_proc)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    with setting(init, "security.ps_showallprocs", 0):
        assert [row.pid for row in user.sysctl.kern_proc_pid(init.pid, lwp=lwp)] == [init.pid]


@needs_kernel
@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_a_jailed_process_sees_its_jail_alone(init: RemoteProcess, lwp: bool) -> None:
    """In the table, by group and by user; kernel threads belong to no jail (kern_proc.c: PRISON_CHECK)."""
    one_of_each(init)
    jailed = init.fork()
    jailed.jail("/")
    inmate, zombie = jailed.fork(), jailed.fork()
    zombie.exit()
    inside = sorted([jailed.pid, inmate.pid, zombie.pid])
    table = jailed.sysctl.kern_proc_all(lwp=lwp)
    assert sorted(table.pids) == inside
    assert table.kernel_threads == []
    for query, value in [(FILTERS["pgrp"][0], init.pid), (FILTERS["uid"][0], 0), (FILTERS["ruid"][0], 0)]:
        assert sorted(query(jailed, value, lwp).pids) == inside


@needs_kernel
@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize("lwp", [False, True])
def test_a_jailed_process_finds_nobody_outside_by_pid(init: RemoteProcess, lwp: bool) -> None:
    """As if they did not exist, and nothing holds on to them afterwards (kern_proc.c: PRISON_CHECK)."""
    jailed, other = init.fork(), init.fork()
    jailed.jail("/")
    other.jail("/")
    inmate = jailed.fork()
    before = holds(init, other)
    assert [row.pid for row in jailed.sysctl.kern_proc_pid(inmate.pid, lwp=lwp)] == [inmate.pid]
    for pid in (other.pid, 1, init.pid):
        assert jailed.sysctl.kern_proc_pid(pid, lwp=lwp) == []
    assert holds(init, other) == before


@needs_kernel
@kern_proc("sysctl_kern_proc")
def test_jailed_processes_are_seen_from_outside_with_the_number_of_their_jail(init: RemoteProcess) -> None:
    """A process that is not jailed sees all jails (sys/proc.h: PRISON_CHECK)."""
    jailed = init.fork()
    jid = jailed.jail("/")
    assert jid > 0
    assert init.sysctl.kern_proc_pid(jailed.pid)[0].jailid == jid
    assert init.sysctl.kern_proc_all()[jailed.pid].jailid == jid
    assert init.sysctl.kern_proc_pid(init.pid)[0].jailid == 0


# ---- Arguments and titles -----------------------------------------------------------------------------------------


def raw_args(observer: RemoteProcess, pid: int) -> bytes:
    """Return kern.proc.args.PID as it is."""
    return observer.sysctl.read(proc_mib(ARGS, pid))


def run(observer: RemoteProcess, process: RemoteProcess, program: str, *argv: str) -> None:
    """Let PROCESS run another program; return when it does so for certain: its args are set last (kern_exec.c)."""
    process.execve(program, argv)
    expected = "".join(f"{argument}\0" for argument in argv).encode()
    eventually(lambda: raw_args(observer, process.pid) == expected, f"{process.pid} to run {program}")


@kern_proc("sysctl_kern_proc_args")
def test_args_are_those_the_program_was_started_with(init: RemoteProcess) -> None:
    """Each ended by a null byte (kern_exec.c: p_args)."""
    child = init.fork()
    run(init, child, "/bin/sleep", "any name", "1000")
    assert init.sysctl.kern_proc_args(child.pid) == [b"any name", b"1000"]


@kern_proc("sysctl_kern_proc_args")
def test_args_beyond_the_limit_are_not_kept(init: RemoteProcess) -> None:
    """All of them or none, 8 bytes of header included in kern.ps_arg_cache_limit (kern_exec.c: p_args)."""
    fitting, surplus = init.fork(), init.fork()
    run(init, fitting, "/bin/sleep", "x" * (256 - 8 - 6), "1000")
    surplus.execve("/bin/sleep", ["x" * (256 - 8 - 5), "1000"])
    eventually(lambda: init.sysctl.kern_proc_pid(surplus.pid)[0].comm == "sleep", "the program to run")
    eventually(lambda: raw_args(init, surplus.pid) == b"", "its args to be dropped")


@kern_proc("sysctl_kern_proc_args")
def test_a_child_begins_with_its_parents_args(init: RemoteProcess) -> None:
    """fork() shares them (kern_fork.c: p_args)."""
    assert raw_args(init, init.fork().pid) == raw_args(init, init.pid) != b""


@kern_proc("sysctl_kern_proc_args")
def test_a_process_gives_itself_a_title(init: RemoteProcess) -> None:
    """Writing to its own args replaces them for every reader (kern_proc.c: sysctl_kern_proc_args)."""
    child = init.fork()
    child.sysctl.set_kern_proc_args(child.pid, b"a title of two words\0")
    for reader in (child, init):
        assert reader.sysctl.kern_proc_args(child.pid) == [b"a title of two words"]


@kern_proc("sysctl_kern_proc_args")
@BEFORE_TITLES_IN_UPMAP
def test_a_title_is_kept_byte_for_byte(init: RemoteProcess) -> None:
    """The kernel adds no terminator and looks at none (kern_proc.c: sysctl_kern_proc_args)."""
    for title in (b"abc", b"a\0b\0", bytes(range(256))[:200], b""):
        init.sysctl.set_kern_proc_args(init.pid, title)
        assert raw_args(init, init.pid) == title


@kern_proc("sysctl_kern_proc_args")
def test_writing_returns_the_old_args_if_asked_for(init: RemoteProcess) -> None:
    """One call reads and then sets (kern_proc.c: sysctl_kern_proc_args)."""
    before = raw_args(init, init.pid)
    assert init.sysctl.raw(proc_mib(ARGS, init.pid), 4096, b"new\0")[0] == before
    assert init.sysctl.kern_proc_args(init.pid)[0] == b"new"


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.parametrize("title", [b"a\0", b"child of its parent's title, which is much shorter than this one is\0"])
def test_a_child_that_gives_itself_a_title_leaves_its_parents_alone(init: RemoteProcess, title: bytes) -> None:
    """They had the same one, in the same memory (kern_fork.c: fork1, ar_ref; kern_proc.c: sysctl_kern_proc_args)."""
    parent = init.fork()
    parent.sysctl.set_kern_proc_args(parent.pid, b"parents and childs\0")
    child = parent.fork()
    child.sysctl.set_kern_proc_args(child.pid, title)
    assert raw_args(init, child.pid) == title
    assert raw_args(init, parent.pid) == b"parents and childs\0"


@kern_proc("sysctl_kern_proc_args")
def test_an_ordinary_user_may_set_his_title(init: RemoteProcess) -> None:
    """No privilege is needed for one's own (kern_proc.c: CTLFLAG_ANYBODY)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    user.sysctl.set_kern_proc_args(user.pid, b"mine\0")
    assert init.sysctl.kern_proc_args(user.pid) == [b"mine"]


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.parametrize("whose", ["child", "parent"])
def test_nobody_sets_the_title_of_another(init: RemoteProcess, whose: str) -> None:
    """EPERM, root or not, and the title stays (kern_proc.c: sysctl_kern_proc_args)."""
    child = init.fork()
    writer, other = (init, child) if whose == "child" else (child, init)
    before = raw_args(init, other.pid)
    with fails(EPERM):
        writer.sysctl.set_kern_proc_args(other.pid, b"yours\0")
    assert raw_args(init, other.pid) == before


@kern_proc("sysctl_kern_proc_args")
def test_a_childs_title_is_not_its_parents(init: RemoteProcess) -> None:
    """Setting replaces the shared args for the one process only (kern_proc.c: sysctl_kern_proc_args)."""
    before = raw_args(init, init.pid)
    child, other = init.fork(), init.fork()
    child.sysctl.set_kern_proc_args(child.pid, b"one\0")
    other.sysctl.set_kern_proc_args(other.pid, b"two\0")
    bury(init, child)
    assert (raw_args(init, init.pid), init.sysctl.kern_proc_args(other.pid)) == (before, [b"two"])


@kern_proc("sysctl_kern_proc_args")
def test_another_program_has_no_title_yet(init: RemoteProcess) -> None:
    """execve() sets its own args (kern_exec.c)."""
    child = init.fork()
    child.sysctl.set_kern_proc_args(child.pid, b"a title\0")
    run(init, child, "/bin/sleep", "sleep", "1000")
    assert init.sysctl.kern_proc_args(child.pid) == [b"sleep", b"1000"]


@kern_proc("sysctl_kern_proc_args")
@BEFORE_TITLES_IN_UPMAP
@pytest.mark.parametrize(("limit", "longest"), [(256, 248), (100, 92), (1000, 992)])
def test_a_title_beyond_the_limit_is_ignored(init: RemoteProcess, limit: int, longest: int) -> None:
    """kern.ps_arg_cache_limit counts an 8-byte header, too; no error is returned (sysctl_kern_proc_args)."""
    with setting(init, "kern.ps_arg_cache_limit", limit):
        init.sysctl.set_kern_proc_args(init.pid, b"y" * longest)
        assert raw_args(init, init.pid) == b"y" * longest
        init.sysctl.set_kern_proc_args(init.pid, b"z" * (longest + 1))
        assert raw_args(init, init.pid) == b"y" * longest


@needs_kernel
@kern_proc("sysctl_kern_proc_args")
def test_a_title_that_cannot_be_read_is_not_set(init: RemoteProcess) -> None:
    """EFAULT for a bad address (kern_sysctl.c: userland_sysctl)."""
    before = raw_args(init, init.pid)
    name = b"".join(part.to_bytes(4, "little") for part in proc_mib(ARGS, init.pid))
    with fails(EFAULT):
        init.syscall("__sysctl", name, 4, 0, 0, 0x1000, 10)
    assert raw_args(init, init.pid) == before


@kern_proc("sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "pfind")
def test_nobody_and_zombies_have_neither_args_nor_a_directory(init: RemoteProcess) -> None:
    """Nothing is returned, and no error (kern_proc.c: sysctl_kern_proc_args, sysctl_kern_proc_cwd)."""
    zombie = init.fork()
    zombie.exit()
    for pid in (zombie.pid, NO_SUCH_ID, -1):
        assert (raw_args(init, pid), init.sysctl.kern_proc_cwd(pid)) == (b"", "")


@kern_proc("sysctl_kern_proc_args")
def test_setting_the_title_of_nobody_does_nothing(init: RemoteProcess) -> None:
    """No error either (kern_proc.c: sysctl_kern_proc_args)."""
    init.sysctl.set_kern_proc_args(NO_SUCH_ID, b"nobody\0")


@kern_proc("sysctl_kern_proc_args", "sysctl_kern_proc_cwd")
@pytest.mark.parametrize("is_open", [0, 1])
@pytest.mark.parametrize(
    ("reader", "whose"),
    [
        ((SOMEBODY, SOMEBODY), (SOMEBODY, SOMEBODY)),
        ((SOMEBODY, SOMEBODY), (SOMEBODY_ELSE, SOMEBODY_ELSE)),
        ((SOMEBODY, SOMEBODY), (SOMEBODY_ELSE, SOMEBODY)),
        ((SOMEBODY, SOMEBODY), (0, 0)),
        ((0, 0), (SOMEBODY, SOMEBODY)),
    ],
)
def test_args_and_directory_can_be_closed_to_other_users(
    init: RemoteProcess, reader: tuple[int, int], whose: tuple[int, int], is_open: int
) -> None:
    """kern.ps_argsopen=0: only root and whoever shares a real or effective user sees them (p_trespass)."""
    one, other = init.fork(), init.fork()
    one.setresuid(*reader, reader[0])
    other.setresuid(*whose, whose[0])
    allowed = is_open or reader == (0, 0) or bool(set(reader) & set(whose))
    with setting(init, "kern.ps_argsopen", is_open):
        assert bool(raw_args(one, other.pid)) == bool(allowed)
        assert bool(one.sysctl.kern_proc_cwd(other.pid)) == bool(allowed)
        assert raw_args(one, one.pid)
        assert one.sysctl.kern_proc_cwd(one.pid)


# ---- Working directory --------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc_cwd")
def test_cwd_follows_chdir(init: Process) -> None:
    """A child begins in its parent's directory and then goes its own way (kern_proc.c: sysctl_kern_proc_cwd)."""
    init.chdir("/dev")
    child = init.fork()
    assert init.sysctl.kern_proc_cwd(child.pid) == "/dev"
    child.chdir("/")
    assert (init.sysctl.kern_proc_cwd(child.pid), child.sysctl.kern_proc_cwd(init.pid)) == ("/", "/dev")


@contextmanager
def folder(process: RemoteProcess) -> Iterator[str]:
    """Make a directory that is removed afterwards."""
    path = f"/tmp/conformance-{process.pid}"  # noqa: S108  (in the guest)
    process.mkdir(path)
    try:
        yield path
    finally:
        process.chdir("/")
        process.rmdir(path)


@kern_proc("sysctl_kern_proc_cwd")
def test_cwd_ends_with_a_null_byte_and_nothing_else(init: RemoteProcess) -> None:
    """Its length is that of the string (kern_proc.c: sysctl_kern_proc_cwd)."""
    init.chdir("/dev")
    assert init.sysctl.read(proc_mib(CWD, init.pid)) == b"/dev\0"


@needs_kernel
@kern_proc("sysctl_kern_proc_cwd")
def test_cwd_is_the_directorys_present_name(init: RemoteProcess) -> None:
    """Renaming it shows at once (vfs_cache.c: cache_fullpath)."""
    child = init.fork()
    with folder(init) as path:
        child.chdir(path)
        init.rename(path, f"{path}-renamed")
        found = init.sysctl.kern_proc_cwd(child.pid)
        init.rename(f"{path}-renamed", path)
    assert found == f"{path}-renamed"


@needs_kernel
@kern_proc("sysctl_kern_proc_cwd")
def test_cwd_is_told_from_the_processs_own_root(init: RemoteProcess) -> None:
    """Not from the reader's (vfs_cache.c: cache_fullpath, fd_nrdir)."""
    child = init.fork()
    with folder(init) as path:
        init.mkdir(f"{path}/inner")
        child.chroot(path)
        child.chdir("/inner")
        found = init.sysctl.kern_proc_cwd(child.pid)
        child.exit()
        init.rmdir(f"{path}/inner")
    assert found == "/inner"


@needs_kernel
@kern_proc("sysctl_kern_proc_cwd")
def test_a_directory_outside_the_processs_root_has_no_name(init: RemoteProcess) -> None:
    """ENOENT (vfs_cache.c: cache_fullpath)."""
    child = init.fork()
    with folder(init) as path:
        child.chdir("/dev")
        child.chroot(path)
        with fails(ENOENT):
            init.sysctl.kern_proc_cwd(child.pid)
        child.exit()


# ---- Program ------------------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc_pathname")
def test_pathname_of_minus_one_is_the_callers_own(init: RemoteProcess) -> None:
    """Short for its own pid (kern_proc.c: sysctl_kern_proc_pathname)."""
    child = init.fork()
    own = init.sysctl.kern_proc_pathname(-1)
    assert own.endswith("/executor")
    assert (init.sysctl.kern_proc_pathname(init.pid), child.sysctl.kern_proc_pathname(-1)) == (own, own)


@kern_proc("sysctl_kern_proc_pathname")
def test_pathname_is_the_program_a_process_runs(init: RemoteProcess) -> None:
    """Its full path after execve(), for anybody (kern_proc.c: sysctl_kern_proc_pathname)."""
    child, user = init.fork(), init.fork()
    user.setuid(SOMEBODY)
    run(init, child, "/bin/sleep", "sleep", "1000")
    for reader in (init, user):
        assert reader.sysctl.read(proc_mib(PATHNAME, child.pid)) == b"/bin/sleep\0"


@needs_kernel
@kern_proc("sysctl_kern_proc_pathname")
def test_pathname_is_the_files_own_even_if_it_was_started_by_a_link(init: RemoteProcess) -> None:
    """Symbolic links have been followed (kern_exec.c: p_textnch)."""
    child = init.fork()
    with folder(init) as path:
        init.syscall("symlink", "/bin/sleep", f"{path}/link")
        run(init, child, f"{path}/link", "sleep", "1000")
        found = init.sysctl.kern_proc_pathname(child.pid)
        init.unlink(f"{path}/link")
    assert found == "/bin/sleep"


@kern_proc("sysctl_kern_proc_pathname", "pfind")
def test_pathname_of_nobody_or_a_zombie_is_refused(init: RemoteProcess) -> None:
    """ESRCH, unlike args and cwd (kern_proc.c: sysctl_kern_proc_pathname)."""
    zombie = init.fork()
    zombie.exit()
    for pid in (zombie.pid, NO_SUCH_ID, -2):
        with fails(ESRCH):
            init.sysctl.kern_proc_pathname(pid)


@needs_kernel
@kern_proc("sysctl_kern_proc_pathname")
def test_a_program_outside_the_processs_root_has_no_path(init: RemoteProcess) -> None:
    """ENOENT (vfs_cache.c: cache_fullpath)."""
    child = init.fork()
    with folder(init) as path:
        child.chroot(path)
        with fails(ENOENT):
            init.sysctl.kern_proc_pathname(child.pid)
        with fails(ENOENT):
            child.sysctl.kern_proc_pathname(-1)
        child.exit()


# ---- Under load ---------------------------------------------------------------------------------------------------


@needs_kernel
@kern_proc("sysctl_kern_proc", "sysctl_out_proc", "proc_makepid")
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


@kern_proc("sysctl_kern_proc", "sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname", "prele")
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

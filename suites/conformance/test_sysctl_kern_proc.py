# SPDX-License-Identifier: BSD-2-Clause
"""The kern.proc nodes: which rows they list, to whom, and what they say about arguments, directories and programs.

`init` is root, leads a session and a group of its own and has no terminal.
"""

from __future__ import annotations

import struct
from errno import EINVAL, EISDIR, ENOENT, ENOMEM, ENOTDIR, EPERM

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import Process, ProcStat, RemoteProcess, fails
from harness.processes.memory import OwnMemory
from harness.processes.shared_pages import shared_page
from support.children import parked
from support.kernel_threads import whole_table_number
from support.processes import NO_SUCH_ID, SOMEBODY, SOMEBODY_ELSE, bury
from support.sysctl import (
    ALL,
    ARGS,
    CWD,
    LWKT,
    LWP,
    PATHNAME,
    PGRP,
    PID,
    RUID,
    TTY,
    UID,
    attempt,
    oid,
    proc_mib,
    setting,
    steady,
)

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


TABLES = {"all": ALL, "pid": PID, "pgrp": PGRP, "tty": TTY, "uid": UID, "ruid": RUID}
OTHERS = {"args": ARGS, "cwd": CWD, "pathname": PATHNAME}
WITH_ARGUMENT = [
    *((name, number) for name, number in TABLES.items() if name != "all"),
    *((f"{name}_lwp", number | LWP) for name, number in TABLES.items() if name != "all"),
    *OTHERS.items(),
]


def record_size(process: RemoteProcess) -> int:
    """Return sizeof(struct kinfo_proc) of this kernel."""
    return len(process.sysctl.read(proc_mib(PID, process.pid)))


# ---- The nodes ----------------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_makepid")
@pytest.mark.parametrize(
    ("name", "number"),
    [*TABLES.items(), *((f"{name}_lwp", number | LWP) for name, number in TABLES.items()), *OTHERS.items()],
)
def test_each_node_has_its_number(init: RemoteProcess, name: str, number: int) -> None:
    """Programs use the numbers of <sys/sysctl.h>; the thread tables are those plus 0x10 (kern_proc.c: SYSCTL_NODE)."""
    assert oid(init, f"kern.proc.{name}") == proc_mib(number)


@pytest.mark.passes("proc_makepid")
@pytest.mark.parametrize("number", [3, 3 | LWP, ARGS | LWP, CWD | LWP, PATHNAME | LWP, 99])
def test_other_numbers_are_no_nodes(init: RemoteProcess, number: int) -> None:
    """KERN_PROC_SESSION has never had a node; only tables have a thread variant (kern_sysctl.c: sysctl_find_oid)."""
    with fails(ENOENT):
        init.sysctl.raw(proc_mib(number, init.pid), 4096)


@pytest.mark.passes("sysctl_kern_proc", "sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
@pytest.mark.parametrize(("name", "number"), WITH_ARGUMENT)
def test_a_node_with_an_argument_needs_it(init: RemoteProcess, name: str, number: int) -> None:
    """Without a pid, group, terminal or user: EINVAL (kern_proc.c: namelen)."""
    with fails(EINVAL):
        init.sysctl.raw(proc_mib(number), 4096)


@pytest.mark.passes("sysctl_kern_proc", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
@pytest.mark.parametrize(("name", "number"), [node for node in WITH_ARGUMENT if node[0] != "args"])
def test_a_node_with_an_argument_takes_only_one(init: RemoteProcess, name: str, number: int) -> None:
    """A surplus component of the name is EINVAL (kern_proc.c: namelen)."""
    with fails(EINVAL):
        init.sysctl.raw(proc_mib(number, init.pid, init.pid), 4096)


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.feature("!thread_titles")
def test_args_takes_only_a_pid(init: RemoteProcess) -> None:
    """A surplus component of the name is EINVAL (kern_proc.c: sysctl_kern_proc_args)."""
    with fails(EINVAL):
        init.sysctl.raw(proc_mib(ARGS, init.pid, 0), 4096)


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.passes("lwpfind")
@pytest.mark.feature("thread_titles")
def test_args_takes_a_pid_and_a_thread_but_no_more(init: RemoteProcess) -> None:
    """A third component of the name is EINVAL (kern_proc.c: sysctl_kern_proc_args)."""
    init.sysctl.raw(proc_mib(ARGS, init.pid, init.gettid()), 4096)
    with fails(EINVAL):
        init.sysctl.raw(proc_mib(ARGS, init.pid, init.gettid(), 0), 4096)


@pytest.mark.needs_kernel
@kern_proc("sysctl_kern_proc_sigtramp")
@pytest.mark.eras(since=400_901, reason="kern.proc.sigtramp came with e6141a7fee, 2017-03-29")
def test_the_signal_trampoline_is_where_it_is_said_to_be(init: RemoteProcess, kernel: Whitebox) -> None:
    """The kernel's code for it lies there, no byte less and none more (kern_proc.c: sysctl_kern_proc_sigtramp)."""
    start, end, *_ = struct.unpack("<6Q", init.sysctl.read("kern.proc.sigtramp"))
    code = kernel.read(kernel.address("sigcode"), kernel.word("szsigcode"))
    assert end - start == len(code)
    assert OwnMemory(init).read(start, len(code)) == code


@kern_proc("sysctl_kern_proc_sigtramp")
@pytest.mark.eras(since=400_901, reason="kern.proc.sigtramp came with e6141a7fee, 2017-03-29")
def test_the_signal_trampoline_is_told_whole_and_of_nobody_in_particular(init: RemoteProcess) -> None:
    """Too little room is ENOMEM; the node is a leaf that takes no pid (kern_proc.c: sysctl_kern_proc_sigtramp)."""
    mib = oid(init, "kern.proc.sigtramp")
    answer, length = init.sysctl.raw(mib, 4096)
    assert length == len(answer) == 48
    with fails(ENOTDIR):
        init.sysctl.raw((*mib, init.pid), 4096)
    with fails(ENOMEM):
        init.sysctl.raw(mib, 47)


@kern_proc("sysctl_kern_proc")
@pytest.mark.parametrize(("node", "error"), [((), EISDIR), ((ALL, 0), ENOTDIR), ((ALL | LWP, 0), EINVAL)])
def test_the_whole_table_takes_no_argument(init: RemoteProcess, node: tuple[int, ...], error: int) -> None:
    """`all` is a leaf and `all_lwp` a node that checks by itself (kern_sysctl.c: sysctl_find_oid, sysctl_kern_proc)."""
    with fails(error):
        init.sysctl.raw(proc_mib(*node), 1 << 20)


@pytest.mark.passes("proc_makepid")
@pytest.mark.parametrize("name", [*TABLES, *(f"{name}_lwp" for name in TABLES), "cwd", "pathname"])
def test_nobody_writes_to_what_can_only_be_read(init: RemoteProcess, name: str) -> None:
    """EPERM even for root; of all nodes only args can be written (kern_sysctl.c: sysctl_root)."""
    argument = () if name.startswith("all") else (init.pid,)
    with fails(EPERM):
        init.sysctl.raw((*oid(init, f"kern.proc.{name}"), *argument), None, bytes(4))


# ---- Lengths ------------------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc")
@pytest.mark.passes("sysctl_out_proc")
@pytest.mark.parametrize("lwp", [0, LWP, pytest.param(LWKT, marks=pytest.mark.feature("lwkt"))])
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


@kern_proc("sysctl_kern_proc")
@pytest.mark.passes("pfind")
@pytest.mark.parametrize("lwp", [0, LWP])
def test_the_size_of_one_process_is_exact(init: RemoteProcess, lwp: int) -> None:
    """One row for a process, none for a pid nobody has (kern_proc.c: sysctl_kern_proc)."""
    (child,) = parked(init)
    assert init.sysctl.size(proc_mib(PID | lwp, child)) == record_size(init)
    assert init.sysctl.size(proc_mib(PID | lwp, NO_SUCH_ID)) == 0


@pytest.mark.passes("sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
@pytest.mark.feature("!size_queries")
def test_only_pathname_tells_how_long_its_answer_would_be(init: RemoteProcess) -> None:
    """The others look at the process only when there is room for an answer (kern_proc.c: req->oldptr)."""
    assert init.sysctl.size(proc_mib(ARGS, init.pid)) == 0
    assert init.sysctl.size(proc_mib(CWD, init.pid)) == 0
    assert init.sysctl.size(proc_mib(PATHNAME, -1)) == len(init.sysctl.kern_proc_pathname(-1)) + 1


@pytest.mark.passes("sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
@pytest.mark.feature("size_queries")
@pytest.mark.parametrize("node", OTHERS)
def test_each_string_tells_how_long_it_would_be(init: RemoteProcess, node: str) -> None:
    """Asked with no room at all, and of another process, too (sysctl(3): oldp is null; kern_proc.c)."""
    child = init.fork()
    child.chdir("/dev")
    for pid in (init.pid, child.pid):
        mib = proc_mib(OTHERS[node], pid)
        assert init.sysctl.size(mib) == len(init.sysctl.read(mib)) > 1


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.feature("size_queries")
def test_a_title_tells_how_long_it_is(init: RemoteProcess) -> None:
    """The title counts, not the arguments it stands in for (kern_proc.c: sysctl_kern_proc_args)."""
    init.sysctl.set_kern_proc_args(init.pid, b"a title of 24 characters")
    assert init.sysctl.size(proc_mib(ARGS, init.pid)) == 24 + 1


@pytest.mark.passes("sysctl_kern_proc_args", "sysctl_kern_proc_cwd")
@pytest.mark.parametrize("node", ["args", "cwd"])
def test_what_is_not_shown_has_no_length(init: RemoteProcess, node: str) -> None:
    """Nobody has none, nor a zombie, nor, with kern.ps_argsopen=0, a stranger's process (kern_proc.c)."""
    user, zombie = init.fork(), init.fork()
    user.setuid(SOMEBODY)
    zombie.exit()
    for pid in (NO_SUCH_ID, zombie.pid):
        assert init.sysctl.size(proc_mib(OTHERS[node], pid)) == 0
    with setting(init, "kern.ps_argsopen", 0):
        assert user.sysctl.size(proc_mib(OTHERS[node], init.pid)) == 0


@needs_kernel
@pytest.mark.passes("sysctl_kern_proc", "sysctl_out_proc")
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
@kern_proc("sysctl_kern_proc")
@pytest.mark.passes("sysctl_out_proc_kthread")
@pytest.mark.parametrize("missing", [1, 2000, 20_000])
def test_the_whole_table_is_cut_off_among_kernel_threads_too(init: RemoteProcess, missing: int) -> None:
    """They come last (kern_proc.c: sysctl_kern_proc)."""
    whole = proc_mib(whole_table_number(init))
    length, found = steady(
        lambda: len(init.sysctl.read(whole, 1 << 20)),
        lambda length: attempt(init, whole, length - missing),
    )
    assert (found.error, found.length, found.kept_within, found.untouched) == ("ENOMEM", length - missing, True, 0)


@needs_kernel
@pytest.mark.passes("sysctl_kern_proc", "sysctl_out_proc")
def test_a_table_that_fits_exactly_is_complete(init: RemoteProcess) -> None:
    """And what is left of a larger buffer is not touched (kern_sysctl.c: sysctl_old_user)."""
    parked(init, 2)
    mib, size = proc_mib(PGRP, init.pid), 3 * record_size(init)
    exact = attempt(init, mib, size)
    assert (exact.error, exact.length, exact.kept_within) == (None, size, True)
    larger = attempt(init, mib, size + 1000)
    assert (larger.error, larger.length, larger.untouched) == (None, size, 1000)


@needs_kernel
@kern_proc("sysctl_out_proc")
@pytest.mark.passes("sysctl_kern_proc")
def test_one_process_that_does_not_fit_is_cut_off(init: RemoteProcess) -> None:
    """ENOMEM, and as much as fits (kern_proc.c: sysctl_out_proc)."""
    (child,) = parked(init)
    room = record_size(init) - 1
    found = attempt(init, proc_mib(PID, child), room)
    assert (found.error, found.length, found.kept_within) == ("ENOMEM", room, True)
    assert int.from_bytes(found.content[220:224], "little") == child


@needs_kernel
@pytest.mark.passes("sysctl_kern_proc_args", "sysctl_kern_proc_cwd", "sysctl_kern_proc_pathname")
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


@needs_kernel
@kern_proc("sysctl_kern_proc_args")
@pytest.mark.parametrize("missing", [1, 3])
@pytest.mark.parametrize("whose", ["process", pytest.param("thread", marks=pytest.mark.feature("lpmap"))])
def test_a_title_that_does_not_fit_is_cut_off(init: RemoteProcess, whose: str, missing: int) -> None:
    """ENOMEM, and as much as fits (kern_proc.c: sysctl_kern_proc_args; kern_sysctl.c: sysctl_old_user)."""
    page, thread = ("upmap", ()) if whose == "process" else ("lpmap", (init.gettid(),))
    shared_page(init, page).write("title", b"a title\0")
    found = attempt(init, proc_mib(ARGS, init.pid, *thread), 8 - missing)
    assert (found.error, found.length, found.kept_within) == ("ENOMEM", 8 - missing, True)
    assert found.content == b"a title\0"[:-missing]


# ---- One process --------------------------------------------------------------------------------------------------


@pytest.mark.passes("sysctl_kern_proc", "sysctl_out_proc", "pfind")
def test_a_process_is_listed_with_its_relations(init: Process) -> None:
    """pid, parent, group, session and users (kern_kinfo.c: fill_kinfo_proc)."""
    child = init.fork()
    child.setpgid(0, 0)
    child.setresuid(SOMEBODY, SOMEBODY_ELSE, 0)
    (row,) = init.sysctl.kern_proc_pid(child.pid)
    assert (row.pid, row.ppid, row.pgid, row.sid) == (child.pid, init.pid, child.pid, init.pid)
    assert (row.ruid, row.uid, row.svuid) == (SOMEBODY, SOMEBODY_ELSE, 0)
    assert row.stat == ProcStat.SACTIVE


@kern_proc("pfind")
@pytest.mark.passes("sysctl_kern_proc")
def test_a_process_finds_itself_and_its_parent(init: Process) -> None:
    """pfind() has a short way for the caller itself (kern_proc.c: pfind)."""
    child = init.fork()
    assert [row.pid for row in child.sysctl.kern_proc_pid(child.pid)] == [child.pid]
    assert [row.pid for row in child.sysctl.kern_proc_pid(init.pid)] == [init.pid]


@kern_proc("sysctl_kern_proc")
@pytest.mark.passes("pfind")
@pytest.mark.parametrize("pid", [NO_SUCH_ID, -1, -2, -(2**31), 2**31 - 1])
def test_nobody_is_found_under_a_pid_nobody_has(init: Process, pid: int) -> None:
    """No error, and no row (kern_proc.c: sysctl_kern_proc)."""
    assert init.sysctl.kern_proc_pid(pid) == []
    assert init.sysctl.kern_proc_pid(pid, lwp=True) == []


@kern_proc("proc_remove_zombie")
@pytest.mark.passes("pfind")
def test_a_reaped_process_is_found_no_more(init: Process) -> None:
    """Neither under its pid nor in the table (kern_proc.c: proc_remove_zombie)."""
    child = init.fork()
    bury(init, child)
    assert init.sysctl.kern_proc_pid(child.pid) == []
    assert child.pid not in init.sysctl.kern_proc_all()


@kern_proc("sysctl_kern_proc", "pfind")
@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_zombie_is_listed_in_the_table_but_not_under_its_pid(init: Process) -> None:
    """pfind() passes over zombies, the table does not (kern_proc.c: pfind, sysctl_kern_proc)."""
    zombie = init.fork()
    zombie.exit()
    assert init.sysctl.kern_proc_pid(zombie.pid) == []
    assert init.sysctl.kern_proc_all()[zombie.pid].stat == ProcStat.SZOMB

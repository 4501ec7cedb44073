# SPDX-License-Identifier: BSD-2-Clause
"""wait4() and wait6(): which child is reported, when, how often, and with what."""

from __future__ import annotations

from collections.abc import Callable
from errno import ECHILD, EFAULT, EINVAL
from signal import (
    SIGALRM,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGPIPE,
    SIGPROF,
    SIGQUIT,
    SIGTERM,
    SIGUSR1,
    SIGUSR2,
    SIGVTALRM,
    SIGXCPU,
    SIGXFSZ,
    Signals,
)

import pytest

from harness.processes import WNOHANG, Process, RemoteProcess, Resource, WaitOption, fails
from support.children import exited_child
from support.processes import NO_SUCH_ID, SOMEBODY, bury

WAIT6_OPTIONS = pytest.mark.parametrize("options", [0x8, 0x10, 0x20], ids=["WNOWAIT", "WEXITED", "WTRAPPED"])


# ---- How a child ended --------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.parametrize(
    ("given", "reported"), [(0, 0), (1, 1), (7, 7), (127, 127), (128, 128), (255, 255), (256, 0), (257, 1), (-1, 255)]
)
def test_an_exit_status_is_reported_by_its_low_eight_bits(init: Process, given: int, reported: int) -> None:
    """The status word is their value times 256 (kern_exit.c: sys_exit, W_EXITCODE)."""
    child = init.fork()
    child.exit(given)
    result = init.wait4(child.pid)
    assert (result.pid, result.exit_status, result.raw_status) == (child.pid, reported, reported << 8)


DEADLY = [SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGALRM, SIGTERM, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGUSR1, SIGUSR2]


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.parametrize("signal", DEADLY, ids=lambda signal: signal.name)
def test_a_deadly_signal_is_reported_by_its_number(init: Process, signal: Signals) -> None:
    """Neither exit status nor core (kern_sig.c: sigexit)."""
    child = init.fork()
    init.kill(child.pid, signal)
    result = init.wait4(child.pid)
    assert (result.pid, result.signal, result.exit_status, result.core_dumped) == (child.pid, signal, None, False)


@pytest.mark.passes("proc_remove_zombie")
def test_a_signal_that_would_dump_core_is_reported_without_core_if_none_may_be_written(init: RemoteProcess) -> None:
    """RLIMIT_CORE 0 (kern_sig.c: sigexit, coredump)."""
    child = init.fork()
    child.setrlimit(Resource.RLIMIT_CORE, 0)
    init.kill(child.pid, SIGQUIT)
    result = init.wait4(child.pid)
    assert (result.signal, result.core_dumped, result.raw_status) == (SIGQUIT, False, 3)


def _in_dev(child: RemoteProcess) -> None:
    child.chdir("/dev")


def _as_a_user(child: RemoteProcess) -> None:
    child.setuid(SOMEBODY)


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.parametrize("how", [_in_dev, _as_a_user])
def test_a_signal_that_would_dump_core_is_reported_without_core_where_none_can_be_written(
    init: RemoteProcess, how: Callable[[RemoteProcess], None]
) -> None:
    """There are no files in /dev, and none of users in root's directories (core(5); kern_sig.c: coredump)."""
    child = init.fork()
    how(child)
    child.start.kill(child.pid, SIGQUIT)
    result = init.start.wait4(child.pid).result(20.0)
    assert (result.signal, result.core_dumped) == (SIGQUIT, False)


@pytest.mark.kern_proc("proc_remove_zombie")
def test_a_zombie_is_reported_once(init: Process) -> None:
    """Then it is nobody's child (kern_proc.c: proc_remove_zombie)."""
    zombie = exited_child(init)
    assert init.wait4(zombie.pid).pid == zombie.pid
    with fails(ECHILD):
        init.wait4(zombie.pid)


# ---- Whom to wait for ---------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_remove_zombie")
def test_waiting_for_one_child_reports_no_other(init: Process) -> None:
    """The others stay to be waited for (kern_exit.c: kern_wait)."""
    zombies = [exited_child(init, status) for status in range(4)]
    for index in (2, 0, 3, 1):
        result = init.wait4(zombies[index].pid)
        assert (result.pid, result.exit_status) == (zombies[index].pid, index)


@pytest.mark.passes("leavepgrp")
def test_waiting_for_anybody_includes_every_group_session_and_user(init: Process) -> None:
    """wait4(-1) asks for kinship only (kern_exit.c: kern_wait)."""
    grouped, daemon, user = init.fork(), init.fork(), init.fork()
    grouped.setpgid(0, 0)
    daemon.setsid()
    user.setuid(SOMEBODY)
    for child in (grouped, daemon, user):
        child.exit()
    assert {init.wait4().pid for _ in range(3)} == {grouped.pid, daemon.pid, user.pid}


@pytest.mark.passes("enterpgrp", "leavepgrp")
def test_waiting_for_a_group_reports_its_members_only(init: Process) -> None:
    """wait4(-pgid) (kern_exit.c: kern_wait)."""
    leader, member, outside = init.fork(), init.fork(), init.fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    for child in (leader, member, outside):
        child.exit()
    assert {init.wait4(-leader.pid).pid for _ in range(2)} == {leader.pid, member.pid}
    with fails(ECHILD):
        init.wait4(-leader.pid)
    assert init.wait4(outside.pid).pid == outside.pid


@pytest.mark.passes("enterpgrp")
def test_waiting_for_a_group_goes_by_the_group_a_child_is_in_now(init: Process) -> None:
    """Not by the one it was born into (kern_exit.c: kern_wait looks at p_pgid)."""
    first, second, nomad = init.fork(), init.fork(), init.fork()
    first.setpgid(0, 0)
    second.setpgid(0, 0)
    nomad.setpgid(0, first.pid)
    nomad.setpgid(0, second.pid)
    nomad.exit()
    assert init.wait4(-first.pid, WNOHANG).pid == 0
    assert init.wait4(-second.pid).pid == nomad.pid


@pytest.mark.passes("enterpgrp")
def test_waiting_for_zero_means_the_callers_group(init: Process) -> None:
    """The one it is in when it calls (kern_exit.c: kern_wait)."""
    parent = init.fork()
    there, here = parent.fork(), parent.fork()
    parent.setpgid(0, 0)
    here.setpgid(0, parent.pid)
    there.exit(1)
    here.exit(2)
    assert parent.wait4(0).pid == here.pid
    with fails(ECHILD):
        parent.wait4(0)
    parent.setpgid(0, init.pid)
    assert parent.wait4(0).pid == there.pid


@pytest.mark.passes("leavepgrp")
def test_a_child_that_left_the_session_can_be_waited_for_by_its_new_group(init: Process) -> None:
    """Sessions do not matter to wait() (kern_exit.c: kern_wait)."""
    child = init.fork()
    child.setsid()
    child.exit()
    assert init.wait4(-child.pid).pid == child.pid


# ---- Nobody to wait for -------------------------------------------------------------------------------------------


def _no_child_at_all(init: Process) -> tuple[Process, int]:
    return init, -1


def _no_child_in_its_own_group(init: Process) -> tuple[Process, int]:
    init.fork().setpgid(0, 0)
    return init, 0


def _no_child_in_that_group(init: Process) -> tuple[Process, int]:
    child = init.fork()
    child.setpgid(0, 0)
    child.fork()
    child.setpgid(0, init.pid)
    return init, -child.pid


def _a_group_that_does_not_exist(init: Process) -> tuple[Process, int]:
    init.fork()
    return init, -NO_SUCH_ID


def _a_group_whose_child_was_reaped(init: Process) -> tuple[Process, int]:
    leader, member = init.fork(), init.fork().fork()
    leader.setpgid(0, 0)
    member.setpgid(0, leader.pid)
    bury(init, leader)
    return init, -leader.pid


def _a_pid_nobody_has(init: Process) -> tuple[Process, int]:
    init.fork()
    return init, NO_SUCH_ID


def _the_most_negative_number(init: Process) -> tuple[Process, int]:
    init.fork()
    return init, -(1 << 31)


def _a_child_that_was_reaped(init: Process) -> tuple[Process, int]:
    init.fork()
    return init, _buried(init)


def _buried(init: Process) -> int:
    child = init.fork()
    bury(init, child)
    return child.pid


def _itself(init: Process) -> tuple[Process, int]:
    init.fork()
    return init, init.pid


def _its_parent(init: Process) -> tuple[Process, int]:
    child = init.fork()
    child.fork()
    return child, init.pid


def _its_sibling(init: Process) -> tuple[Process, int]:
    return init.fork(), init.fork().pid


def _its_siblings_zombie(init: Process) -> tuple[Process, int]:
    return init.fork(), exited_child(init.fork()).pid


def _its_grandchild(init: Process) -> tuple[Process, int]:
    return init, init.fork().fork().pid


def _its_childs_zombie(init: Process) -> tuple[Process, int]:
    return init, exited_child(init.fork()).pid


def _an_orphaned_grandchild(init: Process) -> tuple[Process, int]:
    child = init.fork()
    grandchild = child.fork()
    bury(init, child)
    return init, grandchild.pid


def _process_one(init: Process) -> tuple[Process, int]:
    init.fork()
    return init, 1


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.parametrize("options", [WaitOption(0), WNOHANG], ids=["waiting", "WNOHANG"])
@pytest.mark.parametrize(
    "arrange",
    [
        pytest.param(arrange, id=arrange.__name__.lstrip("_"))
        for arrange in (
            _no_child_at_all,
            _no_child_in_its_own_group,
            _no_child_in_that_group,
            _a_group_that_does_not_exist,
            _a_group_whose_child_was_reaped,
            _a_pid_nobody_has,
            _the_most_negative_number,
            _a_child_that_was_reaped,
            _itself,
            _its_parent,
            _its_sibling,
            _its_siblings_zombie,
            _its_grandchild,
            _its_childs_zombie,
            _an_orphaned_grandchild,
            _process_one,
        )
    ],
)
def test_there_is_nobody_to_wait_for(
    init: Process, arrange: Callable[[Process], tuple[Process, int]], options: WaitOption
) -> None:
    """ECHILD at once, with and without WNOHANG (kern_exit.c: kern_wait)."""
    caller, pid = arrange(init)
    with fails(ECHILD):
        caller.wait4(pid, options)


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.parametrize("options", [1 << 6, 1 << 8, 1 << 20, 1 << 30, -1], ids=hex)
def test_unknown_options_are_refused(init: Process, options: int) -> None:
    """EINVAL, before anybody looks for children (kern_exit.c: kern_wait)."""
    with fails(EINVAL):
        init.wait4(-1, options)
    zombie = exited_child(init)
    with fails(EINVAL):
        init.wait4(zombie.pid, options)
    assert init.wait4(zombie.pid).pid == zombie.pid


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.feature("!wait6")
@WAIT6_OPTIONS
def test_options_of_wait6_are_unknown_without_it(init: Process, options: int) -> None:
    """EINVAL (kern_exit.c: kern_wait)."""
    zombie = exited_child(init)
    with fails(EINVAL):
        init.wait4(zombie.pid, options)


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.feature("wait6")
@WAIT6_OPTIONS
def test_options_of_wait6_are_known_to_wait4(init: Process, options: int) -> None:
    """One of them leaves the zombie as it is (kern_exit.c: kern_wait)."""
    zombie = exited_child(init, 7)
    assert init.wait4(zombie.pid, options).exit_status == 7
    if options == 0x8:
        assert init.wait4(zombie.pid).exit_status == 7
    with fails(ECHILD):
        init.wait4(zombie.pid)


@pytest.mark.passes("proc_remove_zombie")
def test_waiting_for_threads_of_linux_finds_no_ordinary_child(init: Process) -> None:
    """WLINUXCLONE asks for children that do not send SIGCHLD, instead of the others (kern_exit.c: kern_wait)."""
    zombie = exited_child(init)
    with fails(ECHILD):
        init.wait4(-1, WaitOption.WLINUXCLONE)
    assert init.wait4().pid == zombie.pid


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.needs_kernel
def test_a_status_that_cannot_be_delivered_is_lost_with_its_child(init: RemoteProcess) -> None:
    """EFAULT comes after the child was reaped (kern_exit.c: sys_wait4 copies out last)."""
    zombie = exited_child(init)
    with fails(EFAULT):
        init.syscall("wait4", zombie.pid, 1, 0, 0)
    with fails(ECHILD):
        init.wait4(zombie.pid)


# ---- Not waiting --------------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_child_that_still_runs_is_not_waited_for_with_wnohang(init: Process) -> None:
    """Zero, and the child can be waited for later (kern_exit.c: kern_wait)."""
    child = init.fork()
    for pid in (child.pid, -1, 0, -init.pid):
        result = init.wait4(pid, WNOHANG)
        assert (result.pid, result.status) == (0, None)
    child.exit(3)
    assert init.wait4(child.pid, WNOHANG).exit_status == 3


@pytest.mark.passes("proc_move_allproc_zombie")
def test_wnohang_reports_the_zombie_among_the_living(init: Process) -> None:
    """Any child that is ready will do, wherever in the list it is (kern_exit.c: kern_wait)."""
    elder, zombie, younger = init.fork(), init.fork(), init.fork()
    zombie.exit()
    assert init.wait4(options=WNOHANG).pid == zombie.pid
    assert init.wait4(options=WNOHANG).pid == 0
    bury(init, younger, elder)


@pytest.mark.passes("proc_move_allproc_zombie")
def test_wnohang_for_one_child_ignores_the_others_readiness(init: Process) -> None:
    """Zero for a child that runs although a sibling is a zombie (kern_exit.c: kern_wait)."""
    child, zombie = init.fork(), exited_child(init)
    assert init.wait4(child.pid, WNOHANG).pid == 0
    assert init.wait4(zombie.pid, WNOHANG).pid == zombie.pid

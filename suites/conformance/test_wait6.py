# SPDX-License-Identifier: BSD-2-Clause
"""wait6(): by what it chooses, and what it reports (kern_exit.c: sys_wait6())."""

from __future__ import annotations

from errno import ECHILD, EINVAL
from signal import SIGCHLD, SIGCONT, SIGKILL

import pytest

from harness.processes import (
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WNOWAIT,
    WUNTRACED,
    IdType,
    Process,
    RemoteProcess,
    WaitOption,
    fails,
)
from harness.processes.wire import Buffer
from support.children import exited_child
from support.processes import SOMEBODY, await_continued, await_idle, await_stopped, bury, exists, stop
from support.tracing import let_go

CLD_EXITED, CLD_KILLED, CLD_CONTINUED = 1, 2, 6  # sys/signal.h
WITH_WAIT6 = pytest.mark.feature("wait6")


@pytest.mark.passes("proc_remove_zombie")
@WITH_WAIT6
def test_wnowait_leaves_the_child_to_be_waited_for(init: Process) -> None:
    """It can be looked at any number of times (kern_exit.c: kern_wait)."""
    zombie = exited_child(init, 4)
    for _ in range(2):
        assert init.wait6(IdType.P_ALL, 0, WEXITED | WNOWAIT).exit_status == 4
    assert exists(init, zombie.pid)
    assert init.wait4(zombie.pid).exit_status == 4


@pytest.mark.passes("proc_move_allproc_zombie")
@WITH_WAIT6
def test_wait6_reports_only_what_it_was_asked_for(init: Process) -> None:
    """Without WEXITED a zombie is nothing to report; without anything to report it is EINVAL (kern_exit.c)."""
    zombie = exited_child(init)
    assert init.wait6(IdType.P_PID, zombie.pid, WUNTRACED | WNOHANG).pid == 0
    with fails(EINVAL):
        init.wait6(IdType.P_PID, zombie.pid, WNOHANG)
    assert init.wait6(IdType.P_PID, zombie.pid, WEXITED).pid == zombie.pid


@pytest.mark.passes("proc_remove_zombie", "enterpgrp")
@WITH_WAIT6
@pytest.mark.parametrize("idtype", [IdType.P_PID, IdType.P_PGID, IdType.P_SID, IdType.P_UID], ids=lambda one: one.name)
def test_wait6_chooses_by_process_group_session_or_user(init: Process, idtype: IdType) -> None:
    """One child per kind of choice, among others (kern_exit.c: kern_wait)."""
    chosen, *others = (init.fork() for _ in range(3))
    chosen.setsid()
    chosen.setuid(SOMEBODY)
    for child in (others[0], chosen, others[1]):
        child.exit()
    result = init.wait6(idtype, SOMEBODY if idtype is IdType.P_UID else chosen.pid, WEXITED)
    assert result.pid == chosen.pid


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.needs_kernel
@WITH_WAIT6
def test_wait6_chooses_by_the_effective_group_of_users(init: RemoteProcess) -> None:
    """Not by the real or the saved one (kern_exit.c: kern_wait)."""
    children = [init.fork() for _ in range(3)]
    for child, groups in zip(children, ((SOMEBODY, 1, 1), (1, SOMEBODY, 1), (1, 1, SOMEBODY)), strict=True):
        child.setresgid(*groups)
        child.exit()
    assert init.wait6(IdType.P_GID, SOMEBODY, WEXITED).pid == children[1].pid
    with fails(ECHILD):
        init.wait6(IdType.P_GID, SOMEBODY, WEXITED | WNOHANG)


@pytest.mark.passes("proc_remove_zombie", "enterpgrp")
@WITH_WAIT6
@pytest.mark.parametrize("idtype", [IdType.P_PID, IdType.P_PGID], ids=lambda one: one.name)
def test_wait6_takes_no_number_for_the_callers_own_group(init: Process, idtype: IdType) -> None:
    """Also by P_PID, as waitpid(0) does (kern_exit.c: sys_wait6)."""
    other, own = init.fork(), init.fork()
    other.setpgid(0, 0)
    for child in (other, own):
        child.exit()
    assert init.wait6(idtype, 0, WEXITED).pid == own.pid
    with fails(ECHILD):
        init.wait6(idtype, 0, WEXITED | WNOHANG)
    assert init.wait4(other.pid).pid == other.pid


@pytest.mark.passes("proc_remove_zombie")
@WITH_WAIT6
@pytest.mark.parametrize("idtype", [IdType.P_CPUID, IdType.P_TASKID, 99], ids=str)
def test_wait6_knows_no_other_kinds_of_choice(init: Process, idtype: IdType | int) -> None:
    """They match nobody: ECHILD (kern_exit.c: kern_wait)."""
    zombie = exited_child(init)
    with fails(ECHILD):
        init.wait6(idtype, zombie.pid, WEXITED)


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.eras(since=500_505, reason="si_code and si_status came with bfd192f7d7 and 819542d736, 2019-03-18")
def test_wait6_describes_the_end_of_the_child(init: Process) -> None:
    """Who it was and how it ended, decoded (kern_exit.c: kern_wait, siginfo_t)."""
    child = init.fork()
    child.setuid(SOMEBODY)
    child.exit(3)
    info = init.wait6(IdType.P_PID, child.pid, WEXITED).siginfo
    assert info is not None
    assert (info.signal, info.pid, info.uid, info.status) == (SIGCHLD, child.pid, SOMEBODY, 3)


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.needs_kernel
@pytest.mark.eras(since=500_505, reason="si_code and si_status came with bfd192f7d7 and 819542d736, 2019-03-18")
def test_wait6_tells_a_child_that_was_killed_from_one_that_ended(init: Process) -> None:
    """By si_code, and the signal in si_status (kern_exit.c: kern_wait, siginfo_t)."""
    killed, ended = init.fork(), exited_child(init, 9)
    init.kill(killed.pid, SIGKILL)
    described = [init.wait6(IdType.P_PID, child.pid, WEXITED).siginfo for child in (killed, ended)]
    assert [(info.code, info.status) for info in described if info is not None] == [(CLD_KILLED, 9), (CLD_EXITED, 9)]


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.needs_kernel
@WITH_WAIT6
def test_wait6_chooses_by_jail(init: RemoteProcess) -> None:
    """Of children in jails those of the one that is named (kern_exit.c: kern_wait, P_JAILID)."""
    children = [init.fork() for _ in range(3)]
    jids = [child.jail("/") for child in children]
    for child in children:
        child.exit()
    assert init.wait6(IdType.P_JAILID, jids[1], WEXITED).pid == children[1].pid
    with fails(ECHILD):
        init.wait6(IdType.P_JAILID, jids[1], WEXITED | WNOHANG)
    assert {init.wait4().pid for _ in range(2)} == {children[0].pid, children[2].pid}


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.needs_kernel
@WITH_WAIT6
@pytest.mark.parametrize("wanted", ["status", "usage", "information", "nothing"])
def test_wait6_tells_what_it_is_asked_for(init: RemoteProcess, wanted: str) -> None:
    """A null pointer is no place to write to (wait(2); kern_exit.c: sys_wait6)."""
    zombie = exited_child(init, 4)
    places = {"status": Buffer(size=4, wanted=True), "usage": Buffer(size=288, wanted=True)}
    places["information"] = Buffer(size=init.abi.siginfo_size, wanted=True)
    given = {name: place if name == wanted else 0 for name, place in places.items()}
    options = init.abi.wait_option_bits(WEXITED)
    result = init.syscall("wait6", 0, zombie.pid, given["status"], options, given["usage"], given["information"])
    assert result.value == zombie.pid
    if wanted == "status":
        assert result.memory(places["status"]) == (4 << 8).to_bytes(4, "little")
    if wanted == "information":
        assert init.abi.decode_siginfo(result.memory(places["information"])).pid == zombie.pid


@pytest.mark.passes("proc_makepid")
@pytest.mark.needs_kernel
@WITH_WAIT6
def test_a_stop_and_a_continuation_need_not_be_told_either(init: RemoteProcess) -> None:
    """They are reported by the return value alone (kern_exit.c: kern_wait, info)."""
    child = init.fork()
    stop(init, child)
    options = init.abi.wait_option_bits(WUNTRACED | WCONTINUED | WNOHANG)
    assert init.syscall("wait6", 0, child.pid, 0, options, 0, 0).value == child.pid
    assert init.syscall("wait6", 0, child.pid, 0, options, 0, 0).value == 0
    init.kill(child.pid, SIGCONT)
    await_continued(init, child)
    assert init.syscall("wait6", 0, child.pid, 0, options, 0, 0).value == child.pid
    assert init.syscall("wait6", 0, child.pid, 0, options, 0, 0).value == 0
    bury(init, child)


@pytest.mark.passes("proc_makepid")
@pytest.mark.needs_kernel
@WITH_WAIT6
def test_wnowait_leaves_the_report_of_a_child_that_goes_on(init: RemoteProcess) -> None:
    """Until somebody takes it (kern_exit.c: kern_wait, P_CONTINUED)."""
    child = init.fork()
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED).pid == child.pid
    init.kill(child.pid, SIGCONT)
    await_continued(init, child)
    for options in (WNOWAIT, WNOWAIT, WaitOption(0)):
        found = init.wait6(IdType.P_PID, child.pid, WCONTINUED | WNOHANG | options)
        assert (found.pid, found.siginfo is not None and found.siginfo.code) == (child.pid, CLD_CONTINUED)
    assert init.wait6(IdType.P_PID, child.pid, WCONTINUED | WNOHANG).pid == 0
    bury(init, child)


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.needs_kernel
@WITH_WAIT6
@pytest.mark.parametrize("traced", [True, False])
def test_who_asks_for_traced_children_hears_of_their_stops_alone(init: RemoteProcess, traced: bool) -> None:
    """WTRAPPED is for those that are traced, WUNTRACED for others as well (wait(2); kern_exit.c: kern_wait)."""
    tracer = init.fork()
    child = tracer.fork()
    if traced:
        await_idle(init, child)
        tracer.ptrace("PT_ATTACH", child.pid)
        await_stopped(init, child)
    else:
        stop(init, child)
    assert tracer.wait6(IdType.P_PID, child.pid, WEXITED | WCONTINUED | WNOHANG).pid == 0
    found = tracer.wait6(IdType.P_PID, child.pid, WaitOption.WTRAPPED | WNOHANG)
    assert found.pid == (child.pid if traced else 0)
    if traced:
        let_go(tracer, child)
    else:
        assert tracer.wait6(IdType.P_PID, child.pid, WUNTRACED | WNOHANG).pid == child.pid
        init.kill(child.pid, SIGCONT)
    bury(tracer, child)
    bury(init, tracer)

"""wait4() and wait6(): which child is reported, when, how often, and with what."""

from __future__ import annotations

from collections.abc import Callable
from errno import ECHILD, EFAULT, EINTR, EINVAL
from signal import (
    SIGALRM,
    SIGCHLD,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGPIPE,
    SIGPROF,
    SIGQUIT,
    SIGSTOP,
    SIGTERM,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGUSR1,
    SIGUSR2,
    SIGVTALRM,
    SIGXCPU,
    SIGXFSZ,
    Signals,
)

import pytest

from harness.processes import (
    SA_NOCLDSTOP,
    SA_RESTART,
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WNOWAIT,
    WUNTRACED,
    GuestError,
    Handler,
    IdType,
    Process,
    ProcFlag,
    RemoteProcess,
    Resource,
    Rusage,
    WaitOption,
    WaitResult,
    fails,
)

from ._help import (
    NO_SUCH_ID,
    SOMEBODY,
    await_asleep,
    await_stopped,
    bury,
    eventually,
    exists,
    expect_signals,
    logged,
    row,
    stop,
)

WAIT6_SINCE = 500_400  # __DragonFly_version of the first release that has wait6()
BEFORE_WAIT6 = pytest.mark.eras(until=500_316, reason="wait6() made these options known")
WITH_WAIT6 = pytest.mark.eras(since=WAIT6_SINCE, reason="the first release with wait6()")


def _zombie(parent: Process, status: int = 0) -> Process:
    child = parent.fork()
    child.exit(status)
    return child


def _continue(sender: Process, child: Process) -> None:
    sender.kill(child.pid, SIGCONT)
    eventually(lambda: row(sender, child.pid).stat != 3, f"process {child.pid} to be continued")
    assert child.getpid() == child.pid  # its thread, too, is on its way no longer


# ---- How a child ended -------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("proc_remove_zombie")
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


@pytest.mark.kern_proc("proc_remove_zombie")
@pytest.mark.parametrize("signal", DEADLY, ids=lambda signal: signal.name)
def test_a_deadly_signal_is_reported_by_its_number(init: Process, signal: Signals) -> None:
    """Neither exit status nor core (kern_sig.c: sigexit)."""
    child = init.fork()
    init.kill(child.pid, signal)
    result = init.wait4(child.pid)
    assert (result.pid, result.signal, result.exit_status, result.core_dumped) == (child.pid, signal, None, False)


@pytest.mark.kern_proc("proc_remove_zombie")
def test_a_signal_that_would_dump_core_is_reported_without_core_if_none_may_be_written(init: RemoteProcess) -> None:
    """RLIMIT_CORE 0 (kern_sig.c: sigexit, coredump)."""
    child = init.fork()
    child.setrlimit(Resource.RLIMIT_CORE, 0)
    init.kill(child.pid, SIGQUIT)
    result = init.wait4(child.pid)
    assert (result.signal, result.core_dumped, result.raw_status) == (SIGQUIT, False, 3)


@pytest.mark.kern_proc("proc_remove_zombie")
def test_a_zombie_is_reported_once(init: Process) -> None:
    """Then it is nobody's child (kern_proc.c: proc_remove_zombie)."""
    zombie = _zombie(init)
    assert init.wait4(zombie.pid).pid == zombie.pid
    with fails(ECHILD):
        init.wait4(zombie.pid)


# ---- Whom to wait for --------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("proc_remove_zombie")
def test_waiting_for_one_child_reports_no_other(init: Process) -> None:
    """The others stay to be waited for (kern_exit.c: kern_wait)."""
    zombies = [_zombie(init, status) for status in range(4)]
    for index in (2, 0, 3, 1):
        result = init.wait4(zombies[index].pid)
        assert (result.pid, result.exit_status) == (zombies[index].pid, index)


@pytest.mark.kern_proc("leavepgrp")
def test_waiting_for_anybody_includes_every_group_session_and_user(init: Process) -> None:
    """wait4(-1) asks for kinship only (kern_exit.c: kern_wait)."""
    grouped, daemon, user = init.fork(), init.fork(), init.fork()
    grouped.setpgid(0, 0)
    daemon.setsid()
    user.setuid(SOMEBODY)
    for child in (grouped, daemon, user):
        child.exit()
    assert {init.wait4().pid for _ in range(3)} == {grouped.pid, daemon.pid, user.pid}


@pytest.mark.kern_proc("enterpgrp", "leavepgrp")
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


@pytest.mark.kern_proc("enterpgrp")
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


@pytest.mark.kern_proc("enterpgrp")
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


@pytest.mark.kern_proc("leavepgrp")
def test_a_child_that_left_the_session_can_be_waited_for_by_its_new_group(init: Process) -> None:
    """Sessions do not matter to wait() (kern_exit.c: kern_wait)."""
    child = init.fork()
    child.setsid()
    child.exit()
    assert init.wait4(-child.pid).pid == child.pid


# ---- Nobody to wait for ------------------------------------------------------------------------------------------


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
    return init.fork(), _zombie(init.fork()).pid


def _its_grandchild(init: Process) -> tuple[Process, int]:
    return init, init.fork().fork().pid


def _its_childs_zombie(init: Process) -> tuple[Process, int]:
    return init, _zombie(init.fork()).pid


def _an_orphaned_grandchild(init: Process) -> tuple[Process, int]:
    child = init.fork()
    grandchild = child.fork()
    bury(init, child)
    return init, grandchild.pid


def _process_one(init: Process) -> tuple[Process, int]:
    init.fork()
    return init, 1


@pytest.mark.kern_proc("proc_remove_zombie")
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


@pytest.mark.kern_proc("proc_remove_zombie")
@pytest.mark.parametrize("options", [1 << 6, 1 << 8, 1 << 20, 1 << 30, -1], ids=hex)
def test_unknown_options_are_refused(init: Process, options: int) -> None:
    """EINVAL, before anybody looks for children (kern_exit.c: kern_wait)."""
    with fails(EINVAL):
        init.wait4(-1, options)
    zombie = _zombie(init)
    with fails(EINVAL):
        init.wait4(zombie.pid, options)
    assert init.wait4(zombie.pid).pid == zombie.pid


@pytest.mark.kern_proc("proc_remove_zombie")
@BEFORE_WAIT6
@pytest.mark.parametrize("options", [0x8, 0x10, 0x20], ids=["WNOWAIT", "WEXITED", "WTRAPPED"])
def test_options_of_wait6_are_unknown_without_it(init: Process, options: int) -> None:
    """EINVAL (kern_exit.c: kern_wait)."""
    zombie = _zombie(init)
    with fails(EINVAL):
        init.wait4(zombie.pid, options)


@pytest.mark.kern_proc("proc_remove_zombie")
def test_waiting_for_threads_of_linux_finds_no_ordinary_child(init: Process) -> None:
    """WLINUXCLONE asks for children that do not send SIGCHLD, instead of the others (kern_exit.c: kern_wait)."""
    zombie = _zombie(init)
    with fails(ECHILD):
        init.wait4(-1, WaitOption.WLINUXCLONE)
    assert init.wait4().pid == zombie.pid


@pytest.mark.kern_proc("proc_remove_zombie")
@pytest.mark.needs_kernel
def test_a_status_that_cannot_be_delivered_is_lost_with_its_child(init: RemoteProcess) -> None:
    """EFAULT comes after the child was reaped (kern_exit.c: sys_wait4 copies out last)."""
    zombie = _zombie(init)
    with fails(EFAULT):
        init.syscall("wait4", zombie.pid, 1, 0, 0)
    with fails(ECHILD):
        init.wait4(zombie.pid)


# ---- Not waiting -------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_child_that_still_runs_is_not_waited_for_with_wnohang(init: Process) -> None:
    """Zero, and the child can be waited for later (kern_exit.c: kern_wait)."""
    child = init.fork()
    for pid in (child.pid, -1, 0, -init.pid):
        result = init.wait4(pid, WNOHANG)
        assert (result.pid, result.status) == (0, None)
    child.exit(3)
    assert init.wait4(child.pid, WNOHANG).exit_status == 3


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_wnohang_reports_the_zombie_among_the_living(init: Process) -> None:
    """Any child that is ready will do, wherever in the list it is (kern_exit.c: kern_wait)."""
    elder, zombie, younger = init.fork(), init.fork(), init.fork()
    zombie.exit()
    assert init.wait4(options=WNOHANG).pid == zombie.pid
    assert init.wait4(options=WNOHANG).pid == 0
    bury(init, younger, elder)


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_wnohang_for_one_child_ignores_the_others_readiness(init: Process) -> None:
    """Zero for a child that runs although a sibling is a zombie (kern_exit.c: kern_wait)."""
    child, zombie = init.fork(), _zombie(init)
    assert init.wait4(child.pid, WNOHANG).pid == 0
    assert init.wait4(zombie.pid, WNOHANG).pid == zombie.pid


# ---- Stopped children --------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("fixjobc")
@pytest.mark.parametrize("signal", [SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU], ids=lambda signal: signal.name)
def test_a_stopped_child_is_reported_with_the_signal_that_stopped_it(init: Process, signal: Signals) -> None:
    """WUNTRACED (kern_exit.c: kern_wait, W_STOPCODE)."""
    child = init.fork()
    child.setpgid(0, 0)
    stop(init, child, signal)
    result = init.wait4(child.pid, WUNTRACED)
    assert (result.pid, result.stop_signal, result.raw_status & 0xFF) == (child.pid, signal, 0o177)
    assert (result.exit_status, result.signal, result.continued) == (None, None, False)


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_the_status_word_of_a_stopped_child(init: Process) -> None:
    """Signal number times 256 plus 0177: SIGSTOP is 17 (sys/wait.h: W_STOPCODE)."""
    child = init.fork()
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED).raw_status == 17 << 8 | 0o177


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_stop_is_reported_once(init: Process) -> None:
    """P_WAITED remembers that the parent knows (kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED | WNOHANG).pid == child.pid
    assert init.wait4(child.pid, WUNTRACED | WNOHANG).pid == 0
    init.kill(child.pid, SIGSTOP)  # it is stopped already
    assert init.wait4(child.pid, WUNTRACED | WNOHANG).pid == 0


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_stop_is_reported_to_whoever_asked_for_stops_only(init: Process) -> None:
    """Without WUNTRACED a stopped child is one that runs (kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    assert init.wait4(child.pid, WNOHANG).pid == 0
    assert init.wait4(child.pid, WNOHANG | WCONTINUED).pid == 0
    assert init.wait4(child.pid, WNOHANG | WUNTRACED).stop_signal == SIGSTOP


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_every_new_stop_is_reported(init: Process) -> None:
    """After it has run again (kern_sig.c: proc_stop clears P_WAITED)."""
    child = init.fork()
    for _ in range(3):
        stop(init, child)
        assert init.wait4(child.pid, WUNTRACED).stop_signal == SIGSTOP
        _continue(init, child)


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_stop_that_is_over_is_not_reported(init: Process) -> None:
    """wait4() tells how things are, not how they were (kern_exit.c: kern_wait looks at p_stat)."""
    child = init.fork()
    stop(init, child)
    _continue(init, child)
    assert init.wait4(child.pid, WUNTRACED | WNOHANG).pid == 0


@pytest.mark.kern_proc("proc_move_allproc_zombie")
@pytest.mark.parametrize("told", [False, True], ids=["untold", "told"])
def test_a_stopped_child_that_is_killed_is_reported_as_killed(init: Process, told: bool) -> None:
    """Whether or not its stop had been reported (kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    if told:
        init.wait4(child.pid, WUNTRACED)
    init.kill(child.pid, SIGKILL)
    assert init.wait4(child.pid).signal == SIGKILL


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_stopped_child_is_found_by_group_and_by_anybody(init: Process) -> None:
    """Whom to wait for works for stops as for exits (kern_exit.c: kern_wait)."""
    child, other = init.fork(), init.fork()
    child.setpgid(0, 0)
    for pid in (-1, -child.pid, child.pid):
        stop(init, child)
        assert init.wait4(other.pid, WUNTRACED | WNOHANG).pid == 0
        assert init.wait4(0, WUNTRACED | WNOHANG).pid == 0
        assert init.wait4(pid, WUNTRACED).pid == child.pid
        _continue(init, child)


@pytest.mark.kern_proc("proc_move_allproc_zombie")
@pytest.mark.parametrize("youngest", ["stopped", "zombie"])
def test_the_youngest_child_with_news_is_reported_first(init: Process, youngest: str) -> None:
    """Stopped or dead, the list is gone through from the youngest (kern_exit.c: kern_wait)."""
    elder, younger = init.fork(), init.fork()
    stopped, zombie = (younger, elder) if youngest == "stopped" else (elder, younger)
    zombie.exit()
    stop(init, stopped)
    assert [init.wait4(options=WUNTRACED).pid for _ in range(2)] == [younger.pid, elder.pid]


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_only_the_parent_is_told_of_a_stop(init: Process) -> None:
    """Not whoever sent the signal (kern_exit.c: kern_wait)."""
    parent = init.fork()
    child = parent.fork()
    stop(init, child)
    assert init.wait4(options=WUNTRACED | WNOHANG).pid == 0
    assert parent.wait4(options=WUNTRACED).pid == child.pid


# ---- Continued children ------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_continued_child_is_reported_once(init: Process) -> None:
    """WCONTINUED (kern_exit.c: kern_wait clears P_CONTINUED)."""
    child = init.fork()
    stop(init, child)
    _continue(init, child)
    result = init.wait4(child.pid, WCONTINUED)
    assert (result.pid, result.continued, result.stop_signal, result.exit_status) == (child.pid, True, None, None)
    assert init.wait4(child.pid, WCONTINUED | WNOHANG).pid == 0


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_the_status_word_of_a_continued_child(init: Process) -> None:
    """The number of SIGCONT, 19, and nothing else (kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    _continue(init, child)
    assert init.wait4(child.pid, WCONTINUED).raw_status == 19


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_continuation_is_reported_to_whoever_asked_for_it_only(init: Process) -> None:
    """Neither WNOHANG nor WUNTRACED shows it (kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    _continue(init, child)
    assert init.wait4(child.pid, WNOHANG).pid == 0
    assert init.wait4(child.pid, WNOHANG | WUNTRACED).pid == 0
    assert init.wait4(child.pid, WNOHANG | WCONTINUED).continued


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_child_that_was_never_stopped_was_never_continued(init: Process) -> None:
    """SIGCONT alone is no news (kern_sig.c: lwpsignal)."""
    child = init.fork()
    init.kill(child.pid, SIGCONT)
    assert init.wait4(child.pid, WCONTINUED | WNOHANG).pid == 0


@pytest.mark.kern_proc("proc_move_allproc_zombie")
@pytest.mark.parametrize("handler", list(Handler), ids=lambda handler: handler.value)
def test_what_a_child_does_with_sigcont_does_not_matter(init: Process, handler: Handler) -> None:
    """It is continued, and that is reported (kern_sig.c: lwpsignal)."""
    child = init.fork()
    child.sigaction(SIGCONT, handler)
    stop(init, child)
    _continue(init, child)
    assert init.wait4(child.pid, WCONTINUED).continued
    assert set(logged(child)) == ({SIGCONT} if handler is Handler.LOG else set())


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_child_that_blocks_sigcont_is_continued_all_the_same(init: Process) -> None:
    """The effect comes with the sending (kern_sig.c: lwpsignal)."""
    child = init.fork()
    child.sigprocmask(mask=[SIGCONT])
    stop(init, child)
    _continue(init, child)
    assert init.wait4(child.pid, WCONTINUED).continued


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_child_that_stops_again_is_not_reported_as_continued(init: Process) -> None:
    """The stop takes the news back (kern_sig.c: lwpsignal clears P_CONTINUED)."""
    child = init.fork()
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED).pid == child.pid
    _continue(init, child)
    stop(init, child)
    assert init.wait4(child.pid, WCONTINUED | WNOHANG).pid == 0
    assert init.wait4(child.pid, WCONTINUED | WUNTRACED).stop_signal == SIGSTOP


@pytest.mark.kern_proc("proc_move_allproc_zombie")
@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_continued_child_that_ends_is_reported_as_ended(init: Process, end: str) -> None:
    """And as nothing else (kern_exit.c: kern_wait looks for zombies first)."""
    child = init.fork()
    stop(init, child)
    _continue(init, child)
    if end == "exit":
        child.exit(6)
    else:
        init.kill(child.pid, SIGKILL)
        eventually(lambda: row(init, child.pid).is_zombie, "the child to die")
    result = init.wait4(child.pid, WCONTINUED | WUNTRACED)
    assert (result.exit_status, result.signal) == ((6, None) if end == "exit" else (None, SIGKILL))
    with fails(ECHILD):
        init.wait4(child.pid, WCONTINUED | WUNTRACED)


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_child_killed_while_stopped_was_not_continued(init: Process) -> None:
    """SIGKILL makes it run, but that is nobody's news (kern_sig.c: lwpsignal)."""
    child = init.fork()
    stop(init, child)
    init.kill(child.pid, SIGKILL)
    result = init.wait4(child.pid, WCONTINUED | WUNTRACED)
    while result.stop_signal is not None:  # the stop may still be told before it dies
        result = init.wait4(child.pid, WCONTINUED | WUNTRACED)
    assert result.signal == SIGKILL


# ---- SIGCHLD -----------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_the_parent_gets_sigchld_for_a_child_that_exits(init: Process) -> None:
    """Just the parent, before it waits (kern_exit.c: exit1)."""
    init.sigaction(SIGCHLD, Handler.LOG)
    parent = init.fork()  # with the same handler
    child = parent.fork()
    child.exit()
    assert (logged(parent), logged(init)) == ([SIGCHLD], [])
    parent.wait4(child.pid)
    assert logged(parent) == []


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_the_parent_gets_sigchld_for_a_child_that_stops(init: Process) -> None:
    """Unless it declined (kern_sig.c: proc_stop)."""
    child = init.fork()
    init.sigaction(SIGCHLD, Handler.LOG)
    stop(init, child)
    expect_signals(init, SIGCHLD)


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_sa_nocldstop_declines_sigchld_for_stops_only(init: Process) -> None:
    """The stop can still be waited for, and the exit is signalled (kern_sig.c: proc_stop)."""
    child = init.fork()
    init.sigaction(SIGCHLD, Handler.LOG, SA_NOCLDSTOP)
    stop(init, child)
    assert logged(init) == []
    assert init.wait4(child.pid, WUNTRACED).stop_signal == SIGSTOP
    _continue(init, child)
    child.exit()
    assert logged(init) == [SIGCHLD]


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_sa_nocldstop_can_be_taken_back(init: Process) -> None:
    """The flag goes with the action (kern_sig.c: kern_sigaction)."""
    child = init.fork()
    init.sigaction(SIGCHLD, Handler.LOG, SA_NOCLDSTOP)
    init.sigaction(SIGCHLD, Handler.LOG)
    stop(init, child)
    expect_signals(init, SIGCHLD)


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_no_sigchld_is_sent_for_a_child_that_continues(init: Process) -> None:
    """Waiting is the only way to learn of it (kern_sig.c: lwpsignal only wakes the parent up)."""
    child = init.fork()
    stop(init, child)
    init.sigaction(SIGCHLD, Handler.LOG)
    _continue(init, child)
    assert logged(init) == []
    assert init.wait4(child.pid, WCONTINUED).continued


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_parent_that_ignores_sigchld_can_still_wait_for_stops(init: Process) -> None:
    """Ignoring SIGCHLD is about zombies (kern_exit.c: kern_wait)."""
    init.sigaction(SIGCHLD, Handler.IGNORE)
    child = init.fork()
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED).stop_signal == SIGSTOP
    _continue(init, child)
    assert init.wait4(child.pid, WCONTINUED).continued


# ---- Waiting -----------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("proc_move_allproc_zombie")
@pytest.mark.parametrize("whom", ["child", "anybody", "group"])
def test_a_wait_under_way_ends_when_a_child_exits(init: RemoteProcess, whom: str) -> None:
    """The parent sleeps until then (kern_exit.c: kern_wait, p_waitgen)."""
    parent = init.fork()
    child = parent.fork()
    pending = parent.start.wait4({"child": child.pid, "anybody": -1, "group": 0}[whom])
    assert not pending.done
    child.exit(5)
    assert pending.result().exit_status == 5


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_wait_under_way_ends_when_a_child_is_killed(init: RemoteProcess) -> None:
    """Whoever killed it (kern_exit.c: exit1 wakes the parent)."""
    parent = init.fork()
    child = parent.fork()
    pending = parent.start.wait4()
    init.kill(child.pid, SIGTERM)
    assert pending.result().signal == SIGTERM


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_wait_under_way_ends_when_a_child_stops_and_when_it_continues(init: RemoteProcess) -> None:
    """If it asked for that (kern_sig.c: proc_stop, lwpsignal)."""
    parent = init.fork()
    child = parent.fork()
    pending = parent.start.wait4(child.pid, WUNTRACED)
    stop(init, child)
    assert pending.result().stop_signal == SIGSTOP
    pending = parent.start.wait4(child.pid, WCONTINUED)
    _continue(init, child)
    assert pending.result().continued


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_wait_for_one_child_sleeps_on_when_another_exits(init: RemoteProcess) -> None:
    """It is woken, looks, and sleeps again (kern_exit.c: kern_wait)."""
    parent = init.fork()
    child, other = parent.fork(), parent.fork()
    pending = parent.start.wait4(child.pid)
    await_asleep(init, parent)
    other.exit()
    await_asleep(init, parent)
    assert not pending.done
    child.exit(2)
    assert pending.result().exit_status == 2
    assert parent.wait4().pid == other.pid


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_wait_sleeps_on_when_a_child_stops_that_it_did_not_ask_about(init: RemoteProcess) -> None:
    """Neither stop nor continuation ends it (kern_exit.c: kern_wait)."""
    parent = init.fork()
    child = parent.fork()
    pending = parent.start.wait4()
    await_asleep(init, parent)
    stop(init, child)
    await_asleep(init, parent)
    _continue(init, child)
    await_asleep(init, parent)
    assert not pending.done
    child.exit()
    assert pending.result().pid == child.pid


@pytest.mark.kern_proc("proc_move_allproc_zombie")
@pytest.mark.parametrize("restart", [False, True], ids=["not restarted", "SA_RESTART"])
def test_a_handler_interrupts_a_wait_unless_it_restarts_it(init: RemoteProcess, restart: bool) -> None:
    """EINTR, or on it goes (kern_exit.c: kern_wait sleeps with PCATCH)."""
    parent = init.fork()
    child = parent.fork()
    parent.sigaction(SIGUSR1, Handler.LOG, SA_RESTART if restart else 0)
    pending = parent.start.wait4()
    await_asleep(init, parent)
    init.kill(parent.pid, SIGUSR1)
    if restart:
        eventually(lambda: row(init, parent.pid).lwp.ru.nsignals == 1, "the handler to run")
        await_asleep(init, parent)
        assert not pending.done
        child.exit()
        assert pending.result().pid == child.pid
    else:
        with fails(EINTR):
            pending.result()
        child.getpid()
    assert logged(parent) == [SIGUSR1]


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_parent_stopped_while_it_waits_goes_on_waiting_when_continued(init: RemoteProcess) -> None:
    """The stop is no end of the wait (kern_exit.c: kern_wait)."""
    parent = init.fork()
    child = parent.fork()
    pending = parent.start.wait4()
    await_asleep(init, parent)
    stop(init, parent)
    child.exit(4)
    assert not pending.done
    init.kill(parent.pid, SIGCONT)
    assert pending.result().exit_status == 4


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_wait_under_way_ends_with_echild_when_the_last_child_is_given_away(init: RemoteProcess) -> None:
    """As happens to the children of a parent that wants no zombies (kern_exit.c: proc_reparent wakes it up)."""
    parent = init.fork()
    parent.sigaction(SIGCHLD, Handler.IGNORE)
    first, second = parent.fork(), parent.fork()
    pending = parent.start.wait4()
    await_asleep(init, parent)  # else it may see the second as a zombie that is still its own
    first.exit()
    second.exit()
    with fails(ECHILD):
        pending.result()


@pytest.mark.kern_proc("proc_remove_zombie")
def test_a_waiting_reaper_is_told_of_inherited_zombies(init: RemoteProcess) -> None:
    """It is woken for the zombies it inherits (kern_exit.c: exit1)."""
    reaper = init.fork()
    reaper.procctl_reaper_acquire()
    parent = reaper.fork()
    zombie = _zombie(parent, 9)
    with fails(ECHILD):  # it is not its child yet
        reaper.wait4(zombie.pid)
    pending = reaper.start.wait4()
    parent.exit(8)
    first = pending.result()
    second = reaper.wait4()
    assert {(first.pid, first.exit_status), (second.pid, second.exit_status)} == {(parent.pid, 8), (zombie.pid, 9)}


# ---- Several threads waiting -------------------------------------------------------------------------------------


def _outcome(result: Callable[[], WaitResult]) -> int | str:
    try:
        return result().pid
    except GuestError as error:
        return error.name


@pytest.mark.usefixtures("several_reapers")
@pytest.mark.kern_proc("pholdzomb", "prelezomb", "proc_remove_zombie")
@pytest.mark.needs_kernel
def test_of_two_threads_that_wait_for_one_child_one_gets_it(init: RemoteProcess) -> None:
    """The other finds no child any more (kern_exit.c: kern_wait; kern_proc.c: pholdzomb)."""
    parent = init.fork()
    thread = parent.thread()
    for _ in range(5):
        child = parent.fork()
        pending = [parent.start.wait4(child.pid), thread.start.wait4(child.pid)]
        child.exit()
        assert sorted(map(str, (_outcome(one.result) for one in pending))) == sorted([str(child.pid), "ECHILD"])


@pytest.mark.usefixtures("several_reapers")
@pytest.mark.kern_proc("pholdzomb", "prelezomb", "proc_remove_zombie")
@pytest.mark.needs_kernel
def test_threads_that_wait_for_anybody_share_the_children(init: RemoteProcess) -> None:
    """Each zombie is reported to one of them (kern_exit.c: kern_wait)."""
    parent = init.fork()
    threads = [parent, *(parent.thread() for _ in range(3))]
    children = [parent.fork() for _ in threads]
    pending = [thread.start.wait4() for thread in threads]
    for child in children:
        child.exit()
    assert {one.result().pid for one in pending} == {child.pid for child in children}
    with fails(ECHILD):
        parent.wait4()


# ---- vfork -------------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_vforked_child_is_waited_for_like_any_other(init: Process) -> None:
    """The parent goes on when it has exited (kern_fork.c: start_forked_proc, P_PPWAIT)."""
    parent = init.fork()
    child = parent.vfork()
    assert init.sysctl.kern_proc_pid(child.pid)[0].ppid == parent.pid
    child.exit(7)
    result = parent.wait4(child.pid)
    assert (result.pid, result.exit_status) == (child.pid, 7)


@pytest.mark.kern_proc("phold", "prele", "pstall")
def test_the_parent_is_marked_in_its_vforked_child(init: Process) -> None:
    """P_PPWAIT as long as it waits for it (kern_fork.c: fork1; kern_exit.c: exit1)."""
    parent = init.fork()
    child = parent.vfork()
    assert row(init, child.pid).flags & ProcFlag.P_PPWAIT
    child.exit()
    assert not row(init, child.pid).flags & ProcFlag.P_PPWAIT
    assert parent.wait4().pid == child.pid


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_parent_does_nothing_while_its_vforked_child_lives(init: RemoteProcess) -> None:
    """The child uses its memory (kern_fork.c: start_forked_proc; kern_exit.c: exit1)."""
    parent = init.fork()
    child = parent.vfork()
    pending = parent.start.getppid()
    for _ in range(20):
        assert child.getppid() == parent.pid
    assert not pending.done
    child.exit()
    assert pending.result() == init.pid
    parent.wait4(child.pid)


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_children_that_exit_during_a_vfork_are_waited_for_after_it(init: Process) -> None:
    """They become zombies meanwhile (kern_exit.c: exit1)."""
    parent = init.fork()
    elder = parent.fork()
    child = parent.vfork()
    elder.exit(1)
    assert init.sysctl.kern_proc_pgrp(init.pid)[elder.pid].is_zombie
    child.exit(2)
    assert [parent.wait4().pid for _ in range(2)] == [child.pid, elder.pid]


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_vforked_child_that_runs_a_program_lets_its_parent_go(init: RemoteProcess) -> None:
    """The parent waits for it as usual from then on (kern_exec.c: P_PPWAIT)."""
    parent = init.fork()
    child = parent.vfork()
    child.reexec()
    assert parent.wait4(child.pid, WNOHANG).pid == 0
    child.exit(3)
    assert parent.wait4(child.pid).exit_status == 3


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_vforked_child_is_not_stopped_before_it_runs_a_program(init: RemoteProcess) -> None:
    """Its parent could not continue it (kern_sig.c: lwpsignal, issignal)."""
    parent = init.fork()
    child = parent.vfork()
    init.kill(child.pid, SIGSTOP)
    assert child.getpid() == child.pid
    reexec = child.start.reexec()
    await_stopped(init, child)
    assert parent.wait4(child.pid, WUNTRACED).stop_signal == SIGSTOP
    init.kill(child.pid, SIGCONT)
    reexec.result()


@pytest.mark.kern_proc("proc_move_allproc_zombie")
def test_a_vforked_child_that_is_killed_lets_its_parent_go(init: Process) -> None:
    """Dying in whatever way (kern_exit.c: exit1)."""
    parent = init.fork()
    child = parent.vfork()
    init.kill(child.pid, SIGKILL)
    assert parent.wait4(child.pid).signal == SIGKILL


# ---- What a child has used ---------------------------------------------------------------------------------------

MEGABYTES = 8
PAGES = (MEGABYTES << 20) // 4096


@pytest.mark.kern_proc("proc_remove_zombie")
@pytest.mark.needs_kernel
def test_the_usage_of_a_child_is_reported_with_its_end(init: RemoteProcess) -> None:
    """Page faults of touched memory, for example (kern_exit.c: kern_wait, p_ru)."""
    idle, busy = init.fork(), init.fork()
    busy.touch_memory(MEGABYTES << 20)
    idle.exit()
    busy.exit()
    faults = [init.wait4(child.pid).rusage.minflt for child in (idle, busy)]
    assert faults[1] - faults[0] >= PAGES // 64  # some are spared by prefaulting
    assert faults[0] >= 0


@pytest.mark.kern_proc("proc_remove_zombie")
@pytest.mark.needs_kernel
def test_the_usage_of_a_child_includes_the_children_it_has_waited_for(init: RemoteProcess) -> None:
    """And those only (kern_exit.c: exit1 and kern_wait add p_cru)."""
    usage = {}
    for waits in (False, True):
        child = init.fork()
        grandchild = child.fork()
        grandchild.touch_memory(MEGABYTES << 20)
        grandchild.exit()
        if waits:
            child.wait4(grandchild.pid)
        child.exit()
        usage[waits] = init.wait4(child.pid).rusage.minflt
    assert usage[True] - usage[False] >= PAGES // 64


@pytest.mark.kern_proc("sysctl_out_proc")
@pytest.mark.needs_kernel
def test_the_usage_of_waited_for_children_is_shown_by_the_process_table(init: RemoteProcess) -> None:
    """kp_cru grows by what wait4() reported (kern_exit.c: kern_wait)."""
    parent = init.fork()
    child = parent.fork()
    child.touch_memory(MEGABYTES << 20)
    before = row(init, parent.pid).cru
    child.exit()
    assert row(init, parent.pid).cru == before
    usage = parent.wait4(child.pid).rusage
    assert row(init, parent.pid).cru.minflt == before.minflt + usage.minflt


@pytest.mark.kern_proc("proc_move_allproc_zombie")
@pytest.mark.needs_kernel
def test_a_stop_is_reported_without_usage(init: RemoteProcess) -> None:
    """All zero: the child goes on using (kern_exit.c: kern_wait)."""
    child = init.fork()
    child.touch_memory(MEGABYTES << 20)
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED).rusage == Rusage()


# ---- wait6 -------------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("proc_remove_zombie")
@WITH_WAIT6
def test_wnowait_leaves_the_child_to_be_waited_for(init: Process) -> None:
    """It can be looked at any number of times (kern_exit.c: kern_wait)."""
    zombie = _zombie(init, 4)
    for _ in range(2):
        assert init.wait6(IdType.P_ALL, 0, WEXITED | WNOWAIT).exit_status == 4
    assert exists(init, zombie.pid)
    assert init.wait4(zombie.pid).exit_status == 4


@pytest.mark.kern_proc("proc_move_allproc_zombie")
@WITH_WAIT6
def test_wait6_reports_only_what_it_was_asked_for(init: Process) -> None:
    """Without WEXITED a zombie is nothing to report; without anything to report it is EINVAL (kern_exit.c)."""
    zombie = _zombie(init)
    assert init.wait6(IdType.P_PID, zombie.pid, WUNTRACED | WNOHANG).pid == 0
    with fails(EINVAL):
        init.wait6(IdType.P_PID, zombie.pid, WNOHANG)
    assert init.wait6(IdType.P_PID, zombie.pid, WEXITED).pid == zombie.pid


@pytest.mark.kern_proc("proc_remove_zombie", "enterpgrp")
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


@pytest.mark.kern_proc("proc_remove_zombie")
@WITH_WAIT6
@pytest.mark.parametrize("idtype", [IdType.P_CPUID, IdType.P_TASKID, 99], ids=str)
def test_wait6_knows_no_other_kinds_of_choice(init: Process, idtype: IdType | int) -> None:
    """They match nobody: ECHILD (kern_exit.c: kern_wait)."""
    zombie = _zombie(init)
    with fails(ECHILD):
        init.wait6(idtype, zombie.pid, WEXITED)


@pytest.mark.kern_proc("proc_remove_zombie")
@pytest.mark.eras(since=500_505, reason="si_status and si_code were fixed in March 2019")
def test_wait6_describes_the_end_of_the_child(init: Process) -> None:
    """Who it was and how it ended, decoded (kern_exit.c: kern_wait, siginfo_t)."""
    child = init.fork()
    child.setuid(SOMEBODY)
    child.exit(3)
    info = init.wait6(IdType.P_PID, child.pid, WEXITED).siginfo
    assert info is not None
    assert (info.signal, info.pid, info.uid, info.status) == (SIGCHLD, child.pid, SOMEBODY, 3)

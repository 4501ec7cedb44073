# SPDX-License-Identifier: BSD-2-Clause
"""Waiting for children that stop and go on: WUNTRACED, WCONTINUED (kern_exit.c: kern_wait())."""

from __future__ import annotations

from errno import ECHILD
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, Signals

import pytest

from harness.processes import WCONTINUED, WNOHANG, WUNTRACED, Handler, Process, fails
from support.processes import eventually, logged, resume, row, stop

# ---- Stopped children ---------------------------------------------------------------------------------------------


@pytest.mark.passes("fixjobc")
@pytest.mark.parametrize("signal", [SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU], ids=lambda signal: signal.name)
def test_a_stopped_child_is_reported_with_the_signal_that_stopped_it(init: Process, signal: Signals) -> None:
    """WUNTRACED (kern_exit.c: kern_wait, W_STOPCODE)."""
    child = init.fork()
    child.setpgid(0, 0)
    stop(init, child, signal)
    result = init.wait4(child.pid, WUNTRACED)
    assert (result.pid, result.stop_signal, result.raw_status & 0xFF) == (child.pid, signal, 0o177)
    assert (result.exit_status, result.signal, result.continued) == (None, None, False)


@pytest.mark.passes("proc_move_allproc_zombie")
def test_the_status_word_of_a_stopped_child(init: Process) -> None:
    """Signal number times 256 plus 0177: SIGSTOP is 17 (sys/wait.h: W_STOPCODE)."""
    child = init.fork()
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED).raw_status == 17 << 8 | 0o177


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_stop_is_reported_once(init: Process) -> None:
    """P_WAITED remembers that the parent knows (kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED | WNOHANG).pid == child.pid
    assert init.wait4(child.pid, WUNTRACED | WNOHANG).pid == 0
    init.kill(child.pid, SIGSTOP)  # it is stopped already
    assert init.wait4(child.pid, WUNTRACED | WNOHANG).pid == 0


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_stop_is_reported_to_whoever_asked_for_stops_only(init: Process) -> None:
    """Without WUNTRACED a stopped child is one that runs (kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    assert init.wait4(child.pid, WNOHANG).pid == 0
    assert init.wait4(child.pid, WNOHANG | WCONTINUED).pid == 0
    assert init.wait4(child.pid, WNOHANG | WUNTRACED).stop_signal == SIGSTOP


@pytest.mark.passes("proc_move_allproc_zombie")
def test_every_new_stop_is_reported(init: Process) -> None:
    """After it has run again (kern_sig.c: proc_stop clears P_WAITED)."""
    child = init.fork()
    for _ in range(3):
        stop(init, child)
        assert init.wait4(child.pid, WUNTRACED).stop_signal == SIGSTOP
        resume(init, child)


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_stop_that_is_over_is_not_reported(init: Process) -> None:
    """wait4() tells how things are, not how they were (kern_exit.c: kern_wait looks at p_stat)."""
    child = init.fork()
    stop(init, child)
    resume(init, child)
    assert init.wait4(child.pid, WUNTRACED | WNOHANG).pid == 0


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.parametrize("told", [False, True], ids=["untold", "told"])
def test_a_stopped_child_that_is_killed_is_reported_as_killed(init: Process, told: bool) -> None:
    """Whether or not its stop had been reported (kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    if told:
        init.wait4(child.pid, WUNTRACED)
    init.kill(child.pid, SIGKILL)
    assert init.wait4(child.pid).signal == SIGKILL


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_stopped_child_is_found_by_group_and_by_anybody(init: Process) -> None:
    """Whom to wait for works for stops as for exits (kern_exit.c: kern_wait)."""
    child, other = init.fork(), init.fork()
    child.setpgid(0, 0)
    for pid in (-1, -child.pid, child.pid):
        stop(init, child)
        assert init.wait4(other.pid, WUNTRACED | WNOHANG).pid == 0
        assert init.wait4(0, WUNTRACED | WNOHANG).pid == 0
        assert init.wait4(pid, WUNTRACED).pid == child.pid
        resume(init, child)


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.parametrize("youngest", ["stopped", "zombie"])
def test_the_youngest_child_with_news_is_reported_first(init: Process, youngest: str) -> None:
    """Stopped or dead, the list is gone through from the youngest (kern_exit.c: kern_wait)."""
    elder, younger = init.fork(), init.fork()
    stopped, zombie = (younger, elder) if youngest == "stopped" else (elder, younger)
    zombie.exit()
    stop(init, stopped)
    assert [init.wait4(options=WUNTRACED).pid for _ in range(2)] == [younger.pid, elder.pid]


@pytest.mark.passes("proc_move_allproc_zombie")
def test_only_the_parent_is_told_of_a_stop(init: Process) -> None:
    """Not whoever sent the signal (kern_exit.c: kern_wait)."""
    parent = init.fork()
    child = parent.fork()
    stop(init, child)
    assert init.wait4(options=WUNTRACED | WNOHANG).pid == 0
    assert parent.wait4(options=WUNTRACED).pid == child.pid


# ---- Continued children -------------------------------------------------------------------------------------------


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_continued_child_is_reported_once(init: Process) -> None:
    """WCONTINUED (kern_exit.c: kern_wait clears P_CONTINUED)."""
    child = init.fork()
    stop(init, child)
    resume(init, child)
    result = init.wait4(child.pid, WCONTINUED)
    assert (result.pid, result.continued, result.stop_signal, result.exit_status) == (child.pid, True, None, None)
    assert init.wait4(child.pid, WCONTINUED | WNOHANG).pid == 0


@pytest.mark.passes("proc_move_allproc_zombie")
def test_the_status_word_of_a_continued_child(init: Process) -> None:
    """The number of SIGCONT, 19, and nothing else (kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    resume(init, child)
    assert init.wait4(child.pid, WCONTINUED).raw_status == 19


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_continuation_is_reported_to_whoever_asked_for_it_only(init: Process) -> None:
    """Neither WNOHANG nor WUNTRACED shows it (kern_exit.c: kern_wait)."""
    child = init.fork()
    stop(init, child)
    resume(init, child)
    assert init.wait4(child.pid, WNOHANG).pid == 0
    assert init.wait4(child.pid, WNOHANG | WUNTRACED).pid == 0
    assert init.wait4(child.pid, WNOHANG | WCONTINUED).continued


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_child_that_was_never_stopped_was_never_continued(init: Process) -> None:
    """SIGCONT alone is no news (kern_sig.c: lwpsignal)."""
    child = init.fork()
    init.kill(child.pid, SIGCONT)
    assert init.wait4(child.pid, WCONTINUED | WNOHANG).pid == 0


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.parametrize("handler", list(Handler), ids=lambda handler: handler.value)
def test_what_a_child_does_with_sigcont_does_not_matter(init: Process, handler: Handler) -> None:
    """It is continued, and that is reported (kern_sig.c: lwpsignal)."""
    child = init.fork()
    child.sigaction(SIGCONT, handler)
    stop(init, child)
    resume(init, child)
    assert init.wait4(child.pid, WCONTINUED).continued
    assert set(logged(child)) == ({SIGCONT} if handler is Handler.LOG else set())


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_child_that_blocks_sigcont_is_continued_all_the_same(init: Process) -> None:
    """The effect comes with the sending (kern_sig.c: lwpsignal)."""
    child = init.fork()
    child.sigprocmask(mask=[SIGCONT])
    stop(init, child)
    resume(init, child)
    assert init.wait4(child.pid, WCONTINUED).continued


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_child_that_stops_again_is_not_reported_as_continued(init: Process) -> None:
    """The stop takes the news back (kern_sig.c: lwpsignal clears P_CONTINUED)."""
    child = init.fork()
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED).pid == child.pid
    resume(init, child)
    stop(init, child)
    assert init.wait4(child.pid, WCONTINUED | WNOHANG).pid == 0
    assert init.wait4(child.pid, WCONTINUED | WUNTRACED).stop_signal == SIGSTOP


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_continued_child_that_ends_is_reported_as_ended(init: Process, end: str) -> None:
    """And as nothing else (kern_exit.c: kern_wait looks for zombies first)."""
    child = init.fork()
    stop(init, child)
    resume(init, child)
    if end == "exit":
        child.exit(6)
    else:
        init.kill(child.pid, SIGKILL)
        eventually(lambda: row(init, child.pid).is_zombie, "the child to die")
    result = init.wait4(child.pid, WCONTINUED | WUNTRACED)
    assert (result.exit_status, result.signal) == ((6, None) if end == "exit" else (None, SIGKILL))
    with fails(ECHILD):
        init.wait4(child.pid, WCONTINUED | WUNTRACED)


@pytest.mark.passes("proc_move_allproc_zombie")
def test_a_child_killed_while_stopped_was_not_continued(init: Process) -> None:
    """SIGKILL makes it run, but that is nobody's news (kern_sig.c: lwpsignal)."""
    child = init.fork()
    stop(init, child)
    init.kill(child.pid, SIGKILL)
    result = init.wait4(child.pid, WCONTINUED | WUNTRACED)
    while result.stop_signal is not None:  # the stop may still be told before it dies
        result = init.wait4(child.pid, WCONTINUED | WUNTRACED)
    assert result.signal == SIGKILL

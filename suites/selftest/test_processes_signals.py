# SPDX-License-Identifier: BSD-2-Clause
"""Signals in driven processes, tried out on this host."""

from __future__ import annotations

from collections.abc import Iterator
from signal import SIGCHLD, SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1, SIGUSR2

import pytest

from harness.errors import DeadlineError
from harness.processes import (
    SA_NOCLDSTOP,
    SA_NOCLDWAIT,
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SA_SIGINFO,
    SIG_BLOCK,
    SIG_SETMASK,
    SIG_UNBLOCK,
    Handler,
    Hub,
    RemoteProcess,
    SigFlag,
    fails,
)
from harness.processes.connection import await_true
from harness.processes.local import can_run_locally, local_hub

pytestmark = pytest.mark.skipif(not can_run_locally(), reason="needs x86_64 Linux")

CLD_EXITED, CLD_KILLED = 1, 2


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with local_hub(tmp_path_factory.mktemp("cache")) as hub:
        yield hub


@pytest.fixture
def init(hub: Hub) -> Iterator[RemoteProcess]:
    yield hub.spawn()
    hub.kill_all()


def test_a_logging_handler_tells_who_sent_what(init: RemoteProcess) -> None:
    init.sigaction(SIGUSR1, Handler.LOG, SA_SIGINFO)
    sender = init.fork()
    before = init.clock_gettime()
    sender.kill(init.pid, SIGUSR1)
    record = init.await_signal(SIGUSR1)
    assert (record.signal, record.pid, record.code, record.sequence, record.siginfo) == (
        SIGUSR1,
        sender.pid,
        0,
        0,
        True,
    )
    assert before <= record.at <= init.clock_gettime()
    assert init.signals() == [], "read once"


def test_a_plain_handler_gets_no_siginfo(init: RemoteProcess) -> None:
    init.sigaction(SIGUSR1, Handler.LOG)
    init.kill(init.pid, SIGUSR1)
    (record,) = init.signals()
    assert (record.siginfo, record.pid) == (False, 0)


def test_the_parent_of_a_dead_child_is_told(init: RemoteProcess) -> None:
    init.sigaction(SIGCHLD, Handler.LOG, SA_SIGINFO)
    child = init.fork()
    child.exit(3)
    record = init.await_signal(SIGCHLD)
    assert (record.pid, record.code, record.status) == (child.pid, CLD_EXITED, 3)
    killed = init.fork()
    init.kill(killed.pid, SIGKILL)
    record = init.await_signal(SIGCHLD)
    assert (record.pid, record.code, record.status) == (killed.pid, CLD_KILLED, 9)


def test_sigaction_returns_what_was_there_before(init: RemoteProcess) -> None:
    assert init.sigaction(SIGUSR1, Handler.IGNORE).handler is Handler.DEFAULT
    assert init.sigaction(SIGUSR1, Handler.LOG, SA_SIGINFO | SA_RESTART, [SIGUSR2, SIGINT]).handler is Handler.IGNORE
    old = init.sigaction(SIGUSR1, Handler.DEFAULT)
    assert (old.handler, old.flags, old.mask) == (Handler.LOG, SA_SIGINFO | SA_RESTART, frozenset({SIGUSR2, SIGINT}))
    assert init.sigaction_query(SIGUSR1).handler is Handler.DEFAULT


@pytest.mark.parametrize("flag", [SA_NOCLDSTOP, SA_NOCLDWAIT, SA_NODEFER, SA_RESETHAND, SA_RESTART])
def test_flags_are_kept(init: RemoteProcess, flag: SigFlag) -> None:
    init.sigaction(SIGCHLD, Handler.LOG, flag)
    assert init.sigaction_query(SIGCHLD).flags == flag


def test_some_signals_cannot_be_caught(init: RemoteProcess) -> None:
    for sig in (SIGKILL, SIGSTOP, 0, 99):
        with fails("EINVAL"):
            init.sigaction(sig, Handler.LOG)


def test_resethand_works_once(init: RemoteProcess) -> None:
    child = init.fork()
    child.sigaction(SIGTERM, Handler.LOG, SA_RESETHAND)
    init.kill(child.pid, SIGTERM)
    assert child.await_signal(SIGTERM)
    init.kill(child.pid, SIGTERM)
    assert init.wait4().signal == SIGTERM


def test_ignored_children_are_not_zombies(init: RemoteProcess) -> None:
    init.sigaction(SIGCHLD, Handler.IGNORE)
    child = init.fork()
    child.exit()
    with fails("ECHILD"):
        init.wait4()


def test_blocked_signals_are_pending_until_they_are_not_blocked(init: RemoteProcess) -> None:
    init.sigaction(SIGUSR1, Handler.LOG)
    assert init.sigprocmask(SIG_BLOCK, [SIGUSR1]) == frozenset()
    init.kill(init.pid, SIGUSR1)
    assert init.sigpending() == {SIGUSR1}
    assert init.signals() == []
    assert init.sigprocmask(SIG_UNBLOCK, [SIGUSR1]) == {SIGUSR1}
    assert [record.signal for record in init.signals()] == [SIGUSR1]
    init.sigprocmask(SIG_SETMASK, [SIGUSR2])
    assert init.sigprocmask() == {SIGUSR2}
    assert init.sigprocmask() == frozenset()


def test_sigsuspend_is_interrupted_by_a_handler(init: RemoteProcess) -> None:
    child = init.fork()
    child.sigaction(SIGUSR1, Handler.LOG)
    child.sigprocmask(SIG_BLOCK, [SIGUSR1])
    waiting = child.start.sigsuspend()
    init.kill(child.pid, SIGUSR1)
    with fails("EINTR"):
        waiting.result()
    assert [record.signal for record in child.signals()] == [SIGUSR1]


def test_sigtimedwait_takes_a_blocked_signal(init: RemoteProcess) -> None:
    init.sigprocmask(SIG_BLOCK, [SIGUSR1])
    with fails("EAGAIN"):
        init.sigtimedwait([SIGUSR1], 0.01)
    init.kill(init.pid, SIGUSR1)
    info = init.sigtimedwait([SIGUSR1], 5)
    assert (info.signal, info.pid) == (SIGUSR1, init.pid)
    assert init.sigpending() == frozenset()


def test_a_handler_interrupts_a_blocking_call_unless_it_restarts(init: RemoteProcess) -> None:
    child = init.fork()
    child.fork()
    child.sigaction(SIGUSR1, Handler.LOG)
    waiting = child.start.wait4()

    def interrupted() -> bool:  # a signal before it sleeps there interrupts nothing
        init.kill(child.pid, SIGUSR1)
        return waiting.done

    await_true(interrupted, "wait4() to be interrupted", 30, 0.02)
    with fails("EINTR"):
        waiting.result()
    child.sigaction(SIGUSR1, Handler.LOG, SA_RESTART)
    waiting = child.start.wait4()
    for _ in range(10):
        init.nanosleep(0.02)
        init.kill(child.pid, SIGUSR1)
    with pytest.raises(DeadlineError):
        waiting.result(timeout=0.3)


def test_signals_between_requests_disturb_nothing(init: RemoteProcess) -> None:
    """The channel is read and written again whenever a handler has interrupted that."""
    init.sigaction(SIGUSR1, Handler.LOG)
    sender = init.fork()
    shots = [sender.start.kill(init.pid, SIGUSR1) for _ in range(300)]
    for _ in range(100):
        assert init.getpid() == init.pid
    for shot in shots:
        shot.result()
    records = init.signals()
    assert records
    assert [record.sequence for record in records] == list(
        range(records[0].sequence, records[0].sequence + len(records))
    )


def test_a_child_starts_with_an_empty_log_and_its_parents_handlers(init: RemoteProcess) -> None:
    init.sigaction(SIGUSR1, Handler.LOG)
    init.kill(init.pid, SIGUSR1)
    child = init.fork()
    assert child.signals() == []
    assert child.sigaction_query(SIGUSR1).handler is Handler.LOG
    assert len(init.signals()) == 1


def test_await_signal_gives_up(init: RemoteProcess) -> None:
    init.sigaction(SIGUSR2, Handler.LOG)
    init.kill(init.pid, SIGUSR2)
    with pytest.raises(DeadlineError, match=r"SIGUSR1 in process \d+ \(it got SIGUSR2\)"):
        init.await_signal(SIGUSR1, timeout=0.1)


def test_a_signal_before_the_childs_first_step_is_logged(init: RemoteProcess) -> None:
    init.sigaction(SIGUSR1, Handler.LOG)
    for _ in range(50):
        child = init.fork()
        init.kill(child.pid, SIGUSR1)
        assert child.await_signal(SIGUSR1)
        child.start.exit()


def test_signals_of_a_thread_are_its_own(init: RemoteProcess) -> None:
    thread = init.thread()
    init.sigaction(SIGUSR1, Handler.LOG)
    init.lwp_kill(init.pid, thread.tid, SIGUSR1)
    assert thread.await_signal(SIGUSR1)
    assert init.signals() == []

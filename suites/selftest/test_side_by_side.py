# SPDX-License-Identifier: BSD-2-Clause
"""Threads side by side: all have ended when it is over, however it ends."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from harness.threads import side_by_side

DEADLINE = 20.0


def test_it_is_over_when_all_have_ended() -> None:
    together, done = threading.Barrier(3), []

    def work() -> None:
        together.wait(DEADLINE)
        done.append("done")

    side_by_side(work, 3, lambda: done.append("stopped"), "each")
    assert done == ["done"] * 3


def test_who_is_interrupted_has_the_others_end_and_waits_for_that() -> None:
    began, stopped, ended = threading.Barrier(2), threading.Event(), []

    def work() -> None:
        if began.wait(DEADLINE) == 0:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # wakes who waits for a lock, too
        stopped.wait(DEADLINE)
        time.sleep(0.05)  # what it holds is given back
        ended.append(threading.current_thread().name)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side(work, 2, stopped.set, "each")
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.is_set()
    assert sorted(ended) == ["each-0", "each-1"]


def test_a_thread_that_was_being_started_is_waited_for_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt comes when it has not yet said that it runs."""
    start, ended = threading.Thread.start, []

    def work() -> None:
        time.sleep(1.2)  # longer than a thread may take to begin
        ended.append("ended")

    def begin_later(thread: threading.Thread) -> None:
        start(threading.Timer(0.2, start, [thread]))
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", begin_later)
    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, 1, lambda: None, "late")
    assert ended == ["ended"]

# SPDX-License-Identifier: BSD-2-Clause
"""Threads that work side by side: whoever waits for them ends them in order when it is interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable

_BEGINS = 1.0  # s that a thread which is being started may take to begin


def side_by_side(work: Callable[[], None], workers: int, stop: Callable[[], None], name: str) -> None:
    """Have WORK done WORKERS times at once, by threads called NAME, and return when all have ended.

    When that is interrupted STOP is called, which has them end soon; they are waited for, so that what they hold is
    given back.
    """
    # Not Thread.join(), which, interrupted, takes a thread for ended that is not (Python 3.11); nor a pool, which
    # forgets the one that it is starting.
    ended = [threading.Event() for _ in range(workers)]

    def run(over: threading.Event) -> None:
        try:
            work()
        finally:
            over.set()

    threads = [threading.Thread(target=run, args=(over,), name=f"{name}-{number}") for number, over in enumerate(ended)]
    try:
        for thread in threads:
            thread.start()
        for over in ended:
            over.wait()
    except BaseException:
        stop()
        for thread, over in zip(threads, ended, strict=True):
            if thread.ident is None:  # it is being started, or never will be
                over.wait(_BEGINS)
            if thread.ident is not None:
                over.wait()
        raise

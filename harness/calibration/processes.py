# SPDX-License-Identifier: BSD-2-Clause
"""Processes that simulate, one for each CPU."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

#: How many processes there are.
COUNT = os.cpu_count() or 1


def processes(begin: Callable[..., object] | None = None, *given: Any) -> ProcessPoolExecutor:
    """Return them, started; each calls BEGIN with what is GIVEN first."""
    # Small tables are slower on several threads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    pool = ProcessPoolExecutor(COUNT, multiprocessing.get_context("spawn"), begin, given)
    # Started here: the script that runs the command need not be one that can be imported by its processes.
    script = vars(sys.modules["__main__"])
    file = script.pop("__file__", None)
    try:
        for started in [pool.submit(os.getpid) for _ in range(COUNT)]:
            started.result()
    finally:
        if file is not None:
            script["__file__"] = file
    return pool

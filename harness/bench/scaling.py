# SPDX-License-Identifier: BSD-2-Clause
"""What more cores would make of a run: it is played through once more, with the durations that its record has."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from harness.errors import UsageError
from harness.results.record import RunRecord
from harness.runs.order import HANDED_OUT, Dealt, Order

#: Seconds of the one controlling process for each test: reports are read, kept and shown, the next test is sent.
#: 0.9 ms of CPU were measured (1,318 tests on the oracle, one worker); runs on machines keep a record and a board, too.
CONTROLLER = 0.0015
WORKERS = (2, 8, 16, 64)
_LONG = 0.1  # s; to a worker whose tests take so long pytest-xdist hands out no more than it needs


@dataclass(frozen=True)
class Workload:
    """What a run consists of: seconds in each test, between two of a worker, and until a worker's first test."""

    tests: tuple[float, ...]
    between: float
    start: float

    @classmethod
    def of(cls, record: RunRecord) -> Workload:
        """Return what RECORD says; raises UsageError for a run that has not even begun."""
        ran = [result.seconds for result in record.results if result.verdict.is_judged]
        if not ran or not record.first_test:
            raise UsageError("no test of that run came to anything: there is nothing to be played through")
        began, first = (datetime.fromisoformat(moment).timestamp() for moment in (record.started, record.first_test))
        start = max(0.0, first - began)
        between = (record.workers * (record.seconds - start) - sum(ran)) / len(ran)
        return cls(tuple(ran), max(0.0, between), start)


@dataclass(frozen=True)
class Outlook:
    """How long a run would take with so many workers, a core for each, and what would not let it be shorter."""

    workers: int
    seconds: float
    limit: str


def play(work: Workload, workers: int, controller: float = CONTROLLER) -> Outlook:
    """Play WORK through with WORKERS, tests being handed out as pytest-xdist does (scheduler/load.py)."""
    names = [str(number) for number in range(len(work.tests))]
    dealt = Dealt(workers, dict(zip(names, work.tests, strict=True)))
    left = deque(work.tests[int(name)] for name in Order().arrange(names, str, lambda _: 0, dealt))
    queues = [deque(left.popleft() for _ in range(min(HANDED_OUT, len(left)))) for _ in range(workers)]
    ends = [(work.start + queue[0] + work.between, number) for number, queue in enumerate(queues) if queue]
    heapq.heapify(ends)
    free = work.start  # from when on the controller has time
    while ends:
        moment, number = heapq.heappop(ends)
        queue = queues[number]
        took = queue.popleft()
        free = max(free, moment) + controller
        # A worker begins a test when it knows which one follows.
        begins = moment if len(queue) >= HANDED_OUT or not left else free
        if len(queue) < max(2, len(left) // workers // 4) and not (took >= _LONG and len(queue) >= 2):
            queue.extend(left.popleft() for _ in range(min(HANDED_OUT, len(left))))
        if queue:
            heapq.heappush(ends, (begins + queue[0] + work.between, number))
    return Outlook(workers, free, _limit(work, workers, controller))


def _limit(work: Workload, workers: int, controller: float) -> str:
    """Return which of the things that more workers do not make shorter is the longest, or that all have to compute."""
    bounds = {
        "computing": (sum(work.tests) + work.between * len(work.tests)) / workers,
        "the longest test": max(work.tests) + work.between,
        "the controlling process": controller * len(work.tests),
        "the way to the first test": work.start,
    }
    return max(bounds, key=lambda name: bounds[name])


def outlooks(record: RunRecord, workers: Sequence[int] = WORKERS) -> list[Outlook]:
    """Return what the run of RECORD would take with each number of WORKERS."""
    work = Workload.of(record)
    return [play(work, count) for count in workers]

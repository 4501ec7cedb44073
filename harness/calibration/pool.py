# SPDX-License-Identifier: BSD-2-Clause
"""Searches on all CPUs, of every kind as many as there is time for."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Self

from harness.calibration.processes import COUNT, processes
from harness.calibration.tables import Progress
from harness.calibration.worlds import Found, Kind, Shape, World, graph, search

_WAITING = 4  # searches for each CPU, so that none is idle

# What the searches of a process are made in, by place; none stands for random graphs.
_shapes: dict[str, Sequence[Shape]] = {}


@dataclass(frozen=True)
class Row:
    """A row of a table: searches in histories of this `place` at this `level`, `times` of them.

    `causes` is "one", "two", or "mended" for one that went and came again.
    """

    place: str
    level: float
    kind: Kind
    times: int
    causes: str = "one"


def _begin(shapes: Mapping[str, Sequence[Shape]]) -> None:
    _shapes.update(shapes)


def _one(row: Row, seed: int) -> Found:
    # Each row has luck of its own.
    words = (row.place, row.level, row.kind.name, row.causes, seed)
    chance = random.Random(" ".join(map(str, words)))  # noqa: S311  (repeatable, not secret)
    shapes = _shapes[row.place]
    shape = chance.choice(shapes) if shapes else graph(chance)
    world = World(shape, row.kind, chance)
    last = len(shape) - 1
    if row.causes == "two":
        world.causes = [(number, None) for number in sorted(chance.sample(range(last), 2))]
    elif row.causes == "mended":
        came, went, again = sorted(chance.sample(range(last), 3))
        world.causes = [(came, went), (again, None)]
    return search(world, row.level)


class Pool:
    """Processes that search in histories of these SHAPES."""

    def __init__(self, shapes: Mapping[str, Sequence[Shape]]) -> None:
        self._pool = processes(_begin, dict(shapes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def searches(
        self, rows: Iterable[Row], seconds: float, progress: Progress = lambda _: None
    ) -> dict[Row, list[Found]]:
        """Return the searches of ROWS; those begun after SECONDS are left out, of all rows the same part."""
        ends = time.monotonic() + seconds
        tasks = sorted(
            ((seed + 0.5) / row.times, place, seed, row) for place, row in enumerate(rows) for seed in range(row.times)
        )
        found: dict[Row, list[Found]] = {row: [] for *_, row in tasks}
        left, made = iter(tasks), 0
        pending: dict[Future[Found], Row] = {}
        while True:
            while len(pending) < _WAITING * COUNT and time.monotonic() < ends:
                if (task := next(left, None)) is None:
                    break
                pending[self._pool.submit(_one, task[3], task[2])] = task[3]
            if not pending:
                return found
            for done in wait(pending, return_when=FIRST_COMPLETED).done:
                found[pending.pop(done)].append(done.result())
                made += 1
                if made % 100 == 0:
                    progress(f"{made} of {len(tasks)} searches")

# SPDX-License-Identifier: BSD-2-Clause
"""Makes the runs that settle a suspicion: some tests, on boots of their own, of both kernels in turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.compare.evidence import FIRST_BOOTS, Inquiry, Runs, Seen, Suspicion
from harness.compare.verdicts import cause_of, worst_results
from harness.results.record import BETWEEN_TESTS
from harness.runs.runner import Run

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where a run belongs that is made because of a suspicion against contender `against`: boot, run, contender."""

    against: int
    boot: int
    run: int
    number: int


#: Makes a run of some tests at some place; none named stands for the whole suite.
Make = Callable[[Sequence[str], Place], Run]


class Laboratory:
    """Has MAKE make the runs that settle suspicions against contender NUMBER, in POOL; FILE keeps the suspicions."""

    def __init__(self, make: Make, number: int, pool: Executor, file: Path, progress: Progress) -> None:
        self._make = make
        self._number = number
        self._pool = pool
        self._file = file
        self._progress = progress

    def looks(self) -> list[list[Suspicion]]:
        """Return the suspicions of earlier looks, in their order."""
        try:
            return [[Suspicion(**each) for each in look] for look in json.loads(self._file.read_text())]
        except (OSError, ValueError, TypeError):
            return []

    def keep_looks(self, inquiry: Inquiry) -> None:
        """Note down what was suspected when, for the next command with the same plan."""
        looks = [[asdict(trial.suspicion) for trial in look.trials] for look in inquiry.looks]
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(looks))
        part.replace(self._file)

    def __call__(self, runs: Runs) -> Mapping[tuple[str, int], Seen]:
        """Make RUNS, one process each, and return what they came to."""
        numbers = (self._number,) if runs.only_other else (0, self._number)
        names = [test for test in runs.tests if test != BETWEEN_TESTS]
        whole = BETWEEN_TESTS in runs.tests and runs.runs.start == 0 and runs.boots.start <= FIRST_BOOTS
        futures = {}
        for boot in runs.boots:
            for run in runs.runs:
                order = numbers if (boot + run) % 2 == 0 else numbers[::-1]
                # A death between tests is the whole suite's: it is run once on each of the first boots.
                tests: Sequence[str] = () if whole and run == 0 else names
                if tests or (whole and run == 0):
                    for number in order:
                        place = Place(self._number, boot, run, number)
                        futures[self._pool.submit(self._make, tests, place)] = place
        made: dict[Place, Run] = {}
        for done in as_completed(futures):
            made[futures[done]] = done.result()
            self._progress(f"{len(made)} of {len(futures)} runs again of {len(runs.tests)} tests that seem to differ")
        return {
            (test, boot): (
                [self._outcome(test, made.get(Place(self._number, boot, run, 0))) for run in runs.runs]
                if not runs.only_other
                else [],
                [self._outcome(test, made.get(Place(self._number, boot, run, self._number))) for run in runs.runs],
            )
            for test in runs.tests
            for boot in runs.boots
        }

    @staticmethod
    def _outcome(test: str, run: Run | None) -> str | None:
        """Return why TEST failed in RUN, "" where it passed, None where nothing is known."""
        if run is None or run.record is None:
            return None
        result = worst_results(run.record).get(test)
        if result is None and test == BETWEEN_TESTS and run.is_whole:
            return ""
        return cause_of(result) if result is not None else None

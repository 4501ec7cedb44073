# SPDX-License-Identifier: BSD-2-Clause
"""Makes the runs that settle a suspicion: some tests, on boots of their own, of both kernels in turn."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from harness.compare.evidence import FIRST_BOOTS, Runs, Seen, Suspicion
from harness.compare.verdicts import worst_results
from harness.errors import HarnessError
from harness.files import write_whole
from harness.results.record import BETWEEN_TESTS
from harness.results.verdict import Verdict
from harness.runs.runner import Run

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where a run belongs that is made because of a suspicion against contender `against`: boot, contender, repeats.

    Each test of it runs once for each number of `runs`.
    """

    against: int
    boot: int
    runs: range
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

    def looks(self) -> list[tuple[int, list[Suspicion]]]:
        """Return the suspicions of earlier looks, in their order, and how often the suite had run by then."""
        try:
            looks = json.loads(self._file.read_text())
            return [(int(repeat), [Suspicion(**each) for each in look]) for repeat, look in looks]
        except (OSError, ValueError, TypeError):
            return []

    def keep_looks(self, looks: Sequence[tuple[int, Sequence[Suspicion]]]) -> None:
        """Note down what was suspected when, for the next command with the same plan."""
        write_whole(self._file, json.dumps([(repeat, [asdict(each) for each in look]) for repeat, look in looks]))

    def __call__(self, runs: Runs) -> Mapping[tuple[str, int], Seen]:
        """Make RUNS, one process for each boot and kernel, and return what they came to."""
        numbers = (self._number,) if runs.only_other else (0, self._number)
        names = [test for test in runs.tests if test != BETWEEN_TESTS]
        # A death between tests is the whole suite's: that is run once on each of the first boots.
        is_whole = BETWEEN_TESTS in runs.tests and runs.runs == range(1) and runs.boots.start <= FIRST_BOOTS
        futures = {}
        for boot in runs.boots if names or is_whole else ():
            for number in numbers if boot % 2 == 0 else numbers[::-1]:
                place = Place(self._number, boot, runs.runs, number)
                futures[self._pool.submit(self._make, () if is_whole else names, place)] = place
        made: dict[tuple[int, int], Run] = {}
        for done in as_completed(futures):
            place = futures[done]
            made[place.boot, place.number] = done.result()
            self._progress(f"{len(made)} of {len(futures)} runs again of {len(runs.tests)} tests that seem to differ")
        _demand_news(made.values())
        seen: dict[tuple[str, int], Seen] = {}
        for test, boot in product(runs.tests, runs.boots):
            base, other = (_outcomes(test, made.get((boot, number))) for number in (0, self._number))
            # Which of several runs in one process was which nobody knows: where some are lost, any of the others go.
            known = len(other) if runs.only_other else min(len(base), len(other))
            seen[test, boot] = ([] if runs.only_other else base[:known], other[:known])
        return seen


def _demand_news(runs: Collection[Run]) -> None:
    """Raise HarnessError where all of RUNS failed of the host or the harness: others would fail as well.

    That is no reason to give a suspicion up, which lies in the kernels alone.
    """
    troubles = [run.trouble for run in runs if run.trouble is not None and run.trouble.verdict is Verdict.HARNESS_ERROR]
    if troubles and len(troubles) == len(runs):
        raise HarnessError(
            f"what seems to differ cannot be run again: {troubles[0]}; what was found out so far is kept, "
            "and the same command goes on with the rest"
        )


def _outcomes(test: str, run: Run | None) -> list[str | None]:
    """Return for each time that TEST ran in RUN why it failed, "" where it passed.

    Those of which nothing is known are left out; the order has nothing to do with what they came to.
    """
    if run is None or run.record is None:
        return []
    result = worst_results(run.record).get(test)
    if result is None:
        return [""] if test == BETWEEN_TESTS and run.is_whole else []
    causes = [cause for each in (result, *result.again) if (cause := each.failed_for) is not None]
    random.Random(test).shuffle(causes)  # noqa: S311
    return list(causes)

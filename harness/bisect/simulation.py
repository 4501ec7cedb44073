# SPDX-License-Identifier: BSD-2-Clause
"""Does the decision core keep its word?  Random histories with known culprits, searched by the real core.

The bound that the searches are held against: to name the culprit among m groups of commits (commits that only
untestable ones separate being one group) with probability of error d, at least  H - h(d) - d log2(m - 1)  bits are
needed (Fano), H being the entropy of the groups.  A run tells at most the capacity of its channel: 1 bit where the
failure always happens, else that of the Z channel with the failure's rate.  Bits needed by bits per run, rounded up,
is the least number of runs of any strategy, even of one that knows the rate.  Where the failure always happens nothing
may be left to error: the bound is H itself, log2 n rounded up.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import random
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.bisect.decision import Knowledge, Outcome, Trouble, channel_capacity
from harness.bisect.history import History
from harness.bisect.rates import Rates

CONFIDENCE = 0.95
#: Claims are looked at when they first reach these.
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
RATES = (1.0, 0.5, 0.2, 0.05)
_SIZES = (100, 300)
_MERGES = 0.12
_STRETCHES = 0.5
_MOST_RUNS = 5000


@dataclass(frozen=True)
class Case:
    """A history, its culprit, the commits that cannot be tested, and the rate of the failure."""

    history: History
    culprit: str
    untestable: frozenset[str]
    rate: float


@dataclass(frozen=True)
class Search:
    """How one search went.

    `experiments` are its runs; where all agreed with a failure that always happens, those until one commit (or one
    group) was left, and the `proving` ones after them.  `bound` is the least number of any strategy, `git` that of
    git bisect on a line.  `levels` tells, where a claim first reached one of LEVELS, whether it was right.
    """

    rate: float
    commits: int
    experiments: int
    proving: int
    git: int
    bound: int
    claimed: float
    is_right: bool
    levels: tuple[tuple[float, bool], ...]

    @property
    def ratio(self) -> float:
        """Experiments by the bound."""
        return self.experiments / self.bound


def random_history(chance: random.Random, size: int) -> History:
    """Return a history of SIZE commits with side branches, all merged into its last commit."""
    names = [f"c{number:04}" for number in range(size)]
    parents: dict[str, tuple[str, ...]] = {names[0]: ()}
    heads = [names[0]]
    for number, name in enumerate(names[1:], 1):
        left = size - number
        if len(heads) > 1 and (left < len(heads) or chance.random() < 2 * _MERGES):
            taken = chance.sample(heads, 2)
            parents[name] = tuple(taken)
            heads = [head for head in heads if head not in taken] + [name]
        elif left > len(heads) + 1 and chance.random() < _MERGES:
            parents[name] = (names[chance.randrange(max(0, number - 12), number)],)
            heads = [head for head in heads if head not in parents[name]] + [name]
        else:
            at = chance.randrange(len(heads))
            parents[name] = (heads[at],)
            heads[at] = name
    return History(names, parents)


def random_case(chance: random.Random, rate: float) -> Case:
    """Return a case; every other one has stretches that cannot be tested."""
    history = random_history(chance, chance.randint(*_SIZES))
    size = len(history)
    untestable: set[str] = set()
    if chance.random() < _STRETCHES:
        for _ in range(chance.randint(1, 3)):
            length = chance.randint(1, max(1, size // 10))
            first = chance.randrange(size - length)
            untestable |= set(history.commits[first : first + length])
    untestable.discard(history.commits[-1])  # it was seen bad
    return Case(history, chance.choice(history.commits), frozenset(untestable), rate)


def _group_sizes(case: Case) -> list[int]:
    knowledge = Knowledge(case.history, Rates.of_failure())
    for commit in case.untestable:
        knowledge.observe(commit, Outcome.UNTESTABLE, Trouble.BUILD)
    return knowledge.group_sizes()


def least_runs(sizes: Sequence[int], rate: float, confidence: float = CONFIDENCE) -> int:
    """Return the bound described above, for groups of SIZES commits each."""
    total = sum(sizes)
    entropy = -sum(size / total * math.log2(size / total) for size in sizes)
    if rate >= 1:
        return max(1, math.ceil(entropy - 1e-9))
    error = 1 - confidence
    doubt = -error * math.log2(error) - confidence * math.log2(confidence)
    needed = entropy - doubt - error * math.log2(max(1, len(sizes) - 1))
    return max(1, math.ceil(needed / channel_capacity(rate)))


def search(case: Case, chance: random.Random, confidence: float = CONFIDENCE) -> Search:
    """Find the culprit of CASE as a search does, every run costing the same; untestable tries do not count."""
    history = case.history
    knowledge = Knowledge(history, Rates.of_failure())
    knowledge.observe_bad_end()
    inherited_by = history.inherits[:, history.number[case.culprit]]
    seconds = [1.0] * len(history)
    levels: dict[float, bool] = {}
    runs = narrowed = 0
    found = knowledge.conclude()
    while runs < _MOST_RUNS and found.probability < confidence:
        proposals = knowledge.choose(seconds)
        if not proposals:
            break
        commit = proposals[0].commit
        if commit in case.untestable:
            knowledge.observe(commit, Outcome.UNTESTABLE, Trouble.BUILD)
        else:
            runs += 1
            is_bad = bool(inherited_by[history.number[commit]]) and chance.random() < case.rate
            knowledge.observe(commit, Outcome.BAD if is_bad else Outcome.GOOD)
        found = knowledge.conclude()
        for level in LEVELS:
            if found.probability >= level:
                levels.setdefault(level, case.culprit in found.commits)
        narrowed = narrowed or (runs if knowledge.is_narrowed else 0)
    experiments = narrowed if knowledge.is_certain else runs
    return Search(
        case.rate,
        len(history),
        max(1, experiments),
        runs - experiments,
        math.ceil(math.log2(len(history))),
        least_runs(_group_sizes(case), case.rate, confidence),
        found.probability,
        case.culprit in found.commits,
        tuple(levels.items()),
    )


def searches(rate: float, seeds: Sequence[int]) -> Iterator[Search]:
    """Search one random history per seed."""
    for seed in seeds:
        chance = random.Random(f"{rate} {seed}")  # noqa: S311  (repeatable, not secret)
        yield search(random_case(chance, rate), chance)


@dataclass(frozen=True)
class Calibration:
    """Many searches in figures; `levels` is (claim, how many claims, how many of them right).

    `medians` is (rate, median experiments, median of experiments by the bound).
    """

    searches: int
    right: int
    claimed: float
    ratio: float
    medians: tuple[tuple[float, float, float], ...]
    levels: tuple[tuple[float, int, int], ...]


def calibrate(found: Sequence[Search]) -> Calibration:
    """Return FOUND in figures."""
    medians = []
    for rate in sorted({each.rate for each in found}, reverse=True):
        of_rate = [each for each in found if each.rate == rate]
        medians.append(
            (
                rate,
                statistics.median(each.experiments for each in of_rate),
                round(statistics.median(each.ratio for each in of_rate), 3),
            )
        )
    levels = []
    for level in LEVELS:
        outcomes = [is_right for each in found for at, is_right in each.levels if at == level]
        levels.append((level, len(outcomes), sum(outcomes)))
    return Calibration(
        len(found),
        sum(each.is_right for each in found),
        round(statistics.fmean(each.claimed for each in found), 4),
        round(statistics.median(each.ratio for each in found), 3),
        tuple(medians),
        tuple(levels),
    )


_CHUNK = 25
_THREADS = "OPENBLAS_NUM_THREADS"


def _chunk(of: tuple[float, range]) -> list[Search]:
    return list(searches(*of))


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep the numeric library of new processes from waiting busily for threads that such small tables do not need."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before


def simulate(count: int, processes: int) -> list[Search]:
    """Search COUNT random histories of each of RATES, on PROCESSES CPUs."""
    chunks = [(rate, range(first, min(first + _CHUNK, count))) for rate in RATES for first in range(0, count, _CHUNK)]
    # Fresh interpreters: threads of the numeric library do not survive a fork.
    with _one_thread_each(), ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        # The rarest failures take longest.
        return [found for part in pool.map(_chunk, chunks[::-1]) for found in part]


if __name__ == "__main__":
    # python -m harness.bisect.simulation: measures what reports say about the trust that claims deserve.
    figures = calibrate(simulate(250, os.cpu_count() or 1))
    Path(__file__).with_name("calibration.json").write_text(json.dumps(asdict(figures), indent=1) + "\n")

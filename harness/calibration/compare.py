# SPDX-License-Identifier: BSD-2-Clause
"""What compare says, judged by a simulator that shares nothing with it but the interface of its decisions.

A world is a number of tests on two kernels, each with a rate at which it fails that may differ by kernel, by boot, by
run and over time.  A run of the suite is drawn from it, as is every run that the decisions ask for; nothing is known to
the world of how they are made.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.calibration.processes import processes
from harness.calibration.tables import Progress, Table, exceeds, share
from harness.compare.cost_judgement import (
    BLOCKS,
    COUNTED_BOOTS,
    confidence_of_each,
    judge_instructions,
    judge_times,
)
from harness.compare.evidence import Runs, Seen, boot_of_suite
from harness.compare.retrial import decide
from harness.results.certainty import rate_interval, running_interval
from harness.results.comparison import Difference, Judgement, Tally

_CONFIDENCE = 0.95
_TESTS = 925
Rates = NDArray[np.float64]
Chance = np.random.Generator


@dataclass
class World:
    """Two kernels: `rates` has a row of failure rates for each, a column for each test that may fail at all.

    `by_boot` multiplies a rate by a factor drawn for each test, kernel and boot; `by_run` does so for each run, the
    same for all tests, and for both kernels; `drift` adds to all rates in turn as runs go by.  `clock` counts runs.
    """

    chance: Chance
    rates: Rates
    by_boot: Callable[[Chance, int], Rates] | None = None
    by_run: Callable[[Chance], float] | None = None
    drift: Callable[[int], float] | None = None
    clock: int = 0
    made: int = 0
    _boots: dict[tuple[int, int], Rates] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return the tests' names."""
        return [f"t{number}" for number in range(self.rates.shape[1])]

    def _rates(self, kernel: int, boot: int, luck: float) -> Rates:
        rates = self.rates[kernel]
        if self.by_boot is not None:
            if (kernel, boot) not in self._boots:
                self._boots[kernel, boot] = self.by_boot(self.chance, rates.size)
            rates = rates * self._boots[kernel, boot]
        if self.drift is not None:
            rates = rates + self.drift(self.clock) * (rates > 0)
        clipped: Rates = np.clip(rates * luck, 0.0, 1.0)
        return clipped

    def run(self, boot: int) -> NDArray[np.bool_]:
        """Return which tests fail on either kernel, in runs side by side."""
        self.clock += 1
        luck = self.by_run(self.chance) if self.by_run is not None else 1.0
        rates = np.stack([self._rates(kernel, boot, luck) for kernel in (0, 1)])
        drawn: NDArray[np.bool_] = self.chance.random(rates.shape) < rates
        return drawn

    def suite(self, repeat: int) -> dict[int, list[NDArray[np.bool_]]]:
        """Return what REPEAT runs of the whole suite come to on either kernel, by boot, as compare makes them."""
        boots: dict[int, list[NDArray[np.bool_]]] = {}
        for number in range(repeat):
            boot = boot_of_suite(number)
            boots.setdefault(boot, []).append(self.run(boot))
        return boots

    def _tallies(self, counts: NDArray[np.int64], repeat: int) -> list[dict[str, Tally]]:
        return [
            {
                name: Tally(repeat, int(count), Counter(), Counter({"no": int(count)} if count else {}))
                for name, count in zip(self.names(), failures, strict=True)
            }
            for failures in counts
        ]

    def _seen(self, boots: dict[int, list[NDArray[np.bool_]]]) -> dict[int, dict[str, Seen]]:
        """Return the runs on BOOTS by test; those that failed nowhere are left out."""
        names = self.names()
        failed = np.flatnonzero(np.any([run for runs in boots.values() for run in runs], axis=(0, 1)))
        return {
            boot: {
                names[test]: (
                    ["no" if each[0, test] else "" for each in runs],
                    ["no" if each[1, test] else "" for each in runs],
                )
                for test in failed
            }
            for boot, runs in boots.items()
        }

    def again(self, runs: Runs) -> Mapping[tuple[str, int], Seen]:
        """Return what the RUNS come to that the decisions ask for."""
        seen: dict[tuple[str, int], Seen] = {}
        numbers = {name: number for number, name in enumerate(self.names())}
        for boot in runs.boots:
            drawn = [self.run(boot) for _ in runs.runs]
            self.made += len(runs.runs)
            for test in runs.tests:
                base, other = (["no" if each[kernel, numbers[test]] else "" for each in drawn] for kernel in (0, 1))
                seen[test, boot] = ([], other) if runs.only_other else (base, other)
        return seen

    def compare(self, repeat: int) -> dict[str, Judgement]:
        """Return what is said of the two kernels."""
        boots = self.suite(repeat)
        base, other = self._tallies(np.sum([run for runs in boots.values() for run in runs], axis=0), repeat)
        return decide(base, other, self.again, _CONFIDENCE, self._seen(boots))


@dataclass(frozen=True)
class Scenario:
    """A kind of world, by name, and how to make one."""

    name: str
    make: Callable[[Chance], World]


def _alike(chance: Chance, rates: Rates, **effects: Any) -> World:
    """Return a world of two kernels that are alike."""
    return World(chance, np.tile(rates, (2, 1)), **effects)


def _lucky_boots(share_: float) -> Callable[[Chance, int], Rates]:
    """Return factors by which a test fails on that SHARE_ of boots, and on no other."""
    return lambda chance, size: (chance.random(size) < share_).astype(np.float64)


def _same_for_all(share_: float) -> Callable[[Chance, int], Rates]:
    """Return the same for all tests of a kernel's boot at once: one boot fails them all, another none."""
    return lambda chance, size: np.full(size, float(chance.random() < share_))


def _uneven_boots(chance: Chance, size: int) -> Rates:
    return chance.gamma(0.2, 5.0, size)


def _bad_runs(chance: Chance) -> float:
    return 20.0 if chance.random() < 0.1 else 0.5


#: Kernels that are alike, and do not tell it easily.
ALIKE = (
    Scenario("9 of 925 tests fail in 1% of runs", lambda chance: _alike(chance, np.full(9, 0.01))),
    Scenario("all 925 fail in 0.01%", lambda chance: _alike(chance, np.full(_TESTS, 1e-4))),
    Scenario("30 fail in 30%", lambda chance: _alike(chance, np.full(30, 0.3))),
    Scenario("one fails in 50%", lambda chance: _alike(chance, np.full(1, 0.5))),
    Scenario("60 fail in 50%", lambda chance: _alike(chance, np.full(60, 0.5))),
    Scenario("40 rates, U-shaped", lambda chance: _alike(chance, chance.beta(0.2, 0.8, 40))),
    Scenario(
        "20 at 2%, every tenth run is bad for all", lambda chance: _alike(chance, np.full(20, 0.02), by_run=_bad_runs)
    ),
    Scenario(
        "20 at 5%, rising to 60% and back",
        lambda chance: _alike(chance, np.full(20, 0.05), drift=lambda now: 0.275 * (1 - math.cos(now / 15))),
    ),
    Scenario(
        "20 at 10%, by boot times a gamma factor",
        lambda chance: _alike(chance, np.full(20, 0.1), by_boot=_uneven_boots),
    ),
    Scenario(
        "one fails always on every other boot", lambda chance: _alike(chance, np.ones(1), by_boot=_lucky_boots(0.5))
    ),
    Scenario(
        "30 fail always on every other boot", lambda chance: _alike(chance, np.ones(30), by_boot=_lucky_boots(0.5))
    ),
    Scenario(
        "30 fail always, together, on every other boot",
        lambda chance: _alike(chance, np.ones(30), by_boot=_same_for_all(0.5)),
    ),
)
_REPEATS = (1, 5, 20, 50)


_AT_ONCE = 10  # comparisons by one process


def _compare_alike(number: int, repeat: int, seeds: range) -> tuple[int, int, int]:
    """Return of how many comparisons of kernels that are alike something was broken, or named, and the runs made."""
    broken = named = made = 0
    for seed in seeds:
        world = ALIKE[number].make(np.random.default_rng([number, repeat, seed]))
        said = world.compare(repeat).values()
        broken += any(judgement.is_broken for judgement in said)
        named += any(judgement.verdict in _CLAIMS or judgement.is_broken for judgement in said)
        made += world.made
    return broken, named, made


def _identical(progress: Progress, *, quick: bool) -> Iterator[Table]:
    """Count how often something is said of kernels that are alike."""
    count = 60 if quick else 300
    repeats = (1, 20) if quick else _REPEATS
    rows, misses, again = [], [], []
    seeds = [range(first, min(first + _AT_ONCE, count)) for first in range(0, count, _AT_ONCE)]
    with processes() as pool:
        for number, scenario in enumerate(ALIKE):
            progress(f"kernels that are alike: {scenario.name}")
            cells, costs = [], []
            for repeat in repeats:
                counts = pool.map(_compare_alike, *zip(*((number, repeat, part) for part in seeds), strict=True))
                broken, named, made = (sum(column) for column in zip(*counts, strict=True))
                cells.append(f"{share(broken, count)} / {share(named, count)}")
                costs.append(f"{made / count:.0f}")
                if exceeds(named, count, 1 - _CONFIDENCE):
                    misses.append(f"{scenario.name}, {repeat} repeats: {share(named, count)}")
            rows.append((scenario.name, *cells))
            again.append((scenario.name, *costs))
    headings = ("kernels that are alike", *(f"{repeat} repeat{'s' * (repeat > 1)}" for repeat in repeats))
    yield Table(
        f"Kernels that are alike: exit status 1 / any difference named ({count} comparisons each)",
        "at most 5%",
        headings,
        tuple(rows),
        tuple(misses),
    )
    yield Table("... and how many runs of either kernel, of few tests each, that took", "-", headings, tuple(again))


_CLAIMS = {
    Difference.BROKEN,
    Difference.FIXED,
    Difference.RARER,
    Difference.CHANGED,
}


def _sequential_test(chance: Chance, low: float, high: float) -> int | None:
    """Return the pairs of runs after which the best sequential test tells HIGH from LOW, None where it does not.

    It is Wald's, of one test alone, told both rates; against it stands that both kernels fail at the rate that is
    hardest to tell from this, their mean.  Its errors are 5% here, and 5% there.
    """
    mean = (low + high) / 2
    evidence, pairs = 0.0, 0
    bounds = math.log(0.95 / 0.05), math.log(0.05 / 0.95)
    while bounds[1] < evidence < bounds[0]:
        pairs += 1
        for rate in (low, high):
            fails = chance.random() < rate
            evidence += math.log(rate / mean if fails else (1 - rate) / (1 - mean))
    return pairs if evidence >= bounds[0] else None


_RACES = ((0.0, 0.1), (0.0, 0.2), (0.0, 0.5), (0.01, 0.2), (0.1, 0.5), (0.3, 0.9))
_AT_MOST = 1.5  # times the runs of the best sequential test, for a race of 10% against 0%


def _power(progress: Progress, *, quick: bool) -> Iterator[Table]:
    """Measure how soon what is there is said."""
    count = 100 if quick else 500
    rows, misses = [], []
    for number, (low, high) in enumerate(_RACES):
        progress(f"races: {high:.0%} against {low:.0%}")
        best = [_sequential_test(np.random.default_rng([9, number, seed]), low, high) for seed in range(count)]
        needed = statistics.fmean(pairs for pairs in best if pairs is not None)
        cells = [f"{needed:.0f}"]
        for repeat in _REPEATS:
            runs, suspected = [], 0
            for seed in range(count):
                chance = np.random.default_rng([number, repeat, seed])
                world = World(chance, np.array([[low], [high]]))
                (said,) = world.compare(repeat).values()
                if said.again is not None and said.again.other[1] and not said.confidence:
                    suspected += 1
                if said.is_broken:
                    runs.append(repeat + world.made)
            tried = len(runs) + suspected
            mean = statistics.fmean(runs) if runs else math.nan
            cells.append(f"{len(runs) / max(tried, 1):.0%}, {mean:.0f} runs, {mean / needed:.2f}")
            if (low, high) == (0.0, 0.1) and mean / needed > _AT_MOST * (1.1 if quick else 1):
                misses.append(f"10% against 0% after {repeat} repeats: {mean / needed:.2f} times the runs")
        rows.append((f"{high:.0%} against {low:.0%}", *cells))
    yield Table(
        "Races: the best sequential test's runs of each kernel; share named of those suspected, runs, times the best's",
        f"at most {_AT_MOST} times for 10% against 0%",
        ("race", "best", *(f"{repeat} repeat{'s' * (repeat > 1)}" for repeat in _REPEATS)),
        tuple(rows),
        tuple(misses),
    )
    yield _always(quick=quick)


def _always(*, quick: bool) -> Table:
    """Count the runs until a test that is broken always is said to be so, with flakes beside it."""
    count = 20 if quick else 300
    rows, misses = [], []
    for broken, flaky, rate in ((1, 0, 0.0), (30, 0, 0.0), (1, 9, 0.01), (1, 20, 0.3), (10, 20, 0.3)):
        runs, found = [], 0
        for seed in range(count):
            chance = np.random.default_rng([broken, flaky, seed])
            rates = np.array([[0.0] * broken + [rate] * flaky, [1.0] * broken + [rate] * flaky])
            said = World(chance, rates).compare(1)
            of_broken = [said[f"t{number}"] for number in range(broken)]
            found += sum(judgement.is_broken for judgement in of_broken)
            runs += [judgement.again.other[1] + 1 for judgement in of_broken if judgement.again is not None]
        rows.append((f"{broken} broken, {flaky} flaky at {rate:.0%}", share(found, count * broken), f"{min(runs)}",
                     f"{statistics.fmean(runs):.1f}", f"{max(runs)}"))  # fmt: skip
        if found < count * broken:
            misses.append(f"{broken} broken beside {flaky} flaky: {found} of {count * broken} named")
        if not flaky and max(runs) > _FEWEST:
            misses.append(f"{broken} broken: {max(runs)} runs")
    return Table(
        "Tests that are broken always: said so, after so many runs of each kernel, the suite's own included",
        f"all, and after {_FEWEST} runs where nothing else is flaky",
        ("tests", "named", "fewest", "mean", "most"),
        tuple(rows),
        tuple(misses),
    )


_FEWEST = 4
_MENDED = (
    (1.0, 0.3),
    (1.0, 0.1),
    (0.5, 0.25),
    (0.5, 0.05),
    (0.1, 0.05),
    (0.5, 0.02),
    (1.0, 0.0),
    (0.5, 0.0),
    (0.2, 0.0),
)


def _rarer(progress: Progress, *, quick: bool) -> Table:
    """Count what is said of races that became rarer, or went."""
    count, rows, misses = (60 if quick else 300), [], []
    for number, (before, now) in enumerate(_MENDED):
        progress(f"races that became rarer: {before:.0%} to {now:.0%}")
        said: Counter[Difference] = Counter()
        for seed in range(count):
            world = World(np.random.default_rng([number, seed]), np.array([[before], [now]]))
            said.update(judgement.verdict for judgement in world.compare(5).values())
        words = (Difference.FIXED, Difference.RARER, Difference.UNPROVEN, Difference.FLAKY)
        rows.append((f"{before:.0%} to {now:.0%}", *(f"{said[word] / count:.1%}" for word in words)))
        if now >= before / 10 and exceeds(said[Difference.FIXED], count, 1 - _CONFIDENCE):
            misses.append(f"{before:.0%} to {now:.0%}: fixed in {share(said[Difference.FIXED], count)}")
    return Table(
        f"Races that became rarer, after 5 repeats ({count} comparisons each)",
        "fixed in at most 5% where a tenth or more is left",
        ("race", "fixed", "rarer", "unproven", "flaky"),
        tuple(rows),
        tuple(misses),
    )


_INTERVALS = (3, 10, 20, 50)
_RATES = 199  # rates between 0 and 1 at which the exact coverage is worked out


def _binomial(count: int, rate: float) -> list[float]:
    """Return the probabilities of 0 to COUNT failures, by the recursion from one to the next."""
    odds = [(1 - rate) ** count]
    for seen in range(count):
        odds.append(odds[-1] * (count - seen) / (seen + 1) * rate / (1 - rate))
    return odds


def _ever_missed(rate: float, held: Sequence[Sequence[bool]]) -> float:
    """Return the probability that an interval misses RATE in a row of runs; HELD tells it by runs and failures."""
    odds = [1.0]
    for row in held[1:]:
        drawn = [0.0] * (len(odds) + 1)
        for failures, chance in enumerate(odds):
            drawn[failures] += chance * (1 - rate)
            drawn[failures + 1] += chance * rate
        odds = [chance if holds else 0.0 for chance, holds in zip(drawn, row, strict=True)]
    return 1 - math.fsum(odds)


def _intervals(*, quick: bool) -> Table:
    rows, misses = [], []
    for count in _INTERVALS[: 2 if quick else None]:
        exact = [rate_interval(failures, count, 0.95) for failures in range(count + 1)]
        running = [[running_interval(seen, made, 0.95) for seen in range(made + 1)] for made in range(count + 1)]
        least, least_running = 1.0, 1.0
        for step in range(1, _RATES + 1):
            rate = step / (_RATES + 1)
            odds = _binomial(count, rate)
            held = sum(each for each, one in zip(odds, exact, strict=True) if one.low <= rate <= one.high)
            least = min(least, held)
            inside = [[one.low <= rate <= one.high for one in row] for row in running]
            least_running = min(least_running, 1 - _ever_missed(rate, inside))
        rows.append((str(count), f"{least:.1%}", f"{least_running:.1%}"))
        if min(least, least_running) < 0.95 - 1e-9:
            misses.append(f"{count} runs: {min(least, least_running):.1%}")
    return Table(
        "Intervals of a failure rate at 95%: the least coverage over all rates, worked out exactly",
        "at least 95%",
        ("runs", "after so many runs", "whenever one looks"),
        tuple(rows),
        tuple(misses),
    )


@dataclass(frozen=True)
class Noise:
    """How readings of costs scatter: between boots of a kernel, and on one; `shape` draws deviations of about 1."""

    name: str
    boots: float
    readings: float
    shape: Callable[[Chance, tuple[int, ...]], NDArray[np.floating[Any]]]
    is_shared: bool = False  # by all workloads of a boot


_NOISES = (
    Noise("0.3% between boots, 0.05% on one", 0.003, 0.0005, lambda chance, size: chance.standard_normal(size)),
    Noise("1% between boots, 0.3% on one", 0.01, 0.003, lambda chance, size: chance.standard_normal(size)),
    Noise(
        "1% between boots, the same for all workloads",
        0.01,
        0.001,
        lambda chance, size: chance.standard_normal(size),
        True,
    ),
    Noise("1%, heavy tails", 0.01, 0.003, lambda chance, size: chance.standard_t(2, size)),
    Noise("1%, skewed", 0.01, 0.003, lambda chance, size: chance.exponential(1.0, size) - 1),
    Noise(
        "every third boot 1% dearer, else equal", 0.01, 0.0, lambda chance, size: (chance.random(size) < 1 / 3) * 1.0
    ),
)
_WORKLOADS = 7


def _readings(noise: Noise, chance: Chance, boots: int, change: float) -> Rates:
    """Return one reading for each kernel, workload and boot; the second kernel's first workload costs CHANGE more."""
    size = (2, _WORKLOADS, boots)
    by_boot = noise.shape(chance, (2, 1, boots) if noise.is_shared else size)
    logs: Rates = noise.boots * by_boot + noise.readings * noise.shape(chance, size)
    logs = np.broadcast_to(logs, size).copy()
    logs[1, 0] += math.log1p(change)
    found: Rates = 1e5 * np.exp(logs)
    return found


def _named(noise: Noise, chance: Chance, change: float) -> list[bool]:
    """Return of which workloads a change is named, in instructions or in time."""
    sure = confidence_of_each(_WORKLOADS)
    counted = _readings(noise, chance, COUNTED_BOOTS, change)
    timed = _readings(noise, chance, BLOCKS, change)
    timed = np.stack([timed * np.exp(noise.readings * chance.standard_normal(timed.shape)) for _ in range(2)])
    # The host gets slower from block to block, and within each.
    slower = 1 + 0.01 * np.arange(BLOCKS)
    named = []
    for work in range(_WORKLOADS):
        blocks = []
        for block in range(BLOCKS):
            # A B B A: two readings of each kernel on the same boot, and the host slows down meanwhile.
            turns = ((0, 0), (1, 0), (1, 1), (0, 1))
            taken = [
                float(timed[again][kernel, work, block] * slower[block] * (1 + 0.001 * position))
                for position, (kernel, again) in enumerate(turns)
            ]
            blocks.append((taken[0], taken[1], taken[2], taken[3]))
        found = (
            judge_instructions("w", counted[0, work].tolist(), counted[1, work].tolist(), sure),
            judge_times("w", blocks, sure),
        )
        named.append(any(cost.is_changed for cost in found))
    return named


def _costs(progress: Progress, *, quick: bool) -> Table:
    """Count how often a cost is called another one where it is not, and where it is."""
    count, rows, misses = (150 if quick else 1000), [], []
    for number, noise in enumerate(_NOISES):
        progress(f"costs: {noise.name}")
        wrong = sum(any(_named(noise, np.random.default_rng([number, seed]), 0.0)) for seed in range(count))
        cells = []
        for change in (0.01, 0.03):
            tries = range(count // 10)
            found = sum(_named(noise, np.random.default_rng([number, seed, 1]), change)[0] for seed in tries)
            cells.append(share(found, len(tries)))
        rows.append((noise.name, share(wrong, count), *cells))
        if exceeds(wrong, count, 1 - _CONFIDENCE):
            misses.append(f"{noise.name}: {share(wrong, count)}")
    return Table(
        f"Costs of kernels that are alike: any of {_WORKLOADS} workloads named; a change of one by 1% and by 3% named",
        "at most 5%",
        ("noise", "alike", "1% more", "3% more"),
        tuple(rows),
        tuple(misses),
    )


def tables(progress: Progress, *, quick: bool = False) -> Iterator[Table]:
    """Yield the tables, as they come; QUICK makes small ones."""
    progress("intervals")
    yield _intervals(quick=quick)
    yield from _power(progress, quick=quick)
    yield _rarer(progress, quick=quick)
    yield _costs(progress, quick=quick)
    yield from _identical(progress, quick=quick)

# SPDX-License-Identifier: BSD-2-Clause
"""How sure one can be after so many tries: exact statements about rates, without assumptions about their size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

_STEPS = 100  # halvings of [0, 1]: far below the resolution of a float
_LIMIT = 1 << 20


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, both included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _at_least(k: int, n: int, p: float) -> float:
    """Return the probability of K or more successes in N tries, each with probability P."""
    if k <= 0:
        return 1.0
    if p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    logs = math.log(p), math.log1p(-p)
    return math.fsum(math.exp(_log_choose(n, i) + i * logs[0] + (n - i) * logs[1]) for i in range(k, n + 1))


def _root(rising: Callable[[float], float], wanted: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if rising(middle) < wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def rate_interval(failures: int, runs: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval (Clopper-Pearson) for a failure rate of which FAILURES in RUNS were seen.

    Each end may be wrong with half of the error probability, also where all or none failed: to spend the whole on the
    open side then would cover 92.7% of what is called 95%.  A bound for one side alone is upper_bound().
    """
    if not 0 <= failures <= runs or not 0 < confidence < 1:
        raise ValueError(f"no interval for {failures} of {runs} at {confidence}")
    if runs == 0:
        return Interval(0.0, 1.0)
    tail = (1 - confidence) / 2
    low = _root(lambda p: _at_least(failures, runs, p), tail) if failures else 0.0
    return Interval(low, upper_bound(failures, runs, 1 - tail))


def upper_bound(failures: int, runs: int, confidence: float = 0.95) -> float:
    """Return the exact bound that a failure rate of which FAILURES in RUNS were seen does not exceed."""
    if failures == runs:
        return 1.0
    if failures == 0:
        return -math.expm1(math.log1p(-confidence) / runs)
    return _root(lambda p: _at_least(failures + 1, runs, p), confidence)


def passes_to_bound(rate: float, confidence: float = 0.95) -> int:
    """Return how many runs without a failure show that the failure rate is below RATE."""
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate) - 1e-9)


def chance_of_fewer(base: tuple[int, int], other: tuple[int, int]) -> float:
    """Return how probable it is that OTHER fails as rarely as it did, or still more rarely, if both rates were equal.

    Both are (failures, runs).  This is Fisher's exact test, one-sided; it says nothing about how large the rates are,
    so a rare failure needs many runs before its absence means anything.
    """
    (base_failures, base_runs), (other_failures, other_runs) = base, other
    failures, runs = base_failures + other_failures, base_runs + other_runs
    least = max(0, failures - base_runs)
    whole = _log_choose(runs, failures)
    chance = math.fsum(
        math.exp(_log_choose(other_runs, k) + _log_choose(base_runs, failures - k) - whole)
        for k in range(least, other_failures + 1)
    )
    return min(1.0, chance)


def is_sure(chance: float, confidence: float) -> bool:
    """Tell whether CHANCE is small enough to be taken for none at CONFIDENCE."""
    return chance <= 1 - confidence + 1e-9  # sums of floats; 1 of 20 is 5%


def runs_until_sure(base: tuple[int, int], confidence: float = 0.95) -> int | None:
    """Return how many runs of each would show a difference, if BASE goes on failing at its rate and the other never.

    None where BASE does not fail, or so rarely that a million runs would not do.
    """
    failures, runs = base
    if failures == 0:
        return None
    rate = failures / runs

    def shows(count: int) -> bool:
        # Not one failure more than the rate gives: what is promised must not depend on luck.
        return is_sure(chance_of_fewer((math.floor(rate * count + 1e-9), count), (0, count)), confidence)

    high = 1
    while not shows(high):
        high *= 2
        if high > _LIMIT:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def median_interval(values: list[float], confidence: float = 0.95) -> Interval | None:
    """Return an interval that holds the median of what VALUES were drawn from, whatever its distribution.

    Its ends are two of the values (order statistics).  None where there are too few of them for this confidence.
    """
    ordered = sorted(values)
    count = len(ordered)
    best = None
    for skipped in range(count // 2):
        # The median lies outside when at most `skipped` values are on one side of it.
        outside = 2 * math.fsum(math.exp(_log_choose(count, i) - count * math.log(2)) for i in range(skipped + 1))
        if outside > 1 - confidence + 1e-12:
            break
        best = Interval(ordered[skipped], ordered[count - 1 - skipped])
    return best

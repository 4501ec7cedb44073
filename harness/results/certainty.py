# SPDX-License-Identifier: BSD-2-Clause
"""How sure one can be after so many tries: exact statements about rates, without assumptions about their size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_STEPS = 100  # halvings of [0, 1]: far below the resolution of a float


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


def running_interval(failures: int, runs: int, confidence: float = 0.95) -> Interval:
    """Return an interval for a failure rate that holds whenever one stops looking, whatever made one stop.

    It has the rates against which nobody could have won more than 1 / (1 - CONFIDENCE) by betting as one does who knows
    nothing of them (Jeffreys' mixture); it is somewhat wider than rate_interval(), which is for a number of runs that
    was fixed before.
    """
    if runs == 0:
        return Interval(0.0, 1.0)

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    least = log_beta(failures + 0.5, runs - failures + 0.5) - log_beta(0.5, 0.5) + math.log1p(-confidence)

    def is_refuted(rate: float) -> bool:
        likelihood = failures * math.log(rate) if failures else 0.0
        return likelihood + ((runs - failures) * math.log1p(-rate) if failures < runs else 0.0) < least

    def edge(outside: float) -> float:
        inside = failures / runs
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if is_refuted(middle) else (middle, outside)
        return outside

    return Interval(edge(0.0) if failures else 0.0, edge(1.0) if failures < runs else 1.0)


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


def shift_interval(base: Sequence[float], other: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Return an interval for by how much OTHER is above BASE, where both scatter alike, whatever the distribution.

    It has all shifts that the rank-sum test does not refute (Hodges and Lehmann).  None where there are too few values
    for this confidence.
    """
    shifts = sorted(two - one for one in base for two in other)
    trimmed = _trimmed(len(base), len(other), 1 - confidence)
    return Interval(shifts[trimmed], shifts[-1 - trimmed]) if trimmed is not None else None


def _trimmed(base: int, other: int, error: float) -> int | None:
    """Return how many of the shifts may be left out at either end, with at most ERROR; None where even none is wrong.

    That is the largest number that a rank sum falls short of, or exceeds, in at most ERROR of all ways to deal the
    values to two sides (Mann and Whitney).
    """
    ways = _rank_sums(base, other)
    whole, below, trimmed = math.comb(base + other, base), 0, None
    for sum_, count in enumerate(ways):
        below += count
        if 2 * below > error * whole:
            break
        trimmed = sum_
    return trimmed


def _rank_sums(base: int, other: int) -> list[int]:
    """Return in how many ways BASE of all values exceed 0, 1, 2, ... of the OTHER ones, counted by pairs."""
    # As many as there are partitions into at most BASE parts, none above OTHER: the coefficients of Gauss' binomial.
    ways = [[0] * (base * other + 1) for _ in range(base + 1)]
    ways[0][0] = 1
    for size in range(other + 1):
        for parts in range(1, base + 1):
            for total in range(size, base * other + 1):
                ways[parts][total] += ways[parts - 1][total - size]
    return ways[base]

# SPDX-License-Identifier: BSD-2-Clause
"""Proof by fresh runs: that one kernel shows the failure more often than others do, whatever the rates are.

The evidence is an e-value: how much better the runs are explained by what was believed before the first of them than
by the best of all accounts in which the one is no worse than the other.  Whichever such account is true, the e-value
has an expectation of at most 1 at any time, so it reaches 1 / a with probability at most a, however often one looks and
however the next run is chosen (Ville's inequality; Wasserman, Ramdas and Balakrishnan, "Universal inference", 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from harness.bisect.rates import Rates, Vector

# So much of the prior belief is kept beside what the search believes, lest the latter be mistaken.
_KEPT = 0.05
# Of the error allowed, the first commit that is tried has this share, the next one this share of the rest ...
_FIRST = 0.8


def error_of_attempt(number: int, error: float) -> float:
    """Return how much of the ERROR allowed the attempt NUMBER, counted from 0, has: together they do not exceed it."""
    return error * _FIRST * float((1 - _FIRST) ** number)


@dataclass
class Runs:
    """How many runs of a kernel were bad, and how many good."""

    bad: int = 0
    good: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.bad + self.good

    def add(self, *, bad: bool) -> None:
        """Count one."""
        if bad:
            self.bad += 1
        else:
            self.good += 1


def likelihood(mean: Vector, spread: Vector, runs: Runs) -> Vector:
    """Return how probable RUNS of one kernel are, in their order, for rates of MEAN that differ by SPREAD."""
    chance = np.ones_like(mean)
    for number in range(runs.bad):
        chance = chance * (mean + spread * number) / (1 + spread * number)
    for number in range(runs.good):
        chance = chance * (1 - mean + spread * number) / (1 + spread * (runs.bad + number))
    return chance


@dataclass
class Evidence:
    """The runs of `upper`, which should be bad, and of each of `lowers`, which should not, since BELIEF was held.

    BELIEF is over the hypotheses of RATES.
    """

    rates: Rates
    belief: Vector
    upper: str
    lowers: tuple[str, ...]
    runs: dict[str, Runs] = field(init=False)
    _logs: dict[str, Vector] = field(init=False)

    def __post_init__(self) -> None:
        self.runs = {commit: Runs() for commit in (self.upper, *self.lowers)}
        self._logs = {commit: np.zeros(len(self.belief)) for commit in self.runs}
        self.belief = (1 - _KEPT) * self.belief + _KEPT * self.rates.belief

    def add(self, commit: str, *, bad: bool) -> None:
        """Take in a run of COMMIT; of others than the two sides nothing is learnt."""
        if commit not in self.runs:
            return
        runs = self.runs[commit]
        chance = self.rates.chances(runs.bad, runs.good)[0 if commit == self.upper else 1]
        with np.errstate(divide="ignore"):
            self._logs[commit] = self._logs[commit] + np.log(chance if bad else 1 - chance)
        runs.add(bad=bad)

    @property
    def value(self) -> float:
        """The e-value: the least of those against each of the lower kernels."""
        return min((self._against(lower) for lower in self.lowers), default=1.0)

    def _against(self, lower: str) -> float:
        logs = self._logs[self.upper] + self._logs[lower]
        most = float(np.max(logs))
        if most == -math.inf:
            return 0.0
        explained = most + math.log(float(self.belief @ np.exp(logs - most)))
        return math.exp(min(700.0, explained - _best_without(self.runs[self.upper], self.runs[lower])))

    def following(self, under_way: dict[str, int]) -> str:
        """Return the kernel that is to be run next, while so many runs of each are UNDER_WAY: all as often."""
        # The upper one first among equals: where the failure does not show again nothing else matters.
        return min(self.runs, key=lambda commit: self.runs[commit].total + under_way.get(commit, 0))


def _best_without(upper: Runs, lower: Runs) -> float:
    """Return the logarithm of how well the runs are explained, at best, if UPPER fails no more often than LOWER."""
    if upper.bad * lower.total <= lower.bad * upper.total:
        return _fit(upper) + _fit(lower)
    return _fit(Runs(upper.bad + lower.bad, upper.good + lower.good))


def _fit(runs: Runs) -> float:
    return sum(part * math.log(part / runs.total) for part in (runs.bad, runs.good) if part)

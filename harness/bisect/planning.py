# SPDX-License-Identifier: BSD-2-Clause
"""Which experiment tells most for its price.

The outcome of a run depends on the culprit only by whether the commit that is run inherits it, and on the rates.  What
it is expected to tell is worked out per row of the table of belief (see `decision`), with the share of each row's
commits that it inherits.  A long history is not looked at commit by commit: first at some that divide what is believed
evenly, then at those around the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.bisect.history import Flags, History
from harness.bisect.rates import Rates, Vector

Numbers = NDArray[np.int64]

#: Experiments are planned together up to this number: their joint outcomes are all weighed, and there are 2 ** N.
MOST_AT_ONCE = 8
# How many runs of a kernel its being built and booted is spread over, at most, where the failure is flaky.
_REPEATS = (1, 2, 4, 8, 16, 32)
# A longer plan has to be that much better than a shorter one.
_BETTER = 1 + 1e-6
_NOTHING = 1e-9  # bits; what floats leave of no information
_NEGLIGIBLE = 1e-7  # shares of belief that do not change what comes next
_SHORTEST_STRETCH = 2.0
_LEAST_TESTABLE = 1e-3
# Up to so many commits all are looked at; of more, so many at a time.
_SHORT = 1024
_AT_A_TIME = 192


def plogp(values: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return p log2 p, which is 0 for 0."""
    array = np.asarray(values, dtype=np.float64)
    return array * np.log2(np.where(array > 0, array, 1.0))


@dataclass(frozen=True)
class Proposal:
    """An experiment: its commit, the bits it is expected to tell beyond those before it, its cost in seconds.

    Where a kernel has to be built or booted first, that pays by repetition: bits and seconds are those of `runs` runs
    then, of which the first one is proposed.  `chance_bad` is the chance that a run turns out bad, `testable` that it
    turns out anything.
    """

    commit: str
    bits: float
    seconds: float
    chance_bad: float
    testable: float = 1.0
    runs: int = 1

    @property
    def rate(self) -> float:
        """Expected bits per second."""
        return self.bits * self.testable / self.seconds


@dataclass(frozen=True)
class View:
    """What is known, as the planner needs it.

    `belief` has a row per group of commits that nothing tested tells apart, and a column per hypothesis of `rates`;
    `labels` gives each commit's row, `possible` says which may be the culprit.  Of the `tested` commits `inherits` says
    which rows they inherit, `chances` how probable a bad run is then and else, per hypothesis.
    """

    rates: Rates
    belief: NDArray[np.float64]
    labels: Numbers
    possible: Flags
    tested: Numbers
    inherits: Flags
    chances: tuple[NDArray[np.float64], NDArray[np.float64]]
    untestable: Flags
    seen: Flags
    troubled: bool


class _Table:
    """The part of a VIEW's belief that is looked at, split by the outcomes of experiments under way."""

    def __init__(self, view: View, *, certain: bool) -> None:
        belief = view.belief[:, :1] if certain else view.belief
        total = belief.sum()
        least = 0.0 if certain else _NEGLIGIBLE * total
        mass = belief.sum(axis=1)
        if certain and mass[1:].any():
            mass[0] = 0.0  # an older change is looked for at the good end
        self.rows = np.flatnonzero(mass > least)
        self.columns = np.flatnonzero(belief.sum(axis=0) > least)
        self._with = [view.rates.with_culprit[self.columns], view.rates.without[self.columns]]
        self._tested = [chance[:, self.columns] for chance in view.chances]
        self.inherits = view.inherits[:, self.rows]
        self.labels = np.full(len(view.belief), -1)
        self.labels[self.rows] = np.arange(len(self.rows))
        self.labels = np.where(view.possible, self.labels[view.labels], -1)
        part = belief[np.ix_(self.rows, self.columns)]
        self.outcomes = (part / part.sum())[None, :, :]

    def split(self, history: History, number: int) -> None:
        """Take in that a run of commit NUMBER is under way."""
        inherited = history.ancestors(number)
        places = np.where(self.labels < 0, -2, 2 * self.labels + inherited)
        found, inverse = np.unique(places, return_inverse=True)
        sizes = np.bincount(inverse)
        # Rows without commits (that of an older change) stay as they are, and are inherited.
        real = found >= 0
        came = found[real] // 2
        share = sizes[real] / np.maximum(np.bincount(self.labels[self.labels >= 0], minlength=len(self.rows))[came], 1)
        bare = np.setdiff1d(np.arange(len(self.rows)), came)
        came_from, share = np.concatenate([bare, came]), np.concatenate([np.ones(len(bare)), share])
        own = np.concatenate([np.ones(len(bare), dtype=np.bool_), found[real] % 2 == 1])
        names = np.full(len(found), -1)
        names[real] = np.arange(len(came)) + len(bare)
        self.labels = names[inverse]
        self.rows = self.rows[came_from]
        self.inherits = self.inherits[:, came_from]
        tables = self.outcomes[:, came_from, :] * share[None, :, None]
        chance = np.where(own[:, None], self._with[0][None, :], self._with[1][None, :])[None, :, :]
        self.outcomes = np.concatenate([tables * chance, tables * (1 - chance)])

    def known(self) -> float:
        """Return the bits that the outcomes under way tell about the culprit."""
        by_row = self.outcomes.sum(axis=2)
        return float(-plogp(by_row.sum(axis=1)).sum() + plogp(by_row).sum() - plogp(by_row.sum(axis=0)).sum())

    def shares(self, history: History, numbers: Numbers) -> NDArray[np.float64]:
        """Return for each of the commits NUMBERS which share of each of our rows it inherits."""
        live = np.flatnonzero(self.labels >= 0)
        live = live[np.argsort(self.labels[live], kind="stable")]
        labels = self.labels[live]
        inherited = (
            history.inherits[np.ix_(numbers, live)].T.view(np.uint8)
            if len(history) <= _SHORT
            else history.inherited(numbers.tolist(), live)
        )
        first = np.flatnonzero(np.diff(labels, prepend=-1))
        counts = np.add.reduceat(inherited, first, axis=0, dtype=np.int32)
        shares = np.ones((len(numbers), len(self.rows)))  # an older change is everybody's
        shares[:, labels[first]] = (counts / np.diff(first, append=len(labels))[:, None]).T
        return shares

    def gains(self, shares: NDArray[np.float64], runs: int) -> tuple[Vector, Vector]:
        """Return what the outcomes and RUNS of an untested commit tell, for rows of SHARES, and the chance of bad.

        RUNS of it are looked at as one that is bad if any of them is, which is all but the rate's news.
        """
        chances = [1 - (1 - chance) ** runs for chance in self._with]
        mass = self.outcomes.sum(axis=2)
        inherited, without = self.outcomes @ chances[0], self.outcomes @ chances[1]
        logs = [plogp(part) + plogp(np.maximum(mass - part, 0.0)) for part in (inherited, without)]
        total = mass.sum(axis=1)
        bad = np.clip(shares @ (inherited - without).T + without.sum(axis=1), 0.0, total)
        rest = shares @ (logs[0] - logs[1]).T + logs[1].sum(axis=1)
        bits = (rest - plogp(bad) - plogp(total - bad)).sum(axis=1) - plogp(mass.sum(axis=0)).sum()
        return bits, bad.sum(axis=1)

    def gains_of_tested(self, runs: int) -> tuple[Vector, Vector]:
        """Return the same of the tested commits."""
        chances = [1 - (1 - chance) ** runs for chance in self._tested]
        mass = self.outcomes.sum(axis=2)[:, :, None]
        parts = [self.outcomes @ chance.T for chance in chances]
        part = np.where(self.inherits.T[None, :, :], *parts)
        logs = plogp(part) + plogp(np.maximum(mass - part, 0.0))
        total = mass.sum(axis=1)
        bad = np.clip(part.sum(axis=1), 0.0, total)
        bits = logs.sum(axis=1) - plogp(bad) - plogp(total - bad)
        return bits.sum(axis=0) - plogp(mass[:, :, 0].sum(axis=0)).sum(), bad.sum(axis=0)


class Planner:
    """Chooses experiments in HISTORY."""

    def __init__(self, history: History) -> None:
        self._history = history

    def choose(
        self, view: View, seconds: Sequence[float], count: int, pending: Sequence[str], setup: Sequence[float] | None
    ) -> list[Proposal]:
        """Return what Knowledge.choose() promises."""
        each = np.asarray(seconds, dtype=np.float64)
        once = np.zeros_like(each) if setup is None else np.asarray(setup, dtype=np.float64)
        testable = np.where(view.untestable, 0.0, self._testability(view))
        for certain in (True, False):
            if view.belief[:, 0].sum() > 0 or not certain:
                found = self._together(_Table(view, certain=certain), view, (each, once, testable), count, pending)
                if found:
                    return found
        return []

    def _together(
        self, table: _Table, view: View, prices: tuple[Vector, Vector, Vector], count: int, pending: Sequence[str]
    ) -> list[Proposal]:
        under_way = [*pending[:MOST_AT_ONCE]]
        for commit in under_way:
            table.split(self._history, self._history.number[commit])
        proposals: list[Proposal] = []
        while len(proposals) < min(count, MOST_AT_ONCE - len(under_way)):
            if proposals:
                table.split(self._history, self._history.number[proposals[-1].commit])
            proposal = self._best(table, view, prices)
            if proposal is None:
                break
            proposals.append(proposal)
        return proposals

    def _best(self, table: _Table, view: View, prices: tuple[Vector, Vector, Vector]) -> Proposal | None:
        if len(self._history) <= _SHORT:
            return self._best_of(table, view, prices, np.arange(len(self._history)))
        live = np.flatnonzero((table.labels >= 0) & ~view.untestable)
        mass = table.outcomes.sum(axis=(0, 2))
        counts = np.bincount(table.labels[live], minlength=len(mass))
        found: Proposal | None = None
        while True:
            chosen = _evenly(live, (mass / np.maximum(counts, 1))[table.labels[live]])
            numbers = np.union1d(chosen, view.tested)
            best = self._best_of(table, view, prices, numbers)
            if best is not None and (found is None or best.rate > found.rate * _BETTER):
                found = best
            if best is None or len(chosen) == len(live):
                return found
            # Nearer: what lies between the best one's neighbours among those looked at.
            place = int(np.searchsorted(chosen, self._history.number[best.commit]))
            low = chosen[max(0, place - 1)]
            high = chosen[min(len(chosen) - 1, place + 1)]
            nearer = live[(live >= low) & (live <= high)]
            if 2 * len(nearer) > len(live):
                return found  # what is believed lies in few places, and these were looked at
            live = nearer

    def _best_of(
        self, table: _Table, view: View, prices: tuple[Vector, Vector, Vector], numbers: Numbers
    ) -> Proposal | None:
        """Return the run, of one of NUMBERS, that tells most for its price beyond what is known anyway."""
        each, once, testable = (price[numbers] for price in prices)
        known = table.known() if len(table.outcomes) > 1 else 0.0
        shares = table.shares(self._history, numbers)
        places = np.searchsorted(numbers, view.tested)
        found: Proposal | None = None
        single: Vector | None = None
        for runs in _REPEATS if once.any() else _REPEATS[:1]:
            bits, bad = table.gains(shares, runs)
            if len(places):
                bits[places], bad[places] = table.gains_of_tested(runs)
            single = bad if single is None else single
            bits -= known
            price = once + runs * each
            score = bits * testable / price
            best = int(np.argmax(score))
            if (
                bits[best] <= _NOTHING
                or score[best] <= 0
                or (found is not None and score[best] <= found.rate * _BETTER)
            ):
                continue
            commit = self._history.commits[numbers[best]]
            found = Proposal(
                commit, float(bits[best]), float(price[best]), float(single[best]), float(testable[best]), runs
            )
        return found

    def _testability(self, view: View) -> Vector:
        """Return the chance that each commit can be tested: what lies next to an untestable stretch is likely in it."""
        size = len(self._history)
        chance = np.ones(size)
        if not view.troubled:
            return chance
        seen = view.seen
        known, places = np.flatnonzero(seen), np.arange(size)
        for first, last in _gaps(view.untestable, seen):
            width = max(_SHORTEST_STRETCH, float(last - first + 1))
            # Not beyond the next commit that could be tested: there the stretch has ended.
            low, high = np.max(known[known < first], initial=-1), np.min(known[known > last], initial=size)
            reach = (places > low) & (places < high) & ~seen
            distance = np.where(places < first, first - places, np.maximum(places - last, 0)).astype(np.float64)
            chance = np.where(reach, np.minimum(chance, distance / (distance + width)), chance)
        return np.maximum(chance, _LEAST_TESTABLE)


def _evenly(live: Numbers, weights: Vector) -> Numbers:
    """Return up to _AT_A_TIME of LIVE that divide what they weigh evenly, first and last included."""
    if len(live) <= _AT_A_TIME:
        return live
    sums = np.cumsum(weights)
    wanted = np.linspace(0, sums[-1], _AT_A_TIME)
    chosen: Numbers = live[np.unique(np.minimum(np.searchsorted(sums, wanted), len(live) - 1))]
    return chosen


def _gaps(untestable: Flags, seen: Flags) -> list[tuple[int, int]]:
    """Return first and last of the untestable commits between which none could be tested."""
    gaps: list[tuple[int, int]] = []
    for number in np.flatnonzero(untestable).tolist():
        if gaps and not seen[gaps[-1][1] : number].any():
            gaps[-1] = (gaps[-1][0], number)
        else:
            gaps.append((number, number))
    return gaps

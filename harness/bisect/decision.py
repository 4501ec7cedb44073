# SPDX-License-Identifier: BSD-2-Clause
"""The decision core: what the observations say about each commit, and which experiment tells most for its price.

Each commit may be the culprit, and the culprit fails at a rate nobody knows.  Both are weighed together: a table of
belief over (culprit, rates) is multiplied by the chance of each observation.  A bad run speaks against every commit
that the tested one does not inherit; a good one speaks against the inherited ones as strongly as the failure is
frequent.  An untestable commit says nothing about the culprit; it is only not tried again, and its neighbours later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from harness.bisect.history import History
from harness.bisect.rates import Rates, Vector
from harness.errors import UsageError

#: Experiments are planned together up to this number: their joint outcomes are all weighed, and there are 2 ** N.
MOST_AT_ONCE = 8
# What is claimed leaves more room for error than the table of rates does: the real rate need not be in it.
_MODEL_DOUBT = 1.6
# How many runs of a kernel its being built and booted is spread over, at most, where the failure is flaky.
_REPEATS = (1, 2, 4, 8, 16, 32)
# A longer plan has to be that much better than a shorter one.
_BETTER = 1 + 1e-6
_NOTHING = 1e-9  # bits; what floats leave of no information
_SHORTEST_STRETCH = 2.0
_LEAST_TESTABLE = 1e-3


class Outcome(StrEnum):
    """What a run of one commit's kernel came to."""

    GOOD = "good"
    BAD = "bad"
    UNTESTABLE = "untestable"


class Trouble(StrEnum):
    """Why a commit is untestable."""

    BUILD = "does not build"
    BOOT = "does not boot"
    NOT_APPLICABLE = "test cannot run there"
    OTHER_FAILURE = "fails otherwise"
    INFRASTRUCTURE = "harness or host failed"
    TOLD = "skipped by the user"

    @property
    def attempts(self) -> int:
        """How often it may happen before the commit is given up: what has to do with luck gets a second chance."""
        return 2 if self in {Trouble.BOOT, Trouble.OTHER_FAILURE, Trouble.INFRASTRUCTURE} else 1


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
class Conclusion:
    """The most probable commits that nothing testable tells apart, oldest first, with what may be claimed of them."""

    commits: tuple[str, ...]
    probability: float


class ContradictionError(UsageError):
    """What was observed cannot be, whichever commit is the culprit: good, bad or a commit was named wrongly."""


class Knowledge:
    """What is known about HISTORY's culprit after some observations; before them, each commit is as likely."""

    def __init__(self, history: History, rates: Rates) -> None:
        if not len(history):
            raise UsageError("there is no commit between good and bad")
        self.history = history
        self._rates = rates
        self._belief = np.tile(rates.belief / (rates.belief.sum() * len(history)), (len(history), 1))
        # The chance of each outcome without the culprit, and with it.
        self._chance = {
            Outcome.BAD: (rates.without, rates.with_culprit),
            Outcome.GOOD: (1 - rates.without, 1 - rates.with_culprit),
        }
        self.runs: dict[str, dict[Outcome, int]] = {}
        self._troubles: dict[str, dict[Trouble, int]] = {}
        self._untestable = np.zeros(len(history), dtype=np.bool_)
        self._tested = np.zeros(len(history), dtype=np.bool_)
        self._troubled = False
        self._labels: NDArray[np.int64] | None = None

    # Learning

    def observe(self, commit: str, outcome: Outcome, trouble: Trouble | None = None) -> None:
        """Take in one run of COMMIT's kernel; an untestable one says what the TROUBLE was."""
        number = self.history.number[commit]
        counts = self.runs.setdefault(commit, dict.fromkeys(Outcome, 0))
        counts[outcome] += 1
        if outcome is Outcome.UNTESTABLE:
            trouble = trouble or Trouble.INFRASTRUCTURE
            troubles = self._troubles.setdefault(commit, {})
            troubles[trouble] = troubles.get(trouble, 0) + 1
            if troubles[trouble] >= trouble.attempts and not self._untestable[number]:
                self._untestable[number] = True
                self._troubled = True
                self._labels = None
            return
        without, inherited = self._chance[outcome]
        if not self._tested[number]:
            self._tested[number] = True
            self._labels = None if self._untestable[number] else self._labels
        self._weigh(np.where(self.history.inherits[number][:, None], inherited[None, :], without[None, :]))

    def observe_bad_end(self) -> None:
        """Take in that a kernel with all commits was seen bad once: that says something about the rate only."""
        self._weigh(self._chance[Outcome.BAD][1][None, :])

    def learn_alike(self, one: str, other: str | None) -> None:
        """Take in that two commits make the same kernel, OTHER None being the good end.

        Whatever lies between them is not the culprit, and a run of one is a run of the other.
        """
        inherits = self.history.inherits
        base = inherits[self.history.number[other]] if other is not None else np.zeros(len(self.history), np.bool_)
        between = inherits[self.history.number[one]] != base
        self._weigh(np.where(between, 0.0, 1.0)[:, None])

    def _weigh(self, chance: NDArray[np.float64]) -> None:
        belief = self._belief * chance
        total = belief.sum()
        if total <= 0:
            raise ContradictionError("no commit explains what was observed: is the good end good, and the bad end bad?")
        self._belief = belief / total

    # What is known

    @property
    def posterior(self) -> dict[str, float]:
        """The probability of each commit, parents before children."""
        return dict(zip(self.history.commits, self._belief.sum(axis=1).tolist(), strict=True))

    @property
    def untestable(self) -> tuple[str, ...]:
        """The commits that are not tried again, parents before children."""
        return tuple(self.history.commits[number] for number in np.flatnonzero(self._untestable))

    @property
    def stretches(self) -> list[tuple[str, ...]]:
        """The untestable commits in runs of neighbours."""
        found: list[list[str]] = []
        for commit in self.untestable:
            parents = self.history.parents[commit]
            if found and found[-1][-1] in parents:
                found[-1].append(commit)
            else:
                found.append([commit])
        return [tuple(stretch) for stretch in found]

    @property
    def is_certain(self) -> bool:
        """Whether all that was seen agrees with a failure that always happens."""
        return bool(self._belief[:, 0].sum() > 0)

    @property
    def failure_rate(self) -> float:
        """The expected share of bad runs where the culprit is in."""
        return float(self._belief.sum(axis=0) @ self._rates.with_culprit)

    def bits(self) -> float:
        """Return what is still unknown about the culprit, in bits."""
        return float(-_plogp(self._belief.sum(axis=1)).sum())

    def chance_of_goods(self, runs: int) -> float:
        """Return the chance that RUNS runs with the culprit are all good, with what is known of the rate."""
        return float(self._belief.sum(axis=0) @ (1 - self._rates.with_culprit) ** runs)

    def chance_of_bads(self, runs: int) -> float:
        """Return the chance that RUNS runs without the culprit are all bad."""
        return float(self._belief.sum(axis=0) @ self._rates.without**runs)

    def conclude(self) -> Conclusion:
        """Return what is most probable now; commits that are impossible by themselves are left out."""
        marginal, labels = self._belief.sum(axis=1), self._alike()
        sums = np.bincount(labels, marginal)
        best = int(np.argmax(sums))
        commits = tuple(self.history.commits[number] for number in np.flatnonzero((labels == best) & (marginal > 0)))
        return Conclusion(commits, _claim(float(sums[best])))

    def is_decided(self, confidence: float) -> bool:
        """Tell whether commits that nothing testable tells apart are the culprit with CONFIDENCE."""
        return self.conclude().probability >= confidence

    @property
    def is_narrowed(self) -> bool:
        """Whether a failure that always happens has one such group left, as far as is known."""
        return int(np.count_nonzero(np.bincount(self._alike(), self._belief[:, 0]))) == 1

    def group_sizes(self) -> list[int]:
        """Return the sizes of the groups of commits that nothing testable tells apart."""
        return [int(size) for size in np.bincount(self._alike())]

    def _alike(self) -> NDArray[np.int64]:
        """Return for each commit the number of its group."""
        if self._labels is None:
            tested = ~self._untestable | self._tested
            columns = np.packbits(self.history.inherits[tested], axis=0).T
            groups: dict[bytes, int] = {}
            self._labels = np.array([groups.setdefault(column.tobytes(), len(groups)) for column in columns])
        return self._labels

    # What comes next

    def choose(
        self,
        seconds: Sequence[float],
        count: int = 1,
        pending: Iterable[str] = (),
        setup: Sequence[float] | None = None,
    ) -> list[Proposal]:
        """Return up to COUNT experiments that together, and with those PENDING, tell most for their price.

        SECONDS is what a run of each commit costs, SETUP what has to be paid once before its first one.  As long as
        every observation agrees with a failure that always happens, and that leaves more than one commit, only this
        case is looked at: it then takes no more experiments than git bisect.  An empty list means that no experiment
        tells anything.
        """
        table = self._belief
        certain = np.zeros_like(table)
        certain[:, 0] = table[:, 0]
        under_way = list(pending)
        each = np.asarray(seconds, dtype=np.float64)
        once = np.zeros_like(each) if setup is None else np.asarray(setup, dtype=np.float64)
        for looked_at in (certain, table):
            if (total := looked_at.sum()) > 0:
                found = self._choose(looked_at / total, (each, once), count, under_way)
                if found:
                    return found
        return []

    def _choose(
        self, table: NDArray[np.float64], seconds: tuple[Vector, Vector], count: int, pending: list[str]
    ) -> list[Proposal]:
        inherits, number = self.history.inherits, self.history.number
        outcomes = [table]
        for commit in pending[:MOST_AT_ONCE]:
            outcomes = self._split(outcomes, inherits[number[commit]])
        testable = self._testability()
        known = self._told(outcomes) if pending else 0.0
        proposals: list[Proposal] = []
        while len(proposals) < min(count, MOST_AT_ONCE - len(pending)):
            if proposals:
                outcomes = self._split(outcomes, inherits[number[proposals[-1].commit]])
                known = self._told(outcomes)
            proposal = self._best(outcomes, known, seconds, testable)
            if proposal is None:
                break
            proposals.append(proposal)
        return proposals

    def _best(
        self, outcomes: list[NDArray[np.float64]], known: float, seconds: tuple[Vector, Vector], testable: Vector
    ) -> Proposal | None:
        """Return the run that tells most for its price beyond what is KNOWN anyway, None where none does."""
        each, once = seconds
        found: Proposal | None = None
        for runs in _REPEATS if once.any() else _REPEATS[:1]:
            bits, bad = self._gains(outcomes, runs)
            bits = bits - known
            price = once + runs * each
            score = np.where(self._untestable, 0.0, bits * testable / price)
            best = int(np.argmax(score))
            if (
                bits[best] <= _NOTHING
                or score[best] <= 0
                or (found is not None and score[best] <= found.rate * _BETTER)
            ):
                continue
            chance = float(bad[best]) if runs == 1 else self._chance_bad(best)
            commit = self.history.commits[best]
            found = Proposal(commit, float(bits[best]), float(price[best]), chance, float(testable[best]), runs)
        return found

    def _chance_bad(self, number: int) -> float:
        inherits = self.history.inherits[number][:, None]
        return float((self._belief * np.where(inherits, self._rates.with_culprit, self._rates.without)).sum())

    def _split(self, outcomes: list[NDArray[np.float64]], inherits: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
        chance = np.where(inherits[:, None], self._rates.with_culprit[None, :], self._rates.without[None, :])
        return [part for table in outcomes for part in (table * chance, table * (1 - chance))]

    @staticmethod
    def _told(outcomes: list[NDArray[np.float64]]) -> float:
        """Return the bits that the joint OUTCOMES tell about the culprit."""
        by_culprit = np.array([table.sum(axis=1) for table in outcomes])
        prior = by_culprit.sum(axis=0)
        return float(-_plogp(by_culprit.sum(axis=1)).sum() + _plogp(by_culprit).sum() - _plogp(prior).sum())

    def _gains(self, outcomes: list[NDArray[np.float64]], runs: int = 1) -> tuple[Vector, Vector]:
        """Return for each commit what OUTCOMES and a run of it tell about the culprit, and the chance of its being bad.

        RUNS of it are looked at as one that is bad if any of them is, which is all but the rate's news.  The outcome
        depends on the culprit only by whether it is inherited: each sum over culprits is a product with the history's
        matrix.
        """
        weights = self.history.weights
        size = len(self.history)
        entropy, rest, bad = np.zeros(size), np.zeros(size), np.zeros(size)
        prior = np.zeros(size)
        with_culprit = 1 - (1 - self._rates.with_culprit) ** runs
        without_culprit = 1 - (1 - self._rates.without) ** runs
        for table in outcomes:
            mass = table.sum(axis=1)
            prior += mass
            inherited, without = table @ with_culprit, table @ without_culprit
            # What is p log p of: bad and good, where the culprit is inherited, and where it is not.
            parts = np.stack([inherited, mass - inherited, without, mass - without])
            logs = _plogp(np.maximum(parts, 0.0, out=parts))
            by_inherited, by_without = logs[0] + logs[1], logs[2] + logs[3]
            sums = np.stack([inherited - without, by_inherited - by_without]) @ weights.T
            total = float(mass.sum())
            chance = np.clip(without.sum() + sums[0], 0.0, total)
            bad += chance
            entropy -= _plogp(np.stack([chance, total - chance])).sum(axis=0)
            rest += by_without.sum() + sums[1]
        return entropy + rest - _plogp(prior).sum(), bad

    def _testability(self) -> Vector:
        """Return the chance that each commit can be tested: what lies next to an untestable stretch is likely in it."""
        size = len(self.history)
        chance = np.ones(size)
        if not self._troubled:
            return chance
        seen = self._tested
        known, places = np.flatnonzero(seen), np.arange(size)
        for first, last in self._gaps(seen):
            width = max(_SHORTEST_STRETCH, float(last - first + 1))
            # Not beyond the next commit that could be tested: there the stretch has ended.
            low, high = np.max(known[known < first], initial=-1), np.min(known[known > last], initial=size)
            reach = (places > low) & (places < high) & ~seen
            distance = np.where(places < first, first - places, np.maximum(places - last, 0)).astype(np.float64)
            chance = np.where(reach, np.minimum(chance, distance / (distance + width)), chance)
        return np.maximum(chance, _LEAST_TESTABLE)

    def _gaps(self, seen: NDArray[np.bool_]) -> list[tuple[int, int]]:
        """Return first and last of the untestable commits between which none could be tested."""
        gaps: list[tuple[int, int]] = []
        for number in np.flatnonzero(self._untestable).tolist():
            if gaps and not seen[gaps[-1][1] : number].any():
                gaps[-1] = (gaps[-1][0], number)
            else:
                gaps.append((number, number))
        return gaps


def _claim(probability: float) -> float:
    return max(0.0, 1 - _MODEL_DOUBT * (1 - min(1.0, probability)))


def _plogp(values: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return p log2 p, which is 0 for 0."""
    array = np.asarray(values, dtype=np.float64)
    return array * np.log2(np.where(array > 0, array, 1.0))


def channel_capacity(rate: float) -> float:
    """Return the bits per run, at most, where a run shows a failure that is there with probability RATE.

    That is the capacity of the Z channel: failures are seen or missed, never made up.
    """
    if rate >= 1:
        return 1.0
    missed = 1 - rate
    return math.log2(1 + rate * missed ** (missed / rate))

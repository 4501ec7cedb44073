# SPDX-License-Identifier: BSD-2-Clause
"""What the observations say about each commit.

Each commit may be the culprit, and nobody knows how often the failure happens with it, how often without it, and how
much that differs by commit.  All are weighed together: a table of belief over (culprit, rates) is multiplied by the
chance of each observation.  Commits that the tested ones do not tell apart share a row of it, so that it stays small
however long the history is.  One more row stands for a change that is older than all of them.  An untestable commit
says nothing about the culprit; it is only not tried again, and its neighbours later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from harness.bisect.history import Flags, History
from harness.bisect.planning import Planner, Proposal, View, plogp
from harness.bisect.rates import Rates, Vector
from harness.errors import UsageError

# What is believed of a change that is older than the good end, before anything was tested.
_OLDER = 0.02
# So large a group is no conclusion yet: whether something testable tells its commits apart is not looked at.
_LARGE = 2048
_AT_ONCE = 1024
_HALF = 0.5
# The runs leave an account of the rates open that is at least so likely as the likeliest one.
_OPEN = 0.01


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
        self.rates = rates
        size = len(history)
        self._possible = np.ones(size, dtype=np.bool_)
        # The row of each commit; row 0 is that of an older change.
        self._labels = np.ones(size, dtype=np.int64)
        self._table = np.zeros((2, len(rates.belief)))
        # Which rows each tested commit inherits, and where its own row of that is; None stands for a good end.
        self._inherits = np.zeros((0, 2), dtype=np.bool_)
        self._place: dict[int | None, int] = {}
        self._counts: dict[str, list[int]] = {}
        self._same: dict[str, str] = {}
        self.runs: dict[str, dict[Outcome, int]] = {}
        self._troubles: dict[str, dict[Trouble, int]] = {}
        self.untestable_flags = np.zeros(size, dtype=np.bool_)
        self._troubled = False
        self._planner = Planner(history)
        self._known: _Known | None = None
        self._accounts = rates.accounts()

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
            if troubles[trouble] >= trouble.attempts and not self.untestable_flags[number]:
                self.untestable_flags[number] = True
                self._troubled = True
                self._known = None
            return
        if number not in self._place:
            self._split(self.history.ancestors(number))
            self._place[number] = len(self._inherits) - 1
        self._weigh(number, commit, outcome)

    def observe_good_end(self, commit: str, outcome: Outcome) -> None:
        """Take in one run of the good end COMMIT: it has none of the changes in question, but may have an older one."""
        if outcome is Outcome.UNTESTABLE:
            return
        counts = self.runs.setdefault(commit, dict.fromkeys(Outcome, 0))
        counts[outcome] += 1
        if None not in self._place:
            row = np.zeros((1, self._inherits.shape[1]), dtype=np.bool_)
            row[0, 0] = True
            self._inherits = np.concatenate([self._inherits, row])
            self._place[None] = len(self._inherits) - 1
        self._weigh(None, commit, outcome)

    def observe_bad_end(self) -> None:
        """Take in that a kernel with all commits was seen bad once: that says something about the rate only."""
        with np.errstate(divide="ignore"):
            self._table += np.log(self.rates.with_culprit)[None, :]
        self._known = None

    def observe_like(self, commit: str, numbers: Flags, outcome: Outcome) -> None:
        """Take in one run of COMMIT, which is not of the history, and has just the changes that NUMBERS mark."""
        counts = self.runs.setdefault(commit, dict.fromkeys(Outcome, 0))
        counts[outcome] += 1
        if outcome is Outcome.UNTESTABLE:
            return
        self._split(numbers)
        self._learn(commit, self._inherits[-1], outcome)
        self._inherits = self._inherits[:-1]

    def learn_alike(self, pairs: Iterable[tuple[str, str | None]]) -> None:
        """Take in that the commits of each pair make the same kernel, None being the good end.

        Whatever lies between them is not the culprit, and a run of one is a run of the other.
        """
        number = self.history.number
        for one, other in pairs:
            if other is not None and self.history.parents[one] == (other,):
                self._possible[number[one]] = False
            else:
                inherited = self.history.ancestors(number[one])
                base = self.history.ancestors(number[other]) if other is not None else np.zeros_like(inherited)
                self._possible &= inherited == base
            self._unite(one, other if other is not None else "")
        if not self._possible.any():
            raise ContradictionError("no commit explains what was observed: is the good end good, and the bad end bad?")
        self._known = None

    def _unite(self, one: str, other: str) -> None:
        first, second = self._kernel(one), self._kernel(other)
        if first != second:
            self._same[first] = second
            for place, more in enumerate(self._counts.pop(first, [0, 0])):
                self._counts.setdefault(second, [0, 0])[place] += more

    def _kernel(self, commit: str) -> str:
        while (other := self._same.get(commit)) is not None:
            commit = other
        return commit

    def _split(self, inherited: Flags) -> None:
        """Divide the rows by what is INHERITED, and add what it inherits as the last of `_inherits`."""
        found, self._labels = np.unique(2 * self._labels + inherited, return_inverse=True)
        came_from = np.concatenate([[0], found // 2])
        self._labels += 1
        self._table = self._table[came_from]
        own = np.concatenate([[True], found % 2 == 1])
        self._inherits = np.concatenate([self._inherits[:, came_from], own[None, :]])
        self._known = None

    def _weigh(self, number: int | None, commit: str, outcome: Outcome) -> None:
        self._learn(commit, self._inherits[self._place[number]], outcome)

    def _learn(self, commit: str, rows: Flags, outcome: Outcome) -> None:
        counts = self._counts.setdefault(self._kernel(commit), [0, 0])
        chances = self.rates.chances(*counts)
        with np.errstate(divide="ignore"):
            logs = [np.log(chance if outcome is Outcome.BAD else 1 - chance) for chance in chances]
        self._table += np.where(rows[:, None], logs[0][None, :], logs[1][None, :])
        counts[outcome is Outcome.GOOD] += 1
        self._known = None

    # What is known

    @property
    def _now(self) -> _Known:
        if self._known is None:
            sizes = np.bincount(self._labels[self._possible], minlength=len(self._table)).astype(np.float64)
            shares = sizes * ((1 - _OLDER) / sizes.sum())
            shares[0] = _OLDER
            with np.errstate(divide="ignore"):
                logs = self._table + np.log(shares)[:, None] + np.log(self.rates.belief)[None, :]
            most = logs.max()
            if not np.isfinite(most):
                raise ContradictionError(
                    "no commit explains what was observed: is the good end good, and the bad end bad?"
                )
            belief = np.exp(logs - most)
            belief /= belief.sum()
            self._known = _Known(belief, belief.sum(axis=1), sizes)
        return self._known

    @property
    def older(self) -> float:
        """The probability that no commit of the history is the culprit, but an older one."""
        return float(self._now.rows[0])

    @property
    def posterior(self) -> dict[str, float]:
        """The probability of each commit, parents before children."""
        return dict(zip(self.history.commits, self._each().tolist(), strict=True))

    def _each(self) -> Vector:
        now = self._now
        share = now.rows / np.maximum(now.sizes, 1)
        return np.where(self._possible, share[self._labels], 0.0)

    def chance_of(self, commits: Iterable[str]) -> float:
        """Return the probability that one of COMMITS is the culprit."""
        now, number = self._now, self.history.number
        places = [number[commit] for commit in commits if self._possible[number[commit]]]
        labels = self._labels[places]
        return float((now.rows[labels] / np.maximum(now.sizes[labels], 1)).sum())

    def cautious(self, commits: Iterable[str]) -> float:
        """Return what may be claimed of COMMITS.

        A few dozen runs tell little about how much rates differ by commit, and where they do differ much, parents look
        good by chance.  So what is believed of the failure's mean rate and spread weighs nothing: all accounts of them
        that the runs leave open count alike, others the less, the less likely they are.
        """
        now, number = self._now, self.history.number
        labels = self._labels[[number[commit] for commit in commits]]
        theirs = (now.belief[labels] / np.maximum(now.sizes[labels], 1)[:, None]).sum(axis=0)
        by_account = np.bincount(self._accounts, self.over_rates)
        weights = np.minimum(1.0, by_account / (_OPEN * np.max(by_account)))
        shares = np.bincount(self._accounts, theirs) / np.where(by_account > 0, by_account, 1.0)
        return float(shares @ weights / weights.sum())

    @property
    def untestable(self) -> tuple[str, ...]:
        """The commits that are not tried again, parents before children."""
        return tuple(self.history.commits[number] for number in np.flatnonzero(self.untestable_flags))

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
        return bool(self._now.belief[:, 0].sum() > 0)

    @property
    def over_rates(self) -> Vector:
        """The probability of each hypothesis about the rates."""
        return np.asarray(self._now.belief.sum(axis=0))

    @property
    def failure_rate(self) -> float:
        """The expected share of bad runs where the culprit is in."""
        return float(self.over_rates @ self.rates.with_culprit)

    @property
    def alarm_rate(self) -> float:
        """The expected share of bad runs where the culprit is not in."""
        return float(self.over_rates @ self.rates.without)

    def bits(self) -> float:
        """Return what is still unknown about the culprit, in bits."""
        now = self._now
        inside = np.where(now.sizes > 0, now.rows * np.log2(np.maximum(now.sizes, 1)), 0.0)
        return float(-plogp(now.rows).sum() + inside.sum())

    def conclude(self) -> Conclusion:
        """Return what is most probable now: a commit, or those that nothing testable tells apart."""
        now = self._now
        if now.conclusion is None:
            now.conclusion = self._conclude(now)
        return now.conclusion

    def _conclude(self, now: _Known) -> Conclusion:
        best = 1 + int(np.argmax(now.rows[1:]))
        members = np.flatnonzero((self._labels == best) & self._possible)
        if len(members) == 1:
            return self._conclusion(members, float(now.rows[best]))
        share = now.rows / np.maximum(now.sizes, 1)
        if now.rows[best] < _HALF or len(members) > _LARGE:
            best = 1 + int(np.argmax(share[1:]))
            members = np.flatnonzero((self._labels == best) & self._possible)
            if len(members) > _LARGE:
                return self._conclusion(members[-1:], float(share[best]))
        alike = self._alike(members)
        return self._conclusion(alike, float(share[best]) * len(alike))

    def _conclusion(self, numbers: NDArray[np.int64], probability: float) -> Conclusion:
        return Conclusion(tuple(self.history.commits[number] for number in numbers), min(1.0, probability))

    def _alike(self, members: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the largest of the groups into which testable commits can still divide MEMBERS."""
        if not self.untestable_flags[members].any():
            return members[-1:]  # a commit that can be tested is told apart from all others
        patterns = self.history.carried(members.tolist())
        whole = (1 << len(members)) - 1
        telling = [*({bits for number, bits in enumerate(patterns) if not self.untestable_flags[number]} - {0, whole})]
        # A random number per pattern, and per commit the sum of those it is in: the same only where all patterns are.
        numbers = np.random.default_rng(0).integers(1 << 62, size=len(telling), dtype=np.uint64)
        sums = np.zeros(len(members), dtype=np.uint64)
        width = (len(members) + 7) // 8
        for first in range(0, len(telling), _AT_ONCE):
            part = telling[first : first + _AT_ONCE]
            packed = np.frombuffer(b"".join(bits.to_bytes(width, "little") for bits in part), dtype=np.uint8)
            marks = np.unpackbits(packed.reshape(len(part), width), axis=1, count=len(members), bitorder="little")
            sums += numbers[first : first + _AT_ONCE] @ marks.astype(np.uint64)
        _, groups = np.unique(sums, return_inverse=True)
        largest: NDArray[np.int64] = members[groups == np.argmax(np.bincount(groups))]
        return largest

    @property
    def is_narrowed(self) -> bool:
        """Whether a failure that always happens has one such group left, as far as is known."""
        certain = self._now.belief[:, 0]
        live = 1 + np.flatnonzero(certain[1:])
        if len(live) != 1:
            return False
        members = np.flatnonzero((self._labels == live[0]) & self._possible)
        return len(members) == 1 or (len(members) <= _LARGE and len(self._alike(members)) == len(members))

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
        return self._planner.choose(self._view(), seconds, count, [*pending], setup)

    def _view(self) -> View:
        now = self._now
        tested = sorted((number, place) for number, place in self._place.items() if number is not None)
        numbers, places = [number for number, _ in tested], [place for _, place in tested]
        counts = np.array(
            [self._counts.get(self._kernel(self.history.commits[number]), [0, 0]) for number in numbers],
            dtype=np.float64,
        ).reshape(len(numbers), 2, 1)
        rates, runs = self.rates, counts.sum(axis=1)
        seen = np.zeros(len(self.history), dtype=np.bool_)
        seen[numbers] = True
        return View(
            rates,
            now.belief,
            self._labels,
            self._possible,
            np.array(numbers, dtype=np.int64),
            self._inherits[places],
            (
                (rates.with_culprit + rates.with_spread * counts[:, 0]) / (1 + rates.with_spread * runs),
                (rates.without + rates.without_spread * counts[:, 0]) / (1 + rates.without_spread * runs),
            ),
            self.untestable_flags,
            seen,
            self._troubled,
        )


@dataclass
class _Known:
    """What follows from the table: the `belief` per row and hypothesis, per row, and the rows' numbers of commits."""

    belief: NDArray[np.float64]
    rows: Vector
    sizes: Vector
    conclusion: Conclusion | None = None

# SPDX-License-Identifier: BSD-2-Clause
"""Is what was seen once the kernel's doing?  Suspicions are tried by runs made after them, on boots of their own.

The runs that raise a suspicion say nothing about it: of a thousand tests that fail now and then some will seem to
differ.  So what seems to differ is run again, on both kernels side by side, and only what comes later is evidence.  Its
unit is a boot of either kernel: what a boot brings, a layout of memory or a timer's phase, all runs on it share.  A
suite that is repeated often runs on several boots, too: those after the one that raised a suspicion count already.

Evidence is an e-value: what a gambler's purse of 1 has become who bets against "both kernels are alike" at odds fair
to it, after however many bets he likes (Turner, Ly, Gruenwald: Generic E-variables for exact sequential k-sample
tests).  The odds ask nothing of failure rates, which may differ by test, by boot and over time, as long as both
kernels have the same.  Over all suspicions of one look the error is held by closed testing with means of e-values
(Vovk, Wang: E-values: calibration, combination and applications), whatever the tests have to do with each other; where
later boots of the suite add suspicions to those of its first, as long as tests fail independently, or together.

Three gamblers play, each with a part of one purse.  The first bets on a test that fails always on one side
and never on the other, in one run of each boot: three boots in a row decide a single suspicion, and none can do with
two, as a test that fails every other time does that in 1 of 16.  The second bets on whether any of some runs of a boot
fails, which finds races; the third on which side fails more often on a boot.  How many runs a boot has is decided
before it begins: many where failures are rare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

#: Runs of the whole suite on each boot of its own, and the number of the second of these boots; the first is boot 0.
RUNS_OF_A_BOOT = 4
_SUITE_BOOTS = 101
#: Boots in the first round, and at most.
FIRST_BOOTS = 3
MOST_BOOTS = 16
# Runs of each kernel on a boot: on the first ones and where more than a share of them fails, and else.
_FEW_RUNS, _MANY_RUNS, _OFTEN = 4, 10, 0.2
_FIRST_LOOK = 0.97  # of the permitted error; later looks share what is left
# Which part of the purse each gambler has.
_ALWAYS, _ANY, _MORE = 0.323, 0.62, 0.057
# What the second one bets on: how often runs fail on the better and on the worse side, and parts of his purse.
_RACES = ((0.0, 0.1, 0.8), (0.0, 0.4, 0.1), (0.01, 0.15, 0.05), (0.05, 0.4, 0.05))
_STAKES = (1.0, 0.5)  # the third one's, of his purse
# A race of this rate is to be found; it is given up where one of that other rate is ten times as likely.
_WORTH_FINDING, _TOO_RARE, _GIVE_UP = 0.1, 0.03, 0.1
#: A failure is gone when it is rarer than before by this factor, at least.
GONE = 10
_SLACK = 1e-9  # of products of floats


def boot_of_suite(repeat: int) -> int:
    """Return the number of the boot on which the whole suite runs for the time REPEAT, counted from 0."""
    place = repeat // RUNS_OF_A_BOOT
    return _SUITE_BOOTS + place - 1 if place else 0


@dataclass(frozen=True, order=True)
class Suspicion:
    """That TEST fails more often on the other kernel (`is_worse`), or less often, than on the baseline.

    With a `cause` it is about failures for that reason alone.
    """

    test: str
    is_worse: bool
    cause: str = ""


class State(StrEnum):
    """How far a suspicion is."""

    OPEN = "open"
    NAMED = "named"
    UNSETTLED = "unsettled"


@dataclass(frozen=True)
class Runs:
    """Runs to be made of `tests`: those numbered `runs` on each of `boots`, of both kernels or the other one only."""

    tests: tuple[str, ...]
    boots: range
    runs: range
    only_other: bool = False


@dataclass
class Trial:
    """What was seen of one suspicion: for each boot whether run after run failed, on the baseline and on the other."""

    suspicion: Suspicion
    boots: dict[int, tuple[list[bool], list[bool]]] = field(default_factory=dict)
    more: list[bool] = field(default_factory=list)
    state: State = State.OPEN

    def _sides(self, boot: int) -> tuple[list[bool], list[bool]]:
        """Return the runs on BOOT of the side said to be better, and of the worse one."""
        base, other = self.boots[boot]
        return (base, other) if self.suspicion.is_worse else (other, base)

    def _blocks(self) -> list[tuple[list[bool], list[bool]]]:
        """Return the runs of boots that have all of them."""
        return [sides for sides in map(self._sides, self.boots) if len(sides[0]) > 1]

    def share_of_failures(self) -> float:
        """Return which share of all runs failed on the side said to be worse."""
        failed = [failed for boot in self.boots for failed in self._sides(boot)[1]]
        return sum(failed) / len(failed) if failed else 0.0

    def always(self) -> float:
        """Return the first gambler's purse."""
        purse = 1.0
        for better, worse in map(self._sides, self.boots):
            if better:
                purse *= 4.0 if worse[0] and not better[0] else 0.0
        return purse

    def any(self) -> float:
        """Return the second gambler's purse."""
        purses = [part for _, _, part in _RACES]
        for better, worse in self._blocks():
            # A block shows a failure more often than a run.
            odds = [tuple(1 - (1 - rate) ** len(worse) for rate in race[:2]) for race in _RACES]
            purses = [
                purse * _fair(low, any(better), high) * _fair(high, any(worse), low)
                for purse, (low, high) in zip(purses, odds, strict=True)
            ]
        return math.fsum(purses)

    def excess(self) -> float:
        """Return the third gambler's purse."""
        purses = [1 / len(_STAKES)] * len(_STAKES)
        for better, worse in self._blocks():
            step = (sum(worse) > sum(better)) - (sum(worse) < sum(better))
            purses = [purse * (1 + stake * step) for purse, stake in zip(purses, _STAKES, strict=True)]
        return math.fsum(purses)

    def purse(self) -> float:
        """Return what all three have together."""
        return _ALWAYS * self.always() + _ANY * self.any() + _MORE * self.excess()

    def see(self, boot: int, seen: Seen) -> None:
        """Take in pairs of runs on BOOT, as far as both are known."""
        sides = self.boots.setdefault(boot, ([], []))
        for pair in zip(*seen, strict=True):
            if None not in pair:
                for side, each in zip(sides, pair, strict=True):
                    side.append(_counts(each, self.suspicion))

    def is_hopeless(self) -> bool:
        """Tell whether a race worth finding would have shown by now."""
        likelihood = 1.0
        for better, worse in self._blocks():
            found, rare = (1 - (1 - rate) ** len(worse) for rate in (_WORTH_FINDING, _TOO_RARE))
            likelihood *= found / rare if sum(worse) > sum(better) else (1 - found) / (1 - rare)
        return likelihood <= _GIVE_UP

    def counts(self) -> tuple[int, int, int, int]:
        """Return failures and runs of the baseline, and of the other kernel."""
        base = [failed for one, _ in self.boots.values() for failed in one]
        other = [failed for _, one in self.boots.values() for failed in one] + self.more
        return sum(base), len(base), sum(other), len(other)


def _fair(rate: float, seen: bool, other: float) -> float:
    """Return how much likelier SEEN is at RATE than at the rate that both kernels would have, between it and OTHER."""
    mean = (rate + other) / 2
    return rate / mean if seen else (1 - rate) / (1 - mean)


def surviving(purses: Sequence[float], bound: float) -> list[bool]:
    """Tell for each of PURSES whether it shows something: in each set that it is one of, the mean reaches BOUND."""
    poorest = sorted(purses)
    shown = []
    for purse in purses:
        total, among, others = purse, 1, list(poorest)
        others.remove(purse)
        is_shown = total >= bound - _SLACK
        for other in others:
            if not is_shown or other >= bound:
                break
            total, among = total + other, among + 1
            is_shown = total / among >= bound - _SLACK
        shown.append(is_shown)
    return shown


class Look:
    """All suspicions of one look, tried together with at most ERROR of a wrong word.

    They have at most MOST boots, numbered from FIRST.  KNOWN is what runs after those that raised a suspicion came to,
    by boot.  Where it has suspicions that are none any more, these are not tried, but count among the others.
    """

    def __init__(
        self, suspicions: Iterable[Suspicion], error: float, first: int, most: int, known: Known | None = None
    ) -> None:
        suspected, known = set(suspicions), known or {}
        self.trials = [Trial(suspicion) for suspicion in sorted(suspected.union(known))]
        self._error = error
        self._first = first
        self._most = most
        self._asked: list[dict[int, int]] = [{} for _ in self.trials]  # runs on each boot, for each trial
        self._current: list[int] = []
        self._is_checked = False
        for trial in self.trials:
            for boot, seen in known.get(trial.suspicion, {}).items():
                trial.see(boot, seen)
            if trial.suspicion not in suspected:
                trial.state = State.UNSETTLED
        self._settle()

    @property
    def next_boot(self) -> int:
        """The number after those of its boots."""
        return max((boot for asked in self._asked for boot in asked), default=self._first - 1) + 1

    def wanted(self) -> Runs | None:
        """Return the runs to be made next, None where everything is settled."""
        still = [number for number, trial in enumerate(self.trials) if trial.state is State.OPEN]
        if not still:
            return self._passes_to_be_gone()
        alive = [number for number in still if self.trials[number].always() > 0]
        begun = len(self._asked[alive[0]]) if alive else 0
        if alive and begun < max(FIRST_BOOTS, self._most // 2):
            boots = range(self._first, self._first + FIRST_BOOTS) if begun == 0 else self._next(begun, 1)
            return self._ask(alive, boots, range(1))
        for number in still:
            unfilled = [boot for boot, runs in self._asked[number].items() if runs == 1]
            if unfilled:
                alike = [other for other in still if self._asked[other] == self._asked[number]]
                return self._ask(alike, range(unfilled[0], unfilled[-1] + 1), range(1, _FEW_RUNS))
        begun, runs = min((len(self._asked[number]), self._runs_of_next(number)) for number in still)
        alike = [number for number in still if (len(self._asked[number]), self._runs_of_next(number)) == (begun, runs)]
        return self._ask(alike, self._next(begun, 1), range(runs))

    def _runs_of_next(self, number: int) -> int:
        return _FEW_RUNS if self.trials[number].share_of_failures() > _OFTEN else _MANY_RUNS

    def _next(self, begun: int, count: int) -> range:
        return range(self._first + begun, self._first + begun + count)

    def _ask(self, numbers: list[int], boots: range, runs: range) -> Runs:
        self._current = numbers
        for number in numbers:
            self._asked[number] |= dict.fromkeys(boots, runs.stop)
        return Runs(tuple(dict.fromkeys(self.trials[number].suspicion.test for number in numbers)), boots, runs)

    def observe(self, runs: Runs, seen: Mapping[tuple[str, int], Seen]) -> None:
        """Take in what the wanted RUNS came to, by test and boot, and settle what that settles."""
        for number in self._current:
            trial = self.trials[number]
            for boot in runs.boots:
                both = seen.get((trial.suspicion.test, boot), ((), ()))
                if runs.only_other:
                    trial.more += [_counts(each, trial.suspicion) for each in both[1] if each is not None]
                else:
                    trial.see(boot, both)
        self._settle()

    def _settle(self) -> None:
        shown = surviving([trial.purse() for trial in self.trials], 1 / self._error)
        for trial, is_shown in zip(self.trials, shown, strict=True):
            if is_shown and trial.state is State.OPEN:
                trial.state = State.NAMED
        for trial, asked in zip(self.trials, self._asked, strict=True):
            spent = len(asked) >= self._most and all(runs > 1 for runs in asked.values())
            if trial.state is State.OPEN and (spent or trial.is_hopeless()):
                trial.state = State.UNSETTLED

    def _passes_to_be_gone(self) -> Runs | None:
        """Return the runs that tell what is gone from what became rarer: once, all at the same time."""
        if self._is_checked:
            return None
        self._is_checked = True
        missing = {}
        for number, trial in enumerate(self.trials):
            _, _, failures, made = trial.counts()
            needed = self.passes_needed(trial)
            if needed is not None and failures == 0 and made < needed <= MOST_PASSES:
                missing[number] = needed - made
        if not missing:
            return None
        self._current = list(missing)
        tests = tuple(dict.fromkeys(self.trials[number].suspicion.test for number in missing))
        boots = range(self._first, self._first + FIRST_BOOTS)
        each = math.ceil(max(missing.values()) / len(boots))
        return Runs(tests, boots, range(_MANY_RUNS, _MANY_RUNS + each), only_other=True)

    def passes_needed(self, trial: Trial) -> int | None:
        """Return how many passes show that a failure is rarer by GONE at least; None where none is named as rarer."""
        if trial.state is not State.NAMED or trial.suspicion.is_worse:
            return None
        better = sum(each.state is State.NAMED and not each.suspicion.is_worse for each in self.trials)
        failures, made, _, _ = trial.counts()
        # Half of the error: the rate before is an estimate, too.
        return math.ceil(math.log(self._error / 2 / better) / math.log1p(-failures / made / GONE) - _SLACK)

    def is_gone(self, trial: Trial) -> bool:
        """Tell whether the failure is gone, as far as runs can show."""
        needed = self.passes_needed(trial)
        _, _, failures, made = trial.counts()
        return needed is not None and failures == 0 and made >= needed


#: What runs on one boot came to, on the baseline and on the other: why each failed, "" where it passed, None where
#: nothing is known of it.
Seen = tuple[Sequence[str | None], Sequence[str | None]]
#: What runs came to that were made after those that raised a suspicion, by boot.
Known = Mapping[Suspicion, Mapping[int, Seen]]
#: More passes than these are not made to tell a failure that is gone from one that became rarer.
MOST_PASSES = 120


def _counts(outcome: str | None, suspicion: Suspicion) -> bool:
    return outcome == suspicion.cause if suspicion.cause else bool(outcome)


class Inquiry:
    """All looks at one kernel against the baseline; over all of them a word is wrong with at most ERROR."""

    def __init__(self, error: float, most_boots: int = MOST_BOOTS) -> None:
        self._error = error
        self._most_boots = most_boots
        self.looks: list[Look] = []

    @property
    def trials(self) -> list[tuple[Look, Trial]]:
        """What was tried, and in which look."""
        return [(look, trial) for look in self.looks for trial in look.trials]

    def look(self, suspicions: Iterable[Suspicion], known: Known | None = None) -> None:
        """Try what is new among SUSPICIONS: evidence of it is what is KNOWN, and the runs made from now on."""
        tried = {trial.suspicion for _, trial in self.trials}
        new = set(suspicions) - tried
        if not new:
            return
        known = {suspicion: boots for suspicion, boots in (known or {}).items() if suspicion not in tried}
        part = _FIRST_LOOK if not self.looks else (1 - _FIRST_LOOK) / 2 ** len(self.looks)
        first = max((look.next_boot for look in self.looks), default=1)
        self.looks.append(Look(new, self._error * part, first, self._most_boots, known))

    def wanted(self) -> Runs | None:
        """Return the runs that the latest look wants next, None where everything is settled."""
        return self.looks[-1].wanted() if self.looks else None

    def observe(self, runs: Runs, seen: Mapping[tuple[str, int], Seen]) -> None:
        """Take in what the wanted RUNS came to, by test and boot."""
        self.looks[-1].observe(runs, seen)

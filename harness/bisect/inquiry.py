# SPDX-License-Identifier: BSD-2-Clause
"""The way of a bisection, without any machine: what to run next, and what may be claimed.

First both ends are tested.  Then the search goes where most is told, until one commit is likely; then this one and its
parents are run in turn.  Runs made from here on have to carry the claim by themselves: they are evidence that the one
fails more often than the others, whatever the rates are (see `proof`), and this is to reach the confidence asked for.
It guards against all that the search's model may be wrong in; against parents whose rate is low by chance only that
model helps, so what it believes has to reach the confidence, too.  At the end the bad end is run without the culprit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.bisect.decision import Conclusion, Knowledge, Outcome, Trouble
from harness.bisect.history import Flags, History
from harness.bisect.planning import Proposal
from harness.bisect.proof import Evidence, Runs, error_of_attempt, likelihood
from harness.bisect.rates import Rates

#: What a run is for: an end of the range, the search, the proof.  "told" is what the user said of a commit.
GOOD_END, BASE, BAD_END, SEARCH, PARENT, CULPRIT, REVERT, TOLD = (
    "good end",
    "base",
    "bad end",
    "search",
    "parent",
    "culprit",
    "revert",
    "told",
)
PROVING = frozenset({PARENT, CULPRIT, REVERT})
# A commit as likely as this is tried to be proved, and given up below that.
_LIKELY, _UNLIKELY = 0.6, 0.4
# An older change than the good end is looked into above the one, and believed above the other.
_SUSPECT, _BELIEVED = 0.2, 0.95
# The runs without the culprit that are looked at, at most.
_PATIENCE = 400
# After so many runs, none of them bad, the failure is not there, or too rare to be looked for.
_UNSEEN = 1000


@dataclass(frozen=True)
class Step:
    """The next run: of which commit, what for, WITHOUT which culprit, and WHY if the search chose it."""

    commit: str
    role: str
    without: str | None = None
    why: Proposal | None = None


@dataclass(frozen=True)
class Start:
    """When an attempt at a proof began: after so many observations, of which kernels."""

    upper: str
    lowers: tuple[str, ...]
    after: int


@dataclass
class Attempt:
    """A proof under way: the EVIDENCE, and the error that it is allowed."""

    evidence: Evidence
    error: float
    after: int

    @property
    def holds(self) -> bool:
        """Whether the evidence is as strong as it has to be."""
        return self.evidence.value * self.error >= 1 - 1e-9


@dataclass(frozen=True)
class Ends:
    """What the history lies between: the kernels called GOOD, of which BASES were not called so by anybody, and BAD."""

    good: tuple[str, ...]
    bad: str
    bases: tuple[str, ...] = ()
    #: The parents of a commit as they are in the repository.
    parents: Callable[[str], tuple[str, ...]] | None = None


class Inquiry:
    """What is known of HISTORY between ENDS, and what to do until the culprit is known with CONFIDENCE."""

    def __init__(self, history: History, rates: Rates, confidence: float, ends: Ends) -> None:
        self.history = history
        self.confidence = confidence
        self.ends = ends
        self.knowledge = Knowledge(history, rates)
        self.knowledge.observe_bad_end()
        self.attempts: dict[tuple[str, tuple[str, ...]], Attempt] = {}
        #: The commits that turned out to make the same kernel.
        self.alike: set[tuple[str, str | None]] = set()
        self.reverts: dict[str, Runs] = {}
        self.cannot_revert: dict[str, str] = {}
        self._seen = 0
        # Parents outside the history that could not be tested.
        self._outside: set[str] = set()
        #: How often each commit was tested, and how many of all runs were bad.
        self.tested: Counter[str] = Counter()
        self.bad_runs = 0
        self._revert_troubles: Counter[str] = Counter()
        self._troubles: Counter[str] = Counter()
        self._tried: Counter[str] = Counter()

    # Learning

    def learn(
        self, commit: str, outcome: Outcome, trouble: Trouble | None = None, role: str = SEARCH, without: str = ""
    ) -> None:
        """Take in one run."""
        self._seen += 1
        self._tried[commit] += 1
        if role == REVERT:
            self._learn_revert(without, outcome, trouble)
            return
        if outcome is not Outcome.UNTESTABLE:
            self.tested[commit] += 1
            self.bad_runs += outcome is Outcome.BAD
        if commit in self.history.number:
            self.knowledge.observe(commit, outcome, trouble)
        elif commit in self.ends.good:
            self.knowledge.observe_good_end(commit, outcome)
        elif (before := self._before(commit)) is not None:
            self.knowledge.observe_like(commit, before, outcome)
        if outcome is Outcome.UNTESTABLE:
            if commit not in self.history.number:
                self._troubles[commit] += 1
                if self._troubles[commit] >= (trouble or Trouble.INFRASTRUCTURE).attempts:
                    self._outside.add(commit)
        elif role != TOLD:
            for attempt in self.attempts.values():
                attempt.evidence.add(commit, bad=outcome is Outcome.BAD)

    def _learn_revert(self, culprit: str, outcome: Outcome, trouble: Trouble | None) -> None:
        if outcome is not Outcome.UNTESTABLE:
            self.reverts.setdefault(culprit, Runs()).add(bad=outcome is Outcome.BAD)
            return
        self._revert_troubles[culprit] += 1
        if self._revert_troubles[culprit] >= (trouble or Trouble.INFRASTRUCTURE).attempts:
            self.cannot_revert[culprit] = str(trouble or Trouble.INFRASTRUCTURE)

    def _before(self, commit: str) -> Flags | None:
        """Return what COMMIT, the parent of one in question but not in question itself, inherits; None if unknown."""
        for upper, lowers in self.attempts:
            if commit in lowers:
                number = self.history.number[upper]
                inherited = self.history.ancestors(number).copy()
                inherited[number] = False
                if len(self.history.before[number]) < 2:
                    return inherited
        return None

    def begin(self, start: Start) -> Attempt:
        """Begin the attempt at a proof that START says; also one that was begun in an earlier session."""
        key = (start.upper, start.lowers)
        if key not in self.attempts:
            error = error_of_attempt(len(self.attempts), 1 - self.confidence)
            evidence = Evidence(self.knowledge.rates, self.knowledge.over_rates, *key)
            self.attempts[key] = Attempt(evidence, error, start.after)
        return self.attempts[key]

    # What may be claimed

    def named(self) -> tuple[Conclusion, tuple[Attempt, ...]]:
        """Return what may be claimed now, with the proofs that it rests on.

        Most of the time that is one commit, or those that nothing testable tells apart.  Where several proofs hold, and
        one alone is not likely enough, all of them are named.
        """
        found = self.knowledge.conclude()
        key = self._boundary(found.commits)
        attempt = self.attempts.get(key) if key is not None else None
        if attempt is not None and attempt.holds and self._may_claim(found):
            return found, (attempt,)
        holding = {upper: each for (upper, _), each in self.attempts.items() if each.holds}
        several = self.knowledge.chance_of(holding)
        if len(holding) > 1 and several >= self.confidence:
            commits = sorted(holding, key=self.history.number.__getitem__)
            both = Conclusion(tuple(commits), several)
            if self._may_claim(both):
                return both, tuple(holding[commit] for commit in commits)
        return found, ()

    def conclude(self) -> Conclusion:
        """Return what is claimed: no more than the fresh runs carry."""
        found, attempts = self.named()
        error = sum(each.error / max(1.0, each.error * each.evidence.value) for each in attempts)
        likely = min(found.probability, self.knowledge.cautious(found.commits))
        return Conclusion(found.commits, min(likely, 1 - error) if attempts else likely)

    def _may_claim(self, found: Conclusion) -> bool:
        return found.probability >= self.confidence and self.knowledge.cautious(found.commits) >= self.confidence

    @property
    def is_decided(self) -> bool:
        """Whether there is a culprit that may be claimed with the confidence asked for."""
        return bool(self.named()[1])

    @property
    def is_older(self) -> bool:
        """Whether the good end shows the failure, too."""
        return self.knowledge.older >= _BELIEVED and any(self.tested[each] for each in self.ends.good)

    @property
    def is_unseen(self) -> bool:
        """Whether the failure has not shown in so many runs that there is nothing to look for."""
        return not self.bad_runs and self.tested.total() >= _UNSEEN

    def revert_says(self, culprit: str) -> bool | None:
        """Tell whether the bad end without CULPRIT is good; None where that is not known yet."""
        runs, rates = self.reverts.get(culprit, Runs()), self.knowledge.rates
        belief = self.knowledge.over_rates
        bad = float(likelihood(rates.with_culprit, rates.with_spread, runs) @ belief)
        good = float(likelihood(rates.without, rates.without_spread, runs) @ belief)
        error = 1 - self.confidence + 1e-12
        if bad <= error * good:
            return True
        return False if good <= error * bad else None

    # What comes next

    def following(
        self,
        seconds: Sequence[float],
        setup: Sequence[float] | None = None,
        under_way: Iterable[Step] = (),
    ) -> Step | None:
        """Return the next run while others are UNDER_WAY, None where there is none to make until one of them ends.

        SECONDS and SETUP are what the runs cost, see Knowledge.choose().
        """
        pending = list(under_way)
        waiting = Counter(step.commit for step in pending if step.role != REVERT)
        if (step := self._end(waiting)) is not None:
            return step
        if self.is_decided:
            return self._undo(pending)
        attempt = self._attempt()
        if attempt is not None and not attempt.holds:
            evidence = attempt.evidence
            commit = evidence.following(waiting)
            if sum(waiting[each] for each in evidence.runs) < self._still_needed(attempt):
                return Step(commit, CULPRIT if commit == evidence.upper else PARENT)
            return None
        chosen = self.knowledge.choose(seconds, 1, [step.commit for step in pending if step.commit in
                                                    self.history.number and step.role != REVERT], setup)  # fmt: skip
        return Step(chosen[0].commit, SEARCH, None, chosen[0]) if chosen else None

    def _end(self, waiting: Counter[str]) -> Step | None:
        """Return the next run of an end: each once, and a good one more often where an older change is likely."""
        untested = [each for each in (*self.ends.good, self.ends.bad) if not self.tested[each] and not waiting[each]]
        if untested:
            return self._run_end(min(untested, key=self._tried.__getitem__))
        if self.knowledge.older > _SUSPECT and not self.is_older:
            able = [each for each in self.ends.good if not waiting[each]]
            return self._run_end(min(able, key=self.tested.__getitem__)) if able else None
        return None

    def _run_end(self, commit: str) -> Step:
        return Step(commit, BASE if commit in self.ends.bases else BAD_END if commit == self.ends.bad else GOOD_END)

    def _still_needed(self, attempt: Attempt) -> int:
        """Return how many runs it takes at least until ATTEMPT may hold: two double twice what they say."""
        missing = 1 / (attempt.error * max(attempt.evidence.value, 1e-9))
        return max(1, math.ceil(math.log2(max(missing, 1.0)) - 1e-9))

    def _attempt(self) -> Attempt | None:
        """Return the proof that is tried at the moment, begun if need be; None as long as no commit is likely."""
        found = self.knowledge.conclude()
        key = self._boundary(found.commits)
        if key is None:
            return None
        least = _UNLIKELY if key in self.attempts or self.knowledge.is_narrowed else _LIKELY
        return self.begin(Start(*key, self._seen)) if found.probability >= least else None

    def _boundary(self, commits: Sequence[str]) -> tuple[str, tuple[str, ...]] | None:
        """Return the first testable kernel with all of COMMITS, and the last ones with none; None where there is none.

        Mostly that is a commit with its parents.
        """
        history, given_up = self.history, self.knowledge.untestable_flags
        members = {history.number[commit] for commit in commits}
        upper = max(members)
        if given_up[upper]:
            marks = history.carried([min(members), upper])
            able = [number for number in range(upper, len(history)) if marks[number] == 3 and not given_up[number]]
            if not able:
                return None
            upper = able[0]
        lowers: dict[str, None] = {}
        seen, left = {upper}, [upper]
        while left:
            number = left.pop()
            for parent in self._real_parents(history.commits[number]):
                place = history.number.get(parent)
                if place is None:
                    lowers[parent] = None
                elif place in members or given_up[place]:
                    if place not in seen:
                        seen.add(place)
                        left.append(place)
                else:
                    lowers[parent] = None
        able_lowers = tuple(sorted(each for each in lowers if each not in self._outside))
        return (history.commits[upper], able_lowers) if able_lowers else None

    def _real_parents(self, commit: str) -> tuple[str, ...]:
        """Return the parents of COMMIT: as they are, where they can be had, otherwise those in question."""
        inside = self.history.parents[commit]
        real = self.ends.parents(commit) if self.ends.parents is not None else ()
        able = tuple(each for each in real if each not in self._outside)
        return able or inside or self.ends.good[:1]

    def _undo(self, pending: Sequence[Step]) -> Step | None:
        """Return the next run of the bad end without the culprit."""
        found = self.named()[0]
        if len(found.commits) != 1:
            return None
        (culprit,) = found.commits
        # The bad end without itself is its parent, which the proof has run.
        if culprit == self.ends.bad or culprit in self.cannot_revert or self.revert_says(culprit) is not None:
            return None
        runs = self.reverts.get(culprit, Runs())
        if runs.total + len(pending) >= _PATIENCE or len(pending) > runs.total + 1:
            return None
        return Step(self.ends.bad, REVERT, culprit)

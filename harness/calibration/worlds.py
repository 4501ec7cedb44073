# SPDX-License-Identifier: BSD-2-Clause
"""Histories whose culprit is known, kernels whose failures follow no model of bisect's, and the search for it there.

The way of the search and of the proof is the product's; what its runs come to is decided here.  Shapes of histories
are lines, random graphs, and pieces of a repository's history with many merges.
"""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.bisect.decision import Outcome
from harness.bisect.history import History
from harness.bisect.inquiry import REVERT, Ends, Inquiry, Step
from harness.bisect.rates import Rates
from harness.errors import UsageError

#: Commits of a history that is made up.
SIZE = 100
#: A search that takes more runs is undecided.
MOST_RUNS = 6000
_PIECES = 24
_GIT_SECONDS = 600.0
#: Parents of each commit by number; the first commit has none, the last one inherits all.
Shape = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Kind:
    """What is wrong with the kernels: `rate` is a share of runs, or (a, b) of a Beta distribution drawn per commit.

    With `to` the rate goes from `rate` at the culprit to that at the bad end; with `later` it changes by that much per
    run made.  `alarms` is the share of runs that fail with no cause.  `times` is how many searches the full table of a
    line makes; the others make a part of that.
    """

    name: str
    rate: float | tuple[float, float]
    alarms: float = 0.0
    to: float | None = None
    later: float = 0.0
    times: int = 200


class World:
    """Kernels with `causes`; a mended cause is (by which commit it came, by which it went)."""

    def __init__(self, shape: Shape, kind: Kind, chance: random.Random) -> None:
        self.shape, self.kind, self.chance = shape, kind, chance
        self.has: list[frozenset[int]] = []
        for number, parents in enumerate(shape):
            self.has.append(frozenset({number}).union(*(self.has[parent] for parent in parents)))
        self.causes: list[tuple[int, int | None]] = [(chance.randrange(len(shape)), None)]
        self.made = 0
        self._drawn: dict[tuple[int, int], float] = {}

    def run(self, number: int | None, without: int | None = None) -> bool:
        """Tell whether a run of kernel NUMBER, None being the good end, fails."""
        self.made += 1
        has = self.has[number] if number is not None else frozenset()
        for came, went in self.causes:
            is_there = came in has and came != without and went not in has
            if is_there and self.chance.random() < self._rate(number or 0, came):
                return True
        return self.chance.random() < self.kind.alarms

    def _rate(self, number: int, came: int) -> float:
        kind = self.kind
        if isinstance(kind.rate, tuple):
            return self._drawn.setdefault((number, came), self.chance.betavariate(*kind.rate))
        rate = kind.rate
        if kind.to is not None:
            rate += (kind.to - rate) * (number - came) / max(1, len(self.shape) - 1 - came)
        return rate * (1 + kind.later) ** self.made


@dataclass(frozen=True)
class Found:
    """What a search came to: the commits it named, "" as `end` where it was decided, and the `runs` it took."""

    end: str
    named: tuple[int, ...]
    undoing_helps: bool | None
    runs: int
    causes: tuple[tuple[int, int | None], ...]

    @property
    def is_right(self) -> bool:
        """Whether one of the commits named changed something."""
        real = {number for cause in self.causes for number in cause if number is not None}
        return bool(real.intersection(self.named))


def search(world: World, level: float) -> Found:
    """Search WORLD until something can be claimed at LEVEL."""
    size = len(world.shape)
    names = [f"c{number:05}" for number in range(size)]
    history = History(names, {names[n]: [names[p] for p in parents] for n, parents in enumerate(world.shape)})
    inquiry = Inquiry(history, Rates.of_failure(), level, Ends(("good",), names[-1]))
    seconds = [1.0] * size
    end = "undecided"
    while world.made < MOST_RUNS:
        step: Step | None = inquiry.following(seconds)
        if step is None:
            break
        without = history.number[step.without] if step.role == REVERT and step.without is not None else None
        failed = world.run(history.number.get(step.commit), without)
        inquiry.learn(step.commit, Outcome.BAD if failed else Outcome.GOOD, None, step.role, step.without or "")
        if inquiry.is_older or inquiry.is_unseen:
            break
    named: tuple[int, ...] = ()
    helps = None
    if inquiry.is_older:
        end = "older"
    elif inquiry.is_decided:
        end, commits = "", inquiry.conclude().commits
        named = tuple(history.number[commit] for commit in commits)
        helps = inquiry.revert_says(commits[0]) if len(commits) == 1 else None
    return Found(end, named, helps, world.made, tuple(world.causes))


# Shapes


def line(size: int) -> Shape:
    """Return a history of SIZE commits, one after the other."""
    return ((), *((number,) for number in range(size - 1)))


def graph(chance: random.Random, size: int = SIZE) -> Shape:
    """Return a history in which branches of some commits are merged all the time."""
    shape: list[tuple[int, ...]] = [()]
    heads = [0]
    while len(shape) < size - 1:
        number = len(shape)
        if len(heads) > 1 and chance.random() < 0.35:
            one, other = chance.sample(heads, 2)
            heads = [head for head in heads if head not in {one, other}]
            shape.append(tuple(sorted((one, other))))
        elif chance.random() < 0.3:
            shape.append((chance.randrange(max(0, number - 15), number),))
        else:
            head = chance.choice(heads)
            heads.remove(head)
            shape.append((head,))
        heads.append(number)
    return (*shape, tuple(sorted(set(range(len(shape))) - {parent for parents in shape for parent in parents})))


def pieces(source: Path, chance: random.Random) -> list[Shape]:
    """Return pieces of the history in the repository SOURCE: what lies between a merge and a commit long before it."""
    parents = parents_in(source)
    merges = [commit for commit, before in parents.items() if len(before) > 1]
    found: list[Shape] = []
    for merge in chance.sample(merges, len(merges)):
        old = merge
        for _ in range(60):
            old = parents[old][0] if parents.get(old) else old
        inside = _between(parents, old, merge)
        if 50 <= len(inside) <= 300 and sum(len(parents[commit]) > 1 for commit in inside) >= 4:
            order = {commit: number for number, commit in enumerate(commit for commit in parents if commit in inside)}
            found.append(tuple(tuple(order[each] for each in parents[commit] if each in order) for commit in order))
        if len(found) == _PIECES:
            break
    return found


def parents_in(source: Path) -> dict[str, tuple[str, ...]]:
    """Return the parents of each commit of SOURCE's branch master, or of the one checked out, parents first."""
    for tip in ("master", "HEAD"):
        argv = ["git", "-C", str(source), "rev-list", "--topo-order", "--reverse", "--parents", tip, "--"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=_GIT_SECONDS)
        if done.returncode == 0:
            return {row.split()[0]: tuple(row.split()[1:]) for row in done.stdout.splitlines()}
    raise UsageError(f"{source} is no git repository: {done.stderr.strip().partition(chr(10))[0]}")


def _between(parents: dict[str, tuple[str, ...]], old: str, new: str) -> set[str]:
    def reached(start: str) -> set[str]:
        seen, left = {start}, [start]
        while left:
            for each in parents.get(left.pop(), ()):
                if each not in seen:
                    seen.add(each)
                    left.append(each)
        return seen

    return reached(new) - reached(old)

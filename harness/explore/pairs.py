# SPDX-License-Identifier: BSD-2-Clause
"""All pairs of operations, breadth first: each gets a little before any of them gets more."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path

from harness.errors import HarnessError
from harness.explore.campaign import Exploration, Ground, Interleaving, read_extent, read_trials, spread
from harness.explore.operations import OPERATIONS, Operation
from harness.explore.trial import Trial, Verdict, counted
from harness.processes import GuestError
from harness.threads import side_by_side

Pair = tuple[Operation, Operation]


def all_pairs(some: Sequence[Operation] = ()) -> list[Pair]:
    """Return all pairs of operations, or those that have one of SOME, in the order in which they are explored.

    The first one of a pair is held.  Each two come once before any comes the other way round, and last are those
    that only look.
    """
    names = {each.name for each in some}
    made = [*sorted(OPERATIONS.values(), key=lambda each: each.name), *(each for each in some if "::" in each.name)]
    pairs = [
        (one, other) if _hash(one, other) < _hash(other, one) else (other, one)
        for one, other in combinations_with_replacement(made, 2)
        if not names or names & {one.name, other.name}
    ]
    pairs.sort(key=lambda pair: _hash(*pair))
    turned = [(other, one) for one, other in pairs if one is not other]
    return sorted([*pairs, *turned], key=lambda pair: pair[0].looks and pair[1].looks)


def _hash(one: Operation, other: Operation) -> bytes:
    return hashlib.sha256(f"{one.name} {other.name}".encode()).digest()


@dataclass(frozen=True)
class Known:
    """What is known of a pair: how many of its POINTS, and what those came to that were tried."""

    points: int
    known: int
    trials: tuple[Trial, ...]

    @classmethod
    def read(cls, file: Path) -> Known:
        """Return what FILE, a campaign, has."""
        trials = tuple(trial for trial in read_trials(file).values() if len(trial.points) < 2)
        covered = {key for trial in trials if trial.verdict is not Verdict.LOST for key in trial.alike}
        extent = read_extent(file)
        return cls(len(extent), sum(key in covered for key in extent), trials)

    @property
    def is_complete(self) -> bool:
        """Whether there is no point left of which nothing is known."""
        return 0 < self.points == self.known

    def __str__(self) -> str:
        """Return it in words."""
        told = counted(trial.verdict for trial in self.trials)
        return f"{self.known} of {self.points} points known: {told or 'nothing tried'}"


@dataclass
class Breadth:
    """Explores pairs on GROUND, whose campaigns are FILE_OF them: NUMBER of each one's points in each round.

    What is found goes to SAY, and what is known of a pair that had its turn to TELL, in words.
    """

    ground: Ground
    file_of: Callable[[Pair], Path]
    say: Callable[[Trial], None]
    tell: Callable[[str], None]
    number: int
    tried: int = 0
    _prepared: dict[Pair, tuple[Exploration, list[Interleaving]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, pairs: Iterable[Pair], workers: int, until: float) -> None:
        """Explore PAIRS, WORKERS at a time, round after round until the moment UNTIL, or all is known.

        Of which less is known, come first.  Raises what a worker failed of.
        """
        known = {pair: Known.read(self.file_of(pair)) for pair in pairs}
        left = [pair for pair in known if not known[pair].is_complete]
        left.sort(key=lambda pair: len(known[pair].trials) // self.number)
        if left and time.monotonic() < until:
            with self.ground.stage():  # the warm state that all begin with is made once, here
                pass
        while left and time.monotonic() < until:
            waiting: queue.SimpleQueue[Pair] = queue.SimpleQueue()
            for pair in left:
                waiting.put(pair)
            again: list[Pair] = []
            failures: list[BaseException] = []
            work = partial(self._work, waiting, until, again, failures)
            side_by_side(work, workers, self.ground.stop, "pairs")
            if failures:
                raise failures[0]
            left = [pair for pair in left if pair in again]

    def _work(
        self, waiting: queue.SimpleQueue[Pair], until: float, again: list[Pair], failures: list[BaseException]
    ) -> None:
        """Explore who is WAITING, and note who wants another turn AGAIN; a failure ends the round."""
        try:
            while not self.ground.is_stopped and time.monotonic() < until and not failures and not waiting.empty():
                pair = waiting.get_nowait()
                if self._explore(pair, until):
                    again.append(pair)
        except queue.Empty:  # somebody was faster
            return
        except BaseException as error:
            failures.append(error)

    def _explore(self, pair: Pair, until: float) -> bool:
        """Give PAIR its turn; tell whether something is left to do."""
        file, words = self.file_of(pair), " ".join(each.name for each in pair)
        known, anew = read_trials(file), pair not in self._prepared
        try:
            exploration, singles = self._prepared.get(pair) or self._prepare(pair, file, known.values())
        except (HarnessError, GuestError) as error:  # this kernel does not have it, a guest was lost, both cannot be
            self.tell(f"{words}: {error}")
            return False
        open_ = [
            each for each in singles if each.key not in known or (anew and known[each.key].verdict is Verdict.LOST)
        ]
        todo = [each for each in spread(open_, 0) if not exploration.is_covered(each)]
        done = exploration.run(todo, 1, until, self.number)
        with self._lock:
            self.tried += len(done)
        self.tell(f"{words}: {Known.read(file)}")
        return len(done) < len(todo)

    def _prepare(self, pair: Pair, file: Path, known: Iterable[Trial]) -> tuple[Exploration, list[Interleaving]]:
        exploration = Exploration(self.ground, pair, file, self.say)
        self._prepared[pair] = exploration, exploration.prepare(known)
        return self._prepared[pair]

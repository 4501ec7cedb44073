# SPDX-License-Identifier: BSD-2-Clause
"""Many interleavings of some operations, by several machines side by side; what is known is not tried again."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.explore.candidates import Candidate, Points, instrument_of, ranges_of
from harness.explore.operations import Operation
from harness.explore.stage import Stage, attempt, cpus_for, serial_outcomes
from harness.explore.trial import Trial, Verdict
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import MachineSize
from harness.processes.session import Session, Warmth
from harness.races.points import relative_line
from harness.races.schedule import Schedule
from harness.store import Store

Key = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Interleaving:
    """OPERATIONS in the order in which they are made, and the points at which the first of them are held."""

    operations: tuple[Operation, ...]
    points: tuple[Candidate, ...]

    @property
    def key(self) -> Key:
        """What tells it from others: that of its trial."""
        return tuple(each.name for each in self.operations), tuple(each.name for each in self.points)


def name_of_all(operations: Sequence[Operation]) -> str:
    """Return OPERATIONS as a word that a file may have."""
    return "--".join(each.name.replace("/", "_").replace("::", ".") for each in operations)


def orders(operations: Sequence[Operation]) -> list[tuple[Operation, ...]]:
    """Return OPERATIONS in all orders that have the same first one, which is held."""
    return [(operations[0], *others) for others in permutations(operations[1:])]


@contextmanager
def staged(warmth: Warmth) -> Iterator[Stage]:
    """Give a pristine guest from WARMTH on which interleavings can be stated."""
    with Session.resume(warmth) as session, Schedule(session.guest, session.hub, session.hub.spawn()) as schedule:
        yield Stage(session, schedule)


def read_trials(file: Path) -> dict[Key, Trial]:
    """Return what FILE has, the last of each."""
    found: dict[Key, Trial] = {}
    with suppress(FileNotFoundError):
        for line in file.read_text().splitlines():
            with suppress(ValueError, KeyError, TypeError):  # written by halves
                trial = Trial.from_json(line)
                found[trial.key] = trial
    return found


class Exploration:
    """Tries interleavings of OPERATIONS on TARGET; results go to FILE, and to SAY as they come."""

    def __init__(
        self,
        target: DragonFlyTarget,
        store: Store,
        operations: Sequence[Operation],
        file: Path,
        say: Callable[[Trial], None],
        *,
        memory: int = 512,
        names: Sequence[str],
        every: bool = False,
    ) -> None:
        if target.kernel is None:
            raise UsageError("explore needs a kernel whose symbols are known")
        self._store = store
        self._operations = tuple(operations)
        self._file = file
        self._say = say
        self._every = every
        self._ranges = ranges_of(store, target.kernel, names)
        if not self._ranges:
            raise UsageError(f"the kernel has none of the functions {', '.join(names)}")
        size = MachineSize(memory=memory, cpus=cpus_for(len(self._operations)))
        self._warmth = Warmth(target, store, size, instrument=instrument_of(store, self._ranges, memory))
        self._lock = threading.Lock()
        #: What the operations come to one behind the other, in words, by the order in which they are told.
        self.serial: dict[tuple[str, ...], frozenset[str]] = {}
        self._points: Points | None = None
        self._covered: set[Key] = set()

    def prepare(self, known: Iterable[Trial] = ()) -> list[Interleaving]:
        """Return the interleavings of one preemption; what serial orders allow is learnt on the occasion.

        Of those that come to the same as one that is KNOWN none is tried.
        """
        with staged(self._warmth) as stage:
            stage.demand(*self._operations)
            self._points = Points(stage.schedule.kernel, self._ranges, all_of_them=self._every)
            held = self._points.marked(stage.executed_by(self._operations, 0))
            for order in orders(self._operations):
                self.serial[_names(order)] = serial_outcomes(stage, order)
        for trial in known:
            self._learn(trial)
        return [Interleaving(order, (point,)) for order in orders(self._operations) for point in held]

    def pairs(self, trials: Iterable[Trial]) -> list[Interleaving]:
        """Return the interleavings of two preemptions, by what TRIALS of one say that is passed meanwhile.

        What somebody passes only while another one stands is known by that alone.
        """
        assert self._points is not None
        found = []
        for trial in trials:
            order = [each for each in orders(self._operations) if _names(each) == trial.operations]
            if order and not trial.then and (held := self._points.named(trial.point)) is not None:
                named = filter(None, map(self._points.named, trial.passed))
                found += [Interleaving(order[0], (held, then)) for then in named]
        return found

    def is_covered(self, one: Interleaving) -> bool:
        """Tell whether it is known what ONE comes to, as that of another one that was tried."""
        return one.key in self._covered

    def _learn(self, trial: Trial) -> None:
        if trial.verdict not in {Verdict.LOST, Verdict.UNREACHED} and not self._every:
            self._covered |= set(trial.alike)

    def run(self, todo: Sequence[Interleaving], workers: int, until: float) -> list[Trial]:
        """Try TODO with WORKERS machines until the moment UNTIL; return what came of them.

        Raises what a worker failed of, if all did.
        """
        waiting: queue.SimpleQueue[Interleaving] = queue.SimpleQueue()
        for each in todo:
            waiting.put(each)
        done: list[Trial] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                while time.monotonic() < until and not waiting.empty():
                    self._use_one_guest(waiting, until, done)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, name=f"explorer-{number}", daemon=True) for number in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures and not done:
            raise failures[0]
        return done

    def _use_one_guest(self, waiting: queue.SimpleQueue[Interleaving], until: float, done: list[Trial]) -> None:
        """Try interleavings on a fresh guest until one of them has spoilt it."""
        with suppress(_SpoiltError), staged(self._warmth) as stage:
            while time.monotonic() < until:
                try:
                    one = waiting.get_nowait()
                except queue.Empty:
                    return
                if self.is_covered(one):
                    continue
                trial, sound = self._try(stage, one)
                trial = replace(trial, **_places([each.place for each in one.points], "place"), kernel=stage.identity)
                if trial.verdict.is_finding:
                    lines = [relative_line(stage.schedule.kernel, each.address) for each in one.points]
                    trial = replace(trial, **_places(lines, "line"))
                if trial.verdict.is_finding and sound:
                    trial = self._again(stage, one, trial)
                    sound = not trial.verdict.is_finding or trial.verdict is Verdict.ANOMALY
                self._note(trial, done)
                if not sound:
                    raise _SpoiltError

    def _try(self, stage: Stage, one: Interleaving) -> tuple[Trial, bool]:
        names = _names(one.operations)
        points = [each.name for each in one.points]
        return attempt(stage, one.operations, points, self.serial[names], self._points)

    def _again(self, stage: Stage, one: Interleaving, trial: Trial) -> Trial:
        """Return TRIAL with how often it was seen, tried once more; one that does not come again is told so."""
        again, _ = self._try(stage, one)
        if again.verdict is trial.verdict:
            return replace(trial, seen=2)
        said = again.said or f"once: {trial.said}"
        return replace(trial, verdict=again.verdict, said=said, waited=again.waited)

    def _note(self, trial: Trial, done: list[Trial]) -> None:
        with self._lock:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(trial.to_json() + "\n")
            done.append(trial)
            self._learn(trial)
            self._say(trial)


class _SpoiltError(HarnessError):
    """The guest cannot be used any more."""


def _names(operations: Sequence[Operation]) -> tuple[str, ...]:
    return tuple(each.name for each in operations)


def _places(values: Sequence[str], member: str) -> dict[str, Any]:
    """Return VALUES as members of a trial, by which of its points they belong to."""
    return dict(zip((member, f"then_{member}"), values, strict=False))


def spread(interleavings: Sequence[Interleaving], number: int) -> list[Interleaving]:
    """Return NUMBER of INTERLEAVINGS, spread over all, in an order that has early ones everywhere; all for 0."""
    chosen = sorted(interleavings, key=lambda each: hashlib.sha256(repr(each.key).encode()).digest())
    return chosen[:number] if number else chosen

# SPDX-License-Identifier: BSD-2-Clause
"""Many interleavings of some operations, by several machines side by side; what is known is not tried again."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.explore.candidates import (
    Candidate,
    candidates,
    executed_addresses,
    instrument_of,
    ranges_of,
)
from harness.explore.operations import Operation
from harness.explore.stage import Stage, attempt, cpus_for, serial_outcomes
from harness.explore.trial import Trial, Verdict
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import MachineSize
from harness.machine.executed import Instrument
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
        self._warmth = Warmth(target, store, size)
        self._instrument: Instrument = instrument_of(store, self._ranges)
        self._watched = Warmth(target, store, size, instrument=self._instrument)
        self._lock = threading.Lock()
        #: What the operations come to one behind the other, in words, by the order in which they are told.
        self.serial: dict[tuple[str, ...], frozenset[str]] = {}

    def prepare(self, bound: int = 1) -> list[list[Interleaving]]:
        """Return the interleavings of one preemption, and those of two where BOUND allows that, in no order.

        What serial orders allow is learnt on the occasion.
        """
        singles: list[Interleaving] = []
        pairs: list[Interleaving] = []
        with staged(self._watched) as stage:
            stage.demand(*self._operations)
            held = self._points(stage, 0)
            for order in orders(self._operations):
                self.serial[_names(order)] = serial_outcomes(stage, order)
                singles += [Interleaving(order, (point,)) for point in held]
                if bound > 1:
                    then = self._points(stage, self._operations.index(order[1]))
                    pairs += [Interleaving(order, (point, other)) for point in held for other in then]
        return [singles, pairs] if bound > 1 else [singles]

    def _points(self, stage: Stage, which: int) -> list[Candidate]:
        executed = executed_addresses(stage, self._operations, which, self._instrument.ranges)
        return candidates(stage.schedule.kernel, self._ranges, executed, all_of_them=self._every)

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
        return attempt(stage, one.operations, [each.name for each in one.points], self.serial[names])

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

# SPDX-License-Identifier: BSD-2-Clause
"""Many interleavings of some operations, by several machines side by side; what is known is not tried again."""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import HarnessError, UsageError
from harness.explore.candidates import Candidate, Points, instrument_of, ranges_of
from harness.explore.operations import Operation
from harness.explore.stage import Stage, attempt, attempt_serially, cpus_for
from harness.explore.trial import Trial, Verdict
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import MachineSize
from harness.processes.session import Session, Warmth
from harness.races.points import relative_line
from harness.races.schedule import Schedule
from harness.store import Store
from harness.threads import side_by_side

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


def read_extent(file: Path) -> list[Key]:
    """Return the interleavings of one preemption that there are, as FILE has them from the last exploration."""
    found: list[Key] = []
    with suppress(FileNotFoundError):
        for line in file.read_text().splitlines():
            with suppress(ValueError, KeyError, TypeError):
                given = json.loads(line)
                found = [(tuple(given["extent"]), (point,)) for point in given["points"]]
    return found


def write_extent(file: Path, names: tuple[str, ...], held: Sequence[Candidate]) -> None:
    """Note in FILE that the first of the operations NAMES can be HELD there, unless that is the last thing noted."""
    points = [each.name for each in held]
    if read_extent(file) == [(names, (point,)) for point in points]:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"extent": names, "points": points}) + "\n")


class Ground:
    """A kernel on whose warm machines operations are explored: what all explorations of it have in common.

    A context manager: at its end the machines that stand ready are given up.  Its points are the instructions of the
    functions NAMES that may touch memory others see, with EVERY all of them; it is for at most OPERATIONS at a time.
    """

    def __init__(
        self,
        target: DragonFlyTarget,
        store: Store,
        operations: int,
        *,
        memory: int = 512,
        names: Sequence[str],
        every: bool = False,
    ) -> None:
        if target.kernel is None:
            raise UsageError("explore needs a kernel whose symbols are known")
        self.every = every
        self._ranges = ranges_of(store, target.kernel, names)
        if not self._ranges:
            raise UsageError(f"the kernel has none of the functions {', '.join(names)}")
        size = MachineSize(memory=memory, cpus=cpus_for(operations))
        self._warmth = Warmth(target, store, size, instrument=instrument_of(store, self._ranges, memory))
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._ready: list[tuple[ExitStack, Stage]] = []
        self._points: Points | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._ready:
            self._ready.pop()[0].close()

    @contextmanager
    def stage(self) -> Iterator[Stage]:
        """Give a guest on which interleavings can be stated; one that was left without an error is used again."""
        with self._lock:
            opened = self._ready.pop() if self._ready else None
        if opened is None:
            with ExitStack() as opening:
                made = opening.enter_context(staged(self._warmth))
                opened = opening.pop_all(), made
        with opened[0] as machine:
            yield opened[1]
            with self._lock:
                self._ready.append((machine.pop_all(), opened[1]))

    def stop(self) -> None:
        """Have whoever explores end after the interleaving that is being tried."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more is to be tried."""
        return self._stopped.is_set()

    def points(self, stage: Stage) -> Points:
        """Return where operations can be held, as STAGE, one of its guests, has them."""
        with self._lock:
            if self._points is None:
                self._points = Points(stage.schedule.kernel, self._ranges, all_of_them=self.every)
            return self._points


class Exploration:
    """Tries interleavings of OPERATIONS on GROUND; results go to FILE, and to SAY as they come."""

    def __init__(
        self, ground: Ground, operations: Sequence[Operation], file: Path, say: Callable[[Trial], None]
    ) -> None:
        self._ground = ground
        self._operations = tuple(operations)
        self._file = file
        self._say = say
        self._lock = threading.Lock()
        #: What the operations come to one behind the other, in words, by the order in which they are told.
        self.serial: dict[tuple[str, ...], set[str]] = {}
        #: The findings among those: the orders in which they end the kernel, or damage something.
        self.disorders: dict[Key, Trial] = {}
        self._points: Points | None = None
        self._covered: set[Key] = set()

    def prepare(self, known: Iterable[Trial] = ()) -> list[Interleaving]:
        """Return the interleavings of one preemption; what serial orders allow is learnt on the occasion.

        Of those that come to the same as one that is KNOWN none is tried, and no order is that is KNOWN to end the
        kernel; where all do, there is nothing to be held to, and nothing to interleave.
        """
        for trial in known:
            self._learn(trial)
        ways = deque((order, made) for order in orders(self._operations) for made in permutations(range(len(order))))
        held: list[Candidate] | None = None
        while held is None or ways:
            with suppress(_SpoiltError), self._ground.stage() as stage:
                if held is None:
                    stage.demand(*self._operations)
                    self._points = self._ground.points(stage)
                    held = self._points.marked(stage.executed_by(self._operations, 0))
                self._learn_serial_orders(stage, ways)
        write_extent(self._file, _names(self._operations), held)
        return [
            Interleaving(order, (point,)) for order in orders(self._operations) if self._serial(order) for point in held
        ]

    def _serial(self, order: Sequence[Operation]) -> set[str]:
        return self.serial.setdefault(_names(order), set())

    def _learn_serial_orders(self, stage: Stage, ways: deque[tuple[tuple[Operation, ...], tuple[int, ...]]]) -> None:
        """Make the operations in each of WAYS, one behind the other; raises _SpoiltError behind one that is deadly."""
        while ways:
            if self._ground.is_stopped:
                raise KeyboardInterrupt
            order, made = ways.popleft()
            known = self.disorders.get((_names([order[number] for number in made]), ()))
            if known is not None and known.verdict.is_deadly:
                continue
            said, finding = attempt_serially(stage, order, made)
            self._serial(order).update(said)
            if finding is not None:
                self._note(replace(finding, kernel=stage.identity), [])
                raise _SpoiltError

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
        if not trial.points:
            self.disorders[trial.key] = trial
        elif trial.verdict not in {Verdict.LOST, Verdict.UNREACHED} and not self._ground.every:
            self._covered |= set(trial.alike)

    def run(self, todo: Sequence[Interleaving], workers: int, until: float, number: int = 0) -> list[Trial]:
        """Try TODO, or NUMBER of them, with WORKERS machines until the moment UNTIL; return what came of them.

        Raises what a worker failed of, if all did.
        """
        waiting: queue.SimpleQueue[Interleaving] = queue.SimpleQueue()
        for each in todo:
            waiting.put(each)
        done: list[Trial] = []
        failures: list[BaseException] = []

        def is_over() -> bool:
            return self._ground.is_stopped or time.monotonic() >= until or (number > 0 and len(done) >= number)

        def work() -> None:
            try:
                while not waiting.empty() and not is_over():
                    self._use_one_guest(waiting, is_over, done)
            except BaseException as error:
                failures.append(error)

        side_by_side(work, workers, self._ground.stop, "explorer")
        if failures and not done:
            raise failures[0]
        return done

    def _use_one_guest(
        self, waiting: queue.SimpleQueue[Interleaving], is_over: Callable[[], bool], done: list[Trial]
    ) -> None:
        """Try interleavings on a fresh guest until one of them has spoilt it."""
        with suppress(_SpoiltError), self._ground.stage() as stage:
            while not is_over():
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

# SPDX-License-Identifier: BSD-2-Clause
"""Many interleavings of a pair of operations, by several machines side by side; what is known is not tried again."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.explore.candidates import (
    Candidate,
    candidates,
    executed_addresses,
    instrument_of,
    ranges_of,
)
from harness.explore.operations import Operation
from harness.explore.trial import Stage, Trial, Verdict, attempt, serial_outcomes
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import MachineSize
from harness.machine.executed import Instrument
from harness.processes.session import Session, Warmth
from harness.races.points import relative_line
from harness.races.schedule import Schedule
from harness.store import Store

_CPUS = 4  # the hub's, one for each operation, and one for what else has to run


@dataclass(frozen=True)
class Pair:
    """Two operations, the first of which is held."""

    first: Operation
    second: Operation

    @property
    def name(self) -> str:
        """Return it as a word that a file may have."""
        return "--".join(each.name.replace("/", "_").replace("::", ".") for each in (self.first, self.second))


@contextmanager
def staged(warmth: Warmth) -> Iterator[Stage]:
    """Give a pristine guest from WARMTH on which interleavings can be stated."""
    with Session.resume(warmth) as session, Schedule(session.guest, session.hub, session.hub.spawn()) as schedule:
        yield Stage(session, schedule)


def read_trials(file: Path) -> dict[tuple[str, str, str], Trial]:
    """Return what FILE has, the last of each."""
    found: dict[tuple[str, str, str], Trial] = {}
    with suppress(FileNotFoundError):
        for line in file.read_text().splitlines():
            with suppress(ValueError, KeyError, TypeError):  # written by halves
                trial = Trial.from_json(line)
                found[trial.first, trial.second, trial.point] = trial
    return found


class Exploration:
    """Tries the interleavings of PAIR on TARGET with WORKERS machines; results go to FILE, and to SAY as they come."""

    def __init__(
        self,
        target: DragonFlyTarget,
        store: Store,
        pair: Pair,
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
        self._pair = pair
        self._file = file
        self._say = say
        self._every = every
        self._ranges = ranges_of(store, target.kernel, names)
        if not self._ranges:
            raise UsageError(f"the kernel has none of the functions {', '.join(names)}")
        size = MachineSize(memory=memory, cpus=_CPUS)
        self._warmth = Warmth(target, store, size)
        self._instrument: Instrument = instrument_of(store, self._ranges)
        self._watched = Warmth(target, store, size, instrument=self._instrument)
        self._lock = threading.Lock()
        #: What the operations come to one behind the other, in words.
        self.serial: frozenset[str] = frozenset()

    def prepare(self) -> list[Candidate]:
        """Return where the first operation is held; what serial orders allow is learnt on the occasion."""
        with staged(self._watched) as stage:
            stage.demand(self._pair.first, self._pair.second)
            self.serial = serial_outcomes(stage, self._pair.first, self._pair.second)
            executed = executed_addresses(stage, self._pair.first, self._pair.second, self._instrument.ranges)
            return candidates(stage.schedule.kernel, self._ranges, executed, all_of_them=self._every)

    def run(self, points: Sequence[Candidate], workers: int, until: float) -> list[Trial]:
        """Try POINTS until the moment UNTIL; return what came of them.  Raises what a worker failed of, if all did."""
        waiting: queue.SimpleQueue[Candidate] = queue.SimpleQueue()
        for point in points:
            waiting.put(point)
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

    def _use_one_guest(self, waiting: queue.SimpleQueue[Candidate], until: float, done: list[Trial]) -> None:
        """Try points on a fresh guest until one of them has spoilt it."""
        point: Candidate | None = None
        with suppress(_SpoiltError), staged(self._warmth) as stage:
            while time.monotonic() < until:
                try:
                    point = waiting.get_nowait()
                except queue.Empty:
                    return
                trial, sound = attempt(stage, self._pair.first, self._pair.second, point.name, self.serial)
                trial = replace(trial, place=point.place, kernel=stage.identity)
                if trial.verdict.is_finding:
                    trial = replace(trial, line=relative_line(stage.schedule.kernel, point.address))
                if trial.verdict.is_finding and sound:
                    trial = self._again(stage, trial)
                    sound = not trial.verdict.is_finding or trial.verdict is Verdict.ANOMALY
                self._note(trial, done)
                if not sound:
                    raise _SpoiltError

    def _again(self, stage: Stage, trial: Trial) -> Trial:
        """Return TRIAL with how often it was seen, tried once more; one that does not come again is told so."""
        again, _ = attempt(stage, self._pair.first, self._pair.second, trial.point, self.serial)
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


def spread(points: Sequence[Candidate], number: int) -> list[Candidate]:
    """Return NUMBER of POINTS, spread over all of them, in an order that has early ones everywhere; all for 0."""
    chosen = sorted(points, key=lambda each: hashlib.sha256(each.name.encode()).digest())
    return chosen[:number] if number else chosen

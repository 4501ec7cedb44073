# SPDX-License-Identifier: BSD-2-Clause
"""Operations are made on a guest, one behind the other or interleaved, and what comes of it is judged."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

from harness.errors import GuestDeadlineError, HarnessError, UsageError
from harness.explore.candidates import Points
from harness.explore.operations import Operation, Scene
from harness.explore.trial import Step, Trial, Verdict
from harness.guests.guest import GuestHangError, KernelPanicError
from harness.machine.executed import EXECUTED, PASSED
from harness.machine.qemu import Machine
from harness.processes import GuestError, Hub, Pending, ProcessGone
from harness.processes.session import Session
from harness.races.points import Point, name_of
from harness.races.schedule import Driven, NotSchedulableError, Schedule, Stand

if TYPE_CHECKING:
    from harness.machine.executed import Notes, Touched

_DEADLINE = 4.0  # s of the guest's time, for a call to return or to wait
_PATIENCE = 10.0  # s for processes that are killed to end
_REST = 1.0  # s of the guest's time, for who was killed to end
_RESTS, _LOOK_EVERY = 2, 0.005  # s; so often in a row no CPU must be found with anything to do
_LEAK_PATIENCE = 0.6  # s in which what ended processes had is given back
_BETWEEN = " / "  # results, in words
_GONE, _STOPPED = "gone", "stopped"  # said of whoever is not told a result
_COUNTED = ("M_PROC", "M_PGRP", "M_SESSION", "M_LWP")


def cpus_for(operations: int) -> int:
    """Return how many CPUs it takes to interleave so many OPERATIONS.

    Each has one of its own; there are the hub's, and one for what else has to run.
    """
    return operations + 2


@dataclass
class Noted:
    """What a machine that notes it executed: `passed` by those who were made while the first one stood.

    `alike` has, by who was held, what he passed behind his point as long as he touched nothing that others had touched
    meanwhile: to be held there for the first time comes to the same.
    """

    passed: Notes | None = None
    alike: list[Notes] = field(default_factory=list)


@dataclass(frozen=True)
class Played:
    """What was seen: the results and states in words, without pids."""

    said: str = ""
    reached: bool = True
    waited: bool = False
    notes: Noted = field(default_factory=Noted)


class _Part:
    """An operation of a scene, who makes it, and its call once that is started."""

    def __init__(self, column: int, operation: Operation, who: Driven) -> None:
        self.column = column
        self.operation = operation
        self.who = who
        self.call: Pending[Any] | None = None
        self.is_told = False

    @property
    def has_answered(self) -> bool:
        """Whether it was told what it came to: who stands then does so behind it, in what the answer takes."""
        return self.call is not None and self.call.done and not self.call.gone

    def start(self, scene: Scene) -> None:
        """Make it; nothing happens where whoever makes it is gone already: another operation may end him."""
        try:
            self.call = self.operation.start(self.who, scene)
        except ProcessGone:
            self.call = None


class Stage:
    """A guest on which interleavings of operations are tried, one after the other."""

    def __init__(self, session: Session, schedule: Schedule) -> None:
        self._session = session
        self.schedule = schedule
        self._hub: Hub = session.hub
        self._hub.deadline = _PATIENCE
        self._kernel = session.guest.kernel
        self._counts: dict[str, int] = {}
        self._began = 0.0
        self._scene: Scene | None = None
        self._steps: list[tuple[Step, tuple[int, ...]]] = []

    @property
    def identity(self) -> str:
        """Its kernel, in its own words."""
        return self._session.guest.identity

    def demand(self, *operations: Operation) -> None:
        """Raise UsageError when the kernel lacks what one of OPERATIONS takes."""
        for each in operations:
            if each.feature and not self._session.facts.has(each.feature):
                raise UsageError(f"this kernel has no {each.feature}, which {each.name} takes")

    def executed_by(self, operations: Sequence[Operation], which: int) -> Notes:
        """Return what the machine executes while the one of OPERATIONS at WHICH is made alone, where others might be.

        Raises UsageError of a machine that notes nothing.
        """
        execution = self._session.guest.machine.execution
        if execution is None:
            raise UsageError("this machine notes nothing of what it executes")
        scene, parts = self._set(operations)
        execution.take()
        self._one_by_one(scene, [parts[which]])
        notes = execution.take()
        self.clear()
        return notes

    def _set(self, operations: Sequence[Operation]) -> tuple[Scene, list[_Part]]:
        """Return a fresh scene, with those who make OPERATIONS, ready to."""
        init = self._hub.spawn()
        self.schedule.forget()
        scene = Scene.set(init, tuple(each.name for each in operations))
        parts = [_Part(number, each, scene.actor(each.who)) for number, each in enumerate(operations)]
        for part in parts:
            self.schedule.apart(part.who)
        # All are asked now who they are: who is traced or stopped from here on answers nobody.
        self.schedule.keep_home()
        for part in parts:
            part.operation.prepare(part.who, scene)
        return scene, parts

    def serially(self, operations: Sequence[Operation], order: Iterable[int]) -> Played:
        """Make OPERATIONS one behind the other in ORDER.  Raises what the guest's death raises."""
        scene, parts = self._set(operations)
        made = [parts[number] for number in order]
        for column, part in enumerate(made):
            part.column = column
        self._one_by_one(scene, made)
        return self._ended(scene, parts)

    def _one_by_one(self, scene: Scene, parts: Sequence[_Part]) -> None:
        self._begin_steps(scene)
        for part in parts:
            self._start(part, scene)
            self._rest(part)

    def play(self, operations: Sequence[Operation], points: Sequence[Point]) -> Played:
        """Hold the first of OPERATIONS at the first of POINTS while the others are made; then it goes on.

        With a second point the second of them is held there meanwhile; the others are made, the first goes on as far as
        it comes, and then the second does.  Raises what the guest's death raises.
        """
        scene, parts = self._set(operations)
        stands = [self.schedule.arm(part.who, point) for part, point in zip(parts, points, strict=False)]
        watch = _Watch(self._session.guest.machine)
        waited = False
        self._begin_steps(scene)
        for number, (part, stand) in enumerate(zip(parts, stands, strict=False)):
            self._start(part, scene)
            if not self._arrives(part, stand):
                waited = number > 0 and part.call is not None and not part.call.done
                self._let_all_go(parts, stands)
                return Played(reached=False, waited=waited)
            watch.stands(number, stand.cpu)
            self._note(part, f"stands at {stand.name}", (stand.address, *stand.callers))
        for part in parts[len(stands) :]:
            self._start(part, scene)
            waited |= not self._rest(part)
        if any(part.has_answered for part, _ in zip(parts, stands, strict=False)):
            self._let_all_go(parts, stands)
            return Played(reached=False)
        for number, stand in enumerate(stands):
            watch.goes_on(number, stand.address)
            self._note(parts[number], "goes on")
            stand.let_go()
            came_far = self._rest(parts[number])
            waited |= not came_far and number < len(stands) - 1
        noted = watch.end()
        self._let_all_go(parts, stands)
        return self._ended(scene, parts, waited=waited, notes=noted)

    def _arrives(self, part: _Part, stand: Stand) -> bool:
        return part.call is not None and self.schedule.arrives(stand, part.call, part.who, deadline=_DEADLINE)

    def _let_all_go(self, parts: Sequence[_Part], stands: Sequence[Stand]) -> None:
        for stand in stands:
            stand.let_go()
        for part in parts:
            self._rest(part)

    def _rest(self, part: _Part) -> bool:
        """Return when PART has come to its end or waits; tell whether it has come to its end."""
        if part.call is None:
            return True
        ended = self.schedule.settle(part.call, part.who, deadline=_DEADLINE, ended=True)
        if not part.is_told:
            assert self._scene is not None
            self._note(part, f"has ended: {_came_to(part, self._scene)}" if ended else self._waiting(part))
            part.is_told = ended
        return ended

    # What happens, step by step

    def _begin_steps(self, scene: Scene) -> None:
        self._scene, self._began = scene, time.monotonic()
        self._steps.clear()

    def _start(self, part: _Part, scene: Scene) -> None:
        part.start(scene)
        self._note(part, f"begins: {part.call.call.text}" if part.call is not None else "is gone already")

    def _waiting(self, part: _Part) -> str:
        return self.schedule.waits_for(part.who)

    def _ended(
        self, scene: Scene, parts: Sequence[_Part], *, waited: bool = False, notes: Noted | None = None
    ) -> Played:
        """Return what SCENE has come to, once whoever was killed in it has ended."""
        self._come_to_rest()
        try:
            state = scene.state()
        except ProcessGone:  # the parent of all is nobody's target
            state = "init is gone"
        said = _BETWEEN.join([*(_came_to(part, scene) for part in parts), state])
        return Played(scene.named(said), waited=waited, notes=notes or Noted())

    def _come_to_rest(self) -> None:
        """Return when no CPU has anything to do, so that who was killed has ended; or after a while."""
        patience, quiet = self.schedule.patience(_REST), 0
        while quiet < _RESTS and not patience.is_over():
            quiet = quiet + 1 if self.schedule.idles() else 0
            time.sleep(_LOOK_EVERY)

    def _note(self, part: _Part, what: str, chain: tuple[int, ...] = ()) -> None:
        if self._scene is not None:
            seconds = round(time.monotonic() - self._began, 3)
            self._steps.append((Step(part.column, self._scene.named(what), seconds), chain))

    def steps(self) -> tuple[Step, ...]:
        """Return what the last interleaving was, also of a guest that has died of it."""
        return tuple(replace(step, where=tuple(map(self._named, chain))) for step, chain in self._steps)

    def _named(self, address: int) -> str:
        line = self._kernel.source_line(address)
        return name_of(self._kernel, address) + (f"  {line}" if line else "")

    def clear(self) -> None:
        """End all processes; raises GuestDeadlineError for those that do not end."""
        self._hub.kill_all()
        self._hub.await_reaped()

    def damage(self) -> tuple[Verdict, str] | None:
        """Return what is not as it was in the kernel when all processes have ended."""
        if self._kernel.has_debug_file and self._kernel.look() and (broken := self._kernel.violations()):
            return Verdict.INVARIANT, "; ".join(broken)
        patience = self.schedule.patience(_LEAK_PATIENCE)
        while True:
            now = {kind: self._kernel.allocations(kind) for kind in _COUNTED if self._kernel.has(kind)}
            more = {kind: count - self._counts.get(kind, count) for kind, count in now.items()}
            if not any(count > 0 for count in more.values()):
                self._counts = now
                return None
            if patience.is_over():
                self._counts = now
                return Verdict.LEAK, ", ".join(f"{count} more {kind}" for kind, count in more.items() if count > 0)
            time.sleep(0.05)  # it is the guest's time that must pass


class _Watch:
    """Notes what those of an interleaving execute and touch on MACHINE, if that is noted."""

    def __init__(self, machine: Machine) -> None:
        execution = machine.execution
        self._execution = execution if execution is not None and execution.touched is not None else None
        self._instrument = machine.description.instrument
        self._before: list[Notes] = []
        self._noted = Noted()
        self._touched: Touched | None = None
        if self._execution is not None:
            self._touched = self._execution.touched
            self._execution.take()

    def stands(self, number: int, cpu: int) -> None:
        """Note from now on what is touched by others than CPU, on which the one of NUMBER stands."""
        if self._execution is None or self._touched is None:
            return
        if number == 0:
            self._touched.forget()
        self._before.append(self._execution.take())
        self._touched.note(number, cpu)

    def goes_on(self, number: int, address: int) -> None:
        """Compare from now on what is touched by the one of NUMBER, who stood at ADDRESS."""
        if self._execution is None or self._touched is None or self._instrument is None:
            return
        if number == 0:
            taken = self._execution.take()
            self._noted.passed = taken | self._before[1] if len(self._before) > 1 else taken
        self._touched.compare(number, self._instrument.place_of(address))

    def end(self) -> Noted:
        """Return what was noted.

        Whoever waits for what one who stands has touches that again and again: it comes to the same until it is let go.
        """
        if self._execution is None or self._touched is None:
            return self._noted
        self._touched.end()
        notes = self._execution.take()
        self._noted.alike = [
            (notes & mark) * ((before & EXECUTED) == 0) for before, mark in zip(self._before, PASSED, strict=False)
        ]
        return self._noted


def _came_to(part: _Part, scene: Scene) -> str:
    operation, call = part.operation, part.call
    if call is None:
        return f"{operation.name}: {_GONE}"
    if not call.done:
        without = _GONE if scene.has_ended(part.who) else _STOPPED if part.who.pid in scene.stopped else "waits"
        return f"{operation.name}: {without}"
    try:
        return f"{operation.name}: {operation.say(call.outcome(), scene)}"
    except GuestError as error:
        return f"{operation.name}: {error.name}"
    except ProcessGone:
        return f"{operation.name}: {_GONE}"


def is_serial(said: str, serial: Iterable[str]) -> bool:
    """Tell whether what is SAID that operations came to is one of what SERIAL orders do.

    Whoever is killed or stopped in the middle of his call is not told what it came to, although it may have come to
    something.
    """
    parts = said.split(_BETWEEN)

    def fits(part: str, other: str) -> bool:
        name = other.partition(":")[0]
        return part in (other, f"{name}: {_GONE}", f"{name}: {_STOPPED}")

    alternatives = [each.split(_BETWEEN) for each in serial]
    return any(len(each) == len(parts) and all(map(fits, parts, each)) for each in alternatives)


def serial_outcomes(stage: Stage, operations: Sequence[Operation], times: int = 2) -> frozenset[str]:
    """Return what OPERATIONS come to one behind the other, in every order, each tried TIMES."""
    found = set()
    for _ in range(times):
        for order in permutations(range(len(operations))):
            found.add(stage.serially(operations, order).said)
            stage.clear()
    return frozenset(found)


def attempt_serially(
    stage: Stage, operations: Sequence[Operation], order: Sequence[int], times: int = 2
) -> tuple[set[str], Trial | None]:
    """Return what OPERATIONS come to one behind the other in ORDER, tried TIMES, and what speaks against the kernel.

    That is what the guest died of, or what is not as it was; it cannot be used any more then.  Raises HarnessError of a
    guest that was lost.
    """
    began = time.monotonic()
    said: set[str] = set()
    try:
        for _ in range(times):
            said.add(stage.serially(operations, order).said)
            stage.clear()
        found = stage.damage()
    except HarnessError as error:
        found = _death(error)
        if not found[0].is_finding:
            raise
    if found is None:
        return said, None
    first, second, third = [*(operations[number].name for number in order), ""][:3]
    seconds = round(time.monotonic() - began, 3)
    return said, Trial(first, second, "", *found, seconds=seconds, third=third, steps=stage.steps())


def attempt(
    stage: Stage,
    operations: Sequence[Operation],
    points: Sequence[str],
    serial: Collection[str],
    known: Points | None = None,
) -> tuple[Trial, bool]:
    """Return what came of one interleaving, and whether the guest can be used for another one.

    Of the KNOWN points it says which others come to the same.
    """
    began = time.monotonic()

    def trial(verdict: Verdict, said: str = "") -> Trial:
        seconds = round(time.monotonic() - began, 3)
        first, second, third = [*(each.name for each in operations), ""][:3]
        then = points[1] if len(points) > 1 else ""
        found = Trial(first, second, points[0], verdict, said, seconds=seconds, third=third, then=then)
        return replace(found, steps=stage.steps()) if verdict.is_finding else found

    try:
        played = stage.play(operations, points)
        stage.clear()
        if not played.reached:
            return replace(trial(Verdict.UNREACHED), waited=played.waited), True
        damage = stage.damage()
        if damage is not None:
            found = trial(*damage)
        elif not is_serial(played.said, serial):
            found = trial(Verdict.ANOMALY, _difference(played.said, serial))
        else:
            found = trial(Verdict.SERIAL)
        found = replace(found, waited=played.waited)
        return found if known is None else _with_notes(found, played.notes, known), damage is None
    except HarnessError as error:
        return trial(*_death(error)), False


def _death(error: HarnessError) -> tuple[Verdict, str]:
    """Return what ERROR, after which a guest is not used any more, says of its kernel."""
    if isinstance(error, KernelPanicError):
        return Verdict.PANIC, f"{error.headline}\n{error.evidence}"
    if isinstance(error, GuestHangError | GuestDeadlineError):
        return Verdict.HANG, str(error)
    return Verdict.STUCK if isinstance(error, NotSchedulableError) else Verdict.LOST, str(error)


def _with_notes(trial: Trial, notes: Noted, known: Points) -> Trial:
    """Return TRIAL with what NOTES say about the points KNOWN."""
    marked = [known.marked(marks, mark) for marks, mark in zip(notes.alike, PASSED, strict=False)]
    covers = [tuple(each.name for each in some) for some in marked]
    passed = known.marked(notes.passed) if notes.passed is not None and not trial.then else []
    return replace(
        trial,
        covers=next(iter(covers), ()),
        then_covers=covers[1] if len(covers) > 1 else (),
        passed=tuple(each.name for each in passed),
    )


def _difference(said: str, serial: Collection[str]) -> str:
    return f"{said}\nserial: " + "\nserial: ".join(sorted(serial))


def attempt_on(stage: Stage, operations: Sequence[Operation], each_at: Iterable[Sequence[str]]) -> None:
    """Make an interleaving for each of EACH_AT, its points.

    Raises AssertionError for what is not right, and what a death raises.
    """
    serial = serial_outcomes(stage, operations)
    damage = stage.damage()
    assert damage is None, f"one behind the other: {damage[0]}: {damage[1]}"
    for points in each_at:
        played = stage.play(operations, points)
        stage.clear()
        damage = stage.damage()
        held = ", ".join(f"{each.name} at {point}" for each, point in zip(operations, points, strict=False))
        assert damage is None, f"{held}: {damage[0]}: {damage[1]}"
        fine = not played.reached or is_serial(played.said, serial)
        assert fine, f"{held}: {_difference(played.said, serial)}"

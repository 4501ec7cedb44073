# SPDX-License-Identifier: BSD-2-Clause
"""Operations are made on a guest, one behind the other or interleaved, and what comes of it is judged."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

from harness.errors import GuestDeadlineError, HarnessError, UsageError
from harness.explore.operations import Operation, Scene
from harness.explore.trial import Trial, Verdict
from harness.guests.guest import GuestHangError, KernelPanicError
from harness.processes import GuestError, Hub, Pending, ProcessGone
from harness.processes.session import Session
from harness.races.points import Point
from harness.races.schedule import Driven, NotSchedulableError, Schedule, Stand

if TYPE_CHECKING:
    from harness.machine.executed import Notes

_DEADLINE = 4.0  # s of the guest's time, for a call to return or to wait
_PATIENCE = 10.0  # s for processes that are killed to end
_LEAK_PATIENCE = 0.6  # s in which what ended processes had is given back
_COUNTED = ("M_PROC", "M_PGRP", "M_SESSION", "M_LWP")


def cpus_for(operations: int) -> int:
    """Return how many CPUs it takes to interleave so many OPERATIONS.

    Each has one of its own; there are the hub's, and one for what else has to run.
    """
    return operations + 2


@dataclass(frozen=True)
class Played:
    """What was seen: the results and states in words, without pids."""

    said: str = ""
    reached: bool = True
    waited: bool = False


class _Part:
    """An operation of a scene, who makes it, and its call once that is started."""

    def __init__(self, operation: Operation, who: Driven) -> None:
        self.operation = operation
        self.who = who
        self.call: Pending[Any] | None = None

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
        """Return what the machine executes while the one of OPERATIONS at WHICH is made.

        That is alone, where the others might be, and behind the others.  Raises UsageError of a machine that notes
        nothing.
        """
        execution = self._session.guest.machine.execution
        if execution is None:
            raise UsageError("this machine notes nothing of what it executes")
        alone: list[int] = []
        found: Notes | None = None
        for before in (alone, [number for number in range(len(operations)) if number != which]):
            scene, parts = self._set(operations)
            self._one_by_one(scene, [parts[number] for number in before])
            execution.take()
            self._one_by_one(scene, [parts[which]])
            notes = execution.take()
            found = notes if found is None else found | notes
            self.clear()
        assert found is not None
        return found

    def _set(self, operations: Sequence[Operation]) -> tuple[Scene, list[_Part]]:
        """Return a fresh scene, with those who make OPERATIONS, ready to."""
        init = self._hub.spawn()
        self.schedule.forget()
        scene = Scene.set(init, tuple(each.name for each in operations))
        parts = [_Part(each, scene.actor(each.who)) for each in operations]
        for part in parts:
            self.schedule.apart(part.who)
        for part in parts:
            part.operation.prepare(part.who, scene)
        return scene, parts

    def serially(self, operations: Sequence[Operation], order: Iterable[int]) -> Played:
        """Make OPERATIONS one behind the other in ORDER.  Raises what the guest's death raises."""
        scene, parts = self._set(operations)
        self._one_by_one(scene, [parts[number] for number in order])
        return _ended(scene, parts)

    def _one_by_one(self, scene: Scene, parts: Sequence[_Part]) -> None:
        for part in parts:
            part.start(scene)
            self._rest(part)

    def play(self, operations: Sequence[Operation], points: Sequence[Point]) -> Played:
        """Hold the first of OPERATIONS at the first of POINTS while the others are made; then it goes on.

        With a second point the second of them is held there meanwhile; the others are made, the first goes on as far as
        it comes, and then the second does.  Raises what the guest's death raises.
        """
        scene, parts = self._set(operations)
        stands = [self.schedule.arm(part.who, point) for part, point in zip(parts, points, strict=False)]
        waited = False
        for part, stand in zip(parts, stands, strict=False):
            part.start(scene)
            if not self._arrives(part, stand):
                waited = part is not parts[0] and part.call is not None and not part.call.done
                self._let_all_go(parts, stands)
                return Played(reached=False, waited=waited)
        for part in parts[len(stands) :]:
            part.start(scene)
            waited |= not self._rest(part)
        for number, stand in enumerate(stands):
            stand.let_go()
            came_far = self._rest(parts[number])
            waited |= not came_far and number < len(stands) - 1
        self._let_all_go(parts, stands)
        return _ended(scene, parts, waited=waited)

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
        return self.schedule.settle(part.call, part.who, deadline=_DEADLINE, ended=True)

    def clear(self) -> None:
        """End all processes; raises GuestDeadlineError for those that do not end."""
        self._hub.kill_all()
        self._hub.await_reaped()

    def damage(self) -> tuple[Verdict, str] | None:
        """Return what is not as it was in the kernel when all processes have ended."""
        if self._kernel.has_debug_file and self._kernel.look() and (broken := self._kernel.violations()):
            return Verdict.INVARIANT, "; ".join(broken)
        end = time.monotonic() + _LEAK_PATIENCE
        while True:
            now = {kind: self._kernel.allocations(kind) for kind in _COUNTED if self._kernel.has(kind)}
            more = {kind: count - self._counts.get(kind, count) for kind, count in now.items()}
            if not any(count > 0 for count in more.values()):
                self._counts = now
                return None
            if time.monotonic() > end:
                self._counts = now
                return Verdict.LEAK, ", ".join(f"{count} more {kind}" for kind, count in more.items() if count > 0)
            time.sleep(0.05)  # it is the guest's time that must pass


def _ended(scene: Scene, parts: Sequence[_Part], *, waited: bool = False) -> Played:
    said = " / ".join([*(_came_to(part.operation, part.call) for part in parts), scene.state()])
    return Played(scene.named(said), waited=waited)


def _came_to(operation: Operation, call: Pending[Any] | None) -> str:
    if call is None:
        return f"{operation.name}: gone"
    if not call.done:
        return f"{operation.name}: waits"
    try:
        return f"{operation.name}: {operation.say(call.outcome())}"
    except GuestError as error:
        return f"{operation.name}: {error.name}"
    except ProcessGone:
        return f"{operation.name}: gone"


def serial_outcomes(stage: Stage, operations: Sequence[Operation], times: int = 2) -> frozenset[str]:
    """Return what OPERATIONS come to one behind the other, in every order, each tried TIMES."""
    found = set()
    for _ in range(times):
        for order in permutations(range(len(operations))):
            found.add(stage.serially(operations, order).said)
            stage.clear()
    stage.damage()
    return frozenset(found)


def attempt(
    stage: Stage, operations: Sequence[Operation], points: Sequence[str], serial: Collection[str]
) -> tuple[Trial, bool]:
    """Return what came of one interleaving, and whether the guest can be used for another one."""
    began = time.monotonic()

    def trial(verdict: Verdict, said: str = "", *, waited: bool = False) -> Trial:
        seconds = round(time.monotonic() - began, 3)
        first, second, third = [*(each.name for each in operations), ""][:3]
        then = points[1] if len(points) > 1 else ""
        return Trial(first, second, points[0], verdict, said, waited=waited, seconds=seconds, third=third, then=then)

    try:
        played = stage.play(operations, points)
        stage.clear()
        if not played.reached:
            return trial(Verdict.UNREACHED, waited=played.waited), True
        if (damage := stage.damage()) is not None:
            return trial(*damage, waited=played.waited), False
        if played.said not in serial:
            return trial(Verdict.ANOMALY, _difference(played.said, serial), waited=played.waited), True
        return trial(Verdict.SERIAL, waited=played.waited), True
    except KernelPanicError as error:
        return trial(Verdict.PANIC, f"{error.headline}\n{error.evidence}"), False
    except (GuestHangError, GuestDeadlineError) as error:
        return trial(Verdict.HANG, str(error)), False
    except NotSchedulableError as error:
        return trial(Verdict.STUCK, str(error)), False
    except HarnessError as error:
        return trial(Verdict.LOST, str(error)), False


def _difference(said: str, serial: Collection[str]) -> str:
    return f"{said}\nserial: " + "\nserial: ".join(sorted(serial))


def attempt_on(stage: Stage, operations: Sequence[Operation], each_at: Iterable[Sequence[str]]) -> None:
    """Make an interleaving for each of EACH_AT, its points.

    Raises AssertionError for what is not right, and what a death raises.
    """
    serial = serial_outcomes(stage, operations)
    for points in each_at:
        played = stage.play(operations, points)
        stage.clear()
        damage = stage.damage()
        held = ", ".join(f"{each.name} at {point}" for each, point in zip(operations, points, strict=False))
        assert damage is None, f"{held}: {damage[0]}: {damage[1]}"
        fine = not played.reached or played.said in serial
        assert fine, f"{held}: {_difference(played.said, serial)}"

# SPDX-License-Identifier: BSD-2-Clause
"""One interleaving: an operation is held at a point while another is made, and what comes of it is judged."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from harness.errors import GuestDeadlineError, GuestLostError, HarnessError, UsageError
from harness.explore.operations import Operation, Scene
from harness.guests.guest import GuestHangError, KernelPanicError
from harness.processes import GuestError, Hub, Pending, ProcessGone
from harness.processes.session import Session
from harness.races.points import Point
from harness.races.schedule import Driven, NotSchedulableError, Schedule

if TYPE_CHECKING:
    from harness.machine.executed import Notes

_DEADLINE = 4.0  # s of the guest's time, for a call to return or to wait
_PATIENCE = 10.0  # s for processes that are killed to end
_LEAK_PATIENCE = 0.6  # s in which what ended processes had is given back
_COUNTED = ("M_PROC", "M_PGRP", "M_SESSION", "M_LWP")


class Verdict(StrEnum):
    """What an interleaving came to, the gravest first."""

    PANIC = "panic"
    HANG = "hang"
    INVARIANT = "invariant"
    LEAK = "leak"
    STUCK = "stuck"
    ANOMALY = "anomaly"
    SERIAL = "serial"
    UNREACHED = "unreached"
    LOST = "lost"

    @property
    def is_finding(self) -> bool:
        """Whether it speaks against the kernel, or may."""
        return self not in {Verdict.SERIAL, Verdict.UNREACHED, Verdict.LOST}


@dataclass(frozen=True)
class Trial:
    """What came of holding operation `first` at `point` while `second` was made.

    `waited` tells that `second` waited for what `first` had; `place` is the point's source line where that is known,
    `line` the same counted from its function's first, `kernel` the one it was tried on, in its own words.  `seen`
    counts how often it came to this.
    """

    first: str
    second: str
    point: str
    verdict: Verdict
    said: str = ""
    place: str = ""
    waited: bool = False
    seconds: float = 0.0
    seen: int = 1
    line: str = ""
    kernel: str = ""

    def to_json(self) -> str:
        """Return it as a line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return what to_json() made; raises ValueError, KeyError or TypeError for anything else."""
        given = json.loads(line)
        return cls(**{**given, "verdict": Verdict(given["verdict"])})

    def __str__(self) -> str:
        """Return it as a line for people."""
        where = f" ({self.place})" if self.place else ""
        said = f": {self.said.splitlines()[0]}" if self.said else ""
        return f"{self.verdict}: {self.first} at {self.point}{where}, meanwhile {self.second}{said}"


class Stage:
    """A guest on which interleavings of two operations are tried, one after the other."""

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

    def executed_by(self, first: Operation, second: Operation) -> Notes:
        """Return what the machine executes while FIRST is made alone, where SECOND might be.

        Raises UsageError of a machine that notes nothing.
        """
        execution = self._session.guest.machine.execution
        if execution is None:
            raise UsageError("this machine notes nothing of what it executes")
        scene, one, _ = self._set(first, second)
        execution.take()
        self._rest(first.start(one, scene), one)
        notes = execution.take()
        self.clear()
        return notes

    def _set(self, first: Operation, second: Operation) -> tuple[Scene, Driven, Driven]:
        """Return a fresh scene, with those who make FIRST and SECOND, ready to."""
        init = self._hub.spawn()
        self.schedule.forget()
        scene = Scene.set(init, (first.name, second.name))
        one, other = scene.actor(first.who), scene.actor(second.who)
        for who in (one, other):
            self.schedule.apart(who)
        first.prepare(one, scene)
        second.prepare(other, scene)
        return scene, one, other

    def play(self, first: Operation, second: Operation, point: Point | None, *, reverse: bool = False) -> Played:
        """Make FIRST, hold it at POINT while SECOND is made, and let it go on; without a point one behind the other.

        With REVERSE it is SECOND that goes first.  Raises what the guest's death raises.
        """
        scene, one, other = self._set(first, second)
        if point is None:
            order = [(second, other), (first, one)] if reverse else [(first, one), (second, other)]
            calls: dict[tuple[Operation, Driven], Pending[Any] | None] = {}
            for operation, who in order:
                calls[operation, who] = self._start(operation, who, scene)
                self._rest(calls[operation, who], who)
            return self._ended(scene, first, calls[first, one], second, calls[second, other])
        stand = self.schedule.arm(one, point)
        call = first.start(one, scene)
        if not self.schedule.arrives(stand, call, one, deadline=_DEADLINE):
            stand.let_go()
            return Played(reached=False)
        meanwhile = self._start(second, other, scene)
        waited = not self._rest(meanwhile, other)
        stand.let_go()
        for pending, who in ((call, one), (meanwhile, other)):
            self._rest(pending, who)
        return self._ended(scene, first, call, second, meanwhile, waited=waited)

    @staticmethod
    def _start(operation: Operation, who: Driven, scene: Scene) -> Pending[Any] | None:
        """Start OPERATION; return None where WHO is gone already: the other operation may end him."""
        try:
            return operation.start(who, scene)
        except ProcessGone:
            return None

    def _rest(self, call: Pending[Any] | None, who: Driven) -> bool:
        if call is None:
            return True
        return self.schedule.settle(call, who, deadline=_DEADLINE, ended=True)

    def _ended(
        self,
        scene: Scene,
        first: Operation,
        call: Pending[Any] | None,
        second: Operation,
        meanwhile: Pending[Any] | None,
        *,
        waited: bool = False,
    ) -> Played:
        said = f"{_came_to(first, call)} / {_came_to(second, meanwhile)} / {scene.state()}"
        return Played(scene.named(said), waited=waited)

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


@dataclass(frozen=True)
class Played:
    """What was seen: the results and states in words, without pids."""

    said: str = ""
    reached: bool = True
    waited: bool = False


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


def serial_outcomes(stage: Stage, first: Operation, second: Operation, times: int = 2) -> frozenset[str]:
    """Return what FIRST and SECOND come to one behind the other, in either order, each tried TIMES."""
    found = set()
    for _ in range(times):
        for reverse in (False, True):
            found.add(stage.play(first, second, None, reverse=reverse).said)
            stage.clear()
    stage.damage()
    return frozenset(found)


def attempt(
    stage: Stage, first: Operation, second: Operation, point: str, serial: frozenset[str]
) -> tuple[Trial, bool]:
    """Return what came of one interleaving, and whether the guest can be used for another one."""
    began = time.monotonic()

    def trial(verdict: Verdict, said: str = "", *, waited: bool = False) -> Trial:
        seconds = round(time.monotonic() - began, 3)
        return Trial(first.name, second.name, point, verdict, said, waited=waited, seconds=seconds)

    try:
        played = stage.play(first, second, point)
        stage.clear()
        if not played.reached:
            return trial(Verdict.UNREACHED), True
        if (damage := stage.damage()) is not None:
            return trial(*damage, waited=played.waited), False
        if played.said not in serial:
            return trial(Verdict.ANOMALY, _difference(played.said, serial), waited=played.waited), True
        return trial(Verdict.SERIAL, waited=played.waited), True
    except KernelPanicError as error:
        return trial(Verdict.PANIC, f"{error.headline}\n{error.evidence}"), False
    except GuestHangError as error:
        return trial(Verdict.HANG, str(error)), False
    except NotSchedulableError as error:
        return trial(Verdict.STUCK, str(error)), False
    except GuestDeadlineError as error:
        return trial(Verdict.HANG, str(error)), False
    except GuestLostError as error:
        return trial(Verdict.LOST, str(error)), False
    except HarnessError as error:
        return trial(Verdict.LOST, str(error)), False


def _difference(said: str, serial: Sequence[str] | frozenset[str]) -> str:
    return f"{said}\nserial: " + "\nserial: ".join(sorted(serial))


def attempt_on(stage: Stage, first: Operation, second: Operation, points: Sequence[str]) -> None:
    """Make an interleaving for each of POINTS; raises AssertionError for what is not right, and what a death raises."""
    serial = serial_outcomes(stage, first, second)
    for point in points:
        played = stage.play(first, second, point)
        stage.clear()
        damage = stage.damage()
        assert damage is None, f"{first.name} at {point}: {damage[0]}: {damage[1]}"
        fine = not played.reached or played.said in serial
        assert fine, f"{first.name} at {point}: {_difference(played.said, serial)}"

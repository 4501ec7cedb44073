# SPDX-License-Identifier: BSD-2-Clause
"""A target kept ready for tests: started on first use, replaced when it died."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from harness.errors import DeadlineError, GuestLostError, HarnessError
from harness.guests.copying import Put, put_all
from harness.guests.features import KernelFacts
from harness.guests.guest import Guest, GuestHangError, KernelPanicError, MachineSize, Progress, Target
from harness.machine.description import Lane
from harness.machine.executed import Execution, Instrument
from harness.machine.qemu import Machine
from harness.plugin.parallel import OVERHEAD, available_memory
from harness.processes import Hub, RemoteProcess
from harness.processes.session import Session, Warmth
from harness.processes.spare import Spare
from harness.store import Store

if TYPE_CHECKING:
    from harness.machine.executed import Notes


class Rig:
    """One session at a time, from the target's warm state.  A context manager: leaving it stops the machine.

    `cold` boots from power-on each time instead; `puts` are files that each guest gets.  `starts` counts how often a
    machine was needed, `failures` how often one did not resume; `lane` is where sessions are, and `size` what machines
    have at least.  `identity` (the kernel's) and `machine` (QEMU's command line) are those of the last one; `facts` are
    what is known of the kernel, None before it has run and on the control guest.
    """

    def __init__(
        self, target: Target, store: Store, size: MachineSize, *, cold: bool = False, puts: Sequence[Put] = ()
    ) -> None:
        self.target = target
        self._puts = puts
        self.starts = 0
        self.identity = ""
        self.machine = ""
        self.facts: KernelFacts | None = None
        self._cold = cold
        #: By what is to be noted, of the sessions to come, which code they execute.
        self.instrument: Instrument | None = None
        self._executions: list[tuple[Machine, Execution]] = []
        self._started: list[Notes] = []
        self._store = store
        self.size = size
        self.lane = Lane.WALL_CLOCK
        self._given = size
        self._warmths: dict[tuple[Lane, MachineSize], Warmth] = {}
        self._session: Session | None = None
        self._spare = Spare(lambda: available_memory() > size.memory + OVERHEAD)
        self._finish: Callable[[Session], None] | None = None
        #: Deaths that the last look at a guest given up showed, with that guest; who runs the tests takes them.
        self.deaths: list[tuple[Guest, GuestLostError]] = []

    def ready(self, progress: Progress = lambda _: None) -> Hub:
        """Return the hub of a guest that is well, starting one if there is none.

        Raises what Session.boot() and Session.resume() raise, and put_all().
        """
        if self._session is None:
            self._session = self.fresh(progress)
        return self._session.hub

    def _keep_spare(self) -> None:
        """Have another machine made ready, as nearly all tests want it; the others are few."""
        if not self._cold and self._finish is None:
            self._spare.prepare(self._warmth_of(Lane.WALL_CLOCK, self.size))

    def fresh(self, progress: Progress = lambda _: None) -> Session:
        """Start and return another pristine session, for the caller to close."""
        self.starts += 1
        if self._cold:
            session = Session.boot(
                self.target, self._store, self._given, progress, ahead=False, instrument=self.instrument
            )
        else:
            warmth = self._warmth_of(self.lane, self._given)
            session = self._spare.take(warmth) or Session.resume(warmth, progress)
        try:
            if self._puts:
                put_all(session.guest.ssh, self._puts)
        except BaseException:
            session.close()
            raise
        machine = session.guest.machine
        if machine.execution is not None:
            self._started.append(machine.execution.take())
            self._executions.append((machine, machine.execution))
        self.identity = session.guest.identity
        self.facts = session.facts if self.target.is_dragonfly else None
        self.machine = session.guest.machine.description.command_line()
        self._keep_spare()
        return session

    @contextmanager
    def lent(self) -> Iterator[Session]:
        """Give another pristine session to a test; raises what fresh() does, and how its guest died, if it has."""
        with self.fresh() as session:
            yield session
            session.guest.take_last_look()

    def enter(self, lane: Lane, cpus: int = 1) -> None:
        """Let sessions be in LANE from now on, and in wall-clock time with at least CPUS; one that is not so ends.

        One that is recorded goes on as it is.
        """
        size = replace(self.size, cpus=max(cpus, self.size.cpus)) if lane is Lane.WALL_CLOCK else self.size
        if (lane, size) != (self.lane, self._given) and self._finish is None:
            self.discard()
            self.lane, self._given = lane, size

    def _warmth_of(self, lane: Lane, size: MachineSize) -> Warmth:
        if (lane, size) not in self._warmths:
            self._warmths[lane, size] = Warmth(self.target, self._store, size, lane, instrument=self.instrument)
        return self._warmths[lane, size]

    def equip(self, instrument: Instrument) -> None:
        """Let it be noted by INSTRUMENT what sessions execute from now on; the present one ends."""
        self.discard()
        self._warmths.clear()
        self.instrument = instrument

    def started(self) -> list[Notes]:
        """Return what machines have executed until they were ready, of those that have been started since last time."""
        taken, self._started = self._started, []
        return taken

    def executed(self) -> list[Notes]:
        """Return what its machines, those that have gone included, have executed since the last time, once ready."""
        taken = [execution.take() for _, execution in self._executions]
        self._executions = [each for each in self._executions if each[0].pid is not None]
        return taken

    def size_in(self, lane: Lane) -> MachineSize:
        """Return the size of its machines in LANE."""
        return self.size if lane is Lane.WALL_CLOCK else replace(self.size, cpus=1)

    @contextmanager
    def recorded(self, events: Path, finish: Callable[[Session], None]) -> Iterator[None]:
        """Let the next session, and it alone, note its EVENTS; FINISH gets it, and ends it, as soon as it is spent."""
        self.discard()
        lane, self.lane = self.lane, Lane.RECORDED
        self._warmths[self.lane, self._given] = Warmth(
            self.target, self._store, self.size, self.lane, events=events, instrument=self.instrument
        )
        self._finish = finish
        try:
            yield
        finally:
            self.discard()
            self.lane, self._finish = lane, None

    @property
    def failures(self) -> int:
        """How often a warm state did not resume."""
        return sum(warmth.failures for warmth in self._warmths.values())

    @property
    def guest(self) -> Guest | None:
        """The present guest, or None before the first start and after a death."""
        return self._session.guest if self._session is not None else None

    def spawn(self, progress: Progress = lambda _: None) -> RemoteProcess:
        """Return a fresh process, leader of its own session, for one test."""
        return self.ready(progress).spawn()

    def clean(self) -> None:
        """Kill everything a test left behind.  A guest that does not survive that is given up; the next test boots.

        Raises KernelPanicError when the kernel died of it, GuestHangError when it answers no more, GuestLostError when
        the machine or the connection has gone, GuestDeadlineError when what was killed does not end, held by somebody
        for ever, DeadlineError when the machine does not answer: all of that came with the test that ends.
        """
        if self._session is None:
            return
        try:
            self._session.hub.kill_all()
            self._session.hub.await_reaped()
        except HarnessError as error:
            death = self._examine()
            self.discard(looked=True)
            if death is not None:
                raise death from None
            if isinstance(error, (DeadlineError, GuestLostError)):
                raise

    def diagnose(self) -> KernelPanicError | None:
        """Tell whether the guest's kernel has panicked."""
        death = self._last_look()
        return death if isinstance(death, KernelPanicError) else None

    def _last_look(self) -> GuestLostError | None:
        """Return how the present guest died, if its kernel has panicked or its machine has gone."""
        if self._session is None:
            return None
        try:
            self._session.guest.hear_out()
        except GuestLostError as death:
            return death
        except HarnessError:
            return None
        return None

    def _examine(self) -> HarnessError | None:
        """Return what is wrong with the present guest, which failed: also whether it hangs; None if it is well.

        What is no GuestLostError is the machine's, of which nobody can tell how its guest is.
        """
        if (death := self._last_look()) is not None or self._session is None:
            return death
        try:
            self._session.guest.probe()
        except HarnessError as found:
            return found
        return None

    def give_up(self) -> None:
        """Stop a guest that failed between two tests; whether it died or hangs is found out first, and noted."""
        guest, death = self.guest, self._examine()
        if hangs := guest is not None and isinstance(death, GuestHangError):
            self.deaths.append((guest, death))
        self.discard(looked=hangs)  # one that only a busy host keeps from answering has done nothing

    def discard(self, *, looked: bool = False) -> None:
        """Stop the present guest, after a last look, unless it was LOOKED at: a death nobody noticed is noted."""
        if not looked and self.guest is not None and (death := self._last_look()) is not None:
            self.deaths.append((self.guest, death))
        session, self._session = self._session, None
        if session is not None and self._finish is not None:
            finish, self._finish = self._finish, None
            self.lane = Lane.WALL_CLOCK  # a second machine would overwrite what the first one noted
            finish(session)
        elif session is not None:
            session.close()

    def close(self) -> None:
        """Stop the present guest, as discard() does, and the spare one."""
        try:
            self.discard()
        finally:
            self._spare.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

# SPDX-License-Identifier: BSD-2-Clause
"""Who runs next: system calls that wait, signals on their way, processes that reap by themselves.

The model executes one system call at a time.  After each one, `settle()` lets every other process do what it would do
at once on an idle machine: run its handlers, die, reap, or go on with a call that had been waiting.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from harness.oracle import delivery, signals, wait
from harness.oracle.blocking import WouldBlock
from harness.oracle.clock import SYSTEM_CALL
from harness.oracle.model import Errno, Lwp, Proc
from harness.processes.kinfo import ProcFlag, ProcStat
from harness.processes.vocabulary import SigFlag

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel


class Livelock(Exception):  # noqa: N818
    """So many calls in a row have changed nothing: whoever makes them waits for what will never happen."""


#: How many is that.  Tests poll real kernels; here nothing runs in between.
PATIENCE = 20_000


class State(Enum):
    """How far a call has come."""

    QUEUED = "queued"  # not begun: the process is stopped, blocked or busy with an earlier call
    BLOCKED = "blocked"  # sleeps in the kernel
    RETURNED = "returned"  # the kernel is through with it, the process has not got back to user mode
    DONE = "done"
    GONE = "gone"  # the process ended under it


class Call:
    """One thing a test asked a thread to do."""

    def __init__(self, lwp: Lwp, function: Callable[[], object]) -> None:
        self.lwp = lwp
        self.state = State.QUEUED
        self.value: object = None
        self.error: str | None = None
        self.restarts = False
        self._function = function

    def attempt(self) -> None:
        """Make the system call, or go on with it."""
        try:
            self.value = self._function()
        except WouldBlock as wait:
            self.state = State.BLOCKED
            self.restarts = wait.restarts
            return
        except Errno as error:
            self.error = error.name
        if self.state is not State.GONE:  # as it is after exit()
            self.state = State.RETURNED

    def interrupt(self) -> None:
        """End a blocked call with EINTR."""
        self.error = "EINTR"
        self.state = State.RETURNED


#: What one process would do now.
Move = Callable[[], object]
#: Who of several that can run does so first: takes one of the moves, None of none.
Order = Callable[[Iterator[Move]], "Move | None"]


def first(moves: Iterator[Move]) -> Move | None:
    """Take who was ready first: signals are acted upon, the dead are reaped, then calls go on."""
    return next(moves, None)


def last(moves: Iterator[Move]) -> Move | None:
    """Take who was ready last."""
    found = list(moves)
    return found[-1] if found else None


def drawn(seed: int) -> Order:
    """Return an order that draws lots."""
    lots = random.Random(seed)  # noqa: S311  (no secret)

    def draw(moves: Iterator[Move]) -> Move | None:
        found = list(moves)
        return lots.choice(found) if found else None

    return draw


class Scheduler:
    """Runs what can run."""

    def __init__(self, k: Kernel, order: Order) -> None:
        self._k = k
        self._order = order
        self._busy: dict[Lwp, None] = {}  # those with calls, in the order in which they were asked
        self._notified: dict[Lwp, None] = {}  # those with signals to look at, in the order of arrival
        self._woken: set[Lwp] = set()
        self._calls_without_effect = 0

    def submit(self, lwp: Lwp, function: Callable[[], object]) -> Call:
        """Let a thread execute FUNCTION as soon as it can; return when nothing more can happen by itself."""
        call = Call(lwp, function)
        self._calls_without_effect += 1
        if self._calls_without_effect > PATIENCE:
            self._calls_without_effect = 0
            raise Livelock
        if lwp.proc.flags & ProcFlag.P_WEXIT or lwp.proc.pid not in self._k.procs or lwp not in lwp.proc.lwps:
            call.state = State.GONE
            return call
        lwp.calls.append(call)
        self._busy[lwp] = None
        self.settle()
        return call

    def is_blocked(self, lwp: Lwp) -> bool:
        """Whether a call of a thread sleeps in the kernel."""
        return bool(lwp.calls) and lwp.calls[0].state is State.BLOCKED

    def is_notified(self, lwp: Lwp) -> bool:
        """Whether a thread is about to run, because it has a signal to look at."""
        return lwp in self._notified

    def notify(self, lwp: Lwp) -> None:
        """signotify(): a thread has a signal to look at."""
        self._calls_without_effect = 0
        self._notified[lwp] = None

    def wakeup(self, proc: Proc) -> None:
        """wakeup(): whoever sleeps on PROC has to look again."""
        self._calls_without_effect = 0
        self._woken.update(proc.lwps)

    def run_ahead(self, lwp: Lwp) -> None:
        """Let a thread return to user mode in the middle of a system call."""
        running = self._k.running
        self._notified.pop(lwp, None)
        self._in(lwp, lambda: self._return(lwp))
        self._k.running = running

    def run_others(self) -> None:
        """The present process sleeps in the middle of a system call: all who have signals to look at do so."""
        running = self._k.running
        while (move := self._order(self._deliveries())) is not None:
            move()
        self._k.running = running

    def exited(self, lwp: Lwp) -> None:
        """A thread has ended, or its process is a zombie: nobody answers its calls."""
        for call in lwp.calls:
            call.state = State.GONE
        lwp.calls.clear()
        self._busy.pop(lwp, None)
        self._notified.pop(lwp, None)

    def settle(self) -> None:
        """Run until nothing moves."""
        while (move := self._order(self._moves())) is not None:
            move()

    def _moves(self) -> Iterator[Move]:
        yield from self._deliveries()
        yield from self._reapings()
        yield from self._callings()

    def _deliveries(self) -> Iterator[Move]:
        for lwp in list(self._notified):
            if lwp.proc.flags & ProcFlag.P_WEXIT or lwp.waits_for_vfork is not None:
                del self._notified[lwp]
            else:
                yield partial(self._deliver, lwp)

    def _deliver(self, lwp: Lwp) -> None:
        del self._notified[lwp]
        self._in(lwp, lambda: self._wake(lwp))

    def _wake(self, lwp: Lwp) -> None:
        if delivery.wakes(self._k, lwp):
            self._return(lwp)

    def _reapings(self) -> Iterator[Move]:
        for proc in self._k.procs.values():
            if proc.reaps_itself:
                yield from (partial(wait.reap, self._k, child) for child in proc.children if child.is_zombie)

    def _callings(self) -> Iterator[Move]:
        for lwp in list(self._busy):
            if not lwp.calls:
                del self._busy[lwp]
                continue
            call = lwp.calls[0]
            if lwp.proc.stat is not ProcStat.SACTIVE or lwp.waits_for_vfork is not None:
                continue
            if call.state is State.RETURNED:
                yield partial(self._done, call)
            elif call.state is State.QUEUED or lwp in self._woken:
                yield partial(self._go_on, lwp, call)

    def _go_on(self, lwp: Lwp, call: Call) -> None:
        self._woken.discard(lwp)
        self._in(lwp, lambda: self._execute(lwp, call))

    def _in(self, lwp: Lwp, action: Callable[[], None]) -> None:
        self._k.running = lwp
        try:
            action()
        finally:
            self._k.running = None

    def _execute(self, lwp: Lwp, call: Call) -> None:
        self._k.clock.advance(SYSTEM_CALL)
        call.attempt()
        if not lwp.proc.flags & ProcFlag.P_WEXIT and lwp.waits_for_vfork is None:
            self._return(lwp)
            # It has a processor, so its answer is out before those it has woken run.
            if call.state is State.RETURNED and lwp.proc.stat is ProcStat.SACTIVE:
                self._done(call)

    @staticmethod
    def _done(call: Call) -> None:
        call.state = State.DONE
        call.lwp.calls.remove(call)

    def _return(self, lwp: Lwp) -> None:
        """Go back to user mode, out of a call that sleeps if a handler has to run."""
        call = lwp.calls[0] if lwp.calls else None
        if call is not None and call.state is State.BLOCKED:
            signal = signals.issignal(self._k, lwp)
            if signal and not call.restarts and SigFlag.SA_RESTART not in lwp.proc.sigacts.of(signal).flags:
                call.interrupt()
            elif signal:
                self._calls_without_effect = 0
                self._woken.add(lwp)
        delivery.return_to_user(self._k, lwp)

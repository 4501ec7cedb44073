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
from harness.oracle.model import Errno, Proc
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
    """One thing a test asked a process to do."""

    def __init__(self, proc: Proc, function: Callable[[], object]) -> None:
        self.proc = proc
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
        self._busy: dict[Proc, None] = {}  # those with calls, in the order in which they were asked
        self._notified: dict[Proc, None] = {}  # those with signals to look at, in the order of arrival
        self._woken: set[Proc] = set()
        self._calls_without_effect = 0

    def submit(self, proc: Proc, function: Callable[[], object]) -> Call:
        """Let PROC execute FUNCTION as soon as it can; return when nothing more can happen by itself."""
        call = Call(proc, function)
        self._calls_without_effect += 1
        if self._calls_without_effect > PATIENCE:
            self._calls_without_effect = 0
            raise Livelock
        if proc.is_zombie or proc.pid not in self._k.procs:
            call.state = State.GONE
            return call
        proc.calls.append(call)
        self._busy[proc] = None
        self.settle()
        return call

    def is_blocked(self, proc: Proc) -> bool:
        """Whether a call of PROC sleeps in the kernel."""
        return bool(proc.calls) and proc.calls[0].state is State.BLOCKED

    def notify(self, proc: Proc) -> None:
        """signotify(): PROC has a signal to look at."""
        self._calls_without_effect = 0
        self._notified[proc] = None

    def wakeup(self, proc: Proc) -> None:
        """wakeup(): whoever sleeps on PROC has to look again."""
        self._calls_without_effect = 0
        self._woken.add(proc)

    def run_ahead(self, proc: Proc) -> None:
        """Let PROC return to user mode in the middle of a system call."""
        current = self._k.current
        self._notified.pop(proc, None)
        self._in(proc, lambda: self._return(proc))
        self._k.current = current

    def run_others(self) -> None:
        """The present process sleeps in the middle of a system call: all who have signals to look at do so."""
        current = self._k.current
        while (move := self._order(self._deliveries())) is not None:
            move()
        self._k.current = current

    def exited(self, proc: Proc) -> None:
        """A process has become a zombie: nobody answers its calls."""
        for call in proc.calls:
            call.state = State.GONE
        proc.calls.clear()
        self._busy.pop(proc, None)
        self._notified.pop(proc, None)

    def settle(self) -> None:
        """Run until nothing moves."""
        while (move := self._order(self._moves())) is not None:
            move()

    def _moves(self) -> Iterator[Move]:
        yield from self._deliveries()
        yield from self._reapings()
        yield from self._callings()

    def _deliveries(self) -> Iterator[Move]:
        for proc in list(self._notified):
            if proc.flags & ProcFlag.P_WEXIT or proc.waits_for_vfork is not None:
                del self._notified[proc]
            else:
                yield partial(self._deliver, proc)

    def _deliver(self, proc: Proc) -> None:
        del self._notified[proc]
        self._in(proc, lambda: self._wake(proc))

    def _wake(self, proc: Proc) -> None:
        if delivery.wakes(self._k, proc):
            self._return(proc)

    def _reapings(self) -> Iterator[Move]:
        for proc in self._k.procs.values():
            if proc.reaps_itself:
                yield from (partial(wait.reap, self._k, child) for child in proc.children if child.is_zombie)

    def _callings(self) -> Iterator[Move]:
        for proc in list(self._busy):
            if not proc.calls:
                del self._busy[proc]
                continue
            call = proc.calls[0]
            if proc.stat is not ProcStat.SACTIVE or proc.waits_for_vfork is not None:
                continue
            if call.state is State.RETURNED:
                yield partial(self._done, call)
            elif call.state is State.QUEUED or proc in self._woken:
                yield partial(self._go_on, proc, call)

    def _go_on(self, proc: Proc, call: Call) -> None:
        self._woken.discard(proc)
        self._in(proc, lambda: self._execute(proc, call))

    def _in(self, proc: Proc, action: Callable[[], None]) -> None:
        self._k.current = proc
        try:
            action()
        finally:
            self._k.current = None

    def _execute(self, proc: Proc, call: Call) -> None:
        self._k.clock.advance(SYSTEM_CALL)
        call.attempt()
        if not proc.is_zombie and proc.waits_for_vfork is None:
            self._return(proc)
            # It has a processor, so its answer is out before those it has woken run.
            if call.state is State.RETURNED and proc.stat is ProcStat.SACTIVE:
                self._done(call)

    @staticmethod
    def _done(call: Call) -> None:
        call.state = State.DONE
        call.proc.calls.remove(call)

    def _return(self, proc: Proc) -> None:
        """Go back to user mode, out of a call that sleeps if a handler has to run."""
        call = proc.calls[0] if proc.calls else None
        if call is not None and call.state is State.BLOCKED:
            signal = signals.issignal(self._k, proc)
            if signal and not call.restarts and SigFlag.SA_RESTART not in proc.sigacts.of(signal).flags:
                call.interrupt()
            elif signal:
                self.wakeup(proc)
        delivery.return_to_user(self._k, proc)

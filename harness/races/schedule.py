# SPDX-License-Identifier: BSD-2-Clause
"""Stated interleavings: a thread of the kernel stands at a chosen instruction while everything else goes on.

A thread that comes to its point finds its program counter on three bytes that halt and jump back to the halt.  So its
CPU stands in the thread's own context with interrupts on: it answers what other CPUs ask it (TLB shootdowns, cpusync),
takes its clock's interrupts, and costs the host nothing.  Other threads that come to the same instruction pass it.
What is queued on that CPU stands as well, so whoever is needed meanwhile, the hub above all, is kept on another one.
Where interrupts are off, or put off (in a critical section), it is a jump to itself.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from harness.errors import GuestDeadlineError, HarnessError, UsageError
from harness.guests.guest import Guest
from harness.guests.processors import describe, processors
from harness.machine.debugger import Cpu, Debugger
from harness.processes import GuestError, Hub, Pending, RemoteProcess, RemoteThread
from harness.races.patience import Patience
from harness.races.points import Point, addresses_of, name_of
from harness.races.threads import Contest, Threads, callers, current_thread, runs, serves_interrupt, spins

T = TypeVar("T")

#: How long, in seconds, something may take to come to a point, as harness.races.patience counts them.
DEADLINE = 5.0
_SLICE = 0.02
_LOOKS, _LOOK_EVERY = 4, 0.1  # s; so often in a row a thread must be found waiting before it is said to
#: A system call that nobody makes by himself; it tells which thread a process's is.
_ASKED, _NUMBER = "sys_issetugid", 253
#: Where code may be put that is not the kernel's: what it entered by is never executed again.
_SPARE = "btext"
#: What clocks call in each second on each CPU, whose threads wait meanwhile: it takes the token of each process's list.
_SCANS = ("schedcpu>allproc_scan", "loadav>alllwp_scan")
_CALL = 5  # bytes: call
_HALT = bytes.fromhex("f4ebfd")  # hlt; jmp to it
_SPIN = bytes.fromhex("ebfe")  # jmp to itself
_INSIDE = 1 << 12  # of a function: behind where it has made its frame
_SET_CPU, _ADD_CPU = 1, 2  # sys/usched.h: USCHED_SET_CPU, USCHED_ADD_CPU

Driven = RemoteProcess | RemoteThread
Doing = Callable[[], Pending[Any] | None]


class NotSchedulableError(HarnessError):
    """What was to happen while somebody stood at a point cannot happen, or did not; the message says why.

    `held` tells that what was to go on waits for what the held one has: the kernel excludes this interleaving.
    """

    retry_helps = False

    def __init__(self, message: str, *, held: bool = False) -> None:
        self.held = held
        super().__init__(message)


class Stand:
    """A thread at its point, or on its way there; made by Schedule.holding().

    `call` is what brings it there, where that was given.
    """

    def __init__(self, schedule: Schedule, who: Driven, thread: int, addresses: Sequence[int], name: str) -> None:
        self._schedule = schedule
        self.who = who
        self.thread = thread
        #: Where it is to stand: at the first of these that it comes to, which is then the only one.
        self.addresses = tuple(addresses)
        self.name = name
        self.call: Pending[Any] | None = None
        self.arrived = threading.Event()
        self.gone_on = False
        #: Where it stands: on which CPU, and its stack pointer, by which it is told from what interrupts it.
        self.cpu, self.stack = -1, 0
        #: Where the functions that called were called, the innermost first.
        self.callers: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{_called(self.who)} at {self.name}"

    @property
    def address(self) -> int:
        """Where it stands, once it does."""
        return self.addresses[0]

    def let_go(self) -> None:
        """Let it go on from its point; nothing happens if it has gone on already."""
        self._schedule._let_go(self)

    def result(self) -> Any:
        """Return what its call returns, once it has gone on; raises what that raises."""
        if self.call is None:
            raise UsageError(f"nothing was said to bring {self}: holding(..., doing=...)")
        return self._schedule.result(self.call, self.who)


def _called(who: Driven) -> str:
    return f"thread {who.tid} of process {who.pid}" if isinstance(who, RemoteThread) else f"process {who.pid}"


class Schedule:
    """States interleavings of the processes of HUB on GUEST, a machine with at least two CPUs.

    A context manager: what is held goes on at its end, and the machine is as it was.  INIT, whose children a test
    drives, and the hub are kept on the CPU that the hub's connection needs.  All deadlines of the hub are of what the
    guest can do meanwhile.
    """

    def __init__(self, guest: Guest, hub: Hub, init: Driven) -> None:
        self._guest = guest
        self._hub = hub
        self._init = init
        self.kernel = guest.kernel
        self._open = ExitStack()
        self._debugger: Debugger | None = None
        self._threads: dict[tuple[int, int], int] = {}  # by pid and tid
        self._watchers: dict[int, list[tuple[int, Callable[[Cpu], None]]]] = {}  # by address: thread and what is done
        self._stands: list[Stand] = []
        self._apart: dict[tuple[int, int], int] = {}
        self._spun: dict[int, int] = {}  # by thread: how often in a row it was found kept off by others
        self._at_home: set[tuple[int, int]] = set()
        self.home = 0

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for stand in list(self._stands):
                stand.let_go()
        except HarnessError:
            if error is None:
                raise
        finally:
            self._open.close()

    def _begin(self) -> None:
        self._tokens = Threads(self.kernel)
        self._scans = [address for scan in _SCANS if self._has(scan) for address in addresses_of(self.kernel, scan)]
        self._debugger = self._open.enter_context(self._guest.machine.debugged())
        if self._debugger.cpus < 2:
            raise UsageError("a stated interleaving needs two CPUs: mark the test with @pytest.mark.cpus(2)")
        self.home = self._find_home()
        self._open.callback(setattr, self._hub, "deadlines", self._hub.deadlines)
        self._hub.deadlines = self.patience
        self._open.callback(self._unpin)
        self._pin(self._hub.observer, self.home)
        self._pin(self._init, self.home)
        self._spare = self.kernel.address(_SPARE)
        code = self.kernel.read(self._spare, len(_HALT + _SPIN))
        self.kernel.write(self._spare, _HALT + _SPIN)
        self._open.callback(self._put_back, code)
        self._places = range(self._spare, self._spare + len(code))
        self._loops = (self._spare, self._spare + 1, self._spare + len(_HALT))  # where who stands is found

    def _has(self, call: str) -> bool:
        return all(map(self.kernel.has, call.split(">")))

    def _leave_scans_out(self, debugger: Debugger) -> None:
        """Have the statistics of all processes left out while somebody stands.

        They would wait for the tokens he has, and keep whoever runs on the same CPU from going on, whom no token
        excludes: kern/kern_synch.c, schedcpu().
        """

        def pass_over(cpu: Cpu) -> None:
            cpu.address += _CALL

        for address in self._scans:
            debugger.insert(address, pass_over)

    def _put_back(self, code: bytes) -> None:
        with contextlib.suppress(HarnessError):  # of a machine that has gone
            self.kernel.write(self._spare, code)

    def _unpin(self) -> None:
        """Let the hub, and whoever it makes, run on all CPUs again; the children of init have had their time."""
        with contextlib.suppress(HarnessError, GuestError):  # of a machine that has gone
            for cpu in range(self.debugger.cpus):
                self._hub.observer.syscall("usched_set", 0, _ADD_CPU, struct.pack("<i", cpu), 4)

    # Who is where

    @property
    def debugger(self) -> Debugger:
        """The session with the machine's gdb stub."""
        assert self._debugger is not None
        return self._debugger

    def _find_home(self) -> int:
        """Return the CPU that serves the hub's connection: each has one of its own (netinet/tcp_input.c)."""
        met: list[int] = []
        address = self.kernel.address("tcp_input")
        self.debugger.at(address, lambda cpu: met.append(cpu.number))
        self._hub.observer.getpid()
        self.debugger.forget(address)
        if not met:
            raise HarnessError("no CPU was seen to serve the connection to the guest")
        return max(set(met), key=met.count)

    def _pin(self, who: Driven, cpu: int) -> None:
        try:
            who.syscall("usched_set", 0, _SET_CPU, struct.pack("<i", cpu), 4)
        except GuestError as error:
            raise UsageError(
                f"{_called(who)} cannot be moved to another CPU ({error.name}): "
                "schedule.apart() is called while it is still root's"
            ) from None

    def apart(self, who: Driven) -> int:
        """Move WHO to a CPU of its own; return its number.

        Done for whoever is held, and for whoever is awaited as far as there are CPUs: one that waits for a token keeps
        its CPU from all user programs (kern/lwkt_thread.c: lwkt_switch), and from the hub if that is the hub's.  Only
        who gives up root before has to be moved by hand.  Raises UsageError when no CPU is left.
        """
        key = _key(who)
        self.thread_of(who)  # which cannot be told any more while it makes a call that does not return
        if key not in self._apart:
            taken = {self.home, *self._apart.values()}
            free = [cpu for cpu in range(self.debugger.cpus) if cpu not in taken]
            if not free:
                raise UsageError(f"each of {self.debugger.cpus} CPUs is needed already: give the machine one more")
            self._pin(who, free[0])
            self._apart[key] = free[0]
            self._at_home.discard(key)
        return self._apart[key]

    def keep_home(self) -> None:
        """Move all others home, as far as they can be: who sleeps elsewhere wakes up there.

        Which threads theirs are is asked now: while somebody stands, whoever waits for what that one has may keep
        its CPU from them.
        """
        for who in self._hub.idle():
            key = _key(who)
            self.thread_of(who)
            if key not in self._apart and key not in self._at_home:
                with contextlib.suppress(UsageError):  # who is not root's stays where he is
                    self._pin(who, self.home)
                self._at_home.add(key)

    def _apart_if_possible(self, who: Driven) -> None:
        if len(self._apart) < self.debugger.cpus - 1:
            self.apart(who)

    def thread_of(self, who: Driven) -> int:
        """Return the address of the kernel's thread that makes the calls of WHO."""
        key = _key(who)
        if key not in self._threads:
            known = self.debugger.standing(lambda debugger: self._tokens.of(debugger, *key))
            self._threads[key] = known or self._met(who)
        return self._threads[key]

    def _met(self, who: Driven) -> int:
        """Return the thread that is met when WHO makes a call; it costs QEMU all code that it has translated."""
        met: list[int] = []
        address = self.kernel.address(_ASKED)
        self.debugger.at(address, lambda cpu: met.append(_thread_on(cpu)))
        try:
            self._hear(who.call(_NUMBER), who)
        finally:
            self.debugger.forget(address)
        if len(set(met)) != 1:
            raise HarnessError(f"the thread of {_called(who)} was not found: {len(set(met))} threads made its call")
        return met[0]

    def _hear(self, call: Pending[Any], who: Driven) -> None:
        """Return when CALL, which waits for nothing, has been made by WHO; raises NotSchedulableError for one deaf."""
        patience = self.patience(DEADLINE)
        while not call.done:
            self._guest.check()
            if patience.is_over() and not call.done:
                raise NotSchedulableError(
                    f"{_called(who)} is not heard within {DEADLINE:g} s; "
                    "schedule.apart() is for who is needed while others stand"
                )
            call.done_within(_SLICE)
        call.result()

    def patience(self, deadline: float) -> Patience:
        """Return the patience for something that is to happen within DEADLINE seconds of the guest's time."""
        return Patience(self._guest.machine, deadline, self.idles, self._hub.observer.start.getpid)

    def idles(self) -> bool:
        """Tell whether no CPU has anything to do at this moment but those on which somebody stands."""
        taken = {each.cpu for each in self._standing}

        def look(debugger: Debugger) -> bool:
            del debugger
            return all(cpu.halted for cpu in processors(self._guest.machine, None) if cpu.number not in taken)

        return self.debugger.standing(look)

    # Points

    def _watch(self, addresses: Iterable[int], thread: int, do: Callable[[Cpu], None]) -> None:
        """Have DO called when THREAD comes to one of ADDRESSES."""

        def met(cpu: Cpu) -> None:
            address, here = cpu.address, _thread_on(cpu) if cpu.in_kernel else 0
            for wanted, action in list(self._watchers.get(address, ())):
                # A clock's interrupt is served in the context of whoever it meets, who has not come here by that.
                if wanted == here and (address in self._places or not serves_interrupt(cpu, self.kernel.functions)):
                    action(cpu)
                    return

        def begin(debugger: Debugger) -> None:
            for address in addresses:
                self._watchers.setdefault(address, []).append((thread, do))
                debugger.insert(address, met)

        self.debugger.standing(begin)

    def _unwatch(self, debugger: Debugger, addresses: Iterable[int], thread: int) -> None:
        """Undo _watch(), while the machine stands."""
        for address in addresses:
            left = [each for each in self._watchers.pop(address, []) if each[0] != thread]
            if left:
                self._watchers[address] = left
            else:
                debugger.remove(address)

    # What tests say

    @contextmanager
    def holding(
        self, who: Driven, at: Point, doing: Doing | None = None, *, times: int = 1, deadline: float = DEADLINE
    ) -> Iterator[Stand]:
        """Hold the thread of WHO at the point AT inside the block, and let it go on at its end.

        DOING starts the call that brings it there: `lambda: reader.start.sysctl.kern_proc_pathname(pid)`; the block
        begins when it stands.  Without DOING the block begins at once.  It stands when it comes there for the TIMES-th
        time.  Raises NotSchedulableError when it does not come there within DEADLINE seconds of the guest's time, or
        its call has returned.
        """
        stand = self.arm(who, at, times=times)
        try:
            if doing is not None:
                stand.call = doing()
                self.await_arrival(stand, deadline)
            yield stand
        except BaseException:
            with contextlib.suppress(HarnessError):
                self._let_go(stand)
            raise
        self._let_go(stand)

    def arm(self, who: Driven, at: Point, *, times: int = 1) -> Stand:
        """Have WHO stand at the point AT from when it comes there for the TIMES-th time.

        At a line it comes there where it comes to one of the pieces of code that the line became.
        """
        addresses = addresses_of(self.kernel, at)
        thread = self.thread_of(who)
        self.keep_home()
        self.apart(who)
        stand = Stand(self, who, thread, addresses, at if isinstance(at, str) else name_of(self.kernel, at))
        left = times

        def halt(cpu: Cpu) -> None:
            nonlocal left
            left -= 1
            if left > 0:
                return
            self._unwatch(self.debugger, addresses, thread)
            self._leave_scans_out(self.debugger)
            stand.addresses = (cpu.address,)
            stand.cpu, stand.stack = cpu.number, cpu.stack
            found = self.kernel.functions.locate(cpu.address)
            stand.callers = callers(cpu, found[1] if found is not None else _INSIDE)
            # In a critical section one interrupt of the clock is noted, and no other comes: nothing would end a halt.
            put_off = self._tokens.puts_interrupts_off(self.debugger, cpu, thread)
            halts = cpu.takes_interrupts and put_off is False
            cpu.address = self._spare + (0 if halts else len(_HALT))
            stand.arrived.set()

        self._stands.append(stand)
        self._watch(addresses, thread, halt)
        return stand

    def await_arrival(self, stand: Stand, deadline: float = DEADLINE) -> None:
        """Return when the one of STAND stands; raises NotSchedulableError as holding() does."""
        arrived = stand.arrived
        self._await(arrived.is_set, arrived.wait, stand.who, stand.thread, stand.name, stand.call, deadline)

    def until(
        self, who: Driven, reaches: Point, doing: Callable[[], Pending[T]], *, deadline: float = DEADLINE
    ) -> Pending[T]:
        """Return when the thread of WHO has come to the point REACHES, past which it goes on.

        DOING starts the call that brings it there, which is returned.  Raises NotSchedulableError, saying what it does
        instead, when it does not come there within DEADLINE seconds of the guest's time, its call returns, or it waits
        for a token that somebody has who is held.
        """
        addresses, thread = addresses_of(self.kernel, reaches), self.thread_of(who)
        self._apart_if_possible(who)
        name = reaches if isinstance(reaches, str) else name_of(self.kernel, reaches)
        arrived = threading.Event()

        def pass_by(cpu: Cpu) -> None:
            del cpu
            self._unwatch(self.debugger, addresses, thread)
            arrived.set()

        self._watch(addresses, thread, pass_by)
        try:
            call = doing()
            self._await(arrived.is_set, arrived.wait, who, thread, name, call, deadline)
        finally:
            if not arrived.is_set():
                self.debugger.standing(lambda debugger: self._unwatch(debugger, addresses, thread))
        return call

    def result(self, call: Pending[T], who: Driven, *, deadline: float = DEADLINE) -> T:
        """Return what CALL, which WHO makes, comes to; raises that, or NotSchedulableError as until() does."""
        # Whose thread is not known yet cannot be asked for it any more; what it waits for is then not told.
        thread = self._threads.get(_key(who), 0)
        known, end = bool(thread), "the end of its call"
        self._await(lambda: call.done, call.done_within, who, thread, end, None, deadline, contested=known)
        return call.result()

    def settle(self, call: Pending[Any], who: Driven, *, deadline: float = DEADLINE, ended: bool = False) -> bool:
        """Return when CALL, which WHO makes, has returned, or waits for something: tell whether it has returned.

        With ENDED the thread has come to rest also if its call has no answer: exit() is done for us when the
        channel is closed, early on.  Raises NotSchedulableError when it still computes after DEADLINE seconds of the
        guest's time.
        """
        if not call.done and _key(who) not in self._threads:
            raise UsageError(f"schedule.apart() comes before {_called(who)} makes a call that may wait")
        thread, quiet = self._threads.get(_key(who), 0), 0

        def settled() -> bool:
            nonlocal quiet
            if call.done and not (ended and call.gone):
                return True
            if self._contest(thread) is not None:
                return True
            quiet = quiet + 1 if self._rests(who, thread) else 0
            return quiet >= _LOOKS

        def pause(seconds: float) -> None:
            if call.done:  # whoever exits is looked at now and then
                time.sleep(seconds)
            else:
                call.done_within(seconds)

        self._await(settled, pause, who, thread, "rest", None, deadline, contested=False)
        return call.done

    def arrives(self, stand: Stand, call: Pending[Any], who: Driven, *, deadline: float = DEADLINE) -> bool:
        """Return when WHO stands, or its CALL has returned or waits elsewhere; tell whether it stands.

        It waits also for what another one who stands has.
        """
        quiet = 0

        def happened() -> bool:
            nonlocal quiet
            if stand.arrived.is_set() or call.answer is not None:
                return True
            if self._contest(stand.thread) is not None:
                return True
            quiet = quiet + 1 if self._rests(who, stand.thread) else 0
            return quiet >= _LOOKS

        self._await(happened, stand.arrived.wait, who, stand.thread, stand.name, None, deadline, contested=False)
        return stand.arrived.is_set()

    def waits_for(self, who: Driven) -> str:
        """Return in words what WHO waits for, as far as that is known, or what he does instead."""
        thread = self._threads.get(_key(who), 0)
        contest = self._contest(thread)
        if contest is None or not contest.token:
            return self._instead(thread)[1].partition("\n")[0]
        holders = " and ".join(each.name for each in self._standing if each.thread in contest.owners)
        return f"it waits for the token {contest.name or hex(contest.token)}, which whoever stands at {holders} has"

    def forget(self) -> None:
        """Forget whoever has been told apart: they have ended, and their pids may be others'."""
        self._threads.clear()
        self._apart.clear()
        self._at_home.clear()
        self._spun.clear()

    def _rests(self, who: Driven, thread: int) -> bool:
        """Tell whether no CPU runs WHO, which is THREAD, nor is about to."""

        def look(debugger: Debugger) -> bool:
            if runs(debugger, thread):
                return False
            if (queued := self._tokens.is_queued(debugger, thread)) is not None:
                return not queued
            own = self._apart.get(_key(who), self.home)
            return any(cpu.number == own and cpu.halted for cpu in processors(self._guest.machine, None))

        return self.debugger.standing(look)

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """Go on behind the block when what it states cannot happen, as somebody waits for what the held one has.

        A kernel whose tokens exclude an interleaving does not have its defect.
        """
        try:
            yield
        except NotSchedulableError as error:
            if not error.held:
                raise

    # Waiting

    def _await(
        self,
        happened: Callable[[], bool],
        awake: Callable[[float], object],
        who: Driven,
        thread: int,
        where: str,
        call: Pending[Any] | None,
        deadline: float,
        *,
        contested: bool = True,
    ) -> None:
        """Return when it HAPPENED; with CONTESTED a wait for a token that a held one has is none that ends.

        AWAKE waits so many seconds at most, less if what is likely comes sooner.
        """
        patience = self.patience(deadline)
        seen, looked = 0, time.monotonic()
        while not happened():
            # The channel of who exits is closed early on: that is no end yet.
            if call is not None and call.answer is not None and not happened():
                raise NotSchedulableError(f"{_called(who)} does not come to {where}: {call}")
            self._guest.check()
            late = patience.is_over()
            if contested and (late or time.monotonic() - looked >= _LOOK_EVERY):
                looked = time.monotonic()
                contest = self._contest(thread)
                seen = seen + 1 if contest is not None else 0
                if contest is not None and seen >= _LOOKS and not happened():
                    raise NotSchedulableError(self._excluded(who, where, contest), held=True)
            if late and not happened():
                runs, instead = self._instead(thread)
                # Without a debug file nobody can tell a token from anything else that is waited for.
                held = not runs and bool(self._standing) and not self._tokens.knows_tokens
                late_by = f"{_called(who)} has not come to {where} within {deadline:g} s"
                raise NotSchedulableError(f"not schedulable: {late_by}: {instead}", held=held)
            awake(_SLICE)  # what comes is noted in another thread; here the guest's health is watched

    def _contest(self, thread: int) -> Contest | None:
        """Return the token that THREAD waits for and who stands has.

        One without a name and owners where it spins for a lock, or where another thread of its CPU waits for a token.
        """
        others = [each.thread for each in self._standing if each.thread != thread]
        taken = {each.cpu for each in self._standing}

        def look(debugger: Debugger) -> Contest | None:
            if (found := self._tokens.contest(debugger, thread, others)) is not None:
                return found
            functions = self.kernel.functions
            waits = bool(others) and (
                spins(debugger, thread, functions) or self._tokens.is_kept_off(debugger, thread, functions, taken)
            )
            self._spun[thread] = self._spun.get(thread, 0) + 1 if waits else 0
            # Who has a lock is not noted anywhere, nor who waits on a CPU: nobody but who stands has anything so long.
            return Contest(0, "", ()) if self._spun[thread] >= _LOOKS else None

        return self.debugger.standing(look)

    @property
    def _standing(self) -> list[Stand]:
        return [each for each in self._stands if each.arrived.is_set()]

    def _excluded(self, who: Driven, where: str, contest: Contest) -> str:
        if not contest.token:
            standing = ", ".join(map(str, self._standing))
            spun = f"it, or another on its CPU, waits for a lock while {standing} stands"
            return f"not schedulable: {_called(who)} does not come to {where}: {spun}"
        holders = ", ".join(str(each) for each in self._standing if each.thread in contest.owners)
        return (
            f"not schedulable: {_called(who)} does not come to {where}, as it waits for the token "
            f"{contest.name or hex(contest.token)}, which {holders} has"
        )

    def _instead(self, thread: int) -> tuple[bool, str]:
        """Return whether a CPU runs THREAD, and in words what it does."""

        def look(debugger: Debugger) -> tuple[bool, str]:
            running = [number for number in range(debugger.cpus) if current_thread(debugger, number) == thread]
            if not running:
                word = self._tokens.sleeps_on(debugger, thread)
                if self._tokens.is_queued(debugger, thread):
                    own = self._tokens.cpu_of(debugger, thread)
                    cpu = f"CPU {own.number} does not come" if own is not None else "no CPU comes"
                    cpus = processors(self._guest.machine, self.kernel.functions)
                    return False, f"{cpu} to run it ({word or 'it waited for nothing'})\n{describe(cpus)}"
                return False, f"it waits ({word})" if word else "it waits, or runs no kernel code"
            cpus = processors(self._guest.machine, self.kernel.functions)
            frames = [cpu.frames[0] for cpu in cpus if cpu.number in running and cpu.frames]
            where = f"in {frames[0].function}" if frames else "somewhere unknown"
            return True, f"CPU {running[0]} runs it, {where}\n{describe(cpus)}"

        return self.debugger.standing(look)

    # Letting go

    def _let_go(self, stand: Stand) -> None:
        if stand.gone_on:
            return
        stand.gone_on = True
        self._stands.remove(stand)
        gone_on = threading.Event()

        def go(cpu: Cpu) -> None:
            if cpu.stack != stand.stack:  # another stand's, further down on the same stack
                return
            cpu.address = stand.address
            self._unwatch(self.debugger, self._loops, stand.thread)
            gone_on.set()

        def begin(debugger: Debugger) -> bool:
            if not self._standing:
                for address in self._scans:
                    debugger.remove(address)
            if not stand.arrived.is_set():
                self._unwatch(debugger, stand.addresses, stand.thread)
                return True
            cpu = debugger.cpu(stand.cpu)
            if cpu.address in self._places and cpu.stack == stand.stack and _thread_on(cpu) == stand.thread:
                cpu.address = stand.address
                return True
            return False

        if self.debugger.standing(begin):
            return
        # It is in an interrupt's handler; when that returns it comes to one of these.
        self._watch(self._loops, stand.thread, go)
        patience = self.patience(DEADLINE)
        while not gone_on.wait(_SLICE):
            self._guest.check()
            if patience.is_over():
                raise GuestDeadlineError(f"{stand} to go on", DEADLINE)


def _key(who: Driven) -> tuple[int, int]:
    return who.pid, who.tid if isinstance(who, RemoteThread) else 0


def _thread_on(cpu: Cpu) -> int:
    return cpu.word(cpu.own_data + 8)  # sys/globaldata.h: gd_curthread

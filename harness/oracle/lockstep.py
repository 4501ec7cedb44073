# SPDX-License-Identifier: BSD-2-Clause
"""Two worlds in lockstep: the same system calls in both, every result and every row of the process table compared.

The first world is the oracle; the second a kernel or, to test the comparison itself, another oracle.  Processes are
called P0, P1, ... in the order of their birth, whatever their pids are.

Drawn are births and ends of all kinds, waiting, groups and sessions, terminals, user and group ids, signals and their
handlers, reapers, threads, titles, directories, jails, tracing, holds, all tables of processes, pids that are taken or
were given back, and from the era that has them on wait6(), death signals, PROC_REAP_KILL and restrictions.  Left out
are

* births by threads other than the first, their programs and tracers, and the end of the first before the others;
* pages shared with the kernel;
* calls that wait in the background of a terminal: they hold it open, though it is revoked, in a way without a model;
* what is read from and written to terminals; other files, priorities, memory, resource usage, and what ptrace() does to
  registers;
* time: other suites look at the delay of pids;
* what a kernel answers with what was on its stack: status and siginfo of a WNOHANG that found nobody;
* the order in which several processes run that become runnable together: what depends on it is found by a rehearsal
  (rehearsal.py);
* how many SIGCHLDs melt into one, and who sent them;
* signals sent to all (kill(-1)) by root, which would reach the guest's own processes;
* what hurts a kernel: PT_ATTACH to an ancestor (parents in a circle, which are climbed for ever) or to a vforked child
  (its end wakes the tracer, and who has vforked it waits for ever), PROC_PDEATHSIG_CTL of 128 (a panic);
* what hurts the hub: to be restricted by a child, to be given back a tracee as a zombie it does not wait for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.errors import HarnessError
from harness.oracle import lifecycle, terminals, views
from harness.oracle.eras import Traits
from harness.oracle.model import File, Lwp, Proc, Terminal
from harness.oracle.oracle import Oracle
from harness.oracle.process import OracleProcess, OracleThread
from harness.oracle.terminal_calls import path_of
from harness.oracle.terminals import FIRST_DEVICE
from harness.oracle.traces import (
    DIRECTORIES,
    DRAWN_GROUPS,
    TERMINALS,
    TITLES,
    Deed,
    DeviceRef,
    JailRef,
    Ref,
    Step,
    TtyRef,
    choose,
)
from harness.processes.connection import await_true
from harness.processes.hub import Hub
from harness.processes.kinfo import KinfoProc, ProcFlag, ProcStat, ProcTable
from harness.processes.vocabulary import (
    GuestError,
    ProcessGone,
    ReaperStatus,
    ReapKill,
    SigAction,
    SignalRecord,
    WaitResult,
    signal_text,
)

CALL_DEADLINE = 30.0  # s the kernel may take for a call the oracle says returns
SETTLE_DEADLINE = 20.0  # s until everybody has done what a step makes them do
PIDS = 16_384  # how many pids are a lockstep's own
HOLDS = 0x0FFFFFFF  # of kp_lock; the rest tells who waits
TIOCSIG = 0x2000745F  # sys/ttycom.h
THREADS = 100  # the number of the first thread among those who make calls; below it are processes
FRESH = 5_000  # and where those begin that are used after a look back at old ones: beyond all detours
PAUSE = 0.004  # s between two looks at a table that is not as expected yet
# What a table row is compared by: everything the model claims to know.
SHOWN_FLAGS = (
    ProcFlag.P_PPWAIT | ProcFlag.P_SUGID | ProcFlag.P_WAITED | ProcFlag.P_WEXIT | ProcFlag.P_EXEC | ProcFlag.P_CONTINUED
    | ProcFlag.P_CONTROLT | ProcFlag.P_SYSTEM | ProcFlag.P_TRACED | ProcFlag.P_JAILED
)  # fmt: skip


class DisagreementError(HarnessError):
    """The second world did something else than the oracle.  `log` is all that had happened, a line per call."""

    def __init__(self, what: str, log: Sequence[str]) -> None:
        self.what = what
        self.log = tuple(log)
        super().__init__("\n".join((*log, f"DISAGREEMENT: {what}")))


class World(Protocol):
    """What a lockstep needs of either side.  Processes have the interface of driven ones, with `start`."""

    name: str
    waits: bool  # whether what follows from a call takes time

    @property
    def hub_pid(self) -> int:
        """The pid of the parent of what spawn() returns."""

    @property
    def first_pid(self) -> int:
        """The first of PIDS pids that are the lockstep's."""

    def place(self, first: int, pid: int, *, recent: bool) -> None:
        """Let PID be the next candidate, and all PIDS pids from FIRST on be rested, but PID RECENTly given back."""

    def spawn(self) -> Any:
        """Make a fresh process."""

    def table(self) -> ProcTable:
        """Return the process table."""

    def await_idle(self, pid: int) -> None:
        """Wait until all threads of a process sleep: who is about to run hears signals before those who do."""

    def hold(self, pid: int) -> None:
        """Hold a process, as a reader would that takes his time."""

    def let_go(self, pid: int) -> None:
        """Let go of a process that was held."""

    def terminal(self, number: int) -> str:
        """Return the path of one of TERMINALS terminals; somebody outside the trace has it open, and its master."""

    def terminal_signal(self, number: int, signal: int) -> None:
        """Let a terminal send a signal to its foreground group, as a key does."""


class Grip(Protocol):
    """What holds the processes of a kernel from outside (suites/support/holds.py)."""

    def hold(self, pid: int) -> None:
        """Hold a process."""

    def let_go(self, pid: int) -> None:
        """Let go of it."""


class Allocator(Protocol):
    """What sets the pid allocator of a kernel from outside (suites/support/allocator.py)."""

    next_pid: int

    def time(self) -> int:
        """Return time_second, in seconds since the epoch."""

    def set_stamp(self, pid: int, second: int) -> None:
        """Let PID count as given back in SECOND."""

    def rest_range(self, first: int, count: int) -> None:
        """Let COUNT pids from FIRST on count as given back long ago."""


class Foresight(Protocol):
    """Knows what depends on who runs first (harness.oracle.rehearsal)."""

    def is_certain(self, who: int, deed: Deed) -> bool:
        """Tell whether the call DEED by process WHO has one outcome only."""


class OracleWorld:
    """An oracle as a world."""

    waits = False
    first_pid = 300_000

    def __init__(self, oracle: Oracle, name: str = "the oracle") -> None:
        self.name = name
        self._oracle = oracle
        self._terminals = []
        for _ in range(TERMINALS):
            terminal = terminals.make(oracle.kernel)
            terminal.master = True
            terminal.files.append(File(terminal))
            self._terminals.append(terminal)

    @property
    def hub_pid(self) -> int:
        """The pid of the model's hub."""
        return self._oracle.hub_pid

    def place(self, first: int, pid: int, *, recent: bool) -> None:
        """Let PID be the next candidate, and all PIDS pids from FIRST on be rested, but PID RECENTly given back."""
        kernel = self._oracle.kernel
        now = kernel.clock.time_second
        kernel.pids.stamps[first : first + PIDS] = bytes([now - 100 & 0xFF]) * PIDS
        if recent:
            kernel.pids.stamps[pid] = now - 1 & 0xFF
        kernel.pids.nextpid = pid

    def spawn(self) -> OracleProcess:
        """Make a fresh process."""
        return self._oracle.spawn()

    def table(self) -> ProcTable:
        """Return the process table."""
        kernel = self._oracle.kernel
        return ProcTable(views.table(kernel, kernel.init, "all", ()))

    def await_idle(self, pid: int) -> None:
        """Do nothing: all threads sleep at once."""

    def hold(self, pid: int) -> None:
        """Hold a process."""
        lifecycle.hold(self._oracle.kernel.procs[pid])

    def let_go(self, pid: int) -> None:
        """Let go of a process that was held."""
        lifecycle.let_go(self._oracle.kernel, self._oracle.kernel.procs[pid])

    def terminal(self, number: int) -> str:
        """Return the path of a terminal."""
        return path_of(self._terminals[number])

    def terminal_signal(self, number: int, signal: int) -> None:
        """Let a terminal send a signal to its foreground group, as a key does."""
        terminals.send(self._oracle.kernel, self._terminals[number], signal)
        self._oracle.kernel.scheduler.settle()


class GuestWorld:
    """A guest as a world.  Whoever makes one lets go of all and kills the hub's processes afterwards."""

    name = "the kernel"
    waits = True

    def __init__(self, hub: Hub, allocator: Allocator, grip: Grip, first_pid: int) -> None:
        self.hold, self.let_go = grip.hold, grip.let_go
        self._hub = hub
        self._allocator = allocator
        self.first_pid = first_pid
        self._holder = hub.spawn()
        self._terminals = [self._holder.openpty() for _ in range(TERMINALS)]

    @property
    def hub_pid(self) -> int:
        """The hub's pid."""
        return self._hub.pid

    def place(self, first: int, pid: int, *, recent: bool) -> None:
        """Let PID be the next candidate, and all PIDS pids from FIRST on be rested, but PID RECENTly given back."""
        self._allocator.rest_range(first, PIDS)
        if recent:
            self._allocator.set_stamp(pid, self._allocator.time() - 1)
        self._allocator.next_pid = pid

    def spawn(self) -> Any:
        """Make a fresh process."""
        return self._hub.spawn()

    def table(self) -> ProcTable:
        """Return the process table, by the hub's eyes."""
        return self._hub.observer.sysctl.kern_proc_all()

    def await_idle(self, pid: int) -> None:
        """Wait until all threads of a process sleep."""
        sysctl = self._hub.observer.sysctl
        await_true(
            lambda: all(row.lwp.wmesg for row in sysctl.kern_proc_pid(pid, lwp=True)),
            f"all threads of process {pid} to sleep",
            SETTLE_DEADLINE,
        )

    def terminal(self, number: int) -> str:
        """Return the path of a terminal."""
        return self._terminals[number][2]

    def terminal_signal(self, number: int, signal: int) -> None:
        """Let a terminal send a signal to its foreground group, as a key does."""
        self._holder.ioctl(self._terminals[number][0], TIOCSIG, signal)


@dataclass(frozen=True)
class Started:
    """A call that has not returned in the oracle."""

    who: int
    name: str
    deed: Deed
    oracle: Any
    other: Any


class Lockstep:
    """Two worlds and what has happened in them.  `calls` system calls were made in each, `log` tells which."""

    def __init__(self, oracle: Oracle, other: World, rehearsal: Foresight | None = None) -> None:
        self._worlds: tuple[World, World] = (OracleWorld(oracle), other)
        self._first_pid = other.first_pid
        self._looks_back = 0
        self._place(self._first_pid)
        self._processes: tuple[list[OracleProcess], list[Any]] = ([oracle.spawn()], [other.spawn()])
        self._threads: tuple[list[OracleThread], list[Any]] = ([], [])
        self._started: list[Started] = []
        self._jails: tuple[list[int], list[int]] = ([], [])  # ids in the order of their making
        self._devices: tuple[dict[int, int], dict[int, int]] = ({}, {})  # terminals by their devices' numbers
        self._traits = oracle.kernel.rules.traits
        self._rehearsal: Foresight | None = None  # before anything has happened all is certain
        self.calls = 0
        self.log: list[str] = []
        self.perform(0, Deed("setlogin", ("lockstep",)))
        self._rehearsal = rehearsal

    @property
    def population(self) -> int:
        """How many processes there have ever been."""
        return len(self._processes[0])

    @property
    def threads(self) -> int:
        """How many threads there have ever been besides the first ones of processes."""
        return len(self._threads[0])

    @property
    def jails(self) -> int:
        """How many jails there have ever been."""
        return len(self._jails[0])

    @property
    def devices(self) -> frozenset[int]:
        """The terminals whose devices' numbers are known, as somebody's row has shown them."""
        return frozenset(self._devices[1].values())

    def descriptors(self, who: int) -> Sequence[int]:
        """Return what WHO has open."""
        return sorted(self._actor(0, who).model.files)

    def would_wait(self, who: int, fd: int) -> bool:
        """Whether WHO would be stopped for changing the terminal FD from the background."""
        actor = self._actor(0, who)
        file, rules = actor.model.files.get(fd), actor.kernel.rules
        terminal = file.terminal or terminals.controlling(actor.kernel, actor.model) if file is not None else None
        return (
            terminal is not None
            and rules.waits_in_background(actor.model, actor.lwp, terminal)
            and rules.background_refused(actor.model.group) is None
        )

    def is_jailed(self, who: int) -> bool:
        """Whether WHO is in a jail."""
        return bool(self._actor(0, who).model.cred.prison)

    def is_open_as_tty(self, terminal: int) -> bool:
        """Whether somebody has a terminal open by the name of /dev/tty."""
        return self._terminal(terminal).open_as_tty

    def is_open(self, terminal: int) -> bool:
        """Whether anybody has a terminal's slave open."""
        return self._terminal(terminal).is_open

    def _terminal(self, number: int) -> Terminal:
        path = self._worlds[0].terminal(number)
        return next(one for one in self._processes[0][0].kernel.terminals if path_of(one) == path)

    def holds(self, index: int) -> int:
        """How often a process is held from outside."""
        return self._processes[0][index].model.holds

    def is_leaving(self, index: int) -> bool:
        """Whether a process has exited but for those who hold it."""
        return self._processes[0][index].model.waits_for_holders

    def is_zombie(self, index: int) -> bool:
        """Whether a process has exited, be it reaped or not."""
        return self._processes[0][index].model.is_zombie

    def is_thread(self, who: int) -> bool:
        """Whether WHO is a thread other than the first of a process."""
        return who >= THREADS

    def process_of(self, who: int) -> int:
        """Return the process that WHO, a process or a thread, is."""
        if who < THREADS:
            return who
        model = self._actor(0, who).model
        return next(index for index, process in enumerate(self._processes[0]) if process.model is model)

    def has_threads(self, index: int) -> bool:
        """Whether a process has several threads."""
        return len(self._processes[0][index].model.lwps) > 1

    def is_traced(self, index: int) -> bool:
        """Whether a process is traced."""
        return bool(self._processes[0][index].model.flags & ProcFlag.P_TRACED)

    def sibling_waits(self, who: int) -> bool:
        """Whether a call of another thread of the same process has not returned."""
        own: Lwp = self._actor(0, who).lwp
        return any(lwp.calls for lwp in own.proc.lwps if lwp is not own)

    def is_nobody(self, index: int) -> bool:
        """Whether a process has lost all privileges."""
        cred = self._actor(0, index).model.cred
        return bool(cred.uid and cred.ruid)

    def members(self, who: int, whom: int | Ref) -> int:
        """How many living processes a signal to a group, the caller's own for 0, everybody for -1, would reach."""
        processes = self._processes[0]
        if whom == -1:
            return self.population
        pgid = processes[whom.index].pid if isinstance(whom, Ref) else self._actor(0, who).model.group.pgid
        models = [process.model for process in processes]
        return sum(1 for proc in models if not proc.is_zombie and proc.pgrp is not None and proc.pgrp.pgid == pgid)

    @property
    def somebody_waits(self) -> bool:
        """Whether a call has not returned."""
        return bool(self._started)

    def has_undelivered(self, index: int) -> bool:
        """Whether a signal waits for a process that does not block it."""
        lwp = self._actor(0, index).lwp
        return bool(lwp.waiting - lwp.mask)

    @property
    def traits(self) -> Traits:
        """What the kernels of this era can do."""
        return self._traits

    def descends(self, who: int, whom: int) -> bool:
        """Whether WHO is WHOM or descends from it."""
        at: Proc | None = self._actor(0, who).model
        while at is not None and at is not self._processes[0][whom].model:
            at = at.parent
        return at is not None

    def is_vforked(self, index: int) -> bool:
        """Whether somebody cannot go on until this process has exited or run a program."""
        return bool(self._processes[0][index].model.flags & ProcFlag.P_PPWAIT)

    def is_child_of_ours(self, who: int) -> bool:
        """Whether the parent of WHO is one of the processes of the trace."""
        parent = self._actor(0, who).model.parent
        return any(process.model is parent for process in self._processes[0])

    def run(self, steps: Iterable[Step]) -> None:
        """Take all STEPS; raises DisagreementError at the first difference."""
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        """Take one step, if somebody is there to take it."""
        actors = [index for index, process in enumerate(self._processes[0]) if _can_act(process)]
        actors += [THREADS + index for index, thread in enumerate(self._threads[0]) if _can_act(thread)]
        if not actors:
            return
        who = actors[step.who % len(actors)]
        deed = choose(self, who, step)
        if deed is not None and (self._rehearsal is None or self._rehearsal.is_certain(who, deed)):
            self.perform(who, deed)

    # ---- one call in both worlds ----

    def _actor(self, world: int, who: int) -> Any:
        """Return the process, or from THREADS on the thread, WHO."""
        return self._threads[world][who - THREADS] if self.is_thread(who) else self._processes[world][who]

    def perform(self, who: int, deed: Deed) -> None:
        """Let process, or thread, WHO make the call DEED in both; raises DisagreementError at the first difference."""
        name = f"P{self.process_of(who)}" + (f".T{who - THREADS}" if self.is_thread(who) else "")
        self.log.append(f"{name}.{deed}")
        self.calls += 1
        if deed.method in ("hold", "let_go"):
            for number, world in enumerate(self._worlds):
                getattr(world, deed.method)(self._argument(number, deed.arguments[0]))
        elif deed.method == "terminal_signal":
            for world in self._worlds:
                world.terminal_signal(*deed.arguments)
        elif deed.method == "thread":
            self._new_thread(who)
        elif deed.method == "vfork":
            self._born(*(world[who].vfork() for world in self._processes))
        elif deed.method == "fork_at":
            self._fork_at(who, deed)
        else:
            ours, theirs = (self._start(world, who, deed) for world in (0, 1))
            if ours.done and deed.method in ("exit", "leave_thread", "reexec"):
                # The table tells.  A guest may notice an exit late, while others hold the same channel open; and the
                # parent that exec lets go may have killed the process before it answers, or after.
                pass
            elif ours.done:
                self._compare(who, deed, ours, theirs)
            else:
                self.log[-1] += "  ... does not return yet"
                self._started.append(Started(who, name, deed, ours, theirs))
        self._settle()

    def _place(self, pid: int, *, recent: bool = False) -> None:
        for world in self._worlds:
            world.place(self._first_pid, pid, recent=recent)

    def _born(self, *processes: Any) -> None:
        ours, theirs = (process.pid for process in processes)
        if ours != theirs:
            self._disagree(f"the new process is {ours} in {self._names[0]}, {theirs} in {self._names[1]}")
        for world, process in zip(self._processes, processes, strict=True):
            world.append(process)
        self.log[-1] += f" -> P{self.population - 1}"

    def _new_thread(self, who: int) -> None:
        threads = [self._actor(world, who).thread() for world in (0, 1)]
        ours, theirs = (thread.tid for thread in threads)
        if ours != theirs:
            self._disagree(f"the new thread is {ours} in {self._names[0]}, {theirs} in {self._names[1]}")
        for world, thread in zip(self._threads, threads, strict=True):
            world.append(thread)
        self._worlds[1].await_idle(threads[1].pid)
        self.log[-1] += f" -> T{self.threads - 1}"

    def _fork_at(self, who: int, deed: Deed) -> None:
        """Fork when the first candidate may be taken, or was given back lately; what follows begins elsewhere."""
        whom, recent = deed.arguments
        self._place(self._pid(0, whom), recent=recent)
        self._compare(who, deed, *(self._actor(world, who).start.fork() for world in (0, 1)))
        self._looks_back += 1
        self._place(self._first_pid + FRESH + 100 * self._looks_back)

    def _start(self, world: int, who: int, deed: Deed) -> Any:
        arguments = [self._argument(world, one) for one in deed.arguments]
        start = self._actor(world, who).start
        target = start.sysctl if deed.method.removeprefix("set_").startswith("kern_proc") else start
        return getattr(target, deed.method)(*arguments, **dict(deed.options))

    def _argument(self, world: int, argument: Any) -> Any:
        if isinstance(argument, JailRef):
            return self._jails[world][argument.index]
        if isinstance(argument, TtyRef):
            return self._worlds[world].terminal(argument.index)
        if isinstance(argument, DeviceRef):
            numbers = {terminal: number for number, terminal in self._devices[world].items()}
            return numbers[argument.index]
        return self._pid(world, argument) if isinstance(argument, Ref) else argument

    def _pid(self, world: int, reference: Ref) -> int:
        pid: int = self._processes[world][reference.index].pid
        return -pid if reference.negative else pid

    def _compare(self, who: int, deed: Deed, ours: Any, theirs: Any) -> None:
        expected, found = self._outcome(0, deed, ours), self._outcome(1, deed, theirs)
        if deed.kind == "process" and expected[0] == found[0] == "returns":
            self._born(expected[1], found[1])
            return
        self.log[-1] += f" -> {_outcome_text(expected)}"
        # Whom its own call kills in the end (by orphaning its group, say) may die before the answer is out, or after.
        if expected == found or (found[0] == "gone" and self._actor(0, who).gone):
            return
        if isinstance(expected[1], dict) and isinstance(found[1], dict):
            self._disagree(self._difference(expected[1], found[1]))
        self._disagree(
            f"{deed}: {self._names[0]} says {_outcome_text(expected)}, {self._names[1]} {_outcome_text(found)}"
        )

    def _outcome(self, world: int, deed: Deed, pending: Any) -> tuple[str, Any]:
        try:
            value = pending.result(CALL_DEADLINE)
        except GuestError as error:
            return ("fails", error.name)
        except ProcessGone:
            return ("gone", None)
        except HarnessError as error:
            self._disagree(f"{deed} does not return in {self._names[world]}: {error}")
        return ("returns", value if deed.kind == "process" else self._normal(world, value, deed.kind))

    def _disagree(self, what: str) -> None:
        raise DisagreementError(what, self.log)

    # ---- what both worlds call by the same name ----

    @property
    def _names(self) -> tuple[str, str]:
        return (self._worlds[0].name, self._worlds[1].name)

    def _normal(self, world: int, value: Any, kind: str | None = None) -> Any:
        names = {process.pid: f"P{index}" for index, process in enumerate(self._processes[world])}
        tracked = names.keys() | set()
        names[self._worlds[world].hub_pid] = "HUB"
        if isinstance(value, WaitResult):
            info = value.siginfo if value.pid else None  # what is told of nobody is what was on the stack
            told = (
                (signal_text(info.signal), info.code, names.get(info.pid, info.pid), info.uid, info.status)
                if info
                else None
            )
            return (names.get(value.pid, value.pid), str(value.status) if value.status else None, told)
        if isinstance(value, SigAction):
            return (value.handler.name, value.flags, frozenset(map(signal_text, value.mask)))
        if isinstance(value, ReaperStatus):
            return (value.owned, value.real_init, value.references, names.get(value.first_child, value.first_child))
        if isinstance(value, frozenset):
            return frozenset(map(signal_text, value))
        if isinstance(value, ReapKill):
            return (value.killed, names.get(value.failed, value.failed))
        if kind == "title":
            return (
                value if b"\0".join(value) + b"\0" in {title.rstrip(b"\0") + b"\0" for title in TITLES} else "its own"
            )
        if kind == "cwd":
            return value if value in DIRECTORIES else "its own"
        if kind == "path":
            return "a path" if value else ""
        if kind == "jail":
            self._jails[world].append(value)
            return f"jail {len(self._jails[world])}"
        if kind == "log":
            return _signals(value, names)
        if kind == "table" or isinstance(value, ProcTable):
            jails = {jid: f"jail {index + 1}" for index, jid in enumerate(self._jails[world])}
            self._learn_devices(world, value)
            rows: dict[str, dict[str, Any]] = {}
            for row in value:
                if row.pid in tracked:
                    name = names[row.pid]
                    rows[f"{name}, thread {row.lwp.tid}" if name in rows else name] = _row(row, names, jails)
                    rows[next(reversed(rows))]["terminal"] = self._devices[world].get(row.tdev or 0, row.tdev)
            return rows
        return names.get(value, value) if kind == "pid" else value

    def _learn_devices(self, world: int, rows: Iterable[KinfoProc]) -> None:
        """Learn the numbers of devices from the rows of those who have one in the oracle."""
        models = {
            process.pid: ours.model for ours, process in zip(self._processes[0], self._processes[world], strict=True)
        }
        for row in rows:
            model = models.get(row.pid)
            terminal = model.session.terminal if model is not None and model.pgrp is not None else None
            if row.tdev is None or row.tdev in self._devices[world] or terminal is None:
                continue
            index = terminal.number - FIRST_DEVICE
            if index not in self._devices[world].values():
                self._devices[world][row.tdev] = index

    # ---- afterwards ----

    def _settle(self) -> None:
        """Wait until both tables are the same, and compare the calls that had been waiting."""
        expected = self._table(0)
        deadline = time.monotonic() + SETTLE_DEADLINE
        while (found := self._table(1)) != expected:
            if time.monotonic() > deadline or not self._worlds[1].waits:
                self._disagree(self._difference(expected, found))
            time.sleep(PAUSE)
        for call in [call for call in self._started if call.oracle.done]:
            self._started.remove(call)
            self.log.append(f"    {call.name}.{call.deed} returns at last")
            self._compare(call.who, call.deed, call.oracle, call.other)
        for call in self._started:
            if call.other.done:
                self._disagree(f"{call.deed} has returned in {self._names[1]}, but not in {self._names[0]}")

    def _table(self, world: int) -> dict[str, dict[str, Any]]:
        table: dict[str, dict[str, Any]] = self._normal(world, self._worlds[world].table())
        return table

    def _difference(self, expected: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> str:
        ours, theirs = self._names
        lines = []
        for name in sorted(expected.keys() | found.keys()):
            if name not in expected:
                lines.append(f"{name} is gone in {ours}, {theirs} has {found[name]}")
            elif name not in found:
                lines.append(f"{name} is gone in {theirs}, {ours} has {expected[name]}")
            else:
                lines += [
                    f"{name}'s {key}: {ours} says {value!s}, {theirs} {found[name][key]!s}"
                    for key, value in expected[name].items()
                    if value != found[name][key]
                ]
        return "; ".join(lines)


def _can_act(process: OracleProcess) -> bool:
    lwp = process.lwp
    return not process.gone and lwp.proc.stat is ProcStat.SACTIVE and not lwp.calls and lwp.waits_for_vfork is None


def _row(row: KinfoProc, names: Mapping[int, str], jails: Mapping[int, str]) -> dict[str, Any]:
    return {
        "ppid": names.get(row.ppid, row.ppid),
        "pgid": names.get(row.pgid, row.pgid),
        "sid": names.get(row.sid, row.sid),
        "jobc": row.jobc,
        "stat": row.stat,
        "flags": row.flags & SHOWN_FLAGS,
        "holds": row.lock & HOLDS,
        "acflag": row.acflag,
        "uids": (row.uid, row.ruid, row.svuid),
        "gids": (row.groups[0], row.rgid, row.svgid),
        "groups": row.groups if len(row.groups) in DRAWN_GROUPS else "the first ones",
        "login": row.login,
        "exitstat": row.exitstat,
        "threads": row.nthreads,
        "tid": row.lwp.tid,
        "foreground": names.get(row.tpgid, row.tpgid),
        "terminal's session": names.get(row.tsid, row.tsid),
        "pending": row.siglist | row.lwp.siglist,
        "mask": row.lwp.sigmask,
        "ignored": row.sigignore,
        "caught": row.sigcatch,
        "sigflag": row.sigflag,
        "auxflags": row.auxflags,
        "comm": row.comm,
        "jail": jails.get(row.jailid, row.jailid),
        "caps": row.syscaps,
    }


def _signals(records: Sequence[SignalRecord], names: Mapping[int, str]) -> object:
    """What a log says; how many SIGCHLDs melt into one, and when they come, depends on who runs first."""
    signals = [signal_text(record.signal) for record in records]
    if "SIGCHLD" in signals:
        return frozenset(signals)
    return tuple(
        (signal, names.get(record.pid, record.pid), record.uid) if record.siginfo else signal
        for signal, record in zip(signals, records, strict=True)
    )


def _outcome_text(outcome: tuple[str, Any]) -> str:
    kind, value = outcome
    if kind == "gone":
        return "the process is gone"
    if isinstance(value, dict):
        return f"rows of {', '.join(value) or 'nobody'}"
    return str(value)

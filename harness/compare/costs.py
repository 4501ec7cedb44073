# SPDX-License-Identifier: BSD-2-Clause
"""What the process subsystem costs, kernel against kernel: time in turns, or instructions counted by the machine.

Times are taken in the order A B B A (and B A A B in turn), each block on machines resumed from a boot of its own of
either kernel, the one that waits being paused: what drifts hits both alike, and what differs from one boot to the next,
such as where things lie in memory, is part of the noise.  Where QEMU can run the saved state under -icount, a
nanosecond of the guest is an instruction, and the same work on the same boot takes (almost) the same number.
"""

from __future__ import annotations

import statistics
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from harness.compare.cost_judgement import (
    BLOCKS,
    COUNTED_BOOTS,
    confidence_of_each,
    judge_instructions,
    judge_times,
)
from harness.errors import HarnessError, UsageError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import GuestHangError, KernelPanicError, MachineSize, Progress, Target
from harness.guests.whitebox import Whitebox
from harness.machine.description import Lane
from harness.processes import Hub, RemoteProcess
from harness.processes.repetition import returns
from harness.processes.session import Session, Warmth
from harness.processes.wire import Buffer
from harness.results.costs import Costs
from harness.store import Store

_SETSIDS = 20
_TABLE_SIZES = (100, 200)  # since 2017 a process deep in the tree may have some 230 in all (kern_fork.c: fork1)
_DOMAINS = 999_999 // 256 * 256  # kern_proc.c: PIDSEL_DOMAINS
_PRESSED_PIDS = 4096  # given back just now, in front of each one that is free
_PRESSED_FORKS = 32
_PRESSED_READINGS = 4
_STAMP = 5  # the second, modulo 256, in which they count as given back
_TWO_TICKS = 0.02
_FIRST_PRESSED = 300_000
_KERN_PROC_ALL = struct.pack("<3i", 1, 14, 0)
_SIGNAL_NONE = 0


@dataclass(frozen=True)
class Workload:
    """Something to be paid for: `measure` returns seconds of the guest per operation."""

    name: str
    measure: Callable[[Bench], float]
    needs_kernel: bool = False


@dataclass(frozen=True)
class Effort:
    """How much is done for one reading: children per storm, seconds of guest time per repetition, and readings.

    The least of several readings counts.
    """

    storm: int
    seconds: float
    readings: int


_TIMED = Effort(150, 0.1, 1)
# Each shorter than the 10 ms between two clock interrupts: most readings hold none, and the least of them is one.
_COUNTED = Effort(20, 0.002, 12)


class Bench:
    """A resumed guest on which workloads are measured, each with so much EFFORT."""

    def __init__(self, session: Session, effort: Effort) -> None:
        self._session = session
        self.effort = effort
        self.process = session.hub.spawn()

    @property
    def hub(self) -> Hub:
        """The hub of the guest."""
        return self._session.hub

    @property
    def kernel(self) -> Whitebox:
        """The kernel in the guest, from outside; raises UsageError where its file is not known."""
        return self._session.guest.kernel

    def pause(self) -> None:
        """Stop the guest's clock and CPUs."""
        self._session.guest.machine.pause()

    def resume(self) -> None:
        """Let the guest run."""
        self._session.guest.machine.resume()

    def least(self, reading: Callable[[], float]) -> float:
        """Return the least of as many readings as the effort allows."""
        return min(reading() for _ in range(self.effort.readings))

    def fresh_process(self) -> RemoteProcess:
        """Return a process of its own for one measurement."""
        return self.hub.spawn()

    def storm(self, count: int, kind: str) -> float:
        """Return seconds per child of a fork storm; raises HarnessError when it could not make all COUNT of them."""
        storm = self.process.storm(count, kind, record=False)
        if storm.error is not None or storm.count < count:
            how = f"failed with {storm.error}" if storm.error is not None else "was cut short"
            raise HarnessError(f"{storm.failed or kind} {how} after {storm.count} of {count}, so it has no cost")
        return storm.seconds / storm.count


def _storm(kind: str) -> Callable[[Bench], float]:
    def measure(bench: Bench) -> float:
        return bench.least(lambda: bench.storm(bench.effort.storm, kind))

    return measure


def _setsid(bench: Bench) -> float:
    taken = []
    for _ in range(_SETSIDS):
        child = bench.process.fork()
        answer = child.syscall("setsid").answer
        taken.append((answer.after - answer.before) / 1e9)
        child.exit()
        bench.process.wait4(child.pid)
    return statistics.median(taken)


def _repeated(bench: Bench, name: str, *arguments: int | Buffer) -> float:
    def reading() -> float:
        # The value awaited is one that no call returns: it is made over and over for the whole time.
        done = bench.process.repeat_until(returns(-2), name, *arguments, seconds=bench.effort.seconds)
        return done.seconds / done.count

    return bench.least(reading)


def _kill(bench: Bench) -> float:
    return _repeated(bench, "kill", bench.process.pid, _SIGNAL_NONE)


def _process_table(extra: int) -> Callable[[Bench], float]:
    def measure(bench: Bench) -> float:
        try:
            bench.fresh_process().spawn_many(extra, paused=True)
            # Without a buffer the table is walked and measured, and nothing is copied out.
            length = Buffer(struct.pack("<Q", 0))
            return _repeated(bench, "__sysctl", Buffer(_KERN_PROC_ALL), 3, 0, length, 0, 0)
        finally:
            bench.hub.kill_all()
            bench.process = bench.fresh_process()

    return measure


def _pressed_allocation(bench: Bench) -> float:
    """Fork while only one pid in some thousand was not given back within the last seconds."""
    process, kernel = bench.process, bench.kernel
    stamps = kernel.word("pid_doms", 8) + _FIRST_PRESSED % _DOMAINS  # procinit() allocates them
    run = bytes([_STAMP]) * (_PRESSED_PIDS - 1) + bytes([_STAMP - 100 & 0xFF])
    pressed = run * (_PRESSED_FORKS + 1)

    def reading() -> float:
        before = process.sysctl.get_int("kern.pid_domain_skips")
        kernel.write(stamps, pressed)
        kernel.write(kernel.address("nextpid"), struct.pack("<i", _FIRST_PRESSED))
        # The clock is set to where the stamps are two seconds old, and a tick makes that time_second; nothing waits for
        # an answer in between, as an idle guest's clock may run far ahead.
        wanted = (int(process.clock_gettime(0)) // 256 + 1) * 256 + _STAMP + 2
        calls = (
            process.start.syscall("clock_settime", 0, struct.pack("<qq", wanted, 0)),
            process.start.nanosleep(_TWO_TICKS),
        )
        taken = bench.storm(_PRESSED_FORKS, "fork")
        for call in calls:
            call.result()
        passed = (process.sysctl.get_int("kern.pid_domain_skips") - before) / _PRESSED_FORKS
        if not 0.9 * _PRESSED_PIDS < passed < 1.1 * _PRESSED_PIDS:
            raise HarnessError(f"{passed:.0f} pids were passed over for each process, not {_PRESSED_PIDS}")
        return taken

    return min(reading() for _ in range(min(_PRESSED_READINGS, bench.effort.readings)))


WORKLOADS = (
    Workload("fork + wait4", _storm("fork")),
    Workload("vfork + wait4", _storm("vfork")),
    Workload("setsid", _setsid),
    Workload("kill(self, 0)", _kill),
    *(Workload(f"kern.proc.all, {size} processes more", _process_table(size), True) for size in _TABLE_SIZES),
    Workload(f"fork, {_PRESSED_PIDS} pids to pass over", _pressed_allocation, True),
)


class CostMeasurement:
    """Measures BASE and OTHER on machines of SIZE."""

    def __init__(self, store: Store, size: MachineSize, base: Target, other: Target, progress: Progress) -> None:
        self._store = store
        self._targets = (base, other)
        self._size = size
        self._progress = progress
        self._at = 0  # where something was measured last

    @contextmanager
    def _until_death(self, costs: Costs) -> Iterator[None]:
        """Note in COSTS how a kernel died of what is measured inside the block, which ends with that."""
        try:
            yield
        except (KernelPanicError, GuestHangError) as death:
            if self._at:
                costs.other_died = str(death)
            else:
                costs.base_died = str(death)

    def _reading(self, workload: Workload, number: int, bench: Bench) -> float:
        self._at = number
        return workload.measure(bench)

    def times(self, blocks: int = BLOCKS) -> Costs:
        """Return the costs in time, each workload measured in BLOCKS blocks of A B B A, each on boots of its own."""
        costs = Costs(self._targets[0].label, self._targets[1].label)
        taken: dict[str, list[tuple[float, float, float, float]]] = {}
        for block in range(blocks):
            if costs.base_died or costs.other_died:
                break
            self._progress(f"times: block {block + 1} of {blocks}")
            with self._until_death(costs), ExitStack() as machines:
                sides = [machines.enter_context(self._bench(number, block)) for number in (0, 1)]
                for side in sides:
                    side.pause()
                for workload in self._workloads(costs):
                    try:
                        readings = _abba(partial(self._reading, workload), sides, turned=block % 2 == 1)
                        taken.setdefault(workload.name, []).append(readings)
                    except (HarnessError, OSError) as error:
                        if isinstance(error, HarnessError) and type(error) is not HarnessError:
                            raise
                        costs.missing[workload.name] = str(error)
        sure = confidence_of_each(len(WORKLOADS))
        costs.costs = [judge_times(name, values, sure) for name, values in taken.items() if values]
        return costs

    def instructions(self, boots: int = COUNTED_BOOTS) -> Costs:
        """Return the costs in instructions, counted on BOOTS of either kernel.

        Raises HarnessError where a saved state does not run under -icount.
        """
        costs = Costs(self._targets[0].label, self._targets[1].label)
        taken: dict[str, tuple[list[float], list[float]]] = {}
        for boot in range(boots):
            for number in (0, 1):
                if costs.base_died or costs.other_died:
                    break
                self._progress(f"instructions: boot {boot + 1} of {boots}")
                with self._until_death(costs), self._bench(number, boot, counted=True) as bench:
                    for workload in self._workloads(costs):
                        try:
                            count = self._reading(workload, number, bench) * 1e9
                            taken.setdefault(workload.name, ([], []))[number].append(count)
                        except (HarnessError, OSError) as error:
                            if isinstance(error, HarnessError) and type(error) is not HarnessError:
                                raise
                            costs.missing[workload.name] = str(error)
        sure = confidence_of_each(len(WORKLOADS))
        costs.costs = [judge_instructions(name, *values, sure) for name, values in taken.items() if all(values)]
        return costs

    def _workloads(self, costs: Costs) -> list[Workload]:
        has_kernel = all(isinstance(target, DragonFlyTarget) and target.kernel is not None for target in self._targets)
        for workload in WORKLOADS:
            if workload.needs_kernel and not has_kernel:
                costs.missing[workload.name] = "needs a DragonFly kernel from the store"
        return [workload for workload in WORKLOADS if workload.name not in costs.missing]

    def _bench(self, number: int, boot: int, *, counted: bool = False) -> AbstractContextManager[Bench]:
        size = replace(self._size, boot=boot)
        return _bench(self._targets[number], self._store, size, counted=counted, progress=self._progress)


def measure(target: Target, store: Store, size: MachineSize, name: str, *, counted: bool = False) -> float:
    """Return what the workload NAME costs on TARGET by itself: seconds of the guest per operation.

    COUNTED under -icount, where a nanosecond is an instruction.  Raises UsageError when there is no such workload.
    """
    workload = next((each for each in WORKLOADS if each.name == name), None)
    if workload is None:
        raise UsageError(f"no workload {name!r} (there: {', '.join(each.name for each in WORKLOADS)})")
    with _bench(target, store, size, counted=counted) as bench:
        return workload.measure(bench)


@contextmanager
def _bench(
    target: Target, store: Store, size: MachineSize, *, counted: bool, progress: Progress = lambda _: None
) -> Iterator[Bench]:
    """Resume TARGET to measure on it.  COUNTED on one CPU, and the state must do so: it is not made again."""
    if counted:
        with Session.resume_once(Warmth(target, store, size, Lane.COUNTED)) as session:
            yield Bench(session, _COUNTED)
    else:
        with Session.resume(Warmth(target, store, size), progress) as session:
            yield Bench(session, _TIMED)


def _abba(
    reading: Callable[[int, Bench], float], sides: Sequence[Bench], *, turned: bool
) -> tuple[float, float, float, float]:
    """Return the readings (A, B, B, A), taken in this order or, TURNED, as B A A B."""
    values: tuple[list[float], list[float]] = ([], [])
    for number in (1, 0, 0, 1) if turned else (0, 1, 1, 0):
        sides[number].resume()
        values[number].append(reading(number, sides[number]))
        sides[number].pause()
    (first, last), (second, third) = values
    return first, second, third, last

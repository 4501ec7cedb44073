# SPDX-License-Identifier: BSD-2-Clause
"""How fast the harness is on this host: medians with their spread, and the ratios worth quoting."""

from __future__ import annotations

import contextlib
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from harness import __version__
from harness.bench.memory import MemoryUnknownError, further_machine, not_sharing
from harness.bench.peers import PEER, VirtmeNg
from harness.bench.result import YARDSTICK, BenchResult, Measurement, Ratio
from harness.bench.scaling import WORKERS, Workload, play
from harness.errors import HarnessError
from harness.guests.guest import MachineSize, Progress, Target
from harness.machine.description import Lane
from harness.machine.qemu import qemu_version
from harness.options import PYTEST_PREFIX
from harness.processes import RemoteProcess
from harness.processes.lanes import probe_time_warp
from harness.processes.session import Session, Warmth
from harness.processes.spare import Spare
from harness.processes.vocabulary import Clock
from harness.results.record import RunRecord, read_record
from harness.results.summary import conclusion
from harness.store import Store
from harness.tether import run_tethered

#: A short test, so that a run of it has the cost of getting to the first test and little else.
FIRST_TEST = "test_setsid_makes_a_session_and_a_group_named_after_the_caller"
CALLS = 200
PIPELINED = 20
CHUNK, CHUNKS = 16384, 64  # bytes of a read() and how many
SLEEP = 10.0  # s
STORM = 3000
_FIRST_DEADLINE, _SUITE_DEADLINE = 3600.0, 6 * 3600.0
_YARDSTICK = 200_000  # digests, a tenth of a second or so
_BOOT, _UNHURRIED = "cold boot to the first call answered", "the same at the pace of the clock"
_RESUME = "resume to the first call answered"
_SHARING, _ALONE = "memory of a further machine", "memory of a further machine that shares nothing"
_PEERS = f"{PEER} (Linux): a fresh machine and one command"


class Readings:
    """Collects readings by name, in the order they were first taken."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}

    def add(self, name: str, unit: str, value: float) -> None:
        """Note a reading."""
        self._values.setdefault((name, unit), []).append(value)

    @contextmanager
    def seconds(self, name: str) -> Iterator[None]:
        """Note how long the block takes."""
        started = time.perf_counter()
        yield
        self.add(name, "s", time.perf_counter() - started)

    def measurements(self) -> tuple[Measurement, ...]:
        """Return them all."""
        return tuple(Measurement(name, unit, tuple(values)) for (name, unit), values in self._values.items())

    def median(self, name: str) -> float:
        """Return the median of the readings called NAME; raises StopIteration where there are none."""
        return next(statistics.median(values) for (known, _), values in self._values.items() if known == name)


def measure_host(readings: Readings) -> None:
    """Note how fast this host is just now."""
    with readings.seconds(YARDSTICK):
        digest = bytes(32)
        for _ in range(_YARDSTICK):
            digest = hashlib.sha256(digest).digest()


def _measure_calls(readings: Readings, process: RemoteProcess, transport: str) -> None:
    started = time.perf_counter()
    for _ in range(CALLS):
        process.getpid()
    readings.add(f"call round trip, {transport}", "ms", (time.perf_counter() - started) / CALLS * 1000)
    started = time.perf_counter()
    for pending in [process.start.getpid() for _ in range(PIPELINED)]:
        pending.result()
    readings.add(f"{PIPELINED} pipelined calls, {transport}", "ms", (time.perf_counter() - started) * 1000)
    zeros = process.open("/dev/zero", 0)
    started = time.perf_counter()
    for reading in [process.start.read(zeros, CHUNK) for _ in range(CHUNKS)]:
        reading.result()
    readings.add(f"throughput, {transport}", "MB/s", CHUNKS * CHUNK / (time.perf_counter() - started) / 1e6)
    process.close(zeros)


def _small_test(session: Session) -> None:
    """Do what a short test does: a process makes a child, which ends, and reaps it."""
    init = session.hub.spawn()
    child = init.fork()
    child.exit(7)
    init.wait4(child.pid)
    session.close()


def _measure_swaps(readings: Readings, warmth: Warmth) -> None:
    """Swap a spare machine in, as a test that needs a fresh one gets it."""
    spare = Spare(lambda: True)
    for _ in range(3):
        spare.prepare(warmth)
        spare.await_ready()
        with readings.seconds("a spare machine swapped in"):
            session = spare.take(warmth)
        if session is None:
            raise HarnessError("a spare machine did not go on")
        with session:
            session.hub.spawn().getpid()


def _measure_memory(readings: Readings, warmth: Warmth, store: Store) -> None:
    with contextlib.suppress(MemoryUnknownError):
        readings.add(_SHARING, "MiB", further_machine(warmth))
        readings.add(_ALONE, "MiB", not_sharing(warmth, store))


def _measure_time_warp(readings: Readings, warmth: Warmth) -> None:
    with Session.resume(warmth) as session:
        sleeper = session.hub.spawn()
        before = sleeper.clock_gettime(Clock.CLOCK_MONOTONIC)
        started = time.perf_counter()
        sleeper.sleep(SLEEP)
        seconds = time.perf_counter() - started
        readings.add(f"guest sleep {SLEEP:g}, time-warped lane", "s", seconds)
        readings.add("warp factor", "guest s/s", (sleeper.clock_gettime(Clock.CLOCK_MONOTONIC) - before) / seconds)


def run_bench(
    target: Target,
    store: Store,
    size: MachineSize,
    *,
    rounds: int,
    again: Sequence[str] = (),
    suite: Sequence[str] = (),
    workers: int = 1,
    peer: VirtmeNg | None = None,
    progress: Progress = lambda _: None,
) -> BenchResult:
    """Measure everything ROUNDS times, cold boots and resumes in turn.

    AGAIN, if given, are options of `run` that lead to the same target; how long they take to its first test is
    measured with everything in the store already.  SUITE, if given, is what to hand to pytest; it runs once for each
    number of workers up to WORKERS.  PEER, if given, runs a command in a fresh machine of its own in each round.

    Raises what booting and resuming raise, and HarnessError when the suite does not pass: a time says nothing then.
    """
    readings = Readings()
    warmth = Warmth(target, store, size)
    warmth.snapshot(progress)
    progress("probing the time-warped lane")
    warp = probe_time_warp(target, store, size)
    identity = accelerator = ""
    for number in range(rounds):
        for _ in range(3):
            measure_host(readings)
        progress(f"round {number + 1} of {rounds}: cold boot")
        with readings.seconds(_BOOT):
            session = Session.boot(target, store, size)
            session.hub.spawn().getpid()
        with session:
            identity, accelerator = session.guest.identity, session.guest.accelerator.value
            _measure_calls(readings, session.hub.spawn(), "SSH channel")
        progress(f"round {number + 1} of {rounds}: resume")
        for _ in range(3):
            with readings.seconds(_RESUME):
                session = Session.resume(warmth)
                process = session.hub.spawn()
                process.getpid()
            with session:
                _measure_calls(readings, process, "TCP")
                with readings.seconds("SSH handshake with a resumed guest"):
                    _ = session.guest.ssh.host_key
                readings.add("fork + exit + wait", "1/s", process.storm(STORM).rate)
        _measure_swaps(readings, warmth)
        for _ in range(3):
            with readings.seconds("fresh_guest with a small test"):
                _small_test(Session.resume(warmth))
        with readings.seconds("boot per test: the same test"):
            _small_test(Session.boot(target, store, size))
        if peer is not None:
            progress(f"round {number + 1} of {rounds}: {PEER}")
            readings.add(_PEERS, "s", peer.run_a_command(size, session.guest.accelerator))
        if warp.usable:
            progress(f"round {number + 1} of {rounds}: {warp.lane.value} lane")
            _measure_time_warp(readings, Warmth(target, store, size, warp.lane))
    progress("a boot at the pace of the clock")
    # As --cold boots: none of the waiting that makes up most of it is skipped.
    with readings.seconds(_UNHURRIED):
        session = Session.boot(target, store, size, ahead=False)
        session.hub.spawn().getpid()
    session.close()
    progress("memory of further machines")
    _measure_memory(readings, warmth, store)
    if again:
        progress("the same run again, to its first test")
        seconds_to_first_test(again)  # whatever is kept from run to run is there afterwards
        for _ in range(rounds):
            readings.add("the same run again: Enter to the first test", "s", seconds_to_first_test(again))
    if suite:
        for count in range(1, workers + 1):
            progress(f"the suite with {count} worker{'s' if count > 1 else ''}")
            _measure_suite(readings, suite, count)
    ratios = _ratios(readings, suite_workers=workers if suite else 0, is_peered=peer is not None)
    return BenchResult(
        target.label, identity, accelerator, readings.measurements(), ratios, qemu_version(), __version__
    )


def _ratios(readings: Readings, *, suite_workers: int, is_peered: bool) -> tuple[Ratio, ...]:
    """Return what the measurements mean to each other; SUITE_WORKERS is 0 where the suite did not run."""
    ratios = [
        Ratio("cold boot / resume", readings.median(_BOOT) / readings.median(_RESUME)),
        Ratio("boot at the pace of the clock / resume", readings.median(_UNHURRIED) / readings.median(_RESUME)),
        Ratio("boot per test / fresh_guest", readings.median("boot per test: the same test")
              / readings.median("fresh_guest with a small test")),
        Ratio("call over SSH / call over TCP", readings.median("call round trip, SSH channel")
              / readings.median("call round trip, TCP")),
    ]  # fmt: skip
    with contextlib.suppress(StopIteration):  # not every host tells
        ratios.append(Ratio(f"{_SHARING} / that shares nothing", readings.median(_SHARING) / readings.median(_ALONE)))
    if is_peered:
        fresh = readings.median("fresh_guest with a small test")
        ratios.append(Ratio(f"{PEER}'s fresh machine / fresh_guest", readings.median(_PEERS) / fresh))
    if suite_workers > 1:
        one, most = (readings.median(f"suite, {count} worker(s)") for count in (1, suite_workers))
        ratios.append(Ratio(f"suite with 1 worker / with {suite_workers}", one / most))
    return tuple(ratios)


def seconds_to_first_test(options: Sequence[str]) -> float:
    """Return how many seconds after its start `dfly-harness run OPTIONS` begins the first test's own work.

    By then sources are read, patches applied, tests collected, and a guest of the target is resumed and connected.
    Raises HarnessError when the run fails, and DeadlineError when it takes an hour.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "record.json"
        argv = [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())", "run", *options]
        entered = time.time()
        done = run_tethered(
            [*argv, "-k", FIRST_TEST, "--json", str(file)], deadline=_FIRST_DEADLINE, awaited="a run of one test to end"
        )
        if done.returncode != 0:
            raise HarnessError(f"the run fails, so its time says nothing: {_why(file, done.stderr)}")
        return datetime.fromisoformat(read_record(file).first_test).timestamp() - entered


def suite_name(workers: int) -> str:
    """Return what readings of the suite by WORKERS are called."""
    return f"suite, {workers} worker(s)"


def run_suite(suite: Sequence[str], workers: int) -> tuple[RunRecord, float]:
    """Let pytest run SUITE, which is to be handed to it, by WORKERS; return the record and how many seconds it took.

    Raises HarnessError when the suite does not pass, and DeadlineError when it takes six hours.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "record.json"
        argv = [sys.executable, "-m", "pytest", *suite, f"--{PYTEST_PREFIX}json={file}", "-q"]
        argv += ["-n", str(workers)] if workers > 1 else []
        began = time.perf_counter()
        done = run_tethered(argv, deadline=_SUITE_DEADLINE, awaited="a run of the suite to end")
        took = time.perf_counter() - began
        if done.returncode != 0:
            raise HarnessError(f"the suite does not pass, so its time says nothing: {_why(file, done.stderr)}")
        return read_record(file), took


def _measure_suite(readings: Readings, suite: Sequence[str], workers: int) -> None:
    name = suite_name(workers)
    record, took = run_suite(suite, workers)
    readings.add(name, "s", took)
    began, first = (datetime.fromisoformat(moment).timestamp() for moment in (record.started, record.first_test))
    inside = sum(result.seconds for result in record.results)
    waits = sum(result.seconds for result in record.results if result.lane == Lane.TIME_WARPED)
    readings.add(f"{name}: collection and resume, to the first test", "s", first - began)
    readings.add(f"{name}: inside tests", "s", inside)
    readings.add(f"{name}: of these, tests of time", "s", waits)
    readings.add(f"{name}: the longest test", "s", max(result.seconds for result in record.results))
    work = Workload.of(record)
    readings.add(f"{name}: a worker's time between two tests", "ms", work.between * 1000)
    for count in WORKERS:
        readings.add(f"{name}, as it would be with {count}", "s", play(work, count).seconds)


def _why(record: Path, said: str) -> str:
    """Return what RECORD says of a run that failed; where it left none, the complaint it SAID last."""
    if not record.exists():
        return said.strip().rpartition("\n")[2]
    found = read_record(record)
    return str(found.trouble) if found.trouble is not None else conclusion(found)

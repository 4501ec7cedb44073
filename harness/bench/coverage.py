# SPDX-License-Identifier: BSD-2-Clause
"""What it costs to note what is executed: the same work where it is noted and where it is not, in turn."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import replace

from harness import __version__
from harness.bench.bench import Readings, measure_host, run_suite, suite_name
from harness.bench.result import BenchResult, Ratio
from harness.coverage.kernel import kernel_code
from harness.guests.guest import MachineSize, Progress, Target
from harness.kernels.artefact import Kernel
from harness.machine.description import Accelerator
from harness.machine.executed import instrument
from harness.machine.qemu import qemu_version
from harness.options import PYTEST_PREFIX
from harness.processes.session import Session, Warmth
from harness.store import Store

FORKS, LISTS, STORM = 60, 60, 2500
_WORK = f"{FORKS} forks, {LISTS} listings, a storm of {STORM}"
_NOTED, _PLAIN = "noted", "not noted"


def measure_coverage(
    target: Target,
    kernel: Kernel,
    store: Store,
    size: MachineSize,
    names: Sequence[str],
    *,
    rounds: int,
    suite: Sequence[str] = (),
    workers: int = 1,
    progress: Progress = lambda _: None,
) -> BenchResult:
    """Do the same work ROUNDS times with and without noting what TARGET, of KERNEL, executes of NAMES, and SUITE, too.

    Measured are the clock and the CPU time of QEMU, of the suite that of all its processes; SUITE, if given, is what to
    hand to pytest, with WORKERS.  Raises UsageError where the code of NAMES is not known, HarnessError where there are
    no TCG plugins or the suite does not pass, and what resuming raises.
    """
    size = replace(size, accelerator=Accelerator.TCG)
    noting = instrument(kernel_code(store, kernel, names).ranges, qemu_version(), store.cache)
    kinds = {_PLAIN: Warmth(target, store, size), _NOTED: Warmth(target, store, size, instrument=noting)}
    kinds[_PLAIN].snapshot(progress)
    readings = Readings()
    identity = ""
    for number in range(rounds):
        measure_host(readings)
        # Each kind is the first of the two as often: a host that gets busier speaks against neither.
        for kind in sorted(kinds, reverse=number % 2 == 1):
            progress(f"round {number + 1} of {rounds}: {kind}")
            with Session.resume(kinds[kind]) as session:
                identity = session.guest.identity
                _work(readings, kind, session)
            if suite:
                _run(readings, kind, suite, workers, names if kind == _NOTED else ())
    of = [_WORK, *([suite_name(workers)] if suite else [])]
    ratios = tuple(
        Ratio(f"{what}, {_NOTED} / {_PLAIN}: {unit}", _median(readings, what, _NOTED, unit)
              / _median(readings, what, _PLAIN, unit))
        for what in of for unit in ("CPU time", "clock")
    )  # fmt: skip
    return BenchResult(
        target.label, identity, Accelerator.TCG, readings.measurements(), ratios, qemu_version(), __version__
    )


def _name(what: str, kind: str, unit: str) -> str:
    return f"{what}, {kind}: {unit}"


def _median(readings: Readings, what: str, kind: str, unit: str) -> float:
    return readings.median(_name(what, kind, unit))


def _work(readings: Readings, kind: str, session: Session) -> None:
    process, machine = session.hub.spawn(), session.guest.machine
    spent, began = machine.cpu_seconds, time.perf_counter()
    for _ in range(FORKS):
        child = process.fork()
        child.exit()
        process.wait4(child.pid)
    for _ in range(LISTS):
        process.sysctl.kern_proc_all()
    process.storm(STORM)
    readings.add(_name(_WORK, kind, "clock"), "s", time.perf_counter() - began)
    readings.add(_name(_WORK, kind, "CPU time"), "s", machine.cpu_seconds - spent)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(readings: Readings, kind: str, suite: Sequence[str], workers: int, names: Sequence[str]) -> None:
    noting = [f"--{PYTEST_PREFIX}coverage={','.join(names)}"] if names else []
    spent = _children_seconds()
    _, took = run_suite([*suite, *noting], workers)
    readings.add(_name(suite_name(workers), kind, "clock"), "s", took)
    readings.add(_name(suite_name(workers), kind, "CPU time"), "s", _children_seconds() - spent)

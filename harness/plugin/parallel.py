# SPDX-License-Identifier: BSD-2-Clause
"""Several workers at a time: how many a host can take, and how one test gets the host for itself."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

import pytest

from harness.errors import DeadlineError
from harness.files import write_whole
from harness.machine.accel import Choice, choose_accelerator
from harness.machine.description import Accelerator
from harness.plugin.options import options_of
from harness.store import Store

# What a worker takes besides its guest's memory: QEMU's translated code and buffers, pytest's process.
OVERHEAD = 250  # MiB
_PER_CORE = 8  # workers at most
_QUIET_DEADLINE = 7200.0
_MEASURING_DEADLINE = 3600.0
_POLL = 0.02


def affordable_workers(cores: int, available: int, memory: int, cpus: int) -> int:
    """Return how many machines of MEMORY MiB and CPUS a host with CORES and AVAILABLE MiB can take, at least one."""
    return max(1, min(cores // cpus, available // (memory + OVERHEAD)))


def demand_sensible_workers(config: pytest.Config) -> None:
    """Raise UsageError for a number of workers that no host bears: each is a process, whatever there is to do."""
    wanted = getattr(config.option, "numprocesses", None)
    cores = available_cores()
    if isinstance(wanted, int) and not 0 <= wanted <= _PER_CORE * cores:
        raise pytest.UsageError(
            f"-n {wanted}: a host with {cores} cores takes 0 to {_PER_CORE * cores} workers; `-n auto` is what pays"
        )


def available_memory() -> int:
    """Return how many MiB could be used before anything is swapped out."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError):  # not Linux: what is installed is an upper bound
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return kilobytes >> 10


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_name(config: pytest.Config) -> str:
    """Return which worker of its run this pytest is, or an empty string when it is none.

    Not what the environment says: a pytest started by a worker's test inherits that, and is no worker.
    """
    return str(getattr(config, "workerinput", {}).get("workerid", ""))


def accelerator_of_run(config: pytest.Config, store: Store) -> Choice:
    """Return the accelerator that was asked for, or else the fastest as measured when the run first needed one.

    All workers of a run on one host get the same.  Raises what choose_accelerator() raises.
    """
    if options_of(config).coverage is not None:
        return Choice(Accelerator.TCG, "the only one that notes what is executed")
    if (asked := options_of(config).target.accelerator) is not None:
        return Choice(asked)
    run = getattr(config, "workerinput", {}).get("testrunuid")
    if run is None:
        return choose_accelerator(store)
    file = _choice_file(run)
    with store.lock(file.stem, deadline=_MEASURING_DEADLINE):
        if file.exists():
            known = json.loads(file.read_text())
            return Choice(Accelerator(known["accelerator"]), known["reason"])
        choice = choose_accelerator(store)
        write_whole(file, json.dumps(asdict(choice)))
    return choice


def auto_workers(config: pytest.Config) -> int:
    """Return how many workers `-n auto` means; the oracle takes a core each, a machine its memory as well."""
    options = options_of(config)
    if options.oracle is not None:
        return available_cores()
    size = options.target.size
    return affordable_workers(available_cores(), available_memory(), size.memory, size.cpus)


@contextmanager
def as_quiet_as_needed(item: pytest.Item) -> Generator[None]:
    """Hold, around ITEM, the lock that its need for quiet asks for: `exclusive` waits until the other workers pause."""
    run = getattr(item.config, "workerinput", {}).get("testrunuid")
    if run is None:  # not under xdist: nobody else is there
        yield
        return
    with quiet(_lock(run), alone=item.get_closest_marker("exclusive") is not None):
        yield


def remove_shared_files(config: pytest.Config) -> None:
    """Remove what the workers shared, once all have gone."""
    session = config.pluginmanager.get_plugin("dsession")  # pytest-xdist's, where it controls workers
    if session is not None and (manager := getattr(session, "nodemanager", None)) is not None:
        lock, choice = _lock(manager.testrunuid), _choice_file(manager.testrunuid)
        kinds = kinds_file(manager.testrunuid)
        for file in (lock, lock.with_suffix(".gate"), choice, choice.with_suffix(".lock"), kinds):
            file.unlink(missing_ok=True)


def _lock(run: str) -> Path:
    return Store().folder("locks") / f"quiet-{run}"


def kinds_file(run: str) -> Path:
    """Return where the workers of RUN tell which kind of machine each test wants."""
    return Store().folder("locks") / f"kinds-{run}.json"


def _choice_file(run: str) -> Path:
    return Store().folder("locks") / f"accelerator-{run}.json"


def _taken(file: IO[str], mode: int) -> bool:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def quiet(file: Path, *, alone: bool, deadline: float = _QUIET_DEADLINE) -> Generator[None]:
    """Hold FILE's lock: with others, or ALONE.

    Who wants to be alone is not passed by: newcomers queue behind it.  Raises DeadlineError after DEADLINE seconds.
    """
    with ExitStack() as files:
        gate = files.enter_context(file.with_suffix(".gate").open("w"))
        lock = files.enter_context(file.open("w"))
        end = time.monotonic() + deadline
        awaited = "the other workers to pause" if alone else "a test that runs alone to end"
        for held, mode in ((gate, fcntl.LOCK_EX), (lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)):
            while not _taken(held, mode):
                if time.monotonic() > end:
                    raise DeadlineError(awaited, deadline)
                time.sleep(_POLL)  # a lock of this kind tells nobody that it is free
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield

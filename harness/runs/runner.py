# SPDX-License-Identifier: BSD-2-Clause
"""One run of a suite in a pytest process of its own, which leaves a record; for whoever makes many."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.config import HOME_VARIABLE
from harness.errors import ExitCode, UsageError
from harness.options import PYTEST_PREFIX
from harness.results.partial import is_under_way, partial_of
from harness.results.record import NO_TEST, RunRecord, Trouble, read_record
from harness.results.summary import conclusion
from harness.runs.hosts import HostLostError, HostPool
from harness.store import Store
from harness.tether import Tether

_RUN_DEADLINE = 6 * 3600.0
_STOP_DEADLINE = 30.0
_serial = itertools.count()  # tells the runs of one process apart


@dataclass(frozen=True)
class Run:
    """One run of the suite: its record, and what kept it from being whole.

    A run that went wrong half way has a record of what it learnt until then; `said` is why that is not all, in words,
    and empty for a run that is whole.  `trouble` is what the run itself noted down of it, and None where it left
    nothing.
    """

    record: RunRecord | None
    said: str = ""
    status: int = 0
    trouble: Trouble | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every test came to something that is not the harness's, the host's or the test's own failure."""
        return self.record is not None and not self.said

    @property
    def lost(self) -> tuple[str, ...]:
        """The tests of which this run says nothing, though they were to run: never begun, or their machine was lost."""
        if self.record is None:
            return ()
        known = {
            result.test for result in self.record.results if result.verdict.is_judged or result.verdict.is_left_out
        }
        unjudged = [result.test for result in self.record.results if result.test not in known]
        return tuple(dict.fromkeys([*unjudged, *self.record.not_run]))

    @property
    def is_kernels_fault(self) -> bool:
        """Whether the kernel itself prevented the run; anything else that does is not its doing."""
        return self.trouble is not None and self.trouble.kernel_died


class SuiteRunner:
    """Runs pytest from any number of threads, on other HOSTS if there are any; stop() ends the runs in order."""

    def __init__(self, store: Store, hosts: HostPool | None = None) -> None:
        self._store = store
        self._hosts = hosts
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ended = False

    def run(self, arguments: Sequence[str], seed: int, record: Path) -> Run:
        """Run the suite that pytest's ARGUMENTS mean, with SEED; its record goes to RECORD, its output beside it.

        What a run writes has a name of its own until it has ended: one that outlives whoever started it shares no file
        with the one that takes its place.  Raises UsageError when no test matches.
        """
        self._sweep(record)
        record.unlink(missing_ok=True)
        own = record.with_name(f".{record.name}.{os.getpid()}-{next(_serial)}")
        log, own_log = record.with_suffix(".log"), own.with_name(f"{own.name}.log")
        try:
            status = self._make_somewhere(arguments, seed, own, own_log)
        finally:
            with contextlib.suppress(OSError):
                own_log.replace(log)
        if status is None:
            return Run(None, "interrupted")
        return self._read(own, record, log, status)

    def _make_somewhere(self, arguments: Sequence[str], seed: int, own: Path, log: Path) -> int | None:
        """Make the run here or on the host that SEED draws; on another one if that is lost meanwhile."""
        if self._hosts is None:
            return self.make(arguments, seed, own, log)
        while True:
            with self._hosts.place(seed) as host:
                if host is None:
                    return None
                if host.is_here:
                    return self.make(arguments, seed, own, log)
                try:
                    return host.make(arguments, seed, own, log)
                except HostLostError as error:
                    self._hosts.lose(host, error)

    def make(self, arguments: Sequence[str], seed: int, own: Path, log: Path) -> int | None:
        """Run pytest on this host; its record goes to OWN, its output to LOG.

        Return its exit status, that of SIGKILL where it had to be ended, None if nothing is to begin any more.
        """
        argv = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--hypothesis-seed={seed}",
            *arguments, f"--{PYTEST_PREFIX}json={own}", f"--{PYTEST_PREFIX}no-again",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "DFLY_HARNESS_SEED": str(seed)}
        environment[HOME_VARIABLE] = str(self._store.home)
        return self._child(argv, environment, log)

    def _child(self, argv: Sequence[str], environment: dict[str, str], log: Path) -> int | None:
        with log.open("wb") as output, Tether() as tether:
            with self._lock:
                if self._ended:
                    return None
                child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=tether.environment(environment),
                    start_new_session=True,
                    pass_fds=(tether.fd,),
                )
                self._children.add(child)
            tether.started()
            try:
                return child.wait(_RUN_DEADLINE)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                return child.wait(_STOP_DEADLINE)
            finally:
                with self._lock:
                    self._children.discard(child)

    @staticmethod
    def _sweep(record: Path) -> None:
        """Remove what runs left that were to write RECORD and were killed; one that lives keeps its files."""
        for file in record.parent.glob(f".{record.name}.*"):
            partial = partial_of(file.with_suffix("") if file.suffix == ".log" else file)
            with contextlib.suppress(OSError):
                if not (partial.exists() and is_under_way(partial)):
                    file.unlink()

    def _read(self, own: Path, file: Path, log: Path, status: int) -> Run:
        """Return what the run said in OWN, which becomes FILE."""
        died = f"pytest was killed by signal {-status}" if status < 0 else f"pytest ended with status {status}"
        partial = partial_of(own)
        if not own.exists() and not partial.exists():
            return Run(None, f"{died} and left no record; what it said is in {log}", status)
        record = read_record(own)
        if record.incomplete:
            record = replace(record, incomplete=f"{record.incomplete} ({died})")
            record.write(self._store, file)
            partial.unlink(missing_ok=True)
        else:
            own.replace(file)
        trouble = record.trouble
        if trouble is not None and trouble.text == NO_TEST:
            raise UsageError(NO_TEST)
        run = Run(record, record.incomplete or (str(trouble) if trouble is not None else ""), status, trouble)
        if status not in {ExitCode.PASSED, ExitCode.TEST_FAILED} or run.lost:
            run = replace(run, said=run.said or conclusion(record))
        return run

    def stop(self) -> None:
        """End all runs as Ctrl-C does, and make no more."""
        with self._lock:
            self._ended = True
            children = list(self._children)
        if self._hosts is not None:
            self._hosts.stop()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)
        end = time.monotonic() + _STOP_DEADLINE
        for child in children:
            try:
                child.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()

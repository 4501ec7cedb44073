# SPDX-License-Identifier: BSD-2-Clause
"""One run of a suite in a pytest process of its own, which leaves a record; for whoever makes many."""

from __future__ import annotations

import contextlib
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
from harness.results.record import NO_TEST, RunRecord, Trouble, read_record
from harness.results.summary import conclusion
from harness.store import Store

_RUN_DEADLINE = 6 * 3600.0
_STOP_DEADLINE = 30.0


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
    """Runs pytest from any number of threads; stop() ends the runs under way in order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ended = False

    def run(self, arguments: Sequence[str], seed: int, record: Path) -> Run:
        """Run the suite that pytest's ARGUMENTS mean, with SEED; its record goes to RECORD, its output beside it.

        Raises UsageError when no test matches.
        """
        log = record.with_suffix(".log")
        record.unlink(missing_ok=True)
        argv = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--hypothesis-seed={seed}",
            *arguments, f"--{PYTEST_PREFIX}json={record}",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "DFLY_HARNESS_SEED": str(seed)}
        environment[HOME_VARIABLE] = str(self._store.home)
        with log.open("wb") as output:
            with self._lock:
                if self._ended:
                    return Run(None, "interrupted")
                child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,
                )
                self._children.add(child)
            try:
                status = child.wait(_RUN_DEADLINE)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait(_STOP_DEADLINE)
                with self._lock:
                    self._children.discard(child)
                return Run(None, f"pytest did not end within {_RUN_DEADLINE:g} s; what it said is in {log}")
            with self._lock:
                self._children.discard(child)
        return self._read(record, log, status)

    @staticmethod
    def _read(file: Path, log: Path, status: int) -> Run:
        if not file.exists():
            return Run(None, f"pytest ended with status {status} and left no record; what it said is in {log}", status)
        record = read_record(file)
        trouble = record.trouble
        if trouble is not None and trouble.text == NO_TEST:
            raise UsageError(NO_TEST)
        run = Run(record, str(trouble) if trouble is not None else "", status, trouble)
        if status not in {ExitCode.PASSED, ExitCode.TEST_FAILED} or run.lost:
            run = replace(run, said=run.said or conclusion(record))
        return run

    def stop(self) -> None:
        """End all runs as Ctrl-C does, and make no more."""
        with self._lock:
            self._ended = True
            children = list(self._children)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)
        end = time.monotonic() + _STOP_DEADLINE
        for child in children:
            try:
                child.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()

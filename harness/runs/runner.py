"""One run of a suite in a pytest process of its own, which leaves a record; for campaigns that make many."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.config import HOME_VARIABLE
from harness.errors import UsageError
from harness.store import Store

_STOP_DEADLINE = 30.0
_SAID = re.compile(
    r"^(?:dfly-harness: |.*pytest: error: |ERROR: (?!usage)|!+ (?:_pytest\.outcomes\.)?Exit: )(.*?)(?: !+)?$",
    re.MULTILINE,
)
# A kernel that dies on the way up is at fault itself; anything else that prevents a run is not its doing.
_KERNEL_AT_FAULT = ("panicked",)


@dataclass(frozen=True)
class Run:
    """One run of the suite: its record, or why there is none."""

    record: Mapping[str, Any] | None
    said: str = ""
    status: int = 0

    @property
    def is_kernels_fault(self) -> bool:
        """Whether the kernel itself prevented the run."""
        return self.record is None and any(word in self.said for word in _KERNEL_AT_FAULT)


class SuiteRunner:
    """Runs pytest for a campaign, from any number of threads; stop() ends the runs under way in order."""

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
            *arguments, "--json", str(record),
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
            status = child.wait()
            with self._lock:
                self._children.discard(child)
        if status == pytest.ExitCode.NO_TESTS_COLLECTED:
            raise UsageError("no test matches")
        return self._read(record, log, status)

    @staticmethod
    def _read(record: Path, log: Path, status: int) -> Run:
        said = _SAID.findall(log.read_text(errors="replace"))
        if status in {0, 1} and record.exists():
            return Run(json.loads(record.read_text()), status=status)
        record.unlink(missing_ok=True)
        if said:
            return Run(None, said[-1], status)
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        return Run(None, last or f"pytest ended with status {status}", status)

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

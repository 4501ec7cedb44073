# SPDX-License-Identifier: BSD-2-Clause
"""The far side of a run on another host: makes the run that is asked for on standard input, for whoever keeps asking.

The asker writes one JSON object, and then an empty line every few seconds as long as it wants the run.  When the lines
end or stay away, for whatever reason, the run is ended in order: nothing is left running for an asker that is gone.
The answer is one JSON object on standard output.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import harness
from harness.config import share
from harness.errors import HarnessError, UsageError
from harness.machine.accel import probe_accelerators
from harness.machine.description import Accelerator
from harness.machine.qemu import qemu_version
from harness.results.partial import partial_of
from harness.results.record import PARTIAL
from harness.runs.carried import SHARE, SLOTS, TESTS, resolved
from harness.runs.digests import digest_of_harness, digest_of_tests
from harness.runs.hosts import SILENCE, About
from harness.runs.runner import SuiteRunner
from harness.store import Store

_INPUT = 0
_LINE = 4096


def tests_folder(store: Store, name: str) -> Path:
    """Return where tests lie that an asker brought along under NAME."""
    if not re.fullmatch(r"[0-9a-f]{16}", name):
        raise UsageError(f"{name!r} is no name of tests that were brought along")
    return store.folder("slots") / f"tests-{name}"


def about_here(store: Store, accelerator: Accelerator | None = None) -> About:
    """Return what this host is; with ACCELERATOR also whether machines run on it here."""
    qemu = trouble = ""
    if accelerator is not None:
        try:
            qemu = qemu_version()
            (verdict,) = probe_accelerators(store, (accelerator,))
            trouble = "" if verdict.usable else str(verdict)
        except HarnessError as error:
            trouble = str(error)
    for name in ("blobs", "slots"):  # where things are brought to
        store.folder(name)
    has_rsync = shutil.which("rsync") is not None
    suites = digest_of_tests([share() / "suites"])
    return About(harness.__version__, digest_of_harness(), suites, str(store.home), has_rsync, qemu, trouble)


def asked(arguments: Sequence[str], store: Store, tests: str) -> list[str]:
    """Return ARGUMENTS with the folders put in that they leave open."""
    meant = {SHARE: str(share()), SLOTS: str(store.folder("slots"))}
    if tests:
        meant[TESTS] = str(tests_folder(store, tests))
    return [resolved(word, meant) for word in arguments]


class _Asker:
    """Watches standard input, and ends RUNNER's run when nobody is there any more."""

    def __init__(self, runner: SuiteRunner) -> None:
        self._runner = runner
        threading.Thread(target=self._watch, daemon=True, name="asker").start()

    def _watch(self) -> None:
        heard = time.monotonic()
        while (left := heard + SILENCE - time.monotonic()) > 0:
            if not select.select([_INPUT], [], [], left)[0]:
                continue
            if not os.read(_INPUT, _LINE):
                break
            heard = time.monotonic()
        self._runner.stop()


def attend(store: Store) -> int:
    """Read a request, make the run, write the answer; return the exit status.

    Raises UsageError for what is no request.
    """
    try:
        request = json.loads(_first_line())
        arguments = asked(request["arguments"], store, request["tests"])
        seed = int(request["seed"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"this is no request for a run ({error}): the command is for the harness itself") from None
    runner = SuiteRunner(store)
    _Asker(runner)
    with store.scratch("slot") as folder:
        record, log = folder / "run.json", folder / "run.log"
        status = runner.make(arguments, seed, record, log)
        # A run that was killed has left what it knew until then.
        written = {name: file for name, file in (("", record), (PARTIAL, partial_of(record))) if file.exists()}
        files = {name: file.read_text() for name, file in written.items()}
        said = log.read_text(errors="replace") if log.exists() else ""
    sys.stdout.write(json.dumps({"status": status, "files": files, "log": said}) + "\n")
    sys.stdout.flush()
    return 0


def _first_line() -> bytes:
    """Read byte by byte, so that what comes later is left to whoever watches."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(_INPUT, 1)):
        line += byte
    return line


def describe(store: Store, accelerator: Accelerator | None) -> int:
    """Write what this host is as JSON; return the exit status."""
    sys.stdout.write(json.dumps(asdict(about_here(store, accelerator))) + "\n")
    return 0

# SPDX-License-Identifier: BSD-2-Clause
"""A record while its run goes on: what is known so far, on disk line by line, should the run not live to write it.

Every line is a JSON object with one key.  `record` is the record without results, the last one counts; `planned` are
the tests that are to run; `result` is one of them, `first` one that is about to be run again, `death` a death of the
kernel that was noticed late, once more when its test has run again.  A last line that is cut off is passed over.  The
writer holds a lock on the file as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import ExitCode
from harness.results.record import PARTIAL, RunRecord, TestResult, charge, keep

UNDER_WAY = "the run is still under way"
CUT_OFF = "the run did not come to its end: it was killed, or its disk or its host gave out"


class PartialRecord:
    """The file of a run that goes on, which will be FILE; RECORD is what is known at its beginning.

    A later write that fails, for a full disk say, is made up for by the next one; what it takes is bounded by what is
    said.  Raises OSError when the file cannot be made or does not take its first lines.
    """

    def __init__(self, file: Path, record: RunRecord, planned: Sequence[str] = ()) -> None:
        self.file = partial_of(file)
        part = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        self._number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._unwritten = b""
        self._refusal: OSError | None = None
        try:
            fcntl.flock(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.begin(record, planned)
            part.replace(self.file)
            file.unlink(missing_ok=True)  # what it held is no longer what this run came to
        except OSError:
            os.close(self._number)
            with contextlib.suppress(OSError):
                part.unlink()
            raise

    def begin(self, record: RunRecord, planned: Sequence[str] = ()) -> None:
        """Say what RECORD knows, its results included, and which tests are PLANNED.

        Raises OSError when the file does not take all of it: such a record would know less than the one it replaces.
        """
        self.head(record)
        if planned:
            self._say("planned", list(planned))
        for result in record.results:
            self.add(result)
        if self._refusal is not None:
            raise self._refusal

    def head(self, record: RunRecord) -> None:
        """Say what is known of the run by now."""
        self._say("record", replace(record, results=(), not_run=()).to_json())

    def add(self, result: TestResult, *, is_death: bool = False, is_first: bool = False) -> None:
        """Say what a test came to; with IS_FIRST before it is run again, with IS_DEATH what was noticed after it."""
        self._say("death" if is_death else "first" if is_first else "result", result.to_json())

    def _say(self, key: str, value: Any) -> None:
        self._unwritten += json.dumps({key: value}).encode() + b"\n"
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._number, self._unwritten) :]
            self._refusal = None
        except OSError as error:
            self._refusal = error

    @property
    def has_content(self) -> bool:
        """Whether the file tells anything; the file may be gone, too."""
        try:
            return self.file.stat().st_size > 0
        except OSError:
            return False

    def close(self, *, keep_file: bool = False) -> None:
        """End it; the file goes unless the record proper could not be written."""
        if not keep_file:
            with contextlib.suppress(OSError):
                self.file.unlink()
        os.close(self._number)


def partial_of(file: Path) -> Path:
    """Return where the run that will write FILE keeps what it knows so far."""
    return file if file.name.endswith(PARTIAL) else file.with_name(file.name + PARTIAL)


def is_under_way(file: Path) -> bool:
    """Tell whether the run that writes the partial record FILE lives."""
    with file.open("rb") as lines:
        try:
            fcntl.flock(lines, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_partial(file: Path) -> RunRecord:
    """Return what the partial record in FILE knows; raises OSError, and what RunRecord.from_json() raises."""
    under_way = is_under_way(file)
    data: dict[str, Any] | None = None
    planned: list[str] = []
    results: list[TestResult] = []
    deaths: list[TestResult] = []
    first: dict[str, TestResult] = {}
    for key, value in _lines(file.read_bytes()):
        if key == "record":
            data = value
        elif key == "planned":
            planned = value
        elif key == "result":
            result = TestResult.from_json(value)
            first.pop(result.test, None)
            keep(results, result)
        elif key == "first":
            result = TestResult.from_json(value)
            first[result.test] = result
        elif key == "death":
            death = TestResult.from_json(value)
            deaths = [*(each for each in deaths if replace(each, again=()) != replace(death, again=())), death]
    if data is None:
        raise ValueError("its first line is cut off")
    for result in first.values():
        keep(results, result)
    for death in deaths:
        charge(results, death)
    known = {result.test for result in results}
    return replace(
        RunRecord.from_json(data),
        results=tuple(results),
        not_run=tuple(test for test in planned if test not in known),
        incomplete=UNDER_WAY if under_way else CUT_OFF,
        exit_status=int(ExitCode.HARNESS_FAILED),
    )


def _lines(content: bytes) -> Iterator[tuple[str, Any]]:
    lines = content.split(b"\n")
    whole: Iterable[bytes] = lines[:-1]  # what follows the last line's end is cut off
    for line in whole:
        ((key, value),) = json.loads(line).items()
        yield key, value

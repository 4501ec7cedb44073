# SPDX-License-Identifier: BSD-2-Clause
"""Who turns outcomes into a record: collects what tests came to, from workers too, and writes it all down."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ExitCode
from harness.guests.targets import THREE_COMMANDS
from harness.plugin.evidence import DECLARED
from harness.plugin.outcome import plain_result, result_of
from harness.plugin.status import exit_status
from harness.plugin.supply import GuestNotes
from harness.plugin.tested import TestedTarget
from harness.report.publish import publish
from harness.results.record import NO_TEST, RunRecord, TestResult, Trouble, charge, keep
from harness.results.verdict import Verdict
from harness.runs.options import RunOptions
from harness.store import Store

_STATE = "dfly_state"


def state_of(notes: GuestNotes | None, trouble: Trouble | None, deaths: Sequence[TestResult] = ()) -> dict[str, Any]:
    """Return what a process knows of its machines as plain data that travels between xdist's processes."""
    return {
        "notes": notes.to_json() if notes is not None else None,
        "trouble": trouble.to_json() if trouble is not None else None,
        "deaths": [death.to_json() for death in deaths],
    }


def attach_state(report: pytest.TestReport, state: dict[str, Any]) -> None:
    """Let REPORT carry STATE, so that it is known even of a worker that is stopped before its end."""
    vars(report)[_STATE] = state


class Ledger:
    """The results of a whole run; of the processes of a run the controller's counts, of a single one its own."""

    def __init__(self, tested: TestedTarget, options: RunOptions, store: Store) -> None:
        self._tested = tested
        self._options = options
        self._store = store
        self._started = time.monotonic()
        self._began = datetime.now(UTC)
        self._first_call = 0.0  # seconds since 1970
        self._notes: dict[str, GuestNotes] = {}
        self._deaths: dict[str, list[TestResult]] = {}  # by worker
        self._declared: Counter[str] = Counter()
        self._results: list[TestResult] = []
        self._planned: tuple[str, ...] = ()
        self._page_error = ""
        self._uncollected = False
        self.trouble: Trouble | None = None
        #: The number of the signal that ended the run.
        self.signal: int | None = None
        #: Where the record was written, once it was.
        self.written: Path | None = None

    # What is told of

    def plan(self, tests: Sequence[str]) -> None:
        """Take in which TESTS are to run."""
        self._planned = self._planned or tuple(tests)

    def add(self, report: pytest.TestReport) -> None:
        """Take in what a test came to."""
        if (state := vars(report).pop(_STATE, None)) is not None:
            self.learn(str(getattr(report, "worker_id", "")), state)
        for title, text in report.sections:
            if title == DECLARED:
                self._declared.update({line.partition(": ")[2] for line in text.splitlines()})
        if report.when == "call":
            self._first_call = min(self._first_call or report.start, report.start)
        if report.when == "call" or not report.passed:
            keep(self._results, result_of(report) or plain_result(report))

    def learn(self, worker: str, state: dict[str, Any]) -> None:
        """Take in what WORKER, or this process under an empty name, knows of its machines."""
        if state["notes"] is not None:
            self._notes[worker] = GuestNotes.from_json(state["notes"])
        if state["deaths"]:
            self._deaths[worker] = [TestResult.from_json(death) for death in state["deaths"]]
        if state["trouble"] is not None and self.trouble is None:
            self.trouble = Trouble.from_json(state["trouble"])

    def add_collection(self, report: pytest.CollectReport) -> None:
        """Note that a test file does not load."""
        self._uncollected = self._uncollected or report.failed

    # The end

    def finish(self, pytests: int) -> int:
        """Write record and page of a run that pytest would end with PYTESTS; return the exit status."""
        for death in self.late_deaths:
            charge(self._results, death)
        verdicts = [result.verdict for result in self._results]
        status = exit_status(
            pytests,
            verdicts,
            signal=self.signal,
            trouble=self.trouble.verdict if self.trouble is not None else None,
            is_uncollected=self._uncollected,
        )
        if pytests == pytest.ExitCode.NO_TESTS_COLLECTED and self.trouble is None:
            self.trouble = Trouble(Verdict.HARNESS_ERROR, NO_TEST)
        return self._write(status) if self._is_about_target else status

    @property
    def late_deaths(self) -> list[TestResult]:
        """Deaths of the kernel that were noticed when a machine was given up."""
        return [death for deaths in self._deaths.values() for death in deaths]

    def refuse(self, error: pytest.UsageError) -> None:
        """Write a record, where one was asked for, of a run that could not begin because of a user's mistake."""
        if self._options.json is not None and self.written is None:
            self.trouble = Trouble(Verdict.HARNESS_ERROR, "; ".join(map(str, error.args)))
            with contextlib.suppress(OSError, pytest.UsageError):
                self.written = self._record(ExitCode.USAGE, target="").write(self._store, self._options.json)

    @property
    def _is_about_target(self) -> bool:
        """Whether a record says something: one of a run that needed no machine, unasked for, would mislead."""
        used = bool(self._notes) or (self.trouble is not None and self.trouble.text != NO_TEST)
        asked = self._options.json is not None or self._options.html is not None
        return used or asked or (self._options.live and self._tested.variant is None)

    def _record(self, status: int, target: str | None = None) -> RunRecord:
        notes = [*self._notes.values()]
        known = notes[0] if notes else None
        return RunRecord(
            target if target is not None else known.target if known is not None else self._tested.label,
            is_dragonfly=known.is_dragonfly if known is not None else target is None and self._tested.is_dragonfly,
            identity=known.identity if known is not None else "",
            machine=known.machine if known is not None else "",
            options=self._options.target.to_json() if self._tested.variant is None else {},
            started=self._began.isoformat(timespec="seconds"),
            first_test=_moment(self._first_call),
            seconds=round(time.monotonic() - self._started, 2),
            starts=sum(one.starts for one in notes),
            failed_resumes=sum(one.failed_resumes for one in notes),
            warp=next((one.warp for one in notes if one.warp), ""),
            features=next((one.features for one in notes if one.features), ""),
            # Workers on other hosts may have another one.
            accelerator=", ".join(sorted({one.accelerator for one in notes if one.accelerator})),
            accelerator_reason=known.accelerator_reason if known is not None else "",
            quirks=known.quirks if known is not None else (),
            workers=max(1, len(notes)),
            exit_status=status,
            trouble=self.trouble,
            results=tuple(self._results),
            not_run=self._not_run(),
        )

    def _not_run(self) -> tuple[str, ...]:
        known = {result.test for result in self._results}
        return tuple(test for test in self._planned if test not in known)

    def _write(self, status: int) -> int:
        record = self._record(status)
        try:
            self.written = record.write(self._store, self._options.json)
        except OSError as error:  # a full disk must not look like a finished run
            self.trouble = Trouble(Verdict.HARNESS_ERROR, f"the run's record could not be written: {error}")
            status = exit_status(0, (), signal=self.signal, trouble=Verdict.HARNESS_ERROR)
            record = replace(record, exit_status=status, trouble=self.trouble)
            with contextlib.suppress(OSError):  # among the store's, if that has room
                self.written = record.write(self._store)
        try:
            publish(record, self._options.html)
        except OSError as error:
            self._page_error = f"the run's report could not be written: {error}"
            status = exit_status(0, (), signal=self.signal, trouble=Verdict.HARNESS_ERROR)
            if self.written is not None and os.access(self.written.parent, os.W_OK):
                with contextlib.suppress(OSError):
                    replace(record, exit_status=status).write(self._store, self.written)
        return status

    def say(self, line: Callable[..., None], section: Callable[..., None]) -> None:
        """Say at the end of pytest's output which kernel the results are about, and where they are."""
        for death in self.late_deaths:
            line(f"{death.verdict.mark}: {death.test}: {death.reason.partition(chr(10))[0]}", red=True)
        if self.trouble is not None:
            line(f"dfly-harness: {self.trouble}", red=True)
        label = next((one.target for one in self._notes.values()), "") or self._shown_label
        if label:
            is_dragonfly = self._tested.is_dragonfly
            section("target", bold=True, red=not is_dragonfly)
            line(label)
            self._say_how(line)
            if not is_dragonfly and self._tested.variant is None:
                line("These results say nothing about DragonFly. To get a DragonFly target:")
                for command in THREE_COMMANDS:
                    line(f"    {command}")
        if self.written is not None:
            line(f"record: {self.written}")
        for why, count in self._declared.items():
            line(f"known defect: {count} tests left the process table unsound: {why}")
        if self._page_error:
            line(f"dfly-harness: {self._page_error}", red=True)
        elif self._options.html is not None and self.written is not None:
            line(f"report: {self._options.html}")

    def _say_how(self, line: Callable[..., None]) -> None:
        known = next(iter(self._notes.values()), None)
        if known is not None and known.features:
            line(f"kernel features: {known.features}")
        if known is not None and known.accelerator:
            line(f"accelerator: {known.accelerator} ({known.accelerator_reason})")
            for quirk in known.quirks:
                line(f"quirk: {quirk}")

    @property
    def _shown_label(self) -> str:
        return self._tested.label if self._tested.variant is not None or self.written is not None else ""


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds") if seconds else ""

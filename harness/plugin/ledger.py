# SPDX-License-Identifier: BSD-2-Clause
"""Who turns outcomes into a record: collects what tests came to, from workers too, and writes it all down."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest

from harness.config import share
from harness.errors import ExitCode, UsageError
from harness.guests.targets import first_commands
from harness.options import PYTEST_PREFIX
from harness.plugin.evidence import DECLARED
from harness.plugin.outcome import further_of, plain_result, result_of
from harness.plugin.status import exit_status
from harness.plugin.supply import GuestNotes
from harness.plugin.tested import TestedTarget
from harness.report.closing import failure_lines, last_words, left_out_lines
from harness.report.coverage import coverage_lines
from harness.report.publish import publish
from harness.report.summary import changes_lines
from harness.results.coverage import Coverage
from harness.results.durations import keep_durations
from harness.results.neighbours import with_changes
from harness.results.partial import UNDER_WAY, PartialRecord
from harness.results.record import NO_TEST, PARTIAL, RunRecord, TestResult, Trouble, charge, keep, read_record
from harness.results.summary import not_again_words
from harness.results.verdict import Side, Verdict
from harness.runs.options import RunOptions
from harness.store import Store

_STATE = "dfly_state"
# What a run that is resumed was told once more, and is not told the next time.
_RESUME = f"--{PYTEST_PREFIX}resume="


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


@dataclass(frozen=True)
class Invocation:
    """How pytest was called: its arguments, in which FOLDER; `root` is where tests lie that are no suite of ours."""

    command: tuple[str, ...] = ()
    folder: str = ""
    root: str = ""

    @classmethod
    def of(cls, config: pytest.Config) -> Self:
        """Return how the pytest of CONFIG was called."""
        given = config.invocation_params
        root = "" if config.rootpath == share() else str(config.rootpath)
        words = tuple(str(word) for word in given.args if not str(word).startswith(_RESUME))
        return cls(words, str(given.dir), root)


def is_settled(result: TestResult) -> bool:
    """Tell whether a test has come to something that a resumed run need not try again."""
    return result.verdict.against not in {Side.SURROUNDINGS, Side.BOOT}


class Ledger:
    """The results of a whole run; of the processes of a run the controller's counts, of a single one its own."""

    def __init__(
        self, tested: TestedTarget, options: RunOptions, store: Store, invocation: Invocation = Invocation()
    ) -> None:
        self._invocation = invocation
        self._tested = tested
        self._options = options
        self._store = store
        self._started = time.monotonic()
        self._began = datetime.now(UTC)
        self._first_call = 0.0  # seconds since 1970
        self._notes: dict[str, GuestNotes] = {}
        self._deaths: dict[str, list[TestResult]] = {}  # by worker
        self._not_again: dict[str, int] = {}  # by worker
        self._declared: Counter[str] = Counter()
        self._results: list[TestResult] = []
        self._first: dict[str, TestResult] = {}  # of tests that are being run again
        self._planned: tuple[str, ...] = ()
        self._partial: PartialRecord | None = None
        self._unwritable = False
        self._resumed: RunRecord | None = None
        self._resumed_file: Path | None = None
        self._page_error = ""
        self._uncollected = False
        self.trouble: Trouble | None = None
        #: Of a run that is a shard: what all shards have in common.
        self.selection = ""
        #: The number of the signal that ended the run.
        self.signal: int | None = None
        #: What the tests ran of the kernel's code, where that was asked for.
        self.coverage = Coverage()
        self._changes: RunRecord | None = None  # the record that says what has changed
        #: Where the record was written, once it was.
        self.written: Path | None = None

    # What is told of

    def plan(self, tests: Sequence[str]) -> None:
        """Take in which TESTS are to run."""
        self._planned = self._planned or tuple(tests)
        self._stream()

    def resume(self, file: Path) -> frozenset[str]:
        """Go on with the run that left the record in FILE; return the tests that need not run again.

        What the harness or the host kept from being judged does.  Raises pytest.UsageError for what is no record, or
        one of a run that is still under way.
        """
        try:
            record = read_record(file)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None
        if record.incomplete == UNDER_WAY:
            raise pytest.UsageError(f"{file}: {UNDER_WAY}; two runs into one record would spoil it")
        self._resumed, self._resumed_file = record, file
        self._results = [result for result in record.results if is_settled(result)]
        self._began = datetime.fromisoformat(record.started)
        return frozenset(result.test for result in self._results)

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
            self._keep(result_of(report) or plain_result(report))
        for result in further_of(report):
            self._keep(result)

    def add_first(self, report: pytest.TestReport) -> None:
        """Take in what a test came to that is about to be run again; the last word on it follows, or never does."""
        if (result := result_of(report)) is not None:
            self._first[result.test] = result
            if (partial := self._stream()) is not None:
                partial.add(result, is_first=True)

    def _keep(self, result: TestResult) -> None:
        self._first.pop(result.test, None)
        keep(self._results, result)
        if (partial := self._stream()) is not None:
            partial.add(result)

    def learn(self, worker: str, state: dict[str, Any]) -> None:
        """Take in what WORKER, or this process under an empty name, knows of its machines."""
        if state["notes"] is not None:
            self._notes[worker] = GuestNotes.from_json(state["notes"])
        self.selection = state["selection"] or self.selection
        self._not_again[worker] = state["not_again"]
        known = self._deaths.get(worker, [])
        deaths = [TestResult.from_json(death) for death in state["deaths"]]
        if deaths:
            self._deaths[worker] = deaths
        if state["trouble"] is not None and self.trouble is None:
            self.trouble = Trouble.from_json(state["trouble"])
        if (partial := self._stream()) is not None:
            partial.head(self._record(ExitCode.HARNESS_FAILED))
            for death in deaths:
                if death not in known:
                    partial.add(death, is_death=True)

    def _stream(self) -> PartialRecord | None:
        """Return where what is learnt goes at once; None where no record will be written, or none can be yet."""
        if self._partial is None and not self._unwritable and self._is_about_target:
            record = self._record(ExitCode.HARNESS_FAILED)
            places = [record.file(self._store)]
            if self._options.json is not None:
                places.insert(0, self._options.json)
            for place in places:
                with contextlib.suppress(OSError):
                    self._partial = PartialRecord(place, record, self._planned)
                    break
            else:
                self._unwritable = True  # which is said at the end, when the record cannot be written either
            self._replace_resumed()
        return self._partial

    def _replace_resumed(self) -> None:
        """Remove the partial record that this run goes on with, once all of it is in this run's own."""
        old = self._resumed_file
        if old is None or self._partial is None or not old.name.endswith(PARTIAL):
            return
        if old.resolve() != self._partial.file.resolve():
            with contextlib.suppress(OSError):
                old.unlink()

    def add_collection(self, report: pytest.CollectReport) -> None:
        """Note that a test file does not load."""
        self._uncollected = self._uncollected or report.failed

    # The end

    def finish(self, pytests: int) -> int:
        """Write record and page of a run that pytest would end with PYTESTS; return the exit status."""
        for first in self._first.values():
            keep(self._results, first)
        for death in self.late_deaths:
            charge(self._results, death)
        if pytests == pytest.ExitCode.NO_TESTS_COLLECTED and self._results:
            pytests = pytest.ExitCode.OK  # nothing was left to be done of a run that was resumed
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
        if not self._is_about_target:
            return status
        status = self._write(status)
        if self._partial is not None:
            self._partial.close(keep_file=self.written is None)
        return status

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
            started=self._began.isoformat(timespec="milliseconds"),  # runs on the oracle take less than a second
            first_test=_moment(self._first_call),
            seconds=round(time.monotonic() - self._started, 2),
            starts=sum(one.starts for one in notes),
            failed_resumes=sum(one.failed_resumes for one in notes),
            not_again=sum(self._not_again.values()),
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
            **self._tested.subject(),
            root=self._invocation.root,
            command=self._invocation.command,
            folder=self._invocation.folder,
            shard=str(self._options.shard or ""),
            selection=self.selection,
            coverage=self.coverage,
        )

    def _not_run(self) -> tuple[str, ...]:
        known = {result.test for result in self._results}
        return tuple(test for test in self._planned if test not in known)

    def _write(self, status: int) -> int:
        record = self._merged(self._record(status))
        if self._options.live:
            with contextlib.suppress(OSError):
                record = with_changes(record, self._store)
        self._changes = record
        if not self._invocation.root and self._tested.variant is None:
            keep_durations(self._store, record.results)
        try:
            self.written = record.write(self._store, self._options.json)
            if self._options.live and self._options.json is not None:
                with contextlib.suppress(OSError):  # what later runs are compared with is a convenience
                    record.write(self._store)
            self._remove_superseded(record)
        except OSError as error:  # a full disk must not look like a finished run
            self.trouble = Trouble(Verdict.HARNESS_ERROR, f"the run's record could not be written: {error}")
            status = exit_status(0, (), signal=self.signal, trouble=Verdict.HARNESS_ERROR)
            record = replace(record, exit_status=status, trouble=self.trouble)
            with contextlib.suppress(OSError):  # among the store's, if that has room
                self.written = record.write(self._store)
        try:
            publish(record, self._options.html, self._options.annotate)
        except OSError as error:
            self._page_error = f"the run's report could not be written: {error}"
            status = exit_status(0, (), signal=self.signal, trouble=Verdict.HARNESS_ERROR)
            if self.written is not None and os.access(self.written.parent, os.W_OK):
                with contextlib.suppress(OSError):
                    replace(record, exit_status=status).write(self._store, self.written)
        return status

    def _remove_superseded(self, record: RunRecord) -> None:
        """Remove what the store has of the run that this one went on with, once it has RECORD: they are one run."""
        kept = record.file(self._store)
        if self._resumed is None or not kept.exists():
            return
        for file in kept.parent.glob(f"{kept.stem.rpartition('-')[0]}-*.json"):
            with contextlib.suppress(UsageError, OSError):
                if file != kept and read_record(file) == self._resumed:
                    file.unlink()

    def _merged(self, record: RunRecord) -> RunRecord:
        """Return RECORD with what the run knew before it was resumed."""
        old = self._resumed
        if old is None:
            return record
        return replace(
            record,
            seconds=round(record.seconds + old.seconds, 2),
            starts=record.starts + old.starts,
            failed_resumes=record.failed_resumes + old.failed_resumes,
            not_again=record.not_again + old.not_again,
            first_test=old.first_test or record.first_test,
            identity=record.identity or old.identity,
            machine=record.machine or old.machine,
            features=record.features or old.features,
            accelerator=record.accelerator or old.accelerator,
            accelerator_reason=record.accelerator_reason or old.accelerator_reason,
            command=old.command,
            folder=old.folder,
        )

    def result(self, test: str) -> TestResult | None:
        """Return what TEST came to, as far as that is known."""
        return next((result for result in reversed(self._results) if result.test == test), None)

    @property
    def judged(self) -> frozenset[str]:
        """The tests that have run to a verdict on the kernel."""
        return frozenset(result.test for result in self._results if result.verdict.is_judged)

    def say(self, line: Callable[..., None], section: Callable[..., None]) -> None:
        """Say at the end of pytest's output which kernel the results are about, and where they are."""
        for death in self.late_deaths:
            said = death.words if death.again else death.verdict.mark
            line(f"{said}: {death.test}: {death.reason.partition(chr(10))[0]}", red=True)
        if self.trouble is not None:
            line(f"dfly-harness: {self.trouble}", red=True)
        label = next((one.target for one in self._notes.values()), "") or self._shown_label
        if label:
            is_dragonfly = self._tested.is_dragonfly
            section("target", bold=True, red=not is_dragonfly)
            line(label)
            self._say_how(line)
        if self._options.live:
            for text in failure_lines(self._results):
                line(text, red=True)
            for text in left_out_lines(self._results):
                line(text)
        if self._changes is not None:
            for text in changes_lines(self._changes):
                line(text)
            if said := not_again_words(self._changes):
                line(said)
        if self.written is not None:
            line(f"record: {self.written}")
        elif self._partial is not None and self._partial.has_content:
            line(f"what is known is in {self._partial.file}")
        for text in coverage_lines(self.coverage):
            line(text)
        for why, count in self._declared.items():
            line(f"known defect: {count} tests left the process table unsound: {why}")
        if self._page_error:
            line(f"dfly-harness: {self._page_error}", red=True)
        elif self._options.html is not None and self.written is not None:
            line(f"report: {self._options.html}")
        if label and self._changes is not None and self._tested.variant is None:
            for text in last_words(self._changes, first_commands()):
                line(text)

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

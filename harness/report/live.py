# SPDX-License-Identifier: BSD-2-Clause
"""A run while it goes on: who runs what and how it went so far, as a few lines of a terminal or one line of a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.results.summary import counts
from harness.results.verdict import Look, Verdict

_ROWS = 16
_BAR = 30
# An estimate after fewer tests, or sooner, would jump about.
_TELLING, _SETTLED = 5, 3.0  # tests, seconds
_SHORT = 0.05  # s, of a test whose duration is not known: most are shorter than what is remembered
_STYLES = {Look.BAD: "bold red", Look.GOOD: "green", Look.ODD: "yellow", Look.FAINT: ""}


@dataclass
class _Running:
    """A test under way; the worker is known from its first report on."""

    since: float
    worker: str = ""


class Board:
    """The state of a run about TITLE, fed with what is reported; rich can show it.  CLOCK gives seconds."""

    def __init__(self, title: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.title = title
        self.total = 0
        self.step = ""
        #: The tests that are to run, and how long each is known to take, in seconds.
        self.tests: Sequence[str] = ()
        self.durations: Mapping[str, float] = {}
        self._clock = clock
        self._began = clock()
        self._first: float | None = None  # when the first test began
        self._running: dict[str, _Running] = {}
        self._verdicts: dict[str, Verdict] = {}

    def begins(self, test: str) -> None:
        """TEST was given to somebody."""
        self._first = self._clock() if self._first is None else self._first
        self._running[test] = _Running(self._clock())

    def belongs_to(self, test: str, worker: str) -> None:
        """TEST turns out to be run by WORKER."""
        if test in self._running:
            self._running[test].worker = worker

    def judged(self, test: str, verdict: Verdict) -> None:
        """TEST came to VERDICT; a later one replaces it."""
        self._verdicts[test] = verdict

    def ends(self, test: str) -> None:
        """TEST is over, its tidying up included."""
        self._running.pop(test, None)

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many tests came to each verdict, the worst first."""
        return counts(self._verdicts.values())

    @property
    def seconds(self) -> float:
        """How long the run takes by now."""
        return self._clock() - self._began

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes if it goes on like this; None as long as too little is known.

        What tests took before tells how much of the work is done; how fast this run is, the clock does.
        """
        if self._first is None or len(self._verdicts) < _TELLING:
            return None
        works = {test: self.durations.get(test, _SHORT) for test in dict.fromkeys(self.tests) if test}
        done = sum(works.get(test, _SHORT) for test in self._verdicts)
        left = sum(work for test, work in works.items() if test not in self._verdicts)
        taken = self._clock() - self._first
        return taken * left / done if left and taken >= _SETTLED else None

    def _left(self) -> str:
        left = self.seconds_left
        if left is None:
            return ""
        minutes, seconds = divmod(round(left), 60)
        return f"about {minutes}:{seconds:02d} left"

    def line(self) -> str:
        """Return the state in one line, for a log."""
        parts = [f"{len(self._verdicts)} of {self.total} tests in {self.seconds:.0f} s", self._left(), self._counted()]
        under_way = [f"{worker or 'now'}: {test} ({seconds:.0f} s)" for worker, test, seconds in self._rows()]
        return "; ".join(part for part in (*parts, *under_way) if part)

    def _counted(self) -> str:
        return ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items())

    def _rows(self) -> Iterator[tuple[str, str, float]]:
        now = self._clock()
        # Workers begin the next test before the last one's end is known: the oldest rows are the ones to look at.
        for test, running in sorted(self._running.items(), key=lambda entry: (entry[1].worker, entry[1].since)):
            yield running.worker, test.rpartition("/")[2], now - running.since

    def __rich__(self) -> RenderableType:
        """Return the board for a terminal: as high as there are workers, and two lines."""
        head = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, self.total), completed=len(self._verdicts), width=_BAR)
        minutes, seconds = divmod(int(self.seconds), 60)
        clock = ", ".join(part for part in (f"{minutes}:{seconds:02d}", self._left()) if part)
        head.add_row(f"{len(self._verdicts)}/{self.total}", bar, clock, self._tiles())
        table = Table.grid(padding=(0, 1))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(justify="right", no_wrap=True)
        rows = list(self._rows())
        for worker, test, taken in rows[:_ROWS]:
            table.add_row(worker, Text(test), f"{taken:.0f} s")
        if len(rows) > _ROWS:
            table.add_row("", f"and {len(rows) - _ROWS} more", "")
        if self.step:
            table.add_row("", Text(self.step, style="dim"), "")
        title = Text(self.title, style="bold", no_wrap=True, overflow="ellipsis")
        return Group(title, head, table) if self.title else Group(head, table)

    def _tiles(self) -> Text:
        text = Text()
        for verdict, count in self.counts.items():
            text.append(f"{count} {verdict}  ", _STYLES[verdict.look])
        return text

# SPDX-License-Identifier: BSD-2-Clause
"""What people see while they wait, on a terminal or in a CI log."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from harness.files import STANDARD_OUTPUT
from harness.visible import visible

if TYPE_CHECKING:  # every command shows something, and few of them have a guest
    from harness.guests.guest import Progress as Steps

_WHOLE = 10_000  # columns


class GuardedConsole(Console):
    """A console on which text cannot do what only rich itself may: whatever is shown goes through here."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of RENDERABLE, their texts without control characters."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def make_console() -> Console:
    """Return a console on standard error, so that standard output stays clean for results."""
    return GuardedConsole(stderr=True, highlight=False)


def make_output() -> Console:
    """Return a console on standard output whose lines stay whole where no terminal is: they can be grepped."""
    return GuardedConsole(highlight=False, width=None if sys.stdout.isatty() else _WHOLE)


def make_output_beside(record: Path | None) -> Console:
    """Return where the text goes that says for people what RECORD says: not among it, if that is printed."""
    return make_console() if record == STANDARD_OUTPUT else make_output()


def print_json(data: object) -> None:
    """Print DATA, which is plain, on standard output."""
    sys.stdout.write(json.dumps(data, indent=1) + "\n")


def print_table(
    console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()
) -> None:
    """Print ROWS under COLUMNS; those named in RIGHT are numbers.  Without a terminal no cell is cut or wrapped."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(
            column, justify="right" if column in right else "left", overflow="fold", no_wrap=not console.is_terminal
        )
    for row in rows:
        table.add_row(*(escape(visible(cell)) for cell in row))  # as wide as it will be
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.print(line.rstrip(), markup=False, soft_wrap=True)


@contextlib.contextmanager
def progress_display(title: str, console: Console | None = None) -> Iterator[Steps]:
    """Show TITLE and the latest step with the time it takes: a spinner on a terminal, plain lines elsewhere."""
    console = make_console() if console is None else console
    started = time.monotonic()
    if not console.is_terminal:

        def plain(step: str) -> None:
            console.print(escape(f"{title}: {step} ({time.monotonic() - started:.1f} s)"), soft_wrap=True)

        yield plain
        return
    with console.status(escape(title)) as status:
        yield lambda step: status.update(escape(f"{title}: {step}"))
    console.print(escape(f"{title}: done in {time.monotonic() - started:.1f} s"))


@contextlib.contextmanager
def transfer_display(title: str, console: Console | None = None) -> Iterator[Callable[[int, int | None], None]]:
    """Show how much of a transfer is done, how fast, and how long it will take: a bar, or a line every few seconds."""
    console = make_console() if console is None else console
    if console.is_terminal:
        from rich import progress  # which takes longer to load than all the rest of it

        columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn())
        speed = (progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
        with progress.Progress(*columns, *speed, console=console, transient=True) as bars:
            task = bars.add_task(escape(title), total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
        return
    pace = _Pace()

    def plain(done: int, total: int | None) -> None:
        if text := pace.report(done, total, time.monotonic()):
            console.print(escape(f"{title}: {text}"), soft_wrap=True)

    yield plain


class _Pace:
    """Rate and time left of a transfer, every few seconds and at its end."""

    EVERY = 5.0  # seconds

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None
        self._shown = 0.0

    def report(self, done: int, total: int | None, now: float) -> str | None:
        """Return what to say at time NOW, in seconds; None when it is too soon."""
        if self._start is None or done < self._start[1]:
            self._start = (now, done)
            self._shown = now
            return None
        if now - self._shown < self.EVERY and done != total:
            return None
        self._shown = now
        began, first = self._start
        rate = (done - first) / max(now - began, 1e-3)
        text = f"{done / 1e6:.1f}" + (f" of {total / 1e6:.1f}" if total else "") + f" MB, {rate / 1e6:.1f} MB/s"
        if total and rate > 0 and done < total:
            left = round((total - done) / rate)
            text += f", {left // 60}:{left % 60:02d} left"
        return text

"""What people see while they wait, on a terminal or in a CI log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape

from harness.guests.guest import Progress


def make_console() -> Console:
    """Return a console on standard error, so that standard output stays clean for results."""
    return Console(stderr=True, highlight=False)


@contextlib.contextmanager
def progress_display(title: str, console: Console | None = None) -> Iterator[Progress]:
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

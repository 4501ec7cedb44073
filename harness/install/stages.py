# SPDX-License-Identifier: BSD-2-Clause
"""Stages of a long job: each has a name, shows progress, and says where it failed with the last console lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from harness.errors import DeadlineError, HarnessError, UsageError
from harness.guests.guest import Progress

TAIL_LINES = 40


class TailSource(Protocol):
    """Where the last console lines come from; a Console is one."""

    def tail(self, lines: int = ...) -> tuple[str, ...]:
        """Return the last LINES lines."""


class StageError(HarnessError):
    """A stage failed.  `stage` is its name, `console_tail` the last lines of the console."""

    def __init__(self, stage: str, reason: str, console_tail: Sequence[str] = ()) -> None:
        self.stage = stage
        self.reason = reason
        self.console_tail = tuple(console_tail)[-TAIL_LINES:]
        tail = "".join(f"\n    | {line}" for line in self.console_tail)
        last = f"; last console lines:{tail}" if tail else ""
        super().__init__(f"stage '{stage}' failed: {reason}{last}")


class Stages:
    """Names the stage a job is in."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.current = ""

    def step(self, text: str) -> None:
        """Show what is going on within the stage."""
        self._progress(f"{self.current}: {text}")

    @contextlib.contextmanager
    def stage(self, name: str, tail: TailSource | None = None) -> Iterator[None]:
        """Run a stage; what goes wrong in it becomes a StageError, wrong usage excepted."""
        self.current = name
        self._progress(name)
        try:
            yield
        except (StageError, UsageError):
            raise
        except DeadlineError as error:
            raise StageError(name, f"waited {error.seconds:g} s for {error.awaited}, in vain", _read(tail)) from error
        except HarnessError as error:
            raise StageError(name, str(error), _read(tail)) from error


def _read(tail: TailSource | None) -> Sequence[str]:
    return tail.tail(TAIL_LINES) if tail is not None else ()

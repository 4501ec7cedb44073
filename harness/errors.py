# SPDX-License-Identifier: BSD-2-Clause
"""The errors a user is meant to see: one line that says what is wrong and what to do."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of every dfly-harness command, and of pytest with its plugin."""

    PASSED = 0
    TEST_FAILED = 1
    USAGE = 2
    HARNESS_FAILED = 3
    INTERRUPTED = 128 + signal.SIGINT
    TERMINATED = 128 + signal.SIGTERM


class SignalledError(KeyboardInterrupt):
    """A signal asks this process to end: it unwinds like Ctrl-C, so that machines are stopped in order."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__()


class HarnessError(Exception):
    """The harness or the host could not do what was asked (exit status 3).

    `retry_helps` says whether the same may work a moment later, or on another machine: without it nothing is spent on
    a second try.
    """

    exit_code: ExitCode = ExitCode.HARNESS_FAILED
    retry_helps: bool = True


class UsageError(HarnessError):
    """What was asked for makes no sense: an unknown name, a file that is not what it should be (exit status 2)."""

    exit_code = ExitCode.USAGE
    retry_helps = False


class DeadlineError(HarnessError):
    """An awaited event did not come in time.

    The message names the event and the deadline, and ends with the last console lines where there is a console.
    """

    def __init__(self, awaited: str, seconds: float, console_tail: Sequence[str] = ()) -> None:
        self.awaited = awaited
        self.seconds = seconds
        self.console_tail = tuple(console_tail)
        tail = "".join(f"\n    | {line}" for line in self.console_tail)
        last = f"; last console lines:{tail}" if tail else ""
        super().__init__(f"waited {seconds:g} s for {awaited}, in vain{last}")


class GuestDeadlineError(DeadlineError):
    """What the guest was to do did not happen in time, although the guest was there: that may be its kernel's doing."""


class GuestLostError(HarnessError):
    """The guest, its machine or the connection to it went away while it was needed."""


class UnknownKernelError(HarnessError):
    """The kernel is one this harness does not know yet: booting it again, or another warm state, changes nothing."""

    retry_helps = False

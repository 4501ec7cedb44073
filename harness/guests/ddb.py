# SPDX-License-Identifier: BSD-2-Clause
"""DDB, the debugger in DragonFly's kernel: asked for what it knows when the kernel has died.

It reads the serial line by polling and pages its output by twenty lines (`--More--`: a space gives the next page).
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import DeadlineError, GuestLostError, HarnessError
from harness.guests.console import Console

#: What a dead kernel is asked; the last two cost the most and matter the least should time run out.
QUESTIONS = ("show registers", "trace", "show pgrpdump", "ps", "show tokens")

PROMPT_DEADLINE = 5.0
ANSWER_DEADLINE = 5.0
TOTAL_DEADLINE = 15.0

_PROMPT = re.compile(r"(?:\A|\n)db> \Z")
_PAGER = "--More--"
_PAGED = re.compile(rf"{_PAGER}\r?")
# The kernel does not wait for anybody (debug.debugger_on_panic=0): it says so and restarts.
_NO_DEBUGGER = re.compile(r"^(?:Uptime: |Automatic reboot in |Rebooting\.\.\.)", re.MULTILINE)


class Ddb:
    """The debugger at the other end of CONSOLE."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def await_prompt(self, start: int, deadline: float = PROMPT_DEADLINE) -> bool:
        """Wait until the text from position START on ends with DDB's prompt; tell whether it did.

        Returns False as soon as the kernel says that it restarts instead, and when DEADLINE seconds are over.
        """
        end = time.monotonic() + deadline
        while True:
            text = self._console.text(start).replace("\r", "")
            if _PROMPT.search(text):
                return True
            left = end - time.monotonic()
            if left <= 0 or self._console.closed or _NO_DEBUGGER.search(text):
                return False
            self._console.await_more(start + len(self._console.text(start)), left)

    def ask(self, command: str, deadline: float = ANSWER_DEADLINE) -> str:
        """Give COMMAND at the prompt and return the answer, all pages of it.

        Raises DeadlineError after DEADLINE seconds (its `said` is what came until then), GuestLostError when the
        machine hangs up.
        """
        console = self._console
        start = console.position
        console.send(f"{command}\r")
        end = time.monotonic() + deadline
        pages = 0
        while True:
            text = console.text(start)
            if _PROMPT.search(text.replace("\r", "")):
                return _without_pager(text.rpartition("db> ")[0], command)
            if text.endswith(_PAGER) and text.count(_PAGER) > pages:
                pages += 1
                console.send(" ")
            left = end - time.monotonic()
            if console.closed:
                raise GuestLostError(f"the machine hung up during DDB's {command!r}")
            if left <= 0:
                raise UnansweredError(command, deadline, _without_pager(text, command))
            console.await_more(start + len(text), left)


class UnansweredError(DeadlineError):
    """DDB did not finish an answer in time; `said` is the part that came."""

    def __init__(self, command: str, seconds: float, said: str) -> None:
        self.said = said
        super().__init__(f"DDB's answer to {command!r}", seconds)


def _without_pager(text: str, command: str) -> str:
    lines = _PAGED.sub("", text).replace("\r", "").split("\n")
    if lines and lines[0].strip() == command:  # its echo
        del lines[0]
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def interrogate(console: Console, questions: Sequence[str] = QUESTIONS) -> list[tuple[str, str]]:
    """Ask the debugger at its prompt all QUESTIONS and return each with its answer; never raises HarnessError.

    A question that is not answered in time ends the conversation; what came of the answer is kept.
    """
    ddb = Ddb(console)
    answers = []
    end = time.monotonic() + TOTAL_DEADLINE
    for question in questions:
        left = min(ANSWER_DEADLINE, end - time.monotonic())
        if left <= 0:
            answers.append((question, "(not asked: the debugger took too long over the others)"))
            continue
        try:
            answers.append((question, ddb.ask(question, left)))
        except UnansweredError as error:
            answers.append((question, f"{error.said}\n(the answer did not end within {left:.1f} s)".lstrip()))
            with contextlib.suppress(GuestLostError):
                console.send("q")  # should it wait at a pager we did not recognise
            break
        except HarnessError as error:
            answers.append((question, f"({error})"))
            break
    return answers


@dataclass(frozen=True)
class Frame:
    """One frame of a backtrace: function, offset into it, return address, and `file:line` where known."""

    function: str
    offset: int
    address: int = 0
    line: str = ""

    def __str__(self) -> str:
        """Return the frame for people."""
        where = f"  {self.line}" if self.line else ""
        return f"{self.function}+{self.offset:#x}{where}"


_FRAME = re.compile(
    r"^(?P<name>[\w.$]+)\([^\n]*?\) at (?P<at>[\w.$]+)(?:\+(?P<offset>0x[0-9a-f]+|\d+))?(?: (?P<address>0x[0-9a-f]+))?",
    re.MULTILINE,
)
_STOPPED = re.compile(r"^Stopped at +(?P<at>[\w.$]+)(?:\+(?P<offset>0x[0-9a-f]+|\d+))?:", re.MULTILINE)

# What brings the news rather than being it.
_MESSENGERS = re.compile(
    r"panic|_?vpanic|Debugger|kdb_\w+|db_\w+|trap|trap_\w+|calltrap|Xpage|Xprot|Xbpt|X\w*trap\w*|dblfault_handler"
)


def parse_trace(text: str) -> tuple[Frame, ...]:
    """Return the frames of DDB's `trace`; those of the machinery that reports a panic are left out at the top.

    Without a trace in TEXT this is the one frame of `Stopped at`, or nothing.
    """
    frames = [
        Frame(found["at"], int(found["offset"] or "0", 0), int(found["address"] or "0", 0))
        for found in _FRAME.finditer(text)
    ]
    if not frames and (found := _STOPPED.search(text)):
        frames = [Frame(found["at"], int(found["offset"] or "0", 0))]
    first = next((n for n, frame in enumerate(frames) if not _MESSENGERS.fullmatch(frame.function)), 0)
    return tuple(frames[first:])

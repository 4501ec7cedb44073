# SPDX-License-Identifier: BSD-2-Clause
"""The recorded calls of a test, read back: who made them, with what, and what came of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.errors import UsageError

UNDER_WAY = "(under way)"
_LINE = re.compile(r"process (\d+): ([A-Za-z_0-9]+)\((.*?)\) = (.*)", re.DOTALL)
_BIRTHS = ("fork", "vfork", "rfork")
_CHILD = re.compile(r"<(?:gone )?process (\d+)>")
_BULK = "{call} is a loop of many calls, and the record has none of them"
_WAITED = re.compile(r"WaitResult\(pid=(\d+)(?:, status=WaitStatus\(raw=(\d+))?")
#: Why a test is no program whose last call, by its name, is the one that failed.
_REFUSALS = {
    "sysctl": "what failed is what {call} told, and of an answer the record has no more than its beginning",
    "storm": _BULK,
    "spawn_many": _BULK,
    "repeat_until": _BULK,
    "signals": "what failed is what a handler had noted, and handlers are not on record",
}
_NUMBER = re.compile(r"(?:[a-z.]+\.)?(-?\d+)")
_PINS = "usched_set"
_COMMA = re.compile(r",\s*(?![^(\[{'\"]*[)\]}'\"])")


@dataclass(frozen=True)
class Step:
    """A call of process WHO (a recorded pid) with ARGUMENTS as they were written, and its OUTCOME, as written too.

    `child` is the recorded pid of the process it made, 0 where it made none; `beside` is set where others made theirs
    at the same time.
    """

    who: int
    name: str
    arguments: tuple[str, ...]
    outcome: str
    child: int = 0
    beside: bool = False

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})"

    @property
    def numbers(self) -> set[int]:
        """The numbers among its arguments, without their signs: pids may be among them, also at the end of a name."""
        return {abs(int(found[1])) for word in self.arguments if (found := _NUMBER.fullmatch(word)) is not None}


@dataclass(frozen=True)
class Outcome:
    """What a call came to: failed with ERRNO, or returned VALUE and, where it waited, a status word.

    None stands for whatever it may be; `blocks` for not returning at all.
    """

    errno: str = ""
    value: int | None = None
    status: int | None = None
    blocks: bool = False


@dataclass(frozen=True)
class Story:
    """Steps in the order in which they were made, by processes of which ROOT is the first; LEFT_OUT could not be read.

    With `dies` the kernel dies of them; else what the last one comes to is what is wrong.
    """

    root: int
    steps: tuple[Step, ...]
    dies: bool = False
    left_out: tuple[str, ...] = field(default=(), compare=False)

    @property
    def processes(self) -> list[int]:
        """All processes, in the order of their births."""
        return [self.root, *(step.child for step in self.steps if step.child)]

    @property
    def racers(self) -> list[int]:
        """Who makes calls beside others, in the order of their births; nobody where one call followed the other."""
        return [pid for pid in self.processes if any(step.who == pid and step.beside for step in self.steps)]

    def parent_of(self, pid: int) -> int:
        """Return who made PID; 0 for the root."""
        return next((step.who for step in self.steps if step.child == pid), 0)

    def without(self, dropped: Iterable[int]) -> Story:
        """Return the story without the steps of these numbers, and without those that make no sense then."""
        gone = set(dropped)
        born, kept = {self.root}, []
        mentioned = set(self.processes)
        for number, step in enumerate(self.steps):
            if number in gone or step.who not in born or not step.numbers & mentioned <= born:
                continue
            born |= {step.child} if step.child else set()
            kept.append(step)
        return Story(self.root, tuple(kept), self.dies, self.left_out)


def outcome_of(step: Step) -> Outcome:
    """Return what came of STEP; raises UsageError for what a C program could not compare."""
    text = step.outcome
    if text == UNDER_WAY:
        return Outcome(blocks=True)
    if re.fullmatch(r"E[A-Z0-9]+", text):
        return Outcome(errno=text)
    if text == "None":
        return Outcome()
    if re.fullmatch(r"-?\d+", text):
        return Outcome(value=int(text))
    if (waited := _WAITED.match(text)) is not None:
        return Outcome(value=int(waited[1]), status=int(waited[2]) if waited[2] else None)
    raise UsageError(f"what its last call came to, {step} = {text}, is nothing that a C program could compare")


def read_story(calls: Sequence[str], known: Iterable[str], *, dies: bool) -> Story:
    """Return what the recorded CALLS tell; KNOWN are the names of calls that can be made in C.

    With DIES the kernel died of them.  Raises UsageError where the beginning is not on record, where threads made
    calls, and where the last call, which is what failed, is none that is known.  A process that is given a CPU of its
    own is to make its calls beside others.
    """
    able = {*known, *_BIRTHS} - (set() if dies else {"sysctl"})
    steps: list[Step] = []
    left_out: list[str] = []
    last_is_known = True
    apart: set[int] = set()
    beside = False
    for line in calls:
        found = _LINE.fullmatch(line)
        if found is None:
            if line.startswith("thread "):
                raise UsageError(
                    f"threads made calls ({line[:60]}), beside each other: what came first is not on record, and a"
                    " program of one call after the other would be another test"
                )
            left_out.append(line)
            last_is_known = False
            continue
        who, name, written, outcome = int(found[1]), found[2], found[3], found[4]
        last_is_known = name in able
        if name == _PINS and steps and who != steps[0].who:
            apart.add(who)
        if not last_is_known:
            left_out.append(line)
            continue
        child = _CHILD.fullmatch(outcome) if name in _BIRTHS else None
        if name in _BIRTHS and child is None:
            left_out.append(line)
            continue
        arguments = tuple(part for part in _COMMA.split(written) if part)
        beside = beside or who in apart
        steps.append(Step(who, name, arguments, outcome, int(child[1]) if child else 0, beside))
    if not steps:
        raise UsageError("no calls of it are on record")
    if not dies and not last_is_known:
        raise UsageError(_refusal(left_out[-1]))
    root = steps[0].who
    born = {root}
    for step in steps:
        if step.who not in born:
            raise UsageError(f"its first calls are not on record: nobody has made process {step.who}")
        born |= {step.child} if step.child else set()
    return Story(root, tuple(_once(steps)), dies, tuple(left_out))


def _refusal(line: str) -> str:
    """Return why a test whose last call is on LINE cannot be told as a program."""
    found = _LINE.fullmatch(line)
    name, call = (found[2], f"{found[2]}({found[3][:50]})") if found is not None else ("", "")
    said = _REFUSALS.get(name, "its last call is none that is made in C yet: {line}")
    return said.format(call=call, line=line[:100])


def _once(steps: Sequence[Step]) -> list[Step]:
    """Return STEPS without those that say again what the one before said: somebody asked until it held."""
    return [step for number, step in enumerate(steps) if number == 0 or step != steps[number - 1]]

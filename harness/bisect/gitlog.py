# SPDX-License-Identifier: BSD-2-Clause
"""The log of git bisect: what others found can be taken over, and what was found here goes on with git."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.bisect.decision import Outcome, Trouble
from harness.bisect.state import Observation, State
from harness.errors import UsageError

_LINE = re.compile(r"^git bisect (start|good|bad|new|old|skip)\b ?(.*)$")
_OUTCOMES = {
    "good": Outcome.GOOD,
    "old": Outcome.GOOD,
    "bad": Outcome.BAD,
    "new": Outcome.BAD,
    "skip": Outcome.UNTESTABLE,
}


@dataclass(frozen=True)
class Said:
    """One statement of a log, about REVISION."""

    outcome: Outcome
    revision: str


def read_log(text: str) -> Iterator[Said]:
    """Yield what a log says; raises UsageError for a line that git bisect does not write."""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = _LINE.match(stripped)
        if found is None:
            raise UsageError(f"line {number} is none of a bisect log: {stripped!r}")
        word, rest = found[1], found[2].replace("'", "").split()
        if word == "start":
            revisions = rest[: rest.index("--")] if "--" in rest else rest
            revisions = [each for each in revisions if not each.startswith("--")]
            for place, revision in enumerate(revisions):
                yield Said(Outcome.BAD if place == 0 else Outcome.GOOD, revision)
        elif not rest:
            raise UsageError(f"line {number} of the bisect log names no revision: {stripped!r}")
        else:
            for revision in rest:
                yield Said(_OUTCOMES[word], revision)


def write_log(state: State, subjects: dict[str, str]) -> str:
    """Return the observations as a log that `git bisect replay` reads.

    A commit seen bad once is bad.  One that was good only may still be bad where the failure is flaky: the comment says
    how often it was seen.
    """
    scope = state.scope
    lines = ["git bisect start", f"# bad: [{scope.bad}] {subjects.get(scope.bad, '')}".rstrip()]
    lines.append(f"git bisect bad {scope.bad}")
    for good in scope.good:
        lines += [f"# good: [{good}] {subjects.get(good, '')}".rstrip(), f"git bisect good {good}"]
    counts: dict[str, dict[Outcome, int]] = {}
    for made in state.observations:
        if made.role != "revert" and made.commit in scope.history.number:
            counts.setdefault(made.commit, dict.fromkeys(Outcome, 0))[made.outcome] += 1
    decisive = (Outcome.GOOD, Outcome.BAD) if state.is_fix else (Outcome.BAD, Outcome.GOOD)
    for commit, seen in counts.items():
        outcome = next((each for each in decisive if seen[each]), Outcome.UNTESTABLE)
        word = "skip" if outcome is Outcome.UNTESTABLE else str(outcome)
        times = ", ".join(f"{number} {each}" for each, number in seen.items() if number)
        lines += [f"# {word}: [{commit}] {subjects.get(commit, '')} ({times})", f"git bisect {word} {commit}"]
    return "\n".join(lines) + "\n"


def told(said: Said, commit: str) -> Observation:
    """Return a statement about COMMIT as an observation."""
    trouble = Trouble.TOLD if said.outcome is Outcome.UNTESTABLE else None
    return Observation(commit, said.outcome, trouble, "from a bisect log", role="told")

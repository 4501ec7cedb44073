# SPDX-License-Identifier: BSD-2-Clause
"""What a bisection remembers: one JSON file, written anew and renamed into place after every observation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from harness.bisect.decision import Outcome, Trouble
from harness.bisect.history import History
from harness.bisect.inquiry import REVERT, SEARCH, Ends, Inquiry, Start
from harness.bisect.rates import CERTAIN, Rates
from harness.bisect.repository import Range
from harness.errors import UsageError
from harness.files import write_whole

FORMAT = 1
FILE = "state.json"


@dataclass(frozen=True)
class Observation:
    """One experiment: what was seen of COMMIT, with what it cost in seconds.

    `role` tells what a run was for, see `inquiry`; `without` is the culprit that a run of the bad end was made without.
    `kernel` is the SHA-256 of the kernel's file.
    """

    commit: str
    outcome: Outcome
    trouble: Trouble | None = None
    detail: str = ""
    test: str = ""
    excerpt: str = ""
    role: str = SEARCH
    kernel: str = ""
    built: bool = False
    build_seconds: float = 0.0
    run_seconds: float = 0.0
    quirks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    without: str = ""
    made: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Rebuild one; unknown fields, written by a newer version, are ignored."""
        known = {each.name for each in fields(cls)}
        given = {key: value for key, value in data.items() if key in known}
        given["outcome"] = Outcome(given["outcome"])
        given["trouble"] = Trouble(given["trouble"]) if given.get("trouble") else None
        given["quirks"] = tuple(given.get("quirks", ()))
        given["left_out"] = tuple(given.get("left_out", ()))
        return cls(**given)


@dataclass
class State:
    """All that a bisection needs to go on: the ARGUMENTS it was asked with, the commits in question, observations."""

    key: str
    arguments: tuple[str, ...]
    source: str
    predicate: str
    scope: Range
    confidence: float
    is_fix: bool = False
    certain: float = CERTAIN
    observations: list[Observation] = field(default_factory=list)
    #: What became of the proof: a statement per part, empty as long as there is none.
    proof: dict[str, str] = field(default_factory=dict)
    proved: bool = False
    #: The proofs that were tried, each resting on later observations only.
    attempts: list[Start] = field(default_factory=list)
    #: `scope` as it is written.
    kept: str = field(default="", repr=False, compare=False)

    def withdraw(self, test: str) -> bool:
        """Make untestable what was said to go well of runs that left out TEST, which fails; tell whether there were."""
        seen = [
            replace(each, outcome=Outcome.UNTESTABLE, trouble=Trouble.NOT_APPLICABLE, detail=f"{test} did not run")
            if test in each.left_out and each.outcome is not Outcome.UNTESTABLE
            else each
            for each in self.observations
        ]
        found = seen != self.observations
        self.observations = seen
        return found

    def inquiry(self, parents: Callable[[str], tuple[str, ...]] | None = None) -> Inquiry:
        """Return what all observations say together; PARENTS tells those of a commit as they are in the repository."""
        rates = Rates.of_fix(self.certain) if self.is_fix else Rates.of_failure(self.certain)
        scope = self.scope
        inquiry = Inquiry(scope.history, rates, self.confidence, Ends(scope.good, scope.bad, scope.bases, parents))
        inquiry.knowledge.learn_alike(scope.alike)
        kernels: dict[str, str] = {}
        for number, each in enumerate(self.observations):
            for start in self.attempts:
                if start.after == number:
                    inquiry.begin(start)
            learn(inquiry, kernels, each)
        for start in self.attempts:
            inquiry.begin(start)
        return inquiry

    def write(self, folder: Path) -> Path:
        """Write the state to FOLDER so that at no moment there is half of it; return the file."""
        data = {
            "format": FORMAT,
            "kind": "bisection",
            **{each.name: getattr(self, each.name) for each in fields(self) if each.name not in {"scope", "kept"}},
            "observations": [asdict(each) for each in self.observations],
            "attempts": [asdict(each) for each in self.attempts],
        }
        if not self.kept:
            # It may be tens of thousands of commits, and never changes.
            self.kept = json.dumps(
                {
                    "good": self.scope.good,
                    "bad": self.scope.bad,
                    "commits": self.scope.history.commits,
                    "parents": self.scope.history.parents,
                    "alike": self.scope.alike,
                    "bases": self.scope.bases,
                }
            )
        text = json.dumps(data, indent=1)
        target = folder / FILE
        write_whole(target, f'{text[:-2]},\n "scope": {self.kept}\n}}\n', durable=True)
        return target

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the state in FOLDER; raises UsageError where there is none."""
        file = folder / FILE
        try:
            data = json.loads(file.read_text())
            if int(data["format"]) > FORMAT:
                raise UsageError(f"{file} was written by a newer version (format {data['format']})")
            scope = data["scope"]
            data["scope"] = Range(
                tuple(scope["good"]),
                scope["bad"],
                History(scope["commits"], scope["parents"]),
                tuple((one, other) for one, other in scope["alike"]),
                tuple(scope.get("bases", ())),
            )
            observations = [Observation.from_json(each) for each in data["observations"]]
            # Runs without the culprit that did not say which one.
            concluded = data.get("concluded", "")
            data["observations"] = [
                replace(each, without=concluded) if each.role == REVERT and not each.without else each
                for each in observations
            ]
            data["attempts"] = [
                Start(each["upper"], tuple(each["lowers"]), each["after"]) for each in data.get("attempts", ())
            ]
            data["arguments"] = tuple(data["arguments"])
            known = {each.name for each in fields(cls)} - {"kept"}
            return cls(**{key: value for key, value in data.items() if key in known})
        except FileNotFoundError:
            raise UsageError(f"there is no bisection in {folder}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{file} is no state of a bisection ({error})") from None


def learn(inquiry: Inquiry, kernels: dict[str, str], made: Observation) -> None:
    """Take in one observation, and what its kernel's being one of KERNELS says: by digest, the commit seen first."""
    inquiry.learn(made.commit, made.outcome, made.trouble, made.role, made.without)
    number, good = inquiry.history.number, inquiry.ends.good
    if made.role == REVERT or not made.kernel or not (made.commit in number or made.commit in good):
        return
    first = kernels.setdefault(made.kernel, made.commit)
    if first == made.commit:
        return
    known = {each: (each if each in number else None) for each in (made.commit, first)}
    one, other = known[made.commit], known[first]
    if one is None:
        one, other = other, one
    if one is not None and (one, other) not in inquiry.alike:
        inquiry.alike.add((one, other))
        inquiry.knowledge.learn_alike([(one, other)])


def key_of(*parts: object) -> str:
    """Return a name for what PARTS say, made of their representations."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

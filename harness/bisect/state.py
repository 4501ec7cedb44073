# SPDX-License-Identifier: BSD-2-Clause
"""What a bisection remembers: one JSON file, written anew and renamed into place after every observation."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from harness.bisect.decision import Knowledge, Outcome, Trouble
from harness.bisect.history import History
from harness.bisect.rates import CERTAIN, Rates
from harness.bisect.repository import Range
from harness.errors import UsageError

FORMAT = 1
FILE = "state.json"


@dataclass(frozen=True)
class Observation:
    """One experiment: what was seen of COMMIT, with what it cost in seconds.

    `role` tells a search's runs ("search") from what the user said ("told"), from those of a merge base that stands for
    the good end ("base"), and from the proof's: "parent", "culprit" and "revert", the latter being the tip without the
    culprit.  `kernel` is the SHA-256 of the kernel's file.
    """

    commit: str
    outcome: Outcome
    trouble: Trouble | None = None
    detail: str = ""
    test: str = ""
    excerpt: str = ""
    role: str = "search"
    kernel: str = ""
    built: bool = False
    build_seconds: float = 0.0
    run_seconds: float = 0.0
    quirks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
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
    #: What was concluded last, and how many observations there were then: the proof rests on later ones only.
    concluded: str = ""
    concluded_after: int = 0

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

    def knowledge(self) -> Knowledge:
        """Return what all observations say together."""
        rates = Rates.of_fix(self.certain) if self.is_fix else Rates.of_failure(self.certain)
        knowledge = Knowledge(self.scope.history, rates)
        knowledge.observe_bad_end()
        for one, other in self.scope.alike:
            knowledge.learn_alike(one, other)
        for number, each in enumerate(self.observations):
            learn(knowledge, self.observations[:number], each, self.scope)
        return knowledge

    def write(self, folder: Path) -> Path:
        """Write the state to FOLDER so that at no moment there is half of it; return the file."""
        data = {
            "format": FORMAT,
            "kind": "bisection",
            **{each.name: getattr(self, each.name) for each in fields(self)},
            "scope": {
                "good": self.scope.good,
                "bad": self.scope.bad,
                "commits": self.scope.history.commits,
                "parents": self.scope.history.parents,
                "alike": self.scope.alike,
                "bases": self.scope.bases,
            },
            "observations": [asdict(each) for each in self.observations],
        }
        target = folder / FILE
        part = folder / f".{FILE}.{os.getpid()}.part"
        with part.open("w") as file:
            json.dump(data, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        return target

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the state in FOLDER; raises UsageError where there is none."""
        file = folder / FILE
        try:
            data = json.loads(file.read_text())
            scope = data["scope"]
            data["scope"] = Range(
                tuple(scope["good"]),
                scope["bad"],
                History(scope["commits"], scope["parents"]),
                tuple((one, other) for one, other in scope["alike"]),
                tuple(scope.get("bases", ())),
            )
            data["observations"] = [Observation.from_json(each) for each in data["observations"]]
            data["arguments"] = tuple(data["arguments"])
            known = {each.name for each in fields(cls)}
            return cls(**{key: value for key, value in data.items() if key in known})
        except FileNotFoundError:
            raise UsageError(f"there is no bisection in {folder}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{file} is no state of a bisection ({error})") from None


def learn(knowledge: Knowledge, before: list[Observation], made: Observation, scope: Range) -> None:
    """Take in one observation, and what its kernel's being the same as one in BEFORE says."""
    number = scope.history.number
    if made.commit in number and made.role != "revert":
        knowledge.observe(made.commit, made.outcome, made.trouble)
        twin = next((each.commit for each in before if made.kernel and each.kernel == made.kernel), made.commit)
        if twin != made.commit and twin in number:
            knowledge.learn_alike(made.commit, twin)
        elif twin in scope.good:
            knowledge.learn_alike(made.commit, None)


def key_of(*parts: object) -> str:
    """Return a name for what PARTS say, made of their representations."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

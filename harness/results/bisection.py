# SPDX-License-Identifier: BSD-2-Clause
"""What a bisection came to, as a typed result that goes to JSON and comes back equal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from harness.store import Store

FORMAT = 1
KIND = "bisection report"
#: What the proof says of a statement that stands.
HOLDS = "holds"
#: How the folders of bisections begin, among the results of a store, and the report in them.
FOLDER = "bisect-"
REPORT = "report.json"


@dataclass(frozen=True)
class Culprit:
    """A commit that may be the one, with its `probability`."""

    commit: str
    author: str
    date: str
    subject: str
    files: tuple[str, ...]
    probability: float


@dataclass(frozen=True)
class Experiment:
    """One run of one commit: what it was for (`role`), what was seen, and what it cost in seconds."""

    commit: str
    role: str
    outcome: str
    trouble: str = ""
    detail: str = ""
    built: bool = False
    build_seconds: float = 0.0
    run_seconds: float = 0.0
    kernel: str = ""
    quirks: tuple[str, ...] = ()

    @property
    def is_untestable(self) -> bool:
        """Whether nothing was learnt of the failure."""
        return self.outcome == "untestable"


@dataclass(frozen=True)
class BisectionReport:
    """All that is known: the commits that may be the one, the proof, and the experiments made.

    `rate` is how often the failure is expected to show, `bits` what is left to know; `posterior` has the chance of each
    commit, oldest first; `tested` counts commits, `experiments` their runs, `proving` the runs of the proof.
    """

    key: str
    source: str
    sought: str
    good: tuple[str, ...]
    bad: str
    commits: int
    confidence: float
    decided: bool
    probability: float
    rate: float
    bits: float
    culprits: tuple[Culprit, ...]
    posterior: tuple[tuple[str, float], ...]
    stretches: tuple[tuple[str, ...], ...]
    experiments: int
    tested: int
    proving: int
    builds: int
    build_seconds: float
    run_seconds: float
    proof: Mapping[str, str]
    proved: bool
    test: str
    failure: str
    excerpt: str
    observations: tuple[Experiment, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        given = asdict(self)
        for name in ("good", "culprits", "observations"):
            given[name] = list(given[name])
        given["posterior"] = [list(pair) for pair in self.posterior]
        given["stretches"] = [list(stretch) for stretch in self.stretches]
        for each in given["culprits"]:
            each["files"] = list(each["files"])
        for each in given["observations"]:
            each["quirks"] = list(each["quirks"])
        return {"format": FORMAT, "kind": KIND, **given, "proof": dict(self.proof)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none or of a later format."""
        if data.get("kind") != KIND or int(data["format"]) > FORMAT:
            raise ValueError(f"no report of a bisection of a format up to {FORMAT}")
        given = {each.name: data[each.name] for each in fields(cls)}
        given["good"] = tuple(given["good"])
        given["culprits"] = tuple(Culprit(**{**each, "files": tuple(each["files"])}) for each in data["culprits"])
        given["posterior"] = tuple((str(commit), float(chance)) for commit, chance in data["posterior"])
        given["stretches"] = tuple(tuple(stretch) for stretch in data["stretches"])
        given["proof"] = dict(data["proof"])
        given["observations"] = tuple(
            Experiment(**{**each, "quirks": tuple(each["quirks"])}) for each in data["observations"]
        )
        return cls(**given)


def reports_on(test: str, store: Store) -> Iterator[BisectionReport]:
    """Yield what the bisections among the results of STORE came to that sought TEST's failure, the last one first."""
    files = store.folder("results").glob(f"{FOLDER}*/{REPORT}")
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            report = BisectionReport.from_json(json.loads(file.read_text()))
        except (OSError, ValueError, KeyError, TypeError):  # of a later format, say
            continue
        if report.test == test:
            yield report


@dataclass(frozen=True)
class Following:
    """An experiment that may come next: RUNS of COMMIT, which tell so many bits in so many seconds."""

    commit: str
    runs: int
    bits: float
    seconds: float
    chance_bad: float
    testable: float


@dataclass(frozen=True)
class Explanation:
    """What is known of a bisection under way, and what comes next: `likely` has commit, chance and subject."""

    sought: str
    seen: Mapping[str, int]
    is_certain: bool
    rate: float
    bits: float
    commits: int
    likely: tuple[tuple[str, float, str], ...]
    decided: bool
    probability: float
    confidence: float
    following: tuple[Following, ...] = ()
    #: The next run where it is none of the search's: what it is for, and its commit.
    proving: tuple[str, str] | None = None


@dataclass(frozen=True)
class Calibration:
    """What `calibrate bisect` measured: of how many claims how many were wrong, after how many runs (median)."""

    rows: tuple[Calibrated, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none."""
        return cls(tuple(Calibrated(**row) for row in data["rows"]))


@dataclass(frozen=True)
class Calibrated:
    """One row of it: searches in such a `history` among such `failures`, until a claim at `level` could be made."""

    history: str
    failures: str
    level: float
    claims: int
    wrong: int
    runs: float

# SPDX-License-Identifier: BSD-2-Clause
"""What a comparison of kernels came to, as typed results that go to JSON and come back equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from harness.errors import ExitCode
from harness.results.certainty import Interval, rate_interval
from harness.results.costs import Costs

#: Of the record.  2: no `again`, no verdicts rarer, suspect, changed and lost.
FORMAT = 3
KIND = "comparison"


class Difference(StrEnum):
    """What a kernel does to a test, compared with the baseline."""

    SAME = "same"
    FIXED = "fixed"
    RARER = "rarer"
    UNPROVEN = "unproven"
    BROKEN = "broken"
    SUSPECT = "suspect"
    CHANGED = "changed"
    FLAKY = "flaky"
    PANICKED = "panicked"
    LOST = "lost"
    NOT_APPLICABLE = "not applicable"
    NOT_RUN = "not run"


@dataclass
class Tally:
    """How one test went in several runs on one kernel; `panics` counts fingerprints, `reasons` first lines.

    `inapplicable` are runs on a kernel that the test is not about, `lost` those in which the harness or the host
    failed: neither says anything of the kernel.
    """

    runs: int = 0
    failures: int = 0
    panics: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    inapplicable: int = 0
    lost: int = 0

    @property
    def pair(self) -> tuple[int, int]:
        """Failures and runs."""
        return self.failures, self.runs

    @property
    def causes(self) -> Counter[str]:
        """How often it failed for which cause: fingerprints of panics and hangs, and other reasons."""
        return self.panics + self.reasons

    def interval(self, confidence: float) -> Interval:
        """Return the exact interval of the failure rate."""
        return rate_interval(self.failures, self.runs, confidence)

    def __str__(self) -> str:
        if not self.runs:
            return "not applicable" if self.inapplicable else "lost" if self.lost else "not run"
        if self.failures == 0:
            return "passes" if self.runs == 1 else f"passes {self.runs}/{self.runs}"
        what = "panics" if self.panics.total() == self.failures else "fails"
        return what if self.runs == 1 else f"{what} {self.failures}/{self.runs}"

    def to_json(self, confidence: float) -> dict[str, Any]:
        """Return plain data, with the interval of the failure rate at CONFIDENCE."""
        interval = self.interval(confidence)
        counted = {"panics": dict(self.panics), "reasons": dict(self.reasons)}
        return {**vars(self), **counted, "failure_rate": [round(interval.low, 6), round(interval.high, 6)]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none."""
        return cls(
            int(data["runs"]),
            int(data["failures"]),
            Counter(data["panics"]),
            Counter(data["reasons"]),
            int(data.get("inapplicable", data.get("skipped", 0))),
            int(data.get("lost", 0)),
        )


@dataclass(frozen=True)
class Again:
    """The runs made after a suspicion, which are the evidence: failures and runs of both kernels on some boots.

    With a `cause` only failures for that one are counted.
    """

    base: tuple[int, int]
    other: tuple[int, int]
    boots: int
    cause: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none."""
        (base, base_runs), (other, other_runs) = data["base"], data["other"]
        return cls((base, base_runs), (other, other_runs), int(data["boots"]), str(data["cause"]))


@dataclass(frozen=True)
class Judgement:
    """What differs, with what supports it.

    `is_broken` says that the kernel does something worse than the baseline.  `confidence` is that of the whole
    comparison where a difference is named, and 0 where none is: it holds for all that is named together.
    `passes_needed` is how many runs without a failure would show that one is gone, None where that is no question or
    known; `again` what was run after a suspicion.
    """

    verdict: Difference
    is_broken: bool = False
    confidence: float = 0.0
    passes_needed: int | None = None
    note: str = ""
    again: Again | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none."""
        given = dict(data)
        given["passes_needed"] = given.pop("runs_needed", None) if "runs_needed" in given else given["passes_needed"]
        given["again"] = Again.from_json(given["again"]) if given.get("again") else None
        return cls(**{**given, "verdict": Difference(given["verdict"])})


@dataclass(frozen=True)
class TestComparison:
    """One test: how it went on each kernel, and what is said of each but the baseline."""

    __test__ = False

    test: str
    tallies: tuple[Tally, ...]
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True)
class ComparedKernel:
    """One kernel of a comparison: its `name` for people, its `key` by content, and what its target turned out to be.

    `prevented` is why it could not be run as often as wanted, empty where it could; `died` says that it was its own
    doing; `missing` how many of its `runs` said nothing at all.
    """

    name: str
    key: str
    label: str
    runs: int
    prevented: str = ""
    died: bool = False
    missing: int = 0

    @property
    def is_compared(self) -> bool:
        """Whether any of its runs said something."""
        return self.missing < self.runs


@dataclass
class Comparison:
    """All that was found out; the first kernel is the baseline."""

    kernels: tuple[ComparedKernel, ...]
    tests: tuple[TestComparison, ...]
    confidence: float
    seed: int = 0
    suite: str = ""
    finished: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    costs: list[Costs] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """How often each kernel was to run."""
        return self.kernels[0].runs

    @property
    def exit_code(self) -> ExitCode:
        """PASSED when nothing is broken and every test was compared that is about both kernels.

        TEST_FAILED where something is broken, or a kernel other than the baseline does not come up or dies while its
        costs are measured; HARNESS_FAILED
        where nothing is, but a test or a kernel was lost: absence is not equality.
        """
        judgements = [judgement for test in self.tests for judgement in test.judgements]
        if any(judgement.is_broken for judgement in judgements) or any(one.died for one in self.kernels[1:]):
            return ExitCode.TEST_FAILED
        if any(costs.other_died for costs in self.costs):
            return ExitCode.TEST_FAILED
        lost = any(judgement.verdict is Difference.LOST for judgement in judgements)
        lost = lost or any(costs.base_died for costs in self.costs)
        if lost or (self.runs and not all(one.is_compared for one in self.kernels)):
            return ExitCode.HARNESS_FAILED
        return ExitCode.PASSED

    def counts(self, number: int) -> dict[Difference, int]:
        """Return how often each verdict was given to kernel NUMBER (1 is the first after the baseline)."""
        counted = Counter(test.judgements[number - 1].verdict for test in self.tests)
        return {difference: counted[difference] for difference in Difference if counted[difference]}

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "format": FORMAT,
            "kind": KIND,
            "finished": self.finished,
            "confidence": self.confidence,
            "seed": self.seed,
            "suite": self.suite,
            "exit_status": int(self.exit_code),
            "targets": [asdict(kernel) for kernel in self.kernels],
            "tests": [
                {
                    "test": test.test,
                    "tallies": [tally.to_json(self.confidence) for tally in test.tallies],
                    "judgements": [
                        {**asdict(judgement), "verdict": str(judgement.verdict)} for judgement in test.judgements
                    ],
                }
                for test in self.tests
            ],
            "costs": [costs.to_json() for costs in self.costs],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none or of a later format."""
        if data.get("kind") != KIND or int(data["format"]) > FORMAT:
            raise ValueError(f"no comparison of a format up to {FORMAT}")
        tests = tuple(
            TestComparison(
                str(test["test"]),
                tuple(map(Tally.from_json, test["tallies"])),
                tuple(map(Judgement.from_json, test["judgements"])),
            )
            for test in data["tests"]
        )
        return cls(
            tuple(ComparedKernel(**kernel) for kernel in data["targets"]),
            tests,
            float(data["confidence"]),
            int(data["seed"]),
            str(data["suite"]),
            str(data["finished"]),
            [Costs.from_json(each) for each in data["costs"]],
        )

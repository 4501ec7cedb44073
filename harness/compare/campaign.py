"""Comparing kernels: the same suite with the same seeds on each, machines side by side, as often as it takes.

Every run is a pytest process of its own that leaves a record.  The records of one plan are kept together: a comparison
that was interrupted goes on where it was, and one that needs more repeats only makes those.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import harness
from harness.compare.certainty import rate_interval
from harness.compare.verdicts import Judgement, Tally, Verdict, judge, tally
from harness.errors import ExitCode, HarnessError
from harness.runs.runner import Run, SuiteRunner
from harness.store import Store

FORMAT = 1
CONFIDENCE = 0.95
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Contender:
    """One of the kernels: its `name` for people, what it is by content, and pytest's options that choose it."""

    name: str
    key: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is compared: the first contender is the baseline.  `arguments` are pytest's for all of them alike."""

    contenders: tuple[Contender, ...]
    arguments: tuple[str, ...]
    seed: int = 0
    suite_digest: str = ""

    @property
    def key(self) -> str:
        """Names the plan by all that its runs depend on."""
        parts: list[Any] = [FORMAT, harness.__version__, self.seed, self.suite_digest, self.arguments]
        parts += [(contender.name, contender.key, contender.options) for contender in self.contenders]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TestComparison:
    """One test: how it went on each contender, and what is said of each but the baseline."""

    __test__ = False

    test: str
    tallies: tuple[Tally, ...]
    judgements: tuple[Judgement, ...]


@dataclass
class Comparison:
    """All that was found out."""

    contenders: tuple[Contender, ...]
    runs: tuple[tuple[Run, ...], ...]
    tests: tuple[TestComparison, ...]
    confidence: float = CONFIDENCE
    seed: int = 0
    suite: str = ""
    finished: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    costs: list[dict[str, Any]] = field(default_factory=list)

    def label(self, number: int) -> str:
        """Return the target that contender NUMBER turned out to be."""
        records = [run.record for run in self.runs[number] if run.record is not None]
        return str(records[0]["target"]) if records else self.contenders[number].name

    def prevented(self, number: int) -> str:
        """Return why contender NUMBER could not be run at all, or an empty string."""
        runs = self.runs[number]
        failed = [run for run in runs if run.record is None]
        return failed[0].said or f"pytest ended with status {failed[0].status}" if failed else ""

    @property
    def exit_code(self) -> ExitCode:
        """PASSED when nothing is broken; HARNESS_FAILED when a run is missing that no kernel prevented."""
        missing = [run for runs in self.runs for run in runs if run.record is None]
        if any(not run.is_kernels_fault for run in missing):
            return ExitCode.HARNESS_FAILED
        candidates_dead = any(run.is_kernels_fault for runs in self.runs[1:] for run in runs)
        if any(run.is_kernels_fault for run in self.runs[0]) and not candidates_dead:
            return ExitCode.HARNESS_FAILED  # nothing to compare with
        broken = any(judgement.is_broken for test in self.tests for judgement in test.judgements)
        return ExitCode.TEST_FAILED if broken or candidates_dead else ExitCode.PASSED

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""

        def counted(one: Tally) -> dict[str, Any]:
            interval = rate_interval(one.failures, one.runs, self.confidence)
            return {
                "runs": one.runs,
                "failures": one.failures,
                "skipped": one.skipped,
                "panics": dict(one.panics),
                "reasons": dict(one.reasons),
                "failure_rate": [round(interval.low, 6), round(interval.high, 6)],
            }

        return {
            "format": FORMAT,
            "kind": "comparison",
            "finished": self.finished,
            "confidence": self.confidence,
            "seed": self.seed,
            "suite": self.suite,
            "exit_status": int(self.exit_code),
            "targets": [
                {
                    "name": contender.name,
                    "key": contender.key,
                    "label": self.label(number),
                    "runs": len(self.runs[number]),
                    "prevented": self.prevented(number),
                }
                for number, contender in enumerate(self.contenders)
            ],
            "tests": [
                {
                    "test": test.test,
                    "tallies": [counted(one) for one in test.tallies],
                    "judgements": [asdict(judgement) for judgement in test.judgements],
                }
                for test in self.tests
            ],
            "costs": self.costs,
        }


def compare_runs(
    contenders: Sequence[Contender], runs: Sequence[Sequence[Run]], confidence: float = CONFIDENCE, seed: int = 0
) -> Comparison:
    """Judge every test from the records of RUNS, one sequence per contender."""
    tallies = [tally(run.record for run in sequence if run.record is not None) for sequence in runs]
    tests = []
    for test in dict.fromkeys(name for one in tallies for name in one):
        of_test = tuple(one.get(test, Tally()) for one in tallies)
        judgements = tuple(judge(of_test[0], other, confidence) for other in of_test[1:])
        tests.append(TestComparison(test, of_test, judgements))
    return Comparison(tuple(contenders), tuple(tuple(each) for each in runs), tuple(tests), confidence, seed)


class Campaign:
    """Makes the runs of PLAN that are missing, at most JOBS at once, and judges them."""

    def __init__(self, store: Store, plan: Plan, *, jobs: int = 1, fresh: bool = False) -> None:
        self._plan = plan
        self._jobs = jobs
        self._store = store
        self.folder = store.folder("results", f"compare-{plan.key}")
        self._runner = SuiteRunner(store)
        self._ended = False
        if fresh:
            for file in self.folder.glob("run-*"):
                file.unlink()

    def _file(self, repeat: int, number: int) -> Path:
        return self.folder / f"run-{repeat:04}-{number}.json"

    def known_runs(self, repeat: int) -> int:
        """Return how many of the runs for REPEAT repeats exist already."""
        count = len(self._plan.contenders)
        return sum(self._file(each, number).exists() for each in range(repeat) for number in range(count))

    def schedule(self, repeat: int) -> list[tuple[int, int]]:
        """Return (repeat, contender) in the order of running: there and back again, so that drift hits all alike."""
        numbers = list(range(len(self._plan.contenders)))
        return [(each, number) for each in range(repeat) for number in (numbers if each % 2 == 0 else numbers[::-1])]

    def run(self, repeat: int, confidence: float, progress: Progress = lambda _: None) -> Comparison:
        """Return the comparison after REPEAT runs of each; Ctrl-C ends the runs under way and keeps the others."""
        plan = self._plan
        runs: dict[tuple[int, int], Run] = {}
        missing = []
        for place in self.schedule(repeat):
            if (found := self._load(*place)) is not None:
                runs[place] = found
            else:
                missing.append(place)
        dead: set[int] = set()
        with self._store.lock(f"compare-{plan.key}"), ThreadPoolExecutor(self._jobs) as pool:
            futures = {pool.submit(self._make, place, dead): place for place in missing}
            try:
                for done in as_completed(futures):
                    place = futures[done]
                    runs[place] = done.result()
                    name = plan.contenders[place[1]].name
                    progress(f"{len(runs)} of {repeat * len(plan.contenders)} runs; {name}: {_summary(runs[place])}")
            except BaseException:
                self._ended = True
                self._runner.stop()
                pool.shutdown(cancel_futures=True)
                raise
        ordered = [[runs[each, number] for each in range(repeat)] for number in range(len(plan.contenders))]
        return compare_runs(plan.contenders, ordered, confidence, plan.seed)

    def _load(self, repeat: int, number: int) -> Run | None:
        file = self._file(repeat, number)
        try:
            return Run(json.loads(file.read_text()))
        except FileNotFoundError:
            return None
        except ValueError:
            file.unlink()
            return None

    def _make(self, place: tuple[int, int], dead: set[int]) -> Run:
        repeat, number = place
        if self._ended or number in dead:
            return Run(None, "the kernel panicked on the way up" if number in dead else "interrupted")
        part = self._file(repeat, number).with_suffix(".part")
        run = self._runner.run(
            [*self._plan.arguments, *self._plan.contenders[number].options], self._plan.seed + repeat, part
        )
        if run.is_kernels_fault:
            dead.add(number)
        elif run.record is not None and not self._ended:
            part.replace(self._file(repeat, number))
        return run


def _summary(run: Run) -> str:
    if run.record is None:
        return run.said
    results = [result["outcome"] for result in run.record["results"]]
    failed = sum(outcome == "failed" for outcome in results)
    return f"{failed} of {len(results)} failed in {run.record['seconds']:.0f} s" if failed else "all passed"


def digest_of_tests(paths: Sequence[Path]) -> str:
    """Return a digest of the test code in PATHS and beside it: other tests make another comparison."""
    digest = hashlib.sha256()
    folders = sorted({path if path.is_dir() else path.parent for path in paths})
    for folder in folders:
        for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.toml")]):
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def load_records(files: Sequence[Path]) -> list[Run]:
    """Return the runs whose records are in FILES; raises HarnessError for a file that is no record."""
    runs = []
    for file in files:
        try:
            record = json.loads(file.read_text())
            record["results"], record["target"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HarnessError(f"{file} is no record of a run ({error})") from None
        runs.append(Run(record))
    return runs


def counts(comparison: Comparison, number: int) -> dict[Verdict, int]:
    """Return how often each verdict was given to contender NUMBER (1 is the first after the baseline)."""
    verdicts = [test.judgements[number - 1].verdict for test in comparison.tests]
    return {verdict: verdicts.count(verdict) for verdict in Verdict if verdict in verdicts}

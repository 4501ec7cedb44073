# SPDX-License-Identifier: BSD-2-Clause
"""Comparing kernels: the same suite with the same seeds on each, machines side by side, as often as it takes.

Every run is a pytest process of its own that leaves a record.  The records of one plan are kept together: a comparison
that was interrupted goes on where it was, and one that needs more repeats only makes those.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness.compare.verdicts import judge, tally
from harness.errors import UsageError
from harness.results.comparison import ComparedKernel, Comparison, Tally, TestComparison
from harness.results.record import FORMAT as RECORD_FORMAT
from harness.results.record import Trouble, read_record
from harness.results.verdict import Verdict
from harness.runs.runner import Run, SuiteRunner
from harness.store import Store

CONFIDENCE = 0.95
_DIED = Trouble(Verdict.BOOT_FAILURE, "the kernel panicked on the way up", Verdict.PANIC)
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
        parts: list[Any] = [RECORD_FORMAT, harness.__version__, self.seed, self.suite_digest, self.arguments]
        parts += [(contender.name, contender.key, contender.options) for contender in self.contenders]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


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
    kernels = tuple(_compared(contender, sequence) for contender, sequence in zip(contenders, runs, strict=True))
    return Comparison(kernels, tuple(tests), confidence, seed)


def _compared(contender: Contender, runs: Sequence[Run]) -> ComparedKernel:
    label = next((run.record.target for run in runs if run.record is not None), contender.name)
    missing = [run for run in runs if not run.is_whole]
    said = (missing[0].said or f"pytest ended with status {missing[0].status}") if missing else ""
    died = bool(missing) and all(run.is_kernels_fault for run in missing)
    return ComparedKernel(contender.name, contender.key, label, len(runs), said, died)


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
        if not file.exists():
            return None
        try:
            return Run(read_record(file))
        except UsageError:  # damaged: it is made again
            file.unlink()
            return None

    def _make(self, place: tuple[int, int], dead: set[int]) -> Run:
        repeat, number = place
        if self._ended or number in dead:
            return Run(None, trouble=_DIED, said=str(_DIED)) if number in dead else Run(None, "interrupted")
        part = self._file(repeat, number).with_suffix(".part")
        run = self._runner.run(
            [*self._plan.arguments, *self._plan.contenders[number].options], self._plan.seed + repeat, part
        )
        if run.is_kernels_fault:
            dead.add(number)
        elif run.is_whole and not self._ended:
            part.replace(self._file(repeat, number))
        return run


def _summary(run: Run) -> str:
    if run.record is None or not run.is_whole:
        return f"{run.said} ({len(run.lost)} tests are lost)" if run.lost else run.said
    failed = sum(result.verdict.against_kernel for result in run.record.results)
    return f"{failed} of {len(run.record.results)} failed in {run.record.seconds:.0f} s" if failed else "all passed"


def digest_of_tests(paths: Sequence[Path]) -> str:
    """Return a digest of the test code in PATHS and beside it: other tests make another comparison."""
    digest = hashlib.sha256()
    folders = sorted({path if path.is_dir() else path.parent for path in paths})
    for folder in folders:
        for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.toml")]):
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return digest.hexdigest()

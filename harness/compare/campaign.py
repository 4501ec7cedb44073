# SPDX-License-Identifier: BSD-2-Clause
"""Comparing kernels: the same suite with the same seeds on each, machines side by side, as often as it takes.

Every run is a pytest process of its own that leaves a record.  The records of one plan are kept together: a comparison
that was interrupted goes on where it was, and one that needs more repeats only makes those.  What the first runs let
one suspect is run again, on further boots of both kernels, until it is settled (harness.compare.evidence).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness.compare.evidence import MOST_BOOTS, Inquiry, Seen, Suspicion, boot_of_suite
from harness.compare.laboratory import Laboratory, Place
from harness.compare.retrial import raised, settle, suspects
from harness.compare.verdicts import judge, tally, worst_results
from harness.errors import UsageError
from harness.options import PYTEST_PREFIX
from harness.results.comparison import ComparedKernel, Comparison, Tally, TestComparison
from harness.results.record import BETWEEN_TESTS, Trouble, read_record
from harness.results.record import FORMAT as RECORD_FORMAT
from harness.results.verdict import Verdict
from harness.runs.hosts import HostPool
from harness.runs.runner import Run, SuiteRunner
from harness.store import Store

CONFIDENCE = 0.95
_SEED_AGAIN = 1_000_000
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
    """What is compared: the first contender is the baseline.

    `tests` and `arguments` are pytest's for all of them alike; names of tests begin at the folder `root`.
    `surroundings` is what else a run depends on: QEMU's version, the accelerator, the harness's own code.
    """

    contenders: tuple[Contender, ...]
    tests: tuple[str, ...]
    arguments: tuple[str, ...]
    root: Path
    seed: int = 0
    suite_digest: str = ""
    surroundings: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Names the plan by all that its runs depend on."""
        parts: list[Any] = [RECORD_FORMAT, harness.__version__, self.seed, self.suite_digest]
        parts += [self.tests, self.arguments, self.surroundings]
        parts += [(contender.name, contender.key, contender.options) for contender in self.contenders]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def tallies_of(runs: Sequence[Sequence[Run]]) -> list[dict[str, Tally]]:
    """Count the results of RUNS by test, for each contender.

    A kernel that never died between tests is one that passed there: else a death there would have nothing beside it.
    """
    tallies = [tally(run.record for run in sequence if run.record is not None) for sequence in runs]
    if any(BETWEEN_TESTS in one for one in tallies):
        for one, sequence in zip(tallies, runs, strict=True):
            one.setdefault(BETWEEN_TESTS, Tally()).runs = sum(run.record is not None for run in sequence)
    return tallies


def seen_by_boot(base: Sequence[Run], other: Sequence[Run]) -> dict[int, dict[str, Seen]]:
    """Return why each test failed in the runs of the suite on BASE and OTHER, by boot, as far as a record says it."""
    sides = [[worst_results(run.record) if run.record is not None else {} for run in runs] for runs in (base, other)]
    tests = {test for side in sides for results in side for test in results} - {BETWEEN_TESTS}
    boots: dict[int, dict[str, tuple[list[str | None], list[str | None]]]] = {}
    for repeat, pair in enumerate(zip(*sides, strict=True)):
        boot = boots.setdefault(boot_of_suite(repeat), {test: ([], []) for test in tests})
        for test in tests:
            for outcomes, results in zip(boot[test], pair, strict=True):
                outcomes.append(results[test].failed_for if test in results else None)
    return {boot: dict(seen) for boot, seen in boots.items()}


def compare_runs(
    contenders: Sequence[Contender],
    runs: Sequence[Sequence[Run]],
    inquiries: Sequence[Inquiry],
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Comparison:
    """Judge every test from RUNS, one sequence per contender, and INQUIRIES, one for each but the baseline."""
    tallies = tallies_of(runs)
    version, *versions = map(_version, runs)
    alike = [0 < version == each for each in versions]
    tests = []
    for test in dict.fromkeys(name for one in tallies for name in one):
        base, *others = (one.get(test, Tally()) for one in tallies)
        judgements = tuple(
            judge(test, base, other, inquiry, confidence, one_version=one_version)
            for other, inquiry, one_version in zip(others, inquiries, alike, strict=True)
        )
        tests.append(TestComparison(test, (base, *others), judgements))
    kernels = tuple(_compared(contender, sequence) for contender, sequence in zip(contenders, runs, strict=True))
    return Comparison(kernels, tuple(tests), confidence, seed)


def _version(runs: Sequence[Run]) -> int:
    """Return __DragonFly_version of the kernel of RUNS, 0 where it is unknown."""
    return max((run.record.osreldate for run in runs if run.record is not None), default=0)


def _compared(contender: Contender, runs: Sequence[Run]) -> ComparedKernel:
    label = next((run.record.target for run in runs if run.record is not None), contender.name)
    broken = [run for run in runs if not run.is_whole]
    said = (broken[0].said or f"pytest ended with status {broken[0].status}") if broken else ""
    died = bool(broken) and all(run.is_kernels_fault for run in broken)
    missing = sum(run.record is None or not _says_something(run) for run in runs)
    return ComparedKernel(contender.name, contender.key, label, len(runs), said, died, missing)


def _says_something(run: Run) -> bool:
    results = run.record.results if run.record is not None else ()
    return any(result.verdict.is_judged or result.verdict.is_left_out for result in results)


class Campaign:
    """Makes the runs of PLAN that are missing, at most JOBS at once, on HOSTS if there are any, and judges them."""

    def __init__(
        self,
        store: Store,
        plan: Plan,
        *,
        jobs: int = 1,
        fresh: bool = False,
        most_boots: int = MOST_BOOTS,
        hosts: HostPool | None = None,
    ) -> None:
        self._plan = plan
        self._jobs = jobs
        self._store = store
        self.folder = store.folder("results", f"compare-{plan.key}")
        self._runner = SuiteRunner(store, hosts)
        self._most_boots = most_boots
        self._ended = False
        if fresh:
            for kind in ("run-*", "again-*", "looks-*"):
                for file in self.folder.glob(kind):
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

    def run(
        self, repeat: int, confidence: float, progress: Progress = lambda _: None, *, again: bool = True
    ) -> Comparison:
        """Return the comparison after REPEAT runs of each; what they let one suspect is run AGAIN until it is settled.

        Ctrl-C ends the runs under way and keeps the others.
        """
        plan = self._plan
        runs: dict[tuple[int, int], Run] = {}
        missing = []
        for place in self.schedule(repeat):
            if (found := _load(self._file(*place))) is not None:
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
                ordered = [[runs[each, number] for each in range(repeat)] for number in range(len(plan.contenders))]
                inquiries = self._inquire(ordered, confidence, again, pool, progress)
            except BaseException:
                self._ended = True
                self._runner.stop()
                pool.shutdown(cancel_futures=True)
                raise
        return compare_runs(plan.contenders, ordered, inquiries, confidence, plan.seed)

    def _inquire(
        self, runs: Sequence[Sequence[Run]], confidence: float, again: bool, pool: Executor, progress: Progress
    ) -> list[Inquiry]:
        """Try what RUNS let one suspect of each kernel but the baseline; all of them share the permitted error."""
        base, *others = tallies_of(runs)
        inquiries = []
        for number, other in enumerate(others, 1):
            inquiry = Inquiry((1 - confidence) / len(others), self._most_boots)
            inquiries.append(inquiry)
            if not again:
                continue
            laboratory = Laboratory(self._make_again, number, pool, self.folder / f"looks-{number}.json", progress)
            # Earlier looks come first: what was run because of them is evidence for them, and was not for what is new.
            kept: list[tuple[int, list[Suspicion]]] = []
            for repeat, look in [*laboratory.looks(), (len(runs[0]), suspects(base, other))]:
                inquiry.look(look, raised(seen_by_boot(runs[0][:repeat], runs[number][:repeat])))
                if len(inquiry.looks) > len(kept):
                    kept.append((repeat, look))
                    laboratory.keep_looks(kept)  # before its runs are made: who goes on must know that it was one
                settle(inquiry, look, laboratory)
        return inquiries

    def _make(self, place: tuple[int, int], dead: set[int]) -> Run:
        repeat, number = place
        if self._ended or number in dead:
            return Run(None, trouble=_DIED, said=str(_DIED)) if number in dead else Run(None, "interrupted")
        boot = boot_of_suite(repeat)
        more = [f"--{PYTEST_PREFIX}boot={boot}"] if boot else []
        run = self._run(number, self._plan.tests, self._plan.seed + repeat, self._file(repeat, number), *more)
        if run.is_kernels_fault:
            dead.add(number)
        return run

    def _make_again(self, test_names: Sequence[str], place: Place) -> Run:
        """Return a run of TEST_NAMES at PLACE, from its file if it was made before."""
        file = self.folder / f"again-{place.against:02}-{place.boot:02}-{place.runs.start:03}-{place.number}.json"
        known = _load(file)
        if known is not None and known.record is not None:
            said = {result.test for result in known.record.results if 1 + len(result.again) == len(place.runs)}
            if said.issuperset(test_names):
                return known
        if self._ended:
            return Run(None, "interrupted")
        tests = [str(self._plan.root / name) for name in test_names]
        # Numbers that the first runs do not have: what was drawn there is no evidence of what was seen there.
        seed = self._plan.seed + _SEED_AGAIN + 1000 * place.boot + place.runs.start
        more = [f"--{PYTEST_PREFIX}boot={place.boot}", f"--{PYTEST_PREFIX}repeat={len(place.runs)}"]
        return self._run(place.number, tests or self._plan.tests, seed, file, *more)

    def _run(self, number: int, tests: Sequence[str], seed: int, file: Path, *more: str) -> Run:
        plan = self._plan
        part = file.with_suffix(".part")
        run = self._runner.run([*tests, *plan.arguments, *plan.contenders[number].options, *more], seed, part)
        if run.is_whole and not self._ended:
            part.replace(file)
        return run


def _load(file: Path) -> Run | None:
    """Return the run whose record FILE has; None where there is none, or one that is damaged and made again."""
    try:
        return Run(read_record(file)) if file.exists() else None
    except UsageError:
        file.unlink()
        return None


def _summary(run: Run) -> str:
    if run.record is None or not run.is_whole:
        return f"{run.said} ({len(run.lost)} tests are lost)" if run.lost else run.said
    failed = sum(result.verdict.against_kernel for result in run.record.results)
    return f"{failed} of {len(run.record.results)} failed in {run.record.seconds:.0f} s" if failed else "all passed"

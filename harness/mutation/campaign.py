# SPDX-License-Identifier: BSD-2-Clause
"""One fault after the other: build it, boot it, run the tests that run its line; what is known is on disk at once."""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from harness.coverage.choice import choose
from harness.coverage.follow import Follower
from harness.coverage.map import CoverageMap
from harness.coverage.mutants import Mutant
from harness.errors import DeadlineError, HarnessError, UsageError
from harness.guests.options import TargetOptions
from harness.guests.targets import ResolvedTarget
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel
from harness.kernels.build import Builder, BuildFailedError, FailedBuild, IncrementalBuilder, build_kernel, first_error
from harness.kernels.source import SourceTree
from harness.machine.elf import identify_kernel
from harness.results.mutation import Fate, MutantResult, append
from harness.runs.options import RunOptions
from harness.runs.order import Order
from harness.runs.runner import Run, SuiteRunner
from harness.runs.suite import is_test, test_arguments
from harness.store import Store
from harness.threads import side_by_side

# So many tests run on a fault first: most that can catch it are among them, and collecting all takes seconds.
_FIRST = 24
# So many on a fault in what no test runs.
_BROAD = 8
_LEAST = 0.02  # s that any test takes


@dataclass(frozen=True)
class Subject:
    """What is mutated and how it is judged.

    `most_tests` bounds how many of the tests that run a line are run on a fault there (0: all of them).
    """

    source: SourceTree
    file: str
    text: bytes
    known: CoverageMap
    image: BaseImage
    machine: TargetOptions
    command: str | None = None
    builder: Builder | None = None
    most_tests: int = 0


@dataclass
class Campaign:
    """Faults under way, by any number of workers; FILE has what is known."""

    subject: Subject
    store: Store
    file: Path
    equivalents: Mapping[str, str]
    say: Callable[[MutantResult], None] = field(default=lambda _: None)

    def __post_init__(self) -> None:
        self._runner = SuiteRunner(self.store)
        self._lock = threading.Lock()
        self._follower = Follower(self.subject.known, self.subject.file, self.subject.text, self._own_text())
        self._original = ""
        self._stopped = threading.Event()
        self._trouble: list[BaseException] = []

    def _own_text(self) -> bytes | None:
        tree = self.subject.known.tree
        return replace(self.subject.source, tree=tree).read(self.subject.file) if tree else None

    def run(self, mutants: Sequence[Mutant], *, workers: int, until: float) -> list[MutantResult]:
        """Judge MUTANTS by WORKERS side by side until the monotonic time UNTIL; return what is known then.

        Raises HarnessError when the sources do not build without any fault, UsageError when the campaign is under way
        elsewhere: two would judge the same faults, and take each other's kernels away.
        """
        with contextlib.ExitStack() as alone:
            try:
                alone.enter_context(self.store.lock(f"mutate-{self.file.stem}", deadline=0))
            except DeadlineError:
                raise UsageError("this campaign is under way in another command: wait for that, or end it") from None
            return self._share_out(mutants, workers, until)

    def _share_out(self, mutants: Sequence[Mutant], workers: int, until: float) -> list[MutantResult]:
        todo: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
        for mutant in mutants:
            todo.put(mutant)
        results: list[MutantResult] = []
        side_by_side(lambda: self._work(todo, results, until), workers, self.stop, "mutants")
        if self._trouble:
            raise self._trouble[0]
        return results

    def stop(self) -> None:
        """End what is under way; what it was about is not known then."""
        self._stopped.set()
        self._runner.stop()

    def _work(self, todo: queue.SimpleQueue[Mutant], results: list[MutantResult], until: float) -> None:
        try:
            with self.store.scratch("mutants") as folder:
                maker = _Maker(self.subject, self.store, folder)
                self._note_original(maker)
                for mutant in _taken(todo):
                    if self._stopped.is_set() or time.monotonic() > until:
                        return
                    result = self._judge(maker, mutant, folder)
                    with self._lock:
                        if self._stopped.is_set():
                            return
                        append(self.file, result)
                        results.append(result)
                    self.say(result)
        except BaseException as error:  # said by whoever waits for all workers
            self._trouble.append(error)
            self._stopped.set()

    def _note_original(self, maker: _Maker) -> None:
        with self._lock:
            if not self._original:
                try:
                    self._original = identify_kernel(maker.make(self.subject.text)).text_digest
                except (FailedBuild, BuildFailedError) as error:
                    raise HarnessError(f"the sources do not build without any fault: {error}") from None

    def _judge(self, maker: _Maker, mutant: Mutant, folder: Path) -> MutantResult:
        began = time.monotonic()
        given = MutantResult(mutant.name, mutant.file, mutant.function, mutant.line, mutant.what, Fate.LOST)
        if mutant.name in self.equivalents:
            return replace(given, fate=Fate.EQUIVALENT, reason=self.equivalents[mutant.name])
        try:
            tests, are_about_it, number = self._tests_of(mutant)
            given = replace(given, reaching=number)
            kernel = maker.make(mutant.apply(self.subject.text))
            if identify_kernel(kernel).text_digest == self._original:
                found = replace(given, fate=Fate.SAME_CODE)
            else:
                found = self._try(given, kernel, tests, folder)
                if found.fate is Fate.SURVIVED and not are_about_it:
                    found = replace(found, fate=Fate.UNREACHED)
        except (FailedBuild, BuildFailedError) as error:
            found = replace(given, fate=Fate.NO_BUILD, reason=maker.complaint or str(error))
        except HarnessError as error:
            found = replace(given, reason=str(error).partition("\n")[0])
        return replace(found, seconds=round(time.monotonic() - began, 1))

    def _tests_of(self, mutant: Mutant) -> tuple[tuple[str, ...], bool, int]:
        """Return the tests to run on MUTANT, whether they are known to run its line, and how many are.

        Of what no test runs, at boot for instance, a few show whether the kernel comes up and works at all.
        """
        place = self._follower.place(mutant.line)
        choice = choose(self.subject.known, [place]) if place is not None else None
        nearby = tuple(filter(is_test, choice.tests)) if choice is not None else ()
        if choice is not None and nearby and not choice.unreached:
            return nearby[: self.subject.most_tests or None], True, len(nearby)
        return (nearby or self._broad)[:_BROAD], False, 0

    @cached_property
    def _broad(self) -> tuple[str, ...]:
        """The tests that run most in the least time."""
        tests = self.subject.known.tests
        return tuple(
            sorted(filter(is_test, tests), key=lambda test: -tests[test].hits.sum() / max(tests[test].seconds, _LEAST))
        )

    def _try(self, given: MutantResult, kernel: Path, tests: Sequence[str], folder: Path) -> MutantResult:
        with _registered(self.store, f"mutant-{given.name}", kernel) as record:
            for first, last in ((0, _FIRST), (_FIRST, len(tests))):
                if not tests[first:last]:
                    continue
                run = self._run(record, tests[first:last], folder / f"{given.name}.json")
                given = replace(given, tried=min(last, len(tests)))
                if run.is_kernels_fault:
                    return replace(given, fate=Fate.NO_BOOT, tried=0)
                results = run.record.results if run.record is not None else ()
                caught = next((one for one in results if one.verdict.against_kernel), None)
                if caught is not None:
                    return replace(given, fate=Fate.CAUGHT, test=caught.test, verdict=str(caught.verdict))
                if not run.is_whole:
                    return replace(given, reason=run.said.partition("\n")[0])
            if len(tests) < given.reaching:
                return self._try_more(given, record, folder)
        return replace(given, fate=Fate.SURVIVED)

    def _try_more(self, given: MutantResult, kernel: Kernel, folder: Path) -> MutantResult:
        """Run the tests that say that they are about the function, too, whatever bounds how many that run the line."""
        run = self._run(kernel, (), folder / f"{given.name}.json", about=given.function)
        results = run.record.results if run.record is not None else ()
        caught = next((one for one in results if one.verdict.against_kernel), None)
        if caught is not None:
            return replace(given, fate=Fate.CAUGHT, test=caught.test, verdict=str(caught.verdict))
        judged = sum(one.verdict.is_judged for one in results)
        return replace(given, fate=Fate.SURVIVED, tried=min(given.tried + judged, given.reaching))

    def _run(self, kernel: Kernel, tests: Sequence[str], record: Path, *, about: str = "") -> Run:
        options = RunOptions(
            replace(self.subject.machine, kernel=None, image=None),
            resolved=ResolvedTarget(self.subject.image, kernel),
            order=Order("written"),
            function=about,
        )
        arguments = [*test_arguments(list(tests), defects=False), *options.words(), "-x"]
        return self._runner.run(arguments, 0, record)


def _taken(todo: queue.SimpleQueue[Mutant]) -> Iterator[Mutant]:
    while True:
        try:
            yield todo.get_nowait()
        except queue.Empty:
            return


class _Maker:
    """Builds kernels of one tree with other versions of one file."""

    def __init__(self, subject: Subject, store: Store, folder: Path) -> None:
        self._subject = subject
        self._store = store
        self._log = folder / "build.log"
        self._log.touch()
        self._builder = (
            IncrementalBuilder(subject.command, subject.source, folder) if subject.command is not None else None
        )

    @property
    def complaint(self) -> str:
        """What the last build said went wrong."""
        return first_error(self._log.read_text(errors="replace")) or ""

    def make(self, text: bytes) -> Path:
        """Return the kernel with TEXT as its file; raises FailedBuild or BuildFailedError when it does not build."""
        subject = self._subject
        if self._builder is not None:
            return self._builder.build_with(subject.file, text, self._log)
        assert subject.builder is not None
        changed = subject.source.with_file(subject.file, text, "a fault") if text != subject.text else subject.source
        build = build_kernel(self._store, changed, subject.builder)
        assert build.elf is not None
        return self._store.blob(build.elf)


@contextlib.contextmanager
def _registered(store: Store, name: str, file: Path) -> Iterator[Kernel]:
    """Have the kernel in FILE in STORE, under NAME and with its warm states, as long as the block lasts."""
    identity = identify_kernel(file)
    with store.adding():
        record = Kernel(name, store.add_blob(file), identity.version, identity.osreldate, identity.build_id)
        store.put(record, replace=True)
    try:
        yield record
    finally:
        for about in store.folder("snapshots").glob("*/warm.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                if record.elf in json.loads(about.read_text())["needs"]:
                    shutil.rmtree(about.parent, ignore_errors=True)
        store.remove(Kernel, name)
        with contextlib.suppress(OSError, HarnessError):
            if not any(other.elf == record.elf for other in store.all(Kernel)):
                store.blob(record.elf).unlink()


def read_equivalents(files: Iterable[Path]) -> dict[str, str]:
    """Return the faults that are declared to change nothing anybody can see, each with the reason.

    Raises UsageError for a file that is no such list, and for a declaration without a reason.
    """
    found: dict[str, str] = {}
    for file in files:
        if not file.exists():
            continue
        try:
            data = tomllib.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"{file}: {error}") from None
        for name, about in data.items():
            reason = about.get("reason", "") if isinstance(about, dict) else ""
            if not str(reason).strip():
                raise UsageError(f"{file}: {name} is declared equivalent without a reason")
            found[name] = str(reason)
    return found


def declare(file: Path, mutant: Mutant, reason: str) -> None:
    """Add MUTANT with REASON to the declarations in FILE."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"[{mutant.name}]\nfunction = {json.dumps(mutant.function)}\nreason = {json.dumps(reason)}\n\n")


def spread(mutants: Sequence[Mutant], number: int) -> list[Mutant]:
    """Return NUMBER of MUTANTS, at even distances, so that all of the file has its share; all of them for 0."""
    if not number or number >= len(mutants):
        return list(mutants)
    return [mutants[(2 * at + 1) * len(mutants) // (2 * number)] for at in range(number)]

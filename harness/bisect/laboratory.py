# SPDX-License-Identifier: BSD-2-Clause
"""Where experiments are made: a commit's kernel out of the store, or built, and the suite or a benchmark on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from harness.bisect.decision import Outcome, Trouble
from harness.bisect.predicate import Bound, Predicate, Sighting
from harness.bisect.quirks import Needs, Quirk, needs_of
from harness.bisect.repository import Repository
from harness.compare.costs import measure
from harness.errors import HarnessError, UsageError
from harness.guests.guest import Progress
from harness.guests.options import TargetOptions
from harness.guests.targets import decide, resolve_target
from harness.kernels.build import Build, Builder, BuildFailedError, build_kernel, build_key, name_build
from harness.kernels.patch import PatchError, apply_patches
from harness.kernels.source import MissingContentError, SourceTree
from harness.plugin.diagnosis import start_trouble
from harness.results.verdict import Verdict
from harness.runs.hosts import HostPool
from harness.runs.options import RunOptions
from harness.runs.runner import SuiteRunner
from harness.runs.suite import suite_arguments
from harness.store import Store


@dataclass(frozen=True)
class Specimen:
    """A kernel ready to be tested: the store's NAME for it, its digest, and what it took to get it, in seconds."""

    name: str
    digest: str
    needs: Needs
    built: bool
    seconds: float


class Laboratory(Protocol):
    """Makes experiments.  prepare() is called by one thread, run() by several at once."""

    def is_ready(self, commits: Sequence[str]) -> list[bool]:
        """Tell for each of COMMITS whether its kernel is there already."""

    def prepare(self, commit: str, without: str | None = None) -> Specimen | Sighting | None:
        """Return the kernel of COMMIT, or why there is none.

        WITHOUT a culprit: of COMMIT with that one reverted; None where it does not revert cleanly.
        """

    def run(self, specimen: Specimen, seed: int) -> Sighting:
        """Test once."""

    def stop(self) -> None:
        """End all runs."""


class KernelLaboratory:
    """Builds with BUILDER, boots what TARGET says, and runs the tests at PATHS with OPTIONS for pytest.

    Records of the runs go to FOLDER; the tests run on HOSTS if there are any.
    """

    def __init__(
        self,
        store: Store,
        repository: Repository,
        builder: Builder,
        predicate: Predicate | Bound,
        *,
        config: str,
        target: TargetOptions,
        paths: Sequence[str] = (),
        options: Sequence[str] = (),
        quirks: Sequence[Quirk] = (),
        patches: Sequence[Path] = (),
        folder: Path,
        any_era: bool = False,
        pristine: bool = False,
        retry: bool = False,
        hosts: HostPool | None = None,
        progress: Progress = lambda _: None,
    ) -> None:
        self._store = store
        self._repository = repository
        self._builder = builder
        self._predicate = predicate
        self._config = config
        self._target = target
        self._paths = tuple(paths)
        self._options = tuple(options)
        self._quirks = tuple(quirk for quirk in quirks if quirk.matters(target.cpus, target.memory))
        self._patches = tuple(patches)
        self._folder = folder
        self._any_era = any_era
        self._pristine = pristine
        self._retry = retry
        self._progress = progress
        self._runner = SuiteRunner(store, hosts)

    def is_ready(self, commits: Sequence[str]) -> list[bool]:
        """Tell for each of COMMITS whether the store has its kernel; one that quirks patch counts as missing."""
        known = {path.stem for path in self._store.folder(Build.PLURAL).glob("*.json")}
        if self._patches or not known:
            return [False] * len(commits)
        keys = [
            build_key(self._repository.source(tree, commit), self._config, self._builder)
            for commit, tree in self._repository.trees(commits).items()
        ]
        return [key in known for key in keys]

    def prepare(self, commit: str, without: str | None = None) -> Specimen | Sighting | None:
        """Return the kernel of COMMIT (with WITHOUT reverted), built unless the store has it."""
        source: SourceTree | None
        if without is None:
            source = self._repository.tree(commit)
        else:
            source = self._repository.reverted(without, commit)
            if source is None:
                return None
        needs = needs_of(commit, self._quirks, self._repository)
        began = time.monotonic()
        known = self._store.folder(Build.PLURAL)
        try:
            source = apply_patches(source, [*needs.patches, *self._patches])
            built = not (known / f"{build_key(source, self._config, self._builder)}.json").exists()
            build = build_kernel(
                self._store, source, self._builder, config=self._config, retry=self._retry, progress=self._progress
            )
        except (BuildFailedError, PatchError) as error:
            said = error.error if isinstance(error, BuildFailedError) else str(error)
            return Sighting(Outcome.UNTESTABLE, Trouble.BUILD, said)
        except MissingContentError as error:
            raise UsageError(f"{error}; what no kernel is built from can be left out (--exclude PATH)") from None
        kernel = name_build(self._store, build)
        return Specimen(kernel.name, kernel.elf, needs, built, round(time.monotonic() - began, 1))

    def run(self, specimen: Specimen, seed: int) -> Sighting:
        """Run the suite, or the benchmark, on SPECIMEN once."""
        needs = specimen.needs
        target = replace(
            self._target,
            kernel=specimen.name,
            kenv={**needs.kenv, **self._target.kenv},
            cpus=min(self._target.cpus, needs.cpus or self._target.cpus),
            memory=max(self._target.memory, needs.memory or self._target.memory),
        )
        if isinstance(self._predicate, Bound):
            return self._measure(self._predicate, target)
        record = self._folder / f"run-{seed:05}.json"
        resolved = decide(target.choice, self._store)
        run = RunOptions(target, any_era=self._any_era, pristine=self._pristine, resolved=resolved)
        arguments = [*suite_arguments(run, self._paths), *self._options]
        return self._predicate.judge(self._runner.run(arguments, seed, record))

    def _measure(self, bound: Bound, target: TargetOptions) -> Sighting:
        try:
            seconds = measure(
                resolve_target(target.choice, self._store),
                self._store,
                target.size,
                bound.workload,
                counted=bound.instructions,
            )
        except HarnessError as error:
            died = start_trouble(error).verdict in {Verdict.BOOT_FAILURE, Verdict.PANIC, Verdict.HANG}
            return Sighting(Outcome.UNTESTABLE, Trouble.BOOT if died else Trouble.INFRASTRUCTURE, str(error))
        return bound.judge(seconds * (1e9 if bound.instructions else 1e6))

    def stop(self) -> None:
        """End all runs as Ctrl-C does."""
        self._runner.stop()

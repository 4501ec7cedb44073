# SPDX-License-Identifier: BSD-2-Clause
"""A whole bisection: choose, make, remember, until the culprit is known; then prove it."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from harness.bisect.decision import Conclusion, Outcome, Proposal, Trouble
from harness.bisect.laboratory import Laboratory, Specimen
from harness.bisect.predicate import Sighting
from harness.bisect.repository import Repository
from harness.bisect.state import Observation, State, learn
from harness.errors import HarnessError
from harness.results.bisection import HOLDS
from harness.store import Store

# What is believed of costs before anything was measured, in seconds.
_BUILD_SECONDS, _BOOT_SECONDS, _RUN_SECONDS = 300.0, 20.0, 10.0
# The proof's patience: so many times the runs that should do.
_PATIENCE = 3
# Failures of the harness or the host in a row, on different commits, after which it is not theirs.
_HOST_FAILURES = 3
#: What the proof says of a statement that does not stand.
FAILS, IMPOSSIBLE = "fails", "not possible"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Experiment:
    """A run under way, and what it is for."""

    commit: str
    role: str
    specimen: Specimen
    why: Proposal | None = None


class Bisection:
    """Goes on with STATE, which is kept in FOLDER, by experiments in LABORATORY, JOBS at once."""

    def __init__(
        self,
        state: State,
        folder: Path,
        store: Store,
        repository: Repository,
        laboratory: Laboratory,
        *,
        jobs: int = 1,
        progress: Progress = lambda _: None,
    ) -> None:
        self.state = state
        self.folder = folder
        self.knowledge = state.knowledge()
        self._store = store
        self._repository = repository
        self._laboratory = laboratory
        self._jobs = jobs
        self._progress = progress
        self._serial = len(state.observations)
        commits = state.scope.history.commits
        # A commit that was given up costs nothing to know, and is not chosen.
        self._ready = dict(zip(commits, laboratory.is_ready(commits), strict=True))
        for each in state.observations:
            self._ready[each.commit] = True

    # The search

    def run(self) -> Conclusion:
        """Search and prove until nothing is left to do; Ctrl-C loses only the runs under way."""
        state = self.state
        with self._store.lock(f"bisect-{state.key}", deadline=1.0), ThreadPoolExecutor(self._jobs) as pool:
            try:
                self._check_bases(pool)
                while True:
                    self._search(pool)
                    if self._prove(pool):
                        break
            except BaseException:
                self._laboratory.stop()
                pool.shutdown(cancel_futures=True)
                raise
        self._write()
        self._require_seen()
        return self.knowledge.conclude()

    def _check_bases(self, pool: ThreadPoolExecutor) -> None:
        """Test where branches parted, before it is taken for good; raises HarnessError where the failure shows."""
        for base in self.state.scope.bases:
            if any(each.commit == base and each.role == "base" for each in self.state.observations):
                continue
            experiment = self._prepare(base, "base")
            if experiment is None:
                continue
            made = self._finish(experiment, *self._start(pool, experiment).result())
            if made.outcome is Outcome.BAD:
                raise HarnessError(
                    f"the merge base {base[:12]} of the good and the bad end is bad: the good one's branch mended it,"
                    " and no commit between the merge base and the bad end broke it"
                )

    def _require_seen(self) -> None:
        """Raise HarnessError where no kernel could be tested: nothing is known then, whatever was believed before."""
        seen = self.state.observations
        if seen and all(each.outcome is Outcome.UNTESTABLE for each in seen):
            last = seen[-1]
            raise HarnessError(
                f"no kernel could be tested, so nothing is known: {len({each.commit for each in seen})} commits were"
                f" tried, the last one {last.commit[:12]}: {last.trouble}: {last.detail}"
            )

    def _require_sound(self, made: Observation) -> None:
        """Raise HarnessError where MADE is one failure too many for it to be the commits'.

        That is the third of the harness or the host in a row on different commits, which are not held against these, or
        a first kernel that does not build where that of the bad end does not either.
        """
        seen = self.state.observations
        if made.trouble is Trouble.INFRASTRUCTURE:
            row = list(itertools.takewhile(lambda each: each.trouble is Trouble.INFRASTRUCTURE, reversed(seen)))
            if len({each.commit for each in row}) >= _HOST_FAILURES:
                del seen[len(seen) - len(row) :]
                self._write()
                raise HarnessError(
                    f"the harness or the host failed {len(row)} times in a row, the last time: {made.detail}; once it"
                    " is mended, --resume goes on, and no commit was given up for it"
                )
        if made.trouble is Trouble.BUILD and all(each.outcome is Outcome.UNTESTABLE for each in seen):
            end = self._laboratory.prepare(self.state.scope.bad)
            if isinstance(end, Sighting):
                del seen[:]
                self._write()
                raise HarnessError(
                    f"neither {made.commit[:12]} nor the bad end {self.state.scope.bad[:12]} builds, so nothing can be"
                    f" found out: {end.detail}"
                )

    def costs(self) -> tuple[list[float], list[float]]:
        """Return what a run of each commit costs, and what has to be paid before the first one, in seconds.

        A kernel that ran is resumed from its warm state; another one has to boot, or to be built before.
        """
        booted: set[str] = set()
        first: list[float] = []
        again: list[float] = []
        for each in self.state.observations:
            if each.run_seconds and each.kernel:
                (again if each.kernel in booted else first).append(each.run_seconds)
                booted.add(each.kernel)
        built = [each.build_seconds for each in self.state.observations if each.built]
        build = statistics.median(built) if built else _BUILD_SECONDS
        fresh = statistics.median(first) if first else _RUN_SECONDS + _BOOT_SECONDS
        run = min(fresh, statistics.median(again)) if again else fresh * _RUN_SECONDS / (_RUN_SECONDS + _BOOT_SECONDS)
        ran = {each.commit for each in self.state.observations if each.kernel in booted and each.role != "revert"}
        commits = self.state.scope.history.commits
        once = [0.0 if commit in ran else fresh - run + (0.0 if self._ready[commit] else build) for commit in commits]
        return [run] * len(commits), once

    def proposals(self, count: int = 1, pending: Iterable[str] = ()) -> list[Proposal]:
        """Return the experiments that come next, while those of the commits PENDING are under way."""
        seconds, once = self.costs()
        return self.knowledge.choose(seconds, count, pending, once)

    def _search(self, pool: ThreadPoolExecutor) -> None:
        pending: dict[Future[tuple[Sighting, float]], Experiment] = {}
        while not self.knowledge.is_decided(self.state.confidence) or pending:
            decided = self.knowledge.is_decided(self.state.confidence)
            under_way = [each.commit for each in pending.values()]
            while not decided and len(pending) < self._jobs:
                chosen = self.proposals(1, under_way)
                if not chosen:
                    break
                why = chosen[0]
                times = f", {why.runs} runs" if why.runs > 1 else ""
                self._progress(
                    f"{len(self.state.scope.history)} commits, {self.knowledge.bits():.1f} bits to know; next"
                    f" {why.commit[:12]} ({why.bits:.2f} bits in {why.seconds:.0f} s{times})"
                )
                experiment = self._prepare(why.commit, "search", why)
                if experiment is None:
                    continue  # it was untestable: what to do next may be something else
                pending[self._start(pool, experiment)] = experiment
                under_way.append(why.commit)
            if not pending:
                break
            for done in wait(pending, return_when=FIRST_COMPLETED).done:
                self._finish(pending.pop(done), *done.result())

    def _prepare(
        self, commit: str, role: str, why: Proposal | None = None, without: str | None = None
    ) -> Experiment | None:
        """Return an experiment that can be run; None where the kernel cannot be had, which is then noted."""
        prepared = self._laboratory.prepare(commit, without)
        if isinstance(prepared, Specimen):
            self._ready[commit] = True
            return Experiment(commit, role, prepared, why)
        if prepared is not None:
            self._note(Observation(commit, prepared.outcome, prepared.trouble, prepared.detail, role=role))
        return None

    def _start(self, pool: ThreadPoolExecutor, experiment: Experiment) -> Future[tuple[Sighting, float]]:
        self._serial += 1
        self._progress(f"{experiment.commit[:12]} {experiment.role}: running")
        return pool.submit(_timed, self._laboratory, experiment.specimen, self._serial)

    def _finish(self, experiment: Experiment, sighting: Sighting, seconds: float) -> Observation:
        specimen = experiment.specimen
        known = any(each.kernel == specimen.digest for each in self.state.observations)
        made = Observation(
            experiment.commit,
            sighting.outcome,
            sighting.trouble,
            sighting.detail,
            sighting.test,
            sighting.excerpt,
            experiment.role,
            specimen.digest,
            specimen.built and not known,
            specimen.seconds if specimen.built and not known else 0.0,
            round(seconds, 1),
            specimen.needs.names,
            sighting.left_out,
        )
        return self._judged(made)

    def _judged(self, made: Observation) -> Observation:
        """Note MADE; that all went well counts only where the tests ran that are known to fail elsewhere."""
        shows = Outcome.GOOD if self.state.is_fix else Outcome.BAD
        failing = {each.test for each in self.state.observations if each.outcome is shows and each.test}
        if made.outcome is not Outcome.UNTESTABLE and (missed := sorted(failing.intersection(made.left_out))):
            made = replace(
                made,
                outcome=Outcome.UNTESTABLE,
                trouble=Trouble.NOT_APPLICABLE,
                detail=f"{missed[0]} did not run",
            )
        self._note(made)
        if made.outcome is shows and made.test not in failing and self.state.withdraw(made.test):
            self.knowledge = self.state.knowledge()
            self._write()
        return made

    def _note(self, made: Observation) -> None:
        learn(self.knowledge, self.state.observations, made, self.state.scope)
        self.state.observations.append(made)
        self._write()
        trouble = f" ({made.trouble})" if made.trouble else ""
        self._progress(f"{made.commit[:12]} {made.role}: {made.outcome}{trouble} {made.detail}")
        self._require_sound(made)

    def _write(self) -> None:
        self.state.write(self.folder)

    # The proof

    def _prove(self, pool: ThreadPoolExecutor) -> bool:
        """Prove what was concluded; return whether it stands, or whether the search has to go on."""
        found = self.knowledge.conclude()
        if found.probability < self.state.confidence or len(found.commits) != 1:
            return True  # there is no single commit to prove
        (culprit,) = found.commits
        if self.state.concluded != culprit:
            self.state.concluded, self.state.concluded_after = culprit, len(self.state.observations)
        before = self._repository.parents(culprit)
        proof = self.state.proof = {}
        for parent in before:
            proof[f"parent {parent[:12]} is good"] = self._repeat(pool, parent, "parent", Outcome.GOOD)
            if not self._stands(culprit):
                return False
        proof[f"culprit {culprit[:12]} is bad"] = self._repeat(pool, culprit, "culprit", Outcome.BAD)
        if not self._stands(culprit):
            return False
        tip = self.state.scope.bad
        undone = self._repeat(pool, tip, "revert", Outcome.GOOD, culprit)
        # That it cannot be undone says nothing against it; that undoing it does not help, does.
        self.state.proved = all(said == HOLDS for said in proof.values()) and not undone.startswith(FAILS)
        proof[f"{tip[:12]} without {culprit[:12]} is good"] = undone
        return True

    def _stands(self, culprit: str) -> bool:
        found = self.knowledge.conclude()
        return found.commits == (culprit,) and found.probability >= self.state.confidence

    def needed(self, wanted: Outcome) -> int:
        """Return how many runs with the outcome WANTED leave no room for luck at the confidence asked for."""
        error = 1 - self.state.confidence + 1e-12
        chance = self.knowledge.chance_of_goods if wanted is Outcome.GOOD else self.knowledge.chance_of_bads
        high = 1
        while chance(high) > error:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if chance(middle) > error else (low, middle)
        return high

    def _repeat(
        self, pool: ThreadPoolExecutor, commit: str, role: str, wanted: Outcome, without: str | None = None
    ) -> str:
        """Run COMMIT (WITHOUT the culprit) until WANTED was seen often enough; return a statement of the proof.

        Only runs made after the conclusion count: those that led to it were chosen for what they said.  What the
        search's model did not expect ends the repetition.
        """
        roles = {"revert"} if without else {"parent", "culprit"}

        def seen(outcome: Outcome) -> int:
            fresh = self.state.observations[self.state.concluded_after :]
            same = [each for each in fresh if each.commit == commit and each.role in roles]
            return sum(each.outcome is outcome for each in same)

        runs = 0
        while (missing := self.needed(wanted) - seen(wanted)) > 0:
            limit = _PATIENCE * self.needed(wanted) + max(self.needed(Outcome.GOOD), self.needed(Outcome.BAD))
            unwanted = Outcome.BAD if wanted is Outcome.GOOD else Outcome.GOOD
            if runs >= limit:
                return f"{FAILS}: {wanted} in {seen(wanted)} of {seen(wanted) + seen(unwanted)} runs"
            self._progress(f"proof: {role} {commit[:12]} has to be {wanted} {missing} times more")
            experiments = []
            for _ in range(min(missing, self._jobs)):
                experiment = self._prepare(commit, role, without=without)
                if experiment is None:
                    if without and not any(each.role == "revert" for each in self.state.observations):
                        return f"{IMPOSSIBLE}: it does not revert cleanly"
                    return f"{IMPOSSIBLE}: {self.state.observations[-1].detail or self.state.observations[-1].trouble}"
                experiments.append((self._start(pool, experiment), experiment))
            for future, experiment in experiments:
                made = self._finish(experiment, *future.result())
                runs += 1
                if made.outcome is Outcome.UNTESTABLE and runs >= Trouble.INFRASTRUCTURE.attempts:
                    return f"{IMPOSSIBLE}: {made.trouble}: {made.detail}"
            certainly_wrong = wanted is Outcome.GOOD and not self.state.is_fix
            if certainly_wrong and seen(unwanted) and commit not in self.state.scope.history.number:
                return self._contradicted(commit, role, seen(unwanted))
            if certainly_wrong and seen(unwanted):
                return f"{FAILS}: it was {unwanted}"
        return HOLDS

    def _contradicted(self, commit: str, role: str, times: int) -> str:
        if role == "revert":
            return f"{FAILS}: it was bad all the same, so there is another cause, too"
        raise HarnessError(
            f"the good end {commit[:12]} showed the failure {times} time(s): the commit sought is older; start again"
            " with an older --good"
        )


def _timed(laboratory: Laboratory, specimen: Specimen, seed: int) -> tuple[Sighting, float]:
    began = time.monotonic()
    return laboratory.run(specimen, seed), time.monotonic() - began

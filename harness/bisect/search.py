# SPDX-License-Identifier: BSD-2-Clause
"""A whole bisection: make the runs that `inquiry` asks for and remember them, until the culprit is known and proved."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from harness.bisect.decision import Conclusion, Knowledge, Outcome, Trouble
from harness.bisect.inquiry import BAD_END, BASE, GOOD_END, REVERT, Attempt, Start, Step
from harness.bisect.laboratory import Laboratory, Specimen
from harness.bisect.planning import Proposal
from harness.bisect.predicate import Sighting
from harness.bisect.proof import Runs
from harness.bisect.repository import Repository
from harness.bisect.state import Observation, State, learn
from harness.errors import HarnessError
from harness.results.bisection import HOLDS
from harness.store import Store

# What is believed of costs before anything was measured, in seconds.
_BUILD_SECONDS, _BOOT_SECONDS, _RUN_SECONDS = 300.0, 20.0, 10.0
# Failures of the harness or the host in a row, on different commits or at one end, after which it is not theirs.
_HOST_FAILURES = 3
_ENDS = frozenset({GOOD_END, BASE, BAD_END})
#: What the proof says of a statement that does not stand.
FAILS, IMPOSSIBLE = "fails", "not possible"
_UNREVERTABLE = "it does not revert cleanly"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """What may be spent in one go: so many runs, so many hours; None for no limit."""

    runs: int | None = None
    hours: float | None = None

    def spent(self, runs: int, seconds: float) -> str:
        """Return what is spent of it after RUNS and SECONDS, in words; "" while there is something left."""
        if self.runs is not None and runs >= self.runs:
            return f"the {self.runs} runs allowed are made"
        if self.hours is not None and seconds >= 3600 * self.hours:
            return f"the {self.hours:g} hours allowed are over"
        return ""


NO_LIMIT = Budget()


@dataclass(frozen=True)
class Experiment:
    """A run under way."""

    step: Step
    specimen: Specimen


class Bisection:
    """Goes on with STATE, kept in FOLDER, by experiments in LABORATORY, JOBS at once, as long as BUDGET lasts."""

    def __init__(
        self,
        state: State,
        folder: Path,
        store: Store,
        repository: Repository,
        laboratory: Laboratory,
        *,
        jobs: int = 1,
        budget: Budget = NO_LIMIT,
        progress: Progress = lambda _: None,
    ) -> None:
        self.state = state
        self.folder = folder
        #: Why it ended before the culprit was known, in words.
        self.stopped = ""
        self._store = store
        self._repository = repository
        self._laboratory = laboratory
        self._jobs = jobs
        self._budget = budget
        self._progress = progress
        self._parents: dict[str, tuple[str, ...]] = {}
        self._kernels: dict[str, str] = {}
        self.inquiry = state.inquiry(self._parents_of)
        for each in state.observations:
            if each.kernel and each.role != REVERT:
                self._kernels.setdefault(each.kernel, each.commit)
        self._serial = len(state.observations)
        self._made = 0
        commits = state.scope.history.commits
        # A commit that was given up costs nothing to know, and is not chosen.
        self._ready = dict(zip(commits, laboratory.is_ready(commits), strict=True))
        for each in state.observations:
            self._ready[each.commit] = True

    @property
    def knowledge(self) -> Knowledge:
        """What is known of each commit."""
        return self.inquiry.knowledge

    def _parents_of(self, commit: str) -> tuple[str, ...]:
        if commit not in self._parents:
            self._parents[commit] = self._repository.parents(commit)
        return self._parents[commit]

    # The search

    def run(self) -> Conclusion:
        """Search and prove until nothing is left to do or to spend; Ctrl-C loses only the runs under way."""
        with self._store.lock(f"bisect-{self.state.key}", deadline=1.0), ThreadPoolExecutor(self._jobs) as pool:
            try:
                self._work(pool)
            except BaseException:
                self._laboratory.stop()
                pool.shutdown(cancel_futures=True)
                raise
            self._write_proof()
            self._write()
        self._require_seen()
        return self.inquiry.conclude()

    def _work(self, pool: ThreadPoolExecutor) -> None:
        pending: dict[Future[tuple[Sighting, float]], Experiment] = {}
        began = time.monotonic()
        while True:
            while len(pending) < self._jobs and not self.stopped:
                step = self.inquiry.following(*self.costs(), [each.step for each in pending.values()])
                self._remember_attempts()
                if step is None:
                    break
                self.stopped = self._budget.spent(self._made, time.monotonic() - began)
                if self.stopped:
                    break
                self._announce(step)
                experiment = self._prepare(step)
                if experiment is not None:
                    pending[self._start(pool, experiment)] = experiment
                    self._made += 1
            if not pending:
                break
            for done in wait(pending, return_when=FIRST_COMPLETED).done:
                self._finish(pending.pop(done), *done.result())
            self._require_sense()

    def _announce(self, step: Step) -> None:
        if (why := step.why) is None:
            return
        times = f", {why.runs} runs" if why.runs > 1 else ""
        self._progress(
            f"{len(self.state.scope.history)} commits, {self.knowledge.bits():.1f} bits to know; next"
            f" {why.commit[:12]} ({why.bits:.2f} bits in {why.seconds:.0f} s{times})"
        )

    def _remember_attempts(self) -> None:
        for (upper, lowers), attempt in self.inquiry.attempts.items():
            if not any((each.upper, each.lowers) == (upper, lowers) for each in self.state.attempts):
                self.state.attempts.append(Start(upper, lowers, attempt.after))
                self._progress(f"proof: {upper[:12]} has to be bad more often than {_names(lowers)}, by fresh runs")

    def _require_sense(self) -> None:
        """Raise HarnessError where it turned out that there is nothing to be found between these ends."""
        inquiry, scope = self.inquiry, self.state.scope
        if inquiry.is_unseen:
            raise HarnessError(
                f"the failure has not shown in any of {inquiry.tested.total()} runs, {inquiry.tested[scope.bad]} of"
                f" them of the bad end {scope.bad[:12]}: there is nothing to look for"
            )
        if not inquiry.is_older:
            return
        self._write()
        bad = {each: self.knowledge.runs.get(each, {}).get(Outcome.BAD, 0) for each in scope.good}
        worst = max(scope.good, key=bad.__getitem__)
        times = f"{bad[worst]} of {inquiry.tested[worst]} runs"
        if worst in scope.bases:
            raise HarnessError(
                f"the merge base {worst[:12]} of the good and the bad end is bad in {times}: the good one's branch"
                " mended it, and no commit between the merge base and the bad end broke it"
            )
        raise HarnessError(
            f"the good end {worst[:12]} showed the failure in {times}: the commit sought is older; start again with an"
            " older --good"
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
        """Raise HarnessError where MADE shows that no search is possible.

        That is the third failure of the harness or the host in a row, on different commits or at one end, which is not
        held against these, or an end that cannot be tested.
        """
        seen = self.state.observations
        if made.trouble is Trouble.INFRASTRUCTURE:
            row = list(itertools.takewhile(lambda each: each.trouble is Trouble.INFRASTRUCTURE, reversed(seen)))
            if len({each.commit for each in row}) >= _HOST_FAILURES or (
                made.role in _ENDS and len(row) >= _HOST_FAILURES
            ):
                del seen[len(seen) - len(row) :]
                self._write()
                raise HarnessError(
                    f"the harness or the host failed {len(row)} times in a row, the last time: {made.detail}; once it"
                    " is mended, --resume goes on, and no commit was given up for it"
                )
        elif made.trouble is not None and made.role in _ENDS:
            mine = [each for each in seen if each.commit == made.commit and each.trouble is made.trouble]
            if len(mine) >= made.trouble.attempts:
                self.state.observations = [each for each in seen if each not in mine]
                self._write()
                raise HarnessError(
                    f"the {made.role} {made.commit[:12]} {_CANNOT.get(made.trouble, 'cannot be tested')}, so nothing"
                    f" can be found out: {made.detail or made.trouble}{_hint(made)}"
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

    def proposals(self, count: int = 1) -> list[Proposal]:
        """Return the experiments of the search that come next."""
        seconds, once = self.costs()
        return self.knowledge.choose(seconds, count, (), once)

    def following(self) -> Step | None:
        """Return the run that comes next."""
        return self.inquiry.following(*self.costs())

    def _prepare(self, step: Step) -> Experiment | None:
        """Return an experiment that can be run; None where the kernel cannot be had, which is then noted."""
        prepared = self._laboratory.prepare(step.commit, step.without)
        if isinstance(prepared, Specimen):
            self._ready[step.commit] = True
            return Experiment(step, prepared)
        if prepared is not None:
            without = step.without or ""
            self._note(
                Observation(
                    step.commit, prepared.outcome, prepared.trouble, prepared.detail, role=step.role, without=without
                )
            )
        elif step.without is not None:
            self.inquiry.cannot_revert[step.without] = _UNREVERTABLE
        return None

    def _start(self, pool: ThreadPoolExecutor, experiment: Experiment) -> Future[tuple[Sighting, float]]:
        self._serial += 1
        self._progress(f"{experiment.step.commit[:12]} {experiment.step.role}: running")
        return pool.submit(_timed, self._laboratory, experiment.specimen, self._serial)

    def _finish(self, experiment: Experiment, sighting: Sighting, seconds: float) -> Observation:
        specimen, step = experiment.specimen, experiment.step
        known = any(each.kernel == specimen.digest for each in self.state.observations)
        made = Observation(
            step.commit,
            sighting.outcome,
            sighting.trouble,
            sighting.detail,
            sighting.test,
            sighting.excerpt,
            step.role,
            specimen.digest,
            specimen.built and not known,
            specimen.seconds if specimen.built and not known else 0.0,
            round(seconds, 1),
            specimen.needs.names,
            sighting.left_out,
            step.without or "",
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
            self.inquiry = self.state.inquiry(self._parents_of)
            self._write()
        return made

    def _note(self, made: Observation) -> None:
        learn(self.inquiry, self._kernels, made)
        self.state.observations.append(made)
        self._write()
        trouble = f" ({made.trouble})" if made.trouble else ""
        self._progress(f"{made.commit[:12]} {made.role}: {made.outcome}{trouble} {made.detail}")
        self._require_sound(made)

    def _write(self) -> None:
        self.state.write(self.folder)

    # The proof

    def _write_proof(self) -> None:
        """Write down what was proved, a statement each."""
        found, attempts = self.inquiry.named()
        proof = self.state.proof = {}
        for attempt in attempts:
            proof.update(_statements(attempt))
        undone: bool | None = None
        if attempts and len(found.commits) == 1:
            (culprit,) = found.commits
            undone = self.inquiry.revert_says(culprit)
            said = self._undone(culprit, undone)
            if said and culprit != self.state.scope.bad:
                proof[f"{self.state.scope.bad[:12]} without {culprit[:12]} is good"] = said
        # That it cannot be undone says nothing against it; that undoing it does not help, does.
        self.state.proved = bool(attempts) and undone is not False

    def _undone(self, culprit: str, undone: bool | None) -> str:
        runs = self.inquiry.reverts.get(culprit, Runs())
        if culprit in self.inquiry.cannot_revert:
            return f"{IMPOSSIBLE}: {self.inquiry.cannot_revert[culprit]}"
        if undone is None:
            return f"not known: bad in {runs.bad} of {runs.total} runs" if runs.total else ""
        if undone:
            return HOLDS
        return f"{FAILS}: it was bad all the same in {runs.bad} of {runs.total} runs, so there is another cause, too"


def _hint(made: Observation) -> str:
    """Return what to say of an end that fails in another way than is sought: it may be what was meant."""
    if made.trouble is not Trouble.OTHER_FAILURE:
        return ""
    sought = "--panic TEXT" if made.detail.startswith("panic") else "--failure REGEX"
    left_out = f"; if not, leave the test out: -- --deselect '{made.test}'" if made.test else ""
    return f"; if that is what is sought, say so: {sought}{left_out}"


_CANNOT = {
    Trouble.BUILD: "does not build",
    Trouble.BOOT: "does not boot",
    Trouble.NOT_APPLICABLE: "cannot run the tests",
}


def _names(commits: tuple[str, ...]) -> str:
    return " and ".join(commit[:12] for commit in commits)


def _statements(attempt: Attempt) -> dict[str, str]:
    evidence = attempt.evidence
    upper = evidence.runs[evidence.upper]
    found = {}
    for lower in evidence.lowers:
        runs = evidence.runs[lower]
        what = "is good" if not runs.bad else "is good more often"
        found[f"parent {lower[:12]} {what}, bad in {runs.bad} of {runs.total} runs"] = HOLDS
    found[f"culprit {evidence.upper[:12]} is bad in {upper.bad} of {upper.total} runs"] = HOLDS
    return found


def _timed(laboratory: Laboratory, specimen: Specimen, seed: int) -> tuple[Sighting, float]:
    began = time.monotonic()
    return laboratory.run(specimen, seed), time.monotonic() - began

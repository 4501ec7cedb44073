# SPDX-License-Identifier: BSD-2-Clause
"""Two kernels and one test: what may be said after so many runs of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from harness.compare.evidence import Inquiry, Look, State, Suspicion, Trial
from harness.results.comparison import Again, Difference, Judgement, Tally
from harness.results.record import RunRecord, TestResult

_LACKS = "not applicable here, though both kernels are of one version: this one lacks what the baseline has"
_MOST_CAUSES = 3  # that are new, of one test


def suspicions(test: str, base: Tally, other: Tally) -> Iterator[Suspicion]:
    """Yield what the runs of TEST let one suspect: that it fails more or less often, and for causes that are new."""
    if not base.runs or not other.runs:
        return
    if more := other.failures * base.runs - base.failures * other.runs:
        yield Suspicion(test, is_worse=more > 0)
    if base.failures:
        new = Counter({cause: count for cause, count in other.causes.items() if cause not in base.causes})
        yield from (Suspicion(test, True, cause) for cause, _ in new.most_common(_MOST_CAUSES))


def judge(
    test: str, base: Tally, other: Tally, inquiry: Inquiry, confidence: float = 0.95, *, one_version: bool = False
) -> Judgement:
    """Say of TEST what INQUIRY has shown; what the runs showed that raised a suspicion is a suspicion and no more.

    ONE_VERSION says that both kernels have the same __DragonFly_version.
    """
    if (absent := _absent(base, other, one_version)) is not None:
        return absent
    tried = [pair for pair in inquiry.trials if pair[1].suspicion.test == test]
    named = [pair for pair in tried if pair[1].state is State.NAMED]
    causes = [trial for _, trial in named if trial.suspicion.cause]
    rates = [pair for pair in named if not pair[1].suspicion.cause]
    worse = [trial for _, trial in rates if trial.suspicion.is_worse]
    if worse:
        return _broken(other, worse[-1], confidence)
    if causes:
        return _otherwise(other, causes, confidence)
    if rates:
        return _better(*rates[-1], confidence)
    return _not_told_apart(base, other, [trial for _, trial in tried])


def _absent(base: Tally, other: Tally, one_version: bool) -> Judgement | None:
    """Return the verdict where one of them said nothing: absence is not equality.

    That a test is not about a kernel is no news where that is of another version; of two of ONE_VERSION the other one
    lacks, as probed, what the baseline has.
    """
    if base.runs and other.runs:
        return None
    if base.runs and other.inapplicable and one_version:
        return Judgement(Difference.LOST, note=_LACKS)
    if any(not one.runs and one.inapplicable for one in (base, other)):
        return Judgement(Difference.NOT_APPLICABLE)
    return Judgement(Difference.LOST if base.runs or base.lost or other.lost else Difference.NOT_RUN)


def _again(trial: Trial) -> Again:
    base, base_runs, other, other_runs = trial.counts()
    return Again((base, base_runs), (other, other_runs), len(trial.boots), trial.suspicion.cause)


def _broken(other: Tally, trial: Trial, confidence: float) -> Judgement:
    if other.panics:
        note = f"panics: {_most(other.panics)}"
        return Judgement(Difference.PANICKED, True, confidence, note=note, again=_again(trial))
    return Judgement(Difference.BROKEN, True, confidence, again=_again(trial))


def _otherwise(other: Tally, causes: Sequence[Trial], confidence: float) -> Judgement:
    """Judge a test that fails on both, for a cause that the baseline does not know: a new panic or hang is broken."""
    trial = min(causes, key=lambda trial: trial.suspicion.cause not in other.panics)
    cause, is_broken = trial.suspicion.cause, trial.suspicion.cause in other.panics
    verdict = Difference.PANICKED if is_broken else Difference.CHANGED
    note = f"{'panics' if is_broken else 'fails'} otherwise: {cause}"
    return Judgement(verdict, is_broken, confidence, note=note, again=_again(trial))


def _better(look: Look, trial: Trial, confidence: float) -> Judgement:
    if look.is_gone(trial):
        return Judgement(Difference.FIXED, confidence=confidence, again=_again(trial))
    return Judgement(
        Difference.RARER, confidence=confidence, passes_needed=look.passes_needed(trial), again=_again(trial)
    )


def _not_told_apart(base: Tally, other: Tally, tried: Sequence[Trial]) -> Judgement:
    by_rate = [trial for trial in tried if not trial.suspicion.cause]
    again = _again(by_rate[-1]) if by_rate else _again(tried[-1]) if tried else None
    if not base.failures:
        return Judgement(Difference.SUSPECT if other.failures else Difference.SAME, again=again)
    if not other.failures:
        return Judgement(Difference.UNPROVEN, again=again)
    new = [cause for cause in other.causes if cause not in base.causes]
    note = f"also fails otherwise, not often enough to be sure: {new[0]}" if new else ""
    if other.panics and not new:
        return Judgement(Difference.PANICKED, note=f"panics as before: {_most(other.panics)}", again=again)
    is_always = base.failures == base.runs and other.failures == other.runs
    return Judgement(Difference.SAME if is_always and not new else Difference.FLAKY, note=note, again=again)


def _most(counter: Counter[str]) -> str:
    return counter.most_common(1)[0][0] if counter else ""


def worst_results(record: RunRecord) -> dict[str, TestResult]:
    """Return one result for each test: set-up, call and teardown may each have failed; it is still one run."""
    worst: dict[str, TestResult] = {}
    for result in record.results:
        known = worst.get(result.test)
        if known is None or result.verdict.severity > known.verdict.severity:
            worst[result.test] = result
    return worst


def tally(records: Iterable[RunRecord]) -> dict[str, Tally]:
    """Count the results of several runs of one suite on one kernel, by test."""
    tallies: dict[str, Tally] = {}
    for record in records:
        results = worst_results(record)
        for test, result in results.items():
            _count(tallies.setdefault(test, Tally()), result)
        for test in record.not_run:
            if test not in results:
                tallies.setdefault(test, Tally()).lost += 1
    return tallies


def _count(tally_: Tally, result: TestResult) -> None:
    verdict = result.verdict
    if verdict.is_left_out:
        tally_.inapplicable += 1
    elif not verdict.is_judged:
        tally_.lost += 1  # a machine or a harness that failed says nothing about the kernel
    else:
        tally_.runs += 1
        if cause := result.failed_for:
            tally_.failures += 1
            is_death = result.death is not None
            (tally_.panics if is_death else tally_.reasons)[cause] += 1

# SPDX-License-Identifier: BSD-2-Clause
"""From a bisection to the typed results that reports read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from harness.bisect.decision import Outcome
from harness.bisect.inquiry import BAD_END, BASE, GOOD_END, PROVING, SEARCH
from harness.bisect.repository import Repository
from harness.bisect.search import Bisection
from harness.results.bisection import BisectionReport, Calibration, Culprit, Experiment, Explanation, Following

#: What `calibrate bisect` measured.
CALIBRATION = Path(__file__).with_name("calibration.json")
_LIKELY = 12
_NEXT = 5


def calibration() -> Calibration | None:
    """Return how far the claims of bisections can be trusted; None where that was not measured."""
    return Calibration.from_json(json.loads(CALIBRATION.read_text())) if CALIBRATION.exists() else None


def report_of(bisection: Bisection, repository: Repository) -> BisectionReport:
    """Return all that is known."""
    state, knowledge = bisection.state, bisection.knowledge
    found = bisection.inquiry.conclude()
    posterior = knowledge.posterior
    shows = Outcome.GOOD if state.is_fix else Outcome.BAD
    sighting = next((each for each in reversed(state.observations) if each.outcome is shows and each.test), None)
    search = [each for each in state.observations if each.role in {SEARCH, BAD_END, GOOD_END, BASE}]
    return BisectionReport(
        key=state.key,
        source=state.source,
        sought=state.predicate,
        good=tuple(state.scope.good),
        bad=state.scope.bad,
        commits=len(state.scope.history),
        confidence=state.confidence,
        decided=bisection.inquiry.is_decided,
        probability=round(found.probability, 6),
        rate=round(knowledge.failure_rate, 4),
        bits=round(knowledge.bits(), 3),
        culprits=tuple(
            Culprit(each.hash, each.author, each.date, each.subject, tuple(each.files), round(posterior[each.hash], 6))
            for each in map(repository.about, found.commits[:_LIKELY])
        ),
        posterior=tuple((commit, round(chance, 6)) for commit, chance in posterior.items()),
        stretches=tuple(tuple(stretch) for stretch in knowledge.stretches),
        experiments=sum(each.outcome is not Outcome.UNTESTABLE for each in search),
        tested=len({each.commit for each in search if each.outcome is not Outcome.UNTESTABLE}),
        proving=sum(each.role in PROVING for each in state.observations),
        builds=sum(each.built for each in state.observations),
        build_seconds=round(sum(each.build_seconds for each in state.observations), 1),
        run_seconds=round(sum(each.run_seconds for each in state.observations), 1),
        proof=dict(state.proof),
        proved=state.proved,
        test=sighting.test if sighting is not None else "",
        failure=sighting.detail if sighting is not None else "",
        excerpt=sighting.excerpt if sighting is not None else "",
        observations=tuple(
            Experiment(
                each.commit,
                each.role,
                str(each.outcome),
                str(each.trouble or ""),
                each.detail,
                each.built,
                each.build_seconds,
                each.run_seconds,
                each.kernel,
                tuple(each.quirks),
            )
            for each in state.observations
        ),
    )


def explain(bisection: Bisection, repository: Repository) -> Explanation:
    """Return what is known, and which experiments come next."""
    knowledge, state = bisection.knowledge, bisection.state
    posterior = sorted(knowledge.posterior.items(), key=lambda pair: -pair[1])
    likely = [(commit, chance) for commit, chance in posterior[:_LIKELY] if chance > 0]
    subjects = repository.subjects([commit for commit, _ in likely])
    decided = bisection.inquiry.is_decided
    step = bisection.following()
    return Explanation(
        sought=state.predicate,
        seen=Counter(str(each.outcome) for each in state.observations),
        is_certain=knowledge.is_certain,
        rate=knowledge.failure_rate,
        bits=knowledge.bits(),
        commits=len(state.scope.history),
        likely=tuple((commit, chance, subjects.get(commit, "")) for commit, chance in likely),
        decided=decided,
        probability=bisection.inquiry.conclude().probability,
        confidence=state.confidence,
        following=()
        if decided
        else tuple(
            Following(each.commit, each.runs, each.bits, each.seconds, each.chance_bad, each.testable)
            for each in bisection.proposals(_NEXT)
        ),
        proving=(step.role, step.commit) if step is not None and step.role != SEARCH else None,
    )

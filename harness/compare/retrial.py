# SPDX-License-Identifier: BSD-2-Clause
"""From suspicions to judgements: what seems to differ is run again until it is settled, and only that is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from harness.compare.evidence import Inquiry, Known, Runs, Seen, Suspicion
from harness.compare.verdicts import judge, suspicions
from harness.results.comparison import Judgement, Tally

#: More suspicions than these are not tried at once: where hundreds of tests fail, some tell it as well as all.
MOST_SUSPICIONS = 60
Laboratory = Callable[[Runs], Mapping[tuple[str, int], Seen]]


def suspects(base: Mapping[str, Tally], other: Mapping[str, Tally]) -> list[Suspicion]:
    """Return what to try, from how often each test failed on both: the clearest first, MOST_SUSPICIONS at most."""

    def clearness(suspicion: Suspicion) -> float:
        pair = base[suspicion.test], other[suspicion.test]
        if suspicion.cause:
            return pair[1].causes[suspicion.cause] / pair[1].runs
        return abs(pair[1].failures / pair[1].runs - pair[0].failures / pair[0].runs)

    found = [each for test in base if test in other for each in suspicions(test, base[test], other[test])]
    return sorted(found, key=clearness, reverse=True)[:MOST_SUSPICIONS]


def raised(boots: Mapping[int, Mapping[str, Seen]]) -> Known:
    """Return what the runs of the suite on BOOTS raised, test by test, and how those went that came after.

    A suspicion is raised by the first boot on which one kernel failed more often.  Which of more than MOST_SUSPICIONS
    are tried is decided by all runs, so that none of these is evidence then, and nothing is returned.
    """
    found: dict[str, tuple[Suspicion, dict[int, Seen]]] = {}
    for boot, tests in boots.items():
        for test, seen in tests.items():
            if test in found:
                found[test][1][boot] = seen
            elif more := sum(bool(two) - bool(one) for one, two in zip(*seen, strict=True) if None not in (one, two)):
                found[test] = (Suspicion(test, is_worse=more > 0), {})
    return dict(found.values()) if len(found) <= MOST_SUSPICIONS else {}


def settle(
    inquiry: Inquiry, seen_first: Iterable[Suspicion], laboratory: Laboratory, known: Known | None = None
) -> None:
    """Let LABORATORY make runs until all that was SEEN_FIRST is settled one way or the other."""
    inquiry.look(seen_first, known)
    while (runs := inquiry.wanted()) is not None:
        inquiry.observe(runs, laboratory(runs))


def decide(
    base: Mapping[str, Tally],
    other: Mapping[str, Tally],
    laboratory: Laboratory,
    confidence: float,
    boots: Mapping[int, Mapping[str, Seen]] | None = None,
) -> dict[str, Judgement]:
    """Judge all tests of one kernel against the baseline: with CONFIDENCE no difference is named that is none.

    BOOTS says how the runs of the suite went on each boot, in their order.
    """
    inquiry = Inquiry(1 - confidence)
    settle(inquiry, suspects(base, other), laboratory, raised(boots or {}))
    tests = dict.fromkeys([*base, *other])
    return {test: judge(test, base.get(test, Tally()), other.get(test, Tally()), inquiry, confidence) for test in tests}

# SPDX-License-Identifier: BSD-2-Clause
"""What compare says, judged by a simulator that shares nothing with it but the interface of its decisions."""

from __future__ import annotations

from collections.abc import Iterator

from harness.calibration.tables import Progress, Table
from harness.results.certainty import rate_interval

_INTERVALS = (3, 10, 20, 50)
_RATES = 199  # rates from 0 to 1 at which the exact coverage is worked out


def tables(progress: Progress, *, quick: bool = False) -> Iterator[Table]:
    """Yield the tables of the issue, as they come; QUICK makes small ones."""
    progress("intervals")
    yield _intervals(quick=quick)


def _binomial(count: int, rate: float) -> list[float]:
    """Return the probabilities of 0 to COUNT failures, by the recursion from one to the next."""
    odds = [(1 - rate) ** count]
    for seen in range(count):
        odds.append(odds[-1] * (count - seen) / (seen + 1) * rate / (1 - rate))
    return odds


def _intervals(*, quick: bool) -> Table:
    rows, misses = [], []
    for count in _INTERVALS[: 2 if quick else None]:
        between = [rate_interval(failures, count, 0.95) for failures in range(count + 1)]
        worst = 1.0
        for step in range(1, _RATES + 1):
            rate = step / (_RATES + 1)
            odds = _binomial(count, rate)
            worst = min(
                worst, sum(each for each, one in zip(odds, between, strict=True) if one.low <= rate <= one.high)
            )
        rows.append((str(count), f"{worst:.1%}"))
        if worst < 0.95 - 1e-9:
            misses.append(f"{count} runs: {worst:.1%}")
    return Table(
        "Exact intervals of a failure rate at 95%: the least coverage over all rates",
        "at least 95%",
        ("runs", "coverage"),
        tuple(rows),
        tuple(misses),
    )

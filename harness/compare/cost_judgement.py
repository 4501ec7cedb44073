# SPDX-License-Identifier: BSD-2-Clause
"""Is a cost another one?  A boot is the unit: the layout of a saved state changes what each run from it takes.

Nothing is assumed of the noise but that two kernels that are alike have the same: a reading of either could as well be
one of the other's.  What is said of all workloads of a comparison, in either unit, holds together.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from harness.results.certainty import Interval, median_interval, shift_interval
from harness.results.costs import Cost, Unit

#: Of all that is said about the costs of one kernel.
CONFIDENCE = 0.95
#: Blocks of A B B A, each on a boot of its own of either kernel: with fewer nothing can be said of seven workloads.
BLOCKS = 10
#: Boots of either kernel on which instructions are counted, likewise.
COUNTED_BOOTS = 6


def confidence_of_each(workloads: int, confidence: float = CONFIDENCE) -> float:
    """Return how sure each of WORKLOADS must be, in either unit, so that all of them together are with CONFIDENCE."""
    return 1 - (1 - confidence) / max(1, workloads * len(Unit))


def judge_times(workload: str, blocks: Sequence[tuple[float, float, float, float]], confidence: float) -> Cost:
    """Judge blocks of four times in the order A B B A.

    The interval is that of the median of the blocks' ratios, whatever their distribution; where there are too few
    blocks for the confidence there is none, and no change is named.
    """
    # Sums, not products: a host that slows down steadily adds the same to both sides of a block.
    logs = [math.log((b1 + b2) / (a1 + a2)) for a1, b1, b2, a2 in blocks]
    base = [value for block in blocks for value in (block[0], block[3])]
    other = [value for block in blocks for value in (block[1], block[2])]
    found = median_interval(logs, confidence)
    return _cost(workload, Unit.TIME, base, other, statistics.median(logs), found, confidence, len(blocks))


def judge_instructions(workload: str, base: Sequence[float], other: Sequence[float], confidence: float) -> Cost:
    """Judge instruction counts, one of each boot of either kernel.

    The interval has all shifts of OTHER against BASE that the rank-sum test does not refute (Hodges and Lehmann); where
    there are too few boots for the confidence there is none, and no change is named.
    """
    one, two = ([math.log(value) for value in values] for values in (base, other))
    found = shift_interval(one, two, confidence)
    boots = min(len(base), len(other))
    middle = statistics.median(second - first for first in one for second in two)
    return _cost(workload, Unit.INSTRUCTIONS, base, other, middle, found, confidence, boots)


def _cost(
    workload: str,
    unit: Unit,
    base: Sequence[float],
    other: Sequence[float],
    middle: float,
    logs: Interval | None,
    confidence: float,
    boots: int,
) -> Cost:
    interval = Interval(math.exp(logs.low), math.exp(logs.high)) if logs is not None else None
    return Cost(
        workload,
        unit,
        statistics.median(base),
        statistics.median(other),
        math.exp(middle),
        interval,
        interval is not None and 1.0 not in interval,
        confidence,
        tuple(base),
        tuple(other),
        max(_spread(base), _spread(other)),
        boots,
    )


def _spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values) if values else 0.0

# SPDX-License-Identifier: BSD-2-Clause
"""From a test's fork storms to what they show by the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.processes.vocabulary import Storm
from harness.results.measurements import Measurements

_FEW = 50  # births that are no sequence yet, and children that make no rate
_POINTS = 300  # more of them cannot be told apart in a plot


def measure(storms: Iterable[tuple[float, Storm]], *, tampered: bool = False) -> Measurements:
    """Return what STORMS show, each with the time at which it began.

    Where the test TAMPERED with the allocator or the clock, pids say nothing, and only rates are left.
    """
    known = sorted(storms, key=lambda entry: entry[0])
    rates = tuple(round(storm.rate, 1) for _, storm in known if storm.count >= _FEW)
    if tampered:
        return Measurements(fork_rates=rates)
    lives = sorted(
        (began + one.forked, began + one.reaped, one.pid) for began, storm in known for one in storm.records if one.pid
    )
    delays, reaped = [], dict[int, float]()
    for born, buried, pid in lives:
        if pid in reaped:
            delays.append(round(born - reaped[pid], 3))
        reaped[pid] = buried
    births: tuple[tuple[float, int], ...] = ()
    if len(lives) >= _FEW:
        births = tuple((round(born - lives[0][0], 3), pid) for born, _, pid in thinned(lives))
    return Measurements(births, tuple(delays), rates)


def thinned(lives: Sequence[tuple[float, float, int]]) -> Sequence[tuple[float, float, int]]:
    """Return at most _POINTS of LIVES, at even distances."""
    step = -(-len(lives) // _POINTS)
    return lives[::step]

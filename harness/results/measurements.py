"""What the fork storms of a test tell by the way: which pids were given when, how soon they came back, and how fast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.processes.vocabulary import Storm

_FEW = 50  # births that are no sequence yet, and children that make no rate
_POINTS = 300  # more of them cannot be told apart in a plot


@dataclass(frozen=True)
class Measurements:
    """Times in seconds of the guest's CLOCK_MONOTONIC.

    `births` are times since the first one and pids, thinned out evenly; `reuse_delays` the times from a pid's reaping
    to its next birth; `fork_rates` children made and reaped per second, of one storm each.
    """

    births: tuple[tuple[float, int], ...] = ()
    reuse_delays: tuple[float, ...] = ()
    fork_rates: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything was measured."""
        return bool(self.births or self.reuse_delays or self.fork_rates)

    def to_json(self) -> dict[str, Any]:
        """Return plain data; what is empty is left out."""
        return {name: list(values) for name, values in asdict(self).items() if values}


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

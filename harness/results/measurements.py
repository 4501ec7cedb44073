# SPDX-License-Identifier: BSD-2-Clause
"""What the fork storms of a test tell by the way: which pids were given when, how soon they came back, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


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
        return {name: [list(one) if isinstance(one, tuple) else one for one in values]
                for name, values in asdict(self).items() if values}  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild them; raises TypeError or ValueError for what is none."""
        return cls(
            tuple((float(second), int(pid)) for second, pid in data.get("births", ())),
            tuple(float(delay) for delay in data.get("reuse_delays", ())),
            tuple(float(rate) for rate in data.get("fork_rates", ())),
        )

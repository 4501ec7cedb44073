# SPDX-License-Identifier: BSD-2-Clause
"""What the process subsystem costs on one kernel against another, as typed results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from harness.results.certainty import Interval


class Unit(StrEnum):
    """What a cost is counted in."""

    TIME = "time"
    INSTRUCTIONS = "instructions"


@dataclass(frozen=True)
class Cost:
    """One workload on two kernels: what it took on each, and the other's share of the baseline's with its interval.

    Seconds per operation where the unit is TIME, else instructions.  `is_changed` says that the difference is beyond
    the noise, that between boots included; it was measured on so many `boots` of each kernel.  `confidence` is that of
    this interval, so that all of a comparison hold together.
    """

    workload: str
    unit: Unit
    base: float
    other: float
    ratio: float
    interval: Interval | None
    is_changed: bool
    confidence: float
    base_values: tuple[float, ...] = ()
    other_values: tuple[float, ...] = ()
    spread: float = 0.0
    boots: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the cost as plain data."""
        values = {"base_values": list(self.base_values), "other_values": list(self.other_values)}
        return {**asdict(self), "unit": str(self.unit), **values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none."""
        given = dict(data)
        given["unit"] = Unit(given["unit"])
        given["interval"] = Interval(**given["interval"]) if given["interval"] is not None else None
        given |= {name: tuple(given.get(name, ())) for name in ("base_values", "other_values")}
        return cls(**given)


@dataclass
class Costs:
    """All costs of one kernel against the baseline, and why some are missing.

    `base_died` and `other_died` say how a kernel died or hung of what was measured, which ended that.
    """

    base: str
    other: str
    costs: list[Cost] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    base_died: str = ""
    other_died: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "base": self.base,
            "other": self.other,
            "costs": [cost.to_json() for cost in self.costs],
            "missing": dict(self.missing),
            "base_died": self.base_died,
            "other_died": self.other_died,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild them; raises KeyError, TypeError or ValueError for what is none."""
        costs = [Cost.from_json(each) for each in data["costs"]]
        died = str(data.get("base_died", "")), str(data.get("other_died", ""))
        return cls(str(data["base"]), str(data["other"]), costs, dict(data["missing"]), *died)

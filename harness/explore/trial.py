# SPDX-License-Identifier: BSD-2-Clause
"""What came of one interleaving, as it is kept and shown."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self


class Verdict(StrEnum):
    """What an interleaving came to, the gravest first."""

    PANIC = "panic"
    HANG = "hang"
    INVARIANT = "invariant"
    LEAK = "leak"
    STUCK = "stuck"
    ANOMALY = "anomaly"
    SERIAL = "serial"
    UNREACHED = "unreached"
    LOST = "lost"

    @property
    def is_finding(self) -> bool:
        """Whether it speaks against the kernel, or may."""
        return self not in {Verdict.SERIAL, Verdict.UNREACHED, Verdict.LOST}


@dataclass(frozen=True)
class Trial:
    """What came of holding operation `first` at `point` while `second`, and `third` behind it, were made.

    Where `then` is a point, `second` was held there while `first` went on to its end.  `waited` tells that somebody
    waited for what one who stood had; `place` is the point's source line where that is known, `line` the same counted
    from its function's first, `then_place` and `then_line` those of the other point; `kernel` is the one it was tried
    on, in its own words.  `seen` counts how often it came to this.
    """

    first: str
    second: str
    point: str
    verdict: Verdict
    said: str = ""
    place: str = ""
    waited: bool = False
    seconds: float = 0.0
    seen: int = 1
    line: str = ""
    kernel: str = ""
    third: str = ""
    then: str = ""
    then_place: str = ""
    then_line: str = ""

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of its operations, the one that is held before all others first."""
        return tuple(each for each in (self.first, self.second, self.third) if each)

    @property
    def points(self) -> tuple[str, ...]:
        """Where its operations are held, one of the first and perhaps one of the second."""
        return (self.point, self.then) if self.then else (self.point,)

    @property
    def key(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What tells it from other interleavings."""
        return self.operations, self.points

    def to_json(self) -> str:
        """Return it as a line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return what to_json() made; raises ValueError, KeyError or TypeError for anything else."""
        given = json.loads(line)
        return cls(**{**given, "verdict": Verdict(given["verdict"])})

    def __str__(self) -> str:
        """Return it as a line for people."""
        said = f": {self.said.splitlines()[0]}" if self.said else ""
        return f"{self.verdict}: {self.stated}{said}"

    @property
    def stated(self) -> str:
        """The interleaving in a few words."""
        held = f"{self.first} at {located(self.point, self.place)}"
        if self.then:
            held += f", then {self.second} at {located(self.then, self.then_place)}"
        free = self.operations[len(self.points) :]
        return f"{held}, meanwhile {' and then '.join(free or self.operations[:1])}"


def located(point: str, place: str) -> str:
    """Return POINT with its source line PLACE, where that is known."""
    return f"{point} ({place})" if place else point

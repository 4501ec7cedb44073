# SPDX-License-Identifier: BSD-2-Clause
"""What came of one interleaving, as it is kept and shown."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

_FINGERPRINT = re.compile(r"^fingerprint: .*$", re.MULTILINE)


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

    @property
    def is_deadly(self) -> bool:
        """Whether the guest died of it."""
        return self in {Verdict.PANIC, Verdict.HANG, Verdict.STUCK}


def counted(verdicts: Iterable[Verdict]) -> str:
    """Return how often each of VERDICTS came, in words; empty where there is none."""
    counts = Counter(verdicts)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])


@dataclass(frozen=True)
class Step:
    """Something that one of the operations did: `column` counts them, `seconds` are since the first one began.

    `where` is the call chain, the innermost function first, with source lines where they are known.
    """

    column: int
    what: str
    seconds: float
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """What came of holding operation `first` at `point` while `second`, and `third` behind it, were made.

    Where `then` is a point, `second` was held there while `first` went on to its end.  `waited` tells that somebody
    waited for what one who stood had; `place` is the point's source line where that is known, `line` the same counted
    from its function's first, `then_place` and `then_line` those of the other point; `kernel` is the one it was tried
    on, in its own words.  `seen` counts how often it came to this.
    `covers` are points where to be held comes to the same as at `point`, as nothing that others touched meanwhile is
    touched between them; `then_covers` those for `then`.  `passed` is what `second` passed while `first` stood.
    `steps` are what happened, of a finding.
    """

    first: str
    second: str
    #: Where `first` is held; "" where all are made one behind the other.
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
    covers: tuple[str, ...] = ()
    then_covers: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def alike(self) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        """The keys of the interleavings that come to the same, and its own.

        Where one waited, who of them is faster when the other has gone on is not stated: it may come to something else
        the next time, and says nothing about other points.
        """
        if self.waited:
            yield self.key
        elif not self.then:
            yield self.key
            yield from ((self.operations, (point,)) for point in self.covers)
        else:
            for point in (self.point, *self.covers):
                yield from ((self.operations, (point, then)) for then in (self.then, *self.then_covers))

    @property
    def cause(self) -> str:
        """What those of one cause have in common: the fingerprint of a panic, or all that is said."""
        found = _FINGERPRINT.search(self.said)
        return found[0] if found is not None else self.said

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of its operations, the one that is held before all others first."""
        return tuple(each for each in (self.first, self.second, self.third) if each)

    @property
    def points(self) -> tuple[str, ...]:
        """Where its operations are held, one of the first and perhaps one of the second."""
        return tuple(filter(None, (self.point, self.then)))

    @property
    def where(self) -> str:
        """Its points in words."""
        return " and ".join(self.points) or "one behind the other"

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
        lists = {key: tuple(given.get(key, ())) for key in ("covers", "then_covers", "passed")}
        steps = tuple(Step(**{**each, "where": tuple(each["where"])}) for each in given.get("steps", ()))
        return cls(**{**given, **lists, "steps": steps, "verdict": Verdict(given["verdict"])})

    def __str__(self) -> str:
        """Return it as a line for people."""
        said = f": {self.said.splitlines()[0]}" if self.said else ""
        return f"{self.verdict}: {self.stated}{said}"

    @property
    def stated(self) -> str:
        """The interleaving in a few words."""
        if not self.points:
            return f"{', then '.join(self.operations)}, {self.where}"
        held = f"{self.first} at {located(self.point, self.place)}"
        if self.then:
            held += f", then {self.second} at {located(self.then, self.then_place)}"
        free = self.operations[len(self.points) :]
        return f"{held}, meanwhile {' and then '.join(free or self.operations[:1])}"


def located(point: str, place: str) -> str:
    """Return POINT with its source line PLACE, where that is known."""
    return f"{point} ({place})" if place else point

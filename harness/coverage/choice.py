# SPDX-License-Identifier: BSD-2-Clause
"""Which tests run a given piece of the kernel, by the map: those that tell most about it in the least time first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from harness.coverage.map import CoverageMap
from harness.errors import UsageError
from harness.later import Later

if TYPE_CHECKING:
    import numpy as np

    from harness.coverage.code import Hits
else:
    np = Later("numpy")

_LINES = re.compile(r"(?P<file>[\w./+-]+\.[chsS]):(?P<first>\d+)(?:-(?P<last>\d+))?")
_NAME = re.compile(r"[A-Za-z_]\w*")
_LEAST = 0.02  # s that any test takes


@dataclass(frozen=True)
class Place:
    """A function, or lines of a file, as the map's kernel has them."""

    function: str = ""
    file: str = ""
    first: int = 0
    last: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `pgrel`, `kern_proc.c:812` or `kern_proc.c:812-815` means; raises ValueError for other texts."""
        if (found := _LINES.fullmatch(text)) is not None:
            first = int(found["first"])
            return cls(file=found["file"], first=first, last=int(found["last"] or first))
        if _NAME.fullmatch(text):
            return cls(function=text)
        raise ValueError(f"{text!r} is neither a function nor lines of a file: pgrel, kern_proc.c:812-815")

    def __str__(self) -> str:
        lines = f"{self.first}-{self.last}" if self.last != self.first else str(self.first)
        return self.function or f"{self.file}:{lines}"


@dataclass(frozen=True)
class Choice:
    """The tests that run some places, in the order in which they are best run.

    `unreached` are those of the places that no test runs; tests that run the rest of the function stand in for these.
    """

    tests: tuple[str, ...]
    unreached: tuple[Place, ...] = ()


def sites_of(known: CoverageMap, place: Place) -> Hits:
    """Return which lines of KNOWN are PLACE; of lines that became no code the one before, of the same function.

    Raises UsageError when the map has nothing of that name.
    """
    lines = known.code.lines
    if place.function:
        found = np.array([line.function == place.function for line in lines], dtype=bool)
        if not found.any():
            raise UsageError(
                f"{known.label} was not measured for {place}: run --coverage with its file (--coverage=FILE)"
            )
        return found
    own = [number for number, line in enumerate(lines) if f"/{line.file}".endswith(f"/{place.file}")]
    if not own:
        raise UsageError(
            f"{known.label} was not measured for {place.file}: run --coverage={place.file.rpartition('/')[2]}"
        )
    found = np.zeros(len(lines), dtype=bool)
    inside = [number for number in own if place.first <= lines[number].line <= place.last]
    if not inside:
        before = [lines[number].line for number in own if lines[number].line < place.first]
        nearest = max(before) if before else min(lines[number].line for number in own)
        inside = [number for number in own if lines[number].line == nearest]
    found[inside] = True
    return found


def choose(known: CoverageMap, places: Sequence[Place]) -> Choice:
    """Return the tests that run PLACES: the most specific and fastest first.

    What one says about a line is the more the fewer others run it.  Raises UsageError for places not in the map.
    """
    count = len(known.code.lines)
    names = list(known.tests)
    if not names:
        return Choice((), tuple(places))
    hits = np.array([known.tests[name].hits[:count] for name in names])
    wanted = np.zeros(count, dtype=bool)
    unreached = []
    for place in places:
        sites = sites_of(known, place)
        if not hits[:, sites].any():
            unreached.append(place)
            functions = {known.code.lines[number].function for number in np.flatnonzero(sites)}
            sites = np.array([line.function in functions for line in known.code.lines], dtype=bool)
        wanted |= sites
    own = hits[:, wanted].astype(float)
    worth = (own / np.maximum(own.sum(axis=0), 1)).sum(axis=1)
    # Of two tests that say as much about the places, the one that runs less besides.
    focus = own.sum(axis=1) / np.maximum(hits.sum(axis=1), 1)
    seconds = np.array([max(known.tests[name].seconds, _LEAST) for name in names])
    gain = worth * focus / seconds
    order = [number for number in np.argsort(-gain, kind="stable") if worth[number] > 0]
    return Choice(tuple(names[number] for number in order), tuple(unreached))

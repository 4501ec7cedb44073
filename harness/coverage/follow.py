# SPDX-License-Identifier: BSD-2-Clause
"""From the sources at hand to the lines that a map knows, which was made of other ones: code moves.

Where the map's own sources are known lines are followed through the difference.  Else they are followed by function:
one that has as many lines as the map's is taken for the same; of any other all lines are meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from harness.coverage.choice import Place
from harness.coverage.map import CoverageMap
from harness.coverage.mutants import Function, functions_in
from harness.kernels.source import SourceTree
from harness.results.coverage import ranges_of

# Lines of a function's head that become no code: its type, its name, and the brace.
_HEAD = 3


def changed_lines(old: bytes, new: bytes) -> list[int]:
    """Return the lines of OLD that are other ones in NEW, or between which there is something in NEW."""
    found: list[int] = []
    matcher = SequenceMatcher(None, old.splitlines(), new.splitlines(), autojunk=False)
    for kind, first, last, _, _ in matcher.get_opcodes():
        if kind == "insert":
            found += [first, first + 1]
        elif kind != "equal":
            found += range(first + 1, last + 1)
    count = len(old.splitlines())
    return sorted({line for line in found if 1 <= line <= count})


class Follower:
    """Follows lines of TEXT, the file PATH as it is at hand, to those that the map KNOWN has of it.

    OWN is the file as the map's kernel was built from it, None where that is not known.
    """

    def __init__(self, known: CoverageMap, path: str, text: bytes, own: bytes | None = None) -> None:
        self._known = known
        self._path = path
        self._functions = functions_in(text)
        self._moved: dict[int, int] | None = None
        if own is not None:
            matcher = SequenceMatcher(None, text.splitlines(), own.splitlines(), autojunk=False)
            self._moved = {
                block.a + number + 1: block.b + number + 1
                for block in matcher.get_matching_blocks()
                for number in range(block.size)
            }
        self._spans: dict[str, tuple[int, int]] = {}
        for line in known.code.lines:
            if f"/{line.file}".endswith(f"/{path}"):
                first, last = self._spans.get(line.function, (line.line, line.line))
                self._spans[line.function] = min(first, line.line), max(last, line.line)

    def place(self, line: int) -> Place | None:
        """Return what LINE is in the map; None for what is in no function that was measured."""
        function = next((each for each in self._functions if each.first <= line <= each.last), None)
        if function is None or function.name not in self._spans:
            return None
        moved = self._moved.get(line) if self._moved is not None else self._by_function(function, line)
        if moved is None:
            return Place(function=function.name)
        return Place(file=self._path, first=moved, last=moved)

    def _by_function(self, function: Function, line: int) -> int | None:
        first, last = self._spans[function.name]
        by = last - function.last
        return line + by if 0 <= first - function.first - by <= _HEAD else None

    def places(self, lines: Sequence[int]) -> list[Place]:
        """Return the places of LINES, each once; lines that follow each other are one place."""
        found: list[Place] = []
        for place in dict.fromkeys(place for line in lines if (place := self.place(line)) is not None):
            before = found[-1] if found else None
            if before is not None and place.file and place.file == before.file and place.first == before.last + 1:
                found[-1] = replace(before, last=place.last)
            else:
                found.append(place)
        return found


def changed_places(old: SourceTree, new: SourceTree, known: CoverageMap) -> tuple[list[Place], list[str]]:
    """Return what of KNOWN is other in NEW than in OLD, and in words what of the change is not in the map."""
    places: list[Place] = []
    said = []
    for path in sorted(new.changed_since(old.tree)):
        if not known.has(path):
            said.append(f"{path} was not measured")
            continue
        before, after = old.read(path) or b"", new.read(path) or b""
        own = replace(old, tree=known.tree).read(path) if known.tree else None
        follower = Follower(known, path, before, own)
        lines = changed_lines(before, after)
        found = follower.places(lines)
        lost = [line for line in lines if follower.place(line) is None]
        if lost:
            said.append(f"{path}: what was changed at {ranges_of(lost)} is in no function that was measured")
        places += found
    return places, said

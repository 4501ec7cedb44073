# SPDX-License-Identifier: BSD-2-Clause
"""The commits between good and bad as a graph: who inherits whose changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError

Flags = NDArray[np.bool_]


class History:
    """COMMITS, parents before children, with the PARENTS of each; parents outside are good and are left out.

    As in git, a commit is affected by a change exactly when the change is an ancestor of it, or itself.
    Raises UsageError when a commit comes before one of its parents or twice.
    """

    def __init__(self, commits: Sequence[str], parents: Mapping[str, Sequence[str]]) -> None:
        self.commits = tuple(commits)
        self.number = {commit: number for number, commit in enumerate(self.commits)}
        if len(self.number) < len(self.commits):
            raise UsageError("a commit is named twice in the history")
        self.parents = {
            commit: tuple(parent for parent in parents.get(commit, ()) if parent in self.number)
            for commit in self.commits
        }
        #: The same by number.
        self.before = [tuple(self.number[parent] for parent in self.parents[commit]) for commit in self.commits]
        for number, parents_of in enumerate(self.before):
            if any(parent >= number for parent in parents_of):
                raise UsageError(
                    f"the history is not in order: {self.commits[number][:12]} comes before a parent of its own"
                )
        self._ancestors: dict[int, Flags] = {}

    def __len__(self) -> int:
        return len(self.commits)

    def ancestors(self, number: int) -> Flags:
        """Return for each commit whether commit NUMBER has its change; kept, for the few that are asked for."""
        if (known := self._ancestors.get(number)) is None:
            known = np.zeros(len(self), dtype=np.bool_)
            found, left = {number}, [number]
            while left:
                for parent in self.before[left.pop()]:
                    if parent not in found:
                        found.add(parent)
                        left.append(parent)
            known[list(found)] = True
            self._ancestors[number] = known
        return known

    def inherited(self, numbers: Sequence[int], among: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return a row for each commit AMONG these: 1 where the commit of that place in NUMBERS has its change."""
        bits = [0] * len(self)
        for place, number in enumerate(numbers):
            bits[number] |= 1 << place
        for number in range(len(self) - 1, -1, -1):
            if own := bits[number]:
                for parent in self.before[number]:
                    bits[parent] |= own
        width = max(1, (len(numbers) + 7) // 8)
        packed = np.frombuffer(b"".join([bits[each].to_bytes(width, "little") for each in among.tolist()]), np.uint8)
        return np.unpackbits(packed.reshape(len(among), width), axis=1, count=len(numbers), bitorder="little")

    def carried(self, numbers: Sequence[int]) -> list[int]:
        """Return for each commit which of the commits NUMBERS it inherits, bit N standing for the Nth of them."""
        bits = [0] * len(self)
        for place, number in enumerate(numbers):
            bits[number] |= 1 << place
        for number, parents in enumerate(self.before):
            for parent in parents:
                bits[number] |= bits[parent]
        return bits

    @cached_property
    def inherits(self) -> Flags:
        """Row V, column C: whether commit V has the change of commit C.  For short histories only: n * n bytes."""
        return np.ascontiguousarray(self.inherited(range(len(self)), np.arange(len(self))).T).astype(np.bool_)

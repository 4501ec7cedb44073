# SPDX-License-Identifier: BSD-2-Clause
"""The commits between good and bad as a graph: who inherits whose changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError

Matrix = NDArray[np.float64]


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
        for commit, number in self.number.items():
            if any(self.number[parent] >= number for parent in self.parents[commit]):
                raise UsageError(f"the history is not in order: {commit[:12]} comes before a parent of its own")

    def __len__(self) -> int:
        return len(self.commits)

    @cached_property
    def inherits(self) -> NDArray[np.bool_]:
        """Row V, column C: whether commit V has the change that commit C made."""
        table = np.eye(len(self), dtype=np.bool_)
        for commit, number in self.number.items():
            for parent in self.parents[commit]:
                table[number] |= table[self.number[parent]]
        return table

    @cached_property
    def weights(self) -> Matrix:
        """`inherits` as numbers, for products with probabilities."""
        return self.inherits.astype(np.float64)

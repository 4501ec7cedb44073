# SPDX-License-Identifier: BSD-2-Clause
"""What became of a test since it ran last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class ChangeKind(StrEnum):
    """What became of a test since it ran last."""

    NEW_FAILURE = "new failure"
    NEWLY_FLAKY = "newly flaky"
    OTHERWISE = "fails otherwise"
    MENDED = "mended"


@dataclass(frozen=True)
class Change:
    """A test that came to something else than when it ran last: `before` on the `kernel` and in the run of `when`."""

    test: str
    kind: ChangeKind
    now: str
    before: str
    when: str
    kernel: str = ""

    def to_json(self) -> dict[str, str]:
        """Return plain data."""
        return {name: str(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none."""
        return cls(**{**data, "kind": ChangeKind(data["kind"])})

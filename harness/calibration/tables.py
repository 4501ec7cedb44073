# SPDX-License-Identifier: BSD-2-Clause
"""What a simulation measured: tables for people, and whether the figures keep what is claimed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Progress = Callable[[str], None]
#: Each has `tables(progress, quick=...)`, which yields its tables as they come.
SUBJECTS = {"compare": "harness.calibration.compare", "bisect": "harness.calibration.bisect"}
#: Of these, those that take a repository whose history is used (`source=...`).
HISTORICAL = frozenset({"bisect"})
_DEVIATIONS = 3.0  # of a simulated share, before it is said that it misses its bound


@dataclass(frozen=True)
class Table:
    """One table: `misses` names the figures that do not keep what `claim` says, by more than chance explains."""

    title: str
    claim: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    misses: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def share(count: int, of: int) -> str:
    """Return COUNT of OF in percent, with one standard deviation of the simulation."""
    rate = count / of
    # The deviation that one more would have: none seen is not known for sure.
    guarded = (count + 1) / (of + 2)
    return f"{rate:.1%} ± {math.sqrt(guarded * (1 - guarded) / of):.1%}"


def exceeds(count: int, of: int, bound: float) -> bool:
    """Tell whether COUNT of OF is more than a share of at most BOUND explains."""
    return count / of > bound + _DEVIATIONS * math.sqrt(bound * (1 - bound) / of)


def tables(
    subject: str, progress: Progress = lambda _: None, *, quick: bool = False, source: Path | None = None
) -> Iterator[Table]:
    """Yield the tables of SUBJECT; QUICK makes small ones, SOURCE is a git repository whose history may be used."""
    more = {"source": source} if source is not None and subject in HISTORICAL else {}
    made: Iterator[Table] = importlib.import_module(SUBJECTS[subject]).tables(progress, quick=quick, **more)
    return made

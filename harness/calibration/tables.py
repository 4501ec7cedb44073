# SPDX-License-Identifier: BSD-2-Clause
"""What a simulation measured: tables for people, and whether the figures keep what is claimed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.results.certainty import rate_interval

Progress = Callable[[str], None]
#: Each has `tables(progress, quick=...)`, which yields its tables as they come.
SUBJECTS = {"compare": "harness.calibration.compare", "bisect": "harness.calibration.bisect"}
#: Of these, those that search in histories: a repository's may be used (`source=...`), for some time (`minutes=...`).
HISTORICAL = frozenset({"bisect"})
# So improbable a number of errors would have to be, at the bound, before it is said to be missed: three deviations.
_CHANCE = 0.00135


@dataclass(frozen=True)
class Table:
    """One table: `misses` names the figures that do not keep what `claim` says, by more than chance explains.

    `figures` are what other programs quote of it.
    """

    title: str
    claim: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    misses: tuple[str, ...] = ()
    figures: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def share(count: int, of: int) -> str:
    """Return COUNT of OF in percent, with the interval that the simulation leaves at 95%."""
    found = rate_interval(count, of, 0.95)
    return f"{count / of:.1%} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def exceeds(count: int, of: int, bound: float) -> bool:
    """Tell whether COUNT of OF is more than a share of at most BOUND explains."""
    log = math.log(bound) if bound else -math.inf
    tail = math.fsum(
        math.exp(math.log(math.comb(of, number)) + number * log + (of - number) * math.log1p(-bound))
        for number in range(count, of + 1)
    )
    return count > 0 and tail < _CHANCE


def tables(
    subject: str,
    progress: Progress = lambda _: None,
    *,
    quick: bool = False,
    source: Path | None = None,
    minutes: float | None = None,
) -> Iterator[Table]:
    """Yield the tables of SUBJECT; QUICK makes small ones.

    SOURCE is a git repository whose history may be used, MINUTES the time for searches in histories.
    """
    more: dict[str, Any] = {"source": source, "minutes": minutes} if subject in HISTORICAL else {}
    given = {name: value for name, value in more.items() if value is not None}
    made: Iterator[Table] = importlib.import_module(SUBJECTS[subject]).tables(progress, quick=quick, **given)
    return made

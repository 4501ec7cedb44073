# SPDX-License-Identifier: BSD-2-Clause
"""What became of kernels with one small fault each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from harness.errors import UsageError


class Fate(StrEnum):
    """What a fault came to."""

    CAUGHT = "caught"
    NO_BOOT = "does not boot"
    SURVIVED = "survived"
    UNREACHED = "no test runs it"
    EQUIVALENT = "equivalent"
    SAME_CODE = "same code"
    NO_BUILD = "does not build"
    LOST = "lost"

    @property
    def is_caught(self) -> bool:
        """Whether somebody would notice."""
        return self in {Fate.CAUGHT, Fate.NO_BOOT}

    @property
    def counts(self) -> bool:
        """Whether it says something about the tests: a fault that is none, and one nobody knows of, do not."""
        return self in {Fate.CAUGHT, Fate.NO_BOOT, Fate.SURVIVED, Fate.UNREACHED}


@dataclass(frozen=True)
class MutantResult:
    """One fault: where it is and what, its fate, and by which test.

    `reaching` counts the tests that run its line, `tried` those of them that ran on it.  `reason` is why it did not
    build, was lost, or is declared equivalent.
    """

    name: str
    file: str
    function: str
    line: int
    what: str
    fate: Fate
    test: str = ""
    verdict: str = ""
    reaching: int = 0
    tried: int = 0
    seconds: float = 0.0
    reason: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none."""
        return cls(**{**data, "fate": Fate(data["fate"])})

    def __str__(self) -> str:
        by = f" by {self.test}" if self.test else ""
        tried = f" ({self.tried} of {self.reaching} tests that run it)" if self.fate is Fate.SURVIVED else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.name} {self.function}:{self.line} {self.what}: {self.fate}{by}{tried}{why}"


@dataclass(frozen=True)
class Score:
    """How many faults were caught, of those that say something about the tests."""

    caught: int
    counted: int
    fates: Mapping[Fate, int]

    def __str__(self) -> str:
        share = f" ({100 * self.caught / self.counted:.1f}%)" if self.counted else ""
        fates = ", ".join(f"{count} {fate}" for fate, count in self.fates.items())
        return f"{self.caught} of {self.counted} faults caught{share}: {fates}"


def score(results: Iterable[MutantResult]) -> Score:
    """Return the score of RESULTS."""
    fates = Counter(result.fate for result in results)
    return Score(
        sum(count for fate, count in fates.items() if fate.is_caught),
        sum(count for fate, count in fates.items() if fate.counts),
        {fate: fates[fate] for fate in Fate if fates[fate]},
    )


def append(file: Path, result: MutantResult) -> None:
    """Add RESULT to the campaign in FILE."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(result)) + "\n")


def read_results(file: Path) -> dict[str, MutantResult]:
    """Return what the campaign in FILE knows, by the faults' names; a last line that was cut off is none.

    Raises UsageError when FILE is no campaign.
    """
    if not file.exists():
        return {}
    found: dict[str, MutantResult] = {}
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        try:
            result = MutantResult.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{file} is no campaign of `mutate` ({error})") from None
        found[result.name] = result
    return found

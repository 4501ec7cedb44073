# SPDX-License-Identifier: BSD-2-Clause
"""How known defects of the kernel can be mended, in words, and what was measured of kernels changed so."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: The kernel in which all of them were tried.
TRIED_IN = "the kernel of 19 April 2026"


@dataclass(frozen=True)
class Mend:
    """What to CHANGE, and what was MEASURED of it; REPRODUCERS, files without folder, show the defect.

    GRAVE ones were judged by `compare`.  Where nothing else was measured the reproducers ended with 0.
    """

    reproducers: tuple[str, ...]
    change: str
    measured: str = ""
    grave: bool = False

    @property
    def words(self) -> tuple[str, str]:
        """The change as a sentence, and what was measured as another."""
        names = " and ".join(f"`{name}`" for name in self.reproducers)
        ends = "ends" if len(self.reproducers) == 1 else "end"
        measured = self.measured or f"{names} {ends} with 0 there, and with 1 without it"
        return f"{self.change[:1].upper()}{self.change[1:]}.", f"Tried in {TRIED_IN}: {measured}."


def read_mends(file: Path) -> tuple[Mend, ...]:
    """Return what FILE knows, nothing where there is none; raises ValueError, KeyError or TypeError for other files."""
    if not file.is_file():
        return ()
    given = tomllib.loads(file.read_text())["mend"]
    return tuple(Mend(**{**one, "reproducers": tuple(one["reproducers"])}) for one in given)


def mend_of(mends: Sequence[Mend], reproducer: str) -> Mend | None:
    """Return the one that mends what the file REPRODUCER, with or without folder, shows; None where none is known."""
    return next((mend for mend in mends if reproducer.rpartition("/")[2] in mend.reproducers), None)

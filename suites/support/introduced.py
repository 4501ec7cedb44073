# SPDX-License-Identifier: BSD-2-Clause
"""Which commits brought known defects, as bisections have proved: suites/introduced.toml.

`python suites/support/introduced.py REPORT...` adds what reports of bisections say that sought a reproducer
(`dfly-harness bisect --json REPORT ... -- --program suites/reproducers/FILE`).  The marks of the tests name the commit.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.results.bisection import HOLDS, BisectionReport

FILE = Path(__file__).resolve().parents[1] / "introduced.toml"
_SHORT = 10  # characters of a commit
_HEAD = """\
# The commits that brought known defects, by reproducer, as bisections have proved: the commit is bad, its parent good.
# Made by `python suites/support/introduced.py REPORT...` from reports of bisections; do not edit.
"""


@dataclass(frozen=True)
class Introduction:
    """The COMMIT, its DATE and SUBJECT, and what the PROOF of the bisection says, a line for each statement."""

    commit: str
    date: str
    subject: str
    proof: tuple[str, ...]

    @property
    def words(self) -> str:
        """What a mark says of it."""
        return f"{self.commit} of {self.date}"


def load() -> dict[str, Introduction]:
    """Return what is known, by reproducer."""
    given = tomllib.loads(FILE.read_text()) if FILE.exists() else {}
    return {name: Introduction(**{**one, "proof": tuple(one["proof"])}) for name, one in given.items()}


def read(report: BisectionReport) -> tuple[str, Introduction]:
    """Return the reproducer and its commit.  Raises ValueError for a report that proves none."""
    name = report.test.partition("::")[0].rpartition("/")[2]
    if not report.proved or len(report.culprits) != 1:
        raise ValueError(f"{name}: the bisection has proved no commit")
    (culprit,) = report.culprits
    told = tuple(words for words, outcome in report.proof.items() if outcome == HOLDS)
    return name, Introduction(culprit.commit[:_SHORT], culprit.date, culprit.subject, told)


def text(introduced: Mapping[str, Introduction]) -> str:
    """Return the content of the file."""
    parts = [_HEAD]
    for name, one in sorted(introduced.items()):
        words = [
            f"{key} = {json.dumps(getattr(one, key), ensure_ascii=False)}" for key in ("commit", "date", "subject")
        ]
        proof = "".join(f"    {json.dumps(words)},\n" for words in one.proof)
        parts.append("\n".join([f'\n["{name}"]', *words, f"proof = [\n{proof}]\n"]))
    return "".join(parts)


def main(files: list[str]) -> int:
    """Add what the reports FILES say; return the exit status."""
    introduced = load()
    for file in files:
        name, one = read(BisectionReport.from_json(json.loads(Path(file).read_text())))
        introduced[name] = one
    FILE.write_text(text(introduced))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: BSD-2-Clause
"""On which kernels a known defect was shown, by its test or its reproducer: suites/shown.toml.

`python suites/support/shown.py RECORD...` adds what records of runs say (`dfly-harness run --json`), of kernels as
they were released or committed: those of a mended or a broken one have no place there.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.programs.program import SOURCE
from harness.results.record import RunRecord, TestResult, read_record
from harness.results.verdict import Verdict

FILE = Path(__file__).resolve().parents[1] / "shown.toml"
#: What a reproducer or test came to where the defect was shown, the gravest first.
SHOWN = (Verdict.PANIC, Verdict.HANG, Verdict.GUEST_LOST, Verdict.FAILED)
#: ... and where it was not.
NOT_SHOWN = (Verdict.PASSED, Verdict.NOT_APPLICABLE)
_DEFECT = re.compile(r"exit status 1\b")  # of a reproducer
_HEAD = """\
# What came of the tests with a `defect` mark and of the reproducers, by __DragonFly_version of the kernel.
# Made by `python suites/support/shown.py RECORD...` from records of runs; do not edit.
"""


def load() -> dict[str, dict[int, Verdict]]:
    """Return what each test (FILE::TEST, without folder and case) and reproducer (FILE) came to, by version."""
    given = tomllib.loads(FILE.read_text()) if FILE.exists() else {}
    return {name: {int(version): Verdict(word) for version, word in one.items()} for name, one in given.items()}


def name_of(test: str) -> str:
    """Return the name in the file of the TEST of a record."""
    path, _, case = test.partition("::")
    file = path.rpartition("/")[2]
    return file if file.endswith(SOURCE) else f"{file}::{case.partition('[')[0]}"


def outcomes(record: RunRecord) -> dict[str, Verdict]:
    """Return what RECORD says: of several cases of a test the gravest."""
    found: dict[str, Verdict] = {}
    for result in record.results:
        name = name_of(result.test)
        if result.defect or name.endswith(SOURCE):
            said = [*_said(result), *([found[name]] if name in found else [])]
            if said:
                found[name] = min(said, key=(*SHOWN, *NOT_SHOWN).index)
    return found


def _said(result: TestResult) -> Iterator[Verdict]:
    is_program = name_of(result.test).endswith(SOURCE)
    for each in (result, *result.again):
        # A program that could not try it, or did not end, has shown nothing.
        if is_program and each.verdict is Verdict.FAILED and not _DEFECT.search(each.reason):
            continue
        if each.verdict in (*SHOWN, *NOT_SHOWN):
            yield each.verdict


def text(shown: Mapping[str, Mapping[int, Verdict]]) -> str:
    """Return the content of the file."""
    parts = [_HEAD]
    for name, versions in sorted(shown.items()):
        lines = (f'{version} = "{verdict}"\n' for version, verdict in sorted(versions.items()))
        parts.append(f'\n["{name}"]\n{"".join(lines)}')
    return "".join(parts)


def main(files: list[str]) -> int:
    """Add what the records FILES say; return the exit status."""
    shown = load()
    for file in files:
        record = read_record(Path(file))
        for name, verdict in outcomes(record).items():
            shown.setdefault(name, {})[record.osreldate] = verdict
    FILE.write_text(text(shown))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

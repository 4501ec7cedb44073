# SPDX-License-Identifier: BSD-2-Clause
"""What the suites say of themselves, held against what they were measured to run (`dfly-harness run --coverage`).

`python suites/support/reach.py [KERNEL...]` says, for each kernel of the store that was measured:

* which tests are marked to be about a function of kern_proc.c, or to pass through it, that they never enter;
* which lines and conditions of kern_proc.c no test runs for which suites/unreached.toml has no reason, and which of its
  reasons are about what a test does run.

Exit status 1 if there is any, 2 where nothing was measured.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from harness.coverage.map import CoverageMap, maps
from harness.errors import UsageError
from harness.kernels.artefact import Kernel
from harness.results.coverage import ranges_of
from harness.store import Store

ROOT = Path(__file__).resolve().parents[2]
REASONS = ROOT / "suites" / "unreached.toml"
FILE = "kern_proc.c"
#: What runs once, while the kernel boots: tests see what it has left.
AT_BOOT = frozenset({"procinit", "procinsertinit", "pgrpinsertinit", "sessinsertinit"})


@dataclass(frozen=True)
class Unreached:
    """What is known of a kernel's lines, and conditions by their lines, that no test runs: with the reason."""

    lines: Mapping[int, str]
    conditions: Mapping[int, str]


def numbers(text: str) -> Iterator[int]:
    """Yield the numbers that TEXT means: `7, 12-15`."""
    for part in filter(None, (each.strip() for each in text.split(","))):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def read_reasons(file: Path, osreldate: int) -> Unreached:
    """Return what FILE says of the kernel of OSRELDATE; raises ValueError for a reason that is none."""
    data: dict[str, Any] = tomllib.loads(file.read_text())
    said: dict[str, dict[int, str]] = {"lines": {}, "conditions": {}}
    for entry in data.get(str(osreldate), []):
        reason = data["reasons"].get(entry["why"])
        if not reason:
            raise ValueError(f"{file.name}: {entry} has no reason that is explained")
        for kind, known in said.items():
            known |= dict.fromkeys(numbers(entry.get(kind, "")), reason)
    return Unreached(**said)


def wrong_marks(measured: Sequence[CoverageMap], items: Sequence[pytest.Item]) -> Iterator[str]:
    """Yield which of ITEMS are marked with a function of kern_proc.c that they enter on no kernel MEASURED."""
    marks: dict[tuple[str, str, str], bool] = {}
    for known in measured:
        lines = known.code.lines
        functions = {line.function for line in lines if line.file.endswith(f"/{FILE}")}
        for item in items:
            reach = known.tests.get(item.nodeid)
            if reach is None:
                continue
            entered = {line.function for line, hit in zip(lines, reach.hits, strict=False) if hit}
            for mark in ("kern_proc", "passes"):
                for name in {str(name) for marker in item.iter_markers(mark) for name in marker.args} & functions:
                    # One promise with several parameters: it is enough that it enters the function with one of them.
                    key = item.nodeid.partition("[")[0], mark, name
                    marks[key] = marks.get(key, False) or name in entered
    for (test, mark, name), enters in sorted(marks.items()):
        if not enters and name not in AT_BOOT:
            yield f"{test}: marked {mark}({name}), and never enters it"


def missing_reasons(known: CoverageMap, reasons: Unreached) -> Iterator[str]:
    """Yield what of kern_proc.c no test of KNOWN runs without one of REASONS, and which of these are out of date."""
    hits = known.hits()
    count = len(known.code.lines)
    run = {line.line: hit for line, hit in zip(known.code.lines, hits, strict=False) if line.file.endswith(f"/{FILE}")}
    ways: Counter[int] = Counter()
    seen: set[int] = set()
    for number, branch in enumerate(known.code.branches):
        if branch.file.endswith(f"/{FILE}"):
            seen.add(branch.line)
            both = zip(hits[count + 2 * number : count + 2 * number + 2], branch.fatal, strict=True)
            ways[branch.line] += sum(not gone and not fatal for gone, fatal in both)
    never = {line for line, hit in run.items() if not hit}
    one_sided = {line for line, left in ways.items() if left and line not in never}
    if lost := never - reasons.lines.keys():
        yield f"no test runs {FILE}:{ranges_of(lost)}"
    if lost := one_sided - reasons.conditions.keys() - reasons.lines.keys():
        yield f"no test has it both ways at {FILE}:{ranges_of(lost)}"
    if stale := reasons.lines.keys() - never:
        yield f"{REASONS.name} says that no test runs {FILE}:{ranges_of(stale)}, and one does"
    if stale := reasons.conditions.keys() - one_sided:
        yield f"{REASONS.name} says that no test has it both ways at {FILE}:{ranges_of(stale)}, and one does"


def complaints(store: Store, kernels: Sequence[str], items: Sequence[pytest.Item]) -> dict[str, list[str]]:
    """Return what is wrong by each of KERNELS, or of all that were measured; raises ValueError where none was."""
    wanted = {store.get(Kernel, name).elf for name in kernels}
    measured = [each for each in maps(store) if each.has(FILE) and (each.kernel in wanted or not wanted)]
    if not measured:
        raise ValueError(f"no kernel was measured: dfly-harness run --coverage={FILE}")
    found = {
        known.label: list(missing_reasons(known, read_reasons(REASONS, known.osreldate)))
        for known in measured
        if str(known.osreldate) in tomllib.loads(REASONS.read_text())
    }
    return {"marks": list(wrong_marks(measured, items)), **found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Say what is wrong; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help="kernels of the store (default: all measured)")
    options = parser.parse_args(arguments)
    try:
        found = complaints(Store(), options.kernels, import_module("support.pages").collected())
    except (ValueError, UsageError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for label, said in found.items():
        sys.stdout.write(f"{label}: {len(said) or 'nothing'} to mend\n")
        sys.stdout.writelines(f"    {each}\n" for each in said)
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "suites")]
    sys.exit(main())

# SPDX-License-Identifier: BSD-2-Clause
"""What the suites say of themselves, held against what they were measured to run (`dfly-harness run --coverage`).

`python suites/support/reach.py [KERNEL...]` says, for each kernel of the store that was measured:

* which tests are marked to be about a function of kern_proc.c, or to pass through it, that they never enter (of those
  whose files are what they were when they were measured);
* which lines and conditions of the files it is about no test runs for which suites/unreached.toml has no reason, and
  which of its reasons are about what a test does run.

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

from harness.coverage.map import CoverageMap, maps, texts_of
from harness.errors import UsageError
from harness.kernels.artefact import Kernel
from harness.results.coverage import ranges_of
from harness.store import Store

ROOT = Path(__file__).resolve().parents[2]
REASONS = ROOT / "suites" / "unreached.toml"
FILE = "kern_proc.c"
#: What runs once, while the kernel boots: tests see what it has left.
AT_BOOT = frozenset({"procinit", "procinsertinit", "pgrpinsertinit", "sessinsertinit"})


#: These may be run, as chance will have it.
BY_CHANCE = frozenset({"race", "one_cpu"})


@dataclass(frozen=True)
class Unreached:
    """What is known of a file: lines, and conditions by their lines, that no test runs, with the name of the reason."""

    lines: Mapping[int, str]
    conditions: Mapping[int, str]


def numbers(text: str) -> Iterator[int]:
    """Yield the numbers that TEXT means: `7, 12-15`."""
    for part in filter(None, (each.strip() for each in text.split(","))):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def read_reasons(file: Path, osreldate: int) -> dict[str, Unreached]:
    """Return what FILE says of the kernel of OSRELDATE, by source file; raises ValueError for a reason that is none."""
    data: dict[str, Any] = tomllib.loads(file.read_text())
    found: dict[str, Unreached] = {}
    for entry in data.get(str(osreldate), []):
        why = entry["why"]
        if not data["reasons"].get(why):
            raise ValueError(f"{file.name}: {entry} has no reason that is explained")
        known = found.get(entry["file"], Unreached({}, {}))
        lines, conditions = (dict.fromkeys(numbers(entry.get(kind, "")), why) for kind in ("lines", "conditions"))
        found[entry["file"]] = Unreached({**known.lines, **lines}, {**known.conditions, **conditions})
    return found


def still_true(known: CoverageMap, root: Path = ROOT) -> CoverageMap:
    """Return KNOWN of those tests whose files, under ROOT, are what they were when they were measured."""
    texts = texts_of(known.tests, root)
    return known.only({test: reach for test, reach in known.tests.items() if reach.source == texts[test] != ""})


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


def missing_reasons(known: CoverageMap, file: str, reasons: Unreached) -> Iterator[str]:
    """Yield what of FILE no test of KNOWN runs without one of REASONS, and which of these are out of date."""
    never, one_sided = gaps(known, file)
    if lost := never - reasons.lines.keys():
        yield f"no test runs {file}:{ranges_of(lost)}"
    if lost := one_sided - reasons.conditions.keys() - reasons.lines.keys():
        yield f"no test has it both ways at {file}:{ranges_of(lost)}"
    if stale := _for_certain(reasons.lines) - never:
        yield f"{REASONS.name} says that no test runs {file}:{ranges_of(stale)}, and one does"
    if stale := _for_certain(reasons.conditions) - one_sided:
        yield f"{REASONS.name} says that no test has it both ways at {file}:{ranges_of(stale)}, and one does"


def _for_certain(reasons: Mapping[int, str]) -> set[int]:
    return {line for line, why in reasons.items() if why not in BY_CHANCE}


def gaps(known: CoverageMap, file: str) -> tuple[set[int], set[int]]:
    """Return which lines of FILE no test of KNOWN runs, and of the others those with a condition that has one way only.

    Ways that lead straight to panic() do not count.
    """
    hits = known.hits()
    count = len(known.code.lines)
    run: dict[int, bool] = {}
    for line, hit in zip(known.code.lines, hits, strict=False):
        if line.file.endswith(f"/{file}"):
            run[line.line] = run.get(line.line, False) or bool(hit)
    ways: Counter[int] = Counter()
    for number, branch in enumerate(known.code.branches):
        if branch.file.endswith(f"/{file}"):
            both = zip(hits[count + 2 * number : count + 2 * number + 2], branch.fatal, strict=True)
            ways[branch.line] += sum(not gone and not fatal for gone, fatal in both)
    never = {line for line, hit in run.items() if not hit}
    return never, {line for line, left in ways.items() if left and line not in never}


def complaints(store: Store, kernels: Sequence[str], items: Sequence[pytest.Item]) -> dict[str, list[str]]:
    """Return what is wrong by each of KERNELS, or of all that were measured; raises ValueError where none was."""
    wanted = {store.get(Kernel, name).elf for name in kernels}
    measured = [each for each in maps(store) if each.has(FILE) and (each.kernel in wanted or not wanted)]
    if not measured:
        raise ValueError(f"no kernel was measured: dfly-harness run --coverage={FILE}")
    found = {
        known.label: [
            said
            for file, reasons in read_reasons(REASONS, known.osreldate).items()
            if known.has(file)
            for said in missing_reasons(known, file, reasons)
        ]
        # Of several maps of one kernel that of most tests counts: it comes last.
        for known in sorted(measured, key=lambda each: len(each.tests))
        if str(known.osreldate) in tomllib.loads(REASONS.read_text())
    }
    return {"marks": list(wrong_marks([still_true(each) for each in measured], items)), **found}


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

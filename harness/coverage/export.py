# SPDX-License-Identifier: BSD-2-Clause
"""What tests ran in the formats of other tools: lcov's tracefile and Cobertura's XML.

Both count how often something was executed; here that is the number of tests that did.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from harness.coverage.map import CoverageMap
from harness.later import Later

if TYPE_CHECKING:
    import numpy as np
else:
    np = Later("numpy")


@dataclass
class _File:
    path: str
    lines: dict[int, int] = field(default_factory=dict)
    functions: dict[str, tuple[int, int]] = field(default_factory=dict)  # first line, and count of it
    ways: list[tuple[int, int, int, int]] = field(default_factory=list)  # line, jump, way, count


def _files(of: CoverageMap) -> list[_File]:
    hits = [reach.hits for reach in of.tests.values()]
    times = np.sum(hits, axis=0) if hits else np.zeros(of.code.size, dtype=np.int64)
    files: dict[str, _File] = {}
    for number, line in enumerate(of.code.lines):
        path = line.file or f"function/{line.function}"
        file = files.setdefault(path, _File(path))
        count = int(times[number])
        file.lines[line.line] = max(count, file.lines.get(line.line, 0))
        first, entered = file.functions.get(line.function, (line.line, 0))
        file.functions[line.function] = min(first, line.line), max(entered, count)
    jumps: Counter[tuple[str, int]] = Counter()
    for number, branch in enumerate(of.code.branches):
        file = files[branch.file or f"function/{branch.function}"]
        at = len(of.code.lines) + 2 * number
        jump = jumps[file.path, branch.line]
        jumps[file.path, branch.line] += 1
        file.ways += [(branch.line, jump, way, int(times[at + way])) for way in (0, 1)]
    return sorted(files.values(), key=lambda each: each.path)


def lcov(of: CoverageMap) -> str:
    """Return OF as lcov's tracefile (geninfo(1))."""
    return "".join(f"{line}\n" for file in _files(of) for line in _lcov(file))


def _lcov(file: _File) -> Iterator[str]:
    yield "TN:"
    yield f"SF:{file.path}"
    for name, (first, _) in sorted(file.functions.items(), key=lambda each: each[1]):
        yield f"FN:{first},{name}"
    for name, (_, count) in sorted(file.functions.items()):
        yield f"FNDA:{count},{name}"
    yield f"FNF:{len(file.functions)}"
    yield f"FNH:{sum(count > 0 for _, count in file.functions.values())}"
    for line, jump, way, count in sorted(file.ways):
        yield f"BRDA:{line},{jump},{way},{count if file.lines.get(line) else '-'}"
    yield f"BRF:{len(file.ways)}"
    yield f"BRH:{sum(count > 0 for *_, count in file.ways)}"
    for line, count in sorted(file.lines.items()):
        yield f"DA:{line},{count}"
    yield f"LF:{len(file.lines)}"
    yield f"LH:{sum(count > 0 for count in file.lines.values())}"
    yield "end_of_record"


def cobertura(of: CoverageMap) -> str:
    """Return OF as Cobertura's XML (coverage-04.dtd)."""
    files = _files(of)
    lines = [count for file in files for count in file.lines.values()]
    ways = [count for file in files for *_, count in file.ways]
    root = ElementTree.Element("coverage", _rates(lines, ways) | {"version": "1", "timestamp": str(int(time.time()))})
    sources = ElementTree.SubElement(root, "sources")
    ElementTree.SubElement(sources, "source").text = "."
    packages = ElementTree.SubElement(root, "packages")
    by_folder: dict[str, list[_File]] = {}
    for file in files:
        by_folder.setdefault(file.path.rpartition("/")[0], []).append(file)
    for folder, own in by_folder.items():
        counts = [count for file in own for count in file.lines.values()]
        gone = [count for file in own for *_, count in file.ways]
        about = {"name": folder.replace("/", "."), "complexity": "0", **_shares(counts, gone)}
        classes = ElementTree.SubElement(ElementTree.SubElement(packages, "package", about), "classes")
        for file in own:
            _cobertura(classes, file)
    ElementTree.indent(root)
    declared = '<!DOCTYPE coverage SYSTEM "http://cobertura.sourceforge.net/xml/coverage-04.dtd">'
    return f"<?xml version='1.0' encoding='utf-8'?>\n{declared}\n{ElementTree.tostring(root, encoding='unicode')}\n"


def _shares(lines: list[int], ways: list[int]) -> dict[str, str]:
    def share(counts: list[int]) -> str:
        return f"{sum(map(bool, counts)) / len(counts):.4f}" if counts else "1"

    return {"line-rate": share(lines), "branch-rate": share(ways)}


def _rates(lines: list[int], ways: list[int]) -> dict[str, str]:
    return {
        **_shares(lines, ways),
        "lines-covered": str(sum(map(bool, lines))),
        "lines-valid": str(len(lines)),
        "branches-covered": str(sum(map(bool, ways))),
        "branches-valid": str(len(ways)),
        "complexity": "0",
    }


def _cobertura(classes: ElementTree.Element, file: _File) -> None:
    counts = list(file.lines.values())
    gone = [count for *_, count in file.ways]
    about = {"name": Path(file.path).name, "filename": file.path, "complexity": "0", **_shares(counts, gone)}
    element = ElementTree.SubElement(classes, "class", about)
    ElementTree.SubElement(element, "methods")
    lines = ElementTree.SubElement(element, "lines")
    of_line: dict[int, list[int]] = {}
    for line, _, _, count in file.ways:
        of_line.setdefault(line, []).append(count)
    for line, count in sorted(file.lines.items()):
        given = {"number": str(line), "hits": str(count), "branch": "true" if line in of_line else "false"}
        if line in of_line:
            done, all_ways = sum(map(bool, of_line[line])), len(of_line[line])
            given["condition-coverage"] = f"{100 * done // all_ways}% ({done}/{all_ways})"
        ElementTree.SubElement(lines, "line", given)

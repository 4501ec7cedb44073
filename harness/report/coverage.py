# SPDX-License-Identifier: BSD-2-Clause
"""What tests ran of the kernel's code, for people: at the end of a run, and on its page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.coverage.map import CoverageMap, read_map
from harness.errors import UsageError
from harness.later import Later
from harness.report.page import folded, shown
from harness.results.coverage import Coverage, FunctionCoverage, ranges_of, words_of

if TYPE_CHECKING:
    import numpy as np
else:
    np = Later("numpy")

#: What a figure does not say.
CAVEATS = (
    "A test's own is what its machines executed from its setup to its teardown, on all CPUs: the kernel's daemons and"
    " interrupts meanwhile as well. Inline functions of headers run with the line that calls them, and their own"
    " conditions are not counted. A line counts as run when any instruction of it was; an interrupt between a jump"
    " and its target may hide one pass of that jump."
)


def coverage_lines(coverage: Coverage) -> Iterator[str]:
    """Yield what the end of a run says of COVERAGE."""
    for file, sums in coverage.by_file.items():
        if file:
            yield f"coverage: {file}: {words_of(sums)}"
            never = [each.function for each in coverage.functions if each.file == file and not each.run]
            if never:
                yield f"coverage: never entered: {', '.join(never)}"
    if "" in coverage.by_file:
        entered = [each.function for each in coverage.functions if not each.file and each.run]
        never = [each.function for each in coverage.functions if not each.file and not each.run]
        yield f"coverage: entered {', '.join(entered) or 'none'}; never entered {', '.join(never) or 'none'}"
    if coverage and coverage.between:
        yield f"coverage: {coverage.between} lines were run between tests only"


def coverage_section(coverage: Coverage, sources: Path | None) -> Iterator[str]:
    """Yield the section of a run's page; lines are shown where SOURCES, the user's own tree, has them."""
    if not coverage:
        return
    yield "<h2>What was run of the kernel</h2>"
    for file, sums in coverage.by_file.items():
        yield f"<p><strong>{shown(file or 'functions')}</strong>: {shown(words_of(sums) if file else '')}</p>"
    yield "<table><tr><th>function</th><th>run</th><th>lines never run</th><th>lines with a way never gone</th></tr>"
    for each in coverage.functions:
        yield _row(each)
    yield "</table>"
    yield f"<p class='faint'>{shown(CAVEATS)}</p>"
    by_test = sorted(coverage.tests.items(), key=lambda entry: (-entry[1][1], -entry[1][0], entry[0]))
    listed = "\n".join(f"{lines:5} {alone:5}  {test}" for test, (lines, alone) in by_test)
    yield folded("Lines run by each test, and those that no other test runs", listed)
    if sources is not None:
        yield from _annotated(coverage, sources)


def _row(each: FunctionCoverage) -> str:
    cells = (each.function, words_of(each), ranges_of(each.missed), ranges_of(each.missed_ways))
    texts = [f"<td>{shown(text)}</td>" for text in cells[1:]]
    return f"<tr><td><code>{shown(cells[0])}</code></td>{''.join(texts)}</tr>"


def _annotated(coverage: Coverage, sources: Path) -> Iterator[str]:
    try:
        known = read_map(Path(coverage.map))
    except UsageError as error:
        yield f"<p>{shown(str(error))}</p>"
        return
    for path in sorted({line.file for line in known.code.lines if line.file}):
        place = sources / path
        if not place.is_file():
            yield f"<p>{shown(f'{sources} has no {path}')}</p>"
            continue
        text = place.read_text(errors="replace").splitlines()
        if (lost := _misplaced(known, path, text)) is not None:
            yield f"<p>{shown(f'{place} is not what the kernel was built from: {lost} is not there')}</p>"
            continue
        yield folded(f"{path}, with the number of tests that ran each line", "\n".join(_lines(known, path, text)))


def _misplaced(known: CoverageMap, path: str, text: list[str]) -> str | None:
    """Return a line of code that TEXT does not have; None if it may well be the kernel's own."""
    for line in known.code.lines:
        if line.file == path and (line.line > len(text) or not text[line.line - 1].strip()):
            return f"line {line.line} of {line.function}"
    return None


def _lines(known: CoverageMap, path: str, text: list[str]) -> Iterator[str]:
    hits = [reach.hits for reach in known.tests.values()]
    times = np.sum(hits, axis=0) if hits else np.zeros(known.code.size, dtype=np.int64)
    counts = {line.line: 0 for line in known.code.lines if line.file == path}
    for number, line in enumerate(known.code.lines):
        if line.file == path:
            counts[line.line] = max(counts[line.line], int(times[number]))
    for number, code in enumerate(text, 1):
        mark = "" if number not in counts else str(counts[number] or "-----")
        yield f"{mark:>5} {number:5}  {code}"

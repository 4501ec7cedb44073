# SPDX-License-Identifier: BSD-2-Clause
"""The end of a run as a terminal shows it, as a picture (SVG) that needs nothing from elsewhere."""

from __future__ import annotations

import io
import re
from itertools import islice

from rich.text import Text

from harness.report.closing import failure_lines, left_out_lines
from harness.report.terminal import GuardedConsole
from harness.results.record import RunRecord
from harness.results.summary import conclusion, verdicts_of
from harness.results.verdict import Look

_WIDTH = 112  # columns
_FAILURES = 8
_STYLES = {Look.BAD: "bold red", Look.GOOD: "green", Look.ODD: "yellow", Look.FAINT: ""}
_FETCHED = re.compile(r"@font-face\s*\{[^}]*\}\s*")  # fonts of another host


def run_svg(record: RunRecord) -> str:
    """Return the last lines of the run that left RECORD as a picture; the same for the same record."""
    console = GuardedConsole(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)

    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), no_wrap=True, overflow="ellipsis")

    line("$ dfly-harness run" + (" --defects" if any(each.defect for each in record.results) else ""), "dim")
    line(record.target, "bold")
    counted = Text()
    for verdict, count in verdicts_of(record).items():
        counted.append(f"{count} {verdict}  ", _STYLES[verdict.look])
    console.print(counted)
    failures = [text.replace("suites/regressions/", "").replace("suites/conformance/", "")
                for text in failure_lines(record.results)]  # fmt: skip
    for text in islice(failures, _FAILURES):
        line(text, "red")
    if len(failures) > _FAILURES:
        line(f"and {sum(each.verdict.is_failure for each in record.results) - _FAILURES} more")
    for text in left_out_lines(record.results):
        line(text)
    line(conclusion(record), "bold")
    picture = console.export_svg(title="dfly-harness", unique_id="run")
    return _FETCHED.sub("", picture)

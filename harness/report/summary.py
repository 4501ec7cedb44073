# SPDX-License-Identifier: BSD-2-Clause
"""A run's record in a few lines of Markdown, for the summary of a GitHub Actions step."""

from __future__ import annotations

from collections.abc import Iterator

from harness.results.record import RunRecord
from harness.results.summary import conclusion, verdicts_of
from harness.visible import visible

_SHOWN = 50


def run_markdown(record: RunRecord) -> str:
    """Return the summary of RECORD."""
    return visible("\n".join([*_lines(record), ""]))


def _lines(record: RunRecord) -> Iterator[str]:
    yield f"### {_cell(record.target)}"
    yield ""
    if not record.is_dragonfly:
        yield "**These results say nothing about DragonFly.**"
        yield ""
    yield f"**{conclusion(record)}** {record.seconds:.0f} s."
    yield ""
    if record.features:
        yield f"Kernel: {_cell(record.features)}"
        yield ""
    if record.trouble is not None:
        yield f"The run ended early: {_cell(str(record.trouble))}"
        yield ""
    yield "| verdict | tests |"
    yield "|---|---:|"
    for verdict, count in verdicts_of(record).items():
        yield f"| {verdict} | {count} |"
    yield ""
    against = [result for result in record.results if result.verdict.against_kernel]
    if against:
        yield "| against the kernel | verdict | cause |"
        yield "|---|---|---|"
        for result in against[:_SHOWN]:
            words = (result.reason.strip().splitlines() or [""])[-1]
            known = result.known_defect
            word = f"known defect: {result.verdict}" if known else str(result.verdict)
            cause = known or result.fingerprint or words
            yield f"| `{_cell(result.test.rpartition('/')[2])}` | {word} | {_cell(cause)[:200]} |"
        if len(against) > _SHOWN:
            yield f"| and {len(against) - _SHOWN} more | | |"
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ").replace("<", "&lt;")

"""A run's record in a few lines of Markdown, for the summary of a GitHub Actions step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.report.html import AGAINST, conclusion, counts, defect_of, load_record, verdict_of

_SHOWN = 50


def run_markdown(record: Path) -> str:
    """Return the summary of the record in file RECORD; raises UsageError when it is none."""
    return "\n".join([*_lines(record), ""])


def _lines(file: Path) -> Iterator[str]:
    record = load_record(file)
    yield f"### {_cell(str(record['target']))}"
    yield ""
    if not record.get("is_dragonfly", False):
        yield "**These results say nothing about DragonFly.**"
        yield ""
    yield f"**{conclusion(record)}** {record.get('seconds', 0):.0f} s."
    yield ""
    if features := str(record.get("features", "")):
        yield f"Kernel: {_cell(features)}"
        yield ""
    yield "| verdict | tests |"
    yield "|---|---:|"
    for verdict, count in counts(record).items():
        yield f"| {verdict} | {count} |"
    yield ""
    against = [result for result in record["results"] if verdict_of(result) in AGAINST]
    if against:
        yield "| against the kernel | verdict | cause |"
        yield "|---|---|---|"
        for result in against[:_SHOWN]:
            words = (str(result.get("reason", "")).strip().splitlines() or [""])[-1]
            cause = str(result.get("fingerprint", "")) or words
            name = str(result["test"]).rpartition("/")[2]
            verdict = f"known defect: {verdict_of(result)}" if defect_of(result) else verdict_of(result)
            yield f"| `{_cell(name)}` | {verdict} | {_cell(defect_of(result) or cause)[:200]} |"
        if len(against) > _SHOWN:
            yield f"| and {len(against) - _SHOWN} more | | |"
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ").replace("<", "&lt;")

# SPDX-License-Identifier: BSD-2-Clause
"""A run's record in a few lines of Markdown, for the summary of a GitHub Actions step."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.plain import Part, plain
from harness.results.changes import ChangeKind
from harness.results.record import RunRecord
from harness.results.summary import conclusion, not_again_words, verdicts_of
from harness.visible import visible

_SHOWN = 50


def run_markdown(record: RunRecord) -> str:
    """Return the summary of RECORD."""
    return visible("\n".join([*_lines(record), ""]))


def run_text(record: RunRecord) -> str:
    """Return the run as plain text for a mail: what it says of the kernel, and what has changed since the last run."""
    return plain(f"{record.kernel or record.target}: {conclusion(record)}", _parts(record))


def _parts(record: RunRecord) -> Iterator[Part]:
    about = [record.target]
    if not record.is_dragonfly:
        about.append("These results say nothing about DragonFly.")
    about += [f"Kernel: {record.features}."] if record.features else []
    counted = ", ".join(f"{count} {verdict}" for verdict, count in verdicts_of(record).items())
    about.append(f"{counted or 'No test has a result'}; {record.seconds:.0f} s, begun {record.started}.")
    if record.trouble is not None:
        about.append(f"The run ended early: {record.trouble}")
    if record.incomplete:
        about.append(f"Incomplete: {record.incomplete}. {len(record.not_run)} tests have no result.")
    about += [f"{said}."] if (said := not_again_words(record)) else []
    yield Part("Run", tuple(about))
    yield from _changed_parts(record)
    against = [result for result in record.results if result.verdict.against_kernel]
    lines = [f"{result.test}: {result.words}: {result.known_defect or result.cause}" for result in against[:_SHOWN]]
    more = [f"and {len(against) - _SHOWN} more"] if len(against) > _SHOWN else []
    yield Part("Against the kernel", lines=(*lines, *more))


def _changed_parts(record: RunRecord) -> Iterator[Part]:
    if record.since and not record.changes:
        yield Part("Since the last run", (f"No test came to anything else than when it ran last ({record.since}).",))
    for kind in ChangeKind:
        found = [change for change in record.changes if change.kind is kind]
        lines = [f"{each.test}: {each.now}; before: {each.before}, {each.when} on {each.kernel}" for each in found]
        yield Part(f"Since the last run: {kind} ({len(found)})", lines=tuple(lines[:_SHOWN]))


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
    if record.incomplete:
        yield f"**Incomplete: {record.incomplete}.** {len(record.not_run)} tests have no result."
        yield ""
    if said := not_again_words(record):
        yield f"{said}."
        yield ""
    yield from _changes(record)
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
            known = result.known_defect
            word = f"known defect: {result.words}" if known else result.words
            cause = known or result.cause
            yield f"| `{_cell(result.test.rpartition('/')[2])}` | {word} | {_cell(cause)[:200]} |"
        if len(against) > _SHOWN:
            yield f"| and {len(against) - _SHOWN} more | | |"
        yield ""


def _changes(record: RunRecord) -> Iterator[str]:
    if not record.since:
        return
    if not record.changes:
        yield f"No test came to anything else than when it ran last ({record.since})."
        yield ""
        return
    yield "| since the last run | test | now | before |"
    yield "|---|---|---|---|"
    for change in record.changes[:_SHOWN]:
        before = f"{change.before}, {change.when} on {change.kernel}"
        yield f"| {change.kind} | `{_cell(change.test.rpartition('/')[2])}` | {_cell(change.now)} | {_cell(before)} |"
    if len(record.changes) > _SHOWN:
        yield f"| and {len(record.changes) - _SHOWN} more | | | |"
    yield ""


def changes_lines(record: RunRecord) -> list[str]:
    """Return, for a terminal, what has changed since the tests of RECORD ran last."""
    if not record.since:
        return []
    if not record.changes:
        return [f"since the last run ({record.since}): nothing changed"]
    lines = [
        f"{change.kind}: {change.test} ({change.now}; {change.before} on {change.kernel}, {change.when})"
        for change in record.changes[:_SHOWN]
    ]
    more = len(record.changes) - len(lines)
    return ["since the last run:", *(f"    {line}" for line in lines), *([f"    and {more} more"] if more else [])]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ").replace("<", "&lt;")

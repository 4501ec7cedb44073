# SPDX-License-Identifier: BSD-2-Clause
"""The findings of an exploration as a page: each a table, a column for each operation, time going down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.explore.trial import Step, Trial
from harness.report.page import named, page, preformatted, shown


def findings_page(words: str, kernel: str, findings: Sequence[Sequence[Trial]], counted: Sequence[str]) -> str:
    """Return the HTML page of FINDINGS, those of one cause together, of the exploration WORDS on KERNEL."""
    return page(f"dfly-harness explore: {words}", _body(words, kernel, findings, counted))


def _body(words: str, kernel: str, findings: Sequence[Sequence[Trial]], counted: Sequence[str]) -> Iterator[str]:
    yield f"<h1>{shown(words)}</h1>"
    yield from (f"<p class='faint'>{shown(line)}</p>" for line in (kernel, *counted) if line)
    if not findings:
        yield "<p>No interleaving that was tried speaks against this kernel.</p>"
    for trial, *others in findings:
        yield f"<h2>{shown(trial.verdict)}: {named(trial.stated)}</h2>"
        yield _table(trial)
        if others:
            points = ", ".join(" and ".join(other.points) for other in others)
            yield f"<p>The same at {len(others)} other points: {named(points)}</p>"
        if trial.said:
            yield preformatted(trial.said)


def _table(trial: Trial) -> str:
    """Return what happened in TRIAL as a table, one row for each step."""
    head = "".join(f"<th>{shown(name)}</th>" for name in trial.operations)
    rows = "".join(
        f"<tr><td>{step.seconds:.3f} s</td>"
        + "".join(f"<td>{_cell(step) if step.column == column else ''}</td>" for column in range(len(trial.operations)))
        + "</tr>"
        for step in trial.steps
    )
    return f"<table><tr><th></th>{head}</tr>{rows}</table>"


def _cell(step: Step) -> str:
    frames = "".join(f"<br><code>{named(frame)}</code>" for frame in step.where)
    return f"{named(step.what)}{frames}"

# SPDX-License-Identifier: BSD-2-Clause
"""A run as TAP version 13, for `prove`, Jenkins and whatever else reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from harness.report.told import Outcome, Told, end_of, one_line, tell
from harness.results.record import RunRecord

_MOST = 100  # lines of a test's log, the last ones


def run_tap(record: RunRecord) -> str:
    """Return RECORD as TAP; a run that did not come to its end bails out, whatever its tests came to."""
    return "\n".join([*_lines(record), ""])


def _lines(record: RunRecord) -> Iterator[str]:
    told = list(tell(record))
    yield "TAP version 13"
    yield f"1..{len(told)}"
    yield f"# {one_line(record.target)}"
    if not record.is_dragonfly:
        yield "# These results say nothing about DragonFly."
    for number, each in enumerate(told, 1):
        fine = each.outcome in {Outcome.PASSED, Outcome.SKIPPED}
        yield f"{'ok' if fine else 'not ok'} {number} - {_escaped(each.test)}{_directive(each)}"
        if not fine:
            yield from _diagnosis(each)
    if said := end_of(record):
        yield f"Bail out! {said}"


def _directive(each: Told) -> str:
    words = {Outcome.SKIPPED: "SKIP", Outcome.EXPECTED: "TODO"}.get(each.outcome)
    return f" # {words} {_escaped(each.why)}" if words else ""


def _escaped(text: str) -> str:
    """Return TEXT as a description: a number sign begins a directive, to some readers also an escaped one."""
    return one_line(text).replace("#", r"\x23")


def _diagnosis(each: Told) -> Iterator[str]:
    """Yield YAML that Perl's reader takes, too, which knows a part of it.

    Text is quoted as in JSON; a log begins each line with a bar, as that reader ends a block at an empty line.
    """
    file, line = each.at
    yield "  ---"
    yield f"  verdict: {_quoted(str(each.result.verdict))}"
    yield f"  message: {_quoted(each.why)}"
    yield f"  at: {_quoted(f'{file}:{line}' if line else file)}"
    yield f"  seconds: {each.result.seconds:g}"
    if log := each.log:
        yield "  log: |"
        yield from (f"    | {text}" for text in log[-_MOST:])
    yield "  ..."


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

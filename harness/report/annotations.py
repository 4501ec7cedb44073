# SPDX-License-Identifier: BSD-2-Clause
"""A run as annotations of GitHub Actions: what went wrong, shown at the test's line in the pull request."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from harness.config import share
from harness.report.told import Outcome, Told, end_of, one_line, tell
from harness.report.words import sentence
from harness.results.record import RunRecord

#: GitHub shows so many errors, and so many warnings, of a step, and drops the others without a word.
SHOWN = 10


def run_annotations(record: RunRecord, workspace: Path | None = None) -> str:
    """Return the workflow commands for RECORD, the worst first.

    What lies outside WORKSPACE, the checkout ($GITHUB_WORKSPACE, else here), has no place that GitHub could show.
    """
    given = os.environ.get("GITHUB_WORKSPACE")
    top = (workspace or Path(given or ".")).resolve()
    said = end_of(record)
    told = sorted(tell(record), key=lambda each: -each.result.verdict.severity)
    known = [each for each in told if each.outcome is Outcome.EXPECTED or each.result.known_defect]
    # What never ran is told once, not once for each test.
    wrong = [each for each in told if each.outcome in {Outcome.FAILED, Outcome.BROKEN} and each not in known]
    lost = set(record.not_run)
    wrong = [each for each in wrong if each.test not in lost]
    lines = [_command("error", said, title="dfly-harness")] if said else []
    room = SHOWN - len(lines)
    lines += (_annotation("error", each, record, top) for each in islice(wrong, room))
    lines += (_annotation("warning", each, record, top) for each in islice(known, SHOWN))
    lines += _rest(len(wrong) - room, len(known) - SHOWN, len(lost))
    return "".join(f"{line}\n" for line in lines)


def _rest(wrong: int, known: int, lost: int) -> Iterator[str]:
    counts = {"more went wrong": wrong, "more for a known defect": known, "without a result": lost}
    if told := ", ".join(f"{count} {words}" for words, count in counts.items() if count > 0):
        yield _command("notice", f"{told}: see the record", title="dfly-harness")


def _annotation(kind: str, each: Told, record: RunRecord, top: Path) -> str:
    file, line = each.at
    place: dict[str, object] = {}
    if (found := _in_checkout(file, record, top)) is not None:
        place = {"file": found, **({"line": line} if line else {})}
    text = f"{each.why}\n{one_line(sentence(each.result))}\n{one_line(record.target)}"
    return _command(kind, text, **place, title=f"{each.result.verdict}: {each.test.rpartition('/')[2]}")


def _in_checkout(file: str, record: RunRecord, top: Path) -> str | None:
    """Return where FILE, as a test's name says it, is below TOP; None where it is not.

    A record may come from another machine, on which the folder of the tests was another one.
    """
    for folder in (Path(record.root) if record.root else share(), top):
        place = (folder / file).resolve()
        if place.is_file() and place.is_relative_to(top):
            return place.relative_to(top).as_posix()
    return None


def _command(kind: str, text: str, **properties: object) -> str:
    given = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    return f"::{kind} {given}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(one_line(text)).replace(":", "%3A").replace(",", "%2C")

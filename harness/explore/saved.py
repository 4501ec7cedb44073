# SPDX-License-Identifier: BSD-2-Clause
"""A finding for people, and as a test that any kernel can be held to."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.explore.candidates import points_of_line
from harness.explore.operations import find_operation
from harness.explore.trial import Stage, Trial, attempt_on
from harness.processes import Hub
from harness.processes.session import Session
from harness.races.points import address_of
from harness.races.schedule import Schedule

_WIDTH = 58

_TEST = '''# SPDX-License-Identifier: BSD-2-Clause
"""Found by `dfly-harness explore {first} {second}`: {verdict}."""

import pytest

from harness.explore.saved import expect_serial


@pytest.mark.needs_kernel
@pytest.mark.cpus(4)
def test_{name}(fresh_guest):
    """{behaviour}"""
    expect_serial(
        fresh_guest,
        {first!r},
        {second!r},
        at={point!r},
        line={line!r},
        found_on={kernel!r},
    )
'''


def two_columns(trial: Trial, also_at: Sequence[str] = ()) -> str:
    """Return TRIAL as two columns: what each of the operations does, in the order in which it happens.

    ALSO_AT are other points at which the same comes of it.
    """
    where = f"{trial.point}" + (f" ({trial.place})" if trial.place else "")
    rows = [
        (f"{trial.first}: begins", ""),
        (f"stands at {where}", ""),
        ("", f"{trial.second}: " + ("waits for what the other has" if trial.waited else "begins and comes to its end")),
        ("goes on", ""),
    ]
    lines = [f"{trial.verdict}: {trial.first} held, {trial.second} meanwhile; seen {trial.seen} times"]
    for left, right in rows:
        parts = textwrap.wrap(left, _WIDTH) or [""]
        lines += [f"  {part:<{_WIDTH}} | {right if number == 0 else ''}".rstrip() for number, part in enumerate(parts)]
    if also_at:
        lines.append(f"  the same at {len(also_at)} other points: {', '.join(also_at[:8])}")
    lines += [f"  {line}" for line in trial.said.splitlines()[:12]]
    return "\n".join(lines)


def save_test(trial: Trial, folder: Path) -> Path:
    """Write a test that fails where TRIAL's finding is to FOLDER; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "_", f"{trial.first}_at_{trial.point}_and_{trial.second}").strip("_")
    place = trial.place or trial.point
    behaviour = f"What {trial.first} and {trial.second} come to is what some order of the two does ({place})."
    text = _TEST.format(
        first=trial.first,
        second=trial.second,
        verdict=trial.verdict.value,
        name=name,
        behaviour=behaviour,
        point=trial.point,
        line=trial.line,
        kernel=trial.kernel,
    )
    file = folder / f"test_{name}.py"
    file.write_text(text)
    return file


def expect_serial(session: Session, first: str, second: str, *, at: str, line: str = "", found_on: str = "") -> None:
    """Hold operation FIRST at the instruction AT while SECOND is made; for tests.

    On another kernel than FOUND_ON, whose code differs, it is held at each instruction of LINE (`exit1:+35`) that may
    touch shared memory.  A kernel that does not pass the point does not have the race; one that has no such line, or
    whose lines are not known, makes the test not applicable.  Raises AssertionError when the results are none of a
    serial order or something is damaged, and what the guest's death raises.
    """
    hub: Hub = session.hub
    with Schedule(session.guest, hub, hub.spawn()) as schedule:
        stage = Stage(session, schedule)
        operations = find_operation(first), find_operation(second)
        try:
            stage.demand(*operations)
            elsewhere = line and found_on and stage.identity != found_on
            points = points_of_line(schedule.kernel, line) if elsewhere else [at]
            address_of(schedule.kernel, points[0])
        except UsageError as error:
            pytest.skip(f"not applicable: {error}")
        attempt_on(stage, *operations, points)

# SPDX-License-Identifier: BSD-2-Clause
"""A finding for people, and as a test that any kernel can be held to."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.explore.candidates import points_of_line
from harness.explore.operations import find_operation
from harness.explore.stage import Stage, attempt_on, cpus_for
from harness.explore.trial import Trial, located
from harness.processes import Hub
from harness.processes.session import Session
from harness.races.points import address_of
from harness.races.schedule import Schedule

_WIDTH = 116  # of all columns together

_TEST = '''# SPDX-License-Identifier: BSD-2-Clause
"""Found by `dfly-harness explore {words}`: {verdict}."""

import pytest

from harness.explore.saved import expect_serial


@pytest.mark.needs_kernel
@pytest.mark.cpus({cpus})
def test_{name}(fresh_guest):
    """{behaviour}"""
    expect_serial(
        fresh_guest,
{arguments}
    )
'''


def columns(trial: Trial, also_at: Sequence[str] = ()) -> str:
    """Return TRIAL as columns: what each of the operations does, in the order in which it happens.

    ALSO_AT are other points at which the same comes of it.
    """
    names = trial.operations
    width = _WIDTH // len(names)
    lines = [f"{trial.verdict}: {trial.stated}; seen {trial.seen} times"]
    for number, text in _rows(trial):
        for part in textwrap.wrap(text, width) or [""]:
            cells = [part if number == column else "" for column in range(len(names))]
            lines.append("  " + " | ".join(f"{cell:<{width}}" for cell in cells).rstrip())
    if also_at:
        lines.append(f"  the same at {len(also_at)} other points: {', '.join(also_at[:8])}")
    lines += [f"  {line}" for line in trial.said.splitlines()[:12]]
    return "\n".join(lines)


def _rows(trial: Trial) -> Iterator[tuple[int, str]]:
    """Yield what happens, each with the number of the operation that does it."""
    if trial.steps:
        for step in trial.steps:
            caller = f" in {step.where[1]}" if len(step.where) > 1 else ""
            yield step.column, f"{step.what}{caller}"
        return
    places = (trial.place, trial.then_place)
    for number, (name, point) in enumerate(zip(trial.operations, trial.points, strict=False)):
        yield number, f"{name}: begins"
        yield number, f"stands at {located(point, places[number])}"
    for number, name in list(enumerate(trial.operations))[len(trial.points) :]:
        end = "waits for what another has, or comes to its end" if trial.waited else "begins and comes to its end"
        yield number, f"{name}: {end}"
    for number in range(len(trial.points)):
        yield number, "goes on"


def save_test(trial: Trial, folder: Path) -> Path:
    """Write a test that fails where TRIAL's finding is to FOLDER; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    held = list(zip(trial.operations, trial.points, strict=False))
    name = "_and_".join([*(f"{name}_at_{point}" for name, point in held), *trial.operations[len(held) :]])
    name = re.sub(r"\W+", "_", name).strip("_")
    place = ", ".join(filter(None, [trial.place or trial.point, trial.then_place or trial.then])) or trial.where
    given = {"at": trial.point, "line": trial.line, "then": trial.then, "then_line": trial.then_line}
    given["found_on"] = trial.kernel
    arguments = [*map(repr, trial.operations), *(f"{key}={value!r}" for key, value in given.items() if value)]
    text = _TEST.format(
        words=" ".join(trial.operations) + (f" --bound {len(held)}" if len(held) > 1 else ""),
        verdict=trial.verdict.value,
        cpus=cpus_for(len(trial.operations)),
        name=name,
        behaviour=f"What {_listed(trial.operations)} come to is what some order of them does ({place}).",
        arguments=textwrap.indent(",\n".join(arguments) + ",", " " * 8),
    )
    file = folder / f"test_{name}.py"
    file.write_text(text)
    return file


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def expect_serial(
    session: Session,
    *operations: str,
    at: str = "",
    line: str = "",
    then: str = "",
    then_line: str = "",
    found_on: str = "",
) -> None:
    """Hold the first of OPERATIONS at the instruction AT while the others are made; for tests.

    Before that they are made one behind the other, in every order; without AT that is all. With THEN the second one
    is held there while the first goes on. On another kernel than FOUND_ON, whose code differs, they are held at each
    instruction of LINE (`exit1:+35`), and of THEN_LINE, that may touch shared memory. A kernel that does not pass the
    points does not have the race; one that has no such line, or whose lines are not known, makes the test not
    applicable. Raises AssertionError when the results are none of a serial order or something is damaged, and what
    the guest's death raises.
    """
    hub: Hub = session.hub
    with Schedule(session.guest, hub, hub.spawn()) as schedule:
        stage = Stage(session, schedule)
        made = [find_operation(each) for each in operations]

        def places(point: str, its_line: str) -> list[str]:
            elsewhere = found_on and stage.identity != found_on
            if elsewhere and not its_line:
                raise UsageError(f"of which line {point} is on {found_on} is not known, and this is another kernel")
            found = points_of_line(schedule.kernel, its_line) if elsewhere else [point]
            address_of(schedule.kernel, found[0])
            return found

        try:
            stage.demand(*made)
            where = [places(*each) for each in ((at, line), (then, then_line)) if each[0]]
            each_at = list(product(*where)) if where else []
        except UsageError as error:
            pytest.skip(f"not applicable: {error}")
        attempt_on(stage, made, each_at)

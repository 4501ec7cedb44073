# SPDX-License-Identifier: BSD-2-Clause
"""What bisect says, judged in histories whose culprit is known, by failures that follow no model of its own.

`dfly-harness calibrate bisect --source REPO --keep` makes all tables, and with them harness/bisect/calibration.json,
which bisect's pages quote.
"""

from __future__ import annotations

import random
import resource
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.bisect.decision import Outcome
from harness.bisect.history import History
from harness.bisect.inquiry import REVERT, Ends, Inquiry, Step
from harness.bisect.rates import Rates
from harness.calibration.pool import Pool, Row
from harness.calibration.tables import Progress, Table, exceeds, share
from harness.calibration.worlds import MOST_RUNS, SIZE, Found, Kind, Shape, line, parents_in, pieces

KINDS = (
    Kind("always", 1.0),
    Kind("50%", 0.5),
    Kind("30%", 0.3, times=100),
    Kind("10%", 0.1, times=50),
    Kind("3%", 0.03, times=16),
    Kind("always, 0.1% false alarms", 1.0, 0.001),
    Kind("always, 1% false alarms", 1.0, 0.01),
    Kind("50%, 0.1% false alarms", 0.5, 0.001, times=100),
    Kind("50%, 1% false alarms", 0.5, 0.01, times=100),
    Kind("10%, 0.1% false alarms", 0.1, 0.001, times=40),
    Kind("10%, 1% false alarms", 0.1, 0.01, times=24),
    Kind("by commit, Beta(3, 7)", (3.0, 7.0), times=100),
    Kind("by commit, Beta(0.9, 2.1)", (0.9, 2.1), times=80),
    Kind("50% to 10% along the history", 0.5, to=0.1, times=100),
    Kind("50%, less by 0.3% of it each run", 0.5, later=-0.003, times=100),
)
_SEVERAL = (Kind("always", 1.0, times=100), Kind("50%", 0.5, times=50))
_CAUSES = {"two": "two causes", "mended": "broken, mended, broken again"}
# Of the searches on a line, so many are made on each other kind of history.
_ELSEWHERE = 0.4
_QUICK = ("always", "50%", "always, 1% false alarms")


_MINUTES = 45.0


def tables(
    progress: Progress, *, quick: bool = False, source: Path | None = None, minutes: float = _MINUTES
) -> Iterator[Table]:
    """Yield the tables; QUICK makes small ones, SOURCE is a repository whose history is used, too.

    After MINUTES no more searches are begun: the tables then have of all rows the same part of what they should have.
    """
    places: dict[str, Sequence[Shape]] = {
        f"{SIZE} commits in a line": [line(SIZE)],
        f"{SIZE} commits, merges all the time": [],
    }
    if source is not None:
        found = pieces(source, random.Random(1))  # noqa: S311
        merges = statistics.mean(sum(len(each) > 1 for each in shape) for shape in found)
        size = statistics.mean(map(len, found))
        places[f"{len(found)} pieces of the repository, {size:.0f} commits, {merges:.0f} merges each"] = found
    levels = (0.95,) if quick else (0.95, 0.99)
    kinds = [kind for kind in KINDS if kind.name in _QUICK] if quick else KINDS
    claims, several = [], []
    for level in levels:
        for place in places:
            part = 1.0 if len(places[place]) == 1 else _ELSEWHERE
            claims += [Row(place, level, kind, 20 if quick else round(kind.times * part)) for kind in kinds]
            several += [
                Row(place, level, kind, 20 if quick else round(kind.times * part), causes)
                for causes in _CAUSES
                for kind in _SEVERAL
            ]
    with Pool(places) as pool:
        made = pool.searches([*claims, *several], 60 * minutes, progress)
    for level in levels:
        for place in places:
            yield _claims(place, level, {row: made[row] for row in claims if (row.place, row.level) == (place, level)})
        for place in places:
            yield _several(
                place, level, {row: made[row] for row in several if (row.place, row.level) == (place, level)}
            )
    if source is not None:
        progress("the whole history")
        yield _whole(source)


def _claims(place: str, level: float, made: Mapping[Row, Sequence[Found]]) -> Table:
    rows, misses, figures = [], [], []
    for row, searches in made.items():
        claims = [each for each in searches if not each.end]
        wrong = sum(not each.is_right for each in claims)
        runs = [each.runs for each in searches]
        ends = Counter(each.end for each in searches if each.end)
        rows.append(
            (
                row.kind.name,
                f"{wrong} of {len(claims)}",
                share(wrong, len(claims)) if claims else "-",
                ", ".join(f"{count} {end}" for end, count in ends.items()) or "-",
                f"{statistics.median(runs):.0f}" if runs else "-",
                f"{statistics.fmean(runs):.1f}" if runs else "-",
            )
        )
        if claims:
            of_row = {"history": place, "failures": row.kind.name, "level": level}
            figures.append({**of_row, "claims": len(claims), "wrong": wrong, "runs": statistics.median(runs)})
        if exceeds(wrong, len(claims), 1 - level):
            misses.append(f"{row.kind.name}: {share(wrong, len(claims))} wrong")
    return Table(
        f"bisect at {level:.0%}, {place}",
        f"at most {1 - level:.0%} of the claims wrong",
        ("failure", "claims wrong", "interval at 95%", "no claim", "median runs", "mean"),
        tuple(rows),
        tuple(misses),
        tuple(figures),
    )


def quoted(tables_: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what bisect's pages quote of TABLES_: `calibrate bisect --keep` writes it to calibration.json there."""
    return {"rows": [row for table in tables_ for row in table["figures"]]}


def _several(place: str, level: float, made: Mapping[Row, Sequence[Found]]) -> Table:
    rows, misses = [], []
    for row, searches in made.items():
        claims = [each for each in searches if not each.end]
        neither = sum(not each.is_right for each in claims)
        said = sum(len(each.named) > 1 or each.undoing_helps is False for each in claims if each.is_right)
        what = f"{_CAUSES[row.causes]}, {row.kind.name}"
        rows.append(
            (
                what,
                f"{neither} of {len(claims)}",
                share(neither, len(claims)) if claims else "-",
                str(said),
                f"{statistics.median(each.runs for each in searches):.0f}" if searches else "-",
            )
        )
        if exceeds(neither, len(claims), 1 - level):
            misses.append(f"{what}: {share(neither, len(claims))} name no cause")
    return Table(
        f"bisect at {level:.0%} where more than one commit changed something, {place}",
        f"at most {1 - level:.0%} of the claims name none of them",
        ("history", "claims that name none", "interval at 95%", "say that there is more", "median runs"),
        tuple(rows),
        tuple(misses),
    )


def _whole(source: Path) -> Table:
    parents = parents_in(source)
    number = {commit: place for place, commit in enumerate(parents)}
    shape = tuple(tuple(number[each] for each in before if each in number) for before in parents.values())
    del parents
    names = [f"c{place:06}" for place in range(len(shape))]
    history = History(names, {names[n]: [names[p] for p in parents] for n, parents in enumerate(shape)})
    rows, misses = [], []
    for name, rate, culprit in (("50%", 0.5, len(shape) // 3), ("always", 1.0, len(shape) - 900)):
        inquiry = Inquiry(history, Rates.of_failure(), 0.95, Ends(("good",), names[-1]))
        alone, together = _decisions(inquiry, rate, culprit)
        right = inquiry.is_decided and inquiry.conclude().commits == (names[culprit],)
        misses += [] if right else [f"{name}: the culprit was not named"]
        misses += [f"{name}: {took:.1f} s for a decision" for took in (max(alone), max(together)) if took >= 2]
        rows += [
            (f"{name}: runs until decided", str(len(alone))),
            (f"{name}: a decision", f"{statistics.median(alone):.2f} s of CPU, at most {max(alone):.2f} s"),
            (f"{name}: ... while up to seven others are under way", f"at most {max(together):.2f} s of CPU"),
        ]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    misses += [] if memory < 2 else [f"{memory:.1f} GB of memory"]
    return Table(
        f"The whole history of the repository, {len(shape)} commits, at 95%",
        "under 2 s a decision, under 2 GB",
        ("what", "figure"),
        (*rows, ("memory of the process", f"{memory:.2f} GB")),
        tuple(misses),
    )


_RUN_SECONDS, _BUILD_SECONDS, _SIDE_BY_SIDE = 10.0, 300.0, 8


def _decisions(inquiry: Inquiry, rate: float, culprit: int) -> tuple[list[float], list[float]]:
    """Let INQUIRY search; return the CPU seconds of each decision, and of those for machines side by side."""
    history, chance = inquiry.history, random.Random(2)  # noqa: S311
    seconds, build = [_RUN_SECONDS] * len(history), [_BUILD_SECONDS] * len(history)
    alone: list[float] = []
    together: list[float] = [0.0]
    while len(alone) < MOST_RUNS:
        under_way: list[Step] = []
        while len(under_way) < (_SIDE_BY_SIDE if len(alone) % 10 == 9 else 1):
            began = time.process_time()
            step = inquiry.following(seconds, build, under_way)
            (together if under_way else alone).append(time.process_time() - began)
            if step is None:
                break
            under_way.append(step)
        if not under_way:
            break
        step = under_way[0]
        number = history.number.get(step.commit)
        has = number is not None and step.role != REVERT and bool(history.ancestors(number)[culprit])
        failed = has and chance.random() < rate
        inquiry.learn(step.commit, Outcome.BAD if failed else Outcome.GOOD, None, step.role, step.without or "")
        if number is not None:
            build[number] = 0.0
    return alone, together

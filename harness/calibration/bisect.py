# SPDX-License-Identifier: BSD-2-Clause
"""What bisect says, judged in histories whose culprit is known, by failures that follow no model of its own.

The way of the search and of the proof is the product's; what its runs come to is decided here.  Shapes of histories
are lines, random graphs, and, where a repository is given, pieces of its history with many merges.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.bisect.decision import Outcome
from harness.bisect.history import History
from harness.bisect.inquiry import REVERT, Ends, Inquiry, Step
from harness.bisect.rates import Rates
from harness.calibration.tables import Progress, Table, exceeds, share
from harness.errors import UsageError

_LINE = 100  # commits
_MOST_RUNS = 6000
_PIECES = 24
_GIT_SECONDS = 600.0
#: Parents of each commit by number; the first commit has none, the last one inherits all.
Shape = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Kind:
    """What is wrong with the kernels: `rate` is a share of runs, or (a, b) of a Beta distribution drawn per commit.

    With `to` the rate goes from `rate` at the culprit to that at the bad end; with `later` it changes by that much per
    run made.  `alarms` is the share of runs that fail with no cause.  `times` is how many searches a full table makes.
    """

    name: str
    rate: float | tuple[float, float]
    alarms: float = 0.0
    to: float | None = None
    later: float = 0.0
    times: int = 300


KINDS = (
    Kind("always", 1.0),
    Kind("50%", 0.5),
    Kind("30%", 0.3),
    Kind("10%", 0.1, times=100),
    Kind("3%", 0.03, times=40),
    Kind("always, 1% false alarms", 1.0, 0.01),
    Kind("50%, 1% false alarms", 0.5, 0.01),
    Kind("10%, 0.1% false alarms", 0.1, 0.001, times=100),
    Kind("10%, 1% false alarms", 0.1, 0.01, times=100),
    Kind("by commit, Beta(3, 7)", (3.0, 7.0)),
    Kind("by commit, Beta(0.9, 2.1)", (0.9, 2.1)),
    Kind("50% to 10% along the history", 0.5, to=0.1),
    Kind("50%, less by 0.3% of it each run", 0.5, later=-0.003),
)
_ON_GRAPHS = ("always", "50%", "10%", "always, 1% false alarms", "by commit, Beta(3, 7)")
_QUICK = ("always", "50%", "always, 1% false alarms")


class World:
    """Kernels with `causes`; a mended cause is (by which commit it came, by which it went)."""

    def __init__(self, shape: Shape, kind: Kind, chance: random.Random) -> None:
        self.shape, self.kind, self.chance = shape, kind, chance
        self.has: list[frozenset[int]] = []
        for number, parents in enumerate(shape):
            self.has.append(frozenset({number}).union(*(self.has[parent] for parent in parents)))
        self.causes: list[tuple[int, int | None]] = [(chance.randrange(len(shape)), None)]
        self.made = 0
        self._drawn: dict[tuple[int, int], float] = {}

    def run(self, number: int | None, without: int | None = None) -> bool:
        """Tell whether a run of kernel NUMBER, None being the good end, fails."""
        self.made += 1
        has = self.has[number] if number is not None else frozenset()
        for came, went in self.causes:
            is_there = came in has and came != without and went not in has
            if is_there and self.chance.random() < self._rate(number or 0, came):
                return True
        return self.chance.random() < self.kind.alarms

    def _rate(self, number: int, came: int) -> float:
        kind = self.kind
        if isinstance(kind.rate, tuple):
            return self._drawn.setdefault((number, came), self.chance.betavariate(*kind.rate))
        rate = kind.rate
        if kind.to is not None:
            rate += (kind.to - rate) * (number - came) / max(1, len(self.shape) - 1 - came)
        return rate * (1 + kind.later) ** self.made


@dataclass(frozen=True)
class Found:
    """What a search came to: the commits it named, "" as `end` where it was decided, and the `runs` it took."""

    end: str
    named: tuple[int, ...]
    undoing_helps: bool | None
    runs: int
    causes: tuple[tuple[int, int | None], ...]

    @property
    def is_right(self) -> bool:
        """Whether one of the commits named changed something."""
        real = {number for cause in self.causes for number in cause if number is not None}
        return bool(real.intersection(self.named))


def search(world: World, level: float) -> Found:
    """Search WORLD until something can be claimed at LEVEL."""
    size = len(world.shape)
    names = [f"c{number:05}" for number in range(size)]
    history = History(names, {names[n]: [names[p] for p in parents] for n, parents in enumerate(world.shape)})
    inquiry = Inquiry(history, Rates.of_failure(), level, Ends(("good",), names[-1]))
    seconds = [1.0] * size
    end = "undecided"
    while world.made < _MOST_RUNS:
        step: Step | None = inquiry.following(seconds)
        if step is None:
            break
        without = history.number[step.without] if step.role == REVERT and step.without is not None else None
        failed = world.run(history.number.get(step.commit), without)
        inquiry.learn(step.commit, Outcome.BAD if failed else Outcome.GOOD, None, step.role, step.without or "")
        if inquiry.is_older or inquiry.is_unseen:
            break
    named: tuple[int, ...] = ()
    helps = None
    if inquiry.is_older:
        end = "older"
    elif inquiry.is_decided:
        end, commits = "", inquiry.conclude().commits
        named = tuple(history.number[commit] for commit in commits)
        helps = inquiry.revert_says(commits[0]) if len(commits) == 1 else None
    return Found(end, named, helps, world.made, tuple(world.causes))


# Shapes


def line(size: int) -> Shape:
    """Return a history of SIZE commits, one after the other."""
    return ((), *((number,) for number in range(size - 1)))


def graph(chance: random.Random, size: int = _LINE) -> Shape:
    """Return a history in which branches of some commits are merged all the time."""
    shape: list[tuple[int, ...]] = [()]
    heads = [0]
    while len(shape) < size - 1:
        number = len(shape)
        if len(heads) > 1 and chance.random() < 0.35:
            one, other = chance.sample(heads, 2)
            heads = [head for head in heads if head not in {one, other}]
            shape.append(tuple(sorted((one, other))))
        elif chance.random() < 0.3:
            shape.append((chance.randrange(max(0, number - 15), number),))
        else:
            head = chance.choice(heads)
            heads.remove(head)
            shape.append((head,))
        heads.append(number)
    return (*shape, tuple(sorted(set(range(len(shape))) - {parent for parents in shape for parent in parents})))


def pieces(source: Path, chance: random.Random) -> list[Shape]:
    """Return pieces of the history in the repository SOURCE: what lies between a merge and a commit long before it."""
    parents = _parents(source)
    merges = [commit for commit, before in parents.items() if len(before) > 1]
    found: list[Shape] = []
    for merge in chance.sample(merges, len(merges)):
        old = merge
        for _ in range(60):
            old = parents[old][0] if parents.get(old) else old
        inside = _between(parents, old, merge)
        if 50 <= len(inside) <= 300 and sum(len(parents[commit]) > 1 for commit in inside) >= 4:
            order = {commit: number for number, commit in enumerate(commit for commit in parents if commit in inside)}
            found.append(tuple(tuple(order[each] for each in parents[commit] if each in order) for commit in order))
        if len(found) == _PIECES:
            break
    return found


def _parents(source: Path) -> dict[str, tuple[str, ...]]:
    """Return the parents of each commit of SOURCE's branch master, or of the one checked out, parents first."""
    for tip in ("master", "HEAD"):
        argv = ["git", "-C", str(source), "rev-list", "--topo-order", "--reverse", "--parents", tip, "--"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=_GIT_SECONDS)
        if done.returncode == 0:
            return {row.split()[0]: tuple(row.split()[1:]) for row in done.stdout.splitlines()}
    raise UsageError(f"{source} is no git repository: {done.stderr.strip().partition(chr(10))[0]}")


def _between(parents: dict[str, tuple[str, ...]], old: str, new: str) -> set[str]:
    def reached(start: str) -> set[str]:
        seen, left = {start}, [start]
        while left:
            for each in parents.get(left.pop(), ()):
                if each not in seen:
                    seen.add(each)
                    left.append(each)
        return seen

    return reached(new) - reached(old)


# Tables


@dataclass(frozen=True)
class _Task:
    kind: Kind
    shapes: tuple[Shape, ...]
    level: float
    causes: str
    seed: int


def _one(task: _Task) -> Found:
    chance = random.Random(f"{task.kind.name} {task.causes} {task.seed}")  # noqa: S311  (repeatable, not secret)
    shape = chance.choice(task.shapes) if task.shapes else graph(chance)
    world = World(shape, task.kind, chance)
    last = len(shape) - 1
    if task.causes == "two":
        world.causes = [(number, None) for number in sorted(chance.sample(range(last), 2))]
    elif task.causes == "mended":
        came, went, again = sorted(chance.sample(range(last), 3))
        world.causes = [(came, went), (again, None)]
    return search(world, task.level)


class _Pool:
    """Searches on all CPUs."""

    def __init__(self, *, quick: bool) -> None:
        self._quick = quick
        # Small tables are slower on several threads.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        count = os.cpu_count() or 1
        self._pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
        # Started here: the script that runs the command need not be one that can be imported by its processes.
        script = vars(sys.modules["__main__"])
        file = script.pop("__file__", None)
        try:
            for started in [self._pool.submit(os.getpid) for _ in range(count)]:
                started.result()
        finally:
            if file is not None:
                script["__file__"] = file

    def searches(self, kind: Kind, shapes: Sequence[Shape], level: float, causes: str = "one") -> list[Found]:
        times = 20 if self._quick else kind.times
        tasks = [_Task(kind, tuple(shapes), level, causes, seed) for seed in range(times)]
        return list(self._pool.map(_one, tasks, chunksize=max(1, times // 40)))

    def close(self) -> None:
        self._pool.shutdown()


def tables(progress: Progress, *, quick: bool = False, source: Path | None = None) -> Iterator[Table]:
    """Yield the tables as they come; QUICK makes small ones, SOURCE is a repository whose history is used, too."""
    pool = _Pool(quick=quick)
    places: list[tuple[str, Sequence[Shape]]] = [
        (f"{_LINE} commits in a line", [line(_LINE)]),
        (f"{_LINE} commits, merges all the time", []),
    ]
    if source is not None:
        found = pieces(source, random.Random(1))  # noqa: S311
        merges = statistics.mean(sum(len(each) > 1 for each in shape) for shape in found)
        size = statistics.mean(map(len, found))
        places.append((f"{len(found)} pieces of the repository, {size:.0f} commits, {merges:.0f} merges each", found))
    try:
        for level in (0.95,) if quick else (0.95, 0.99):
            for number, (place, shapes) in enumerate(places):
                chosen = _QUICK if quick else [kind.name for kind in KINDS] if not number else _ON_GRAPHS
                kinds = [kind for kind in KINDS if kind.name in chosen]
                yield _claims(pool, place, shapes, level, kinds, progress)
            yield _several(pool, level, progress)
    finally:
        pool.close()
    if source is not None:
        progress("the whole history")
        yield _whole(source)


def _claims(
    pool: _Pool, place: str, shapes: Sequence[Shape], level: float, kinds: Sequence[Kind], progress: Progress
) -> Table:
    rows, misses = [], []
    for kind in kinds:
        progress(f"{place}, {level:.0%}: {kind.name}")
        made = pool.searches(kind, shapes, level)
        claims = [each for each in made if not each.end]
        wrong = sum(not each.is_right for each in claims)
        runs = statistics.median(each.runs for each in made)
        ends = Counter(each.end for each in made if each.end)
        rows.append(
            (
                kind.name,
                str(len(claims)),
                share(wrong, len(claims)) if claims else "-",
                ", ".join(f"{count} {end}" for end, count in ends.items()) or "-",
                f"{runs:.0f}",
            )
        )
        if claims and exceeds(wrong, len(claims), 1 - level):
            misses.append(f"{kind.name}: {share(wrong, len(claims))} wrong")
    return Table(
        f"bisect at {level:.0%}, {place}",
        f"at most {1 - level:.0%} of the claims wrong",
        ("failure", "claims", "wrong", "else", "median runs"),
        tuple(rows),
        tuple(misses),
    )


def _several(pool: _Pool, level: float, progress: Progress) -> Table:
    rows, misses = [], []
    names = {"two": "two causes", "mended": "broken, mended, broken again"}
    for causes, what in names.items():
        for kind in (Kind("always", 1.0, times=200), Kind("50%", 0.5, times=100)):
            progress(f"{what}, {level:.0%}: {kind.name}")
            made = pool.searches(kind, [line(_LINE)], level, causes)
            claims = [each for each in made if not each.end]
            neither = sum(not each.is_right for each in claims)
            said = sum(len(each.named) > 1 or each.undoing_helps is False for each in claims if each.is_right)
            rows.append(
                (
                    f"{what}, {kind.name}",
                    str(len(claims)),
                    share(neither, len(claims)) if claims else "-",
                    str(said),
                    f"{statistics.median(each.runs for each in made):.0f}",
                )
            )
            if claims and exceeds(neither, len(claims), 1 - level):
                misses.append(f"{what}, {kind.name}: {share(neither, len(claims))} name no cause")
    return Table(
        f"bisect at {level:.0%} where more than one commit changed something, {_LINE} commits in a line",
        f"at most {1 - level:.0%} of the claims name none of them",
        ("history", "claims", "name none", "say that there is more", "median runs"),
        tuple(rows),
        tuple(misses),
    )


def _whole(source: Path) -> Table:
    parents = _parents(source)
    number = {commit: place for place, commit in enumerate(parents)}
    shape = tuple(tuple(number[each] for each in before if each in number) for before in parents.values())
    del parents
    names = [f"c{place:06}" for place in range(len(shape))]
    history = History(names, {names[n]: [names[p] for p in parents] for n, parents in enumerate(shape)})
    inquiry = Inquiry(history, Rates.of_failure(), 0.95, Ends(("good",), names[-1]))
    chance = random.Random(2)  # noqa: S311
    culprit = len(shape) // 3
    took: list[float] = []
    seconds = [1.0] * len(shape)
    while len(took) < _MOST_RUNS:
        began = time.process_time()
        step = inquiry.following(seconds)
        if step is None:
            break
        number_of = history.number.get(step.commit)
        has = number_of is not None and step.role != REVERT and bool(history.ancestors(number_of)[culprit])
        failed = has and chance.random() < 0.5
        inquiry.learn(step.commit, Outcome.BAD if failed else Outcome.GOOD, None, step.role, step.without or "")
        took.append(time.process_time() - began)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    right = inquiry.is_decided and inquiry.conclude().commits == (names[culprit],)
    misses = [] if max(took) < 2 else [f"{max(took):.1f} s for a decision"]
    misses += [] if memory < 2 else [f"{memory:.1f} GB of memory"]
    misses += [] if right else ["the culprit was not named"]
    return Table(
        f"The whole history of the repository, a failure in 50% of runs: {len(shape)} commits",
        "under 2 s a decision, under 2 GB",
        ("what", "figure"),
        (
            ("runs until decided", str(len(took))),
            ("slowest decision", f"{max(took):.2f} s of CPU"),
            ("median decision", f"{statistics.median(took):.2f} s of CPU"),
            ("memory of the process", f"{memory:.2f} GB"),
        ),
        tuple(misses),
    )

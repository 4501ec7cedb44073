# SPDX-License-Identifier: BSD-2-Clause
"""explore: one operation is held before each of its instructions in turn while others are made."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.cli.mutate import seconds_in
from harness.cli.options import begin_command
from harness.errors import ExitCode, UsageError
from harness.explore.campaign import Exploration, Interleaving, Key, name_of_all, read_trials, spread
from harness.explore.candidates import FUNCTIONS
from harness.explore.operations import OPERATIONS, Operation, find_operation
from harness.explore.page import findings_page
from harness.explore.saved import columns, save_test
from harness.explore.trial import Trial, Verdict
from harness.files import output_file, write_whole
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.options import TargetOptions
from harness.guests.targets import resolve_target
from harness.report.terminal import make_console, make_output, progress_display
from harness.store import Store

_FORMAT = 1
_PREEMPTIONS = {1: "", 2: ", held in turn while the first goes on"}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add explore."""
    parser = begin_command(
        commands,
        "explore",
        "dfly-harness explore exit pathname --budget 10m --save races/",
    )
    parser.add_argument(
        "first",
        metavar="A",
        help=f"the operation that is held: {', '.join(sorted(OPERATIONS))}, or FILE.py::FUNCTION",
    )
    parser.add_argument("second", metavar="B", help="the operation that is made meanwhile")
    parser.add_argument(
        "third", metavar="C", nargs="?", help="another one that is made meanwhile, behind B and before B"
    )
    TargetOptions.declare(parser.add_argument)
    parser.add_argument("--budget", metavar="T", type=seconds_in, default=None, help="end after T: 90s, 30m, 2h")
    parser.add_argument(
        "--bound",
        type=int,
        choices=(1, 2),
        default=1,
        help="preemptions at most (1); with 2, who comes after A is held as well, at each of its points, as A goes on",
    )
    parser.add_argument(
        "--number", metavar="N", type=int, default=0, help="only N points, and N pairs of points, spread over all"
    )
    parser.add_argument(
        "--functions", metavar="F,F", default="", help="points in these functions (what deals with processes)"
    )
    parser.add_argument("--every", action="store_true", help="every instruction, not only what may touch shared memory")
    parser.add_argument("-n", metavar="N", dest="workers", type=int, default=1, help="machines side by side (1)")
    parser.add_argument("--list", action="store_true", help="list what is known of this pair; run nothing")
    parser.add_argument("--anew", action="store_true", help="try again what is known")
    parser.add_argument("--save", metavar="FOLDER", type=Path, help="write a test for each finding into FOLDER")
    parser.add_argument("--html", metavar="FILE", type=output_file, help="write the findings to FILE, as a page")
    parser.set_defaults(action=_explore)


def _explore(options: argparse.Namespace) -> int:
    store = Store()
    words = [word for word in (options.first, options.second, options.third) if word is not None]
    operations = [find_operation(word) for word in words]
    given = TargetOptions.read(options)
    target = resolve_target(given.choice, store)
    if not isinstance(target, DragonFlyTarget):
        raise UsageError("explore needs a DragonFly kernel")
    names = tuple(each.strip() for each in options.functions.split(",") if each.strip()) or FUNCTIONS
    asked = hashlib.sha256(f"{_FORMAT} {target.key}".encode()).hexdigest()[:12]
    file = store.folder("explorations") / f"{name_of_all(operations)}-{asked}.jsonl"
    if options.list:
        return _report([trial for trial in read_trials(file).values() if len(trial.points) <= options.bound], options)
    done = _campaign(options, store, target, operations, file, names)
    return _report(done, options)


def _campaign(
    options: argparse.Namespace,
    store: Store,
    target: DragonFlyTarget,
    operations: Sequence[Operation],
    file: Path,
    names: Sequence[str],
) -> list[Trial]:
    console = make_console()

    def say(trial: Trial) -> None:
        if trial.verdict.is_finding:
            console.print(f"{trial.seconds:5.1f} s  {trial}", markup=False, highlight=False, soft_wrap=True)

    exploration = Exploration(
        target, store, operations, file, say, memory=options.memory, names=names, every=options.every
    )  # fmt: skip
    known = {} if options.anew else read_trials(file)
    with progress_display("points") as progress:
        progress(f"finding out what {operations[0].name} executes, and what serial orders come to")
        singles = exploration.prepare(known.values())
    until = time.monotonic() + (options.budget if options.budget is not None else float("inf"))
    workers, chosen = max(1, options.workers), spread(singles, options.number)
    here = {each.key for each in chosen}
    console.print(f"{len(singles)} points; campaign: {file}", markup=False, soft_wrap=True)
    for said in sorted(frozenset().union(*exploration.serial.values())):
        console.print(f"serial: {said}", markup=False, highlight=False, soft_wrap=True)
    _run(exploration, chosen, known, workers, until)
    if options.bound > 1 and time.monotonic() < until:
        tried = [trial for trial in read_trials(file).values() if trial.key in here]
        pairs = exploration.pairs(tried)
        console.print(f"{len(pairs)} pairs of points", markup=False)
        chosen = spread(pairs, options.number)
        here |= {each.key for each in chosen}
        _run(exploration, chosen, known, workers, until)
    return [trial for trial in read_trials(file).values() if trial.key in here]


def _run(
    exploration: Exploration, chosen: Sequence[Interleaving], known: Mapping[Key, Trial], workers: int, until: float
) -> None:
    """Try those of CHOSEN of which nothing is KNOWN, and say how fast that went."""
    console = make_console()
    todo = [each for each in chosen if _is_open(known, each) and not exploration.is_covered(each)]
    console.print(f"{len(todo)} of {len(chosen)} to come", markup=False)
    started = time.monotonic()
    new = exploration.run(todo, workers, until)
    minutes = (time.monotonic() - started) / 60
    if new:
        console.print(f"{len(new)} interleavings in {minutes:.1f} minutes: {len(new) / minutes:.0f} per minute")


def _is_open(known: Mapping[Key, Trial], one: Interleaving) -> bool:
    trial = known.get(one.key)
    return trial is None or trial.verdict is Verdict.LOST


def _report(trials: list[Trial], options: argparse.Namespace) -> int:
    output = make_output()

    def line(text: str) -> None:
        output.print(text, markup=False, highlight=False, soft_wrap=True)

    findings = sorted(
        (each for each in trials if each.verdict.is_finding), key=lambda each: list(Verdict).index(each.verdict)
    )
    alike: dict[tuple[Verdict, str], list[Trial]] = {}
    for trial in findings:
        alike.setdefault((trial.verdict, trial.cause), []).append(trial)
    for trial, *others in alike.values():
        line("")
        line(columns(trial, [" and ".join(other.points) for other in others]))
        if options.save is not None:
            line(f"saved: {save_test(trial, options.save)}")
    meanwhile = " and ".join(word for word in (options.second, options.third) if word is not None)
    counts = [
        f"{options.first} held, {meanwhile} meanwhile{_PREEMPTIONS[bound]}: {_counted(trials, bound)}"
        for bound in range(1, options.bound + 1)
    ]
    for count in counts:
        line(count)
    if options.html is not None:
        words = " ".join(word for word in (options.first, options.second, options.third) if word is not None)
        kernel = next((trial.kernel for trial in trials if trial.kernel), "")
        write_whole(options.html, findings_page(words, kernel, list(alike.values()), counts))
        line(f"page: {options.html}")
    return ExitCode.TEST_FAILED if findings else ExitCode.PASSED


def _counted(trials: Sequence[Trial], bound: int) -> str:
    """Return what those of TRIALS with BOUND preemptions came to, in words."""
    these = [trial for trial in trials if len(trial.points) == bound]
    counted = Counter(trial.verdict for trial in these)
    told = ", ".join(f"{counted[verdict]} {verdict}" for verdict in Verdict if counted[verdict])
    waited = sum(trial.waited for trial in these)
    alike = {key for trial in these for key in trial.alike} - {trial.key for trial in these}
    return f"{told or 'nothing tried'}; {waited} times one waited for another; commute: {len(alike)}"

# SPDX-License-Identifier: BSD-2-Clause
"""explore: one operation is held before each of its instructions in turn while others are made."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from harness.cli.mutate import seconds_in
from harness.cli.options import begin_command
from harness.errors import ExitCode, UsageError
from harness.explore.campaign import Exploration, Ground, Interleaving, Key, name_of_all, read_trials, spread
from harness.explore.candidates import FUNCTIONS
from harness.explore.operations import OPERATIONS, Operation, find_operation
from harness.explore.page import findings_page
from harness.explore.pairs import Breadth, Known, Pair, all_pairs
from harness.explore.saved import columns, save_test
from harness.explore.trial import Trial, Verdict, counted
from harness.files import output_file, write_whole
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.options import TargetOptions
from harness.guests.targets import resolve_target
from harness.report.terminal import make_console, make_output, progress_display
from harness.store import Store

_FORMAT = 1
_EACH = 8  # points of each pair in a round
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
        nargs="?",
        help=f"the operation that is held: {', '.join(sorted(OPERATIONS))}, or FILE.py::FUNCTION",
    )
    parser.add_argument("second", metavar="B", nargs="?", help="the operation that is made meanwhile")
    parser.add_argument(
        "third", metavar="C", nargs="?", help="another one that is made meanwhile, behind B and before B"
    )
    TargetOptions.declare(parser.add_argument)
    parser.add_argument(
        "--all-pairs",
        action="store_true",
        help="explore all pairs, or those that have one of the operations given, --number (8) points of each in turn",
    )
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
    words = _given(options)
    operations = [find_operation(word) for word in words]
    if len(operations) < 2 and not options.all_pairs:
        raise UsageError("explore takes two operations, or three; or --all-pairs")
    given = TargetOptions.read(options)
    target = resolve_target(given.choice, store)
    if not isinstance(target, DragonFlyTarget):
        raise UsageError("explore needs a DragonFly kernel")
    names = tuple(each.strip() for each in options.functions.split(",") if each.strip()) or FUNCTIONS
    asked = hashlib.sha256(f"{_FORMAT} {target.key}".encode()).hexdigest()[:12]

    def file_of(operations: Sequence[Operation]) -> Path:
        return store.folder("explorations") / f"{name_of_all(operations)}-{asked}.jsonl"

    at_once = 2 if options.all_pairs else len(operations)
    if options.all_pairs:
        pairs = all_pairs(operations)
        if not options.list:
            with _ground(options, store, target, names, at_once) as ground:
                _explore_pairs(options, ground, pairs, file_of)
        return _report_pairs(pairs, file_of, options)
    file = file_of(operations)
    if options.list:
        return _report([trial for trial in read_trials(file).values() if len(trial.points) <= options.bound], options)
    with _ground(options, store, target, names, at_once) as ground:
        done = _campaign(options, ground, operations, file)
    return _report(done, options)


def _given(options: argparse.Namespace) -> list[str]:
    """Return the operations as they were given."""
    return [word for word in (options.first, options.second, options.third) if word is not None]


def _ground(
    options: argparse.Namespace, store: Store, target: DragonFlyTarget, names: Sequence[str], operations: int
) -> Ground:
    return Ground(target, store, operations, memory=options.memory, names=names, every=options.every)


def _sayer(console: Console) -> Callable[[Trial], None]:
    """Return what tells CONSOLE of findings as they come."""

    def say(trial: Trial) -> None:
        if trial.verdict.is_finding:
            console.print(f"{trial.seconds:5.1f} s  {trial}", markup=False, highlight=False, soft_wrap=True)

    return say


def _until(options: argparse.Namespace) -> float:
    return time.monotonic() + (options.budget if options.budget is not None else float("inf"))


def _explore_pairs(
    options: argparse.Namespace, ground: Ground, pairs: Sequence[Pair], file_of: Callable[[Pair], Path]
) -> None:
    console = make_console()

    def tell(words: str) -> None:
        console.print(words, markup=False, highlight=False, soft_wrap=True)

    tell(f"{len(pairs)} pairs")
    started = time.monotonic()
    breadth = Breadth(ground, file_of, _sayer(console), tell, options.number or _EACH)
    breadth.run(pairs, max(1, options.workers), _until(options))
    minutes = (time.monotonic() - started) / 60
    tell(f"{breadth.tried} interleavings in {minutes:.1f} minutes: {breadth.tried / minutes:.0f} per minute")


def _report_pairs(pairs: Sequence[Pair], file_of: Callable[[Pair], Path], options: argparse.Namespace) -> int:
    """Show what is known of PAIRS: the findings, and a line for each operation that is held."""
    known = {pair: found for pair in pairs if (found := Known.read(file_of(pair))).trials}
    trials = [trial for found in known.values() for trial in found.trials]
    lines = [f"{'held':>10} {'pairs':>6} {'known':>6} {'points':>6} {'tried':>6}  findings"]
    for name in dict.fromkeys(pair[0].name for pair in sorted(known, key=lambda pair: pair[0].name)):
        some = [found for pair, found in known.items() if pair[0].name == name]
        these = [trial for found in some for trial in found.trials]
        told = counted(trial.verdict for trial in these if trial.verdict.is_finding)
        points = sum(found.known for found in some), sum(found.points for found in some)
        lines.append(f"{name:>10} {len(some):6} {points[0]:6} {points[1]:6} {len(these):6}  {told or '-'}")
    said = [f"{len(known)} of {len(pairs)} pairs; {_counted(trials)}"]
    return _show(trials, [*lines, *said], "all pairs", options)


def _campaign(options: argparse.Namespace, ground: Ground, operations: Sequence[Operation], file: Path) -> list[Trial]:
    console = make_console()
    exploration = Exploration(ground, operations, file, _sayer(console))
    known = {} if options.anew else read_trials(file)
    with progress_display("points") as progress:
        progress(f"finding out what {operations[0].name} executes, and what serial orders come to")
        singles = exploration.prepare(known.values())
    until = _until(options)
    workers, chosen = max(1, options.workers), spread(singles, options.number)
    here = {*exploration.disorders, *(each.key for each in chosen)}
    console.print(f"{len(singles)} points; campaign: {file}", markup=False, soft_wrap=True)
    for said in sorted(set().union(*exploration.serial.values())):
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


def _report(trials: Sequence[Trial], options: argparse.Namespace) -> int:
    words = _given(options)
    meanwhile = " and ".join(words[1:])
    counts = [
        f"{options.first} held, {meanwhile} meanwhile{_PREEMPTIONS[bound]}: "
        + _counted([trial for trial in trials if len(trial.points) == bound])
        for bound in range(1, options.bound + 1)
    ]
    if serial := [trial for trial in trials if not trial.points]:
        counts.insert(0, f"one behind the other: {_counted(serial)}")
    return _show(trials, counts, " ".join(words), options)


def _show(trials: Sequence[Trial], counts: Sequence[str], words: str, options: argparse.Namespace) -> int:
    """Show the findings among TRIALS, those of one cause once, and then COUNTS; of the exploration called WORDS."""
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
        line(columns(trial, [_elsewhere(trial, other) for other in others]))
        if options.save is not None:
            line(f"saved: {save_test(trial, options.save)}")
    for count in counts:
        line(count)
    if options.html is not None:
        kernel = next((trial.kernel for trial in trials if trial.kernel), "")
        write_whole(options.html, findings_page(words, kernel, list(alike.values()), counts))
        line(f"page: {options.html}")
    return ExitCode.TEST_FAILED if findings else ExitCode.PASSED


def _elsewhere(trial: Trial, other: Trial) -> str:
    """Return where OTHER, which is like TRIAL, was."""
    return other.where if other.operations == trial.operations else f"{' '.join(other.operations)}: {other.where}"


def _counted(trials: Sequence[Trial]) -> str:
    """Return what TRIALS came to, in words."""
    told = counted(trial.verdict for trial in trials)
    waited = sum(trial.waited for trial in trials)
    alike = {key for trial in trials for key in trial.alike} - {trial.key for trial in trials}
    return f"{told or 'nothing tried'}; {waited} times one waited for another; commute: {len(alike)}"

# SPDX-License-Identifier: BSD-2-Clause
"""bench: how fast the harness is on this host."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from harness.bench.bench import run_bench
from harness.bench.coverage import measure_coverage
from harness.bench.peers import PEER, VirtmeNg
from harness.bench.result import BenchResult, compare_benches, read_bench
from harness.bench.scaling import outlooks
from harness.cli.kernels import add_source_options, kernel_from_source, source_arguments, wants_source
from harness.cli.options import begin_command, require_room
from harness.coverage.kernel import split_names
from harness.errors import ExitCode, UsageError
from harness.files import record_file
from harness.guests.options import TargetOptions
from harness.guests.targets import decide
from harness.report.terminal import make_output, make_output_beside, print_table, progress_display
from harness.results.record import read_record
from harness.runs.options import RunOptions
from harness.runs.suite import suite_arguments
from harness.store import Store


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add bench."""
    parser = begin_command(
        commands,
        "bench",
        "dfly-harness bench --rounds 5 --suite --workers 2",
    )
    TargetOptions.declare(parser.add_argument)
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="how often to measure (default: 3)")
    parser.add_argument("--suite", action="store_true", help="also time the conformance suite")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="time it with 1 to N workers (default: 1)")
    parser.add_argument("--peer", action="store_true", help=f"also time {PEER} side by side, if it is installed")
    parser.add_argument("--json", type=record_file, metavar="FILE", help="write the readings to FILE, - prints them")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="RECORD",
        help="say what became slower since that bench, beyond noise and the host's own speed; exit status 1 if any did",
    )
    parser.add_argument(
        "--scale",
        type=Path,
        metavar="RECORD",
        help="measure nothing: say what more cores would make of the run that left RECORD",
    )
    parser.add_argument(
        "--coverage",
        metavar="FILES",
        nargs="?",
        const="",
        help="measure only what `run --coverage[=FILES]` costs: the same work, with --suite the suite, in turn",
    )
    add_source_options(parser)
    parser.set_defaults(action=_bench)


def _bench(options: argparse.Namespace) -> int:
    if options.rounds < 1 or options.workers < 1:
        raise UsageError("--rounds and --workers count from 1")
    if options.scale is not None:
        return _show_scaling(options.scale)
    before = read_bench(options.against) if options.against is not None else None
    store, given = Store(), TargetOptions.read(options)
    require_room(store)
    given = given.decided(store)
    again = given.words()
    peer = VirtmeNg.found() if options.peer else None
    if wants_source(options):
        given = replace(given, kernel=kernel_from_source(options, store).name)
        again += source_arguments(options)
    with progress_display("bench") as progress:
        resolved = decide(given.choice, store)
        suite = suite_arguments(RunOptions(given, resolved=resolved)) if options.suite else ()
        if options.coverage is not None:
            if resolved.kernel is None:
                raise UsageError("--coverage needs a kernel of the store: where its code is is not known otherwise")
            result = measure_coverage(
                resolved.open(store, progress),
                resolved.kernel,
                store,
                given.size,
                split_names(options.coverage),
                rounds=options.rounds,
                suite=suite,
                workers=options.workers,
                progress=progress,
            )
        else:
            result = run_bench(
                resolved.open(store, progress),
                store,
                given.size,
                rounds=options.rounds,
                again=again,
                suite=suite,
                workers=options.workers,
                peer=peer,
                progress=progress,
            )
    console = make_output_beside(options.json)
    _show(result, console)
    console.print(f"record: {result.write(store, options.json)}", markup=False, soft_wrap=True)
    return _show_changes(before, result, console) if before is not None else ExitCode.PASSED


def _show_scaling(file: Path) -> ExitCode:
    """Print how long a run would take on more cores."""
    record = read_record(file)
    console = make_output()
    console.print(f"{record.target}: {record.seconds:.1f} s, workers: {record.workers}", markup=False, soft_wrap=True)
    rows = [(str(each.workers), f"{each.seconds:.1f}", each.limit) for each in outlooks(record)]
    print_table(console, ("WORKERS", "SECONDS", "LIMITED BY"), rows, right=("WORKERS", "SECONDS"))
    return ExitCode.PASSED


def _show_changes(before: BenchResult, now: BenchResult, console: Console) -> ExitCode:
    """Print what changed between two benches; say whether something became slower."""
    for name in ("target", "accelerator", "qemu", "harness"):
        if (old := getattr(before, name)) != (new := getattr(now, name)):
            console.print(f"{name}: {new}, and {old} in the bench before", markup=False, soft_wrap=True)
    changes = compare_benches(before, now)
    rows = []
    for change in changes:
        ends = (change.interval.low, change.interval.high) if change.interval is not None else ()
        figures = [f"{value:.3g}" for value in (change.slower, *ends)]
        rows.append((change.name, *figures, *[""] * (3 - len(figures)), change.said))
    print_table(
        console, ("WHAT", "TIMES SLOWER", "LEAST", "MOST", "SAID"), rows, right=("TIMES SLOWER", "LEAST", "MOST")
    )
    slower = any(change.said == "slower" for change in changes)
    return ExitCode.TEST_FAILED if slower else ExitCode.PASSED


def _show(result: BenchResult, console: Console) -> None:
    console.print(f"{result.target}; accelerator {result.accelerator}", markup=False, soft_wrap=True)
    rows = []
    for measured in result.measurements:
        figures = (f"{value:.4g}" for value in (measured.median, min(measured.readings), max(measured.readings)))
        rows.append((measured.name, measured.unit, *figures, str(len(measured.readings))))
    rows += [(ratio.name, "ratio", f"{ratio.value:.3g}", "", "", "") for ratio in result.ratios]
    numbers = ("MEDIAN", "LEAST", "MOST", "READINGS")
    print_table(console, ("WHAT", "UNIT", *numbers), rows, right=numbers)

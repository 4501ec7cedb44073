"""bench: how fast the harness is on this host."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.bench.bench import BenchResult, run_bench
from harness.bench.peers import PEER, VirtmeNg
from harness.cli.kernels import add_source_options, kernel_from_source, source_arguments, wants_source
from harness.cli.options import add_command, add_target_options, chosen_size, chosen_target, decided, target_arguments
from harness.errors import ExitCode, UsageError
from harness.guests.targets import resolve_target
from harness.report.terminal import progress_display
from harness.runs.suite import suite_arguments
from harness.store import Store

_WIDTH = 120


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add bench."""
    parser = add_command(
        commands,
        "bench",
        "Measure boot, resume, calls, forks, the way to the first test, and the suite; medians, spread and ratios.",
        "dfly-harness bench --rounds 5 --suite --workers 2",
    )
    add_target_options(parser)
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="how often to measure (default: 3)")
    parser.add_argument("--suite", action="store_true", help="also time the conformance suite")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="time it with 1 to N workers (default: 1)")
    parser.add_argument("--peer", action="store_true", help=f"also time {PEER} side by side, if it is installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all readings to FILE")
    add_source_options(parser)
    parser.set_defaults(action=_bench)


def _bench(options: argparse.Namespace) -> int:
    if options.rounds < 1 or options.workers < 1:
        raise UsageError("--rounds and --workers count from 1")
    store, choice = Store(), chosen_target(options)
    size = decided(chosen_size(options), store)
    again = [*target_arguments(options), f"--accelerator={size.accelerator}"]
    peer = VirtmeNg.found() if options.peer else None
    if wants_source(options):
        choice = replace(choice, kernel=kernel_from_source(options, store).name)
        again += source_arguments(options)
    with progress_display("bench") as progress:
        target = resolve_target(choice, store, progress)
        result = run_bench(
            target,
            store,
            size,
            rounds=options.rounds,
            again=again,
            suite=suite_arguments(choice, size) if options.suite else (),
            workers=options.workers,
            peer=peer,
            progress=progress,
        )
    _show(result)
    if options.json is not None:
        options.json.write_text(result.to_json() + "\n")
    return ExitCode.PASSED


def _show(result: BenchResult) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, _WIDTH)  # in a pipe it would be 80, and figures cut
    console.print(f"{result.target}; accelerator {result.accelerator}", markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("WHAT", "UNIT", "MEDIAN", "LEAST", "MOST", "READINGS"):
        table.add_column(column, justify="left" if column in {"WHAT", "UNIT"} else "right", no_wrap=True)
    for measured in result.measurements:
        figures = (f"{value:.4g}" for value in (measured.median, min(measured.readings), max(measured.readings)))
        table.add_row(measured.name, measured.unit, *figures, str(len(measured.readings)))
    for ratio in result.ratios:
        table.add_row(ratio.name, "ratio", f"{ratio.value:.3g}")
    console.print(table)

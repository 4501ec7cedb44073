# SPDX-License-Identifier: BSD-2-Clause
"""calibrate: how often what compare and bisect say is wrong, by simulation."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from harness.bisect.summary import CALIBRATION
from harness.calibration.bisect import quoted
from harness.calibration.tables import SUBJECTS, Table, tables
from harness.cli.options import begin_command
from harness.errors import ExitCode
from harness.files import output_file, write_whole
from harness.report.terminal import make_output, print_table, progress_display


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add calibrate."""
    parser = begin_command(
        commands,
        "calibrate",
        "dfly-harness calibrate compare --quick",
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"{' or '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small simulations: minutes, not most of an hour")
    parser.add_argument(
        "--source",
        type=Path,
        metavar="REPO",
        help="git repository: pieces of its history, and all of it, are used, too",
    )
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="of bisect's searches, make as many as M minutes allow (default: 45)"
    )
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the tables to FILE, as they come")
    parser.add_argument(
        "--keep",
        action="store_true",
        help=f"write what bisect's pages quote to {CALIBRATION.parent.name}/{CALIBRATION.name} of the harness",
    )
    parser.set_defaults(action=_calibrate, parser=parser)


def _calibrate(options: argparse.Namespace) -> int:
    """Print every table as it comes; the exit status is 1 where one misses what it claims."""
    for subject in options.subjects:
        if subject not in SUBJECTS:
            options.parser.error(f"nothing is known to simulate about {subject!r}: {', '.join(SUBJECTS)}")
    if options.keep and (options.quick or (options.subjects and "bisect" not in options.subjects)):
        options.parser.error("--keep needs the full tables of bisect: leave --quick out")
    if options.minutes is not None and not options.minutes > 0:
        options.parser.error("--minutes is a number above 0")
    if options.source is not None and not options.source.is_dir():
        options.parser.error(f"{options.source} is no git repository")
    console, made = make_output(), []
    for subject in options.subjects or SUBJECTS:
        with progress_display("calibrate") as progress:
            found = tables(subject, progress, quick=options.quick, source=options.source, minutes=options.minutes)
            while (table := next(found, None)) is not None:
                made.append({"subject": subject, **table.to_json()})
                _show(table)
                if options.json is not None:
                    write_whole(options.json, json.dumps(made, indent=1) + "\n")
    if options.keep:
        write_whole(CALIBRATION, json.dumps(quoted(made), indent=1) + "\n")
    misses = [miss for table in made for miss in table["misses"]]
    console.print(f"{len(misses)} figures miss what is claimed." if misses else "All figures keep what is claimed.")
    return ExitCode.TEST_FAILED if misses else ExitCode.PASSED


def _show(table: Table) -> None:
    console = make_output()
    console.print(f"\n{table.title} (claimed: {table.claim})", markup=False, soft_wrap=True)
    print_table(console, table.headings, table.rows, right=table.headings[1:])
    for miss in table.misses:
        console.print(f"MISSED: {miss}", markup=False, soft_wrap=True)

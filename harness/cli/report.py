# SPDX-License-Identifier: BSD-2-Clause
"""report: a record of a run for people to read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.cli.options import add_command
from harness.errors import ExitCode
from harness.report.html import write_run
from harness.report.summary import run_markdown
from harness.results.record import find_record, read_record
from harness.store import Store


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add report."""
    parser = add_command(
        commands,
        "report",
        "Print a run's record as Markdown, or write it as an HTML page.",
        "dfly-harness report --html report.html",
    )
    parser.add_argument(
        "record",
        nargs="?",
        metavar="RECORD",
        help="what `run --json` wrote, also of a run that was killed, or a run's name (default: the last run)",
    )
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page to FILE instead")
    parser.set_defaults(action=_report)


def _report(options: argparse.Namespace) -> int:
    record = read_record(find_record(options.record if options.record is not None else "-", Store()))
    if options.html:
        write_run(record, Path(options.html))
    else:
        sys.stdout.write(run_markdown(record))
    return ExitCode.PASSED

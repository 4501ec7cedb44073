# SPDX-License-Identifier: BSD-2-Clause
"""report: a record of a run for people to read."""

from __future__ import annotations

import argparse
import sys

from harness.cli.options import add_command
from harness.errors import ExitCode, UsageError
from harness.files import output_file
from harness.report.html import write_run
from harness.report.summary import run_markdown
from harness.results.record import find_record, read_record
from harness.results.shards import merge
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
        nargs="*",
        metavar="RECORD",
        help="what `run --json` wrote, also of a run that was killed, or a run's name (default: the last run)",
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="the records are the shards of one run: show that run; the exit status is the run's",
    )
    parser.add_argument("--json", metavar="FILE", type=output_file, help="with --merge, also write the record to FILE")
    parser.add_argument("--html", metavar="FILE", type=output_file, help="write one self-contained page instead")
    parser.set_defaults(action=_report)


def _report(options: argparse.Namespace) -> int:
    store = Store()
    if not options.merge and (len(options.record) > 1 or options.json):
        raise UsageError("one record at a time; --merge makes one of all shards of a run")
    if options.merge and not options.record:
        raise UsageError("--merge needs the records of all shards: report --merge 1.json 2.json")
    records = [read_record(find_record(name, store)) for name in options.record or ["-"]]
    record = merge(records) if options.merge else records[0]
    if options.json:
        record.write(store, options.json)
    if options.html:
        write_run(record, options.html)
    else:
        sys.stdout.write(run_markdown(record))
    return record.exit_status if options.merge else ExitCode.PASSED

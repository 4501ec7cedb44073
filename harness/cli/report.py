# SPDX-License-Identifier: BSD-2-Clause
"""report: a record of a run for people to read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.cli.options import begin_command
from harness.config import share
from harness.errors import ExitCode, UsageError
from harness.files import output_file, write_whole
from harness.report.annotations import run_annotations
from harness.report.bug import bug_report, sightings
from harness.report.html import write_run
from harness.report.kyua import write_kyua
from harness.report.mends import mend_of, read_mends
from harness.report.picture import run_svg
from harness.report.plain import markdown, plain
from harness.report.summary import run_markdown, run_text
from harness.report.tap import run_tap
from harness.results.bisection import reports_on
from harness.results.naming import named, only_test
from harness.results.neighbours import Appearance, history
from harness.results.record import RunRecord, TestResult, find_record, read_record
from harness.results.shards import merge
from harness.store import Store

_HISTORY = 200  # runs of a test that are looked through


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add report."""
    parser = begin_command(
        commands,
        "report",
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
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--text", action="store_true", help="plain text of 72 columns, for a mail")
    form.add_argument(
        "--bug",
        metavar="TEST",
        help="report on TEST, which failed: for bugs.dragonflybsd.org or a mailing list, with --markdown for GitHub;"
        " without RECORD of the last run in which it failed",
    )
    parser.add_argument("--markdown", action="store_true", help="with --bug: Markdown instead of plain text")
    parser.add_argument(
        "--c", metavar="FILE", type=Path, help="with --bug: a C program that shows it, such as `reproduce --c` writes"
    )
    parser.add_argument("--json", metavar="FILE", type=output_file, help="with --merge, also write the record to FILE")
    parser.add_argument("--html", metavar="FILE", type=output_file, help="write one self-contained page instead")
    parser.add_argument(
        "--kyua",
        metavar="FILE",
        type=output_file,
        help="write a database for `kyua report --results-file FILE`",
    )
    parser.add_argument(
        "--svg", metavar="FILE", type=output_file, help="write the end of the run as a picture of a terminal"
    )
    parser.add_argument("--tap", metavar="FILE", type=output_file, help="write TAP, for prove and others")
    parser.add_argument(
        "--github", action="store_true", help="print what went wrong as annotations for GitHub, at the test's line"
    )
    parser.set_defaults(action=_report)


def _report(options: argparse.Namespace) -> int:
    store = Store()
    if options.markdown and options.bug is None:
        raise UsageError("--markdown is how --bug is written; a run's report is Markdown unless --text or --html")
    if options.c is not None and options.bug is None:
        raise UsageError("--c is part of a report on one test: name that with --bug")
    if options.bug is not None:
        return _bug(options, store)
    if not options.merge and (len(options.record) > 1 or options.json):
        raise UsageError("one record at a time; --merge makes one of all shards of a run")
    if options.merge and not options.record:
        raise UsageError("--merge needs the records of all shards: report --merge 1.json 2.json")
    records = [read_record(find_record(name, store)) for name in options.record or ["-"]]
    record = merge(records) if options.merge else records[0]
    if options.json:
        record.write(store, options.json)
    if not _written(record, options):
        sys.stdout.write(run_text(record) if options.text else run_markdown(record))
    return record.exit_status if options.merge else ExitCode.PASSED


def _written(record: RunRecord, options: argparse.Namespace) -> bool:
    """Write RECORD in the formats of OPTIONS; return whether there were any."""
    if options.html:
        write_run(record, options.html)
    if options.kyua:
        write_kyua(record, options.kyua)
    if options.tap:
        write_whole(options.tap, run_tap(record))
    if options.svg:
        write_whole(options.svg, run_svg(record))
    if options.github:
        sys.stdout.write(run_annotations(record))
    return any((options.html, options.kyua, options.tap, options.github, options.svg))


def _bug(options: argparse.Namespace, store: Store) -> int:
    formats = options.html, options.kyua, options.tap, options.github, options.svg
    if options.merge or options.json or any(formats) or len(options.record) > 1:
        raise UsageError("--bug is about one test of one run: leave out --merge, --json and other formats")
    known = history(store, options.bug, _HISTORY)
    if options.record:
        file = find_record(options.record[0], store)
        record = read_record(file)
        known += [Appearance(file, record, each) for each in named(options.bug, record.results)]
        own = [each for each in known if each.record == record]
    else:
        own = known
    failed = [each for each in own if each.result.verdict.against_kernel]
    tests = [each.test for each in named(options.bug, (each.result for each in failed))]
    if not tests:
        said = "passed or was not judged" if own else "did not run"
        raise UsageError(
            f"there is nothing to report: {options.bug} {said} in what is on record of runs; what compare and bisect"
            " run is not among it: dfly-harness run"
        )
    test = only_test(tests)
    last = next(each for each in reversed(failed) if each.result.test == test)
    result, program = _with_program(last.result, options.c)
    title, parts = bug_report(
        result,
        last.record,
        sightings(test, _without_repeats(known)),
        [*reports_on(test, store)],
        program,
        mend_of(read_mends(share() / "suites" / "mends.toml"), result.reproducer),
    )
    sys.stdout.write((markdown if options.markdown else plain)(title, parts))
    return ExitCode.PASSED


def _with_program(result: TestResult, given: Path | None) -> tuple[TestResult, str]:
    """Return RESULT and the text of the C program that shows the same: the one GIVEN, else the suite's, if any.

    Raises UsageError for a file that cannot be read.
    """
    if given is not None:
        try:
            return replace(result, reproducer=given.name), given.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--c {given}: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    file = share() / "suites" / result.reproducer
    return result, file.read_text() if result.reproducer and file.is_file() else ""


def _without_repeats(known: Sequence[Appearance]) -> list[Appearance]:
    """Return KNOWN, each record once: one that was given may lie in the store, too."""
    return list({(each.record.started, each.record.target, each.result.test): each for each in known}.values())

# SPDX-License-Identifier: BSD-2-Clause
"""history: what a test came to in the runs that were made so far."""

from __future__ import annotations

import argparse
from itertools import islice

from harness.cli.options import begin_command
from harness.errors import ExitCode, UsageError
from harness.report.terminal import make_output, print_json, print_table
from harness.results.neighbours import Appearance, earlier_records, history
from harness.results.summary import conclusion
from harness.store import Store

_LAST = 20
_CAUSE = 80  # characters


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add history."""
    parser = begin_command(
        commands,
        "history",
        "dfly-harness history test_a_zombie_is_listed_once --last 50",
    )
    parser.add_argument("test", nargs="?", metavar="TEST", help="a test, or a part of its name")
    parser.add_argument("--last", metavar="N", type=int, default=_LAST, help=f"so many results (default: {_LAST})")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(action=_history)


def _history(options: argparse.Namespace) -> int:
    if options.last < 1:
        raise UsageError("--last is at least 1")
    return _runs(options) if options.test is None else _test(options)


def _runs(options: argparse.Namespace) -> int:
    found = list(islice(earlier_records(Store()), options.last))[::-1]
    rows = [
        (file.name, record.started, record.target, record.exit_status, conclusion(record)) for file, record in found
    ]
    if options.json:
        names = ("run", "started", "target", "exit_status", "conclusion")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
        return ExitCode.PASSED
    shown = [
        (name.partition(".json")[0], _moment(when), target, str(status), said)
        for name, when, target, status, said in rows
    ]
    print_table(make_output(), ("run", "began", "target", "exit", "came to"), shown, right={"exit"})
    return ExitCode.PASSED


def _test(options: argparse.Namespace) -> int:
    found = history(Store(), options.test, options.last)
    if options.json:
        print_json([_plain(each) for each in found])
        return ExitCode.PASSED
    if not found:
        raise UsageError(f"no run of this store has a test {options.test}: dfly-harness history lists the runs")
    several = len({each.result.test for each in found}) > 1
    columns = ("began", "kernel", "image", "verdict", "seconds", "cause", *(("test",) if several else ()))
    rows = [(*_row(each), *((each.result.test.rpartition("/")[2],) if several else ())) for each in found]
    if not several:
        make_output().print(found[0].result.test, markup=False, soft_wrap=True)
    print_table(make_output(), columns, rows, right={"seconds"})
    return ExitCode.PASSED


def _row(each: Appearance) -> tuple[str, ...]:
    record, result = each.record, each.result
    kernel = record.kernel or record.target
    return _moment(record.started), kernel, record.image, result.words, f"{result.seconds:.2f}", result.cause[:_CAUSE]


def _plain(each: Appearance) -> dict[str, object]:
    about = ("started", "target", "kernel", "kernel_digest", "osreldate", "image", "incomplete")
    return {
        "run": str(each.file),
        **{name: getattr(each.record, name) for name in about},
        "words": each.result.words,
        "result": each.result.to_json(),
    }


def _moment(started: str) -> str:
    return started.partition("+")[0].replace("T", " ")

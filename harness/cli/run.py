"""run: the conformance suite, or chosen tests, on one target."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.kernels import add_source_options, kernel_from_source, wants_source
from harness.cli.options import add_command, add_target_options, chosen_size, chosen_target
from harness.errors import ExitCode, UsageError
from harness.guests.targets import THREE_COMMANDS, resolve_target
from harness.kernels.artefact import Kernel
from harness.kernels.build import BuildFailedError
from harness.report.publish import publish
from harness.report.terminal import make_console, progress_display
from harness.results.finding import Finding
from harness.results.record import RunRecord
from harness.runs.suite import DEFAULT_SUITE, suite_arguments
from harness.store import Store


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add run."""
    parser = add_command(
        commands,
        "run",
        "Run the conformance suite, or the tests in PATH, on a target.",
        "dfly-harness run --kernel stock -k setsid",
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help=f"test files or folders (default: {DEFAULT_SUITE})")
    add_target_options(parser)
    parser.add_argument("-k", metavar="EXPR", dest="expression", help="only tests whose names match EXPR")
    parser.add_argument("-n", metavar="N", dest="workers", help="machines side by side (pytest-xdist; 'auto')")
    parser.add_argument("-x", action="store_true", dest="first", help="stop at the first failure")
    parser.add_argument("--cold", action="store_true", help="boot from power-on instead of resuming the warm state")
    parser.add_argument("--defects", action="store_true", help="also run the tests of known defects")
    parser.add_argument("--json", metavar="FILE", help="write the run's record to FILE")
    parser.add_argument("--html", metavar="FILE", help="write the run's report to FILE: one page, no network needed")
    parser.add_argument(
        "--invariants", action="store_true", help="look after each test whether the process table is sound"
    )
    parser.add_argument("--record", action="store_true", help="run failed tests again so that `replay` can repeat them")
    parser.add_argument(
        "--lane",
        choices=("auto", "wall", "warped"),
        default="auto",
        help="tests of time where waiting is free (auto, if that works), all tests (warped), none (wall: nightly)",
    )
    parser.add_argument(
        "--hold",
        "--pdb-guest",
        action="store_true",
        help="pause the machine of a test that failed and say how to get at it",
    )
    parser.add_argument("--dump-memory", metavar="FOLDER", help="keep the memory of a kernel that died, as ELF cores")
    add_source_options(parser)
    parser.set_defaults(action=_run, takes_rest=True)


def _run(options: argparse.Namespace) -> int:
    choice, size = chosen_target(options), chosen_size(options)
    console = make_console()
    if wants_source(options):
        if choice.control or choice.kernel is not None:
            raise UsageError("--source says which kernel to test: leave out --kernel and --control")
        choice = replace(choice, kernel=_built(options).name)
    with progress_display("target") as progress:
        target = resolve_target(choice, Store(), progress)
    console.print(target.label, style="bold" if target.is_dragonfly else "bold red", markup=False, soft_wrap=True)
    if not target.is_dragonfly and not choice.control:
        console.print("There is no DragonFly target in the store. To get one:", markup=False)
        for command in THREE_COMMANDS:
            console.print(f"    {command}", markup=False, soft_wrap=True)
    arguments = suite_arguments(choice, size, options.paths)
    arguments += ["-k", options.expression] if options.expression is not None else []
    arguments += ["-n", options.workers] if options.workers else []
    arguments += ["--lane", options.lane]
    for option in ("json", "html", "dump_memory"):
        arguments += [f"--{option.replace('_', '-')}", value] if (value := getattr(options, option)) else []
    arguments += [flag for flag, wanted in (
        ("--cold", options.cold), ("--defects", options.defects), ("-x", options.first),
        ("--invariants", options.invariants), ("--hold", options.hold), ("--record", options.record),
    ) if wanted]  # fmt: skip
    status = pytest.main([*arguments, "--live", *options.rest])
    return _exit_status(int(status))


def _built(options: argparse.Namespace) -> Kernel:
    """Return the kernel of the sources; that there is none is a result, and leaves a record and a report, too."""
    try:
        return kernel_from_source(options, Store())
    except BuildFailedError as error:
        trouble = f"{Finding.BUILD_FAILURE}: {error}"
        record = RunRecord(f"DragonFly: {options.source}", is_dragonfly=True, workers=0, trouble=trouble)
        record.exit_status = int(error.exit_code)
        written = record.write(Store(), Path(options.json) if options.json else None)
        publish(written, Path(options.html) if options.html else None)
        make_console().print(f"record: {written}", markup=False, soft_wrap=True)
        raise


def _exit_status(status: int) -> int:
    if status == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if status == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UsageError("no test matches")
    meaning = {
        int(pytest.ExitCode.OK): ExitCode.PASSED,
        int(pytest.ExitCode.TESTS_FAILED): ExitCode.TEST_FAILED,
        int(pytest.ExitCode.USAGE_ERROR): ExitCode.USAGE,
    }
    return meaning.get(status, ExitCode.HARNESS_FAILED)

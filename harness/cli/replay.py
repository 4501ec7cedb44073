# SPDX-License-Identifier: BSD-2-Clause
"""replay: the recorded execution of a failed test once more, with a debugger."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.cli.options import begin_command
from harness.errors import ExitCode, UsageError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import MachineSize, Target
from harness.guests.targets import TargetChoice, resolve_target
from harness.processes.recording import Recording, Replay
from harness.report.terminal import make_console, progress_display
from harness.results.naming import named, only_test
from harness.results.record import find_record, read_record
from harness.store import Store


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add replay."""
    parser = begin_command(
        commands,
        "replay",
        "dfly-harness replay - test_setsid --at -100000",
    )
    parser.add_argument("run", metavar="RUN", help="what `run --json` wrote, a run's name, or - for the last run")
    parser.add_argument("test", metavar="TEST", help="the test, or a part of its name that is no other's")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--at",
        metavar="N",
        type=int,
        default=0,
        help="begin at instruction N; -N: that many before the end (default: 0)",
    )
    where.add_argument("--reverse", action="store_true", help="begin at the end, with gdb's reverse commands")
    parser.add_argument("--check", action="store_true", help="no debugger: run to the end and compare with the record")
    parser.set_defaults(action=_replay)


def find_recording(run: str, test: str, store: Store) -> Recording:
    """Return what was recorded of TEST, or of the one test whose name has it, in RUN; raises UsageError for none."""
    file = find_record(run, store)
    found = named(test, read_record(file).results)
    kept = {result.test: result.recording for result in found if result.recording}
    if not kept:
        lacks = "has no recording: dfly-harness run --record makes them, of tests that fail"
        raise UsageError(f"{file}: {test} {lacks if found else 'is no test of it'}")
    return Recording.load(Path(kept[only_test(kept)]))


def target_of(recording: Recording, store: Store) -> tuple[Target, MachineSize]:
    """Return on what RECORDING was made."""
    choice: dict[str, Any] = dict(recording.choice)
    size = MachineSize(memory=int(choice.pop("memory")), boot=int(choice.pop("boot", 0)))
    return resolve_target(TargetChoice(**choice), store), size


def _replay(options: argparse.Namespace) -> int:
    store, console = Store(), make_console()
    recording = find_recording(options.run, options.test, store)
    if not options.check and (shutil.which("gdb") is None or not sys.stdin.isatty()):
        raise UsageError("this needs gdb and a terminal; --check does without and compares")
    target, size = target_of(recording, store)
    console.print(f"{recording.test}\n{target.label}", markup=False, soft_wrap=True)
    with Replay(recording, target, store, size) as replay:
        if options.check:
            return _check(replay)
        _move(replay, options)
        _debug(replay, target)
    return ExitCode.PASSED


def _move(replay: Replay, options: argparse.Namespace) -> None:
    end = replay.recording.end.instructions
    place = end if options.reverse else options.at + (end if options.at < 0 else 0)
    if not 0 <= place <= end:
        raise UsageError(f"--at {options.at}: the recording has {end:,} instructions")
    with progress_display("replay") as progress:
        if options.reverse:
            progress("noting a point of return, and whether it can be returned to")
            replay.make_reversible()
        if place:
            progress(f"running to instruction {place:,}")
            replay.run(place)


def _check(replay: Replay) -> int:
    replay.run()
    console = make_console()
    for difference in (differences := replay.differences()):
        console.print(difference, markup=False, soft_wrap=True)
    if differences:
        return ExitCode.HARNESS_FAILED
    end = replay.recording.end
    console.print(f"the same execution: {end.instructions:,} instructions, the same memory and console at the end")
    return ExitCode.PASSED


def _debug(replay: Replay, target: Target) -> None:
    argv = ["gdb", "-q"]
    if isinstance(target, DragonFlyTarget) and (kernel := target.kernel) is not None:
        argv.append(str(target.store.blob(kernel.debug or kernel.elf)))
    argv += ["-ex", f"target remote {replay.guest.machine.gdb_socket}"]
    make_console().print(shlex.join(argv), markup=False, soft_wrap=True)
    subprocess.run(argv, check=False)

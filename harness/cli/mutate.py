# SPDX-License-Identifier: BSD-2-Clause
"""mutate: kernels with one small fault each, and whether the tests notice."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import time
from pathlib import Path, PurePosixPath

from harness.cli.kernels import add_source_options, chosen_builder
from harness.cli.options import begin_command
from harness.config import share
from harness.coverage.map import find_map
from harness.coverage.mutants import Mutant, mutants_of
from harness.errors import ExitCode, UsageError
from harness.guests.bootcheck import BOOT_VARIABLE
from harness.guests.options import TargetOptions
from harness.guests.targets import decide
from harness.kernels.patch import apply_patches
from harness.kernels.source import SourceTree, open_source
from harness.mutation.campaign import Campaign, Subject, declare, read_equivalents, spread
from harness.report.terminal import make_console, make_output, progress_display
from harness.results.mutation import Fate, MutantResult, read_results, score
from harness.store import Store

_BUDGET = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|)")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 60.0}
#: Faults of the harness's own campaigns that change nothing.
EQUIVALENTS = "suites/equivalents.toml"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add mutate."""
    parser = begin_command(
        commands,
        "mutate",
        "dfly-harness mutate --source ~/dragonfly --function pgrel --command 'relink {file} {output}'",
    )
    TargetOptions.declare(parser.add_argument)
    parser.add_argument("--file", default="kern_proc.c", metavar="FILE", help="the file to change (kern_proc.c)")
    parser.add_argument("--function", metavar="F", action="append", default=[], help="only in F (repeatable)")
    parser.add_argument("--budget", metavar="T", type=seconds_in, default=None, help="end after T: 90s, 30m, 2h")
    parser.add_argument("--number", metavar="N", type=int, default=0, help="only N faults, spread over the file")
    parser.add_argument("--most-tests", metavar="N", type=int, default=0, help="at most N tests on each fault")
    parser.add_argument("--map", metavar="KERNEL", default="", help="by what tests were found to run on KERNEL")
    parser.add_argument("-n", metavar="N", dest="workers", type=int, default=1, help="faults side by side (1)")
    parser.add_argument(
        "--boot-deadline", metavar="T", type=seconds_in, default=60.0, help="how long each may take to boot (60s)"
    )
    parser.add_argument("--again", action="store_true", help="try those again that survived, by the tests of today")
    parser.add_argument("--list", action="store_true", help="list the faults and what is known of them; run nothing")
    parser.add_argument("--declare", metavar="NAME=REASON", help="declare that a fault changes nothing, and why")
    parser.add_argument("--equivalents", metavar="FILE", type=Path, help="where such declarations are kept")
    add_source_options(parser, required=True)
    parser.set_defaults(action=_mutate)


def seconds_in(text: str) -> float:
    """Return how many seconds TEXT means (90s, 30m, 2h); for argparse."""
    found = _BUDGET.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 90s, 30m, 2h")
    return float(found[1]) * _UNITS[found[2]]


def _path_of(source: SourceTree, name: str) -> str:
    for path in (name, f"sys/{name}", f"sys/kern/{name}"):
        if source.has(path):
            return path
    raise UsageError(f"{source.origin} has no file {name}")


def _faults(options: argparse.Namespace, path: str, text: bytes) -> list[Mutant]:
    found = mutants_of(path, text)
    unknown = set(options.function) - {each.function for each in found}
    if unknown:
        raise UsageError(f"{path} has no function {', '.join(sorted(unknown))} in which anything can be changed")
    return [each for each in found if not options.function or each.function in options.function]


def _mutate(options: argparse.Namespace) -> int:
    store, console = Store(), make_console()
    with progress_display("sources") as progress:
        progress(f"reading {options.source}")
        source = apply_patches(open_source(store, options.source, options.rev), options.patch)
    path = _path_of(source, options.file)
    text = source.read(path) or b""
    faults = _faults(options, path, text)
    own = options.equivalents or store.folder("mutations") / "equivalents.toml"
    if options.declare is not None:
        return _declare(options.declare, faults, own)
    equivalents = read_equivalents([share() / EQUIVALENTS, own])
    how = options.build_command or "in a guest"
    key = hashlib.sha256("\0".join([path, how]).encode() + text).hexdigest()[:16]
    file = store.folder("mutations") / f"{PurePosixPath(path).stem}-{key}.jsonl"
    known = read_results(file)
    chosen = spread(faults, options.number)
    again = {Fate.SURVIVED} if options.again else set()
    todo = [
        each
        for each in chosen
        if each.name not in known or known[each.name].fate in again or _is_open(known[each.name], equivalents)
    ]
    if not options.list:
        campaign = _campaign(options, store, source, path, text, file, equivalents)
        console.print(f"{len(todo)} of {len(chosen)} faults to come; campaign: {file}", markup=False, soft_wrap=True)
        # Of a fault in what every process runs nothing comes up; what has booted before is tried then, on this host.
        os.environ.setdefault(BOOT_VARIABLE, f"{options.boot_deadline:g}")
        until = time.monotonic() + (options.budget if options.budget is not None else float("inf"))
        campaign.run(todo, workers=max(1, options.workers), until=until)
        known = read_results(file)
    return _report(chosen, known, listed=options.list)


def _is_open(result: MutantResult, equivalents: dict[str, str]) -> bool:
    """Tell whether a fault is to be tried again: nothing was learnt, it was never booted, or declared meanwhile."""
    untried = result.fate is Fate.LOST or (result.fate is Fate.UNREACHED and not result.tried)
    return untried or (result.name in equivalents and result.fate is not Fate.EQUIVALENT)


def _campaign(
    options: argparse.Namespace,
    store: Store,
    source: SourceTree,
    path: str,
    text: bytes,
    file: Path,
    equivalents: dict[str, str],
) -> Campaign:
    given = TargetOptions.read(options)
    resolved = decide(given.choice, store)
    if resolved.image is None or resolved.kernel is None:
        raise UsageError("mutate needs a DragonFly image and a map of a kernel: dfly-harness run --coverage")
    known = find_map(store, options.map, resolved.kernel.elf, resolved.kernel.osreldate or 0, [path])
    builder = None if options.build_command is not None else chosen_builder(options, store)
    subject = Subject(
        source, path, text, known, resolved.image, given, options.build_command, builder, options.most_tests
    )
    console = make_console()

    def say(result: MutantResult) -> None:
        console.print(f"{result.seconds:6.1f} s  {result}", markup=False, highlight=False, soft_wrap=True)

    return Campaign(subject, store, file, equivalents, say)


def _declare(text: str, faults: list[Mutant], file: Path) -> int:
    name, _, reason = text.partition("=")
    mutant = next((each for each in faults if each.name == name), None)
    if mutant is None:
        raise UsageError(f"there is no fault {name}: --list shows them")
    if not reason.strip():
        raise UsageError("--declare NAME=REASON needs the reason")
    declare(file, mutant, reason.strip())
    return ExitCode.PASSED


def _report(chosen: list[Mutant], known: dict[str, MutantResult], *, listed: bool) -> int:
    output = make_output()

    def line(text: str) -> None:
        output.print(text, markup=False, highlight=False, soft_wrap=True)

    results = [known[each.name] for each in chosen if each.name in known]
    if listed:
        for each in chosen:
            line(str(known.get(each.name, f"{each.name} {each.function}:{each.line} {each.what}: not tried yet")))
    else:
        for result in results:
            if result.fate in {Fate.SURVIVED, Fate.UNREACHED}:
                line(str(result))
    line(f"{len(results)} of {len(chosen)} faults are known; {score(results)}")
    return ExitCode.TEST_FAILED if any(each.fate is Fate.SURVIVED for each in results) else ExitCode.PASSED

# SPDX-License-Identifier: BSD-2-Clause
"""compare: the same suite on several kernels, with a statement of how sure the differences are."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.cli.hosts import add_host_options, hosts_of
from harness.cli.options import begin_command, require_room
from harness.cli.touching import add_touching, map_for
from harness.compare.campaign import CONFIDENCE, Campaign, Contender, Plan
from harness.compare.cost_judgement import BLOCKS, COUNTED_BOOTS
from harness.compare.costs import CostMeasurement
from harness.compare.evidence import FIRST_BOOTS, MOST_BOOTS
from harness.errors import HarnessError, UsageError
from harness.files import output_file, record_file, write_whole
from harness.guests.guest import Progress
from harness.guests.options import PUT, TargetOptions
from harness.guests.targets import ResolvedTarget, decide
from harness.machine.qemu import qemu_version
from harness.programs.options import ProgramOptions
from harness.report.comparison import print_comparison, to_markdown, write_plots
from harness.report.comparison_page import comparison_page
from harness.report.terminal import make_console, make_output_beside, progress_display
from harness.results.costs import Costs
from harness.runs.digests import digest_of_harness, digest_of_tests
from harness.runs.options import PRISTINE, RunOptions
from harness.runs.suite import default_tests, find_tests, root_of, test_arguments
from harness.store import Store

_ORACLE = "oracle"
_CONTROL = "control"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add compare."""
    parser = begin_command(
        commands,
        "compare",
        "dfly-harness compare stock fixed --repeat 5 --suite regressions -k pathname --defects",
    )
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="KERNEL",
        help="kernels in the store, the first one being the baseline; 'oracle', 'oracle:ERA', 'oracle:ERA:VARIANT' are"
        " the executable specification and a wrong variant of it, 'control' the Linux guest",
    )
    TargetOptions.declare(parser.add_argument)
    parser.add_argument(
        "--suite",
        metavar="PATH",
        action="append",
        default=[],
        help="tests: a suite by name, a file, a folder (repeatable; default: conformance)",
    )
    add_touching(parser, "only tests that run", " of the first kernel")
    ProgramOptions.declare(parser.add_argument)
    PUT.declare(parser.add_argument)
    parser.add_argument("-k", metavar="EXPR", dest="expression", help="only tests whose names match EXPR")
    parser.add_argument("--repeat", metavar="N", type=int, default=1, help="runs of the suite on each (default: 1)")
    parser.add_argument(
        "--no-again",
        action="store_true",
        help="do not run again what seems to differ: nothing is named then, suspicions are only listed",
    )
    parser.add_argument(
        "--most-boots",
        metavar="N",
        type=int,
        default=MOST_BOOTS,
        help=f"boots of each kernel, at most, to settle what seems to differ (default: {MOST_BOOTS})",
    )
    parser.add_argument("--jobs", metavar="N", type=int, default=0, help="machines side by side (default: by the CPUs)")
    add_host_options(parser)
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the first run (default: 0)")
    parser.add_argument(
        "--confidence", metavar="P", type=float, default=CONFIDENCE, help=f"of every statement (default: {CONFIDENCE})"
    )
    parser.add_argument("--defects", action="store_true", help="also run the tests of known defects")
    PRISTINE.declare(parser.add_argument)
    parser.add_argument("--costs", action="store_true", help="also measure what fork, wait, setsid, kill ... cost")
    parser.add_argument("--only-costs", action="store_true", help="measure costs and run no tests")
    parser.add_argument(
        "--blocks",
        metavar="N",
        type=int,
        default=BLOCKS,
        help=f"boots of each kernel to measure costs on, times in A B B A (default: {BLOCKS})",
    )
    parser.add_argument("--plots", metavar="FOLDER", type=Path, help="write plots of the costs (SVG) to FOLDER")
    parser.add_argument("--fresh", action="store_true", help="run again what was run before, too")
    parser.add_argument(
        "--json", metavar="FILE", type=record_file, help="write the comparison's record to FILE; - prints it"
    )
    parser.add_argument(
        "--html", metavar="FILE", type=output_file, help="write a page, with plots of the costs, to FILE"
    )
    parser.add_argument("--markdown", metavar="FILE", type=output_file, help="write a table for a pull request to FILE")
    parser.set_defaults(action=_compare)


def _contender(word: str, given: TargetOptions, run: RunOptions, store: Store, progress: Progress) -> Contender:
    kind, colon, variant = word.partition(":")
    if kind == _ORACLE:
        from harness.oracle import rules_of  # which other comparisons do without

        rules_of(variant or None)  # better told now than after the others' runs
        return Contender(word, word, tuple(replace(run, oracle=variant if colon else "", pristine=False).words()))
    resolved = _resolved(word, given, store)
    if word == _CONTROL:
        run = replace(run, target=replace(run.target, control=True, image=None))
    else:
        run = replace(run, target=replace(run.target, kernel=word, image=given.image))
    key = resolved.open(store, progress).key
    return Contender(word, key, tuple(replace(run, resolved=resolved).words()))


def _needs_machines(options: argparse.Namespace) -> bool:
    return any(word.partition(":")[0] != _ORACLE for word in options.targets)


def _resolved(word: str, given: TargetOptions, store: Store) -> ResolvedTarget:
    if word == _CONTROL:
        return ResolvedTarget()
    return decide(replace(given, kernel=word).choice, store)


def _check(options: argparse.Namespace, given: TargetOptions) -> None:
    if tests := [word for word in options.targets if "/" in word or "::" in word or word.endswith(".py")]:
        raise UsageError(f"{tests[0]} is no kernel: say which tests are compared by --suite {tests[0]}")
    if len(options.targets) < 2:
        raise UsageError("compare needs at least two kernels: the baseline, and what is held against it")
    if options.blocks < 1:
        raise UsageError(f"--blocks is at least 1; a change is named from {BLOCKS} on")
    if options.most_boots < FIRST_BOOTS:
        raise UsageError(f"--most-boots is at least {FIRST_BOOTS}: fewer settle nothing")
    if len(set(options.targets)) < len(options.targets):
        raise UsageError("a kernel is named twice: comparing it with itself tells nothing")
    if options.repeat < 1 or options.jobs < 0 or not 0.5 <= options.confidence < 1:
        raise UsageError("--repeat is at least 1, --jobs not negative, --confidence from 0.5 to below 1")
    if given.kernel is not None or given.control:
        raise UsageError("name the kernels to compare as arguments: leave out --kernel and --control")


def _plan(options: argparse.Namespace, given: TargetOptions, store: Store, progress: Progress) -> Plan:
    _check(options, given)
    machine = replace(given, image=None)
    programs = ProgramOptions.read(options)
    run = RunOptions(
        machine, defects=options.defects, pristine=options.pristine, programs=programs, put=tuple(options.put)
    )
    if options.touching:
        baseline = next((word for word in options.targets if word.partition(":")[0] not in {_ORACLE, _CONTROL}), "")
        known = map_for(store, baseline, options.touching)
        run = replace(run, touching=tuple(options.touching), map=str(known.file(store)), only=True)
    contenders = tuple(_contender(word, given, run, store, progress) for word in options.targets)
    named = [*options.suite, *map(str, programs.files)]
    tests = [find_tests(word) for word in named or default_tests(options.defects)]
    arguments = test_arguments(named, defects=options.defects)[len(tests) :]
    arguments += ["-k", options.expression] if options.expression is not None else []
    suites = [Path(test.partition("::")[0]) for test in tests[: len(options.suite)] or tests[len(programs.files) :]]
    digest = digest_of_tests(suites, [*programs.inputs, *(put.file for put in options.put)])
    # The oracle needs no QEMU.
    machine_words = (qemu_version(), str(given.accelerator)) if _needs_machines(options) else ()
    return Plan(
        contenders,
        tuple(tests),
        tuple(arguments),
        root_of(tests),
        options.seed,
        digest,
        (*machine_words, digest_of_harness()),
    )


def _costs(options: argparse.Namespace, given: TargetOptions, store: Store, progress: Progress) -> Iterator[Costs]:
    """Measure every kernel against the first, in time and, where that works, in instructions."""
    if any(word.partition(":")[0] in {_ORACLE, _CONTROL} for word in options.targets):
        raise UsageError("--costs compares DragonFly kernels: leave the oracle and the control guest out")
    base, *others = (_resolved(word, given, store).open(store, progress) for word in options.targets)
    for other, word in zip(others, options.targets[1:], strict=True):
        measurement = CostMeasurement(store, given.size, base, other, progress)
        timed = measurement.times(options.blocks)
        timed.base, timed.other = options.targets[0], word
        if timed.base_died or timed.other_died:
            yield timed
            continue
        try:
            counted = measurement.instructions(min(options.blocks, COUNTED_BOOTS))
            timed.costs += counted.costs
            timed.base_died, timed.other_died = counted.base_died, counted.other_died
        except HarnessError as error:
            timed.missing["instructions"] = str(error)
        yield timed


def _compare(options: argparse.Namespace) -> int:
    store, given = Store(), TargetOptions.read(options)
    require_room(store, machines=_needs_machines(options))
    console = make_console()
    if _needs_machines(options):
        given = given.decided(store)
    with progress_display("compare") as progress:
        plan = _plan(options, given, store, progress)
        hosts = hosts_of(options, store, given.accelerator if _needs_machines(options) else None, progress)
    jobs = (
        hosts.count if hosts else options.jobs or max(1, min(len(plan.contenders), (os.cpu_count() or 1) // given.cpus))
    )
    campaign = Campaign(store, plan, jobs=jobs, fresh=options.fresh, most_boots=options.most_boots, hosts=hosts)
    if known := campaign.known_runs(options.repeat):
        console.print(f"{known} runs were made before and are used (--fresh makes them again)", markup=False)
    with progress_display("compare") as progress:
        repeat = 0 if options.only_costs else options.repeat
        comparison = campaign.run(repeat, options.confidence, progress, again=not options.no_again)
        if options.costs or options.only_costs:
            comparison.costs = list(_costs(options, given, store, progress))
    programs = [path.name for path in options.program]
    comparison.suite = " ".join([*options.suite, *programs] or default_tests(options.defects))
    record = options.json or campaign.folder / "comparison.json"
    write_whole(record, json.dumps(comparison.to_json(), indent=1) + "\n")
    if options.plots is not None:
        write_plots(comparison, options.plots)
    if options.markdown is not None:
        write_whole(options.markdown, to_markdown(comparison))
    if options.html is not None:
        write_whole(options.html, comparison_page(comparison))
    print_comparison(comparison, make_output_beside(options.json))
    console.print(f"record: {record}", markup=False, soft_wrap=True)
    return comparison.exit_code

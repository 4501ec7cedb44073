# SPDX-License-Identifier: BSD-2-Clause
"""run: the conformance suite, or chosen tests, on one target."""

from __future__ import annotations

import argparse
import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.kernels import add_source_options, kernel_from_source, wants_source
from harness.cli.options import begin_command, require_room
from harness.config import share
from harness.coverage.choice import choose
from harness.coverage.follow import changed_places
from harness.coverage.map import find_map
from harness.errors import ExitCode, SignalledError, UsageError
from harness.guests.options import TargetOptions
from harness.guests.targets import decide, first_commands
from harness.kernels.artefact import Kernel
from harness.kernels.build import BuildFailedError
from harness.kernels.patch import apply_patches
from harness.kernels.source import open_source
from harness.options import PYTEST_PREFIX
from harness.plugin.parallel import affordable_workers, available_cores, available_memory
from harness.report.publish import publish
from harness.report.terminal import make_console, progress_display
from harness.results.partial import UNDER_WAY
from harness.results.record import NO_TEST, RunRecord, Trouble, find_record, read_record
from harness.results.verdict import Verdict
from harness.runs.options import RunOptions
from harness.runs.suite import PytestWords, find_tests, suite_arguments, suite_names
from harness.store import Store

_BY_SIGNAL = 128
_DEFAULT_WORKERS = 2
_KNOWN_TESTS = "nfplugin"  # what pytest calls its list of all tests it has ever collected


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add run."""
    parser = begin_command(
        commands,
        "run",
        "dfly-harness run --kernel stock -k setsid",
    )
    parser.usage = "dfly-harness run [OPTION...] [PATH...] [PYTEST OPTION...]"
    parser.description = (
        f"{parser.description}\n\nPATH is a file, a folder, FILE::TEST, or a suite by name, also in part:\n"
        f"{', '.join(suite_names())}, conformance/FILE (default: conformance, with --defects\nregressions, too).  All"
        " other options go to pytest, such as -m EXPR, --maxfail N,\n--junitxml FILE, --pdb, --co: see pytest --help."
    )
    RunOptions.declare(parser.add_argument)
    parser.add_argument(
        "--changed",
        nargs="?",
        const="",
        metavar="REV",
        help="with --source: first the tests that run what was changed since REV (by default: by the patches, or since"
        " the last commit), as --coverage has found",
    )
    parser.add_argument("-k", metavar="EXPR", dest="expression", help="only tests whose names match EXPR")
    parser.add_argument(
        "-n",
        metavar="N",
        dest="workers",
        type=_workers,
        help="machines side by side (pytest-xdist), or auto; a whole suite has two where cores and memory allow",
    )
    parser.add_argument("-x", action="store_true", dest="first", help="stop at the first failure")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a run that did not come to its end: its record, its name (history), or - for the last one",
    )
    add_source_options(parser)
    parser.set_defaults(action=_run, takes_rest=True)


def _workers(text: str) -> str:
    """Return what -n is to be; how many a host bears is told by the plugin, which pytest's own users have, too."""
    if text in {"auto", "logical"} or text.removeprefix("-").isdecimal():
        return text
    raise argparse.ArgumentTypeError(f"{text} is no number of machines: a number from 0 on, or auto")


def _default_workers(options: argparse.Namespace, given: RunOptions, words: PytestWords) -> str:
    """Return how many machines run what is asked for where nobody says: two for a whole suite, if they pay.

    A few tests are over before a second machine is up.  Who looks at one test, or through one machine, has one.
    """
    few = words.tests or given.programs.files or options.expression is not None or given.function or given.touching
    looks = options.first or given.hold or given.coverage is not None or words.options
    if few or looks:
        return ""
    memory, cpus = (0, 1) if given.oracle is not None else (given.target.size.memory, given.target.size.cpus)
    count = min(_DEFAULT_WORKERS, affordable_workers(available_cores(), available_memory(), memory, cpus))
    return str(count) if count > 1 else ""


def _tell_values_from_tests(options: argparse.Namespace) -> None:
    """Let `--oracle PATH`, `--coverage PATH` mean tests: argparse takes whatever follows for the option's value."""
    if options.coverage:
        with contextlib.suppress(UsageError):
            find_tests(options.coverage)
            options.rest.insert(0, options.coverage)
            options.coverage = ""
    word = options.oracle
    if not word:
        return
    from harness.oracle import rules_of  # which other runs do without

    try:
        rules_of(word)
    except UsageError:
        with contextlib.suppress(UsageError):
            find_tests(word)
            options.oracle = ""
            options.rest.insert(0, word)


def _resume(options: argparse.Namespace) -> int:
    """Go on with a run where it ended: the same tests on the same target, given as they were then."""
    store = Store()
    file = find_record(options.resume, store).resolve()
    record = read_record(file)
    if record.incomplete == UNDER_WAY:
        raise UsageError(f"{file}: {UNDER_WAY}; two runs into one record would spoil it")
    if not record.command:
        raise UsageError(f"{file} does not say how its run was begun: it cannot go on")
    chosen = options.expression is not None or options.first or wants_source(options)
    if options.rest or chosen or RunOptions.read(options) != RunOptions(TargetOptions()):
        raise UsageError("--resume goes on as the run was begun: leave out tests and all other options but -n")
    if not Path(record.folder).is_dir():
        raise UsageError(f"{record.folder}, where the run was begun, is gone")
    os.chdir(record.folder)
    known = len({result.test for result in record.results})
    require_room(store, machines=bool(record.options))
    make_console().print(f"{known} tests are known, {len(record.not_run)} have no result", markup=False)
    workers = ["-n", options.workers] if options.workers else []
    return _end(int(pytest.main([*record.command, *workers, f"--{PYTEST_PREFIX}resume={file}"])))


def _run(options: argparse.Namespace) -> int:
    if options.resume is not None:
        return _resume(options)
    _tell_values_from_tests(options)
    chosen = options.only, options.map
    if options.changed is not None:  # what they say is about the places that are found below
        options.only, options.map = False, ""
    given = RunOptions.read(options)
    console, store = make_console(), Store()
    require_room(store, machines=given.oracle is None)
    if wants_source(options):
        if given.target.control or given.target.kernel is not None or given.oracle is not None:
            raise UsageError("--source says which kernel to test: leave out --kernel, --control and --oracle")
        kernel = _built(options, given, store).name
        given = replace(given, target=replace(given.target, kernel=kernel))
        if options.changed is not None:
            given = _touching_changes(options, given, store, *chosen)
    elif options.changed is not None:
        raise UsageError("--changed is about sources: give --source TREE, too")
    given = replace(given, live=True)
    if given.oracle is None:
        resolved = decide(given.target.choice, store)
        with progress_display("target") as progress:
            target = resolved.open(store, progress)
        given = replace(given, resolved=resolved)
        style = "bold" if target.is_dragonfly else "bold red"
        console.print(target.label, style=style, markup=False, soft_wrap=True)
        if not target.is_dragonfly and not given.target.control:
            console.print("There is no DragonFly target in the store. To get one:", markup=False)
            for command in first_commands():
                console.print(f"    {command}", markup=False, soft_wrap=True)
    words = PytestWords.split(options.rest)
    arguments = suite_arguments(given, words.tests or _files_touching(given, store))
    arguments += ["-k", options.expression] if options.expression is not None else []
    workers = options.workers or _default_workers(options, given, words)
    arguments += ["-n", workers] if workers else []
    arguments += ["-x"] if options.first else []
    plugins: list[object] = []
    if not any("no:cacheprovider" in word for word in (*words.options, os.environ.get("PYTEST_ADDOPTS", ""))):
        # Beside the suites it would lie in a checkout, or among the packages of an installation.
        arguments += ["-o", f"cache_dir={store.cache / 'pytest'}"]
        plugins.append(_FailuresOnly())
    # That pytest's own plugins were asked what is a test and what an option's value is no news to users.
    quiet = ("-W", "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning")
    return _end(int(pytest.main([*arguments, *quiet, *words.options], plugins)))


class _FailuresOnly:
    """A plugin by which the store's cache keeps which tests have failed, but not which there have ever been.

    pytest never forgets one, and reads them all whenever it starts: with suites of others, whose programs are tests by
    the thousand, that comes to half a second.  Only --new-first asks for them.
    """

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        if config.cache is None or config.getoption("newfirst", default=False):
            return
        if config.pluginmanager.has_plugin(_KNOWN_TESTS):
            config.pluginmanager.unregister(name=_KNOWN_TESTS)
            if config.cache.get("cache/nodeids", None):
                config.cache.set("cache/nodeids", [])


def _touching_changes(
    options: argparse.Namespace, given: RunOptions, store: Store, only: bool, wanted: str
) -> RunOptions:
    """Return GIVEN with what was changed in the sources as the places whose tests go first, by the map WANTED."""
    if given.touching:
        raise UsageError("--changed says what is touched: leave out --touching")
    source = open_source(store, options.source, options.rev)
    new = apply_patches(source, options.patch)
    old = (
        source
        if options.patch and not options.changed
        else open_source(store, options.source, options.changed or "HEAD")
    )
    kernel = store.get(Kernel, str(given.target.kernel))
    known = find_map(store, wanted, kernel.elf, kernel.osreldate or 0)
    places, said = changed_places(old, new, known)
    console = make_console()
    for text in said:
        console.print(f"{text}: tests of it are not known", markup=False, soft_wrap=True)
    if not places:
        if only:
            raise UsageError("no test is known to run what was changed: leave out --only")
        console.print("no test is known to run what was changed: all are run", markup=False)
        return given
    return replace(given, touching=tuple(places), map=str(known.file(store)), only=only)


def _files_touching(given: RunOptions, store: Store) -> list[str]:
    """Return the files of the tests that run the places asked for, where no others are wanted: the rest is not read."""
    kernel = given.resolved.kernel if given.resolved is not None else None
    if not given.only or kernel is None:
        return []
    names = [place.file or place.function for place in given.touching]
    known = find_map(store, given.map, kernel.elf, kernel.osreldate or 0, names)
    named = dict.fromkeys(test.partition("::")[0] for test in choose(known, given.touching).tests)
    return [file for file in named if (share() / file).is_file()]


def _built(options: argparse.Namespace, given: RunOptions, store: Store) -> Kernel:
    """Return the kernel of the sources; that there is none is a result, and leaves a record and a report, too."""
    try:
        return kernel_from_source(options, store)
    except BuildFailedError as error:
        trouble = Trouble(Verdict.BUILD_FAILURE, str(error), Verdict.BUILD_FAILURE)
        record = RunRecord(
            f"DragonFly: {options.source}",
            is_dragonfly=True,
            options=given.target.to_json(),
            workers=0,
            trouble=trouble,
            exit_status=int(error.exit_code),
        )
        written = record.write(store, given.json)
        publish(record, given.html)
        make_console().print(f"record: {written}", markup=False, soft_wrap=True)
        raise


def _end(status: int) -> int:
    """Return the exit status of a pytest that ended with STATUS: the plugin's word, unless it never had one."""
    if status > _BY_SIGNAL:
        raise SignalledError(status - _BY_SIGNAL)
    if status == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UsageError(NO_TEST)
    return ExitCode.USAGE if status == pytest.ExitCode.USAGE_ERROR else status

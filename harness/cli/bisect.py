"""bisect: find the commit that broke it, or fixed it, and prove it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from harness.bisect.decision import Outcome
from harness.bisect.gitlog import read_log, told, write_log
from harness.bisect.laboratory import KernelLaboratory
from harness.bisect.predicate import Bound, Predicate
from harness.bisect.quirks import TABLE, load_quirks
from harness.bisect.rates import CERTAIN
from harness.bisect.repository import Repository
from harness.bisect.search import Bisection
from harness.bisect.state import FILE, State, key_of
from harness.cli.kernels import chosen_builder
from harness.cli.options import add_command, add_target_options, chosen_size, chosen_target, decided
from harness.errors import ExitCode, UsageError
from harness.guests.guest import MachineSize, Progress
from harness.kernels.build import DEFAULT_CONFIG
from harness.report.bisection import bisection_data, bisection_page, print_bisection, print_explanation
from harness.report.terminal import make_console, progress_display
from harness.runs.suite import suite_arguments
from harness.store import Store

CONFIDENCE = 0.95
_PREFIX = "bisect-"
_FILE_WIDTH = 160


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add bisect."""
    parser = add_command(
        commands,
        "bisect",
        "Find the commit that broke a test, panics, or made something slow (or fixed it), and prove it.",
        "dfly-harness bisect --source ~/dragonfly --good v4.8.0 --bad master --path sys/kern -- suites/conformance"
        " -k setsid",
    )
    parser.add_argument("--source", type=Path, metavar="REPO", help="git repository with DragonFly's history")
    parser.add_argument("--good", action="append", default=[], metavar="REV", help="without the failure (repeatable)")
    parser.add_argument("--bad", metavar="REV", help="with the failure")
    parser.add_argument("--path", action="append", default=[], help="only commits that touch PATH (repeatable)")
    parser.add_argument(
        "--needs",
        action="append",
        default=[],
        metavar="PATH",
        help="what a kernel is built from (repeatable): commits that leave it alone make the same kernel, and only this"
        " is handed to the builder (default: everything)",
    )
    _add_builder_options(parser)
    add_target_options(parser)
    group = parser.add_argument_group("what is sought (default: that one of the tests fails)")
    group.add_argument("--panic", nargs="?", const="", metavar="TEXT", help="a panic or hang with TEXT in its cause")
    group.add_argument("--failure", default="", metavar="REGEX", help="only failures whose report matches REGEX")
    group.add_argument("--bench", metavar="NAME", help="that this workload of `compare --costs` crosses the bound")
    group.add_argument("--bound", type=float, metavar="X", help="most it may cost, in microseconds (or instructions)")
    group.add_argument("--below", action="store_true", help="the bound is the least it may cost")
    group.add_argument("--instructions", action="store_true", help="count instructions instead of time")
    group.add_argument(
        "--good-means", choices=("pass", "fail"), default="pass", help="'fail' finds a fix: --good fails, --bad passes"
    )
    group.add_argument("--flaky", action="store_true", help="the failure is known not to happen each time")
    parser.add_argument("--confidence", type=float, default=CONFIDENCE, metavar="P", help=f"default: {CONFIDENCE}")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="machines side by side (default: 1)")
    parser.add_argument("--quirks", type=Path, action="append", default=[], metavar="FILE", help="what old trees need")
    parser.add_argument("--fresh", action="store_true", help="forget what was observed before; kernels stay")
    parser.add_argument("--resume", nargs="?", const="", metavar="KEY", help="go on with the last bisection, or KEY")
    parser.add_argument("--explain", action="store_true", help="say what is known and what comes next, and end")
    parser.add_argument("--import-log", type=Path, metavar="FILE", help="take over what `git bisect log` wrote")
    parser.add_argument("--export-log", type=Path, metavar="FILE", help="write what is known for `git bisect replay`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one page of HTML")
    parser.add_argument(
        "tests", nargs="*", metavar="-- TEST", help="after --: tests, and options for pytest such as -k"
    )
    parser.set_defaults(action=lambda options: _bisect(parser, options))


def _add_builder_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("building kernels, as `kernel build` does")
    group.add_argument(
        "--command",
        "--kernel-builder",
        dest="build_command",
        metavar="'CMD {source} {output}'",
        help="build on this host with a command of yours (default: in a DragonFly guest)",
    )
    group.add_argument("--config", default=DEFAULT_CONFIG, help=f"kernel configuration (default: {DEFAULT_CONFIG})")
    group.add_argument("--builder-image", metavar="NAME", help="image to build in (default: --image's, or the newest)")
    group.add_argument("--builder-kernel", metavar="NAME", help="kernel to build under (default: the image's own)")
    group.add_argument(
        "--patch", type=Path, action="append", default=[], metavar="FILE", help="apply to every revision"
    )
    group.add_argument("--retry", action="store_true", help="build again what failed to build before")
    group.set_defaults(with_modules=False)


def _tests(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return paths, and options for pytest."""
    words: list[str] = options.tests
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:first], words[first:]


def _predicate(options: argparse.Namespace) -> Predicate | Bound:
    if options.bench is None:
        if options.bound is not None or options.below or options.instructions:
            raise UsageError("--bound, --below and --instructions are about a benchmark: say which one (--bench NAME)")
        if options.panic is not None and options.failure:
            raise UsageError("--panic and --failure exclude each other")
        return Predicate(options.panic, options.failure, options.good_means == "fail")
    if options.bound is None:
        raise UsageError("--bench needs a --bound to cross")
    return Bound(options.bench, options.bound, options.below, options.instructions, options.good_means == "fail")


def _check(options: argparse.Namespace, size: MachineSize) -> None:
    if options.source is None or not options.good or options.bad is None:
        raise UsageError("a bisection needs --source REPO, --good REV and --bad REV (or --resume)")
    if not 0.5 <= options.confidence < 1 or options.jobs < 1:
        raise UsageError("--confidence is from 0.5 to below 1, and --jobs at least 1")
    if options.control or options.kernel is not None:
        raise UsageError("bisect builds the kernels it tests: leave out --kernel and --control")
    paths, _ = _tests(options)
    if options.bench is None and not paths:
        raise UsageError("say which tests: bisect ... -- suites/conformance -k EXPR")
    suite_arguments(chosen_target(options), size, paths)


def _folder(store: Store, key: str) -> Path:
    folders = [path.parent for path in store.folder("results").glob(f"{_PREFIX}{key}*/{FILE}")]
    if not folders:
        raise UsageError("there is no bisection to go on with" if not key else f"there is no bisection {key}")
    return max(folders, key=lambda folder: (folder / FILE).stat().st_mtime)


def _bisect(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    store = Store()
    if options.resume is not None:
        if options.source is not None:
            raise UsageError("--resume goes on with what was asked before: leave out --source")
        folder = _folder(store, options.resume)
        state = State.load(folder)
        given = options
        options = parser.parse_args(list(state.arguments))
        for name in ("explain", "import_log", "export_log", "json", "html"):
            setattr(options, name, getattr(given, name))
        return _go_on(options, store, folder, state)
    return _go_on(options, store, None, None)


def _given(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the options that make the question, as --resume takes them."""
    words = [f"--source={options.source.resolve()}", f"--bad={options.bad}"]
    for name in ("good", "path", "needs", "kenv"):
        words += [f"--{name}={value}" for value in getattr(options, name)]
    for name in ("patch", "quirks"):
        words += [f"--{name}={value.resolve()}" for value in getattr(options, name)]
    named = {
        "command": options.build_command,
        "config": options.config,
        "builder-image": options.builder_image,
        "builder-kernel": options.builder_kernel,
        "image": options.image,
        "memory": options.memory,
        "cpus": options.cpus,
        "accelerator": options.accelerator,
        "panic": options.panic,
        "failure": options.failure or None,
        "bench": options.bench,
        "bound": options.bound,
        "good-means": options.good_means,
        "confidence": options.confidence,
        "jobs": options.jobs,
    }
    words += [f"--{name}={value}" for name, value in named.items() if value is not None]
    flags = ("below", "instructions", "flaky")
    words += [f"--{name.replace('_', '-')}" for name in flags if getattr(options, name)]
    return (*words, "--", *options.tests)


def _go_on(options: argparse.Namespace, store: Store, folder: Path | None, state: State | None) -> int:
    size = chosen_size(options)
    _check(options, size)
    repository = Repository(options.source, store, options.path, options.needs)
    predicate = _predicate(options)
    builder = chosen_builder(options, store)
    if state is None or folder is None:
        scope = repository.range(options.good, options.bad)
        key = key_of(
            str(options.source.resolve()), scope.good, scope.bad, options.path, options.needs, builder.identity,
            options.config, predicate, options.tests, options.flaky, [str(each) for each in options.patch],
            options.image, options.kenv, size.cpus, size.memory,
        )  # fmt: skip
        folder = store.folder("results", f"{_PREFIX}{key}")
        if (folder / FILE).exists() and not options.fresh:
            state = State.load(folder)
            state.confidence = options.confidence
        else:
            state = State(
                key,
                _given(options),
                str(options.source.resolve()),
                _in_words(predicate, options),
                scope,
                options.confidence,
                options.good_means == "fail",
                0.0 if options.flaky else CERTAIN,
            )
    console = make_console()
    if options.import_log is not None:
        _import(options.import_log, state, repository)
    makes_runs = not options.explain and options.export_log is None
    with progress_display("bisect") as progress:
        bisection = Bisection(
            state,
            folder,
            store,
            repository,
            _laboratory(
                options, store, repository, predicate, decided(size, store) if makes_runs else size, folder, progress
            ),
            jobs=options.jobs,
            progress=progress,
        )
        state.write(folder)
        if makes_runs:
            if known := len(state.observations):
                console.print(f"{known} observations were made before and are used", markup=False)
            bisection.run()
    if options.export_log is not None:
        subjects = repository.subjects([state.scope.bad, *state.scope.good, *state.scope.history.commits])
        options.export_log.write_text(write_log(state, subjects))
        console.print(f"log: {options.export_log}", markup=False, soft_wrap=True)
    output = Console(highlight=False)
    output = output if output.is_terminal else Console(highlight=False, width=_FILE_WIDTH)
    if options.explain:
        print_explanation(bisection, repository, output)
        return ExitCode.PASSED
    if options.export_log is not None:
        return ExitCode.PASSED
    return _report(options, bisection, repository, output, folder)


def _report(
    options: argparse.Namespace, bisection: Bisection, repository: Repository, output: Console, folder: Path
) -> int:
    data = bisection_data(bisection, repository)
    for file in (folder / "report.json", options.json):
        if file is not None:
            file.write_text(json.dumps(data, indent=1) + "\n")
    page = bisection_page(data)
    for file in (folder / "report.html", options.html):
        if file is not None:
            file.write_text(page, encoding="utf-8")
    print_bisection(data, output)
    make_console().print(f"report: {options.html or folder / 'report.html'}", markup=False, soft_wrap=True)
    return ExitCode.PASSED if data["decided"] else ExitCode.TEST_FAILED


def _laboratory(
    options: argparse.Namespace,
    store: Store,
    repository: Repository,
    predicate: Predicate | Bound,
    size: MachineSize,
    folder: Path,
    progress: Progress,
) -> KernelLaboratory:
    paths, rest = _tests(options)
    return KernelLaboratory(
        store,
        repository,
        chosen_builder(options, store),
        predicate,
        config=options.config,
        choice=chosen_target(options),
        size=size,
        paths=paths,
        options=rest,
        quirks=load_quirks(TABLE, *options.quirks),
        patches=options.patch,
        folder=folder,
        retry=options.retry,
        progress=progress,
    )


def _in_words(predicate: Predicate | Bound, options: argparse.Namespace) -> str:
    if isinstance(predicate, Bound):
        unit = "instructions" if predicate.instructions else "us"
        sought = f"{predicate.workload} costs {'less' if predicate.below else 'more'} than {predicate.limit:g} {unit}"
    elif predicate.panic is not None:
        sought = f"a panic or hang{f' with {predicate.panic!r}' if predicate.panic else ''} in {_joined(options.tests)}"
    else:
        sought = f"a failure of {_joined(options.tests)}"
        sought += f" that matches {predicate.failure!r}" if predicate.failure else ""
    return f"the end of: {sought}" if options.good_means == "fail" else sought


def _joined(words: Iterable[str]) -> str:
    return " ".join(words)


def _import(file: Path, state: State, repository: Repository) -> None:
    try:
        text = file.read_text()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    number = state.scope.history.number
    for said in read_log(text):
        commit = repository.resolve(said.revision)
        # The ends are known; what lies outside says nothing about the commits in question.
        if commit in number and not (commit == state.scope.bad and said.outcome is Outcome.BAD):
            state.observations.append(told(said, commit))

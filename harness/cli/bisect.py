# SPDX-License-Identifier: BSD-2-Clause
"""bisect: find the commit that broke it, or fixed it, and prove it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from harness.bisect.decision import Outcome
from harness.bisect.gitlog import read_log, told, write_log
from harness.bisect.laboratory import KernelLaboratory
from harness.bisect.preview import check_tests
from harness.bisect.question import Question
from harness.bisect.quirks import TABLE, load_quirks
from harness.bisect.rates import CERTAIN
from harness.bisect.repository import Repository
from harness.bisect.search import Bisection, Budget
from harness.bisect.state import FILE, State
from harness.bisect.summary import calibration, explain, report_of
from harness.cli.hosts import add_host_options, hosts_of
from harness.cli.kernels import make_builder
from harness.cli.options import begin_command, require_room
from harness.cli.touching import FOUND, add_touching, names_touching
from harness.errors import ExitCode, HarnessError, UsageError
from harness.files import output_file, record_file, write_whole
from harness.guests.guest import Progress
from harness.guests.options import TargetOptions
from harness.images.base import BaseImage
from harness.options import PYTEST_PREFIX
from harness.report.bisection import bisection_page, print_bisection, print_explanation
from harness.report.terminal import make_console, make_output, make_output_beside, progress_display
from harness.results.bisection import FOLDER, REPORT
from harness.runs.hosts import HostPool
from harness.store import Store

CONFIDENCE = 0.95
# What `--resume` takes besides: it changes how the search goes on and what is shown, not what is sought.
_HONOURED = (
    "resume",
    "jobs",
    "confidence",
    "retry",
    "explain",
    "import_log",
    "export_log",
    "json",
    "html",
    "runs",
    "hours",
    "hosts",
    "hosts_command",
)
# What the parser itself has.
_OURS = ("action", "command", "rest", "help")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add bisect."""
    parser = begin_command(
        commands,
        "bisect",
        "dfly-harness bisect --source ~/dragonfly --good v4.8.0 --bad master --path sys/kern -- conformance -k setsid",
    )
    building = parser.add_argument_group("building kernels, as `kernel build` does")
    sought = parser.add_argument_group("what is sought (default: that one of the tests fails)")
    Question.declare(parser.add_argument, building.add_argument, sought.add_argument)
    building.add_argument("--retry", action="store_true", help="build again what failed to build before")
    parser.add_argument("--confidence", type=float, metavar="P", help=f"default: {CONFIDENCE}")
    parser.add_argument("--jobs", type=int, metavar="N", help="machines side by side (default: 1)")
    add_host_options(parser)
    parser.add_argument("--runs", type=int, metavar="N", help="end after N runs with the best answer so far")
    parser.add_argument("--hours", type=float, metavar="H", help="start no run after H hours")
    parser.add_argument("--fresh", action="store_true", help="forget what was observed before; kernels stay")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="KEY",
        help="go on with the last bisection, or KEY; --jobs or --hosts, --confidence, --retry, --runs, --hours may be"
        " given anew",
    )
    parser.add_argument("--explain", action="store_true", help="say what is known and what comes next, and end")
    parser.add_argument("--import-log", type=Path, metavar="FILE", help="take over what `git bisect log` wrote")
    parser.add_argument("--export-log", type=output_file, metavar="FILE", help="write what `git bisect replay` reads")
    parser.add_argument("--json", type=record_file, metavar="FILE", help="write the report as JSON; - prints it")
    parser.add_argument("--html", type=output_file, metavar="FILE", help="write the report as one page of HTML")
    add_touching(parser, f"the {FOUND} tests that tell most about")
    parser.add_argument(
        "tests", nargs="*", metavar="-- TEST", help="after --: tests, and options for pytest such as -k"
    )
    parser.set_defaults(action=lambda options: _bisect(parser, options))


def _folder(store: Store, key: str) -> Path:
    folders = [path.parent for path in store.folder("results").glob(f"{FOLDER}{key}*/{FILE}")]
    if not folders:
        raise UsageError("there is no bisection to go on with" if not key else f"there is no bisection {key}")
    return max(folders, key=lambda folder: (folder / FILE).stat().st_mtime)


def _bisect(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    store = Store()
    require_room(store)
    if options.resume is None:
        found = names_touching(store, options.touching, FOUND) if options.touching else ()
        return _Search(store, options, Question.read(options, [*found, *options.tests])).go_on()
    refused = [
        f"--{name.replace('_', '-')}"
        for name, value in vars(options).items()
        if name not in {*_HONOURED, *_OURS} and value != parser.get_default(name) and value != []
    ]
    if refused:
        raise UsageError(f"--resume goes on with what was asked before: leave out {', '.join(sorted(refused))}")
    folder = _folder(store, options.resume)
    state = State.load(folder)
    asked = parser.parse_args(list(state.arguments))
    if options.confidence is not None:
        state.confidence = options.confidence
    if options.jobs is None and options.hosts is None:
        options.jobs = asked.jobs
    return _Search(store, options, Question.read(asked, asked.tests), folder, state).go_on()


class _Search:
    """One call of the command: QUESTION, and OPTIONS about how it is searched and shown."""

    def __init__(
        self,
        store: Store,
        options: argparse.Namespace,
        question: Question,
        folder: Path | None = None,
        state: State | None = None,
    ) -> None:
        self._store = store
        self._options = options
        self._question = question
        confidence = CONFIDENCE if options.confidence is None else options.confidence
        self._jobs = 1 if options.jobs is None else options.jobs
        if not 0.5 <= confidence < 1 or self._jobs < 1:
            raise UsageError("--confidence is from 0.5 to below 1, and --jobs at least 1")
        if options.hosts is not None and question.bench is not None:
            raise UsageError("--hosts runs tests; --bench measures on one host, this one: leave out one of them")
        if (options.runs is not None and options.runs < 1) or (options.hours is not None and not options.hours > 0):
            raise UsageError("--runs is at least 1, and --hours more than 0")
        self._repository = Repository(
            question.source,
            store,
            question.path,
            question.needs,
            question.exclude,
            first_parent=question.first_parent,
        )
        self._builder = make_builder(
            store,
            question.build_command,
            question.builder_image or question.target.image,
            question.builder_kernel,
            question.target.accelerator,
        )
        if folder is None or state is None:
            folder, state = self._begin(confidence)
        self._folder, self._state = folder, state

    def _begin(self, confidence: float) -> tuple[Path, State]:
        question, options = self._question, self._options
        scope = self._repository.range(question.good, question.bad)
        key = question.key(scope, self._builder.identity)
        folder = self._store.folder("results", f"{FOLDER}{key}")
        if (folder / FILE).exists() and not options.fresh:
            state = State.load(folder)
            state.confidence = confidence
            return folder, state
        if question.bench is None:
            ends = {**dict.fromkeys(scope.good, "good"), scope.bad: "bad"}
            any_era = question.any_era or f"--{PYTEST_PREFIX}any-era" in question.pytest_options
            check_tests(self._store, self._repository, ends, question.paths, question.pytest_options, any_era=any_era)
        jobs = [f"--jobs={options.jobs}"] if options.jobs is not None else []
        return folder, State(
            key,
            (*jobs, *question.words()),
            str(question.source),
            question.in_words(),
            scope,
            confidence,
            question.good_means == "fail",
            0.0 if question.flaky else CERTAIN,
        )

    def go_on(self) -> int:
        """Search, or show what is known; return the exit status."""
        options, state, console = self._options, self._state, make_console()
        if options.import_log is not None:
            _import(options.import_log, state, self._repository)
        makes_runs = not options.explain and options.export_log is None
        if makes_runs and not self._store.all(BaseImage):
            raise HarnessError(
                "a search boots kernels, and the store has no image to boot them with: dfly-harness image build"
                " 6.4.2, or image import NAME --disk FILE --ssh-key FILE"
            )
        with progress_display("bisect") as progress:
            target = self._question.target.decided(self._store) if makes_runs else self._question.target
            hosts = hosts_of(options, self._store, target.accelerator, progress) if makes_runs else None
            bisection = Bisection(
                state,
                self._folder,
                self._store,
                self._repository,
                self._laboratory(target, hosts, progress),
                jobs=hosts.count if hosts else self._jobs,
                budget=Budget(options.runs, options.hours),
                progress=progress,
            )
            state.write(self._folder)
            if makes_runs:
                if known := len(state.observations):
                    console.print(f"{known} observations were made before and are used", markup=False)
                bisection.run()
        if options.export_log is not None:
            commits = [state.scope.bad, *state.scope.good, *state.scope.history.commits]
            write_whole(options.export_log, write_log(state, self._repository.subjects(commits)))
            console.print(f"log: {options.export_log}", markup=False, soft_wrap=True)
        if options.explain:
            print_explanation(explain(bisection, self._repository), make_output())
            return ExitCode.PASSED
        return ExitCode.PASSED if options.export_log is not None else self._report(bisection)

    def _report(self, bisection: Bisection) -> int:
        options, folder = self._options, self._folder
        report = report_of(bisection, self._repository)
        for file in (folder / REPORT, options.json):
            if file is not None:
                write_whole(file, json.dumps(report.to_json(), indent=1) + "\n")
        page = bisection_page(report, calibration())
        for file in (folder / "report.html", options.html):
            if file is not None:
                write_whole(file, page)
        print_bisection(report, make_output_beside(options.json))
        if bisection.stopped:
            make_console().print(
                f"{bisection.stopped}: this is the best answer so far, and bisect --resume goes on",
                markup=False,
                soft_wrap=True,
            )
        make_console().print(f"report: {options.html or folder / 'report.html'}", markup=False, soft_wrap=True)
        return ExitCode.PASSED if report.decided else ExitCode.TEST_FAILED

    def _laboratory(self, target: TargetOptions, hosts: HostPool | None, progress: Progress) -> KernelLaboratory:
        question = self._question
        return KernelLaboratory(
            self._store,
            self._repository,
            self._builder,
            question.predicate(),
            config=question.config,
            target=target,
            paths=question.paths,
            options=question.pytest_options,
            quirks=load_quirks(TABLE, *question.quirks),
            patches=question.patch,
            folder=self._folder,
            any_era=question.any_era,
            pristine=question.pristine,
            retry=self._options.retry,
            hosts=hosts,
            progress=progress,
        )


def _import(file: Path, state: State, repository: Repository) -> None:
    try:
        text = file.read_text()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    number = state.scope.history.number
    known = {(each.commit, each.outcome) for each in state.observations if each.role == "told"}
    for said in read_log(text):
        commit = repository.resolve(said.revision)
        # The ends are known; what lies outside says nothing about the commits in question.
        if commit not in number or (commit == state.scope.bad and said.outcome is Outcome.BAD):
            continue
        if (commit, said.outcome) not in known:  # what was said before is no second experiment
            known.add((commit, said.outcome))
            state.observations.append(told(said, commit))

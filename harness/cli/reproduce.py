# SPDX-License-Identifier: BSD-2-Clause
"""reproduce: the recorded calls of a failed test, cut down, as a C program that runs without the harness."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from harness.cli.options import begin_command
from harness.config import share
from harness.errors import ExitCode, UsageError
from harness.files import output_file
from harness.guests.options import TargetOptions
from harness.guests.targets import TargetChoice, resolve_target
from harness.processes.session import Session, Warmth
from harness.report.terminal import make_console, progress_display
from harness.report.words import sentence
from harness.reproduce.program import FORMS, is_told, write_program
from harness.reproduce.race import SECONDS, stated_interleaving, write_race
from harness.reproduce.reduction import reduce_story
from harness.reproduce.steps import Story, read_story
from harness.reproduce.trial import Trials
from harness.results.naming import named, only_test
from harness.results.record import RunRecord, TestResult, find_record, read_record
from harness.results.verdict import Verdict
from harness.runs.suite import find_tests
from harness.store import Store

_LETHAL = 3  # runs of a program that the kernel dies of: each costs a guest
_STARTS = 30  # s that a program of a race has for all but racing
_CLASS = re.compile(r"^(?:\w+\.)+\w+Error: ")  # of an exception
_MET = re.compile(r"^E\s+(.*)$", re.MULTILINE)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add reproduce."""
    parser = begin_command(
        commands,
        "reproduce",
        "dfly-harness reproduce - test_a_zombie_is_protected --c zombie.c",
    )
    parser.add_argument("run", metavar="RUN", help="what `run --json` wrote, a run's name, or - for the last run")
    parser.add_argument("test", metavar="TEST", help="the test, or a part of its name that is no other's")
    parser.add_argument("--c", metavar="FILE", type=output_file, help="write the program here (default: print it)")
    parser.add_argument("--times", metavar="M", type=int, default=5, help="run what is offered M times (default: 5)")
    parser.add_argument("--deadline", metavar="SECONDS", type=float, default=15.0, help="of one try (default: 15)")
    TargetOptions.declare(parser.add_argument)
    parser.set_defaults(action=_reproduce)


def _failed(run: str, test: str, store: Store) -> tuple[RunRecord, TestResult]:
    file = find_record(run, store)
    record = read_record(file)
    found = named(test, record.results)
    against = {each.test: each for each in found if each.verdict.against_kernel}
    if not against:
        raise UsageError(f"{file}: {test} {'did not fail' if found else 'is no test of it'}")
    return record, against[only_test(against)]


def _reproduce(options: argparse.Namespace) -> int:
    store, console = Store(), make_console()
    record, result = _failed(options.run, options.test, store)
    if not record.is_dragonfly:
        raise UsageError("a program is made for DragonFly: this run was on the control guest")
    by_hand = share() / "suites" / result.reproducer
    with progress_display("reproduce") as progress:
        given = as_recorded(TargetOptions.read(options), record)
        choice = TargetChoice(
            given.choice.image or record.image,
            given.choice.kernel or record.kernel,
            environment=given.choice.environment,
        )

        def trials(cpus: int = 1, deadline: float = 0.0) -> Trials:
            size = replace(given.size, cpus=max(cpus, given.size.cpus))
            warmth = Warmth(resolve_target(choice, store, progress), store, size)
            return Trials(lambda: Session.resume(warmth, progress), store, deadline=max(deadline, options.deadline))

        try:
            found = _cut_down(options, result, trials, progress)
        except UsageError as refusal:
            if not (result.reproducer and by_hand.is_file()):
                raise
            console.print(f"{refusal}: here is the program written by hand", markup=False, soft_wrap=True)
            found = _try_by_hand(options, result, by_hand, trials)
    console.print(f"{found.said} (kernel {choice.kernel or 'installed'})", markup=False, soft_wrap=True)
    if found.text:
        _offer(found.text, options.c)
    return ExitCode.PASSED if found.shown else ExitCode.TEST_FAILED


class _Found(NamedTuple):
    """What came of it in words, the program to be offered (empty: none), and how often it showed the defect."""

    said: str
    text: str = ""
    shown: int = 0


def _cut_down(
    options: argparse.Namespace, result: TestResult, trials: Callable[..., Trials], progress: Callable[[str], None]
) -> _Found:
    """Return the recorded calls of RESULT as a program, none where that shows nothing.

    Calls that were made beside each other are told as a race where they show nothing one after the other.  Raises
    UsageError for calls that cannot be told.
    """
    dies = _dies(result)
    story = read_story(result.calls, FORMS, dies=dies)
    story = story.without(number for number, step in enumerate(story.steps) if not is_told(step, story))
    name = _name(options)
    title, expectation = _words(result)

    def program(told: Story) -> str:
        return write_program(told, title, name, expectation)

    with trials() as tried:

        def shows(told: Story) -> bool:
            progress(f"try {tried.count + 1}: {len(told.steps)} calls")
            return tried.shows(program(told), name, dies=dies)

        if shows(story):
            small = reduce_story(story, shows)
            runs = _runs(options, dies)
            count = sum(shows(small) for _ in range(runs))
            cut = f"{len(story.steps)} calls cut down to {len(small.steps)} in {tried.count} tries"
            return _Found(f"{cut}; showed the defect {count} of {runs} times", program(small), count)
    if dies and len(story.racers) > 1:
        return _race(options, result, story, trials, progress)
    left = f" ({len(story.left_out)} calls could not be told in C)" if story.left_out else ""
    said = f"{len(story.steps)} calls, made one after the other, do not show it{left}"
    if result.reproducer:
        raise UsageError(said)
    return _Found(f"{said}, as of a race they would not: nothing is offered")


def _race(
    options: argparse.Namespace,
    result: TestResult,
    story: Story,
    trials: Callable[..., Trials],
    progress: Callable[[str], None],
) -> _Found:
    """Return STORY as a loop in which its racers meet.

    Where it shows nothing within its time it is offered all the same: it has the interleaving that is wrong in words,
    which the test of RESULT brings about each time.  Raises UsageError where a program written by hand is known.
    """
    file, _, test = result.test.partition("::")
    stated = ""
    with suppress(UsageError):  # the file is not there any more
        stated = stated_interleaving(Path(find_tests(file)), test.partition("[")[0])
    title, expectation = _words(result)
    name, runs = _name(options), _runs(options, dies=True)
    text = write_race(story, title, name, expectation, stated)
    count = 0
    with trials(max(2, len(story.racers)), SECONDS + _STARTS) as tried:
        for number in range(runs):
            progress(f"race {number + 1} of {runs}: {len(story.racers)} processes, at most {SECONDS} s")
            count += tried.shows(text, name, dies=True)
    met = f"{len(story.steps)} calls show nothing one after the other; as a race, over and over for {SECONDS} s"
    said = f"{met}, they showed the defect {count} of {runs} times"
    if not count and result.reproducer:
        raise UsageError(said)
    return _Found(said, text, count)


def _try_by_hand(options: argparse.Namespace, result: TestResult, file: Path, trials: Callable[..., Trials]) -> _Found:
    """Return FILE, the program of the known defect of RESULT, none where it shows nothing."""
    text, dies = file.read_text(), _dies(result)
    runs = _runs(options, dies)
    with trials() as tried:
        count = sum(tried.shows(text, file.name, dies=dies) for _ in range(runs))
    return _Found(f"{file.name} showed the defect {count} of {runs} times", text if count else "", count)


def _name(options: argparse.Namespace) -> str:
    """Return what the program is to be called."""
    return options.c.name if options.c else "reproducer.c"


def _dies(result: TestResult) -> bool:
    return result.verdict in {Verdict.PANIC, Verdict.HANG}


def _runs(options: argparse.Namespace, dies: bool) -> int:
    return min(options.times, _LETHAL) if dies else int(options.times)


def as_recorded(given: TargetOptions, record: RunRecord) -> TargetOptions:
    """Return the options GIVEN, and for what was not said those of the run of RECORD."""
    said = {name: record.options[name] for name in ("kenv", "memory", "cpus") if name in record.options}
    plain = vars(TargetOptions())
    return replace(given, **{name: value for name, value in said.items() if vars(given)[name] == plain[name]})


def _words(result: TestResult) -> tuple[str, str]:
    """Return the title of the program, and what ought to be as the test has it."""
    title = result.known_defect or f"Not so: {sentence(result)}"
    met = _MET.findall(result.reason)
    failed = f" The test fails with: {_CLASS.sub('', met[0])}" if met and result.verdict is Verdict.FAILED else ""
    return title, f"{(result.behaviour or sentence(result)).rstrip('.')}.{failed}"


def _offer(text: str, file: Path | None) -> None:
    if file is None:
        sys.stdout.write(text)
    else:
        file.write_text(text)

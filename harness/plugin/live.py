# SPDX-License-Identifier: BSD-2-Clause
"""A pytest plugin that shows a run while it goes on: a compact view on a terminal, plain lines in a log (`--live`)."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import pytest
from rich.live import Live
from rich.text import Text

from harness.guests.guest import Progress
from harness.plugin.options import durations_of, options_of
from harness.plugin.outcome import is_rerun, plain_result, result_of
from harness.plugin.parallel import worker_name
from harness.report.closing import headline
from harness.report.live import Board
from harness.report.terminal import GuardedConsole, progress_display
from harness.results.durations import read_durations
from harness.results.record import TestResult
from harness.store import Store
from harness.visible import visible

_PLUGIN = "dfly-harness-live"
_LEFT_OUT = ("skipped", "xfailed")  # pytest's words
_LOG_EVERY = 10.0  # seconds between two lines on how far a run is
_PER_SECOND = 4  # how often the view is drawn
_SHOWN = 8  # lines on what went wrong
# Sections of a report by how they are shortened: where the beginning tells most, and where the end does.
_FROM_TOP, _FROM_END = ("kernel panic", "guest hangs", "guest lost", "process table"), ("console during the test",)


def register(config: pytest.Config, label: Callable[[], str]) -> None:
    """Show this run, about the target LABEL names, if that is asked for and nothing else wants the terminal."""
    option = config.getoption
    others = option("verbose") > 0 or option("capture") == "no" or option("usepdb")
    if options_of(config).live and not others and not worker_name(config):
        config.pluginmanager.register(LiveRun(config, label), _PLUGIN)


@contextlib.contextmanager
def starting_display(config: pytest.Config) -> Iterator[Progress]:
    """Show how a guest starts: in the view where there is one, else as progress_display() does."""
    live = config.pluginmanager.get_plugin(_PLUGIN)
    if isinstance(live, LiveRun) and live.on_terminal:
        with live.steps("guest") as progress:
            yield progress
    elif worker_name(config) and options_of(config).live and sys.stderr.isatty():
        yield lambda _: None  # the controller draws on this terminal
    else:
        with progress_display(f"guest {worker_name(config)}".rstrip()) as progress:
            yield progress


@contextlib.contextmanager
def terminal_of_ones_own(config: pytest.Config) -> Iterator[None]:
    """Have the terminal, standard input included, to oneself inside the block."""
    live = config.pluginmanager.get_plugin(_PLUGIN)
    capture = config.pluginmanager.get_plugin("capturemanager")
    with live.hidden() if isinstance(live, LiveRun) else contextlib.nullcontext():
        if capture is not None:
            capture.suspend(in_=True)
        try:
            yield
        finally:
            if capture is not None:
                capture.resume()
                capture.suspend()  # between two phases of a test, standard input alone is captured


class LiveRun:
    """The view of one run; the one of pytest-xdist's controller where there are workers."""

    def __init__(self, config: pytest.Config, label: Callable[[], str]) -> None:
        self._config = config
        self._label = label
        self._board = Board()
        # pytest gives tests another file as standard output, under the same number.
        self._console = GuardedConsole(file=os.fdopen(os.dup(sys.stdout.fileno()), "w"), highlight=False)
        self._live: Live | None = None
        self._running = False
        self._logged = time.monotonic()

    @property
    def on_terminal(self) -> bool:
        """Whether there is a terminal to draw on; without one there are lines."""
        return self._console.is_terminal

    @contextlib.contextmanager
    def steps(self, title: str) -> Iterator[Progress]:
        """Show the steps of something that takes long."""

        def show(step: str) -> None:
            self._board.step = f"{title}: {step}"

        try:
            yield show
        finally:
            self._board.step = ""

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Leave the terminal to somebody else inside the block."""
        shown = self._live is not None
        self._stop()
        yield
        if shown:
            self._start()

    def _start(self) -> None:
        if self.on_terminal and self._live is None and self._running:
            self._live = Live(self._board, console=self._console, refresh_per_second=_PER_SECOND, transient=True)
            self._live.start()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    # pytest

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """Take over from pytest's own display."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.showfspath = False
            if not self._wants_summary():
                reporter.reportchars = ""  # one line for each test that was left out: ours has one for each reason
        self._board.durations = durations_of(options_of(self._config)) or read_durations(Store())

    def _wants_summary(self) -> bool:
        """Tell whether a user asks for pytest's own summary, as by `-rs`."""
        words = map(str, self._config.invocation_params.args)
        return any(word.startswith("-r") and not word.startswith("--") for word in words)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know how many tests there are."""
        self._plan([item.nodeid for item in session.items])

    def _plan(self, tests: Sequence[str]) -> None:
        self._board.tests = self._board.tests or tests
        self._board.total = self._board.total or len(tests)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Know how many tests there are, from a worker."""
        self._plan(ids)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Show the view as long as tests are run."""
        self._running = True
        try:
            return (yield)
        finally:
            self._running = False
            self._stop()
            if not self.on_terminal:
                self._log(self._board.line())

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(
        self, report: pytest.CollectReport | pytest.TestReport
    ) -> Generator[None, tuple[str, Any, Any], tuple[str, Any, Any]]:
        """Keep pytest from writing a letter for each test, while the view is there, and have it count in our words."""
        category, letter, word = yield
        result = result_of(report) if isinstance(report, pytest.TestReport) else None
        if category in _LEFT_OUT and isinstance(report, pytest.TestReport):
            category = str((result or plain_result(report)).verdict)
        return (category, "", "") if self._running else (category, letter, word)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show that a test begins."""
        self._board.title = self._label()
        self._board.begins(nodeid)
        self._start()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count, and say at once what went wrong."""
        test = str(report.nodeid)
        self._board.belongs_to(test, getattr(report, "worker_id", ""))
        if is_rerun(report):
            return
        result = result_of(report) or plain_result(report)
        if report.when == "call" or not report.passed:
            self._board.judged(test, result.verdict)
        if report.failed:
            self._tell(report, result)
        elif not self.on_terminal and time.monotonic() - self._logged > _LOG_EVERY:
            self._log(self._board.line())

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Forget a test that is over."""
        self._board.ends(nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str) -> None:
        """Forget the test in which a worker of pytest-xdist died: nobody says that it is over."""
        self._board.ends(crashitem)

    def _tell(self, report: pytest.TestReport, result: TestResult) -> None:
        defect = result.known_defect
        head = headline(result, str(getattr(report, "worker_id", "")))
        lines = [f"    {line}" for line in ([f"known: {defect}"] if defect else []) + trouble(report)]
        if self.on_terminal:
            self._console.print(Text(head, style="bold red"), soft_wrap=True)
            for line in lines:
                self._console.print(Text(line), soft_wrap=True)
        else:
            self._log("\n".join([head, *lines]))

    def say(self, text: str) -> None:
        """Say TEXT while tests run."""
        if self.on_terminal:
            self._console.print(Text(visible(text)), soft_wrap=True)
        else:
            self._log(text)

    def _log(self, text: str) -> None:
        self._logged = time.monotonic()
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and text:
            reporter.write_line(visible(text))
            reporter.flush()


def say(config: pytest.Config, text: str) -> None:
    """Say TEXT while tests run, in the view if there is one."""
    view = config.pluginmanager.get_plugin(_PLUGIN)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(view, LiveRun):
        view.say(text)
    elif reporter is not None:
        reporter.ensure_newline()
        reporter.write_line(visible(text))


def trouble(report: pytest.TestReport) -> list[str]:
    """Return the few lines that tell most about a failed test: pytest's, then the kernel's or the console's."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = (str(crash.message) if crash is not None else str(report.longrepr)).splitlines()[:2]
    for title, text in report.sections:
        said = [line.rstrip() for line in text.splitlines() if line.strip()]
        shown = said[:_SHOWN] if title in _FROM_TOP else said[-_SHOWN:] if title in _FROM_END else []
        lines += [f"| {line}" for line in shown]
    return lines

# SPDX-License-Identifier: BSD-2-Clause
"""The pytest plugin: what pytest calls, in the order in which things have to happen.

Every hook of the harness is in this file (but for the view's own), so that what comes first and what
comes last is said in one place.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.config import share
from harness.errors import SignalledError
from harness.options import PYTEST_PREFIX
from harness.plugin import live
from harness.plugin.again import Attempts
from harness.plugin.control import ControlLesson
from harness.plugin.coverage import CoverageLedger
from harness.plugin.dealing import deal_in_small_parts, dealt_to, scheduler, tell_kinds
from harness.plugin.evidence import Evidence, demand_debug_file, demand_person
from harness.plugin.fixtures import (
    RUN,
    allocator,
    facts,
    fresh_guest,
    guest,
    hub,
    init,
    kernel,
    osreldate,
    rig,
    run_of,
    schedule,
)
from harness.plugin.frames import give_lines, hide_ours
from harness.plugin.guarded import guard
from harness.plugin.judge import Judge
from harness.plugin.ledger import Invocation, Ledger, attach_state, state_of
from harness.plugin.options import demand_writable_outputs, durations_of, options_of
from harness.plugin.outcome import attach_further, failure_text, from_data, is_rerun, result_of, to_data
from harness.plugin.parallel import (
    as_quiet_as_needed,
    auto_workers,
    demand_sensible_workers,
    remove_shared_files,
    worker_name,
)
from harness.plugin.programs import ProgramItem, Programs
from harness.plugin.recorder import Recorder
from harness.plugin.selection import MARKERS, Selection
from harness.plugin.status import exit_status
from harness.plugin.supply import GuestSupply
from harness.plugin.tested import TestedTarget
from harness.plugin.touching import Touching
from harness.results.durations import read_durations
from harness.runs.options import RunOptions
from harness.store import Store
from harness.tether import hold_on
from harness.visible import visible

# pytest finds fixtures in the plugin that it loads.
__all__ = ["allocator", "facts", "fresh_guest", "guest", "hub", "init", "kernel", "osreldate", "rig", "schedule"]

_HANDED = "dfly_target"
_DONE = "dfly_done"
_SECONDS = "dfly_seconds"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose the target, and those of a run."""
    group = parser.getgroup(RUN, "dfly-harness: which kernel the tests are about, and how they are run")
    RunOptions.declare(group.addoption, PYTEST_PREFIX)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Size `-n auto`; xdist asks before plugins are configured, so this is a hook of the module."""
    return auto_workers(config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Let a worker that has no guest pass over its other tests without a word: say that they have been dealt with.

    Elsewhere the session stops; pytest-xdist would take a worker that stops for one that was interrupted.  Tests that
    may have to run again are run by Attempts, all others by pytest.
    """
    run = run_of(item.config)
    if worker_name(item.config) and run.supply.trouble is not None:
        return True
    return run.attempts.run(item, nextitem)


def pytest_configure(config: pytest.Config) -> None:
    """Register markers and the run."""
    hold_on()
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    deal_in_small_parts(config)
    options = options_of(config)
    if options.hold:
        demand_person(config)
    run = HarnessRun(config, options)
    config.pluginmanager.register(run, RUN)
    live.register(config, lambda: run.tested.label)


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Leave a record, where one was asked for, of a run that a user's mistake kept from beginning.

    A run that a signal ended before its session began has no session's end that could say so.
    """
    _signals.clear()
    try:
        demand_sensible_workers(config)
        demand_writable_outputs(config)
        status = yield
    except pytest.UsageError as error:
        run = config.pluginmanager.get_plugin(RUN)
        if isinstance(run, HarnessRun) and not worker_name(config):
            run.ledger.refuse(error)
        raise
    return exit_status(0, (), signal=_signals[0]) if _signals and not worker_name(config) else status


#: The numbers of signals that ended pytest, which tells of them where nobody can be asked for its configuration.
_signals: list[int] = []


@pytest.hookimpl(tryfirst=True)
def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Note a signal, also one that comes before there is a run."""
    give_lines(excinfo)  # before pytest shows it
    if (number := _signal_of(excinfo.value)) is not None:
        _signals.append(number)


def _signal_of(error: BaseException) -> int | None:
    """Tell Ctrl-C and signals from what pytest and xdist raise of the same kind, such as for `-x`."""
    if isinstance(error, SignalledError):
        return error.number
    return int(signal.SIGINT) if type(error) is KeyboardInterrupt else None


class HarnessRun:
    """One pytest process about one target: hands what pytest tells to the part that it concerns."""

    def __init__(self, config: pytest.Config, options: RunOptions) -> None:
        self._config = config
        self._options = options
        self._is_worker = bool(worker_name(config))
        self.store = Store()
        self.tested = TestedTarget(options, self.store, getattr(config, "workerinput", {}).get(_HANDED, ""))
        self.supply = GuestSupply(config, self.tested, options, self.store)
        self._touching = Touching(self.tested, options, self.store)
        self._selection = Selection(self.tested, self.supply, options, self._touching, dealt_to(config, _SECONDS))
        self.programs = Programs(config, self.tested, self.supply, options.programs, self.store)
        self._evidence = Evidence(config, options)
        self._judge = Judge(config, self.tested, self.supply, self._evidence, learning=options.learn_control)
        self.ledger = Ledger(self.tested, options, self.store, Invocation.of(config))
        self._done = frozenset(getattr(config, "workerinput", {}).get(_DONE, ()))
        recorder = Recorder(self.supply, self.store) if options.record else None
        interactive = bool(config.getoption("usepdb", default=False))
        self.attempts = Attempts(self.supply, options, recorder, self._tell, interactive=interactive)
        self._lesson = ControlLesson(share()) if options.learn_control and not self._is_worker else None
        self._collected = CoverageLedger(self.tested, options, self.store, config.rootpath)
        self._unexplained: list[str] = []
        self._told: dict[str, Any] = {}

    # Before the tests

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Find out that a named target does not exist before workers, or the first test, do."""
        self.tested.check_variant()
        distributes = self._config.getoption("dist", "no") != "no"
        if self.tested.variant is None and (self.tested.is_named or distributes or self._options.invariants):
            self.tested.resolved()
        if self._options.invariants and self.tested.variant is None:
            demand_debug_file(self.tested.resolved())
        if self.supply.coverage is not None and not self._is_worker:
            self.supply.coverage.check()
        if self._options.resume is not None and not self._is_worker:
            self._done = self.ledger.resume(self._options.resume)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Hand the target, by content, to a worker of pytest-xdist."""
        if self.tested.variant is None:
            node.workerinput[_HANDED] = self.tested.resolved().to_text()
        node.workerinput[_DONE] = sorted(self._done)
        # All workers get the same, whatever other runs note meanwhile: they have to agree on the order.
        node.workerinput[_SECONDS] = durations_of(self._options) or read_durations(self.store)

    def pytest_report_header(self) -> list[str]:
        """Say which kernel this is about, where that is decided already."""
        return [f"target: {self.tested.label}"] if self.tested.variant is not None else []

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Share tests out by the kind of machine that they want."""
        return scheduler(config, log)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what is not about this target; a shard is a part of what `-k` and `-m` have left."""
        self._selection.select(items)
        tell_kinds(self._config, self._selection.kinds)
        self.ledger.selection = self._selection.digest
        if self._done:
            done = [item for item in items if item.nodeid in self._done]
            self._config.hook.pytest_deselected(items=done)
            items[:] = [item for item in items if item.nodeid not in self._done]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know which tests are to run."""
        if not (self._is_worker or self._config.option.collectonly) and session.items:
            self._plan([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Know it from a worker."""
        self._plan(ids)

    def _plan(self, tests: Sequence[str]) -> None:
        self.ledger.plan(tests)
        for said in self._touching.expect(tests):
            live.say(self._config, said)

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
        """Take a program for one, whatever other plugins would make of a file of its name."""
        others = yield
        program = self.programs.collect_file(file_path, parent)
        return [program] if program is not None else others

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note test files that do not load."""
        self.ledger.add_collection(report)

    # Around a test

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Outermost the quiet a test needs; after it, give up a machine that the next one has no use for."""
        with as_quiet_as_needed(item):
            done = yield
            self.supply.release(nextitem)
            self.programs.release(item, nextitem)
            self.attempts.look_at_deaths(item, nextitem)
        if self.supply.trouble is not None and not self._is_worker:
            # pytest.exit() would keep reports from being written.
            item.session.shouldstop = f"{self.supply.trouble.verdict}: there is no guest"
        return done

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Note what the test wants, leave it out if this kernel is none for it, and begin a new journal of calls."""
        self.supply.prepare_lane(item)
        self._selection.settle(item)
        self.supply.prepare(item)
        rig = self.supply.rig
        if rig is not None and rig.guest is not None:
            rig.ready().clear_journal()
        if self.supply.coverage is not None:
            self.supply.coverage.begin(rig)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Note on which machine the test begins its work."""
        self.supply.begin(item)

    def _state(self) -> dict[str, Any]:
        state = state_of(self.supply.notes(), self.supply.trouble, self.supply.deaths())
        return {**state, "selection": self._selection.digest, "not_again": self.attempts.not_again}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Say what the test came to, after all other plugins have had their say."""
        hide_ours(item, call.excinfo)
        report = yield
        if isinstance(item, ProgramItem) and report.when == "call" and report.failed:
            report.sections += item.sections
        self._judge.judge(item, call, report)
        if isinstance(item, ProgramItem) and report.when == "call" and (own := result_of(report)) is not None:
            attach_further(report, item.further_results(own))
        if self.supply.coverage is not None and call.when == "teardown":
            self.supply.coverage.end(self.supply.rig, report)
        if self._state() != self._told:
            self._tell(report)
        guard(report)
        return report

    def _tell(self, report: pytest.TestReport) -> None:
        """Let REPORT carry what is known of the machines by now."""
        self._told = self._state()
        attach_state(report, self._told)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
        """Keep pytest from showing a failure twice that is looked at again."""
        return ("", "", "") if is_rerun(report) else None

    @pytest.hookimpl(wrapper=True)
    def pytest_report_to_serializable(
        self, report: pytest.CollectReport | pytest.TestReport
    ) -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
        """Let a typed result travel between processes as plain data."""
        data = yield
        return to_data(report, data) if isinstance(report, pytest.TestReport) and data is not None else data

    @pytest.hookimpl(wrapper=True)
    def pytest_report_from_serializable(
        self,
    ) -> Generator[
        None, pytest.CollectReport | pytest.TestReport | None, pytest.CollectReport | pytest.TestReport | None
    ]:
        """Make a typed result of the plain data again."""
        report = yield
        if isinstance(report, pytest.TestReport):
            from_data(report)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect results, also those of workers."""
        if self._is_worker:
            return
        self._collected.add(report)
        over = report.when == "teardown" and not is_rerun(report)
        if over and (said := self._touching.note(self.ledger.result(report.nodeid), report.nodeid)) is not None:
            live.say(self._config, said)
        if is_rerun(report):
            self.ledger.add_first(report)
            return
        self.ledger.add(report)
        if self._lesson is not None and (report.failed or (report.passed and report.when == "call")):
            self._lesson.add(report.nodeid, failure_text(report) if report.failed else None)

    # After the tests

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Know the signal that ends the session, where it is one."""
        if (number := _signal_of(excinfo.value)) is not None:
            self.ledger.signal = number

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker of pytest-xdist knows of its machines at its end."""
        if (state := getattr(node, "workeroutput", {}).get(RUN)) is not None:
            self.ledger.learn(node.gateway.id, state)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Stop the machine, decide the exit status, write record and page, before any other report can fail."""
        self.supply.close()  # first: its kernel may turn out to have died
        state = self._state()
        if self._is_worker:
            self._config.workeroutput[RUN] = state  # type: ignore[attr-defined]  # pytest-xdist's
        else:
            if self.supply.rig is not None or self.supply.trouble is not None:
                self.ledger.learn("", state)
            if self._lesson is not None:
                self._unexplained = self._lesson.finish()
            if not self._config.option.collectonly:
                self.ledger.coverage = self._collected.finish(self.ledger.judged)
                session.exitstatus = self.ledger.finish(int(exitstatus))
            remove_shared_files(self._config)

    def pytest_unconfigure(self) -> None:
        """Stop the machine, should the session have ended abruptly."""
        self.supply.close()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say loudly which kernel the results are about."""
        for said in self._unexplained:
            terminalreporter.line(visible(said), red=True)

        def line(text: str, **how: bool) -> None:
            terminalreporter.line(visible(text), **how)

        self.ledger.say(line, terminalreporter.section)

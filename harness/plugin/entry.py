"""The pytest plugin: options, markers and fixtures for tests that drive processes in a guest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.config import share
from harness.errors import ExitCode, GuestLostError, HarnessError, UsageError
from harness.guests.features import KernelFacts
from harness.guests.guest import Guest, MachineSize, Progress, Target
from harness.guests.targets import THREE_COMMANDS, TargetChoice, resolve_target
from harness.machine.accel import Choice
from harness.machine.description import Accelerator, Lane
from harness.oracle import DEFAULT_ERA, ERAS, make_oracle, rules_of, split_target
from harness.plugin import live
from harness.plugin.applies import MARKERS as APPLIES_MARKERS
from harness.plugin.applies import in_era, inapplicable, is_settled, may_show_defect, shown_defect
from harness.plugin.control import find_lack, learn, load_lacks, name_of_test
from harness.plugin.evidence import Evidence, add_options, demand_debug_file, with_evidence
from harness.plugin.parallel import GiveUp, Workers, accelerator_of_run
from harness.plugin.recorder import Recorder
from harness.plugin.rig import Rig
from harness.processes import Hub
from harness.processes.api import Process
from harness.processes.lanes import LaneVerdict, probe_time_warp
from harness.processes.session import Session
from harness.results.finding import Finding, start_finding
from harness.results.record import RunRecord, TestResult, keep
from harness.runs.suite import DEFAULT_SUITE
from harness.store import Store

TROUBLE = "trouble"  # the property of a test's report that says why there was no guest

# Fixtures that stand for the target: tests without them are not about a kernel.
_NEEDS_TARGET = {"init", "rig", "guest", "hub", "fresh_guest"}

_MARKERS = (
    "kern_proc(*functions): the functions of kern_proc.c whose promise the test holds them to",
    "needs_kernel: needs what only a real kernel has (memory, terminals, a clock); left out on the oracle",
    *APPLIES_MARKERS,
    "slow_clock(seconds): spends that much guest time waiting; scheduled first",
    "cpus(number, since, until): wants at least so many CPUs, in that era; the time-warped lane has a single one",
    "exclusive: needs a quiet host",
    "on_vm: starts a virtual machine of its own",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose the target."""
    group = parser.getgroup("dfly-harness", "dfly-harness: which kernel the tests are about")
    group.addoption("--image", metavar="NAME", help="base image in the store (default: the one imported last)")
    group.addoption("--kernel", metavar="NAME", help="kernel in the store (default: the one imported last)")
    group.addoption("--control", action="store_true", help="the Linux control guest: CONTROL, NOT DRAGONFLY")
    group.addoption(
        "--oracle",
        nargs="?",
        const="",
        metavar="[ERA][:VARIANT]",
        help=f"the executable specification of an era ({', '.join(ERAS)}; default: {DEFAULT_ERA}),"
        " or a wrong variant of it",
    )
    group.addoption("--kenv", action="append", default=[], metavar="NAME=VALUE", help="set in the kernel environment")
    group.addoption("--memory", type=int, default=512, metavar="MiB", help="memory of a machine")
    group.addoption("--cpus", type=int, default=1, metavar="N", help="CPUs of a machine")
    group.addoption("--ssh-port", type=int, default=0, metavar="PORT", help="port on 127.0.0.1 (default: any free one)")
    group.addoption(
        "--accelerator", choices=[each.value for each in Accelerator], help="for QEMU (default: the fastest here)"
    )
    group.addoption("--cold", action="store_true", help="boot from power-on instead of resuming the warm state")
    group.addoption(
        "--lane",
        choices=("auto", "wall", "warped"),
        default="auto",
        help="time-warped lane, where waiting is free: for tests of time (auto, where it works), all, or no tests",
    )
    group.addoption("--record", action="store_true", help="run failed tests again on a machine that can be replayed")
    group.addoption("--defects", action="store_true", help="also run the tests of known defects; they may panic it")
    group.addoption("--any-era", action="store_true", help="also run what the target's era did not promise yet")
    group.addoption("--learn-control", action="store_true", help="write the list of what the control guest fails")
    group.addoption("--json", type=Path, metavar="FILE", help="write the run's record to FILE")
    add_options(group)
    live.add_options(group)


def pytest_configure(config: pytest.Config) -> None:
    """Register markers and the campaign."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    campaign = Campaign(config)
    config.pluginmanager.register(campaign, "dfly-harness-campaign")
    config.pluginmanager.register(Workers(config), "dfly-harness-workers")
    config.pluginmanager.register(GiveUp(config, lambda: bool(campaign.trouble)), "dfly-harness-give-up")
    live.register(config, campaign)
    if config.getoption("--record"):
        config.pluginmanager.register(Recorder(campaign), "dfly-harness-recorder")
    config.pluginmanager.register(Evidence(config, campaign), "dfly-harness-evidence")


def _campaign(config: pytest.Config) -> Campaign:
    campaign = config.pluginmanager.get_plugin("dfly-harness-campaign")
    assert isinstance(campaign, Campaign)
    return campaign


class Campaign:
    """One pytest session about one target."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._started = time.monotonic()
        self._began = datetime.now(UTC)
        self._first_call = 0.0  # seconds since 1970
        self._target: Target | None = None
        self._rig: Rig | None = None
        self._about_time = False  # the present test is
        self._cpus = 1  # it wants
        self._warp: LaneVerdict | None = None
        self._accelerator: Choice | None = None
        self._console_mark = 0
        self._results: list[TestResult] = []
        self._abouts: list[dict[str, Any]] = []
        self._broken = ""
        self._trouble: Finding | None = None
        self._session: pytest.Session | None = None
        self._item: pytest.Item | None = None  # the present test
        self._learning: bool = config.getoption("--learn-control")
        self._failures: dict[str, str] = {}
        self._unknown: list[str] = []
        self._unsettled: set[str] = set()  # tests of which only the running kernel can tell whether they are about it
        self._written: Path | None = None
        self.variant: str | None = config.getoption("--oracle")

    @property
    def store(self) -> Store:
        """The store of this user."""
        return Store()

    # Target

    def target(self, progress: Progress = lambda _: None) -> Target:
        """Return the real target the options mean."""
        if self._target is None:
            option = self._config.getoption
            environment = dict(setting.partition("=")[::2] for setting in option("--kenv"))
            choice = TargetChoice(option("--image"), option("--kernel"), option("--control"), environment)
            try:
                self._target = resolve_target(choice, self.store, progress)
            except UsageError as error:
                raise pytest.UsageError(str(error)) from None
        return self._target

    @property
    def label(self) -> str:
        """What every report says the run was about."""
        if self.variant is not None:
            era, variant = split_target(self.variant)
            return f"ORACLE, NOT A KERNEL: {variant or 'the specification'} of {era}"
        return self._target.label if self._target is not None else ""

    @property
    def osreldate(self) -> int:
        """__DragonFly_version of the target, 0 on the control guest or where it is unknown."""
        return self.facts.osreldate if self.facts is not None else 0

    @property
    def facts(self) -> KernelFacts | None:
        """What is known of the target's kernel, more once it runs; None on the control guest."""
        if self.variant is not None:
            era = split_target(self.variant)[0]
            return KernelFacts.of_revision(era.osreldate, era.date, era.traits.record_size)
        if self._rig is not None and self._rig.facts is not None:
            return self._rig.facts
        target = self.target()
        return KernelFacts(target.osreldate) if target.is_dragonfly else None

    @property
    def present_rig(self) -> Rig | None:
        """The rig, once a test has needed it."""
        return self._rig

    @property
    def trouble(self) -> Finding | None:
        """Why there is no guest, where none could be had."""
        return self._trouble

    @property
    def written(self) -> Path | None:
        """Where the record was written, once it was."""
        return self._written

    def rig(self) -> Rig:
        """Return the rig with a guest that is well; what prevents that ends the session with exit status 3.

        It is said once, at the end of the run, and kept with the test that met it.
        """
        if not self._broken:
            self._make_ready()
        if self._broken:
            if self._item is not None:
                self._item.user_properties.append((TROUBLE, self._broken))
            pytest.fail(f"{self._trouble}: there is no guest to run it in", pytrace=False)
        assert self._rig is not None
        return self._rig

    def _make_ready(self) -> None:
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        quiet = capture.global_and_fixture_disabled() if capture is not None else contextlib.nullcontext()
        try:
            if self._rig is None:
                option = self._config.getoption
                with quiet, live.starting_display(self._config) as progress:
                    size = self._size(progress)
                    self._rig = Rig(self.target(progress), self.store, size, cold=option("--cold"))
                    self._rig.enter(self._lane(self._rig, size, progress), self._cpus)
                    self._rig.ready(progress)
            else:
                self._rig.enter(self._lane(self._rig, self._rig.size, lambda _: None), self._cpus)
                self._rig.ready()
        except HarnessError as error:
            self.close()
            if self._rig is not None and self._rig.starts > 1 and type(error) is GuestLostError:
                raise  # the target has come up before: that its machine went away is one test's bad luck
            finding = start_finding(error)
            self._trouble = finding
            self._broken = str(error) if finding is Finding.HARNESS_ERROR else f"{finding}: {error}"
            # pytest.exit() would keep reports from being written; a worker goes on, see GiveUp.
            if self._session is not None and not hasattr(self._config, "workeroutput"):
                self._session.shouldstop = f"{finding}: there is no guest"

    def _size(self, progress: Progress) -> MachineSize:
        if self._accelerator is None:
            progress("measuring accelerators")
            self._accelerator = accelerator_of_run(self._config, self.store)
        option = self._config.getoption
        return MachineSize(option("--memory"), option("--cpus"), option("--ssh-port"), self._accelerator.accelerator)

    def _quirks(self) -> tuple[str, ...]:
        if self._accelerator is None or self._target is None:
            return ()
        return self._target.quirks(self._accelerator.accelerator)

    def _lane(self, rig: Rig, size: MachineSize, progress: Progress) -> Lane:
        """Return where the present test runs."""
        choice = self._config.getoption("--lane")
        if choice == "wall" or (choice == "auto" and not self._about_time):
            return Lane.WALL_CLOCK
        if self._config.getoption("--cold"):  # the lane has no power-on: kernels do not boot in it
            return Lane.WALL_CLOCK
        if self._warp is None:
            self._warp = probe_time_warp(rig.target, self.store, size, progress)
            if choice == "warped" and not self._warp.usable:
                raise UsageError(str(self._warp))
        return self._warp.lane if self._warp.usable else Lane.WALL_CLOCK

    def close(self) -> None:
        """Stop the machine."""
        if self._rig is not None:
            self._rig.discard()

    # Collection

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Find out that a named target does not exist before workers do."""
        self._session = session
        if self.variant is not None:
            try:
                rules_of(self.variant)
            except UsageError as error:
                raise pytest.UsageError(str(error)) from None
        if any(self._config.getoption(option) for option in ("--image", "--kernel")):
            self.target()
        if self._config.getoption("--invariants") and self.variant is None:
            demand_debug_file(self.target())

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what was not promised by the target's era, or not asked for; long waits go first."""
        if not any(_NEEDS_TARGET & set(getattr(item, "fixturenames", ())) for item in items):
            return
        on_oracle = self.variant is not None
        facts = self.facts
        for item in items:
            if on_oracle and item.get_closest_marker("needs_kernel"):
                item.add_marker(pytest.mark.skip(reason="needs a real kernel"))
            if not self._config.getoption("--defects") and may_show_defect(item, facts):
                item.add_marker(pytest.mark.skip(reason="known defect of the kernel; --defects runs it"))
            else:
                self._settle_if_possible(item, facts)
        items.sort(key=_waiting, reverse=True)

    def _settle_if_possible(self, item: pytest.Item, facts: KernelFacts | None) -> None:
        try:
            if facts is not None and not is_settled(item, facts):
                self._unsettled.add(item.nodeid)
            elif (reason := self._settle(item, facts)) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))
        except UsageError as error:
            raise pytest.UsageError(f"{item.nodeid}: {error}") from None

    def _settle(self, item: pytest.Item, facts: KernelFacts | None) -> str | None:
        """Note which known defect a test shows; say why it is not about this kernel, None if it is."""
        if (defect := shown_defect(item, facts)) is not None:
            item.user_properties.append(("defect", defect))
        if facts is None or self._config.getoption("--any-era"):
            return None
        return inapplicable(item, facts)

    # Reports

    def pytest_report_header(self) -> list[str]:
        """Say which kernel this is about, where that is decided already."""
        if self.variant is not None:
            return [f"target: {self.label}"]
        return []

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Remember where the console is, and what the test wants of its machine."""
        self._item = item
        self._about_time = item.get_closest_marker("slow_clock") is not None
        if item.nodeid in self._unsettled:
            self.rig()
            if (reason := self._settle(item, self.facts)) is not None:
                pytest.skip(reason)
        several = item.get_closest_marker("cpus")
        self._cpus = int(several.args[0]) if several is not None and in_era(self.osreldate, several.kwargs) else 1
        guest = self._rig.guest if self._rig is not None else None
        self._console_mark = guest.console.position if guest is not None else 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, nextitem: pytest.Item | None) -> Generator[None, object, object]:
        """End a guest in the time-warped lane when the next test has no use for it: held, it keeps a CPU busy."""
        done = yield
        rig = self._rig
        if rig is not None and rig.lane is Lane.TIME_WARPED and not self._is_for_warped_lane(nextitem):
            rig.discard()
        return done

    def _is_for_warped_lane(self, item: pytest.Item | None) -> bool:
        if item is None or not _NEEDS_TARGET & set(getattr(item, "fixturenames", ())):
            return False
        return self._config.getoption("--lane") == "warped" or item.get_closest_marker("slow_clock") is not None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add the console to failures, and hold the control guest to its list of expected failures."""
        report = yield
        rig = self._rig
        if rig is None or report.when == "teardown" or not _NEEDS_TARGET & set(getattr(item, "fixturenames", ())):
            return report
        if report.failed:
            if (panic := rig.diagnose()) is not None:
                report.sections.append(("kernel panic", panic.evidence))
            elif rig.guest is not None and (said := rig.guest.console.text(self._console_mark).strip()):
                report.sections.append(("console during the test", said.replace("\r", "")))
        if not rig.target.is_dragonfly and not self._learning:
            self._judge_control(item, report)
        return report

    @staticmethod
    def _judge_control(item: pytest.Item, report: pytest.TestReport) -> None:
        test = name_of_test(item.nodeid)
        lack = find_lack(load_lacks(item.path.parent), test)
        if lack is None or report.skipped:
            return
        if report.failed and lack.explains(test, failure_text(report)):
            report.outcome = "skipped"
            report.wasxfail = f"Linux differs: {lack.what}"
        elif report.passed and report.when == "call":
            report.outcome = "failed"
            report.longrepr = f"passed on the control guest, which lacks what it takes: {lack.what}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect results for the record."""
        if self._learning and report.failed:
            self._failures[name_of_test(report.nodeid)] = failure_text(report)
        if report.when == "call":
            self._first_call = min(self._first_call or report.start, report.start)
        if report.when == "call" or report.outcome != "passed":
            outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
            functions = tuple(str(value) for name, value in report.user_properties if name == "function")
            said = dict(report.user_properties).get(TROUBLE, "") or getattr(report, "wasxfail", "")
            reason = "" if report.passed else str(said or report.longrepr)
            result = TestResult(report.nodeid, outcome, round(report.duration, 3), reason, functions=functions)
            keep(self._results, with_evidence(result, report))

    def _about_target(self) -> dict[str, Any] | None:
        """Return what this process knows of its target, in plain data that travels between xdist's processes."""
        if self._rig is None:
            return None
        return {
            "target": self.label,
            "is_dragonfly": self._rig.target.is_dragonfly,
            "identity": self._rig.identity,
            "machine": self._rig.machine,
            "starts": self._rig.starts,
            "failed_resumes": self._rig.failures,
            "warp": str(self._warp or ""),
            "features": self._rig.facts.summary() if self._rig.facts is not None else "",
            "accelerator": self._accelerator.accelerator.value if self._accelerator is not None else "",
            "quirks": list(self._quirks()),
            "accelerator_reason": self._accelerator.reason if self._accelerator is not None else "",
        }

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker of pytest-xdist knows of its target."""
        output = getattr(node, "workeroutput", {})
        self._broken = self._broken or output.get("broken", "")
        if (about := output.get("target")) is not None:
            self._abouts.append(about)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the record and stop the machine, before any other report can fail."""
        if self._broken:
            session.exitstatus = exitstatus = int(ExitCode.HARNESS_FAILED)
        about = self._about_target()
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput |= {"target": about, "broken": self._broken}
        elif about is not None:
            self._abouts.append(about)
        if self._broken and not self._abouts and self._target is not None and not hasattr(self._config, "workeroutput"):
            # That it did not come up is a result, too.
            self._abouts.append({"target": self.label, "is_dragonfly": self._target.is_dragonfly, "starts": 0})
        if self._learning and not hasattr(self._config, "workeroutput"):
            passed = [name_of_test(result.test) for result in self._results if result.outcome == "passed"]
            self._unknown = learn(share() / DEFAULT_SUITE, self._failures, passed)
        if self._abouts:
            sums = {name: sum(about.get(name, 0) for about in self._abouts) for name in ("starts", "failed_resumes")}
            # Workers on other hosts may have another one.
            used = ", ".join(sorted({about["accelerator"] for about in self._abouts if about.get("accelerator")}))
            warp = next((about["warp"] for about in self._abouts if about.get("warp")), "")
            record = RunRecord(
                **{**self._abouts[0], **sums, "warp": warp, "accelerator": used},
                workers=len(self._abouts),
                started=self._began.isoformat(timespec="seconds"),
                first_test=_moment(self._first_call),
                trouble=self._broken,
                seconds=round(time.monotonic() - self._started, 2),
                exit_status=int(session.exitstatus),
                results=self._results,
            )
            try:
                self._written = record.write(self.store, self._config.getoption("--json"))
            except OSError as error:  # a full disk must not look like a finished run
                self._broken = f"the run's record could not be written: {error}"
                record.exit_status = session.exitstatus = int(ExitCode.HARNESS_FAILED)
                with contextlib.suppress(OSError):  # among the store's, if that has room
                    self._written = record.write(self.store)
        elif not hasattr(self._config, "workeroutput"):
            self._write_record_without_machine(int(exitstatus))
        self.close()

    def _write_record_without_machine(self, exit_status: int) -> None:
        """Leave a record of a run that needed no machine where one was asked for; elsewhere it would mislead."""
        if (file := self._config.getoption("--json")) is not None:
            seconds = round(time.monotonic() - self._started, 2)
            record = RunRecord(self.label, is_dragonfly=False, seconds=seconds, exit_status=exit_status)
            record.results = self._results
            self._written = record.write(self.store, file)

    def pytest_unconfigure(self) -> None:
        """Stop the machine, should the session have ended abruptly."""
        self.close()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say loudly which kernel the results are about."""
        for test in self._unknown:
            terminalreporter.line(
                f"no known lack of Linux explains how {test} failed: {self._failures[test]}", red=True
            )
        if self._broken:
            terminalreporter.line(f"dfly-harness: {self._broken}", red=True)
        if self._abouts:
            label, is_dragonfly = str(self._abouts[0]["target"]), bool(self._abouts[0]["is_dragonfly"])
        elif self.variant is not None:
            label, is_dragonfly = self.label, False
        else:
            return
        terminalreporter.section("target", bold=True, red=not is_dragonfly)
        terminalreporter.line(label)
        if features := next((about["features"] for about in self._abouts if about.get("features")), ""):
            terminalreporter.line(f"kernel features: {features}")
        if self._abouts and self._abouts[0].get("accelerator"):
            about = self._abouts[0]
            terminalreporter.line(f"accelerator: {about['accelerator']} ({about['accelerator_reason']})")
            for quirk in about["quirks"]:
                terminalreporter.line(f"quirk: {quirk}")
        if self._abouts and not is_dragonfly:
            terminalreporter.line("These results say nothing about DragonFly. To get a DragonFly target:")
            for command in THREE_COMMANDS:
                terminalreporter.line(f"    {command}")
        if self._written is not None:
            terminalreporter.line(f"record: {self._written}")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds") if seconds else ""


def _waiting(item: pytest.Item) -> float:
    if item.get_closest_marker("exclusive"):
        return -1.0  # last: all workers wait for it
    marker = item.get_closest_marker("slow_clock")
    return float(marker.args[0]) if marker is not None else 0.0


def failure_text(report: pytest.TestReport) -> str:
    """Return the one line pytest would summarise a failure with."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message) if crash is not None else str(report.longrepr)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    """Return the target kept ready for tests, with a guest that is well."""
    return _campaign(request.config).rig()


@pytest.fixture
def guest(rig: Rig) -> Guest:
    """Return the running guest."""
    assert rig.guest is not None
    return rig.guest


@pytest.fixture
def hub(rig: Rig) -> Hub:
    """Return the hub of the running guest."""
    return rig.ready()


@pytest.fixture
def fresh_guest(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Give a pristine machine of its own, in its warm state: `fresh_guest.hub.spawn()`, `fresh_guest.guest`."""
    rig = _campaign(request.config).rig()
    with rig.fresh() as session:
        yield session


@pytest.fixture(scope="session")
def osreldate(request: pytest.FixtureRequest) -> int:
    """__DragonFly_version of the target, 0 on the control guest."""
    return _campaign(request.config).osreldate


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> KernelFacts | None:
    """Return what is known of the kernel under test (`facts.has("lwkt")`), None on the control guest."""
    return _campaign(request.config).facts


@pytest.fixture
def init(request: pytest.FixtureRequest) -> Iterator[Process]:
    """Give a fresh process, leader of its own session; it and all its descendants are killed afterwards."""
    campaign = _campaign(request.config)
    if campaign.variant is not None:
        yield make_oracle(campaign.variant or None).spawn()
        return
    rig = campaign.rig()
    try:
        process = rig.spawn()
    except HarnessError:
        # One that died unnoticed between two tests must not be held against the next.
        rig.discard()
        process = campaign.rig().spawn()
    yield process
    rig.clean()

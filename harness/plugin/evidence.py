"""What a verdict rests on: a pytest plugin that says of each test what it came to, and keeps what shows it."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from harness.errors import DeadlineError, ExitCode, GuestLostError, HarnessError, UsageError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import Guest, GuestHangError, KernelPanicError, Target
from harness.machine.qemu import qemu_version
from harness.plugin.hold import hold
from harness.plugin.live import terminal_of_ones_own
from harness.plugin.parallel import worker_name
from harness.plugin.rig import Rig
from harness.processes.vocabulary import ProcessGone, ProcessStopped
from harness.report.publish import publish
from harness.results.finding import Diagnosis, Finding, exit_code, finding_of, skip_finding
from harness.results.measurements import measure
from harness.results.record import TestResult

_CALLS = "system calls"
_DECLARED = "process table: known defects"
_MARKER = (
    "leaves_unsound(pattern, reason): a known defect of the kernel: the test passes but leaves the process table"
    " unsound, in words that match PATTERN (--invariants)"
)
# Fixtures by which a test sets what pids are given next.
_TAMPERING = {"allocator"}
_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def add_options(group: pytest.OptionGroup) -> None:
    """Add the options about evidence."""
    group.addoption("--html", type=Path, metavar="FILE", help="write the run's report to FILE, one page of HTML")
    group.addoption(
        "--invariants", action="store_true", help="after each test, look whether the process table is sound"
    )
    group.addoption("--dump-memory", type=Path, metavar="FOLDER", help="keep the memory of a kernel that died, as ELF")
    group.addoption("--hold", "--pdb-guest", action="store_true", help="pause the machine of a test that failed")


def with_evidence(result: TestResult, report: pytest.TestReport) -> TestResult:
    """Return RESULT with what Evidence put into the report of its test."""
    known = {name: str(value) for name, value in report.user_properties}
    texts = [(title, text) for title, text in report.sections if not title.startswith("Captured ")]
    return replace(
        result,
        verdict=known.get("verdict", ""),
        fingerprint=known.get("fingerprint", ""),
        behaviour=known.get("behaviour", ""),
        worker=known.get("worker", ""),
        lane=known.get("lane", ""),
        recording=known.get("recording", ""),
        defect=known.get("defect", ""),
        measurements=getattr(report, "measurements", {}),
        console="\n\n".join(f"==== {title}\n{text}" for title, text in texts if title != _CALLS),
        calls=tuple(line for title, text in texts if title == _CALLS for line in text.splitlines()),
    )


class Subject(Protocol):
    """The campaign, as far as evidence needs it."""

    @property
    def label(self) -> str:
        """The target by name."""

    @property
    def present_rig(self) -> Rig | None:
        """The rig, once there is one."""

    @property
    def trouble(self) -> Finding | None:
        """Why there is no guest, where none could be had."""

    @property
    def written(self) -> Path | None:
        """Where the record was written."""


def behaviour(item: pytest.Item) -> str:
    """Return what a test holds the kernel to: its docstring's first paragraph, else its name as a sentence."""
    text = (getattr(getattr(item, "obj", None), "__doc__", None) or "").strip().partition("\n\n")[0]
    if text:
        return " ".join(text.split())
    return item.name.partition("[")[0].removeprefix("test_").replace("_", " ").capitalize()


def diagnose(rig: Rig | None, error: BaseException) -> Diagnosis:
    """Return what ERROR, raised in a test, says about the kernel; looks at the guest where that is in doubt."""
    death: HarnessError | None = rig.diagnose() if rig is not None else None
    doubtful = isinstance(error, (DeadlineError, GuestLostError)) and not isinstance(
        error, (ProcessGone, ProcessStopped, KernelPanicError, GuestHangError)
    )
    if death is None and doubtful and rig is not None and rig.guest is not None:
        try:
            rig.guest.probe()
        except HarnessError as found:
            death = found
    judged = death if death is not None else error
    finding = finding_of(judged)
    if isinstance(judged, (KernelPanicError, GuestHangError)):
        title = "kernel panic" if isinstance(judged, KernelPanicError) else "guest hangs"
        return Diagnosis(finding, title, judged.evidence, judged.fingerprint)
    if death is not None:
        return Diagnosis(finding, "guest lost", str(death))
    return Diagnosis(finding)


class Evidence:
    """Adds a verdict to each test's report, as properties that reach JUnit and the record."""

    def __init__(self, config: pytest.Config, subject: Subject) -> None:
        self._config = config
        self._subject = subject
        config.addinivalue_line("markers", _MARKER)
        if config.getoption("--hold"):
            _demand_person(config)
        self._session: pytest.Session | None = None
        self._findings: list[Finding] = []
        self._declared: Counter[str] = Counter()
        self._unsound: tuple[Guest | None, frozenset[str]] = (None, frozenset())

    @property
    def _rig(self) -> Rig | None:
        return self._subject.present_rig

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin a new journal of calls."""
        del item
        if self._rig is not None and self._rig.guest is not None:
            self._rig.ready().clear_journal()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Say what the test came to."""
        report = yield
        if not {"init", "rig", "guest", "hub", "fresh_guest"} & set(getattr(item, "fixturenames", ())):
            return report
        about = self._about(item)  # while there is a machine to tell about
        if report.when == "call" and self._rig is not None and self._rig.guest is not None:
            tampered = bool(_TAMPERING & set(getattr(item, "fixturenames", ())))
            if measured := measure(self._rig.ready().storms(), tampered=tampered):
                vars(report)["measurements"] = measured.to_json()  # plain data travels between xdist's processes
        diagnosis = self._judge(item, call, report)
        if diagnosis is None:
            return report
        about |= {"verdict": diagnosis.finding.value, "fingerprint": diagnosis.fingerprint}
        # A test has one verdict: its last phase's.
        kept = [(name, value) for name, value in item.user_properties if name not in about and name != "function"]
        functions = {str(name): None for marker in item.iter_markers("kern_proc") for name in marker.args}
        kept += [("function", name) for name in functions]
        item.user_properties[:] = [*kept, *((name, value) for name, value in about.items() if value)]
        report.user_properties = list(item.user_properties)
        return report

    def _judge(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> Diagnosis | None:
        if report.skipped:
            reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
            return Diagnosis(skip_finding(reason, is_defect=item.get_closest_marker("defect") is not None))
        if report.passed:
            if report.when != "call":
                return None
            broken = self._process_table(item, report) if self._config.getoption("--invariants") else ""
            if not broken:
                return Diagnosis(Finding.PASSED)
            report.outcome = "failed"
            report.longrepr = f"the test passed, but left the kernel's process table unsound:\n{broken}"
            return self._keep(item, report, Diagnosis(Finding.FAILED, "process table", broken))
        if call.excinfo is None:  # made a failure by another plugin
            return self._keep(item, report, Diagnosis(Finding.FAILED))
        if self._subject.trouble is not None:
            return Diagnosis(self._subject.trouble)
        diagnosis = diagnose(self._rig, call.excinfo.value)
        if diagnosis.finding is Finding.FAILED and (broken := self._process_table(item, report)):
            report.sections.append(("process table", broken))
        return self._keep(item, report, diagnosis)

    def _process_table(self, item: pytest.Item, report: pytest.TestReport) -> str:
        """Return what the test broke, in words; what it is known to break is a section of its REPORT instead."""
        guest = self._rig.guest if self._rig is not None else None
        if guest is None:
            return ""
        try:
            # What an earlier test on this machine broke is not held against this one.
            machine, known = self._unsound
            known = known if machine is guest else frozenset()
            new = guest.kernel.violations(known)
            self._unsound = guest, known | frozenset(new)
            declared = {
                text: str(marker.kwargs["reason"])
                for marker in item.iter_markers("leaves_unsound")
                for text in new
                if re.search(marker.args[0], text)
            }
            if declared:
                report.sections.append((_DECLARED, "\n".join(f"{text}: {why}" for text, why in declared.items())))
            return "\n".join(text for text in new if text not in declared)
        except UsageError:  # not a kernel one can look into
            return ""
        except HarnessError as error:
            return f"(could not be read: {error})"

    def _keep(self, item: pytest.Item, report: pytest.TestReport, diagnosis: Diagnosis) -> Diagnosis:
        rig = self._rig
        titles = {title for title, _ in report.sections}
        if diagnosis.text and diagnosis.title not in titles:
            report.sections.append((diagnosis.title, diagnosis.text))
        if rig is None or rig.guest is None:
            return diagnosis
        with contextlib.suppress(HarnessError):
            if journal := rig.ready().journal():
                report.sections.append((_CALLS, "\n".join(journal)))
        folder: Path | None = self._config.getoption("--dump-memory")
        if folder is not None and diagnosis.finding in {Finding.PANIC, Finding.HANG}:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{_NAME.sub('-', item.nodeid.rpartition('/')[2])}.core"
            try:
                rig.guest.machine.dump_memory(file)
                report.sections.append(("memory", f"kept in {file}"))
            except HarnessError as error:
                report.sections.append(("memory", f"could not be kept: {error}"))
        if self._config.getoption("--hold"):
            with terminal_of_ones_own(self._config), contextlib.suppress(HarnessError):
                hold(rig.guest, report.nodeid)
        if diagnosis.finding in {Finding.PANIC, Finding.HANG, Finding.GUEST_LOST}:
            rig.discard()  # the next test resumes; nothing more is to be had from this one
        return diagnosis

    def _about(self, item: pytest.Item) -> dict[str, str]:
        rig = self._rig
        about = {"behaviour": behaviour(item), "worker": worker_name(self._config)}
        if rig is None:
            return about | {"target": self._subject.label}
        target = rig.target
        if isinstance(target, DragonFlyTarget):
            kernel = target.kernel
            about |= {"kernel": f"{kernel.name} {kernel.version}" if kernel is not None else "installed"}
            about |= {"image": target.image.name}
        else:
            about |= {"kernel": target.label, "image": "control guest"}
        if rig.guest is not None:
            about |= {"qemu": qemu_version(), "accelerator": rig.guest.accelerator.value}
            about |= {"lane": rig.guest.lane.value}
        return about

    # The run as a whole

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember all verdicts, also those of workers."""
        for title, text in report.sections:
            if title == _DECLARED:
                self._declared.update({line.partition(": ")[2] for line in text.splitlines()})
        if report.when == "call" or report.outcome != "passed":
            verdict = dict(report.user_properties).get("verdict")
            if verdict is not None:
                self._findings.append(Finding(str(verdict)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """End with status 3 where tests failed but nothing speaks against the kernel."""
        self._session = session
        if exitstatus == pytest.ExitCode.TESTS_FAILED and len(self._findings) >= session.testsfailed:
            failed = [finding for finding in self._findings if finding.outcome == "failed"]
            if failed and exit_code(failed) is ExitCode.HARNESS_FAILED:
                session.exitstatus = int(ExitCode.HARNESS_FAILED)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write the report pages, and say where they are."""
        for why, count in self._declared.items():
            terminalreporter.line(f"known defect: {count} tests left the process table unsound: {why}")
        record = self._subject.written
        if hasattr(self._config, "workeroutput") or record is None:
            return
        page: Path | None = self._config.getoption("--html")
        try:
            publish(record, page)
        except OSError as error:  # a full disk must not look like a finished run
            terminalreporter.line(f"dfly-harness: the run's report could not be written: {error}", red=True)
            if self._session is not None:
                self._session.exitstatus = int(ExitCode.HARNESS_FAILED)
        else:
            if page is not None:
                terminalreporter.line(f"report: {page}")


def demand_debug_file(target: Target) -> None:
    """Raise pytest.UsageError for a DragonFly kernel whose process table cannot be walked."""
    if not isinstance(target, DragonFlyTarget):
        return  # the control guest has none of DragonFly's tables: nothing is looked for
    if target.kernel is None:
        raise pytest.UsageError("--invariants needs a kernel of the store: its structures are not known otherwise")
    if target.kernel.debug is None:
        raise pytest.UsageError(
            f"--invariants needs the debug file of kernel {target.kernel.name}: import it with --debug kernel.debug"
        )


def _demand_person(config: pytest.Config) -> None:
    if worker_name(config) or config.getoption("dist", "no") != "no":
        raise pytest.UsageError("--hold talks with you about one machine: leave out -n")
    with terminal_of_ones_own(config):
        if not sys.stdin.isatty():
            raise pytest.UsageError("--hold waits for somebody at a terminal, and there is none")

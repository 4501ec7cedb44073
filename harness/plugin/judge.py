# SPDX-License-Identifier: BSD-2-Clause
"""From pytest's report on one phase of a test to its typed result, step by step in this one place.

1. the console, or how the kernel died, joins a failure's report
2. the control guest is held to its list of expected failures
3. the verdict is found, which may make a report that passed a failure (`--invariants`)
4. evidence is kept, and the machine held or given up
5. the result is attached to the report, and its words for JUnit to the test
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.guests.dragonfly import DragonFlyTarget
from harness.machine.qemu import qemu_version
from harness.plugin.about import functions_of
from harness.plugin.applies import fixtures_of, needs_target
from harness.plugin.blame import verdict_of
from harness.plugin.control import find_lack, load_lacks, name_of_test
from harness.plugin.diagnosis import Diagnosis, diagnose, skip_verdict
from harness.plugin.evidence import CALLS, Evidence
from harness.plugin.measuring import measure
from harness.plugin.outcome import EXPECTED, attach, failure_text, plain_result, reason_of
from harness.plugin.parallel import worker_name
from harness.plugin.selection import DEFECT
from harness.plugin.supply import GuestSupply
from harness.plugin.tested import TestedTarget
from harness.results.measurements import Measurements
from harness.results.record import TestResult
from harness.results.verdict import Verdict

_LACKS = "passed on the control guest, which lacks what it takes"
# How failures begin that are no exception: a list of what Linux lacks, or pytest's xfail_strict, is not as expected.
_EXPECTED_FAILURES = (_LACKS, "[XPASS(strict)]")
# Fixtures by which a test sets what pids are given next.
_TAMPERING = {"allocator"}


def behaviour(item: pytest.Item) -> str:
    """Return what a test holds the kernel to: its docstring's first paragraph; empty where it has none."""
    text = (getattr(getattr(item, "obj", None), "__doc__", None) or "").strip().partition("\n\n")[0]
    return " ".join(text.split())


def line_of(item: pytest.Item, call: pytest.CallInfo[None]) -> int:
    """Return the line of ITEM's file at which CALL failed, else the one at which it begins; 0 where there is none."""
    failed = [entry for entry in call.excinfo.traceback if entry.path == item.path] if call.excinfo is not None else []
    if failed:
        return failed[-1].lineno + 1
    begins = item.location[1]
    return begins + 1 if begins else 0


class Judge:
    """Judges the tests of one process; LEARNING leaves the control guest's failures as they are."""

    def __init__(
        self,
        config: pytest.Config,
        tested: TestedTarget,
        supply: GuestSupply,
        evidence: Evidence,
        *,
        learning: bool = False,
    ) -> None:
        self._config = config
        self._tested = tested
        self._supply = supply
        self._evidence = evidence
        self._learning = learning

    def judge(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        """Say what REPORT on a phase of ITEM means; see the module's description."""
        if not needs_target(item):
            if report.when == "call" or not report.passed:
                own = verdict_of(call.excinfo.value) if report.failed and call.excinfo is not None else None
                attach(report, replace(plain_result(report, own), line=line_of(item, call)))
            return
        rig = self._supply.rig
        if rig is not None and report.when != "teardown":
            if report.failed:
                self._evidence.note_console(rig, self._supply.console_mark, report)
            if not rig.target.is_dragonfly and not self._learning:
                _judge_control(item, report)
        about = self._about()  # while there is a machine to tell about
        measured = self._measured(item, report)
        diagnosis = self._verdict(item, call, report)
        if diagnosis is None:
            return
        if report.failed and self._supply.trouble is None:
            self._evidence.keep(rig, item, report, diagnosis)
        lane = about.get("lane") or str(
            dict(item.user_properties).get("lane", "")
        )  # of an earlier phase, if it has gone
        result = replace(self._result(item, report, diagnosis, measured, lane), line=line_of(item, call))
        attach(report, result)
        self._tell_junit(item, report, result, about)

    def _verdict(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> Diagnosis | None:
        rig = self._supply.rig
        if report.skipped:
            is_defect = item.get_closest_marker("defect") is not None or EXPECTED in dict(item.user_properties)
            return Diagnosis(skip_verdict(reason_of(report), is_defect=is_defect))
        if report.passed:
            if report.when != "call":
                return None
            return self._evidence.broken_table(rig, item, report) or Diagnosis(Verdict.PASSED)
        if call.excinfo is None:  # made a failure by what the suite expects, or by another plugin for its own reasons
            expected = isinstance(report.longrepr, str) and report.longrepr.startswith(_EXPECTED_FAILURES)
            return Diagnosis(Verdict.FAILED if expected else Verdict.HARNESS_ERROR)
        if self._supply.trouble is not None:
            return Diagnosis(self._supply.trouble.verdict)
        diagnosis = diagnose(rig, call.excinfo.value)
        if diagnosis.verdict is Verdict.FAILED and (broken := self._evidence.process_table(rig, item, report)):
            report.sections.append(("process table", broken))
        return diagnosis

    def _measured(self, item: pytest.Item, report: pytest.TestReport) -> Measurements:
        rig = self._supply.rig
        if report.when != "call" or rig is None or rig.guest is None:
            return Measurements()
        return measure(rig.ready().storms(), tampered=bool(_TAMPERING & fixtures_of(item)))

    def _result(
        self, item: pytest.Item, report: pytest.TestReport, diagnosis: Diagnosis, measured: Measurements, lane: str
    ) -> TestResult:
        texts = [(title, text) for title, text in report.sections if not title.startswith("Captured ")]
        trouble, properties = self._supply.trouble, dict(item.user_properties)
        return TestResult(
            report.nodeid,
            diagnosis.verdict,
            round(report.duration, 3),
            str(trouble) if trouble is not None and report.failed else reason_of(report),
            evidence="\n\n".join(f"==== {title}\n{text}" for title, text in texts if title != CALLS),
            functions=tuple(sorted(functions_of(item))),
            fingerprint=diagnosis.fingerprint,
            behaviour=behaviour(item),
            worker=worker_name(self._config),
            lane=lane,
            defect=str(properties.get(DEFECT) or properties.get(EXPECTED, "")),
            reproducer=_reproducer(item) if properties.get(DEFECT) else "",
            introduced=_introduced(item) if properties.get(DEFECT) else "",
            measurements=measured,
            calls=tuple(line for title, text in texts if title == CALLS for line in text.splitlines()),
        )

    def _tell_junit(
        self, item: pytest.Item, report: pytest.TestReport, result: TestResult, about: dict[str, str]
    ) -> None:
        about |= {"verdict": str(result.verdict), "fingerprint": result.fingerprint, "behaviour": result.behaviour}
        about |= {"worker": result.worker}
        # A test has one verdict: its last phase's.
        kept = [(name, value) for name, value in item.user_properties if name not in about and name != "function"]
        kept += [("function", name) for name in result.functions]
        item.user_properties[:] = [*kept, *((name, value) for name, value in about.items() if value)]
        report.user_properties = list(item.user_properties)

    def _about(self) -> dict[str, str]:
        rig = self._supply.rig
        if rig is None:
            return {"target": self._tested.label}
        target = rig.target
        if isinstance(target, DragonFlyTarget):
            kernel = target.kernel
            about = {"kernel": f"{kernel.name} {kernel.version}" if kernel is not None else "installed"}
            about |= {"image": target.image.name}
        else:
            about = {"kernel": target.label, "image": "control guest"}
        if rig.guest is not None:
            about |= {"qemu": qemu_version(), "accelerator": rig.guest.accelerator.value}
            about |= {"lane": rig.guest.lane.value}
        return about


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
        report.longrepr = f"{_LACKS}: {lack.what}"


def _reproducer(item: pytest.Item) -> str:
    """Return the C file that shows the known defect of ITEM, by its path below suites/; empty where there is none."""
    mark = item.get_closest_marker("defect")
    name = mark.kwargs.get("reproducer") if mark is not None else None
    return f"reproducers/{name}" if name else ""


def _introduced(item: pytest.Item) -> str:
    """Return the commit that is proved to have brought the known defect of ITEM; empty where none is."""
    mark = item.get_closest_marker("defect")
    return str(mark.kwargs.get("introduced", "")) if mark is not None else ""

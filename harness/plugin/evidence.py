# SPDX-License-Identifier: BSD-2-Clause
"""What a verdict rests on: the process table after a test, and what is kept of a guest on which one failed."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError, UsageError
from harness.guests.guest import Guest
from harness.guests.targets import ResolvedTarget
from harness.plugin.diagnosis import Diagnosis
from harness.plugin.hold import hold
from harness.plugin.live import terminal_of_ones_own, trouble
from harness.plugin.parallel import worker_name
from harness.plugin.rig import Rig
from harness.results.verdict import Verdict
from harness.runs.options import RunOptions

#: Titles of a report's sections.
CALLS = "system calls"
DECLARED = "process table: known defects"
_TABLE = "process table"
_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_DEAD = {Verdict.PANIC, Verdict.HANG, Verdict.GUEST_LOST}


class Evidence:
    """Looks at the guest of a test that ended, and keeps what shows why it failed."""

    def __init__(self, config: pytest.Config, options: RunOptions) -> None:
        self._config = config
        self._options = options
        self._unsound: tuple[Guest | None, frozenset[str]] = (None, frozenset())

    def process_table(self, rig: Rig | None, item: pytest.Item, report: pytest.TestReport) -> str:
        """Return what the test broke, in words; what it is known to break is a section of its REPORT instead."""
        guest = rig.guest if rig is not None else None
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
                report.sections.append((DECLARED, "\n".join(f"{text}: {why}" for text, why in declared.items())))
            return "\n".join(text for text in new if text not in declared)
        except UsageError:  # not a kernel one can look into
            return ""
        except HarnessError as error:
            return f"(could not be read: {error})"

    def note_console(self, rig: Rig, mark: int, report: pytest.TestReport) -> None:
        """Add to REPORT what the console has said since MARK, or how the kernel died."""
        if (panic := rig.diagnose()) is not None:
            report.sections.append(("kernel panic", panic.evidence))
        elif rig.guest is not None and (said := rig.guest.console.text(mark).strip()):
            report.sections.append(("console during the test", said.replace("\r", "")))

    def keep(self, rig: Rig | None, item: pytest.Item, report: pytest.TestReport, diagnosis: Diagnosis) -> None:
        """Add to REPORT what shows DIAGNOSIS; give the machine to a person, and up if it is of no more use."""
        titles = {title for title, _ in report.sections}
        if diagnosis.text and diagnosis.title not in titles:
            report.sections.append((diagnosis.title, diagnosis.text))
        if rig is None or rig.guest is None:
            return
        with contextlib.suppress(HarnessError):
            if journal := rig.ready().journal():
                report.sections.append((CALLS, "\n".join(journal)))
        if diagnosis.verdict in {Verdict.PANIC, Verdict.HANG}:
            self._dump_memory(rig.guest, item, report)
        if self._options.hold:
            with terminal_of_ones_own(self._config), contextlib.suppress(HarnessError):
                head = f"{str(diagnosis.verdict).upper()} {report.nodeid}"
                hold(rig.guest, report.nodeid, [head, *(f"    {line}" for line in trouble(report))])
        if diagnosis.verdict in _DEAD:
            rig.discard(looked=True)  # the next test resumes; nothing more is to be had from this one

    def _dump_memory(self, guest: Guest, item: pytest.Item, report: pytest.TestReport) -> None:
        folder: Path | None = self._options.dump_memory
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{_NAME.sub('-', item.nodeid.rpartition('/')[2])}.core"
        try:
            guest.machine.dump_memory(file)
            report.sections.append(("memory", f"kept in {file}"))
        except HarnessError as error:
            report.sections.append(("memory", f"could not be kept: {error}"))

    def broken_table(self, rig: Rig | None, item: pytest.Item, report: pytest.TestReport) -> Diagnosis | None:
        """Make REPORT of a test that passed a failure where it left the kernel's process table unsound."""
        broken = self.process_table(rig, item, report) if self._options.invariants else ""
        if not broken:
            return None
        report.outcome = "failed"
        report.longrepr = f"the test passed, but left the kernel's process table unsound:\n{broken}"
        return Diagnosis(Verdict.FAILED, _TABLE, broken)


def demand_debug_file(target: ResolvedTarget) -> None:
    """Raise pytest.UsageError for a DragonFly kernel whose process table cannot be walked."""
    if not target.is_dragonfly:
        return  # the control guest has none of DragonFly's tables: nothing is looked for
    if target.kernel is None:
        raise pytest.UsageError("--invariants needs a kernel of the store: its structures are not known otherwise")
    if target.kernel.debug is None:
        raise pytest.UsageError(
            f"--invariants needs the debug file of kernel {target.kernel.name}: import it with --debug kernel.debug"
        )


def demand_person(config: pytest.Config) -> None:
    """Raise pytest.UsageError where nobody can answer `--hold`."""
    if worker_name(config) or config.getoption("dist", "no") != "no":
        raise pytest.UsageError("--hold talks with you about one machine: leave out -n")
    with terminal_of_ones_own(config):
        if not sys.stdin.isatty():
            raise pytest.UsageError("--hold waits for somebody at a terminal, and there is none")

# SPDX-License-Identifier: BSD-2-Clause
"""A run as other people's formats know one: each test with an outcome of theirs, one line of why, and where it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from harness.report.words import sentence
from harness.results.record import RunRecord, TestResult
from harness.results.summary import conclusion
from harness.results.verdict import Verdict
from harness.visible import visible

#: Stands for the run itself, where something is to be said that is no test's.
THE_RUN = "the run"
_BY_SIGNAL = 128


class Outcome(StrEnum):
    """What formats with a few outcomes can say."""

    PASSED = "passed"
    FAILED = "failed"
    #: There is no verdict on the kernel, and something went wrong.
    BROKEN = "broken"
    #: It ran and failed, as a list of known failures says.
    EXPECTED = "expected failure"
    #: It was left out, or is not about this kernel.
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Told:
    """One test: `why` is one line, empty where it passed; `at` is file and line, 0 where the line is not known."""

    test: str
    outcome: Outcome
    why: str
    result: TestResult

    @property
    def at(self) -> tuple[str, int]:
        """The file that has the test, as the test's name says it, and the line in it."""
        return self.test.partition("::")[0], self.result.line

    @property
    def log(self) -> list[str]:
        """What is known of a test that went wrong, as lines that print."""
        parts = [self.result.reason, self.result.evidence]
        calls = self.result.calls
        parts += ["\n".join(["==== last system calls", *calls])] if calls else []
        return [line for part in parts for line in printable(part).splitlines()]


def tell(record: RunRecord) -> Iterator[Told]:
    """Yield all tests of RECORD: those with a result in their order, then those that never came to one."""
    for result in record.results:
        yield _told(result)
    why = str(record.trouble) if record.trouble is not None else record.incomplete or "the run ended before it"
    for test in record.not_run:
        yield Told(test, Outcome.BROKEN, one_line(f"not run: {why}"), TestResult(test, Verdict.HARNESS_ERROR))


def end_of(record: RunRecord) -> str:
    """Say in one line what went wrong with the run itself, which no test's outcome says; empty where nothing did."""
    if record.trouble is not None:
        return one_line(f"the run ended early: {record.trouble}")
    if record.incomplete:
        return one_line(f"the record is incomplete: {record.incomplete}")
    if record.exit_status > _BY_SIGNAL:
        return f"the run was ended by signal {record.exit_status - _BY_SIGNAL}"
    if record.exit_status and not any(result.verdict.is_failure for result in record.results):
        return one_line(f"exit status {record.exit_status}: {conclusion(record)}")
    return ""


def one_line(text: str) -> str:
    """Return TEXT as a line that prints."""
    return " ".join(printable(text).split())


def printable(text: str) -> str:
    """Return TEXT so that any encoding takes it, and nothing in it moves a cursor."""
    return visible(text.encode(errors="replace").decode())


def _told(result: TestResult) -> Told:
    outcome = _outcome(result)
    if outcome is Outcome.PASSED:
        return Told(result.test, outcome, "", result)
    if outcome is Outcome.SKIPPED or outcome is Outcome.EXPECTED:
        return Told(result.test, outcome, one_line(_left_out(result)), result)
    known = f"known defect: {result.known_defect}: " if result.known_defect else ""
    return Told(result.test, outcome, one_line(f"{known}{result.words}: {result.cause or sentence(result)}"), result)


def _left_out(result: TestResult) -> str:
    """Return why a test was left out, or may fail; words that begin with the verdict do not need it once more."""
    reason = result.defect or result.reason.removeprefix("Skipped: ")
    return reason if reason.startswith(str(result.verdict)) else f"{result.verdict}: {reason or 'left out'}"


def _outcome(result: TestResult) -> Outcome:
    if result.verdict is Verdict.PASSED:
        return Outcome.PASSED
    if result.verdict.is_left_out:
        # With the defect's name it did run: a known failure of a program.
        return Outcome.EXPECTED if result.verdict is Verdict.KNOWN_DEFECT and result.defect else Outcome.SKIPPED
    return Outcome.FAILED if result.verdict.against_kernel else Outcome.BROKEN

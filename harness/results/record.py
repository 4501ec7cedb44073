"""What a run leaves behind: one JSON record that reports, comparisons and bisection read."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.store import Store

FORMAT = 1
_RECORDS = "[0-9]*-*.json"


@dataclass(frozen=True)
class TestResult:
    """One test: its outcome in pytest's words, seconds, why it failed, and what the console said meanwhile.

    `verdict` is a harness.results.finding.Finding, `fingerprint` tells the causes of panics and hangs apart,
    `behaviour` is what the test holds the kernel to in words, `calls` are the last system calls of one that failed,
    `lane` is how time passed for it (harness.machine.description.Lane), `measurements` what its fork storms showed
    (harness.results.measurements.Measurements), `recording` the folder that `replay` reads, `defect` the known defect
    of this kernel's era that the test shows where it fails.
    """

    __test__ = False

    test: str
    outcome: str
    seconds: float
    reason: str = ""
    console: str = ""
    functions: tuple[str, ...] = ()
    verdict: str = ""
    fingerprint: str = ""
    behaviour: str = ""
    worker: str = ""
    lane: str = ""
    recording: str = ""
    defect: str = ""
    measurements: dict[str, Any] = field(default_factory=dict)
    calls: tuple[str, ...] = ()


def read_results(file: Path) -> list[TestResult]:
    """Return the results in the record FILE; raises UsageError when it is none."""
    known = {each.name for each in fields(TestResult)}
    try:
        results = json.loads(file.read_text())["results"]
        return [TestResult(**{name: value for name, value in each.items() if name in known}) for each in results]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is no record of a run: {error}") from None


def last_record(store: Store) -> Path:
    """Return the record of the latest run; raises UsageError when there is none."""
    records = sorted(store.folder("results").glob(_RECORDS))  # their names sort by time
    if not records:
        raise UsageError("there is no run yet: dfly-harness run, or give the record of one")
    return records[-1]


def keep(results: list[TestResult], result: TestResult) -> None:
    """Add RESULT to RESULTS; a test that failed while it was tidied up after has one result, not two."""
    if results and results[-1].test == result.test and results[-1].outcome == "passed" != result.outcome:
        passed = results.pop()
        result = replace(result, seconds=round(passed.seconds + result.seconds, 3))
    results.append(result)


@dataclass
class RunRecord:
    """One suite on one target; `trouble` is what ended it early, such as a kernel that does not boot.

    `starts` counts machines, `failed_resumes` those that did not come out of the warm state at the first try;
    `warp` says whether tests of time ran in the time-warped lane, and how fast or why not.  `accelerator` is what QEMU
    ran the guests with, `accelerator_reason` why: the figures it was chosen by, or that somebody asked for it;
    `quirks` is what the machine does differently for a kernel of that era under it.

    `features` is what is known of the kernel (harness.guests.features.KernelFacts.summary()).

    `first_test` is the time at which the first test began its work: its guest was there already.
    """

    target: str
    is_dragonfly: bool
    identity: str = ""
    machine: str = ""
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    first_test: str = ""
    seconds: float = 0.0
    starts: int = 0
    failed_resumes: int = 0
    warp: str = ""
    features: str = ""
    accelerator: str = ""
    accelerator_reason: str = ""
    quirks: list[str] = field(default_factory=list)
    workers: int = 1
    exit_status: int = 0
    trouble: str = ""
    results: list[TestResult] = field(default_factory=list)
    format: int = FORMAT

    def write(self, store: Store, file: Path | None = None) -> Path:
        """Write the record to FILE, or among the store's results under a name that sorts by time."""
        stamp = self.started.replace(":", "").partition("+")[0]
        target = file if file is not None else store.folder("results") / f"{stamp}-{os.getpid()}.json"
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(asdict(self), indent=1) + "\n")
            part.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        return target

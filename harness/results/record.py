# SPDX-License-Identifier: BSD-2-Clause
"""What a run leaves behind: one typed record, which goes to JSON and comes back equal.

`docs/record.schema.json` describes the file.  A reader takes every format up to FORMAT, and ignores fields it does not
know; a file of a later format is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from harness.errors import UsageError
from harness.results.measurements import Measurements
from harness.results.verdict import Verdict
from harness.store import Store

#: Of the record.  1: verdicts as free text beside pytest's outcomes, `trouble` as a line of text.
FORMAT = 2
KIND = "run"
#: What a run says that had nothing to run.
NO_TEST = "no test matches"
#: Stands for a test where a kernel died and none was there to be charged with it.
BETWEEN_TESTS = "between tests"
_OF_THE_TEST = ("seconds", "functions", "behaviour", "worker", "defect")
_RECORDS = "[0-9]*-*.json"
#: What pytest called a test before there were verdicts.
_OUTCOMES = {"passed": Verdict.PASSED, "skipped": Verdict.NOT_APPLICABLE, "xfailed": Verdict.NOT_APPLICABLE}


@dataclass(frozen=True)
class TestResult:
    """One test: its verdict, seconds, why it did not pass, and what the guest said meanwhile.

    `evidence` is what consoles, debuggers and the harness have to say about a failure; `fingerprint` tells the causes
    of panics and hangs apart; `behaviour` is what the test holds the kernel to in words; `calls` are the last system
    calls of one that failed; `lane` is how time passed for it (harness.machine.description.Lane); `measurements` what
    its fork storms showed; `recording` the folder that `replay` reads; `defect` the known defect of this kernel's era
    that the test shows where it fails.
    """

    __test__ = False

    test: str
    verdict: Verdict
    seconds: float = 0.0
    reason: str = ""
    evidence: str = ""
    functions: tuple[str, ...] = ()
    fingerprint: str = ""
    behaviour: str = ""
    worker: str = ""
    lane: str = ""
    recording: str = ""
    defect: str = ""
    measurements: Measurements = field(default_factory=Measurements)
    calls: tuple[str, ...] = ()

    @property
    def known_defect(self) -> str:
        """The known defect that made it speak against the kernel; empty where it does not, or is news."""
        return self.defect if self.verdict.against_kernel else ""

    def to_json(self) -> dict[str, Any]:
        """Return plain data; what is empty is left out.  `outcome` is for readers that know pytest's words only."""
        given: dict[str, Any] = {
            "test": self.test,
            "verdict": str(self.verdict),
            "outcome": self.verdict.outcome,
            "seconds": self.seconds,
        }
        for name in ("reason", "evidence", "fingerprint", "behaviour", "worker", "lane", "recording", "defect"):
            given |= {name: value} if (value := getattr(self, name)) else {}
        for name in ("functions", "calls"):
            given |= {name: list(values)} if (values := getattr(self, name)) else {}
        return given | ({"measurements": self.measurements.to_json()} if self.measurements else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it from any format; raises KeyError, TypeError or ValueError for what is none."""
        texts = ("reason", "fingerprint", "behaviour", "worker", "lane", "recording", "defect")
        given = {name: str(data.get(name, "")) for name in texts}
        return cls(
            str(data["test"]),
            Verdict(data["verdict"]) if data.get("verdict") else _OUTCOMES.get(data["outcome"], Verdict.FAILED),
            float(data.get("seconds", 0)),
            evidence=str(data.get("evidence", data.get("console", ""))),
            functions=tuple(map(str, data.get("functions", ()))),
            calls=tuple(map(str, data.get("calls", ()))),
            measurements=Measurements.from_json(data.get("measurements", {})),
            **given,
        )


@dataclass(frozen=True)
class Trouble:
    """What ended a run early: the verdict on it, what was said, and the verdict that its `cause` would be in a test.

    A kernel that panics on the way up, where another comes up on the same image, is a boot failure whose cause is a
    panic.
    """

    verdict: Verdict
    text: str
    cause: Verdict = Verdict.HARNESS_ERROR

    def __str__(self) -> str:
        return self.text if self.verdict is Verdict.HARNESS_ERROR else f"{self.verdict}: {self.text}"

    @property
    def kernel_died(self) -> bool:
        """Whether the kernel itself prevented the run: it is proved to be what does not come up."""
        return self.verdict is Verdict.BOOT_FAILURE and self.cause in {Verdict.PANIC, Verdict.HANG}

    def to_json(self) -> dict[str, str]:
        """Return plain data."""
        return {"verdict": str(self.verdict), "text": self.text, "cause": str(self.cause)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> Self:
        """Rebuild it; format 1 had one line of text, which began with the verdict unless the harness failed."""
        if not isinstance(data, str):
            return cls(Verdict(data["verdict"]), str(data["text"]), Verdict(data.get("cause", data["verdict"])))
        word, colon, text = data.partition(": ")
        if colon and word in set(Verdict):
            verdict = Verdict(word)
            return cls(verdict, text, Verdict.PANIC if "panicked" in text else verdict)
        return cls(Verdict.HARNESS_ERROR, data)


@dataclass(frozen=True)
class RunRecord:
    """One suite on one target; `trouble` is what ended it early, such as a kernel that does not boot.

    `options` are the target's options as they were given.  `starts` counts machines, `failed_resumes` those that did
    not come out of the warm state at the first try; `warp` says whether tests of time ran in the time-warped lane, and
    how fast or why not.  `features` is what is known of the kernel (harness.guests.features.KernelFacts.summary()).
    `accelerator` is what QEMU ran the guests with, `accelerator_reason` why: the figures it was chosen by, or that
    somebody asked for it; `quirks` is what the machine does differently for a kernel of that era under it.
    `first_test` is the time at which the first test began its work: its guest was there already.  `not_run` are tests
    that were to run and came to nothing, because the run ended before them.
    """

    target: str
    is_dragonfly: bool
    identity: str = ""
    machine: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    first_test: str = ""
    seconds: float = 0.0
    starts: int = 0
    failed_resumes: int = 0
    warp: str = ""
    features: str = ""
    accelerator: str = ""
    accelerator_reason: str = ""
    quirks: tuple[str, ...] = ()
    workers: int = 1
    exit_status: int = 0
    trouble: Trouble | None = None
    results: tuple[TestResult, ...] = ()
    not_run: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        plain = ("target", "is_dragonfly", "identity", "machine", "started", "first_test", "seconds", "starts",
                 "failed_resumes", "warp", "features", "accelerator",
                 "accelerator_reason", "workers", "exit_status")  # fmt: skip
        return {
            "format": FORMAT,
            "kind": KIND,
            **{name: getattr(self, name) for name in plain},
            "quirks": list(self.quirks),
            "options": dict(self.options),
            "trouble": self.trouble.to_json() if self.trouble is not None else None,
            "results": [result.to_json() for result in self.results],
            "not_run": list(self.not_run),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it from any format up to FORMAT; raises KeyError, TypeError or ValueError for what is none."""
        if int(data.get("format", 1)) > FORMAT:
            raise ValueError(
                f"it has format {data['format']}, and this dfly-harness reads up to {FORMAT}: install a newer one"
            )
        if data.get("kind", KIND) != KIND:
            raise ValueError(f"it is a {data['kind']}")
        given: dict[str, Any] = {
            name: str(data.get(name, ""))
            for name in (
                "identity",
                "machine",
                "started",
                "first_test",
                "warp",
                "features",
                "accelerator",
                "accelerator_reason",
            )
        }
        for name, default in {"starts": 0, "failed_resumes": 0, "workers": 1, "exit_status": 0}.items():
            given[name] = int(data.get(name, default))
        return cls(
            str(data["target"]),
            bool(data.get("is_dragonfly", False)),
            options=dict(data.get("options", {})),
            quirks=tuple(map(str, data.get("quirks", ()))),
            seconds=float(data.get("seconds", 0)),
            trouble=Trouble.from_json(data["trouble"]) if data.get("trouble") else None,
            results=tuple(TestResult.from_json(each) for each in data["results"]),
            not_run=tuple(map(str, data.get("not_run", ()))),
            **given,
        )

    def write(self, store: Store, file: Path | None = None) -> Path:
        """Write the record to FILE, or among the store's results under a name that sorts by time.

        Raises OSError when it cannot be written; nothing half is left then.
        """
        stamp = self.started.replace(":", "").partition("+")[0]
        target = file if file is not None else store.folder("results") / f"{stamp}-{os.getpid()}.json"
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(self.to_json(), indent=1) + "\n")
            part.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        return target


def read_record(file: Path) -> RunRecord:
    """Return the record in FILE; raises UsageError, in one line, when it is none or of a later format."""
    try:
        return RunRecord.from_json(json.loads(file.read_text()))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{file} is no record of a run: give what `dfly-harness run --json FILE` wrote ({said})"
        ) from None


def last_record(store: Store) -> Path:
    """Return the record of the latest run; raises UsageError when there is none."""
    records = sorted(store.folder("results").glob(_RECORDS))  # their names sort by time
    if not records:
        raise UsageError("there is no run yet: dfly-harness run, or give the record of one")
    return records[-1]


def charge(results: list[TestResult], death: TestResult) -> None:
    """Let DEATH, noticed later, replace what its test came to in RESULTS; a failure of its own stays beside it."""
    for number, result in enumerate(results):
        if result.test == death.test and not result.verdict.is_left_out and not result.verdict.against_kernel:
            about = {name: getattr(result, name) for name in _OF_THE_TEST}
            results[number] = replace(death, **about)
            return
    results.append(death)


def keep(results: list[TestResult], result: TestResult) -> None:
    """Add RESULT to RESULTS; a test that failed while it was tidied up after has one result, not two."""
    if results and results[-1].test == result.test and results[-1].verdict is Verdict.PASSED is not result.verdict:
        passed = results.pop()
        result = replace(result, seconds=round(passed.seconds + result.seconds, 3))
    results.append(result)

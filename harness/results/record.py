# SPDX-License-Identifier: BSD-2-Clause
"""What a run leaves behind: one typed record, which goes to JSON and comes back equal.

`docs/record.schema.json` describes the file.  A reader takes every format up to FORMAT, and ignores fields it does not
know; a file of a later format is refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from harness.errors import UsageError
from harness.files import read_file, write_whole
from harness.results.causes import first_words, panic_in
from harness.results.changes import Change
from harness.results.coverage import Coverage
from harness.results.kinds import what_else
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
_OF_THE_TEST = ("seconds", "functions", "behaviour", "worker", "defect", "reproducer", "introduced", "line")
_RESULT_TEXTS = (
    "reason",
    "evidence",
    "fingerprint",
    "behaviour",
    "worker",
    "lane",
    "recording",
    "defect",
    "reproducer",
    "introduced",
)
#: What stands between two exceptions in pytest's tracebacks.
_CHAIN = re.compile(
    r"^(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):$",
    re.MULTILINE,
)
_RECORDS = "[0-9]*-*.json"
#: How a file's name ends that has what is known of a run that has not come to its end (harness.results.partial).
PARTIAL = ".partial"
# Of a record.
_TEXTS = ("identity", "machine", "started", "first_test", "warp", "features", "accelerator", "accelerator_reason",
          "kernel", "kernel_digest", "image", "root", "since", "folder", "incomplete", "shard",
          "selection")  # fmt: skip
_NUMBERS = {"starts": 0, "failed_resumes": 0, "not_again": 0, "workers": 1, "exit_status": 0, "osreldate": 0}
#: What pytest called a test before there were verdicts.
_OUTCOMES = {"passed": Verdict.PASSED, "skipped": Verdict.NOT_APPLICABLE, "xfailed": Verdict.NOT_APPLICABLE}


@dataclass(frozen=True)
class TestResult:
    """One test: its verdict, seconds, why it did not pass, and what the guest said meanwhile.

    `evidence` is what consoles, debuggers and the harness have to say about a failure; `fingerprint` tells the causes
    of panics and hangs apart; `behaviour` is what the test holds the kernel to in words; `calls` are the last system
    calls of one that failed; `lane` is how time passed for it (harness.machine.description.Lane); `measurements` what
    its fork storms showed; `recording` the folder that `replay` reads; `defect` the known defect of this kernel's era
    that the test shows where it fails, or for which a program's list of known failures let it fail, and `reproducer` a
    C file below suites/ that shows the same, and `introduced` the commit that is proved to have brought it. `line` is
    where in its file it failed, or begins, 0 where that is not known. `again` is what it came to when it was run again,
    in that order, and `pristine` says of one of these that it had a machine of its own because the one before had
    failed.
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
    reproducer: str = ""
    introduced: str = ""
    measurements: Measurements = field(default_factory=Measurements)
    calls: tuple[str, ...] = ()
    again: tuple[TestResult, ...] = ()
    pristine: bool = False
    line: int = 0

    @property
    def attempts(self) -> tuple[int, int]:
        """How often it failed, and how often it ran: runs of which nothing is known are left out."""
        judged = [each for each in (self, *self.again) if each.verdict.is_judged]
        return sum(each.verdict.against_kernel for each in judged), len(judged)

    @property
    def is_flaky(self) -> bool:
        """Whether it failed and passed within one run, on one kernel."""
        failures, count = self.attempts
        return 0 < failures < count

    @property
    def words(self) -> str:
        """The verdict, and how often it was given where the test ran more than once."""
        failures, count = self.attempts
        said = str(self.verdict)
        if not self.again:
            return said
        if count < 2:
            return f"{said}; once more: {self.again[-1].verdict}"
        if not self.is_flaky:
            causes = {each.failed_for for each in (self, *self.again) if each.failed_for}
            differ = ", for different reasons" if len(causes) > 1 else ""
            return f"{said} ({failures or count} of {count}{differ})"
        if (failures, count) == (1, 2) and self.again[-1].pristine:
            return f"{said}, then passed on a pristine machine (flaky: 1 of 2)"
        return f"{said} (flaky: {failures} of {count})"

    @property
    def cause(self) -> str:
        """Why it did not pass, in one line: a fingerprint, or what was expected and not met.

        Of a chain of exceptions the last one tells it.
        """
        lines = _CHAIN.split(self.reason.strip())[-1].strip().splitlines()
        shown = [line.removeprefix("E").strip() for line in lines if line.startswith("E  ")] or lines[-1:] or [""]
        return self.fingerprint or shown[0]

    @property
    def death(self) -> str | None:
        """What tells the panic or hang that it shows from others; None where it shows none."""
        if self.fingerprint:
            return f"hang: {self.fingerprint}" if self.verdict is Verdict.HANG else self.fingerprint
        return panic_in(self.evidence)

    @property
    def failed_for(self) -> str | None:
        """Why the kernel failed it, so that equal causes are equal; "" where it passed, None where nobody knows."""
        if not self.verdict.is_judged:
            return None
        return (self.death or first_words(self.reason) or str(self.verdict)) if self.verdict.against_kernel else ""

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
        for name in _RESULT_TEXTS:
            given |= {name: value} if (value := getattr(self, name)) else {}
        for name in ("functions", "calls"):
            given |= {name: list(values)} if (values := getattr(self, name)) else {}
        given |= {"again": [each.to_json() for each in self.again]} if self.again else {}
        given |= {"pristine": True} if self.pristine else {}
        given |= {"line": self.line} if self.line else {}
        return given | ({"measurements": self.measurements.to_json()} if self.measurements else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it from any format; raises KeyError, TypeError or ValueError for what is none."""
        given = {name: str(data.get(name, "")) for name in _RESULT_TEXTS if name != "evidence"}
        return cls(
            str(data["test"]),
            Verdict(data["verdict"]) if data.get("verdict") else _OUTCOMES.get(data["outcome"], Verdict.FAILED),
            float(data.get("seconds", 0)),
            evidence=str(data.get("evidence", data.get("console", ""))),
            functions=tuple(map(str, data.get("functions", ()))),
            calls=tuple(map(str, data.get("calls", ()))),
            measurements=Measurements.from_json(data.get("measurements", {})),
            again=tuple(map(cls.from_json, data.get("again", ()))),
            pristine=bool(data.get("pristine", False)),
            line=int(data.get("line", 0)),
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
    how fast or why not.  `not_again` is how many failures were not looked at again, since so many had failed again that
    it was not worth it.  `features` is what is known of the kernel (harness.guests.features.KernelFacts.summary()).
    `accelerator` is what QEMU ran the guests with, `accelerator_reason` why: the figures it was chosen by, or that
    somebody asked for it; `quirks` is what the machine does differently for a kernel of that era under it.
    `first_test` is the time at which the first test began its work: its guest was there already.  `not_run` are tests
    that were to run and came to nothing, because the run ended before them.

    `kernel`, `kernel_digest`, `osreldate` and `image` say what was tested, in a word each, and `root` where tests lie
    that are no suite of the harness: by these, records of the same tests on neighbouring kernels are found.  `since` is
    when the last such run began, and `changes` what came to something else than then.  `command` are pytest's
    arguments, given in `folder`.  `incomplete` is why the record ends before its run, empty where it does not.
    `coverage` is what its tests executed of the kernel's code, empty unless that was asked for.
    `shard` is which part of a run it is, such as "2/4"; `selection` stands for all tests of that run and who has which.
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
    not_again: int = 0
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
    kernel: str = ""
    kernel_digest: str = ""
    osreldate: int = 0
    image: str = ""
    root: str = ""
    since: str = ""
    changes: tuple[Change, ...] = ()
    command: tuple[str, ...] = ()
    folder: str = ""
    incomplete: str = ""
    shard: str = ""
    selection: str = ""
    coverage: Coverage = field(default_factory=Coverage)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        plain = (*_TEXTS, *_NUMBERS, "target", "is_dragonfly", "seconds")
        return {
            "format": FORMAT,
            "kind": KIND,
            **{name: getattr(self, name) for name in plain},
            "quirks": list(self.quirks),
            "options": dict(self.options),
            "trouble": self.trouble.to_json() if self.trouble is not None else None,
            "results": [result.to_json() for result in self.results],
            "not_run": list(self.not_run),
            "changes": [change.to_json() for change in self.changes],
            "command": list(self.command),
            **({"coverage": self.coverage.to_json()} if self.coverage else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it from any format up to FORMAT; raises KeyError, TypeError or ValueError for what is none."""
        if data.get("kind", KIND) != KIND:
            raise ValueError(f"it is a {data['kind']}")
        if int(data.get("format", 1)) > FORMAT:
            raise ValueError(
                f"it has format {data['format']}, and this dfly-harness reads up to {FORMAT}: install a newer one"
            )
        given: dict[str, Any] = {name: str(data.get(name, "")) for name in _TEXTS}
        given |= {name: int(data.get(name, default)) for name, default in _NUMBERS.items()}
        return cls(
            str(data["target"]),
            bool(data.get("is_dragonfly", False)),
            options=dict(data.get("options", {})),
            quirks=tuple(map(str, data.get("quirks", ()))),
            seconds=float(data.get("seconds", 0)),
            trouble=Trouble.from_json(data["trouble"]) if data.get("trouble") else None,
            results=tuple(TestResult.from_json(each) for each in data["results"]),
            not_run=tuple(map(str, data.get("not_run", ()))),
            changes=tuple(map(Change.from_json, data.get("changes", ()))),
            command=tuple(map(str, data.get("command", ()))),
            coverage=Coverage.from_json(data.get("coverage", {})),
            **given,
        )

    def file(self, store: Store) -> Path:
        """Return where this process keeps it among the results of STORE: names sort by time."""
        stamp = self.started.replace(":", "").partition("+")[0]
        return store.folder("results") / f"{stamp}-{os.getpid()}.json"

    def write(self, store: Store, file: Path | None = None) -> Path:
        """Write the record to FILE, or among the store's results under a name that sorts by time.

        Raises OSError when it cannot be written; nothing half is left then.
        """
        target = file if file is not None else self.file(store)
        write_whole(target, json.dumps(self.to_json(), indent=1) + "\n")
        return target


def read_record(file: Path) -> RunRecord:
    """Return the record in FILE, or what is known of the run that was to write it and did not come to its end.

    Raises UsageError, in one line, when it is none or of a later format.
    """
    from harness.results.partial import partial_of, read_partial  # which is made of what is here

    partial, text = partial_of(file), ""
    try:
        if file == partial or (not file.exists() and partial.exists()):
            return read_partial(partial)
        text = read_file(file)
        return RunRecord.from_json(json.loads(text))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if what := what_else(text):
            raise UsageError(f"{file} is no record of a run: {what}") from None
        said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{file} is no record of a run: give what `dfly-harness run --json FILE` wrote ({said})"
        ) from None


def last_record(store: Store) -> Path:
    """Return the record of the latest run, also of one that did not come to its end; raises UsageError for none."""
    records = record_files(store)
    if not records:
        raise UsageError("there is no run yet: dfly-harness run, or give the record of one")
    return records[0]


def record_files(store: Store) -> list[Path]:
    """Return the records among the results of STORE, also those of runs that did not come to their end; last first."""
    folder = store.folder("results")
    # Their names sort by time.
    return sorted([*folder.glob(_RECORDS), *folder.glob(_RECORDS + PARTIAL)], key=lambda file: file.name, reverse=True)


def find_record(words: str, store: Store) -> Path:
    """Return the file that WORDS mean: a record, a run's name among those of STORE, or with `-` the last one.

    Raises UsageError when there is none.
    """
    if words == "-":
        return last_record(store)
    results = store.folder("results")
    places = [Path(words), Path(words + PARTIAL)]
    if "/" not in words:
        places += [results / f"{words}{end}" for end in ("", ".json", f".json{PARTIAL}")]
    for place in places:
        if place.exists() and not place.is_dir():  # a pipe, too, is read
            return place
    raise UsageError(
        f"there is no record {words}: give its file, a run's name (dfly-harness history), or - for the last"
    )


def charge(results: list[TestResult], death: TestResult) -> None:
    """Let DEATH, noticed later, replace what its test came to in RESULTS; a failure of its own stays beside it."""
    for number, result in enumerate(results):
        if result.test == death.test and not result.verdict.is_left_out and not result.verdict.against_kernel:
            about = {name: getattr(result, name) for name in _OF_THE_TEST}
            results[number] = replace(death, **about, again=(*result.again, *death.again))
            return
    results.append(death)


def keep(results: list[TestResult], result: TestResult) -> None:
    """Add RESULT to RESULTS; a test that failed while it was tidied up after has one result, not two."""
    if results and results[-1].test == result.test and results[-1].verdict is Verdict.PASSED is not result.verdict:
        passed = results.pop()
        result = replace(result, seconds=round(passed.seconds + result.seconds, 3))
    results.append(result)

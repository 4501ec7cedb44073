# SPDX-License-Identifier: BSD-2-Clause
"""A failed test as a report for whoever can mend the kernel: it stands by itself, without a page or a log."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness import __version__
from harness.report.mends import Mend
from harness.report.plain import Part
from harness.report.words import sentence
from harness.results.bisection import HOLDS, BisectionReport
from harness.results.neighbours import Appearance
from harness.results.record import RunRecord, TestResult
from harness.results.verdict import Verdict

_OWN_WORDS = re.compile(r"\((DragonFly v.*)\) on image ")
_CALLS = 15
_COMMAND = 62  # characters of a line of a command
_CONSOLE = 25
_KERNELS = 12
_SECTION = re.compile(r"^==== (.*)$", re.MULTILINE)
_PIECE = re.compile(r"^---- (.*)$", re.MULTILINE)
_EXPECTATION = re.compile(r"^E\s+(.*)$", re.MULTILINE)
_OURS = re.compile(r": (usched_set|253)\(")  # 253, which does nothing, is where a schedule finds a thread
_ABOUT = re.compile(r"^/\*\n \* (.*?)\n \*\n", re.DOTALL | re.MULTILINE)
_CLASS = re.compile(r"^(?:\w+\.)+\w+Error: ")  # of an exception, which says nothing elsewhere
_SENTENCE = re.compile(r"[:.]\s")
_OBJECT = re.compile(r" at 0x[0-9a-f]+>")  # of the harness, which says nothing elsewhere
_CALL = 100  # characters of a call and its result
_MOST_WORDS = 6  # lines of what was expected and not met


@dataclass
class Sighting:
    """How one kernel did in all runs of the test that are on record."""

    kernel: str
    osreldate: int
    failures: int = 0
    runs: int = 0
    verdicts: set[str] = field(default_factory=set)

    @property
    def words(self) -> str:
        """One line: the kernel and how often the test failed on it."""
        version = f", __DragonFly_version {self.osreldate}" if self.osreldate else ""
        if not self.failures:
            return f"not seen: {self.kernel}{version}: passed {self.runs} of {self.runs}"
        verdicts = ", ".join(sorted(self.verdicts))
        return f"seen:     {self.kernel}{version}: {verdicts} in {self.failures} of all {self.runs} runs on record"


def kernel_words(record: RunRecord) -> str:
    """Return the kernel as it calls itself, where that is known: what it is called in a store means nothing elsewhere.

    A kernel that is none of DragonFly's is what the record says.
    """
    found = _OWN_WORDS.search(record.target) if record.is_dragonfly else None
    return found[1] if found is not None else record.target


def sightings(test: str, appearances: Sequence[Appearance]) -> list[Sighting]:
    """Return on which kernels TEST was seen to fail, and on which not, those of the latest version first."""
    found: dict[tuple[str, str], Sighting] = {}
    for each in appearances:
        record = each.record
        if each.result.test != test or not each.result.verdict.is_judged or not record.is_dragonfly:
            continue
        key = record.target, record.kernel_digest
        one = found.setdefault(key, Sighting(kernel_words(record), record.osreldate))
        failures, runs = each.result.attempts
        one.failures += failures
        one.runs += runs
        one.verdicts |= {str(run.verdict) for run in (each.result, *each.result.again) if run.verdict.against_kernel}
    return sorted(found.values(), key=lambda one: (-one.osreldate, one.kernel))[:_KERNELS]


def bug_report(
    result: TestResult,
    record: RunRecord,
    seen: Sequence[Sighting] = (),
    found: Sequence[BisectionReport] = (),
    reproducer: str = "",
    mend: Mend | None = None,
) -> tuple[str, list[Part]]:
    """Return title and parts of a report on RESULT, which failed in the run of RECORD.

    SEEN is where it was seen, FOUND what bisections for it came to, REPRODUCER a C program that shows it, MEND what has
    mended it for a trial.
    """
    sections = _sections(result.evidence)
    headline, symptom = _headline(sections), _symptom(reproducer)
    return _title(result, headline, symptom), [
        Part("What happens", tuple(_what_happens(result, headline, symptom))),
        Part("What should happen", (sentence(result),)),
        Part("What to change", tuple(mend.words) if mend is not None else ()),
        _program(result, reproducer),
        Part("Kernels", lines=tuple(one.words for one in seen) or (kernel_words(record),)),
        Part("Since", tuple(_since(found)) or tuple(_told(result))),
        _death(sections),
        Part("Last system calls of the test, and their results", lines=tuple(_calls(result))),
        Part(
            "To reproduce with dfly-harness",
            ("With this kernel and image in its store:",),
            commands=_reproduction(result, record),
        ),
        Part("How it was run", lines=tuple(_circumstances(record, result))),
    ]


def _headline(sections: Mapping[str, str]) -> str:
    """Return what the kernel said first when it panicked; empty where it did not."""
    first = sections.get("kernel panic", "").strip().partition("\n")[0]
    return first.removeprefix("panic: ")


def _symptom(reproducer: str) -> str:
    """Return what the first paragraph of the C program REPRODUCER says of what it shows; empty where there is none."""
    found = _ABOUT.search(reproducer)
    return " ".join(found[1].replace("\n *", "\n").split()) if found is not None else ""


def _calls(result: TestResult) -> Iterator[str]:
    """Yield the last calls of RESULT, without those by which a schedule keeps threads on CPUs."""
    calls = [call for call in result.calls if not _OURS.search(call)]
    yield from map(_shown, calls[-_CALLS:])


def _shown(call: str) -> str:
    return call if len(call) <= _CALL else f"{call[:_CALL]}..."


def _capitalised(words: str) -> str:
    """Return WORDS as a sentence begins, but for the name of a function."""
    first = words.partition(" ")[0]
    return words if "(" in first or "_" in first else f"{words[:1].upper()}{words[1:]}"


def _title(result: TestResult, headline: str, symptom: str) -> str:
    """Return what is wrong: the panic, else what its program shows, else the promise that is not kept."""
    if result.verdict is Verdict.PANIC and headline and not symptom:
        return f"Kernel panic: {headline}"
    dead = {Verdict.PANIC: "Kernel panic: ", Verdict.HANG: "Kernel hangs: "}.get(result.verdict, "")
    if symptom:
        return f"{dead}{_SENTENCE.split(symptom)[0]}"
    where = f"{result.functions[0]}(): " if len(result.functions) == 1 else ""
    return f"{dead or 'Not so: '}{where}{sentence(result).partition(':')[0].rstrip('.')}"


def _what_happens(result: TestResult, headline: str, symptom: str) -> Iterator[str]:
    if symptom:
        yield symptom
    if result.known_defect:
        yield f"Cause: {result.known_defect}." if symptom else f"{_capitalised(result.known_defect)}."
    met = [line for line in _EXPECTATION.findall(result.reason) if not _OBJECT.search(line)]
    if result.verdict is Verdict.PANIC and headline:
        yield f"The kernel panics: {headline}"
    elif result.verdict is Verdict.HANG:
        calls = [
            f"{name}()" for name in result.fingerprint.split("<")[:-1]
        ]  # the last part tells the cause from others
        where = f"; when it was looked at it was in {', called by '.join(calls)}" if calls else ""
        yield f"The kernel answers nobody any more{where}."
    elif result.verdict is Verdict.PANIC or not met:
        yield f"The test ends with: {result.verdict}. {result.cause}"
    else:
        yield f"The test fails: {_CLASS.sub('', ' '.join(met[:_MOST_WORDS]))}"
    failures, runs = result.attempts
    if runs > 1:
        yield f"It came to that in {failures} of {runs} runs: {result.words}."


def _since(found: Sequence[BisectionReport]) -> Iterator[str]:
    for report in found:
        if not report.decided or len(report.culprits) != 1:
            continue
        (culprit,) = report.culprits
        told = [words for words, outcome in report.proof.items() if outcome == HOLDS]
        yield (
            f"Commit {culprit.commit[:12]} ({culprit.subject}; {culprit.author}, {culprit.date}): found by bisection"
            f" among {report.commits} commits in {report.experiments} runs of {report.tested} kernels, with"
            f" {report.probability:.1%} probability{' and proved' if report.proved else ''}."
            f"{' Proof: ' + '; '.join(told) + '.' if told else ''}"
        )


def _told(result: TestResult) -> Iterator[str]:
    """Yield what the test itself knows of the commit."""
    if result.introduced:
        yield f"Commit {result.introduced}: shown on a kernel of that commit, and not on one of its parent."


def _sections(evidence: str) -> dict[str, str]:
    parts = _SECTION.split(evidence)
    return {title: text.strip("\n") for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def _death(sections: dict[str, str]) -> Part:
    """Return what the kernel said when it died: headline, trace with source lines, the console's own words."""
    title = next((title for title in ("kernel panic", "guest hangs") if title in sections), None)
    if title is None:
        console = sections.get("console", "").splitlines()
        return Part("Console", lines=tuple(console[-_CONSOLE:]))
    pieces = _PIECE.split(sections[title])
    told = [line for line in pieces[0].strip().splitlines() if not line.startswith("fingerprint: ")]
    console = next(
        (text.strip().splitlines() for name, text in zip(pieces[1::2], pieces[2::2], strict=True) if name == "console"),
        [],
    )
    said = ["", "On the console:", *console[:_CONSOLE]] if console else []
    return Part("Panic" if title == "kernel panic" else "Hang", lines=(*told, *said))


def _program(result: TestResult, text: str) -> Part:
    """Return the reproducer with how it is run; nothing where there is none."""
    name = result.reproducer.rpartition("/")[2]
    return Part(
        "Program that shows it",
        (
            f"Save as {name} and run `cc {name} && ./a.out` on DragonFly.  The comment at its beginning says what it"
            " does, and what its exit status means.",
        ),
        code=tuple(text.splitlines()),
    ) if text else Part("Program that shows it")  # fmt: skip


def _reproduction(result: TestResult, record: RunRecord) -> tuple[str, ...]:
    options = record.options
    words = ["dfly-harness", "run"]
    words += [f"--image={record.image}"] if record.image else []
    words += [f"--kernel={record.kernel}"] if record.kernel else []
    words += ["--control"] if options.get("control") else []
    words += ["--defects"] if result.defect else []
    return tuple(_continued([shlex.quote(word) for word in (*words, result.test)]))


def _continued(words: Sequence[str]) -> Iterator[str]:
    """Yield a shell's line of WORDS, broken where it is too long as a shell has it."""
    line = ""
    for word in words:
        if line and len(line) + len(word) + 1 > _COMMAND:
            yield f"{line} \\"
            line = "   "
        line = f"{line} {word}" if line else word
    yield line


def _cpus(record: RunRecord) -> str:
    """Return how many CPUs the machine had, in words; empty where the record does not tell."""
    found = re.search(r" -smp (\d+)", record.machine)
    return f", {found[1]} CPU{'s' if found[1] != '1' else ''}" if found is not None else ""


def _circumstances(record: RunRecord, result: TestResult) -> Iterator[str]:
    yield f"target:      {record.target}"
    for name, value in (
        ("machine", f"QEMU ({record.accelerator}){_cpus(record)}" if record.accelerator else ""),
        ("test", result.test),
        ("functions", ", ".join(result.functions)),
        ("begun", record.started),
        ("harness", f"dfly-harness {__version__}"),
    ):
        if value:
            yield f"{name + ':':<12} {value}"

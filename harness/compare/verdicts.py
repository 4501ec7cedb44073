"""Two kernels and one test: what may be said after so many runs of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.compare.certainty import Interval, chance_of_fewer, is_sure, rate_interval, runs_until_sure
from harness.results.finding import Finding

_HEADLINE = re.compile(
    r"^(panic: [^\n]*|Fatal (?:double fault|trap \d+: [^\n]*)|SECONDARY PANIC[^\n]*"
    r"|.*Kernel panic - not syncing: [^\n]*)",
    re.MULTILINE,
)
_FRAME = re.compile(r"\bat ([A-Za-z_]\w*)\+0x[0-9a-f]+")
_STOPPED = re.compile(r"^Stopped at\s+([A-Za-z_]\w*)\+0x", re.MULTILINE)
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\b\d{2,}\b")
# Frames that every panic has.
_DULL = {"panic", "Debugger", "trap", "trap_fatal", "trap_pfault", "calltrap", "kdb_trap"}
_FRAMES = 3


class Verdict(StrEnum):
    """What a kernel does to a test, compared with the baseline."""

    SAME = "same"
    FIXED = "fixed"
    UNPROVEN = "unproven"
    BROKEN = "broken"
    FLAKY = "flaky"
    PANICKED = "panicked"
    NOT_RUN = "not run"


@dataclass
class Tally:
    """How one test went in several runs on one kernel; `panics` counts fingerprints, `reasons` first lines."""

    runs: int = 0
    failures: int = 0
    panics: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    skipped: int = 0

    @property
    def pair(self) -> tuple[int, int]:
        """Failures and runs."""
        return self.failures, self.runs

    def interval(self, confidence: float) -> Interval:
        """Return the exact interval of the failure rate."""
        return rate_interval(self.failures, self.runs, confidence)

    def add(self, result: Mapping[str, Any]) -> None:
        """Count one result of a run's record."""
        outcome = result["outcome"]
        finding = Finding(result["verdict"]) if result.get("verdict") else None
        # A machine or a harness that failed says nothing about the kernel, whatever pytest calls it.
        if outcome == "skipped" or (outcome == "failed" and finding is not None and not finding.against_kernel):
            self.skipped += 1
            return
        self.runs += 1
        if outcome in {"passed", "xfailed"}:
            return
        self.failures += 1
        if (panic := fingerprint(result)) is not None:
            self.panics[panic] += 1
        else:
            self.reasons[_first_words(result.get("reason", ""))] += 1

    def __str__(self) -> str:
        if not self.runs:
            return "not run" if not self.skipped else "not applicable"
        if self.failures == 0:
            return "passes" if self.runs == 1 else f"passes {self.runs}/{self.runs}"
        what = "panics" if self.panics.total() == self.failures else "fails"
        return what if self.runs == 1 else f"{what} {self.failures}/{self.runs}"


def fingerprint(result: Mapping[str, Any]) -> str | None:
    """Return what tells one kernel panic from another: its headline without numbers, and its innermost functions.

    None where the result shows no panic.
    """
    if known := result.get("fingerprint"):
        return f"hang: {known}" if result.get("verdict") == Finding.HANG else str(known)
    console = result.get("console", "")
    found = _HEADLINE.search(console)
    if found is None:
        return None
    headline = _NUMBER.sub("N", found[1].strip()) if found[1].startswith("panic") else found[1].strip()
    text = console[found.start() :]
    frames = [*_STOPPED.findall(text)[:1], *_FRAME.findall(text)]
    shown = list(dict.fromkeys(name for name in frames if name not in _DULL))[:_FRAMES]
    return headline + (f" in {' < '.join(shown)}" if shown else "")


def _first_words(reason: str) -> str:
    lines = [line for line in reason.splitlines() if line.startswith("E  ")] or reason.splitlines() or [""]
    return _NUMBER.sub("N", lines[0].removeprefix("E").strip())[:120]


@dataclass(frozen=True)
class Judgement:
    """A verdict with what supports it.

    `is_broken` says that the kernel does something worse than the baseline.  `confidence` is how sure it is that the
    two differ at all (0 where nothing suggests it); `runs_needed` how many runs of each kernel would make the verdict
    firm, None where none are missing or none would do.
    """

    verdict: Verdict
    is_broken: bool = False
    confidence: float = 0.0
    runs_needed: int | None = None
    note: str = ""


def judge(base: Tally, other: Tally, confidence: float = 0.95) -> Judgement:
    """Compare OTHER with BASE.

    A failure that BASE never showed counts at once; the absence of one that BASE showed counts only when it is too
    improbable to be luck.
    """
    if not base.runs or not other.runs:
        return Judgement(Verdict.NOT_RUN)
    fewer, more = chance_of_fewer(base.pair, other.pair), chance_of_fewer(other.pair, base.pair)
    worse = is_sure(more, confidence) or (other.failures > 0 and base.failures == 0)
    if other.panics:
        return _judge_panic(base, other, 1 - more, 1 - fewer, worse=worse)
    if other.failures == 0:
        if base.failures == 0:
            return Judgement(Verdict.SAME)
        if is_sure(fewer, confidence):
            return Judgement(Verdict.FIXED, confidence=1 - fewer)
        return Judgement(Verdict.UNPROVEN, False, 1 - fewer, runs_until_sure(base.pair, confidence))
    if worse:
        sometimes = f"{other.failures} of {other.runs} runs" if other.failures < other.runs else ""
        needed = None if is_sure(more, confidence) else runs_until_sure(other.pair, confidence)
        return Judgement(Verdict.BROKEN, True, 1 - more, needed, sometimes)
    if base.failures == base.runs and other.failures == other.runs:
        note = "" if set(base.reasons) & set(other.reasons) else f"fails otherwise: {_most(other.reasons)}"
        return Judgement(Verdict.SAME, note=note)
    return Judgement(Verdict.FLAKY, note="fails less often" if is_sure(fewer, confidence) else "", confidence=1 - fewer)


def _judge_panic(base: Tally, other: Tally, surely_more: float, surely_fewer: float, *, worse: bool) -> Judgement:
    known = set(base.panics) & set(other.panics)
    # Another panic than the baseline's is a new one, however often each happens.
    is_broken = worse or not known
    if not is_broken and other.failures < base.failures:
        note = f"still panics, less often: {_most(other.panics)}"
    else:
        note = f"{'panics as before' if known and not worse else 'panics'}: {_most(other.panics)}"
    return Judgement(Verdict.PANICKED, is_broken, surely_more if is_broken else surely_fewer, note=note)


def _most(counter: Counter[str]) -> str:
    return counter.most_common(1)[0][0] if counter else ""


def tally(records: Iterable[Mapping[str, Any]]) -> dict[str, Tally]:
    """Count the results of several runs of one suite on one kernel, by test."""
    tallies: dict[str, Tally] = {}
    for record in records:
        worst: dict[str, Mapping[str, Any]] = {}
        for result in record["results"]:
            # Setup, call and teardown of one test may each have failed; it is still one run.
            known = worst.get(result["test"])
            if known is None or _badness(result) > _badness(known):
                worst[result["test"]] = result
        for test, result in worst.items():
            tallies.setdefault(test, Tally()).add(result)
    return tallies


def _badness(result: Mapping[str, Any]) -> int:
    order: Sequence[str] = ("skipped", "xfailed", "passed", "error", "failed")
    outcome = result["outcome"]
    return (order.index(outcome) if outcome in order else len(order)) + (10 if fingerprint(result) else 0)

# SPDX-License-Identifier: BSD-2-Clause
"""Two kernels and one test: what may be said after so many runs of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from harness.results.certainty import chance_of_fewer, is_sure, runs_until_sure
from harness.results.comparison import Difference, Judgement, Tally
from harness.results.record import RunRecord, TestResult
from harness.results.verdict import Verdict

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


def fingerprint(result: TestResult) -> str | None:
    """Return what tells one kernel panic from another: its headline without numbers, and its innermost functions.

    None where the result shows no panic.
    """
    if known := result.fingerprint:
        return f"hang: {known}" if result.verdict is Verdict.HANG else known
    console = result.evidence
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


def judge(base: Tally, other: Tally, confidence: float = 0.95) -> Judgement:
    """Compare OTHER with BASE.

    A failure that BASE never showed counts at once; the absence of one that BASE showed counts only when it is too
    improbable to be luck.
    """
    if not base.runs or not other.runs:
        apply = all(tally.runs or not tally.inapplicable for tally in (base, other))
        return Judgement(Difference.NOT_RUN if apply else Difference.NOT_APPLICABLE)
    fewer, more = chance_of_fewer(base.pair, other.pair), chance_of_fewer(other.pair, base.pair)
    worse = is_sure(more, confidence) or (other.failures > 0 and base.failures == 0)
    if other.panics:
        return _judge_panic(base, other, 1 - more, 1 - fewer, worse=worse)
    if other.failures == 0:
        if base.failures == 0:
            return Judgement(Difference.SAME)
        if is_sure(fewer, confidence):
            return Judgement(Difference.FIXED, confidence=1 - fewer)
        return Judgement(Difference.UNPROVEN, False, 1 - fewer, runs_until_sure(base.pair, confidence))
    if worse:
        sometimes = f"{other.failures} of {other.runs} runs" if other.failures < other.runs else ""
        needed = None if is_sure(more, confidence) else runs_until_sure(other.pair, confidence)
        return Judgement(Difference.BROKEN, True, 1 - more, needed, sometimes)
    if base.failures == base.runs and other.failures == other.runs:
        note = "" if set(base.reasons) & set(other.reasons) else f"fails otherwise: {_most(other.reasons)}"
        return Judgement(Difference.SAME, note=note)
    return Judgement(
        Difference.FLAKY, note="fails less often" if is_sure(fewer, confidence) else "", confidence=1 - fewer
    )


def _judge_panic(base: Tally, other: Tally, surely_more: float, surely_fewer: float, *, worse: bool) -> Judgement:
    known = set(base.panics) & set(other.panics)
    # Another panic than the baseline's is a new one, however often each happens.
    is_broken = worse or not known
    if not is_broken and other.failures < base.failures:
        note = f"still panics, less often: {_most(other.panics)}"
    else:
        note = f"{'panics as before' if known and not worse else 'panics'}: {_most(other.panics)}"
    return Judgement(Difference.PANICKED, is_broken, surely_more if is_broken else surely_fewer, note=note)


def _most(counter: Counter[str]) -> str:
    return counter.most_common(1)[0][0] if counter else ""


def tally(records: Iterable[RunRecord]) -> dict[str, Tally]:
    """Count the results of several runs of one suite on one kernel, by test."""
    tallies: dict[str, Tally] = {}
    for record in records:
        worst: dict[str, TestResult] = {}
        for result in record.results:
            # Setup, call and teardown of one test may each have failed; it is still one run.
            known = worst.get(result.test)
            if known is None or result.verdict.severity > known.verdict.severity:
                worst[result.test] = result
        for test, result in worst.items():
            _count(tallies.setdefault(test, Tally()), result)
    return tallies


def _count(tally_: Tally, result: TestResult) -> None:
    verdict = result.verdict
    if verdict.is_left_out:
        tally_.inapplicable += 1
    elif not verdict.is_judged:
        tally_.lost += 1  # a machine or a harness that failed says nothing about the kernel
    else:
        tally_.runs += 1
        tally_.failures += verdict.against_kernel
        if verdict.against_kernel and (panic := fingerprint(result)) is not None:
            tally_.panics[panic] += 1
        elif verdict.against_kernel:
            tally_.reasons[_first_words(result.reason)] += 1

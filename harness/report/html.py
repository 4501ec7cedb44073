# SPDX-License-Identifier: BSD-2-Clause
"""A run's record as one HTML page: what it is about and how it went, then each test in words with its evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from harness.files import write_whole
from harness.report.coverage import coverage_section
from harness.report.page import facts, folded, named, page, preformatted, shown
from harness.report.plots import Curve, bar_chart, curve_plot, histogram, scatter_plot
from harness.report.words import sentence
from harness.results.record import RunRecord, TestResult
from harness.results.summary import conclusion, counts, not_again_words, verdicts_of

_SLOWEST = 12
_LEAST = 0.05  # s worth a bar
_SEQUENCES = 2
_DELAY = 10.0  # s, kern_proc.c: PIDDOM_DELAY


def write_run(record: RunRecord, out: Path, sources: Path | None = None) -> None:
    """Write the page of RECORD, with what was run of the kernel's SOURCES, to OUT.

    Raises OSError when OUT cannot be written.
    """
    write_whole(out, run_page(record, sources))  # half a page looks like a whole one


def run_page(record: RunRecord, sources: Path | None = None) -> str:
    """Return the HTML page of a run's record; with the kernel's SOURCES it shows what was run of them."""
    return page(f"dfly-harness: {record.target}", _body(record, sources), searchable=True)


def _body(record: RunRecord, sources: Path | None) -> Iterator[str]:
    results = record.results
    yield f"<h1>{shown(record.target)}</h1>"
    if not record.is_dragonfly:
        yield '<p class="banner">These results say nothing about DragonFly.</p>'
    if record.trouble is not None:
        yield f'<div class="banner">The run ended early.{preformatted(str(record.trouble))}</div>'
    if record.incomplete:
        yield f'<p class="banner">Incomplete: {shown(record.incomplete)}.</p>'
    yield f"<p><strong>{shown(conclusion(record))}</strong></p>"
    tiles = "".join(
        f'<li class="{verdict.look}"><b>{count}</b>{shown(verdict.mark)}</li>'
        for verdict, count in verdicts_of(record).items()
    )
    yield f'<ul class="tiles">{tiles}</ul>'
    yield facts(
        [
            ("kernel", record.identity),
            ("features", record.features),
            ("accelerator", " ".join(part for part in (record.accelerator, record.accelerator_reason) if part)),
            ("quirks", "; ".join(record.quirks)),
            ("second looks", not_again_words(record)),
            ("began", record.started),
            ("took", f"{record.seconds:.1f} s on {record.workers} machine(s) side by side"),
            ("machines used", str(record.starts)),
            ("exit status", str(record.exit_status)),
        ]
    )
    yield folded("QEMU's command line", record.machine)
    yield from _changes(record)
    yield folded(f"Tests without a result: {len(record.not_run)}", "\n".join(record.not_run))
    yield from _causes(results)
    loud = [result for result in results if result.verdict.is_failure]
    if loud:
        yield "<h2>What went wrong</h2>"
        for result in sorted(loud, key=lambda result: -result.verdict.severity):
            yield _test(result, is_open=True)
    yield from coverage_section(record.coverage, sources)
    yield from _functions(results)
    yield "<h2>Where the time went</h2>"
    yield _phases(record)
    yield _slowest(results)
    yield from _measurements(results)
    yield "<h2>All tests</h2>"
    yield '<div class="search"></div>'
    by_file: dict[str, list[TestResult]] = {}
    for result in results:
        by_file.setdefault(result.test.partition("::")[0], []).append(result)
    for file, tests in sorted(by_file.items()):
        yield f"<section class='file'><h3>{named(file.rpartition('/')[2])}</h3>"
        for result in tests:
            yield _test(result, is_row=True)
        yield "</section>"


def _changes(record: RunRecord) -> Iterator[str]:
    if not record.since:
        return
    yield "<h2>Since the last run</h2>"
    if not record.changes:
        yield f"<p>No test came to anything else than when it ran last ({shown(record.since)}).</p>"
        return
    yield "<table><tr><th></th><th>test</th><th>now</th><th>before</th></tr>"
    for change in record.changes:
        before = f"{change.before}, {change.when} on {change.kernel}"
        cells = "".join(f"<td>{shown(text)}</td>" for text in (change.kind, change.test, change.now, before))
        yield f"<tr>{cells}</tr>"
    yield "</table>"


def _causes(results: Sequence[TestResult]) -> Iterator[str]:
    causes = Counter(result.fingerprint for result in results if result.fingerprint)
    if causes:
        yield "<h2>Causes of panics and hangs</h2><table><tr><th>fingerprint</th><th>times</th></tr>"
        for cause, count in causes.most_common():
            yield f"<tr><td><code>{named(cause)}</code></td><td>{count}</td></tr>"
        yield "</table>"


def _phases(record: RunRecord) -> str:
    """Return where the time of a run went: until its first test, in tests, in tests that were run again, elsewhere."""
    before = _between(record.started, record.first_test)
    own = sum(result.seconds for result in record.results)
    again = sum(each.seconds for result in record.results for each in result.again)
    machines = max(1, record.workers)
    tests, second = own / machines, again / machines
    rest = record.seconds - before - tests - second
    count = "" if machines == 1 else f", on {machines} machines side by side"
    bars = [
        ("Until the first test: target, boot or resume, collecting", before),
        (f"In the tests, set-up included{count}", tests),
        ("In failed tests once more", second),
        ("Between tests: new machines, last looks, the end", rest),
    ]
    return bar_chart(f"{record.seconds:.0f} s by what was done", [bar for bar in bars if bar[1] >= _LEAST], "s")


def _between(began: str, ended: str) -> float:
    try:
        return max(0.0, (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds())
    except (ValueError, TypeError):  # no test has run, or a record of before
        return 0.0


def _test(result: TestResult, *, is_open: bool = False, is_row: bool = False) -> str:
    dead = bool(result.fingerprint)
    why = [
        folded("Why", result.reason, is_open=is_open and not dead),
        folded("Evidence and console", result.evidence, is_open=is_open),
    ]
    name = result.test.rpartition("::")[2]
    cause = result.known_defect or result.cause
    parts = [
        f"<details{' class=row' if is_row else ''}{' open' if is_open else ''}>"
        f"<summary><span class='time'>{result.seconds:.2f} s</span>"
        f"<span class='mark {result.verdict.look}'>{shown(result.verdict.mark)}</span>"
        f"{shown(sentence(result))}<span class='name'>{named(name)}</span></summary>",
        f"<p class='cause'>{named(cause)}</p>" if cause and result.verdict.is_failure else "",
        facts(
            [
                ("test", result.test),
                ("functions", ", ".join(result.functions)),
                ("known defect", result.known_defect),
                ("in several runs", result.words if result.again else ""),
                ("cause", result.fingerprint),
                ("worker", result.worker),
            ]
        ),
        # What a kernel says when it dies tells more than where the test stood just then.
        *(reversed(why) if dead else why),
        folded("System calls made and answered, the last ones", "\n".join(result.calls)),
        *(_other_run(number, other) for number, other in enumerate(result.again, 1) if other.verdict.is_failure),
        "</details>",
    ]
    return "".join(parts)


def _other_run(number: int, result: TestResult) -> str:
    where = "on a pristine machine" if result.pristine else "on the machine as it was"
    parts = [f"{result.verdict.mark} in {result.seconds:.2f} s", result.fingerprint, result.reason, result.evidence]
    calls = "\n".join(result.calls)
    return folded(f"Other run {number}, {where}", "\n\n".join(part for part in (*parts, calls) if part.strip()))


def _functions(results: Sequence[TestResult]) -> Iterator[str]:
    table: dict[str, list[TestResult]] = {}
    for result in results:
        for function in result.functions:
            table.setdefault(function, []).append(result)
    if not table:
        return
    yield "<h2>Functions of the kernel</h2><table><tr><th>function</th><th>tests</th><th>verdicts</th></tr>"
    for function, tests in sorted(table.items()):
        said = ", ".join(f"{count} {verdict}" for verdict, count in counts(test.verdict for test in tests).items())
        listed = folded(str(len(tests)), "\n".join(f"{test.verdict.mark}  {test.test}" for test in tests))
        yield f"<tr><td><code>{shown(function)}</code></td><td>{listed}</td><td>{shown(said)}</td></tr>"
    yield "</table>"


def _slowest(results: Sequence[TestResult]) -> str:
    slow = sorted(results, key=lambda result: -result.seconds)[:_SLOWEST]
    bars = [(result.test.rpartition("::")[2], result.seconds) for result in slow]
    return bar_chart(f"The {len(slow)} slowest tests", bars, "s")


def _measurements(results: Sequence[TestResult]) -> Iterator[str]:
    """Yield what the fork storms of the tests showed, where there were any."""
    measured = {result.test.rpartition("::")[2]: result.measurements for result in results if result.measurements}
    delays = [delay for one in measured.values() for delay in one.reuse_delays]
    births = {test: one.births for test, one in measured.items() if one.births}
    rates = [(test, one.fork_rates) for test, one in measured.items() if one.fork_rates]
    if not (delays or births or rates):
        return
    yield "<h2>Pids and forks, as the tests saw them</h2>"
    if delays:
        early = sum(delay < _DELAY for delay in delays)
        yield histogram(f"How soon {len(delays)} pids came back", delays, "s", mark=_DELAY)
        yield (
            f"<p class='faint'>From a pid's reaping to its next birth, by the guest's clock; {early} below"
            f" {_DELAY:g} s. A number in use sends the search on in its hash chain, where the delay does not count.</p>"
        )
    if births:
        longest = sorted(births, key=lambda test: -len(births[test]))[:_SEQUENCES]
        for test in longest:
            points = [(float(second), float(pid)) for second, pid in births[test]]
            yield curve_plot("Pids in the order of birth", [Curve(test, points, loose=True)], "s")
    if rates:
        fastest = sorted(rates, key=lambda entry: -max(entry[1]))[:_SLOWEST]
        yield scatter_plot("Children made and reaped per second", fastest, "per s")

"""A run's record as one HTML page: what it is about and how it went, then each test in words with its evidence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.report.page import facts, folded, page, preformatted, shown
from harness.report.plots import Curve, bar_chart, curve_plot, histogram, scatter_plot

# Verdict: mark that needs no colour, style, and where it stands in a summary.
_KINDS = {
    "panic": ("✖ panic", "bad"),
    "hang": ("✖ hang", "bad"),
    "failed": ("✖ failed", "bad"),
    "guest lost": ("! guest lost", "odd"),
    "boot failure": ("! boot failure", "odd"),
    "build failure": ("! build failure", "odd"),
    "harness error": ("! harness error", "odd"),
    "passed": ("✔ passed", "good"),
    "known defect": ("- known defect", "faint"),
    "not applicable": ("- not applicable", "faint"),
}
#: All verdicts, the worst first.
VERDICTS = tuple(_KINDS)
AGAINST = ("panic", "hang", "failed")
_QUIET = {"passed", "known defect", "not applicable"}
_SLOWEST = 12
_SEQUENCES = 2
_DELAY = 10.0  # s, kern_proc.c: PIDDOM_DELAY


def load_record(file: Path) -> dict[str, Any]:
    """Read a run's record; raises UsageError when FILE is none."""
    try:
        record = json.loads(file.read_text())
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except ValueError:
        raise UsageError(f"{file} is no record of a run (not JSON)") from None
    if not isinstance(record, dict) or not isinstance(record.get("results"), list) or "target" not in record:
        raise UsageError(f"{file} is no record of a run: give what `dfly-harness run --json FILE` wrote")
    return record


def verdict_of(result: Mapping[str, Any]) -> str:
    """Return a result's verdict, also of records made before there were any."""
    if verdict := str(result.get("verdict", "")):
        return verdict
    return {"passed": "passed", "skipped": "not applicable", "xfailed": "not applicable"}.get(
        str(result.get("outcome")), "failed"
    )


def counts(record: Mapping[str, Any]) -> dict[str, int]:
    """Return how many tests came to each verdict, the worst first."""
    counted = Counter(verdict_of(result) for result in record["results"])
    return {verdict: counted[verdict] for verdict in _KINDS if counted[verdict]}


def defect_of(result: Mapping[str, Any]) -> str:
    """Return which known defect of the kernel made RESULT speak against it; empty where it is news."""
    return str(result.get("defect", "")) if verdict_of(result) in AGAINST else ""


def conclusion(record: Mapping[str, Any]) -> str:
    """Return the run in one sentence."""
    counted = counts(record)
    against = sum(counted.get(verdict, 0) for verdict in AGAINST)
    judged = against + counted.get("passed", 0)
    troubled = sum(count for verdict, count in counted.items() if verdict not in {*AGAINST, *_QUIET})
    trouble = f" {troubled} could not be judged: the harness, the host or the boot failed." if troubled else ""
    if not judged and record.get("trouble"):
        return f"No test was judged.{trouble}"
    if against:
        known = sum(1 for result in record["results"] if defect_of(result))
        why = f", {known} of them for a known defect" if known else ""
        return f"{against} of {judged} tests speak against this kernel{why}.{trouble}"
    return f"Nothing in {judged} tests speaks against this kernel.{trouble}"


def write_run(record: Path, out: Path) -> None:
    """Write the page of the record in file RECORD to OUT.

    Raises UsageError when RECORD is none, OSError when OUT cannot be written.
    """
    text = run_page(load_record(record))
    try:
        out.write_text(text, encoding="utf-8")
    except OSError:
        if out.is_file():
            out.unlink()  # half a page looks like a whole one
        raise


def run_page(record: Mapping[str, Any]) -> str:
    """Return the HTML page of a run's record."""
    return page(f"dfly-harness: {record['target']}", _body(record))


def _body(record: Mapping[str, Any]) -> Iterator[str]:
    results: Sequence[Mapping[str, Any]] = record["results"]
    yield f"<h1>{shown(str(record['target']))}</h1>"
    if not record.get("is_dragonfly", False):
        yield '<p class="banner">These results say nothing about DragonFly.</p>'
    if trouble := str(record.get("trouble", "")):
        yield f'<div class="banner">The run ended early.{preformatted(trouble)}</div>'
    yield f"<p><strong>{shown(conclusion(record))}</strong></p>"
    tiles = "".join(
        f'<li class="{_KINDS[verdict][1]}"><b>{count}</b>{shown(_KINDS[verdict][0])}</li>'
        for verdict, count in counts(record).items()
    )
    yield f'<ul class="tiles">{tiles}</ul>'
    yield facts(
        [
            ("kernel", str(record.get("identity", ""))),
            ("features", str(record.get("features", ""))),
            ("began", str(record.get("started", ""))),
            ("took", f"{record.get('seconds', 0):.1f} s on {record.get('workers', 1)} machine(s) side by side"),
            ("machines used", str(record.get("starts", ""))),
            ("exit status", str(record.get("exit_status", ""))),
        ]
    )
    yield folded("QEMU's command line", str(record.get("machine", "")))
    yield from _causes(results)
    loud = [result for result in results if verdict_of(result) not in _QUIET]
    if loud:
        yield "<h2>What went wrong</h2>"
        order = list(_KINDS)
        for result in sorted(loud, key=lambda result: order.index(verdict_of(result))):
            yield _test(result, is_open=True)
    yield from _functions(results)
    yield "<h2>Where the time went</h2>"
    yield _slowest(results)
    yield from _measurements(results)
    yield "<h2>All tests</h2>"
    by_file: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_file.setdefault(str(result["test"]).partition("::")[0], []).append(result)
    for file, tests in sorted(by_file.items()):
        yield f"<h3>{shown(file.rpartition('/')[2])}</h3>"
        for result in tests:
            yield _test(result)


def _causes(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    causes = Counter(str(result["fingerprint"]) for result in results if result.get("fingerprint"))
    if causes:
        yield "<h2>Causes of panics and hangs</h2><table><tr><th>fingerprint</th><th>times</th></tr>"
        for cause, count in causes.most_common():
            yield f"<tr><td><code>{shown(cause)}</code></td><td>{count}</td></tr>"
        yield "</table>"


def _test(result: Mapping[str, Any], *, is_open: bool = False) -> str:
    verdict = verdict_of(result)
    mark, style = _KINDS.get(verdict, (verdict, "odd"))
    test = str(result["test"])
    name = test.partition("::")[2] or test
    behaviour = str(result.get("behaviour", "")) or name.removeprefix("test_").replace("_", " ")
    functions = ", ".join(result.get("functions", ()))
    dead = bool(result.get("fingerprint"))
    why = [
        folded("Why", str(result.get("reason", "")), is_open=is_open and not dead),
        folded("Evidence and console", str(result.get("console", "")), is_open=is_open),
    ]
    parts = [
        f"<details{' open' if is_open else ''}><summary><span class='time'>{result.get('seconds', 0):.2f} s</span>"
        f"<span class='mark {style}'>{shown(mark)}</span>{shown(behaviour)}</summary>",
        facts(
            [
                ("test", test),
                ("functions", functions),
                ("known defect", defect_of(result)),
                ("cause", str(result.get("fingerprint", ""))),
                ("worker", str(result.get("worker", ""))),
            ]
        ),
        # What a kernel says when it dies tells more than where the test stood just then.
        *(reversed(why) if dead else why),
        folded("System calls made and answered, the last ones", "\n".join(result.get("calls", ()))),
        "</details>",
    ]
    return "".join(parts)


def _functions(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    table: dict[str, Counter[str]] = {}
    for result in results:
        for function in result.get("functions", ()):
            table.setdefault(str(function), Counter())[verdict_of(result)] += 1
    if not table:
        return
    yield "<h2>Functions of kern_proc.c</h2><table><tr><th>function</th><th>tests</th><th>verdicts</th></tr>"
    for function, counted in sorted(table.items()):
        verdicts = ", ".join(f"{counted[verdict]} {verdict}" for verdict in _KINDS if counted[verdict])
        yield f"<tr><td><code>{shown(function)}</code></td><td>{counted.total()}</td><td>{shown(verdicts)}</td></tr>"
    yield "</table>"


def _slowest(results: Sequence[Mapping[str, Any]]) -> str:
    slow = sorted(results, key=lambda result: -float(result.get("seconds", 0)))[:_SLOWEST]
    bars = [(str(result["test"]).rpartition("::")[2], float(result.get("seconds", 0))) for result in slow]
    return bar_chart(f"The {len(slow)} slowest tests", bars, "s")


def _measurements(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what the fork storms of the tests showed, where there were any."""
    measured = {
        str(result["test"]).rpartition("::")[2]: result["measurements"]
        for result in results
        if result.get("measurements")
    }
    delays = [float(delay) for one in measured.values() for delay in one.get("reuse_delays", ())]
    births = {test: one["births"] for test, one in measured.items() if one.get("births")}
    rates = [(test, one["fork_rates"]) for test, one in measured.items() if one.get("fork_rates")]
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

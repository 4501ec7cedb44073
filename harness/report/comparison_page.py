# SPDX-License-Identifier: BSD-2-Clause
"""A comparison as one HTML page: verdicts, what supports them, causes of panics, and costs with their plots."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from harness.errors import ExitCode
from harness.report.comparison import conclusion, cost_rows, explain, news, percent, plots, summary
from harness.report.page import facts, folded, page, shown
from harness.report.plots import Curve, curve_plot, share_plot
from harness.results.comparison import Comparison, Difference, TestComparison
from harness.results.costs import Costs, Unit

_STYLES = {
    Difference.BROKEN: "bad",
    Difference.PANICKED: "bad",
    Difference.LOST: "bad",
    Difference.CHANGED: "odd",
    Difference.SUSPECT: "odd",
    Difference.RARER: "good",
    Difference.FLAKY: "odd",
    Difference.UNPROVEN: "odd",
    Difference.FIXED: "good",
}
_SIZED = re.compile(r"(?P<what>.*), (?P<size>\d+) processes more")
_DRAWN = 20  # tests; the others are in the table


def comparison_page(comparison: Comparison) -> str:
    """Return the HTML page of COMPARISON: one file that needs no network."""
    names = " / ".join(kernel.name for kernel in comparison.kernels)
    return page(f"dfly-harness compare: {names}", _body(comparison, names))


def _body(comparison: Comparison, names: str) -> Iterator[str]:
    yield f"<h1>{shown(names)}</h1>"
    style = "good" if comparison.exit_code is ExitCode.PASSED else "bad"
    yield f'<p><strong class="{style}">{conclusion(comparison)}</strong></p>'
    yield from (f"<p>{shown(line)}</p>" for line in summary(comparison))
    yield facts(
        [
            *((kernel.name, kernel.label) for kernel in comparison.kernels),
            ("suite", comparison.suite),
            ("runs of each", str(comparison.runs)),
            ("seed of the first run", str(comparison.seed)),
            ("confidence", percent(comparison.confidence)),
            ("finished", comparison.finished),
        ]
    )
    told = news(comparison)
    if told:
        yield "<h2>Tests that tell them apart</h2>"
        yield from _table(comparison, told)
        yield from _rates(comparison, told)
    elif comparison.tests:
        yield "<p>No test tells them apart.</p>"
    yield from _causes(comparison)
    for costs in comparison.costs:
        yield from _costs(costs)
    others = [f"{test.test}: {test.tallies[0]}" for test in comparison.tests if test not in told]
    yield folded(f"{len(others)} other tests, and how they went on {comparison.kernels[0].name}", "\n".join(others))


def _table(comparison: Comparison, told: list[TestComparison]) -> Iterator[str]:
    headings = "".join(f"<th>{shown(kernel.name)}</th>" for kernel in comparison.kernels)
    yield f"<table><tr><th>test</th>{headings}<th>what that says</th></tr>"
    for test in told:
        base = test.tallies[0]
        cells = [f"<td><code>{shown(test.test)}</code></td><td>{base}</td>"]
        remarks = []
        for kernel, other, judgement in zip(comparison.kernels[1:], test.tallies[1:], test.judgements, strict=True):
            style = _STYLES.get(judgement.verdict, "")
            cells.append(f'<td><strong class="{style}">{judgement.verdict}</strong>: {other}</td>')
            if said := explain(judgement, base, other, comparison.confidence):
                remarks.append(shown(f"{kernel.name}: {said}"))
        yield f"<tr>{''.join(cells)}<td>{'<br>'.join(remarks)}</td></tr>"
    yield "</table>"


def _rates(comparison: Comparison, told: list[TestComparison]) -> Iterator[str]:
    """Yield how often each test failed on each kernel, with the exact interval, where it was run more than once."""
    rows = []
    for test in told[:_DRAWN]:
        for kernel, one in zip(comparison.kernels, test.tallies, strict=True):
            if one.runs > 1:
                between = one.interval(comparison.confidence)
                name = test.test.rpartition("::")[2].removeprefix("test_")
                rows.append((f"{kernel.name}: {name}", between.low, one.failures / one.runs, between.high))
    if rows:
        yield share_plot(f"How often they fail, at {percent(comparison.confidence)} confidence", rows)


def _by_size(costs: Costs) -> Iterator[str]:
    """Yield what workloads that were measured with several numbers of processes cost, by that number."""
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    for cost in costs.costs:
        found = _SIZED.fullmatch(cost.workload)
        if found is not None and cost.unit is Unit.TIME:
            pair = curves.setdefault(found["what"], [[], []])
            for curve, seconds in zip(pair, (cost.base, cost.other), strict=True):
                curve.append((float(found["size"]), seconds * 1e6))
    for what, pair in curves.items():
        named = [Curve(name, sorted(curve)) for name, curve in zip((costs.base, costs.other), pair, strict=True)]
        yield curve_plot(f"{what}: µs by processes more", named, "processes")


def _causes(comparison: Comparison) -> Iterator[str]:
    """Yield which panic happened how often on which kernel: the same test may die of several causes."""
    counted: Counter[tuple[str, str]] = Counter()
    for test in comparison.tests:
        for kernel, one in zip(comparison.kernels, test.tallies, strict=True):
            for fingerprint, times in one.panics.items():
                counted[fingerprint, kernel.name] += times
    if counted:
        yield "<h2>Causes of panics and hangs</h2><table><tr><th>fingerprint</th><th>kernel</th><th>times</th></tr>"
        for (fingerprint, name), times in counted.most_common():
            yield f"<tr><td><code>{shown(fingerprint)}</code></td><td>{shown(name)}</td><td>{times}</td></tr>"
        yield "</table>"


def _costs(costs: Costs) -> Iterator[str]:
    yield f"<h2>Costs of {shown(costs.other)} against {shown(costs.base)}</h2>"
    yield from (drawing for _, drawing in plots(costs))
    yield from _by_size(costs)
    headings = ("workload", "in", costs.base, costs.other, "ratio", "interval", "")
    yield f"<table><tr>{''.join(f'<th>{shown(heading)}</th>' for heading in headings)}</tr>"
    for row in cost_rows(costs):
        yield f"<tr>{''.join(f'<td>{shown(cell)}</td>' for cell in row)}</tr>"
    yield "</table>"
    yield from (f"<p>{shown(workload)}: not measured: {shown(why)}</p>" for workload, why in costs.missing.items())

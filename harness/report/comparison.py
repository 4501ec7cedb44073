# SPDX-License-Identifier: BSD-2-Clause
"""A comparison for people: a table on the terminal, and markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.errors import ExitCode
from harness.report.plots import Bar, ratio_plot
from harness.results.certainty import passes_to_bound, upper_bound
from harness.results.comparison import Comparison, Difference, Judgement, Tally, TestComparison
from harness.results.costs import Costs, Unit

_STYLES = {
    Difference.BROKEN: "bold red",
    Difference.PANICKED: "bold red",
    Difference.FLAKY: "yellow",
    Difference.UNPROVEN: "yellow",
    Difference.FIXED: "green",
}
_RARE = 0.05
_COIN = 0.499  # less sure than a coin is not worth words
#: What tells kernels apart, the worst first; that a test was not run, or is about another era, does not.
_TELLING = (Difference.PANICKED, Difference.BROKEN, Difference.FLAKY, Difference.UNPROVEN, Difference.FIXED)


def news(comparison: Comparison) -> list[TestComparison]:
    """Return the tests that are worth a line, worst first."""

    def rank(test: TestComparison) -> int:
        return min(
            _TELLING.index(each.verdict) if each.verdict in _TELLING else len(_TELLING) for each in test.judgements
        )

    # That a kernel which did not boot ran no test is no news.
    compared = [not kernel.prevented for kernel in comparison.kernels]

    def is_news(test: TestComparison) -> bool:
        judged = [each for each, ran in zip(test.judgements, compared[1:], strict=True) if ran and compared[0]]
        return any(each.verdict in _TELLING or each.note for each in judged)

    return sorted(filter(is_news, comparison.tests), key=rank)


def _short(test: str) -> str:
    return test.removeprefix("suites/").removeprefix("conformance/").removeprefix("regressions/")


def explain(judgement: Judgement, base: Tally, other: Tally, confidence: float) -> str:
    """Return one sentence: what supports the verdict, or what it still needs."""
    words = [judgement.note] if judgement.note else []
    if judgement.confidence > _COIN:
        difference = "worse" if judgement.is_broken else "better"
        words.append(f"{difference} with {percent(judgement.confidence)} certainty")
    if (
        judgement.verdict in {Difference.UNPROVEN, Difference.FIXED, Difference.FLAKY}
        or 0 < other.failures < other.runs
    ):
        high, low = upper_bound(*other.pair, confidence), base.interval(confidence)
        words.append(f"failure rate at most {percent(high)}, before {percent(low.low)} to {percent(low.high)}")
    if judgement.verdict is Difference.FIXED and upper_bound(*other.pair, confidence) > _RARE:
        # It fails less often, that is sure; a rarer race than the baseline's may be left.
        passes = passes_to_bound(_RARE, confidence)
        words.append(f"{passes} passes in a row would show that it fails in less than {percent(_RARE)} of the runs")
    if judgement.verdict is Difference.UNPROVEN or (judgement.is_broken and judgement.runs_needed):
        needed = judgement.runs_needed
        words.append(
            f"{needed} repeats would settle it at {percent(confidence)}"
            if needed
            else "no number of repeats settles it"
        )
    return "; ".join(words)


def percent(share: float) -> str:
    """Return SHARE in percent with as many digits as tell it from 0 and 100."""
    for digits in range(4):
        text = f"{100 * share:.{digits}f}"
        if float(text) not in {0.0, 100.0} or share in {0.0, 1.0}:
            return f"{text}%"
    return "<0.001%" if share < 0.5 else ">99.999%"


def summary(comparison: Comparison) -> Iterator[str]:
    """Yield one line per kernel after the baseline."""
    for number, kernel in enumerate(comparison.kernels[1:], 1):
        if kernel.prevented:
            yield f"{kernel.name}: NOT COMPARED: {kernel.prevented}"
            continue
        shown = [f"{count} {verdict}" for verdict, count in comparison.counts(number).items()]
        yield f"{kernel.name}: {', '.join(shown) or 'no test'}"
    if why := comparison.kernels[0].prevented:
        yield f"{comparison.kernels[0].name} (the baseline): NOT RUN: {why}"


def conclusion(comparison: Comparison) -> str:
    """Return the comparison in one sentence."""
    if comparison.exit_code is ExitCode.TEST_FAILED:
        return "Something is broken."
    if comparison.exit_code is not ExitCode.PASSED:
        return "The comparison is not complete."
    compared = any(
        each.verdict not in {Difference.NOT_RUN, Difference.NOT_APPLICABLE}
        for test in comparison.tests
        for each in test.judgements
    )
    return "Nothing is broken." if compared else "No test was compared."


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Show the tests in which the kernels differ, and a summary."""
    names = [kernel.name for kernel in comparison.kernels]
    for kernel in comparison.kernels:
        console.print(f"{kernel.name}: {kernel.label}", markup=False, soft_wrap=True)
    rows = news(comparison)
    if rows:
        table = Table(pad_edge=False)
        table.add_column("test", overflow="fold", ratio=3)
        for name in names:
            table.add_column(escape(name), overflow="fold", ratio=1)
        table.add_column("what that says", overflow="fold", ratio=4)
        for test in rows:
            table.add_row(*_cells(test, comparison.confidence, names))
        console.print(table)
    for line in summary(comparison):
        console.print(line, markup=False, soft_wrap=True)
    for costs in comparison.costs:
        _print_costs(costs, console)


def _print_costs(costs: Costs, console: Console) -> None:
    table = Table(title=escape(f"costs of {costs.other} against {costs.base}"), pad_edge=False, title_justify="left")
    for heading in ("workload", "in", costs.base, costs.other, "ratio", "interval", ""):
        table.add_column(escape(heading))
    for row in cost_rows(costs):
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    for workload, why in costs.missing.items():
        console.print(f"{workload}: not measured: {why}", markup=False, soft_wrap=True)


def cost_rows(costs: Costs) -> Iterator[list[str]]:
    """Yield one row of text per workload of COSTS: name, unit, both figures, ratio, interval, verdict."""
    for cost in costs.costs:
        timed = cost.unit is Unit.TIME
        shown = [f"{value * 1e6:.1f} µs" if timed else f"{value:.0f}" for value in (cost.base, cost.other)]
        interval = cost.interval
        between = f"{interval.low:.3f} to {interval.high:.3f}" if interval else "too few blocks"
        word = ("slower" if cost.ratio > 1 else "faster") if timed else ("more" if cost.ratio > 1 else "fewer")
        verdict = word.upper() if cost.is_changed else "within noise"
        yield [cost.workload, str(cost.unit), *shown, f"{cost.ratio:.3f}", between, verdict]


def plots(costs: Costs) -> Iterator[tuple[str, str]]:
    """Yield each unit of COSTS in which something was measured, with its plot (SVG)."""
    for unit in Unit:
        bars = [
            Bar(
                cost.workload,
                cost.ratio,
                cost.interval.low if cost.interval else cost.ratio,
                cost.interval.high if cost.interval else cost.ratio,
                cost.is_changed,
            )
            for cost in costs.costs
            if cost.unit is unit
        ]
        if bars:
            yield unit, ratio_plot(f"{costs.other} / {costs.base}: {unit} (1 = the same)", bars)


def write_plots(comparison: Comparison, folder: Path) -> list[Path]:
    """Write one SVG per kernel and unit into FOLDER and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for costs in comparison.costs:
        for unit, drawing in plots(costs):
            file = folder / f"costs-{costs.other}-{unit}.svg"
            file.write_text(drawing)
            files.append(file)
    return files


def _cells(test: TestComparison, confidence: float, names: Sequence[str]) -> list[str]:
    cells = [escape(_short(test.test)), str(test.tallies[0])]
    remarks = []
    for name, other, judgement in zip(names[1:], test.tallies[1:], test.judgements, strict=True):
        style = _STYLES.get(judgement.verdict, "")
        verdict = f"[{style}]{judgement.verdict}[/]" if style else str(judgement.verdict)
        cells.append(f"{verdict}: {other}")
        if said := explain(judgement, test.tallies[0], other, confidence):
            remarks.append(escape(f"{name}: {said}" if len(names) > 2 else said))
    return [*cells, "\n".join(remarks)]


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as a table for a pull request."""
    names = [kernel.name for kernel in comparison.kernels]
    runs = comparison.runs
    compared = list(summary(comparison)) if runs else ["no tests were run"]
    lines = [f"### dfly-harness compare: {' / '.join(names)}", ""]
    lines += [f"* **{kernel.name}**: {kernel.label}" for kernel in comparison.kernels]
    lines += ["", f"{runs} run{'s' * (runs != 1)} of each, confidence {percent(comparison.confidence)}.", ""]
    lines += [f"* {line}" for line in compared]
    rows = news(comparison)
    if rows:
        lines += ["", f"| test | {' | '.join(names)} | |", "|---" * (len(names) + 2) + "|"]
        for test in rows:
            cells = [f"`{_short(test.test)}`", str(test.tallies[0])]
            remarks = []
            for name, other, judgement in zip(names[1:], test.tallies[1:], test.judgements, strict=True):
                bold = "**" if judgement.is_broken else ""
                cells.append(f"{bold}{judgement.verdict}{bold}: {other}")
                if said := explain(judgement, test.tallies[0], other, comparison.confidence):
                    remarks.append(f"{name}: {said}" if len(names) > 2 else said)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in [*cells, "<br>".join(remarks)]) + " |")
    elif comparison.tests:
        lines += ["", "No test tells them apart."]
    for costs in comparison.costs:
        lines += ["", f"#### Costs of {costs.other} against {costs.base}", ""]
        lines += [f"| workload | in | {costs.base} | {costs.other} | ratio | interval | |", "|---" * 7 + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in cost_rows(costs)]
        lines += [f"* {workload}: not measured: {why}" for workload, why in costs.missing.items()]
    return "\n".join(lines) + "\n"

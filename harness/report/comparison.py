# SPDX-License-Identifier: BSD-2-Clause
"""A comparison for people: a table on the terminal, and markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.errors import ExitCode
from harness.files import write_whole
from harness.report.plots import Bar, ratio_plot
from harness.results.certainty import Interval, running_interval
from harness.results.comparison import Again, Comparison, Difference, Judgement, Tally, TestComparison
from harness.results.costs import Costs, Unit

_STYLES = {
    Difference.BROKEN: "bold red",
    Difference.PANICKED: "bold red",
    Difference.LOST: "bold red",
    Difference.CHANGED: "yellow",
    Difference.SUSPECT: "yellow",
    Difference.FLAKY: "yellow",
    Difference.UNPROVEN: "yellow",
    Difference.RARER: "green",
    Difference.FIXED: "green",
}
#: What is worth a line, the worst first; that a test is about another era is not.
_TELLING = (
    Difference.PANICKED,
    Difference.BROKEN,
    Difference.LOST,
    Difference.CHANGED,
    Difference.SUSPECT,
    Difference.FLAKY,
    Difference.UNPROVEN,
    Difference.RARER,
    Difference.FIXED,
)


def news(comparison: Comparison) -> list[TestComparison]:
    """Return the tests that are worth a line, worst first."""

    def rank(test: TestComparison) -> int:
        return min(
            _TELLING.index(each.verdict) if each.verdict in _TELLING else len(_TELLING) for each in test.judgements
        )

    # That a kernel which did not boot ran no test is no news.
    compared = [kernel.is_compared for kernel in comparison.kernels]

    def is_news(test: TestComparison) -> bool:
        judged = [each for each, ran in zip(test.judgements, compared[1:], strict=True) if ran and compared[0]]
        return any(each.verdict in _TELLING or each.note for each in judged)

    return sorted(filter(is_news, comparison.tests), key=rank)


def _short(test: str) -> str:
    return test.removeprefix("suites/").removeprefix("conformance/").removeprefix("regressions/")


def explain(judgement: Judgement, base: Tally, other: Tally, confidence: float) -> str:
    """Return in a line what supports the verdict, or what it still needs."""
    words = [judgement.note] if judgement.note else []
    again, verdict = judgement.again, judgement.verdict
    if verdict is Difference.LOST and not judgement.note:
        lost = "on the baseline" if not base.runs else "here"
        words.append(f"it was not run {lost}, so nothing is known")
    if again is not None:
        words += _evidence(judgement, again, confidence)
    elif verdict in {Difference.SUSPECT, Difference.UNPROVEN}:
        words.append("it was not run again, so this says nothing yet")
    elif 0 < other.failures < other.runs:
        now, before = other.interval(confidence), base.interval(confidence)
        words.append(f"failure rate {_between(now)}, before {_between(before)}")
    return "; ".join(words)


def _evidence(judgement: Judgement, again: Again, confidence: float) -> Iterator[str]:
    (failed, runs), (base_failed, base_runs) = again.other, again.base
    if not runs or not base_runs:
        yield "it could not be run again"
        return
    boots = f"{again.boots} boot{'s' * (again.boots != 1)}"
    yield f"since then, on {boots} of each: failed {failed} of {runs}, the baseline {base_failed} of {base_runs}"
    if judgement.verdict is Difference.RARER:
        yield f"rarer: {percent(base_failed / base_runs)} to {percent(failed / runs)}"
    if judgement.confidence:
        yield f"differs, at {percent(judgement.confidence)} for all that is named here together"
    else:
        yield "not told apart by that"
    if judgement.confidence and failed < runs:
        now = running_interval(failed, runs, confidence)
        yield f"failure rate {_between(now)}, before {_between(running_interval(base_failed, base_runs, confidence))}"
    if judgement.passes_needed is not None and not failed:
        yield f"{judgement.passes_needed} passes in a row would show that it is gone"


def _between(interval: Interval) -> str:
    if interval.low == 0.0:
        return f"at most {percent(interval.high)}"
    return f"{percent(interval.low)} to {percent(interval.high)}"


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
        if not kernel.is_compared and comparison.runs:
            yield f"{kernel.name}: NOT COMPARED: {kernel.prevented}"
            continue
        if kernel.prevented:
            yield f"{kernel.name}: not all of its {kernel.runs} runs are whole: {kernel.prevented}"
        shown = [f"{count} {verdict}" for verdict, count in comparison.counts(number).items()]
        yield f"{kernel.name}: {', '.join(shown) or 'no test'}"
    for costs in comparison.costs:
        for name, death in ((costs.base, costs.base_died), (costs.other, costs.other_died)):
            if death:
                yield f"{name}: DIED while its costs were measured: {death}"
    base = comparison.kernels[0]
    if base.prevented:
        how = "not all of its runs are whole" if base.is_compared else "NOT RUN"
        yield f"{base.name} (the baseline): {how}: {base.prevented}"


def conclusion(comparison: Comparison) -> str:
    """Return the comparison in one sentence."""
    if comparison.exit_code is ExitCode.TEST_FAILED:
        return "Something is broken."
    if comparison.exit_code is not ExitCode.PASSED:
        lost = sum(any(each.verdict is Difference.LOST for each in test.judgements) for test in comparison.tests)
        return f"The comparison is not complete: {lost} test{'s were' if lost != 1 else ' was'} lost."
    compared = any(
        each.verdict not in {Difference.NOT_RUN, Difference.NOT_APPLICABLE, Difference.LOST}
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
    if comparison.runs:
        console.print(conclusion(comparison), markup=False, soft_wrap=True)
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
        between = f"{interval.low:.3f} to {interval.high:.3f}" if interval else f"{cost.boots} boots are too few"
        word = ("slower" if cost.ratio > 1 else "faster") if timed else ("more" if cost.ratio > 1 else "fewer")
        verdict = word.upper() if cost.is_changed else "within noise" if interval else "not told"
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
            write_whole(file, drawing)
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
    lines += ["", f"**{conclusion(comparison)}**"] if runs else []
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

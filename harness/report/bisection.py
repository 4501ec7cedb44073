# SPDX-License-Identifier: BSD-2-Clause
"""A bisection for people: on the terminal, and as one HTML page with its posterior and how far such claims can go."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from harness.report.page import facts, folded, page, shown
from harness.report.terminal import print_table
from harness.results.bisection import HOLDS, BisectionReport, Calibration, Explanation

_MARKS = {"good": ("✔ good", "good"), "bad": ("✖ bad", "bad"), "untestable": ("- untestable", "odd")}
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 440, 220, 46, 34
_SHOWN = 14


def _verdict(data: BisectionReport) -> str:
    culprits = data.culprits
    if not data.decided:
        return f"Not decided: the most probable {_commits(len(culprits))} with {data.probability:.1%}."
    if sum(statement.startswith("culprit ") for statement in data.proof) > 1:
        names = " and ".join(each.commit[:12] for each in culprits)
        return f"More than one commit changed it, with {data.probability:.1%}: {names}, each proved."
    if len(culprits) > 1:
        return (
            f"One of {len(culprits)} commits, with {data.probability:.1%}: only untestable ones lie between, and"
            " nothing tells them apart."
        )
    proved = "proved" if data.proved else "not fully proved"
    return f"{culprits[0].commit[:12]} with {data.probability:.1%}, {proved}."


def _commits(count: int) -> str:
    return "commit" if count == 1 else f"{count} commits"


def _effort(data: BisectionReport) -> str:
    runs = f"{data.experiments} runs of {data.tested} among {data.commits} commits"
    took = f"{data.builds} kernels built in {data.build_seconds:.0f} s, tests ran {data.run_seconds:.0f} s"
    return f"{runs}, {data.proving} more to prove; {took}"


def print_bisection(data: BisectionReport, console: Console) -> None:
    """Print the result."""

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, soft_wrap=True)

    line(f"sought: {data.sought}")
    line(_verdict(data), "bold green" if data.decided else "bold yellow")
    for each in data.culprits:
        line(f"  {each.commit[:12]}  {each.date}  {each.author}  {each.subject}")
        for file in each.files:
            line(f"      {file}", "dim")
    if data.failure:
        line(f"test: {data.test}: {data.failure}")
    for excerpt in data.excerpt.splitlines()[:_SHOWN]:
        line(f"    | {excerpt}", "dim")
    for statement, said in data.proof.items():
        line(f"proof: {statement}: {said}", "green" if said == HOLDS else "yellow")
    for trouble, commits in _troubles(data).items():
        line(f"untestable, {trouble}: {', '.join(commit[:12] for commit in commits)}", "yellow")
    for stretch in data.stretches:
        if len(stretch) > 1:
            line(f"untestable stretch of {len(stretch)} commits: {stretch[0][:12]} to {stretch[-1][:12]}", "yellow")
    line(f"{_effort(data)}; the failure shows in {data.rate:.0%} of runs")


def _troubles(data: BisectionReport) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in data.observations:
        if each.is_untestable:
            what = each.trouble + (f" ({each.detail})" if each.detail else "")
            found.setdefault(what, []).append(each.commit)
    return {what: list(dict.fromkeys(commits)) for what, commits in found.items()}


def print_explanation(told: Explanation, console: Console) -> None:
    """Print what is known, and which experiments come next and why."""
    console.print(f"sought: {told.sought}", markup=False, soft_wrap=True)
    seen = ", ".join(f"{number} {outcome}" for outcome, number in told.seen.items()) or "nothing yet"
    certain = "as one that always happens" if told.is_certain else "flaky"
    console.print(
        f"seen: {seen}; the failure looks {certain}, expected in {told.rate:.0%} of runs; "
        f"{told.bits:.2f} bits are left to know about {told.commits} commits",
        markup=False,
        soft_wrap=True,
    )
    likely = [(commit[:12], f"{chance:.2%}", subject) for commit, chance, subject in told.likely]
    print_table(console, ("COMMIT", "CHANCE", "SUBJECT"), likely)
    if told.proving is not None:
        role, commit = told.proving
        console.print(f"next: {commit[:12]}, as the {role}", markup=False, soft_wrap=True)
    if told.decided:
        console.print(f"decided: {told.probability:.1%} is at least the {told.confidence:.0%} asked for")
        return
    columns = ("NEXT", "RUNS", "BITS", "SECONDS", "BITS PER MINUTE", "CHANCE OF BAD", "CHANCE TO BE TESTABLE")
    rows = [
        (
            each.commit[:12],
            str(each.runs),
            f"{each.bits:.3f}",
            f"{each.seconds:.0f}",
            f"{60 * each.bits / each.seconds:.3f}",
            f"{each.chance_bad:.0%}",
            f"{each.testable:.0%}",
        )
        for each in told.following
    ]
    print_table(console, columns, rows)
    console.print("The first tells most for its time; each further one together with those before it.")


# HTML


def bisection_page(data: BisectionReport, calibration: Calibration | None = None) -> str:
    """Return the HTML page of a bisection's report, with what the simulation measured where CALIBRATION is given."""
    return page(f"dfly-harness: bisection of {data.sought}", _body(data, calibration))


def _body(data: BisectionReport, calibration: Calibration | None) -> Iterator[str]:
    yield f"<h1>Which commit: {shown(data.sought)}</h1>"
    yield f"<p><strong>{shown(_verdict(data))}</strong> {shown(_effort(data))}.</p>"
    yield facts(
        [
            ("source", data.source),
            ("good", ", ".join(each[:12] for each in data.good)),
            ("bad", data.bad[:12]),
            ("confidence asked for", f"{data.confidence:.1%}"),
            ("failure shows in", f"{data.rate:.0%} of runs (expected)"),
        ]
    )
    for each in data.culprits:
        yield f"<h2>{shown(each.commit[:12])} {shown(each.subject)}</h2>"
        yield facts([("author", each.author), ("date", each.date), ("chance", f"{each.probability:.2%}")])
        yield folded("Files", "\n".join(each.files), is_open=True)
    if data.failure:
        yield "<h2>The failure</h2>"
        yield facts([("test", data.test), ("report", data.failure)])
        yield folded("Console", data.excerpt, is_open=True)
    if data.proof:
        yield "<h2>Proof</h2><ul>"
        for statement, said in data.proof.items():
            style = "good" if said == HOLDS else "odd"
            yield f"<li>{shown(statement)}: <b class='{style}'>{shown(said)}</b></li>"
        yield "</ul>"
    yield "<h2>What is known of each commit</h2>"
    yield posterior_plot(data)
    if troubles := _troubles(data):
        yield "<h2>Untestable</h2><ul>"
        for trouble, commits in troubles.items():
            yield f"<li>{shown(trouble)}: <code>{shown(', '.join(each[:12] for each in commits))}</code></li>"
        yield "</ul>"
    yield "<h2>Experiments</h2><table><tr><th>commit</th><th>for</th><th>outcome</th><th>seconds</th><th></th></tr>"
    for made in data.observations:
        mark, style = _MARKS[made.outcome]
        seconds = f"{made.run_seconds:.0f}" + (f" + {made.build_seconds:.0f} to build" if made.built else "")
        said = " ".join(filter(None, (made.trouble, made.detail, *(f"[{quirk}]" for quirk in made.quirks))))
        yield (
            f"<tr><td><code>{shown(made.commit[:12])}</code></td><td>{shown(made.role)}</td>"
            f"<td class='{style}'>{shown(mark)}</td><td>{seconds}</td><td>{shown(said)}</td></tr>"
        )
    yield "</table>"
    if calibration is not None:
        yield "<h2>How far such claims can be trusted</h2>"
        yield (
            "<p>Simulated searches, by kernels that know nothing of what the search assumes (dfly-harness calibrate"
            " bisect):</p><table><tr><th>history</th><th>failure</th><th>confidence</th><th>claims</th><th>wrong</th>"
            "<th>median runs</th></tr>"
        )
        for row in calibration.rows:
            cells = (
                row.history,
                row.failures,
                f"{row.level:.0%}",
                str(row.claims),
                f"{row.wrong / row.claims:.1%}",
                f"{row.runs:.0f}",
            )
            yield "<tr>" + "".join(f"<td>{shown(cell)}</td>" for cell in cells) + "</tr>"
        yield "</table>"


def _axes(label: str, low: str, high: str, left: str, right: str) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    return [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{shown(label)}">',
        f'<path d="M{_LEFT} 10V{bottom}H{_WIDTH - 10}" fill="none" stroke="currentColor"/>',
        f'<text x="{_LEFT - 6}" y="18" text-anchor="end">{shown(high)}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{shown(low)}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 12}">{shown(left)}</text>',
        f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 12}" text-anchor="end">{shown(right)}</text>',
    ]


def posterior_plot(data: BisectionReport) -> str:
    """Return the chance of each commit, oldest on the left, with a mark where a kernel was tested."""
    posterior = data.posterior
    most = max([1e-9, *(chance for _, chance in posterior)])
    room, height = _WIDTH - _LEFT - 10, _HEIGHT - _BOTTOM - 10
    step = room / max(1, len(posterior))
    places = {commit: number for number, (commit, _) in enumerate(posterior)}
    parts = _axes("the chance of each commit to be the one", "0", f"{most:.0%}", "good", "bad")
    for commit, chance in posterior:
        if chance / most > 0.001:
            tall = max(1.0, height * chance / most)
            left, top = _LEFT + places[commit] * step, 10 + height - tall
            parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(1.0, step):.1f}" height="{tall:.1f}"'
                f' fill="currentColor" opacity=".6"><title>{shown(commit[:12])} {chance:.2%}</title></rect>'
            )
    tested = {(each.commit, each.outcome) for each in data.observations if each.role != "revert"}
    for commit, outcome in sorted(tested):
        if commit in places:
            x = _LEFT + (places[commit] + 0.5) * step
            mark, style = _MARKS[outcome]
            parts.append(
                f'<text class="{style}" fill="currentColor" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 12}"'
                f' text-anchor="middle">{shown(mark[0])}</text>'
            )
    return "".join([*parts, "</svg>"])

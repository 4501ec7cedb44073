# SPDX-License-Identifier: BSD-2-Clause
"""The page of known defects, made from the marks of the tests that show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.report.mends import Mend, read_mends
from harness.results.verdict import Verdict
from support import introduced, pages, shown
from support.introduced import Introduction

#: What a defect may do, the gravest first: every `defect` mark names one of these.
SEVERITIES = {
    "panic by any user": "an ordinary user ends the kernel",
    "panic by root": "root's legitimate calls end the kernel",
    "hang by any user": "an ordinary user hangs a CPU in the kernel, or the whole of it",
    "hang": "a process sleeps for ever and cannot be killed",
    "breach": "a boundary between users, jails or restrictions is crossed",
    "leak of kernel memory": "what lay in the kernel's memory is handed out",
    "leak": "something is never given back",
    "wrong answer": "a call tells or does something else than it ought to",
}

_CHOICE = ", ".join(f'"{severity}"' for severity in SEVERITIES)
#: What is known of how to mend some of them, which no mark has room for.
FIXES = Path(__file__).resolve().parents[1] / "known_defects.md"
MENDS = FIXES.with_name("mends.toml")
_COLUMNS = "| test | cause | since | until | shown on | reproducer |\n|---|---|---|---|---|---|\n"
_ALWAYS = 200_000  # __DragonFly_version of 2.0: inherited, or as old as the code

_HEAD = """\
# Known defects of the kernel

Made by `python suites/support/pages.py known-defects` from the `defect` marks of the tests and from `known_defects.md`,
`shown.toml`, `introduced.toml` and `mends.toml` in `suites/`; do not edit.  Each test states what ought to be and fails
on a kernel that has the defect; `dfly-harness run --defects PATH` runs it. *Since* and *until* are values of
`__DragonFly_version` (`kern.osreldate`): the kernels that have the defect lie from the one up to, and not including,
the other. A defect without *until* is alive in April 2026. *Shown on* are the kernels on which the test or its
reproducer was run and showed it: 300704 is of 21 April 2014, the oldest kernel tried, 400100 of November 2014, 400704
of January 2017, 500901 of July 2020, 500909 is what became 6.0, 600107 6.2, 600302 6.4; 600516 is of January 2026,
600518 of 19 April 2026.

A *reproducer* is a C program of one file that needs no harness: `cc FILE && ./a.out` on DragonFly.  Its exit status is
0 where the kernel is right, 1 where it has the defect, 77 where it does not apply; where the kernel dies of it, its
first comment says so.  `dfly-harness run --program suites/reproducers/FILE` builds it on this host and runs it in a
guest.
"""


_COMMITS = """\
## The commits that brought them

What is not *always* there, and was bisected with the reproducer of its row: kernels were built of the commit and of its
parent, and run; where the parent has no such call at all it counts as good.  *Always* means that the code is older than
the oldest kernel that was tried, of 21 April 2014 (3a877e444f, the commit that gave pids their delay), or as old as
what it is about.

| commit | of | subject | shown by | proof |
|---|---|---|---|---|
"""


@dataclass(frozen=True, order=True)
class Defect:
    """One test with a `defect` mark, however many cases it has."""

    rank: int  # of its severity
    file: str
    line: int
    test: str
    cause: str
    since: int
    until: int | None
    reproducer: str = ""
    shown: tuple[int, ...] = ()
    introduced: str = ""  # the commit, and of when it is

    @property
    def row(self) -> str:
        """Its line of the table."""
        since = "always" if self.since <= _ALWAYS else str(self.since)
        since += f": {self.introduced}" if self.introduced else ""
        test = f"[{self.test}](../{self.file})"
        cause = _cell(self.cause)
        reproducer = f"[{self.reproducer}](../suites/reproducers/{self.reproducer})" if self.reproducer else ""
        seen = ", ".join(map(str, self.shown))
        return f"| {test} | {cause} | {since} | {self.until or ''} | {seen} | {reproducer} |"


def defects_of(items: Iterable[pytest.Item]) -> list[Defect]:
    """Return all defects the tests show, the gravest first.  Raises ValueError for a mark that does not say enough."""
    defects: dict[str, Defect] = {}
    known = shown.load()
    complaints = []
    for item in items:
        marker = item.get_closest_marker("defect")
        if marker is None:
            continue
        name = item.nodeid.partition("[")[0]
        severity = marker.kwargs.get("severity")
        if severity not in SEVERITIES or not marker.kwargs.get("reason") or "since" not in marker.kwargs:
            complaints.append(f"{name}: its defect mark needs since, reason and a severity of {_CHOICE}")
            continue
        file, line, _ = item.location
        defects[name] = Defect(
            list(SEVERITIES).index(severity),
            file,
            line or 0,
            name.rpartition("::")[2],
            marker.kwargs["reason"],
            marker.kwargs["since"],
            marker.kwargs.get("until"),
            reproducer := marker.kwargs.get("reproducer", ""),
            _shown_on(known, shown.name_of(name), reproducer),
            marker.kwargs.get("introduced", ""),
        )
    if complaints:
        raise ValueError("\n".join(complaints))
    return sorted(defects.values())


def _shown_on(known: Mapping[str, Mapping[int, Verdict]], *names: str) -> tuple[int, ...]:
    """Return the versions of the kernels on which one of NAMES showed the defect."""
    versions = {
        version
        for name in names
        for version, verdict in known.get(name, {}).items()
        if verdict in shown.SHOWN
    }  # fmt: skip
    return tuple(sorted(versions))


def page(defects: list[Defect]) -> str:
    """Return the page in Markdown."""
    parts = [_HEAD]
    for rank, (severity, meaning) in enumerate(SEVERITIES.items()):
        rows = [defect.row for defect in defects if defect.rank == rank]
        if rows:
            title = f"\n## {severity[0].upper()}{severity[1:]} ({len(rows)})\n\n{meaning[0].upper()}{meaning[1:]}.\n\n"
            parts.append(title + _COLUMNS + "\n".join(rows) + "\n")
    return "".join(parts)


def commits(known: Mapping[str, Introduction]) -> str:
    """Return the part of the page that says which commits are proved to have brought what."""
    rows = (
        f"| {one.commit} | {one.date} | {_cell(one.subject)} | {name} | {'; '.join(one.proof)} |\n"
        for name, one in sorted(known.items(), key=lambda pair: (pair[1].date, pair[0]))
    )
    return _COMMITS + "".join(rows) + "\n" if known else ""


def how_to_mend(text: str, mends: Iterable[Mend]) -> str:
    """Return TEXT with tables of MENDS where it has `{grave}` and `{others}`."""
    known = list(mends)
    grave = "".join(
        f"| {_files(each)} | {_cell(each.change)} | {_cell(each.measured)} |\n" for each in known if each.grave
    )
    others = "".join(f"| {_files(each)} | {_cell(each.change)} |\n" for each in known if not each.grave)
    return text.replace("{grave}", f"| shown by | what to change | measured |\n|---|---|---|\n{grave}").replace(
        "{others}", f"| shown by | what to change |\n|---|---|\n{others}"
    )


def _files(mend: Mend) -> str:
    return ", ".join(f"[{name}](../suites/reproducers/{name})" for name in mend.reproducers)


def _cell(text: str) -> str:
    return text.replace("|", chr(92) + "|")


def make() -> str:
    """Return the page.  Raises ValueError for a mark that does not say enough."""
    fixes = how_to_mend(FIXES.read_text(), read_mends(MENDS))
    return f"{page(defects_of(pages.collected()))}\n{commits(introduced.load())}{fixes.rstrip()}\n"

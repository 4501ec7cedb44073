# SPDX-License-Identifier: BSD-2-Clause
"""The page of known defects, made from the marks of the tests that show them.

`python suites/support/known_defects.py` writes docs/known-defects.md; with --check it says whether that is up to date.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = _ROOT / "docs" / "known-defects.md"
_SUITES = ("suites/regressions", "suites/conformance")

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
_ALWAYS = 200_000  # __DragonFly_version of 2.0: inherited, or as old as the code

_HEAD = """\
# Known defects of the kernel

Made by `python suites/support/known_defects.py` from the `defect` marks of the tests; do not edit.  Each test states
what ought to be and fails on a kernel that has the defect; `dfly-harness run --defects PATH` runs it.  *Since* and
*until* are values of `__DragonFly_version` (`kern.osreldate`): the kernels that have the defect lie from the one up to,
and not including, the other.  A defect without *until* is alive in April 2026.
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

    @property
    def row(self) -> str:
        """Its line of the table."""
        since = "always" if self.since <= _ALWAYS else str(self.since)
        test = f"[{self.test}](../{self.file})"
        return f"| {test} | {self.cause.replace('|', chr(92) + '|')} | {since} | {self.until or ''} |"


class _Collector:
    """Plugin of the pytest run that only collects."""

    def __init__(self) -> None:
        self.defects: dict[str, Defect] = {}
        self.complaints: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note each test that shows a defect."""
        for item in session.items:
            marker = item.get_closest_marker("defect")
            if marker is None:
                continue
            name = item.nodeid.partition("[")[0]
            severity = marker.kwargs.get("severity")
            if severity not in SEVERITIES or not marker.kwargs.get("reason") or "since" not in marker.kwargs:
                self.complaints.append(f"{name}: its defect mark needs since, reason and a severity of {_CHOICE}")
                continue
            file, line, _ = item.location
            self.defects[name] = Defect(
                list(SEVERITIES).index(severity),
                file,
                line or 0,
                name.rpartition("::")[2],
                marker.kwargs["reason"],
                marker.kwargs["since"],
                marker.kwargs.get("until"),
            )


def collect() -> list[Defect]:
    """Return all defects the suites know, the gravest first.  Raises ValueError for a mark that does not say enough."""
    collector = _Collector()
    # The oracle stands for a target, so that none is looked for.
    arguments = [*_SUITES, "--collect-only", "-q", "-p", "no:cacheprovider", f"--rootdir={_ROOT}", "--dfly-oracle"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.chdir(_ROOT):
        status = pytest.main(arguments, plugins=[collector])
    if status != pytest.ExitCode.OK:
        raise ValueError(f"the suites cannot be collected:\n{said.getvalue()}")
    if collector.complaints:
        raise ValueError("\n".join(collector.complaints))
    return sorted(collector.defects.values())


def page(defects: list[Defect]) -> str:
    """Return the page in Markdown."""
    parts = [_HEAD]
    for rank, (severity, meaning) in enumerate(SEVERITIES.items()):
        rows = [defect.row for defect in defects if defect.rank == rank]
        if rows:
            title = f"\n## {severity[0].upper()}{severity[1:]} ({len(rows)})\n\n{meaning[0].upper()}{meaning[1:]}.\n\n"
            parts.append(title + "| test | cause | since | until |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    return "".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Write or check the page; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python suites/support/known_defects.py", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if the page is out of date")
    options = parser.parse_args(arguments)
    try:
        text = page(collect())
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.check:
        if _PAGE.exists() and _PAGE.read_text() == text:
            return 0
        sys.stderr.write(f"{_PAGE.relative_to(_ROOT)} is out of date: python suites/support/known_defects.py\n")
        return 1
    _PAGE.parent.mkdir(exist_ok=True)
    _PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

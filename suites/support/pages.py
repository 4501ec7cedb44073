# SPDX-License-Identifier: BSD-2-Clause
"""Pages of the documentation that are made, not written: what tests, rules and commands say of themselves.

`python suites/support/pages.py` writes all of them, `... pages.py eras` one; with --check it says which are stale.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "python suites/support/pages.py"
#: Modules of this package by the page they make; each has make(), which raises ValueError where it cannot.
PAGES = {
    "api": "api",
    "commands": "commands",
    "eras": "eras",
    "errors": "errors",
    "known-defects": "known_defects",
    "man": "man",
    "oracle-rules": "oracle_rules",
}
#: Pages that are no Markdown of their own name.
_FILES = {"man": "dfly-harness.1"}
#: What is made of the same, and stale at the same time.
_ALONG = {"commands": ("man",)}
_SUITES = ("suites/conformance", "suites/regressions")


class _Collector:
    """Plugin of the pytest run that only collects."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Take the items."""
        self.items = list(session.items)


@cache
def collected() -> Sequence[pytest.Item]:
    """Return all tests about kernels.  Raises ValueError where they cannot be collected."""
    collector = _Collector()
    # The oracle stands for a target, so that none is looked for.
    arguments = [*_SUITES, "--collect-only", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", "--dfly-oracle"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.chdir(ROOT):
        status = pytest.main(arguments, plugins=[collector])
    if status != pytest.ExitCode.OK:
        raise ValueError(f"the suites cannot be collected:\n{said.getvalue()}")
    return tuple(collector.items)


def update(page: str, make: Callable[[], str], docs: Path, *, check: bool) -> str | None:
    """Write a page to the folder DOCS, or only CHECK it; return what is wrong with it."""
    file = docs / _FILES.get(page, f"{page}.md")
    text = make()
    if not check:
        file.write_text(text)
    elif not file.exists() or file.read_text() != text:
        return f"docs/{file.name} is out of date: {COMMAND} {page}"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Write or check pages; return the exit status: 1 for a page out of date, 2 for one that cannot be made."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a page is out of date")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"one of {', '.join(PAGES)}; all of them by default")
    options = parser.parse_args(arguments)
    if unknown := set(options.pages) - PAGES.keys():
        parser.error(f"no page is called {', '.join(sorted(unknown))}; there are: {', '.join(PAGES)}")
    complaints = []
    wanted = [each for page in options.pages for each in (page, *_ALONG.get(page, ()))]
    for page in wanted or PAGES:
        try:
            make = import_module(f"support.{PAGES[page]}").make
            complaints.append(update(page, make, ROOT / "docs", check=options.check))
        except ValueError as error:
            sys.stderr.write(f"{error}\n")
            return 2
    said = [complaint for complaint in complaints if complaint]
    sys.stderr.writelines(f"{complaint}\n" for complaint in said)
    return 1 if said else 0


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "suites")]
    # The module that the makers of pages import is not this script.
    sys.exit(import_module("support.pages").main())

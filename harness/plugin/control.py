# SPDX-License-Identifier: BSD-2-Clause
"""What Linux lacks: the tests the control guest cannot pass, each with the failure it has to show.

The list is data beside the suite.  An entry names a test (`module::test`, which stands for all its cases, or
`module::test[case]`); a listed test that passes, or fails in another way, fails the run.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

EXPECTATIONS = "control_expectations.toml"


@dataclass(frozen=True)
class Lack:
    """Something Linux does not have or does otherwise.

    `what` says it in words, `failure` matches the failures it causes, in tests whose names match `where`; `tests` are
    those that show it.
    """

    what: str
    failure: str
    where: str
    tests: frozenset[str]

    def explains(self, test: str, failure: str) -> bool:
        """Tell whether FAILURE of TEST (`module::test[case]`) is of this kind."""
        return bool(re.search(self.failure, failure) and re.search(self.where, test))


@lru_cache
def _load(file: Path, _changed: int) -> tuple[Lack, ...]:
    entries = tomllib.loads(file.read_text())["lack"]
    return tuple(
        Lack(entry["what"], entry["failure"], entry.get("where", ""), frozenset(entry["tests"])) for entry in entries
    )


def load_lacks(suite: Path) -> tuple[Lack, ...]:
    """Return the list of the suite in folder SUITE; empty where there is none."""
    file = suite / EXPECTATIONS
    return _load(file, file.stat().st_mtime_ns) if file.exists() else ()


def name_of_test(nodeid: str) -> str:
    """Return `module::test[case]` for pytest's name of a test."""
    path, _, name = nodeid.partition("::")
    return f"{Path(path).stem}::{name}"


def find_lack(lacks: Iterable[Lack], test: str) -> Lack | None:
    """Return what TEST (`module::test[case]`) must fail for, or None if it has to pass."""
    return next((lack for lack in lacks if test in lack.tests or test.partition("[")[0] in lack.tests), None)


def learn(suite: Path, failures: Mapping[str, str], passed: Iterable[str]) -> list[str]:
    """Rewrite the list of SUITE from what a run showed; return the tests whose failures fit no known lack.

    FAILURES maps tests to the text of their failure, PASSED are those that passed.  What Linux lacks is for people to
    say: the words and patterns of the file stay as they are, only their tests change, and of those only what ran.
    """
    lacks = load_lacks(suite)
    sorted_out: dict[str, str] = {}
    unknown = []
    for test, failure in failures.items():
        lack = next((lack for lack in lacks if lack.explains(test, failure)), None)
        if lack is None:
            unknown.append(test)
        else:
            sorted_out[test] = lack.what
    cases: dict[str, set[str | None]] = defaultdict(set)
    for test in (*failures, *passed):
        cases[test.partition("[")[0]].add(sorted_out.get(test))
    text = ["# What Linux lacks: see harness/plugin/control.py.  The lists of tests are written by", "#"]
    text += [
        "#     dfly-harness run --control --learn-control",
        "",
        "# The first pattern that fits a failure counts.",
        "",
    ]
    for lack in lacks:
        tests = {
            test.partition("[")[0] if len(cases[test.partition("[")[0]]) == 1 else test
            for test, what in sorted_out.items()
            if what == lack.what
        }
        # Nothing was learnt about what did not run.
        tests |= {test for test in lack.tests if test.partition("[")[0] not in cases}
        text += ["[[lack]]", f"what = {json.dumps(lack.what)}", f"failure = '{lack.failure}'"]
        text += [f"where = '{lack.where}'"] if lack.where else []
        text += ["tests = ["]
        text += [f"    {json.dumps(test)}," for test in sorted(tests)]
        text += ["]", ""]
    (suite / EXPECTATIONS).write_text("\n".join(text[:-1]) + "\n")
    return sorted(unknown)


class ControlLesson:
    """What a run on the control guest teaches (`--learn-control`): which tests of suites below ROOT fail, and how."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._failures: dict[Path, dict[str, str]] = defaultdict(dict)
        self._passed: dict[Path, list[str]] = defaultdict(list)

    def add(self, nodeid: str, failure: str | None) -> None:
        """Take in that the test NODEID passed, or its FAILURE."""
        suite, test = self._root / Path(nodeid.partition("::")[0]).parent, name_of_test(nodeid)
        if failure is not None:
            self._failures[suite][test] = failure
        else:
            self._passed[suite].append(test)

    def finish(self) -> list[str]:
        """Rewrite the lists of all suites that ran; return lines about failures that fit no known lack of Linux."""
        return [
            f"no known lack of Linux explains how {test} failed: {self._failures[suite][test]}"
            for suite in sorted({*self._failures, *self._passed})
            for test in learn(suite, self._failures[suite], self._passed[suite])
        ]

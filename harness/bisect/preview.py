# SPDX-License-Identifier: BSD-2-Clause
"""Before anything is built: which tests were chosen, and whether they are about the kernels at the ends of the range.

The tests are collected in a process of their own (`python -m harness.bisect.preview`, which reads a request from its
standard input), for they are the user's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.bisect.repository import Repository
from harness.errors import UsageError
from harness.guests.features import FEATURES, Change, KernelFacts
from harness.guests.options import TargetOptions
from harness.options import PYTEST_PREFIX
from harness.plugin.applies import inapplicable, needs_target
from harness.results.record import NO_TEST
from harness.runs.options import RunOptions
from harness.runs.suite import suite_arguments
from harness.store import Store
from harness.tether import hold_on, run_tethered

_DEADLINE = 600.0


def facts_of(commit: str, repository: Repository) -> KernelFacts:
    """Return what COMMIT's kernel is: its version, and for each feature whether the commit that brought it is in.

    Where REPOSITORY does not have that commit the date of COMMIT tells.
    """
    date = repository.about(commit).date

    def has(change: Change) -> bool:
        try:
            return repository.is_ancestor(repository.resolve(change.commit), commit)
        except UsageError:
            return change.date <= date

    found = {
        name: (each.begins is None or has(each.begins)) and not (each.ends is not None and has(each.ends))
        for name, each in FEATURES.items()
    }
    return KernelFacts(repository.osreldate(commit), found=found)


def check_tests(
    store: Store,
    repository: Repository,
    ends: Mapping[str, str],
    paths: Sequence[str],
    options: Sequence[str],
    *,
    any_era: bool,
) -> None:
    """Raise UsageError unless the tests at PATHS, chosen by pytest's OPTIONS, can tell something at each of ENDS.

    ENDS are commits and what people call them.  With ANY_ERA it is enough that there is a test.
    """
    facts = {commit: facts_of(commit, repository) for commit in ends}
    # The specification stands for a kernel, so that none is looked for.
    arguments = [
        *suite_arguments(RunOptions(TargetOptions(), oracle=""), paths),
        *collectable(options),
        "--collect-only",
        "-p",
        "no:cacheprovider",
    ]
    about = _collect(store, arguments, list(facts.values()))
    if not about:
        raise UsageError(NO_TEST)
    for (commit, name), reasons in zip(ends.items(), zip(*about, strict=True), strict=True):
        if not any_era and (reason := reasons[0]) is not None and None not in reasons:
            raise UsageError(
                f"none of the tests is about the {name} end {commit[:12]}, the first being {reason}:"
                " --any-era runs them there all the same, or begin the range elsewhere"
            )


def collectable(options: Sequence[str]) -> list[str]:
    """Return pytest's OPTIONS for a run that only collects: without `-k` where there are programs.

    Which cases these have they tell in a guest, and there is none yet; without one each is a single test of no name.
    """
    if not any(option.startswith(f"--{PYTEST_PREFIX}program=") for option in options):
        return list(options)
    kept: list[str] = []
    words = iter(options)
    for word in words:
        if word == "-k":
            next(words, None)
        elif not word.startswith("-k"):
            kept.append(word)
    return kept


def _collect(store: Store, arguments: Sequence[str], ends: Sequence[KernelFacts]) -> list[list[str | None]]:
    """Return for each test why it is not about the kernels at ENDS, None where it is."""
    with store.scratch("preview") as folder:
        answer = folder / "answer.json"
        request = {
            "arguments": list(arguments),
            "ends": [{"osreldate": each.osreldate, "found": dict(each.found)} for each in ends],
            "answer": str(answer),
        }
        done = run_tethered(
            [sys.executable, "-m", "harness.bisect.preview"],
            deadline=_DEADLINE,
            awaited="pytest to collect the tests",
            text=json.dumps(request),
        )
        if not answer.exists():
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            wrong = next((line for line in said if line.startswith(("E  ", "ERROR"))), said[-1] if said else "")
            wrong = wrong.removeprefix("ERROR:").removeprefix("E  ").strip()
            raise UsageError(f"pytest cannot collect the tests: {wrong or f'exit status {done.returncode}'}")
        found: list[list[str | None]] = json.loads(answer.read_text())
        return found


class _Collector:
    """Plugin of the run that only collects."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._ends = [KernelFacts(end["osreldate"], found=end["found"]) for end in request["ends"]]
        self._answer = Path(request["answer"])

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write the answer down."""
        if not session.testsfailed:
            about = [[self._why_not(item, end) for end in self._ends] for item in session.items]
            self._answer.write_text(json.dumps(about))

    @staticmethod
    def _why_not(item: pytest.Item, end: KernelFacts) -> str | None:
        return inapplicable(item, end) if needs_target(item) else None


if __name__ == "__main__":
    hold_on()
    asked = json.load(sys.stdin)
    sys.exit(pytest.main(asked["arguments"], plugins=[_Collector(asked)]))

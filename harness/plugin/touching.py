# SPDX-License-Identifier: BSD-2-Clause
"""`--touching`: the tests that run chosen places of the kernel go first, and what they came to is said at once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cached_property

import pytest

from harness.coverage.choice import Choice, choose
from harness.coverage.map import CoverageMap, find_map
from harness.errors import UsageError
from harness.plugin.tested import TestedTarget
from harness.results.record import TestResult
from harness.runs.options import RunOptions
from harness.store import Store


class Touching:
    """The tests that run the places asked for, by the map; knows nothing where none were."""

    def __init__(self, tested: TestedTarget, options: RunOptions, store: Store) -> None:
        self._tested = tested
        self._options = options
        self._store = store
        self._began = time.monotonic()
        self._waiting: set[str] = set()
        self._known: dict[str, TestResult] = {}
        self._count = 0

    @property
    def is_asked_for(self) -> bool:
        """Whether places were named."""
        return bool(self._options.touching)

    @cached_property
    def _found(self) -> tuple[CoverageMap, Choice]:
        places = self._options.touching
        try:
            digest, version = "", 0
            if self._tested.variant is None:
                kernel = self._tested.resolved().kernel
                digest = kernel.elf if kernel is not None else self._tested.open().key
                version = (kernel.osreldate if kernel is not None else 0) or 0
            files = [place.file for place in places if place.file]
            known = find_map(self._store, self._options.map, digest, version, files)
            return known, choose(known, places)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None

    @cached_property
    def rank(self) -> dict[str, int]:
        """The tests that run the places, by what comes first.  Raises pytest.UsageError where that is not known."""
        return {test: number for number, test in enumerate(self._found[1].tests)}

    def order(self, items: list[pytest.Item]) -> list[pytest.Item]:
        """Put those of ITEMS that run the places first; return those that are not wanted at all."""
        rank = self.rank
        left_out = [item for item in items if self._options.only and item.nodeid not in rank]
        if len(left_out) == len(items) and items:
            raise pytest.UsageError(f"none of these tests runs {self._places}")
        items.sort(key=lambda item: rank.get(item.nodeid, len(rank)))
        return left_out

    @property
    def _places(self) -> str:
        return ", ".join(map(str, self._options.touching))

    def expect(self, tests: Iterable[str]) -> list[str]:
        """Know which TESTS are to run; return what is to be said of the choice."""
        if not self.is_asked_for or self._count:
            return []
        self._waiting = {test for test in tests if test in self.rank}
        self._count = len(self._waiting)
        known, choice = self._found
        lost = [f"no test runs {place}: those that run the rest of its function go first" for place in choice.unreached]
        of = known.label.partition(" (")[0]
        return [*lost, f"{self._count} tests run {self._places} (as measured on {known.measured}, {of})"]

    def note(self, result: TestResult | None, test: str) -> str | None:
        """Take in what TEST came to, which is over; with the last that runs the places, say what these came to."""
        if result is not None:
            self._known[test] = result
        if test not in self._waiting:
            return None
        self._waiting.remove(test)
        if self._waiting:
            return None
        judged = [self._known[each] for each in self.rank if each in self._known]
        failed = [each for each in judged if each.verdict.against_kernel]
        left_out = self._count - sum(each.verdict.is_judged for each in judged)
        said = f"{len(failed)} failed" if failed else "all passed"
        more = f", {left_out} were left out" if left_out else ""
        return f"tests that run {self._places}: {said} of {self._count}{more}, {time.monotonic() - self._began:.1f} s"

# SPDX-License-Identifier: BSD-2-Clause
"""`--touching`: the tests that run chosen places of the kernel go first, and what they came to is said at once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate

import pytest

from harness.coverage.choice import Choice, choose, sites_of
from harness.coverage.map import CoverageMap, find_map
from harness.errors import UsageError
from harness.plugin.about import functions_of
from harness.plugin.tested import TestedTarget
from harness.results.record import TestResult
from harness.runs.options import RunOptions
from harness.store import Store

# Of the tests that run a place, those are heard of first that take so long (s, by what they took before), and so many.
_SOON = 10.0
_LEAST = 10


class Touching:
    """The tests that run the places asked for, by the map; knows nothing where none were."""

    def __init__(self, tested: TestedTarget, options: RunOptions, store: Store) -> None:
        self._tested = tested
        self._options = options
        self._store = store
        self._began = time.monotonic()
        self._chosen: tuple[str, ...] = ()
        #: How many of the chosen tests, from the first on, are to be over before something is said of them.
        self._soon = 0
        self._waiting: set[str] = set()
        self._known: dict[str, TestResult] = {}

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
            names = [place.file or place.function for place in places]
            known = find_map(self._store, self._options.map, digest, version, names)
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
        about = self._functions
        last = len(rank)
        items.sort(
            key=lambda item: (item.nodeid not in rank, not functions_of(item) & about, rank.get(item.nodeid, last))
        )
        return left_out

    @property
    def _functions(self) -> frozenset[str]:
        """The functions that the places are, or are in: tests that say that they are about these go first of all."""
        known = self._found[0]
        lines = known.code.lines
        sites = [sites_of(known, place) for place in self._options.touching]
        return frozenset(line.function for own in sites for line, is_meant in zip(lines, own, strict=True) if is_meant)

    @property
    def _places(self) -> str:
        return ", ".join(map(str, self._options.touching))

    def expect(self, tests: Iterable[str]) -> list[str]:
        """Know which TESTS are to run; return what is to be said of the choice."""
        if not self.is_asked_for or self._chosen:
            return []
        known, choice = self._found
        self._chosen = tuple(test for test in tests if test in self.rank)
        seconds = accumulate(known.tests[test].seconds for test in self._chosen)
        self._soon = max(sum(spent < _SOON for spent in seconds), min(_LEAST, len(self._chosen)))
        self._waiting = set(self._chosen[: self._soon])
        lost = [f"no test runs {place}: those that run the rest of its function go first" for place in choice.unreached]
        of = known.label.partition(" (")[0]
        return [*lost, f"{len(self._chosen)} tests run {self._places} (as measured on {known.measured}, {of})"]

    def note(self, result: TestResult | None, test: str) -> str | None:
        """Take in what TEST came to, which is over; say what those came to that tell most, and at last all chosen."""
        if result is not None:
            self._known[test] = result
        if test not in self._waiting:
            return None
        self._waiting.remove(test)
        if self._waiting:
            return None
        over, everything = self._chosen[: self._soon], self._soon == len(self._chosen)
        self._soon = len(self._chosen)
        self._waiting = {each for each in self._chosen if each not in self._known and each not in over}
        judged = [self._known[each] for each in over if each in self._known]
        failed = sum(each.verdict.against_kernel for each in judged)
        left_out = len(over) - sum(each.verdict.is_judged for each in judged)
        more = f", {left_out} were left out" if left_out else ""
        which = "tests that run" if everything else f"the {len(over)} tests that tell most about"
        said = f"{failed} failed" if failed else "all passed"
        return f"{which} {self._places}: {said} of {len(over)}{more}, {time.monotonic() - self._began:.1f} s"

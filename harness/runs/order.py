# SPDX-License-Identifier: BSD-2-Clause
"""In which order a run takes its tests; no verdict may depend on it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeVar

T = TypeVar("T")

_RANDOM = "random"
_WORDS = ("longest", "written")
#: Tests that pytest-xdist gives a worker at once: one to run, and one that follows it.
HANDED_OUT = 2


@dataclass(frozen=True)
class Order:
    """`longest`: so that no worker waits long for the last one; `written`: as in the files; or by chance, by a seed."""

    word: str = _WORDS[0]
    seed: int = 0

    def __str__(self) -> str:
        return f"{_RANDOM}:{self.seed}" if self.word == _RANDOM else self.word

    @property
    def may_be_dealt_by_kind(self) -> bool:
        """Whether workers may take tests in another order than this, by the machine that they want."""
        return self.word == _WORDS[0]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `longest`, `written` or `random:7`; raises ValueError for what is none."""
        word, colon, seed = text.partition(":")
        if text in _WORDS:
            return cls(text)
        if word == _RANDOM and colon and seed.isdecimal():
            return cls(_RANDOM, int(seed))
        raise ValueError(f"{text!r} is no order: longest, written, or random:SEED with a number")

    def arrange(
        self, tests: Sequence[T], name: Callable[[T], str], rank: Callable[[T], int], dealt: Dealt | None
    ) -> list[T]:
        """Return TESTS in this order.

        Those of a lower RANK go first, whatever they take: they want the same kind of machine.  DEALT tells how they
        are shared out; without workers there is nobody to wait for, and the others stay as written.
        """
        if self.word == _RANDOM:
            shuffled = sorted(tests, key=name)  # whatever the order in which they were found
            random.Random(self.seed).shuffle(shuffled)  # noqa: S311
            return shuffled
        if self.word != _WORDS[0]:
            return list(tests)
        if dealt is None:
            return sorted(tests, key=rank)
        return dealt.paired(sorted(tests, key=lambda test: (rank(test), -dealt.of(name(test)))), name)


def next_ones(
    left: Sequence[int], kinds: Sequence[int], present: int | None, others: Collection[int], number: int
) -> list[int]:
    """Return which NUMBER of the tests LEFT a worker takes next, by the KINDS of machine that they want.

    Those of its PRESENT kind; or else of the first kind that none of the OTHERS has; or of that of which most are left.
    Where these are fewer, others follow: a worker begins with a test only when it knows the next one.
    """
    if not left or number <= 0:
        return []
    there = Counter(kinds[test] for test in left)
    free = [kind for kind in there if kind not in others]
    chosen = present if present in there else next(iter(free or [kind for kind, _ in there.most_common(1)]))
    taken = [test for test in left if kinds[test] == chosen][:number]
    rest = [test for test in left if kinds[test] != chosen]
    return [*taken, *next_ones(rest, kinds, None, others, number - len(taken))]


@dataclass(frozen=True)
class Dealt:
    """Tests are shared out among `workers`, who take the next as they go; `seconds` are what they took before."""

    workers: int
    seconds: Mapping[str, float]

    def of(self, test: str) -> float:
        """Return how long TEST is expected to take: an unknown one as long as the others do on average."""
        return self.seconds.get(test, self._average)

    @cached_property
    def _average(self) -> float:
        return sum(self.seconds.values()) / len(self.seconds) if self.seconds else 0.0

    def paired(self, tests: Sequence[T], name: Callable[[T], str]) -> list[T]:
        """Return TESTS, the longest first, so that nobody begins with two of the longest.

        Each worker is handed the next two.  Where that is little beside a worker's share, they stay as they are.
        """
        count = HANDED_OUT * self.workers
        share = sum(self.of(name(test)) for test in tests) / self.workers
        if len(tests) <= count or sum(self.of(name(test)) for test in tests[:HANDED_OUT]) < share / 2:
            return list(tests)
        rest = sorted(tests, key=lambda test: -self.of(name(test)))
        longest, shortest = rest[: self.workers], rest[len(rest) - self.workers :]
        first = [test for pair in zip(longest, reversed(shortest), strict=True) for test in pair]
        taken = set(map(name, first))
        return [*first, *(test for test in tests if name(test) not in taken)]

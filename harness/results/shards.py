# SPDX-License-Identifier: BSD-2-Clause
"""Parts of a run that whole machines take, each its own, and the one record they come to."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from harness.errors import ExitCode, UsageError
from harness.results.record import RunRecord

# Of a run's statuses, from the most serious: a signal, the harness or the host, a user's mistake, a test.
_STATUSES = (ExitCode.HARNESS_FAILED, ExitCode.USAGE, ExitCode.TEST_FAILED)
_SIGNAL = 128
#: What shards of one run must agree in.
_SAME = ("target", "identity", "options", "accelerator", "selection")


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `2/4`; raises ValueError for what is none."""
        number, slash, count = text.partition("/")
        shard = cls(int(number), int(count)) if slash else cls(0, 0)
        if not 1 <= shard.number <= shard.count:
            raise ValueError(f"{text!r} is no part of a run: 1/4 is the first of four")
        return shard


def share_out(tests: Sequence[str], seconds: Mapping[str, float], count: int) -> list[frozenset[str]]:
    """Share TESTS out so that COUNT machines take about as long: the longest first, each to who has least to do.

    It depends on nothing but the arguments, so that each machine can find its part by itself.  A test whose SECONDS are
    not known counts as an average one.
    """
    known = [seconds[test] for test in tests if test in seconds]
    average = sum(known) / len(known) if known else 1.0
    loads = [(0.0, number) for number in range(count)]
    parts: list[set[str]] = [set() for _ in range(count)]
    for minus, test in sorted((-seconds.get(test, average), test) for test in tests):  # the longest first
        load, number = heapq.heappop(loads)
        parts[number].add(test)
        heapq.heappush(loads, (load - minus, number))
    return [frozenset(part) for part in parts]


def selection_digest(parts: Sequence[frozenset[str]]) -> str:
    """Return what all shards of one run have in common: which tests there are, and how they were shared out."""
    text = "\n\n".join("\n".join(sorted(part)) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def merge(records: Sequence[RunRecord]) -> RunRecord:
    """Return the record of the run whose shards RECORDS are.

    Raises UsageError when one is missing or there twice, or they are not of one run.
    """
    shards = _all_shards(records)
    first = shards[0]
    for name in _SAME:
        if any(getattr(record, name) != getattr(first, name) for record in shards):
            raise UsageError(f"these are not shards of one run: they differ in {name.replace('_', ' ')}")
    return replace(
        first,
        shard="",
        started=min(record.started for record in shards),
        first_test=min((record.first_test for record in shards if record.first_test), default=""),
        seconds=max(record.seconds for record in shards),
        starts=sum(record.starts for record in shards),
        failed_resumes=sum(record.failed_resumes for record in shards),
        not_again=sum(record.not_again for record in shards),
        workers=sum(record.workers for record in shards),
        exit_status=worst_status([record.exit_status for record in shards]),
        trouble=next((record.trouble for record in shards if record.trouble is not None), None),
        results=tuple(result for record in shards for result in record.results),
        not_run=tuple(test for record in shards for test in record.not_run),
        incomplete="; ".join(dict.fromkeys(record.incomplete for record in shards if record.incomplete)),
        changes=tuple(change for record in shards for change in record.changes),
    )


def _all_shards(records: Sequence[RunRecord]) -> list[RunRecord]:
    try:
        by_number = sorted(records, key=lambda record: Shard.parse(record.shard).number)
    except ValueError:
        raise UsageError("one of the records is no shard: give what `run --shard I/N --json FILE` wrote") from None
    shards = [Shard.parse(record.shard) for record in by_number]
    count = shards[0].count
    if {shard.count for shard in shards} != {count}:
        raise UsageError(f"these are not shards of one run: {', '.join(map(str, shards))}")
    numbers = [shard.number for shard in shards]
    if numbers != list(range(1, count + 1)):
        lack = [f"{number}/{count}" for number in range(1, count + 1) if number not in numbers]
        twice = [f"{number}/{count}" for number in sorted(set(numbers)) if numbers.count(number) > 1]
        told = [f"{' and '.join(lack)} missing"] * bool(lack) + [f"{' and '.join(twice)} there twice"] * bool(twice)
        raise UsageError(f"not all of the run's shards: {', '.join(told)}")
    return by_number


def worst_status(statuses: Sequence[int]) -> int:
    """Return the exit status of a run whose shards ended with STATUSES."""
    if signalled := [status for status in statuses if status > _SIGNAL]:
        return signalled[0]
    return next((status for status in _STATUSES if status in statuses), ExitCode.PASSED)

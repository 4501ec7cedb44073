# SPDX-License-Identifier: BSD-2-Clause
"""Earlier runs of the same tests on the same or a neighbouring kernel: what has changed since, and a test's history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from harness.errors import UsageError
from harness.results.changes import Change, ChangeKind
from harness.results.naming import named
from harness.results.record import RunRecord, TestResult, read_record, record_files
from harness.results.verdict import Verdict
from harness.store import Store

# Kernels of one release, or of one line of development, share all but the last two digits of __DragonFly_version.
_LINE = 100
# Neighbours that are looked through for what a test came to before, and records among which they are sought; each takes
# 10 ms or so to read.
_LOOKED_AT = 30
_SOUGHT_AMONG = 300


@dataclass(frozen=True)
class Appearance:
    """A test in an earlier run: the RESULT in FILE's RECORD."""

    file: Path
    record: RunRecord
    result: TestResult


def are_neighbours(one: RunRecord, other: RunRecord) -> bool:
    """Tell whether a difference between the two says something of the kernel: the same tests on kernels of one line.

    Kernels are neighbours on one image only, for another one has other programs.  The control guest and the oracle are
    neighbours of themselves only.
    """
    if (one.is_dragonfly, one.root) != (other.is_dragonfly, other.root):
        return False
    if not one.is_dragonfly:
        return one.target == other.target
    if one.image and other.image and one.image != other.image:
        return False
    if one.kernel_digest and one.kernel_digest == other.kernel_digest:
        return True
    return bool(one.osreldate) and one.osreldate // _LINE == other.osreldate // _LINE


def earlier_records(store: Store, before: str = "") -> Iterator[tuple[Path, RunRecord]]:
    """Yield the records among the results of STORE, also of runs that were cut off, the last one first.

    With BEFORE only those of runs that had begun then.  Files that are no records are passed over.
    """
    for file in record_files(store):
        try:
            record = read_record(file)
        except UsageError:
            continue
        if not before or record.started < before:
            yield file, record


def with_changes(record: RunRecord, store: Store) -> RunRecord:
    """Return RECORD with what came to something else than when the same tests ran last on a neighbouring kernel.

    For each test that is its last run that said something of the kernel, whatever else ran then.
    """
    wanted = {result.test: result for result in record.results if result.verdict.is_judged}
    since = ""
    changes: list[Change] = []
    sought = islice(earlier_records(store, record.started), _SOUGHT_AMONG)
    for earlier in islice((each for _, each in sought if are_neighbours(record, each)), _LOOKED_AT):
        if not wanted:
            break
        for before in earlier.results:
            if before.verdict.is_judged and (now := wanted.pop(before.test, None)) is not None:
                since = max(since, earlier.started)
                if (kind := _kind(now, before)) is not None:
                    changes.append(
                        Change(
                            now.test, kind, now.words, before.words, earlier.started, earlier.kernel or earlier.target
                        )
                    )
    order = list(ChangeKind)
    return replace(record, since=since, changes=tuple(sorted(changes, key=lambda change: order.index(change.kind))))


def _kind(now: TestResult, before: TestResult) -> ChangeKind | None:
    if before.verdict is Verdict.PASSED:
        if now.verdict is Verdict.PASSED:
            return None
        return ChangeKind.NEWLY_FLAKY if now.is_flaky else ChangeKind.NEW_FAILURE
    if now.verdict is Verdict.PASSED:
        # One that failed now and then has not been mended because it passed once.
        return None if before.is_flaky else ChangeKind.MENDED
    if (now.verdict, now.failed_for) != (before.verdict, before.failed_for):
        return ChangeKind.OTHERWISE
    return ChangeKind.NEWLY_FLAKY if now.is_flaky and not before.is_flaky else None


def history(store: Store, test: str, limit: int) -> list[Appearance]:
    """Return the last LIMIT results of tests whose name is, or has in it, TEST, the earliest first."""
    found: list[Appearance] = []
    for file, record in earlier_records(store):
        found += [Appearance(file, record, result) for result in reversed(named(test, record.results))]
        if len(found) >= limit:
            break
    return found[:limit][::-1]

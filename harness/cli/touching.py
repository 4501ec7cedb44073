# SPDX-License-Identifier: BSD-2-Clause
"""Tests by what they run, for commands that take tests by name otherwise."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from harness.coverage.choice import Place, choose
from harness.coverage.map import CoverageMap, find_map
from harness.errors import UsageError
from harness.kernels.artefact import Kernel
from harness.store import Store

#: So many tests are taken where each is run many times.
FOUND = 12


def add_touching(parser: argparse.ArgumentParser, chosen: str, where: str = "") -> None:
    """Add --touching, which says that CHOSEN tests are run: those that run a place, WHERE if that matters."""
    parser.add_argument(
        "--touching",
        metavar="PLACE",
        type=_place,
        action="append",
        default=[],
        help=f"{chosen} this function (pgrel) or line (kern_proc.c:812-815){where}, as `run --coverage` has found"
        " (repeatable)",
    )


def _place(text: str) -> Place:
    """Return the place that TEXT means; raises argparse.ArgumentTypeError for none."""
    try:
        return Place.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def map_for(store: Store, kernel: str, places: Sequence[Place]) -> CoverageMap:
    """Return the map that knows most about PLACES on KERNEL of STORE, or on any if that has no name.

    Raises UsageError where nothing was measured.
    """
    record = store.get(Kernel, kernel) if kernel else None
    names = [each.file or each.function for each in places]
    digest, version = (record.elf, record.osreldate or 0) if record is not None else ("", 0)
    return find_map(store, "", digest, version, names)


def names_touching(store: Store, places: Sequence[Place], number: int) -> tuple[str, ...]:
    """Return the NUMBER of tests that tell most about PLACES, by the map that was measured last.

    Raises UsageError where none runs them.
    """
    from harness.runs.suite import is_test  # which loads pytest, and few commands need it

    choice = choose(map_for(store, "", places), places)
    # Those of the user's own that were measured elsewhere are not found from here.
    found = tuple(filter(is_test, choice.tests))
    if choice.unreached or not found:
        raise UsageError(f"no test is known to run {', '.join(map(str, choice.unreached or places))}")
    return found[:number]

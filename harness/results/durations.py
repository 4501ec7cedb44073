# SPDX-License-Identifier: BSD-2-Clause
"""How long each test took when it ran last on this host: what comes first where several workers share them out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from harness.files import write_whole
from harness.results.record import TestResult
from harness.store import Store

#: Shorter ones are all alike to whoever shares tests out.
SHORTEST = 0.05  # s
_KEPT = 0.5  # of what is new in the figure that is kept: a single slow run is no measure


def _file(store: Store) -> Path:
    return store.cache / "durations.json"


def read_durations(store: Store) -> dict[str, float]:
    """Return seconds by test, as far as they are known and worth while; nothing where nothing can be read."""
    try:
        found = json.loads(_file(store).read_text())
        return {str(test): float(seconds) for test, seconds in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def keep_durations(store: Store, results: Iterable[TestResult]) -> None:
    """Remember how long RESULTS took, for later runs; that is a convenience, and no error where it cannot be."""
    known = read_durations(store)
    for result in results:
        if result.verdict.is_judged:
            before = known.pop(result.test, result.seconds)
            seconds = before + _KEPT * (result.seconds - before)
            if seconds >= SHORTEST:
                known[result.test] = round(seconds, 3)
    with contextlib.suppress(OSError):
        write_whole(_file(store), json.dumps(known))

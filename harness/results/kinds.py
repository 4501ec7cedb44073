# SPDX-License-Identifier: BSD-2-Clause
"""What a file is that was given as the record of a run and is none: another command's record, and what reads that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

#: By the kind that it says itself: what it is, and what reads it.
_KINDS: Mapping[str, tuple[str, str]] = {
    "comparison": (
        "the record of a comparison",
        "`dfly-harness compare` with the same words and --html or --markdown shows it, from the runs that were made",
    ),
    "bisection report": (
        "what a bisection came to",
        "`dfly-harness report --bug TEST` quotes it, `dfly-harness bisect --resume` shows it",
    ),
    "bisection": ("the state of a bisection", "`dfly-harness bisect --resume` goes on with it"),
    "bench": ("the record of a bench", "`dfly-harness bench --against FILE` compares another one with it"),
}
#: The same of what says no kind, by members that no other has.
_MEMBERS: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        frozenset({"first", "second", "point", "verdict"}),
        "a campaign of explore",
        "`dfly-harness explore A B --list` shows it",
    ),
    (
        frozenset({"function", "what", "fate"}),
        "a campaign of mutate",
        "`dfly-harness mutate --list` shows it",
    ),
    (
        frozenset({"subject", "claim", "rows"}),
        "the tables of calibrate",
        "they are for programs",
    ),
)


def what_else(text: str) -> str:
    """Return what TEXT is, of the records that commands write beside those of runs, and what reads it; else ""."""
    data = _first_value(text)
    if isinstance(data, Sequence) and not isinstance(data, str) and data:
        data = data[0]
    if not isinstance(data, Mapping):
        return ""
    if (known := _KINDS.get(str(data.get("kind")))) is not None:
        return f"it is {known[0]}: {known[1]}"
    for members, what, reader in _MEMBERS:
        if members <= data.keys():
            return f"it is {what}: {reader}"
    return ""


def _first_value(text: str) -> Any:
    """Return what TEXT says as JSON, or its first line where each line is a value."""
    for part in (text, text.partition("\n")[0]):
        try:
            return json.loads(part)
        except ValueError:
            continue
    return None

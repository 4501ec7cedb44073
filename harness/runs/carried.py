# SPDX-License-Identifier: BSD-2-Clause
"""Files of this host that a run on another one needs: found in pytest's words, and named there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness.guests.copying import Put
from harness.options import PYTEST_PREFIX
from harness.programs.expectations import FILE as EXPECTED

#: The harness's own folder, and that of the asker's own tests: both lie elsewhere there.
SHARE, TESTS = "{dfly-harness}", "{tests}"
#: The folder there of all that askers have brought along.
SLOTS = "{slots}"
_PROGRAM = f"--{PYTEST_PREFIX}program="
_PUT = f"--{PYTEST_PREFIX}put="
_OTHERS = tuple(f"--{PYTEST_PREFIX}{name}=" for name in ("stdin", "expected"))


def files_named(word: str) -> list[Path]:
    """Return the files and folders of this host that WORD, an option for pytest, wants to be there."""
    if word.startswith(_PUT):
        return [Put.parse(word.removeprefix(_PUT)).file]
    for option in _OTHERS:
        if word.startswith(option):
            return [Path(word.removeprefix(option))]
    if not word.startswith(_PROGRAM):
        return []
    program = Path(word.removeprefix(_PROGRAM))
    beside = program.parent / EXPECTED
    return [program, *([beside] if beside.is_file() else [])]


def relocated(word: str, moved: Mapping[Path, str]) -> str:
    """Return WORD with what stands for each path in MOVED where it has the path; the longest counts."""
    paths = sorted(map(str, moved), key=len, reverse=True)
    pattern = rf"(?:{'|'.join(map(re.escape, paths))})(?=/|:|$)"
    return re.sub(pattern, lambda found: moved[Path(found[0])], word)


def resolved(word: str, meant: Mapping[str, str]) -> str:
    """Return WORD with what SHARE, TESTS and SLOTS in it mean here."""
    return re.sub("|".join(map(re.escape, meant)), lambda found: meant[found[0]], word)

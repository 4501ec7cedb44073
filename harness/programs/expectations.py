# SPDX-License-Identifier: BSD-2-Clause
"""Known failures of programs: `expected.toml`.

    [[expected]]
    program = "os_exec.test"        # a name, or a pattern as for files
    test = "TestExtraFiles*"
    reason = "fstat() of a pipe tells 0 blocks"
    since = 600000                  # __DragonFly_version, from ...
    until = 600500                  # ... up to, and not including; both may be left out
    flaky = true                    # it may pass
    control = true                  # about Linux, the control guest, instead

A listed case that passes, and a listed name that the program has no more, are mistakes of the list, not of the kernel.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import UsageError

FILE = "expected.toml"
_FIELDS = {"program": str, "test": str, "reason": str, "since": int, "until": int, "flaky": bool, "control": bool}
_NEEDED = ("program", "test", "reason")
_PATTERN = "*?["


@dataclass(frozen=True)
class Expectation:
    """That `test` of `program` fails on kernels whose version is in [since, until), for `reason`."""

    program: str
    test: str
    reason: str
    since: int = 0
    until: int = 1 << 62
    flaky: bool = False
    control: bool = False

    def is_about(self, program: str, osreldate: int) -> bool:
        """Tell whether it says something of PROGRAM on a kernel of version OSRELDATE, 0 for the control guest."""
        right = fnmatchcase(program, self.program)
        return right and (self.control if osreldate == 0 else not self.control and self.since <= osreldate < self.until)

    @property
    def is_pattern(self) -> bool:
        """Whether it names no single case."""
        return any(each in self.test for each in _PATTERN)


def load_expectations(program: Path, given: Path | None = None) -> tuple[Expectation, ...]:
    """Return what is expected of PROGRAM, from GIVEN or the file beside it; empty where there is none.

    Raises UsageError, in one line, for a file that is none.
    """
    file = given if given is not None else program.parent / FILE
    if given is None and not file.is_file():
        return ()
    try:
        return _load(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None


@lru_cache
def _load(file: Path, _changed: int) -> tuple[Expectation, ...]:
    try:
        content = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from None
    entries = content.get("expected", [])
    if not isinstance(entries, list) or content.keys() - {"expected"}:
        raise UsageError(f"{file}: it has [[expected]] entries and nothing else")
    return tuple(_entry(file, number, entry) for number, entry in enumerate(entries, 1))


def _entry(file: Path, number: int, entry: Mapping[str, Any]) -> Expectation:
    where = f"{file}: entry {number}"
    if missing := [name for name in _NEEDED if not entry.get(name)]:
        raise UsageError(f"{where} has no {' and no '.join(missing)}")
    for name, value in entry.items():
        kind = _FIELDS.get(name)
        if kind is None:
            raise UsageError(f"{where}: {name} is none of {', '.join(_FIELDS)}")
        if type(value) is not kind:
            raise UsageError(f"{where}: {name} is no {kind.__name__}")
    return Expectation(**entry)


def find(expectations: Iterable[Expectation], program: str, test: str, osreldate: int) -> Expectation | None:
    """Return the first of EXPECTATIONS about TEST, None if it is to pass."""
    return next(
        (each for each in expectations if each.is_about(program, osreldate) and fnmatchcase(test, each.test)), None
    )

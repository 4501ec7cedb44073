# SPDX-License-Identifier: BSD-2-Clause
"""The quirks table: what it takes to build and boot old trees, by range of revisions; see quirks.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.errors import UsageError

#: The table that comes with the harness.
TABLE = Path(__file__).with_name("quirks.toml")
_KNOWN = {"name", "why", "since", "until", "kenv", "cpus", "memory", "patches"}


class Revisions(Protocol):
    """What the table asks of a repository."""

    def osreldate(self, commit: str) -> int:
        """Return __DragonFly_version of a commit."""

    def is_ancestor(self, old: str, new: str) -> bool:
        """Tell whether OLD is NEW or an ancestor of it."""

    def resolve(self, revision: str) -> str:
        """Return the hash of a commit; raises UsageError when there is none."""


@dataclass(frozen=True)
class Quirk:
    """One entry; `cpus` is the most, `memory` the least (MiB) that kernels of the range are given."""

    name: str
    why: str = ""
    since: int | str | None = None
    until: int | str | None = None
    kenv: Mapping[str, str] = field(default_factory=dict)
    cpus: int | None = None
    memory: int | None = None
    patches: tuple[Path, ...] = ()

    def applies(self, commit: str, revisions: Revisions) -> bool:
        """Tell whether COMMIT is in the range; a revision that the repository does not have bounds nothing."""
        return self._has(self.since, commit, revisions, default=True) and not self._has(
            self.until, commit, revisions, default=False
        )

    def matters(self, cpus: int, memory: int) -> bool:
        """Tell whether it changes anything on a machine with so many CPUs and MiB of memory."""
        smaller = self.cpus is not None and self.cpus < cpus
        larger = self.memory is not None and self.memory > memory
        return bool(self.kenv or self.patches or smaller or larger)

    @staticmethod
    def _has(bound: int | str | None, commit: str, revisions: Revisions, *, default: bool) -> bool:
        if bound is None:
            return default
        if isinstance(bound, int):
            return revisions.osreldate(commit) >= bound
        try:
            known = revisions.resolve(bound)
        except UsageError:
            return default
        return revisions.is_ancestor(known, commit)


@dataclass(frozen=True)
class Needs:
    """What one commit's kernel needs, of all entries that apply."""

    names: tuple[str, ...] = ()
    kenv: Mapping[str, str] = field(default_factory=dict)
    cpus: int | None = None
    memory: int | None = None
    patches: tuple[Path, ...] = ()


def load_quirks(*files: Path) -> tuple[Quirk, ...]:
    """Read the tables in FILES; raises UsageError that names what is wrong with an entry."""
    return tuple(quirk for file in files for quirk in _load(file))


def _load(file: Path) -> list[Quirk]:
    try:
        entries = tomllib.loads(file.read_text()).get("quirk", [])
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} is no table of quirks: {error}") from None
    return [_quirk(file, entry) for entry in entries]


def _quirk(file: Path, entry: Mapping[str, Any]) -> Quirk:
    name = entry.get("name")
    if not isinstance(name, str) or (unknown := sorted(set(entry) - _KNOWN)):
        raise UsageError(f"{file}: an entry has no name" if not name else f"{file}: {name}: no such key: {unknown[0]}")
    for key, kinds in (("since", (int, str)), ("until", (int, str)), ("cpus", (int,)), ("memory", (int,))):
        if key in entry and not isinstance(entry[key], kinds):
            raise UsageError(f"{file}: {name}: {key} is not of the right kind")
    given = dict(entry)
    given["patches"] = tuple(file.parent / patch for patch in given.get("patches", ()))
    given["kenv"] = {str(key): str(value) for key, value in given.get("kenv", {}).items()}
    return Quirk(**given)


def needs_of(commit: str, quirks: Sequence[Quirk], revisions: Revisions) -> Needs:
    """Return what the entries of QUIRKS that apply to COMMIT ask for together."""
    found = [quirk for quirk in quirks if quirk.applies(commit, revisions)]
    cpus = [quirk.cpus for quirk in found if quirk.cpus is not None]
    memory = [quirk.memory for quirk in found if quirk.memory is not None]
    return Needs(
        tuple(quirk.name for quirk in found),
        {name: value for quirk in found for name, value in quirk.kenv.items()},
        min(cpus, default=None),
        max(memory, default=None),
        tuple(patch for quirk in found for patch in quirk.patches),
    )

# SPDX-License-Identifier: BSD-2-Clause
"""Which test ran which lines and branches of which kernel: kept in the store, added to by every run that measures."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from harness.coverage.code import Code, pack, unpack
from harness.errors import UsageError
from harness.files import write_whole
from harness.kernels.artefact import Kernel
from harness.later import Later
from harness.results.coverage import Coverage, FunctionCoverage
from harness.store import Store

if TYPE_CHECKING:
    import numpy as np

    from harness.coverage.code import Hits
else:
    np = Later("numpy")

_FORMAT = 2
_FOLDER = "coverage"


@dataclass(frozen=True)
class Reach:
    """What one test ran, in all of its runs, and how many seconds it took the last time.

    `source` tells one text of the test's file from another (see `text_of()`), empty where it was not written down.
    """

    hits: Hits
    seconds: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class CoverageMap:
    """The map of one kernel: `kernel` is the digest of its file, `label` what people call it.

    `tree` is the git tree of the sources it was built from, empty where these are not known.  `between` is what was
    run while no test was, `osreldate` the kernel's __DragonFly_version.
    """

    kernel: str
    label: str
    names: tuple[str, ...]
    code: Code
    tests: Mapping[str, Reach] = field(default_factory=dict)
    between: Hits | None = None
    tree: str = ""
    osreldate: int = 0
    measured: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def hits(self) -> Hits:
        """Return what all tests together ran."""
        found = np.zeros(self.code.size, dtype=bool)
        for reach in self.tests.values():
            found |= reach.hits
        return found

    def has(self, name: str) -> bool:
        """Tell whether the function NAME, or lines of the source file of that name or path, were measured."""
        return any(line.function == name or f"/{line.file}".endswith(f"/{name}") for line in self.code.lines)

    def only(self, tests: Mapping[str, Reach]) -> CoverageMap:
        """Return the same map, of TESTS."""
        return replace(self, tests=tests)

    def joined(self, other: CoverageMap) -> CoverageMap:
        """Return this map with what is newer in OTHER, of the same code: a test counts as it ran last."""
        return replace(other, tests={**self.tests, **other.tests}, between=_either(self.between, other.between))

    def file(self, store: Store) -> Path:
        """Return where STORE keeps it."""
        asked = hashlib.sha256(" ".join(self.names).encode()).hexdigest()[:12]
        return store.folder(_FOLDER) / f"{self.kernel[:32]}-{asked}.map"

    def keep(self, store: Store) -> Path:
        """Add it to what STORE knows of the same code, and return the file."""
        file = self.file(store)
        with store.lock(f"coverage-{file.stem}"):
            merged = self
            with suppress(UsageError):
                known = read_map(file)
                merged = known.joined(self) if known.code == self.code else self
            write_whole(file, zlib.compress(json.dumps(merged.to_json()).encode()))
        return file

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "format": _FORMAT,
            "kernel": self.kernel,
            "label": self.label,
            "names": list(self.names),
            "tree": self.tree,
            "osreldate": self.osreldate,
            "measured": self.measured,
            "code": self.code.to_json(),
            "between": pack(self.between) if self.between is not None else "",
            "tests": {test: [pack(each.hits), each.seconds, each.source] for test, each in self.tests.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none."""
        if data["format"] != _FORMAT:
            raise ValueError(f"it has format {data['format']}")
        code = Code.from_json(data["code"])
        return cls(
            str(data["kernel"]),
            str(data["label"]),
            tuple(map(str, data["names"])),
            code,
            {test: _reach(code, *known) for test, known in data["tests"].items()},
            unpack(data["between"], code.size) if data["between"] else None,
            str(data["tree"]),
            int(data["osreldate"]),
            str(data["measured"]),
        )

    def summary(self, file: Path | None = None) -> Coverage:
        """Return it in numbers and names; FILE is where the map itself is."""
        count = len(self.code.lines)
        reached = [reach.hits[:count] for reach in self.tests.values()]
        times = np.sum(reached, axis=0) if reached else np.zeros(count, dtype=np.int64)
        tests = {
            test: (int(reach.hits[:count].sum()), int((reach.hits[:count] & (times == 1)).sum()))
            for test, reach in self.tests.items()
        }
        only_between = int((self.between[:count] & (times == 0)).sum()) if self.between is not None else 0
        return Coverage(tuple(_functions(self.code, self.hits())), tests, only_between, str(file or ""))


def _reach(code: Code, hits: str, seconds: float, source: str = "") -> Reach:
    return Reach(unpack(hits, code.size), float(seconds), str(source))


def text_of(file: Path) -> str:
    """Return what tells the present text of FILE, of a test, from others; empty where there is no such file."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def texts_of(tests: Iterable[str], root: Path) -> dict[str, str]:
    """Return text_of() the file of each of TESTS, whose names are those of files under ROOT."""
    files = {test: test.partition("::")[0] for test in tests}
    texts = {file: text_of(root / file) for file in set(files.values())}
    return {test: texts[file] for test, file in files.items()}


def _either(one: Hits | None, other: Hits | None) -> Hits | None:
    if one is None or other is None:
        return other if one is None else one
    return np.asarray(one | other, dtype=bool)


def _functions(code: Code, hits: Hits) -> Iterator[FunctionCoverage]:
    lines: dict[tuple[str, str], list[tuple[int, bool]]] = {}
    ways: dict[tuple[str, str], list[tuple[int, bool, bool]]] = {}
    for number, line in enumerate(code.lines):
        lines.setdefault((line.file, line.function), []).append((line.line, bool(hits[number])))
    for number, branch in enumerate(code.branches):
        at = len(code.lines) + 2 * number
        entry = ways.setdefault((branch.file, branch.function), [])
        for way, fatal in enumerate(branch.fatal):
            entry.append((branch.line, bool(hits[at + way]), fatal))
    for (file, function), known in sorted(lines.items(), key=lambda each: (each[0][0], min(each[1]), each[0][1])):
        own = ways.get((file, function), [])
        yield FunctionCoverage(
            file,
            function,
            len(known),
            sum(run for _, run in known),
            len(own),
            sum(gone for _, gone, _ in own),
            tuple(sorted(line for line, run in known if not run and line)),
            tuple(sorted(line for line, gone, _ in own if not gone)),
            sum(fatal and not gone for _, gone, fatal in own),
        )


def read_map(file: Path) -> CoverageMap:
    """Return the map in FILE; raises UsageError when it is none."""
    try:
        return CoverageMap.from_json(json.loads(zlib.decompress(file.read_bytes())))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise UsageError(f"{file} is no map of what tests run ({error})") from None


def maps(store: Store) -> list[CoverageMap]:
    """Return all maps of STORE, the one measured last first."""
    found = []
    for file in store.folder(_FOLDER).glob("*.map"):
        with suppress(UsageError):  # written by another version
            found.append(read_map(file))
    return sorted(found, key=lambda each: each.measured, reverse=True)


def find_map(store: Store, wanted: str, kernel: str, osreldate: int, places: Sequence[str] = ()) -> CoverageMap:
    """Return the map that knows most of what tests run on the kernel whose file has the digest KERNEL.

    WANTED is the file of a map, or the name of the kernel that it is of.  Where it is empty, that is the kernel's own
    map, or else one of the nearest version.  PLACES are files and functions that it must know.  A map of some tests
    only, which a run of a few has left, gives way to one that knows twice as many.  Raises UsageError for none.
    """
    if wanted and Path(wanted).is_file():
        return read_map(Path(wanted))
    if wanted:
        kernel = store.get(Kernel, wanted).elf
    known = [each for each in maps(store) if each.tests and all(map(each.has, places))]
    known = [each for each in known if each.kernel == kernel or not wanted]
    if not known:
        of = f" of kernel {wanted}" if wanted else ""
        what = ", ".join(dict.fromkeys(places)) or "what"
        raise UsageError(f"it is not known yet which tests run {what}{of}: `dfly-harness run --coverage` measures it")

    def distance(each: CoverageMap) -> tuple[bool, int]:
        return each.kernel != kernel, abs(each.osreldate - osreldate) if osreldate else 0

    nearest = min(map(distance, known))
    near = [each for each in known if distance(each) == nearest]  # the last one made first
    most = max(len(each.tests) for each in near)
    return next(each for each in near if 2 * len(each.tests) >= most)


def map_of(store: Store, kernel: str, names: Sequence[str]) -> CoverageMap | None:
    """Return the map of the kernel whose file has the digest KERNEL, of the code that NAMES mean; None for none."""
    empty = CoverageMap(kernel, "", tuple(names), Code((), (), (), (), ()))
    with suppress(UsageError):
        return read_map(empty.file(store))
    return None

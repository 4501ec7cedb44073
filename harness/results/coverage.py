# SPDX-License-Identifier: BSD-2-Clause
"""What a run's tests executed of the kernel's code, in numbers and names, without any of the code itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class FunctionCoverage:
    """One function: how many lines became code and were run, how many ways its conditions have and went (so, not so).

    Of functions whose lines are not known `file` is empty and `lines` is 1.  `missed` are line numbers; `missed_ways`
    are lines with a condition that was never so, or always, once for each; `fatal` of these lead straight to panic().
    """

    file: str
    function: str
    lines: int
    run: int
    ways: int = 0
    gone: int = 0
    missed: tuple[int, ...] = ()
    missed_ways: tuple[int, ...] = ()
    fatal: int = 0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it."""
        numbers = {name: tuple(map(int, data[name])) for name in ("missed", "missed_ways")}
        return cls(**{**data, **numbers})


@dataclass(frozen=True)
class Coverage:
    """What all tests of a run executed.

    `tests` says for each test how many lines it ran, and how many of them no other test did; `between` counts the lines
    that were run between tests only.  `map` is the file that knows which.
    """

    functions: tuple[FunctionCoverage, ...] = ()
    tests: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    between: int = 0
    map: str = ""

    def __bool__(self) -> bool:
        return bool(self.functions)

    @property
    def by_file(self) -> dict[str, FunctionCoverage]:
        """The sums for each file."""
        files: dict[str, list[FunctionCoverage]] = {}
        for each in self.functions:
            files.setdefault(each.file, []).append(each)
        return {file: total(file, each) for file, each in files.items()}

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "functions": [
                {**asdict(each), "missed": list(each.missed), "missed_ways": list(each.missed_ways)}
                for each in self.functions
            ],
            "tests": {test: list(counts) for test, counts in self.tests.items()},
            "between": self.between,
            "map": self.map,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none."""
        return cls(
            tuple(map(FunctionCoverage.from_json, data.get("functions", ()))),
            {str(test): (int(lines), int(alone)) for test, (lines, alone) in data.get("tests", {}).items()},
            int(data.get("between", 0)),
            str(data.get("map", "")),
        )


def total(file: str, functions: Iterable[FunctionCoverage]) -> FunctionCoverage:
    """Return the sums of FUNCTIONS, as if they were one function of FILE without a name."""
    known = list(functions)
    return FunctionCoverage(
        file,
        "",
        sum(each.lines for each in known),
        sum(each.run for each in known),
        sum(each.ways for each in known),
        sum(each.gone for each in known),
        fatal=sum(each.fatal for each in known),
    )


def ranges_of(numbers: Iterable[int]) -> str:
    """Return NUMBERS as a person writes them: `7, 12-15`."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def words_of(each: FunctionCoverage) -> str:
    """Return its figures in words."""
    said = f"{each.run} of {each.lines} lines ({_share(each.run, each.lines)})" if each.file else "entered"
    if not each.file and not each.run:
        said = "not entered"
    if each.ways:
        said += f", {each.gone} of {each.ways} ways of conditions ({_share(each.gone, each.ways)})"
    if each.fatal:
        said += f", {each.fatal} of the others lead to panic()"
    return said


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "none"

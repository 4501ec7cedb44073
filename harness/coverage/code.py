# SPDX-License-Identifier: BSD-2-Clause
"""The code of a kernel that is measured, as sites: lines that are run or not, and ways a conditional jump goes or not.

A line is run when an instruction is that was made of it, or of an inline function that it calls.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from capstone import CS_ARCH_X86, CS_MODE_64, Cs

from harness.files import write_whole
from harness.later import Later
from harness.machine.executed import EXECUTED, FELL_THROUGH, JUMPED, CodeRange

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.machine.executed import Notes

    Hits = NDArray[np.bool_]
else:
    np = Later("numpy")

FORMAT = 4
# Functions that do not return: a branch that leads straight to one is there to stop a kernel that is broken.
_NEAR = 6  # bytes of a conditional jump that leads further than a byte can say
_DEADLY = frozenset({"panic", "__stack_chk_fail"})


@dataclass(frozen=True, order=True)
class Line:
    """A line of a source file that became code; 0 stands for a whole function whose lines are not known."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, order=True)
class Jump:
    """A conditional jump at `address`; `condition` is what it asks the CPU, and whether it jumps if that is not so.

    `fatal_next` and `fatal_target` tell which of its ways leads straight to panic().
    """

    address: int
    condition: int
    inverted: bool
    fatal_next: bool = False
    fatal_target: bool = False


@dataclass(frozen=True, order=True)
class Branch:
    """A condition in a line of C: it is so, or not.  Compilers make several jumps of one that they copy.

    Jumps count as one condition when they come from the same column and ask the CPU the same; of a macro's conditions
    all have its column.
    """

    file: str
    line: int
    function: str
    column: int
    jumps: tuple[Jump, ...]

    @property
    def fatal(self) -> tuple[bool, bool]:
        """Whether it leads straight to panic() when the condition is not so, and when it is."""
        ways = [
            (jump.fatal_target, jump.fatal_next) if jump.inverted else (jump.fatal_next, jump.fatal_target)
            for jump in self.jumps
        ]
        return all(no for no, _ in ways), all(yes for _, yes in ways)

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Self:
        """Rebuild it from the values of its fields."""
        file, line, function, column, jumps = data
        return cls(file, line, function, column, tuple(Jump(*each.values()) for each in jumps))


@dataclass(frozen=True)
class Code:
    """What is measured, and how what a machine executes becomes hits: of lines, then of each branch whether not and so.

    `addresses` and `texts` are the code itself, in the order of the notes; `extents` are begin, end (in notes) and the
    number of a line.
    """

    lines: tuple[Line, ...]
    branches: tuple[Branch, ...]
    addresses: tuple[int, ...]
    texts: tuple[bytes, ...]
    extents: tuple[tuple[int, int, int], ...]

    @property
    def ranges(self) -> tuple[CodeRange, ...]:
        """What an instrument is made for."""
        return tuple(CodeRange(*each) for each in zip(self.addresses, self.texts, strict=True))

    @property
    def size(self) -> int:
        """How many sites there are."""
        return len(self.lines) + 2 * len(self.branches)

    @cached_property
    def _extents(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        columns = np.array(self.extents, dtype=np.int64).reshape(-1, 3)
        return columns[:, 0], columns[:, 1], columns[:, 2]

    @cached_property
    def _jumps(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Of each jump its place in the notes, the number of its branch, and whether it is inverted."""
        starts = np.concatenate([[0], np.cumsum([len(text) for text in self.texts])])
        all_jumps = [(number, jump) for number, branch in enumerate(self.branches) for jump in branch.jumps]
        addresses = np.array([jump.address for _, jump in all_jumps], dtype=np.uint64)
        which = np.searchsorted(np.array(self.addresses, dtype=np.uint64), addresses, side="right") - 1
        own = [jump.address - self.addresses[at] for (_, jump), at in zip(all_jumps, which, strict=True)]
        return (
            np.asarray(starts[which] + np.array(own, dtype=np.int64), dtype=np.int64),
            np.array([number for number, _ in all_jumps], dtype=np.int64),
            np.array([jump.inverted for _, jump in all_jumps], dtype=bool),
        )

    def hits(self, notes: Notes) -> Hits:
        """Return which sites NOTES show."""
        begin, end, line = self._extents
        before = np.concatenate([[0], np.cumsum(notes & EXECUTED)])
        found = np.zeros(self.size, dtype=bool)
        found[line[before[end] > before[begin]]] = True
        if self.branches:
            place, branch, inverted = self._jumps
            fell, jumped = notes[place] & FELL_THROUGH != 0, notes[place] & JUMPED != 0
            found[len(self.lines) + 2 * branch[np.where(inverted, jumped, fell)]] = True
            found[len(self.lines) + 2 * branch[np.where(inverted, fell, jumped)] + 1] = True
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "format": FORMAT,
            "lines": [list(asdict(each).values()) for each in self.lines],
            "branches": [list(asdict(each).values()) for each in self.branches],
            "addresses": list(self.addresses),
            "texts": [base64.b64encode(text).decode() for text in self.texts],
            "extents": [list(each) for each in self.extents],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ValueError for what is none."""
        if data["format"] != FORMAT:
            raise ValueError("it has another format")
        return cls(
            tuple(Line(*each) for each in data["lines"]),
            tuple(map(Branch.from_json, data["branches"])),
            tuple(map(int, data["addresses"])),
            tuple(base64.b64decode(text) for text in data["texts"]),
            tuple((int(begin), int(end), int(line)) for begin, end, line in data["extents"]),
        )


def pack(hits: Hits) -> str:
    """Return HITS as a short text."""
    return base64.b64encode(zlib.compress(np.packbits(hits).tobytes(), 9)).decode()


def unpack(text: str, size: int) -> Hits:
    """Return the hits of SIZE sites that pack() made TEXT of; raises ValueError for anything else."""
    try:
        bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(bits) != (size + 7) // 8:
        raise ValueError(f"{len(bits)} bytes are no {size} sites")
    return np.unpackbits(bits, count=size).astype(bool)


def jumps_in(address: int, code: bytes, deadly: frozenset[int]) -> Iterator[Jump]:
    """Yield the conditional jumps of CODE at ADDRESS; DEADLY are addresses of functions that do not return."""
    machine = Cs(CS_ARCH_X86, CS_MODE_64)
    found: list[tuple[int, int, str, str]] = list(machine.disasm_lite(code, address))
    index = {each[0]: number for number, each in enumerate(found)}

    def is_fatal(at: int | None) -> bool:
        """Tell whether whoever comes to AT goes straight to a deadly function."""
        seen: set[int | None] = set()
        while at in index and at not in seen:
            seen.add(at)
            for each in found[index[at] :]:
                if each[2] == "call":
                    return _number(each[3]) in deadly
                if each[2] == "jmp":
                    at = _number(each[3])
                    break
                if each[2].startswith(("j", "ret", "loop")):
                    return False
        return False

    for at, size, name, operand in found:
        target = _number(operand) if name.startswith("j") and name not in {"jmp", "jrcxz", "jecxz"} else None
        if target is not None:
            kind = code[at - address + (size == _NEAR)] & 15
            yield Jump(at, kind >> 1, bool(kind & 1), is_fatal(at + size), is_fatal(target))


def _number(operand: str) -> int | None:
    try:
        return int(operand, 16)
    except ValueError:
        return None


def code_of_functions(functions: Sequence[tuple[str, int, bytes]], deadly: frozenset[int]) -> Code:
    """Return FUNCTIONS (name, address, code) as code to measure where no line is known: each is one line, 0."""
    ordered = sorted(functions, key=lambda each: each[1])
    lines = tuple(Line("", 0, name) for name, _, _ in ordered)
    branches: list[Branch] = []
    extents = []
    place = 0
    for number, (name, address, text) in enumerate(ordered):
        extents.append((place, place + len(text), number))
        place += len(text)
        branches += [Branch("", 0, name, 0, (jump,)) for jump in jumps_in(address, text, deadly)]
    return Code(
        lines, tuple(branches), tuple(each[1] for each in ordered), tuple(each[2] for each in ordered), tuple(extents)
    )


def keep_code(file: Path, code: Code) -> None:
    """Write CODE to FILE for load_code()."""
    write_whole(file, zlib.compress(json.dumps(code.to_json()).encode()))


def load_code(file: Path) -> Code | None:
    """Return what keep_code() wrote; None where that is not there, or was written by another version."""
    with suppress(OSError, ValueError, KeyError, TypeError, zlib.error):
        return Code.from_json(json.loads(zlib.decompress(file.read_bytes())))
    return None


def deadly_functions(addresses: Mapping[str, int]) -> frozenset[int]:
    """Return where the functions are that do not return, of a kernel whose symbols are at ADDRESSES."""
    return frozenset(addresses[name] for name in _DEADLY if name in addresses)

# SPDX-License-Identifier: BSD-2-Clause
"""Which instructions a machine under TCG executes, noted by a plugin of QEMU in memory that both of us map.

The plugin (executed.c) is compiled by the host's compiler when first needed.  It knows nothing of a guest: it is given
ranges of virtual addresses with the code that is there.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.later import Later
from harness.toolchain import compile_program, run_tool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Notes = NDArray[np.uint8]
else:
    np = Later("numpy")

#: What is noted of an instruction; the second and third of conditional jumps only.
EXECUTED, FELL_THROUGH, JUMPED = 1, 2, 4
#: By set of what is touched: what its CPU has passed while it touched nothing of the set.
PASSED = (8, 16)
_NOTES, _COMPARES, _PER_SET = 1, 2, 2

_MAGIC = b"dflyexec"
_HEADER = struct.Struct("<8sQQ")  # magic, number of ranges, place of the watch
# Phase, words, place of their marks, and of the used pages; by set: the note it begins at, whose CPU, state.
_WATCH = struct.Struct("<4Q2Q4I")
_WORD, _PAGE = 8, 4096  # bytes in a word, words in a page
_ALIGNED = 64
_MET = 2  # a state
_ANYHOW = 3  # read or written
_RANGE = struct.Struct("<4Q")  # address, size, place of the notes, place of the code
_FLAGS = "-std=c11 -O2 -Wall -Wextra -Werror -fPIC -shared -fvisibility=hidden".split()
_SOURCE = Path(__file__).with_name("executed.c")
#: From which QEMU on which interface serves: each takes none older than that, and none newer than its own.
_INTERFACES = {(11, 1): 7, (9, 0): 2, (0, 0): 1}


@dataclass(frozen=True)
class CodeRange:
    """Code at virtual ADDRESS."""

    address: int
    code: bytes = field(repr=False)


@dataclass(frozen=True)
class Instrument:
    """What is to be noted of a machine: by which plugin, and where.  Ranges are sorted and do not overlap.

    With `memory`, the MiB of the machine's, it is also noted what is touched of it, and not which way jumps go.
    """

    plugin: Path
    ranges: tuple[CodeRange, ...]
    memory: int = 0

    @property
    def size(self) -> int:
        """How many notes there are: one for each byte of code, in the order of the ranges."""
        return sum(len(each.code) for each in self.ranges)

    def prepare(self, file: Path) -> Execution:
        """Write what the plugin reads to FILE, and return what it will note there."""
        header = _HEADER.size + _RANGE.size * len(self.ranges)
        place, table = header, b""
        for each in self.ranges:
            table += _RANGE.pack(each.address, len(each.code), place, header + self.size + place - header)
            place += len(each.code)
        code = b"".join(each.code for each in self.ranges)
        end = header + 2 * self.size
        watch = -(-end // _ALIGNED) * _ALIGNED if self.memory else 0
        file.write_bytes(_HEADER.pack(_MAGIC, len(self.ranges), watch) + table + bytes(self.size) + code)
        with file.open("r+b") as stream:
            if watch:
                words, marks = self.memory * 2**20 // _WORD, watch + _ALIGNED
                stream.truncate(marks + words + words // _PAGE)
                stream.seek(watch)
                stream.write(_WATCH.pack(0, words, marks, marks + words, *[0] * 6))
                stream.flush()
            return Execution(mmap.mmap(stream.fileno(), 0), header, self.size, watch)

    def place_of(self, address: int) -> int:
        """Return which of the notes is that of the instruction at ADDRESS; raises HarnessError where there is none."""
        place = 0
        for each in self.ranges:
            if 0 <= address - each.address < len(each.code):
                return place + address - each.address
            place += len(each.code)
        raise HarnessError(f"nothing is noted of the instruction at {address:#x}")


class Execution:
    """What one machine has executed so far; can be read when it is gone, too."""

    def __init__(self, memory: mmap.mmap, place: int, size: int, watch: int = 0) -> None:
        self._notes: Notes = np.frombuffer(memory, np.uint8, size, place)
        self.touched = Touched(memory, watch, place) if watch else None

    def take(self) -> Notes:
        """Return what was noted since the last time, and forget it.

        A machine that runs meanwhile may execute an instruction between the two.
        """
        taken = self._notes.copy()
        self._notes[:] = 0
        return taken


class Touched:
    """Which words of a machine's memory are touched in one phase, and whether one CPU touches any of them in another.

    There are two such sets.  As long as that CPU has read nothing that was written, and written nothing that was read
    or written, all would be the same if it had been there first.
    """

    def __init__(self, memory: mmap.mmap, watch: int, notes: int) -> None:
        self._notes = notes
        self._phase = np.frombuffer(memory, np.uint64, 1, watch)
        _, words, marks, used, *_ = _WATCH.unpack_from(memory, watch)
        self._from = np.frombuffer(memory, np.uint64, 2, watch + 32)
        self._cpus = np.frombuffer(memory, np.uint32, 2, watch + 48)
        self._state = np.frombuffer(memory, np.uint32, 2, watch + 56)
        self._marks: Notes = np.frombuffer(memory, np.uint8, words, marks)
        self._used: Notes = np.frombuffer(memory, np.uint8, words // _PAGE, used)

    def forget(self) -> None:
        """Empty both sets, and note nothing."""
        self._phase[0] = 0
        self._state[:] = 0
        for page in np.flatnonzero(self._used):
            self._marks[page * _PAGE : (page + 1) * _PAGE] = 0
        self._used[:] = 0

    def note(self, which: int, cpu: int) -> None:
        """Note from now on in the set WHICH what all but CPU touch, which is compared with it later."""
        self._cpus[which] = cpu
        self._phase[0] |= np.uint64(_NOTES << _PER_SET * which)

    def compare(self, which: int, place: int) -> None:
        """Note no more in the set WHICH, but compare what its CPU touches from the instruction of the note PLACE on.

        What it passes until it touches anything of the set is PASSED.
        """
        self._from[which] = self._notes + place
        self._phase[0] = np.uint64(
            (int(self._phase[0]) & ~(_NOTES << _PER_SET * which)) | _COMPARES << _PER_SET * which
        )

    def end(self) -> None:
        """Note and compare nothing from now on."""
        self._phase[0] = 0

    def is_noted(self, which: int, address: int) -> bool:
        """Tell whether the word at the physical ADDRESS is in the set WHICH."""
        return bool(self._marks[address // _WORD] >> _PER_SET * which & _ANYHOW)

    def has_met(self, which: int) -> bool:
        """Tell whether the CPU of the set WHICH has touched what that has."""
        return int(self._state[which]) == _MET


def instrument(ranges: Sequence[CodeRange], version: str, cache: Path, memory: int = 0) -> Instrument:
    """Return the instrument for RANGES and the QEMU of VERSION, compiled into CACHE.

    With MEMORY, the machine's MiB, it notes what is touched of that as well.  Raises HarnessError when there is no
    compiler.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    own = (int(numbers[1]), int(numbers[2])) if numbers is not None else (0, 0)
    interface = next(interface for since, interface in _INTERFACES.items() if own >= since)
    plugin = compile_program("executed", [_SOURCE], [*_FLAGS, f"-DPLUGIN_VERSION={interface}"], cache)
    return Instrument(plugin, tuple(sorted(ranges, key=lambda each: each.address)), memory)


@lru_cache(maxsize=4)
def _has_plugins(qemu: str) -> bool:
    return "-plugin" in str(run_tool([qemu, "--help"], text=True, deadline=60.0).stdout)


def demand_plugins(qemu: str) -> None:
    """Raise HarnessError when the program QEMU was built without plugins."""
    if not _has_plugins(qemu):
        raise HarnessError(f"{qemu} was built without TCG plugins, by which it is noted what is executed")

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

#: What is noted of an instruction; the last two of conditional jumps only.
EXECUTED, FELL_THROUGH, JUMPED = 1, 2, 4


_MAGIC = b"dflyexec"
_HEADER = struct.Struct("<8sQ")
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
    """What is to be noted of a machine: by which plugin, and where.  Ranges are sorted and do not overlap."""

    plugin: Path
    ranges: tuple[CodeRange, ...]

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
        file.write_bytes(_HEADER.pack(_MAGIC, len(self.ranges)) + table + bytes(self.size) + code)
        with file.open("r+b") as stream:
            return Execution(mmap.mmap(stream.fileno(), 0), header, self.size)


class Execution:
    """What one machine has executed so far; can be read when it is gone, too."""

    def __init__(self, memory: mmap.mmap, place: int, size: int) -> None:
        self._notes: Notes = np.frombuffer(memory, np.uint8, size, place)

    def take(self) -> Notes:
        """Return what was noted since the last time, and forget it.

        A machine that runs meanwhile may execute an instruction between the two.
        """
        taken = self._notes.copy()
        self._notes[:] = 0
        return taken


def instrument(ranges: Sequence[CodeRange], version: str, cache: Path) -> Instrument:
    """Return the instrument for RANGES and the QEMU of VERSION, compiled into CACHE.

    Raises HarnessError when there is no compiler.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    own = (int(numbers[1]), int(numbers[2])) if numbers is not None else (0, 0)
    interface = next(interface for since, interface in _INTERFACES.items() if own >= since)
    plugin = compile_program("executed", [_SOURCE], [*_FLAGS, f"-DPLUGIN_VERSION={interface}"], cache)
    return Instrument(plugin, tuple(sorted(ranges, key=lambda each: each.address)))


@lru_cache(maxsize=4)
def _has_plugins(qemu: str) -> bool:
    return "-plugin" in str(run_tool([qemu, "--help"], text=True, deadline=60.0).stdout)


def demand_plugins(qemu: str) -> None:
    """Raise HarnessError when the program QEMU was built without plugins."""
    if not _has_plugins(qemu):
        raise HarnessError(f"{qemu} was built without TCG plugins, by which it is noted what is executed")

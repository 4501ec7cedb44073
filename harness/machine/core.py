# SPDX-License-Identifier: BSD-2-Clause
"""The memory of a machine that is gone: QEMU's dump as an ELF core, read by the addresses its kernel used.

The dump has physical memory; QEMU's own note in it has each CPU's registers, among them the root of the page tables
(QEMU include/hw/core/cpu.h, target/i386/arch_dump.c: QEMUCPUState).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from harness.errors import HarnessError, UsageError

_NOTE = struct.Struct("<III")  # sizes of name and content, type
_OWNER = b"QEMU\0"
_CR3 = 8 + 18 * 8 + 10 * 24 + 3 * 8  # behind version and size, 16 registers, rip, rflags, 10 segments, cr0 to cr2
_PRESENT, _LARGE = 1, 0x80
_ADDRESS = 0x000FFFFFFFFFF000
_LEVELS = (39, 30, 21, 12)  # bits below each level's index
_PAGE = 4096


class MemoryDump:
    """The dump in FILE; raises UsageError for what is none.  Addresses are those of CPU 0."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            with file.open("rb") as stream:
                elf = ELFFile(stream)
                segments = list(elf.iter_segments())
                self._runs = [
                    (int(each["p_paddr"]), int(each["p_filesz"]), int(each["p_offset"]))
                    for each in segments
                    if each["p_type"] == "PT_LOAD"
                ]
                notes = b"".join(each.data() for each in segments if each["p_type"] == "PT_NOTE")
                self._data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ELFError, ValueError) as error:
            raise UsageError(f"{file}: not a dump of a machine's memory ({error})") from error
        states = [content for owner, content in _notes(notes) if owner == _OWNER and len(content) >= _CR3 + 8]
        if not states:
            raise UsageError(f"{file}: no dump of QEMU's: nothing in it says where the page tables are")
        self._root = int.from_bytes(states[0][_CR3 : _CR3 + 8], "little")

    def read_physical(self, address: int, size: int) -> bytes:
        """Return SIZE bytes of physical memory; raises HarnessError where there is none."""
        for start, length, offset in self._runs:
            if start <= address and address + size <= start + length:
                at = offset + address - start
                return self._data[at : at + size]
        raise HarnessError(f"{self._file}: the machine had no memory at {address:#x}")

    def read_virtual(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at the kernel's ADDRESS; raises HarnessError where nothing was mapped."""
        data = b""
        while len(data) < size:
            here = address + len(data)
            part = min(size - len(data), _PAGE - here % _PAGE)
            data += self.read_physical(self._translate(here), part)
        return data

    def _translate(self, address: int) -> int:
        table: int = self._root & _ADDRESS
        for shift in _LEVELS:
            index = address >> shift & 0x1FF
            entry = int.from_bytes(self.read_physical(table + 8 * index, 8), "little")
            if not entry & _PRESENT:
                break
            if shift == _LEVELS[-1] or (entry & _LARGE and shift != _LEVELS[0]):
                inside = (1 << shift) - 1
                return (entry & _ADDRESS & ~inside) | (address & inside)
            table = entry & _ADDRESS
        raise HarnessError(f"{self._file}: nothing was mapped at {address:#x}")


def _notes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + _NOTE.size <= len(data):
        name, content, _ = _NOTE.unpack_from(data, at)
        at += _NOTE.size
        owner = data[at : at + name]
        at += -(-name // 4) * 4
        yield owner, data[at : at + content]
        at += -(-content // 4) * 4

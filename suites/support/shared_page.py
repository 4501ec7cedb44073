"""The page a process shares with the kernel (/dev/upmap)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import cached_property

from harness.processes import RemoteProcess
from harness.processes.memory import OwnMemory

# sys/upmap.h: types of the entries; bits 8 to 11 give the size as a power of two.
VERSION, RUNTICKS, FORKID, PID_ENTRY, TITLE, INVFORK = 0x0201, 0x0210, 0x0311, 0x0212, 0x0A13, 0x0214
ENTRIES = {
    "version": VERSION,
    "runticks": RUNTICKS,
    "forkid": FORKID,
    "pid": PID_ENTRY,
    "title": TITLE,
    "invfork": INVFORK,
}
_PAGE, _MAPPED, _HEADERS = 4096, 65536, 64
_READ_WRITE, _SHARED = 3, 1  # sys/mman.h


def size_of(entry: int) -> int:
    """Return the length of an entry in bytes (sys/upmap.h: UKPLEN_DECODE)."""
    return 1 << (entry >> 8 & 0xF)


@dataclass
class SharedPage:
    """A process's /dev/upmap at ADDRESS; entries are found by type, as programs do."""

    memory: OwnMemory
    address: int

    @cached_property
    def headers(self) -> list[tuple[int, int]]:
        """Type and offset of each entry, up to the first of type 0."""
        words = struct.iter_unpack("<HH", self.memory.read(self.address, 4 * _HEADERS))
        entries: list[tuple[int, int]] = []
        for kind, offset in words:
            if kind == 0:
                break
            entries.append((kind, offset))
        return entries

    def where(self, entry: int) -> int:
        """Return the address of an entry; KeyError if the kernel announces none."""
        return self.address + dict(self.headers)[entry]

    def value(self, entry: int) -> int:
        """Return a numeric entry."""
        return self.memory.word(self.where(entry), size_of(entry))

    def set_title(self, title: bytes) -> None:
        """Write to the title, without adding anything."""
        self.memory.write(self.where(TITLE), title)


def map_page(process: RemoteProcess) -> int:
    """Map /dev/upmap; return the address."""
    fd = process.open("/dev/upmap", os.O_RDWR)
    return process.syscall("mmap", 0, _MAPPED, _READ_WRITE, _SHARED, fd, 0, 0).wide


def shared_page(process: RemoteProcess) -> SharedPage:
    """Map PROCESS's shared page and return it."""
    return SharedPage(OwnMemory(process), map_page(process))

# SPDX-License-Identifier: BSD-2-Clause
"""The pages a process shares with the kernel: /dev/upmap, /dev/lpmap (one for each thread) and /dev/kpmap."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.processes.memory import OwnMemory
from harness.processes.remote import RemoteProcess, RemoteThread

#: Types of entries by name (sys/upmap.h); bits 8 to 11 give the size as a power of two.
UPMAP: Mapping[str, int] = {
    "version": 0x0201, "runticks": 0x0210, "forkid": 0x0311, "pid": 0x0212, "title": 0x0A13, "invfork": 0x0214,
}  # fmt: skip
LPMAP: Mapping[str, int] = {"version": 0x0201, "blockallsigs": 0x4212, "title": 0x4A13, "tid": 0x4214}
KPMAP: Mapping[str, int] = {
    "version": 0x0201, "upticks": 0x8200, "ts_uptime": 0x8501, "ts_realtime": 0x8502, "tsc_freq": 0x8303,
    "tick_freq": 0x8304, "fast_gtod": 0x8205,
}  # fmt: skip
ENTRIES: Mapping[str, Mapping[str, int]] = {"upmap": UPMAP, "lpmap": LPMAP, "kpmap": KPMAP}

_MAPPED, _HEADERS = 65536, 64
_READ, _READ_WRITE, _SHARED = 1, 3, 1  # sys/mman.h


def size_of(entry: int) -> int:
    """Return the length in bytes of an entry of that type (sys/upmap.h: UKPLEN_DECODE)."""
    return 1 << (entry >> 8 & 0xF)


@dataclass
class SharedPage:
    """A page that the kernel keeps, mapped at ADDRESS; entries are found by type, as programs do."""

    memory: OwnMemory
    address: int
    names: Mapping[str, int]

    @cached_property
    def headers(self) -> list[tuple[int, int]]:
        """Type and offset of each entry, up to the first of type 0."""
        entries: list[tuple[int, int]] = []
        for kind, offset in struct.iter_unpack("<HH", self.memory.read(self.address, 4 * _HEADERS)):
            if kind == 0:
                break
            entries.append((kind, offset))
        return entries

    def where(self, name: str) -> int:
        """Return the address of an entry; KeyError if the kernel announces none."""
        return self.address + dict(self.headers)[self.names[name]]

    def value(self, name: str) -> int:
        """Return a numeric entry."""
        return self.memory.word(self.where(name), size_of(self.names[name]))

    def content(self, name: str) -> bytes:
        """Return the bytes of an entry."""
        return self.memory.read(self.where(name), size_of(self.names[name]))

    def write(self, name: str, data: bytes) -> None:
        """Write to an entry, without adding anything."""
        self.memory.write(self.where(name), data)


def shared_page(process: RemoteProcess | RemoteThread, device: str = "upmap") -> SharedPage:
    """Map the page DEVICE ("upmap", "lpmap", "kpmap") of PROCESS and return it.

    Raises GuestError ENOENT where the kernel has no such device: /dev/lpmap came with 5.8.
    """
    if (modelled := getattr(process, "shared_page", None)) is not None:  # a process of the oracle
        page: SharedPage = modelled(device)
        return page
    writable = device != "kpmap"
    fd = process.open(f"/dev/{device}", os.O_RDWR if writable else os.O_RDONLY)
    protection = _READ_WRITE if writable else _READ
    address = process.syscall("mmap", 0, _MAPPED, protection, _SHARED, fd, 0, 0).wide
    process.close(fd)
    return SharedPage(OwnMemory(process), address, ENTRIES[device])

# SPDX-License-Identifier: BSD-2-Clause
"""Structures in the memory of a paused machine, laid out as the kernel's debug file says."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from harness.errors import HarnessError
from harness.machine.debuginfo import Layout

LONGEST_CHAIN = 100_000  # a longer list is taken for a circle
_PAGE = 4096


class DamagedError(HarnessError):
    """The kernel's memory contradicts itself so much that it cannot be walked: a list does not end, a link is bad."""


class MemoryReader(Protocol):
    """What gives a kernel's memory: a machine, a debugger at one, a dump."""

    def read_virtual(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at the kernel's ADDRESS; raises HarnessError where nothing is mapped."""


class KernelMemory:
    """The memory of a machine that stands still, as its kernel sees it; a page is fetched once."""

    def __init__(self, machine: MemoryReader) -> None:
        self._machine = machine
        self._pages: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at the kernel's virtual ADDRESS; raises DamagedError where nothing is mapped."""
        data = b""
        while size > 0:
            base = address & -_PAGE
            part = self._page(base)[address - base : address - base + size]
            data += part
            address += len(part)
            size -= len(part)
        return data

    def fetch(self, address: int, size: int) -> None:
        """Fetch in one piece, which is faster, what will be read of SIZE bytes at ADDRESS."""
        first, end = address & -_PAGE, -(-(address + size) // _PAGE) * _PAGE
        with contextlib.suppress(HarnessError):  # who reads what is not there is told
            data = self._machine.read_virtual(first, end - first)
            self._pages |= {first + at: data[at : at + _PAGE] for at in range(0, len(data), _PAGE)}

    def _page(self, base: int) -> bytes:
        if base not in self._pages:
            try:
                self._pages[base] = self._machine.read_virtual(base, _PAGE)
            except HarnessError as error:
                raise DamagedError(f"a link leads to {base:#x}, where the kernel has no memory ({error})") from error
        return self._pages[base]


@dataclass(frozen=True)
class KernelStruct:
    """A structure in the kernel's memory."""

    memory: KernelMemory
    layout: Layout
    address: int

    def place(self, member: str) -> int:
        """Return the address of MEMBER."""
        return self.address + self.layout.offset(member)

    def word(self, member: str, size: int = 4, *, at: int = 0) -> int:
        """Return SIZE bytes as an unsigned number, AT bytes into MEMBER."""
        where = self.address + self.layout.offset(member) + at
        return int.from_bytes(self.memory.read(where, size), "little")

    def integer(self, member: str) -> int:
        """Return an int."""
        data = self.memory.read(self.address + self.layout.offset(member), 4)
        return int(struct.unpack("<i", data)[0])

    def pointer(self, member: str, *, at: int = 0) -> int:
        """Return an address."""
        return self.word(member, 8, at=at)

    def text(self, member: str, size: int) -> str:
        """Return a string of at most SIZE bytes."""
        data = self.memory.read(self.address + self.layout.offset(member), size)
        return data.partition(b"\0")[0].decode(errors="replace")


@dataclass(frozen=True)
class ProcessTable:
    """procglob[] at one moment: its processes, groups and sessions, each with the number of the chain it is in."""

    processes: tuple[tuple[int, KernelStruct], ...]
    groups: tuple[tuple[int, KernelStruct], ...]
    sessions: tuple[tuple[int, KernelStruct], ...]
    chains: int

    @cached_property
    def pids(self) -> tuple[int, ...]:
        """The processes' ids."""
        return tuple(process.integer("p_pid") for _, process in self.processes)


def walk(memory: KernelMemory, layout: Layout, head: int, link: str) -> Iterator[KernelStruct]:
    """Yield the structures of the LIST whose head is at HEAD; raises DamagedError if it is none."""
    seen: set[int] = set()
    address = int.from_bytes(memory.read(head, 8), "little")
    back = head
    while address:
        if address in seen or len(seen) > LONGEST_CHAIN:
            raise DamagedError(f"the list of struct {layout.name} at {head:#x} runs in a circle")
        seen.add(address)
        record = KernelStruct(memory, layout, address)
        previous = record.pointer(link, at=8)
        if previous != back:
            raise DamagedError(
                f"struct {layout.name} at {address:#x}: its back link {link}.le_prev is {previous:#x}, not {back:#x}"
            )
        yield record
        back = address + layout.offset(link)
        address = record.pointer(link)


def threads_of(process: KernelStruct, lwp: Layout) -> list[KernelStruct]:
    """Return the threads of PROCESS by their ids, which are in a tree (sys/tree.h: RB_ENTRY, left and right first).

    LWP is how a thread's structure lies.  Raises DamagedError when the tree does not end.
    """
    found: list[KernelStruct] = []
    left = [process.pointer("p_lwp_tree")]
    while left:
        if not (address := left.pop()):
            continue
        if len(found) > LONGEST_CHAIN:
            raise DamagedError(f"the tree of threads of the process at {process.address:#x} does not end")
        one = KernelStruct(process.memory, lwp, address)
        found.append(one)
        left += [one.pointer("u", at=8), one.pointer("u")]
    return sorted(found, key=lambda each: each.integer("lwp_tid"))

# SPDX-License-Identifier: BSD-2-Clause
"""How a kernel counts its allocations (sys/malloc.h: struct malloc_type), by debug information or by era."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.errors import HarnessError, UsageError
from harness.machine.debuginfo import Layout

#: What debug information is asked for.
STRUCTURES = frozenset({"malloc_type", "malloc_type.ks_use"})

_MAGIC = 877983977  # sys/malloc.h: M_MAGIC
_IN_FLIGHT, _MOST = 1000, 1 << 40  # allocations
_INSIDE = 1024  # bytes no structure has that keeps its counters elsewhere


@dataclass(frozen=True)
class Counters:
    """Where a malloc type keeps the counters of each CPU, in bytes: `uses` in the structure, STRIDE apart.

    With `elsewhere`, what is at `uses` is a pointer to them.  `magic` is where the mark of a malloc type is.
    """

    uses: int
    stride: int
    in_use: int
    magic: int
    elsewhere: bool


# By sizeof(struct malloc_type): the slots of all CPUs are inside it (2012 to 2017) or pointed to (from 4.9 on); since
# March 2021 they have a cache of objects each.
_POINTED_TO = {128: Counters(56, 64, 8, 36, elsewhere=True), 384: Counters(56, 192, 8, 36, elsewhere=True)}
_BEHIND_SLOTS = 112  # bytes from the mark to the end, with the slots inside


def counters_by_size(size: int) -> Counters:
    """Return the counters of a malloc type of SIZE bytes; raises UsageError for a size of no known era."""
    if size > _INSIDE:
        return Counters(64, 64, 8, size - _BEHIND_SLOTS, elsewhere=False)
    if size not in _POINTED_TO:
        known = ", ".join(map(str, _POINTED_TO))
        raise UsageError(
            f"a struct malloc_type of {size} bytes is of no known era (known: {known}, more than {_INSIDE});"
            " import the kernel with --debug kernel.debug"
        )
    return _POINTED_TO[size]


def counters_by_layout(layouts: Mapping[str, Layout]) -> Counters:
    """Return the counters as the kernel's debug information describes them; raises UsageError where it lacks them."""
    outer, use = layouts["malloc_type"], layouts["malloc_type.ks_use"]
    elsewhere = "ks_use" in outer.pointers
    return Counters(
        outer.offset("ks_use"), use.size, use.offset("inuse"), outer.offset("ks_magic"), elsewhere=elsewhere
    )


def in_use(counters: Counters, kind: str, address: int, cpus: int, read: Callable[[int, int], bytes]) -> int:
    """Return how many allocations of malloc type KIND, at ADDRESS, are in use; READ returns the kernel's memory.

    Raises HarnessError when the memory there is no malloc type as COUNTERS describe it.
    """
    found = int.from_bytes(read(address + counters.magic, 4), "little")
    if found != _MAGIC:
        raise HarnessError(
            f"{kind} bears the mark {found}, not {_MAGIC}: this kernel's struct malloc_type lies otherwise than known"
        )
    slots = address + counters.uses
    if counters.elsewhere:
        slots = int.from_bytes(read(slots, 8), "little")
    data = read(slots, counters.stride * cpus)
    at = (counters.stride * cpu + counters.in_use for cpu in range(cpus))
    total = sum(int.from_bytes(data[place : place + 8], "little") for place in at) & (1 << 64) - 1
    # Freed on another CPU than allocated, a slot may be negative; their sum may not.
    if total >> 63:
        raise HarnessError(
            f"{kind} has {total - (1 << 64)} allocations in use: its counters are not where they are read"
        )
    return total

# SPDX-License-Identifier: BSD-2-Clause
"""What kernels of old eras need of a machine, by accelerator and __DragonFly_version."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from harness.machine.description import Accelerator


@dataclass(frozen=True)
class BootQuirk:
    """Variables of the kernel's environment for kernels from SINCE to before UNTIL, WHY in words for people."""

    name: str
    why: str
    until: int
    accelerators: frozenset[Accelerator]
    environment: Mapping[str, str] = field(default_factory=dict)
    since: int = 0

    def applies(self, osreldate: int | None, accelerator: Accelerator) -> bool:
        """Tell whether a kernel of version OSRELDATE needs it under ACCELERATOR, or may, its version being unknown."""
        return accelerator in self.accelerators and (not osreldate or self.since <= osreldate < self.until)

    def __str__(self) -> str:
        settings = " ".join(f"{name}={value}" for name, value in self.environment.items())
        return f"{self.name}: {settings} ({self.why})"


_QUIRKS = (
    BootQuirk(
        "I/O APIC under a hypervisor",
        # machdep.c: hammer_time(), until f0ee34376a of 2020-08-28; 500902 is the first version after that.
        "kernels before 2020-08-28 switch it off in a virtual machine, and under KVM lose interrupts by that",
        until=500902,
        # TCG is a virtual machine to them as well, but there they are used to it, and their warm states are made so.
        accelerators=frozenset({Accelerator.KVM}),
        environment={"hw.ioapic_enable": "1"},
    ),
)


# The slice of a disk without a partition table (`ufs:vbd0s0`): all of the disk, as its bare name is.
_COMPATIBILITY_SLICE = re.compile(r"(\w+:(?:/dev/)?[a-z]+\d+)s0(?=@|$)")
_BARE_DISK = BootQuirk(
    "the bare disk for its slice 0",
    # subr_diskmbr.c: mbrinit(), from 8cf8601eba (still 600516) to before b73d6e474c, which is the first 600518.
    "kernels of 2026-02-18 to 2026-03-05 have no slice 0 on a disk without a partition table",
    since=600516,
    until=600518,
    accelerators=frozenset(Accelerator),
)


def boot_quirks(osreldate: int | None, accelerator: Accelerator, root: str = "") -> Iterator[BootQuirk]:
    """Yield what a kernel of version OSRELDATE needs under ACCELERATOR to mount ROOT (`ufs:vbd0`).

    Where the version is unknown, all it may need: other kernels do what the variables say by themselves, or do not
    mind.
    """
    for quirk in _QUIRKS:
        if quirk.applies(osreldate, accelerator):
            yield quirk
    bare = _COMPATIBILITY_SLICE.sub(r"\1", root)
    if bare != root and _BARE_DISK.applies(osreldate, accelerator):
        yield replace(_BARE_DISK, environment={"vfs.root.mountfrom": bare})

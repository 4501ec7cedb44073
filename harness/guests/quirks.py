"""What kernels of old eras need of a machine, by accelerator and __DragonFly_version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from harness.machine.description import Accelerator


@dataclass(frozen=True)
class BootQuirk:
    """Variables of the kernel's environment for kernels before version UNTIL, WHY in words for people."""

    name: str
    why: str
    until: int
    accelerators: frozenset[Accelerator]
    environment: Mapping[str, str] = field(default_factory=dict)

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


def boot_quirks(osreldate: int | None, accelerator: Accelerator) -> Iterator[BootQuirk]:
    """Yield what a kernel of version OSRELDATE needs under ACCELERATOR; where the version is unknown, all it may need.

    Newer kernels do what the variables say by themselves.
    """
    for quirk in _QUIRKS:
        if accelerator in quirk.accelerators and (osreldate or 0) < quirk.until:
            yield quirk

# SPDX-License-Identifier: BSD-2-Clause
"""The options that choose image, kernel and machine: declared, checked and printed in this one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from harness.errors import UsageError
from harness.guests.copying import PLACE, Put
from harness.guests.guest import MachineSize
from harness.guests.targets import INSTALLED, TargetChoice
from harness.machine.accel import choose_accelerator
from harness.machine.description import Accelerator
from harness.options import Option, declare, read, words
from harness.store import Store

_LEAST_MEMORY = 128  # MiB
_PORTS = 65535

ACCELERATOR = Option(
    "accelerator",
    "what QEMU runs guests with (default: what is fastest here; `doctor` shows the figures)",
    choices=tuple(each.value for each in Accelerator),
)
#: Of commands whose guests are to find files there.
PUT = Option(
    "put",
    f"put a file or folder of this host into the guest, at PATH or in {PLACE} (repeatable)",
    "FILE[:PATH]",
    Put.parse,
    repeated=True,
)
OPTIONS = (
    Option("image", "base image in the store (default: the one imported last)", "NAME"),
    Option(
        "kernel",
        f"kernel in the store (default: the one imported last; '{INSTALLED}': the image's own, by its own loader)",
        "NAME",
    ),
    Option("control", "use the Linux control guest: CONTROL, NOT DRAGONFLY", flag=True),
    Option("kenv", "set a variable in the kernel's environment (repeatable)", "NAME=VALUE", repeated=True),
    Option("memory", "memory of the machine (default: 512)", "MiB", int, 512),
    Option("cpus", "CPUs of the machine (default: 1)", "N", int, 1),
    ACCELERATOR,
    Option("boot", "resume from this one of the target's boots, each saved by itself (default: 0)", "N", int, 0),
    Option("ssh-port", "port on 127.0.0.1 for SSH (default: any free one)", "PORT", int, 0),
)


@dataclass(frozen=True)
class TargetOptions:
    """What a user said about the target; None and 0 stand for no word."""

    image: str | None = None
    kernel: str | None = None
    control: bool = False
    kenv: Mapping[str, str] = field(default_factory=dict)
    memory: int = 512
    cpus: int = 1
    ssh_port: int = 0
    accelerator: Accelerator | None = None
    boot: int = 0

    def __post_init__(self) -> None:
        if self.memory < _LEAST_MEMORY or self.cpus < 1:
            raise UsageError(f"a machine needs at least {_LEAST_MEMORY} MiB and one CPU")
        if self.boot < 0:
            raise UsageError("--boot counts from 0")
        if not 0 <= self.ssh_port <= _PORTS:
            raise UsageError(f"{self.ssh_port} is no port number")

    @staticmethod
    def declare(add: Callable[..., object], prefix: str = "") -> None:
        """Declare the options: ADD is ArgumentParser.add_argument, or an option group's addoption in pytest."""
        declare(OPTIONS, add, prefix)

    @classmethod
    def read(cls, namespace: object, prefix: str = "") -> Self:
        """Return what a parser left in NAMESPACE; raises UsageError for what cannot be."""
        given = read(OPTIONS, namespace, prefix)
        environment = {}
        for setting in given["kenv"]:
            name, equals, value = setting.partition("=")
            if not (name and equals):
                raise UsageError(f"--kenv {setting!r}: write NAME=VALUE")
            environment[name] = value
        return cls(**{**given, "kenv": environment, "accelerator": chosen_accelerator(given["accelerator"])})

    def words(self, prefix: str = "") -> list[str]:
        """Return the command line that says the same."""
        settings = [f"{name}={value}" for name, value in self.kenv.items()]
        return words(OPTIONS, {**self.to_json(), "kenv": settings}, prefix)

    def decided(self, store: Store) -> Self:
        """Return them with the accelerator decided, for a command whose runs are all to have the same.

        Raises what choose_accelerator() raises.
        """
        if self.accelerator is not None:
            return self
        return replace(self, accelerator=choose_accelerator(store).accelerator)

    @property
    def choice(self) -> TargetChoice:
        """What they say about image and kernel."""
        return TargetChoice(self.image, self.kernel, self.control, self.kenv)

    @property
    def size(self) -> MachineSize:
        """What they say about the machine."""
        return MachineSize(self.memory, self.cpus, self.ssh_port, self.accelerator, self.boot)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, for a run's record."""
        accelerator = self.accelerator.value if self.accelerator is not None else None
        return {**vars(self), "kenv": dict(self.kenv), "accelerator": accelerator}


def chosen_accelerator(word: str | None) -> Accelerator | None:
    """Return the accelerator that is called WORD; None where no word was said."""
    return Accelerator(word) if word is not None else None

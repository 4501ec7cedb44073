# SPDX-License-Identifier: BSD-2-Clause
"""The Linux control guest: proves the harness, never DragonFly."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.guests.guest import Guest, MachineSize, Target
from harness.guests.ssh import SshAccess
from harness.images.control import ControlImage
from harness.machine.description import Accelerator, LinuxStyleBoot, MachineDescription

BANNER = "CONTROL, NOT DRAGONFLY"


@dataclass(frozen=True)
class ControlTarget(Target):
    """Linux from the host's package archive, in RAM only."""

    image: ControlImage

    abi = "linux"
    is_dragonfly = False
    started = "control guest ready"
    panic = re.compile(r"^(?:\[ *\d+\.\d+\] )?Kernel panic - not syncing: [^\n]*(?=\n)", re.MULTILINE)

    @property
    def label(self) -> str:
        """The banner and the Linux version."""
        return f"{BANNER}: Linux {self.image.kernel_version}"

    @property
    def key(self) -> str:
        """Digest of the parts, the keys among them."""
        return self.image.digest

    def machine(self, size: MachineSize, accelerator: Accelerator) -> MachineDescription:
        """Return a machine without disks."""
        return MachineDescription(
            memory=size.memory,
            cpus=size.cpus,
            accelerator=accelerator,
            model="pc",
            cpu="qemu64,+rdrand",
            boot=LinuxStyleBoot(self.image.kernel, self.image.initrd, self.image.append),
            ssh_port=size.ssh_port,
        )

    def access(self) -> SshAccess:
        """Return the access made with the image."""
        return SshAccess("root", self.image.ssh_key, self.image.host_key_public)

    def verify(self, guest: Guest) -> str:
        """Compare `uname -r` with the package's kernel."""
        running = guest.ssh.run("uname -r").output.strip()
        if running != self.image.kernel_version:
            raise HarnessError(f"another kernel is running: {running!r}, asked for {self.image.kernel_version!r}")
        return f"{BANNER}: Linux {running}"

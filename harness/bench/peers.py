# SPDX-License-Identifier: BSD-2-Clause
"""Another harness for kernels on the same host, to measure this one against."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.guests.guest import MachineSize
from harness.machine.description import Accelerator
from harness.tether import run_tethered

PEER = "virtme-ng"
_PROGRAM = "vng"
_DEADLINE = 180.0  # s
_SAID = "a command ran in the peer's guest"


@dataclass(frozen=True)
class VirtmeNg:
    """virtme-ng, which gives each command a machine of its own that boots KERNEL of this host."""

    kernel: Path

    @classmethod
    def found(cls) -> VirtmeNg:
        """Return it as it is installed here; raises UsageError, with what to install, when it could boot nothing.

        Its guest's root is the host's own file system over 9p, so the kernel must have that: Debian's for cloud
        machines, which the control guest boots, has not.
        """
        if shutil.which(_PROGRAM) is None:
            raise UsageError(f"{PEER} is not installed: pip install virtme-ng")
        for modules in sorted(Path("/lib/modules").glob("*/kernel/fs/9p"), reverse=True):
            kernel = Path("/boot") / f"vmlinuz-{modules.parents[2].name}"
            if kernel.is_file():
                return cls(kernel)
        raise UsageError(f"{PEER} needs a kernel of this host with 9p: apt-get install linux-image-amd64")

    def run_a_command(self, size: MachineSize, accelerator: Accelerator) -> float:
        """Boot, run a command that says a line, and end; return the seconds that took.

        Raises HarnessError when the command did not run, or not within 180 s.
        """
        argv = [_PROGRAM, "--run", str(self.kernel), "--memory", f"{size.memory}M", "--cpus", str(size.cpus)]
        argv += [] if accelerator is Accelerator.KVM else ["--disable-kvm"]
        started = time.perf_counter()
        done = run_tethered(
            [*argv, "--", "echo", _SAID], deadline=_DEADLINE, awaited=f"{PEER} to run a command", is_ours=False
        )
        seconds = time.perf_counter() - started
        if _SAID not in done.stdout:
            said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            raise HarnessError(f"{PEER} did not run the command: {said or f'status {done.returncode}'}")
        return seconds

# SPDX-License-Identifier: BSD-2-Clause
"""Booting ahead of the clock: most of a boot is waiting, which an emulated machine can skip."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from harness.errors import GuestLostError
from harness.guests.console import Console
from harness.guests.hang import answers_ssh
from harness.machine.clock import carry_clock_over
from harness.machine.description import AHEAD_SHIFT, Lane, MachineDescription
from harness.machine.qemu import Machine, MachineState
from harness.store import Store

# CPU time of QEMU, in seconds.  A boot takes 3; a guest that hangs, idle or not, uses it up, whatever the host's load.
_BUDGET = 15.0
# From here on it is asked whether SSH answers, should no login prompt come on the console.
_PATIENCE = 7.0
_SSH_DEADLINE = 2.0
_POLL = 0.2


def boot_ahead(
    description: MachineDescription, store: Store, folder: Path, started: str, panic: re.Pattern[str]
) -> tuple[MachineState, Console]:
    """Boot the machine of DESCRIPTION ahead of the clock, and save it into FOLDER when its services have been started.

    STARTED matches what the console says then, PANIC a dying kernel's words.  The state can be resumed at the pace of
    the clock.  Its own is ahead of the host's by what was skipped.  Raises GuestLostError when it does not get there.
    """
    with Machine(replace(description, lane=Lane.AHEAD, ssh_port=0), store) as machine:
        machine.start()
        console = Console(machine.serial[0], folder / "console.log")
        while not re.search(started, said := console.text()):
            machine.check()
            if panic.search(said):
                raise GuestLostError("its kernel died")
            used = machine.cpu_seconds
            if used > _PATIENCE and answers_ssh(machine.host_port(22), _SSH_DEADLINE):
                break
            if used > _BUDGET:
                raise GuestLostError(f"it was not there after {used:.0f} s of computing")
            console.await_more(len(said), _POLL)
        state = machine.save(folder)
    carry_clock_over(state.ram, AHEAD_SHIFT)
    console.join()
    return state, console

# SPDX-License-Identifier: BSD-2-Clause
"""What a further machine takes of the host's memory: mapping one template with the others, and with all for itself."""

from __future__ import annotations

import contextlib
from pathlib import Path

from harness.errors import HarnessError
from harness.machine.qemu import Machine, MachineState
from harness.processes.session import Session, Warmth
from harness.store import Store


class MemoryUnknownError(HarnessError):
    """The host does not tell what its processes share."""


#: Machines side by side, of which the first is not counted.
MACHINES = 4


def proportional(machine: Machine) -> float:
    """Return the MiB that MACHINE's QEMU takes, what it shares with others divided among them.

    Raises MemoryUnknownError where the host does not tell (Linux: proc(5), smaps_rollup).
    """
    try:
        lines = Path(f"/proc/{machine.pid}/smaps_rollup").read_text().splitlines()
    except OSError as error:
        raise MemoryUnknownError("this host does not tell how much memory processes share") from error
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def further_machine(warmth: Warmth, state: MachineState | None = None) -> float:
    """Return the MiB that each further machine takes once it has answered a call, when several go on from one state.

    They go on from that of WARMTH, or from STATE, which is not connected to: its machines just run.
    """
    with contextlib.ExitStack() as stack:
        machines: list[Machine] = []
        for _ in range(MACHINES):
            if state is None:
                session = stack.enter_context(Session.resume(warmth))
                session.hub.spawn().getpid()
                machines.append(session.guest.machine)
            else:
                guest = stack.enter_context(warmth.guest())
                guest.resume(state, "")
                machines.append(guest.machine)
        return sum(map(proportional, machines[1:])) / (MACHINES - 1)


def not_sharing(warmth: Warmth, store: Store) -> float:
    """Return the same for machines that read their memory from a stream, each its own."""
    with store.scratch("bench") as folder:
        with Session.resume(warmth) as session:
            session.hub.spawn().getpid()
            state = session.guest.machine.save(folder)
        return further_machine(warmth, state)

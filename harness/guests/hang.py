# SPDX-License-Identifier: BSD-2-Clause
"""A guest that does not answer: is it really so, and what is its kernel doing meanwhile."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence

from harness.errors import HarnessError
from harness.guests.console import Console
from harness.guests.ddb import Frame
from harness.guests.processors import Processor, describe, processors
from harness.machine.debuginfo import FunctionTable
from harness.machine.qemu import Machine

PROBE_DEADLINE = 8.0
_CONSOLE_DEADLINE = 2.0
# One look in twenty, more on a busy host, falls into a clock interrupt: so many that half of them never do.
_SAMPLES, _BETWEEN = 21, 0.05
_SHOWN = 7


def answers_ssh(port: int, deadline: float = PROBE_DEADLINE) -> bool:
    """Tell whether a server behind 127.0.0.1:PORT introduces itself within DEADLINE seconds.

    QEMU accepts the connection in any case; the greeting takes a kernel that schedules, forks and sends.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=deadline) as line:
            return bool(line.recv(4))
    except OSError:
        return False


def answers_console(console: Console, deadline: float = _CONSOLE_DEADLINE) -> bool:
    """Press Enter on CONSOLE and tell whether anything comes back within DEADLINE seconds."""
    said = console.position
    try:
        console.send("\r")
    except HarnessError:
        return False
    return console.await_more(said, deadline) and not console.closed


def observe(
    machine: Machine, functions: FunctionTable | None, clock: Callable[[], int] | None
) -> tuple[str, tuple[Frame, ...], list[tuple[str, str]]]:
    """Watch a machine that does not answer for a moment.

    Return one line on its kernel, the frames most looks at its busiest CPU agree on, and titled texts.  CLOCK reads
    the kernel's tick counter; without one the CPUs' own movement has to do.  Leaves the machine running.
    """
    status = str(machine.monitor.execute("query-status").get("status"))
    if status != "running":
        return f"the machine itself stands still (QEMU: {status})", (), []
    before = clock() if clock is not None else 0
    samples: list[list[Processor]] = []
    for _ in range(_SAMPLES):
        machine.pause()
        try:
            samples.append(processors(machine, functions))
        finally:
            machine.resume()
        time.sleep(_BETWEEN)  # nothing to wait for: it is the guest's own time that must pass between two looks
    if clock is not None:
        passed = clock() - before
        kernel = f"its kernel still ticks ({passed} ticks)" if passed else "its kernel's clock stands still"
    elif any(cpu.halted for cpus in samples for cpu in cpus):
        kernel = "its CPUs idle"
    else:
        moves = len({cpu.address for cpus in samples for cpu in cpus}) > len(samples[0])
        kernel = "its CPUs are busy" if moves else "its CPUs do not move"
    chains: dict[int, list[tuple[Frame, ...]]] = {}
    for cpu in (cpu for cpus in samples for cpu in cpus if cpu.frames and not cpu.halted):
        chains.setdefault(cpu.number, []).append(cpu.frames)
    frames = steady_part(max(chains.values(), key=len, default=[]))
    shown = enumerate(samples[:_SHOWN], 1)
    texts = [(f"CPUs, look {number} of {_SAMPLES}", describe(cpus)) for number, cpus in shown]
    return kernel, frames, texts


def steady_part(looks: Sequence[tuple[Frame, ...]]) -> tuple[Frame, ...]:
    """Return the call chain, innermost first, that more than half of LOOKS at one CPU share from the outermost on.

    A single look may fall into a clock interrupt, or into a function that the one going round calls.
    """
    steady: tuple[Frame, ...] = ()
    while True:
        depth = len(steady) + 1
        deeper = [chain[-depth:] for chain in looks if len(chain) >= depth]
        named = Counter(tuple(frame.function for frame in chain) for chain in deeper)
        functions, count = named.most_common(1)[0] if named else ((), 0)
        if 2 * count <= len(looks):
            return steady
        steady = next(chain for chain in deeper if tuple(frame.function for frame in chain) == functions)

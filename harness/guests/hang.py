# SPDX-License-Identifier: BSD-2-Clause
"""A guest that does not answer: is it really so, and what is its kernel doing meanwhile."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from harness.errors import HarnessError
from harness.guests.console import Console
from harness.guests.ddb import Frame
from harness.guests.processors import Processor, describe, processors
from harness.machine.debuginfo import FunctionTable
from harness.machine.qemu import Machine

#: How long a guest may take to answer, in seconds: of its CPU time if it computes, of the host's if it idles.
PROBE_DEADLINE = 8.0
#: How long one is waited for, in seconds, that a busy host does not let compute.
PATIENCE = 60.0
_SLICE = 0.5
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


class Trial:
    """Whether MACHINE has had the time to answer, SECONDS: if its CPUs are busy it is CPU time that it must have got.

    On a busy host a guest that is well may get next to none, and one that cannot be told from it is given up after
    PATIENCE seconds.  One that idles has nothing to do, whatever the host does.
    """

    def __init__(self, machine: Machine, seconds: float = PROBE_DEADLINE, patience: float = PATIENCE) -> None:
        self._machine = machine
        self._seconds = seconds
        self._patience = max(patience, seconds)
        self._began = time.monotonic()
        self._used = machine.cpu_seconds
        self._looks: list[bool] = []
        #: Whether the guest turned the last connection down: its kernel answers, but nobody listens there any more.
        self.refused = False

    @property
    def passed(self) -> float:
        """Seconds of the host's clock since it began."""
        return time.monotonic() - self._began

    @property
    def computed(self) -> float:
        """Seconds of CPU time that the machine got since it began; raises GuestLostError if it has gone."""
        return self._machine.cpu_seconds - self._used

    @property
    def was_fair(self) -> bool:
        """Whether a machine that is well would have answered by now."""
        idle = 2 * sum(self._looks) > len(self._looks)
        return self.passed >= self._seconds and (idle or self.computed >= self._seconds)

    @property
    def is_over(self) -> bool:
        """Whether there is no point in waiting longer."""
        return self.was_fair or self.passed >= self._patience

    def await_ssh(self, port: int) -> bool:
        """Tell whether a server behind 127.0.0.1:PORT introduces itself before the trial is over."""
        while not self.is_over:
            self.refused = False
            with (
                contextlib.suppress(TimeoutError),
                self._noting_refusal(),
                socket.create_connection(("127.0.0.1", port), timeout=_SLICE) as line,
            ):
                while not select.select([line], [], [], _SLICE)[0]:
                    self._look()
                    if self.is_over:
                        return False
                if line.recv(4):
                    return True
                self.refused = True  # QEMU had accepted it before it asked the guest
            self._look()
            time.sleep(_SLICE)  # the connection was cut, and nothing tells when the next one will not be
        return False

    @contextlib.contextmanager
    def _noting_refusal(self) -> Iterator[None]:
        try:
            yield
        except ConnectionResetError:
            self.refused = True
        except ConnectionError:  # QEMU's own
            pass

    def _look(self) -> None:
        if not self._machine.runs:
            self._looks.append(True)
            return
        self._machine.pause()
        try:
            self._looks.append(all(cpu.halted for cpu in processors(self._machine, None)))
        finally:
            self._machine.resume()


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
    if not machine.runs:
        status = machine.monitor.execute("query-status").get("status")
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

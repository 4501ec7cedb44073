# SPDX-License-Identifier: BSD-2-Clause
"""System calls about time, limits and memory."""

from __future__ import annotations

import struct

from harness.processes.calls import (
    TIMESPEC,
    Caller,
    Result,
    system_call,
    timespec,
)
from harness.processes.connection import Call
from harness.processes.vocabulary import (
    Clock,
    GuestError,
    Resource,
)
from harness.processes.wire import (
    Answer,
    Buffer,
    Operation,
)


def _resource_text(resource: Resource | int) -> str:
    return str(resource) if isinstance(resource, int) else resource.name


class TimeCalls(Caller):
    """Part of SystemCalls."""

    @system_call
    def nanosleep(self, seconds: float) -> Call[None]:
        """Sleep; EINTR if a handler runs meanwhile."""
        text = f"nanosleep({seconds} s)"
        return self._describe("nanosleep", (Buffer(timespec(seconds)), 0), text, lambda _: None, timeout=seconds + 30)

    @system_call
    def clock_nanosleep(self, seconds: float, clock: Clock | int, *, absolute: bool = False) -> Call[None]:
        """Sleep by CLOCK for, or if ABSOLUTE until, SECONDS (DragonFly since January 2021).

        What the call returns is an errno (kern_time.c: sys_clock_nanosleep), raised as GuestError as ever.
        """
        number = self._abi.clock_number(clock)
        name = clock if isinstance(clock, int) else clock.name
        text = f"clock_nanosleep({name}, {'until' if absolute else 'for'} {seconds} s)"

        def convert(result: Result) -> None:
            if result.value:
                raise GuestError(text, self._abi.errno_name(result.value), result.value)

        # How long a sleep until a moment takes is not known here.
        limit = None if absolute else seconds + 30
        arguments = (number, int(absolute), Buffer(timespec(seconds)), 0)
        return self._describe("clock_nanosleep", arguments, text, convert, timeout=limit)

    @system_call
    def clock_gettime(self, clock: Clock | int = Clock.CLOCK_MONOTONIC) -> Call[float]:
        """Return a clock's time in seconds."""
        time = Buffer(bytes(16), wanted=True)

        def convert(result: Result) -> float:
            seconds, nanoseconds = TIMESPEC.unpack(result.memory(time))
            return float(seconds + nanoseconds / 1e9)

        name = clock if isinstance(clock, int) else clock.name
        return self._describe("clock_gettime", (self._abi.clock_number(clock), time), f"clock_gettime({name})", convert)

    @system_call
    def getrlimit(self, resource: Resource | int) -> Call[tuple[int, int]]:
        """Return a resource's soft and hard limit."""
        limits = Buffer(bytes(16), wanted=True)

        def convert(result: Result) -> tuple[int, int]:
            soft, hard = struct.unpack("<QQ", result.memory(limits))
            return soft, hard

        text = f"getrlimit({_resource_text(resource)})"
        return self._describe("getrlimit", (self._abi.resource_number(resource), limits), text, convert)

    @system_call
    def setrlimit(self, resource: Resource | int, soft: int, hard: int | None = None) -> Call[None]:
        """Set a resource's limits; the hard limit becomes SOFT, too, unless given."""
        limits = Buffer(struct.pack("<QQ", soft, soft if hard is None else hard))
        text = f"setrlimit({_resource_text(resource)}, {soft}, {hard})"
        return self._void("setrlimit", self._abi.resource_number(resource), limits, text=text)

    @system_call
    def touch_memory(self, size: int) -> Call[int]:
        """Map SIZE bytes and write to each page; return the address.  The memory stays until the process ends."""
        text = f"touch_memory({size})"

        def decode(answer: Answer) -> int:
            if answer.error:
                raise GuestError(text, self._abi.errno_name(answer.error), answer.error)
            return answer.value

        return Call(text, Operation.TOUCH, struct.pack("<Q", size), decode)

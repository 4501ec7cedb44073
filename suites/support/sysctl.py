# SPDX-License-Identifier: BSD-2-Clause
"""Numbers of the kern.proc nodes, and what a failed sysctl(2) leaves behind."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from harness.errors import DeadlineError
from harness.processes import GuestError, Pending, RemoteProcess, Repeat, length_is
from harness.processes.memory import OwnMemory
from harness.processes.wire import Buffer

T = TypeVar("T")
U = TypeVar("U")

CTL_KERN, KERN_PROC = 1, 14  # sys/sysctl.h
ALL, PID, PGRP, SESSION, TTY, UID, RUID, ARGS, CWD, PATHNAME = range(10)
LWP, LWKT = 0x10, 0x20  # KERN_PROC_FLAG_LWP, KERN_PROC_FLAG_LWKT

_UNTOUCHED = 0xA5
_STEADY_DEADLINE = 30.0  # s


def proc_mib(*rest: int) -> tuple[int, ...]:
    """Return the mib of a kern.proc node: proc_mib(PID, 123)."""
    return (CTL_KERN, KERN_PROC, *rest)


def oid(process: RemoteProcess, name: str) -> tuple[int, ...]:
    """Return the mib of a sysctl name.  Raises GuestError ENOENT for an unknown one."""
    data, _ = process.sysctl.raw((0, 3), 96, name.encode())  # kern_sysctl.c: sysctl_sysctl_name2oid()
    return struct.unpack(f"<{len(data) // 4}i", data)


@dataclass(frozen=True)
class Attempt:
    """What a read left behind: errno name, the length it returned, the buffer, and whether all beyond it is intact."""

    error: str | None
    length: int
    content: bytes
    kept_within: bool

    @property
    def untouched(self) -> int:
        """Bytes at the end of the buffer that nothing was copied to."""
        return len(self.content) - len(self.content.rstrip(bytes([_UNTOUCHED])))


def attempt(process: RemoteProcess, mib: Sequence[int], room: int) -> Attempt:
    """Read MIB into a buffer of ROOM bytes and look at the memory, be the call successful or not."""
    memory = OwnMemory(process)
    guard = 64
    length_at = process.touch_memory(room + 8192)
    buffer_at = length_at + 64
    memory.write(length_at, struct.pack("<Q", room))
    memory.write(buffer_at, bytes([_UNTOUCHED]) * (room + guard))
    error = None
    try:
        name = struct.pack(f"<{len(mib)}i", *mib)
        process.syscall("__sysctl", name, len(mib), buffer_at, length_at, 0, 0)
    except GuestError as failure:
        error = failure.name
    content = memory.read(buffer_at, room + guard)
    return Attempt(error, memory.word(length_at, 8), content[:room], content[room:] == bytes([_UNTOUCHED]) * guard)


def steady(observe: Callable[[], T], act: Callable[[T], U]) -> tuple[T, U]:
    """Return what OBSERVE and then ACT returned, once OBSERVE returns the same before and after.

    Processes of earlier tests may still be on their way out.  Raises DeadlineError when that does not end.
    """
    end = time.monotonic() + _STEADY_DEADLINE
    while time.monotonic() < end:
        observed = observe()
        result = act(observed)
        if observe() == observed:
            return observed, result
    raise DeadlineError("two observations with one thing done in between to agree", _STEADY_DEADLINE)


@contextmanager
def setting(process: RemoteProcess, name: str, value: int) -> Iterator[None]:
    """Let an integer variable have VALUE inside the block."""
    before = process.sysctl.read(name, 8)
    process.sysctl.write(name, value.to_bytes(len(before), "little", signed=value < 0))
    try:
        yield
    finally:
        process.sysctl.write(name, before)


def poll(reader: RemoteProcess, mib: tuple[int, ...], seconds: float) -> Pending[Repeat]:
    """Let READER read MIB over and over until it is empty, or for SECONDS."""
    room = 1 << 18
    length = Buffer(struct.pack("<Q", room))
    name = struct.pack(f"<{len(mib)}i", *mib)
    return reader.start.repeat_until(
        length_is(0), "__sysctl", name, len(mib), Buffer(size=room), length, 0, 0, seconds=seconds, length_in=length
    )

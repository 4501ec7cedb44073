# SPDX-License-Identifier: BSD-2-Clause
"""A DragonFly kernel as the hub sees it, played in this process: exact sysctl and system call answers, no machine.

It speaks the executor's protocol (wire.py) from the guest's side.  Scripts decide what each call does.
"""

from __future__ import annotations

import queue
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.processes import Hub
from harness.processes.abi_dragonfly import DRAGONFLY
from harness.processes.wire import (
    _ANSWER,
    _CALL,
    _EVENT,
    _RANGE,
    _RELOCATION,
    _REQUEST,
    CONTROL_ID,
    HUB_ID,
    EventKind,
    FrameDecoder,
    LengthSource,
    Note,
    Operation,
    encode_frames,
)

HUB_PID = 700
_BRANCH_PREFIX = struct.Struct("<II")  # number of the call, id of the child
_ERRNOS = {name: number for number, name in DRAGONFLY.errnos.items()}
_NAMES = {number: name for name, number in DRAGONFLY.numbers.items()}


class Fails(Exception):  # noqa: N818 (what a scripted call does, not an error of the script)
    """Raised by a scripted call that fails with errno NAME."""


@dataclass
class Asked:
    """One system call as it arrives: who makes it, its arguments, and the memory they point into."""

    pid: int
    name: str
    arguments: list[int]
    memory: bytearray

    def bytes_at(self, at: int, size: int) -> bytes:
        """Return SIZE bytes of memory."""
        return bytes(self.memory[at : at + size])

    def put(self, at: int, data: bytes) -> None:
        """Write DATA into memory."""
        self.memory[at : at + len(data)] = data


Script = Callable[[Asked], int]


@dataclass
class ScriptedKernel:
    """Plays hub and kernel.  `variables` are sysctls by mib, `names` their names, `calls` system calls by name.

    A system call that is not scripted does not exist (ENOSYS), a variable neither (ENOENT).  A variable may be bytes,
    or a function of the caller's pid.  `asked` are the calls made so far, by name.  Who has exited is gone at once:
    kern.proc.all is empty unless scripted.
    """

    variables: dict[tuple[int, ...], bytes | Callable[[int], bytes]] = field(default_factory=dict)
    names: dict[str, tuple[int, ...]] = field(default_factory=dict)
    calls: Mapping[str, Script] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._out: queue.Queue[bytes] = queue.Queue()
        self._frames = FrameDecoder()
        self._streams: dict[int, bytearray] = {}
        self._pids = {HUB_ID: HUB_PID}
        self._next = HUB_PID + 1
        self._out.put(self._event(EventKind.READY, 0, HUB_PID))

    def hub(self) -> Hub:
        """Return a hub that is connected to this kernel."""
        return Hub(self, DRAGONFLY)

    # The transport

    def read(self, size: int) -> bytes:
        """Return what the guest says next."""
        del size
        return self._out.get()

    def write(self, data: bytes) -> None:
        """Take what the host says."""
        for process, content in self._frames.feed(data):
            if process != CONTROL_ID:
                self._serve(process, content)

    def close(self) -> None:
        """Hang up."""
        self._out.put(b"")

    # The guest

    @staticmethod
    def _event(kind: EventKind, id_: int, pid: int) -> bytes:
        return encode_frames(CONTROL_ID, _EVENT.pack(kind, id_, pid, 1))

    def _serve(self, process: int, content: bytes) -> None:
        stream = self._streams.setdefault(process, bytearray())
        stream += content
        while len(stream) >= _REQUEST.size:
            length, sequence, operation = _REQUEST.unpack_from(stream)
            end = _REQUEST.size + length
            if len(stream) < end:
                return
            payload = bytes(stream[_REQUEST.size : end])
            del stream[:end]
            self._perform(process, sequence, Operation(operation), payload)

    def _perform(self, process: int, sequence: int, operation: Operation, payload: bytes) -> None:
        if operation is Operation.BRANCH:
            _, child = _BRANCH_PREFIX.unpack_from(payload)
            self._pids[child] = self._next
            self._next += 1
            self._answer(process, sequence, self._pids[child], b"")
            self._out.put(self._event(EventKind.HELLO, child, self._pids[child]))
            return
        if operation is Operation.LEAVE:
            del self._pids[process]
            self._out.put(self._event(EventKind.GONE, process, 0))
            return
        assert operation is Operation.SYSCALL, operation
        asked, ranges = self._decode(process, payload)
        self.asked.append(asked.name)
        try:
            value = self._call(asked)
        except Fails as failure:
            note = Note.NOSYS if str(failure) == "ENOSYS" else Note.NONE
            self._answer(process, sequence, -1, _outputs(asked, ranges, -1), _ERRNOS[str(failure)], note)
        else:
            self._answer(process, sequence, value, _outputs(asked, ranges, value))

    def _answer(
        self, process: int, sequence: int, value: int, data: bytes, error: int = 0, note: Note = Note.NONE
    ) -> None:
        length = _ANSWER.size - 8 + len(data)
        head = _ANSWER.pack(length, sequence, error, note, value, 0, 0, 0)
        self._out.put(encode_frames(process, head + data))

    def _decode(self, process: int, payload: bytes) -> tuple[Asked, list[tuple[int, int, int, int]]]:
        *values, number, _pointers, relocations, ranges, arena_at, given, size, _ = _CALL.unpack_from(payload)
        memory = bytearray(size)
        memory[:given] = payload[arena_at : arena_at + given]
        at = _CALL.size
        for index in range(relocations):
            place, target = _RELOCATION.unpack_from(payload, at + index * _RELOCATION.size)
            struct.pack_into("<Q", memory, place, target)
        at += relocations * _RELOCATION.size
        wanted = [_RANGE.unpack_from(payload, at + index * _RANGE.size) for index in range(ranges)]
        name = _NAMES.get(number, str(number))
        return Asked(self._pids[process], name, values, memory), wanted

    def _call(self, asked: Asked) -> int:
        if asked.name == "__sysctl" and asked.name not in self.calls:
            return self._sysctl(asked)
        script = self.calls.get(asked.name)
        if script is None:
            raise Fails("ENOSYS")
        return script(asked)

    def _sysctl(self, asked: Asked) -> int:
        mib_at, count, old_at, length_at, new_at, new_length = asked.arguments[:6]
        mib = struct.unpack(f"<{count}i", asked.bytes_at(mib_at, 4 * count))
        if mib == (0, 3):
            name = asked.bytes_at(new_at, new_length).decode()
            if name not in self.names:
                raise Fails("ENOENT")
            value = struct.pack(f"<{len(self.names[name])}i", *self.names[name])
        elif mib == (1, 14, 0) and mib not in self.variables:
            value = b""
        elif mib in self.variables:
            found = self.variables[mib]
            value = found if isinstance(found, bytes) else found(asked.pid)
        else:
            raise Fails("ENOENT")
        (room,) = struct.unpack_from("<Q", asked.memory, length_at)
        struct.pack_into("<Q", asked.memory, length_at, len(value) if not room else min(room, len(value)))
        asked.put(old_at, value[:room])
        if room and room < len(value):
            raise Fails("ENOMEM")
        return 0


def _outputs(asked: Asked, ranges: list[tuple[int, int, int, int]], value: int) -> bytes:
    said = b""
    for at, size, kind, source in ranges:
        length = size
        if kind == LengthSource.VALUE:
            length = max(value, 0)
        elif kind == LengthSource.U64:
            (length,) = struct.unpack_from("<Q", asked.memory, source)
        data = asked.bytes_at(at, min(length, size))
        said += struct.pack("<I", len(data)) + data
    return said

# SPDX-License-Identifier: BSD-2-Clause
"""What travels between host and executor, as bytes.  Pure functions and incremental decoders; no input or output.

Three layers: frames (`length, process id, bytes`) carry each process's stream through the hub; requests and answers
make up that stream; a system call's request describes its arguments and the memory they point to.
executor/executor.h says the same in C.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

CONTROL_ID = 0xFFFFFFFF
HUB_ID = 0
FIRST_ID = 1  # of the process that a hub which waited for its host has made already
CHUNK = 32768  # most bytes in one frame
ARENA_LIMIT = 8 << 20  # bytes of memory one call may use
SAVED_LIMIT = 8192  # bytes that a call which is repeated gives (executor.h: SAVED)
SPAWN_LIMIT = 40_000  # children of one spawn_many(): their pids must fit into the executor's memory (bulk.c)
STORM_LIMIT = 1 << 24  # children of one storm(), all of whose records are kept in the guest's memory (bulk.c)
PAYLOAD_LIMIT = 128 << 10  # bytes of one request; the executor has somewhat more room

_FRAME = struct.Struct("<II")
_EVENT = struct.Struct("<IIii")
_ORDER = struct.Struct("<II")
_REQUEST = struct.Struct("<III")
_ANSWER = struct.Struct("<IIiIqqQQ")
_CALL = struct.Struct("<8Q8I")
_RELOCATION = struct.Struct("<II")
_RANGE = struct.Struct("<IIII")
_LENGTH = struct.Struct("<I")


class WireError(ValueError):
    """Bytes that no executor of ours can have sent."""


class EventKind(IntEnum):
    """What the hub tells of its own accord."""

    READY = 1
    HELLO = 2
    GONE = 3


class OrderKind(IntEnum):
    """What the hub is told apart from requests.

    CLOSE names a process whose stream ends.  AWAIT carries, modulo 2**32, how many frames the host has had: it has
    nothing to think about until there are more.  FREE ends what the first AWAIT began.
    """

    CLOSE = 1
    AWAIT = 2
    FREE = 3


class Operation(IntEnum):
    """What a driven process can be asked to do."""

    SYSCALL = 1
    BRANCH = 2
    SIGACTION = 3
    SIGNALS = 4
    THREAD = 5
    LEAVE = 6
    TOUCH = 7
    REEXEC = 8
    STORM = 9
    SPAWN_MANY = 10
    REPEAT = 11


class Predicate(IntEnum):
    """What the outcome of a repeated call is compared with (executor.h: enum predicate)."""

    VALUE_IS = 0
    VALUE_IS_NOT = 1
    ERROR_IS = 2
    ERROR_IS_NOT = 3
    LENGTH_IS = 4
    LENGTH_IS_NOT = 5


class Note(IntEnum):
    """Where an answer's error comes from."""

    NONE = 0
    CHANNEL = 1
    NOSYS = 2


class BranchFlag(IntFlag):
    """How a new process relates to its parent."""

    SHARES_MEMORY = 1
    SHARES_FILES = 2
    NO_FILES = 4
    PRISTINE = 8
    WAITS = 16


@dataclass(frozen=True)
class Event:
    """A control event; pid and tid are those of a process that says hello."""

    kind: EventKind
    id: int
    pid: int
    tid: int


@dataclass(frozen=True)
class Answer:
    """Answer to a request: value and second value, errno, CLOCK_MONOTONIC in ns before and after, and data."""

    sequence: int
    error: int
    note: Note
    value: int
    second: int
    before: int
    after: int
    data: bytes

    @property
    def value32(self) -> int:
        """The value as the C int that most calls return."""
        return (self.value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def encode_frames(process: int, data: bytes) -> bytes:
    """Cut DATA into frames for PROCESS."""
    return b"".join(
        _FRAME.pack(len(part), process) + part for part in (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))
    )


def encode_order(kind: OrderKind, value: int) -> bytes:
    """Encode an order to the hub, frame included; VALUE is a process id or a number of frames."""
    return encode_frames(CONTROL_ID, _ORDER.pack(kind, value & 0xFFFFFFFF))


def encode_request(sequence: int, operation: Operation, payload: bytes) -> bytes:
    """Encode a request as it goes into a process's stream."""
    return _REQUEST.pack(len(payload), sequence, operation) + payload


def decode_event(data: bytes) -> Event:
    """Decode the content of a control frame from the hub."""
    if len(data) != _EVENT.size:
        raise WireError(f"an event of {len(data)} bytes")
    kind, process, pid, tid = _EVENT.unpack(data)
    try:
        return Event(EventKind(kind), process, pid, tid)
    except ValueError:
        raise WireError(f"an event of unknown kind {kind}") from None


class FrameDecoder:
    """Turns what arrives from the hub into (process id, bytes) pairs."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take DATA and yield what has become complete.  Raises WireError for an impossible length."""
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _FRAME.size:
                length, process = _FRAME.unpack_from(self._buffer, at)
                if length > CHUNK:
                    raise WireError(f"a frame of {length} bytes; is the other end really an executor?")
                if len(self._buffer) - at < _FRAME.size + length:
                    break
                at += _FRAME.size + length
                yield process, bytes(self._buffer[at - length : at])
        finally:
            del self._buffer[:at]


class AnswerDecoder:
    """Turns one process's stream into answers."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Answer]:
        """Take DATA and yield the answers that have become complete."""
        self._buffer += data
        while len(self._buffer) >= _ANSWER.size:
            length, sequence, error, note, value, second, before, after = _ANSWER.unpack_from(self._buffer)
            if length < _ANSWER.size - 8:
                raise WireError(f"an answer of {length} bytes")
            end = 8 + length
            if len(self._buffer) < end:
                return
            content = bytes(self._buffer[_ANSWER.size : end])
            del self._buffer[:end]
            yield Answer(sequence, error, Note(note), value, second, before, after, content)


class LengthSource(IntEnum):
    """How many bytes of a buffer the executor sends back."""

    FIXED = 0
    VALUE = 1  # as many as the call returned
    U64 = 2  # as many as another buffer says
    U32 = 3


@dataclass(eq=False)
class Buffer:
    """Memory of a call.  `data` is its first content and `size` its length in bytes (at least that of data).

    With `wanted` it is sent back: whole, or as many bytes as the call returned (`length=VALUE`), or as another buffer
    holds after the call (`length=U64, length_in=that buffer`).  `pointers` puts other buffers' addresses into it.
    """

    data: bytes = b""
    size: int = 0
    wanted: bool = False
    length: LengthSource = LengthSource.FIXED
    length_in: Buffer | None = None
    pointers: Mapping[int, Buffer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.size = max(self.size, len(self.data))


Argument = int | Buffer


def _align(number: int, to: int) -> int:
    return -(-number // to) * to


@dataclass(frozen=True)
class EncodedCall:
    """A system call ready to be sent; `wanted` are the buffers whose content comes back, in this order.

    `given` is how many bytes of memory are sent along.
    """

    payload: bytes
    wanted: tuple[Buffer, ...]
    given: int
    _offsets: Mapping[int, int]

    def offset(self, buffer: Buffer) -> int:
        """Where BUFFER lies in the arena."""
        return self._offsets[id(buffer)]


def encode_call(number: int, arguments: Sequence[Argument]) -> EncodedCall:
    """Encode a system call with up to 8 arguments.

    Buffers without content come last and are not sent: what the guest finds in them is arbitrary.  Raises ValueError
    for more than 8 arguments or more memory than the executor has.
    """
    if len(arguments) > 8:
        raise ValueError(f"{len(arguments)} arguments: a system call takes at most 8")
    buffers: dict[int, Buffer] = {}
    for argument in arguments:
        if isinstance(argument, Buffer):
            _collect(argument, buffers)
    ordered = sorted(buffers.values(), key=lambda buffer: not (buffer.data or buffer.pointers))
    offsets: dict[int, int] = {}
    given, end = 0, 0
    for buffer in ordered:
        end = _align(end, 16)
        offsets[id(buffer)] = end
        end += max(buffer.size, 1)
        if buffer.data or buffer.pointers:
            given = end
    if end > ARENA_LIMIT:
        raise ValueError(f"{end} bytes of arguments: the executor has room for {ARENA_LIMIT}")
    arena = bytearray(given)
    relocations: list[tuple[int, int]] = []
    ranges: list[tuple[int, int, int, int]] = []
    wanted = tuple(buffer for buffer in ordered if buffer.wanted)
    for buffer in ordered:
        at = offsets[id(buffer)]
        arena[at : at + len(buffer.data)] = buffer.data
        relocations += [(at + place, offsets[id(other)]) for place, other in buffer.pointers.items()]
    for buffer in wanted:
        source_at = offsets[id(buffer.length_in)] if buffer.length_in is not None else 0
        ranges.append((offsets[id(buffer)], buffer.size, buffer.length, source_at))
    values = [offsets[id(a)] if isinstance(a, Buffer) else a & 0xFFFFFFFFFFFFFFFF for a in arguments]
    pointers = sum(1 << index for index, a in enumerate(arguments) if isinstance(a, Buffer))
    tables = b"".join(
        [*(_RELOCATION.pack(*entry) for entry in relocations), *(_RANGE.pack(*entry) for entry in ranges)]
    )
    arena_at = _align(_CALL.size + len(tables), 16)
    head = _CALL.pack(
        *values, *[0] * (8 - len(values)), number, pointers, len(relocations), len(ranges), arena_at, given, end, 0
    )
    if arena_at + given > PAYLOAD_LIMIT:
        raise ValueError(f"{arena_at + given} bytes in one request: the executor takes {PAYLOAD_LIMIT}")
    return EncodedCall((head + tables).ljust(arena_at, b"\0") + bytes(arena), wanted, given, offsets)


def require_at_most(limit: int, wanted: int, what: str) -> None:
    """Raise ValueError where WANTED is negative, or more of WHAT than the executor holds."""
    if not 0 <= wanted <= limit:
        raise ValueError(f"{wanted} {what}: the executor takes 0 to {limit}")


def _collect(buffer: Buffer, into: dict[int, Buffer]) -> None:
    if id(buffer) in into:
        return
    into[id(buffer)] = buffer
    for other in buffer.pointers.values():
        _collect(other, into)
    if buffer.length_in is not None:
        _collect(buffer.length_in, into)


def decode_outputs(call: EncodedCall, data: bytes) -> dict[int, bytes]:
    """Cut an answer's data into the wanted buffers' contents, by id() of the buffer."""
    outputs: dict[int, bytes] = {}
    at = 0
    for buffer in call.wanted:
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        outputs[id(buffer)] = data[at : at + length]
        at += length
    if at != len(data):
        raise WireError(f"{len(data)} bytes of output where {at} were announced")
    return outputs

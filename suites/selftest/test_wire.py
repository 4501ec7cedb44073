# SPDX-License-Identifier: BSD-2-Clause
"""The wire format: whatever is encoded comes out again, however it was cut on the way."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.processes.wire import (
    ARENA_LIMIT,
    CHUNK,
    Answer,
    AnswerDecoder,
    Buffer,
    EventKind,
    FrameDecoder,
    LengthSource,
    Note,
    Operation,
    OrderKind,
    WireError,
    decode_event,
    decode_outputs,
    encode_call,
    encode_frames,
    encode_order,
    encode_request,
)

U32 = st.integers(0, 2**32 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
U64 = st.integers(0, 2**64 - 1)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


@settings(deadline=None)
@given(st.lists(st.tuples(U32, st.binary(min_size=1, max_size=200))), st.lists(st.integers(0)))
def test_frames_survive_any_cutting(messages: list[tuple[int, bytes]], places: list[int]) -> None:
    stream = b"".join(encode_frames(process, data) for process, data in messages)
    decoder = FrameDecoder()
    assert [frame for part in cut(stream, places) for frame in decoder.feed(part)] == messages


def test_long_data_travel_in_several_frames() -> None:
    data = bytes(range(256)) * 300
    frames = list(FrameDecoder().feed(encode_frames(7, data)))
    assert [process for process, _ in frames] == [7] * len(frames)
    assert all(len(part) <= CHUNK for _, part in frames)
    assert b"".join(part for _, part in frames) == data


def test_an_impossible_frame_is_refused() -> None:
    with pytest.raises(WireError, match="really an executor"):
        list(FrameDecoder().feed(b"Welcome to DragonFly!"))


def answer_bytes(answer: Answer) -> bytes:
    body = struct.pack("<iIqqQQ", answer.error, answer.note, answer.value, answer.second, answer.before, answer.after)
    return struct.pack("<II", len(body) + len(answer.data), answer.sequence) + body + answer.data


answers = st.builds(
    Answer,
    sequence=U32,
    error=st.integers(0, 200),
    note=st.sampled_from(Note),
    value=I64,
    second=I64,
    before=U64,
    after=U64,
    data=st.binary(max_size=100),
)


@settings(deadline=None)
@given(st.lists(answers), st.lists(st.integers(0)))
def test_answers_survive_any_cutting(sent: list[Answer], places: list[int]) -> None:
    stream = b"".join(map(answer_bytes, sent))
    decoder = AnswerDecoder()
    assert [answer for part in cut(stream, places) for answer in decoder.feed(part)] == sent


def test_an_answer_too_short_for_its_head_is_refused() -> None:
    with pytest.raises(WireError, match="an answer of 3 bytes"):
        list(AnswerDecoder().feed(struct.pack("<II", 3, 1) + bytes(60)))


@settings(deadline=None)
@given(I64)
def test_value32_is_what_a_c_program_sees(value: int) -> None:
    answer = Answer(1, 0, Note.NONE, value, 0, 0, 0, b"")
    assert answer.value32 == struct.unpack("<i", struct.pack("<q", value)[:4])[0]


def test_events() -> None:
    event = decode_event(struct.pack("<IIii", 2, 9, 1234, -1))
    assert (event.kind, event.id, event.pid, event.tid) == (EventKind.HELLO, 9, 1234, -1)
    with pytest.raises(WireError, match="unknown kind 77"):
        decode_event(struct.pack("<IIii", 77, 0, 0, 0))
    with pytest.raises(WireError, match="an event of 3 bytes"):
        decode_event(b"abc")


def test_orders_go_to_the_hub() -> None:
    assert list(FrameDecoder().feed(encode_order(OrderKind.CLOSE, 5))) == [(0xFFFFFFFF, struct.pack("<II", 1, 5))]


def test_requests_begin_with_length_sequence_and_operation() -> None:
    assert encode_request(3, Operation.TOUCH, b"payload") == struct.pack("<III", 7, 3, 7) + b"payload"


class Machine:
    """What run_call() and send_call() in driven.c do with a payload, restated over a bytearray as memory."""

    BASE = 0x10_0000

    def __init__(self, payload: bytes) -> None:
        *values, self.number, pointers, relocations, ranges, self.arena_at, self.given, self.size, _ = (
            struct.unpack_from("<8Q8I", payload)
        )
        at = 96
        self.memory = bytearray(payload[self.arena_at :])
        assert len(self.memory) == self.given
        self.memory += bytes(self.size - len(self.memory))
        for place, target in struct.iter_unpack("<II", payload[at : at + 8 * relocations]):
            struct.pack_into("<Q", self.memory, place, self.BASE + target)
        at += 8 * relocations
        self.ranges = list(struct.iter_unpack("<IIII", payload[at : at + 16 * ranges]))
        self.arguments = [v + self.BASE if pointers >> i & 1 else v for i, v in enumerate(values)]

    def at(self, address: int, length: int) -> bytes:
        start = address - self.BASE
        assert 0 <= start <= start + length <= len(self.memory)
        return bytes(self.memory[start : start + length])

    def output(self, value: int) -> bytes:
        data = b""
        for offset, maximum, source, source_at in self.ranges:
            length = maximum
            if source == LengthSource.VALUE:
                length = max(value, 0)
            elif source == LengthSource.U64:
                (length,) = struct.unpack_from("<Q", self.memory, source_at)
            elif source == LengthSource.U32:
                (length,) = struct.unpack_from("<I", self.memory, source_at)
            length = min(length, maximum)
            data += struct.pack("<I", length) + self.memory[offset : offset + length]
        return data


buffers = st.builds(
    Buffer,
    data=st.binary(max_size=40),
    size=st.integers(0, 100),
    wanted=st.booleans(),
    length=st.just(LengthSource.FIXED),
)
arguments = st.lists(st.one_of(st.integers(-(2**63), 2**64 - 1), buffers), max_size=8)


@settings(deadline=None)
@given(U32, arguments)
def test_a_call_arrives_as_it_was_described(number: int, given_arguments: list[int | Buffer]) -> None:
    call = encode_call(number, given_arguments)
    machine = Machine(call.payload)
    assert machine.number == number
    assert machine.arena_at % 16 == 0
    occupied: list[tuple[int, int]] = []
    for argument, seen in zip(given_arguments, machine.arguments, strict=False):
        if isinstance(argument, int):
            assert seen == argument % 2**64
        else:
            assert seen % 16 == 0
            assert machine.at(seen, len(argument.data)) == argument.data
            occupied.append((seen, seen + max(argument.size, 1)))
    occupied.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(occupied)), "buffers overlap"
    outputs = decode_outputs(call, machine.output(0))
    wanted = [a for a in given_arguments if isinstance(a, Buffer) and a.wanted]
    assert outputs.keys() == {id(buffer) for buffer in wanted}
    for buffer in wanted:
        assert len(outputs[id(buffer)]) == buffer.size
        assert outputs[id(buffer)].startswith(buffer.data)


def test_pointers_inside_memory_are_relocated() -> None:
    strings = [Buffer(b"one\0"), Buffer(b"two\0")]
    vector = Buffer(bytes(24), pointers={0: strings[0], 8: strings[1]})
    machine = Machine(encode_call(59, [Buffer(b"/bin/echo\0"), vector]).payload)
    first, second, end = struct.unpack("<QQQ", machine.at(machine.arguments[1], 24))
    assert machine.at(first, 4) == b"one\0"
    assert machine.at(second, 4) == b"two\0"
    assert end == 0


@pytest.mark.parametrize(
    ("source", "value", "expected"), [("U64", 0, 5), ("VALUE", 3, 3), ("VALUE", -1, 0), ("VALUE", 99, 10)]
)
def test_only_as_many_bytes_come_back_as_the_call_says(source: str, value: int, expected: int) -> None:
    length = Buffer(struct.pack("<Q", 5))
    data = Buffer(
        b"0123456789", wanted=True, length=LengthSource[source], length_in=length if source == "U64" else None
    )
    call = encode_call(1, [data])
    outputs = decode_outputs(call, Machine(call.payload).output(value))
    assert outputs[id(data)] == b"0123456789"[:expected]


def test_large_room_for_results_is_not_sent() -> None:
    room = Buffer(size=4 << 20, wanted=True)
    assert len(encode_call(202, [Buffer(b"mib"), room]).payload) < 256


def test_what_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="at most 8"):
        encode_call(1, [0] * 9)
    with pytest.raises(ValueError, match="room for"):
        encode_call(1, [Buffer(size=ARENA_LIMIT + 1)])
    with pytest.raises(ValueError, match="in one request"):
        encode_call(1, [Buffer(bytes(200_000))])


def test_output_that_was_not_announced_is_refused() -> None:
    call = encode_call(1, [Buffer(b"x", wanted=True)])
    with pytest.raises(WireError, match="announced"):
        decode_outputs(call, struct.pack("<I", 1) + b"x" + b"surplus")

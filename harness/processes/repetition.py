# SPDX-License-Identifier: BSD-2-Clause
"""Polling at the guest's own speed: one system call, made again and again until its outcome is the awaited one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from harness.processes.abi_base import Abi
from harness.processes.connection import Call
from harness.processes.vocabulary import GuestError, Repeat
from harness.processes.wire import (
    SAVED_LIMIT,
    Answer,
    Argument,
    Buffer,
    Operation,
    Predicate,
    decode_outputs,
    encode_call,
    require_at_most,
)

_REQUEST = struct.Struct("<IIqQQ")
_DATA = struct.Struct("<QQQII")


@dataclass(frozen=True)
class Until:
    """When repeat_until() ends; make one with the functions below."""

    predicate: Predicate
    value: int
    error: str | None = None


def returns(value: int) -> Until:
    """Until the call succeeds and returns VALUE."""
    return Until(Predicate.VALUE_IS, value)


def returns_other_than(value: int) -> Until:
    """Until the call fails or returns something else than VALUE."""
    return Until(Predicate.VALUE_IS_NOT, value)


def fails_with(error: str) -> Until:
    """Until the call fails with the errno of that name."""
    return Until(Predicate.ERROR_IS, 0, error)


def succeeds() -> Until:
    """Until the call succeeds."""
    return Until(Predicate.ERROR_IS, 0)


def fails_otherwise_than(error: str) -> Until:
    """Until the call succeeds, or fails with another errno."""
    return Until(Predicate.ERROR_IS_NOT, 0, error)


def length_is(length: int) -> Until:
    """Until the call succeeds and returns LENGTH through its length argument."""
    return Until(Predicate.LENGTH_IS, length)


def length_is_not(length: int) -> Until:
    """Until the call fails or returns something else than LENGTH through its length argument."""
    return Until(Predicate.LENGTH_IS_NOT, length)


def describe_repeat(
    abi: Abi,
    until: Until,
    name: str,
    arguments: Sequence[Argument],
    text: str,
    seconds: float,
    pause: float,
    length_in: Buffer | None,
) -> Call[Repeat]:
    """Describe the repetition of one call for at most SECONDS, with PAUSE seconds between two.

    LENGTH_IN is the 8-byte buffer among the arguments that the predicates on lengths look at.  Raises ValueError for
    arguments of more than SAVED_LIMIT bytes.
    """
    number = abi.numbers.get(name)
    if number is None:
        raise GuestError(text, "ENOSYS")
    encoded = encode_call(number, arguments)
    require_at_most(SAVED_LIMIT, encoded.given, "bytes given to a repeated call")
    length_at = encoded.offset(length_in) if length_in is not None else 0
    wanted = until.value
    if until.error is not None:
        wanted = next(guest for guest, known in abi.errnos.items() if known == until.error)
    head = _REQUEST.pack(until.predicate, length_at, wanted, int(seconds * 1e9), int(pause * 1e9))

    def decode(answer: Answer) -> Repeat:
        count, elapsed, length, met, _ = _DATA.unpack_from(answer.data)
        error = abi.errno_name(answer.error) if answer.error else None
        decode_outputs(encoded, answer.data[_DATA.size :])
        return Repeat(bool(met), count, elapsed / 1e9, answer.value, error, length)

    return Call(text, Operation.REPEAT, head + encoded.payload, decode, timeout=seconds + 30)

# SPDX-License-Identifier: BSD-2-Clause
"""Numbers that the executor (C) and the harness (Python) share are the same: the C side is compiled and asked."""

from __future__ import annotations

import struct
import subprocess
from enum import IntEnum
from functools import cache
from pathlib import Path

import pytest

from harness.oracle import bulk, make_oracle
from harness.processes import repetition, session, signal_calls, system_calls, wire
from harness.processes.vocabulary import Handler
from harness.processes.wire import SAVED_LIMIT, SPAWN_LIMIT, STORM_LIMIT, Buffer, Predicate, encode_call

EXECUTOR = Path(wire.__file__).parent / "executor"
ABIS = ("DRAGONFLY", "LINUX")

#: What each C struct is in Python.
STRUCTS: dict[str, struct.Struct] = {
    "struct frame": wire._FRAME,
    "struct event": wire._EVENT,
    "struct request": wire._REQUEST,
    "struct answer": wire._ANSWER,
    "struct syscall_request": wire._CALL,
    "struct relocation": wire._RELOCATION,
    "struct range": wire._RANGE,
    "struct branch_request": system_calls._BRANCH,
    "struct sigaction_request": signal_calls._SIGACTION_REQUEST,
    "struct sigaction_data": signal_calls._SIGACTION_DATA,
    "struct signal_record": signal_calls._SIGNAL_RECORD,
    "struct storm_request": system_calls._STORM_REQUEST,
    "struct storm_data": system_calls._STORM_DATA,
    "struct storm_record": system_calls._STORM_RECORD,
    "struct spawn_many_request": system_calls._SPAWN_REQUEST,
    "struct repeat_request": repetition._REQUEST,
    "struct repeat_data": repetition._DATA,
}
#: Enumerations: how C's names begin.
ENUMS: dict[str, type[IntEnum]] = {
    "EVENT_": wire.EventKind,
    "ORDER_": wire.OrderKind,
    "OP_": wire.Operation,
    "NOTE_": wire.Note,
    "LENGTH_": wire.LengthSource,
    "": Predicate,
}
VALUES = {
    "CONTROL_ID": wire.CONTROL_ID,
    "HUB_ID": wire.HUB_ID,
    "CHUNK": wire.CHUNK,
    "SAVED": SAVED_LIMIT,
    **{f"HANDLER_{handler.name}": number for handler, number in signal_calls._HANDLERS.items()},
    "HANDLER_INTERNAL": signal_calls._HANDLER_INTERNAL,
    "HANDLER_QUERY": signal_calls._HANDLER_QUERY,
    **{f"BRANCH_{flag.name}": flag.value for flag in wire.BranchFlag},
    "STORM_RECORD": 1,
    "STORM_STOP_AT_REPEAT": 2,
    "SPAWN_SESSIONS": 1,
}
#: Expressions that must hold: what Python lets through, C holds.
HOLD = (
    f"{SPAWN_LIMIT} <= MEMORY / sizeof(i32)",
    f"{wire.PAYLOAD_LIMIT} + sizeof(struct repeat_request) <= MEMORY",
    f"{STORM_LIMIT}ul * sizeof(struct storm_record) + sizeof(struct storm_data) + sizeof(struct answer) < 1ul << 32",
    f"{len(session._SOCKET) + 1} <= sizeof(socket_path)",
    f"{len(session._PROGRAM) + 1} <= sizeof(program_path)",
)


@cache
def asked(abi: str, expressions: tuple[str, ...], folder: Path) -> list[int]:
    """Return what EXPRESSIONS are to a C compiler that has read executor.h."""
    source = folder / f"ask-{abi}.c"
    lines = "\n".join(f'\t__builtin_printf("%lld\\n", (long long)({each}));' for each in expressions)
    source.write_text(f'#include "executor.h"\nint main(void)\n{{\n{lines}\n\treturn 0;\n}}\n')
    program = source.with_suffix("")
    argv = ["gcc", "-w", f"-DABI_{abi}", "-I", str(EXECUTOR), "-o", str(program), str(source)]
    subprocess.run(argv, check=True, capture_output=True, text=True)
    return [int(line) for line in subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()]


@pytest.mark.parametrize("abi", ABIS)
def test_structs_have_the_same_size(abi: str, tmp_path: Path) -> None:
    sizes = asked(abi, tuple(f"sizeof({name})" for name in STRUCTS), tmp_path)
    assert dict(zip(STRUCTS, sizes, strict=True)) == {name: layout.size for name, layout in STRUCTS.items()}


@pytest.mark.parametrize("abi", ABIS)
def test_names_have_the_same_values(abi: str, tmp_path: Path) -> None:
    known = {f"{prefix}{member.name}": member.value for prefix, kind in ENUMS.items() for member in kind} | VALUES
    assert dict(zip(known, asked(abi, tuple(known), tmp_path), strict=True)) == known


@pytest.mark.parametrize("abi", ABIS)
def test_what_python_lets_through_the_executor_holds(abi: str, tmp_path: Path) -> None:
    assert dict(zip(HOLD, asked(abi, HOLD, tmp_path), strict=True)) == dict.fromkeys(HOLD, 1)


def test_a_number_that_differs_is_noticed(tmp_path: Path) -> None:
    assert asked("LINUX", ("VALUE_IS", "SAVED + 1", "1 > 2"), tmp_path) == [0, SAVED_LIMIT + 1, 0]


def test_the_oracle_asks_no_more_of_its_executor_than_there_is_of_the_real_one() -> None:
    init = make_oracle().spawn()
    with pytest.raises(ValueError, match=f"the executor takes 0 to {SPAWN_LIMIT}"):
        init.spawn_many(SPAWN_LIMIT + 1)
    with pytest.raises(ValueError, match=f"the executor takes 0 to {STORM_LIMIT}"):
        init.storm(STORM_LIMIT + 1)
    assert bulk._met(repetition.returns(3), 3, None)
    assert not bulk._met(repetition.fails_otherwise_than("EPERM"), -1, "EPERM")


def test_a_repeated_call_gives_no_more_than_is_kept_of_it() -> None:
    class Nothing:
        """An ABI with one call."""

        numbers = {"read": 3}  # noqa: RUF012
        errnos: dict[int, str] = {}  # noqa: RUF012

    def describe(size: int) -> None:
        repetition.describe_repeat(
            Nothing(), repetition.returns(0), "read", (Buffer(bytes(size)),), "read", 1.0, 0.0, None  # type: ignore[arg-type]
        )  # fmt: skip

    describe(SAVED_LIMIT)
    with pytest.raises(ValueError, match="bytes given to a repeated call"):
        describe(SAVED_LIMIT + 1)


def test_handlers_are_all_known() -> None:
    assert set(signal_calls._HANDLERS) == set(Handler)
    assert encode_call(1, ()).given == 0

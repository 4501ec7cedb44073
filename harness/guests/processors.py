# SPDX-License-Identifier: BSD-2-Clause
"""Where every CPU of a machine is, as QEMU knows it: works when the guest itself no longer answers anything."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.guests.ddb import Frame
from harness.machine.debuginfo import FunctionTable
from harness.machine.elf import KERNBASE
from harness.machine.qemu import Machine

_DEPTH = 24
_CPU = re.compile(r"^CPU#(\d+)", re.MULTILINE)
_REGISTER = re.compile(r"\b(RIP|RSP|RBP)=([0-9a-f]{16})\b")
_CPL = re.compile(r"\bCPL=(\d)")
_HALTED = re.compile(r"\bHLT=1")


@dataclass(frozen=True)
class Processor:
    """One virtual CPU: its program counter, whether it runs user code or is halted, and the kernel's call chain."""

    number: int
    address: int
    user: bool
    halted: bool
    frames: tuple[Frame, ...] = ()

    def __str__(self) -> str:
        """Return the CPU and its frames for people."""
        state = "user code" if self.user else "halted, waiting for an interrupt" if self.halted else "in the kernel"
        lines = [f"CPU {self.number}: {state} at {self.address:#x}"]
        return "\n".join([*lines, *(f"    {frame}" for frame in self.frames)])


def processors(machine: Machine, functions: FunctionTable | None) -> list[Processor]:
    """Return where each CPU is; call it on a paused machine for a consistent picture.

    Kernel frames are followed by their frame pointers and named where FUNCTIONS are known.  Raises what
    Monitor.execute() raises.
    """
    shown = machine.monitor.human("info registers -a")
    starts = [(int(found[1]), found.start()) for found in _CPU.finditer(shown)]
    result = []
    for number, begin in starts:
        end = next((other for _, other in starts if other > begin), len(shown))
        text = shown[begin:end]
        registers = {name: int(value, 16) for name, value in _REGISTER.findall(text)}
        level = _CPL.search(text)
        if "RIP" not in registers:
            continue
        user = level is not None and level[1] != "0"
        frames = () if user or functions is None else _frames(machine, functions, number, registers)
        result.append(Processor(number, registers["RIP"], user, bool(_HALTED.search(text)), frames))
    return result


def _frames(machine: Machine, functions: FunctionTable, cpu: int, registers: dict[str, int]) -> tuple[Frame, ...]:
    frames = [_frame(functions, registers["RIP"])]
    pointer = registers.get("RBP", 0)
    while len(frames) < _DEPTH and pointer >= 1 << 47 and frames[-1] is not None:
        try:
            following, address = struct.unpack("<QQ", machine.read_virtual(pointer, 16, cpu))
        except (HarnessError, struct.error):
            break
        if address < KERNBASE:
            break
        frames.append(_frame(functions, address))
        if following <= pointer:  # stacks grow downwards: the chain ends or is damaged
            break
        pointer = following
    return tuple(frame for frame in frames if frame is not None)


def _frame(functions: FunctionTable, address: int) -> Frame | None:
    found = functions.locate(address)
    return Frame(*found, address) if found is not None else None


def describe(cpus: Sequence[Processor]) -> str:
    """Return all CPUs as text."""
    return "\n".join(str(cpu) for cpu in cpus)

# SPDX-License-Identifier: BSD-2-Clause
"""What a kernel thread waits for, seen from outside: which token, and who has it (kern/lwkt_token.c)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.guests.whitebox import Whitebox
from harness.machine.debugger import Cpu, Debugger
from harness.machine.debuginfo import FunctionTable, Layout

#: Where struct globaldata has the thread that its CPU runs (sys/globaldata.h: gd_curthread).
_CURRENT = 8
# How the kernel is entered, and that by an interrupt (x86_64: exception.S, apic_vector.s; others are traps and calls).
_ENTRY = re.compile(r"X[a-z]")
_INTERRUPT = re.compile(r"X(?:timer|ipiq|invltlb|sniff|cpustop|spurious|icu|ioapic|msi|.*intr)")
_QUEUED = 2  # sys/thread.h: TDF_RUNQ
_LOWEST, _DEPTH = 1 << 47, 48
_MOST_TOKENS = 64
_TEXT = 24


@dataclass(frozen=True)
class Contest:
    """A token that a thread waits for; `owners` are those of the threads asked about that have it."""

    token: int
    name: str
    owners: tuple[int, ...]


def current_thread(debugger: Debugger, number: int) -> int:
    """Return the address of the thread that CPU NUMBER runs in the kernel, 0 where it runs a user's code."""
    cpu = debugger.cpu(number)
    try:
        return cpu.word(cpu.own_data + _CURRENT) if cpu.in_kernel else 0
    except HarnessError:  # the kernel has been entered this moment, and has not found its own data yet
        return 0


def serves_interrupt(cpu: Cpu, functions: FunctionTable) -> bool:
    """Tell whether CPU serves an interrupt in the context of the thread that it interrupted, by its call chain."""
    frame = cpu.frame
    for _ in range(_DEPTH):
        if frame < _LOWEST:
            return False
        try:
            following, back = cpu.word(frame), cpu.word(frame + 8)
        except HarnessError:
            return False
        found = functions.locate(back)
        if found is None:
            return False
        if _ENTRY.match(found[0]):
            return _INTERRUPT.match(found[0]) is not None
        if following <= frame:  # stacks grow downwards
            return False
        frame = following
    return False


class Threads:
    """The threads of KERNEL on a machine that stands still; knows of tokens where there is a debug file."""

    def __init__(self, kernel: Whitebox) -> None:
        self._layouts: dict[str, Layout] = kernel.threads if kernel.has_debug_file else {}

    @property
    def knows_tokens(self) -> bool:
        """Whether it can tell what threads wait for."""
        return bool(self._layouts)

    def contest(self, debugger: Debugger, thread: int, others: list[int]) -> Contest | None:
        """Return the token that THREAD waits for and that some of OTHERS have; None if there is none."""
        if not self._layouts or not others:
            return None
        try:
            tokens = self._tokens(debugger, thread)
            # The one a thread waits for is the last in its list, and not counted among those that it has.
            if not tokens:
                return None
            wanted = tokens[-1]
            owners = tuple(other for other in others if wanted in self._tokens(debugger, other))
            return Contest(wanted, self._token_name(debugger, wanted), owners) if owners else None
        except HarnessError:  # a thread that has ended meanwhile
            return None

    def is_critical(self, debugger: Debugger, thread: int) -> bool | None:
        """Tell whether THREAD is in a critical section, which puts interrupts off; None where that is not known."""
        if not self._layouts:
            return None
        return debugger.read(thread + self._layouts["thread"].offset("td_critcount"), 4) != bytes(4)

    def is_queued(self, debugger: Debugger, thread: int) -> bool | None:
        """Tell whether THREAD would run if its CPU came to it; None where that is not known."""
        if not self._layouts:
            return None
        try:
            flags = debugger.read(thread + self._layouts["thread"].offset("td_flags"), 4)
        except HarnessError:  # it has ended
            return False
        return bool(flags[0] & _QUEUED)

    def sleeps_on(self, debugger: Debugger, thread: int) -> str:
        """Return the word for what THREAD sleeps on, "" where that is not known."""
        if not self._layouts:
            return ""
        try:
            where = self._word(debugger, thread + self._layouts["thread"].offset("td_wmesg"))
            return _text_at(debugger, where) if where else ""
        except HarnessError:
            return ""

    def _tokens(self, debugger: Debugger, thread: int) -> list[int]:
        layout, reference = self._layouts["thread"], self._layouts["lwkt_tokref"]
        base = thread + layout.offset("td_toks_array")
        stop = self._word(debugger, thread + layout.offset("td_toks_stop"))
        count = (stop - base) // reference.size
        if not 0 <= count <= _MOST_TOKENS:
            return []
        return [
            self._word(debugger, base + number * reference.size + reference.offset("tr_tok")) for number in range(count)
        ]

    def _token_name(self, debugger: Debugger, token: int) -> str:
        where = self._word(debugger, token + self._layouts["lwkt_token"].offset("t_desc"))
        return _text_at(debugger, where)

    @staticmethod
    def _word(debugger: Debugger, address: int) -> int:
        return int.from_bytes(debugger.read(address, 8), "little")


def _text_at(debugger: Debugger, address: int) -> str:
    return debugger.read(address, _TEXT).split(b"\0", 1)[0].decode("ascii", "replace")

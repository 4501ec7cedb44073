# SPDX-License-Identifier: BSD-2-Clause
"""What a kernel thread waits for, seen from outside: which token, and who has it (kern/lwkt_token.c)."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.guests.kernelmemory import KernelMemory, threads_of
from harness.guests.whitebox import Whitebox, find_process
from harness.machine.debugger import Cpu, Debugger
from harness.machine.debuginfo import FunctionTable, Layout
from harness.machine.elf import KERNBASE

#: Where struct globaldata has the thread that its CPU runs (sys/globaldata.h: gd_curthread).
_CURRENT = 8
# How the kernel is entered, and that by an interrupt (x86_64: exception.S, apic_vector.s; others are traps and calls).
_ENTRY = re.compile(r"X[a-z]")
_INTERRUPT = re.compile(r"X(?:timer|ipiq|invltlb|sniff|cpustop|spurious|icu|ioapic|msi|.*intr)")
_QUEUED = 2  # sys/thread.h: TDF_RUNQ
_LOWEST, _DEPTH = 1 << 47, 48
_CALLERS = 8
_PUSHED = 1  # bytes: push %rbp
_MOST_TOKENS = 64
_WHOLLY, _DEMANDED = 1, 2  # sys/thread.h: TOK_EXCLUSIVE, TOK_EXCLREQ
_NOTED = 0x83  # sys/globaldata.h: RQF_IPIQ, RQF_INTPEND, RQF_TIMER
_SPIN_LOCK = re.compile(r"_?spin_lock(?:_shared)?_contested")
_IDLE = re.compile(r"cpu_idle\w*")  # its hook has no frame of its own
_NEAR = 4  # frames
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


def runs(debugger: Debugger, thread: int) -> bool:
    """Tell whether a CPU runs THREAD in the kernel."""
    return any(current_thread(debugger, number) == thread for number in range(debugger.cpus))


def spins(debugger: Debugger, thread: int, functions: FunctionTable) -> bool:
    """Tell whether THREAD runs, and tries to take a spinlock that somebody has (kern/kern_spinlock.c)."""
    number = next((each for each in range(debugger.cpus) if current_thread(debugger, each) == thread), None)
    return number is not None and _is_in(debugger.cpu(number), _SPIN_LOCK, functions)


def _is_in(cpu: Cpu, wanted: re.Pattern[str], functions: FunctionTable) -> bool:
    """Tell whether CPU is in a function called as WANTED, or in what that calls."""
    address, frame = cpu.address, cpu.frame
    for _ in range(_NEAR):
        found = functions.locate(address)
        if found is not None and wanted.fullmatch(found[0]):
            return True
        try:
            frame, address = cpu.word(frame), cpu.word(frame + 8)
        except HarnessError:
            return False
    return False


def callers(cpu: Cpu, offset: int) -> tuple[int, ...]:
    """Return where the functions were called that CPU is in, the innermost first, by its call chain.

    OFFSET is how far it is in the innermost: at its first two instructions that has no frame of its own yet.
    """
    found = []
    try:
        if offset <= _PUSHED:
            found.append(cpu.word(cpu.stack + 8 * offset))
        frame = cpu.frame if offset != _PUSHED else cpu.word(cpu.stack)
        while len(found) < _CALLERS and frame >= _LOWEST:
            following, back = cpu.word(frame), cpu.word(frame + 8)
            found.append(back)
            if following <= frame:
                break
            frame = following
    except HarnessError:  # the chain ends where nothing is mapped
        pass
    return tuple(each for each in found if each >= KERNBASE)


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


@dataclass(frozen=True)
class _Memory:
    """What the session with the gdb stub sees of memory."""

    debugger: Debugger

    def read_virtual(self, address: int, size: int) -> bytes:
        return self.debugger.read(address, size)


class Threads:
    """The threads of KERNEL on a machine that stands still; knows of tokens where there is a debug file."""

    def __init__(self, kernel: Whitebox) -> None:
        self._layouts: dict[str, Layout] = kernel.threads if kernel.has_debug_file else {}
        self._kernel = kernel

    @property
    def knows_tokens(self) -> bool:
        """Whether it can tell what threads wait for."""
        return bool(self._layouts)

    def of(self, debugger: Debugger, pid: int, tid: int) -> int:
        """Return where the thread TID of process PID is, or its only one for 0; 0 where that is not known."""
        if not {"proc", "procglob", "lwp"} <= self._layouts.keys() or not self._kernel.has("procglob"):
            return 0
        try:
            process = find_process(KernelMemory(_Memory(debugger)), self._kernel.symbols, self._layouts, pid)
            threads = threads_of(process, self._layouts["lwp"]) if process is not None else []
            meant = threads if tid == 0 else [each for each in threads if each.integer("lwp_tid") == tid]
            return meant[0].pointer("lwp_thread") if len(meant) == 1 else 0
        except HarnessError:  # a list that is being changed
            return 0

    def contest(self, debugger: Debugger, thread: int, others: list[int]) -> Contest | None:
        """Return the token that THREAD waits for and that some of OTHERS have; None if there is none.

        Whoever runs waits for none; who does not gave up all he had, and needs them all again.  Two may share a token
        if both took it shared, and nobody else has asked for all of it.
        """
        if not self._layouts or not others or runs(debugger, thread):
            return None
        try:
            theirs = {other: self._tokens(debugger, other) for other in others}
            for wanted, wholly in reversed(self._tokens(debugger, thread).items()):
                owners = tuple(
                    other
                    for other, tokens in theirs.items()
                    if wanted in tokens and (wholly or tokens[wanted] or self._is_demanded(debugger, wanted))
                )
                if owners:
                    return Contest(wanted, self._token_name(debugger, wanted), owners)
        except HarnessError:  # a thread that has ended meanwhile
            pass
        return None

    def puts_interrupts_off(self, debugger: Debugger, cpu: Cpu, thread: int) -> bool | None:
        """Tell whether THREAD, which CPU runs, may have interrupts to serve that were noted; None if that is not known.

        So it is in a critical section, and some instructions behind its end.
        """
        if not self._layouts:
            return None
        critical = debugger.read(thread + self._layouts["thread"].offset("td_critcount"), 4) != bytes(4)
        noted = cpu.word(cpu.own_data + self._layouts["globaldata"].offset("gd_reqflags")) & _NOTED
        return critical or bool(noted)

    def is_queued(self, debugger: Debugger, thread: int) -> bool | None:
        """Tell whether THREAD would run if its CPU came to it; None where that is not known."""
        if not self._layouts:
            return None
        try:
            flags = debugger.read(thread + self._layouts["thread"].offset("td_flags"), 4)
        except HarnessError:  # it has ended
            return False
        return bool(flags[0] & _QUEUED)

    def is_kept_off(self, debugger: Debugger, thread: int, functions: FunctionTable, taken: Collection[int]) -> bool:
        """Tell whether THREAD would run, and its CPU runs nothing.

        Somebody stands there, on one of those TAKEN, or waits for a token (lwkt_switch).  A scheduler of 2017 gives a
        thread to a CPU that it is not allowed to run on (kern/usched_dfly.c).
        """
        if not self.is_queued(debugger, thread) or runs(debugger, thread):
            return False
        own = self.cpu_of(debugger, thread)
        return own is not None and (own.number in taken or _is_in(own, _IDLE, functions))

    def cpu_of(self, debugger: Debugger, thread: int) -> Cpu | None:
        """Return the CPU that THREAD belongs to; None where that is not known, or it runs a user's code."""
        if not self._layouts:
            return None
        try:
            own = self._word(debugger, thread + self._layouts["thread"].offset("td_gd"))
        except HarnessError:  # it has ended
            return None
        cpus = map(debugger.cpu, range(debugger.cpus))
        return next((cpu for cpu in cpus if cpu.in_kernel and cpu.own_data == own), None)

    def sleeps_on(self, debugger: Debugger, thread: int) -> str:
        """Return the word for what THREAD sleeps on, "" where that is not known."""
        if not self._layouts:
            return ""
        try:
            where = self._word(debugger, thread + self._layouts["thread"].offset("td_wmesg"))
            return _text_at(debugger, where) if where else ""
        except HarnessError:
            return ""

    def _tokens(self, debugger: Debugger, thread: int) -> dict[int, bool]:
        """Return the tokens that THREAD has or asks for, in that order, and whether wholly or to share them."""
        layout, reference = self._layouts["thread"], self._layouts["lwkt_tokref"]
        base = thread + layout.offset("td_toks_array")
        stop = self._word(debugger, thread + layout.offset("td_toks_stop"))
        count = (stop - base) // reference.size
        found: dict[int, bool] = {}
        if not 0 <= count <= _MOST_TOKENS:
            return found
        for place in range(base, base + count * reference.size, reference.size):
            token = self._word(debugger, place + reference.offset("tr_tok"))
            wholly = self._word(debugger, place + reference.offset("tr_count")) & _WHOLLY
            found[token] = found.get(token, False) or bool(wholly)
        return found

    def _is_demanded(self, debugger: Debugger, token: int) -> bool:
        return bool(self._word(debugger, token + self._layouts["lwkt_token"].offset("t_count")) & _DEMANDED)

    def _token_name(self, debugger: Debugger, token: int) -> str:
        where = self._word(debugger, token + self._layouts["lwkt_token"].offset("t_desc"))
        return _text_at(debugger, where)

    @staticmethod
    def _word(debugger: Debugger, address: int) -> int:
        return int.from_bytes(debugger.read(address, 8), "little")


def _text_at(debugger: Debugger, address: int) -> str:
    return debugger.read(address, _TEXT).split(b"\0", 1)[0].decode("ascii", "replace")

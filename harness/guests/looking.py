# SPDX-License-Identifier: BSD-2-Clause
"""Looking into a kernel that is dead, held or replayed: its processes, groups, who holds whom, and why one stays.

Everything is read from memory that stands still; nothing of the kernel runs.  `COMMANDS` are what `dfly-harness debug`,
drgn and gdb have by the same names.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from harness.errors import HarnessError, UsageError
from harness.guests.invariants import HOLDS, check_table
from harness.guests.kernelmemory import KernelMemory, KernelStruct, MemoryReader, threads_of
from harness.guests.whitebox import read_table
from harness.machine.debuginfo import Layout
from harness.machine.elf import KernelSymbols

STRUCTURES = frozenset({"proc", "pgrp", "session", "procglob", "tty", "sigio", "lwp", "thread"})
_NAME = 16
_WORD = 32  # of td_wmesg
# sys/proc.h: enum procstat, enum lwpstat
_PROCESS_STATES = {1: "idle", 2: "active", 3: "stopped", 4: "zombie", 5: "dumping core"}
_THREAD_STATES = {1: "runs or is runnable", 2: "is stopped", 3: "sleeps"}
_ZOMBIE, _STOPPED = 4, 3
# sys/proc.h
_FLAGS = {0x2: "CONTROLT", 0x10: "PPWAIT", 0x800: "TRACED", 0x2000: "WEXIT", 0x8000000: "EXEC"}
_WEXIT = 0x2000
_SIGNALS = 128


class Looking:
    """The kernel whose memory READER gives; STRUCTURES are laid out as its debug file says."""

    def __init__(self, reader: MemoryReader, symbols: KernelSymbols, structures: Mapping[str, Layout]) -> None:
        self.memory = KernelMemory(reader)
        self._layouts = dict(structures)
        self.table = read_table(self.memory, symbols, structures)
        self._processes = {process.address: process for _, process in self.table.processes}
        self._groups = {group.address: group for _, group in self.table.groups}

    # What the commands say

    def ps(self) -> Iterator[str]:
        """Yield the process table, a line for each process."""
        yield "  PID  PPID  PGRP   SID HOLDS STATE        FLAGS            COMMAND / what its threads wait for"
        for process in self._by_pid:
            flags = " ".join(name for bit, name in _FLAGS.items() if process.word("p_flags") & bit) or "-"
            waits = ", ".join(sorted({self._waits_for(lwp) for lwp in self._threads(process)} - {""}))
            yield (
                f"{process.integer('p_pid'):5} {self._pid_at(process.pointer('p_pptr')):>5}"
                f" {self._group_number(process):>5} {self._session_number(process):>5} {self._held(process):5}"
                f" {self._state(process):12} {flags:16} {process.text('p_comm', _NAME)}"
                f"{f' [{waits}]' if waits else ''}"
            )

    def pgrp(self) -> Iterator[str]:
        """Yield process groups with their sessions, job-control counts, references and members."""
        yield " PGRP   SID  JOBC  REFS MEMBERS"
        for group in sorted(self._groups.values(), key=lambda each: each.integer("pg_id")):
            members = [each.integer("p_pid") for each in self._by_pid if each.pointer("p_pgrp") == group.address]
            session = self._session_of(group)
            number = session.integer("s_sid") if session is not None else "?"
            jobs, references = group.integer("pg_jobc"), group.integer("pg_refs")
            told = " ".join(map(str, members)) or "none"
            yield f"{group.integer('pg_id'):5} {number:>5} {jobs:5} {references:5} {told}"

    def holds(self) -> Iterator[str]:
        """Yield who is held (p_lock, lwp_lock), and all that does not hold in the process table."""
        for process in self._by_pid:
            name = self._name(process)
            if (count := self._held(process)) and not self._is_held_by_itself(process):
                yield f"{name} is held {_times(count)} (p_lock)"
            for lwp in self._threads(process):
                if (count := lwp.integer("lwp_lock")) > 0:
                    yield f"thread {lwp.integer('lwp_tid')} of {name} is held {_times(count)} (lwp_lock)"
        yield from check_table(self.table, self._layouts)

    def why(self, pid: int) -> Iterator[str]:
        """Yield why process PID is where it is; raises UsageError where there is none."""
        process = next((each for each in self._by_pid if each.integer("p_pid") == pid), None)
        if process is None:
            raise UsageError(f"there is no process {pid} (dfly-ps lists them)")
        where = f"struct proc {process.address:#x}"
        article = "a " if process.integer("p_stat") == _ZOMBIE else ""
        yield f"{self._name(process)} is {article}{self._state(process)}{self._status(process)}, {where}"
        if process.integer("p_stat") == _ZOMBIE:
            yield from self._why_a_zombie_stays(process)
        if self._is_held_by_itself(process):
            yield "it is held once (p_lock), by its own last thread, as zombies are: whoever reaps it lets that go"
        elif count := self._held(process):
            yield f"it is held {_times(count)} (p_lock): whoever ends or reaps it waits until it is let go"
        for lwp in self._threads(process):
            state = _THREAD_STATES.get(lwp.integer("lwp_stat"), "is in no known state")
            waits = self._waits_for(lwp)
            channel = self._thread(lwp).pointer("td_wchan") if waits else 0
            yield f"thread {lwp.integer('lwp_tid')} {state}{f' at {waits!r}, channel {channel:#x}' if waits else ''}"
            if pending := self._signals(lwp, "lwp_siglist"):
                yield f"thread {lwp.integer('lwp_tid')}: pending: {pending}"
        if pending := self._signals(process, "p_siglist"):
            yield f"pending for all of it: {pending}"
        parent = self._processes.get(process.pointer("p_pptr"))
        yield f"its parent is {self._name(parent)}" if parent is not None else "it has no parent"
        children = [each for each in self._by_pid if each.pointer("p_pptr") == process.address and each != process]
        if children:
            yield f"its children are {', '.join(self._name(each) for each in children)}"
        yield f"it is in group {self._group_number(process)} of session {self._session_number(process)}"

    def _why_a_zombie_stays(self, process: KernelStruct) -> Iterator[str]:
        parent = self._processes.get(process.pointer("p_pptr"))
        if parent is None:
            yield "it has no parent that could wait for it"
            return
        waits = sorted({self._waits_for(lwp) for lwp in self._threads(parent)} - {""})
        where = f", which sleeps at {', '.join(map(repr, waits))}" if waits else ", which does not sleep"
        yield f"it waits to be waited for by {self._name(parent)}{where}"

    # What they are made of

    @cached_property
    def _by_pid(self) -> list[KernelStruct]:
        return sorted(self._processes.values(), key=lambda each: each.integer("p_pid"))

    def _name(self, process: KernelStruct) -> str:
        return f"process {process.integer('p_pid')} ({process.text('p_comm', _NAME)})"

    def _pid_at(self, address: int) -> str:
        found = self._processes.get(address)
        return str(found.integer("p_pid")) if found is not None else "-"

    def _group_number(self, process: KernelStruct) -> str:
        group = self._groups.get(process.pointer("p_pgrp"))
        return str(group.integer("pg_id")) if group is not None else "?"

    def _session_number(self, process: KernelStruct) -> str:
        group = self._groups.get(process.pointer("p_pgrp"))
        session = self._session_of(group) if group is not None else None
        return str(session.integer("s_sid")) if session is not None else "?"

    def _session_of(self, group: KernelStruct) -> KernelStruct | None:
        address = group.pointer("pg_session")
        return next((each for _, each in self.table.sessions if each.address == address), None)

    @staticmethod
    def _held(process: KernelStruct) -> int:
        return process.word("p_lock") & HOLDS

    def _is_held_by_itself(self, process: KernelStruct) -> bool:
        """Tell whether a zombie has the one hold that its last thread leaves (kern_exit.c: lwp_exit)."""
        dead = process.integer("p_stat") == _ZOMBIE and process.word("p_flags") & _WEXIT
        return bool(dead) and self._held(process) == 1

    @staticmethod
    def _state(process: KernelStruct) -> str:
        return _PROCESS_STATES.get(process.integer("p_stat"), "unknown")

    @staticmethod
    def _status(process: KernelStruct) -> str:
        value, state = process.word("p_xstat", 2), process.integer("p_stat")
        if state == _STOPPED:
            return f" by signal {value}"
        if state != _ZOMBIE:
            return ""
        return f", killed by signal {value & 0x7F}" if value & 0x7F else f", exited with {value >> 8}"

    def _threads(self, process: KernelStruct) -> list[KernelStruct]:
        return threads_of(process, self._layouts["lwp"])

    def _thread(self, lwp: KernelStruct) -> KernelStruct:
        return KernelStruct(self.memory, self._layouts["thread"], lwp.pointer("lwp_thread"))

    def _waits_for(self, lwp: KernelStruct) -> str:
        """Return the word by which the kernel names what a thread waits for, empty for one that does not wait."""
        if not lwp.pointer("lwp_thread"):
            return ""
        thread = self._thread(lwp)
        word = thread.pointer("td_wmesg")
        if not word or not thread.pointer("td_wchan"):
            return ""
        try:
            return self.memory.read(word, _WORD).partition(b"\0")[0].decode(errors="replace")
        except HarnessError:
            return "?"

    @staticmethod
    def _signals(of: KernelStruct, member: str) -> str:
        bits = of.word(member, _SIGNALS // 8)
        return ", ".join(f"signal {number + 1}" for number in range(_SIGNALS) if bits >> number & 1)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _needs_pid(look: Looking, words: list[str]) -> Iterator[str]:
    if len(words) != 1 or not words[0].isdecimal():
        raise UsageError("dfly-why wants a process: dfly-why 42")
    return look.why(int(words[0]))


#: By name: what it says, and whether it takes a process.
COMMANDS: Mapping[str, Callable[[Looking, list[str]], Iterator[str]]] = {
    "dfly-ps": lambda look, _: look.ps(),
    "dfly-pgrp": lambda look, _: look.pgrp(),
    "dfly-holds": lambda look, _: look.holds(),
    "dfly-why": _needs_pid,
}


def obey(look: Looking, line: str) -> Iterator[str]:
    """Yield what the command LINE says; raises UsageError for one there is not."""
    name, *words = shlex.split(line) or [""]
    if name not in COMMANDS:
        raise UsageError(f"{name or 'nothing'} is no command: {', '.join(COMMANDS)} PID")
    if words and name != "dfly-why":
        raise UsageError(f"{name} takes no words: {' '.join(words)}")
    yield from COMMANDS[name](look, words)

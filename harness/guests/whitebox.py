"""The kernel's process table read from outside, and what must hold in it whenever nothing is going on.

The machine is paused and its memory read through QEMU: no code of the guest runs, so this works on a kernel that hangs
or sits in its debugger, and disturbs no measurement.  Where structures lie comes from the kernel's debug file.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import Guest
from harness.machine.debuginfo import DebugInformation, Layout
from harness.machine.elf import KernelSymbols
from harness.machine.qemu import Machine

_PAGE = 4096
_UNIT = "kern_proc.c"
_STRUCTURES = frozenset({"proc", "pgrp", "session", "procglob", "tty", "sigio"})
_HOLDS = 0x1FFFFFFF  # kern_proc.c: PLOCK_MASK
_SZOMB = 4  # sys/proc.h
_P_PPWAIT, _P_WEXIT, _P_EXEC = 0x10, 0x2000, 0x8000000
_LONGEST_CHAIN = 100_000  # a longer list is taken for a circle


class DamagedError(HarnessError):
    """The kernel's memory contradicts itself so much that it cannot be walked: a list does not end, a link is bad."""


class KernelMemory:
    """The memory of a paused machine, as its kernel sees it; a page is fetched once."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._pages: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at the kernel's virtual ADDRESS; raises DamagedError where nothing is mapped."""
        data = b""
        while size > 0:
            base = address & -_PAGE
            part = self._page(base)[address - base : address - base + size]
            data += part
            address += len(part)
            size -= len(part)
        return data

    def _page(self, base: int) -> bytes:
        if base not in self._pages:
            try:
                self._pages[base] = self._machine.read_virtual(base, _PAGE)
            except HarnessError as error:
                raise DamagedError(f"a link leads to {base:#x}, where the kernel has no memory ({error})") from error
        return self._pages[base]


@dataclass(frozen=True)
class Record:
    """A structure in the kernel's memory."""

    memory: KernelMemory
    layout: Layout
    address: int

    def place(self, member: str) -> int:
        """Return the address of MEMBER."""
        return self.address + self.layout.offset(member)

    def word(self, member: str, size: int = 4, *, at: int = 0) -> int:
        """Return SIZE bytes as an unsigned number, AT bytes into MEMBER."""
        where = self.address + self.layout.offset(member) + at
        return int.from_bytes(self.memory.read(where, size), "little")

    def integer(self, member: str) -> int:
        """Return an int."""
        data = self.memory.read(self.address + self.layout.offset(member), 4)
        return int(struct.unpack("<i", data)[0])

    def pointer(self, member: str, *, at: int = 0) -> int:
        """Return an address."""
        return self.word(member, 8, at=at)

    def text(self, member: str, size: int) -> str:
        """Return a string of at most SIZE bytes."""
        data = self.memory.read(self.address + self.layout.offset(member), size)
        return data.partition(b"\0")[0].decode(errors="replace")


@dataclass(frozen=True)
class ProcessTable:
    """procglob[] at one moment: its processes, groups and sessions, each with the number of the chain it is in."""

    processes: tuple[tuple[int, Record], ...]
    groups: tuple[tuple[int, Record], ...]
    sessions: tuple[tuple[int, Record], ...]
    chains: int

    @cached_property
    def pids(self) -> tuple[int, ...]:
        """The processes' ids."""
        return tuple(process.integer("p_pid") for _, process in self.processes)


@lru_cache(maxsize=4)
def _description(kernel: Path, debug: Path) -> tuple[KernelSymbols, dict[str, Layout]]:
    """Read both files; they are named by their content, and reading them takes seconds."""
    return KernelSymbols(kernel), DebugInformation(debug).layouts(_UNIT, _STRUCTURES)


class Whitebox:
    """The process table of a guest whose kernel's debug file is in the store."""

    def __init__(self, guest: Guest) -> None:
        """Raise UsageError when the guest's kernel cannot be looked into."""
        target = guest.target
        if not isinstance(target, DragonFlyTarget) or target.kernel is None:
            raise UsageError("the process table can be read of a DragonFly kernel in the store only")
        if target.kernel.debug is None:
            raise UsageError(
                f"kernel {target.kernel.name} has no debug file: import it with --debug kernel.debug to look into it"
            )
        self._machine = guest.machine
        self._symbols, self._layouts = _description(
            target.store.blob(target.kernel.elf), target.store.blob(target.kernel.debug)
        )

    @contextmanager
    def frozen(self) -> Iterator[ProcessTable]:
        """Pause the machine and give its process table; it runs on afterwards.

        Raises DamagedError when the table cannot be walked.
        """
        was_running = bool(self._machine.monitor.execute("query-status").get("running"))
        self._machine.pause()
        try:
            yield self._table(KernelMemory(self._machine))
        finally:
            if was_running:
                self._machine.resume()

    def _table(self, memory: KernelMemory) -> ProcessTable:
        symbol = self._symbols["procglob"]
        layout = self._layouts["procglob"]
        chains = (symbol.size or 256 * layout.size) // layout.size
        heads = [Record(memory, layout, symbol.address + number * layout.size) for number in range(chains)]

        def all_of(head: str, kind: str, link: str) -> tuple[tuple[int, Record], ...]:
            return tuple(
                (number, record)
                for number, chain in enumerate(heads)
                for record in walk(memory, self._layouts[kind], chain.place(head), link)
            )

        return ProcessTable(
            all_of("allproc", "proc", "p_list"),
            all_of("allpgrp", "pgrp", "pg_list"),
            all_of("allsess", "session", "s_list"),
            chains,
        )

    def look(self) -> list[str]:
        """Return what does not hold in the process table at this moment, in words."""
        try:
            with self.frozen() as table:
                return check_table(table, self._layouts)
        except DamagedError as error:
            return [str(error)]

    def violations(self, looks: int = 5, pause: float = 0.2) -> list[str]:
        """Return what does not hold in the process table, in words; an empty list where all is well.

        A process on its way in or out breaks rules for a moment.  So only what is still the case after LOOKS looks,
        PAUSE seconds apart, counts.
        """
        lasting = self.look()
        for _ in range(looks - 1):
            if not lasting:
                break
            time.sleep(pause)  # it is the guest's time that must pass
            again = set(self.look())
            lasting = [text for text in lasting if text in again]
        return lasting


def walk(memory: KernelMemory, layout: Layout, head: int, link: str) -> Iterator[Record]:
    """Yield the structures of the LIST whose head is at HEAD; raises DamagedError if it is none."""
    seen: set[int] = set()
    address = int.from_bytes(memory.read(head, 8), "little")
    back = head
    while address:
        if address in seen or len(seen) > _LONGEST_CHAIN:
            raise DamagedError(f"the list of struct {layout.name} at {head:#x} runs in a circle")
        seen.add(address)
        record = Record(memory, layout, address)
        previous = record.pointer(link, at=8)
        if previous != back:
            raise DamagedError(
                f"struct {layout.name} at {address:#x}: its back link {link}.le_prev is {previous:#x}, not {back:#x}"
            )
        yield record
        back = address + layout.offset(link)
        address = record.pointer(link)


def check_table(table: ProcessTable, layouts: dict[str, Layout]) -> list[str]:
    """Return the invariants of kern_proc.c that TABLE breaks, in words."""
    wrong: list[str] = []
    processes = {process.address: process for _, process in table.processes}
    groups = {group.address: group for _, group in table.groups}
    sessions = {session.address: session for _, session in table.sessions}
    wrong += _in_their_chains(table)
    wrong += _unique(table)
    children: dict[int, set[int]] = {}
    members: Counter[int] = Counter()
    for process in processes.values():
        wrong += _process(process, processes, groups, children)
        members[process.pointer("p_pgrp")] += 1
    in_session: Counter[int] = Counter()
    for group in groups.values():
        in_session[group.pointer("pg_session")] += 1
        wrong += _group(group, sessions, processes, members[group.address], layouts)
    for session in sessions.values():
        wrong += _session(session, processes, in_session[session.address])
    return wrong


def _in_their_chains(table: ProcessTable) -> Iterator[str]:
    for kind, records, member in (
        ("process", table.processes, "p_pid"),
        ("process group", table.groups, "pg_id"),
        ("session", table.sessions, "s_sid"),
    ):
        for chain, record in records:
            number = record.integer(member)
            if number % table.chains != chain:
                yield f"{kind} {number} is in hash chain {chain}, where nobody looks for it ({number % table.chains})"


def _unique(table: ProcessTable) -> Iterator[str]:
    for kind, records, member in (
        ("process", table.processes, "p_pid"),
        ("process group", table.groups, "pg_id"),
        ("session", table.sessions, "s_sid"),
    ):
        counted = Counter(record.integer(member) for _, record in records)
        for number, count in counted.items():
            if count > 1:
                yield f"there are {count} times a {kind} {number}"


def _process(
    process: Record, processes: dict[int, Record], groups: dict[int, Record], children: dict[int, set[int]]
) -> Iterator[str]:
    pid = process.integer("p_pid")
    name = f"process {pid} ({process.text('p_comm', 16)})"
    zombie = process.integer("p_stat") == _SZOMB
    parent = process.pointer("p_pptr")
    if parent == 0:
        if pid != 0:
            yield f"{'zombie' if zombie else 'process'} {pid} has no parent"
    elif parent not in processes:
        yield f"{name} has a parent (struct proc at {parent:#x}) that is in no hash chain"
    else:
        if parent not in children:
            listed = walk(process.memory, process.layout, processes[parent].place("p_children"), "p_sibling")
            children[parent] = {child.address for child in listed}
        if process.address not in children[parent]:
            yield f"{name} is not among the children of its parent {processes[parent].integer('p_pid')}"
    group = process.pointer("p_pgrp")
    if group not in groups:
        yield f"{name} is in a process group (struct pgrp at {group:#x}) that is in no hash chain"
    flags = process.integer("p_flags")
    holds = process.word("p_lock") & _HOLDS
    # A vfork() parent holds its child, and exiting threads their process, for as long as that takes.
    if holds and not flags & (_P_PPWAIT | _P_WEXIT | _P_EXEC):
        yield f"{name} is held {holds} times by nobody (p_lock)"


def _group(
    group: Record, sessions: dict[int, Record], processes: dict[int, Record], members: int, layouts: dict[str, Layout]
) -> Iterator[str]:
    name = f"process group {group.integer('pg_id')}"
    listed = list(walk(group.memory, layouts["proc"], group.place("pg_members"), "p_pglist"))
    for member in listed:
        pid = member.integer("p_pid")
        if member.address not in processes:
            yield f"{name} has a member, process {pid}, that is in no hash chain"
        elif member.pointer("p_pgrp") != group.address:
            yield f"{name} has process {pid} among its members, which is in another group"
    if len(listed) != members:
        yield f"{name} has {len(listed)} members, but {members} processes say they are in it"
    session = sessions.get(group.pointer("pg_session"))
    if session is None:
        yield f"{name} is in a session that is in no hash chain"
        return
    tty = session.pointer("s_ttyp")
    foreground = bool(tty) and Record(group.memory, layouts["tty"], tty).pointer("t_pgrp") == group.address
    references = group.integer("pg_refs")
    owned = _owned_descriptors(group, layouts["sigio"])
    wanted = len(listed) + foreground + owned
    if group.integer("pg_id") != 0 and references != wanted:
        terminal = " and a terminal" if foreground else ""
        terminal += f" and {owned} descriptors" if owned else ""
        yield f"{name} counts {references} references (pg_refs), for {len(listed)} members{terminal}"


def _owned_descriptors(group: Record, layout: Layout) -> int:
    """Count the descriptors whose signals go to GROUP (fcntl F_SETOWN): each holds a reference."""
    address = group.pointer("pg_sigiolst")
    count = 0
    while address:
        count += 1
        if count > _LONGEST_CHAIN:
            raise DamagedError(f"the list of descriptors owned by process group {group.integer('pg_id')} does not end")
        address = Record(group.memory, layout, address).pointer("sio_pgsigio")
    return count


def _session(session: Record, processes: dict[int, Record], groups: int) -> Iterator[str]:
    number = session.integer("s_sid")
    count = session.integer("s_count")
    if count != groups:
        yield f"session {number} counts {count} references (s_count), for {groups} process groups"
    leader = session.pointer("s_leader")
    if leader and leader not in processes:
        yield f"session {number} has a leader (struct proc at {leader:#x}) that is in no hash chain"
    elif leader and processes[leader].integer("p_pid") != number:
        yield f"session {number} has process {processes[leader].integer('p_pid')} as its leader"

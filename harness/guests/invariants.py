# SPDX-License-Identifier: BSD-2-Clause
"""What must hold in a kernel's process table whenever nothing is going on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from harness.guests.kernelmemory import LONGEST_CHAIN, DamagedError, KernelStruct, ProcessTable, walk
from harness.machine.debuginfo import Layout

# kern_proc.c: PLOCK_MASK since February 2020.  Before, bit 28 was part of the count, which never got so far; today it
# is a reservation for whoever waits, and no hold.
HOLDS = 0x0FFFFFFF
_SZOMB = 4  # sys/proc.h
_P_PPWAIT, _P_WEXIT, _P_EXEC = 0x10, 0x2000, 0x8000000


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
    process: KernelStruct,
    processes: dict[int, KernelStruct],
    groups: dict[int, KernelStruct],
    children: dict[int, set[int]],
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
    holds = process.word("p_lock") & HOLDS
    # A vfork() parent holds its child, and exiting threads their process, for as long as that takes.
    if holds and not flags & (_P_PPWAIT | _P_WEXIT | _P_EXEC):
        yield f"{name} is held {holds} times by nobody (p_lock)"


def _group(
    group: KernelStruct,
    sessions: dict[int, KernelStruct],
    processes: dict[int, KernelStruct],
    members: int,
    layouts: dict[str, Layout],
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
    foreground = bool(tty) and KernelStruct(group.memory, layouts["tty"], tty).pointer("t_pgrp") == group.address
    references = group.integer("pg_refs")
    owned = _owned_descriptors(group, layouts["sigio"])
    wanted = len(listed) + foreground + owned
    if group.integer("pg_id") != 0 and references != wanted:
        terminal = " and a terminal" if foreground else ""
        terminal += f" and {owned} descriptors" if owned else ""
        yield f"{name} counts {references} references (pg_refs), for {len(listed)} members{terminal}"


def _owned_descriptors(group: KernelStruct, layout: Layout) -> int:
    """Count the descriptors whose signals go to GROUP (fcntl F_SETOWN): each holds a reference."""
    address = group.pointer("pg_sigiolst")
    count = 0
    while address:
        count += 1
        if count > LONGEST_CHAIN:
            raise DamagedError(f"the list of descriptors owned by process group {group.integer('pg_id')} does not end")
        address = KernelStruct(group.memory, layout, address).pointer("sio_pgsigio")
    return count


def _session(session: KernelStruct, processes: dict[int, KernelStruct], groups: int) -> Iterator[str]:
    number = session.integer("s_sid")
    count = session.integer("s_count")
    if count != groups:
        yield f"session {number} counts {count} references (s_count), for {groups} process groups"
    leader = session.pointer("s_leader")
    if leader and leader not in processes:
        yield f"session {number} has a leader (struct proc at {leader:#x}) that is in no hash chain"
    elif leader and processes[leader].integer("p_pid") != number:
        yield f"session {number} has process {processes[leader].integer('p_pid')} as its leader"

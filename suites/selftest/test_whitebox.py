"""The process table is read from memory as the kernel's debug file describes it, and each broken rule is noticed."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from harness.errors import UsageError
from harness.guests.invariants import check_table
from harness.guests.kernelmemory import DamagedError, KernelMemory, ProcessTable, Record, walk
from harness.machine.debuginfo import DebugInformation, Layout
from harness.machine.description import MachineDescription
from harness.machine.gdbstub import GdbStub
from harness.machine.qemu import Machine
from harness.store import Store

SOURCE = """\
struct list { void *first, **prev; };
struct proc { struct list p_list; int p_pid; unsigned flag : 3; char name[20]; };
struct session;
struct proc table[4];
int second(int x)
{
        return x * 3;
}
int first(int x)
{
        return second(x) + table[x].p_pid;
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = tmp_path_factory.mktemp("debug")
    (folder / "kern_proc.c").write_text(SOURCE)
    out = folder / "kernel.debug"
    argv = ["gcc", "-g", "-O0", "-nostdlib", "-static", "-Wl,-e,first", "-o", str(out), str(folder / "kern_proc.c")]
    subprocess.run(argv, check=True)
    return out


def test_layouts_come_from_the_debug_file(compiled: Path) -> None:
    layout = DebugInformation(compiled).layouts("kern_proc.c", frozenset({"proc"}))["proc"]
    assert (layout.size, layout.offset("p_list"), layout.offset("p_pid"), layout.offset("name")) == (48, 0, 16, 21)
    with pytest.raises(UsageError, match="struct proc has no member p_ppid"):
        layout.offset("p_ppid")


@pytest.mark.parametrize("names", [{"proc", "pgrp"}, {"session"}])
def test_a_structure_that_is_not_there_is_an_error(compiled: Path, names: set[str]) -> None:
    with pytest.raises(UsageError, match=r"lacks (pgrp|session)"):
        DebugInformation(compiled).layouts("kern_proc.c", frozenset(names))


def test_an_address_has_a_source_line(compiled: Path) -> None:
    shown = subprocess.run(["nm", str(compiled)], check=True, capture_output=True, text=True).stdout
    address = next(int(line.split()[0], 16) for line in shown.splitlines() if line.endswith(" second"))
    information = DebugInformation(compiled)
    assert information.source_line(address) == "kern_proc.c:6"
    assert information.source_line(address + 8) == "kern_proc.c:7"
    assert information.source_line(1) is None


PROC = Layout("proc", 96, {name: 8 * number for number, name in enumerate(
    ("p_list", "_", "p_pglist", "_", "p_sibling", "_", "p_children", "p_pptr", "p_pgrp", "p_pid", "p_lock", "p_comm")
)} | {"p_stat": 76, "p_flags": 84})  # fmt: skip
PGRP = Layout(
    "pgrp", 48, {"pg_sigiolst": 40, "pg_list": 0, "pg_members": 16, "pg_session": 24, "pg_id": 32, "pg_refs": 36}
)
SESSION = Layout("session", 48, {"s_list": 0, "s_count": 16, "s_leader": 24, "s_ttyp": 32, "s_sid": 40})
TTY = Layout("tty", 16, {"t_pgrp": 8})
SIGIO = Layout("sigio", 40, {"sio_pgsigio": 8})
LAYOUTS = {layout.name: layout for layout in (PROC, PGRP, SESSION, TTY, SIGIO)}
CHAINS = 4
PROCESSES, GROUPS, SESSIONS, HEADS, TERMINAL = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000


class World:
    """A sound process table: swapper (0), init (1), a leader (6) with a child (7) in its group, and a zombie (9)."""

    def __init__(self) -> None:
        self.bytes = bytearray(0x6000)
        parents = {0: None, 1: 0, 6: 1, 7: 6, 9: 1}
        groups = {0: 0, 1: 1, 6: 6, 7: 6, 9: 9}
        for pid, parent in parents.items():
            self.put(self.proc(pid), PROC, p_pid=pid, p_stat=4 if pid == 9 else 2)
            self.point(self.proc(pid), PROC, p_pgrp=self.group(groups[pid]))
            self.point(self.proc(pid), PROC, p_pptr=0 if parent is None else self.proc(parent))
        for number, session in {0: 0, 1: 1, 6: 6, 9: 1}.items():
            members = [self.proc(pid) for pid, group in groups.items() if group == number]
            self.put(self.group(number), PGRP, pg_id=number, pg_refs=len(members) + (number == 6))
            self.point(self.group(number), PGRP, pg_session=self.session(session))
            self.link(self.group(number) + PGRP.offset("pg_members"), members, PROC.offset("p_pglist"))
        for number, count in {0: 1, 1: 2, 6: 1}.items():
            self.put(self.session(number), SESSION, s_sid=number, s_count=count)
            self.point(self.session(number), SESSION, s_leader=self.proc(number))
        self.point(self.session(6), SESSION, s_ttyp=TERMINAL)
        self.point(TERMINAL, TTY, t_pgrp=self.group(6))
        for pid in parents:
            children = [self.proc(child) for child, parent in parents.items() if parent == pid]
            self.link(self.proc(pid) + PROC.offset("p_children"), children, PROC.offset("p_sibling"))
        for chain in range(CHAINS):
            for kind, (place, numbers) in enumerate(
                ((self.proc, parents), (self.group, {0, 1, 6, 9}), (self.session, {0, 1, 6}))
            ):
                records = [place(number) for number in sorted(numbers) if number % CHAINS == chain]
                self.link(HEADS + 24 * chain + 8 * kind, records, 0)

    @staticmethod
    def proc(pid: int) -> int:
        return PROCESSES + 0x80 * pid

    @staticmethod
    def group(number: int) -> int:
        return GROUPS + 0x80 * number

    @staticmethod
    def session(number: int) -> int:
        return SESSIONS + 0x80 * number

    def put(self, address: int, layout: Layout, **values: int) -> None:
        for member, value in values.items():
            struct.pack_into("<i", self.bytes, address + layout.offset(member), value)

    def point(self, address: int, layout: Layout, **values: int) -> None:
        for member, value in values.items():
            struct.pack_into("<Q", self.bytes, address + layout.offset(member), value)

    def link(self, head: int, records: list[int], offset: int) -> None:
        back = head
        for record in [*records, 0]:
            struct.pack_into("<Q", self.bytes, back, record)
            if record:
                struct.pack_into("<Q", self.bytes, record + offset + 8, back)
                back = record + offset

    def own(self, group: int, sigio: int) -> World:
        self.point(group, PGRP, pg_sigiolst=sigio)
        return self

    def read(self, address: int, size: int) -> bytes:
        if address + size > len(self.bytes):
            raise DamagedError("nothing there")
        return bytes(self.bytes[address : address + size])

    def problems(self) -> list[str]:
        memory = cast("KernelMemory", self)

        def chains(kind: int, layout: Layout, link: str) -> tuple[tuple[int, Record], ...]:
            return tuple(
                (chain, record)
                for chain in range(CHAINS)
                for record in walk(memory, layout, HEADS + 24 * chain + 8 * kind, link)
            )

        try:
            table = ProcessTable(
                chains(0, PROC, "p_list"), chains(1, PGRP, "pg_list"), chains(2, SESSION, "s_list"), CHAINS
            )
            return check_table(table, LAYOUTS)
        except DamagedError as error:
            return [str(error)]


def test_a_sound_table_breaks_no_rule() -> None:
    assert World().problems() == []


Damage = Callable[[World], object]

DAMAGES: dict[str, tuple[Damage, str]] = {
    "chain": (lambda w: w.put(w.proc(7), PROC, p_pid=8), r"process 8 is in hash chain 3, where nobody looks for it"),
    "same pid": (lambda w: w.put(w.proc(9), PROC, p_pid=1), r"there are 2 times a process 1"),
    "no parent": (lambda w: w.point(w.proc(9), PROC, p_pptr=0), r"zombie 9 has no parent"),
    "parent gone": (lambda w: w.point(w.proc(7), PROC, p_pptr=w.proc(3)), r"process 7 .* has a parent .* no hash"),
    "not a child": (lambda w: w.point(w.proc(7), PROC, p_pptr=w.proc(1)), r"not among the children of its parent 1"),
    "held": (lambda w: w.put(w.proc(7), PROC, p_lock=1), r"process 7 .* is held 1 times by nobody"),
    "no group": (lambda w: w.point(w.proc(7), PROC, p_pgrp=w.group(3)), r"process 7 .* in a process group .* no hash"),
    "other group": (lambda w: w.point(w.proc(7), PROC, p_pgrp=w.group(9)), r"process 7 .*which is in another group"),
    "references": (lambda w: w.put(w.group(9), PGRP, pg_refs=2), r"group 9 counts 2 references .* for 1 members$"),
    "terminal's": (lambda w: w.put(w.group(6), PGRP, pg_refs=2), r"group 6 counts 2 .* for 2 members and a terminal"),
    "descriptor's": (lambda w: w.own(w.group(9), 0x5100), r"group 9 counts 1 .* for 1 members and 1 descriptors"),
    "owners' circle": (lambda w: [w.own(at, 0x5100) for at in (w.group(9), 0x5108 - 40)], r"descriptors .* not end"),
    "session gone": (lambda w: w.point(w.group(9), PGRP, pg_session=w.session(3)), r"group 9 is in a session that"),
    "groups": (lambda w: w.put(w.session(1), SESSION, s_count=3), r"session 1 counts 3 references .* 2 process groups"),
    "leader": (lambda w: w.point(w.session(6), SESSION, s_leader=w.proc(7)), r"session 6 has process 7 as its leader"),
    "leader gone": (lambda w: w.point(w.session(6), SESSION, s_leader=w.proc(3)), r"session 6 has a leader .* no hash"),
    "circle": (lambda w: w.link(w.proc(9), [w.proc(1)], 0), r"back link|circle"),
    "back link": (lambda w: w.point(w.proc(9) + 8, PROC, p_list=8), r"its back link p_list.le_prev is 0x8"),
    "first back link": (lambda w: w.point(w.proc(1) + 8, PROC, p_list=8), r"its back link p_list.le_prev is 0x8"),
    "wild link": (lambda w: w.point(w.proc(9), PROC, p_list=1 << 40), r"nothing there"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_each_broken_rule_is_noticed(damage: Damage, words: str) -> None:
    import re

    world = World()
    damage(world)
    assert any(re.search(words, problem) for problem in world.problems()), world.problems()


@pytest.mark.parametrize("flag", [0x10, 0x2000])
def test_a_hold_by_a_vfork_parent_or_while_exiting_is_no_leak(flag: int) -> None:
    world = World()
    world.put(world.proc(7), PROC, p_lock=1, p_flags=flag)
    assert world.problems() == []


@pytest.mark.on_vm
def test_memory_is_written_whole_however_much_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path / ("deep" * 30))  # deeper than the address of a socket may be long
    with Machine(MachineDescription(memory=128), store) as machine:
        machine.start(paused=True)  # with paging off, addresses are physical
        data = bytes(range(256)) * 40 + b"end"
        with GdbStub(machine.gdb_socket) as stub:
            stub.write(0x200003, data)
            assert stub.read(0x200003 + len(data) - 3, 4) == b"end\0"
        machine.pause()
        assert machine.read_physical(0x200002, len(data) + 2) == b"\0" + data + b"\0"

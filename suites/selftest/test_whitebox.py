# SPDX-License-Identifier: BSD-2-Clause
"""The process table is read from memory as the kernel's debug file describes it, and each broken rule is noticed."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from elftools.elf.elffile import ELFFile

from harness.errors import HarnessError, UsageError
from harness.guests import whitebox
from harness.guests.allocations import counters_by_layout, counters_by_size, in_use
from harness.guests.invariants import check_table
from harness.guests.kernelmemory import DamagedError, KernelMemory, KernelStruct, ProcessTable, walk
from harness.machine.debuginfo import DebugInformation, Layout, load_layouts
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
struct lone { int only; };
struct either { long kind; union { int number; void *address; }; };
struct use { long memuse, inuse; char pad[176]; };
typedef struct use use_t;
struct malloc_type { struct malloc_type *ks_next; int ks_magic; use_t *ks_use; use_t ks_inside[3]; void *ks_any; };
struct malloc_type M_PROC[1];
struct lone lone;
struct either either;
"""


@pytest.fixture(scope="module", params=[2, 3, 4, 5])
def compiled(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Compile a program like the debug file of a kernel, in a version of DWARF."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = tmp_path_factory.mktemp("debug")
    # What is the same in many places is moved to where it is said once.
    many = "".join(f"struct s{n} {{ long a; union {{ int b; void *c; }}; }} v{n};\n" for n in range(12))
    (folder / "kern_proc.c").write_text(SOURCE + many)
    out = folder / "kernel.debug"
    argv = [
        "gcc",
        f"-gdwarf-{request.param}",
        "-gstrict-dwarf",
        "-O0",
        "-nostdlib",
        "-static",
        "-Wl,-e,first",
        "-o",
        str(out),
        str(folder / "kern_proc.c"),
    ]
    subprocess.run(argv, check=True)
    return out


def test_layouts_come_from_the_debug_file(compiled: Path) -> None:
    layout = DebugInformation(compiled).layouts("kern_proc.c", frozenset({"proc"}))["proc"]
    assert (layout.size, layout.offset("p_list"), layout.offset("p_pid"), layout.offset("name")) == (48, 0, 16, 21)
    with pytest.raises(UsageError, match="struct proc has no member p_ppid"):
        layout.offset("p_ppid")


def test_structures_behind_members_are_found_by_their_place(compiled: Path) -> None:
    names = {"malloc_type", "malloc_type.ks_use", "malloc_type.ks_inside", "lone", "either"}
    layouts = DebugInformation(compiled).layouts("kern_proc.c", frozenset(names))
    outer, use = layouts["malloc_type"], layouts["malloc_type.ks_use"]
    assert layouts.keys() == names
    assert (use.name, use.size, use.offset("inuse")) == ("use", 192, 8)
    assert layouts["malloc_type.ks_inside"] == use
    assert outer.pointers == {"ks_next", "ks_use", "ks_any"}
    assert [outer.offset(name) for name in ("ks_magic", "ks_use", "ks_inside")] == [8, 16, 24]
    assert layouts["lone"].offset("only") == 0
    assert layouts["either"].offsets == {"kind": 0, "": 8}
    with pytest.raises(UsageError, match=r"lacks malloc_type\.ks_any"):  # which points to nothing in particular
        DebugInformation(compiled).layouts("kern_proc.c", frozenset({"malloc_type.ks_any"}))


def test_these_files_are_what_they_should_be(compiled: Path, request: pytest.FixtureRequest) -> None:
    """Members' places in each form that compilers give them; version 5 keeps constants among the abbreviations."""
    version = request.node.callspec.params["compiled"]
    forms = set()
    with compiled.open("rb") as stream:
        dwarf = ELFFile(stream).get_dwarf_info()
        for unit in dwarf.iter_CUs():
            assert unit["version"] == version
            for die in unit.iter_DIEs():
                if (place := die.attributes.get("DW_AT_data_member_location")) is not None:
                    forms.add(place.form)
    assert ("DW_FORM_implicit_const" in forms) is (version == 5)
    assert (forms == {"DW_FORM_block1"}) is (version == 2)


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

        def chains(kind: int, layout: Layout, link: str) -> tuple[tuple[int, KernelStruct], ...]:
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


def test_a_reservation_to_wait_is_no_hold() -> None:
    world = World()
    world.put(world.proc(7), PROC, p_lock=0x10000000)
    assert world.problems() == []
    world.put(world.proc(7), PROC, p_lock=0x10000002)
    assert "is held 2 times by nobody" in "".join(world.problems())


# ---- Allocations ------------------------------------------------------------------------------------------------

MAGIC = 877983977
KIND, SLOTS = 0x1000, 0x9000


class Counted:
    """The memory of a malloc type: 3 CPUs that count 7, -2 and 40, in slots of STRIDE bytes."""

    def __init__(self, size: int, stride: int, *, uses: int, magic: int, elsewhere: bool) -> None:
        self.bytes = bytearray(0x20000)
        slots = SLOTS if elsewhere else KIND + uses
        if elsewhere:
            struct.pack_into("<Q", self.bytes, KIND + uses, slots)
        struct.pack_into("<I", self.bytes, KIND + magic, MAGIC)
        for cpu, count in enumerate((7, -2, 40)):
            struct.pack_into("<Qq", self.bytes, slots + stride * cpu, 999, count)
        self.size = size

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.bytes[address : address + size])


ERAS = {
    "2017": (16576, 64, 64, 16464, False),
    "2020": (128, 64, 56, 36, True),
    "2021": (384, 192, 56, 36, True),
}


@pytest.fixture(params=ERAS)
def counted(request: pytest.FixtureRequest) -> Counted:
    size, stride, uses, magic, elsewhere = ERAS[request.param]
    return Counted(size, stride, uses=uses, magic=magic, elsewhere=elsewhere)


def test_allocations_are_counted_over_all_cpus(counted: Counted) -> None:
    assert in_use(counters_by_size(counted.size), "M_PROC", KIND, 3, counted.read) == 45


def test_debug_information_counts_as_the_table_does(counted: Counted) -> None:
    size, stride, uses, magic, elsewhere = next(era for era in ERAS.values() if era[0] == counted.size)
    pointers = frozenset({"ks_use"} if elsewhere else ())
    outer = Layout("malloc_type", size, {"ks_use": uses, "ks_magic": magic}, pointers)
    use = Layout("kmalloc_use", stride, {"memuse": 0, "inuse": 8})
    counters = counters_by_layout({"malloc_type": outer, "malloc_type.ks_use": use})
    assert counters == counters_by_size(size)


def test_what_lies_otherwise_than_known_is_noticed(counted: Counted) -> None:
    counters = counters_by_size(counted.size)
    struct.pack_into("<I", counted.bytes, KIND + counters.magic, 1)
    with pytest.raises(HarnessError, match="M_PROC bears the mark 1, not 877983977"):
        in_use(counters, "M_PROC", KIND, 3, counted.read)


def test_counters_that_are_addresses_are_noticed(counted: Counted) -> None:
    counters = counters_by_size(counted.size)
    slots = SLOTS if counters.elsewhere else KIND + counters.uses
    struct.pack_into("<Q", counted.bytes, slots + counters.stride + counters.in_use, 0xFFFFF80012345678)
    with pytest.raises(HarnessError, match=r"M_PROC has -?\d+ allocations in use: its counters are not where"):
        in_use(counters, "M_PROC", KIND, 3, counted.read)


def test_a_size_of_no_known_era_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"a struct malloc_type of 256 bytes is of no known era .*--debug"):
        counters_by_size(256)


def test_what_debug_information_says_is_kept(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = frozenset({"proc", "malloc_type", "malloc_type.ks_use"})
    monkeypatch.setattr(whitebox, "_STRUCTURES", names)
    first = whitebox._layouts(compiled, tmp_path)
    (kept,) = tmp_path.iterdir()
    assert load_layouts(kept.read_text()) == first
    assert first["malloc_type"].pointers
    whitebox._layouts.cache_clear()
    monkeypatch.setattr(DebugInformation, "layouts", None)  # which nobody asks again
    assert whitebox._layouts(compiled, tmp_path) == first
    whitebox._layouts.cache_clear()
    monkeypatch.undo()
    monkeypatch.setattr(whitebox, "_STRUCTURES", names)
    kept.write_text("[1, 2")
    assert whitebox._layouts(compiled, tmp_path) == first
    whitebox._layouts.cache_clear()
    monkeypatch.setattr(whitebox, "_STRUCTURES", names | {"lone"})  # as a later harness asks for more
    assert "lone" in whitebox._layouts(compiled, tmp_path)
    whitebox._layouts.cache_clear()


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

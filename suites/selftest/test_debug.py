# SPDX-License-Identifier: BSD-2-Clause
"""A kernel that stands still is looked into: by our commands, in drgn, in gdb, and in a dump of a machine's memory."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from elftools.elf.elffile import ELFFile

from harness.cli import main
from harness.errors import HarnessError, UsageError
from harness.guests.console import Console
from harness.guests.drgnview import drgn_program, functions
from harness.guests.gdbview import write_script
from harness.guests.looking import STRUCTURES, Looking, obey
from harness.guests.whitebox import layouts_of
from harness.images.control import READY, build_control_image
from harness.kernels.artefact import Kernel
from harness.machine.core import MemoryDump
from harness.machine.description import LinuxStyleBoot, MachineDescription
from harness.machine.elf import KernelSymbols
from harness.machine.qemu import Machine
from harness.races.threads import Threads
from harness.store import Store

#: A process table with what a kernel's has, linked as it would be: swapper, init that waits, its held zombie 7.
SOURCE = """
char data_begins[4096] __attribute__((aligned(4096))) = { 1 };  /* gdb reads no half pages of a file */
char wait_word[8192] __attribute__((aligned(4096))) = "wait";
typedef unsigned int u_int;
struct list { void *first; };
struct entry { void *next, **prev; };
struct node { void *left, *right, *parent; int color; };
struct thread { const char *td_wmesg; const void *td_wchan; };
struct lwp { long pad[2]; union { struct node lwp_rbnode; } u; int lwp_tid, lwp_stat, lwp_lock;
        u_int lwp_siglist[4]; struct thread *lwp_thread; };
struct sigio { void *sio_pgsigio; };
struct tty { void *pad; struct pgrp *t_pgrp; };
struct session { struct entry s_list; int s_count, s_sid; void *s_leader; struct tty *s_ttyp; };
struct pgrp { struct entry pg_list; struct list pg_members; struct session *pg_session; int pg_id, pg_refs, pg_jobc;
        struct sigio *pg_sigiolst; };
struct proc { struct entry p_list, p_pglist, p_sibling; struct list p_children; struct proc *p_pptr;
        struct pgrp *p_pgrp; int p_pid; u_int p_lock; int p_stat; u_int p_flags; char p_comm[17];
        unsigned short p_xstat; u_int p_siglist[4]; struct { struct lwp *root; } p_lwp_tree; };
struct procglob { struct list allproc, allpgrp, allsess; long token; };

extern struct proc swapper, init, zombie;
extern struct pgrp group0, group1;
extern struct session session0, session1;
extern struct lwp second, only;
struct procglob procglob[2] = {
        { { &swapper }, { &group0 }, { &session0 }, 0 }, { { &init }, { &group1 }, { &session1 }, 0 } };
struct session session0 = { { 0, (void **)&procglob[0].allsess }, 1, 0, &swapper, 0 };
struct session session1 = { { 0, (void **)&procglob[1].allsess }, 1, 1, &init, 0 };
struct pgrp group0 = { { 0, (void **)&procglob[0].allpgrp }, { &swapper }, &session0, 0, 1, 0, 0 };
struct pgrp group1 = { { 0, (void **)&procglob[1].allpgrp }, { &init }, &session1, 1, 2, 0, 0 };
struct thread waits = { wait_word, &init }, runs = { 0, &init };
struct thread alone = { 0, &swapper };
struct lwp only = { { 0 }, { { 0, 0, 0, 0 } }, 1, 1, 0, { 0 }, &alone };
struct lwp first = { { 0 }, { { 0, &second, 0, 0 } }, 1, 3, 0, { 0 }, &waits };
struct lwp second = { { 0 }, { { 0, 0, &first, 0 } }, 2, 1, 1, { 0x4000 }, &runs };
struct proc swapper = { { 0, (void **)&procglob[0].allproc }, { 0, (void **)&group0.pg_members }, { 0, 0 }, { &init },
        0, &group0, 0, 0, 2, 0, "swapper", 0, { 0 }, { &only } };
struct proc init = { { &zombie, (void **)&procglob[1].allproc }, { &zombie, (void **)&group1.pg_members },
        { 0, (void **)&swapper.p_children }, { &zombie }, &swapper, &group1, 1, 0, 2, 0x800, "init", 0, { 1 << 19 },
        { &first } };
struct proc zombie = { { 0, (void **)&init.p_list }, { 0, (void **)&init.p_pglist },
        { 0, (void **)&init.p_children }, { 0 }, &init, &group1, 7, 2, 4, 0, "sh", 3 << 8, { 0 }, { 0 } };
struct tty terminal;
struct sigio sigio;
int _start(void) { return 0; }
char data_ends[8192] = { 1 };
"""


def linked(folder: Path, source: str = SOURCE) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    (folder / "kern_proc.c").write_text(source)
    out = folder / "kernel.debug"
    flags = ["-g", "-O0", "-mcmodel=kernel", "-nostdlib", "-static", "-fno-pie", "-no-pie", "-Wl,--build-id=none"]
    flags += ["-fno-toplevel-reorder", "-Wl,-Ttext-segment=0xffffffff80200000"]
    subprocess.run(["gcc", *flags, "-o", str(out), str(folder / "kern_proc.c")], check=True)
    return out


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linked(tmp_path_factory.mktemp("kernel"))


class FileMemory:
    """A kernel's memory as it is before its first instruction; pages are whole, as they would be."""

    def __init__(self, kernel: Path) -> None:
        with kernel.open("rb") as stream:
            self._parts = [(each["p_vaddr"], each.data()) for each in ELFFile(stream).iter_segments("PT_LOAD")]

    def read_virtual(self, address: int, size: int) -> bytes:
        found = bytearray(size)
        hit = False
        for start, data in self._parts:
            low, high = max(start, address), min(start + len(data), address + size)
            if low < high:
                hit = True
                found[low - address : high - address] = data[low - start : high - start]
        if not hit:
            raise HarnessError(f"nothing is at {address:#x}")
        return bytes(found)


@pytest.fixture
def look(kernel: Path) -> Looking:
    return Looking(FileMemory(kernel), KernelSymbols(kernel), layouts_of(kernel, None, STRUCTURES))


def test_ps_shows_each_process_and_what_it_waits_for(look: Looking) -> None:
    _, *lines = look.ps()
    assert [line.split() for line in lines] == [
        ["0", "-", "0", "0", "0", "active", "-", "swapper"],
        ["1", "0", "1", "1", "0", "active", "TRACED", "init", "[wait]"],
        ["7", "1", "1", "1", "2", "zombie", "-", "sh"],
    ]


def test_pgrp_shows_groups_and_their_members(look: Looking) -> None:
    _, *lines = look.pgrp()
    assert [line.split() for line in lines] == [["0", "0", "0", "1", "0"], ["1", "1", "0", "2", "1", "7"]]


def test_holds_names_who_is_held_and_what_is_broken(look: Looking) -> None:
    said = list(look.holds())
    assert said == [
        "thread 2 of process 1 (init) is held once (lwp_lock)",
        "process 7 (sh) is held 2 times (p_lock)",
        "process 7 (sh) is held 2 times by nobody (p_lock)",
    ]


def test_why_says_what_a_zombie_waits_for(look: Looking) -> None:
    said = "\n".join(look.why(7))
    for words in (
        "process 7 (sh) is a zombie, exited with 3",
        "waits to be waited for by process 1 (init), which sleeps at 'wait'",
        "it is held 2 times (p_lock)",
        "in group 1 of session 1",
    ):
        assert words in said, said


def test_a_zombies_own_hold_is_no_news(tmp_path: Path) -> None:
    was = '&init, &group1, 7, 2, 4, 0, "sh"'
    assert was in SOURCE
    own = linked(tmp_path, SOURCE.replace(was, '&init, &group1, 7, 1, 4, 0x2000, "sh"'))
    look = Looking(FileMemory(own), KernelSymbols(own), layouts_of(own, None, STRUCTURES))
    assert not any("process 7" in said for said in look.holds())
    assert "by its own last thread" in "\n".join(look.why(7))


def test_why_says_what_threads_do_and_what_is_pending(look: Looking) -> None:
    said = "\n".join(look.why(1))
    for words in ("thread 1 sleeps at 'wait'", "thread 2 runs", "thread 2: pending: signal 15",
                  "pending for all of it: signal 20", "its children are process 7 (sh)"):  # fmt: skip
        assert words in said, said


@pytest.mark.parametrize(
    ("line", "words"),
    [("dfly-who", "dfly-ps, dfly-pgrp"), ("", "no command"), ("dfly-why", "wants a process"),
     ("dfly-why seven", "wants a process"), ("dfly-why 8", "no process 8"), ("dfly-ps 7", "takes no words")],
)  # fmt: skip
def test_what_is_no_command_is_told_in_words(look: Looking, line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        list(obey(look, line))


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("{ { 0, &second, 0, 0 } }", "{ { 0, &first, 0, 0 } }", "tree of threads"),
        ("{ &init }, { &group1 }", "{ &swapper }, { &group1 }", "back link"),
    ],
)
def test_a_table_that_leads_in_a_circle_is_no_hang(tmp_path: Path, right: str, wrong: str, words: str) -> None:
    assert right in SOURCE
    broken = linked(tmp_path, SOURCE.replace(right, wrong))
    with pytest.raises(HarnessError, match=words):
        list(Looking(FileMemory(broken), KernelSymbols(broken), layouts_of(broken, None, STRUCTURES)).ps())


@pytest.mark.parametrize(
    ("pid", "tid", "thread"),
    [(0, 0, "alone"), (1, 1, "waits"), (1, 2, "runs"), (1, 3, ""), (1, 0, ""), (7, 0, ""), (8, 0, "")],
    ids=["the only one", "first", "second", "none such", "one of two", "zombie", "nobody"],
)
def test_a_thread_is_found_by_its_process_and_number(kernel: Path, pid: int, tid: int, thread: str) -> None:
    assert thread_of(kernel, pid, tid) == (KernelSymbols(kernel).symbol_address(thread) if thread else 0)


def test_no_thread_is_found_in_a_list_that_is_being_changed(tmp_path: Path) -> None:
    right = "{ &init }, { &group1 }"
    assert right in SOURCE
    assert thread_of(linked(tmp_path, SOURCE.replace(right, "{ &swapper }, { &group1 }")), 1, 1) == 0


def thread_of(kernel: Path, pid: int, tid: int) -> int:
    symbols = KernelSymbols(kernel)
    layouts = layouts_of(kernel, None, frozenset({"proc", "procglob", "lwp", "thread"}))
    box = SimpleNamespace(has_debug_file=True, threads=layouts, symbols=symbols, has=symbols.__contains__)
    debugger = SimpleNamespace(read=FileMemory(kernel).read_virtual)
    return Threads(cast(Any, box)).of(cast(Any, debugger), pid, tid)


def test_drgn_knows_types_and_has_our_commands(kernel: Path, look: Looking, capsys: pytest.CaptureFixture[str]) -> None:
    drgn = pytest.importorskip("drgn")
    program = drgn_program(FileMemory(kernel), kernel)
    assert program["init"].p_pid.value_() == 1
    assert program["zombie"].p_pptr.p_comm.string_() == b"init"
    with pytest.raises(drgn.FaultError):
        program.read(0xFFFF_9000_0000_0000, 8)
    own = functions(look)
    own["dfly_why"](7)
    own["dfly_why"](8)
    said = capsys.readouterr().out
    assert "process 7 (sh) is a zombie" in said
    assert "there is no process 8" in said


@pytest.fixture
def stored(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "store"))
    store = Store()
    blob = store.add_blob(kernel)
    store.put(Kernel("k", elf=blob, version="DragonFly v1", debug=blob))
    store.put(Kernel("bare", elf=blob, version="DragonFly v1"))
    return store


@pytest.mark.skipif(shutil.which("gdb") is None, reason="no gdb")
def test_gdb_has_our_commands(kernel: Path, stored: Store, tmp_path: Path) -> None:
    code = "import sys; from harness.start import main; sys.exit(main())"
    ours = write_script(tmp_path, [sys.executable, "-c", code, "debug", "--from-gdb", "--kernel", "k"])
    argv = ["gdb", "-q", "-batch", "-nx", str(kernel), "-x", str(ours), "-ex", "dfly-ps", "-ex", "dfly-why 8"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert "zombie       -                sh" in done.stdout, done
    assert "there is no process 8" in done.stdout, done


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to look into"),
        (["--hold", "--core", "x"], "say what to look into"),
        (["--hold"], "none is held"),
        (["--hold", "nobody"], "no guest called nobody"),
        (["--core", "x"], "needs --kernel"),
        (["--core", "x", "--kernel", "bare"], "no debug file"),
        (["--core", "x", "--kernel", "k"], "x: not a dump"),
        (["-", "test_x"], "there is no run yet"),
        (["run.json"], "which test"),
    ],
)
def test_what_cannot_be_looked_into_takes_one_line(
    words: list[str], said: str, stored: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["debug", *words, "--command", "dfly-ps"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def dump_of(memory: dict[int, bytes], root: int | None) -> bytes:
    """Return a core as QEMU writes it: physical memory by address, and a note with the root of the page tables."""
    state = bytearray(440)
    struct.pack_into("<Q", state, 416, root or 0)
    note = b"" if root is None else struct.pack("<III", 5, len(state), 0) + b"QEMU\0\0\0\0" + bytes(state)
    count = 1 + len(memory)
    at = 64 + 56 * count
    headers = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(note), len(note), 0)
    body = note
    for address, data in memory.items():
        headers += struct.pack("<IIQQQQQQ", 1, 0, at + len(body), 0, address, len(data), len(data), 0)
        body += data
    sizes = struct.pack("<QQQIHHHHHH", 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 4, 62, 1) + sizes
    return head + headers + body


def tables(kernel: Path) -> dict[int, bytes]:
    """Return physical memory with the kernel's data at 2 MiB, in pages of 4 KiB, and the tables that map it."""
    memory = FileMemory(kernel)
    start, pages = 0xFFFFFFFF80200000, 16
    data = b""
    for number in range(pages):
        try:
            data += memory.read_virtual(start + 4096 * number, 4096)
        except HarnessError:
            data += bytes(4096)
    found = {0x200000: data}
    for level, (shift, place) in enumerate(((39, 0x1000), (30, 0x2000), (21, 0x3000))):
        entry = (0x2000, 0x3000, 0x4000)[level] | 3
        found[place] = b"".join(struct.pack("<Q", entry if n == start >> shift & 0x1FF else 0) for n in range(512))
    found[0x4000] = b"".join(struct.pack("<Q", (0x200000 + 4096 * n) | 3 if n < pages else 0) for n in range(512))
    return found


def test_a_dump_is_read_by_the_kernels_addresses(
    kernel: Path, stored: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = tmp_path / "core"
    core.write_bytes(dump_of(tables(kernel), 0x1000))
    assert main(["debug", "--core", str(core), "--kernel", "k", "--command", "dfly-ps", "--command", "dfly-why 7"]) == 0
    said = capsys.readouterr().out
    assert "zombie       -                sh" in said
    assert "waits to be waited for by process 1 (init)" in said
    with pytest.raises(HarnessError, match="nothing was mapped"):
        MemoryDump(core).read_virtual(0xFFFFFFFF90000000, 8)
    core.write_bytes(dump_of(tables(kernel), None))
    with pytest.raises(UsageError, match="no dump of QEMU's"):
        MemoryDump(core)


def test_large_pages_are_pages(tmp_path: Path) -> None:
    table = [bytearray(4096) for _ in range(3)]
    struct.pack_into("<Q", table[0], 8 * 511, 0x2003)
    struct.pack_into("<Q", table[1], 8 * 510, 0x3003)
    struct.pack_into("<Q", table[1], 8 * 511, 0x0 | 0x83)  # a gigabyte
    struct.pack_into("<Q", table[2], 8 * 1, 0x400000 | 0x83)  # two megabytes
    memory = {0x1000 * (1 + number): bytes(page) for number, page in enumerate(table)}
    core = tmp_path / "core"
    core.write_bytes(dump_of({**memory, 0x412000: b"here".ljust(4096, b"\0")}, 0x1000))
    dump = MemoryDump(core)
    assert dump.read_virtual(0xFFFFFFFF80212000, 4) == b"here"
    assert dump.read_virtual(0xFFFFFFFFC0412000, 4) == b"here"


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    image = build_control_image(Store().cache, lambda _: None)
    boot = LinuxStyleBoot(image.kernel, image.initrd, image.append)
    with Machine(MachineDescription(memory=256, boot=boot), Store(tmp_path_factory.mktemp("store"))) as machine:
        machine.start()
        console = Console(machine.serial[0], tmp_path_factory.mktemp("console") / "log")
        console.expect([READY], awaited="the guest", deadline=180)
        machine.pause()
        yield machine


@pytest.mark.on_vm
def test_a_dump_of_qemus_says_what_the_machine_does(paused: Machine, tmp_path: Path) -> None:
    core = tmp_path / "core"
    paused.dump_memory(core)
    dump = MemoryDump(core)
    for address in (0xFFFFFFFF81000000, 0xFFFFFFFF81000FF0, 0xFFFFFFFF81234560):
        assert dump.read_virtual(address, 64) == paused.read_virtual(address, 64)

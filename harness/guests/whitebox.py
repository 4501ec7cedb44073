# SPDX-License-Identifier: BSD-2-Clause
"""The running kernel from outside: its variables, and its process table with what must hold in it.

The machine's memory is read through QEMU and written through its gdb stub: no code of the guest runs, so reading works
on a kernel that hangs or sits in its debugger, and disturbs no measurement.  Names come from the kernel's file, where
structures lie from its debug file.
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache
from pathlib import Path

from harness.errors import UsageError
from harness.files import write_whole
from harness.guests.allocations import STRUCTURES as COUNTED
from harness.guests.allocations import Counters, counters_by_layout, counters_by_size, in_use
from harness.guests.invariants import check_table
from harness.guests.kernelmemory import DamagedError, KernelMemory, KernelStruct, ProcessTable, walk
from harness.machine.debugger import Debugger
from harness.machine.debuginfo import (
    DebugInformation,
    FunctionTable,
    Layout,
    dump_layouts,
    load_layouts,
)
from harness.machine.elf import KernelSymbols, data_address, read_code
from harness.machine.gdbstub import GdbStub
from harness.machine.lines import LineTables
from harness.machine.qemu import Machine

_UNIT = "kern_proc.c"
_STRUCTURES = frozenset({"proc", "pgrp", "session", "procglob", "tty", "sigio"}) | COUNTED
_OF_THREADS = frozenset({"thread", "lwkt_token", "lwkt_tokref", "globaldata", "lwp", "proc", "procglob"})
_FORMAT = 1  # of the layouts kept in the cache; raised when debug information is read otherwise

# Both files are named by their content; reading the second takes seconds.
_symbols = lru_cache(maxsize=4)(KernelSymbols)
_functions = lru_cache(maxsize=4)(FunctionTable)
_information = lru_cache(maxsize=4)(DebugInformation)
_data = lru_cache(maxsize=4)(data_address)
_line_tables = lru_cache(maxsize=4)(LineTables)


@lru_cache(maxsize=8)
def _layouts(debug: Path, cache: Path | None, asked_for: frozenset[str] | None = None) -> dict[str, Layout]:
    names = _STRUCTURES if asked_for is None else asked_for
    asked = hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()[:8]
    known = cache / f"layouts-{_FORMAT}-{asked}-{debug.name}.json" if cache is not None else None
    if known is not None and known.exists():
        with suppress(OSError, ValueError, KeyError, TypeError):  # written by halves: read anew
            return load_layouts(known.read_text())
    layouts = DebugInformation(debug).layouts(_UNIT, names)
    if known is not None:
        write_whole(known, dump_layouts(layouts))
    return layouts


def read_table(memory: KernelMemory, symbols: KernelSymbols, structures: Mapping[str, Layout]) -> ProcessTable:
    """Return the process table in MEMORY; raises DamagedError when it cannot be walked."""
    heads = _chains(memory, symbols, structures)
    memory.fetch(heads[0].address, len(heads) * structures["procglob"].size)

    def all_of(head: str, kind: str, link: str) -> tuple[tuple[int, KernelStruct], ...]:
        return tuple(
            (number, record)
            for number, chain in enumerate(heads)
            for record in walk(memory, structures[kind], chain.place(head), link)
        )

    return ProcessTable(
        all_of("allproc", "proc", "p_list"),
        all_of("allpgrp", "pgrp", "pg_list"),
        all_of("allsess", "session", "s_list"),
        len(heads),
    )


def _chains(memory: KernelMemory, symbols: KernelSymbols, structures: Mapping[str, Layout]) -> list[KernelStruct]:
    symbol, layout = symbols["procglob"], structures["procglob"]
    count = (symbol.size or 256 * layout.size) // layout.size
    return [KernelStruct(memory, layout, symbol.address + number * layout.size) for number in range(count)]


def find_process(
    memory: KernelMemory, symbols: KernelSymbols, structures: Mapping[str, Layout], pid: int
) -> KernelStruct | None:
    """Return process PID in MEMORY, dead or alive; raises DamagedError when its chain cannot be walked."""
    chains = _chains(memory, symbols, structures)
    chain = chains[pid % len(chains)].place("allproc")
    return next(
        (each for each in walk(memory, structures["proc"], chain, "p_list") if each.integer("p_pid") == pid), None
    )


def layouts_of(debug: Path, cache: Path | None, names: frozenset[str]) -> dict[str, Layout]:
    """Return how the structures NAMES lie by the file DEBUG, or by what CACHE has of that: reading it takes seconds."""
    return _layouts(debug, cache, names)


class Whitebox:
    """The kernel in file ELF as it runs on MACHINE; DEBUG is its debug file, where there is one.

    What the debug file says is kept in the folder CACHE: reading it takes seconds.
    """

    def __init__(self, machine: Machine, elf: Path, debug: Path | None = None, cache: Path | None = None) -> None:
        self._machine = machine
        self._elf = elf
        self._debug = debug
        self._cache = cache

    @property
    def has_debug_file(self) -> bool:
        """Whether its debug file is known."""
        return self._debug is not None

    # Variables and code

    @property
    def functions(self) -> FunctionTable:
        """Its functions by address; raises UsageError when its file has no symbols."""
        return _functions(self._elf)

    def code(self, address: int, size: int) -> bytes:
        """Return SIZE bytes of its file from virtual ADDRESS on; raises UsageError where its file has none."""
        return read_code(self._elf, address, size)

    @property
    def data(self) -> int:
        """Where its variables begin: nothing below is ever written to; raises UsageError for a damaged file."""
        return _data(self._elf)

    @property
    def lines(self) -> LineTables:
        """Its source lines; raises UsageError when its debug file is not known."""
        if self._debug is None:
            raise UsageError("the kernel has no debug file, so its source lines are unknown: import it with --debug")
        return _line_tables(self._debug)

    def source_line(self, address: int) -> str:
        """Return the source line of the code at ADDRESS, `kern_exit.c:378`; "" where that is not known."""
        return (_information(self._debug).source_line(address) or "") if self._debug is not None else ""

    @property
    def symbols(self) -> KernelSymbols:
        """The kernel's names; raises UsageError when its file has none."""
        return _symbols(self._elf)

    def address(self, name: str) -> int:
        """Return where the variable or function NAME is."""
        return self.symbols.symbol_address(name)

    def has(self, name: str) -> bool:
        """Tell whether this kernel has a variable NAME."""
        return name in self.symbols

    def size(self, name: str) -> int:
        """Return how many bytes the variable NAME has."""
        return self.symbols[name].size

    def read(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at the kernel's virtual ADDRESS; the machine may run meanwhile.

        Raises HarnessError where nothing is mapped.
        """
        return self._machine.read_virtual(address, size)

    def write(self, address: int, data: bytes) -> None:
        """Change the kernel's memory, its code included, between two instructions; the machine runs on afterwards.

        Raises HarnessError where nothing is mapped.
        """
        self._machine.standing(lambda stub: stub.write(address, data))

    def add(self, address: int, count: int) -> None:
        """Add COUNT to the 32-bit word at ADDRESS, as one instruction of the kernel's would; raises as write() does."""

        def increase(stub: GdbStub | Debugger) -> None:
            (value,) = struct.unpack("<I", stub.read(address, 4))
            stub.write(address, struct.pack("<I", value + count & 0xFFFFFFFF))

        self._machine.standing(increase)

    def word(self, name_or_address: str | int, size: int = 4) -> int:
        """Return an unsigned variable of SIZE bytes; one with a name is found whatever state the CPUs are in."""
        if isinstance(name_or_address, str):
            data = self._machine.read_physical(self.symbols[name_or_address].physical_address, size)
        else:
            data = self.read(name_or_address, size)
        return int.from_bytes(data, "little")

    def allocations(self, kind: str) -> int:
        """Return how many pieces of memory of a malloc type (`M_PROC`) are in use (sys/malloc.h: malloc_type).

        Raises HarnessError when the counters are not where this kernel's debug file, or its era, would have them.
        """
        return in_use(self._counters(kind), kind, self.address(kind), self.word("ncpus"), self.read)

    def _counters(self, kind: str) -> Counters:
        if self._debug is None:
            return counters_by_size(self.size(kind))
        return counters_by_layout(self.structures)

    # The process table

    @cached_property
    def structures(self) -> dict[str, Layout]:
        """How its structures lie; raises UsageError when its debug file is not known."""
        if self._debug is None:
            raise UsageError(
                "the kernel has no debug file: import it with --debug kernel.debug to look into its tables"
            )
        return _layouts(self._debug, self._cache)

    @property
    def threads(self) -> dict[str, Layout]:
        """How what describes threads and their tokens lies; raises as `structures`."""
        if self._debug is None:
            raise UsageError("the kernel has no debug file: import it with --debug kernel.debug to look at its threads")
        return _layouts(self._debug, self._cache, _OF_THREADS)

    @contextmanager
    def frozen(self) -> Iterator[ProcessTable]:
        """Pause the machine and give its process table; it runs on afterwards.

        Raises DamagedError when the table cannot be walked, UsageError when the kernel's debug file is not known.
        """
        structures = self.structures
        was_running = self._machine.runs
        self._machine.pause()
        try:
            yield read_table(KernelMemory(self._machine), self.symbols, structures)
        finally:
            if was_running:
                self._machine.resume()

    def look(self) -> list[str]:
        """Return what does not hold in the process table at this moment, in words."""
        try:
            with self.frozen() as table:
                return check_table(table, self.structures)
        except DamagedError as error:
            return [str(error)]

    def violations(self, known: Collection[str] = (), *, looks: int = 5, pause: float = 0.2) -> list[str]:
        """Return what does not hold in the process table and is not KNOWN, in words; nothing where all is well.

        A process on its way in or out breaks rules for a moment.  So only what is still the case after LOOKS looks,
        PAUSE seconds apart, counts.
        """
        lasting = [text for text in self.look() if text not in known]
        for _ in range(looks - 1):
            if not lasting:
                break
            time.sleep(pause)  # it is the guest's time that must pass
            again = set(self.look())
            lasting = [text for text in lasting if text in again]
        return lasting

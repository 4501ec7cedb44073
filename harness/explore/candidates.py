# SPDX-License-Identifier: BSD-2-Clause
"""Where an operation is worth holding: before the instructions it executes that may touch memory others see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from capstone import CS_ARCH_X86, CS_MODE_64, Cs, CsInsn
from capstone.x86 import X86_OP_MEM, X86_REG_RBP, X86_REG_RIP, X86_REG_RSP

from harness.guests.whitebox import Whitebox
from harness.kernels.artefact import Kernel
from harness.machine.elf import KernelSymbols, read_code
from harness.machine.executed import EXECUTED, CodeRange, Instrument, instrument
from harness.machine.lines import LineTables
from harness.machine.qemu import qemu_version
from harness.races.points import below_sys, code_of_line, name_of
from harness.store import Store

if TYPE_CHECKING:
    from harness.machine.executed import Notes

#: Functions that most operations on processes pass, of those that a kernel has.  Compilers put some into the
#: system calls that use them.
FUNCTIONS = tuple(
    """
    exit1 killalllwps lwp_exit kern_wait reaplwp fork1 start_forked_proc lwp_fork1 lwp_fork pfind pfindn zpfind
    pgfind enterpgrp leavepgrp pgdelete pgref pgrel fixjobc orphanpg sess_hold sess_rele proc_add_allproc
    proc_makepid proc_move_allproc_zombie proc_remove_zombie proc_reparent pstall phold prele pholdzomb prelezomb
    inferior reaper_get reaper_exit reaper_init reaper_drop reaper_hold reaper_sigtest sys_procctl allproc_scan
    zombproc_scan alllwp_scan sysctl_kern_proc sysctl_out_proc sysctl_kern_proc_args sysctl_kern_proc_cwd
    sysctl_kern_proc_pathname fill_kinfo_proc fill_kinfo_lwp sys_setsid sys_setpgid sys_getpgid sys_getsid
    sys_setuid kern_kill sys_kill killpg_internal ksignal lwp_signotify lwpsignal pgsignal proc_stop proc_unstop
    issignal postsig sigexit kern_ptrace sys_ptrace change_euid change_ruid cratom cratom_proc uihold chgproccnt
    sys_wait4 sys_wait6 sys_fork sys_vfork sys_rfork sys_extexit sys_execve kern_execve exec_new_vmspace sys_getsid
    sys_setpgid sys_jail_attach kern_jail_attach sys_killpg dokillpg sysctl_kern_proc_lwp procfs_rw procfs_dostatus
    kern_getcwd fdfree cache_fullpath filt_proc filt_procattach filt_procdetach knote
    """.split()
)
_STACK = {X86_REG_RSP, X86_REG_RBP}


@dataclass(frozen=True)
class Candidate:
    """An instruction: its name as a point, and its source line where that is known."""

    address: int
    name: str
    place: str = ""


def ranges_of(store: Store, kernel: Kernel, names: Sequence[str]) -> list[CodeRange]:
    """Return the code of those of the functions NAMES that KERNEL has."""
    elf = store.blob(kernel.elf)
    symbols = KernelSymbols(elf)
    known = [symbol for name in names if (symbol := symbols.find(name)) is not None and symbol.size]
    found = {each.address: each for each in known}
    return [CodeRange(each.address, read_code(elf, each.address, each.size)) for _, each in sorted(found.items())]


def instrument_of(store: Store, ranges: Sequence[CodeRange], memory: int) -> Instrument:
    """Return what notes which of RANGES is executed, and which of MEMORY MiB are touched."""
    return instrument(ranges, qemu_version(), store.cache, memory)


def touches_memory(instruction: CsInsn, data: int) -> bool:
    """Tell whether INSTRUCTION may touch memory that others see, of a kernel whose variables begin at DATA.

    Not what only the thread itself has: its stack, and constants beside the code.  `%gs:` is the CPU's own.
    """
    if instruction.mnemonic.startswith(("lea", "nop")):
        return False
    return any(
        each.type == X86_OP_MEM and not each.mem.segment and _is_shared(instruction, each.mem, data)
        for each in instruction.operands
    )


def _is_shared(instruction: CsInsn, memory: Any, data: int) -> bool:
    if memory.index:
        return True
    if memory.base == X86_REG_RIP:
        return bool(instruction.address + instruction.size + memory.disp >= data)
    return memory.base not in _STACK


class Points:
    """The instructions of RANGES that may touch memory others see, or ALL OF THEM, of those that a machine notes."""

    def __init__(self, kernel: Whitebox, ranges: Sequence[CodeRange], *, all_of_them: bool) -> None:
        decoder = _decoder()
        lines = _lines(kernel, ranges)
        place = 0
        #: By where their notes are.
        self._found: dict[int, Candidate] = {}
        for each in ranges:
            for number, instruction in enumerate(decoder.disasm(each.code, each.address)):
                address = instruction.address
                if number == 0 or all_of_them or touches_memory(instruction, kernel.data):
                    candidate = Candidate(address, name_of(kernel, address), lines.get(address, ""))
                    self._found[place + address - each.address] = candidate
            place += len(each.code)
        self._by_name = {each.name: each for each in self._found.values()}

    def named(self, name: str) -> Candidate | None:
        """Return the one of NAME, None if there is none."""
        return self._by_name.get(name)

    def marked(self, notes: Notes, mark: int = EXECUTED) -> list[Candidate]:
        """Return those of which NOTES have MARK."""
        return [each for place, each in self._found.items() if notes[place] & mark]


def _decoder() -> Cs:
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    decoder.detail = True
    return decoder


def points_of_line(kernel: Whitebox, line: str) -> list[str]:
    """Return the instructions of LINE (`exit1:+35`) that may touch shared memory, or its first if none does.

    Raises UsageError when it became no code of KERNEL, or no lines of that are known.
    """
    decoder = _decoder()
    found = code_of_line(kernel, line)
    chosen = [
        instruction.address
        for begin, end in found
        for instruction in decoder.disasm(kernel.code(begin, end - begin), begin)
        if touches_memory(instruction, kernel.data)
    ]
    return [name_of(kernel, address) for address in chosen or [found[0][0]]]


def _lines(kernel: Whitebox, ranges: Sequence[CodeRange]) -> dict[int, str]:
    if not kernel.has_debug_file:
        return {}
    found: dict[int, str] = {}
    tables: LineTables = kernel.lines
    paths = {path for each in ranges if (path := tables.unit_at(each.address)) is not None}
    for path in paths:
        name = path.rpartition("/")[2]
        for extent in tables.unit(below_sys(path)).extents:
            if not extent.inlined:
                for address in range(extent.begin, extent.end):
                    found[address] = f"{name}:{extent.line}"
    return found

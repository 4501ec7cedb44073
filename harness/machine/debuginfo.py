"""What a kernel's files tell about its memory: which function an address is in, which source line, how structures lie.

The first comes from the symbol table, which every unstripped kernel has; the others from the DWARF information of the
debug file (`kernel.debug`), so that they follow the kernel's version.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.dwarf.descriptions import describe_form_class
from elftools.elf.elffile import ELFFile

from harness.errors import UsageError

_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size
_STT_NOTYPE, _STT_FUNC = 0, 2


class FunctionTable:
    """The functions of a kernel by address."""

    def __init__(self, kernel: Path) -> None:
        """Read the symbol table of KERNEL; raises UsageError when it has none."""
        with kernel.open("rb") as stream:
            try:
                elf = ELFFile(stream)
                symbols = elf.get_section_by_name(".symtab")
                text = elf.get_section_by_name(".text")
                if symbols is None or text is None:
                    raise UsageError(f"{kernel}: the kernel has no symbol table (.symtab): use the one not stripped")
                self._strings: bytes = elf.get_section(symbols["sh_link"]).data()
                # Entry points written in assembler have no type.
                found = {
                    value: name
                    for name, info, _, _, value, _ in _SYMBOL.iter_unpack(symbols.data())
                    if info & 15 in (_STT_FUNC, _STT_NOTYPE) and name and value >= text["sh_addr"]
                }
                self._end = text["sh_addr"] + text["sh_size"]
            except (ELFError, struct.error) as error:
                raise UsageError(f"{kernel}: truncated or damaged ({error})") from error
        self._addresses = sorted(found)
        self._names = [found[address] for address in self._addresses]

    def locate(self, address: int) -> tuple[str, int] | None:
        """Return the function ADDRESS is in and how far, or None if that is outside the kernel's code."""
        at = bisect.bisect_right(self._addresses, address) - 1
        if at < 0 or address >= self._end:
            return None
        begin = self._names[at]
        name = self._strings[begin : self._strings.index(b"\0", begin)].decode(errors="replace")
        return name, address - self._addresses[at]


@dataclass(frozen=True)
class Layout:
    """A C structure: its `size`, and where each member begins, in bytes."""

    name: str
    size: int
    offsets: Mapping[str, int]

    def offset(self, member: str) -> int:
        """Return where MEMBER begins; raises UsageError when this kernel's structure has none of that name."""
        if member not in self.offsets:
            raise UsageError(f"this kernel's struct {self.name} has no member {member}")
        return self.offsets[member]


class DebugInformation:
    """The DWARF information of a kernel's debug file; read where it is asked for only."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @cached_property
    def _dwarf(self) -> Any:
        elf = ELFFile(self._file.open("rb"))  # kept open: DWARF is parsed piece by piece
        if not elf.has_dwarf_info():
            raise UsageError(f"{self._file} has no debug information")
        return elf.get_dwarf_info()

    def layouts(self, unit: str, names: frozenset[str]) -> dict[str, Layout]:
        """Return the structures NAMES as the source file UNIT (`kern_proc.c`) sees them.

        Raises UsageError when the kernel has no such file or the file not all of them.
        """
        found: dict[str, Layout] = {}
        for cu in self._dwarf.iter_CUs():
            top = cu.get_top_DIE()
            if Path(_text(top, "DW_AT_name")).name != unit:
                continue
            for die in cu.iter_DIEs():
                if die.tag != "DW_TAG_structure_type" or "DW_AT_byte_size" not in die.attributes:
                    continue
                name = _text(die, "DW_AT_name")
                if name in names and name not in found:
                    found[name] = _layout(name, die)
                    if len(found) == len(names):
                        return found
        missing = ", ".join(sorted(names - found.keys()))
        raise UsageError(f"{self._file}: its debug information of {unit} lacks {missing}")

    def source_line(self, address: int) -> str | None:
        """Return `file:line` of the code at ADDRESS, or None where that is not known."""
        ranges = self._dwarf.get_aranges()
        offset = ranges.cu_offset_at_addr(address) if ranges is not None else None
        if offset is None:
            return None
        program = self._dwarf.line_program_for_CU(self._dwarf.get_CU_at(offset))
        before = None
        for entry in program.get_entries() if program is not None else ():
            state = entry.state
            if state is None:
                continue
            if before is not None and before.address <= address < state.address:
                files = program["file_entry"]
                # Files are counted from one up to DWARF 4, from zero later.
                index = before.file - (1 if program["version"] < 5 else 0)
                return f"{files[index].name.decode(errors='replace')}:{before.line}"
            before = None if state.end_sequence else state
        return None


def _text(die: Any, attribute: str) -> str:
    value = die.attributes.get(attribute)
    return value.value.decode(errors="replace") if value is not None else ""


def _layout(name: str, die: Any) -> Layout:
    offsets = {}
    for child in die.iter_children():
        place = child.attributes.get("DW_AT_data_member_location")
        # Bit fields have none; an expression would be a C++ affair.
        if child.tag == "DW_TAG_member" and place is not None and describe_form_class(place.form) == "constant":
            offsets[_text(child, "DW_AT_name")] = int(place.value)
    return Layout(name, int(die.attributes["DW_AT_byte_size"].value), offsets)

# SPDX-License-Identifier: BSD-2-Clause
"""What a kernel's files tell about its memory: which function an address is in, which source line, how structures lie.

The first comes from the symbol table, which every unstripped kernel has; the others from the DWARF information of the
debug file (`kernel.debug`), so that they follow the kernel's version.
"""

from __future__ import annotations

import bisect
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.later import Later

if TYPE_CHECKING:
    from elftools.common import exceptions
    from elftools.elf import elffile
else:  # what it tells of a kernel is asked once, and kept
    exceptions, elffile = Later("elftools.common.exceptions"), Later("elftools.elf.elffile")

_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size
_STT_NOTYPE, _STT_FUNC = 0, 2
_DW_OP_PLUS_UCONST = 0x23


class FunctionTable:
    """The functions of a kernel by address."""

    def __init__(self, kernel: Path) -> None:
        """Read the symbol table of KERNEL; raises UsageError when it has none."""
        with kernel.open("rb") as stream:
            try:
                elf = elffile.ELFFile(stream)
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
            except (exceptions.ELFError, struct.error) as error:
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
    """A C structure: its `size`, and where each member begins, in bytes; which members are `pointers`."""

    name: str
    size: int
    offsets: Mapping[str, int]
    pointers: frozenset[str] = frozenset()

    def offset(self, member: str) -> int:
        """Return where MEMBER begins; raises UsageError when this kernel's structure has none of that name."""
        if member not in self.offsets:
            raise UsageError(f"this kernel's struct {self.name} has no member {member}")
        return self.offsets[member]


def dump_layouts(layouts: Mapping[str, Layout]) -> str:
    """Return layouts as JSON."""
    plain = {key: {**asdict(layout), "pointers": sorted(layout.pointers)} for key, layout in layouts.items()}
    return json.dumps(plain)


def load_layouts(text: str) -> dict[str, Layout]:
    """Return what dump_layouts() wrote; raises ValueError, KeyError or TypeError for anything else."""
    return {
        key: Layout(each["name"], each["size"], each["offsets"], frozenset(each["pointers"]))
        for key, each in json.loads(text).items()
    }


class DebugInformation:
    """The DWARF information of a kernel's debug file; read where it is asked for only."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @cached_property
    def _dwarf(self) -> Any:
        elf = elffile.ELFFile(self._file.open("rb"))  # kept open: DWARF is parsed piece by piece
        if not elf.has_dwarf_info():
            raise UsageError(f"{self._file} has no debug information")
        return elf.get_dwarf_info()

    def layouts(self, unit: str, names: frozenset[str]) -> dict[str, Layout]:
        """Return the structures NAMES as the source file UNIT (`kern_proc.c`) sees them.

        `malloc_type.ks_use` names the structure that member is, points to, or is an array of.  Raises UsageError when
        the kernel has no such file or the file not all of them.
        """
        wanted = {name.partition(".")[0] for name in names}
        found: dict[str, Layout] = {}
        for cu in self._dwarf.iter_CUs():
            top = cu.get_top_DIE()
            if Path(_text(top, "DW_AT_name")).name != unit:
                continue
            for die in cu.iter_DIEs():
                if die.tag != "DW_TAG_structure_type" or "DW_AT_byte_size" not in die.attributes:
                    continue
                name = _text(die, "DW_AT_name")
                if name in wanted:
                    wanted.remove(name)
                    found |= _named_layouts(name, die, names)
                    if not wanted and not names - found.keys():
                        return found
            break
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


def _named_layouts(name: str, die: Any, names: frozenset[str]) -> dict[str, Layout]:
    """Return the layout of structure NAME, described by DIE, and of those behind its members that are among NAMES."""
    found = {name: _layout(name, die)} if name in names else {}
    for child in die.iter_children():
        path = f"{name}.{_text(child, 'DW_AT_name')}"
        if path in names and (behind := _type_of(child, through=_WRAPPERS)) is not None:
            found[path] = _layout(_text(behind, "DW_AT_name"), behind)
    return found


_ALIASES = frozenset({"DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type"})
_WRAPPERS = _ALIASES | {"DW_TAG_pointer_type", "DW_TAG_array_type"}


def _type_of(die: Any, through: frozenset[str]) -> Any | None:
    """Return the type of a member, looking THROUGH types of those tags; None for void."""
    while "DW_AT_type" in die.attributes:
        die = die.get_DIE_from_attribute("DW_AT_type")
        if die.tag not in through:
            return die
    return None


def _layout(name: str, die: Any) -> Layout:
    offsets, pointers = {}, set()
    for child in die.iter_children():
        place = child.attributes.get("DW_AT_data_member_location")
        if child.tag != "DW_TAG_member" or place is None:  # bit fields have none
            continue
        if (offset := _member_offset(place.value)) is not None:
            member = _text(child, "DW_AT_name")
            offsets[member] = offset
            behind = _type_of(child, through=_ALIASES)
            if behind is not None and behind.tag == "DW_TAG_pointer_type":
                pointers.add(member)
    return Layout(name, int(die.attributes["DW_AT_byte_size"].value), offsets, frozenset(pointers))


def _member_offset(place: object) -> int | None:
    """Return where a member lies: a number since DWARF 3, whatever its form; before, an expression that adds one."""
    if isinstance(place, int):
        return place
    if isinstance(place, list) and place[:1] == [_DW_OP_PLUS_UCONST]:
        return sum((int(byte) & 0x7F) << 7 * number for number, byte in enumerate(place[1:]))
    return None  # any other expression is an affair of C++

# SPDX-License-Identifier: BSD-2-Clause
"""From a kernel's debug file: which code a source file became, line by line, and where its functions begin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.later import Later

if TYPE_CHECKING:
    from elftools.dwarf import ranges
    from elftools.elf import elffile
else:  # line tables are read once, and kept
    ranges, elffile = Later("elftools.dwarf.ranges"), Later("elftools.elf.elffile")


@dataclass(frozen=True)
class Extent:
    """Code from address `begin` to before `end` that comes from a line of the source file itself.

    `column` is where in the line, 0 where the compiler did not say.  `inlined` is code of another file's inline
    function that the line calls: it runs with the line, and its conditions are not the line's.
    """

    begin: int
    end: int
    line: int
    column: int = 0
    inlined: bool = False


@dataclass(frozen=True)
class Unit:
    """One source file's code: its extents, functions by their first line, and the ranges of addresses it has."""

    path: str
    ranges: tuple[tuple[int, int], ...]
    extents: tuple[Extent, ...]
    functions: tuple[tuple[int, str], ...]


class LineTables:
    """The line tables of the debug file FILE."""

    def __init__(self, file: Path) -> None:
        """Open FILE; raises UsageError when it has no debug information."""
        elf = elffile.ELFFile(file.open("rb"))  # kept open: DWARF is parsed piece by piece
        if not elf.has_dwarf_info():
            raise UsageError(f"{file} has no debug information")
        self._file = file
        self._dwarf: Any = elf.get_dwarf_info()

    @cached_property
    def _units(self) -> list[tuple[str, Any]]:
        return [(_text(cu.get_top_DIE(), "DW_AT_name"), cu) for cu in self._dwarf.iter_CUs()]

    def unit(self, name: str) -> Unit:
        """Return what became of the source file NAME: `kern_proc.c`, or more of its path.

        Raises UsageError when the kernel has none of that name, or several.
        """
        found = [(path, cu) for path, cu in self._units if f"/{path}".endswith(f"/{name}")]
        if len(found) != 1:
            which = f"several: {', '.join(path for path, _ in found)}" if found else "none"
            raise UsageError(f"{self._file}: of source files called {name} the kernel has {which}")
        return self._read(*found[0])

    def unit_at(self, address: int) -> str | None:
        """Return the path of the source file that the code at ADDRESS was compiled from, None for assembler."""
        for path, cu in self._units:
            if any(begin <= address < end for begin, end in self._ranges(cu)):
                return path
        return None

    def _ranges(self, cu: Any) -> tuple[tuple[int, int], ...]:
        return self._ranges_of(cu.get_top_DIE(), cu)

    def _ranges_of(self, die: Any, cu: Any) -> tuple[tuple[int, int], ...]:
        given = die.attributes
        if "DW_AT_ranges" in given:
            top = cu.get_top_DIE().attributes
            low = top["DW_AT_low_pc"].value if "DW_AT_low_pc" in top else 0
            entries = self._dwarf.range_lists().get_range_list_at_offset(given["DW_AT_ranges"].value, cu=cu)
            found = [
                (each.begin_offset, each.end_offset) if getattr(each, "is_absolute", False)
                else (low + each.begin_offset, low + each.end_offset)
                for each in entries
                if isinstance(each, ranges.RangeEntry)
            ]  # fmt: skip
            return tuple(sorted(found))
        if "DW_AT_high_pc" not in given:
            return ()
        low, high = given["DW_AT_low_pc"].value, given["DW_AT_high_pc"]
        return ((low, high.value if high.form == "DW_FORM_addr" else low + high.value),)

    def _read(self, path: str, cu: Any) -> Unit:
        program = self._dwarf.line_program_for_CU(cu)
        own = Path(path).name.encode()
        shift = 1 if program["version"] < 5 else 0  # files are counted from one up to DWARF 4, from zero later
        files = [each.name.rpartition(b"/")[2] == own for each in program["file_entry"]]
        own_code = _extents([entry.state for entry in program.get_entries() if entry.state], files, shift)
        lines = dict(_functions(cu, files, shift))
        extents = (*own_code, *self._inlined(cu, files, shift))
        return Unit(path.removeprefix("/usr/src/"), self._ranges(cu), extents, tuple(sorted(lines.items())))

    def _inlined(self, cu: Any, own: list[bool], shift: int) -> Iterator[Extent]:
        """Yield the code of other files' functions that lines of the file itself call and got inlined."""
        for die in cu.iter_DIEs():
            given = die.attributes
            if die.tag != "DW_TAG_inlined_subroutine" or "DW_AT_call_line" not in given:
                continue
            origin = die.get_DIE_from_attribute("DW_AT_abstract_origin").attributes
            if own[given["DW_AT_call_file"].value - shift] and (
                "DW_AT_decl_file" in origin and not own[origin["DW_AT_decl_file"].value - shift]
            ):
                for begin, end in self._ranges_of(die, cu):
                    if begin < end:  # what only orders memory has no code
                        yield Extent(begin, end, int(given["DW_AT_call_line"].value), inlined=True)


def _extents(states: list[Any], own: list[bool], shift: int) -> Iterator[Extent]:
    for state, following in pairwise(states):
        # What has no instruction of its own can be neither run nor left out.
        if not state.end_sequence and own[state.file - shift] and state.line and following.address > state.address:
            yield Extent(state.address, following.address, state.line, state.column)


def _functions(cu: Any, own: list[bool], shift: int) -> Iterator[tuple[int, str]]:
    """Yield the first line and the name of the functions that the file itself defines, inlined ones included."""
    for die in cu.iter_DIE_children(cu.get_top_DIE()):
        given = die.attributes
        if die.tag != "DW_TAG_subprogram" or "DW_AT_decl_line" not in given or "DW_AT_name" not in given:
            continue
        if ("DW_AT_low_pc" in given or "DW_AT_inline" in given) and own[given["DW_AT_decl_file"].value - shift]:
            yield int(given["DW_AT_decl_line"].value), _text(die, "DW_AT_name")


def _text(die: Any, attribute: str) -> str:
    value = die.attributes.get(attribute)
    return value.value.decode(errors="replace") if value is not None else ""

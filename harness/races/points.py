# SPDX-License-Identifier: BSD-2-Clause
"""Points of the kernel's code as people name them: a function, a line, an instruction."""

from __future__ import annotations

import re
from collections.abc import Sequence

from capstone import CS_ARCH_X86, CS_MODE_64, Cs

from harness.errors import UsageError
from harness.guests.whitebox import Whitebox
from harness.machine.lines import Unit

_LINE = re.compile(r"([\w./-]+\.[chsS]):(\d+)")
_RELATIVE = re.compile(r"(?:([\w./-]+\.[chsS]):)?([A-Za-z_]\w*):\+(\d+)")
_CALL = re.compile(r"([A-Za-z_][\w.]*)>([A-Za-z_][\w.]*)")
_OFFSET = re.compile(r"([A-Za-z_][\w.]*)(?:\+(0x[0-9a-fA-F]+|\d+))?")

#: FUNCTION, FUNCTION+0x1f, FUNCTION>CALLED, [FILE:]FUNCTION:+LINES, FILE:LINE, or an address.
Point = str | int


def address_of(kernel: Whitebox, point: Point) -> int:
    """Return the address of POINT, the first one of a line's; raises UsageError as addresses_of() does."""
    return addresses_of(kernel, point)[0]


def addresses_of(kernel: Whitebox, point: Point) -> tuple[int, ...]:
    """Return the addresses of POINT, ascending: of a line where each piece of its code begins, of calls each, else one.

    A line has several where the compiler made code of it in several places, as of a function that it inlined.

    Raises UsageError for a name that the kernel does not have, for a line that became no code, and for lines of a
    kernel whose debug file is not known.
    """
    if isinstance(point, int):
        return (point,)
    if point.startswith("0x"):
        try:
            return (int(point, 16),)
        except ValueError:
            raise UsageError(f"{point!r} is no address") from None
    if (line := _LINE.fullmatch(point)) is not None:
        return _beginnings(_pieces(kernel.lines.unit(line[1]), int(line[2]), point))
    if _RELATIVE.fullmatch(point) is not None:
        return _beginnings(code_of_line(kernel, point))
    if (call := _CALL.fullmatch(point)) is not None:
        return _calls(kernel, call[1], call[2])
    if (name := _OFFSET.fullmatch(point)) is None:
        raise UsageError(
            f"{point!r} is no point of the kernel: FUNCTION, FUNCTION+0xOFFSET, FUNCTION>CALLED, FUNCTION:+LINES, "
            "FILE:LINE"
        )
    return (kernel.address(name[1]) + int(name[2] or "0", 0),)


def _calls(kernel: Whitebox, function: str, called: str) -> tuple[int, ...]:
    """Return the instructions of FUNCTION that call CALLED, or leave for it at its end."""
    begin, target = kernel.address(function), kernel.address(called)
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    code = decoder.disasm_lite(kernel.code(begin, kernel.size(function)), begin)
    found = tuple(address for address, _, name, to in code if name in {"call", "jmp"} and to == hex(target))
    if not found:
        raise UsageError(f"{function} has no call of {called} in this kernel")
    return found


def _pieces(unit: Unit, line: int, name: str) -> list[tuple[int, int]]:
    found = sorted((each.begin, each.end) for each in unit.extents if each.line == line and not each.inlined)
    if not found:
        raise UsageError(f"{name} became no code of this kernel")
    return found


def _beginnings(pieces: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return where PIECES begin that do not follow upon another one of them."""
    ends = {end for _, end in pieces}
    return tuple(begin for begin, _ in pieces if begin not in ends)


def code_of_line(kernel: Whitebox, line: str) -> list[tuple[int, int]]:
    """Return where the code of LINE begins and ends, `FUNCTION:+LINES`, counted from the first one of FUNCTION.

    So a line has a name that changes elsewhere in its file do not touch.  `FILE:FUNCTION:+LINES` also finds a function
    that was inlined wherever it is called.  Raises UsageError as address_of() does.
    """
    relative = _RELATIVE.fullmatch(line)
    if relative is None:
        raise UsageError(f"{line!r} is no line of a function: FUNCTION:+LINES, FILE:FUNCTION:+LINES")
    file, function, lines = relative[1], relative[2], int(relative[3])
    unit = kernel.lines.unit(file) if file else _unit_of(kernel, function)
    first = next((number for number, name in unit.functions if name == function), None)
    if first is None:
        raise UsageError(f"where {function} begins is not known")
    return _pieces(unit, first + lines, line)


def relative_line(kernel: Whitebox, address: int) -> str:
    """Return the line that ADDRESS comes from, `FUNCTION:+LINES`; "" where that is not known.

    Of a function that was inlined into another it is `FILE:FUNCTION:+LINES`.
    """
    if not kernel.has_debug_file or (path := kernel.lines.unit_at(address)) is None:
        return ""
    unit = kernel.lines.unit(below_sys(path))
    line = next((each.line for each in unit.extents if each.begin <= address < each.end and not each.inlined), None)
    before = [function for function in unit.functions if line is not None and function[0] <= line]
    if line is None or not before:
        return ""
    first, function = max(before)
    around = kernel.functions.locate(address)
    is_own = around is not None and around[0] == function
    return f"{function if is_own else f'{below_sys(path)}:{function}'}:+{line - first}"


def below_sys(path: str) -> str:
    """Return the PATH of a source file as it is below sys/, or its name if it is not there."""
    _, found, below = path.rpartition("/sys/")
    return below if found else path.rpartition("/")[2]


def _unit_of(kernel: Whitebox, function: str) -> Unit:
    path = kernel.lines.unit_at(kernel.address(function))
    if path is None:
        raise UsageError(f"{function} is not C: no lines of it are known")
    return kernel.lines.unit(below_sys(path))


def name_of(kernel: Whitebox, address: int) -> str:
    """Return ADDRESS as a point with a name, `cache_fullpath+0x1f`, as far as there is one."""
    found = kernel.functions.locate(address)
    if found is None:
        return f"{address:#x}"
    return found[0] + (f"+{found[1]:#x}" if found[1] else "")

# SPDX-License-Identifier: BSD-2-Clause
"""Points of the kernel's code as people name them: a function, a line, an instruction."""

from __future__ import annotations

import re

from harness.errors import UsageError
from harness.guests.whitebox import Whitebox
from harness.machine.lines import Unit

_LINE = re.compile(r"([\w./-]+\.[chsS]):(\d+)")
_RELATIVE = re.compile(r"((?:[A-Za-z_]\w*>)?[A-Za-z_]\w*):\+(\d+)")
_OFFSET = re.compile(r"([A-Za-z_][\w.]*)(?:\+(0x[0-9a-fA-F]+|\d+))?")

#: FUNCTION, FUNCTION+0x1f, FUNCTION:+LINES, FILE:LINE, or an address.  CALLER>FUNCTION:+LINES is of a function that a
#: compiler has put into the one that calls it.
Point = str | int


def address_of(kernel: Whitebox, point: Point) -> int:
    """Return the address of POINT: of a function or a line that of its first instruction.

    Raises UsageError for a name that the kernel does not have, for a line that became no code, and for lines of a
    kernel whose debug file is not known.
    """
    if isinstance(point, int):
        return point
    if point.startswith("0x"):
        try:
            return int(point, 16)
        except ValueError:
            raise UsageError(f"{point!r} is no address") from None
    if (line := _LINE.fullmatch(point)) is not None:
        unit = kernel.lines.unit(line[1])
        found = [each.begin for each in unit.extents if each.line == int(line[2])]
        if not found:
            raise UsageError(f"line {line[2]} of {line[1]} became no code of this kernel")
        return min(found)
    if (relative := _RELATIVE.fullmatch(point)) is not None:
        return code_of_line(kernel, relative[1], int(relative[2]))[0][0]
    if (name := _OFFSET.fullmatch(point)) is None:
        raise UsageError(
            f"{point!r} is no point of the kernel: FUNCTION, FUNCTION+0xOFFSET, FUNCTION:+LINES, FILE:LINE"
        )
    return kernel.address(name[1]) + int(name[2] or "0", 0)


def code_of_line(kernel: Whitebox, function: str, lines: int) -> list[tuple[int, int]]:
    """Return where the code of a line begins and ends that is LINES lines after the first one of FUNCTION.

    So a line has a name that changes elsewhere in its file do not touch.  `CALLER>FUNCTION` is one inside another
    function.  Raises UsageError as address_of() does.
    """
    caller, _, inner = function.rpartition(">")
    unit = _unit_of(kernel, caller or inner)
    first = next((line for line, name in unit.functions if name == inner), None)
    if first is None:
        raise UsageError(f"where {inner} begins is not known")
    own = kernel.symbols[caller or inner]
    found = sorted(
        (each.begin, each.end)
        for each in unit.extents
        if each.line == first + lines and own.address <= each.begin < own.address + max(own.size, 1)
    )
    if not found:
        raise UsageError(f"line {lines} of {function} became no code of this kernel")
    return found


def relative_line(kernel: Whitebox, address: int) -> str:
    """Return the line that ADDRESS comes from, as `FUNCTION:+LINES`; "" where that is not known."""
    found = kernel.functions.locate(address)
    if found is None or not kernel.has_debug_file:
        return ""
    try:
        unit = _unit_of(kernel, found[0])
    except UsageError:
        return ""
    line = next((each.line for each in unit.extents if each.begin <= address < each.end and not each.inlined), None)
    if line is None:
        return ""
    first, name = max(((first, name) for first, name in unit.functions if first <= line), default=(0, ""))
    if not name:
        return ""
    return f"{found[0]}:+{line - first}" if name == found[0] else f"{found[0]}>{name}:+{line - first}"


def _unit_of(kernel: Whitebox, function: str) -> Unit:
    path = kernel.lines.unit_at(kernel.address(function))
    if path is None:
        raise UsageError(f"{function} is not C: no lines of it are known")
    return kernel.lines.unit(path.rpartition("/sys/")[2])


def name_of(kernel: Whitebox, address: int) -> str:
    """Return ADDRESS as a point with a name, `cache_fullpath+0x1f`, as far as there is one."""
    found = kernel.functions.locate(address)
    if found is None:
        return f"{address:#x}"
    return found[0] + (f"+{found[1]:#x}" if found[1] else "")

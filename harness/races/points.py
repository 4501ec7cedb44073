# SPDX-License-Identifier: BSD-2-Clause
"""Points of the kernel's code as people name them: a function, a line, an instruction."""

from __future__ import annotations

import re

from harness.errors import UsageError
from harness.guests.whitebox import Whitebox

_LINE = re.compile(r"([\w./-]+\.[chsS]):(\d+)")
_OFFSET = re.compile(r"([A-Za-z_][\w.]*)(?:\+(0x[0-9a-fA-F]+|\d+))?")

#: FUNCTION, FUNCTION+0x1f, FILE:LINE, or an address.
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
    if (name := _OFFSET.fullmatch(point)) is None:
        raise UsageError(f"{point!r} is no point of the kernel: FUNCTION, FUNCTION+0xOFFSET, FILE:LINE or an address")
    return kernel.address(name[1]) + int(name[2] or "0", 0)


def name_of(kernel: Whitebox, address: int) -> str:
    """Return ADDRESS as a point with a name, `cache_fullpath+0x1f`, as far as there is one."""
    found = kernel.functions.locate(address)
    if found is None:
        return f"{address:#x}"
    return found[0] + (f"+{found[1]:#x}" if found[1] else "")

# SPDX-License-Identifier: BSD-2-Clause
"""The clock in a saved machine: carried over from counting instructions to the pace of the host's clock."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from harness.errors import HarnessError

# QEMU's stream (migration/vmstate.c), numbers with the highest byte first: a whole section has the byte 4, its number,
# the length of its name, the name, instance 0 and version 2.  That of the clocks (softmmu/cpu-timers.c: vmstate_timers)
# goes on with the time stamp counter's offset, eight bytes without meaning, and the clock's time in ns as it is where
# instructions are not counted.  Where they are, a subsection (byte 5, name, version 1) has the offset between the count
# and the clock, and the count.
_SECTION = re.compile(
    rb"\x04[\s\S]{4}\x05timer\0\0\0\0\0\0\0\x02[\s\S]{16}([\s\S]{8})"
    rb"\x05\x0ctimer/icount\0\0\0\x01([\s\S]{16})"
)


def carry_clock_over(ram: Path, shift: int) -> float:
    """Set the clock in the state RAM, saved where an instruction counted 2**SHIFT ns, for who does not count them.

    QEMU keeps two clocks.  Loaded as it is, such a state would begin at the time that passed on the host: earlier than
    what its timers wait for, which would stand still until then.  Returns by how many seconds the clock was set
    forward.  Raises HarnessError when the state does not say what time it is.
    """
    with ram.open("r+b") as file, mmap.mmap(file.fileno(), 0) as stream:
        found = list(_SECTION.finditer(stream))
        if len(found) != 1:
            raise HarnessError("this QEMU keeps its clocks in another way: they cannot be carried over")
        before = int.from_bytes(found[0][1], signed=True)
        bias, count = (int.from_bytes(number, signed=True) for number in (found[0][2][:8], found[0][2][8:]))
        now = bias + (count << shift)
        at = found[0].start(1)
        stream[at : at + 8] = now.to_bytes(8, signed=True)
    return (now - before) / 1e9

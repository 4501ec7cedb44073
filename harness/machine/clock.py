# SPDX-License-Identifier: BSD-2-Clause
"""The clock in a saved machine, made to go on alike whether the machine is resumed with instructions counted or not.

QEMU keeps two clocks: one that follows the host's, one that counts instructions.  Loaded as it is, a state that was
saved with one begins at the other's zero.  The timers of its devices are then due seconds later than they should be:
a guest that has nothing to do gets there by skipping the time, one that computes runs without an interrupt until then.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from harness.errors import HarnessError

# QEMU's stream (migration/vmstate.c), numbers with the highest byte first: a whole section has the byte 4, its number,
# the length of its name, the name, instance 0 and version 2.  That of the clocks (softmmu/cpu-timers.c: vmstate_timers)
# goes on with the time stamp counter's offset, eight bytes without meaning, and the clock's time in ns as it is where
# instructions are not counted.  Where they are, a subsection (byte 5, name, version 1) has the offset between the count
# and the clock, and the count.
_CLOCKS = b"\x05timer\0\0\0\0\0\0\0\x02"
_COUNTED = b"\x05\x0ctimer/icount\0\0\0\x01"
_SECTION = 4
_CLOCK = 16  # bytes from the end of _CLOCKS
_END = 24


def carry_clock_over(ram: Path, shift: int) -> float:
    """Set the clock in the state RAM, saved where an instruction counted 2**SHIFT ns, for who does not count them.

    Returns by how many seconds the clock was set forward.  Raises HarnessError when the state does not say what time
    it is.
    """
    with ram.open("r+b") as file, mmap.mmap(file.fileno(), 0) as stream:
        start = _find_clocks(stream)
        counted = start + _END + len(_COUNTED)
        if stream[start + _END : counted] != _COUNTED:
            raise HarnessError("this state's clock did not count instructions: it cannot be carried over")
        bias, count = (int.from_bytes(stream[at : at + 8], signed=True) for at in (counted, counted + 8))
        before, now = _clock(stream, start), bias + (count << shift)
        stream[start + _CLOCK : start + _END] = now.to_bytes(8, signed=True)
    return (now - before) / 1e9


def note_clock_for_counting(ram: Path) -> float:
    """Add to the state RAM, saved at the pace of the host's clock, what time it is for who counts instructions.

    Returns that time in seconds.  Raises HarnessError when the state does not say what time it is.
    """
    with ram.open("r+b") as file, mmap.mmap(file.fileno(), 0) as stream:
        start = _find_clocks(stream)
        now = _clock(stream, start)
        rest = stream[start + _END :]
        if rest.startswith(_COUNTED):
            raise HarnessError("this state's clock counted instructions: it is to be carried over")
        file.seek(start + _END)
        file.write(_COUNTED + now.to_bytes(8, signed=True) + bytes(8) + rest)
    return now / 1e9


def _find_clocks(stream: mmap.mmap) -> int:
    """Return where the clocks begin: devices come after the memory, and their sections do not repeat."""
    found = stream.rfind(_CLOCKS)
    if found < 5 or stream[found - 5] != _SECTION or len(stream) < found + len(_CLOCKS) + _END:
        raise HarnessError("this QEMU keeps its clocks in another way: they cannot be carried over")
    return found + len(_CLOCKS)


def _clock(stream: mmap.mmap, start: int) -> int:
    return int.from_bytes(stream[start + _CLOCK : start + _END], signed=True)

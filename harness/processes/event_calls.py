# SPDX-License-Identifier: BSD-2-Clause
"""Kernel queues: what becomes of a process, heard without being its parent (kqueue(2), sys/kern/kern_event.c)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from harness.processes.calls import Caller, Result, system_call, timespec
from harness.processes.connection import Call
from harness.processes.vocabulary import EvFilter, EvFlag, Kevent
from harness.processes.wire import Argument, Buffer

_KEVENT = struct.Struct("<QhHIqQ")  # ident, filter, flags, fflags, data, udata


def _encode(event: Kevent) -> bytes:
    return _KEVENT.pack(event.ident, event.filter, event.flags, event.fflags, event.data, event.udata)


def _decode(data: bytes) -> list[Kevent]:
    known = {int(each) for each in EvFilter}
    return [
        Kevent(ident, EvFilter(kind) if kind in known else kind, EvFlag(flags), fflags, more, udata)
        for ident, kind, flags, fflags, more, udata in _KEVENT.iter_unpack(data)
    ]


class EventCalls(Caller):
    """Part of SystemCalls.  ENOSYS on Linux."""

    @system_call
    def kqueue(self) -> Call[int]:
        """Make a kernel queue; return its descriptor.  Children do not inherit it."""
        return self._call("kqueue")

    @system_call
    def kevent(
        self, queue: int, changes: Sequence[Kevent] = (), *, room: int = 8, timeout: float | None = 0.0
    ) -> Call[list[Kevent]]:
        """Change what QUEUE watches, and return up to ROOM events that have come.

        Waits up to TIMEOUT seconds for the first one, None for as long as it takes; 0 does not wait.  A change that
        fails is raised where ROOM is 0, and otherwise an event marked EV_ERROR whose data is the errno.
        """
        limits: Argument = 0
        if timeout is not None:
            limits = Buffer(timespec(timeout))
        wanted: Argument = Buffer(b"".join(map(_encode, changes))) if changes else 0
        events = Buffer(bytes(_KEVENT.size * room), wanted=True) if room else None
        text = f"kevent({queue}, {len(changes)} changes, {'for ever' if timeout is None else f'{timeout} s'})"

        def convert(result: Result) -> list[Kevent]:
            return _decode(result.memory(events)[: result.value * _KEVENT.size]) if events is not None else []

        arguments = (queue, wanted, len(changes), events if events is not None else 0, room, limits)
        return self._describe("kevent", arguments, text, convert, timeout=None if timeout is None else timeout + 30)

    @system_call
    def watch_process(self, queue: int, pid: int, notes: int) -> Call[None]:
        """Let QUEUE report NOTES (NoteFlag) of process PID.  ESRCH where there is no such process."""
        change = Kevent(pid, EvFilter.EVFILT_PROC, EvFlag.EV_ADD, notes)
        text = f"kevent({queue}, EV_ADD process {pid}, {notes:#x})"
        return self._void("kevent", queue, Buffer(_encode(change)), 1, 0, 0, 0, text=text)

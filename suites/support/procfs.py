# SPDX-License-Identifier: BSD-2-Clause
"""procfs: a hold of any length, and who waits for a hold to go away."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from harness.processes import GuestError, Pending, RemoteProcess
from support.processes import eventually

# sys/pioctl.h
PIOCBIS, PIOCWAIT, PIOCCONT, PIOCSTATUS = 0x80007001, 0x40207004, 0x80007005, 0x40207006
S_EXEC, S_SIG, S_CORE, S_EXIT = 0x01, 0x02, 0x10, 0x20
PROCFS_STATUS = struct.Struct("<iiQi4xQ")  # state, flags, events, why, val

#: What pstall() and pholdzomb() wait for, as ps shows it.
STALLS = {"reap1", "reap1a", "reap2", "reap2a", "reap3", "reap4", "reap5", "phldz", "exec1"}


def stalled(observer: RemoteProcess) -> list[tuple[int, str]]:
    """Return who waits for a hold to go away, and where."""
    rows = observer.sysctl.kern_proc_all(lwp=True)
    return [(row.pid, row.lwp.wmesg) for row in rows if row.lwp.wmesg in STALLS]


def hold(
    holder: RemoteProcess, target: RemoteProcess, mounted: str, events: int, *, keep_open: bool = False
) -> Pending[bytes]:
    """Let HOLDER hold TARGET until it stops for one of EVENTS; return when the hold is there.

    It closes the file at once after that: unmounting waits a second for files that are open, before it kills whoever
    has them (vfs_syscalls.c: dounmount).  With KEEP_OPEN it does not: who stopped would go on (procfs_vnops.c:
    procfs_close).
    """
    fd = holder.open(f"{mounted}/{target.pid}/mem", os.O_RDONLY)
    holder.ioctl(fd, PIOCBIS, events)
    pending = holder.start.ioctl(fd, PIOCWAIT, bytes(PROCFS_STATUS.size))
    if not keep_open:
        holder.start.close(fd)
    eventually(lambda: waits_in(target, holder.pid, "piocwait"), f"{holder.pid} to wait in PIOCWAIT")
    return pending


def waits_in(observer: RemoteProcess, pid: int, wmesg: str) -> bool:
    """Tell whether PID sleeps under the name WMESG."""
    return any(row.lwp.wmesg == wmesg for row in observer.sysctl.kern_proc_pid(pid))


def end(process: RemoteProcess, status: int) -> None:
    """Start the end of PROCESS without waiting for it to be complete."""
    process.start.exit(status)


@contextmanager
def fails_or_not() -> Iterator[None]:
    """Let a block fail in the guest if it will: all it must not do is hang."""
    try:
        yield
    except GuestError:
        return

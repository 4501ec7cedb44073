# SPDX-License-Identifier: BSD-2-Clause
"""The process table with kernel threads in it, whichever way the kernel is asked for them."""

from __future__ import annotations

from harness.processes import GuestError, ProcTable, RemoteProcess
from support.sysctl import ALL, LWKT, LWP, proc_mib


def whole_table_number(process: RemoteProcess, *, lwp: bool = False) -> int:
    """Return the number below kern.proc of the table that holds kernel threads, too.

    Since November 2022 they are listed on request; before, the request is unknown (kern_proc.c: KERN_PROC_FLAG_LWKT).
    """
    number = ALL | (LWP if lwp else 0)
    try:
        process.sysctl.size(proc_mib(number | LWKT))
    except GuestError as error:
        if error.name != "ENOENT":
            raise
        return number
    return number | LWKT


def whole_table(process: RemoteProcess, *, lwp: bool = False) -> ProcTable:
    """Return all processes and all kernel threads PROCESS is shown."""
    on_request = bool(whole_table_number(process, lwp=lwp) & LWKT)
    return process.sysctl.kern_proc_all(lwp=lwp, lwkt=on_request)

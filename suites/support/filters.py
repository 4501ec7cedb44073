# SPDX-License-Identifier: BSD-2-Clause
"""The filters of kern.proc, each with the field it asks for, and processes of all kinds to filter."""

from __future__ import annotations

from collections.abc import Callable

from harness.processes import KinfoProc, Process, ProcTable
from support.processes import SOMEBODY, SOMEBODY_ELSE, stop


def one_of_each(init: Process) -> list[Process]:
    """Make children of all kinds: some in one group, of several users, stopped ones and zombies among them."""
    users = [(0, 0), (SOMEBODY, SOMEBODY), (SOMEBODY, SOMEBODY_ELSE), (SOMEBODY_ELSE, SOMEBODY), (0, SOMEBODY)]
    family = [init.fork() for _ in range(2 * len(users))]
    leader = family[0]
    for number, child in enumerate(family):
        if number % 3 == 0:
            child.setpgid(0, leader.pid)
    for child, (ruid, euid) in zip(family, users * 2, strict=True):
        child.setresuid(ruid, euid, SOMEBODY)
    for zombie in family[len(users) :]:
        zombie.exit()
    for stopped in family[1 : len(users) : 2]:
        stop(init, stopped)
    return family


def all_processes(observer: Process) -> list[KinfoProc]:
    """Return the rows of all processes, without kernel threads."""
    return [row for row in observer.sysctl.kern_proc_all() if not row.is_kernel_thread]


Query = Callable[[Process, int, bool], ProcTable]
FILTERS: dict[str, tuple[Query, Callable[[KinfoProc], int]]] = {
    "pgrp": (lambda process, value, lwp: process.sysctl.kern_proc_pgrp(value, lwp=lwp), lambda row: row.pgid),
    "uid": (lambda process, value, lwp: process.sysctl.kern_proc_uid(value, lwp=lwp), lambda row: row.uid),
    "ruid": (lambda process, value, lwp: process.sysctl.kern_proc_ruid(value, lwp=lwp), lambda row: row.ruid),
}

# SPDX-License-Identifier: BSD-2-Clause
"""What visits all processes: priorities of users (kern_resource.c: sys_getpriority(), sys_setpriority()).

The other scan that can be seen, kill(-1), is in signals.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.oracle.model import Errno, Proc

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

PROCESS, GROUP, USER = 0, 1, 2  # PRIO_PROCESS, PRIO_PGRP, PRIO_USER
LOWEST, HIGHEST = -20, 20  # PRIO_MIN, PRIO_MAX


def _found(k: Kernel, caller: Proc, which: int, who: int) -> list[Proc]:
    """Return those who are meant, as far as the caller's jail reaches; the user is the effective one."""
    rules = k.rules
    if which == PROCESS:
        proc = rules.pfind(k, who) if who else caller
        found = [proc] if proc is not None else []
    elif which == GROUP:
        group = rules.pgfind(k, who) if who else caller.group
        found = list(group.members) if group is not None else []
    elif which == USER:
        user = who or caller.cred.uid
        found = [proc for proc in k.allproc() if rules.scan_visits(proc) and proc.cred.uid == user]
    else:
        raise Errno("EINVAL")
    return [proc for proc in found if rules.same_prison(caller.cred, proc.cred)]


def getpriority(k: Kernel, caller: Proc, which: int, who: int) -> int:
    """sys_getpriority(): the best of all that are meant, which is the lowest."""
    found = _found(k, caller, which, who)
    if not found:
        raise Errno("ESRCH")
    return k.rules.best_priority([proc.nice for proc in found])


def setpriority(k: Kernel, caller: Proc, which: int, who: int, value: int) -> int:
    """sys_setpriority(): for all that are meant; the last error of several is told, of a group the last outcome."""
    found = _found(k, caller, which, who)
    if not found:
        raise Errno("ESRCH")
    outcomes = [k.rules.donice(caller, proc, value) for proc in found]
    for proc, error in zip(found, outcomes, strict=True):
        if error is None:
            proc.nice = max(LOWEST, min(HIGHEST, value))
    errors = outcomes[-1:] if which == GROUP else outcomes
    if failed := [error for error in errors if error is not None]:
        raise Errno(failed[-1])
    return 0

# SPDX-License-Identifier: BSD-2-Clause
"""User ids (kern_prot.c: sys_setuid(), sys_seteuid(), sys_setreuid(), sys_setresuid())."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.oracle import syscaps
from harness.oracle.model import Credentials, Errno, Proc
from harness.oracle.rules import RLIMIT_NPROC
from harness.processes.kinfo import ProcFlag

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

_UNSIGNED = 0xFFFFFFFF
UNCHANGED = _UNSIGNED  # (uid_t)-1


def setuid(k: Kernel, proc: Proc, uid: int) -> None:
    """sys_setuid(): all three ids, for root or to the real or effective one."""
    uid &= _UNSIGNED
    cred = proc.cred
    _need(k, cred, uid in (cred.ruid, cred.uid), syscaps.NO_SETUID)
    _set(proc, replace(cred, uid=uid, ruid=uid, svuid=uid))


def seteuid(k: Kernel, proc: Proc, uid: int) -> None:
    """sys_seteuid(): the effective id, for root or to the real or saved one."""
    uid &= _UNSIGNED
    cred = proc.cred
    _need(k, cred, uid in (cred.ruid, cred.svuid), syscaps.NO_SETEUID)
    _set(proc, replace(cred, uid=uid))


def setreuid(k: Kernel, proc: Proc, ruid: int, euid: int) -> None:
    """sys_setreuid(): the saved id follows the effective one if the real one is set or differs from it."""
    ruid, euid = ruid & _UNSIGNED, euid & _UNSIGNED
    cred = proc.cred
    allowed = ruid in (UNCHANGED, cred.ruid, cred.svuid) and euid in (UNCHANGED, cred.uid, cred.ruid, cred.svuid)
    _need(k, cred, allowed, syscaps.NO_SETREUID)
    new = cred
    if euid != UNCHANGED:
        new = replace(new, uid=euid)
    if ruid != UNCHANGED:
        new = replace(new, ruid=ruid)
    if ruid != UNCHANGED or new.uid != new.ruid:
        new = replace(new, svuid=new.uid)
    _set(proc, new)


def setresuid(k: Kernel, proc: Proc, ruid: int, euid: int, suid: int) -> None:
    """sys_setresuid(): each id on its own, to any of the three for those who are not root."""
    wanted = (ruid & _UNSIGNED, euid & _UNSIGNED, suid & _UNSIGNED)
    cred = proc.cred
    allowed = all(uid in (UNCHANGED, cred.ruid, cred.uid, cred.svuid) for uid in wanted)
    _need(k, cred, allowed, syscaps.NO_SETRESUID)
    present = (cred.ruid, cred.uid, cred.svuid)
    ruid, euid, suid = (old if new == UNCHANGED else new for old, new in zip(present, wanted, strict=True))
    _set(proc, replace(cred, ruid=ruid, uid=euid, svuid=suid))


def _need(k: Kernel, cred: Credentials, allowed: bool, cap: int) -> None:
    if not allowed and not k.rules.may(cred, cap):
        raise Errno("EPERM")


def _set(proc: Proc, cred: Credentials) -> None:
    if cred != proc.cred:
        proc.cred = cred
        proc.flags |= ProcFlag.P_SUGID  # setsugid()


def setrlimit(k: Kernel, proc: Proc, resource: int, soft: int, hard: int) -> None:
    """kern_setrlimit() (kern_plimit.c): the hard limit is raised by root only; RLIMIT_NPROC is at least 1."""
    ceiling = proc.limit(resource)[1]
    if (soft > ceiling or hard > ceiling) and not k.rules.may(proc.cred, syscaps.NO_SETRLIMIT):
        raise Errno("EPERM")
    soft = min(soft, hard)
    if resource == RLIMIT_NPROC:
        most = k.variables["kern.maxprocperuid"]
        soft, hard = max(min(soft, most), 1), max(min(hard, most), 1)
    proc.limits = {**proc.limits, resource: (soft, hard)}

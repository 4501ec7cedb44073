# SPDX-License-Identifier: BSD-2-Clause
"""Jails: who is in one is told of nobody outside (kern_jail.c).  Files and networks are not modelled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.oracle import syscaps
from harness.oracle.model import Errno, Proc
from harness.processes.kinfo import ProcFlag

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

CHROOT_DEPTH = 32  # generations for which a change of root counts


def jail(k: Kernel, proc: Proc) -> int:
    """sys_jail(): make a jail, enter it, and return its id; root only, and not from inside another."""
    _require(k, proc, syscaps.NO_JAIL_CREATE)
    k.jails += 1
    _enter(k, proc, k.jails)
    return k.jails


def attach(k: Kernel, proc: Proc, number: int) -> None:
    """sys_jail_attach(): enter a jail that has somebody in it."""
    _require(k, proc, syscaps.NO_JAIL_ATTACH)
    if not number or all(other.cred.prison != number for other in k.procs.values()):
        raise Errno("EINVAL")
    _enter(k, proc, number)


def _require(k: Kernel, proc: Proc, cap: int) -> None:
    if proc.cred.prison or not k.rules.may(proc.cred, cap):
        raise Errno("EPERM")


def _enter(k: Kernel, proc: Proc, number: int) -> None:
    """kern_jail_attach(), kern_chroot(): since 2023 root is restricted there."""
    if not proc.flags & ProcFlag.P_JAILED:
        proc.depth += CHROOT_DEPTH
    proc.flags |= ProcFlag.P_JAILED
    cred = replace(proc.cred, prison=number)
    if k.rules.traits.syscap:
        both = syscaps.SELF | syscaps.EXEC
        cred = replace(cred, caps=cred.caps | both << 2 * syscaps.RESTRICTED_ROOT | both << 2 * syscaps.ANY)
    proc.cred = cred

# SPDX-License-Identifier: BSD-2-Clause
"""Jails: who is in one is told of nobody outside (kern_jail.c).  Files and networks are not modelled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.oracle.model import Errno, Proc
from harness.processes.kinfo import ProcFlag

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

CHROOT_DEPTH = 32  # generations for which a change of root counts


def jail(k: Kernel, proc: Proc) -> int:
    """sys_jail(): make a jail, enter it, and return its id."""
    if not k.rules.may_make_jail(proc.cred):
        raise Errno("EPERM")
    k.jails += 1
    _enter(k, proc, k.jails)
    return k.jails


def attach(k: Kernel, proc: Proc, number: int) -> None:
    """sys_jail_attach(): enter a jail that has somebody in it."""
    if not k.rules.may_enter_jail(proc.cred):
        raise Errno("EPERM")
    if not k.rules.jail_exists(k, number):
        raise Errno("EINVAL")
    _enter(k, proc, number)


def _enter(k: Kernel, proc: Proc, number: int) -> None:
    """kern_jail_attach(), kern_chroot()."""
    if not proc.flags & ProcFlag.P_JAILED:
        proc.depth += CHROOT_DEPTH
    proc.flags |= ProcFlag.P_JAILED
    proc.cred = k.rules.jail_restricts(replace(proc.cred, prison=number))

# SPDX-License-Identifier: BSD-2-Clause
"""Restrictions a process puts on itself and on what it runs (kern_caps.c, since October 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.oracle.model import Credentials, Errno, Proc

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

# sys/caps.h
SELF, EXEC = 1, 2  # two bits for each
COUNT = 256
IN_PARENT = 0x00010000
EXTRA_FLAGS = 0x7FFF0000
GROUP_SHIFT = 4
ANY, RESTRICTED_ROOT, NO_EXEC = 0x00, 0x01, 0x03
NO_REBOOT = 0x19
NO_SETLOGIN, NO_SETRLIMIT, NO_SYSCTL_WRITE = 0x21, 0x22, 0x23
NO_SCHED = 0x29
NO_JAIL_CREATE, NO_JAIL_ATTACH = 0x50, 0x51
NO_SETUID, NO_SETGID, NO_SETEUID, NO_SETEGID = 0x40, 0x41, 0x42, 0x43
NO_SETREUID, NO_SETREGID, NO_SETRESUID, NO_SETRESGID, NO_SETGROUPS = 0x44, 0x45, 0x46, 0x47, 0x48

_EXEC_BITS = sum(EXEC << 2 * cap for cap in range(COUNT))
_RESOURCE_HEADER = 16  # sizeof(struct syscap_base)


def flags_of(cred: Credentials, cap: int) -> int:
    """caps_get(): whom CAP restricts, SELF and EXEC."""
    return cred.caps >> 2 * cap & (SELF | EXEC)


def restricts(cred: Credentials, cap: int) -> bool:
    """caps_priv_check(): whether CAP, or the group it belongs to, restricts the process itself."""
    found = flags_of(cred, cap)
    if group := cap >> GROUP_SHIFT:
        found |= flags_of(cred, group)
    return bool(found & SELF)


def words(cred: Credentials) -> tuple[int, ...]:
    """kp_syscaps: 32 restrictions in each."""
    return tuple(cred.caps >> 64 * index & (1 << 64) - 1 for index in range(COUNT // 32))


def get(k: Kernel, proc: Proc, number: int, size: int = 0) -> int:
    """sys_syscap_get(): how the caller, or its parent, is restricted; SIZE is that of the caller's buffer."""
    _require(k)
    cap = number & ~EXTRA_FLAGS
    if cap < 0:
        raise Errno("EINVAL")
    if cap >= COUNT:
        raise Errno("EOPNOTSUPP")
    if 0 < size < _RESOURCE_HEADER:
        raise Errno("EINVAL")
    return flags_of(_whose(k, proc, number).cred, cap)


def set_(k: Kernel, proc: Proc, number: int, flags: int, size: int = 0) -> int:
    """sys_syscap_set(): add restrictions to the caller, or to a parent of the same user; nothing takes them away."""
    _require(k)
    cap = number & ~EXTRA_FLAGS
    if not 0 <= cap < COUNT or flags & ~(SELF | EXEC) or size:
        raise Errno("EINVAL")
    whose = _whose(k, proc, number)
    if (whose.cred.uid, whose.cred.prison) != (proc.cred.uid, proc.cred.prison):
        raise Errno("EINVAL")
    before = flags_of(whose.cred, cap)
    if before != before | flags:
        whose.cred = replace(whose.cred, caps=whose.cred.caps | flags << 2 * cap | flags << 2 * ANY)
    return before | flags


def jailed(cred: Credentials) -> Credentials:
    """kern_chroot(): root is restricted from here on, and so are its programs to come."""
    both = SELF | EXEC
    return replace(cred, caps=cred.caps | both << 2 * RESTRICTED_ROOT | both << 2 * ANY)


def after_exec(cred: Credentials) -> Credentials:
    """caps_exec(): what was for programs to come is for this one, too; what was for the caller alone is over."""
    lasting = cred.caps & _EXEC_BITS
    return replace(cred, caps=lasting | lasting >> 1)


def _require(k: Kernel) -> None:
    if not k.rules.traits.syscap:
        raise Errno("ENOSYS")


def _whose(k: Kernel, proc: Proc, number: int) -> Proc:
    if not number & IN_PARENT:
        return proc
    parent = proc.parent
    if parent is None or k.rules.pfind(k, parent.pid) is None:
        raise Errno("EINVAL")
    return parent

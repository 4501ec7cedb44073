# SPDX-License-Identifier: BSD-2-Clause
"""User and group ids (kern_prot.c: sys_setuid(), sys_setgid() and their like), and limits (kern_plimit.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.oracle import syscaps
from harness.oracle.model import Credentials, Errno, Ids, Proc
from harness.oracle.rules import RLIMIT_NPROC
from harness.processes.kinfo import ProcFlag

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

_UNSIGNED = 0xFFFFFFFF
UNCHANGED = _UNSIGNED  # (uid_t)-1
MOST_GROUPS = 16  # NGROUPS_MAX


@dataclass(frozen=True)
class Kind:
    """Users or groups: which members of the credentials, and which capabilities restrict the calls."""

    effective: str
    real: str
    saved: str
    set_all: int
    set_effective: int
    set_real_effective: int
    set_each: int

    def of(self, cred: Credentials) -> Ids:
        """Return the three ids."""
        return Ids(getattr(cred, self.real), getattr(cred, self.effective), getattr(cred, self.saved))

    def replaced(self, cred: Credentials, ids: Ids) -> Credentials:
        """Return CRED with these three ids."""
        ids_by_name: dict[str, Any] = {self.real: ids.real, self.effective: ids.effective, self.saved: ids.saved}
        return replace(cred, **ids_by_name)


USERS = Kind("uid", "ruid", "svuid", syscaps.NO_SETUID, syscaps.NO_SETEUID, syscaps.NO_SETREUID, syscaps.NO_SETRESUID)
GROUPS = Kind("gid", "rgid", "svgid", syscaps.NO_SETGID, syscaps.NO_SETEGID, syscaps.NO_SETREGID, syscaps.NO_SETRESGID)


def set_all(k: Kernel, proc: Proc, kind: Kind, id_: int) -> None:
    """sys_setuid(), sys_setgid(): all three ids."""
    id_ &= _UNSIGNED
    ids = kind.of(proc.cred)
    _need(k, proc.cred, k.rules.may_become(ids, id_), kind.set_all)
    _set(proc, kind, k.rules.became(ids, id_))


def set_effective(k: Kernel, proc: Proc, kind: Kind, id_: int) -> None:
    """sys_seteuid(), sys_setegid(): the effective id."""
    id_ &= _UNSIGNED
    ids = kind.of(proc.cred)
    _need(k, proc.cred, k.rules.may_act_as(ids, id_), kind.set_effective)
    _set(proc, kind, replace(ids, effective=id_))


def set_real_effective(k: Kernel, proc: Proc, kind: Kind, real: int, effective: int) -> None:
    """sys_setreuid(), sys_setregid(): each may be left alone."""
    real, effective = real & _UNSIGNED, effective & _UNSIGNED
    ids = kind.of(proc.cred)
    allowed = (real == UNCHANGED or k.rules.may_be_really(ids, real)) and (
        effective == UNCHANGED or k.rules.may_be_effectively(ids, effective)
    )
    _need(k, proc.cred, allowed, kind.set_real_effective)
    new = Ids(_or(real, ids.real), _or(effective, ids.effective), ids.saved)
    if k.rules.saves_effective(new, real != UNCHANGED):
        new = replace(new, saved=new.effective)
    _set(proc, kind, new)


def set_each(k: Kernel, proc: Proc, kind: Kind, real: int, effective: int, saved: int) -> None:
    """sys_setresuid(), sys_setresgid(): each id on its own."""
    wanted = (real & _UNSIGNED, effective & _UNSIGNED, saved & _UNSIGNED)
    ids = kind.of(proc.cred)
    allowed = all(id_ == UNCHANGED or k.rules.may_exchange(ids, id_) for id_ in wanted)
    _need(k, proc.cred, allowed, kind.set_each)
    real, effective, saved = wanted
    _set(proc, kind, Ids(_or(real, ids.real), _or(effective, ids.effective), _or(saved, ids.saved)))


def setgroups(k: Kernel, proc: Proc, groups: Sequence[int]) -> None:
    """sys_setgroups(): the first of them is the effective group; of none, that one is left."""
    if not k.rules.may(proc.cred, syscaps.NO_SETGROUPS):
        raise Errno("EPERM")
    if len(groups) > MOST_GROUPS:
        raise Errno("EINVAL")
    first, *others = groups or (proc.cred.gid,)
    proc.cred = replace(proc.cred, gid=first & _UNSIGNED, groups=tuple(group & _UNSIGNED for group in others))
    proc.flags |= ProcFlag.P_SUGID


def _or(new: int, old: int) -> int:
    return old if new == UNCHANGED else new


def _need(k: Kernel, cred: Credentials, allowed: bool, cap: int) -> None:
    if not allowed and not k.rules.may(cred, cap):
        raise Errno("EPERM")


def _set(proc: Proc, kind: Kind, ids: Ids) -> None:
    cred = kind.replaced(proc.cred, ids)
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

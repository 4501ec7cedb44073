# SPDX-License-Identifier: BSD-2-Clause
"""Process groups and sessions (kern_proc.c; system calls from kern_prot.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.oracle import signals
from harness.oracle.model import Errno, Pgrp, Proc, Session
from harness.oracle.signals_table import NUMBERS
from harness.processes.kinfo import ProcFlag

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel


def join_at_fork(k: Kernel, parent: Proc, child: Proc) -> None:
    """fork1(): a child becomes a member of its parent's group, listed behind it.  No job control count moves."""
    group = k.rules.fork_keeps_pgrp(k, parent)
    child.pgrp = group
    group.references += 1
    at = group.members.index(parent) + 1 if parent in group.members else 0
    group.members.insert(at, child)


def enterpgrp(k: Kernel, proc: Proc, pgid: int, *, new_session: bool) -> None:
    """enterpgrp(): move a process to a group, made here if it does not exist, and to a new session if asked for."""
    group = k.groups.get(pgid)
    if group is None:
        if new_session:
            old = proc.session
            session = Session(proc.pid, k.rules.new_session_leader(proc), k.rules.new_session_login(old))
            if k.rules.setsid_leaves_terminal():
                proc.flags &= ~ProcFlag.P_CONTROLT
            k.sessions[session.sid] = session
        else:
            session = proc.session
            if k.rules.group_holds_session():
                session.references += 1
        group = Pgrp(pgid, session)
        k.groups[pgid] = group
    elif group is proc.pgrp:
        return
    else:
        group.references += 1
    old_group = proc.pgrp
    if old_group is not None and k.rules.leaves_old_group():
        old_group.members.remove(proc)
    proc.pgrp = group
    group.members.insert(0, proc)
    changes = []
    if k.rules.entering_counts():
        changes.append((group, True))
    if old_group is not None and k.rules.leaving_counts():
        changes.append((old_group, False))
    for changed, entering in changes if k.rules.entering_counts_first() else reversed(changes):
        fixjobc(k, proc, changed, entering=entering)
    if old_group is not None:
        pgrel(k, old_group, proc)


def leavepgrp(k: Kernel, proc: Proc) -> None:
    """leavepgrp(): a process that is reaped is no longer a member of its group."""
    group = proc.pgrp
    if group is None:
        return
    proc.pgrp = None
    if proc in group.members:
        group.members.remove(proc)
    pgrel(k, group, proc)


def pgrel(k: Kernel, group: Pgrp, leaving: Proc | None = None) -> None:
    """pgrel(): drop a reference, that of a member LEAVING or a terminal's; the last one ends the group.

    That starts the delay of its id.
    """
    group.references -= 1
    if k.groups.get(group.pgid) is not group or not k.rules.group_ends_with(group, leaving):
        return
    del k.groups[group.pgid]
    if k.rules.release_stamps_pgid():
        k.pids.stamp(group.pgid)
    _sess_rele(k, group.session)


def _sess_rele(k: Kernel, session: Session) -> None:
    """sess_rele(): drop a reference; the last one ends the session and starts the delay of its id."""
    session.references -= 1
    if k.sessions.get(session.sid) is not session or not k.rules.session_ends_with(session):
        return
    del k.sessions[session.sid]
    terminal, session.terminal = session.terminal, None
    if terminal is not None and k.rules.session_frees_terminal():
        terminal.held_by_session -= 1
        if terminal.session is session:
            terminal.session = None
    if k.rules.release_stamps_sid():
        k.pids.stamp(session.sid)


def fixjobc(k: Kernel, proc: Proc, group: Pgrp, *, entering: bool) -> None:
    """fixjobc(): keep count of the members that make a group part of job control.

    A member counts if its parent is in another group of the same session.  PROC is about to enter or leave GROUP;
    whether its children count in their groups depends on it, too.  A group whose count reaches 0 is orphaned.
    """
    session = group.session
    assert proc.parent is not None
    if proc.parent.pgrp is not None and k.rules.qualifies(group, proc.parent.pgrp, session):
        _count(k, group, entering=entering)
    if not k.rules.adjusts_children():
        return
    for child in list(proc.children):
        if child.pgrp is None or not k.rules.adjusts_for_child(child):
            continue
        if k.rules.qualifies(group, child.pgrp, session):
            _count(k, child.pgrp, entering=entering)


def _count(k: Kernel, group: Pgrp, *, entering: bool) -> None:
    if entering:
        group.jobc += 1
        return
    group.jobc -= 1
    if group.jobc == 0:
        orphanpg(k, group)


def orphanpg(k: Kernel, group: Pgrp) -> None:
    """orphanpg(): if a member is stopped, hang up and continue all of them."""
    names = k.rules.orphan_signals(group)
    for member in list(group.members):
        if names and k.rules.orphan_receives(member):
            for name in names:
                signals.ksignal(k, member, NUMBERS[name])


def setsid(k: Kernel, proc: Proc) -> int:
    """sys_setsid()."""
    if k.rules.setsid_refused(k, proc):
        raise Errno("EPERM")
    enterpgrp(k, proc, proc.pid, new_session=True)
    return proc.pid


def setpgid(k: Kernel, proc: Proc, pid: int, pgid: int) -> None:
    """sys_setpgid().  The order of the tests decides which error is reported."""
    rules = k.rules
    if pgid < 0 and (error := rules.setpgid_negative()):
        raise Errno(error)
    target: Proc = proc
    if pid not in (0, proc.pid):
        found = rules.pfind(k, pid)
        if found is None or not rules.inferior(k, found, proc):
            raise Errno("ESRCH")
        target = found
        if target.pgrp is None:
            raise Errno("EPERM")
        if error := rules.setpgid_stranger(proc, target) or rules.setpgid_after_exec(target):
            raise Errno(error)
    if error := rules.setpgid_leader(target):
        raise Errno(error)
    if pgid == 0:
        pgid = target.pid
    elif pgid != target.pid and (error := rules.setpgid_group(proc, rules.pgfind(k, pgid))):
        raise Errno(error)
    enterpgrp(k, target, pgid, new_session=False)


def getpgid(k: Kernel, proc: Proc, pid: int) -> int:
    """sys_getpgid()."""
    return k.rules.getpgid(_found(k, proc, pid))


def getsid(k: Kernel, proc: Proc, pid: int) -> int:
    """sys_getsid()."""
    return k.rules.getsid(_found(k, proc, pid))


def _found(k: Kernel, proc: Proc, pid: int) -> Proc:
    found = proc if pid == 0 else k.rules.pfind(k, pid)
    if found is None or found.pgrp is None:
        raise Errno("ESRCH")
    return found


def setlogin(k: Kernel, proc: Proc, name: str) -> None:
    """sys_setlogin()."""
    if not k.rules.may_setlogin(proc.cred):
        raise Errno("EPERM")
    if len(name.encode()) >= k.rules.login_size():
        raise Errno("EINVAL")
    k.rules.setlogin_reaches(proc.session).login = name


def getlogin(k: Kernel, proc: Proc) -> str:
    """sys_getlogin()."""
    return proc.session.login

# SPDX-License-Identifier: BSD-2-Clause
"""Waiting for children (kern_exit.c: kern_wait())."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.oracle import lifecycle, signals
from harness.oracle.blocking import WouldBlock
from harness.oracle.model import Errno, Proc
from harness.oracle.rules import (
    CLD_CONTINUED,
    CLD_STOPPED,
    CLD_TRAPPED,
    WCONTINUED,
    WEXITED,
    WLINUXCLONE,
    WNOHANG,
    WNOWAIT,
    WTRAPPED,
    WUNTRACED,
)
from harness.oracle.signals_table import SIGCHLD, SIGCONT
from harness.processes.kinfo import ProcFlag

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel


@dataclass(frozen=True)
class Reaped:
    """What kern_wait() found: the child and its status word; pid 0 if WNOHANG found nothing.

    The rest is for siginfo_t: the signal, the kind of news, child and user as told there, and the status.
    """

    pid: int
    status: int = 0
    signal: int = 0
    code: int = 0
    info_pid: int = 0
    uid: int = 0
    info_status: int = 0


def wait4(k: Kernel, proc: Proc, pid: int, options: int) -> Reaped:
    """sys_wait4(): what has ended or is trapped is asked for in any case."""
    if options & ~k.rules.wait_options() & 0xFFFFFFFF:
        raise Errno("EINVAL")
    return _kern_wait(k, proc, lambda child: k.rules.wait_matches(proc, child, pid), options | WEXITED | WTRAPPED)


def wait6(k: Kernel, proc: Proc, idtype: str, id_: int, options: int) -> Reaped:
    """sys_wait6(): by kind of id; pid or group 0 is the caller's group."""
    if not k.rules.traits.wait6:
        raise Errno("ENOSYS")
    if options & ~k.rules.wait_options() & 0xFFFFFFFF or not options & k.rules.wait6_needs():
        raise Errno("EINVAL")
    if idtype in ("P_PID", "P_PGID") and id_ == 0:
        idtype, id_ = "P_PGID", proc.group.pgid
    return _kern_wait(k, proc, lambda child: k.rules.wait6_matches(proc, child, idtype, id_), options)


def _kern_wait(k: Kernel, proc: Proc, matches: Callable[[Proc], bool], options: int) -> Reaped:
    """kern_wait(): report the first child in the list, the youngest first, that has something to report.

    Raises WouldBlock if there are children but nothing to report.
    """
    found = _look(k, proc, matches, options)
    if found.pid and k.rules.wait_takes_sigchld():
        signals.take(k.thread_of(proc), SIGCHLD)
    return found


def _look(k: Kernel, proc: Proc, matches: Callable[[Proc], bool], options: int) -> Reaped:
    rules = k.rules
    threads = bool(options & WLINUXCLONE)
    children = [
        child for child in proc.children if matches(child) and (child.signals_parent_with != "SIGCHLD") == threads
    ]
    if not children:
        raise Errno(rules.without_children())
    clears = rules.report_clears() and not (options & WNOWAIT and rules.keeps_what_is_only_looked_at())
    for child in children:
        if child.is_zombie and options & WEXITED:
            code, shown = rules.end_shown(child.xstat)
            uid = child.cred.uid
            if options & WNOWAIT:
                child.thread_gone = True
            if not options & WNOWAIT or not rules.keeps_what_is_only_looked_at():
                reap(k, child)
            return Reaped(child.pid, rules.zombie_keeps_status(child.xstat), SIGCHLD, code, child.pid, uid, shown)
        signal, pid, uid, shown = rules.change_shown(child)
        traced = bool(child.flags & ProcFlag.P_TRACED)
        if rules.reports_stop(child, bool(options & (WUNTRACED | (WTRAPPED if traced else 0)))):
            if clears:
                child.flags |= ProcFlag.P_WAITED
            code = CLD_TRAPPED if traced else CLD_STOPPED
            return Reaped(child.pid, child.xstat << 8 | 0x7F, signal, code, pid, uid, shown)
        if rules.reports_continue(child, bool(options & WCONTINUED)):
            if clears:
                child.flags &= ~ProcFlag.P_CONTINUED
            return Reaped(child.pid, SIGCONT, signal, CLD_CONTINUED, pid, uid, shown)
    if options & WNOHANG:
        return Reaped(0)
    raise WouldBlock


def reap(k: Kernel, child: Proc) -> None:
    """kern_wait(): the zombie is gone, unless its tracer has waited for it: then it goes back to its parent."""
    parent = k.rules.given_back(k, child)
    if parent is None:
        lifecycle.proc_remove_zombie(k, child)
        return
    child.thread_gone = True
    child.traced_child_of = 0
    lifecycle.proc_reparent(k, child, parent)
    signals.ksignal(k, parent, SIGCHLD)
    k.scheduler.wakeup(parent)

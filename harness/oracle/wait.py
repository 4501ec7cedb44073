"""Waiting for children (kern_exit.c: kern_wait())."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.oracle import lifecycle
from harness.oracle.blocking import WouldBlock
from harness.oracle.model import Errno, Proc
from harness.oracle.rules import WCONTINUED, WLINUXCLONE, WNOHANG, WUNTRACED
from harness.oracle.signals_table import SIGCONT
from harness.processes.kinfo import ProcFlag

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel


@dataclass(frozen=True)
class Reaped:
    """What kern_wait() found: the child and its status word; pid 0 if WNOHANG found nothing."""

    pid: int
    status: int = 0


def kern_wait(k: Kernel, proc: Proc, pid: int, options: int) -> Reaped:
    """kern_wait(): report the first child in the list, the youngest first, that has something to report.

    Raises WouldBlock if there are children but nothing to report.
    """
    rules = k.rules
    if options & ~rules.WAIT_OPTIONS & 0xFFFFFFFF:
        raise Errno("EINVAL")
    threads = bool(options & WLINUXCLONE)
    children = [
        child
        for child in proc.children
        if rules.wait_matches(proc, child, pid) and (child.signals_parent_with != "SIGCHLD") == threads
    ]
    if not children:
        raise Errno(rules.without_children())
    for child in children:
        if child.is_zombie:
            lifecycle.proc_remove_zombie(k, child)
            return Reaped(child.pid, rules.zombie_keeps_status(child.xstat))
        if rules.reports_stop(child, bool(options & WUNTRACED)):
            if rules.report_clears():
                child.flags |= ProcFlag.P_WAITED
            return Reaped(child.pid, child.xstat << 8 | 0x7F)
        if rules.reports_continue(child, bool(options & WCONTINUED)):
            if rules.report_clears():
                child.flags &= ~ProcFlag.P_CONTINUED
            return Reaped(child.pid, SIGCONT)
    if options & WNOHANG:
        return Reaped(0)
    raise WouldBlock

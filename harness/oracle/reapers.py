"""Reapers: processes that inherit the orphans among their descendants (kern_fork.c: sys_procctl(), reaper_*())."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.oracle.model import Errno, Proc, Reaper
from harness.processes.vocabulary import ReaperStatus

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel


def inherit(k: Kernel, parent: Proc, child: Proc) -> None:
    """fork1(): a child has the reaper of its parent."""
    reaper = parent.reaper if k.rules.reaper_is_inherited() else k.init.reaper
    if reaper is not None:
        reaper.references += 1
    child.reaper = reaper


def acquire(proc: Proc) -> None:
    """PROC_REAP_ACQUIRE: become a reaper."""
    if proc.reaper is not None and proc.reaper.proc is proc:
        raise Errno("EALREADY")
    proc.reaper = Reaper(proc, proc.reaper)  # the reference to the old one passes to the new one


def release(proc: Proc) -> None:
    """PROC_REAP_RELEASE: stop being a reaper."""
    reaper = proc.reaper
    if reaper is None or reaper.proc is not proc:
        raise Errno("ENOTCONN")
    reaper.proc = None
    proc.reaper = reaper.parent
    if proc.reaper is not None:
        proc.reaper.references += 1
    drop(reaper)


def status(proc: Proc) -> ReaperStatus:
    """PROC_REAP_STATUS: flags and references are those of an own reaper only."""
    reaper = proc.reaper
    first = proc.children[0].pid if proc.children else -1
    if reaper is None or reaper.proc is not proc:
        return ReaperStatus(owned=False, real_init=False, references=0, first_child=first)
    return ReaperStatus(True, reaper.real_init, reaper.references - 1, first)


def exit_reaper(proc: Proc) -> Reaper | None:
    """reaper_exit(): a dying reaper resigns; return, for the caller to drop, the one above."""
    if proc.reaper is not None and proc.reaper.proc is proc:
        release(proc)
    reaper, proc.reaper = proc.reaper, None
    return reaper


def reaper_of(k: Kernel, reaper: Reaper | None) -> Proc:
    """reaper_get(): the nearest reaper that is alive, in the end init."""
    while reaper is not None:
        if reaper.proc is not None:
            return reaper.proc
        reaper = reaper.parent
    return k.init


def drop(reaper: Reaper | None) -> None:
    """reaper_drop(): drop a reference, and with the last one those to the reapers above."""
    while reaper is not None:
        reaper.references -= 1
        if reaper.references > 0:
            return
        reaper = reaper.parent

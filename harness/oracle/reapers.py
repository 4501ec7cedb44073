# SPDX-License-Identifier: BSD-2-Clause
"""Reapers: processes that inherit the orphans among their descendants (kern_fork.c: sys_procctl(), reaper_*())."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.oracle import signals
from harness.oracle.model import Errno, Proc, Reaper
from harness.processes.vocabulary import ReaperStatus

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel


# sys/procctl.h
REAP_ACQUIRE, REAP_RELEASE, REAP_STATUS, DEATHSIG_CTL, DEATHSIG_STATUS, REAP_KILL = range(1, 7)


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


def status(k: Kernel, proc: Proc) -> ReaperStatus:
    """PROC_REAP_STATUS: flags and references are those of an own reaper only."""
    reaper = proc.reaper
    first = k.rules.reaper_head(proc)
    if reaper is None or reaper.proc is not proc:
        return ReaperStatus(owned=False, real_init=False, references=0, first_child=first)
    return ReaperStatus(True, reaper.real_init, reaper.references - 1, first)


def procctl(k: Kernel, proc: Proc, idtype: str, id_: int, command: int, data: bytes | None) -> bytes:
    """sys_procctl(): the raw call, on the caller alone; return what DATA holds afterwards (b"" where there is none)."""
    traits = k.rules.traits
    if idtype != "P_PID" or not k.rules.procctl_id(proc, id_):
        raise Errno("EINVAL")
    kept = data or b""
    if command == REAP_ACQUIRE:
        acquire(proc)
    elif command == REAP_RELEASE:
        release(proc)
    elif command == REAP_STATUS:
        found = status(k, proc)
        flags = found.owned * 1 | found.real_init * 2
        kept = _over(kept, struct.pack("<II120xi60x", flags, found.references, found.first_child))
    elif command == DEATHSIG_CTL and traits.deathsig and data is not None:
        (signal,) = struct.unpack_from("<i", data)
        if not k.rules.deathsig_allowed(signal):
            raise Errno("EINVAL")
        proc.deathsig = signal
    elif command == DEATHSIG_STATUS and traits.deathsig and data is not None:
        kept = _over(kept, struct.pack("<i", proc.deathsig))
    elif command == REAP_KILL and traits.reap_kill and data is not None:
        flags, signal = struct.unpack_from("<Ii", data)
        kept = _over(kept, struct.pack("<IiIi", flags, signal, *kill(k, proc, signal, children_only=bool(flags & 1))))
    else:
        raise Errno("EINVAL")
    return kept


def _over(data: bytes, new: bytes) -> bytes:
    return (new + data[len(new) :])[: len(data)]


def kill(k: Kernel, proc: Proc, signal: int, *, children_only: bool = False) -> tuple[int, int]:
    """reaper_kill(): signal what is below, but not what is below other reapers there; return how many, and who not.

    It begins again until it meets nobody new; who was given another parent meanwhile is new, and counts again.
    """
    if proc.reaper is None or proc.reaper.proc is not proc:
        raise Errno("ENOTCONN")
    if not 0 < signal <= k.rules.highest_signal():
        raise Errno("EINVAL")
    for one in k.procs.values():
        one.signalled_by_reaper = False
    killed = failed = 0
    while fresh := [one for one in _below(k, proc, proc, children_only) if not one.signalled_by_reaper]:
        for one in fresh:
            one.signalled_by_reaper = True
            if k.rules.reap_kill_reaches(proc, one):
                signals.ksignal(k, one, signal)
                killed += 1
            elif not failed:
                failed = one.pid
        k.scheduler.run_others()
    return killed, failed


def _below(k: Kernel, reaper: Proc, parent: Proc, children_only: bool) -> Iterator[Proc]:
    for child in list(parent.children):
        yield child
        if not children_only and k.rules.reap_kill_enters(reaper, child):
            yield from _below(k, reaper, child, children_only)


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

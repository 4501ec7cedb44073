# SPDX-License-Identifier: BSD-2-Clause
"""Signals: dispositions, who may send them, and what their arrival does at once (kern_sig.c)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.oracle.model import Disposition, Errno, Proc
from harness.oracle.signals_table import (
    CANNOT_MASK,
    IGNORED_AT_BIRTH,
    NUMBERS,
    SIGCHLD,
    SIGCONT,
    SIGKILL,
    STOP_SIGNALS,
    Prop,
    sigprop,
)
from harness.processes.abi import DRAGONFLY
from harness.processes.kinfo import ProcFlag, ProcStat
from harness.processes.vocabulary import SigFlag, SigHow, signal_text

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel


def sigaction(k: Kernel, proc: Proc, signal: int, new: Disposition | None) -> Disposition:
    """kern_sigaction(): return the old disposition, and set the new one."""
    if not 0 < signal <= k.rules.highest_signal():
        raise Errno("EINVAL")
    sigacts = proc.sigacts
    old = sigacts.of(signal)
    shown = SigFlag(0)
    if signal == SIGCHLD:
        shown |= SigFlag.SA_NOCLDSTOP if sigacts.no_child_stop else SigFlag(0)
        shown |= SigFlag.SA_NOCLDWAIT if sigacts.no_child_wait else SigFlag(0)
    old = replace(old, flags=old.flags | shown)
    if new is None:
        return old
    if signal in CANNOT_MASK and new.action != "default":
        raise Errno("EINVAL")
    kept = new.flags & ~(SigFlag.SA_NOCLDSTOP | SigFlag.SA_NOCLDWAIT)
    dispositions = {**sigacts.dispositions, signal: replace(new, flags=kept, mask=new.mask - CANNOT_MASK)}
    ignored = sigacts.ignored - {signal}
    drops = new.action == "ignore" or (new.action == "default" and Prop.IGNORE in sigprop(signal))
    if drops:
        proc.pending.discard(signal)
        proc.notified.discard(signal)
        if signal != SIGCONT:
            ignored |= {signal}
    changed = replace(sigacts, dispositions=dispositions, ignored=ignored)
    if signal == SIGCHLD:
        changed = replace(
            changed,
            no_child_stop=SigFlag.SA_NOCLDSTOP in new.flags,
            no_child_wait=SigFlag.SA_NOCLDWAIT in new.flags and proc is not k.init,
            child_ignored=new.action == "ignore",
        )
    proc.sigacts = changed
    return old


def execsigs(k: Kernel, proc: Proc) -> None:
    """execsigs(): a new program begins with default actions for what was caught; what was ignored stays ignored.

    SIGCHLD is the exception: SA_NOCLDWAIT is forgotten, and an ignored SIGCHLD is set to the default action.
    """
    sigacts = proc.sigacts
    dispositions = dict(sigacts.dispositions)
    ignored = sigacts.ignored
    for signal in sigacts.caught:
        dispositions[signal] = replace(dispositions[signal], action="default")
        if Prop.IGNORE in sigprop(signal):
            proc.pending.discard(signal)
            proc.notified.discard(signal)
            ignored |= {signal} & IGNORED_AT_BIRTH
    if sigacts.of(SIGCHLD).action == "ignore" and not k.rules.exec_keeps_ignored(SIGCHLD):
        dispositions[SIGCHLD] = replace(dispositions[SIGCHLD], action="default")
    proc.sigacts = replace(
        sigacts, dispositions=dispositions, ignored=ignored, no_child_wait=False, child_ignored=False
    )


def sigprocmask(proc: Proc, how: SigHow, signals: frozenset[int]) -> frozenset[int]:
    """kern_sigprocmask(): change the mask, which SIGKILL and SIGSTOP never enter; return the old one."""
    old = proc.mask
    if how is SigHow.SIG_UNBLOCK:
        proc.mask = old - signals
    elif how is SigHow.SIG_BLOCK:
        proc.mask = old | (signals - CANNOT_MASK)
    else:
        proc.mask = signals - CANNOT_MASK
    return old


def sigpending(proc: Proc) -> frozenset[int]:
    """kern_sigpending(): what waits to be delivered."""
    return frozenset(proc.pending | proc.notified)


def kill(k: Kernel, sender: Proc, pid: int, signal: int) -> None:
    """kern_kill()."""
    rules = k.rules
    if not 0 <= signal <= rules.highest_signal():
        raise Errno("EINVAL")
    if pid == 1 and not rules.may_signal_init(sender.cred):
        raise Errno("EPERM")
    name = signal_text(DRAGONFLY.signal_name(signal)) if signal else ""
    if pid > 0:
        target = rules.pfind(k, pid)
        if target is None:
            if rules.zpfind(k, pid) is None:
                raise Errno("ESRCH")
            if error := rules.kill_zombie():
                raise Errno(error)
            return
        if not rules.can_signal(k, sender, target, name, alone=True):
            raise Errno("EPERM")
        if signal:
            ksignal(k, target, signal)
        return
    if pid == -1:
        targets = [proc for proc in k.allproc() if rules.broadcast_reaches(sender, proc)]
        none_found = "ESRCH"
    else:
        group = sender.pgrp if pid == 0 else rules.pgfind(k, -pid)
        if group is None:
            raise Errno("ESRCH")
        targets = [proc for proc in group.members if rules.group_kill_reaches(sender, proc)]
        none_found = rules.group_without_targets()
    targets = [proc for proc in targets if rules.can_signal(k, sender, proc, name, alone=False)]
    if not targets:
        raise Errno(none_found)
    if signal:
        for target in targets:
            ksignal(k, target, signal)


def ksignal(k: Kernel, proc: Proc, signal: int) -> None:
    """lwpsignal() for a process of one thread: what the arrival of a signal does at once."""
    if proc.flags & ProcFlag.P_WEXIT:
        return
    if proc.flags & ProcFlag.P_PPWAIT:
        k.scheduler.wakeup(proc)  # it may be going in circles: see fork1()
    rules = k.rules
    prop = sigprop(signal)
    traced = bool(proc.flags & ProcFlag.P_TRACED)
    if signal in proc.sigacts.ignored and not traced:
        return
    caught = proc.sigacts.of(signal).action == "catch" and not traced
    if Prop.CONT in prop:
        proc.pending -= {NUMBERS[name] for name in rules.continue_discards()}
    if Prop.STOP in prop:
        if not caught and rules.ignored_while_orphaned(proc.group, prop):
            return
        proc.pending -= {NUMBERS[name] for name in rules.stop_discards()}
        proc.flags &= ~ProcFlag.P_CONTINUED
    if proc.stat is ProcStat.SSTOP:
        _pend(k, proc, signal)
        if traced:  # its tracer decides, even about SIGKILL
            return
        if signal == SIGKILL and rules.kill_wakes_stopped():
            proc_unstop(k, proc)
        elif Prop.CONT in prop:
            _continue(k, proc, signal, caught)
            if not caught:
                return
        else:
            if Prop.STOP in prop:
                proc.pending.discard(signal)
            return
    # A thread that blocks the signal, or sleeps where nothing may disturb it, is not told.
    if signal in proc.mask or proc.waits_for_vfork is not None:
        _pend(k, proc, signal)
        return
    if Prop.STOP in prop and not caught:
        if proc.flags & ProcFlag.P_PPWAIT:  # stopping it would stop its parent for good
            _pend(k, proc, signal)
        else:
            proc.xstat = signal
            proc_stop(k, proc)
        return
    if Prop.CONT in prop and not caught:
        return
    _set_from(k, proc, signal)
    proc.notified.add(signal)
    k.scheduler.notify(proc)


def _pend(k: Kernel, proc: Proc, signal: int) -> None:
    _set_from(k, proc, signal)
    proc.pending.add(signal)


def _set_from(k: Kernel, proc: Proc, signal: int) -> None:
    """sigsetfrompid(): remember who sent a signal last: the process, and its effective user."""
    sender = k.current
    proc.senders[signal] = (sender.pid, sender.cred.uid) if sender is not None else (0, 0)


def _continue(k: Kernel, proc: Proc, signal: int, caught: bool) -> None:
    if not k.rules.continues_although_blocked() and signal in proc.mask:
        return
    assert proc.parent is not None
    proc.flags |= ProcFlag.P_CONTINUED
    k.scheduler.wakeup(proc.parent)
    if not caught:
        proc.pending.discard(signal)
    proc_unstop(k, proc)
    if k.rules.continue_signals_parent():
        ksignal(k, proc.parent, SIGCHLD)


def proc_stop(k: Kernel, proc: Proc) -> None:
    """proc_stop(): a sleeping process counts as stopped at once, a running one when its system call returns."""
    if proc.stat in (ProcStat.SSTOP, ProcStat.SZOMB):
        return
    proc.stat = ProcStat.SSTOP
    if proc is k.current:
        proc.stop_unreported = True
        k.scheduler.notify(proc)
    else:
        report_stop(k, proc)


def report_stop(k: Kernel, proc: Proc) -> None:
    """proc_stop(), tstop(): tell the parent of a process that has stopped."""
    assert proc.parent is not None
    proc.stop_unreported = False
    proc.flags &= ~ProcFlag.P_WAITED
    k.scheduler.wakeup(proc.parent)
    if k.rules.stop_signals_parent(proc.parent):
        ksignal(k, proc.parent, SIGCHLD)


def proc_unstop(k: Kernel, proc: Proc) -> None:
    """proc_unstop(): let a stopped process go on; what it was sleeping for is looked at again."""
    if proc.stat is not ProcStat.SSTOP:
        return
    proc.stat = ProcStat.SACTIVE
    proc.stop_unreported = False
    take(proc, proc.stopped_by)
    proc.stopped_by = 0
    k.scheduler.wakeup(proc)
    k.scheduler.notify(proc)


def issignal(k: Kernel, proc: Proc, *, maytrace: bool = False) -> int:
    """issignal(): the signal to act upon next, the lowest first; stops happen here.  0: none, or stopped.

    Who stops used to stop at once, the signal still pending until it is continued.  Since 2019 the signal is taken, the
    others are looked at, and only then, on the way back to user mode, does it stop.

    Who is traced stops for each signal, and goes on with the one its tracer gives it; not in its sleep: MAYTRACE.
    """
    later = k.rules.stops_later()
    while later or proc.stat is not ProcStat.SSTOP:
        traced = bool(proc.flags & ProcFlag.P_TRACED)
        if proc.trace_stop:
            signal = _answer(proc)
            if not signal or signal in proc.mask or not traced:
                continue
        else:
            signal = _next_signal(proc)
            if not signal:
                return 0
            if maytrace and traced and not proc.flags & ProcFlag.P_PPWAIT:
                proc.xstat = proc.trace_stop = signal
                proc_stop(k, proc)
                return 0
        if signal not in proc.sigacts.ignored or traced:
            prop = sigprop(signal)
            action = proc.sigacts.of(signal).action
            if action == "catch":
                return signal
            if action == "default" and proc.pid > 1:
                if Prop.STOP in prop and not traced and not k.rules.ignored_while_orphaned(proc.group, prop):
                    proc.xstat = signal
                    if later:
                        take(proc, signal)
                    else:
                        proc.stopped_by = signal
                    proc_stop(k, proc)
                    continue
                if Prop.STOP in prop:
                    take(proc, signal)
                    continue
                if not prop & (Prop.IGNORE | Prop.CKPT):
                    return signal
        take(proc, signal)
    return 0


def _next_signal(proc: Proc) -> int:
    waiting = (proc.pending | proc.notified) - proc.mask
    if proc.flags & ProcFlag.P_PPWAIT:
        waiting -= STOP_SIGNALS
    return min(waiting, default=0)


def _answer(proc: Proc) -> int:
    """What the tracer put in place of the signal PROC had stopped for: pending now; 0 for none."""
    take(proc, proc.trace_stop)
    proc.trace_stop = 0
    if proc.xstat:
        proc.pending.add(proc.xstat)
    return proc.xstat


def take(proc: Proc, signal: int) -> None:
    """lwp_delsig(): the signal is no longer pending."""
    proc.pending.discard(signal)
    proc.notified.discard(signal)

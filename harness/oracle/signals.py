# SPDX-License-Identifier: BSD-2-Clause
"""Signals: dispositions, who may send them, and what their arrival does at once (kern_sig.c)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.oracle.model import Disposition, Errno, Lwp, Proc
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
        for lwp in proc.lwps:
            take(lwp, signal)
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
            take(proc.lwp, signal)
            ignored |= {signal} & IGNORED_AT_BIRTH
    if sigacts.of(SIGCHLD).action == "ignore" and not k.rules.exec_keeps_ignored(SIGCHLD):
        dispositions[SIGCHLD] = replace(dispositions[SIGCHLD], action="default")
    proc.sigacts = replace(
        sigacts, dispositions=dispositions, ignored=ignored, no_child_wait=False, child_ignored=False
    )


def sigprocmask(lwp: Lwp, how: SigHow, signals: frozenset[int]) -> frozenset[int]:
    """kern_sigprocmask(): change a thread's mask, which SIGKILL and SIGSTOP never enter; return the old one."""
    old = lwp.mask
    if how is SigHow.SIG_UNBLOCK:
        lwp.mask = old - signals
    elif how is SigHow.SIG_BLOCK:
        lwp.mask = old | (signals - CANNOT_MASK)
    else:
        lwp.mask = signals - CANNOT_MASK
    return old


def sigpending(lwp: Lwp) -> frozenset[int]:
    """kern_sigpending(): what waits to be delivered to a thread."""
    return frozenset(lwp.waiting)


def kill(k: Kernel, sender: Proc, pid: int, signal: int, tid: int | None = None) -> None:
    """kern_kill(): to a process, or to its thread TID; to a group or to all."""
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
        if target.flags & ProcFlag.P_WEXIT:
            return
        lwp = rules.lwpfind(target, tid) if tid is not None else None
        if tid is not None and lwp is None:
            raise Errno("ESRCH")
        if signal:
            ksignal(k, target, signal, lwp)
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


def lwp_kill(k: Kernel, sender: Proc, pid: int, tid: int, signal: int) -> None:
    """sys_lwp_kill(): a signal for one thread; pid -1 is the caller's own process."""
    if error := k.rules.lwp_kill_refused(pid, tid):
        raise Errno(error)
    kill(k, sender, sender.pid if pid == -1 else pid, signal, tid)


def ksignal(k: Kernel, proc: Proc, signal: int, lwp: Lwp | None = None) -> None:
    """lwpsignal(): what the arrival of a signal does at once; it is meant for the thread LWP, or for any."""
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
        _pend(k, proc, signal, lwp)
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
    if lwp is None:
        lwp = rules.thread_for_signal(k, proc, signal)
        if lwp is None:
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
    lwp.notified.add(signal)
    k.scheduler.notify(lwp)


def _pend(k: Kernel, proc: Proc, signal: int, lwp: Lwp | None = None) -> None:
    _set_from(k, proc, signal)
    (proc.pending if lwp is None else lwp.notified).add(signal)


def _set_from(k: Kernel, proc: Proc, signal: int) -> None:
    """sigsetfrompid(): remember who sent a signal last: the process, and its effective user."""
    sender = k.current
    proc.senders[signal] = (sender.pid, sender.cred.uid) if sender is not None else (0, 0)


def _continue(k: Kernel, proc: Proc, signal: int, caught: bool) -> None:
    if not k.rules.continues_although_blocked() and all(signal in lwp.mask for lwp in proc.lwps):
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
    if k.running is not None and k.running.proc is proc:
        k.running.stop_unreported = True
        k.scheduler.notify(k.running)
    else:
        report_stop(k, proc)


def report_stop(k: Kernel, proc: Proc) -> None:
    """proc_stop(), tstop(): tell the parent of a process that has stopped."""
    assert proc.parent is not None
    for lwp in proc.lwps:
        lwp.stop_unreported = False
    proc.flags &= ~ProcFlag.P_WAITED
    k.scheduler.wakeup(proc.parent)
    if k.rules.stop_signals_parent(proc.parent):
        ksignal(k, proc.parent, SIGCHLD)


def proc_unstop(k: Kernel, proc: Proc) -> None:
    """proc_unstop(): let a stopped process go on; what it was sleeping for is looked at again."""
    if proc.stat is not ProcStat.SSTOP:
        return
    proc.stat = ProcStat.SACTIVE
    for lwp in proc.lwps:
        lwp.stop_unreported = False
        take(lwp, lwp.stopped_by)
        lwp.stopped_by = 0
        k.scheduler.notify(lwp)
    k.scheduler.wakeup(proc)


def issignal(k: Kernel, lwp: Lwp, *, maytrace: bool = False) -> int:
    """issignal(): the signal to act upon next, the lowest first; stops happen here.  0: none, or stopped.

    Who stops used to stop at once, the signal still pending until it is continued.  Since 2019 the signal is taken, the
    others are looked at, and only then, on the way back to user mode, does it stop.

    Who is traced stops for each signal, and goes on with the one its tracer gives it; not in its sleep: MAYTRACE.
    """
    proc = lwp.proc
    later = k.rules.stops_later()
    while later or proc.stat is not ProcStat.SSTOP:
        traced = bool(proc.flags & ProcFlag.P_TRACED)
        if lwp.trace_stop:
            signal = _answer(lwp)
            if not signal or signal in lwp.mask or not traced:
                continue
        else:
            signal = _next_signal(k, lwp)
            if not signal:
                return 0
            if maytrace and traced and not proc.flags & ProcFlag.P_PPWAIT:
                proc.xstat = lwp.trace_stop = signal
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
                        take(lwp, signal)
                    else:
                        lwp.stopped_by = signal
                    proc_stop(k, proc)
                    continue
                if Prop.STOP in prop:
                    take(lwp, signal)
                    continue
                if not prop & (Prop.IGNORE | Prop.CKPT):
                    return signal
        take(lwp, signal)
    return 0


def next_signals(k: Kernel, lwp: Lwp) -> set[int]:
    """Return the signals a thread would look at on its way back to user mode."""
    return k.rules.held_back(lwp, lwp.waiting - lwp.mask)


def _next_signal(k: Kernel, lwp: Lwp) -> int:
    waiting = next_signals(k, lwp)
    if lwp.proc.flags & ProcFlag.P_PPWAIT:
        waiting -= STOP_SIGNALS
    return min(waiting, default=0)


def _answer(lwp: Lwp) -> int:
    """What the tracer put in place of the signal a thread had stopped for: pending now; 0 for none."""
    take(lwp, lwp.trace_stop)
    lwp.trace_stop = 0
    if lwp.proc.xstat:
        lwp.proc.pending.add(lwp.proc.xstat)
    return lwp.proc.xstat


def take(lwp: Lwp, signal: int) -> None:
    """lwp_delsig(): the signal is no longer pending, neither for the thread nor for its process."""
    lwp.proc.pending.discard(signal)
    lwp.notified.discard(signal)

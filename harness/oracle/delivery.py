# SPDX-License-Identifier: BSD-2-Clause
"""Back to user mode: where signals act (trap.c: userret(), kern_sig.c: postsig(), sigexit())."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.oracle import lifecycle, signals
from harness.oracle.model import ACORE, AXSIG, Disposition, Lwp, Proc
from harness.oracle.signals_table import IGNORED_AT_BIRTH, Prop, sigprop
from harness.processes.abi import DRAGONFLY
from harness.processes.kinfo import ProcFlag, ProcStat
from harness.processes.vocabulary import SigFlag, SignalRecord

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

CORE_FLAG = 0x80  # WCOREFLAG


def return_to_user(k: Kernel, lwp: Lwp) -> None:
    """userret(): stop, die, or run handlers.

    Each signal that can be delivered pushes a frame for its handler before any handler runs, so the last one, which has
    the highest number, runs first.  A process that stops on the way runs its handlers when it is continued.
    """
    proc = lwp.proc
    while not proc.flags & ProcFlag.P_WEXIT and lwp in proc.lwps and not _stops_here(k, lwp):
        signal = signals.issignal(k, lwp, maytrace=True)
        if not signal and _is_stopped(proc):
            continue
        if signal and proc.sigacts.of(signal).action != "catch":
            signals.take(lwp, signal)
            sigexit(k, proc, signal)
        elif signal:
            _postsig(k, lwp, signal)
        elif lwp.frames:
            number, disposition, returnmask = lwp.frames.pop()
            _handle(k, lwp, number, disposition)
            lwp.mask = returnmask  # sigreturn()
        else:
            lwp.in_userret = False
            return


def wakes(k: Kernel, lwp: Lwp) -> bool:
    """tsleep(): whether what has come for a traced process that sleeps lets it go back to user mode.

    What it would not act upon is thrown away there, and its tracer does not hear of it.
    """
    if not lwp.proc.flags & ProcFlag.P_TRACED or lwp.in_userret or _is_stopped(lwp.proc):
        return True
    return bool(signals.issignal(k, lwp))


def _stops_here(k: Kernel, lwp: Lwp) -> bool:
    """tstop(): tell whether it has to stay, having told its parent so."""
    if _is_stopped(lwp.proc) and lwp.stop_unreported:
        lwp.in_userret = True
        signals.report_stop(k, lwp.proc)
    return _is_stopped(lwp.proc)


def _is_stopped(proc: Proc) -> bool:
    return proc.stat is ProcStat.SSTOP


def _postsig(k: Kernel, lwp: Lwp, signal: int) -> None:
    """postsig(): make the handler of SIGNAL the next thing to run."""
    proc = lwp.proc
    signals.take(lwp, signal)
    lwp.handled += 1
    disposition = proc.sigacts.of(signal)
    if SigFlag.SA_RESETHAND in disposition.flags:
        dispositions = {**proc.sigacts.dispositions, signal: replace(disposition, action="default")}
        ignored = proc.sigacts.ignored | ({signal} & IGNORED_AT_BIRTH)
        proc.sigacts = replace(proc.sigacts, dispositions=dispositions, ignored=ignored)
    lwp.frames.append((signal, disposition, lwp.mask))
    lwp.mask |= k.rules.handler_mask(signal, disposition.mask, disposition.flags)


def _handle(k: Kernel, lwp: Lwp, signal: int, disposition: Disposition) -> None:
    """The logging handler of a driven process; of siginfo_t it finds the signal, and since 2018 who sent it last."""
    if disposition.is_internal:
        return
    siginfo = SigFlag.SA_SIGINFO in disposition.flags
    pid, uid = lwp.proc.senders.get(signal, (0, 0)) if siginfo and k.rules.tells_sender() else (0, 0)
    record = SignalRecord(DRAGONFLY.signal_name(signal), 0, pid, uid, 0, lwp.logged, k.clock.monotonic, siginfo)
    lwp.log.append(record)
    lwp.logged += 1


def sigexit(k: Kernel, proc: Proc, signal: int) -> None:
    """sigexit(): die of a signal."""
    proc.acflag |= AXSIG
    status = signal
    if Prop.CORE in sigprop(signal):
        if k.rules.core_is_written(proc):
            status |= CORE_FLAG
            proc.acflag |= ACORE
        # A process that dumps core passes for stopped until it is a zombie, even to orphanpg().
        proc.stat = ProcStat.SSTOP
    lifecycle.exit1(k, proc, status)

# SPDX-License-Identifier: BSD-2-Clause
"""Back to user mode: where signals act (trap.c: userret(), kern_sig.c: postsig(), sigexit())."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.oracle import lifecycle, signals
from harness.oracle.model import ACORE, AXSIG, Disposition, Proc
from harness.oracle.signals_table import IGNORED_AT_BIRTH, Prop, sigprop
from harness.processes.abi import DRAGONFLY
from harness.processes.kinfo import ProcFlag, ProcStat
from harness.processes.vocabulary import Resource, SigFlag, SignalRecord

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

CORE_FLAG = 0x80  # WCOREFLAG
RLIMIT_CORE = DRAGONFLY.resources[Resource.RLIMIT_CORE]


def return_to_user(k: Kernel, proc: Proc) -> None:
    """userret(): stop, die, or run handlers.

    Each signal that can be delivered pushes a frame for its handler before any handler runs, so the last one, which has
    the highest number, runs first.  A process that stops on the way runs its handlers when it is continued.
    """
    while not proc.is_zombie and not _stops_here(k, proc):
        signal = signals.issignal(k, proc, maytrace=True)
        if not signal and _is_stopped(proc):
            continue
        if signal and proc.sigacts.of(signal).action != "catch":
            signals.take(proc, signal)
            sigexit(k, proc, signal)
        elif signal:
            _postsig(k, proc, signal)
        elif proc.frames:
            number, disposition, returnmask = proc.frames.pop()
            _handle(k, proc, number, disposition)
            proc.mask = returnmask  # sigreturn()
        else:
            proc.in_userret = False
            return


def wakes(k: Kernel, proc: Proc) -> bool:
    """tsleep(): whether what has come for a traced process that sleeps lets it go back to user mode.

    What it would not act upon is thrown away there, and its tracer does not hear of it.
    """
    if not proc.flags & ProcFlag.P_TRACED or proc.in_userret or _is_stopped(proc):
        return True
    return bool(signals.issignal(k, proc))


def _stops_here(k: Kernel, proc: Proc) -> bool:
    """tstop(): tell whether it has to stay, having told its parent so."""
    if _is_stopped(proc) and proc.stop_unreported:
        proc.in_userret = True
        signals.report_stop(k, proc)
    return _is_stopped(proc)


def _is_stopped(proc: Proc) -> bool:
    return proc.stat is ProcStat.SSTOP


def _postsig(k: Kernel, proc: Proc, signal: int) -> None:
    """postsig(): make the handler of SIGNAL the next thing to run."""
    signals.take(proc, signal)
    proc.handled += 1
    disposition = proc.sigacts.of(signal)
    if SigFlag.SA_RESETHAND in disposition.flags:
        dispositions = {**proc.sigacts.dispositions, signal: replace(disposition, action="default")}
        ignored = proc.sigacts.ignored | ({signal} & IGNORED_AT_BIRTH)
        proc.sigacts = replace(proc.sigacts, dispositions=dispositions, ignored=ignored)
    proc.frames.append((signal, disposition, proc.mask))
    proc.mask |= k.rules.handler_mask(signal, disposition.mask, disposition.flags)


def _handle(k: Kernel, proc: Proc, signal: int, disposition: Disposition) -> None:
    """The logging handler of a driven process; of siginfo_t it finds the signal, and since 2018 who sent it last."""
    if disposition.is_internal:
        return
    siginfo = SigFlag.SA_SIGINFO in disposition.flags
    pid, uid = proc.senders.get(signal, (0, 0)) if siginfo and k.rules.tells_sender() else (0, 0)
    record = SignalRecord(DRAGONFLY.signal_name(signal), 0, pid, uid, 0, proc.logged, k.clock.monotonic, siginfo)
    proc.log.append(record)
    proc.logged += 1


def sigexit(k: Kernel, proc: Proc, signal: int) -> None:
    """sigexit(): die of a signal."""
    proc.acflag |= AXSIG
    status = signal
    if Prop.CORE in sigprop(signal):
        # Users other than root cannot write where the core file would go.
        if not proc.flags & ProcFlag.P_SUGID and proc.cred.uid == 0 and proc.limit(RLIMIT_CORE)[0]:
            status |= CORE_FLAG
            proc.acflag |= ACORE
        # A process that dumps core passes for stopped until it is a zombie, even to orphanpg().
        proc.stat = ProcStat.SSTOP
    lifecycle.exit1(k, proc, status)

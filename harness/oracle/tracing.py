# SPDX-License-Identifier: BSD-2-Clause
"""ptrace(), as far as parents, stops and signals go (sys_process.c: kern_ptrace()), without registers and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.oracle import lifecycle, signals
from harness.oracle.model import Errno, Proc
from harness.oracle.signals_table import SIGKILL, SIGSTOP
from harness.processes.abi import DRAGONFLY
from harness.processes.kinfo import ProcFlag, ProcStat

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

TRACE_ME, CONTINUE, KILL, ATTACH, DETACH = (
    DRAGONFLY.ptrace_requests[name] for name in ("PT_TRACE_ME", "PT_CONTINUE", "PT_KILL", "PT_ATTACH", "PT_DETACH")
)


def ptrace(k: Kernel, tracer: Proc, request: int, pid: int, data: int) -> int:
    """kern_ptrace(): EINVAL for requests that are not modelled."""
    if request == TRACE_ME:
        _trace(tracer)
        return 0
    target = k.rules.pfind(k, pid)
    if target is None or not k.rules.same_prison(tracer.cred, target.cred):
        raise Errno("ESRCH")
    if target.is_system:
        raise Errno("EINVAL")
    if request == ATTACH:
        _attach(k, tracer, target)
    elif request in (CONTINUE, KILL, DETACH):
        _require_stopped(tracer, target)
        _go_on(k, target, request, SIGKILL if request == KILL else data)
    else:
        raise Errno("EINVAL")
    return 0


def _trace(proc: Proc) -> None:
    assert proc.parent is not None
    proc.flags |= ProcFlag.P_TRACED
    proc.traced_child_of = proc.parent.pid


def _attach(k: Kernel, tracer: Proc, target: Proc) -> None:
    """PT_ATTACH: the tracer becomes the parent, and the target is stopped for it."""
    if target is tracer:
        raise Errno("EINVAL")
    if target.flags & ProcFlag.P_TRACED:
        raise Errno("EBUSY")
    if tracer.flags & ProcFlag.P_TRACED and k.rules.inferior(k, tracer, target):
        raise Errno("EINVAL")
    strange = target.cred.ruid != tracer.cred.ruid or target.flags & ProcFlag.P_SUGID
    if strange and not k.rules.may_trace_strangers(tracer.cred):
        raise Errno("EPERM")
    _trace(target)
    lifecycle.proc_reparent(k, target, tracer)
    _send(k, target, SIGSTOP)


def _require_stopped(tracer: Proc, target: Proc) -> None:
    if not target.flags & ProcFlag.P_TRACED:
        raise Errno("EPERM")
    if target.parent is not tracer or target.stat is not ProcStat.SSTOP or not target.flags & ProcFlag.P_WAITED:
        raise Errno("EBUSY")


def _go_on(k: Kernel, target: Proc, request: int, signal: int) -> None:
    """PT_CONTINUE, PT_KILL, PT_DETACH: let it run, with a signal in place of the one it had stopped for."""
    if not 0 <= signal <= k.rules.highest_signal():
        raise Errno("EINVAL")
    if request == DETACH:
        assert target.parent is not None
        parent = k.rules.pfind(k, target.traced_child_of)
        # Nobody is found for one whose parent has died: it stays the tracer's child, a defect kept here.
        if target.traced_child_of != target.parent.pid and parent is not None:
            lifecycle.proc_reparent(k, target, parent)
        target.flags &= ~(ProcFlag.P_TRACED | ProcFlag.P_WAITED)
        target.traced_child_of = 0
    _send(k, target, signal)


def _send(k: Kernel, target: Proc, signal: int) -> None:
    if target.stat is ProcStat.SSTOP:
        target.xstat = signal
        signals.proc_unstop(k, target)
    elif signal:
        signals.ksignal(k, target, signal)

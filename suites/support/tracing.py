# SPDX-License-Identifier: BSD-2-Clause
"""Debuggers: attaching and letting go, with deadlines, as a tracee that never stops would hold a test up."""

from __future__ import annotations

from signal import SIGSTOP

from harness.processes import WUNTRACED, RemoteProcess
from support.processes import await_idle, await_stopped

#: ptrace(2): to go on where the process was stopped.
WHERE_IT_WAS = 1


def attach(tracer: RemoteProcess, target: RemoteProcess) -> None:
    """Let TRACER trace TARGET, and return when TARGET has stopped and TRACER has been told."""
    await_idle(tracer, target)
    tracer.ptrace("PT_ATTACH", target.pid)
    await_stopped(tracer, target)  # whoever is told before is told twice
    assert tracer.start.wait4(target.pid, WUNTRACED).result(20.0).stop_signal == SIGSTOP


def go_on(tracer: RemoteProcess, target: RemoteProcess, signal: int = 0) -> None:
    """Let the stopped TARGET run, still traced, with SIGNAL (a number) as the one that stopped it."""
    tracer.ptrace("PT_CONTINUE", target.pid, WHERE_IT_WAS, signal)


def let_go(tracer: RemoteProcess, target: RemoteProcess) -> None:
    """End the tracing of the stopped TARGET, which runs on."""
    tracer.ptrace("PT_DETACH", target.pid, WHERE_IT_WAS, 0)

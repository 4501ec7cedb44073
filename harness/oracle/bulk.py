# SPDX-License-Identifier: BSD-2-Clause
"""What the executor does at full speed inside a guest: storms of forks, many children at once, polling loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from harness.oracle import jobs, lifecycle, signals, wait
from harness.oracle.clock import SYSTEM_CALL
from harness.oracle.model import Errno, Proc
from harness.processes.repetition import Until
from harness.processes.vocabulary import ForkRecord, Repeat, Storm
from harness.processes.wire import Predicate

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

FORK_TIME = 1 / 6000  # s from fork() to its return, and again until the child is reaped: 3,000 children per second


def storm(
    k: Kernel,
    proc: Proc,
    count: int,
    kind: str,
    *,
    status: int,
    record: bool,
    until_pid: int,
    until_repeat: bool,
    seconds: float | None,
) -> Storm:
    """Fork, exit, wait, again and again; stop early as asked for."""
    began = k.clock.monotonic
    records: list[ForkRecord] = []
    seen: set[int] = set()
    made = 0
    stopped = False
    error = failed = None
    while made < count:
        try:
            failed = kind
            child = lifecycle.fork1(k, proc, vfork=kind == "vfork")
            k.clock.advance(FORK_TIME)
            forked = k.clock.monotonic - began
            lifecycle.exit1(k, child, k.rules.exit_status(status))
            k.clock.advance(FORK_TIME)
            failed = "wait4"
            wait.wait4(k, proc, child.pid, 0)
        except Errno as reason:
            error = reason.name
            break
        failed = None
        made += 1
        pid = child.pid
        if record:
            records.append(ForkRecord(pid, round(forked, 6), round(k.clock.monotonic - began, 6)))
        if pid == until_pid or (until_repeat and pid in seen):
            stopped = True
            break
        seen.add(pid)
        if seconds is not None and k.clock.monotonic - began >= seconds:
            break
    return Storm(made, k.clock.monotonic - began, tuple(records), stopped, error, failed)


def spawn_many(
    k: Kernel, proc: Proc, count: int, *, paused: bool, status: int, sessions: bool, vfork: bool = False
) -> list[int]:
    """Fork COUNT children: zombies, or paused ones that wait to be killed."""
    pids: list[int] = []
    for _ in range(count):
        child = lifecycle.fork1(k, proc, vfork=vfork)
        k.clock.advance(FORK_TIME)
        pids.append(child.pid)
        if not paused:
            lifecycle.exit1(k, child, k.rules.exit_status(status))
        elif sessions:
            jobs.setsid(k, child)
    return pids


def _kill(k: Kernel, proc: Proc, pid: int, signal: int) -> int:
    signals.kill(k, proc, pid, signal)
    return 0


#: What repeat() can make, by name.
REPEATABLE: Mapping[str, Callable[..., int]] = {
    "getpid": lambda _, proc: proc.pid,
    "getppid": lambda _, proc: proc.parent.pid,
    "getpgid": jobs.getpgid,
    "getsid": jobs.getsid,
    "kill": _kill,
}


def repeat(k: Kernel, attempt: Callable[[], int], until: Until, seconds: float, pause: float) -> Repeat:
    """Make a call until its value and error are as awaited, in virtual time."""
    began = k.clock.monotonic
    count = 0
    while True:
        value, error = -1, None
        try:
            value = attempt()
        except Errno as reason:
            error = reason.name
        count += 1
        k.clock.advance(max(pause, SYSTEM_CALL))
        met = _met(until, value, error)
        if met or k.clock.monotonic - began >= seconds:
            return Repeat(met, count, k.clock.monotonic - began, value, error, 0)


def _met(until: Until, value: int, error: str | None) -> bool:
    """executor/bulk.c: met()."""
    if until.predicate in (Predicate.VALUE_IS, Predicate.VALUE_IS_NOT):
        return (value == until.value and error is None) == (until.predicate is Predicate.VALUE_IS)
    return (error == until.error) == (until.predicate is Predicate.ERROR_IS)

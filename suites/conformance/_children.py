"""Children in numbers, with deadlines: a kernel on which fork() never returns is noticed within a minute."""

from __future__ import annotations

from harness.processes import RemoteProcess

_DEADLINE = 60.0  # s


def born(parent: RemoteProcess, count: int) -> tuple[int, ...]:
    """Make and reap COUNT children one after the other; return their pids."""
    storm = parent.storm(count, seconds=_DEADLINE / 2)
    assert storm.error is None, f"{storm.failed} failed after {storm.count} children: {storm.error}"
    assert storm.count == count, f"only {storm.count} of {count} children in {storm.seconds:.0f} s"
    return storm.pids


def parked(parent: RemoteProcess, count: int = 1, *, sessions: bool = False) -> list[int]:
    """Make COUNT children that stay as they are until killed; return their pids."""
    return parent.start.spawn_many(count, paused=True, sessions=sessions).result(_DEADLINE)


def zombies(parent: RemoteProcess, count: int) -> list[int]:
    """Make COUNT children that exit at once and are not reaped; return their pids."""
    return parent.start.spawn_many(count).result(_DEADLINE)

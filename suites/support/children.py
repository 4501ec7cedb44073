# SPDX-License-Identifier: BSD-2-Clause
"""Children in numbers, with deadlines: a kernel on which fork() never returns is noticed within a minute."""

from __future__ import annotations

from harness.processes import Process, RemoteProcess, Resource
from support.processes import eventually

_DEADLINE = 60.0  # s


def born(parent: RemoteProcess, count: int) -> tuple[int, ...]:
    """Make and reap COUNT children one after the other; return their pids."""
    storm = parent.storm(count, seconds=_DEADLINE / 2)
    assert storm.error is None, f"{storm.failed} failed after {storm.count} children: {storm.error}"
    assert storm.count == count, f"only {storm.count} of {count} children in {storm.seconds:.0f} s"
    return storm.pids


def allow_many(parent: RemoteProcess, count: int = 900) -> None:
    """Let PARENT, which is root, have COUNT processes: since 5.0 root is limited like everybody else (kern_fork.c)."""
    before = parent.sysctl.read("kern.maxprocperuid", 4)
    parent.sysctl.set_int("kern.maxprocperuid", count)
    try:
        parent.setrlimit(Resource.RLIMIT_NPROC, count)
    finally:
        parent.sysctl.write("kern.maxprocperuid", before)


def parked(parent: RemoteProcess, count: int = 1, *, sessions: bool = False) -> list[int]:
    """Make COUNT children that stay as they are until killed; return their pids."""
    return parent.start.spawn_many(count, paused=True, sessions=sessions).result(_DEADLINE)


def all_lead_sessions(observer: RemoteProcess, pids: list[int]) -> bool:
    """Tell whether all PIDS are sids: parked children call setsid() in their own time."""
    table = observer.sysctl.kern_proc_all()
    return all(table[pid].sid == pid for pid in pids)


def zombies(parent: RemoteProcess, count: int) -> list[int]:
    """Make COUNT children that exit and are not reaped; return their pids when all of them are zombies."""
    pids = parent.start.spawn_many(count).result(_DEADLINE)

    def dead() -> bool:
        table = parent.sysctl.kern_proc_all()
        return all(table[pid].is_zombie for pid in pids)

    eventually(dead, "the children to be zombies")
    return pids


def exited_child(parent: Process, status: int = 0) -> Process:
    """Return a child of PARENT that has exited with STATUS and is not reaped."""
    child = parent.fork()
    child.exit(status)
    return child

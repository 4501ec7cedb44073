# SPDX-License-Identifier: BSD-2-Clause
"""What one process, the hub, sees of another: whether it is stopped, whether its end is complete."""

from __future__ import annotations

import os

from harness.processes.connection import Ending, Observation, Pending, await_true
from harness.processes.kinfo import KinfoProc, ProcStat
from harness.processes.remote import RemoteProcess
from harness.processes.vocabulary import GuestError


def observe_from(hub: RemoteProcess) -> Observation:
    """Return the means of observation of HUB's ABI."""
    return DragonFlyObservation(hub) if hub.abi.is_dragonfly else LinuxObservation(hub)


class DragonFlyObservation:
    """Uses kern.proc and getpgid()."""

    def __init__(self, hub: RemoteProcess) -> None:
        self._hub = hub

    def is_stopped(self, pid: int) -> bool:
        """Whether PID is stopped by a signal."""
        return any(row.stat == ProcStat.SSTOP for row in self._hub.sysctl.kern_proc_pid(pid))

    def has_ended(self, pid: int) -> bool:
        """Whether PID is a zombie, or nobody's: kern.proc.pid shows neither (kern_proc.c: pfind)."""
        return not self._hub.sysctl.kern_proc_pid(pid)

    def ending(self, pid: int) -> Ending:
        """Begin to watch PID's end: note its process group, by which its zombie can be found."""
        return _DragonFlyEnding(self._hub, pid)


class _DragonFlyEnding:
    """A descriptor table is closed early in exit1(), which is all a closed channel tells.

    Complete is an exit when lwp_exit() has taken the last thread off p_nthreads: by then children have been handed over
    and the parent has been signalled (kern_exit.c: exit1(), lwp_exit()).  The zombie itself is seen by kern.proc.pgrp,
    but not by kern.proc.pid.
    """

    def __init__(self, hub: RemoteProcess, pid: int) -> None:
        self._hub = hub
        self._pid = pid
        self._group: Pending[int] = hub.start.getpgid(pid)

    def wait(self, timeout: float) -> None:
        await_true(self._complete, f"the end of process {self._pid}", timeout, interval=0.002)

    def _complete(self) -> bool:
        try:
            group = self._group.result()
        except GuestError:  # ESRCH: a zombie already, or reaped; pfind() finds neither
            return self._zombie_complete(self._hub.sysctl.kern_proc_all().rows_of(self._pid))
        self._group = self._hub.start.getpgid(self._pid)
        rows = self._hub.sysctl.kern_proc_pgrp(group).rows_of(self._pid)
        return bool(rows) and self._zombie_complete(rows)

    @staticmethod
    def _zombie_complete(rows: list[KinfoProc]) -> bool:
        return all(row.is_zombie and row.nthreads == 0 for row in rows)


class LinuxObservation:
    """Uses /proc."""

    def __init__(self, hub: RemoteProcess) -> None:
        self._hub = hub

    def is_stopped(self, pid: int) -> bool:
        """Whether PID is stopped by a signal."""
        return self.state(pid) in ("T", "t")

    def has_ended(self, pid: int) -> bool:
        """Whether PID is a zombie, or nobody's."""
        return self.state(pid) in (None, "Z", "X")

    def ending(self, pid: int) -> Ending:
        """Begin to watch PID's end."""
        return _LinuxEnding(self, pid)

    def state(self, pid: int) -> str | None:
        """Return the state letter of /proc/PID/stat, None for no such process."""
        try:
            fd = self._hub.open(f"/proc/{pid}/stat", os.O_RDONLY)
        except GuestError:
            return None
        try:
            content = self._hub.read(fd, 1024)
        except GuestError:
            return None
        finally:
            self._hub.close(fd)
        return chr(content[content.rindex(b")") + 2])


class _LinuxEnding:
    def __init__(self, observation: LinuxObservation, pid: int) -> None:
        self._observation = observation
        self._pid = pid

    def wait(self, timeout: float) -> None:
        await_true(
            lambda: self._observation.has_ended(self._pid),
            f"the end of process {self._pid}",
            timeout,
            interval=0.001,
        )

# SPDX-License-Identifier: BSD-2-Clause
"""The oracle's allocator seen from inside, as tests see a kernel's from outside the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.oracle.process import OracleProcess
from harness.oracle.rules import HASH_SIZE


class OracleAllocator:
    """The state of proc_makepid(): the next candidate, and when each pid was last given back.

    It has the interface of the conformance suite's PidAllocator, so that the same tests run on both.  `spare` is the
    first of 1000 pids nothing else uses.
    """

    def __init__(self, process: OracleProcess, spare: int) -> None:
        self.spare = spare
        self._process = process
        self._kernel = process.kernel
        self._pids = process.kernel.pids
        self._original = self._pids.nextpid

    @property
    def next_pid(self) -> int:
        """The next candidate, to which a random offset is added."""
        return self._pids.nextpid

    @next_pid.setter
    def next_pid(self, pid: int) -> None:
        self._pids.nextpid = pid

    def restore(self) -> None:
        """Let pids go on from where they were before the first change."""
        self._pids.nextpid = self._original

    def time(self) -> int:
        """Return time_second, in seconds since the epoch."""
        return self._kernel.clock.time_second

    def stamp(self, pid: int) -> int:
        """Return the low 8 bits of the second in which PID was given back last."""
        return self._pids.stamps[pid % len(self._pids.stamps)]

    def stamps(self, first: int, count: int) -> bytes:
        """Return the stamps of COUNT pids from FIRST on."""
        first %= len(self._pids.stamps)
        return bytes(self._pids.stamps[first : first + count])

    def set_stamp(self, pid: int, second: int) -> None:
        """Let PID count as given back in SECOND (s since the epoch; only its low 8 bits are kept)."""
        self._pids.stamps[pid % len(self._pids.stamps)] = second & 0xFF

    def rest(self, *pids: int) -> None:
        """Let PIDS count as given back a hundred seconds ago: the delay is no reason to refuse them."""
        for pid in pids:
            self.set_stamp(pid, self.time() - 100)

    def rest_range(self, first: int, count: int) -> None:
        """As rest(), for COUNT pids from FIRST on."""
        first %= len(self._pids.stamps)
        self._pids.stamps[first : first + count] = bytes([self.time() - 100 & 0xFF]) * count

    def ask_for(self, pid: int, parent: OracleProcess | None = None) -> int:
        """Return the pid a short-lived child is given when PID is the first candidate."""
        self.next_pid = pid
        return (parent or self._process).storm(1).pids[0]

    def child_with(self, pid: int, parent: OracleProcess | None = None) -> OracleProcess:
        """Return a child whose pid is PID, which must be free; those that follow begin 500 above."""
        self.rest(pid)
        self.next_pid = pid
        child = (parent or self._process).fork()
        assert child.pid == pid, f"asked for the free pid {pid}, given {child.pid}"
        self.next_pid = pid + 500
        return child

    def one_in_each_chain(self, parent: OracleProcess, *, sessions: bool = False) -> list[int]:
        """Return the pids of children that stay as they are: with each remainder modulo 256 at least one."""
        count = HASH_SIZE + 16
        self.rest_range(self.spare, 2 * count)
        self.next_pid = self.spare
        return parent.spawn_many(count, paused=True, sessions=sessions)

    def watched_by(self, process: OracleProcess) -> OracleAllocator:
        """Return the same allocator, looked at by another process."""
        return OracleAllocator(process, self.spare)

    def skips(self) -> tuple[int, int]:
        """Return kern.pid_domain_skips and kern.pid_inner_skips."""
        return self._pids.domain_skips, self._pids.inner_skips

    def within_one_second(self) -> Iterator[int]:
        """Yield time_second, again and again until a whole turn of the loop fell into that second."""
        while True:
            before = self.time()
            yield before
            if self.time() == before:
                return

    @contextmanager
    def clock_stepped(self, seconds: float) -> Iterator[None]:
        """Set the clock SECONDS ahead (back, if negative) inside the block."""
        self._kernel.clock.step(seconds)
        try:
            yield
        finally:
            self._kernel.clock.step(-seconds)

    @contextmanager
    def all_given_back_just_now(self) -> Iterator[None]:
        """Let every pid count as given back two or three seconds ago."""
        kept = bytes(self._pids.stamps)
        self._pids.stamps[:] = bytes([self.time() - 3 & 0xFF]) * len(kept)
        try:
            yield
        finally:
            self._pids.stamps[:] = kept

# SPDX-License-Identifier: BSD-2-Clause
"""White box: the pid allocator of the running kernel, read and set from outside.

With `nextpid` set, the next fork asks for one chosen pid; with one entry of `pid_doms[]` set, that pid counts as reaped
however long ago.  What takes a million forks and minutes otherwise takes two writes.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property

from harness.errors import DeadlineError
from harness.guests.whitebox import Whitebox
from harness.processes.api import Process
from harness.processes.connection import await_true
from harness.processes.remote import RemoteProcess
from harness.processes.vocabulary import Clock, GuestError

PID_MAX = 999_999  # sys/proc.h
LOWEST_RECYCLED = 100  # kern_proc.c: proc_makepid()
DOMAINS = PID_MAX // 256 * 256  # PIDSEL_DOMAINS: one per pid but for the last few, which share the first ones'
DELAY = 10  # s, PIDDOM_DELAY
CHAINS = 256  # ALLPROC_HSIZE

_TURNS_DEADLINE = 60.0  # s
_CHILDREN_DEADLINE = 60.0  # s
_CLOCK_DEADLINE = 20.0  # s


@contextmanager
def random_pids(process: Process, modulus: int) -> Iterator[None]:
    """Let new pids leap ahead by up to MODULUS (kern.randompid) inside the block."""
    before = process.sysctl.get_int("kern.randompid")
    process.sysctl.set_int("kern.randompid", modulus)
    try:
        yield
    finally:
        with suppress(GuestError):
            process.sysctl.set_int("kern.randompid", before)


class PidAllocator:
    """The state of proc_makepid(): the next candidate, and when each pid was last given back."""

    def __init__(self, kernel: Whitebox, process: RemoteProcess, spare: int) -> None:
        self.kernel = kernel
        self.spare = spare  # the first of 1000 pids no other test uses
        self._process = process
        self._original: int | None = None

    @cached_property
    def _stamps(self) -> int:
        return self.kernel.word("pid_doms", 8)

    @property
    def next_pid(self) -> int:
        """The next candidate, to which a random offset is added."""
        (value,) = struct.unpack("<i", self.kernel.read(self.kernel.address("nextpid"), 4))
        return int(value)

    @next_pid.setter
    def next_pid(self, pid: int) -> None:
        if self._original is None:
            self._original = self.next_pid
        self.kernel.write(self.kernel.address("nextpid"), struct.pack("<i", pid))

    def restore(self) -> None:
        """Let pids go on from where they were before the first change."""
        if self._original is not None:
            self.next_pid = self._original

    def time(self) -> int:
        """Return the kernel's time_second, in seconds since the epoch."""
        return self.kernel.word("time_second", 8)

    def stamp(self, pid: int) -> int:
        """Return the low 8 bits of the second in which PID was given back last."""
        return self.kernel.word(self._stamps + pid % DOMAINS, 1)

    def stamps(self, first: int, count: int) -> bytes:
        """Return the stamps of COUNT pids from FIRST on."""
        return self.kernel.read(self._stamps + first % DOMAINS, count)

    def set_stamp(self, pid: int, second: int) -> None:
        """Let PID count as given back in SECOND (s since the epoch; only its low 8 bits are kept)."""
        self.kernel.write(self._stamps + pid % DOMAINS, bytes([second & 0xFF]))

    def rest(self, *pids: int) -> None:
        """Let PIDS count as given back a hundred seconds ago: the delay is no reason to refuse them."""
        now = self.time()
        for pid in pids:
            self.set_stamp(pid, now - 100)

    def rest_range(self, first: int, count: int) -> None:
        """As rest(), for COUNT pids from FIRST on."""
        self.set_stamps(first, count, self.time() - 100)

    def set_stamps(self, first: int, count: int, second: int) -> None:
        """As set_stamp(), for COUNT pids from FIRST on."""
        self.kernel.write(self._stamps + first % DOMAINS, bytes([second & 0xFF]) * count)

    def ask_for(self, pid: int, parent: RemoteProcess | None = None) -> int:
        """Return the pid a short-lived child is given when PID is the first candidate."""
        self.next_pid = pid
        storm = (parent or self._process).storm(1, seconds=_CHILDREN_DEADLINE / 2)
        assert (storm.error, storm.count) == (None, 1), f"no child: {storm.error}"
        return storm.pids[0]

    def child_with(self, pid: int, parent: RemoteProcess | None = None) -> RemoteProcess:
        """Return a child whose pid is PID, which must be free; those that follow begin 500 above.

        Where somebody else in the guest has forked first, and so been given PID, it asks again when that one is gone.
        """
        parent = parent or self._process
        while True:
            self.rest(pid)
            rested = self.stamp(pid)
            self.next_pid = pid
            child = parent.fork()
            if child.pid == pid:
                break
            taken = self.stamp(pid) != rested or self._is_alive(pid)
            assert taken, f"asked for the free pid {pid}, given {child.pid}"
            child.exit()
            parent.wait4(child.pid)
            await_true(
                lambda: not self._is_alive(pid), f"whoever was given the pid {pid} to be gone", _CHILDREN_DEADLINE
            )
        self.next_pid = pid + 500
        return child

    def _is_alive(self, pid: int) -> bool:
        return pid in self._process.sysctl.kern_proc_all().pids

    def one_in_each_chain(self, parent: RemoteProcess, *, sessions: bool = False) -> list[int]:
        """Return the pids of children that stay as they are: with each remainder modulo CHAINS at least one.

        PARENT must be allowed to have so many (allow_many()).
        """
        count = CHAINS + 16  # whoever else forks in the guest may take a few
        self.rest_range(self.spare, 2 * count)
        self.next_pid = self.spare
        made = parent.start.spawn_many(count, paused=True, sessions=sessions)
        pids: list[int] = made.result(_CHILDREN_DEADLINE)
        assert len({pid % CHAINS for pid in pids}) == CHAINS
        return pids

    def watched_by(self, process: RemoteProcess) -> PidAllocator:
        """Return the same allocator, its system calls made by another process; it restores nothing by itself."""
        return PidAllocator(self.kernel, process, self.spare)

    def skips(self) -> tuple[int, int]:
        """Return kern.pid_domain_skips and kern.pid_inner_skips."""
        get = self._process.sysctl.get_int
        return get("kern.pid_domain_skips"), get("kern.pid_inner_skips")

    def within_one_second(self) -> Iterator[int]:
        """Yield time_second, again and again until a whole turn of the loop fell into that second.

        Raises DeadlineError when that has not come about within a minute.
        """
        end = time.monotonic() + _TURNS_DEADLINE
        while True:
            before = self.time()
            yield before
            if self.time() == before:
                return
            if time.monotonic() > end:
                raise DeadlineError("what takes milliseconds to fall into one second of the guest", _TURNS_DEADLINE)

    @contextmanager
    def clock_stepped(self, seconds: float) -> Iterator[None]:
        """Set the clock SECONDS ahead (back, if negative) inside the block."""
        self._step_clock(seconds)
        try:
            yield
        finally:
            self._step_clock(-seconds)

    def _step_clock(self, seconds: float) -> None:
        wanted = self._process.clock_gettime(Clock.CLOCK_REALTIME) + seconds
        self._process.syscall("clock_settime", 0, struct.pack("<qq", int(wanted), int(wanted % 1 * 1e9)))

        def follows() -> bool:
            earliest = int(self._process.clock_gettime(Clock.CLOCK_REALTIME))
            return earliest <= self.time() <= int(self._process.clock_gettime(Clock.CLOCK_REALTIME))

        # Each question is a system call in the guest, which sets the pace.
        await_true(follows, "time_second to follow the clock, one tick later", _CLOCK_DEADLINE, interval=0)

    @contextmanager
    def all_given_back_just_now(self) -> Iterator[None]:
        """Let every pid count as given back three seconds ago, and the clock be at some such second."""
        kept = self.stamps(0, DOMAINS)
        with self.clock_stepped((3 - self.time()) % 256):
            self.kernel.write(self._stamps, bytes(DOMAINS))
            try:
                yield
            finally:
                self.kernel.write(self._stamps, kept)

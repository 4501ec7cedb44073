# SPDX-License-Identifier: BSD-2-Clause
"""Which pid a new process gets (kern_proc.c: procinit(), proc_makepid(), sysctl_kern_randompid())."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from harness.oracle.clock import TICK

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel


class PidAllocator:
    """nextpid, pid_doms[] and the two counters."""

    def __init__(self, k: Kernel, randomness: random.Random) -> None:
        self._k = k
        self._randomness = randomness
        self.nextpid = 1
        rules = k.rules
        pattern = bytes(rules.initial_stamp(index) for index in range(256))
        self.stamps = bytearray((pattern * (rules.pid_domains // 256 + 1))[: rules.pid_domains])
        self.domain_skips = 0  # kern.pid_domain_skips
        self.inner_skips = 0  # kern.pid_inner_skips
        self.randompid = 0  # kern.randompid

    def stamp(self, pid: int) -> None:
        """Start the delay before PID, or a group or session of that number, is used again."""
        self.stamps[pid % len(self.stamps)] = self._k.clock.time_second & 0xFF

    def new_pid(self) -> int:
        """proc_add_allproc(): choose the pid of a new process."""
        bits = self._randomness.getrandbits(31) if self.randompid else 0
        return self._makepid(self._k.rules.random_offset(self.randompid, bits))

    def _makepid(self, offset: int) -> int:
        """proc_makepid(): the first candidate that was not given back lately and is not taken."""
        k, rules = self._k, self._k.rules
        tries = 0
        while True:
            base = self.nextpid + offset
            self.nextpid += rules.STEP
            if base <= 0 or base >= rules.PID_MAX:
                base = base % rules.PID_MAX if base >= 0 else rules.FIRST_REUSED_PID
                if base < rules.FIRST_REUSED_PID:
                    base += rules.FIRST_REUSED_PID
                self.nextpid = base
            tries += 1
            if tries >= len(self.stamps):  # all of them are held back: sleep a little
                k.clock.advance(TICK)
            if base >= rules.first_pid_with_delay():
                age = rules.age(k.clock.time_second, self.stamps[base % len(self.stamps)])
                if rules.is_recent(age):
                    self.domain_skips += rules.counts_domain_skips()
                    continue
            while base < rules.PID_MAX and self._is_taken(base):
                # The stamp of the next candidate is not looked at: a defect of the seed, kept here.
                base += rules.COLLISION_STRIDE
                if base < rules.PID_MAX:
                    self.inner_skips += rules.counts_inner_skips()
            if base < rules.PID_MAX:
                return base

    def _is_taken(self, pid: int) -> bool:
        k, rules = self._k, self._k.rules
        proc = k.procs.get(pid)
        if proc is not None:
            return rules.zombie_pid_is_taken() if proc.is_zombie else rules.live_pid_is_taken()
        return (pid in k.groups and rules.pgid_is_taken()) or (pid in k.sessions and rules.sid_is_taken())

    def set_randompid(self, value: int) -> None:
        """sysctl_kern_randompid(): set the modulus, clamped."""
        self.randompid = self._k.rules.clamp_randompid(value)

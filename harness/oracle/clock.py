# SPDX-License-Identifier: BSD-2-Clause
"""Virtual time: the oracle's clock moves when it is told to, and a little with every system call."""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM_CALL = 20e-6  # s that a system call takes
TICK = 0.01  # s; kern.hz is 100


@dataclass
class Clock:
    """CLOCK_REALTIME may be stepped, CLOCK_MONOTONIC only advances; both in seconds."""

    realtime: float = 1_483_228_800.25  # the first of January 2017
    monotonic: float = 100.0

    @property
    def time_second(self) -> int:
        """The kernel's `time_second`: whole seconds since the epoch."""
        return int(self.realtime)

    def advance(self, seconds: float) -> None:
        """Let SECONDS pass."""
        self.realtime += seconds
        self.monotonic += seconds

    def step(self, seconds: float) -> None:
        """Set the time of day forward or back, as settimeofday() does."""
        self.realtime += seconds

# SPDX-License-Identifier: BSD-2-Clause
"""How long something in a guest is waited for, whatever else the host has to do.

A guest's clock follows the host's: on a busy host a second of it says nothing of what the guest could do.  So a
deadline is over when the guest has had the time to compute, or when it has nothing to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from harness.errors import GuestLostError, HarnessError
from harness.machine.qemu import Machine
from harness.processes import Pending

#: So often in a row a guest must be found idle before it is said to be, and how far apart the looks are, in seconds.
_LOOKS, _LOOK_EVERY = 4, 0.1
_CPUS = 2  # of a guest that computes: what somebody is waited for with may need the same time on another one
_DEAF = 3  # deadlines after which an idle guest is given up whose hub does not answer
_HOST = 180.0  # s of the host's, for a guest that it does not let compute


class Patience:
    """A deadline of SECONDS for something that MACHINE is to do.

    It is over when the machine has computed that long with both of two CPUs since; or when SECONDS of the host's have
    passed, the hub has answered what PING asked it then, so that all that was sent before has reached the guest, and
    IDLES finds that nothing is left to do.  A hub that cannot answer, as others stand in its way, is not waited for
    longer than three times SECONDS.  A guest that the host lets do neither in three minutes raises GuestLostError:
    nothing can be said of it.
    """

    def __init__(
        self,
        machine: Machine,
        seconds: float,
        idles: Callable[[], bool],
        ping: Callable[[], Pending[Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine = machine
        self._seconds = seconds
        self._idles = idles
        self._ping = ping
        self._clock = clock
        self._began = clock()
        self._used = machine.cpu_seconds
        self._asked: Pending[Any] | None = None
        self._quiet, self._looked = 0, self._began

    def is_over(self) -> bool:
        """Tell whether there is no point in waiting longer; to be asked again and again."""
        now = self._clock()
        passed = now - self._began
        if passed < self._seconds:
            return False
        if self._computed >= _CPUS * self._seconds:
            return True
        if self._asked is None:
            with suppress(HarnessError):  # whoever waits is told of a guest that has gone
                self._asked = self._ping()
        if passed >= max(_HOST, _DEAF * self._seconds):
            raise GuestLostError(f"the host let the guest compute {self._computed:.1f} s in {passed:.0f} s: no verdict")
        heard = self._asked is not None and self._asked.done
        if not heard and passed < _DEAF * self._seconds:
            return False
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            self._quiet = self._quiet + 1 if self._idles() else 0
        return self._quiet >= _LOOKS

    @property
    def _computed(self) -> float:
        return self._machine.cpu_seconds - self._used

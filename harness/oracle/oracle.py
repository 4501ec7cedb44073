# SPDX-License-Identifier: BSD-2-Clause
"""The oracle: one kernel of the model and a way into it."""

from __future__ import annotations

from harness.oracle import jobs, lifecycle
from harness.oracle.calls import Order, first
from harness.oracle.kernel import Kernel
from harness.oracle.model import Disposition, SigActs
from harness.oracle.process import NO_FLAGS, OracleProcess, watch_unknown_calls
from harness.oracle.rules import Rules
from harness.oracle.signals_table import NSIG
from harness.oracle.variants import rules_of


class Oracle:
    """A booted guest that exists only as a specification."""

    def __init__(self, rules: Rules, seed: int, order: Order = first) -> None:
        self.kernel = Kernel(rules, seed, order)
        k = self.kernel
        # What the host talks to in a real guest: a child of init, started by a remote login of root.
        self._hub = lifecycle.fork1(k, k.init)
        program = "/tmp/dfly-harness/executor"  # noqa: S108  (a name in the model)
        lifecycle.exec_program(k, self._hub, program, [program.encode(), b"hub"])
        self._hub.cwd = "/root"
        jobs.setsid(k, self._hub)

    @property
    def hub_pid(self) -> int:
        """The pid of the hub: the parent of what spawn() returns."""
        return self._hub.pid

    def spawn(self) -> OracleProcess:
        """Return a fresh process: root, leader of a session of its own, default signals, child of the hub."""
        proc = lifecycle.fork1(self.kernel, self._hub)
        untouched = {number: Disposition(flags=NO_FLAGS) for number in range(1, NSIG + 1)}
        proc.sigacts = SigActs(untouched, proc.sigacts.ignored)
        watch_unknown_calls(self.kernel, proc)
        jobs.setsid(self.kernel, proc)
        return OracleProcess(self.kernel, proc.lwp)

    def sleep(self, seconds: float) -> None:
        """Let SECONDS of virtual time pass."""
        self.kernel.clock.advance(seconds)


def make_oracle(target: str | None = None, *, seed: int = 0, order: Order = first) -> Oracle:
    """Make the oracle of an era, a wrong one: "2026", "zombies-found", "2026:zombies-found", by default that of 2017.

    SEED decides everything that is random in it, ORDER who of several processes that can run does.  Raises UsageError
    for an unknown era or variant.
    """
    return Oracle(rules_of(target), seed, order)

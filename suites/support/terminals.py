# SPDX-License-Identifier: BSD-2-Clause
"""Pseudo-terminals and the sessions that have them."""

from __future__ import annotations

from harness.processes import RemoteProcess
from support.processes import row


class Terminal:
    """A pseudo-terminal whose master `init` holds, and a session that has it."""

    def __init__(self, init: RemoteProcess) -> None:
        self.init = init
        self.master, self.slave, self.path = init.openpty()
        self.leader = self.session()
        self.leader.set_controlling_tty(self.slave)

    def session(self) -> RemoteProcess:
        """Return the leader of a new session; it has the terminal open, but not its master."""
        leader = self.init.fork()
        leader.close(self.master)
        leader.setsid()
        return leader

    def job(self) -> RemoteProcess:
        """Return a child of the leader in a group of its own."""
        child = self.leader.fork()
        child.setpgid(0, 0)
        return child

    @property
    def device(self) -> int:
        """Its number."""
        number = row(self.init, self.leader.pid).tdev
        assert number is not None
        return number

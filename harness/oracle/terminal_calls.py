# SPDX-License-Identifier: BSD-2-Clause
"""The calls of an oracle process that are about terminals; other files are not modelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from harness.oracle import terminals
from harness.oracle.model import Errno, File, Proc, Terminal

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

T = TypeVar("T")
_PREFIX = "/dev/pts/"


def path_of(terminal: Terminal) -> str:
    """Return the name of a terminal's slave."""
    return f"{_PREFIX}{terminal.number - terminals.FIRST_DEVICE}"


def _named(k: Kernel, path: str) -> Terminal:
    found = next((one for one in k.terminals if path_of(one) == path), None)
    if found is None:
        raise Errno("ENOENT")
    return found


class TerminalCalls:
    """Part of OracleProcess."""

    def execute(self, text: str, function: Callable[[Kernel, Proc], T], *, ends: bool = False) -> T:
        """Make a system call, of which FUNCTION is the implementation."""
        raise NotImplementedError

    def openpty(self) -> tuple[int, int, str]:
        """Open a pseudo-terminal; return the master's and the slave's descriptor and the slave's path."""

        def openpty(k: Kernel, proc: Proc) -> tuple[int, int, str]:
            terminal = terminals.make(k)
            terminal.master = True
            master = terminals.install(proc, File(terminal, is_master=True))
            return master, terminals.open_slave(k, proc, terminal), path_of(terminal)

        return self.execute("openpty()", openpty)

    def open(self, path: str, flags: int = 0, mode: int = 0o666) -> int:
        """Open a terminal by its name, or /dev/tty; there are no other files."""

        def open_(k: Kernel, proc: Proc) -> int:
            if path == "/dev/tty":
                return terminals.open_dev_tty(k, proc)
            return terminals.open_slave(k, proc, _named(k, path))

        return self.execute(f"open({path!r}, {flags:#x}, {mode:#o})", open_)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        self.execute(f"close({fd})", lambda k, proc: terminals.close(k, proc, fd))

    def read(self, fd: int, size: int) -> bytes:
        """Read up to SIZE bytes of a line that was typed on a terminal's master."""
        return self.execute(f"read({fd}, {size} bytes)", lambda k, proc: terminals.read(k, proc, fd, size))

    def write(self, fd: int, data: bytes) -> int:
        """Press keys on a terminal whose master FD is; nothing else can be written."""

        def write(k: Kernel, proc: Proc) -> int:
            file = proc.files.get(fd)
            if file is None or file.revoked:
                raise Errno("EBADF")
            if not file.is_master or file.terminal is None:
                raise NotImplementedError
            for key in data:
                terminals.press(k, file.terminal, bytes([key]))
            return len(data)

        return self.execute(f"write({fd}, {len(data)} bytes)", write)

    def set_controlling_tty(self, fd: int) -> None:
        """Make the terminal FD the session's controlling terminal (TIOCSCTTY)."""
        self.execute(f"ioctl({fd}, TIOCSCTTY)", lambda k, proc: terminals.set_controlling(k, proc, fd))

    def drop_controlling_tty(self, fd: int) -> None:
        """Give up the controlling terminal (TIOCNOTTY), FD being open on it (usually /dev/tty)."""
        self.execute(f"ioctl({fd}, TIOCNOTTY)", lambda k, proc: terminals.give_up(k, proc, fd))

    def tcgetpgrp(self, fd: int) -> int:
        """Return the terminal's foreground process group."""
        return self.execute(f"tcgetpgrp({fd})", lambda k, proc: terminals.tcgetpgrp(k, proc, fd))

    def tcsetpgrp(self, fd: int, pgid: int) -> None:
        """Set the terminal's foreground process group."""
        self.execute(f"tcsetpgrp({fd}, {pgid})", lambda k, proc: terminals.tcsetpgrp(k, proc, fd, pgid))

    def tcgetsid(self, fd: int) -> int:
        """Return the session whose controlling terminal FD is."""
        return self.execute(f"tcgetsid({fd})", lambda k, proc: terminals.tcgetsid(k, proc, fd))

    def revoke(self, path: str) -> None:
        """Revoke all access to a terminal."""
        self.execute(f"revoke({path!r})", lambda k, proc: terminals.revoke(k, proc, _named(k, path)))

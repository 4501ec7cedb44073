# SPDX-License-Identifier: BSD-2-Clause
"""QEMU's gdb stub: what is said to it, and what its monitor cannot do otherwise: writing the guest's memory."""

from __future__ import annotations

import socket
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import DeadlineError, GuestLostError, HarnessError

DEADLINE = 30.0  # s; a busy host may take that long to stop the machine
_PACKET = 1024  # bytes of memory per request; QEMU takes packets of up to 4096 characters
_INTERRUPT = b"\x03"


class GdbLine:
    """The line to the stub at the socket PATH, and the packets on it.

    `stops` are what was announced, at any time, of a machine that has stopped, and that nobody has looked at yet.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise GuestLostError(f"QEMU's gdb stub does not answer: {error.strerror}") from error
        self._buffer = b""
        self.stops: deque[str] = deque()

    def fileno(self) -> int:
        """Return the descriptor, for select()."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def send(self, command: str) -> None:
        """Say COMMAND, and await no answer; raises OSError."""
        self._socket.sendall(f"${command}#{sum(command.encode()) & 0xFF:02x}".encode())

    def interrupt(self) -> None:
        """Have the machine stop, which means nothing to one that stands; raises OSError."""
        self._socket.sendall(_INTERRUPT)

    def listen(self) -> bool:
        """Take what the stub has sent, waiting for something if there is nothing; tell whether a packet is whole.

        Raises OSError, and GuestLostError when it has hung up.
        """
        chunk = self._socket.recv(65536)
        if not chunk:
            raise GuestLostError("QEMU's gdb stub hung up")
        self._buffer += chunk
        return self._is_whole

    @property
    def _is_whole(self) -> bool:
        return len(self._buffer.partition(b"#")[2]) >= 2

    def receive(self) -> str:
        """Return the next packet; raises what listen() raises."""
        while not self._is_whole:
            self.listen()
        body, _, rest = self._buffer.partition(b"#")
        self._buffer = rest[2:]
        self._socket.sendall(b"+")
        return body.rpartition(b"$")[2].decode("ascii", "replace")

    def ask(self, command: str) -> str:
        """Return the answer to COMMAND.  Raises DeadlineError when there is none, GuestLostError without a stub."""
        try:
            self.send(command)
            while (body := self.receive()).startswith(("T", "S")):
                self.stops.append(body)
        except TimeoutError as error:
            raise DeadlineError("an answer of QEMU's gdb stub", DEADLINE) from error
        except OSError as error:
            raise GuestLostError("QEMU's gdb stub is gone") from error
        return body

    def write(self, address: int, data: bytes) -> None:
        """Store DATA at the virtual ADDRESS; raises HarnessError where nothing is mapped."""
        for at in range(0, len(data), _PACKET):
            part, where = data[at : at + _PACKET], address + at
            if (answer := self.ask(f"M{where:x},{len(part):x}:{part.hex()}")) != "OK":
                raise HarnessError(f"the guest's memory at {where:#x} cannot be written (gdb stub: {answer!r})")

    def read(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at the virtual ADDRESS, in as many packets as that takes.

        Raises HarnessError where nothing is mapped.
        """
        data = b""
        for at in range(address, address + size, _PACKET):
            answer = self.ask(f"m{at:x},{min(_PACKET, address + size - at):x}")
            try:
                data += bytes.fromhex(answer)
            except ValueError:
                raise HarnessError(f"the guest's memory at {at:#x} cannot be read (gdb stub: {answer!r})") from None
        return data


class GdbStub:
    """A session with the stub at the socket PATH.

    The machine stands still while it lasts.  A context manager: leaving it lets the machine run again, unless it is
    said to be PAUSED.
    """

    def __init__(self, path: Path, *, paused: bool = False) -> None:
        self._line = GdbLine(path)
        self._paused = paused

    def write(self, address: int, data: bytes) -> None:
        """Store DATA at the virtual ADDRESS; raises HarnessError where nothing is mapped."""
        self._line.write(address, data)

    def read(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at the virtual ADDRESS; raises HarnessError where nothing is mapped."""
        return self._line.read(address, size)

    #: What readers of a kernel's memory are asked for.
    read_virtual = read

    def close(self) -> None:
        """Let the machine run again, unless it is paused, and hang up."""
        try:
            if not self._paused:
                self._line.ask("D")
        except HarnessError:
            pass
        finally:
            self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

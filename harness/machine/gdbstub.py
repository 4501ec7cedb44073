# SPDX-License-Identifier: BSD-2-Clause
"""QEMU's gdb stub, for the one thing its monitor cannot do: writing the guest's memory."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import DeadlineError, GuestLostError, HarnessError

_DEADLINE = 30.0  # s; a busy host may take that long to stop the machine
_PACKET = 1024  # bytes of memory per request; QEMU takes packets of up to 4096 characters


class GdbStub:
    """A session with the stub at the socket PATH.

    The machine stands still while it lasts.  A context manager: leaving it lets the machine run again.
    """

    def __init__(self, path: Path) -> None:
        self._line = socket.socket(socket.AF_UNIX)
        self._line.settimeout(_DEADLINE)
        try:
            self._line.connect(str(path))
        except OSError as error:
            self._line.close()
            raise GuestLostError(f"QEMU's gdb stub does not answer: {error.strerror}") from error
        self._buffer = b""

    def _packet(self, command: str) -> str:
        try:
            self._line.sendall(f"${command}#{sum(command.encode()) & 0xFF:02x}".encode())
            # That the machine has stopped, which it did for us, is announced at any time.
            while (body := self._receive()).startswith(("T", "S")):
                pass
        except TimeoutError as error:
            raise DeadlineError("an answer of QEMU's gdb stub", _DEADLINE) from error
        except OSError as error:
            raise GuestLostError("QEMU's gdb stub is gone") from error
        return body

    def _receive(self) -> str:
        while b"#" not in self._buffer or len(self._buffer.partition(b"#")[2]) < 2:
            chunk = self._line.recv(65536)
            if not chunk:
                raise GuestLostError("QEMU's gdb stub hung up")
            self._buffer += chunk
        body, _, rest = self._buffer.partition(b"#")
        self._buffer = rest[2:]
        self._line.sendall(b"+")
        return body.rpartition(b"$")[2].decode("ascii", "replace")

    def write(self, address: int, data: bytes) -> None:
        """Store DATA at the virtual ADDRESS; raises HarnessError where nothing is mapped."""
        for at in range(0, len(data), _PACKET):
            part, where = data[at : at + _PACKET], address + at
            if (answer := self._packet(f"M{where:x},{len(part):x}:{part.hex()}")) != "OK":
                raise HarnessError(f"the guest's memory at {where:#x} cannot be written (gdb stub: {answer!r})")

    def read(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at the virtual ADDRESS; raises HarnessError where nothing is mapped."""
        answer = self._packet(f"m{address:x},{size:x}")
        try:
            return bytes.fromhex(answer)
        except ValueError:
            raise HarnessError(f"the guest's memory at {address:#x} cannot be read (gdb stub: {answer!r})") from None

    def read_virtual(self, address: int, size: int) -> bytes:
        """Return SIZE bytes, in as many packets as that takes; raises as read() does."""
        parts = range(address, address + size, _PACKET)
        return b"".join(self.read(at, min(_PACKET, address + size - at)) for at in parts)

    def close(self) -> None:
        """Let the machine run again and hang up."""
        try:
            self._packet("D")
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

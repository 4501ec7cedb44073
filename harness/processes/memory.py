# SPDX-License-Identifier: BSD-2-Clause
"""Any address of a driven process's own memory, through a pipe: for what the kernel maps there or leaves behind."""

from __future__ import annotations

from harness.processes.remote import RemoteProcess, RemoteThread

_PIPE_ROOM = 4096  # bytes a pipe takes at once for certain


class OwnMemory:
    """Memory of PROCESS, read and written by the kernel on its behalf: a bad address is an EFAULT, not a signal."""

    def __init__(self, process: RemoteProcess | RemoteThread) -> None:
        self._process = process
        self._reading, self._writing = process.pipe()

    def read(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at ADDRESS."""
        data = b""
        while len(data) < size:
            step = min(size - len(data), _PIPE_ROOM)
            self._process.syscall("write", self._writing, address + len(data), step)
            data += self._process.read(self._reading, step)
        return data

    def write(self, address: int, data: bytes) -> None:
        """Store DATA at ADDRESS."""
        for at in range(0, len(data), _PIPE_ROOM):
            part = data[at : at + _PIPE_ROOM]
            self._process.write(self._writing, part)
            self._process.syscall("read", self._reading, address + at, len(part))

    def word(self, address: int, size: int = 4) -> int:
        """Return an unsigned number of SIZE bytes."""
        return int.from_bytes(self.read(address, size), "little")

# SPDX-License-Identifier: BSD-2-Clause
"""System calls about files, descriptors, directories and terminals."""

from __future__ import annotations

import struct

from harness.processes.calls import (
    Caller,
    Result,
    path_buffer,
    system_call,
    text_of,
)
from harness.processes.connection import Call
from harness.processes.vocabulary import (
    GuestError,
)
from harness.processes.wire import (
    Buffer,
    LengthSource,
)


def _words(result: Result, buffer: Buffer) -> tuple[int, ...]:
    data = result.memory(buffer)
    return struct.unpack(f"<{len(data) // 4}i", data)


class FileCalls(Caller):
    """Part of SystemCalls."""

    @system_call
    def open(self, path: str, flags: int = 0, mode: int = 0o666) -> Call[int]:
        """Open a file; FLAGS are the host's os.O_ constants, or O_CLOFORK, and translated."""
        bits = self._abi.open_flag_bits(flags)
        return self._call("open", path_buffer(path), bits, mode, text=f"open({path!r}, {flags:#x})")

    @system_call
    def close(self, fd: int) -> Call[None]:
        """Close a descriptor."""
        return self._void("close", fd)

    @system_call
    def read(self, fd: int, size: int) -> Call[bytes]:
        """Read up to SIZE bytes."""
        data = Buffer(size=size, wanted=True, length=LengthSource.VALUE)
        return self._describe("read", (fd, data, size), f"read({fd}, {size} bytes)", lambda result: result.memory(data))

    @system_call
    def write(self, fd: int, data: bytes) -> Call[int]:
        """Write DATA; return how many bytes were taken."""
        text = f"write({fd}, {len(data)} bytes)"
        return self._describe("write", (fd, Buffer(data), len(data)), text, lambda result: result.wide)

    @system_call
    def ioctl(self, fd: int, request: int | str, argument: bytes | int = 0) -> Call[bytes]:
        """Make an ioctl by number or name ("TIOCGPGRP").

        A bytes argument is the structure passed; its content after the call is returned (b"" for an int argument).
        """
        number = self._abi.ioctls.get(request) if isinstance(request, str) else request
        name = request if isinstance(request, str) else f"{request:#x}"
        text = f"ioctl({fd}, {name})"
        if number is None:
            raise GuestError(text, "ENOSYS")
        if isinstance(argument, int):
            return self._describe("ioctl", (fd, number, argument), text, lambda _: b"")
        structure = Buffer(argument, wanted=True)
        return self._describe("ioctl", (fd, number, structure), text, lambda result: result.memory(structure))

    @system_call
    def fcntl(self, fd: int, command: int, argument: int = 0) -> Call[int]:
        """Make an fcntl; command and argument are the guest's own numbers."""
        return self._call("fcntl", fd, command, argument)

    @system_call
    def dup2(self, old: int, new: int) -> Call[int]:
        """Duplicate a descriptor."""
        return self._call("dup2", old, new)

    @system_call
    def pipe(self) -> Call[tuple[int, int]]:
        """Make a pipe; return its reading and its writing end."""
        if self._abi.is_dragonfly:  # two values in two registers
            return self._describe("pipe", (), "pipe()", lambda result: (result.value, result.answer.second))
        ends = Buffer(bytes(8), wanted=True)

        def convert(result: Result) -> tuple[int, int]:
            reading, writing = _words(result, ends)
            return reading, writing

        return self._describe("pipe", (ends,), "pipe()", convert)

    @system_call
    def ptsname(self, master: int) -> Call[str]:
        """Return the path of the slave of a pseudo-terminal's master."""
        text = f"ptsname({master})"
        if not self._abi.is_dragonfly:
            number = Buffer(bytes(4), wanted=True)
            return self._describe(
                "ioctl",
                (master, self._abi.ioctls["TIOCGPTN"], number),
                text,
                lambda result: f"/dev/pts/{_words(result, number)[0]}",
            )
        name = Buffer(size=64, wanted=True)
        structure = Buffer(struct.pack("<QII", 0, 64, 0), pointers={0: name})
        # The device's name is ptm/N; the slave's is pts/N (tty_pty.c: ptyclone()).
        return self._describe(
            "ioctl",
            (master, self._abi.ioctls["FIODNAME"], structure),
            text,
            lambda result: f"/dev/pts/{text_of(result.memory(name)).rpartition('/')[2]}",
        )

    @system_call
    def set_controlling_tty(self, fd: int) -> Call[None]:
        """Make the terminal FD the session's controlling terminal (TIOCSCTTY)."""
        return self._void("ioctl", fd, self._abi.ioctls["TIOCSCTTY"], 0, text=f"ioctl({fd}, TIOCSCTTY)")

    @system_call
    def drop_controlling_tty(self, fd: int) -> Call[None]:
        """Give up the controlling terminal (TIOCNOTTY), FD being open on it (usually /dev/tty)."""
        return self._void("ioctl", fd, self._abi.ioctls["TIOCNOTTY"], 0, text=f"ioctl({fd}, TIOCNOTTY)")

    def _tty_get(self, fd: int, request: str, name: str) -> Call[int]:
        word = Buffer(bytes(4), wanted=True)
        return self._describe(
            "ioctl", (fd, self._abi.ioctls[request], word), f"{name}({fd})", lambda result: _words(result, word)[0]
        )

    @system_call
    def tcgetpgrp(self, fd: int) -> Call[int]:
        """Return the terminal's foreground process group."""
        return self._tty_get(fd, "TIOCGPGRP", "tcgetpgrp")

    @system_call
    def tcsetpgrp(self, fd: int, pgid: int) -> Call[None]:
        """Set the terminal's foreground process group."""
        group = Buffer(struct.pack("<i", pgid))
        return self._void("ioctl", fd, self._abi.ioctls["TIOCSPGRP"], group, text=f"tcsetpgrp({fd}, {pgid})")

    @system_call
    def tcgetsid(self, fd: int) -> Call[int]:
        """Return the session whose controlling terminal FD is."""
        return self._tty_get(fd, "TIOCGSID", "tcgetsid")

    @system_call
    def revoke(self, path: str) -> Call[None]:
        """Revoke all access to a device."""
        return self._void("revoke", path_buffer(path), text=f"revoke({path!r})")

    @system_call
    def chdir(self, path: str) -> Call[None]:
        """Change the working directory."""
        return self._void("chdir", path_buffer(path), text=f"chdir({path!r})")

    @system_call
    def chroot(self, path: str) -> Call[None]:
        """Change the root directory.  Later forks need the hub's socket at its path below the new root."""
        return self._void("chroot", path_buffer(path), text=f"chroot({path!r})")

    @system_call
    def mkdir(self, path: str, mode: int = 0o777) -> Call[None]:
        """Make a directory."""
        return self._void("mkdir", path_buffer(path), mode, text=f"mkdir({path!r}, {mode:#o})")

    @system_call
    def rmdir(self, path: str) -> Call[None]:
        """Remove a directory."""
        return self._void("rmdir", path_buffer(path), text=f"rmdir({path!r})")

    @system_call
    def unlink(self, path: str) -> Call[None]:
        """Remove a file."""
        return self._void("unlink", path_buffer(path), text=f"unlink({path!r})")

    @system_call
    def rename(self, old: str, new: str) -> Call[None]:
        """Rename a file."""
        return self._void("rename", path_buffer(old), path_buffer(new), text=f"rename({old!r}, {new!r})")

    @system_call
    def getcwd(self) -> Call[str]:
        """Return the working directory."""
        path = Buffer(size=4096, wanted=True)
        name = "__getcwd" if self._abi.is_dragonfly else "getcwd"
        return self._describe(name, (path, 1024), "getcwd()", lambda result: text_of(result.memory(path)))

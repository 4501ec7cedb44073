# SPDX-License-Identifier: BSD-2-Clause
"""System calls about who a process is: ids, group, session, users, login name."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from harness.processes.calls import (
    Caller,
    Result,
    path_buffer,
    system_call,
    text_of,
)
from harness.processes.connection import Call
from harness.processes.wire import (
    Buffer,
)


class IdentityCalls(Caller):
    """Part of SystemCalls."""

    @system_call
    def getpid(self) -> Call[int]:
        """Return the process id as the kernel tells it."""
        return self._call("getpid")

    @system_call
    def getppid(self) -> Call[int]:
        """Return the parent's process id."""
        return self._call("getppid")

    @system_call
    def getpgrp(self) -> Call[int]:
        """Return the process group id."""
        return self._call("getpgrp")

    @system_call
    def getpgid(self, pid: int = 0) -> Call[int]:
        """Return the process group id of PID (0: this process)."""
        return self._call("getpgid", pid)

    @system_call
    def getsid(self, pid: int = 0) -> Call[int]:
        """Return the session id of PID (0: this process)."""
        return self._call("getsid", pid)

    @system_call
    def setsid(self) -> Call[int]:
        """Become leader of a new session and group; return its id."""
        return self._call("setsid")

    @system_call
    def setpgid(self, pid: int, pgid: int) -> Call[None]:
        """Move PID (0: this process) to group PGID (0: a group of its own)."""
        return self._void("setpgid", pid, pgid)

    @system_call
    def gettid(self) -> Call[int]:
        """Return the thread id."""
        return self._call("lwp_gettid" if self._abi.is_dragonfly else "gettid")

    @system_call
    def getuid(self) -> Call[int]:
        """Return the real user id."""
        return self._call("getuid")

    @system_call
    def geteuid(self) -> Call[int]:
        """Return the effective user id."""
        return self._call("geteuid")

    @system_call
    def getgid(self) -> Call[int]:
        """Return the real group id."""
        return self._call("getgid")

    @system_call
    def getegid(self) -> Call[int]:
        """Return the effective group id."""
        return self._call("getegid")

    @system_call
    def getresuid(self) -> Call[tuple[int, int, int]]:
        """Return real, effective and saved user id."""
        ids = [Buffer(size=4, wanted=True) for _ in range(3)]

        def convert(result: Result) -> tuple[int, int, int]:
            real, effective, saved = (int.from_bytes(result.memory(each), "little") for each in ids)
            return real, effective, saved

        return self._describe("getresuid", tuple(ids), "getresuid()", convert)

    @system_call
    def setuid(self, uid: int) -> Call[None]:
        """Set user ids."""
        return self._void("setuid", uid)

    @system_call
    def seteuid(self, uid: int) -> Call[None]:
        """Set the effective user id."""
        if self._abi.is_dragonfly:
            return self._void("seteuid", uid)
        return self._void("setresuid", -1, uid, -1, text=f"seteuid({uid})")

    @system_call
    def setreuid(self, ruid: int, euid: int) -> Call[None]:
        """Set real and effective user ids; -1 leaves one alone."""
        return self._void("setreuid", ruid, euid)

    @system_call
    def setresuid(self, ruid: int, euid: int, suid: int) -> Call[None]:
        """Set real, effective and saved user ids; -1 leaves one alone."""
        return self._void("setresuid", ruid, euid, suid)

    @system_call
    def setgid(self, gid: int) -> Call[None]:
        """Set group ids."""
        return self._void("setgid", gid)

    @system_call
    def setegid(self, gid: int) -> Call[None]:
        """Set the effective group id."""
        if self._abi.is_dragonfly:
            return self._void("setegid", gid)
        return self._void("setresgid", -1, gid, -1, text=f"setegid({gid})")

    @system_call
    def setregid(self, rgid: int, egid: int) -> Call[None]:
        """Set real and effective group ids; -1 leaves one alone."""
        return self._void("setregid", rgid, egid)

    @system_call
    def setresgid(self, rgid: int, egid: int, sgid: int) -> Call[None]:
        """Set real, effective and saved group ids; -1 leaves one alone."""
        return self._void("setresgid", rgid, egid, sgid)

    @system_call
    def setgroups(self, groups: Sequence[int]) -> Call[None]:
        """Set the supplementary groups."""
        data = struct.pack(f"<{len(groups)}I", *groups)
        return self._void("setgroups", len(groups), Buffer(data), text=f"setgroups({list(groups)})")

    @system_call
    def getlogin(self) -> Call[str]:
        """Return the session's login name."""
        name = Buffer(size=64, wanted=True)
        return self._describe("getlogin", (name, 64), "getlogin()", lambda result: text_of(result.memory(name)))

    @system_call
    def setlogin(self, name: str) -> Call[None]:
        """Set the session's login name."""
        return self._void("setlogin", path_buffer(name), text=f"setlogin({name!r})")

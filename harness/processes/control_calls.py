# SPDX-License-Identifier: BSD-2-Clause
"""System calls by which processes are controlled: reapers, signals at a parent's death, restrictions, jails, ptrace."""

from __future__ import annotations

import struct

from harness.processes.calls import Caller, Result, path_buffer, system_call
from harness.processes.connection import Call
from harness.processes.kinfo import SyscapFlag
from harness.processes.vocabulary import GuestError, IdType, ReaperStatus, ReapKill, SignalLike, signal_text
from harness.processes.wire import Buffer

# sys/procctl.h
_REAP_ACQUIRE, _REAP_RELEASE, _REAP_STATUS, _PDEATHSIG_CTL, _PDEATHSIG_STATUS, _REAP_KILL = range(1, 7)
_KILL_CHILDREN_ONLY = 1
# Linux: include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 2, 36

_REAPER_KILL = struct.Struct("<IiIi")  # flags, signal, killed, pid_failed


class ControlCalls(Caller):
    """Part of SystemCalls."""

    # ---- reaper ----

    def _procctl(self, command: int, name: str) -> Call[None]:
        text = f"procctl({name})"
        if self._abi.is_dragonfly:
            return self._void("procctl", 0, self._endpoint.pid, command, 0, text=text)
        # The honest equivalent; it has no errors of its own for doing it twice.
        return self._void("prctl", _PR_SET_CHILD_SUBREAPER, int(command == _REAP_ACQUIRE), 0, 0, 0, text=text)

    @system_call
    def procctl_reaper_acquire(self) -> Call[None]:
        """Become a reaper of all descendants (Linux: PR_SET_CHILD_SUBREAPER)."""
        return self._procctl(_REAP_ACQUIRE, "PROC_REAP_ACQUIRE")

    @system_call
    def procctl_reaper_release(self) -> Call[None]:
        """Stop being a reaper."""
        return self._procctl(_REAP_RELEASE, "PROC_REAP_RELEASE")

    @system_call
    def procctl_reaper_status(self) -> Call[ReaperStatus]:
        """Tell about this process's reaper.  ENOSYS on Linux."""
        text = "procctl(PROC_REAP_STATUS)"
        status = Buffer(bytes(256), wanted=True)

        def convert(result: Result) -> ReaperStatus:
            flags, references, first = struct.unpack_from("<II120xi", result.memory(status))
            return ReaperStatus(bool(flags & 1), bool(flags & 2), references, first)

        return self._describe("procctl", (0, self._endpoint.pid, _REAP_STATUS, status), text, convert)

    @system_call
    def procctl(self, idtype: IdType | int, id_: int, command: int, data: bytes | None = None) -> Call[bytes]:
        """Make a raw procctl(); return the content of DATA after the call."""
        structure = Buffer(data or bytes(256), wanted=True)
        name = idtype if isinstance(idtype, int) else idtype.name
        return self._describe(
            "procctl",
            (self._abi.id_type_number(idtype), id_, command, structure if data is not None else 0),
            f"procctl({name}, {id_}, {command}{', ' + data.hex() if data is not None else ''})",
            lambda result: result.memory(structure) if data is not None else b"",
        )

    @system_call
    def procctl_reap_kill(self, sig: SignalLike, *, children_only: bool = False) -> Call[ReapKill]:
        """Send a signal to all descendants this reaper has, not across other reapers (DragonFly since March 2025).

        With CHILDREN_ONLY to its children alone.  ENOTCONN for a process that is no reaper, EINVAL for signal 0 and
        what is no signal (kern_fork.c: reaper_kill()).
        """
        text = f"procctl(PROC_REAP_KILL, {signal_text(sig)})"
        flags = _KILL_CHILDREN_ONLY if children_only else 0
        request = Buffer(_REAPER_KILL.pack(flags, self._abi.signal_number(sig), 0, 0), wanted=True)

        def convert(result: Result) -> ReapKill:
            _, _, killed, failed = _REAPER_KILL.unpack(result.memory(request))
            return ReapKill(killed, failed)

        return self._describe("procctl", (0, self._endpoint.pid, _REAP_KILL, request), text, convert)

    # ---- the signal at a parent's death ----

    @system_call
    def procctl_pdeathsig(self, sig: SignalLike) -> Call[None]:
        """Ask for a signal when the parent exits, 0 for none (DragonFly since November 2020)."""
        number = self._abi.signal_number(sig)
        text = f"procctl(PROC_PDEATHSIG_CTL, {signal_text(sig)})"
        if not self._abi.is_dragonfly:
            return self._void("prctl", _PR_SET_PDEATHSIG, number, 0, 0, 0, text=text)
        word = Buffer(struct.pack("<i", number))
        return self._void("procctl", 0, self._endpoint.pid, _PDEATHSIG_CTL, word, text=text)

    @system_call
    def procctl_pdeathsig_status(self) -> Call[int]:
        """Return the guest's number of the signal asked for at the parent's death, 0 for none."""
        word = Buffer(bytes(4), wanted=True)
        text = "procctl(PROC_PDEATHSIG_STATUS)"

        def convert(result: Result) -> int:
            return int.from_bytes(result.memory(word), "little", signed=True)

        if not self._abi.is_dragonfly:
            return self._describe("prctl", (_PR_GET_PDEATHSIG, word, 0, 0), text, convert)
        return self._describe("procctl", (0, self._endpoint.pid, _PDEATHSIG_STATUS, word), text, convert)

    # ---- restrictions ----

    @system_call
    def syscap_get(self, cap: int) -> Call[SyscapFlag]:
        """Return how capability CAP of this process is restricted (DragonFly since October 2023).

        With SYSCAP_INPARENT in CAP, its parent's.  kern_caps.c: sys_syscap_get().
        """
        arguments = (cap, 0, 0)
        return self._describe("syscap_get", arguments, f"syscap_get({cap:#x})", lambda result: SyscapFlag(result.value))

    @system_call
    def syscap_set(self, cap: int, flags: SyscapFlag | int) -> Call[SyscapFlag]:
        """Restrict capability CAP of this process for good; return how it is restricted then.

        With SYSCAP_INPARENT in CAP, its parent's.  kern_caps.c: sys_syscap_set().
        """
        arguments = (cap, int(flags), 0, 0)
        text = f"syscap_set({cap:#x}, {flags!r})"
        return self._describe("syscap_set", arguments, text, lambda result: SyscapFlag(result.value))

    # ---- jail, ptrace ----

    @system_call
    def jail(self, path: str, hostname: str = "jail") -> Call[int]:
        """Enter a new jail (version 1, without addresses) rooted at PATH; return its id.  ENOSYS on Linux."""
        structure = Buffer(
            struct.pack("<IIQQIIQ", 1, 0, 0, 0, 0, 0, 0), pointers={8: path_buffer(path), 16: path_buffer(hostname)}
        )
        return self._call("jail", structure, text=f"jail({path!r})")

    @system_call
    def jail_attach(self, jid: int) -> Call[None]:
        """Enter an existing jail."""
        return self._void("jail_attach", jid)

    @system_call
    def ptrace(self, request: int | str, pid: int, address: int = 0, data: int = 0) -> Call[int]:
        """Make a ptrace() by number or DragonFly's name ("PT_ATTACH")."""
        number = self._abi.ptrace_requests.get(request) if isinstance(request, str) else request
        text = f"ptrace({request}, {pid}{f', {address}, {data}' if address or data else ''})"
        if number is None:
            raise GuestError(text, "ENOSYS")
        return self._call("ptrace", number, pid, address, data, text=text)

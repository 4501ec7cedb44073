# SPDX-License-Identifier: BSD-2-Clause
"""The system calls of a driven process, described once for both ABIs.

Every method of `SystemCalls` exists twice: on a process it makes the call and returns its result; on `process.start`
it starts the call and returns a Pending.  Failures raise GuestError with the guest's errno.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from harness.errors import HarnessError
from harness.processes.abi_base import Abi
from harness.processes.api import NO_OPTIONS
from harness.processes.calls import Result, arguments_text, path_buffer, system_call
from harness.processes.connection import Call, Endpoint
from harness.processes.control_calls import ControlCalls
from harness.processes.event_calls import EventCalls
from harness.processes.file_calls import FileCalls
from harness.processes.identity_calls import IdentityCalls
from harness.processes.kinfo import decode_rusage
from harness.processes.repetition import Until, describe_repeat
from harness.processes.signal_calls import SignalCalls
from harness.processes.time_calls import TimeCalls
from harness.processes.vocabulary import (
    ForkRecord,
    GuestError,
    IdType,
    Repeat,
    RforkFlag,
    SigInfo,
    Storm,
    WaitOption,
    WaitResult,
)
from harness.processes.wire import (
    SPAWN_LIMIT,
    STORM_LIMIT,
    Answer,
    Argument,
    BranchFlag,
    Buffer,
    Note,
    Operation,
    encode_call,
    require_at_most,
)

if TYPE_CHECKING:
    from harness.processes.remote import RemoteProcess, RemoteThread

T = TypeVar("T")

_BRANCH = struct.Struct("<IIQII")
_STORM_REQUEST = struct.Struct("<QQIIIIQ")
_STORM_DATA = struct.Struct("<IIIIQ")
_STORM_RECORD = struct.Struct("<III")
_SPAWN_REQUEST = struct.Struct("<IIIIQ")
_AT_EMPTY_PATH = 0x1000  # Linux: include/uapi/linux/fcntl.h

_BULK_TIMEOUT = 900.0  # s a storm without a deadline may take


def _vector(strings: Sequence[str | bytes]) -> Buffer:
    """Build an argv-like array of pointers, ended by a null pointer."""
    return Buffer(bytes(8 * (len(strings) + 1)), pointers={8 * i: path_buffer(text) for i, text in enumerate(strings)})


def _nothing(_: Result) -> None:
    return None


class SystemCalls(IdentityCalls, SignalCalls, FileCalls, TimeCalls, ControlCalls, EventCalls):
    """The system calls of one process, described; see RemoteProcess and Start for what happens to the description."""

    # ---- fork, exit, wait ----

    def _branch(self, name: str, argument: int, flags: BranchFlag, text: str, child: Endpoint) -> Call[RemoteProcess]:
        number = self._abi.numbers.get(name)
        if number is None:
            self._connection.forget(child)
            raise GuestError(text, "ENOSYS")

        def decode(answer: Answer) -> RemoteProcess:
            if answer.error:
                self._connection.forget(child)
                raise self._branch_error(answer, text)
            child.pid = answer.value32
            self._connection.born.add(child.pid)
            return self._process(child)

        payload = _BRANCH.pack(number, child.id, argument & 0xFFFFFFFFFFFFFFFF, flags, 0)
        return Call(text, Operation.BRANCH, payload, decode)

    def _process(self, endpoint: Endpoint) -> RemoteProcess:
        from harness.processes.remote import (
            RemoteProcess,
        )  # processes have these calls, and one of these makes processes

        return RemoteProcess(self._connection, self._abi, endpoint)

    def _branch_error(self, answer: Answer, text: str) -> Exception:
        name = self._abi.errno_name(answer.error)
        if answer.note == Note.CHANNEL:
            where = "the hub's socket must be reachable, in a chroot, too"
            return HarnessError(f"{text}: no control channel for the child ({name}); {where}")
        return GuestError(text, name, answer.error)

    @system_call
    def fork(self) -> Call[RemoteProcess]:
        """Fork; return the child.

        Raises HarnessError if no control channel for the child can be opened, as in a chroot without the hub's socket.
        """
        return self._branch("fork", 0, BranchFlag(0), "fork()", self._connection.new_endpoint())

    @system_call
    def rfork(self, flags: RforkFlag | int) -> Call[RemoteProcess]:
        """DragonFly's rfork(); return the child.

        A child that shares the descriptor table (neither RFFDG nor RFCFDG) is noticed to be gone only when its parent
        has gone, too, unless it ends by exit().
        """
        text = f"rfork({flags!r})"
        if not flags & RforkFlag.RFPROC:
            own = self._process(self._endpoint)
            return self._describe("rfork", (int(flags),), text, lambda _: own)
        branch = BranchFlag(0)
        if flags & RforkFlag.RFMEM:
            branch |= BranchFlag.SHARES_MEMORY
        if flags & RforkFlag.RFCFDG:
            branch |= BranchFlag.NO_FILES
        elif not flags & RforkFlag.RFFDG:
            branch |= BranchFlag.SHARES_FILES
        child = self._connection.new_endpoint()
        child.connects_late = BranchFlag.NO_FILES in branch
        return self._branch("rfork", int(flags), branch, text, child)

    @system_call
    def vfork_exit(self, status: int = 0) -> Call[int]:
        """Vfork a child which does nothing but _exit(status); return its pid.  It waits to be reaped."""
        return self._spawn("vfork", 1, status, None, sessions=False, convert=lambda pids: pids[0])

    @system_call
    def wait4(self, pid: int = -1, options: WaitOption | int = NO_OPTIONS) -> Call[WaitResult]:
        """Wait for a child.  WNOHANG with nothing to report gives a result whose pid is 0."""
        status = Buffer(struct.pack("<I", WaitResult.STATUS_SENTINEL), wanted=True)
        rusage = Buffer(bytes(144), wanted=True)
        bits = self._abi.wait_option_bits(options)

        def convert(result: Result) -> WaitResult:
            raw = int.from_bytes(result.memory(status), "little")
            decoded = self._abi.decode_status(raw) if result.value > 0 else None
            return WaitResult(result.value, decoded, decode_rusage(result.memory(rusage)), raw)

        text = f"wait4({pid}, {_options_text(options)})"
        return self._describe("wait4", (pid, status, bits, rusage), text, convert)

    @system_call
    def wait6(self, idtype: IdType | int, id_: int, options: WaitOption | int) -> Call[WaitResult]:
        """Wait for a child chosen by id type (DragonFly 5.4 and later; waitid() on Linux)."""
        number = self._abi.id_type_number(idtype)
        bits = self._abi.wait_option_bits(options)
        siginfo = Buffer(bytes(self._abi.siginfo_size), wanted=True)
        name = idtype if isinstance(idtype, int) else idtype.name
        text = f"wait6({name}, {id_}, {_options_text(options)})"
        if not self._abi.is_dragonfly:
            return self._waitid(number, id_, bits, siginfo, text)
        status = Buffer(struct.pack("<I", WaitResult.STATUS_SENTINEL), wanted=True)
        rusages = Buffer(bytes(288), wanted=True)

        def convert(result: Result) -> WaitResult:
            raw = int.from_bytes(result.memory(status), "little")
            own, children = result.memory(rusages)[:144], result.memory(rusages)[144:]
            return WaitResult(
                result.value,
                self._abi.decode_status(raw) if result.value > 0 else None,
                decode_rusage(own),
                raw,
                decode_rusage(children),
                self._abi.decode_siginfo(result.memory(siginfo)),
            )

        return self._describe("wait6", (number, id_, status, bits, rusages, siginfo), text, convert)

    def _waitid(self, number: int, id_: int, bits: int, siginfo: Buffer, text: str) -> Call[WaitResult]:
        rusage = Buffer(bytes(144), wanted=True)

        def convert(result: Result) -> WaitResult:
            info = self._abi.decode_siginfo(result.memory(siginfo))
            if not info.pid:
                return WaitResult(0, None)
            raw = _status_from_siginfo(info, self._abi)
            decoded = self._abi.decode_status(raw)
            return WaitResult(info.pid, decoded, decode_rusage(result.memory(rusage)), raw, None, info)

        return self._describe("waitid", (number, id_, siginfo, bits, rusage), text, convert)

    @system_call
    def _leave(self, status: int) -> Call[None]:
        arguments: tuple[Argument, ...] = (status,)
        return self._describe(
            "exit", arguments, f"_exit({status})", lambda _: None, operation=Operation.LEAVE, on_gone=lambda: None
        )

    @system_call
    def leave_thread(self) -> Call[None]:
        """End this thread; the process ends with its last one.  Only one that was made by thread() is seen to end."""
        arguments: tuple[Argument, ...] = (1 << 16, 0, 0) if self._abi.is_dragonfly else (0,)  # EXTEXIT_LWP
        name = "extexit" if self._abi.is_dragonfly else "exit_thread"
        return self._describe(
            name, arguments, "thread exit", lambda _: None, operation=Operation.LEAVE, on_gone=lambda: None
        )

    @system_call
    def _thread(self, endpoint: Endpoint) -> Call[RemoteThread]:
        def decode(answer: Answer) -> RemoteThread:
            from harness.processes.remote import RemoteThread

            if answer.error:
                self._connection.forget(endpoint)
                raise self._branch_error(answer, "thread creation")
            endpoint.tid = answer.value32
            return RemoteThread(self._connection, self._abi, endpoint)

        return Call("thread creation", Operation.THREAD, _BRANCH.pack(0, endpoint.id, 0, 0, 0), decode)

    @system_call
    def execve(
        self, path: str, argv: Sequence[str | bytes] | None = None, env: Mapping[str, str] | None = None
    ) -> Call[None]:
        """Run another program.

        After success this process is no longer driven: any further call raises ProcessGone.
        """
        vector = _vector([path] if argv is None else argv)
        environment = _vector([f"{name}={value}" for name, value in (env or {}).items()])
        pid = self._endpoint.pid
        return self._describe(
            "execve",
            (path_buffer(path), vector, environment),
            f"execve({path!r})",
            lambda _: None,
            on_gone=lambda: self._connection.undriven.add(pid),
        )

    @system_call
    def fexecve(
        self, fd: int, argv: Sequence[str | bytes] = ("program",), env: Mapping[str, str] | None = None
    ) -> Call[None]:
        """Run the program that descriptor FD is open on (DragonFly since February 2021; execveat() on Linux).

        After success this process is no longer driven: any further call raises ProcessGone.
        """
        vector = _vector(argv)
        environment = _vector([f"{name}={value}" for name, value in (env or {}).items()])
        pid = self._endpoint.pid
        name = "fexecve" if self._abi.is_dragonfly else "execveat"
        arguments: tuple[Argument, ...] = (fd, vector, environment)
        if not self._abi.is_dragonfly:
            arguments = (fd, path_buffer(""), vector, environment, _AT_EMPTY_PATH)
        return self._describe(
            name, arguments, f"fexecve({fd})", lambda _: None, on_gone=lambda: self._connection.undriven.add(pid)
        )

    @system_call
    def reexec(self) -> Call[None]:
        """Run the executor again by execve(): the process has a new program image and is driven as before."""

        def decode(answer: Answer) -> None:
            if answer.error:
                raise GuestError("execve(executor)", self._abi.errno_name(answer.error), answer.error)

        return Call("execve(executor)", Operation.REEXEC, b"", decode)

    # ---- anything ----

    @system_call
    def syscall(self, name_or_number: str | int, *arguments: Argument | bytes | str) -> Call[Result]:
        """Make any system call.

        Arguments are ints, Buffers (memory, sent back if `wanted`), bytes (memory) or str (a path).  Returns the
        Result, with `.value`, `.wide`, `.answer.second` and `.memory(buffer)`.
        """
        name = str(name_or_number)
        text = arguments_text(name, *(a if isinstance(a, int | str) else "..." for a in arguments))
        number = name_or_number if isinstance(name_or_number, int) else self._abi.numbers.get(name_or_number)
        if number is None:
            raise GuestError(text, "ENOSYS")
        encoded = encode_call(number, [_argument(argument) for argument in arguments])

        def decode(answer: Answer) -> Result:
            if answer.error:
                raise GuestError(text, self._abi.errno_name(answer.error), answer.error)
            return Result(encoded, answer)

        return Call(text, Operation.SYSCALL, encoded.payload, decode)

    # ---- at full speed in the guest ----

    @system_call
    def storm(
        self,
        count: int,
        kind: str = "fork",
        *,
        status: int = 0,
        record: bool = True,
        until_pid: int = 0,
        until_repeat: bool = False,
        seconds: float | None = None,
    ) -> Call[Storm]:
        """Make and reap COUNT children which do nothing but _exit(status), by "fork" or "vfork", one after the other.

        Ends early when a child gets pid UNTIL_PID, with UNTIL_REPEAT when a pid comes a second time, and after SECONDS.
        With record=False only the count is kept: that is a throughput measurement.  Raises ValueError for more than
        STORM_LIMIT.
        """
        require_at_most(STORM_LIMIT, count, "children of one storm")
        number = self._abi.numbers[kind]
        deadline = int(seconds * 1e9) if seconds is not None else 0
        payload = _STORM_REQUEST.pack(number, 0, count, status, until_pid, record | until_repeat << 1, deadline)
        text = f"storm({count} x {kind})"

        def decode(answer: Answer) -> Storm:
            made, stopped, failed, recorded, elapsed = _STORM_DATA.unpack_from(answer.data)
            records = tuple(
                ForkRecord(pid, forked / 1e6, reaped / 1e6)
                for pid, forked, reaped in _STORM_RECORD.iter_unpack(answer.data[_STORM_DATA.size :])
            )
            assert len(records) == recorded
            return Storm(
                made,
                elapsed / 1e9,
                records,
                bool(stopped),
                self._abi.errno_name(answer.value) if answer.value else None,
                {0: None, 1: kind, 2: "wait4"}[failed],
            )

        return Call(text, Operation.STORM, payload, decode, timeout=(seconds or _BULK_TIMEOUT) + 30)

    @system_call
    def spawn_many(
        self, count: int, *, paused: bool = False, status: int = 0, sessions: bool = False
    ) -> Call[list[int]]:
        """Fork COUNT children and return their pids, oldest first: zombies that were never reaped, or paused ones.

        Paused children cannot be driven; they end by themselves when the hub cleans up, and can be killed before.  With
        SESSIONS each is the leader of a session of its own.  Raises GuestError if not all could be made; those that
        could remain; ValueError for more than SPAWN_LIMIT.
        """
        require_at_most(SPAWN_LIMIT, count, "children at once")
        leash = self._connection.new_endpoint() if paused else None
        return self._spawn("fork", count, status, leash, sessions=sessions, convert=lambda pids: pids)

    def _spawn(
        self,
        kind: str,
        count: int,
        status: int,
        leash: Endpoint | None,
        *,
        sessions: bool,
        convert: Callable[[list[int]], T],
    ) -> Call[T]:
        text = f"{kind}_exit({status})" if count == 1 and leash is None else f"spawn_many({count})"

        def decode(answer: Answer) -> T:
            pids = list(struct.unpack(f"<{len(answer.data) // 4}i", answer.data))
            self._connection.born.update(pids)
            if leash is not None:
                leash.leashed = pids
            if answer.error:
                if leash is not None and not pids:
                    self._connection.forget(leash)
                raise self._branch_error(answer, f"{text} after {len(pids)}")
            return convert(pids)

        number = self._abi.numbers[kind]
        payload = _SPAWN_REQUEST.pack(count, status, leash.id if leash else 0, int(sessions), number)
        return Call(text, Operation.SPAWN_MANY, payload, decode, timeout=_BULK_TIMEOUT)

    @system_call
    def repeat_until(
        self,
        until: Until,
        name: str,
        *arguments: Argument | bytes | str,
        seconds: float = 10.0,
        pause: float = 0.0,
        length_in: Buffer | None = None,
    ) -> Call[Repeat]:
        """Make one system call over and over until its outcome is as awaited, for at most SECONDS.

        UNTIL is made by returns(), fails_with(), length_is() and so on; for the latter, LENGTH_IN is the 8-byte Buffer
        among the arguments that holds the length.  PAUSE seconds are slept between calls.
        """
        resolved = [_argument(argument) for argument in arguments]
        return describe_repeat(self._abi, until, name, resolved, f"repeat_until({name})", seconds, pause, length_in)


def _argument(argument: Argument | bytes | str) -> Argument:
    if isinstance(argument, str):
        return path_buffer(argument)
    return Buffer(argument) if isinstance(argument, bytes) else argument


def _options_text(options: WaitOption | int) -> str:
    if isinstance(options, int):
        return f"{options:#x}"
    return "|".join(str(option.name) for option in options) or "0"


def _status_from_siginfo(info: SigInfo, abi: Abi) -> int:
    """Return the status word wait4() would have given (asm-generic/siginfo.h: CLD_EXITED is 1 and so on)."""
    if info.code == 1:
        return info.status << 8
    if info.code in (2, 3):
        return info.status | (0x80 if info.code == 3 else 0)
    return info.status << 8 | 0x7F if info.code == 5 else 0xFFFF if abi.name == "linux" else 19

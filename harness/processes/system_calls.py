"""The system calls of a driven process, described once for both ABIs.

Every method of `SystemCalls` exists twice: on a process it makes the call and returns its result; on `process.start`
it starts the call and returns a Pending.  Failures raise GuestError with the guest's errno.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from harness.errors import HarnessError
from harness.processes.abi_base import Abi
from harness.processes.api import NO_FLAGS, NO_OPTIONS
from harness.processes.calls import Result, arguments_text, path_buffer, system_call
from harness.processes.connection import Call, Endpoint
from harness.processes.control_calls import ControlCalls
from harness.processes.event_calls import EventCalls
from harness.processes.kinfo import decode_rusage
from harness.processes.repetition import Until, describe_repeat
from harness.processes.vocabulary import (
    SIG_SETMASK,
    Clock,
    ForkRecord,
    GuestError,
    Handler,
    IdType,
    Repeat,
    Resource,
    RforkFlag,
    SigAction,
    SigFlag,
    SigHow,
    SigInfo,
    SignalLike,
    SignalName,
    SignalRecord,
    Storm,
    WaitOption,
    WaitResult,
    signal_text,
)
from harness.processes.wire import (
    SPAWN_LIMIT,
    STORM_LIMIT,
    Answer,
    Argument,
    BranchFlag,
    Buffer,
    LengthSource,
    Note,
    Operation,
    encode_call,
    require_at_most,
)

if TYPE_CHECKING:
    from harness.processes.remote import RemoteProcess, RemoteThread

T = TypeVar("T")

# executor.h: enum handler_kind
_HANDLERS = {Handler.DEFAULT: 0, Handler.IGNORE: 1, Handler.LOG: 2}
_HANDLER_INTERNAL = 3  # the executor's own handler for SIGSYS, which a test has not asked for
_HANDLER_QUERY = 4

_BRANCH = struct.Struct("<IIQII")
_SIGACTION_REQUEST = struct.Struct("<IIII16s")
_SIGACTION_DATA = struct.Struct("<II16s")
_SIGNAL_RECORD = struct.Struct("<iiiiiIQIi")
_STORM_REQUEST = struct.Struct("<QQIIIIQ")
_STORM_DATA = struct.Struct("<IIIIQ")
_STORM_RECORD = struct.Struct("<III")
_SPAWN_REQUEST = struct.Struct("<IIIIQ")
_TIMESPEC = struct.Struct("<qq")
_AT_EMPTY_PATH = 0x1000  # Linux: include/uapi/linux/fcntl.h

_BULK_TIMEOUT = 900.0  # s a storm without a deadline may take


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="surrogateescape")


def _vector(strings: Sequence[str | bytes]) -> Buffer:
    """Build an argv-like array of pointers, ended by a null pointer."""
    return Buffer(bytes(8 * (len(strings) + 1)), pointers={8 * i: path_buffer(text) for i, text in enumerate(strings)})


def _signal_set_text(signals: Iterable[SignalLike]) -> str:
    return "{" + ", ".join(sorted(signal_text(signal) for signal in signals)) + "}"


def _nothing(_: Result) -> None:
    return None


def _words(result: Result, buffer: Buffer) -> tuple[int, ...]:
    data = result.memory(buffer)
    return struct.unpack(f"<{len(data) // 4}i", data)


class SystemCalls(ControlCalls, EventCalls):
    """The system calls of one process, described; see RemoteProcess and Start for what happens to the description."""

    # ---- identity ----

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
    def setgroups(self, groups: Sequence[int]) -> Call[None]:
        """Set the supplementary groups."""
        data = struct.pack(f"<{len(groups)}I", *groups)
        return self._void("setgroups", len(groups), Buffer(data), text=f"setgroups({list(groups)})")

    @system_call
    def getlogin(self) -> Call[str]:
        """Return the session's login name."""
        name = Buffer(size=64, wanted=True)
        return self._describe("getlogin", (name, 64), "getlogin()", lambda result: _text(result.memory(name)))

    @system_call
    def setlogin(self, name: str) -> Call[None]:
        """Set the session's login name."""
        return self._void("setlogin", path_buffer(name), text=f"setlogin({name!r})")

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
            "exit", arguments, f"_exit({status})", _nothing, operation=Operation.LEAVE, on_gone=lambda: None
        )

    @system_call
    def _leave_thread(self) -> Call[None]:
        arguments: tuple[Argument, ...] = (1 << 16, 0, 0) if self._abi.is_dragonfly else (0,)  # EXTEXIT_LWP
        name = "extexit" if self._abi.is_dragonfly else "exit_thread"
        return self._describe(name, arguments, "thread exit", _nothing, operation=Operation.LEAVE, on_gone=lambda: None)

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
            _nothing,
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
            name, arguments, f"fexecve({fd})", _nothing, on_gone=lambda: self._connection.undriven.add(pid)
        )

    @system_call
    def reexec(self) -> Call[None]:
        """Run the executor again by execve(): the process has a new program image and is driven as before."""

        def decode(answer: Answer) -> None:
            if answer.error:
                raise GuestError("execve(executor)", self._abi.errno_name(answer.error), answer.error)

        return Call("execve(executor)", Operation.REEXEC, b"", decode)

    # ---- signals ----

    @system_call
    def kill(self, pid: int, sig: SignalLike) -> Call[None]:
        """Send a signal; pid 0, -1 and -pgid have their usual meaning."""
        return self._void("kill", pid, self._abi.signal_number(sig), text=f"kill({pid}, {signal_text(sig)})")

    @system_call
    def killpg(self, pgid: int, sig: SignalLike) -> Call[None]:
        """Send a signal to a process group: kill(-pgid, sig)."""
        return self._void("kill", -pgid, self._abi.signal_number(sig), text=f"killpg({pgid}, {signal_text(sig)})")

    @system_call
    def lwp_kill(self, pid: int, tid: int, sig: SignalLike) -> Call[None]:
        """Send a signal to one thread."""
        name = "lwp_kill" if self._abi.is_dragonfly else "tgkill"
        text = f"{name}({pid}, {tid}, {signal_text(sig)})"
        return self._void(name, pid, tid, self._abi.signal_number(sig), text=text)

    @system_call
    def sigaction(
        self,
        sig: SignalLike,
        action: Handler,
        flags: SigFlag | int = NO_FLAGS,
        mask: Iterable[SignalLike] = (),
    ) -> Call[SigAction]:
        """Set what a signal does; return what it did before.

        With SIGSYS, DEFAULT means that unknown system calls fail with ENOSYS: the process is not killed.
        """
        return self._sigaction(sig, _HANDLERS[action], flags, mask, f"{action.name}")

    @system_call
    def sigaction_query(self, sig: SignalLike) -> Call[SigAction]:
        """Return what a signal does."""
        return self._sigaction(sig, _HANDLER_QUERY, NO_FLAGS, (), "NULL")

    def _sigaction(
        self, sig: SignalLike, handler: int, flags: SigFlag | int, mask: Iterable[SignalLike], action: str
    ) -> Call[SigAction]:
        abi = self._abi
        payload = _SIGACTION_REQUEST.pack(
            abi.signal_number(sig) & 0xFFFFFFFF, handler, abi.signal_flag_bits(flags), 0, abi.signal_set(mask)
        )
        text = f"sigaction({signal_text(sig)}, {action})"

        def decode(answer: Answer) -> SigAction:
            if answer.error:
                raise GuestError(text, abi.errno_name(answer.error), answer.error)
            kind, bits, mask_data = _SIGACTION_DATA.unpack(answer.data)
            return SigAction(
                next((name for name, number in _HANDLERS.items() if number == kind), Handler.DEFAULT),
                abi.decode_signal_flags(bits),
                abi.decode_signal_set(mask_data[: abi.sigset_size]),
            )

        return Call(text, Operation.SIGACTION, payload, decode)

    @system_call
    def signals(self) -> Call[list[SignalRecord]]:
        """Return, and forget, the signals logged so far by Handler.LOG; at most the last 256."""
        name = self._abi.signal_name

        def decode(answer: Answer) -> list[SignalRecord]:
            return [
                SignalRecord(name(number), code, pid, uid & 0xFFFFFFFF, status, sequence, at / 1e9, bool(info))
                for number, code, pid, uid, status, info, at, sequence, _ in _SIGNAL_RECORD.iter_unpack(answer.data)
            ]

        return Call("signals()", Operation.SIGNALS, b"", decode)

    @system_call
    def sigprocmask(
        self, how: SigHow | int = SIG_SETMASK, mask: Iterable[SignalLike] = ()
    ) -> Call[frozenset[SignalName]]:
        """Change the signal mask; return the previous one."""
        new = tuple(mask)
        old = Buffer(bytes(self._abi.sigset_size), wanted=True)
        return self._describe(
            "sigprocmask",
            (self._abi.mask_operation(how), Buffer(self._abi.signal_set(new)), old, self._abi.sigset_size),
            f"sigprocmask({how if isinstance(how, int) else how.name}, {_signal_set_text(new)})",
            lambda result: self._abi.decode_signal_set(result.memory(old)),
        )

    @system_call
    def sigpending(self) -> Call[frozenset[SignalName]]:
        """Return the signals that are blocked and pending."""
        pending = Buffer(bytes(self._abi.sigset_size), wanted=True)
        return self._describe(
            "sigpending",
            (pending, self._abi.sigset_size),
            "sigpending()",
            lambda result: self._abi.decode_signal_set(result.memory(pending)),
        )

    @system_call
    def sigsuspend(self, mask: Iterable[SignalLike] = ()) -> Call[None]:
        """Wait with another signal mask until a handler has run; always ends with EINTR."""
        signals = tuple(mask)
        text = f"sigsuspend({_signal_set_text(signals)})"
        return self._void("sigsuspend", Buffer(self._abi.signal_set(signals)), self._abi.sigset_size, text=text)

    @system_call
    def sigtimedwait(self, signals: Iterable[SignalLike], timeout: float) -> Call[SigInfo]:
        """Wait up to TIMEOUT seconds for one of SIGNALS, which should be blocked, and take it."""
        awaited = tuple(signals)
        info = Buffer(bytes(self._abi.siginfo_size), wanted=True)
        return self._describe(
            "sigtimedwait",
            (Buffer(self._abi.signal_set(awaited)), info, Buffer(_timespec(timeout)), self._abi.sigset_size),
            f"sigtimedwait({_signal_set_text(awaited)}, {timeout} s)",
            lambda result: self._abi.decode_siginfo(result.memory(info)),
            timeout=timeout + 30,
        )

    # ---- files and terminals ----

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
            lambda result: f"/dev/pts/{_text(result.memory(name)).rpartition('/')[2]}",
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
        return self._describe(name, (path, 1024), "getcwd()", lambda result: _text(result.memory(path)))

    # ---- time, limits, memory ----

    @system_call
    def nanosleep(self, seconds: float) -> Call[None]:
        """Sleep; EINTR if a handler runs meanwhile."""
        text = f"nanosleep({seconds} s)"
        return self._describe("nanosleep", (Buffer(_timespec(seconds)), 0), text, _nothing, timeout=seconds + 30)

    @system_call
    def clock_nanosleep(self, seconds: float, clock: Clock | int, *, absolute: bool = False) -> Call[None]:
        """Sleep by CLOCK for, or if ABSOLUTE until, SECONDS (DragonFly since January 2021).

        What the call returns is an errno (kern_time.c: sys_clock_nanosleep), raised as GuestError as ever.
        """
        number = self._abi.clock_number(clock)
        name = clock if isinstance(clock, int) else clock.name
        text = f"clock_nanosleep({name}, {'until' if absolute else 'for'} {seconds} s)"

        def convert(result: Result) -> None:
            if result.value:
                raise GuestError(text, self._abi.errno_name(result.value), result.value)

        # How long a sleep until a moment takes is not known here.
        limit = None if absolute else seconds + 30
        arguments = (number, int(absolute), Buffer(_timespec(seconds)), 0)
        return self._describe("clock_nanosleep", arguments, text, convert, timeout=limit)

    @system_call
    def clock_gettime(self, clock: Clock | int = Clock.CLOCK_MONOTONIC) -> Call[float]:
        """Return a clock's time in seconds."""
        time = Buffer(bytes(16), wanted=True)

        def convert(result: Result) -> float:
            seconds, nanoseconds = _TIMESPEC.unpack(result.memory(time))
            return float(seconds + nanoseconds / 1e9)

        name = clock if isinstance(clock, int) else clock.name
        return self._describe("clock_gettime", (self._abi.clock_number(clock), time), f"clock_gettime({name})", convert)

    @system_call
    def getrlimit(self, resource: Resource | int) -> Call[tuple[int, int]]:
        """Return a resource's soft and hard limit."""
        limits = Buffer(bytes(16), wanted=True)

        def convert(result: Result) -> tuple[int, int]:
            soft, hard = struct.unpack("<QQ", result.memory(limits))
            return soft, hard

        text = f"getrlimit({_resource_text(resource)})"
        return self._describe("getrlimit", (self._abi.resource_number(resource), limits), text, convert)

    @system_call
    def setrlimit(self, resource: Resource | int, soft: int, hard: int | None = None) -> Call[None]:
        """Set a resource's limits; the hard limit becomes SOFT, too, unless given."""
        limits = Buffer(struct.pack("<QQ", soft, soft if hard is None else hard))
        text = f"setrlimit({_resource_text(resource)}, {soft}, {hard})"
        return self._void("setrlimit", self._abi.resource_number(resource), limits, text=text)

    @system_call
    def touch_memory(self, size: int) -> Call[int]:
        """Map SIZE bytes and write to each page; return the address.  The memory stays until the process ends."""
        text = f"touch_memory({size})"

        def decode(answer: Answer) -> int:
            if answer.error:
                raise GuestError(text, self._abi.errno_name(answer.error), answer.error)
            return answer.value

        return Call(text, Operation.TOUCH, struct.pack("<Q", size), decode)

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


def _timespec(seconds: float) -> bytes:
    nanoseconds = round(seconds * 1e9)
    return _TIMESPEC.pack(nanoseconds // 10**9, nanoseconds % 10**9)


def _options_text(options: WaitOption | int) -> str:
    if isinstance(options, int):
        return f"{options:#x}"
    return "|".join(str(option.name) for option in options) or "0"


def _resource_text(resource: Resource | int) -> str:
    return str(resource) if isinstance(resource, int) else resource.name


def _status_from_siginfo(info: SigInfo, abi: Abi) -> int:
    """Return the status word wait4() would have given (asm-generic/siginfo.h: CLD_EXITED is 1 and so on)."""
    if info.code == 1:
        return info.status << 8
    if info.code in (2, 3):
        return info.status | (0x80 if info.code == 3 else 0)
    return info.status << 8 | 0x7F if info.code == 5 else 0xFFFF if abi.name == "linux" else 19

# SPDX-License-Identifier: BSD-2-Clause
"""A program in a guest: carried there with what it needs, run under a deadline, its output read as it comes."""

from __future__ import annotations

import codecs
import contextlib
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from harness.errors import GuestDeadlineError, GuestLostError, HarnessError
from harness.guests.guest import Guest
from harness.processes.abi import ABIS
from harness.processes.executor_build import FOLDER, flags_for
from harness.programs.c_program import build_standalone
from harness.programs.cases import CaseBrokenError, Reader
from harness.programs.options import ProgramOptions
from harness.programs.program import Program
from harness.store import Store
from harness.toolchain import compile_program

if TYPE_CHECKING:
    import paramiko

_FOLDER = "/tmp/dfly-program"  # noqa: S108  (in the guest, which is ours alone)
_LAUNCHER, _STDIN, _WORK = f"{_FOLDER}/launcher", f"{_FOLDER}/stdin", f"{_FOLDER}/work"
_PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/pkg/bin:/usr/pkg/sbin"
_SHORT = 30.0  # s for what takes a moment
_CHUNK = 1 << 16
_TURN = 1.0  # s between two looks at the guest
_MOST_OUTPUT = 16 << 20  # bytes
_MOST_LINE = 1 << 16  # characters of a line that are read
_ENOEXEC = 8
# With what the compiler may call by itself, as it is in the executor.
_SOURCES = (Path(__file__).parent / "launcher" / "launcher.c", FOLDER / "memory.c")


@dataclass(frozen=True)
class Ending:
    """How a program ended: by exit `status`, or killed by a signal, in words."""

    status: int | None
    died: str = ""

    def __str__(self) -> str:
        return self.died or f"exit status {self.status}"


def build_launcher(abi: str, cache: Path) -> Path:
    """Build the program that starts others, or find it in CACHE.  Raises HarnessError without a compiler."""
    headers = sorted(FOLDER.glob("*.h"))
    flags = [*flags_for(ABIS[abi]), f"-I{FOLDER}"]
    return compile_program(f"launcher-{abi}", _SOURCES, flags, cache, depends=headers)


class Workplace:
    """PROGRAM in GUEST, with what OPTIONS say it needs."""

    def __init__(self, guest: Guest, program: Program, options: ProgramOptions, store: Store) -> None:
        self.guest = guest
        self._program = program
        self._options = options
        self._credentials = "-"
        self._abi = guest.target.abi
        executable = self._executable(store)
        self.path = f"{_FOLDER}/bin/{program.file.stem if program.is_source else program.file.name}"
        self._environment = {"PATH": _PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh",
                             "TERM": "vt100", "TMPDIR": "/tmp"}  # noqa: S108  # fmt: skip
        self._carry(build_launcher(self._abi, store.cache), executable)

    def _executable(self, store: Store) -> Path:
        if not self._program.is_source:
            return self._program.file
        try:
            return build_standalone(self._program.file, store.cache)
        except HarnessError as error:
            raise CaseBrokenError(str(error)) from None

    def _carry(self, launcher: Path, executable: Path) -> None:
        ssh, options = self.guest.ssh, self._options
        made = ssh.run(f"rm -rf {_FOLDER} && mkdir -m 755 {_FOLDER} {_FOLDER}/bin", deadline=_SHORT)
        if made.status != 0:
            raise HarnessError(f"the guest has no place for programs: {made.errors.strip()}")
        ssh.upload(launcher, _LAUNCHER, mode=0o755)
        ssh.upload(executable, self.path, mode=0o755)
        if options.stdin is not None:
            ssh.upload(options.stdin, _STDIN, mode=0o644)
        if options.user is not None:
            self._become(options.user)
        self._environment |= dict(options.env)

    def _become(self, user: str) -> None:
        name = shlex.quote(user)
        asked = self.guest.ssh.run(
            f"id -u {name} && id -g {name} && id -G {name} && eval echo ~{name}", deadline=_SHORT
        )
        if asked.status != 0:
            raise CaseBrokenError(f"the guest has no user {user}")
        number, group, groups, home = asked.output.splitlines()
        self._credentials = f"{number}:{group}:{','.join(groups.split())}"
        self._environment |= {"HOME": home, "USER": user, "LOGNAME": user}

    def command(self, arguments: Sequence[str], token: str, variables: Mapping[str, str], *, anew: bool = True) -> str:
        """Return the shell's line that runs the program with ARGUMENTS; ANEW in an empty folder."""
        options = self._options
        if options.cwd is None and not anew:
            prepare = f"cd {_WORK}"
        elif options.cwd is None:
            prepare = f"rm -rf {_WORK} && mkdir -m 777 {_WORK} && chmod 1777 {_WORK} && cd {_WORK}"
        else:
            prepare = f"cd {shlex.quote(options.cwd)}"
        settings = [f"{name}={value}" for name, value in {**self._environment, **variables}.items()]
        session = "-" if options.pty else "own"
        words = ["env", "-i", *settings, _LAUNCHER, token, session, self._credentials, self.path, self.path, *arguments]
        source = "" if options.pty else f" <{_STDIN if options.stdin is not None else '/dev/null'}"
        # One pipe for both outputs: sshd has one for each, and what comes first on two is anybody's guess.
        return f"{prepare} && exec {shlex.join(words)}{source} 2>&1"

    def run(
        self,
        arguments: Sequence[str],
        reader: Reader,
        deadline: float,
        sink: BinaryIO,
        variables: Mapping[str, str] = {},
        *,
        anew: bool = True,
    ) -> Ending:
        """Run the program; READER gets the lines of its output, SINK all of it.

        Its folder is an empty one, unless the user chose one, or it is not to begin ANEW.

        A case, or what comes before the first one, may take DEADLINE seconds.  Raises GuestDeadlineError after that,
        CaseBrokenError where the kernel does not execute the program, KernelPanicError and GuestLostError.
        """
        token = secrets.token_hex(16)
        guest = self.guest
        channel = guest.ssh.begin(
            self.command(arguments, token, variables, anew=anew), terminal=self._options.pty, merged=True
        )
        with contextlib.closing(channel):
            if not self._options.pty:
                channel.shutdown_write()
            listener = Listener(reader, sink, token, terminal=self._options.pty)
            _listen(channel, listener, deadline, guest.check)
        return self._ending(listener)

    def _ending(self, listener: Listener) -> Ending:
        name = self._program.file.name
        if listener.trailer is None:
            self.guest.check()
            if not self.guest.ssh.is_open:
                raise GuestLostError(f"the SSH connection broke while {name} ran")
            raise NotStartedError(f"{name} could not be started in the guest: {listener.last_line}")
        kind, number = listener.trailer
        if kind == "exit":
            return Ending(number)
        if kind == "signal":
            return self._signalled(number, listener)
        raise CaseBrokenError(self._refusal(kind, number))

    def _refusal(self, kind: str, number: int) -> str:
        name, error = self._program.file.name, ABIS[self._abi].errno_name(number)
        if kind == "user":
            return f"{name} could not be run as {self._options.user} ({error})"
        if number == _ENOEXEC:
            is_text = b"\0" not in self._program.content
            hint = "a script begins with #!" if is_text else "it is for another system, or damaged"
            return f"the kernel does not know the format of {name} (ENOEXEC): {hint}"
        if error == "ENOENT":
            return f"the guest does not have the interpreter that {name} needs (ENOENT)"
        return f"the kernel did not execute {name} ({error})"

    def _signalled(self, number: int, listener: Listener) -> Ending:
        known = ABIS[self._abi].signal_name(number)
        name = known if isinstance(known, str) else known.name
        if name == "SIGSYS" and not listener.size:
            raise CaseBrokenError(
                f"{self._program.file.name} made a system call that the kernel does not have (SIGSYS):"
                " it is for another system"
            )
        died = f"killed by signal {number} ({name})"
        if not listener.size and self._program.is_unbranded:
            died += " before it said anything: its file does not tell for which system it is"
        return Ending(None, died)


class NotStartedError(HarnessError):
    """The guest cannot even begin: its disk is full, say."""


class Listener:
    """Takes a program's output apart: lines for READER, all for SINK, and the launcher's last word."""

    def __init__(self, reader: Reader, sink: BinaryIO, token: str, *, terminal: bool = False) -> None:
        self.reader = reader
        self._line_end = b"\r\n" if terminal else b"\n"  # which the launcher writes before its word
        self._sink = sink
        self._mark = b"\0" + token.encode() + b" "
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._kept = b""  # may be the beginning of the mark
        self._fed = 0  # so many bytes of that, ends of lines, has the reader been given
        self._line = ""
        self.size = 0
        self.trailer: tuple[str, int] | None = None
        self.last_line = ""

    def hear(self, data: bytes) -> None:
        """Take in more."""
        if self.trailer is not None:
            return  # of somebody the program left behind
        data = self._kept + data
        at = data.find(self._mark)
        if at >= 0:
            word, newline, _ = data[at + len(self._mark) :].partition(b"\n")
            if not newline:
                self._kept = data
                return
            self._take(data[:at].removesuffix(self._line_end))
            kind, _, number = word.decode("ascii", "replace").strip().partition(" ")
            self.trailer = kind, int(number) if number.isdigit() else 0
            self.end()
            return
        # What may be the beginning of the mark waits for the rest of it.
        start = data.rfind(b"\0", max(0, len(data) - len(self._mark)))
        whole = data[:start] if start >= 0 else data
        sure = whole.removesuffix(self._line_end) if start >= 0 else whole.rstrip(self._line_end)
        self._kept = data[len(sure) :]
        self._take(sure)
        # Who reads lines must not wait for the next one: it may be what hangs.
        ends = whole[len(sure) :]
        self._feed(ends[self._fed :].decode("ascii"))
        self._fed = len(ends)

    def _take(self, data: bytes) -> None:
        self._sink.write(data)
        self.size += len(data)
        self._feed(self._decoder.decode(data[self._fed :]))
        self._fed = max(0, self._fed - len(data))

    def _feed(self, text: str) -> None:
        *lines, rest = (self._line + text).split("\n")
        for line in lines:
            self._tell(line)
        self._line = rest[:_MOST_LINE]

    def _tell(self, line: str) -> None:
        line = line[:_MOST_LINE].rstrip("\r")
        self.last_line = line or self.last_line
        self.reader.feed(line)

    def end(self) -> None:
        """Take in that there will be no more."""
        if self.trailer is None and self._kept:
            kept, self._kept = self._kept, b""
            self._take(kept)
        if self._line:
            line, self._line = self._line, ""
            self._tell(line)


def _listen(channel: paramiko.Channel, listener: Listener, deadline: float, watch: Callable[[], None]) -> None:
    """Let LISTENER hear all of CHANNEL; raises GuestDeadlineError when a case takes longer than DEADLINE seconds."""
    reader = listener.reader
    done, end = len(reader.cases), time.monotonic() + deadline
    try:
        while listener.trailer is None:
            if len(reader.cases) > done:
                done, end = len(reader.cases), time.monotonic() + deadline
            left = end - time.monotonic()
            if left <= 0:
                raise GuestDeadlineError(f"{_under_way(reader)} to end in the guest", deadline)
            channel.settimeout(min(_TURN, max(0.001, left)))
            try:
                data = channel.recv(_CHUNK)
            except TimeoutError:
                watch()
                continue
            if not data:
                return
            listener.hear(data)
            if listener.size > _MOST_OUTPUT:
                raise CaseBrokenError(f"it wrote more than {_MOST_OUTPUT >> 20} MiB of output")
    finally:
        listener.end()


def _under_way(reader: Reader) -> str:
    return f"`{reader.running}`" if reader.running else "the program"


def output_file(folder: Path, test: str) -> Path:
    """Return a file in FOLDER, made if need be, for the output of TEST; there is none of that name yet."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(each if each.isalnum() or each in "._-" else "-" for each in test)[-150:].lstrip("-.")
    for number in range(1, 10_000):
        file = folder / (f"{name}.txt" if number == 1 else f"{name}.{number}.txt")
        with contextlib.suppress(FileExistsError):
            file.touch(exist_ok=False)
            return file
    raise HarnessError(f"{folder} is full of outputs of {test}")

# SPDX-License-Identifier: BSD-2-Clause
"""SSH and SFTP into a guest, by paramiko."""

from __future__ import annotations

import contextlib
import io
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DeadlineError, GuestDeadlineError, GuestLostError, HarnessError, UsageError
from harness.later import Later

if TYPE_CHECKING:
    import paramiko

    _Policy = paramiko.MissingHostKeyPolicy
else:  # a run's workers resume their guests, and speak to none of them by SSH
    paramiko = Later("paramiko")
    _Policy = object  # of which paramiko asks nothing but the method

_FIRST_BANNER_WAIT = 1.0
_RETRY = 0.1
_LOOK = 0.1
_AUTH_DEADLINE = 60.0
_SFTP_PATIENCE = 120.0
_WATCH = 1.0
_CHUNK = 1 << 16
_SHOWN = 80  # characters of a command in a message
_NO_STATUS = -1  # paramiko's, where the guest sent none
# paramiko reports a guest that is not up yet as errors with tracebacks; the caller gets an exception anyway.
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Completed:
    """A command's exit status and output."""

    command: str
    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class SshAccess:
    """How to get in: user, private key file and, once known, the host key (`type base64`).

    PASSWORD, where it is given, is used instead of the key: for images made elsewhere, until our key is in.
    """

    user: str
    key: Path
    host_key: str | None = None
    password: str | None = field(default=None, repr=False)


def load_private_key(file: Path) -> paramiko.PKey:
    """Return the private key in FILE; raises UsageError when it is none or is encrypted."""
    if not file.is_file():
        raise UsageError(f"SSH key {file} does not exist")
    try:
        return paramiko.PKey.from_path(file)
    except paramiko.PasswordRequiredException:
        raise UsageError(f"SSH key {file} is protected by a passphrase: give one without") from None
    except (paramiko.SSHException, ValueError, TypeError, IndexError, OSError):
        raise UsageError(f"{file} is not a private SSH key") from None
    except Exception as error:  # paramiko lets cryptography's own exceptions through
        raise UsageError(f"{file} is not a private SSH key ({error})") from None


class _Pin(_Policy):
    """Accept only the pinned host key, or any key where none is pinned yet."""

    def __init__(self, pinned: str | None) -> None:
        self._pinned = pinned

    def missing_host_key(self, _client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        shown = f"{key.get_name()} {key.get_base64()}"
        if self._pinned is not None and shown != self._pinned:
            raise HarnessError(
                f"the guest on {hostname} shows another SSH host key than at its first boot: this is not the image"
                " that was imported"
            )


def offered_logins(port: int, user: str, deadline: float = _AUTH_DEADLINE) -> frozenset[str]:
    """Return the ways to log in that the guest offers USER before anything is proved (`publickey`, `password` ...).

    Raises GuestLostError when it does not answer within DEADLINE seconds.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=deadline) as line:
            transport = paramiko.Transport(line)
            try:
                transport.start_client(timeout=deadline)
                transport.auth_none(user)
            except paramiko.BadAuthenticationType as refusal:
                return frozenset(refusal.allowed_types)
            finally:
                transport.close()
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise GuestLostError(f"the guest's SSH server does not say how to log in ({error})") from error
    return frozenset({"none"})


def _shown(command: str) -> str:
    """Return as much of COMMAND as fits into a message of one line."""
    line = " ".join(command.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _read_until(end: float, channel: paramiko.Channel, receive: Callable[[int], bytes]) -> bytes:
    """Return all that RECEIVE gets from CHANNEL; raises TimeoutError at END (time.monotonic()), however it drips."""
    received = bytearray()
    while True:
        channel.settimeout(max(0.001, end - time.monotonic()))
        if not (chunk := receive(_CHUNK)):
            return bytes(received)
        received += chunk
        if time.monotonic() > end:
            raise TimeoutError


class _NewsError(Exception):
    """More is known of the guest than when the try began."""


class SshConnection:
    """An authenticated connection to the guest behind a port on 127.0.0.1."""

    def __init__(self, port: int, access: SshAccess) -> None:
        self._port = port
        #: Seconds in which an SFTP transfer has to move on.
        self.sftp_patience = _SFTP_PATIENCE
        self._access = access
        self._key = load_private_key(access.key) if access.password is None else None
        self._client = paramiko.SSHClient()
        self._client.set_missing_host_key_policy(_Pin(access.host_key))

    def connect(
        self, deadline: float, watch: Callable[[], None] | None = None, news: Callable[[], object] = lambda: None
    ) -> None:
        """Try until the guest lets us in.

        WATCH is called between tries and may raise.  NEWS tells what is known of the guest: when that changes, a try
        that has not been answered is given up for another one, as what opened it may have been lost.  Raises
        HarnessError when the guest refuses the key or shows a wrong host key (both final) and DeadlineError after
        DEADLINE seconds.
        """
        end = time.monotonic() + deadline
        patience = _FIRST_BANNER_WAIT
        while True:
            if watch is not None:
                watch()
            left = end - time.monotonic()
            if left <= 0:
                raise DeadlineError(f"SSH to answer on port {self._port}", deadline)
            try:
                # Patience grows: a guest that has no network yet swallows the first tries, and a busy host is slow
                # to say hello.
                self._try(min(patience, left), news)
            except _NewsError:
                continue
            except paramiko.AuthenticationException:
                if self._access.password is not None:
                    raise HarnessError(f"the guest refused the password for user {self._access.user}") from None
                raise HarnessError(
                    f"the guest refused SSH key {self._access.key} for user {self._access.user}: import the image"
                    " again with the right --ssh-key and --user"
                ) from None
            except (paramiko.SSHException, OSError, EOFError):
                patience *= 1.3
                time.sleep(_RETRY)
            else:
                return

    @staticmethod
    def _await_greeting(line: socket.socket, patience: float, known: object, news: Callable[[], object]) -> None:
        """Return when the guest says something on LINE; raises TimeoutError when it does not in PATIENCE seconds.

        Raises _NewsError as soon as there is other NEWS than is KNOWN.
        """
        end = time.monotonic() + patience
        while not select.select([line], [], [], _LOOK)[0]:
            if news() != known:
                raise _NewsError
            if time.monotonic() > end:
                raise TimeoutError

    def _try(self, patience: float, news: Callable[[], object]) -> None:
        known = news()
        line = socket.create_connection(("127.0.0.1", self._port), timeout=patience)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # requests are small and each waits for its answer
        try:
            self._await_greeting(line, patience, known, news)
            self._client.connect(
                "127.0.0.1",
                sock=line,
                username=self._access.user,
                pkey=self._key,
                password=self._access.password,
                allow_agent=False,
                look_for_keys=False,
                banner_timeout=patience,
                auth_timeout=_AUTH_DEADLINE,
            )
        except paramiko.AuthenticationException as error:
            cut = not self.is_open
            line.close()
            if cut:  # paramiko says the same of a refusal and of a guest that went away meanwhile
                raise EOFError("the connection was cut while logging in") from error
            raise
        except BaseException:
            line.close()
            raise

    @property
    def host_key(self) -> str:
        """The key the guest identified itself with, as `type base64`."""
        key = self._transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"

    @property
    def is_open(self) -> bool:
        """Whether the connection stands, as far as is known."""
        transport = self._client.get_transport()
        return transport is not None and transport.is_active()

    @property
    def _transport(self) -> paramiko.Transport:
        transport = self._client.get_transport()
        if transport is None or not self.is_open:
            raise GuestLostError("the SSH connection to the guest is gone")
        return transport

    def run(self, command: str, *, deadline: float = 60.0, watch: Callable[[], None] | None = None) -> Completed:
        """Run COMMAND in the user's shell; raises GuestDeadlineError after DEADLINE seconds without its end.

        WATCH is called every second of a long command and may raise; what that command says must fit into SSH's window
        of 2 MiB.
        """
        end = time.monotonic() + deadline
        try:
            channel = self._start(command, deadline)
            transport = channel.get_transport()
            channel.settimeout(deadline)
            channel.shutdown_write()
            while watch is not None and not channel.status_event.wait(_WATCH):
                watch()
                if time.monotonic() > end:
                    raise TimeoutError  # noqa: TRY301  (one place says what was awaited)
            output = _read_until(end, channel, channel.recv)
            errors = _read_until(end, channel, channel.recv_stderr)
            # It may never come: recv_exit_status() by itself would wait for ever.
            if not channel.status_event.wait(max(0.0, end - time.monotonic())):
                raise TimeoutError  # noqa: TRY301
            status = channel.recv_exit_status()
        except TimeoutError:
            raise GuestDeadlineError(f"`{_shown(command)}` to end in the guest", deadline) from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            if self.is_open and time.monotonic() >= end:
                raise GuestDeadlineError(f"`{_shown(command)}` to end in the guest", deadline) from None
            raise self._lost(command, error) from error
        # A command that a signal ended has no status either, but its output has come to an end.
        if status == _NO_STATUS and (transport.saved_exception is not None or not channel.eof_received):
            raise GuestLostError(f"the SSH connection broke during `{_shown(command)}`")
        return Completed(command, status, output.decode(errors="replace"), errors.decode(errors="replace"))

    def _lost(self, command: str, error: Exception) -> GuestLostError:
        """Return what to say of ERROR, which kept COMMAND from its end; the guest may have refused one channel only."""
        why = str(error) or type(error).__name__
        if self.is_open:
            refused = isinstance(error, paramiko.ChannelException)
            what = "the guest refused an SSH channel for" if refused else "the SSH channel was closed during"
            return GuestLostError(f"{what} `{_shown(command)}` ({why}); the connection stands")
        return GuestLostError(f"the SSH connection broke during `{_shown(command)}` ({why})")

    def begin(self, command: str, *, terminal: bool = False, merged: bool = False) -> paramiko.Channel:
        """Start COMMAND and return its channel: on a TERMINAL of its own if wanted, both outputs MERGED into one.

        Raises GuestLostError when it cannot be started.
        """
        try:
            return self._start(command, _AUTH_DEADLINE, terminal=terminal, merged=merged)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(command, error) from error

    def _start(
        self, command: str, deadline: float, *, terminal: bool = False, merged: bool = False
    ) -> paramiko.Channel:
        """Return the channel of a COMMAND that the guest has started; raises what paramiko does."""
        end = time.monotonic() + deadline
        channel = self._transport.open_session(timeout=deadline)
        channel.set_combine_stderr(merged)
        # paramiko itself waits for ever for a guest that has opened the channel and stands still since.
        alarm = threading.Timer(max(0.0, end - time.monotonic()), channel.close)
        alarm.daemon = True
        alarm.start()
        try:
            if terminal:
                channel.get_pty("vt100")
            channel.exec_command(command)
        finally:
            alarm.cancel()
        return channel

    def _sftp(self) -> paramiko.SFTPClient:
        """Return an SFTP session in which each step has to come within `sftp_patience`."""
        end = time.monotonic() + self.sftp_patience
        channel = self._transport.open_session(timeout=self.sftp_patience)
        channel.settimeout(self.sftp_patience)
        # paramiko itself waits for ever for a guest that has opened the channel and stands still since.
        alarm = threading.Timer(max(0.0, end - time.monotonic()), channel.close)
        alarm.daemon = True
        alarm.start()
        try:
            channel.invoke_subsystem("sftp")
            return paramiko.SFTPClient(channel)
        except (paramiko.SSHException, EOFError, OSError):
            if self.is_open and time.monotonic() >= end:
                raise TimeoutError from None
            raise
        finally:
            alarm.cancel()

    @contextlib.contextmanager
    def sftp(self, doing: str) -> Iterator[paramiko.SFTPClient]:
        """Give an SFTP session for DOING something, `writing /tmp/x`.

        Raises UsageError for a path that does not exist or that the user may not touch, DeadlineError when it stands
        still, GuestLostError when it breaks.
        """
        try:
            with contextlib.closing(self._sftp()) as session:
                yield session
        except FileNotFoundError:
            raise UsageError(f"{doing} in the guest: there is no such file or folder") from None
        except PermissionError:
            raise UsageError(f"{doing} in the guest: permission denied") from None
        except TimeoutError:
            raise DeadlineError(f"SFTP to go on {doing} in the guest", self.sftp_patience) from None
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise GuestLostError(f"SFTP failed {doing} in the guest ({error})") from error

    def upload(self, content: bytes | Path, remote: str, *, mode: int = 0o644) -> None:
        """Write a file in the guest by SFTP; raises what sftp() raises."""
        with self.sftp(f"writing {remote}") as session:
            if isinstance(content, Path):
                session.put(str(content), remote, confirm=True)
            else:
                session.putfo(io.BytesIO(content), remote, confirm=True)
            session.chmod(remote, mode)

    def download(self, remote: str) -> bytes:
        """Read a file of the guest by SFTP; raises what sftp() raises."""
        with self.sftp(f"reading {remote}") as session, session.open(remote, "rb") as stream:
            return bytes(stream.read())

    def open(self, command: str) -> ChannelTransport:
        """Start COMMAND and return the two-way byte stream to it."""
        try:
            channel = self._start(command, _AUTH_DEADLINE)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise GuestLostError(f"`{command}` could not be started in the guest ({error})") from error
        return ChannelTransport(channel)

    def shell_channel(self) -> paramiko.Channel:
        """Return a login shell on a terminal, for a person."""
        return self._client.invoke_shell(term="vt100")

    def close(self) -> None:
        """Hang up."""
        self._client.close()


class ChannelTransport:
    """An SSH channel as a plain byte stream."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def read(self, size: int) -> bytes:
        """Return up to SIZE bytes, b"" at the end of the stream."""
        try:
            return self._channel.recv(size)
        except (OSError, EOFError, paramiko.SSHException):
            return b""

    def write(self, data: bytes) -> None:
        """Send all of DATA; raises GuestLostError when the connection is gone."""
        try:
            self._channel.sendall(data)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise GuestLostError("the SSH connection to the guest is gone") from error

    def errors(self) -> str:
        """Return what the command has written to its standard error so far."""
        if not self._channel.recv_stderr_ready():
            return ""
        return self._channel.recv_stderr(65536).decode(errors="replace")

    def close(self) -> None:
        """Close the channel; the command sees the end of its input."""
        self._channel.close()

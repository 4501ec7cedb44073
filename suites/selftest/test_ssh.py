# SPDX-License-Identifier: BSD-2-Clause
"""Commands over SSH end, or their deadline does, whatever the guest makes of them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from harness.errors import DeadlineError, GuestDeadlineError
from harness.guests import ssh
from harness.guests.ssh import SshAccess, SshConnection

DEADLINE = 1.0


class Guest(paramiko.ServerInterface):
    """Lets everybody in, and makes of a command what its name says."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002 (the names are paramiko's)
        return "password"

    def check_auth_password(self, username: str, password: str) -> int:  # noqa: ARG002
        return int(paramiko.common.AUTH_SUCCESSFUL)

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return int(paramiko.common.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._execute, args=(channel, command.decode()), daemon=True).start()
        return True

    def _execute(self, channel: paramiko.Channel, command: str) -> None:
        with contextlib.suppress(OSError, EOFError):
            channel.recv(1)  # the end of the client's input
            if command == "drips":
                while not self.ended.wait(0.1):
                    channel.send(b".")
            channel.sendall(b"said")
            if command == "ends without a status":
                channel.shutdown_write()
                self.ended.wait()
            channel.send_exit_status(3)
            channel.close()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[SshConnection]:
    guest, key = Guest(), paramiko.RSAKey.generate(2048)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            line, _ = listener.accept()
            transport = paramiko.Transport(line)
            transport.add_server_key(key)
            transport.start_server(server=guest)

        threading.Thread(target=serve, daemon=True).start()
        access = SshAccess("root", tmp_path / "no key", f"{key.get_name()} {key.get_base64()}", "secret")
        made = SshConnection(listener.getsockname()[1], access)
        made.connect(20.0)
        try:
            yield made
        finally:
            guest.ended.set()
            made.close()


def test_a_command_that_ends_is_told_with_all_it_said(connection: SshConnection) -> None:
    done = connection.run("ends", deadline=20.0)
    assert (done.status, done.output) == (3, "said")


@pytest.mark.parametrize("command", ["drips", "ends without a status"])
@pytest.mark.parametrize("watched", [True, False])
def test_one_that_never_ends_is_waited_for_until_its_deadline(
    connection: SshConnection, command: str, watched: bool
) -> None:
    began = time.monotonic()
    with pytest.raises(GuestDeadlineError, match=f"`{command}` to end in the guest"):
        connection.run(command, deadline=DEADLINE, watch=(lambda: None) if watched else None)
    assert time.monotonic() - began < DEADLINE + 10


@pytest.mark.parametrize("heard", [True, False])
def test_a_try_that_was_lost_is_given_up_when_there_is_news_of_the_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    monkeypatch.setattr(ssh, "_FIRST_BANNER_WAIT", 60.0)
    guest, key, lost = Guest(), paramiko.RSAKey.generate(2048), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            unanswered, _ = listener.accept()
            lost.set()
            with contextlib.suppress(OSError), unanswered:
                transport = paramiko.Transport(listener.accept()[0])
                transport.add_server_key(key)
                transport.start_server(server=guest)

        threading.Thread(target=serve, daemon=True).start()
        access = SshAccess("root", tmp_path / "no key", f"{key.get_name()} {key.get_base64()}", "secret")
        made = SshConnection(listener.getsockname()[1], access)
        try:
            with contextlib.nullcontext() if heard else pytest.raises(DeadlineError):
                made.connect(10.0 if heard else 1.0, news=lambda: heard and lost.is_set())
            assert made.is_open == heard
        finally:
            guest.ended.set()
            made.close()
            listener.shutdown(socket.SHUT_RDWR)

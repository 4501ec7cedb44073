# SPDX-License-Identifier: BSD-2-Clause
"""A person at a guest: this terminal becomes the guest's console or a login shell, until Ctrl-]."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import shutil
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from harness.errors import GuestLostError, UsageError
from harness.guests.console import Console
from harness.guests.ssh import SshConnection
from harness.visible import visible

if TYPE_CHECKING:
    import paramiko

_QUIT = b"\x1d"  # Ctrl-], as in telnet(1)
_LONGEST_SILENCE = 3600.0  # seconds
_TURN, _PATIENT_TURN = 1.0, 0.05  # s to wait for something to do; the guest does not say when it has room again
_CHUNK = 1 << 16
_NO_STATUS = 255  # as ssh(1) says where a command was killed, or the connection broke


def attach_console(console: Console, start: int) -> None:
    """Show CONSOLE from position START on and hand it the keyboard; raises UsageError without a terminal."""
    done = threading.Event()

    def show(position: int) -> None:
        while not done.is_set() and console.await_more(position, _LONGEST_SILENCE):
            new = console.text(position)
            if not new or done.is_set():
                return
            position += len(new)
            os.write(sys.stdout.fileno(), new.encode())

    with _raw_terminal():
        threading.Thread(target=show, args=(start,), daemon=True).start()
        try:
            _type(lambda typed: console.send(typed.decode("latin-1")), lambda: console.closed)
        finally:
            done.set()


def attach_command(channel: paramiko.Channel, watch: Callable[[], None] = lambda: None) -> int:
    """Let the command on CHANNEL have standard input, output and error; return its exit status when it has ended.

    Scripts get what the guest wrote, as it comes; a terminal gets nothing that it would obey.  WATCH is called every
    second and may raise.  Raises GuestLostError when the connection breaks.
    """
    writers = [_writer(sys.stdout), _writer(sys.stderr)]
    readers = [(channel.recv_ready, channel.recv), (channel.recv_stderr_ready, channel.recv_stderr)]
    source: int | None = sys.stdin.fileno() if sys.stdin is not None and not sys.stdin.closed else None
    typed = b""
    if source is None:
        channel.shutdown_write()
    while True:
        # Only what the guest has room for is read here: what it does not want stays where it is.
        wants = source is not None and not typed and channel.send_ready()
        awaited: list[paramiko.Channel | int] = [channel, source] if wants and source is not None else [channel]
        select.select(awaited, [], [], _TURN if not typed else _PATIENT_TURN)
        ended = channel.closed or (channel.exit_status_ready() and channel.eof_received)
        for write, (ready, receive) in zip(writers, readers, strict=True):
            while ready():
                write(receive(_CHUNK), False)
        if ended:
            break
        if source is not None and wants and select.select([source], [], [], 0)[0]:
            typed = os.read(source, _CHUNK)
            if not typed:
                source = None
                channel.shutdown_write()
        if typed and channel.send_ready():
            with contextlib.suppress(OSError):  # it has closed its input, as head(1) does
                typed = typed[channel.send(typed) :]
        watch()
    for write in writers:
        write(b"", True)
    status = channel.recv_exit_status()
    if status < 0:
        watch()
        if not channel.get_transport().is_active():
            raise GuestLostError("the SSH connection broke during the command")
    return status if status >= 0 else _NO_STATUS


def _writer(stream: TextIO) -> Callable[[bytes, bool], None]:
    """Return what writes bytes of the guest to STREAM; its second argument says that no more will come."""
    if not stream.isatty():

        def pass_on(data: bytes, _last: bool) -> None:
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()

        return pass_on
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def show(data: bytes, last: bool) -> None:
        stream.write(visible(decoder.decode(data, last).replace("\r\n", "\n")))
        stream.flush()

    return show


def attach_shell(connection: SshConnection) -> None:
    """Give a login shell; raises UsageError without a terminal."""
    channel = connection.shell_channel()
    columns, rows = shutil.get_terminal_size()
    channel.resize_pty(columns, rows)

    def show() -> None:
        while data := channel.recv(65536):
            os.write(sys.stdout.fileno(), data)

    with _raw_terminal():
        threading.Thread(target=show, daemon=True).start()
        _type(channel.sendall, lambda: channel.closed or channel.exit_status_ready())


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    if not sys.stdin.isatty():
        raise UsageError("this needs a terminal; in a script give a COMMAND")
    saved = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)


def _type(send: Callable[[bytes], object], ended: Callable[[], bool]) -> None:
    """Hand the keyboard to SEND until Ctrl-] or ENDED."""
    while not ended():
        if not select.select([sys.stdin], [], [], 0.1)[0]:
            continue
        typed = os.read(sys.stdin.fileno(), 1024)
        if not typed or _QUIT in typed:
            return
        send(typed)

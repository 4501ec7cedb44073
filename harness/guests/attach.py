# SPDX-License-Identifier: BSD-2-Clause
"""A person at a guest: this terminal becomes the guest's console or a login shell, until Ctrl-]."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator

from harness.errors import UsageError
from harness.guests.console import Console
from harness.guests.ssh import SshConnection

_QUIT = b"\x1d"  # Ctrl-], as in telnet(1)
_LONGEST_SILENCE = 3600.0  # seconds


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

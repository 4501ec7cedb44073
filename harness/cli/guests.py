"""Commands that give a person a booted guest: shell, console."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator

from harness.cli.options import add_command, add_target_options, chosen_size, chosen_target
from harness.errors import ExitCode, UsageError
from harness.guests.guest import Guest
from harness.guests.targets import resolve_target
from harness.report.terminal import make_console, progress_display
from harness.store import Store

_DAY = 86400.0
_QUIT = b"\x1d"  # Ctrl-], as in telnet(1)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add shell and console."""
    parser = add_command(
        commands,
        "shell",
        "Boot a target and run COMMAND in it over SSH, or give a login shell.",
        "dfly-harness shell --kernel stock 'ps ax; sysctl kern.maxproc'",
    )
    add_target_options(parser)
    parser.add_argument(
        "shell_command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run; its exit status is ours"
    )
    parser.set_defaults(action=_shell)
    parser = add_command(
        commands,
        "console",
        "Boot a target and attach to its serial console; Ctrl-] leaves and stops the machine.",
        "dfly-harness console --kernel stock --kenv boot_verbose=YES",
    )
    add_target_options(parser)
    parser.set_defaults(action=_console)


@contextlib.contextmanager
def _booted(options: argparse.Namespace) -> Iterator[Guest]:
    store = Store()
    size, choice = chosen_size(options), chosen_target(options)
    with progress_display("guest") as progress:
        target = resolve_target(choice, store, progress)
        make_console().print(target.label, style="bold", markup=False)
        guest = Guest(target, store, size)
        guest.boot(progress)
    with guest:
        yield guest


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


def _shell(options: argparse.Namespace) -> int:
    command = " ".join(options.shell_command).removeprefix("-- ")
    if not command and not sys.stdin.isatty():
        raise UsageError("a login shell needs a terminal; in a script give a COMMAND")
    with _booted(options) as guest:
        if command:
            done = guest.ssh.run(command, deadline=_DAY)
            sys.stdout.write(done.output)
            sys.stderr.write(done.errors)
            return done.status
        channel = guest.ssh.shell_channel()
        columns, rows = shutil.get_terminal_size()
        channel.resize_pty(columns, rows)

        def show() -> None:
            while data := channel.recv(65536):
                os.write(sys.stdout.fileno(), data)

        with _raw_terminal():
            threading.Thread(target=show, daemon=True).start()
            _type(channel.sendall, lambda: channel.closed or channel.exit_status_ready())
    return ExitCode.PASSED


def _console(options: argparse.Namespace) -> int:
    if not sys.stdin.isatty():
        raise UsageError("the console needs a terminal; in a script use: dfly-harness shell COMMAND")
    with _booted(options) as guest:
        console = guest.console
        make_console().print("attached; Ctrl-] leaves and stops the machine", markup=False)
        os.write(sys.stdout.fileno(), console.text().encode())

        def show(position: int) -> None:
            while console.await_more(position, 3600.0):
                new = console.text(position)
                if not new:
                    return
                position += len(new)
                os.write(sys.stdout.fileno(), new.encode())

        with _raw_terminal():
            threading.Thread(target=show, args=(console.position,), daemon=True).start()
            _type(lambda typed: console.send(typed.decode("latin-1")), lambda: console.closed)
    return ExitCode.PASSED

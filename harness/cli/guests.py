# SPDX-License-Identifier: BSD-2-Clause
"""Commands that give a person a guest: shell, console, hold, copy."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from harness.cli.options import begin_command
from harness.errors import ExitCode, UsageError
from harness.guests.attach import attach_command, attach_console, attach_shell
from harness.guests.bootcheck import boot
from harness.guests.copying import copy_in, copy_out, put_all
from harness.guests.guest import Guest
from harness.guests.held import GUEST, connected, held, held_names
from harness.guests.options import PUT, TargetOptions
from harness.guests.targets import resolve_target
from harness.plugin.hold import ways_in
from harness.processes.session import Session, Warmth
from harness.report.terminal import make_console, progress_display
from harness.store import Store

_SILENCE = 3600.0  # s after which a guest that says nothing is looked at all the same


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add shell, console, hold and copy."""
    parser = begin_command(
        commands,
        "shell",
        "dfly-harness shell --kernel stock --put loop.sh 'sh /tmp/loop.sh; sysctl kern.maxproc'",
    )
    _declare(parser)
    parser.add_argument("--cold", action="store_true", help="boot from power-on instead of resuming the warm state")
    parser.add_argument("--guest", metavar="NAME", help="in the guest that `hold` holds under this name")
    parser.add_argument(
        "shell_command",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="what to run: it has our standard input, and its exit status is ours",
    )
    parser.set_defaults(action=_shell)
    parser = begin_command(
        commands,
        "console",
        "dfly-harness console --cold --kernel stock --kenv boot_verbose=YES",
    )
    TargetOptions.declare(parser.add_argument)
    parser.add_argument("--cold", action="store_true", help="boot from power-on, and show that, too")
    parser.set_defaults(action=_console, put=[])
    parser = begin_command(
        commands,
        "hold",
        "dfly-harness hold --kernel stock sh -c 'dfly-harness copy a.out guest:/root/ && dfly-harness shell --guest"
        " guest /root/a.out'",
    )
    _declare(parser)
    parser.add_argument("--cold", action="store_true", help="boot from power-on instead of resuming the warm state")
    parser.add_argument("--name", metavar="NAME", default=GUEST, help=f"what others call it (default: {GUEST})")
    parser.add_argument(
        "host_command", nargs=argparse.REMAINDER, metavar="COMMAND", help="runs on this host; its exit status is ours"
    )
    parser.set_defaults(action=_hold)
    parser = begin_command(
        commands,
        "copy",
        "dfly-harness copy a.out data guest:/root/",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="of this host, or GUEST:PATH; the last one is where to"
    )
    parser.set_defaults(action=_copy)


def _declare(parser: argparse.ArgumentParser) -> None:
    TargetOptions.declare(parser.add_argument)
    PUT.declare(parser.add_argument)


@contextlib.contextmanager
def _booted(options: argparse.Namespace) -> Iterator[Guest]:
    store, given = Store(), TargetOptions.read(options)
    with progress_display("guest") as progress:
        target = resolve_target(given.choice, store, progress)
        make_console().print(target.label, style="bold", markup=False, soft_wrap=True)
        guest = Guest(target, store, given.size)
        boot(guest, progress)
    with guest:
        yield guest


@contextlib.contextmanager
def _ready(options: argparse.Namespace) -> Iterator[Guest]:
    """Give a guest as tests find it, from the target's warm state unless it is to be cold, with what is to be put."""
    store, given = Store(), TargetOptions.read(options)
    # A warm state for each port that somebody asks for once would fill the disk.
    if options.cold or given.ssh_port:
        with _booted(options) as guest:
            put_all(guest.ssh, options.put)
            yield guest
        return
    with progress_display("guest") as progress:
        target = resolve_target(given.choice, store, progress)
        make_console().print(target.label, style="bold", markup=False, soft_wrap=True)
        # SSH is what everybody who asks for a guest uses: it is loaded while the guest's state is.
        threading.Thread(target=importlib.import_module, args=("paramiko",), name="load-ssh", daemon=True).start()
        session = Session.resume(Warmth(target, store, given.size), progress)
    with session:
        put_all(session.guest.ssh, options.put)
        yield session.guest


def _shell(options: argparse.Namespace) -> int:
    command = " ".join(options.shell_command).removeprefix("-- ")
    if not command and not sys.stdin.isatty():
        raise UsageError("a login shell needs a terminal; in a script give a COMMAND")
    if options.guest is not None:
        if TargetOptions.read(options) != TargetOptions() or options.cold:
            raise UsageError("--guest names a guest that runs: leave out what chooses one")
        with connected(Store(), options.guest) as connection:
            put_all(connection, options.put)
            if command:
                return attach_command(connection.begin(command))
            attach_shell(connection)
        return ExitCode.PASSED
    with _ready(options) as guest:
        if command:
            return attach_command(guest.ssh.begin(command), guest.check)
        attach_shell(guest.ssh)
    return ExitCode.PASSED


def _console(options: argparse.Namespace) -> int:
    if not sys.stdin.isatty():
        raise UsageError("the console needs a terminal; in a script use: dfly-harness shell COMMAND")
    with _ready(options) as guest:
        make_console().print("attached; Enter for a prompt, Ctrl-] leaves and stops the machine", markup=False)
        attach_console(guest.console, 0)
    return ExitCode.PASSED


def _hold(options: argparse.Namespace) -> int:
    words = [word for number, word in enumerate(options.host_command) if (number, word) != (0, "--")]
    console = make_console()
    with _ready(options) as guest, held(guest, Store(), options.name):
        if words:
            try:
                status = subprocess.run(words, check=False).returncode
            except OSError as error:
                raise UsageError(f"{words[0]}: {error.strerror}") from None
            return status if status >= 0 else 128 - status
        ways = (
            f"files    dfly-harness copy FILE {options.name}:PATH",
            f"look     dfly-harness debug --hold {options.name}",
            *ways_in(guest),
        )
        for way in (f"shell    dfly-harness shell --guest {options.name}", *ways):
            console.print(f"  {way.replace('(r first) ', '')}", markup=False, soft_wrap=True)
        console.print("held until Ctrl-C", markup=False)
        while True:  # until a signal, or the guest dies, which it says first
            guest.check()
            guest.console.await_more(guest.console.position, _SILENCE)


def _copy(options: argparse.Namespace) -> int:
    *sources, destination = options.paths
    store = Store()
    if not sources:
        raise UsageError("copy needs what to copy, and where to: dfly-harness copy FILE guest:PATH")
    from_guest, to_guest = [_split(path, store) for path in sources], _split(destination, store)
    if to_guest is not None and not any(from_guest):
        with connected(store, to_guest[0]) as connection:
            copy_in(connection, [Path(path) for path in sources], to_guest[1])
        return ExitCode.PASSED
    names = {part[0] for part in from_guest if part is not None}
    if to_guest is not None or None in from_guest or len(names) != 1:
        raise UsageError("copy goes from this host to one guest, or from one guest to this host")
    with connected(store, names.pop()) as connection:
        copy_out(connection, [part[1] for part in from_guest if part is not None], Path(destination))
    return ExitCode.PASSED


def _split(path: str, store: Store) -> tuple[str, str] | None:
    """Return guest and path, None for a path of this host: one that exists, or begins with a folder."""
    name, colon, rest = path.partition(":")
    if not colon or "/" in name or (name not in {GUEST, *held_names(store)} and Path(path).exists()):
        return None
    return name, rest

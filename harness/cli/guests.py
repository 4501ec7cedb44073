# SPDX-License-Identifier: BSD-2-Clause
"""Commands that give a person a booted guest: shell, console."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator

from harness.cli.options import add_command
from harness.errors import ExitCode, UsageError
from harness.guests.attach import attach_console, attach_shell
from harness.guests.bootcheck import boot
from harness.guests.guest import Guest
from harness.guests.options import TargetOptions
from harness.guests.targets import resolve_target
from harness.report.terminal import make_console, progress_display
from harness.store import Store
from harness.visible import visible

_DAY = 86400.0


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add shell and console."""
    parser = add_command(
        commands,
        "shell",
        "Boot a target and run COMMAND in it over SSH, or give a login shell.",
        "dfly-harness shell --kernel stock 'ps ax; sysctl kern.maxproc'",
    )
    TargetOptions.declare(parser.add_argument)
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
    TargetOptions.declare(parser.add_argument)
    parser.set_defaults(action=_console)


@contextlib.contextmanager
def _booted(options: argparse.Namespace) -> Iterator[Guest]:
    store, given = Store(), TargetOptions.read(options)
    with progress_display("guest") as progress:
        target = resolve_target(given.choice, store, progress)
        make_console().print(target.label, style="bold", markup=False)
        guest = Guest(target, store, given.size)
        boot(guest, progress)
    with guest:
        yield guest


def _shell(options: argparse.Namespace) -> int:
    command = " ".join(options.shell_command).removeprefix("-- ")
    if not command and not sys.stdin.isatty():
        raise UsageError("a login shell needs a terminal; in a script give a COMMAND")
    with _booted(options) as guest:
        if command:
            done = guest.ssh.run(command, deadline=_DAY)
            # Scripts get what the guest wrote; a terminal gets nothing that it would obey.
            sys.stdout.write(visible(done.output) if sys.stdout.isatty() else done.output)
            sys.stderr.write(visible(done.errors) if sys.stderr.isatty() else done.errors)
            return done.status
        attach_shell(guest.ssh)
    return ExitCode.PASSED


def _console(options: argparse.Namespace) -> int:
    if not sys.stdin.isatty():
        raise UsageError("the console needs a terminal; in a script use: dfly-harness shell COMMAND")
    with _booted(options) as guest:
        make_console().print("attached; Ctrl-] leaves and stops the machine", markup=False)
        attach_console(guest.console, 0)
    return ExitCode.PASSED

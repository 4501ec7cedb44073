# SPDX-License-Identifier: BSD-2-Clause
"""The machine of a failed test, kept as it is for a person: paused, with all ways into it (`--hold`)."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence

from harness.errors import HarnessError
from harness.guests.attach import attach_console, attach_shell
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import Guest
from harness.guests.held import held
from harness.store import Store
from harness.visible import visible

_KEYS = "r: run  p: pause  s: shell here  c: console here (Ctrl-] leaves)  Enter: go on with the tests > "
_CONSOLE_SHOWN = 2000  # characters


def hold(guest: Guest, test: str, why: Sequence[str] = ()) -> None:
    """Pause GUEST and talk with the person at standard input until they have seen enough; let it run then.

    They are told first in which way TEST failed and WHY, in a few lines.
    """
    guest.machine.pause()
    _say("")
    for line in why:
        _say(line)
    _say(f"The machine of {test} is paused.  From another terminal:")
    for way in ways_in(guest):
        _say(f"  {way}")
    name = f"test-{os.getpid()}"
    _say(f"  look     dfly-harness debug --hold {name}")
    try:
        with held(guest, Store(), name) as note:
            while (key := _ask()) != "":
                try:
                    _obey(guest, key, note)
                except HarnessError as error:
                    _say(f"  {error}")
    finally:
        guest.machine.resume()


def ways_in(guest: Guest) -> Iterator[str]:
    """Yield how to get at GUEST from elsewhere; ssh is answered while the machine runs only."""
    access = guest.target.access()
    try:
        port = guest.machine.host_port(22)
    except HarnessError as error:
        yield f"shell    {error}"
    else:
        key = shlex.quote(str(access.key))
        yield (
            f"shell    (r first) ssh -p {port} -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
            f" {access.user}@127.0.0.1"
        )
    yield f"console  tail -f {shlex.quote(str(guest.console.log))}"
    target = guest.target
    kernel = target.kernel if isinstance(target, DragonFlyTarget) else None
    symbols = ""
    if isinstance(target, DragonFlyTarget) and kernel is not None:
        symbols = f" {shlex.quote(str(target.store.blob(kernel.debug or kernel.elf)))}"
    yield f"gdb      gdb{symbols} -ex {shlex.quote(f'target remote {guest.machine.gdb_socket}')}"


def _obey(guest: Guest, key: str, note: Callable[[], None]) -> None:
    """Do what KEY asks for; NOTE has others told that the machine has been paused, or goes on."""
    if key in ("r", "s", "c"):
        guest.machine.resume()
        note()
    if key == "p":
        guest.machine.pause()
        note()
    elif key == "s":
        attach_shell(guest.ssh)
    elif key == "c":
        attach_console(guest.console, max(0, guest.console.position - _CONSOLE_SHOWN))
    elif key != "r":
        _say(f"  {key!r} is none of the keys")


def _ask() -> str:
    sys.stderr.write(_KEYS)
    sys.stderr.flush()
    return sys.stdin.readline().strip()  # nothing at the end of the input, too


def _say(text: str) -> None:
    sys.stderr.write(f"{visible(text)}\n")
    sys.stderr.flush()

# SPDX-License-Identifier: BSD-2-Clause
"""Guests that one command holds so that others can use them: where they are, by name."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import Guest
from harness.guests.ssh import SshAccess, SshConnection
from harness.store import Store

#: What a guest is called that got no other name.
GUEST = "guest"
_FOLDER = "held"
_CONNECT_DEADLINE = 30.0
_NONE = "none is held; in another terminal: dfly-harness hold"


@contextlib.contextmanager
def held(guest: Guest, store: Store, name: str) -> Iterator[Callable[[], None]]:
    """Let other commands find GUEST by NAME inside the block; raises UsageError for a name that is taken.

    Gives what is to be called when the machine has been paused, or goes on.
    """
    if not name or "/" in name or ":" in name or name.startswith("."):
        raise UsageError(f"{name!r} is no name for a guest")
    access = guest.target.access()
    about = {
        "port": guest.machine.host_port(22),
        "user": access.user,
        "key": str(access.key),
        "host_key": access.host_key,
        "target": guest.target.label,
        "pid": os.getpid(),
        "gdb": str(guest.machine.gdb_socket),
        **_files(guest),
    }
    file = store.folder(_FOLDER) / name
    with file.open("a+") as ours:

        def write() -> None:
            ours.truncate(0)
            ours.write(json.dumps({**about, "paused": not guest.machine.runs}))
            ours.flush()

        try:
            fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"there is a guest called {name} already: --name says another name") from None
        try:
            write()
            yield write
        finally:
            file.unlink(missing_ok=True)


def _files(guest: Guest) -> dict[str, str]:
    """Return the blobs of the kernel's file and debug file, as far as they are known."""
    target = guest.target
    kernel = target.kernel if isinstance(target, DragonFlyTarget) else None
    return {} if kernel is None else {"elf": kernel.elf, "debug": kernel.debug or ""}


@dataclass(frozen=True)
class HeldMachine:
    """What of a held guest can be looked into: its debugger's socket, the blobs of its kernel, what it is.

    And whether it is paused: QEMU's gdb stub does not tell.
    """

    gdb: Path
    elf: str
    debug: str
    target: str
    paused: bool


def held_machine(store: Store, name: str = "") -> HeldMachine:
    """Return the machine of the guest held as NAME, of the only one where no name is given.

    Raises UsageError where there is none, or several.
    """
    names = held_names(store)
    if name and name not in names:
        raise UsageError(f"there is no guest called {name} ({', '.join(names) or _NONE})")
    if not name and len(names) != 1:
        raise UsageError(f"which guest? {', '.join(names)}" if names else _NONE)
    file = store.folder(_FOLDER) / (name or names[0])
    try:
        about = json.loads(file.read_text())
        elf, debug = about.get("elf", ""), about.get("debug", "")
        return HeldMachine(Path(about["gdb"]), elf, debug, about["target"], about["paused"])
    except (OSError, ValueError, KeyError, TypeError):
        raise HarnessError(f"the guest called {file.name} is not ready, or has just gone") from None


def held_names(store: Store) -> list[str]:
    """Return the names of the guests that are held now."""
    return sorted(file.name for file in store.folder(_FOLDER).iterdir() if _is_held(file))


def _is_held(file: Path) -> bool:
    """Tell whether the command lives that wrote FILE: it holds its lock."""
    with contextlib.suppress(FileNotFoundError), file.open() as theirs:
        try:
            fcntl.flock(theirs, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def connected(store: Store, name: str) -> Iterator[SshConnection]:
    """Give a connection to the guest held as NAME; raises UsageError where there is none."""
    file = store.folder(_FOLDER) / name
    if not _is_held(file):
        names = ", ".join(held_names(store)) or _NONE
        raise UsageError(f"there is no guest called {name} ({names})")
    try:
        about = json.loads(file.read_text())
        access = SshAccess(about["user"], Path(about["key"]), about["host_key"])
        port = int(about["port"])
    except (OSError, ValueError, KeyError, TypeError):
        raise HarnessError(f"the guest called {name} is not ready, or has just gone") from None
    connection = SshConnection(port, access)
    try:
        connection.connect(_CONNECT_DEADLINE)
        yield connection
    finally:
        connection.close()

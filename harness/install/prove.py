# SPDX-License-Identifier: BSD-2-Clause
"""Candidates for a base image on trial: booted from their own disk, entered, examined, shut down in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from harness.errors import GuestLostError, HarnessError
from harness.guests.console import Console
from harness.guests.ssh import SshAccess, SshConnection, offered_logins
from harness.install.stages import Stages
from harness.machine.description import MachineDescription
from harness.machine.qemu import Machine
from harness.store import Store

# Under TCG a full system takes minutes to start its services.
BOOT_DEADLINE = 1200.0
_SHUTDOWN_DEADLINE = 300.0
_COMMAND_DEADLINE = 180.0
_WITH_PASSWORD = frozenset({"password", "keyboard-interactive", "none"})

_EXAMINATION = """
echo "version=$(sysctl -n kern.version | head -1)"
echo "osreldate=$(sysctl -n kern.osreldate)"
echo "uid=$(id -u)"
echo "root=$(mount | sed -n 's,^\\([^ ]*\\) on / (\\([a-z0-9]*\\).*,\\2:\\1,p' | head -1)"
for cc in /usr/bin/cc /usr/local/bin/cc; do
    [ -x $cc ] && { echo "cc=$($cc --version 2>&1 | head -1)"; break; }
done
for server in /usr/libexec/sftp-server; do [ -x $server ] && echo "sftp=$server"; done
true
"""


class Running(Protocol):
    """A machine that has been started, and its console; Machine and Console together are one."""

    @property
    def console(self) -> Console:
        """The first serial line."""

    def check(self) -> None:
        """Raise GuestLostError when the machine has ended."""

    def host_port(self, guest_port: int) -> int:
        """Return the port on 127.0.0.1 that leads to GUEST_PORT."""

    def await_end(self, deadline: float) -> None:
        """Wait until the machine switches itself off."""


#: Starts a machine; it is stopped when the context is left.
Launch = Callable[[MachineDescription], AbstractContextManager[Running]]


class _Started:
    """A Machine with its Console."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.console = Console(machine.serial[0], machine.folder / "console.log")
        self.check = machine.check
        self.host_port = machine.host_port
        self.await_end = machine.await_end


def launcher(store: Store) -> Launch:
    """Return what starts QEMU for real."""

    @contextlib.contextmanager
    def launch(description: MachineDescription) -> Iterator[Running]:
        with Machine(description, store) as machine:
            machine.start()
            yield _Started(machine)

    return launch


@dataclass(frozen=True)
class Findings:
    """What an examination found out: `root` as the kernel was told it, `compiler` empty where there is none."""

    version: str
    osreldate: int
    uid: int
    root: str
    compiler: str
    sftp: bool


def examine(ssh: SshConnection) -> Findings:
    """Look around in a guest; raises HarnessError when it is not DragonFly."""
    # The user's shell may be csh.
    done = ssh.run("/bin/sh -c '" + _EXAMINATION.replace("'", "'\\''") + "'", deadline=_COMMAND_DEADLINE)
    found = dict(line.split("=", 1) for line in done.output.splitlines() if "=" in line)
    if not found.get("version", "").startswith("DragonFly"):
        said = found.get("version") or done.errors.strip() or "nothing"
        raise HarnessError(f"this is no DragonFly system: kern.version says {said!r}")
    filesystem, _, device = found.get("root", "").partition(":")
    return Findings(
        version=found["version"].strip(),
        osreldate=int(found.get("osreldate", "0") or 0),
        uid=int(found.get("uid", "-1") or -1),
        root=f"{filesystem}:{device.removeprefix('/dev/')}" if device else "",
        compiler=found.get("cc", ""),
        sftp="sftp" in found,
    )


def require_no_passwords(port: int, user: str) -> None:
    """Raise HarnessError when the guest would let USER in with a password, or with nothing."""
    if left := offered_logins(port, user) & _WITH_PASSWORD:
        raise HarnessError(f"the system still offers to log in with {' and '.join(sorted(left))}")


@dataclass(frozen=True)
class Proof:
    """A candidate's findings and the host key it showed at this boot."""

    findings: Findings
    host_key: str


def shut_down(running: Running, ssh: SshConnection, stages: Stages, *, as_root: str = "") -> None:
    """Switch the guest off in order, so that its file systems are clean; AS_ROOT goes before a command for root."""
    with stages.stage("shut down", running.console):
        with contextlib.suppress(GuestLostError):  # the connection may end before the command does
            ssh.run(f"{as_root}/bin/sh -c 'sync; /sbin/shutdown -p now'", deadline=_COMMAND_DEADLINE)
        running.await_end(_SHUTDOWN_DEADLINE)


def prove(
    description: MachineDescription,
    access: SshAccess,
    stages: Stages,
    launch: Launch,
    check: Callable[[Findings], None],
    *,
    boot_deadline: float = BOOT_DEADLINE,
) -> Proof:
    """Boot a candidate from its own disk and have CHECK look at what was found; shut it down in order.

    Raises StageError when it does not boot, refuses our key, accepts passwords or displeases CHECK.
    """
    with launch(description) as running:
        ssh = SshConnection(running.host_port(22), access)
        with contextlib.closing(ssh):
            with stages.stage("first boot", running.console):
                ssh.connect(boot_deadline, running.check)
            with stages.stage("check", running.console):
                require_no_passwords(running.host_port(22), access.user)
                findings = examine(ssh)
                if findings.uid != 0:
                    raise HarnessError(f"user {access.user} is not root there")
                check(findings)
                host_key = ssh.host_key
            shut_down(running, ssh, stages)
    return Proof(findings, host_key)

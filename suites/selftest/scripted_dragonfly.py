# SPDX-License-Identifier: BSD-2-Clause
"""A DragonFly machine as it looks from its serial port, played by a thread: exact words, lost characters and all.

It plays two machines of a build: the live CD up to the end of our install script, and the installed system's first
boot, whose SSH server is a real one (paramiko's) with made-up answers.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED
from paramiko.sftp import SFTP_OK

from harness.errors import DeadlineError, GuestLostError
from harness.guests.console import Console
from harness.machine.description import MachineDescription
from harness.machine.qemu import qemu_img

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True)
class Era:
    """What differs between releases on the console."""

    name: str
    version: str
    years: str
    speed: int  # bits per second
    root_in_fstab: bool = True  # of the CD: the loader tells the kernel, whether or not the prompt said boot_cdrom


ERAS = {
    "2017": Era("2017", "v4.8.0-RELEASE", "2003-2017", 9600),
    "2025": Era("2025", "v6.4.2-RELEASE", "2003-2025", 115200),
    "2026": Era("2026", "v6.5.0.1522.gf86fc-DEVELOPMENT", "2003-2026", 115200, root_in_fstab=False),
}

STEPS = ("partition", "format", "copy", "configure", "unmount")

MENU = """ 1. Boot DragonFly [kernel]
 2. Boot DragonFly in Safe Mode
 3. Boot DragonFly without AHCI
 4. Boot DragonFly without ACPI
 s. Boot DragonFly in Single User mode
 v. Boot DragonFly with verbose messages
 9. Escape to loader prompt (also ESC)
 R. Reboot
"""
KERNEL = """Copyright (c) {years} The DragonFly Project.
Copyright (c) 1992-2003 The FreeBSD Project.
Copyright (c) 1979, 1980, 1983, 1986, 1988, 1989, 1991, 1992, 1993, 1994
\tThe Regents of the University of California. All rights reserved.
DragonFly {version} #0: Sun Jan  1 00:00:00 UTC 2017
sio0: type 16550A, console
CAM: finished configuring all busses
"""
NO_ROOT = """Mounting root from cd9660:/dev/cd0
Root mount failed: 6
Manual root filesystem specification:
  <fstype>:<device>  Specify root (e.g. ufs:da0s1a)
  ?                  List valid disk boot devices
  panic              Just panic
  abort              Abort manual input
mountroot> """
LOGIN = """
Welcome to DragonFly!

To start the installer, login as 'installer'.  To just get a shell prompt,
login as 'root'.

DragonFly/x86_64 (Amnesiac) (ttyd0)

login: """
PANIC = """panic: assertion "fdp != NULL" failed in fdfree at /usr/src/sys/kern/kern_descrip.c:2070
cpuid = 0
Trace beginning at frame 0xffffffe04a8b3790
Debugger("panic")
Stopped at      Debugger+0x74:   movb    $0,0xbde5b9(%rip)
db> """


@dataclass
class Script:
    """How this machine behaves.

    `fail` names the point where it goes wrong (see Live and Installed); `lose` decides from the number of a character
    typed at the loader whether it gets lost; `deaf_menu` is how many menu keys get lost.
    """

    era: Era = ERAS["2025"]
    fail: str = ""
    lose: Callable[[int], bool] = lambda _: False
    deaf_menu: int = 0
    countdown: int = 60
    root: str = "ufs:/dev/vbd0s1a"
    seen: list[str] = field(default_factory=list)


class _Ended(Exception):  # noqa: N818 (the way out of the play, not an error)
    """The machine switches itself off."""


class Live:
    """The live CD.

    Points of failure: silent, boots alone, no echo, unknown once, no kernel, kernel panic, no root, single user,
    no pfi, mute script, `STEP fails`, `STEP hangs`, `STEP dies`, `STEP panics`, halted, hangs at the end, panics at the
    end.
    """

    def __init__(self, line: socket.socket, script: Script) -> None:
        self._line = line
        self._script = script
        self._typed = 0
        self._variables: dict[str, str] = {}

    def play(self) -> None:
        """Run until the machine ends; a machine that hangs keeps its line open."""
        with contextlib.suppress(OSError, ValueError):  # select() calls a closed line a bad value
            try:
                self._run()
            except _Ended:
                self._line.close()

    def _say(self, text: str) -> None:
        data = text.replace("\n", "\r\n").encode()
        for at in range(0, len(data), 16):  # as a UART's FIFO would
            self._line.sendall(data[at : at + 16])
            time.sleep(16 * 10 / self._script.era.speed / 4)

    def _key(self, seconds: float | None = None) -> str:
        if not select.select([self._line], [], [], seconds)[0]:
            return ""
        if not (data := self._line.recv(1)):
            raise OSError("hung up")
        return data.decode("latin-1")

    def _hang(self) -> None:
        while True:
            self._key()

    def _run(self) -> None:
        fail = self._script.fail
        if fail == "silent":
            self._hang()
        self._say("CD Loader 1.2\n\nBuilding the boot loader arguments\nConsole: internal video/keyboard\n")
        self._say("Console: serial port\nBIOS drive C: is disk0\nBIOS 639kB/1047424kB available memory\n\n" + MENU)
        if not self._menu():
            self._hang()  # the kernel talks to the video
        self._prompt()
        self._kernel()
        self._system()
        self._power_off()

    def _menu(self) -> bool:
        deaf = self._script.deaf_menu
        for left in range(self._script.countdown, 0, -1):
            self._say(f"\rBooting in {left} second{'s' if left > 1 else ''}... ")
            end = time.monotonic() + (0.02 if self._script.fail == "boots alone" else 1.0)
            while (wait := end - time.monotonic()) > 0:
                key = self._key(wait)
                if key in {"9", "\x1b"} and deaf > 0:
                    deaf -= 1
                elif key in {"9", "\x1b"} and self._script.fail != "boots alone":
                    return True
        return False

    def _prompt(self) -> None:
        self._say("\n\nType '?' for a list of commands, 'help' for more detailed help.\nOK ")
        fail = self._script.fail
        while True:
            line = self._read_line()
            self._script.seen.append(line)
            if fail == "unknown once" and len(self._script.seen) in {1, 3}:
                line = "x" + line
            match line.split():
                case ["set", setting] if "=" in setting:
                    name, _, value = setting.partition("=")
                    self._variables[name] = value
                case ["boot"]:
                    if fail == "no kernel":
                        self._say("can't load 'kernel'\n")
                    elif self._variables.get("console") != "comconsole":
                        self._hang()  # it boots, but on the video
                    else:
                        return
                case []:
                    pass
                case [word, *_]:
                    self._say(f"{word}: unknown command\n")
            self._say("OK ")

    def _read_line(self) -> str:
        """Do what libstand's ngets() does."""
        line = ""
        while True:
            key = self._key()
            self._typed += 1
            if self._script.lose(self._typed):
                continue
            if key in "\r\n":
                self._say("\n")
                return line
            if key in "\x15\x17":
                line = ""
                self._say("\n")
                continue
            line += key
            if self._script.fail != "no echo":
                self._say(key)

    def _kernel(self) -> None:
        era, fail = self._script.era, self._script.fail
        self._say("/boot/kernel/kernel text=0xa5f5b8 data=0x13a0c8+0x3aa8c0 syms=[0x8+0xe2b30+0x8+0xb1a66]\n")
        if fail == "kernel panic":
            self._say(PANIC)
            self._hang()
        self._say(KERNEL.format(years=era.years, version=era.version))

    def _system(self) -> None:
        fail = self._script.fail
        if fail == "no root":
            self._say(NO_ROOT)
            self._hang()
        if not (self._script.era.root_in_fstab or "boot_cdrom" in self._variables):
            self._say(NO_ROOT[NO_ROOT.index("Manual") :])
            self._hang()
        self._say("Mounting root from cd9660:cd0\n")
        if fail == "single user":
            self._say("Enter full pathname of shell or RETURN for /bin/sh: ")
            self._hang()
        self._say("Starting pfi...\nLooking for pfi.conf on /dev/acd0... not found\n")
        if fail == "no pfi":
            self._say(LOGIN)
            self._hang()
        self._say("Looking for pfi.conf on /dev/cd1... /dev/cd1 ok... found!\n")
        self._say("dfly-harness install: begin\n")
        if fail == "mute script":
            self._say(LOGIN)
            self._hang()
        for step in STEPS:
            self._say(f"dfly-harness install: stage {step}\nsome output of {step}\n")
            match fail.removeprefix(f"{step} "):
                case "fails":
                    self._say(f"dfly-harness install: failed at {step}: 'tool' ended with status 1\n")
                    raise _Ended
                case "hangs":
                    self._hang()
                case "dies":
                    raise _Ended
                case "panics":
                    self._say(PANIC)
                    self._hang()
        self._say("dfly-harness install: complete\n")

    def _power_off(self) -> None:
        match self._script.fail:
            case "halted":
                self._say("\nThe operating system has halted.\nPlease press any key to reboot.\n\n")
                self._key()
            case "hangs at the end":
                self._hang()
            case "panics at the end":
                self._say(PANIC)
                self._hang()
            case _:
                self._say("Uptime: 1m2s\nThe operating system has halted.\nPowering system off using ACPI\n")
        raise _Ended


class _Server(paramiko.ServerInterface):
    """Lets one key in, and offers what it is told to offer."""

    def __init__(self, system: Installed) -> None:
        self._system = system

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002 (the names are paramiko's)
        return self._system.logins

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:  # noqa: ARG002
        wanted = self._system.authorized_keys
        good = f"{key.get_name()} {key.get_base64()}" in wanted
        return AUTH_SUCCESSFUL if good else AUTH_FAILED

    def check_auth_password(self, username: str, password: str) -> int:  # noqa: ARG002
        good = "password" in self._system.logins and password == self._system.password
        return AUTH_SUCCESSFUL if good else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._system.execute, args=(channel, command.decode()), daemon=True).start()
        return True


class _Sink(paramiko.SFTPServerInterface):
    """Takes files and forgets them; only their size is remembered, for it is asked for."""

    def __init__(self, server: paramiko.ServerInterface, *args: object, **kwargs: object) -> None:
        super().__init__(server, *args, **kwargs)
        self._size = 0

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle:  # noqa: ARG002
        sink = self

        class Handle(paramiko.SFTPHandle):
            """An open file."""

            def write(self, offset: int, data: Buffer) -> int:
                sink._size = offset + len(memoryview(data))
                return SFTP_OK

        return Handle(flags)

    def stat(self, path: str) -> paramiko.SFTPAttributes:  # noqa: ARG002
        attributes = paramiko.SFTPAttributes()
        attributes.st_size = self._size
        return attributes

    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> int:  # noqa: ARG002
        return SFTP_OK


class Installed:
    """The installed system: console to `login:`, and SSH.

    Points of failure: boot hangs, boot panics, password login, no cc, other version, other root, not root, not
    DragonFly, shutdown hangs.
    """

    def __init__(self, line: socket.socket, script: Script, authorized_keys: str) -> None:
        self._line = line
        self._script = script
        self.authorized_keys = authorized_keys
        self.logins = "publickey,password" if script.fail == "password login" else "publickey"
        self.password = "hunter2"  # noqa: S105
        self.commands: list[str] = []
        self._host_key = paramiko.ECDSAKey.generate()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._transports: list[paramiko.Transport] = []
        self.ended = threading.Event()

    def play(self) -> None:
        """Boot, then serve SSH until the machine is switched off."""
        fail = self._script.fail
        with contextlib.suppress(OSError):
            self._line.sendall(b"F1 DF/FBSD\r\n\r\nDefault: F1 \r\n")
            if fail == "boot hangs":
                return
            kernel = KERNEL.format(years=self._script.era.years, version=self._script.era.version)
            self._line.sendall(kernel.replace("\n", "\r\n").encode())
            if fail == "boot panics":
                self._line.sendall(PANIC.replace("\n", "\r\n").encode())
                return
            self._line.sendall(b"Mounting root from ufs:vbd0s1a\r\n" + LOGIN.replace("\n", "\r\n").encode())
            while not self.ended.is_set():
                if not select.select([self._listener], [], [], 0.1)[0]:
                    continue
                connection, _ = self._listener.accept()
                transport = paramiko.Transport(connection)
                transport.add_server_key(self._host_key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Sink)
                self._transports.append(transport)
                with contextlib.suppress(paramiko.SSHException, EOFError):
                    transport.start_server(server=_Server(self))

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        """Answer a command that came over SSH."""
        channel.recv(1)  # the end of the client's input: it has seen that its request was granted
        self.commands.append(command)
        status = 0
        if "kern.version" in command:
            fail, version = self._script.fail, self._script.era.version
            version = "v1.0.0-RELEASE" if fail == "other version" else version
            system = "FreeBSD" if fail == "not DragonFly" else "DragonFly"
            answer = f"version={system} {version} #0: Sun Jan  1 2017\nosreldate=600402\n"
            answer += f"uid={1001 if fail == 'not root' else 0}\n"
            answer += f"root={'cd9660:/dev/cd0' if fail == 'other root' else self._script.root}\n"
            answer += "" if fail == "no cc" else "cc=cc (GCC) 8.3.0\n"
            channel.sendall(answer.encode())
        elif "shutdown -p now" in command and self._script.fail != "shutdown hangs":
            self.ended.set()
        with contextlib.suppress(OSError, EOFError):
            channel.send_exit_status(status)
            channel.close()

    def close(self) -> None:
        """Stop serving."""
        self.ended.set()
        for transport in self._transports:
            transport.close()
        self._listener.close()


class ScriptedRunning:
    """What harness.install.prove.Running asks for, without QEMU."""

    def __init__(self, console: Console, port: int, ended: Callable[[], bool]) -> None:
        self.console = console
        self._port = port
        self._ended = ended

    def check(self) -> None:
        """Complain when the machine is off."""
        if self._ended():
            raise GuestLostError("QEMU ended with status 0")

    def host_port(self, guest_port: int) -> int:
        """Return the SSH server's port."""
        assert guest_port == 22
        return self._port

    def await_end(self, deadline: float) -> None:
        """Wait until the machine is off."""
        end = time.monotonic() + deadline
        while not self._ended():
            if time.monotonic() > end:
                raise DeadlineError("the machine to switch itself off", deadline)
            time.sleep(0.01)


class ScriptedLaunch:
    """Launches scripted machines; `live` and `installed` are the scripts of the machines to come, the last one stays.

    `descriptions` are the machines asked for, in order.
    """

    def __init__(self, folder: Path, authorized_keys: str, live: list[Script], installed: list[Script]) -> None:
        self._folder = folder
        self._keys = authorized_keys
        self._live = live
        self._installed = installed
        self.descriptions: list[MachineDescription] = []
        self.systems: list[Installed] = []

    @contextlib.contextmanager
    def __call__(self, description: MachineDescription) -> Iterator[ScriptedRunning]:
        """Start the next machine: the live one where there are CDs."""
        self.descriptions.append(description)
        near, far = socket.socketpair()
        console = Console(near, self._folder / f"console-{len(self.descriptions)}.log")
        with near, far:
            if description.cdroms:
                script = self._live.pop(0) if len(self._live) > 1 else self._live[0]
                if not script.fail:
                    self._install(description)
                thread = threading.Thread(target=Live(far, script).play, daemon=True)
                thread.start()
                try:
                    yield ScriptedRunning(console, 0, lambda: not thread.is_alive())
                finally:
                    with contextlib.suppress(OSError):  # the play may have hung up first
                        near.shutdown(socket.SHUT_RDWR)
                    thread.join(5)
            else:
                script = self._installed.pop(0) if len(self._installed) > 1 else self._installed[0]
                system = Installed(far, script, self._keys)
                self.systems.append(system)
                threading.Thread(target=system.play, daemon=True).start()
                try:
                    yield ScriptedRunning(console, system.port, system.ended.is_set)
                finally:
                    system.close()
        console.join()

    def _install(self, description: MachineDescription) -> None:
        """Leave on the disk what an installed one begins with."""
        raw = self._folder / "installed.raw"
        content = bytearray(1 << 20)
        content[510:512] = b"\x55\xaa"
        raw.write_bytes(content)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", str(raw), str(description.disks[0].file))

# SPDX-License-Identifier: BSD-2-Clause
"""Guests: console, SSH, identity, panic and deadline, shown on the Linux control guest."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.errors import DeadlineError, GuestLostError, HarnessError
from harness.guests.console import Console
from harness.guests.control import ControlTarget
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import Guest, GuestHangError, KernelPanicError, MachineSize
from harness.guests.ssh import SshAccess
from harness.images.control import build_control_image
from harness.processes.session import Session, Warmth
from harness.store import Store


class TestConsole:
    """Against a socket in place of a machine."""

    @pytest.fixture
    def line(self, tmp_path: Path) -> Iterator[tuple[Console, socket.socket]]:
        """Return a console and the machine's end of its line."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield Console(ours, tmp_path / "log"), theirs

    def test_what_was_said_before_anybody_listened_is_matched(self, line: tuple[Console, socket.socket]) -> None:
        console, machine = line
        machine.sendall(b"boot\r\nlogin: ")
        assert console.expect(["password: ", "login: "], awaited="a prompt", deadline=30) == 1

    def test_a_match_may_come_in_pieces(self, line: tuple[Console, socket.socket]) -> None:
        console, machine = line
        for piece in (b"lo", b"gi", b"n: "):
            machine.sendall(piece)
        assert console.expect(["login: "], awaited="a prompt", deadline=30) == 0

    def test_a_deadline_names_what_was_awaited_and_shows_the_last_lines(
        self, line: tuple[Console, socket.socket]
    ) -> None:
        console, machine = line
        machine.sendall(b"one\r\ntwo\r\n")
        assert console.await_more(9, 30), "all ten characters to be recorded"
        with pytest.raises(DeadlineError, match=r"(?s)waited 0.3 s for the prompt, in vain.*one.*two"):
            console.expect(["login: "], awaited="the prompt", deadline=0.3)

    def test_a_machine_that_hangs_up_is_noticed(self, line: tuple[Console, socket.socket]) -> None:
        console, machine = line
        machine.close()
        with pytest.raises(GuestLostError, match="closed while waiting for the prompt"):
            console.expect(["login: "], awaited="the prompt", deadline=30)

    def test_a_watcher_can_end_the_wait(self, line: tuple[Console, socket.socket]) -> None:
        def watch() -> None:
            raise HarnessError("enough")

        with pytest.raises(HarnessError, match="enough"):
            line[0].expect(["login: "], awaited="the prompt", deadline=60, watch=watch)

    def test_every_line_is_recorded_with_its_time(self, line: tuple[Console, socket.socket]) -> None:
        console, machine = line
        machine.sendall(b"first\r\nsecond, unfinished")
        machine.close()
        console.join(30)
        lines = console.log.read_text().splitlines()
        assert [text.partition("\t")[2] for text in lines] == ["first", "second, unfinished"]
        assert all(re.match(r" *\d+\.\d{3}\t", text) for text in lines)

    def test_what_is_typed_reaches_the_machine(self, line: tuple[Console, socket.socket]) -> None:
        console, machine = line
        console.send("boot\r")
        assert machine.recv(100) == b"boot\r"


NAME = "/root/some file"

PANICS = {
    "panic": 'panic: assertion "p->p_pgrp" failed in fixjobc at kern_proc.c:1\r\ncpuid = 0\r\nTrace beginning\r\n',
    "no root": "\r\nmountroot> panic: Root mount failed, startup aborted.\r\ncpuid = 0\r\nTrace beginning\r\n",
    "trap": "Fatal trap 12: page fault while in kernel mode\r\ncpuid = 1; lapic->id = 1\r\n",
    "second": "SECONDARY PANIC ON CPU 1 THREAD 0xfff\r\n",
}
QUIET = {
    "a program that says so": "panic: at the disco\r\n# echo done\r\n",
    "in the middle of a line": "no Fatal trap 12: here\r\n",
    "a boot message": "wdog: In-kernel automatic watchdog reset enabled\r\n",
    "another prompt": "# panic: Root mount failed, startup aborted.\r\ncpuid = 0\r\n",
    "a prompt of a program": "db> is what I print\r\n",
}


@pytest.mark.parametrize("text", PANICS.values(), ids=PANICS)
def test_a_dying_dragonfly_kernel_is_recognised(text: str) -> None:
    assert DragonFlyTarget.panic.search("boot\r\n" + text)


@pytest.mark.parametrize("text", QUIET.values(), ids=QUIET)
def test_what_only_looks_like_a_panic_raises_no_alarm(text: str) -> None:
    assert not DragonFlyTarget.panic.search("boot\r\n" + text)


@pytest.fixture(scope="module")
def target() -> ControlTarget:
    return ControlTarget(build_control_image(Store().cache, lambda _: None))


@pytest.fixture(scope="module")
def guest(target: ControlTarget) -> Iterator[Guest]:
    with Guest(target, Store()) as guest:
        guest.boot()
        yield guest


@pytest.mark.on_vm
class TestBooted:
    """On one booted control guest."""

    def test_its_identity_says_control(self, guest: Guest) -> None:
        assert guest.identity.startswith("CONTROL, NOT DRAGONFLY: Linux ")

    def test_commands_have_status_output_and_errors(self, guest: Guest) -> None:
        done = guest.ssh.run("echo out; echo err >&2; exit 3")
        assert (done.status, done.output, done.errors) == (3, "out\n", "err\n")

    def test_a_command_that_does_not_end_is_given_up(self, guest: Guest) -> None:
        with pytest.raises(DeadlineError, match="`sleep 60` to end"):
            guest.ssh.run("sleep 60", deadline=0.3)

    def test_files_travel_by_sftp(self, guest: Guest) -> None:
        content = bytes(range(256)) * 100
        guest.ssh.upload(content, NAME, mode=0o640)
        assert guest.ssh.download(NAME) == content
        assert guest.ssh.run(f"stat -c %a '{NAME}'").output == "640\n"

    def test_a_wrong_key_is_refused_in_words(self, guest: Guest, tmp_path: Path) -> None:
        import paramiko

        from harness.guests.ssh import SshConnection

        key = tmp_path / "key"
        paramiko.ECDSAKey.generate().write_private_key_file(str(key))
        connection = SshConnection(guest.machine.host_port(22), SshAccess("root", key))
        with pytest.raises(HarnessError, match=r"refused SSH key .* for user root: import the image again"):
            connection.connect(30)

    def test_another_host_key_than_the_pinned_one_is_refused(self, guest: Guest) -> None:
        from harness.guests.ssh import SshConnection

        access = replace(guest.target.access(), host_key="ssh-ed25519 AAAA")
        with pytest.raises(HarnessError, match="another SSH host key"):
            SshConnection(guest.machine.host_port(22), access).connect(30)


@dataclass(frozen=True)
class OtherKernel(ControlTarget):
    """Expects another kernel than the one that runs."""

    def verify(self, guest: Guest) -> str:
        """Compare with a version that is not there."""
        wrong = replace(self.image, kernel_version="0.0.1")
        return ControlTarget(wrong).verify(guest)


@pytest.mark.on_vm
def test_another_kernel_than_the_one_asked_for_is_an_error(target: ControlTarget) -> None:
    guest = Guest(OtherKernel(target.image), Store())
    with pytest.raises(HarnessError, match=r"another kernel is running: .*asked for '0\.0\.1'"):
        guest.boot()
    assert guest.machine.pid is None


@pytest.mark.on_vm
def test_a_boot_that_takes_too_long_is_given_up_with_the_console(target: ControlTarget) -> None:
    guest = Guest(target, Store())
    with pytest.raises(DeadlineError, match=r"waited 0.5 s for SSH to answer"):
        guest.boot(deadline=0.5)
    assert guest.machine.pid is None


@pytest.mark.on_vm
def test_a_kernel_that_panics_on_the_way_up_is_a_panic(target: ControlTarget) -> None:
    @dataclass(frozen=True)
    class Rootless(ControlTarget):
        """Its kernel finds no init."""

    image = replace(target.image, append=target.image.append + " rdinit=/nonexistent init=/nonexistent root=none")
    with pytest.raises(KernelPanicError, match="Kernel panic - not syncing"):
        Guest(Rootless(image), Store()).boot()


@pytest.mark.on_vm
class TestWarmth:
    """Warm states: made once, resumed quickly, made again when they do not work."""

    SIZE = MachineSize(memory=320)

    def test_a_resumed_session_drives_processes(self, target: ControlTarget) -> None:
        for _ in range(2):
            with Session.resume(Warmth(target, Store(), self.SIZE)) as session:
                init = session.hub.spawn()
                child = init.fork()
                child.exit(7)
                assert init.wait4(child.pid).exit_status == 7
                assert session.guest.identity.startswith("CONTROL")

    def test_ssh_works_in_a_resumed_session(self, target: ControlTarget) -> None:
        with Session.resume(Warmth(target, Store(), self.SIZE)) as session:
            assert session.guest.ssh.run("echo hello").output == "hello\n"

    def test_two_sessions_do_not_see_each_other(self, target: ControlTarget) -> None:
        store = Store()
        with (
            Session.resume(Warmth(target, store, self.SIZE)) as one,
            Session.resume(Warmth(target, store, self.SIZE)) as two,
        ):
            one.guest.ssh.run("echo x > /tmp/mine")
            assert two.guest.ssh.run("cat /tmp/mine").status != 0

    @pytest.mark.parametrize("name", ["ram", "memory"])
    def test_a_damaged_state_is_made_again(self, target: ControlTarget, name: str) -> None:
        store = Store()
        size = MachineSize(memory=321)  # a state that no other worker resumes meanwhile
        snapshot = Warmth(target, store, size).snapshot()
        (file,) = (file for file in snapshot.state.files if file.name == name)
        file.write_bytes(file.read_bytes()[:1000])
        said: list[str] = []
        warmth = Warmth(target, store, size)
        with Session.resume(warmth, said.append) as session:
            assert session.hub.spawn().pid > 0
        assert any("does not resume" in step for step in said)
        made_again = warmth.snapshot()
        assert made_again.token != snapshot.token
        warmth.forget(snapshot)
        assert made_again.state.ram.exists(), "what another command has made again is not forgotten"
        warmth.forget(made_again)
        assert not made_again.folder.exists()

    def test_the_clock_of_a_resumed_guest_is_right(self, target: ControlTarget) -> None:
        with Session.resume(Warmth(target, Store(), self.SIZE)) as session:
            guest_time = float(session.guest.ssh.run("date +%s").output)
        assert abs(guest_time - time.time()) < 30


SPIN = "while :; do :; done >/dev/null 2>&1 &"


def signal_ssh(guest: Guest, signal_name: str) -> None:
    """Send a signal to SSH's server in GUEST, once it has answered us; return when it is sent."""
    told = "echo no more SSH >/dev/console"
    guest.ssh.run(f"(sleep 1; kill -{signal_name} $(pidof sshd dropbear); {told}) >/dev/null 2>&1 &")
    guest.console.expect(["no more SSH"], awaited="SSH's server to be signalled", deadline=60)


@contextmanager
def busy_host(guest: Guest, running: float, standing: float) -> Iterator[None]:
    """Let QEMU run for RUNNING seconds and stand still for STANDING, in turn."""
    pid, over = guest.machine.pid, threading.Event()
    assert pid is not None

    def alternate() -> None:
        while not over.wait(running):
            os.kill(pid, signal.SIGSTOP)
            over.wait(standing)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=alternate)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.on_vm
class TestProbe:
    """Who is slow is no hang, and who hangs is no victim of the host."""

    SIZE = MachineSize(memory=320)

    @pytest.fixture
    def guest(self, target: ControlTarget) -> Iterator[Guest]:
        """Return a resumed guest of its own."""
        with Session.resume(Warmth(target, Store(), self.SIZE)) as session:
            session.guest.probe(8)
            yield session.guest

    def test_a_guest_that_is_slow_as_its_host_is_busy_is_well(self, guest: Guest) -> None:
        began = time.monotonic()
        with busy_host(guest, 0.003, 0.2):
            guest.probe(1)
        assert time.monotonic() - began > 1, "it was not slow: this shows nothing"

    def test_nobody_can_tell_of_one_that_gets_no_cpu_time(self, guest: Guest) -> None:
        guest.ssh.run(SPIN)
        with busy_host(guest, 0.002, 0.3), pytest.raises(GuestLostError, match="nobody can tell") as caught:
            guest.probe(2, patience=4)
        assert not isinstance(caught.value, GuestHangError)
        guest.check()

    def test_one_without_an_ssh_server_is_lost_but_does_not_hang(self, guest: Guest) -> None:
        signal_ssh(guest, "KILL")
        with pytest.raises(GuestLostError, match="nothing in the guest listens at its SSH port") as caught:
            guest.probe(3)
        assert not isinstance(caught.value, GuestHangError)

    @pytest.mark.parametrize("before", ["", SPIN], ids=["idle", "busy"])
    def test_one_that_had_its_time_and_does_not_answer_hangs(self, guest: Guest, before: str) -> None:
        if before:
            guest.ssh.run(before)
        signal_ssh(guest, "STOP")
        began = time.monotonic()
        with pytest.raises(GuestHangError, match="SSH does not answer"):
            guest.probe(3)
        assert time.monotonic() - began < 50, "patience is for those that get no CPU time"

# SPDX-License-Identifier: BSD-2-Clause
"""A kernel that died is questioned and told from others, and what only looks like a death is none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import GuestLostError
from harness.guests.console import Console
from harness.guests.control import ControlTarget
from harness.guests.crash import CrashReport
from harness.guests.ddb import Ddb, Frame, UnansweredError, interrogate, parse_trace
from harness.guests.guest import Guest, KernelPanicError, MachineSize
from harness.guests.hang import steady_part
from harness.images.control import build_control_image
from harness.processes.session import Session, Warmth
from harness.store import Store

TRACE = """\
cache_fullpath() at cache_fullpath+0xf5 0xffffffff8037e322
sysctl_kern_proc_pathname() at sysctl_kern_proc_pathname+0x69 0xffffffff803047d5
sysctl_root() at sysctl_root+0x11b 0xffffffff8032e56e
userland_sysctl() at userland_sysctl+0x15e 0xffffffff8032e91a
sys___sysctl() at sys___sysctl+0x6b 0xffffffff8032ea06
syscall2() at syscall2+0x2a9 0xffffffff804ed93b"""

LONG = "\n".join(f"row {number}" for number in range(95))


class ScriptedDebugger:
    """Answers as DDB does, one character at a time, with a pager after each twentieth line."""

    def __init__(self, line: socket.socket, answers: Mapping[str, str]) -> None:
        self.asked: list[str] = []
        self._line = line
        self._answers = answers
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _read(self) -> str:
        return self._line.recv(1).decode()

    def _serve(self) -> None:
        try:
            self._line.sendall(b"Stopped at      here+0x1:\tnop\r\ndb> ")
            typed = ""
            while character := self._read():
                self._line.sendall(character.encode())  # it echoes
                if character != "\r":
                    typed += character
                    continue
                self._line.sendall(b"\n")
                self.asked.append(typed)
                if not self._answer(self._answers[typed]):
                    return
                typed = ""
        except OSError:
            return

    def _answer(self, answer: str) -> bool:
        if answer == "hang up":
            self._line.shutdown(socket.SHUT_RDWR)
            return False
        for number, text in enumerate(answer.split("\n"), 1):
            if number % 20 == 0:
                self._line.sendall(b"--More--")
                if self._read() != " ":
                    self._line.sendall(b"\r\ndb> ")
                    return True
                self._line.sendall(b"\r")
            self._line.sendall(f"{text}\r\n".encode())
        if not answer.endswith("silence"):
            self._line.sendall(b"db> ")
        return True


@contextmanager
def debugger(folder: Path, answers: Mapping[str, str]) -> Iterator[tuple[Console, ScriptedDebugger]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        console = Console(ours, folder / "log")
        script = ScriptedDebugger(theirs, answers)
        assert Ddb(console).await_prompt(0)
        yield console, script


def test_answers_longer_than_a_page_are_complete_and_without_the_pager(tmp_path: Path) -> None:
    with debugger(tmp_path, {"ps": LONG, "trace": TRACE}) as (console, script):
        assert interrogate(console, ("ps", "trace")) == [("ps", LONG), ("trace", TRACE)]
        assert script.asked == ["ps", "trace"]


def test_an_answer_that_does_not_end_is_given_up_and_what_came_is_kept(tmp_path: Path) -> None:
    with debugger(tmp_path, {"ps": "half of it\nsilence"}) as (console, _):
        with pytest.raises(UnansweredError, match="DDB's answer to 'ps'") as caught:
            Ddb(console).ask("ps", 3)
        assert caught.value.said == "half of it\nsilence"


def test_a_machine_that_hangs_up_ends_the_questions(tmp_path: Path) -> None:
    with debugger(tmp_path, {"trace": TRACE, "ps": "hang up"}) as (console, _):
        answers = interrogate(console, ("trace", "ps", "show registers"))
        assert answers[0] == ("trace", TRACE)
        assert "hung up" in answers[1][1]
        assert len(answers) == 2
        with pytest.raises(GuestLostError):
            Ddb(console).ask("trace")


def test_a_kernel_that_restarts_instead_is_not_waited_for(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        console = Console(ours, tmp_path / "log")
        theirs.sendall(b"panic: so it goes\r\ncpuid = 0\r\nUptime: 3s\r\n")
        began = time.monotonic()
        assert not Ddb(console).await_prompt(0, deadline=30)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("text", ["say db> ", "db> is a prompt", "db> \r\nlogin: "])
def test_what_is_not_alone_at_the_end_of_the_console_is_no_prompt(tmp_path: Path, text: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        console = Console(ours, tmp_path / "log")
        theirs.sendall(b"boot\r\n" + text.encode())
        assert not Ddb(console).await_prompt(0, deadline=0.3)


def test_a_trace_is_read() -> None:
    frames = parse_trace(TRACE)
    assert frames[0] == Frame("cache_fullpath", 0xF5, 0xFFFFFFFF8037E322)
    assert [frame.function for frame in frames][-2:] == ["sys___sysctl", "syscall2"]


def test_frames_that_only_bring_the_news_are_left_out() -> None:
    news = "\n".join(
        f"{name}() at {name}+0x1 0xffffffff80000001" for name in ("Debugger", "panic", "fixjobc", "exit1", "trap")
    )
    assert [frame.function for frame in parse_trace(news)] == ["fixjobc", "exit1", "trap"]


def test_without_a_trace_the_place_where_it_stopped_has_to_do() -> None:
    assert parse_trace("x\nStopped at      cache_fullpath+0xf5:    movq    0x30(%rax),%rsi\n") == (
        Frame("cache_fullpath", 0xF5),
    )
    assert parse_trace("nothing") == ()


TRAP = "Fatal trap 12: page fault while in kernel mode"


def test_the_same_cause_has_the_same_fingerprint_in_another_build() -> None:
    elsewhere = TRACE.replace("+0xf5", "+0x1f").replace("0xffffffff80", "0xffffffff90")
    assert CrashReport(TRAP, parse_trace(TRACE)).fingerprint == CrashReport(TRAP, parse_trace(elsewhere)).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        CrashReport(TRAP, parse_trace(TRACE.replace("cache_fullpath", "cache_lock"))),
        CrashReport("Fatal double fault", parse_trace(TRACE)),
        CrashReport(TRAP, parse_trace(TRACE)[1:]),
        CrashReport(TRAP),
    ],
    ids=["function", "kind", "frames", "nothing"],
)
def test_another_cause_has_another_fingerprint(other: CrashReport) -> None:
    assert other.fingerprint != CrashReport(TRAP, parse_trace(TRACE)).fingerprint


def test_a_report_shows_source_lines_of_the_call_and_all_that_was_said() -> None:
    asked: list[int] = []

    def source_line(address: int) -> str:
        asked.append(address)
        return f"file.c:{address & 0xF}"

    report = CrashReport(TRAP, parse_trace(TRACE), (("trace", TRACE),)).located(source_line)
    assert asked[:2] == [0xFFFFFFFF8037E322, 0xFFFFFFFF803047D4]  # a return address belongs to the call before it
    assert "cache_fullpath+0xf5  file.c:2" in report.text
    assert TRACE in report.text


@dataclass(frozen=True)
class Sceptic(ControlTarget):
    """Believes no panic."""

    def confirms_panic(self, guest: Guest) -> bool:
        """Say no."""
        del guest
        return False


@pytest.mark.on_vm
def test_a_program_that_prints_a_panic_is_no_panic_where_the_kernel_can_be_looked_into() -> None:
    image = build_control_image(Store().cache, lambda _: None)
    size = MachineSize(memory=320)
    with Session.resume(Warmth(ControlTarget(image), Store(), size)) as session:
        guest = session.guest
        guest.ssh.run("printf '\\nKernel panic - not syncing: joke\\n' > /dev/console")
        guest.console.expect([r"syncing: joke\r?\n"], awaited="the joke", deadline=30)
        trusting, guest.target = guest.target, Sceptic(image)
        for _ in range(3):
            guest.check()
        guest.target = trusting
        guest.check()  # dismissed once is dismissed for good
        guest.ssh.run("printf '\\nKernel panic - not syncing: again\\n' > /dev/console")
        guest.console.expect([r"syncing: again\r?\n"], awaited="the second joke", deadline=30)
        with pytest.raises(KernelPanicError, match="again"):
            guest.check()


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        (["syscall2", "lock<timer", "syscall2"], "syscall2"),  # an interrupt came in between
        (["lookup<scan<syscall2", "scan<syscall2", "compare<scan<syscall2"], "scan<syscall2"),
        (["pfind<kill<syscall2", "tsleep<kill<syscall2", "pfind<kill<syscall2"], "pfind<kill<syscall2"),
        (["fork<syscall2", "wait<syscall2", "timer", "clock"], ""),  # busy, but at no place in particular
        ([], ""),
    ],
)
def test_the_place_of_a_hang_is_what_most_looks_agree_on(looks: list[str], found: str) -> None:
    chains = [tuple(Frame(name, number) for name in look.split("<")) for number, look in enumerate(looks) if look]
    assert "<".join(frame.function for frame in steady_part(chains)) == found


def test_when_a_kernel_died_says_nothing_about_its_cause() -> None:
    early, late = (CrashReport(f"[{stamp}] Kernel panic - not syncing: x") for stamp in (" 93.618882", "104.581647"))
    assert early.fingerprint == late.fingerprint

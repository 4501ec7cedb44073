# SPDX-License-Identifier: BSD-2-Clause
"""A run is watched: a view that keeps to its place on a real terminal, lines in a log, and the machine of a failure."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest
from rich.console import Console

from harness.config import share
from harness.errors import ExitCode
from harness.guests.held import held_machine
from harness.machine.gdbstub import GdbStub
from harness.processes.connection import await_true
from harness.report.live import Board
from harness.results.verdict import Verdict
from harness.store import Store

ESCAPE = "\x1b"


class Clock:
    """Seconds as the test wants them."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(board: Board, width: int = 80) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(board)
    return capture.get()


def test_a_board_tells_who_runs_what_for_how_long_and_what_came_of_the_others() -> None:
    clock = Clock()
    board = Board("kernel k", clock)
    board.total = 9
    for test, worker in (("a.py::test_1", "gw1"), ("a.py::test_2", "gw0"), ("a.py::test_3", "")):
        board.begins(test)
        board.belongs_to(test, worker)
        clock.now += 2
    board.judged("a.py::test_1", Verdict.PASSED)
    board.judged("a.py::test_1", Verdict.PANIC)  # while it was tidied up after
    board.judged("a.py::test_0", Verdict.PASSED)
    board.ends("a.py::test_1")
    lines = shown(board).splitlines()
    assert lines[0].strip() == "kernel k"
    assert re.fullmatch(r"2/9 .* 0:06 +1 panic +1 passed *", lines[1]), lines
    assert [line.split() for line in lines[2:]] == [["a.py::test_3", "2", "s"], ["gw0", "a.py::test_2", "4", "s"]]
    assert board.line().startswith("2 of 9 tests in 6 s; ")
    assert "gw0: a.py::test_2 (4 s)" in board.line()


def test_a_board_estimates_what_is_left_by_what_is_known_of_the_tests() -> None:
    clock = Clock()
    board = Board("kernel k", clock)
    board.tests = [f"t{number}" for number in range(10)]
    board.total = len(board.tests)
    board.durations = dict.fromkeys(board.tests, 1.0) | {"t9": 11.0}
    clock.now += 30  # the guest boots, which says nothing of the tests
    for number in range(5):
        board.begins(f"t{number}")
        clock.now += 2  # twice as slow as it was
        assert (board.seconds_left is None) == (number < 5)
        board.judged(f"t{number}", Verdict.PASSED)
    assert board.seconds_left == pytest.approx(2 * (4 + 11))
    assert "about 0:30 left" in board.line()
    assert "0:40, about 0:30 left" in shown(board)
    for number in range(5, 10):
        board.judged(f"t{number}", Verdict.PASSED)
    assert "left" not in board.line()


def test_a_board_stays_small_on_a_narrow_terminal_and_with_many_workers() -> None:
    board = Board("a kernel whose version is much longer than any terminal is wide" * 3)
    for number in range(40):
        board.begins(f"test_{number}_{'x' * 200}")
    lines = shown(board, 60).splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 60
    assert "and 24 more" in lines[-1]


SUITE = """
import pytest

@pytest.mark.parametrize("number", range(6))
def test_good(init, number):
    print("what a test prints is not shown")
    assert init.fork().pid > 1

def test_bad(init):
    assert init.getpid() == -1, "out of its mind"

def test_left_out(init):
    pytest.skip("not now")
"""


def arguments(folder: Path, code: str, *more: str) -> list[str]:
    (folder / "test_inner.py").write_text(code)
    argv = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "harness.plugin.entry", f"--rootdir={folder}"]
    return [*argv, str(folder), "--dfly-live", *more]


@contextmanager
def on_a_terminal(argv: list[str], seconds: float = 120.0) -> Iterator[pexpect.spawn[str]]:
    child = pexpect.spawn(
        sys.executable, argv, encoding="utf-8", dimensions=(30, 100), timeout=seconds, cwd=str(share())
    )
    child.delaybeforesend = None
    try:
        yield child
    finally:
        child.close(force=True)


def screen(output: str) -> list[str]:
    """Return what a terminal shows in the end: carriage returns, line feeds, cursor up and erasing are obeyed."""
    lines, row, column = [""], 0, 0
    for found in re.finditer(
        r"\x1b\[\??([0-9;]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|(\r)|(\n)|([^\x1b])", output
    ):
        number, command, back, feed, text = found.groups()
        if back:
            column = 0
        elif feed:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif text:
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + 1 :]
            column += 1
        elif command == "A":
            row = max(0, row - int(number or 1))
        elif command == "K":
            lines[row] = "" if number == "2" else lines[row][:column]
    return lines


@pytest.mark.parametrize("workers", ["0", "2"])
def test_on_a_terminal_the_view_is_there_while_tests_run_and_gone_afterwards(tmp_path: Path, workers: str) -> None:
    with on_a_terminal(arguments(tmp_path, SUITE, "--dfly-oracle", "-n", workers)) as child:
        child.expect(pexpect.EOF)
        output = child.before
        child.close()
    assert output is not None
    assert child.exitstatus == 1, output
    left = "\n".join(screen(output))
    assert f"{ESCAPE}[?25l" in output  # while the view was there, the cursor was not
    assert output.rindex(f"{ESCAPE}[?25h") > output.rindex(f"{ESCAPE}[?25l")
    assert re.search(r"8/8.*1 failed.*6 passed", output)
    assert "ORACLE, NOT A KERNEL" in output
    told = left.index("FAILED")
    assert "test_inner.py::test_bad\n    AssertionError: out of its mind" in left[told:]
    assert not re.search(r"\d/8", left)  # of the view itself nothing is left
    # Nor are there pytest's dots; a path that begins with them is where the test lies.
    assert not re.search(r"^[.Fs]{2,}(?!/)", left, re.MULTILINE)
    assert "what a test prints" not in left
    assert "1 failed, 6 passed, 1 not applicable" in left


@pytest.mark.parametrize("workers", ["0", "2"])
def test_without_a_terminal_there_are_plain_lines(tmp_path: Path, workers: str) -> None:
    argv = [sys.executable, *arguments(tmp_path, SUITE, "--dfly-oracle", "-n", workers)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False, timeout=120)
    assert done.returncode == 1, done.stdout
    assert ESCAPE not in done.stdout
    assert re.search(r"^FAILED (gw\d )?test_inner.py::test_bad\n    AssertionError: out of its mind", done.stdout, re.M)
    assert re.search(r"^8 of 8 tests in \d+ s; 1 failed, 6 passed, 1 not applicable$", done.stdout, re.M), done.stdout
    assert len(re.findall(r"^FAILED .*test_inner.py::test_bad", done.stdout, re.M)) == 2  # ours and pytest's summary


DIES = """
import os, signal, time

def test_dies(init):
    os.kill(os.getpid(), signal.SIGKILL)

def test_next(init):
    time.sleep(0.1)
"""


def test_a_test_whose_worker_died_is_not_under_way_any_more(tmp_path: Path) -> None:
    argv = [sys.executable, *arguments(tmp_path, DIES, "--dfly-oracle", "-n", "1")]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False, timeout=120)
    (last,) = re.findall(r"^2 of 2 tests in \d+ s; .*$", done.stdout, re.MULTILINE)
    assert "test_dies" not in last


def test_whoever_asks_for_pytests_own_lines_gets_them(tmp_path: Path) -> None:
    argv = [sys.executable, *arguments(tmp_path, SUITE, "--dfly-oracle", "-v")]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False, timeout=120)
    assert "test_inner.py::test_good[0] PASSED" in done.stdout


@pytest.mark.parametrize("more", [[], ["-n", "2"]])
def test_nobody_is_waited_for_where_nobody_can_answer(tmp_path: Path, more: list[str]) -> None:
    argv = [sys.executable, *arguments(tmp_path, SUITE, "--dfly-control", "--dfly-hold", *more)]
    done = subprocess.run(
        argv, capture_output=True, text=True, cwd=share(), check=False, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "leave out -n" in done.stderr if more else "somebody at a terminal" in done.stderr


FAILING = """
def test_bad(init, guest):
    guest.ssh.run("echo said before it failed > /dev/console")
    assert init.getpid() == -1

def test_next(init):
    assert init.getpid() == init.pid
"""
KERNEL_TEXT = 0xFFFFFFFF81000000
PROMPT = "go on with the tests > "


@pytest.mark.on_vm
def test_the_machine_of_a_failed_test_is_held_and_can_be_entered(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    with on_a_terminal(
        arguments(tmp_path, FAILING, "--dfly-control", "--dfly-hold", "--dfly-json", str(record)), 180
    ) as child:
        child.expect(r"FAILED test_inner.py::test_bad\r\n    ([^\r]*)\r\n")
        assert isinstance(child.match, re.Match)
        assert "== -1" in child.match[1], child.match  # why, before anybody is asked
        child.expect(r"The machine of test_inner.py::test_bad is paused")
        child.expect(r"\(r first\) (ssh [^\r]*)\r")
        ssh = child.match[1] if isinstance(child.match, re.Match) else ""
        child.expect(r"tail -f ([^\r]*)\r")
        log = child.match[1] if isinstance(child.match, re.Match) else ""
        child.expect(r"target remote ([^'\r]*)'")
        stub = Path(child.match[1] if isinstance(child.match, re.Match) else "")
        child.expect_exact(PROMPT)
        await_true(lambda: "said before it failed" in Path(log).read_text(), "the console's log", 30)
        port = int(re.search(r"-p (\d+)", ssh)[1])  # type: ignore[index]
        assert not greets(port, 1)  # it is paused
        machine = held_machine(Store(), f"test-{child.pid}")
        assert machine.paused
        assert machine.gdb == stub
        with GdbStub(machine.gdb, paused=machine.paused) as gdb:
            assert len(gdb.read(KERNEL_TEXT, 16)) == 16
        assert not greets(port, 1)  # and stays paused
        child.sendline("x")
        child.expect_exact("'x' is none of the keys")
        child.expect_exact(PROMPT)
        child.sendline("r")
        child.expect_exact(PROMPT)
        assert not held_machine(Store(), f"test-{child.pid}").paused
        assert greets(port, 60)
        if shutil.which("ssh"):
            argv = [*shlex.split(ssh), "-o", "BatchMode=yes", "echo $((6 * 7))"]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
            assert done.stdout == "42\n", done.stderr
        child.sendline("c")
        child.expect_exact("said before it failed")
        child.send("\x1d")
        child.expect_exact(PROMPT)
        child.sendline("s")
        child.expect_exact("# ")  # what is typed earlier is thrown away
        child.send("echo $((6 * 8))\r")
        child.expect(r"\n48\r")
        child.send("exit\r")
        child.expect_exact(PROMPT)
        child.sendline("p")
        child.expect_exact(PROMPT)
        child.sendline("")
        child.expect(pexpect.EOF)
        child.close()
    assert child.exitstatus == 1
    assert not stub.exists()
    verdicts = [result["verdict"] for result in json.loads(record.read_text())["results"]]
    assert verdicts == ["failed", "passed"]


@pytest.mark.on_vm
def test_ctrl_c_at_a_held_machine_ends_the_run_and_the_machine(tmp_path: Path) -> None:
    with on_a_terminal(arguments(tmp_path, FAILING, "--dfly-control", "--dfly-hold"), 180) as child:
        child.expect(r"target remote ([^'\r]*)'")
        stub = Path(child.match[1] if isinstance(child.match, re.Match) else "")
        child.expect_exact(PROMPT)
        assert stub.is_socket()
        child.sendintr()
        child.expect(pexpect.EOF)
        child.close()
    assert child.exitstatus == ExitCode.INTERRUPTED
    assert not stub.parent.exists()


def greets(port: int, seconds: float) -> bool:
    """Tell whether an SSH server introduces itself within SECONDS."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.settimeout(seconds)
        try:
            return line.recv(4) == b"SSH-"
        except TimeoutError:
            return False

# SPDX-License-Identifier: BSD-2-Clause
"""Whose fault it is: only what is known to be the kernel's counts against it."""

from __future__ import annotations

import errno
import importlib
import io
import json
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import paramiko
import pytest

from harness.cli import keep_traceback, main
from harness.config import share
from harness.errors import DeadlineError, ExitCode, GuestDeadlineError, HarnessError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.ssh import SshAccess, SshConnection
from harness.plugin.blame import verdict_of
from harness.plugin.parallel import quiet
from harness.processes.connection import Connection
from harness.processes.kinfo import ProcRows, ProcTable
from harness.processes.vocabulary import GuestError, fails
from harness.results.record import read_record
from harness.results.summary import conclusion
from harness.results.verdict import Verdict, exit_code
from harness.toolchain import run_tool


def verdict_on(act: Callable[[], object]) -> Verdict:
    """Return the verdict on what ACT, which stands for a test, raises."""
    try:
        act()
    except BaseException as error:
        return verdict_of(error)
    raise RuntimeError("it passed")


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


def fails_wrongly() -> None:
    with fails("EPERM"):
        raise GuestError("setsid()", "ESRCH")


def fails_not_at_all() -> None:
    with fails("EPERM"):
        pass


def unmet() -> None:
    assert len("ab") == 3


def one_row_of_none() -> None:
    (_row,) = ProcRows()


@pytest.mark.parametrize(
    "act",
    [
        unmet,
        lambda: pytest.fail("no"),
        fails_wrongly,
        fails_not_at_all,
        raising(GuestError("fork()", "EAGAIN")),
        raising(GuestError("open()", "ENOSPC")),
        raising(GuestDeadlineError("wait4() in process 4", 30)),
        one_row_of_none,
        lambda: ProcRows()[0],
        lambda: ProcTable(())[1],
        raising(ExceptionGroup("two", [HarnessError("x"), AssertionError("y")])),
    ],
)
def test_what_the_guest_did_counts_against_its_kernel(act: Callable[[], object]) -> None:
    assert verdict_on(act) is Verdict.FAILED


@pytest.mark.parametrize(
    "act",
    [
        raising(OSError(errno.ENOSPC, "No space left on device")),
        raising(BlockingIOError(errno.EAGAIN, "fork")),
        raising(MemoryError()),
        raising(PermissionError(errno.EACCES, "store")),
        raising(DeadlineError("QEMU's monitor to answer", 30)),
        raising(HarnessError("no gcc")),
        raising(paramiko.SSHException("no")),
        lambda: struct.unpack("<Q", b""),
        lambda: {"b": 1}["a"],
        lambda: [1][1],
        lambda: int("x"),
        lambda: 1 // 0,
        lambda: json.loads("{"),
        # Asserted by the harness itself, not by a test.
        lambda: Connection.close(None),  # type: ignore[arg-type]
        raising(ExceptionGroup("two", [HarnessError("x"), OSError("y")])),
        raising(RuntimeError("unheard of")),
    ],
)
def test_what_nobody_knows_does_not(act: Callable[[], object]) -> None:
    assert verdict_on(act) is Verdict.HARNESS_ERROR


def test_an_assertion_within_the_harness_is_no_expectation_of_a_test() -> None:
    inside, outside = (FunctionType(unmet.__code__, globals() | {"__name__": name}) for name in ("harness.x", "x"))
    assert verdict_on(inside) is Verdict.HARNESS_ERROR
    assert verdict_on(outside) is Verdict.FAILED


@pytest.mark.parametrize(
    "act",
    [
        lambda: undefined,  # type: ignore[name-defined]  # noqa: F821
        lambda: "".nothing,  # type: ignore[attr-defined]
        lambda: io.BytesIO().read(1, 2),  # type: ignore[call-arg]
        lambda: verdict_of(),  # type: ignore[call-arg]
        lambda: importlib.import_module("no_such_module"),
        lambda: compile("1 +", "test_x.py", "exec"),
    ],
)
def test_a_mistake_in_a_test_is_the_tests(act: Callable[[], object]) -> None:
    assert verdict_on(act) is Verdict.TEST_ERROR


def test_a_test_error_is_exit_status_2_unless_something_else_went_wrong() -> None:
    assert not Verdict.TEST_ERROR.against_kernel
    assert exit_code([Verdict.PASSED, Verdict.TEST_ERROR]) is ExitCode.USAGE
    assert exit_code([Verdict.TEST_ERROR, Verdict.HARNESS_ERROR]) is ExitCode.HARNESS_FAILED
    assert exit_code([Verdict.TEST_ERROR, Verdict.FAILED]) is ExitCode.TEST_FAILED


MISTAKEN = """
import errno, os, struct
import pytest

def test_unknown_fixture(init, no_such_fixture): pass
def test_unknown_fixture_of_no_kernel(no_such_fixture): pass
def test_name(init): undefined
def test_attribute(init): init.forkk()
def test_arguments(init): init.getpgid(1, 2, 3)
def test_full_disk(init): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
def test_memory(init): raise MemoryError
def test_short(init): struct.unpack("<Q", b"")
def test_full_disk_of_no_kernel(tmp_path): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
def test_good(init): assert init.getpid() == init.pid
"""


@pytest.mark.parametrize(("more", "status"), [("", 3), ("def test_bad(init): assert init.getpid() == 0\n", 1)])
def test_neither_the_host_nor_a_mistake_speaks_against_a_kernel(tmp_path: Path, more: str, status: int) -> None:
    (tmp_path / "test_inner.py").write_text(MISTAKEN + more)
    file = tmp_path / "record.json"
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path), f"--rootdir={tmp_path}"]
    argv += ["-p", "harness.plugin.entry", "--dfly-oracle=", "--dfly-json", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False, timeout=120)
    assert done.returncode == status, done.stdout + done.stderr
    record = json.loads(file.read_text())
    found = {result["test"].rpartition("::")[2]: result["verdict"] for result in record["results"]}
    mistakes = {"unknown_fixture", "unknown_fixture_of_no_kernel", "name", "attribute", "arguments"}
    of_host = {"full_disk", "memory", "short", "full_disk_of_no_kernel"}
    expected = {f"test_{name}": "test error" for name in mistakes} | {
        f"test_{name}": "harness error" for name in of_host
    }
    assert found == expected | {"test_good": "passed"} | ({"test_bad": "failed"} if more else {})
    said = conclusion(read_record(file))
    assert said.startswith("1 of 2 tests speaks against" if more else "Nothing in 1 test speaks against"), said
    assert "5 tests are mistaken themselves" in said


KILLED = """
import os, signal
def test_killed(init): os.kill(os.getpid(), signal.SIGKILL)
def test_good(init): assert init.getpid() == init.pid
"""


def test_a_worker_that_is_killed_says_nothing_about_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(KILLED)
    file = tmp_path / "record.json"
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path), f"--rootdir={tmp_path}", "-n", "1"]
    argv += ["-p", "harness.plugin.entry", "--dfly-oracle=", "--dfly-json", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False, timeout=120)
    assert done.returncode == ExitCode.HARNESS_FAILED, done.stdout + done.stderr
    record = read_record(file)
    found = {result.test.rpartition("::")[2]: result.verdict for result in record.results}
    assert found == {"test_killed": Verdict.HARNESS_ERROR, "test_good": Verdict.PASSED}
    assert record.exit_status == ExitCode.HARNESS_FAILED


@pytest.mark.parametrize(
    "error", [KeyError("tree"), MemoryError(), struct.error("unpack requires 8 bytes"), TypeError("x")]
)
def test_an_uncaught_exception_is_exit_status_3_one_line_and_a_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "store"))
    monkeypatch.setattr("harness.store.Store.all", lambda *_: (_ for _ in ()).throw(error))
    assert main(["kernel", "list"]) == ExitCode.HARNESS_FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dfly-harness: unexpected {type(error).__name__}")
    kept = Path(line.rpartition(" in ")[2])
    assert kept.parent == tmp_path / "store" / "tracebacks"
    assert "Traceback (most recent call last)" in kept.read_text()


def test_a_traceback_that_no_disk_takes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", "/dev/null/store")
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/dev/null/tmp")
    assert keep_traceback(KeyError("x")).startswith("nowhere")


def test_a_tool_that_never_ends_is_killed() -> None:
    with pytest.raises(DeadlineError, match=r"`sleep 60` to end"):
        run_tool(["sleep", "60"], deadline=0.1)


def test_who_waits_for_quiet_does_not_wait_for_ever(tmp_path: Path) -> None:
    with quiet(tmp_path / "lock", alone=True):
        begun = time.monotonic()
        with (
            pytest.raises(DeadlineError, match="runs alone to end"),
            quiet(tmp_path / "lock", alone=False, deadline=0.1),
        ):
            pass
        assert time.monotonic() - begun < 10


class StillChannel:
    """A channel of a guest that opens it and stands still since, as paramiko waits for it: until it is closed."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def settimeout(self, seconds: float) -> None:
        """Take note."""

    def invoke_subsystem(self, _name: str) -> None:
        assert self._closed.wait(30), "nobody gave up"
        raise paramiko.SSHException("Channel closed.")

    def close(self) -> None:
        self._closed.set()


@pytest.mark.parametrize("transfer", ["upload", "download"])
def test_a_transfer_to_a_guest_that_stands_still_ends(transfer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Transport:
        def open_session(self, timeout: float) -> StillChannel:
            assert timeout == 0.2
            return StillChannel()

    monkeypatch.setattr(SshConnection, "_transport", Transport())
    monkeypatch.setattr(SshConnection, "is_open", True)
    connection = SshConnection(1, SshAccess("root", Path("none"), password="x"))  # noqa: S106
    connection.sftp_patience = 0.2
    with pytest.raises(DeadlineError, match="SFTP to go on"):
        connection.upload(b"x", "/x") if transfer == "upload" else connection.download("/x")


def test_a_look_at_a_long_console_takes_no_time() -> None:
    text = "Stopped at      exit1+0x1: nop\n" * 20_000 + "Stopped at " + " " * 200_000
    begun = time.process_time()
    assert DragonFlyTarget.panic.search(text) is None
    assert time.process_time() - begun < 2
    assert DragonFlyTarget.panic.search(text + "\ndb> ") is not None

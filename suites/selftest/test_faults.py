# SPDX-License-Identifier: BSD-2-Clause
"""What goes wrong under a run is survived: no result lost or counted twice, nothing left behind, the right status."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from harness.config import share
from harness.store import Store

#: How often each fault is made, and the kernel in the store that has to stand it instead of the control guest's;
#: a run that proves something takes DFLY_HARNESS_FAULTS=100.
TIMES = int(os.environ.get("DFLY_HARNESS_FAULTS", "3"))
KERNEL = os.environ.get("DFLY_HARNESS_FAULTS_KERNEL", "")

TARGET = ("--kernel", KERNEL) if KERNEL else ("--control",)
PYTEST_TARGET = ("--dfly-kernel", KERNEL) if KERNEL else ("--dfly-control",)
CLI = (sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())")

pytestmark = pytest.mark.on_vm

STORM = f"""
import os, random, signal, threading
import pytest

FAULTS = [(fault, turn) for turn in range({TIMES}) for fault in ("panic", "kill", "ssh", "none")]
random.Random(0).shuffle(FAULTS)

def panic(guest, init):
    if guest.target.is_dragonfly:
        guest.kernel.write(guest.kernel.address("sys_getpgid"), bytes((0x0F, 0x0B)))  # no such instruction
        init.getpgid(0)
    else:
        guest.ssh.run("echo c > /proc/sysrq-trigger", deadline=20)

@pytest.mark.parametrize(("fault", "turn"), FAULTS)
def test_fault(init, guest, fault, turn):
    if fault == "panic":
        panic(guest, init)
    elif fault == "kill":
        threading.Timer(random.random() / 2, os.kill, (guest.machine.pid, signal.SIGKILL)).start()
        while True:
            init.getpid()
    elif fault == "ssh":
        guest.ssh.close()
    assert init.getpid() == init.pid
"""

KILLER = f"""
import contextlib, os, random, signal, threading, time
from pathlib import Path
import pytest

KILLS = {2 * TIMES}

def machines():
    # Also those that are only just coming up.
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = entry.read_text().rpartition(")")
            if b"--version" in (entry.parent / "cmdline").read_bytes():
                continue
        except OSError:
            continue
        state, parent = fields.split()[:2]
        if "(qemu-system" in name and state != "Z" and int(parent) == os.getpid():
            yield int(entry.parent.name)

inside = threading.Event()

@pytest.fixture(scope="session", autouse=True)
def killer():
    over, killed = threading.Event(), []

    def kill():
        while not inside.wait(0.1):  # the first kill falls into a test, all others anywhere
            if over.is_set():
                return
        while len(killed) < KILLS and not over.wait(random.uniform(0, 4) if killed else 0):
            for pid in list(machines())[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    over.set()
    thread.join()
    print("KILLED", len(killed), flush=True)

@pytest.mark.parametrize("turn", range(8 * KILLS))
def test_goes_on(init, killer, turn):
    if len(killer) < KILLS:
        child = init.fork()
        child.exit(turn % 200)
        assert init.wait4(child.pid).exit_status == turn % 200
        inside.set()
        init.sleep(1)
"""


def start(folder: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    (folder / "test_inner.py").write_text(code)
    argv = [sys.executable, "-m", "pytest", "-sq", "-p", "no:cacheprovider", str(folder), f"--rootdir={folder}"]
    argv += ["-p", "harness.plugin.entry", *PYTEST_TARGET, "--dfly-json", str(folder / "record.json"), *arguments]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=share(), start_new_session=True
    )


def left_behind(session: int) -> list[str]:
    """Return the processes that belong to a run's session, and the folders of machines that nobody owns."""
    left = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, NotADirectoryError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            left.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
    return left


def ownerless_machines() -> set[Path]:
    """Return what is left of machines whose owners are gone: not those of other commands that run now."""
    left = set()
    for folder in Store().folder("run").glob("machine*"):
        try:
            with (folder / ".owner").open() as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except FileNotFoundError:
            continue  # just being made, or just being removed
        left.add(folder)
    return left


def test_a_storm_of_panics_and_killed_machines_loses_no_result(tmp_path: Path) -> None:
    run = start(tmp_path, STORM)
    output, _ = run.communicate(timeout=120 + 120 * TIMES)
    record = json.loads((tmp_path / "record.json").read_text())
    wanted = {"panic": "panic", "kill": "guest lost", "ssh": "passed", "none": "passed"}
    by_fault = {
        fault: [result["verdict"] for result in record["results"] if f"[{fault}-" in result["test"]] for fault in wanted
    }
    assert by_fault == {fault: [verdict] * TIMES for fault, verdict in wanted.items()}, output[-4000:]
    assert len({result["test"] for result in record["results"]}) == len(record["results"]) == 4 * TIMES
    assert len({result["fingerprint"] for result in record["results"] if result["verdict"] == "panic"}) == 1
    assert run.returncode == 1
    assert left_behind(run.pid) == []


def test_a_machine_killed_at_any_moment_costs_at_most_the_present_test(tmp_path: Path) -> None:
    run = start(tmp_path, KILLER)
    output, _ = run.communicate(timeout=120 + 60 * TIMES)
    record = json.loads((tmp_path / "record.json").read_text())
    counted = Counter(result["verdict"] for result in record["results"])
    assert f"KILLED {2 * TIMES}" in output, output[-4000:]
    assert counted.keys() <= {"passed", "guest lost"}, (counted, output[-4000:])
    assert len({result["test"] for result in record["results"]}) == len(record["results"]) == 16 * TIMES
    # Between two tests, or while a machine comes up, a kill may cost nothing.
    assert 0 < counted["guest lost"] <= 2 * TIMES
    assert run.returncode == 3 == record["exit_status"]
    assert left_behind(run.pid) == []


ENDLESS = """
import pytest

@pytest.mark.parametrize("turn", range(100000))
def test_goes_on(init, turn):
    assert init.fork().pid > 0
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    before = ownerless_machines()
    for turn in range(TIMES):
        folder = tmp_path / str(turn)
        folder.mkdir()
        (folder / "test_inner.py").write_text(ENDLESS)
        argv = [*CLI, "run", *TARGET, str(folder), "-q", "--json", str(folder / "record.json")]
        run = subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=share(), start_new_session=True
        )
        assert run.stderr is not None
        assert run.stderr.readline()  # Python itself has started
        time.sleep(random.uniform(0, 7))  # noqa: S311  (any moment will do)
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
        assert run.returncode == 128 + number, said
        assert left_behind(run.pid) == []
    assert ownerless_machines() - before == set()


@pytest.mark.parametrize("place", ["line", "no line"])
@pytest.mark.parametrize("hook", ["pytest_configure", "pytest_sessionstart", "pytest_collection", "pytest_unconfigure"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_told_whenever_it_comes(tmp_path: Path, number: signal.Signals, hook: str, place: str) -> None:
    struck = f"import os\ndef {hook}(): os.kill(os.getpid(), {int(number)})\n"
    if place == "no line":  # the compiler's own instructions belong to none, and a signal may come at them
        struck += f"{hook}.__code__ = {hook}.__code__.replace(co_linetable=bytes([0xFF] * 50))\n"  # 50 times 8 units
    (tmp_path / "struck.py").write_text(struck)
    (tmp_path / "test_inner.py").write_text("def test_it(init): pass\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "DFLY_HARNESS_HOME": str(tmp_path / "store")}
    argv = [*CLI, "run", "--oracle", str(tmp_path / "test_inner.py"), "-p", "struck", "-n", "0"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), env=environment, check=False, timeout=60)
    assert done.returncode == 128 + number, done.stdout + done.stderr
    assert "all machines are stopped" in done.stderr


LONG = """
import pytest

@pytest.mark.parametrize("turn", range(30))
def test_one(init, turn):
    assert init.pid == 0, "a long explanation " * 100
"""
# A file system of 16 KiB at $0, of which nobody else knows.
SMALL_DISK = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=16k none "$0" && exec "$@"')


def may_mount() -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run([*SMALL_DISK, "/mnt", "true"], capture_output=True, check=False).returncode == 0
    return False


def test_a_disk_that_fills_up_while_the_record_is_written_is_said_and_fails_the_run(tmp_path: Path) -> None:
    if not may_mount():
        pytest.skip("needs a file system of its own (unshare --mount)")
    disk, code = tmp_path / "disk", tmp_path / "code"
    disk.mkdir()
    code.mkdir()
    (code / "test_inner.py").write_text(LONG)
    argv = [*CLI, "run", *TARGET, str(code), "--json", str(disk / "record.json"), "--html", str(disk / "page.html")]
    done = subprocess.run(
        [*SMALL_DISK, str(disk), "sh", "-c", '"$@"; status=$?; ls -A "$0"; exit $status', str(disk), *argv],
        capture_output=True, text=True, cwd=share(), check=False, timeout=180,
    )  # fmt: skip
    assert done.returncode == 3, done.stdout[-3000:]
    assert "the run's record could not be written: [Errno 28] No space left on device" in done.stdout
    assert "Traceback" not in done.stderr
    assert "the run's report could not be written: [Errno 28] No space left on device" in done.stdout
    assert done.stdout.rstrip().endswith("======")  # neither half a record nor half a report is left there
    kept = re.search(r"^record: (.*)$", done.stdout, re.MULTILINE)
    assert kept is not None
    assert len(json.loads(Path(kept[1]).read_text())["results"]) == 30


def test_a_record_that_cannot_be_written_is_said_and_fails_the_run(tmp_path: Path) -> None:
    place = tmp_path / "place"  # it is there when the run begins, and then is a folder no more
    place.mkdir()
    test = f"import pathlib, shutil\ndef test_one(init):\n    shutil.rmtree({str(place)!r})\n    assert init.pid\n"
    test += f"    pathlib.Path({str(place)!r}).touch()\n"
    run = start(tmp_path, test, "--dfly-json", str(place / "record.json"))
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 3, output
    assert "record could not be written" in output
    assert "Traceback" not in output
    assert left_behind(run.pid) == []


@pytest.mark.parametrize("option", ["--html", "--junitxml"])
def test_a_disk_that_is_full_when_a_report_is_written_costs_that_report_only(tmp_path: Path, option: str) -> None:
    full, record = tmp_path / "report", tmp_path / "record.json"
    full.symlink_to("/dev/full")
    (tmp_path / "test_inner.py").write_text("def test_one(init):\n    assert init.pid\n")
    argv = [*CLI, "run", *TARGET, str(tmp_path), "--json", str(record), f"{option}={full}"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False, timeout=120)
    assert done.returncode == 3, done.stdout
    assert "No space left on device" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert [result["verdict"] for result in json.loads(record.read_text())["results"]] == ["passed"]

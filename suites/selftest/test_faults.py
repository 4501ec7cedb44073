"""What goes wrong under a run is survived: no result lost or counted twice, nothing left behind, the right status."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.config import share
from harness.store import Store

#: How often each fault is made; more with DFLY_HARNESS_FAULTS=100.
TIMES = int(os.environ.get("DFLY_HARNESS_FAULTS", "3"))

pytestmark = pytest.mark.on_vm

STORM = f"""
import os, random, signal, threading
import pytest

@pytest.mark.parametrize("turn", range({TIMES}))
@pytest.mark.parametrize("fault", ["panic", "kill", "ssh", "none"])
def test_fault(init, guest, fault, turn):
    if fault == "panic":
        guest.ssh.run("echo c > /proc/sysrq-trigger", deadline=20)
    elif fault == "kill":
        threading.Timer(random.random() / 2, os.kill, (guest.machine.pid, signal.SIGKILL)).start()
        for _ in range(10_000):
            init.getpid()
    elif fault == "ssh":
        guest.ssh.close()
    assert init.getpid() == init.pid
"""


def start(folder: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    (folder / "test_inner.py").write_text(code)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder), f"--rootdir={folder}"]
    argv += ["-p", "harness.campaigns.plugin", "--control", "--json", str(folder / "record.json"), *arguments]
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
        fault: [result["verdict"] for result in record["results"] if fault in result["test"]] for fault in wanted
    }
    assert by_fault == {fault: [verdict] * TIMES for fault, verdict in wanted.items()}, output[-4000:]
    assert len({result["test"] for result in record["results"]}) == len(record["results"]) == 4 * TIMES
    assert run.returncode == 1
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
        argv = [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())"]
        argv += ["run", "--control", str(folder), "-q", "--json", str(folder / "record.json")]
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


def test_a_disk_that_is_full_when_the_record_is_written_is_said_and_fails_the_run(tmp_path: Path) -> None:
    run = start(tmp_path, "def test_one(init):\n    assert init.pid\n", "--json", "/dev/full/record.json")
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 3, output
    assert "record could not be written" in output
    assert "Traceback" not in output
    assert left_behind(run.pid) == []

# SPDX-License-Identifier: BSD-2-Clause
"""Several workers: how many, and that verdicts do not depend on it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.errors import ExitCode
from harness.plugin.parallel import OVERHEAD, affordable_workers, available_memory, quiet
from harness.processes.connection import await_true

ROOT = Path(__file__).parents[2]
DEADLINE = 20.0


@pytest.mark.parametrize(
    ("cores", "available", "memory", "cpus", "workers"),
    [
        (8, 64_000, 512, 1, 8),
        (8, 3 * (512 + OVERHEAD), 512, 1, 3),
        (8, 64_000, 512, 2, 4),
        (2, 64_000, 512, 4, 1),
        (8, 100, 512, 1, 1),
    ],
)
def test_workers_are_as_many_as_cores_and_memory_allow(
    cores: int, available: int, memory: int, cpus: int, workers: int
) -> None:
    assert affordable_workers(cores, available, memory, cpus) == workers


def test_the_memory_at_hand_is_part_of_what_is_installed() -> None:
    assert 0 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def test_who_wants_to_be_alone_waits_for_all_and_newcomers_queue_behind_it(tmp_path: Path) -> None:
    events: list[str] = []

    def enter(name: str, *, alone: bool) -> None:
        with quiet(tmp_path / "lock", alone=alone):
            events.append(name)

    def gate_is_taken() -> bool:
        with (tmp_path / "lock.gate").open("w") as gate:
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    with quiet(tmp_path / "lock", alone=False), quiet(tmp_path / "lock", alone=False):
        alone = threading.Thread(target=enter, args=("alone",), kwargs={"alone": True})
        alone.start()
        await_true(gate_is_taken, "the gate to be taken", DEADLINE)
        newcomer = threading.Thread(target=enter, args=("newcomer",), kwargs={"alone": False})
        newcomer.start()
        newcomer.join(0.2)  # that nothing happens is what is looked for
        assert events == []
    alone.join(DEADLINE)
    newcomer.join(DEADLINE)
    assert events == ["alone", "newcomer"]


def outcomes(file: Path, *arguments: str) -> dict[str, tuple[str, str]]:
    """Run tests on an oracle that is wrong; return outcome and verdict of each test."""
    suites = [f"suites/conformance/test_{part}.py" for part in ("pids_in_use", "wait")]
    argv = [sys.executable, "-m", "pytest", *suites, "--dfly-oracle", "zombie-pid-handed-out", "-q"]
    argv += ["-p", "no:cacheprovider", "--dfly-json", str(file), *arguments]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.TEST_FAILED, done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads(file.read_text())["results"]
    return {each["test"]: (each["outcome"], each["verdict"]) for each in results}


def test_verdicts_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    alone = outcomes(tmp_path / "1", "-n", "1")
    assert {outcome for outcome, _ in alone.values()} >= {"passed", "failed", "skipped"}
    for workers in ("2", "3"):
        assert outcomes(tmp_path / workers, "-n", workers) == alone


EXCLUSIVE = r"""
import os, pathlib, pytest, time
journal = pathlib.Path(os.environ["JOURNAL"])
def note(what):
    with journal.open("a") as file:
        file.write(what + "\n")
def body(name):
    note("begin " + name)
    time.sleep(0.05)
    note("end " + name)
@pytest.mark.parametrize("n", range(8))
def test_usual(n):
    body(f"usual{n}")
@pytest.mark.exclusive
@pytest.mark.parametrize("n", range(2))
def test_alone(n):
    body(f"alone{n}")
"""


def test_an_exclusive_test_runs_while_no_other_does(tmp_path: Path) -> None:
    (tmp_path / "test_them.py").write_text(EXCLUSIVE)
    argv = [sys.executable, "-m", "pytest", "-p", "harness.plugin.entry", "-q", "-n", "3", str(tmp_path)]
    environment = {**os.environ, "JOURNAL": str(tmp_path / "journal"), "DFLY_HARNESS_HOME": str(tmp_path / "store")}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.PASSED, done.stdout[-2000:]
    lines = (tmp_path / "journal").read_text().splitlines()
    for place, line in enumerate(lines):
        if line.startswith("begin alone"):
            assert lines[place + 1] == line.replace("begin", "end")
            assert sum(one.startswith("begin") for one in lines[:place]) == sum(
                one.startswith("end") for one in lines[:place]
            )
    assert not list((tmp_path / "store" / "locks").glob("quiet-*"))

# SPDX-License-Identifier: BSD-2-Clause
"""A run says what it is about, ends with the right status, leaves a record, and survives a kernel that dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.config import share
from harness.plugin.control import EXPECTATIONS, find_lack, learn, load_lacks, name_of_test

CONFORMANCE = share() / "suites" / "conformance"


def run_pytest(*arguments: str | Path, path: str | None = None) -> tuple[int, str]:
    """Run pytest with the harness's plugin, away from the checkout's own conftest."""
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, arguments)]
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=share(), check=False)
    return done.returncode, done.stdout + done.stderr


def run_tests(folder: Path, code: str, *arguments: str, path: str | None = None) -> tuple[int, str, dict[str, Any]]:
    """Run CODE as a test file on the control guest; return exit status, output and record."""
    (folder / "test_inner.py").write_text(code)
    record = folder / "record.json"
    status, output = run_pytest(
        folder,
        f"--rootdir={folder}",
        "-p",
        "harness.plugin.entry",
        "--dfly-control",
        "--dfly-json",
        record,
        *arguments,
        path=path,
    )
    return status, output, json.loads(record.read_text()) if record.exists() else {}


def outcomes(record: dict[str, Any]) -> dict[str, str]:
    return {result["test"].rpartition("::")[2]: result["outcome"] for result in record["results"]}


def test_the_specification_passes_its_own_suite() -> None:
    status, output = run_pytest(CONFORMANCE, "--dfly-oracle", "-q")
    assert status == 0, output[-4000:]
    assert "ORACLE, NOT A KERNEL" in output


@pytest.mark.on_vm
def test_the_control_guest_fails_exactly_what_linux_lacks(tmp_path: Path) -> None:
    record_file = tmp_path / "record.json"
    argv = [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())"]
    argv += ["run", "--control", "--json", str(record_file), "-q", "-n", "2"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "CONTROL, NOT DRAGONFLY" in done.stdout
    assert "say nothing about DragonFly" in done.stdout
    record = json.loads(record_file.read_text())
    assert record["is_dragonfly"] is False
    lacks = load_lacks(CONFORMANCE)
    for result in record["results"]:
        lacking = find_lack(lacks, name_of_test(result["test"])) is not None
        # What shows a known defect of kernels is run by --defects only, on whatever target.
        held = {"not applicable"} if lacking else {"passed", "not applicable", "known defect"}
        assert result["verdict"] in held, result
    assert "passed" in {result["outcome"] for result in record["results"]}


def test_what_linux_lacks_is_learnt_from_what_ran_and_kept_of_what_did_not(tmp_path: Path) -> None:
    listed = ["test_a::test_gone", "test_a::test_mended", "test_b::test_elsewhere"]
    (tmp_path / EXPECTATIONS).write_text(
        f'[[lack]]\nwhat = "no jails"\nfailure = "jail.*ENOSYS"\ntests = {json.dumps(listed)}\n'
    )
    failures = {"test_a::test_new[1]": "jail(): ENOSYS", "test_a::test_odd": "EPERM"}
    assert learn(tmp_path, failures, ["test_a::test_mended", "test_a::test_new[2]"]) == ["test_a::test_odd"]
    (lack,) = load_lacks(tmp_path)
    assert lack.tests == {"test_a::test_gone", "test_b::test_elsewhere", "test_a::test_new[1]"}


THREE = """
def test_good(init):
    child = init.fork()
    child.exit(3)
    assert init.wait4(child.pid).exit_status == 3

def test_bad(init):
    assert init.getpid() == 1

def test_good_again(init):
    assert init.getppid() > 0
"""


@pytest.mark.on_vm
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_failed_test_fails_the_run_and_is_recorded(tmp_path: Path, workers: str) -> None:
    status, output, record = run_tests(tmp_path, THREE, "-n", workers)
    assert status == 1, output
    assert outcomes(record) == {"test_good": "passed", "test_bad": "failed", "test_good_again": "passed"}
    assert record["identity"].startswith("CONTROL, NOT DRAGONFLY: Linux")
    assert record["workers"] == max(1, int(workers))


PANIC = """
def test_before(init):
    assert init.getpid() == init.pid

def test_that_kills_the_kernel(init):
    init.write(init.open("/proc/sysrq-trigger", 1), b"c")  # O_WRONLY; root needs no kernel.sysrq for it

def test_after(init, guest):
    assert guest.ssh.run("echo alive").output == "alive\\n"
"""


@pytest.mark.on_vm
def test_a_panic_is_the_verdict_on_one_test_and_the_next_gets_a_new_machine(tmp_path: Path) -> None:
    status, output, record = run_tests(tmp_path, PANIC, "--dfly-no-again")
    assert status == 1, output
    assert outcomes(record) == {"test_before": "passed", "test_that_kills_the_kernel": "failed", "test_after": "passed"}
    assert "KernelPanicError: the guest's kernel panicked: " in output
    assert "sysrq triggered crash" in output.lower()
    assert record["starts"] == 2


LITTER = """
from signal import SIGSTOP

def test_that_leaves_processes_behind(init, hub):
    stopped = init.fork()
    init.kill(stopped.pid, SIGSTOP)
    other_session = init.fork()
    other_session.setsid()
    other_session.fork().exit()

def test_that_finds_none(init, guest):
    assert guest.ssh.run("ps | grep -c '[e]xecutor'").output.strip() == "2"  # the hub and init
"""


@pytest.mark.on_vm
def test_nothing_of_one_test_is_left_for_the_next(tmp_path: Path) -> None:
    status, output, _ = run_tests(tmp_path, LITTER)
    assert status == 0, output


CPUS = """
import pytest

def cpus(guest):
    return guest.ssh.run("grep -c ^processor /proc/cpuinfo").output.strip()

def test_as_given(init, guest):
    assert cpus(guest) == "1"

@pytest.mark.cpus(2)
def test_more(init, guest):
    assert cpus(guest) == "2"

@pytest.mark.cpus(2, since=100000)
def test_more_in_another_era(init, guest):
    assert cpus(guest) == "1"
"""


@pytest.mark.on_vm
def test_a_test_gets_the_cpus_it_wants_and_the_next_one_what_was_asked_for(tmp_path: Path) -> None:
    status, output, record = run_tests(tmp_path, CPUS)
    assert status == 0, output
    assert set(outcomes(record).values()) == {"passed"}


@pytest.mark.on_vm
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_host_without_qemu_is_no_verdict_on_the_kernel(tmp_path: Path, workers: str) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("gcc", "cc", "as", "ld", "dpkg-deb", "apt-cache", "apt-get"):
        for folder in os.environ["PATH"].split(":"):
            if (Path(folder) / name).exists() and not (tools / name).exists():
                (tools / name).symlink_to(Path(folder) / name)
    status, output, record = run_tests(tmp_path, THREE, "-n", workers, path=str(tools))
    assert status == 3, output
    assert output.count("qemu-system-x86_64 is not installed") == 1, output
    assert "qemu-system-x86_64 is not installed" in record["trouble"]["text"]
    assert 1 <= len(record["results"]) <= max(int(workers), 1)
    assert all("is not installed" in result["reason"] for result in record["results"])
    assert "INTERNALERROR" not in output


def test_a_kernel_nobody_knows_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(THREE)
    status, output = run_pytest(
        tmp_path, f"--rootdir={tmp_path}", "-p", "harness.plugin.entry", "--dfly-kernel", "nope"
    )
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "'nope'" in output or "no image" in output
    assert "Traceback" not in output

# SPDX-License-Identifier: BSD-2-Clause
"""Tests of one's own lie anywhere and ask for what the plugin has; the README's first example is one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_readme import README, blocks

from harness.config import share
from harness.results.record import RunRecord, read_record
from harness.results.verdict import Verdict

OWN = """
from errno import EPERM
from harness.processes import fails

def test_init(init):
    assert init.fork().getppid() == init.pid

def test_allocator(init, allocator):
    wanted = allocator.spare
    allocator.rest(wanted)
    assert allocator.ask_for(wanted) == wanted

def test_facts(facts):
    assert facts is None or facts.osreldate > 0

def test_guest(guest, hub, rig): assert hub.spawn().pid > 0
def test_fresh(fresh_guest): assert fresh_guest.hub.spawn().pid > 0
def test_kernel(init, kernel): assert kernel.address("nextpid")
"""


def run_own(folder: Path, text: str, *options: str) -> tuple[str, RunRecord]:
    (folder / "test_own.py").write_text(text)
    argv = [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())", "run", *options,
            str(folder / "test_own.py"), "--json", str(folder / "r.json")]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, cwd=folder, check=False, timeout=600)
    return done.stdout + done.stderr, read_record(folder / "r.json")


def verdicts(record: RunRecord) -> dict[str, Verdict]:
    return {result.test.rpartition("::")[2]: result.verdict for result in record.results}


def test_the_oracle_is_no_machine_and_stands_for_the_rest(tmp_path: Path) -> None:
    output, record = run_own(tmp_path, OWN, "--oracle")
    assert verdicts(record) == {
        "test_init": Verdict.PASSED,
        "test_allocator": Verdict.PASSED,
        "test_facts": Verdict.PASSED,
        "test_guest": Verdict.NOT_APPLICABLE,
        "test_fresh": Verdict.NOT_APPLICABLE,
        "test_kernel": Verdict.NOT_APPLICABLE,
    }, output
    assert record.starts == 0, "an oracle's run boots nothing"


FAILING = """
from errno import ESRCH
from harness.errors import HarnessError
from harness.processes import fails

def test_errno(init):
    init.fork().kill(init.fork().pid + 10_000, 9)

def test_expected(init):
    with fails(ESRCH):
        init.getpid()

def test_another_errno(init):
    with fails(ESRCH):
        init.setpgid(-1, -1)

def test_chain(init):
    try:
        init.setpgid(-1, -1)
    except OSError as error:
        raise AssertionError("of my own") from error

def test_fault_of_ours(init):
    init.sigaction("no signal", 1, 2, 3)
"""


def test_what_a_failed_test_shows_is_its_own_lines(tmp_path: Path) -> None:
    output, record = run_own(tmp_path, FAILING, "--oracle", "--no-again")
    shown = {result.test.rpartition("::")[2]: result.reason for result in record.results}
    for test, line in (
        ("test_errno", "init.fork().kill("),
        ("test_expected", "with fails(ESRCH)"),
        ("test_another_errno", "with fails(ESRCH)"),
        ("test_chain", "raise AssertionError"),
    ):
        assert re.search(rf"^> +{re.escape(line)}", shown[test], re.MULTILINE), output
        assert "harness/" not in shown[test].replace(str(tmp_path), ""), shown[test]
        assert "contextlib" not in shown[test], shown[test]
    causes = {result.test.rpartition("::")[2]: result.cause for result in record.results}
    assert causes["test_another_errno"] == "AssertionError: setpgid(-1, -1) failed with EINVAL, not ESRCH"
    assert causes["test_chain"] == "AssertionError: of my own"
    _, record = run_own(tmp_path, FAILING, "--oracle", "--no-again", "--full-trace")
    (whole,) = (result.reason for result in record.results if result.test.endswith("test_errno"))
    assert "harness/" in whole


@pytest.mark.on_vm
def test_each_fixture_is_there_for_tests_that_lie_elsewhere(tmp_path: Path) -> None:
    text = OWN.partition("def test_kernel")[0].replace("def test_allocator", "def not_on_linux")
    output, record = run_own(tmp_path, text, "--control")
    assert set(verdicts(record).values()) == {Verdict.PASSED}, output
    assert len(record.results) == 4


@pytest.mark.skipif(not README.exists(), reason="an installed harness has no README")
def test_the_first_example_is_a_test(tmp_path: Path) -> None:
    (text, *_) = blocks("python")
    output, record = run_own(tmp_path, text, "--oracle")
    assert set(verdicts(record).values()) == {Verdict.PASSED}, output


def test_fixtures_are_explained(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pytest", "--fixtures", "-q", "-p", "harness.plugin.entry", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False, timeout=120)
    for name in ("init", "guest", "hub", "kernel", "fresh_guest", "allocator", "facts"):
        assert f"\n{name} -- " in done.stdout, done.stdout[-2000:]

# SPDX-License-Identifier: BSD-2-Clause
"""The command that tries hosts: what it says of them, and that it notices what differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from installed import needs_checkout

from harness.config import share
from support import matrix
from support.matrix import FailedError, Findings, Host, brief, differences, lend, note, verdicts_on

PAGE = "# Hosts\n\n| host | QEMU |\n|---|---|\n| Debian 12 | 7.2 |\n| Debian 13 | 9 |\n\nThe end.\n"


def test_a_row_takes_the_place_of_that_of_the_same_system() -> None:
    assert note(PAGE, "| Debian 13 | 10.0 |") == PAGE.replace("| Debian 13 | 9 |", "| Debian 13 | 10.0 |")
    assert note(PAGE, "| sid | 11.1 |") == PAGE.replace("| 9 |\n", "| 9 |\n| sid | 11.1 |\n")
    empty = "| host |\n|---|\n\nThe end.\n"
    assert note(empty, "| sid |") == "| host |\n|---|\n| sid |\n\nThe end.\n"


def test_the_page_has_a_table_to_put_rows_into() -> None:
    assert "| a row |" in note((share() / "docs" / "hosts.md").read_text(), "| a row |")


@needs_checkout
def test_the_readme_has_the_hosts_of_the_page() -> None:
    readme, page = matrix.README.read_text(), matrix.PAGE.read_text()
    assert brief(readme, page) == readme
    changed = brief(readme, note(page, "| Debian 99 | 12 | 3.15 | 17 | Linux 8 | 1 passed | 2 passed | 2027-01-01 |"))
    assert "| Debian 99 | 12 | 3.15 | 2027-01-01 |\n\n" in changed
    assert changed.replace("| Debian 99 | 12 | 3.15 | 2027-01-01 |\n", "") == readme


def test_what_failed_and_what_differs_is_said() -> None:
    one = Findings("one", "", {"a": "passed", "b": "not applicable", "c": "passed"}, {"s": "passed"})
    two = Findings("two", "", {"a": "passed", "b": "passed", "d": "passed"}, {"s": "failed", "t": "harness error"})
    assert list(differences([one, two])) == [
        "b: not applicable on one, passed on two",
        "c: passed on one, did not run on two",
        "d: did not run on one, passed on two",
    ]
    assert one.failures == []
    assert two.failures == ["s: failed", "t: harness error"]


def test_a_step_that_fails_or_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host("here", None, tmp_path)
    with pytest.raises(FailedError, match="here: `echo why; false` failed:\nwhy"):
        host.must("echo why; false")
    monkeypatch.setattr(matrix, "_STEP", 0.1)
    with pytest.raises(FailedError, match=r"waited 0 s for `exec sleep 60` to end"):
        host.must("exec sleep 60")


def test_a_store_is_lent_to_a_release(tmp_path: Path) -> None:
    store, work = tmp_path / "store", tmp_path / "trixie" / "root"
    for name in ("blobs/a", "images/dfly.json", "results/r.json"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text(name)
    for _ in range(2):  # once more, it is there
        lend(store, Host("trixie", work.parent, work))
    lent = work / ".local" / "share" / "dfly-harness"
    assert sorted(file.name for file in lent.rglob("*") if file.is_file()) == ["a", "dfly.json"]
    assert (lent / "blobs" / "a").samefile(store / "blobs" / "a")


def test_what_was_run_before_is_run_again_unless_one_goes_on(tmp_path: Path) -> None:
    host = Host("here", None, tmp_path)
    record = {"trouble": None, "results": [{"test": "a", "verdict": "passed"}]}
    (tmp_path / "suite.json").write_text(json.dumps(record))
    assert verdicts_on(host, "suite", "no-such-suite", go_on=True) == {"a": "passed"}
    with pytest.raises(FailedError, match="suite left no record"):
        verdicts_on(host, "suite", "no-such-suite")


@needs_checkout
@pytest.mark.on_vm
def test_this_host_is_tried(tmp_path: Path) -> None:
    argv = [sys.executable, "suites/support/matrix.py", "here", "--folder", str(tmp_path)]
    argv += ["--conformance", "-k 'test_wait and zombie'", "--selftests", "selftest/test_files.py selftest/test_elf.py"]
    done = subprocess.run(
        argv, cwd=share(), capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(share())}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cells = [cell.strip() for cell in done.stdout.strip().strip("|").split("|")]
    assert cells[2] == sys.version.split()[0]
    assert all(cells), cells
    assert "passed" in cells[5]
    assert "passed" in cells[6]

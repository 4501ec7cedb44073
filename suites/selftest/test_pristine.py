# SPDX-License-Identifier: BSD-2-Clause
"""--pristine: no test finds what another one left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import ExitCode, UsageError
from harness.guests.options import TargetOptions
from harness.runs.options import RunOptions

TESTS = """
import os
import pytest
from harness.processes import fails

@pytest.mark.parametrize("turn", range(3))
def test_nobody_was_here(init, turn):
    with fails("ENOENT"):
        init.open("/tmp/left", os.O_RDONLY)
    init.close(init.open("/tmp/left", os.O_WRONLY | os.O_CREAT))
"""


def run(folder: Path, *options: str) -> dict[str, object]:
    """Run the tests on the control guest, and return the record."""
    (folder / "test_them.py").write_text(TESTS)
    file = folder / "run.json"
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "harness.plugin.entry",
        "-q",
        "-n",
        "0",
        str(folder),
        "--dfly-control",
    ]
    argv += [f"--dfly-json={file}", "--dfly-no-again", *options]
    done = subprocess.run(argv, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode in {ExitCode.PASSED, ExitCode.TEST_FAILED}, done.stdout[-2000:] + done.stderr[-2000:]
    about: dict[str, object] = json.loads(file.read_text())
    return about


def verdicts(record: dict[str, object]) -> list[str]:
    results = record["results"]
    assert isinstance(results, list)
    return [result["verdict"] for result in results]


@pytest.mark.on_vm
def test_each_test_has_a_machine_of_its_own(tmp_path: Path) -> None:
    shared = run(tmp_path)
    assert (verdicts(shared), shared["starts"]) == (["passed", "failed", "failed"], 1)
    pristine = run(tmp_path, "--dfly-pristine")
    assert (verdicts(pristine), pristine["starts"]) == (["passed"] * 3, 3)


@pytest.mark.on_vm
def test_so_has_each_time_a_test_is_repeated(tmp_path: Path) -> None:
    repeated = run(tmp_path, "--dfly-pristine", "--dfly-repeat=2")
    assert (verdicts(repeated), repeated["starts"]) == (["passed"] * 3, 6)


def test_the_oracle_has_no_machine() -> None:
    with pytest.raises(UsageError, match="--pristine are about a machine"):
        RunOptions(TargetOptions(), oracle="", pristine=True)

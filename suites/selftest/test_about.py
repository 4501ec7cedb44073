# SPDX-License-Identifier: BSD-2-Clause
"""Tests are chosen by the function of the kernel they are about: `--function`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness.config import share
from harness.plugin.about import cited

CONFORMANCE = str(share() / "suites" / "conformance" / "test_wait.py")


@pytest.mark.parametrize(
    ("docstring", "names"),
    [
        (None, set()),
        ("Nothing is cited.", set()),
        ("EPERM (kern_prot.c: sys_setlogin).", {"sys_setlogin"}),
        ("Both (kern_exit.c: exit1, p_pptr; kern_proc.c: pgrel()).", {"exit1", "p_pptr", "pgrel"}),
        (
            "Prose may follow (kern_exit.c: kern_wait looks for zombies first, exit1 and pgrel drop it).",
            {"kern_wait", "exit1", "pgrel"},
        ),
        ("A file alone (tty.c), and one in words: kern_wait.", set()),
    ],
)
def test_functions_are_cited_behind_their_file(docstring: str | None, names: set[str]) -> None:
    assert cited(docstring) == names


def collected(name: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest", CONFORMANCE, "--collect-only", "-q", "--dfly-oracle"]
    return subprocess.run([*argv, f"--dfly-function={name}"], capture_output=True, text=True, cwd=share(), check=False)


def test_only_tests_about_the_function_are_run() -> None:
    done = collected("kern_wait")
    assert done.returncode == 0, done.stderr
    assert "deselected" in done.stdout
    assert "test_there_is_nobody_to_wait_for" in done.stdout


def test_a_function_no_test_is_about_is_a_mistake_of_the_users() -> None:
    done = collected("no_such_function")
    assert done.returncode != 0
    assert "no test is about no_such_function" in done.stderr + done.stdout

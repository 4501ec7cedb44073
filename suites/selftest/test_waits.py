# SPDX-License-Identifier: BSD-2-Clause
"""No wait for another program or its lock is without end: whoever waits says how long it may take."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[2] / "harness"
# What a person ends: an SSH session and debuggers.  What ends once it was killed, or is limited by timeout(1).  A lock
# on a file that nobody else has, and one that is given back.
EXCEPTIONS = {
    ("cli/debug.py", "subprocess.run"),
    ("cli/guests.py", "subprocess.run"),
    ("cli/replay.py", "subprocess.run"),
    ("cli/doctor.py", "subprocess.run"),
    ("kernels/build.py", "process.wait"),
    ("processes/connection.py", "_process.wait"),
    ("runs/hosts.py", "child.wait"),
    ("tether.py", "child.wait"),
    ("store.py", "fcntl.flock"),
    ("plugin/parallel.py", "fcntl.flock"),
}
_RUNNERS = {"run", "call", "check_call", "check_output"}
_PROCESSES = ("process", "child")


def endless(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of every wait for a program that has no end."""
    for node in ast.walk(tree):
        if isinstance(node, ast.withitem) and "FileLock(" in ast.unparse(node.context_expr):
            yield node.context_expr.lineno, "FileLock"
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        of = ast.unparse(node.func.value).rpartition(".")[2]
        name = f"{of}.{node.func.attr}"
        limited = bool({keyword.arg for keyword in node.keywords} & {"timeout", "deadline"})
        if of == "subprocess" and node.func.attr in _RUNNERS and not limited:
            yield node.lineno, name
        if name in {"fcntl.flock", "fcntl.lockf"} and "LOCK_NB" not in ast.unparse(node):
            yield node.lineno, name
        if node.func.attr == "acquire" and "lock" in of.lower() and not (limited or node.args):
            yield node.lineno, name
        is_program = of.endswith(_PROCESSES)
        if is_program and node.func.attr == "communicate" and not limited:
            yield node.lineno, name
        if is_program and node.func.attr == "wait" and not (limited or node.args):
            yield node.lineno, name


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("subprocess.run(argv)", ["subprocess.run"]),
        ("subprocess.run(argv, timeout=3)", []),
        ("self._process.wait()", ["_process.wait"]),
        ("child.wait(3)", []),
        ("child.communicate(text)", ["child.communicate"]),
        ("event.wait()", []),
        ("with FileLock(file): pass", ["FileLock"]),
        ("lock.acquire()", ["lock.acquire"]),
        ("lock.acquire(timeout=3)", []),
        ("fcntl.flock(file, fcntl.LOCK_EX)", ["fcntl.flock"]),
        ("fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", []),
    ],
)
def test_a_wait_without_end_is_seen(code: str, found: list[str]) -> None:
    assert [name for _, name in endless(ast.parse(code))] == found


def test_every_wait_for_a_program_or_a_lock_has_an_end() -> None:
    there = {
        (str(file.relative_to(HARNESS)), name)
        for file in HARNESS.rglob("*.py")
        for _, name in endless(ast.parse(file.read_text()))
    }
    assert there == EXCEPTIONS

# SPDX-License-Identifier: BSD-2-Clause
"""The order of the packages holds: each imports from itself and from those below, also inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.config import share

#: From the ground up; those on one line know nothing of each other.  docs/architecture.md shows the same.
ORDER = """
errors config files later unpack toolchain options visible tether threads
store
machine
images kernels
guests
install
processes
races
oracle results
coverage programs
report
runs
plugin compare bench mutation reproduce explore
bisect
calibration
cli
start
"""
LEVEL = {name: level for level, line in enumerate(ORDER.strip().splitlines()) for name in line.split()}
#: The ground floor may use itself.
_GROUND = 0
#: What results know: they are read by everybody, and depend on nothing that runs.
_FOR_RESULTS = {"errors", "config", "files", "store", "results"}
HARNESS = Path(__file__).parents[2] / "harness"
FILES = sorted(file for file in HARNESS.rglob("*.py") if file.parent != HARNESS or file.stem in LEVEL)


def package_of(file: Path) -> str:
    return file.relative_to(HARNESS).parts[0].removesuffix(".py")


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and package of every import of ours, wherever it is."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"harness.{each.name}" for each in node.names] if node.module == "harness" else [node.module]
        for name in names:
            if name.startswith("harness.") and not name.endswith("__version__"):
                yield node.lineno, name.split(".")[1]


def against_order(package: str, other: str) -> bool:
    if package == "results":
        return other not in _FOR_RESULTS
    same_level = LEVEL[other] == LEVEL[package] != _GROUND
    return other != package and (LEVEL[other] > LEVEL[package] or same_level)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HARNESS)))
def test_a_module_imports_from_its_package_and_from_those_below(file: Path) -> None:
    package = package_of(file)
    wrong = [
        f"{file}:{line}: harness.{package} imports harness.{other}"
        for line, other in imported(ast.parse(file.read_text()))
        if against_order(package, other)
    ]
    assert wrong == []


def test_an_import_against_the_order_is_seen_inside_a_function_too() -> None:
    tree = ast.parse("def f():\n    from harness.plugin.judge import Judge\n")
    assert [(line, against_order("results", other)) for line, other in imported(tree)] == [(2, True)]
    assert against_order("plugin", "compare")
    assert against_order("report", "bisect")
    assert not against_order("bisect", "plugin")


def test_every_package_has_its_place_and_the_page_on_architecture_shows_it() -> None:
    there = {package_of(file) for file in HARNESS.rglob("*.py")} - {"__init__"}
    assert there == set(LEVEL)
    page = (share() / "docs" / "architecture.md").read_text()
    assert ORDER.strip() in page

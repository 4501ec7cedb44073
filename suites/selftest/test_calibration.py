# SPDX-License-Identifier: BSD-2-Clause
"""What is said of kernels is as sure as it claims to be: small simulations by judges that share no assumption."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from harness.bisect.summary import calibration
from harness.calibration.bisect import KINDS
from harness.calibration.tables import Table, exceeds, tables
from harness.calibration.tables import share as share_of
from harness.cli import main
from harness.config import share
from harness.errors import ExitCode
from harness.results.bisection import Calibrated, Calibration

MODULE = Path(__file__).parents[2] / "harness/calibration/compare.py"


def test_the_tables_of_compare_keep_their_claims() -> None:
    for table in tables("compare", quick=True):
        assert table.misses == (), table.title


def test_the_command_shows_tables_and_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Table("Title", "at most 5%", ("what", "wrong"), (("a", "7%"),), ("a: 7%",))
    monkeypatch.setattr("harness.cli.calibrate.tables", lambda *_, **__: iter([shown]))
    assert main(["calibrate", "compare", "--json", str(tmp_path / "t.json")]) == ExitCode.TEST_FAILED
    (data,) = json.loads((tmp_path / "t.json").read_text())
    assert (data["subject"], data["misses"]) == ("compare", ["a: 7%"])
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "everything"])
    assert ended.value.code == ExitCode.USAGE


def test_what_bisect_quotes_is_what_the_command_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: dict[str, Any] = {
        "history": "a line",
        "failures": "50%",
        "level": 0.95,
        "claims": 200,
        "wrong": 3,
        "runs": 73.0,
    }
    shown = Table("Title", "at most 5%", ("what",), (("a",),), (), (figures,))
    monkeypatch.setattr("harness.cli.calibrate.tables", lambda *_, **__: iter([shown, replace(shown, figures=())]))
    monkeypatch.setattr("harness.cli.calibrate.CALIBRATION", tmp_path / "calibration.json")
    assert main(["calibrate", "bisect", "--keep"]) == ExitCode.PASSED
    kept = json.loads((tmp_path / "calibration.json").read_text())
    assert Calibration.from_json(kept).rows == (Calibrated(**figures),)
    for words in (["bisect", "--quick"], ["compare"]):
        with pytest.raises(SystemExit) as ended:
            main(["calibrate", *words, "--keep"])
        assert ended.value.code == ExitCode.USAGE


def test_the_figures_that_come_with_bisect_are_of_every_kind_of_failure() -> None:
    found = calibration()
    assert found is not None
    measured = {(row.failures, row.level) for row in found.rows}
    assert measured == set(product((kind.name for kind in KINDS), (0.95, 0.99)))
    assert len({row.history for row in found.rows}) == 3
    for row in found.rows:
        assert not exceeds(row.wrong, row.claims, 1 - row.level), row


def test_a_share_is_told_with_what_the_simulation_leaves_open() -> None:
    assert share_of(4, 57) == "7.0% (1.9 to 17.0)"
    assert share_of(0, 300) == "0.0% (0.0 to 1.2)"


def test_a_share_misses_its_bound_only_beyond_chance() -> None:
    assert not exceeds(5, 100, 0.05)
    assert not exceeds(9, 100, 0.05)
    assert exceeds(20, 100, 0.05)
    assert exceeds(80, 1000, 0.05)
    assert exceeds(3, 18, 0.01)
    assert not exceeds(3, 150, 0.01)
    assert not exceeds(0, 0, 0.01)


@pytest.mark.skipif(not (share() / "README.md").exists(), reason="an installed harness has no sources")
def test_the_simulator_imports_nothing_of_what_it_judges_but_its_interface() -> None:
    allowed = {
        "harness.calibration.processes",
        "harness.calibration.tables",
        "harness.compare.cost_judgement",
        "harness.compare.evidence",
        "harness.compare.retrial",
        "harness.results.certainty",
        "harness.results.comparison",
    }
    tree = ast.parse(MODULE.read_text())
    used = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert {name for name in used if name.startswith("harness")} <= allowed


def test_the_simulator_of_bisect_runs_from_a_script_that_cannot_be_imported(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from harness.calibration.pool import Pool, Row\n"
        "from harness.calibration.worlds import Kind, line\n"
        "rows = [Row('here', 0.95, Kind('always', 1.0), 20), Row('here', 0.95, Kind('half', 0.5), 5)]\n"
        "with Pool({'here': [line(8)]}) as pool:\n"
        "    made = pool.searches(rows, 600)\n"
        "    print(sum(found.is_right for found in made[rows[0]]), len(made[rows[1]]))\n"
        "    some = pool.searches(rows, 0)\n"
        "    print([len(made) for made in some.values()])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "20 5\n[0, 0]\n", done.stderr

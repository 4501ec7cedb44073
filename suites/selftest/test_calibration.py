# SPDX-License-Identifier: BSD-2-Clause
"""What is said of kernels is as sure as it claims to be: small simulations by judges that share no assumption."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.calibration.tables import Table, exceeds, tables
from harness.cli import main
from harness.config import share
from harness.errors import ExitCode

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


def test_a_share_misses_its_bound_only_beyond_chance() -> None:
    assert not exceeds(5, 100, 0.05)
    assert not exceeds(9, 100, 0.05)
    assert exceeds(20, 100, 0.05)
    assert exceeds(80, 1000, 0.05)


@pytest.mark.skipif(not (share() / "README.md").exists(), reason="an installed harness has no sources")
def test_the_simulator_imports_nothing_of_what_it_judges_but_its_interface() -> None:
    allowed = {
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
        "from harness.calibration.bisect import Kind, _Pool, line\n"
        "pool = _Pool(quick=True)\n"
        "print(sum(found.is_right for found in pool.searches(Kind('always', 1.0), [line(8)], 0.95)))\n"
        "pool.close()\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "20\n", done.stderr

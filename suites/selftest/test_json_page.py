# SPDX-License-Identifier: BSD-2-Clause
"""The page on JSON says what is printed: each command that has it, and each member."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cli import build_parser, main
from harness.config import share
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel
from harness.store import Store

PAGE = share() / "docs" / "json.md"
ROWS = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, command in action.choices.items():
                yield f"{name} {word}".strip(), command
                yield from commands(command, f"{name} {word}".strip())


def test_every_command_that_has_json_is_on_the_page_and_no_other() -> None:
    has = {
        name
        for name, parser in commands(build_parser())
        if any("--json" in action.option_strings for action in parser._actions)
    }
    named = {re.match(r"[a-z ]+?(?= [A-Z-])", row)[0] for row in ROWS if "--json" in row}  # type: ignore[index]
    assert named == has


def test_whoever_lists_something_lists_it_as_json_too() -> None:
    for name, parser in commands(build_parser()):
        if name.split()[-1] in {"list", "releases", "history", "doctor", "verify", "prune"}:
            assert any("--json" in action.option_strings for action in parser._actions), name


@pytest.mark.parametrize(
    "row", ["image list --json", "kernel list --json", "image releases --json", "store path --json",
            "store verify --json", "store prune --json", "history --json", "history TEST --json"],
)  # fmt: skip
def test_each_member_is_on_the_page(
    row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path))
    Store().put(BaseImage("base", disk="0" * 64, ssh_key="0" * 64))
    Store().put(Kernel("stock", elf="0" * 64, version="DragonFly v1"))
    record = {"target": "k", "started": "2026-01-02T03:04:05+00:00", "results": [
        {"test": "t.py::test_x", "verdict": "passed", "outcome": "passed", "seconds": 1}]}  # fmt: skip
    (Store().folder("results") / "2026-01-02T030405-7.json").write_text(json.dumps(record))
    if row in {"store verify --json", "store prune --json"}:
        for name in ("images/base.json", "kernels/stock.json"):
            (tmp_path / name).unlink()
    assert main([word if word != "TEST" else "test_x" for word in row.split()]) == 0
    said = json.loads(capsys.readouterr().out)
    members = set(re.findall(r"`(\w+)`", ROWS[row]))
    for each in said if isinstance(said, list) else [said]:
        assert set(each) == members
    assert ROWS[row].startswith("array" if isinstance(said, list) else "object")
    assert said


def test_a_record_is_printed_alone(tmp_path: Path) -> None:
    code = "import sys; from harness.cli import main; sys.exit(main())"
    argv = [
        sys.executable,
        "-c",
        code,
        "compare",
        "oracle",
        "oracle:setsid-for-leaders",
        "-k",
        "setsid_is_refused",
        "--json",
        "-",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300, cwd=share())
    record: dict[str, Any] = json.loads(done.stdout)
    assert record["kind"] == "comparison"
    assert "6 broken" in done.stderr
    assert not (share() / "-").exists()

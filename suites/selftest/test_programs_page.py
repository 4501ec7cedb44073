# SPDX-License-Identifier: BSD-2-Clause
"""What the page on programs tells people to do is done, as it stands, on the control guest."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from harness.cli import build_parser
from harness.config import share
from harness.programs.expectations import load_expectations
from harness.programs.formats import NAMES

PAGE = share() / "docs" / "programs.md"
RESULT = re.compile(r"=+ (.*?) in [\d.]+s")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_its_other_commands_exist() -> None:
    lines = [
        line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ dfly-harness")
    ]
    assert len(lines) > 6
    for line in lines:
        words = shlex.split(line)[1:]
        options, rest = build_parser().parse_known_args(words)
        if words[0] == "bisect":
            words = options.tests
        assert "--program" in words
        assert not rest or getattr(options, "takes_rest", False), line


def test_its_list_of_known_failures_is_one(tmp_path: Path) -> None:
    (block,) = blocks("toml")
    (tmp_path / "expected.toml").write_text(block)
    (entry,) = load_expectations(tmp_path / "os_exec.test")
    assert entry.is_about("os_exec.test", 600400)
    assert not entry.is_about("os_exec.test", 500000)


def test_it_names_every_format() -> None:
    table = PAGE.read_text().partition("| format |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z-]+)`", table)) >= set(NAMES) - {"auto"}

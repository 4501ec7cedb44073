# SPDX-License-Identifier: BSD-2-Clause
"""What the page on programs tells people to do is done, as it stands, on the control guest."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import build_parser
from harness.config import share
from harness.programs.expectations import load_expectations
from harness.programs.formats import NAMES

PAGE = share() / "docs" / "programs.md"
RESULT = re.compile(r"=+ (.*?) in [\d.]+s")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.on_vm
def test_the_commands_do_what_the_page_says(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    command = tools / "dfly-harness"
    code = "import sys; from harness.cli import main; sys.exit(main())"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n')
    command.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    script = "set -ex\n" + "\n".join(blocks("sh"))
    done = subprocess.run(
        ["sh", "-c", script], cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=580
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    came_to = RESULT.findall(done.stdout)
    assert [words.partition(",")[0] for words in came_to] == ["1 passed"] * 4, came_to
    assert "| passed | 3 |" in done.stdout  # of the report: the program, and two of its three cases
    assert "-rwx" in done.stdout
    assert "\ntable\n" in done.stdout


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
        assert "--program" in words or words[0] == "reproduce", line
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

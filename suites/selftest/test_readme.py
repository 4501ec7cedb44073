# SPDX-License-Identifier: BSD-2-Clause
"""What the README tells people to do can be done."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness.cli import build_parser
from harness.config import share

README = share() / "README.md"


def commands(script: str) -> list[list[str]]:
    """Return the dfly-harness commands of a shell SCRIPT as lists of words."""
    parts = re.split(r"&&|\|\||\n|;", re.sub(r"#.*", "", script))
    words = [shlex.split(part) for part in parts]
    return [line[1:] for line in words if line[:1] == ["dfly-harness"]]


def blocks(language: str, page: Path = README) -> list[str]:
    """Return the code blocks of PAGE in LANGUAGE."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def assert_understood(line: list[str]) -> None:
    options, rest = build_parser().parse_known_args(line)
    assert not rest or getattr(options, "takes_rest", False), f"dfly-harness {shlex.join(line)}: {rest}"
    assert all(word.startswith("--junitxml=") for word in rest), rest


@pytest.mark.skipif(not README.exists(), reason="an installed harness has no README")
def test_the_commands_it_shows_exist() -> None:
    lines = [line for block in blocks("sh") for line in commands(block)]
    assert len(lines) > 4
    for line in lines:
        assert_understood(line)

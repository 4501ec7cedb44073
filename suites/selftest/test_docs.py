# SPDX-License-Identifier: BSD-2-Clause
"""What the documentation tells people to do is done, as it stands, and what needs a DragonFly kernel is understood."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import build_parser, main
from harness.config import share

DOCS = share() / "docs"
#: Pages whose commands need a machine.
ON_VM = {"first-verdict"}
#: Pages with a selftest of their own.
APART = {"programs"}
PAGES = sorted(page for page in DOCS.glob("*.md") if page.stem not in APART)
_NAME = re.compile(r"# ([\w-]+\.\w+)\n")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def told(page: Path) -> list[list[str]]:
    """Return the dfly-harness commands in the blocks of PAGE that need a kernel."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    lines = [line for line in lines if line.startswith("$ dfly-harness ")]
    return [shlex.split(line, comments=True)[2:] for line in lines]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.on_vm] if page.stem in ON_VM else [], id=page.stem)
        for page in PAGES
        if blocks(page, "sh")
    ],
)
def test_the_commands_do_what_a_page_says(tmp_path: Path, page: Path) -> None:
    tools, work = tmp_path / "bin", tmp_path / "work"
    tools.mkdir()
    work.mkdir()
    command = tools / "dfly-harness"
    code = "import sys; from harness.cli import main; sys.exit(main())"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n')
    command.chmod(0o755)
    for block in blocks(page, "python"):
        if (name := _NAME.match(block)) is not None:
            (work / name[1]).write_text(block)
    done = subprocess.run(
        ["sh", "-c", "set -ex\n" + "\n".join(blocks(page, "sh"))],
        cwd=work,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-3000:]


@pytest.mark.parametrize("page", [page for page in PAGES if told(page)], ids=lambda page: page.stem)
def test_commands_that_need_a_kernel_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for words in told(page):
        for word in words:  # what is to be put into a guest is looked for at once
            if re.fullmatch(r"[\w-]+\.\w+", word):
                Path(word).touch()
        options, rest = build_parser().parse_known_args(words)
        understood = not rest or getattr(options, "takes_rest", False)
        assert understood, f"dfly-harness {shlex.join(words)}: {rest}"


def test_every_page_is_found_from_the_first() -> None:
    linked = set(re.findall(r"\]\(([\w-]+)\.md[)#]", (DOCS / "index.md").read_text()))
    there = {page.stem for page in DOCS.glob("*.md")}
    assert there - linked - {"index"} <= {"oracle-rules"}, "oracle-rules is linked from the architecture"
    assert linked <= there


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_no_link_is_dead(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_variable_of_the_environment_is_on_the_page_of_commands() -> None:
    page = (DOCS / "commands.md").read_text()
    read = re.compile(r'os\.environ(?:\.get\(|\[)"([A-Z_]+)"|_VARIABLE = "([A-Z_]+)"|"(DFLY_HARNESS_[A-Z]+)":')
    sources = (file.read_text() for file in (Path(__file__).parents[2] / "harness").rglob("*.py"))
    names = {name for source in sources for found in read.findall(source) for name in found if name}
    assert names >= {"DFLY_HARNESS_HOME", "DFLY_HARNESS_SSH", "DFLY_HARNESS_SEED", "CC"}
    ours = {"DFLY_HARNESS_TETHER"}  # by which a child of ours knows its parent
    assert {name for name in names - ours if f"`{name}`" not in page} == set()


def test_the_picture_of_a_run_is_made_of_a_record_and_fetches_nothing(tmp_path: Path) -> None:
    results = [
        {"test": "t.py::test_bad", "verdict": "failed", "seconds": 1, "reason": "E  assert 1 == 2"},
        {"test": "t.py::test_out", "verdict": "not applicable", "seconds": 0, "reason": "Skipped: no such call"},
    ]
    record, picture = tmp_path / "r.json", tmp_path / "run.svg"
    record.write_text(json.dumps({"target": "DragonFly: kernel k", "is_dragonfly": True, "results": results}))
    assert main(["report", str(record), "--svg", str(picture)]) == 0
    shown = html.unescape(re.sub(r"<[^>]*>", "", picture.read_text())).replace("\xa0", " ")
    for words in ("kernel k", "FAILED t.py::test_bad - assert 1 == 2", "no such call", "1 of 1 test speaks against"):
        assert words in shown, shown
    for file in (picture, DOCS / "run.svg"):
        assert not re.search(r"@import|url\((?!#)|<image|<script", file.read_text()), file
        assert "</svg>" in file.read_text()

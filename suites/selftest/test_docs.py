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
import tempfile
from pathlib import Path

import pytest

from harness.cli import build_parser, main
from harness.cli.commands import SUMMARIES
from harness.config import share

DOCS = share() / "docs"
#: Pages with a selftest of their own.
APART = {"programs"}
PAGES = sorted(page for page in DOCS.glob("*.md") if page.stem not in APART)
CONTRIBUTING = share() / "CONTRIBUTING.md"
#: All that is for people; the pages of commands and errors are made from the sources.
TEXTS = sorted(
    page
    for page in (*DOCS.glob("*.md"), *share().glob("README.md"), *share().glob("CONTRIBUTING.md"))
    if page.stem not in {"commands", "errors"}
)
#: How commands of others begin that pages tell: each needs a tool chain that is no part of this.
OTHERS = {"GOOS=dragonfly GOARCH=amd64", "cargo test", 'eval "$(dfly-harness'}
_NAME = re.compile(r"# ([\w-]+\.\w+)\n")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def inline(page: Path) -> list[str]:
    """Return the dfly-harness commands with more than one word in the text of PAGE, without what a shell does."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = [" ".join(each.split()) for each in re.findall(r"(?<!`)`dfly-harness ([^`]*)`", text)]
    return [each.partition(" > ")[0] for each in found]


def shown(page: Path) -> list[str]:
    """Return the lines of text that PAGE shows right after commands that are run, as what these say."""
    found = re.findall(r"^```sh\n[^`]*^```\n\n```text\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines() if line]


def without_times(text: str) -> str:
    """Return TEXT without what differs from host to host."""
    return re.sub(r"Linux \S+", "Linux", re.sub(r"\bin \d+ s\b", "in a while", text))


def told(page: Path) -> list[list[str]]:
    """Return the dfly-harness commands in the blocks of PAGE that need a kernel."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    lines = [line for line in lines if line.startswith("$ dfly-harness ")]
    return [shlex.split(line, comments=True)[2:] for line in lines]


def run_as_told(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run SCRIPT in FOLDER, where dfly-harness is the one of this checkout."""
    code = "import sys; from harness.cli import main; sys.exit(main())"
    with tempfile.TemporaryDirectory() as tools:
        command = Path(tools) / "dfly-harness"
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n')
        command.chmod(0o755)
        return subprocess.run(
            ["sh", "-c", f"set -ex\n{script}"],
            cwd=folder,
            env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=580,
        )


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, marks=[pytest.mark.on_vm] if "--control" in "".join(blocks(page, "sh")) else [], id=page.stem
        )
        for page in PAGES
        if blocks(page, "sh")
    ],
)
def test_the_commands_do_what_a_page_says(tmp_path: Path, page: Path) -> None:
    for block in blocks(page, "python"):
        if (name := _NAME.match(block)) is not None:
            (tmp_path / name[1]).write_text(block)
    done = run_as_told("\n".join(blocks(page, "sh")), tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-3000:]
    said = without_times(done.stdout + done.stderr)
    for line in shown(page):
        assert without_times(line) in said, line


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


@pytest.mark.parametrize("page", [page for page in TEXTS if inline(page)], ids=lambda page: page.stem)
def test_commands_that_are_named_in_a_text_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for line in inline(page):
        words = shlex.split(line)
        if len(words) == 1:
            assert words[0] in SUMMARIES, line
            continue
        options, rest = build_parser().parse_known_args(words)
        assert not rest or getattr(options, "takes_rest", False), f"dfly-harness {line}: {rest}"


def test_what_else_is_told_to_do_is_there() -> None:
    """The commands of blocks that are not ours: scripts of the checkout, and three of others that need their tools."""
    lines = [
        line for page in sorted(DOCS.glob("*.md")) for each in blocks(page, "console") for line in each.splitlines()
    ]
    others = [line.split()[1:] for line in lines if line.startswith("$ ") and not line.startswith("$ dfly-harness ")]
    scripts = [words for words in others if words[0] == "python"]
    assert {" ".join(words[:2]) for words in others if words[0] != "python"} == OTHERS
    for words in scripts:
        assert (share() / words[1]).is_file(), words


@pytest.mark.skipif(not CONTRIBUTING.exists(), reason="an installed harness has no CONTRIBUTING")
def test_the_commands_of_contributing_find_tests() -> None:
    (script,) = blocks(CONTRIBUTING, "sh")
    done = run_as_told(script, share())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-3000:]
    assert "pgrel" in script
    assert all(name in done.stdout for name in ("test_wait.py", "::test_", "suites/regressions/"))


def test_the_first_page_shows_what_its_commands_say_without_a_machine(tmp_path: Path) -> None:
    page = DOCS / "first-verdict.md"
    assert len(shown(page)) > 6
    script = "\n".join(block for block in blocks(page, "sh") if "--control" not in block)
    done = run_as_told(script, tmp_path)
    said = without_times(done.stdout + done.stderr)
    lines = [line for line in shown(page) if "ORACLE" in line or "broken" in line or "14 of" in line]
    assert len(lines) == 4
    for line in lines:
        assert without_times(line) in said, line


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

# SPDX-License-Identifier: BSD-2-Clause
"""The pages of the documentation that are made from tests and rules are what these say."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from harness.errors import HarnessError
from support import eras, pages
from support.errors import _said, kinds_of


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of one page, which has its own maker."""
    monkeypatch.setattr(pages, "PAGES", {"eras": "eras"})
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


def made(monkeypatch: pytest.MonkeyPatch, make: Callable[[], str]) -> None:
    monkeypatch.setattr(eras, "make", make)


def test_the_pages_are_up_to_date() -> None:
    """In a process of its own, as it collects all suites."""
    command = [sys.executable, "suites/support/pages.py", "--check"]
    done = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_page_out_of_date_is_noticed_and_written_again(
    docs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made(monkeypatch, lambda: "old\n")
    assert pages.main(["--check"]) == 1
    assert pages.main(["eras"]) == 0
    assert pages.main(["--check"]) == 0
    assert (docs / "eras.md").read_text() == "old\n"
    capsys.readouterr()
    made(monkeypatch, lambda: "new\n")
    assert pages.main(["--check"]) == 1
    assert capsys.readouterr().err == "docs/eras.md is out of date: python suites/support/pages.py eras\n"
    assert (docs / "eras.md").read_text() == "old\n"


def test_what_cannot_be_made_is_no_page(
    docs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise ValueError("a mark says too little")

    made(monkeypatch, fail)
    assert pages.main([]) == 2
    assert capsys.readouterr().err == "a mark says too little\n"
    assert not list(docs.iterdir())


def test_an_unknown_page_is_a_mistake_in_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        pages.main(["nonsense"])
    assert ended.value.code == 2
    assert (
        "no page is called nonsense; there are: api, commands, eras, errors, known-defects" in capsys.readouterr().err
    )


def test_the_page_of_errors_has_what_is_raised_with_words_and_nothing_else() -> None:
    code = (
        "class LostError(GuestLostError):\n    def __init__(self, x):\n        super().__init__(f'{x} got lost')\n"
        "class OtherError(ValueError):\n    def __init__(self):\n        super().__init__('not for users')\n"
        "raise UsageError(f'no {kind} {name!r} here')\n"
        "raise HarnessError('one ' + f'{two} ' + 'three | four') from error\n"
        "raise HarnessError(str(error))\n"
        "raise LostError('who')\n"
        "raise ValueError('not for users')\n"
        "def made(): return LostError('five six')\n"
        "raise\n"
    )
    tree = ast.parse(code)
    assert sorted(_said(tree, kinds_of([tree]))) == [
        ("GuestLostError", "five six"),
        ("GuestLostError", "who"),
        ("GuestLostError", "… got lost"),
        ("HarnessError", "one … three | four"),
        ("UsageError", "no … … here"),
    ]


def test_every_error_of_the_harness_has_its_kind_on_the_page_of_errors() -> None:
    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        if not module.name.startswith(("harness._share", "harness.programs.standalone")):
            importlib.import_module(module.name)
    classes = [HarnessError]
    for each in classes:
        classes += [derived for derived in each.__subclasses__() if derived.__module__.startswith("harness.")]
    sources = [ast.parse(file.read_text()) for file in (pages.ROOT / "harness").rglob("*.py")]
    assert len(classes) > 20
    assert {each.__name__ for each in classes} <= kinds_of(sources).keys()
    page = (pages.ROOT / "docs" / "errors.md").read_text()
    for words in ("the guest's kernel panicked: …", "QEMU was killed by signal … as it started", "does not apply: …"):
        assert words in page, words


def test_the_page_of_errors_names_what_is_met_most() -> None:
    page = (pages.ROOT / "docs" / "errors.md").read_text()
    for words in ("cannot be written: there is no folder …", "there is no record …", "has no debug file"):
        assert words in page, words

# SPDX-License-Identifier: BSD-2-Clause
"""What others wrote is data: paths in a user's shell, names in a guest's, files that change, text on a terminal."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.live import Live
from testkernel import build_kernel as build_test_kernel

from harness.errors import UsageError
from harness.kernels.build import CommandBuilder, build_kernel
from harness.kernels.source import KERN_PROC, SourceTree, open_source
from harness.report.live import Board
from harness.report.summary import run_markdown
from harness.report.terminal import GuardedConsole, print_table, progress_display
from harness.results.record import RunRecord
from harness.store import Store, digest_of
from harness.visible import visible

# Sets the title, moves the cursor up and hides what was there; the last is ESC [ in one character.
HOSTILE = "panic:\x1b]0;owned\x07 \x1b[2A\x1b[2K\x08\r all is well \x9b2J\u202e"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def source(folder: Path, store: Store) -> SourceTree:
    file = folder / "tree" / KERN_PROC
    file.parent.mkdir(parents=True)
    file.write_text("struct proc *pfind(pid_t pid);\n")
    return open_source(store, folder / "tree")


class TestBuildCommand:
    """The user's shell never evaluates a path or a name that we put there."""

    @pytest.mark.parametrize(
        "command",
        [
            "cp {kernel} {{output}} # {{source}}",
            'cp {kernel} "{{output}}" # {{source}}',
            "cp {kernel} '{{output}}' # {{source}}",
            "sh -c 'cp {kernel} {{output}}' # {{source}}",
            "sh -c 'cp {kernel} \"{{output}}\"' # {{source}}",
            'eval "cp {kernel} {{output}}" # {{source}}',
        ],
    )
    @pytest.mark.parametrize("name", ["$(touch owned)", "a' \"; touch owned; '"])
    def test_a_path_is_never_evaluated_however_it_is_quoted(
        self, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, command: str, name: str
    ) -> None:
        kernel = build_test_kernel(tmp_path_factory.getbasetemp() / "testkernel")
        home = tmp_path / name / "store"
        made = build_kernel(Store(home), source(tmp_path, Store(home)), CommandBuilder(command.format(kernel=kernel)))
        assert made.elf is not None
        assert not list(tmp_path.rglob("owned"))

    def test_where_no_path_is_plain_that_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        odd = tmp_path / "$(touch owned)"
        odd.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(odd))
        with pytest.raises(UsageError, match="a path that no shell evaluates") as caught:
            build_kernel(
                Store(odd / "store"), source(tmp_path, Store(odd / "store")), CommandBuilder("cp {source} {output}")
            )
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("config", ["X; touch owned", "$(touch owned)", "a b", "../X", "", "-f", "X\n", "X'"])
    def test_a_configuration_is_a_name(self, tmp_path: Path, store: Store, config: str) -> None:
        class Refusing:
            identity = "refusing"

            def build(self, job: object) -> None:
                raise AssertionError(job)

        with pytest.raises(UsageError, match="names no kernel configuration"):
            build_kernel(store, source(tmp_path, store), Refusing(), config=config)  # type: ignore[arg-type]


class TestBlobs:
    """A blob is what its name says, whoever writes to the file meanwhile."""

    @pytest.mark.parametrize("move", [True, False])
    def test_a_file_that_changes_while_it_is_taken_in(
        self, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, move: bool
    ) -> None:
        file = tmp_path / "disk"
        file.write_text("before")

        def changing(path: Path) -> str:
            digest = digest_of(path)
            if path == file:
                file.write_text("after, and longer")
            return digest

        monkeypatch.setattr("harness.store.digest_of", changing)
        digest = store.add_blob(file, move=move)
        assert digest == digest_of(store.blob(digest))


def assert_harmless(text: str) -> None:
    assert [each for each in text if each not in "\n\t" and not each.isprintable()] == []


class TestTerminal:
    """Nothing that a guest says is obeyed by the terminal."""

    def test_what_is_not_printed_becomes_its_code(self) -> None:
        assert visible("a\tb\n\x1b[2J\x9bé") == "a\tb\n\\x1b[2J\\x9bé"
        assert_harmless(visible(HOSTILE))

    def test_all_that_goes_through_a_console(self) -> None:
        out = io.StringIO()
        console = GuardedConsole(file=out, width=200)
        console.print(HOSTILE, markup=False)
        console.print(HOSTILE, style="bold", markup=False, soft_wrap=True)
        print_table(console, ("A",), [(HOSTILE,)])
        with progress_display(HOSTILE, console) as progress:
            progress(HOSTILE)
        assert_harmless(out.getvalue())
        assert out.getvalue().count("all is well") == 5

    def test_the_board_keeps_its_own_sequences_only(self) -> None:
        out = io.StringIO()
        console = GuardedConsole(file=out, width=200, force_terminal=True, legacy_windows=False)
        board = Board(HOSTILE)
        board.begins(HOSTILE)
        board.step = HOSTILE
        with Live(board, console=console, auto_refresh=False) as live:
            live.refresh()
        assert "owned" in out.getvalue()
        assert "\x1b]0;" not in out.getvalue()
        assert "\x07" not in out.getvalue()
        assert "\x9b" not in out.getvalue()
        assert "\x1b[" in out.getvalue()

    def test_the_summary_for_ci(self) -> None:
        result = {"test": "t.py::test_a", "outcome": "failed", "verdict": "failed", "reason": HOSTILE}
        assert_harmless(run_markdown(RunRecord.from_json({"target": HOSTILE, "results": [result]})))

    @pytest.mark.parametrize("workers", ["0", "1"])
    def test_failures_that_pytest_prints(self, tmp_path: Path, workers: str) -> None:
        (tmp_path / "test_hostile.py").write_text(
            f"import pytest\nHOSTILE = {HOSTILE!r}\n"
            "def fails():\n    raise RuntimeError(HOSTILE)\n"
            "def test_error(init):\n    print(HOSTILE)\n    fails()\n"
            "def test_chained(init):\n"
            "    try:\n        fails()\n"
            "    except RuntimeError as error:\n        raise ValueError(HOSTILE) from error\n"
            "def test_skipped(init):\n    pytest.skip(HOSTILE)\n"
            "def test_failed(init):\n    pytest.fail(HOSTILE, pytrace=False)\n"
        )
        argv = [sys.executable, "-m", "pytest", "-p", "harness.plugin.entry", f"--rootdir={tmp_path}", "--dfly-oracle",
                "-rA", "--color=no", "-n", workers, "test_hostile.py"]  # fmt: skip
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False)
        assert b"3 failed, 1 skipped" in done.stdout
        assert_harmless(done.stdout.decode())

# SPDX-License-Identifier: BSD-2-Clause
"""Files appear whole or not at all, and a file that nobody can write is refused before any work is done."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.cli import main
from harness.config import share
from harness.files import write_whole


def test_it_is_written_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "f"
    for content in ("one", b"two", "drei: ä"):
        write_whole(file, content, durable=True)
        assert file.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert os.listdir(tmp_path) == ["f"]


def test_a_private_file_is_never_seen_by_others(tmp_path: Path) -> None:
    write_whole(tmp_path / "key", "secret", mode=0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "text")
    reader.join(20)
    assert seen == ["text"]


def test_nothing_half_is_left_where_the_disk_is_full(tmp_path: Path) -> None:
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); "
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "from pathlib import Path; from harness.files import write_whole; "
    file = tmp_path / "f"
    file.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", f"{limited}write_whole(Path({str(file)!r}), 'x' * 100)"],
        cwd=share(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "File too large" in done.stderr
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--oracle", "--json"],
        ["run", "--oracle", "--html"],
        ["compare", "oracle", "oracle", "--json"],
        ["compare", "oracle", "oracle", "--html"],
        ["compare", "oracle", "oracle", "--markdown"],
        ["bisect", "--json"],
        ["bisect", "--html"],
        ["bisect", "--export-log"],
        ["bench", "--json"],
        ["calibrate", "bisect", "--json"],
        ["report", "--html"],
        ["report", "--json"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(("place", "why"), [("none/f", "there is no folder"), (".", "is a folder: name a file in it")])
def test_a_file_nobody_can_write_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], place: str, why: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, str(tmp_path / place)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].count(why) == 1, said
    assert words[-1] in said


@pytest.mark.parametrize("words", [["bench", "--scale"], ["bench", "--against"], ["replay"]])
def test_a_pipe_nobody_writes_to_is_no_record_and_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "store"))
    os.mkfifo(tmp_path / "pipe")
    assert main([*words, str(tmp_path / "pipe"), *(["x", "--check"] if words == ["replay"] else [])]) == 2
    assert "nobody writes to this pipe" in capsys.readouterr().err


def test_a_shells_pipe_is_read_as_a_file_however_slow_the_writer() -> None:
    code = "from harness.files import read_file; from pathlib import Path; print(read_file(Path('/dev/stdin')), end='')"
    line = f"(sleep 1.5; echo first; sleep 0.2; echo second) | {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "first\nsecond\n", done.stderr

# SPDX-License-Identifier: BSD-2-Clause
"""Files go into guests and come back as they were, and a guest that is held is there for other commands."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.guests.copying import PLACE, Put
from harness.guests.held import held_names
from harness.store import Store

CLI = (sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())")
COMMAND = shlex.join(CLI)
BYTES = bytes(range(256)) * 4000
READS = "def test_it(guest):\n    assert guest.ssh.run('cat /tmp/words.txt').output == 'words'\n"


def run(*words: str | Path, given: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*CLI, *map(str, words)], input=given, capture_output=True, check=False, timeout=240, cwd=cwd)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    (folder / "tree" / "deep").mkdir(parents=True)
    (folder / "tree" / "deep" / "bytes").write_bytes(BYTES)
    (folder / "script").write_text("#!/bin/sh\necho ran\n")
    (folder / "script").chmod(0o755)
    (folder / "words.txt").write_text("words")
    return folder


def last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    errors = done.stderr.decode()
    assert "Traceback" not in errors
    return errors.strip().splitlines()[-1]


# Refused: the status and what the last line says.
WRONG = {
    "copy guest:/no/such/file .": "reading /no/such/file in the guest: there is no such file",
    "copy words.txt guest:/no/such/": "",  # made
    "copy words.txt script guest:/no/such/words.txt": "is no folder in the guest",
    "copy no_such guest:/tmp/": "there is no file no_such",
    "copy other:/tmp/x .": "there is no guest called other (guest)",
    "copy words.txt guest:/tmp guest:/root": "from this host to one guest",
    "hold --control true": "there is a guest called guest already",
}


@pytest.mark.on_vm
def test_a_held_guest_takes_files_and_gives_them_back(files: Path, tmp_path: Path) -> None:
    lines = [
        f"{COMMAND} copy words.txt tree script guest:/root/new/",
        f"{COMMAND} shell --guest guest '/root/new/script; cat > /root/given' < tree/deep/bytes",
        f"{COMMAND} copy guest:/root/new/tree guest:/root/given {tmp_path}/back",
        f"{COMMAND} copy guest:/root/new/words.txt {tmp_path}/other",
    ]
    wrong = [f"{COMMAND} {words}; echo status $? >&2" for words in WRONG]
    (tmp_path / "back").mkdir()
    script = "set -ex\n" + "\n".join(lines) + "\nset +ex\n" + "\n".join(wrong) + "\nexit 7\n"
    done = run("hold", "--control", "--", "sh", "-c", script, cwd=files)
    assert done.returncode == 7, done.stderr.decode()
    assert done.stdout == b"ran\n"
    assert (tmp_path / "back" / "tree" / "deep" / "bytes").read_bytes() == BYTES
    assert (tmp_path / "back" / "given").read_bytes() == BYTES
    assert (tmp_path / "other").read_text() == "words"
    said = done.stderr.decode()
    assert "Traceback" not in said
    assert said.count("status 2") == sum(bool(each) for each in WRONG.values()), said
    assert [each for each in WRONG.values() if each not in said] == []
    assert held_names(Store()) == []


def test_without_a_held_guest_it_is_said_how_to_get_one(files: Path) -> None:
    done = run("copy", files / "words.txt", "guest:/tmp/")
    assert done.returncode == 2
    assert last_line(done).endswith(
        "there is no guest called guest (none is held; in another terminal: dfly-harness hold)"
    )
    assert run("shell", "--guest", "x", "--control", "true").returncode == 2


@pytest.mark.on_vm
def test_a_command_has_our_standard_input_and_what_was_put(files: Path) -> None:
    done = run("shell", "--control", "--put", files / "script", f"{PLACE}/script; cat; exit 3", given=BYTES)
    assert (done.returncode, done.stdout) == (3, b"ran\n" + BYTES)
    assert b"resum" not in done.stderr  # nothing went wrong on the way


@pytest.mark.on_vm
def test_a_command_that_reads_no_more_is_not_waited_for(files: Path) -> None:
    done = run("shell", "--control", "head -c 3", given=BYTES * 10)
    assert (done.returncode, done.stdout) == (0, BYTES[:3])


@pytest.mark.on_vm
def test_each_guest_of_a_run_finds_what_was_put(files: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(READS)
    test = tmp_path / "test_it.py"
    assert run("run", "--control", test, "--put", files / "words.txt", "-q").returncode == 0
    done = run("run", "--control", test, "--put", files / "no_such")
    assert done.returncode == 2
    assert "there is no file" in last_line(done)


def test_where_a_file_goes_is_said_after_the_last_colon(tmp_path: Path) -> None:
    odd = tmp_path / "a:b"
    odd.touch()
    assert Put.parse(str(odd)) == Put(odd, f"{PLACE}/a:b")
    assert Put.parse(f"{odd}:/root/x") == Put(odd, "/root/x")
    assert Put.parse(str(Put(odd, "/root/x"))) == Put(odd, "/root/x")
    with pytest.raises(ValueError, match="there is no file"):
        Put.parse(str(tmp_path / "c:/root/x"))


def test_a_copy_from_here_to_here_is_none(files: Path) -> None:
    assert run("copy", files / "words.txt", files).returncode == 2

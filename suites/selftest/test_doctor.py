# SPDX-License-Identifier: BSD-2-Clause
"""doctor tells what a host lacks, and calls nothing fit that is not."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main
from harness.cli.doctor import _install, _is_there, _ways_to
from harness.errors import DeadlineError

Doctor = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Return how to call it on a host that lacks no program, with a store of its own."""
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "store"))
    monkeypatch.setattr("harness.cli.doctor._missing", list)
    monkeypatch.setattr("harness.cli.doctor._accelerators", lambda _: "tcg")

    def call(*words: str) -> tuple[int, str]:
        return main(["doctor", *words]), capsys.readouterr().out

    return call


def test_doctor_does_not_wait_for_apt_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\nexec sleep 600\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("harness.cli.doctor._APT_SECONDS", 1.0)
    with pytest.raises(DeadlineError, match=r"waited 1 s for .*apt-get update -q` to end"):
        _install(["qemu-utils"])


def test_doctor_says_what_is_missing_and_what_goes_without_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in {"zstd", "chromium"} else f"/bin/{name}")
    assert main(["doctor"]) == 3
    said = capsys.readouterr().out
    assert "MISSING zstd: kernel modules of the control guest (package zstd; doctor --fix installs it)" in said
    assert "not installed" not in said  # another Chromium will do
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(["doctor"]) == 3
    assert "note    chromium: not installed: selftests look at the report pages in it" in capsys.readouterr().out


def test_doctor_knows_a_compiler_without_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = tmp_path / "cc"  # as Debian's gcc is where what it recommends is not installed
    compiler.write_text('#!/bin/sh\ngrep -q "#include" && exit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert main(["doctor"]) == 3
    said = capsys.readouterr().out
    assert "MISSING fcntl.h: which code of a kernel runs (run --coverage) (package libc6-dev" in said
    compiler.write_text("#!/bin/sh\nexit 0\n")
    assert _is_there("fcntl.h")
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    assert _is_there("stdio.h")  # by gcc, then


def test_doctor_as_json_has_every_line(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cli.doctor._missing", list)
    monkeypatch.setattr("harness.cli.doctor._accelerators", lambda _: "tcg")
    status, output = doctor("--json")
    found = {finding["name"]: finding for finding in json.loads(output)}
    assert status == 0
    assert found["QEMU"]["state"] == found["store"]["state"] == "ok"
    assert "GiB free" in found["store"]["text"]
    assert found["target"]["state"] == "note"


def test_doctor_does_not_call_a_full_or_a_foreign_store_fit(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.cli.doctor._missing", list)
    monkeypatch.setattr("harness.cli.doctor._accelerators", lambda _: "tcg")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
        status, output = doctor()
    assert status == 3
    assert "FAILED  store: no room for a run" in output
    with monkeypatch.context() as full:  # room for a record, and for no target that is not there yet
        full.setattr(shutil, "disk_usage", lambda _: usage._replace(free=800 << 20))
        status, output = doctor()
    assert status == 3
    assert "FAILED  store: no room for the target's warm state: 832 MiB needed" in output
    with monkeypatch.context() as low:
        low.setattr(shutil, "disk_usage", lambda _: usage._replace(free=900 << 20))
        status, output = doctor()
    assert status == 0
    assert "900 MiB free" in output

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("harness.store.tempfile.mkdtemp", refuse)
    status, output = doctor()
    assert status == 3
    assert "cannot be written to: Permission denied" in output


def test_doctor_knows_a_qemu_that_reaches_no_guest(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.cli.doctor._missing", list)
    monkeypatch.setattr("harness.cli.doctor._accelerators", lambda _: "tcg")
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text("#!/bin/sh\ncase $1 in -netdev) echo socket; echo tap;; *) echo QEMU emulator version 9.9;; esac\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    status, output = doctor()
    assert status == 3
    assert "was built without user networking (slirp)" in output


@pytest.mark.parametrize("folder", ["cache", "locks", "results", "run"])
def test_doctor_looks_at_every_folder_a_run_writes_to(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    assert doctor()[0] == 0
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != folder and access(path, mode))
    status, output = doctor()
    assert status == 3
    assert "FAILED  store: the store" in output
    assert "cannot be written (Permission denied): set DFLY_HARNESS_HOME to a writable" in output


@pytest.mark.parametrize(
    ("mode", "group", "members", "said"),
    [
        (0o660, 117, [], ["`sudo usermod -aG kvm bill`, and log in anew", "or for everybody: the line KERNEL"]),
        (0o660, 117, ["bill"], ["bill has joined the group kvm, and this login does not know it: log in anew"]),
        (0o600, 117, ["bill"], ["it is kvm's alone; the line KERNEL"]),
        (0o660, 0, [], ["it is kvm's alone; the line KERNEL"]),
        (0o660, None, [], ["the line KERNEL"]),
    ],
)
def test_the_way_to_a_device_is_that_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, group: int | None, members: list[str], said: list[str]
) -> None:
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(mode)

    def known(_: int) -> grp.struct_group:
        if group is None:
            raise KeyError
        return grp.struct_group(("kvm", "x", group, members))

    monkeypatch.setattr(grp, "getgrgid", known)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd(("bill", "x", 1, 1, "", "/", "/bin/sh")))
    ways = _ways_to(device)
    assert len(ways) == len(said)
    assert all(way.startswith(words) for way, words in zip(ways, said, strict=True))

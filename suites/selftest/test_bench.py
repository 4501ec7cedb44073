# SPDX-License-Identifier: BSD-2-Clause
"""How long it takes from a command line to the first test, measured on the control guest."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.bench.bench import seconds_to_first_test
from harness.bench.peers import VirtmeNg
from harness.errors import HarnessError, UsageError
from harness.guests.guest import MachineSize
from harness.machine.description import Accelerator


@pytest.mark.on_vm
def test_the_way_to_the_first_test_is_timed() -> None:
    before = time.monotonic()
    seconds = seconds_to_first_test(["--control"])
    assert 0.2 < seconds < time.monotonic() - before


def test_a_run_that_fails_gives_no_time() -> None:
    with pytest.raises(HarnessError, match="no image 'nobody-made-this'"):
        seconds_to_first_test(["--image", "nobody-made-this"])


def a_peer(folder: Path, script: str) -> VirtmeNg:
    program = folder / "vng"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return VirtmeNg(folder / "vmlinuz")


class TestPeer:
    """virtme-ng side by side, by a stand-in for it."""

    @pytest.fixture(autouse=True)
    def only_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

    def test_a_host_without_it_is_told_what_to_install(self) -> None:
        with pytest.raises(UsageError, match="pip install virtme-ng"):
            VirtmeNg.found()

    def test_it_gets_the_same_machine_and_its_command_must_have_run(self, tmp_path: Path) -> None:
        said = tmp_path / "said"
        peer = a_peer(tmp_path, f'echo "$@" >{said}; while [ "$1" != -- ]; do shift; done; shift; "$@"')
        assert 0 < peer.run_a_command(MachineSize(memory=640), Accelerator.TCG) < 30
        assert f"--run {tmp_path}/vmlinuz --memory 640M --cpus 1 --disable-kvm --" in said.read_text()
        assert peer.run_a_command(MachineSize(), Accelerator.KVM) > 0
        assert "--disable-kvm" not in said.read_text()

    def test_a_machine_that_ran_nothing_has_no_time(self, tmp_path: Path) -> None:
        peer = a_peer(tmp_path, "echo no 9p >&2; exit 1")
        with pytest.raises(HarnessError, match="virtme-ng did not run the command: no 9p"):
            peer.run_a_command(MachineSize(), Accelerator.TCG)

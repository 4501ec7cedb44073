"""Accelerators are judged by running a guest, and verdicts are remembered."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.machine.accel import best_accelerator, probe_accelerators
from harness.machine.description import Accelerator
from harness.machine.qemu import find_qemu

Guests = Callable[[], list[subprocess.Popen[bytes]]]
KVM, NVMM, HVF, TCG = Accelerator.KVM, Accelerator.NVMM, Accelerator.HVF, Accelerator.TCG

FAKE = """#!/bin/sh
# Stands in for QEMU: what it does depends on the accelerator.
if [ "$1" = --version ]; then
	cat "$0.version"
	exit
fi
echo run >> "$0.runs"
for argument; do
	case $argument in
	kvm)	exec sleep 600 ;;
	nvmm)	echo "$0: -accel nvmm: No accelerator found" >&2; exit 1 ;;
	hvf)	echo "dfly-harness probe: no 64-bit mode"; exit 91 ;;
	tcg)	echo "dfly-harness probe: 64-bit mode reached"; exit 171 ;;
	esac
done
exit 3
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """Return a QEMU under which KVM hangs, NVMM is not built in, HVF is broken and TCG works."""
    program = tmp_path / "qemu"
    program.write_text(FAKE)
    program.chmod(0o755)
    Path(f"{program}.version").write_text("QEMU emulator version 1.0\n")
    return program


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch) -> Guests:
    """Return what tells the guests started so far; one that is killed soon may not have come to say so itself."""
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        """A process that is noted."""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    return lambda: [each for each in started if isinstance(each.args, list) and "-accel" in each.args]


def runs(fake: Path) -> int:
    """Return how many guests were started."""
    file = Path(f"{fake}.runs")
    return file.read_text().count("run") if file.exists() else 0


def test_each_accelerator_gets_its_reason(fake: Path, cache: Path) -> None:
    probe_accelerators(fake, cache, [KVM], deadline=0.3)
    kvm, nvmm, hvf, tcg = probe_accelerators(fake, cache, deadline=60)
    assert [verdict.accelerator for verdict in (kvm, nvmm, hvf, tcg)] == [KVM, NVMM, HVF, TCG]
    assert [verdict.usable for verdict in (kvm, nvmm, hvf, tcg)] == [False, False, False, True]
    opens = "/dev/kvm opens but " if os.access("/dev/kvm", os.R_OK | os.W_OK) else ""
    assert str(kvm) == f"kvm: {opens}the probe hung for 0.3 s"
    assert str(nvmm) == "nvmm: the probe did not run (-accel nvmm: No accelerator found)"
    assert str(hvf) == "hvf: the probe did not run (dfly-harness probe: no 64-bit mode)"
    assert str(tcg).startswith("tcg: the probe ran in ")
    assert kvm.seconds >= 0.3


def test_a_hanging_probe_is_killed_and_reaped(fake: Path, cache: Path, guests: Guests) -> None:
    probe_accelerators(fake, cache, [KVM], deadline=0.3)
    (guest,) = guests()
    assert guest.returncode == -signal.SIGKILL  # which is known of a process that was reaped
    with pytest.raises(ProcessLookupError):
        os.kill(guest.pid, 0)


def test_the_fastest_that_works_is_best(fake: Path, cache: Path) -> None:
    assert best_accelerator(fake, cache, deadline=0.3) is TCG
    assert best_accelerator(fake, cache, [TCG, KVM], deadline=0.3) is TCG


def test_none_that_works(fake: Path, cache: Path) -> None:
    reasons = r"no accelerator runs guests on this host: nvmm: .* found\); hvf: .* 64-bit mode\)"
    with pytest.raises(HarnessError, match=reasons):
        best_accelerator(fake, cache, [NVMM, HVF])


def test_an_exit_status_alone_is_not_believed(fake: Path, cache: Path) -> None:
    fake.write_text(FAKE.replace('echo "dfly-harness probe: 64-bit mode reached"', "echo something else"))
    (verdict,) = probe_accelerators(fake, cache, [TCG])
    assert (verdict.usable, verdict.reason) == (False, "the probe did not run (something else)")


def test_words_alone_are_not_believed(fake: Path, cache: Path) -> None:
    fake.write_text(FAKE.replace("exit 171", "exit 0"))
    (verdict,) = probe_accelerators(fake, cache, [TCG])
    assert not verdict.usable


def test_a_qemu_that_dies_silently(fake: Path, cache: Path) -> None:
    fake.write_text(FAKE.replace('echo "dfly-harness probe: 64-bit mode reached"; exit 171', "kill -SEGV $$"))
    (verdict,) = probe_accelerators(fake, cache, [TCG])
    assert verdict.reason == "the probe did not run (QEMU said nothing, was killed by signal 11)"


def test_a_hang_costs_its_seconds_once(fake: Path, cache: Path, guests: Guests) -> None:
    first = probe_accelerators(fake, cache, [KVM, TCG], deadline=0.6)
    assert len(guests()) == 2
    assert probe_accelerators(fake, cache, [KVM, TCG], deadline=0.6) == first
    assert len(guests()) == 2
    # An accelerator that was not asked for before is probed, the others are not.
    assert probe_accelerators(fake, cache, [NVMM, KVM], deadline=0.6)[1] == first[0]
    assert len(guests()) == 3


def test_a_quick_refusal_is_looked_at_again(fake: Path, cache: Path) -> None:
    assert not probe_accelerators(fake, cache, [NVMM])[0].usable
    fake.write_text(FAKE.replace("nvmm)", "other)").replace("tcg)", "tcg | nvmm)"))
    assert probe_accelerators(fake, cache, [NVMM])[0].usable


def test_another_qemu_is_probed_again(fake: Path, cache: Path) -> None:
    probe_accelerators(fake, cache, [TCG])
    Path(f"{fake}.version").write_text("QEMU emulator version 1.1\n")
    probe_accelerators(fake, cache, [TCG])
    assert runs(fake) == 2


@pytest.mark.parametrize("what", ["kernel", "device"])
def test_another_host_is_probed_again(
    fake: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    probe_accelerators(fake, cache, [TCG])
    if what == "kernel":
        monkeypatch.setattr(platform, "release", lambda: "99.0-other")
    else:
        real = os.stat
        device = tmp_path / "kvm"
        device.touch()
        monkeypatch.setattr(os, "stat", lambda path, **more: real(device if path == "/dev/kvm" else path, **more))
    probe_accelerators(fake, cache, [TCG])
    assert runs(fake) == 2
    probe_accelerators(fake, cache, [TCG])
    assert runs(fake) == 2


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '"text"', '{"host": 1}', '{"verdicts": []}', "entry", "\udcff"], ids=range(8)
)
def test_a_damaged_cache_is_replaced(fake: Path, cache: Path, damage: str) -> None:
    probe_accelerators(fake, cache, [TCG])
    file = cache / "accelerators.json"
    content = file.read_text()
    if damage == "entry":
        damage = json.dumps(json.loads(content) | {"verdicts": [{"accelerator": "warp", "usable": True}]})
    file.write_bytes(damage.encode(errors="surrogateescape"))
    assert probe_accelerators(fake, cache, [TCG])[0].usable
    assert runs(fake) == 2
    assert json.loads(file.read_text())["host"] == json.loads(content)["host"]
    assert [path.name for path in cache.glob("accelerators.*")] != []


def test_a_qemu_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="nowhere cannot be started"):
        probe_accelerators(tmp_path / "nowhere", tmp_path)


@pytest.mark.on_vm
def test_the_probe_really_runs_under_tcg(cache: Path) -> None:
    (verdict,) = probe_accelerators(find_qemu(), cache, [TCG])
    assert verdict.usable, verdict.reason
    assert best_accelerator(find_qemu(), cache, [TCG]) is TCG


@pytest.mark.on_vm
def test_the_probe_fails_without_64_bit_mode(cache: Path, tmp_path: Path) -> None:
    narrow = tmp_path / "qemu"
    narrow.write_text(f'#!/bin/sh\nexec {find_qemu()} "$@" -cpu qemu64,-lm\n')
    narrow.chmod(0o755)
    (verdict,) = probe_accelerators(narrow, cache, [TCG])
    assert (verdict.usable, verdict.reason) == (False, "the probe did not run (dfly-harness probe: no 64-bit mode)")


@pytest.mark.on_vm
def test_an_unknown_accelerator_is_refused_in_qemus_words(cache: Path) -> None:
    # No one QEMU has both: HVF is of macOS, NVMM of NetBSD and DragonFly.
    verdicts = probe_accelerators(find_qemu(), cache, [HVF, NVMM], deadline=60)
    refused = [verdict for verdict in verdicts if not verdict.usable]
    assert refused
    assert all(f"invalid accelerator {verdict.accelerator.value}" in verdict.reason for verdict in refused)

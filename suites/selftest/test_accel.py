# SPDX-License-Identifier: BSD-2-Clause
"""Accelerators are chosen by running, timing, saving and resuming a guest; figures are remembered, not for ever."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.config import share
from harness.errors import DeadlineError, HarnessError
from harness.machine import accel
from harness.machine.accel import Outcome, choose_accelerator, probe_accelerators
from harness.machine.description import Accelerator
from harness.machine.qemu import QEMU, find_qemu
from harness.store import Store

KVM, NVMM, HVF, TCG = Accelerator.KVM, Accelerator.NVMM, Accelerator.HVF, Accelerator.TCG
BEHAVIOURS = {
    "works": 'exec "$real" "$@"',
    "slow": 'exec "$real" "$@" -d nochain -D /dev/null',
    # Some twenty times, with any QEMU: 10.0 does without chains nearly as well as with them.
    "slow by far": 'exec "$real" "$@" -d nochain,exec -D /dev/null',
    "hangs": "exec sleep 600",
    "hangs on resume": 'case "$*" in *-incoming*) exec sleep 600;; esac; exec "$real" "$@"',
    "absent": 'echo "$0: -accel $name: invalid accelerator $name" >&2; exit 1',
    "refuses": 'echo "$0: -accel $name: out of memory" >&2; exit 1',
    "refuses once": 'if [ -e "$0.seen" ]; then exec "$real" "$@"; fi; : > "$0.seen"; echo "busy" >&2; exit 1',
    "dies": "kill -SEGV $$",
    # As with NVMM, a device that cannot be saved keeps QEMU from saving the machine.
    "refuses to save": 'exec "$real" "$@" -device piix3-usb-uhci -chardev null,id=no -device usb-serial,chardev=no',
    "has no timer": 'exec "$real" "$@" -machine pit=off',
    "has no time stamp counter": 'exec "$real" "$@" -cpu qemu64,-lm',
}

FAKE = """#!/bin/sh
# Stands in for QEMU: what it does depends on the accelerator; those that work are TCG.
[ "$1" = --version ] && exec cat "$0.version"
real={real}
previous= name=
for argument; do
	[ "$previous" = -accel ] && name=$argument
	previous=$argument
done
echo "$name" >> "$0.runs"
for argument; do
	shift
	[ "$argument" = "$name" ] && argument=tcg
	set -- "$@" "$argument"
done
case $name in
{cases}
esac
"""


@dataclass
class Fake:
    """A QEMU that comes first in PATH."""

    program: Path

    def behave(self, behaviours: Mapping[Accelerator, str]) -> None:
        """Let each accelerator do what BEHAVIOURS says; the others are not built in."""
        todo = {each: BEHAVIOURS[behaviours.get(each, "absent")] for each in Accelerator}
        cases = "\n".join(f"{each.value}) {script} ;;" for each, script in todo.items())
        self.program.write_text(FAKE.format(real=os.environ["REAL_QEMU"], cases=cases))
        self.program.chmod(0o755)

    @property
    def runs(self) -> list[str]:
        """The accelerators of all guests that were started."""
        file = Path(f"{self.program}.runs")
        return file.read_text().split() if file.exists() else []

    def update(self) -> None:
        """Become another version."""
        Path(f"{self.program}.version").write_text(f"QEMU emulator version {len(self.runs)}.1\n")
        if self.program.exists():
            self.program.touch()  # an update is another file


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setenv("REAL_QEMU", find_qemu())
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    fake = Fake(folder / QEMU)
    fake.update()
    fake.behave({TCG: "works"})
    return fake


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def verdict(store: Store, accelerator: Accelerator, silence: float = 60.0) -> accel.AcceleratorVerdict:
    (found,) = probe_accelerators(store, [accelerator], silence=silence)
    return found


@pytest.mark.on_vm
def test_what_works_is_timed_saved_and_resumed(store: Store) -> None:
    found = verdict(store, TCG)
    assert found.outcome is Outcome.WORKS, found
    assert 0 < found.work < found.seconds
    assert str(found) == f"tcg: {found.reason}"
    assert choose_accelerator(store, [TCG]).accelerator is TCG
    assert list(store.folder("run").iterdir()) == []


@pytest.mark.on_vm
def test_the_fastest_is_chosen_whatever_the_order(fake: Fake, store: Store) -> None:
    fake.behave({KVM: "slow by far", TCG: "works"})
    choice = choose_accelerator(store, [KVM, TCG], silence=60)
    assert choice.accelerator is TCG
    kvm, tcg = probe_accelerators(store, [KVM, TCG])
    assert kvm.work > tcg.work
    assert str(kvm) in choice.reason
    assert str(tcg) in choice.reason


@pytest.mark.on_vm
def test_of_equals_the_one_that_is_usually_faster(fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "_CLEARLY", 100.0)  # they are equal, whatever the host does meanwhile
    fake.behave({KVM: "works", TCG: "works"})
    assert choose_accelerator(store).accelerator is KVM


@pytest.mark.on_vm
def test_one_that_is_slower_by_far_is_not_waited_for(fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "_FAIR_TRIAL", 0.0)
    monkeypatch.setattr(accel, "_TOO_SLOW", 1.2)
    fake.behave({KVM: "slow by far", TCG: "works"})
    kvm, _ = probe_accelerators(store, [KVM, TCG], silence=60)
    assert kvm.outcome is Outcome.SLOW
    assert kvm.reason.startswith("slow: ")
    assert choose_accelerator(store, [KVM, TCG]).accelerator is TCG


@pytest.mark.on_vm
def test_one_that_cannot_be_saved_is_not_chosen(fake: Fake, store: Store) -> None:
    fake.behave({NVMM: "refuses to save", TCG: "slow"})
    assert choose_accelerator(store, silence=60).accelerator is TCG
    nvmm = verdict(store, NVMM)
    assert nvmm.outcome is Outcome.CANNOT_BE_SAVED
    assert "its guests cannot be saved" in nvmm.reason
    assert "usb-serial" in nvmm.reason  # QEMU's own words
    assert nvmm.work > 0  # how fast it was is known


@pytest.mark.on_vm
def test_one_that_does_not_resume_is_not_chosen(fake: Fake, store: Store) -> None:
    fake.behave({KVM: "hangs on resume", TCG: "works"})
    kvm = verdict(store, KVM, 3.0)
    assert kvm.outcome is Outcome.HANGS
    assert "while the guest is resumed" in kvm.reason


@pytest.mark.on_vm
def test_one_without_timer_interrupts_is_not_chosen(fake: Fake, store: Store) -> None:
    fake.behave({KVM: "has no timer", TCG: "works"})
    kvm = verdict(store, KVM)
    assert (kvm.outcome, kvm.reason) == (Outcome.FAILS, "its guest says: no interrupts of the 8254 timer")


def test_a_hang_is_ended_and_named(fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = []
    real = os.kill

    def kill(pid: int, number: int) -> None:
        killed.append((pid, number))
        real(pid, number)

    monkeypatch.setattr(os, "kill", kill)
    fake.behave({KVM: "hangs"})
    kvm = verdict(store, KVM, 0.5)
    opens = "/dev/kvm opens but it " if os.access("/dev/kvm", os.R_OK | os.W_OK) else ""
    assert str(kvm) == f"kvm: {opens}hangs: no sign of life for 0.5 s while QEMU starts"
    assert kvm.outcome is Outcome.HANGS
    assert kvm.seconds >= 0.5
    ((pid, number),) = killed
    assert number == signal.SIGKILL
    with pytest.raises(ProcessLookupError):  # it was reaped, too
        real(pid, 0)


def test_none_that_works(fake: Fake, store: Store) -> None:
    fake.behave({HVF: "refuses"})
    with pytest.raises(HarnessError, match=r"no accelerator .* host: nvmm: .*invalid accelerator.*; hvf: .*of memory"):
        choose_accelerator(store, [NVMM, HVF])


def test_a_qemu_that_dies_silently(fake: Fake, store: Store) -> None:
    fake.behave({TCG: "dies"})
    found = verdict(store, TCG)
    assert found.outcome is Outcome.TROUBLE
    assert "signal 11" in found.reason


@pytest.mark.on_vm
def test_what_the_stub_says_is_passed_on(fake: Fake, store: Store) -> None:
    fake.behave({TCG: "has no time stamp counter"})
    found = verdict(store, TCG, 3.0)
    assert not found.usable


@pytest.mark.on_vm
def test_figures_are_used_again_for_a_day(fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = probe_accelerators(store, [TCG, NVMM])
    runs = fake.runs
    assert probe_accelerators(store, [TCG, NVMM]) == first
    assert fake.runs == runs
    _let_pass(monkeypatch, 86000)
    assert probe_accelerators(store, [TCG, NVMM]) == first
    _let_pass(monkeypatch, 1000)
    assert probe_accelerators(store, [TCG, NVMM]) != first


def test_a_hang_costs_its_seconds_once_in_a_while(fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.behave({KVM: "hangs"})
    assert verdict(store, KVM, 0.3) == verdict(store, KVM, 0.3)
    assert fake.runs == ["kvm"]
    _let_pass(monkeypatch, 700)
    verdict(store, KVM, 0.3)
    assert fake.runs == ["kvm", "kvm"]


@pytest.mark.on_vm
def test_trouble_is_not_remembered(fake: Fake, store: Store) -> None:
    fake.behave({KVM: "refuses"})
    found = verdict(store, KVM)
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):  # then that is why, and part of what verdicts are kept by
        assert found.outcome is Outcome.ABSENT
        return
    assert found.outcome is Outcome.TROUBLE
    fake.behave({KVM: "works"})
    assert verdict(store, KVM).usable


@pytest.mark.on_vm
def test_figures_that_are_compared_are_of_one_time(fake: Fake, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.behave({KVM: "hangs", TCG: "works"})
    _, tcg = probe_accelerators(store, [KVM, TCG], silence=1)
    _let_pass(monkeypatch, 3600)
    fake.behave({KVM: "works", TCG: "works"})
    kvm, again = probe_accelerators(store, [KVM, TCG])
    assert kvm.usable
    assert again.measured != tcg.measured


def _let_pass(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    present = time.time
    monkeypatch.setattr(time, "time", lambda: present() + seconds)


@pytest.mark.parametrize("what", ["kernel", "boot", "device", "QEMU"])
def test_another_host_is_measured_again(
    fake: Fake, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    fake.behave({KVM: "hangs"})
    verdict(store, KVM, 0.3)
    if what == "kernel":
        monkeypatch.setattr(platform, "release", lambda: "99.0-other")
    elif what == "boot":
        monkeypatch.setattr(accel, "_boot_of_host", lambda: "another")
    elif what == "device":
        real = os.stat
        device = tmp_path / "kvm"
        device.touch()
        monkeypatch.setattr(os, "stat", lambda path, **more: real(device if path == "/dev/kvm" else path, **more))
    else:
        fake.update()
    verdict(store, KVM, 0.3)
    assert len(fake.runs) == 2
    verdict(store, KVM, 0.3)
    assert len(fake.runs) == 2


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '"text"', '{"host": 1}', '{"verdicts": []}', "entry", "future", "\udcff"], ids=range(9)
)
def test_a_damaged_cache_is_replaced(fake: Fake, store: Store, damage: str) -> None:
    fake.behave({KVM: "hangs"})
    verdict(store, KVM, 0.3)
    file = store.cache / "accelerators.json"
    content = json.loads(file.read_text())
    if damage == "entry":
        damage = json.dumps(content | {"verdicts": [{"accelerator": "warp", "outcome": "works"}]})
    elif damage == "future":  # the host's clock was wrong
        content["verdicts"][0]["measured"] += 1e6
        damage = json.dumps(content)
    file.write_bytes(damage.encode(errors="surrogateescape"))
    verdict(store, KVM, 0.3)
    assert len(fake.runs) == 2
    assert json.loads(file.read_text())["host"] == content["host"]


def test_a_command_that_measures_without_end_is_not_waited_for_so_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "_LOCK_SECONDS", 0.1)
    begun = time.monotonic()
    with store.lock("accelerators"), pytest.raises(DeadlineError, match="to release the lock 'accelerators'"):
        probe_accelerators(store)
    assert time.monotonic() - begun < 60


def test_a_qemu_that_is_not_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == QEMU else real(name))
    with pytest.raises(HarnessError, match="qemu-system-x86_64 is not installed"):
        probe_accelerators(store)


@pytest.mark.on_vm
def test_an_unknown_accelerator_is_refused_in_qemus_words(store: Store) -> None:
    # No one QEMU has both: HVF is of macOS, NVMM of NetBSD and DragonFly.
    verdicts = probe_accelerators(store, [HVF, NVMM], silence=60)
    refused = [found for found in verdicts if not found.usable]
    assert refused
    assert all(f"invalid accelerator {found.accelerator.value}" in found.reason for found in refused)
    assert all(found.outcome is Outcome.ABSENT for found in refused)


TWO = """
import pytest
from pathlib import Path

@pytest.mark.parametrize("number", range(6))
def test_which(rig, guest, number, worker_id):
    Path(__file__).with_name(f"seen-{worker_id}").write_text(guest.accelerator.value)
    assert guest.accelerator is rig.size.accelerator
    __import__("time").sleep(0.5)  # so that the other worker gets some, too
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a store of its own, with the control guest of the user's, which takes a while to put together."""
    folder = tmp_path / "home"
    (folder / "cache").mkdir(parents=True)
    known = Store().cache / "control"
    if known.exists():
        (folder / "cache" / "control").symlink_to(known)
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(folder))
    return folder


def run(tmp_path: Path, *arguments: str) -> tuple[int, str, dict[str, object]]:
    """Run TWO on the control guest by the command line."""
    folder = tmp_path / "tests"
    folder.mkdir(exist_ok=True)
    (folder / "test_two.py").write_text(TWO)
    record = tmp_path / "record.json"
    argv = [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())", "run"]
    argv += ["--control", "--json", str(record), *arguments, str(folder / "test_two.py")]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False)
    return done.returncode, done.stdout + done.stderr, json.loads(record.read_text())


@pytest.mark.on_vm
def test_all_workers_of_a_run_have_the_same(fake: Fake, home: Path, tmp_path: Path) -> None:
    # Who measures a second time gets another result.
    fake.behave({KVM: "refuses once", TCG: "works"})
    status, output, record = run(tmp_path, "-n", "2")
    assert status == 0, output[-3000:]
    seen = {file.name: file.read_text() for file in (tmp_path / "tests").glob("seen-*")}
    assert seen == {"seen-gw0": "tcg", "seen-gw1": "tcg"}
    assert record["accelerator"] == "tcg"
    assert "tcg: works in" in str(record["accelerator_reason"])
    assert fake.runs.count("kvm") == 1
    assert list((home / "locks").glob("accelerator-*")) == []
    assert "accelerator: tcg (" in output


@pytest.mark.on_vm
def test_what_was_asked_for_is_not_measured(fake: Fake, home: Path, tmp_path: Path) -> None:
    del home
    fake.behave({KVM: "works", TCG: "dies"})
    status, output, record = run(tmp_path, "--accelerator", "kvm")
    assert status == 0, output[-3000:]
    assert (record["accelerator"], record["accelerator_reason"]) == ("kvm", "asked for")
    assert set(fake.runs) == {"kvm"}
    assert "accelerator: kvm (asked for)" in output

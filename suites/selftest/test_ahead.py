# SPDX-License-Identifier: BSD-2-Clause
"""Booting ahead of the clock: waiting is skipped, and the machine goes on at the clock's pace as if it had waited."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from own_store import make_store

from harness.errors import GuestLostError, HarnessError
from harness.guests import ahead, guest
from harness.guests.ahead import boot_ahead
from harness.guests.console import Console
from harness.guests.control import ControlTarget
from harness.guests.guest import Guest, MachineSize
from harness.images.control import build_control_image
from harness.machine.accel import build_probe
from harness.machine.clock import carry_clock_over, note_clock_for_counting
from harness.machine.description import Accelerator, Disk, Lane, MachineDescription
from harness.machine.directboot import direct_boot
from harness.machine.qemu import Machine
from harness.store import Store

pytestmark = pytest.mark.on_vm

NO_PANIC = re.compile("nobody says that")
EXIT_DEVICE = ("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    file = tmp_path / "sealed.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(file), "1M"], check=True)
    return file


@pytest.fixture
def description(store: Store, disk: Path) -> MachineDescription:
    """Return a machine with the kernel that accelerators are tried with, which says what it can after a resume."""
    boot = direct_boot(build_probe(store.cache), environment={}, cache=store.cache)
    return MachineDescription(128, model="pc,hpet=off", boot=boot, disks=(Disk(disk),), extra=EXIT_DEVICE)


@pytest.fixture
def folder(store: Store) -> Iterator[Path]:
    with store.scratch("ahead") as folder:
        yield folder


def backing_file(disk: Path) -> str:
    return subprocess.run(
        ["qemu-img", "info", "-U", "--output=json", str(disk)], capture_output=True, text=True, check=True
    ).stdout


def test_timers_and_memory_go_on_at_the_pace_of_the_clock(
    description: MachineDescription, store: Store, folder: Path, disk: Path
) -> None:
    state, earlier = boot_ahead(description, store, folder, "can be saved\r\n", NO_PANIC)
    with Machine(description, store) as machine:
        machine.start(state, spend=True)
        assert not list(folder.glob("disk*"))
        console = Console(machine.serial[0], machine.folder / "console.log", earlier)
        assert "dfly-harness probe: works" in console.text()  # its record is whole
        assert "dfly-harness probe: works" in console.log.read_text()
        assert str(disk) in backing_file(machine.folder / "disk0.qcow2")
        console.send("g")
        console.expect(["is done"], awaited="the probe", deadline=60)


def test_what_was_booted_ahead_can_be_saved_again(
    description: MachineDescription, store: Store, folder: Path, disk: Path
) -> None:
    state, _ = boot_ahead(description, store, folder, "can be saved\r\n", NO_PANIC)
    warm = store.folder("warm")
    with Machine(description, store) as machine:
        machine.start(state, spend=True)
        machine.save(warm)
    # It needs the sealed disk and nothing of what was on the way.
    assert str(disk) in backing_file(warm / "disk0.qcow2")
    assert str(folder) not in backing_file(warm / "disk0.qcow2")


def test_a_kernel_that_dies_is_not_waited_for(description: MachineDescription, store: Store, folder: Path) -> None:
    with pytest.raises(GuestLostError, match="its kernel died"):
        boot_ahead(description, store, folder, "never said", re.compile("probe: works"))


def test_a_hang_uses_up_its_budget_whatever_the_hosts_load(
    description: MachineDescription, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_BUDGET", 2.0)
    with pytest.raises(GuestLostError, match="it was not there after 2 s of computing"):
        boot_ahead(description, store, folder, "never said", NO_PANIC)


def test_a_machine_that_ends_is_noticed(description: MachineDescription, store: Store, folder: Path) -> None:
    narrow = replace(description, cpu="qemu64,-lm")  # the stub halts, with the exit device the machine ends
    with pytest.raises(GuestLostError, match="QEMU ended"):
        boot_ahead(narrow, store, folder, "never said", NO_PANIC)


def clock_of(ram: Path) -> int:
    """Return what time it is in a state, in ns, as whoever does not count instructions sees it."""
    content = ram.read_bytes()
    start = content.rindex(b"\x05timer\0\0\0\0") + 14 + 16
    return int.from_bytes(content[start : start + 8])


def test_it_is_no_other_time_where_instructions_are_counted(
    description: MachineDescription, store: Store, folder: Path
) -> None:
    state, _ = boot_ahead(description, store, folder, "can be saved\r\n", NO_PANIC)
    warm, again = store.folder("warm"), store.folder("again")
    with Machine(description, store) as machine:
        machine.start(state, spend=True)
        saved = machine.save(warm)
    time = note_clock_for_counting(saved.ram)
    assert time == pytest.approx(clock_of(saved.ram) / 1e9)
    assert time > 0.1
    with Machine(replace(description, lane=Lane.TIME_WARPED), store) as machine:
        machine.start(saved, paused=True)
        counted = machine.save(again)
    carry_clock_over(counted.ram, 3)
    assert clock_of(counted.ram) == clock_of(saved.ram)  # else its timers would be due that much later


def stream(*, clock: int, counted: tuple[int, int] | None = None, name: bytes = b"timer") -> bytes:
    """Return what is around the clocks in QEMU's stream, and they: COUNTED are the offset and the instructions."""
    section = b"\x04\0\0\0\x07" + bytes([len(name)]) + name + b"\0\0\0\0" + b"\0\0\0\x02"
    section += b"t" * 8 + b"\0" * 8 + clock.to_bytes(8)
    if counted is not None:
        section += b"\x05\x0ctimer/icount\0\0\0\x01" + counted[0].to_bytes(8, signed=True) + counted[1].to_bytes(8)
    # A guest's memory may hold the same: QEMU's own file, read in the guest.
    return b"RAM" * 5000 + b"\x04\0\0\0\x07\x05timer" + bytes(7) + b"\x02" + b"RAM" * 50 + section + b"devices"


def test_the_clock_goes_on_where_the_count_of_instructions_was(tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    ram.write_bytes(stream(counted=(-500, 1 << 30), clock=7 * 10**9))
    assert carry_clock_over(ram, 6) == pytest.approx((64 << 30) / 1e9 - 7, abs=1e-5)
    assert ram.read_bytes() == stream(counted=(-500, 1 << 30), clock=(64 << 30) - 500)


def test_the_count_of_instructions_begins_at_what_time_it_was(tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    ram.write_bytes(stream(clock=7 * 10**9))
    assert note_clock_for_counting(ram) == 7
    assert ram.read_bytes() == stream(clock=7 * 10**9, counted=(7 * 10**9, 0))


@pytest.mark.parametrize("content", [b"none", stream(clock=1, name=b"timed")], ids=["none", "another"])
@pytest.mark.parametrize("change", [lambda ram: carry_clock_over(ram, 6), note_clock_for_counting])
def test_clocks_that_are_kept_in_another_way_are_left_alone(
    tmp_path: Path, content: bytes, change: Callable[[Path], float]
) -> None:
    ram = tmp_path / "ram"
    ram.write_bytes(content[content.rindex(b"RAM" * 50) :] if b"RAM" in content else content)
    before = ram.read_bytes()
    with pytest.raises(HarnessError, match="keeps its clocks in another way"):
        change(ram)
    assert ram.read_bytes() == before


def test_a_clock_is_not_set_the_wrong_way_round(tmp_path: Path) -> None:
    plain, counting = tmp_path / "plain", tmp_path / "counting"
    plain.write_bytes(stream(clock=1))
    counting.write_bytes(stream(clock=1, counted=(0, 1)))
    with pytest.raises(HarnessError, match="did not count instructions"):
        carry_clock_over(plain, 6)
    with pytest.raises(HarnessError, match="counted instructions"):
        note_clock_for_counting(counting)


class Hasty(ControlTarget):
    """Linux, said to boot ahead."""

    boots_ahead = True


@pytest.fixture
def hasty(store: Store) -> Hasty:
    return Hasty(build_control_image(store.cache, lambda _: None))


def test_what_does_not_boot_ahead_boots_at_the_pace_of_the_clock(
    hasty: Hasty, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise HarnessError("no way\nand more")

    monkeypatch.setattr(guest, "boot_ahead", fail)
    said: list[str] = []
    with Guest(hasty, store, MachineSize(256, accelerator=Accelerator.TCG)) as booted:
        booted.boot(said.append, ahead=True)
        assert booted.lane is Lane.WALL_CLOCK
        assert "that did not work (no way): booting the kernel at the pace of the clock, waiting for SSH" in said
        assert booted.ssh.run("echo well").output == "well\n"
    assert list(store.folder("run").iterdir()) == []


def test_only_where_it_is_known_to_work(hasty: Hasty, store: Store) -> None:
    def may(size: MachineSize) -> bool:
        return Guest(hasty, store, size)._may_boot_ahead

    assert may(MachineSize(256, accelerator=Accelerator.TCG))
    assert "sleep=off" in replace(Guest(hasty, store).machine.description, lane=Lane.AHEAD).command_line()
    assert not may(MachineSize(256, cpus=2, accelerator=Accelerator.TCG))
    assert not may(MachineSize(256, accelerator=Accelerator.KVM))
    plain = Guest(ControlTarget(hasty.image), store, MachineSize(256, accelerator=Accelerator.TCG))
    assert not plain._may_boot_ahead
    written = Guest(hasty, store, MachineSize(256, accelerator=Accelerator.TCG))
    written.machine.description = replace(written.machine.description, disks=(Disk(Path("x.qcow2"), writable=True),))
    assert not written._may_boot_ahead

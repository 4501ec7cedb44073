# SPDX-License-Identifier: BSD-2-Clause
"""A session with QEMU's gdb stub in which the machine runs, on a small kernel that runs for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from testkernel import build_kernel

from harness.errors import HarnessError
from harness.machine.debugger import Cpu, Debugger
from harness.machine.description import Accelerator, MachineDescription
from harness.machine.directboot import BootFlags, direct_boot
from harness.machine.elf import KernelSymbols
from harness.machine.qemu import Machine
from harness.processes.connection import await_true
from harness.store import Store

pytestmark = pytest.mark.on_vm


@dataclass(frozen=True)
class Running:
    """The machine, and where its kernel has what."""

    machine: Machine
    symbols: KernelSymbols

    def at(self, name: str) -> int:
        return self.symbols.symbol_address(name)

    def count(self, name: str) -> int:
        return int.from_bytes(self.machine.read_physical(self.symbols[name].physical_address, 8), "little")

    def runs(self) -> bool:
        before = self.count("turns")
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if self.count("turns") != before:
                return True
            time.sleep(0.005)
        return False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("looping")
    kernel = build_kernel(folder / "cache", program="looping.c")
    how = direct_boot(kernel, environment={}, flags=BootFlags.RB_SERIAL, cache=folder / "cache")
    described = MachineDescription(memory=128, accelerator=Accelerator.TCG, boot=how)
    with Machine(described, Store(folder / "store")) as machine:
        machine.start()
        running = Running(machine, KernelSymbols(kernel))
        await_true(lambda: running.count("turns") > 0, "the kernel to run", 60)
        yield running


@pytest.fixture
def debugger(running: Running) -> Iterator[Debugger]:
    with running.machine.debugged() as debugger:
        yield debugger
    assert running.runs()


def test_a_handler_is_called_each_time_and_the_machine_goes_on_behind_it(running: Running, debugger: Debugger) -> None:
    met: list[int] = []
    debugger.at(running.at("point"), lambda cpu: met.append(cpu.address))
    before, others = running.count("turns"), running.count("others")
    await_true(lambda: len(met) > 5, "the point to be met", 30)
    debugger.forget(running.at("point"))
    turns = running.count("turns") - before
    assert set(met) == {running.at("point")}
    assert turns >= 5
    assert running.count("others") - others >= 5
    assert debugger.hits == len(met)
    assert running.runs()
    assert len(met) == debugger.hits  # it is forgotten


def test_two_points_that_follow_each_other_are_both_met(running: Running, debugger: Debugger) -> None:
    met: list[str] = []

    def watch(stub: Debugger) -> None:  # both at once: else the first is met, and met again, before there is another
        for name in ("point", "other_point"):
            stub.insert(running.at(name), lambda _, name=name: met.append(name))  # type: ignore[misc]

    debugger.standing(watch)
    await_true(lambda: len(met) > 8, "the points to be met", 30)
    pairs = set(pairwise(met))
    assert pairs == {("point", "other_point"), ("other_point", "point")}


def test_a_cpu_goes_on_elsewhere(running: Running, debugger: Debugger) -> None:
    done: list[int] = []

    def divert(cpu: Cpu) -> None:
        debugger.remove(running.at("point"))
        cpu.address = running.at("elsewhere")
        done.append(1)

    before = running.count("diverted")
    debugger.at(running.at("point"), divert)
    await_true(lambda: running.count("diverted") > before, "what is elsewhere to run", 30)
    assert running.count("diverted") == before + 1
    assert done == [1]


def test_what_is_asked_of_a_standing_machine_is_whole(running: Running, debugger: Debugger) -> None:
    def look(stub: Debugger) -> list[int]:
        names = ("turns", "diverted", "others")
        return [int.from_bytes(stub.read(running.at(name), 8), "little") for name in names]

    first = debugger.standing(look)
    for _ in range(20):
        turns, diverted, others = (now - then for now, then in zip(debugger.standing(look), first, strict=True))
        assert turns + diverted - others in (-1, 0, 1)


def test_memory_is_written_by_the_session_that_has_the_stub(running: Running, debugger: Debugger) -> None:
    running.machine.standing(lambda stub: stub.write(running.at("diverted"), (77).to_bytes(8, "little")))
    assert running.count("diverted") == 77
    with pytest.raises(HarnessError, match="cannot be read"):
        debugger.standing(lambda stub: stub.read(1 << 46, 8))
    assert running.runs()


def stays(running: Running) -> bool:
    """Tell whether the machine stands still for a while in which it would run a long way."""
    before = running.count("turns")
    time.sleep(0.05)
    return running.count("turns") == before


def test_a_machine_that_others_pause_is_left_to_them(running: Running, debugger: Debugger) -> None:
    for _ in range(20):
        running.machine.pause()
        stands = running.count("turns")
        assert debugger.standing(lambda stub: int.from_bytes(stub.read(running.at("turns"), 8), "little")) == stands
        assert not running.machine.runs
        assert running.count("turns") == stands
        assert stays(running)
        running.machine.resume()
        assert running.machine.runs
        assert running.runs()
        assert debugger.standing(lambda stub: stub.cpus) == 1
        assert running.runs()


def test_a_machine_that_is_paused_at_a_point_stays_there(running: Running, debugger: Debugger) -> None:
    debugger.at(running.at("point"), lambda _: None)
    for _ in range(20):
        running.machine.pause()
        assert stays(running)
        hits = debugger.hits
        running.machine.resume()
        await_true(lambda hits=hits: debugger.hits > hits, "the point to be met again", 30)  # type: ignore[misc]


def test_a_session_with_a_paused_machine_leaves_it_paused(running: Running) -> None:
    running.machine.pause()
    try:
        with running.machine.debugged() as debugger:
            assert stays(running)
            assert debugger.standing(lambda stub: stub.cpus) == 1
            assert stays(running)
        assert not running.machine.runs
        running.machine.standing(lambda stub: stub.read(running.at("turns"), 8))
        assert not running.machine.runs
        assert stays(running)
        with running.machine.debugged():
            running.machine.resume()
            assert running.runs()
            running.machine.pause()
        assert stays(running)
    finally:
        running.machine.resume()
    assert running.runs()


def test_a_handler_that_fails_is_heard_of_and_holds_nothing_up(running: Running, debugger: Debugger) -> None:
    def fail(cpu: Cpu) -> None:
        cpu.read(1 << 46, 8)

    debugger.at(running.at("point"), fail)
    await_true(lambda: debugger.complaint is not None, "the handler to fail", 30)
    assert "cannot be read" in str(debugger.complaint)
    assert running.runs()


def test_there_is_one_session_at_a_time(running: Running, debugger: Debugger) -> None:
    with pytest.raises(HarnessError, match="has a debugger already"), running.machine.debugged():
        pass
    assert debugger.failure is None

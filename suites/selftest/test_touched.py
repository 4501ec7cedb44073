# SPDX-License-Identifier: BSD-2-Clause
"""What is said to have been touched was, and who is compared with it is found out when he touches it, not before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from testkernel import build_kernel

from harness.errors import HarnessError
from harness.machine.description import Accelerator, MachineDescription
from harness.machine.directboot import BootFlags, direct_boot
from harness.machine.elf import KernelSymbols, data_address, read_code
from harness.machine.executed import EXECUTED, PASSED, CodeRange, Execution, Instrument, Touched, instrument
from harness.machine.qemu import Machine, qemu_version
from harness.processes.connection import await_true
from harness.store import Store

if TYPE_CHECKING:
    from harness.machine.executed import Notes

pytestmark = pytest.mark.on_vm

_FUNCTIONS = ("point", "other_point", "elsewhere")


@dataclass(frozen=True)
class Noting:
    """A machine with one CPU that runs point() and other_point() in turn, and what is noted of it."""

    execution: Execution
    touched: Touched
    plugin: Instrument
    symbols: KernelSymbols

    def word(self, name: str) -> int:
        return self.symbols[name].physical_address

    def place(self, name: str) -> int:
        return self.plugin.place_of(self.symbols.symbol_address(name))

    def marks(self, notes: Notes, name: str) -> int:
        return int(notes[self.place(name)])


@pytest.fixture(scope="module")
def noting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Noting]:
    folder = tmp_path_factory.mktemp("touching")
    kernel = build_kernel(folder / "cache", program="looping.c")
    symbols = KernelSymbols(kernel)
    found = [symbols[name] for name in _FUNCTIONS]
    ranges = [CodeRange(each.address, read_code(kernel, each.address, each.size)) for each in found]
    plugin = instrument(ranges, qemu_version(), folder / "cache", memory=128)
    how = direct_boot(kernel, environment={}, flags=BootFlags.RB_SERIAL, cache=folder / "cache")
    described = MachineDescription(memory=128, accelerator=Accelerator.TCG, boot=how, instrument=plugin)
    with Machine(described, Store(folder / "store")) as machine:
        machine.start()
        execution = machine.execution
        assert execution is not None
        assert execution.touched is not None
        noting = Noting(execution, execution.touched, plugin, symbols)
        await_true(lambda: bool(noting.marks(execution.take(), "point")), "the kernel to run", 60)
        yield noting


@pytest.fixture
def touched(noting: Noting) -> Iterator[Touched]:
    noting.touched.forget()
    noting.execution.take()
    yield noting.touched
    noting.touched.end()


def test_what_another_cpu_touches_is_noted(noting: Noting, touched: Touched) -> None:
    touched.note(0, cpu=1)
    await_true(lambda: touched.is_noted(0, noting.word("others")), "others to be touched", 30)
    await_true(lambda: touched.is_noted(0, noting.word("turns")), "turns to be touched", 30)
    assert not touched.is_noted(0, noting.word("diverted"))
    assert not touched.is_noted(1, noting.word("turns"))
    touched.forget()
    assert not touched.is_noted(0, noting.word("turns"))


def test_what_the_cpu_itself_touches_is_not(noting: Noting, touched: Touched) -> None:
    touched.note(0, cpu=0)
    touched.note(1, cpu=1)
    await_true(lambda: touched.is_noted(1, noting.word("turns")), "turns to be touched", 30)
    assert not touched.is_noted(0, noting.word("turns"))


def test_whoever_touches_what_was_touched_has_passed_what_comes_before_that(noting: Noting, touched: Touched) -> None:
    touched.note(0, cpu=1)
    await_true(lambda: touched.is_noted(0, noting.word("turns")), "turns to be touched", 30)
    touched.note(0, cpu=0)  # from now on it is the other one
    noting.execution.take()
    touched.compare(0, noting.place("point"))
    await_true(lambda: touched.has_met(0), "turns to be touched again", 30)
    notes = noting.execution.take()
    assert noting.marks(notes, "point") & PASSED[0]
    assert not noting.marks(notes, "other_point") & PASSED[0]


def test_whoever_touches_nothing_of_it_goes_on_and_on(noting: Noting, touched: Touched) -> None:
    touched.note(1, cpu=0)
    noting.execution.take()
    touched.compare(1, noting.place("other_point"))
    await_true(lambda: bool(noting.marks(noting.execution.take(), "point") & PASSED[1]), "the points to be passed", 30)
    assert not touched.has_met(1)


def test_nothing_is_compared_before_the_instruction_it_begins_at(noting: Noting, touched: Touched) -> None:
    touched.note(0, cpu=1)
    await_true(lambda: touched.is_noted(0, noting.word("turns")), "turns to be touched", 30)
    touched.note(0, cpu=0)
    noting.execution.take()
    touched.compare(0, noting.place("elsewhere"))
    await_true(
        lambda: bool(noting.marks(noting.execution.take(), "other_point") & EXECUTED), "the points to be run", 30
    )
    notes = noting.execution.take()
    assert not touched.has_met(0)
    assert not noting.marks(notes, "point") & PASSED[0]


def test_what_is_not_noted_has_no_place(noting: Noting) -> None:
    with pytest.raises(HarnessError, match="nothing is noted of the instruction at 0x10"):
        noting.plugin.place_of(0x10)


def test_variables_begin_behind_the_code(noting: Noting, tmp_path: Path) -> None:
    kernel = build_kernel(tmp_path / "cache", program="looping.c")
    data = data_address(kernel)
    assert all(noting.symbols.symbol_address(name) < data for name in _FUNCTIONS)
    assert all(noting.symbols.symbol_address(name) >= data for name in ("turns", "version", "osreldate"))

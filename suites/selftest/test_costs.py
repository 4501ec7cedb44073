# SPDX-License-Identifier: BSD-2-Clause
"""Costs: a change is named when it is beyond noise, and only then; plots and tables are plain and complete."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.compare import costs as costs_module
from harness.compare.cost_judgement import (
    BLOCKS,
    COUNTED_BOOTS,
    confidence_of_each,
    judge_instructions,
    judge_times,
)
from harness.compare.costs import WORKLOADS, Bench, CostMeasurement, Workload
from harness.errors import ExitCode
from harness.guests.crash import CrashReport
from harness.guests.guest import KernelPanicError, MachineSize, Target
from harness.guests.targets import TargetChoice, resolve_target
from harness.processes.vocabulary import Resource
from harness.report.comparison import summary, to_markdown, write_plots
from harness.report.plots import Bar, ratio_plot, scatter_plot
from harness.results.comparison import ComparedKernel, Comparison
from harness.results.costs import Costs
from harness.store import Store

SURE = confidence_of_each(len(WORKLOADS))

Blocks = list[tuple[float, float, float, float]]


def blocks(ratio: float, *, noise: float = 0.1, drift: float = 0.0, count: int = BLOCKS, seed: int = 1) -> Blocks:
    """Return A B B A times around 1 ms and RATIO ms, with the host getting slower by DRIFT from reading to reading."""
    source = random.Random(seed)  # noqa: S311
    made = []
    for _ in range(count):
        readings = []
        for position, factor in enumerate((1.0, ratio, ratio, 1.0)):
            readings.append(1e-3 * factor * (1 + drift * position) * source.lognormvariate(0, noise))
        made.append((readings[0], readings[1], readings[2], readings[3]))
    return made


def test_a_clear_change_is_named_with_its_size() -> None:
    cost = judge_times("fork", blocks(1.5), SURE)
    assert cost.is_changed
    assert cost.ratio == pytest.approx(1.5, rel=0.1)
    assert cost.interval is not None
    assert 1.5 in cost.interval
    assert len(cost.base_values) == len(cost.other_values) == 2 * BLOCKS


def test_equal_kernels_are_hardly_ever_told_apart() -> None:
    named = sum(judge_times("fork", blocks(1.0, noise=0.3, seed=seed), SURE).is_changed for seed in range(400))
    assert named <= 6  # 0.36% of 400, and room for luck


def test_a_host_that_slows_down_is_not_taken_for_a_slower_kernel() -> None:
    assert not judge_times("fork", blocks(1.0, noise=0.001, drift=0.2), SURE).is_changed
    one_sided = [(1.0, 1.2, 1.4, 1.0)] * BLOCKS
    assert judge_times("fork", one_sided, SURE).is_changed


def test_too_few_blocks_name_nothing() -> None:
    cost = judge_times("fork", blocks(3.0, count=BLOCKS - 1), SURE)
    assert (cost.interval, cost.is_changed) == (None, False)
    assert judge_times("fork", blocks(3.0, count=BLOCKS), SURE).is_changed


@pytest.mark.parametrize(
    ("base", "other", "is_changed"),
    [
        ([3073] * 6, [3073] * 6, False),
        ([3073] * 6, [3200] * 6, True),
        ([3073] * 3, [3200] * 3, False),  # three boots of each may lie like this by chance
        ([50000, 50300, 50100, 50050, 50200, 50150], [50200, 50600, 50400, 50350, 50250, 50150], False),
        ([50000, 50001, 50000, 50002, 50001, 50000], [50020, 50021, 50020, 50023, 50019, 50020], True),
        ([50000, 50001, 50000, 50002, 50001, 50000], [49000, 49010, 49000, 49001, 50000, 49000], False),
    ],
)
def test_instruction_counts_differ_when_those_of_enough_boots_do_not_overlap(
    base: list[float], other: list[float], *, is_changed: bool
) -> None:
    cost = judge_instructions("setsid", base, other, SURE)
    assert cost.is_changed is is_changed
    assert cost.boots == len(base)
    assert (cost.interval is None) == (len(base) < COUNTED_BOOTS)
    assert cost.interval is None or cost.ratio in cost.interval
    assert cost.confidence == SURE < 1.0


def test_some_overlap_is_allowed_where_there_are_boots_enough() -> None:
    base, other = [100 + number for number in range(12)], [110 + number for number in range(12)]
    assert judge_instructions("kill", base, other, SURE).is_changed
    assert not judge_instructions("kill", base, [value - 6 for value in other], SURE).is_changed


def test_what_is_said_of_all_workloads_holds_together() -> None:
    assert confidence_of_each(7) == pytest.approx(1 - 0.05 / 14)
    # In any order that readings of equal kernels come in, at most one of 14 * 20 is taken for a change.
    ranks = range(2 * COUNTED_BOOTS)
    ways = list(combinations(ranks, COUNTED_BOOTS))
    named = 0
    for chosen in ways:
        rest = [1.0 + rank for rank in ranks if rank not in chosen]
        named += judge_instructions("k", [1.0 + rank for rank in chosen], rest, SURE).is_changed
    assert 0 < named / len(ways) <= 1 - SURE


@dataclass
class StillBench:
    """A bench on boot BOOT of kernel NAME: what a workload takes there depends on how that boot laid out its memory."""

    name: str
    boot: int

    def pause(self) -> None:
        """Stop nothing."""

    def resume(self) -> None:
        """Let nothing run."""


@pytest.mark.parametrize("counted", [False, True])
def test_what_a_boot_brings_is_not_taken_for_the_kernels(monkeypatch: pytest.MonkeyPatch, counted: bool) -> None:
    """One boot of either kernel differs from the other by 2%, always; over several boots that shows to be chance."""
    layouts = {"stock": [3000, 3030, 3012, 3024, 3006, 3018] * 2, "patched": [3060, 2990, 3013, 3022, 3007, 3016] * 2}
    made: Counter[tuple[str, int]] = Counter()

    @contextmanager
    def bench(target: Target, _store: Store, size: MachineSize, **how: object) -> Iterator[StillBench]:
        assert how["counted"] is counted
        made[target.label, size.boot] += 1
        yield StillBench(target.label, size.boot)

    def measured(bench: Any) -> float:
        return float(layouts[bench.name][bench.boot] * 1e-9)

    monkeypatch.setattr(costs_module, "_bench", bench)
    monkeypatch.setattr(costs_module, "WORKLOADS", (Workload("w", measured),))
    kernels: list[Any] = [SimpleNamespace(label=name) for name in layouts]
    measurement = CostMeasurement(Store(), MachineSize(), kernels[0], kernels[1], lambda _: None)
    (cost,) = (measurement.instructions() if counted else measurement.times()).costs
    boots = COUNTED_BOOTS if counted else BLOCKS
    assert made == Counter((name, boot) for name in layouts for boot in range(boots))
    assert not cost.is_changed
    assert cost.boots == boots


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("dies", ["stock", "patched"])
def test_a_kernel_that_dies_of_what_is_measured_is_no_missing_figure(
    monkeypatch: pytest.MonkeyPatch, counted: bool, dies: str
) -> None:
    @contextmanager
    def bench(target: Target, _store: Store, size: MachineSize, **_: object) -> Iterator[StillBench]:
        yield StillBench(target.label, size.boot)

    def measured(bench: Any) -> float:
        if bench.name == dies and bench.boot == 1:
            raise KernelPanicError(CrashReport("panic: of fork"))
        return 1e-6

    monkeypatch.setattr(costs_module, "_bench", bench)
    monkeypatch.setattr(costs_module, "WORKLOADS", (Workload("w", measured),))
    kernels: list[Any] = [SimpleNamespace(label=name) for name in ("stock", "patched")]
    measurement = CostMeasurement(Store(), MachineSize(), kernels[0], kernels[1], lambda _: None)
    found = measurement.instructions() if counted else measurement.times()
    assert Costs.from_json(found.to_json()) == found
    died = {"stock": found.base_died, "patched": found.other_died}
    assert "panic: of fork" in died.pop(dies)
    assert list(died.values()) == [""]
    named = tuple(ComparedKernel(name, name, name, 0) for name in ("stock", "patched"))
    comparison = Comparison(named, (), 0.95)
    assert comparison.exit_code is ExitCode.PASSED
    comparison.costs = [found]
    assert comparison.exit_code is (ExitCode.TEST_FAILED if dies == "patched" else ExitCode.HARNESS_FAILED)
    assert any(line.startswith(f"{dies}: DIED while its costs were measured: ") for line in summary(comparison))


@pytest.fixture
def comparison() -> Comparison:
    costs = Costs(
        "stock", "patched", [judge_times("fork <1>", blocks(1.5), 0.99), judge_instructions("k", [1], [1], SURE)]
    )
    costs.missing["setsid"] = "no reason"
    kernels = (ComparedKernel("stock", "s", "stock", 0), ComparedKernel("patched", "p", "patched", 0))
    return Comparison(kernels, (), 0.95, costs=[costs])


def test_costs_are_in_the_markdown_and_in_plots(comparison: Comparison, tmp_path: Path) -> None:
    markdown = to_markdown(comparison)
    assert "| fork <1> | time |" in markdown
    assert "SLOWER" in markdown
    files = write_plots(comparison, tmp_path / "plots")
    assert [file.name for file in files] == ["costs-patched-time.svg", "costs-patched-instructions.svg"]
    for file in files:
        ElementTree.fromstring(file.read_text())  # noqa: S314  (our own)


def test_plots_are_well_formed_self_contained_and_within_their_frame() -> None:
    bars = [Bar('a & "b"', 1.3, 1.2, 1.4, True), Bar("c", 0.99, 0.9, 1.1, False)]
    text = ratio_plot("<title>", bars)
    root = ElementTree.fromstring(text)  # noqa: S314
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    width = float(root.attrib["viewBox"].split()[2])
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    assert [circle.attrib["class"] for circle in circles] == ["slower", "alike"]
    assert all(0 <= float(circle.attrib["cx"]) <= width for circle in circles)
    assert float(circles[0].attrib["cx"]) > float(circles[1].attrib["cx"])
    points = ElementTree.fromstring(scatter_plot("t", [("a", [1.0, 2.0]), ("b", [2.0])], "µs"))  # noqa: S314
    assert sum(element.tag.endswith("circle") for element in points.iter()) == 3
    ElementTree.fromstring(scatter_plot("t", [("a", [])], "s"))  # noqa: S314


@pytest.mark.on_vm
def test_a_workload_that_cannot_be_done_is_said_to_be_missing_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def impossible(bench: Bench) -> float:
        bench.process.setrlimit(Resource.RLIMIT_NPROC, 0, 0)
        bench.process.setuid(1001)
        return bench.storm(3, "fork")

    kill = next(each for each in costs_module.WORKLOADS if each.name.startswith("kill"))
    monkeypatch.setattr(costs_module, "WORKLOADS", (Workload("impossible", impossible), kill))
    control = resolve_target(TargetChoice(control=True), Store())
    found = CostMeasurement(Store(), MachineSize(), control, control, lambda _: None).times(blocks=2)
    assert [cost.workload for cost in found.costs] == [kill.name]
    assert found.missing == {"impossible": "fork failed with EAGAIN after 0 of 3, so it has no cost"}

# SPDX-License-Identifier: BSD-2-Clause
"""Which tests a run leaves out, and in which order it takes the others."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.guests.features import KernelFacts
from harness.plugin.about import only_about
from harness.plugin.applies import MARKERS as APPLIES_MARKERS
from harness.plugin.applies import inapplicable, is_settled, may_show_defect, needs_target, shown_defect
from harness.plugin.options import durations_of
from harness.plugin.supply import GuestSupply
from harness.plugin.tested import TestedTarget
from harness.plugin.touching import Touching
from harness.results.shards import Shard, selection_digest, share_out
from harness.runs.options import RunOptions
from harness.runs.order import Dealt, Order

_USUAL = 2  # the rank of a test that wants what most want
#: The property of a test that shows a known defect of the target's era: its reason.
DEFECT = "defect"

MARKERS = (
    "kern_proc(*functions): the functions of kern_proc.c that the test is about, as its text says",
    "passes(*functions): functions of kern_proc.c that the test merely passes through",
    "needs_kernel: needs what only a real kernel has (memory, terminals, a clock); left out on the oracle",
    *APPLIES_MARKERS,
    "slow_clock(seconds): spends that much guest time waiting; scheduled first",
    "cpus(number, since, until): wants at least so many CPUs, in that era; the time-warped lane has a single one",
    "leaves_unsound(pattern, reason): a known defect of the kernel: the test passes but leaves the process table"
    " unsound, in words that match PATTERN (--invariants)",
    "exclusive: needs a quiet host",
    "on_vm: starts a virtual machine of its own",
)


class Selection:
    """Decides for each test whether it is about the target: when tests are collected, or once the kernel runs.

    DEALT tells how tests are shared out among workers, None where there are none.
    """

    def __init__(
        self,
        tested: TestedTarget,
        supply: GuestSupply,
        options: RunOptions,
        touching: Touching,
        dealt: Dealt | None = None,
    ) -> None:
        self._touching = touching
        self._tested = tested
        self._supply = supply
        self._options = options
        self._dealt = dealt
        #: Stands for all tests of a run that this is a shard of, and who has which.
        self.digest = ""
        #: Which kind of machine each test wants, where it may be dealt by that.
        self.kinds: dict[str, int] = {}
        self._unsettled: set[str] = set()  # tests of which only the running kernel can tell whether they are about it

    def select(self, items: list[pytest.Item]) -> None:
        """Leave out what was not promised by the target's era, or not asked for, and put the others in order."""
        is_about_target = any(map(needs_target, items))
        if is_about_target and self._options.function:
            self._choose(items, self._options.function)
        if self._options.shard is not None and items:
            self._take_part(items, self._options.shard)
        if not is_about_target:
            return
        facts = self._supply.kernel_facts
        for item in items:
            if self._tested.variant is not None and item.get_closest_marker("needs_kernel"):
                item.add_marker(pytest.mark.skip(reason="needs a real kernel"))
            if not self._options.defects and may_show_defect(item, facts):
                item.add_marker(pytest.mark.skip(reason="known defect of the kernel; --defects runs it"))
            else:
                self._settle_if_possible(item, facts)
        order = self._options.order or Order()
        ranks = {item.nodeid: self._rank(item) for item in items}
        items[:] = order.arrange(items, lambda item: item.nodeid, lambda item: ranks[item.nodeid], self._dealt)
        if self._touching.is_asked_for:
            if left_out := self._touching.order(items):
                _deselect(items, left_out)
        elif order.may_be_dealt_by_kind:
            self.kinds = {test: min(rank, _USUAL) for test, rank in ranks.items()}

    def _take_part(self, items: list[pytest.Item], shard: Shard) -> None:
        seconds = durations_of(self._options)
        parts = share_out([item.nodeid for item in items], seconds, shard.count)
        self.digest = selection_digest(parts)
        mine = parts[shard.number - 1]
        if not mine:
            raise pytest.UsageError(f"--shard {shard}: there are {len(items)} tests, fewer than parts")
        _deselect(items, [item for item in items if item.nodeid not in mine])

    @staticmethod
    def _choose(items: list[pytest.Item], function: str) -> None:
        try:
            chosen = only_about(items, function)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None
        _deselect(items, [item for item in items if item not in chosen])

    def settle(self, item: pytest.Item) -> None:
        """Skip ITEM if the kernel, which has to run for that, is none that it is about."""
        if item.nodeid in self._unsettled:
            self._supply.ready()
            if (reason := self._settle(item, self._supply.kernel_facts)) is not None:
                pytest.skip(reason)

    def _settle_if_possible(self, item: pytest.Item, facts: KernelFacts | None) -> None:
        try:
            if facts is not None and not is_settled(item, facts):
                self._unsettled.add(item.nodeid)
            elif (reason := self._settle(item, facts)) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))
        except UsageError as error:
            raise pytest.UsageError(f"{item.nodeid}: {error}") from None

    def _settle(self, item: pytest.Item, facts: KernelFacts | None) -> str | None:
        """Note which known defect a test shows; say why it is not about this kernel, None if it is."""
        if (defect := shown_defect(item, facts)) is not None:
            item.user_properties.append((DEFECT, defect))
        if facts is None or self._options.any_era:
            return None
        return inapplicable(item, facts)

    def _rank(self, item: pytest.Item) -> int:
        """Say what goes first: tests that want the same kind of machine, which is another than most want, together."""
        if item.get_closest_marker("exclusive"):
            return _USUAL + 1  # last: all workers wait for it
        if item.get_closest_marker("slow_clock") is not None:
            return 0
        return 1 if self._supply.cpus_for(item) > 1 else _USUAL


def _deselect(items: list[pytest.Item], left_out: list[pytest.Item]) -> None:
    items[0].config.hook.pytest_deselected(items=left_out)
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]

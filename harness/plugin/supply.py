# SPDX-License-Identifier: BSD-2-Clause
"""The guest that tests get: the right lane and CPUs for each, and what to do where none can be had."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import pytest

from harness.errors import GuestLostError, HarnessError, UsageError
from harness.guests.features import KernelFacts
from harness.guests.guest import Guest, MachineSize, Progress
from harness.machine.accel import Choice
from harness.machine.description import Lane
from harness.plugin import live
from harness.plugin.applies import in_era, needs_target
from harness.plugin.blame import verdict_of
from harness.plugin.coverage import CoverageTaker
from harness.plugin.diagnosis import start_trouble
from harness.plugin.parallel import accelerator_of_run
from harness.plugin.rig import Rig
from harness.plugin.tested import TestedTarget
from harness.processes.lanes import LaneVerdict, probe_time_warp
from harness.results.record import BETWEEN_TESTS, TestResult, Trouble
from harness.runs.options import RunOptions
from harness.store import Store


@dataclass(frozen=True)
class GuestNotes:
    """What a process knows of the machines it has used, in plain data that travels between xdist's processes."""

    target: str
    is_dragonfly: bool
    identity: str = ""
    machine: str = ""
    starts: int = 0
    failed_resumes: int = 0
    warp: str = ""
    features: str = ""
    accelerator: str = ""
    accelerator_reason: str = ""
    quirks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "quirks": list(self.quirks)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Rebuild them."""
        return cls(**{**data, "quirks": tuple(data["quirks"])})


class GuestSupply:
    """Keeps one guest of TESTED ready for the present test; `trouble` is why there is none, where none can be had."""

    def __init__(self, config: pytest.Config, tested: TestedTarget, options: RunOptions, store: Store) -> None:
        self._config = config
        self._tested = tested
        self._options = options
        self._store = store
        self._about_time = False  # the present test is
        self._cpus = 1  # it wants
        self._last: tuple[str, Guest | None] = "", None  # test that began its work, and where
        self._used: Guest | None = None
        self._deaths: list[TestResult] = []
        self._warp: LaneVerdict | None = None
        self._accelerator: Choice | None = None
        self.rig: Rig | None = None
        #: What notes which code tests run, where that was asked for.
        self.coverage = CoverageTaker(tested, store, options.coverage) if options.coverage is not None else None
        self.trouble: Trouble | None = None
        #: Where the console was when the present test began.
        self.console_mark = 0

    def prepare_lane(self, item: pytest.Item) -> None:
        """Note whether ITEM is about time, before a guest is started for it."""
        self._about_time = item.get_closest_marker("slow_clock") is not None

    def prepare(self, item: pytest.Item) -> None:
        """Note what else ITEM wants of its machine, and where the console is."""
        self._cpus = self.cpus_for(item)
        guest = self.rig.guest if self.rig is not None else None
        self.console_mark = guest.console.position if guest is not None else 0

    def cpus_for(self, item: pytest.Item) -> int:
        """Return how many CPUs ITEM wants its machine to have on this kernel."""
        several = item.get_closest_marker("cpus")
        return int(several.args[0]) if several is not None and in_era(self.osreldate, several.kwargs) else 1

    def begin(self, item: pytest.Item) -> None:
        """Note that ITEM begins its work on the present machine: whatever becomes of that later is its doing."""
        if self.rig is not None and needs_target(item):
            self._last = item.nodeid, self.rig.guest
            self._used = self.rig.guest

    def deaths(self) -> list[TestResult]:
        """Return the deaths that only a last look showed, each charged to the test that ran last on that machine."""
        found = self.rig.deaths if self.rig is not None else []
        while found:
            guest, death = found.pop(0)
            test, where = self._last
            self._deaths.append(
                TestResult(
                    test if where is guest else BETWEEN_TESTS,
                    verdict_of(death),
                    reason=f"noticed after the test, when its machine was given up: {death}",
                    evidence=getattr(death, "evidence", ""),
                    fingerprint=getattr(death, "fingerprint", ""),
                    lane=guest.lane.value,
                )
            )
        return list(self._deaths)

    def looked_again(self, death: TestResult, came_to: TestResult) -> None:
        """Keep beside DEATH what its test CAME_TO when it ran again."""
        number = self._deaths.index(death)
        self._deaths = [
            *self._deaths[:number],
            replace(death, again=(*death.again, came_to)),
            *self._deaths[number + 1 :],
        ]

    def withdraw(self, deaths: Sequence[TestResult]) -> None:
        """Forget DEATHS, which are known otherwise."""
        self._deaths = [death for death in self._deaths if death not in deaths]

    @property
    def kernel_facts(self) -> KernelFacts | None:
        """What is known of the target's kernel, more once it runs; None on the control guest."""
        known = self.rig.facts if self.rig is not None else None
        return known if known is not None else self._tested.facts

    @property
    def osreldate(self) -> int:
        """__DragonFly_version of the target, 0 on the control guest or where it is unknown."""
        facts = self.kernel_facts
        return facts.osreldate if facts is not None else 0

    def ready(self) -> Rig:
        """Return the rig with a guest that is well; what prevents that ends the session with exit status 3.

        It is said once, at the end of the run, and kept with the test that met it.
        """
        if self.trouble is None:
            self._make_ready()
        if self.trouble is not None:
            pytest.fail(f"{self.trouble.verdict}: there is no guest to run it in", pytrace=False)
        assert self.rig is not None
        return self.rig

    def _make_ready(self) -> None:
        try:
            if self.rig is None:
                self._first()
            else:
                self.rig.enter(self._lane(self.rig, lambda _: None), self._cpus)
                self.rig.ready()
        except HarnessError as error:
            self.close()
            if self.rig is not None and self.rig.starts > 1 and type(error) is GuestLostError:
                raise  # the target has come up before: that its machine went away is one test's bad luck
            self.trouble = start_trouble(error)

    def _first(self) -> None:
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        quiet = capture.global_and_fixture_disabled() if capture is not None else contextlib.nullcontext()
        with quiet, live.starting_display(self._config) as progress:
            size = self._size(progress)
            puts = self._options.put
            self.rig = Rig(self._tested.open(progress), self._store, size, cold=self._options.cold, puts=puts)
            self.rig.enter(self._lane(self.rig, progress), self._cpus)
            if self.coverage is not None:
                self.coverage.equip(self.rig, progress)
            self.rig.ready(progress)

    def _size(self, progress: Progress) -> MachineSize:
        if self._accelerator is None:
            progress("measuring accelerators")
            self._accelerator = accelerator_of_run(self._config, self._store)
        return replace(self._options.target.size, accelerator=self._accelerator.accelerator)

    def _lane(self, rig: Rig, progress: Progress) -> Lane:
        """Return where the present test runs."""
        choice = self._options.lane
        if choice == "wall" or (choice == "auto" and not self._about_time):
            return Lane.WALL_CLOCK
        if self._options.cold:  # the lane has no power-on: kernels do not boot in it
            return Lane.WALL_CLOCK
        if self._warp is None:
            self._warp = probe_time_warp(rig.target, self._store, rig.size, progress)
            if choice == "warped" and not self._warp.usable:
                raise UsageError(str(self._warp))
        return self._warp.lane if self._warp.usable else Lane.WALL_CLOCK

    def renew(self) -> None:
        """Give the present machine up: the next test, or the same once more, gets a pristine one."""
        if self.rig is not None:
            self.rig.discard()

    @property
    def is_unused(self) -> bool:
        """Whether nobody has worked in the present guest yet."""
        guest = self.rig.guest if self.rig is not None else None
        return guest is not None and guest is not self._used

    def use(self) -> None:
        """Note that somebody works in the present guest, and where its console is."""
        guest = self.rig.guest if self.rig is not None else None
        self._used = guest
        self.console_mark = guest.console.position if guest is not None else 0

    def release(self, following: pytest.Item | None) -> None:
        """End a guest that the FOLLOWING test has no use for: it is to have a pristine one, or its time is not warped.

        Held, a guest in the time-warped lane keeps a CPU busy.
        """
        if self.rig is not None and self._options.pristine:
            self.rig.discard()
        if self.rig is None or self.rig.lane is not Lane.TIME_WARPED:
            return
        useful = (
            following is not None
            and needs_target(following)
            and (self._options.lane == "warped" or following.get_closest_marker("slow_clock") is not None)
        )
        if not useful:
            self.rig.discard()

    def notes(self) -> GuestNotes | None:
        """Return what is known of the machines so far; None before the first one."""
        rig = self.rig
        if rig is None:
            return None
        choice = self._accelerator
        return GuestNotes(
            self._tested.label,
            rig.target.is_dragonfly,
            rig.identity,
            rig.machine,
            rig.starts,
            rig.failures,
            str(self._warp or ""),
            rig.facts.summary() if rig.facts is not None else "",
            choice.accelerator.value if choice is not None else "",
            choice.reason if choice is not None else "",
            tuple(rig.target.quirks(choice.accelerator)) if choice is not None else (),
        )

    def close(self) -> None:
        """Stop the machine, and the spare one."""
        if self.rig is not None:
            self.rig.close()

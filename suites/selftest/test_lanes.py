# SPDX-License-Identifier: BSD-2-Clause
"""Lanes: how a machine's time passes, who holds its clock meanwhile, and on what grounds a lane is chosen."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import DeadlineError
from harness.guests.guest import MachineSize
from harness.guests.targets import TargetChoice, has_dragonfly, resolve_target
from harness.machine.description import Lane, MachineDescription
from harness.processes import Hub, lanes
from harness.processes.connection import await_true
from harness.processes.lanes import SLEEP, LaneVerdict, probe_time_warp
from harness.processes.local import can_run_locally, local_hub
from harness.processes.session import Session, Warmth
from harness.processes.vocabulary import Clock
from harness.store import Store

DEADLINE = 10.0


def test_only_the_time_warped_lane_counts_instructions() -> None:
    assert "-icount" not in MachineDescription().command_line()
    assert "sleep=off" in MachineDescription(lane=Lane.TIME_WARPED).command_line()


@pytest.mark.parametrize(("usable", "age", "again"), [(True, 1e6, 0), (False, 500, 0), (False, 700, 1)])
def test_a_verdict_against_the_lane_is_not_kept_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool, age: float, again: int
) -> None:
    probed = []

    class Known:
        """A warm state that is there."""

        key = "key"

        def __init__(self, *_: object) -> None:
            pass

        def snapshot(self, progress: object) -> None:
            del progress

    def probe(warmth: object) -> LaneVerdict:
        probed.append(warmth)
        return LaneVerdict(Lane.TIME_WARPED, usable, "because")

    monkeypatch.setattr(lanes, "Warmth", Known)
    monkeypatch.setattr(lanes, "_probe", probe)
    store = Store(tmp_path / "store")
    target: Any = SimpleNamespace(is_dragonfly=True)
    verdict = probe_time_warp(target, store, MachineSize())
    then = time.time() - age
    os.utime(store.cache / "lane-key.json", (then, then))
    assert probe_time_warp(target, store, MachineSize()) == verdict
    assert len(probed) == 1 + again


@pytest.mark.skipif(not can_run_locally(), reason="driven processes run locally on x86_64 Linux only")
class TestPacing:
    """A hub on this host: it must use the CPU while the host thinks, and leave it alone while the host waits."""

    @pytest.fixture
    def hub(self, tmp_path: Path) -> Iterator[Hub]:
        with local_hub(tmp_path, paced=True) as hub:
            yield hub

    def test_while_the_host_thinks_the_hub_is_busy(self, hub: Hub) -> None:
        hub.spawn().getpid()
        assert is_busy(hub)

    def test_it_is_so_from_the_start_though_nothing_was_ever_awaited(self, hub: Hub) -> None:
        assert is_busy(hub)

    def test_while_the_host_waits_the_hub_is_idle(self, hub: Hub) -> None:
        waiter = threading.Thread(target=hub.spawn().start.nanosleep(3.0).result)
        waiter.start()
        looks = []
        try:
            await_true(lambda: state(hub) == "S", "the hub to sleep", DEADLINE)
            while waiter.is_alive():
                looks.append(state(hub))
                time.sleep(0.01)
        finally:
            waiter.join()
        assert looks.count("S") >= 0.75 * len(looks)  # one that spins is never seen asleep
        assert is_busy(hub)

    def test_a_wait_in_vain_ends_as_well(self, hub: Hub) -> None:
        pending = hub.spawn().start.nanosleep(60.0)
        with pytest.raises(DeadlineError):
            pending.result(0.3)
        assert is_busy(hub)

    def test_calls_under_way_that_nobody_waits_for_are_no_reason_to_be_idle(self, hub: Hub) -> None:
        pending = hub.spawn().start.nanosleep(60.0)
        assert is_busy(hub)
        assert not pending.done

    def test_where_others_speak_to_the_guest_too_it_is_idle_when_it_likes(self, hub: Hub) -> None:
        hub.spawn().getpid()
        hub.stop_pacing()
        await_true(lambda: state(hub) == "S", "the hub to sleep", DEADLINE)
        assert hub.spawn().getpid() > 0

    def test_an_unpaced_hub_is_never_busy(self, tmp_path: Path) -> None:
        with local_hub(tmp_path) as hub:
            hub.spawn().getpid()
            await_true(lambda: state(hub) == "S", "the hub to sleep", DEADLINE)


def state(hub: Hub) -> str:
    return Path(f"/proc/{hub.pid}/stat").read_text().rpartition(") ")[2].split()[0]


def cpu_time(hub: Hub) -> int:
    """Return the hub's CPU time in ticks."""
    fields = Path(f"/proc/{hub.pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def is_busy(hub: Hub) -> bool:
    """Tell whether the hub uses CPU time again and again."""
    enough = cpu_time(hub) + 3
    try:
        await_true(lambda: cpu_time(hub) >= enough, "the hub to use CPU time", DEADLINE)
    except DeadlineError:
        return False
    return True


@pytest.mark.on_vm
def test_the_lane_is_refused_with_a_reason_where_clocks_do_not_survive_it() -> None:
    verdict = probe_time_warp(resolve_target(TargetChoice(control=True), Store()), Store(), MachineSize(memory=320))
    assert not verdict.usable
    assert "Linux may stand still" in str(verdict)


@pytest.mark.on_vm
@pytest.mark.skipif(not has_dragonfly(Store()), reason="no DragonFly target in the store")
class TestRealKernel:
    """The lane on a DragonFly kernel."""

    @pytest.fixture
    def session(self) -> Iterator[Session]:
        target = resolve_target(TargetChoice(), Store())
        assert probe_time_warp(target, Store(), MachineSize()).usable
        with Session.resume(Warmth(target, Store(), MachineSize(), Lane.TIME_WARPED)) as session:
            yield session

    def test_sleeping_costs_next_to_nothing_and_is_slept_all_the_same(self, session: Session) -> None:
        sleeper = session.hub.spawn()
        before, here = sleeper.clock_gettime(Clock.CLOCK_MONOTONIC), time.monotonic()
        for _ in range(3):
            sleeper.sleep(SLEEP)
        assert sleeper.clock_gettime(Clock.CLOCK_MONOTONIC) - before >= 3 * SLEEP
        assert time.monotonic() - here < 3 * SLEEP  # 0.3 s each on a quiet host

    def test_its_clock_does_not_run_away_from_a_host_that_thinks(self, session: Session) -> None:
        reader = session.hub.spawn()
        here, before = time.monotonic(), reader.clock_gettime(Clock.CLOCK_MONOTONIC)
        for _ in range(200):
            reader.getpid()
        passed = reader.clock_gettime(Clock.CLOCK_MONOTONIC) - before
        assert passed < 10 * (time.monotonic() - here)  # idle, it would be forty times as fast

    def test_ssh_and_the_look_for_hangs_work_in_it(self, session: Session) -> None:
        session.hub.spawn().getpid()
        session.guest.probe(60)
        assert session.guest.ssh.run("echo hello").output == "hello\n"
        assert session.hub.spawn().getpid() > 0

    def test_lanes_share_a_state(self, session: Session) -> None:
        target = session.guest.target
        assert len({Warmth(target, Store(), MachineSize(), lane).snapshot().folder for lane in Lane}) == 1

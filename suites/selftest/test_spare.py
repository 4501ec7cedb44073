# SPDX-License-Identifier: BSD-2-Clause
"""A spare machine stands ready while another is used, and never outlives whoever keeps it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.guests.control import ControlTarget
from harness.guests.guest import MachineSize
from harness.images.control import build_control_image
from harness.machine.qemu import Machine
from harness.plugin import rig as rigs
from harness.plugin.rig import Rig
from harness.processes.session import Session, Warmth
from harness.processes.spare import Spare
from harness.processes.vocabulary import Clock
from harness.store import Store

pytestmark = pytest.mark.on_vm
SIZE = MachineSize(320)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def warmth(store: Store) -> Warmth:
    warmth = Warmth(ControlTarget(build_control_image(store.cache, lambda _: None)), store, SIZE)
    warmth.snapshot()
    return warmth


def ready(spare: Spare, warmth: Warmth) -> Spare:
    """Wait until SPARE is made."""
    spare.prepare(warmth)
    assert spare._maker is not None
    spare.await_ready()
    return spare


def is_qemu(pid: int) -> bool:
    """Tell whether PID is a QEMU that lives."""
    about = Path(f"/proc/{pid}")
    try:
        return (about / "comm").read_text().startswith("qemu") and ") Z " not in (about / "stat").read_text()
    except OSError:
        return False


def test_it_stands_still_and_goes_on_with_the_hosts_time(warmth: Warmth) -> None:
    spare = ready(Spare(lambda: True), warmth)
    made = spare._session
    assert made is not None
    assert made.guest.machine.monitor.execute("query-status")["status"] == "paused"
    with spare.take(warmth) or pytest.fail("there is none") as session:
        assert session is made
        process = session.hub.spawn()
        assert abs(process.clock_gettime(Clock.CLOCK_REALTIME) - time.time()) < 1.0
    assert spare.take(warmth) is None


def test_one_of_another_state_is_not_given_out(warmth: Warmth, store: Store) -> None:
    other = Warmth(warmth._target, store, SIZE)
    spare = ready(Spare(lambda: True), warmth)
    assert spare.take(other) is None
    spare.close()


def test_there_is_none_without_memory_or_a_state(warmth: Warmth, store: Store) -> None:
    spare = Spare(lambda: False)
    spare.prepare(warmth)
    assert spare.take(warmth) is None
    unmade = Warmth(warmth._target, store, MachineSize(320, boot=987654))
    spare = Spare(lambda: True)
    spare.prepare(unmade)
    assert (spare._maker, spare.take(unmade)) == (None, None)


def test_one_that_died_is_not_given_out(warmth: Warmth) -> None:
    spare = ready(Spare(lambda: True), warmth)
    assert spare._session is not None
    pid = spare._session.guest.machine.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert spare.take(warmth) is None


def test_close_ends_it_also_while_it_is_made(warmth: Warmth, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Machine] = []
    start = Machine.start

    def note(machine: Machine, *given: object, **named: object) -> None:
        started.append(machine)
        start(machine, *given, **named)  # type: ignore[arg-type]  # whatever it was

    monkeypatch.setattr(Machine, "start", note)
    spare = Spare(lambda: True)
    spare.prepare(warmth)
    spare.close()
    assert [machine.pid for machine in started] == [None]


def test_a_rig_keeps_one_and_uses_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    resumed: list[Session] = []
    resume_once = Session.resume_once.__func__  # type: ignore[attr-defined]  # of a class method

    def note(warmth: Warmth) -> Session:
        resumed.append(resume_once(Session, warmth))
        return resumed[-1]

    monkeypatch.setattr(Session, "resume_once", note)
    with Rig(ControlTarget(build_control_image(store.cache, lambda _: None)), store, SIZE) as rig:
        first = rig.ready()
        assert rig._spare._maker is not None
        rig._spare.await_ready()
        rig.discard()
        assert rig.ready() is resumed[0].hub is not first
        with rig.fresh() as another:
            assert another is resumed[1]
        assert rig.starts == 3
    assert all(session.guest.machine.pid is None for session in resumed)
    monkeypatch.setattr(rigs, "available_memory", lambda: 400)
    with Rig(ControlTarget(build_control_image(store.cache, lambda _: None)), store, SIZE) as rig:
        rig.ready()
        assert rig._spare._maker is None


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_ends_with_whoever_is_killed() -> None:
    code = """
import sys, time
from harness.guests.control import ControlTarget
from harness.guests.guest import MachineSize
from harness.images.control import build_control_image
from harness.plugin.rig import Rig
from harness.store import Store
store = Store()
rig = Rig(ControlTarget(build_control_image(store.cache, lambda _: None)), store, MachineSize(320))
rig.ready()
rig._spare.await_ready()
print(rig.guest.machine.pid, rig._spare._session.guest.machine.pid, flush=True)
sys.stdin.read()
"""
    keeper = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with keeper:
        assert keeper.stdout is not None
        pids = [int(word) for word in keeper.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(is_qemu, pids))
        keeper.kill()
    end = time.monotonic() + 10.0
    while any(map(is_qemu, pids)):
        assert time.monotonic() < end, "a machine outlived its keeper"
        time.sleep(0.05)

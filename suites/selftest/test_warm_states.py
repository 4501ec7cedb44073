# SPDX-License-Identifier: BSD-2-Clause
"""A warm state is tried before anybody gets it: one that does not resume is never in the store."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from own_store import make_store

from harness.errors import HarnessError
from harness.guests.control import ControlTarget
from harness.guests.guest import Guest, MachineSize
from harness.images.control import build_control_image
from harness.processes import session
from harness.processes.session import Session, Warmth
from harness.store import Store

pytestmark = pytest.mark.on_vm


@pytest.fixture
def warmth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warmth:
    """Return the warmth of the control guest in a store that has none yet."""
    monkeypatch.setattr(session, "_CONNECT_DEADLINE", 2.0)
    store = make_store(tmp_path)
    return Warmth(ControlTarget(build_control_image(store.cache, lambda _: None)), store, MachineSize(256))


def states(warmth: Warmth) -> list[str]:
    return [folder.name for folder in warmth._store.folder("snapshots").iterdir()]


def test_each_boot_of_a_target_is_another_state(warmth: Warmth) -> None:
    keys = {Warmth(warmth._target, warmth._store, MachineSize(256, boot=boot)).key for boot in (0, 1, 2)}
    assert len(keys) == 3
    assert warmth.key in keys


def test_what_it_costs_to_resume_is_recorded(warmth: Warmth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_CONNECT_DEADLINE", 20.0)
    said: list[str] = []
    made = warmth.snapshot(said.append)
    assert said[-1] == "trying the warm state"
    assert 0 < made.resume_seconds < made.boot_seconds
    about = json.loads((made.folder / "warm.json").read_text())
    assert about["resume_seconds"] == made.resume_seconds
    assert session.read_facts(made.folder) is not None
    assert warmth._load(made.folder.name) == session.Snapshot(
        made.folder, made.token, made.identity, made.boot_seconds, made.resume_seconds, sizes=made.sizes
    )
    with Session.resume_once(warmth) as resumed:
        assert resumed.hub.spawn().getpid() > 0


def test_one_that_does_not_resume_is_not_published(warmth: Warmth, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a hub in it nobody answers."""
    starts = []

    def not_listening(guest: Guest, store: Store, token: str) -> None:
        del guest, store
        starts.append(token)

    monkeypatch.setattr(session, "_leave_hub_listening", not_listening)
    said: list[str] = []
    with pytest.raises(HarnessError, match="the warm state does not resume: waited 2 s for the executor to answer"):
        warmth.snapshot(said.append)
    assert len(starts) == 2  # it is made once more
    assert len([line for line in said if line.endswith("the target is booted again")]) == 1
    assert states(warmth) == []
    assert list(warmth._store.folder("run").iterdir()) == []


def test_one_whose_timers_are_late_is_not_published(warmth: Warmth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_CONNECT_DEADLINE", 20.0)
    monkeypatch.setattr(session, "_NAP_DEADLINE", 0.01)
    with pytest.raises(HarnessError, match=r"does not resume: its timers are late: sleeping 0\.05 s took 0\.\d s"):
        warmth.snapshot()
    assert states(warmth) == []


def test_the_hub_listens_when_the_state_is_saved(warmth: Warmth, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first connection is accepted, so that no resume has to try again."""
    monkeypatch.setattr(session, "_CONNECT_DEADLINE", 20.0)
    tries = []
    connect = socket.create_connection

    def count(address: tuple[str, int], timeout: float) -> socket.socket:
        tries.append(address)
        return connect(address, timeout)

    warmth.snapshot()
    monkeypatch.setattr(socket, "create_connection", count)
    for _ in range(3):
        with Session.resume_once(warmth):
            pass
    assert len(tries) == 3


def test_the_first_process_is_there_already(warmth: Warmth, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made before the state was saved; one that is gone is replaced by another."""
    monkeypatch.setattr(session, "_CONNECT_DEADLINE", 20.0)
    pids = []
    for _ in range(2):
        with Session.resume_once(warmth) as resumed:
            first, second = resumed.hub.spawn(), resumed.hub.spawn()
            assert (first.getpid(), first.getsid(0)) == (first.pid, first.pid)
            assert second.getpid() != first.pid
            pids.append(first.pid)
    assert len(set(pids)) == 1
    with Session.resume_once(warmth) as resumed:
        resumed.hub.kill_all()
        resumed.hub.await_reaped()
        assert resumed.hub.spawn().getpid() not in pids

# SPDX-License-Identifier: BSD-2-Clause
"""Bulk work in driven processes, tried out on this host."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCHLD, SIGKILL, SIGTERM

import pytest

from harness.processes import (
    WNOHANG,
    Buffer,
    Handler,
    Hub,
    RemoteProcess,
    Resource,
    fails,
    fails_otherwise_than,
    fails_with,
    length_is,
    length_is_not,
    returns,
    returns_other_than,
    succeeds,
)
from harness.processes.connection import await_true
from harness.processes.local import can_run_locally, local_hub

pytestmark = pytest.mark.skipif(not can_run_locally(), reason="needs x86_64 Linux")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with local_hub(tmp_path_factory.mktemp("cache")) as hub:
        yield hub


@pytest.fixture
def init(hub: Hub) -> Iterator[RemoteProcess]:
    yield hub.spawn()
    hub.kill_all()


@pytest.mark.parametrize("kind", ["fork", "vfork"])
def test_a_storm_makes_and_reaps_children(init: RemoteProcess, kind: str) -> None:
    storm = init.storm(300, kind)
    assert (storm.count, storm.stopped, storm.error, storm.failed) == (300, False, None, None)
    assert len(storm.records) == len(set(storm.pids)) == 300
    times = [moment for record in storm.records for moment in (record.forked, record.reaped)]
    assert times == sorted(times)
    assert times[-1] <= storm.seconds
    assert storm.rate == pytest.approx(300 / storm.seconds)
    with fails("ECHILD"):
        init.wait4()


def test_a_storm_without_records_only_counts(init: RemoteProcess) -> None:
    storm = init.storm(200, record=False)
    assert (storm.count, storm.records) == (200, ())


def test_a_storm_stops_at_a_pid(init: RemoteProcess) -> None:
    first = init.storm(1).pids[0]
    awaited = first + 50
    storm = init.storm(100_000, until_pid=awaited, seconds=20)
    if storm.stopped:  # somebody else may have got that pid
        assert storm.pids[-1] == awaited
        assert storm.count == len(storm.records) < 100_000


def test_a_storm_stops_after_its_time(init: RemoteProcess) -> None:
    storm = init.storm(10_000_000, record=False, seconds=0.2)
    assert 0.2 <= storm.seconds < 20
    assert not storm.stopped
    assert 0 < storm.count < 10_000_000


def test_what_ends_a_storm_early_is_told(init: RemoteProcess) -> None:
    init.sigaction(SIGCHLD, Handler.IGNORE)
    storm = init.storm(10)
    assert (storm.count, storm.failed, storm.error) == (0, "wait4", "ECHILD")


def test_many_zombies(init: RemoteProcess) -> None:
    pids = init.spawn_many(50, status=3)
    assert len(set(pids)) == 50
    results = [init.wait4() for _ in pids]
    assert {result.pid for result in results} == set(pids)
    assert {result.exit_status for result in results} == {3}


def test_many_paused_children(init: RemoteProcess) -> None:
    pids = init.spawn_many(50, paused=True, sessions=True)
    assert init.wait4(-1, WNOHANG).pid == 0
    # A child makes its session in its own time.
    await_true(lambda: init.getsid(pids[7]) == pids[7], "the child to be the leader of a session", 30)
    init.kill(pids[0], SIGTERM)
    assert init.wait4().pid == pids[0]


def test_paused_children_end_at_the_clean_up_even_when_orphaned(hub: Hub) -> None:
    parent = hub.spawn()
    pids = parent.spawn_many(3, paused=True)
    observer = hub.spawn()
    observer.kill(parent.pid, SIGKILL)
    parent.await_end()
    for pid in pids:
        observer.kill(pid, 0)
    hub.kill_all()
    observer = hub.spawn()
    for pid in pids:
        assert observer.repeat_until(fails_with("ESRCH"), "kill", pid, 0, seconds=5).met or _is_zombie(pid)
    hub.kill_all()


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_not_enough_processes(init: RemoteProcess) -> None:
    child = init.fork()
    child.setrlimit(Resource.RLIMIT_NPROC, 0)
    if init.geteuid() == 0:
        child.setresuid(61234, 61234, 61234)
    with fails("EAGAIN") as failure:
        child.spawn_many(5)
    assert "after 0" in str(failure.error)
    with fails("EAGAIN"):
        child.fork()
    assert child.storm(3).error == "EAGAIN"
    assert child.getpid() == child.pid


def test_polling_until_a_value(init: RemoteProcess) -> None:
    parent = init.fork()
    child = parent.fork()
    polling = child.start.repeat_until(returns_other_than(parent.pid), "getppid", seconds=20)
    parent.exit()
    repeat = polling.result()
    assert repeat.met
    assert repeat.count >= 1
    assert repeat.value != parent.pid
    assert repeat.error is None


def test_polling_until_an_error(init: RemoteProcess) -> None:
    child = init.fork()
    polling = init.start.repeat_until(fails_with("ESRCH"), "kill", child.pid, 0, seconds=0.2, pause=0.01)
    repeat = polling.result()
    assert not repeat.met
    assert 2 <= repeat.count <= 21
    assert repeat.seconds >= 0.2
    child.exit()
    assert init.wait4().pid == child.pid
    repeat = init.repeat_until(fails_with("ESRCH"), "kill", child.pid, 0)
    assert (repeat.met, repeat.count, repeat.error, repeat.value) == (True, 1, "ESRCH", -1)


def test_the_other_predicates(init: RemoteProcess) -> None:
    assert init.repeat_until(returns(init.pid), "getpid").count == 1
    assert init.repeat_until(succeeds(), "getpid").met
    assert init.repeat_until(fails_otherwise_than("EBADF"), "getpid").met
    assert not init.repeat_until(fails_otherwise_than("EBADF"), "close", 9, seconds=0.01).met
    assert not init.repeat_until(returns(0), "close", 9, seconds=0.01).met
    assert init.repeat_until(returns_other_than(0), "close", 9, seconds=0.01).met


def test_polling_for_a_length_gives_each_call_the_arguments_anew(init: RemoteProcess) -> None:
    """getsockopt() returns a length in place of the room it was offered, as sysctl() does."""
    reading, writing = Buffer(bytes(8), wanted=True), Buffer(bytes(8))
    init.syscall("socketpair", 1, 1, 0, reading)
    length = Buffer(struct.pack("<Q", 8))
    repeat = init.repeat_until(length_is_not(4), "getsockopt", 0, 1, 3, writing, length, seconds=0.05, length_in=length)
    assert not repeat.met
    assert repeat.count > 2
    assert repeat.length == 4
    length = Buffer(struct.pack("<Q", 8))
    assert init.repeat_until(length_is(4), "getsockopt", 0, 1, 3, writing, length, length_in=length).count == 1

# SPDX-License-Identifier: BSD-2-Clause
"""Recorded executions: what is repeated is the same, what is not the same is refused."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import ExitCode, HarnessError, UsageError
from harness.guests.guest import MachineSize, Target
from harness.guests.targets import TargetChoice, has_dragonfly, resolve_target
from harness.machine.description import Disk, Lane, MachineDescription
from harness.plugin.recorder import choice_of
from harness.processes.recording import Execution, Recording, Replay, discard, verify
from harness.processes.session import Session, Warmth
from harness.results.record import RunRecord, TestResult, read_record
from harness.results.verdict import Verdict
from harness.store import Store

SIZE = MachineSize()


@pytest.mark.parametrize(("lane", "mode"), [(Lane.RECORDED, "rr=record"), (Lane.REPLAYED, "rr=replay")])
def test_all_that_comes_from_outside_goes_through_the_log(tmp_path: Path, lane: Lane, mode: str) -> None:
    events = tmp_path / "a,b"
    machine = MachineDescription(disks=(Disk(tmp_path / "disk"),), lane=lane, events=events)
    command = machine.command_line()
    for part in (f"{mode},rrfile={tmp_path}/a,,b", "driver=blkreplay,if=none,id=disk0", "filter-replay"):
        assert part in command


def test_a_result_knows_its_recording(tmp_path: Path) -> None:
    record = RunRecord("target", is_dragonfly=True, results=(TestResult("a", Verdict.FAILED, 1.0, recording="/r"),))
    (result,) = read_record(record.write(Store(), tmp_path / "run.json")).results
    assert result.recording == "/r"


@pytest.mark.parametrize(
    ("test", "words"),
    [("test_c", "is no test of it"), ("test_b", "has no recording"), ("test_a", "which one? test_a1, test_a2")],
)
def test_replay_says_why_there_is_nothing_to_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], test: str, words: str
) -> None:
    results = [TestResult("test_a1", Verdict.FAILED, 1.0, recording="x"), TestResult("test_b", Verdict.FAILED, 1.0)]
    results.append(TestResult("test_a2", Verdict.FAILED, 1.0, recording="y"))
    file = RunRecord("target", is_dragonfly=True, results=tuple(results)).write(Store(), tmp_path / "run.json")
    assert main(["replay", str(file), test, "--check"]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


def test_what_is_no_record_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps([1]))
    assert main(["replay", str(file), "test", "--check"]) == ExitCode.USAGE
    assert "is no record of a run" in capsys.readouterr().err


def test_a_folder_without_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recording"):
        Recording.load(tmp_path)


@pytest.fixture(scope="module")
def target() -> Target:
    return resolve_target(TargetChoice(), Store())


@pytest.fixture(scope="module")
def recording(target: Target) -> Iterator[Recording]:
    store = Store()
    folder = store.folder("recordings") / f"selftest-{secrets.token_hex(4)}"
    snapshot = Warmth(target, store, SIZE, Lane.RECORDED).snapshot()
    begun = Recording.begin(folder, "a test", target.label, snapshot, choice_of(target, SIZE))
    session = Session.resume(Warmth(target, store, SIZE, Lane.RECORDED, events=begun.events))
    init = session.hub.spawn()
    child = init.fork()
    child.exit(7)
    assert init.wait4(child.pid).exit_status == 7
    begun.finish(session)
    yield Recording.load(folder)
    discard(begun)


@pytest.mark.on_vm
@pytest.mark.skipif(not has_dragonfly(Store()), reason="no DragonFly target in the store")
class TestRealKernel:
    """Record/replay of a DragonFly kernel."""

    def test_the_same_execution_is_had_again_and_again(self, target: Target, recording: Recording) -> None:
        assert recording.end.instructions > 0
        assert [verify(recording, target, Store(), SIZE) for _ in range(2)] == ["", ""]

    def test_it_stops_where_one_likes(self, target: Target, recording: Recording) -> None:
        with Replay(recording, target, Store(), SIZE) as replay:
            replay.run(recording.end.instructions // 2)
            here = Execution.of(replay.guest)
            assert here.instructions == recording.end.instructions // 2
            replay.run()
            assert (replay.differences(), here.memory == recording.end.memory) == ([], False)

    def test_going_backwards_leads_to_where_it_was_before(self, target: Target, recording: Recording) -> None:
        with Replay(recording, target, Store(), SIZE) as replay:
            replay.make_reversible()
            back = Execution.of(replay.guest)
        with Replay(recording, target, Store(), SIZE) as forwards:
            forwards.run(back.instructions)
            assert Execution.of(forwards.guest) == back

    def test_another_execution_is_told_from_it(self, target: Target, recording: Recording) -> None:
        other = replace(recording, end=replace(recording.end, memory="another"))
        assert verify(other, target, Store(), SIZE).startswith("memory: ")

    def test_another_machine_or_qemu_is_refused(self, target: Target, recording: Recording) -> None:
        with pytest.raises(HarnessError, match="no longer what was recorded"):
            Replay(recording, target, Store(), MachineSize(memory=640))
        with pytest.raises(HarnessError, match=r"recorded by QEMU 1\.0"):
            Replay(replace(recording, qemu="1.0"), target, Store(), SIZE)

    def test_replay_compares_from_the_command_line(
        self, recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        result = TestResult(recording.test, Verdict.FAILED, 1.0, recording=str(recording.folder))
        file = RunRecord("target", is_dragonfly=True, results=(result,)).write(Store(), tmp_path / "run.json")
        assert main(["replay", str(file), "a test", "--check"]) == ExitCode.PASSED
        said = " ".join(capsys.readouterr().err.split())
        assert f"{asdict(recording.end)['instructions']:,} instructions, the same memory and console" in said

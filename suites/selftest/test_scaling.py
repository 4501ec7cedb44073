# SPDX-License-Identifier: BSD-2-Clause
"""What more cores would make of a run, played through with the durations of its record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.bench.scaling import Workload, outlooks, play
from harness.cli import main
from harness.errors import UsageError
from harness.results.record import RunRecord, TestResult
from harness.results.verdict import Verdict


def record(seconds: float, tests: list[float]) -> RunRecord:
    """Return the record of a run with two workers whose first test began after one second."""
    return RunRecord(
        "a kernel",
        is_dragonfly=True,
        started="2026-01-01T00:00:00+00:00",
        first_test="2026-01-01T00:00:01+00:00" if tests else "",
        seconds=seconds,
        workers=2,
        exit_status=0,
        results=tuple(TestResult(f"t{number}", Verdict.PASSED, seconds=each) for number, each in enumerate(tests)),
    )


def test_as_many_workers_as_it_had_take_as_long_as_it_took() -> None:
    (outlook,) = outlooks(record(41.0, [0.03] * 1000 + [2.0, 3.0]), [2])
    assert outlook.seconds == pytest.approx(41.0, abs=0.2)
    assert outlook.limit == "computing"


def test_no_number_of_workers_makes_it_shorter_than_its_longest_test() -> None:
    few, many = outlooks(record(41.0, [0.03] * 1000 + [5.0]), [4, 256])
    assert many.seconds < few.seconds
    assert many.seconds > 1.0 + 5.0
    assert many.limit == "the longest test"


def test_nobody_takes_two_of_the_longest_where_others_have_little_to_do() -> None:
    work = Workload((3.0, 3.0, 3.0, 3.0, *[0.01] * 40), between=0.0, start=0.0)
    assert play(work, 4).seconds < 3.5


def test_the_controlling_process_limits_what_many_workers_are_good_for() -> None:
    work = Workload((0.001,) * 2000, between=0.0, start=0.1)
    outlook = play(work, 64, controller=0.01)
    assert outlook.limit == "the controlling process"
    assert outlook.seconds == pytest.approx(20.1, abs=0.2)


def test_a_run_that_never_began_says_nothing() -> None:
    with pytest.raises(UsageError, match="nothing to be played through"):
        outlooks(record(3.0, []))


def test_the_command_shows_it_without_a_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.json"
    file.write_text(json.dumps(record(41.0, [0.03] * 1000 + [3.0]).to_json()))
    assert main(["bench", "--scale", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-4:]] == ["2", "8", "16", "64"]
    file.write_text("{}")
    assert main(["bench", "--scale", str(file)]) == 2

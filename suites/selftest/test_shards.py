# SPDX-License-Identifier: BSD-2-Clause
"""Shards: whole machines take parts of a run, and the parts come to what the run would have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli import main
from harness.errors import UsageError
from harness.results.record import RunRecord, read_record
from harness.results.shards import Shard, merge, selection_digest, share_out, worst_status
from harness.results.verdict import Verdict
from harness.store import Store

CLI = (sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())")
# Some of these tests fail there, others are left out, so that there is something to lose.
WRONG = ("--oracle", "zombie-pid-handed-out", "conformance/test_pids_in_use.py", "conformance/test_wait.py")
DURATIONS = st.dictionaries(st.sampled_from([f"test_{number}" for number in range(40)]), st.floats(0, 100))


@given(
    st.sets(st.integers(0, 200), min_size=1).map(lambda them: [f"test_{each}" for each in them]),
    DURATIONS,
    st.integers(1, 9),
)
def test_each_test_is_in_one_part_whatever_the_order(tests: list[str], seconds: dict[str, float], count: int) -> None:
    parts = share_out(tests, seconds, count)
    assert Counter(test for part in parts for test in part) == Counter(tests)
    assert share_out(tests[::-1], seconds, count) == parts


def test_parts_take_about_as_long() -> None:
    seconds = {f"test_{number}": float(number % 17) for number in range(500)}
    loads = [sum(seconds[test] for test in part) for part in share_out(list(seconds), seconds, 8)]
    assert max(loads) - min(loads) <= 17
    assert max(loads) < 1.01 * sum(loads) / 8


def test_a_long_test_has_a_machine_to_itself() -> None:
    seconds = {"long": 100.0, **{f"test_{number}": 1.0 for number in range(60)}}
    assert frozenset({"long"}) in share_out(list(seconds), seconds, 3)


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "a/b", "-1/4", "1/0", "1/4/2"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Shard.parse(text)


@pytest.mark.parametrize(("statuses", "status"), [
    ([0, 0], 0), ([0, 1], 1), ([1, 2], 2), ([1, 3, 2], 3), ([0, 130, 3], 130),
])  # fmt: skip
def test_the_run_ends_as_its_worst_part(statuses: list[int], status: int) -> None:
    assert worst_status(statuses) == status


def shard(text: str, **about: str) -> RunRecord:
    return replace(RunRecord("a kernel", is_dragonfly=True, shard=text, selection="x"), **about)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([shard("1/2")], "2/2 missing"),
        ([shard("1/2"), shard("1/2")], "2/2 missing, 1/2 there twice"),
        ([shard("1/2"), shard("2/3")], "not shards of one run: 1/2, 2/3"),
        ([shard("1/2"), shard("2/2", target="another")], "they differ in target"),
        ([shard("1/2"), shard("2/2", identity="another")], "they differ in identity"),
        ([shard("1/2"), shard("2/2", selection="another")], "they differ in selection"),
        ([shard("1/2"), shard("")], "one of the records is no shard"),
    ],
)
def test_what_is_not_one_run_is_not_merged(records: list[RunRecord], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        merge(records)


def test_a_part_that_was_killed_makes_the_run_incomplete() -> None:
    merged = merge([shard("2/2", incomplete="it was killed"), shard("1/2")])
    assert (merged.incomplete, merged.shard) == ("it was killed", "")


def test_which_tests_there_are_is_part_of_what_shards_agree_in() -> None:
    one, two = (selection_digest(share_out(tests, {}, 2)) for tests in (["a", "b"], ["a", "b", "c"]))
    assert one != two


def run(folder: Path, name: str, *options: str) -> tuple[int, RunRecord]:
    file = folder / f"{name}.json"
    environment = {**os.environ, "DFLY_HARNESS_HOME": str(folder / "store")}
    argv = [*CLI, "run", *WRONG, f"--json={file}", *options]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert file.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    return done.returncode, read_record(file)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_parts_come_to_what_the_run_would_have(
    tmp_path: Path, workers: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "store"))
    status, whole = run(tmp_path, "whole", "-n", "0")
    known = f"--durations={tmp_path / 'whole.json'}"
    parts = [run(tmp_path, str(number), f"--shard={number}/3", known, "-n", workers) for number in (1, 2, 3)]
    assert all(0 < len(part.results) < len(whole.results) for _, part in parts)
    merged = tmp_path / "merged.json"
    files = [str(tmp_path / f"{number}.json") for number in (3, 1, 2)]
    assert main(["report", "--merge", *files, "--json", str(merged)]) == status == 1
    found = read_record(merged)
    expected = {result.test: result.verdict for result in whole.results}
    assert {result.test: result.verdict for result in found.results} == expected
    assert set(expected.values()) >= {Verdict.PASSED, Verdict.FAILED}
    assert found.workers == sum(part.workers for _, part in parts)
    assert whole.target in capsys.readouterr().out
    assert main(["report", "--merge", *files[:2]]) == 2
    assert "2/3 missing" in capsys.readouterr().err


def test_a_shard_is_a_part_of_what_was_chosen(tmp_path: Path) -> None:
    chosen = ("-k", "zombie", "-n", "0")
    _, whole = run(tmp_path, "whole", *chosen)
    parts = [run(tmp_path, str(number), f"--shard={number}/2", *chosen)[1] for number in (1, 2)]
    shared_out = selection_digest(share_out([result.test for result in whole.results], {}, 2))
    assert {part.selection for part in parts} == {shared_out}
    assert {result.test for result in merge(parts).results} == {result.test for result in whole.results}
    assert len(whole.results) > 3


def test_what_is_wrong_with_a_part_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--oracle", "--shard", "5/4"])
    assert ended.value.code == 2
    assert "argument --shard: '5/4' is no part of a run: 1/4 is the first of four" in capsys.readouterr().err


def test_records_are_shown_one_at_a_time(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = str(shard("1/1").write(Store(tmp_path), tmp_path / "run.json"))
    assert main(["report", file, file]) == 2
    assert main(["report", "--merge"]) == 2
    assert "--merge" in capsys.readouterr().err

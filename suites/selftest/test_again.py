# SPDX-License-Identifier: BSD-2-Clause
"""A failure is looked at again, never forgiven; runs know what has changed since the last one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.config import share
from harness.report.html import run_page
from harness.report.summary import changes_lines, run_markdown
from harness.results.changes import ChangeKind
from harness.results.neighbours import are_neighbours, history, with_changes
from harness.results.record import RunRecord, TestResult, read_record
from harness.results.summary import conclusion
from harness.results.verdict import Verdict
from harness.store import Store

CLI = (sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())")
FLAKY = "failed, then passed on a pristine machine (flaky: 1 of 2)"

# What runs in another process is remembered beside the tests.
TESTS = """
import os, signal
from pathlib import Path

def turn(name):
    file = Path(__file__).parent / name
    count = int(file.read_text()) if file.exists() else 0
    file.write_text(str(count + 1))
    return count

def test_fine(init):
    turn("fine")

def leaves_something(init):
    try:
        init.open("/tmp/left", os.O_RDONLY)
    except OSError:  # ENOENT
        init.open("/tmp/left", os.O_WRONLY | os.O_CREAT)
        return False
    return True

def test_flaky(init):
    first = turn("flaky") == 0
    assert not leaves_something(init)  # the second machine is a pristine one
    assert not first, "the first time"

def test_broken(init):
    assert turn("broken") < 0, "always"

def test_host(init):
    turn("host")
    raise MemoryError

def test_on_the_same_machine(init):
    leaves_something(init)
    assert leaves_something(init)

def test_panic_once(init):
    if turn("panic") == 0:
        init.write(init.open("/proc/sysrq-trigger", 1), b"c")

def test_skipped(init):
    import pytest
    turn("skipped")
    pytest.skip("no")
"""


def turns(folder: Path) -> dict[str, int]:
    names = ("fine", "flaky", "broken", "host", "panic", "skipped")
    return {name: int((folder / name).read_text()) for name in names if (folder / name).exists()}


def run_tests(folder: Path, *arguments: str, target: str = "--dfly-control") -> tuple[int, str, dict[str, TestResult]]:
    (folder / "test_inner.py").write_text(TESTS)
    file = folder / "record.json"
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder), f"--rootdir={folder}", target,
            "-p", "harness.plugin.entry", f"--dfly-json={file}", *arguments]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False, timeout=900)
    record = read_record(file)
    names = [result.test.rpartition("::")[2] for result in record.results]
    assert len(names) == len(set(names)), names
    return done.returncode, done.stdout + done.stderr, dict(zip(names, record.results, strict=True))


@pytest.mark.on_vm
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_failure_is_looked_at_again_on_a_pristine_machine_and_stays_one(tmp_path: Path, workers: str) -> None:
    junit = tmp_path / "junit.xml"
    status, output, found = run_tests(tmp_path, "-n", workers, f"--junitxml={junit}")
    assert status == 1, output
    # Only what speaks against the kernel is looked at again.
    assert turns(tmp_path) == {"fine": 1, "flaky": 2, "broken": 2, "host": 1, "panic": 2, "skipped": 1}, output
    words = {name: result.words for name, result in found.items()}
    assert words == {
        "test_fine": "passed",
        "test_flaky": FLAKY,
        "test_broken": "failed (2 of 2)",
        "test_host": "harness error",
        "test_on_the_same_machine": "passed",
        "test_panic_once": "panic, then passed on a pristine machine (flaky: 1 of 2)",
        "test_skipped": "not applicable",
    }
    first, (second,) = found["test_flaky"], found["test_flaky"].again
    assert "the first time" in first.reason
    assert (second.verdict, second.pristine) == (Verdict.PASSED, True)
    assert "4 failed, 2 passed, 1 skipped" in output
    assert FLAKY in output
    told = {prop.get("value") for prop in ET.parse(junit).iter("property") if prop.get("name") == "runs"}  # noqa: S314
    assert told == {FLAKY, "failed (2 of 2)", words["test_panic_once"]}
    assert len(ET.parse(junit).findall(".//testcase")) == len(found)  # noqa: S314


@pytest.mark.on_vm
def test_a_failure_that_is_only_a_flake_fails_the_run(tmp_path: Path) -> None:
    status, output, found = run_tests(tmp_path, "-k", "flaky or fine")
    assert (status, found["test_flaky"].words) == (1, FLAKY), output


@pytest.mark.on_vm
def test_it_can_be_left_out(tmp_path: Path) -> None:
    status, output, found = run_tests(tmp_path, "--dfly-no-again", "-k", "flaky")
    assert (status, found["test_flaky"].words, turns(tmp_path)) == (1, "failed", {"flaky": 1}), output


REPEATED = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_sometimes(init, n):
    file = Path(__file__).parent / f"count{n}"
    count = int(file.read_text()) if file.exists() else 0
    file.write_text(str(count + 1))
    assert n == 1 or count % 3
"""


def test_each_test_is_repeated_and_it_is_said_how_often_it_failed(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(REPEATED)
    argv = [*CLI, "run", "--oracle", str(tmp_path), "--repeat", "6", "--json", str(tmp_path / "r.json")]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False, timeout=120)
    assert done.returncode == 1
    always, sometimes = read_record(tmp_path / "r.json").results
    assert always.words == "passed (6 of 6)"
    assert (sometimes.words, sometimes.attempts, len(sometimes.again)) == ("failed (flaky: 2 of 6)", (2, 6), 5)
    assert "FAILED (FLAKY: 2 OF 6)" in done.stdout


def test_no_test_is_repeated_less_than_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--oracle", "--repeat", "0"]) == 2
    assert "--repeat is at least 1" in capsys.readouterr().err


PASSED, FAILED = TestResult("t::a", Verdict.PASSED), TestResult("t::a", Verdict.FAILED)
FLAKE = replace(FAILED, again=(replace(PASSED, pristine=True),))
LOST = TestResult("t::a", Verdict.GUEST_LOST)


def test_two_failures_for_different_reasons_are_told_apart() -> None:
    failed = replace(FAILED, reason="E  assert 12 == 13")
    assert replace(failed, again=(replace(failed, reason="E  assert 14 == 15"),)).words == "failed (2 of 2)"
    for other in (replace(failed, reason="E  the pid is there"), TestResult("t", Verdict.PANIC, fingerprint="f")):
        assert replace(failed, again=(other,)).words == "failed (2 of 2, for different reasons)"
    hang, panic = (TestResult("t", verdict, fingerprint="f") for verdict in (Verdict.HANG, Verdict.PANIC))
    assert replace(panic, again=(hang,)).words == "panic (2 of 2, for different reasons)"
    assert replace(panic, again=(panic, panic)).words == "panic (3 of 3)"


def record(result: TestResult | None, second: int, osreldate: int = 600500, kernel: str = "k") -> RunRecord:
    started = f"2026-11-29T12:00:{second:02}+00:00"
    results = (result,) if result is not None else ()
    return RunRecord("t", is_dragonfly=True, osreldate=osreldate, kernel=kernel, started=started, results=results)


@pytest.mark.parametrize(
    ("before", "now", "kind"),
    [
        (PASSED, FAILED, ChangeKind.NEW_FAILURE),
        (PASSED, FLAKE, ChangeKind.NEWLY_FLAKY),
        (FAILED, FLAKE, ChangeKind.NEWLY_FLAKY),
        (FAILED, PASSED, ChangeKind.MENDED),
        (FLAKE, PASSED, None),  # it passed once, as it did before
        (PASSED, PASSED, None),
        (FAILED, FAILED, None),
        (FAILED, replace(FAILED, verdict=Verdict.PANIC, fingerprint="f"), ChangeKind.OTHERWISE),
        (replace(FAILED, verdict=Verdict.PANIC, fingerprint="g"),
         replace(FAILED, verdict=Verdict.PANIC, fingerprint="f"), ChangeKind.OTHERWISE),
        (PASSED, LOST, None),
        (LOST, FAILED, None),
    ],
)  # fmt: skip
def test_what_has_changed_since_the_last_run(
    tmp_path: Path, before: TestResult, now: TestResult, kind: ChangeKind | None
) -> None:
    store = Store(tmp_path)
    record(before, 1).write(store)
    found = with_changes(record(now, 5, kernel="k2"), store)
    assert [change.kind for change in found.changes] == ([kind] if kind else [])
    shown = [run_markdown(found), run_page(found), "\n".join(changes_lines(found))]
    if kind is not None:
        assert all(str(kind) in text and before.words in text for text in shown)
        assert RunRecord.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_test_is_compared_with_its_own_last_run_on_a_kernel_of_the_same_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, (result, osreldate) in enumerate(
        [(PASSED, 600501), (FAILED, 400700), (None, 600502), (LOST, 600503), (FAILED, 0)]
    ):
        file = record(result, number, osreldate).write(store)
        file.rename(file.with_name(f"2026-11-29T1200{number:02}-1.json"))
    (tmp_path / "results" / "2026-11-29T120008-1.json").write_text("{")
    found = with_changes(record(FAILED, 30, 600523), store)
    (change,) = found.changes
    assert (change.kind, change.when) == (ChangeKind.NEW_FAILURE, "2026-11-29T12:00:00+00:00")
    assert with_changes(record(FAILED, 30, 500800), store).since == ""


def test_runs_of_something_else_do_not_hide_the_last_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    started = record(PASSED, 0).started
    file = record(PASSED, 0).write(store)
    file.rename(file.with_name("2026-11-29T120000-1.json"))
    for number in range(1, 41):
        file = record(FAILED, number, 400700).write(store)
        file.rename(file.with_name(f"2026-11-29T1200{number:02}-1.json"))
    found = with_changes(record(FAILED, 50), store)
    assert ([change.kind for change in found.changes], found.since) == ([ChangeKind.NEW_FAILURE], started)


ALWAYS = """
import pytest
@pytest.mark.parametrize("number", range({count}))
def test_bad(init, number): assert init.pid == 0
"""


@pytest.mark.on_vm
@pytest.mark.parametrize("workers", ["0", "1"])
def test_failures_that_are_not_looked_at_again_are_counted(tmp_path: Path, workers: str) -> None:
    (tmp_path / "conftest.py").write_text("import harness.plugin.again\nharness.plugin.again._ENOUGH = 2\n")
    (tmp_path / "test_inner.py").write_text(ALWAYS.format(count=5))
    file = tmp_path / "r.json"
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path), f"--rootdir={tmp_path}",
            "--dfly-control", "-p", "harness.plugin.entry", f"--dfly-json={file}", "-n", workers]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False, timeout=600)
    found = read_record(file)
    assert [len(result.again) for result in found.results] == [1, 1, 0, 0, 0], done.stdout
    assert found.not_again == 3
    assert done.stdout.count("3 failures not looked at again") == 1
    assert "3 failures not looked at again" in run_markdown(found)
    assert "3 failures not looked at again" in run_page(found)


def test_other_targets_and_other_peoples_tests_are_no_neighbours() -> None:
    one = record(PASSED, 1)
    assert are_neighbours(one, record(PASSED, 2, 600599))
    assert not are_neighbours(one, record(PASSED, 2, 600600))
    assert not are_neighbours(one, replace(one, root="/elsewhere"))
    on_image = replace(one, image="i")
    assert are_neighbours(on_image, replace(on_image, osreldate=600501))
    assert not are_neighbours(on_image, replace(on_image, image="j"))
    assert are_neighbours(on_image, one)  # which does not say
    assert not are_neighbours(one, replace(one, is_dragonfly=False))
    same = replace(one, osreldate=0, kernel_digest="d")
    assert are_neighbours(same, same)
    oracle = replace(one, is_dragonfly=False, target="ORACLE of 2017")
    assert not are_neighbours(oracle, replace(oracle, target="ORACLE of 2026"))


def test_a_tests_history_is_shown_the_last_run_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path))
    store = Store(tmp_path)
    for number, result in enumerate([PASSED, FAILED, FLAKE]):
        file = record(result, number).write(store)
        file.rename(file.with_name(f"2026-11-29T1200{number:02}-1.json"))
    assert [each.result.verdict for each in history(store, "a", 2)] == [Verdict.FAILED, Verdict.FAILED]
    assert main(["history", "t::a"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "t::a"
    assert ["passed" in lines[2], FLAKY in lines[4]] == [True, True]
    assert main(["history", "--last", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2
    assert lines[-1].startswith("2026-11-29T120002-1")
    assert conclusion(record(FLAKE, 2)) in lines[-1]
    assert "1 of 1 test speaks against this kernel, 1 of them now and then." in lines[-1]
    assert main(["history", "t::a", "--json", "--last", "1"]) == 0
    (plain,) = json.loads(capsys.readouterr().out)
    assert (plain["words"], plain["result"]["verdict"]) == (FLAKY, "failed")
    assert main(["history", "nobody"]) == 2


def test_a_run_says_what_is_new_and_is_kept_in_the_store_beside_its_file(tmp_path: Path) -> None:
    home = {**os.environ, "DFLY_HARNESS_HOME": str(tmp_path / "store")}
    outputs: list[str] = []
    changes: list[list[str]] = []
    summaries: list[str] = []
    for code, status in (("assert init.pid", 0), ("assert not init.pid", 1), ("assert not init.pid", 1)):
        (tmp_path / "test_inner.py").write_text(f"def test_it(init): {code}\n")
        summary = tmp_path / f"summary{len(outputs)}.md"
        argv = [*CLI, "run", "--oracle", str(tmp_path), "--json", str(tmp_path / "r.json")]
        done = subprocess.run(
            argv, capture_output=True, text=True, cwd=share(), check=False, timeout=60,
            env={**home, "GITHUB_STEP_SUMMARY": str(summary)},
        )  # fmt: skip
        assert done.returncode == status, done.stdout
        outputs.append(done.stdout)
        changes.append([str(change.kind) for change in read_record(tmp_path / "r.json").changes])
        summaries.append(summary.read_text())
    assert "since the last run" not in outputs[0]
    assert "new failure: test_inner.py::test_it (failed; passed on ORACLE" in outputs[1]
    assert "nothing changed" in outputs[2]
    assert changes == [[], ["new failure"], []]
    assert ["new failure" in text for text in summaries] == [False, True, False]
    assert len(list((tmp_path / "store" / "results").glob("*.json"))) == 3

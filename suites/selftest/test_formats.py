# SPDX-License-Identifier: BSD-2-Clause
"""A run in the formats of others: each is read back by the tool it is for, and says neither more nor less."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import junitparser
import pytest
import yaml
from tap.parser import Parser

from harness.cli import main
from harness.report.annotations import SHOWN, run_annotations
from harness.results.record import RunRecord, TestResult, Trouble
from harness.results.verdict import Verdict

EVIL = "100% <b>\x1b[2J, \udc80 'a': \"b\" # TODO\n- x: y\n...\n\nBail out! \\ \t::error::"
NAME = re.compile(r"^test_\w+$")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


def result(test: str, verdict: Verdict, **more: Any) -> TestResult:
    return TestResult(f"suite/test_a.py::{test}", verdict, **{"seconds": 0.5, **more})


#: One of each verdict, a known defect that was looked at, one that failed as listed, and one that is flaky.
ALL = RunRecord(
    "DragonFly: kernel k",
    True,
    results=(
        *(result(f"test_{verdict.name.lower()}", verdict, reason=f"because of {verdict}") for verdict in Verdict),
        result("test_seen", Verdict.PANIC, defect="nobody is told", fingerprint="exit1<abc", line=7),
        result("test_listed", Verdict.KNOWN_DEFECT, defect="it never worked"),
        result("test_flaky", Verdict.FAILED, again=(result("test_flaky", Verdict.PASSED),), worker="gw1"),
        result("test_evil[a::b#c]", Verdict.FAILED, reason=EVIL, evidence=EVIL, behaviour=EVIL, calls=(EVIL,)),
    ),
    exit_status=1,
    first_test="2026-11-30T00:00:01+00:00",
)
GOOD = RunRecord("k", True, results=tuple(each for each in ALL.results if not each.verdict.is_failure))
AGAINST = {"panic", "hang", "failed", "seen", "flaky", "evil[a::b#c]"}
BROKEN = {"guest_lost", "boot_failure", "build_failure", "harness_error", "test_error"}


def written(tmp_path: Path, record: RunRecord, form: str) -> Path:
    """Return the file that `report` makes of RECORD."""
    given, file = tmp_path / "record.json", tmp_path / f"run.{form}"
    given.write_text(json.dumps(record.to_json()))
    assert main(["report", str(given), f"--{form}", str(file)]) == 0
    return file


def kyua(verb: str, file: Path, *words: str) -> str:
    done = subprocess.run(
        ["kyua", verb, f"--results-file={file}", *words], capture_output=True, text=True, check=False, cwd=file.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs("kyua")
def test_kyua_reads_each_outcome_as_it_is(tmp_path: Path) -> None:
    file = written(tmp_path, ALL, "kyua")
    said = kyua("report", file, "--results-filter=passed,skipped,xfail,broken,failed")
    assert "15 total, 2 skipped, 1 expected failures, 5 broken, 6 failed" in said
    assert "suite/test_a.py:test_listed  ->  expected_failure: known defect: it never worked" in said
    assert "test_seen  ->  failed: known defect: nobody is told: panic: exit1<abc  [0.500s]" in said
    assert "test_flaky  ->  failed: failed (flaky: 1 of 2)" in said
    assert "test_boot_failure  ->  broken: boot failure: because of boot failure" in said
    assert "test_evil[a.b#c]" in said
    assert "\x1b" not in said
    verbose = kyua("report", file, "--verbose")
    assert "DFLY_TARGET=DragonFly: kernel k" in verbose
    assert r"100% <b>\x1b[2J, ? 'a'" in verbose
    assert "Start time: 2026-11-30T00:00:01.000000Z" in verbose


@needs("kyua")
def test_kyua_makes_junit_and_a_page_of_it(tmp_path: Path) -> None:
    file = written(tmp_path, ALL, "kyua")
    (tmp_path / "kyua.xml").write_text(kyua("report-junit", file))
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "kyua.xml"))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (15, 6, 5, 2)
    kyua("report-html", file, f"--output={tmp_path / 'html'}")
    assert "test_flaky" in (tmp_path / "html" / "index.html").read_text()


@needs("kyua")
def test_kyua_is_told_of_a_run_that_did_not_come_to_its_end(tmp_path: Path) -> None:
    trouble = Trouble(Verdict.BOOT_FAILURE, "it hangs", Verdict.HANG)
    dead = RunRecord("k", True, trouble=trouble, not_run=("a.py::test_x", "a.py::test_y"), exit_status=1)
    said = kyua("report", written(tmp_path, dead, "kyua"))
    assert "a.py:test_x  ->  broken: not run: boot failure: it hangs" in said
    assert "the run:main  ->  broken: the run ended early: boot failure: it hangs" in said
    assert "3 total, 0 skipped, 0 expected failures, 3 broken, 0 failed" in said


@needs("prove")
@pytest.mark.parametrize(("record", "status"), [(ALL, 1), (GOOD, 0)])
def test_prove_comes_to_what_the_run_came_to(tmp_path: Path, record: RunRecord, status: int) -> None:
    file = written(tmp_path, record, "tap")
    done = subprocess.run(
        ["prove", "--exec", "cat", "--directives", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout
    assert "Parse errors" not in done.stdout
    assert f"Tests={len(record.results)}," in done.stdout
    if status:
        assert "Failed tests:  1-8, 12, 14-15" in done.stdout


def test_a_tap_parser_reads_each_outcome_as_it_is(tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    for line in Parser().parse_file(str(written(tmp_path, ALL, "tap"))):
        assert line.category not in {"unknown", "bail"}, line
        if line.category == "test":
            found[line.description.partition("::test_")[2].replace(r"\x23", "#")] = line
    assert found.keys() == {each.test.partition("::test_")[2] for each in ALL.results}
    assert {name for name, line in found.items() if not line.ok} == {*AGAINST, *BROKEN, "listed"}
    assert {name for name, line in found.items() if line.skip} == {"known_defect", "not_applicable"}
    assert [name for name, line in found.items() if line.todo] == ["listed"]
    assert found["seen"].yaml_block["at"] == "suite/test_a.py:7"
    assert found["seen"].yaml_block["message"] == "known defect: nobody is told: panic: exit1<abc"
    assert "| - x: y" in found["evil[a::b#c]"].yaml_block["log"]


def test_tap_bails_out_of_a_run_that_did_not_come_to_its_end(tmp_path: Path) -> None:
    cut = RunRecord("k", True, results=GOOD.results[:1], not_run=("a.py::test_x",), incomplete="it was killed")
    lines = list(Parser().parse_file(str(written(tmp_path, cut, "tap"))))
    assert [(line.ok, line.description) for line in lines if line.category == "test"] == [
        (True, "- suite/test_a.py::test_passed"),
        (False, "- a.py::test_x"),
    ]
    assert lines[-1].reason == "the record is incomplete: it was killed"


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Read workflow commands by the rules of GitHub's runner: kind, properties and message of each."""

    def plain(value: str) -> str:
        for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            value = value.replace(code, character)
        return value

    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line)
        assert match is not None, line
        properties = dict(each.split("=", 1) for each in match[2].split(","))
        found.append((match[1], {name: plain(value) for name, value in properties.items()}, plain(match[3])))
    return found


def test_annotations_are_at_the_tests_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    (tmp_path / "mine" / "suite").mkdir(parents=True)
    (tmp_path / "mine" / "suite" / "test_a.py").touch()
    record = RunRecord("k: a, b", True, results=ALL.results, root=str(tmp_path / "mine"), exit_status=1)
    told = commands(run_annotations(record))
    kinds = Counter(kind for kind, _, _ in told)
    assert kinds == {"error": SHOWN, "warning": 2}
    assert all(properties["file"] == "mine/suite/test_a.py" for _, properties, _ in told)
    seen = next(each for each in told if "test_seen" in each[1]["title"])
    assert seen[:2] == (
        "warning",
        {"file": "mine/suite/test_a.py", "line": "7", "title": "panic: test_a.py::test_seen"},
    )
    assert seen[2].splitlines() == ["known defect: nobody is told: panic: exit1<abc", "Seen.", "k: a, b"]
    assert told[0][1]["title"] == "panic: test_a.py::test_panic", "the worst comes first"
    evil = next(text for _, properties, text in told if "evil" in properties["title"])
    assert "100% <b>\\x1b[2J" in evil or "Bail out!" in evil
    # A suite that is no part of the checkout has no place in it.
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "other"))
    assert all("file" not in properties for _, properties, _ in commands(run_annotations(record)))


def test_annotations_that_would_be_dropped_are_counted() -> None:
    many = RunRecord("k", True, results=tuple(result(f"test_{n}", Verdict.FAILED) for n in range(25)), exit_status=1)
    cut = RunRecord("k", True, results=many.results, not_run=("a.py::test_x",), incomplete="it was killed")
    assert Counter(kind for kind, _, _ in commands(run_annotations(many))) == {"error": SHOWN, "notice": 1}
    told = commands(run_annotations(cut))
    assert told[0] == ("error", {"title": "dfly-harness"}, "the record is incomplete: it was killed")
    assert told[-1][2] == "16 more went wrong, 1 without a result: see the record"
    assert [kind for kind, _, _ in commands(run_annotations(GOOD))] == ["warning"], "what is listed as failing"


def test_a_run_knows_the_line_and_junit_is_read_by_others(tmp_path: Path) -> None:
    tests = tmp_path / "test_mine.py"
    tests.write_text(
        "import pytest\n\ndef test_fails(init):\n    child = init.fork()\n    assert child.getpid() == 1\n\n"
        "def test_passes(init):\n    init.getpid()\n\ndef test_no_kernel():\n    assert 1 == 2\n\n"
        "@pytest.mark.feature('lwkt', '!lwkt')\ndef test_is_of_no_kernel(init): pass\n"
    )
    words = ["run", "--oracle", "2026", "-q", str(tests), "--json", "run.json", "--junitxml=run.xml"]
    code = "import sys; from harness.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    record = json.loads((tmp_path / "run.json").read_text())
    lines = {each["test"].partition("::test_")[2]: each["line"] for each in record["results"]}
    assert lines == {"fails": 5, "passes": 7, "no_kernel": 11, "is_of_no_kernel": 13}
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "run.xml"))
    assert (suite.tests, suite.failures, suite.errors) == (4, 2, 0)
    told = {case.name: {each.get("name"): each.get("value") for each in case._elem.iter("property")} for case in suite}
    assert {name: each.get("verdict") for name, each in told.items()} == {
        "test_fails": "failed",
        "test_passes": "passed",
        "test_no_kernel": None,
        "test_is_of_no_kernel": "not applicable",
    }


def test_formats_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "record.json"
    given.write_text(json.dumps(ALL.to_json()))
    files = [tmp_path / name for name in ("k", "t", "p")]
    words = [
        word for form, file in zip(("kyua", "tap", "html"), files, strict=True) for word in (f"--{form}", str(file))
    ]
    assert main(["report", str(given), *words, "--github"]) == 0
    assert all(file.stat().st_size for file in files)
    said = capsys.readouterr().out
    assert said.startswith("::error ")
    assert "| verdict |" not in said
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(given), "--tap", str(tmp_path / "no" / "t")])
    assert "there is no folder" in capsys.readouterr().err
    assert yaml.safe_load("a: 1") == {"a": 1}  # without it, the parser of TAP would not look at what is in YAML

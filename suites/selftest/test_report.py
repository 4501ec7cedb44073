# SPDX-License-Identifier: BSD-2-Clause
"""A run's page: what it says, that nothing in a record can break it, and that a real browser shows it on a phone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import WIDTHS, assert_readable, look, needs_browser

from harness.cli import main
from harness.report.html import run_page
from harness.report.summary import run_markdown
from harness.results.measurements import Measurements
from harness.results.record import RunRecord, TestResult, read_record
from harness.results.summary import conclusion, verdicts_of
from harness.results.verdict import Verdict

EVIL = "<script>document.title='owned'</script>&\"'|`\x00\x1b[31m\n" + "x" * 500


def result(test: str, verdict: str, **more: Any) -> TestResult:
    return TestResult(f"suite/test_a.py::{test}", Verdict(verdict), **{"seconds": 0.5, **more})


def record(*results: TestResult, **more: Any) -> RunRecord:
    given = {"target": "DragonFly: kernel k", "is_dragonfly": True, "seconds": 3.0, **more}
    return RunRecord(results=results, **given)


MIXED = record(
    result("test_good", "passed", behaviour="A child is born.", functions=("proc_makepid",), seconds=9.25),
    result("test_bad", "failed", reason="assert 1 == 2", calls=("process 7: fork() = <process 8>",)),
    result("test_dead", "panic", fingerprint="cache_fullpath<sysctl_root<abc", evidence="Fatal trap 12"),
    result("test_lost", "guest lost", reason="QEMU was killed"),
    result("test_later", "not applicable"),
)


def test_the_summary_comes_first_and_counts_only_what_was_judged() -> None:
    assert conclusion(MIXED).startswith("2 of 3 tests speak against this kernel. 1 could not be judged")
    assert list(verdicts_of(MIXED)) == ["panic", "failed", "guest lost", "passed", "not applicable"]
    page = run_page(MIXED)
    assert page.index("2 of 3 tests") < page.index("What went wrong") < page.index("All tests")


@pytest.mark.parametrize(
    "words",
    ["A child is born.", "proc_makepid", "process 7: fork() = &lt;process 8&gt;", "Fatal trap 12", "assert 1 == 2"],
)
def test_a_page_tells_of_each_test(words: str) -> None:
    assert words in run_page(MIXED)


def test_a_known_defect_is_told_from_news() -> None:
    why = "nobody is told"
    mixed = record(
        result("test_known", "panic", defect=why, fingerprint="exit1<abc"),
        result("test_news", "failed"),
        result("test_mended", "passed", defect="no more"),
    )
    assert conclusion(mixed) == "2 of 3 tests speak against this kernel, 1 of them for a known defect."
    assert f"<dt>known defect</dt><dd>{why}</dd>" in run_page(mixed)
    assert "no more" not in run_page(mixed)
    assert f"| `test_a.py::test_known` | known defect: panic | {why} |" in run_markdown(mixed)


def test_the_table_of_functions_lists_the_tests() -> None:
    page = run_page(
        record(result("a.py::test_one", "passed", functions=("pgrel",)), result("a.py::test_two", "passed"))
    )
    table = page.partition("Functions of the kernel")[2].partition("</table>")[0]
    assert "pgrel" in table
    assert "a.py::test_one" in table
    assert "test_two" not in table


def test_a_run_without_failures_says_so() -> None:
    good = record(result("test_good", "passed"))
    assert conclusion(good) == "Nothing in 1 test speaks against this kernel."
    assert "What went wrong" not in run_page(good)


def test_results_of_the_control_guest_are_marked() -> None:
    control = record(result("test_good", "passed"), is_dragonfly=False)
    assert "These results say nothing about DragonFly" in run_page(control)
    assert "These results say nothing about DragonFly" not in run_page(MIXED)


def test_records_made_before_there_were_verdicts_are_read() -> None:
    old = {"test": "t.py::test_x", "outcome": "xfailed", "seconds": 1, "console": "said"}
    read = RunRecord.from_json(
        {"target": "k", "results": [old, {**old, "outcome": "failed"}], "trouble": "boot failure: x"}
    )
    assert verdicts_of(read) == {"failed": 1, "not applicable": 1}
    assert read.results[0].evidence == "said"
    assert read.trouble is not None
    assert (read.trouble.verdict, read.trouble.text) == (Verdict.BOOT_FAILURE, "x")


def test_the_page_needs_no_network_and_no_script_but_its_own() -> None:
    page = run_page(MIXED)
    assert not re.search(r"<link|<img|@import|url\(|\bsrc=", page)
    assert page.count("<script") == 1
    assert page.endswith("</script>\n</body></html>\n"), "the page is whole before its search box is"
    evil = run_page(record(result(EVIL, "failed", reason=EVIL)))
    assert page[page.index("<script>") :] == evil[evil.index("<script>") :], "nothing of a record is in it"


def test_each_row_has_the_tests_name_and_a_failure_begins_with_its_cause() -> None:
    page = run_page(
        record(
            result("test_bad[a_case]", "failed", reason="def f():\nE  assert 1 == 2\n/x/y.py:7: AssertionError"),
            result("test_known", "failed", reason="E  assert 0", defect="nobody is told"),
        )
    )
    wrong, _, rows = page.partition("All tests")
    assert "<span class='name'>test_<wbr>bad[<wbr>a_<wbr>case]</span></summary>" in rows
    first = wrong.partition("What went wrong")[2]
    assert "</summary><p class='cause'>assert 1 == 2</p>" in first
    assert "</summary><p class='cause'>nobody is told</p>" in first


def test_time_goes_where_it_went() -> None:
    began, first = "2026-11-29T22:10:18.710+00:00", "2026-11-29T22:10:31.812+00:00"
    again = result("test_bad", "failed", seconds=4.0)
    run = record(
        result("test_good", "passed", seconds=30.0),
        result("test_bad", "failed", seconds=6.0, again=(again,)),
        seconds=60.0, started=began, first_test=first, workers=2,
    )  # fmt: skip
    shown = re.findall(r">(\d+\.\d\d s)<", run_page(run).partition("Where the time went")[2].partition("slowest")[0])
    assert shown == ["13.10 s", "18.00 s", "2.00 s", "26.90 s"]
    assert "machines side by side" in run_page(run)
    assert "Until the first test" not in run_page(record(result("t", "passed"))), "it is not known"


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_rows_are_found_as_words_are_typed(tmp_path: Path, width: int) -> None:
    many = record(
        *(result(f"test_{kind}_{n}", "passed") for kind in ("zombie", "leader") for n in range(40)), *MIXED.results
    )
    page = run_page(many)
    assert len(look(page, width, tmp_path)["found"]) == 80 + len(MIXED.results)
    seen = look(page, width, tmp_path, "ZOMBIE 17")
    assert seen["found"] == ["test_zombie_17"]
    assert_readable(seen, width)
    assert look(page, width, tmp_path, "panic")["found"] == ["test_dead"]
    assert look(page, width, tmp_path, "no such words")["found"] == []


def test_what_a_guest_says_cannot_break_the_page() -> None:
    page = run_page(record(result(EVIL, "failed", reason=EVIL, evidence=EVIL, behaviour=EVIL, fingerprint=EVIL)))
    assert page.count("<script") == 1  # ours
    assert "\x00" not in page


def test_markdown_for_a_ci_step() -> None:
    text = run_markdown(MIXED)
    assert "| panic | 1 |" in text
    assert "| `test_a.py::test_dead` | panic | cache_fullpath&lt;sysctl_root&lt;abc |" in text
    assert "<script" not in run_markdown(record(result("t", "failed", reason=EVIL)))
    said = "    assert x\nE   assert 1 == 2\nE    +  where 1 = f()\n\ntest_a.py:7: AssertionError"
    assert "| `test_a.py::t` | failed | assert 1 == 2 |" in run_markdown(record(result("t", "failed", reason=said)))


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = tmp_path / "record.json", tmp_path / "page.html"
    file.write_text(json.dumps(MIXED.to_json()))
    assert main(["report", str(file), "--html", str(page)]) == 0
    assert "A child is born." in page.read_text()
    assert main(["report", str(file)]) == 0
    assert "| panic | 1 |" in capsys.readouterr().out


def test_without_a_record_it_is_the_last_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path))
    assert main(["report"]) == 2
    assert "there is no run yet" in capsys.readouterr().err
    results = tmp_path / "results"
    for name, target in (("2026-01-02T030405-7", "old"), ("2026-01-02T030406-6", "new")):
        (results / f"{name}.json").write_text(json.dumps({**MIXED.to_json(), "target": target}))
    (results / "state.json").write_text("{}")  # somebody else's
    assert main(["report"]) == 0
    assert capsys.readouterr().out.startswith("### new")


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"results": 3, "target": ""}', None])
def test_what_is_no_record_is_refused_in_words(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "record.json"
    if content is not None:
        file.write_text(content)
    assert main(["report", str(file)]) == 2


MEASURED = Measurements(
    tuple((0.01 * number, 100 + 7 * number) for number in range(300)), (10.2, 10.4, 10.9, 11.3, 9.5), (1500.0, 1720.5)
)


def test_pids_and_forks_are_drawn_where_a_test_has_measured_them() -> None:
    page = run_page(record(result("test_storm", "passed", measurements=MEASURED)))
    assert "How soon 5 pids came back" in page
    assert "1 below 10 s" in page
    assert "Pids in the order of birth" in page
    assert "Children made and reaped per second" in page
    assert "Pids and forks" not in run_page(MIXED)


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_a_run_without_scrolling_sideways(tmp_path: Path, width: int) -> None:
    long = result(
        "test_long", "failed", behaviour="word " * 80, reason="y" * 3000, evidence=EVIL, fingerprint="f<" * 80
    )
    wide = result("test_a_group_whose_members_moved" * 9, "passed", measurements=MEASURED)
    seen = look(run_page(record(*MIXED.results, long, wide)), width, tmp_path)
    assert_readable(seen, width)
    assert seen["title"] == "dfly-harness: DragonFly: kernel k"
    assert seen["open"] >= 4
    assert len(seen["plots"]) == 5
    assert seen["bars"] >= 7 + 4  # slowest tests, and at least four columns of the histogram


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(MIXED.to_json()))
    assert read_record(file) == MIXED

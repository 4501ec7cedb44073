# SPDX-License-Identifier: BSD-2-Clause
"""What programs say of their cases is read as the formats' descriptions have it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.programs import atf, gtest, libtest
from harness.programs.cases import Outcome, Reader
from harness.programs.expectations import Expectation, find, load_expectations
from harness.programs.formats import FORMATS, format_of, judged
from harness.programs.judgement import judge_all, name_of
from harness.programs.program import Program
from harness.results.verdict import Verdict

P, F, S, E, B = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED, Outcome.EXPECTED, Outcome.BROKEN
BY_NAME = {each.name: each for each in FORMATS}

GO = """\
=== RUN   TestFine
--- PASS: TestFine (0.50s)
=== RUN   TestGroup
=== RUN   TestGroup/one
=== RUN   TestGroup/two
    x_test.go:12: two is not 2
--- FAIL: TestGroup (0.01s)
    --- PASS: TestGroup/one (0.00s)
    --- FAIL: TestGroup/two (0.00s)
=== RUN   TestNotHere
    x_test.go:20: no such thing here
--- SKIP: TestNotHere (0.00s)
=== RUN   TestDies
panic: runtime error: index out of range [recovered]

goroutine 7 [running]:
"""
TAP = """\
TAP version 14
1..5
ok 1 - the first
not ok 2 - the second
# got 1, wanted 2
ok 3 # SKIP not on this system
not ok 4 - later # TODO not done
    # Subtest: parts
    1..2
    ok 1 - child
    not ok 2 - other child
not ok 5 - parts
"""
KTAP = """\
KTAP version 1
1..1
  KTAP version 1
  1..2
  ok 1 test_one
  ok 2 test_two # SKIP no hardware
ok 1 suite
"""
GTEST = """\
[==========] Running 3 tests from 1 test suite.
[ RUN      ] Sums.Work
[       OK ] Sums.Work (3 ms)
[ RUN      ] Sums.Overflow
sums_test.cc:9: Failure
Expected equality of these values:
  1
  2
[  FAILED  ] Sums.Overflow (0 ms)
[ RUN      ] Sums/Typed.Case/0
sums_test.cc:14: Skipped
too small
[  SKIPPED ] Sums/Typed.Case/0 (0 ms)
[  FAILED  ] 1 test, listed below:
[  FAILED  ] Sums.Overflow
"""
LIBTEST = """\

running 4 tests
test io::reads ... ok
test io::writes ... FAILED
test net::binds - should panic ... ok
test slow ... ignored, takes an hour

failures:

---- io::writes stdout ----
thread 'io::writes' panicked at src/lib.rs:4:5:
assertion failed: false

failures:
    io::writes

test result: FAILED. 2 passed; 1 failed; 1 ignored
"""
LTP = """\
tst_test.c:1733: TINFO: LTP version: 20240524
kill02.c:55: TPASS: kill() sent the signal
kill02.c:60: TFAIL: kill() expected EPERM: ESRCH (3)
kill03 1 TCONF  :  kill03.c:9: not on this system
kill03      2  TBROK  :  kill03.c:12: no memory
kill05.c:70: TFAIL: no colon in this (1)

Summary:
passed   1
failed   1
"""
PYTEST = """\
tests/test_a.py::test_one PASSED                                         [ 33%]
tests/test_a.py::test_two[a b] FAILED                                    [ 66%]
tests/test_a.py::test_three SKIPPED (no fork here)                       [100%]
=========================== short test summary info ============================
FAILED tests/test_a.py::test_two[a b] - assert 1 == 2
"""
KYUA = """\
bin/cat/cat_test:align  ->  passed  [0.043s]
bin/cat/cat_test:nonexistent  ->  failed: cat_test.sh:9: it exists  [0.020s]
bin/cat/cat_test:vis  ->  skipped: no vis(1)  [0.001s]
bin/cat/cat_test:tty  ->  expected_failure: PR 12345  [0.001s]
"""
JUNIT = """\
<?xml version="1.0" encoding="iso-8859-1"?>
<testsuite>
<testcase classname="bin.cat" name="align" time="0.5"></testcase>
<testcase classname="bin.cat" name="vis" time="0"><skipped/></testcase>
<testcase classname="bin.cat" name="bad" time="0"><failure message="wrong"/></testcase>
</testsuite>
"""
EVENTS = [
    {"Action": "start"},
    {"Action": "run", "Test": "TestA"},
    {"Action": "run", "Test": "TestA/x"},
    {"Action": "output", "Test": "TestA/x", "Output": "    a_test.go:3: broken\n"},
    {"Action": "fail", "Test": "TestA/x", "Elapsed": 0},
    {"Action": "fail", "Test": "TestA", "Elapsed": 0.2},
    {"Action": "run", "Test": "TestB"},
    {"Action": "pass", "Test": "TestB", "Elapsed": 0.1},
    {"Action": "pass"},
]
RUST_EVENTS = [
    {"type": "suite", "event": "started", "test_count": 2},
    {"type": "test", "event": "started", "name": "a::b"},
    {"type": "test", "name": "a::b", "event": "failed", "stdout": "thread panicked\nwhy\n"},
    {"type": "test", "event": "started", "name": "a::c"},
    {"type": "test", "name": "a::c", "event": "ok", "exec_time": 0.25},
]


def lines_of(events: Iterable[object]) -> str:
    return "\n".join(json.dumps(each) for each in events)


#: Of each format, what a program says, and the cases in it: name, outcome, first line of the reason.
SAID: dict[str, tuple[str, list[tuple[str, Outcome, str]]]] = {
    "go": (
        GO,
        [
            ("TestFine", P, ""),
            ("TestGroup", F, "failed: two"),
            ("TestNotHere", S, "x_test.go:20: no such thing here"),
            ("TestDies", F, "panic: runtime error: index out of range [recovered]"),
        ],
    ),
    "go-json": (lines_of(EVENTS), [("TestA", F, "failed: x"), ("TestB", P, "")]),
    "tap": (
        TAP,
        [
            ("1 - the first", P, ""),
            ("2 - the second", F, "got 1, wanted 2"),
            ("3", S, "not on this system"),
            ("4 - later", E, "not done"),
            ("5 - parts/1 - child", P, ""),
            ("5 - parts/2 - other child", F, ""),
            ("5 - parts", F, ""),
        ],
    ),
    "ktap": (
        KTAP,
        [("1 - suite/1 - test_one", P, ""), ("1 - suite/2 - test_two", S, "no hardware"), ("1 - suite", P, "")],
    ),
    "gtest": (
        GTEST,
        [("Sums.Work", P, ""), ("Sums.Overflow", F, "sums_test.cc:9: Failure"),
         ("Sums/Typed.Case/0", S, "sums_test.cc:14: Skipped")],
    ),
    "libtest": (
        LIBTEST,
        [
            ("io::reads", P, ""),
            ("io::writes", F, "thread 'io::writes' panicked at src/lib.rs:4:5:"),
            ("net::binds", P, ""),
            ("slow", S, "takes an hour"),
        ],
    ),
    "libtest-json": (lines_of(RUST_EVENTS), [("a::b", F, "thread panicked"), ("a::c", P, "")]),
    "ltp": (
        LTP,
        [
            ("1", P, "kill() sent the signal"),
            ("2", F, "kill() expected EPERM: ESRCH (3)"),
            ("3", S, "kill03.c:9: not on this system"),
            ("4", B, "kill03.c:12: no memory"),
            ("5", F, "no colon in this (1)"),
        ],
    ),
    "pytest": (
        PYTEST,
        [
            ("tests/test_a.py::test_one", P, ""),
            ("tests/test_a.py::test_two[a b]", F, "assert 1 == 2"),
            ("tests/test_a.py::test_three", S, "no fork here"),
        ],
    ),
    "kyua": (
        KYUA,
        [
            ("bin/cat/cat_test:align", P, ""),
            ("bin/cat/cat_test:nonexistent", F, "cat_test.sh:9: it exists"),
            ("bin/cat/cat_test:vis", S, "no vis(1)"),
            ("bin/cat/cat_test:tty", E, "PR 12345"),
        ],
    ),
    "junit": (JUNIT, [("bin.cat.align", P, ""), ("bin.cat.vis", S, ""), ("bin.cat.bad", F, "wrong")]),
}  # fmt: skip


def heard(reader: Reader, text: str) -> list[tuple[str, Outcome, str]]:
    for line in text.splitlines():
        reader.feed(line)
    reader.finish()
    return [(case.name, case.outcome, case.reason.partition("\n")[0]) for case in reader.cases]


@pytest.mark.parametrize("name", SAID)
def test_a_format_is_read(name: str) -> None:
    text, cases = SAID[name]
    assert heard(BY_NAME[name].reader(""), text) == cases


@pytest.mark.parametrize("name", SAID)
def test_a_format_is_found_out_from_what_is_said(name: str, tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_text("#!/bin/sh\n")
    text, cases = SAID[name]
    assert heard(format_of(Program(file)).reader(""), text) == cases


def test_it_is_known_which_case_runs() -> None:
    for name, begun, running in (
        ("go", "=== RUN   TestX/sub", "TestX"),
        ("go-json", '{"Action": "run", "Test": "TestX"}', "TestX"),
        ("gtest", "[ RUN      ] A.B", "A.B"),
        ("libtest", "test a::b ... ", "a::b"),
        ("libtest-json", '{"type": "test", "event": "started", "name": "a"}', "a"),
        ("tap", "    # Subtest: deep", "deep"),
        ("pytest", "t/test_a.py::test_one ", "t/test_a.py::test_one"),
        ("kyua", "a/b:c  ->  ", "a/b:c"),
        ("atf", "", "a case"),
    ):
        reader = BY_NAME[name].reader("a case")
        reader.feed(begun)
        assert reader.running == running, name


def test_a_program_that_ends_in_a_case_fails_it() -> None:
    for name, begun in (
        ("go", "=== RUN   TestX"),
        ("go-json", '{"Action": "run", "Test": "TestX"}'),
        ("gtest", "[ RUN      ] TestX"),
        ("libtest", "test TestX ... "),
        ("libtest-json", '{"type": "test", "event": "started", "name": "TestX"}'),
    ):
        assert heard(BY_NAME[name].reader(""), begun) == [("TestX", F, "the program ended while it ran")]


def test_it_is_said_how_a_program_ended_in_a_case() -> None:
    reader = BY_NAME["go"].reader("")
    reader.feed("=== RUN   TestX")
    (case,), whole = judged(reader, None, "killed by signal 12 (SIGSYS)")
    assert case.reason == "the program ended while it ran: killed by signal 12 (SIGSYS)"
    assert whole.reason == "1 of 1 failed: TestX"


def test_what_is_listed() -> None:
    go = BY_NAME["go"]
    assert list(go.listed("TestA\nBenchmarkB\nExampleC\nFuzzD\nok  \tx\t0.1s\n")) == ["TestA", "ExampleC", "FuzzD"]
    text = "Running main() from gtest_main.cc\nSums.\n  Work\n  DISABLED_Slow\n"
    text += "T/Typed.  # TypeParam = int\n  Case/0  # GetParam() = 4\n"
    assert gtest.listed(text) == ["Sums.Work", "T/Typed.Case/0"]
    assert libtest.listed("a::b: test\nc: benchmark\n\n2 tests, 1 benchmark\n") == ["a::b"]
    text = (
        'Content-Type: application/X-atf-tp; version="1"\n\nident: one\ndescr: x: y\n\nident: two\nhas.cleanup: true\n'
    )
    assert atf.listed(text) == {"one": False, "two": True}


def test_atfs_results() -> None:
    for line, outcome, reason in (
        ("passed", P, ""),
        ("failed: x.c:3: 1 != 2", F, "x.c:3: 1 != 2"),
        ("skipped: needs root", S, "needs root"),
        ("expected_failure: PR 1: x", E, "PR 1: x"),
        ("expected_exit(3): PR 2", E, "PR 2"),
        ("expected_signal(6): PR 3", E, "PR 3"),
        ("broken: no such file", B, "no such file"),
    ):
        assert heard(atf.Atf("a"), f"it says\n{line}\n") == [("a", outcome, reason)]


#: What a program says and how it ends, and what it came to as a whole.
WHOLES = {
    "nothing, 0": ("exit", "", 0, "", P, ""),
    "nothing, 77": ("exit", "", 77, "", S, "exit status 77"),
    "nothing, 1": ("exit", "", 1, "", F, "exit status 1"),
    "a signal": ("exit", "", None, "killed by signal 11 (SIGSEGV)", F, "killed by signal 11 (SIGSEGV)"),
    "fine": ("tap", "1..1\nok 1\n", 0, "", P, ""),
    "fine, and then dies": ("tap", "1..1\nok 1\n", None, "killed by signal 6 (SIGABRT)", F, "killed by signal 6"),
    "fine, and status 1": ("tap", "1..1\nok 1\n", 1, "", F, "exit status 1"),
    "too few": ("tap", "1..3\nok 1\n", 0, "", F, "3 tests were planned, and 1 were run"),
    "no plan": ("tap", "TAP version 13\nok 1\n", 0, "", F, "it ended without a plan"),
    "bails out": ("tap", "1..3\nok 1\nBail out! no memory\n", 1, "", F, "bailed out: no memory; exit status 1"),
    "skips all": ("tap", "1..0 # SKIP not root\n", 0, "", S, "not root"),
    "fails": ("tap", "1..2\nnot ok 1 - a\nok 2 - b\n", 1, "", F, "1 of 2 failed: 1 - a"),
    "not for LTP": ("ltp", "a.c:1: TCONF: no\n", 32, "", S, "no"),
    "LTP breaks": ("ltp", "a.c:1: TPASS: x\na.c:2: TBROK: no memory\n", 2, "", B, "1 of 2 broken: 2"),
}


@pytest.mark.parametrize("named", WHOLES)
def test_what_a_program_comes_to_as_a_whole(named: str) -> None:
    name, text, status, died, outcome, reason = WHOLES[named]
    reader = BY_NAME[name].reader("")
    for line in text.splitlines():
        reader.feed(line)
    _, whole = judged(reader, status, died)
    assert (whole.outcome, whole.reason.startswith(reason)) == (outcome, True), whole


def test_names_that_are_there_twice_are_told_apart() -> None:
    reader = BY_NAME["kyua"].reader("")
    for _ in range(2):
        reader.feed("a:b  ->  passed  [0.1s]")
    assert [case.name for case in judged(reader, 0, "")[0]] == ["a:b", "a:b #2"]


def test_pytests_separator_is_no_part_of_a_name() -> None:
    assert name_of("io::net::tests::binds") == "io.net.tests.binds"


# ---- Expectations ------------------------------------------------------------------------------------------------

LIST = """
[[expected]]
program = "*.test"
test = "TestOld*"
reason = "before 6.0"
until = 600000

[[expected]]
program = "a.test"
test = "TestNew"
reason = "since 6.0"
since = 600000
flaky = true

[[expected]]
program = "a.test"
test = "TestLinux"
reason = "on Linux"
control = true
"""


def test_expectations_are_about_programs_cases_and_eras(tmp_path: Path) -> None:
    (tmp_path / "expected.toml").write_text(LIST)
    known = load_expectations(tmp_path / "a.test")

    def reason(program: str, test: str, osreldate: int) -> str:
        found = find(known, program, test, osreldate)
        return found.reason if found is not None else ""

    assert reason("b.test", "TestOldOne", 400000) == "before 6.0"
    assert reason("b.test", "TestOldOne", 600000) == ""
    assert reason("b", "TestOldOne", 400000) == ""
    assert reason("a.test", "TestNew", 600000) == "since 6.0"
    assert reason("a.test", "TestNew", 0) == ""
    assert reason("a.test", "TestLinux", 0) == "on Linux"
    assert reason("a.test", "TestLinux", 600000) == ""
    assert load_expectations(tmp_path / "elsewhere" / "a.test") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[expected]]\nprogram = 'a'\ntest = 'b'\n", "entry 1 has no reason"),
        ("[[expected]]\nprogram = 'a'\ntest = 'b'\nreason = 'c'\nsine = 3\n", "sine is none of program, test"),
        ("[[expected]]\nprogram = 'a'\ntest = 'b'\nreason = 'c'\nsince = '3'\n", "since is no int"),
        ("[expected]\nx = 1\n", r"it has \[\[expected\]\] entries and nothing else"),
        ("expected", "Expected"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "expected.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        load_expectations(tmp_path / "a")


def test_what_is_expected_is_not_held_against_the_whole() -> None:
    reader = BY_NAME["tap"].reader("")
    for line in ("1..3", "not ok 1 - a", "ok 2 - b", "not ok 3 - c"):
        reader.feed(line)
    cases, whole = judged(reader, 1, "")

    def verdicts(*expected: Expectation) -> list[Verdict]:
        results, all_of_it = judge_all("p", cases, whole, expected, 600000)
        return [*(each.verdict for each in results), all_of_it.verdict]

    a, b, c, d = (Expectation("p", name, "known") for name in ("1 - a", "2 - b", "3 - c", "4 - d"))
    failed, passed, known, wrong = Verdict.FAILED, Verdict.PASSED, Verdict.KNOWN_DEFECT, Verdict.TEST_ERROR
    assert verdicts() == [failed, passed, failed, failed]
    assert verdicts(a) == [known, passed, failed, failed]
    assert verdicts(a, c) == [known, passed, known, passed]
    assert verdicts(a, b, c) == [known, wrong, known, wrong]  # an unexpected pass
    assert verdicts(a, c, d)[-1] is wrong  # vanished
    assert verdicts(Expectation("p", "*", "known", flaky=True)) == [known, passed, known, known]


def test_a_case_is_plain_data() -> None:
    (case,) = judged(BY_NAME["exit"].reader(""), 0, "")[1:]
    assert astuple(case) == ("", P, "", 0.0)

# SPDX-License-Identifier: BSD-2-Clause
"""The C programs that show known defects without the harness: they build, read well, and say what they are said to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.guests.targets import has_dragonfly
from harness.programs.c_program import build_standalone
from harness.programs.cases import CaseBrokenError
from harness.programs.program import Program, find_programs
from harness.report.mends import Mend, mend_of, read_mends
from harness.results.bisection import BisectionReport, Culprit
from harness.results.record import RunRecord, TestResult, read_record
from harness.results.verdict import Verdict
from harness.store import Store
from support import introduced, known_defects, pages, shown

FOLDER = Path(__file__).parents[1] / "reproducers"
FILES = sorted(FOLDER.glob("*.c"))
# The host's headers lack these; what needs none of them is compiled with them as well.
ELSEWHERE = re.compile(
    r"<sys/(event|jail|kinfo|lwp|pioctl|procctl|rtprio|sysctl)\.h>|\b(wait6|rfork|getsid|lwp_\w+|mount|setgroups|ioprio_\w+)\("
)
WIDE = 72
REPORT = {
    "format": 1, "kind": "bisection report", "key": "", "source": "", "sought": "", "good": [], "bad": "", "commits": 1,
    "confidence": 0.95, "decided": True, "probability": 0.99, "rate": 1.0, "bits": 0.0, "posterior": [],
    "stretches": [], "experiments": 2, "tested": 2, "proving": 5, "builds": 2, "build_seconds": 0.0, "run_seconds": 0.0,
    "proof": {"parent p is good, bad in 0 of 2 runs": "holds", "b without it is good": "not possible"},
    "test": "suites/reproducers/x.c::whole", "failure": "", "excerpt": "", "observations": [],
}  # fmt: skip


def name_of(file: Path) -> str:
    return file.name


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_reproducer_builds_with_our_headers(file: Path) -> None:
    assert Program(build_standalone(file, Store().cache)).system == "DragonFly"


@pytest.mark.parametrize(
    "file", [file for file in FILES if not ELSEWHERE.search(file.read_text())], ids=name_of
)  # fmt: skip
def test_a_reproducer_means_the_same_with_the_headers_of_a_system(file: Path) -> None:
    """Whatever it uses is declared by what it includes; Linux has the headers that all have."""
    checked = subprocess.run(
        ["cc", "-fsyntax-only", "-Werror=implicit-function-declaration", "-D_GNU_SOURCE", str(file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_reproducer_can_be_mailed_and_says_how_it_is_run(file: Path) -> None:
    text = file.read_text()
    assert max(len(line.expandtabs(8)) for line in text.splitlines()) <= WIDE
    assert text.startswith("/* SPDX-License-Identifier: BSD-2-Clause */\n/*\n * ")
    about = text[: text.index("#include")]
    assert f"cc {file.name} && ./a.out" in about
    assert "exit status" in about.lower().replace("\n *", "")
    assert not re.search(r"harness|executor", text), "it stands by itself"


def marked() -> dict[str, list[pytest.Mark]]:
    """Return the defect marks that name each reproducer."""
    found: dict[str, list[pytest.Mark]] = {}
    for item in pages.collected():
        mark = item.get_closest_marker("defect")
        if mark is not None and "reproducer" in mark.kwargs:
            found.setdefault(mark.kwargs["reproducer"], []).append(mark)
    return found


def test_each_reproducer_is_named_by_a_test_and_each_that_is_named_exists() -> None:
    assert {file.name for file in FILES} == marked().keys()


def test_what_was_shown_is_what_the_marks_say() -> None:
    """In the era of its defect a reproducer shows it, or has failed to on that kernel; outside it never does."""
    known = shown.load()
    missing = [file.name for file in FILES if not set(known.get(file.name, {}).values()) & set(shown.SHOWN)]
    assert not missing, f"never shown on any kernel: {missing}"
    for name, marks in marked().items():
        for version, verdict in known[name].items():
            within = any(mark.kwargs["since"] <= version < mark.kwargs.get("until", 1 << 62) for mark in marks)
            assert within or verdict not in shown.SHOWN, (name, version, verdict)


def test_the_commits_that_marks_name_are_those_that_were_proved() -> None:
    """Some mark of a reproducer that was bisected names its commit, and no mark names another."""
    proved = introduced.load()
    named = {
        name: {mark.kwargs["introduced"] for mark in marks if "introduced" in mark.kwargs}
        for name, marks in marked().items()
    }
    assert {name: each for name, each in named.items() if each} == {name: {one.words} for name, one in proved.items()}


def test_what_a_bisection_has_proved_is_kept_and_nothing_else() -> None:
    culprit = Culprit("0123456789abcdef", "A", "2020-11-15", 'says "so"', (), 0.99)
    report = BisectionReport.from_json({**REPORT, "culprits": [asdict(culprit)], "proved": True})
    name, one = introduced.read(report)
    assert (name, one.words) == ("x.c", "0123456789 of 2020-11-15")
    assert one.proof == ("parent p is good, bad in 0 of 2 runs",)
    assert tomllib.loads(introduced.text({name: one}))[name]["subject"] == 'says "so"'
    with pytest.raises(ValueError, match=r"x\.c: the bisection has proved no commit"):
        introduced.read(BisectionReport.from_json({**REPORT, "culprits": [asdict(culprit)], "proved": False}))


def test_a_record_adds_to_what_was_shown() -> None:
    """Of a test with several cases, or a second look, the gravest counts; what decides nothing does not."""
    results = (
        TestResult("suites/regressions/test_x.py::test_a[1]", Verdict.PASSED, defect="d"),
        TestResult("suites/regressions/test_x.py::test_a[2]", Verdict.FAILED, defect="d"),
        TestResult("suites/regressions/test_x.py::test_b", Verdict.PASSED),
        TestResult("a/x.c::whole", Verdict.PASSED, again=(TestResult("a/x.c::whole", Verdict.PANIC),)),
        TestResult("a/y.c::whole", Verdict.HARNESS_ERROR),
        TestResult("a/z.c::whole", Verdict.FAILED, reason="E   exit status 2: pipe: errno 23"),
        TestResult("a/w.c::whole", Verdict.FAILED, reason="E   exit status 1: DEFECT: it is"),
    )
    found = shown.outcomes(RunRecord("t", is_dragonfly=True, osreldate=600518, results=results))
    assert found == {"test_x.py::test_a": Verdict.FAILED, "x.c": Verdict.PANIC, "w.c": Verdict.FAILED}
    assert '\n["x.c"]\n600518 = "panic"\n' in shown.text({"x.c": {600518: Verdict.PANIC}})


def test_what_does_not_build_is_no_program_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "wrong.c"
    file.write_text("int main(void) { return nothing; }\n")
    with pytest.raises(HarnessError, match=r"could not build wrong: .*nothing"):
        build_standalone(file, tmp_path / "cache")
    assert find_programs(tmp_path) == [file]
    with pytest.raises(CaseBrokenError, match=r"wrong\.c is built for DragonFly here, and the target runs Linux"):
        Program(file).demand("linux")


# What hangs a guest, is a race on several CPUs, or takes long: `run --program` is for these.
LEFT_OUT = {"tracing-circle.c", "reap-kill-circle.c", "procfs-map-memory.c", "kill-all-while-forking.c",
            "pathname-of-exiting.c", "threads-wait-at-once.c", "killpg-moving.c", "killpg-reaped.c",
            "sigsuspend-early.c", "setpgid-exiting.c", "zombie-looked-at.c", "detached-to-stranger.c",
            "jail-of-a-file.c", "jail-attach-twice.c", "reap-kill-reparented.c"}  # fmt: skip


@pytest.mark.on_vm
@pytest.mark.skipif(not has_dragonfly(Store()), reason="no DragonFly target in the store")
def test_reproducers_say_on_a_real_kernel_what_the_marks_say(tmp_path: Path) -> None:
    """Built on this host, run in a guest by a shell, without the executor."""
    record = tmp_path / "record.json"
    names = {file.name for file in FILES} - LEFT_OUT
    words = [word for name in sorted(names) for word in ("--program", str(FOLDER / name))]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())",
         "run", *words, "--no-again", "--deadline", "60", "--json", str(record)],
        capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert record.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    run = read_record(record)
    came_to = shown.outcomes(run)
    assert came_to.keys() == names, json.dumps([each.to_json() for each in run.results])[:4000]
    for name, marks in marked().items():
        if name in came_to:
            within = any(mark.kwargs["since"] <= run.osreldate < mark.kwargs.get("until", 1 << 62) for mark in marks)
            assert (came_to[name] in shown.SHOWN) == within, (name, came_to[name])


def test_what_mends_a_defect_is_said_once_of_programs_that_there_are() -> None:
    mends = read_mends(known_defects.MENDS)
    named = [name for mend in mends for name in mend.reproducers]
    assert len(named) == len(set(named)) > 30
    assert not [name for name in named if not (FOLDER / name).is_file()]
    assert all(mend.measured for mend in mends if mend.grave)
    assert not [mend for mend in mends if mend.change.endswith(".") or mend.measured.endswith(".")], "no sentences yet"
    other = Mend(("b.c",), "change a|b")
    assert mend_of([*mends, other], "reproducers/b.c") is other
    assert mend_of(mends, "b.c") is None
    assert other.words == (
        "Change a|b.",
        "Tried in the kernel of 19 April 2026: `b.c` ends with 0 there, and with 1 without it.",
    )
    page = known_defects.how_to_mend("{grave}-{others}", [*mends, other])
    assert page.endswith(f"| [b.c](../suites/reproducers/b.c) | change a{chr(92)}|b |\n")

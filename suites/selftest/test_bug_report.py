# SPDX-License-Identifier: BSD-2-Clause
"""A failed test as a text that stands by itself, and a run as a mail: what they say, and that nothing breaks them."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.config import share
from harness.report.summary import run_text
from harness.results.bisection import FOLDER, REPORT, BisectionReport, Culprit
from harness.results.changes import Change, ChangeKind
from harness.results.record import RunRecord, TestResult
from harness.results.verdict import Verdict
from harness.store import Store

TEST = "suites/conformance/test_ends.py::test_a_child_ends[2]"
DEATH = """==== kernel panic
panic: assertion "p->p_lock > 0" failed in exit1 at /usr/src/sys/kern/kern_exit.c:364
fingerprint: exit1<sys_exit<abc

   0 exit1+0xbc  kern_exit.c:368
   1 sys_exit+0x98  kern_exit.c:141

---- console
panic: assertion "p->p_lock > 0" failed in exit1 at /usr/src/sys/kern/kern_exit.c:364
cpuid = 0

---- show registers
rax               0x12  gd_curthread+0xa

==== console
login:
"""
PANIC = TestResult(
    TEST,
    Verdict.PANIC,
    reason="E   KernelPanicError: the guest's kernel panicked",
    evidence=DEATH,
    fingerprint="exit1<sys_exit<abc",
    functions=("exit1",),
    behaviour="A child that ends is seen to end, whoever waits for it and however long that takes him to do.",
    lane="wall-clock",
    calls=tuple(f"process 7: fork() = <process {number}>" for number in range(8, 40)),
    again=(TestResult(TEST, Verdict.PASSED, pristine=True),),
)
FAILED = TestResult(TEST, Verdict.FAILED, reason="x.py:7: in test\nE   assert 3 == 4\nE    +  where 3 = pid()\n")


def record(result: TestResult, version: str, osreldate: int, minute: int) -> RunRecord:
    target = f"DragonFly: kernel mine (DragonFly {version}-DEVELOPMENT #0: Sun Apr 19) on image dfly"
    return RunRecord(
        target, is_dragonfly=True, results=(result,), osreldate=osreldate,
        started=f"2026-11-29T12:{minute:02}:00+00:00",
        kernel="mine", kernel_digest=version, image="dfly", accelerator="tcg",
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a store that the command uses, with three runs: two of a kernel that panics, one of another."""
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "home"))
    made = Store()
    runs = [(PANIC, "v6.5.0.1", 600518), (replace(PANIC, again=()), "v6.5.0.1", 600518),
            (replace(FAILED, verdict=Verdict.PASSED, reason=""), "v4.7.0.9", 400704)]  # fmt: skip
    for minute, (result, version, osreldate) in enumerate(runs):
        one = record(result, version, osreldate, minute)
        one.write(made, made.folder("results") / f"2026-11-29T12{minute:02}00-1.json")
    return made


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["report", *words]) == 0
    return capsys.readouterr().out


def test_a_panic_is_told_with_all_that_one_acts_on(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "--bug", "test_a_child_ends[2]")
    assert text.startswith('Kernel panic: assertion "p->p_lock > 0" failed in exit1 at')
    for words in (
        "seen:     DragonFly v6.5.0.1-DEVELOPMENT #0: Sun Apr 19,",
        "600518: panic in 2 of all 3 runs on record",
        "not seen: DragonFly v4.7.0.9-DEVELOPMENT #0: Sun Apr 19,",
        'panic: assertion "p->p_lock > 0" failed in exit1 at',
        "   0 exit1+0xbc  kern_exit.c:368",
        "cpuid = 0",
        "fork() = <process 39>",
        f"dfly-harness run --image=dfly --kernel=mine '{TEST}'",
    ):
        assert words in text.replace(" \\\n       ", "").replace("\n        ", " "), (words, text)
    assert "A child that ends is seen to end, whoever waits for it and however long" in " ".join(text.split())
    assert "fork() = <process 8>" not in text, "only the last calls"
    assert "gd_curthread" not in text, "registers help nobody elsewhere"
    assert max(map(len, text.splitlines())) <= 72


@pytest.mark.parametrize("options", [[], ["--markdown"]], ids=["plain", "markdown"])
def test_the_command_that_runs_it_again_is_one_for_a_shell(
    store: Store, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    name = f"suites/conformance/test_ends.py::test_{'a_name_as_long_as_names_are_' * 3}[the leader of a group]"
    one = record(replace(FAILED, test=name), "v6.5.0.1", 600518, 9)
    one.write(store, store.folder("results") / "2026-11-29T120900-1.json")
    text = told(capsys, "--bug", name, *options)
    (given,) = re.findall(r"^ *dfly-harness run (?:.*\\\n)*.*$", text, re.MULTILINE)
    assert shlex.split(given.replace("\\\n", "")) == ["dfly-harness", "run", "--image=dfly", "--kernel=mine", name]


def test_it_is_markdown_for_github(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "--bug", TEST, "--markdown")
    assert text.startswith('# Kernel panic: assertion "p->p\\_lock > 0" failed in exit1 at')
    assert "\n## Kernels\n\n```\nseen: " in text
    assert text.count("```") % 2 == 0


def test_the_program_that_shows_a_known_defect_is_part_of_the_report(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is, between lines to cut at, and no wider than the rest; one that is not there any more is left out."""
    file = store.home / "r.json"
    name = "reproducers/pdeathsig-128.c"
    known = replace(FAILED, test="suites/x.py::test_dies", defect="it takes 128", reproducer=name)
    record(known, "v6.5.0.2", 600519, 30).write(store, file)
    text = told(capsys, "--bug", "test_dies", str(file))
    program = (share() / "suites" / name).read_text()
    assert f"8< {'-' * 60}\n{program}--------" in text
    assert text.startswith("PROC_PDEATHSIG_CTL takes 128, which is no signal, and the kernel panics"), "the symptom"
    assert "Cause: it takes 128." in text
    assert "`cc pdeathsig-128.c && ./a.out`" in text.replace("\n", " ")
    assert "What to change\n--------------\n`sys_procctl()` says EINVAL for" in text
    assert "Tried in the kernel of 19 April 2026: `compare`, that mend alone: 5 fixed" in " ".join(text.split())
    assert max(len(line.expandtabs(8)) for line in text.splitlines()) <= 72
    assert f"\n~~~~~~~~c\n{program}~~~~~~~~\n" in told(capsys, "--bug", "test_dies", str(file), "--markdown")
    record(replace(known, reproducer="reproducers/none.c"), "v6.5.0.2", 600519, 30).write(store, file)
    assert "Program that shows it" not in told(capsys, "--bug", "test_dies", str(file))


def test_what_was_expected_and_not_met_is_told(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    file = store.home / "r.json"
    record(FAILED, "v6.5.0.2", 600519, 30).write(store, file)
    text = told(capsys, "--bug", "a_child_ends", str(file))
    assert text.startswith("Not so: A child ends [2]\n")
    assert "The test fails: assert 3 == 4 +  where 3 = pid()" in text.replace("\n", " ").replace("  ", " ").replace(
        "+ where", "+  where"
    )
    assert "600519: failed in 1 of all 1 runs on record" in text.replace("\n        ", " ")


def test_calls_that_only_keep_threads_on_cpus_are_not_told(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    file = store.home / "r.json"
    calls = ("process 33: usched_set(0, 1, ..., 4) = 0", "process 33: 253() = 0", "process 33: killpg(36, 0) = None")
    record(replace(FAILED, calls=calls), "v6.5.0.2", 600519, 30).write(store, file)
    text = told(capsys, "--bug", "a_child_ends", str(file))
    assert "results\n------------------------------------------------\n    process 33: killpg(36, 0) = None\n\n" in text


def test_a_panic_that_a_program_shows_is_called_by_what_that_does(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    file = store.home / "r.json"
    record(replace(PANIC, reproducer="reproducers/killpg-reaped.c"), "v6.5.0.2", 600519, 30).write(store, file)
    text = told(capsys, "--bug", "a_child_ends", str(file))
    assert text.startswith("Kernel panic: killpg() walks over the members of a group"), "which is no other panic's"
    assert text.index("Program that shows it") < text.index("Kernels\n") < text.index("Last system calls")


def test_objects_of_the_harness_are_not_told_to_who_has_none(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    file = store.home / "r.json"
    reason = "E   assert 33 not in [33]\nE    +  where [33] = <function all at 0x7f419d8f0d60>()"
    record(replace(FAILED, reason=reason), "v6.5.0.2", 600519, 30).write(store, file)
    text = told(capsys, "--bug", "a_child_ends", str(file))
    assert "The test fails: assert 33 not in [33]\n" in text
    assert "0x7f41" not in text


def test_the_commit_that_a_mark_names_is_told_where_no_bisection_is_at_hand(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    file = store.home / "r.json"
    known = replace(FAILED, defect="it takes 128", introduced="0123456789 of 2020-11-15")
    record(known, "v6.5.0.2", 600519, 30).write(store, file)
    assert "Commit 0123456789 of 2020-11-15: shown on a kernel" in told(capsys, "--bug", "a_child_ends", str(file))


def test_a_bisection_tells_since_when(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    culprit = Culprit("35a77c5f59" + "0" * 30, "A. Committer", "2026-02-01", "kernel: check more", ("x.c",), 0.99)
    found = BisectionReport(
        key="k", source="/src", sought="x fails", good=("g",), bad="b", commits=30, confidence=0.95,
        decided=True,
        probability=0.992, rate=1.0, bits=0.1, culprits=(culprit,), posterior=(), stretches=(),
        experiments=12,
        tested=4, proving=6, builds=4, build_seconds=1.0, run_seconds=1.0,
        proof={"it fails with it": "holds", "reverts": "fails"},
        proved=True, test=TEST, failure="", excerpt="", observations=(),
    )  # fmt: skip
    (store.folder("results", f"{FOLDER}x") / REPORT).write_text(json.dumps(found.to_json()))
    other = replace(found, test="another", culprits=(replace(culprit, commit="f" * 40),))
    (store.folder("results", f"{FOLDER}y") / REPORT).write_text(json.dumps(other.to_json()))
    (store.folder("results", f"{FOLDER}z") / REPORT).write_text("{")
    text = " ".join(told(capsys, "--bug", TEST).split())
    assert "Commit 35a77c5f5900 (kernel: check more; A. Committer, 2026-02-01): found by bisection among 30" in text
    assert "99.2% probability and proved. Proof: it fails with it." in text
    assert "ffffff" not in text
    undecided = replace(found, decided=False)
    (store.folder("results", f"{FOLDER}x") / REPORT).write_text(json.dumps(undecided.to_json()))
    assert "Commit" not in told(capsys, "--bug", TEST)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--bug", "nobody"], "nobody did not run"),
        (["--bug", TEST, "2026-11-29T120200-1"], "passed or was not judged"),
        (["--bug", TEST, "--html", "x.html"], "leave out"),
        (["--markdown"], "--markdown is how --bug is written"),
    ],
)
def test_what_cannot_be_reported_is_refused(
    store: Store, capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    assert main(["report", *words]) == 2
    assert why in capsys.readouterr().err


def test_two_tests_of_a_name_are_asked_about(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(FAILED, test=TEST.replace("[2]", "[3]"))
    record(other, "v6.5.0.1", 600518, 40).write(store, store.folder("results") / "2026-11-29T124000-1.json")
    assert main(["report", "--bug", "a_child_ends"]) == 2
    assert "which one? " in capsys.readouterr().err
    assert told(capsys, "--bug", "test_a_child_ends[3]").startswith("Not so")


def test_nothing_a_guest_says_reaches_the_terminal_raw(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    evil = replace(FAILED, reason="E   \x1b[31m" + "x" * 300, calls=("```\x07",))
    record(evil, "v6.5.0.1", 600518, 50).write(store, store.folder("results") / "2026-11-29T125000-1.json")
    for words in ((), ("--markdown",)):
        text = told(capsys, "--bug", TEST, *words)
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "\n````\n```\\x07\n````\n" in text


def test_a_run_is_a_mail(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    change = Change(TEST, ChangeKind.NEW_FAILURE, "panic", "passed", "2026-11-28T12:00:00+00:00", "old")
    mended = Change("suites/x.py::test_y", ChangeKind.MENDED, "passed", "failed", "2026-11-28T12:00:00+00:00", "old")
    run = replace(record(PANIC, "v6.5.0.1", 600518, 59), since="2026-11-28T12:00:00+00:00", changes=(change, mended))
    text = run_text(run)
    assert text.startswith("mine: 1 of 1 test speaks against this kernel, 1 of them now and then.\n")
    order = ["Since the last run: new failure (1)", TEST, "Since the last run: mended (1)", "Against the kernel"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "newly flaky" not in text
    assert max(map(len, text.splitlines())) <= 72
    run.write(store, store.folder("results") / "2026-11-29T125959-1.json")
    assert told(capsys, "--text") == text
    quiet = replace(run, changes=())
    assert "No test came to anything else" in run_text(quiet)
    linux = replace(run, is_dragonfly=False)
    assert "These results say nothing about DragonFly." in run_text(linux)


def test_of_a_hang_it_is_told_where_the_kernel_was(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    file = store.home / "r.json"
    hung = replace(FAILED, verdict=Verdict.HANG, fingerprint="inferior<sys_setpgid<862c2aee2a")
    record(hung, "v6.5.0.2", 600519, 30).write(store, file)
    text = " ".join(told(capsys, "--bug", "a_child_ends", str(file)).split())
    assert text.startswith("Kernel hangs: A child ends [2] ")
    assert "any more; when it was looked at it was in inferior(), called by sys_setpgid()." in text
    assert "862c2aee2a" not in text


def test_a_program_of_ones_own_is_part_of_the_report(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `reproduce --c` has written; its first words are the symptom."""
    program = tmp_path / "mine.c"
    program.write_text("/*\n * it dies: at once\n *\n *\tcc mine.c\n */\nint main(void) { return 1; }\n")
    file = store.home / "r.json"
    record(FAILED, "v6.5.0.2", 600519, 30).write(store, file)
    text = told(capsys, "--bug", "a_child_ends", str(file), "--c", str(program))
    assert text.startswith("it dies\n")
    assert program.read_text() in text
    assert "Save as mine.c" in text
    capsys.readouterr()
    for words in (["--bug", "a_child_ends", str(file), "--c", str(tmp_path / "none.c")], ["--c", str(program)]):
        assert main(["report", *words]) == 2
    said = capsys.readouterr().err
    assert "none.c: No such file or directory" in said
    assert "name that with --bug" in said

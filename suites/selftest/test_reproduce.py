# SPDX-License-Identifier: BSD-2-Clause
"""The recorded calls of a failed test become a C program: read back, cut down, written so that it builds and reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.cli.reproduce import as_recorded
from harness.errors import UsageError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.options import TargetOptions
from harness.guests.targets import TargetChoice, has_dragonfly, resolve_target
from harness.programs.c_program import build_standalone
from harness.reproduce.program import FORMS, is_told, write_program
from harness.reproduce.race import stated_interleaving, write_race
from harness.reproduce.reduction import reduce_story, removable
from harness.reproduce.steps import Outcome, Story, outcome_of, read_story
from harness.results.record import RunRecord, TestResult
from harness.results.verdict import Verdict
from harness.store import Store

ZOMBIE = (
    "process 30: fork() = <gone process 31>",
    "process 30: fork() = <process 32>",
    "process 30: sysctl(kern.proc.pid.31) = [KinfoProc(pid=31)]",
    "process 31: setuid(61002) = None",
    "process 32: setuid(61001) = None",
    "process 32: kill(31, 0) = EPERM",
    "process 32: kill(31, 0) = EPERM",
    "process 31: _exit(0) = None",
    "process 32: kill(31, 0) = None",
)
TRACED = (
    "process 30: procctl(PROC_REAP_ACQUIRE) = None",
    "process 30: fork() = <process 31>",
    "process 31: rfork(<RforkFlag.RFPROC|RFFDG: 20>) = <process 33>",
    "process 30: sigaction(SIGCHLD, IGNORE) = None",
    "process 30: procctl(P_PID, 0, 4, 80000000) = b''",
    "process 31: mkdir('/tmp/a b', 0o755) = None",
    "process 30: ptrace(PT_ATTACH, 31) = 0",
    "process 30: wait4(31, WNOHANG|WUNTRACED) = WaitResult(pid=31, status=WaitStatus(raw=4479, exit_status=None...",
)


#: As a test with a schedule makes them: who is given a CPU of its own makes its calls beside others.
RACE = (
    "process 30: usched_set(0, 1, ..., 4) = 0",
    "process 30: fork() = <process 31>",
    "process 30: fork() = <gone process 32>",
    "process 32: setpgid(0, 0) = None",
    "process 31: usched_set(0, 1, ..., 4) = 0",
    "process 32: usched_set(0, 1, ..., 4) = 0",
    "process 32: _exit(0) = None",
    "process 31: sysctl(kern.proc.pathname.32) = (under way)",
)


def story(calls: tuple[str, ...] = ZOMBIE, *, dies: bool = False) -> Story:
    return read_story(calls, FORMS, dies=dies)


def test_calls_are_read_back_and_what_is_no_call_in_c_is_left_out() -> None:
    read = story()
    assert read.processes == [30, 31, 32]
    assert [str(step) for step in read.steps] == [
        "fork()", "fork()", "setuid(61002)", "setuid(61001)", "kill(31, 0)", "_exit(0)", "kill(31, 0)",
    ]  # fmt: skip
    assert read.left_out == (ZOMBIE[2],)
    assert [step.child for step in read.steps[:3]] == [31, 32, 0]
    assert read.parent_of(32) == 30


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ((), "no calls of it are on record"),
        (("thread 2 of process 30: getpid() = 30",), "threads made calls"),
        (("process 31: setsid() = 31", "process 32: getpid() = 32"), "nobody has made process 32"),
        (("process 31: setsid() = 31", "process 31: storm(5 x fork) = Storm()"), "a loop of many calls"),
        (("process 31: setsid() = 31", "process 31: sysctl(kern.proc.all) = []"), "what sysctl.kern.proc.all. told"),
        (("process 31: setsid() = 31", "process 31: signals() = []"), "what a handler had noted"),
        (("process 31: setsid() = 31", "process 31: rtprio(1) = 0"), "none that is made in C yet"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_line(calls: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        story(calls)


@pytest.mark.parametrize(
    ("outcome", "meaning"),
    [
        ("EPERM", Outcome(errno="EPERM")),
        ("None", Outcome()),
        ("31", Outcome(value=31)),
        ("(under way)", Outcome(blocks=True)),
        ("WaitResult(pid=0, status=None, rusage=...", Outcome(value=0)),
        ("WaitResult(pid=31, status=WaitStatus(raw=1280, exit_status=5", Outcome(value=31, status=1280)),
    ],
)
def test_outcomes_are_what_a_program_compares(outcome: str, meaning: Outcome) -> None:
    assert outcome_of(story((f"process 1: getpid() = {outcome}",)).steps[0]) == meaning


def test_whoever_is_not_born_does_nothing_and_is_not_spoken_of() -> None:
    smaller = story().without([0])
    assert [str(step) for step in smaller.steps] == ["fork()", "setuid(61001)"]


def test_what_does_not_matter_is_left_out_and_what_makes_it_wrong_is_not() -> None:
    """The first kill() does not matter, nor a bystander; without the users the last one would be right to succeed."""
    needed = {"_exit(0)", "kill(31, 0)"}
    bystander = ("process 30: fork() = <process 40>", "process 40: setsid() = 40", *ZOMBIE)
    tried: list[Story] = []

    def shows(told: Story) -> bool:
        tried.append(told)
        return needed <= {str(step) for step in told.steps}

    small = reduce_story(story(bystander), shows)
    assert [str(step) for step in small.steps] == [
        "fork()", "fork()", "setuid(61002)", "setuid(61001)", "_exit(0)", "kill(31, 0)",
    ]  # fmt: skip
    assert all(told.steps[-1] == story().steps[-1] for told in tried), "the last call is what is wrong"
    assert len(tried) < 20


def test_of_a_kernel_that_dies_the_last_call_may_not_matter() -> None:
    small = reduce_story(story(dies=True), lambda told: "_exit(0)" in map(str, told.steps))
    assert [str(step) for step in small.steps] == ["fork()", "_exit(0)"]


def test_it_gives_up_after_so_many_tries() -> None:
    assert reduce_story(story(dies=True), lambda _: False, tries=3) == story(dies=True)


def test_who_did_something_to_those_of_the_last_call_matters() -> None:
    """A tracer is named nowhere in its tracee's parent's wait, and is why that fails; who only looks is not."""
    calls = (
        "process 1: fork() = <process 2>",
        "process 1: fork() = <process 3>",
        "process 1: fork() = <process 4>",
        "process 4: kill(2, 0) = None",
        "process 3: ptrace(PT_ATTACH, 2) = 0",
        "process 1: wait4(2, WNOHANG) = ECHILD",
    )
    assert removable(story(calls)) == [2, 3]


@pytest.mark.parametrize("calls", [ZOMBIE, TRACED, (*TRACED[:3], "process 33: getppid() = (under way)")])
@pytest.mark.parametrize("dies", [False, True])
def test_the_program_builds_and_can_be_mailed(calls: tuple[str, ...], dies: bool, tmp_path: Path) -> None:
    told = story(calls, dies=dies)
    text = write_program(told, "a title of a defect that is so long that it does not fit on a single line", "x.c", "it")
    file = tmp_path / "x.c"
    file.write_text(text)
    build_standalone(file, tmp_path / "cache")
    assert max(len(line.expandtabs(8)) for line in text.splitlines()) <= 72, text
    assert "cc x.c && ./a.out" in text
    assert ("Exit status: 0" in text) != dies


def test_a_race_is_a_loop_of_calls_made_at_the_same_time(tmp_path: Path) -> None:
    told = story(RACE, dies=True)
    assert told.racers == [31, 32]
    assert [str(step) for step in told.steps if step.beside] == ["_exit(0)", "sysctl(kern.proc.pathname.32)"]
    file = tmp_path / "race.c"
    file.write_text(write_race(told, "a title", "race.c", "it", "reader is held at a point"))
    build_standalone(file, tmp_path / "cache")
    text = file.read_text()
    assert max(len(line.expandtabs(8)) for line in text.splitlines()) <= 72, text
    assert "\tsetpgid(0, 0);\n\t*prepared = 1;\n\tmeet(1);\n\t__sync_fetch_and_add(finished, 1);\n" in text
    assert (
        "\tmeet(0);\n\t/* Child 1 reads kern.proc.pathname of child 2. */\n\task(KERN_PROC_PATHNAME, pid[CHILD_2]);\n"
        in text
    )
    assert "as a test of the harness states it: reader is held at a point." in text.replace("\n * ", " ")


@pytest.mark.parametrize(
    ("calls", "dies"), [(RACE[:4], True), (ZOMBIE, True), ((*RACE[:7], "process 31: getpid() = 31"), False)]
)
def test_calls_one_after_the_other_and_those_that_end_nothing_are_no_race(calls: tuple[str, ...], dies: bool) -> None:
    with pytest.raises(UsageError, match="not two processes whose calls end the kernel"):
        write_race(story(calls, dies=dies), "t", "x.c")


STATED = """
def test_other(init, schedule):
    schedule.until(init, reaches="nowhere")

def test_it(init, schedule):
    with schedule.holding(reader, at="kern_sig.c:dokillpg:+36", doing=ask) as asking, schedule.excluded():
        schedule.until(child, reaches=POINT, doing=child.start.exit)
        schedule.result(parent.start.wait4(child.pid), parent)
    init.wait4(child.pid)
"""


def test_what_a_test_states_is_told_in_words(tmp_path: Path) -> None:
    file = tmp_path / "test_stated.py"
    file.write_text(STATED)
    words = "reader is held at kern_sig.c:dokillpg:+36; child comes to POINT; parent makes its call"
    assert stated_interleaving(file, "test_it") == words
    assert stated_interleaving(file, "test_none") == ""
    assert stated_interleaving(tmp_path / "none.py", "test_it") == ""


def test_a_program_is_written_to_be_read() -> None:
    text = write_program(story(), "kill() finds zombies", "zombie.c", "EPERM before and after")
    assert text.startswith("/*\n * kill() finds zombies\n")
    assert "\t/* Child 1 becomes user 61002. */\n\tsetuid(61002);\n" in text
    assert "\tresult = kill(pid[CHILD_1], 0);\n\t*verdict = result != -1;\n" in text
    assert "\tawait_end(pid[CHILD_1]);\n" in text, "who is killed has ended by then"
    assert "What ought to be: EPERM before and after" in text.replace("\n * ", " ")


def test_what_a_parent_waits_for_is_compared_with_pid_and_status() -> None:
    text = write_program(story(TRACED), "t", "x.c")
    assert "result == pid[CHILD_1] && status == 0x117f" in text.replace("\n\t    ", " ")
    assert "ptrace(PT_ATTACH, pid[CHILD_1], (caddr_t)0, 0);" in text
    assert "rfork(RFPROC|RFFDG)" in text
    assert 'mkdir("/tmp/a b", 0755);' in text
    assert "(unsigned char[]){0x80, 0x00, 0x00, 0x00}" in text


def test_arguments_that_are_not_understood_are_left_out() -> None:
    told = story(("process 1: procctl(P_PGID, 0, 9) = None", "process 1: setuid(0); exit(0) = None",
                  "process 1: setuid(1 + 1) = None", "process 1: getpid() = 1"))  # fmt: skip
    assert [is_told(step, told) for step in told.steps] == [False] * (len(told.steps) - 1) + [True]


def test_only_what_failed_is_reproduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear line and exit status 2 for what has nothing to be reproduced."""
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "home"))
    file = tmp_path / "r.json"
    results = (
        TestResult("a.py::test_fine", Verdict.PASSED),
        TestResult("a.py::test_wrong[1]", Verdict.FAILED, calls=("process 1: signals() = []",)),
        TestResult("a.py::test_wrong[2]", Verdict.FAILED),
    )
    RunRecord("DragonFly: kernel k", is_dragonfly=True, results=results).write(Store(), file)
    for test, said in (
        ("test_fine", "did not fail"),
        ("test_none", "is no test of it"),
        ("test_wrong", "which one?"),
        ("test_wrong[1]", "no calls of it are on record"),
    ):
        assert main(["reproduce", str(file), test]) == 2
        assert said in capsys.readouterr().err


#: What a parent is told of a child that somebody else traces, in all kernels so far; and one who has no part in it.
UNKNOWN_CHILD = (
    "process 30: fork() = <process 31>",
    "process 30: fork() = <process 32>",
    "process 30: fork() = <process 33>",
    "process 33: setsid() = 33",
    "process 32: ptrace(PT_ATTACH, 31) = 0",
    "process 32: wait4(31, WUNTRACED) = WaitResult(pid=31, status=WaitStatus(raw=4479, exit_status=None...",
)


def recorded(result: TestResult, folder: Path) -> Path:
    """Return a record of a run on the default target that came to RESULT; skips a test of an unknown kernel."""
    target = resolve_target(TargetChoice(), Store())
    assert isinstance(target, DragonFlyTarget)
    if target.kernel is None:
        pytest.skip("the kernel is not in the store")
    record = RunRecord(
        target.label, is_dragonfly=True, kernel=target.kernel.name, image=target.image.name, results=(result,)
    )
    file = folder / "r.json"
    record.write(Store(), file)
    return file


@pytest.mark.on_vm
@pytest.mark.skipif(not has_dragonfly(Store()), reason="no DragonFly target in the store")
@pytest.mark.parametrize(("error", "status"), [("ECHILD", 0), ("EPERM", 1)])
def test_a_program_is_offered_if_it_shows_on_a_real_kernel_what_was_recorded(
    error: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = (*UNKNOWN_CHILD, f"process 30: wait4(31, WNOHANG) = {error}")
    failed = TestResult("a.py::test_child", Verdict.FAILED, behaviour="It is a child.", calls=calls)
    file, offered = recorded(failed, tmp_path), tmp_path / "child.c"
    assert main(["reproduce", str(file), "test_child", "--c", str(offered), "--times", "2"]) == status
    said = capsys.readouterr().err
    assert offered.exists() == (status == 0)
    if status:
        assert "nothing is offered" in said
        return
    assert "7 calls cut down to 5 in" in said
    assert "showed the defect 2 of 2 times" in said
    text = offered.read_text()
    assert "setsid" not in text
    assert "cc child.c && ./a.out" in text
    assert 'printf("DEFECT: wait4() fails with ECHILD\\n");' in text


@pytest.mark.on_vm
@pytest.mark.skipif(not has_dragonfly(Store()), reason="no DragonFly target in the store")
def test_a_race_is_offered_with_how_often_it_showed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What ends each kernel so far: kern.proc.pathname of who is exiting."""
    died = TestResult("a.py::test_exit", Verdict.PANIC, behaviour="It ends.", calls=RACE)
    file, offered = recorded(died, tmp_path), tmp_path / "race.c"
    assert main(["reproduce", str(file), "test_exit", "--c", str(offered), "--times", "1"]) == 0
    assert "they showed the defect 1 of 1 times" in capsys.readouterr().err
    assert "own_cpu(1);" in offered.read_text()


@pytest.mark.on_vm
@pytest.mark.skipif(not has_dragonfly(Store()), reason="no DragonFly target in the store")
@pytest.mark.parametrize(
    ("program", "status"),
    [("threads-pending-inherited.c", 0), ("title-outlives-exec.c", 1)],
    ids=["shown", "not shown"],
)
def test_what_no_calls_can_tell_is_shown_by_the_program_written_by_hand(
    program: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of threads, tables and races: tried before it is offered, as any other."""
    calls = ("process 30: fork() = <process 31>", "thread 32 of process 30: getpid() = 30")
    failed = TestResult(
        "a.py::test_a", Verdict.FAILED, defect="it is", reproducer=f"reproducers/{program}", calls=calls
    )
    file, offered = recorded(failed, tmp_path), tmp_path / "a.c"
    assert main(["reproduce", str(file), "test_a", "--c", str(offered), "--times", "2"]) == status
    said = capsys.readouterr().err
    assert "threads made calls" in said
    assert f"{program} showed the defect {0 if status else 2} of 2 times" in said
    assert offered.exists() == (status == 0)


def test_the_machine_is_the_runs_unless_another_is_asked_for() -> None:
    record = RunRecord("DragonFly: k", is_dragonfly=True, options={"cpus": 2, "memory": 768, "kenv": {"a": "1"}})
    assert as_recorded(TargetOptions(), record) == TargetOptions(cpus=2, memory=768, kenv={"a": "1"})
    assert as_recorded(TargetOptions(cpus=4, kernel="k"), record).cpus == 4

# SPDX-License-Identifier: BSD-2-Clause
"""Programs that nobody here wrote are tests like others: each of their cases has its verdict, and leaves nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.bisect.preview import collectable
from harness.bisect.question import Question
from harness.cli import build_parser
from harness.errors import UsageError
from harness.guests.options import TargetOptions
from harness.options import PYTEST_PREFIX
from harness.programs.cases import CaseBrokenError, ExitStatus
from harness.programs.options import ProgramOptions
from harness.programs.program import Program, find_programs
from harness.programs.running import Listener, build_launcher
from harness.runs.options import RunOptions
from harness.runs.suite import suite_arguments
from harness.store import Store
from harness.toolchain import compile_program

CLI = (sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())")

# Speaks as Go's do.  The kernel of the control guest panics on demand.
GO = r"""#!/bin/sh
# test.testlogfile
case "$*" in
    *-test.list=*) echo TestFine; echo TestFails; echo TestSkips; echo TestHangs; echo TestPanics
        echo TestAfter; echo TestDies; echo BenchmarkSlow; exit 0 ;;
esac
for word; do
    case $word in -test.run=*) test=${word#-test.run=^}; test=${test%?} ;; esac
done
echo "=== RUN   $test"
end() { echo "--- $1: $test (0.10s)"; [ "$1" = FAIL ] && { echo FAIL; exit 1; }; echo PASS; exit 0; }
case $test in
    TestFine) end PASS ;;
    TestFails) echo "    fake_test.go:7: one is two"; end FAIL ;;
    TestSkips) echo "    fake_test.go:9: not on this system"; end SKIP ;;
    TestHangs) echo "waits for ever"; sleep 1000 ;;
    TestPanics) echo "about to"; sleep 1; echo c >/proc/sysrq-trigger; sleep 1000 ;;
    TestAfter) [ "$EXTRA/$1" = "a b/-test.v" ] && end PASS; end FAIL ;;
    TestDies) kill -SEGV $$ ;;
esac
"""
TAP = r"""#!/bin/sh
echo 1..4
echo ok 1 - fine
echo not ok 2 - wrong
echo "# got 1, wanted 2"
echo ok 3 "# SKIP no such thing"
[ -n "$HANGS" ] && { echo "    # Subtest: sleeps"; sleep 1000; }
echo ok 4 - last
exit 1
"""
# Speaks as ATF's do: `-l`, CASE, CASE:cleanup.
ATF = r"""#!/bin/sh
# application/X-atf-tp
case $1 in
    -l) printf 'Content-Type: application/X-atf-tp; version="1"\n\nident: leaves\nhas.cleanup: true\n\n'
        printf 'ident: after\n\nident: dirty\nhas.cleanup: true\n\nident: wrong\nhas.cleanup: true\n'; exit 0 ;;
    leaves) echo here >mine; echo there >/tmp/left-behind; echo passed ;;
    leaves:cleanup) grep -q here mine && rm /tmp/left-behind ;;
    after) if [ -e /tmp/left-behind ]; then echo "failed: it is there yet"; exit 1; fi; echo passed ;;
    dirty) echo passed ;;
    dirty:cleanup) echo "cannot"; exit 4 ;;
    wrong) echo "failed: one is two"; exit 1 ;;
    wrong:cleanup) exit 5 ;;
    *) exit 9 ;;
esac
"""
# What each says, and its verdict.
ODD = {
    "passes": ("#!/bin/sh\nexit 0\n", "passed", ""),
    "skips": ("#!/bin/sh\nexit 77\n", "not applicable", "exit status 77"),
    "fails": ("#!/bin/sh\nexit 3\n", "failed", "exit status 3"),
    "killed": ("#!/bin/sh\nkill -KILL $$\n", "failed", "killed by signal 9 (SIGKILL)"),
    "no-shebang": ("echo hello\n", "test error", "the kernel does not know the format of no-shebang (ENOEXEC)"),
    "no-interpreter": ("#!/no/such/thing\n", "test error", "does not have the interpreter that no-interpreter needs"),
    "no-permission": ("#!/bin/sh\n", "test error", "no-permission has no permission to be executed: chmod +x"),
    "empty": ("", "test error", "empty is empty"),
    "binary": ("#!/bin/sh\nhead -c 50000 /dev/urandom; printf '\\033[2J\\0end'; exit 1\n", "failed", "exit status 1"),
    "long": ("#!/bin/sh\nseq 100000; exit 1\n", "failed", "exit status 1"),
    "both": (
        "#!/bin/sh\ni=0; while [ $i -lt 200 ]; do echo $i; echo $((i+1)) >&2; i=$((i+2)); done; exit 1\n",
        "failed", "exit status 1: 199",
    ),
    "endless": ("#!/bin/sh\nexec yes\n", "test error", "it wrote more than 16 MiB of output"),
    "fills": ("#!/bin/sh\ncat </dev/zero >/tmp/full 2>&1; exit 1\n", "failed", "exit status 1"),
    "leaves": ("#!/bin/sh\n(sleep 1000; touch /tmp/late) & exit 0\n", "passed", ""),
}  # fmt: skip


def run(*words: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *map(str, words)], capture_output=True, text=True, check=False, timeout=580, cwd=cwd,
        env={**os.environ, **environment},
    )  # fmt: skip


def make(folder: Path, name: str, content: str, mode: int = 0o755) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    (folder / name).chmod(mode)
    return folder / name


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return make(tmp_path / "go", "fake.test", GO)


@pytest.fixture
def tap(tmp_path: Path) -> Path:
    return make(tmp_path / "tap", "suite.t", TAP)


def record_of(tmp_path: Path, *words: str | Path, status: int) -> dict[str, Any]:
    """Return the record of a run on the control guest that ends with STATUS."""
    file = tmp_path / "run.json"
    done = run("run", "--control", *words, "--json", file, cwd=tmp_path)
    assert done.returncode == status, done.stdout[-4000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stdout + done.stderr
    assert "\x1b[2J" not in done.stdout
    about: dict[str, Any] = json.loads(file.read_text())
    return about


def results_of(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {result["test"].partition("::")[2]: result for result in record["results"]}


def verdicts_of(record: dict[str, Any]) -> dict[str, str]:
    return {test: result["verdict"] for test, result in results_of(record).items()}


@pytest.mark.on_vm
def test_each_listed_case_is_a_test_of_its_own(go: Path, tmp_path: Path) -> None:
    """A panic, a hang and a death are their case's, and the others run all the same."""
    junit = tmp_path / "r.xml"
    words = ("--program", go, "--deadline", "8", "--args=b", "--env", "EXTRA=a b", "--no-again", "--junitxml", junit)
    record = record_of(tmp_path, *words, status=1)
    results = results_of(record)
    assert verdicts_of(record) == {
        "TestFine": "passed",
        "TestFails": "failed",
        "TestSkips": "not applicable",
        "TestHangs": "failed",
        "TestPanics": "panic",
        "TestAfter": "passed",
        "TestDies": "failed",
    }
    assert results["TestFails"]["reason"] == "E   fake_test.go:7: one is two"
    assert results["TestSkips"]["reason"].endswith("fake_test.go:9: not on this system")
    assert "waited 8 s for `TestHangs` to end in the guest" in results["TestHangs"]["reason"]
    assert "waits for ever" in results["TestHangs"]["evidence"]
    assert "about to" in results["TestPanics"]["evidence"]
    assert "Kernel panic" in results["TestPanics"]["evidence"]
    assert "killed by signal 11 (SIGSEGV)" in results["TestDies"]["reason"]
    assert record["starts"] == 3  # and one each after the hang and the panic
    assert junit.read_text().count("<testcase") == 7


@pytest.mark.on_vm
def test_what_cleans_up_after_a_case_is_run_after_it(tmp_path: Path) -> None:
    program = tmp_path / "t_leaves"
    program.write_text(ATF)
    program.chmod(0o755)
    results = results_of(record_of(tmp_path, "--program", program, "--no-again", status=1))
    assert {name: result["verdict"] for name, result in results.items()} == {
        "leaves": "passed",
        "after": "passed",
        "dirty": "test error",
        "wrong": "failed",
    }
    assert results["dirty"]["reason"] == "E   it passed, but cleaning up after it did not: exit status 4"
    assert results["wrong"]["reason"] == "E   one is two"


@pytest.mark.on_vm
def test_what_is_expected_is_no_failure_and_a_list_that_is_wrong_is_told(go: Path, tmp_path: Path) -> None:
    entries = {"TestFails": "known", "TestFine": "it passes", "TestGone": "there is none", "TestDies": "on DragonFly"}
    (go.parent / "expected.toml").write_text(
        "".join(
            f'[[expected]]\nprogram = "*.test"\ntest = "{test}"\nreason = "{reason}"\ncontrol = {control}\n'
            for (test, reason), control in zip(entries.items(), ("true", "true", "true", "false"), strict=True)
        )
    )
    record = record_of(tmp_path, "--program", go.parent, "-k", "not Hangs and not Panics and not After", status=1)
    results = results_of(record)
    assert verdicts_of(record) == {
        "TestFine": "test error",
        "TestFails": "known defect",
        "TestSkips": "not applicable",
        "TestDies": "failed",
        "TestGone": "test error",
    }
    assert "known defect: known (fake_test.go:7: one is two)" in results["TestFails"]["reason"]
    assert "unexpected pass: it is listed as failing (it passes)" in results["TestFine"]["reason"]
    assert "vanished" in results["TestGone"]["reason"]
    assert len(results["TestDies"]["again"]) == 1
    assert verdicts_of(record_of(tmp_path, "--program", go, "-k", "Fails", status=0)) == {"TestFails": "known defect"}


@pytest.mark.on_vm
def test_a_program_that_lists_nothing_is_one_test_with_further_results(tap: Path, tmp_path: Path) -> None:
    record = record_of(tmp_path, "--program", tap, status=1)
    results = results_of(record)
    assert verdicts_of(record) == {
        "whole": "failed",
        "1 - fine": "passed",
        "2 - wrong": "failed",
        "3": "not applicable",
        "4 - last": "passed",
    }
    assert results["whole"]["reason"] == "E   1 of 4 failed: 2 - wrong"
    assert results["2 - wrong"]["reason"] == "E   got 1, wanted 2"
    assert [len(results[test].get("again", ())) for test in ("whole", "2 - wrong", "4 - last")] == [1, 1, 1]
    one = record_of(tmp_path, f"{tap}::2 - wrong", "--program", tap, "--no-again", status=1)
    assert verdicts_of(one) == {"2 - wrong": "failed"}
    hung = record_of(tmp_path, "--program", tap, "--env=HANGS=1", "--deadline=5", "--no-again", status=1)
    assert verdicts_of(hung) == {
        "whole": "failed", "1 - fine": "passed", "2 - wrong": "failed", "3": "not applicable", "sleeps": "failed",
    }  # fmt: skip
    assert "waited 5 s for `sleeps` to end in the guest" in results_of(hung)["sleeps"]["reason"]


@pytest.mark.on_vm
def test_odd_programs_have_a_verdict_and_a_clear_line_each(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    for name, (content, _, _) in ODD.items():
        make(folder, name, content, 0o644 if name == "no-permission" else 0o755)
    files = [word for name in ODD for word in ("--program", folder / name)]
    words = ["--no-again", "--deadline=60", "--memory=256", "--format=exit", *files]
    record = record_of(tmp_path, *words, status=1)
    found = {result["test"].partition("::")[0]: result for result in record["results"]}
    assert {name: result["verdict"] for name, result in found.items()} == {
        name: verdict for name, (_, verdict, _) in ODD.items()
    }
    told = {name: found[name].get("reason", "") for name in ODD}
    assert {name: why for name, why in told.items() if ODD[name][2] not in why} == {}
    assert "100000 lines, 588895 bytes in " in found["long"]["evidence"]
    both = Path(found["both"]["evidence"].partition(" bytes in ")[2].partition("\n")[0])
    assert both.read_text().split() == [str(number) for number in range(200)]  # errors are where they were written
    assert found["long"]["evidence"].count("\n") < 60
    whole = Path(found["long"]["evidence"].partition(" bytes in ")[2].partition("\n")[0])
    assert whole.read_text().splitlines()[-1] == "100000"
    whole = Path(found["binary"]["evidence"].partition(" bytes in ")[2].partition("\n")[0])
    assert whole.read_bytes().endswith(b"\x1b[2J\0end")


@pytest.mark.on_vm
def test_a_program_has_the_user_folder_input_terminal_and_files_it_needs(tmp_path: Path) -> None:
    script = "#!/bin/sh\nid -u; pwd; cat; test -t 1 && echo terminal; cat /tmp/data 2>&1; ls -ld . ; exit 1\n"
    program = make(tmp_path / "p", "needs", script)
    (tmp_path / "data").write_text("put\n")
    (tmp_path / "given").write_text("given\n")
    record = record_of(
        tmp_path, "--program", program, "--user", "alice", "--stdin", tmp_path / "given", "--put", tmp_path / "data",
        "--no-again", status=1,
    )  # fmt: skip
    lines = results_of(record)["whole"]["evidence"].splitlines()
    assert lines[2] not in {"0", ""}
    assert {"given", "put"} <= set(lines)
    assert "terminal" not in lines
    record = record_of(tmp_path, "--program", program, "--pty", "--cwd=/etc", "--deadline=4", "--no-again", status=1)
    lines = results_of(record)["whole"]["evidence"].splitlines()
    assert lines[2:4] == ["0", "/etc"]  # and waits for somebody to type
    assert run("run", "--control", "--program", program, "--user=no_such").returncode == 2


@pytest.mark.on_vm
def test_workers_and_shards_share_cases_out_as_they_do_tests(go: Path, tmp_path: Path) -> None:
    words = ("--program", go, "-k", "Fine or Fails or Skips or Dies", "--no-again")
    both = record_of(tmp_path, *words, "-n", "2", status=1)
    every = {"TestFine": "passed", "TestFails": "failed", "TestSkips": "not applicable", "TestDies": "failed"}
    assert verdicts_of(both) == every
    parts = [verdicts_of(record_of(tmp_path, *words, "--shard", f"{part}/2", status=1)) for part in (1, 2)]
    assert [len(part) for part in parts] == [2, 2]
    assert parts[0] | parts[1] == every


def test_bisect_takes_programs_behind_its_dashes(tap: Path) -> None:
    words = ["bisect", "--source", ".", "--good", "a", "--bad", "b", "--", "--program", str(tap), "-k", "wrong"]
    options = build_parser("bisect").parse_args(words)
    question = Question.read(options, options.tests)
    assert question.paths == (str(tap),)
    program = f"--{PYTEST_PREFIX}program={tap}"
    assert question.pytest_options == ("-k", "wrong", program)
    # Before there is a kernel nobody can ask it for its cases.
    assert collectable(question.pytest_options) == [program]
    assert collectable(("-kwrong", program, "-x")) == [program, "-x"]
    assert collectable(("-k", "wrong")) == ["-k", "wrong"]


def test_the_oracle_has_no_processes_to_run_programs(tap: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    assert run("run", "--oracle", "--program", tap, "--json", file, cwd=tmp_path).returncode == 0
    assert verdicts_of(json.loads(file.read_text())) == {"whole": "not applicable"}


# ---- Without a machine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "output", [b"", b"a", b"a\n", b"\n\n", b"a\r\n\r", b"\0", b"a\0\n\0tok exit 9", b"\n\0token", b"\xff\xfe\n\xc3"]
)
def test_what_a_program_writes_is_kept_to_the_byte_however_it_comes(output: bytes, terminal: bool) -> None:
    """The launcher's last word is told from it wherever the pieces begin and end."""
    end = b"\r\n" if terminal else b"\n"
    data = output + end + b"\0token signal 11" + end + b"of somebody left behind"
    for size in range(1, len(data) + 1):
        sink = io.BytesIO()
        listener = Listener(ExitStatus(), sink, "token", terminal=terminal)
        for begin in range(0, len(data), size):
            listener.hear(data[begin : begin + size])
        assert (sink.getvalue(), listener.trailer) == (output, ("signal", 11)), size
    sink = io.BytesIO()
    listener = Listener(ExitStatus(), sink, "token", terminal=terminal)
    listener.hear(output)
    listener.end()
    assert (sink.getvalue(), listener.trailer) == (output, None)


class Lines(ExitStatus):
    """Keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def feed(self, line: str) -> None:
        self.heard.append(line)


def test_a_line_is_read_as_soon_as_it_ends() -> None:
    """What follows may never come."""
    reader = Lines()
    listener = Listener(reader, io.BytesIO(), "token")
    for data, heard in (
        (b"one\n", ["one"]),
        (b"two", ["one"]),
        (b"\n", ["one", "two"]),
        (b"\n", ["one", "two", ""]),
        (b"thr\xc3", ["one", "two", ""]),
        (b"\xa9\n\0", ["one", "two", "", "thr\xe9"]),
        (b"four\nfive", ["one", "two", "", "thr\xe9", "\0four"]),
    ):
        listener.hear(data)
        assert reader.heard == heard
    listener.hear(b"\n\0token exit 3\n")
    assert reader.heard[-1] == "five"
    assert listener.trailer == ("exit", 3)


def test_a_program_for_another_system_is_told_by_its_file(tmp_path: Path) -> None:
    cache = Store().cache
    linux = tmp_path / "linux"
    source = tmp_path / "a.c"
    source.write_text("int main(void) { return 0; }\n")
    linux.write_bytes(compile_program("selftest-linux", [source], ["-O1"], cache).read_bytes())
    dragonfly = tmp_path / "dragonfly"
    dragonfly.write_bytes(build_launcher("dragonfly", cache).read_bytes())
    go = tmp_path / "go"
    go.write_bytes(b"\x7fELF" + bytes(100) + b"build\tGOOS=darwin\n")
    for file in (linux, dragonfly, go):
        file.chmod(0o755)
    assert Program(linux).system == "Linux"
    assert not Program(linux).is_unbranded
    bare = tmp_path / "bare"
    bare.write_bytes(b"\x7fELF" + bytes(100))
    assert Program(bare).is_unbranded
    with pytest.raises(CaseBrokenError, match="linux is a program for Linux, and the target runs DragonFly"):
        Program(linux).demand("dragonfly")
    Program(linux).demand("linux")
    with pytest.raises(CaseBrokenError, match="for DragonFly, and the target runs Linux"):
        Program(dragonfly).demand("linux")
    with pytest.raises(CaseBrokenError, match="for macOS"):
        Program(go).demand("linux")


def test_a_folder_stands_for_what_can_be_executed_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "programs"
    (folder / "deep").mkdir(parents=True)
    make(folder, "a", "#!/bin/sh\n")
    make(folder / "deep", "b", "#!/bin/sh\n")
    make(folder, "data", "x", 0o644)
    assert [file.name for file in find_programs(folder)] == ["a", "b"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match="no file that may be executed"):
        find_programs(tmp_path / "nothing")
    with pytest.raises(UsageError, match="there is no program"):
        find_programs(tmp_path / "none")


def test_options_travel_to_children_as_they_were_given(tap: Path) -> None:
    given = ["--program", str(tap), "--args=-x 'a b'", "--args=c", "--env", "A=b c", "--deadline=3", "--pty"]
    options, rest = ProgramOptions.taken_from([*given, "-k", "x"])
    assert rest == ["-k", "x"]
    assert (options.args, options.env, options.deadline) == (("-x", "a b", "c"), {"A": "b c"}, 3.0)
    again, _ = ProgramOptions.taken_from(options.words())
    assert again == options
    words = suite_arguments(RunOptions(TargetOptions(control=True), programs=options))
    assert words[0] == str(tap)
    assert f"--{PYTEST_PREFIX}program={tap}" in words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--args=x"], "--args is about programs: name one with --program FILE"),
        (["--program=/no/such"], "there is no program /no/such"),
        (["--program=.", "--env=x"], "write NAME=VALUE"),
        (["--program=.", "--deadline=0"], "--deadline is some seconds"),
        (["--program=.", "--stdin=/no/such"], "--stdin /no/such: there is no such file"),
        (["--program=.", "--cwd=etc"], "it begins with /"),
        (["--program=.", "--args='"], "--args: No closing quotation"),
        (["--program=.", "--format=x"], "--format"),
    ],
)
def test_what_makes_no_sense_is_one_line(tap: Path, words: list[str], said: str) -> None:
    done = run("run", *words, cwd=tap.parent)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.strip().splitlines()[-1]

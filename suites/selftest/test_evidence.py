# SPDX-License-Identifier: BSD-2-Clause
"""Each verdict is provoked, and reaches record, JUnit, exit status and report page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.config import share
from harness.errors import DeadlineError, ExitCode, GuestDeadlineError, GuestLostError, HarnessError, UsageError
from harness.guests.bootcheck import BootFailedError, Culprit
from harness.guests.crash import CrashReport
from harness.guests.guest import GuestHangError, KernelPanicError
from harness.guests.targets import ResolvedTarget
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel
from harness.kernels.build import BuildFailedError
from harness.plugin.blame import verdict_of
from harness.plugin.diagnosis import skip_verdict, start_trouble
from harness.plugin.evidence import demand_debug_file
from harness.processes.vocabulary import GuestError, ProcessGone
from harness.results.record import RunRecord, TestResult, keep
from harness.results.summary import conclusion
from harness.results.verdict import Verdict, exit_code

PANIC = KernelPanicError(CrashReport("panic: x"))
HANG = GuestHangError(CrashReport("nothing moves"))


@pytest.mark.parametrize(
    ("error", "finding"),
    [
        (AssertionError("no"), Verdict.FAILED),
        (GuestError("setsid()", "EPERM"), Verdict.FAILED),
        (GuestDeadlineError("wait4() in process 4", 30), Verdict.FAILED),
        (DeadlineError("QEMU's monitor to answer", 30), Verdict.HARNESS_ERROR),
        (ProcessGone("process 4", "getpid()"), Verdict.FAILED),
        (PANIC, Verdict.PANIC),
        (HANG, Verdict.HANG),
        (GuestLostError("QEMU was killed by signal 9"), Verdict.GUEST_LOST),
        (BuildFailedError("x.c:1: error", Path("log")), Verdict.BUILD_FAILURE),
        (HarnessError("no gcc"), Verdict.HARNESS_ERROR),
    ],
)
def test_errors_in_a_test_have_their_verdicts(error: BaseException, finding: Verdict) -> None:
    assert verdict_of(error) is finding


@pytest.mark.parametrize(
    ("error", "finding"),
    [
        (PANIC, Verdict.BOOT_FAILURE),
        (BootFailedError(Culprit.KERNEL, "no SSH; another comes up"), Verdict.BOOT_FAILURE),
        (BootFailedError(Culprit.HOST, "no SSH; nor does another"), Verdict.HARNESS_ERROR),
        (
            BootFailedError(Culprit.UNKNOWN, "a panic, and nothing to compare with", panicked=True),
            Verdict.HARNESS_ERROR,
        ),
        (DeadlineError("SSH to answer", 180), Verdict.HARNESS_ERROR),
        (GuestLostError("QEMU ended with status 1"), Verdict.HARNESS_ERROR),
        (BuildFailedError("x.c:1: error", Path("log")), Verdict.BUILD_FAILURE),
        (UsageError("no such kernel"), Verdict.HARNESS_ERROR),
        (HarnessError("no QEMU"), Verdict.HARNESS_ERROR),
    ],
)
def test_errors_on_the_way_up_are_no_evidence_of_a_test(error: HarnessError, finding: Verdict) -> None:
    assert start_trouble(error).verdict is finding


def test_only_three_verdicts_speak_against_a_kernel() -> None:
    assert {finding for finding in Verdict if finding.against_kernel} == {Verdict.FAILED, Verdict.PANIC, Verdict.HANG}


def test_what_was_left_out_has_a_verdict() -> None:
    assert skip_verdict("known defect of the kernel; --defects runs it", is_defect=True) is Verdict.KNOWN_DEFECT
    assert skip_verdict("not applicable to 400704: later", is_defect=True) is Verdict.NOT_APPLICABLE
    assert skip_verdict("needs a real kernel", is_defect=False) is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], ExitCode.PASSED),
        ([Verdict.PASSED, Verdict.KNOWN_DEFECT, Verdict.NOT_APPLICABLE], ExitCode.PASSED),
        ([Verdict.PASSED, Verdict.GUEST_LOST], ExitCode.HARNESS_FAILED),
        ([Verdict.BOOT_FAILURE], ExitCode.TEST_FAILED),
        ([Verdict.HARNESS_ERROR], ExitCode.HARNESS_FAILED),
        ([Verdict.GUEST_LOST, Verdict.PANIC], ExitCode.TEST_FAILED),
        ([Verdict.HANG], ExitCode.TEST_FAILED),
        ([Verdict.BUILD_FAILURE], ExitCode.TEST_FAILED),
    ],
)
def test_the_exit_status_follows_from_the_verdicts(findings: list[Verdict], code: ExitCode) -> None:
    assert exit_code(findings) is code


@pytest.mark.parametrize(
    ("kernel", "complaint"),
    [
        (None, "needs a kernel of the store"),
        (Kernel("mine", elf="0", version="x"), "kernel mine: import it with --debug"),
        (Kernel("mine", elf="0", version="x", debug="1"), None),
    ],
)
def test_a_process_table_nobody_can_walk_is_refused_at_once(kernel: Kernel | None, complaint: str | None) -> None:
    image = BaseImage("base", disk="0", ssh_key="0")
    target = ResolvedTarget(image, kernel)
    if complaint is None:
        demand_debug_file(target)
        return
    with pytest.raises(pytest.UsageError, match=complaint):
        demand_debug_file(target)


def test_a_test_that_fails_while_tidied_up_after_counts_once() -> None:
    results: list[TestResult] = []
    keep(results, TestResult("a", Verdict.PASSED, 1.0))
    keep(results, TestResult("a", Verdict.PANIC, 0.5))
    keep(results, TestResult("b", Verdict.PASSED, 1.0))
    assert [(result.test, result.verdict, result.seconds) for result in results] == [
        ("a", Verdict.PANIC, 1.5),
        ("b", Verdict.PASSED, 1.0),
    ]


def run_tests(folder: Path, code: str, *arguments: str, timeout: float = 600) -> tuple[int, str, dict[str, Any]]:
    """Run CODE as a test file on the control guest; return exit status, output and record."""
    (folder / "test_inner.py").write_text(code)
    record = folder / "record.json"
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder), f"--rootdir={folder}"]
    argv += ["-p", "harness.plugin.entry", "--dfly-control", "--dfly-json", str(record), *arguments]
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    done = subprocess.run(
        argv, capture_output=True, text=True, env=environment, cwd=share(), check=False, timeout=timeout
    )
    return done.returncode, done.stdout + done.stderr, json.loads(record.read_text()) if record.exists() else {}


def verdicts(record: dict[str, Any]) -> dict[str, str]:
    return {result["test"].rpartition("::")[2]: result["verdict"] for result in record["results"]}


MIXED = """
import os, signal
import pytest
from harness.errors import HarnessError

@pytest.mark.kern_proc("sys_fork")
def test_good(init):
    '''A child is born.

    More words.
    '''
    assert init.fork().pid > 0

def test_bad(init):
    child = init.fork()
    assert child.getpgid(0) == -5

@pytest.mark.defect(reason="known")
def test_known(init):
    assert False

def test_skipped(init):
    pytest.skip("not here")

def test_panic(init, guest):
    guest.ssh.run("echo c > /proc/sysrq-trigger", deadline=20)
    init.getpid()

def test_panic_while_tidied_up(init, guest):
    init.fork()
    guest.ssh.run("(sleep 0.3; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &")
    guest.console.expect(["Kernel panic - not syncing"], awaited="the panic", deadline=20)

def test_hang(init, guest, hub):
    hub.deadline = 2
    guest.machine.pause()
    init.getpid()

def test_lost(init, guest):
    os.kill(guest.machine.pid, signal.SIGKILL)
    init.getpid()

def test_what_it_leaves_cannot_be_killed(init, guest, hub):
    group = "/tmp/frozen/group"
    child = init.fork()
    frozen = guest.ssh.run(
        f"mkdir -p /tmp/frozen && mount -t cgroup -o freezer none /tmp/frozen && mkdir {group} && "
        f"echo {child.pid} > {group}/tasks && echo FROZEN > {group}/freezer.state && cat {group}/freezer.state"
    )
    assert frozen.status == 0, frozen
    hub.deadline = 10

def test_host(init):
    raise HarnessError("no such tool")

def test_good_again(init):
    assert init.getpid() == init.pid
"""


@pytest.mark.on_vm
def test_each_verdict_is_given_and_the_next_test_has_a_machine(tmp_path: Path) -> None:
    junit, page = tmp_path / "junit.xml", tmp_path / "page.html"
    status, output, record = run_tests(tmp_path, MIXED, f"--junitxml={junit}", "--dfly-html", str(page))
    assert verdicts(record) == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_known": "known defect",
        "test_skipped": "not applicable",
        "test_panic": "panic",
        "test_panic_while_tidied_up": "panic",
        "test_hang": "hang",
        "test_lost": "guest lost",
        "test_what_it_leaves_cannot_be_killed": "failed",
        "test_host": "harness error",
        "test_good_again": "passed",
    }, output
    assert status == 1
    by_name = {result["test"].rpartition("::")[2]: result for result in record["results"]}
    assert "sysrq triggered crash" in by_name["test_panic"]["evidence"].lower()
    assert by_name["test_panic"]["fingerprint"] == by_name["test_panic_while_tidied_up"]["fingerprint"] != ""
    assert "the machine itself stands still" in by_name["test_hang"]["evidence"]
    assert "waited 10 s for all processes to end" in by_name["test_what_it_leaves_cannot_be_killed"]["reason"]
    assert by_name["test_good"]["behaviour"] == "A child is born."
    assert by_name["test_good"]["functions"] == ["sys_fork"]
    assert by_name["test_bad"]["calls"][-1].endswith("getpgid(0) = " + by_name["test_bad"]["calls"][-1].split()[-1])
    assert any(": fork() = " in call for call in by_name["test_bad"]["calls"])
    cases = {case.get("name"): case for case in ET.parse(junit).iter("testcase")}  # noqa: S314  (our own)
    properties = {prop.get("name"): prop.get("value") for prop in cases["test_panic"].iter("property")}
    assert properties["verdict"] == "panic"
    assert properties["kernel"].startswith("CONTROL, NOT DRAGONFLY") if properties["kernel"] else False
    assert properties["lane"]
    assert properties["qemu"]
    assert "A child is born." in page.read_text()
    assert "These results say nothing about DragonFly" in page.read_text()
    assert "| panic | 2 |" in (tmp_path / "summary.md").read_text()


DEFECTS = """
import pytest

@pytest.mark.defect(reason="nobody is told")
def test_known(init):
    assert False

@pytest.mark.defect(since=1, reason="not in this era")
def test_news(init):
    assert False

@pytest.mark.defect(reason="nobody is told either")
def test_mended(init):
    assert init.getpid() == init.pid
"""


@pytest.mark.on_vm
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_defect_that_was_known_is_told_from_news(tmp_path: Path, workers: str) -> None:
    status, output, record = run_tests(
        tmp_path, DEFECTS, "--dfly-defects", "--dfly-live", "--dfly-no-again", "-n", workers
    )
    assert status == 1
    assert verdicts(record) == {"test_known": "failed", "test_news": "failed", "test_mended": "passed"}, output
    lines = output.splitlines()
    known, at_the_end = (number for number, line in enumerate(lines) if line.startswith("DEFECT (failed) "))
    assert lines[known].endswith("::test_known")
    assert lines[at_the_end].endswith("::test_known - known defect: nobody is told")
    assert lines[known + 1].strip() == "known: nobody is told"
    shown = lines[: next(number for number, line in enumerate(lines) if " FAILURES " in line)]
    assert [line.rpartition("::")[2] for line in shown if line.startswith("FAILED ")] == ["test_news"]
    assert "2 of 3 tests speak against this kernel, 1 of them for a known defect." in conclusion(
        RunRecord.from_json(record)
    )


LATE = """
import pytest

def dies(guest):
    guest.ssh.run("(sleep 0.5; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &")

@pytest.fixture
def late(guest):
    yield
    dies(guest)
    guest.console.expect(["Kernel pani"], awaited="the panic, of which half a line is there", deadline=30)

def test_one(init): pass
def test_two(late, init): pass
"""


@pytest.mark.on_vm
@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("more", ["", "def test_three(init): pass\n"])
def test_a_death_noticed_after_its_test_is_charged_to_it(tmp_path: Path, workers: str, more: str) -> None:
    status, output, record = run_tests(tmp_path, LATE + more, "-n", workers)
    expected = {"test_one": "passed", "test_two": "panic"} | ({"test_three": "passed"} if more else {})
    assert verdicts(record) == expected, output
    assert status == ExitCode.TEST_FAILED == record["exit_status"]
    (death,) = (result for result in record["results"] if result["verdict"] == "panic")
    assert "noticed after the test" in death["reason"]
    assert death["fingerprint"]
    assert "noticed after the test" in output
    assert [(each["verdict"], each["pristine"]) for each in death["again"]] == [("panic", True)]
    assert "panic (2 of 2): test_inner.py::test_two: noticed after" in output


@pytest.mark.on_vm
@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    "more", ["", "@pytest.fixture(scope='module')\ndef wide(): yield\ndef test_three(init, wide): pass\n"]
)
def test_the_test_of_a_death_noticed_late_runs_again(tmp_path: Path, workers: str, more: str) -> None:
    file = tmp_path / "turns"
    once = LATE.replace(
        "    dies(guest)\n    guest.console",
        f"""    with open("{file}", "a+") as turns:
        turns.write("x")
        turns.seek(0)
        if len(turns.read()) > 1:
            return
    dies(guest)
    guest.console""",
    )
    status, output, record = run_tests(tmp_path, once + more, "-n", workers)
    assert file.read_text() == "xx", output
    (death,) = (result for result in record["results"] if result["test"].endswith("::test_two"))
    assert TestResult.from_json(death).words == "panic, then passed on a pristine machine (flaky: 1 of 2)"
    assert len(record["results"]) == (3 if more else 2)
    assert status == ExitCode.TEST_FAILED


ONLY_LOST = """
import os, signal

def test_lost(init, guest):
    os.kill(guest.machine.pid, signal.SIGKILL)
    init.getpid()
"""


@pytest.mark.on_vm
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_machine_that_was_killed_is_no_failure_of_the_kernel(tmp_path: Path, workers: str) -> None:
    junit = tmp_path / "junit.xml"
    status, output, record = run_tests(tmp_path, ONLY_LOST, "-n", workers, f"--junitxml={junit}")
    assert verdicts(record) == {"test_lost": "guest lost"}, output
    assert record["identity"].startswith("CONTROL, NOT DRAGONFLY: Linux")  # although it is gone
    assert status == ExitCode.HARNESS_FAILED == record["exit_status"]
    found = {prop.get("name"): prop.get("value") for prop in ET.parse(junit).iter("property")}  # noqa: S314
    assert found.keys() >= {"verdict", "kernel", "image", "qemu", "lane"}
    assert found.get("worker") == ("gw0" if workers == "1" else None)


# The control guest's kernel finds no program to begin with, and panics.
NO_INIT = """
from dataclasses import replace
from harness.guests.control import ControlTarget

whole = ControlTarget.machine

def without_init(self, *arguments):
    machine = whole(self, *arguments)
    return replace(machine, boot=replace(machine.boot, append=machine.boot.append + " rdinit=/none root=/dev/none"))

ControlTarget.machine = without_init
"""
# Another kernel has come up on the same image.
ANOTHER_BOOTS = """
from harness.guests import bootcheck

bootcheck.to_compare_with = lambda target, store: [bootcheck.Comparison(target, same_image=True, has_booted=True)]
"""


@pytest.mark.on_vm
def test_a_kernel_that_does_not_boot_where_no_other_is_known_to_is_nobodys_fault(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(NO_INIT)
    status, output, record = run_tests(tmp_path, ONLY_LOST, timeout=300)
    assert status == ExitCode.HARNESS_FAILED == record["exit_status"], output
    assert verdicts(record) == {"test_lost": "harness error"}
    assert "kernel, image and host cannot be told apart" in record["trouble"]["text"]


@pytest.mark.on_vm
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_kernel_that_does_not_boot_is_a_boot_failure_in_all_reports(tmp_path: Path, workers: str) -> None:
    (tmp_path / "conftest.py").write_text(NO_INIT + ANOTHER_BOOTS)
    junit, page = tmp_path / "junit.xml", tmp_path / "page.html"
    status, output, record = run_tests(
        tmp_path, ONLY_LOST, "-n", workers, f"--junitxml={junit}", "--dfly-html", str(page), timeout=300
    )
    assert status == ExitCode.TEST_FAILED == record["exit_status"], output
    assert verdicts(record) == {"test_lost": "boot failure"}
    assert record["trouble"]["text"].startswith("the guest's kernel panicked: ")
    assert (record["trouble"]["verdict"], record["trouble"]["cause"]) == ("boot failure", "panic")
    assert {prop.get("value") for prop in ET.parse(junit).iter("property")} >= {"boot failure"}  # noqa: S314
    assert "No test was judged. This kernel does not boot." in page.read_text()
    assert "boot failure: the guest&#x27;s kernel panicked" in page.read_text()
    assert "INTERNALERROR" not in output


def test_a_kernel_that_does_not_build_is_a_build_failure_in_all_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, record, page = tmp_path / "sys" / "kern", tmp_path / "record.json", tmp_path / "page.html"
    source.mkdir(parents=True)
    (source / "kern_proc.c").write_text("int broken\n")
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    argv = ["run", "--source", str(tmp_path), "--json", str(record), "--html", str(page)]
    assert main([*argv, "--command", "gcc -c {source}/sys/kern/kern_proc.c -o {output}"]) == ExitCode.TEST_FAILED
    trouble = json.loads(record.read_text())["trouble"]
    assert trouble["verdict"] == "build failure"
    assert trouble["text"].startswith("the kernel does not build: sys/kern/kern_proc.c:1:")
    assert "sys/kern/kern_proc.c:1:" in page.read_text()
    assert "No test was judged" in (tmp_path / "summary.md").read_text()
    assert "the kernel does not build" in capsys.readouterr().err


@pytest.mark.parametrize("trouble", ["exec no-such-compiler", "kill -KILL $$"])
def test_a_compiler_that_is_missing_or_killed_says_nothing_about_the_sources(
    tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, record, mended = tmp_path / "sys" / "kern", tmp_path / "record.json", tmp_path / "mended"
    source.mkdir(parents=True)
    (source / "kern_proc.c").write_text("int broken\n")
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "store"))
    command = f"test -e {mended} || {trouble}; gcc -c {{source}}/sys/kern/kern_proc.c -o {{output}}"
    argv = ["run", "--source", str(tmp_path), "--json", str(record), "--command", command]
    assert main(argv) == ExitCode.HARNESS_FAILED
    assert not record.exists()
    assert "the kernel does not build" not in capsys.readouterr().err
    mended.touch()  # nothing of it is remembered
    assert main(argv) == ExitCode.TEST_FAILED
    assert json.loads(record.read_text())["trouble"]["verdict"] == "build failure"


DEAD = """
def dies(guest):
    guest.machine._process.kill()
    guest.machine._process.wait(20)

def test_dead_before_it_is_tidied_up(init, guest): dies(guest)
def test_next(init): pass
def test_dead_and_nobody_tidies_up(guest): dies(guest)
def test_one_after(init): pass
def test_hang_while_tidied_up(init, guest, hub):
    hub.deadline = 2
    guest.machine.pause()
def test_another(init): pass
def test_dead_at_the_end(guest): dies(guest)
"""


@pytest.mark.on_vm
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_machine_that_dies_without_a_word_is_missed(tmp_path: Path, workers: str) -> None:
    status, output, record = run_tests(tmp_path, DEAD, "-n", workers, "--dfly-no-again")
    assert verdicts(record) == {
        "test_dead_before_it_is_tidied_up": "guest lost",
        "test_next": "passed",
        "test_dead_and_nobody_tidies_up": "guest lost",
        "test_one_after": "passed",
        "test_hang_while_tidied_up": "hang",
        "test_another": "passed",
        "test_dead_at_the_end": "guest lost",
    }, output
    by_name = {result["test"].rpartition("::")[2]: result for result in record["results"]}
    assert "killed by signal 9" in by_name["test_dead_before_it_is_tidied_up"]["reason"]
    assert "noticed after the test" in by_name["test_dead_at_the_end"]["reason"]
    assert "the machine itself stands still" in by_name["test_hang_while_tidied_up"]["evidence"]
    assert status == ExitCode.TEST_FAILED


# QEMU stands still, and so does its monitor, which is to answer quickly here.
SILENT_CONFTEST = """
from harness.machine.monitor import Monitor

Monitor.execute.__kwdefaults__["deadline"] = 1.0
"""
SILENT = """
import os, signal

def silence(guest, hub):
    hub.deadline = 1
    os.kill(guest.machine.pid, signal.SIGSTOP)

def test_silent(init, guest, hub):
    silence(guest, hub)
    init.getpid()

def test_silent_while_it_is_tidied_up(init, guest, hub): silence(guest, hub)
def test_next(init): assert init.getpid() == init.pid
"""


@pytest.mark.on_vm
def test_a_machine_that_stands_still_is_no_failure_of_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(SILENT_CONFTEST)
    status, output, record = run_tests(tmp_path, SILENT)
    found = {(result["test"].rpartition("::")[2], result["verdict"]) for result in record["results"]}
    assert found == {
        ("test_silent", "harness error"),
        ("test_silent_while_it_is_tidied_up", "harness error"),
        ("test_next", "passed"),
    }, output
    assert "query-status" in next(each["reason"] for each in record["results"] if "tidied" in each["test"])
    assert status == ExitCode.HARNESS_FAILED == record["exit_status"]

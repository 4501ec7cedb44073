# SPDX-License-Identifier: BSD-2-Clause
"""Options are tried from the command line, where they are wired: run, pytest and children mean the same by them."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from testkernel import build_kernel

from harness.bisect.question import Question
from harness.cli import main
from harness.config import HOME_VARIABLE, share
from harness.errors import ExitCode, UsageError
from harness.guests.options import TargetOptions
from harness.guests.targets import ResolvedTarget, TargetChoice, decide
from harness.images.base import BaseImage
from harness.kernels.artefact import Kernel, import_kernel
from harness.machine.description import Accelerator
from harness.options import PYTEST_PREFIX
from harness.plugin.status import exit_status
from harness.processes.connection import await_true
from harness.results.record import read_record
from harness.results.verdict import Verdict
from harness.runs.options import RunOptions
from harness.runs.order import Order
from harness.runs.suite import PytestWords, find_tests, suite_names
from harness.store import Store

CLI = (sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())")
PASSES = "def test_one(init):\n    assert init.getpid() == init.pid\n"
FAILS = (
    "import pytest\n@pytest.mark.parametrize('n', range(4))\ndef test_one(init, n):\n    assert init.getpid() == -1\n"
)


def run(*words: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [*CLI, *map(str, words)], capture_output=True, text=True, check=False, timeout=240, cwd=cwd or share(),
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    folder = tmp_path / "tests"
    folder.mkdir()
    return folder


# ---- What is wired -----------------------------------------------------------------------------------------------


def test_auto_workers_are_as_many_as_memory_allows(tests: Path) -> None:
    (tests / "test_it.py").write_text("def test_one():\n    pass\n")
    argv = [sys.executable, "-m", "pytest", "-p", "harness.plugin.entry", "-n", "auto", "-v", str(tests)]
    argv += [f"--rootdir={tests}", "--dfly-memory=100000000", "-p", "no:cacheprovider"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tests, timeout=120)
    assert "created: 1/1 worker" in done.stdout, done.stdout


def test_a_run_keeps_which_tests_have_failed_but_not_all_there_have_ever_been(
    tests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "store"))
    known = Store().cache / "pytest" / "v" / "cache" / "nodeids"
    (tests / "test_inner.py").write_text(PASSES + "def test_two():\n    assert 0\n")
    assert run("run", "--oracle", tests).returncode == ExitCode.TEST_FAILED
    assert not known.exists()
    again = run("run", "--oracle", "--new-first", "--last-failed", tests).stdout
    assert "1 failed, 1 deselected" in again or "1 failed in" in again, again
    assert "test_two" in known.read_text()
    assert run("run", "--oracle", "--last-failed", tests).returncode == ExitCode.TEST_FAILED
    assert json.loads(known.read_text()) == []


def test_defects_are_collected_where_nothing_else_is_named() -> None:
    for words, there in ((["--defects"], True), ([], False)):
        done = run("run", "--oracle", *words, "--co", "-q")
        assert ("suites/regressions/test_known_defects.py::" in done.stdout) is there, done.stdout[-2000:]


def test_pytests_own_options_keep_their_values_and_their_abbreviations(tests: Path, tmp_path: Path) -> None:
    (tests / "test_it.py").write_text(FAILS)
    junit = tmp_path / "r.xml"
    words = ("--junitxml", junit, "--maxfail", "1", "-m", "not on_vm", "--tb", "short", "--co", "-q")
    done = run("run", "--oracle", tests, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("test_one[") == 4  # only collected: --co is pytest's, not the beginning of --cold
    assert run("run", "--oracle", tests, *words[:-2]).returncode == 1
    assert junit.read_text().count("<testcase") == 1


def test_a_suites_own_options_keep_their_values_too() -> None:
    done = run("run", "lockstep", "--dfly-calls", "5", "--co", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_lockstep.py::" in done.stdout
    lost = run("run", "lockstep", "no_such_test.py", "--dfly-calls", "5", "--co", "-q")
    assert lost.returncode == 2
    assert "no test no_such_test.py" in lost.stdout + lost.stderr


def test_help_says_that_other_options_go_to_pytest() -> None:
    done = run("run", "--help")
    assert "other options go to pytest" in " ".join(done.stdout.split())


def test_pytest_htmls_option_clashes_with_none_of_ours(tests: Path) -> None:
    (tests / "test_it.py").write_text("def test_one():\n    pass\n")
    names = ("html", "json", "record", "image", "kernel", "memory", "live", "target", "lane", "hold")
    (tests / "html_plugin.py").write_text(
        f"def pytest_addoption(parser):\n    for name in {names}:\n        parser.addoption('--' + name)\n"
    )
    argv = [sys.executable, "-m", "pytest", "-p", "html_plugin", "-p", "harness.plugin.entry", "-q", str(tests)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, cwd=tests, env={**os.environ, "PYTHONPATH": str(tests)}
    )
    assert done.returncode == 0, done.stderr


def test_a_page_that_was_asked_for_is_made_of_the_oracles_run_too(tests: Path, tmp_path: Path) -> None:
    (tests / "test_it.py").write_text(PASSES)
    page = tmp_path / "run.html"
    assert run("run", "--oracle", tests, "--html", page).returncode == 0
    assert "ORACLE, NOT A KERNEL" in page.read_text()


def test_options_of_a_suite_have_our_prefix_too() -> None:
    argv = [sys.executable, "-m", "pytest", "suites/lockstep", "--help"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=share()).stdout
    ours = re.findall(r"^  --(\S+)", said.partition("lockstep: the oracle")[2].partition("\n\n")[0], re.MULTILINE)
    assert ours
    assert [name for name in ours if not name.startswith(PYTEST_PREFIX)] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory=1"], "at least 128 MiB"),
        (["--kenv=x"], "write NAME=VALUE"),
        (["--ssh-port=99999"], "no port number"),
        (["--control", "--kernel=k"], "--control is a target of its own"),
        (["--oracle", "--kernel=k"], "--oracle needs no machine"),
        (["--oracle", "--hold"], "--oracle has none"),
        (["--cold", "--lane=warped"], "leave out one of them"),
    ],
)
def test_pytest_refuses_what_run_refuses(tests: Path, words: list[str], said: str) -> None:
    (tests / "test_it.py").write_text(PASSES)
    prefixed = [word.replace("--", f"--{PYTEST_PREFIX}", 1) for word in words]
    argv = [sys.executable, "-m", "pytest", "-p", "harness.plugin.entry", str(tests), *prefixed]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tests)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert said in done.stderr
    refused = run("run", tests, *words)
    assert refused.returncode == ExitCode.USAGE
    assert said in refused.stderr.strip().splitlines()[-1]


def test_tests_after_the_oracle_are_no_variant(tests: Path) -> None:
    (tests / "test_it.py").write_text(PASSES)
    assert run("run", "--oracle", tests, "-q").returncode == 0
    argv = [sys.executable, "-m", "pytest", "-p", "harness.plugin.entry", "--dfly-oracle", str(tests)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tests)
    assert "put tests first, or write --dfly-oracle=" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("prefix", ["", PYTEST_PREFIX])
def test_options_say_on_a_childs_command_line_what_they_were_told(prefix: str) -> None:
    target = TargetOptions("i", "k", False, {"a": "b=c", "d": ""}, 768, 2, 4022, Accelerator.TCG, 3)
    resolved = ResolvedTarget(
        BaseImage("i", disk="1", ssh_key="2"), Kernel("k", elf="3", version="v"), False, {"a": "b"}
    )
    given = RunOptions(
        target, lane="warped", defects=True, any_era=True, invariants=True, repeat=3, no_again=True, record=True,
        pristine=True, order=Order("random", 7),
        dump_memory=Path("/core"), json=Path("/j"), html=Path("/h"), learn_control=True, live=bool(prefix),
        resolved=resolved if prefix else None, resume=Path("/r") if prefix else None,
    )  # fmt: skip
    parser = argparse.ArgumentParser()
    RunOptions.declare(parser.add_argument, prefix)
    assert RunOptions.read(parser.parse_args(given.words(prefix)), prefix) == given
    plain = RunOptions(TargetOptions(), oracle="")
    assert RunOptions.read(parser.parse_args(plain.words(prefix)), prefix) == plain


def test_a_bisections_question_is_asked_again_as_it_was(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    Question.declare(parser.add_argument, parser.add_argument, parser.add_argument)
    parser.add_argument("tests", nargs="*")
    words = ["--source", str(tmp_path), "--good", "a", "--good", "b", "--bad", "c", "--panic", "--patch", "/p",
             "--kenv", "x=y", "--flaky", "--pristine", "--", "conformance", "-k", "x"]  # fmt: skip
    given = parser.parse_args(words)
    question = Question.read(given, given.tests)
    again = parser.parse_args(list(question.words()))
    assert Question.read(again, again.tests) == question
    assert question.paths == (str(share() / "suites" / "conformance"),)
    assert question.pytest_options == ("-k", "x")
    assert question.pristine


def test_a_benchmark_is_bisected_on_machines_of_its_own_anyway(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    Question.declare(parser.add_argument, parser.add_argument, parser.add_argument)
    words = ["--source", str(tmp_path), "--good", "a", "--bad", "b", "--bench", "fork", "--bound", "1", "--pristine"]
    with pytest.raises(UsageError, match="--pristine is about tests"):
        Question.read(parser.parse_args(words), [])


# ---- Suites by name ----------------------------------------------------------------------------------------------


def test_suites_have_names_that_work_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suites = share() / "suites"
    assert {"conformance", "lockstep", "regressions"} <= set(suite_names())
    assert find_tests("conformance") == find_tests("suites/conformance") == str(suites / "conformance")
    assert find_tests("conformance/test_zombies.py::test_x") == f"{suites}/conformance/test_zombies.py::test_x"
    (tmp_path / "conformance").mkdir()
    assert find_tests("conformance") == "conformance"  # what is here goes first
    with pytest.raises(UsageError, match=r"no test nowhere: .*conformance"):
        find_tests("nowhere")


def test_a_suite_is_run_by_name_from_another_folder(tmp_path: Path) -> None:
    done = run("run", "conformance/test_sessions.py", "--oracle", "-q", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_options_value_is_no_test_even_where_a_suite_is_called_so() -> None:
    words = PytestWords.split(["regressions", "-k", "conformance", "--junitxml", "x.xml", "-x"])
    assert words.tests == (find_tests("regressions"),)
    assert words.options == ("-k", "conformance", "--junitxml", "x.xml", "-x")


@pytest.mark.parametrize("others", [[], ["conformance/test_jails.py"]])
def test_an_options_value_may_be_what_a_test_is_called(others: list[str]) -> None:
    test = "conformance/test_jails.py::test_a_jailed_root_makes_no_jail"
    words = PytestWords.split([test, *others, "--deselect", test])
    assert words.tests == tuple(map(find_tests, [test, *others]))
    assert words.options == ("--deselect", test)


def test_an_option_for_pytest_without_its_value_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^argument --deselect: expected one argument$"):
        PytestWords.split(["conformance", "--deselect"])


# ---- How a run ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pytests", "verdicts", "more", "status"),
    [
        (pytest.ExitCode.OK, [Verdict.PASSED], {}, 0),
        (pytest.ExitCode.TESTS_FAILED, [Verdict.FAILED, Verdict.GUEST_LOST], {}, 1),
        (pytest.ExitCode.TESTS_FAILED, [Verdict.GUEST_LOST], {}, 3),
        (pytest.ExitCode.TESTS_FAILED, [Verdict.TEST_ERROR, Verdict.PASSED], {}, 2),
        (pytest.ExitCode.TESTS_FAILED, [Verdict.TEST_ERROR, Verdict.GUEST_LOST], {}, 3),
        (pytest.ExitCode.INTERRUPTED, [Verdict.FAILED], {}, 1),  # -x with workers
        (pytest.ExitCode.INTERRUPTED, [Verdict.PASSED], {"signal": 2}, 130),
        (pytest.ExitCode.INTERRUPTED, [Verdict.FAILED], {"signal": 15}, 143),
        (pytest.ExitCode.INTERRUPTED, [], {"is_uncollected": True}, 2),
        (pytest.ExitCode.TESTS_FAILED, [Verdict.FAILED], {"is_uncollected": True}, 1),
        (pytest.ExitCode.INTERRUPTED, [Verdict.PASSED], {}, 3),
        (pytest.ExitCode.OK, [Verdict.PASSED], {"trouble": Verdict.HARNESS_ERROR}, 3),
        (pytest.ExitCode.TESTS_FAILED, [Verdict.HARNESS_ERROR], {"trouble": Verdict.HARNESS_ERROR}, 3),
        (pytest.ExitCode.TESTS_FAILED, [Verdict.FAILED], {"trouble": Verdict.HARNESS_ERROR}, 1),  # seen is seen
        (pytest.ExitCode.TESTS_FAILED, [Verdict.BOOT_FAILURE], {"trouble": Verdict.BOOT_FAILURE}, 1),
        (pytest.ExitCode.INTERRUPTED, [Verdict.BOOT_FAILURE], {"trouble": Verdict.BOOT_FAILURE}, 1),  # workers
        (pytest.ExitCode.INTERRUPTED, [Verdict.BOOT_FAILURE], {"trouble": Verdict.BOOT_FAILURE, "signal": 2}, 130),
        (pytest.ExitCode.INTERNAL_ERROR, [], {}, 3),
        (pytest.ExitCode.USAGE_ERROR, [], {}, 2),
        (pytest.ExitCode.NO_TESTS_COLLECTED, [], {}, 2),
    ],
)
def test_one_table_says_how_a_run_ends(
    pytests: int, verdicts: list[Verdict], more: dict[str, Any], status: int
) -> None:
    assert exit_status(pytests, verdicts, **more) == status


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("stop", [["-x"], ["--maxfail=1"]])
def test_a_run_that_stops_at_a_failure_has_failed(tests: Path, tmp_path: Path, workers: str, stop: list[str]) -> None:
    (tests / "test_it.py").write_text(FAILS)
    done = run("run", "--oracle", tests, "-n", workers, *stop, "--json", tmp_path / "r.json")
    assert done.returncode == 1 == read_record(tmp_path / "r.json").exit_status, done.stdout
    assert "interrupted" not in done.stderr


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_test_file_that_does_not_load_is_a_mistake_not_an_interruption(
    tests: Path, tmp_path: Path, workers: str
) -> None:
    (tests / "test_it.py").write_text("import nothing_of_that_name\n")
    done = run("run", "--oracle", tests, "-n", workers, "--json", tmp_path / "r.json")
    assert done.returncode == ExitCode.USAGE == read_record(tmp_path / "r.json").exit_status, done.stdout
    assert "nothing_of_that_name" in done.stdout
    assert "interrupted" not in done.stderr


def test_a_run_without_a_test_says_so_and_leaves_a_record_where_one_was_asked_for(tests: Path, tmp_path: Path) -> None:
    (tests / "test_it.py").write_text(PASSES)
    done = run("run", "--oracle", tests, "-k", "nothing", "--json", tmp_path / "r.json")
    assert done.returncode == ExitCode.USAGE
    record = read_record(tmp_path / "r.json")
    assert record.trouble is not None
    assert record.trouble.text == "no test matches"


WAITS = """
import pathlib, pytest, time

@pytest.mark.parametrize("n", range(2))
def test_one(n):
    (pathlib.Path(__file__).parent / f"there-{n}").touch()
    time.sleep(60)
"""


@pytest.fixture
def with_a_kernel(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store with an image on which nothing is, and a kernel."""
    store = Store(tmp_path / "store")
    (tmp_path / "disk").write_bytes(b"none")
    with store.adding():
        blob = store.add_blob(tmp_path / "disk")
        store.put(BaseImage(name="none", disk=blob, ssh_key=blob, root="ufs:vbd0"))
    import_kernel(store, "k", build_kernel(tmp_path_factory.mktemp("kernel")))
    return store


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_interrupted_run_leaves_a_record_that_knows_its_target(
    tests: Path, tmp_path: Path, with_a_kernel: Store, workers: str, number: signal.Signals
) -> None:
    (tests / "test_it.py").write_text(WAITS)
    argv = [*CLI, "run", "--kernel", "k", str(tests), "-n", workers, "--json", str(tmp_path / "r.json")]
    environment = {**os.environ, "DFLY_HARNESS_HOME": str(with_a_kernel.home)}
    with subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd=share()
    ) as child:
        await_true(lambda: any(tests.glob("there-*")), "the first test to begin", 60)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 128 + number, said
    record = read_record(tmp_path / "r.json")
    assert record.exit_status == 128 + number
    assert record.is_dragonfly
    assert record.target.startswith("DragonFly: kernel k (")
    assert "Traceback" not in said.decode()


def test_what_was_resolved_is_handed_on_whatever_is_imported_meanwhile(with_a_kernel: Store, tmp_path: Path) -> None:
    resolved = decide(TargetChoice(), with_a_kernel)
    time.sleep(0.01)
    import_kernel(with_a_kernel, "newer", build_kernel(tmp_path), imported="2999-01-01")
    assert decide(TargetChoice(), with_a_kernel).kernel != resolved.kernel
    again = ResolvedTarget.from_text(resolved.to_text())
    assert again == resolved
    assert "kernel k (" in again.open(with_a_kernel).label
    with pytest.raises(UsageError, match="for the harness itself"):
        ResolvedTarget.from_text("{}")


# ---- Listings ----------------------------------------------------------------------------------------------------


def test_a_listing_has_whole_lines_where_no_terminal_is(with_a_kernel: Store) -> None:
    version = "DragonFly v9.9.9.1234.g0123456789abcdef-DEVELOPMENT #0: Thu Jan 01 00:00:00 UTC 2026 " + "x" * 200
    with_a_kernel.put(Kernel("long", elf="0" * 64, version=version))
    home = str(with_a_kernel.home)
    done = run("kernel", "list", DFLY_HARNESS_HOME=home)
    assert any(line.startswith("long ") and line.endswith(version) for line in done.stdout.splitlines()), done.stdout
    assert not any(line.endswith(" ") for line in done.stdout.splitlines())
    for kind, name in (("kernel", "long"), ("image", "none")):
        listed = json.loads(run(kind, "list", "--json", DFLY_HARNESS_HOME=home).stdout)
        assert name in {each["name"] for each in listed}
    assert "6.4.2" in {each["release"] for each in json.loads(run("image", "releases", "--json").stdout)}


# ---- bisect --resume ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["--source", "."], "--source"),
        (["--good", "x", "--panic"], "--good, --panic"),
        (["--fresh"], "--fresh"),
        (["--memory", "1024"], "--memory"),
        (["--", "conformance"], "--tests"),
    ],
)
def test_resume_refuses_what_it_would_drop(
    words: list[str], refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path))
    assert main(["bisect", "--resume", *words]) == ExitCode.USAGE
    assert f"leave out {refused}" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--jobs", "3"], ["--confidence", "0.7"], ["--retry"], ["--explain"]])
def test_resume_takes_what_it_honours(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path))
    assert main(["bisect", "--resume", *words]) == ExitCode.USAGE
    assert "there is no bisection to go on with" in capsys.readouterr().err

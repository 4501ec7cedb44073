# SPDX-License-Identifier: BSD-2-Clause
"""Kernels with one fault each: what becomes of a fault, what is kept of it, and how faults are counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from testkernel import build_kernel

from harness.cli import main
from harness.coverage.code import Code, Line
from harness.coverage.map import CoverageMap, Reach
from harness.coverage.mutants import Mutant, mutants_of
from harness.errors import HarnessError, UsageError
from harness.guests.options import TargetOptions
from harness.kernels.artefact import Kernel
from harness.kernels.source import open_source
from harness.mutation.campaign import Campaign, Subject, declare, read_equivalents, spread
from harness.results.mutation import Fate, MutantResult, append, read_results, score
from harness.results.record import RunRecord, TestResult, Trouble
from harness.results.verdict import Verdict
from harness.runs.runner import Run, SuiteRunner
from harness.store import Store

PATH = "sys/kern/kern_proc.c"
TEXT = b"""\
int
run(int a)
{
	if (a == 1)
		return (0);
	other(a);
	return (a);
}

int
never(int a)
{
	return (a + 1);
}
"""
#: Two tests run run(); never() is never run.
LINES = (Line(PATH, 3, "run"), Line(PATH, 4, "run"), Line(PATH, 6, "run"), Line(PATH, 7, "run"), Line(PATH, 8, "run"),
         Line(PATH, 12, "never"), Line(PATH, 13, "never"), Line(PATH, 14, "never"))  # fmt: skip
TESTS = ("suites/conformance/test_wait.py::a", "suites/conformance/test_wait.py::b")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    file = tmp_path / "tree" / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(TEXT)
    return tmp_path / "tree"


def a_map() -> CoverageMap:
    hits = np.array([line.function == "run" for line in LINES])
    return CoverageMap("k", "kernel k", (PATH,), Code(LINES, (), (), (), ()), {t: Reach(hits, 1.0) for t in TESTS})


def a_campaign(store: Store, tree: Path, command: str, folder: Path, **equivalents: str) -> Campaign:
    """Return a campaign on TREE, whose kernels COMMAND makes."""
    image: Any = None  # no machine is started
    subject = Subject(open_source(store, tree), PATH, TEXT, a_map(), image, TargetOptions(), command)
    return Campaign(subject, store, folder / "campaign.jsonl", equivalents)


def judge(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Sequence[str]], Run]) -> list[tuple[str, ...]]:
    """Let each run of tests come to what ANSWER says; return which tests ran, run by run."""
    ran: list[tuple[str, ...]] = []

    def run(self: SuiteRunner, arguments: Sequence[str], seed: int, record: Path) -> Run:
        del self, seed, record
        ran.append(tuple(word for word in arguments if "::" in word))
        return answer(ran[-1])

    monkeypatch.setattr(SuiteRunner, "run", run)
    return ran


def a_run(*verdicts: Verdict, **more: Any) -> Run:
    results = tuple(TestResult(test, verdict) for test, verdict in zip(TESTS, verdicts, strict=False))
    return Run(RunRecord("t", is_dragonfly=True, results=results), **more)


def fault(function: str, what: str) -> Mutant:
    return next(each for each in mutants_of(PATH, TEXT) if (each.function, each.what) == (function, what))


@pytest.fixture
def builds(tmp_path: Path) -> str:
    """Return a command that makes another kernel of some faults, the same of most, and none of a negated condition."""
    right, wrong = (build_kernel(tmp_path / "cache", program=name) for name in ("measured.c", "kernel.c"))
    script = tmp_path / "build.py"
    script.write_text(
        "import shutil, sys\nfrom pathlib import Path\n"
        "text = Path(sys.argv[1]).read_bytes()\n"
        "if b'(!(' in text: sys.exit('kern_proc.c:4: error: no such condition')\n"
        f"wrong = b'other' not in text or b'!=' in text or b'a - 1' in text\n"
        f"shutil.copyfile({str(wrong)!r} if wrong else {str(right)!r}, sys.argv[2])\n"
    )
    return f"python3 {script} {{file}} {{output}}"


class TestFates:
    """What becomes of one fault."""

    def one(self, campaign: Campaign, mutant: Mutant) -> MutantResult:
        (result,) = campaign.run([mutant], workers=1, until=float("inf"))
        assert read_results(campaign.file) == {mutant.name: result}
        return result

    def test_the_first_test_that_fails_has_caught_it(
        self, store: Store, tree: Path, builds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ran = judge(monkeypatch, lambda _: a_run(Verdict.PASSED, Verdict.FAILED))
        result = self.one(a_campaign(store, tree, builds, tmp_path), fault("run", "the call of other is left out"))
        assert (result.fate, result.test, result.reaching) == (Fate.CAUGHT, TESTS[1], 2)
        assert [[word.rpartition("/")[2] for word in words] for words in ran] == [
            ["test_wait.py::a", "test_wait.py::b"]
        ]
        assert not [kernel for kernel in store.all(Kernel) if kernel.name.startswith("mutant-")]

    def test_one_that_all_tests_pass_has_survived(
        self, store: Store, tree: Path, builds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge(monkeypatch, lambda _: a_run(Verdict.PASSED, Verdict.PASSED))
        result = self.one(a_campaign(store, tree, builds, tmp_path), fault("run", "`==` becomes `!=`"))
        assert (result.fate, result.tried, result.reaching) == (Fate.SURVIVED, 2, 2)

    def test_where_not_all_tests_ran_those_about_the_function_follow(
        self, store: Store, tree: Path, builds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[list[str]] = []

        def run(self: SuiteRunner, arguments: Sequence[str], seed: int, record: Path) -> Run:
            del self, seed, record
            told.append([word for word in arguments if "::" in word or "function" in word])
            if "::" in told[-1][0]:
                return a_run(Verdict.PASSED)
            return Run(RunRecord("t", is_dragonfly=True, results=(TestResult("about.py::it", Verdict.FAILED),)))

        monkeypatch.setattr(SuiteRunner, "run", run)
        campaign = a_campaign(store, tree, builds, tmp_path)
        campaign.subject = replace(campaign.subject, most_tests=1)
        result = self.one(campaign, fault("run", "the call of other is left out"))
        assert (result.fate, result.test, result.tried, result.reaching) == (Fate.CAUGHT, "about.py::it", 1, 2)
        assert [len(words) for words in told] == [1, 1]
        assert told[1] == ["--dfly-function=run"]

    def test_a_kernel_that_does_not_boot_is_caught(
        self, store: Store, tree: Path, builds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        died = Trouble(Verdict.BOOT_FAILURE, "it does not come up", Verdict.PANIC)
        judge(monkeypatch, lambda _: a_run(said=str(died), trouble=died))
        result = self.one(a_campaign(store, tree, builds, tmp_path), fault("run", "`==` becomes `!=`"))
        assert (result.fate, result.fate.is_caught) == (Fate.NO_BOOT, True)

    def test_of_one_whose_run_was_lost_nothing_is_known(
        self, store: Store, tree: Path, builds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge(monkeypatch, lambda _: a_run(Verdict.PASSED, said="the disk is full"))
        result = self.one(a_campaign(store, tree, builds, tmp_path), fault("run", "`==` becomes `!=`"))
        assert (result.fate, result.fate.counts, result.reason) == (Fate.LOST, False, "the disk is full")

    def test_what_no_test_runs_is_tried_all_the_same(
        self, store: Store, tree: Path, builds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may not boot: that is noticed."""
        died = Trouble(Verdict.BOOT_FAILURE, "it does not come up", Verdict.PANIC)
        answers = [a_run(said=str(died), trouble=died), a_run(Verdict.PASSED, Verdict.PASSED)]
        judge(monkeypatch, lambda _: answers.pop(0))
        mutant = fault("never", "`+` becomes `-`")
        first, second = (
            self.one(a_campaign(store, tree, builds, tmp_path / name), mutant) for name in ("cache", "tree")
        )
        assert (first.fate, first.reaching) == (Fate.NO_BOOT, 0)
        assert (second.fate, second.reaching) == (Fate.UNREACHED, 0)

    def test_what_needs_no_machine(self, store: Store, tree: Path, builds: str, tmp_path: Path) -> None:
        same = fault("run", "`1` becomes `0`")
        campaign = a_campaign(store, tree, builds, tmp_path, **{same.name: "because"})
        assert self.one(campaign, same).reason == "because"
        campaign = a_campaign(store, tree, builds, tmp_path / "tree")
        assert self.one(campaign, same).fate is Fate.SAME_CODE
        (result,) = campaign.run([fault("run", "a condition is negated")], workers=2, until=float("inf"))
        assert (result.fate, result.reason.endswith("no such condition")) == (Fate.NO_BUILD, True)

    def test_sources_that_do_not_build_at_all_are_no_fault(self, store: Store, tree: Path, tmp_path: Path) -> None:
        campaign = a_campaign(store, tree, "false {file} {output}", tmp_path)
        with pytest.raises(HarnessError, match="do not build without any fault"):
            campaign.run([fault("run", "`1` becomes `0`")], workers=1, until=float("inf"))

    def test_there_is_one_command_at_it(
        self, store: Store, tree: Path, builds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        campaign = a_campaign(store, tree, builds, tmp_path)
        mutant = fault("run", "`==` becomes `!=`")

        def meanwhile(tests: Sequence[str]) -> Run:
            del tests
            with pytest.raises(UsageError, match="under way in another command"):
                a_campaign(store, tree, builds, tmp_path).run([mutant], workers=1, until=float("inf"))
            return a_run(Verdict.FAILED)

        judge(monkeypatch, meanwhile)
        assert self.one(campaign, mutant).fate is Fate.CAUGHT

    def test_a_budget_that_is_spent_ends_it(self, store: Store, tree: Path, builds: str, tmp_path: Path) -> None:
        assert a_campaign(store, tree, builds, tmp_path).run(mutants_of(PATH, TEXT), workers=1, until=0.0) == []


class TestCounting:
    """What is kept, and what it comes to."""

    def result(self, name: str, fate: Fate) -> MutantResult:
        return MutantResult(name, PATH, "run", 4, "x", fate)

    def test_a_score_is_about_faults_that_say_something(self) -> None:
        fates = (
            Fate.CAUGHT,
            Fate.NO_BOOT,
            Fate.SURVIVED,
            Fate.UNREACHED,
            Fate.EQUIVALENT,
            Fate.SAME_CODE,
            Fate.NO_BUILD,
        )
        found = score(self.result(str(number), fate) for number, fate in enumerate(fates))
        assert (found.caught, found.counted) == (2, 4)
        assert str(found).startswith("2 of 4 faults caught (50.0%)")

    def test_a_line_that_was_cut_off_is_tried_again(self, tmp_path: Path) -> None:
        file = tmp_path / "campaign.jsonl"
        append(file, self.result("a", Fate.CAUGHT))
        append(file, self.result("b", Fate.LOST))
        append(file, self.result("b", Fate.SURVIVED))
        file.write_text(file.read_text() + '{"name": "c", "fi')
        assert {name: each.fate for name, each in read_results(file).items()} == {"a": Fate.CAUGHT, "b": Fate.SURVIVED}
        file.write_text("no campaign\n")
        with pytest.raises(UsageError, match="is no campaign"):
            read_results(file)

    def test_faults_are_spread_over_the_file(self) -> None:
        found = mutants_of(PATH, TEXT)
        assert {each.function for each in spread(found, 3)} == {"run", "never"}
        assert spread(found, 0) == found

    def test_equivalence_needs_a_reason(self, tmp_path: Path) -> None:
        file = tmp_path / "equivalents.toml"
        mutant = fault("run", "`1` becomes `0`")
        declare(file, mutant, 'nobody "sees" it')
        assert read_equivalents([file, tmp_path / "none.toml"]) == {mutant.name: 'nobody "sees" it'}
        file.write_text("[abc]\nfunction = 'run'\n")
        with pytest.raises(UsageError, match="without a reason"):
            read_equivalents([file])


class TestCommand:
    """`mutate` from the command line."""

    def test_lists_and_declares(
        self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "home"))
        mutant = fault("run", "`==` becomes `!=`")
        assert main(["mutate", "--source", str(tree), "--list", "--function", "run"]) == 0
        shown = capsys.readouterr().out
        assert f"{mutant.name} run:4 `==` becomes `!=`: not tried yet" in shown
        assert "never" not in shown
        assert main(["mutate", "--source", str(tree), f"--declare={mutant.name}=no caller"]) == 0
        assert main(["mutate", "--source", str(tree), f"--declare={mutant.name}="]) == 2
        assert main(["mutate", "--source", str(tree), "--function", "gone"]) == 2
        said = capsys.readouterr().err
        assert "needs the reason" in said
        assert "has no function gone" in said

    def test_needs_a_dragonfly_target(
        self, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "home"))
        assert main(["mutate", "--source", str(tree), "--command", "true {file} {output}"]) == 2
        assert "needs a DragonFly image" in capsys.readouterr().err

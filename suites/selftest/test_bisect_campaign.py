# SPDX-License-Identifier: BSD-2-Clause
"""Bisections of real repositories in a laboratory that only reads: search, proof, resumption, and the command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from browser import WIDTHS, assert_readable, look, needs_browser
from testkernel import build_kernel as build_test_kernel

from harness.bisect.decision import Outcome, Trouble
from harness.bisect.gitlog import Said, read_log, write_log
from harness.bisect.inquiry import CULPRIT, PARENT
from harness.bisect.laboratory import Specimen
from harness.bisect.predicate import Bound, Predicate, Sighting
from harness.bisect.preview import check_tests, facts_of
from harness.bisect.quirks import TABLE, Needs, load_quirks, needs_of
from harness.bisect.repository import Repository
from harness.bisect.search import FAILS, IMPOSSIBLE, NO_LIMIT, Bisection, Budget
from harness.bisect.state import State
from harness.bisect.summary import report_of
from harness.cli import main
from harness.errors import DeadlineError, HarnessError, UsageError
from harness.guests.features import FEATURES, Change
from harness.images.base import BaseImage
from harness.kernels.source import KERN_PROC
from harness.report.bisection import bisection_page
from harness.results.bisection import HOLDS, BisectionReport
from harness.results.record import RunRecord
from harness.results.record import Trouble as RunTrouble
from harness.results.verdict import Verdict
from harness.runs.runner import Run
from harness.store import Store

BROKEN = "BROKEN"
GOOD, BAD, UNTESTABLE = Outcome.GOOD, Outcome.BAD, Outcome.UNTESTABLE
# Far enough from each other that each change reverts by itself.
APART = 8
LINES = "".join(f"line {number}\n" for number in range(60 * APART))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@dataclass
class Project:
    """A repository of kernel sources under test; `hashes` are its commits by subject."""

    folder: Path
    hashes: dict[str, str] = field(default_factory=dict)

    def git(self, *arguments: str) -> str:
        names = ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")
        dates = {"GIT_AUTHOR_DATE": "2020-02-03T00:00:00Z", "GIT_COMMITTER_DATE": "2020-02-03T00:00:00Z"}
        environment = {
            **os.environ, **dates, **{f"GIT_{name}": "someone@example.org" for name in names},
            "GIT_CONFIG_GLOBAL": os.devnull,
        }  # fmt: skip
        argv = ["git", "-C", str(self.folder), *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True, env=environment).stdout.strip()

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def commit(self, subject: str) -> str:
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", subject)
        self.hashes[subject] = self.git("rev-parse", "HEAD")
        return self.hashes[subject]

    def name(self, commit: str) -> str:
        return next((subject for subject, digest in self.hashes.items() if digest == commit), commit)


def project(folder: Path, size: int, culprit: int, *, files: Mapping[int, str] = {}) -> Project:
    """Make a project: commit N changes line N of a file; the culprit's line says BROKEN."""
    made = Project(folder)
    folder.mkdir()
    made.git("init", "-q", "-b", "main")
    lines = LINES.splitlines()
    made.write(KERN_PROC, "pfind(\n")
    made.write("sys/sys/param.h", "#define __DragonFly_version 500100\n")
    made.write("sys/kern/lines", LINES)
    made.commit("base")
    for number in range(size):
        if number in files:
            made.write(files[number], f"{number}\n")
        else:
            lines[number * APART] = BROKEN if number == culprit else f"changed {number}"
            made.write("sys/kern/lines", "\n".join(lines) + "\n")
        made.commit(f"change {number}")
    return made


@dataclass
class Reader:
    """A laboratory whose kernels are the sources: bad is what says BROKEN, as often as `pattern` has it."""

    repository: Repository
    untestable: Callable[[str], Trouble | None] = lambda _: None
    pattern: Sequence[bool] = (True,)
    prepared: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    stopped: bool = False

    def is_ready(self, commits: Sequence[str]) -> list[bool]:
        return [False] * len(commits)

    def prepare(self, commit: str, without: str | None = None) -> Specimen | Sighting | None:
        self.prepared.append(commit)
        if (trouble := self.untestable(commit)) is Trouble.BUILD:
            return Sighting(UNTESTABLE, trouble, "lines:1: error")
        source = self.repository.tree(commit) if without is None else self.repository.reverted(without, commit)
        if source is None:
            return None
        name = source.tree
        self.texts[name] = (source.read("sys/kern/lines") or b"").decode()
        return Specimen(name, f"{name} {commit if without is None else ''}", Needs(), True, 60.0)

    def run(self, specimen: Specimen, seed: int) -> Sighting:
        del seed
        commit = specimen.digest.partition(" ")[2]
        if commit and (trouble := self.untestable(commit)) is not None:
            return Sighting(UNTESTABLE, trouble, "something else", "t.py::test_other")
        count = self.counts[specimen.name] = self.counts.get(specimen.name, 0) + 1
        if BROKEN in self.texts[specimen.name] and self.pattern[count % len(self.pattern)]:
            return Sighting(BAD, None, "failed: it is broken", "t.py::test_it", "console: it is broken")
        return Sighting(GOOD)

    def stop(self) -> None:
        self.stopped = True


def bisection(
    made: Project,
    store: Store,
    *,
    needs: Sequence[str] = (),
    paths: Sequence[str] = (),
    jobs: int = 1,
    budget: Budget = NO_LIMIT,
    **how: object,
) -> tuple[Bisection, Reader]:
    repository = Repository(made.folder, store, paths, needs)
    laboratory = Reader(repository, **how)  # type: ignore[arg-type]
    scope = repository.range([made.hashes["base"]], "HEAD")
    state = State("key", (), str(made.folder), "a failure", scope, 0.95)
    return Bisection(
        state, store.folder("results", "bisect-key"), store, repository, laboratory, jobs=jobs, budget=budget
    ), laboratory


class TestSearch:
    """Search and proof."""

    @pytest.mark.parametrize("jobs", [1, 3])
    def test_the_culprit_is_found_and_proved(self, store: Store, tmp_path: Path, jobs: int) -> None:
        made = project(tmp_path / "repo", 40, 17)
        running, _ = bisection(made, store, jobs=jobs)
        said: list[str] = []
        running._progress = said.append
        found = running.run()
        assert sum(line.endswith("search: running") for line in said) >= 3  # what takes minutes is announced
        assert [made.name(commit) for commit in found.commits] == ["change 17"]
        assert found.probability >= 0.95
        assert running.inquiry.is_decided
        assert running.state.proved
        assert list(running.state.proof.values()) == [HOLDS] * 3
        searched = [each for each in running.state.observations if each.role == "search"]
        narrowed = 6 if jobs == 1 else 12
        assert len({each.commit for each in searched}) <= narrowed

    def test_a_flaky_failure_is_found_by_repeating(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 20, 11)
        running, _ = bisection(made, store, pattern=(True, False, True, False, False))
        found = running.run()
        assert [made.name(commit) for commit in found.commits] == ["change 11"]
        assert 0.25 < running.knowledge.failure_rate < 0.6
        # Luck is not taken for health: neither the parent nor the tip without the culprit was run only once.
        for role in ("parent", "revert"):
            runs = [each for each in running.state.observations if each.role in {role, "search"}]
            parent = made.hashes["change 10"] if role == "parent" else made.hashes["change 19"]
            assert sum(each.commit == parent for each in runs) >= 4

    def test_untestable_commits_are_worked_around_and_told_apart(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 30, 14)
        troubles = {"change 13": Trouble.BUILD, "change 14": Trouble.BUILD, "change 15": Trouble.NOT_APPLICABLE}
        running, _ = bisection(made, store, untestable=lambda commit: troubles.get(made.name(commit)))
        found = running.run()
        assert [made.name(commit) for commit in found.commits] == [f"change {number}" for number in range(13, 17)]
        data = report_of(running, running._repository)
        assert BisectionReport.from_json(json.loads(json.dumps(data.to_json()))) == data
        assert [[made.name(commit) for commit in stretch] for stretch in data.stretches] == [
            ["change 13", "change 14", "change 15"]
        ]
        page = bisection_page(data)
        assert Trouble.BUILD in page
        assert Trouble.NOT_APPLICABLE in page

    def test_commits_that_leave_the_kernel_alone_are_no_experiment(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 32, 9, files={number: f"doc/{number}" for number in range(32) if number % 3})
        running, laboratory = bisection(made, store, needs=["sys"])
        assert [made.name(commit) for commit in running.run().commits] == ["change 9"]
        searched = {each.commit for each in running.state.observations if each.role == "search"}
        assert len(searched) <= 4  # of eleven kernels
        assert all(chance == 0 for commit, chance in running.knowledge.posterior.items()
                   if int(made.name(commit).split()[1]) % 3)  # fmt: skip
        assert set(laboratory.texts)

    def test_merges_are_handled_as_git_does(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 6, -1)
        made.git("checkout", "-q", "-b", "side", made.hashes["change 2"])
        for number in range(3):
            made.write("sys/kern/lines", LINES.replace("line 400\n", BROKEN + "\n") if number else LINES)
            made.commit(f"side {number}")
        made.git("checkout", "-q", "main")
        made.git("merge", "-q", "-X", "theirs", "--no-edit", "side")
        made.commit("after")
        running, _ = bisection(made, store)
        assert [made.name(commit) for commit in running.run().commits] == ["side 1"]

    def test_a_good_end_that_is_bad_is_said(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 8, -1)
        lines = LINES.replace("line 59\n", BROKEN + "\n")
        made.git("checkout", "-q", "--orphan", "other")
        made.write("sys/kern/lines", lines)
        made.hashes["base"] = made.commit("broken base")
        made.write("sys/kern/lines", lines + "more\n")
        made.commit("more")
        running, _ = bisection(made, store)
        with pytest.raises(HarnessError, match="the commit sought is older"):
            running.run()

    def test_a_culprit_that_does_not_revert_is_said_to_be_so(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 12, 5)
        made.write("sys/kern/lines", (made.folder / "sys/kern/lines").read_text().replace(BROKEN, f"{BROKEN} again"))
        made.commit("on top")
        running, _ = bisection(made, store)
        running.run()
        assert [said.partition(":")[0] for said in running.state.proof.values()] == [HOLDS, HOLDS, IMPOSSIBLE]
        assert running.state.proved

    def test_a_second_cause_is_seen_when_the_first_is_reverted(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 12, 5)
        made.write("sys/kern/lines", (made.folder / "sys/kern/lines").read_text() + BROKEN + "\n")
        made.commit("another")
        running, _ = bisection(made, store)
        assert [made.name(commit) for commit in running.run().commits] == ["change 5"]
        assert list(running.state.proof.values())[-1].startswith(FAILS)
        assert not running.state.proved

    def test_kernels_that_are_the_same_by_their_bytes_are_one(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 16, 12)
        running, laboratory = bisection(made, store)
        real = laboratory.prepare

        def prepare(commit: str, without: str | None = None) -> Specimen | Sighting | None:
            found = real(commit, without)
            assert isinstance(found, Specimen)
            # All good commits make one and the same kernel.
            digest = found.digest if BROKEN in laboratory.texts[found.name] else "the same"
            return Specimen(found.name, digest, found.needs, found.built, found.seconds)

        laboratory.prepare = prepare  # type: ignore[method-assign]
        assert [made.name(commit) for commit in running.run().commits] == ["change 12"]
        assert sum(each.kernel == "the same" and each.built for each in running.state.observations) == 1


class TestTrouble:
    """What says nothing about any commit is never held against one, and nothing is concluded from nothing."""

    @pytest.mark.parametrize(
        ("trouble", "said"),
        [
            (Trouble.BUILD, "does not build, so nothing can be found out: lines:1: error"),
            (Trouble.BOOT, "does not boot, so nothing can be found out: something else"),
            (Trouble.NOT_APPLICABLE, "cannot run the tests, so nothing can be found out: something else"),
            (
                Trouble.OTHER_FAILURE,
                "cannot be tested, so nothing can be found out: something else; "
                ".*--failure REGEX; .*--deselect 't.py::test_other'",
            ),
        ],
    )
    @pytest.mark.parametrize("end", ["base", "change 9"])
    def test_both_ends_are_tried_before_anything_else(
        self, store: Store, tmp_path: Path, trouble: Trouble, said: str, end: str
    ) -> None:
        made = project(tmp_path / "repo", 10, 7)
        running, laboratory = bisection(
            made, store, untestable=lambda commit: trouble if made.name(commit) == end else None
        )
        name = "good end" if end == "base" else "bad end"
        with pytest.raises(HarnessError, match=f"the {name} {made.hashes[end][:12]} {said}") as caught:
            running.run()
        assert caught.value.exit_code == 3
        assert {made.name(commit) for commit in laboratory.prepared} <= {"base", "change 9"}
        # Once it is mended the same search goes on.
        laboratory.untestable = lambda _: None
        again = Bisection(State.load(running.folder), running.folder, store, running._repository, laboratory)
        assert [made.name(commit) for commit in again.run().commits] == ["change 7"]

    def test_trouble_of_the_host_gives_no_commit_up(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 20, 7)
        left = [4]
        running, laboratory = bisection(made, store)
        real = laboratory.run

        def run(specimen: Specimen, seed: int) -> Sighting:
            left[0] -= 1
            return Sighting(UNTESTABLE, Trouble.INFRASTRUCTURE, "disk full") if left[0] < 0 else real(specimen, seed)

        laboratory.run = run  # type: ignore[method-assign]
        with pytest.raises(HarnessError, match=r"the harness or the host failed .* --resume goes on"):
            running.run()
        state = State.load(running.folder)
        assert len(state.observations) == 4
        assert len(set(laboratory.prepared)) >= 6
        left[0] = 10**6
        again = Bisection(state, running.folder, store, running._repository, laboratory)
        assert not again.knowledge.untestable
        assert [made.name(commit) for commit in again.run().commits] == ["change 7"]

    def test_trouble_of_the_host_at_the_ends_is_not_theirs(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 20, 7)
        running, laboratory = bisection(made, store, untestable=lambda _: Trouble.INFRASTRUCTURE)
        with pytest.raises(HarnessError, match="the harness or the host failed 3 times in a row"):
            running.run()
        assert State.load(running.folder).observations == []
        assert {made.name(commit) for commit in laboratory.prepared} == {"base", "change 19"}

    @pytest.mark.parametrize("early", [True, False])
    def test_good_means_that_what_fails_elsewhere_ran(self, store: Store, tmp_path: Path, early: bool) -> None:
        made = project(tmp_path / "repo", 20, 11)
        running, laboratory = bisection(made, store)
        real = laboratory.run

        def run(specimen: Specimen, seed: int) -> Sighting:
            found = real(specimen, seed)
            number = made.name(specimen.digest.partition(" ")[2]).removeprefix("change ")
            skips = number.isdigit() and ((int(number) < 11) if early else int(number) in {9, 10})
            return replace(found, left_out=("t.py::test_it",)) if found.outcome is GOOD and skips else found

        laboratory.run = run  # type: ignore[method-assign]
        found = running.run()
        assert made.hashes["change 11"] in found.commits
        assert len(found.commits) == (12 if early else 3)
        assert not any(each.outcome is GOOD and each.left_out for each in running.state.observations)

    def test_the_proof_rests_on_runs_made_after_the_conclusion(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 16, 8)
        running, _ = bisection(made, store)
        running.run()
        (start,) = running.state.attempts
        assert (start.upper, start.lowers) == (made.hashes["change 8"], (made.hashes["change 7"],))
        # At most one in twenty is wrong: three of three against none of three, by runs that were not chosen for it.
        fresh = running.state.observations[start.after :]
        for commit, outcome in ((made.hashes["change 7"], GOOD), (made.hashes["change 8"], BAD)):
            assert sum((each.commit, each.outcome) == (commit, outcome) for each in fresh) >= 2
        assert sum(each.role in {CULPRIT, PARENT} for each in fresh) >= 5

    def test_the_budget_ends_it_with_the_best_answer_so_far(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 40, 23)
        running, laboratory = bisection(made, store, budget=Budget(runs=7))
        found = running.run()
        assert running.stopped == "the 7 runs allowed are made"
        assert not running.inquiry.is_decided
        assert made.hashes["change 23"] in running.knowledge.posterior
        assert found.probability < 0.95
        assert len(State.load(running.folder).observations) == 7
        assert not running.state.proved
        state = State.load(running.folder)
        again = Bisection(state, running.folder, store, running._repository, laboratory, budget=Budget(hours=1.0))
        assert [made.name(commit) for commit in again.run().commits] == ["change 23"]
        assert not again.stopped
        late = Bisection(
            replace(state, observations=[]),
            running.folder,
            store,
            running._repository,
            laboratory,
            budget=Budget(hours=0),
        )
        late.run()
        assert late.stopped == "the 0 hours allowed are over"

    def test_a_failure_that_never_shows_is_not_looked_for_without_end(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 5, -1)
        running, _ = bisection(made, store)
        running.inquiry.tested["elsewhere"] += 990
        with pytest.raises(HarnessError, match="the failure has not shown in any of 1000 runs"):
            running.run()


class TestMergeBase:
    """A good end on another branch, such as a release's tag."""

    @staticmethod
    def branched(made: Project, store: Store) -> tuple[Bisection, Reader]:
        made.git("checkout", "-q", "-b", "release", made.hashes["change 3"])
        made.write("sys/kern/lines", LINES)
        tag = made.commit("release")
        repository = Repository(made.folder, store)
        state = State("key", (), str(made.folder), "a failure", repository.range([tag], "main"), 0.95)
        laboratory = Reader(repository)
        return Bisection(state, store.folder("results", "bisect-key"), store, repository, laboratory), laboratory

    def test_where_the_branches_parted_is_tested_first(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 12, 7)
        running, laboratory = self.branched(made, store)
        assert [made.name(commit) for commit in running.run().commits] == ["change 7"]
        assert made.name(laboratory.prepared[0]) == "change 3"
        assert State.load(running.folder).scope.bases == (made.hashes["change 3"],)

    def test_a_failure_that_was_there_already_is_said(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 12, 2)
        running, laboratory = self.branched(made, store)
        with pytest.raises(
            HarnessError, match=r"the merge base .* is bad in \d of \d runs: the good one's branch mended it"
        ):
            running.run()
        assert {made.name(commit) for commit in laboratory.prepared} <= {"change 3", "change 11"}


class TestState:
    """What is remembered."""

    def test_an_interrupted_search_goes_on_where_it_was(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # What the runs cost decides which comes next, and must be the same in both searches.
        monkeypatch.setattr(
            "harness.bisect.search._timed", lambda laboratory, specimen, seed: (laboratory.run(specimen, seed), 0.0)
        )
        made = project(tmp_path / "repo", 40, 23)
        whole, _ = bisection(made, store)
        whole.run()
        expected = [(each.commit, each.outcome) for each in whole.state.observations]
        running, laboratory = bisection(made, store)
        real, left = laboratory.run, [3]

        def run(specimen: Specimen, seed: int) -> Sighting:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(specimen, seed)

        laboratory.run = run  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            running.run()
        assert laboratory.stopped
        state = State.load(running.folder)
        assert [(each.commit, each.outcome) for each in state.observations] == expected[:3]
        again = Bisection(state, running.folder, store, running._repository, Reader(running._repository))
        assert again.run() == whole.inquiry.conclude()
        assert [(each.commit, each.outcome) for each in again.state.observations] == expected

    def test_a_log_of_git_bisect_goes_in_and_out(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 20, 8)
        running, _ = bisection(made, store)
        running.run()
        log = write_log(running.state, running._repository.subjects(list(made.hashes.values())))
        (tmp_path / "log").write_text(log)
        said = made.git("bisect", "replay", str(tmp_path / "log"))
        assert re.search(rf"{made.hashes['change 8']} is the first '?bad'? commit", said)  # newer gits quote the term
        made.git("bisect", "skip", made.hashes["change 3"])
        theirs = list(read_log(made.git("bisect", "log")))
        assert Said(UNTESTABLE, made.hashes["change 3"]) in theirs
        assert Said(BAD, made.hashes["change 8"]) in theirs

    def test_a_line_that_is_none_of_a_log(self) -> None:
        with pytest.raises(UsageError, match="line 2 is none of a bisect log"):
            list(read_log("# comment\nrm -rf /\n"))


class TestRange:
    """Which commits are in question."""

    def test_paths_limit_them(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 12, 5, files={3: "sys/vm/x", 7: "doc/y"})
        scope = Repository(made.folder, store, ["sys/vm", "doc"]).range([made.hashes["base"]], "HEAD")
        assert [made.name(commit) for commit in scope.history.commits] == ["change 3", "change 7"]

    @pytest.mark.parametrize(
        ("good", "bad", "said"),
        [
            ("HEAD", "base", "is no ancestor of"),
            ("HEAD", "HEAD", "there is no commit"),
            ("nothing", "HEAD", "has no revision 'nothing'"),
        ],
    )
    def test_ends_that_make_no_sense(self, store: Store, tmp_path: Path, good: str, bad: str, said: str) -> None:
        made = project(tmp_path / "repo", 3, 1)
        repository = Repository(made.folder, store)
        with pytest.raises(UsageError, match=said):
            repository.range([made.hashes.get(good, good)], made.hashes.get(bad, bad))

    def test_only_what_a_kernel_needs_is_handed_out(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 6, 5, files={2: "doc/y", 3: "share/mk/z", 4: "top"})
        repository = Repository(made.folder, store, needs=["sys/kern", "share/mk", "top", "missing"])
        source = repository.tree(made.git("rev-parse", "HEAD"))
        source.write_to(tmp_path / "out")
        files = sorted(
            str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()
        )
        assert files == ["share/mk/z", "sys/kern/kern_proc.c", "sys/kern/lines", "top"]
        commits = [made.hashes[f"change {number}"] for number in (1, 2)]
        trees = repository.trees(commits)
        assert trees[commits[0]] == trees[commits[1]]

    def test_what_a_kernel_needs_keeps_its_modes_and_links(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 2, 1)
        for path in ("run.sh", "sys/tools/run.sh"):
            made.write(path, "#!/bin/sh\n")
            (made.folder / path).chmod(0o755)
        for path, to in (("machine", "sys/kern"), ("sys/machine", "kern")):
            (made.folder / path).symlink_to(to)
        made.commit("modes")
        needs = ["run.sh", "machine", "sys/tools/run.sh", "sys/machine", "sys/kern"]
        for number, wanted in enumerate((needs, [*needs, "sys"])):
            out = tmp_path / f"out{number}"
            Repository(made.folder, store, needs=wanted).tree(made.hashes["modes"]).write_to(out)
            assert [os.access(out / path, os.X_OK) for path in (needs[0], needs[2], KERN_PROC)] == [True, True, False]
            assert [os.readlink(out / path) for path in ("machine", "sys/machine")] == ["sys/kern", "kern"]
            assert (out / "sys/sys").exists() == ("sys" in wanted)  # a folder is not reduced to what is named in it

    def test_a_branch_that_lacks_what_a_kernel_needs_is_searched_around(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 4, 3)
        made.git("checkout", "-q", "--orphan", "vendor")
        made.git("rm", "-rfq", ".")
        for number in range(2):
            made.write("contrib/tool.c", f"{number}\n")
            made.commit(f"vendor {number}")
        made.git("checkout", "-q", "main")
        made.git("merge", "-q", "--allow-unrelated-histories", "-m", "the merge", "vendor")
        running, _ = bisection(
            made, store, needs=["sys"],
            untestable=lambda commit: Trouble.BUILD if made.name(commit).startswith("vendor") else None,
        )  # fmt: skip
        assert [made.name(commit) for commit in running.run().commits] == ["change 3"]
        assert running.inquiry.is_decided
        with pytest.raises(UsageError, match=r"there is none of lib, usr in [0-9a-f]{12}"):
            Repository(made.folder, store, needs=["lib", "usr"]).range([made.hashes["base"]], "HEAD")

    def test_what_is_excluded_is_not_handed_out_and_makes_no_other_kernel(self, store: Store, tmp_path: Path) -> None:
        files = {
            1: "sys/dev/drm/amd/x.h",
            2: "sys/dev/drm/amd/deep/y.h",
            3: "sys/dev/drm/z.h",
            4: "doc/sys/dev/drm/amd",
        }
        made = project(tmp_path / "repo", 6, 5, files=files)
        repository = Repository(made.folder, store, exclude=["sys/dev/drm/amd"])
        repository.tree(made.git("rev-parse", "HEAD")).write_to(tmp_path / "out")
        out = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
        assert out == set(made.git("ls-files").splitlines()) - {files[1], files[2]}
        alike = repository.range([made.hashes["base"]], "HEAD").alike
        assert [made.name(commit) for commit, _ in alike] == ["change 1", "change 2"]
        both = Repository(made.folder, store, needs=["sys"], exclude=["sys/dev", "sys/sys/param.h"])
        assert both.tree(made.git("rev-parse", "HEAD")).changed_since(both.tree(made.hashes["change 4"]).tree) == {
            "sys/kern/lines": True
        }

    def test_what_is_excluded_need_not_be_there(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 3, 1, files={2: "sys/huge"})
        blob = made.git("rev-parse", "HEAD:sys/huge")
        (made.folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
        head = made.git("rev-parse", "HEAD")
        with pytest.raises(UsageError, match=r"lacks the contents of sys/huge \(a partial clone\?\)"):
            Repository(made.folder, store).tree(head).write_to(tmp_path / "out")
        source = Repository(made.folder, store, exclude=["sys/huge"]).tree(head)
        source.write_to(tmp_path / "less")
        assert (tmp_path / "less" / KERN_PROC).exists()

    def test_a_vendors_branch_has_nothing_of_what_a_kernel_is_built_from(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 3, 1, files={2: "sys/huge"})
        made.git("checkout", "-q", "--orphan", "vendor")
        made.git("rm", "-rfq", ".")
        made.write("contrib/thing.c", "int thing;\n")
        made.commit("somebody else's code")
        made.git("checkout", "-q", "main")
        made.git("merge", "-q", "--no-edit", "--allow-unrelated-histories", "-m", "the merge", "vendor")
        repository = Repository(made.folder, store, needs=["sys"], exclude=["sys/huge"])
        scope = repository.range([made.hashes["base"]], "HEAD")
        assert made.hashes["change 1"] in scope.history.commits

    def test_excluding_what_is_nowhere_is_an_error(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 3, 1)
        with pytest.raises(UsageError, match="there is no sys/hgue to exclude"):
            Repository(made.folder, store, exclude=["sys/hgue"]).range([made.hashes["base"]], "HEAD")

    def test_only_first_parents_are_followed_where_that_is_asked_for(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 6, -1)
        made.git("checkout", "-q", "-b", "side", made.hashes["change 2"])
        made.write("sys/kern/lines", LINES.replace("line 400\n", BROKEN + "\n"))
        made.commit("side 0")
        made.git("checkout", "-q", "main")
        made.git("merge", "-q", "--no-edit", "-m", "the merge", "side")
        made.hashes["merge"] = made.git("rev-parse", "HEAD")
        repository = Repository(made.folder, store, first_parent=True)
        scope = repository.range([made.hashes["base"]], "HEAD")
        assert "side 0" not in {made.name(commit) for commit in scope.history.commits}
        assert repository.parents(made.hashes["merge"]) == (made.hashes["change 5"],)
        state = State("key", (), str(made.folder), "a failure", scope, 0.95)
        folder = store.folder("results", "bisect-key")
        running = Bisection(state, folder, store, repository, Reader(repository))
        assert [made.name(commit) for commit in running.run().commits] == ["merge"]
        # Without the merge the bad end is the merge's parent: nothing is to be undone.
        assert [*state.proof.values()] == [HOLDS] * 2
        assert not any(" without " in said for said in state.proof)
        made.write("sys/kern/others", "after the merge\n")
        made.commit("after")
        scope = repository.range([made.hashes["base"]], "HEAD")
        state = State("another", (), str(made.folder), "a failure", scope, 0.95)
        running = Bisection(state, store.folder("results", "bisect-another"), store, repository, Reader(repository))
        assert [made.name(commit) for commit in running.run().commits] == ["merge"]
        # What the branch brought is undone as a whole.
        assert [*state.proof.values()] == [HOLDS] * 3


class TestPreview:
    """Whether the tests can tell anything is known before a kernel is built."""

    TESTS = """
import pytest

@pytest.mark.eras(since=500150, reason="came later")
def test_later(init):
    init.getpid()

@pytest.mark.feature("lwkt")
def test_lwkt(init):
    init.getpid()

@pytest.mark.eras(until=500200)
def test_both(init):
    init.getpid()

def test_without_kernel():
    pass
"""

    def check(self, folder: Path, store: Store, *options: str, any_era: bool = False) -> None:
        made = project(folder / "repo", 2, 1, files={0: "sys/sys/param.h"})
        made.write("sys/sys/param.h", "#define __DragonFly_version 500160\n")
        bad = made.commit("bump")
        (folder / "test_chosen.py").write_text(self.TESTS)
        ends = {made.hashes["base"]: "good", bad: "bad"}
        repository = Repository(made.folder, store)
        check_tests(store, repository, ends, [str(folder / "test_chosen.py")], options, any_era=any_era)

    @pytest.mark.parametrize("name", ["test_both", "test_without_kernel", "test_later or test_both"])
    def test_one_that_is_about_both_ends_will_do(self, store: Store, tmp_path: Path, name: str) -> None:
        self.check(tmp_path, store, "-k", name)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("test_later", "about the good end [0-9a-f]{12}, .* not applicable to 500100: came later: --any-era runs"),
            ("test_lwkt", r"about the good end [0-9a-f]{12}, .* this kernel has no lwkt \("),
        ],
    )
    def test_one_that_is_about_one_end_is_refused(self, store: Store, tmp_path: Path, name: str, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            self.check(tmp_path, store, "-k", name)

    def test_with_any_era_it_is_taken(self, store: Store, tmp_path: Path) -> None:
        self.check(tmp_path, store, "-k", "test_later", any_era=True)

    def test_no_test_is_said_before_anything_is_built(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no test matches"):
            self.check(tmp_path, store, "-k", "test_misspelt", any_era=True)

    def test_tests_that_cannot_be_collected(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "test_wrong.py").write_text("raise RuntimeError('wrong')\n")
        made = project(tmp_path / "repo", 1, 0)
        repository, ends = Repository(made.folder, store), {made.hashes["base"]: "good"}
        with pytest.raises(UsageError, match=r"cannot collect the tests: .*wrong"):
            check_tests(store, repository, ends, [str(tmp_path / "test_wrong.py")], [], any_era=False)

    def test_tests_that_cannot_be_collected_in_time_are_told(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "test_slow.py").write_text("import time\ntime.sleep(600)\n")
        made = project(tmp_path / "repo", 1, 0)
        repository, ends = Repository(made.folder, store), {made.hashes["base"]: "good"}
        monkeypatch.setattr("harness.bisect.preview._DEADLINE", 5.0)
        with pytest.raises(DeadlineError, match="waited 5 s for pytest to collect the tests"):
            check_tests(store, repository, ends, [str(tmp_path / "test_slow.py")], [], any_era=False)

    def test_features_are_known_by_ancestry_where_the_commit_is_there(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Version and date are the same before and after it.
        made = project(tmp_path / "repo", 4, 3)
        change = Change(made.hashes["change 2"], "2020-02-03", 500100, 500101)
        monkeypatch.setattr("harness.bisect.preview.FEATURES", {"lwkt": replace(FEATURES["lwkt"], begins=change)})
        repository = Repository(made.folder, store)
        found = [facts_of(made.hashes[f"change {number}"], repository).found["lwkt"] for number in range(4)]
        assert found == [False, False, True, True]


class TestPredicate:
    """What a run's record says."""

    @staticmethod
    def record(*results: Mapping[str, str]) -> Run:
        tests = [{"test": "t.py::test_a", **each} for each in results]
        return Run(RunRecord.from_json({"target": "k", "results": tests}))

    FAILED: Mapping[str, str] = {"outcome": "failed", "verdict": "failed", "reason": "E   assert 1 == 2"}
    PANIC: Mapping[str, str] = {"outcome": "failed", "verdict": "panic", "fingerprint": "page fault in cache_fullpath"}
    PASSED: Mapping[str, str] = {"outcome": "passed", "verdict": "passed"}
    SKIPPED: Mapping[str, str] = {"outcome": "skipped", "verdict": "not applicable", "reason": "Skipped: needs 5.3"}
    LOST: Mapping[str, str] = {"outcome": "failed", "verdict": "guest lost"}

    @pytest.mark.parametrize(
        ("predicate", "results", "outcome", "trouble"),
        [
            (Predicate(), [FAILED], BAD, None),
            (Predicate(), [PASSED, SKIPPED], GOOD, None),
            (Predicate(), [PASSED, FAILED], BAD, None),
            (Predicate(), [PANIC], UNTESTABLE, Trouble.OTHER_FAILURE),
            (Predicate(), [SKIPPED], UNTESTABLE, Trouble.NOT_APPLICABLE),
            (Predicate(), [PASSED, LOST], UNTESTABLE, Trouble.INFRASTRUCTURE),
            (Predicate(panic="cache_fullpath"), [PANIC], BAD, None),
            (Predicate(panic="exit1"), [PANIC], UNTESTABLE, Trouble.OTHER_FAILURE),
            (Predicate(panic=""), [FAILED], UNTESTABLE, Trouble.OTHER_FAILURE),
            (Predicate(failure="1 == 2"), [FAILED], BAD, None),
            (Predicate(failure="3 == 4"), [FAILED], UNTESTABLE, Trouble.OTHER_FAILURE),
            (Predicate(good_means_fail=True), [FAILED], GOOD, None),
            (Predicate(good_means_fail=True), [PASSED], BAD, None),
            (Predicate(good_means_fail=True), [PANIC], UNTESTABLE, Trouble.OTHER_FAILURE),
        ],
    )
    def test_what_records_mean(
        self, predicate: Predicate, results: list[Mapping[str, str]], outcome: Outcome, trouble: Trouble | None
    ) -> None:
        found = predicate.judge(self.record(*results))
        assert (found.outcome, found.trouble) == (outcome, trouble)

    @pytest.mark.parametrize(
        ("noted", "trouble"),
        [
            (RunTrouble(Verdict.BOOT_FAILURE, "waited 300 s for SSH, in vain", Verdict.FAILED), Trouble.BOOT),
            (RunTrouble(Verdict.BOOT_FAILURE, "the kernel panicked", Verdict.PANIC), Trouble.BOOT),
            (RunTrouble(Verdict.HARNESS_ERROR, "a file named panicked"), Trouble.INFRASTRUCTURE),
            (None, Trouble.INFRASTRUCTURE),
        ],
    )
    def test_a_run_without_results(self, noted: RunTrouble | None, trouble: Trouble) -> None:
        found = Predicate().judge(Run(None, "the kernel panicked, said the log", 3, noted))
        assert (found.outcome, found.trouble) == (UNTESTABLE, trouble)

    @pytest.mark.parametrize(
        ("bound", "value", "outcome"),
        [
            (Bound("fork", 100), 120, BAD),
            (Bound("fork", 100), 80, GOOD),
            (Bound("fork", 100, below=True), 80, BAD),
            (Bound("fork", 100, good_means_fail=True), 120, GOOD),
        ],
    )
    def test_a_benchmark_crosses_its_bound(self, bound: Bound, value: float, outcome: Outcome) -> None:
        assert bound.judge(value).outcome is outcome


@pytest.mark.parametrize(("option", "outcome"), [((), "skipped"), (("--dfly-any-era",), "passed")])
def test_a_promise_of_later_kernels_is_tried_on_older_ones_if_asked_for(
    tmp_path: Path, option: tuple[str, ...], outcome: str
) -> None:
    (tmp_path / "test_later.py").write_text(
        "import pytest\n@pytest.mark.eras(since=500000, reason='later')\ndef test_it(init):\n    init.getpid()\n"
    )
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "harness.plugin.entry", f"--rootdir={tmp_path}",
            "--dfly-oracle", "--dfly-json", "record.json", *option, "."]  # fmt: skip
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    (result,) = json.loads((tmp_path / "record.json").read_text())["results"]
    assert result["outcome"] == outcome, done.stdout


class TestQuirks:
    """The table of what old trees need."""

    def test_ranges_of_versions_and_of_revisions(self, store: Store, tmp_path: Path) -> None:
        made = project(tmp_path / "repo", 4, 3)
        table = tmp_path / "quirks.toml"
        table.write_text(
            f"""
            [[quirk]]
            name = "old"
            until = "{made.hashes["change 2"]}"
            cpus = 1
            kenv = {{ "hw.thing" = 0 }}
            [[quirk]]
            name = "new"
            since = "{made.hashes["change 2"]}"
            patches = ["fix.patch"]
            [[quirk]]
            name = "versioned"
            since = 500100
            until = 500200
            memory = 1024
            [[quirk]]
            name = "of another repository"
            until = "{"0" * 40}"
            cpus = 2
            """
        )
        quirks, repository = load_quirks(table), Repository(made.folder, store)
        early = needs_of(made.hashes["change 1"], quirks, repository)
        assert early.names == ("old", "versioned", "of another repository")
        assert (early.cpus, early.memory, early.kenv, early.patches) == (1, 1024, {"hw.thing": "0"}, ())
        late = needs_of(made.hashes["change 3"], quirks, repository)
        assert late.names == ("new", "versioned", "of another repository")
        assert late.patches == (tmp_path / "fix.patch",)

    def test_the_table_that_comes_along_is_sound(self) -> None:
        quirks = load_quirks(TABLE)
        assert quirks
        assert all(quirk.why for quirk in quirks)
        assert not any(quirk.matters(cpus=1, memory=4096) for quirk in quirks if not quirk.kenv and not quirk.patches)
        assert any(quirk.matters(cpus=2, memory=512) for quirk in quirks)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[[quirk]]\nname = 'a'\nkernv = {}", "a: no such key: kernv"),
            ("[[quirk]]\ncpus = 1", "has no name"),
            ("[[quirk]]\nname = 'a'\ncpus = 'one'", "cpus is not of the right kind"),
            ("[[quirk", "is no table of quirks"),
        ],
    )
    def test_a_table_that_is_wrong(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "q.toml").write_text(text)
        with pytest.raises(UsageError, match=said):
            load_quirks(tmp_path / "q.toml")


# The command, from end to end: a script builds kernels, and the test reads the kernel's file instead of booting it.

CHECK = """
import pytest
from harness.kernels.artefact import Kernel
from harness.store import Store

def test_it(pytestconfig):
    store = Store()
    kernel = store.get(Kernel, pytestconfig.getoption("--dfly-kernel"))
    text = store.blob(kernel.elf).read_bytes()[-8192:]
    if b"changed 3\\n" in text and b"changed 4\\n" not in text:
        pytest.skip("cannot run there")
    assert b"BROKEN" not in text
"""


@pytest.fixture
def bench(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, store: Store) -> Path:
    """Return the folder of a project, a builder that appends the sources to a stand-in for a kernel, and a test."""
    project(tmp_path / "repo", 10, 7)
    kernel = build_test_kernel(tmp_path_factory.mktemp("kernel"))
    script = tmp_path / "build.sh"
    script.write_text(
        f'cp {kernel} "$2" && chmod u+w "$2" && cat "$1/sys/kern/lines" >> "$2" && echo built >> {tmp_path}/builds\n'
        f"if grep -q 'changed 8' \"$1/sys/kern/lines\" && ! grep -q 'changed 9' \"$1/sys/kern/lines\";"
        " then echo 'x.c:1: error: no' >&2; exit 1; fi\n"
    )
    (tmp_path / "check").mkdir()
    (tmp_path / "check" / "test_check.py").write_text(CHECK)
    (tmp_path / "disk").write_bytes(b"none")
    with store.adding():
        blob = store.add_blob(tmp_path / "disk")
        store.put(BaseImage(name="none", disk=blob, ssh_key=blob, root="ufs:vbd0"))
    return tmp_path


def command(bench: Path, *arguments: str) -> list[str]:
    del bench
    return [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())", "bisect", *arguments]


def question(bench: Path, *options: str) -> list[str]:
    return [
        "--source", str(bench / "repo"), "--good", "HEAD~10", "--bad", "HEAD", "--confidence", "0.7", *options,
        "--kernel-builder", f"sh {bench}/build.sh {{source}} {{output}}", "--", str(bench / "check"), "-q",
    ]  # fmt: skip


def environment(bench: Path) -> dict[str, str]:
    return {**os.environ, "DFLY_HARNESS_HOME": str(bench / "store")}


def run(bench: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = command(bench, *arguments)
    return subprocess.run(argv, capture_output=True, text=True, env=environment(bench), check=False)


def builds(bench: Path) -> int:
    return len((bench / "builds").read_text().splitlines())


def report(bench: Path) -> dict[str, object]:
    (file,) = (bench / "store" / "results").glob("bisect-*/report.json")
    loaded = json.loads(file.read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_the_command_finds_the_commit_and_a_second_time_builds_nothing(bench: Path) -> None:
    done = run(bench, *question(bench, "--html", str(bench / "page.html")))
    assert done.returncode == 0, done.stderr
    data = report(bench)
    assert "change 7" in done.stdout
    assert "someone@example.org" in done.stdout
    assert "2020-02-03" in done.stdout
    assert "sys/kern/lines" in done.stdout
    assert data["proved"] is True
    page = (bench / "page.html").read_text()
    assert "How far such claims can be trusted" in page
    assert "<svg" in page
    before = builds(bench)
    again = run(bench, *question(bench, "--fresh"))
    assert again.returncode == 0, again.stderr
    assert "change 7" in again.stdout
    assert builds(bench) == before
    assert report(bench)["builds"] == 0


def test_a_search_that_is_killed_goes_on_and_builds_nothing_twice(bench: Path) -> None:
    child = subprocess.Popen(
        command(bench, *question(bench)), env=environment(bench), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    results = bench / "store" / "results"
    end = time.monotonic() + 60
    while not any(
        len(json.loads(file.read_text())["observations"]) >= 2 for file in results.glob("bisect-*/state.json")
    ):
        assert child.poll() is None
        assert time.monotonic() < end, "no observation was written"
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    explained = run(bench, "--resume", "--explain")
    assert explained.returncode == 0, explained.stderr
    assert "bits are left to know" in explained.stdout
    assert "BITS PER MINUTE" in explained.stdout
    resumed = run(bench, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "change 7" in resumed.stdout
    observations = report(bench)["observations"]
    assert isinstance(observations, list)
    kernels = {each["kernel"] for each in observations if each["kernel"]}
    failed = sum(each["trouble"] == Trouble.BUILD for each in observations)
    # One build may have been under way when the search was killed.
    assert builds(bench) <= len(kernels) + failed + 1


def test_what_others_found_is_taken_over_and_given_back(
    bench: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(bench / "store"))
    repo = Project(bench / "repo")
    good, bad, skip, outside = (repo.git("rev-parse", f"HEAD~{back}") for back in (8, 2, 5, 10))
    theirs = bench / "theirs.log"
    theirs.write_text(
        f"git bisect start 'HEAD' '{outside}'\n# good: [{good}] change 1\ngit bisect good {good}\n"
        f"git bisect bad {bad}\ngit bisect skip {skip}\n"
    )
    assert main(["bisect", "--import-log", str(theirs), "--explain", "--good-means", "pass", *question(bench)]) == 0
    explained = capsys.readouterr().out
    assert "seen: 1 good, 1 bad, 1 untestable" in explained
    assert main(["bisect", "--import-log", str(theirs), "--resume", "--explain"]) == 0
    assert "seen: 1 good, 1 bad, 1 untestable" in capsys.readouterr().out
    ours = bench / "ours.log"
    assert main(["bisect", "--resume", "--export-log", str(ours)]) == 0
    words = {tuple(line.split()[2:4]) for line in ours.read_text().splitlines() if not line.startswith("#")}
    assert {("good", good), ("bad", bad), ("skip", skip), ("good", outside)} <= words
    assert not (bench / "builds").exists()


def test_a_budget_gives_the_best_answer_so_far(bench: Path) -> None:
    done = run(bench, *question(bench, "--runs", "4"))
    assert done.returncode == 1, done.stderr
    assert "Not decided: the most probable" in done.stdout
    assert "the 4 runs allowed are made: this is the best answer so far" in done.stderr
    observations = report(bench)["observations"]
    assert isinstance(observations, list)
    assert len(observations) >= 4
    resumed = run(bench, "--resume", "--hours", "1")
    assert resumed.returncode == 0, resumed.stderr
    assert "change 7" in resumed.stdout


def test_a_builder_that_never_makes_a_kernel_is_one_line(bench: Path) -> None:
    (bench / "build.sh").write_text("echo built >> $(dirname $0)/builds; echo 'no compiler' >&2; exit 1\n")
    done = run(bench, *question(bench))
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if "so nothing can be found out" in line]
    assert "the good end" in line
    assert "does not build" in line
    assert builds(bench) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume"], "there is no bisection to go on with"),
        (["--source", ".", "--good", "x", "--bad", "y", "--runs", "0", "--", "."], "--runs is at least 1"),
        (["--good", "x"], "needs --source REPO"),
        (["--source", ".", "--good", "x", "--bad", "y", "--", "nowhere.py"], "no test nowhere.py"),
        (["--source", ".", "--good", "x", "--bad", "y"], "say which tests"),
        (["--source", ".", "--good", "x", "--bad", "y", "--bench", "fork + wait4"], "needs a --bound"),
        (["--source", ".", "--good", "x", "--bad", "y", "--bound", "3", "--", "."], "say which one"),
    ],
)
def test_questions_that_make_no_sense_are_one_line(
    tmp_path: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(tmp_path / "store"))
    assert main(["bisect", *arguments]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert len(errors.strip().splitlines()) == 1


def test_without_an_image_nothing_is_built(
    bench: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DFLY_HARNESS_HOME", str(bench / "empty"))
    assert main(["bisect", *question(bench)]) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "no image" in line]
    assert "the store has no image to boot them with" in line
    assert not (bench / "builds").exists()


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_the_page_without_scrolling_sideways(store: Store, tmp_path: Path, width: int) -> None:
    made = project(tmp_path / "repo", 30, 14)
    troubles = {"change 13": Trouble.BUILD, "change 15": Trouble.NOT_APPLICABLE}
    running, _ = bisection(made, store, untestable=lambda commit: troubles.get(made.name(commit)))
    running.run()
    seen = look(bisection_page(report_of(running, running._repository)), width, tmp_path)
    assert_readable(seen, width)
    assert "the chance of each commit to be the one" in seen["plots"]

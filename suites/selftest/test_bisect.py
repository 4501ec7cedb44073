# SPDX-License-Identifier: BSD-2-Clause
"""The decision core of bisect: exact on small cases, frugal where git is, calibrated over a thousand histories."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.bisect.decision import ContradictionError, Knowledge, Outcome, Trouble, channel_capacity
from harness.bisect.history import History
from harness.bisect.rates import Rates
from harness.bisect.simulation import (
    LEVELS,
    RATES,
    calibrate,
    least_runs,
    random_history,
    searches,
    simulate,
)
from harness.bisect.summary import CALIBRATION
from harness.errors import UsageError

GOOD, BAD, UNTESTABLE = Outcome.GOOD, Outcome.BAD, Outcome.UNTESTABLE


def line(size: int) -> History:
    names = [f"c{number}" for number in range(size)]
    return History(names, dict(zip(names[1:], ([name] for name in names), strict=False)))


def diamond() -> History:
    """Return base, two branches left and right, and their merge."""
    return History(
        ["base", "left", "right", "merge"], {"left": ["base"], "right": ["base"], "merge": ["left", "right"]}
    )


def known(history: History, *seen: tuple[str, Outcome], rates: Rates | None = None) -> Knowledge:
    knowledge = Knowledge(history, rates or Rates.of_failure())
    for commit, outcome in seen:
        knowledge.observe(commit, outcome)
    return knowledge


def find(knowledge: Knowledge, is_bad: Sequence[bool], confidence: float = 0.95, untestable: Sequence[str] = ()) -> int:
    """Search until KNOWLEDGE is decided; return the number of runs."""
    history, runs = knowledge.history, 0
    while not knowledge.is_decided(confidence):
        proposals = knowledge.choose([1.0] * len(history))
        if not proposals:
            break
        commit = proposals[0].commit
        if commit in untestable:
            knowledge.observe(commit, UNTESTABLE, Trouble.BUILD)
            continue
        knowledge.observe(commit, BAD if is_bad[history.number[commit]] else GOOD)
        runs += 1
    return runs


class TestHistory:
    """Who has whose changes."""

    def test_a_change_is_inherited_by_descendants_only(self) -> None:
        history = diamond()
        rows: dict[str, set[str]] = {commit: set() for commit in history.commits}
        for commit in history.commits:
            for other in history.commits:
                if history.inherits[history.number[commit], history.number[other]]:
                    rows[commit].add(other)
        assert rows == {
            "base": {"base"},
            "left": {"base", "left"},
            "right": {"base", "right"},
            "merge": {"base", "left", "right", "merge"},
        }

    def test_parents_come_first(self) -> None:
        with pytest.raises(UsageError, match="comes before a parent"):
            History(["b", "a"], {"b": ["a"]})


class TestLearning:
    """What an observation says."""

    def test_a_bad_commit_clears_all_it_does_not_inherit(self) -> None:
        posterior = known(diamond(), ("left", BAD)).posterior
        assert posterior["right"] < 0.001
        assert posterior["merge"] < 0.001
        assert posterior["base"] == pytest.approx(0.5, abs=0.001)

    def test_a_good_run_counts_for_as_much_as_the_failure_is_frequent(self) -> None:
        # By hand: one commit of two inherits; chance of missing the failure is the mean of 1 - rate.
        rates = Rates.of_failure()
        missed = float(rates.belief @ (1 - rates.with_culprit))
        unseen = float(rates.belief @ (1 - rates.without))
        knowledge = known(line(2), ("c0", GOOD))
        assert knowledge.posterior["c0"] == pytest.approx(missed / (missed + unseen))

    def test_after_a_failure_that_came_and_went_the_rate_is_below_one(self) -> None:
        knowledge = known(line(4), ("c3", BAD), ("c3", GOOD), ("c3", BAD))
        assert not knowledge.is_certain
        assert 0.3 < knowledge.failure_rate < 0.8

    def test_an_untestable_commit_says_nothing_about_the_culprit(self) -> None:
        knowledge = known(line(8))
        before = knowledge.posterior
        knowledge.observe("c3", UNTESTABLE, Trouble.BUILD)
        assert knowledge.posterior == before
        assert knowledge.untestable == ("c3",)

    def test_bad_luck_gets_a_second_chance(self) -> None:
        knowledge = known(line(8))
        knowledge.observe("c3", UNTESTABLE, Trouble.INFRASTRUCTURE)
        assert not knowledge.untestable
        knowledge.observe("c3", UNTESTABLE, Trouble.INFRASTRUCTURE)
        assert knowledge.untestable == ("c3",)

    def test_the_same_kernel_clears_what_lies_between(self) -> None:
        knowledge = known(line(8))
        knowledge.learn_alike("c5", "c2")
        assert [commit for commit, chance in knowledge.posterior.items() if chance == 0] == ["c3", "c4", "c5"]
        knowledge.learn_alike("c1", None)
        assert knowledge.posterior["c0"] == knowledge.posterior["c1"] == 0

    def test_nothing_that_fits_is_an_error_in_words(self) -> None:
        knowledge = known(line(2))
        with pytest.raises(ContradictionError, match="no commit explains"):
            knowledge.learn_alike("c1", None)

    def test_a_fix_is_found_although_old_kernels_pass_now_and_then(self) -> None:
        # "Bad" is passing: only a failure proves that the fix is not in.
        knowledge = known(line(3), rates=Rates.of_fix())
        for _ in range(3):
            knowledge.observe("c1", BAD)
        assert knowledge.posterior["c2"] > 0.02
        knowledge.observe("c1", GOOD)
        assert knowledge.posterior["c2"] > 0.9


class TestChoosing:
    """What comes next."""

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 400), st.data())
    def test_a_failure_that_always_happens_costs_no_more_than_git_bisect(self, size: int, data: st.DataObject) -> None:
        culprit = data.draw(st.integers(0, size - 1))
        knowledge = known(line(size))
        knowledge.observe_bad_end()
        runs = 0
        while not knowledge.is_narrowed:
            commit = knowledge.choose([1.0] * size)[0].commit
            knowledge.observe(commit, BAD if knowledge.history.number[commit] >= culprit else GOOD)
            runs += 1
        assert runs <= math.ceil(math.log2(size))
        assert knowledge.conclude().commits == (f"c{culprit}",)

    def test_git_itself_needs_as_many_on_a_history_with_merges(self, tmp_path: Path) -> None:
        history = random_history(random.Random(5), 60)  # noqa: S311  (repeatable)
        hashes = git_history(tmp_path, history)
        names = {digest: name for name, digest in hashes.items()}
        ours, theirs = [], []
        for culprit in history.commits[::6]:
            inherited = history.inherits[:, history.number[culprit]]
            knowledge = known(history)
            knowledge.observe_bad_end()
            runs = 0
            while not knowledge.is_narrowed:
                commit = knowledge.choose([1.0] * len(history))[0].commit
                knowledge.observe(commit, BAD if inherited[history.number[commit]] else GOOD)
                runs += 1
            assert knowledge.conclude().commits == (culprit,)
            ours.append(runs)
            bad = {name for name in history.commits if inherited[history.number[name]]}
            theirs.append(git_bisect(tmp_path, hashes, {digest: name in bad for digest, name in names.items()}))
        assert sum(ours) <= sum(theirs)

    def test_a_kernel_that_is_there_is_preferred_to_a_little_more_information(self) -> None:
        knowledge = known(line(100))
        seconds = [300.0] * 100
        seconds[40] = 10.0
        assert knowledge.choose([300.0] * 100)[0].commit in {"c49", "c50"}
        chosen = knowledge.choose(seconds)[0]
        assert chosen.commit == "c40"
        assert chosen.rate == pytest.approx(chosen.bits / 10)

    def test_a_build_pays_where_the_kernel_will_run_often(self) -> None:
        # A flaky failure in one of two commits: the old kernel, which would tell, has to be built.
        knowledge = known(line(3), *[("c2", BAD), ("c2", GOOD), ("c2", GOOD), ("c2", BAD)] * 2, *[("c0", GOOD)] * 9)
        kept = knowledge.choose([10.0] * 3, setup=[0.0, 2000.0, 0.0])[0]
        assert (kept.commit, kept.runs) == ("c0", 1)
        moved = knowledge.choose([10.0] * 3, setup=[0.0, 60.0, 0.0])[0]
        assert moved.commit == "c1"
        assert moved.runs > 1
        assert moved.seconds == 60 + 10 * moved.runs

    def test_machines_side_by_side_get_different_commits(self) -> None:
        chosen = known(line(64)).choose([1.0] * 64, 3)
        places = sorted(int(each.commit[1:]) for each in chosen)
        assert [round((place + 1) / 16) for place in places] == [1, 2, 3]
        # Three runs in quarters leave one of four: two bits.
        assert sum(each.bits for each in chosen) == pytest.approx(2, abs=0.01)

    def test_what_is_under_way_is_not_asked_again(self) -> None:
        knowledge = known(line(64))
        first = knowledge.choose([1.0] * 64)[0].commit
        second = knowledge.choose([1.0] * 64, pending=[first])[0].commit
        assert abs(int(second[1:]) - int(first[1:])) > 8

    def test_neighbours_of_an_untestable_stretch_are_avoided(self) -> None:
        knowledge = known(line(100))
        for number in range(45, 55):
            knowledge.observe(f"c{number}", UNTESTABLE, Trouble.BUILD)
        place = int(knowledge.choose([1.0] * 100)[0].commit[1:])
        assert 20 <= place <= 40 or 60 <= place <= 80
        assert [len(stretch) for stretch in knowledge.stretches] == [10]

    def test_commits_that_only_untestable_ones_separate_are_named_together(self) -> None:
        knowledge = known(line(16))
        knowledge.observe_bad_end()
        bad = [number >= 6 for number in range(16)]
        find(knowledge, bad, untestable=["c5", "c6", "c7"])
        found = knowledge.conclude()
        assert found.commits == ("c5", "c6", "c7", "c8")
        assert found.probability >= 0.95

    def test_nothing_is_proposed_where_all_that_would_tell_is_untestable(self) -> None:
        knowledge = known(line(3), *[("c2", BAD), ("c2", GOOD)] * 8)
        for commit in ("c0", "c1"):
            knowledge.observe(commit, UNTESTABLE, Trouble.BUILD)
        assert not knowledge.choose([1.0] * 3)

    def test_the_capacity_of_a_run(self) -> None:
        assert channel_capacity(1.0) == 1.0
        assert channel_capacity(0.5) == pytest.approx(math.log2(1.25))
        assert least_runs([1] * 128, 1.0) == 7


def test_a_thousand_random_histories() -> None:
    """Claims are kept at every level, and a search takes at most 1.3 times what no strategy can do without."""
    found = simulate(250, min(4, os.cpu_count() or 1))
    figures = calibrate(found)
    assert figures.searches == 1000
    for level, made, right in figures.levels:
        assert right >= level * made, (level, made, right)
    assert {level for level, _, _ in figures.levels} == set(LEVELS)
    assert figures.ratio <= 1.3
    for rate in RATES:
        of_rate = [each for each in found if each.rate == rate]
        assert sum(each.is_right for each in of_rate) >= 0.9 * len(of_rate), rate
    # What reports show is this measurement; the last digits are the numeric library's.
    shown = json.loads(CALIBRATION.read_text())
    assert shown["searches"] == 1000
    assert abs(shown["right"] - figures.right) <= 10
    assert abs(shown["ratio"] - figures.ratio) <= 0.05


def test_a_simulated_search_is_repeatable() -> None:
    made = [list(searches(0.5, [3])) for _ in range(2)]
    assert made[0] == made[1]


# git as the reference


def git(folder: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z",
        "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z",
    }
    argv = ["git", "-C", str(folder), *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def git_history(folder: Path, history: History) -> dict[str, str]:
    """Make HISTORY in a repository in FOLDER, on top of a good commit; return the hashes."""
    git(folder, "init", "-q")
    tree = git(folder, "mktree")
    hashes = {"good": git(folder, "commit-tree", tree, "-m", "good")}
    for commit in history.commits:
        parents = [hashes[parent] for parent in history.parents[commit]] or [hashes["good"]]
        words = [word for parent in parents for word in ("-p", parent)]
        hashes[commit] = git(folder, "commit-tree", tree, *words, "-m", commit)
    return hashes


def git_bisect(folder: Path, hashes: dict[str, str], is_bad: dict[str, bool]) -> int:
    """Return how many runs git bisect makes."""
    goods, bad, runs = [hashes["good"]], hashes[list(hashes)[-1]], 0
    while True:
        nxt = git(folder, "rev-list", "--bisect", bad, "--not", *goods)
        if not nxt or nxt == bad:
            return runs
        runs += 1
        if is_bad[nxt]:
            bad = nxt
        else:
            goods.append(nxt)

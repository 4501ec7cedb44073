# SPDX-License-Identifier: BSD-2-Clause
"""The decision core of bisect: exact on small cases, frugal where git is, calibrated over a thousand histories."""

from __future__ import annotations

import math
import os
import random
import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.bisect.decision import ContradictionError, Knowledge, Outcome, Trouble
from harness.bisect.history import History
from harness.bisect.inquiry import CULPRIT, PARENT, REVERT, Ends, Inquiry, Start, Step
from harness.bisect.proof import Evidence, error_of_attempt
from harness.bisect.rates import Rates
from harness.calibration.worlds import Kind, World, graph, search
from harness.calibration.worlds import line as in_line
from harness.errors import UsageError

GOOD, BAD, UNTESTABLE = Outcome.GOOD, Outcome.BAD, Outcome.UNTESTABLE


def line(size: int) -> History:
    names = [f"c{number}" for number in range(size)]
    return History(names, dict(zip(names[1:], ([name] for name in names), strict=False)))


def named(shape: tuple[tuple[int, ...], ...]) -> History:
    """Return the history of SHAPE."""
    names = [f"c{number:04}" for number in range(len(shape))]
    return History(names, {names[n]: [names[each] for each in parents] for n, parents in enumerate(shape)})


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
    while knowledge.conclude().probability < confidence:
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
        # What is left is the chance that it was a false alarm, or that something older was seen.
        posterior = known(diamond(), ("left", BAD)).posterior
        assert posterior["right"] == posterior["merge"] < 0.01
        assert posterior["base"] == pytest.approx(posterior["left"])
        assert posterior["base"] > 0.45
        again = known(diamond(), ("left", BAD), ("left", BAD)).posterior
        assert again["right"] < posterior["right"]

    def test_a_good_run_counts_for_as_much_as_the_failure_is_frequent(self) -> None:
        # By hand: one commit of two inherits; chance of missing the failure is the mean of 1 - rate.
        rates = Rates.of_failure()
        missed = float(rates.belief @ (1 - rates.with_culprit))
        unseen = float(rates.belief @ (1 - rates.without))
        knowledge = known(line(2), ("c0", GOOD))
        found = knowledge.posterior
        assert found["c0"] / found["c1"] == pytest.approx(missed / unseen)
        # What is older is missed in all of them.
        assert knowledge.older < 0.02

    def test_after_a_failure_that_came_and_went_the_rate_is_below_one(self) -> None:
        knowledge = known(line(4), ("c3", BAD), ("c3", GOOD), ("c3", BAD))
        assert not knowledge.is_certain
        assert 0.3 < knowledge.failure_rate < 0.8

    def test_every_account_of_the_rates_that_is_open_counts_alike(self) -> None:
        """What is claimed is less than what is believed while rates may differ by commit, and the same in the end."""
        knowledge = known(line(8), *[("c4", BAD), ("c4", GOOD), ("c3", GOOD)] * 8)
        commits = knowledge.conclude().commits
        assert commits == ("c4",)
        assert knowledge.cautious(commits) < knowledge.conclude().probability - 0.01
        for _ in range(40):
            for commit, outcome in (("c4", BAD), ("c4", GOOD), ("c5", BAD), ("c5", GOOD)):
                knowledge.observe(commit, outcome)
            for commit in ("c2", "c3", "c3"):
                knowledge.observe(commit, GOOD)
        assert knowledge.cautious(commits) > 0.95

    def test_an_untestable_commit_says_nothing_about_the_culprit(self) -> None:
        knowledge = known(line(8))
        before = knowledge.posterior
        knowledge.observe("c3", UNTESTABLE, Trouble.BUILD)
        assert knowledge.posterior == pytest.approx(before)
        assert knowledge.untestable == ("c3",)

    def test_bad_luck_gets_a_second_chance(self) -> None:
        knowledge = known(line(8))
        knowledge.observe("c3", UNTESTABLE, Trouble.INFRASTRUCTURE)
        assert not knowledge.untestable
        knowledge.observe("c3", UNTESTABLE, Trouble.INFRASTRUCTURE)
        assert knowledge.untestable == ("c3",)

    def test_the_same_kernel_clears_what_lies_between(self) -> None:
        knowledge = known(line(8))
        knowledge.learn_alike([("c5", "c2")])
        assert [commit for commit, chance in knowledge.posterior.items() if chance == 0] == ["c3", "c4", "c5"]
        knowledge.learn_alike([("c1", None)])
        assert knowledge.posterior["c0"] == knowledge.posterior["c1"] == 0

    def test_nothing_that_fits_is_an_error_in_words(self) -> None:
        knowledge = known(line(2))
        with pytest.raises(ContradictionError, match="no commit explains"):
            knowledge.learn_alike([("c1", None)])

    def test_a_fix_is_found_although_old_kernels_pass_now_and_then(self) -> None:
        # "Bad" is passing: only a failure proves that the fix is not in.
        knowledge = known(line(3), rates=Rates.of_fix())
        for _ in range(3):
            knowledge.observe("c1", BAD)
        assert knowledge.posterior["c2"] > 0.02
        # A single failure with the fix may be a false alarm; not so two.
        knowledge.observe("c1", GOOD)
        assert knowledge.posterior["c2"] > 0.8
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
        history = named(graph(random.Random(5), 60))  # noqa: S311  (repeatable)
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

    def test_a_long_history_is_halved_by_looking_at_some_of_it(self) -> None:
        size = 5000
        knowledge = known(line(size))
        knowledge.observe_bad_end()
        runs = 0
        while not knowledge.is_narrowed:
            commit = knowledge.choose([1.0] * size)[0].commit
            knowledge.observe(commit, BAD if knowledge.history.number[commit] >= 3210 else GOOD)
            runs += 1
        assert runs <= math.ceil(math.log2(size))
        assert knowledge.conclude().commits == ("c3210",)

    def test_a_long_history_is_weighed_as_a_short_one_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chance = random.Random(7)  # noqa: S311
        shape = graph(chance, 150)
        seen = [(f"c{chance.randrange(150):04}", chance.choice([GOOD, BAD])) for _ in range(12)]
        proposals = []
        for short in (1024, 10):
            monkeypatch.setattr("harness.bisect.planning._SHORT", short)
            knowledge = known(named(shape), *seen)
            proposals.append(knowledge.choose([1.0] * 150, 3, ["c0050"], [20.0] * 150))
        assert proposals[0] == proposals[1]


class TestProof:
    """What fresh runs have to show."""

    def test_three_of_three_against_none_of_three_is_one_in_sixty_four(self) -> None:
        rates = Rates.of_failure()
        certain = np.eye(1, len(rates.belief))[0]
        evidence = Evidence(rates, certain, "upper", ("lower",))
        for _ in range(3):
            evidence.add("upper", bad=True)
            evidence.add("lower", bad=False)
        assert 0.95 * 64 <= evidence.value <= 64 + 1e-9

    @pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
    def test_what_is_equal_is_told_apart_no_more_often_than_allowed(self, rate: float) -> None:
        chance = random.Random(f"{rate}")  # noqa: S311
        rates = Rates.of_failure()
        wrong = 0
        for _ in range(200):
            evidence = Evidence(rates, rates.belief, "upper", ("one", "other"))
            for _ in range(60):  # looked at after each run
                evidence.add(evidence.following({}), bad=chance.random() < rate)
                if evidence.value >= 20:
                    wrong += 1
                    break
        assert wrong <= 10 + 3 * math.sqrt(10)

    def test_the_weakest_of_several_parents_counts(self) -> None:
        rates = Rates.of_failure()
        evidence = Evidence(rates, rates.belief, "merge", ("good", "bad"))
        for _ in range(9):
            evidence.add("merge", bad=True)
            evidence.add("good", bad=False)
            evidence.add("bad", bad=True)
        assert evidence.value < 1
        evidence.add("elsewhere", bad=False)
        assert "elsewhere" not in evidence.runs

    def test_all_attempts_together_may_err_as_often_as_asked_for(self) -> None:
        shares = [error_of_attempt(number, 0.05) for number in range(60)]
        assert sum(shares) == pytest.approx(0.05)
        assert shares == sorted(shares, reverse=True)


class TestInquiry:
    """From the ends to the proof."""

    @staticmethod
    def asked(history: History, confidence: float = 0.95) -> Inquiry:
        return Inquiry(history, Rates.of_failure(), confidence, Ends(("good",), history.commits[-1]))

    def go(self, inquiry: Inquiry, is_bad: Callable[[str, int], bool], most: int = 400) -> list[tuple[str, str]]:
        steps = []
        for number in range(most):
            step = inquiry.following([1.0] * len(inquiry.history))
            if step is None or inquiry.is_older:
                break
            steps.append((step.commit, step.role))
            bad = step.role != REVERT and is_bad(step.commit, number)
            inquiry.learn(step.commit, BAD if bad else GOOD, None, step.role, step.without or "")
        return steps

    @staticmethod
    def since(culprit: int) -> Callable[[str, int], bool]:
        """Return that a commit is bad from number CULPRIT on."""
        return lambda commit, _: commit != "good" and int(commit[1:]) >= culprit

    def test_ends_then_search_then_proof(self) -> None:
        inquiry = self.asked(line(64))
        steps = self.go(inquiry, lambda commit, _: commit != "good" and int(commit[1:]) >= 21)
        assert [role for _, role in steps][:2] == ["good end", "bad end"]
        assert inquiry.conclude().commits == ("c21",)
        assert inquiry.is_decided
        assert inquiry.conclude().probability >= 0.95
        proving = [(commit, role) for commit, role in steps if role in {PARENT, CULPRIT}]
        assert {*proving} == {("c20", PARENT), ("c21", CULPRIT)}
        assert steps[-1] == ("c63", REVERT)
        # As many as git bisect needs, the ends, and what one in twenty asks for.
        assert len(steps) <= 6 + 2 + 6 + 2

    @pytest.mark.parametrize(("confidence", "runs_on_average"), [(0.95, 1.25 * 13.56), (0.99, 1.25 * 18.03)])
    def test_a_failure_that_always_happens_is_proved_in_few_runs(
        self, confidence: float, runs_on_average: float
    ) -> None:
        """A quarter more than was claimed with before, by a model that was wrong where failures come and go."""
        runs = []
        for culprit in range(100):
            inquiry = self.asked(line(100), confidence)
            runs.append(len(self.go(inquiry, self.since(culprit))))
            assert inquiry.conclude().commits == (f"c{culprit}",)
            assert inquiry.is_decided
        assert sum(runs) / len(runs) <= runs_on_average

    def test_where_kernels_have_to_be_built_a_proof_that_carries_is_soon_enough(self) -> None:
        """Of 29 commits five runs find the culprit, eight prove it at 99%; the ends and the revert are three."""
        runs = []
        for culprit in range(29):
            inquiry, ran = self.asked(line(29), 0.99), set()
            for _ in range(100):
                build = [0.0 if commit in ran else 320.0 for commit in inquiry.history.commits]
                if (step := inquiry.following([10.0] * 29, build)) is None:
                    break
                ran.add(step.commit)
                bad = step.role != REVERT and step.commit != "good" and int(step.commit[1:]) >= culprit
                inquiry.learn(step.commit, BAD if bad else GOOD, None, step.role, step.without or "")
            assert inquiry.is_decided
            runs.append(inquiry.tested.total() + 1)
        assert statistics.median(runs) <= 22

    def test_what_the_search_saw_proves_nothing(self) -> None:
        inquiry = self.asked(line(4))
        for _ in range(30):
            inquiry.learn("c1", GOOD)
            inquiry.learn("c2", BAD)
        assert inquiry.knowledge.conclude().commits == ("c2",)
        for commit, outcome in (("good", GOOD), ("c3", BAD)):
            inquiry.learn(commit, outcome)
        step = inquiry.following([1.0] * 4)
        assert ("c2", ("c1",)) in inquiry.attempts  # the proof begins, and has nothing yet
        assert not inquiry.is_decided
        assert step is not None
        assert (step.commit, step.role) == ("c2", CULPRIT)
        self.go(inquiry, lambda commit, _: commit != "good" and int(commit[1:]) >= 2)
        assert inquiry.is_decided

    def test_where_two_commits_make_it_more_frequent_both_are_named(self) -> None:
        """From none to one in four, and from there to always: each is proved, and neither alone is likely enough."""
        inquiry = self.asked(line(4), 0.8)
        for commit, outcome in (("good", GOOD), ("c3", BAD)):
            inquiry.learn(commit, outcome)
        for upper, lower in (("c1", "c0"), ("c2", "c1")):
            inquiry.begin(Start(upper, (lower,), 2))
        for number in range(40):
            for commit, bad in (("c0", False), ("c1", number % 4 == 3), ("c2", True)):
                inquiry.learn(commit, BAD if bad else GOOD)
        assert all(attempt.holds for attempt in inquiry.attempts.values())
        assert max(inquiry.knowledge.chance_of([commit]) for commit in ("c1", "c2")) < 0.8
        found = inquiry.conclude()
        assert found.commits == ("c1", "c2")
        assert found.probability >= 0.8
        assert inquiry.is_decided

    def test_a_good_end_that_shows_the_failure_is_older(self) -> None:
        inquiry = self.asked(line(16))
        steps = self.go(inquiry, lambda *_: True)
        assert inquiry.is_older
        assert len(steps) <= 8

    def test_one_false_alarm_at_the_good_end_is_not(self) -> None:
        inquiry = self.asked(line(16))
        self.go(inquiry, lambda commit, number: number == 0 or (commit != "good" and int(commit[1:]) >= 9))
        assert not inquiry.is_older
        assert inquiry.conclude().commits == ("c9",)
        assert inquiry.is_decided

    def test_machines_side_by_side_share_the_proof(self) -> None:
        inquiry = self.asked(line(2))
        for commit, outcome in (("good", GOOD), ("c1", BAD), ("c0", GOOD), ("c0", GOOD), ("c0", GOOD)):
            inquiry.learn(commit, outcome)
        steps: list[Step] = []
        while (step := inquiry.following([1.0] * 2, None, steps)) is not None:
            steps.append(step)
            assert len(steps) < 8
        assert {(step.commit, step.role) for step in steps} == {("c0", PARENT), ("c1", CULPRIT)}

    def test_a_proof_goes_on_in_another_session(self) -> None:
        first, second = self.asked(line(4)), self.asked(line(4))
        seen = [("good", GOOD), ("c3", BAD), ("c1", GOOD), ("c2", BAD)]
        for commit, outcome in seen:
            first.learn(commit, outcome)
            second.learn(commit, outcome)
        step = first.following([1.0] * 4)
        assert step is not None
        ((key, attempt),) = first.attempts.items()
        assert attempt.after == len(seen)
        again = second.begin(Start(*key, attempt.after))
        for inquiry in (first, second):
            inquiry.learn("c2", BAD)
            inquiry.learn("c1", GOOD)
        assert again.evidence.value == attempt.evidence.value > 1

    def test_a_group_that_cannot_be_divided_is_proved_by_what_surrounds_it(self) -> None:
        inquiry = self.asked(line(12))
        for commit in ("c4", "c5"):
            inquiry.learn(commit, UNTESTABLE, Trouble.BUILD)
        self.go(inquiry, lambda commit, _: commit != "good" and int(commit[1:]) >= 5)
        assert inquiry.conclude().commits == ("c4", "c5", "c6")
        assert inquiry.is_decided
        assert ("c6", ("c3",)) in inquiry.attempts


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        (Kind("always", 1.0), 60),
        (Kind("half", 0.5), 30),
        (Kind("half, false alarms", 0.5, 0.01), 30),
        (Kind("always, false alarms", 1.0, 0.01), 40),
        (Kind("by commit", (3.0, 7.0)), 12),
    ],
)
def test_claims_are_kept_by_kernels_that_follow_no_model_of_ours(kind: Kind, times: int) -> None:
    """In small; `dfly-harness calibrate bisect` is the same in full."""
    wrong = 0
    for seed in range(times):
        chance = random.Random(f"{kind.name} {seed}")  # noqa: S311
        shape = in_line(60) if seed % 2 else graph(chance, 60)
        found = search(World(shape, kind, chance), 0.95)
        wrong += not found.end and not found.is_right
    assert wrong <= 0.05 * times + 3 * math.sqrt(0.05 * 0.95 * times)


def test_the_whole_of_a_long_history_is_a_matter_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(4)  # noqa: S311
    history = named(graph(chance, 3_000))
    monkeypatch.setattr(History, "inherits", property(lambda _: pytest.fail("a table of all by all was made")))
    inquiry = Inquiry(history, Rates.of_failure(), 0.95, Ends(("good",), history.commits[-1]))
    culprit = 1000
    for _ in range(60):
        step = inquiry.following([1.0] * len(history))
        if step is None:
            break
        number = history.number.get(step.commit)
        bad = number is not None and step.role != REVERT and bool(history.ancestors(number)[culprit])
        inquiry.learn(step.commit, BAD if bad else GOOD, None, step.role, step.without or "")
    assert inquiry.conclude().commits == (history.commits[culprit],)


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

# SPDX-License-Identifier: BSD-2-Clause
"""Comparing kernels: exact statements about rates, verdicts per test, and whole comparisons on the oracle."""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from browser import WIDTHS, assert_readable, look, needs_browser
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness.cli import build_parser
from harness.cli import compare as compare_command
from harness.compare.campaign import (
    Campaign,
    Contender,
    Plan,
    compare_runs,
    tallies_of,
)
from harness.compare.cost_judgement import judge_times
from harness.compare.evidence import Inquiry, Runs, Seen, State, Suspicion, boot_of_suite, surviving
from harness.compare.retrial import MOST_SUSPICIONS, decide, raised, settle, suspects
from harness.compare.verdicts import tally, worst_results
from harness.config import share
from harness.errors import ExitCode, HarnessError, UsageError
from harness.guests.options import TargetOptions
from harness.machine.description import Accelerator
from harness.report.comparison import conclusion, explain, news, percent, print_comparison, to_markdown
from harness.report.comparison_page import comparison_page
from harness.results.certainty import Interval, median_interval, rate_interval, running_interval, upper_bound
from harness.results.comparison import Comparison, Difference, Judgement, Tally
from harness.results.costs import Costs
from harness.results.record import BETWEEN_TESTS, RunRecord, TestResult, Trouble
from harness.results.verdict import Verdict
from harness.runs.digests import digest_of_harness, digest_of_tests
from harness.runs.runner import Run
from harness.store import Store

PATHNAME_PANIC = """
Fatal trap 12: page fault while in kernel mode
cpuid = 1; lapic->id = 01000000
fault virtual address   = 0x30
current process         = 813
Stopped at      cache_fullpath+0xf5:    movq    0x30(%rax),%rsi
db> trace
cache_fullpath() at cache_fullpath+0xf5 0xffffffff806b1c35
sysctl_kern_proc_pathname() at sysctl_kern_proc_pathname+0x111 0xffffffff80661e01
sysctl_root() at sysctl_root+0x9c 0xffffffff8067ab3c
userland_sysctl() at userland_sysctl+0x1ae 0xffffffff8067ae1e
db>
"""


NAMED = {Difference.BROKEN, Difference.FIXED, Difference.RARER, Difference.CHANGED}


def result(test: str, verdict: str, evidence: str = "", reason: str = "") -> TestResult:
    return TestResult(test, Verdict(verdict), 0.1, evidence=evidence, reason=reason)


def record(*results: TestResult) -> RunRecord:
    return RunRecord("a kernel", is_dragonfly=True, seconds=1.0, results=results)


DIED = Run(None, "boot failure: panic: no", 3, Trouble(Verdict.BOOT_FAILURE, "panic: no", Verdict.PANIC))


def runs(*verdicts: str, test: str = "t.py::test_a", panic: str = PATHNAME_PANIC) -> list[Run]:
    """Return one run per verdict; `panic` has PANIC in its evidence."""
    return [
        Run(record(result(test, verdict, panic) if verdict == "panic" else result(test, verdict, reason="E   no")))
        for verdict in verdicts
    ]


def counted(failures: int, runs_made: int, *, panics: int = 0, fingerprint_: str = "p") -> Tally:
    reasons: Counter[str] = Counter({"E": failures - panics}) if failures > panics else Counter()
    return Tally(runs_made, failures, Counter({fingerprint_: panics}) if panics else Counter(), reasons)


class TestRates:
    """What may be said about a failure rate."""

    # Reference values: tables of the exact binomial interval, and its closed forms at the ends.
    @pytest.mark.parametrize(
        ("failures", "count", "low", "high"),
        [(1, 10, 0.002529, 0.445016), (5, 10, 0.187086, 0.812914), (2, 20, 0.012349, 0.316983), (3, 6, 0.118, 0.882)],
    )  # fmt: skip
    def test_the_interval_is_the_exact_one(self, failures: int, count: int, low: float, high: float) -> None:
        interval = rate_interval(failures, count)
        assert interval.low == pytest.approx(low, abs=5e-4)
        assert interval.high == pytest.approx(high, abs=5e-4)

    def test_no_failure_in_three_hundred_runs_means_less_than_one_percent(self) -> None:
        assert upper_bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
        assert upper_bound(0, 298) > 0.01 > upper_bound(0, 299)
        assert rate_interval(0, 0) == Interval(0.0, 1.0)

    @settings(deadline=None)
    @given(st.integers(1, 60), st.integers(0, 60), st.floats(0.5, 0.999))
    def test_intervals_hold_the_seen_rate_and_mirror(self, count: int, failures: int, confidence: float) -> None:
        failures = min(failures, count)
        interval = rate_interval(failures, count, confidence)
        assert failures / count in interval
        mirrored = rate_interval(count - failures, count, confidence)
        assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-9)
        assert rate_interval(failures, count, 0.9999).high >= interval.high - 1e-12

    # Some lie just above what no failure leaves open: there an interval that spends its error on one end misses most.
    @pytest.mark.parametrize("rate", [0.02, 0.11, 0.2, 0.21, 0.259, 0.3, 0.37, 0.5, 0.97])
    @pytest.mark.parametrize("count", [5, 10, 20])
    def test_the_true_rate_is_missed_no_more_often_than_promised(self, rate: float, count: int) -> None:
        missed = math.fsum(
            math.comb(count, k) * rate**k * (1 - rate) ** (count - k)
            for k in range(count + 1)
            if rate not in rate_interval(k, count, 0.9)
        )
        assert missed <= 0.1 + 1e-9

    @pytest.mark.parametrize("rate", [0.1, 0.5])
    def test_an_interval_may_be_looked_at_whenever_one_likes(self, rate: float) -> None:
        """Whoever looks after every run, and stops where the interval misses the rate, misses it as rarely as said."""
        between = {(k, n): running_interval(k, n, 0.9) for n in range(1, 41) for k in range(n + 1)}
        exact = {(k, n): rate_interval(k, n, 0.9) for n in range(1, 41) for k in range(n + 1)}

        def missed(intervals: dict[tuple[int, int], Interval]) -> float:
            odds = {0: 1.0}  # of those whose intervals have held the rate so far, by failures
            for count in range(1, 41):
                drawn = dict.fromkeys(range(count + 1), 0.0)
                for failures, chance in odds.items():
                    for more, share_ in ((0, 1 - rate), (1, rate)):
                        if rate in intervals[failures + more, count]:
                            drawn[failures + more] += chance * share_
                odds = drawn
            return 1 - math.fsum(odds.values())

        assert missed(between) <= 0.1
        assert missed(exact) > 0.1  # which are for a number of runs that was fixed before

    def test_a_running_interval_holds_the_seen_rate_and_mirrors(self) -> None:
        assert running_interval(0, 0) == Interval(0.0, 1.0)
        for failures, count in ((0, 3), (1, 3), (5, 20), (20, 20)):
            interval, mirrored = running_interval(failures, count), running_interval(count - failures, count)
            assert failures / count in interval
            assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-9)
            exact = rate_interval(failures, count)
            assert (interval.low, -interval.high) <= (exact.low, -exact.high)

    def test_the_median_interval_needs_enough_values_and_covers(self) -> None:
        assert median_interval([1.0, 2.0, 3.0, 4.0], 0.95) is None
        assert median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0], 0.95) == Interval(1.0, 6.0)
        source = random.Random(5)  # noqa: S311
        inside = 0
        for _ in range(400):
            interval = median_interval([source.expovariate(1.0) for _ in range(11)], 0.95)
            assert interval is not None
            inside += math.log(2) in interval
        assert inside >= 370


Outcome = Callable[[int, int], str]
"""Why a test fails, "" where it passes, by boot and run."""


def always(cause: str = "no") -> Outcome:
    return lambda _boot, _run: cause


def never() -> Outcome:
    return lambda _boot, _run: ""


def one_in(count: int, cause: str = "no") -> Outcome:
    """Return what fails in one of COUNT runs, on every boot alike."""
    return lambda boot, run: cause if (run + boot) % count == count - 1 else ""


def counted_by(outcome: Outcome, count: int) -> Tally:
    """Return what COUNT runs of the suite, on the first boot, count."""
    causes = Counter(cause for run in range(count) if (cause := outcome(0, run)))
    panics = Counter({cause: times for cause, times in causes.items() if "panic" in cause or "hang" in cause})
    return Tally(count, causes.total(), panics, causes - panics)


class Guests:
    """What runs on two kernels come to that are made again, by test; `made` are those on either."""

    def __init__(self, **outcomes: tuple[Outcome, Outcome]) -> None:
        self.outcomes = outcomes
        self.made = [0, 0]

    def decide(self, count: int = 1, confidence: float = 0.95) -> dict[str, Judgement]:
        """Return what is said after COUNT runs of the suite."""
        sides = [{name: counted_by(pair[side], count) for name, pair in self.outcomes.items()} for side in (0, 1)]
        return decide(sides[0], sides[1], self.again, confidence)

    def decide_by_boot(self, boots: dict[int, int]) -> dict[str, Judgement]:
        """Return what is said after so many runs of the suite on each of BOOTS."""
        seen: dict[int, dict[str, Seen]] = {
            boot: {
                name: ([base(boot, run) for run in range(count)], [other(boot, run) for run in range(count)])
                for name, (base, other) in self.outcomes.items()
            }
            for boot, count in boots.items()
        }

        def tally_of(test: str, side: int) -> Tally:
            causes = [cause or "" for tests in seen.values() for cause in tests[test][side]]
            return counted_by(lambda _, run: causes[run], len(causes))

        base, other = ({name: tally_of(name, side) for name in self.outcomes} for side in (0, 1))
        return decide(base, other, self.again, 0.95, seen)

    def again(self, runs: Runs) -> dict[tuple[str, int], Seen]:
        """Make the runs that are wanted."""
        self.made[0] += 0 if runs.only_other else len(runs.boots) * len(runs.runs)
        self.made[1] += len(runs.boots) * len(runs.runs)
        seen: dict[tuple[str, int], Seen] = {}
        for test in runs.tests:
            base, other = self.outcomes[test]
            for boot in runs.boots:
                before = [] if runs.only_other else [base(boot, run) for run in runs.runs]
                seen[test, boot] = before, [other(boot, run) for run in runs.runs]
        return seen


class TestVerdicts:
    """One test on two kernels."""

    @pytest.mark.parametrize(
        ("base", "other", "verdict", "is_broken"),
        [
            (never(), never(), Difference.SAME, False),
            (always(), always(), Difference.SAME, False),
            (never(), always(), Difference.BROKEN, True),
            (never(), one_in(5), Difference.BROKEN, True),
            (never(), lambda boot, _: "no" if boot == 0 else "", Difference.SUSPECT, False),
            (lambda boot, _: "no" if boot == 0 else "", never(), Difference.UNPROVEN, False),
            (always(), never(), Difference.FIXED, False),
            (always(), one_in(4), Difference.RARER, False),
            (one_in(4), never(), Difference.RARER, False),  # so many passes as would show more are not made
            (one_in(2), one_in(20), Difference.RARER, False),
            (one_in(3), lambda boot, run: one_in(3)(boot + 1, run + 1), Difference.FLAKY, False),
            (never(), always("panic: a"), Difference.PANICKED, True),
            (always("panic: a"), always("panic: a"), Difference.PANICKED, False),
            (always("panic: a"), always("panic: b"), Difference.PANICKED, True),
            (always("panic: a"), always("no"), Difference.CHANGED, False),
            (always("hang: a"), always("no"), Difference.CHANGED, False),
            (always("no"), always("hang: a"), Difference.PANICKED, True),
            (always("no"), always("something else"), Difference.CHANGED, False),
        ],
    )
    def test_verdict(self, base: Outcome, other: Outcome, verdict: Difference, *, is_broken: bool) -> None:
        judgement = Guests(t=(base, other)).decide(21)["t"]
        assert (judgement.verdict, judgement.is_broken) == (verdict, is_broken)
        assert judgement.confidence == (0.95 if is_broken or verdict in NAMED else 0.0)

    def test_a_new_panic_beside_an_old_one_is_new(self) -> None:
        def both(boot: int, run: int) -> str:
            return "panic: new" if (run + boot) % 3 == 0 else "panic: old"

        judgement = Guests(t=(always("panic: old"), both)).decide(3)["t"]
        assert (judgement.verdict, judgement.is_broken) == (Difference.PANICKED, True)
        assert "panic: new" in judgement.note

    @pytest.mark.parametrize(("suspected", "runs_needed"), [(1, 3), (4, 4), (16, 5)])
    def test_what_is_broken_always_is_said_so_after_the_fewest_runs(self, suspected: int, runs_needed: int) -> None:
        """Three runs on boots of their own suffice for one suspicion; a test that fails every other time does two."""
        flakes = {f"f{number}": (never(), lambda boot, _: "" if boot else "no") for number in range(suspected - 1)}
        guests = Guests(t=(never(), always()), **flakes)
        steps = []
        inquiry = Inquiry(0.05)
        inquiry.look(Suspicion(name, True) for name in guests.outcomes)
        while (runs := inquiry.wanted()) is not None:
            inquiry.observe(runs, guests.again(runs))
            (found,) = (trial for _, trial in inquiry.trials if trial.suspicion.test == "t")
            steps.append((found.counts()[3], found.state))
        assert next(made for made, state in steps if state is State.NAMED) == runs_needed
        assert all(trial.state is not State.NAMED for _, trial in inquiry.trials if trial.suspicion.test != "t")

    def test_many_that_are_broken_together_need_no_more_runs_than_one(self) -> None:
        guests = Guests(**{f"t{number}": (never(), always()) for number in range(40)})
        assert all(judgement.is_broken for judgement in guests.decide().values())
        assert guests.made == [3, 3]

    def test_a_fix_is_said_only_where_a_rarer_failure_would_have_shown(self) -> None:
        guests = Guests(t=(always(), never()))
        assert guests.decide()["t"].verdict is Difference.FIXED
        assert guests.made == [3, 36]  # a failure in one of ten runs would have shown
        rarer = Guests(t=(always(), lambda _, run: "no" if run == 12 else "")).decide()["t"]
        assert rarer.verdict is Difference.RARER
        assert "rarer: 100% to 8%" in explain(rarer, counted(1, 1), counted(0, 1), 0.95)

    def test_a_boots_peculiarity_is_not_the_kernels(self) -> None:
        """Whatever happens on a few boots for certain, in however many runs, is not evidence of more than those."""
        judgement = Guests(t=(never(), lambda boot, _: "no" if boot in {0, 1, 2} else "")).decide(50)["t"]
        assert (judgement.verdict, judgement.is_broken) == (Difference.SUSPECT, False)

    def test_looking_again_after_more_runs_costs_error_and_keeps_what_was_known(self) -> None:
        inquiry = Inquiry(0.05)
        guests = Guests(t=(never(), always()), u=(never(), always()))
        for test in ("t", "u"):
            settle(inquiry, [Suspicion(test, True), Suspicion("t", True)], guests.again)
        (first,), (second,) = (look.trials for look in inquiry.looks)
        assert (first.state, second.state) == (State.NAMED, State.NAMED)
        assert set(first.boots) & set(second.boots) == set()
        assert len(second.boots) > len(first.boots)

    def test_what_the_suite_did_on_boots_after_the_first_failure_is_evidence(self) -> None:
        """Four boots have all the runs that a test that is broken always needs, after the one that raised suspicion."""
        guests = Guests(t=(never(), always()), u=(never(), never()))
        judgements = guests.decide_by_boot({boot_of_suite(repeat): 4 for repeat in range(16)})
        assert judgements["t"].is_broken
        assert judgements["t"].again is not None
        assert (judgements["t"].again.other, judgements["t"].again.boots) == ((12, 12), 3)
        assert guests.made == [0, 0]

    def test_the_boot_that_raised_a_suspicion_is_no_evidence_of_it(self) -> None:
        boots = [boot_of_suite(repeat) for repeat in range(0, 16, 4)]
        assert boots == [0, 101, 102, 103]
        peculiar = Guests(t=(never(), lambda boot, _: "no" if boot in boots[1:3] else ""))
        judgement = peculiar.decide_by_boot(dict.fromkeys(boots, 4))["t"]
        assert (judgement.verdict, judgement.is_broken) == (Difference.SUSPECT, False)
        (found,) = raised({boot: {"t": (["", ""], ["", "no"])} for boot in boots}).values()
        assert list(found) == boots[1:]
        unknown: Seen = (["", None], [None, "no"])
        assert raised({boot: {"t": unknown} for boot in boots}) == {}

    def test_a_suspicion_that_is_none_any_more_counts_among_the_others(self) -> None:
        boots = {0: {"u": ([""], ["no"]), "t": ([""], ["no"])}}
        boots |= {100 + boot: {"u": (["no"] * 4, [""] * 4), "t": ([""] * 4, ["no"] * 4)} for boot in range(1, 4)}
        known = raised(boots)
        assert {len(seen) for seen in known.values()} == {3}
        alone, beside = Inquiry(0.05), Inquiry(0.05)
        alone.look([Suspicion("t", True)], {Suspicion("t", True): known[Suspicion("t", True)]})
        beside.look([Suspicion("t", True)], known)
        assert [trial.state for _, trial in alone.trials] == [State.NAMED]
        assert [trial.state for _, trial in beside.trials] == [State.OPEN, State.UNSETTLED]
        runs_wanted = beside.wanted()
        assert runs_wanted is not None
        assert runs_wanted.tests == ("t",)

    def test_what_hundreds_of_tests_did_raises_no_suspicion_with_evidence_of_its_own(self) -> None:
        seen: dict[str, Seen] = {f"t{number}": ([""], ["no"]) for number in range(MOST_SUSPICIONS + 1)}
        assert raised({0: seen, 101: seen}) == {}

    def test_lost_runs_say_nothing_and_end_nothing(self) -> None:
        guests = Guests(t=(never(), always()))
        lost = 0

        def laboratory(runs: Runs) -> dict[tuple[str, int], Seen]:
            nonlocal lost
            seen = guests.again(runs)
            if lost == 0:
                lost += 1
                return {place: ([None] * len(base), other) for place, (base, other) in seen.items()}
            return seen

        sides = [{"t": counted_by(outcome, 1)} for outcome in guests.outcomes["t"]]
        assert decide(sides[0], sides[1], laboratory, 0.95)["t"].is_broken
        nothing = decide(sides[0], sides[1], lambda _: {}, 0.95)["t"]
        assert nothing.verdict is Difference.SUSPECT
        assert "could not be run again" in explain(nothing, sides[0]["t"], sides[1]["t"], 0.95)

    def test_hundreds_of_suspicions_are_not_all_tried(self) -> None:
        guests = Guests(**{f"t{number}": (never(), always()) for number in range(300)})
        judgements = guests.decide().values()
        assert sum(judgement.is_broken for judgement in judgements) == MOST_SUSPICIONS
        assert sum(judgement.verdict is Difference.SUSPECT for judgement in judgements) == 300 - MOST_SUSPICIONS

    @settings(deadline=None)
    @given(st.lists(st.floats(0, 1e4), min_size=1, max_size=6), st.floats(1, 100))
    def test_closed_testing_is_what_all_subsets_say(self, purses: list[float], bound: float) -> None:
        for number, shown in enumerate(surviving(purses, bound)):
            others = [purse for other, purse in enumerate(purses) if other != number]
            means = [
                statistics.fmean([purses[number], *subset])
                for size in range(len(others) + 1)
                for subset in combinations(others, size)
            ]
            # At the very bound the order of additions decides.
            if all(abs(mean - bound) > 1e-6 for mean in means):
                assert shown == (min(means) >= bound)

    def test_a_panic_is_known_by_its_functions_not_by_its_numbers(self) -> None:
        first = result("t", "failed", PATHNAME_PANIC).death
        assert first == (
            "Fatal trap 12: page fault while in kernel mode in cache_fullpath < sysctl_kern_proc_pathname < sysctl_root"
        )
        moved = PATHNAME_PANIC.replace("0xffffffff806b1c35", "0x1").replace("+0xf5", "+0x105").replace("813", "99")
        assert result("t", "failed", moved).death == first
        assertion = 'panic: assertion "x" failed in f at kern_proc.c:{0}\ncpuid = 0\n'
        assert result("t", "failed", assertion.format(123)).death == result("t", "failed", assertion.format(456)).death
        assert result("t", "failed", "a program said panic: help\n").death is None

    def test_a_test_that_fails_twice_in_one_run_failed_once(self) -> None:
        results = [result("t", "passed"), result("t", "failed", reason="E teardown"), result("u", "not applicable")]
        tallies = tally([record(*results)])
        assert tallies["t"].pair == (1, 1)
        assert (tallies["u"].runs, tallies["u"].inapplicable) == (0, 1)

    @pytest.mark.parametrize(
        ("verdict", "pair"),
        [("failed", (1, 1)), ("panic", (1, 1)), ("hang", (1, 1)), ("guest lost", (0, 0)), ("harness error", (0, 0))],
    )
    def test_only_what_speaks_against_the_kernel_counts(self, verdict: str, pair: tuple[int, int]) -> None:
        about = replace(result("t", verdict), fingerprint="f<g" if pair[0] else "")
        one = tally([record(about)])["t"]
        assert one.pair == pair
        if verdict == "hang":
            assert one.panics == Counter({"hang: f<g": 1})


STOCK, PATCHED, THIRD = (Contender(name, name, ()) for name in ("stock", "patched", "third"))


class TestComparisons:
    """From records to an exit status and a report."""

    def compare(self, *sequences: list[Run]) -> Comparison:
        """Compare kernels on which further runs go like the SEQUENCES, over and over."""

        def again(runs_: Runs, sides: Sequence[list[Run]]) -> dict[tuple[str, int], Seen]:
            def outcomes(test: str, boot: int, side: list[Run]) -> list[str | None]:
                made = (side[(boot + run) % len(side)].record for run in runs_.runs)
                return [
                    worst_results(one)[test].failed_for if one and test in worst_results(one) else None for one in made
                ]

            return {
                (test, boot): (
                    [] if runs_.only_other else outcomes(test, boot, sides[0]),
                    outcomes(test, boot, sides[1]),
                )
                for test in runs_.tests
                for boot in runs_.boots
            }

        inquiries = []
        base, *others = tallies_of(sequences)
        for other, sequence in zip(others, sequences[1:], strict=True):
            inquiry = Inquiry(0.05 / len(others))
            settle(inquiry, suspects(base, other), partial(again, sides=(sequences[0], sequence)))
            inquiries.append(inquiry)
        return compare_runs((STOCK, PATCHED, THIRD)[: len(sequences)], sequences, inquiries)

    @pytest.mark.parametrize(
        ("stock", "patched", "code"),
        [
            (runs("passed"), runs("passed"), ExitCode.PASSED),
            (runs("failed"), runs("passed"), ExitCode.PASSED),
            (runs("passed"), runs("failed"), ExitCode.TEST_FAILED),
            (runs("passed", "passed"), runs("passed", "panic"), ExitCode.TEST_FAILED),
            (runs("passed"), runs("guest lost"), ExitCode.HARNESS_FAILED),
            (runs("guest lost"), runs("passed"), ExitCode.HARNESS_FAILED),
            (runs("passed", "passed"), runs("passed", "guest lost"), ExitCode.PASSED),
            (runs("passed"), runs("not applicable"), ExitCode.PASSED),
            (runs("passed", "passed"), [*runs("passed"), Run(None, "QEMU ended")], ExitCode.PASSED),
            (runs("passed", "passed"), [*runs("failed"), Run(None, "QEMU ended")], ExitCode.TEST_FAILED),
            (runs("panic"), runs("panic"), ExitCode.PASSED),
            (runs("passed"), [DIED], ExitCode.TEST_FAILED),
            (runs("passed"), [Run(None, "qemu-system-x86_64 is not installed")], ExitCode.HARNESS_FAILED),
            ([DIED], runs("passed"), ExitCode.HARNESS_FAILED),
        ],
    )
    def test_exit_status(self, stock: list[Run], patched: list[Run], code: ExitCode) -> None:
        assert self.compare(stock, patched).exit_code == code

    def test_three_kernels_are_each_held_against_the_first(self) -> None:
        comparison = self.compare(runs(*["panic"] * 5), runs("panic", *["passed"] * 4), runs(*["passed"] * 5))
        (test,) = comparison.tests
        assert [judgement.verdict for judgement in test.judgements] == [Difference.RARER, Difference.FIXED]
        # Both share the permitted error: one boot more is needed than for one kernel alone.
        assert test.judgements[1].again is not None
        assert test.judgements[1].again.base == (4, 4)

    def test_most_of_a_suite_that_was_lost_is_not_called_the_same(self) -> None:
        many = [result(f"t::test_{number}", "passed") for number in range(925)]
        few = RunRecord(
            "a kernel", is_dragonfly=True, results=tuple(many[:5]), not_run=tuple(one.test for one in many[5:])
        )
        comparison = self.compare([Run(record(*many))], [Run(few, "the host's disk is full", 3)])
        assert comparison.exit_code == ExitCode.HARNESS_FAILED
        assert comparison.counts(1) == {Difference.SAME: 5, Difference.LOST: 920}
        assert conclusion(comparison) == "The comparison is not complete: 920 tests were lost."
        assert "not all of its 1 runs are whole: the host's disk is full" in to_markdown(comparison)

    def test_one_lost_run_of_twenty_leaves_nineteen(self) -> None:
        comparison = self.compare(runs(*["passed"] * 20), [*runs(*["passed"] * 19), Run(None, "QEMU ended")])
        assert comparison.exit_code == ExitCode.PASSED
        assert [tally_.runs for tally_ in comparison.tests[0].tallies] == [20, 19]
        assert "patched: not all of its 20 runs are whole: QEMU ended" in to_markdown(comparison)

    def test_a_kernel_that_dies_between_tests_is_held_against_one_that_does_not(self) -> None:
        death = result(BETWEEN_TESTS, "panic", PATHNAME_PANIC)
        passed = result("t::test_a", "passed")
        comparison = self.compare([Run(record(passed))], [Run(record(passed, death))])
        (between,) = (test for test in comparison.tests if test.test == BETWEEN_TESTS)
        assert [tally_.pair for tally_ in between.tallies] == [(0, 1), (1, 1)]

    def test_the_record_is_plain_json_and_says_it_all(self) -> None:
        comparison = self.compare(runs("panic", "panic", "panic"), runs("passed", "passed", "passed"))
        data = json.loads(json.dumps(comparison.to_json()))
        assert Comparison.from_json(data) == comparison
        (test,) = data["tests"]
        assert test["judgements"][0]["verdict"] == "fixed"
        assert test["tallies"][0]["panics"] == {result("t", "failed", PATHNAME_PANIC).death: 3}
        assert test["tallies"][1]["failure_rate"] == [0.0, pytest.approx(1 - 0.025 ** (1 / 3), abs=1e-6)]
        assert (data["exit_status"], data["targets"][1]["name"]) == (0, "patched")

    def test_reports_show_what_differs_and_leave_out_what_does_not(self) -> None:
        sequences = [
            [Run(record(result("a|b::test_differs", verdict), result("t::test_alike", "passed")))]
            for verdict in ("passed", "failed")
        ]
        comparison = self.compare(*sequences)
        markdown = to_markdown(comparison)
        assert "| `a\\|b::test_differs` | passes | **broken**: fails |" in markdown
        assert "test_alike" not in markdown
        assert "patched: 1 same, 1 broken" in markdown
        console = Console(width=140, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
        print_comparison(comparison, console)
        shown = console.export_text()
        assert "test_differs" in shown
        assert "test_alike" not in shown

    def test_what_is_not_applicable_neither_passes_nor_tells_kernels_apart(self) -> None:
        nowhere = self.compare(runs("not applicable"), runs("not applicable"))
        assert nowhere.counts(1) == {Difference.NOT_APPLICABLE: 1}
        assert news(nowhere) == []
        assert conclusion(nowhere) == "No test was compared."
        assert "patched: 1 not applicable" in to_markdown(nowhere)
        later = self.compare(runs("not applicable"), runs("passed"))
        assert (later.counts(1), news(later)) == ({Difference.NOT_APPLICABLE: 1}, [])

    @pytest.mark.parametrize(
        ("versions", "verdicts", "verdict", "code"),
        [
            ((600512, 600512), ("passed", "not applicable"), Difference.LOST, ExitCode.HARNESS_FAILED),
            ((600512, 600400), ("passed", "not applicable"), Difference.NOT_APPLICABLE, ExitCode.PASSED),
            ((0, 0), ("passed", "not applicable"), Difference.NOT_APPLICABLE, ExitCode.PASSED),
            ((600512, 600512), ("not applicable", "passed"), Difference.NOT_APPLICABLE, ExitCode.PASSED),
            ((600512, 600512), ("not applicable", "not applicable"), Difference.NOT_APPLICABLE, ExitCode.PASSED),
        ],
    )
    def test_what_a_kernel_of_the_same_version_lacks_is_lost(
        self, versions: tuple[int, int], verdicts: tuple[str, str], verdict: Difference, code: ExitCode
    ) -> None:
        sequences = [
            [Run(replace(record(result("t::test_a", word), result("t::test_b", "passed")), osreldate=version))]
            for version, word in zip(versions, verdicts, strict=True)
        ]
        comparison = self.compare(*sequences)
        assert comparison.tests[0].judgements[0].verdict is verdict
        assert comparison.exit_code is code
        assert ("this one lacks what the baseline has" in to_markdown(comparison)) == (verdict is Difference.LOST)

    def test_a_test_that_was_lost_is_told(self) -> None:
        lost = self.compare(runs("passed"), runs("guest lost"))
        assert (lost.counts(1), news(lost)) == ({Difference.LOST: 1}, [])  # nothing was compared
        assert conclusion(lost).startswith("The comparison is not complete")
        assert conclusion(self.compare(runs("passed"), runs("passed"))) == "Nothing is broken."

    def test_one_page_has_verdicts_causes_of_panics_and_costs_with_a_plot(self) -> None:
        comparison = self.compare(runs("passed"), runs("panic"))
        timed = judge_times("setsid", [(1e-6, 3e-6, 3e-6, 1e-6)] * 10, 0.99)
        comparison.costs = [Costs("stock", "<new>", [timed], {"kill": "no"})]
        shown = comparison_page(comparison)
        assert '<strong class="bad">Something is broken.</strong>' in shown
        assert '<strong class="bad">panicked</strong>: panics' in shown
        assert "<code>Fatal trap 12: page fault while in kernel mode in cache_fullpath" in shown
        assert "<svg" in shown
        assert "3.000" in shown
        assert "SLOWER" in shown
        assert "kill: not measured: no" in shown
        assert "<new>" not in shown

    @needs_browser
    @pytest.mark.parametrize("width", WIDTHS)
    def test_a_browser_shows_the_page_without_scrolling_sideways(self, tmp_path: Path, width: int) -> None:
        comparison = self.compare(runs("passed", "passed", "failed"), runs("panic", "failed", "failed"))
        timed = [
            judge_times(f"kern.proc.all, {size} processes more", [(1e-5, size * 1e-6, size * 1e-6, 1e-5)] * 10, 0.99)
            for size in (10, 100, 400)
        ]
        comparison.costs = [Costs("stock", "patched_" * 12, timed)]
        seen = look(comparison_page(comparison), width, tmp_path)
        assert_readable(seen, width)
        assert [title.partition(" ")[0] for title in seen["plots"]] == ["How", "patched_" * 12, "kern.proc.all:"]

    def test_a_kernel_that_does_not_boot_is_one_line_not_a_table(self) -> None:
        markdown = to_markdown(self.compare(runs("passed"), [DIED]))
        assert "patched: NOT COMPARED: boot failure: panic: no" in markdown
        assert "test_a" not in markdown

    @pytest.mark.parametrize(
        ("share_", "text"), [(0.0, "0%"), (1.0, "100%"), (0.5, "50%"), (0.999, "99.9%"), (0.0004, "0.04%")]
    )
    def test_percentages_never_round_to_certainty(self, share_: float, text: str) -> None:
        assert percent(share_) == text


TEST_FILE = """
import os

def test_it(init):
    file = os.environ["COUNT_FILE"]
    with open(file, "a") as stream:
        stream.write(os.environ["DFLY_HARNESS_SEED"] + "\\n")
    assert init.fork().pid > 1
"""


class TestCampaigns:
    """Whole comparisons, on the oracle."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Store(tmp_path / "store")

    @pytest.fixture
    def plan(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
        suite = tmp_path / "suite"
        suite.mkdir()
        (suite / "test_it.py").write_text(TEST_FILE)
        monkeypatch.setenv("COUNT_FILE", str(tmp_path / "count"))
        arguments = (f"--rootdir={suite}", "-p", "harness.plugin.entry")
        oracle = Contender("oracle", "oracle", ("--dfly-oracle",))
        both = oracle, Contender("again", "again", ("--dfly-oracle",))
        return Plan(both, (str(suite),), arguments, suite, 100, digest_of_tests([suite]))

    def seeds(self, tmp_path: Path) -> list[int]:
        return sorted(map(int, (tmp_path / "count").read_text().split()))

    def test_runs_have_the_same_seeds_and_are_made_once(self, store: Store, plan: Plan, tmp_path: Path) -> None:
        comparison = Campaign(store, plan, jobs=2).run(2, 0.95)
        assert comparison.exit_code == ExitCode.PASSED, [kernel.prevented for kernel in comparison.kernels]
        assert self.seeds(tmp_path) == [100, 100, 101, 101]
        campaign = Campaign(store, plan)
        assert campaign.known_runs(3) == 4
        assert [tally_.runs for tally_ in campaign.run(3, 0.95).tests[0].tallies] == [3, 3]
        assert self.seeds(tmp_path) == [100, 100, 101, 101, 102, 102]
        Campaign(store, plan, fresh=True).run(1, 0.95)
        assert self.seeds(tmp_path).count(100) == 4

    def test_other_tests_are_another_plan(self, plan: Plan, tmp_path: Path) -> None:
        before = digest_of_tests([tmp_path / "suite"])
        assert before == plan.suite_digest
        (tmp_path / "suite/test_it.py").write_text(TEST_FILE + "# more\n")
        assert digest_of_tests([tmp_path / "suite" / "test_it.py"]) != before

    @pytest.mark.parametrize(
        "change",
        [
            {"surroundings": ("8.2.0", "tcg", "x")},
            {"surroundings": ("7.2.0", "kvm", "x")},
            {"surroundings": ("7.2.0", "tcg", "y")},
            {"seed": 1},
            {"tests": ("other",)},
            {"suite_digest": "other"},
        ],
    )
    def test_runs_of_another_qemu_accelerator_or_harness_are_not_used(self, plan: Plan, change: dict[str, Any]) -> None:
        known = replace(plan, surroundings=("7.2.0", "tcg", "x"))
        assert replace(known, **change).key != known.key

    def test_the_command_keys_runs_by_all_they_depend_on(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        def key(version: str, accelerator: Accelerator, code: str) -> str:
            monkeypatch.setattr(compare_command, "qemu_version", lambda: version)
            monkeypatch.setattr(compare_command, "digest_of_harness", lambda: code)
            monkeypatch.setattr(compare_command, "_contender", lambda word, *_: Contender(word, word, ()))
            options = build_parser("compare").parse_args(["compare", "control", "oracle"])
            given = TargetOptions(accelerator=accelerator)
            return compare_command._plan(options, given, store, lambda _: None).key

        known = key("7.2.0", Accelerator.TCG, "x")
        assert key("7.2.0", Accelerator.TCG, "x") == known
        assert key("8.2.0", Accelerator.TCG, "x") != known
        assert key("7.2.0", Accelerator.KVM, "x") != known
        assert key("7.2.0", Accelerator.TCG, "y") != known

    def test_machines_of_its_own_for_each_test_are_asked_for_where_there_are_machines(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compare_command, "qemu_version", lambda: "7.2.0")
        options = build_parser("compare").parse_args(["compare", "control", "oracle", "--pristine"])
        control, oracle = compare_command._plan(options, TargetOptions(), store, lambda _: None).contenders
        assert "--dfly-pristine" in control.options
        assert "--dfly-pristine" not in oracle.options

    def test_the_harness_is_known_by_its_code(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert len(digest_of_harness()) == 64
        package = tmp_path / "harness"
        package.mkdir()
        monkeypatch.setattr("harness.__file__", str(package / "__init__.py"))
        digests = set()
        for name, text in (("__init__.py", ""), ("__init__.py", "x = 1"), ("executor.c", "int x;"), ("a.pyc", "")):
            (package / name).write_text(text)
            digests.add(digest_of_harness())
        assert len(digests) == 3

    def test_what_seems_to_differ_is_run_again_on_other_boots_and_once(
        self, store: Store, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A test that failed once by chance is tried on both sides, with new seeds, and not named."""
        suite = tmp_path / "suite/test_it.py"
        suite.write_text(TEST_FILE + "    assert file.endswith('again') or os.environ['DFLY_HARNESS_SEED'] == '0'\n")
        suite.write_text(suite.read_text() + "def test_other(init):\n    pass\n")
        monkeypatch.setenv("COUNT_FILE", str(tmp_path / "again"))
        monkeypatch.setattr("harness.compare.campaign._SEED_AGAIN", 5000)
        code = "def pytest_addoption(parser):\n    parser.addoption('--side')\ndef pytest_configure(config):\n"
        code += "    import os\n    os.environ['COUNT_FILE'] = config.getoption('--side')\n"
        (tmp_path / "suite/conftest.py").write_text(code)
        sides = [
            Contender(name, name, ("--dfly-oracle", "--side", str(tmp_path / name))) for name in ("again", "broken")
        ]
        comparison = Campaign(store, replace(plan, contenders=tuple(sides))).run(1, 0.95)
        assert comparison.exit_code == ExitCode.TEST_FAILED
        seeds = [int(word) for word in (tmp_path / "broken").read_text().split()]
        assert seeds == [100, 6100, 7100, 8100]
        again = comparison.tests[0].judgements[0].again
        assert again is not None
        assert (again.base, again.other, again.boots) == ((0, 3), (3, 3), 3)
        Campaign(store, replace(plan, contenders=tuple(sides))).run(1, 0.95)
        assert len((tmp_path / "broken").read_text().split()) == 4
        kept = Campaign(store, replace(plan, contenders=tuple(sides))).run(1, 0.95, again=False)
        assert kept.exit_code == ExitCode.PASSED

    def test_a_suite_that_is_repeated_often_runs_on_several_boots_and_they_are_evidence(
        self, store: Store, plan: Plan, tmp_path: Path
    ) -> None:
        """What is broken always is named by sixteen runs of the suite without one more, now and when it goes on."""
        (tmp_path / "suite/test_it.py").write_text("import os\ndef test_it():\n    assert not os.environ['BROKEN']\n")
        code = "def pytest_addoption(parser):\n    parser.addoption('--broken', default='')\n"
        code += (
            "def pytest_configure(config):\n    import os\n    os.environ['BROKEN'] = config.getoption('--broken')\n"
        )
        code += "    boot = str(config.getoption('--dfly-boot'))\n"
        code += f"    open({str(tmp_path / 'boots')!r}, 'a').write(boot + chr(10))\n"
        (tmp_path / "suite/conftest.py").write_text(code)
        sides = Contender("a", "a", ("--dfly-oracle",)), Contender("b", "b", ("--dfly-oracle", "--broken=yes"))
        for _ in range(2):
            comparison = Campaign(store, replace(plan, contenders=sides), jobs=2).run(16, 0.95)
            again = comparison.tests[0].judgements[0].again
            assert again is not None
            assert (again.base, again.other, again.boots) == ((0, 12), (12, 12), 3)
            assert comparison.exit_code == ExitCode.TEST_FAILED
        boots = Counter((tmp_path / "boots").read_text().split())
        assert boots == Counter(dict.fromkeys(("0", "101", "102", "103"), 8))

    def test_a_chance_failure_is_run_again_many_times_in_one_process_and_not_named(
        self, store: Store, plan: Plan, tmp_path: Path
    ) -> None:
        suite = tmp_path / "suite/test_it.py"
        suite.write_text(TEST_FILE + "    assert 'again' not in file or os.environ['DFLY_HARNESS_SEED'] != '100'\n")
        code = "def pytest_addoption(parser):\n    parser.addoption('--side')\ndef pytest_configure(config):\n"
        code += "    import os\n    os.environ['COUNT_FILE'] = config.getoption('--side')\n"
        (tmp_path / "suite/conftest.py").write_text(code)
        sides = [
            Contender(name, name, ("--dfly-oracle", "--side", str(tmp_path / name))) for name in ("a", "the-again")
        ]
        comparison = Campaign(store, replace(plan, contenders=tuple(sides)), jobs=2, most_boots=3).run(1, 0.95)
        assert comparison.exit_code == ExitCode.PASSED
        (judgement,) = comparison.tests[0].judgements
        assert judgement.verdict is Difference.SUSPECT
        assert judgement.again is not None
        assert (judgement.again.base, judgement.again.other, judgement.again.boots) == ((0, 12), (0, 12), 3)
        for name in ("a", "the-again"):
            assert len((tmp_path / name).read_text().split()) == 13

    def test_a_full_disk_is_no_reason_to_give_a_suspicion_up(
        self, store: Store, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What cannot be run again for want of room ends the comparison in words; once there is room it goes on."""
        (tmp_path / "suite/test_it.py").write_text("import os\ndef test_it():\n    assert not os.environ['BROKEN']\n")
        code = "def pytest_addoption(parser):\n    parser.addoption('--broken', default='')\n"
        code += "def pytest_configure(config):\n    import os\n"
        code += "    os.environ['BROKEN'] = config.getoption('--broken')\n"
        (tmp_path / "suite/conftest.py").write_text(code)
        sides = Contender("a", "a", ("--dfly-oracle",)), Contender("b", "b", ("--dfly-oracle", "--broken=yes"))
        campaign = Campaign(store, replace(plan, contenders=sides))
        real = campaign._runner.run
        full = Run(None, "no room", 3, Trouble(Verdict.HARNESS_ERROR, "no room for the target's warm state"))

        def run(arguments: Sequence[str], seed: int, record: Path) -> Run:
            return full if record.name.startswith("again-") else real(arguments, seed, record)

        monkeypatch.setattr(campaign._runner, "run", run)
        with pytest.raises(HarnessError, match=r"no room for the target's warm state.*goes on"):
            campaign.run(1, 0.95)
        monkeypatch.undo()
        monkeypatch.setenv("COUNT_FILE", "")
        (judgement,) = Campaign(store, replace(plan, contenders=sides)).run(1, 0.95).tests[0].judgements
        assert judgement.verdict is Difference.BROKEN

    def test_the_order_of_runs_goes_there_and_back(self, store: Store, plan: Plan) -> None:
        assert Campaign(store, plan).schedule(3) == [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1)]

    def test_a_run_that_cannot_be_is_reported_with_its_reason_and_tried_again(self, store: Store, plan: Plan) -> None:
        gone = Contender("gone", "gone", ("--dfly-kernel", "gone"))
        broken = replace(plan, contenders=(plan.contenders[0], gone))
        comparison = Campaign(store, broken).run(1, 0.95)
        assert comparison.exit_code == ExitCode.HARNESS_FAILED
        assert "no image" in comparison.kernels[1].prevented
        assert Campaign(store, broken).known_runs(1) == 1
        assert "NOT COMPARED" in to_markdown(comparison)

    def test_a_choice_that_matches_no_test_is_a_mistake_of_the_users(self, store: Store, plan: Plan) -> None:
        nothing = replace(plan, arguments=(*plan.arguments, "-k", "nothing"))
        with pytest.raises(UsageError, match="no test matches"):
            Campaign(store, nothing).run(1, 0.95)

    def test_a_wrong_variant_is_told_from_the_specification_by_the_command(self, tmp_path: Path) -> None:
        argv = [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())", "compare"]
        argv += ["oracle", "oracle:five-digit-pids", "--suite", "suites/conformance/test_pid_allocation.py"]
        argv += ["-k", "randompid", "--json", str(tmp_path / "c.json"), "--markdown", str(tmp_path / "c.md")]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=share(), check=False, timeout=300)
        assert done.returncode == 1, done.stderr
        data = json.loads((tmp_path / "c.json").read_text())
        verdicts = {judgement["verdict"] for test in data["tests"] for judgement in test["judgements"]}
        assert {"broken", "same"} <= verdicts
        assert "**broken**: fails" in (tmp_path / "c.md").read_text()
        assert "five-digit-pids" in done.stdout


def test_a_judgement_without_support_says_nothing() -> None:
    assert explain(Judgement(Difference.SAME), counted(0, 1), counted(0, 1), 0.95) == ""

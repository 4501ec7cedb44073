# SPDX-License-Identifier: BSD-2-Clause
"""Comparing kernels: exact statements about rates, verdicts per test, and whole comparisons on the oracle."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import WIDTHS, assert_readable, look, needs_browser
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness.compare.campaign import Campaign, Contender, Plan, compare_runs, digest_of_tests
from harness.compare.costs import judge_times
from harness.compare.verdicts import fingerprint, judge, tally
from harness.config import share
from harness.errors import ExitCode, UsageError
from harness.report.comparison import conclusion, explain, news, percent, print_comparison, to_markdown
from harness.report.comparison_page import comparison_page
from harness.results.certainty import (
    Interval,
    chance_of_fewer,
    is_sure,
    median_interval,
    passes_to_bound,
    rate_interval,
    runs_until_sure,
    upper_bound,
)
from harness.results.comparison import Comparison, Difference, Judgement, Tally
from harness.results.costs import Costs
from harness.results.record import RunRecord, TestResult, Trouble
from harness.results.verdict import Verdict
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

    @pytest.mark.parametrize("rate", [0.02, 0.2, 0.259, 0.3, 0.5, 0.97])
    @pytest.mark.parametrize("count", [5, 10, 20])
    def test_the_true_rate_is_missed_no_more_often_than_promised(self, rate: float, count: int) -> None:
        missed = math.fsum(
            math.comb(count, k) * rate**k * (1 - rate) ** (count - k)
            for k in range(count + 1)
            if rate not in rate_interval(k, count, 0.9)
        )
        assert missed <= 0.1 + 1e-9

    @settings(deadline=None)
    @given(st.integers(1, 12), st.integers(1, 12), st.data())
    def test_the_chance_of_luck_is_what_counting_all_cases_gives(self, first: int, second: int, data: Any) -> None:
        base, other = data.draw(st.integers(0, first)), data.draw(st.integers(0, second))
        failures = base + other
        cases = math.comb(first + second, failures)
        rare = sum(math.comb(second, k) * math.comb(first, failures - k) for k in range(other + 1))
        assert chance_of_fewer((base, first), (other, second)) == pytest.approx(rare / cases, abs=1e-9)

    def test_never_calling_luck_a_fix_more_often_than_promised(self) -> None:
        """Two equal kernels, every rate, every outcome: the chance that FIXED is said stays below 5%."""
        for rate in (0.05, 0.2, 0.5, 0.8, 0.95):
            for count in (1, 3, 6, 10):
                odds = [math.comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(count + 1)]
                wrong = math.fsum(
                    odds[k] * odds[0]
                    for k in range(count + 1)
                    if is_sure(chance_of_fewer((k, count), (0, count)), 0.95)
                )
                assert wrong <= 0.05, (rate, count)

    @pytest.mark.parametrize(
        ("base", "needed"), [((1, 1), 3), ((5, 5), 3), ((1, 2), 8), ((1, 10), 50), ((1, 100), 500), ((0, 9), None)]
    )
    def test_how_many_runs_it_takes(self, base: tuple[int, int], needed: int | None) -> None:
        assert runs_until_sure(base) == needed
        if needed is not None:
            rate = base[0] / base[1]
            assert is_sure(chance_of_fewer((int(rate * needed), needed), (0, needed)), 0.95)
            assert not is_sure(chance_of_fewer((int(rate * (needed - 1)), needed - 1), (0, needed - 1)), 0.95)

    def test_how_many_passes_bound_a_rate(self) -> None:
        assert passes_to_bound(0.05) == 59
        assert upper_bound(0, 59) < 0.05 < upper_bound(0, 58)
        said = explain(judge(counted(3, 3), counted(0, 3)), counted(3, 3), counted(0, 3), 0.95)
        assert "failure rate at most 63%" in said
        assert "59 passes in a row would show that it fails in less than 5% of the runs" in said

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


class TestVerdicts:
    """One test on two kernels."""

    @pytest.mark.parametrize(
        ("base", "other", "verdict", "is_broken"),
        [
            (counted(0, 1), counted(0, 1), Difference.SAME, False),
            (counted(3, 3), counted(3, 3), Difference.SAME, False),
            (counted(0, 1), counted(1, 1), Difference.BROKEN, True),
            (counted(0, 9), counted(1, 9), Difference.BROKEN, True),
            (counted(1, 1), counted(0, 1), Difference.UNPROVEN, False),
            (counted(3, 3), counted(0, 3), Difference.FIXED, False),
            (counted(1, 10), counted(0, 10), Difference.UNPROVEN, False),
            (counted(1, 10), counted(0, 189), Difference.UNPROVEN, False),
            (counted(1, 10), counted(0, 190), Difference.FIXED, False),
            (counted(3, 9), counted(4, 9), Difference.FLAKY, False),
            (counted(1, 20), counted(15, 20), Difference.BROKEN, True),
            (counted(9, 9), counted(4, 9), Difference.FLAKY, False),
            (counted(0, 3), counted(1, 3, panics=1), Difference.PANICKED, True),
            (counted(3, 3, panics=3), counted(3, 3, panics=3), Difference.PANICKED, False),
            (counted(3, 3, panics=3), counted(1, 3, panics=1), Difference.PANICKED, False),
            (counted(3, 3, panics=3), counted(3, 3, panics=3, fingerprint_="new"), Difference.PANICKED, True),
            (counted(3, 3, panics=3), counted(3, 3), Difference.SAME, False),
            (counted(0, 0), counted(0, 3), Difference.NOT_RUN, False),
        ],
    )
    def test_verdict(self, base: Tally, other: Tally, verdict: Difference, *, is_broken: bool) -> None:
        judgement = judge(base, other)
        assert (judgement.verdict, judgement.is_broken) == (verdict, is_broken)

    def test_an_unproven_fix_says_how_sure_it_is_and_what_is_missing(self) -> None:
        base, other = counted(1, 10), counted(0, 10)
        judgement = judge(base, other)
        assert judgement.confidence == pytest.approx(0.5)
        assert judgement.runs_needed == 50
        said = explain(judgement, base, other, 0.95)
        assert "50% certainty" in said
        assert "50 repeats would settle it at 95%" in said
        assert "failure rate at most 26%" in said

    @settings(deadline=None)
    @given(st.integers(0, 12), st.integers(1, 12), st.integers(0, 12), st.integers(1, 12))
    def test_nothing_that_fails_less_often_is_broken(self, a: int, n: int, b: int, m: int) -> None:
        base, other = counted(min(a, n), n), counted(min(b, m), m)
        judgement = judge(base, other)
        if other.failures / other.runs <= base.failures / base.runs:
            assert not judgement.is_broken
        if judgement.verdict is Difference.FIXED:
            assert judgement.confidence >= 0.95 - 1e-9
            assert other.failures == 0

    def test_a_panic_is_known_by_its_functions_not_by_its_numbers(self) -> None:
        first = fingerprint(result("t", "failed", PATHNAME_PANIC))
        assert first == (
            "Fatal trap 12: page fault while in kernel mode in cache_fullpath < sysctl_kern_proc_pathname < sysctl_root"
        )
        moved = PATHNAME_PANIC.replace("0xffffffff806b1c35", "0x1").replace("+0xf5", "+0x105").replace("813", "99")
        assert fingerprint(result("t", "failed", moved)) == first
        assertion = 'panic: assertion "x" failed in f at kern_proc.c:{0}\ncpuid = 0\n'
        assert fingerprint(result("t", "failed", assertion.format(123))) == fingerprint(
            result("t", "failed", assertion.format(456))
        )
        assert fingerprint(result("t", "failed", "a program said panic: help\n")) is None

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
        return compare_runs((STOCK, PATCHED, THIRD)[: len(sequences)], sequences)

    @pytest.mark.parametrize(
        ("stock", "patched", "code"),
        [
            (runs("passed"), runs("passed"), ExitCode.PASSED),
            (runs("failed"), runs("passed"), ExitCode.PASSED),
            (runs("passed"), runs("failed"), ExitCode.TEST_FAILED),
            (runs("passed", "passed"), runs("passed", "panic"), ExitCode.TEST_FAILED),
            (runs("panic"), runs("panic"), ExitCode.PASSED),
            (runs("passed"), [DIED], ExitCode.TEST_FAILED),
            (runs("passed"), [Run(None, "qemu-system-x86_64 is not installed")], ExitCode.HARNESS_FAILED),
            ([DIED], runs("passed"), ExitCode.HARNESS_FAILED),
        ],
    )
    def test_exit_status(self, stock: list[Run], patched: list[Run], code: ExitCode) -> None:
        assert self.compare(stock, patched).exit_code == code

    def test_three_kernels_are_each_held_against_the_first(self) -> None:
        comparison = self.compare(runs(*["panic"] * 5), runs(*["panic"] * 2, *["passed"] * 3), runs(*["passed"] * 5))
        (test,) = comparison.tests
        assert [judgement.verdict for judgement in test.judgements] == [Difference.PANICKED, Difference.FIXED]
        assert "less often" in test.judgements[0].note
        assert test.judgements[1].confidence == pytest.approx(1 - 1 / 252)

    def test_the_record_is_plain_json_and_says_it_all(self) -> None:
        comparison = self.compare(runs("panic", "panic", "panic"), runs("passed", "passed", "passed"))
        data = json.loads(json.dumps(comparison.to_json()))
        assert Comparison.from_json(data) == comparison
        (test,) = data["tests"]
        assert test["judgements"][0]["verdict"] == "fixed"
        assert test["tallies"][0]["panics"] == {fingerprint(result("t", "failed", PATHNAME_PANIC)): 3}
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
        lost = self.compare(runs("passed"), runs("guest lost"))
        assert (lost.counts(1), news(lost)) == ({Difference.NOT_RUN: 1}, [])
        assert conclusion(self.compare(runs("passed"), runs("passed"))) == "Nothing is broken."

    def test_one_page_has_verdicts_causes_of_panics_and_costs_with_a_plot(self) -> None:
        comparison = self.compare(runs("passed"), runs("panic"))
        timed = judge_times("setsid", [(1e-6, 3e-6, 3e-6, 1e-6)] * 8, 0.99)
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
            judge_times(f"kern.proc.all, {size} processes more", [(1e-5, size * 1e-6, size * 1e-6, 1e-5)] * 8, 0.99)
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
        arguments = (str(suite), f"--rootdir={suite}", "-p", "harness.plugin.entry")
        oracle = Contender("oracle", "oracle", ("--dfly-oracle",))
        return Plan((oracle, Contender("again", "again", ("--dfly-oracle",))), arguments, 100, digest_of_tests([suite]))

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

    def test_the_order_of_runs_goes_there_and_back(self, store: Store, plan: Plan) -> None:
        assert Campaign(store, plan).schedule(3) == [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1)]

    def test_a_run_that_cannot_be_is_reported_with_its_reason_and_tried_again(self, store: Store, plan: Plan) -> None:
        broken = Plan(
            (plan.contenders[0], Contender("gone", "gone", ("--dfly-kernel", "gone"))), plan.arguments, 0, "x"
        )
        comparison = Campaign(store, broken).run(1, 0.95)
        assert comparison.exit_code == ExitCode.HARNESS_FAILED
        assert "no image" in comparison.kernels[1].prevented
        assert Campaign(store, broken).known_runs(1) == 1
        assert "NOT COMPARED" in to_markdown(comparison)

    def test_a_choice_that_matches_no_test_is_a_mistake_of_the_users(self, store: Store, plan: Plan) -> None:
        nothing = Plan(plan.contenders, (*plan.arguments, "-k", "nothing"), 0, plan.suite_digest)
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

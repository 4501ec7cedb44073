# SPDX-License-Identifier: BSD-2-Clause
"""The order of tests: the longest first where there are workers, by chance where that is asked for."""

from __future__ import annotations

import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from harness.results.durations import keep_durations, read_durations
from harness.results.record import TestResult, read_record
from harness.results.verdict import Verdict
from harness.runs.order import Dealt, Order, next_ones
from harness.store import Store

TESTS = [f"t{number}" for number in range(20)]
SECONDS = {test: 1.0 + number for number, test in enumerate(TESTS)}


def arranged(order: Order, dealt: Dealt | None, ranks: dict[str, int] | None = None) -> list[str]:
    """Return TESTS in ORDER."""
    return order.arrange(TESTS, str, lambda test: (ranks or {}).get(test, 2), dealt)


def test_without_workers_they_stay_as_written_but_for_their_kind() -> None:
    assert arranged(Order(), None) == TESTS
    assert arranged(Order(), None, {"t7": 0, "t3": 3}) == ["t7", *(t for t in TESTS if t not in {"t7", "t3"}), "t3"]


def test_with_workers_the_longest_go_first_and_nobody_begins_with_two_of_them() -> None:
    found = arranged(Order(), Dealt(4, SECONDS))
    assert found[:8] == ["t19", "t0", "t18", "t1", "t17", "t2", "t16", "t3"]
    assert found[8:] == [f"t{number}" for number in range(15, 3, -1)]


def test_two_workers_with_much_to_do_begin_with_what_wants_the_same_machine() -> None:
    even = dict.fromkeys(TESTS, 1.0)
    assert arranged(Order(), Dealt(2, even), {"t9": 0, "t4": 0})[:2] == ["t4", "t9"]


@pytest.mark.parametrize(
    ("left", "present", "others", "taken"),
    [
        ([0, 1, 2, 3, 4, 5], 1, {0}, [2, 3]),  # it goes on with the machine it has
        ([0, 1, 2, 3, 4, 5], 1, {1}, [2, 3]),  # also where another has one like it
        ([0, 1, 2, 3, 4, 5], None, set(), [0, 1]),
        ([0, 1, 2, 3, 4, 5], None, {0}, [2, 3]),  # rather than a second machine of a kind
        ([0, 1, 4, 5], 1, {0}, [4, 5]),
        ([0, 1, 4, 5, 6], 1, {0, 2}, [4, 5]),  # where all have somebody: what most is left of
        ([1, 2, 3, 4], 0, {2}, [1, 2]),  # a single one is not enough to begin with
        ([1, 4], 0, {2}, [1, 4]),
        ([3], None, {1}, [3]),
        ([], 1, set(), []),
    ],
)
def test_a_worker_goes_on_with_the_kind_of_machine_that_it_has(
    left: list[int], present: int | None, others: set[int], taken: list[int]
) -> None:
    assert next_ones(left, [0, 0, 1, 1, 2, 2, 2], present, others, 2) == taken


KINDS = """
import pytest

@pytest.mark.parametrize("turn", range(30))
def test_usual(init, turn): assert init.getpid()

@pytest.mark.slow_clock(1)
@pytest.mark.parametrize("turn", range(9))
def test_slow(init, turn): assert init.getpid()

@pytest.mark.cpus(2)
@pytest.mark.parametrize("turn", range(9))
def test_cpus(init, turn): assert init.getpid()
"""


@pytest.mark.parametrize("order", ["longest", "written"])
def test_a_worker_leaves_a_kind_of_machine_when_no_test_wants_it_any_more(tmp_path: Path, order: str) -> None:
    """However fast the workers are; in an order that the user wants each takes the next ones."""
    (tmp_path / "test_kinds.py").write_text(KINDS)
    record = tmp_path / "record.json"
    argv = [sys.executable, *f"-m pytest -p harness.plugin.entry --dfly-oracle -q -n 2 --dfly-order {order}".split()]
    done = subprocess.run(
        [*argv, "--dfly-json", str(record), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    taken: dict[str, list[str]] = {"gw0": [], "gw1": []}
    for result in read_record(record).results:
        taken[result.worker].append(result.test.partition("::")[2].partition("[")[0])
    blocks = {worker: [kind for kind, _ in groupby(tests)] for worker, tests in taken.items()}
    assert all(len(kinds) == len(set(kinds)) for kinds in blocks.values()), blocks
    first = {"longest": ["test_cpus", "test_slow"], "written": ["test_usual", "test_usual"]}[order]
    assert sorted(kinds[0] for kinds in blocks.values()) == first  # who is ready first begins with the first


def test_unknown_ones_count_as_the_average() -> None:
    found = arranged(Order(), Dealt(1, {"t0": 1.0, "t1": 9.0}))
    assert (found[0], found[-1]) == ("t1", "t0")


def test_by_chance_it_depends_on_the_seed_alone() -> None:
    one, same, other = (arranged(Order("random", seed), None) for seed in (1, 1, 2))
    assert sorted(one) == sorted(TESTS)
    assert one == same
    assert one not in (other, TESTS)
    assert Order("random", 1).arrange(TESTS[::-1], str, lambda _: 0, Dealt(2, SECONDS)) == one


@pytest.mark.parametrize("text", ["longest", "written", "random:0", "random:17"])
def test_orders_are_read_as_they_are_shown(text: str) -> None:
    assert str(Order.parse(text)) == text


@pytest.mark.parametrize("text", ["", "random", "random:", "random:x", "random:-1", "shortest", "longest:1"])
def test_what_is_none_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no order: longest, written, or random:SEED"):
        Order.parse(text)


def test_what_tests_took_is_kept_for_the_next_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert read_durations(store) == {}
    took = TestResult("a", Verdict.PASSED, seconds=2.0), TestResult("b", Verdict.PASSED, seconds=0.001)
    keep_durations(store, [*took, TestResult("c", Verdict.GUEST_LOST, seconds=100.0)])
    assert read_durations(store) == {"a": 2.0}
    keep_durations(store, [TestResult("a", Verdict.FAILED, seconds=1.0)])
    assert read_durations(store) == {"a": 1.5}
    (store.cache / "durations.json").write_text("[]")
    assert read_durations(store) == {}


def test_a_run_takes_its_tests_in_the_order_asked_for(tmp_path: Path) -> None:
    (tmp_path / "test_them.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', range(12))\ndef test_it(init, n): pass\n"
    )

    def order(*options: str) -> list[str]:
        file = tmp_path / "r.json"
        argv = [sys.executable, "-m", "pytest", "-p", "harness.plugin.entry", "-q", str(tmp_path), "--dfly-oracle"]
        subprocess.run([*argv, f"--dfly-json={file}", *options], cwd=tmp_path, check=True, capture_output=True)
        return [result.test for result in read_record(file).results]

    written = order("-n", "0")
    chance = order("-n", "0", "--dfly-order=random:3")
    assert sorted(chance) == sorted(written)
    assert chance != written
    assert order("-n", "0", "--dfly-order=random:3") == chance
    assert sorted(order("-n", "3", "--dfly-order=random:3")) == sorted(written)  # workers agree on it
    assert sorted(order("-n", "3")) == sorted(written)

# SPDX-License-Identifier: BSD-2-Clause
"""Which tests a change is about: chosen by the map, put first, and followed where code has moved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.coverage.choice import Place, choose
from harness.coverage.code import Code, Line
from harness.coverage.follow import Follower, changed_lines
from harness.coverage.map import CoverageMap, Reach
from harness.coverage.mutants import functions_in, mutants_of
from harness.errors import UsageError
from harness.guests.options import TargetOptions
from harness.plugin.touching import Touching
from harness.results.record import TestResult
from harness.results.verdict import Verdict
from harness.runs.options import RunOptions
from harness.store import Store

SOURCE = b"""\
#include <sys/param.h>

static int
first(int a)
{
	if (a == 1 && a < 7)
		return (0);
	KKASSERT(a == 3);
	other(a);
	return (a + 1);
}

int
second(struct x *x)
{
	LIST_FOREACH(x, &all, next) {
		x->count++;
	}
	return (x->error);
}
"""
PATH = "sys/kern/kern_proc.c"


def a_map(*tests: tuple[list[int], float]) -> CoverageMap:
    """Return the map of SOURCE: code at lines 5, 6, 7, 9, 10, 11 of first(), and 15 to 20 of second()."""
    numbers = [(line, "first") for line in (5, 6, 7, 9, 10, 11)] + [(line, "second") for line in (15, 16, 17, 19, 20)]
    lines = tuple(Line(PATH, line, name) for line, name in numbers)
    code = Code(lines, (), (), (), ())
    reach = {}
    for number, (own, seconds) in enumerate(tests):
        hits = np.array([line.line in own for line in lines])
        reach[f"test_{number}"] = Reach(hits, seconds)
    return CoverageMap("k", "kernel k", ("kern_proc.c",), code, reach)


class TestChoice:
    """Which tests, in which order."""

    def test_those_that_run_it_the_most_telling_first(self) -> None:
        known = a_map(([5, 6, 15, 16, 17, 19], 1.0), ([5, 6], 1.0), ([5, 6], 9.0), ([15], 0.1))
        assert choose(known, [Place.parse("kern_proc.c:6")]).tests == ("test_1", "test_0", "test_2")
        assert set(choose(known, [Place.parse("second")]).tests) == {"test_0", "test_3"}

    def test_of_what_no_test_runs_the_rest_of_the_function_stands_in(self) -> None:
        known = a_map(([5, 6], 1.0), ([15], 1.0))
        choice = choose(known, [Place.parse("kern_proc.c:9")])
        assert choice.tests == ("test_0",)
        assert choice.unreached == (Place.parse("kern_proc.c:9"),)

    def test_a_line_that_became_no_code_is_the_one_before(self) -> None:
        assert choose(a_map(([7], 1.0), ([9], 1.0)), [Place.parse("kern_proc.c:8")]).tests == ("test_0",)

    @pytest.mark.parametrize("place", ["third", "kern_exit.c:12"])
    def test_what_was_not_measured_is_told(self, place: str) -> None:
        with pytest.raises(UsageError, match="was not measured"):
            choose(a_map(([5], 1.0)), [Place.parse(place)])

    @pytest.mark.parametrize("text", ["pgrel", "kern_proc.c:812", "kern_proc.c:812-815"])
    def test_places_are_written_as_they_are_read(self, text: str) -> None:
        assert str(Place.parse(text)) == text


class TestFollowing:
    """Code moves, and its tests with it."""

    def test_lines_that_a_change_touches(self) -> None:
        lines = SOURCE.splitlines(keepends=True)
        assert changed_lines(SOURCE, SOURCE.replace(b"a + 1", b"a + 2")) == [10]
        assert changed_lines(SOURCE, b"".join([*lines[:8], b"\tnew();\n", *lines[8:]])) == [8, 9]
        assert changed_lines(SOURCE, b"".join(lines[:8] + lines[9:])) == [9]
        assert changed_lines(SOURCE, SOURCE) == []

    def test_a_function_that_moved_as_a_whole(self) -> None:
        moved = Follower(a_map(), "kern_proc.c", b"/* new */\n\n\n" + SOURCE)
        assert moved.places([9, 10, 12]) == [Place.parse("kern_proc.c:6-7"), Place.parse("kern_proc.c:9")]

    def test_one_that_has_another_length_is_meant_as_a_whole(self) -> None:
        longer = SOURCE.replace(b"\tother(a);\n", b"\tother(a);\n\tother(a);\n\tother(a);\n\tother(a);\n\tother(a);\n")
        assert Follower(a_map(), PATH, longer).places([6, 7]) == [Place.parse("first")]
        assert Follower(a_map(), PATH, longer).places([23]) == [Place(file=PATH, first=19, last=19)]

    def test_with_the_maps_own_sources_each_line_is_followed(self) -> None:
        longer = SOURCE.replace(b"\tother(a);\n", b"\tother(a);\n\tmore(a);\n\tstill(a);\n\tother(b);\n\tother(c);\n")
        follower = Follower(a_map(), PATH, longer, own=SOURCE)
        assert follower.places([6]) == [Place(file=PATH, first=6, last=6)]
        assert follower.places([14]) == [Place(file=PATH, first=10, last=10)]
        assert follower.places([11]) == [Place.parse("first")]  # which the map's sources do not have

    def test_what_is_in_no_function_is_nowhere(self) -> None:
        assert Follower(a_map(), PATH, SOURCE).places([1, 2]) == []


class TestFaults:
    """Small faults, found in the syntax tree."""

    def test_functions_are_found_with_their_lines(self) -> None:
        assert [(each.name, each.first, each.last) for each in functions_in(SOURCE)] == [
            ("first", 3, 11),
            ("second", 13, 20),
        ]

    def test_each_is_one_change_of_code(self) -> None:
        found = mutants_of(PATH, SOURCE)
        changes = {(each.line, each.what) for each in found}
        assert {(6, "`==` becomes `!=`"), (6, "`&&` becomes `||`"), (6, "`<` becomes `<=`")} <= changes
        assert {(9, "the call of other is left out"), (10, "`+` becomes `-`"), (17, "`++` becomes `--`")} <= changes
        assert not [each for each in found if each.line == 8]  # the kernel's own checks
        assert not [what for line, what in changes if line == 16]  # a loop of <sys/queue.h> is no call
        for each in found:
            pairs = zip(SOURCE.splitlines(), each.apply(SOURCE).splitlines(), strict=True)
            different = [at for at, (old, new) in enumerate(pairs, 1) if old != new]
            assert different == [each.line]

    def test_names_last_as_long_as_the_function_does_not_change(self) -> None:
        found = {each.name for each in mutants_of(PATH, SOURCE)}
        assert len(found) == len(mutants_of(PATH, SOURCE))
        assert {each.name for each in mutants_of(PATH, b"/* moved */\n" + SOURCE)} == found

    def test_every_fault_is_still_c(self) -> None:
        for each in mutants_of(PATH, SOURCE):
            assert functions_in(each.apply(SOURCE)) == functions_in(SOURCE), each


class TestRun:
    """What a run does with it."""

    def touching(self, known: CoverageMap, *places: str, only: bool = False) -> Touching:
        options = RunOptions(TargetOptions(), touching=tuple(map(Place.parse, places)), only=only)
        tested: Any = None  # which kernel it is has been found out
        touching = Touching(tested, options, Store())
        touching.__dict__["_found"] = known, choose(known, options.touching)
        return touching

    def test_those_that_say_they_are_about_it_go_first_then_those_that_run_it_then_the_rest(self) -> None:
        known = a_map(([5], 1.0), ([5, 6], 1.0), ([15], 1.0))
        items: Any = [SimpleNamespace(nodeid=f"test_{number}", iter_markers=lambda _: ()) for number in range(4)]
        assert self.touching(known, "first").order(items) == []
        assert [item.nodeid for item in items] == ["test_1", "test_0", "test_2", "test_3"]
        items[1].iter_markers = lambda mark: [SimpleNamespace(args=("first",))] if mark == "kern_proc" else ()
        left_out = self.touching(known, "first", only=True).order(items)
        assert [item.nodeid for item in items][:2] == ["test_0", "test_1"]
        assert [item.nodeid for item in left_out] == ["test_2", "test_3"]

    def test_what_tells_most_is_heard_of_first(self) -> None:
        known = a_map(*(([5], 2.0) for _ in range(30)))
        touching = self.touching(known, "first")
        tests = [f"test_{number}" for number in range(31)]
        (said,) = touching.expect(tests)
        assert said.startswith("30 tests run first")
        told = []
        for test in tests:
            verdict = Verdict.FAILED if test == "test_2" else Verdict.PASSED
            told.append(touching.note(TestResult(test, verdict), test))
        heard = {number: said for number, said in enumerate(told) if said is not None}
        assert list(heard) == [9, 29]
        assert heard[9].startswith("the 10 tests that tell most about first: 1 failed of 10")
        assert heard[29].startswith("tests that run first: 1 failed of 30")

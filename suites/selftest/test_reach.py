# SPDX-License-Identifier: BSD-2-Clause
"""What the suites say of themselves is held against what they were measured to run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.coverage.code import Branch, Code, Jump, Line
from harness.coverage.map import CoverageMap, Reach, maps, text_of
from harness.store import Store
from support import pages
from support.reach import REASONS, Unreached, missing_reasons, numbers, read_reasons, still_true, wrong_marks

PATH = "sys/kern/kern_proc.c"
#: A measurement that says something of every test: not one of a few chosen ones.
_WHOLE = 1000
#: The user's own store; tests have another one.
_STORE = Store()


def a_map(**tests: list[int]) -> CoverageMap:
    """Return what TESTS run of lines 10 and 11 of pgrel() and 20 of pgfind(), and of a condition in each."""
    lines = (Line(PATH, 10, "pgrel"), Line(PATH, 11, "pgrel"), Line(PATH, 20, "pgfind"))
    branches = (
        Branch(PATH, 11, "pgrel", 3, (Jump(1, 2, False),)),
        Branch(PATH, 20, "pgfind", 3, (Jump(2, 2, False, fatal_target=True),)),
    )
    code = Code(lines, branches, (), (), ())
    reach = {}
    for test, own in tests.items():
        hits = np.zeros(code.size, dtype=bool)
        hits[own] = True
        reach[f"a.py::{test}"] = Reach(hits)
    return CoverageMap("k", "k", ("kern_proc.c",), code, reach)


def item(name: str, **marks: str) -> Any:
    def iter_markers(mark: str) -> list[Any]:
        return [SimpleNamespace(args=(marks[mark],))] if mark in marks else []

    return SimpleNamespace(nodeid=f"a.py::{name}", iter_markers=iter_markers)


class TestMarks:
    """A test that says it is about a function enters it."""

    def test_one_that_never_does_is_told(self) -> None:
        items = [item("one", kern_proc="pgrel"), item("two", kern_proc="pgfind"), item("two", passes="gone")]
        assert list(wrong_marks([a_map(one=[0], two=[0])], items)) == [
            "a.py::two: marked kern_proc(pgfind), and never enters it"
        ]

    def test_one_parameter_or_one_kernel_is_enough(self) -> None:
        items = [item("one[a]", kern_proc="pgfind"), item("one[b]", kern_proc="pgfind")]
        assert not list(wrong_marks([a_map(**{"one[a]": [0], "one[b]": [2]})], items))
        assert not list(wrong_marks([a_map(**{"one[a]": [0]}), a_map(**{"one[a]": [2]})], items))

    def test_what_was_measured_of_another_text_says_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "a.py").write_text("as measured")
        known = a_map(one=[0])
        reach = Reach(known.tests["a.py::one"].hits, 1.0, text_of(tmp_path / "a.py"))
        dated = known.only({"a.py::one": reach, "gone.py::two": Reach(reach.hits)})
        assert list(still_true(dated, tmp_path).tests) == ["a.py::one"]
        (tmp_path / "a.py").write_text("as it is")
        assert not still_true(dated, tmp_path).tests

    def test_what_was_not_run_says_nothing(self) -> None:
        assert not list(wrong_marks([a_map(one=[0])], [item("two", kern_proc="pgfind")]))


class TestGaps:
    """What no test runs has a reason."""

    def test_lines_and_conditions_need_one(self) -> None:
        known = a_map(one=[0, 1, 3])
        assert list(missing_reasons(known, "kern_proc.c", Unreached({}, {}))) == [
            "no test runs kern_proc.c:20",
            "no test has it both ways at kern_proc.c:11",
        ]
        assert not list(missing_reasons(known, "kern_proc.c", Unreached({20: "x"}, {11: "x"})))

    def test_a_way_to_panic_needs_none(self) -> None:
        assert not list(missing_reasons(a_map(one=[0, 1, 2, 3, 4, 5]), "kern_proc.c", Unreached({}, {})))

    def test_a_reason_for_what_is_run_is_out_of_date(self) -> None:
        said = list(missing_reasons(a_map(one=[0, 1, 2, 3, 4, 5]), "kern_proc.c", Unreached({20: "x"}, {11: "x"})))
        assert len(said) == 2
        assert all("and one does" in each for each in said)

    def test_what_chance_runs_may_be_run(self) -> None:
        known = a_map(one=[0, 1, 2, 3, 4, 5])
        assert not list(missing_reasons(known, "kern_proc.c", Unreached({20: "race"}, {11: "race"})))

    def test_reasons_are_read(self, tmp_path: Path) -> None:
        file = tmp_path / "unreached.toml"
        file.write_text(
            '[reasons]\nboot = "at boot"\n[[5]]\nfile = "a.c"\nlines = "1, 3-4"\nconditions = "7"\nwhy = "boot"\n'
            '[[5]]\nfile = "b.c"\nlines = "1"\nwhy = "boot"\n'
        )
        assert read_reasons(file, 5) == {
            "a.c": Unreached(dict.fromkeys((1, 3, 4), "boot"), {7: "boot"}),
            "b.c": Unreached({1: "boot"}, {}),
        }
        assert read_reasons(file, 6) == {}
        file.write_text('[reasons]\n[[5]]\nfile = "a.c"\nlines = "1"\nwhy = "because"\n')
        with pytest.raises(ValueError, match="no reason that is explained"):
            read_reasons(file, 5)
        assert list(numbers("")) == []

    def test_the_suites_own_reasons_are_all_explained(self) -> None:
        for version in (400704, 600518):
            read_reasons(REASONS, version)


def test_marks_of_the_suites_are_right_on_what_was_measured_here() -> None:
    """With the maps in the user's own store; `run --coverage` makes them."""
    measured = [still_true(each) for each in maps(_STORE) if each.has("kern_proc.c")]
    measured = [each for each in measured if len(each.tests) >= _WHOLE]
    if not measured:
        pytest.skip("no DragonFly kernel was measured with the whole suite as it is")
    assert not list(wrong_marks(measured, pages.collected()))

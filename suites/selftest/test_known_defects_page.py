# SPDX-License-Identifier: BSD-2-Clause
"""The page of known defects is what the marks of the tests say."""

from __future__ import annotations

import pytest

from support.known_defects import SEVERITIES, Defect, page


def test_graver_defects_come_first_and_each_is_one_line() -> None:
    """A cause may contain what would end a cell."""
    last, first = len(SEVERITIES) - 1, 0
    defects = sorted(
        [
            Defect(last, "suites/a.py", 3, "test_b", "a | b", 200000, None, "b.c", (400704, 600518)),
            Defect(first, "suites/b.py", 1, "test_a", "cause", 500902, 600518),
        ]
    )
    text = page(defects)
    assert text.index("test_a") < text.index("test_b")
    assert "| [test_a](../suites/b.py) | cause | 500902 | 600518 |  |  |\n" in text
    assert (
        "| [test_b](../suites/a.py) | a \\| b | always |  | 400704, 600518 | [b.c](../suites/reproducers/b.c) |\n"
        in text
    )


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_page_has_no_headings_without_defects(severity: str) -> None:
    """Only what there is."""
    rank = list(SEVERITIES).index(severity)
    text = page([Defect(rank, "suites/a.py", 1, "test_a", "cause", 200000, None)])
    assert text.count("\n## ") == 1

# SPDX-License-Identifier: BSD-2-Clause
"""The page of eras is what tests and features say, and each feature is tested on either side of its change."""

from __future__ import annotations

from support.eras import ONE_SIDED, Promise, one_sided, page


def promise(
    feature: str, *, after: bool = True, before: bool = True, kept_by: dict[str, bool] | None = None
) -> Promise:
    test = {"suites/conformance/test_a.py::test_b"}
    kept = kept_by or {name: name >= "2021" for name in ("2017", "2020", "6.0", "6.2", "6.4", "2026")}
    return Promise("0123456789", "2021-03-04", 600100, "what", feature, test, test if before else set(), kept)


def test_a_feature_tested_on_one_side_only_needs_a_reason() -> None:
    explained = [promise(name, before=False) for name in ONE_SIDED]
    assert one_sided([*explained, promise("both")]) == []
    (complaint,) = one_sided([*explained, promise("new", before=False)])
    assert "new" in complaint
    (complaint,) = one_sided(explained[1:])
    assert explained[0].feature in complaint


def test_what_all_kernels_promise_is_listed_but_in_no_table() -> None:
    alike = dict.fromkeys(("2017", "2020", "6.0", "6.2", "6.4", "2026"), True)
    text = page([promise("same", kept_by=alike), promise("other")])
    assert "| 1 | `same`: what | 600100 |" in text
    (heads,) = [line for line in text.splitlines() if line.startswith("| kernel ")]
    assert heads == "| kernel | version | 2 |"
    assert "| 2017 (2017-01-02) | 400704 | · |" in text
    assert "| 2026 (2026-04-19) | 600518 | ● |" in text

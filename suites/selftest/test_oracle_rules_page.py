# SPDX-License-Identifier: BSD-2-Clause
"""Each rule of the oracle says where it comes from; where code and pages differ, a test shows it."""

from __future__ import annotations

import pytest

from harness.oracle.sources import SOURCES, Difference, Source
from support import oracle_rules, pages
from support.oracle_rules import catches, descriptions, page, rule_names, shown_by, variants_by_rule

#: Rules that no variant breaks, and why.
WITHOUT_VARIANT = {
    "pid_domains": "follows from PID_MAX",
    "first_pid_with_delay": "seen at boot only",
    "exit_lets_others_run": "not always the same: the lockstep's rehearsal tries both",
    "vfork_exit_lets_others_run": "measured, and not always the same: the lockstep's rehearsal tries both",
    "pending_at_birth": "a defect, kept: its test fails on kernels",
    "tid_shown": "of a zombie that was looked at: seen by the lockstep",
    "stops_later": "seen by stored traces of the lockstep",
    "reap_kill_reaches": "a defect, kept: its test fails on kernels",
    "change_shown": "a defect, kept: its test fails on kernels",
}


def test_each_rule_has_a_source_and_each_source_a_rule() -> None:
    assert set(rule_names()) == SOURCES.keys()
    assert [name for name, text in descriptions().items() if len(text) < 10] == []


def test_each_rule_is_broken_by_a_variant() -> None:
    assert {name for name in rule_names() if name not in variants_by_rule()} == WITHOUT_VARIANT.keys()


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        (Source(), "code only"),
        (Source(posix="kill()"), "POSIX: kill()"),
        (Source(posix="kill()", manual="kill(2)"), "POSIX: kill(), kill(2)"),
    ],
)
def test_a_rule_that_no_page_states_is_known_from_the_code_only(source: Source, origin: str) -> None:
    assert source.origin == origin


def test_a_difference_is_shown_by_a_test_or_by_what_catches_a_variant() -> None:
    assert shown_by("may_become", "").startswith("[test_one_cannot_become_altogether_what_is_only_saved](../suites/")
    assert shown_by("PID_MAX", "suites/regressions/a.py::test_b") == "*defect* [test_b](../suites/regressions/a.py)"
    with pytest.raises(ValueError, match="first_pid_with_delay: it differs from a page, and no variant"):
        shown_by("first_pid_with_delay", "")


def test_the_page_counts_where_rules_come_from() -> None:
    sources = {"PID_MAX": Source(), "inferior": Source(posix="p"), "pfind": Source(manual="m(2)")}
    text = page(sources, {name: f"what {name} | says" for name in sources})
    assert "Of 3 rules 1 are also stated by POSIX, 1 by a manual page" in text
    assert "| `inferior` | what inferior \\| says | POSIX: p |" in text


def test_a_rule_without_a_source_makes_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    without = {name: source for name, source in SOURCES.items() if name != "inferior"}
    monkeypatch.setattr(oracle_rules, "SOURCES", without)
    with pytest.raises(ValueError, match="inferior"):
        oracle_rules.make()


def test_a_lost_test_makes_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Source(differs=(Difference("kill(2)", "says", "suites/a.py::test_lost"),))
    monkeypatch.setattr(oracle_rules, "SOURCES", {**SOURCES, "inferior": wrong})
    monkeypatch.setattr(pages, "collected", tuple)
    with pytest.raises(ValueError, match=r"suites/a\.py::test_lost"):
        oracle_rules.make()


def test_what_catches_a_variant_is_known() -> None:
    assert variants_by_rule().keys() >= {"inferior", "pfind"}
    assert set(catches()) >= {"zombies-found"}

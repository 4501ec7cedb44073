# SPDX-License-Identifier: BSD-2-Clause
"""Each wrong oracle is caught by a test of the conformance suite, in each era, and the right ones by none.

oracle_catches.toml names, for each variant of each era, a test that fails on it.  It is a hint that saves time: where
the test is gone or no longer fails, the whole suite is tried.  `python suites/selftest/test_oracle_variants.py` writes
it anew.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from harness.config import share
from harness.oracle import ERAS, VARIANTS, Variant, variants_of
from harness.oracle.rules import Rules

CONFORMANCE = share() / "suites" / "conformance"
TABLE = Path(__file__).with_name("oracle_catches.toml")
# Needs two members: the limit of pids is what kern.randompid is clamped by, and a delay is begun and not begun.
BREAK_ONE_PROMISE_BY_TWO_MEMBERS = {"one-pid-too-many", "delay-from-exit"}


class _FirstFailure:
    """Notes which test failed first."""

    def __init__(self) -> None:
        self.test: str | None = None
        self.passed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at one report."""
        if report.failed and self.test is None:
            self.test = report.nodeid.removeprefix("suites/conformance/")
        self.passed += report.passed and report.when == "call"


#: The eras in which each variant is tried.
TRIED = ("2017", "2020", "2026")
WRONG = [f"{era}:{variant.name}" for era in TRIED for variant in variants_of(ERAS[era])]


def run(target: str, *tests: str) -> _FirstFailure:
    """Run TESTS (all of them, if none is named) on a wrong oracle, or the right one of an era, until one fails."""
    outcome = _FirstFailure()
    paths = [str(CONFORMANCE / test) for test in tests] or [str(CONFORMANCE)]
    options = ["--dfly-oracle", target, "-x", "-qq", "-rN", "--tb=no", "--no-header", "-p", "no:cacheprovider"]
    pytest.main([*paths, *options, f"--rootdir={share()}"], plugins=[outcome])
    return outcome


def hints() -> dict[str, dict[str, str]]:
    """Return, by era, which test caught which variant when the table was written."""
    return tomllib.loads(TABLE.read_text()) if TABLE.exists() else {}


def catching_test(target: str) -> str | None:
    """Return a test that fails on ERA:VARIANT, the one known from before if it still does."""
    era, _, variant = target.partition(":")
    known = hints()
    for hint in dict.fromkeys(table[variant] for table in (known.get(era, {}), *known.values()) if variant in table):
        if (test := run(target, hint).test) is not None:
            return test
    return run(target).test


@pytest.mark.parametrize("target", WRONG)
def test_a_wrong_oracle_is_caught_by_a_test(target: str) -> None:
    assert catching_test(target) is not None, f"nothing fails although: {VARIANTS[target.partition(':')[2]].breaks}"


@pytest.mark.parametrize("era", ERAS)
def test_the_right_oracle_is_caught_by_no_test(era: str) -> None:
    outcome = run(era)
    assert outcome.test is None
    assert outcome.passed > 400


def test_each_variant_is_wrong_in_some_era() -> None:
    assert {target.partition(":")[2] for target in WRONG} == set(VARIANTS)


def test_there_are_wrong_oracles_for_all_that_a_user_can_see_of_kern_proc_c() -> None:
    functions = {variant.function for variant in VARIANTS.values()}
    assert len(VARIANTS) >= 100
    assert functions >= {
        "procinit", "inferior", "pfind", "zpfind", "pgfind", "pgrel", "enterpgrp", "leavepgrp", "sess_hold",
        "sess_rele", "fixjobc", "orphanpg", "proc_add_allproc", "proc_makepid", "proc_move_allproc_zombie",
        "proc_remove_zombie", "sysctl_out_proc", "sysctl_kern_proc", "sysctl_kern_proc_args", "sysctl_kern_proc_cwd",
        "sysctl_kern_proc_pathname", "sysctl_kern_randompid",
    }  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_a_variant_replaces_one_member_and_says_in_a_sentence_what_is_wrong(variant: Variant) -> None:
    replaced = {name for name in vars(variant.rules) if not name.startswith("__")}
    assert len(replaced) == (2 if variant.name in BREAK_ONE_PROMISE_BY_TWO_MEMBERS else 1)
    assert all(hasattr(Rules, name) for name in replaced)
    assert variant.breaks.endswith(".")
    assert re.fullmatch(r"[a-z0-9-]+", variant.name)


def write_table() -> None:
    """Find a test for each variant of each era and write them down; those of later eras only where they differ."""
    lines = ["# Written by test_oracle_variants.py: a test that fails on each wrong oracle.  Later eras: what differs."]
    written: dict[str, str] = {}
    for era in TRIED:
        lines += ["", f'["{era}"]']
        for variant in variants_of(ERAS[era]):
            test = catching_test(f"{era}:{variant.name}")
            if test is not None and written.get(variant.name) != test:
                lines.append(f'{variant.name} = "{test}"')
                written[variant.name] = test
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(share()))
    write_table()

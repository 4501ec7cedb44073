# SPDX-License-Identifier: BSD-2-Clause
"""Eras of the oracle: a table of changes, each with a date, of which an era has those that came before it."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from harness.errors import UsageError
from harness.oracle import DEFAULT_ERA, ERAS, era_of, make_oracle, split_target, variants_of
from harness.oracle.eras import CHANGES, Traits
from harness.oracle.rules import Rules
from harness.processes import fails
from harness.processes.kinfo import LAYOUTS, SyscapFlag, decode_kinfo


def test_the_changes_are_in_the_order_of_their_dates() -> None:
    assert [change.date for change in CHANGES] == sorted(change.date for change in CHANGES)
    assert len({change.commit for change in CHANGES}) == len(CHANGES)


def test_each_change_changes_something_and_says_what_and_where() -> None:
    before = asdict(Traits())
    for change in CHANGES:
        assert change.traits
        assert all(before[name] != value for name, value in change.traits.items())
        assert ".c: " in change.where or ".h: " in change.where
        before |= change.traits


def test_the_last_era_has_all_changes_and_the_first_none() -> None:
    first, *_, last = ERAS.values()
    assert first is DEFAULT_ERA
    assert first.traits == Traits()
    assert all(getattr(last.traits, name) == value for change in CHANGES for name, value in change.traits.items()
               if name != "record_size")  # fmt: skip
    assert last.traits.record_size == 1048


@pytest.mark.parametrize(
    ("osreldate", "record_size", "name"),
    [
        (400704, 976, "2017"),
        (400800, 976, "2017"),  # the release of 4.8 changed nothing here
        (500901, 992, "2020"),
        (500909, 992, "6.0"),
        (600107, 992, "6.2"),
        (600400, 992, "6.4"),
        (600518, 1048, "2026"),
        (600600, 1048, "2026"),
        (300800, 960, None),  # older than all
        (500400, 976, None),  # between two
        (600510, 1048, None),
        (600518, 992, None),  # never was
    ],
)
def test_a_kernel_is_specified_by_its_era(osreldate: int, record_size: int, name: str | None) -> None:
    era = era_of(osreldate, record_size)
    assert (era.name if era is not None else None) == name


@pytest.mark.parametrize(
    ("target", "era", "variant"),
    [
        ("", "2017", None),
        ("2026", "2026", None),
        ("zombies-found", "2017", "zombies-found"),
        ("6.4:zombies-found", "6.4", "zombies-found"),
        ("6.4:", "6.4", None),
    ],
)
def test_a_target_names_an_era_a_variant_or_both(target: str, era: str, variant: str | None) -> None:
    assert split_target(target) == (ERAS[era], variant)


def test_an_unknown_era_is_refused_by_name() -> None:
    with pytest.raises(
        UsageError, match=r"the oracle knows no era 1999; there are: 2017, 2020, 6\.0, 6\.2, 6\.4, 2026"
    ):
        make_oracle("1999:zombies-found")


def test_a_variant_that_is_right_in_an_era_is_refused() -> None:
    with pytest.raises(UsageError, match=r"wait6-for-nothing differs .* not from that of 2017: try 2020, 6\.0"):
        make_oracle("2017:wait6-for-nothing")


def test_eras_have_variants_of_their_own() -> None:
    names = {era: {variant.name for variant in variants_of(ERAS[era])} for era in ("2017", "2026")}
    assert "kernel-threads-unasked" in names["2026"] - names["2017"]
    assert "sizes-of-strings-told" in names["2017"] - names["2026"]


@pytest.mark.parametrize("era", ERAS)
def test_a_row_has_the_size_of_its_era(era: str) -> None:
    init = make_oracle(era).spawn()
    data = init.sysctl.read((1, 14, 1, init.pid))
    assert len(data) == ERAS[era].traits.record_size
    assert len(data) in LAYOUTS
    assert decode_kinfo(data, len(data)) == init.sysctl.kern_proc_pid(init.pid)


def test_what_an_era_does_not_have_yet_fails() -> None:
    init = make_oracle("2017").spawn()
    with fails("ENOSYS"):
        init.wait6(1, 0, 1)
    with fails("ENOSYS"):
        init.syscap_set(3, SyscapFlag.ALL)
    with fails("EINVAL"):
        init.procctl_pdeathsig(0)
    with fails("EINVAL"):
        init.procctl_reap_kill(1)
    with fails("ENOENT"):
        init.sysctl.kern_proc_all(lwkt=True)


def test_rules_by_themselves_are_those_of_the_first_era() -> None:
    assert Rules().era is DEFAULT_ERA

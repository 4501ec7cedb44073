# SPDX-License-Identifier: BSD-2-Clause
"""What fork storms tell by the way: births in order, how soon pids come back, how fast forks are."""

from __future__ import annotations

import pytest

from harness.plugin.measuring import measure
from harness.processes.vocabulary import ForkRecord, Storm
from harness.results.measurements import Measurements


def storm(*lives: tuple[int, float, float], seconds: float = 1.0) -> Storm:
    return Storm(len(lives), seconds, tuple(ForkRecord(*life) for life in lives))


def test_a_delay_is_from_a_pids_reaping_to_its_next_birth_in_whichever_storm() -> None:
    early = storm((5, 0.0, 0.1), (6, 0.2, 0.3), (5, 10.25, 10.3))
    late = storm((6, 0.5, 0.6), (7, 0.7, 0.8), (5, 1.0, 1.1))
    found = measure([(120.0, late), (100.0, early)])  # the order of the calls does not matter
    assert found.reuse_delays == (10.15, 20.2, 10.7)
    assert found.births == ()  # a few lives are no sequence
    assert found.fork_rates == ()  # and make no rate


def test_births_are_in_order_from_the_first_one_on_and_not_more_than_a_plot_can_show() -> None:
    many = storm(*((100 + number, number / 100, number / 100 + 0.001) for number in range(1000)), seconds=10.0)
    found = measure([(50.0, many)])
    assert found.births[0] == (0.0, 100)
    assert found.births == tuple(sorted(found.births))
    assert 200 < len(found.births) <= 300
    assert found.fork_rates == (100.0,)


@pytest.mark.parametrize("tampered", [False, True])
def test_pids_that_a_test_has_arranged_say_nothing(tampered: bool) -> None:
    again = storm(*((7, float(number), number + 0.5) for number in range(60)), seconds=60.0)
    found = measure([(0.0, again)], tampered=tampered)
    assert bool(found.reuse_delays) is bool(found.births) is not tampered
    assert found.fork_rates == (1.0,)


def test_nothing_is_kept_of_a_test_without_storms() -> None:
    assert not measure([])
    assert Measurements(fork_rates=(2.0,)).to_json() == {"fork_rates": [2.0]}

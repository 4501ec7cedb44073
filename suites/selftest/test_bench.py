"""How long it takes from a command line to the first test, measured on the control guest."""

from __future__ import annotations

import time

import pytest

from harness.campaigns.bench import seconds_to_first_test
from harness.errors import HarnessError


@pytest.mark.on_vm
def test_the_way_to_the_first_test_is_timed() -> None:
    before = time.monotonic()
    seconds = seconds_to_first_test(["--control"])
    assert 0.2 < seconds < time.monotonic() - before


def test_a_run_that_fails_gives_no_time() -> None:
    with pytest.raises(HarnessError, match="no kernel 'nobody-built-this'"):
        seconds_to_first_test(["--kernel", "nobody-built-this"])

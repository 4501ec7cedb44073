# SPDX-License-Identifier: BSD-2-Clause
"""What a person sees of a transfer: how much, how fast, how long still."""

from __future__ import annotations

import io

from rich.console import Console

from harness.report.terminal import _Pace, transfer_display


def test_rate_and_time_left_come_every_few_seconds() -> None:
    pace = _Pace()
    assert pace.report(0, 100_000_000, 10.0) is None
    assert pace.report(1_000_000, 100_000_000, 11.0) is None, "too soon to say anything"
    assert pace.report(10_000_000, 100_000_000, 15.0) == "10.0 of 100.0 MB, 2.0 MB/s, 0:45 left"
    assert pace.report(11_000_000, 100_000_000, 16.0) is None
    assert pace.report(100_000_000, 100_000_000, 19.0) == "100.0 of 100.0 MB, 11.1 MB/s"


def test_the_rate_of_a_resumed_transfer_counts_what_came_now() -> None:
    pace = _Pace()
    pace.report(90_000_000, 100_000_000, 0.0)
    assert pace.report(95_000_000, 100_000_000, 5.0) == "95.0 of 100.0 MB, 1.0 MB/s, 0:05 left"


def test_without_a_known_size_there_is_no_time_left() -> None:
    pace = _Pace()
    pace.report(0, None, 0.0)
    assert pace.report(20_000_000, None, 10.0) == "20.0 MB, 2.0 MB/s"


def test_a_log_gets_plain_lines_and_a_terminal_a_bar() -> None:
    for terminal, expected in ((False, "fetch x: 2.0 of 2.0 MB"), (True, "fetch x")):
        shown = io.StringIO()
        with transfer_display("fetch x", Console(file=shown, force_terminal=terminal, width=100)) as transfer:
            transfer(0, 2_000_000)
            transfer(2_000_000, 2_000_000)
        assert expected in shown.getvalue()

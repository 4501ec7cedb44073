# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures that suites share; those that anybody's tests may want are the plugin's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest

from harness.guests.features import KernelFacts
from harness.guests.guest import Guest
from harness.oracle import OracleProcess
from harness.processes import RemoteProcess
from support.holds import held, held_in_oracle


@pytest.fixture
def holder(
    request: pytest.FixtureRequest, init: RemoteProcess | OracleProcess
) -> Callable[[Any], AbstractContextManager[None]]:
    """Return what holds a process inside a block, as a reader would that takes his time."""
    if isinstance(init, OracleProcess):
        return held_in_oracle
    return partial(held, init, request.getfixturevalue("kernel"))


@pytest.fixture
def several_reapers(guest: Guest, facts: KernelFacts | None) -> None:
    """Leave out what lets several threads wait for children at once, where that may panic the kernel."""
    if guest.size.cpus > 1 and facts is not None and not facts.has("wait_reservation"):
        pytest.skip("not applicable: on several CPUs, threads that wait at the same time panic it (f071b5e0ac, 2020)")

# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the suites that need a kernel; those of the target itself come from the plugin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from harness.errors import HarnessError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.features import KernelFacts
from harness.guests.guest import Guest
from harness.guests.whitebox import Whitebox
from harness.oracle import OracleProcess
from harness.oracle.whitebox import OracleAllocator
from harness.processes import GuestError, RemoteProcess
from support.allocator import PidAllocator
from support.processes import random_pids


@pytest.fixture
def kernel(guest: Guest) -> Whitebox:
    """Return the running kernel, looked into from outside."""
    target = guest.target
    if isinstance(target, DragonFlyTarget) and target.kernel is None:
        pytest.skip("not applicable: the image's installed kernel is not in the store, so its symbols are unknown")
    return guest.kernel


@pytest.fixture
def allocator(
    request: pytest.FixtureRequest, init: RemoteProcess | OracleProcess
) -> Iterator[PidAllocator | OracleAllocator]:
    """Return the pid allocator; afterwards pids go on from where they were."""
    # A thousand pids for each test, far above those the guest gets to by itself: what one test leaves is out of the
    # next one's way.
    place = request.session.items.index(request.node) % 700
    spare = 200_000 + 1000 * place
    if isinstance(init, OracleProcess):
        yield OracleAllocator(init, spare)
        return
    allocator = PidAllocator(request.getfixturevalue("kernel"), init, spare)
    with ExitStack() as undone_later:
        with suppress(GuestError):  # the control guest has no such variable, and the test will say so
            undone_later.enter_context(random_pids(init, 0))
        yield allocator
        with suppress(HarnessError, GuestError):
            allocator.restore()


@pytest.fixture
def several_reapers(guest: Guest, facts: KernelFacts | None) -> None:
    """Leave out what lets several threads wait for children at once, where that may panic the kernel."""
    if guest.size.cpus > 1 and facts is not None and not facts.has("wait_reservation"):
        pytest.skip("not applicable: on several CPUs, threads that wait at the same time panic it (f071b5e0ac, 2020)")

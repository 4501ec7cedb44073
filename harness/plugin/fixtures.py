# SPDX-License-Identifier: BSD-2-Clause
"""The fixtures for tests: what a test of anybody's may ask for by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, cast

import pytest

from harness.errors import HarnessError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.features import KernelFacts
from harness.guests.guest import Guest
from harness.guests.whitebox import Whitebox
from harness.oracle import OracleProcess, make_oracle
from harness.oracle.whitebox import OracleAllocator
from harness.plugin.rig import Rig
from harness.plugin.supply import GuestSupply
from harness.processes import GuestError, Hub, RemoteProcess
from harness.processes.allocator import PidAllocator, random_pids
from harness.processes.api import Process
from harness.processes.session import Session
from harness.races.schedule import Schedule

if TYPE_CHECKING:
    from harness.plugin.entry import HarnessRun

#: The name under which the run is registered with pytest.
RUN = "dfly-harness"
_TESTS_APART, _PIDS_OF_A_TEST, _FIRST_OF_TESTS = 700, 1000, 200_000


def run_of(config: pytest.Config) -> HarnessRun:
    """Return the run of the pytest of CONFIG."""
    run = config.pluginmanager.get_plugin(RUN)
    assert run is not None
    return cast("HarnessRun", run)


def _supply(request: pytest.FixtureRequest) -> GuestSupply:
    """Return who has machines; on the oracle, which is none, the test is left out."""
    run = run_of(request.config)
    if run.tested.variant is not None:
        pytest.skip("needs a real kernel")
    return run.supply


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    """Return the target kept ready for tests, with a guest that is well."""
    return _supply(request).ready()


@pytest.fixture
def guest(rig: Rig) -> Guest:
    """Return the running guest."""
    assert rig.guest is not None
    return rig.guest


@pytest.fixture
def hub(rig: Rig) -> Hub:
    """Return the hub of the running guest."""
    return rig.ready()


@pytest.fixture
def fresh_guest(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Give a pristine machine of its own, in its warm state: `fresh_guest.hub.spawn()`, `fresh_guest.guest`."""
    with _supply(request).ready().lent() as session:
        yield session


@pytest.fixture(scope="session")
def osreldate(request: pytest.FixtureRequest) -> int:
    """__DragonFly_version of the target, 0 on the control guest."""
    return run_of(request.config).supply.osreldate


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> KernelFacts | None:
    """Return what is known of the kernel under test (`facts.has("lwkt")`), None on the control guest."""
    return run_of(request.config).supply.kernel_facts


@pytest.fixture
def init(request: pytest.FixtureRequest) -> Iterator[Process]:
    """Give a fresh process, leader of its own session; it and all its descendants are killed afterwards."""
    run = run_of(request.config)
    if run.tested.variant is not None:
        yield make_oracle(run.tested.variant or None).spawn()
        return
    rig = run.supply.ready()
    try:
        process = rig.spawn()
    except HarnessError as error:
        if not error.retry_helps:
            raise
        # One that died unnoticed between two tests is held against the one before, not the next.
        rig.give_up()
        process = run.supply.ready().spawn()
    yield process
    rig.clean()


@pytest.fixture
def schedule(init: Process, hub: Hub, guest: Guest) -> Iterator[Schedule]:
    """Give the means to state interleavings: `schedule.holding(reader, at="cache_fullpath", doing=...)`.

    Tests that ask for it are marked with `@pytest.mark.cpus(2)`.
    """
    target = guest.target
    if not isinstance(target, DragonFlyTarget) or target.kernel is None:
        pytest.skip("not applicable: stated interleavings need a DragonFly kernel whose symbols are known")
    assert isinstance(init, RemoteProcess)
    with Schedule(guest, hub, init) as schedule:
        yield schedule


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
    place = request.session.items.index(request.node) % _TESTS_APART
    spare = _FIRST_OF_TESTS + _PIDS_OF_A_TEST * place
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

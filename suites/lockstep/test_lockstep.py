# SPDX-License-Identifier: BSD-2-Clause
"""The kernel and the oracle make the same system calls, and agree on every result and every row of the process table.

`dfly-harness run lockstep --dfly-calls=20000` makes that many calls.  A disagreement that repeats itself is shrunk
and kept; what happens once and not again is the scheduler's business, and only counted.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from harness.config import share
from harness.oracle import Era, era_of, make_oracle
from harness.oracle.lockstep import DisagreementError, GuestWorld, Lockstep
from harness.oracle.traces import Step, load_trace, save_trace, steps
from harness.processes import Hub
from harness.store import Store

pytestmark = pytest.mark.kern_proc("proc_makepid", "enterpgrp", "leavepgrp", "fixjobc", "orphanpg", "inferior", "pfind")

TRACES = sorted((share() / "suites" / "lockstep" / "traces").glob("*.json"))
EXAMPLES = 40  # traces per round of generation
TRIES = 3  # a disagreement is believed when it comes twice in so many


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Hub:
    """Return the hub of a DragonFly guest."""
    option = request.config.getoption
    if option("--dfly-control") or option("--dfly-oracle") is not None:
        pytest.skip("needs a DragonFly kernel")
    hub: Hub = request.getfixturevalue("hub")
    return hub


@pytest.fixture
def player(kernel: Hub) -> Player:
    """Return who plays traces, against the oracle of the kernel's era."""
    asker = kernel.spawn()
    osreldate = asker.sysctl.get_int("kern.osreldate")
    (row,) = asker.sysctl.kern_proc_pid(asker.pid)
    kernel.kill_all()
    era = era_of(osreldate, row.record_size)
    if era is None:
        pytest.skip(f"not applicable: the oracle knows no kernels of {osreldate}")
    return Player(kernel, era)


class Player:
    """Plays traces on the kernel and counts the calls."""

    def __init__(self, hub: Hub, era: Era) -> None:
        self._hub = hub
        self._era = era
        self.traits = era.traits
        self.calls = 0
        self.unrepeated: list[str] = []  # disagreements that came once

    def play(self, trace: list[Step]) -> None:
        """Play TRACE in both worlds; raises DisagreementError if they differ more than once."""
        first: DisagreementError | None = None
        for _ in range(TRIES):
            try:
                self._play_once(trace)
            except DisagreementError as error:
                if first is not None:
                    raise
                first = error
            else:
                if first is None:
                    return
        assert first is not None
        self.unrepeated.append(str(first))

    def _play_once(self, trace: list[Step]) -> None:
        lockstep = None
        try:
            lockstep = Lockstep(make_oracle(self._era.name), GuestWorld(self._hub))
            lockstep.run(trace)
        finally:
            self.calls += lockstep.calls if lockstep is not None else 0
            self._hub.kill_all()


def generate(player: Player, start: int, keep: Path) -> None:
    """Play some generated traces; a disagreement is shrunk and written to KEEP."""

    @seed(start)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )
    @given(steps(player.traits, min_size=0 if start % 4 == 0 else 30, max_size=80))
    def agree(trace: list[Step]) -> None:
        try:
            player.play(trace)
        except DisagreementError as error:
            save_trace(keep, error.what, trace)
            raise

    agree()


def test_the_kernel_does_what_the_oracle_says(player: Player, request: pytest.FixtureRequest) -> None:
    """Whatever the calls and their order."""
    folder = Store().folder("lockstep")
    start: int = request.config.getoption("dfly_trace_seed", 0)
    while player.calls < request.config.getoption("dfly_calls", 2000):
        keep = folder / f"trace-{start}.json"
        try:
            generate(player, start, keep)
        except DisagreementError as error:
            pytest.fail(f"{error}\nkept in {keep}", pytrace=False)
        start += 1
    print(f"{player.calls} calls; {len(player.unrepeated)} disagreements that came only once")  # noqa: T201
    for once in player.unrepeated:
        print(once)  # noqa: T201
    assert len(player.unrepeated) <= player.calls // 2000


@pytest.mark.parametrize("file", TRACES, ids=lambda file: file.stem)
def test_what_once_was_a_disagreement(player: Player, file: Path) -> None:
    """The trace says in words what the oracle, or the kernel, had to learn."""
    _, trace = load_trace(file)
    player.play(trace)

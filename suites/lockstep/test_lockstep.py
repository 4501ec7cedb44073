# SPDX-License-Identifier: BSD-2-Clause
"""The kernel and the oracle make the same system calls, and agree on every result and every row of the process table.

`dfly-harness run lockstep --dfly-calls=20000` makes that many calls.  Each disagreement fails the test and is kept
with the log of all calls; one that repeats itself is shrunk as well.  What depends on who runs first is found by a
rehearsal in the oracle (harness.oracle.rehearsal), and not done.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from harness.config import share
from harness.guests.guest import Guest
from harness.oracle import Era, era_of, make_oracle
from harness.oracle.lockstep import PIDS, DisagreementError, GuestWorld, Lockstep, World
from harness.oracle.rehearsal import Rehearsal
from harness.oracle.traces import Step, load_trace, save_trace, steps
from harness.processes import Hub
from harness.processes.allocator import PidAllocator
from harness.store import Store
from support.holds import Grip

pytestmark = pytest.mark.kern_proc("proc_makepid", "enterpgrp", "leavepgrp", "fixjobc", "orphanpg", "inferior", "pfind")

TRACES = sorted((share() / "suites" / "lockstep" / "traces").glob("*.json"))
EXAMPLES = 40  # traces per round of generation
FIRST_PID = 300_000  # nothing else in the guest gets so far
AGAIN = 2  # how often what has come once is tried again


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Hub:
    """Return the hub of a DragonFly guest."""
    option = request.config.getoption
    if option("--dfly-control") or option("--dfly-oracle") is not None:
        pytest.skip("needs a DragonFly kernel")
    hub: Hub = request.getfixturevalue("hub")
    return hub


@pytest.fixture
def player(kernel: Hub, guest: Guest) -> Player:
    """Return who plays traces, against the oracle of the kernel's era."""
    observer = kernel.observer
    osreldate = observer.sysctl.get_int("kern.osreldate")
    (row,) = observer.sysctl.kern_proc_pid(observer.pid)
    era = era_of(osreldate, row.record_size)
    if era is None:
        pytest.skip(f"not applicable: the oracle knows no kernels of {osreldate}")
    allocator, grip = PidAllocator(guest.kernel, observer, FIRST_PID), Grip(kernel, guest.kernel)
    kernel.kill_all()
    return Player(kernel, allocator, grip, era, Store().folder("lockstep"))


class Player:
    """Plays traces on the kernel and counts the calls.  What has come once is kept in FOLDER."""

    def __init__(self, hub: Hub, allocator: PidAllocator, grip: Grip, era: Era, folder: Path) -> None:
        self._hub = hub
        self._allocator = allocator
        self._grip = grip
        self._worlds = 0
        self._era = era
        self._folder = folder
        self.traits = era.traits
        self.calls = 0
        self.left_out = 0  # calls whose outcome depends on who runs first
        self.shrinking = False
        self.seen: list[str] = []  # disagreements, and where they are kept

    def _world(self) -> World:
        """Return the kernel, with pids of its own for each trace."""
        self._worlds += 1
        return GuestWorld(self._hub, self._allocator, self._grip, FIRST_PID + self._worlds % 20 * PIDS)

    def play(self, trace: list[Step], name: str = "") -> None:
        """Play TRACE in both worlds, as it was kept or, with a NAME, as it was drawn, without what is left to chance.

        Raises DisagreementError if they differ; of a drawn one only if they differ again.
        """
        try:
            self._play_once(trace, rehearsed=bool(name))
        except DisagreementError as error:
            if not name:
                raise
            self._look_again(trace, name, error)

    def _look_again(self, trace: list[Step], name: str, error: DisagreementError) -> None:
        came = 1
        for _ in range(AGAIN):
            try:
                self._play_once(trace, rehearsed=True)
            except DisagreementError:
                came += 1
                if self.shrinking:
                    break
        if not self.shrinking:
            self._keep(trace, name, error, came)
        if came > 1:
            self.shrinking = True
            raise error

    def _keep(self, trace: list[Step], name: str, error: DisagreementError, came: int) -> None:
        file = self._folder / f"{name}-seen.json"
        save_trace(file, error.what, trace)
        file.with_suffix(".log").write_text(f"{error}\n")
        self.seen.append(f"{error.what}\ncame {came} times of {AGAIN + 1}; kept in {file} and .log")

    def _play_once(self, trace: list[Step], *, rehearsed: bool) -> None:
        rehearsal = Rehearsal(self._era) if rehearsed else None
        lockstep = None
        try:
            lockstep = Lockstep(make_oracle(self._era.name), self._world(), rehearsal)
            lockstep.run(trace)
        finally:
            self.calls += lockstep.calls if lockstep is not None else 0
            self.left_out += rehearsal.left_out if rehearsal is not None else 0
            self._grip.let_all_go()
            self._hub.kill_all()


def generate(player: Player, start: int, folder: Path) -> None:
    """Play some generated traces; a disagreement that repeats itself is shrunk and written to FOLDER."""
    numbers = count()

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
            player.play(trace, f"trace-{start}-{next(numbers)}")
        except DisagreementError as error:
            save_trace(folder / f"trace-{start}.json", error.what, trace)
            raise

    try:
        agree()
    finally:
        player.shrinking = False


def test_the_kernel_does_what_the_oracle_says(player: Player, request: pytest.FixtureRequest) -> None:
    """Whatever the calls and their order.  A disagreement is none the less one for having come once only."""
    folder = Store().folder("lockstep")
    start: int = request.config.getoption("dfly_trace_seed", 0)
    while player.calls < request.config.getoption("dfly_calls", 2000):
        try:
            generate(player, start, folder)
        except DisagreementError as error:
            pytest.fail(f"{error}\nshrunk in {folder / f'trace-{start}.json'}", pytrace=False)
        start += 1
    sys.stdout.write(f"{player.calls} calls, {player.left_out} left out, as nobody says who runs first\n")
    if player.seen:
        pytest.fail("\n".join(player.seen), pytrace=False)


@pytest.mark.parametrize("file", TRACES, ids=lambda file: file.stem)
def test_what_once_was_a_disagreement(player: Player, file: Path) -> None:
    """The trace says in words what the oracle, or the kernel, had to learn."""
    _, trace = load_trace(file)
    player.play(trace)

# SPDX-License-Identifier: BSD-2-Clause
"""Deadlines of stated interleavings: a busy host is no reason to say that something does not happen."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import GuestLostError, HarnessError
from harness.races.patience import Patience
from harness.races.threads import Threads

SECONDS = 5.0


@dataclass
class World:
    """A guest that somebody waits for, with clocks of its own."""

    now: float = 100.0
    cpu_seconds: float = 3.0
    idle: bool = False
    heard: bool = True
    pings: int = 0
    patience: Patience = field(init=False)

    def __post_init__(self) -> None:
        self.patience = Patience(
            cast(Any, self), SECONDS, lambda: self.idle, self.ping, clock=lambda: self.now
        )  # fmt: skip

    def ping(self) -> Any:
        self.pings += 1
        return SimpleNamespace(done=self.heard)

    def passes(self, seconds: float, computing: float = 0.0) -> bool:
        """Let SECONDS pass, of which the guest gets COMPUTING; tell whether the deadline is over meanwhile."""
        steps = round(seconds / 0.2)
        for _ in range(steps):
            self.now += 0.2
            self.cpu_seconds += computing / steps
            if self.patience.is_over():
                return True
        return False


def test_a_guest_that_the_host_lets_compute_little_is_waited_for_longer() -> None:
    world = World()
    assert not world.passes(60, computing=4)
    assert world.passes(60, computing=8)


def test_a_guest_that_computes_as_it_likes_has_its_deadline() -> None:
    world = World()
    assert not world.passes(SECONDS - 0.2, computing=20)
    assert world.passes(1, computing=1)


def test_a_guest_that_has_nothing_to_do_and_has_heard_it_all_is_not_waited_for() -> None:
    world = World(idle=True)
    assert not world.passes(SECONDS - 0.2)
    assert world.passes(2)
    assert world.pings == 1


def test_a_guest_that_idles_as_nothing_has_reached_it_yet_is_waited_for() -> None:
    world = World(idle=True, heard=False)
    assert not world.passes(2 * SECONDS)
    assert world.passes(2 * SECONDS)


def test_one_look_that_finds_it_idle_is_not_enough() -> None:
    world = World()
    assert not world.passes(SECONDS)
    for _ in range(20):
        world.idle = not world.idle
        assert not world.passes(0.2)


def test_of_a_guest_that_the_host_lets_do_nothing_nothing_is_said() -> None:
    world = World(heard=False)
    with pytest.raises(GuestLostError, match="the host let the guest compute"):
        world.passes(600, computing=3)


@pytest.mark.parametrize(
    ("critical", "flags", "put_off"), [(0, 0, False), (1, 0, True), (0, 0x80, True), (0, 8, False)]
)
def test_a_thread_whose_clock_was_put_off_is_not_halted(critical: int, flags: int, put_off: bool) -> None:
    """The timer is set again when its interrupt is served, some instructions behind the critical section's end."""
    threads = Threads(cast(Any, SimpleNamespace(has_debug_file=False)))
    debugger, cpu = SimpleNamespace(), SimpleNamespace(own_data=0x2000)
    assert threads.puts_interrupts_off(cast(Any, debugger), cast(Any, cpu), 0x1000) is None
    places = {"td_critcount": 0xD4, "gd_reqflags": 0x18}
    layout = cast(Any, SimpleNamespace(offset=places.__getitem__))
    threads._layouts = {"thread": layout, "globaldata": layout}
    debugger.read = lambda address, size: critical.to_bytes(size, "little") if address == 0x10D4 else b""
    cpu.word = lambda address: flags if address == 0x2018 else -1
    assert threads.puts_interrupts_off(cast(Any, debugger), cast(Any, cpu), 0x1000) is put_off


@pytest.mark.parametrize(
    ("flags", "function", "taken", "kept_off"),
    [
        (2, "cpu_idle", (), True),
        (2, "cpu_idle_default_hook", (), True),  # which has no frame: nothing says that cpu_idle() called it
        (2, "sys_getpid", (), False),
        (2, "btext", (1,), True),
        (0, "cpu_idle", (), False),
    ],
    ids=["idle", "idle in a hook", "busy", "somebody stands there", "not queued"],
)
def test_who_would_run_on_a_cpu_that_runs_nobody_is_kept_off(
    flags: int, function: str, taken: tuple[int, ...], kept_off: bool
) -> None:
    threads = Threads(cast(Any, SimpleNamespace(has_debug_file=False)))
    places = {"td_flags": 0x10, "td_gd": 0x20}
    threads._layouts = {"thread": cast(Any, SimpleNamespace(offset=places.__getitem__))}
    memory = {0x1010: flags, 0x1020: 0x2100}

    def word(address: int) -> int:
        if address < 0x2000:
            raise HarnessError("nothing is mapped there")
        return 0  # it runs no thread that is asked for

    cpus = [
        SimpleNamespace(number=each, in_kernel=True, own_data=0x2000 + 0x100 * each, address=each, frame=0, word=word)
        for each in range(2)
    ]
    debugger = SimpleNamespace(
        cpus=2, cpu=cpus.__getitem__, read=lambda address, size: memory[address].to_bytes(size, "little")
    )
    functions = SimpleNamespace(locate=lambda address: (function if address == 1 else "cpu_idle", 0))
    assert threads.is_kept_off(cast(Any, debugger), 0x1000, cast(Any, functions), taken) is kept_off

# SPDX-License-Identifier: BSD-2-Clause
"""A machine that is given up is looked at once more, on whatever way it goes; what cannot be told is nobody's fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import DeadlineError, GuestDeadlineError, HarnessError
from harness.guests.crash import CrashReport
from harness.guests.guest import Guest, GuestHangError, KernelPanicError, MachineSize
from harness.guests.options import TargetOptions
from harness.machine.description import Lane
from harness.plugin.blame import verdict_of
from harness.plugin.diagnosis import start_trouble
from harness.plugin.rig import Rig
from harness.plugin.supply import GuestSupply
from harness.processes.session import Session, Warmth
from harness.results.record import BETWEEN_TESTS
from harness.results.verdict import Verdict
from harness.runs.options import RunOptions
from harness.store import Store

PANIC = KernelPanicError(CrashReport("panic: x"))
HANG = GuestHangError(CrashReport("nothing moves"))
SILENT = DeadlineError("query-status", 20)


class StandIn:
    """What a rig knows of a session: `check`, `probe` and `tidy` are what the guest and the hub raise, if anything."""

    def __init__(self) -> None:
        self.check: HarnessError | None = None
        self.probe: HarnessError | None = None
        self.tidy: HarnessError | None = None
        self.closed = False
        description = SimpleNamespace(command_line=lambda: "qemu")
        self.guest = SimpleNamespace(
            identity="k", machine=SimpleNamespace(description=description, was_stopped=False, execution=None),
            hear_out=lambda: self._raise(self.check), take_last_look=lambda: self._raise(self.check),
            probe=lambda: self._raise(self.probe),
        )  # fmt: skip
        self.hub = SimpleNamespace(kill_all=lambda: self._raise(self.tidy), await_reaped=lambda: None)

    @staticmethod
    def _raise(error: HarnessError | None) -> None:
        if error is not None:
            raise error

    def close(self) -> None:
        """End it."""
        self.closed = True

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def session() -> StandIn:
    return StandIn()


@pytest.fixture
def rig(session: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    target: Any = SimpleNamespace(is_dragonfly=False)
    monkeypatch.setattr("harness.processes.session.Session.boot", lambda *_, **__: session)
    monkeypatch.setattr("harness.plugin.rig.Warmth", lambda *_, **__: SimpleNamespace(failures=0))
    return Rig(target, Store(tmp_path), MachineSize(), cold=True)


def leave(rig: Rig) -> None:
    with rig:
        pass


def record(rig: Rig) -> None:
    with rig.recorded(Path("events"), lambda _: None):
        pass


@pytest.mark.parametrize(
    "give_up",
    [
        Rig.discard,
        Rig.give_up,
        leave,
        record,
        lambda rig: rig.enter(Lane.TIME_WARPED),
        lambda rig: rig.enter(rig.lane, 2),
    ],
    ids=["discard", "give-up", "leave", "record", "lane", "size"],
)
def test_a_death_nobody_noticed_is_noted_wherever_a_machine_is_given_up(
    rig: Rig, session: StandIn, give_up: Callable[[Rig], None]
) -> None:
    rig.ready()
    session.check = PANIC
    give_up(rig)
    ((where, death),) = rig.deaths
    assert where is session.guest  # type: ignore[comparison-overlap]  # which stands in for one
    assert death is PANIC
    assert rig.guest is None
    assert session.closed


@pytest.mark.parametrize(
    ("check", "probe", "raised", "verdict"),
    [
        (PANIC, None, PANIC, Verdict.PANIC),
        (None, HANG, HANG, Verdict.HANG),
        (None, None, None, Verdict.FAILED),  # it is well, and does not do what it should
        (None, SILENT, SILENT, Verdict.HARNESS_ERROR),  # QEMU itself does not answer
        (None, HarnessError("QEMU refused query-status"), None, Verdict.HARNESS_ERROR),
    ],
)
def test_what_does_not_come_to_an_end_is_the_kernels_only_if_its_machine_answers(
    rig: Rig, session: StandIn, check: HarnessError | None, probe: HarnessError | None,
    raised: HarnessError | None, verdict: Verdict,
) -> None:  # fmt: skip
    rig.ready()
    session.tidy = GuestDeadlineError("all processes to end", 10)
    session.check, session.probe = check, probe
    with pytest.raises(HarnessError) as caught:
        rig.clean()
    assert verdict_of(caught.value) is verdict
    assert caught.value is (raised or probe or session.tidy)
    assert session.closed


def test_a_machine_that_a_test_had_for_itself_is_looked_at_too(rig: Rig, session: StandIn) -> None:
    with pytest.raises(KernelPanicError), rig.lent():
        session.check = PANIC
    assert session.closed
    session.check = PANIC
    with pytest.raises(ZeroDivisionError), rig.lent():
        _ = 1 // 0  # what a test fails of is its own


@pytest.mark.parametrize("began", [True, False])
def test_a_death_is_charged_to_the_test_that_began_on_that_machine_or_to_none(
    monkeypatch: pytest.MonkeyPatch, began: bool
) -> None:
    monkeypatch.setattr("harness.plugin.supply.needs_target", lambda _: True)
    nothing: Any = None
    dead: Any = SimpleNamespace(lane=Lane.WALL_CLOCK)
    test: Any = SimpleNamespace(nodeid="t.py::test_a")
    machines: Any = SimpleNamespace(deaths=[(dead, PANIC)], guest=dead if began else SimpleNamespace())
    supply = GuestSupply(nothing, nothing, RunOptions(TargetOptions()), nothing)
    supply.rig = machines
    supply.begin(test)
    (death,) = supply.deaths()
    assert (death.test, death.verdict) == (test.nodeid if began else BETWEEN_TESTS, Verdict.PANIC)
    assert "noticed after the test" in death.reason


class Dying:
    """A guest whose kernel panics after it has booted, before it can be driven."""

    minded = Guest.minded

    def another(self, **_: object) -> Dying:
        """Return another."""
        return self

    def check(self) -> None:
        """Tell how it died."""
        raise PANIC

    def stop(self) -> None:
        """End it."""

    def __enter__(self) -> Dying:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.mark.parametrize("cold", [True, False])
def test_a_kernel_that_dies_before_it_can_be_driven_is_no_trouble_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: bool
) -> None:
    def waits_in_vain(*_: object) -> None:
        raise GuestDeadlineError("`mkdir` to end in the guest", 60)

    def boots(*_: object, **__: object) -> None:
        pass

    session = "harness.processes.session"
    monkeypatch.setattr(f"{session}.Guest", lambda *_, **__: Dying())
    monkeypatch.setattr(f"{session}.boot", boots)
    monkeypatch.setattr(f"{session}._install_executor", waits_in_vain)
    target: Any = SimpleNamespace(is_dragonfly=True, abi="dragonfly")
    store = Store(tmp_path)
    warmth = Warmth(target, store, MachineSize())
    with pytest.raises(KernelPanicError) as caught:
        _ = Session.boot(target, store, MachineSize()) if cold else warmth._make("key", lambda _: None)
    trouble = start_trouble(caught.value)
    assert (trouble.verdict, trouble.cause, trouble.verdict.exit_code) == (Verdict.BOOT_FAILURE, Verdict.PANIC, 1)

# SPDX-License-Identifier: BSD-2-Clause
"""What the lockstep suite does about disagreements, and about what nobody has promised: with oracles for kernels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.oracle import ERAS, make_oracle
from harness.oracle.lockstep import DisagreementError, Lockstep, OracleWorld
from harness.oracle.rehearsal import Rehearsal
from harness.oracle.traces import Deed, Ref, Step, load_trace
from harness.processes import Hub
from harness.processes.allocator import PidAllocator
from lockstep import test_lockstep
from lockstep.test_lockstep import AGAIN, Player
from support.holds import Grip

ZOMBIE_ASKED = [Step("fork"), Step("exit", 1, 4), Step("getpgid", 0, 2)]


@pytest.fixture
def player(tmp_path: Path) -> Player:
    """Return a player who believes to have a guest."""
    nobody = SimpleNamespace(kill_all=lambda: None, let_all_go=lambda: None)
    return Player(cast("Hub", nobody), cast("PidAllocator", nobody), cast("Grip", nobody), ERAS["2026"], tmp_path)


def kernels(monkeypatch: pytest.MonkeyPatch, targets: Iterator[str]) -> None:
    """Let each world of a guest be an oracle, right or wrong, in the order of TARGETS."""
    monkeypatch.setattr(test_lockstep, "GuestWorld", lambda *_: OracleWorld(make_oracle(next(targets)), "the kernel"))


def test_a_disagreement_that_repeats_itself_is_raised_and_kept_as_it_was_met(
    player: Player, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernels(monkeypatch, repeat("2026:zombies-found"))
    with pytest.raises(DisagreementError):
        player.play(ZOMBIE_ASKED, "trace-1-0")
    assert load_trace(tmp_path / "trace-1-0-seen.json")[1] == ZOMBIE_ASKED
    assert "P0.getpgid(P1) -> ESRCH" in (tmp_path / "trace-1-0-seen.log").read_text()
    assert f"came {AGAIN + 1} times of {AGAIN + 1}" in player.seen[0]


def test_a_disagreement_that_came_once_is_kept_and_not_forgotten(
    player: Player, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernels(monkeypatch, chain(["2026:zombies-found"], repeat("2026")))
    player.play(ZOMBIE_ASKED, "trace-1-0")
    player.play(ZOMBIE_ASKED, "trace-1-1")
    (seen,) = player.seen
    assert f"came 1 times of {AGAIN + 1}" in seen
    assert sorted(file.name for file in tmp_path.iterdir()) == ["trace-1-0-seen.json", "trace-1-0-seen.log"]


def test_what_is_met_while_shrinking_is_not_kept_again(
    player: Player, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernels(monkeypatch, repeat("2026:zombies-found"))
    for name in ("trace-1-0", "trace-1-1"):
        with pytest.raises(DisagreementError):
            player.play(ZOMBIE_ASKED, name)
    assert len(player.seen) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_stored_trace_must_agree_at_once(player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels(monkeypatch, chain(["2026:zombies-found"], repeat("2026")))
    with pytest.raises(DisagreementError):
        player.play(ZOMBIE_ASKED)


@pytest.fixture
def rehearsal() -> Rehearsal:
    """Return one in which P0 has the children P1 and P2 in a group of theirs, and P3 beside them."""
    found = Rehearsal(ERAS["2026"])
    for _ in range(3):
        assert found.is_certain(0, Deed("fork", (), "process"))
    assert found.is_certain(0, Deed("setpgid", (Ref(1), 0)))
    assert found.is_certain(0, Deed("setpgid", (Ref(2), Ref(1))))
    return found


DEADLY_TO_TWO = Deed("kill", (Ref(1, negative=True), "SIGKILL"))


def test_a_signal_that_kills_two_is_certain_while_nobody_waits(rehearsal: Rehearsal) -> None:
    assert rehearsal.is_certain(3, DEADLY_TO_TWO)
    assert rehearsal.left_out == 0


def test_which_of_two_children_a_waiting_parent_finds_dead_first_is_nobodys_promise(rehearsal: Rehearsal) -> None:
    assert rehearsal.is_certain(0, Deed("wait4", (-1, 0)))
    assert not rehearsal.is_certain(3, DEADLY_TO_TWO)
    assert rehearsal.left_out == 1
    # Nothing of it has happened: both are alive, and each may be killed by himself.
    assert rehearsal.is_certain(3, Deed("kill", (Ref(1), "SIGKILL")))
    assert rehearsal.is_certain(3, Deed("kill", (Ref(2), 0)))


def test_whether_who_signals_its_own_group_dies_before_its_leader_is_nobodys_promise() -> None:
    """The orphan's end is counted by its reaper, the child's is not; closing its files may take the sender longer."""
    found = Rehearsal(ERAS["2017"])
    assert found.is_certain(0, Deed("setsid", (), "pid"))
    assert found.is_certain(0, Deed("procctl_reaper_acquire"))
    assert found.is_certain(0, Deed("vfork"))
    assert found.is_certain(1, Deed("setpgid", (0, 0)))
    assert found.is_certain(1, Deed("fork", (), "process"))
    assert not found.is_certain(2, Deed("kill", (Ref(1, negative=True), "SIGHUP")))
    assert found.is_certain(2, Deed("kill", (Ref(1), "SIGHUP")))


def test_a_lockstep_does_not_do_what_is_not_certain() -> None:
    rehearsal = Rehearsal(ERAS["2026"])
    lockstep = Lockstep(make_oracle("2026"), OracleWorld(make_oracle("2026", seed=1), "its twin"), rehearsal)
    lockstep.run([Step("fork"), Step("fork"), Step("fork"), Step("own_group", 1), Step("setpgid", 2, 0, 5)])
    lockstep.step(Step("wait4", 0, 0, 2, 1))
    before = lockstep.calls
    lockstep.step(Step("killpg_any", 2, 2, 1))  # P3 kills P1 and P2, for whom P0 waits
    assert (lockstep.calls, rehearsal.left_out) == (before, 1)

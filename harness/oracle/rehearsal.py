# SPDX-License-Identifier: BSD-2-Clause
"""Whether the outcome of a call depends on who runs first: it is made in models before it is made anywhere else.

The models differ in who runs when only: in their order (calls.Order), and in who sleeps while it dies.  Where they
come to different results, in what a call returns or in a row of the process table, nobody has promised either: such a
call proves nothing against a kernel, and is left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from harness.oracle.calls import Order, drawn, first, last
from harness.oracle.eras import Era
from harness.oracle.lockstep import DisagreementError, Lockstep, OracleWorld
from harness.oracle.oracle import Oracle
from harness.oracle.rules import Rules
from harness.oracle.traces import Deed


class _OtherYielding(Rules):
    """Whether others run while a vforked child's exit waits for the parent is measured, and not always the same."""

    def vfork_exit_lets_others_run(self) -> bool:
        return not self.traits.vfork_exit_yields


class _SlowExits(Rules):
    """Who dies sleeps on its way: others whom the same signal kills may be dead before it is."""

    def exit_lets_others_run(self) -> bool:
        return True


class _SomeSlowExits(Rules):
    """Some do, some do not."""

    def __init__(self, era: Era, seed: int) -> None:
        super().__init__(era)
        self._lots = random.Random(seed)  # noqa: S311  (no secret)

    def exit_lets_others_run(self) -> bool:
        return self._lots.random() < 0.5


@dataclass(frozen=True)
class Setting:
    """A way in which a kernel may go on: the order and the rules, both made anew for each model."""

    order: Callable[[], Order]
    rules: Callable[[Era], Rules] = Rules


SETTINGS = (
    Setting(lambda: last),
    Setting(lambda: drawn(1)),
    Setting(lambda: drawn(2), partial(_SomeSlowExits, seed=1)),
    Setting(lambda: drawn(3), partial(_SomeSlowExits, seed=2)),
    Setting(lambda: first, _OtherYielding),
    Setting(lambda: first, _SlowExits),
    Setting(lambda: last, _SlowExits),
)


class Rehearsal:
    """Models in which all has happened that was certain.  `left_out` counts what was not."""

    def __init__(self, era: Era) -> None:
        self._era = era
        self._done: list[tuple[int, Deed]] = []
        self._stages = [self._stage(setting) for setting in SETTINGS]
        self.left_out = 0

    def _stage(self, setting: Setting) -> Lockstep:
        other = Oracle(setting.rules(self._era), 0, setting.order())
        stage = Lockstep(Oracle(Rules(self._era), 0), OracleWorld(other, "another order"))
        for who, deed in self._done:
            stage.perform(who, deed)
        return stage

    def is_certain(self, who: int, deed: Deed) -> bool:
        """Make the call DEED by process WHO in all models; tell whether all come to the same, else take it back."""
        for number, stage in enumerate(self._stages):
            try:
                stage.perform(who, deed)
            except DisagreementError:
                self._stages[: number + 1] = [self._stage(setting) for setting in SETTINGS[: number + 1]]
                self.left_out += 1
                return False
        self._done.append((who, deed))
        return True

# SPDX-License-Identifier: BSD-2-Clause
"""Whether the outcome of a call depends on who runs first: it is made in models before it is made anywhere else.

The models differ in their order only (calls.Order).  Where they come to different results, in what a call returns or in
a row of the process table, nobody has promised either: such a call proves nothing against a kernel, and is left out.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.oracle.calls import Order, drawn, last
from harness.oracle.lockstep import DisagreementError, Lockstep, OracleWorld
from harness.oracle.oracle import Oracle
from harness.oracle.traces import Deed

#: Orders other than that of the oracle itself, made anew for each model.
ORDERS: tuple[Callable[[], Order], ...] = (lambda: last, lambda: drawn(1), lambda: drawn(2), lambda: drawn(3))


class Rehearsal:
    """Models in which all has happened that was certain.  `left_out` counts what was not."""

    def __init__(self, make: Callable[[Order | None], Oracle]) -> None:
        self._make = make
        self._done: list[tuple[int, Deed]] = []
        self._stages = [self._stage(order) for order in ORDERS]
        self.left_out = 0

    def _stage(self, order: Callable[[], Order]) -> Lockstep:
        stage = Lockstep(self._make(None), OracleWorld(self._make(order()), "another order"))
        for who, deed in self._done:
            stage.perform(who, deed)
        return stage

    def is_certain(self, who: int, deed: Deed) -> bool:
        """Make the call DEED by process WHO in all models; tell whether all come to the same, else take it back."""
        for number, stage in enumerate(self._stages):
            try:
                stage.perform(who, deed)
            except DisagreementError:
                self._stages[: number + 1] = [self._stage(order) for order in ORDERS[: number + 1]]
                self.left_out += 1
                return False
        self._done.append((who, deed))
        return True

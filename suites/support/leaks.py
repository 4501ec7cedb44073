# SPDX-License-Identifier: BSD-2-Clause
"""Whether the kernel gives back all the memory it took."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import GuestDeadlineError
from harness.guests.whitebox import Whitebox
from support.processes import eventually

#: Malloc types of what kern_proc.c and its callers allocate (kern_proc.c, kern_exec.c: MALLOC_DEFINE).
KINDS = ("M_PROC", "M_PGRP", "M_SESSION", "M_LWP", "M_SUBPROC", "M_PARGS", "M_TEMP")
#: Cycles a round has at least: what is lost in one of so many is found.
CYCLES = 50
#: Rounds in a row that must each leave something behind.  What another process in the guest takes meanwhile, or a CPU
#: keeps for itself, comes once; a leak comes every time.
ROUNDS = 4
_DISPOSAL = 5.0  # s; the last of a thread is disposed of a little after it has ended


def expect_no_growth(kernel: Whitebox, pattern: Callable[[], int], kinds: tuple[str, ...] = KINDS) -> None:
    """Run PATTERN, which returns how many cycles it made, until a round leaves no allocation behind.

    The counts are exact: a quiet guest of 2017 or 2026 has after thousands of forks just as many allocations as before.
    Raises AssertionError when each of several rounds left something behind.
    """
    history: list[dict[str, int]] = []
    for _ in range(ROUNDS):
        if not (left := _left_by(kernel, pattern, kinds)):
            return
        history.append(left)
    raise AssertionError(f"allocations left in each of {ROUNDS} rounds: {history}")


def _left_by(kernel: Whitebox, pattern: Callable[[], int], kinds: tuple[str, ...]) -> dict[str, int]:
    """Return how many allocations of each kind one round of PATTERN leaves behind."""
    before = {kind: kernel.allocations(kind) for kind in kinds}
    cycles = pattern()
    assert cycles >= CYCLES, f"only {cycles} cycles"

    def left() -> dict[str, int]:
        growth = {kind: kernel.allocations(kind) - count for kind, count in before.items()}
        return {kind: count for kind, count in growth.items() if count > 0}

    try:
        eventually(lambda: not left(), "the memory to be given back", _DISPOSAL)
    except GuestDeadlineError:
        return left()
    return {}

# SPDX-License-Identifier: BSD-2-Clause
"""Whether the kernel has as much memory in use as before."""

from __future__ import annotations

from collections.abc import Callable

from harness.guests.whitebox import Whitebox
from support.processes import eventually

#: Malloc types of what kern_proc.c and its callers allocate (kern_proc.c, kern_exec.c: MALLOC_DEFINE).
KINDS = ("M_PROC", "M_PGRP", "M_SESSION", "M_LWP", "M_SUBPROC", "M_PARGS", "M_TEMP")
#: What else happens in the guest meanwhile, and what a CPU keeps for itself, moves the counts by no more than this.
SLACK = 40


def expect_no_growth(kernel: Whitebox, pattern: Callable[[], int], kinds: tuple[str, ...] = KINDS) -> None:
    """Run PATTERN, which returns how many cycles it made, and compare; threads are disposed of a little later."""

    def in_use() -> dict[str, int]:
        return {kind: kernel.allocations(kind) for kind in kinds}

    before = in_use()
    cycles = pattern()
    assert cycles > 5 * SLACK, f"only {cycles} cycles"

    def grown() -> dict[str, int]:
        return {kind: count - before[kind] for kind, count in in_use().items() if count > before[kind] + SLACK}

    try:
        eventually(lambda: not grown(), "the memory to be given back")
    except Exception:
        assert grown() == {}, f"allocations left after {cycles} cycles"
        raise

# SPDX-License-Identifier: BSD-2-Clause
"""What is read of a kernel's memory from outside is where its debug file, or its era, says."""

from __future__ import annotations

import struct
from functools import partial

import pytest

from harness.guests.allocations import counters_by_layout, counters_by_size
from harness.guests.guest import Guest
from harness.guests.whitebox import Whitebox
from harness.processes import RemoteProcess
from support.processes import eventually

pytestmark = pytest.mark.needs_kernel

KINDS = ("M_PROC", "M_PGRP", "M_SESSION", "M_LWP", "M_TEMP")
MADE = 50
USCHED_SET_CPU = 1  # sys/usched.h


@pytest.fixture
def kernel(guest: Guest) -> Whitebox:
    """Return the kernel from outside."""
    if not guest.target.is_dragonfly:
        pytest.skip("not applicable: no DragonFly kernel")
    return guest.kernel


@pytest.mark.parametrize("kind", KINDS)
def test_debug_file_and_era_have_counters_at_the_same_place(kernel: Whitebox, kind: str) -> None:
    """One without a debug file is counted as rightly as one with (harness.guests.allocations)."""
    if not kernel.has_debug_file:
        pytest.skip("not applicable: the kernel has no debug file")
    assert counters_by_size(kernel.size(kind)) == counters_by_layout(kernel.structures)


def comes_to(kernel: Whitebox, count: int) -> bool:
    """Tell whether so many processes are allocated."""
    return kernel.allocations("M_PROC") == count


@pytest.mark.cpus(2)
def test_each_process_is_one_allocation_on_whatever_cpu_it_is_made(init: RemoteProcess, kernel: Whitebox) -> None:
    """The counters of all CPUs are added up (sys/malloc.h: struct kmalloc_use)."""
    parents = [init.fork(), init.fork()]
    for cpu, parent in enumerate(parents):
        parent.syscall("usched_set", 0, USCHED_SET_CPU, struct.pack("<i", cpu), 4)
    for parent in parents:
        before = kernel.allocations("M_PROC")
        pids = parent.spawn_many(MADE, paused=True)
        assert kernel.allocations("M_PROC") == before + MADE
        for pid in pids:
            parent.kill(pid, "SIGKILL")
            parent.wait4(pid)
        eventually(partial(comes_to, kernel, before), "the memory to be given back")

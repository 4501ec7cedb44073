# SPDX-License-Identifier: BSD-2-Clause
"""What a child has used, as wait4() and getrusage() tell it (kern_exit.c: kern_wait(), ruadd())."""

from __future__ import annotations

import pytest

from harness.processes import WUNTRACED, RemoteProcess, Rusage
from support.processes import row, stop

MEGABYTES = 8


PAGES = (MEGABYTES << 20) // 4096


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.needs_kernel
def test_the_usage_of_a_child_is_reported_with_its_end(init: RemoteProcess) -> None:
    """Page faults of touched memory, for example (kern_exit.c: kern_wait, p_ru)."""
    idle, busy = init.fork(), init.fork()
    busy.touch_memory(MEGABYTES << 20)
    idle.exit()
    busy.exit()
    faults = [init.wait4(child.pid).rusage.minflt for child in (idle, busy)]
    assert faults[1] - faults[0] >= PAGES // 64  # some are spared by prefaulting
    assert faults[0] >= 0


@pytest.mark.passes("proc_remove_zombie")
@pytest.mark.needs_kernel
def test_the_usage_of_a_child_includes_the_children_it_has_waited_for(init: RemoteProcess) -> None:
    """And those only (kern_exit.c: exit1 and kern_wait add p_cru)."""
    usage = {}
    for waits in (False, True):
        child = init.fork()
        grandchild = child.fork()
        grandchild.touch_memory(MEGABYTES << 20)
        grandchild.exit()
        if waits:
            child.wait4(grandchild.pid)
        child.exit()
        usage[waits] = init.wait4(child.pid).rusage.minflt
    assert usage[True] - usage[False] >= PAGES // 64


@pytest.mark.passes("sysctl_out_proc")
@pytest.mark.needs_kernel
def test_the_usage_of_waited_for_children_is_shown_by_the_process_table(init: RemoteProcess) -> None:
    """kp_cru grows by what wait4() reported (kern_exit.c: kern_wait)."""
    parent = init.fork()
    child = parent.fork()
    child.touch_memory(MEGABYTES << 20)
    before = row(init, parent.pid).cru
    child.exit()
    assert row(init, parent.pid).cru == before
    usage = parent.wait4(child.pid).rusage
    assert row(init, parent.pid).cru.minflt == before.minflt + usage.minflt


@pytest.mark.passes("proc_move_allproc_zombie")
@pytest.mark.needs_kernel
def test_a_stop_is_reported_without_usage(init: RemoteProcess) -> None:
    """All zero: the child goes on using (kern_exit.c: kern_wait)."""
    child = init.fork()
    child.touch_memory(MEGABYTES << 20)
    stop(init, child)
    assert init.wait4(child.pid, WUNTRACED).rusage == Rusage()

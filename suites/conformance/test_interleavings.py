# SPDX-License-Identifier: BSD-2-Clause
"""Interleavings that the kernel's tokens exclude, and what is said of those that cannot be stated."""

from __future__ import annotations

from functools import partial

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import RemoteProcess
from harness.races.schedule import NotSchedulableError, Schedule
from support.processes import exists

pytestmark = [pytest.mark.needs_kernel, pytest.mark.cpus(2)]


@pytest.mark.kern_proc("sysctl_out_proc")
def test_who_is_being_described_does_not_exit_meanwhile(
    init: RemoteProcess, schedule: Schedule, kernel: Whitebox
) -> None:
    """Whoever fills in a row of the table has the process's token, which its end needs (sysctl_out_proc, exit1)."""
    reader, child = init.fork(), init.fork()
    # Whose token it waits for is told where there is a debug file.
    why = f", which process {reader.pid} " if kernel.has_debug_file else "has not come .*: it waits"
    ask = partial(reader.start.sysctl.kern_proc_pid, child.pid)
    with schedule.holding(reader, at="fill_kinfo_proc", doing=ask) as asking:
        with pytest.raises(NotSchedulableError, match=f"process {child.pid} .*{why}") as told:
            schedule.until(child, reaches="proc_move_allproc_zombie", doing=child.start.exit)
        assert told.value.held
    (row,) = asking.result()
    assert row.pid == child.pid
    assert not row.is_zombie
    assert init.wait4(child.pid).pid == child.pid


@pytest.mark.kern_proc("pfind")
def test_a_point_that_a_call_does_not_pass_is_told(init: RemoteProcess, schedule: Schedule) -> None:
    """Whoever asks for his own pid looks nobody up by pfind(); the call returns, and that is said."""
    child = init.fork()
    with pytest.raises(NotSchedulableError, match=f"does not come to pfind: .*getpid.* = {child.pid}$") as told:
        schedule.until(child, reaches="pfind", doing=child.start.getpid)
    assert not told.value.held
    assert exists(init, child.pid)

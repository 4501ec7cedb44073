# SPDX-License-Identifier: BSD-2-Clause
"""What is never given back: defects of calls that fail half-way.

Each test states what ought to be, with the source of that, and fails on every kernel known so far.
"""

from __future__ import annotations

import struct
from errno import EFAULT

import pytest

from harness.guests.whitebox import Whitebox
from harness.processes import RemoteProcess, fails
from support.leaks import CYCLES, expect_no_growth
from support.processes import SOMEBODY

pytestmark = pytest.mark.needs_kernel
defect = pytest.mark.defect

NOWHERE = 8  # an address nothing is mapped at
#: machine/lwp_params: function, argument, stack, and two places for the thread id
LWP_PARAMS = struct.Struct("<5Q")


@pytest.mark.passes("lwpfind")
@defect(
    since=200000,
    severity="leak",
    reason="a thread whose number cannot be stored is taken back, but for its reference to the credentials",
    reproducer="thread-not-made.c",
)
def test_a_thread_that_could_not_be_made_keeps_no_credentials(init: RemoteProcess, kernel: Whitebox) -> None:
    """They go with the process (lwp_create(2); kern_fork.c: lwp_create1, lwp_fork2, td_ucred)."""

    def pattern() -> int:
        cycles = CYCLES
        for number in range(cycles):
            child = init.fork()
            child.setuid(SOMEBODY + number)
            with fails(EFAULT):
                child.syscall("lwp_create", LWP_PARAMS.pack(0, 0, 0, NOWHERE, NOWHERE))
            child.exit()
            init.wait4(child.pid)
        return cycles

    expect_no_growth(kernel, pattern, ("M_CRED", "M_UIDINFO"))

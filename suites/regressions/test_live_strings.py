# SPDX-License-Identifier: BSD-2-Clause
"""Strings handed to the kernel that are longer than it takes: a defect of copyinstr().

Each test states what ought to be, with the source of that, and fails on every kernel from 2018 to April 2026.
"""

from __future__ import annotations

from errno import EINVAL, ENAMETOOLONG

import pytest

from harness.processes import RemoteProcess, fails

pytestmark = pytest.mark.needs_kernel
defect = pytest.mark.defect(
    since=500317,
    severity="wrong answer",
    reason="copyinstr() compares the kernel's address with the end of user memory, not the string's: always EFAULT"
    " (879d1a9ecd, 2018-09-25)",
    reproducer="path-too-long.c",
    introduced="879d1a9ecd of 2018-09-23",
)


@pytest.mark.passes("sysctl_kern_proc_cwd")
@defect
@pytest.mark.parametrize("call", ["open", "chdir", "execve"])
def test_a_path_that_is_too_long_is_told_from_one_that_cannot_be_read(init: RemoteProcess, call: str) -> None:
    """ENAMETOOLONG for 1024 bytes and more (PATH_MAX; open(2); support.s: std_copyinstr)."""
    with fails(ENAMETOOLONG):
        init.syscall(call, "/" + "x" * 1100, 0, 0)


@pytest.mark.passes("enterpgrp")
@defect
def test_a_login_name_that_is_far_too_long_is_an_invalid_one(init: RemoteProcess) -> None:
    """EINVAL, and the old one stays (setlogin(2); kern_prot.c: sys_setlogin)."""
    init.setlogin("short")
    with fails(EINVAL):
        init.setlogin("x" * 100)
    assert init.getlogin() == "short"

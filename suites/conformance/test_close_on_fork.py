# SPDX-License-Identifier: BSD-2-Clause
"""Descriptors that fork() closes: O_CLOFORK and FD_CLOFORK (kern_descrip.c: fdcopy())."""

from __future__ import annotations

import os
from errno import EBADF, EINVAL

import pytest

from harness.processes import O_CLOFORK, Fcntl, FdFlag, RemoteProcess, fails

pytestmark = pytest.mark.needs_kernel


def flags(process: RemoteProcess, fd: int) -> FdFlag:
    """Return a descriptor's flags."""
    return FdFlag(process.fcntl(fd, Fcntl.F_GETFD))


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("clofork")
def test_a_child_has_no_descriptor_that_fork_closes(init: RemoteProcess) -> None:
    """The parent keeps it, and others are inherited (kern_descrip.c: fdcopy)."""
    parent = init.fork()
    closed, kept = parent.open("/dev/null", O_CLOFORK), parent.open("/dev/null")
    child = parent.fork()
    with fails(EBADF):
        child.fcntl(closed, Fcntl.F_GETFD)
    assert flags(child, kept) == FdFlag(0)
    assert flags(parent, closed) == FdFlag.FD_CLOFORK
    assert child.open("/dev/null") == closed


@pytest.mark.passes("pfind")
@pytest.mark.feature("clofork")
def test_each_flag_of_a_descriptor_is_set_by_itself(init: RemoteProcess) -> None:
    """F_SETFD sets both as they are given (kern_descrip.c: fsetfdflags)."""
    fd = init.open("/dev/null")
    for given in (FdFlag.FD_CLOFORK, FdFlag.FD_CLOEXEC, FdFlag.FD_CLOFORK | FdFlag.FD_CLOEXEC, FdFlag(0)):
        init.fcntl(fd, Fcntl.F_SETFD, given)
        assert flags(init, fd) == given


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("clofork")
def test_a_descriptor_is_closed_by_fork_as_long_as_it_says_so(init: RemoteProcess) -> None:
    """Set and unset by fcntl() (kern_descrip.c: kern_fcntl)."""
    parent = init.fork()
    fd = parent.open("/dev/null", O_CLOFORK)
    parent.fcntl(fd, Fcntl.F_SETFD, 0)
    parent.fork().fcntl(fd, Fcntl.F_GETFD)
    parent.fcntl(fd, Fcntl.F_SETFD, FdFlag.FD_CLOFORK)
    with fails(EBADF):
        parent.fork().fcntl(fd, Fcntl.F_GETFD)


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("clofork")
def test_a_duplicate_is_closed_by_fork_only_if_asked_for(init: RemoteProcess) -> None:
    """F_DUPFD loses the flag, F_DUPFD_CLOFORK and F_DUP2FD_CLOFORK set it (kern_descrip.c: kern_dup)."""
    fd = init.open("/dev/null", O_CLOFORK)
    assert flags(init, init.fcntl(fd, Fcntl.F_DUPFD)) == FdFlag(0)
    assert flags(init, init.fcntl(fd, Fcntl.F_DUPFD_CLOFORK)) == FdFlag.FD_CLOFORK
    assert init.fcntl(fd, Fcntl.F_DUP2FD_CLOFORK, 60) == 60
    assert flags(init, 60) == FdFlag.FD_CLOFORK
    both = int(FdFlag.FD_CLOFORK | FdFlag.FD_CLOEXEC)
    assert init.fcntl(fd, Fcntl.F_DUP3FD | both << 16, 61) == 61
    assert flags(init, 61) == FdFlag.FD_CLOFORK | FdFlag.FD_CLOEXEC


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("clofork")
def test_a_program_keeps_what_only_fork_closes(init: RemoteProcess) -> None:
    """execve() asks for FD_CLOEXEC alone (kern_descrip.c: fdcloseexec)."""
    child = init.fork()
    fd = child.open("/dev/null", os.O_RDONLY)
    child.fcntl(fd, Fcntl.F_SETFD, FdFlag.FD_CLOFORK)
    child.reexec()
    child.fcntl(fd, Fcntl.F_GETFD)


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.feature("!clofork")
def test_fork_closes_no_descriptor_yet(init: RemoteProcess) -> None:
    """The flag is not kept, and duplicates cannot have it (kern_descrip.c: kern_fcntl)."""
    parent = init.fork()
    fd = parent.open("/dev/null", O_CLOFORK)
    parent.fcntl(fd, Fcntl.F_SETFD, FdFlag.FD_CLOFORK)
    assert flags(parent, fd) == FdFlag(0)
    assert flags(parent.fork(), fd) == FdFlag(0)
    with fails(EINVAL):
        parent.fcntl(fd, Fcntl.F_DUPFD_CLOFORK)

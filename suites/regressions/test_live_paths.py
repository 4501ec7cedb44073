# SPDX-License-Identifier: BSD-2-Clause
"""Names that lead nowhere any more: defects of what kern.proc makes of the name cache.

Each test states what ought to be, with the source of that, and fails on every kernel known so far.
"""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from harness.processes import GuestError, RemoteProcess
from support.processes import eventually
from support.sysctl import CWD, PATHNAME, proc_mib

pytestmark = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc
defect = pytest.mark.defect


def told(process: RemoteProcess, mib: tuple[int, ...]) -> bytes:
    """Return what PROCESS reads at MIB, nothing if that fails."""
    with suppress(GuestError):
        return process.sysctl.read(mib, 1024).rstrip(b"\0")
    return b""


@kern_proc("sysctl_kern_proc_cwd")
@defect(
    since=200000,
    severity="wrong answer",
    reason="cache_fullpath() does not mind that the directory has been removed (NCF_DESTROYED)",
    reproducer="removed-directory.c",
)
def test_a_directory_that_was_removed_is_nobodys(init: RemoteProcess) -> None:
    """Not even if there is another of its name (FreeBSD: kern.proc.cwd; kern_proc.c: sysctl_kern_proc_cwd)."""
    path = f"/tmp/removed-{init.pid}"  # noqa: S108  (in the guest)
    child = init.fork()
    init.mkdir(path)
    child.chdir(path)
    init.rmdir(path)
    gone = told(init, proc_mib(CWD, child.pid))
    init.mkdir(path)
    another = told(init, proc_mib(CWD, child.pid))
    init.rmdir(path)
    assert (gone, another) == (b"", b"")


@kern_proc("sysctl_kern_proc_pathname")
@defect(
    since=300701,
    severity="wrong answer",
    reason="cache_fullpath() does not mind that the program's file has been removed (NCF_DESTROYED)",
    reproducer="removed-program.c",
)
def test_a_program_that_was_removed_is_not_told_by_a_name_that_is_anothers(init: RemoteProcess) -> None:
    """Whoever replaces a program does not make others run his (FreeBSD: ENOENT; sysctl_kern_proc_pathname)."""
    path = f"/bin/program-{init.pid}"
    init.syscall("link", "/bin/sleep", path)
    child = init.fork()
    child.execve(path, ["sleep", "1000"])
    eventually(lambda: init.sysctl.kern_proc_pathname(child.pid) == path, "the program to run")
    init.unlink(path)
    init.close(init.open(path, os.O_CREAT | os.O_WRONLY))
    found = told(init, proc_mib(PATHNAME, child.pid))
    init.unlink(path)
    assert found == b""

# SPDX-License-Identifier: BSD-2-Clause
"""fexecve(): a program run by descriptor (kern_exec.c: sys_fexecve())."""

from __future__ import annotations

import os
from errno import EBADF, EFAULT, EINVAL
from signal import SIGKILL, SIGSYS

import pytest

from harness.processes import Handler, RemoteProcess, fails
from support.processes import eventually, row

pytestmark = pytest.mark.needs_kernel


@pytest.mark.passes("sysctl_kern_proc_args", "sysctl_kern_proc_pathname", "sysctl_out_proc")
@pytest.mark.feature("fexecve")
def test_a_program_run_by_descriptor_is_shown_as_if_run_by_name(init: RemoteProcess) -> None:
    """Name, arguments and path are the file's own (kern_exec.c: kern_execve)."""
    child = init.fork()
    child.fexecve(child.open("/bin/sleep", os.O_RDONLY), ["a name", "1000"])
    eventually(lambda: init.sysctl.kern_proc_args(child.pid) == [b"a name", b"1000"], "the program to run")
    assert row(init, child.pid).comm == "sleep"
    assert init.sysctl.kern_proc_pathname(child.pid) == "/bin/sleep"
    init.kill(child.pid, SIGKILL)
    assert init.wait4(child.pid).signal == SIGKILL


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("fexecve")
def test_a_program_that_was_renamed_is_still_run(init: RemoteProcess) -> None:
    """The descriptor counts, not the name it was opened by (kern_exec.c: sys_fexecve)."""
    path = f"/tmp/fexecve-{init.pid}"  # noqa: S108  (in the guest)
    copier = init.fork()
    copier.execve("/bin/cp", ["cp", "/bin/sleep", path])
    assert init.wait4(copier.pid).exit_status == 0
    child = init.fork()
    fd = child.open(path, os.O_RDONLY)
    init.rename(path, f"{path}-renamed")
    child.fexecve(fd, ["sleep", "0"])
    assert init.wait4(child.pid).exit_status == 0
    init.unlink(f"{path}-renamed")


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("fexecve")
@pytest.mark.parametrize("mode", [os.O_WRONLY, os.O_RDWR])
def test_a_descriptor_open_for_writing_runs_nothing(init: RemoteProcess, mode: int) -> None:
    """EBADF, whatever else it is open for (kern_exec.c: sys_fexecve)."""
    child = init.fork()
    with fails(EBADF):
        child.fexecve(child.open("/dev/null", mode))
    assert child.getpid() == child.pid


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("fexecve")
def test_only_files_can_be_run_by_descriptor(init: RemoteProcess) -> None:
    """No descriptor is EBADF, one without a file EINVAL (kern_descrip.c: holdvnode)."""
    child = init.fork()
    with fails(EBADF):
        child.fexecve(99)
    reading, _ = child.pipe()
    with fails(EINVAL):
        child.fexecve(reading)


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("fexecve")
def test_a_program_run_by_descriptor_needs_arguments(init: RemoteProcess) -> None:
    """Argv must not be null (kern_exec.c: exec_copyin_args)."""
    child = init.fork()
    with fails(EFAULT):
        child.syscall("fexecve", child.open("/bin/sleep", os.O_RDONLY), 0, 0)
    assert child.getpid() == child.pid


@pytest.mark.passes("proc_makepid")
@pytest.mark.feature("!fexecve")
def test_programs_are_not_run_by_descriptor_yet(init: RemoteProcess) -> None:
    """The number is of no system call: SIGSYS, and EINVAL for who ignores that (kern_sig.c: sys_nosys)."""
    child = init.fork()
    child.sigaction(SIGSYS, Handler.IGNORE)
    with fails(EINVAL):
        child.fexecve(child.open("/bin/sleep", os.O_RDONLY), ["sleep", "0"])
    assert child.getpid() == child.pid

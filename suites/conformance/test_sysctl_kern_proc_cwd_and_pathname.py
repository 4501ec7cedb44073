# SPDX-License-Identifier: BSD-2-Clause
"""kern.proc.cwd and kern.proc.pathname (kern_proc.c: sysctl_kern_proc_cwd(), sysctl_kern_proc_pathname())."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL, ENOENT, ESRCH

import pytest

from harness.processes import Process, RemoteProcess, fails
from support.processes import NO_SUCH_ID, SOMEBODY
from support.programs import run
from support.sysctl import CWD, PATHNAME, proc_mib

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc


# ---- Working directory --------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc_cwd")
def test_cwd_follows_chdir(init: Process) -> None:
    """A child begins in its parent's directory and then goes its own way (kern_proc.c: sysctl_kern_proc_cwd)."""
    init.chdir("/dev")
    child = init.fork()
    assert init.sysctl.kern_proc_cwd(child.pid) == "/dev"
    child.chdir("/")
    assert (init.sysctl.kern_proc_cwd(child.pid), child.sysctl.kern_proc_cwd(init.pid)) == ("/", "/dev")


@kern_proc("sysctl_kern_proc_cwd")
def test_cwd_of_process_1_is_the_root(init: Process) -> None:
    """It is a process like any other (kern_proc.c: sysctl_kern_proc_cwd)."""
    assert init.sysctl.kern_proc_cwd(1) == "/"


@contextmanager
def folder(process: RemoteProcess) -> Iterator[str]:
    """Make a directory that is removed afterwards."""
    path = f"/tmp/conformance-{process.pid}"  # noqa: S108  (in the guest)
    process.mkdir(path)
    try:
        yield path
    finally:
        process.chdir("/")
        process.rmdir(path)


@kern_proc("sysctl_kern_proc_cwd")
def test_cwd_ends_with_a_null_byte_and_nothing_else(init: RemoteProcess) -> None:
    """Its length is that of the string (kern_proc.c: sysctl_kern_proc_cwd)."""
    init.chdir("/dev")
    assert init.sysctl.read(proc_mib(CWD, init.pid)) == b"/dev\0"


@needs_kernel
@kern_proc("sysctl_kern_proc_cwd")
def test_cwd_is_the_directorys_present_name(init: RemoteProcess) -> None:
    """Renaming it shows at once (vfs_cache.c: cache_fullpath)."""
    child = init.fork()
    with folder(init) as path:
        child.chdir(path)
        init.rename(path, f"{path}-renamed")
        found = init.sysctl.kern_proc_cwd(child.pid)
        init.rename(f"{path}-renamed", path)
    assert found == f"{path}-renamed"


@needs_kernel
@kern_proc("sysctl_kern_proc_cwd")
def test_cwd_is_told_from_the_processs_own_root(init: RemoteProcess) -> None:
    """Not from the reader's (vfs_cache.c: cache_fullpath, fd_nrdir)."""
    child = init.fork()
    with folder(init) as path:
        init.mkdir(f"{path}/inner")
        child.chroot(path)
        child.chdir("/inner")
        found = init.sysctl.kern_proc_cwd(child.pid)
        child.exit()
        init.rmdir(f"{path}/inner")
    assert found == "/inner"


@needs_kernel
@kern_proc("sysctl_kern_proc_cwd")
def test_a_directory_outside_the_processs_root_has_no_name(init: RemoteProcess) -> None:
    """ENOENT (vfs_cache.c: cache_fullpath)."""
    child = init.fork()
    with folder(init) as path:
        child.chdir("/dev")
        child.chroot(path)
        with fails(ENOENT):
            init.sysctl.kern_proc_cwd(child.pid)
        child.exit()


@needs_kernel
@kern_proc("sysctl_kern_proc_cwd")
@pytest.mark.parametrize(
    "told",
    [
        pytest.param(True, marks=pytest.mark.feature("!getcwd_enoent"), id="by its name"),
        pytest.param(False, marks=pytest.mark.feature("getcwd_enoent"), id="no more"),
    ],
)
def test_a_process_in_a_removed_directory_is_told(init: RemoteProcess, told: bool) -> None:
    """The name it had, or ENOENT since November 2020; back in another, all is as ever (vfs_cache.c: kern_getcwd)."""
    path = f"/tmp/removed-{init.pid}"  # noqa: S108  (in the guest)
    init.mkdir(path)
    init.chdir(path)
    init.rmdir(path)
    if told:
        assert init.getcwd() == path
    else:
        with fails(ENOENT):
            init.getcwd()
    init.chdir("/dev")
    assert init.getcwd() == init.sysctl.kern_proc_cwd(init.pid) == "/dev"


# ---- Program ------------------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc_pathname")
def test_pathname_of_minus_one_is_the_callers_own(init: RemoteProcess) -> None:
    """Short for its own pid (kern_proc.c: sysctl_kern_proc_pathname)."""
    child = init.fork()
    own = init.sysctl.kern_proc_pathname(-1)
    assert own.endswith("/executor")
    assert (init.sysctl.kern_proc_pathname(init.pid), child.sysctl.kern_proc_pathname(-1)) == (own, own)


@kern_proc("sysctl_kern_proc_pathname")
def test_pathname_is_the_program_a_process_runs(init: RemoteProcess) -> None:
    """Its full path after execve(), for anybody (kern_proc.c: sysctl_kern_proc_pathname)."""
    child, user = init.fork(), init.fork()
    user.setuid(SOMEBODY)
    run(init, child, "/bin/sleep", "sleep", "1000")
    for reader in (init, user):
        assert reader.sysctl.read(proc_mib(PATHNAME, child.pid)) == b"/bin/sleep\0"


@needs_kernel
@kern_proc("sysctl_kern_proc_pathname")
def test_pathname_is_the_files_own_even_if_it_was_started_by_a_link(init: RemoteProcess) -> None:
    """Symbolic links have been followed (kern_exec.c: p_textnch)."""
    child = init.fork()
    with folder(init) as path:
        init.syscall("symlink", "/bin/sleep", f"{path}/link")
        run(init, child, f"{path}/link", "sleep", "1000")
        found = init.sysctl.kern_proc_pathname(child.pid)
        init.unlink(f"{path}/link")
    assert found == "/bin/sleep"


@kern_proc("sysctl_kern_proc_pathname")
@pytest.mark.passes("pfind")
def test_pathname_of_nobody_or_a_zombie_is_refused(init: RemoteProcess) -> None:
    """ESRCH, unlike args and cwd (kern_proc.c: sysctl_kern_proc_pathname)."""
    zombie = init.fork()
    zombie.exit()
    for pid in (zombie.pid, NO_SUCH_ID, -2):
        with fails(ESRCH):
            init.sysctl.kern_proc_pathname(pid)


@needs_kernel
@kern_proc("sysctl_kern_proc_pathname")
def test_a_program_outside_the_processs_root_has_no_path(init: RemoteProcess) -> None:
    """ENOENT (vfs_cache.c: cache_fullpath)."""
    child = init.fork()
    with folder(init) as path:
        child.chroot(path)
        with fails(ENOENT):
            init.sysctl.kern_proc_pathname(child.pid)
        with fails(ENOENT):
            child.sysctl.kern_proc_pathname(-1)
        child.exit()


@kern_proc("sysctl_kern_proc_pathname")
@pytest.mark.feature("pathname_einval")
def test_the_pathname_of_whoever_runs_no_program_is_einval(init: RemoteProcess) -> None:
    """The swapper is found and has none; nobody at all is ESRCH (kern_proc.c: p_textnch)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    for reader in (init, user):
        with fails(EINVAL):
            reader.sysctl.kern_proc_pathname(0)
        with fails(ESRCH):
            reader.sysctl.kern_proc_pathname(NO_SUCH_ID)

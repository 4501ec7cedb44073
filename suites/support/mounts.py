# SPDX-License-Identifier: BSD-2-Clause
"""File systems mounted for a test and gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from harness.processes import GuestError, RemoteProcess

_MNT_FORCE = 0x00080000  # sys/mount.h


@contextmanager
def _mount_point(process: RemoteProcess, kind: str) -> Iterator[str]:
    path = f"/tmp/{kind}-{process.pid}"  # noqa: S108  (in the guest)
    process.mkdir(path)
    try:
        yield path
    finally:
        with suppress(GuestError):  # the test may have unmounted it
            process.syscall("unmount", path, _MNT_FORCE)
        process.rmdir(path)


@contextmanager
def procfs(process: RemoteProcess) -> Iterator[str]:
    """Mount procfs and return where."""
    with _mount_point(process, "procfs") as path:
        process.syscall("mount", "procfs", path, 0, 0)
        yield path


@contextmanager
def null_mount(process: RemoteProcess, target: str) -> Iterator[str]:
    """Mount TARGET at a second place and return that."""
    with _mount_point(process, "null") as path:
        mounter = process.fork()
        mounter.execve("/sbin/mount_null", ["mount_null", target, path])
        assert process.wait4(mounter.pid).exit_status == 0
        yield path

# SPDX-License-Identifier: BSD-2-Clause
"""What test programs that nobody here wrote have shown of the file system's calls (docs/programs.md).

Each test states what ought to be, with the source of that, and fails on every kernel known so far.
"""

from __future__ import annotations

import pytest

from harness.processes import RemoteProcess

pytestmark = pytest.mark.needs_kernel


@pytest.mark.defect(
    since=200000,
    severity="wrong answer",
    reason="kern_rename() never says NLC_WILLBEDIR, so that a directory's new name that ends with a slash is ENOTDIR"
    " (Go: os TestRootMultiRename)",
    reproducer="rename-directory-slash.c",
)
@pytest.mark.parametrize("end", ["/", "//"])
def test_a_directory_may_be_given_a_name_that_ends_with_a_slash(init: RemoteProcess, end: str) -> None:
    """A slash may follow what is to become a directory (POSIX 4.16, pathname resolution; mkdir() takes it, too)."""
    old, new = f"/tmp/old-{init.pid}", f"/tmp/new-{init.pid}"  # noqa: S108  (in the guest)
    init.mkdir(f"{old}{end}")
    try:
        init.rename(old, f"{new}{end}")
    except OSError:
        init.rmdir(old)
        raise
    init.rmdir(new)

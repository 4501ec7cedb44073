# SPDX-License-Identifier: BSD-2-Clause
"""The page a process shares with the kernel (kern_proc.c: proc_usermap()), without its memory: entries by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.oracle.model import Proc

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

VERSION = 1  # UPMAP_VERSION
TITLE_SIZE = 1024  # UPMAP_MAXPROCTITLE


class UserMap:
    """/dev/upmap as one process has it mapped: the page is that of whoever looks."""

    def __init__(self, k: Kernel, proc: Proc) -> None:
        self._k = k
        self._proc = proc

    @property
    def _owner(self) -> Proc:
        return self._k.rules.page_owner(self._proc)

    def value(self, name: str) -> int:
        """Return a numeric entry; time is not counted, so runticks is 0."""
        rules = self._k.rules
        numbers = {"version": VERSION, "runticks": 0}
        numbers |= {"pid": rules.page_pid(self._owner), "forkid": rules.page_forkid(self._owner)}
        return {**numbers, "invfork": rules.page_invfork(self._owner)}[name]

    def content(self, name: str) -> bytes:
        """Return the bytes of an entry: the title."""
        assert name == "title"
        return self._owner.title.ljust(TITLE_SIZE, b"\0")

    def write(self, name: str, data: bytes) -> None:
        """Write to the title, without adding anything."""
        self._owner.title = data + self.content(name)[len(data) :]

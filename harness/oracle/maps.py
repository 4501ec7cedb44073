# SPDX-License-Identifier: BSD-2-Clause
"""The pages processes and threads share with the kernel (kern_proc.c: proc_usermap(), lwp_usermap()), by entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.oracle.model import Lwp, Proc

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

VERSION = 1  # UPMAP_VERSION
TITLE_SIZE = 1024  # UPMAP_MAXPROCTITLE, LPMAP_MAXTHREADTITLE
HELD_BACK = 1 << 31  # in blockallsigs: a signal came


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


class ThreadMap:
    """/dev/lpmap as one thread has it mapped; it is read and written by system calls of the thread's own."""

    def __init__(self, k: Kernel, lwp: Lwp, call: Callable[[str, Callable[[], None]], None]) -> None:
        self._k = k
        self._lwp = lwp
        self._call = call

    def value(self, name: str) -> int:
        """Return a numeric entry."""
        self._call("read", lambda: None)
        rules = self._k.rules
        return {"version": VERSION, "tid": rules.page_tid(self._lwp), "blockallsigs": self._lwp.held_back}[name]

    def content(self, name: str) -> bytes:
        """Return the bytes of an entry: the title."""
        assert name == "title"
        self._call("read", lambda: None)
        return self._lwp.title.ljust(TITLE_SIZE, b"\0")

    def write(self, name: str, data: bytes) -> None:
        """Write to the title, without adding anything, or set blockallsigs."""

        def write() -> None:
            if name == "title":
                self._lwp.title = data + self._lwp.title.ljust(TITLE_SIZE, b"\0")[len(data) :]
            else:
                self._lwp.held_back = int.from_bytes(data, "little")

        self._call("write", write)

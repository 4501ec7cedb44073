# SPDX-License-Identifier: BSD-2-Clause
"""The page a thread shares with the kernel, /dev/lpmap (kern_proc.c: lwp_usermap())."""

from __future__ import annotations

import os
from errno import ENOENT
from signal import SIGKILL, SIGUSR1

import pytest

from harness.processes import RemoteProcess, RemoteThread, fails
from harness.processes.memory import OwnMemory
from harness.processes.shared_pages import LPMAP, SharedPage, shared_page, size_of
from support.processes import bury, expect_signals, hearing, logged

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc

PAGE, HEADERS, TITLE = 4096, 64, 1024  # sys/upmap.h
HELD_BACK = 1 << 31  # in blockallsigs: a signal came


def thread_page(thread: RemoteProcess | RemoteThread) -> SharedPage:
    """Return THREAD's page."""
    return shared_page(thread, "lpmap")


def block(page: SharedPage, count: int) -> None:
    """Set blockallsigs to COUNT."""
    page.write("blockallsigs", count.to_bytes(4, "little"))


# ---- What is in it ------------------------------------------------------------------------------------------------


@needs_kernel
@kern_proc("lwp_usermap")
@pytest.mark.feature("lpmap")
def test_a_threads_page_announces_each_entry_once(init: RemoteProcess) -> None:
    """By type and offset, the version first, none over another (sys/upmap.h; kern_proc.c: lwp_usermap)."""
    headers = thread_page(init).headers
    assert headers[0][0] == LPMAP["version"]
    assert sorted(kind for kind, _ in headers) == sorted(LPMAP.values())
    places = sorted((offset, offset + size_of(kind)) for kind, offset in headers)
    edges = [4 * HEADERS, *(edge for place in places for edge in place), PAGE]
    assert edges == sorted(edges)


@kern_proc("lwp_usermap")
@pytest.mark.feature("lpmap")
def test_a_threads_page_has_version_1_and_its_id(init: RemoteProcess) -> None:
    """LPMAP_VERSION, and the number gettid() returns (kern_proc.c: lwp_usermap)."""
    threads: list[RemoteProcess | RemoteThread] = [init, init.thread(), init.thread()]
    pages = [thread_page(thread) for thread in threads]
    assert [page.value("version") for page in pages] == [1, 1, 1]
    assert [page.value("tid") for page in pages] == [thread.gettid() for thread in threads]


@kern_proc("lwp_usermap")
@pytest.mark.feature("lpmap")
def test_a_threads_page_is_the_same_each_time_it_is_mapped(init: RemoteProcess) -> None:
    """And another thread's is another (kern_memio.c: user_kernel_mapping)."""
    other = thread_page(init.thread())
    first, second = thread_page(init), thread_page(init)
    first.write("title", b"first\0")
    assert second.content("title")[:6] == b"first\0"
    assert other.content("title")[:1] == b"\0"


@needs_kernel
@kern_proc("lwp_usermap")
@pytest.mark.passes("lwp_userunmap")
@pytest.mark.feature("lpmap")
def test_an_inherited_mapping_shows_the_childs_own_thread(init: RemoteProcess) -> None:
    """The device maps what belongs to whoever looks (kern_memio.c: user_kernel_mapping)."""
    page = thread_page(init)
    page.write("title", b"parent\0")
    child = init.fork()
    inherited = SharedPage(OwnMemory(child), page.address, LPMAP)
    assert inherited.value("tid") == child.gettid()
    assert inherited.content("title")[:1] == b"\0"
    inherited.write("title", b"child\0")
    assert page.content("title")[:7] == b"parent\0"


@kern_proc("lwp_usermap")
@pytest.mark.feature("!lpmap")
def test_threads_have_no_page_yet(init: RemoteProcess) -> None:
    """There is no /dev/lpmap (kern_memio.c)."""
    with fails(ENOENT):
        init.open("/dev/lpmap", os.O_RDWR)


# ---- Titles -------------------------------------------------------------------------------------------------------


@kern_proc("sysctl_kern_proc_args", "lwpfind")
@pytest.mark.passes("lwp_usermap")
@pytest.mark.feature("lpmap")
def test_the_title_in_a_threads_page_is_shown_as_its_arguments(init: RemoteProcess) -> None:
    """To whoever asks for the thread; the process's own are as before (kern_proc.c: sysctl_kern_proc_args, lwpfind)."""
    process, observer = init.fork(), init.fork()
    thread = process.thread()
    before = init.sysctl.kern_proc_args(process.pid)
    thread_page(thread).write("title", b"in the page\0")
    assert observer.sysctl.kern_proc_args(process.pid, thread.tid) == [b"in the page"]
    assert observer.sysctl.kern_proc_args(process.pid) == before


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.passes("lwp_usermap")
@pytest.mark.feature("lpmap")
def test_of_a_title_that_nobody_ended_all_but_the_last_byte_is_shown(init: RemoteProcess) -> None:
    """Whatever comes after it in the page is none of it (kern_proc.c: sysctl_kern_proc_args)."""
    thread = init.fork().thread()
    thread_page(thread).write("title", b"x" * TITLE)
    assert init.sysctl.kern_proc_args(thread.pid, thread.tid) == [b"x" * (TITLE - 1)]


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.passes("lwp_usermap")
@pytest.mark.feature("lpmap")
def test_a_title_set_by_sysctl_is_in_the_threads_page(init: RemoteProcess) -> None:
    """Mapped before or after (kern_proc.c: sysctl_kern_proc_args)."""
    process = init.fork()
    thread = process.thread()
    process.sysctl.set_kern_proc_args(process.pid, b"early", thread.tid)
    page = thread_page(thread)
    assert page.content("title")[:6] == b"early\0"
    process.sysctl.set_kern_proc_args(process.pid, b"late", thread.tid)
    assert page.content("title")[:5] == b"late\0"


@kern_proc("lwp_userunmap")
@pytest.mark.feature("lpmap")
def test_a_threads_title_ends_with_the_program(init: RemoteProcess) -> None:
    """execve() begins with pages of its own (kern_exec.c: lwp_userunmap)."""
    child = init.fork()
    thread_page(child).write("title", b"the old program\0")
    tid = child.gettid()
    assert init.sysctl.kern_proc_args(child.pid, tid) == [b"the old program"]
    child.reexec()
    assert thread_page(child).content("title")[:1] == b"\0"
    assert init.sysctl.kern_proc_args(child.pid, child.gettid()) == init.sysctl.kern_proc_args(child.pid)


# ---- Signals held back --------------------------------------------------------------------------------------------


@kern_proc("lwp_usermap")
@pytest.mark.feature("lpmap")
def test_signals_are_held_back_while_the_threads_page_says_so(init: RemoteProcess) -> None:
    """The top bit of blockallsigs tells of them; the next call after 0 brings them (sys/upmap.h)."""
    child = hearing(init.fork())
    page = thread_page(child)
    block(page, 1)
    init.kill(child.pid, SIGUSR1)
    assert child.getpid() == child.pid
    assert logged(child) == []
    assert page.value("blockallsigs") == HELD_BACK | 1
    block(page, 0)
    expect_signals(child, SIGUSR1)


@kern_proc("lwp_usermap")
@pytest.mark.feature("lpmap")
def test_nothing_holds_sigkill_back(init: RemoteProcess) -> None:
    """It is not to be blocked (sys/signal2.h)."""
    child = init.fork()
    block(thread_page(child), 1)
    init.kill(child.pid, SIGKILL)
    assert init.wait4(child.pid).signal == SIGKILL


@kern_proc("lwp_usermap")
@pytest.mark.feature("lpmap")
def test_a_child_holds_signals_back_as_its_parent_does(init: RemoteProcess) -> None:
    """The count is inherited by fork(), not by another program (kern_fork.c: lwp_fork; kern_exec.c)."""
    parent = init.fork()
    block(thread_page(parent), 3)
    child = hearing(parent.fork())
    init.kill(child.pid, SIGUSR1)
    assert logged(child) == []
    assert thread_page(child).value("blockallsigs") == HELD_BACK | 3
    block(thread_page(child), 0)
    expect_signals(child, SIGUSR1)
    parent.reexec()
    assert thread_page(parent).value("blockallsigs") == 0
    bury(parent, child)

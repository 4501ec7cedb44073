# SPDX-License-Identifier: BSD-2-Clause
"""The page a process shares with the kernel, /dev/upmap (kern_proc.c: proc_usermap())."""

from __future__ import annotations

import pytest

from harness.processes import RemoteProcess, fails_with
from harness.processes.allocator import PidAllocator
from harness.processes.memory import OwnMemory
from harness.processes.shared_pages import UPMAP, SharedPage, shared_page, size_of
from support.processes import SOMEBODY, bury, eventually

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc

PAGE, HEADERS = 4096, 64  # sys/upmap.h


@needs_kernel
@kern_proc("proc_usermap")
@pytest.mark.parametrize("entry", UPMAP)
def test_the_page_announces_each_entry_once(init: RemoteProcess, entry: str) -> None:
    """By type, size and offset; the version comes first (sys/upmap.h, kern_proc.c: proc_usermap)."""
    headers = shared_page(init).headers
    assert [kind for kind, _ in headers].count(UPMAP[entry]) == 1
    assert headers[0][0] == UPMAP["version"]


@needs_kernel
@kern_proc("proc_usermap")
def test_the_entries_lie_in_the_page_and_do_not_overlap(init: RemoteProcess) -> None:
    """Nor do they overlap the list of them (kern_proc.c: proc_usermap)."""
    places = sorted((offset, offset + size_of(kind)) for kind, offset in shared_page(init).headers)
    edges = [4 * HEADERS, *(edge for place in places for edge in place), PAGE]
    assert edges == sorted(edges)


@kern_proc("proc_usermap")
def test_the_pages_version_is_1(init: RemoteProcess) -> None:
    """UPMAP_VERSION (sys/upmap.h)."""
    assert shared_page(init).value("version") == 1


@kern_proc("proc_usermap")
def test_the_page_tells_the_pid(init: RemoteProcess) -> None:
    """Each process its own (kern_proc.c: proc_usermap)."""
    child = init.fork()
    assert (shared_page(init).value("pid"), shared_page(child).value("pid")) == (init.pid, child.pid)


@needs_kernel
@kern_proc("proc_usermap")
def test_a_mapping_inherited_by_fork_shows_the_childs_own_page(init: RemoteProcess) -> None:
    """The device maps whatever belongs to the process that looks (kern_memio.c: user_kernel_mapping)."""
    page = shared_page(init)
    assert page.value("pid") == init.pid
    page.write("title", b"parent\0")
    child = init.fork()
    inherited = SharedPage(OwnMemory(child), page.address, UPMAP)
    assert inherited.value("pid") == child.pid
    assert inherited.memory.read(inherited.where("title"), 1) == b"\0"


@kern_proc("proc_usermap")
def test_the_forkid_is_different_in_each_process(init: RemoteProcess) -> None:
    """A number no other process has, by which a program notices that it was forked (kern_fork.c: p_forkid)."""
    family = [init, *(init.fork() for _ in range(8))]
    identities = [shared_page(process).value("forkid") for process in family]
    assert 0 not in identities
    assert len(set(identities)) == len(family)


@kern_proc("proc_usermap")
def test_the_forkid_is_different_though_the_pid_is_the_same(init: RemoteProcess, allocator: PidAllocator) -> None:
    """Pids come back, forkids do not (sys/upmap.h: forkid)."""
    identities = []
    for _ in range(2):
        child = allocator.child_with(allocator.spare)
        identities.append(shared_page(child).value("forkid"))
        bury(init, child)
    assert identities[0] != identities[1]


@needs_kernel
@kern_proc("proc_usermap")
def test_a_process_has_one_page_however_often_it_maps_it(init: RemoteProcess) -> None:
    """The second mapping shows the first one's content (kern_proc.c: proc_usermap)."""
    first, second = shared_page(init), shared_page(init)
    assert first.address != second.address
    assert first.value("forkid") == second.value("forkid")
    first.write("title", b"seen twice\0")
    assert second.memory.read(second.where("title"), 11) == b"seen twice\0"


@needs_kernel
@kern_proc("proc_usermap")
def test_what_the_kernel_does_not_set_is_zero(init: RemoteProcess) -> None:
    """Nothing of what the memory held before shows (kern_proc.c: proc_usermap, M_ZERO)."""
    page = shared_page(init)
    content = bytearray(page.memory.read(page.address, PAGE))
    content[: 4 * (len(page.headers) + 1)] = bytes(4 * (len(page.headers) + 1))
    for kind, offset in page.headers:
        if kind != UPMAP["title"]:
            content[offset : offset + size_of(kind)] = bytes(size_of(kind))
    assert not any(content)


@kern_proc("proc_usermap")
def test_any_user_may_map_his_page(init: RemoteProcess) -> None:
    """The device is open to all (kern_memio.c: mem_drvinit)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    assert shared_page(user).value("pid") == user.pid


@needs_kernel
@kern_proc("proc_usermap")
def test_the_page_counts_the_ticks_the_process_ran(init: RemoteProcess) -> None:
    """Runticks grows while it works (kern_clock.c: statclock)."""
    page = shared_page(init)
    before = page.value("runticks")

    def work() -> bool:
        init.repeat_until(fails_with("EPERM"), "getpid", seconds=0.1)
        return page.value("runticks") > before

    eventually(work, "its work to be counted")


@needs_kernel
@kern_proc("proc_usermap")
@pytest.mark.parametrize("ended_by", ["exit", "execve"])
def test_the_page_tells_when_a_vforked_child_uses_it(init: RemoteProcess, ended_by: str) -> None:
    """Until the child exits or runs a program it sees the parent's page, with invfork set (kern_fork.c: fork1)."""
    page = shared_page(init)
    assert page.value("invfork") == 0
    child = init.vfork()
    borrowed = SharedPage(OwnMemory(child), page.address, UPMAP)
    assert (borrowed.value("pid"), borrowed.value("invfork")) == (init.pid, 1)
    if ended_by == "exit":
        child.exit()
    else:
        child.execve("/bin/sleep", ["sleep", "1000"])
    assert page.value("invfork") == 0


@needs_kernel
@kern_proc("proc_usermap")
def test_a_vforked_child_maps_its_parents_page(init: RemoteProcess) -> None:
    """Made on the parent's behalf, with invfork set at once (kern_memio.c: user_kernel_mapping)."""
    child = init.vfork()
    borrowed = shared_page(child)
    assert (borrowed.value("pid"), borrowed.value("invfork")) == (init.pid, 1)
    child.exit()
    page = SharedPage(OwnMemory(init), borrowed.address, UPMAP)
    assert (page.value("pid"), page.value("invfork")) == (init.pid, 0)


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.passes("proc_usermap")
def test_a_title_written_to_the_page_is_what_args_shows(init: RemoteProcess) -> None:
    """Up to its null byte, until it is emptied again (kern_proc.c: sysctl_kern_proc_args)."""
    child = init.fork()
    before = init.sysctl.kern_proc_args(child.pid)
    page = shared_page(child)
    page.write("title", b"a title\0and more\0")
    assert init.sysctl.read((1, 14, 7, child.pid)) == b"a title\0"
    page.write("title", b"\0")
    assert init.sysctl.kern_proc_args(child.pid) == before


@pytest.mark.passes("sysctl_kern_proc_args")
@pytest.mark.parametrize("length", [1, 100, 1022, 1023, 1024])
def test_a_title_in_the_page_may_have_1023_bytes(init: RemoteProcess, length: int) -> None:
    """The kernel ends it there if nothing else does (sys/upmap.h: UPMAP_MAXPROCTITLE)."""
    shared_page(init).write("title", b"t" * length)
    assert init.sysctl.read((1, 14, 7, init.pid)) == b"t" * min(length, 1023) + b"\0"


@kern_proc("sysctl_kern_proc_args")
def test_a_title_in_the_page_goes_before_one_set_by_sysctl(init: RemoteProcess) -> None:
    """Whichever came first (kern_proc.c: sysctl_kern_proc_args)."""
    page = shared_page(init)
    page.write("title", b"by page\0")
    assert init.sysctl.kern_proc_args(init.pid) == [b"by page"]
    init.sysctl.set_kern_proc_args(init.pid, b"by sysctl\0")
    page.write("title", b"by page again\0")
    assert init.sysctl.kern_proc_args(init.pid) == [b"by page again"]


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.feature("!thread_titles")
def test_a_title_set_by_sysctl_is_kept_behind_the_one_in_the_page(init: RemoteProcess) -> None:
    """It shows again when the page's is emptied (kern_proc.c: sysctl_kern_proc_args)."""
    page = shared_page(init)
    page.write("title", b"by page\0")
    init.sysctl.set_kern_proc_args(init.pid, b"by sysctl\0")
    assert init.sysctl.kern_proc_args(init.pid) == [b"by page"]
    page.write("title", b"\0")
    assert init.sysctl.kern_proc_args(init.pid) == [b"by sysctl"]


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.feature("thread_titles")
def test_a_title_set_by_sysctl_takes_the_place_of_the_one_in_the_page(init: RemoteProcess) -> None:
    """It is written there (kern_proc.c: sysctl_kern_proc_args)."""
    page = shared_page(init)
    page.write("title", b"by page\0")
    init.sysctl.set_kern_proc_args(init.pid, b"by sysctl\0")
    assert page.content("title")[:10] == b"by sysctl\0"
    assert init.sysctl.kern_proc_args(init.pid) == [b"by sysctl"]


@kern_proc("proc_usermap")
@pytest.mark.passes("sysctl_kern_proc_args")
def test_a_title_in_the_page_is_not_inherited(init: RemoteProcess) -> None:
    """A child begins without a page of its own (kern_fork.c)."""
    before = init.sysctl.kern_proc_args(init.pid)
    shared_page(init).write("title", b"parent\0")
    assert init.sysctl.kern_proc_args(init.fork().pid) == before


@kern_proc("proc_usermap")
def test_a_vforked_child_shares_its_parents_page(init: RemoteProcess) -> None:
    """The page tells, until the child ends (kern_memio.c: user_kernel_mapping; kern_exit.c: exit1)."""
    parent = init.fork()
    before = shared_page(parent).value("invfork")
    child = parent.vfork()
    borrowed = shared_page(child)
    assert (borrowed.value("pid"), borrowed.value("invfork")) == (parent.pid, 1)
    child.exit()
    page = shared_page(parent)
    assert (before, page.value("invfork")) == (0, 0)

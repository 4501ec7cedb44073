# SPDX-License-Identifier: BSD-2-Clause
"""kern.proc.args: arguments and titles (kern_proc.c: sysctl_kern_proc_args())."""

from __future__ import annotations

from errno import EFAULT, EPERM

import pytest

from harness.processes import RemoteProcess, fails
from support.processes import NO_SUCH_ID, SOMEBODY, SOMEBODY_ELSE, bury, eventually
from support.programs import raw_args, run
from support.sysctl import ARGS, proc_mib, setting

needs_kernel = pytest.mark.needs_kernel
kern_proc = pytest.mark.kern_proc

#: Titles lie in a page shared with the process since 5.8 (e7126f0a10, 2019-11-12); before, they replaced the arguments.
IN_ARGUMENTS, IN_PAGE = pytest.mark.feature("!thread_titles"), pytest.mark.feature("thread_titles")


@kern_proc("sysctl_kern_proc_args")
def test_args_are_those_the_program_was_started_with(init: RemoteProcess) -> None:
    """Each ended by a null byte (kern_exec.c: p_args)."""
    child = init.fork()
    run(init, child, "/bin/sleep", "any name", "1000")
    assert init.sysctl.kern_proc_args(child.pid) == [b"any name", b"1000"]


@kern_proc("sysctl_kern_proc_args")
def test_args_beyond_the_limit_are_not_kept(init: RemoteProcess) -> None:
    """All of them or none, 8 bytes of header included in kern.ps_arg_cache_limit (kern_exec.c: p_args)."""
    fitting, surplus = init.fork(), init.fork()
    run(init, fitting, "/bin/sleep", "x" * (256 - 8 - 6), "1000")
    surplus.execve("/bin/sleep", ["x" * (256 - 8 - 5), "1000"])
    eventually(lambda: init.sysctl.kern_proc_pid(surplus.pid)[0].comm == "sleep", "the program to run")
    eventually(lambda: raw_args(init, surplus.pid) == b"", "its args to be dropped")


@kern_proc("sysctl_kern_proc_args")
def test_a_child_begins_with_its_parents_args(init: RemoteProcess) -> None:
    """fork() shares them (kern_fork.c: p_args)."""
    assert raw_args(init, init.fork().pid) == raw_args(init, init.pid) != b""


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.needs_kernel
def test_a_child_of_a_process_whose_args_are_not_kept_has_none_either(init: RemoteProcess) -> None:
    """There is nothing to share (kern_exec.c, kern_fork.c: p_args)."""
    child = init.fork()
    with setting(init, "kern.ps_arg_cache_limit", 0):
        child.reexec()
    grandchild = child.fork()
    assert [raw_args(init, each.pid) for each in (child, grandchild)] == [b"", b""]
    bury(child, grandchild)
    bury(init, child)


@kern_proc("sysctl_kern_proc_args")
def test_a_process_gives_itself_a_title(init: RemoteProcess) -> None:
    """Writing to its own args replaces them for every reader (kern_proc.c: sysctl_kern_proc_args)."""
    child = init.fork()
    child.sysctl.set_kern_proc_args(child.pid, b"a title of two words\0")
    for reader in (child, init):
        assert reader.sysctl.kern_proc_args(child.pid) == [b"a title of two words"]


@kern_proc("sysctl_kern_proc_args")
@IN_ARGUMENTS
def test_a_title_is_kept_byte_for_byte(init: RemoteProcess) -> None:
    """The kernel adds no terminator and looks at none (kern_proc.c: sysctl_kern_proc_args)."""
    for title in (b"abc", b"a\0b\0", bytes(range(256))[:200], b""):
        init.sysctl.set_kern_proc_args(init.pid, title)
        assert raw_args(init, init.pid) == title


@kern_proc("sysctl_kern_proc_args")
@IN_PAGE
def test_a_title_ends_with_its_first_null_byte(init: RemoteProcess) -> None:
    """Or with one the kernel adds (kern_proc.c: sysctl_kern_proc_args)."""
    for title in (b"abc", b"a\0b\0", bytes(range(1, 200))):
        init.sysctl.set_kern_proc_args(init.pid, title)
        assert raw_args(init, init.pid) == title.partition(b"\0")[0] + b"\0"


@kern_proc("sysctl_kern_proc_args")
@IN_PAGE
def test_the_arguments_are_shown_again_when_the_title_is_emptied(init: RemoteProcess) -> None:
    """They are kept beside it (kern_proc.c: sysctl_kern_proc_args)."""
    before = raw_args(init, init.pid)
    for title in (b"a title", b"another"):
        init.sysctl.set_kern_proc_args(init.pid, title)
        assert raw_args(init, init.pid) == title + b"\0"
        init.sysctl.set_kern_proc_args(init.pid, b"\0")
        assert raw_args(init, init.pid) == before


@kern_proc("sysctl_kern_proc_args")
@IN_ARGUMENTS
def test_a_child_has_its_parents_title(init: RemoteProcess) -> None:
    """It stands for the arguments, which are inherited (kern_fork.c: fork1, p_args)."""
    init.sysctl.set_kern_proc_args(init.pid, b"the parent's\0")
    assert raw_args(init, init.fork().pid) == b"the parent's\0"


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.passes("proc_usermap")
@IN_PAGE
def test_a_child_has_the_arguments_but_no_title(init: RemoteProcess) -> None:
    """It begins without a page (kern_fork.c: fork1, p_upmap)."""
    before = raw_args(init, init.pid)
    init.sysctl.set_kern_proc_args(init.pid, b"the parent's\0")
    assert raw_args(init, init.fork().pid) == before


@kern_proc("sysctl_kern_proc_args")
def test_writing_returns_the_old_args_if_asked_for(init: RemoteProcess) -> None:
    """One call reads and then sets (kern_proc.c: sysctl_kern_proc_args)."""
    before = raw_args(init, init.pid)
    assert init.sysctl.raw(proc_mib(ARGS, init.pid), 4096, b"new\0")[0] == before
    assert init.sysctl.kern_proc_args(init.pid)[0] == b"new"


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.parametrize("title", [b"a\0", b"child of its parent's title, which is much shorter than this one is\0"])
def test_a_child_that_gives_itself_a_title_leaves_its_parents_alone(init: RemoteProcess, title: bytes) -> None:
    """They had the same one, in the same memory (kern_fork.c: fork1, ar_ref; kern_proc.c: sysctl_kern_proc_args)."""
    parent = init.fork()
    parent.sysctl.set_kern_proc_args(parent.pid, b"parents and childs\0")
    child = parent.fork()
    child.sysctl.set_kern_proc_args(child.pid, title)
    assert raw_args(init, child.pid) == title
    assert raw_args(init, parent.pid) == b"parents and childs\0"


@kern_proc("sysctl_kern_proc_args")
def test_an_ordinary_user_may_set_his_title(init: RemoteProcess) -> None:
    """No privilege is needed for one's own (kern_proc.c: CTLFLAG_ANYBODY)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    user.sysctl.set_kern_proc_args(user.pid, b"mine\0")
    assert init.sysctl.kern_proc_args(user.pid) == [b"mine"]


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.parametrize("whose", ["child", "parent"])
def test_nobody_sets_the_title_of_another(init: RemoteProcess, whose: str) -> None:
    """EPERM, root or not, and the title stays (kern_proc.c: sysctl_kern_proc_args)."""
    child = init.fork()
    writer, other = (init, child) if whose == "child" else (child, init)
    before = raw_args(init, other.pid)
    with fails(EPERM):
        writer.sysctl.set_kern_proc_args(other.pid, b"yours\0")
    assert raw_args(init, other.pid) == before


@kern_proc("sysctl_kern_proc_args")
def test_a_childs_title_is_not_its_parents(init: RemoteProcess) -> None:
    """Setting replaces the shared args for the one process only (kern_proc.c: sysctl_kern_proc_args)."""
    before = raw_args(init, init.pid)
    child, other = init.fork(), init.fork()
    child.sysctl.set_kern_proc_args(child.pid, b"one\0")
    other.sysctl.set_kern_proc_args(other.pid, b"two\0")
    bury(init, child)
    assert (raw_args(init, init.pid), init.sysctl.kern_proc_args(other.pid)) == (before, [b"two"])


@kern_proc("sysctl_kern_proc_args")
def test_another_program_has_no_title_yet(init: RemoteProcess) -> None:
    """execve() sets its own args (kern_exec.c)."""
    child = init.fork()
    child.sysctl.set_kern_proc_args(child.pid, b"a title\0")
    run(init, child, "/bin/sleep", "sleep", "1000")
    assert init.sysctl.kern_proc_args(child.pid) == [b"sleep", b"1000"]


@kern_proc("sysctl_kern_proc_args")
@IN_ARGUMENTS
@pytest.mark.parametrize(("limit", "longest"), [(256, 248), (100, 92), (1000, 992)])
def test_a_title_beyond_the_limit_is_ignored(init: RemoteProcess, limit: int, longest: int) -> None:
    """kern.ps_arg_cache_limit counts an 8-byte header, too; no error is returned (sysctl_kern_proc_args)."""
    with setting(init, "kern.ps_arg_cache_limit", limit):
        init.sysctl.set_kern_proc_args(init.pid, b"y" * longest)
        assert raw_args(init, init.pid) == b"y" * longest
        init.sysctl.set_kern_proc_args(init.pid, b"z" * (longest + 1))
        assert raw_args(init, init.pid) == b"y" * longest


@kern_proc("sysctl_kern_proc_args")
@IN_PAGE
@pytest.mark.parametrize(("limit", "longest"), [(256, 248), (100, 92), (1000, 992)])
def test_a_title_too_long_for_the_arguments_is_ignored(init: RemoteProcess, limit: int, longest: int) -> None:
    """The limit of what is kept of arguments counts, though titles lie elsewhere (sysctl_kern_proc_args)."""
    with setting(init, "kern.ps_arg_cache_limit", limit):
        init.sysctl.set_kern_proc_args(init.pid, b"y" * longest)
        assert raw_args(init, init.pid) == b"y" * longest + b"\0"
        init.sysctl.set_kern_proc_args(init.pid, b"z" * (longest + 1))
        assert raw_args(init, init.pid) == b"y" * longest + b"\0"


@kern_proc("sysctl_kern_proc_args")
@IN_PAGE
def test_a_title_too_long_for_its_place_is_cut_off(init: RemoteProcess) -> None:
    """After 1023 bytes (kern_proc.c: sysctl_kern_proc_args; sys/upmap.h: UPMAP_MAXPROCTITLE)."""
    with setting(init, "kern.ps_arg_cache_limit", 4096):
        init.sysctl.set_kern_proc_args(init.pid, b"y" * 1500)
        assert raw_args(init, init.pid) == b"y" * 1023 + b"\0"


@needs_kernel
@kern_proc("sysctl_kern_proc_args")
def test_a_title_that_cannot_be_read_is_not_set(init: RemoteProcess) -> None:
    """EFAULT for a bad address (kern_sysctl.c: userland_sysctl)."""
    before = raw_args(init, init.pid)
    name = b"".join(part.to_bytes(4, "little") for part in proc_mib(ARGS, init.pid))
    with fails(EFAULT):
        init.syscall("__sysctl", name, 4, 0, 0, 0x1000, 10)
    assert raw_args(init, init.pid) == before


@kern_proc("sysctl_kern_proc_args", "sysctl_kern_proc_cwd")
@pytest.mark.passes("pfind")
def test_nobody_and_zombies_have_neither_args_nor_a_directory(init: RemoteProcess) -> None:
    """Nothing is returned, and no error (kern_proc.c: sysctl_kern_proc_args, sysctl_kern_proc_cwd)."""
    zombie = init.fork()
    zombie.exit()
    for pid in (zombie.pid, NO_SUCH_ID, -1):
        assert (raw_args(init, pid), init.sysctl.kern_proc_cwd(pid)) == (b"", "")


@kern_proc("sysctl_kern_proc_args")
def test_setting_the_title_of_nobody_does_nothing(init: RemoteProcess) -> None:
    """No error either (kern_proc.c: sysctl_kern_proc_args)."""
    init.sysctl.set_kern_proc_args(NO_SUCH_ID, b"nobody\0")


@kern_proc("sysctl_kern_proc_args")
@pytest.mark.passes("sysctl_kern_proc_cwd")
@pytest.mark.parametrize("is_open", [0, 1])
@pytest.mark.parametrize(
    ("reader", "whose"),
    [
        ((SOMEBODY, SOMEBODY), (SOMEBODY, SOMEBODY)),
        ((SOMEBODY, SOMEBODY), (SOMEBODY_ELSE, SOMEBODY_ELSE)),
        ((SOMEBODY, SOMEBODY), (SOMEBODY_ELSE, SOMEBODY)),
        ((SOMEBODY, SOMEBODY), (0, 0)),
        ((0, 0), (SOMEBODY, SOMEBODY)),
    ],
)
def test_args_and_directory_can_be_closed_to_other_users(
    init: RemoteProcess, reader: tuple[int, int], whose: tuple[int, int], is_open: int
) -> None:
    """kern.ps_argsopen=0: only root and whoever shares a real or effective user sees them (p_trespass)."""
    one, other = init.fork(), init.fork()
    one.setresuid(*reader, reader[0])
    other.setresuid(*whose, whose[0])
    allowed = is_open or reader == (0, 0) or bool(set(reader) & set(whose))
    with setting(init, "kern.ps_argsopen", is_open):
        assert bool(raw_args(one, other.pid)) == bool(allowed)
        assert bool(one.sysctl.kern_proc_cwd(other.pid)) == bool(allowed)
        assert raw_args(one, one.pid)
        assert one.sysctl.kern_proc_cwd(one.pid)

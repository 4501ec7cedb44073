# SPDX-License-Identifier: BSD-2-Clause
"""How many processes a user may have: RLIMIT_NPROC, root included since 2017 (kern_fork.c: fork1())."""

from __future__ import annotations

import struct
from errno import EAGAIN
from signal import SIGKILL

import pytest

from harness.guests.guest import Guest
from harness.guests.whitebox import Whitebox
from harness.processes import GuestError, RemoteProcess, Resource, fails
from support.children import allow_many, parked
from support.processes import SOMEBODY, SOMEBODY_ELSE, bury, eventually

ROOT_TOO = pytest.mark.eras(since=400_906, reason="RLIMIT_NPROC binds root since July 2017")
#: fork1() makes whoever is refused sleep half a second.
REFUSED_SLOWLY = pytest.mark.slow_clock(1)
ROOT_EXEMPT = pytest.mark.eras(until=400_905, reason="RLIMIT_NPROC binds root since July 2017")


@pytest.mark.passes("proc_add_allproc")
@ROOT_TOO
@REFUSED_SLOWLY
def test_root_has_no_more_processes_than_it_may(init: RemoteProcess) -> None:
    """EAGAIN, and nothing was made (kern_resource.c: chgproccnt)."""
    child = init.fork()
    child.setrlimit(Resource.RLIMIT_NPROC, 1)
    before = sorted(init.sysctl.kern_proc_ruid(0).pids)
    with fails(EAGAIN):
        child.fork()
    assert sorted(init.sysctl.kern_proc_ruid(0).pids) == before


@pytest.mark.passes("proc_add_allproc")
@ROOT_EXEMPT
def test_root_has_as_many_processes_as_it_likes(init: RemoteProcess) -> None:
    """The limit is for others (kern_fork.c: fork1)."""
    child = init.fork()
    child.setrlimit(Resource.RLIMIT_NPROC, 1)
    bury(child, child.fork())


@pytest.mark.passes("proc_add_allproc")
@REFUSED_SLOWLY
def test_a_user_has_no_more_processes_than_allowed(init: RemoteProcess) -> None:
    """Zombies count, and make room when they are reaped (kern_exit.c: kern_wait)."""
    user = init.fork()
    user.setrlimit(Resource.RLIMIT_NPROC, 2)
    user.setuid(SOMEBODY)
    child = user.fork()
    child.exit()
    with fails(EAGAIN):
        user.fork()
    user.wait4(child.pid)
    bury(user, user.fork())


@pytest.mark.passes("proc_add_allproc")
@ROOT_TOO
@REFUSED_SLOWLY
def test_the_limit_shrinks_with_each_generation(init: RemoteProcess) -> None:
    """By a 320th (kern_plimit.c: plimit_getadjvalue), of which getrlimit(2) knows nothing."""
    user = init.fork()
    user.setrlimit(Resource.RLIMIT_NPROC, 32)
    elder = user.fork()
    user.setuid(SOMEBODY)
    for _ in range(9):
        elder = elder.fork()
    elder.setuid(SOMEBODY)
    # However deep INIT itself is, ten generations further down there is room for one less.
    assert room(user) == room(elder) + 1


@pytest.mark.passes("proc_add_allproc")
@ROOT_TOO
@REFUSED_SLOWLY
def test_the_limit_shrinks_no_more_after_the_thirty_first_generation(init: RemoteProcess) -> None:
    """Whoever is deeper may have as many (kern_fork.c: fork1, p_depth; kern_plimit.c: plimit_getadjvalue)."""
    allow_many(init)
    family = [init]
    for _ in range(70):
        family.append(family[-1].fork())
    rooms = []
    for elder, user in ((family[32], SOMEBODY), (family[70], SOMEBODY_ELSE)):
        elder.setrlimit(Resource.RLIMIT_NPROC, 32)
        elder.setuid(user)
        rooms.append(room(elder))
    assert rooms[0] == rooms[1]


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.needs_kernel
@pytest.mark.slow_clock(4)
def test_who_has_too_many_processes_is_named_no_more_than_once_a_second(init: RemoteProcess, guest: Guest) -> None:
    """On the console (kern_fork.c: fork1, ppsratecheck)."""
    users = [init.fork() for _ in range(3)]
    for number, user in enumerate(users):
        user.setrlimit(Resource.RLIMIT_NPROC, 1)
        user.setuid(SOMEBODY + number)
    init.sleep(1.5)
    said = guest.console.position
    for user, pause in zip(users, (0.0, 1.5, 0.0), strict=True):
        with fails(EAGAIN):
            user.fork()
        init.sleep(pause)
    eventually(lambda: f"uid {SOMEBODY + 2}," in guest.console.text(said), "the third user to be named", 5.0)
    named = [f"uid {SOMEBODY + number}," in guest.console.text(said) for number in range(3)]
    assert named == [True, False, True]
    bury(init, *users)


@pytest.mark.passes("proc_add_allproc")
@pytest.mark.needs_kernel
@REFUSED_SLOWLY
@pytest.mark.parametrize(("free", "user_may", "root_may"), [(30, True, True), (5, False, True), (0, False, False)])
def test_the_last_ten_processes_of_all_are_roots(
    init: RemoteProcess, kernel: Whitebox, free: int, user_may: bool, root_may: bool
) -> None:
    """EAGAIN for others, and without room for root (fork(2); kern_fork.c: fork1, maxproc)."""
    user = init.fork()
    user.setuid(SOMEBODY)
    before = kernel.word("maxproc")
    kernel.write(kernel.address("maxproc"), struct.pack("<i", kernel.word("nprocs") + free))
    try:
        assert [may_fork(user), may_fork(init)] == [user_may, root_may]
    finally:
        kernel.write(kernel.address("maxproc"), struct.pack("<i", before))
    assert may_fork(user)
    bury(init, user)


def may_fork(parent: RemoteProcess) -> bool:
    """Tell whether PARENT can have another child, and make none."""
    try:
        bury(parent, parent.fork())
    except GuestError as error:
        if error.name != "EAGAIN":
            raise
        return False
    return True


def room(parent: RemoteProcess) -> int:
    """Return how many children PARENT can have, and make none."""
    children = parked(parent, 20)
    for _ in range(20):
        try:
            children += parked(parent)
        except GuestError as error:
            if error.name != "EAGAIN":
                raise
            break
    for child in children:
        parent.kill(child, SIGKILL)
        parent.wait4(child)
    return len(children)

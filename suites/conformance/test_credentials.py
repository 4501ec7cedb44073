# SPDX-License-Identifier: BSD-2-Clause
"""Who may become whom: real, effective and saved ids of users and groups (kern_prot.c: sys_setuid() and its like)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from errno import EINVAL, EPERM
from itertools import product

import pytest

from harness.processes import RemoteProcess, fails
from support.mounts import procfs
from support.processes import SOMEBODY, bury, row
from support.procfs import PIOCBIS, PIOCSTATUS, PROCFS_STATUS, S_SIG

REAL, EFFECTIVE, SAVED, STRANGER = 61_101, 61_102, 61_103, 61_104
SAME = -1
PIOCSFL, PF_ISUGID = 0x80007003, 0x02  # sys/pioctl.h


@dataclass(frozen=True)
class Calls:
    """The calls for users, or those for groups."""

    set_all: Callable[[RemoteProcess, int], None]
    set_effective: Callable[[RemoteProcess, int], None]
    set_two: Callable[[RemoteProcess, int, int], None]
    set_three: Callable[[RemoteProcess, int, int, int], None]
    users: bool


USERS = Calls(
    lambda process, id_: process.setuid(id_),
    lambda process, id_: process.seteuid(id_),
    lambda process, real, effective: process.setreuid(real, effective),
    lambda process, real, effective, saved: process.setresuid(real, effective, saved),
    users=True,
)
GROUPS = Calls(
    lambda process, id_: process.setgid(id_),
    lambda process, id_: process.setegid(id_),
    lambda process, real, effective: process.setregid(real, effective),
    lambda process, real, effective, saved: process.setresgid(real, effective, saved),
    users=False,
)
both = pytest.mark.parametrize("calls", [USERS, GROUPS], ids=["users", "groups"])
pytestmark = pytest.mark.passes("sysctl_kern_proc")


def ids(init: RemoteProcess, process: RemoteProcess, calls: Calls) -> tuple[int, int, int]:
    """Return the real, effective and saved id."""
    shown = row(init, process.pid)
    if calls.users:
        return shown.ruid, shown.uid, shown.svuid
    return shown.rgid, shown.groups[0], shown.svgid


def watched(observer: RemoteProcess, fd: int) -> tuple[int, int]:
    """Return the flags and the events of the process whose memory OBSERVER has open in procfs."""
    _, flags, events, *_ = PROCFS_STATUS.unpack(observer.ioctl(fd, PIOCSTATUS, bytes(PROCFS_STATUS.size)))
    return flags, events


def three(init: RemoteProcess, calls: Calls) -> RemoteProcess:
    """Return an unprivileged process whose three ids differ."""
    process = init.fork()
    calls.set_three(process, REAL, EFFECTIVE, SAVED)
    if not calls.users:
        process.setuid(SOMEBODY)
    return process


@both
@pytest.mark.parametrize("id_", [REAL, EFFECTIVE])
def test_what_one_is_really_or_effectively_one_can_become_altogether(
    init: RemoteProcess, calls: Calls, id_: int
) -> None:
    """All three ids are the new one, without privilege, too (setuid(2); kern_prot.c: sys_setuid, sys_setgid)."""
    process = three(init, calls)
    calls.set_all(process, id_)
    assert ids(init, process, calls) == (id_, id_, id_)


@both
@pytest.mark.parametrize("id_", [SAVED, STRANGER])
def test_one_cannot_become_altogether_what_is_only_saved(init: RemoteProcess, calls: Calls, id_: int) -> None:
    """EPERM, where POSIX has setuid() set the effective id (kern_prot.c: sys_setuid, no _POSIX_SAVED_IDS)."""
    process = three(init, calls)
    with fails(EPERM):
        calls.set_all(process, id_)
    assert ids(init, process, calls) == (REAL, EFFECTIVE, SAVED)


@both
def test_one_acts_as_the_real_and_the_saved_id(init: RemoteProcess, calls: Calls) -> None:
    """And as nobody else; the other two stay (setuid(2); kern_prot.c: sys_seteuid, sys_setegid)."""
    process = three(init, calls)
    for id_ in (SAVED, REAL):
        calls.set_effective(process, id_)
        assert ids(init, process, calls) == (REAL, id_, SAVED)
    for id_ in (EFFECTIVE, STRANGER):
        with fails(EPERM):
            calls.set_effective(process, id_)


@both
def test_the_real_id_is_exchanged_for_the_saved_one_alone(init: RemoteProcess, calls: Calls) -> None:
    """Not for the effective one, whatever setreuid(2) says (kern_prot.c: sys_setreuid, sys_setregid)."""
    process = three(init, calls)
    for id_ in (EFFECTIVE, STRANGER):
        with fails(EPERM):
            calls.set_two(process, id_, SAME)
    calls.set_two(process, SAVED, SAME)
    assert ids(init, process, calls) == (SAVED, EFFECTIVE, EFFECTIVE)


@both
@pytest.mark.parametrize("id_", [REAL, EFFECTIVE, SAVED])
def test_the_effective_id_is_exchanged_for_any_of_the_three(init: RemoteProcess, calls: Calls, id_: int) -> None:
    """The saved one follows unless the other two are the same then (kern_prot.c: sys_setreuid, sys_setregid)."""
    process = three(init, calls)
    with fails(EPERM):
        calls.set_two(process, SAME, STRANGER)
    calls.set_two(process, SAME, id_)
    assert ids(init, process, calls) == (REAL, id_, SAVED if id_ == REAL else id_)


@both
def test_each_of_the_three_ids_becomes_any_of_them(init: RemoteProcess, calls: Calls) -> None:
    """And nothing else (setresuid(2); kern_prot.c: sys_setresuid, sys_setresgid)."""
    process = three(init, calls)
    for wanted in ((STRANGER, SAME, SAME), (SAME, STRANGER, SAME), (SAME, SAME, STRANGER)):
        with fails(EPERM):
            calls.set_three(process, *wanted)
    calls.set_three(process, SAVED, REAL, EFFECTIVE)
    assert ids(init, process, calls) == (SAVED, REAL, EFFECTIVE)


@both
def test_a_new_program_has_its_effective_id_saved(init: RemoteProcess, calls: Calls) -> None:
    """The real one stays (execve(2); kern_exec.c: kern_execve)."""
    process = three(init, calls)
    process.reexec()
    assert ids(init, process, calls) == (REAL, EFFECTIVE, EFFECTIVE)


def test_root_sets_groups_and_the_first_one_is_the_effective_one(init: RemoteProcess) -> None:
    """Of an empty list that one is left (kern_prot.c: sys_setgroups)."""
    process = init.fork()
    process.setgroups([SAVED, 5, 6])
    assert row(init, process.pid).groups == (SAVED, 5, 6)
    process.setgroups([])
    assert row(init, process.pid).groups == (SAVED,)
    with fails(EINVAL):
        process.setgroups(list(range(17)))
    process.setuid(SOMEBODY)
    with fails(EPERM):
        process.setgroups([SAVED])


def changes(calls: Calls, to: int) -> dict[str, Callable[[RemoteProcess], None]]:
    """Return each way to make ids TO, by what it is called."""
    return {
        "all": lambda process: calls.set_all(process, to),
        "effective": lambda process: calls.set_effective(process, to),
        "real of two": lambda process: calls.set_two(process, to, SAME),
        "effective of two": lambda process: calls.set_two(process, SAME, to),
        "real of three": lambda process: calls.set_three(process, to, SAME, SAME),
        "effective of three": lambda process: calls.set_three(process, SAME, to, SAME),
        "saved of three": lambda process: calls.set_three(process, SAME, SAME, to),
    }


WAYS = {
    "all": (STRANGER, STRANGER, STRANGER),
    "effective": (0, STRANGER, 0),
    "real of two": (STRANGER, 0, 0),
    "effective of two": (0, STRANGER, STRANGER),
    "real of three": (STRANGER, 0, 0),
    "effective of three": (0, STRANGER, 0),
    "saved of three": (0, 0, STRANGER),
}
each_way = pytest.mark.parametrize("way", WAYS)


@both
@each_way
def test_root_changes_the_ids_that_are_named_and_no_others(init: RemoteProcess, calls: Calls, way: str) -> None:
    """-1 leaves one alone; setreuid() saves the new effective id (setresuid(2); kern_prot.c: sys_setuid and so on)."""
    process = init.fork()
    changes(calls, STRANGER)[way](process)
    assert ids(init, process, calls) == WAYS[way]


@both
@each_way
@pytest.mark.needs_kernel
def test_whoever_has_changed_his_ids_is_known_by_it(init: RemoteProcess, calls: Calls, way: str) -> None:
    """And so are his children, and others are not (issetugid(2); kern_prot.c: setsugid; kern_fork.c: fork1)."""
    process = init.fork()
    changes(calls, STRANGER)[way](process)
    assert [each.syscall("issetugid").value for each in (process, process.fork(), init.fork())] == [1, 1, 0]
    assert ids(init, process, calls) == WAYS[way]


@both
@each_way
@pytest.mark.needs_kernel
def test_to_become_who_one_is_changes_nothing(init: RemoteProcess, calls: Calls, way: str) -> None:
    """Whatever was asked for (issetugid(2); kern_prot.c: sys_setuid and so on, setsugid)."""
    process = init.fork()
    changes(calls, 0)[way](process)
    assert ids(init, process, calls) == (0, 0, 0)
    assert process.syscall("issetugid").value == 0


@both
def test_of_three_ids_each_may_be_made_one_of_the_others_alone(init: RemoteProcess, calls: Calls) -> None:
    """Without privilege (setresuid(2); kern_prot.c: sys_setresuid, sys_setresgid)."""
    for number in range(3):
        for id_ in (REAL, EFFECTIVE, SAVED):
            process = three(init, calls)
            wanted = [id_ if number == each else SAME for each in range(3)]
            calls.set_three(process, *wanted)
            expected = [id_ if number == each else own for each, own in enumerate((REAL, EFFECTIVE, SAVED))]
            assert ids(init, process, calls) == tuple(expected)


@both
def test_of_two_ids_each_is_what_was_asked_for_also_if_one_is_so_already(init: RemoteProcess, calls: Calls) -> None:
    """The saved one follows as ever (setreuid(2); kern_prot.c: sys_setreuid, sys_setregid)."""
    for real, effective in product((SAME, 0, STRANGER), repeat=2):
        process = init.fork()
        calls.set_three(process, SAME, SAME, SAVED)
        calls.set_two(process, real, effective)
        now = (max(real, 0), max(effective, 0))
        follows = real != SAME or now[0] != now[1]
        assert ids(init, process, calls) == (*now, now[1] if follows else SAVED)


@both
def test_of_three_ids_each_is_what_was_asked_for_also_if_some_are_so_already(init: RemoteProcess, calls: Calls) -> None:
    """All of them, whatever the others are (setresuid(2); kern_prot.c: sys_setresuid, sys_setresgid)."""
    for wanted in product((SAME, 0, STRANGER), repeat=3):
        process = init.fork()
        calls.set_three(process, *wanted)
        assert ids(init, process, calls) == tuple(max(id_, 0) for id_ in wanted)


@both
@pytest.mark.needs_kernel
@pytest.mark.parametrize("all_the_same", [False, True])
def test_whoever_changes_his_ids_stops_for_no_events_unless_that_is_to_be_ignored(
    init: RemoteProcess, calls: Calls, all_the_same: bool
) -> None:
    """Whoever was to hear of them may not be allowed to any more (procfs: PF_ISUGID; kern_prot.c: setsugid)."""
    process = init.fork()
    with procfs(init) as mounted:
        fd = init.open(f"{mounted}/{process.pid}/mem", os.O_RDONLY)
        flags = PF_ISUGID if all_the_same else 0
        init.ioctl(fd, PIOCSFL, flags)
        init.ioctl(fd, PIOCBIS, S_SIG)
        before = watched(init, fd)
        calls.set_all(process, STRANGER)
        after = watched(init, fd)
        init.close(fd)
    assert (before, after) == ((flags, S_SIG), (flags, S_SIG if all_the_same else 0))
    bury(init, process)

# SPDX-License-Identifier: BSD-2-Clause
"""The login name: the session has it, and all its members (kern_prot.c: sys_setlogin(), sys_getlogin())."""

from __future__ import annotations

from errno import EFAULT, EINVAL, EPERM

import pytest

from harness.processes import Process, RemoteProcess, fails
from harness.processes.wire import Buffer
from support.processes import SOMEBODY, bury, row


@pytest.mark.passes("enterpgrp")
def test_the_login_name_belongs_to_the_session(init: Process) -> None:
    """Whoever sets it sets it for all of them (kern_prot.c: sys_setlogin)."""
    member, other = init.fork(), init.fork()
    other.setpgid(0, 0)
    member.setlogin("somebody")
    assert [process.getlogin() for process in (init, member, other)] == ["somebody"] * 3
    assert {row(init, process.pid).login for process in (init, member, other)} == {"somebody"}


@pytest.mark.kern_proc("enterpgrp")
def test_a_new_session_copies_the_login_name(init: Process) -> None:
    """From then on each session has its own (kern_proc.c: enterpgrp, s_login)."""
    init.setlogin("first")
    child = init.fork()
    child.setsid()
    assert (child.getlogin(), row(init, child.pid).login) == ("first", "first")
    child.setlogin("second")
    assert (init.getlogin(), child.getlogin()) == ("first", "second")
    init.setlogin("third")
    assert (init.getlogin(), child.getlogin()) == ("third", "second")


LENGTHS = pytest.mark.parametrize(
    "longest",
    [
        pytest.param(16, marks=pytest.mark.feature("!login33")),
        pytest.param(32, marks=pytest.mark.feature("login33")),
    ],
)


@pytest.mark.kern_proc("enterpgrp")
@LENGTHS
def test_a_long_login_name_is_copied_whole(init: Process, longest: int) -> None:
    """All but one of MAXLOGNAME's characters are for the name (sys/param.h; kern_proc.c: enterpgrp)."""
    name = "abcdefghijklmnopqrstuvwxyz-abcdefghijklmno"[:longest]
    init.setlogin(name)
    child = init.fork()
    child.setsid()
    assert (child.getlogin(), row(init, child.pid).login) == (name, name)


@pytest.mark.passes("enterpgrp")
@LENGTHS
def test_a_login_name_that_is_too_long_is_refused(init: Process, longest: int) -> None:
    """EINVAL, where copyinstr() works (test_live_strings.py), and the old one stays (kern_prot.c: sys_setlogin)."""
    init.setlogin("short")
    with fails(*([EINVAL] if longest == 16 else [EINVAL, EFAULT])):
        init.setlogin("x" * (longest + 1))
    assert init.getlogin() == "short"


@pytest.mark.passes("enterpgrp")
def test_only_root_sets_the_login_name(init: Process) -> None:
    """EPERM (kern_prot.c: sys_setlogin)."""
    init.setlogin("rightful")
    user = init.fork()
    user.setsid()
    user.setuid(SOMEBODY)
    with fails(EPERM):
        user.setlogin("usurper")
    assert user.getlogin() == "rightful"


@pytest.mark.passes("enterpgrp")
@pytest.mark.needs_kernel
def test_no_more_of_the_login_name_is_told_than_there_is_room_for(init: RemoteProcess) -> None:
    """No byte behind is touched, and no null byte is added (kern_prot.c: sys_getlogin)."""
    init.setlogin("somebody")
    for room in (0, 1, 4, 8, 9):
        place = Buffer(b"#" * 64, wanted=True)
        told = init.syscall("getlogin", place, room).memory(place)
        assert told == b"somebody\0"[:room] + b"#" * (64 - room)


@pytest.mark.kern_proc("sess_rele")
def test_the_login_name_outlives_the_leader(init: Process) -> None:
    """It is the session's, not the leader's (kern_proc.c: sess_rele)."""
    leader = init.fork()
    leader.setsid()
    leader.setlogin("heritage")
    member = leader.fork()
    bury(init, leader)
    assert member.getlogin() == "heritage"

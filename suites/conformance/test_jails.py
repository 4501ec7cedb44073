# SPDX-License-Identifier: BSD-2-Clause
"""Jails as far as processes go: who makes and enters them, and when they end (kern_jail.c)."""

from __future__ import annotations

from errno import EINVAL, EPERM, ESRCH
from signal import SIGKILL, SIGTERM

import pytest

from harness.processes import RemoteProcess, fails
from support.processes import SOMEBODY, bury, eventually, row

pytestmark = pytest.mark.passes("pfind", "sysctl_kern_proc")


def test_a_jailed_root_makes_no_jail(init: RemoteProcess) -> None:
    """Nor enters another (jail_attach(2); kern_jail.c: sys_jail, sys_jail_attach)."""
    first, second = init.fork(), init.fork()
    jid = first.jail("/")
    second.jail("/")
    with fails(EPERM):
        second.jail("/")
    with fails(EPERM):
        second.jail_attach(jid)
    assert row(init, second.pid).jailid not in (0, jid)
    bury(init, first, second)


def test_only_root_makes_or_enters_a_jail(init: RemoteProcess) -> None:
    """EPERM for other users (jail_attach(2); kern_jail.c: sys_jail, sys_jail_attach)."""
    jailed, user = init.fork(), init.fork()
    jid = jailed.jail("/")
    user.setuid(SOMEBODY)
    with fails(EPERM):
        user.jail("/")
    with fails(EPERM):
        user.jail_attach(jid)
    bury(init, jailed, user)


def test_a_jail_can_be_entered_while_somebody_is_in_it(init: RemoteProcess) -> None:
    """EINVAL after the last one has been reaped (jail_attach(2); kern_jail.c: prison_find, prison_free)."""
    first, second, late = init.fork(), init.fork(), init.fork()
    jid = first.jail("/")
    second.jail_attach(jid)
    assert row(init, second.pid).jailid == jid
    bury(init, first, second)

    def is_over() -> bool:
        probe = init.fork()
        try:
            with fails(EINVAL):
                probe.jail_attach(jid)
        except AssertionError:
            return False
        finally:
            bury(init, probe)
        return True

    eventually(is_over, "the jail to end")
    for number in (jid, 0, -1):
        with fails(EINVAL):
            late.jail_attach(number)


def test_a_jailed_process_signals_nobody_outside(init: RemoteProcess) -> None:
    """Nor anybody in another jail; the others in its own it does (kern_prot.c: p_trespass, PRISON_CHECK)."""
    jailed, other, outside = init.fork(), init.fork(), init.fork()
    jailed.jail("/")
    other.jail("/")
    inmate, other_user = jailed.fork(), jailed.fork()
    other_user.setuid(SOMEBODY)
    for stranger in (other, outside):
        for signal in (0, SIGTERM):
            with fails(EPERM, ESRCH):
                jailed.kill(stranger.pid, signal)
    for neighbour in (inmate, other_user):
        jailed.kill(neighbour.pid, SIGKILL)
        assert jailed.wait4(neighbour.pid).signal == SIGKILL
    bury(init, jailed, other, outside)


def test_whoever_changes_his_users_stays_in_his_jail(init: RemoteProcess) -> None:
    """All of his credentials belong to it, and keep it (kern_prot.c: cratom_proc, prison_hold)."""
    first, late = init.fork(), init.fork()
    jid = first.jail("/")
    for user in (SOMEBODY, SOMEBODY + 1, SOMEBODY + 2):
        child = first.fork()
        child.setgroups([user])
        child.setresuid(user, user, user)
        assert (row(init, child.pid).jailid, row(init, child.pid).uid) == (jid, user)
        bury(first, child)
    late.jail_attach(jid)
    assert row(init, late.pid).jailid == jid
    bury(init, first, late)

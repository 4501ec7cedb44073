"""Sessions: who may make one, what it hands down, how long it lives, and its controlling terminal.

`init` leads a session of its own and has no terminal.  A terminal's master stays with `init`, so that the terminal
outlives the session that is given it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EBADF, EINVAL, EIO, ENOTTY, ENXIO, EPERM, ESRCH
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, Signals

import pytest

from harness.processes import (
    WUNTRACED,
    Handler,
    Process,
    ProcFlag,
    RemoteProcess,
    fails,
)

from ._children import born
from ._help import (
    NO_SUCH_ID,
    SOMEBODY,
    await_idle,
    await_stopped,
    bury,
    chain_mates,
    group_exists,
    has_stopped,
    logged,
    random_pids,
    row,
)

# ---- Making one --------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("enterpgrp")
def test_setsid_makes_a_session_and_a_group_named_after_the_caller(init: Process) -> None:
    """And returns their id (kern_prot.c: sys_setsid; kern_proc.c: enterpgrp)."""
    child = init.fork()
    assert child.setsid() == child.pid
    assert (child.getsid(), child.getpgrp(), init.getsid(child.pid)) == (child.pid,) * 3


@pytest.mark.kern_proc("enterpgrp", "sysctl_out_proc")
def test_the_caller_of_setsid_is_the_sessions_leader(init: Process) -> None:
    """KI_SLEADER marks it and nobody else (kern_proc.c: enterpgrp, s_leader)."""
    child = init.fork()
    assert not row(init, child.pid).is_session_leader
    child.setsid()
    member = child.fork()
    found = init.sysctl.kern_proc_pgrp(child.pid)
    assert (found[child.pid].sid, found[child.pid].pgid, found[member.pid].sid) == (child.pid,) * 3
    assert [found[process.pid].is_session_leader for process in (child, member)] == [True, False]
    assert row(init, init.pid).is_session_leader


@pytest.mark.kern_proc("enterpgrp", "sysctl_kern_proc")
def test_setsid_takes_the_caller_out_of_its_old_group(init: Process) -> None:
    """killpg() and the process table agree (kern_proc.c: enterpgrp)."""
    child, sibling = init.fork(), init.fork()
    for process in (init, child, sibling):
        process.sigaction(SIGUSR1, Handler.LOG)
    child.setsid()
    init.killpg(init.pid, SIGUSR1)
    assert [logged(process) for process in (init, child, sibling)] == [[SIGUSR1], [], [SIGUSR1]]
    init.killpg(child.pid, SIGUSR1)
    assert [logged(process) for process in (init, child, sibling)] == [[], [SIGUSR1], []]
    assert sorted(init.sysctl.kern_proc_pgrp(init.pid).pids) == sorted([init.pid, sibling.pid])
    assert init.sysctl.kern_proc_pgrp(child.pid).pids == [child.pid]


@pytest.mark.kern_proc("enterpgrp", "pgrel")
def test_setsid_ends_a_group_that_was_the_callers_alone(init: Process) -> None:
    """The group named after somebody else who left earlier (kern_proc.c: pgrel)."""
    leader, child = init.fork(), init.fork()
    leader.setpgid(0, 0)
    child.setpgid(0, leader.pid)
    leader.setpgid(0, init.pid)
    child.setsid()
    assert not group_exists(init, leader.pid)
    assert leader.setsid() == leader.pid


@pytest.mark.kern_proc("enterpgrp")
def test_a_program_just_run_may_make_a_session(init: RemoteProcess) -> None:
    """Having run a program does not matter (kern_prot.c: sys_setsid)."""
    child = init.fork()
    child.reexec()
    assert child.setsid() == child.pid


def _of_a_session(init: Process) -> Process:
    child = init.fork()
    child.setsid()
    return child


def _of_a_group(init: Process) -> Process:
    child = init.fork()
    child.setpgid(0, 0)
    return child


def _of_a_group_made_by_its_parent(init: Process) -> Process:
    child = init.fork()
    init.setpgid(child.pid, child.pid)
    return child


def _of_a_group_with_others(init: Process) -> Process:
    child = init.fork()
    child.setpgid(0, 0)
    child.fork()
    return child


def _of_a_group_it_has_left_to_its_child(init: Process) -> Process:
    child = init.fork()
    child.setpgid(0, 0)
    child.fork()
    child.setpgid(0, init.pid)
    return child


def _of_a_group_it_has_left_to_a_zombie(init: Process) -> Process:
    child = init.fork()
    child.setpgid(0, 0)
    zombie = child.fork()
    child.setpgid(0, init.pid)
    zombie.exit()
    return child


@pytest.mark.kern_proc("pgfind", "enterpgrp")
@pytest.mark.parametrize(
    "arrange",
    [
        pytest.param(arrange, id=f"the leader {arrange.__name__.lstrip('_').replace('_', ' ')}")
        for arrange in (
            _of_a_session,
            _of_a_group,
            _of_a_group_made_by_its_parent,
            _of_a_group_with_others,
            _of_a_group_it_has_left_to_its_child,
            _of_a_group_it_has_left_to_a_zombie,
        )
    ],
)
def test_setsid_is_refused_to_whoever_has_given_a_group_its_name(
    init: Process, arrange: Callable[[Process], Process]
) -> None:
    """EPERM: the new group's id would be taken, by a group that lives as long as a zombie in it.

    (kern_prot.c: sys_setsid)
    """
    process = arrange(init)
    before = (process.getpgrp(), process.getsid())
    with fails(EPERM):
        process.setsid()
    assert (process.getpgrp(), process.getsid()) == before


@pytest.mark.kern_proc("pgrel", "leavepgrp", "enterpgrp")
def test_setsid_is_allowed_again_when_the_group_has_ended(init: Process) -> None:
    """As soon as its last zombie is reaped (kern_prot.c: sys_setsid; kern_proc.c: leavepgrp)."""
    process = _of_a_group_it_has_left_to_a_zombie(init)
    process.wait4()
    assert process.setsid() == process.pid


# ---- Asking ------------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("pfind")
def test_anybodys_session_can_be_asked_for(init: Process) -> None:
    """Across sessions and users; zero is oneself (kern_prot.c: sys_getsid)."""
    stranger = init.fork()
    stranger.setsid()
    stranger.setuid(SOMEBODY)
    assert (init.getsid(stranger.pid), stranger.getsid(init.pid)) == (stranger.pid, init.pid)
    assert stranger.getsid(0) == stranger.getsid(stranger.pid) == stranger.pid


@pytest.mark.kern_proc("pfind")
@pytest.mark.parametrize("pid", [NO_SUCH_ID, -1])
def test_nobodys_session_cannot_be_asked_for(init: Process, pid: int) -> None:
    """ESRCH (kern_prot.c: sys_getsid)."""
    with fails(ESRCH):
        init.getsid(pid)


@pytest.mark.kern_proc("pfind")
def test_a_reaped_process_has_no_session(init: Process) -> None:
    """ESRCH although its session may live on (kern_prot.c: sys_getsid)."""
    leader = init.fork()
    leader.setsid()
    member = leader.fork()
    bury(init, leader)
    with fails(ESRCH):
        init.getsid(leader.pid)
    assert init.getsid(member.pid) == leader.pid


# ---- Handing it down ---------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("sess_hold")
def test_children_are_born_into_their_parents_session(init: Process) -> None:
    """Whatever group they or their parents are in (kern_fork.c: fork1)."""
    leader = init.fork()
    leader.setsid()
    child = leader.fork()
    child.setpgid(0, 0)
    grandchild = child.fork()
    grandchild.setpgid(0, 0)
    great = grandchild.fork()
    assert {process.getsid() for process in (leader, child, grandchild, great)} == {leader.pid}
    table = init.sysctl.kern_proc_all()
    assert {table[process.pid].sid for process in (leader, child, grandchild, great)} == {leader.pid}


@pytest.mark.kern_proc("sess_hold")
def test_those_born_before_setsid_stay_in_the_old_session(init: Process) -> None:
    """setsid() takes nobody along (kern_prot.c: sys_setsid)."""
    parent = init.fork()
    early = parent.fork()
    parent.setsid()
    late = parent.fork()
    assert (early.getsid(), late.getsid()) == (init.pid, parent.pid)


@pytest.mark.kern_proc("sess_hold")
def test_a_vforked_child_is_in_its_parents_session(init: Process) -> None:
    """As any other child, and may leave it (kern_fork.c: fork1)."""
    parent = init.fork()
    child = parent.vfork()
    assert child.getsid() == init.pid
    assert child.setsid() == child.pid
    child.exit()
    assert parent.getsid() == init.pid


@pytest.mark.kern_proc("enterpgrp", "sess_hold")
def test_new_groups_belong_to_their_makers_session(init: Process) -> None:
    """One session, many groups; other sessions cannot join them (kern_proc.c: enterpgrp)."""
    leader = init.fork()
    leader.setsid()
    member = leader.fork()
    member.setpgid(0, 0)
    assert (row(init, member.pid).pgid, row(init, member.pid).sid) == (member.pid, leader.pid)
    assert group_exists(leader, member.pid)
    assert not group_exists(init, member.pid)


# ---- How long it lives -------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("sess_rele", "enterpgrp")
def test_a_session_outlives_its_leader(init: Process) -> None:
    """Its members stay in it and go on founding groups in it (kern_proc.c: sess_rele)."""
    leader = init.fork()
    leader.setsid()
    member, other = leader.fork(), leader.fork()
    bury(init, leader)
    member.setpgid(0, 0)
    other.setpgid(0, member.pid)
    assert (member.getsid(), other.getsid(), other.getpgrp()) == (leader.pid, leader.pid, member.pid)
    assert not row(init, member.pid).is_session_leader
    late = other.fork()
    assert (late.getsid(), late.getpgrp()) == (leader.pid, member.pid)


@pytest.mark.kern_proc("sess_rele", "pgrel")
def test_a_session_outlives_the_group_named_after_it(init: Process) -> None:
    """It is held by any of its groups (kern_proc.c: sess_hold, pgrel)."""
    leader = init.fork()
    leader.setsid()
    member = leader.fork()
    member.setpgid(0, 0)
    bury(init, leader)
    assert init.sysctl.kern_proc_pgrp(leader.pid).pids == []
    with fails(EPERM):  # the id names a session still, but no group
        member.setpgid(0, leader.pid)
    assert (member.getsid(), row(init, member.pid).sid) == (leader.pid, leader.pid)
    child = member.fork()
    child.setpgid(0, 0)
    assert child.getsid() == leader.pid


@pytest.mark.kern_proc("sess_rele")
def test_members_of_a_session_without_leader_may_make_their_own(init: Process) -> None:
    """Unless they lead a group (kern_prot.c: sys_setsid)."""
    leader = init.fork()
    leader.setsid()
    member, job = leader.fork(), leader.fork()
    job.setpgid(0, 0)
    bury(init, leader)
    assert member.setsid() == member.pid
    with fails(EPERM):
        job.setsid()


@pytest.mark.kern_proc("sess_rele", "sess_hold", "pgrel")
def test_sessions_come_and_go_with_their_groups_in_any_order(init: Process) -> None:
    """Every group holds its session once (kern_proc.c: sess_hold, sess_rele): one too few and it is gone too soon."""
    leader = init.fork()
    leader.setsid()
    members = [leader.fork() for _ in range(4)]
    for member in members:
        member.setpgid(0, 0)
    members[0].setpgid(0, members[1].pid)
    bury(leader, members[2])
    bury(init, leader)
    members[1].setpgid(0, members[3].pid)
    for member, group in ((members[0], members[1]), (members[1], members[3]), (members[3], members[3])):
        assert (member.getsid(), member.getpgrp()) == (leader.pid, group.pid)
    members[0].setpgid(0, 0)
    assert members[1].setsid() == members[1].pid
    assert [(member.getsid(), member.getpgrp()) for member in (members[0], members[3])] == [
        (leader.pid, members[0].pid),
        (leader.pid, members[3].pid),
    ]


@pytest.mark.kern_proc("sess_rele", "enterpgrp")
def test_sessions_of_one_hash_chain_do_not_get_into_each_others_way(init: Process) -> None:
    """Each ends without the other (kern_proc.c: sess_rele)."""
    init.procctl_reaper_acquire()  # its wait4() returns when the session has ended; its member is out of sight sooner
    older, younger = chain_mates(init, lambda child: child.setsid())
    members = [older.fork(), younger.fork()]
    bury(init, older)
    assert (members[0].getsid(), members[1].getsid()) == (older.pid, younger.pid)
    init.kill(members[0].pid, SIGKILL)
    assert init.wait4(members[0].pid).pid == members[0].pid
    members[1].setpgid(0, 0)
    assert (members[1].getsid(), younger.getsid()) == (younger.pid, younger.pid)


@pytest.mark.kern_proc("proc_makepid", "pgrel", "sess_rele", "proc_remove_zombie")
@pytest.mark.slow_clock(12)
def test_an_id_is_given_away_when_neither_process_nor_group_nor_session_bears_it(init: RemoteProcess) -> None:
    """Ten seconds after the reap, for those that nobody uses any more (kern_proc.c: proc_makepid).

    Pids leap ahead first, so that the sequence runs over all of them afterwards.
    """
    while True:
        with random_pids(init, 500):
            eight = [init.fork() for _ in range(8)]
        alive, zombie, group, session, bare_session, process_free, group_free, session_free = eight
        members = [init.fork(), init.fork()]
        for leader, member in zip((group, group_free), members, strict=True):
            leader.setpgid(0, 0)
            member.setpgid(0, leader.pid)
        for leader in (session, bare_session, session_free):
            leader.setsid()
            members.append(leader.fork())
        # The sequence leaps over numbers given back lately; if that took it past one of the eight, others are needed.
        if born(init, 1)[0] < min(one.pid for one in eight):
            break
    members[3].setpgid(0, 0)  # the group of bare_session ends with its leader, the session does not
    zombie.exit()
    bury(init, group, session, bare_session, process_free, group_free, session_free)
    members[1].setpgid(0, init.pid)
    members[4].setsid()
    init.sleep(11.5)
    # Where the sequence stands no pid tells: one that was in use is replaced by another of its hash chain, further on.
    # But it stands behind init's own, and moves on by at least one for each child.
    given = set(born(init, max(one.pid for one in eight) - init.pid + 10))
    taken = {
        "a process": alive,
        "a zombie": zombie,
        "a group": group,
        "a session": session,
        "a session without its first group": bare_session,
    }
    free = {"a former process": process_free, "a former group": group_free, "a former session": session_free}
    assert [what for what, process in taken.items() if process.pid in given] == []
    assert [what for what, process in free.items() if process.pid not in given] == []
    assert (members[0].getpgrp(), members[2].getsid(), members[3].getsid()) == (
        group.pid,
        session.pid,
        bare_session.pid,
    )


# ---- The login name ----------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("enterpgrp")
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


@pytest.mark.kern_proc("enterpgrp")
def test_a_long_login_name_is_copied_whole(init: Process) -> None:
    """Sixteen characters and a null fit (sys/param.h: MAXLOGNAME; kern_proc.c: enterpgrp)."""
    init.setlogin("abcdefghijklmnop")
    child = init.fork()
    child.setsid()
    assert child.getlogin() == "abcdefghijklmnop"


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.eras(until=500_705, reason="MAXLOGNAME grew from 17 to 33 in September 2019")
def test_a_login_name_that_is_too_long_is_refused(init: Process) -> None:
    """EINVAL, and the old one stays (kern_prot.c: sys_setlogin)."""
    init.setlogin("short")
    with fails(EINVAL):
        init.setlogin("abcdefghijklmnopq")
    assert init.getlogin() == "short"


@pytest.mark.kern_proc("enterpgrp")
def test_only_root_sets_the_login_name(init: Process) -> None:
    """EPERM (kern_prot.c: sys_setlogin)."""
    init.setlogin("rightful")
    user = init.fork()
    user.setsid()
    user.setuid(SOMEBODY)
    with fails(EPERM):
        user.setlogin("usurper")
    assert user.getlogin() == "rightful"


@pytest.mark.kern_proc("sess_rele")
def test_the_login_name_outlives_the_leader(init: Process) -> None:
    """It is the session's, not the leader's (kern_proc.c: sess_rele)."""
    leader = init.fork()
    leader.setsid()
    leader.setlogin("heritage")
    member = leader.fork()
    bury(init, leader)
    assert member.getlogin() == "heritage"


# ---- Gaining a controlling terminal ------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal whose master `init` holds, and a session that has it."""

    def __init__(self, init: RemoteProcess) -> None:
        self.init = init
        self.master, self.slave, self.path = init.openpty()
        self.leader = self.session()
        self.leader.set_controlling_tty(self.slave)

    def session(self) -> RemoteProcess:
        """Return the leader of a new session; it has the terminal open, but not its master."""
        leader = self.init.fork()
        leader.close(self.master)
        leader.setsid()
        return leader

    def job(self) -> RemoteProcess:
        """Return a child of the leader in a group of its own."""
        child = self.leader.fork()
        child.setpgid(0, 0)
        return child

    @property
    def device(self) -> int:
        """Its number."""
        number = row(self.init, self.leader.pid).tdev
        assert number is not None
        return number


@pytest.mark.kern_proc("sysctl_out_proc")
@pytest.mark.needs_kernel
def test_a_session_leader_gains_a_controlling_terminal(init: RemoteProcess) -> None:
    """TIOCSCTTY makes its group the foreground (tty.c: ttioctl; kern_kinfo.c: fill_kinfo_proc)."""
    before = init.fork()
    before.setsid()
    assert (row(init, before.pid).tdev, row(init, before.pid).has_controlling_tty) == (None, False)
    terminal = Terminal(init)
    leader = terminal.leader
    shown = row(init, leader.pid)
    assert (shown.tpgid, shown.tsid, shown.has_controlling_tty) == (leader.pid, leader.pid, True)
    assert shown.tdev is not None
    assert shown.flags & ProcFlag.P_CONTROLT
    assert (leader.tcgetpgrp(terminal.slave), leader.tcgetsid(terminal.slave)) == (leader.pid, leader.pid)


@pytest.mark.kern_proc("sysctl_out_proc")
@pytest.mark.needs_kernel
def test_opening_a_terminal_does_not_make_it_the_controlling_one(init: RemoteProcess) -> None:
    """Not even for a leader without one (tty_pty.c: ptsopen)."""
    init.openpty()
    leader = init.fork()
    leader.setsid()
    leader.openpty()
    assert (row(init, init.pid).tdev, row(init, leader.pid).tdev) == (None, None)


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
def test_only_a_session_leader_can_gain_a_terminal(init: RemoteProcess) -> None:
    """EPERM for anybody else, the leader alive or dead (tty.c: ttioctl, TIOCSCTTY)."""
    _, slave, _ = init.openpty()
    leader = init.fork()
    leader.setsid()
    member, job = leader.fork(), leader.fork()
    job.setpgid(0, 0)
    for process in (member, job):
        with fails(EPERM):
            process.set_controlling_tty(slave)
    bury(init, leader)
    with fails(EPERM):
        member.set_controlling_tty(slave)
    assert row(init, member.pid).tdev is None


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
def test_a_terminal_belongs_to_one_session(init: RemoteProcess) -> None:
    """EPERM for the leader of another one (tty.c: ttioctl, TIOCSCTTY)."""
    terminal = Terminal(init)
    other = terminal.session()
    with fails(EPERM):
        other.set_controlling_tty(terminal.slave)
    assert row(init, other.pid).tdev is None
    assert row(init, terminal.leader.pid).tsid == terminal.leader.pid


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
def test_a_session_has_one_terminal(init: RemoteProcess) -> None:
    """EPERM for a second one (tty.c: ttioctl, TIOCSCTTY)."""
    terminal = Terminal(init)
    device = terminal.device
    _, other, _ = terminal.leader.openpty()
    with fails(EPERM):
        terminal.leader.set_controlling_tty(other)
    assert row(init, terminal.leader.pid).tdev == device


@pytest.mark.kern_proc("pgref", "pgrel")
@pytest.mark.needs_kernel
def test_gaining_the_same_terminal_again_changes_nothing(init: RemoteProcess) -> None:
    """But that the leader's group comes to the foreground (tty.c: ttioctl, TIOCSCTTY)."""
    terminal = Terminal(init)
    job = terminal.job()
    terminal.leader.sigaction(SIGTTOU, Handler.IGNORE)
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    for _ in range(3):
        terminal.leader.set_controlling_tty(terminal.slave)
    assert terminal.leader.tcgetpgrp(terminal.slave) == terminal.leader.pid
    assert row(init, terminal.leader.pid).tsid == terminal.leader.pid


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
def test_what_is_no_terminal_cannot_become_one(init: RemoteProcess) -> None:
    """ENOTTY for a pipe (kern_descrip.c: mapped_ioctl; sys_pipe.c)."""
    leader = init.fork()
    leader.setsid()
    reading, _ = leader.pipe()
    with fails(ENOTTY):
        leader.set_controlling_tty(reading)


# ---- Sharing it --------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("sysctl_out_proc")
@pytest.mark.needs_kernel
def test_children_share_their_parents_terminal(init: RemoteProcess) -> None:
    """In whatever group of the session (kern_fork.c: fork1, P_CONTROLT)."""
    terminal = Terminal(init)
    job = terminal.job()
    child = job.fork()
    for process in (job, child):
        shown = row(init, process.pid)
        assert (shown.tdev, shown.tsid, shown.tpgid) == (terminal.device, terminal.leader.pid, terminal.leader.pid)
        assert shown.flags & ProcFlag.P_CONTROLT
        assert process.tcgetsid(terminal.slave) == terminal.leader.pid


@pytest.mark.kern_proc("sysctl_out_proc")
@pytest.mark.needs_kernel
def test_processes_born_before_have_no_terminal(init: RemoteProcess) -> None:
    """The session has one, they do not, nor do their children (tty.c: ttioctl sets P_CONTROLT for the caller)."""
    _, slave, _ = init.openpty()
    leader = init.fork()
    leader.setsid()
    early = leader.fork()
    leader.set_controlling_tty(slave)
    for process in (early, early.fork()):
        shown = row(init, process.pid)
        assert (shown.tdev, shown.has_controlling_tty) == (None, True)
        with fails(ENOTTY):
            process.tcgetpgrp(slave)
        with fails(ENXIO):
            process.open("/dev/tty", os.O_RDWR)


@pytest.mark.kern_proc("sysctl_kern_proc")
@pytest.mark.needs_kernel
@pytest.mark.parametrize("lwp", [False, True], ids=["processes", "threads"])
def test_the_process_table_lists_exactly_the_processes_of_a_terminal(init: RemoteProcess, lwp: bool) -> None:
    """kern.proc.tty: those with P_CONTROLT in the session that has it, zombies included (sysctl_kern_proc)."""
    _, slave, _ = init.openpty()
    leader = init.fork()
    leader.setsid()
    leader.fork()  # early: without the terminal
    leader.set_controlling_tty(slave)
    member, job, zombie, escaped = (leader.fork() for _ in range(4))
    job.setpgid(0, 0)
    zombie.exit()
    escaped.setsid()
    device = row(init, leader.pid).tdev
    assert device is not None
    other = Terminal(init)
    assert sorted(init.sysctl.kern_proc_tty(device, lwp=lwp).pids) == sorted(
        process.pid for process in (leader, member, job, zombie)
    )
    assert init.sysctl.kern_proc_tty(other.device, lwp=lwp).pids == [other.leader.pid]
    leader.wait4(zombie.pid)
    assert zombie.pid not in init.sysctl.kern_proc_tty(device, lwp=lwp)


@pytest.mark.kern_proc("sysctl_kern_proc")
@pytest.mark.needs_kernel
@pytest.mark.parametrize("device", [-1, 0x7FFFFFFF])
def test_a_device_that_is_nobodys_terminal_has_no_processes(init: RemoteProcess, device: int) -> None:
    """Not even -1, which rows without a terminal show (kern_proc.c: sysctl_kern_proc)."""
    Terminal(init)
    assert init.sysctl.kern_proc_tty(device).pids == []


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
def test_dev_tty_is_the_controlling_terminal(init: RemoteProcess) -> None:
    """ENXIO where there is none (tty_tty.c: cttyopen)."""
    terminal = Terminal(init)
    with fails(ENXIO):
        init.open("/dev/tty", os.O_RDWR)
    fd = terminal.job().open("/dev/tty", os.O_RDWR)
    assert fd >= 0
    fd = terminal.leader.open("/dev/tty", os.O_RDWR)
    assert terminal.leader.tcgetsid(fd) == terminal.leader.pid


@pytest.mark.kern_proc("pgfind")
@pytest.mark.needs_kernel
def test_other_sessions_learn_nothing_from_a_terminal(init: RemoteProcess) -> None:
    """ENOTTY although they have it open (tty.c: ttioctl, isctty)."""
    terminal = Terminal(init)
    for process in (init, terminal.session()):
        with fails(ENOTTY):
            process.tcgetpgrp(terminal.slave)
        with fails(ENOTTY):
            process.tcgetsid(terminal.slave)
        with fails(ENOTTY):
            process.tcsetpgrp(terminal.slave, process.pid)


# ---- Losing it ---------------------------------------------------------------------------------------------------


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
@pytest.mark.parametrize("place", ["foreground", "background"])
def test_setsid_leaves_the_terminal_behind(init: RemoteProcess, place: str) -> None:
    """With everything that is born afterwards; the old session keeps it (kern_proc.c: enterpgrp, P_CONTROLT)."""
    terminal = Terminal(init)
    daemon = terminal.leader.fork()
    if place == "background":
        daemon.setpgid(0, terminal.job().pid)
    daemon.setsid()
    for process in (daemon, daemon.fork()):
        shown = row(init, process.pid)
        assert (shown.tdev, shown.has_controlling_tty) == (None, False)
        assert not shown.flags & ProcFlag.P_CONTROLT
        with fails(ENXIO):
            process.open("/dev/tty", os.O_RDWR)
        with fails(ENOTTY):
            process.tcgetpgrp(terminal.slave)
    assert row(init, terminal.leader.pid).tpgid == terminal.leader.pid


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
def test_a_new_session_may_gain_a_terminal_of_its_own(init: RemoteProcess) -> None:
    """It begins without one (kern_proc.c: enterpgrp)."""
    terminal = Terminal(init)
    daemon = terminal.leader.fork()
    daemon.setsid()
    _, other, _ = daemon.openpty()
    daemon.set_controlling_tty(other)
    assert (row(init, daemon.pid).tsid, row(init, terminal.leader.pid).tsid) == (daemon.pid, terminal.leader.pid)
    assert row(init, daemon.pid).tdev != terminal.device


@pytest.mark.kern_proc("sysctl_out_proc")
@pytest.mark.needs_kernel
def test_a_member_gives_its_terminal_up(init: RemoteProcess) -> None:
    """TIOCNOTTY on /dev/tty, for itself only (tty_tty.c: cttyioctl)."""
    terminal = Terminal(init)
    member, other = terminal.leader.fork(), terminal.leader.fork()
    fd = member.open("/dev/tty", os.O_RDWR)
    member.drop_controlling_tty(fd)
    assert [row(init, process.pid).tdev is None for process in (member, other, terminal.leader)] == [True, False, False]
    assert row(init, member.fork().pid).tdev is None
    assert sorted(init.sysctl.kern_proc_tty(terminal.device).pids) == sorted([terminal.leader.pid, other.pid])


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
def test_a_leader_cannot_give_the_terminal_up(init: RemoteProcess) -> None:
    """EINVAL (tty_tty.c: cttyioctl)."""
    terminal = Terminal(init)
    fd = terminal.leader.open("/dev/tty", os.O_RDWR)
    with fails(EINVAL):
        terminal.leader.drop_controlling_tty(fd)
    assert terminal.leader.tcgetsid(terminal.slave) == terminal.leader.pid


@pytest.mark.kern_proc("enterpgrp", "pgref")
@pytest.mark.needs_kernel
def test_the_leaders_exit_hangs_the_foreground_group_up(init: RemoteProcess) -> None:
    """SIGHUP for the foreground group and nobody else (kern_exit.c: exit1, pgsignal)."""
    terminal = Terminal(init)
    job, background = terminal.job(), terminal.job()
    member = job.fork()
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    for process in (job, member, background):
        process.sigaction(SIGHUP, Handler.LOG)
    terminal.leader.exit()
    assert [logged(process) for process in (job, member, background)] == [[SIGHUP], [SIGHUP], []]


@pytest.mark.kern_proc("enterpgrp", "sysctl_kern_proc")
@pytest.mark.needs_kernel
def test_the_leaders_exit_takes_the_terminal_from_the_session(init: RemoteProcess) -> None:
    """It is revoked; rows still name the device, but neither session nor foreground (kern_exit.c: exit1)."""
    terminal = Terminal(init)
    job = terminal.job()
    device = terminal.device
    terminal.leader.exit()
    shown = row(init, job.pid)
    assert (shown.has_controlling_tty, shown.tdev, shown.tsid, shown.tpgid) == (False, device, -1, -1)
    with fails(ENXIO):
        job.open("/dev/tty", os.O_RDWR)
    with fails(EBADF):
        job.tcgetpgrp(terminal.slave)
    assert job.pid in init.sysctl.kern_proc_tty(device)


@pytest.mark.kern_proc("sess_rele")
@pytest.mark.needs_kernel
def test_a_terminal_can_be_gained_again_after_its_session_lost_it(init: RemoteProcess) -> None:
    """Even while members of the old session live (kern_exit.c: exit1; tty.c: ttyclearsession)."""
    init.procctl_reaper_acquire()
    terminal = Terminal(init)
    job = terminal.job()
    bury(init, terminal.leader)
    heir = init.fork()
    heir.setsid()
    fd = heir.open(terminal.path, os.O_RDWR)
    heir.set_controlling_tty(fd)
    assert (heir.tcgetsid(fd), row(init, heir.pid).tpgid, row(init, heir.pid).tsid) == (heir.pid,) * 3
    # The end of the old session must not touch the new one's terminal (kern_proc.c: sess_rele, half close).
    init.kill(job.pid, SIGKILL)
    assert init.wait4(job.pid).pid == job.pid
    assert (heir.tcgetsid(fd), row(init, heir.pid).tsid) == (heir.pid, heir.pid)


@pytest.mark.kern_proc("sysctl_out_proc", "allproc_scan")
@pytest.mark.needs_kernel
def test_revoking_a_terminal_takes_it_from_everybody(init: RemoteProcess) -> None:
    """From every process that has it open, in every session (kern_descrip.c: fdrevoke; kern_proc.c: allproc_scan)."""
    terminal = Terminal(init)
    with random_pids(init, 5000):
        holders = [terminal.job(), terminal.session(), *(init.fork() for _ in range(4))]
    init.revoke(terminal.path)
    for process in (terminal.leader, *holders):
        with fails(EBADF):
            process.write(terminal.slave, b"x")
    shown = row(init, terminal.leader.pid)
    assert (shown.has_controlling_tty, shown.tsid, shown.tpgid) == (False, -1, -1)
    with fails(ENXIO):
        terminal.leader.open("/dev/tty", os.O_RDWR)


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
def test_a_leader_whose_terminal_was_revoked_may_gain_another(init: RemoteProcess) -> None:
    """The session has none then (kern_descrip.c: fdrevoke; tty.c: ttioctl)."""
    terminal = Terminal(init)
    old = terminal.device
    init.revoke(terminal.path)
    _, other, _ = terminal.leader.openpty()
    terminal.leader.set_controlling_tty(other)
    assert row(init, terminal.leader.pid).tdev not in (None, old)
    assert terminal.leader.tcgetsid(other) == terminal.leader.pid


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
def test_hanging_up_the_terminal_tells_the_leader(init: RemoteProcess) -> None:
    """SIGHUP for the leader alone, whoever is in the foreground (tty.c: ttymodem, s_leader)."""
    terminal = Terminal(init)
    job = terminal.job()
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    for process in (terminal.leader, job):
        process.sigaction(SIGHUP, Handler.LOG)
    init.close(terminal.master)
    assert (logged(terminal.leader), logged(job)) == ([SIGHUP], [])


# ---- Giving a terminal back --------------------------------------------------------------------------------------


def _exits(terminal: Terminal) -> None:
    bury(terminal.init, terminal.leader)


def _exits_before_a_member(terminal: Terminal) -> None:
    member = terminal.leader.fork()
    member.sigaction(SIGHUP, Handler.IGNORE)
    bury(terminal.init, terminal.leader)
    terminal.init.kill(member.pid, SIGKILL)
    assert terminal.init.wait4(member.pid).pid == member.pid


def _exits_before_a_job(terminal: Terminal) -> None:
    job = terminal.job()
    bury(terminal.init, terminal.leader)
    assert terminal.init.openpty()[2] != terminal.path
    terminal.init.kill(job.pid, SIGKILL)
    assert terminal.init.wait4(job.pid).pid == job.pid


def _had_many_jobs(terminal: Terminal) -> None:
    jobs = [terminal.job() for _ in range(4)]
    jobs[0].setpgid(0, jobs[1].pid)
    terminal.leader.sigaction(SIGTTOU, Handler.IGNORE)
    for job in (jobs[1], jobs[0], terminal.leader):
        terminal.leader.tcsetpgrp(terminal.slave, job.getpgrp())
    bury(terminal.leader, *jobs)
    bury(terminal.init, terminal.leader)


def _had_the_terminal_twice(terminal: Terminal) -> None:
    terminal.leader.set_controlling_tty(terminal.slave)
    bury(terminal.init, terminal.leader)


def _lost_a_member_to_another_session(terminal: Terminal) -> None:
    daemon = terminal.leader.fork()
    daemon.setsid()
    bury(terminal.init, terminal.leader)


def _outlived_a_daemon_of_its(terminal: Terminal) -> None:
    daemon = terminal.leader.fork()
    daemon.setsid()
    child = daemon.fork()
    bury(daemon, child)
    bury(terminal.leader, daemon)
    bury(terminal.init, terminal.leader)


def _had_a_group_moved_by_the_leader(terminal: Terminal) -> None:
    member = terminal.leader.fork()
    terminal.leader.setpgid(member.pid, member.pid)
    terminal.leader.setpgid(member.pid, terminal.leader.pid)
    terminal.leader.setpgid(member.pid, member.pid)
    bury(terminal.leader, member)
    bury(terminal.init, terminal.leader)


def _had_it_revoked(terminal: Terminal) -> None:
    terminal.init.revoke(terminal.path)
    bury(terminal.init, terminal.leader)


def _opened_it_as_dev_tty(terminal: Terminal) -> None:
    terminal.leader.open("/dev/tty", os.O_RDWR)
    bury(terminal.init, terminal.leader)


@pytest.mark.kern_proc("sess_rele", "sess_hold", "pgrel", "enterpgrp")
@pytest.mark.needs_kernel
@pytest.mark.parametrize(
    "happening",
    [
        pytest.param(happening, id=f"the leader {happening.__name__.lstrip('_').replace('_', ' ')}")
        for happening in (
            _exits,
            _exits_before_a_member,
            _exits_before_a_job,
            _had_many_jobs,
            _had_the_terminal_twice,
            _lost_a_member_to_another_session,
            _outlived_a_daemon_of_its,
            _had_a_group_moved_by_the_leader,
            _had_it_revoked,
            _opened_it_as_dev_tty,
        )
    ],
)
def test_a_terminal_is_free_when_its_session_has_ended(
    init: RemoteProcess, happening: Callable[[Terminal], None]
) -> None:
    """The session holds the device until its last group is gone: then the number is given out again.

    (kern_proc.c: sess_rele; tty_pty.c: pti_done, ptyclone)
    """
    init.procctl_reaper_acquire()  # its wait4() returns when the session has ended; its member is out of sight sooner
    terminal = Terminal(init)
    happening(terminal)
    init.close(terminal.master)
    init.close(terminal.slave)
    assert init.openpty()[2] == terminal.path


# ---- Foreground and background -----------------------------------------------------------------------------------


@pytest.mark.kern_proc("pgfind", "sysctl_out_proc")
@pytest.mark.needs_kernel
def test_the_foreground_group_can_be_changed(init: RemoteProcess) -> None:
    """By the foreground, to any group of the session; rows show it (tty.c: ttioctl, TIOCSPGRP)."""
    terminal = Terminal(init)
    job, other = terminal.job(), terminal.job()
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    assert job.tcgetpgrp(terminal.slave) == job.pid
    assert {row(init, process.pid).tpgid for process in (terminal.leader, job, other)} == {job.pid}
    job.tcsetpgrp(terminal.slave, other.pid)
    assert row(init, job.pid).tpgid == other.pid


@pytest.mark.kern_proc("pgfind", "pgrel")
@pytest.mark.needs_kernel
@pytest.mark.parametrize(
    ("pgid", "error"),
    [(0, EINVAL), (-1, EINVAL), (1_000_000, EINVAL), (NO_SUCH_ID, EPERM), ("init", EPERM), ("member", EPERM)],
)
def test_what_cannot_become_the_foreground_group(init: RemoteProcess, pgid: int | str, error: int) -> None:
    """No number that can be none, no unknown group, no process that leads none, no group of another session.

    (tty.c: ttioctl, TIOCSPGRP)
    """
    terminal = Terminal(init)
    member = terminal.leader.fork()
    wanted = {"init": init.pid, "member": member.pid}[pgid] if isinstance(pgid, str) else pgid
    with fails(error):
        terminal.leader.tcsetpgrp(terminal.slave, wanted)
    assert terminal.leader.tcgetpgrp(terminal.slave) == terminal.leader.pid


@pytest.mark.kern_proc("pgref", "pgrel")
@pytest.mark.needs_kernel
def test_a_terminal_keeps_its_foreground_group_in_existence(init: RemoteProcess) -> None:
    """Without members it can still be joined, until another group comes to the foreground (tty.c: TIOCSPGRP)."""
    terminal = Terminal(init)
    leader = terminal.leader
    job = terminal.job()
    leader.tcsetpgrp(terminal.slave, job.pid)
    bury(leader, job)
    leader.sigaction(SIGTTOU, Handler.IGNORE)
    assert leader.tcgetpgrp(terminal.slave) == row(init, leader.pid).tpgid == job.pid
    assert group_exists(leader, job.pid)
    leader.tcsetpgrp(terminal.slave, leader.pid)
    assert not group_exists(leader, job.pid)


@pytest.mark.kern_proc("enterpgrp", "fixjobc")
@pytest.mark.needs_kernel
def test_a_background_job_that_reads_is_stopped(init: RemoteProcess) -> None:
    """SIGTTIN for its group; in the foreground it reads on (tty.c: ttread)."""
    terminal = Terminal(init)
    job = terminal.job()
    member = job.fork()
    await_idle(init, member)
    reading = job.start.read(terminal.slave, 100)
    for process in (job, member):
        await_stopped(init, process)
    assert terminal.leader.wait4(job.pid, WUNTRACED).stop_signal == SIGTTIN
    assert not has_stopped(init, terminal.leader)
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    terminal.init.write(terminal.master, b"line\n")
    terminal.leader.killpg(job.pid, SIGCONT)
    assert reading.result() == b"line\n"


def _orphaned_job(terminal: Terminal) -> RemoteProcess:
    parent = terminal.leader.fork()
    job = parent.fork()
    job.setpgid(0, 0)
    bury(terminal.leader, parent)
    return job


@pytest.mark.kern_proc("fixjobc")
@pytest.mark.needs_kernel
def test_an_orphaned_background_group_cannot_read(init: RemoteProcess) -> None:
    """EIO, for nobody would continue it (tty.c: ttread, pg_jobc)."""
    terminal = Terminal(init)
    job = _orphaned_job(terminal)
    with fails(EIO):
        job.read(terminal.slave, 100)


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_a_background_job_that_does_not_hear_sigttin_cannot_read(init: RemoteProcess, how: str) -> None:
    """EIO (tty.c: ttread)."""
    terminal = Terminal(init)
    job = terminal.job()
    if how == "ignored":
        job.sigaction(SIGTTIN, Handler.IGNORE)
    else:
        job.sigprocmask(mask=[SIGTTIN])
    with fails(EIO):
        job.read(terminal.slave, 100)


@pytest.mark.kern_proc("enterpgrp", "fixjobc")
@pytest.mark.needs_kernel
def test_a_background_job_that_changes_the_foreground_is_stopped(init: RemoteProcess) -> None:
    """SIGTTOU (tty.c: ttioctl)."""
    terminal = Terminal(init)
    job = terminal.job()
    job.start.tcsetpgrp(terminal.slave, job.pid)
    await_stopped(init, job)
    assert terminal.leader.wait4(job.pid, WUNTRACED).stop_signal == SIGTTOU
    assert terminal.leader.tcgetpgrp(terminal.slave) == terminal.leader.pid


@pytest.mark.kern_proc("fixjobc")
@pytest.mark.needs_kernel
def test_a_leader_in_the_background_cannot_take_the_foreground_back(init: RemoteProcess) -> None:
    """EIO: its group has no parent in the session (tty.c: ttioctl, pg_jobc)."""
    terminal = Terminal(init)
    terminal.leader.tcsetpgrp(terminal.slave, terminal.job().pid)
    with fails(EIO):
        terminal.leader.tcsetpgrp(terminal.slave, terminal.leader.pid)
    with fails(EIO):
        terminal.leader.set_controlling_tty(terminal.slave)


@pytest.mark.kern_proc("fixjobc")
@pytest.mark.needs_kernel
def test_an_orphaned_background_group_cannot_change_the_foreground(init: RemoteProcess) -> None:
    """EIO (tty.c: ttioctl, pg_jobc)."""
    terminal = Terminal(init)
    job = _orphaned_job(terminal)
    with fails(EIO):
        job.tcsetpgrp(terminal.slave, job.pid)


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_a_background_job_that_does_not_hear_sigttou_changes_the_foreground(init: RemoteProcess, how: str) -> None:
    """What shells do (tty.c: ttioctl)."""
    terminal = Terminal(init)
    job = terminal.job()
    if how == "ignored":
        job.sigaction(SIGTTOU, Handler.IGNORE)
    else:
        job.sigprocmask(mask=[SIGTTOU])
    job.tcsetpgrp(terminal.slave, job.pid)
    assert terminal.leader.tcgetpgrp(terminal.slave) == job.pid


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
@pytest.mark.parametrize(
    ("key", "signal"),
    [(b"\x03", SIGINT), (b"\x1c", SIGQUIT), (b"\x1a", SIGTSTP)],
    ids=["interrupt", "quit", "suspend"],
)
def test_the_terminals_keys_signal_the_foreground_group(init: RemoteProcess, key: bytes, signal: Signals) -> None:
    """Each of its members and nobody else (tty.c: ttyinput, pgsignal)."""
    terminal = Terminal(init)
    job, background = terminal.job(), terminal.job()
    member = job.fork()
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    for process in (terminal.leader, job, member, background):
        process.sigaction(signal, Handler.LOG)
    init.write(terminal.master, key)
    assert [logged(process) for process in (job, member)] == [[signal], [signal]]
    assert [logged(process) for process in (terminal.leader, background)] == [[], []]


@pytest.mark.kern_proc("enterpgrp")
@pytest.mark.needs_kernel
def test_the_terminals_keys_do_not_reach_members_without_the_terminal(init: RemoteProcess) -> None:
    """Of the foreground group, those with P_CONTROLT (kern_sig.c: pgsignal, checkctty)."""
    master, slave, _ = init.openpty()
    leader = init.fork()
    leader.setsid()
    early = leader.fork()
    leader.set_controlling_tty(slave)
    late = leader.fork()
    for process in (leader, early, late):
        process.sigaction(SIGINT, Handler.LOG)
    init.write(master, b"\x03")
    assert [logged(process) for process in (leader, early, late)] == [[SIGINT], [], [SIGINT]]


@pytest.mark.kern_proc("fixjobc")
@pytest.mark.needs_kernel
def test_the_suspend_key_stops_jobs_but_not_the_leaders_own_group(init: RemoteProcess) -> None:
    """The leader's group has no parent in the session: it counts as orphaned (kern_sig.c: lwpsignal, pg_jobc)."""
    terminal = Terminal(init)
    init.write(terminal.master, b"\x1a")
    assert terminal.leader.getpgrp() == terminal.leader.pid
    assert not has_stopped(init, terminal.leader)
    job = terminal.job()
    terminal.leader.tcsetpgrp(terminal.slave, job.pid)
    await_idle(init, job)
    init.write(terminal.master, b"\x1a")
    await_stopped(init, job)
    assert terminal.leader.wait4(job.pid, WUNTRACED).stop_signal == SIGTSTP


# ---- Owners of descriptors ---------------------------------------------------------------------------------------

F_GETOWN, F_SETOWN = 5, 6  # sys/fcntl.h


@pytest.mark.kern_proc("pgfind", "pgref", "pgrel")
@pytest.mark.needs_kernel
@pytest.mark.parametrize("ending", ["no owner", "another owner", "closed"])
def test_a_group_that_owns_a_descriptor_stays_in_existence(init: RemoteProcess, ending: str) -> None:
    """F_SETOWN takes a reference, until somebody else is the owner or the file is closed (kern_descrip.c: fsetown)."""
    group = init.fork()
    group.setpgid(0, 0)
    reading, writing = init.pipe()
    init.fcntl(reading, F_SETOWN, -group.pid)
    bury(init, group)
    assert init.fcntl(reading, F_GETOWN) == -group.pid
    assert group_exists(init, group.pid)
    if ending == "closed":
        init.close(reading)
        init.close(writing)
    else:
        init.fcntl(reading, F_SETOWN, 0 if ending == "no owner" else -init.pid)
    assert not group_exists(init, group.pid)


@pytest.mark.kern_proc("pgfind", "pgrel")
@pytest.mark.needs_kernel
def test_only_groups_of_the_session_can_own_descriptors(init: RemoteProcess) -> None:
    """ESRCH for an unknown group, EPERM for another session's (kern_descrip.c: fsetown)."""
    stranger = init.fork()
    stranger.setsid()
    reading, _ = init.pipe()
    with fails(ESRCH):
        init.fcntl(reading, F_SETOWN, -NO_SUCH_ID)
    with fails(EPERM):
        init.fcntl(reading, F_SETOWN, -stranger.pid)
    assert init.fcntl(reading, F_GETOWN) == 0

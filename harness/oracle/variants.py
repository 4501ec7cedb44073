# SPDX-License-Identifier: BSD-2-Clause
"""Wrong oracles: each breaks exactly one promise, so that a suite can prove that it would notice.

A variant replaces one member of Rules, and says in a sentence what is wrong with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.oracle.eras import ERAS, Era, Traits, split_target
from harness.oracle.model import Proc, SigActs
from harness.oracle.rules import RLIMIT_NPROC, Rules
from harness.processes.kinfo import ProcFlag, ProcStat

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel


@dataclass(frozen=True)
class Variant:
    """A wrong oracle: what it does wrong, and which C function would be to blame."""

    name: str
    function: str  # "proc_makepid" of kern_proc.c, "kern_exit.c: exit1" of another file
    breaks: str
    rules: type[Rules]

    applies: Callable[[Traits], bool]  # whether it is wrong in an era at all


_NEAR = 5  # names shown
_WORD = 4  # letters of a word that tells


def _near(name: str) -> str:
    """Return the names of variants that may have been meant by NAME, of too many to list."""
    words = {word for word in name.split("-") if len(word) >= _WORD}
    near = difflib.get_close_matches(name, VARIANTS, _NEAR)
    near += [other for other in VARIANTS if other not in near and words.intersection(other.split("-"))]
    return f": did you mean {', '.join(near[:_NEAR])}?" if near else f"; {len(VARIANTS)} are in {__name__}"


def rules_of(target: str | None) -> Rules:
    """Return the rules of "ERA", "VARIANT" or "ERA:VARIANT"; the specification's own of 2017 for None.

    Raises UsageError for an unknown era or variant, and for one that is right in that era.
    """
    era, name = split_target(target or "")
    if name is None:
        return Rules(era)
    if name not in VARIANTS:
        raise UsageError(f"no variant of the oracle is called {name}{_near(name)}; eras are {', '.join(ERAS)}")
    variant = VARIANTS[name]
    if not variant.applies(era.traits):
        eras = ", ".join(one.name for one in ERAS.values() if variant.applies(one.traits))
        raise UsageError(f"{name} differs from the kernel of other eras, not from that of {era}: try {eras}")
    return variant.rules(era)


def variants_of(era: Era) -> list[Variant]:
    """Return the variants that are wrong in an era."""
    return [variant for variant in VARIANTS.values() if variant.applies(era.traits)]


def wrong(
    name: str, function: str, breaks: str, applies: Callable[[Traits], bool] = lambda _: True, **overridden: object
) -> Variant:
    """Describe a variant; OVERRIDDEN are the members of Rules it replaces, which must exist."""
    for member in overridden:
        getattr(Rules, member)
    return Variant(name, function, breaks, type(name, (Rules,), overridden), applies)


def constant(value: object) -> Callable[..., object]:
    """Return a method that answers VALUE, whatever it is asked."""
    return lambda *_, **__: value


def _overlook_stopped(rules: Rules, k: Kernel, pid: int) -> Proc | None:
    found = Rules.pfind(rules, k, pid)
    return None if found is not None and found.stat is ProcStat.SSTOP else found


_ALL = (
    # ---- kern_proc.c: choosing a pid ---------------------------------------------------------------------------------
    wrong(
        "reuse-one-second-early",
        "proc_makepid",
        "An id may be handed out when the second in which it was given back is 10 seconds ago, not 11.",
        is_recent=lambda self, age: 0 <= age < self.REUSE_DELAY,
    ),
    wrong(
        "reuse-at-once",
        "proc_makepid",
        "An id that was just given back may be handed out.",
        is_recent=constant(False),
    ),
    wrong(
        "reuse-after-a-minute",
        "proc_makepid",
        "An id stays out of use for 60 seconds instead of 10.",
        REUSE_DELAY=60,
    ),
    wrong(
        "stamps-from-the-future-count",
        "proc_makepid",
        "An id whose stamp lies ahead of the clock counts as given back lately: half of all ids do at any time.",
        is_recent=lambda self, age: age <= self.REUSE_DELAY,
    ),
    wrong(
        "equal-stamps-at-boot",
        "procinit",
        "All stamps are 0 at boot.",
        initial_stamp=lambda *_: 0,
    ),
    wrong(
        "wrap-to-two",
        "proc_makepid",
        "After a wrap the ids below 100 are handed out, too.",
        FIRST_REUSED_PID=2,
    ),
    wrong(
        "five-digit-pids",
        "proc_makepid",
        "Pids end at 99998 (as they did before 2014).",
        PID_MAX=99_999,
    ),
    wrong(
        "one-pid-too-many",
        "proc_makepid",
        "999999 is handed out as a pid, though PID_MAX is exclusive.",
        PID_MAX=1_000_000,
        clamp_randompid=lambda _self, value: Rules().clamp_randompid(value),
    ),
    wrong(
        "live-pid-handed-out",
        "proc_makepid",
        "A new process may get the pid of one that is alive.",
        live_pid_is_taken=constant(False),
    ),
    wrong(
        "zombie-pid-handed-out",
        "proc_makepid",
        "A new process may get the pid of one that has exited but was not reaped.",
        zombie_pid_is_taken=constant(False),
    ),
    wrong(
        "pgid-handed-out",
        "proc_makepid",
        "A new process may get a pid that is the id of a process group with members.",
        pgid_is_taken=constant(False),
    ),
    wrong(
        "sid-handed-out",
        "proc_makepid",
        "A new process may get a pid that is the id of a session with members.",
        sid_is_taken=constant(False),
    ),
    wrong(
        "collision-steps-by-one",
        "proc_makepid",
        "When an id is taken the next one is tried, which is in another hash chain and another domain.",
        COLLISION_STRIDE=1,
    ),
    wrong(
        "step-of-two",
        "proc_makepid",
        "Every second id is left out.",
        STEP=2,
    ),
    wrong(
        "domain-skips-uncounted",
        "proc_makepid",
        "kern.pid_domain_skips stays what it is.",
        counts_domain_skips=constant(False),
    ),
    wrong(
        "inner-skips-uncounted",
        "proc_makepid",
        "kern.pid_inner_skips stays what it is.",
        counts_inner_skips=constant(False),
    ),
    wrong(
        "randompid-ignored",
        "proc_add_allproc",
        "kern.randompid can be set, but pids come in order all the same.",
        random_offset=lambda *_: 0,
    ),
    wrong(
        "random-offset-too-large",
        "proc_add_allproc",
        "The random offset exceeds kern.randompid.",
        random_offset=lambda _self, modulus, random_bits: random_bits % (8 * modulus) if modulus else 0,
    ),
    wrong(
        "random-offset-constant",
        "proc_add_allproc",
        "Every pid leaps ahead by the same distance, the largest.",
        random_offset=lambda _self, modulus, _random_bits: max(modulus - 1, 0),
    ),
    wrong(
        "small-modulus-kept",
        "sysctl_kern_randompid",
        "A modulus between 2 and 99 is taken as it is instead of being raised to 100.",
        clamp_randompid=lambda self, value: value if 2 <= value < 100 else Rules.clamp_randompid(self, value),
    ),
    wrong(
        "modulus-one-kept",
        "sysctl_kern_randompid",
        "1 is stored instead of 0.",
        clamp_randompid=lambda self, value: 1 if value == 1 else Rules.clamp_randompid(self, value),
    ),
    wrong(
        "negative-modulus-is-off",
        "sysctl_kern_randompid",
        "A negative modulus turns randomness off instead of meaning the largest.",
        clamp_randompid=lambda self, value: 0 if value < 0 else Rules.clamp_randompid(self, value),
    ),
    wrong(
        "modulus-up-to-pid-max",
        "sysctl_kern_randompid",
        "Values up to PID_MAX are taken as they are: the last hundred is not kept back.",
        clamp_randompid=lambda self, value: (
            value if 0 <= self.PID_MAX - value < 100 else Rules.clamp_randompid(self, value)
        ),
    ),
    wrong(
        "anybody-sets-randompid",
        "sysctl_kern_randompid",
        "System variables can be set by users other than root.",
        may_write_sysctl=constant(True),
    ),
    # ---- kern_proc.c: giving ids back --------------------------------------------------------------------------------
    wrong(
        "no-delay-after-reap",
        "proc_remove_zombie",
        "Reaping a process does not start the delay of its pid.",
        reap_stamps_pid=constant(False),
    ),
    wrong(
        "delay-from-exit",
        "proc_remove_zombie",
        "The delay runs from the exit of a process instead of from its reaping.",
        exit_stamps_pid=constant(True),
        reap_stamps_pid=constant(False),
    ),
    wrong(
        "no-delay-after-group",
        "pgrel",
        "The end of a process group does not start the delay of its id.",
        release_stamps_pgid=constant(False),
    ),
    wrong(
        "no-delay-after-session",
        "sess_rele",
        "The end of a session does not start the delay of its id.",
        release_stamps_sid=constant(False),
    ),
    # ---- kern_proc.c: finding ----------------------------------------------------------------------------------------
    wrong(
        "children-only",
        "inferior",
        "Only children are inferiors, grandchildren are not.",
        inferior=lambda _self, _k, proc, of: proc.parent is of,
    ),
    wrong(
        "everybody-is-inferior",
        "inferior",
        "Any process may be moved by any other of its session.",
        inferior=constant(True),
    ),
    wrong(
        "ancestors-are-inferior",
        "inferior",
        "Ancestors pass for descendants.",
        inferior=lambda self, k, proc, of: Rules.inferior(self, k, proc, of) or Rules.inferior(self, k, of, proc),
    ),
    wrong(
        "zombies-found",
        "pfind",
        "pfind() finds zombies: sysctl by pid, getpgid() and getsid() know them.",
        pfind=lambda _self, k, pid: k.procs.get(pid),
    ),
    wrong(
        "stopped-not-found",
        "pfind",
        "pfind() overlooks stopped processes.",
        pfind=_overlook_stopped,
    ),
    wrong(
        "zombies-lost",
        "zpfind",
        "zpfind() finds nobody: kill() does not know zombies.",
        zpfind=constant(None),
    ),
    wrong(
        "groups-need-their-leader",
        "pgfind",
        "A group is not found when the process it is named after has been reaped.",
        pgfind=lambda _self, k, pgid: k.groups.get(pgid) if pgid in k.procs else None,
    ),
    # ---- kern_proc.c: process groups and sessions --------------------------------------------------------------------
    wrong(
        "login-forgotten",
        "enterpgrp",
        "A new session begins without a login name.",
        new_session_login=constant(""),
    ),
    wrong(
        "session-without-leader",
        "enterpgrp",
        "setsid() makes a session that nobody leads.",
        new_session_leader=constant(None),
    ),
    wrong(
        "member-of-two-groups",
        "enterpgrp",
        "A process that moves is still in the old group's list of members.",
        leaves_old_group=constant(False),
    ),
    wrong(
        "entering-not-counted",
        "enterpgrp",
        "pg_jobc is not increased when a process enters a group.",
        entering_counts=constant(False),
    ),
    wrong(
        "leaving-not-counted",
        "enterpgrp",
        "pg_jobc is not decreased when a process leaves a group.",
        leaving_counts=constant(False),
    ),
    wrong(
        "leaving-counted-first",
        "enterpgrp",
        "The old group is discounted before the new one is counted, so a group may pass for orphaned on the way.",
        entering_counts_first=constant(False),
    ),
    wrong(
        "group-ends-with-its-leader",
        "pgrel",
        "A group ends when the process it is named after leaves it, whoever else is a member.",
        group_ends_with=lambda _self, group, leaving: (
            group.references == 0 or (leaving is not None and leaving.pid == group.pgid)
        ),
    ),
    wrong(
        "groups-never-end",
        "pgrel",
        "A reference to each process group is lost: it stays when its last member is gone.",
        group_ends_with=constant(False),
    ),
    wrong(
        "zombies-leave-their-group",
        "leavepgrp",
        "A process leaves its group when it exits instead of when it is reaped.",
        group_is_left_at_exit=constant(True),
    ),
    wrong(
        "groups-do-not-hold-their-session",
        "sess_hold",
        "A session ends with its first group although it has others.",
        group_holds_session=constant(False),
    ),
    wrong(
        "sessions-never-end",
        "sess_rele",
        "A reference to each session is lost: its id is taken for ever.",
        session_ends_with=constant(False),
    ),
    # ---- kern_proc.c: job control ------------------------------------------------------------------------------------
    wrong(
        "parents-of-other-sessions-count",
        "fixjobc",
        "A parent in another session makes a member count for job control.",
        qualifies=lambda _self, group, parent, _session: parent is not group,
    ),
    wrong(
        "parents-of-the-same-group-count",
        "fixjobc",
        "A parent in the same group makes a member count for job control.",
        qualifies=lambda _self, _group, parent, session: parent.session is session,
    ),
    wrong(
        "children-not-adjusted",
        "fixjobc",
        "The groups of a process's children are not looked at when it moves or exits.",
        adjusts_children=constant(False),
    ),
    wrong(
        "zombie-children-count",
        "fixjobc",
        "Children that are zombies still count in their groups.",
        adjusts_for_child=constant(True),
    ),
    wrong(
        "orphans-always-hung-up",
        "orphanpg",
        "An orphaned group is hung up although none of its members is stopped.",
        orphan_signals=lambda *_: ("SIGHUP", "SIGCONT"),
    ),
    wrong(
        "orphans-forgotten",
        "orphanpg",
        "An orphaned group is not told, stopped or not.",
        orphan_signals=constant(()),
    ),
    wrong(
        "orphans-not-continued",
        "orphanpg",
        "An orphaned group gets SIGHUP, but no SIGCONT.",
        orphan_signals=lambda self, group: Rules.orphan_signals(self, group)[:1],
    ),
    wrong(
        "orphans-not-hung-up",
        "orphanpg",
        "An orphaned group gets SIGCONT, but no SIGHUP.",
        orphan_signals=lambda self, group: Rules.orphan_signals(self, group)[1:],
    ),
    wrong(
        "only-stopped-orphans-hung-up",
        "orphanpg",
        "Of an orphaned group only the stopped members are told.",
        orphan_receives=lambda _self, member: member.stat is ProcStat.SSTOP,
    ),
    wrong(
        "first-member-decides",
        "orphanpg",
        "Only the first member of an orphaned group is looked at for being stopped.",
        orphan_signals=lambda _self, group: (
            ("SIGHUP", "SIGCONT") if any(one.stat is ProcStat.SSTOP for one in group.members[:1]) else ()
        ),
    ),
    # ---- kern_proc.c: sysctl -----------------------------------------------------------------------------------------
    wrong(
        "zombies-unlisted",
        "sysctl_kern_proc",
        "Zombies are left out of the tables.",
        lists_in_all=lambda _self, proc: not proc.is_zombie,
    ),
    wrong(
        "zombies-unlisted-by-group",
        "sysctl_kern_proc",
        "kern.proc.pgrp leaves out zombies.",
        matches_pgrp=lambda self, proc, pgid: Rules.matches_pgrp(self, proc, pgid) and not proc.is_zombie,
    ),
    wrong(
        "pgrp-means-session",
        "sysctl_kern_proc",
        "kern.proc.pgrp lists the members of a session.",
        matches_pgrp=lambda _self, proc, pgid: proc.pgrp is not None and proc.session.sid == pgid,
    ),
    wrong(
        "uid-means-real-uid",
        "sysctl_kern_proc",
        "kern.proc.uid goes by the real user id.",
        matches_uid=lambda _self, proc, uid: proc.cred.ruid == uid,
    ),
    wrong(
        "ruid-means-effective-uid",
        "sysctl_kern_proc",
        "kern.proc.ruid goes by the effective user id.",
        matches_ruid=lambda _self, proc, uid: proc.cred.uid == uid,
    ),
    wrong(
        "everybody-sees-everybody",
        "sysctl_kern_proc",
        "security.ps_showallprocs=0 hides nothing.",
        shows=constant(True),
    ),
    wrong(
        "others-hidden",
        "sysctl_kern_proc",
        "Users see only their own processes although security.ps_showallprocs is 1.",
        shows=lambda self, _k, viewer, proc: not self.trespasses(viewer, proc.cred),
    ),
    wrong(
        "others-hidden-by-pid",
        "sysctl_kern_proc",
        "kern.proc.pid hides the processes of others although security.ps_showallprocs is 1.",
        shows_by_pid=lambda self, _k, viewer, proc: not self.trespasses(viewer, proc.cred),
    ),
    wrong(
        "kernel-threads-everywhere",
        "sysctl_kern_proc",
        "Kernel threads are listed by every query.",
        shows_kernel_threads=lambda self, k, viewer, _query, asked: Rules.shows_kernel_threads(
            self, k, viewer, "all", asked
        ),
    ),
    wrong(
        "kernel-threads-always",
        "sysctl_kern_proc",
        "security.ps_showallthreads=0 does not hide kernel threads.",
        shows_kernel_threads=lambda self, _k, _viewer, query, asked: (
            query == "all" and (asked or not self.traits.lwkt_flag)
        ),
    ),
    wrong(
        "kernel-threads-never",
        "sysctl_kern_proc",
        "kern.proc.all leaves out kernel threads.",
        shows_kernel_threads=constant(False),
    ),
    wrong(
        "arguments-always-open",
        "sysctl_kern_proc_args",
        "kern.ps_argsopen=0 hides neither arguments nor directories.",
        shows_args=constant(True),
    ),
    wrong(
        "arguments-always-closed",
        "sysctl_kern_proc_args",
        "Arguments and directory of others are hidden although kern.ps_argsopen is 1.",
        shows_args=lambda self, _k, viewer, proc: not self.trespasses(viewer, proc.cred),
    ),
    wrong(
        "arguments-of-three",
        "sysctl_kern_proc_args",
        "Kern.proc.args takes a component more than a process, and a thread.",
        accepts_arguments=lambda self, kind, count: (
            Rules.accepts_arguments(self, kind, count) or (kind == "args" and count == 2 + self.traits.titles_in_page)
        ),
    ),
    wrong(
        "titles-set-by-others",
        "sysctl_kern_proc_args",
        "A process can set the title of another one.",
        may_set_args=constant(True),
    ),
    wrong(
        "titles-without-limit",
        "sysctl_kern_proc_args",
        "Titles and arguments of any length are kept.",
        keeps_title=constant(True),
    ),
    wrong(
        "directory-of-the-reader",
        "sysctl_kern_proc_cwd",
        "kern.proc.cwd tells the directory of whoever asks.",
        cwd_shown=lambda _self, viewer, _proc: viewer.cwd,
    ),
    wrong(
        "pathname-without-self",
        "sysctl_kern_proc_pathname",
        "kern.proc.pathname.-1 is nobody instead of the caller.",
        pathname_self=constant(-2),
    ),
    wrong(
        "size-without-slop",
        "sysctl_kern_proc",
        "A size query announces what there is, and no room for processes born meanwhile.",
        size_slop=constant(0),
    ),
    wrong(
        "surplus-arguments-ignored",
        "sysctl_kern_proc",
        "Components of the name behind the first argument are ignored.",
        accepts_arguments=lambda _self, kind, count: count == 0 if kind == "all" else count >= 1,
    ),
    wrong(
        "pathname-of-nobody",
        "sysctl_kern_proc_pathname",
        "The path of a pid nobody has is empty instead of an error.",
        pathname_of_nobody=constant(None),
    ),
    wrong(
        "jobc-is-the-number-of-members",
        "sysctl_out_proc",
        "kp_jobc shows how many members the group has.",
        jobc_shown=lambda _self, group: len(group.members),
    ),
    wrong(
        "exit-status-hidden",
        "proc_move_allproc_zombie",
        "The row of a zombie does not tell its exit status.",
        exitstat_shown=lambda _self, proc: 0 if proc.is_zombie else proc.xstat,
    ),
    # ---- kern_prot.c -------------------------------------------------------------------------------------------------
    wrong(
        "setsid-for-leaders",
        "kern_prot.c: sys_setsid",
        "setsid() succeeds, without effect, for the leader of a process group.",
        setsid_refused=constant(False),
    ),
    wrong(
        "setsid-into-living-group",
        "kern_prot.c: sys_setsid",
        "setsid() does not look whether a group with the caller's pid still has members.",
        setsid_refused=lambda _self, _k, proc: proc.group.pgid == proc.pid,
    ),
    wrong(
        "negative-group-looked-up",
        "kern_prot.c: sys_setpgid",
        "setpgid() to a negative group is EPERM instead of EINVAL.",
        setpgid_negative=constant(None),
    ),
    wrong(
        "strangers-moved",
        "kern_prot.c: sys_setpgid",
        "setpgid() moves a descendant that has a session of its own.",
        setpgid_stranger=constant(None),
    ),
    wrong(
        "exec-forgotten",
        "kern_exec.c: kern_execve",
        "setpgid() moves a child that has run another program.",
        exec_marks=lambda *_: ProcFlag(0),
    ),
    wrong(
        "session-leaders-moved",
        "kern_prot.c: sys_setpgid",
        "setpgid() moves a session leader.",
        setpgid_leader=constant(None),
    ),
    wrong(
        "groups-of-other-sessions-joined",
        "kern_prot.c: sys_setpgid",
        "setpgid() moves to a group of another session.",
        setpgid_group=lambda _self, _caller, group: None if group is not None else "EPERM",
    ),
    wrong(
        "missing-group-is-esrch",
        "kern_prot.c: sys_setpgid",
        "setpgid() to a group that does not exist is ESRCH instead of EPERM.",
        setpgid_group=lambda self, caller, group: (
            "ESRCH" if group is None else Rules.setpgid_group(self, caller, group)
        ),
    ),
    wrong(
        "getsid-tells-the-group",
        "kern_prot.c: sys_getsid",
        "getsid() returns the id of the process group.",
        getsid=lambda _self, proc: proc.group.pgid,
    ),
    wrong(
        "anybody-sets-login",
        "kern_prot.c: sys_setlogin",
        "setlogin() works for users other than root.",
        may_setlogin=constant(True),
    ),
    wrong(
        "long-logins",
        "kern_prot.c: sys_setlogin",
        "Login names are accepted that are too long by up to 16 characters.",
        login_size=lambda self: self.traits.login_size + 16,
    ),
    # ---- kern_fork.c -------------------------------------------------------------------------------------------------
    wrong(
        "oldest-child-first",
        "kern_fork.c: fork1",
        "Children are listed, and waited for, in the order of their birth.",
        child_goes_to=lambda _self, children, _child: len(children),
    ),
    wrong(
        "children-join-the-sessions-group",
        "kern_fork.c: fork1",
        "A child begins in the group of the session leader instead of its parent's.",
        fork_keeps_pgrp=lambda _self, k, parent: k.groups.get(parent.session.sid, parent.group),
    ),
    wrong(
        "vfork-does-not-block",
        "kern_fork.c: start_forked_proc",
        "The parent goes on while a vforked child still uses its memory.",
        vfork_blocks=constant(False),
    ),
    wrong(
        "orphans-go-to-the-grandparent",
        "kern_fork.c: reaper_get",
        "The children of a process that exits become its parent's.",
        reaper_inherits=lambda _self, _k, dying, reaper: dying.parent or reaper,
    ),
    wrong(
        "orphans-go-to-init",
        "kern_fork.c: reaper_get",
        "Orphans become children of init although there is a reaper.",
        reaper_inherits=lambda _self, k, _dying, _reaper: k.init,
    ),
    wrong(
        "reapers-forgotten",
        "kern_fork.c: fork1",
        "A child does not know its parent's reaper.",
        reaper_is_inherited=constant(False),
    ),
    # ---- kern_exit.c -------------------------------------------------------------------------------------------------
    wrong(
        "exit-not-counted",
        "kern_exit.c: exit1",
        "pg_jobc is not adjusted when a process exits.",
        exit_counts=constant(False),
    ),
    wrong(
        "session-keeps-its-dead-leader",
        "kern_exit.c: exit1",
        "A session leader that has exited still leads it.",
        leader_exit_unleads=constant(False),
    ),
    wrong(
        "ignored-children-stay",
        "kern_exit.c: exit1",
        "A parent that ignores SIGCHLD has zombies all the same.",
        forgoes_zombies=lambda _self, parent: parent.sigacts.no_child_wait,
    ),
    wrong(
        "nocldwait-without-effect",
        "kern_exit.c: exit1",
        "A parent that set SA_NOCLDWAIT has zombies all the same.",
        forgoes_zombies=lambda _self, parent: parent.sigacts.child_ignored,
    ),
    wrong(
        "parent-not-signalled",
        "kern_exit.c: exit1",
        "The parent of a process that exits gets no SIGCHLD.",
        exit_signals_parent=constant(False),
    ),
    wrong(
        "status-lost",
        "kern_exit.c: kern_wait",
        "wait4() says that every child exited with status 0.",
        zombie_keeps_status=lambda *_: 0,
    ),
    wrong(
        "wait-zero-is-any",
        "kern_exit.c: kern_wait",
        "wait4(0) waits for any child instead of those in the caller's group.",
        wait_matches=lambda self, caller, child, pid: pid == 0 or Rules.wait_matches(self, caller, child, pid),
    ),
    wrong(
        "wait-by-group-is-any",
        "kern_exit.c: kern_wait",
        "wait4(-pgid) waits for any child.",
        wait_matches=lambda self, caller, child, pid: pid < 0 or Rules.wait_matches(self, caller, child, pid),
    ),
    wrong(
        "unknown-options-ignored",
        "kern_exit.c: kern_wait",
        "wait4() accepts option bits nobody has defined.",
        wait_options=lambda _self: 0xFFFFFFFF,
    ),
    wrong(
        "changes-reported-again",
        "kern_exit.c: kern_wait",
        "A stop or a continuation is reported by every wait4().",
        report_clears=constant(False),
    ),
    wrong(
        "stops-reported-unasked",
        "kern_exit.c: kern_wait",
        "Stops are reported without WUNTRACED.",
        reports_stop=lambda self, child, _untraced: Rules.reports_stop(self, child, untraced=True),
    ),
    wrong(
        "continuations-reported-unasked",
        "kern_exit.c: kern_wait",
        "Continuations are reported without WCONTINUED.",
        reports_continue=lambda self, child, _continued: Rules.reports_continue(self, child, continued=True),
    ),
    wrong(
        "continuations-not-reported",
        "kern_exit.c: kern_wait",
        "WCONTINUED finds nothing.",
        reports_continue=constant(False),
    ),
    # ---- kern_sig.c --------------------------------------------------------------------------------------------------
    wrong(
        "effective-ids-only",
        "kern_prot.c: p_trespass",
        "Whether a process may be signalled is decided by the effective user ids alone.",
        trespasses=lambda self, subject, target: subject.uid != target.uid and not self.is_privileged(subject),
    ),
    wrong(
        "anybody-signals-anybody",
        "kern_sig.c: kern_kill",
        "kill() asks for no permission.",
        can_signal=constant(True),
    ),
    wrong(
        "continue-needs-permission",
        "kern_sig.c: kern_kill",
        "SIGCONT to a process of the same session needs the permission every signal needs.",
        can_signal=lambda self, k, sender, target, _signal, *, alone: Rules.can_signal(
            self, k, sender, target, "", alone=alone
        ),
    ),
    wrong(
        "empty-group-is-eperm",
        "kern_sig.c: dokillpg",
        "killpg() of a group in which nobody may be signalled is EPERM instead of ESRCH.",
        group_without_targets=lambda *_: "EPERM",
    ),
    wrong(
        "group-kill-spares-the-sender",
        "kern_sig.c: dokillpg",
        "killpg() does not reach the sender.",
        group_kill_reaches=lambda self, sender, member: (
            member is not sender and Rules.group_kill_reaches(self, sender, member)
        ),
    ),
    wrong(
        "group-kill-counts-zombies",
        "kern_sig.c: dokillpg",
        "killpg() of a group of zombies succeeds.",
        lambda traits: not traits.reapers_confine_signals,  # later a zombie, having no reaper, is beyond reach anyway
        group_kill_reaches=lambda _self, _sender, member: member.pid > 1 and not member.is_system,
    ),
    wrong(
        "orphans-stopped-by-the-terminal",
        "kern_sig.c: lwpsignal",
        "Terminal stop signals stop the members of an orphaned group.",
        ignored_while_orphaned=constant(False),
    ),
    wrong(
        "blocked-continue-does-nothing",
        "kern_sig.c: lwpsignal",
        "SIGCONT does not continue a process that blocks it.",
        continues_although_blocked=constant(False),
    ),
    wrong(
        "stopped-cannot-be-killed",
        "kern_sig.c: lwpsignal",
        "SIGKILL waits until a stopped process is continued.",
        kill_wakes_stopped=constant(False),
    ),
    wrong(
        "nocldstop-without-effect",
        "kern_sig.c: proc_stop",
        "The parent of a process that stops gets SIGCHLD although it set SA_NOCLDSTOP.",
        stop_signals_parent=constant(True),
    ),
    wrong(
        "stops-are-silent",
        "kern_sig.c: proc_stop",
        "The parent of a process that stops gets no SIGCHLD.",
        stop_signals_parent=constant(False),
    ),
    wrong(
        "continuations-are-signalled",
        "kern_sig.c: lwpsignal",
        "The parent of a process that is continued gets SIGCHLD.",
        continue_signals_parent=constant(True),
    ),
    wrong(
        "dispositions-not-inherited",
        "kern_fork.c: fork1",
        "A child begins with the default action for every signal.",
        inherits_sigacts=lambda _self, sigacts: SigActs(ignored=sigacts.ignored),
    ),
    # ---- what later eras brought ---------------------------------------------------------------------------------
    wrong(
        "root-is-not-limited",
        "kern_fork.c: fork1",
        "RLIMIT_NPROC binds everybody but root.",
        lambda traits: traits.limits_root,
        limits_root=constant(False),
    ),
    wrong(
        "signals-leave-the-family",
        "kern_fork.c: reaper_sigtest",
        "Who is below a reaper may signal what is not.",
        lambda traits: traits.reapers_confine_signals,
        within_family=constant(True),
    ),
    wrong(
        "groups-reach-their-reaper",
        "kern_fork.c: reaper_sigtest",
        "A signal to a group or to everybody reaches the sender's reaper, too.",
        lambda traits: traits.reapers_confine_signals,
        within_family=lambda self, sender, target, _alone: Rules.within_family(self, sender, target, alone=True),
    ),
    wrong(
        "senders-untold",
        "kern_sig.c: sigsetfrompid",
        "A handler is not told who sent the signal.",
        lambda traits: traits.tells_sender,
        tells_sender=constant(False),
    ),
    wrong(
        "looking-reaps",
        "kern_exit.c: kern_wait",
        "WNOWAIT reaps the child, and consumes the report of a stop.",
        lambda traits: traits.wait6,
        keeps_what_is_only_looked_at=constant(False),
    ),
    wrong(
        "wait6-takes-anybody",
        "kern_exit.c: kern_wait",
        "wait6() waits for any child, whatever kind of id it is given.",
        lambda traits: traits.wait6,
        wait6_matches=constant(True),
    ),
    wrong(
        "wait6-for-nothing",
        "kern_exit.c: kern_wait",
        "wait6() is content with options by which nothing is asked for.",
        lambda traits: traits.wait6,
        wait6_needs=lambda _self: 0xFFFFFFFF,
    ),
    wrong(
        "endings-undecoded",
        "kern_exit.c: kern_wait",
        "si_status of wait6() is the status word.",
        lambda traits: traits.wait6,
        end_shown=lambda self, xstat: (Rules.end_shown(self, xstat)[0], xstat),
    ),
    wrong(
        "row-is-the-first-thread",
        "sysctl_out_proc",
        "The row of a process has the id of its first thread.",
        lambda traits: traits.sums_up_threads,
        row_tid=lambda _self, shown: shown.tid,
    ),
    wrong(
        "titles-inherited",
        "sysctl_kern_proc_args",
        "A child has the title its parent was given.",
        lambda traits: traits.titles_in_page,
        title_is_inherited=constant(True),
    ),
    wrong(
        "titles-survive-exec",
        "sysctl_kern_proc_args",
        "A process keeps its title when it runs another program.",
        lambda traits: traits.titles_in_page,
        exec_ends_title=constant(False),
    ),
    wrong(
        "kernel-threads-unasked",
        "sysctl_kern_proc",
        "Kernel threads are listed without KERN_PROC_FLAG_LWKT.",
        lambda traits: traits.lwkt_flag,
        shows_kernel_threads=lambda self, k, viewer, query, _asked: Rules.shows_kernel_threads(
            self, k, viewer, query, asked=True
        ),
    ),
    wrong(
        "sizes-of-strings-untold",
        "sysctl_kern_proc_args",
        "A size query of args and cwd is not answered.",
        lambda traits: traits.sizes_strings,
        sizes_strings=constant(False),
    ),
    wrong(
        "sizes-of-strings-told",
        "sysctl_kern_proc_args",
        "A size query of args and cwd is answered.",
        lambda traits: not traits.sizes_strings,
        sizes_strings=constant(True),
    ),
    wrong(
        "swapper-runs-something",
        "sysctl_kern_proc_pathname",
        "The path of the program of a process that runs none is empty instead of an error.",
        lambda traits: traits.pathname_of_no_program == "EINVAL",  # before, asking may be the kernel's end
        pathname_of_no_program=constant(None),
    ),
    wrong(
        "one-signal-too-many",
        "kern_sig.c: kern_kill",
        "A signal one above the highest is accepted.",
        highest_signal=lambda self: self.traits.highest_signal + 1,
    ),
    wrong(
        "one-signal-too-few",
        "kern_sig.c: kern_kill",
        "The highest signal is refused.",
        highest_signal=lambda self: self.traits.highest_signal - 1,
    ),
    wrong(
        "zero-is-nobody",
        "kern_fork.c: sys_procctl",
        "procctl() does not take id 0 for the caller.",
        lambda traits: traits.ids_of_zero,
        procctl_id=lambda _self, proc, id_: id_ == proc.pid,
    ),
    wrong(
        "procctl-of-others",
        "kern_fork.c: sys_procctl",
        "procctl() accepts the id of another process, and acts upon the caller.",
        procctl_id=constant(True),
    ),
    wrong(
        "parents-die-quietly",
        "kern_exit.c: exit1",
        "A child gets nothing at its parent's death although it asked for a signal.",
        lambda traits: traits.deathsig,
        deathsig_sent=constant(0),
    ),
    wrong(
        "death-signals-inherited",
        "kern_fork.c: fork1",
        "A child inherits the signal its parent asked for at its own parent's death.",
        lambda traits: traits.deathsig,
        deathsig_is_inherited=constant(True),
    ),
    wrong(
        "reap-kill-enters-reapers",
        "kern_fork.c: reaper_kill",
        "PROC_REAP_KILL reaches what is below a reaper further down.",
        lambda traits: traits.reap_kill,
        reap_kill_enters=constant(True),
    ),
    wrong(
        "reap-kill-spares-grandchildren",
        "kern_fork.c: reaper_kill",
        "PROC_REAP_KILL reaches children only, asked for or not.",
        lambda traits: traits.reap_kill,
        reap_kill_enters=constant(False),
    ),
    wrong(
        "restrictions-hidden",
        "kern_kinfo.c: fill_kinfo_proc",
        "The row of a process does not tell how it is restricted.",
        lambda traits: traits.syscap,
        syscaps_shown=constant((0,) * 8),
    ),
    wrong(
        "restrictions-without-effect",
        "kern_caps.c: caps_priv_check",
        "A restricted process may do what it did before.",
        lambda traits: traits.syscap,
        is_restricted=constant(False),
    ),
    wrong(
        "own-restrictions-survive-exec",
        "kern_caps.c: caps_exec",
        "A restriction of the process itself binds the next program, too.",
        lambda traits: traits.syscap,
        caps_after_exec=lambda _self, cred: cred,
    ),
    wrong(
        "restrictions-of-programs-forgotten",
        "kern_caps.c: caps_exec",
        "A restriction of the programs to come is gone when one comes.",
        lambda traits: traits.syscap,
        caps_after_exec=lambda _self, cred: replace(cred, caps=0),
    ),
    wrong(
        "restricted-programs-run",
        "kern_exec.c: sys_execve",
        "A process under SYSCAP_NOEXEC can run programs.",
        lambda traits: traits.syscap,
        may_exec=constant(True),
    ),
    wrong(
        "restricted-signals-to-init",
        "kern_sig.c: kern_kill",
        "A process under SYSCAP_NOREBOOT may signal process 1.",
        lambda traits: traits.syscap,
        may_signal_init=constant(True),
    ),
    wrong(
        "jails-see-everybody",
        "kern_jail.c: prison_check",
        "A process in a jail is shown those outside, and may signal them.",
        same_prison=constant(True),
    ),
    wrong(
        "traced-zombies-kept-by-the-tracer",
        "kern_exit.c: kern_wait",
        "A tracer that waits for a dead child of another reaps it.",
        given_back=constant(None),
    ),
    wrong(
        "tracees-outlive-their-tracer",
        "kern_exit.c: exit1",
        "A traced process is not killed when its tracer exits.",
        tracees_die_with_their_tracer=constant(False),
    ),
    wrong(
        "tracer-shown-as-parent",
        "kern_kinfo.c: fill_kinfo_proc",
        "The row of a traced process names its tracer as the parent.",
        ppid_shown=lambda _self, proc: proc.parent.pid if proc.parent is not None else -1,
    ),
    # ---- who one is --------------------------------------------------------------------------------------------------
    wrong(
        "real-root-suffices",
        "kern_caps.c: priv_check_cred",
        "Whoever is root by the real user id is privileged.",
        is_privileged=lambda _self, cred: 0 in (cred.uid, cred.ruid),
    ),
    wrong(
        "everybody-is-root",
        "kern_caps.c: priv_check_cred",
        "Anybody may do what only root may.",
        may=constant(True),
    ),
    wrong(
        "saved-user-regained-by-setuid",
        "kern_prot.c: sys_setuid",
        "setuid() takes the saved id without privilege, as POSIX has it.",
        may_become=lambda self, ids, id_: id_ == ids.saved or Rules.may_become(self, ids, id_),
    ),
    wrong(
        "setuid-sets-one",
        "kern_prot.c: sys_setuid",
        "setuid() sets the effective id alone.",
        became=lambda _self, ids, id_: replace(ids, effective=id_),
    ),
    wrong(
        "saved-user-lost-to-seteuid",
        "kern_prot.c: sys_seteuid",
        "seteuid() does not take the saved id without privilege.",
        may_act_as=lambda _self, ids, id_: id_ == ids.real,
    ),
    wrong(
        "real-user-from-effective",
        "kern_prot.c: sys_setreuid",
        "setreuid() makes the effective id the real one without privilege, as its manual page has it.",
        may_be_really=lambda self, ids, id_: id_ == ids.effective or Rules.may_be_really(self, ids, id_),
    ),
    wrong(
        "saved-user-lost-to-setreuid",
        "kern_prot.c: sys_setreuid",
        "setreuid() does not make the saved id the effective one without privilege, as its manual page has it.",
        may_be_effectively=lambda _self, ids, id_: id_ in (ids.real, ids.effective),
    ),
    wrong(
        "saved-user-left-behind",
        "kern_prot.c: sys_setreuid",
        "setreuid() leaves the saved id as it is.",
        saves_effective=constant(False),
    ),
    wrong(
        "anybody-becomes-anybody",
        "kern_prot.c: sys_setresuid",
        "setresuid() takes any id without privilege.",
        may_exchange=constant(True),
    ),
    wrong(
        "exec-saves-nothing",
        "kern_exec.c: kern_execve",
        "A new program has the saved user id of the old one.",
        exec_saves_uid=lambda _self, cred: cred,
    ),
    wrong(
        "moved-after-exec",
        "kern_prot.c: sys_setpgid",
        "A child that has run another program can be moved to another group.",
        setpgid_after_exec=constant(None),
    ),
    wrong(
        "everybody-in-the-own-group",
        "kern_prot.c: sys_getpgid",
        "getpgid() returns the pid of the process.",
        getpgid=lambda _self, proc: proc.pid,
    ),
    wrong(
        "login-name-of-nobody",
        "kern_prot.c: sys_setlogin",
        "setlogin() succeeds, and the session is called what it was.",
        setlogin_reaches=lambda _self, session: replace(session),
    ),
    # ---- jails -------------------------------------------------------------------------------------------------------
    wrong(
        "jails-in-jails",
        "kern_jail.c: sys_jail",
        "A jailed root makes another jail, and is out of its own.",
        may_make_jail=lambda self, cred: self.is_privileged(cred),
    ),
    wrong(
        "jails-for-everybody",
        "kern_jail.c: sys_jail",
        "Any user makes a jail.",
        may_make_jail=lambda _self, cred: not cred.prison,
    ),
    wrong(
        "jails-left-for-others",
        "kern_jail.c: sys_jail_attach",
        "A jailed root enters another jail.",
        may_enter_jail=lambda self, cred: self.is_privileged(cred),
    ),
    wrong(
        "jails-outlive-their-inmates",
        "kern_jail.c: prison_free",
        "A jail whose processes are all gone can be entered.",
        jail_exists=lambda _self, k, number: 0 < number <= k.jails,
    ),
    wrong(
        "children-outside",
        "kern_fork.c: fork1",
        "The child of a jailed process is in no jail.",
        jail_is_inherited=lambda _self, cred: replace(cred, prison=0),
    ),
    wrong(
        "jailed-root-unrestricted",
        "kern_jail.c: kern_jail_attach",
        "A jailed root is not a restricted one.",
        lambda traits: traits.syscap,
        jail_restricts=lambda _self, cred: cred,
    ),
    wrong(
        "confinement-forgotten",
        "kern_prot.c: p_trespass",
        "A restricted root reaches processes that are not restricted.",
        lambda traits: traits.syscap,
        is_confined=constant(False),
    ),
    wrong(
        "strangers-traced",
        "sys_process.c: kern_ptrace",
        "Anybody attaches to processes of other users.",
        may_trace_strangers=constant(True),
    ),
    # ---- births, deaths and their reports ----------------------------------------------------------------------------
    wrong(
        "rfork-insists",
        "kern_fork.c: fork1",
        "rfork() without RFPROC fails, as its manual page has it.",
        rfork_needs_process=constant(True),
    ),
    wrong(
        "forks-without-limit",
        "kern_fork.c: fork1",
        "There is no limit to the number of a user's processes.",
        can_fork=constant(True),
    ),
    wrong(
        "limit-for-all-generations",
        "kern_plimit.c: plimit_getadjvalue",
        "RLIMIT_NPROC does not shrink with the generations.",
        lambda traits: traits.limits_root,
        process_limit=lambda _self, k, proc: min(proc.limit(RLIMIT_NPROC)[0], k.variables["kern.maxproc"]),
    ),
    wrong(
        "exit-status-of-seven-bits",
        "kern_exit.c: sys_exit",
        "The highest bit of the exit status is lost.",
        exit_status=lambda _self, status: (status & 0x7F) << 8,
    ),
    wrong(
        "childless-search",
        "kern_exit.c: kern_wait",
        "Waiting without children fails with ESRCH.",
        without_children=constant("ESRCH"),
    ),
    wrong(
        "waiting-takes-sigchld",
        "kern_exit.c: kern_wait",
        "Waiting for a child takes the SIGCHLD that is pending, as POSIX and the manual page have it.",
        wait_takes_sigchld=constant(True),
    ),
    wrong(
        "head-is-alive",
        "kern_fork.c: sys_procctl",
        "PROC_REAP_STATUS names the first child that lives, as its manual page has it.",
        reaper_head=lambda _self, proc: next((child.pid for child in proc.children if not child.is_zombie), -1),
    ),
    wrong(
        "few-death-signals",
        "kern_fork.c: sys_procctl",
        "PROC_PDEATHSIG_CTL takes the first 31 signals only.",
        lambda traits: traits.deathsig,
        deathsig_allowed=lambda _self, signal: 0 <= signal <= 31,
    ),
    wrong(
        "ignored-sigchld-survives-exec",
        "kern_sig.c: execsigs",
        "A program begins with SIGCHLD ignored if the one before ignored it, as the manual page has it.",
        exec_keeps_ignored=constant(True),
    ),
    # ---- the shared page -------------------------------------------------------------------------------------------
    wrong(
        "own-page-in-vfork",
        "kern_memio.c: user_kernel_mapping",
        "A vforked child has a page of its own at once.",
        page_owner=lambda _self, proc: proc,
    ),
    wrong(
        "page-of-the-parent",
        "proc_usermap",
        "The page tells the pid of the parent.",
        page_pid=lambda _self, owner: owner.parent.pid if owner.parent is not None else 0,
    ),
    wrong(
        "forkid-is-the-pid",
        "proc_usermap",
        "A forkid comes back with the pid.",
        page_forkid=lambda _self, owner: owner.pid,
    ),
    wrong(
        "vfork-untold",
        "proc_usermap",
        "The page does not tell that a vforked child uses it.",
        page_invfork=constant(0),
    ),
    wrong(
        "title-in-the-page-ignored",
        "sysctl_kern_proc_args",
        "The title in the page is not shown.",
        page_title_shown=constant(b""),
    ),
    # ---- scans -------------------------------------------------------------------------------------------------------
    wrong(
        "scans-visit-zombies",
        "allproc_scan",
        "What visits all processes visits zombies, too.",
        scan_visits=constant(True),
    ),
    wrong(
        "scans-leave-the-stopped-out",
        "allproc_scan",
        "What visits all processes leaves out stopped ones.",
        scan_visits=lambda _self, proc: proc.stat is ProcStat.SACTIVE,
    ),
    wrong(
        "worst-priority",
        "kern_resource.c: sys_getpriority",
        "Of several priorities the worst is returned.",
        best_priority=lambda _self, values: max(values),
    ),
    wrong(
        "anybody-renices",
        "kern_resource.c: donice",
        "Priorities are anybody's to set.",
        donice=constant(None),
    ),
    # ---- holds -------------------------------------------------------------------------------------------------------
    wrong(
        "looking-without-hold",
        "sysctl_kern_proc",
        "A process is not held while its row is filled in.",
        look_holds=constant(0),
    ),
    wrong(
        "looking-holds-twice",
        "sysctl_kern_proc",
        "A process is held twice while its row is filled in.",
        look_holds=constant(2),
    ),
    wrong(
        "vforked-child-unheld",
        "kern_fork.c: fork1",
        "A parent that waits for its vforked child does not hold it.",
        vfork_holds=constant(0),
    ),
    wrong(
        "zombie-unheld",
        "kern_exit.c: exit1",
        "The last thread of a zombie has let go of it.",
        dead_thread_holds=constant(0),
    ),
    wrong(
        "held-zombies",
        "proc_move_allproc_zombie",
        "A process that is held becomes a zombie at once.",
        exit_waits_for_holders=constant(False),
    ),
    # ---- terminals ---------------------------------------------------------------------------------------------------
    wrong(
        "terminals-shared-by-sessions",
        "tty.c: ttioctl",
        "A session gains a terminal that another has.",
        gaining_terminal_refused=lambda _self, proc, _terminal: None if proc.is_session_leader else "EPERM",
    ),
    wrong(
        "members-gain-terminals",
        "tty.c: ttioctl",
        "Any process of a session may make a terminal its controlling one.",
        gaining_terminal_refused=lambda self, proc, terminal: (
            "EPERM"
            if proc.session.leader is not None and Rules.gaining_terminal_refused(self, proc.session.leader, terminal)
            else None
        ),
    ),
    wrong(
        "leaders-give-up",
        "tty_tty.c: cttyioctl",
        "A leader can give the terminal up.",
        giving_terminal_up_refused=constant(None),
    ),
    wrong(
        "background-changes-the-foreground",
        "tty.c: ttioctl",
        "Who is in the background is not stopped when it changes the terminal.",
        waits_in_background=constant(False),
    ),
    wrong(
        "shells-are-stopped",
        "tty.c: ttioctl",
        "It is stopped though it ignores or blocks SIGTTOU.",
        waits_in_background=lambda self, proc, _caller, terminal: (
            self.isctty(proc, terminal) and proc.group is not terminal.group
        ),
    ),
    wrong(
        "orphans-wait-in-the-background",
        "tty.c: ttioctl",
        "Who is in an orphaned group changes the terminal from the background, or is signalled.",
        background_refused=constant(None),
    ),
    wrong(
        "orphans-read-in-the-background",
        "tty.c: ttread",
        "Who is in an orphaned group, or does not hear SIGTTIN, waits for it.",
        background_read_refused=constant(None),
    ),
    wrong(
        "background-signals-taken",
        "tty.c: ttioctl",
        "Who is stopped in the background has no other such signal pending.",
        lambda traits: not traits.stops_later,
        background_signal_stays=constant(False),
    ),
    wrong(
        "any-group-to-the-foreground",
        "tty.c: ttioctl",
        "A group of another session may be brought to the foreground.",
        foreground_refused=lambda self, proc, pgid, group: (
            None if group is not None else Rules.foreground_refused(self, proc, pgid, group)
        ),
    ),
    wrong(
        "foreground-is-not-held",
        "tty.c: ttioctl",
        "A group in the foreground ends with its last member.",
        terminal_holds_group=constant(False),
    ),
    wrong(
        "keys-for-the-whole-group",
        "kern_sig.c: pgsignal",
        "What comes from a terminal reaches members of the foreground group that do not have it.",
        terminal_signals=constant(True),
    ),
    wrong(
        "leaders-leave-quietly",
        "kern_exit.c: exit1",
        "The foreground group does not hear of the leader's end.",
        leader_exit_hangs_up=constant(False),
    ),
    wrong(
        "terminals-outlive-their-leader",
        "kern_exit.c: exit1",
        "What is open of a terminal stays open when the leader has exited.",
        leader_exit_revokes=constant(False),
    ),
    wrong(
        "daemons-keep-their-terminal",
        "enterpgrp",
        "Who begins a session keeps P_CONTROLT.",
        setsid_leaves_terminal=constant(False),
    ),
    wrong(
        "terminals-outlive-their-session",
        "sess_rele",
        "The end of a session does not give its terminal back.",
        session_frees_terminal=constant(False),
    ),
    wrong(
        "children-without-terminal",
        "kern_fork.c: fork1",
        "A child has no controlling terminal.",
        fork_keeps_terminal=constant(False),
    ),
    wrong(
        "any-terminal-is-ones-own",
        "tty.c: isctty",
        "Who has a terminal open may ask it about its session.",
        isctty=lambda _self, _proc, terminal: terminal.session is not None,
    ),
    wrong(
        "terminals-for-everybody",
        "tty_pty.c: ptsopen",
        "Any user may open a terminal of root's.",
        terminal_open_refused=constant(None),
    ),
    wrong(
        "terminals-hidden",
        "kern_kinfo.c: fill_kinfo_proc",
        "Only the leader's row names the terminal.",
        terminal_shown=lambda self, proc: Rules.terminal_shown(self, proc) if proc.is_session_leader else None,
    ),
    wrong(
        "foreground-is-the-own-group",
        "kern_kinfo.c: fill_kinfo_proc",
        "kp_tpgid is the session's id.",
        tpgid_shown=lambda _self, terminal: terminal.session.sid if terminal.session is not None else -1,
    ),
    wrong(
        "lost-terminals-keep-their-session",
        "kern_kinfo.c: fill_kinfo_proc",
        "kp_tsid is 0 where the terminal is no session's.",
        tsid_shown=lambda _self, terminal: terminal.session.sid if terminal.session is not None else 0,
    ),
    wrong(
        "lost-terminals-count",
        "kern_kinfo.c: fill_kinfo_proc",
        "KI_CTTY is shown when the terminal has been lost, too.",
        ctty_shown=lambda _self, session: session.terminal is not None,
    ),
    wrong(
        "terminal-of-the-whole-session",
        "sysctl_kern_proc",
        "kern.proc.tty lists all processes of the session that has the terminal.",
        matches_tty=lambda _self, proc, number: (
            proc.pgrp is not None and proc.session.terminal is not None and proc.session.terminal.number == number
        ),
    ),
    wrong(
        "pages-of-the-first-thread",
        "lwp_usermap",
        "A thread's page has the id of its process's first.",
        lambda traits: traits.titles_in_page,
        page_tid=lambda _self, lwp: lwp.proc.lwp.tid,
    ),
    wrong(
        "nothing-held-back",
        "sys/signal2.h: __cursig",
        "A thread hears of signals whatever its page says.",
        lambda traits: traits.titles_in_page,
        held_back=lambda _self, _lwp, waiting: waiting,
    ),
    wrong(
        "sigkill-held-back",
        "sys/signal2.h: __cursig",
        "A thread can hold SIGKILL back, too.",
        lambda traits: traits.titles_in_page,
        held_back=lambda self, lwp, waiting: (
            set() if lwp.held_back & 0x7FFFFFFF else Rules.held_back(self, lwp, waiting)
        ),
    ),
    wrong(
        "children-hold-nothing-back",
        "kern_fork.c: lwp_fork2",
        "A child begins with a page that holds nothing back.",
        lambda traits: traits.titles_in_page,
        held_back_by_child=constant(0),
    ),
    # ---- threads -----------------------------------------------------------------------------------------------------
    wrong(
        "threads-unlisted",
        "sysctl_out_proc",
        "With KERN_PROC_FLAG_LWP, too, a process has one row.",
        listed_threads=lambda _self, proc: proc.lwps[:1],
    ),
    wrong(
        "threads-uncounted",
        "kern_kinfo.c: fill_kinfo_proc",
        "A process counts as having one thread.",
        nthreads_shown=lambda _self, proc: min(proc.threads, 1),
    ),
    wrong(
        "zombies-keep-their-threads",
        "kern_kinfo.c: fill_kinfo_proc",
        "The thread that ended a process still counts.",
        nthreads_shown=lambda _self, proc: len(proc.lwps),
    ),
    wrong(
        "row-of-the-other-end",
        "sysctl_out_proc",
        "The row of a process has the mask of its last thread; where it is a sum, of its first.",
        thread_shown=lambda self, proc: proc.lwps[0] if self.traits.sums_up_threads else proc.lwps[-1],
    ),
    wrong(
        "thread-ids-begin-with-five",
        "kern_fork.c: fork1",
        "The first thread of a process has id 5.",
        first_tid=constant(5),
    ),
    wrong(
        "thread-id-of-a-child-forgotten",
        "kern_fork.c: lwp_fork",
        "A child's thread has the first id, whoever has called.",
        lambda traits: traits.tids_are_inherited,
        first_tid_of_child=lambda self, _caller, **_: self.first_tid(),
    ),
    wrong(
        "thread-ids-used-at-once",
        "kern_fork.c: lwp_fork",
        "A new thread has the lowest free id, be it one that was in use; where that is right, one never used.",
        new_tid=lambda self, proc, _creator: (
            proc.last_tid + 1
            if self.traits.tids_are_inherited
            else next(tid for tid in range(1 << 20) if tid not in {lwp.tid for lwp in proc.lwps})
        ),
    ),
    wrong(
        "thread-id-after-exec",
        "kern_exec.c: exec_new_vmspace",
        "A program begins with a thread of a number of its own.",
        tid_after_exec=lambda _self, lwp: lwp.proc.last_tid + 1,
    ),
    wrong(
        "thread-ids-after-exec",
        "kern_exec.c: exec_new_vmspace",
        "The ids of a program's threads begin anew.",
        lambda traits: not traits.tids_are_inherited,
        last_tid_after_exec=lambda self, _proc: self.first_tid(),
    ),
    wrong(
        "core-files-everywhere",
        "kern_sig.c: coredump",
        "Whoever dies of a signal that leaves a core file has left one.",
        core_is_written=constant(True),
    ),
    wrong(
        "threads-block-nothing",
        "kern_fork.c: lwp_fork",
        "A new thread blocks no signals.",
        mask_of_thread=constant(frozenset()),
    ),
    wrong(
        "threads-outlive-their-program",
        "kern_exec.c: kern_execve",
        "Running another program leaves the other threads as they are.",
        exec_ends_threads=constant(False),
    ),
    wrong(
        "last-thread-alone",
        "kern_exit.c: sys_extexit",
        "The end of any thread is the end of its process.",
        thread_ends_alone=constant(False),
    ),
    wrong(
        "threads-by-any-id",
        "lwpfind",
        "An id that is no thread's is the first one's.",
        lwpfind=lambda self, proc, tid: Rules.lwpfind(self, proc, tid) or proc.lwps[0],
    ),
    wrong(
        "groups-of-threads-signalled",
        "kern_sig.c: sys_lwp_kill",
        "Groups, and threads that cannot be, are merely not found.",
        lwp_kill_refused=lambda _self, pid, tid: "ESRCH" if tid == -1 or (pid <= 0 and pid != -1) else None,
    ),
    wrong(
        "signals-to-the-first-thread",
        "kern_sig.c: find_lwp_for_signal",
        "A signal for a process is its first thread's, though that blocks it and another does not.",
        thread_for_signal=lambda _self, _k, proc, signal: (
            proc.lwps[0] if signal not in proc.lwps[0].mask and proc.lwps[0].waits_for_vfork is None else None
        ),
    ),
    wrong(
        "signals-to-the-last-thread",
        "kern_sig.c: find_lwp_for_signal",
        "Of the threads that do not block a signal, the one with the highest number hears it.",
        thread_for_signal=lambda _self, _k, proc, signal: next(
            (lwp for lwp in reversed(proc.lwps) if signal not in lwp.mask and lwp.waits_for_vfork is None), None
        ),
    ),
    # ---- signals -----------------------------------------------------------------------------------------------------
    wrong(
        "zombies-not-signalled",
        "kern_sig.c: kern_kill",
        "A signal to a zombie fails with ESRCH.",
        kill_zombie=constant("ESRCH"),
    ),
    wrong(
        "broadcast-reaches-sender",
        "kern_sig.c: dokillpg",
        "kill(-1) reaches its sender, too.",
        broadcast_reaches=lambda self, sender, target: (
            target is sender or Rules.broadcast_reaches(self, sender, target)
        ),
    ),
    wrong(
        "continue-stays-pending",
        "kern_sig.c: lwpsignal",
        "A stop signal leaves a pending SIGCONT where it is.",
        stop_discards=constant(frozenset()),
    ),
    wrong(
        "stops-stay-pending",
        "kern_sig.c: lwpsignal",
        "SIGCONT leaves pending stop signals where they are.",
        continue_discards=constant(frozenset()),
    ),
    wrong(
        "handlers-block-too-little",
        "kern_sig.c: postsig",
        "The mask of a disposition is not blocked while the handler runs.",
        handler_mask=lambda self, signal, _mask, flags: Rules.handler_mask(self, signal, frozenset(), flags),
    ),
    wrong(
        "half-a-title",
        "sysctl_kern_proc_args",
        "Of a title 512 bytes are kept.",
        lambda traits: traits.titles_in_page,
        title_room=constant(512),
    ),
    wrong(
        "stamps-of-seven-bits",
        "proc_makepid",
        "What was given back two minutes ago counts as given back just now.",
        age=lambda _self, now, stamp: (now - stamp) & 0x7F,
    ),
)

VARIANTS: Mapping[str, Variant] = MappingProxyType({variant.name: variant for variant in _ALL})

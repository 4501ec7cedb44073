# SPDX-License-Identifier: BSD-2-Clause
"""The promises that can be broken one at a time.

Each member is one promise of the kernel, as a number or as a predicate, named after what it decides and documented with
the C function that keeps it.  `Rules` is the specification; a wrong oracle (variants.py) overrides one member.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.oracle import syscaps
from harness.oracle.eras import DEFAULT_ERA, Era
from harness.oracle.model import Credentials, Ids, Lwp, Pgrp, Proc, Session, SigActs, Terminal
from harness.oracle.signals_table import CANNOT_MASK, SIGCHLD, SIGTTIN, SIGTTOU, Prop
from harness.processes.abi import DRAGONFLY
from harness.processes.kinfo import ProcFlag, ProcStat
from harness.processes.vocabulary import Resource, SigFlag, WaitOption

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

HASH_SIZE = 256  # ALLPROC_HSIZE
PARGS_HEADER = 8  # bytes of struct pargs in front of the arguments

WNOHANG, WUNTRACED, WCONTINUED, WNOWAIT, WEXITED, WTRAPPED, WLINUXCLONE = (
    DRAGONFLY.wait_options[option]
    for option in (
        WaitOption.WNOHANG,
        WaitOption.WUNTRACED,
        WaitOption.WCONTINUED,
        WaitOption.WNOWAIT,
        WaitOption.WEXITED,
        WaitOption.WTRAPPED,
        WaitOption.WLINUXCLONE,
    )
)
CLD_EXITED, CLD_KILLED, CLD_TRAPPED, CLD_STOPPED, CLD_CONTINUED = 1, 2, 4, 5, 6  # sys/_siginfo.h

RLIMIT_NPROC = DRAGONFLY.resources[Resource.RLIMIT_NPROC]
RLIMIT_CORE = DRAGONFLY.resources[Resource.RLIMIT_CORE]


class Rules:
    """What DragonFly does in an era."""

    def __init__(self, era: Era = DEFAULT_ERA) -> None:
        self.era = era
        self.traits = era.traits

    # ---- kern_proc.c: proc_add_allproc(), proc_makepid(), procinit() ----

    #: Exclusive upper bound of process ids (sys/proc.h).
    PID_MAX = 999_999
    #: After a wrap, ids below this one are left to the system.
    FIRST_REUSED_PID = 100
    #: PIDDOM_DELAY: seconds during which a reaped id stays out of use, the last one included.
    REUSE_DELAY = 10
    #: Distance to the next candidate when the chosen id is taken: it keeps the hash chain.
    COLLISION_STRIDE = HASH_SIZE
    #: nextpid advances by one per candidate.
    STEP = 1

    @property
    def pid_domains(self) -> int:
        """PIDSEL_DOMAINS: how many ids have a stamp of their own."""
        return self.PID_MAX // HASH_SIZE * HASH_SIZE

    def initial_stamp(self, index: int) -> int:
        """procinit(): stamps differ, so that not all of the first ids are held back at the same time."""
        return (index - (self.REUSE_DELAY + 1)) & 0xFF

    def age(self, now: int, stamp: int) -> int:
        """Seconds since STAMP in 8-bit signed arithmetic: after 256 s it begins anew."""
        return ((now - stamp + 128) & 0xFF) - 128

    def is_recent(self, age: int) -> bool:
        """Whether an id of this age must not be handed out yet."""
        return 0 <= age <= self.REUSE_DELAY

    def first_pid_with_delay(self) -> int:
        """Below it, ids are handed out in order whatever their stamp: init must be 1."""
        return 100

    def random_offset(self, modulus: int, random_bits: int) -> int:
        """proc_add_allproc(): kern.randompid mixes something below the modulus into each candidate."""
        return random_bits % modulus if modulus else 0

    def live_pid_is_taken(self) -> bool:
        """The id of a process is not handed out again."""
        return True

    def zombie_pid_is_taken(self) -> bool:
        """Neither is the id of a process that has exited but was not reaped."""
        return True

    def pgid_is_taken(self) -> bool:
        """Neither is the id of a process group that still has a member."""
        return True

    def sid_is_taken(self) -> bool:
        """Neither is the id of a session that still has a process group."""
        return True

    def counts_domain_skips(self) -> bool:
        """kern.pid_domain_skips counts candidates held back for their stamp."""
        return True

    def counts_inner_skips(self) -> bool:
        """kern.pid_inner_skips counts candidates that were taken."""
        return True

    # ---- kern_proc.c: proc_remove_zombie(), pgrel(), sess_rele() ----

    def reap_stamps_pid(self) -> bool:
        """proc_remove_zombie(): reaping starts the delay of the pid."""
        return True

    def exit_stamps_pid(self) -> bool:
        """proc_move_allproc_zombie(): exiting alone starts nothing."""
        return False

    def release_stamps_pgid(self) -> bool:
        """pgrel(): the end of a process group starts the delay of its id."""
        return True

    def release_stamps_sid(self) -> bool:
        """sess_rele(): the end of a session starts the delay of its id."""
        return True

    # ---- kern_proc.c: sysctl_kern_randompid() ----

    def clamp_randompid(self, value: int) -> int:
        """A modulus is 0 (off) or between 100 and PID_MAX - 100; what is out of range becomes the largest."""
        if value < 0 or value > self.PID_MAX - 100:
            return self.PID_MAX - 100
        if value < 2:
            return 0
        return max(value, 100)

    def may_write_sysctl(self, cred: Credentials) -> bool:
        """Only root changes system variables (kern_sysctl.c: sysctl_root())."""
        return self.may(cred, syscaps.NO_SYSCTL_WRITE)

    # ---- kern_proc.c: inferior(), pfind(), zpfind(), pgfind() ----

    def inferior(self, k: Kernel, proc: Proc, of: Proc) -> bool:
        """Whether PROC is OF or descends from it, through any number of generations."""
        at: Proc | None = proc
        while at is not None and at.pid != 0:
            if at is of:
                return True
            at = at.parent
        return False

    def pfind(self, k: Kernel, pid: int) -> Proc | None:
        """Find a process by pid; zombies are not found."""
        proc = k.procs.get(pid)
        return None if proc is None or proc.is_zombie else proc

    def zpfind(self, k: Kernel, pid: int) -> Proc | None:
        """Find a zombie by pid."""
        proc = k.procs.get(pid)
        return proc if proc is not None and proc.is_zombie else None

    def pgfind(self, k: Kernel, pgid: int) -> Pgrp | None:
        """Find a process group by id, whatever session it is in."""
        return k.groups.get(pgid)

    # ---- kern_proc.c: enterpgrp(), leavepgrp(), pgrel(), sess_hold(), sess_rele() ----

    def new_session_login(self, old: Session) -> str:
        """enterpgrp(): a new session begins with the login name of the old one."""
        return old.login

    def new_session_leader(self, proc: Proc) -> Proc | None:
        """enterpgrp(): who calls setsid() leads the new session."""
        return proc

    def leaves_old_group(self) -> bool:
        """enterpgrp(): a process is in one group at a time."""
        return True

    def entering_counts(self) -> bool:
        """enterpgrp(): entering a group is accounted for by fixjobc()."""
        return True

    def leaving_counts(self) -> bool:
        """enterpgrp(): so is leaving one."""
        return True

    def entering_counts_first(self) -> bool:
        """enterpgrp(): counts go up before they go down, lest one reach 0 on the way."""
        return True

    def exit_counts(self) -> bool:
        """kern_exit.c, exit1(): so is exiting."""
        return True

    def group_ends_with(self, group: Pgrp, leaving: Proc | None) -> bool:
        """pgrel(): a process group ends when its last member leaves it, not before."""
        return group.references == 0

    def group_is_left_at_exit(self) -> bool:
        """leavepgrp() is called by the reaper: a zombie is still a member."""
        return False

    def group_holds_session(self) -> bool:
        """enterpgrp(): each process group of a session holds it (sess_hold())."""
        return True

    def session_ends_with(self, session: Session) -> bool:
        """sess_rele(): a session ends when its last process group has."""
        return session.references == 0

    def leader_exit_unleads(self) -> bool:
        """kern_exit.c, exit1(): a session whose leader has exited has none."""
        return True

    # ---- tty.c, tty_tty.c, tty_pty.c, and who has a terminal ----

    def terminal_open_refused(self, cred: Credentials, terminal: Terminal) -> str | None:
        """ptsopen(): the error for users who do not own it, and for who is in a jail while it is open."""
        if cred.uid != 0:
            return "EACCES"
        return "EBUSY" if terminal.is_open and cred.prison else None

    def isctty(self, proc: Proc, terminal: Terminal) -> bool:
        """isctty(): whether it is the terminal of the session, and the process has not given it up."""
        return terminal.session is proc.session and bool(proc.flags & ProcFlag.P_CONTROLT)

    def gaining_terminal_refused(self, proc: Proc, terminal: Terminal) -> str | None:
        """TIOCSCTTY: the error for who leads no session, has a terminal already, or asks for another session's."""
        session = proc.session
        taken = session.has_terminal or terminal.session is not None
        return "EPERM" if not proc.is_session_leader or (taken and terminal.session is not session) else None

    def giving_terminal_up_refused(self, proc: Proc) -> str | None:
        """TIOCNOTTY: the error for a session's leader."""
        return "EINVAL" if proc.is_session_leader else None

    def waits_in_background(self, proc: Proc, caller: Lwp, terminal: Terminal) -> bool:
        """ttioctl(): who changes a terminal from the background gets SIGTTOU, unless it is ignored or blocked."""
        return (
            self.isctty(proc, terminal)
            and proc.group is not terminal.group
            and not proc.flags & ProcFlag.P_PPWAIT
            and SIGTTOU not in proc.sigacts.ignored
            and SIGTTOU not in caller.mask
        )

    def background_read_refused(self, proc: Proc, caller: Lwp) -> str | None:
        """ttread(): the error for who reads in the background and does not hear SIGTTIN, or is of an orphaned group."""
        deaf = SIGTTIN in proc.sigacts.ignored or SIGTTIN in caller.mask or bool(proc.flags & ProcFlag.P_PPWAIT)
        return "EIO" if deaf or proc.group.jobc == 0 else None

    def background_refused(self, group: Pgrp) -> str | None:
        """ttioctl(): the error in an orphaned group, which nobody would continue."""
        return "EIO" if group.jobc == 0 else None

    def background_signal_stays(self) -> bool:
        """ttioctl(), ttread(): whoever was stopped tries again every second; until 2019 the signal is pending then."""
        return not self.traits.stops_later

    def foreground_refused(self, proc: Proc, pgid: int, group: Pgrp | None) -> str | None:
        """TIOCSPGRP: the error for numbers that can be no group, and for groups that are not of the session."""
        if not 0 < pgid <= self.PID_MAX:
            return "EINVAL"
        return "EPERM" if group is None or group.session is not proc.session else None

    def terminal_holds_group(self) -> bool:
        """TIOCSPGRP: a group in the foreground stays in existence, without members too."""
        return True

    def terminal_signals(self, member: Proc) -> bool:
        """pgsignal(): of a group, those who have the terminal hear what comes from it."""
        return bool(member.flags & ProcFlag.P_CONTROLT)

    def leader_exit_hangs_up(self) -> bool:
        """exit1(): the end of a session's leader is a SIGHUP for the foreground group."""
        return True

    def leader_exit_revokes(self) -> bool:
        """exit1(): nobody has a terminal open any more when the leader of its session has exited."""
        return True

    def setsid_leaves_terminal(self) -> bool:
        """enterpgrp(): who begins a session has no terminal."""
        return True

    def session_frees_terminal(self) -> bool:
        """sess_rele(): with the last group of a session its terminal is nobody's."""
        return True

    def fork_keeps_terminal(self, parent: Proc) -> bool:
        """fork1(): a child has the terminal of its parent, as long as the session has it."""
        return parent.pgrp is not None and parent.session.has_terminal and bool(parent.flags & ProcFlag.P_CONTROLT)

    def terminal_shown(self, proc: Proc) -> Terminal | None:
        """fill_kinfo_proc(): the terminal the session has, or had, of those who have not given it up."""
        return proc.session.terminal if proc.pgrp is not None and proc.flags & ProcFlag.P_CONTROLT else None

    def tpgid_shown(self, terminal: Terminal) -> int:
        """fill_kinfo_proc(): kp_tpgid is the group in the foreground, -1 for none."""
        return terminal.group.pgid if terminal.group is not None else -1

    def tsid_shown(self, terminal: Terminal) -> int:
        """fill_kinfo_proc(): kp_tsid is the session whose terminal it is now, -1 for none."""
        return terminal.session.sid if terminal.session is not None else -1

    def ctty_shown(self, session: Session) -> bool:
        """fill_kinfo_proc(): KI_CTTY, whether the session has a terminal still."""
        return session.has_terminal

    def matches_tty(self, proc: Proc, number: int) -> bool:
        """sysctl_kern_proc(): kern.proc.tty lists those whose row shows that terminal, zombies too."""
        terminal = self.terminal_shown(proc)
        return terminal is not None and terminal.number == number

    # ---- kern_proc.c: fixjobc(), orphanpg() ----

    def qualifies(self, group: Pgrp, parent: Pgrp, session: Session) -> bool:
        """A member counts for job control if its parent is in another group of the same session."""
        return parent is not group and parent.session is session

    def adjusts_children(self) -> bool:
        """fixjobc() looks at the children of the process, too."""
        return True

    def adjusts_for_child(self, child: Proc) -> bool:
        """Children that are zombies no longer count."""
        return not child.is_zombie

    def orphan_signals(self, group: Pgrp) -> tuple[str, ...]:
        """orphanpg(): what every member of a group gets that has just become orphaned."""
        if any(member.stat is ProcStat.SSTOP for member in group.members):
            return ("SIGHUP", "SIGCONT")
        return ()

    def orphan_receives(self, member: Proc) -> bool:
        """orphanpg(): every member gets them, stopped or not."""
        return True

    # ---- kern_proc.c: sysctl_kern_proc() ----

    def lists_in_all(self, proc: Proc) -> bool:
        """Zombies are listed."""
        return True

    def matches_pgrp(self, proc: Proc, pgid: int) -> bool:
        """kern.proc.pgrp: members of the group, zombies included."""
        return proc.pgrp is not None and proc.pgrp.pgid == pgid

    def matches_uid(self, proc: Proc, uid: int) -> bool:
        """kern.proc.uid is about the effective user id."""
        return proc.cred.uid == uid

    def matches_ruid(self, proc: Proc, uid: int) -> bool:
        """kern.proc.ruid is about the real user id."""
        return proc.cred.ruid == uid

    def shows(self, k: Kernel, viewer: Credentials, proc: Proc) -> bool:
        """security.ps_showallprocs=0 hides what one may not touch."""
        return bool(k.variables["security.ps_showallprocs"]) or not self.trespasses(viewer, proc.cred)

    def shows_by_pid(self, k: Kernel, viewer: Credentials, proc: Proc) -> bool:
        """kern.proc.pid does not ask security.ps_showallprocs."""
        return True

    def shows_kernel_threads(self, k: Kernel, viewer: Credentials, query: str, asked: bool) -> bool:
        """Kernel threads are in kern.proc.all only, unless security.ps_showallthreads is 0; since 2022 on request.

        They are not for those in jails.
        """
        wanted = asked or not self.traits.lwkt_flag
        shown = bool(k.variables["security.ps_showallthreads"]) and not viewer.prison
        return wanted and query == "all" and shown

    def accepts_arguments(self, kind: str, count: int) -> bool:
        """sysctl_kern_proc*(): how many components follow the node; any other number is EINVAL."""
        if kind == "args" and self.traits.titles_in_page:
            return count in (1, 2)
        return count == (0 if kind == "all" else 1)

    def sizes_strings(self) -> bool:
        """sysctl_kern_proc_args(), sysctl_kern_proc_cwd(): whether a size query is answered."""
        return self.traits.sizes_strings

    def listed_threads(self, proc: Proc) -> list[Lwp]:
        """sysctl_out_proc(): with KERN_PROC_FLAG_LWP a row for each thread, by id; of a zombie for its last one."""
        return list(proc.lwps)

    def thread_shown(self, proc: Proc) -> Lwp:
        """sysctl_out_proc(): whose mask and signals a process's row has: its first thread's, in a sum its last's."""
        return proc.lwps[-1] if self.traits.sums_up_threads else proc.lwps[0]

    def row_tid(self, shown: Lwp) -> int:
        """sysctl_out_proc(): the thread id in the row of a process: that of its first, later that of a sum."""
        return -1 if self.traits.sums_up_threads else self.tid_shown(shown)

    def tid_shown(self, thread: Lwp) -> int:
        """fill_kinfo_lwp(): the id of a thread; of none where the last one of a zombie has been put away."""
        return 0 if thread.proc.thread_gone else thread.tid

    def nthreads_shown(self, proc: Proc) -> int:
        """fill_kinfo_proc(): kp_nthreads counts the threads that have not ended; a zombie has none."""
        return proc.threads

    # ---- kern_fork.c, kern_exit.c, kern_exec.c: threads ----

    def first_tid(self) -> int:
        """fork1(): the id of the first thread of a process."""
        return self.traits.first_tid

    def first_tid_of_child(self, caller: Lwp, *, vfork: bool) -> int:
        """lwp_fork(): a vforked child's thread, since 2019 any child's, has the id of the one that called."""
        return caller.tid if vfork or self.traits.tids_are_inherited else self.first_tid()

    def new_tid(self, proc: Proc, creator: Lwp) -> int:
        """lwp_fork(): ids go up, and are not used again; since 2019 the first free one above the creator's is taken."""
        if not self.traits.tids_are_inherited:
            return proc.last_tid + 1
        taken = {lwp.tid for lwp in proc.lwps}
        return next(tid for tid in range(creator.tid, 1 << 20) if tid not in taken)

    def tid_after_exec(self, lwp: Lwp) -> int:
        """kern_execve(): the thread that is left keeps its id; since 2019 it is the first one."""
        return self.first_tid() if self.traits.tids_are_inherited else lwp.tid

    def last_tid_after_exec(self, proc: Proc) -> int:
        """kern_execve(): the ids of a new program's threads go on from those before; since 2019 they begin anew."""
        return self.first_tid() if self.traits.tids_are_inherited else proc.last_tid

    def mask_of_thread(self, creator: Lwp) -> frozenset[int]:
        """lwp_fork(): a new thread blocks what its creator does."""
        return creator.mask

    def thread_ends_alone(self, lwp: Lwp) -> bool:
        """sys_extexit(): the end of a thread is that of its process only if it is the last one."""
        return len(lwp.proc.lwps) > 1

    def exec_ends_threads(self) -> bool:
        """kern_execve(): all threads but the one that calls it end."""
        return True

    def pending_at_birth(self, creator: Lwp) -> set[int]:
        """lwp_fork(): a child's thread, or a new one, has the signals that are pending for its creator alone."""
        return set(creator.notified)

    def lwp_kill_refused(self, pid: int, tid: int) -> str | None:
        """sys_lwp_kill(): the error for groups, for all, and for -1, which is no thread; pid -1 is the caller."""
        return "EINVAL" if tid == -1 or (pid <= 0 and pid != -1) else None

    def lwpfind(self, proc: Proc, tid: int | None) -> Lwp | None:
        """lwpfind(): the thread of a process by its id."""
        return next((lwp for lwp in proc.lwps if lwp.tid == tid), None)

    def size_slop(self) -> int:
        """sysctl_kern_proc(): a size query of a table adds room for processes born meanwhile."""
        return 5

    def shows_args(self, k: Kernel, viewer: Credentials, proc: Proc) -> bool:
        """kern.ps_argsopen=0 hides arguments and directory of what one may not touch."""
        return bool(k.variables["kern.ps_argsopen"]) or not self.trespasses(viewer, proc.cred)

    def keeps_title(self, k: Kernel, title: bytes) -> bool:
        """sysctl_kern_proc_args(): a title that does not fit the limit is dropped without a word."""
        return len(title) + PARGS_HEADER <= k.variables["kern.ps_arg_cache_limit"]

    def title_room(self) -> int:
        """sysctl_kern_proc_args(): how many bytes of a title are kept where it has a page of its own."""
        return 1023

    def title_is_inherited(self) -> bool:
        """fork1(): a title kept in a page of its own is not."""
        return False

    def exec_ends_title(self) -> bool:
        """exec_new_vmspace(): the page is gone with the memory, and the title with it."""
        return True

    def cwd_shown(self, viewer: Proc, proc: Proc) -> str:
        """sysctl_kern_proc_cwd(): the directory of the process asked about."""
        return proc.cwd

    def pathname_self(self) -> int:
        """sysctl_kern_proc_pathname(): the pid that stands for the caller."""
        return -1

    def may_set_args(self, viewer: Proc, proc: Proc) -> bool:
        """sysctl_kern_proc_args(): nobody, not even root, sets the title of another process."""
        return viewer is proc

    def pathname_of_nobody(self) -> str | None:
        """sysctl_kern_proc_pathname(): the error for a pid that is not found."""
        return "ESRCH"

    def pathname_of_no_program(self) -> str | None:
        """sysctl_kern_proc_pathname(): the error for the swapper, which runs no program."""
        return self.traits.pathname_of_no_program

    def look_holds(self) -> int:
        """sysctl_kern_proc(): whoever fills in a row holds the process meanwhile (kp_lock)."""
        return 1

    def vfork_holds(self) -> int:
        """fork1(): a parent that waits for its vforked child holds it."""
        return 1

    def dead_thread_holds(self) -> int:
        """exit1(), kern_wait(): the last thread of a zombie holds it until it is put away."""
        return 1

    def jobc_shown(self, group: Pgrp) -> int:
        """fill_kinfo_proc(): kp_jobc is the group's count."""
        return group.jobc

    def exitstat_shown(self, proc: Proc) -> int:
        """fill_kinfo_proc(): kp_exitstat is p_xstat."""
        return proc.xstat

    # ---- kern_prot.c ----

    def is_privileged(self, cred: Credentials) -> bool:
        """priv_check_cred(): effective user id 0."""
        return cred.uid == 0

    def may(self, cred: Credentials, cap: int) -> bool:
        """caps_priv_check(): what root may do unless it is restricted; before 2023 nobody is."""
        return self.is_privileged(cred) and not self.is_restricted(cred, cap)

    def is_restricted(self, cred: Credentials, cap: int) -> bool:
        """caps_priv_check(): a restriction, or that of its whole group, binds the process itself."""
        return syscaps.restricts(cred, cap)

    def syscaps_shown(self, cred: Credentials) -> tuple[int, ...] | None:
        """fill_kinfo_proc(): kp_syscaps."""
        return syscaps.words(cred) if self.traits.syscap else None

    def caps_after_exec(self, cred: Credentials) -> Credentials:
        """caps_exec(): restrictions of programs to come bind this one; those of the caller alone are over."""
        return syscaps.after_exec(cred)

    def may_signal_init(self, cred: Credentials) -> bool:
        """kern_kill(): who may not reboot may not signal process 1; members of group wheel need not be root."""
        return not self.traits.syscap or (
            (self.is_privileged(cred) or cred.gid == 0) and not self.is_restricted(cred, syscaps.NO_REBOOT)
        )

    def trespasses(self, subject: Credentials, target: Credentials) -> bool:
        """p_trespass(): whether SUBJECT may not touch TARGET: none of the four pairs of ids match, and not root.

        Nor may who is in a jail touch who is not in it, or who is confined to a restricted root who is not.
        """
        if not self.same_prison(subject, target):
            return True
        if self.is_confined(subject) and not self.is_confined(target):
            return True
        mine, theirs = {subject.uid, subject.ruid}, {target.uid, target.ruid}
        return not (mine & theirs) and not self.is_privileged(subject)

    def same_prison(self, subject: Credentials, target: Credentials) -> bool:
        """PRISON_CHECK(): who is in a jail sees only those in the same one."""
        return not subject.prison or subject.prison == target.prison

    def may_trace_strangers(self, cred: Credentials) -> bool:
        """kern_ptrace(): root outside jails attaches to processes of other users."""
        return self.may(cred, syscaps.RESTRICTED_ROOT) and not cred.prison

    def is_confined(self, cred: Credentials) -> bool:
        """p_trespass(): SYSCAP_RESTRICTEDROOT binds the process."""
        return bool(syscaps.flags_of(cred, syscaps.RESTRICTED_ROOT) & syscaps.SELF)

    def setsid_refused(self, k: Kernel, proc: Proc) -> bool:
        """sys_setsid(): refused to group leaders, and while a group with the caller's pid exists."""
        return proc.group.pgid == proc.pid or self.pgfind(k, proc.pid) is not None

    def setpgid_negative(self) -> str | None:
        """sys_setpgid(): error for a negative group id."""
        return "EINVAL"

    def setpgid_stranger(self, caller: Proc, target: Proc) -> str | None:
        """sys_setpgid(): error for a descendant of another session."""
        return None if target.session is caller.session else "EPERM"

    def setpgid_after_exec(self, target: Proc) -> str | None:
        """sys_setpgid(): error for a descendant that has run another program."""
        return "EACCES" if target.flags & ProcFlag.P_EXEC else None

    def setpgid_leader(self, target: Proc) -> str | None:
        """sys_setpgid(): error for a session leader."""
        return "EPERM" if target.is_session_leader else None

    def setpgid_group(self, caller: Proc, group: Pgrp | None) -> str | None:
        """sys_setpgid(): error for a group that does not exist or is of another session."""
        return None if group is not None and group.session is caller.session else "EPERM"

    def getsid(self, proc: Proc) -> int:
        """sys_getsid(): the session's id, whoever asks."""
        return proc.session.sid

    def getpgid(self, proc: Proc) -> int:
        """sys_getpgid(): the group's id, whoever asks."""
        return proc.group.pgid

    def may_setlogin(self, cred: Credentials) -> bool:
        """sys_setlogin(): root only."""
        return self.may(cred, syscaps.NO_SETLOGIN)

    def login_size(self) -> int:
        """MAXLOGNAME, the final zero byte included."""
        return self.traits.login_size

    def setlogin_reaches(self, session: Session) -> Session:
        """sys_setlogin(): the name is the session's, not the process's."""
        return session

    def may_exec(self, cred: Credentials) -> bool:
        """sys_execve(): refused to who is restricted by SYSCAP_NOEXEC, root or not."""
        return not self.is_restricted(cred, syscaps.NO_EXEC)

    def exec_keeps_ignored(self, signal: int) -> bool:
        """kern_sig.c, execsigs(): an ignored signal stays ignored, but for SIGCHLD."""
        return signal != SIGCHLD

    def exec_marks(self) -> ProcFlag:
        """kern_exec.c, kern_execve(): from here on the parent may not move the process to another group."""
        return ProcFlag.P_EXEC

    def exec_saves_uid(self, cred: Credentials) -> Credentials:
        """kern_exec.c, kern_execve(): the saved user id becomes the effective one."""
        return replace(cred, svuid=cred.uid, svgid=cred.gid)

    def may_become(self, ids: Ids, id_: int) -> bool:
        """sys_setuid(), sys_setgid(): what one may become without privilege: what one is, really or effectively."""
        return id_ in (ids.real, ids.effective)

    def became(self, ids: Ids, id_: int) -> Ids:
        """sys_setuid(), sys_setgid(): all three ids are the new one, whoever calls."""
        return Ids(id_, id_, id_)

    def may_act_as(self, ids: Ids, id_: int) -> bool:
        """sys_seteuid(), sys_setegid(): the effective id becomes the real or the saved one without privilege."""
        return id_ in (ids.real, ids.saved)

    def may_be_really(self, ids: Ids, id_: int) -> bool:
        """sys_setreuid(), sys_setregid(): the real id becomes the saved one, but not the effective one."""
        return id_ in (ids.real, ids.saved)

    def may_be_effectively(self, ids: Ids, id_: int) -> bool:
        """sys_setreuid(), sys_setregid(): the effective id becomes any of the three without privilege."""
        return id_ in (ids.real, ids.effective, ids.saved)

    def saves_effective(self, new: Ids, sets_real: bool) -> bool:
        """sys_setreuid(), sys_setregid(): the saved id follows the effective one if the real one is set or another."""
        return sets_real or new.effective != new.real

    def may_exchange(self, ids: Ids, id_: int) -> bool:
        """sys_setresuid(), sys_setresgid(): each id becomes any of the three without privilege."""
        return id_ in (ids.real, ids.effective, ids.saved)

    # ---- kern_fork.c ----

    def fork_keeps_pgrp(self, k: Kernel, parent: Proc) -> Pgrp:
        """fork1(): a child begins in its parent's process group."""
        return parent.group

    def child_goes_to(self, children: list[Proc], child: Proc) -> int:
        """fork1(), proc_reparent(): position in the parent's list of children: the youngest comes first."""
        return 0

    def inherits_sigacts(self, sigacts: SigActs) -> SigActs:
        """fork1(): dispositions are inherited."""
        return sigacts

    def vfork_blocks(self) -> bool:
        """start_forked_proc(): the parent waits until a vforked child has exited or run a program."""
        return True

    def can_fork(self, k: Kernel, proc: Proc) -> bool:
        """fork1(): the last ten slots are root's; RLIMIT_NPROC binds everybody else, since 2017 root as well."""
        uid = proc.cred.ruid
        limit = k.variables["kern.maxproc"]
        if len(k.procs) >= limit or (uid != 0 and len(k.procs) >= limit - 10):
            return False
        if uid == 0 and not self.limits_root():
            return True
        return k.process_count(uid) + 1 <= self.process_limit(k, proc)

    def limits_root(self) -> bool:
        """fork1(): whether RLIMIT_NPROC binds root."""
        return self.traits.limits_root

    def process_limit(self, k: Kernel, proc: Proc) -> int:
        """plimit_getadjvalue(): RLIMIT_NPROC, a 320th of it less for each generation up to the 31st."""
        limit = min(proc.limit(RLIMIT_NPROC)[0], k.variables["kern.maxproc"])
        return limit - limit * proc.depth // 320 if self.traits.limits_root else limit

    def rfork_needs_process(self) -> bool:
        """fork1(): rfork() without RFPROC makes no process, and is no error."""
        return False

    # ---- kern_jail.c ----

    def may_make_jail(self, cred: Credentials) -> bool:
        """sys_jail(): root only, and not from inside another jail."""
        return not cred.prison and self.may(cred, syscaps.NO_JAIL_CREATE)

    def may_enter_jail(self, cred: Credentials) -> bool:
        """sys_jail_attach(): root only, and not from inside another jail."""
        return not cred.prison and self.may(cred, syscaps.NO_JAIL_ATTACH)

    def jail_exists(self, k: Kernel, number: int) -> bool:
        """prison_find(), prison_free(): a jail ends with the last process in it."""
        return number > 0 and any(proc.cred.prison == number for proc in k.procs.values())

    def jail_restricts(self, cred: Credentials) -> Credentials:
        """kern_jail_attach(): since 2023 whoever is in a jail is a restricted root."""
        return syscaps.jailed(cred) if self.traits.syscap else cred

    def jail_is_inherited(self, cred: Credentials) -> Credentials:
        """fork1(): a child has the credentials of its parent, the jail among them."""
        return cred

    # ---- kern_proc.c: proc_usermap(); kern_memio.c: user_kernel_mapping() ----

    def page_owner(self, proc: Proc) -> Proc:
        """user_kernel_mapping(): a vforked child sees its parent's page as long as that waits for it."""
        return proc.parent if proc.flags & ProcFlag.P_PPWAIT and proc.parent is not None else proc

    def page_pid(self, owner: Proc) -> int:
        """proc_usermap(): the pid of whom the page belongs to."""
        return owner.pid

    def page_forkid(self, owner: Proc) -> int:
        """proc_usermap(): a number no other process has or had."""
        return owner.birth

    def page_invfork(self, owner: Proc) -> int:
        """fork1(), exit1(), kern_execve(): how many vforked children see the page."""
        return sum(1 for child in owner.children if child.flags & ProcFlag.P_PPWAIT)

    def page_title_shown(self, title: bytes) -> bytes:
        """sysctl_kern_proc_args(): the title in the page, up to its first zero byte, goes before all others."""
        return title[: self.title_room()].partition(b"\0")[0]

    def page_tid(self, lwp: Lwp) -> int:
        """lwp_usermap(): the id of the thread whose page it is."""
        return lwp.tid

    def held_back(self, lwp: Lwp, waiting: set[int]) -> set[int]:
        """__cursig(): while its page says so a thread is told of nothing that can be blocked; the page tells of it."""
        heard = waiting & CANNOT_MASK
        if not lwp.held_back & 0x7FFFFFFF or heard == waiting:
            return waiting
        lwp.held_back |= 1 << 31
        return heard

    def held_back_by_child(self, caller: Lwp) -> int:
        """lwp_fork2(): a child holds signals back as often as the thread that forked, or made the thread."""
        return caller.held_back if caller.held_back & 0x7FFFFFFF else 0

    # ---- kern_proc.c: allproc_scan(); kern_resource.c ----

    def scan_visits(self, proc: Proc) -> bool:
        """allproc_scan(): every process, but no zombies."""
        return not proc.is_zombie

    def best_priority(self, values: list[int]) -> int:
        """sys_getpriority(): the lowest of several."""
        return min(values)

    def donice(self, caller: Proc, target: Proc, value: int) -> str | None:
        """donice(): EPERM for users neither of whose ids is TARGET's effective one, EACCES for lowering."""
        mine = (caller.cred.uid, caller.cred.ruid)
        if 0 not in mine and target.cred.uid not in mine:
            return "EPERM"
        if min(value, 20) < target.nice and not self.may(caller.cred, syscaps.NO_SCHED):
            return "EACCES"
        return None

    # ---- kern_fork.c: procctl() ----

    def procctl_id(self, proc: Proc, id_: int) -> bool:
        """sys_procctl(): whether an id means the caller, the only one it is for."""
        return id_ == proc.pid or (id_ == 0 and self.traits.ids_of_zero)

    def deathsig_allowed(self, signal: int) -> bool:
        """PROC_PDEATHSIG_CTL: a signal, or 0 for none.

        Kernels ignore what is out of range instead of refusing it, except for 128, of which they die: defects.
        """
        return 0 <= signal <= self.highest_signal()

    def deathsig_is_inherited(self) -> bool:
        """fork1(): a child has none."""
        return False

    def deathsig_sent(self, child: Proc) -> int:
        """exit1(): what a child gets when its parent dies."""
        return child.deathsig

    def reap_kill_reaches(self, reaper: Proc, target: Proc) -> bool:
        """reaper_kill(): the kernel asks whether the reaper may signal itself, not TARGET: a defect, kept here."""
        return True

    def reap_kill_enters(self, reaper: Proc, child: Proc) -> bool:
        """reaper_kill(): the children of a descendant are signalled, too, unless it is a reaper itself."""
        return child.reaper is reaper.reaper

    def reaper_head(self, proc: Proc) -> int:
        """PROC_REAP_STATUS: the youngest child, zombie or not, whether the caller is a reaper or not; -1 for none."""
        return proc.children[0].pid if proc.children else -1

    # ---- kern_fork.c: reapers ----

    def reaper_inherits(self, k: Kernel, dying: Proc, reaper: Proc) -> Proc:
        """exit1(): who gets the children of a process that exits: the nearest reaper, in the end init."""
        return reaper

    def reaper_is_inherited(self) -> bool:
        """fork1(): a child has the reaper of its parent, and so have its own children."""
        return True

    # ---- kern_exit.c: exit1(), kern_wait() ----

    def exit_status(self, status: int) -> int:
        """sys_exit(): the low byte of the argument is kept."""
        return (status & 0xFF) << 8

    def forgoes_zombies(self, parent: Proc) -> bool:
        """exit1(): a parent that ignores SIGCHLD, or set SA_NOCLDWAIT, is spared the zombie."""
        return parent.sigacts.no_child_wait or parent.sigacts.child_ignored

    def exit_lets_others_run(self) -> bool:
        """exit1(): whether others act on their signals while files are closed and memory is given back."""
        return False

    def exit_waits_for_holders(self) -> bool:
        """proc_move_allproc_zombie(), pstall(): who is held becomes no zombie before all have let go."""
        return True

    def vfork_exit_lets_others_run(self) -> bool:
        """exit1(): whether others act on their signals while a vforked child waits for its parent to let go of it."""
        return self.traits.vfork_exit_yields

    def exit_signals_parent(self) -> bool:
        """exit1(): the (possibly new) parent gets SIGCHLD."""
        return True

    def zombie_keeps_status(self, xstat: int) -> int:
        """kern_wait(): the status is the one the child exited with."""
        return xstat

    def wait_matches(self, caller: Proc, child: Proc, pid: int) -> bool:
        """kern_wait(): -1 is any child, 0 one of the caller's group, -n one of group n."""
        if pid == 0:
            pid = -caller.group.pgid
        return pid == -1 or child.pid == pid or child.group.pgid == -pid

    def wait_options(self) -> int:
        """kern_wait(): the options it knows; any other bit is EINVAL."""
        known = WNOHANG | WUNTRACED | WCONTINUED | WLINUXCLONE
        return known | WNOWAIT | WEXITED | WTRAPPED if self.traits.wait6 else known

    def wait6_needs(self) -> int:
        """kern_wait(): wait6() without any of these options is EINVAL."""
        return WEXITED | WUNTRACED | WCONTINUED | WTRAPPED

    def wait6_matches(self, caller: Proc, child: Proc, idtype: str, id_: int) -> bool:
        """kern_wait(): who is waited for; a kind of id the kernel does not know matches nobody."""
        ids = {
            "P_ALL": id_,
            "P_PID": child.pid,
            "P_PGID": child.group.pgid,
            "P_SID": child.session.sid,
            "P_UID": child.cred.uid,
            "P_GID": child.cred.gid,
            "P_JAILID": child.cred.prison or id_,  # who is in no jail passes for being in each: a defect, kept here
        }
        return ids.get(idtype) == id_

    def keeps_what_is_only_looked_at(self) -> bool:
        """kern_wait(): WNOWAIT leaves the child as it is."""
        return True

    def end_shown(self, xstat: int) -> tuple[int, int]:
        """kern_wait(): si_code and si_status of a child that has ended."""
        return (CLD_EXITED, xstat >> 8) if xstat & 0x7F == 0 else (CLD_KILLED, xstat & 0x7F)

    def change_shown(self, child: Proc) -> tuple[int, int, int, int]:
        """kern_wait(): si_signo, si_pid, si_uid and si_status of a child that has stopped or was continued.

        The status is taken from where a status word has it, but p_xstat is the signal itself, and all the rest is
        forgotten: defects, kept here.
        """
        return 0, 0, 0, child.xstat >> 8

    def reports_stop(self, child: Proc, untraced: bool) -> bool:
        """kern_wait(): each stop is reported once, to those who ask for it; the tracer need not."""
        return untraced and child.stat is ProcStat.SSTOP and not child.flags & ProcFlag.P_WAITED

    def given_back(self, k: Kernel, child: Proc) -> Proc | None:
        """kern_wait(): who gets a zombie back, once its tracer has waited for it.

        It may be the tracer itself, which then hears of the same end again: a defect, kept here.
        """
        return self.pfind(k, child.traced_child_of) if child.traced_child_of else None

    def wait_takes_sigchld(self) -> bool:
        """kern_wait(): a SIGCHLD that is pending stays so, whoever has been waited for."""
        return False

    def tracees_die_with_their_tracer(self) -> bool:
        """exit1(): a traced child is killed."""
        return True

    def ppid_shown(self, proc: Proc) -> int:
        """fill_kinfo_proc(): the parent, for who is traced the one it had before."""
        return proc.traced_child_of or (proc.parent.pid if proc.parent is not None else -1)

    def reports_continue(self, child: Proc, continued: bool) -> bool:
        """kern_wait(): each continuation is reported once, to those who ask for it."""
        return continued and bool(child.flags & ProcFlag.P_CONTINUED)

    def report_clears(self) -> bool:
        """kern_wait(): having been reported, a change is not reported again."""
        return True

    def without_children(self) -> str:
        """kern_wait(): the error where no child can ever match."""
        return "ECHILD"

    # ---- kern_sig.c ----

    def highest_signal(self) -> int:
        """kern_kill(), kern_sigaction(): any higher number is EINVAL."""
        return self.traits.highest_signal

    def can_signal(self, k: Kernel, sender: Proc, target: Proc, signal: str, *, alone: bool) -> bool:
        """CANSIGNAL(): who may touch a process may signal it; SIGCONT is free within a session.

        Since 2017 a reaper's family is in the way, too.  ALONE: kill() is for this target and no group or broadcast.
        """
        if not self.trespasses(sender.cred, target.cred) and self.within_family(sender, target, alone):
            return True
        return signal == "SIGCONT" and target.session is sender.session

    def within_family(self, sender: Proc, target: Proc, alone: bool) -> bool:
        """reaper_sigtest(): TARGET is below SENDER's reaper; the reaper itself is signalled ALONE or by itself only."""
        family = sender.reaper
        if not self.traits.reapers_confine_signals or family is None:
            return True
        if family is target.reaper:
            return alone or family.proc is not target or family.proc is sender
        at = target.reaper
        while at is not None and at is not family:
            at = at.parent
        return at is family and (alone or family.proc is not target)

    def tells_sender(self) -> bool:
        """sigsetfrompid(): a handler with SA_SIGINFO is told who sent the signal."""
        return self.traits.tells_sender

    def thread_for_signal(self, k: Kernel, proc: Proc, signal: int) -> Lwp | None:
        """find_lwp_for_signal(): who hears a signal for the process: the caller, one about to run, the first.

        Nobody who blocks it, or waits for a vforked child.
        """
        hearing = [lwp for lwp in proc.lwps if signal not in lwp.mask and lwp.waits_for_vfork is None]
        if k.running in hearing:
            return k.running
        return next((lwp for lwp in hearing if k.scheduler.is_notified(lwp)), hearing[0] if hearing else None)

    def core_is_written(self, proc: Proc) -> bool:
        """coredump(): users other than root cannot write where the file would go, and nobody can in /dev."""
        allowed = not proc.flags & ProcFlag.P_SUGID and proc.cred.uid == 0
        return allowed and proc.cwd != "/dev" and proc.limit(RLIMIT_CORE)[0] != 0

    def stops_later(self) -> bool:
        """issignal(): whether who is to stop on its way back to user mode looks at its other signals first."""
        return self.traits.stops_later

    def kill_zombie(self) -> str | None:
        """kern_kill(): the error for a zombie: none, whoever it belongs to."""
        return None

    def group_without_targets(self) -> str:
        """dokillpg(): the error if no member could be signalled, be it for lack of permission."""
        return "ESRCH"

    def group_kill_reaches(self, sender: Proc, member: Proc) -> bool:
        """dokillpg(): every member, the sender included, but no zombies and no system processes."""
        return member.pid > 1 and not member.is_zombie and not member.is_system

    def broadcast_reaches(self, sender: Proc, target: Proc) -> bool:
        """killpg_all_callback(): everybody but the sender, init and system processes."""
        return target.pid > 1 and not target.is_zombie and not target.is_system and target is not sender

    def ignored_while_orphaned(self, group: Pgrp, prop: Prop) -> bool:
        """lwpsignal(): a terminal stop signal has no default effect in an orphaned process group."""
        return Prop.TTYSTOP in prop and group.jobc == 0

    def stop_discards(self) -> frozenset[str]:
        """lwpsignal(): what a stop signal removes from the pending ones."""
        return frozenset({"SIGCONT"})

    def continue_discards(self) -> frozenset[str]:
        """lwpsignal(): what SIGCONT removes from the pending ones."""
        return frozenset({"SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"})

    def continues_although_blocked(self) -> bool:
        """lwpsignal(): SIGCONT continues a process even if it blocks or ignores the signal."""
        return True

    def kill_wakes_stopped(self) -> bool:
        """lwpsignal(): SIGKILL ends even a stopped process."""
        return True

    def stop_signals_parent(self, parent: Proc) -> bool:
        """proc_stop(): the parent of a stopped process gets SIGCHLD, unless it set SA_NOCLDSTOP."""
        return not parent.sigacts.no_child_stop

    def continue_signals_parent(self) -> bool:
        """lwpsignal(): continuing sends the parent nothing, it only wakes up wait()."""
        return False

    def handler_mask(self, signal: int, mask: frozenset[int], flags: SigFlag) -> frozenset[int]:
        """postsig(): what is blocked while a handler runs: its mask and, without SA_NODEFER, its own signal."""
        return mask if SigFlag.SA_NODEFER in flags else mask | {signal}

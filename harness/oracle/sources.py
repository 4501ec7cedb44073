# SPDX-License-Identifier: BSD-2-Clause
"""Where each rule comes from: POSIX, a manual page of DragonFly, or its code alone; and where these differ.

The oracle says what the code does.  That proves a kernel to be like that code, not to be right; a rule that a manual
page (of April 2026) or POSIX.1-2017 states as well is one that a kernel owes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Difference:
    """What a page says instead; shown by `test`, or else by one that catches a variant of the rule."""

    page: str  # "POSIX: kill()", "kill(2)"
    says: str
    test: str = ""


@dataclass(frozen=True)
class Source:
    """The pages that state a rule (neither: the code only), and those that state something else."""

    posix: str = ""
    manual: str = ""
    differs: tuple[Difference, ...] = ()

    @property
    def origin(self) -> str:
        """The pages, or that there are none."""
        pages = [f"POSIX: {self.posix}" if self.posix else "", self.manual]
        return ", ".join(page for page in pages if page) or "code only"


def _both(posix: str, manual: str, *differs: Difference) -> Source:
    return Source(posix, manual, differs)


def _posix(page: str, *differs: Difference) -> Source:
    return Source(posix=page, differs=differs)


def _manual(page: str, *differs: Difference) -> Source:
    return Source(manual=page, differs=differs)


def _code(*differs: Difference) -> Source:
    return Source(differs=differs)


_D = Difference
_KNOWN = "suites/regressions/test_known_defects.py::"
_JAILS = "suites/regressions/test_live_jails.py::"
_HERE = "suites/conformance/test_"
_SIGNALS = "suites/regressions/test_live_signals.py::"

_PIDS = {
    "PID_MAX": _code(_D("rfork(2)", "process ids range up to the largest int")),
    "FIRST_REUSED_PID": _code(),
    "REUSE_DELAY": _code(),
    "COLLISION_STRIDE": _code(),
    "STEP": _code(),
    "pid_domains": _code(),
    "initial_stamp": _code(),
    "age": _code(),
    "is_recent": _code(),
    "first_pid_with_delay": _code(),
    "random_offset": _code(),
    "live_pid_is_taken": _both("fork()", "fork(2)"),
    "zombie_pid_is_taken": _posix("XBD 3.297 Process ID"),
    "pgid_is_taken": _posix("fork()"),
    "sid_is_taken": _code(),
    "counts_domain_skips": _code(),
    "counts_inner_skips": _code(),
    "reap_stamps_pid": _code(),
    "exit_stamps_pid": _code(),
    "release_stamps_pgid": _code(),
    "release_stamps_sid": _code(),
    "clamp_randompid": _code(),
    "may_write_sysctl": _manual(
        "sysctl(3)",
        _D(
            "jail(2)",
            "what lies outside of a jail cannot be changed from inside; since 2023 a jailed root sets any variable",
            _JAILS + "test_a_jailed_root_sets_no_variable_of_the_whole_system",
        ),
    ),
}

_JOBS = {
    "inferior": _manual(
        "setpgid(2)",
        _D(
            "POSIX: setpgid()",
            "ESRCH for anybody but the caller and its children, grandchildren included",
            _HERE + "process_groups.py::test_descendants_of_every_generation_can_be_moved",
        ),
        _D(
            "setpgid(2)",
            "ESRCH for who is no child, says the list of errors",
            _HERE + "process_groups.py::test_descendants_of_every_generation_can_be_moved",
        ),
        _D("setpgid(2)", "the super-user, and whoever has the same effective user id, need no descent"),
    ),
    "pfind": _code(
        _D(
            "POSIX: getpgid(), getsid()",
            "a process exists until it has been waited for",
            _HERE + "zombies.py::test_a_zombies_group_cannot_be_asked_for",
        ),
        _D(
            "getpgrp(2), getsid(2)",
            "ESRCH if there is no process of that id, which a zombie is",
            _HERE + "zombies.py::test_a_zombies_group_cannot_be_asked_for",
        ),
    ),
    "zpfind": _posix("kill()"),
    "pgfind": _posix("kill()"),
    "new_session_login": _manual("getlogin(2)"),
    "new_session_leader": _both("setsid()", "setsid(2)"),
    "leaves_old_group": _both("setpgid()", "setpgid(2)"),
    "entering_counts": _posix("XBD 3.264 Orphaned Process Group"),
    "leaving_counts": _posix("XBD 3.264 Orphaned Process Group"),
    "entering_counts_first": _posix("XBD 3.264 Orphaned Process Group"),
    "exit_counts": _both("_exit()", "_exit(2)"),
    "group_ends_with": _posix("XBD 3.292 Process Group Lifetime"),
    "group_is_left_at_exit": _posix("XBD 3.292 Process Group Lifetime"),
    "group_holds_session": _posix("XBD 3.343 Session Lifetime"),
    "session_ends_with": _posix("XBD 3.343 Session Lifetime"),
    "leader_exit_unleads": _code(),
    "qualifies": _posix("XBD 3.264 Orphaned Process Group"),
    "adjusts_children": _posix("XBD 3.264 Orphaned Process Group"),
    "adjusts_for_child": _code(),
    "orphan_signals": _both("_exit()", "_exit(2)"),
    "orphan_receives": _both("_exit()", "_exit(2)"),
    "setsid_refused": _both("setsid()", "setsid(2)"),
    "setpgid_negative": _both("setpgid()", "setpgid(2)"),
    "setpgid_stranger": _posix("setpgid()"),
    "setpgid_after_exec": _both("setpgid()", "setpgid(2)"),
    "setpgid_leader": _posix("setpgid()"),
    "setpgid_group": _posix("setpgid()"),
    "getsid": _both("getsid()", "getsid(2)"),
    "getpgid": _both("getpgid()", "getpgrp(2)"),
    "may_setlogin": _manual("getlogin(2)"),
    "login_size": _code(_D("getlogin(2)", "names have up to 17 bytes with the final zero; since 2019 it is 33")),
    "setlogin_reaches": _manual("getlogin(2)"),
}

_CTTY = "suites/conformance/test_controlling_terminals.py::"
_FOREGROUND = "suites/conformance/test_terminal_foreground.py::"
_TERMINALS = {
    "terminal_open_refused": _code(),
    "isctty": _both("XBD 11.1.3 The Controlling Terminal", "termios(4)"),
    "gaining_terminal_refused": _both(
        "XBD 11.1.3 The Controlling Terminal",
        "termios(4)",
        _D(
            "tty(4)",
            "the process must not currently have a controlling terminal; the same one may be gained again",
            _CTTY + "test_gaining_the_same_terminal_again_changes_nothing",
        ),
    ),
    "giving_terminal_up_refused": _code(
        _D("tty(4)", "nothing of leaders", _CTTY + "test_a_leader_cannot_give_the_terminal_up"),
    ),
    "waits_in_background": _both("tcsetpgrp()", "termios(4)"),
    "background_read_refused": _both("read()", "termios(4)"),
    "background_refused": _both("tcsetpgrp()", "termios(4)"),
    "background_signal_stays": _code(),
    "foreground_refused": _both("tcsetpgrp()", "tcsetpgrp(3)"),
    "terminal_holds_group": _code(),
    "terminal_signals": _code(
        _D(
            "POSIX: XBD 11.1.9 Special Characters",
            "a signal for all processes of the foreground group, which all have the terminal",
            _FOREGROUND + "test_the_terminals_keys_do_not_reach_members_without_the_terminal",
        )
    ),
    "leader_exit_hangs_up": _posix("_exit()"),
    "leader_exit_revokes": _both(
        "_exit()",
        "termios(4)",
        _D(
            "termios(4)",
            "access is treated as if modem disconnect had been sensed; the descriptors are EBADF",
            _CTTY + "test_the_leaders_exit_takes_the_terminal_from_the_session",
        ),
    ),
    "setsid_leaves_terminal": _both("setsid()", "termios(4)"),
    "session_frees_terminal": _code(),
    "fork_keeps_terminal": _both(
        "XBD 11.1.3 The Controlling Terminal",
        "termios(4)",
        _D(
            "termios(4)",
            "each process of a session that has a terminal has it; who was born before it was gained does not",
            _CTTY + "test_processes_born_before_have_no_terminal",
        ),
    ),
    "terminal_shown": _code(),
    "tpgid_shown": _code(),
    "tsid_shown": _code(),
    "ctty_shown": _code(),
    "matches_tty": _manual("sysctl(3)"),
}
_VIEWS = {
    "lists_in_all": _code(),
    "matches_pgrp": _manual("sysctl(3)"),
    "matches_uid": _manual("sysctl(3)"),
    "matches_ruid": _manual("sysctl(3)"),
    "shows": _code(),
    "shows_by_pid": _code(),
    "shows_kernel_threads": _code(),
    "accepts_arguments": _manual(
        "sysctl(3)", _D("sysctl(3)", "KERN_PROC_ARGS takes a process id; since 2019 a thread id may follow")
    ),
    "sizes_strings": _code(
        _D("sysctl(3)", "the size of what is available is told where oldp is NULL; of args and cwd since 2026 only")
    ),
    "listed_threads": _manual("sysctl(3)"),
    "thread_shown": _code(),
    "row_tid": _code(),
    "tid_shown": _code(),
    "nthreads_shown": _code(),
    "first_tid": _code(),
    "first_tid_of_child": _code(),
    "new_tid": _code(),
    "tid_after_exec": _code(),
    "last_tid_after_exec": _code(),
    "mask_of_thread": _posix("pthread_create()"),
    "pending_at_birth": _code(
        _D(
            "POSIX: fork(), pthread_create()",
            "no signals are pending for a new process, or thread",
            _SIGNALS + "test_nothing_is_pending_for_a_new_process_or_thread",
        )
    ),
    "lwp_kill_refused": _code(
        _D(
            "lwp_kill(2)",
            "ESRCH where no thread has that pid and tid, and nothing of groups",
            _HERE + "threads_and_signals.py::test_what_is_no_thread_cannot_be_signalled",
        )
    ),
    "lwpfind": _manual("lwp_kill(2)"),
    "thread_ends_alone": _manual("extexit(2)"),
    "exec_ends_threads": _posix("exec"),
    "size_slop": _manual("sysctl(3)"),
    "shows_args": _code(),
    "keeps_title": _code(
        _D(
            "sysctl(3)",
            "EINVAL for a new value that is too long",
            _KNOWN + "test_a_title_that_is_too_long_is_refused",
        )
    ),
    "title_room": _code(),
    "title_is_inherited": _manual("upmap(4)"),
    "exec_ends_title": _code(),
    "cwd_shown": _manual("sysctl(3)"),
    "pathname_self": _manual("sysctl(3)"),
    "may_set_args": _manual("sysctl(3)"),
    "pathname_of_nobody": _code(),
    "pathname_of_no_program": _code(),
    "jobc_shown": _code(),
    "exitstat_shown": _code(),
    "ppid_shown": _code(),
    "syscaps_shown": _code(),
    "look_holds": _code(),
    "vfork_holds": _code(),
    "dead_thread_holds": _code(),
}

_USERS = {
    "is_privileged": _manual("setuid(2)"),
    "may": _manual("syscap_get(2)"),
    "is_restricted": _manual("syscap_get(2)"),
    "caps_after_exec": _manual("syscap_get(2)"),
    "may_signal_init": _manual("syscap_get(2)"),
    "trespasses": _manual(
        "kill(2)",
        _D("POSIX: kill()", "the receiver's saved user id counts, and not its effective one"),
        _D("kill(2)", "only the effective user ids count, says the list of errors"),
        _D(
            "syscap_get(2)",
            "SYSCAP_NOPROC_TRESPASS leaves root what any user may; it is without effect",
            _JAILS + "test_root_that_may_not_trespass_signals_nobody_elses_processes",
        ),
    ),
    "same_prison": _code(),
    "may_trace_strangers": _manual("ptrace(2)"),
    "is_confined": _manual("syscap_get(2)"),
    "may_exec": _manual("syscap_get(2)"),
    "may_become": _manual(
        "setuid(2)",
        _D("POSIX: setuid()", "the saved id may be taken without privilege, and becomes the effective one"),
        _D("setuid(2)", "EPERM if the id is neither real, effective nor saved, says the list of errors"),
    ),
    "became": _manual("setuid(2)", _D("POSIX: setuid()", "without privilege only the effective id is set")),
    "may_act_as": _both("seteuid()", "setuid(2)"),
    "may_be_really": _code(_D("setreuid(2)", "the effective id may become the real one, nothing else may")),
    "may_be_effectively": _posix("setreuid()", _D("setreuid(2)", "only the real id may become the effective one")),
    "saves_effective": _code(),
    "may_exchange": _manual("setresuid(2)"),
    "may_make_jail": _code(),
    "may_enter_jail": _manual("jail_attach(2)"),
    "jail_exists": _manual("jail_attach(2)"),
    "jail_restricts": _code(),
    "jail_is_inherited": _manual("jail(2)"),
}

_LIVES = {
    "exec_keeps_ignored": _posix(
        "exec", _D("execve(2), sigaction(2)", "signals that are ignored stay ignored, without exception")
    ),
    "exec_marks": _both("setpgid()", "setpgid(2)"),
    "exec_saves_uid": _posix("exec"),
    "fork_keeps_pgrp": _both("fork()", "fork(2)"),
    "child_goes_to": _code(),
    "inherits_sigacts": _both("fork()", "sigaction(2)"),
    "vfork_blocks": _manual("vfork(2)"),
    "can_fork": _both("fork()", "fork(2)"),
    "limits_root": _code(_D("fork(2)", "the super-user may exceed RLIMIT_NPROC; since 2017 it may not")),
    "process_limit": _code(
        _D("getrlimit(2)", "RLIMIT_NPROC is the number of processes; since 2017 less of it with each generation")
    ),
    "page_owner": _manual("upmap(4)"),
    "page_pid": _manual("upmap(4)"),
    "page_forkid": _manual("upmap(4)"),
    "page_invfork": _manual("upmap(4)"),
    "page_tid": _code(),
    "held_back": _manual("sigblockall(3)"),
    "held_back_by_child": _manual("sigblockall(3)"),
    "page_title_shown": _manual("upmap(4)"),
    "scan_visits": _code(),
    "best_priority": _both("getpriority()", "getpriority(2)"),
    "donice": _manual(
        "getpriority(2)",
        _D("POSIX: setpriority()", "the caller's effective user id alone counts, against both ids of the target"),
    ),
    "rfork_needs_process": _code(_D("rfork(2)", "EINVAL without RFPROC, which must always be set")),
    "procctl_id": _code(_D("procctl(2)", "P_PGID and the id of the group, too, mean the caller; they are refused")),
    "deathsig_allowed": _code(),
    "deathsig_is_inherited": _manual("procctl(2)"),
    "deathsig_sent": _manual("procctl(2)"),
    "reap_kill_reaches": _code(
        _D(
            "procctl(2)",
            "pid_failed names the first one that may not be signalled; permission is not asked for",
            _SIGNALS + "test_a_reaper_cannot_signal_descendants_of_other_users",
        )
    ),
    "reap_kill_enters": _manual("procctl(2)"),
    "reaper_head": _code(_D("procctl(2)", "pid_head is the first process that runs, of a reaper only")),
    "reaper_inherits": _manual(
        "procctl(2)",
        _D(
            "_exit(2), wait(2)",
            "process 1 inherits, whoever is a reaper",
            _HERE + "orphans.py::test_a_reaper_inherits_the_orphans_below_it",
        ),
    ),
    "reaper_is_inherited": _manual("procctl(2)"),
    "exit_status": _both("_exit()", "wait(2)"),
    "forgoes_zombies": _both("_exit()", "sigaction(2)"),
    "exit_lets_others_run": _code(),
    "exit_waits_for_holders": _code(),
    "vfork_exit_lets_others_run": _code(),
    "exit_signals_parent": _both("_exit()", "_exit(2)"),
    "zombie_keeps_status": _both("wait()", "wait(2)"),
    "wait_matches": _both("waitpid()", "wait(2)"),
    "wait_options": _manual("wait(2)"),
    "wait6_needs": _manual("wait(2)"),
    "wait6_matches": _manual(
        "wait(2)",
        _D(
            "wait(2)",
            "P_JAILID is about children in that jail; those in none match as well",
            _KNOWN + "test_waiting_for_a_jail_does_not_match_children_in_none",
        ),
    ),
    "keeps_what_is_only_looked_at": _both("waitid()", "wait(2)"),
    "end_shown": _manual("wait(2)", _D("POSIX: waitid()", "CLD_DUMPED for a child that has dumped core")),
    "change_shown": _code(
        _D(
            "POSIX: waitid(), wait(2)",
            "si_signo is SIGCHLD and si_pid the child, which are 0 for one that has stopped or goes on",
            _KNOWN + "test_the_report_of_a_stop_names_the_child",
        )
    ),
    "reports_stop": _both("waitpid()", "wait(2)"),
    "given_back": _code(),
    "wait_takes_sigchld": _code(
        _D("POSIX: wait()", "a blocked SIGCHLD that is pending is discarded, unless another child is ready"),
        _D("wait(2)", "one SIGCHLD is queued for each child, and discarded when that child is waited for"),
    ),
    "tracees_die_with_their_tracer": _code(),
    "reports_continue": _both("waitpid()", "wait(2)"),
    "report_clears": _posix("waitpid()"),
    "without_children": _both("wait()", "wait(2)"),
}

_KILLS = {
    "highest_signal": _both("kill()", "kill(2)"),
    "can_signal": _posix(
        "kill()", _D("kill(2), killpg(3)", "SIGCONT may be sent to any descendant, in whatever session it is")
    ),
    "within_family": _manual("kill(2)"),
    "tells_sender": _posix(
        "<signal.h>",
        _D(
            "POSIX: <signal.h>",
            "si_uid is the real user of the sender; it is the effective one",
            _SIGNALS + "test_a_handler_is_told_the_real_user_of_whoever_sent_the_signal",
        ),
    ),
    "thread_for_signal": _posix("XSH 2.4.1 Signal Generation and Delivery"),
    "core_is_written": _manual("core(5)"),
    "stops_later": _code(),
    "kill_zombie": _code(
        _D(
            "POSIX: kill(), kill(2)",
            "EPERM for a process of another user, dead or alive",
            _KNOWN + "test_another_users_zombie_is_as_protected_as_the_living",
        ),
        _D(
            "lwp_kill(2)",
            "ESRCH where no thread has that tid; of a zombie any will do",
            _HERE + "threads_and_signals.py::test_a_zombie_has_any_thread_to_be_signalled",
        ),
    ),
    "group_without_targets": _code(
        _D(
            "POSIX: kill()",
            "EPERM if no member may be signalled",
            _KNOWN + "test_a_group_that_may_not_be_signalled_is_not_reported_as_missing",
        ),
        _D(
            "kill(2), killpg(3)",
            "EPERM if any member may not be signalled, and nobody is",
            _HERE + "signalling_groups.py::test_killpg_without_any_permission_finds_nobody",
        ),
    ),
    "group_kill_reaches": _posix("kill()"),
    "broadcast_reaches": _manual("kill(2)", _D("kill(2)", "of other users than root it reaches those of the same uid")),
    "ignored_while_orphaned": _posix("XSH 2.4.3 Signal Actions"),
    "stop_discards": _posix("XSH 2.4.1 Signal Generation and Delivery"),
    "continue_discards": _posix("XSH 2.4.1 Signal Generation and Delivery"),
    "continues_although_blocked": _posix("XSH 2.4.1 Signal Generation and Delivery"),
    "kill_wakes_stopped": _posix("XSH 2.4.3 Signal Actions"),
    "stop_signals_parent": _both("sigaction()", "sigaction(2)"),
    "continue_signals_parent": _manual("sigaction(2)"),
    "handler_mask": _both("sigaction()", "sigaction(2)"),
}

#: By the name of the member of Rules.
SOURCES: Mapping[str, Source] = MappingProxyType(_PIDS | _JOBS | _TERMINALS | _VIEWS | _USERS | _LIVES | _KILLS)

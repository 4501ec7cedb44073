# SPDX-License-Identifier: BSD-2-Clause
"""What the kernels of different years do differently, as data: one entry per change, and the eras they make up.

The rules (rules.py) ask the traits of their era; nothing is written twice.  Where a change is named a commit of
DragonFly's history is meant; each was read in the sources before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from harness.errors import UsageError


@dataclass(frozen=True)
class Traits:
    """How one kernel answers where not all do alike.  The defaults are those of January 2017."""

    # ---- struct kinfo_proc, kern.proc ----
    record_size: int = 976  # sizeof(struct kinfo_proc), bytes
    login_size: int = 17  # MAXLOGNAME, the final zero byte included
    sums_up_threads: bool = False  # a process's row has the sum of its threads, and thread id -1
    sigtramp: bool = False  # kern.proc.sigtramp exists
    lwkt_flag: bool = False  # kernel threads are listed on request only (KERN_PROC_FLAG_LWKT)
    sizes_strings: bool = False  # args and cwd, too, tell the length of their answer where there is no buffer
    pathname_of_no_program: str = "ENOENT"  # kern.proc.pathname of a process that runs no program
    titles_in_page: bool = False  # a title set by sysctl is kept beside the arguments and can be a thread's
    # ---- kern_fork.c, kern_prot.c ----
    first_tid: int = 0
    tids_are_inherited: bool = False  # a child's thread has the id of the one that forked; ids are used again
    limits_root: bool = False  # RLIMIT_NPROC binds root, too, and shrinks with each generation
    ids_of_zero: bool = False  # procctl() takes id 0 for the caller
    deathsig: bool = False  # PROC_PDEATHSIG_CTL, PROC_PDEATHSIG_STATUS
    reap_kill: bool = False  # PROC_REAP_KILL
    syscap: bool = False  # syscap_get(), syscap_set(), kp_syscaps
    # ---- kern_sig.c ----
    highest_signal: int = 128  # the highest number kill() and sigaction() accept
    reapers_confine_signals: bool = False  # no signal leaves what is below one's reaper
    tells_sender: bool = False  # si_pid and si_uid say who sent a signal
    stops_later: bool = False  # who stops by its own doing looks at its other signals first
    # ---- kern_exit.c ----
    vfork_exit_yields: bool = True  # whoever a vforked child's exit signals acts before it is a zombie (measured)
    wait6: bool = False  # wait6(), and WNOWAIT, WEXITED, WTRAPPED for wait4()


@dataclass(frozen=True)
class Change:
    """One commit after which kernels do something differently."""

    date: str  # ISO, of the commit
    commit: str
    osreldate: int  # __DragonFly_version right after it; most leave it as it is
    where: str  # file and C function
    what: str
    traits: Mapping[str, Any] = field(default_factory=dict)


CHANGES = (
    Change(
        "2017-03-29",
        "e6141a7fee",
        400_900,
        "kern_proc.c: sysctl_kern_proc_sigtramp()",
        "kern.proc.sigtramp tells where the signal trampoline is",
        {"sigtramp": True},
    ),
    Change(
        "2017-07-05",
        "e7e1189fb1",
        400_905,
        "kern_fork.c: fork1(); kern_plimit.c: plimit_getadjvalue()",
        "RLIMIT_NPROC binds root as well, and shrinks by a 320th with each generation, down to nine tenths",
        {"limits_root": True},
    ),
    Change(
        "2017-07-08",
        "526c5c2b3c",
        400_906,
        "kern_fork.c: lwp_fork()",
        "thread ids begin with 1 instead of 0",
        {"first_tid": 1},
    ),
    Change(
        "2017-09-28",
        "a73d77929c",
        400_910,
        "kern_sig.c: CANSIGNAL(); kern_fork.c: reaper_sigtest()",
        "signals reach only what is below the sender's reaper",
        {"reapers_confine_signals": True},
    ),
    Change(
        "2018-09-30",
        "33b81dc963",
        500_316,
        "kern_exit.c: sys_wait6(), kern_wait(); kern_sig.c: sigsetfrompid()",
        "wait6() with WNOWAIT, WEXITED and WTRAPPED; a handler is told who sent the signal",
        {"wait6": True, "tells_sender": True},
    ),
    Change(
        "2019-05-29",
        "ba69e3575b",
        500_506,
        "kern_sig.c: issignal()",
        "who stops on the way back to user mode has looked at its other signals before, and may have died of one",
        {"stops_later": True},
    ),
    Change(
        "2019-06-18",
        "5deae5c64c",
        500_701,
        "kern_proc.c: sysctl_out_proc(); kern_kinfo.c: fill_kinfo_lwp()",
        "the row of a process sums up its threads and has thread id -1",
        {"sums_up_threads": True},
    ),
    Change(
        "2019-09-10",
        "e2e9821d30",
        500_705,
        "sys/param.h: MAXLOGNAME",
        "login names of up to 32 characters; struct kinfo_proc grows to 992 bytes",
        {"login_size": 33, "record_size": 992},
    ),
    Change(
        "2019-11-11",
        "8e99ae46df",
        500_708,
        "kern_fork.c: lwp_fork1(), lwp_fork2(); kern_exec.c: exec_new_vmspace()",
        "a child's thread has the id of the one that forked it, a new program's has 1; ids of threads are used again",
        {"tids_are_inherited": True},
    ),
    Change(
        "2019-11-12",
        "e7126f0a10",
        500_708,
        "kern_proc.c: sysctl_kern_proc_args()",
        "a title is kept in a page of its own instead of replacing the arguments: it is lost by exec, not inherited,"
        " and threads can have one",
        {"titles_in_page": True},
    ),
    Change(
        "2020-11-15",
        "acdf1ee6e0",
        500_901,
        "kern_fork.c: sys_procctl(); kern_exit.c: exit1(); sys/signal.h",
        "a signal at the parent's death; id 0 is the caller; 127 is the highest signal",
        {"deathsig": True, "ids_of_zero": True, "highest_signal": 127},
    ),
    Change(
        "2021-05-19",
        "a23ed7f524",
        600_100,
        "kern_proc.c: sysctl_kern_proc_pathname()",
        "asking for the program of who runs none is EINVAL",
        {"pathname_of_no_program": "EINVAL"},
    ),
    Change(
        "2022-11-17",
        "ec1c3f3acb",
        600_302,
        "kern_proc.c: sysctl_kern_proc()",
        "kernel threads are listed on request only: KERN_PROC_FLAG_LWKT",
        {"lwkt_flag": True},
    ),
    Change(
        "2023-10-12",
        "2b3f93ea6d",
        600_503,
        "kern_caps.c; kern_kinfo.c: fill_kinfo_proc()",
        "restrictions of processes: syscap_get(), syscap_set(); struct kinfo_proc grows to 1048 bytes",
        {"syscap": True, "record_size": 1048},
    ),
    Change(
        "2025-03-19",
        "cabad5ba2c",
        600_510,
        "kern_fork.c: reaper_kill()",
        "a reaper can signal all that is below it: PROC_REAP_KILL",
        {"reap_kill": True},
    ),
    Change(
        "2026-01-11",
        "b08bfb72c8",
        600_516,
        "kern_proc.c: sysctl_kern_proc_args(), sysctl_kern_proc_cwd()",
        "a size query of args and cwd is answered",
        {"sizes_strings": True},
    ),
)


@dataclass(frozen=True)
class Era:
    """The kernel of one revision."""

    name: str
    revision: str
    date: str  # ISO, of the revision
    osreldate: int  # __DragonFly_version
    traits: Traits = field(default_factory=Traits)

    def __str__(self) -> str:
        return self.name


def _era(
    name: str, revision: str, date: str, osreldate: int, measured: Mapping[str, Any] = MappingProxyType({})
) -> Era:
    traits = Traits()
    for change in CHANGES:
        if change.date <= date:
            traits = replace(traits, **change.traits)
    return Era(name, revision, date, osreldate, replace(traits, **measured))


#: The kernels the oracle can be, oldest first.  Those named after releases are the branch points.
ERAS: Mapping[str, Era] = MappingProxyType(
    {
        era.name: era
        for era in (
            _era("2017", "38b5d46cbb", "2017-01-02", 400704),
            _era("2020", "f875a8eec7", "2020-07-24", 500901),
            _era("6.0", "416608a035", "2021-04-20", 500909),
            _era("6.2", "2ad4d0e44d", "2022-01-02", 600107),
            _era("6.4", "ab7bc35040", "2022-12-20", 600302),
            _era("2026", "f86fcbe23f", "2026-04-19", 600518, {"vfork_exit_yields": False}),
        )
    }
)
DEFAULT_ERA = ERAS["2017"]


def era_named(name: str) -> Era:
    """Return an era by name.  Raises UsageError for an unknown one."""
    if name not in ERAS:
        raise UsageError(f"the oracle knows no era {name}; there are: {', '.join(ERAS)}")
    return ERAS[name]


def era_of(osreldate: int, record_size: int) -> Era | None:
    """Return the era that specifies a kernel, by __DragonFly_version and sizeof(struct kinfo_proc); None for no era.

    That is the last one that is not younger, unless kernels have changed in between.
    """
    older = [era for era in ERAS.values() if era.osreldate <= osreldate]
    if not older or older[-1].traits.record_size != record_size:
        return None
    between = (change for change in CHANGES if change.date > older[-1].date)
    return older[-1] if all(change.osreldate >= osreldate for change in between) else None


def split_target(target: str) -> tuple[Era, str | None]:
    """Return era and variant of "2026:zombies-found", "2026" or "zombies-found"; the era is 2017 where none is named.

    Raises UsageError for an unknown era in front of a colon; whether the variant exists is for rules_of() to say.
    """
    first, colon, second = target.partition(":")
    if colon:
        return era_named(first), second or None
    if first in ERAS:
        return ERAS[first], None
    return DEFAULT_ERA, first or None

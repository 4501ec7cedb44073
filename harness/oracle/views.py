# SPDX-License-Identifier: BSD-2-Clause
"""What sysctl shows of processes (kern_proc.c: sysctl_kern_proc*(), kern_kinfo.c: fill_kinfo_proc())."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.oracle.model import Credentials, Errno, Lwp, Proc
from harness.processes.kinfo import AuxFlag, KinfoLwp, KinfoProc, LwpStat, ProcFlag, ProcStat, ProcTable
from harness.processes.vocabulary import Rusage

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

KERNEL_THREADS = ("idle_0", "softclock 0", "ithread 0", "syncer", "pagedaemon")
READ_ONLY = frozenset({"kern.maxproc", "kern.osreldate", "hw.ncpu"})
SIGNAL_TRAMPOLINE = (0x7FFFFFFFEFC0, 0x7FFFFFFFEFE0)  # start and end

Filter = Callable[[Proc], bool]


def kern_proc(
    k: Kernel, viewer: Proc, query: str, matches: Filter, *, lwp: bool = False, kernel_threads: bool = False
) -> ProcTable:
    """sysctl_kern_proc() for all queries but kern.proc.pid: processes by hash chain, then kernel threads.

    LWP and KERNEL_THREADS are the flags KERN_PROC_FLAG_LWP and KERN_PROC_FLAG_LWKT.
    """
    rules = k.rules
    rows = [
        row
        for proc in k.allproc()
        if rules.shows(k, viewer.cred, proc)
        and rules.lists_in_all(proc)
        and matches(proc)
        and rules.same_prison(viewer.cred, proc.cred)
        for row in sysctl_out_proc(k, proc, lwp=lwp)
    ]
    if rules.shows_kernel_threads(k, viewer.cred, query, kernel_threads):
        rows += [_fill_kernel_thread(k, index, name) for index, name in enumerate(KERNEL_THREADS)]
    return ProcTable(rows)


def kern_proc_pid(k: Kernel, viewer: Proc, pid: int, *, lwp: bool = False) -> list[KinfoProc]:
    """kern.proc.pid: what pfind() finds, whoever asks."""
    proc = k.rules.pfind(k, pid)
    if (
        proc is None
        or not k.rules.shows_by_pid(k, viewer.cred, proc)
        or not k.rules.same_prison(viewer.cred, proc.cred)
    ):
        return []
    return sysctl_out_proc(k, proc, lwp=lwp)


def kern_proc_args(k: Kernel, viewer: Proc, pid: int, tid: int | None = None) -> bytes:
    """kern.proc.args (sysctl_kern_proc_args()): nothing, and no error, where pfind() finds nobody.

    The title of thread TID, if it has one, else that of the process, else its arguments.
    """
    proc = k.rules.pfind(k, pid)
    if proc is None or not k.rules.shows_args(k, viewer.cred, proc):
        return b""
    thread = k.rules.lwpfind(proc, tid)
    for title in (thread.title if thread is not None else b"", proc.title):
        if shown := k.rules.page_title_shown(title):
            return shown + b"\0"
    return proc.args


def set_kern_proc_args(k: Kernel, viewer: Proc, pid: int, title: bytes, tid: int | None = None) -> None:
    """kern.proc.args, written: one's own title only; a long one is dropped without a word.

    An unknown TID is taken for none: a defect, kept here.
    """
    rules = k.rules
    proc = rules.pfind(k, pid)
    if proc is None or not rules.shows_args(k, viewer.cred, proc):
        return
    if not rules.may_set_args(viewer, proc):
        raise Errno("EPERM")
    if not rules.keeps_title(k, title):
        return
    if not rules.traits.titles_in_page:
        proc.args = title
    elif (thread := rules.lwpfind(proc, tid)) is not None:
        thread.title = title[: rules.title_room()]
    else:
        proc.title = title[: rules.title_room()]


def kern_proc_cwd(k: Kernel, viewer: Proc, pid: int) -> str:
    """kern.proc.cwd (sysctl_kern_proc_cwd())."""
    proc = k.rules.pfind(k, pid)
    return k.rules.cwd_shown(viewer, proc) if proc is not None and k.rules.shows_args(k, viewer.cred, proc) else ""


def kern_proc_pathname(k: Kernel, viewer: Proc, pid: int) -> str:
    """kern.proc.pathname (sysctl_kern_proc_pathname()): -1 is oneself; no permission is asked for."""
    proc = viewer if pid == k.rules.pathname_self() else k.rules.pfind(k, pid)
    if proc is None:
        if error := k.rules.pathname_of_nobody():
            raise Errno(error)
        return ""
    if not proc.path and (error := k.rules.pathname_of_no_program()):
        raise Errno(error)
    return proc.path


def sysctl_out_proc(k: Kernel, proc: Proc, *, lwp: bool = False) -> list[KinfoProc]:
    """sysctl_out_proc(): one row for the process, or one for each of its threads."""
    if lwp:
        return [fill_kinfo_proc(k, thread, k.rules.tid_shown(thread)) for thread in k.rules.listed_threads(proc)]
    shown = k.rules.thread_shown(proc)
    return [fill_kinfo_proc(k, shown, k.rules.row_tid(shown))]


def fill_kinfo_proc(k: Kernel, thread: Lwp, tid: int) -> KinfoProc:
    """fill_kinfo_proc(), fill_kinfo_lwp(): a process and one of its threads, called TID there, as a row."""
    proc = thread.proc
    group = proc.pgrp
    session = group.session if group is not None else None
    cred = proc.cred
    zombie = proc.is_zombie
    rules = k.rules
    terminal = rules.terminal_shown(proc)
    holds = rules.look_holds() + proc.holds
    if proc.flags & ProcFlag.P_PPWAIT:
        holds += rules.vfork_holds()
    if zombie and not proc.thread_gone:
        holds += rules.dead_thread_holds()
    return KinfoProc(
        pid=proc.pid,
        ppid=k.rules.ppid_shown(proc),
        pgid=group.pgid if group is not None else 0,
        sid=session.sid if session is not None else 0,
        jobc=k.rules.jobc_shown(group) if group is not None else 0,
        stat=proc.stat,
        flags=proc.flags,
        lock=holds,
        acflag=proc.acflag,
        nice=proc.nice,
        comm=proc.comm,
        uid=cred.uid,
        ruid=cred.ruid,
        svuid=cred.svuid,
        rgid=cred.rgid,
        svgid=cred.svgid,
        groups=(cred.gid, *cred.groups),
        login=session.login if session is not None else "",
        exitstat=k.rules.exitstat_shown(proc),
        nthreads=rules.nthreads_shown(proc),
        jailid=cred.prison,
        auxflags=_auxflags(k, proc),
        lwp=KinfoLwp(
            pid=proc.pid,
            tid=tid,
            stat=LwpStat.LSRUN if thread is k.running else LwpStat.LSSLEEP,
            wmesg=_wmesg(k, thread),
            siglist=frozenset(thread.notified),
            sigmask=frozenset() if proc.thread_gone else thread.mask,
            comm=proc.comm,
            ru=Rusage(nsignals=thread.handled),
        ),
        start=proc.start,
        siglist=frozenset(proc.pending),
        sigignore=proc.sigacts.ignored,
        sigcatch=proc.sigacts.caught,
        sigflag=proc.sigacts.flag_word,
        paddr=0xFFFFFFE000000000 + 0x400 * proc.birth,
        fd=0 if zombie else 0xFFFFFFE010000000 + 0x400 * proc.birth,
        tdev=terminal.number if terminal is not None else None,
        tpgid=rules.tpgid_shown(terminal) if terminal is not None else 0,
        tsid=rules.tsid_shown(terminal) if terminal is not None else 0,
        ktaddr=0,
        syscaps=k.rules.syscaps_shown(cred),
        record_size=k.rules.traits.record_size,
    )


def _auxflags(k: Kernel, proc: Proc) -> AuxFlag:
    if proc.pgrp is None:
        return AuxFlag(0)
    flags = AuxFlag.KI_SLEADER if proc.is_session_leader else AuxFlag(0)
    return flags | AuxFlag.KI_CTTY if k.rules.ctty_shown(proc.session) else flags


def _wmesg(k: Kernel, lwp: Lwp) -> str:
    """What a thread sleeps for: driven ones wait for the next request on a socket."""
    if lwp is k.running or lwp.proc.is_zombie:
        return ""
    if lwp.waits_for_vfork is not None:
        return "ppwait"
    if lwp.proc.waits_for_holders:
        return "reap1"
    return "wait" if k.scheduler.is_blocked(lwp) else "sbwait"


def _fill_kernel_thread(k: Kernel, index: int, name: str) -> KinfoProc:
    """fill_kinfo_proc_kthread(): a thread without a process has pid -1."""
    return KinfoProc(
        pid=-1,
        stat=ProcStat.SIDL if name.startswith("idle") else ProcStat.SACTIVE,
        flags=ProcFlag.P_SYSTEM,
        comm=name,
        tpgid=0,
        tsid=0,
        lwp=KinfoLwp(pid=-1, tid=-1, stat=LwpStat.LSSLEEP, comm=name),
        ktaddr=0xFFFFFFE020000000 + 0x400 * index,
        syscaps=k.rules.syscaps_shown(Credentials()),
        record_size=k.rules.traits.record_size,
    )


def table(
    k: Kernel,
    viewer: Proc,
    kind: str,
    arguments: Sequence[int],
    *,
    lwp: bool = False,
    kernel_threads: bool = False,
) -> list[KinfoProc]:
    """One of the tables by the name of its node."""
    if kind == "pid":
        return kern_proc_pid(k, viewer, arguments[0], lwp=lwp)
    rules = k.rules
    filters: dict[str, Filter] = {
        "all": lambda _: True,
        "pgrp": lambda proc: rules.matches_pgrp(proc, arguments[0]),
        "tty": lambda proc: rules.matches_tty(proc, arguments[0]),
        "uid": lambda proc: rules.matches_uid(proc, arguments[0]),
        "ruid": lambda proc: rules.matches_ruid(proc, arguments[0]),
    }
    return list(kern_proc(k, viewer, kind, filters[kind], lwp=lwp, kernel_threads=kernel_threads))


#: Variables that are not kept in Kernel.variables.
SPECIAL = ("kern.pid_domain_skips", "kern.pid_inner_skips", "kern.randompid")


def get_int(k: Kernel, name: str) -> int:
    """Read an integer variable."""
    pids = k.pids
    if name == "kern.randompid":
        return pids.randompid
    if name == "kern.pid_domain_skips":
        return _signed(pids.domain_skips)
    if name == "kern.pid_inner_skips":
        return _signed(pids.inner_skips)
    if name not in k.variables:
        raise Errno("ENOENT")
    return k.variables[name]


def _signed(value: int) -> int:
    """A u_int as a reader of ints sees it."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def require_writable(k: Kernel, viewer: Proc, name: str) -> None:
    """sysctl_root(): EPERM for what can only be read, and for those who are not root."""
    if name in READ_ONLY or not k.rules.may_write_sysctl(viewer.cred):
        raise Errno("EPERM")


def set_int(k: Kernel, viewer: Proc, name: str, value: int) -> None:
    """Write an integer variable."""
    get_int(k, name)
    require_writable(k, viewer, name)
    if name == "kern.randompid":
        k.pids.set_randompid(value)
    elif name == "kern.pid_domain_skips":
        k.pids.domain_skips = value
    elif name == "kern.pid_inner_skips":
        k.pids.inner_skips = value
    else:
        k.variables[name] = value

# SPDX-License-Identifier: BSD-2-Clause
"""Birth and death of processes (kern_fork.c, kern_exit.c, kern_exec.c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.oracle import jobs, reapers, signals, terminals
from harness.oracle.blocking import WouldBlock
from harness.oracle.model import AFORK, P_MAYBETHREADED, P_POSTEXIT, Errno, Lwp, Proc
from harness.oracle.signals_table import NUMBERS, SIGKILL, SIGTRAP
from harness.processes.kinfo import ProcFlag, ProcStat
from harness.processes.vocabulary import RforkFlag

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

FORK_FAILURE = 0.5  # s that a refused fork() sleeps


def fork1(k: Kernel, parent: Proc, *, vfork: bool = False, nowait: bool = False, linux_thread: bool = False) -> Proc:
    """fork1(): make a child.

    NOWAIT (RFNOWAIT) gives it to the reaper at once; LINUX_THREAD (RFLINUXTHPN) lets it end with SIGUSR1.
    """
    caller = k.thread_of(parent)
    if signals.next_signals(k, caller):
        # fork() is begun again to let signals be handled first.  A vforked child does not stop, so if the signal is a
        # stop it begins again and again, for ever: a defect of the seed, kept here.
        raise WouldBlock(restarts=True)
    if not k.rules.can_fork(k, parent):
        k.clock.advance(FORK_FAILURE)
        raise Errno("EAGAIN")
    child = Proc(
        k.pids.new_pid(),
        parent,
        k.rules.jail_is_inherited(parent.cred),
        k.rules.inherits_sigacts(parent.sigacts),
        None,
        k.next_birth(),
        k.clock.realtime,
    )
    # What lies between p_startcopy and p_endcopy, the last stop signal among it.
    child.comm, child.args, child.path, child.cwd = parent.comm, parent.args, parent.path, parent.cwd
    child.xstat = parent.xstat
    child.limits, child.nice = parent.limits, parent.nice
    child.depth = parent.depth + (parent.depth % 32 != 31)
    child.senders = dict(parent.senders)
    if k.rules.title_is_inherited():
        child.title = parent.title
    if k.rules.deathsig_is_inherited():
        child.deathsig = parent.deathsig
    tid = k.rules.first_tid_of_child(caller, vfork=vfork)
    child.lwps, child.last_tid = [Lwp(child, tid, caller.mask)], tid
    child.lwp.held_back = k.rules.held_back_by_child(caller)
    child.lwp.notified = k.rules.pending_at_birth(caller)
    child.flags = P_MAYBETHREADED | (parent.flags & (ProcFlag.P_SUGID | ProcFlag.P_JAILED))
    if k.rules.fork_keeps_terminal(parent):
        child.flags |= ProcFlag.P_CONTROLT
    terminals.inherit(parent, child)
    child.acflag = AFORK
    if vfork:
        child.flags |= ProcFlag.P_PPWAIT
        if k.rules.vfork_blocks():
            caller.waits_for_vfork = child
    reapers.inherit(k, parent, child)
    k.procs[child.pid] = child
    jobs.join_at_fork(k, parent, child)
    adopt(k, reapers.reaper_of(k, parent.reaper) if nowait else parent, child)
    if linux_thread:
        child.signals_parent_with = "SIGUSR1"
    return child


def unshare(k: Kernel, flags: RforkFlag) -> None:
    """fork1() without RFPROC: what is shared becomes the caller's own; nothing of that is modelled."""
    if k.rules.rfork_needs_process() or RforkFlag.RFPPWAIT in flags or RforkFlag.RFFDG | RforkFlag.RFCFDG in flags:
        raise Errno("EINVAL")


def adopt(k: Kernel, parent: Proc, child: Proc) -> None:
    """Enter CHILD into its parent's list of children."""
    child.parent = parent
    parent.children.insert(k.rules.child_goes_to(parent.children, child), child)


def release_vfork_parent(k: Kernel, child: Proc) -> bool:
    """exit1(), kern_execve(): the parent of a vforked child may go on; tell whether it had been waiting."""
    child.flags &= ~ProcFlag.P_PPWAIT
    parent = child.parent
    waiting = [lwp for lwp in parent.lwps if lwp.waits_for_vfork is child] if parent is not None else []
    for lwp in waiting:
        lwp.waits_for_vfork = None
        lwp.in_userret = True  # it had not slept where signals are looked at
        k.scheduler.notify(lwp)
    return bool(waiting)


def lwp_create(k: Kernel, proc: Proc) -> Lwp:
    """sys_lwp_create(), lwp_fork(): make another thread, which blocks what its creator does; nothing waits for it."""
    creator = k.thread_of(proc)
    lwp = Lwp(proc, k.rules.new_tid(proc, creator), k.rules.mask_of_thread(creator))
    lwp.held_back = k.rules.held_back_by_child(creator)
    lwp.notified = k.rules.pending_at_birth(creator)
    proc.last_tid = lwp.tid
    proc.lwps = sorted((*proc.lwps, lwp), key=lambda one: one.tid)
    return lwp


def lwp_exit(k: Kernel, lwp: Lwp) -> None:
    """sys_extexit(), lwp_exit(): a thread ends; the last one ends its process with status 0."""
    if k.rules.thread_ends_alone(lwp):
        lwp.proc.lwps.remove(lwp)
        k.scheduler.exited(lwp)
    else:
        exit1(k, lwp.proc, 0)


def _kill_all_lwps(k: Kernel, proc: Proc) -> None:
    """killalllwps(): all threads end but the one that exits, or runs another program."""
    kept = k.thread_of(proc)
    for lwp in [lwp for lwp in proc.lwps if lwp is not kept]:
        proc.lwps.remove(lwp)
        k.scheduler.exited(lwp)
        if proc.stat is ProcStat.SSTOP:  # as it is while it leaves a core file: the SIGKILL for the others ends that
            proc.stat = ProcStat.SACTIVE


def exec_program(k: Kernel, proc: Proc, path: str, args: Sequence[bytes]) -> None:
    """kern_execve(): run another program in the same process."""
    if not k.rules.may_exec(proc.cred):
        raise Errno("EACCES")
    if k.rules.exec_ends_threads():
        _kill_all_lwps(k, proc)
    lwp = k.thread_of(proc)
    lwp.tid = k.rules.tid_after_exec(lwp)
    proc.last_tid = k.rules.last_tid_after_exec(proc)
    signals.execsigs(k, proc)
    if k.rules.exec_ends_title():
        proc.title = lwp.title = b""
        lwp.held_back = 0
    proc.comm = path.rpartition("/")[2][:16]
    proc.path = path
    vector = b"".join(arg + b"\0" for arg in args)
    proc.args = vector if k.rules.keeps_title(k, vector) else b""
    proc.flags |= k.rules.exec_marks()
    release_vfork_parent(k, proc)
    if proc.cred.uid == proc.cred.ruid and proc.cred.gid == proc.cred.rgid:
        proc.flags &= ~ProcFlag.P_SUGID
    proc.cred = k.rules.caps_after_exec(k.rules.exec_saves_uid(proc.cred))
    proc.acflag &= ~AFORK
    if proc.flags & ProcFlag.P_TRACED:
        signals.ksignal(k, proc, SIGTRAP)


def exit1(k: Kernel, proc: Proc, status: int) -> None:
    """exit1(): become a zombie with STATUS, give the children away, tell the parent."""
    rules = k.rules
    proc.flags |= ProcFlag.P_WEXIT | P_POSTEXIT
    _kill_all_lwps(k, proc)
    proc.xstat = status & 0xFFFF
    proc.pending.clear()
    proc.lwp.notified.clear()
    terminals.close_all(k, proc)
    if rules.exit_lets_others_run():
        # It closes its files and gives its memory back, and may sleep over that before it is taken from any count.
        k.scheduler.run_others()
    if proc.is_session_leader:
        terminals.leader_exits(k, proc)
        if rules.exit_lets_others_run():
            k.scheduler.run_others()
        if rules.leader_exit_unleads():
            proc.session.leader = None
    if rules.exit_counts():
        jobs.fixjobc(k, proc, proc.group, entering=False)
    if release_vfork_parent(k, proc) and rules.vfork_exit_lets_others_run():
        # The parent held its child, which therefore cannot become a zombie before the parent has run: what it and
        # others do about signals that came meanwhile, dying for example, they do now.
        k.scheduler.run_others()
    if proc.holds and rules.exit_waits_for_holders():
        proc.waits_for_holders = True
        k.scheduler.exited(proc.lwp)
    else:
        _end(k, proc)


def hold(proc: Proc) -> None:
    """PHOLD(): keep a process in memory; whoever does is outside the model."""
    proc.holds += 1


def let_go(k: Kernel, proc: Proc) -> None:
    """PRELE(): a process that has exited meanwhile becomes a zombie with the last hold."""
    proc.holds -= 1
    if not proc.holds and proc.waits_for_holders:
        proc.waits_for_holders = False
        k.running = proc.lwp
        _end(k, proc)
        k.running = None
        k.scheduler.settle()


def _end(k: Kernel, proc: Proc) -> None:
    """exit1(): what comes after everybody has let go of the process."""
    rules = k.rules
    _proc_move_allproc_zombie(k, proc)
    reaper = reapers.exit_reaper(proc)
    if proc.children:
        heir = rules.reaper_inherits(k, proc, reapers.reaper_of(k, reaper))
        while proc.children:
            child = proc.children.pop(0)
            adopt(k, heir, child)
            child.signals_parent_with = "SIGCHLD"
            child.signalled_by_reaper = False
            if child.flags & ProcFlag.P_TRACED and rules.tracees_die_with_their_tracer():
                child.flags &= ~ProcFlag.P_TRACED
                signals.ksignal(k, child, SIGKILL)
            if sent := rules.deathsig_sent(child):
                signals.ksignal(k, child, sent)
        k.scheduler.wakeup(heir)
    assert proc.parent is not None
    if rules.forgoes_zombies(proc.parent):
        proc_reparent(k, proc, reapers.reaper_of(k, reaper))
    reapers.drop(reaper)
    if rules.exit_signals_parent():
        name = proc.signals_parent_with if proc.parent is not k.init else "SIGCHLD"
        signals.ksignal(k, proc.parent, NUMBERS[name])
    k.scheduler.wakeup(proc.parent)
    proc.flags &= ~ProcFlag.P_TRACED
    k.scheduler.exited(proc.lwp)


def _proc_move_allproc_zombie(k: Kernel, proc: Proc) -> None:
    """proc_move_allproc_zombie(): from here on pfind() does not see it."""
    proc.stat = ProcStat.SZOMB
    if k.rules.exit_stamps_pid():
        k.pids.stamp(proc.pid)
    if k.rules.group_is_left_at_exit():
        jobs.leavepgrp(k, proc)


def proc_reparent(k: Kernel, child: Proc, parent: Proc) -> None:
    """proc_reparent(): give a process another parent.  The old one is woken when it has no child left."""
    old = child.parent
    assert old is not None
    if old is parent:
        return
    old.children.remove(child)
    adopt(k, parent, child)
    child.signalled_by_reaper = False
    if not old.children:
        k.scheduler.wakeup(old)


def proc_remove_zombie(k: Kernel, child: Proc) -> None:
    """proc_remove_zombie(), and the rest of reaping: the process is gone, and its pid rests for a while."""
    assert child.parent is not None
    child.parent.children.remove(child)
    child.parent = None
    if k.procs.get(child.pid) is child:  # as it is, unless a wrong oracle gave the pid to two
        del k.procs[child.pid]
    if k.rules.reap_stamps_pid():
        k.pids.stamp(child.pid)
    jobs.leavepgrp(k, child)

# SPDX-License-Identifier: BSD-2-Clause
"""Terminals, as far as sessions and groups have them (tty.c, tty_tty.c, tty_pty.c, exit1(), pgrel(), sess_rele()).

Nothing is read or written but the keys that signal; what is open is counted, as the last close ends a session's hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from harness.oracle import jobs, signals
from harness.oracle.blocking import WouldBlock
from harness.oracle.model import Errno, File, Pgrp, Proc, Terminal
from harness.oracle.signals_table import NUMBERS, SIGTTIN, SIGTTOU
from harness.processes.kinfo import ProcFlag, ProcStat

if TYPE_CHECKING:
    from harness.oracle.kernel import Kernel

FIRST_DEVICE = 0x2000  # the number of the first terminal's device
NO_PID = 0x7FFFFFFF
KEYS = {b"\x03": "SIGINT", b"\x1c": "SIGQUIT", b"\x1a": "SIGTSTP"}


# ---- Opening and closing ------------------------------------------------------------------------------------------


def make(k: Kernel) -> Terminal:
    """ptyclone(): a new terminal, or one that nobody has open; its device has the lowest free number."""
    numbers = {one.number for one in k.terminals if one.is_open or one.master or one.held_by_session}
    number = next(n for n in range(FIRST_DEVICE, FIRST_DEVICE + 1000) if n not in numbers)
    k.terminals = [one for one in k.terminals if one.number != number]
    terminal = Terminal(number)
    k.terminals.append(terminal)
    return terminal


def install(proc: Proc, file: File) -> int:
    """fdalloc(): the lowest free descriptor."""
    fd = next(number for number in range(1000) if number not in proc.files)
    proc.files[fd] = file
    return fd


def open_slave(k: Kernel, proc: Proc, terminal: Terminal) -> int:
    """ptsopen(): it does not become the controlling terminal."""
    if error := k.rules.terminal_open_refused(proc.cred, terminal):
        raise Errno(error)
    file = File(terminal)
    terminal.files.append(file)
    return install(proc, file)


def open_dev_tty(k: Kernel, proc: Proc) -> int:
    """cttyopen(): the controlling terminal, opened once for all who have it open by this name."""
    terminal = controlling(k, proc)
    if terminal is None:
        raise Errno("ENXIO")
    if not terminal.open_as_tty:
        if terminal.is_open and proc.cred.prison:
            raise Errno("EBUSY")
        terminal.open_as_tty = True
    return install(proc, File(None))


def close(k: Kernel, proc: Proc, fd: int) -> None:
    """kern_close()."""
    if fd not in proc.files:
        raise Errno("EBADF")
    drop(k, proc, proc.files.pop(fd))


def drop(k: Kernel, proc: Proc, file: File) -> None:
    """fdrop(), ptsclose(), ptcclose(), cttyclose(): one descriptor less; the last one closes the file."""
    file.references -= 1
    if file.references or file.revoked:
        return
    if file.is_master and file.terminal is not None:
        _hang_up(k, file.terminal)
    elif file.terminal is not None:
        file.terminal.files.remove(file)
        _closed(k, proc, file.terminal)
    elif (terminal := controlling(k, proc)) is not None and not any(
        one.terminal is None and not one.is_master for other in k.procs.values() for one in other.files.values()
    ):
        terminal.open_as_tty = False
        _closed(k, proc, terminal)


def _hang_up(k: Kernel, terminal: Terminal) -> None:
    """ptcclose(), ttymodem(): the carrier is lost, and the leader of the session is told."""
    terminal.master = False
    leader = terminal.session.leader if terminal.session is not None else None
    if terminal.is_open and leader is not None:
        signals.ksignal(k, leader, NUMBERS["SIGHUP"])


def _closed(k: Kernel, proc: Proc, terminal: Terminal) -> None:
    """devfs_spec_close(), ptsclose(): the last close takes the terminal from its session."""
    if terminal.is_open:
        return
    if proc.pgrp is not None and proc.session.terminal is terminal:
        proc.session.has_terminal = False
    _clear_session(k, terminal)


def _clear_session(k: Kernel, terminal: Terminal) -> None:
    """ttyclose(), ttyclearsession()."""
    group, terminal.group, terminal.session = terminal.group, None, None
    if group is not None:
        jobs.pgrel(k, group)


# ---- Who has a terminal -------------------------------------------------------------------------------------------


def controlling(k: Kernel, proc: Proc) -> Terminal | None:
    """cttyvp(): the terminal of the session, for those who have not given it up and were not born before."""
    if not proc.flags & ProcFlag.P_CONTROLT or not proc.session.has_terminal:
        return None
    return proc.session.terminal


def _terminal(k: Kernel, proc: Proc, fd: int) -> Terminal:
    file = proc.files.get(fd)
    if file is None or file.revoked:
        raise Errno("EBADF")
    terminal = file.terminal if file.terminal is not None else controlling(k, proc)
    if terminal is None:
        raise Errno("EIO")
    return terminal


def set_controlling(k: Kernel, proc: Proc, fd: int) -> None:
    """TIOCSCTTY: the session's terminal from now on, its foreground the leader's group."""
    terminal = _terminal(k, proc, fd)
    if proc.files[fd].terminal is None:
        raise Errno("EINVAL")
    _from_background(k, proc, terminal)
    session = proc.session
    if error := k.rules.gaining_terminal_refused(proc, terminal):
        raise Errno(error)
    terminal.session = session
    _bring_to_foreground(k, terminal, proc.group)
    if session.terminal is not None:
        session.terminal.held_by_session -= 1
    terminal.held_by_session += 1
    session.terminal = terminal
    session.has_terminal = True
    proc.flags |= ProcFlag.P_CONTROLT


def _bring_to_foreground(k: Kernel, terminal: Terminal, group: Pgrp) -> None:
    old, terminal.group = terminal.group, group
    if k.rules.terminal_holds_group():
        group.references += 1
        if old is not None:
            jobs.pgrel(k, old)


def tcsetpgrp(k: Kernel, proc: Proc, fd: int, pgid: int) -> None:
    """TIOCSPGRP: bring another group to the foreground."""
    terminal = _terminal(k, proc, fd)
    _from_background(k, proc, terminal)
    if not k.rules.isctty(proc, terminal):
        raise Errno("ENOTTY")
    group = k.rules.pgfind(k, pgid)
    if error := k.rules.foreground_refused(proc, pgid, group):
        raise Errno(error)
    assert group is not None
    _bring_to_foreground(k, terminal, group)


def tcgetpgrp(k: Kernel, proc: Proc, fd: int) -> int:
    """TIOCGPGRP."""
    terminal = _terminal(k, proc, fd)
    if not k.rules.isctty(proc, terminal):
        raise Errno("ENOTTY")
    return terminal.group.pgid if terminal.group is not None else NO_PID


def tcgetsid(k: Kernel, proc: Proc, fd: int) -> int:
    """TIOCGSID."""
    terminal = _terminal(k, proc, fd)
    if not k.rules.isctty(proc, terminal) or terminal.session is None:
        raise Errno("ENOTTY")
    return terminal.session.sid


def give_up(k: Kernel, proc: Proc, fd: int) -> None:
    """TIOCNOTTY, which /dev/tty alone knows: have no controlling terminal any more."""
    _terminal(k, proc, fd)
    if proc.files[fd].terminal is not None:
        raise Errno("ENOTTY")
    if error := k.rules.giving_terminal_up_refused(proc):
        raise Errno(error)
    proc.flags &= ~ProcFlag.P_CONTROLT


def _from_background(k: Kernel, proc: Proc, terminal: Terminal) -> None:
    """ttioctl(): who is in the background is stopped, and tries again when continued."""
    caller = k.thread_of(proc)
    if not k.rules.waits_in_background(proc, caller, terminal):
        return
    if error := k.rules.background_refused(proc.group):
        raise Errno(error)
    pgsignal(k, proc.group, SIGTTOU)
    _try_again(k, proc, SIGTTOU)


def read(k: Kernel, proc: Proc, fd: int, size: int) -> bytes:
    """ttread(): a line, once it has ended; who is in the background is stopped, and tries again when continued."""
    terminal = _terminal(k, proc, fd)
    if k.rules.isctty(proc, terminal) and proc.group is not terminal.group:
        if error := k.rules.background_read_refused(proc, k.thread_of(proc)):
            raise Errno(error)
        pgsignal(k, proc.group, SIGTTIN)
        _try_again(k, proc, SIGTTIN)
    line, newline, rest = terminal.line.partition(b"\n")
    if not newline:
        raise WouldBlock
    terminal.line = (line + newline)[size:] + rest
    return (line + newline)[:size]


def _try_again(k: Kernel, proc: Proc, signal: int) -> NoReturn:
    """ttysleep(): it tries again each second, although stopped, and signals again.  Raises WouldBlock."""
    traced = bool(proc.flags & ProcFlag.P_TRACED)  # its tracer has been told, and decides
    if proc.stat is ProcStat.SSTOP and not traced and k.rules.background_signal_stays():
        proc.pending.add(signal)
    raise WouldBlock


# ---- Signals ------------------------------------------------------------------------------------------------------


def pgsignal(k: Kernel, group: Pgrp | None, signal: int) -> None:
    """pgsignal(): to the members of a group that have the terminal."""
    for member in list(group.members) if group is not None else ():
        if k.rules.terminal_signals(member):
            signals.ksignal(k, member, signal)


def press(k: Kernel, terminal: Terminal, key: bytes) -> None:
    """ttyinput(): a key that signals the foreground group, or one of a line, whose end wakes who reads."""
    if key in KEYS:
        terminal.line = b""
        send(k, terminal, NUMBERS[KEYS[key]])
    else:
        terminal.line += key
        for proc in k.procs.values():
            if any(file.terminal is terminal for file in proc.files.values()):
                k.scheduler.wakeup(proc)


def send(k: Kernel, terminal: Terminal, signal: int) -> None:
    """TIOCSIG of the master: a signal for the foreground group."""
    pgsignal(k, terminal.group, signal)


# ---- Losing it ----------------------------------------------------------------------------------------------------


def revoke(k: Kernel, proc: Proc, terminal: Terminal) -> None:
    """sys_revoke(): the owner's, who is root here."""
    if proc.cred.uid != 0:
        raise Errno("EPERM")
    _revoke(k, proc, terminal)


def _revoke(k: Kernel, proc: Proc, terminal: Terminal) -> None:
    """fdrevoke(): nobody has it open any more, and no session has it."""
    for other in k.procs.values():
        if other.pgrp is not None and not other.is_zombie and other.session.terminal is terminal:
            other.session.has_terminal = False
    for file in terminal.files:
        file.revoked = True
    terminal.files.clear()
    _closed(k, proc, terminal)


def leader_exits(k: Kernel, proc: Proc) -> None:
    """exit1(), ttyclosesession(): the foreground group is hung up, and the terminal revoked."""
    session = proc.session
    terminal = session.terminal
    if not session.has_terminal or terminal is None:
        return
    revokes = terminal.session is session
    if revokes and k.rules.leader_exit_hangs_up():
        pgsignal(k, terminal.group, NUMBERS["SIGHUP"])
    session.has_terminal = False
    terminal.open_as_tty = False
    if revokes and k.rules.leader_exit_revokes():
        _revoke(k, proc, terminal)


def close_all(k: Kernel, proc: Proc) -> None:
    """fdfree(): a process that exits closes what it has open."""
    while proc.files:
        drop(k, proc, proc.files.popitem()[1])


def inherit(parent: Proc, child: Proc) -> None:
    """fdcopy()."""
    child.files = dict(parent.files)
    for file in child.files.values():
        file.references += 1

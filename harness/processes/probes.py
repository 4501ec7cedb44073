# SPDX-License-Identifier: BSD-2-Clause
"""Looks at a running kernel that tell what its version does not: cheap, and harmless to kernels of either kind.

Each look is made by a process of its own.  An answer that neither kind of kernel gives leaves the question open.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from harness.errors import HarnessError
from harness.guests.features import KernelFacts
from harness.processes.hub import Hub
from harness.processes.remote import RemoteProcess
from harness.processes.vocabulary import WNOHANG, Fcntl, FdFlag, GuestError, IdType, WaitOption

_NOBODY = 65534  # a user id without any rights
_NO_JAIL = 0x7FFFFFFE
_ARGS, _LWKT_ALL = (1, 14, 7), (1, 14, 0x20)
_DRAIN = 3.0  # s in which an exit() that does not wait for ever is over; it takes about one
_LOOK = 0.05


class OpenQuestionError(HarnessError):
    """A kernel answered as neither kind does."""


Probe = Callable[[RemoteProcess], bool]


def _answer(call: Callable[[], object], present: str | None, absent: str | None) -> bool:
    """Tell by the errno CALL fails with, None standing for success: PRESENT or ABSENT."""
    try:
        call()
        outcome = None
    except GuestError as error:
        outcome = error.name
    if outcome not in {present, absent}:
        raise OpenQuestionError(f"it answers {outcome or 'without an error'}")
    return outcome == present


def _wait6(process: RemoteProcess) -> bool:
    options = WaitOption.WEXITED | WaitOption.WNOHANG
    return _answer(lambda: process.wait6(IdType.P_ALL, 0, options), "ECHILD", "ENOSYS")


def _lpmap(process: RemoteProcess) -> bool:
    return _answer(lambda: process.open("/dev/lpmap", os.O_RDWR), None, "ENOENT")


def _thread_titles(process: RemoteProcess) -> bool:
    return _answer(lambda: process.sysctl.kern_proc_args(process.pid, process.gettid()), None, "EINVAL")


def _pdeathsig(process: RemoteProcess) -> bool:
    return _answer(process.procctl_pdeathsig_status, None, "EINVAL")


def _signal128(process: RemoteProcess) -> bool:
    return _answer(lambda: process.sigaction_query(128), None, "EINVAL")


def _getcwd_enoent(process: RemoteProcess) -> bool:
    folder = f"/tmp/dfly-harness-probe-{process.pid}"  # noqa: S108  (in the guest)
    process.mkdir(folder)
    process.chdir(folder)
    process.rmdir(folder)
    return _answer(process.getcwd, "ENOENT", None)


def _bounded_drain(process: RemoteProcess) -> bool:
    """Let a session leader exit with output on its terminal that nobody reads, and read it if it does not end."""
    master, slave, name = process.openpty()
    leader = process.fork()
    leader.setsid()
    line = leader.open(name, os.O_RDWR)
    leader.set_controlling_tty(line)
    leader.close(master)
    leader.close(slave)
    leader.write(line, b"unread")
    leader.start.exit()
    end = time.monotonic() + _DRAIN
    while not (ended := bool(process.wait4(leader.pid, WNOHANG).pid)) and time.monotonic() < end:
        process.sleep(_LOOK)
    if not ended:
        process.read(master, 4096)
        process.wait4(leader.pid)
    return ended


def _lwkt(process: RemoteProcess) -> bool:
    return _answer(lambda: process.sysctl.size(_LWKT_ALL), None, "ENOENT")


def _syscap(process: RemoteProcess) -> bool:
    return _answer(lambda: process.syscap_get(0), None, "ENOSYS")


def _reap_kill(process: RemoteProcess) -> bool:
    # Of a process that is no reaper; nobody gets the signal.
    return _answer(lambda: process.procctl_reap_kill("SIGURG"), "ENOTCONN", "EINVAL")


def _clofork(process: RemoteProcess) -> bool:
    fd = process.open("/dev/null", os.O_RDONLY)
    with suppress(GuestError):  # one that refuses the flag has it not set
        process.fcntl(fd, Fcntl.F_SETFD, FdFlag.FD_CLOFORK)
    return bool(process.fcntl(fd, Fcntl.F_GETFD) & FdFlag.FD_CLOFORK)


def _bsd_ptys(process: RemoteProcess) -> bool:
    return _answer(lambda: process.syscall("access", "/dev/ptyp0", 0), None, "ENOENT")


def _size_queries(process: RemoteProcess) -> bool:
    return process.sysctl.size((*_ARGS, process.pid)) > 0


def _caps_hole(process: RemoteProcess) -> bool:
    # Entering a jail that does not exist: only root may get so far that it is looked for.
    process.setuid(_NOBODY)
    return _answer(lambda: process.jail_attach(_NO_JAIL), "EINVAL", "EPERM")


def _number(call: str, *arguments: int) -> Probe:
    """Tell whether a system call exists: with arguments that keep it from doing anything."""

    def probe(process: RemoteProcess) -> bool:
        try:
            process.syscall(call, *arguments)
        except GuestError as error:
            return error.name != "ENOSYS"
        return True  # those that return an errno never fail

    return probe


#: How each feature is seen; features without a look are those no harmless call shows.
PROBES: Mapping[str, Probe] = {
    "wait6": _wait6,
    "lpmap": _lpmap,
    "thread_titles": _thread_titles,
    "getrandom": _number("getrandom", 1, 8, 0),
    "getcwd_enoent": _getcwd_enoent,
    "pdeathsig": _pdeathsig,
    "signal128": _signal128,
    "clock_nanosleep": _number("clock_nanosleep", -1, 0, 0, 0),
    "fexecve": _number("fexecve", -1, 0, 0),
    "posix_fallocate": _number("posix_fallocate", -1, 0, 1),
    "fdatasync": _number("fdatasync", -1),
    "bounded_drain": _bounded_drain,
    "lwkt": _lwkt,
    "syscap": _syscap,
    "futimesat": _number("futimesat", -1, 0, 0),
    "reap_kill": _reap_kill,
    "clofork": _clofork,
    "bsd_ptys": _bsd_ptys,
    "size_queries": _size_queries,
    "caps_hole": _caps_hole,
}


def look(hub: Hub, name: str) -> bool:
    """Return whether the kernel behind HUB has a feature; OpenQuestionError if it answers as neither kind does."""
    process = hub.spawn()
    try:
        return PROBES[name](process)
    except GuestError as error:
        raise OpenQuestionError(f"{error.call} fails with {error.name}") from error
    finally:
        if not process.gone:
            process.exit()


def learn_facts(hub: Hub) -> KernelFacts:
    """Return what is known of the kernel behind HUB, asking it only what its version does not tell.

    Raises UnknownKernelError for a kernel whose process records are of no known size.
    """
    if not hub.abi.is_dragonfly:
        return KernelFacts()
    sysctl = hub.observer.sysctl
    facts = KernelFacts(sysctl.get_int("kern.osreldate"), sysctl.record_size())
    found = {}
    for name in facts.undecided:
        if name in PROBES:
            with suppress(OpenQuestionError):
                found[name] = look(hub, name)
    return KernelFacts(facts.osreldate, facts.record_size, found)

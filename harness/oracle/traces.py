# SPDX-License-Identifier: BSD-2-Clause
"""Traces: sequences of system calls as small numbers, so that they can be generated, shortened, stored and replayed.

A step says which operation, who and, by up to three numbers, whom and how.  The numbers choose among what there is at
that moment, so any sequence of steps makes sense.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from harness.files import write_whole
from harness.oracle.eras import Traits
from harness.processes.abi import DRAGONFLY
from harness.processes.vocabulary import Handler, IdType, RforkFlag, SigFlag, SigHow

MAX_PROCESSES = 12

SIGNALS = (
    0, "SIGHUP", "SIGKILL", "SIGTERM", "SIGSTOP", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGCONT", "SIGCONT", "SIGCONT",
    "SIGUSR1", "SIGCHLD", "SIGWINCH", "SIGINFO", "SIGABRT", 40, 100, 129, -1,
)  # fmt: skip
DEADLY = ("SIGHUP", "SIGKILL", "SIGTERM", "SIGUSR1", "SIGABRT", 100)
HARMLESS = (0, "SIGWINCH", "SIGINFO", 40, 129, -1)
DISPOSITION_SIGNALS = (
    "SIGCHLD", "SIGCHLD", "SIGCHLD", "SIGHUP", "SIGCONT", "SIGTERM", "SIGUSR1", "SIGTSTP", "SIGWINCH", "SIGKILL", 0,
)  # fmt: skip
FLAGS = (
    SigFlag(0), SigFlag.SA_RESTART, SigFlag.SA_NOCLDSTOP, SigFlag.SA_NOCLDWAIT, SigFlag.SA_RESETHAND,
    SigFlag.SA_NODEFER, SigFlag.SA_NOCLDSTOP | SigFlag.SA_RESTART,
)  # fmt: skip
MASKS: tuple[tuple[str, ...], ...] = (
    (), ("SIGCHLD",), ("SIGCONT",), ("SIGHUP", "SIGTERM"), ("SIGTSTP", "SIGUSR1"), ("SIGSTOP", "SIGKILL"),
)  # fmt: skip
UIDS = (0, 61_001, 61_002, -1)


@dataclass(frozen=True)
class Step:
    """One thing that happens: which operation, and four numbers that choose who, whom and how."""

    operation: str
    who: int = 0
    a: int = 0
    b: int = 0
    c: int = 0


@dataclass(frozen=True)
class Ref:
    """A process as an argument: its pid, which differs between two worlds.  `negative` for a process group."""

    index: int
    negative: bool = False

    def __str__(self) -> str:
        return f"-P{self.index}" if self.negative else f"P{self.index}"


@dataclass(frozen=True)
class JailRef:
    """A jail as an argument: its id, which differs between two worlds."""

    index: int

    def __str__(self) -> str:
        return f"jail {self.index + 1}"


@dataclass(frozen=True)
class TtyRef:
    """A terminal as an argument: its path, which differs between two worlds."""

    index: int

    def __str__(self) -> str:
        return f"terminal {self.index}"


@dataclass(frozen=True)
class DeviceRef:
    """A terminal as an argument: its device's number, which differs, too."""

    index: int

    def __str__(self) -> str:
        return f"terminal {self.index}"


@dataclass(frozen=True)
class Deed:
    """A step made concrete: the method to call and its arguments, Refs among them.  `kind` tells what it returns."""

    method: str
    arguments: tuple[Any, ...] = ()
    kind: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        options = (f"{name}={value}" for name, value in self.options)
        return f"{self.method}({', '.join((*map(_argument_text, self.arguments), *options))})"


class Situation(Protocol):
    """What the choice of a deed depends on."""

    @property
    def population(self) -> int:
        """How many processes there have ever been."""

    @property
    def threads(self) -> int:
        """How many threads there have ever been besides the first ones of processes."""

    @property
    def jails(self) -> int:
        """How many jails there have ever been."""

    @property
    def devices(self) -> frozenset[int]:
        """The terminals whose devices' numbers are known."""

    def descriptors(self, who: int) -> Sequence[int]:
        """Return what WHO has open."""

    def would_wait(self, who: int, fd: int) -> bool:
        """Whether WHO would be stopped for changing the terminal FD from the background."""

    def is_jailed(self, who: int) -> bool:
        """Whether WHO is in a jail."""

    def is_open(self, terminal: int) -> bool:
        """Whether anybody has a terminal's slave open."""

    def is_open_as_tty(self, terminal: int) -> bool:
        """Whether somebody has a terminal open by the name of /dev/tty."""

    def holds(self, index: int) -> int:
        """How often a process is held from outside."""

    def is_leaving(self, index: int) -> bool:
        """Whether a process has exited but for those who hold it."""

    def is_zombie(self, index: int) -> bool:
        """Whether a process has exited, be it reaped or not."""

    def is_thread(self, who: int) -> bool:
        """Whether WHO is a thread other than the first of a process."""

    def process_of(self, who: int) -> int:
        """Return the process that WHO, a process or a thread, is."""

    def has_threads(self, index: int) -> bool:
        """Whether a process has several threads."""

    def is_traced(self, index: int) -> bool:
        """Whether a process is traced."""

    def sibling_waits(self, who: int) -> bool:
        """Whether a call of another thread of the same process has not returned."""

    def is_nobody(self, index: int) -> bool:
        """Whether a process has lost all privileges, so that it may broadcast signals."""

    def has_undelivered(self, index: int) -> bool:
        """Whether a signal waits for a process that does not block it: then it can fork only in circles."""

    def members(self, who: int, whom: int | Ref) -> int:
        """How many living processes a signal to a group, the caller's own for 0, everybody for -1, would reach."""

    @property
    def somebody_waits(self) -> bool:
        """Whether a call has not returned."""

    @property
    def traits(self) -> Traits:
        """What the kernels of this era can do."""

    def descends(self, who: int, whom: int) -> bool:
        """Whether WHO is WHOM or descends from it."""

    def is_vforked(self, index: int) -> bool:
        """Whether somebody cannot go on until this process has exited or run a program."""

    def is_child_of_ours(self, who: int) -> bool:
        """Whether the parent of WHO is one of the processes of the trace."""


Chooser = Callable[[Situation, int, Step], "Deed | None"]


def save_trace(file: Path, why: str, steps: Sequence[Step]) -> None:
    """Write a trace with a sentence that says what it is about."""
    lines = ",\n    ".join(json.dumps(asdict(step)) for step in steps)
    write_whole(file, f'{{\n  "why": {json.dumps(why)},\n  "steps": [\n    {lines}\n  ]\n}}\n')


def load_trace(file: Path) -> tuple[str, list[Step]]:
    """Read a trace; return what it is about, and its steps."""
    content = json.loads(file.read_text())
    return content["why"], [Step(**step) for step in content["steps"]]


def choose(situation: Situation, who: int, step: Step) -> Deed | None:
    """Make STEP, taken by process WHO, concrete; None if it cannot be taken now."""
    needed = REQUIRES.get(step.operation)
    if needed is not None and not getattr(situation.traits, needed):
        return None
    if situation.is_thread(who) and step.operation in NOT_BY_THREADS:
        return None
    return OPERATIONS[step.operation](situation, who, step)


def _argument_text(argument: object) -> str:
    return str(argument.name) if isinstance(argument, Handler | SigHow | IdType) else str(argument)


# ---- Operations: from numbers to calls ---------------------------------------------------------------------------


def _process(world: Situation, number: int) -> Ref:
    return Ref(number % world.population)


def _process_or(world: Situation, number: int, *others: Any) -> Any:
    """Choose among OTHERS and all processes there have ever been."""
    number %= world.population + len(others)
    return others[number] if number < len(others) else Ref(number - len(others))


def _fork(world: Situation, _who: int, _step: Step) -> Deed | None:
    return Deed("fork", (), "process") if world.population < MAX_PROCESSES else None


def _fork_for_reaper(world: Situation, _who: int, _step: Step) -> Deed | None:
    flags = RforkFlag.RFPROC | RforkFlag.RFFDG | RforkFlag.RFNOWAIT
    return Deed("rfork", (flags,), "process") if world.population < MAX_PROCESSES else None


def _vfork(world: Situation, who: int, _step: Step) -> Deed | None:
    # Unlike fork(), it is not made through .start, so it must not be one that does not return.
    if world.population >= MAX_PROCESSES or world.has_undelivered(who) or world.has_threads(who):
        return None
    return Deed("vfork")


def _exit(world: Situation, who: int, step: Step) -> Deed | None:
    # Without P0 there is less to see: it leaves more rarely.
    return Deed("exit", ((step.a * 51) & 0xFF,)) if who or step.b % 4 == 0 else None


def _wait4(world: Situation, who: int, step: Step) -> Deed | None:
    if world.sibling_waits(
        who
    ):  # two threads that wait for the same children panic the kernels of 2017 on several CPUs
        return None
    whom = _process_or(world, step.a, -1, -1, 0)
    if isinstance(whom, Ref) and step.c % 3 == 0:
        whom = Ref(whom.index, negative=True)
    options = (1, 1, 0, 3, 5, 7, 6, 8)[step.b % 8]
    return Deed("wait4", (whom, options))


def _setpgid(world: Situation, _who: int, step: Step) -> Deed | None:
    return Deed("setpgid", (_process_or(world, step.a, 0), _process_or(world, step.b, 0, 0, -1, 1)))


def _kill(world: Situation, who: int, step: Step) -> Deed | None:
    return Deed("kill", (_process(world, step.a), SIGNALS[step.b % len(SIGNALS)]))


def _send(signal: str) -> Chooser:
    return lambda world, _who, step: Deed("kill", (_process(world, step.a), signal))


def _killpg(world: Situation, who: int, step: Step) -> Deed | None:
    whom = _process_or(world, step.a, 0, *((-1,) if world.is_nobody(who) else ()))
    whom = Ref(whom.index, negative=True) if isinstance(whom, Ref) else whom
    signal = SIGNALS[step.b % len(SIGNALS)]
    # Who of several dies first, and which of several children is ready when a waiting parent runs, is nobody's promise.
    if world.somebody_waits and signal not in HARMLESS:
        return None
    if signal in DEADLY and world.members(who, whom) > 1:
        return None
    return Deed("kill", (whom, signal))


def _sigaction(_world: Situation, _who: int, step: Step) -> Deed | None:
    number = DISPOSITION_SIGNALS[step.a % len(DISPOSITION_SIGNALS)]
    handler = (Handler.LOG, Handler.IGNORE, Handler.DEFAULT)[step.b % 3]
    return Deed("sigaction", (number, handler, FLAGS[step.c % len(FLAGS)], MASKS[step.b // 3 % len(MASKS)]))


def _sigprocmask(_world: Situation, _who: int, step: Step) -> Deed | None:
    return Deed("sigprocmask", (tuple(SigHow)[step.a % 3], MASKS[step.b % len(MASKS)]))


def _uids(_world: Situation, _who: int, step: Step) -> Deed | None:
    one, two, three = (UIDS[number % len(UIDS)] for number in (step.a, step.b, step.c))
    some = 61_001 if one == -1 else one  # a whole process of user -1 would be too strange
    deeds = (
        Deed("setuid", (some,)),
        Deed("seteuid", (some,)),
        Deed("setreuid", (one, two)),
        Deed("setresuid", (one, two, three)),
    )
    return deeds[step.a // len(UIDS) % 4]


def _plain(method: str, kind: str | None = None) -> Chooser:
    return lambda _world, _who, _step: Deed(method, (), kind)


def _about(method: str, kind: str | None = None) -> Chooser:
    return lambda world, _who, step: Deed(method, (_process_or(world, step.a, 0),), kind)


def _query(world: Situation, _who: int, step: Step) -> Deed | None:
    kind = ("kern_proc_pid", "kern_proc_pgrp", "kern_proc_uid", "kern_proc_ruid", "kern_proc_all")[step.a % 5]
    if kind == "kern_proc_all":
        return Deed(kind, (), "table")
    if kind in ("kern_proc_uid", "kern_proc_ruid"):
        return Deed(kind, (UIDS[step.b % 3],), "table")
    return Deed(kind, (_process(world, step.b),), "table")


def _setlogin(_world: Situation, _who: int, step: Step) -> Deed | None:
    return Deed("setlogin", (("somebody", "x" * 16, "x" * 17, "")[step.a % 4],))


# ---- Operations that came later, so that stored traces keep their meaning ----------------------------------------

WAIT6_KINDS = (IdType.P_PID, IdType.P_PID, IdType.P_PGID, IdType.P_SID, IdType.P_UID, IdType.P_ALL, IdType.P_CPUID)
DEATH_SIGNALS = (0, "SIGUSR1", "SIGCONT", "SIGWINCH", "SIGCHLD", "SIGSTOP", "SIGTERM", 127)
REAP_SIGNALS = ("SIGWINCH", "SIGCONT", "SIGINFO", "SIGUSR1", "SIGSTOP", 0, 128, -1)
CAPS = (0x19, 0x03, 0x40, 0x42, 0x44, 0x46, 0x04, 0x21, 0x02, 0x01, 0x00, 0xFF, 0x100, -1)
TITLES = (b"a title\0", b"a title", b"two\0words\0", b"x" * 300, b"\0")
INFO_FLAGS = (SigFlag.SA_SIGINFO, SigFlag.SA_SIGINFO | SigFlag.SA_RESTART, SigFlag.SA_SIGINFO | SigFlag.SA_NODEFER)


def _wait6(world: Situation, who: int, step: Step) -> Deed | None:
    if world.sibling_waits(who):
        return None
    kind = WAIT6_KINDS[step.a % len(WAIT6_KINDS)]
    whom = UIDS[step.c % 3] if kind is IdType.P_UID else _process_or(world, step.c, 0)
    # WNOHANG 1, WUNTRACED 2, WCONTINUED 4, WNOWAIT 8, WEXITED 0x10, WTRAPPED 0x20
    options = (0x11, 0x19, 0x10, 0x13, 0x1B, 0x05, 0x37, 0x01, 0x3F, 0x40)[step.b % 10]
    return Deed("wait6", (kind, whom, options))


def _kill_odd(world: Situation, _who: int, step: Step) -> Deed | None:
    return Deed("kill", (_process(world, step.a), (127, 128)[step.b % 2]))


def _sigaction_info(_world: Situation, _who: int, step: Step) -> Deed | None:
    number = DISPOSITION_SIGNALS[step.a % len(DISPOSITION_SIGNALS)]
    mask = MASKS[step.b % len(MASKS)]
    return Deed("sigaction", (number, Handler.LOG, INFO_FLAGS[step.c % len(INFO_FLAGS)], mask))


def _deathsig(_world: Situation, _who: int, step: Step) -> Deed | None:
    signal = DEATH_SIGNALS[step.a % len(DEATH_SIGNALS)]
    return Deed("procctl_pdeathsig", (signal,))


def _reap_kill(world: Situation, _who: int, step: Step) -> Deed | None:
    if world.somebody_waits:
        return None
    signal = REAP_SIGNALS[step.a % len(REAP_SIGNALS)]
    return Deed("procctl_reap_kill", (signal,), "reap", (("children_only", step.b % 2 == 1),))


def _syscap(world: Situation, who: int, step: Step) -> Deed | None:
    # What is done to the hub would last.
    parents = 0x10000 if step.b % 4 == 3 and world.is_child_of_ours(who) else 0
    cap = CAPS[step.a % len(CAPS)]
    if step.b % 3 == 0:
        return Deed("syscap_get", (cap | parents,))
    return Deed("syscap_set", (cap | parents, step.c % 5))


def _title(world: Situation, _who: int, step: Step) -> Deed | None:
    if step.b % 2:
        return Deed("kern_proc_args", (_process(world, step.a),), "title")
    return Deed("set_kern_proc_args", (_process_or(world, step.a, 0), TITLES[step.c % len(TITLES)]))


def _own_title(world: Situation, who: int, step: Step) -> Deed | None:
    return Deed("set_kern_proc_args", (Ref(world.process_of(who)), TITLES[step.a % len(TITLES)]))


def _attach(world: Situation, who: int, step: Step) -> Deed | None:
    whom = _process(world, step.a)
    # Attaching to one's own ancestor makes a circle of parents, which a kernel climbs for ever.  The end of a vforked
    # child wakes its parent of that moment, be it the tracer: who had vforked it would wait for ever.  The hub, which
    # wants no zombies, would be given back its child as one.
    if (whom.index != who and world.descends(who, whom.index)) or world.is_vforked(whom.index) or not whom.index:
        return None
    if world.has_threads(whom.index) or world.is_leaving(whom.index):
        return None
    return Deed("ptrace", ("PT_ATTACH", whom))


def _trace_me(world: Situation, who: int, _step: Step) -> Deed | None:
    # The hub lets nobody go on.
    return Deed("ptrace", ("PT_TRACE_ME", 0)) if world.is_child_of_ours(who) and not world.has_threads(who) else None


def _killpg_any(world: Situation, who: int, step: Step) -> Deed | None:
    """Any signal to any group, deadly or not; whether it matters who of the members runs first is found out before."""
    whom = _process_or(world, step.a, 0, *((-1,) if world.is_nobody(who) else ()))
    whom = Ref(whom.index, negative=True) if isinstance(whom, Ref) else whom
    return Deed("kill", (whom, (*DEADLY, "SIGSTOP", "SIGCONT", "SIGTSTP")[step.b % 9]))


def _reap_kill_any(_world: Situation, _who: int, step: Step) -> Deed | None:
    signal = (*DEADLY, "SIGSTOP", "SIGCONT", "SIGTSTP")[step.a % 9]
    return Deed("procctl_reap_kill", (signal,), "reap", (("children_only", step.b % 2 == 1),))


GIDS = (0, 61_011, 61_012, -1)
DRAWN_GROUPS = (9, 12, 15)  # lengths that no list of groups has by itself
DIRECTORIES = ("/", "/tmp", "/etc", "/dev")  # noqa: S108


def _gids(_world: Situation, _who: int, step: Step) -> Deed | None:
    one, two, three = (GIDS[number % len(GIDS)] for number in (step.a, step.b, step.c))
    some = 61_011 if one == -1 else one
    groups = [some, *range(100, 99 + DRAWN_GROUPS[step.b % 3])]
    deeds = (
        Deed("setgid", (some,)),
        Deed("setegid", (some,)),
        Deed("setregid", (one, two)),
        Deed("setresgid", (one, two, three)),
        Deed("setgroups", (groups,)),
    )
    return deeds[step.a // len(GIDS) % 5]


def _fork_at(world: Situation, who: int, step: Step) -> Deed | None:
    if world.population >= MAX_PROCESSES or world.has_undelivered(who):
        return None
    return Deed("fork_at", (_process(world, step.a), step.b % 3 == 0), "process")


def _query_any(world: Situation, _who: int, step: Step) -> Deed | None:
    """Any table, by process or by thread, with kernel threads or without."""
    lwp, lwkt = bool(step.c & 1), bool(step.c & 2) and world.traits.lwkt_flag
    options = (("lwp", lwp), *((("lwkt", True),) if lwkt else ()))
    kind = ("all", "pid", "pgrp", "uid", "ruid", "tty")[step.a % 6]
    if kind == "all":
        arguments: tuple[Any, ...] = ()
    elif kind in ("uid", "ruid"):
        arguments = (UIDS[step.b % 4],)
    elif kind == "tty":
        arguments = ((-1, 0)[step.b % 2],)
    else:
        arguments = (_process_or(world, step.b, 0, -1),)
    return Deed(f"kern_proc_{kind}", arguments, "table", options)


def _look_where(world: Situation, _who: int, step: Step) -> Deed | None:
    whom = _process_or(world, step.a, -1)
    if isinstance(whom, Ref) and world.is_leaving(whom.index):  # it has closed its directory: a panic
        return None
    if step.b % 2:
        return Deed("kern_proc_cwd", (whom,), "cwd")
    return Deed("kern_proc_pathname", (whom,), "path")


def _wait6_gid(world: Situation, _who: int, step: Step) -> Deed | None:
    return Deed("wait6", (IdType.P_GID, GIDS[step.a % 3], (0x11, 0x13, 0x19)[step.b % 3]))


def _trace_on(world: Situation, _who: int, step: Step) -> Deed | None:
    request = ("PT_CONTINUE", "PT_CONTINUE", "PT_DETACH", "PT_KILL")[step.b % 4]
    signal = (0, 0, "SIGUSR1", "SIGCONT", "SIGSTOP", "SIGTERM", 129)[step.c % 7]
    number = DRAGONFLY.signal_number(signal)
    return Deed("ptrace", (request, _process(world, step.a), 1, number))


MAX_THREADS = 5
#: What only the first thread does: the program that makes the calls is built that way.
NOT_BY_THREADS = frozenset({"fork", "rfork", "vfork", "fork_at", "reexec", "attach", "trace_me", "trace_on"})


def _thread(world: Situation, who: int, _step: Step) -> Deed | None:
    # Like vfork(), it is not made through .start.
    index = world.process_of(who)
    if world.threads >= MAX_THREADS or world.has_undelivered(who) or world.is_traced(index) or world.is_vforked(index):
        return None
    return Deed("thread")


def _leave_thread(world: Situation, who: int, _step: Step) -> Deed | None:
    return Deed("leave_thread") if world.is_thread(who) else None


def _lwp_kill(world: Situation, _who: int, step: Step) -> Deed | None:
    return Deed(
        "lwp_kill", (_process_or(world, step.a, -1, 0), (0, 1, 2, 3, 1, 2, -1)[step.c % 7], SIGNALS[step.b % 20])
    )


def _jail_attach(world: Situation, _who: int, step: Step) -> Deed | None:
    if step.a % 4 == 3 or not world.jails:
        return Deed("jail_attach", ((0, -1, 999_999)[step.b % 3],))
    return Deed("jail_attach", (JailRef(step.b % world.jails),))


MAX_HOLDS = 2


def _reexec(world: Situation, who: int, _step: Step) -> Deed | None:
    # Who is held waits before it runs another program, without a model.
    return None if world.holds(world.process_of(who)) else Deed("reexec")


def _hold(world: Situation, _who: int, step: Step) -> Deed | None:
    whom = _process(world, step.a)
    if world.is_zombie(whom.index) or world.holds(whom.index) >= MAX_HOLDS:
        return None
    return Deed("hold", (whom,))


def _let_go(world: Situation, _who: int, step: Step) -> Deed | None:
    held = [index for index in range(world.population) if world.holds(index)]
    return Deed("let_go", (Ref(held[step.a % len(held)]),)) if held else None


TERMINALS = 2
TTY_SIGNALS = ("SIGINT", "SIGTSTP", "SIGTSTP", "SIGHUP", "SIGCONT", "SIGUSR1", "SIGWINCH")


def _descriptor(world: Situation, who: int, number: int) -> int:
    """Choose among what WHO has open, and a descriptor that is not."""
    there = [*world.descriptors(who), *world.descriptors(who), 9]
    return there[number % len(there)]


def _on_descriptor(method: str, kind: str | None = None) -> Chooser:
    return lambda world, who, step: Deed(method, (_descriptor(world, who, step.a),), kind)


def _open_tty(world: Situation, who: int, step: Step) -> Deed | None:
    if len(world.descriptors(who)) >= 4:
        return None
    return Deed("open", ("/dev/tty" if step.b % 4 == 3 else TtyRef(step.a % TERMINALS), 2))


def _foreground(world: Situation, who: int, step: Step) -> Deed | None:
    fd = _descriptor(world, who, step.a)
    whom = _process_or(world, step.b, 0, 1_000_000) if step.c % 3 == 0 else _process(world, step.b)
    return None if world.would_wait(who, fd) else Deed("tcsetpgrp", (fd, whom))


def _set_tty(world: Situation, who: int, step: Step) -> Deed | None:
    fd = _descriptor(world, who, step.a)
    return None if world.would_wait(who, fd) else Deed("set_controlling_tty", (fd,))


def _terminal_signal(world: Situation, _who: int, step: Step) -> Deed | None:
    if not world.is_open(step.a % TERMINALS):
        return None
    number = DRAGONFLY.signal_number(TTY_SIGNALS[step.b % len(TTY_SIGNALS)])
    return Deed("terminal_signal", (step.a % TERMINALS, number))


def _revoke(world: Situation, who: int, step: Step) -> Deed | None:
    # What is open as /dev/tty stays open for ever, with nobody to close it.
    number = step.a % TERMINALS
    return None if world.is_jailed(who) or world.is_open_as_tty(number) else Deed("revoke", (TtyRef(number),))


def _ignore_ttou(_world: Situation, _who: int, step: Step) -> Deed | None:
    return Deed("sigaction", ("SIGTTOU", (Handler.IGNORE, Handler.DEFAULT)[step.a % 2]))


def _query_tty(world: Situation, _who: int, step: Step) -> Deed | None:
    number = step.a % TERMINALS
    if number not in world.devices:
        return None
    return Deed("kern_proc_tty", (DeviceRef(number),), "table", (("lwp", bool(step.b & 1)),))


OPERATIONS: Mapping[str, Chooser] = {
    "fork": _fork,
    "rfork": _fork_for_reaper,
    "vfork": _vfork,
    "exit": _exit,
    "reexec": _reexec,
    "wait4": _wait4,
    "setpgid": _setpgid,
    "own_group": lambda _world, _who, _step: Deed("setpgid", (0, 0)),
    "setsid": _plain("setsid", "pid"),
    "getpgid": _about("getpgid", "pid"),
    "getsid": _about("getsid", "pid"),
    "getppid": _plain("getppid", "pid"),
    "kill": _kill,
    "stop": _send("SIGSTOP"),
    "continue": _send("SIGCONT"),
    "killpg": _killpg,
    "sigaction": _sigaction,
    "sigprocmask": _sigprocmask,
    "sigpending": _plain("sigpending"),
    "signals": _plain("signals", "log"),
    "uids": _uids,
    "getlogin": _plain("getlogin"),
    "setlogin": _setlogin,
    "reap_acquire": _plain("procctl_reaper_acquire"),
    "reap_release": _plain("procctl_reaper_release"),
    "reap_status": _plain("procctl_reaper_status"),
    "query": _query,
    "wait6": _wait6,
    "kill_odd": _kill_odd,
    "sigaction_info": _sigaction_info,
    "deathsig": _deathsig,
    "deathsig_status": _plain("procctl_pdeathsig_status"),
    "reap_kill": _reap_kill,
    "syscap": _syscap,
    "title": _title,
    "own_title": _own_title,
    "gettid": _plain("gettid"),
    "jail": lambda _world, _who, step: Deed("jail", ("/",), "jail") if step.a % 3 == 0 else None,
    "attach": _attach,
    "trace_me": _trace_me,
    "trace_on": _trace_on,
    "killpg_any": _killpg_any,
    "reap_kill_any": _reap_kill_any,
    "gids": _gids,
    "fork_at": _fork_at,
    "query_any": _query_any,
    "look_where": _look_where,
    "chdir": lambda _world, _who, step: Deed("chdir", (DIRECTORIES[step.a % len(DIRECTORIES)],)),
    "wait6_gid": _wait6_gid,
    "getpid": _plain("getpid", "pid"),
    "thread": _thread,
    "leave_thread": _leave_thread,
    "lwp_kill": _lwp_kill,
    "jail_attach": _jail_attach,
    "hold": _hold,
    "let_go": _let_go,
    "open_tty": _open_tty,
    "set_tty": _set_tty,
    "drop_tty": _on_descriptor("drop_controlling_tty"),
    "close_tty": _on_descriptor("close"),
    "foreground": _foreground,
    "tty_group": _on_descriptor("tcgetpgrp", "pid"),
    "tty_session": _on_descriptor("tcgetsid", "pid"),
    "tty_signal": _terminal_signal,
    "revoke_tty": _revoke,
    "ignore_ttou": _ignore_ttou,
    "query_tty": _query_tty,
}
#: How often each operation comes.
WEIGHTS: Mapping[str, int] = {
    "fork": 5,
    "exit": 4,
    "wait4": 6,
    "setpgid": 6,
    "kill": 7,
    "killpg": 3,
    "sigaction": 4,
    "own_group": 4,
    "kill_odd": 1,
    "sigaction_info": 1,
    "title": 1,
    "own_title": 1,
    "gettid": 1,
    "jail": 1,
    "attach": 1,
    "trace_me": 1,
    "deathsig_status": 1,
    "reap_kill_any": 1,
    "fork_at": 3,
    "chdir": 1,
    "wait6_gid": 1,
    "getpid": 1,
    "leave_thread": 1,
    "open_tty": 3,
    "set_tty": 3,
    "foreground": 3,
    "drop_tty": 1,
    "close_tty": 1,
    "tty_group": 1,
    "tty_session": 1,
    "revoke_tty": 1,
    "ignore_ttou": 1,
    "query_tty": 1,
}
#: The trait of an era without which an operation cannot be taken.
REQUIRES: Mapping[str, str] = {
    "wait6": "wait6",
    "deathsig": "deathsig",
    "deathsig_status": "deathsig",
    "reap_kill": "reap_kill",
    "reap_kill_any": "reap_kill",
    "wait6_gid": "wait6",
    "syscap": "syscap",
}


_TERMINAL = (Step("open_tty"), Step("set_tty"))
#: How traces begin: chance would rarely find the way to where it becomes interesting.
PRELUDES: Sequence[tuple[Step, ...]] = (
    (),
    (),
    _TERMINAL,
    (*_TERMINAL, Step("fork"), Step("own_group", 1), Step("fork", 1), Step("fork")),
    (Step("fork"), Step("thread", 1), Step("thread", 1)),
)


def steps(traits: Traits, *, min_size: int = 0, max_size: int = 60) -> SearchStrategy[list[Step]]:
    """Return hypothesis' strategy for traces on kernels with these traits."""
    possible = [name for name in OPERATIONS if name not in REQUIRES or getattr(traits, REQUIRES[name])]
    operations = [name for name in possible for _ in range(WEIGHTS.get(name, 2))]
    number = st.integers(0, 23)
    step = st.builds(Step, st.sampled_from(operations), st.integers(0, MAX_PROCESSES - 1), number, number, number)
    rest = st.lists(step, min_size=min_size, max_size=max_size)
    return st.builds(lambda prelude, rest: [*prelude, *rest], st.sampled_from(PRELUDES), rest)

"""Oracle and kernel in lockstep: the same calls in both worlds, every result and every row of the table compared.

A trace is a list of steps, each a few small numbers, of which any sequence makes sense: numbers choose among what
there is at that moment.  So a trace can be generated, shortened and replayed blindly.  Processes are called P0, P1, ...
in the order of their birth in both worlds, whatever their pids are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import HarnessError
from harness.oracle import views
from harness.oracle.oracle import Oracle, make_oracle
from harness.oracle.process import OraclePending, OracleProcess
from harness.processes.hub import Hub
from harness.processes.kinfo import KinfoProc, ProcFlag, ProcStat, ProcTable
from harness.processes.remote import RemoteProcess
from harness.processes.vocabulary import (
    GuestError,
    Handler,
    ProcessGone,
    RforkFlag,
    SigAction,
    SigFlag,
    SigHow,
    SignalRecord,
    WaitResult,
    signal_text,
)

CALL_DEADLINE = 10.0  # s the kernel may take for a call the oracle says returns
SETTLE_DEADLINE = 5.0  # s until everybody has done what a step makes them do
PAUSE = 0.004  # s between two looks at a table that is not as expected yet
MAX_PROCESSES = 12

SIGNALS = (
    0, "SIGHUP", "SIGKILL", "SIGTERM", "SIGSTOP", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGCONT", "SIGCONT", "SIGCONT",
    "SIGUSR1", "SIGCHLD", "SIGWINCH", "SIGINFO", "SIGABRT", 40, 100, 129, -1,
)  # fmt: skip
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
# What a table row is compared by: everything the model claims to know.
SHOWN_FLAGS = (
    ProcFlag.P_PPWAIT | ProcFlag.P_SUGID | ProcFlag.P_WAITED | ProcFlag.P_WEXIT | ProcFlag.P_EXEC | ProcFlag.P_CONTINUED
    | ProcFlag.P_CONTROLT | ProcFlag.P_SYSTEM
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One thing that happens: which operation, and four numbers that choose who, whom and how."""

    operation: str
    who: int = 0
    a: int = 0
    b: int = 0
    c: int = 0


class DisagreementError(HarnessError):
    """The kernel did something else than the oracle says it does."""

    def __init__(self, what: str, log: Sequence[str]) -> None:
        self.log = tuple(log)
        super().__init__("\n".join((*log, f"DISAGREEMENT: {what}")))


@dataclass(frozen=True)
class Ref:
    """A process as an argument: its pid, which differs between the worlds.  `negative` for a process group."""

    index: int
    negative: bool = False

    def __str__(self) -> str:
        return f"-P{self.index}" if self.negative else f"P{self.index}"


@dataclass
class Pair:
    """The same process in both worlds."""

    oracle: OracleProcess
    guest: RemoteProcess


@dataclass
class Started:
    """A call that has not returned in the oracle."""

    text: str
    index: int
    oracle: OraclePending[Any]
    guest: Any


Chooser = Callable[["Lockstep", int, Step], "tuple[str, tuple[Any, ...], str | None] | None"]


@dataclass
class Lockstep:
    """Two worlds and what has happened in them.  Each trace needs a fresh one; kill the hub's processes after it."""

    hub: Hub
    variant: str | None = None
    calls: int = 0  # system calls made in both worlds
    log: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._oracle: Oracle = make_oracle(self.variant)
        self.pairs.append(Pair(self._oracle.spawn(), self.hub.spawn()))
        self._do(0, "setlogin", ("lockstep",), "")

    def run(self, steps: Iterable[Step]) -> None:
        """Take all STEPS; raises DisagreementError at the first difference."""
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        """Take one step, if somebody is there to take it."""
        actors = [index for index, pair in enumerate(self.pairs) if self._can_act(pair.oracle)]
        if not actors:
            return
        who = actors[step.who % len(actors)]
        chosen = OPERATIONS[step.operation](self, who, step)
        if chosen is None:
            return
        method, arguments, kind = chosen
        self._do(who, method, arguments, kind)

    def _can_act(self, process: OracleProcess) -> bool:
        proc = process.model
        return not process.gone and proc.stat is ProcStat.SACTIVE and not proc.calls and proc.waits_for_vfork is None

    # ---- one call in both worlds ----

    def _do(self, who: int, method: str, arguments: tuple[Any, ...], kind: str | None) -> None:
        pair = self.pairs[who]
        text = f"P{who}.{method}({', '.join(map(_argument_text, arguments))})"
        self.log.append(text)
        self.calls += 1
        if method == "vfork":
            self._vfork(pair)
        else:
            theirs = self._start(pair.guest, method, arguments, 1)
            ours = self._start(pair.oracle, method, arguments, 0)
            if method == "exit":
                pass  # the table tells; the kernel may close the channel late, because others hold it open, too
            elif ours.done:
                self._compare(text, ours, theirs, kind)
            else:
                self.log[-1] += "  ... does not return yet"
                self.started.append(Started(text, who, ours, theirs))
        self._settle()

    def _vfork(self, pair: Pair) -> None:
        child = pair.oracle.vfork()
        self.pairs.append(Pair(child, pair.guest.vfork()))
        self.log[-1] += f" -> P{len(self.pairs) - 1}"

    def _start(
        self, process: OracleProcess | RemoteProcess, method: str, arguments: tuple[Any, ...], world: int
    ) -> Any:
        own = [self._pid(one, world) if isinstance(one, Ref) else one for one in arguments]
        target = process.start.sysctl if method.startswith("kern_proc") else process.start
        return getattr(target, method)(*own)

    def _pid(self, reference: Ref, world: int) -> int:
        pair = self.pairs[reference.index]
        pid = (pair.oracle if world == 0 else pair.guest).pid
        return -pid if reference.negative else pid

    def _compare(self, text: str, ours: Any, theirs: Any, kind: str | None) -> None:
        expected = self._outcome(ours, 0, kind)
        found = self._outcome(theirs, 1, kind)
        if kind == "process" and expected[0] == found[0] == "returns":
            self.pairs.append(Pair(expected[1], found[1]))
            self.log[-1] += f" -> P{len(self.pairs) - 1}"
            return
        self.log[-1] += f" -> {_outcome_text(expected)}"
        if expected != found:
            said, did = expected[1], found[1]
            if isinstance(said, dict) and isinstance(did, dict):
                raise DisagreementError(f"{text}: {_difference(said, did)}", self.log)
            raise DisagreementError(
                f"{text}: the oracle says {_outcome_text(expected)}, the kernel {_outcome_text(found)}", self.log
            )

    def _outcome(self, pending: Any, world: int, kind: str | None) -> tuple[str, Any]:
        try:
            value = pending.result() if world == 0 else pending.result(CALL_DEADLINE)
        except GuestError as error:
            return ("fails", error.name)
        except ProcessGone:
            return ("gone", None)
        except HarnessError as error:
            raise DisagreementError(f"the kernel does not return, the oracle does: {error}", self.log) from error
        return ("returns", self._normal(value, world, kind))

    # ---- what both worlds call by the same name ----

    def _names(self, world: int) -> dict[int, str]:
        names = {(pair.oracle if world == 0 else pair.guest).pid: f"P{i}" for i, pair in enumerate(self.pairs)}
        names[self._oracle.hub_pid if world == 0 else self.hub.pid] = "HUB"
        return names

    def _normal(self, value: Any, world: int, kind: str | None) -> Any:
        if kind == "process":
            return value
        names = self._names(world)
        if isinstance(value, WaitResult):
            return (names.get(value.pid, value.pid), str(value.status) if value.status else None)
        if isinstance(value, SigAction):
            return (value.handler, value.flags, frozenset(map(signal_text, value.mask)))
        if isinstance(value, frozenset):
            return frozenset(map(signal_text, value))
        if isinstance(value, ProcTable) or (isinstance(value, list) and all(isinstance(v, KinfoProc) for v in value)):
            return {
                names[row.pid]: self._row(row, names) for row in value if row.pid in names and names[row.pid] != "HUB"
            }
        if isinstance(value, list):
            return _signals(value)
        if kind == "pid":
            return names.get(value, value)
        if kind == "reaper":
            return (value.owned, value.real_init, value.references, names.get(value.first_child, value.first_child))
        return value

    @staticmethod
    def _row(row: KinfoProc, names: Mapping[int, str]) -> dict[str, Any]:
        return {
            "ppid": names.get(row.ppid, row.ppid),
            "pgid": names.get(row.pgid, row.pgid),
            "sid": names.get(row.sid, row.sid),
            "jobc": row.jobc,
            "stat": row.stat,
            "flags": row.flags & SHOWN_FLAGS,
            "holds": row.lock,
            "acflag": row.acflag,
            "uids": (row.uid, row.ruid, row.svuid),
            "login": row.login,
            "exitstat": row.exitstat,
            "threads": row.nthreads,
            "pending": row.siglist | row.lwp.siglist,
            "mask": row.lwp.sigmask,
            "ignored": row.sigignore,
            "caught": row.sigcatch,
            "sigflag": row.sigflag,
            "auxflags": row.auxflags,
            "comm": row.comm,
        }

    # ---- afterwards ----

    def _settle(self) -> None:
        """Wait until the kernel's table is what the oracle's is, and compare the calls that had been waiting."""
        expected = self._table(0)
        deadline = time.monotonic() + SETTLE_DEADLINE
        while (found := self._table(1)) != expected:
            if time.monotonic() > deadline:
                raise DisagreementError(_difference(expected, found), self.log)
            time.sleep(PAUSE)
        for call in [call for call in self.started if call.oracle.done]:
            self.started.remove(call)
            self.log.append(f"    {call.text} returns at last")
            self._compare(call.text, call.oracle, call.guest, None)
        for call in self.started:
            if call.guest.done:
                raise DisagreementError(f"{call.text} has returned in the kernel, but not in the oracle", self.log)

    def _table(self, world: int) -> dict[str, dict[str, Any]]:
        if world == 0:
            kernel = self._oracle.kernel
            table = views.kern_proc_all(kernel, kernel.init)
        else:
            table = self.hub.observer.sysctl.kern_proc_all()
        normal: dict[str, dict[str, Any]] = self._normal(table, world, None)
        return normal


def _signals(records: Sequence[SignalRecord]) -> object:
    """What a log says; how many SIGCHLDs melt into one, and when they come, depends on who runs first."""
    names = [signal_text(record.signal) for record in records]
    return frozenset(names) if "SIGCHLD" in names else tuple(names)


def _argument_text(argument: object) -> str:
    return str(argument.name) if isinstance(argument, Handler | SigHow) else str(argument)


def _outcome_text(outcome: tuple[str, Any]) -> str:
    kind, value = outcome
    if kind == "gone":
        return "the process is gone"
    if isinstance(value, dict):
        return f"rows of {', '.join(value) or 'nobody'}"
    return str(value)


def _difference(expected: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in expected:
            lines.append(f"{name} is gone in the oracle, the kernel has {found[name]}")
        elif name not in found:
            lines.append(f"{name} is gone in the kernel, the oracle has {expected[name]}")
        else:
            lines += [
                f"{name}'s {key}: the oracle says {value!s}, the kernel {found[name][key]!s}"
                for key, value in expected[name].items()
                if value != found[name][key]
            ]
    return "; ".join(lines)


# ---- Operations: from numbers to calls -------------------------------------------------------------------------------


def _process(world: Lockstep, number: int) -> Ref:
    return Ref(number % len(world.pairs))


def _process_or(world: Lockstep, number: int, *others: Any) -> Any:
    """Choose among OTHERS and all processes there have ever been."""
    number %= len(world.pairs) + len(others)
    return others[number] if number < len(others) else Ref(number - len(others))


def _is_nobody(world: Lockstep, who: int) -> bool:
    cred = world.pairs[who].oracle.model.cred
    return cred.uid != 0 and cred.ruid != 0


def _fork(world: Lockstep, _who: int, _step: Step) -> Any:
    return ("fork", (), "process") if len(world.pairs) < MAX_PROCESSES else None


def _fork_for_reaper(world: Lockstep, _who: int, _step: Step) -> Any:
    flags = RforkFlag.RFPROC | RforkFlag.RFFDG | RforkFlag.RFNOWAIT
    return ("rfork", (flags,), "process") if len(world.pairs) < MAX_PROCESSES else None


def _vfork(world: Lockstep, _who: int, _step: Step) -> Any:
    return ("vfork", (), None) if len(world.pairs) < MAX_PROCESSES else None


def _exit(world: Lockstep, who: int, step: Step) -> Any:
    # The last one who can act does not leave: traces are meant to have an end of their own.
    return ("exit", ((step.a * 51) & 0xFF,), None) if who or step.b % 4 == 0 else None


def _wait4(world: Lockstep, _who: int, step: Step) -> Any:
    whom = _process_or(world, step.a, -1, -1, 0)
    if isinstance(whom, Ref) and step.c % 3 == 0:
        whom = Ref(whom.index, negative=True)
    options = (1, 1, 0, 3, 5, 7, 6, 8)[step.b % 8]
    return ("wait4", (whom, options), None)


def _setpgid(world: Lockstep, _who: int, step: Step) -> Any:
    return ("setpgid", (_process_or(world, step.a, 0), _process_or(world, step.b, 0, 0, -1, 1)), None)


def _kill(world: Lockstep, who: int, step: Step) -> Any:
    return ("kill", (_process(world, step.a), SIGNALS[step.b % len(SIGNALS)]), None)


def _killpg(world: Lockstep, who: int, step: Step) -> Any:
    whom = _process_or(world, step.a, 0, *((-1,) if _is_nobody(world, who) else ()))
    whom = Ref(whom.index, negative=True) if isinstance(whom, Ref) else whom
    return ("kill", (whom, SIGNALS[step.b % len(SIGNALS)]), None)


def _sigaction(_world: Lockstep, _who: int, step: Step) -> Any:
    number = DISPOSITION_SIGNALS[step.a % len(DISPOSITION_SIGNALS)]
    handler = (Handler.LOG, Handler.IGNORE, Handler.DEFAULT)[step.b % 3]
    return ("sigaction", (number, handler, FLAGS[step.c % len(FLAGS)], MASKS[step.b // 3 % len(MASKS)]), None)


def _sigprocmask(_world: Lockstep, _who: int, step: Step) -> Any:
    return ("sigprocmask", (tuple(SigHow)[step.a % 3], MASKS[step.b % len(MASKS)]), None)


def _uids(_world: Lockstep, _who: int, step: Step) -> Any:
    one, two, three = (UIDS[number % len(UIDS)] for number in (step.a, step.b, step.c))
    kind = (step.a // len(UIDS)) % 4
    if kind < 2 and one == -1:
        one = 61_001
    return (
        (("setuid", (one,)), ("seteuid", (one,)), ("setreuid", (one, two)), ("setresuid", (one, two, three)))[kind]
    ) + (None,)


def _plain(method: str, kind: str | None = None) -> Chooser:
    return lambda _world, _who, _step: (method, (), kind)


def _about(method: str, kind: str | None = None) -> Chooser:
    return lambda world, _who, step: (method, (_process_or(world, step.a, 0),), kind)


def _query(world: Lockstep, _who: int, step: Step) -> Any:
    kind = ("kern_proc_pid", "kern_proc_pgrp", "kern_proc_uid", "kern_proc_ruid", "kern_proc_all")[step.a % 5]
    if kind == "kern_proc_all":
        return (kind, (), None)
    if kind in ("kern_proc_uid", "kern_proc_ruid"):
        return (kind, (UIDS[step.b % 3],), None)
    return (kind, (_process(world, step.b),), None)


def _setlogin(_world: Lockstep, _who: int, step: Step) -> Any:
    return ("setlogin", (("somebody", "x" * 16, "x" * 17, "")[step.a % 4],), None)


OPERATIONS: Mapping[str, Chooser] = {
    "fork": _fork,
    "rfork": _fork_for_reaper,
    "vfork": _vfork,
    "exit": _exit,
    "reexec": _plain("reexec"),
    "wait4": _wait4,
    "setpgid": _setpgid,
    "setsid": _plain("setsid", "pid"),
    "getpgid": _about("getpgid", "pid"),
    "getsid": _about("getsid", "pid"),
    "getppid": _plain("getppid", "pid"),
    "kill": _kill,
    "killpg": _killpg,
    "sigaction": _sigaction,
    "sigprocmask": _sigprocmask,
    "sigpending": _plain("sigpending"),
    "signals": _plain("signals"),
    "uids": _uids,
    "getlogin": _plain("getlogin"),
    "setlogin": _setlogin,
    "reap_acquire": _plain("procctl_reaper_acquire"),
    "reap_release": _plain("procctl_reaper_release"),
    "reap_status": _plain("procctl_reaper_status", "reaper"),
    "query": _query,
}
#: How often each operation comes.
WEIGHTS: Mapping[str, int] = {"fork": 5, "exit": 4, "wait4": 6, "setpgid": 6, "kill": 7, "killpg": 3, "sigaction": 4}

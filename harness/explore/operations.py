# SPDX-License-Identifier: BSD-2-Clause
"""The operations that are explored: what one of the processes of a small family does to another, or to itself."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGSTOP
from typing import Any

from harness.errors import UsageError
from harness.processes import (
    WEXITED,
    WNOHANG,
    WNOWAIT,
    GuestError,
    IdType,
    Pending,
    ProcTable,
    RemoteProcess,
    RemoteThread,
)
from harness.processes.kinfo import KinfoProc, ProcStat
from harness.races.schedule import Driven

_SOMEBODY = 1001
_NOTE_EXIT = 0x80000000  # sys/event.h
_PROCFS = "/tmp/explored-procfs"  # noqa: S108  (in the guest)


@dataclass
class Scene:
    """A parent and its child, the target; a group of the target's own, and others who look at it.

    Each operation is made by somebody of its own, whom the scene makes: `first` and `second` are taken in turn.
    """

    init: RemoteProcess
    parent: RemoteProcess
    target: RemoteProcess
    actors: list[Driven] = field(default_factory=list)
    #: What its operations are called.
    names: tuple[str, ...] = ()
    #: What else there is to see at the end, in words.
    sights: list[Callable[[], str]] = field(default_factory=list)
    #: What was prepared for an operation of somebody's: a descriptor, or another number.
    prepared: dict[tuple[str, Driven], int] = field(default_factory=dict)
    #: The pids of those who were stopped when they were looked at last.
    stopped: frozenset[int] = frozenset()
    _terminal: str = ""

    @classmethod
    def set(cls, init: RemoteProcess, names: tuple[str, ...] = ()) -> Scene:
        """Return a fresh one, of children of INIT, for the operations called NAMES."""
        parent = init.fork()
        target = parent.fork()
        parent.setpgid(target.pid, target.pid)
        return cls(init, parent, target, names=names)

    def terminal(self) -> str:
        """Return the path of a terminal, whose session the target leads from the first call on."""
        if not self._terminal:
            _, _, self._terminal = self.init.openpty()
            self.parent.setpgid(self.target.pid, self.parent.getpgrp())
            self.target.setsid()
        return self._terminal

    def actor(self, kind: str) -> Driven:
        """Return somebody who may act: `target`, a thread of `parent`, or an `other` process.

        Two operations of the target's are made by two of its threads.
        """
        made: Driven
        if kind == "target":
            made = self.target if self.target not in self.actors else self.target.thread()
        elif kind == "parent":
            made = self.parent.thread()
        else:
            made = self.init.fork()
        self.actors.append(made)
        return made

    @property
    def roles(self) -> dict[int, str]:
        """Who is who by pid."""
        found = {self.init.pid: "init", self.parent.pid: "parent", self.target.pid: "target"}
        for number, actor in enumerate(self.actors):
            found.setdefault(actor.pid, f"actor{number}")
        return found

    def named(self, text: str) -> str:
        """Return TEXT with the names of those whose pids it has."""
        roles = self.roles
        return re.sub(r"\b\d+\b", lambda found: roles.get(int(found[0]), found[0]), text)

    def state(self) -> str:
        """Return what has become of all in it, in words."""
        roles, rows = self.roles, self.init.sysctl.kern_proc_all()
        self.stopped = frozenset(row.pid for row in rows if row.stat == ProcStat.SSTOP)
        seen = [_row(row, roles) for row in sorted(rows, key=lambda row: row.pid) if row.pid in roles]
        return "; ".join([*seen, *(sight() for sight in self.sights)])

    def has_ended(self, who: Driven) -> bool:
        """Tell whether WHO is a thread that is no more, though its connection is open.

        It is where it meant to go on as another program, and another thread of its process was faster.
        """
        if not isinstance(who, RemoteThread):
            return False
        return who.tid not in {row.lwp.tid for row in self.init.sysctl.kern_proc_pid(who.pid, lwp=True)}


def _row(row: KinfoProc, roles: Mapping[int, str]) -> str:
    terminal = ", on a terminal" if row.tdev is not None else ""
    jailed = ", jailed" if row.jailid else ""
    word = {ProcStat.SZOMB: "zombie", ProcStat.SSTOP: "stopped"}.get(row.stat, "alive")  # type: ignore[call-overload]
    ids = ", ".join(
        f"{name} {roles.get(value, 'somebody')}"
        for name, value in (("of", row.ppid), ("group", row.pgid), ("session", row.sid))
    )
    return f"{roles[row.pid]} {word} {ids}, uid {row.uid}{terminal}{jailed}"


Say = Callable[[Any, Scene], str]


def _plain(result: Any, scene: Scene) -> str:
    del scene
    return repr(result)


def _rows(result: Any, scene: Scene) -> str:
    """Name who is listed; not the children that come and go, which live longer than their parents' calls."""
    rows = result if isinstance(result, ProcTable | list) else []
    return " ".join(str(row.pid) for row in rows if isinstance(row, KinfoProc) and row.pid in scene.roles)


def _done(result: Any, scene: Scene) -> str:
    del result, scene
    return "done"


def _gone(result: Any, scene: Scene) -> str:
    del result, scene
    return "gone"


def _waited(result: Any, scene: Scene) -> str:
    del scene
    return f"{result.pid} {result.raw_status:#x}" if result.pid else "nobody"


@dataclass(frozen=True)
class Operation:
    """Something that one of the scene does: who, by which call, and how its result is told in words."""

    name: str
    who: str
    start: Callable[[Driven, Scene], Pending[Any]]
    say: Say = _plain
    #: Of the kernel's features, what it takes.
    feature: str = ""
    #: Whether it only looks: two of these leave all as it was.
    looks: bool = False
    prepare: Callable[[Driven, Scene], None] = lambda _who, _scene: None


def _table(name: str, say: Say, *arguments: str, lwp: bool = False) -> Operation:
    def start(who: Driven, scene: Scene) -> Pending[Any]:
        asked = {"pid": scene.target.pid}
        more = {"lwp": True} if lwp else {}
        return getattr(who.start.sysctl, f"kern_proc_{name}")(*[asked[each] for each in arguments], **more)  # type: ignore[no-any-return]

    return Operation(f"{name}-lwp" if lwp else name, "other", start, say, looks=True)


def _by(method: str, *arguments: Any, who: str = "target", say: Say = _done, **more: Any) -> Operation:
    name = more.pop("name", method)
    return Operation(name, who, lambda actor, _: getattr(actor.start, method)(*arguments), say, **more)


def _at_target(method: str, *arguments: Any, who: str, say: Say = _done, **more: Any) -> Operation:
    name = more.pop("name", method)
    return Operation(
        name, who, lambda actor, scene: getattr(actor.start, method)(scene.target.pid, *arguments), say, **more
    )


def _acquire(who: Driven, scene: Scene) -> None:
    del scene
    try:
        who.procctl_reaper_acquire()
    except GuestError as error:  # for another operation of the same process
        if error.name != "EALREADY":
            raise


def _join_parent(who: Driven, scene: Scene) -> None:
    """Let the target lead no group any more."""
    del who
    scene.parent.setpgid(scene.target.pid, scene.parent.getpgrp())


def _attach(who: Driven, scene: Scene) -> None:
    who.ptrace("PT_ATTACH", scene.target.pid)
    who.wait4(scene.target.pid)


_ALL = [
    _by("exit", 3, say=_gone),  # also where another thread was faster
    _by("storm", 1, name="fork"),  # and the child's end, and the wait for it: a child killed early is never heard of
    _by("setsid", prepare=_join_parent),
    _by("setuid", _SOMEBODY),
    _by("vfork_exit", name="vfork"),
    _by("reexec", name="execve"),
    _by("procctl_reaper_acquire", name="acquire"),
    _by("procctl_reaper_release", name="release", prepare=_acquire),
    _at_target("kill", SIGKILL, who="other"),
    _at_target("kill", SIGSTOP, who="other", name="stop"),
    _at_target("wait4", WNOHANG, who="parent", name="wait", say=_waited),
    _at_target("getpgid", who="other", say=_plain, looks=True),
    _at_target("getsid", who="other", say=_plain, looks=True),
    _table("all", _done),
    _table("pid", _rows, "pid"),
    _table("pgrp", _rows, "pid"),
    _table("all", _done, lwp=True),
    _table("pid", _rows, "pid", lwp=True),
    _table("pgrp", _rows, "pid", lwp=True),
    _table("args", _done, "pid"),
    _table("cwd", _done, "pid"),
    _table("pathname", _done, "pid"),
]


def _special() -> list[Operation]:
    def attach(who: Driven, scene: Scene) -> Pending[Any]:
        return who.start.ptrace("PT_ATTACH", scene.target.pid)

    def detach(who: Driven, scene: Scene) -> Pending[Any]:
        return who.start.ptrace("PT_DETACH", scene.target.pid, 1, 0)

    def killpg(who: Driven, scene: Scene) -> Pending[Any]:
        return who.start.kill(-scene.target.pid, SIGKILL)

    def look(who: Driven, scene: Scene) -> Pending[Any]:
        return who.start.wait6(IdType.P_PID, scene.target.pid, WEXITED | WNOHANG | WNOWAIT)

    def join(who: Driven, scene: Scene) -> Pending[Any]:
        return who.start.setpgid(scene.target.pid, scene.init.pid)

    def title(who: Driven, scene: Scene) -> Pending[Any]:
        return who.start.sysctl.set_kern_proc_args(scene.target.pid, b"another title")

    def reap_kill(who: Driven, scene: Scene) -> Pending[Any]:
        del scene
        return who.start.procctl_reap_kill(SIGKILL)

    return [
        Operation("title", "target", title, _done),
        Operation("reapkill", "parent", reap_kill, _done, feature="reap_kill", prepare=_acquire),
        Operation("attach", "other", attach, _done),
        Operation("detach", "other", detach, _done, prepare=_attach),
        Operation("killpg", "other", killpg, _done),
        Operation("waitid", "parent", look, _waited, feature="wait6", looks=True),
        Operation("setpgid", "parent", join, _done),
    ]


def _prepared(
    name: str,
    who: str,
    prepare: Callable[[Driven, Scene], int],
    start: Callable[[Driven, Scene, int], Pending[Any]],
    *,
    looks: bool = False,
) -> Operation:
    """Return the operation that START begins, with the number that PREPARE has returned for its scene."""

    def before(actor: Driven, scene: Scene) -> None:
        scene.prepared[name, actor] = prepare(actor, scene)

    def begin(actor: Driven, scene: Scene) -> Pending[Any]:
        return start(actor, scene, scene.prepared[name, actor])

    return Operation(name, who, begin, _done, prepare=before, looks=looks)


def _mounted(init: RemoteProcess) -> str:
    """Return where procfs is mounted, for as long as the guest lives."""
    try:
        init.mkdir(_PROCFS)
    except GuestError as error:
        if error.name != "EEXIST":
            raise
    else:
        init.syscall("mount", "procfs", _PROCFS, 0, 0)
    return _PROCFS


def _on_files() -> list[Operation]:
    """Return the operations on what belongs to files: procfs, events, terminals; and on jails."""

    def opened(name: str) -> Callable[[Driven, Scene], int]:
        return lambda who, scene: who.open(f"{_mounted(scene.init)}/{scene.target.pid}/{name}", os.O_RDONLY)

    def read(who: Driven, scene: Scene, fd: int) -> Pending[Any]:
        del scene
        return who.start.read(fd, 4096)

    def open_status(who: Driven, scene: Scene, fd: int) -> Pending[Any]:
        del fd
        return who.start.open(f"{_PROCFS}/{scene.target.pid}/status", os.O_RDONLY)

    def queue(who: Driven, scene: Scene) -> int:
        made = who.kqueue()
        scene.sights.append(lambda: "an end was noted" if who.kevent(made, room=1) else "no end was noted")
        return made

    def note(who: Driven, scene: Scene, made: int) -> Pending[Any]:
        return who.start.watch_process(made, scene.target.pid, _NOTE_EXIT)

    def slave(who: Driven, scene: Scene) -> int:
        return who.open(scene.terminal(), os.O_RDWR | os.O_NOCTTY)

    def attach(who: Driven, scene: Scene, fd: int) -> Pending[Any]:
        del scene
        return who.start.set_controlling_tty(fd)

    def attached(who: Driven, scene: Scene) -> int:
        del who
        fd = scene.target.open(scene.terminal(), os.O_RDWR | os.O_NOCTTY)
        if "tty" not in scene.names:
            scene.target.set_controlling_tty(fd)
        return fd

    def revoke(who: Driven, scene: Scene, fd: int) -> Pending[Any]:
        del fd
        return who.start.revoke(scene.terminal())

    def jailed(who: Driven, scene: Scene) -> int:
        del who
        return scene.init.fork().jail("/")

    return [
        _prepared("status", "other", opened("status"), read, looks=True),
        _prepared("map", "other", opened("map"), read, looks=True),
        _prepared("open", "other", lambda _, scene: len(_mounted(scene.init)), open_status, looks=True),
        _prepared("note", "other", queue, note),
        _prepared("tty", "target", slave, attach),
        _prepared("revoke", "other", attached, revoke),
        _prepared("jail", "target", jailed, lambda who, _, jid: who.start.jail_attach(jid)),
    ]


#: The operations by name.
OPERATIONS: dict[str, Operation] = {each.name: each for each in [*_ALL, *_special(), *_on_files()]}


def find_operation(word: str) -> Operation:
    """Return the operation that WORD names, or the function of the user's that `FILE.py::FUNCTION` does.

    Such a function gets `who`, an `other` process, and `scene`, and returns the call that it has started.  Raises
    UsageError for what there is not.
    """
    if "::" not in word:
        if word not in OPERATIONS:
            raise UsageError(f"there is no operation {word}: {', '.join(sorted(OPERATIONS))}, or FILE.py::FUNCTION")
        return OPERATIONS[word]
    file, _, name = word.partition("::")
    spec = importlib.util.spec_from_file_location("explored", file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise UsageError(f"{file} is no file of Python's")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"{file} has no function {name}")
    return Operation(word, getattr(function, "who", "other"), partial(function), _done)

# SPDX-License-Identifier: BSD-2-Clause
"""The hub in the guest: where driven processes come from and where they go."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from harness.errors import DeadlineError, GuestDeadlineError, HarnessError
from harness.processes.abi_base import Abi
from harness.processes.connection import (
    Connection,
    Deadlines,
    Endpoint,
    Pending,
    Transport,
    await_true,
    local_transport,
)
from harness.processes.observation import observe_from
from harness.processes.remote import RemoteProcess, RemoteThread
from harness.processes.repetition import fails_with
from harness.processes.vocabulary import WNOHANG, GuestError, Storm
from harness.processes.wire import BranchFlag, Operation

__all__ = ["Hub", "Transport", "local_transport"]

_SWEEP, _SWEEP_PAUSE = 0.05, 0.0001  # s in which whoever is killed has ended, else it is waited for; between two looks
_LEASH_PATIENCE = 0.5  # s for paused processes to end by themselves before they are killed


class Hub:
    """The program `executor hub` at the other end of a transport.  A context manager: leaving it ends all processes.

    `watch` is called about every 0.2 s while somebody waits, and may raise: the guest panicked.
    `deadline` is the time in seconds a call may take unless told otherwise.  `paced` is for a guest that skips idle
    time: the hub keeps it from being idle except while the host awaits something, so that no time passes unasked.
    `awaited` is for a hub that has waited for this connection, and made a process ahead.
    """

    def __init__(
        self,
        transport: Transport,
        abi: Abi,
        *,
        watch: Callable[[], None] | None = None,
        paced: bool = False,
        awaited: bool = False,
    ) -> None:
        self.abi = abi
        self._connection = Connection(transport, watch, paced=paced, awaited=awaited)
        #: The hub itself as a process, for looking at others from outside.  It must not make a call that blocks.
        self.observer = RemoteProcess(self._connection, abi, self._connection.hub_endpoint)
        self._connection.observation = observe_from(self.observer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The hub's process id: the parent of what spawn() returns."""
        return self._connection.hub_pid

    @property
    def deadline(self) -> float:
        """Time in seconds a call may take unless told otherwise."""
        return self._connection.deadline

    @deadline.setter
    def deadline(self, seconds: float) -> None:
        self._connection.deadline = seconds

    @property
    def deadlines(self) -> Deadlines:
        """How the seconds of deadlines are counted; by the host's clock unless told otherwise."""
        return self._connection.deadlines

    @deadlines.setter
    def deadlines(self, deadlines: Deadlines) -> None:
        self._connection.deadlines = deadlines

    def spawn(self) -> RemoteProcess:
        """Make a fresh process: child of the hub, leader of a session of its own, default signals, no open files."""
        if (first := self._taken_first()) is not None:
            return first
        child = self._connection.new_endpoint()
        call = self.observer._branch("fork", 0, BranchFlag.PRISTINE, "spawn()", child)
        process = self._connection.run(self._connection.hub_endpoint, call)
        # Its session exists only once it says so.
        self._connection.wait(lambda: child.hello or child.gone, f"{process} to start", self.deadline)
        return process

    def _taken_first(self) -> RemoteProcess | None:
        """Return the process that the hub made while it waited for the host, once; to make one takes a while."""
        first, self._connection.first = self._connection.first, None
        if first is None:
            return None
        self._connection.wait(lambda: first.hello or first.gone, "the first process to connect", self.deadline)
        return None if first.gone else RemoteProcess(self._connection, self.abi, first)

    def idle(self) -> list[RemoteProcess | RemoteThread]:
        """Return the processes and threads made through this hub that wait for a call to make.

        Who has just been born is waited for; raises DeadlineError when he does not connect.
        """
        found: list[RemoteProcess | RemoteThread] = []
        for each in self._connection.live_endpoints():
            if each.pending or each.leashed or each.connects_late:
                continue
            self._connection.wait(lambda each=each: each.hello or each.gone, f"{each} to connect", self.deadline)  # type: ignore[misc]
            if not each.gone:
                found.append((RemoteThread if each.is_thread else RemoteProcess)(self._connection, self.abi, each))
        return found

    def journal(self) -> list[str]:
        """Return the last calls of driven processes with their answers, oldest first, a line each."""
        return [str(pending) for pending in list(self._connection.journal)]

    def storms(self) -> list[tuple[float, Storm]]:
        """Return the fork storms among the last calls, each with the time at which it began, in seconds.

        The time is the guest's CLOCK_MONOTONIC, as the times in a storm are.
        """
        found = []
        for pending in list(self._connection.journal):
            # To decode all answers once more takes as long as a test.
            if pending.call.operation is Operation.STORM and (answer := pending.answer) is not None:
                with contextlib.suppress(GuestError):
                    found.append((answer.before / 1e9, pending.outcome()))
        return found

    def clear_journal(self) -> None:
        """Let the journal begin anew: a test starts."""
        self._connection.journal.clear()

    def stop_pacing(self) -> None:
        """Let the clock of a paced guest go as it likes: somebody else is about to speak to the guest."""
        with contextlib.suppress(HarnessError):  # one that cannot be told any more holds nothing up either
            self._connection.stop_pacing()

    def kill_all(self) -> None:
        """End every process made through this hub and reap the hub's children: the clean-up between tests."""
        endpoints = self._connection.live_endpoints()
        doomed: list[int] = []
        for endpoint in endpoints:
            if endpoint.pid and not endpoint.is_thread and not endpoint.leashed:
                doomed.append(endpoint.pid)
            else:
                self._connection.let_go(endpoint)
        has_children = not self._sweep(doomed)
        for endpoint in endpoints:
            if endpoint.connects_late and not endpoint.hello:
                self._connection.forget(endpoint)  # it never got so far that its end would be noticed
        self._await_gone(endpoints)
        if undriven := sorted(self._connection.undriven):
            self._kill(undriven)
            self._connection.undriven.clear()
            has_children = True
        if has_children:
            self._reap()

    def _sweep(self, pids: list[int]) -> bool:
        """Kill PIDS, reap the hub's children and look who is left, in one exchange; tell whether no child is left.

        What takes its time is left for others to wait for.
        """
        start = self.observer.start
        kills = self._start_kill(pids)
        options = self.abi.wait_option_bits(WNOHANG)
        reaping = start.repeat_until(
            fails_with("ECHILD"), "wait4", -1, 0, options, 0, seconds=_SWEEP, pause=_SWEEP_PAUSE
        )
        looks = [(pid, start.kill(pid, 0)) for pid in self._connection.born]
        _await_killed(kills)
        for pid, look in looks:
            if not _found(look):
                self._connection.born.discard(pid)
        return reaping.result().met

    def await_reaped(self) -> None:
        """Wait until process 1 has reaped the orphans among those that kill_all() ended: it does so in its own time.

        Raises DeadlineError if some stay.
        """
        left = sorted(self._connection.born)
        self._connection.born.clear()
        if not left:
            return

        def all_are_gone() -> bool:
            asked = [(pid, self.observer.start.kill(pid, 0)) for pid in left]
            left[:] = [pid for pid, pending in asked if _found(pending)]
            return not left

        await_true(all_are_gone, "process 1 to reap what it inherited", self.deadline, 0.002, self.deadlines)

    def _kill(self, pids: list[int]) -> None:
        _await_killed(self._start_kill(pids))

    def _start_kill(self, pids: list[int]) -> list[Pending[None]]:
        return [self.observer.start.kill(pid, sig) for pid in pids for sig in ("SIGKILL", "SIGCONT")]

    def _await_gone(self, endpoints: list[Endpoint]) -> None:
        patience = _LEASH_PATIENCE if any(endpoint.leashed for endpoint in endpoints) else self.deadline
        try:
            self._connection.wait(lambda: all(each.gone for each in endpoints), "all processes to end", patience)
        except DeadlineError:
            if patience == self.deadline:
                raise
            # Paused processes that are stopped as well do not notice that they may go.
            stuck = [each for each in endpoints if each.leashed and not each.gone]
            self._kill([pid for endpoint in stuck for pid in endpoint.leashed])
            self._connection.wait(lambda: all(each.gone for each in endpoints), "all processes to end", self.deadline)

    def _reap(self) -> None:
        deadline = self.deadlines(self.deadline)
        while True:
            try:
                found = self.observer.wait4(-1, WNOHANG)
            except GuestError as error:
                if error.name == "ECHILD":
                    return
                raise
            if not found.pid:
                if deadline.is_over():
                    raise GuestDeadlineError(f"{self._survivors()} to end after SIGKILL", self.deadline)
                time.sleep(0.002)

    def _survivors(self) -> str:
        """Name the hub's children and what they sleep on, as far as the guest can tell."""
        try:
            rows = self.observer.sysctl.kern_proc_all()
            return ", ".join(
                f"process {row.pid} ({row.lwp.wmesg or row.stat})" for row in rows if row.ppid == self.observer.pid
            )
        except (OSError, HarnessError):  # no sysctl(3), or no answer
            return "the hub's children"

    def close(self) -> None:
        """End the hub and with it every process it made."""
        with contextlib.suppress(HarnessError):  # what is lost anyway need not be ended
            # The hub ends what has told it its pid; a process stopped before its first step has not.
            for endpoint in self._connection.live_endpoints():
                if endpoint.pid:
                    self.observer.start.kill(endpoint.pid, "SIGKILL")
        self._connection.close()


def _await_killed(kills: list[Pending[None]]) -> None:
    for pending in kills:
        try:
            pending.result()
        except GuestError as error:
            if error.name != "ESRCH":
                raise


def _found(pending: Pending[None]) -> bool:
    try:
        pending.result()
    except GuestError as error:
        if error.name != "ESRCH":
            raise
        return False
    return True

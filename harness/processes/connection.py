# SPDX-License-Identifier: BSD-2-Clause
"""The connection to a hub in the guest: streams in, answers out, and everything that waits."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from harness.errors import DeadlineError, GuestDeadlineError, GuestLostError, HarnessError
from harness.processes.vocabulary import GuestError, ProcessGone, ProcessStopped
from harness.processes.wire import (
    CONTROL_ID,
    FIRST_ID,
    HUB_ID,
    Answer,
    AnswerDecoder,
    Event,
    EventKind,
    FrameDecoder,
    Operation,
    OrderKind,
    WireError,
    decode_event,
    encode_frames,
    encode_order,
    encode_request,
)

T = TypeVar("T")

DEADLINE = 30.0  # s a call may take unless told otherwise
WATCH_INTERVAL = 0.2  # s between looks at the guest's health while something is awaited
LAST_LOOKS = 1.0  # s in which a machine that has hung up may turn out to have died
SUSPECTED_AFTER = 0.3  # s without an answer before a process is suspected to be stopped
JOURNAL = 120  # calls remembered for the report of a failure
_SHOWN = 160  # characters of an answer
OUTSTANDING = 200_000  # bytes of unanswered requests per process; the hub keeps somewhat more for a busy process


class Transport(Protocol):
    """A two-way byte stream to `executor hub`."""

    def read(self, size: int) -> bytes:
        """Return up to SIZE bytes as soon as there are any; b'' at the end."""

    def write(self, data: bytes) -> None:
        """Send all of DATA."""

    def close(self) -> None:
        """End the stream; a read under way returns."""


class LocalTransport:
    """The hub as a child process on this host, for tests of the harness itself."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def read(self, size: int) -> bytes:
        """Return up to SIZE bytes as soon as there are any; b'' at the end."""
        assert self._process.stdout is not None
        return self._process.stdout.read(size) or b""

    def write(self, data: bytes) -> None:
        """Send all of DATA."""
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) or 0 :]

    def close(self) -> None:
        """End the hub and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def local_transport(argv: Sequence[str]) -> Transport:
    """Start ARGV (`[executor, "hub", socket]`) on this host and talk to it through pipes."""
    return LocalTransport(argv)


class Deadline(Protocol):
    """A deadline that began when it was made."""

    def is_over(self) -> bool:
        """Tell whether there is no point in waiting longer; to be asked again and again."""


class HostDeadline:
    """A deadline of SECONDS of the host's clock."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Tell whether so many seconds have passed."""
        return time.monotonic() >= self._end


Deadlines = Callable[[float], Deadline]


def await_true(
    condition: Callable[[], bool],
    awaited: str,
    timeout: float,
    interval: float = 0.01,
    deadlines: Deadlines = HostDeadline,
) -> None:
    """Ask CONDITION every INTERVAL seconds until it is true; for what nothing reports by itself.

    Raises GuestDeadlineError after TIMEOUT seconds, as DEADLINES count them.
    """
    deadline = deadlines(timeout)
    late = False
    while not condition():
        if late:
            raise GuestDeadlineError(awaited, timeout)
        late = deadline.is_over()  # however long the last look took, there is one more
        time.sleep(interval)


class Ending(Protocol):
    """The end of a process, watched from before it begins."""

    def wait(self, timeout: float) -> None:
        """Return when the process has ended entirely; DeadlineError after TIMEOUT seconds."""


class Observation(Protocol):
    """What the hub sees of other processes."""

    def is_stopped(self, pid: int) -> bool:
        """Whether PID is stopped by a signal."""

    def has_ended(self, pid: int) -> bool:
        """Whether PID is a zombie, or nobody's."""

    def ending(self, pid: int) -> Ending:
        """Begin to watch PID's end."""


class Blind:
    """Sees nothing: used while there is no hub to ask."""

    def is_stopped(self, pid: int) -> bool:
        """Nothing is known to be stopped."""
        del pid
        return False

    def has_ended(self, pid: int) -> bool:
        """Nothing is known to have ended."""
        del pid
        return False

    def ending(self, pid: int) -> Ending:
        """Refuse."""
        raise HarnessError(f"the end of process {pid} cannot be watched without a hub")


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request and what to make of its answer.

    `text` is the call as a C programmer would write it, for messages.  `decode` may raise GuestError.  A call with
    `on_gone` succeeds when the process goes (exit, execve); every other call then fails.
    """

    text: str
    operation: Operation
    payload: bytes
    decode: Callable[[Answer], T]
    on_gone: Callable[[], T] | None = None
    timeout: float | None = None  # s, instead of the connection's deadline


class Endpoint:
    """One driven process or thread as the connection sees it."""

    def __init__(self, id_: int) -> None:
        self.id = id_
        self.pid = 0  # 0 until known
        self.tid = 0
        self.hello = False
        self.gone = False
        self.is_thread = False
        self.connects_late = False  # it opens its channel itself; until its hello the hub does not know it
        self.decoder = AnswerDecoder()
        self.pending: deque[Pending[object]] = deque()
        self.outstanding = 0
        self.sequence = 0
        self.leashed: list[int] = []  # pids held by this connection, of processes that are not driven

    def __str__(self) -> str:
        if self.id == HUB_ID:
            return "the hub"
        return (
            f"thread {self.tid} of process {self.pid}" if self.is_thread else f"process {self.pid or '(not yet known)'}"
        )


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class Pending(Generic[T]):
    """A call under way."""

    def __init__(self, connection: Connection, endpoint: Endpoint, call: Call[T], sequence: int, size: int) -> None:
        self._connection = connection
        self._endpoint = endpoint
        self._call = call
        self.sequence = sequence
        self.size = size
        self.answer: Answer | None = None
        self.gone = False

    def __repr__(self) -> str:
        return f"<{self._call.text} in {self._endpoint}: {'done' if self.done else 'under way'}>"

    @property
    def done(self) -> bool:
        """Whether the call has ended, one way or another."""
        return self.answer is not None or self.gone

    def done_within(self, seconds: float) -> bool:
        """Return when the call has ended, or SECONDS later; tell whether it has.

        The guest's health is not watched, and of a connection that has broken nothing is told: result() does that.
        """
        return self._connection.ends(self, seconds)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the call and return its result.

        Raises GuestError if it failed, ProcessGone if the process ended before it did, DeadlineError after TIMEOUT
        seconds (default: the call's own, usually 30).  A stopped process is waited for.
        """
        return self._connection.finish(self, timeout, stop_expected=True)

    def seconds(self) -> float:
        """Time the finished call took in the guest, by its CLOCK_MONOTONIC."""
        assert self.answer is not None
        return (self.answer.after - self.answer.before) / 1e9

    def outcome(self) -> T:
        """Return the result of a call that is done."""
        if self.answer is not None:
            return self._call.decode(self.answer)
        if self._call.on_gone is not None:
            return self._call.on_gone()
        raise ProcessGone(str(self._endpoint), self._call.text)

    def __str__(self) -> str:
        """Return the call and its answer as a line for people, whatever has become of it."""
        if not self.done:
            answer = "(under way)"
        else:
            try:
                answer = _shortened(repr(self.outcome()))
            except GuestError as error:
                answer = error.name
            except Exception as error:  # an answer that cannot be decoded, too, is shown
                answer = _shortened(f"{type(error).__name__}: {error}")
        return f"{self._endpoint}: {self._call.text} = {answer}"

    @property
    def call(self) -> Call[T]:
        """What was asked for."""
        return self._call

    @property
    def endpoint(self) -> Endpoint:
        """Who was asked."""
        return self._endpoint


class Connection:
    """Dispatches what comes from the hub to whoever waits for it.  Safe to use from several threads.

    With `paced`, the hub is told whenever the host awaits something: only then may the guest be idle.  A hub that has
    `awaited` us has made a process meanwhile.
    """

    def __init__(
        self, transport: Transport, watch: Callable[[], None] | None, *, paced: bool = False, awaited: bool = False
    ) -> None:
        self._transport = transport
        self._watch = watch
        self._paced = paced
        self._frames = 0  # received and dispatched
        self._awaited = -1  # frames the hub knows we have had
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._endpoints: dict[int, Endpoint] = {}
        self._next_id = FIRST_ID
        self._lost: str | None = None
        self._ready = False
        self._closing = False
        self.deadline = DEADLINE
        #: How the seconds of deadlines are counted.
        self.deadlines: Deadlines = HostDeadline
        self.hub_pid = 0
        # What the guest has told about itself and does not change while it runs.
        self.mibs: dict[str, tuple[int, ...]] = {}
        self.kinfo_size = 0
        self.undriven: set[int] = set()  # pids of processes that run another program now
        self.born: set[int] = set()  # pids of the processes made through this connection and perhaps not reaped yet
        self.observation: Observation = Blind()  # until the hub object knows better
        self.journal: deque[Pending[Any]] = deque(maxlen=JOURNAL)  # the last calls of driven processes
        self.hub_endpoint = Endpoint(HUB_ID)
        self._endpoints[HUB_ID] = self.hub_endpoint
        #: The process that the hub made while it waited for us, until somebody takes it.
        self.first = self.new_endpoint() if awaited else None
        self._reader = threading.Thread(target=self._read, name="hub-reader", daemon=True)
        self._reader.start()
        self.wait(lambda: self._ready, "the hub to start", self.deadline)
        # It may have been there already: then nothing was awaited, and the hub has not heard yet that it is paced.
        self._tell_that_we_think()

    def close(self) -> None:
        """End the connection; every driven process ends with it."""
        with self._changed:
            self._closing = True
        self._transport.close()
        self._reader.join(timeout=10)

    # ---- what comes in ----

    def _read(self) -> None:
        frames = FrameDecoder()
        reason = "the hub has ended"
        try:
            while data := self._transport.read(65536):
                for process, content in frames.feed(data):
                    self._dispatch(process, content)
        except (OSError, EOFError, WireError, ValueError) as error:
            reason = str(error) or type(error).__name__
        with self._changed:
            self._lost = reason
            self._changed.notify_all()

    def _dispatch(self, process: int, content: bytes) -> None:
        with self._changed:
            if process == CONTROL_ID:
                self._handle(decode_event(content))
            elif (endpoint := self._endpoints.get(process)) is not None:
                for answer in endpoint.decoder.feed(content):
                    self._settle(endpoint, answer)
            self._frames += 1
            self._changed.notify_all()

    def _settle(self, endpoint: Endpoint, answer: Answer) -> None:
        for pending in endpoint.pending:
            if pending.sequence == answer.sequence:
                pending.answer = answer
                endpoint.pending.remove(pending)
                endpoint.outstanding -= pending.size
                return
        raise WireError(f"an answer to request {answer.sequence}, which {endpoint} was not asked")

    def _handle(self, event: Event) -> None:
        if event.kind is EventKind.READY:
            self._ready = True
            self.hub_pid = self.hub_endpoint.pid = event.pid
            return
        endpoint = self._endpoints.get(event.id)
        if endpoint is None:
            return
        if event.kind is EventKind.HELLO:
            endpoint.hello = True
            endpoint.pid = event.pid
            endpoint.tid = event.tid
            if event.pid:  # 0 for the common leash of many
                self.born.add(event.pid)
        elif event.kind is EventKind.GONE:
            self._remove(endpoint)

    def _remove(self, endpoint: Endpoint) -> None:
        endpoint.gone = True
        while endpoint.pending:
            endpoint.pending.popleft().gone = True
        self._endpoints.pop(endpoint.id, None)

    def _bury(self, endpoint: Endpoint) -> None:
        """Take note of an end that its channel does not show: a stopped process has the other end open, too."""
        with self._changed:
            self._remove(endpoint)
            self._changed.notify_all()
        self.let_go(endpoint)

    # ---- what goes out ----

    def new_endpoint(self) -> Endpoint:
        """Make room for a process (or thread) about to be born."""
        with self._changed:
            endpoint = Endpoint(self._next_id)
            self._next_id += 1
            self._endpoints[endpoint.id] = endpoint
        return endpoint

    def forget(self, endpoint: Endpoint) -> None:
        """Undo new_endpoint() for a process that was not born."""
        with self._changed:
            self._endpoints.pop(endpoint.id, None)
            endpoint.gone = True

    def submit(self, endpoint: Endpoint, call: Call[T]) -> Pending[T]:
        """Send a request and return at once; earlier requests to the same process are answered first.

        Raises ProcessGone if the process is known to be gone.
        """
        size = len(call.payload) + 12
        if endpoint.connects_late:
            self.wait(lambda: endpoint.hello or endpoint.gone, f"{endpoint} to connect to the hub", self.deadline)
        if endpoint.outstanding and endpoint.outstanding + size > OUTSTANDING:
            self.wait(
                lambda: endpoint.gone or not endpoint.outstanding or endpoint.outstanding + size <= OUTSTANDING,
                f"{endpoint} to answer some of its requests",
                self.deadline,
            )
        if self._lost is not None:
            raise self._loss(call.text)
        with self._changed:
            if endpoint.gone:
                raise ProcessGone(str(endpoint), call.text)
            endpoint.sequence += 1
            pending = Pending(self, endpoint, call, endpoint.sequence, size)
            endpoint.pending.append(pending)  # type: ignore[arg-type]  # Pending[T] into a queue of anything
            endpoint.outstanding += size
            if endpoint is not self.hub_endpoint:
                self.journal.append(pending)
        self._write(encode_frames(endpoint.id, encode_request(pending.sequence, call.operation, call.payload)))
        return pending

    def _tell_that_we_wait(self, condition: Callable[[], bool]) -> None:
        """Let the guest be idle, which makes its clock leap, until it has something to say."""
        while True:
            with self._changed:
                frames = self._frames
                if condition() or self._lost is not None or self._awaited == frames:
                    return
                self._awaited = frames
            # Not under the lock: the hub may be writing to us and not reading, as long as nobody dispatches.
            self._write(encode_order(OrderKind.AWAIT, frames))

    @property
    def _has_news(self) -> bool:
        """Whether frames have come that the hub does not know we have had, where that matters to it."""
        return self._paced and self._awaited != self._frames

    def _tell_that_we_think(self) -> None:
        """Undo _tell_that_we_wait(): nothing is awaited any more, though nothing may have come."""
        if self._paced:
            with self._changed:
                self._awaited = -1
                never = self._frames - 1
            self._write(encode_order(OrderKind.AWAIT, never))

    def stop_pacing(self) -> None:
        """Let the guest be idle whenever it likes, from now on."""
        if self._paced:
            self._paced = False
            self._write(encode_order(OrderKind.FREE, 0))

    def let_go(self, endpoint: Endpoint) -> None:
        """Tell the hub to end a process's stream; the process then ends by itself."""
        self._write(encode_order(OrderKind.CLOSE, endpoint.id))

    def _write(self, data: bytes) -> None:
        try:
            with self._writing:
                self._transport.write(data)
        except (OSError, EOFError, ValueError, GuestLostError) as error:
            with self._changed:
                self._lost = self._lost or str(error) or type(error).__name__
            self._look_why()
            raise GuestLostError(f"the connection to the guest broke: {error}") from error

    def _look_why(self) -> None:
        """Raise what the watch says of a guest whose connection broke.

        A dying machine hangs up before it has ended, so the watch may know only a moment later.
        """
        end = time.monotonic() + LAST_LOOKS
        while self._watch is not None and not self._closing:
            self._watch()
            if time.monotonic() > end:
                return
            time.sleep(0.02)

    def _loss(self, awaited: str) -> HarnessError:
        self._look_why()
        return GuestLostError(f"the connection to the guest broke while waiting for {awaited}: {self._lost}")

    # ---- waiting ----

    def wait(
        self,
        condition: Callable[[], bool],
        awaited: str,
        timeout: float,
        *,
        meanwhile: Callable[[float], None] | None = None,
    ) -> None:
        """Return when CONDITION, which what comes in makes true, is.

        While waiting, the guest's health is watched, and MEANWHILE is called now and then with the seconds passed.
        Raises DeadlineError after TIMEOUT seconds, as `deadlines` counts them, GuestLostError if the connection breaks,
        and what the watch raises.
        """
        began = time.monotonic()
        deadline, first = self.deadlines(timeout), True
        while True:
            if self._paced:
                self._tell_that_we_wait(condition)
            with self._changed:
                passed = time.monotonic() - began
                step = min(WATCH_INTERVAL, max(timeout - passed, 0.0)) if first or passed < timeout else WATCH_INTERVAL
                first = False
                self._changed.wait_for(lambda: condition() or self._lost is not None or self._has_news, step)
                if condition():
                    return
                lost = self._lost
                if lost is None and self._has_news and passed < timeout:
                    continue
            if lost is not None:
                raise self._loss(awaited)
            if self._watch is not None and not self._closing:
                self._watch()
            passed = time.monotonic() - began
            if deadline.is_over():
                self._tell_that_we_think()
                raise GuestDeadlineError(awaited, timeout)
            if meanwhile is not None:
                meanwhile(passed)

    def ends(self, pending: Pending[Any], seconds: float) -> bool:
        """Return when PENDING has ended, or SECONDS later; tell whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: pending.done, seconds)

    def finish(self, pending: Pending[T], timeout: float | None, *, stop_expected: bool) -> T:
        """Wait for a call and return its result; a process found stopped raises ProcessStopped unless expected."""
        if not pending.done:
            call, endpoint = pending.call, pending.endpoint
            limit = timeout if timeout is not None else call.timeout if call.timeout is not None else self.deadline
            checked = 0.0
            ended = False

            def suspect(passed: float) -> None:
                nonlocal checked, ended
                if passed - checked < SUSPECTED_AFTER or not endpoint.pid:
                    return
                checked = passed
                if ended and not pending.done:
                    self._bury(endpoint)
                # What it said last may be still on the way: it is believed to be dead at the next look.
                try:
                    ended = self.observation.has_ended(endpoint.pid)
                    stopped = not stop_expected and self.observation.is_stopped(endpoint.pid)
                except (GuestLostError, DeadlineError):
                    return  # the wait for the call comes to the same end, and says what was awaited
                if stopped and not pending.done:
                    raise ProcessStopped(str(endpoint), call.text)

            self.wait(
                lambda: pending.done,
                f"{call.text} in {endpoint}",
                limit,
                meanwhile=suspect if endpoint.id != HUB_ID else None,
            )
        return pending.outcome()

    def run(self, endpoint: Endpoint, call: Call[T]) -> T:
        """Send a request and wait for its result."""
        return self.finish(self.submit(endpoint, call), None, stop_expected=False)

    def live_endpoints(self) -> list[Endpoint]:
        """All processes and threads the hub still has a connection to, without the hub itself."""
        with self._changed:
            return [endpoint for endpoint in self._endpoints.values() if endpoint.id != HUB_ID]

# SPDX-License-Identifier: BSD-2-Clause
"""From a target to processes in it: booting, or resuming from the warm state."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import DeadlineError, GuestLostError, HarnessError, UnknownKernelError
from harness.files import write_whole
from harness.guests.bootcheck import BootFailedError, Culprit, boot
from harness.guests.features import KernelFacts
from harness.guests.guest import Guest, MachineSize, Progress, Target
from harness.machine.clock import note_clock_for_counting
from harness.machine.description import Accelerator, Lane
from harness.machine.executed import Instrument
from harness.machine.qemu import MachineState, qemu_version
from harness.processes.abi import ABIS
from harness.processes.executor_build import build_executor
from harness.processes.hub import Hub
from harness.processes.probes import learn_facts
from harness.processes.remote import RemoteProcess
from harness.processes.vocabulary import Clock
from harness.store import Store, digest_of

_FOLDER = "/tmp/dfly-harness"  # noqa: S108  (in the guest, which is ours alone)
_PROGRAM, _SOCKET = f"{_FOLDER}/executor", f"{_FOLDER}/hub"
HUB_PORT = 4080
_CONNECT_DEADLINE = 20.0
_CLOCK_SLACK = 5.0  # seconds between our reading a clock and the guest's
_ENTROPY = 64  # bytes
_O_WRONLY = 1
_RETRY = 0.02
#: Of a warm state: what it is saved as, and when.
FORMAT = "7"
_FACTS = "facts.json"
_NAP, _NAP_DEADLINE = 0.05, 5.0  # s of sleep in a state that is tried, and what it may take on a busy host
_IDLE_DEADLINE = 3.0  # s for what an ended login leaves to be done; a guest that never idles is saved all the same
_RAM_PER_GUEST = 1.5  # what a saved state may take, as a share of the guest's memory


#: What room is for, in words.
WARM_STATE = "the target's warm state"


def room_for_state(size: MachineSize) -> int:
    """Return how many bytes the saved state of a machine of SIZE may take."""
    return int(size.memory * _RAM_PER_GUEST) << 20


class SocketTransport:
    """A connected TCP socket as a plain byte stream."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def read(self, size: int) -> bytes:
        """Return up to SIZE bytes, b"" at the end of the stream."""
        try:
            return self._line.recv(size)
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        """Send all of DATA; raises GuestLostError when the connection is gone."""
        try:
            self._line.sendall(data)
        except OSError as error:
            raise GuestLostError("the connection to the executor is gone") from error

    def close(self) -> None:
        """Hang up; the hub sees the end of its input."""
        # A plain close() would leave a reader in another thread waiting.
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()


def _install_executor(guest: Guest, store: Store) -> None:
    # Processes of any user run the program and connect to the socket.
    guest.ssh.run(f"mkdir -p -m 755 {_FOLDER}")
    guest.ssh.upload(build_executor(ABIS[guest.target.abi], store.cache), _PROGRAM, mode=0o755)


def open_hub(guest: Guest, store: Store) -> Hub:
    """Put the executor into GUEST, start its hub on an SSH channel and return it, answering.

    Raises HarnessError when the executor cannot be built or does not start.
    """
    _install_executor(guest, store)
    return Hub(guest.ssh.open(f"exec {_PROGRAM} hub {_SOCKET}"), ABIS[guest.target.abi], watch=guest.check)


def _leave_hub_listening(guest: Guest, store: Store, token: str) -> None:
    """Start a hub that waits for one connection which begins with TOKEN; return when its port is listened to."""
    _install_executor(guest, store)
    # The program ends when it has begun to listen, in the background (executor/hub.c: listen_for_host()).
    done = guest.ssh.run(f"{_PROGRAM} hub {_SOCKET} --listen {HUB_PORT} {token} </dev/null >/dev/null 2>&1")
    if done.status != 0:
        raise HarnessError(f"the executor does not start in the guest: it ended with status {done.status}")


def _connect_hub(guest: Guest, token: str) -> Hub:
    """Connect to the hub that waits in GUEST; raises DeadlineError when it does not answer."""
    port = guest.machine.host_port(HUB_PORT)
    end = time.monotonic() + _CONNECT_DEADLINE
    while True:
        guest.check()
        try:
            line = socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_DEADLINE)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.settimeout(None)
            line.sendall(token.encode())
            paced = guest.lane is Lane.TIME_WARPED
            return Hub(SocketTransport(line), ABIS[guest.target.abi], watch=guest.check, paced=paced, awaited=True)
        except (OSError, GuestLostError):
            if time.monotonic() > end:
                raise DeadlineError("the executor to answer", _CONNECT_DEADLINE, guest.console.tail()) from None
            time.sleep(_RETRY)


def _freshen(hub: Hub) -> None:
    """Give a resumed guest the host's time, as its own stood still, and randomness that no other guest has.

    Raises HarnessError when the clock did not take it: such a guest is not what was saved.
    """
    # The hub does it itself: a process of its own would have to be made, ended and waited for.
    opening = hub.observer.start.open("/dev/random", _O_WRONLY)
    _set_clock(hub)
    # Every guest resumed from one state would otherwise draw the same numbers.
    with contextlib.suppress(OSError):
        random = opening.result()
        write, close = hub.observer.start.write(random, secrets.token_bytes(_ENTROPY)), hub.observer.start.close(random)
        write.result()
        close.result()


def _set_clock(hub: Hub) -> None:
    """Give the guest the host's time; raises HarnessError when its clock did not take it."""
    now = time.time_ns()
    setting = hub.observer.start.syscall("clock_settime", 0, struct.pack("<qq", now // 10**9, now % 10**9))
    reading = hub.observer.start.clock_gettime(Clock.CLOCK_REALTIME)
    setting.result()
    ahead = reading.result() - now / 1e9
    if not -_CLOCK_SLACK < ahead < time.time() - now / 1e9 + _CLOCK_SLACK:
        raise HarnessError(f"its clock says {ahead:.1f} s more after it was set")


@dataclass(frozen=True)
class Snapshot:
    """The warm state of a target: booted, its kernel verified, the hub waiting for a connection.

    `boot_seconds` is what it took to make, `resume_seconds` from its resume to the first answered call, as tried once.
    """

    folder: Path
    token: str
    identity: str
    boot_seconds: float
    resume_seconds: float = 0.0
    needs: tuple[str, ...] = ()
    qemu: str = ""
    format: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise HarnessError when a file is not all there; `store verify` compares digests, too."""
        for name, size in self.sizes.items():
            file = self.folder / name
            found = file.stat().st_size if file.exists() else 0
            if found != size:
                raise HarnessError(f"the saved {name} has {found} bytes, not {size}")

    @property
    def state(self) -> MachineState:
        """The saved machine."""
        return MachineState(self.folder)

    def facts(self, hub: Hub) -> KernelFacts:
        """Return what is known of its kernel; if nobody has asked it yet, ask it through HUB and keep the answer.

        Raises UnknownKernelError.
        """
        if (known := read_facts(self.folder)) is not None:
            return known
        facts = learn_facts(hub)
        write_whole(self.folder / _FACTS, json.dumps(asdict(facts)))  # another session may be about to write the same
        return facts


def read_facts(folder: Path) -> KernelFacts | None:
    """Return what is known of the kernel in the warm state in FOLDER, None if it has not been asked."""
    try:
        about = json.loads((folder / _FACTS).read_text())
        return KernelFacts(int(about["osreldate"]), int(about["record_size"]), dict(about["found"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def known_facts(store: Store, blob: str, osreldate: int) -> KernelFacts:
    """Return what is known of a kernel of version OSRELDATE from the warm states in STORE that BLOB is needed for."""
    for file in sorted(store.folder("snapshots").glob("*/warm.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            facts = read_facts(file.parent)
            if facts is not None and facts.osreldate == osreldate and blob in json.loads(file.read_text())["needs"]:
                return facts
    return KernelFacts(osreldate)


def _nap(process: RemoteProcess) -> None:
    """Let PROCESS sleep for a moment; raises HarnessError when its kernel's timers are late."""
    began = time.monotonic()
    process.sleep(_NAP)
    if (slept := time.monotonic() - began) > _NAP_DEADLINE:
        raise HarnessError(f"its timers are late: sleeping {_NAP} s took {slept:.1f} s")


class _UnsoundStateError(HarnessError):
    """What was saved does not resume."""


class Warmth:
    """The warm state of one target on one size of machine, made when first needed.

    It is keyed by all it depends on: image, kernel, machine description, executor, QEMU's version, and which boot it is
    of the target.  All lanes resume from the same state, which is saved at the pace of the clock and says what time it
    is for those that count instructions; these need TCG and have a single CPU, so where the other is a different
    machine, they have a state of their own.
    """

    def __init__(
        self,
        target: Target,
        store: Store,
        size: MachineSize,
        lane: Lane = Lane.WALL_CLOCK,
        *,
        events: Path | None = None,
        instrument: Instrument | None = None,
    ) -> None:
        self._target = target
        self._store = store
        self._size = size if lane is Lane.WALL_CLOCK else replace(size, cpus=1)
        self.lane = lane
        self._events = events
        self._instrument = instrument
        #: How often a resume failed.
        self.failures = 0
        self._present: Snapshot | None = None

    @cached_property
    def _template(self) -> Guest:
        accelerator = None if self.lane is Lane.WALL_CLOCK else Accelerator.TCG
        return Guest(self._target, self._store, self._size, guest_ports=(HUB_PORT,), accelerator=accelerator)

    def guest(self) -> Guest:
        """Return a guest to resume; it is not started."""
        return self._template.another(self.lane, self._events, instrument=self._instrument)

    @cached_property
    def key(self) -> str:
        """Identifies the warm state."""
        guest = self._template
        executor = build_executor(ABIS[self._target.abi], self._store.cache)
        parts = [FORMAT, self._target.key, guest.machine.description.command_line(), executor.name, qemu_version()]
        parts += [f"boot {self._size.boot}"] if self._size.boot else []
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    @property
    def is_made(self) -> bool:
        """Whether the target need not be booted for it."""
        return self._present is not None or self._load(self.key) is not None

    def _load(self, key: str) -> Snapshot | None:
        folder = self._store.folder("snapshots") / key
        try:
            about = json.loads((folder / "warm.json").read_text())
        except (OSError, ValueError):
            return None
        try:
            return Snapshot(
                folder,
                about["token"],
                about["identity"],
                about["boot_seconds"],
                about["resume_seconds"],
                sizes=dict(about["sizes"]),
            )
        except (KeyError, TypeError):
            return None  # written by another version, or damaged: it is made again

    def snapshot(self, progress: Progress = lambda _: None) -> Snapshot:
        """Return the warm state, booting the target once if there is none yet.

        Raises what Guest.boot() raises, and HarnessError when there is no room.
        """
        if self._present is None:
            self._present = self._find_or_make(progress)
        return self._present

    def _find_or_make(self, progress: Progress) -> Snapshot:
        key = self.key
        if (found := self._load(key)) is not None:
            return found
        began = time.time()

        def wait() -> None:
            progress("waiting for another command that boots the same target")

        with self._store.lock(f"snapshot-{key}", when_taken=wait):
            if (found := self._load(key)) is not None:
                return found
            self._raise_failure_since(began, key)
            self._store.require_space(room_for_state(self._size), WARM_STATE)
            try:
                return self._make(key, progress)
            except _UnsoundStateError as error:
                progress(f"{error}; the target is booted again")
                return self._make(key, progress)

    def _failure(self, key: str) -> Path:
        """Return where it is noted why the target did not boot, for those who waited for it meanwhile."""
        return self._store.folder("locks") / f"snapshot-{key}.failed"

    def _raise_failure_since(self, moment: float, key: str) -> None:
        file = self._failure(key)
        try:
            if file.stat().st_mtime < moment:
                return
            about = json.loads(file.read_text())
        except (OSError, ValueError):  # it did not fail
            return
        raise BootFailedError(Culprit(about["culprit"]), about["text"], panicked=bool(about.get("panicked")))

    def _boot(self, guest: Guest, key: str, progress: Progress) -> None:
        failure = self._failure(key)
        failure.unlink(missing_ok=True)
        try:
            boot(guest, progress, ahead=True)
        except BootFailedError as error:
            failure.write_text(json.dumps({"culprit": error.culprit, "text": str(error), "panicked": error.panicked}))
            raise

    def _make(self, key: str, progress: Progress) -> Snapshot:
        token = secrets.token_hex(16)
        started = time.monotonic()
        with self._store.scratch("snapshot") as folder, self._template.another(lasting=True) as guest:
            self._boot(guest, key, progress)
            with guest.minded():  # nobody looks at the console while SSH is waited for
                _leave_hub_listening(guest, self._store, token)
            guest.ssh.close()
            guest.machine.await_idle(_IDLE_DEADLINE)  # what it has still to do, each resume would do
            progress("saving the warm state")
            seconds = round(time.monotonic() - started, 2)
            guest.keep_console(folder / "console.log")
            state = guest.machine.save(folder)
            with contextlib.suppress(HarnessError):  # then its lanes are tried, as they are on any QEMU
                note_clock_for_counting(state.ram)
            made = Snapshot(
                folder,
                token,
                guest.identity,
                boot_seconds=seconds,
                needs=self._target.needs,
                qemu=qemu_version(),
                format=FORMAT,
                sizes={file.name: file.stat().st_size for file in state.files},
                digests={file.name: digest_of(file) for file in state.files},
            )
            progress("trying the warm state")
            made = replace(made, resume_seconds=self._try_out(made))
            about = {name: value for name, value in asdict(made).items() if name != "folder"}
            (folder / "warm.json").write_text(json.dumps(about))
            (folder / "warm.json").chmod(0o600)
            final = self._store.folder("snapshots") / key
            shutil.rmtree(final, ignore_errors=True)  # half a snapshot cannot be there, a damaged one can
            (folder / ".owner").unlink()  # of a scratch folder, which it no longer is
            folder.rename(final)
        return replace(made, folder=final)

    def _try_out(self, made: Snapshot) -> float:
        """Resume from MADE, and return how many seconds it took until the first call was answered.

        What is known of the kernel is asked for on the occasion.  Raises _UnsoundStateError when it does not resume.
        """
        began = time.monotonic()
        try:
            with self._template.another() as guest:
                guest.resume(made.state, made.identity)
                with contextlib.closing(_connect_hub(guest, made.token)) as hub:
                    process = hub.spawn()
                    process.getpid()
                    seconds = time.monotonic() - began
                    _nap(process)
                    with contextlib.suppress(UnknownKernelError):  # which is for whoever uses the state to say
                        made.facts(hub)
        except (HarnessError, struct.error) as error:
            raise _UnsoundStateError(f"the warm state does not resume: {error}") from error
        return round(seconds, 3)

    def forget(self, snapshot: Snapshot) -> None:
        """Remove a snapshot that does not work, so that the next call makes another."""
        self._present = None
        with self._store.lock(f"snapshot-{snapshot.folder.name}"):
            present = self._load(snapshot.folder.name)
            if present is None or present.token == snapshot.token:  # else another command has made it again already
                shutil.rmtree(snapshot.folder, ignore_errors=True)


class Session:
    """A guest and the hub in it, and what is known of its kernel.  A context manager: leaving it stops the machine."""

    def __init__(self, guest: Guest, hub: Hub, facts: KernelFacts) -> None:
        self.guest = guest
        self.hub = hub
        self.facts = facts
        guest.before_ssh = hub.stop_pacing

    @classmethod
    def boot(
        cls,
        target: Target,
        store: Store,
        size: MachineSize,
        progress: Progress = lambda _: None,
        *,
        ahead: bool = True,
        instrument: Instrument | None = None,
    ) -> Self:
        """Boot TARGET from power-on, AHEAD of the clock where that works, and start the hub over SSH.

        With an INSTRUMENT it is noted what the machine executes.  Raises what Guest.boot() raises.
        """
        guest = Guest(target, store, size).another(instrument=instrument)
        boot(guest, progress, ahead=ahead)
        try:
            with guest.minded():
                hub = open_hub(guest, store)
                if ahead:
                    _freshen(hub)
                facts = learn_facts(hub)
            hub.clear_journal()
            return cls(guest, hub, facts)
        except BaseException:
            guest.stop()
            raise

    @classmethod
    def resume(cls, warmth: Warmth, progress: Progress = lambda _: None) -> Self:
        """Return a pristine session from a target's warm state, which is made first if there is none.

        A resume that fails is tried once more, and counted in WARMTH.failures; a warm state that fails twice is thrown
        away and made again, once.  An error that no retry mends, such as UnknownKernelError, is raised at once.
        """
        snapshot = warmth.snapshot(progress)
        for words in ("it is tried again", "the target is booted again"):
            try:
                return cls._from_snapshot(warmth, snapshot)
            except (HarnessError, struct.error) as error:
                if isinstance(error, HarnessError) and not error.retry_helps:
                    raise
                warmth.failures += 1
                progress(f"the warm state does not resume ({error}); {words}")
        warmth.forget(snapshot)
        return cls._from_snapshot(warmth, warmth.snapshot(progress))

    @classmethod
    def resume_once(cls, warmth: Warmth) -> Self:
        """Return a pristine session from a target's warm state; raises HarnessError when it does not resume."""
        try:
            return cls._from_snapshot(warmth, warmth.snapshot())
        except struct.error as error:
            raise HarnessError(f"the warm state does not resume: {error}") from error

    @classmethod
    def _from_snapshot(cls, warmth: Warmth, snapshot: Snapshot) -> Self:
        guest = warmth.guest()
        try:
            snapshot.check()
            guest.resume(snapshot.state, snapshot.identity)
            hub = _connect_hub(guest, snapshot.token)
            facts = snapshot.facts(hub)
            _freshen(hub)
            hub.clear_journal()  # these calls were no test's
        except BaseException:
            guest.stop()
            raise
        return cls(guest, hub, facts)

    def pause(self) -> None:
        """Let the guest stand still; go_on() is called before anything else is asked of it."""
        self.guest.machine.pause()

    def go_on(self) -> None:
        """Let a guest that stood still run again, with the host's time; raises HarnessError when it does not."""
        self.guest.machine.resume()
        try:
            _set_clock(self.hub)
        except struct.error as error:
            raise HarnessError(f"the guest does not go on: {error}") from error
        self.hub.clear_journal()

    def close(self) -> None:
        """Stop the machine."""
        # The hub's end of the line first, so that it is not taken for the guest's death.
        with contextlib.suppress(HarnessError):
            self.hub.close()
        self.guest.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

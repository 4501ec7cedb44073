# SPDX-License-Identifier: BSD-2-Clause
"""A running QEMU: start, stop, pause, save, resume."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

from harness.errors import DeadlineError, GuestLostError, HarnessError, UsageError
from harness.machine.debugger import Debugger
from harness.machine.description import (
    EXECUTION_MAP,
    Accelerator,
    Disk,
    DiskFormat,
    DiskModel,
    MachineDescription,
    MemoryFile,
)
from harness.machine.executed import Execution, demand_plugins
from harness.machine.gdbstub import GdbStub
from harness.store import Store
from harness.toolchain import run_tool

if TYPE_CHECKING:
    from harness.machine.monitor import Monitor

T = TypeVar("T")

QEMU = "qemu-system-x86_64"
_QUIT_DEADLINE = 5.0
_KILL_DEADLINE = 10.0  # a process that an accelerator holds in the kernel may not end at all
_SAVE_DEADLINE = 120.0
_POLL = 0.02
_LOADING = 0.0005  # devices without memory are loaded in a few milliseconds
_IDLE, _IDLE_SPAN = 0.15, 0.2  # of a CPU, over so many seconds: a kernel that idles under TCG takes half of that
_MEMORY = "memory"
_LEAVES_MEMORY_OUT = "x-ignore-shared"
_GDB_SOCKET = "gdb.sock"  # in the machine's folder, which is QEMU's working folder

_WARNING = re.compile(r"(?:^|: )(?:warning|info): ")

_STARTER = "qemu-starter"

_live: weakref.WeakSet[Machine] = weakref.WeakSet()
_starter_lock = threading.Lock()


_to_start: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]] = (
    queue.SimpleQueue()
)


def _start_lastingly(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start ARGV as Popen does with OPTIONS, from a thread that lives as long as this process.

    Linux sends the signal at a parent's end when the thread that started the child ends.
    """
    if threading.current_thread() is threading.main_thread():
        return subprocess.Popen(argv, **options)
    with _starter_lock:
        if not any(thread.name == _STARTER for thread in threading.enumerate()):
            threading.Thread(target=_start_all, name=_STARTER, daemon=True).start()
    started: Future[subprocess.Popen[bytes]] = Future()
    _to_start.put((lambda: subprocess.Popen(argv, **options), started))
    return started.result()


def _start_all() -> None:
    while True:
        start, started = _to_start.get()
        try:
            started.set_result(start())
        except BaseException as error:  # whoever asked for it is told
            started.set_exception(error)


@atexit.register
def _stop_all() -> None:
    for machine in list(_live):
        machine.stop()


def find_qemu() -> str:
    """Return the path of QEMU; raises HarnessError when it is not installed."""
    if (found := shutil.which(QEMU)) is None:
        raise HarnessError(
            f"{QEMU} is not installed: dfly-harness doctor --fix installs it (Debian: apt-get install qemu-system-x86)"
        )
    return found


def qemu_version() -> str:
    """Return QEMU's version as it states it, such as `7.2.22 (Debian 1:7.2+dfsg-7)`."""
    program = find_qemu()
    about = Path(program).stat()
    return _version_of(program, (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns))


@lru_cache(maxsize=4)
def _version_of(program: str, identity: tuple[int, ...]) -> str:
    """Ask PROGRAM once, and again when it is another file: starting it takes as long as a short test."""
    del identity
    shown = str(run_tool([program, "--version"], text=True, deadline=60.0).stdout)
    return shown.partition("\n")[0].removeprefix("QEMU emulator version ")


def qemu_img(*arguments: str) -> str:
    """Run qemu-img and return what it printed; raises HarnessError with its complaint."""
    if shutil.which("qemu-img") is None:
        raise HarnessError("qemu-img is not installed: dfly-harness doctor --fix installs it (Debian: qemu-utils)")
    done = run_tool(["qemu-img", *arguments], text=True)
    if done.returncode != 0:
        raise HarnessError(done.stderr.strip().partition("\n")[0] or f"qemu-img {arguments[0]} failed")
    return str(done.stdout)


def _last_words(said: str) -> str:
    """Return what QEMU SAID last of what made it end: a warning is about what it goes on with."""
    lines = [line for line in said.splitlines() if line.strip() and not _WARNING.search(line)]
    return lines[-1].strip().removeprefix(f"{QEMU}: ") if lines else ""


@lru_cache(maxsize=8)
def _new_overlay(backing: Path, form: DiskFormat, identity: tuple[int, ...]) -> bytes:
    """Return the content of an overlay of BACKING to which nothing was written; IDENTITY is which file that is.

    It is the same for each machine, and making it takes a program.  Raises HarnessError when BACKING is no such disk.
    """
    del identity
    with tempfile.TemporaryDirectory(prefix="dfly-harness-") as folder:
        file = Path(folder) / "overlay"
        try:
            qemu_img("create", "-q", "-f", "qcow2", "-b", str(backing), "-F", form.value, str(file))
        except HarnessError as error:
            raise HarnessError(f"disk {backing} cannot be used: {error}") from None
        return file.read_bytes()


@dataclass(frozen=True)
class MachineState:
    """A saved machine: its devices and memory in `folder`, its disks frozen beside them."""

    folder: Path

    @property
    def ram(self) -> Path:
        """The migration stream: devices, and memory where that is no file of its own."""
        return self.folder / "ram"

    @property
    def memory(self) -> Path:
        """The memory of a machine that was lasting; it has holes where nothing was ever written."""
        return self.folder / _MEMORY

    @property
    def files(self) -> list[Path]:
        """All that it consists of."""
        return [self.ram, *self.folder.glob(_MEMORY), *sorted(self.folder.glob("disk*.qcow2"))]

    def disks(self, like: Sequence[Disk] = ()) -> tuple[Disk, ...]:
        """Return the disks as they were at the moment of saving, attached LIKE those of the description."""
        saved = [Disk(file) for file in sorted(self.folder.glob("disk*.qcow2"))]
        models = [disk.model for disk in like] + [DiskModel.VIRTIO] * len(saved)
        return tuple(replace(disk, model=model) for disk, model in zip(saved, models, strict=False))


def _open_stream(state: MachineState) -> BinaryIO:
    try:
        return state.ram.open("rb")
    except OSError as error:
        raise HarnessError(f"the saved state cannot be read: {error}") from None


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_DEADLINE)


class Machine:
    """One QEMU process.  A context manager: leaving it stops QEMU and removes its overlays.

    Knows nothing of what runs inside.  `console` is the first serial line, `serial[1:]` the others, each a connected
    socket whose other end QEMU holds.
    """

    def __init__(self, description: MachineDescription, store: Store) -> None:
        self.description = description
        self._store = store
        self._resources = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None
        self.serial: tuple[socket.socket, ...] = ()
        self.folder = Path()
        #: What it executes, where its description has an instrument for that; stays when the machine has gone.
        self.execution: Execution | None = None
        #: Who has its gdb stub, which speaks with one at a time.
        self.debugger: Debugger | None = None
        self._ports: dict[int, int] = {}
        self._started = time.monotonic()

    # life

    def start(self, state: MachineState | None = None, *, paused: bool = False, spend: bool = False) -> None:
        """Start QEMU, from power-on or from STATE; return when it answers on its monitor.

        With SPEND the disks of STATE become the machine's own, and nobody else can resume from it.
        Raises UsageError when a file of the description is missing, the port is taken or a disk is none; HarnessError
        with QEMU's own words when it refuses to start for another reason.
        """
        if self._process is not None:
            raise HarnessError("this machine has been started already: make a new one")
        qemu = find_qemu()
        self._started = time.monotonic()
        _live.add(self)
        try:
            self.folder = self._resources.enter_context(self._store.scratch("machine"))
            self._watch_execution(qemu)
            sources = self.description.disks if state is None else state.disks(self.description.disks)
            overlays = self._take_over(sources) if spend else self._make_overlays(sources)
            memory = self._find_memory(state, spend=spend)
            description = self.description.with_disks(overlays)
            description = description if state is None else description.booted()
            self._launch(qemu, description, state, memory, paused=paused)
        except BaseException:
            self.stop()
            raise

    def _watch_execution(self, qemu: str) -> None:
        instrument = self.description.instrument
        if instrument is None:
            return
        if self.description.accelerator is not Accelerator.TCG:
            raise UsageError(f"what is executed is known under tcg only, not {self.description.accelerator.value}")
        demand_plugins(qemu)
        self.execution = instrument.prepare(self.folder / EXECUTION_MAP)

    def _take_over(self, sources: Sequence[Disk]) -> list[Disk]:
        return [replace(disk, file=disk.file.rename(self.folder / disk.file.name)) for disk in sources]

    def _find_memory(self, state: MachineState | None, *, spend: bool) -> MemoryFile | None:
        own = self.folder / _MEMORY
        if state is not None and state.memory.exists():
            if not spend:
                return MemoryFile(state.memory.resolve(), shared=False)
            state.memory.rename(own)
        elif state is not None or not self.description.lasting:
            return None
        return MemoryFile(own, shared=True)

    def _make_overlays(self, sources: Sequence[Disk]) -> list[Disk]:
        overlays = []
        for number, disk in enumerate(sources):
            if not disk.file.is_file():
                raise UsageError(f"disk {disk.file} does not exist")
            if disk.writable:
                overlays.append(disk)
                continue
            overlay = self.folder / f"disk{number}.qcow2"
            about = disk.file.stat()
            overlay.write_bytes(
                _new_overlay(disk.file.resolve(), disk.format, (about.st_dev, about.st_ino, about.st_mtime_ns))
            )
            overlays.append(Disk(overlay, model=disk.model))
        return overlays

    def _launch(
        self,
        qemu: str,
        description: MachineDescription,
        state: MachineState | None,
        memory: MemoryFile | None,
        *,
        paused: bool,
    ) -> None:
        ours: list[socket.socket] = []
        theirs: list[socket.socket] = []
        for _ in range(1 + description.serial_ports):
            near, far = socket.socketpair()
            ours.append(near)
            theirs.append(far)
            self._resources.callback(near.close)
        fds = [far.fileno() for far in theirs]
        argv = [
            qemu,
            *description.arguments(monitor_fd=fds[0], serial_fds=fds[1:], gdb_socket=_GDB_SOCKET, memory=memory),
        ]
        stream = None
        if state is not None:
            stream = self._resources.enter_context(_open_stream(state))
            fds.append(stream.fileno())
            argv += ["-incoming", "defer"]
        if paused or state is not None:
            argv.append("-S")
        # Should this process be killed outright, QEMU must not outlive it.
        if shutil.which("setpriv"):
            argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        log = self.folder / "qemu.log"
        with log.open("wb") as output:
            self._process = _start_lastingly(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=fds,
                cwd=self.folder,
                start_new_session=True,  # a Ctrl-C is for us to handle; QEMU is stopped in order
            )
        for far in theirs:
            far.close()
        from harness.machine.monitor import Monitor  # loaded while QEMU starts, which takes as long

        try:
            self._monitor = Monitor(ours[0])
        except (GuestLostError, DeadlineError):
            raise self._explain_failed_start(log) from None
        self.serial = tuple(ours[1:])
        if stream is not None:
            if memory is not None:
                self._leave_memory_out(True)
            self._begin_incoming(stream)
            self._await_incoming()
            stream.close()
            if not paused:
                self.resume()

    def _begin_incoming(self, stream: BinaryIO) -> None:
        """Have QEMU load STREAM: by its descriptor, which 11.1 refuses for files, or by its name, which 8.2 can."""
        version = self.monitor.execute("query-version")["qemu"]
        by_name = (version["major"], version["minor"]) >= (8, 2)
        uri = f"file:{Path(stream.name).resolve()}" if by_name else f"fd:{stream.fileno()}"
        self.monitor.execute("migrate-incoming", uri=uri)

    def _leave_memory_out(self, left_out: bool) -> None:
        """Say whether the stream is, or is to be, without memory, which is a file."""
        capability = {"capability": _LEAVES_MEMORY_OUT, "state": left_out}
        self.monitor.execute("migrate-set-capabilities", capabilities=[capability])

    def _can_leave_memory_out(self) -> bool:
        known = self.monitor.execute("query-migrate-capabilities")
        return any(each["capability"] == _LEAVES_MEMORY_OUT for each in known)

    def _explain_failed_start(self, log: Path) -> HarnessError:
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if (status := self._process.wait(1)) < 0:
                    return GuestLostError(f"QEMU was killed by signal {-status} as it started")
        said = log.read_text(errors="replace").strip()
        if "Could not set up host forwarding rule" in said:
            return UsageError(
                f"port {self.description.ssh_port} on 127.0.0.1 is taken: choose another, or 0 to have one chosen"
            )
        return HarnessError(f"QEMU did not start: {_last_words(said) or 'it said nothing'}")

    def _await_incoming(self) -> None:
        end = time.monotonic() + _SAVE_DEADLINE
        while (status := self.monitor.execute("query-migrate").get("status")) != "completed":
            if status == "failed":
                raise HarnessError("the saved state could not be loaded by this QEMU")
            if time.monotonic() > end:
                raise DeadlineError("the saved state to be loaded", _SAVE_DEADLINE)
            self.check()
            time.sleep(_LOADING)

    @property
    def monitor(self) -> Monitor:
        """The QMP session; raises GuestLostError when the machine is not running."""
        if self._monitor is None:
            raise GuestLostError("the machine is not running")
        return self._monitor

    @property
    def pid(self) -> int | None:
        """QEMU's process id on this host, or None when it is not running."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def was_stopped(self) -> bool:
        """Whether it was never started, or has been stopped since: unlike one that ended by itself."""
        return self._monitor is None

    @property
    def cpu_seconds(self) -> float:
        """How long QEMU has computed, in seconds of its CPU time; as long as it has lived where that is not known."""
        self.check()
        try:
            times = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return time.monotonic() - self._started
        return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

    def await_idle(self, deadline: float) -> None:
        """Return when the guest has next to nothing to do, or after DEADLINE seconds: some never idle."""
        end = time.monotonic() + deadline
        used, moment = self.cpu_seconds, time.monotonic()
        while moment < end:
            time.sleep(_IDLE_SPAN)  # nothing tells of it
            before, used = used, self.cpu_seconds
            began, moment = moment, time.monotonic()
            if used - before < _IDLE * (moment - began):
                return

    def check(self) -> None:
        """Raise GuestLostError if QEMU has ended, with its last words."""
        if self._process is None:
            raise GuestLostError("the machine is not running")
        if (status := self._process.poll()) is not None:
            log = self.folder / "qemu.log"
            said = _last_words(log.read_text(errors="replace")) if log.exists() else ""
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise GuestLostError(f"QEMU {how}{': ' + said if said else ''}")

    def await_end(self, deadline: float) -> None:
        """Wait until QEMU ends by itself, as it does when the guest switches off or restarts.

        Raises DeadlineError after DEADLINE seconds, GuestLostError when it was killed or failed.
        """
        if self._process is None:
            raise GuestLostError("the machine is not running")
        try:
            status = self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise DeadlineError("the machine to switch itself off", deadline) from None
        if status != 0:
            self.check()

    def exit_status(self, deadline: float) -> int:
        """Wait until QEMU ends by itself and return its exit status, or minus the signal that killed it.

        Raises DeadlineError after DEADLINE seconds.
        """
        if self._process is None:
            raise GuestLostError("the machine is not running")
        try:
            return self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise DeadlineError("QEMU to end", deadline) from None

    def stop(self) -> None:
        """End QEMU and remove its overlays; safe to call at any time, any number of times."""
        _live.discard(self)
        monitor, self._monitor = self._monitor, None
        process = self._process
        try:
            if monitor is not None:
                if process is not None and process.poll() is None:
                    with contextlib.suppress(HarnessError):
                        monitor.execute("quit", deadline=_QUIT_DEADLINE)
                monitor.close()
            if process is not None:
                try:
                    process.wait(_QUIT_DEADLINE if monitor is not None else 0)
                except subprocess.TimeoutExpired:
                    _kill(process)
        finally:
            if process is not None and process.poll() is None:  # a second Ctrl-C while waiting above
                _kill(process)
            self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # use

    def host_port(self, guest_port: int) -> int:
        """Return the port on 127.0.0.1 that leads to the guest's TCP port GUEST_PORT."""
        if not self._ports:
            shown = self.monitor.human("info usernet")
            found = re.findall(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)", shown)
            self._ports = {int(far): int(near) for near, far in found}
        if guest_port not in self._ports:
            raise HarnessError(f"this machine forwards no port to its guest's port {guest_port}")
        return self._ports[guest_port]

    @property
    def gdb_socket(self) -> Path:
        """The private socket of QEMU's gdb stub (`target remote PATH` in gdb); raises GuestLostError without a QEMU.

        An address has room for 107 bytes, and the store may lie deep: so it is named by way of QEMU's working folder.
        """
        self.check()
        return Path(f"/proc/{self.pid}/cwd/{_GDB_SOCKET}")

    @contextlib.contextmanager
    def debugged(self) -> Iterator[Debugger]:
        """Give a session with its gdb stub, in which it runs; raises GuestLostError when the stub does not answer."""
        if self.debugger is not None:
            raise HarnessError("this machine has a debugger already")
        with Debugger(self.gdb_socket, paused=not self.runs) as debugger:
            self.debugger = debugger
            try:
                yield debugger
            finally:
                self.debugger = None

    def standing(self, work: Callable[[GdbStub | Debugger], T]) -> T:
        """Do WORK, which may read and write the guest's memory, between two instructions; return what it returns.

        Raises GuestLostError when the gdb stub does not answer, and what WORK raises.
        """
        if self.debugger is not None:
            return self.debugger.standing(work)
        with GdbStub(self.gdb_socket, paused=not self.runs) as stub:
            return work(stub)

    @property
    def runs(self) -> bool:
        """Whether the virtual CPUs run, rather than being paused; a debugger's looks at them do not count."""
        if self.debugger is not None:
            return not self.debugger.paused
        return bool(self.monitor.execute("query-status")["running"])

    def pause(self) -> None:
        """Stop all virtual CPUs; the guest's clock stands still."""
        if self.debugger is not None:
            self.debugger.pause()
        else:
            self.monitor.execute("stop")

    def resume(self) -> None:
        """Let the virtual CPUs run (again)."""
        if self.debugger is not None:
            self.debugger.resume()
        else:
            self.monitor.execute("cont")

    def read_virtual(self, address: int, size: int, cpu: int = 0) -> bytes:
        """Return SIZE bytes at ADDRESS in the address space that virtual CPU number CPU is in.

        Raises HarnessError where nothing is mapped.
        """
        dump = self.folder / f"memory-{os.getpid()}-{threading.get_ident()}"
        signed = address - (1 << 64) if address >> 63 else address  # QMP has no unsigned numbers
        try:
            self.monitor.execute("memsave", val=signed, size=size, filename=str(dump), cpu_index=cpu)
            return dump.read_bytes()
        finally:
            dump.unlink(missing_ok=True)

    def dump_memory(self, file: Path, *, deadline: float = _SAVE_DEADLINE) -> None:
        """Write all of the guest's memory to FILE as an ELF core; raises HarnessError when that fails."""
        self.monitor.execute("dump-guest-memory", deadline=deadline, paging=False, protocol=f"file:{file.resolve()}")

    def read_physical(self, address: int, size: int) -> bytes:
        """Return SIZE bytes of guest physical memory."""
        dump = self.folder / f"memory-{os.getpid()}-{threading.get_ident()}"
        try:
            self.monitor.execute("pmemsave", val=address, size=size, filename=str(dump), deadline=_SAVE_DEADLINE)
            return dump.read_bytes()
        finally:
            dump.unlink(missing_ok=True)

    def save(self, folder: Path) -> MachineState:
        """Save memory, devices and disks into FOLDER and stop the machine, which is spent by that.

        FOLDER must exist and be on the store's file system.  Raises HarnessError when a device cannot be saved.
        """
        self.pause()
        state = MachineState(folder)
        memory = self.folder / _MEMORY
        if self._can_leave_memory_out():
            self._leave_memory_out(memory.exists())
        else:  # QEMU calls it experimental; without it all is in the stream
            memory.unlink(missing_ok=True)
        self.monitor.execute("migrate", uri=f"exec:cat > {shlex.quote(str(state.ram))}")
        end = time.monotonic() + _SAVE_DEADLINE
        while (answer := self.monitor.execute("query-migrate")).get("status") != "completed":
            if answer.get("status") == "failed":
                raise HarnessError(
                    f"the machine could not be saved: {answer.get('error-desc', 'QEMU gives no reason')}"
                )
            if time.monotonic() > end:
                raise DeadlineError("the machine's state to be saved", _SAVE_DEADLINE)
            self.check()
            time.sleep(_POLL)
        # "completed" comes before the pipe is closed and its reader has ended, this state after both.
        while self.monitor.execute("query-status")["status"] != "postmigrate":
            if time.monotonic() > end:
                raise DeadlineError("the saved machine to be finished with", _SAVE_DEADLINE)
            self.check()
            time.sleep(_POLL)
        # QEMU has flushed and released its disks: they are ours to keep once it is gone.
        with contextlib.suppress(GuestLostError):
            self.monitor.execute("quit")
        if self._process is not None:
            try:
                self._process.wait(_SAVE_DEADLINE)
            except subprocess.TimeoutExpired:
                raise DeadlineError("QEMU to end after it has saved the machine", _SAVE_DEADLINE) from None
        for overlay in self.folder.glob("disk*.qcow2"):
            overlay.replace(folder / overlay.name)
        for memory in self.folder.glob(_MEMORY):
            memory.replace(state.memory)
        about = {"qemu": qemu_version(), "machine": self.description.command_line()}
        (folder / "machine.json").write_text(json.dumps(about, indent=2) + "\n")
        self.stop()
        return state

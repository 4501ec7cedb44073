# SPDX-License-Identifier: BSD-2-Clause
"""A running operating system on a machine: console, SSH, identity, and whether it is still well."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import DeadlineError, GuestLostError, HarnessError, UsageError
from harness.guests.ahead import boot_ahead
from harness.guests.console import Console
from harness.guests.crash import CrashReport
from harness.guests.hang import PATIENCE, PROBE_DEADLINE, Trial, answers_console, observe
from harness.guests.ssh import SshAccess, SshConnection
from harness.guests.whitebox import Whitebox
from harness.machine.accel import choose_accelerator
from harness.machine.description import Accelerator, Lane, MachineDescription
from harness.machine.executed import Instrument
from harness.machine.qemu import Machine, MachineState
from harness.store import Store

Progress = Callable[[str], None]

BOOT_DEADLINE = 180.0
SSH_DEADLINE = 30.0
_REST_DEADLINE = 15.0
# How a kernel's last words begin, and how long, in seconds, they may take to be whole.
_BEGUN = re.compile(r"(?:panic: |Kernel pani|Fatal (?:double|trap)|SECONDARY PANIC|Stopped at )")
_LAST_WORDS = 1.0
_RECENT = 2000  # characters


class KernelPanicError(GuestLostError):
    """The kernel in the guest died; `evidence` is what it said, `fingerprint` tells its cause from others."""

    def __init__(self, report: CrashReport) -> None:
        self.report = report
        self.headline = report.headline
        self.evidence = report.text
        self.fingerprint = report.fingerprint
        super().__init__(f"the guest's kernel panicked: {report.headline}")


class GuestHangError(GuestLostError):
    """The guest runs but answers nobody; `report` says what its kernel does meanwhile."""

    def __init__(self, report: CrashReport) -> None:
        self.report = report
        self.evidence = report.text
        self.fingerprint = report.fingerprint
        super().__init__(f"the guest hangs: {report.headline}")


def _nothing() -> None:
    """Do it."""


@dataclass(frozen=True)
class MachineSize:
    """What a guest is given: MiB of memory, CPUs, the SSH port wished for (0: any free one), and the accelerator.

    `accelerator` None stands for the one that is fastest on this host (harness.machine.accel).  `boot` says from which
    boot of the target it is resumed: each has a warm state of its own.
    """

    memory: int = 512
    cpus: int = 1
    ssh_port: int = 0
    accelerator: Accelerator | None = None
    boot: int = 0


class Target(ABC):
    """A base image with a kernel: what a verdict is about."""

    #: Name of the system call interface: `dragonfly` or `linux`.
    abi: str
    #: Whether verdicts are about DragonFly at all.
    is_dragonfly: bool
    #: Matches the first line of a dying kernel's last words.
    panic: re.Pattern[str]
    #: Matches what the console says when everything has been started.
    started: str
    #: Whether its kernels are known to boot ahead of the clock (harness.guests.ahead).
    boots_ahead = False

    @property
    @abstractmethod
    def label(self) -> str:
        """One line that names the kernel and the image, for every report."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Identifies image and kernel by content."""

    @property
    def osreldate(self) -> int:
        """__DragonFly_version of its kernel as far as that is known before it runs, else 0."""
        return 0

    @property
    def needs(self) -> tuple[str, ...]:
        """Digests of the blobs in the store that its machines read as they run."""
        return ()

    @abstractmethod
    def machine(self, size: MachineSize, accelerator: Accelerator) -> MachineDescription:
        """Return the machine this target runs on."""

    def quirks(self, accelerator: Accelerator) -> tuple[str, ...]:
        """Return, in words, what the machine does differently for the kernel's era under ACCELERATOR."""
        del accelerator
        return ()

    @abstractmethod
    def access(self) -> SshAccess:
        """Return how to log in."""

    @abstractmethod
    def verify(self, guest: Guest) -> str:
        """Read the running kernel's identity and return it as one line.

        Raises HarnessError when it is not the kernel that was asked for.
        """

    def hurry(self, guest: Guest) -> None:
        """Have GUEST, which is on its way up, leave out a wait, if there is one that nobody needs."""
        del guest

    def look_into(self, machine: Machine) -> Whitebox:
        """Return the kernel as it runs on MACHINE; raises UsageError for one that cannot be looked into."""
        del machine
        raise UsageError("this target has no DragonFly kernel to look into")

    def confirms_panic(self, guest: Guest) -> bool:
        """Tell whether the kernel is really dead: any program can print a panic's first line on the console."""
        del guest
        return True

    def collect_panic(self, guest: Guest, headline: str, start: int) -> CrashReport:
        """Return what a panicked guest has to say; called once, START is where HEADLINE begins on the console."""
        del start
        return CrashReport(headline, sections=(("console", "\n".join(guest.console.tail())),))

    def collect_hang(self, guest: Guest) -> CrashReport:
        """Return what can be seen from outside of a guest that does not answer."""
        kernel, frames, texts = observe(guest.machine, None, None)
        return CrashReport(kernel, frames, (("console", "\n".join(guest.console.tail())), *texts))


class Guest:
    """A booted target.  A context manager: leaving it stops the machine.

    `accelerator` goes before the one that SIZE asks for.
    """

    def __init__(
        self,
        target: Target,
        store: Store,
        size: MachineSize | None = None,
        *,
        guest_ports: tuple[int, ...] = (),
        accelerator: Accelerator | None = None,
    ) -> None:
        self.target = target
        self.size = MachineSize() if size is None else size
        self.store = store
        self.accelerator = accelerator or self.size.accelerator or choose_accelerator(store).accelerator
        self._take_machine(replace(target.machine(self.size, self.accelerator), guest_ports=guest_ports))

    def _take_machine(self, description: MachineDescription) -> None:
        self.machine = Machine(description, self.store)
        self._console: Console | None = None
        self._ssh: SshConnection | None = None
        self._panic: KernelPanicError | None = None
        self._hang: GuestHangError | None = None
        self._innocent = 0  # up to here the console holds no panic, only what looks like one
        #: Called before the guest is spoken to by SSH: in the time-warped lane the hub holds its clock.
        self.before_ssh: Callable[[], None] = _nothing
        self.identity = ""

    def another(
        self,
        lane: Lane = Lane.WALL_CLOCK,
        events: Path | None = None,
        *,
        lasting: bool = False,
        instrument: Instrument | None = None,
    ) -> Guest:
        """Return a guest of the same target on the same kind of machine, its time passing as LANE says, not started.

        One that is LASTING leaves, when it is saved, what others resume from quickly; with an INSTRUMENT it is noted
        what it executes.
        """
        twin = copy(self)  # finding out accelerator and description again would cost as much as resuming
        twin._take_machine(
            replace(self.machine.description, lane=lane, events=events, lasting=lasting, instrument=instrument)
        )
        return twin

    @property
    def lane(self) -> Lane:
        """How its time passes."""
        return self.machine.description.lane

    def boot(
        self, progress: Progress = lambda _: None, *, deadline: float = BOOT_DEADLINE, ahead: bool = False
    ) -> None:
        """Start the machine and return when the right kernel answers over SSH.

        With AHEAD what can be skipped of a boot is, where target and accelerator allow that; its clock is then ahead of
        the host's by some seconds.  A target that does not come up so is booted at the pace of the clock, and hurried.

        Raises KernelPanicError when it panics on the way, DeadlineError after DEADLINE seconds, HarnessError when
        another kernel than the target's answers.
        """
        try:
            progress(f"starting QEMU ({self.accelerator.value}, {self.size.memory} MiB, {self.size.cpus} CPU)")
            if ahead and self._may_boot_ahead and self._boot_ahead(progress):
                return
            self.machine.start()
            self._console = Console(self.machine.serial[0], self.machine.folder / "console.log")
            progress("booting the kernel, waiting for SSH")
            if ahead:
                self.target.hurry(self)
            self._arrive(deadline, progress)
        except BaseException:
            self.stop()
            raise

    def _arrive(self, deadline: float, progress: Progress) -> None:
        self._connect(deadline)
        progress("comparing the running kernel with the one asked for")
        self.identity = self.target.verify(self)
        progress("waiting for the end of the boot")
        self._await_rest()

    @property
    def _may_boot_ahead(self) -> bool:
        """Whether the target is known to, on such a machine: instructions are counted by TCG alone, on one CPU."""
        machine = self.machine.description
        return (
            self.target.boots_ahead
            and (self.accelerator, machine.lane, machine.cpus) == (Accelerator.TCG, Lane.WALL_CLOCK, 1)
            and not any(disk.writable for disk in machine.disks)
        )

    def _boot_ahead(self, progress: Progress) -> bool:
        """Boot ahead of the clock and go on at its pace; tell whether that worked."""
        description = self.machine.description
        progress("booting the kernel ahead of the clock")
        try:
            with self.store.scratch("ahead") as folder:
                state, console = boot_ahead(description, self.store, folder, self.target.started, self.target.panic)
                self.machine.start(state, spend=True)
                self._console = Console(self.machine.serial[0], self.machine.folder / "console.log", console)
            progress("waiting for SSH")
            self._arrive(SSH_DEADLINE, progress)
        except UsageError:
            raise
        except HarnessError as error:
            why = str(error).partition("\n")[0]
            progress(f"that did not work ({why}): booting the kernel at the pace of the clock, waiting for SSH")
            self.stop()
            self._take_machine(description)
            return False
        return True

    def resume(self, state: MachineState, identity: str, *, paused: bool = False) -> None:
        """Go on from STATE, in which the kernel called IDENTITY had been verified; return when QEMU runs.

        If PAUSED, its CPUs stand still yet.  SSH is connected when it is first used.  Raises HarnessError when the
        state cannot be loaded.
        """
        try:
            self.machine.start(state, paused=paused)
            self._console = Console(self.machine.serial[0], self.machine.folder / "console.log")
            self.identity = identity
        except BaseException:
            self.stop()
            raise

    def _await_rest(self) -> None:
        # SSH answers while other daemons and the gettys are still to come: their pids would get in the way of tests.
        # An image without a getty on the serial line has had its time when the deadline is over.
        with contextlib.suppress(DeadlineError):
            self.console.expect(
                [self.target.started], awaited="the login prompt", deadline=_REST_DEADLINE, watch=self.check
            )

    def _connect(self, deadline: float) -> None:
        try:
            port = self.machine.host_port(22)
        except GuestLostError:
            self.check()  # which knows whether it has panicked already
            raise
        connection = SshConnection(port, self.target.access())
        try:
            connection.connect(deadline, self.check, self._has_started)
        except DeadlineError as error:
            connection.close()
            raise DeadlineError(error.awaited, deadline, self.console.tail()) from None
        except BaseException:
            connection.close()
            raise
        self._ssh = connection

    def _has_started(self) -> bool:
        return re.search(self.target.started, self.console.text()) is not None

    @property
    def console(self) -> Console:
        """The serial console; raises GuestLostError before the machine is started."""
        if self._console is None:
            raise GuestLostError("the guest has not been started")
        return self._console

    @property
    def ssh(self) -> SshConnection:
        """The SSH connection, made when first used, and again when it was cut.

        Raises DeadlineError or HarnessError when it cannot be made.
        """
        self.before_ssh()
        if self._ssh is None or not self._ssh.is_open:
            self._connect(SSH_DEADLINE)
        assert self._ssh is not None
        return self._ssh

    @property
    def kernel(self) -> Whitebox:
        """The running kernel from outside; raises UsageError where it cannot be looked into."""
        return self.target.look_into(self.machine)

    def check(self) -> None:
        """Raise KernelPanicError if the kernel has died, GuestLostError if the machine has gone; else return."""
        self._look_for_panic()
        try:
            self.machine.check()
        except GuestLostError:
            self.console.join()  # its last words may have been on their way
            self._look_for_panic()
            raise

    @contextlib.contextmanager
    def minded(self) -> Iterator[None]:
        """Let what fails meanwhile be told by how the guest died, if it has: then raises what check() does."""
        try:
            yield
        except HarnessError:
            self.check()
            raise

    def take_last_look(self) -> None:
        """Do what hear_out() does before the guest is given up; one that was stopped already has nothing to tell."""
        if not self.machine.was_stopped:
            self.hear_out()

    def hear_out(self) -> None:
        """Do what check() does, and wait for the end of a panic that has begun."""
        console, end = self.console, time.monotonic() + _LAST_WORDS
        while True:
            known = console.position
            self.check()
            # What looks like one may be a program's: it costs a moment.
            begun = _BEGUN.search(console.text(max(self._innocent, known - _RECENT)))
            left = end - time.monotonic()
            if not begun or console.closed or left <= 0 or not console.await_more(known, left):
                return

    def _look_for_panic(self) -> None:
        if self._panic is not None:
            raise self._panic
        console = self.console
        while (found := self.target.panic.search(console.text(), self._innocent)) is not None:
            if self.target.confirms_panic(self):
                report = self.target.collect_panic(self, found[0].strip(), found.start())
                self._panic = KernelPanicError(report)
                raise self._panic
            self._innocent = found.end()

    def probe(self, deadline: float = PROBE_DEADLINE, patience: float = PATIENCE) -> None:
        """Return if the guest answers a newcomer to SSH within DEADLINE seconds: of CPU time, unless it idles.

        Raises GuestHangError, with evidence, if it does not, GuestLostError if PATIENCE seconds do not give it as much
        CPU time, which is the host's doing, or if its kernel answers that nobody listens; and what check() raises.
        """
        self.check()
        if self._hang is not None:
            raise self._hang
        self.before_ssh()
        trial = Trial(self.machine, deadline, patience)
        try:
            answers = trial.await_ssh(self.machine.host_port(22))
        finally:
            self.check()  # it may have died of the probe
        if answers:
            return
        if trial.refused:
            raise GuestLostError(
                f"nothing in the guest listens at its SSH port any more (for {trial.passed:.0f} s): its server has"
                " ended; the kernel turns connections down, and so does not hang"
            )
        fair, passed, computed = trial.was_fair, trial.passed, trial.computed
        console = "; its console still answers" if answers_console(self.console) else ", nor does its console"
        if not fair:
            raise GuestLostError(
                f"SSH did not answer in {passed:.0f} s{console}; in them the guest got {computed:.1f} s of CPU time, "
                f"less than {deadline:g} s: on a host this busy nobody can tell whether it hangs"
            )
        report = self.target.collect_hang(self)
        self._hang = GuestHangError(replace(report, headline=f"SSH does not answer{console}; {report.headline}"))
        raise self._hang

    def keep_console(self, destination: Path) -> None:
        """Copy the console's record to DESTINATION."""
        shutil.copyfile(self.console.log, destination)

    def stop(self) -> None:
        """End the guest without ceremony: its disks are overlays, nothing in it is worth a shutdown."""
        if self._ssh is not None:
            self._ssh.close()
        self.machine.stop()
        if self._console is not None:
            self._console.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

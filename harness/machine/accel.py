# SPDX-License-Identifier: BSD-2-Clause
"""Which accelerator to use on this host: each runs a small kernel, which is timed, saved and resumed."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.errors import DeadlineError, GuestLostError, HarnessError
from harness.files import write_whole
from harness.machine.description import Accelerator, MachineDescription
from harness.machine.directboot import direct_boot
from harness.machine.qemu import Machine, MachineState, find_qemu, qemu_version
from harness.store import Store
from harness.toolchain import compile_program

# What the probe says (probe/probe.c), and how QEMU ends when all went well.
_SAYS = "dfly-harness probe: "
_AWAITS_TIMERS, _WORKS, _CAN_BE_SAVED, _IS_DONE = "awaits timer interrupts", "works", "can be saved", "is done"
_ROUNDS = 100
_DONE_STATUS = 0x55 << 1 | 1

_HERE = Path(__file__).parent
_FLAGS = (
    "-m64", "-mcmodel=kernel", "-mno-red-zone", "-mno-mmx", "-mno-sse", "-std=c11", "-O2", "-ffreestanding", "-fno-pic",
    "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-nostdlib", "-static", "-Wall", "-Wextra", "-Werror",
    "-Wl,-z,noexecstack", "-Wl,-z,max-page-size=4096", "-Wl,--build-id=none",
)  # fmt: skip
_MEMORY = 128  # MiB

# How long the probe may say nothing.  All of it takes half a second, and a working accelerator may be slow on a busy
# host.  TCG does not hang, so it may take its time.
SILENCE = 10.0
_TCG_SILENCE = 60.0
# How long another command may take to measure, in seconds.
_LOCK_SECONDS = 1800.0
# One that has worked so many times longer than the fastest so far, and this many seconds, is not waited for.
_TOO_SLOW, _FAIR_TRIAL = 3.0, 2.0
# The accelerators go from what is usually fast to slow; a later one must be so many times faster to be preferred, so
# that noise does not decide.
_CLEARLY = 1.25
_TICK = 0.1

# Seconds for which a verdict may be used again.  Figures depend on what else the host does, so they are taken anew now
# and then, those that speak against a candidate sooner; trouble whose cause may pass is looked at each time.
_DAY, _HOUR, _SHORT = 86400.0, 3600.0, 600.0


class Outcome(StrEnum):
    """What came of a candidate.  Only one that works is ever chosen."""

    WORKS = "works"
    SLOW = "slow"
    FAILS = "fails"  # its guest says so itself
    HANGS = "hangs"
    CANNOT_BE_SAVED = "cannot be saved"
    ABSENT = "absent"  # from QEMU, or /dev/kvm cannot be opened: part of what verdicts are kept by
    TROUBLE = "trouble"

    @property
    def believed_for(self) -> float:
        """For how many seconds the verdict may be used again."""
        return _BELIEVED_FOR[self]


_BELIEVED_FOR = {
    Outcome.WORKS: _DAY,
    Outcome.SLOW: _HOUR,
    Outcome.FAILS: _HOUR,
    Outcome.HANGS: _SHORT,
    Outcome.CANNOT_BE_SAVED: _SHORT,
    Outcome.ABSENT: _DAY,
    Outcome.TROUBLE: 0.0,
}


@dataclass(frozen=True)
class AcceleratorVerdict:
    """What came of ACCELERATOR, in words why.

    `work` is how many seconds its guest needed for the work (what that is, probe/probe.c says), or would have needed;
    0.0 where it did none.  `seconds` is what the whole trial took, `measured` when it ended (seconds since 1970).
    """

    accelerator: Accelerator
    outcome: Outcome
    reason: str
    seconds: float
    work: float = 0.0
    measured: float = 0.0

    @property
    def usable(self) -> bool:
        """Whether a guest ran, was saved and resumed."""
        return self.outcome is Outcome.WORKS

    def __str__(self) -> str:
        return f"{self.accelerator.value}: {self.reason}"


@dataclass(frozen=True)
class Choice:
    """The accelerator of a run, and why this one: the figures it was chosen by, or that somebody asked for it."""

    accelerator: Accelerator
    reason: str = "asked for"

    def __str__(self) -> str:
        return f"{self.accelerator.value} ({self.reason})"


def probe_accelerators(
    store: Store, candidates: Sequence[Accelerator] = tuple(Accelerator), *, silence: float = SILENCE
) -> tuple[AcceleratorVerdict, ...]:
    """Boot, time, save and resume a small kernel under each of CANDIDATES; return a verdict on each, in their order.

    A guest that says nothing for SILENCE seconds is ended (TCG is given 60 s).  Verdicts are used again as long as the
    boot of the host, QEMU, the probe and /dev/kvm stay the same, but not for longer than Outcome.believed_for.
    Raises HarnessError when QEMU is not there or the probe cannot be built, DeadlineError when another command does not
    come to an end with it.
    """
    probe = build_probe(store.cache)
    host = _host_identity(probe)
    file = store.cache / "accelerators.json"
    # The lock is held meanwhile: workers that start together measure once, and do not disturb each other's figures.
    with store.lock("accelerators", deadline=_LOCK_SECONDS):
        known = _load(file, host)
        missing = [candidate for candidate in candidates if candidate not in known]
        if len(missing) < len(candidates) and _may_work(missing):
            # Figures are compared, so they are taken one after the other, on a host that does the same meanwhile.
            old = [each for each in candidates if each not in missing and known[each].usable]
            missing += [each for each in old if time.time() - known[each].measured > _SHORT]
        # TCG first: what is slower than it need not be waited for.
        for candidate in sorted(missing, key=lambda each: each is not Accelerator.TCG):
            limit = max(silence, _TCG_SILENCE) if candidate is Accelerator.TCG else silence
            best = min((each.work for each in known.values() if each.usable), default=None)
            known[candidate] = _Trial(candidate, probe, store, limit, best).run()
        if missing:
            _save(file, host, [verdict for verdict in known.values() if verdict.outcome.believed_for > 0])
    return tuple(known[candidate] for candidate in candidates)


def _may_work(missing: Sequence[Accelerator]) -> bool:
    """Tell whether any of MISSING may give a figure: on Linux nothing but KVM and TCG does."""
    return any(each in {Accelerator.TCG, Accelerator.KVM} or sys.platform != "linux" for each in missing)


def choose_accelerator(
    store: Store, candidates: Sequence[Accelerator] = tuple(Accelerator), *, silence: float = SILENCE
) -> Choice:
    """Return the one of CANDIDATES whose guest worked fastest, with all verdicts; see probe_accelerators().

    Raises HarnessError with the reason for each when none works.
    """
    verdicts = probe_accelerators(store, candidates, silence=silence)
    usable = [verdict for verdict in verdicts if verdict.usable]
    if not usable:
        raise HarnessError("no accelerator runs guests on this host: " + "; ".join(map(str, verdicts)))
    fastest = min(verdict.work for verdict in usable)
    chosen = next(verdict for verdict in usable if verdict.work <= fastest * _CLEARLY)
    tried = [verdict for verdict in verdicts if verdict.outcome is not Outcome.ABSENT]  # of no use to say each time
    return Choice(chosen.accelerator, "; ".join(map(str, tried)))


def build_probe(cache: Path) -> Path:
    """Return the kernel that accelerators are tried with, built into CACHE if need be."""
    script, library = _HERE / "probe" / "probe.ld", _HERE / "bootstub"
    return compile_program(
        "accelprobe",
        [_HERE / "probe" / "entry.S", _HERE / "probe" / "probe.c", library / "lib.c"],
        [*_FLAGS, "-I", str(library), "-T", str(script)],
        cache,
        depends=[library / "lib.h", script],
    )


class _TrialError(Exception):
    """The trial ends here; `outcome` and the text are the verdict."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class _Trial:
    """One candidate put to the test."""

    def __init__(self, accelerator: Accelerator, probe: Path, store: Store, silence: float, best: float | None) -> None:
        self._accelerator = accelerator
        self._store = store
        self._silence = silence
        self._best = best
        self._work = 0.0
        self._stage = "QEMU starts"
        self._heard = time.monotonic()  # when there was a sign of life
        self._killed = False
        boot = direct_boot(probe, environment={}, cache=store.cache)
        self._description = MachineDescription(
            memory=_MEMORY,
            accelerator=accelerator,
            model="pc,hpet=off",
            boot=boot,
            nic=None,
            extra=("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
        )

    def run(self) -> AcceleratorVerdict:
        """Do it."""
        began = time.monotonic()
        try:
            with self._store.scratch("probe") as folder:
                state = self._boot_and_save(folder)
                saved = time.monotonic()
                self._resume(state)
            outcome = Outcome.WORKS
            reason = f"works in {self._work:.2f} s, resumes in {time.monotonic() - saved:.1f} s"
        except _TrialError as failure:
            outcome, reason = failure.outcome, str(failure)
        seconds = time.monotonic() - began
        return AcceleratorVerdict(
            self._accelerator, outcome, reason, round(seconds, 3), round(self._work, 4), time.time()
        )

    def _boot_and_save(self, folder: Path) -> MachineState:
        with self._watched(Machine(self._description, self._store)) as machine:
            self._start(machine)
            said = _Listener(machine.serial[0])
            self._stage = "the guest boots"
            self._await(said, machine, _AWAITS_TIMERS)
            self._stage = "the guest awaits timer interrupts"
            self._await(said, machine, _WORKS)
            self._stage = "the guest works"
            began = time.monotonic()
            self._await(said, machine, _CAN_BE_SAVED, began)
            self._work = said.last - began
            self._stage = "the guest is saved"
            try:
                return machine.save(folder)
            except GuestLostError:
                raise
            except HarnessError as error:
                raise _TrialError(Outcome.CANNOT_BE_SAVED, f"its guests cannot be saved: {error}") from error

    def _start(self, machine: Machine, state: MachineState | None = None) -> None:
        try:
            machine.start(state)
        except (GuestLostError, DeadlineError):
            raise
        except HarnessError as error:
            if self._killed:
                raise GuestLostError(str(error)) from error
            said = str(error).removeprefix("QEMU did not start: ")
            said = said.rpartition(f"-accel {self._accelerator.value}: ")[2]
            if state is not None:
                raise _TrialError(Outcome.CANNOT_BE_SAVED, f"its guests do not resume: {said}") from error
            absent = "invalid accelerator" in said or (self._accelerator is Accelerator.KVM and not _may_open_kvm())
            raise _TrialError(Outcome.ABSENT if absent else Outcome.TROUBLE, f"QEMU refuses it: {said}") from error

    def _resume(self, state: MachineState) -> None:
        with self._watched(Machine(self._description, self._store)) as machine:
            self._stage = "the guest is resumed"
            self._start(machine, state)
            said = _Listener(machine.serial[0])
            machine.serial[0].sendall(b"g")
            self._stage = "the resumed guest awaits timer interrupts"
            self._await(said, machine, _IS_DONE)
            if (status := machine.exit_status(self._silence)) != _DONE_STATUS:
                raise _TrialError(Outcome.TROUBLE, f"QEMU ended with status {status} instead of {_DONE_STATUS}")

    def _await(self, said: _Listener, machine: Machine, word: str, began: float | None = None) -> None:
        """Wait until the guest says WORD; BEGAN is when it began to work."""
        while not said.heard(_SAYS + word):
            if said.read(_TICK):
                self._heard = time.monotonic()
            elif said.ended:
                self._explain_end(said, machine)
            if began is not None and self._best is not None:
                self._judge_pace(time.monotonic() - began, said.rounds, self._best)

    def _judge_pace(self, spent: float, rounds: int, best: float) -> None:
        """Give up one that is slower than another by far: it would not be chosen."""
        if spent > max(_FAIR_TRIAL, best * _TOO_SLOW) and rounds < _ROUNDS:
            if rounds == 0:
                raise _TrialError(Outcome.SLOW, f"slow: no part of the work done in {spent:.1f} s")
            self._work = spent * _ROUNDS / rounds
            ratio = self._work / best
            raise _TrialError(Outcome.SLOW, f"slow: works in some {self._work:.0f} s, {ratio:.0f} times the fastest")

    def _explain_end(self, said: _Listener, machine: Machine) -> None:
        status = machine.exit_status(self._silence)  # one that was killed for its silence included
        if self._killed:
            raise GuestLostError("killed")
        last = said.last_words()
        how = f"QEMU was killed by signal {-status}" if status < 0 else f"QEMU ended with status {status}"
        if last:
            raise _TrialError(Outcome.FAILS, f"its guest says: {last}")
        raise _TrialError(Outcome.TROUBLE, f"{how} while {self._stage}")

    @contextmanager
    def _watched(self, machine: Machine) -> Iterator[Machine]:
        """Kill MACHINE's QEMU when there was no sign of life for too long; that is a verdict, too."""
        self._heard = time.monotonic()
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_TICK):
                if time.monotonic() - self._heard > self._silence and (pid := machine.pid) is not None:
                    self._killed = True
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    return

        watcher = threading.Thread(target=watch, name="accelerator-watch", daemon=True)
        watcher.start()
        try:
            with machine:
                yield machine
        except HarnessError as error:
            if self._killed:
                reason = f"{_existing(self._accelerator)}hangs: no sign of life for {self._silence:g} s"
                raise _TrialError(Outcome.HANGS, f"{reason} while {self._stage}") from error
            raise _TrialError(Outcome.TROUBLE, f"fails while {self._stage}: {error}") from error
        finally:
            over.set()
            watcher.join()


class _Listener:
    """Reads what a guest says on its console."""

    def __init__(self, console: socket.socket) -> None:
        self._console = console
        self._text = ""
        self.ended = False
        self.last = time.monotonic()

    def read(self, seconds: float) -> bool:
        """Read what comes within SECONDS; tell whether anything did."""
        self._console.settimeout(seconds)
        try:
            data = self._console.recv(4096)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        self.ended = not data
        self.last = time.monotonic()
        self._text += data.decode(errors="replace")
        return bool(data)

    def heard(self, words: str) -> bool:
        """Tell whether a whole line said WORDS."""
        return f"{words}\r\n" in self._text

    @property
    def rounds(self) -> int:
        """How many rounds of work were reported."""
        return self._text.partition(_SAYS + _WORKS)[2].count(".")

    def last_words(self) -> str:
        """Return the last line the probe said about itself, unless that is where it had got to."""
        line = self._text.strip().rpartition(_SAYS)[2].partition("\r\n")[0] if _SAYS in self._text else ""
        return "" if line in {_AWAITS_TIMERS, _WORKS, _CAN_BE_SAVED} else line


def _may_open_kvm() -> bool:
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def _existing(accelerator: Accelerator) -> str:
    """Say what makes a hang surprising."""
    return "/dev/kvm opens but it " if accelerator is Accelerator.KVM and _may_open_kvm() else ""


def _boot_of_host() -> str:
    """Identify the time since the host was started: what it loads then may be another module, on another machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return ""


def _host_identity(probe: Path) -> dict[str, Any]:
    """Return what a verdict depends on: QEMU, the probe, this boot of this host, and who may open which /dev/kvm."""
    try:
        kvm = os.stat("/dev/kvm")
    except OSError:
        device = None
    else:
        device = [kvm.st_rdev, kvm.st_mode, kvm.st_uid, kvm.st_gid, kvm.st_ino, kvm.st_ctime_ns, _may_open_kvm()]
    return {
        "qemu": [find_qemu(), qemu_version()],
        "probe": probe.name,
        "kernel": [platform.system(), platform.release(), platform.machine(), _boot_of_host()],
        "kvm": device,
    }


def _load(file: Path, host: dict[str, Any]) -> dict[Accelerator, AcceleratorVerdict]:
    try:
        saved = json.loads(file.read_text())
        if saved["host"] != host:
            return {}
        verdicts = [
            AcceleratorVerdict(
                Accelerator(entry["accelerator"]), Outcome(entry["outcome"]), str(entry["reason"]),
                float(entry["seconds"]), float(entry["work"]), float(entry["measured"]),
            )
            for entry in saved["verdicts"]
        ]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: probe again
        return {}
    # A clock that was set back must not keep a verdict for ever.
    fresh = [verdict for verdict in verdicts if 0 <= time.time() - verdict.measured < verdict.outcome.believed_for]
    return {verdict.accelerator: verdict for verdict in fresh}


def _save(file: Path, host: dict[str, Any], verdicts: Sequence[AcceleratorVerdict]) -> None:
    content = {"host": host, "verdicts": [asdict(verdict) for verdict in verdicts]}
    write_whole(file, json.dumps(content, indent=2) + "\n")

# SPDX-License-Identifier: BSD-2-Clause
"""Executions kept to be repeated: QEMU's record/replay, begun in a target's warm state."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import DeadlineError, HarnessError, UsageError
from harness.guests.guest import Guest, MachineSize, Target
from harness.machine.description import Lane
from harness.machine.qemu import MachineState, qemu_version
from harness.processes.session import Session, Snapshot, Warmth
from harness.store import Store

_ABOUT, _EVENTS = "recording.json", "events"
_QUIET = 20.0  # s without a further instruction: the replay hangs
_POLL = 0.05
_FIRST = 1_000_000  # instructions: before the first one QEMU has no point of return
_RETURN, _RETURN_DEADLINE = "start", 10.0
_STEP = 10_000  # instructions


@dataclass(frozen=True)
class Execution:
    """What two runs must agree in: instructions executed, then digests of memory and of all the console has said."""

    instructions: int
    memory: str
    console: str

    @classmethod
    def of(cls, guest: Guest) -> Execution:
        """Look at a paused GUEST."""
        count = int(guest.machine.monitor.execute("query-replay")["icount"])
        memory = guest.machine.read_physical(0, guest.size.memory << 20)
        return cls(count, hashlib.sha256(memory).hexdigest(), hashlib.sha256(guest.console.text().encode()).hexdigest())


@dataclass(frozen=True)
class Recording:
    """A test's execution in FOLDER: the events QEMU noted, the state it began in, and how it ended."""

    folder: Path
    test: str
    label: str
    key: str
    identity: str
    choice: Mapping[str, object]
    qemu: str = ""
    end: Execution = field(default_factory=lambda: Execution(0, "", ""))

    @property
    def events(self) -> Path:
        """QEMU's log."""
        return self.folder / _EVENTS

    @property
    def state(self) -> MachineState:
        """The state it began in; the files are the warm state's own, so they last when that goes."""
        return MachineState(self.folder)

    @classmethod
    def load(cls, folder: Path) -> Recording:
        """Read a recording; raises UsageError when FOLDER holds none."""
        try:
            about = json.loads((folder / _ABOUT).read_text())
            return cls(**{**about, "folder": folder, "end": Execution(**about["end"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{folder}: no recording ({error})") from None

    @classmethod
    def begin(cls, folder: Path, test: str, label: str, snapshot: Snapshot, choice: Mapping[str, object]) -> Recording:
        """Make room in FOLDER, on the store's file system, for a recording that starts from SNAPSHOT."""
        folder.mkdir(parents=True)
        about = snapshot.folder / "warm.json"  # what the state needs to be of use, which the store's prune looks at
        for file in (about, *snapshot.state.files):
            os.link(file, folder / file.name)
        return cls(folder, test, label, snapshot.folder.name, snapshot.identity, choice, qemu_version())

    def finish(self, session: Session) -> Recording:
        """End the recording of SESSION, which is spent by that; return it as it is now kept."""
        session.guest.machine.pause()
        kept = replace(self, end=Execution.of(session.guest))
        session.guest.machine.stop()  # in order: QEMU writes the last events
        session.close()
        about = {name: value for name, value in asdict(kept).items() if name != "folder"}
        (self.folder / _ABOUT).write_text(json.dumps(about, indent=1) + "\n")
        return kept


class Replay:
    """The same execution once more, paused before its first instruction.  A context manager: leaving it ends it."""

    def __init__(self, recording: Recording, target: Target, store: Store, size: MachineSize) -> None:
        """Raise UsageError where this cannot be the same execution: another target, executor, machine or QEMU."""
        self.recording = recording
        warmth = Warmth(target, store, size, Lane.REPLAYED, events=recording.events)
        if recording.qemu != qemu_version():
            raise UsageError(f"it was recorded by QEMU {recording.qemu}: this is {qemu_version()}")
        if recording.key != warmth.key:
            raise UsageError(f"{target.label} or its machine is no longer what was recorded")
        self.guest = warmth.guest()
        self.guest.resume(recording.state, recording.identity, paused=True)

    def run(self, until: int | None = None) -> None:
        """Let it run up to instruction UNTIL, else to the recorded end; returns when it is paused there.

        Raises HarnessError when it does not get there: then it is not the same execution.
        """
        stop = self.recording.end.instructions if until is None else until
        machine = self.guest.machine
        if until is not None:  # the end is not an instruction's: devices act while the processor is idle
            machine.monitor.execute("replay-break", icount=stop)
        machine.resume()
        self._await_pause(stop)

    def _await_pause(self, stop: int) -> None:
        machine = self.guest.machine
        reached, since = -1, time.monotonic()
        while machine.monitor.execute("query-status")["status"] == "running":
            machine.check()
            if (now := int(machine.monitor.execute("query-replay")["icount"])) != reached:
                reached, since = now, time.monotonic()
            elif time.monotonic() - since > _QUIET:
                raise HarnessError(f"the execution does not repeat: it stands still at instruction {now} of {stop}")
            time.sleep(_POLL)

    def make_reversible(self) -> None:
        """Note a point of return near the beginning, from which QEMU goes backwards: by going forwards, less far.

        Returns when it is paused a little behind that point, which it has gone back to once.

        Raises HarnessError when this QEMU cannot return to it; then nothing more is to be had from this replay.
        """
        first = min(_FIRST, self.recording.end.instructions // 2)
        monitor = self.guest.machine.monitor
        self.run(first)
        complaint = monitor.human(f"savevm {_RETURN}").strip()
        try:
            if not complaint:
                self.run(first + _STEP)
                back = first + _STEP // 2
                monitor.execute("replay-seek", icount=back, deadline=_RETURN_DEADLINE)
                self._await_pause(back)
                return
        except DeadlineError as error:
            complaint = str(error)
        raise HarnessError(
            f"QEMU {qemu_version()} cannot go backwards on this machine ({complaint}): "
            "--at -N begins N instructions before the end"
        )

    def differences(self) -> list[str]:
        """Return in what the execution up to here differs from the recorded one, which was up to its end."""
        found, wanted = asdict(Execution.of(self.guest)), asdict(self.recording.end)
        return [f"{name}: {found[name]} instead of {wanted[name]}" for name in found if found[name] != wanted[name]]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.guest.stop()


def verify(recording: Recording, target: Target, store: Store, size: MachineSize) -> str:
    """Replay RECORDING to its end; return an empty string if that was the same execution, else why not."""
    try:
        with Replay(recording, target, store, size) as replay:
            replay.run()
            return "; ".join(replay.differences())
    except HarnessError as error:
        return str(error)


def discard(recording: Recording) -> None:
    """Remove RECORDING's files."""
    for file in recording.folder.iterdir():
        file.unlink()
    with contextlib.suppress(OSError):
        recording.folder.rmdir()

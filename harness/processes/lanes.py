# SPDX-License-Identifier: BSD-2-Clause
"""Which lanes a target runs in: found out by running it, not by looking at versions."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.errors import HarnessError
from harness.files import write_whole
from harness.guests.guest import MachineSize, Progress, Target
from harness.machine.description import Lane
from harness.processes.session import Session, Warmth
from harness.processes.vocabulary import Clock
from harness.store import Store

SLEEP = 10.0  # s the guest is asked to sleep
_LATE = 5.0  # s it may sleep longer: while it waits for its disk its time goes on
_DOUBTED_FOR = 600.0  # s
_WORTH_IT = 2.0  # times faster than the clock on the wall, at least
_THOUGHT = 0.1  # s of the host's
_LOCK_SECONDS = 1800.0  # s that another command may take to find out
_HASTE = 20.0  # times faster than the host's its clock may go then


@dataclass(frozen=True)
class LaneVerdict:
    """Whether LANE works for a target, in words why; `warp` is how many times faster than here its idle time passes."""

    lane: Lane
    usable: bool
    reason: str
    warp: float = 1.0

    def __str__(self) -> str:
        return f"{self.lane.value}: {self.reason}"


def probe_time_warp(
    target: Target, store: Store, size: MachineSize, progress: Progress = lambda _: None
) -> LaneVerdict:
    """Say whether TARGET's warm state works where idle time is skipped; the target is booted if it has none.

    The verdict is kept for as long as image, kernel, executor and QEMU stay the same; one that speaks against the lane
    for ten minutes, as a busy host may have been the reason.  Raises what making the warm state raises.
    """
    if not target.is_dragonfly:
        # Counting instructions, QEMU begins its clock anew.  Linux, whose tick hangs on several timers, often loses it.
        return LaneVerdict(Lane.TIME_WARPED, usable=False, reason="Linux may stand still after the change of clocks")
    warmth = Warmth(target, store, replace(size, boot=0), Lane.TIME_WARPED)  # all boots of a target do alike
    warmth.snapshot(progress)
    file = store.cache / f"lane-{warmth.key}.json"
    with store.lock(file.stem, deadline=_LOCK_SECONDS):  # workers that start together probe once
        if (known := _known(file)) is not None:
            return known
        progress("probing the time-warped lane")
        verdict = _probe(warmth)
        write_whole(file, json.dumps(asdict(verdict)) + "\n")
    return verdict


def _known(file: Path) -> LaneVerdict | None:
    try:
        about = json.loads(file.read_text())
        verdict = LaneVerdict(Lane(about["lane"]), bool(about["usable"]), str(about["reason"]), float(about["warp"]))
        believed = verdict.usable or 0 <= time.time() - file.stat().st_mtime < _DOUBTED_FOR
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged
        return None
    return verdict if believed else None


def _probe(warmth: Warmth) -> LaneVerdict:
    verdict = LaneVerdict(Lane.TIME_WARPED, usable=False, reason="")
    try:
        with Session.resume_once(warmth) as session:
            sleeper = session.hub.spawn()
            asleep, here = sleeper.clock_gettime(Clock.CLOCK_MONOTONIC), time.monotonic()
            sleeper.sleep(SLEEP)
            here = time.monotonic() - here
            awake = sleeper.clock_gettime(Clock.CLOCK_MONOTONIC)
            slept = awake - asleep
            time.sleep(_THOUGHT)  # no event is awaited: that nothing happens meanwhile is what is looked for
            thought = sleeper.clock_gettime(Clock.CLOCK_MONOTONIC) - awake
    except HarnessError as error:
        return replace(verdict, reason=f"does not work with this QEMU and this kernel: {error}")
    if not SLEEP <= slept <= SLEEP + _LATE:
        return replace(verdict, reason=f"its clock goes wrong: it slept {slept:.1f} s instead of {SLEEP:g}")
    if thought > _THOUGHT * _HASTE:
        return replace(verdict, reason=f"its clock does not wait for the host: {thought:.1f} s passed in {_THOUGHT} s")
    warp = slept / here
    if warp < _WORTH_IT:
        return replace(verdict, warp=warp, reason=f"no gain: sleeping {SLEEP:g} s takes {here:.1f} s")
    return replace(verdict, usable=True, warp=warp, reason=f"sleeping {SLEEP:g} s takes {here:.2f} s")

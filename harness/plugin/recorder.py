# SPDX-License-Identifier: BSD-2-Clause
"""`--record`: a test that failed runs once more while QEMU notes what it takes to repeat that execution."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from harness.errors import HarnessError
from harness.guests.dragonfly import DragonFlyTarget
from harness.guests.guest import MachineSize, Target
from harness.machine.description import Lane
from harness.plugin.coverage import carry
from harness.plugin.outcome import attach, result_of
from harness.plugin.rig import Rig
from harness.plugin.supply import GuestSupply
from harness.processes.recording import Recording, discard, verify
from harness.processes.session import Session, Warmth
from harness.store import Store

_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def choice_of(target: Target, size: MachineSize) -> dict[str, object]:
    """Return, as plain data, how to resolve TARGET again (arguments of TargetChoice), and memory (MiB) and boot."""
    if not isinstance(target, DragonFlyTarget):
        return {"control": True, "memory": size.memory, "boot": size.boot}
    kernel = target.kernel.name if target.kernel is not None else "installed"
    environment = dict(target.environment)
    machine = {"memory": size.memory, "boot": size.boot}
    return {"image": target.image.name, "kernel": kernel, "environment": environment, **machine}


class Recorder:
    """Runs each failed test again on a recording machine, and replays it to see whether that is the same execution."""

    def __init__(self, supply: GuestSupply, store: Store) -> None:
        self._supply = supply
        self._store = store

    def record(self, item: pytest.Item, nextitem: pytest.Item | None, reports: Sequence[pytest.TestReport]) -> None:
        """Run ITEM once more, which failed as REPORTS say, and let them carry the recording."""
        failed = next((report for report in reports if report.failed), None)
        if failed is not None and self._supply.rig is not None:
            said, kept = self._record(item, nextitem, reports, self._supply.rig)
            failed.sections.append(("recording", said))
            if kept is not None and (result := result_of(failed)) is not None:
                attach(failed, replace(result, recording=str(kept.folder)))

    def _record(
        self, item: pytest.Item, nextitem: pytest.Item | None, told: Sequence[pytest.TestReport], rig: Rig
    ) -> tuple[str, Recording | None]:
        try:
            return self._try_to_record(item, nextitem, told, rig)
        except HarnessError as error:
            return f"it could not be recorded: {error}", None

    def _try_to_record(
        self, item: pytest.Item, nextitem: pytest.Item | None, told: Sequence[pytest.TestReport], rig: Rig
    ) -> tuple[str, Recording | None]:
        store = self._store
        name = f"{_NAME.sub('-', item.nodeid.rpartition('::')[2])[:80]}-{secrets.token_hex(4)}"
        folder = store.folder("recordings") / name
        size = rig.size_in(Lane.RECORDED)
        snapshot = Warmth(rig.target, store, size, Lane.RECORDED).snapshot()
        choice = choice_of(rig.target, size)
        begun = Recording.begin(folder, item.nodeid, rig.target.label, snapshot, choice)
        finished: list[Recording] = []

        def finish(session: Session) -> None:
            finished.append(begun.finish(session))

        with rig.recorded(begun.events, finish):
            # What pytest does before a test's first run, for its second.
            again: Any = item
            again._initrequest()
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
        carry(told[-1], reports)
        if not finished or not any(report.failed for report in reports):
            discard(begun)
            return "it did not fail while it was recorded" if finished else "its machine was not used", None
        if complaint := verify(finished[0], rig.target, store, size):
            discard(begun)
            return f"QEMU does not repeat this execution: {complaint}", None
        count = finished[0].end.instructions
        return f"{count:,} instructions, replayed once: the same\ndfly-harness replay - {item.nodeid}", finished[0]

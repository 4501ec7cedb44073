# SPDX-License-Identifier: BSD-2-Clause
"""How the tests of a run are shared out among its workers: who has a machine of a kind goes on with that kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadScheduling

from harness.files import write_whole
from harness.plugin.parallel import kinds_file, worker_name
from harness.runs.order import HANDED_OUT, Dealt, next_ones

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController


def dealt_to(config: pytest.Config, seconds: str) -> Dealt | None:
    """Return how tests are shared out, if this is a worker: it was handed what they took under the name SECONDS."""
    if not worker_name(config):
        return None
    handed = getattr(config, "workerinput", {})
    return Dealt(int(handed["workercount"]), dict(handed.get(seconds, {})))


def deal_in_small_parts(config: pytest.Config) -> None:
    """Let pytest-xdist hand out few tests at a time, unless the user wants it otherwise.

    It begins with hundreds, of which the first worker then has the longest.  With a single one, each test would wait
    for the controller to send the one that follows it.
    """
    if getattr(config.option, "maxschedchunk", 0) is None:
        config.option.maxschedchunk = HANDED_OUT


def tell_kinds(config: pytest.Config, kinds: Mapping[str, int]) -> None:
    """Tell the controlling process, which collects no tests, which kind of machine each of them wants."""
    run = getattr(config, "workerinput", {}).get("testrunuid")
    if run is not None and not kinds_file(run).exists():  # all workers say the same
        write_whole(kinds_file(run), json.dumps(dict(kinds)))


def scheduler(config: pytest.Config, log: Producer) -> LoadScheduling | None:
    """Return what shares tests out, or None where the user wants that to be done in another way."""
    return _ByKind(config, log) if config.getvalue("dist") == "load" else None


class _ByKind(LoadScheduling):
    """Hands tests out as pytest-xdist does, but to each worker those that want the machine it has.

    Each change of machine costs a start, and two machines of several CPUs at a time want more cores than workers have.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        self._kinds: list[int] = []  # by a test's place in the collection
        self._latest: dict[WorkerController, int] = {}

    def _send_tests(self, node: WorkerController, num: int) -> None:
        if not self._kinds:  # there are tests now
            self._kinds = self._read_kinds()
        others = {kind for each, kind in self._latest.items() if each is not node and each in self.node2pending}
        chosen = next_ones(self.pending, self._kinds, self._latest.get(node), others, num)
        if chosen:
            self._latest[node] = self._kinds[chosen[-1]]
            taken = set(chosen)
            self.pending[:] = [index for index in self.pending if index not in taken]
            self.node2pending[node].extend(chosen)
            node.send_runtest_some(chosen)

    def _read_kinds(self) -> list[int]:
        assert self.collection is not None
        session: Any = self.config.pluginmanager.get_plugin("dsession")
        try:
            told = json.loads(kinds_file(session.nodemanager.testrunuid).read_text())
        except FileNotFoundError:  # all workers are on other hosts
            told = {}
        return [told.get(test, 0) for test in self.collection]

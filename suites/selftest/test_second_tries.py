# SPDX-License-Identifier: BSD-2-Clause
"""A second try is spent on what it may mend, and what went wrong is called by its name."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import paramiko
import pytest

from harness.errors import GuestLostError, HarnessError, UnknownKernelError, UsageError
from harness.guests.ssh import SshConnection
from harness.processes.connection import await_true
from harness.processes.session import Session, Snapshot, Warmth
from harness.store import Store

DEADLINE = 20.0


class Warm:
    """Stands in for a warm state, and counts."""

    def __init__(self) -> None:
        self.failures = 0
        self.forgotten = 0
        self.made = 0

    def snapshot(self, _progress: object = None) -> Snapshot:
        self.made += 1
        return Snapshot(Path("/none"), "token", "identity", 1.0)

    def forget(self, _: Snapshot) -> None:
        self.forgotten += 1


@pytest.mark.parametrize(
    ("error", "tries", "forgotten"),
    [
        (UsageError("port 22 on 127.0.0.1 is taken"), 1, 0),
        (UnknownKernelError("records of 4711 bytes"), 1, 0),
        (GuestLostError("QEMU ended"), 3, 1),
        (HarnessError("its clock says 9 s more"), 3, 1),
    ],
)
def test_a_resume_is_tried_again_only_where_that_may_help(
    monkeypatch: pytest.MonkeyPatch, error: HarnessError, tries: int, forgotten: int
) -> None:
    made = []

    def fail(*_: Any) -> Session:
        made.append(1)
        raise error

    monkeypatch.setattr(Session, "_from_snapshot", fail)
    warm = Warm()
    with pytest.raises(type(error)):
        Session.resume(cast(Warmth, warm))
    assert (len(made), warm.forgotten) == (tries, forgotten)


def test_another_command_is_waited_for_only_where_there_is_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    said: list[str] = []
    with store.lock("x", when_taken=lambda: said.append("alone")):
        assert said == []
        second = threading.Thread(target=_take, args=(Store(tmp_path), said))
        second.start()
        await_true(lambda: said == ["waiting"], "the second one to say that it waits", DEADLINE)
    second.join(DEADLINE)
    assert said == ["waiting", "has it"]


def _take(store: Store, said: list[str]) -> None:
    with store.lock("x", when_taken=lambda: said.append("waiting")):
        said.append("has it")


@pytest.mark.parametrize(
    ("is_open", "error", "words"),
    [
        (True, paramiko.ChannelException(1, "Administratively prohibited"),
         "the guest refused an SSH channel for `ls` (ChannelException(1, 'Administratively prohibited'))"),
        (True, paramiko.SSHException("Channel closed."), "the SSH channel was closed during `ls` (Channel closed.)"),
        (False, EOFError(), "the SSH connection broke during `ls` (EOFError)"),
    ],
)  # fmt: skip
def test_a_refused_channel_is_no_broken_connection(is_open: bool, error: Exception, words: str) -> None:
    class Line(SshConnection):
        def __init__(self) -> None:
            pass

        @property
        def is_open(self) -> bool:
            return is_open

    said = str(Line()._lost("ls", error))
    assert said.startswith(words)
    assert said.endswith("the connection stands") is is_open

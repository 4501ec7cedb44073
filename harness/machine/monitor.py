# SPDX-License-Identifier: BSD-2-Clause
"""QMP for synchronous callers, on the qemu.qmp library."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from qemu.qmp import QMPClient, QMPError
from qemu.qmp.qmp_client import ExecuteError

from harness.errors import DeadlineError, GuestLostError, HarnessError

_T = TypeVar("_T")

DEFAULT_DEADLINE = 20.0


class Monitor:
    """A QMP session over a connected socket.

    The library is asynchronous; its event loop lives in a thread of this object, so that QEMU is always listened to and
    every command can have a deadline.
    """

    def __init__(self, connection: socket.socket, *, deadline: float = DEFAULT_DEADLINE) -> None:
        """Negotiate over CONNECTION; raises GuestLostError when QEMU does not speak QMP within DEADLINE seconds."""
        self._client = QMPClient("dfly-harness")
        self._client.logger.disabled = True  # its complaints about a QEMU that went away are ours to make
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        try:
            self._run(lambda: self._client.connect(connection), "QEMU's QMP greeting", deadline)
        except BaseException:
            self.close()
            raise

    def _run(self, work: Callable[[], Coroutine[Any, Any, _T]], awaited: str, deadline: float) -> _T:
        """Have the loop's thread do WORK: a coroutine made here would never be awaited if Ctrl-C came now."""
        future: Future[_T] = Future()
        tasks: list[asyncio.Task[None]] = []

        async def do() -> None:
            try:
                future.set_result(await work())
            except BaseException as error:
                future.set_exception(error)

        self._loop.call_soon_threadsafe(lambda: tasks.append(self._loop.create_task(do())))
        try:
            return future.result(deadline)
        except TimeoutError:
            self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
            raise DeadlineError(awaited, deadline) from None
        except ExecuteError as error:
            raise HarnessError(f"QEMU refused {awaited}: {error}") from error
        except (QMPError, EOFError, OSError) as error:
            raise GuestLostError(f"QEMU went away during {awaited}") from error

    def execute(self, command: str, *, deadline: float = DEFAULT_DEADLINE, **arguments: object) -> Any:
        """Run a QMP command and return its answer.

        Underscores in argument names stand for QMP's hyphens.  Raises HarnessError when QEMU refuses,
        GuestLostError when it is gone and DeadlineError after DEADLINE seconds.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._run(lambda: self._client.execute(command, named or None), command, deadline)

    def human(self, line: str) -> str:
        """Run a line of the human monitor, for what QMP has no command for."""
        return str(self.execute("human-monitor-command", command_line=line))

    def close(self) -> None:
        """End the session; QEMU goes on."""
        if self._loop.is_running():
            with contextlib.suppress(Exception):
                asyncio.run_coroutine_threadsafe(self._client.disconnect(), self._loop).result(2)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(2)
        if not self._thread.is_alive():
            self._loop.close()

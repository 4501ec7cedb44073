# SPDX-License-Identifier: BSD-2-Clause
"""The serial console: recorded from the first byte, searched with pexpect, watched for a dying kernel."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pexpect
from pexpect.spawnbase import SpawnBase

from harness.errors import DeadlineError, GuestLostError

if TYPE_CHECKING:
    _Spawn = SpawnBase[str]
else:  # generic in its stubs only
    _Spawn = SpawnBase

TAIL_LINES = 40
_SLICE = 0.2
# What ends up on a screen in front of a person must not move their cursor.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Console:
    """One serial line.

    A thread reads it all the time: an unread line would stall the guest, and nothing said before somebody listened may
    be lost.  Every chunk goes to LOG as `seconds-since-start TAB text-of-the-line`, and to memory for `expect`.
    """

    def __init__(self, line: socket.socket, log: Path, earlier: Console | None = None) -> None:
        """Begin to record LINE; EARLIER has recorded it up to now, and ended."""
        self.log = log
        if earlier is not None:
            shutil.copyfile(earlier.log, log)
        self._line = line
        self._born = time.monotonic()
        self._changed = threading.Condition()
        self._text = earlier.text() if earlier is not None else ""
        self._closed = False
        self._matcher = _Matcher(self)
        self._thread = threading.Thread(target=self._record, name="console", daemon=True)
        self._thread.start()

    def _record(self) -> None:
        with self.log.open("ab") as log:
            partial = b""
            while True:
                try:
                    chunk = self._line.recv(65536)
                except OSError:
                    chunk = b""
                if chunk:
                    partial = self._log_lines(log, partial + chunk)
                with self._changed:
                    self._text += chunk.decode("utf-8", "replace")
                    self._closed = not chunk
                    self._changed.notify_all()
                if not chunk:
                    self._log_lines(log, partial + b"\n" if partial else b"")
                    return

    def _log_lines(self, log: BinaryIO, text: bytes) -> bytes:
        *lines, partial = text.split(b"\n")
        stamp = f"{time.monotonic() - self._born:9.3f}\t".encode()
        log.writelines(stamp + line.rstrip(b"\r") + b"\n" for line in lines)
        log.flush()
        return partial

    def text(self, start: int = 0) -> str:
        """Return everything said so far, from character START on."""
        with self._changed:
            return self._text[start:]

    @property
    def position(self) -> int:
        """The number of characters said so far; `text(position)` is what comes later."""
        with self._changed:
            return len(self._text)

    def tail(self, lines: int = TAIL_LINES) -> tuple[str, ...]:
        """Return the last LINES lines that are not empty, without control characters."""
        cleaned = (_CONTROL.sub("", line).rstrip() for line in self.text()[-16384:].split("\n"))
        return tuple(line for line in cleaned if line)[-lines:]

    def await_more(self, known: int, seconds: float) -> bool:
        """Wait at most SECONDS until more than KNOWN characters were said or the line closed; tell whether it did."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._text) > known or self._closed, seconds)

    @property
    def closed(self) -> bool:
        """Whether the machine hung up."""
        return self._closed

    def expect(
        self,
        patterns: Sequence[str],
        *,
        awaited: str,
        deadline: float,
        watch: Callable[[], None] | None = None,
    ) -> int:
        """Wait until one of the regular expressions PATTERNS is on the console; return which.

        What was matched, and all before it, is consumed.  WATCH is called a few times a second and may raise.  Raises
        DeadlineError with the last console lines after DEADLINE seconds and GuestLostError when the machine hung up.
        """
        end = time.monotonic() + deadline
        while True:
            left = end - time.monotonic()
            try:
                return int(self._matcher.expect(list(patterns), timeout=max(0.0, min(_SLICE, left))))
            except pexpect.TIMEOUT:
                if watch is not None:
                    try:
                        watch()
                    except GuestLostError:
                        # Its last words may have been on their way, and be what was awaited.
                        self.join()
                        if self.closed:
                            with contextlib.suppress(pexpect.EOF):  # which comes once all has been searched
                                return int(self._matcher.expect(list(patterns), timeout=None))
                        raise
                if left <= 0:
                    raise DeadlineError(awaited, deadline, self.tail()) from None
            except pexpect.EOF:
                if watch is not None:
                    watch()
                raise GuestLostError(f"the console closed while waiting for {awaited}") from None

    @property
    def matched(self) -> re.Match[str]:
        """The match that the last `expect` returned for."""
        match = self._matcher.match
        assert isinstance(match, re.Match)
        return match

    def send(self, text: str) -> None:
        """Type TEXT.  The UART's FIFO is 16 bytes deep; QEMU paces what it hands over, the guest may still drop."""
        try:
            self._line.sendall(text.encode())
        except OSError as error:
            raise GuestLostError("the console is closed: the machine is gone") from error

    def join(self, seconds: float = 2.0) -> None:
        """Wait until all that the machine said before it ended is recorded."""
        self._thread.join(seconds)


class _Matcher(_Spawn):
    """pexpect's matching, fed from what the console recorded."""

    def __init__(self, console: Console) -> None:
        super().__init__(timeout=None, encoding="utf-8", searchwindowsize=4096)
        self._console = console
        self._read = 0
        self.closed = False

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> str:
        """Return up to SIZE new characters, waiting TIMEOUT seconds for the first."""
        if not self._console.await_more(self._read, 3600.0 if timeout is None else max(0.0, timeout)):
            raise pexpect.TIMEOUT("nothing new on the console")
        text = self._console.text(self._read)[:size]
        if not text:
            raise pexpect.EOF("the console is closed")
        self._read += len(text)
        return text

# SPDX-License-Identifier: BSD-2-Clause
"""Where the dfly-harness command begins: an interrupt is understood before the first of its modules is loaded."""

from __future__ import annotations

import os
import signal
from types import FrameType

_STATUS = 128 + int(signal.SIGINT)


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: nothing has begun, and a traceback would show nothing but half an import."""
    del number, frame
    os.write(2, b"dfly-harness: interrupted; nothing had begun\n")
    os._exit(_STATUS)


def main() -> int:
    """Run the command; return its exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from harness.cli import main as command  # most of the time until the first line is spent here

    try:
        return command()  # which hears of interrupts itself as soon as there may be something to be tidied up
    finally:
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)

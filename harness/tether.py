# SPDX-License-Identifier: BSD-2-Clause
"""A process that does not outlive the one that started it, even if that is killed outright.

The parent holds one end of a pipe, the child the other: whatever ends the parent closes its end, and the child notices.
Programs that know nothing of this are run through this module: `python -m harness.tether FD PROGRAM...`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from harness.errors import DeadlineError

_VARIABLE = "DFLY_HARNESS_TETHER"
# How long a child may take to stop its machines in order.
GRACE = 20.0


class Tether:
    """The parent's side.  A context manager: hold it as long as the child lives, hand `fd` on with Popen(pass_fds)."""

    def __init__(self) -> None:
        self.fd, self._held = os.pipe()  # neither is inherited unless it is handed on

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return ENVIRONMENT for a child that calls hold_on()."""
        return {**environment, _VARIABLE: str(self.fd)}

    def wrapped(self, *argv: str) -> list[str]:
        """Return the command line that runs ARGV as the leader of its process group, and kills that group with us."""
        return [sys.executable, "-m", "harness.tether", str(self.fd), *argv]

    def started(self) -> None:
        """Leave the child its end."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.started()
        os.close(self._held)


def run_tethered(
    argv: Sequence[str], *, deadline: float, awaited: str, text: str | None = None, is_ours: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run ARGV to its end; hand it TEXT, and return what it said.  One that IS_OURS calls hold_on() itself.

    Whatever ends this process, or this call, ends that program and what it started.  Raises DeadlineError, which names
    what was AWAITED, when it has not ended after DEADLINE seconds.
    """
    with Tether() as tether:
        child = subprocess.Popen(
            argv if is_ours else tether.wrapped(*argv),
            stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=tether.environment(os.environ) if is_ours else None,
            start_new_session=True,
            pass_fds=(tether.fd,),
        )
        tether.started()
        with child:
            try:
                said, complained = child.communicate(text, timeout=deadline)
            except subprocess.TimeoutExpired:
                _end(child)
                raise DeadlineError(awaited, deadline) from None
            except BaseException:
                _end(child)
                raise
    return subprocess.CompletedProcess(argv, child.returncode, said, complained)


def _end(child: subprocess.Popen[str]) -> None:
    """End CHILD as Ctrl-C does, and after GRACE seconds by force, with all of its process group."""
    child.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.communicate(timeout=GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def hold_on(grace: float = GRACE) -> None:
    """End this process like Ctrl-C when the parent that holds its tether is gone, and after GRACE seconds by force.

    Nothing happens where there is no tether.  For the main thread, once.
    """
    fd = int(os.environ.pop(_VARIABLE, "-1"))  # what this process starts holds another one
    if fd < 0:
        return
    os.set_inheritable(fd, False)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's jobs in the background have it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.get_ident()

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(fd, 1):
                pass
        signal.pthread_kill(main, signal.SIGINT)
        # The process is gone by then, unless something in it does not end.
        threading.Event().wait(grace)
        with contextlib.suppress(OSError):
            os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="tether").start()


def _run(fd: int, argv: list[str]) -> int:
    """Run ARGV and return its exit status; when the parent is gone, kill it and all of its process group."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(fd, 1):
                pass
        os.killpg(0, signal.SIGKILL)

    child = subprocess.Popen(argv)
    threading.Thread(target=watch, daemon=True).start()
    # Who started this tells the group to end, and waits for that.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    status = child.wait()
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other action
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(_run(int(sys.argv[1]), sys.argv[2:]))

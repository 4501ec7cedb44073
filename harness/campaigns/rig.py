"""A target kept ready for tests: booted on first use, replaced when it died."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self

from harness.errors import HarnessError
from harness.guests.guest import Guest, KernelPanicError, MachineSize, Progress, Target
from harness.processes import Hub, RemoteProcess
from harness.processes.session import open_hub
from harness.store import Store


class Rig:
    """One guest with its hub at a time.  A context manager: leaving it stops the machine."""

    def __init__(self, target: Target, store: Store, size: MachineSize) -> None:
        self.target = target
        self.boots = 0
        self._store = store
        self._size = size
        self._guest: Guest | None = None
        self._hub: Hub | None = None

    def ready(self, progress: Progress = lambda _: None) -> Hub:
        """Return the hub of a guest that is well, booting one if there is none.

        Raises what Guest.boot() raises.
        """
        if self._hub is None:
            guest = Guest(self.target, self._store, self._size)
            try:
                guest.boot(progress)
                progress("starting the executor")
                self._hub = open_hub(guest, self._store)
            except BaseException:
                guest.stop()
                raise
            self._guest = guest
            self.boots += 1
        return self._hub

    @property
    def guest(self) -> Guest | None:
        """The present guest, or None before the first boot and after a death."""
        return self._guest

    def spawn(self, progress: Progress = lambda _: None) -> RemoteProcess:
        """Return a fresh process, leader of its own session, for one test."""
        return self.ready(progress).spawn()

    def clean(self) -> None:
        """Kill everything a test left behind.  A guest that does not survive that is given up; the next test boots."""
        if self._hub is None:
            return
        try:
            self._hub.kill_all()
        except HarnessError:
            self.discard()

    def diagnose(self) -> KernelPanicError | None:
        """Tell whether the guest's kernel has panicked."""
        if self._guest is None:
            return None
        try:
            self._guest.check()
        except KernelPanicError as panic:
            return panic
        except HarnessError:
            return None
        return None

    def discard(self) -> None:
        """Stop the present guest."""
        hub, self._hub = self._hub, None
        guest, self._guest = self._guest, None
        if guest is not None:
            # The hub's end of the line first, so that it is not taken for the guest's death.
            with contextlib.suppress(HarnessError):
                if hub is not None:
                    hub.close()
            guest.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

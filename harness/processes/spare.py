# SPDX-License-Identifier: BSD-2-Clause
"""A machine resumed ahead: while tests use one, the next is made ready, and stands still until it is wanted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from harness.errors import HarnessError
from harness.processes.session import Session, Warmth


class Spare:
    """At most one session, connected and paused, which nobody has used.

    It costs the memory it has written to and no CPU time.  None is made where CAN_AFFORD says no.  close() ends it.
    """

    def __init__(self, can_afford: Callable[[], bool]) -> None:
        self._can_afford = can_afford
        self._warmth: Warmth | None = None
        self._session: Session | None = None
        self._maker: threading.Thread | None = None

    def prepare(self, warmth: Warmth) -> None:
        """Begin to make one from WARMTH, in the background, unless there is one or the target has yet to be booted."""
        if self._warmth is warmth or not warmth.is_made or not self._can_afford():
            return
        self.close()
        self._warmth = warmth
        self._maker = threading.Thread(target=self._make, args=(warmth,), name="spare", daemon=True)
        self._maker.start()

    def _make(self, warmth: Warmth) -> None:
        # Whoever needs a machine and gets none from here resumes one, and is told what is wrong.
        with contextlib.suppress(HarnessError):
            session = Session.resume_once(warmth)
            try:
                session.pause()
            except BaseException:
                session.close()
                raise
            self._session = session

    def take(self, warmth: Warmth) -> Session | None:
        """Return the one made from WARMTH, running, for the caller to close; None if there is none that is well."""
        if self._warmth is not warmth:
            return None
        session = self._release()
        if session is None:
            return None
        try:
            session.go_on()
        except HarnessError:
            session.close()
            return None
        except BaseException:
            session.close()
            raise
        return session

    def await_ready(self) -> None:
        """Return when the one that is being made has been made, or has failed to be."""
        if self._maker is not None:
            self._maker.join()  # a resume takes no longer than what its own deadlines allow

    def _release(self) -> Session | None:
        self.await_ready()
        self._maker = self._warmth = None
        session, self._session = self._session, None
        return session

    def close(self) -> None:
        """End it, also one that is being made."""
        if (session := self._release()) is not None:
            session.close()

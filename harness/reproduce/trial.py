# SPDX-License-Identifier: BSD-2-Clause
"""A C program tried in a guest: built on this host, run there by a shell, without the executor."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import GuestDeadlineError, GuestLostError, HarnessError
from harness.processes.session import Session
from harness.programs.cases import CaseBrokenError, ExitStatus
from harness.programs.options import ProgramOptions
from harness.programs.program import Program
from harness.programs.running import Workplace
from harness.store import Store

#: Exit status of a program that shows its defect.
SHOWN = 1


class Trials:
    """Tries programs in guests that RESUME gives; one that a program spoils is given up.  A context manager."""

    def __init__(self, resume: Callable[[], Session], store: Store, *, deadline: float = 30.0) -> None:
        """Give each program DEADLINE seconds."""
        self._resume = resume
        self._store = store
        self._deadline = deadline
        self._session: Session | None = None
        self.count = 0

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        self._give_up()

    def shows(self, text: str, name: str, *, dies: bool) -> bool:
        """Tell whether the program TEXT, to be called NAME, shows its defect.

        It does so by its exit status, or with DIES by the end of the kernel.  A program that cannot be built or run
        shows nothing.
        """
        self.count += 1
        with TemporaryDirectory(prefix="dfly-reproduce-") as folder:
            file = Path(folder) / name
            file.write_text(text)
            try:
                status = self._run(file)
            except CaseBrokenError:
                return False
            except GuestDeadlineError:  # something may still run there
                died = self._is_dead()
                self._give_up()
                return dies and died
            except GuestLostError:  # panics and hangs among them
                self._give_up()
                return dies
        return not dies and status == SHOWN

    def _run(self, file: Path) -> int | None:
        if self._session is None:
            self._session = self._resume()
        options = ProgramOptions(files=(file,), deadline=self._deadline)
        place = Workplace(self._session.guest, Program(file), options, self._store)
        status = place.run((), ExitStatus(), self._deadline, io.BytesIO()).status
        self._session.guest.check()
        return status

    def _is_dead(self) -> bool:
        """Tell whether the guest answers nobody any more."""
        assert self._session is not None
        try:
            return self._session.guest.ssh.run("true", deadline=10.0).status != 0
        except HarnessError:
            return True

    def _give_up(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            with contextlib.suppress(HarnessError):
                session.close()

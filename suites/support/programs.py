# SPDX-License-Identifier: BSD-2-Clause
"""Other programs, run in a driven process."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from harness.guests.guest import Guest
from harness.processes import RemoteProcess
from harness.programs.cases import ExitStatus
from harness.programs.options import ProgramOptions
from harness.programs.program import Program
from harness.programs.running import Workplace
from harness.store import Store
from support.processes import eventually
from support.sysctl import ARGS, proc_mib

REPRODUCERS = Path(__file__).parents[1] / "reproducers"


def raw_args(observer: RemoteProcess, pid: int) -> bytes:
    """Return kern.proc.args.PID as it is."""
    return observer.sysctl.read(proc_mib(ARGS, pid))


def run(observer: RemoteProcess, process: RemoteProcess, program: str, *argv: str) -> None:
    """Let PROCESS run another program; return when it does so for certain: its args are set last (kern_exec.c)."""
    process.execve(program, argv)
    expected = "".join(f"{argument}\0" for argument in argv).encode()
    eventually(lambda: raw_args(observer, process.pid) == expected, f"{process.pid} to run {program}")


def said_in_c(guest: Guest, name: str, deadline: float = 30.0) -> str:
    """Run suites/reproducers/NAME in GUEST, as root, and return what it says: that begins with "right:" or "DEFECT:".

    For what no driven process can do: it makes no calls from handlers.  Raises GuestDeadlineError after DEADLINE
    seconds.
    """
    if guest.target.abi != "dragonfly":
        pytest.skip("not applicable: the program is DragonFly's")
    program = REPRODUCERS / name
    place = Workplace(guest, Program(program), ProgramOptions((program,)), Store())
    output = io.BytesIO()
    ending = place.run((), ExitStatus(), deadline, output)
    return output.getvalue().decode(errors="replace").strip() or str(ending)

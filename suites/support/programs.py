# SPDX-License-Identifier: BSD-2-Clause
"""Other programs, run in a driven process."""

from __future__ import annotations

from harness.processes import RemoteProcess
from support.processes import eventually
from support.sysctl import ARGS, proc_mib


def raw_args(observer: RemoteProcess, pid: int) -> bytes:
    """Return kern.proc.args.PID as it is."""
    return observer.sysctl.read(proc_mib(ARGS, pid))


def run(observer: RemoteProcess, process: RemoteProcess, program: str, *argv: str) -> None:
    """Let PROCESS run another program; return when it does so for certain: its args are set last (kern_exec.c)."""
    process.execve(program, argv)
    expected = "".join(f"{argument}\0" for argument in argv).encode()
    eventually(lambda: raw_args(observer, process.pid) == expected, f"{process.pid} to run {program}")

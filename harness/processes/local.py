# SPDX-License-Identifier: BSD-2-Clause
"""Driven processes on this very host, when it is Linux on x86_64: for testing this package without any guest."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import UsageError
from harness.processes.abi_linux import LINUX
from harness.processes.executor_build import build_executor
from harness.processes.hub import Hub, local_transport


def can_run_locally() -> bool:
    """Whether this host has the system call interface that the executor can be built for."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


@contextmanager
def local_hub(cache: Path, *, watch: Callable[[], None] | None = None, paced: bool = False) -> Iterator[Hub]:
    """Run a hub on this host inside the block; the executor is built into CACHE.

    Raises UsageError on a host that is not Linux on x86_64.
    """
    if not can_run_locally():
        raise UsageError(f"driven processes run locally on x86_64 Linux only, not on {sys.platform}")
    program = build_executor(LINUX, cache)
    with tempfile.TemporaryDirectory(prefix="dfly-harness-") as folder:
        Path(folder).chmod(0o755)
        with Hub(local_transport([str(program), "hub", f"{folder}/hub"]), LINUX, watch=watch, paced=paced) as hub:
            yield hub

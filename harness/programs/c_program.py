# SPDX-License-Identifier: BSD-2-Clause
"""C programs of one file for DragonFly, built on this host: they include the system's headers, of which we have ours.

Our headers have the names and what a program needs of them, so that the same file is compiled by `cc` on DragonFly.
"""

from __future__ import annotations

from pathlib import Path

from harness.processes.abi import ABIS
from harness.processes.executor_build import flags_for
from harness.toolchain import compile_program

FOLDER = Path(__file__).parent / "standalone"
INCLUDE = FOLDER / "include"


def build_standalone(source: Path, cache: Path) -> Path:
    """Build the C program SOURCE for DragonFly, or find it in CACHE; return its path.

    It is linked with a start and system calls of ours, without a libc.  Raises HarnessError, with the compiler's first
    complaint, for what does not build, and when there is no compiler.
    """
    flags = [*flags_for(ABIS["dragonfly"]), "-nostdinc", "-std=gnu11", f"-I{INCLUDE}"]
    headers = sorted(INCLUDE.rglob("*.h"))
    return compile_program(source.stem, [source, FOLDER / "start.c"], flags, cache, depends=headers)

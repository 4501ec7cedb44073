# SPDX-License-Identifier: BSD-2-Clause
"""Builds the executor, the small freestanding program that makes system calls inside the guest."""

from __future__ import annotations

from pathlib import Path

from harness.processes.abi import Abi
from harness.toolchain import compile_program

FOLDER = Path(__file__).parent / "executor"

# No libc, no start files, nothing the guest would have to provide; no SSE, because a handler has no business with it.
# The red zone goes because the child of vfork() and the signal frames have their own ideas about what is below %rsp.
FLAGS = (
    "-std=c11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-stack-protector -fno-pic -fno-pie "
    "-fno-asynchronous-unwind-tables -fno-strict-aliasing -mno-red-zone -mno-sse -mno-mmx "
    "-nostdlib -static -s -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,noseparate-code"
).split()


def flags_for(abi: Abi) -> list[str]:
    """Return the compiler's flags for a program of ours in a guest with ABI."""
    return [*FLAGS, f"-DABI_{abi.name.upper()}"]


def build_executor(abi: Abi, cache: Path) -> Path:
    """Build the executor for ABI with the host's compiler, or find it in CACHE; return its path.

    Takes well under a second.  Raises HarnessError when there is no compiler.
    """
    sources = sorted(FOLDER.glob("*.c"))
    headers = sorted(FOLDER.glob("*.h"))
    return compile_program(f"executor-{abi.name}", sources, flags_for(abi), cache, depends=headers)

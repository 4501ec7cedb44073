# SPDX-License-Identifier: BSD-2-Clause
"""A kernel's memory in drgn: types and variables from its debug file, and our commands as functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from harness.errors import HarnessError, UsageError
from harness.guests.kernelmemory import KernelMemory, MemoryReader
from harness.guests.looking import COMMANDS, Looking, obey

_BASE, _SIZE = 0xFFFF_8000_0000_0000, 0x7FFF_FFFF_FFFF  # the upper half of the address space


def drgn_program(reader: MemoryReader, debug: Path) -> Any:
    """Return a drgn.Program about the kernel whose memory READER gives.  Raises UsageError where drgn is missing."""
    try:
        import drgn
    except ImportError:
        raise UsageError("drgn is not installed: pip install 'dfly-harness[debug]'") from None
    flags = drgn.PlatformFlags.IS_64_BIT | drgn.PlatformFlags.IS_LITTLE_ENDIAN
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64, flags))
    module = program.extra_module("kernel", create=True)
    module.address_range = _loaded(debug)  # what begins elsewhere than in the file is taken for moved
    module.try_file(str(debug), force=True)
    memory = KernelMemory(reader)

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        del offset, physical
        try:
            return memory.read(address, count)
        except HarnessError as error:
            raise drgn.FaultError(str(error), address) from None

    program.add_memory_segment(_BASE, _SIZE, read)
    return program


def _loaded(debug: Path) -> tuple[int, int]:
    with debug.open("rb") as stream:
        parts = [(each["p_vaddr"], each["p_memsz"]) for each in ELFFile(stream).iter_segments("PT_LOAD")]
    return min(start for start, _ in parts), max(start + size for start, size in parts)


def functions(look: Looking) -> dict[str, Callable[..., None]]:
    """Return our commands as Python functions: `dfly_why(42)`."""

    def function(name: str) -> Callable[..., None]:
        def show(*words: object) -> None:
            try:
                lines = list(obey(look, " ".join([name, *map(str, words)])))
            except HarnessError as error:
                lines = [str(error)]
            sys.stdout.write("".join(f"{line}\n" for line in lines))

        show.__doc__ = f"Say what {name} says."
        return show

    return {name.replace("-", "_"): function(name) for name in COMMANDS}


def interact(program: Any, look: Looking, title: str) -> None:
    """Open drgn for a person."""
    from drgn.cli import run_interactive

    own = functions(look)
    names = ", ".join(f"{name}()" for name in own)

    def banner(_: str) -> str:
        return f"{title}\n{names}; prog['procglob'], prog.type('struct proc'): Ctrl-D leaves"

    run_interactive(program, banner_func=banner, globals_func=lambda given: {**given, **own})

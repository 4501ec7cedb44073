# SPDX-License-Identifier: BSD-2-Clause
"""Our commands in gdb: gdb has the machine, so it is gdb that reads the memory; the harness asks it over two pipes.

gdb's own Python may be another one without the harness's libraries: what runs in it is the short script below, which
needs nothing but gdb.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.guests.looking import COMMANDS

#: What the harness and the script in gdb say to each other, a line each way: "read ADDRESS SIZE", bytes in hexadecimal.
_SCRIPT = """
import gdb, subprocess

ARGV = {argv!r}

class Ours(gdb.Command):
    def __init__(self, name):
        super().__init__(name, gdb.COMMAND_STATUS)
        self.name = name

    def invoke(self, words, from_tty):
        asked = " ".join([self.name, words]).strip()
        child = subprocess.Popen([*ARGV, "--command", asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for line in child.stdout:
            kind, _, rest = line.rstrip("\\n").partition(" ")
            if kind != "read":
                print(rest if kind == "say" else line.rstrip("\\n"))
                continue
            address, size = (int(word, 16) for word in rest.split())
            try:
                told = bytes(gdb.selected_inferior().read_memory(address, size)).hex()
            except gdb.MemoryError as error:
                told = "no"
            child.stdin.write(told + "\\n")
            child.stdin.flush()
        child.wait()

for name in {names!r}:
    Ours(name)
"""


def script(argv: Sequence[str]) -> str:
    """Return what gdb is to read (`gdb -x`): our commands, which ARGV answers, `--command` added, over PipeReader."""
    return _SCRIPT.format(argv=list(argv), names=list(COMMANDS))


class PipeReader:
    """Memory that the other end of standard input and output reads for us."""

    def read_virtual(self, address: int, size: int) -> bytes:
        """Return SIZE bytes at ADDRESS; raises HarnessError where nothing is mapped."""
        sys.stdout.write(f"read {address:x} {size:x}\n")
        sys.stdout.flush()
        told = sys.stdin.readline().strip()
        try:
            return bytes.fromhex(told)
        except ValueError:
            raise HarnessError(f"gdb cannot read the memory at {address:#x}") from None


def write_script(folder: Path, argv: Sequence[str]) -> Path:
    """Write the script into FOLDER and return it."""
    file = folder / "dfly.py"
    file.write_text(script(argv))
    return file

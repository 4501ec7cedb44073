# SPDX-License-Identifier: BSD-2-Clause
"""A program as a file of this host: for which system it is, and whether it can be a program at all.

A C file stands for the program that it is the source of.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.construct.core import ConstructError
from elftools.elf.elffile import ELFFile

from harness.errors import UsageError
from harness.programs.cases import CaseBrokenError
from harness.store import digest_of

_SYSTEMS = {"dragonfly": "DragonFly", "linux": "Linux"}
_OSABI = {
    "ELFOSABI_LINUX": "Linux",
    "ELFOSABI_FREEBSD": "FreeBSD",
    "ELFOSABI_NETBSD": "NetBSD",
    "ELFOSABI_OPENBSD": "OpenBSD",
    "ELFOSABI_SOLARIS": "Solaris",
}
_BRANDS = ("DragonFly", "FreeBSD", "NetBSD", "OpenBSD")
_LOADERS = {
    "ld-linux": "Linux",
    "ld-musl": "Linux",
    "/usr/libexec/ld-elf.so.2": "DragonFly",
    "/libexec/ld-elf.so.1": "FreeBSD",
    "ld.elf_so": "NetBSD",
    "/usr/libexec/ld.so": "OpenBSD",
}
# Of Go's: `build\tGOOS=linux\n`.
_GOOS = re.compile(rb"build\tGOOS=([a-z]+)\n")
_GOOS_SYSTEMS = {b"dragonfly": "DragonFly", b"linux": "Linux", b"freebsd": "FreeBSD", b"netbsd": "NetBSD",
                 b"openbsd": "OpenBSD", b"darwin": "macOS", b"windows": "Windows"}  # fmt: skip
#: How the name of a C program's source ends.
SOURCE = ".c"
_OTHERS = {b"\xcf\xfa\xed\xfe": "macOS", b"MZ": "Windows"}
# pyelftools follows whatever a damaged header says, and lets out what comes of that.
_DAMAGE = (ELFError, ConstructError, ArithmeticError, LookupError, OSError, TypeError, ValueError)


@dataclass(frozen=True)
class Program:
    """An executable FILE, or the source of one in C."""

    file: Path

    @property
    def is_source(self) -> bool:
        """Whether it is to be built before it runs."""
        return self.file.suffix == SOURCE

    @property
    def content(self) -> bytes:
        """All of it.  Raises UsageError where it cannot be read."""
        try:
            return self.file.read_bytes()
        except OSError as error:
            raise UsageError(f"{self.file}: {error.strerror}") from None

    @cached_property
    def digest(self) -> str:
        """Identifies it by content."""
        return digest_of(self.file)

    @cached_property
    def system(self) -> str:
        """The system it is for, as far as it says so; empty where it does not, as for a script."""
        content = self.content
        if not content.startswith(b"\x7fELF"):
            return next((name for magic, name in _OTHERS.items() if content.startswith(magic)), "")
        if (go := _GOOS.search(content)) is not None:
            return _GOOS_SYSTEMS.get(go[1], go[1].decode())
        try:
            return self._of_elf()
        except _DAMAGE:
            return ""

    @property
    def is_unbranded(self) -> bool:
        """Whether it is an ELF file that does not say for which system."""
        return self.content.startswith(b"\x7fELF") and not self.system

    def _of_elf(self) -> str:
        with self.file.open("rb") as stream:
            elf: Any = ELFFile(stream)
            if (known := _OSABI.get(elf["e_ident"]["EI_OSABI"])) is not None:
                return known
            for segment in elf.iter_segments():
                if segment["p_type"] == "PT_INTERP":
                    loader = segment.get_interp_name()
                    return next((name for part, name in _LOADERS.items() if part in str(loader)), "")
                if segment["p_type"] != "PT_NOTE":
                    continue
                for note in segment.iter_notes():
                    if note["n_name"] in _BRANDS:
                        return str(note["n_name"])
                    if note["n_name"] == "GNU" and note["n_type"] == "NT_GNU_ABI_TAG":
                        return "Linux" if "LINUX" in str(note["n_desc"]["abi_os"]).upper() else ""
        return ""

    def demand(self, abi: str) -> None:
        """Raise CaseBrokenError for what a guest with the system call interface ABI cannot execute."""
        try:
            about = self.file.stat()
        except OSError as error:
            raise CaseBrokenError(f"{self.file}: {error.strerror}") from None
        name, system = self.file.name, _SYSTEMS[abi]
        if not stat.S_ISREG(about.st_mode):
            raise CaseBrokenError(f"{name} is no file that could be executed")
        if self.is_source:
            if abi != "dragonfly":
                raise CaseBrokenError(f"{name} is built for DragonFly here, and the target runs {system}")
            return
        if not about.st_mode & 0o111:
            raise CaseBrokenError(f"{name} has no permission to be executed: chmod +x {self.file}")
        if not about.st_size:
            raise CaseBrokenError(f"{name} is empty")
        if self.system and self.system != system:
            raise CaseBrokenError(f"{name} is a program for {self.system}, and the target runs {system}")


def find_programs(path: Path) -> list[Path]:
    """Return PATH, or all files below it that may be executed, else all C programs, where it is a folder.

    Raises UsageError where there is nothing.
    """
    path = path.absolute()
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"there is no program {path}")
        return [path]
    found = sorted(
        Path(folder) / name
        for folder, _, names in os.walk(path)
        for name in names
        if os.access(Path(folder) / name, os.X_OK) and (Path(folder) / name).is_file()
    ) or sorted(path.glob(f"*{SOURCE}"))
    if not found:
        raise UsageError(f"{path} has no file that may be executed, and no C program")
    return found

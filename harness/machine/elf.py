# SPDX-License-Identifier: BSD-2-Clause
"""DragonFly kernels as files: which one is it, and where are its variables and functions."""

from __future__ import annotations

import hashlib
import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.later import Later

if TYPE_CHECKING:
    from elftools.common import exceptions
    from elftools.construct import core as construct
    from elftools.elf import elffile
else:  # kernels are taken to pieces when they are imported
    exceptions, construct = Later("elftools.common.exceptions"), Later("elftools.construct.core")
    elffile = Later("elftools.elf.elffile")

KERNBASE = 0xFFFFFFFF80000000
"""Where physical address 0 appears in the kernel's address space (vmparam.h: KERNBASE)."""

_ELF_HEADER_SIZE = 64
_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym: name, info, other, section, value, size
_NAME = struct.Struct("<I")
_VERSION_MAX = 1024  # newvers.sh writes two lines
_VERSION_TEXT = re.compile(rb"DragonFly v?\d+\.\d[^\0\n]*")

# pyelftools follows whatever a damaged header says, and lets out what comes of that, beside errors of its own.
_DAMAGE = (struct.error, ArithmeticError, LookupError, OSError, TypeError, ValueError)
_WRITABLE = 2  # PF_W


@dataclass(frozen=True)
class KernelIdentity:
    """What tells one DragonFly kernel from another.

    `version` is the first line of the symbol `version`, as the kernel prints it when it starts; `osreldate` the symbol
    of that name (sys/param.h: __DragonFly_version).  `text_digest` is the SHA-256 of the section .text, which the
    running kernel has at `text_physical_address` for `text_size` bytes.
    """

    path: Path
    version: str
    osreldate: int
    build_id: str | None
    text_digest: str
    text_physical_address: int
    text_size: int
    entry: int
    has_symbols: bool


@dataclass(frozen=True)
class Symbol:
    """A variable or function: virtual `address`, and `size` in bytes (0 if the kernel's assembler gave none)."""

    name: str
    address: int
    size: int

    @property
    def physical_address(self) -> int:
        """Where the kernel's image has it in physical memory."""
        return self.address - KERNBASE


class KernelSymbols:
    """The symbol table of a DragonFly kernel, static functions and variables included.

    Looking a name up costs well under a millisecond and nothing is read in advance, however large the kernel.  Raises
    UsageError for a file that is not such a kernel, or is stripped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _opened(path) as (elf, content):
            table = _table(elf, content, ".symtab")
            if table is None:
                raise UsageError(f"{path}: the kernel has no symbol table (.symtab): use the file that is not stripped")
            self._table = table
        self._found: dict[str, Symbol | None] = {}

    def find(self, name: str) -> Symbol | None:
        """Return the symbol NAME, or None: a global one, else a static one, else the static variable of a function.

        Compilers number the latter (`nextpid.1`).  Raises UsageError if NAME does not say which of several is meant.
        """
        if name not in self._found:  # to search a kernel's symbols takes a millisecond, and a few are asked for often
            self._found[name] = self._search(name)
        return self._found[name]

    def _search(self, name: str) -> Symbol | None:
        symbols = self._table.named(name) or self._table.numbered(name)
        if len(symbols) > 1 and len({symbol.address for symbol in symbols}) > 1:
            which = ", ".join(f"{symbol.name} at {symbol.address:#x}" for symbol in symbols)
            raise UsageError(f"{self._path}: the kernel has several static symbols of this name: {which}")
        return symbols[0] if symbols else None

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def __getitem__(self, name: str) -> Symbol:
        """Return the symbol NAME; raises UsageError if the kernel has none of that name."""
        if (found := self.find(name)) is None:
            raise UsageError(f"{self._path}: the kernel has no symbol {name}")
        return found

    def symbol_address(self, name: str) -> int:
        """Return the virtual address of NAME; raises UsageError if the kernel has no such symbol."""
        return self[name].address


def identify_kernel(path: Path) -> KernelIdentity:
    """Return which DragonFly kernel PATH is.

    Raises UsageError, saying what it is instead, if it is not an x86_64 DragonFly kernel, or not all of one.
    """
    with _opened(path) as (elf, content):
        symbols = _table(elf, content, ".symtab")
        # Stripped kernels keep what modules link against.
        tables = [table for table in (symbols, _table(elf, content, ".dynsym")) if table is not None]
        version = next((symbol for table in tables for symbol in table.named("version")), None)
        osreldate = next((symbol for table in tables for symbol in table.named("osreldate")), None)
        if version is None or osreldate is None:
            if symbols is None and (said := _VERSION_TEXT.search(content)):
                name = said[0].decode(errors="replace").strip()
                raise UsageError(f"{path}: a DragonFly kernel ({name}) without symbols: use the unstripped one")
            missing = "version" if version is None else "osreldate"
            raise UsageError(f"{path}: an ELF kernel, but not a DragonFly one (it has no symbol {missing})")
        shown = _read(path, elf, content, version.address, _VERSION_MAX).partition(b"\0")[0]
        if not shown.startswith(b"DragonFly"):
            begin = shown[:40].decode(errors="replace").partition("\n")[0]
            raise UsageError(f"{path}: an ELF kernel, but not a DragonFly one (its version is {begin!r})")
        (date,) = struct.unpack("<i", _read(path, elf, content, osreldate.address, 4))
        text = elf.get_section_by_name(".text")
        if text is None:
            raise UsageError(f"{path}: a DragonFly kernel without a section .text")
        begin, size = text["sh_offset"], text["sh_size"]
        _demand_inside(path, content, begin, size)
        return KernelIdentity(
            path=path,
            version=shown.decode(errors="replace").partition("\n")[0].strip(),
            osreldate=date,
            build_id=_build_id(elf, content),
            text_digest=hashlib.sha256(memoryview(content)[begin : begin + size]).hexdigest(),
            text_physical_address=text["sh_addr"] - KERNBASE,
            text_size=size,
            entry=elf["e_entry"],
            has_symbols=symbols is not None,
        )


def read_code(path: Path, address: int, size: int) -> bytes:
    """Return SIZE bytes of the kernel PATH from virtual ADDRESS on; raises UsageError where its file has none."""
    with _opened(path) as (elf, content):
        return _read(path, elf, content, address, size)


def data_address(path: Path) -> int:
    """Return from which virtual address on the kernel PATH can write to itself; raises UsageError where it cannot."""
    with _opened(path) as (elf, _):
        loaded = [each for each in elf.iter_segments() if each["p_type"] == "PT_LOAD"]
        found = [each["p_vaddr"] for each in loaded if each["p_flags"] & _WRITABLE]
        if not found:
            raise UsageError(f"{path}: truncated or damaged (no segment can be written to)")
        return int(min(found))


class _SymbolTable:
    """One ELF64 symbol table, searched as bytes: a kernel has tens of thousands of symbols and few are asked for."""

    def __init__(self, symbols: bytes, strings: bytes) -> None:
        self._symbols = symbols
        self._strings = strings

    def named(self, name: str) -> list[Symbol]:
        """Return the symbol NAME: the global one alone, or all static ones."""
        static = []
        for offset in _positions(self._strings, name.encode() + b"\0"):
            # `offset` may be inside a longer string: linkers let `version` share the end of `conversion`.
            for position in _positions(self._symbols, _NAME.pack(offset), step=_SYMBOL.size):
                _, info, _, section, value, size = _SYMBOL.unpack_from(self._symbols, position)
                if section == 0:  # SHN_UNDEF: used here, defined elsewhere
                    continue
                symbol = Symbol(name, value, size)
                if info >> 4 != 0:  # not STB_LOCAL
                    return [symbol]
                static.append(symbol)
        return static

    def numbered(self, name: str) -> list[Symbol]:
        """Return all symbols called NAME, a dot and a number."""
        names = set(re.findall(re.escape(name.encode()) + rb"\.\d+(?=\0)", self._strings))
        return [symbol for each in sorted(names) for symbol in self.named(each.decode())]


def _positions(where: bytes, what: bytes, *, step: int = 1) -> Iterator[int]:
    at = where.find(what)
    while at >= 0:
        if at % step == 0:
            yield at
        at = where.find(what, at + 1)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, mmap.mmap]]:
    """Open PATH, make sure that it is a whole x86_64 kernel, and yield it as an ELFFile and as bytes."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    with stream:
        if stream.read(4) != b"\x7fELF":
            raise UsageError(f"{path}: not an ELF file")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if len(content) < _ELF_HEADER_SIZE:
                raise UsageError(f"{path}: truncated (the ELF header is not complete)")
            try:
                elf = elffile.ELFFile(stream)
                _demand_kernel(path, elf, content)
                yield elf, content
            except (exceptions.ELFError, construct.ConstructError, *_DAMAGE) as error:
                raise UsageError(f"{path}: truncated or damaged ({str(error) or type(error).__name__})") from error


def _demand_kernel(path: Path, elf: Any, content: mmap.mmap) -> None:
    if elf.elfclass != 64 or not elf.little_endian or elf["e_machine"] != "EM_X86_64":
        machine = str(elf["e_machine"]).removeprefix("EM_")
        raise UsageError(f"{path}: an ELF file, but for a {elf.elfclass}-bit {machine}, not for x86_64")
    if elf["e_type"] != "ET_EXEC":
        what = {"ET_DYN": "a shared object or kernel module", "ET_REL": "an object file", "ET_CORE": "a core dump"}
        raise UsageError(f"{path}: an ELF file, but {what.get(elf['e_type'], 'something else')}, not a kernel")
    _demand_inside(path, content, elf["e_phoff"], elf["e_phnum"] * elf["e_phentsize"])
    _demand_inside(path, content, elf["e_shoff"], elf["e_shnum"] * elf["e_shentsize"])
    loaded = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
    lowest = min([elf["e_entry"], *(segment["p_vaddr"] for segment in loaded)])
    if lowest < KERNBASE:
        raise UsageError(f"{path}: an ELF program linked at {lowest:#x}, not a kernel (which is above {KERNBASE:#x})")
    for segment in loaded:
        _demand_inside(path, content, segment["p_offset"], segment["p_filesz"])


def _demand_inside(path: Path, content: mmap.mmap, offset: int, size: int) -> None:
    if offset + size > len(content):
        raise UsageError(f"{path}: truncated (it has {len(content)} bytes and should have at least {offset + size})")


def _table(elf: Any, content: mmap.mmap, name: str) -> _SymbolTable | None:
    section = elf.get_section_by_name(name)
    if section is None or section["sh_size"] == 0:
        return None
    strings = elf.get_section(section["sh_link"])
    parts = []
    for part in (section, strings):
        begin, size = part["sh_offset"], part["sh_size"]
        if begin + size > len(content):
            raise exceptions.ELFError(f"{name} ends at byte {begin + size} of {len(content)}")
        parts.append(content[begin : begin + size])
    return _SymbolTable(*parts)


def _read(path: Path, elf: Any, content: mmap.mmap, address: int, size: int) -> bytes:
    """Return up to SIZE bytes of the image at virtual ADDRESS, which must be in the file (not in .bss)."""
    for segment in elf.iter_segments():
        into = address - segment["p_vaddr"]
        if segment["p_type"] == "PT_LOAD" and 0 <= into < segment["p_filesz"]:
            begin = segment["p_offset"] + into
            return content[begin : begin + min(size, segment["p_filesz"] - into)]
    raise UsageError(f"{path}: truncated or damaged (no segment holds {address:#x})")


def _build_id(elf: Any, content: mmap.mmap) -> str | None:
    section = elf.get_section_by_name(".note.gnu.build-id")
    if section is None:
        return None
    note = content[section["sh_offset"] : section["sh_offset"] + section["sh_size"]]
    name_size, size, _ = struct.unpack_from("<III", note)
    begin = 12 + name_size + -name_size % 4
    return note[begin : begin + size].hex()

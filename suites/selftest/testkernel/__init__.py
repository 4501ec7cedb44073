# SPDX-License-Identifier: BSD-2-Clause
"""A stand-in for a DragonFly kernel, and ways to damage it; for the tests of what reads or boots kernels."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness.machine
from harness.toolchain import compile_program

_HERE = Path(__file__).parent
_LIB = Path(harness.machine.__file__).parent / "bootstub"

VERSION = "DragonFly v0.0-TEST #7: Thu Jan  1 00:00:00 UTC 1970"
OSRELDATE = 700042

_FLAGS = (
    "-m64", "-mcmodel=kernel", "-mno-red-zone", "-mno-mmx", "-mno-sse", "-std=c11", "-O1", "-ffreestanding", "-fno-pic",
    "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-nostdlib", "-static", "-Wall", "-Wextra", "-Werror",
    "-Wl,-z,noexecstack", "-Wl,-z,max-page-size=4096", "-Wl,--build-id=sha1",
)  # fmt: skip


def build_kernel(cache: Path, *flags: str, program: str = "kernel.c") -> Path:
    """Build the test kernel, with more FLAGS such as -Wl,-s, or another PROGRAM, into CACHE."""
    script = _HERE / "kernel.ld"
    return compile_program(
        "testkernel",
        [_HERE / "start.S", _HERE / program, _LIB / "lib.c"],
        [*_FLAGS, *flags, "-I", str(_LIB), "-T", str(script)],
        cache,
        depends=[_LIB / "lib.h", script],
    )


@dataclass(frozen=True)
class Section:
    """A section header of an ELF64 file: where the header is in the file, and what it says."""

    at: int
    offset: int
    size: int
    link: int


def sections(content: bytes) -> dict[str, Section]:
    """Return the sections of an ELF64 file by name; written apart from harness.machine.elf, which it tests."""
    table, entry, count, names = struct.unpack_from("<Q10xHHH", content, 40)
    del entry
    headers = []
    for number in range(count):
        at = table + 64 * number
        name, _, _, _, offset, size, link = struct.unpack_from("<IIQQQQI", content, at)
        headers.append((name, Section(at, offset, size, link)))
    text = headers[names][1].offset
    return {content[text + name : content.index(b"\0", text + name)].decode(): section for name, section in headers}


def patched(content: bytes, *patches: tuple[int, str, int]) -> bytes:
    """Return CONTENT with numbers overwritten; each patch is (offset, struct format, number)."""
    copy = bytearray(content)
    for offset, form, number in patches:
        struct.pack_into(form, copy, offset, number)
    return bytes(copy)


def load_segments(content: bytes) -> Iterator[int]:
    """Yield the offsets of the program headers of type PT_LOAD."""
    table, count = struct.unpack_from("<Q", content, 32)[0], struct.unpack_from("<H", content, 56)[0]
    for at in range(table, table + 56 * count, 56):
        if struct.unpack_from("<I", content, at)[0] == 1:
            yield at


def _strings(table: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(table):
        end = table.index(b"\0", at)
        yield at, table[at:end]
        at = end + 1


def with_more_symbols(content: bytes, names: Sequence[str]) -> bytes:
    """Return CONTENT with NAMES in front of its own symbols, as static functions at address 1.

    As with linkers, a name that is there already is not stored a second time.
    """
    found = sections(content)
    symbols, strings = found[".symtab"], found[".strtab"]
    text = bytearray(content[strings.offset : strings.offset + strings.size])
    table = bytearray(24)
    shared = {string: at for at, string in _strings(bytes(text))}
    for name in names:
        at = shared.get(name.encode(), len(text))
        table += struct.pack("<IBBHQQ", at, 0x02, 0, 1, 1, 0)
        if at == len(text):
            text += name.encode() + b"\0"
    table += content[symbols.offset + 24 : symbols.offset + symbols.size]
    end = len(content) + -len(content) % 8
    return patched(
        content.ljust(end, b"\0") + table + text,
        (symbols.at + 24, "<Q", end),
        (symbols.at + 32, "<Q", len(table)),
        (strings.at + 24, "<Q", end + len(table)),
        (strings.at + 32, "<Q", len(text)),
    )

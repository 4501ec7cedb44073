# SPDX-License-Identifier: BSD-2-Clause
"""Kernels as files: identified, refused with a reason, their symbols found quickly."""

from __future__ import annotations

import gc
import hashlib
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from testkernel import OSRELDATE, VERSION, build_kernel, load_segments, patched, sections, with_more_symbols

from harness.errors import UsageError
from harness.machine.elf import KERNBASE, KernelSymbols, Symbol, identify_kernel

CPU_SECONDS = 0.3  # to identify a kernel of 100 MB, or to look up some symbols in it


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="session")
def kernel(cache: Path) -> Path:
    return build_kernel(cache)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kernel"


@pytest.fixture(scope="session")
def debug_kernel(kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a kernel of 100 MB with 100,000 symbols in front of its own."""
    file = tmp_path_factory.mktemp("kernels") / "kernel.debug"
    content = kernel.read_bytes().ljust(100 << 20, b"D")
    file.write_bytes(with_more_symbols(content, [f"some_function_{number}" for number in range(100_000)]))
    return file


def nm(kernel: Path) -> dict[str, int]:
    """Return all symbols with their addresses, as binutils see them."""
    shown = subprocess.run(["nm", str(kernel)], capture_output=True, text=True, check=True).stdout
    return {line.split()[2]: int(line.split()[0], 16) for line in shown.splitlines()}


def refusal(file: Path) -> str:
    with pytest.raises(UsageError) as caught:
        identify_kernel(file)
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert "\n" not in said
    return said.removeprefix(f"{file}: ")


def damage(kernel: Path, file: Path, *patches: tuple[int, str, int]) -> Path:
    file.write_bytes(patched(kernel.read_bytes(), *patches))
    return file


# identity


def test_identity_of_a_kernel(kernel: Path) -> None:
    identity = identify_kernel(kernel)
    content = kernel.read_bytes()
    text = sections(content)[".text"]
    assert identity.path == kernel
    assert identity.version == VERSION
    assert identity.osreldate == OSRELDATE
    assert identity.entry == nm(kernel)["btext"]
    assert identity.text_digest == hashlib.sha256(content[text.offset : text.offset + text.size]).hexdigest()
    assert identity.text_size == text.size
    # The first segment holds the file from its beginning, at KERNBASE + 2 MB.
    assert identity.text_physical_address == (2 << 20) + text.offset
    assert identity.has_symbols
    note = sections(content)[".note.gnu.build-id"]
    assert identity.build_id == content[note.offset + 16 : note.offset + note.size].hex()


def test_a_kernel_without_build_id(cache: Path) -> None:
    assert identify_kernel(build_kernel(cache, "-Wl,--build-id=none")).build_id is None


def test_text_digest_depends_on_text_alone(kernel: Path, file: Path) -> None:
    found = sections(kernel.read_bytes())
    before = identify_kernel(kernel)
    inside = damage(kernel, file, (found[".text"].offset + found[".text"].size - 1, "<B", 0xCC))
    assert identify_kernel(inside).text_digest != before.text_digest
    outside = damage(kernel, file, (found[".rodata"].offset, "<B", 0xCC))
    assert identify_kernel(outside).text_digest == before.text_digest


def test_a_kernel_with_dynamic_symbols_only(kernel: Path, file: Path) -> None:
    file.write_bytes(kernel.read_bytes().replace(b"\0.symtab\0", b"\0.dynsym\0"))
    identity = identify_kernel(file)
    assert (identity.version, identity.osreldate, identity.has_symbols) == (VERSION, OSRELDATE, False)
    with pytest.raises(UsageError, match="has no symbol table"):
        KernelSymbols(file)


# refusals


def test_refuses_what_is_no_elf_file(file: Path) -> None:
    assert refusal(file) == "No such file or directory"
    file.write_bytes(b"")
    assert refusal(file) == "not an ELF file"
    file.write_bytes(b"\x1f\x8b" + bytes(1000))
    assert refusal(file) == "not an ELF file"
    file.unlink()
    file.mkdir()
    assert refusal(file) == "Is a directory"


def test_refuses_other_kinds_of_elf_files(kernel: Path, file: Path) -> None:
    assert refusal(damage(kernel, file, (18, "<H", 183))) == "an ELF file, but for a 64-bit AARCH64, not for x86_64"
    thirty_two = struct.pack("<16sHHI", b"\x7fELF\x01\x01\x01", 2, 3, 1).ljust(5000, b"\0")
    file.write_bytes(thirty_two)
    assert refusal(file) == "an ELF file, but for a 32-bit 386, not for x86_64"
    module = damage(kernel, file, (16, "<H", 3))
    assert refusal(module) == "an ELF file, but a shared object or kernel module, not a kernel"
    assert refusal(damage(kernel, file, (16, "<H", 1))) == "an ELF file, but an object file, not a kernel"


def test_refuses_programs_linked_elsewhere(kernel: Path, file: Path) -> None:
    text, _ = load_segments(kernel.read_bytes())
    reason = "not a kernel (which is above 0xffffffff80000000)"
    moved = damage(kernel, file, (text + 16, "<Q", 0x400000))
    assert refusal(moved) == f"an ELF program linked at 0x400000, {reason}"
    entered = damage(kernel, file, (24, "<Q", 0x401000))
    assert refusal(entered) == f"an ELF program linked at 0x401000, {reason}"


def test_refuses_the_kernels_of_others(kernel: Path, file: Path) -> None:
    content = kernel.read_bytes()
    file.write_bytes(content.replace(b"\0version\0", b"\0banner_\0"))
    assert refusal(file) == "an ELF kernel, but not a DragonFly one (it has no symbol version)"
    file.write_bytes(content.replace(b"\0osreldate\0", b"\0osrelease\0"))
    assert refusal(file) == "an ELF kernel, but not a DragonFly one (it has no symbol osreldate)"
    file.write_bytes(content.replace(b"DragonFly v0.0-TEST", b"FreeBSD 14.1-TESTIN"))
    assert refusal(file).startswith("an ELF kernel, but not a DragonFly one (its version is 'FreeBSD 14.1")


def test_refuses_a_stripped_kernel_but_recognises_it(cache: Path) -> None:
    stripped = build_kernel(cache, "-Wl,-s")
    assert refusal(stripped) == f"a DragonFly kernel ({VERSION}) without symbols: use the unstripped one"


@pytest.mark.parametrize("fraction", [0.0001, 0.002, 0.01, 0.1, 0.5, 0.9, 0.9999])
def test_refuses_a_truncated_kernel_whatever_is_missing(kernel: Path, file: Path, fraction: float) -> None:
    whole = kernel.read_bytes()
    file.write_bytes(whole[: max(8, int(len(whole) * fraction))])
    assert refusal(file).startswith("truncated")


def test_refuses_damage_without_a_traceback(kernel: Path, file: Path) -> None:
    """Change each byte of the headers: either it does not matter, or it is a UsageError; never another exception."""
    content = kernel.read_bytes()
    table = struct.unpack_from("<Q", content, 40)[0]
    refused = 0
    for at in [*range(64 + 3 * 56), *range(table, len(content), 3)]:
        for value in (0x7F, 0xFF):
            file.write_bytes(patched(content, (at, "<B", value)))
            try:
                identify_kernel(file)
            except UsageError:
                refused += 1
    assert refused > 100


# symbols


def test_every_symbol_is_found_where_binutils_find_it(kernel: Path) -> None:
    symbols = KernelSymbols(kernel)
    known = nm(kernel)
    assert len(known) > 20
    assert {name: symbols.symbol_address(name) for name in known} == known


def test_a_symbol_has_address_and_size(kernel: Path) -> None:
    large = KernelSymbols(kernel)["large"]
    assert large == Symbol("large", nm(kernel)["large"], 3 << 20)
    assert large.physical_address == large.address - KERNBASE


def test_unknown_symbols(kernel: Path) -> None:
    symbols = KernelSymbols(kernel)
    assert "version" in symbols
    # The ends and beginnings of other names are no symbols.
    for name in ("ersion", "marker_function_", "marker", "", "nextpid.", "UTC"):
        assert name not in symbols
        with pytest.raises(UsageError, match=f"the kernel has no symbol {name}"):
            symbols.symbol_address(name)


def test_static_variables_of_functions_are_found_without_their_number(kernel: Path) -> None:
    symbols = KernelSymbols(kernel)
    assert symbols["nextpid"] == symbols["nextpid.1"] == Symbol("nextpid.1", nm(kernel)["nextpid.1"], 4)
    several = rf"several static symbols of this name: count\.3 at {nm(kernel)['count.3']:#x}, count\.4 at "
    with pytest.raises(UsageError, match=several):
        symbols.find("count")
    assert symbols.symbol_address("count.4") == nm(kernel)["count.4"]


def test_a_global_symbol_wins_over_a_static_one(kernel: Path, file: Path) -> None:
    file.write_bytes(with_more_symbols(kernel.read_bytes(), ["version", "elsewhere"]))
    symbols = KernelSymbols(file)
    assert symbols.symbol_address("version") == nm(kernel)["version"]
    assert symbols.symbol_address("elsewhere") == 1
    assert identify_kernel(file).version == VERSION


def test_static_symbols_of_one_name_are_not_confused(kernel: Path, file: Path) -> None:
    file.write_bytes(with_more_symbols(kernel.read_bytes(), ["lock", "nextpid.1"]))
    symbols = KernelSymbols(file)
    assert symbols.symbol_address("lock") == 1
    with pytest.raises(UsageError, match=r"several static symbols of this name: nextpid\.1 at 0x1, nextpid\.1 at "):
        symbols.symbol_address("nextpid.1")


def test_names_that_share_their_ends(kernel: Path, file: Path) -> None:
    """Linkers store `version` only once if `conversion` is there as well."""
    content = with_more_symbols(kernel.read_bytes(), ["conversion"])
    found = sections(content)
    strings = content[found[".strtab"].offset : found[".strtab"].offset + found[".strtab"].size]
    own, shared = strings.index(b"\0version\0") + 1, strings.index(b"conversion\0") + 3
    table = found[".symtab"].offset
    (entry,) = [
        at for at in range(table, table + found[".symtab"].size, 24) if struct.unpack_from("<I", content, at)[0] == own
    ]
    file.write_bytes(patched(content.replace(b"\0version\0", b"\0xersion\0"), (entry, "<I", shared)))
    assert KernelSymbols(file).symbol_address("version") == nm(kernel)["version"]
    assert KernelSymbols(file).symbol_address("conversion") == 1
    assert identify_kernel(file).version == VERSION


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of this thread that WORK takes; what is slow by construction is so each of three times."""

    def once() -> float:
        gc.collect()  # of what other tests left
        begin = time.thread_time()
        work()
        return time.thread_time() - begin

    return min(once() for _ in range(3))


def test_a_large_kernel_is_identified_quickly(debug_kernel: Path) -> None:
    assert cpu_seconds(lambda: identify_kernel(debug_kernel)) < CPU_SECONDS
    assert identify_kernel(debug_kernel).version == VERSION


def test_symbols_of_a_large_kernel_are_found_quickly(debug_kernel: Path, kernel: Path) -> None:
    names = ("version", "osreldate", "btext", "nextpid", "some_function_99999")

    def addresses() -> list[int]:
        symbols = KernelSymbols(debug_kernel)
        return [symbols.symbol_address(name) for name in names]

    assert cpu_seconds(addresses) < CPU_SECONDS
    expected = nm(kernel)
    assert addresses() == [expected[name] for name in ("version", "osreldate", "btext", "nextpid.1")] + [1]

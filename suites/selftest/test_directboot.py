# SPDX-License-Identifier: BSD-2-Clause
"""The boot stub in a real QEMU, with a small kernel that reports what it was handed; nothing of DragonFly is needed."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from testkernel import build_kernel, load_segments, patched, sections, with_more_symbols

from harness.errors import UsageError
from harness.machine.directboot import DEFAULT_ENVIRONMENT, BootFlags, direct_boot, minimum_memory
from harness.machine.elf import KERNBASE, KernelSymbols
from harness.machine.qemu import find_qemu

pytestmark = pytest.mark.on_vm

PAGE = 4096
DEADLINE = 60.0
DONE, REFUSED = 0x11 << 1 | 1, 0x2D << 1 | 1  # QEMU's exit status: the test kernel is through; the stub gave up

NAME, TYPE, ADDRESS, SIZE = 1, 2, 3, 4
ELF_HEADER, SYMBOLS_START, SYMBOLS_END, DYNAMIC, ENVIRONMENT, HOWTO, KERNEL_END = range(0x8002, 0x8009)
MEMORY_MAP = 0x9001


def run_qemu(arguments: Sequence[str], *, memory: int = 128, cpus: int = 1) -> tuple[int, str]:
    """Run QEMU until its machine ends; return its exit status and what came out of the first serial port."""
    argv = [
        find_qemu(), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "pc",
        "-accel", "tcg", "-m", str(memory), "-smp", str(cpus), "-serial", "stdio",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", *arguments,
    ]  # fmt: skip
    # A file, as a full pipe would stop the UART, and the stub gives up waiting for that: characters would be lost.
    with tempfile.TemporaryFile("w+") as console:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.PIPE, text=True, timeout=DEADLINE,
            check=False,
        )  # fmt: skip
        assert done.stderr == ""
        console.seek(0)
        return done.returncode, console.read()


def litter(folder: Path) -> list[str]:
    """Return QEMU arguments that fill the memory which the kernel is going to use, as an earlier boot might have."""
    arguments = []
    for address, size in ((0x1000, 0x4000), (2 << 20, 30 << 20)):
        file = folder / f"litter-{size:x}"
        if not file.exists():
            file.write_bytes(b"\xa5" * size)
        arguments += ["-device", f"loader,file={file},addr={address:#x},force-raw=on"]
    return arguments


@dataclass
class Report:
    """What the test kernel found; see testkernel/kernel.c."""

    greeting: str
    numbers: dict[str, int] = field(default_factory=dict)
    records: list[tuple[int, bytes]] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)

    def record(self, kind: int) -> bytes:
        """Return the data of the only metadata record of KIND."""
        (found,) = (data for each, data in self.records if each == kind)
        return found

    def number(self, kind: int) -> int:
        """Return the 64-bit number in the only metadata record of KIND."""
        data = self.record(kind)
        assert len(data) == 8
        return int.from_bytes(data, "little")


def boot(
    kernel: Path,
    cache: Path,
    *,
    environment: Mapping[str, str] | None = None,
    flags: BootFlags = BootFlags.RB_SERIAL,
    append: str | None = None,
    memory: int = 128,
    cpus: int = 1,
) -> Report:
    """Boot KERNEL and return its report; APPEND is a command line instead of what direct_boot() makes."""
    how = direct_boot(kernel, environment=environment or {}, flags=flags, cache=cache)
    argv = ["-kernel", str(how.kernel), "-initrd", str(how.initrd).replace(",", ",,")]
    argv += ["-append", how.append if append is None else append, *litter(cache)]
    status, console = run_qemu(argv, memory=memory, cpus=cpus)
    greeting, *lines = [line for line in console.splitlines() if line]
    assert status == DONE, console
    assert lines[-1] == "done"
    report = Report(greeting)
    for line in lines[:-1]:
        word, _, rest = line.partition(" ")
        if word == "record":
            kind, _, data = rest.partition(" ")
            report.records.append((int(kind, 16), bytes.fromhex(data)))
        elif word == "variable":
            report.variables.append(rest)
        else:
            assert word not in report.numbers
            report.numbers[word] = int(rest, 16)
    return report


def refuse(kernel: Path, cache: Path, *, memory: int = 128) -> str:
    """Boot something that the stub must not start; return the line that it printed instead."""
    how = direct_boot(kernel, environment={}, cache=cache)
    argv = ["-kernel", str(how.kernel), "-initrd", str(how.initrd), "-append", how.append]
    status, console = run_qemu(argv, memory=memory)
    assert status == REFUSED, console
    (line,) = console.splitlines()
    assert line.startswith("dfly-harness stub: ")
    return line.removeprefix("dfly-harness stub: ")


def checksum(data: bytes) -> int:
    """Return the checksum that kernel.c uses (FNV-1a)."""
    total = 2166136261
    for byte in data:
        total = (total ^ byte) * 16777619 & 0xFFFFFFFF
    return total


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="session")
def kernel(cache: Path) -> Path:
    return build_kernel(cache)


@pytest.fixture(scope="session")
def report(kernel: Path, cache: Path) -> Report:
    return boot(kernel, cache, environment={"vfs.root.mountfrom": "ufs:vbd0"})


# what the kernel is handed


def test_kernel_runs_in_long_mode_with_interrupts_off(report: Report) -> None:
    assert report.numbers["cr0"] & 0x80000001 == 0x80000001  # PG, PE
    assert report.numbers["cr4"] & 0x20  # PAE
    assert report.numbers["efer"] & 0x500 == 0x500  # LMA, LME
    assert report.numbers["flags"] & 0x200 == 0  # IF
    assert report.numbers["cs"] == 0x08


def test_image_is_complete_and_bss_is_zero(report: Report) -> None:
    assert report.numbers["data"] == 0x12345678
    assert report.numbers["bss-size"] > 3 << 20
    assert report.numbers["bss-dirty"] == 0


def test_low_memory_is_mapped_at_its_own_address_too(report: Report) -> None:
    assert report.numbers["data-physical"] == 0x12345678
    assert report.numbers["data-alias"] == 0x9ABCDEF0


def test_page_tables_map_nothing_else(report: Report) -> None:
    assert (report.numbers["entries-level4"], report.numbers["entries-level3"]) == (2, 2)


def test_metadata_starts_with_the_name_and_type_of_the_kernel(report: Report) -> None:
    assert report.records[0] == (NAME, b"kernel\0")
    assert report.records[1] == (TYPE, b"elf kernel\0")


def test_metadata_has_each_record_once(report: Report) -> None:
    expected = [NAME, TYPE, ADDRESS, SIZE, *range(ELF_HEADER, KERNEL_END + 1), MEMORY_MAP]
    assert sorted(kind for kind, _ in report.records) == expected
    assert report.numbers["padding-dirty"] == 0


def test_image_symbols_environment_and_metadata_follow_each_other(report: Report) -> None:
    begin, end = report.number(ADDRESS), report.number(ADDRESS) + report.number(SIZE)
    assert begin == 2 << 20
    assert begin + report.numbers["bss-size"] < report.number(SYMBOLS_START) < report.number(SYMBOLS_END) == end
    assert end <= report.number(ENVIRONMENT) < report.numbers["environment-end"] <= report.numbers["modulep"]
    assert report.numbers["records-end"] <= report.numbers["kernend"] == report.number(KERNEL_END)
    assert report.numbers["kernend"] < report.numbers["records-end"] + PAGE
    for address in (report.number(ENVIRONMENT), report.numbers["modulep"], report.numbers["kernend"]):
        assert address % PAGE == 0


def test_elf_header_and_dynamic_section(report: Report, kernel: Path) -> None:
    assert report.record(ELF_HEADER) == kernel.read_bytes()[:64]
    dynamic = struct.unpack_from("<Q", kernel.read_bytes(), sections(kernel.read_bytes())[".dynamic"].at + 16)[0]
    assert report.number(DYNAMIC) == dynamic


def test_symbol_tables_arrive_unchanged(report: Report, kernel: Path) -> None:
    content = kernel.read_bytes()
    for name, section in (("symbols", ".symtab"), ("strings", ".strtab")):
        found = sections(content)[section]
        assert report.numbers[f"{name}-size"] == found.size
        assert report.numbers[f"{name}-sum"] == checksum(content[found.offset : found.offset + found.size])
    assert report.numbers["symbols-left"] == 0
    assert report.numbers["marker"] == report.numbers["marker-here"]
    assert report.numbers["marker"] == KernelSymbols(kernel).symbol_address("marker_function")


def test_greeting_is_one_line_about_the_kernel(report: Report) -> None:
    kilobytes = (report.numbers["kernend"] - (2 << 20)) // 1024
    said = f"dfly-harness stub: kernel of {kilobytes} KB with symbols, {len(report.variables)} variables, entry "
    assert report.greeting.startswith(said)
    assert re.fullmatch(r"0xffffffff80200[0-9a-f]{3}", report.greeting.removeprefix(said))


def test_defaults_are_handed_over_and_the_caller_overrides_them(report: Report, kernel: Path, cache: Path) -> None:
    expected = {**DEFAULT_ENVIRONMENT, "vfs.root.mountfrom": "ufs:vbd0"}
    assert report.variables == [f"{name}={value}" for name, value in expected.items()]
    overridden = boot(kernel, cache, environment={"console": "vidconsole", "kern.hz": "1000"}).variables
    assert "console=vidconsole" in overridden
    assert "kern.hz=1000" in overridden
    assert "console=comconsole" not in overridden


@pytest.mark.parametrize(
    "value",
    ["", "two words", ' "quoted" ', "a=b", "back\\slash", "back\\ slash \\", '"', '\\"', "end ", "howto=7", "a,b,,c"],
)
def test_values_arrive_as_they_are(kernel: Path, cache: Path, value: str) -> None:
    variables = boot(kernel, cache, environment={"first": value, "second": "2"}).variables
    assert variables[-2:] == [f"first={value}", "second=2"]


@pytest.mark.parametrize("append", ["howto=0", "howto=0x12ab   a=1  b= ", "howto=4294967295 a=1"])
def test_command_lines_by_hand(kernel: Path, cache: Path, append: str) -> None:
    found = boot(kernel, cache, append=append)
    howto, *variables = append.split()
    assert found.variables == variables
    assert found.record(HOWTO) == struct.pack("<I", int(howto.removeprefix("howto="), 0))


@pytest.mark.parametrize("flags", [BootFlags.RB_AUTOBOOT, BootFlags.RB_VIDEO | BootFlags.RB_SINGLE])
def test_howto(report: Report, kernel: Path, cache: Path, flags: BootFlags) -> None:
    assert report.record(HOWTO) == struct.pack("<I", 0x1000)
    assert boot(kernel, cache, flags=flags).record(HOWTO) == struct.pack("<I", flags)


@pytest.mark.parametrize(("memory", "cpus"), [(128, 2), (300, 1), (4096, 1)])
def test_memory_map_tells_all_of_the_memory(kernel: Path, cache: Path, memory: int, cpus: int) -> None:
    found = boot(kernel, cache, memory=memory, cpus=cpus).record(MEMORY_MAP)
    assert len(found) % 20 == 0
    ranges = list(struct.iter_unpack("<QQI", found))
    assert ranges[0][0] == 0
    usable = sum(length for _, length, kind in ranges if kind == 1)
    assert memory - 2 < usable / (1 << 20) < memory
    assert any(base + length > 4 << 30 for base, length, kind in ranges if kind == 1) == (memory > 3072)


def test_a_stripped_kernel_boots_without_symbols(cache: Path) -> None:
    found = boot(build_kernel(cache, "-Wl,-s"), cache)
    assert {SYMBOLS_START, SYMBOLS_END}.isdisjoint(kind for kind, _ in found.records)
    assert found.numbers["bss-dirty"] == 0
    assert "without symbols" in found.greeting


def test_a_large_kernel_with_many_symbols_boots(kernel: Path, cache: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    content = kernel.read_bytes().ljust(40 << 20, b"D")  # debug information, which must not cost guest memory
    large.write_bytes(with_more_symbols(content, [f"function_{number}" for number in range(60_000)]))
    memory = minimum_memory(large)
    assert memory > 96 + 40
    found = boot(large, cache, memory=memory)
    assert found.numbers["symbols-left"] == 0
    assert found.numbers["marker"] == found.numbers["marker-here"]
    assert found.numbers["kernend"] < 16 << 20


def test_a_long_environment_arrives_whole(kernel: Path, cache: Path) -> None:
    environment = {f"variable.{number}": "x" * 200 for number in range(511 - len(DEFAULT_ENVIRONMENT))}
    variables = boot(kernel, cache, environment=environment).variables
    assert variables[len(DEFAULT_ENVIRONMENT) :] == [f"{name}={value}" for name, value in environment.items()]


@pytest.mark.parametrize("name", ["with space/kernel", "with,comma/kernel", "the howto=1 kernel", "the k=v kernel"])
def test_paths_may_have_any_characters(kernel: Path, tmp_path: Path, name: str) -> None:
    odd = tmp_path / name
    odd.parent.mkdir(exist_ok=True)
    shutil.copy(kernel, odd)
    assert boot(odd, tmp_path / "cache").numbers["data"] == 0x12345678


def test_the_stub_itself_may_be_in_a_folder_with_spaces(kernel: Path, tmp_path: Path) -> None:
    assert boot(kernel, tmp_path / "my own a=b cache", environment={"a": "1"}).variables[-1] == "a=1"


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_stub_built_by_either_compiler(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    monkeypatch.setenv("CC", compiler)
    found = boot(kernel, tmp_path, environment={"compiler": compiler})
    assert found.variables[-1] == f"compiler={compiler}"
    assert found.numbers["marker"] == found.numbers["marker-here"]


# what the stub refuses


def damage(kernel: Path, where: Path, *patches: tuple[int, str, int]) -> Path:
    where.write_bytes(patched(kernel.read_bytes(), *patches))
    return where


def test_refuses_what_is_not_a_kernel(kernel: Path, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no kernel at all\n" * 100)
    assert refuse(file, cache) == "the module is not an ELF file"
    assert refuse(damage(kernel, file, (4, "<B", 1)), cache) == "the module is an ELF file, but not for x86_64"
    assert refuse(damage(kernel, file, (18, "<H", 183)), cache) == "the module is an ELF file, but not for x86_64"
    assert refuse(damage(kernel, file, (16, "<H", 3)), cache) == "the module is an ELF file, but not a kernel"
    assert refuse(damage(kernel, file, (24, "<Q", 0x401000)), cache) == "the module is an ELF file, but not a kernel"


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.5, 0.99])
def test_refuses_a_truncated_kernel(kernel: Path, cache: Path, tmp_path: Path, fraction: float) -> None:
    whole = kernel.read_bytes()
    file = tmp_path / "file"
    file.write_bytes(whole[: int(len(whole) * fraction)])
    assert refuse(file, cache) == "the kernel file is truncated"


def test_refuses_segments_that_make_no_sense(kernel: Path, cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    text, data = load_segments(kernel.read_bytes())
    # Program header: virtual address at 16, size in the file at 32, in memory at 40.
    low = damage(kernel, file, (text + 16, "<Q", KERNBASE + 0x9000))
    assert refuse(low, cache) == "a segment of the kernel is not linked behind KERNBASE + 1 MB"
    user = damage(kernel, file, (text + 16, "<Q", 0x400000))
    assert refuse(user, cache) == "a segment of the kernel is not linked behind KERNBASE + 1 MB"
    shrunk = damage(kernel, file, (data + 40, "<Q", 1))
    assert refuse(shrunk, cache) == "a segment of the kernel is longer in the file than in memory"
    for size in (95 << 20, 1 << 32, (1 << 64) - 1):
        vast = damage(kernel, file, (data + 40, "<Q", size))
        assert refuse(vast, cache) == "the kernel with its symbols and environment does not fit below 96 MB"
    outside = damage(kernel, file, (24, "<Q", KERNBASE + (64 << 20)))
    assert refuse(outside, cache) == "the kernel's entry point is outside of its segments"
    empty = damage(kernel, file, (text, "<I", 0), (data, "<I", 0))
    assert refuse(empty, cache) == "the kernel has no segment to load"


def test_refuses_a_symbol_table_without_strings(kernel: Path, cache: Path, tmp_path: Path) -> None:
    symbols = sections(kernel.read_bytes())[".symtab"]
    for link in (0, 99):
        file = damage(kernel, tmp_path / "file", (symbols.at + 40, "<I", link))
        assert refuse(file, cache) == "the kernel's symbol table has no string table"


def test_refuses_a_machine_with_too_little_memory(kernel: Path, cache: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(kernel.read_bytes().ljust(60 << 20, b"D"))
    said = "the kernel file is larger than the machine's memory; give QEMU more -m"
    assert refuse(large, cache, memory=130) == said
    assert boot(large, cache, memory=minimum_memory(large)).numbers["data"] == 0x12345678


@pytest.mark.parametrize(
    ("append", "reason"),
    [
        ("a=b", "the command line has no howto="),
        ("xhowto=1", "the command line has no howto="),
        ("howto=", "howto= wants a number"),
        ("howto= a=b", "howto= wants a number"),
        ("howto=12q a=b", "howto= wants a number of 32 bits"),
        ("howto=0x100000000", "howto= wants a number of 32 bits"),
        ("howto=4294967296", "howto= wants a number of 32 bits"),
        ("howto=1 word", "the command line has a word that is not name=value"),
        ("howto=1 =value", "the command line has a word that is not name=value"),
        ('howto=1 a="b', "the command line has a quote that is not closed"),
        ('howto=1 a="b\\"', "the command line has a quote that is not closed"),
        ('howto=1 a="b"c', "the command line goes on right behind a closing quote"),
    ],
)
def test_refuses_a_bad_command_line(kernel: Path, cache: Path, append: str, reason: str) -> None:
    stub = direct_boot(kernel, environment={}, cache=cache).kernel
    status, console = run_qemu(["-kernel", str(stub), "-initrd", str(kernel), "-append", append])
    assert (status, console) == (REFUSED, f"dfly-harness stub: {reason}\n")


def test_refuses_to_start_without_a_kernel(kernel: Path, cache: Path) -> None:
    how = direct_boot(kernel, environment={}, cache=cache)
    status, console = run_qemu(["-kernel", str(how.kernel), "-append", how.append])
    reason = "QEMU must be given -initrd KERNEL and -append 'howto=...'"
    assert (status, console) == (REFUSED, f"dfly-harness stub: {reason}\n")


def test_refuses_a_cpu_without_64_bit_mode(kernel: Path, cache: Path) -> None:
    how = direct_boot(kernel, environment={}, cache=cache)
    argv = ["-kernel", str(how.kernel), "-initrd", str(how.initrd), "-append", how.append]
    for cpu in ("qemu64,-lm", "pentium3"):
        status, console = run_qemu([*argv, "-cpu", cpu])
        reason = "this CPU has no 64-bit mode; give QEMU another -cpu"
        assert (status, console) == (REFUSED, f"dfly-harness stub: {reason}\n")


def test_without_an_exit_device_the_stub_halts(cache: Path, kernel: Path) -> None:
    stub = direct_boot(kernel, environment={}, cache=cache).kernel
    argv = [find_qemu(), "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "128", "-serial", "stdio"]
    with subprocess.Popen([*argv, "-kernel", str(stub)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"dfly-harness stub: QEMU must be given")
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
        finally:
            process.kill()
        assert process.stdout.read() == b""


# what never gets as far as QEMU


@pytest.mark.parametrize("name", ["", "a b", "a=b", 'a"b', "a\\b", "a\nb", "a\0b", "ä", "x" * 129])
def test_bad_names_are_refused(kernel: Path, cache: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a kernel environment variable"):
        direct_boot(kernel, environment={name: "1"}, cache=cache)


@pytest.mark.parametrize("value", ["two\nlines", "nul\0", "tab\t", "ü"])
def test_bad_values_are_refused(kernel: Path, cache: Path, value: str) -> None:
    with pytest.raises(UsageError, match=r"kern\.x must be one line of printable ASCII"):
        direct_boot(kernel, environment={"kern.x": value}, cache=cache)


def test_too_much_environment_is_refused(kernel: Path, cache: Path) -> None:
    many = {f"v{number}": "" for number in range(512)}
    with pytest.raises(UsageError, match="at most 511"):
        direct_boot(kernel, environment=many, cache=cache)
    with pytest.raises(UsageError, match="at most 131071 can be handed over"):
        direct_boot(kernel, environment={"long": "x" * 131_072}, cache=cache)


def test_the_longest_allowed_command_line_is_accepted_by_the_host(kernel: Path, cache: Path) -> None:
    spare = 131_071 - len(direct_boot(kernel, environment={"long": ""}, cache=cache).append)
    assert boot(kernel, cache, environment={"long": "x" * spare}).variables[-1] == "long=" + "x" * spare


def test_a_missing_kernel_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"kernel {tmp_path}/nowhere does not exist"):
        direct_boot(tmp_path / "nowhere", environment={}, cache=tmp_path)


def test_spaces_everywhere_are_refused(kernel: Path, tmp_path: Path) -> None:
    odd = tmp_path / "my kernel"
    os.link(kernel, odd)
    with pytest.raises(UsageError, match="from a path with spaces"):
        direct_boot(odd, environment={}, cache=tmp_path / "my cache")
